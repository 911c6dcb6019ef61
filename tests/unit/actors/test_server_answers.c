/* test_server_answers.c - answers of megabytes are written beside the loop (actors/server/answer.c).
 *
 * The server of `opd serve` stands before a scorer that answers with made numbers at once; a client in a process
 * of its own asks over a plain socket, reads to the end and checks what came. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "actors/messages.h"
#include "actors/server/server_actor.h"
#include "core/base/check.h"
#include "tests/support/callback_time.h"
#include "tests/support/sys_test.h"
#include "transports/sglang.h"

enum { VOCAB = 151936, TOP = 64, PROMPT = 3, SMALL_ROWS = 20, LARGE_ROWS = 9500, CALLS = 4, PACE_NS = 1, NOT_ANSWERED = 3 };
enum { BODY_MAX = 1 << 20, ANSWER_MAX = 64 << 20 };

/* ---- the numbers ---- */

static float logp_at(size_t i) { return -1e-3f * (float)(i % 9973 + 1); }
static int32_t id_at(size_t i) { return (int32_t)(i * 7919 % VOCAB); }
static int32_t token_at(size_t i) { return (int32_t)(i % 1000 + 5); }

typedef struct plan {
    opd_test_sys t;
    opd_roles roles;
    opd_lane *lane;
    uint16_t port;
    size_t rows;
    const char *extra; /* of the request */
    bool leave;        /* the client goes as soon as it has asked; the run ends soon after */
    long fail_at;      /* the server's allocation that fails; 0: none                      */
    long allocations;  /* out: how many it asked for                                       */
    bool answered;     /* out: the client got 200 and all that belongs to it               */
    pid_t client;
    int port_fd;
    opd_slice logp, topk_ids, topk_logp;
    int scored;
} plan;

static plan p;

static opd_slice made(size_t count, bool ids) {
    opd_buf *buf;
    CHECK_OK(opd_buf_create(&p.t.memory.alloc, count * sizeof(float), &buf));
    for (size_t i = 0; i < count; i++) {
        if (ids) ((int32_t *)opd_buf_data(buf))[i] = id_at(i);
        else ((float *)opd_buf_data(buf))[i] = logp_at(i);
    }
    return opd_slice_whole(buf);
}

/* ---- the scorer ---- */

static opd_err scorer_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    (void)state;
    opd_scored_fields f = {.logp = p.logp, .topk_ids = p.topk_ids, .topk_logp = p.topk_logp};
    opd_message_reply(ctx, msg, OPD_MESSAGE_SCORED, &f);
    p.scored++;
    return OPD_OK;
}

static opd_err idle_start(opd_ctx *ctx, void *state, const void *config) {
    (void)ctx;
    (void)state;
    (void)config;
    return OPD_OK;
}

static const opd_actor_class scorer_class = {.name = "scorer", .on_start = idle_start, .on_message = scorer_message};

/* ---- the client, a process ---- */

static void request_text(opd_str *out) {
    opd_str body;
    opd_str_init(&body, NULL, BODY_MAX);
    opd_str_text(&body, "{\"input_ids\":[");
    for (size_t i = 0; i < PROMPT + p.rows; i++) opd_str_printf(&body, "%s%d", i == 0 ? "" : ",", token_at(i));
    opd_str_printf(&body, "],\"return_logprob\":true,\"logprob_start_len\":%d,\"top_logprobs_num\":%d,%s"
                   "\"sampling_params\":{\"max_new_tokens\":0}}", PROMPT - 1, TOP, p.extra);
    CHECK_OK(opd_str_status(&body));
    opd_str_printf(out, "POST /generate HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %zu\r\n\r\n", body.size);
    opd_str_append(out, body.data, body.size);
    opd_str_fini(&body);
}

