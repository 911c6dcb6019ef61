/* assets.c - loads and checks a stage's inputs and derives its sizes (assets.h).
 * Thread: the caller's, blocking. Every asset is owned by opd_assets. */
#include "actors/run/assets.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "actors/checkpoint/checkpoint.h"
#include "actors/panel/panel_actor.h"
#include "core/base/check.h"
#include "core/base/file.h"
#include "core/base/rng.h"
#include "models/model_config.h"
#include "models/reader.h"
#include "models/safetensors.h"
#include "opd/actor.h"
#include "opd/log.h"

enum { SAMPLES_MAX = 1 << 24 }; /* in work at once */

const opd_config_teacher *opd_stage_teacher(const opd_config_stage *config) {
    uint8_t route[OPD_CONFIG_TEACHERS_MAX];
    bool wanted = config->opd.enabled && config->opd.type != OPD_CONFIG_OPD_TYPE_CONSTANT;
    size_t count = wanted ? opd_config_route(config, "", route, NULL) : 0;
    return count == 0 ? NULL : &config->teachers[route[0]];
}

opd_err opd_teacher_dir(const opd_config_teacher *teacher, char *out, size_t out_size) {
    int n = teacher->ckpt_step < 0
                ? snprintf(out, out_size, "%s", teacher->path)
                : snprintf(out, out_size, "%s/step-%06" PRId64, teacher->path, teacher->ckpt_step);
    if (n < 0 || (size_t)n >= out_size)
        return opd_fail(OPD_ERR_LIMIT, "teachers.%s.path is too long", teacher->name);
    return OPD_OK;
}

/* ---- models ---- */

static opd_model_config init_config(const opd_config_init *init, const opd_tokenizer *tokenizer) {
    return (opd_model_config){
        .vocab_size = opd_tokenizer_vocab_size(tokenizer),
        .hidden_size = (int32_t)init->hidden_size,
        .intermediate_size = (int32_t)init->intermediate_size,
        .layers = (int32_t)init->layers, .heads = (int32_t)init->heads,
        .kv_heads = (int32_t)init->kv_heads, .head_dim = (int32_t)init->head_dim,
        .max_position = (int32_t)init->max_position, .rope_theta = init->rope_theta,
        .rms_eps = init->rms_eps, .tie_embeddings = init->tie_embeddings,
        .bos_id = opd_tokenizer_bos(tokenizer), .eos_id = opd_tokenizer_eos(tokenizer),
        .pad_id = opd_tokenizer_pad(tokenizer)};
}

static opd_err check_tokenizer(const opd_assets *a, const char *dir) {
    const opd_model_config *m = &a->model->config;
    if (opd_tokenizer_vocab_size(a->tokenizer) > m->vocab_size)
        return opd_fail(OPD_ERR_MISMATCH, "%s: the tokenizer has %d ids and the model %d; they do "
                        "not belong together", dir, opd_tokenizer_vocab_size(a->tokenizer),
                        m->vocab_size);
    if (opd_tokenizer_eos(a->tokenizer) != m->eos_id)
        return opd_fail(OPD_ERR_MISMATCH, "%s: EOS is id %d in the tokenizer and id %d in "
                        "config.json; correct eos_token_id", dir,
                        opd_tokenizer_eos(a->tokenizer), m->eos_id);
    return OPD_OK;
}

/* The model from a directory (the configured path, or a checkpoint to go on from). */
static opd_err open_model(opd_assets *a, const char *dir) {
    OPD_TRY(opd_tokenizer_open(dir, a->alloc, &a->tokenizer));
    OPD_TRY(opd_model_open(dir, a->alloc, &a->model));
    return check_tokenizer(a, dir);
}

/* A model with random weights; the same ones each time. */
static opd_err create_model(const opd_assets *a, opd_model **out) {
    opd_model_config config = init_config(&a->config->model.init, a->tokenizer);
    /* a stage's name is part of its seed, so that two models of one run start apart */
    uint64_t seed = (uint64_t)a->config->run.seed;
    for (const char *c = a->config->name; *c != '\0'; c++) seed = seed * 1099511628211u + (uint8_t)*c;
    return opd_err_prefix(opd_model_create(&config, seed, a->alloc, out), "model.init");
}

