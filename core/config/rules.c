/* rules.c - derived defaults, and what must hold between keys. See load.h.
 *
 * The rules on OPD are those of the system it comes from (4 to 7 there; 1 and 2 are ranges
 * of keys, 3 is "only rl stages distil", 8 and 9 do not apply) plus the combinations that
 * cannot learn, each refused with its reason. What needs the model or the teacher (top-k
 * above the vocabulary, a temperature the teacher cannot score at) is checked when they are
 * there, not here. */
#include <stdio.h>
#include <string.h>

#include "core/base/check.h"
#include "core/base/file.h"
#include "core/config/load.h"

bool opd__kind_uses(opd_config_kind kind, const char *section) {
    bool trains = kind == OPD_CONFIG_KIND_SFT || kind == OPD_CONFIG_KIND_RL;
    if (strcmp(section, "model") == 0 || strcmp(section, "eval") == 0)
        return trains || kind == OPD_CONFIG_KIND_EVAL;
    if (strcmp(section, "data") == 0) return trains;
    if (strcmp(section, "teachers") == 0) return kind == OPD_CONFIG_KIND_RL;
    return false;
}

/* The file's name without folders and suffix, with what a name may not have made '-'. */
static opd_err run_name_derive(opd__draft *draft, const char *file) {
    const char *slash = strrchr(file, '/');
    const char *from = slash != NULL ? slash + 1 : file;
    const char *dot = strrchr(from, '.');
    size_t size = dot != NULL && dot > from ? (size_t)(dot - from) : strlen(from);
    if (size > OPD_CONFIG_NAME_MAX) size = OPD_CONFIG_NAME_MAX;
    char *name = opd__arena_text(draft->arena, from, size);
    if (name == NULL) return opd_fail(OPD_ERR_NOMEM, "out of memory");
    for (size_t i = 0; i < size; i++) {
        const char one[2] = {name[i], 0};
        if (!opd__name_legal(one)) name[i] = '-';
    }
    draft->stage.run.name = size > 0 ? name : "run";
    return OPD_OK;
}

/* A template or a conversation takes the place of the key of the prompt, which then means nothing. */
static void record_clear(opd_config_record *record) {
    if (record->prompt_template[0] != 0 || record->messages_key[0] != 0)
        record->prompt_key = opd__key_find("data.prompt_key")->initial;
}

/* What a file's record does not say is as in data; where the prompt is counts as one thing. */
static void record_derive(opd_config_record *record, const opd_config_record *data) {
    if (record->prompt_key[0] == 0 && record->prompt_template[0] == 0 && record->messages_key[0] == 0) {
        record->prompt_key = data->prompt_key;
        record->prompt_template = data->prompt_template;
        record->messages_key = data->messages_key;
    }
    record_clear(record);
    if (record->label_key[0] == 0) record->label_key = data->label_key;
    if (record->response_key[0] == 0) record->response_key = data->response_key;
}

static void source_derive(opd_config_record *record, const opd_config_record *data) {
    record_derive(record, data);
    if (record->privileged_key[0] != 0 || record->privileged_template[0] != 0 ||
        record->privileged_messages_key[0] != 0)
        return;
    record->privileged_key = data->privileged_key;
    record->privileged_template = data->privileged_template;
    record->privileged_messages_key = data->privileged_messages_key;
}

/* A key of item `item` that no layer gave. */
static bool item_lacks(opd__draft *draft, const char *path, size_t item) {
    return opd__draft_origin(draft, opd__key_find(path), item)->node == NULL;
}

static void set_derive(opd__draft *draft, size_t item) {
    const opd_config_eval *e = &draft->stage.eval;
    opd_config_eval_set *set = &draft->stage.eval.sets[item];
    set->record.response_key = ""; /* no key gives these */
    set->record.privileged_key = set->record.privileged_template = set->record.privileged_messages_key = "";
    record_derive(&set->record, &draft->stage.data.record);
    if (item_lacks(draft, "eval.sets.*.interval", item)) set->interval = e->interval;
    if (item_lacks(draft, "eval.sets.*.samples", item)) set->samples = e->samples;
    if (item_lacks(draft, "eval.sets.*.temperature", item)) set->temperature = e->temperature;
    if (item_lacks(draft, "eval.sets.*.top_p", item)) set->top_p = e->top_p;
    if (item_lacks(draft, "eval.sets.*.top_k", item)) set->top_k = e->top_k;
    if (item_lacks(draft, "eval.sets.*.max_response_len", item))
        set->max_response_len = e->max_response_len;
}

