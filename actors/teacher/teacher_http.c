/* teacher_http.c - the samples of the HTTP teacher: waiting, asked, judged, delivered
 * (teacher_http.h, teacher_inside.h).
 *
 * Thread: the loop. The actor owns the samples and frees what is left in on_stop; calls under
 * way belong to the endpoint.
 */
#include "actors/teacher/teacher_http.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "actors/rollout/engine.h"
#include "actors/teacher/teacher_inside.h"
#include "core/base/check.h"
#include "core/base/list.h"
#include "transports/sglang.h"

enum { RID_SIZE = 48 };

typedef struct sample {
    opd_scoring base; /* first: the delivery frees it */
    opd_timer timer;
    uint64_t deadline_ns; /* UINT64_MAX until the teacher is ready */
    opd_teacher_history history;
    char rid[RID_SIZE];
} sample;

static const opd_http_header JSON_HEADERS[] = {{"content-type", "application/json"}};

static sample *sample_of(opd_list *node) {
    return (sample *)(void *)OPD_CONTAINER_OF(node, opd_scoring, node);
}

/* ---- the end of a sample ---- */

static opd_err finish(opd__teacher *self, sample *s) {
    opd_timer_stop(&s->timer);
    opd_list_remove(&s->base.node);
    s->base.scores.attempts = s->history.attempts;
    self->sample_count--;
    opd_teacher_health_work(&self->health, self->sample_count > 0, opd_now_ns(self->ctx));
    return opd_delivery_send(&self->delivery, self->ctx, &s->base);
}

static bool too_late(const opd__teacher *self, const sample *s) {
    return opd_now_ns(self->ctx) >= s->deadline_ns;
}

static opd_err give_up(opd__teacher *self, sample *s, const char *why) {
    if (too_late(self, s))
        opd_scoring_refuse(&s->base, "no score within the deadline of %g s: %s",
                           self->c.teacher->deadline_s, why);
    else
        opd_scoring_refuse(&s->base, "%s", why);
    return finish(self, s);
}

/* ---- asking ---- */

static opd_sglang_score question_of(const opd__teacher *self, const sample *s) {
    return (opd_sglang_score){.ids = s->base.ids,
                              .count = s->base.count,
                              .prompt_count = s->base.fields.prompt_len,
                              .top_k = (int32_t)self->c.top_k,
                              .vocab_size = self->c.vocab_size > 0 ? self->c.vocab_size : 0,
                              .temperature = self->c.temperature,
                              .rid = s->rid};
}

static opd_err on_answer(opd_ctx *ctx, void *state, opd_endpoint_call *call);

/* Sends one attempt under a rid of its own; of fixed width, for servers abort by prefix. */
static opd_err send_attempt(opd__teacher *self, sample *s) {
    opd_endpoint_call *call;
    OPD_TRY(opd_endpoint_call_create(self->endpoint, &call));
    (void)snprintf(s->rid, sizeof s->rid, "opd-%016" PRIx64 "-%016" PRIx64 ".", self->rid_nonce,
                   self->rid_next++);
    opd_sglang_score question = question_of(self, s);
    opd_err err = opd_sglang_score_write(&question, &call->body);
    call->http.method = "POST";
    call->http.path = "/generate";
    call->http.headers = JSON_HEADERS;
    call->http.header_count = OPD_COUNTOF(JSON_HEADERS);
    call->http.deadline_ns = s->deadline_ns;
    call->http.attempt_timeout_ms = opd__teacher_ns(self->c.teacher->timeout_s) / 1000000;
    call->answered = on_answer;
    call->arg = s;
    if (err == OPD_OK) err = opd_endpoint_send(call);
    if (err != OPD_OK) opd_endpoint_call_destroy(call);
    return err;
}

/* Moves a sample to a list and arms its timer for at_ns or its deadline. */
static opd_err park(sample *s, opd_list *list, bool first, uint64_t at_ns) {
    opd_list_remove(&s->base.node);
    if (first)
        opd_list_push_front(list, &s->base.node);
    else
        opd_list_push_back(list, &s->base.node);
    if (at_ns > s->deadline_ns) at_ns = s->deadline_ns;
    return at_ns == UINT64_MAX ? OPD_OK : opd_timer_start(&s->timer, at_ns);
}

