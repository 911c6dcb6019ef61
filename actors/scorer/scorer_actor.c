/* scorer_actor.c - queue, packing and replies of the scorer (scorer_actor.h).
 *
 * A request's way: on_message checks it and keeps the message -> queue -> packed into a batch
 * -> run_batch on the lane -> answered in batch_done. Results are written by the lane straight
 * into the buffers that the reply carries.
 *
 * Invariants: (1) every request kept is answered exactly once, or let go in on_stop (which
 * answers CLOSED); (2) while a job is in flight the loop does not touch the batch;
 * (3) the first job packs the weights, and none other runs before it.
 * Thread: the loop, but run_prepare and run_batch.
 */
#include "actors/scorer/scorer_actor.h"

#include <math.h>
#include <string.h>

#include "actors/messages.h"
#include "core/base/check.h"
#include "opd/log.h"

/* One request of the batch; scored holds the buffers of its reply. */
typedef struct entry {
    opd_msg *msg;
    opd_score_fields ask;
    opd_scored_fields scored;
    uint32_t count; /* tokens */
} entry;

typedef struct scorer {
    opd_scorer_config config;
    opd_graph *graph;
    opd_job job;
    bool busy;

    opd_msg **queue; /* [OPD_SCORER_QUEUE_MAX], a ring */
    uint32_t queue_first, queue_count;

    entry *batch; /* [OPD_SCORER_QUEUE_MAX]: at most the whole queue */
    uint32_t batch_count;
    int32_t *tokens;     /* [max_tokens] */
    size_t *seq_start;   /* [OPD_SCORER_QUEUE_MAX + 1] */
    opd_score_row *rows; /* [max_tokens], of one request at a time */
} scorer;

/* ---- on the lane ---- */

static opd_err run_prepare(opd_job *job) {
    scorer *self = job->arg;
    const opd_scorer_config *c = &self->config;
    const opd_lm_ops *lm = opd_lm_or_default(c->lm);
    OPD_TRY(lm->graph_create(c->kernels, &c->model->config, OPD_GRAPH_SCORE, c->max_tokens,
                             c->alloc, &self->graph));
    opd_graph_set_weights(self->graph, c->model->params);
    return OPD_OK;
}

/* Scores the rows of one packed request. */
static opd_err score_entry(scorer *self, const entry *e, size_t begin) {
    size_t start = e->ask.start, n = e->count - 1 - start;
    for (size_t i = 0; i < n; i++)
        self->rows[i] = (opd_score_row){
            .row = begin + start + i,
            .target = self->tokens[begin + start + i + 1],
            .inverse_temperature = (float)(1.0 / e->ask.temperature)};
    opd_scores out = {.logp = opd_slice_data(e->scored.logp),
                      .top_k = e->ask.top_k,
                      .top_ids = opd_slice_data(e->scored.topk_ids),
                      .top_logp = opd_slice_data(e->scored.topk_logp)};
    return opd_graph_score(self->graph, self->rows, n, &out);
}

static opd_err run_batch(opd_job *job) {
    scorer *self = job->arg;
    opd_packed packed = {.seq_count = self->batch_count,
                         .seq_start = self->seq_start,
                         .tokens = self->tokens};
    OPD_TRY(opd_graph_forward(self->graph, &packed));
    for (uint32_t i = 0; i < self->batch_count; i++) {
        if (opd_job_cancelled(job)) return opd_fail(OPD_ERR_CANCELLED, "the scorer is stopping");
        OPD_TRY(score_entry(self, &self->batch[i], self->seq_start[i]));
    }
    return OPD_OK;
}

/* ---- packing ---- */

static void scored_release(opd_scored_fields *scored) {
    opd_buf_release(scored->logp.buf);
    opd_buf_release(scored->topk_ids.buf);
    opd_buf_release(scored->topk_logp.buf);
    *scored = (opd_scored_fields){.logp = {.buf = NULL}};
}

static opd_err slice_create(const opd_alloc *alloc, size_t size_bytes, opd_slice *out) {
    opd_buf *buf;
    OPD_TRY(opd_buf_create(alloc, size_bytes, &buf));
    *out = opd_slice_whole(buf);
    return OPD_OK;
}

