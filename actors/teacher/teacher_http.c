/* teacher_http.c - the questions to the HTTP teacher: waiting, asked, judged, answered
 * (teacher_http.h, teacher_inside.h).
 *
 * Thread: the loop. The actor owns the samples and frees what is left in on_stop, which answers
 * CLOSED; calls under way belong to the endpoint.
 */
#include "actors/teacher/teacher_http.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "actors/teacher/access.h"
#include "actors/teacher/teacher_inside.h"
#include "core/base/check.h"
#include "core/base/list.h"
#include "core/base/secret.h"
#include "opd/log.h"
#include "transports/sglang.h"

static const uint64_t LOOK_AGAIN_NS = 100 * 1000000;
static const double VERY_LATE = 4; /* times the delay of a hedge */

static opd__sample *sample_of(opd_list *node) { return OPD_CONTAINER_OF(node, opd__sample, node); }

/* ---- the end of a sample ---- */

static void scores_drop(opd__sample *s) {
    opd_slice *slices[] = {&s->scored.logp, &s->scored.valid, &s->scored.topk_ids, &s->scored.topk_logp};
    for (size_t i = 0; i < OPD_COUNTOF(slices); i++) {
        opd_buf_release(slices[i]->buf);
        *slices[i] = (opd_slice){.buf = NULL};
    }
}

/* Frees a sample with its SCORE. */
static void destroy(opd__teacher *self, opd__sample *s) {
    scores_drop(s);
    opd_msg_release(s->request);
    opd_mem_free(self->c.alloc, s);
}

/* Out of all lists and books. */
static void leave(opd__teacher *self, opd__sample *s) {
    opd_timer_stop(&s->timer);
    opd_list_remove(&s->node);
    opd__fleet_abort(self, s);
    self->waiting_count -= s->ask.wait;
    opd_teacher_health_work(&self->health, self->waiting_count > 0, opd_now_ns(self->ctx));
}

static void finish(opd__teacher *self, opd__sample *s) {
    leave(self, s);
    s->scored.attempts = s->history.attempts;
    opd_message_reply(self->ctx, s->request, OPD_MESSAGE_SCORED, &s->scored);
    destroy(self, s);
}

static bool too_late(const opd__teacher *self, const opd__sample *s) {
    return opd_now_ns(self->ctx) >= s->deadline_ns;
}

static void give_up(opd__teacher *self, opd__sample *s, const char *why) {
    uint64_t had_ns = s->deadline_ns > s->taken_ns ? s->deadline_ns - s->taken_ns : 0;
    scores_drop(s);
    if (too_late(self, s))
        (void)snprintf(s->scored.reason, sizeof s->scored.reason,
                       "no score within the deadline of %.3g s: %.140s",
                       (double)had_ns / 1e9, why);
    else
        (void)snprintf(s->scored.reason, sizeof s->scored.reason, "%s", why);
    finish(self, s);
}

/* Nobody can be reached, and the asker has somebody else. */
static void turn_away(opd__teacher *self, opd__sample *s) {
    leave(self, s);
    opd_reply_error(self->ctx, s->request,
                    opd_fail(OPD_ERR_CLOSED, "teacher %s cannot be reached: %s",
                             self->c.teacher->name, self->problem_text));
    destroy(self, s);
}

static void turn_away_all(opd__teacher *self, opd_list *list) {
    for (opd_list *n = list->next, *next; n != list; n = next) {
        next = n->next;
        if (!sample_of(n)->ask.wait) turn_away(self, sample_of(n));
    }
}

/* ---- asking ---- */

opd_sglang_score opd__teacher_question(const opd__teacher *self, const opd__sample *s, int server) {
    return (opd_sglang_score){.ids = opd_slice_data(s->ask.tokens),
                              .count = s->count,
                              .prompt_count = s->ask.start + 1,
                              .top_k = (int32_t)s->ask.top_k,
                              .form = opd__teacher_form(self, server),
                              .vocab_size = self->c.vocab_size > 0 ? self->c.vocab_size : 0,
                              .temperature = s->ask.temperature,
                              .rid = s->rid};
}

static opd_err on_answer(opd_ctx *ctx, void *state, opd_endpoint_call *call);

/* Moves a sample to a list and arms its timer for at_ns or its deadline. */
static opd_err park(opd__sample *s, opd_list *list, bool first, uint64_t at_ns) {
    opd_list_remove(&s->node);
    if (first)
        opd_list_push_front(list, &s->node);
    else
        opd_list_push_back(list, &s->node);
    if (at_ns > s->deadline_ns) at_ns = s->deadline_ns;
    return opd_timer_start(&s->timer, at_ns);
}