/* Goes on from the newest checkpoint when resuming, else from the configured start. */
static opd_err load_model(opd_assets *a, const char *checkpoint_dir, bool resume, char *out_from) {
    uint64_t step;
    out_from[0] = '\0';
    if (resume && opd_checkpoint_newest(checkpoint_dir, &step) == OPD_OK) {
        opd_checkpoint_path(checkpoint_dir, step, out_from);
        OPD_TRY(opd_checkpoint_read(out_from, a->alloc, &a->resumed));
        a->first_step = a->resumed.step;
        return open_model(a, out_from);
    }
    if (a->config->model.path[0] != '\0')
        return opd_err_prefix(open_model(a, a->config->model.path), "model.path");
    OPD_TRY(opd_tokenizer_create_bytes(a->alloc, &a->tokenizer));
    return create_model(a, &a->model);
}

/* Whether the weights of one compute in the graph of the other. */
static bool same_shape(const opd_model_config *a, const opd_model_config *b) {
    return a->vocab_size == b->vocab_size && a->hidden_size == b->hidden_size &&
           a->intermediate_size == b->intermediate_size && a->layers == b->layers &&
           a->heads == b->heads && a->kv_heads == b->kv_heads && a->head_dim == b->head_dim &&
           a->rope_theta == b->rope_theta && a->rms_eps == b->rms_eps &&
           a->tie_embeddings == b->tie_embeddings;
}

/* The reference model, where a KL term asks it: the configured one, or the weights that the stage
 * began with (a resumed one, too). The learner puts its weights into the student's graph. */
static opd_err load_reference(opd_assets *a) {
    const opd_config_stage *c = a->config;
    if (c->kind != OPD_CONFIG_KIND_RL || (c->train.kl_coef == 0 && c->train.kl_loss_coef == 0))
        return OPD_OK;
    bool own = c->model.ref_path[0] != '\0';
    const char *dir = own ? c->model.ref_path : c->model.path, *key = own ? "model.ref_path" : "model.path";
    if (dir[0] == '\0') return create_model(a, &a->reference);
    OPD_TRY(opd_err_prefix(opd_model_open(dir, a->alloc, &a->reference), "%s", key));
    if (same_shape(&a->reference->config, &a->model->config)) return OPD_OK;
    return opd_fail(OPD_ERR_MISMATCH, "%s: %s is not of the student's shape; a reference is an "
                    "earlier state of the same model", key, dir);
}

/* A teacher must be about the same ids as the student. */
static opd_err check_teacher(const opd_assets *a, const opd_config_teacher *teacher,
                             const char *dir) {
    opd_model_config config;
    opd_tokenizer *tokenizer;
    OPD_TRY(opd_model_config_read(dir, &config));
    OPD_TRY(opd_tokenizer_open(dir, a->alloc, &tokenizer));
    bool same = opd_tokenizer_hash(tokenizer) == opd_tokenizer_hash(a->tokenizer);
    opd_tokenizer_destroy(tokenizer);
    const opd_model_config *s = &a->model->config, *t = &config;
    if (!same || s->vocab_size != t->vocab_size || s->eos_id != t->eos_id)
        return opd_fail(OPD_ERR_MISMATCH,
                        "teacher %s (%s) and student do not share a vocabulary: %s (vocabulary %d "
                        "and %d, EOS %d and %d). Distillation compares token by token; choose a "
                        "teacher of the student's family", teacher->name, dir,
                        same ? "sizes or EOS differ" : "the tokenizers differ", t->vocab_size,
                        s->vocab_size, t->eos_id, s->eos_id);
    return OPD_OK;
}

/* Checks the teachers that have a path here, before a child serves them; loads one that is to be in
 * this process. A server elsewhere is asked when it answers. */
