/* test_large_answers.c - answers of megabytes are read beside the loop (reading.h, endpoint.h).
 *
 * A server in a process of its own answers every POST with one long answer in nested triples; an
 * actor here asks for it several times at once and checks the arrays. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "actors/teacher/reading.h"
#include "core/base/check.h"
#include "tests/support/callback_time.h"
#include "tests/support/sys_test.h"
#include "transports/http.h"

enum { PROMPT = 3, TOP = 64, CALLS = 4, SMALL_ROWS = 20, LARGE_ROWS = 9500, TOKEN = 7 };
enum { TICK_NS = 1, ANSWER_MAX = 64 << 20 };

/* ---- the server ---- */

static void append_row(opd_str *text, size_t row) {
    opd_str_text(text, row == 0 ? "null" : ",[");
    for (int j = 0; row > 0 && j < TOP; j++)
        opd_str_printf(text, "%s[-%d.6931471824645996,%d,null]", j == 0 ? "" : ",", j, 1000 + j);
    if (row > 0) opd_str_text(text, "]");
}

static opd_buf *make_answer(size_t rows) {
    opd_str text, row;
    opd_buf *buf;
    opd_str_init(&text, NULL, ANSWER_MAX);
    opd_str_init(&row, NULL, ANSWER_MAX);
    append_row(&row, 1);
    opd_str_printf(&text, "{\"text\":\"\",\"meta_info\":{\"input_token_logprobs\":[[null,%d,null]", TOKEN);
    for (size_t i = 0; i < rows; i++) opd_str_printf(&text, ",[-0.5,%d,null]", TOKEN);
    opd_str_text(&text, "],\"input_top_logprobs\":[");
    append_row(&text, 0);
    for (size_t i = 0; i < rows; i++) opd_str_append(&text, row.data, row.size);
    opd_str_printf(&text, "],\"finish_reason\":{\"type\":\"length\"},\"prompt_tokens\":%zu}}", rows + PROMPT);
    CHECK_OK(opd_str_status(&text));
    CHECK_OK(opd_buf_create(NULL, text.size, &buf));
    memcpy(opd_buf_data(buf), text.data, text.size);
    opd_str_fini(&text);
    opd_str_fini(&row);
    return buf;
}

static void respond(void *arg, opd_http_exchange *exchange) {
    opd_http_respond(exchange, 200, "application/json", opd_slice_whole(arg));
}

static opd_err idle_start(opd_ctx *ctx, void *state, const void *config) {
    (void)ctx;
    (void)state;
    (void)config;
    return OPD_OK;
}

static const opd_actor_class idle_class = {.name = "idle", .on_start = idle_start};

/* Serves until it is killed. */
static void serve(size_t rows, int port_fd) {
    opd_env *env;
    opd_system *system;
    opd_http_server *server;
    opd_pid pid;
    CHECK_OK(opd_env_uv_create(NULL, &env));
    CHECK_OK(opd_system_create(&(opd_system_options){0}, env, &system));
    CHECK_OK(opd_spawn(system, &idle_class, NULL, NULL, &pid));
    opd_http_server_options options = {.env = env};
    CHECK_OK(opd_http_server_create(&options, respond, make_answer(rows), &server));
    uint16_t port = opd_http_server_port(server);
    CHECK(write(port_fd, &port, sizeof port) == sizeof port);
    CHECK_OK(opd_system_run(system));
}

typedef struct peer {
    pid_t pid;
    char url[64];
} peer;

static void peer_up(peer *p, size_t rows) {
    int fds[2];
    uint16_t port = 0;
    CHECK(pipe(fds) == 0);
    p->pid = fork();
    CHECK(p->pid >= 0);
    if (p->pid == 0) {
        serve(rows, fds[1]);
        _exit(0);
    }
    CHECK(read(fds[0], &port, sizeof port) == sizeof port);
    (void)close(fds[0]);
    (void)close(fds[1]);
    (void)snprintf(p->url, sizeof p->url, "http://127.0.0.1:%u", port);
}

static void peer_down(peer *p) {
    CHECK(kill(p->pid, SIGKILL) == 0);
    CHECK(waitpid(p->pid, NULL, 0) == p->pid);
}

/* ---- who asks ---- */

typedef struct plan {
    opd_test_sys t;
    peer peer;
    opd_lane *lane;
    size_t rows;
    opd_buf *tokens;
    bool leave_early;     /* ends while a lane reads           */
    /* seen */
    int answered, by_lane;
    bool left_reading;
} plan;

typedef struct asker {
    plan *plan;
    opd_endpoint *endpoint;
    opd_endpoint_reader reader;
    opd_timer tick;
} asker;

static void check_scores(const plan *p, const opd_scored_fields *s) {
    const float *logp = opd_slice_data(s->logp);
    const uint8_t *valid = opd_slice_data(s->valid);
    const int32_t *topk = opd_slice_data(s->topk_ids);
    const float *topk_logp = opd_slice_data(s->topk_logp);
    for (size_t r = 0; r < p->rows; r += p->rows / 10) {
        CHECK(valid[r] == 1 && logp[r] == -0.5f);
        for (size_t j = 0; j < TOP; j++) {
            CHECK_INT(topk[r * TOP + j], 1000 + (int)j);
            CHECK(topk_logp[r * TOP + j] <= 0 && topk_logp[r * TOP + j] > -100);
        }
    }
}

