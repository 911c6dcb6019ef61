/* prober_actor.c - questions, then a load, then the report (prober_actor.h).
 *
 *   ASKING --it scores--> ALONE --a fifth of the time--> CROWD --the rest--> over
 *      \__ it does not ______________________________________________________/
 *
 * A phase ends when its last request was answered. Thread: the loop. Memory: latencies and arrays of
 * a request are the actor's; calls are their endpoint's.
 */
#include "actors/teacher/prober_actor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "actors/teacher/access.h"
#include "actors/teacher/inquirer.h"
#include "actors/teacher/policy.h"
#include "actors/teacher/teacher_http.h"
#include "core/base/check.h"

enum {
    ASK_TIMEOUT_MS = 10000,
    FIRST_ID = 3, IDS_UNKNOWN = 28, /* ids where the vocabulary is not told */
    PROMPT_SHARE = 4,               /* a quarter of a sequence is prompt    */
    FAILURES_MAX = 32               /* in a row: it is not going to work    */
};

static const double ALONE_SHARE = 0.2;

/* One sequence under way. */
typedef struct load {
    int32_t *ids;
    opd_sglang_score score;
    uint64_t sent_ns;
} load;

typedef struct prober {
    opd_prober_config c;
    opd_ctx *ctx;
    opd_endpoint *endpoint;
    opd_inquirer inquirer;
    opd_prober_phase *phase; /* the present one */
    uint64_t begin_ns, until_ns;
    uint32_t under_way, bad_in_a_row;
    load *loads;             /* [concurrency]   */
    float *latencies;        /* ms              */
    size_t latency_count;
    opd_sglang_scores scores;/* room for one answer at a time */
    bool stopping;
} prober;

/* ---- the end ---- */

static void refuse(prober *p, const char *reason) {
    p->c.report->usable = false;
    (void)snprintf(p->c.report->reason, sizeof p->c.report->reason, "%s", reason);
}

static opd_err over(prober *p) {
    opd_system_stop(opd_self_system(p->ctx), OPD_OK);
    return OPD_OK;
}

/* ---- the load ---- */