static opd_err load_teachers(opd_assets *a) {
    const opd_config_stage *c = a->config;
    for (size_t i = 0; i < c->teacher_count; i++) {
        const opd_config_teacher *teacher = &c->teachers[i];
        if (!opd_config_teacher_used(c, i) || teacher->path[0] == '\0') continue;
        char dir[OPD_PATH_SIZE];
        OPD_TRY(opd_teacher_dir(teacher, dir, sizeof dir));
        OPD_TRY(opd_err_prefix(check_teacher(a, teacher, dir), "teachers.%s.path", teacher->name));
        if (c->opd.type == OPD_CONFIG_OPD_TYPE_MEGATRON) /* the only one (core/config/rules.c) */
            OPD_TRY(opd_model_open(dir, a->alloc, &a->teacher));
    }
    return OPD_OK;
}

/* ---- data ---- */

static const char *key_or_null(const char *key) { return key[0] != '\0' ? key : NULL; }

/* What is learnt from, or judged by, must have a key. */
static opd_err check_key(const opd_config_stage *c, const char *key, const char *name,
                         const char *meaning) {
    if (key[0] != '\0') return OPD_OK;
    return opd_fail(OPD_ERR_CONFIG, "stage %s: data.%s is empty; name the key of %s", c->name, name,
                    meaning);
}

/* The keys that a stage reads of its training problems. */
static opd_err train_keys(const opd_config_stage *c, const opd_config_record *record,
                          opd_jsonl_keys *out) {
    bool sft = c->kind == OPD_CONFIG_KIND_SFT, judged = c->reward.one.type != OPD_CONFIG_REWARD_TYPE_NONE;
    *out = opd_dataset_keys(record);
    if (sft && out->messages != NULL) {
        out->roles = c->data.loss_roles;
    } else if (sft) {
        OPD_TRY(check_key(c, record->response_key, "response_key", "the text that SFT learns to write"));
        out->response = record->response_key;
    } else if (judged) {
        OPD_TRY(check_key(c, record->label_key, "label_key", "the right answers"));
        out->label = record->label_key;
    }
    if (c->opd.enabled) {
        out->source = key_or_null(c->opd.teacher_key);
        opd_dataset_keys_privileged(record, out);
    }
    return OPD_OK;
}

/* Several sources go through the same permutation only if they are the same file: each has a seed of
 * its own. */
static opd_err open_train(opd_assets *a, const opd_dataset_options *common) {
    const opd_config_data *d = &a->config->data;
    size_t count = d->source_count > 0 ? d->source_count : 1;
    opd_dataset_options options[OPD_CONFIG_SOURCES_MAX];
    for (size_t i = 0; i < count; i++) {
        options[i] = *common;
        OPD_TRY(train_keys(a->config, d->source_count > 0 ? &d->sources[i].record : &d->record,
                           &options[i].keys));
        if (d->source_count == 0) continue;
        const opd_config_source *source = &d->sources[i];
        options[i].path = source->path;
        options[i].name = source->name;
        options[i].weight = source->weight;
        options[i].skip = (uint64_t)source->skip;
        options[i].limit = (uint64_t)source->limit;
        options[i].seed = opd_rng_at((uint64_t)d->seed, i, 0, 0);
    }
    return opd_err_prefix(opd_dataset_open_mixed(options, count, &a->train), "%s",
                          d->source_count > 0 ? "data.sources" : "data.path");
}

/* Held-out examples look like the training's. */
static opd_err open_validation(opd_assets *a, const opd_dataset_options *common) {
    const opd_config_stage *c = a->config;
    opd_dataset_options o = *common;
    if (c->kind != OPD_CONFIG_KIND_SFT || c->data.validation_path[0] == '\0') return OPD_OK;
    o.path = c->data.validation_path;
    o.skip = o.limit = 0;
    o.shuffle = false;
    OPD_TRY(train_keys(c, &c->data.record, &o.keys));
    OPD_TRY(opd_err_prefix(opd_dataset_open(&o, &a->validation), "data.validation_path"));
    if (!c->eval.require_disjoint) return OPD_OK;
    return opd_err_prefix(opd_dataset_check_disjoint(a->train, a->validation), "data.validation_path: "
                          "held-out examples must not be trained on (or set eval.require_disjoint to false)");
}

