/* teacher_canary.c - rounds of fixed sequences, one request at a time, and what follows of them
 * (teacher_inside.h). The judgement is in canary.h.
 *
 *   up --every canary_s, or a new connection--> a round --judged--> due again
 *   quarantined: rounds every QUARANTINE_S until two in a row are good
 *
 * A canary is no sample: it counts in no latency, pace, hedge or budget, and has room of its own at the
 * endpoint. A round that a server does not answer says nothing: that is the breakers' matter.
 * Thread: the loop. Memory: calls are their endpoint's.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "actors/metrics.h"
#include "actors/teacher/teacher_inside.h"
#include "core/base/check.h"
#include "core/base/rng.h"
#include "models/tokenizer.h"
#include "opd/log.h"

static const double QUARANTINE_S = 5;

/* What a run with a tokenizer asks about: prose, arithmetic, code. */
static const char *const TEXTS[OPD_CANARY_SEQUENCES] = {
    "The miller's youngest son inherited nothing but a cat, and went out into the world to make his fortune.",
    "4712 + 2589 = 7301, because 12 + 89 = 101 and 4700 + 2500 = 7200, which together make 7301.",
    "int largest(const int *values, size_t count) { int best = values[0]; for (size_t i = 1; i < count; i++)"};

bool opd__canary_is_on(const opd__teacher *self) { return self->c.teacher->canary_s > 0; }

static void use_texts(opd__teacher *self) {
    int32_t ids[OPD_CANARY_IDS_MAX * 4];
    for (size_t s = 0; s < OPD_CANARY_SEQUENCES; s++) {
        size_t n = self->c.bos_id >= 0 ? 1 : 0, count = 0;
        ids[0] = self->c.bos_id;
        if (opd_tokenizer_encode(self->c.tokenizer, TEXTS[s], strlen(TEXTS[s]), false, ids + n,
                                 OPD_COUNTOF(ids) - n, &count) == OPD_OK && n + count >= 2)
            opd_canary_set(&self->canary, s, ids, n + count);
    }
}

void opd__canary_init(opd__teacher *self) {
    opd_canary_init(&self->canary, self->fleet.count, self->c.vocab_size, self->c.bos_id, self->c.max_len,
                    self->c.teacher->canary_tolerance);
    if (self->c.tokenizer != NULL) use_texts(self);
}

/* ---- what a round means ---- */

static void count_quarantine(opd__teacher *self) {
    opd_counted_fields f = {.metric = OPD_METRIC_TEACHER_QUARANTINES, .value = 1};
    if (self->c.account != NULL) self->c.account->quarantines++;
    if (opd_message_send(self->ctx, self->c.roles->monitor, OPD_MESSAGE_COUNTED, &f) != OPD_OK)
        OPD_LOG_DEBUG("teacher: a quarantine was not counted: %s", opd_err_context());
}

static void describe(const opd__teacher *self, opd_canary_verdict verdict, double distance, char *out,
                     size_t out_size) {
    double tolerance = self->c.teacher->canary_tolerance;
    switch (verdict) {
    case OPD_CANARY_INVALID: (void)snprintf(out, out_size, "scores that are none"); break;
    case OPD_CANARY_UNIFORM: (void)snprintf(out, out_size, "all scores are the same"); break;
    case OPD_CANARY_CHANGED:
        (void)snprintf(out, out_size, "its scores changed by %.3g nats, allowed %.3g", distance, tolerance);
        break;
    default:
        (void)snprintf(out, out_size, "%.3g nats from its siblings, allowed %.3g", distance,
                       tolerance * OPD_CANARY_APART);
    }
}

static void put_away(opd__teacher *self, int server, opd_canary_verdict verdict, double distance) {
    char why[100], text[160];
    describe(self, verdict, distance, why, sizeof why);
    self->replicas[server].quarantined = true;
    count_quarantine(self);
    opd_note(self->ctx, self->c.roles->monitor, OPD_LOG_LEVEL_ERROR,
             "teacher %.40s: replica %.50s is in quarantine: %s", self->c.teacher->name,
             opd__teacher_where(self, server), why);
    (void)snprintf(text, sizeof text, "in quarantine: %s", why);
    opd__teacher_unusable(self, text);
}

static opd_err let_back(opd__teacher *self, int server) {
    self->replicas[server].quarantined = false;
    opd_note(self->ctx, self->c.roles->monitor, OPD_LOG_LEVEL_INFO,
             "teacher %s: replica %s is out of quarantine", self->c.teacher->name,
             opd__teacher_where(self, server));
    return self->replicas[server].up ? opd__teacher_settled(self, server) : OPD_OK;
}

