/* scorer_actor.c - messages and jobs of the scorer (scorer_actor.h); what is read when is the
 * engine's.
 *
 * A request's way: on_message hands it to the engine and keeps the message -> it takes part in
 * jobs -> answered by `finished`, from the plan of a job or from its results.
 *
 * Invariants: (1) every request kept is answered exactly once, or let go in on_stop (which
 * answers CLOSED); (2) while a job is in flight the loop adds to the engine only; (3) the first
 * job packs the weights, and none other runs before it; (4) newer weights of the slot are packed
 * before the next step is planned.
 * Thread: the loop, but run_prepare and run_step.
 */
#include "actors/scorer/scorer_actor.h"

#include <inttypes.h>
#include <stdio.h>

#include "actors/messages.h"
#include "actors/scorer/engine.h"
#include "actors/scorer/pages.h"
#include "core/base/check.h"
#include "opd/log.h"

typedef struct scorer {
    opd_scorer_config config;
    opd_score_engine *engine;
    opd_job job;
    bool busy, ready;  /* ready: the weights are packed */
    opd_buf *params;   /* while they are being packed: those of the slot */
    uint64_t version;  /* of these; UINT64_MAX: the model's own */
    uint64_t began_ns; /* of the job */
    opd_ctx *ctx;
} scorer;

static opd_score_engine_options options_of(const opd_scorer_config *c) {
    uint32_t longest = (uint32_t)c->model->config.max_position;
    return (opd_score_engine_options){
        .model = c->model, .lm = c->lm, .kernels = c->kernels, .alloc = c->alloc,
        .max_len = c->max_tokens > 0 && c->max_tokens < longest ? c->max_tokens : longest,
        .job_tokens = OPD_SCORER_JOB_TOKENS, .requests_max = OPD_SCORER_QUEUE_MAX,
        .running_max = OPD_SCORER_RUNNING_MAX, .cache_bytes = c->cache_bytes};
}

uint64_t opd_scorer_memory_max(const opd_scorer_config *config) {
    enum { PAGE_ENTRY = 256, REQUEST = 256, TOKEN = 128 }; /* of the tables, rounded up */
    opd_score_engine_options o = options_of(config);
    uint64_t pages = opd_score_engine_pages(&o);
    uint64_t page_bytes = opd_reader_page_floats(&config->model->config) * sizeof(float);
    uint64_t chains = (uint64_t)o.running_max * opd_pages_of(o.max_len) * sizeof(uint32_t);
    return pages * (page_bytes + PAGE_ENTRY) + chains + (uint64_t)TOKEN * o.job_tokens +
           (uint64_t)REQUEST * (o.requests_max + o.running_max);
}

/* ---- on the lane ---- */

static opd_err run_prepare(opd_job *job) {
    return opd_score_engine_prepare(((scorer *)job->arg)->engine);
}

static opd_err run_step(opd_job *job) {
    return opd_score_engine_execute(((scorer *)job->arg)->engine);
}

static opd_err run_renew(opd_job *job) {
    const scorer *self = job->arg;
    opd_score_engine_set_weights(self->engine, opd_buf_data(self->params));
    return OPD_OK;
}

/* ---- the engine's listener ---- */

static opd_err check_wanted(void *arg, void *user) {
    const scorer *self = arg;
    const opd_msg *msg = user;
    if (!opd_msg_wanted(msg)) return opd_fail(OPD_ERR_CANCELLED, "nobody waits for the scores");
    if (opd_msg_deadline_ns(msg) <= opd_now_ns(self->ctx))
        return opd_fail(OPD_ERR_TIMEOUT, "the deadline passed in the scorer's queue");
    return OPD_OK;
}

static void finished(void *arg, const opd_score_done *done) {
    const scorer *self = arg;
    opd_msg *msg = done->user;
    opd_scored_fields scored = {.logp = done->logp, .topk_ids = done->topk_ids,
                                .topk_logp = done->topk_logp, .ids_logp = done->ids_logp,
                                .cached = done->cached};
    if (self->config.weights != NULL && self->version != UINT64_MAX)
        (void)snprintf(scored.weight_version, sizeof scored.weight_version, "%" PRIu64, self->version);
    if (done->err == OPD_OK) opd_message_reply(self->ctx, msg, OPD_MESSAGE_SCORED, &scored);
    else if (opd_msg_wanted(msg)) opd_reply_error(self->ctx, msg, done->err);
    opd_msg_release(msg);
}

