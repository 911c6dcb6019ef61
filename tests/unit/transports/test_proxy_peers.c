/* test_proxy_peers.c - the client through the proxies that stand in front of real servers: nginx,
 * haproxy and nghttpx before uvicorn, each with what it is known to do by default. What is not installed
 * is a counted skip. (The teacher's actor through the same: test_teacher_peers.c.)
 */
#include "tests/support/test.h"
#include "tests/unit/transports/scoring.h"

static void proxy_open(room *r, const char *proxy, const char *extra) {
    room_open(r, &(asgi_options){.server = "uvicorn", .proxy = proxy, .extra = extra},
              (opd_http_client_options){.max_inflight = 200});
}

/* ---- nginx ---- */

/* Connections that nginx had from us: those in its access log. (It counts the ones to the app, too.) */
static int nginx_connections(const room *r) {
    unsigned long seen[64];
    int count = 0;
    char *log = asgi_file(&r->asgi, "access.log");
    for (char *line = log; *line != '\0'; line = strchr(line, '\n') + 1) {
        unsigned long number = strtoul(line, NULL, 10);
        int i = 0;
        while (i < count && seen[i] != number) i++;
        if (i < count) continue;
        CHECK(count < 64);
        seen[count++] = number;
    }
    free(log);
    return count;
}

/* keepalive_requests 1000: its GOAWAY comes with 200 requests on their way. Those that it does not take go out
 * again on the next connection; nobody notices. */
TEST(nginx_goes_away_after_1000_requests) {
    room r;
    proxy_open(&r, "nginx", NULL);
    score_many(&r, 0, 3000);
    int connections = nginx_connections(&r);
    printf("%d connections, %u sent again\n", connections, (unsigned)opd_http_client_replays(r.client));
    CHECK(connections >= 3);
    room_close(&r);
}

static void on_refused(opd_http_call *call) { (*(int *)call->arg)++; }

/* client_max_body_size 1m: 413 and RST_STREAM(NO_ERROR) while the body is still going out. The answer is what
 * counts, and the connection goes on. */
TEST(nginx_refuses_a_body_over_1m) {
    enum { CALLS = 20 };
    static opd_http_call calls[CALLS];
    room r;
    opd_buf *body;
    int done = 0;
    proxy_open(&r, "nginx", NULL);
    CHECK_OK(opd_buf_create(NULL, 3 << 20, &body));
    memset(opd_buf_data(body), ' ', 3 << 20);
    for (int i = 0; i < CALLS; i++) {
        calls[i] = (opd_http_call){.path = "/generate", .body = opd_slice_whole(body), .done = on_refused, .arg = &done};
        CHECK_OK(opd_http_client_send(r.client, &calls[i]));
    }
    loop_until(&done, CALLS);
    for (int i = 0; i < CALLS; i++) {
        CHECK_STR(calls[i].error, "");
        CHECK_INT(calls[i].status, 413);
        CHECK_CONTAINS(calls[i].answer.data, "413 Request Entity Too Large");
        opd_http_call_fini(&calls[i]);
    }
    opd_buf_release(body);
    score_many(&r, 0, 50);
    upload_many(&r, 20, 1 << 20); /* just not too large */
    CHECK_INT(nginx_connections(&r), 1);
    room_close(&r);
}

/* Its 128 streams and 64 KiB windows: 200 bodies of 3 MB at once go through whole. */
TEST(nginx_takes_large_bodies) {
    room r;
    proxy_open(&r, "nginx", "client_max_body_size 64m;");
    upload_many(&r, 200, 3 << 20);
    score_large(&r, 4);
    room_close(&r);
}

/* ---- the others ---- */

static void take_large_bodies(const char *proxy, int count) {
    room r;
    proxy_open(&r, proxy, NULL);
    upload_many(&r, count, 3 << 20);
    score_large(&r, 4);
    room_close(&r);
}

TEST(haproxy_takes_large_bodies) { take_large_bodies("haproxy", 60); }

/* Its 100 streams and 64 KiB windows. */
TEST(nghttpx_takes_large_bodies) { take_large_bodies("nghttpx", 120); }