opd_err opd__draft_derive(opd__draft *draft, const char *file) {
    opd_config_stage *s = &draft->stage;
    opd_config_init *init = &s->model.init;
    const opd__key *deadline = opd__key_find("teachers.*.deadline_s");
    if (s->run.name[0] == 0) OPD_TRY(run_name_derive(draft, file));
    record_clear(&s->data.record);
    for (size_t i = 0; i < s->data.source_count; i++)
        source_derive(&s->data.sources[i].record, &s->data.record);
    if (!opd__draft_given(draft, "data.seed")) s->data.seed = s->run.seed;
    if (!opd__draft_given(draft, "rollout.seed")) s->rollout.seed = s->run.seed;
    if (!opd__draft_given(draft, "rollout.filter_max_dropped"))
        s->rollout.filter_max_dropped = 4 * s->rollout.batch_prompts;
    if (!opd__draft_given(draft, "rollout.over_sampling_prompts"))
        s->rollout.over_sampling_prompts = s->rollout.batch_prompts;
    if (!opd__draft_given(draft, "arithmetic.seed")) s->arithmetic.seed = s->run.seed;
    if (init->kv_heads == 0) init->kv_heads = init->heads;
    if (init->head_dim == 0 && init->heads > 0) init->head_dim = init->hidden_size / init->heads;
    if (s->train.steps == 0 && s->train.epochs == 0) s->train.epochs = 1;
    opd__train_derive(draft);
    if (!opd__draft_given(draft, "eval.max_response_len"))
        s->eval.max_response_len = s->rollout.max_response_len;
    for (size_t i = 0; i < s->eval.set_count; i++) set_derive(draft, i);
    for (size_t i = 0; i < s->teacher_count; i++)
        if (opd__draft_origin(draft, deadline, i)->node == NULL)
            s->teachers[i].deadline_s = 10 * s->teachers[i].timeout_s;
    if (s->opd.signal == OPD_CONFIG_SIGNAL_TOPK) {
        if (!opd__draft_given(draft, "opd.kl_coef")) s->opd.kl_coef = 0;
        if (!opd__draft_given(draft, "opd.loss_coef")) s->opd.loss_coef = 1;
    }
    if (s->opd.teacher[0] == 0 && s->teacher_count == 1) s->opd.teacher = s->teachers[0].name;
    return OPD_OK;
}

/* The shape of a model with random weights. */
static opd_err init_check(opd__draft *draft) {
    static const char *const needed[] = {"model.init.hidden_size", "model.init.intermediate_size",
                                         "model.init.layers", "model.init.heads"};
    const opd_config_init *init = &draft->stage.model.init;
    if (init->hidden_size == 0 && init->layers == 0 && init->heads == 0)
        return opd__draft_fail(draft, "model.path", 0,
                               "there is no model; give the path of a Hugging Face directory, or "
                               "the shape of a random one in model.init");
    for (size_t i = 0; i < OPD_COUNTOF(needed); i++) {
        const opd__key *key = opd__key_find(needed[i]);
        if (opd__value_empty(key, opd__key_field(key, &draft->stage, 0)))
            return opd__draft_fail(draft, needed[i], 0, "a random model needs it, above 0");
    }
    if (init->heads % init->kv_heads != 0)
        return opd__draft_fail(draft, "model.init.kv_heads", 0, "%lld does not divide the %lld "
                               "heads", (long long)init->kv_heads, (long long)init->heads);
    if (!opd__draft_given(draft, "model.init.head_dim") && init->hidden_size % init->heads != 0)
        return opd__draft_fail(draft, "model.init.hidden_size", 0, "%lld is not a multiple of the "
                               "%lld heads; change it or give model.init.head_dim",
                               (long long)init->hidden_size, (long long)init->heads);
    if (init->head_dim == 0 || init->head_dim % 2 != 0)
        return opd__draft_fail(draft, "model.init.head_dim", 0,
                               "%lld is odd or 0; rotary embedding turns pairs",
                               (long long)init->head_dim);
    return OPD_OK;
}

