/* test_asgi_peers.c - scoring over HTTP servers that share no code with opd: uvicorn (HTTP/1.1 alone)
 * and hypercorn, which run tests/peers/scoring_app.py. Every score of thousands is checked. What is
 * not installed is a counted skip. Real SGLang is not run: the app has its shapes only.
 */
#include <signal.h>
#include <unistd.h>

#include "tests/support/test.h"
#include "tests/unit/transports/loop.h"
#include "tests/unit/transports/peers.h"
#include "transports/sglang.h"

enum { TOKENS_MAX = 200 };

typedef struct room {
    pid_t pid;
    opd_http_client *client;
    int done;
} room;

/* One scoring, its ids made from its number. */
typedef struct scoring {
    opd_http_call call;
    opd_buf *body;
    opd_sglang_score score;
    int32_t ids[TOKENS_MAX];
} scoring;

static void on_done(opd_http_call *call) { ((room *)call->arg)->done++; }

static bool has_module(const char *name) {
    char command[128];
    snprintf(command, sizeof command, "/usr/bin/python3 -c 'import %s'", name);
    if (!installed("python3")) return false;
    loop_init(); /* which waits for the child */
    bool there = finish(start(command, "/dev/null")) == 0;
    loop_fini();
    return there;
}

static void wait_until_up(room *r) {
    for (int i = 0; i < 1000; i++) {
        opd_http_call call = {.path = "/model_info", .done = on_done, .arg = r};
        r->done = 0;
        CHECK_OK(opd_http_client_send(r->client, &call));
        loop_until(&r->done, 1);
        opd_err err = call.err;
        opd_http_call_fini(&call);
        if (err == OPD_OK) return;
        loop_for_ms(10);
    }
    opd_test_fail(__FILE__, __LINE__, "the server did not come up");
}

/* Starts `python3 -m` fmt (with the app's folder and the port) and a client of it. */
static void room_open(room *r, const char *fmt, opd_http_client_options options) {
    char words[400], command[500], url[64];
    loop_init();
    unsigned port = free_port();
    memset(r, 0, sizeof *r);
    snprintf(words, sizeof words, fmt, port);
    snprintf(command, sizeof command, "env -C %s/tests/peers PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 -m %s",
             OPD_SOURCE_DIR, words);
    snprintf(url, sizeof url, "http://127.0.0.1:%u", port);
    r->pid = start(command, "/dev/null");
    options.env = loop_env;
    options.url = url;
    options.backoff_max_ms = 50;
    CHECK_OK(opd_http_client_create(&options, &r->client));
    wait_until_up(r);
}

static void room_close(room *r) {
    loop_client_close(r->client);
    kill(r->pid, SIGKILL);
    finish(r->pid);
    loop_fini();
}

static void scoring_make(scoring *s, room *r, unsigned number) {
    opd_str text;
    memset(s, 0, sizeof *s);
    size_t count = 3 + number * 7 % (TOKENS_MAX - 3);
    for (size_t i = 0; i < count; i++) s->ids[i] = (int32_t)((number * 2654435761u + i * 40503u) % 150000);
    s->score = (opd_sglang_score){.ids = s->ids, .count = count, .prompt_count = 1 + number % (count - 1),
                                  .vocab_size = 151936};
    opd_str_init(&text, NULL, 1 << 20);
    CHECK_OK(opd_sglang_score_write(&s->score, &text));
    CHECK_OK(opd_buf_create(NULL, text.size, &s->body));
    memcpy(opd_buf_data(s->body), text.data, text.size);
    opd_str_fini(&text);
    s->call = (opd_http_call){.path = "/generate", .body = opd_slice_whole(s->body), .done = on_done, .arg = r};
}

/* Each score is the hash of the ids up to its token: none is lost, doubled or another call's. */
static void scoring_check(scoring *s) {
    float logp[TOKENS_MAX];
    uint8_t valid[TOKENS_MAX];
    opd_sglang_scores scores = {.logp = logp, .valid = valid};
    CHECK_STR(s->call.error, "");
    CHECK_INT(s->call.status, 200);
    CHECK_OK(opd_sglang_score_read(s->call.answer.data, s->call.answer.size, &s->score, &scores));
    uint32_t digest = 2166136261u;
    for (size_t i = 0; i < s->score.count; i++) {
        digest = (digest ^ (uint32_t)s->ids[i]) * 16777619u;
        if (i < s->score.prompt_count) continue;
        size_t t = i - s->score.prompt_count;
        CHECK(valid[t] == 1);
        CHECK(logp[t] == -(float)(digest >> 16) / 4096);
    }
    CHECK_INT(scores.valid_count, s->score.count - s->score.prompt_count);
    opd_http_call_fini(&s->call);
    opd_buf_release(s->body);
}

