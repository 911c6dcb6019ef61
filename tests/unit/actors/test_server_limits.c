/* test_server_limits.c - the server's own bounds: requests at once, work at once, a rid once; what
 * an abort frees; the two forms of an error. Compiled twice, as test_teacher_faults.c: over HTTP/2, and with LIMITS_HTTP1
 * over HTTP/1.1. */
#include "core/base/check.h"
#include "tests/unit/actors/serve_rig.h"

enum { CROWD_MAX = 64, BODY_SIZE = 512 };
#ifdef LIMITS_HTTP1
#define SCRIPT "{\"do\": \"http1_only\"}"
#else
#define SCRIPT NULL
#endif

/* An actor that sends `count` requests at once, perhaps one more behind them, and stops the system when
 * all are answered. */
typedef struct crowd {
    serve_rig *serve;
    int count;
    const char *body;      /* of each; %d becomes its number          */
    const char *late_path; /* one more, behind the others; NULL: none */
    const char *late_body;
    /* what came of it */
    int status[CROWD_MAX + 1];
    char answer[CROWD_MAX + 1][512];
    char retry_after[8];
    /* its own */
    opd_ctx *ctx;
    opd_http_client *client;
    opd_http_call calls[CROWD_MAX + 1];
    int open;
} crowd;

static crowd c; /* one at a time */

static void on_closed(void *arg) {
    (void)arg;
    opd_exit(c.ctx, OPD_OK);
}

static void on_done(opd_http_call *call) {
    int i = (int)(call - c.calls);
    CHECK_OK(call->err);
    c.status[i] = call->status;
    if (call->answer.data != NULL)
        (void)snprintf(c.answer[i], sizeof c.answer[i], "%s", call->answer.data);
    const char *after = opd_http_call_header(call, "retry-after");
    if (call->status == 503)
        (void)snprintf(c.retry_after, sizeof c.retry_after, "%s", after != NULL ? after : "");
    opd_buf_release(call->body.buf);
    opd_http_call_fini(call);
    if (--c.open == 0) opd_system_stop(opd_self_system(c.ctx), OPD_OK);
}

static void send_call(int i, const char *path, const char *body) {
    opd_http_call *call = &c.calls[i];
    *call = (opd_http_call){.path = path, .done = on_done};
    CHECK_OK(opd_slice_copy(&c.serve->rig.t.memory.alloc, body, strlen(body), &call->body));
    CHECK_OK(opd_http_client_send(c.client, call));
}

/* The body with the number in the place of %d. */
static void number_body(int i, char out[BODY_SIZE]) {
    const char *at = strstr(c.body, "%d");
    int head = at != NULL ? (int)(at - c.body) : (int)strlen(c.body);
    (void)snprintf(out, BODY_SIZE, "%.*s", head, c.body);
    if (at != NULL)
        (void)snprintf(out + head, (size_t)(BODY_SIZE - head), "%d%s", i, at + 2);
}

static opd_err crowd_start(opd_ctx *ctx, void *state, const void *unused) {
    char body[BODY_SIZE];
    (void)state;
    (void)unused;
    opd_http_client_options options = {.alloc = &c.serve->rig.t.memory.alloc,
                                       .env = c.serve->rig.t.env, .url = c.serve->url};
    c.ctx = ctx;
    OPD_TRY(opd_http_client_create(&options, &c.client));
    c.open = c.count + (c.late_path != NULL);
    for (int i = 0; i < c.count; i++) {
        number_body(i, body);
        send_call(i, "/generate", body);
    }
    if (c.late_path != NULL) send_call(c.count, c.late_path, c.late_body);
    return OPD_OK;
}

static opd_err crowd_signal(opd_ctx *ctx, void *state, const opd_signal *signal) {
    (void)state;
    if (signal->kind != OPD_SIGNAL_STOP) return OPD_OK;
    opd_http_client_close(c.client, on_closed, NULL);
    opd_stop_defer(ctx);
    return OPD_OK;
}

static const opd_actor_class crowd_class = {.name = "crowd", .on_start = crowd_start,
                                            .on_signal = crowd_signal};

static void crowd_run(serve_rig *serve) {
    opd_pid pid;
    c.serve = serve;
    CHECK_OK(opd_spawn(serve->rig.t.system, &crowd_class, NULL, NULL, &pid));
    CHECK_OK(rig_run(&serve->rig));
}

static int with_status(int status) {
    int count = 0;
    for (int i = 0; i < c.count; i++) count += c.status[i] == status;
    return count;
}