/* The keys of TLS belong to an https server. */
static opd_err tls_check(opd__draft *draft, size_t i) {
    const opd_config_teacher *t = &draft->stage.teachers[i];
    const char *given = t->ca_file[0] != 0     ? "teachers.*.ca_file"
                        : t->cert_file[0] != 0 ? "teachers.*.cert_file"
                        : t->key_file[0] != 0  ? "teachers.*.key_file"
                        : !t->verify           ? "teachers.*.verify"
                                               : NULL;
    bool https = strncmp(t->url, "https://", 8) == 0 || strstr(t->urls, "https://") != NULL;
    if (given != NULL && !https)
        return opd__draft_fail(draft, given, i, "is about an https server; give teachers.%s.url with "
                               "https://, or leave it out", t->name);
    if (t->key_file[0] != 0 && t->cert_file[0] == 0)
        return opd__draft_fail(draft, "teachers.*.key_file", i, "is a key without a certificate; give "
                               "cert_file");
    return OPD_OK;
}

/* Whether a text can name an environment variable. */
static bool is_variable(const char *text) {
    if (text[0] >= '0' && text[0] <= '9') return false;
    for (; *text != 0; text++)
        if (!(*text >= 'A' && *text <= 'Z') && !(*text >= 'a' && *text <= 'z') &&
            !(*text >= '0' && *text <= '9') && *text != '_')
            return false;
    return true;
}

/* Where the key of a server is. The text is not repeated: it might be the key itself. */
static opd_err api_key_check(opd__draft *draft, size_t i) {
    const opd_config_teacher *t = &draft->stage.teachers[i];
    bool env = t->api_key_env[0] != 0;
    const char *given = env ? "teachers.*.api_key_env" : "teachers.*.api_key_file";
    if (!env && t->api_key_file[0] == 0) return OPD_OK;
    if (!is_variable(t->api_key_env))
        return opd__draft_fail(draft, given, i, "is the name of an environment variable (letters, "
                               "digits, '_'); a key itself does not belong into a configuration");
    if (t->url[0] == 0 && t->urls[0] == 0)
        return opd__draft_fail(draft, given, i, "is about a running server; give teachers.%s.url, or "
                               "leave it out", t->name);
    return OPD_OK;
}

/* Ranges that another key bounds. */
static opd_err bounds_check(opd__draft *draft) {
    const opd_config_stage *s = &draft->stage;
    for (size_t i = 0; i < s->teacher_count; i++) {
        const opd_config_teacher *teacher = &s->teachers[i];
        if (teacher->deadline_s < teacher->timeout_s)
            return opd__draft_fail(draft, "teachers.*.deadline_s", i, "%g s for a sample is less "
                                   "than timeout_s, %g s for one attempt", teacher->deadline_s,
                                   teacher->timeout_s);
        if (teacher->backoff_max_ms < teacher->backoff_ms)
            return opd__draft_fail(draft, "teachers.*.backoff_max_ms", i, "is less than backoff_ms");
        if (teacher->protocol != OPD_CONFIG_PROTOCOL_SGLANG && teacher->url[0] == 0 &&
            teacher->urls[0] == 0)
            return opd__draft_fail(draft, "teachers.*.protocol", i, "is about a running server; give "
                                   "teachers.%s.url, or leave it out", teacher->name);
        OPD_TRY(tls_check(draft, i));
        OPD_TRY(api_key_check(draft, i));
    }
    return OPD_OK;
}

/* What is wrong with a name that stands for a teacher. */
static opd_err unknown_teacher(opd__draft *draft, const char *key, size_t item, const char *name) {
    const opd_config_stage *s = &draft->stage;
    size_t best = 0;
    for (size_t i = 1; i < s->teacher_count; i++)
        if (opd__edit_distance(name, s->teachers[i].name) <
            opd__edit_distance(name, s->teachers[best].name)) best = i;
    return opd__draft_fail(draft, key, item, "there is no teacher '%s'; the nearest is %s", name,
                           s->teachers[best].name);
}

/* opd.teacher: each name is a teacher's, and stands there once. */
static opd_err names_check(opd__draft *draft) {
    const opd_config_stage *s = &draft->stage;
    char name[OPD_CONFIG_WORD_SIZE], other[OPD_CONFIG_WORD_SIZE];
    for (size_t i = 0; opd_config_word_at(s->opd.teacher, i, name, sizeof name); i++) {
        if (opd_config_teacher_find(s, name) == NULL)
            return unknown_teacher(draft, "opd.teacher", 0, name);
        for (size_t j = 0; j < i && opd_config_word_at(s->opd.teacher, j, other, sizeof other); j++)
            if (strcmp(name, other) == 0)
                return opd__draft_fail(draft, "opd.teacher", 0, "'%s' stands there twice; give it a "
                                       "teachers.%s.weight instead", name, name);
    }
    return OPD_OK;
}