/* Puts a sample where it waits to be sent; first: before all others. */
static opd_err queue_up(opd__teacher *self, opd__sample *s, bool first) {
    s->parked_ns = opd_now_ns(self->ctx);
    return park(s, &self->waiting, first, UINT64_MAX);
}

static uint64_t backoff_ns(const opd__teacher *self, uint32_t retry, uint64_t after_ms) {
    const opd_config_teacher *t = self->c.teacher;
    return 1000000 * opd_teacher_backoff_ms(retry, (uint64_t)t->backoff_ms,
                                            (uint64_t)t->backoff_max_ms, after_ms,
                                            opd_random(self->ctx));
}

static bool may_send(const opd__teacher *self) {
    return self->ready && !self->health.down && !self->stopping && !self->failed &&
           self->asked_count < (uint32_t)self->c.teacher->max_inflight;
}

/* Arms the timer of a sample that is asked for the moment at which its answer may be late. */
static opd_err await(opd__teacher *self, opd__sample *s) {
    uint64_t delay_ns = (uint64_t)(opd_hedge_delay_ms(&self->hedge) * 1e6);
    if (delay_ns == 0) delay_ns = LOOK_AGAIN_NS; /* too few answers to tell yet */
    uint64_t at_ns = opd_now_ns(self->ctx) + delay_ns;
    opd_timer_stop(&s->timer);
    if (self->hedge.quantile <= 0 || at_ns >= s->deadline_ns) return OPD_OK;
    return opd_timer_start(&s->timer, at_ns);
}

/* While others wait to be sent at all, a second request is for what is very late only. */
static bool is_late(const opd__teacher *self, const opd__sample *s) {
    double delay_ms = opd_hedge_delay_ms(&self->hedge);
    if (!opd_list_empty(&self->waiting)) delay_ms *= VERY_LATE;
    return delay_ms > 0 && (double)(opd_now_ns(self->ctx) - s->round_ns) / 1e6 >= delay_ms;
}

/* The next request of a sample that waits. Errors: those of opd__fleet_send; it waits on. */
static opd_err ask(opd__teacher *self, opd__sample *s, int server) {
    uint64_t now = opd_now_ns(self->ctx);
    OPD_TRY(opd__fleet_send(self, s, server, on_answer));
    if (!s->charged) opd_budget_request(&self->budget, now);
    s->charged = s->failed = false;
    s->scored.wait_ms += (double)(now - s->parked_ns) / 1e6;
    s->round_ns = now;
    opd_list_remove(&s->node);
    opd_list_push_back(&self->asked, &s->node);
    return await(self, s);
}

opd_err opd__teacher_pump(opd__teacher *self) {
    if (self->health.down) {
        turn_away_all(self, &self->waiting);
        turn_away_all(self, &self->pausing);
    }
    while (may_send(self) && !opd_list_empty(&self->waiting)) {
        opd__sample *s = sample_of(opd_list_first(&self->waiting));
        int server = opd__fleet_choose(self, s, false);
        if (server == OPD_REPLICA_NONE) return OPD_OK; /* an answer makes room */
        if (s->charged && !opd_budget_take(&self->budget, opd_now_ns(self->ctx))) {
            uint64_t pause_ns = backoff_ns(self, s->history.attempts, 0);
            OPD_TRY(park(s, &self->pausing, false, opd_now_ns(self->ctx) + pause_ns));
            continue;
        }
        opd_err err = ask(self, s, server);
        if (err == OPD_ERR_AGAIN || err == OPD_ERR_CLOSED) return OPD_OK; /* the tick tries */
        if (err != OPD_OK) give_up(self, s, opd_err_context());
    }
    return OPD_OK;
}

/* An answer is late: the same of another replica, if there is room for it. */
static opd_err hedge(opd__teacher *self, opd__sample *s) {
    bool free_room = may_send(self) && is_late(self, s);
    if (s->tries[1] != NULL) return OPD_OK; /* once only */
    int server = free_room ? opd__fleet_choose(self, s, true) : OPD_REPLICA_NONE;
    if (server == OPD_REPLICA_NONE || !opd_budget_take(&self->budget, opd_now_ns(self->ctx)))
        return await(self, s); /* later, perhaps */
    opd_err err = opd__fleet_send(self, s, server, on_answer);
    return err == OPD_ERR_AGAIN || err == OPD_ERR_CLOSED || err == OPD_ERR_NOMEM ? OPD_OK : err;
}