static opd_err load_data(opd_assets *a) {
    const opd_config_stage *c = a->config;
    const opd_config_data *d = &c->data;
    bool sft = c->kind == OPD_CONFIG_KIND_SFT;
    uint32_t longest = (uint32_t)a->model->config.max_position;
    opd_dataset_options train = {
        .path = d->path, .skip = (uint64_t)d->skip, .limit = (uint64_t)d->limit,
        .max_prompt_len = (uint32_t)d->max_prompt_len,
        .max_privileged_len = (uint32_t)d->max_privileged_len, .max_len = sft ? longest : longest - 1,
        .shuffle = d->shuffle, .seed = (uint64_t)d->seed, .tokenizer = a->tokenizer,
        .alloc = a->alloc};
    if (c->kind != OPD_CONFIG_KIND_EVAL) OPD_TRY(open_train(a, &train));
    OPD_TRY(open_validation(a, &train));
    OPD_TRY(opd_eval_sets_open(c, a->tokenizer, longest - 1, a->alloc, &a->evals));
    if (c->train.keep_best[0] != '\0' && c->kind != OPD_CONFIG_KIND_EVAL)
        OPD_TRY(opd_eval_metric_find(&a->evals, c->train.keep_best, &a->best));
    for (size_t i = 0; a->train != NULL && c->eval.require_disjoint && i < a->evals.count; i++)
        OPD_TRY(opd_err_prefix(opd_dataset_check_disjoint(a->train, a->evals.set[i].dataset),
                               "stage %s: held-out problems must not be trained on (or set "
                               "eval.require_disjoint to false)", c->name));
    return OPD_OK;
}

/* ---- sizes ---- */

static uint64_t longest_example(const opd_assets *a) {
    uint64_t held_out = a->validation != NULL ? a->validation->whole_max : 0;
    return held_out > a->train->whole_max ? held_out : a->train->whole_max;
}

static uint32_t longest_sequence(const opd_assets *a) {
    const opd_config_stage *c = a->config;
    uint64_t longest = 2;
    if (a->train != NULL) {
        longest = c->kind == OPD_CONFIG_KIND_SFT
                      ? longest_example(a)
                      : a->train->prompt_max + (uint64_t)c->rollout.max_response_len;
    }
    uint64_t eval = opd_eval_sets_longest(&a->evals);
    if (eval > longest) longest = eval;
    uint64_t most = (uint64_t)a->model->config.max_position;
    return (uint32_t)(longest < most ? longest : most);
}

/* The same as teachers see it: any response may follow the longest of the privileged prompts. */
static uint32_t longest_scored(const opd_assets *a, uint32_t max_len) {
    if (a->train == NULL || a->train->privileged_max == 0) return max_len;
    uint64_t response = (uint64_t)a->config->rollout.max_response_len;
    if (response > max_len - 1) response = max_len - 1;
    uint64_t longest = a->train->privileged_max + response;
    return longest > max_len ? (uint32_t)longest : max_len;
}

/* A teacher in this process must take what it is to score; a server is asked when it answers. */
static opd_err check_score_len(const opd_assets *a) {
    if (a->teacher == NULL || (uint32_t)a->teacher->config.max_position >= a->sizes.score_len) return OPD_OK;
    return opd_fail(OPD_ERR_CONFIG, "stage %s: the teacher takes %d tokens, and is to score %u: a prompt%s and "
                    "a response of up to %" PRId64 " tokens; lower rollout.max_response_len%s",
                    a->config->name, a->teacher->config.max_position, a->sizes.score_len,
                    a->train->privileged_max > 0 ? " (privileged: up to data.max_privileged_len)" : "",
                    a->config->rollout.max_response_len,
                    a->train->privileged_max > 0 ? " or data.max_privileged_len" : "");
}

/* Every bound of the stage. The memory of messages follows from window_bytes (held by link
 * credits) and messages_max (envelopes); that of sequences from slots * max_len. */
