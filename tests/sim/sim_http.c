/* sim_http.c - the HTTP client and server under seeds: all faults of the network, no memory at
 * times, a server that is slow, silent and restarted, its name that comes to stand for other hosts, a
 * client that cancels, hangs up and has several connections with PINGs.
 *
 * Usage: sim_http --seeds A-B [--twice]
 * Checked: every call ends exactly once, within its deadline and a little; an answer is the one
 * that was asked for; every exchange can be answered; both close; nothing leaks. Exit status 1 if
 * a seed fails. Thread: one.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/check.h"
#include "core/base/rng.h"
#include "opd/log.h"
#include "opd/sim.h"
#include "transports/http.h"
#include "transports/tcp_sim.h"

static const uint64_t MS = 1000000, S = 1000000000;

enum { CALLS = 40, HELD_MAX = 200, BODY_MAX = 40000, SLACK_MS = 50 };

typedef struct site site;

typedef struct call {
    opd_http_call http; /* first */
    site *site;
    char path[64];
    uint32_t token, size;
    int taken, done;
    opd_buf *body;
} call;

struct site {
    uint64_t seed;
    opd_sim *sim;
    opd_net_sim *net;
    opd_env *a, *b;
    const opd_alloc *alloc;
    opd_rng rng;
    opd_http_client *client;
    opd_http_server *server;
    opd_tcp_timer *client_tick, *server_tick;
    call calls[CALLS];
    int begun, done, answered;
    opd_http_exchange *held[HELD_MAX];
    int held_count;
    int closing; /* closes under way */
    bool over;   /* no new calls, no new server */
    bool failed;
    uint64_t hash;
};

static uint64_t draw(site *s, uint64_t n) { return opd_rng_below(&s->rng, n); }

static uint64_t now(const site *s) { return opd_sim_now_ns(s->sim); }

__attribute__((format(printf, 2, 3))) static void fail(site *s, const char *fmt, ...) {
    char text[512];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (!s->failed) printf("seed %" PRIu64 ": %s\n", s->seed, text);
    s->failed = true;
}

static uint8_t byte_of(uint32_t token, size_t i) { return (uint8_t)(token * 31 + i * 7); }

static opd_buf *body_of(uint32_t token, size_t size) {
    opd_buf *buf = NULL;
    opd_err err = opd_buf_create(NULL, size, &buf); /* the test's own memory does not fail */
    OPD_ASSERT(err == OPD_OK);
    uint8_t *bytes = opd_buf_data(buf);
    for (size_t i = 0; i < size; i++) bytes[i] = byte_of(token, i);
    return buf;
}

static bool is_body_of(const void *data, size_t size, uint32_t token) {
    const uint8_t *bytes = data;
    for (size_t i = 0; i < size; i++)
        if (bytes[i] != byte_of(token, i)) return false;
    return true;
}

static void on_closed(void *arg) { ((site *)arg)->closing--; }

/* ---- server ---------------------------------------------------------------------------- */

/* The path says what to answer: /SIZE/TOKEN; the request's body is of the same token. */
static void respond(site *s, opd_http_exchange *exchange) {
    uint32_t size = 0, token = 0;
    if (strcmp(opd_http_exchange_path(exchange), "/model_info") == 0) { /* a client looks for HTTP/1.1 */
        opd_http_respond_text(exchange, 404, NULL, "");
        return;
    }
    if (sscanf(opd_http_exchange_path(exchange), "/%" SCNu32 "/%" SCNu32, &size, &token) != 2)
        fail(s, "the path %s was not asked for", opd_http_exchange_path(exchange));
    size_t got = opd_http_exchange_body_size(exchange);
    if (!is_body_of(opd_http_exchange_body(exchange), got, token)) fail(s, "a request's body is wrong");
    opd_buf *buf = body_of(token, size == 0 ? 1 : size);
    opd_http_respond(exchange, 200, "application/octet-stream",
                     size == 0 ? (opd_slice){0} : opd_slice_whole(buf));
    opd_buf_release(buf);
}

static void on_cancel(void *arg, opd_http_exchange *exchange) {
    if (!opd_http_exchange_cancelled(exchange)) fail(arg, "told of a cancel that is none");
}

static void handler(void *arg, opd_http_exchange *exchange) {
    site *s = arg;
    if (draw(s, 2) == 0 || s->held_count == HELD_MAX) {
        respond(s, exchange);
        return;
    }
    opd_http_exchange_on_cancel(exchange, on_cancel, s);
    s->held[s->held_count++] = exchange;
}

static void server_open(site *s) {
    opd_http_server_options o = {.alloc = s->alloc, .env = s->b, .host = "0.0.0.0", .port = 80,
                                 .max_connections = 4, .max_streams = 8,
                                 .handshake_timeout_ms = 500, .request_timeout_ms = 2000};
    if (opd_http_server_create(&o, handler, s, &s->server) != OPD_OK) s->server = NULL;
}

