/* teacher_fleet.c - requests and their replicas: sent, judged, hedged losers ended
 * (teacher_inside.h). The decisions are in replica.h, budget.h and hedge.h.
 *
 * Thread: the loop. Attempts are the actor's; calls under way belong to their endpoint.
 */
#include <inttypes.h>
#include <stdio.h>

#include "actors/teacher/teacher_inside.h"
#include "core/base/check.h"
#include "core/base/list.h"
#include "core/codec/json.h"
#include "opd/log.h"
#include "transports/sglang.h"

enum { ABORT_TIMEOUT_MS = 5000 };

static const opd_http_header JSON_HEADERS[] = {{"content-type", "application/json"}};

/* What one of several replicas gets of max_inflight at most: less than all of it, so that one that
 * hangs leaves room for the others, but about twice its share. */
static uint32_t share_of(const opd_config_teacher *t, uint32_t count) {
    uint32_t all = (uint32_t)t->max_inflight;
    return count == 1 ? all : (2 * all + count) / (count + 1);
}

void opd__fleet_init(opd__teacher *self) {
    const opd_config_teacher *t = self->c.teacher;
    char url[OPD_CONFIG_URL_SIZE];
    size_t count = 0;
    while (count < OPD_CONFIG_REPLICAS_MAX && opd_config_url_at(t, count, url, sizeof url)) count++;
    if (count == 0) count = 1; /* a launched server: its host tells where */
    self->fleet = (opd_fleet){.replicas = self->replicas, .count = count,
                              .rules = {.failures_max = (uint32_t)t->eject_failures,
                                        .slow_factor = t->eject_slow_factor,
                                        .eject_ns = opd__teacher_ns(t->eject_s)}};
    for (size_t i = 0; i < count; i++)
        opd_replica_init(&self->replicas[i], share_of(t, (uint32_t)count), t->adapt_inflight);
    opd_budget_init(&self->budget, t->retry_budget, (double)t->retry_min_per_s);
    opd_hedge_init(&self->hedge, count > 1 ? t->hedge_quantile : 0);
}

int opd__fleet_choose(opd__teacher *self, const opd__sample *s, bool other_only) {
    int avoid = s->failed || other_only ? s->last_server : OPD_REPLICA_NONE;
    uint64_t bits = self->fleet.count > 1 ? opd_random(self->ctx) : 0, now = opd_now_ns(self->ctx);
    int chosen = opd_fleet_choose(&self->fleet, avoid, other_only, now, bits);
    if (avoid != OPD_REPLICA_NONE || !opd__teacher_reuses_prefix(self)) return chosen;
    return opd_fleet_prefer(&self->fleet, chosen, s->ask.affinity, s->ask.start + 1, now);
}

/* Tokens that a replica must compute for a sample. */
static uint64_t work_of(const opd__teacher *self, const opd__sample *s, int server) {
    bool has_prefix = opd__teacher_reuses_prefix(self) &&
                      opd_fleet_home(&self->fleet, s->ask.affinity) == server;
    return has_prefix ? s->rows : s->count;
}

/* ---- sending ---- */

/* The call of one attempt under a rid of its own; of fixed width, for servers abort by prefix. */
static opd_err prepare(opd__teacher *self, opd__sample *s, int server, opd_endpoint_call *call) {
    (void)snprintf(s->rid, sizeof s->rid, "opd-%016" PRIx64 "-%016" PRIx64 ".", self->rid_nonce,
                   self->rid_next++);
    opd_sglang_score question = opd__teacher_question(self, s, server);
    call->http.method = "POST";
    call->http.path = self->protocol->score_path;
    call->http.headers = JSON_HEADERS;
    call->http.header_count = OPD_COUNTOF(JSON_HEADERS);
    call->http.deadline_ns = s->deadline_ns;
    call->http.attempt_timeout_ms = opd__teacher_ns(self->c.teacher->timeout_s) / 1000000;
    OPD_TRY(opd_reading_attach(call, self->protocol, &question, self->c.alloc));
    return self->protocol->write(&question, &call->body);
}

/* A new attempt and its call, not sent yet. */
static opd_err attempt_create(opd__teacher *self, opd__sample *s, int server,
                              opd__attempt **out_attempt) {
    opd_endpoint *endpoint = self->servers[server].endpoint;
    if (endpoint == NULL) return opd_fail(OPD_ERR_CLOSED, "the server has no address now");
    opd__attempt *a = opd_mem_get(self->c.alloc, sizeof *a);
    if (a == NULL) return opd_fail(OPD_ERR_NOMEM, "no memory for a request");
    opd_list_init(&a->node);
    a->sample = s;
    a->server = server;
    a->tokens = work_of(self, s, server);
    opd_err err = opd_endpoint_call_create(endpoint, &a->call);
    if (err != OPD_OK) {
        opd_mem_free(self->c.alloc, a);
        return err;
    }
    *out_attempt = a;
    return OPD_OK;
}

opd_err opd__fleet_send(opd__teacher *self, opd__sample *s, int server,
                        opd_err (*answered)(opd_ctx *, void *, opd_endpoint_call *)) {
    opd__attempt *a = NULL;
    OPD_TRY(attempt_create(self, s, server, &a));
    opd_err err = prepare(self, s, server, a->call);
    a->call->answered = answered;
    a->call->arg = a;
    if (err == OPD_OK) err = opd_endpoint_send(a->call);
    if (err != OPD_OK) {
        opd_endpoint_call_destroy(a->call);
        opd_mem_free(self->c.alloc, a);
        return err;
    }
    (void)snprintf(a->rid, sizeof a->rid, "%s", s->rid);
    a->sent_ns = opd_now_ns(self->ctx);
    a->trial = opd_fleet_begin(&self->fleet, server, a->tokens);
    opd_list_push_back(&self->attempts, &a->node);
    a->hedge = opd__fleet_asked(s);
    s->scored.hedges += a->hedge;
    s->scored.moves += !a->hedge && s->last_server != OPD_REPLICA_NONE && s->last_server != server;
    s->tries[a->hedge] = a;
    s->history.attempts++;
    s->last_server = server;
    self->asked_count++;
    return OPD_OK;
}

