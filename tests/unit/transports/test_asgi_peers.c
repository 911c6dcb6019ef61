/* test_asgi_peers.c - scoring over HTTP servers that share no code with opd: uvicorn (HTTP/1.1 alone)
 * and hypercorn, which run tests/peers/scoring_app.py. Every score of thousands is checked. What is
 * not installed is a counted skip. Real SGLang is not run: the app has its shapes only. (The teacher's
 * actor against the same servers: test_teacher_peers.c; through proxies: test_proxy_peers.c.)
 */
#include <signal.h>

#include "tests/support/certs.h"
#include "tests/support/test.h"
#include "tests/unit/transports/peers.h"
#include "tests/unit/transports/scoring.h"
#include "transports/tls.h"

static void uvicorn_open(room *r, const char *args, const char *knobs, opd_http_client_options options) {
    room_open(r, &(asgi_options){.server = "uvicorn", .args = args, .knobs = knobs}, options);
}

/* A thousand, then again after the server has closed what was idle (5 s): nothing is noticed. */
TEST(uvicorn) {
    room r;
    uvicorn_open(&r, NULL, NULL, (opd_http_client_options){0});
    score_many(&r, 0, 1000);
    CHECK_INT(opd_http_client_protocol(r.client), OPD_HTTP_PROTOCOL_HTTP1);
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
    room r;
    uvicorn_open(&r, "--timeout-keep-alive 1", NULL, (opd_http_client_options){.http1_idle_ms = 60000});
    for (unsigned i = 0; i < 4; i++) {
        score_many(&r, i * 64, 64);
        loop_for_ms(985 + i * 5);
    }
    room_close(&r);
}

/* Killed and started again under load: each call ends once; later ones are answered. */
TEST(uvicorn_restarts) {
    enum { CALLS = 400 };
    static scoring all[CALLS];
    room r;
    uvicorn_open(&r, NULL, NULL, (opd_http_client_options){0});
    for (int i = 0; i < CALLS; i++) {
        scoring_make(&all[i], &r, (unsigned)i, 50, 10);
        CHECK_OK(opd_http_client_send(r.client, &all[i].call));
    }
    loop_until(&r.done, 20);
    kill(r.asgi.app, SIGKILL);
    room_wait(&r, CALLS);
    int lost = 0;
    for (int i = 0; i < CALLS; i++) {
        const opd_http_call *call = &all[i].call;
        CHECK(call->err == OPD_OK || call->err == OPD_ERR_RESET || call->err == OPD_ERR_REFUSED);
        CHECK(call->err != OPD_ERR_REFUSED || call->retry_safe);
        lost += call->err != OPD_OK;
        if (call->err != OPD_OK) scoring_drop(&all[i]);
        else scoring_check(&all[i]);
    }
    CHECK(lost > 0);
    room_close(&r);
}

/* What uvicorn gets to see of us: HTTP/2's preface (which it hands to the app as a request named PRI) and
 * one GET, once, before the first call; no header ever asks for an Upgrade, over which it would lose
 * the body. */
TEST(uvicorn_after_one_probe) {
    room r;
    uvicorn_open(&r, NULL, NULL, (opd_http_client_options){0});
    free(room_get(&r, "/seen"));
    score_many(&r, 0, 200);
    char *seen = room_get(&r, "/seen");
    CHECK_CONTAINS(seen, "\"PRI * 2.0\": 1, \"GET /model_info 1.1\": 1, \"GET /seen 1.1\": 2, "
                         "\"POST /generate 1.1\": 200}");
    CHECK_CONTAINS(seen, "\"headers\": [\"accept\", \"content-length\", \"host\"]"); /* all there were */
    free(seen);
    room_close(&r);
}

/* The three forms of alternatives as Python's json and base64 write them, asked for or not. */
static void check_form(const char *knobs) {
    room r;
    uvicorn_open(&r, NULL, knobs, (opd_http_client_options){0});
    for (int k = 1; k <= 8; k += k == 1 ? 2 : 5) {
        r.top_k = k;
        score_many(&r, (unsigned)k * 1000, 100);
    }
    room_close(&r);
}

TEST(alternatives_as_asked_for) { check_form(NULL); }
TEST(alternatives_nested) { check_form("SCORING_FORM=nested"); }
TEST(alternatives_flat) { check_form("SCORING_FORM=flat"); }
TEST(alternatives_base64) { check_form("SCORING_FORM=b64"); }

TEST(hypercorn) {
    room r;
    room_open(&r, &(asgi_options){.server = "hypercorn"}, (opd_http_client_options){0});
    score_many(&r, 0, 1000);
    CHECK_INT(opd_http_client_protocol(r.client), OPD_HTTP_PROTOCOL_HTTP2);
    room_close(&r);
}

/* On one port: ours by prior knowledge, curl's HTTP/1.1 at the same time. */
TEST(hypercorn_speaks_both_on_one_port) {
    if (!installed("curl")) SKIP("curl is not installed");
    char command[128], out[64], *told;
    room r;
    room_open(&r, &(asgi_options){.server = "hypercorn"}, (opd_http_client_options){0});
    (void)snprintf(command, sizeof command, "curl -sS --http1.1 -w ,%%{http_version} %s/model_info", r.asgi.url);
    (void)snprintf(out, sizeof out, "%s/curl", r.asgi.folder);
    score_many(&r, 0, 100);
    pid_t pid = start(command, out);
    score_many(&r, 100, 100);
    CHECK_INT(finish(pid), 0);
    told = asgi_file(&r.asgi, "curl");
    CHECK_STR(told, "{\"model_path\": \"hash\"},1.1");
    free(told);
    told = room_get(&r, "/seen");
    CHECK_CONTAINS(told, "\"POST /generate 2\": 200");
    CHECK_CONTAINS(told, "\"GET /model_info 1.1\": 1");
    free(told);
    CHECK_INT(opd_http_client_protocol(r.client), OPD_HTTP_PROTOCOL_HTTP2);
    room_close(&r);
}

/* Over TLS it takes what ALPN agrees: HTTP/2, or HTTP/1.1 where it offers no more. */
static void check_alpn(const char *setting, opd_http_protocol protocol) {
    char args[256];
    certs c;
    room r;
    certs_init(&c);
    FILE *file = fopen(certs_path(&c, "hypercorn.toml"), "w");
    CHECK(file != NULL && fputs(setting, file) >= 0 && fclose(file) == 0);
    (void)snprintf(args, sizeof args, "--certfile %s --keyfile %s --config %s", certs_path(&c, "server.pem"),
                   certs_path(&c, "server.key"), certs_path(&c, "hypercorn.toml"));
    opd_tls_options tls = {.ca_file = certs_path(&c, "ca.pem")};
    room_open(&r, &(asgi_options){.server = "hypercorn", .args = args, .secure = true},
              (opd_http_client_options){.tls = &tls});
    score_many(&r, 0, 200);
    CHECK_INT(opd_http_client_protocol(r.client), protocol);
    room_close(&r);
    certs_fini(&c);
}

TEST(hypercorn_over_tls) { check_alpn("alpn_protocols = [\"h2\", \"http/1.1\"]\n", OPD_HTTP_PROTOCOL_HTTP2); }
TEST(hypercorn_over_tls_without_http2) {
    check_alpn("alpn_protocols = [\"http/1.1\"]\n", OPD_HTTP_PROTOCOL_HTTP1);
}