/* How a teacher shares the work with others. */
static opd_err sharing_check(opd__draft *draft, size_t item) {
    const opd_config_stage *s = &draft->stage;
    const opd_config_teacher *t = &s->teachers[item];
    char word[OPD_CONFIG_WORD_SIZE], other[OPD_CONFIG_WORD_SIZE];
    if (t->fallback[0] != 0 && opd_config_teacher_find(s, t->fallback) == NULL)
        return unknown_teacher(draft, "teachers.*.fallback", item, t->fallback);
    if (strcmp(t->fallback, t->name) == 0)
        return opd__draft_fail(draft, "teachers.*.fallback", item, "names the teacher itself");
    if (t->serves[0] != 0 && s->opd.teacher_key[0] == 0 && s->data.source_count == 0)
        return opd__draft_fail(draft, "teachers.*.serves", item, "means values of opd.teacher_key or names "
                               "of data.sources, and neither is given");
    for (size_t i = 0; opd_config_word_at(t->serves, i, word, sizeof word); i++)
        for (size_t j = 0; j < i && opd_config_word_at(t->serves, j, other, sizeof other); j++)
            if (strcmp(word, other) == 0)
                return opd__draft_fail(draft, "teachers.*.serves", item, "'%s' stands there twice", word);
    if (t->chunk_tokens > 0 && t->protocol == OPD_CONFIG_PROTOCOL_VLLM)
        return opd__draft_fail(draft, "teachers.*.chunk_tokens", item, "vLLM computes the whole prefix "
                               "again for each chunk (its prompt_logprobs skip the prefix cache); leave "
                               "it out");
    return OPD_OK;
}

/* A teacher that scores has what its type needs (rules 5 and 6). */
static opd_err source_check(opd__draft *draft, size_t item, const char *remedy) {
    const opd_config_teacher *teacher = &draft->stage.teachers[item];
    bool in_process = draft->stage.opd.type == OPD_CONFIG_OPD_TYPE_MEGATRON;
    if (teacher->student != OPD_CONFIG_STUDENT_NONE) return OPD_OK; /* rules_self.c */
    if (in_process && teacher->path[0] == 0)
        return opd__draft_fail(draft, "teachers.*.path", item, "opd.type megatron loads the "
                               "teacher from here; %s", remedy);
    if (!in_process && teacher->path[0] == 0 && teacher->url[0] == 0 && teacher->urls[0] == 0)
        return opd__draft_fail(draft, "teachers.*.url", item, "opd.type sglang needs a server; %s",
                               remedy);
    if (in_process && teacher->path[0] != '@' && !opd_file_exists(teacher->path)) {
        opd_err err = opd__draft_fail(draft, "teachers.*.path", item, "%s does not exist; give "
                                      "the teacher's Hugging Face directory", teacher->path);
        return err == OPD_ERR_CONFIG ? OPD_ERR_NOT_FOUND : err;
    }
    return OPD_OK;
}

/* All that may be under way has room in one table; a bound over all needs no sum. */
static opd_err inflight_check(opd__draft *draft) {
    const opd_config_stage *s = &draft->stage;
    int64_t all = 0;
    for (size_t i = 0; i < s->teacher_count && s->opd.teacher_inflight_max == 0; i++) {
        all += opd_config_teacher_used(s, i) ? s->teachers[i].max_inflight : 0;
        if (all > OPD_CONFIG_TEACHER_INFLIGHT_MAX)
            return opd__draft_fail(draft, "teachers.*.max_inflight", i, "the teachers may be asked %lld "
                                   "questions at the same time, and %d are possible; lower it, or give "
                                   "opd.teacher_inflight_max", (long long)all,
                                   OPD_CONFIG_TEACHER_INFLIGHT_MAX);
    }
    return OPD_OK;
}