/* As configured, but no more than all samples in work need. */
static uint64_t teacher_cache_bytes(const opd_assets *a, const opd_sizes *s) {
    if (a->teacher == NULL) return 0;
    uint64_t page_bytes = opd_reader_page_floats(&a->teacher->config) * sizeof(float);
    uint64_t pages = (uint64_t)s->window_msgs * ((s->score_len + OPD_KV_PAGE - 1) / OPD_KV_PAGE);
    uint64_t wanted = (uint64_t)a->config->device.teacher_cache_mb << 20;
    return wanted < pages * page_bytes ? wanted : pages * page_bytes;
}

/* Likely ids that the teacher lists of each token: those that are compared, or the vocabulary. */
static uint32_t teacher_k(const opd_assets *a) {
    const opd_config_opd *o = &a->config->opd;
    bool whole = o->signal == OPD_CONFIG_SIGNAL_TOPK && opd_stage_support(o) == OPD_SUPPORT_FULL;
    if (!o->enabled) return 0;
    return (uint32_t)(whole ? a->model->config.vocab_size : o->log_prob_top_k);
}

/* Likely ids of the student about which the teacher is asked, since it may not list them. */
static uint32_t asked_k(const opd_assets *a) {
    const opd_config_opd *o = &a->config->opd;
    return o->enabled && opd_support_asks(opd_stage_support(o)) ? (uint32_t)o->log_prob_top_k : 0;
}

static opd_sizes sizes_of(const opd_assets *a) {
    const opd_config_stage *c = a->config;
    bool policy = c->kind == OPD_CONFIG_KIND_RL;
    opd_sizes s = {.max_len = longest_sequence(a), .slots = (uint32_t)c->rollout.slots};
    s.score_len = longest_scored(a, s.max_len);
    s.batch_prompts = (uint32_t)(policy ? c->rollout.batch_prompts : c->train.batch_size);
    s.samples = policy ? (uint32_t)c->rollout.samples_per_prompt : 1;
    s.window_groups = s.batch_prompts * (policy ? (uint32_t)c->rollout.max_staleness + 1 : 2);
    s.spare_groups = policy ? (uint32_t)c->rollout.over_sampling_prompts - s.batch_prompts : 0;
    s.window_groups += s.spare_groups;
    s.window_msgs = s.window_groups * s.samples;
    /* per sample: ids, log-probs of student and teachers, their validity, top-k ids, spans, where
     * its scores are from, and its bodies */
    uint64_t teachers = c->teacher_count > 0 ? c->teacher_count : 1, chunk = opd_stage_chunk_tokens(c);
    s.parts = (uint32_t)(teachers * (2 + (chunk == 0 ? 0 : s.max_len / chunk)));
    s.teacher_k = teacher_k(a);
    s.asked_k = asked_k(a);
    uint64_t per_token = 11 + 5 * teachers + 8 * (uint64_t)s.teacher_k + 8 * (uint64_t)s.asked_k;
    uint64_t per_sample = OPD_MSG_BODY_MAX + s.parts * (uint64_t)OPD_PANEL_PROVENANCE_SIZE +
                          sizeof(int32_t) * (uint64_t)(a->train != NULL ? a->train->privileged_max : 0);
    s.window_bytes = s.window_msgs * (s.max_len * per_token + per_sample);
    /* prompts; three rollouts, a score, a reward, a joined sample per sample; requests and replies of
     * its scorings, early ones and warm-ups; chunks; requests and replies of evaluations; reports,
     * notes and the like */
    s.messages_max = s.window_groups + (7 + 2 * (uint32_t)teachers) * s.window_msgs +
                     (4 + 4 * (uint32_t)teachers) * s.slots + 4096;
    s.batch_tokens = (size_t)s.batch_prompts * s.samples * s.max_len;
    s.micro_tokens = (size_t)c->train.micro_batch_tokens;
    if (s.micro_tokens < s.max_len) s.micro_tokens = s.max_len;
    if (s.micro_tokens > s.batch_tokens) s.micro_tokens = s.batch_tokens;
    s.teacher_cache_bytes = teacher_cache_bytes(a, &s);
    return s;
}

