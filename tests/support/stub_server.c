/* stub_server.c - see stub_server.h.
 *
 * A job's way: taken -> waiting for a slot -> at work (its timer runs) -> answered. One whose asker
 * has gone is answered at once, which goes nowhere. Jobs own their exchange until they answer it.
 * Errors of memory end the program: it is a test's or a benchmark's.
 */
#include "tests/support/stub_server.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/check.h"
#include "core/base/list.h"
#include "core/base/rng.h"
#include "transports/http.h"
#include "transports/sglang.h"

typedef struct stub {
    stub_server_config c;
    opd_ctx *ctx;
    opd_http_server *server; /* NULL: down */
    opd_list waiting, working;
    uint32_t busy;
    opd_rng rng;
    opd_timer down, back;
    opd_event closed;
    bool stopping;
} stub;

typedef struct job {
    opd_list node; /* of waiting or working */
    stub *stub;
    opd_http_exchange *exchange;
    opd_sglang_generate question;
    opd_timer timer;
    bool works;
} job;

static void must(opd_err err) {
    if (err == OPD_OK) return;
    (void)fprintf(stderr, "stub: %s: %s\n", opd_err_name(err), opd_err_context());
    abort();
}

static double service_ms(stub *s) {
    double sigma = s->c.sigma; /* a log-normal of this mean */
    return s->c.mean_ms * exp(sigma * opd_rng_normal(&s->rng) - sigma * sigma / 2);
}

static void begin_next(stub *s) {
    while (s->busy < s->c.slots && !opd_list_empty(&s->waiting)) {
        job *j = OPD_CONTAINER_OF(opd_list_pop_front(&s->waiting), job, node);
        opd_list_push_back(&s->working, &j->node);
        j->works = true;
        s->busy++;
        must(opd_timer_start_after(&j->timer, (uint64_t)(service_ms(s) * 1e6)));
    }
}

static void write_answer(const job *j, opd_str *out) {
    float logp[STUB_SERVER_LEN_MAX];
    const opd_sglang_item *item = &j->question.items[0];
    size_t start = (size_t)item->ask.logprob_start, rows = item->count - start;
    for (size_t i = 0; i < rows; i++) logp[i] = stub_server_score(item->ids[start + i], start + i);
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
    opd_str_init(&out, s->c.alloc, 1 << 20);
    if (answered) write_answer(j, &out);
    must(opd_str_status(&out));
    opd_http_respond_text(j->exchange, answered ? 200 : 400, "application/json",
                          answered ? out.data : "{}");
    opd_str_fini(&out);
    opd_sglang_generate_fini(&j->question);
    opd_mem_free(s->c.alloc, j);
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
    opd_sglang_limits limits = {.vocab_size = STUB_SERVER_VOCAB, .context_size = STUB_SERVER_LEN_MAX};
    job *j = opd_mem_get(s->c.alloc, sizeof *j);
    must(j == NULL ? OPD_ERR_NOMEM : OPD_OK);
    must(opd_sglang_generate_read(opd_http_exchange_body(exchange),
                                  opd_http_exchange_body_size(exchange), &limits, s->c.alloc,
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

/* ---- up and down ---- */

static opd_err open_server(stub *s) {
    opd_http_server_options options = {.alloc = s->c.alloc, .env = s->c.env, .port = s->c.port};
    OPD_TRY(opd_http_server_create(&options, on_exchange, s, &s->server));
    s->c.port = opd_http_server_port(s->server);
    return OPD_OK;
}

static void on_closed(void *arg) {
    stub *s = arg;
    opd_event_post(opd_self_system(s->ctx), &s->closed);
}

/* All jobs are cancelled by it. */
static void close_server(stub *s) {
    opd_http_server *server = s->server;
    s->server = NULL;
    if (server != NULL) opd_http_server_close(server, 0, on_closed, s);
}

static opd_err deliver_closed(opd_ctx *ctx, void *state, opd_event *event) {
    stub *s = state;
    (void)event;
    if (s->stopping) opd_exit(ctx, OPD_OK);
    return OPD_OK;
}

static opd_err on_down(opd_ctx *ctx, void *state, opd_timer *timer) {
    stub *s = state;
    (void)ctx;
    close_server(s);
    OPD_TRY(opd_timer_start_after(&s->back, s->c.down_for_ms * 1000000));
    return opd_timer_start_after(timer, s->c.down_every_ms * 1000000);
}

static opd_err on_back(opd_ctx *ctx, void *state, opd_timer *timer) {
    (void)ctx;
    (void)timer;
    return open_server(state);
}

static opd_err on_start(opd_ctx *ctx, void *state, const void *config) {
    stub *s = state;
    s->c = *(const stub_server_config *)config;
    s->ctx = ctx;
    s->closed = (opd_event){.to = opd_self(ctx), .deliver = deliver_closed};
    opd_list_init(&s->waiting);
    opd_list_init(&s->working);
    opd_rng_init(&s->rng, s->c.seed);
    opd_timer_init(&s->down, ctx, on_down);
    opd_timer_init(&s->back, ctx, on_back);
    OPD_TRY(open_server(s));
    if (s->c.out_port != NULL) *s->c.out_port = s->c.port;
    if (s->c.down_first_ms == 0) return OPD_OK;
    return opd_timer_start_after(&s->down, s->c.down_first_ms * 1000000);
}

static opd_err on_signal(opd_ctx *ctx, void *state, const opd_signal *signal) {
    stub *s = state;
    if (signal->kind != OPD_SIGNAL_STOP) return OPD_OK;
    s->stopping = true;
    opd_timer_stop(&s->down);
    opd_timer_stop(&s->back);
    if (s->server == NULL) return OPD_OK;
    close_server(s);
    opd_stop_defer(ctx);
    return OPD_OK;
}

const opd_actor_class stub_server_class = {.name = "stub", .state_size = sizeof(stub),
                                           .on_start = on_start, .on_signal = on_signal};