/* The buffers of a reply: logp, and the top-k where asked for. */
static opd_err scored_create(const opd_alloc *alloc, const entry *e, opd_scored_fields *out) {
    size_t n = e->count - 1 - e->ask.start, k = e->ask.top_k;
    opd_err err = slice_create(alloc, n * sizeof(float), &out->logp);
    if (err == OPD_OK && k > 0) err = slice_create(alloc, n * k * sizeof(int32_t), &out->topk_ids);
    if (err == OPD_OK && k > 0) err = slice_create(alloc, n * k * sizeof(float), &out->topk_logp);
    if (err != OPD_OK) scored_release(out);
    return err;
}

/* Moves the queue's first request into the batch, at token `at`, or answers and drops it, or
 * lets it go if nobody waits for it any more. */
static void pack_one(opd_ctx *ctx, scorer *self, opd_msg *msg, size_t at) {
    if (!opd_msg_wanted(msg)) {
        opd_msg_release(msg);
        return;
    }
    entry *e = &self->batch[self->batch_count];
    *e = (entry){.msg = msg};
    opd_err err = opd_message_read(msg, OPD_MESSAGE_SCORE, &e->ask);
    e->count = (uint32_t)(e->ask.tokens.size_bytes / sizeof(int32_t));
    if (err == OPD_OK && opd_msg_deadline_ns(msg) <= opd_now_ns(ctx))
        err = opd_fail(OPD_ERR_TIMEOUT, "the deadline passed in the scorer's queue");
    if (err == OPD_OK) err = scored_create(self->config.alloc, e, &e->scored);
    if (err != OPD_OK) {
        opd_reply_error(ctx, msg, err);
        opd_msg_release(msg);
        return;
    }
    memcpy(self->tokens + at, opd_slice_data(e->ask.tokens), e->count * sizeof(int32_t));
    self->seq_start[++self->batch_count] = at + e->count;
}

static uint32_t tokens_of(const opd_msg *msg) { /* a SCORE has one attachment: the tokens */
    return opd_msg_attachment(msg, 0)->dims[0];
}

static void pack(opd_ctx *ctx, scorer *self) {
    size_t at = 0;
    self->batch_count = 0;
    self->seq_start[0] = 0;
    while (self->queue_count > 0) {
        opd_msg *msg = self->queue[self->queue_first];
        if (at + tokens_of(msg) > self->config.max_tokens) return;
        self->queue_first = (self->queue_first + 1) % OPD_SCORER_QUEUE_MAX;
        self->queue_count--;
        pack_one(ctx, self, msg, at);
        at = self->seq_start[self->batch_count];
    }
}

static opd_err submit(opd_ctx *ctx, scorer *self, opd_err (*run)(opd_job *job)) {
    self->job.run = run;
    OPD_TRY(opd_job_submit(ctx, self->config.lane, &self->job));
    self->busy = true;
    return OPD_OK;
}

static opd_err advance(opd_ctx *ctx, scorer *self) {
    if (self->busy) return OPD_OK;
    pack(ctx, self);
    return self->batch_count == 0 ? OPD_OK : submit(ctx, self, run_batch);
}

static opd_err job_done(opd_ctx *ctx, void *state, opd_job *job) {
    scorer *self = state;
    self->busy = false;
    for (uint32_t i = 0; i < self->batch_count; i++) {
        entry *e = &self->batch[i];
        if (job->err == OPD_OK)
            opd_message_reply(ctx, e->msg, OPD_MESSAGE_SCORED, &e->scored);
        else
            opd_reply_error(ctx, e->msg, opd_fail(job->err, "%s", job->text));
        opd_msg_release(e->msg);
        scored_release(&e->scored);
    }
    self->batch_count = 0;
    if (self->graph == NULL) return opd_fail(job->err, "cannot prepare the scorer: %s", job->text);
    return advance(ctx, self);
}

/* ---- the actor ---- */