static void server_shut(site *s) {
    if (s->server == NULL) return;
    s->closing++;
    opd_http_server_close(s->server, draw(s, 300), on_closed, s);
    s->server = NULL;
}

static void server_acts(void *arg) {
    site *s = arg;
    if (s->server == NULL && !s->over && s->closing == 0) server_open(s);
    else if (draw(s, 100) == 0) server_shut(s);
    while (s->held_count > 0 && (s->over || draw(s, 3) != 0)) {
        uint64_t i = draw(s, (uint64_t)s->held_count);
        opd_http_exchange *exchange = s->held[i];
        s->held[i] = s->held[--s->held_count];
        respond(s, exchange);
    }
    opd_tcp_timer_set(s->server_tick, now(s) + 1 + draw(s, 30 * MS));
}

/* ---- client ---------------------------------------------------------------------------- */

static void call_done(opd_http_call *http) {
    call *c = (call *)(void *)http;
    site *s = c->site;
    if (++c->done > 1) fail(s, "call %" PRIu32 " ended twice", c->token);
    s->done++;
    bool whole = http->err == OPD_OK && http->status == 200;
    if (whole && (http->answer.size != c->size ||
                  !is_body_of(http->answer.data, http->answer.size, c->token)))
        fail(s, "call %" PRIu32 " got %zu bytes that were not asked for", c->token,
             http->answer.size);
    if (http->err != OPD_OK && http->error[0] == '\0') fail(s, "an error without a text");
    if (http->deadline_ns != 0 && now(s) > http->deadline_ns + SLACK_MS * MS)
        fail(s, "call %" PRIu32 " ended %" PRIu64 " ms after its deadline", c->token,
             (now(s) - http->deadline_ns) / MS);
    s->answered += whole;
    s->hash = opd_rng_at(s->hash, now(s), c->token, (uint64_t)http->err << 16 | (uint64_t)http->status);
}

static void call_begin(site *s) {
    call *c = &s->calls[s->begun];
    c->site = s;
    c->token = (uint32_t)s->begun++;
    c->size = (uint32_t)draw(s, draw(s, 4) == 0 ? BODY_MAX : 200);
    (void)snprintf(c->path, sizeof c->path, "/%" PRIu32 "/%" PRIu32, c->size, c->token);
    c->http = (opd_http_call){.path = c->path, .done = call_done};
    if (draw(s, 2) == 0) {
        c->body = body_of(c->token, 1 + draw(s, BODY_MAX));
        c->http.body = opd_slice_whole(c->body);
    }
    /* Every call has a limit, as a server may be silent for ever. */
    c->http.deadline_ns = now(s) + (1 + draw(s, 3000)) * MS;
    if (draw(s, 2) == 0) c->http.attempt_timeout_ms = 1 + draw(s, 1000);
    c->taken = opd_http_client_send(s->client, &c->http) == OPD_OK;
    if (!c->taken) s->done++;
}

static void client_open(site *s) {
    opd_http_client_options o = {.alloc = s->alloc, .env = s->a, .url = "http://teacher:80",
                                 .max_inflight = 6, .max_queue = 12, .connect_timeout_ms = 1000,
                                 .settings_timeout_ms = 1000, .backoff_min_ms = 5,
                                 .backoff_max_ms = 100, .connections = 1 + (uint32_t)draw(s, 3),
                                 .max_streams = 1 + (uint32_t)draw(s, 8),
                                 .connection_calls_max = 1 + (uint32_t)draw(s, 20),
                                 .ping_after_ms = 20 + draw(s, 200), .ping_timeout_ms = 20 + draw(s, 300)};
    if (opd_http_client_create(&o, &s->client) != OPD_OK) s->client = NULL;
}

static void client_shut(site *s) {
    if (s->client == NULL) return;
    s->closing++;
    opd_http_client_close(s->client, on_closed, s);
    s->client = NULL;
}

/* The name of the server comes to stand for other hosts: dead ones before it, or none at all. */
static void rename_server(site *s) {
    static const char *const hosts[] = {"gone", "a", "b"};
    uint64_t first = draw(s, 4);
    opd_err err = opd_net_sim_name(s->net, "teacher", hosts + (first < 3 ? first : 0),
                                   first < 3 ? 3 - first : 0);
    OPD_ASSERT(err == OPD_OK);
}

static void client_acts(void *arg) {
    site *s = arg;
    if (draw(s, 20) == 0) rename_server(s);
    if (s->client == NULL && !s->over) client_open(s);
    else if (draw(s, 100) == 0) client_shut(s);
    for (uint64_t burst = draw(s, 4); burst > 0 && s->client != NULL && s->begun < CALLS; burst--)
        call_begin(s);
    if (s->begun > 0 && draw(s, 5) == 0) {
        call *c = &s->calls[draw(s, (uint64_t)s->begun)];
        if (c->taken && !c->done) opd_http_client_cancel(&c->http);
    }
    opd_tcp_timer_set(s->client_tick, now(s) + 1 + draw(s, 60 * MS));
}