/* ---- answers ---- */

/* Other weights than before: the scores are still the teacher's, but whoever reads the run should
 * know. Told at the 1st, 2nd, 4th... change, for a fleet behind one address may flip for ever. */
static void note_version(opd__teacher *self, opd__server *server, const char *version) {
    if (version[0] == '\0' || strcmp(version, server->weight_version) == 0) return;
    bool first = server->weight_version[0] == '\0';
    if (!first) self->version_changes++;
    if (!first && (self->version_changes & (self->version_changes - 1)) == 0)
        opd_note(self->ctx, self->c.roles->monitor, OPD_LOG_LEVEL_WARN,
                 "teacher %s answers with other weights: version %.60s after %.60s (changes so far: "
                 "%" PRIu64 ")", self->c.teacher->name, version, server->weight_version,
                 self->version_changes);
    (void)snprintf(server->weight_version, sizeof server->weight_version, "%s", version);
}

/* What a failed attempt was about: the transport's words, or the server's. */
static void describe(const opd_endpoint_call *call, char *out, size_t out_size) {
    char message[OPD_SGLANG_MESSAGE_SIZE];
    if (call->http.err != OPD_OK) {
        (void)snprintf(out, out_size, "%s", call->http.error);
        return;
    }
    if (opd_access_denied(call->http.status)) { /* its words might be about the key, and repeat it */
        (void)snprintf(out, out_size, "HTTP %d: the server does not let us in (teachers.*.api_key_env, "
                       "api_key_file)", call->http.status);
        return;
    }
    opd_sglang_error_read(call->http.answer.data, call->http.answer.size, message);
    if (call->http.status == 413)
        (void)snprintf(out, out_size, "HTTP 413: the server, or a proxy in front of it, takes no body of %zu "
                       "bytes (nginx: client_max_body_size): %s", call->body.size, message);
    else
        (void)snprintf(out, out_size, "HTTP %d: %s", call->http.status, message);
}

/* The body of a 200 answer: whether it is the sample's scores. */
static bool use_answer(opd__teacher *self, opd__sample *s, opd_endpoint_call *call) {
    const opd__attempt *a = call->arg;
    opd_scored_fields *scored = &s->scored;
    if (self->replicas[a->server].quarantined) {
        (void)snprintf(scored->reason, sizeof scored->reason, "its replica is in quarantine");
        return false;
    }
    if (opd_reading_take(call, scored) != OPD_OK) {
        s->history.invalid++;
        (void)snprintf(scored->reason, sizeof scored->reason, "invalid answer: %s",
                       opd_err_context());
        return false;
    }
    note_version(self, &self->servers[a->server], opd_reading_version(call));
    (void)snprintf(scored->weight_version, sizeof scored->weight_version, "%s",
                   opd_reading_version(call));
    opd_hedge_answer(&self->hedge, (double)(opd_now_ns(self->ctx) - s->round_ns) / 1e6);
    (void)snprintf(scored->endpoint, sizeof scored->endpoint, "%s",
                   opd__teacher_where(self, a->server));
    scored->reason[0] = '\0'; /* of an attempt before */
    opd__teacher_answered(self);
    return true;
}

/* Where a failed sample goes on: at once where another replica is free, else after a pause. */
static opd_err try_again(opd__teacher *self, opd__sample *s, const opd_endpoint_call *call) {
    bool other = opd__fleet_choose(self, s, true) != OPD_REPLICA_NONE;
    uint64_t after_ms = opd_teacher_retry_after_ms(opd_http_call_header(&call->http, "retry-after"));
    if (other && s->history.attempts <= 1) return queue_up(self, s, true);
    /* grows with every attempt: a server that refuses them unread must not be hammered */
    uint64_t pause_ns = backoff_ns(self, s->history.attempts, other ? 0 : after_ms);
    return park(s, &self->pausing, false, opd_now_ns(self->ctx) + pause_ns);
}