static opd_err check_score(const scorer *self, const opd_score_fields *ask) {
    const opd_model_config *model = &self->config.model->config;
    const int32_t *ids = opd_slice_data(ask->tokens);
    size_t count = ask->tokens.size_bytes / sizeof(int32_t);
    size_t most = self->config.max_tokens;
    if (most > (size_t)model->max_position) most = (size_t)model->max_position;
    if (count < 2 || count > most)
        return opd_fail(OPD_ERR_INVALID, "%zu tokens to score; from 2 to %zu are possible", count,
                        most);
    if (ask->start >= count - 1)
        return opd_fail(OPD_ERR_INVALID, "start %u leaves none of %zu tokens to score", ask->start,
                        count);
    if (ask->top_k > (uint32_t)model->vocab_size)
        return opd_fail(OPD_ERR_INVALID, "top_k %u exceeds the vocabulary of %d", ask->top_k,
                        model->vocab_size);
    if (!(ask->temperature > 0) || !isfinite(ask->temperature))
        return opd_fail(OPD_ERR_INVALID, "temperature %g is not positive", ask->temperature);
    for (size_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= model->vocab_size)
            return opd_fail(OPD_ERR_INVALID, "token %zu is %d; the vocabulary has %d ids", i,
                            ids[i], model->vocab_size);
    return OPD_OK;
}

static opd_err on_start(opd_ctx *ctx, void *state, const void *config) {
    scorer *self = state;
    self->config = *(const opd_scorer_config *)config;
    const opd_alloc *alloc = self->config.alloc;
    if (self->config.max_tokens == 0)
        self->config.max_tokens = (uint32_t)self->config.model->config.max_position;
    size_t most = self->config.max_tokens;
    self->queue = opd_mem_get(alloc, OPD_SCORER_QUEUE_MAX * sizeof *self->queue);
    self->batch = opd_mem_get(alloc, OPD_SCORER_QUEUE_MAX * sizeof *self->batch);
    self->tokens = opd_mem_get(alloc, most * sizeof *self->tokens);
    self->seq_start = opd_mem_get(alloc, (OPD_SCORER_QUEUE_MAX + 1) * sizeof *self->seq_start);
    self->rows = opd_mem_get(alloc, most * sizeof *self->rows);
    if (self->queue == NULL || self->batch == NULL || self->tokens == NULL ||
        self->seq_start == NULL || self->rows == NULL)
        return opd_fail(OPD_ERR_NOMEM, "no memory for a scorer of %zu tokens", most);
    self->job.done = job_done;
    self->job.arg = self;
    return submit(ctx, self, run_prepare);
}

static opd_err on_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    scorer *self = state;
    opd_score_fields ask;
    opd_err err = opd_message_read(msg, OPD_MESSAGE_SCORE, &ask);
    if (!opd_msg_is_request(msg)) {
        OPD_LOG_WARN("the scorer got a message that asks nothing (kind %u)", opd_msg_kind(msg));
        return OPD_OK;
    }
    if (err == OPD_OK) err = check_score(self, &ask);
    if (err == OPD_OK && self->queue_count == OPD_SCORER_QUEUE_MAX)
        err = opd_fail(OPD_ERR_AGAIN, "%d requests wait for the scorer already",
                       OPD_SCORER_QUEUE_MAX);
    if (err != OPD_OK) {
        opd_reply_error(ctx, msg, err);
        return OPD_OK;
    }
    opd_msg_take(ctx, msg);
    self->queue[(self->queue_first + self->queue_count++) % OPD_SCORER_QUEUE_MAX] = msg;
    return advance(ctx, self);
}

static void on_stop(opd_ctx *ctx, void *state) {
    scorer *self = state;
    (void)ctx;
    for (uint32_t i = 0; i < self->batch_count; i++) {
        opd_msg_release(self->batch[i].msg);
        scored_release(&self->batch[i].scored);
    }
    for (uint32_t i = 0; i < self->queue_count; i++)
        opd_msg_release(self->queue[(self->queue_first + i) % OPD_SCORER_QUEUE_MAX]);
    opd_graph_destroy(self->graph);
    opd_mem_free(self->config.alloc, self->queue);
    opd_mem_free(self->config.alloc, self->batch);
    opd_mem_free(self->config.alloc, self->tokens);
    opd_mem_free(self->config.alloc, self->seq_start);
    opd_mem_free(self->config.alloc, self->rows);
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