/* ---- one run --------------------------------------------------------------------------- */

static bool all_done(void *arg) {
    const site *s = arg;
    return s->begun == CALLS && s->done == CALLS;
}

static bool all_closed(void *arg) {
    const site *s = arg;
    return s->closing == 0 && s->held_count == 0;
}

static opd_err site_open(site *s, uint64_t seed) {
    uint32_t one_in = 8u << opd_rng_at(seed, 10, 0, 0) % 7; /* from havoc to now and then */
    opd_sim_options o = {.faults = OPD_SIM_FAULTS_ALL, .fault_one_in = one_in,
                         .faults_until_ns = 2 * S, .time_max_ns = 60 * S};
    *s = (site){.seed = seed, .hash = seed};
    opd_rng_init(&s->rng, opd_rng_at(seed, 9, 0, 0));
    OPD_TRY(opd_sim_create(seed, &o, &s->sim));
    OPD_TRY(opd_net_sim_create(s->sim, NULL, &s->net));
    OPD_TRY(opd_sim_env(s->sim, "a", &s->a));
    OPD_TRY(opd_sim_env(s->sim, "b", &s->b));
    OPD_TRY(opd_net_sim_join(s->net, s->a));
    OPD_TRY(opd_net_sim_join(s->net, s->b));
    OPD_TRY(opd_net_sim_name(s->net, "teacher", (const char *const[]){"gone", "b"}, 2));
    s->alloc = opd_sim_alloc(s->sim);
    OPD_TRY(opd_tcp_timer_create(s->a, NULL, client_acts, s, &s->client_tick));
    OPD_TRY(opd_tcp_timer_create(s->b, NULL, server_acts, s, &s->server_tick));
    opd_tcp_timer_set(s->client_tick, now(s) + 1);
    opd_tcp_timer_set(s->server_tick, now(s) + 1);
    return OPD_OK;
}

static void site_close(site *s) {
    opd_tcp_timer_close(s->client_tick, NULL, NULL);
    opd_tcp_timer_close(s->server_tick, NULL, NULL);
    opd_err err = opd_env_destroy(s->a);
    if (err == OPD_OK) err = opd_env_destroy(s->b);
    if (err != OPD_OK) fail(s, "%s", opd_err_context());
    for (int i = 0; i < CALLS; i++) {
        opd_http_call_fini(&s->calls[i].http);
        opd_buf_release(s->calls[i].body);
    }
    if (err != OPD_OK) return; /* what is still open cannot be freed */
    if (opd_net_sim_stats_get(s->net).open != 0) fail(s, "a connection is left");
    opd_net_sim_destroy(s->net);
    size_t left = opd_sim_stats_get(s->sim).live_blocks;
    if (left != 0) fail(s, "%zu blocks are not free at the end", left);
    opd_sim_destroy(s->sim);
}

static site run_seed(uint64_t seed) {
    static site s;
    opd_err err = site_open(&s, seed);
    OPD_ASSERT(err == OPD_OK);
    err = opd_sim_run(s.sim, OPD_SIM_FOREVER, all_done, &s);
    if (err != OPD_OK) fail(&s, "%d of %d calls ended: %s", s.done, CALLS, opd_err_context());
    s.over = true;
    client_shut(&s);
    server_shut(&s);
    err = opd_sim_run(s.sim, OPD_SIM_FOREVER, all_closed, &s);
    if (err != OPD_OK) fail(&s, "it does not close: %s", opd_err_context());
    site_close(&s);
    return s;
}

static void no_log(void *arg, opd_log_level level, const char *text) {
    (void)arg, (void)level, (void)text;
}

int main(int argc, char **argv) {
    uint64_t first = 1, last = 20, failed = 0, hash = 0, answered = 0;
    bool twice = argc == 4 && strcmp(argv[3], "--twice") == 0;
    int range = argc < 3 ? 0 : sscanf(argv[2], "%" SCNu64 "-%" SCNu64, &first, &last);
    if (range == 1) last = first;
    if (range < 1 || strcmp(argv[1], "--seeds") != 0 || (argc > 3 && !twice)) {
        fprintf(stderr, "usage: %s --seeds A-B [--twice]\n", argv[0]);
        return 2;
    }
    opd_log_sink_set(no_log, NULL);
    for (uint64_t seed = first; seed <= last; seed++) {
        site s = run_seed(seed);
        if (twice && run_seed(seed).hash != s.hash) fail(&s, "two runs differ");
        failed += s.failed;
        answered += (uint64_t)s.answered;
        hash = opd_rng_at(hash, s.hash, 0, 0);
    }
    printf("%" PRIu64 " of %" PRIu64 " seeds failed, %" PRIu64 " of %" PRIu64
           " calls answered, hash %016" PRIx64 "\n", failed, last - first + 1, answered,
           (last - first + 1) * CALLS, hash);
    return failed == 0 ? 0 : 1;
}
