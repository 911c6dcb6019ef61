/* delivery.c - rollouts held and scores sent (delivery.h). Thread: the loop. */
#include "actors/teacher/delivery.h"

#include <stdarg.h>
#include <stdio.h>

#include "core/base/check.h"
#include "core/base/list.h"

opd_err opd_delivery_open(opd_delivery *delivery, opd_ctx *ctx, opd_pid batcher,
                          uint32_t window_msgs, uint64_t window_bytes, const char *teacher,
                          const opd_alloc *alloc) {
    opd_list_init(&delivery->waiting);
    delivery->alloc = alloc;
    delivery->teacher = teacher;
    return opd_link_open(ctx, batcher, window_msgs, window_bytes, &delivery->link);
}

void opd_delivery_fini(opd_delivery *delivery) {
    if (delivery->waiting.next == NULL) return;
    for (opd_list *node; (node = opd_list_pop_front(&delivery->waiting)) != NULL;)
        opd_scoring_destroy(OPD_CONTAINER_OF(node, opd_scoring, node), delivery->alloc);
}

opd_err opd_scoring_take(opd_scoring *scoring, opd_ctx *ctx, opd_msg *rollout) {
    opd_rollout_fields *f = &scoring->fields;
    OPD_TRY(opd_message_read(rollout, OPD_MESSAGE_ROLLOUT, f));
    scoring->count = (uint32_t)(f->tokens.size_bytes / sizeof(int32_t));
    if (f->prompt_len == 0 || f->prompt_len > scoring->count)
        return opd_fail(OPD_ERR_PARSE, "rollout of %u tokens with a prompt of %u", scoring->count,
                        f->prompt_len);
    opd_list_init(&scoring->node);
    scoring->ids = opd_slice_data(f->tokens);
    scoring->response_len = scoring->count - f->prompt_len;
    scoring->scores.group = f->group;
    scoring->scores.member = f->member;
    scoring->began_ns = opd_now_ns(ctx);
    scoring->rollout = rollout;
    opd_msg_take(ctx, rollout);
    return OPD_OK;
}

static opd_err room(opd_slice *slice, const opd_alloc *alloc, size_t size_bytes) {
    opd_buf *buf;
    OPD_TRY(opd_buf_create(alloc, size_bytes, &buf));
    *slice = opd_slice_whole(buf);
    return OPD_OK;
}

static void room_drop(opd_scores_fields *scores) {
    opd_slice *slices[] = {&scores->logp, &scores->valid, &scores->topk};
    for (size_t i = 0; i < OPD_COUNTOF(slices); i++) {
        opd_buf_release(slices[i]->buf);
        *slices[i] = (opd_slice){.buf = NULL};
    }
}

opd_err opd_scoring_room(opd_scoring *scoring, const opd_alloc *alloc, uint32_t k) {
    size_t rows = scoring->response_len;
    opd_scores_fields *scores = &scoring->scores;
    room_drop(scores);
    OPD_TRY(room(&scores->logp, alloc, rows * sizeof(float)));
    OPD_TRY(room(&scores->valid, alloc, rows));
    return k == 0 ? OPD_OK : room(&scores->topk, alloc, rows * k * sizeof(int32_t));
}

void opd_scoring_fill(opd_scoring *scoring, opd_slice logp, opd_slice valid, opd_slice topk) {
    room_drop(&scoring->scores);
    scoring->scores.logp = logp;
    scoring->scores.valid = valid;
    scoring->scores.topk = topk;
}

void opd_scoring_refuse(opd_scoring *scoring, const char *fmt, ...) {
    va_list args;
    room_drop(&scoring->scores);
    va_start(args, fmt);
    (void)vsnprintf(scoring->scores.reason, sizeof scoring->scores.reason, fmt, args);
    va_end(args);
}

void opd_scoring_destroy(opd_scoring *scoring, const opd_alloc *alloc) {
    room_drop(&scoring->scores);
    opd_msg_release(scoring->message);
    opd_msg_release(scoring->rollout);
    opd_mem_free(alloc, scoring);
}

/* Sends what waits, in order, as far as the credit goes. */
static opd_err flush(opd_delivery *delivery, opd_ctx *ctx) {
    for (opd_list *node; (node = opd_list_first(&delivery->waiting)) != NULL;) {
        opd_scoring *scoring = OPD_CONTAINER_OF(node, opd_scoring, node);
        opd_err err = opd_link_send(ctx, delivery->link, scoring->message);
        if (err == OPD_ERR_AGAIN) return OPD_OK;
        OPD_TRY(opd_err_prefix(err, "the batcher does not take scores"));
        scoring->message = NULL;
        opd_list_remove(node);
        opd_scoring_destroy(scoring, delivery->alloc);
    }
    return OPD_OK;
}

opd_err opd_delivery_send(opd_delivery *delivery, opd_ctx *ctx, opd_scoring *scoring) {
    opd_scores_fields *scores = &scoring->scores;
    scores->latency_ms = (double)(opd_now_ns(ctx) - scoring->began_ns) / 1e6;
    (void)snprintf(scores->teacher, sizeof scores->teacher, "%s", delivery->teacher);
    opd_list_push_back(&delivery->waiting, &scoring->node);
    OPD_TRY(opd_message_create(opd_self_system(ctx), OPD_MESSAGE_SCORES, scores,
                               &scoring->message));
    return flush(delivery, ctx);
}

opd_err opd_delivery_credit(opd_delivery *delivery, opd_ctx *ctx) { return flush(delivery, ctx); }