/* Adds a failed attempt to the sample's history. */
static void remember(opd__teacher *self, opd__sample *s, const opd_endpoint_call *call,
                     opd_teacher_verdict verdict, const char *why) {
    (void)snprintf(self->problem_text, sizeof self->problem_text, "%s", why);
    s->failed = true;
    /* a stream that the server refused unread costs nothing but time (RFC 9113 8.7) */
    if (verdict == OPD_TEACHER_RETRY && !call->http.retry_safe) {
        s->history.retries++;
        s->charged = true;
    }
    bool broke = call->http.err == OPD_ERR_RESET || call->http.err == OPD_OK; /* OK: a proxy says so */
    if (verdict == OPD_TEACHER_WAIT && broke) s->history.breaks++;
    /* two replicas that both break over a sample have found out something about it */
    if (self->fleet.count > 1 && call->http.err == OPD_OK && call->http.status == 500)
        s->history.invalid++;
}

static opd_err act(opd__teacher *self, opd__sample *s, const opd_endpoint_call *call,
                   opd_teacher_verdict verdict, const char *why) {
    switch (opd_teacher_limit(verdict, &s->history, (uint32_t)self->c.teacher->retries)) {
    case OPD_TEACHER_WAIT: return queue_up(self, s, true);
    case OPD_TEACHER_RETRY: return try_again(self, s, call);
    default: give_up(self, s, why); return OPD_OK;
    }
}

/* How an attempt ended, for its sample and its replica. */
static opd_teacher_verdict judge(const opd__teacher *self, const opd__sample *s, const opd_http_call *http) {
    /* one that cannot even be connected to is as gone as one that refuses */
    bool unreachable = http->err == OPD_ERR_TIMEOUT && http->retry_safe && !too_late(self, s);
    return unreachable ? OPD_TEACHER_WAIT : opd_teacher_judge(http->err, http->status);
}

/* A busy server says 503, and a proxy whose server is gone. */
static bool may_be_gone(const opd_http_call *http) {
    return http->err == OPD_OK && http->status == 503 && opd_http_call_header(http, "retry-after") == NULL;
}

static opd_err on_failure(opd__teacher *self, opd__sample *s, const opd_endpoint_call *call,
                          opd_teacher_verdict verdict) {
    char why[OPD_HTTP_ERROR_MAX];
    if (call->http.err == OPD_OK && call->http.status == 200)
        (void)snprintf(why, sizeof why, "%s", s->scored.reason);
    else
        describe(call, why, sizeof why);
    remember(self, s, call, verdict, why);
    if (opd__fleet_asked(s)) return OPD_OK; /* its other request decides */
    if (!too_late(self, s)) return act(self, s, call, verdict, why);
    give_up(self, s, why);
    return OPD_OK;
}

static opd_err on_answer(opd_ctx *ctx, void *state, opd_endpoint_call *call) {
    opd__teacher *self = state;
    opd__attempt *a = call->arg;
    opd__sample *s = a->sample;
    int server = a->server;
    (void)ctx;
    if (s == NULL) {
        opd__fleet_forget(self, a);
        return opd__teacher_pump(self);
    }
    opd_teacher_verdict verdict = judge(self, s, &call->http);
    bool usable = verdict == OPD_TEACHER_READ && !self->stopping && use_answer(self, s, call);
    if (verdict == OPD_TEACHER_READ && !usable) verdict = OPD_TEACHER_RETRY;
    opd__fleet_judge(self, a, verdict, usable);
    opd__fleet_forget(self, a);
    if (self->stopping) return opd__fleet_asked(s) ? OPD_OK : queue_up(self, s, false);
    if (usable) opd__canary_look(self, server); /* before more samples go there */
    if (usable) finish(self, s);
    else OPD_TRY(on_failure(self, s, call, verdict));
    if (verdict == OPD_TEACHER_WAIT && call->endpoint == self->servers[server].endpoint) {
        char why[OPD_HTTP_ERROR_MAX];
        describe(call, why, sizeof why);
        OPD_TRY(opd__teacher_gone(self, server, why));
    }
    if (may_be_gone(&call->http) && call->endpoint == self->servers[server].endpoint)
        OPD_TRY(opd__teacher_suspect(self, server));
    return opd__teacher_pump(self);
}

/* A pause ended, or a sample that waits has reached its deadline. */
static opd_err on_timer(opd_ctx *ctx, void *state, opd_timer *timer) {
    opd__teacher *self = state;
    opd__sample *s = OPD_CONTAINER_OF(timer, opd__sample, timer);
    (void)ctx;
    if (opd__fleet_asked(s)) return hedge(self, s);
    if (too_late(self, s)) {
        give_up(self, s, self->health.down ? self->problem_text : "no attempt succeeded");
        return OPD_OK;
    }
    OPD_TRY(queue_up(self, s, false));
    return opd__teacher_pump(self);
}

/* ---- samples come in ---- */

