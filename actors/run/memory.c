/* memory.c - the sum of a stage's bounds (memory.h). Each part names what it counts and where that
 * is allocated; a test runs stages under a counting allocator and compares.
 * Thread: any. Nothing is allocated.
 */
#include "actors/run/memory.h"

#include "actors/messages.h"
#include "actors/monitor/monitor_actor.h"
#include "actors/scorer/scorer_actor.h"
#include "actors/server/server_actor.h"
#include "actors/panel/sample.h"
#include "actors/teacher/teacher_http.h"
#include "opd/actor.h"
#include "opd/log.h"

enum {
    FLOAT = sizeof(float),
    SMALL = 64 * 1024,          /* fixed structs of an actor, and rounding */
    PREFILL_TOKENS = 4096,      /* rollout/engine.c */
    TILE_ROWS = 64,             /* kernels/cpu/isa.h, and rounding */
    HEAD_ROWS = 1024,           /* models/graph.c: rows of logits at once ... */
    HEAD_FLOATS = 262144,       /* ... and their floats, but at least for 16 rows */
    ROLLOUT_MAILBOX = 16 << 20, /* mailbox_bytes_max of the classes that raise it */
    MONITOR_MAILBOX = 16 << 20,
    SCORER_MAILBOX = 64 << 20,
    MAILBOX = 256 * 1024,       /* of the others */
    ROLES = 16 + OPD_CONFIG_TEACHERS_MAX,
    BYTES_PER_ID = 256          /* of a tokenizer: texts, merges and their tables */
};

static uint64_t teachers_used(const opd_assets *a) {
    uint64_t used = 0;
    for (size_t i = 0; i < a->config->teacher_count; i++)
        used += opd_config_teacher_used(a->config, i);
    return used;
}

static uint64_t u64(int64_t n) { return n > 0 ? (uint64_t)n : 0; }

/* ---- models ---------------------------------------------------------------------------- */

typedef struct shape {
    uint64_t params, layers, hidden, q, qkv, inner, vocab, kv, head_dim, group, rope_floats;
} shape;

static shape shape_of(const opd_model *model) {
    const opd_model_config *c = &model->config;
    uint64_t head_dim = u64(c->head_dim);
    shape s = {.params = model->param_count, .layers = u64(c->layers),
               .hidden = u64(c->hidden_size), .q = u64(c->heads) * head_dim,
               .kv = u64(c->kv_heads) * head_dim, .inner = u64(c->intermediate_size),
               .vocab = u64(c->vocab_size), .head_dim = head_dim,
               .group = u64(c->heads) / u64(c->kv_heads),
               .rope_floats = u64(c->max_position) * head_dim};
    s.qkv = s.q + 2 * s.kv;
    return s;
}

/* models/weights.c: plain and packed (in training also packed the other way), rotary table. */
static uint64_t weights_bytes(const shape *s, bool train) {
    uint64_t rounding = 16 * (4 * s->layers + 1);
    uint64_t packed = (train ? 2 : 1) * (s->params + rounding);
    return FLOAT * (s->params + packed + s->rope_floats) + SMALL;
}

/* models/graph.c carve_all: activations of `tokens` tokens, of every layer in training. */
static uint64_t graph_bytes(const shape *s, bool train, uint64_t tokens) {
    uint64_t rows = tokens < HEAD_ROWS ? tokens : HEAD_ROWS;
    uint64_t logits = 16 * s->vocab > HEAD_FLOATS ? 16 * s->vocab : HEAD_FLOATS;
    uint64_t layer = 2 * s->hidden + s->qkv + s->q + 2 * s->inner + 2;
    uint64_t scratch = 2 * s->hidden + s->inner;
    if (train) scratch += 2 * s->hidden + s->qkv + s->q + 3 * s->inner;
    uint64_t floats = tokens * ((train ? s->layers : 1) * layer + scratch) +
                      rows * (4 * s->hidden + 3) + logits + 16 * (7 * s->layers + 20);
    uint64_t ints = FLOAT * 2 * (tokens + rows) + sizeof(size_t) * (tokens + 1);
    return FLOAT * floats + ints + s->layers * 256;
}

/* models/decoder.c: the prefill's graph, the cache, and the rows of a step; rollout/engine.c: the
 * texts of the slots; rollout/rollout_actor.c: answers that wait for credit. */