/* The product of all that is in work must be a number of samples that can be held. */
static opd_err check_sizes(const opd_assets *a) {
    const opd_config_rollout *r = &a->config->rollout;
    uint64_t prompts = (uint64_t)(a->config->kind == OPD_CONFIG_KIND_RL
                                      ? r->batch_prompts : a->config->train.batch_size);
    double samples = (double)prompts * (double)r->samples_per_prompt *
                     ((double)r->max_staleness + 1);
    if (a->config->kind == OPD_CONFIG_KIND_RL)
        samples += (double)(r->over_sampling_prompts - r->batch_prompts) * (double)r->samples_per_prompt;
    if (samples <= SAMPLES_MAX) return OPD_OK;
    return opd_fail(OPD_ERR_CONFIG, "stage %s: batch_prompts * samples_per_prompt * (max_staleness "
                    "+ 1), with what over_sampling_prompts adds, is %.0f samples in work at once, the most is %d; lower one of them",
                    a->config->name, samples, SAMPLES_MAX);
}

static uint64_t steps_of(const opd_assets *a) {
    const opd_config_train *t = &a->config->train;
    if (t->steps > 0) return (uint64_t)t->steps;
    uint64_t rows = a->train->count * (uint64_t)(t->epochs > 0 ? t->epochs : 1);
    return (rows + a->sizes.batch_prompts - 1) / a->sizes.batch_prompts;
}

/* ---- the learner ---- */

static opd_optimizer_config optimizer_of(const opd_config_train *t, uint64_t total_steps) {
    static const opd_schedule schedules[] = {
        [OPD_CONFIG_LR_SCHEDULE_CONSTANT] = OPD_SCHEDULE_CONSTANT,
        [OPD_CONFIG_LR_SCHEDULE_LINEAR] = OPD_SCHEDULE_LINEAR,
        [OPD_CONFIG_LR_SCHEDULE_COSINE] = OPD_SCHEDULE_COSINE};
    return (opd_optimizer_config){
        .lr = t->lr, .beta1 = t->adam_beta1, .beta2 = t->adam_beta2, .eps = t->adam_eps,
        .weight_decay = t->weight_decay, .clip_norm = t->clip_grad,
        .schedule = schedules[t->lr_schedule], .warmup_steps = (uint64_t)t->warmup_steps,
        .total_steps = total_steps, .min_lr_ratio = t->min_lr_ratio};
}

static opd_err create_learner(opd_assets *a) {
    const opd_config_stage *c = a->config;
    const opd_config_train *t = &c->train;
    bool policy = c->kind == OPD_CONFIG_KIND_RL;
    uint64_t shares = policy ? (uint64_t)t->optimizer_steps_per_batch : 1;
    opd_learner_options options = {
        .lm = a->lm, .kernels = a->trainer_kernels, .model = a->model,
        .objective = policy ? OPD_OBJECTIVE_POLICY : OPD_OBJECTIVE_SFT,
        .micro_batch_tokens = a->sizes.micro_tokens,
        .samples_max = (size_t)a->sizes.batch_prompts * a->sizes.samples,
        .tokens_max = a->sizes.batch_tokens,
        .teacher_k = a->sizes.teacher_k, .asked_k = a->sizes.asked_k,
        .teachers_max = c->teacher_count > 0 ? c->teacher_count : 1,
        .steps_per_batch = (uint32_t)shares,
        .ref_params = a->reference != NULL ? a->reference->params : NULL,
        .optimizer = optimizer_of(t, a->steps * shares), .nonfinite = a->resumed.skipped_steps,
        .unscored = a->resumed.unscored_batches, .alloc = a->alloc};
    opd_stage_objective(c, &options);
    if (policy) OPD_TRY(opd_stage_prove(c, &options));
    return opd_err_prefix(opd_learner_create(&options, &a->learner), "train");
}