bool opd__fleet_asked(const opd__sample *s) { return s->tries[0] != NULL || s->tries[1] != NULL; }

/* ---- ends ---- */

static void say(opd__teacher *self, int server, const char *what) {
    opd_note(self->ctx, self->c.roles->monitor, OPD_LOG_LEVEL_WARN, "teacher %s: replica %s %s",
             self->c.teacher->name, opd__teacher_where(self, server), what);
}

static bool is_overload(const opd_http_call *http) {
    if (http->err != OPD_OK) return http->err == OPD_ERR_TIMEOUT || http->retry_safe;
    return http->status == 408 || http->status == 429 || http->status == 503;
}

static opd_err on_aborted(opd_ctx *ctx, void *state, opd_endpoint_call *call) {
    (void)ctx;
    (void)state;
    (void)call; /* a server that knows nothing of it, or cannot abort, has only done too much */
    return OPD_OK;
}

/* Asks the server to stop working on a request. A failure costs nothing but its work. */
static opd_err send_abort(opd__teacher *self, const opd__attempt *a) {
    opd_endpoint_call *call;
    opd_endpoint *endpoint = self->servers[a->server].endpoint;
    if (endpoint == NULL || !self->replicas[a->server].up) return OPD_OK;
    OPD_TRY(opd_endpoint_call_create(endpoint, &call));
    opd_str_printf(&call->body, "{\"rid\":\"%s\"}", a->rid); /* letters, digits, '-' and '.' */
    call->http.method = "POST";
    call->http.path = "/abort_request";
    call->http.headers = JSON_HEADERS;
    call->http.header_count = OPD_COUNTOF(JSON_HEADERS);
    call->http.attempt_timeout_ms = ABORT_TIMEOUT_MS;
    call->http.deadline_ns = opd_now_ns(self->ctx) + (uint64_t)ABORT_TIMEOUT_MS * 1000000;
    call->answered = on_aborted;
    opd_err err = opd_endpoint_send(call);
    if (err != OPD_OK) opd_endpoint_call_destroy(call);
    return err;
}

static void abort_there(opd__teacher *self, const opd__attempt *a) {
    opd_err err = send_abort(self, a);
    if (err != OPD_OK) OPD_LOG_DEBUG("teacher: an abort was not sent: %s", opd_err_context());
}

static void look_at(opd__teacher *self, int server) {
    if (opd_fleet_outlier(&self->fleet, server, opd_now_ns(self->ctx)))
        say(self, server, "is much slower than the others; it is left out for a while");
}

void opd__fleet_judge(opd__teacher *self, const opd__attempt *a, opd_teacher_verdict verdict,
                      bool usable) {
    const opd_http_call *http = &a->call->http;
    opd_replica *r = &self->replicas[a->server];
    uint64_t now = opd_now_ns(self->ctx);
    double took_ms = (double)(now - a->sent_ns) / 1e6;
    if (usable) {
        if (opd_fleet_good(&self->fleet, a->server, a->tokens, a->trial, took_ms, now))
            say(self, a->server, "is used again");
        look_at(self, a->server);
        return;
    }
    if (verdict == OPD_TEACHER_WAIT || verdict == OPD_TEACHER_GIVE_UP) {
        opd_fleet_neither(&self->fleet, a->server, a->tokens, a->trial, now);
        return;
    }
    if (http->err == OPD_ERR_TIMEOUT && !http->retry_safe) abort_there(self, a);
    uint64_t after_ms = opd_teacher_retry_after_ms(opd_http_call_header(http, "retry-after"));
    if (after_ms > 0) r->not_before_ns = now + after_ms * 1000000;
    if (opd_fleet_bad(&self->fleet, a->server, a->tokens, a->trial, is_overload(http), now))
        say(self, a->server, "fails again and again; it is left out for a while");
}

void opd__fleet_forget(opd__teacher *self, opd__attempt *a) {
    opd__sample *s = a->sample;
    if (s != NULL) {
        self->asked_count--;
        if (s->tries[1] == a) s->tries[1] = NULL;
        if (s->tries[0] == a) {
            s->tries[0] = s->tries[1];
            s->tries[1] = NULL;
        }
    }
    opd_list_remove(&a->node);
    opd_mem_free(self->c.alloc, a);
}

/* A request whose result nobody needs any more: a hedge that came to nothing, or what it overtook. */
static void leave(opd__teacher *self, const opd__attempt *a) {
    uint64_t now = opd_now_ns(self->ctx);
    if (a->hedge) {
        opd_fleet_neither(&self->fleet, a->server, a->tokens, a->trial, now);
        return;
    }
    opd_fleet_overtaken(&self->fleet, a->server, a->tokens, a->trial,
                        (double)(now - a->sent_ns) / 1e6, now);
    look_at(self, a->server);
}

void opd__fleet_abort(opd__teacher *self, opd__sample *s) {
    for (size_t i = 0; i < OPD__TRIES_MAX; i++) {
        opd__attempt *a = s->tries[i];
        s->tries[i] = NULL;
        if (a == NULL) continue;
        leave(self, a);
        self->asked_count--;
        a->sample = NULL;
        opd_endpoint_cancel(a->call);
        abort_there(self, a);
    }
}