static uint64_t engine_bytes(const shape *s, const opd_sizes *sizes) {
    uint64_t slots = sizes->slots, length = ((uint64_t)sizes->max_len + 15) / 16 * 16;
    uint64_t prefill = sizes->max_len > PREFILL_TOKENS ? sizes->max_len : PREFILL_TOKENS;
    uint64_t cache = slots * s->layers * 2 * s->kv * length;
    uint64_t row = 2 * s->hidden + s->qkv + s->q + 3 * s->inner + s->vocab + 2;
    uint64_t texts = slots * sizes->max_len * (2 + (uint64_t)sizes->asked_k) + prefill;
    uint64_t lists = slots * (2 * (uint64_t)sizes->asked_k + 1);
    uint64_t prompts = (uint64_t)sizes->window_groups + slots;
    return FLOAT * (cache + slots * row + texts + lists) + graph_bytes(s, false, prefill) +
           1024 * slots + 256 * prompts + 64 * (uint64_t)sizes->samples + SMALL;
}

/* Scratch that the kernels keep for each thread (kernels/cpu/create.c): scores of a tile of
 * attention with its keys and values, the candidates of sampling. */
static uint64_t scratch_bytes(const shape *s, uint64_t threads, uint64_t tokens) {
    uint64_t attention = (tokens + 64) * (2 * s->head_dim + 2 * TILE_ROWS + s->group);
    return threads * (FLOAT * (attention + 3 * s->vocab) + SMALL);
}

/* models/reader.c: the graph of a job, and what its threads work in for the longest text. */
static uint64_t scorer_bytes(const shape *s, uint64_t threads, uint64_t longest) {
    return graph_bytes(s, false, OPD_SCORER_JOB_TOKENS) +
           scratch_bytes(s, threads, longest > OPD_SCORER_JOB_TOKENS ? longest
                                                                     : OPD_SCORER_JOB_TOKENS) +
           OPD_SCORER_JOB_TOKENS * 64;
}

/* Weights: the model's own, gradients and the two moments (learner), the published snapshot and
 * the next one, a state to be saved (3), the engine's and the learner's copies; the reference; the teacher's. */
static uint64_t models_bytes(const opd_assets *a, const shape *s) {
    uint64_t copies = a->reference != NULL ? 10 : 9;
    uint64_t bytes = FLOAT * s->params * copies + weights_bytes(s, false) + weights_bytes(s, true);
    if (a->evals.beside) bytes += FLOAT * s->params; /* the version that is evaluated */
    if (a->eval_kernels != NULL) bytes += weights_bytes(s, false);
    if (a->teacher == NULL) return bytes;
    shape teacher = shape_of(a->teacher);
    if (opd_stage_teacher(a->config)->student == OPD_CONFIG_STUDENT_CURRENT)
        bytes += FLOAT * s->params; /* the version that its teacher packs */
    return bytes + FLOAT * teacher.params + weights_bytes(&teacher, false);
}

/* trainer/critic.c: the head, its moments, gradients and a state of it to be saved; the hidden
 * states of a micro-batch and their gradients. */
static uint64_t critic_bytes(const opd_assets *a, const shape *s) {
    const opd_config_stage *c = a->config;
    if (c->kind != OPD_CONFIG_KIND_RL || c->train.estimator != OPD_CONFIG_ESTIMATOR_PPO) return 0;
    return FLOAT * ((s->hidden + 1) * 8 + a->sizes.micro_tokens * (2 * s->hidden + 2)) + SMALL;
}

static uint64_t compute_bytes(const opd_assets *a, const shape *s) {
    const opd_sizes *z = &a->sizes;
    const opd_config_device *d = &a->config->device;
    uint64_t bytes = graph_bytes(s, true, z->micro_tokens) + critic_bytes(a, s) + engine_bytes(s, z) +
                     scratch_bytes(s, u64(d->rollout_threads), z->max_len) +
                     scratch_bytes(s, u64(d->trainer_threads), z->micro_tokens);
    if (a->eval_kernels != NULL)
        bytes += engine_bytes(s, z) + scratch_bytes(s, u64(d->rollout_threads), z->max_len) +
                 ROLLOUT_MAILBOX;
    if (a->teacher == NULL) return bytes;
    shape t = shape_of(a->teacher);
    opd_scorer_config scorer = {.model = a->teacher, .max_tokens = z->score_len,
                                .cache_bytes = z->teacher_cache_bytes};
    return bytes + scorer_bytes(&t, u64(d->teacher_threads), z->score_len) +
           opd_scorer_memory_max(&scorer);
}

/* ---- messages -------------------------------------------------------------------------- */

/* The pipeline sets messages_max and the recorder, and leaves the system's other bounds as they
 * are. */
