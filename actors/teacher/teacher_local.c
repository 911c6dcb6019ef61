/* teacher_local.c - ROLLOUT to SCORE to SCORES (teacher_local.h).
 *
 * A sample waits in `waiting` while the scorer's queue is full, then is one request. Samples
 * asked for are in `asked`. Invariant: a sample is in exactly one of waiting, asked and the
 * delivery. Thread: the loop. The actor frees what is left in on_stop.
 */
#include "actors/teacher/teacher_local.h"

#include <math.h>
#include <string.h>

#include "actors/rollout/engine.h"
#include "actors/teacher/delivery.h"
#include "core/base/check.h"
#include "core/base/list.h"

enum { RETRY_NS = 10 * 1000 * 1000 }; /* until the scorer is asked again after AGAIN */

typedef struct teacher {
    opd_teacher_local_config config;
    opd_delivery delivery;
    opd_list waiting, asked; /* of opd_scoring */
    opd_timer retry;
} teacher;

static opd_err finish(opd_ctx *ctx, teacher *self, opd_scoring *sample) {
    opd_list_remove(&sample->node);
    return opd_delivery_send(&self->delivery, ctx, sample);
}

/* The scorer's numbers as SCORES; one that is not finite leaves its token invalid. */
static opd_err copy_scores(const teacher *self, opd_scoring *sample,
                           const opd_scored_fields *scored) {
    uint32_t rows = sample->response_len;
    OPD_TRY(opd_scoring_room(sample, self->config.alloc, self->config.top_k));
    float *logp = opd_slice_data(sample->scores.logp);
    uint8_t *valid = opd_slice_data(sample->scores.valid);
    memcpy(logp, opd_slice_data(scored->logp), rows * sizeof *logp);
    for (uint32_t i = 0; i < rows; i++) {
        valid[i] = isfinite(logp[i]) && logp[i] <= 0;
        if (!valid[i]) logp[i] = 0;
    }
    if (self->config.top_k > 0)
        memcpy(opd_slice_data(sample->scores.topk), opd_slice_data(scored->topk_ids),
               sample->scores.topk.size_bytes);
    return OPD_OK;
}

static opd_err pump(opd_ctx *ctx, teacher *self);

static opd_err on_scored(opd_ctx *ctx, void *state, void *arg, opd_err err, opd_msg *reply) {
    teacher *self = state;
    opd_scoring *sample = arg;
    opd_scored_fields scored;
    if (err == OPD_ERR_AGAIN) { /* its queue is full: this sample is the next to ask */
        opd_list_remove(&sample->node);
        opd_list_push_front(&self->waiting, &sample->node);
        sample->scores.attempts--;
        return opd_timer_start_after(&self->retry, RETRY_NS);
    }
    if (err == OPD_OK) err = opd_message_read(reply, OPD_MESSAGE_SCORED, &scored);
    if (err == OPD_OK && scored.logp.size_bytes != sample->response_len * sizeof(float))
        err = opd_fail(OPD_ERR_INTERNAL, "the scorer gave %zu scores for %u tokens",
                       scored.logp.size_bytes / sizeof(float), sample->response_len);
    if (err == OPD_OK) err = copy_scores(self, sample, &scored);
    if (err != OPD_OK) opd_scoring_refuse(sample, "%s", opd_err_context());
    OPD_TRY(finish(ctx, self, sample));
    return pump(ctx, self);
}

/* Asks for the samples that wait, until the scorer has no room. */
static opd_err pump(opd_ctx *ctx, teacher *self) {
    double temperature = self->config.temperature > 0 ? self->config.temperature : 1;
    for (opd_list *node; (node = opd_list_first(&self->waiting)) != NULL;) {
        opd_scoring *sample = OPD_CONTAINER_OF(node, opd_scoring, node);
        opd_score_fields ask = {.tokens = sample->fields.tokens,
                                .start = sample->fields.prompt_len - 1,
                                .top_k = self->config.top_k,
                                .temperature = temperature};
        opd_trace_set(ctx, opd_sample_trace(sample->fields.group, sample->fields.member));
        opd_err err = opd_message_request(ctx, self->config.roles->scorer, OPD_MESSAGE_SCORE, &ask,
                                          OPD_NO_DEADLINE, on_scored, sample, NULL);
        if (err == OPD_ERR_AGAIN) return opd_timer_start_after(&self->retry, RETRY_NS);
        OPD_TRY(err);
        sample->scores.attempts++;
        opd_list_remove(node);
        opd_list_push_back(&self->asked, node);
    }
    return OPD_OK;
}

static opd_err on_retry(opd_ctx *ctx, void *state, opd_timer *timer) {
    (void)timer;
    return pump(ctx, state);
}

static opd_err on_start(opd_ctx *ctx, void *state, const void *config) {
    teacher *self = state;
    self->config = *(const opd_teacher_local_config *)config;
    opd_list_init(&self->waiting);
    opd_list_init(&self->asked);
    opd_timer_init(&self->retry, ctx, on_retry);
    return opd_delivery_open(&self->delivery, ctx, self->config.roles->batcher,
                             self->config.window_msgs, self->config.window_bytes,
                             self->config.name, self->config.alloc);
}

static opd_err on_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    teacher *self = state;
    opd_scoring *sample = opd_mem_get(self->config.alloc, sizeof *sample);
    if (sample == NULL) return opd_fail(OPD_ERR_NOMEM, "no memory for a sample");
    opd_err err = opd_scoring_take(sample, ctx, msg);
    if (err != OPD_OK) {
        opd_mem_free(self->config.alloc, sample);
        return err;
    }
    if (sample->fields.finish == OPD_FINISH_ABORT || sample->response_len == 0) {
        opd_scoring_refuse(sample, "there is no response to score");
        return finish(ctx, self, sample);
    }
    opd_list_push_back(&self->waiting, &sample->node);
    return pump(ctx, self);
}

static opd_err on_signal(opd_ctx *ctx, void *state, const opd_signal *signal) {
    teacher *self = state;
    return signal->kind == OPD_SIGNAL_CREDIT ? opd_delivery_credit(&self->delivery, ctx) : OPD_OK;
}

static void on_stop(opd_ctx *ctx, void *state) {
    teacher *self = state;
    opd_list *lists[] = {&self->waiting, &self->asked};
    (void)ctx;
    for (size_t i = 0; i < OPD_COUNTOF(lists); i++)
        for (opd_list *node; (node = opd_list_pop_front(lists[i])) != NULL;)
            opd_scoring_destroy(OPD_CONTAINER_OF(node, opd_scoring, node), self->config.alloc);
    opd_delivery_fini(&self->delivery);
}

const opd_actor_class opd_teacher_local_class = {
    .name = "teacher",
    .state_size = sizeof(teacher),
    .requests_max = 1024,
    .on_start = on_start,
    .on_message = on_message,
    .on_signal = on_signal,
    .on_stop = on_stop,
};