/* Of two that disagree, once. */
static void tell_dispute(opd__teacher *self, int server, const opd_canary_finding *f) {
    if (f->disputed == OPD_CANARY_NOBODY || self->dispute_told) return;
    self->dispute_told = true;
    opd_note(self->ctx, self->c.roles->monitor, OPD_LOG_LEVEL_WARN,
             "teacher %.30s: %.40s and %.40s differ by %.3g nats; neither can be believed over the other",
             self->c.teacher->name, opd__teacher_where(self, server),
             opd__teacher_where(self, f->disputed), f->dispute);
}

/* A round is complete; NULL: an answer was not about what was asked. */
static opd_err judge(opd__teacher *self, int server, const opd_canary_scores *scores) {
    opd_canary_finding f = opd_canary_take(&self->canary, (size_t)server, scores);
    double distance;
    if (f.renewed)
        opd_note(self->ctx, self->c.roles->monitor, OPD_LOG_LEVEL_INFO,
                 "teacher %s: %s has weights \"%.40s\" now, which are a new baseline", self->c.teacher->name,
                 opd__teacher_where(self, server), scores->weight_version);
    if (f.went) put_away(self, server, f.verdict, f.distance);
    tell_dispute(self, server, &f);
    for (int i; (i = opd_canary_outlier(&self->canary, &distance)) != OPD_CANARY_NOBODY;)
        put_away(self, i, OPD_CANARY_IS_APART, distance);
    OPD_LOG_DEBUG("canary of %s: verdict %d, %.4g nats", opd__teacher_where(self, server), (int)f.verdict,
                  f.distance);
    return f.came ? let_back(self, server) : OPD_OK;
}

/* ---- rounds ---- */

static void end_round(opd__teacher *self, opd__server *s) {
    int server = (int)(s - self->servers);
    double pause_s = self->c.teacher->canary_s;
    if (self->replicas[server].quarantined && pause_s > QUARANTINE_S) pause_s = QUARANTINE_S;
    s->round.under_way = false;
    s->round.ended_ns = opd_now_ns(self->ctx);
    s->round.due_ns = s->round.ended_ns + opd__teacher_ns(pause_s);
}

static opd_err ask(opd__teacher *self, opd__server *s);

/* Reads one sequence's scores into the round. */
static opd_err read_scores(opd__teacher *self, opd__server *s, const opd_endpoint_call *call) {
    opd_canary_scores *all = &s->round.scores;
    size_t at = opd_canary_at(&self->canary, s->round.sequence);
    opd_sglang_score question = opd__canary_question(self, s->round.sequence, NULL);
    opd_sglang_scores scores = {.logp = all->logp + at, .valid = all->valid + at};
    OPD_TRY(self->protocol->read(call->http.answer.data, call->http.answer.size, &question, &scores));
    memcpy(all->weight_version, scores.weight_version, sizeof all->weight_version);
    return OPD_OK;
}

/* A request of the round failed, or was aborted by a server that is busy. */
static opd_err no_answer(opd__teacher *self, opd__server *s, const opd_endpoint_call *call) {
    char text[OPD_SGLANG_MESSAGE_SIZE], message[OPD_SGLANG_MESSAGE_SIZE];
    bool aborted = call->http.err == OPD_OK && call->http.status == 200;
    if (aborted) {
        (void)snprintf(text, sizeof text, "%.500s", opd_err_context());
    } else if (call->http.err != OPD_OK) {
        (void)snprintf(text, sizeof text, "%.500s", call->http.error);
    } else {
        opd_sglang_error_read(call->http.answer.data, call->http.answer.size, message);
        (void)snprintf(text, sizeof text, "HTTP %d: %.480s", call->http.status, message);
    }
    OPD_LOG_DEBUG("canary of %s: %s", opd_endpoint_name(call->endpoint), text);
    end_round(self, s);
    if (!s->round.settles) return OPD_OK;
    s->round.settles = s->probing = false;
    return opd__teacher_probe_failed(self, s, call->http.err != OPD_OK ? call->http.err : OPD_ERR_REMOTE, text);
}