static uint64_t runtime_bytes(const opd_assets *a) {
    opd_system_options options = {.messages_max = a->sizes.messages_max, .recorder = true};
    uint64_t mailboxes = ROLLOUT_MAILBOX + MONITOR_MAILBOX + (uint64_t)MAILBOX * ROLES;
    if (a->teacher != NULL) mailboxes += SCORER_MAILBOX;
    else mailboxes += teachers_used(a) * OPD_TEACHER_MAILBOX_BYTES;
    return opd_system_memory_max(&options) + mailboxes + (uint64_t)SMALL * ROLES;
}

/* reward/reward_actor.c: what it holds of each rollout; where judges outside are asked, its texts, as JSON
 * and once more in each question. A token is some bytes, escaped at most six each. */
static uint64_t reward_bytes(const opd_assets *a) {
    enum { ENTRY = 1024, TOKEN = 24 };
    const opd_config_reward *r = &a->config->reward;
    const opd_sizes *z = &a->sizes;
    uint64_t outside = r->one.type >= OPD_CONFIG_REWARD_TYPE_COMMAND ? 1 + r->part_count : 0;
    if (a->config->kind != OPD_CONFIG_KIND_RL) return 0;
    return (uint64_t)z->window_msgs *
           (ENTRY + outside * (z->samples * sizeof(double) + 2 * (uint64_t)z->max_len * TOKEN));
}

/* Payload: prompts, rollouts (one copy for all receivers; the batcher sends them on), scores.
 * Their windows are window_bytes each; the lists of samples in teacher and batcher hold messages
 * of these windows. Evaluations: the slots' prompts and answers. */
static uint64_t windows_bytes(const opd_assets *a) {
    const opd_sizes *z = &a->sizes;
    bool policy = a->config->kind == OPD_CONFIG_KIND_RL;
    uint64_t answers = (uint64_t)z->slots * z->max_len * (2 * FLOAT + sizeof(int32_t));
    uint64_t join = (uint64_t)z->window_msgs * (4 * sizeof(void *) + sizeof(uint64_t));
    return (policy ? 3 : 1) * z->window_bytes + join + answers + reward_bytes(a);
}

/* trainer/batch.c, trainer/learner.c and trainer/distil.c: per token; and per sample. */
static uint64_t batch_bytes(const opd_assets *a) {
    const opd_sizes *z = &a->sizes;
    uint64_t k = z->teacher_k > 0 ? z->teacher_k : 1;
    uint64_t teachers = a->config->teacher_count > 0 ? a->config->teacher_count : 1;
    uint64_t asked = z->asked_k > 0 ? z->asked_k : 1;
    uint64_t flat = 2 * FLOAT + 1 + teachers * (FLOAT + 1) + 2 * FLOAT * (k + asked);
    uint64_t learner = 15 * FLOAT + 3 + 2 * FLOAT * k + 16, distil = 2 * FLOAT + 2 + sizeof(size_t);
    uint64_t samples = (uint64_t)z->batch_prompts * z->samples;
    uint64_t copies = a->validation != NULL ? 2 : 1; /* trainer/validation.c has a batch of its own */
    return z->batch_tokens * (copies * flat + learner + distil) + (samples + 1) * 256 * copies;
}

/* panel/sample.h: samples in the panel's hands (those that are decoded and those that wait
 * for their scores) with their questions; the tokens of the former; the answers of both. */
static uint64_t panel_bytes(const opd_assets *a) {
    const opd_sizes *z = &a->sizes;
    uint64_t teachers = teachers_used(a), k = z->teacher_k;
    uint64_t samples = (uint64_t)z->window_msgs + z->slots;
    uint64_t answers = teachers * z->max_len * (FLOAT + 1 + 2 * FLOAT * k + FLOAT * z->asked_k);
    if (teachers == 0 || a->config->kind != OPD_CONFIG_KIND_RL) return 0;
    if (a->train->privileged_max > 0)
        answers += z->parts * FLOAT * (uint64_t)z->score_len; /* questions with another prompt are copies */
    return samples * (sizeof(opd_panel_sample) + z->parts * sizeof(opd_panel_part) + answers + 64) +
           (uint64_t)z->slots * z->max_len * FLOAT * (1 + (uint64_t)z->asked_k) + SMALL;
}

/* Calls under way to a teacher's servers, each with its question and its answer: scores, and for
 * each replica a probe and an abort. */
static uint64_t calls_bytes(const opd_assets *a, const opd_config_teacher *t) {
    uint64_t k = a->sizes.teacher_k;
    uint64_t replicas = 0;
    char url[OPD_CONFIG_URL_SIZE];
    while (opd_config_url_at(t, replicas, url, sizeof url)) replicas++;
    if (replicas == 0) replicas = 1;
    return (u64(t->max_inflight) + 3 * replicas) * (opd_teacher_question_max_bytes(a->sizes.score_len) +
                                         opd_teacher_answer_max_bytes(a->sizes.score_len, k));
}

