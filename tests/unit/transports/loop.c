/* loop.c - see loop.h. */
#include "tests/unit/transports/loop.h"

#include <uv.h>

#include "core/env/env.h"
#include "tests/support/test.h"
#include "transports/tcp_sim.h"

enum { PATIENCE_MS = 40000 }; /* less than a test's time; a busy machine under TSan needs much of it */

opd_env *loop_env;
opd_sim *loop_sim;
static opd_net_sim *loop_net;

void loop_init(void) {
    const char *seed = getenv("OPD_TEST_SIM_SEED");
    if (seed == NULL) {
        CHECK_OK(opd_env_uv_create(NULL, &loop_env));
        return;
    }
    CHECK_OK(opd_sim_create(strtoull(seed, NULL, 10), NULL, &loop_sim));
    CHECK_OK(opd_net_sim_create(loop_sim, NULL, &loop_net));
    CHECK_OK(opd_sim_env(loop_sim, "test", &loop_env));
    CHECK_OK(opd_net_sim_join(loop_net, loop_env));
}

void loop_fini(void) {
    CHECK_OK(opd_env_destroy(loop_env));
    if (loop_net != NULL) CHECK_INT(opd_net_sim_stats_get(loop_net).open, 0);
    opd_net_sim_destroy(loop_net);
    opd_sim_destroy(loop_sim);
    loop_env = NULL;
    loop_sim = NULL;
    loop_net = NULL;
}

typedef struct wanted {
    const int *flag;
    int count;
} wanted;

static bool is_reached(void *arg) {
    const wanted *w = arg;
    return w->flag != NULL && *w->flag >= w->count;
}

static void on_tick(uv_timer_t *timer) { (void)timer; }

static void loop_run_sim(const int *flag, int count, uint64_t limit_ms) {
    wanted w = {flag, count};
    CHECK_OK(opd_sim_run(loop_sim, loop_in_ms(limit_ms), is_reached, &w));
}

static void loop_run_real(const int *flag, int count, uint64_t limit_ms) {
    uv_loop_t *loop = opd_env_uv_loop(loop_env);
    uv_timer_t tick; /* so that the loop never sleeps past the limit */
    uv_timer_init(loop, &tick);
    uv_timer_start(&tick, on_tick, 1, 5);
    uint64_t end_ns = loop_in_ms(limit_ms);
    while ((flag == NULL || *flag < count) && opd_tcp_now_ns(loop_env) < end_ns)
        uv_run(loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&tick, NULL);
    uv_run(loop, UV_RUN_NOWAIT);
}

static void loop_run(const int *flag, int count, uint64_t limit_ms, bool must) {
    if (loop_sim != NULL)
        loop_run_sim(flag, count, limit_ms);
    else
        loop_run_real(flag, count, limit_ms);
    if (must && *flag < count) opd_test_fail(__FILE__, __LINE__, "got %d of %d events", *flag, count);
}

void loop_until(const int *flag, int count) { loop_run(flag, count, PATIENCE_MS, true); }
void loop_for_done(const int *flag, int count) { loop_run(flag, count, PATIENCE_MS, false); }
void loop_for_ms(uint64_t ms) { loop_run(NULL, 0, ms, false); }
uint64_t loop_in_ms(uint64_t ms) { return opd_tcp_now_ns(loop_env) + ms * 1000000; }
void loop_count(void *arg) { (*(int *)arg)++; }

void loop_client_close(opd_http_client *client) {
    int closed = 0;
    opd_http_client_close(client, loop_count, &closed);
    CHECK_INT(closed, 0); /* always later */
    loop_until(&closed, 1);
}

void loop_server_close(opd_http_server *server, uint64_t drain_ms) {
    int closed = 0;
    opd_http_server_close(server, drain_ms, loop_count, &closed);
    CHECK_INT(closed, 0);
    loop_until(&closed, 1);
}

/* ---- raw server ---- */

typedef struct raw_conn {
    raw_server *raw;
    opd_tcp *tcp;
    bool told;
} raw_conn;

static void raw_bytes(void *arg, const uint8_t *bytes, size_t size) {
    (void)bytes;
    raw_conn *conn = arg;
    conn->raw->bytes_seen += (int)size;
    opd_tcp_flush(conn->tcp);
    if (conn->raw->hang_up) opd_tcp_finish(conn->tcp);
}

static void raw_pull(void *arg, opd_iobatch *batch) {
    raw_conn *conn = arg;
    if (conn->told || conn->raw->answer == NULL) return;
    conn->told = true;
    opd_iobatch_stage(batch, conn->raw->answer, strlen(conn->raw->answer));
}

static void raw_end(void *arg, opd_err err) {
    (void)err;
    opd_tcp_close(((raw_conn *)arg)->tcp);
}

static void raw_closed(void *arg) {
    raw_conn *conn = arg;
    for (int i = 0; i < conn->raw->count; i++)
        if (conn->raw->tcps[i] == conn->tcp) conn->raw->tcps[i] = NULL;
    conn->raw->closed++;
    free(conn);
}

static const opd_tcp_events raw_events = {NULL, raw_bytes, raw_pull, raw_end, raw_closed};

static void raw_accepted(void *arg, opd_tcp *tcp) {
    raw_server *raw = arg;
    CHECK(raw->count < 64);
    raw->tcps[raw->count++] = tcp;
    raw_conn *conn = calloc(1, sizeof *conn);
    conn->raw = raw;
    conn->tcp = tcp;
    opd_tcp_start(tcp, &raw_events, conn);
}

void raw_server_open(raw_server *raw, const char *answer, bool hang_up) {
    memset(raw, 0, sizeof *raw);
    raw->answer = answer;
    raw->hang_up = hang_up;
    CHECK_OK(opd_tcp_listen(loop_env, NULL, "127.0.0.1", 0, raw_accepted, raw, &raw->listener));
}

void raw_server_close(raw_server *raw) {
    int closed = 0;
    opd_tcp_listener_close(raw->listener, loop_count, &closed);
    for (int i = 0; i < raw->count; i++)
        if (raw->tcps[i] != NULL) opd_tcp_close(raw->tcps[i]);
    loop_until(&closed, 1);
    loop_until(&raw->closed, raw->count);
}