/* count scorings at once, all checked. */
static void score_many(room *r, unsigned first, int count) {
    scoring *all = calloc((size_t)count, sizeof *all);
    r->done = 0;
    for (int i = 0; i < count; i++) {
        scoring_make(&all[i], r, first + (unsigned)i);
        CHECK_OK(opd_http_client_send(r->client, &all[i].call));
    }
    for (int i = 0; i < 6 && r->done < count; i++) loop_for_done(&r->done, count);
    CHECK_INT(r->done, count);
    for (int i = 0; i < count; i++) scoring_check(&all[i]);
    free(all);
}

/* Three thousand, then again after the server has closed what was idle (5 s): nothing is noticed. */
TEST(uvicorn) {
    if (!has_module("uvicorn")) SKIP("python3-uvicorn is not installed");
    room r;
    room_open(&r, "uvicorn scoring_app:app --port %u --log-level error", (opd_http_client_options){0});
    CHECK_INT(opd_http_client_protocol(r.client), OPD_HTTP_PROTOCOL_HTTP1);
    score_many(&r, 0, 3000);
    loop_for_ms(4950);
    for (unsigned i = 0; i < 10; i++) { /* across the moment it closes */
        score_many(&r, 5000 + i * 10, 10);
        loop_for_ms(20);
    }
    CHECK_INT(opd_http_client_replays(r.client), 0); /* ours were retired before */
    CHECK_INT(opd_http_client_protocol(r.client), OPD_HTTP_PROTOCOL_HTTP1);
    room_close(&r);
}

/* A client that keeps connections longer than the server: the race is run, and lost without harm. */
TEST(uvicorn_closes_first) {
    if (!has_module("uvicorn")) SKIP("python3-uvicorn is not installed");
    room r;
    room_open(&r, "uvicorn scoring_app:app --port %u --log-level error --timeout-keep-alive 1",
              (opd_http_client_options){.http1_idle_ms = 60000});
    for (unsigned i = 0; i < 6; i++) {
        score_many(&r, i * 64, 64);
        loop_for_ms(985 + i * 5);
    }
    room_close(&r);
}

/* Killed and started again under load: each call ends once; later ones are answered. */
TEST(uvicorn_restarts) {
    if (!has_module("uvicorn")) SKIP("python3-uvicorn is not installed");
    enum { CALLS = 400 };
    static scoring all[CALLS];
    room r;
    room_open(&r, "uvicorn scoring_app:app --port %u --log-level error", (opd_http_client_options){0});
    r.done = 0;
    for (int i = 0; i < CALLS; i++) {
        scoring_make(&all[i], &r, (unsigned)i);
        CHECK_OK(opd_http_client_send(r.client, &all[i].call));
    }
    loop_until(&r.done, 20);
    kill(r.pid, SIGKILL);
    loop_until(&r.done, CALLS);
    int lost = 0;
    for (int i = 0; i < CALLS; i++) {
        opd_http_call *call = &all[i].call;
        CHECK(call->err == OPD_OK || call->err == OPD_ERR_RESET || call->err == OPD_ERR_REFUSED);
        CHECK(call->err != OPD_ERR_REFUSED || call->retry_safe);
        if (call->err != OPD_OK) {
            lost++;
            opd_http_call_fini(call);
            opd_buf_release(all[i].body);
        } else {
            scoring_check(&all[i]);
        }
    }
    CHECK(lost > 0);
    room_close(&r);
}

TEST(hypercorn) {
    if (!has_module("hypercorn")) SKIP("python3-hypercorn is not installed");
    room r;
    room_open(&r, "hypercorn --bind 127.0.0.1:%u scoring_app:app", (opd_http_client_options){0});
    CHECK_INT(opd_http_client_protocol(r.client), OPD_HTTP_PROTOCOL_HTTP2);
    score_many(&r, 0, 2000);
    room_close(&r);
}