opd_err opd__teacher_pump(opd__teacher *self) {
    while (self->ready && !self->health.down && self->endpoint != NULL && !self->stopping &&
           !self->failed && self->asked_count < (uint32_t)self->c.teacher->max_inflight &&
           !opd_list_empty(&self->waiting)) {
        sample *s = sample_of(opd_list_first(&self->waiting));
        opd_err err = send_attempt(self, s);
        if (err == OPD_ERR_AGAIN || err == OPD_ERR_CLOSED) return OPD_OK; /* the tick tries */
        if (err != OPD_OK) {
            OPD_TRY(give_up(self, s, opd_err_context()));
            continue;
        }
        opd_timer_stop(&s->timer);
        opd_list_remove(&s->base.node);
        opd_list_push_back(&self->asked, &s->base.node);
        self->asked_count++;
    }
    return OPD_OK;
}

/* ---- answers ---- */

/* Other weights than before: the scores are still the teacher's, but whoever reads the run should
 * know. Told at the 1st, 2nd, 4th... change, for a fleet behind one address may flip for ever. */
static void note_version(opd__teacher *self, const char *version) {
    if (version[0] == '\0' || strcmp(version, self->weight_version) == 0) return;
    bool first = self->weight_version[0] == '\0';
    if (!first) self->version_changes++;
    if (!first && (self->version_changes & (self->version_changes - 1)) == 0)
        opd_note(self->ctx, self->c.roles->monitor, OPD_LOG_LEVEL_WARN,
                 "teacher %s answers with other weights: version %.60s after %.60s (changes so far: "
                 "%" PRIu64 ")", self->c.teacher->name, version, self->weight_version,
                 self->version_changes);
    (void)snprintf(self->weight_version, sizeof self->weight_version, "%s", version);
}

/* Reads the body of a 200 answer into the sample. Errors: those of opd_sglang_score_read. */
static opd_err read_scores(opd__teacher *self, sample *s, const opd_endpoint_call *call) {
    uint32_t k = self->c.top_k;
    opd_sglang_score question = question_of(self, s);
    opd_slice topk_logps = {.buf = NULL}; /* only the ids are kept */
    OPD_TRY(opd_scoring_room(&s->base, self->c.alloc, k));
    if (k > 0) {
        OPD_TRY(opd_buf_create(self->c.alloc, (size_t)s->base.response_len * k * sizeof(float),
                               &topk_logps.buf));
        topk_logps = opd_slice_whole(topk_logps.buf);
    }
    opd_sglang_scores scores = {.logp = opd_slice_data(s->base.scores.logp),
                                .valid = opd_slice_data(s->base.scores.valid),
                                .topk_ids = opd_slice_data(s->base.scores.topk),
                                .topk_logps = opd_slice_data(topk_logps)};
    opd_err err = opd_sglang_score_read(call->http.answer.data, call->http.answer.size, &question,
                                        &scores);
    opd_buf_release(topk_logps.buf);
    if (err == OPD_OK)
        scores.valid_count -= opd_teacher_uniform_drop(scores.logp, scores.valid,
                                                       s->base.response_len, self->c.vocab_size);
    if (err == OPD_OK && scores.valid_count > 0) note_version(self, scores.weight_version);
    if (err == OPD_OK && scores.valid_count == 0)
        err = opd_fail(OPD_ERR_REMOTE, "the teacher gave no finite score for any of %u tokens",
                       s->base.response_len);
    return err;
}

/* What a failed attempt was about: the transport's words, or the server's. */
static void describe(const opd_endpoint_call *call, char *out, size_t out_size) {
    char message[OPD_SGLANG_MESSAGE_SIZE];
    if (call->http.err != OPD_OK) {
        (void)snprintf(out, out_size, "%s", call->http.error);
        return;
    }
    opd_sglang_error_read(call->http.answer.data, call->http.answer.size, message);
    (void)snprintf(out, out_size, "HTTP %d: %s", call->http.status, message);
}