static void check_answer(const char *body, size_t size) {
    size_t rows = p.rows;
    int32_t *ids = calloc(PROMPT + rows, sizeof *ids), *topk = calloc(rows * TOP, sizeof *topk);
    float *logp = calloc(rows, sizeof *logp), *topk_logp = calloc(rows * TOP, sizeof *topk_logp);
    uint8_t *valid = calloc(rows, 1);
    CHECK(ids != NULL && topk != NULL && logp != NULL && topk_logp != NULL && valid != NULL);
    for (size_t i = 0; i < PROMPT + rows; i++) ids[i] = token_at(i);
    opd_sglang_score score = {.ids = ids, .count = PROMPT + rows, .prompt_count = PROMPT, .top_k = TOP, .vocab_size = VOCAB};
    opd_sglang_scores scores = {.logp = logp, .valid = valid, .topk_ids = topk, .topk_logps = topk_logp};
    CHECK_OK(opd_sglang_score_read(body, size, &score, &scores));
    CHECK_INT(scores.valid_count, rows);
    for (size_t i = 0; i < rows; i++) CHECK(logp[i] == logp_at(i));
    for (size_t i = 0; i < rows * TOP; i++) CHECK(topk[i] == id_at(i) && topk_logp[i] == logp_at(i));
    free(ids);
    free(topk);
    free(logp);
    free(topk_logp);
    free(valid);
}

static void ask_once(void) {
    static char piece[1 << 16];
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(p.port)};
    opd_str request, answer;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    opd_str_init(&request, NULL, BODY_MAX + 256);
    opd_str_init(&answer, NULL, ANSWER_MAX);
    request_text(&request);
    CHECK(fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0);
    CHECK(send(fd, request.data, request.size, MSG_NOSIGNAL) == (ssize_t)request.size || p.fail_at > 0);
    for (ssize_t n; !p.leave && (n = recv(fd, piece, sizeof piece, 0)) > 0;) opd_str_append(&answer, piece, (size_t)n);
    (void)close(fd);
    bool answered = answer.size > 13 && strncmp(answer.data, "HTTP/1.1 200 ", 13) == 0;
    if (!p.leave && (p.fail_at == 0 || answered)) {
        CHECK_OK(opd_str_status(&answer));
        CHECK(strncmp(answer.data, "HTTP/1.1 200 ", 13) == 0);
        const char *body = strstr(answer.data, "\r\n\r\n");
        CHECK(body != NULL);
        check_answer(body + 4, answer.size - (size_t)(body + 4 - answer.data));
    }
    opd_str_fini(&answer);
    opd_str_fini(&request);
    p.answered = answered;
}

/* Before any thread is there: a child that is forked beside one may find the allocator locked for ever. It
 * asks when it is told the port. */
static void client_start(void) {
    int fds[2];
    (void)fflush(stdout);
    CHECK(pipe(fds) == 0);
    p.client = fork();
    CHECK(p.client >= 0);
    p.port_fd = fds[1];
    if (p.client != 0) {
        (void)close(fds[0]);
        return;
    }
    (void)close(fds[1]);
    if (read(fds[0], &p.port, sizeof p.port) != sizeof p.port) _exit(NOT_ANSWERED); /* no server came up */
    for (int i = 0; i < (p.fail_at > 0 ? 1 : CALLS); i++) ask_once();
    _exit(p.answered || p.leave ? 0 : NOT_ANSWERED);
}

static void client_go(void) {
    CHECK(write(p.port_fd, &p.port, sizeof p.port) == sizeof p.port);
    (void)close(p.port_fd);
}

/* There is nobody to ask. */
static void client_end(void) {
    (void)close(p.port_fd);
    CHECK(waitpid(p.client, NULL, 0) == p.client);
}

/* ---- who looks at the clock, and waits for the client ---- */

typedef struct waiter {
    opd_timer tick;
} waiter;

static opd_err on_tick(opd_ctx *ctx, void *state, opd_timer *timer) {
    int status = 0;
    (void)state;
    if (p.scored > 0) callback_watch(); /* the first request makes the actor's table of requests, once */
    callback_look();
    if (waitpid(p.client, &status, WNOHANG) != p.client) return opd_timer_start_after(timer, PACE_NS);
    p.answered = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    CHECK(p.answered || (p.fail_at > 0 && WEXITSTATUS(status) == NOT_ANSWERED));
    opd_system_stop(opd_self_system(ctx), OPD_OK);
    return OPD_OK;
}

