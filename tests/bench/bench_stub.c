/* bench_stub.c - see bench_stub.h.
 *
 * A job's way: taken -> waiting for a slot -> at work (its timer runs) -> answered. One whose asker
 * has gone is answered at once, which goes nowhere. Jobs own their exchange until they answer
 * it; nothing is freed at the end, for the process is killed.
 */
#include "tests/bench/bench_stub.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "core/base/check.h"
#include "core/base/list.h"
#include "core/base/rng.h"
#include "opd/env.h"
#include "tests/bench/bench.h"
#include "transports/http.h"
#include "transports/sglang.h"

typedef struct stub {
    bench_stub_options o;
    opd_env *env;
    opd_ctx *ctx;
    opd_http_server *server;
    opd_list waiting, working;
    uint32_t busy;
    opd_rng rng;
} stub;

typedef struct job {
    opd_list node; /* of waiting or working */
    stub *stub;
    opd_http_exchange *exchange;
    opd_sglang_generate question;
    opd_timer timer;
    bool works;
} job;

/* What a job's start needs beside the stub's actor. */
typedef struct stub_config {
    bench_stub_options options;
    opd_env *env;
} stub_config;

static opd_err on_timer(opd_ctx *ctx, void *state, opd_timer *timer);

static double service_ms(stub *s) {
    double sigma = s->o.sigma; /* a log-normal of this mean */
    return s->o.mean_ms * exp(sigma * opd_rng_normal(&s->rng) - sigma * sigma / 2);
}

static void begin_next(stub *s) {
    while (s->busy < s->o.slots && !opd_list_empty(&s->waiting)) {
        job *j = OPD_CONTAINER_OF(opd_list_pop_front(&s->waiting), job, node);
        opd_list_push_back(&s->working, &j->node);
        j->works = true;
        s->busy++;
        bench_must(opd_timer_start_after(&j->timer, (uint64_t)(service_ms(s) * 1e6)));
    }
}

static void write_answer(const job *j, opd_str *out) {
    float logp[BENCH_STUB_LEN_MAX];
    const opd_sglang_item *item = &j->question.items[0];
    size_t start = (size_t)j->question.logprob_start, rows = item->count - start;
    for (size_t i = 0; i < rows; i++) logp[i] = bench_stub_score(item->ids[start + i], start + i);
    opd_sglang_answer answer = {.rid = item->rid, .prompt_count = item->count,
                                .weight_version = "stub", .return_logprob = true,
                                .finish = OPD_SGLANG_FINISH_LENGTH,
                                .input = {.ids = item->ids + start, .logp = logp, .count = rows}};
    opd_json_writer w;
    opd_json_writer_init(&w, out, 0);
    opd_sglang_answer_write(&answer, &w);
}

static void end(job *j, bool answered) {
    stub *s = j->stub;
    opd_str out;
    opd_timer_stop(&j->timer);
    opd_list_remove(&j->node);
    s->busy -= j->works;
    opd_str_init(&out, NULL, 1 << 20);
    if (answered) write_answer(j, &out);
    bench_must(opd_str_status(&out));
    opd_http_respond_text(j->exchange, answered ? 200 : 400, "application/json",
                          answered ? out.data : "{}");
    opd_str_fini(&out);
    opd_sglang_generate_fini(&j->question);
    opd_mem_free(NULL, j);
    begin_next(s);
}

static opd_err on_timer(opd_ctx *ctx, void *state, opd_timer *timer) {
    (void)ctx;
    (void)state;
    end(OPD_CONTAINER_OF(timer, job, timer), true);
    return OPD_OK;
}

static void on_cancel(void *arg, opd_http_exchange *exchange) {
    (void)exchange;
    end(arg, false);
}

static void generate(stub *s, opd_http_exchange *exchange) {
    opd_sglang_limits limits = {.vocab_size = BENCH_STUB_VOCAB, .context_size = BENCH_STUB_LEN_MAX};
    job *j = opd_mem_get(NULL, sizeof *j);
    bench_must(j == NULL ? OPD_ERR_NOMEM : OPD_OK);
    bench_must(opd_sglang_generate_read(opd_http_exchange_body(exchange),
                                        opd_http_exchange_body_size(exchange), &limits, NULL,
                                        &j->question));
    j->stub = s;
    j->exchange = exchange;
    opd_timer_init(&j->timer, s->ctx, on_timer);
    opd_list_init(&j->node);
    opd_list_push_back(&s->waiting, &j->node);
    opd_http_exchange_on_cancel(exchange, on_cancel, j);
    begin_next(s);
}

static void abort_rid(stub *s, const char *body) {
    opd_list *lists[] = {&s->waiting, &s->working};
    for (size_t l = 0; l < 2; l++)
        for (opd_list *n = lists[l]->next, *next; n != lists[l]; n = next) {
            job *j = OPD_CONTAINER_OF(n, job, node);
            next = n->next;
            if (strstr(body, j->question.items[0].rid) == NULL) continue;
            end(j, false);
            return;
        }
}

static void on_exchange(void *arg, opd_http_exchange *exchange) {
    stub *s = arg;
    const char *path = opd_http_exchange_path(exchange);
    if (strcmp(path, "/generate") == 0) {
        generate(s, exchange);
        return;
    }
    if (strcmp(path, "/abort_request") == 0) abort_rid(s, opd_http_exchange_body(exchange));
    opd_http_respond_text(exchange, 200, "application/json",
                          "{\"vocab_size\": 1000, \"eos_token_id\": 2, \"tokenizer_hash\": \"stub\"}");
}

static opd_err on_start(opd_ctx *ctx, void *state, const void *config) {
    const stub_config *c = config;
    stub *s = state;
    s->o = c->options;
    s->ctx = ctx;
    opd_list_init(&s->waiting);
    opd_list_init(&s->working);
    opd_rng_init(&s->rng, s->o.seed);
    opd_http_server_options options = {.env = c->env, .port = s->o.port};
    return opd_http_server_create(&options, on_exchange, s, &s->server);
}

static const opd_actor_class stub_class = {.name = "stub", .state_size = sizeof(stub),
                                           .on_start = on_start};

int bench_stub_main(const bench_stub_options *options) {
    bench_system b;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    bench_up(&b, NULL);
    stub_config config = {.options = *options, .env = b.env};
    (void)bench_spawn(&b, &stub_class, &config);
    (void)bench_run_s(&b);
    return 1; /* it is killed before */
}