/* A whole answer: the scores, or one more attempt where it was not about our tokens. */
static opd_err take_answer(opd__teacher *self, sample *s, const opd_endpoint_call *call,
                           opd_teacher_verdict *out_verdict) {
    opd_err err = read_scores(self, s, call);
    *out_verdict = OPD_TEACHER_RETRY;
    if (err == OPD_OK) {
        opd__teacher_answered(self);
        s->base.scores.reason[0] = '\0'; /* of an attempt before */
        *out_verdict = OPD_TEACHER_READ;
        return finish(self, s);
    }
    s->history.invalid++;
    opd_scoring_refuse(&s->base, "invalid answer: %s", opd_err_context());
    return OPD_OK;
}

static opd_err act(opd__teacher *self, sample *s, const opd_endpoint_call *call,
                   opd_teacher_verdict verdict, const char *why) {
    const opd_config_teacher *t = self->c.teacher;
    uint64_t now = opd_now_ns(self->ctx);
    (void)snprintf(self->problem_text, sizeof self->problem_text, "%s", why);
    /* a stream that the server refused unread costs nothing but time (RFC 9113 8.7) */
    if (verdict == OPD_TEACHER_RETRY && !call->http.retry_safe) s->history.retries++;
    if (verdict == OPD_TEACHER_WAIT && call->http.err == OPD_ERR_RESET) s->history.breaks++;
    switch (opd_teacher_limit(verdict, &s->history, (uint32_t)t->retries)) {
    case OPD_TEACHER_WAIT:
        OPD_TRY(park(s, &self->waiting, true, UINT64_MAX));
        return opd__teacher_gone(self, why);
    case OPD_TEACHER_RETRY: {
        uint64_t after_ms = opd_teacher_retry_after_ms(
            opd_http_call_header(&call->http, "retry-after"));
        /* grows with every attempt: a server that refuses them unread must not be hammered */
        uint64_t pause_ms = opd_teacher_backoff_ms(
            s->history.attempts, (uint64_t)t->backoff_ms, (uint64_t)t->backoff_max_ms, after_ms,
            opd_random(self->ctx));
        return park(s, &self->pausing, false, now + pause_ms * 1000000);
    }
    default: break;
    }
    OPD_TRY(give_up(self, s, why));
    return verdict == OPD_TEACHER_WAIT ? opd__teacher_gone(self, why) : OPD_OK;
}

static opd_err on_answer(opd_ctx *ctx, void *state, opd_endpoint_call *call) {
    opd__teacher *self = state;
    sample *s = call->arg;
    char why[OPD_HTTP_ERROR_MAX];
    (void)ctx;
    self->asked_count--;
    s->history.attempts++;
    if (self->stopping) return park(s, &self->waiting, false, UINT64_MAX);
    opd_teacher_verdict verdict = opd_teacher_judge(call->http.err, call->http.status);
    if (verdict == OPD_TEACHER_READ) {
        OPD_TRY(take_answer(self, s, call, &verdict));
        if (verdict == OPD_TEACHER_READ) return opd__teacher_pump(self);
        (void)snprintf(why, sizeof why, "%s", s->base.scores.reason);
    } else {
        describe(call, why, sizeof why);
    }
    if (too_late(self, s))
        OPD_TRY(give_up(self, s, why));
    else
        OPD_TRY(act(self, s, call, verdict, why));
    return opd__teacher_pump(self);
}

/* A pause ended, or a sample that waits has reached its deadline. */
static opd_err on_timer(opd_ctx *ctx, void *state, opd_timer *timer) {
    opd__teacher *self = state;
    sample *s = OPD_CONTAINER_OF(timer, sample, timer);
    (void)ctx;
    if (too_late(self, s))
        return give_up(self, s, self->health.down ? self->problem_text : "no attempt succeeded");
    OPD_TRY(park(s, &self->waiting, false, UINT64_MAX));
    return opd__teacher_pump(self);
}

/* ---- samples come in ---- */

static uint64_t deadline_of(const opd__teacher *self) {
    if (!self->ready) return UINT64_MAX;
    return opd_now_ns(self->ctx) + opd__teacher_ns(self->c.teacher->deadline_s);
}

opd_err opd__teacher_ready(opd__teacher *self) {
    self->ready = true;
    for (opd_list *n = self->waiting.next, *next; n != &self->waiting; n = next) {
        next = n->next;
        sample *s = sample_of(n);
        s->deadline_ns = deadline_of(self);
        OPD_TRY(opd_timer_start(&s->timer, s->deadline_ns));
    }
    return opd__teacher_pump(self);
}