static opd_err on_canary(opd_ctx *ctx, void *state, opd_endpoint_call *call) {
    opd__teacher *self = state;
    opd__server *s = call->arg;
    int server = (int)(s - self->servers);
    (void)ctx;
    if (call != s->round.call) return OPD_OK;
    s->round.call = NULL;
    if (call->endpoint != s->endpoint || self->stopping || self->failed) return OPD_OK;
    if (call->http.err != OPD_OK || call->http.status != 200) return no_answer(self, s, call);
    opd_err err = read_scores(self, s, call);
    if (err == OPD_ERR_AGAIN) return no_answer(self, s, call);
    bool good = err == OPD_OK;
    if (good && ++s->round.sequence < OPD_CANARY_SEQUENCES) {
        if (ask(self, s) == OPD_OK) return OPD_OK;
        end_round(self, s); /* the queue is full; if it settles, the tick asks again */
        s->probing = false;
        return OPD_OK;
    }
    bool settles = s->round.settles;
    s->round.settles = false;
    s->round.connections = opd_endpoint_connections(s->endpoint);
    if (settles) s->probing = false;
    OPD_TRY(judge(self, server, good ? &s->round.scores : NULL));
    end_round(self, s);
    return settles ? opd__teacher_settled(self, server) : OPD_OK;
}

opd_sglang_score opd__canary_question(const opd__teacher *self, size_t sequence, const char *rid) {
    const opd_canary_sequence *q = &self->canary.sequences[sequence];
    return (opd_sglang_score){.ids = q->ids, .count = q->count, .prompt_count = 1,
                              .vocab_size = self->c.vocab_size > 0 ? self->c.vocab_size : 0,
                              .temperature = self->c.temperature, .rid = rid};
}

/* The round's next sequence. Errors: those of opd_endpoint_send; nothing is under way then. */
static opd_err ask(opd__teacher *self, opd__server *s) {
    static const opd_http_header headers[] = {{"content-type", "application/json"}};
    char rid[OPD__RID_SIZE];
    opd_endpoint_call *call;
    (void)snprintf(rid, sizeof rid, "opd-sing-%016" PRIx64 "-%016" PRIx64 ".", self->rid_nonce,
                   self->rid_next++);
    opd_sglang_score question = opd__canary_question(self, s->round.sequence, rid);
    OPD_TRY(opd_endpoint_call_create(s->endpoint, &call));
    opd_err err = self->protocol->write(&question, &call->body);
    call->http.method = "POST";
    call->http.path = self->protocol->score_path;
    call->http.headers = headers;
    call->http.header_count = OPD_COUNTOF(headers);
    call->http.attempt_timeout_ms = opd__teacher_ns(self->c.teacher->timeout_s) / 1000000;
    call->http.deadline_ns = opd_now_ns(self->ctx) + 2 * opd__teacher_ns(self->c.teacher->timeout_s);
    if (s->round.settles && !self->ready && call->http.deadline_ns > self->start_by_ns)
        call->http.deadline_ns = self->start_by_ns;
    call->answered = on_canary;
    call->arg = s;
    if (err == OPD_OK) err = opd_endpoint_send(call);
    if (err == OPD_OK) s->round.call = call;
    else opd_endpoint_call_destroy(call);
    return err;
}

/* What is under way is of a round that ends here: a server that is lost and found again is settled anew. */
static opd_err begin(opd__teacher *self, opd__server *s, bool settles) {
    if (s->round.call != NULL) opd_endpoint_cancel(s->round.call);
    s->round.call = NULL;
    s->round.under_way = false;
    s->round.sequence = 0;
    s->round.settles = settles;
    OPD_TRY(ask(self, s));
    s->round.under_way = true;
    if (settles) s->probing = true;
    return OPD_OK;
}

opd_err opd__canary_settle(opd__teacher *self, opd__server *s) { return begin(self, s, true); }

/* Whether connections were made since a round was answered. A tick apart, for some servers end each after one
 * answer. */
static bool is_new(const opd__teacher *self, const opd__server *s) {
    return opd_endpoint_connections(s->endpoint) != s->round.connections &&
           opd_now_ns(self->ctx) - s->round.ended_ns >= OPD__TEACHER_TICK_NS;
}

static bool may_begin(const opd__teacher *self, const opd__server *s) {
    return opd__canary_is_on(self) && self->replicas[s - self->servers].up && s->endpoint != NULL &&
           !s->round.under_way;
}

/* What cannot be asked now is asked at the next tick. */
static void begin_or_wait(opd__teacher *self, opd__server *s) {
    if (begin(self, s, false) != OPD_OK) s->round.due_ns = opd_now_ns(self->ctx) + OPD__TEACHER_TICK_NS;
}

void opd__canary_look(opd__teacher *self, int server) {
    opd__server *s = &self->servers[server];
    if (may_begin(self, s) && is_new(self, s)) begin_or_wait(self, s);
}

void opd__canary_tick(opd__teacher *self) {
    uint64_t now = opd_now_ns(self->ctx);
    for (opd__server *s = self->servers; s < self->servers + self->fleet.count; s++)
        if (may_begin(self, s) && (now >= s->round.due_ns || is_new(self, s))) begin_or_wait(self, s);
}