/* The teachers that distil. */
static opd_err teacher_check(opd__draft *draft) {
    const opd_config_stage *s = &draft->stage;
    bool in_process = s->opd.type == OPD_CONFIG_OPD_TYPE_MEGATRON;
    const char *remedy = in_process ? "give teachers.NAME.path or --opd-teacher-load"
                                    : "give teachers.NAME.url, teachers.NAME.path or --rm-url";
    size_t used = 0;
    if (s->teacher_count == 0)
        return opd__draft_fail(draft, "opd.type", 0, "there is no teacher; %s", remedy);
    if (s->opd.teacher[0] == 0)
        return opd__draft_fail(draft, "opd.teacher", 0, "there are %zu teachers; name the one "
                               "that distils, or several", s->teacher_count);
    OPD_TRY(names_check(draft));
    for (size_t i = 0; i < s->teacher_count; i++) OPD_TRY(sharing_check(draft, i));
    for (size_t i = 0; i < s->teacher_count; i++) {
        if (!opd_config_teacher_used(s, i)) continue;
        used++;
        OPD_TRY(source_check(draft, i, remedy));
    }
    if (in_process && used > 1)
        return opd__draft_fail(draft, "opd.type", 0, "megatron is one teacher in this process, and %zu "
                               "are used; serve them (opd.type sglang, teachers.NAME.path or url)", used);
    return in_process ? OPD_OK : inflight_check(draft);
}

static opd_err opd_check(opd__draft *draft) {
    const opd_config_stage *s = &draft->stage;
    if (!s->opd.enabled) {
        if (s->opd.only_reward)
            return opd__draft_fail(draft, "opd.only_reward", 0, "distillation is off; set "
                                   "opd.enabled: true (--use-opd) or remove it");
        return opd__self_check(draft);
    }
    if (s->opd.type == OPD_CONFIG_OPD_TYPE_NONE)
        return opd__draft_fail(draft, "opd.type", 0, "distillation is on; say where the teacher "
                               "runs: sglang (a server) or megatron (in this process)");
    if (s->opd.type != OPD_CONFIG_OPD_TYPE_CONSTANT) OPD_TRY(teacher_check(draft));
    OPD_TRY(opd__signal_check(draft));
    OPD_TRY(opd__self_check(draft));
    if (s->opd.only_reward && s->opd.kl_coef <= 0 && s->opd.loss_coef <= 0)
        return opd__draft_fail(draft, "opd.kl_coef", 0, "cannot learn: opd.only_reward drops the "
                               "reward's advantage, and a weight of 0 drops the teacher's; set it above 0, "
                               "or opd.only_reward: false");
    if (s->opd.only_reward && s->train.normalize_advantages)
        return opd__draft_fail(draft, "train.normalize_advantages", 0, "contradicts "
                               "opd.only_reward: whitening divides opd.kl_coef out again; set one of the "
                               "two to false");
    return OPD_OK;
}

/* Prompts beyond a batch that nothing would ever stand in for. */
static opd_err over_sampling_check(opd__draft *draft) {
    const opd_config_rollout *r = &draft->stage.rollout;
    if (r->over_sampling_prompts == r->batch_prompts) return OPD_OK;
    if (r->over_sampling_prompts < r->batch_prompts)
        return opd__draft_fail(draft, "rollout.over_sampling_prompts", 0, "is below "
                               "rollout.batch_prompts, which a batch needs");
    if (r->filter == OPD_CONFIG_FILTER_NONE)
        return opd__draft_fail(draft, "rollout.over_sampling_prompts", 0, "is for what a filter drops, and "
                               "there is none; set rollout.filter, or leave it out");
    if (r->max_staleness > 0)
        return opd__draft_fail(draft, "rollout.over_sampling_prompts", 0, "is for max_staleness 0: with %lld, "
                               "the prompts of later batches are in work already and stand in; leave it out",
                               (long long)r->max_staleness);
    return OPD_OK;
}

/* A filter that would drop every group. */
static opd_err filter_check(opd__draft *draft) {
    const opd_config_stage *s = &draft->stage;
    OPD_TRY(over_sampling_check(draft));
    if (s->rollout.filter == OPD_CONFIG_FILTER_NONE) return OPD_OK;
    if (s->rollout.samples_per_prompt == 1)
        return opd__draft_fail(draft, "rollout.filter", 0, "cannot learn: one answer has no spread, so "
                               "every group would be dropped; set rollout.samples_per_prompt to 2 or more");
    if (s->reward.one.type == OPD_CONFIG_REWARD_TYPE_NONE)
        return opd__draft_fail(draft, "rollout.filter", 0, "cannot learn: without a reward all are the "
                               "same, so every group would be dropped; set reward.type, or no filter");
    if (s->opd.only_reward)
        return opd__draft_fail(draft, "rollout.filter", 0, "contradicts opd.only_reward: it drops what only "
                               "the teacher can teach by a reward that is not learnt from");
    return OPD_OK;
}