static opd_err take_rollout(opd__teacher *self, opd_msg *msg) {
    sample *s = opd_mem_get(self->c.alloc, sizeof *s);
    if (s == NULL) return opd_fail(OPD_ERR_NOMEM, "no memory for a sample");
    opd_err err = opd_scoring_take(&s->base, self->ctx, msg);
    if (err != OPD_OK) {
        opd_mem_free(self->c.alloc, s);
        return err;
    }
    opd_timer_init(&s->timer, self->ctx, on_timer);
    s->deadline_ns = deadline_of(self);
    self->sample_count++;
    opd_teacher_health_work(&self->health, true, opd_now_ns(self->ctx));
    if (s->base.fields.finish == OPD_FINISH_ABORT || s->base.response_len == 0)
        return give_up(self, s, "there is no response to score");
    OPD_TRY(park(s, &self->waiting, false, UINT64_MAX));
    return opd__teacher_pump(self);
}

/* ---- the actor ---- */

static opd_err on_tick(opd_ctx *ctx, void *state, opd_timer *timer) {
    opd__teacher *self = state;
    (void)ctx;
    OPD_TRY(opd_timer_start_after(timer, OPD__TEACHER_TICK_NS));
    OPD_TRY(opd__teacher_tick(self));
    return opd__teacher_pump(self);
}

static opd_err on_moved(opd_ctx *ctx, void *state, opd_slot_watch *watch) {
    opd_buf *buf;
    (void)ctx;
    (void)opd_slot_get(watch->slot, &buf);
    opd_err err = opd__teacher_move(state, opd_buf_data(buf));
    opd_buf_release(buf);
    return err;
}

static opd_err on_start(opd_ctx *ctx, void *state, const void *config) {
    opd__teacher *self = state;
    self->c = *(const opd_teacher_http_config *)config;
    if (self->c.temperature <= 0) self->c.temperature = 1;
    self->ctx = ctx;
    self->rid_nonce = opd_random(ctx);
    opd_list_init(&self->waiting);
    opd_list_init(&self->pausing);
    opd_list_init(&self->asked);
    opd_timer_init(&self->tick, ctx, on_tick);
    OPD_TRY(opd_delivery_open(&self->delivery, ctx, self->c.roles->batcher, self->c.window_msgs,
                              self->c.window_bytes, self->c.teacher->name, self->c.alloc));
    OPD_TRY(opd_timer_start_after(&self->tick, OPD__TEACHER_TICK_NS));
    if (self->c.endpoint != NULL)
        opd_slot_watch_start(ctx, self->c.endpoint, &self->watch, on_moved);
    return opd__teacher_begin(self);
}

static opd_err on_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    (void)ctx;
    return take_rollout(state, msg);
}

static opd_err on_signal(opd_ctx *ctx, void *state, const opd_signal *signal) {
    opd__teacher *self = state;
    if (signal->kind == OPD_SIGNAL_CREDIT) return opd_delivery_credit(&self->delivery, ctx);
    if (signal->kind != OPD_SIGNAL_STOP) return OPD_OK;
    self->stopping = true;
    opd_timer_stop(&self->tick);
    opd_endpoint_close(self->endpoint);
    self->endpoint = NULL;
    if (self->endpoints_open > 0) opd_stop_defer(ctx);
    return OPD_OK;
}

static void on_stop(opd_ctx *ctx, void *state) {
    opd__teacher *self = state;
    opd_list *lists[] = {&self->waiting, &self->pausing, &self->asked};
    (void)ctx;
    for (size_t i = 0; i < OPD_COUNTOF(lists); i++)
        for (opd_list *node; (node = opd_list_pop_front(lists[i])) != NULL;)
            opd_scoring_destroy(&sample_of(node)->base, self->c.alloc);
    opd_delivery_fini(&self->delivery);
}

const opd_actor_class opd_teacher_http_class = {
    .name = "teacher",
    .state_size = sizeof(opd__teacher),
    .on_start = on_start,
    .on_message = on_message,
    .on_signal = on_signal,
    .on_stop = on_stop,
};