static opd_err on_answer(opd_ctx *ctx, void *state, opd_endpoint_call *call) {
    asker *a = state;
    plan *p = a->plan;
    opd_scored_fields s = {.attempts = 0};
    CHECK_OK(call->http.err);
    CHECK_OK(opd_reading_take(call, &s));
    if (p->rows == SMALL_ROWS || !p->leave_early) check_scores(p, &s);
    opd_buf_release(s.logp.buf);
    opd_buf_release(s.valid.buf);
    opd_buf_release(s.topk_ids.buf);
    opd_buf_release(s.topk_logp.buf);
    if (call->job.run != NULL) p->by_lane++;
    if (++p->answered == CALLS) {
        opd_timer_stop(&a->tick);
        opd_endpoint_close(a->endpoint);
    }
    (void)ctx;
    return OPD_OK;
}

static opd_err on_closed(opd_ctx *ctx, void *state, opd_endpoint *endpoint) {
    (void)state;
    (void)endpoint;
    opd_exit(ctx, OPD_OK);
    return OPD_OK;
}

static opd_err on_tick(opd_ctx *ctx, void *state, opd_timer *timer) {
    asker *a = state;
    callback_look();
    if (a->plan->leave_early && !opd_list_empty(&a->reader.calls)) {
        a->plan->left_reading = true;
        opd_exit(ctx, OPD_OK);
        return OPD_OK;
    }
    return opd_timer_start_after(timer, TICK_NS);
}

static opd_err send_call(asker *a) {
    plan *p = a->plan;
    opd_endpoint_call *call;
    opd_sglang_score question = {.ids = opd_buf_data(p->tokens), .count = p->rows + PROMPT,
                                 .prompt_count = PROMPT, .top_k = TOP};
    opd_config_teacher teacher = {.protocol = OPD_CONFIG_PROTOCOL_SGLANG};
    OPD_TRY(opd_endpoint_call_create(a->endpoint, &call));
    OPD_TRY(opd_reading_attach(call, opd_teacher_protocol_of(&teacher), &question,
                               &p->t.memory.alloc));
    opd_str_text(&call->body, "{}");
    call->http.path = "/generate";
    call->answered = on_answer;
    return opd_endpoint_send(call);
}

static opd_err asker_start(opd_ctx *ctx, void *state, const void *config) {
    asker *a = state;
    a->plan = *(plan *const *)config;
    opd_endpoint_reader_init(&a->reader, a->plan->lane, OPD_READING_INLINE_MAX_BYTES);
    opd_endpoint_options options = {.alloc = &a->plan->t.memory.alloc, .env = a->plan->t.env,
                                    .url = a->plan->peer.url, .max_inflight = CALLS,
                                    .max_body_bytes = 1024, .max_answer_bytes = ANSWER_MAX,
                                    .reader = &a->reader, .closed = on_closed};
    OPD_TRY(opd_endpoint_open(ctx, &options, &a->endpoint));
    for (int i = 0; i < CALLS; i++) OPD_TRY(send_call(a));
    opd_timer_init(&a->tick, ctx, on_tick);
    callback_watch();
    return opd_timer_start_after(&a->tick, TICK_NS);
}

static void asker_stop(opd_ctx *ctx, void *state) {
    (void)ctx;
    opd_endpoint_reader_fini(&((asker *)state)->reader);
}

static const opd_actor_class asker_class = {.name = "asker", .state_size = sizeof(asker),
                                            .on_start = asker_start, .on_stop = asker_stop};

static void ask(plan *p, bool lane) {
    opd_pid pid;
    peer_up(&p->peer, p->rows);
    sys_up(&p->t, NULL);
    if (lane) CHECK_OK(opd_lane_open(p->t.system, "parse", 16, &p->lane));
    CHECK_OK(opd_buf_create(&p->t.memory.alloc, (p->rows + PROMPT) * sizeof(int32_t), &p->tokens));
    for (size_t i = 0; i < p->rows + PROMPT; i++) ((int32_t *)opd_buf_data(p->tokens))[i] = TOKEN;
    CHECK_OK(opd_spawn(p->t.system, &asker_class, NULL, &p, &pid));
    CHECK_OK(opd_system_run(p->t.system));
    opd_buf_release(p->tokens);
    sys_down(&p->t);
    peer_down(&p->peer);
}

TEST(a_lane_reads_large_answers) {
    plan p = {.rows = LARGE_ROWS / 10};
    ask(&p, true);
    CHECK_INT(p.answered, CALLS);
    CHECK_INT(p.by_lane, CALLS);
}

TEST(the_loop_reads_small_answers) {
    plan p = {.rows = SMALL_ROWS};
    ask(&p, true);
    CHECK_INT(p.answered, CALLS);
    CHECK_INT(p.by_lane, 0);
}

TEST(without_a_lane_the_loop_reads_all) {
    plan p = {.rows = LARGE_ROWS / 10};
    ask(&p, false);
    CHECK_INT(p.answered, CALLS);
    CHECK_INT(p.by_lane, 0);
}

TEST(an_actor_may_end_while_a_lane_reads) {
    plan p = {.rows = LARGE_ROWS / 2, .leave_early = true};
    ask(&p, true);
    CHECK(p.left_reading || p.answered == CALLS);
}

/* How long that keeps the loop is a figure of the bench, which runs this. */
TEST(answers_of_20_mb_are_read_beside_the_loop) {
    if (!callback_measured()) SKIP("20 MB are for an optimised build without sanitizers");
    plan p = {.rows = LARGE_ROWS};
    ask(&p, true);
    CHECK_INT(p.by_lane, CALLS);
    callback_tell();
}