/* What an rl stage learns from. */
static opd_err rl_check(opd__draft *draft) {
    const opd_config_stage *s = &draft->stage;
    OPD_TRY(opd_check(draft));
    OPD_TRY(filter_check(draft));
    OPD_TRY(opd__train_check(draft));
    OPD_TRY(opd__reward_check(draft));
    if (s->opd.enabled && (s->opd.kl_coef > 0 || s->opd.loss_coef > 0)) return OPD_OK;
    if (s->reward.one.type == OPD_CONFIG_REWARD_TYPE_NONE)
        return opd__draft_fail(draft, "reward.type", 0, "cannot learn: there is neither a reward "
                               "nor a teacher; set reward.type: math, or turn opd on");
    if (s->rollout.samples_per_prompt == 1 && opd__train_group_relative(&s->train))
        return opd__draft_fail(draft, "rollout.samples_per_prompt", 0, "cannot learn: a group of "
                               "1 has its own mean, so its %s advantage is always 0; use 2 or "
                               "more, or turn opd on", opd__estimator_name(s->train.estimator));
    return OPD_OK;
}

static opd_err data_check(opd__draft *draft) {
    const opd_config_stage *s = &draft->stage;
    if (s->data.path[0] == 0 && s->data.source_count == 0)
        return opd__draft_fail(draft, "data.path", 0, "a stage of kind %s needs a JSONL file, or "
                               "several in data.sources", opd_config_kind_name(s->kind));
    for (size_t i = 0; i < s->data.source_count; i++)
        if (s->data.sources[i].path[0] == 0)
            return opd__draft_fail(draft, "data.sources.*.path", i, "a source is a JSONL file; name it");
    for (size_t i = 0; s->data.source_count > 0 && i < 2; i++) {
        const char *key = i == 0 ? "data.skip" : "data.limit";
        if ((i == 0 ? s->data.skip : s->data.limit) > 0)
            return opd__draft_fail(draft, key, 0, "is about data.path; each of data.sources has its own");
    }
    return OPD_OK;
}

/* Sets of problems: files, and names that metrics.jsonl has no other meaning for. */
static opd_err eval_check(opd__draft *draft) {
    static const char *const taken[] = {"eval", "accuracy", "low", "high", "n", "response_len",
                                        "truncated_ratio"};
    const opd_config_eval *e = &draft->stage.eval;
    if (draft->stage.kind == OPD_CONFIG_KIND_EVAL && e->path[0] == 0 && e->set_count == 0)
        return opd__draft_fail(draft, "eval.path", 0, "a stage of kind eval needs a JSONL file");
    for (size_t i = 0; i < e->set_count; i++) {
        if (e->sets[i].path[0] == 0)
            return opd__draft_fail(draft, "eval.sets.*.path", i, "a set is a JSONL file; name it");
        for (size_t j = 0; j < OPD_COUNTOF(taken); j++)
            if (strcmp(e->sets[i].name, taken[j]) == 0)
                return opd__draft_fail(draft, "eval.sets.*.path", i, "eval/%s means something else "
                                       "in metrics.jsonl; give the set another name", taken[j]);
    }
    return OPD_OK;
}

opd_err opd__draft_check(opd__draft *draft) {
    opd_config_stage *s = &draft->stage;
    if (s->kind == OPD_CONFIG_KIND_ARITHMETIC && s->arithmetic.split_count == 0)
        return opd__draft_fail(draft, "arithmetic.seed", 0, "there is nothing to generate; give "
                               "arithmetic.splits, e.g. {train: 1000, test: 200}");
    if (s->kind != OPD_CONFIG_KIND_RL) s->opd.enabled = false;
    if (opd__kind_uses(s->kind, "model") && s->model.path[0] == 0) OPD_TRY(init_check(draft));
    if (opd__kind_uses(s->kind, "data")) OPD_TRY(data_check(draft));
    if (opd__kind_uses(s->kind, "eval")) OPD_TRY(eval_check(draft));
    OPD_TRY(bounds_check(draft));
    return s->kind == OPD_CONFIG_KIND_RL ? rl_check(draft) : OPD_OK;
}