/* Reads a SCORE. Errors: of a body that cannot be asked. */
static opd_err sample_read(opd__sample *s, const opd_msg *msg) {
    OPD_TRY(opd_message_read(msg, OPD_MESSAGE_SCORE, &s->ask));
    s->count = (uint32_t)(s->ask.tokens.size_bytes / sizeof(int32_t));
    if (s->count < 2 || s->ask.start >= s->count - 1)
        return opd_fail(OPD_ERR_INVALID, "start %u leaves none of %u tokens to score", s->ask.start,
                        s->count);
    s->rows = s->count - 1 - s->ask.start;
    return OPD_OK;
}

static opd_err take_score(opd__teacher *self, opd_msg *msg) {
    opd__sample *s = opd_mem_get(self->c.alloc, sizeof *s);
    if (s == NULL) return opd_fail(OPD_ERR_NOMEM, "no memory for a sample");
    opd_err err = sample_read(s, msg);
    if (err != OPD_OK) {
        opd_mem_free(self->c.alloc, s);
        opd_reply_error(self->ctx, msg, err);
        return OPD_OK;
    }
    opd_msg_take(self->ctx, msg);
    s->request = msg;
    opd_list_init(&s->node);
    opd_timer_init(&s->timer, self->ctx, on_timer);
    s->taken_ns = opd_now_ns(self->ctx);
    s->deadline_ns = s->taken_ns + opd__teacher_ns(self->c.teacher->deadline_s);
    if (s->ask.deadline_ns != 0) s->deadline_ns = s->ask.deadline_ns;
    s->last_server = OPD_REPLICA_NONE;
    self->waiting_count += s->ask.wait;
    opd_teacher_health_work(&self->health, self->waiting_count > 0, opd_now_ns(self->ctx));
    OPD_TRY(queue_up(self, s, false));
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
    opd_list_init(&self->attempts);
    opd__fleet_init(self);
    opd__canary_init(self);
    self->protocol = opd_teacher_protocol_of(self->c.teacher);
    opd_endpoint_reader_init(&self->reader, self->c.parse, OPD_READING_INLINE_MAX_BYTES);
    opd_timer_init(&self->tick, ctx, on_tick);
    OPD_TRY(opd_timer_start_after(&self->tick, OPD__TEACHER_TICK_NS));
    if (self->c.endpoint != NULL)
        opd_slot_watch_start(ctx, self->c.endpoint, &self->watch, on_moved);
    return opd__teacher_begin(self);
}

static opd_err on_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    if (opd_msg_is_request(msg)) return take_score(state, msg);
    OPD_LOG_WARN("%s got a message that asks nothing (kind %u)", opd_self_name(ctx),
                 opd_msg_kind(msg));
    return OPD_OK;
}

static opd_err on_signal(opd_ctx *ctx, void *state, const opd_signal *signal) {
    opd__teacher *self = state;
    if (signal->kind != OPD_SIGNAL_STOP) return OPD_OK;
    self->stopping = true;
    opd_timer_stop(&self->tick);
    for (size_t i = 0; i < self->fleet.count; i++) {
        opd_endpoint_close(self->servers[i].endpoint);
        self->servers[i].endpoint = NULL;
    }
    if (self->endpoints_open > 0) opd_stop_defer(ctx);
    return OPD_OK;
}

static void on_stop(opd_ctx *ctx, void *state) {
    opd__teacher *self = state;
    opd_list *lists[] = {&self->waiting, &self->pausing, &self->asked};
    (void)ctx;
    for (size_t i = 0; i < OPD_COUNTOF(lists); i++)
        for (opd_list *node; (node = opd_list_pop_front(lists[i])) != NULL;)
            destroy(self, sample_of(node));
    for (opd_list *node; (node = opd_list_pop_front(&self->attempts)) != NULL;)
        opd_mem_free(self->c.alloc, OPD_CONTAINER_OF(node, opd__attempt, node));
    opd_endpoint_reader_fini(&self->reader);
    opd_secret_free(self->c.alloc, self->api_key);
}

const opd_actor_class opd_teacher_http_class = {
    .name = "teacher",
    .state_size = sizeof(opd__teacher),
    .mailbox_msgs_max = OPD_TEACHER_MAILBOX_MSGS,
    .mailbox_bytes_max = OPD_TEACHER_MAILBOX_BYTES,
    .on_start = on_start,
    .on_message = on_message,
    .on_signal = on_signal,
    .on_stop = on_stop,
};