static int by_size(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* The nearest rank of a quantile. */
static double quantile(const prober *p, double q) {
    if (p->latency_count == 0) return 0;
    size_t at = (size_t)(q * (double)p->latency_count);
    return (double)p->latencies[at < p->latency_count ? at : p->latency_count - 1];
}

static void draw_ids(prober *p, load *l) {
    const opd_capabilities *found = &p->c.report->inquiry.found;
    int64_t vocab = found->model.vocab_size;
    uint64_t ids = vocab > FIRST_ID + 1 ? (uint64_t)(vocab - FIRST_ID - 1) : IDS_UNKNOWN;
    for (uint32_t i = 0; i < p->phase->tokens; i++)
        l->ids[i] = FIRST_ID + (int32_t)(opd_random(p->ctx) % ids);
    if (found->model.bos_id >= 0) l->ids[0] = (int32_t)found->model.bos_id;
}

static opd_err on_scored(opd_ctx *ctx, void *state, opd_endpoint_call *call);

static opd_err send(prober *p, load *l) {
    static const opd_http_header headers[] = {{"content-type", "application/json"}};
    opd_endpoint_call *call;
    draw_ids(p, l);
    OPD_TRY(opd_endpoint_call_create(p->endpoint, &call));
    call->http.method = "POST";
    call->http.path = p->c.protocol->score_path;
    call->http.headers = headers;
    call->http.header_count = OPD_COUNTOF(headers);
    call->http.attempt_timeout_ms = (uint64_t)(p->c.timeout_s * 1000);
    l->sent_ns = opd_now_ns(p->ctx);
    call->http.deadline_ns = l->sent_ns + 2 * call->http.attempt_timeout_ms * 1000000;
    call->answered = on_scored;
    call->arg = l;
    opd_err err = p->c.protocol->write(&l->score, &call->body);
    if (err == OPD_OK) err = opd_endpoint_send(call);
    if (err == OPD_OK) p->under_way++;
    else opd_endpoint_call_destroy(call);
    return err;
}

static opd_err begin_phase(prober *p, opd_prober_phase *phase, uint32_t concurrency, double seconds) {
    const opd_capabilities *found = &p->c.report->inquiry.found;
    int64_t longest = opd_capabilities_longest(found);
    *phase = (opd_prober_phase){.concurrency = concurrency, .tokens = p->c.tokens};
    if (longest >= 2 && (int64_t)phase->tokens > longest) phase->tokens = (uint32_t)longest;
    uint32_t prompt = phase->tokens / PROMPT_SHARE;
    p->phase = phase;
    p->latency_count = 0;
    p->begin_ns = opd_now_ns(p->ctx);
    p->until_ns = p->begin_ns + (uint64_t)(seconds * 1e9);
    for (uint32_t i = 0; i < concurrency; i++) {
        p->loads[i].score = (opd_sglang_score){
            .ids = p->loads[i].ids, .count = phase->tokens, .prompt_count = prompt > 0 ? prompt : 1,
            .top_k = (int32_t)p->c.top_k, .form = found->form,
            .vocab_size = found->model.vocab_size > 0 ? (int32_t)found->model.vocab_size : 0};
        OPD_TRY(send(p, &p->loads[i]));
    }
    return OPD_OK;
}

/* The last request of a phase was answered. */
static opd_err end_phase(prober *p) {
    opd_prober_phase *phase = p->phase;
    opd_prober_report *r = p->c.report;
    phase->seconds = (double)(opd_now_ns(p->ctx) - p->begin_ns) / 1e9;
    qsort(p->latencies, p->latency_count, sizeof *p->latencies, by_size);
    phase->p50_ms = quantile(p, 0.5);
    phase->p99_ms = quantile(p, 0.99);
    if (phase == &r->alone && p->bad_in_a_row < FAILURES_MAX)
        return begin_phase(p, &r->crowd, p->c.concurrency, p->c.seconds * (1 - ALONE_SHARE));
    if (r->crowd.valid == 0) refuse(p, r->failure[0] != '\0' ? r->failure : "no answer had a usable score");
    return over(p);
}

/* Why an answer cannot be used; the first such reason is kept. */
static void note_failure(prober *p, const opd_endpoint_call *call) {
    opd_prober_report *r = p->c.report;
    char message[OPD_SGLANG_MESSAGE_SIZE];
    p->phase->failures++;
    p->bad_in_a_row++;
    if (r->failure[0] != '\0') return;
    if (call->http.err != OPD_OK) {
        (void)snprintf(r->failure, sizeof r->failure, "%s", call->http.error);
    } else if (call->http.status == 200) {
        (void)snprintf(r->failure, sizeof r->failure, "%s", opd_err_context());
    } else {
        opd_sglang_error_read(call->http.answer.data, call->http.answer.size, message);
        (void)snprintf(r->failure, sizeof r->failure, "HTTP %d: %.480s", call->http.status, message);
    }
}

static void count_scores(prober *p, const load *l, const opd_endpoint_call *call) {
    opd_prober_phase *phase = p->phase;
    uint32_t rows = (uint32_t)(l->score.count - l->score.prompt_count);
    size_t dropped = opd_teacher_uniform_drop(p->scores.logp, p->scores.valid, rows, p->scores.topk_ids,
                                              p->scores.topk_logps, (size_t)l->score.top_k, l->score.vocab_size);
    phase->scored += rows;
    phase->valid += p->scores.valid_count - dropped;
    phase->bytes_up += call->http.body.size_bytes;
    phase->bytes_down += call->http.answer.size;
    p->bad_in_a_row = 0;
    if (p->latency_count < OPD_PROBER_LATENCIES_MAX)
        p->latencies[p->latency_count++] = (float)((double)(opd_now_ns(p->ctx) - l->sent_ns) / 1e6);
}

static opd_err on_scored(opd_ctx *ctx, void *state, opd_endpoint_call *call) {
    prober *p = state;
    load *l = call->arg;
    (void)ctx;
    p->under_way--;
    if (p->stopping) return OPD_OK;
    p->phase->requests++;
    bool good = call->http.err == OPD_OK && call->http.status == 200 &&
                p->c.protocol->read(call->http.answer.data, call->http.answer.size, &l->score,
                                    &p->scores) == OPD_OK;
    if (good) count_scores(p, l, call);
    else note_failure(p, call);
    if (opd_now_ns(p->ctx) < p->until_ns && p->bad_in_a_row < FAILURES_MAX) return send(p, l);
    return p->under_way == 0 ? end_phase(p) : OPD_OK;
}

/* ---- the questions ---- */

static opd_err on_asked(opd_ctx *ctx, void *state, opd_inquirer *inquirer) {
    prober *p = state;
    opd_prober_report *r = p->c.report;
    (void)ctx;
    r->inquiry = inquirer->inquiry;
    if (p->stopping) return OPD_OK;
    if (inquirer->inquiry.trouble != OPD_OK) {
        refuse(p, inquirer->inquiry.trouble_text);
        return over(p);
    }
    if (inquirer->inquiry.unusable) {
        refuse(p, inquirer->inquiry.found.refusal);
        return over(p);
    }
    r->usable = true;
    return begin_phase(p, &r->alone, 1, p->c.seconds * ALONE_SHARE);
}

/* ---- the actor ---- */

static opd_err on_closed(opd_ctx *ctx, void *state, opd_endpoint *endpoint) {
    (void)state;
    (void)endpoint;
    opd_exit(ctx, OPD_OK);
    return OPD_OK;
}

static opd_err take_room(prober *p) {
    size_t n = p->c.concurrency, t = p->c.tokens, k = p->c.top_k;
    p->loads = opd_mem_get(p->c.alloc, n * sizeof *p->loads);
    int32_t *ids = opd_mem_get(p->c.alloc, n * t * sizeof *ids);
    if (p->loads != NULL) p->loads[0].ids = ids;
    for (size_t i = 0; p->loads != NULL && ids != NULL && i < n; i++) p->loads[i].ids = ids + i * t;
    p->latencies = opd_mem_get(p->c.alloc, OPD_PROBER_LATENCIES_MAX * sizeof *p->latencies);
    p->scores.logp = opd_mem_get(p->c.alloc, t * sizeof(float));
    p->scores.valid = opd_mem_get(p->c.alloc, t);
    p->scores.topk_ids = opd_mem_get(p->c.alloc, t * (k + 1) * sizeof(int32_t));
    p->scores.topk_logps = opd_mem_get(p->c.alloc, t * (k + 1) * sizeof(float));
    if (p->loads == NULL && ids != NULL) opd_mem_free(p->c.alloc, ids);
    if (p->loads != NULL && ids != NULL && p->latencies != NULL && p->scores.logp != NULL &&
        p->scores.valid != NULL && p->scores.topk_ids != NULL && p->scores.topk_logps != NULL)
        return OPD_OK;
    return opd_fail(OPD_ERR_NOMEM, "no memory for %zu requests of %zu tokens", n, t);
}

static opd_err on_start(opd_ctx *ctx, void *state, const void *config) {
    prober *p = state;
    p->c = *(const opd_prober_config *)config;
    p->ctx = ctx;
    OPD_TRY(take_room(p));
    opd_endpoint_options options = {
        .alloc = p->c.alloc, .env = p->c.env, .url = p->c.url, .tls = p->c.tls, .api_key = p->c.api_key,
        .max_inflight = p->c.concurrency + OPD_QUESTION_COUNT,
        .connect_timeout_ms = (uint64_t)(p->c.connect_timeout_s * 1000),
        .max_body_bytes = opd_teacher_question_max_bytes(p->c.tokens),
        .max_answer_bytes = opd_teacher_answer_max_bytes(p->c.tokens, p->c.top_k),
        .closed = on_closed};
    OPD_TRY(opd_endpoint_open(ctx, &options, &p->endpoint));
    opd_inquirer_options ask = {
        .inquiry = {.protocol = p->c.protocol, .alloc = p->c.alloc, .vocab_size = -1, .bos_id = -1,
                    .top_k = p->c.top_k, .nonce = opd_random(ctx)},
        .endpoint = p->endpoint, .attempt_timeout_ms = ASK_TIMEOUT_MS,
        .deadline_ns = opd_now_ns(ctx) + (uint64_t)ASK_TIMEOUT_MS * 1000000, .done = on_asked};
    return opd_inquirer_start(ctx, &p->inquirer, &ask);
}

static opd_err on_signal(opd_ctx *ctx, void *state, const opd_signal *signal) {
    prober *p = state;
    if (signal->kind != OPD_SIGNAL_STOP) return OPD_OK;
    p->stopping = true;
    opd_endpoint_close(p->endpoint);
    if (p->endpoint != NULL) opd_stop_defer(ctx);
    return OPD_OK;
}

static void on_stop(opd_ctx *ctx, void *state) {
    prober *p = state;
    (void)ctx;
    if (p->loads != NULL) opd_mem_free(p->c.alloc, p->loads[0].ids);
    opd_mem_free(p->c.alloc, p->loads);
    opd_mem_free(p->c.alloc, p->latencies);
    opd_mem_free(p->c.alloc, p->scores.logp);
    opd_mem_free(p->c.alloc, p->scores.valid);
    opd_mem_free(p->c.alloc, p->scores.topk_ids);
    opd_mem_free(p->c.alloc, p->scores.topk_logps);
}

const opd_actor_class opd_prober_class = {.name = "prober", .state_size = sizeof(prober),
                                          .on_start = on_start, .on_signal = on_signal,
                                          .on_stop = on_stop};
