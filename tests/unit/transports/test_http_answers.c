/* test_http_answers.c - the server's bound on answers that have not left yet (http.h,
 * max_answers_bytes): what is beyond it becomes a 503, and what was sent makes room again. */
#include "tests/support/test.h"
#include "tests/unit/transports/loop.h"
#include "tests/unit/transports/pair.h"

enum { ANSWER_BYTES = 40000, CALLS = 2 };

typedef struct site {
    opd_http_server *server;
    opd_http_client *client;
    opd_http_exchange *held[CALLS];
    opd_buf *body;
    int held_count, done;
} site;

/* Keeps requests until there are CALLS of them, then answers all in one breath. */
static void handler(void *arg, opd_http_exchange *exchange) {
    site *s = arg;
    s->held[s->held_count++] = exchange;
    if (s->held_count < CALLS) return;
    for (int i = 0; i < CALLS; i++)
        opd_http_respond(s->held[i], 200, "text/plain", opd_slice_whole(s->body));
    s->held_count = 0;
}

static void on_done(opd_http_call *call) { ((site *)call->arg)->done++; }

/* CALLS requests at once; returns how many got 200, the others must have got 503. */
static int round_of(site *s) {
    opd_http_call calls[CALLS];
    int good = 0;
    s->done = 0;
    for (int i = 0; i < CALLS; i++) {
        calls[i] = (opd_http_call){.path = "/", .done = on_done, .arg = s};
        CHECK_OK(opd_http_client_send(s->client, &calls[i]));
    }
    loop_until(&s->done, CALLS);
    for (int i = 0; i < CALLS; i++) {
        CHECK_OK(calls[i].err);
        CHECK(calls[i].status == 200 || calls[i].status == 503);
        CHECK_INT(calls[i].answer.size, calls[i].status == 200 ? ANSWER_BYTES : 0);
        good += calls[i].status == 200;
        opd_http_call_fini(&calls[i]);
    }
    return good;
}

static void check(size_t max_answers_bytes, int expected_good) {
    site s = {.body = pattern_create(ANSWER_BYTES, 1)};
    char url[64];
    loop_init();
    opd_http_server_options server = {.env = loop_env, .max_answers_bytes = max_answers_bytes};
    CHECK_OK(opd_http_server_create(&server, handler, &s, &s.server));
    (void)snprintf(url, sizeof url, "http://127.0.0.1:%u", opd_http_server_port(s.server));
    opd_http_client_options client = {.env = loop_env, .url = url};
    CHECK_OK(opd_http_client_create(&client, &s.client));
    for (int i = 0; i < 3; i++) CHECK_INT(round_of(&s), expected_good); /* the room comes back */
    loop_client_close(s.client);
    loop_server_close(s.server, 500);
    opd_buf_release(s.body);
    loop_fini();
}

TEST(beyond_the_bound_is_a_503) { check(60000, 1); }

TEST(within_the_bound_all_are_sent) { check(80000, 2); }