static opd_err waiter_start(opd_ctx *ctx, void *state, const void *config) {
    waiter *self = state;
    (void)config;
    client_go();
    opd_timer_init(&self->tick, ctx, on_tick);
    return opd_timer_start_after(&self->tick, PACE_NS);
}

static const opd_actor_class waiter_class = {.name = "waiter", .state_size = sizeof(waiter), .on_start = waiter_start};

static void serve(size_t rows, const char *extra, bool lane) {
    opd_pid pid;
    opd_model_config model = {.vocab_size = VOCAB, .max_position = 100000, .bos_id = 1, .eos_id = 2};
    p.rows = rows;
    p.extra = extra;
    client_start();
    sys_up(&p.t, NULL);
    p.logp = made(rows, false);
    p.topk_logp = made(rows * TOP, false);
    p.topk_ids = made(rows * TOP, true);
    if (lane) CHECK_OK(opd_lane_open(p.t.system, "write", 16, &p.lane));
    CHECK_OK(opd_spawn(p.t.system, &scorer_class, NULL, NULL, &p.roles.scorer));
    opd_server_config server = {.roles = &p.roles, .env = p.t.env, .alloc = &p.t.memory.alloc, .model = &model,
                                .model_path = "made", .out_port = &p.port, .write_lane = p.lane};
    opd_test_alloc failing;
    opd_test_alloc_failing(&failing, p.fail_at, false);
    if (p.fail_at > 0) server.alloc = &failing.alloc;
    bool started = opd_spawn(p.t.system, &opd_server_class, NULL, &server, &pid) == OPD_OK;
    CHECK(started || p.fail_at > 0);
    if (started) CHECK_OK(opd_spawn(p.t.system, &waiter_class, NULL, NULL, &pid));
    else client_end(), opd_system_stop(p.t.system, OPD_OK);
    CHECK_OK(opd_system_run(p.t.system));
    CHECK(p.leave || p.fail_at > 0 || p.scored == CALLS);
    CHECK_INT(failing.live, 0);
    p.allocations = failing.calls;
    opd_buf_release(p.logp.buf);
    opd_buf_release(p.topk_logp.buf);
    opd_buf_release(p.topk_ids.buf);
    sys_down(&p.t);
}

#define FLAT "\"return_flat_raw_top_logprobs\":true,"
#define BASE64 FLAT "\"return_flat_raw_top_logprobs_b64\":true,"

TEST(a_lane_writes_nested_answers) { serve(LARGE_ROWS / 10, "", true); }
TEST(a_lane_writes_flat_answers) { serve(LARGE_ROWS / 10, FLAT, true); }
TEST(a_lane_writes_base64_answers) { serve(LARGE_ROWS / 10, BASE64, true); }
TEST(the_loop_writes_small_answers) { serve(SMALL_ROWS, "", true); }
TEST(without_a_lane_the_loop_writes_all) { serve(LARGE_ROWS / 10, BASE64, false); }

/* Nobody reads them any more, and the server ends while the lane still writes. */
TEST(a_client_may_leave_while_a_lane_writes) {
    p.leave = true;
    serve(LARGE_ROWS / 2, "", true);
}

/* Whatever the server has no memory for, the client gets a whole answer or none, and nothing is left. */
TEST(every_failed_allocation_is_survived) {
    long n = 0;
    do {
        p = (plan){.fail_at = ++n};
        serve(SMALL_ROWS * 4, "", true);
    } while (p.allocations >= n);
    CHECK(p.answered && n > 10);
}

/* How long that keeps the loop is a figure of the bench, which runs this. */
TEST(answers_of_20_mb_are_written_beside_the_loop) {
    if (!callback_measured()) SKIP("20 MB are for an optimised build without sanitizers");
    serve(LARGE_ROWS, "", true);
    callback_tell();
}