static uint64_t http_bytes(const opd_assets *a) {
    uint64_t bytes = 0;
    for (size_t i = 0; a->teacher == NULL && i < a->config->teacher_count; i++)
        if (opd_config_teacher_used(a->config, i)) bytes += calls_bytes(a, &a->config->teachers[i]);
    return bytes;
}

/* ---- data ------------------------------------------------------------------------------ */

/* Texts and rows, the file itself while it is read, and the order of the rows kept. */
static uint64_t dataset_bytes(const opd_dataset *dataset) {
    if (dataset == NULL) return 0;
    uint64_t bytes = SMALL;
    for (size_t i = 0; i < dataset->source_count; i++) {
        const opd_jsonl *rows = dataset->sources[i].rows;
        bytes += rows->memory_bytes + rows->count * 2 * sizeof(uint64_t) + SMALL;
    }
    return bytes;
}

/* With the evaluator's count of right answers to each problem of the largest. */
static uint64_t evals_bytes(const opd_eval_sets *sets) {
    uint64_t bytes = 0, most = 0;
    for (size_t i = 0; i < sets->count; i++) {
        const opd_dataset *d = sets->set[i].dataset;
        bytes += dataset_bytes(d);
        if (d->count > most) most = d->count;
    }
    return bytes + most * sizeof(uint32_t);
}

opd_memory opd_memory_of(const opd_assets *a) {
    shape s = shape_of(a->model);
    return (opd_memory){
        .runtime = runtime_bytes(a), .windows = windows_bytes(a) + panel_bytes(a), .batch = batch_bytes(a),
        .models = models_bytes(a, &s), .compute = compute_bytes(a, &s),
        .monitor = OPD_MONITOR_MEMORY_MAX, .http = http_bytes(a),
        .data = dataset_bytes(a->train) + evals_bytes(&a->evals) + dataset_bytes(a->validation) + BYTES_PER_ID * s.vocab};
}

/* ---- a server -------------------------------------------------------------------------- */

/* Bodies, what requests and answers take (server_actor.h; a request may have been admitted while
 * its body is still there), and answers on their way. */
static uint64_t serving_http_bytes(void) {
    return 2 * (uint64_t)OPD_SERVER_BODIES_BYTES_MAX + /* a text has room to grow */
           OPD_SERVER_WORK_BYTES_DEFAULT +
           OPD_SERVER_ANSWERS_BYTES_MAX;
}

/* Weights: the model's own, the snapshot, and the copies of scorer and engine. */
opd_memory opd_memory_of_serving(const opd_memory_serving *v) {
    shape s = shape_of(v->model);
    uint32_t max_len = (uint32_t)v->model->config.max_position;
    opd_sizes sizes = {.slots = v->slots, .max_len = max_len, .window_groups = v->slots};
    return (opd_memory){
        .runtime = v->runtime_bytes + ROLLOUT_MAILBOX + SCORER_MAILBOX +
                   (uint64_t)(MAILBOX + SMALL) * ROLES,
        .models = FLOAT * s.params * 2 + 2 * weights_bytes(&s, false),
        .compute = scorer_bytes(&s, v->threads, max_len) + v->scorer_bytes +
                   engine_bytes(&s, &sizes) + scratch_bytes(&s, v->threads, max_len),
        .http = serving_http_bytes(), .data = BYTES_PER_ID * s.vocab};
}

uint64_t opd_memory_total(const opd_memory *m) {
    return m->runtime + m->windows + m->batch + m->models + m->compute + m->monitor + m->http +
           m->data;
}

static double mib(uint64_t bytes) { return (double)bytes / (1 << 20); }

void opd_memory_log(const char *stage, const opd_memory *m) {
    OPD_LOG_INFO("stage %s: memory ceiling: %.0f MiB (runtime %.0f, windows %.1f, batch %.1f, "
                 "model and optimizer %.1f, compute %.1f, monitor %.0f, teacher calls %.1f, "
                 "data %.1f)", stage, mib(opd_memory_total(m)), mib(m->runtime), mib(m->windows),
                 mib(m->batch), mib(m->models), mib(m->compute), mib(m->monitor), mib(m->http),
                 mib(m->data));
}

void opd_memory_log_serving(const opd_memory *m) {
    OPD_LOG_INFO("serve: memory ceiling: %.0f MiB (runtime %.0f, model %.1f, compute %.1f, "
                 "requests and answers %.0f, tokenizer %.1f)", mib(opd_memory_total(m)),
                 mib(m->runtime), mib(m->models), mib(m->compute), mib(m->http), mib(m->data));
}