static opd_err create_kernels(opd_assets *a) {
    const opd_config_device *d = &a->config->device;
    OPD_TRY(opd_kernels_create_cpu(OPD_CPU_ISA_AUTO, (size_t)d->rollout_threads, a->alloc,
                                   &a->rollout_kernels));
    if (a->config->kind != OPD_CONFIG_KIND_EVAL)
        OPD_TRY(opd_kernels_create_cpu(OPD_CPU_ISA_AUTO, (size_t)d->trainer_threads, a->alloc,
                                       &a->trainer_kernels));
    if (a->evals.beside && a->config->kind == OPD_CONFIG_KIND_RL)
        OPD_TRY(opd_kernels_create_cpu(OPD_CPU_ISA_AUTO, (size_t)d->rollout_threads, a->alloc,
                                       &a->eval_kernels));
    if (a->teacher != NULL)
        OPD_TRY(opd_kernels_create_cpu(OPD_CPU_ISA_AUTO, (size_t)d->teacher_threads, a->alloc,
                                       &a->scorer_kernels));
    return OPD_OK;
}

static opd_err check_top_k(const opd_assets *a) {
    const opd_config_opd *o = &a->config->opd;
    if (!o->enabled || o->log_prob_top_k <= a->model->config.vocab_size) return OPD_OK;
    return opd_fail(OPD_ERR_CONFIG, "stage %s: opd.log_prob_top_k is %" PRId64 " and the "
                    "vocabulary has %d ids; lower it", a->config->name, o->log_prob_top_k,
                    a->model->config.vocab_size);
}

static opd_err assets_fill(opd_assets *a, const char *checkpoint_dir, bool resume) {
    char from[OPD_PATH_SIZE];
    OPD_TRY(load_model(a, checkpoint_dir, resume, from));
    (void)snprintf(a->tokenizer_hash, sizeof a->tokenizer_hash, "%016" PRIx64,
                   opd_tokenizer_hash(a->tokenizer));
    OPD_TRY(check_top_k(a));
    OPD_TRY(load_reference(a));
    OPD_TRY(load_teachers(a));
    OPD_TRY(load_data(a));
    OPD_TRY(check_sizes(a));
    a->sizes = sizes_of(a);
    OPD_TRY(check_score_len(a));
    OPD_TRY(create_kernels(a));
    if (a->config->kind == OPD_CONFIG_KIND_EVAL) return OPD_OK;
    a->steps = steps_of(a);
    OPD_TRY(create_learner(a));
    if (from[0] == '\0') return OPD_OK;
    opd_optimizer *optimizer = opd_learner_optimizer(a->learner);
    optimizer->step = a->resumed.optimizer_step;
    OPD_LOG_INFO("stage %s goes on from %s", a->config->name, from);
    OPD_TRY(opd_checkpoint_read_moments(from, a->model, optimizer, a->alloc));
    opd_critic *critic = opd_learner_critic(a->learner);
    if (critic == NULL) return OPD_OK;
    critic->optimizer->step = a->resumed.optimizer_step; /* they step together */
    return opd_checkpoint_read_critic(from, &critic->head, critic->optimizer, a->alloc);
}

opd_err opd_assets_open(opd_assets *assets, const opd_config_stage *config,
                        const char *checkpoint_dir, bool resume, const opd_lm_ops *lm,
                        const opd_alloc *alloc) {
    *assets = (opd_assets){.config = config, .lm = lm, .alloc = alloc};
    opd_err err = assets_fill(assets, checkpoint_dir, resume);
    if (err != OPD_OK) opd_assets_close(assets);
    return err;
}

void opd_assets_close(opd_assets *a) {
    opd_learner_destroy(a->learner);
    opd_kernels_destroy(a->rollout_kernels);
    opd_kernels_destroy(a->trainer_kernels);
    opd_kernels_destroy(a->scorer_kernels);
    opd_kernels_destroy(a->eval_kernels);
    opd_dataset_close(a->train);
    opd_eval_sets_close(&a->evals);
    opd_dataset_close(a->validation);
    opd_model_destroy(a->teacher);
    opd_model_destroy(a->reference);
    opd_model_destroy(a->model);
    opd_tokenizer_destroy(a->tokenizer);
    *a = (opd_assets){.config = NULL};
}