static void let_go(void *arg, const opd_score_done *done) {
    (void)arg;
    opd_msg_release(done->user);
}

static opd_score_listener listener_of(scorer *self) {
    return (opd_score_listener){.check = check_wanted, .finish = finished, .arg = self};
}

/* ---- jobs ---- */

static opd_err submit(opd_ctx *ctx, scorer *self, opd_err (*run)(opd_job *job)) {
    self->job.run = run;
    self->began_ns = opd_now_ns(ctx);
    OPD_TRY(opd_job_submit(ctx, self->config.lane, &self->job));
    self->busy = true;
    return OPD_OK;
}

/* Whether the student has newer weights; then they are packed. */
static opd_err renew(opd_ctx *ctx, scorer *self) {
    if (self->config.weights == NULL) return OPD_OK;
    uint64_t version = opd_slot_get(self->config.weights, &self->params);
    if (self->params == NULL || version == self->version) {
        opd_buf_release(self->params);
        self->params = NULL;
        return OPD_OK;
    }
    self->version = version;
    opd_score_engine_renew(self->engine);
    return submit(ctx, self, run_renew);
}

static opd_err advance(opd_ctx *ctx, scorer *self) {
    opd_score_listener listener = listener_of(self);
    if (!self->busy) OPD_TRY(renew(ctx, self));
    if (self->busy || !opd_score_engine_plan(self->engine, &listener)) return OPD_OK;
    return submit(ctx, self, run_step);
}

static opd_err job_done(opd_ctx *ctx, void *state, opd_job *job) {
    scorer *self = state;
    opd_score_listener listener = listener_of(self);
    opd_err err = job->err == OPD_OK ? OPD_OK : opd_fail(job->err, "%s", job->text);
    self->busy = false;
    if (!self->ready) {
        if (err != OPD_OK) return opd_fail(err, "cannot prepare the scorer: %s", job->text);
        self->ready = true;
    } else if (self->params != NULL) {
        OPD_TRY(err);
        opd_buf_release(self->params);
        self->params = NULL;
    } else {
        opd_score_engine_apply(self->engine, err, &listener);
        opd_score_engine_pace(self->engine, opd_now_ns(ctx) - self->began_ns);
    }
    return advance(ctx, self);
}

/* ---- the actor ---- */

static opd_err on_start(opd_ctx *ctx, void *state, const void *config) {
    scorer *self = state;
    self->config = *(const opd_scorer_config *)config;
    self->ctx = ctx;
    self->version = UINT64_MAX;
    opd_score_engine_options options = options_of(&self->config);
    OPD_TRY(opd_score_engine_create(&options, &self->engine));
    self->job.done = job_done;
    self->job.arg = self;
    return submit(ctx, self, run_prepare);
}

static opd_err on_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    scorer *self = state;
    opd_score_fields fields;
    opd_err err = opd_message_read(msg, OPD_MESSAGE_SCORE, &fields);
    if (!opd_msg_is_request(msg)) {
        OPD_LOG_WARN("the scorer got a message that asks nothing (kind %u)", opd_msg_kind(msg));
        return OPD_OK;
    }
    opd_score_ask ask = {.tokens = fields.tokens, .ids = fields.ids, .start = fields.start, .top_k = fields.top_k,
                         .temperature = fields.temperature, .user = msg};
    if (err == OPD_OK) err = opd_score_engine_add(self->engine, &ask);
    if (err != OPD_OK) {
        opd_reply_error(ctx, msg, err);
        return OPD_OK;
    }
    opd_msg_take(ctx, msg);
    return advance(ctx, self);
}

static void on_stop(opd_ctx *ctx, void *state) {
    scorer *self = state;
    (void)ctx;
    opd_buf_release(self->params);
    if (self->engine == NULL) return;
    opd_score_engine_state s = opd_score_engine_look(self->engine);
    OPD_LOG_INFO("scorer: %llu tokens read, %llu more from the cache, in %llu jobs",
                 (unsigned long long)s.computed, (unsigned long long)s.cached,
                 (unsigned long long)s.steps);
    opd_score_engine_close(self->engine, &(opd_score_listener){.finish = let_go});
    opd_score_engine_destroy(self->engine);
}

const opd_actor_class opd_scorer_class = {
    .name = "scorer",
    .state_size = sizeof(scorer),
    .mailbox_msgs_max = OPD_SCORER_QUEUE_MAX,
    .mailbox_bytes_max = 64 * 1024 * 1024,
    .on_start = on_start,
    .on_message = on_message,
    .on_stop = on_stop,
};