static const char SCORE[] = "{\"input_ids\": [1, 5, 9, 4], \"rid\": \"r%d.\", \"return_logprob\": "
                            "true, \"logprob_start_len\": 0, \"sampling_params\": "
                            "{\"max_new_tokens\": 0}}";

TEST(more_than_the_queue_is_503) {
    static serve_rig s;
    serve_up(&s, 0, SCRIPT);
    s.server.max_queue = 4;
    serve_start(&s); /* a second server, with that limit */
    c = (crowd){.count = 40, .body = SCORE};
    crowd_run(&s);
    CHECK_INT(with_status(200) + with_status(503), 40);
    CHECK(with_status(200) >= 4 && with_status(503) > 0);
    CHECK_STR(c.retry_after, "1");
    for (int i = 0; i < 40; i++)
        if (c.status[i] == 503)
            CHECK_STR(c.answer[i], "{\"error\":{\"message\":\"The request queue is full.\"}}");
    serve_down(&s);
}

TEST(more_than_the_work_is_503) {
    static serve_rig s;
    serve_up(&s, 0, SCRIPT);
    s.server.max_work_bytes = 20000;
    serve_start(&s);
    c = (crowd){.count = 40, .body = SCORE};
    crowd_run(&s);
    CHECK_INT(with_status(200) + with_status(503), 40);
    CHECK(with_status(200) > 0 && with_status(503) > 0);
    serve_down(&s);
}

TEST(more_than_all_work_is_400) {
    static serve_rig s;
    serve_up(&s, 0, SCRIPT);
    s.server.max_work_bytes = 2000;
    serve_start(&s);
    c = (crowd){.count = 1, .body = SCORE};
    crowd_run(&s);
    CHECK_INT(c.status[0], 400);
    CHECK_CONTAINS(c.answer[0], "this server allows 2000");
    serve_down(&s);
}

/* A long generation; what is sent behind it is there before its end. */
static const char LONG[] = "{\"input_ids\": [[1, 5], [1, 6]], \"rid\": [\"a.\", \"b.\"], "
                           "\"sampling_params\": {\"max_new_tokens\": 30, \"ignore_eos\": true}}";

TEST(a_rid_in_use_is_400) {
    static serve_rig s;
    serve_up(&s, 0, SCRIPT);
    c = (crowd){.count = 2, .body = LONG};
    crowd_run(&s);
    CHECK_INT(with_status(200), 1);
    CHECK_INT(with_status(400), 1);
    CHECK_CONTAINS(c.answer[c.status[0] == 400 ? 0 : 1], "Duplicate request ID: a.");
    serve_down(&s);
}

static void aborted(const char *abort_body, const char *answer, int finish_count) {
    static serve_rig s;
    serve_up(&s, 0, SCRIPT);
    c = (crowd){.count = 1, .body = LONG, .late_path = "/abort_request", .late_body = abort_body};
    crowd_run(&s);
    CHECK_INT(c.status[0], 200);
    CHECK_INT(c.status[1], 200);
    int found = 0;
    for (const char *at = c.answer[0]; (at = strstr(at, answer)) != NULL; at++) found++;
    CHECK_INT(found, finish_count);
    serve_down(&s);
}

TEST(an_abort_ends_the_sequence_of_its_rid) {
    aborted("{\"rid\": \"a.\"}", "\"type\":\"abort\"", 1);
}

TEST(an_abort_of_all) {
    aborted("{\"abort_all\": true}", "\"type\":\"abort\"", 2);
}

TEST(an_abort_by_prefix_ends_nothing) {
    aborted("{\"rid\": \"a\"}", "\"type\":\"abort\"", 0);
}

/* One bad item refuses the batch whole, as real servers do. */
TEST(a_bad_item_fails_its_batch) {
    static serve_rig s;
    serve_up(&s, 0, SCRIPT);
    c = (crowd){.count = 1, .body = "{\"input_ids\": [[1, 5], [1, 99]]}"};
    crowd_run(&s);
    CHECK_INT(c.status[0], 400);
    CHECK_CONTAINS(c.answer[0], "{\"error\":{\"message\":");
    serve_down(&s);
}

TEST(a_body_without_the_schema_has_the_other_form) {
    static serve_rig s;
    serve_up(&s, 0, SCRIPT);
    c = (crowd){.count = 1, .body = "{\"input_ids\": \"x\"}"};
    crowd_run(&s);
    CHECK_INT(c.status[0], 400);
    CHECK_CONTAINS(c.answer[0], "{\"object\":\"error\",\"message\":");
    CHECK_CONTAINS(c.answer[0], "\"code\":400");
    serve_down(&s);
}
