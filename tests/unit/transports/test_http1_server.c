/* test_http1_server.c - the server as clients of HTTP/1.1 meet it, byte by byte; also over a
 * simulated network. */
#include "core/base/check.h"
#include "tests/support/test.h"
#include "tests/unit/transports/loop.h"

typedef struct site {
    opd_http_server *server;
    opd_http_exchange *held[8];
    int held_count, cancelled, requests;
} site;

static void on_cancel(void *arg, opd_http_exchange *exchange) {
    (void)exchange;
    ((site *)arg)->cancelled++;
}

static void handler(void *arg, opd_http_exchange *exchange) {
    site *s = arg;
    s->requests++;
    if (strcmp(opd_http_exchange_path(exchange), "/hold") == 0) {
        opd_http_exchange_on_cancel(exchange, on_cancel, s);
        s->held[s->held_count++] = exchange;
        return;
    }
    const char *path = opd_http_exchange_path(exchange);
    if (strcmp(path, "/drop") == 0) {
        opd_http_exchange_drop(exchange, 2, false);
        return;
    }
    if (strcmp(path, "/short") == 0) opd_http_exchange_cut(exchange, 4, false, false);
    if (strcmp(path, "/chunk") == 0) opd_http_exchange_cut(exchange, 4, false, true);
    if (strcmp(path, "/stall") == 0) opd_http_exchange_cut(exchange, 4, true, false);
    if (strcmp(path, "/bye") == 0) opd_http_exchange_goaway(exchange, OPD_HTTP_GOAWAY_GRACEFUL);
    if (strcmp(path, "/streams") == 0) opd_http_exchange_max_streams(exchange, 1);
    if (strcmp(path, "/lost") == 0) {
        opd_http_exchange_on_cancel(exchange, on_cancel, s);
        s->held[s->held_count++] = exchange;
        opd_http_exchange_goaway(exchange, OPD_HTTP_GOAWAY_DROP);
        return;
    }
    char text[256];
    snprintf(text, sizeof text, "[%s %s %.100s]", opd_http_exchange_method(exchange),
             opd_http_exchange_path(exchange), opd_http_exchange_body(exchange));
    opd_http_respond_text(exchange, 200, "text/plain", text);
}

static void site_open(site *s, opd_http_server_options options) {
    memset(s, 0, sizeof *s);
    loop_init();
    options.env = loop_env;
    CHECK_OK(opd_http_server_create(&options, handler, s, &s->server));
}

static void site_close(site *s) {
    loop_server_close(s->server, 200);
    for (int i = 0; i < s->held_count; i++) opd_http_respond_text(s->held[i], 200, NULL, "late");
    loop_fini();
}

/* A client that says `say`, `piece` bytes at a time, and hears what comes. */
typedef struct raw_client {
    opd_tcp *tcp;
    const char *say;
    size_t size, said, piece;
    opd_str heard;
    int ended, closed;
} raw_client;

static void raw_open(void *arg, opd_err err) {
    CHECK_OK(err);
    opd_tcp_flush(((raw_client *)arg)->tcp);
}
static void raw_bytes(void *arg, const uint8_t *bytes, size_t size) {
    opd_str_append(&((raw_client *)arg)->heard, bytes, size);
}
static void raw_pull(void *arg, opd_iobatch *batch) {
    raw_client *raw = arg;
    size_t left = raw->size - raw->said;
    raw->said += opd_iobatch_stage(batch, raw->say + raw->said, left < raw->piece ? left : raw->piece);
}
static void raw_end(void *arg, opd_err err) {
    (void)err;
    ((raw_client *)arg)->ended++;
}
static void raw_closed(void *arg) { ((raw_client *)arg)->closed++; }
static const opd_tcp_events raw_events = {raw_open, raw_bytes, raw_pull, raw_end, raw_closed};

static void raw_start(site *s, raw_client *raw, const char *say, size_t size, size_t piece) {
    *raw = (raw_client){.say = say, .size = size, .piece = piece};
    opd_str_init(&raw->heard, NULL, 1 << 20);
    opd_str_text(&raw->heard, "");
    CHECK_OK(opd_tcp_connect(loop_env, NULL, "127.0.0.1", opd_http_server_port(s->server), &raw_events,
                             raw, &raw->tcp));
}

static void raw_stop(raw_client *raw) {
    opd_tcp_close(raw->tcp);
    loop_until(&raw->closed, 1);
    opd_str_fini(&raw->heard);
}

/* Says it and waits until the server hangs up. */
static void raw_ask(site *s, raw_client *raw, const char *say, size_t size, size_t piece) {
    raw_start(s, raw, say, size, piece);
    loop_until(&raw->ended, 1);
}

static int count(const char *text, const char *part) {
    int found = 0;
    while ((text = strstr(text, part)) != NULL) found++, text++;
    return found;
}

#define POST(path, body) "POST " path " HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n" body
#define LAST(path) "GET " path " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

/* One after the other and all at once (pipelined), in pieces of every small size. */
TEST(keeps_the_connection) {
    static const char say[] = POST("/1", "abc") "GET /2?x HTTP/1.1\r\nHost: x\r\n\r\n"
        "POST /3 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
        LAST("/4");
    static const size_t pieces[] = {1, 2, 3, 5, 7, 11, 40, 41, 42, 43, 1000};
    site s;
    site_open(&s, (opd_http_server_options){0});
    for (size_t i = 0; i < OPD_COUNTOF(pieces); i++) {
        raw_client raw;
        raw_ask(&s, &raw, say, sizeof say - 1, pieces[i]);
        CHECK_INT(count(raw.heard.data, "HTTP/1.1 200 OK\r\n"), 4);
        CHECK_INT(count(raw.heard.data, "connection: close"), 1);
        const char *first = strstr(raw.heard.data, "[POST /1 abc]");
        const char *second = strstr(raw.heard.data, "[GET /2?x ]");
        const char *third = strstr(raw.heard.data, "[POST /3 hello]");
        const char *fourth = strstr(raw.heard.data, "[GET /4 ]");
        CHECK(first != NULL && first < second && second < third && third < fourth);
        raw_stop(&raw);
    }
    site_close(&s);
}

TEST(refusals) {
    static const struct {
        const char *say, *status;
    } all[] = {{"GARBAGE\r\n\r\n", "HTTP/1.1 400 "},
               {"GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "},
               {"PRI\r\n", "HTTP/1.1 400 "},
               {"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", "HTTP/1.1 505 "},
               {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.1 400 "},
               {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", "HTTP/1.1 501 "},
               {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n", "HTTP/1.1 413 "},
               {"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1001\r\n\r\n", "HTTP/1.1 413 "},
               {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\nab", "HTTP/1.1 408 "},
               {"GET / HTTP/1.1\r\nHost:", "HTTP/1.1 408 "}};
    site s;
    site_open(&s, (opd_http_server_options){.max_body_bytes = 1000, .request_timeout_ms = 300,
                                            .handshake_timeout_ms = 500});
    for (size_t i = 0; i < OPD_COUNTOF(all); i++)
        for (size_t piece = 1; piece < 2000; piece += 1998) {
            raw_client raw;
            raw_ask(&s, &raw, all[i].say, strlen(all[i].say), piece);
            if (strncmp(raw.heard.data, all[i].status, 13) != 0)
                opd_test_fail(__FILE__, __LINE__, "%s -> %s", all[i].say, raw.heard.data);
            CHECK_INT(count(raw.heard.data, "content-length: "), 1);
            CHECK_CONTAINS(raw.heard.data, "connection: close");
            raw_stop(&raw);
        }
    CHECK_INT(s.requests, 0); /* none of them reached the handler */
    site_close(&s);
}

/* Chunks have no length to refuse by: the body is, as soon as it is too large. */
TEST(chunks_beyond_the_limit) {
    site s;
    char say[3000] = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n7d0\r\n";
    size_t head = strlen(say);
    memset(say + head, 'x', sizeof say - head);
    site_open(&s, (opd_http_server_options){.max_body_bytes = 1000});
    raw_client raw;
    raw_ask(&s, &raw, say, sizeof say, 500);
    CHECK_CONTAINS(raw.heard.data, "HTTP/1.1 413 ");
    raw_stop(&raw);
    CHECK_INT(s.requests, 0);
    site_close(&s);
}

TEST(too_many_request_bytes_are_a_503) {
    static const char say[] = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n" "0123456789012345678901234567890123456789";
    site s;
    site_open(&s, (opd_http_server_options){.max_total_bytes = 20});
    raw_client raw;
    raw_ask(&s, &raw, say, sizeof say - 1, 1000);
    CHECK_CONTAINS(raw.heard.data, "HTTP/1.1 503 ");
    raw_stop(&raw);
    site_close(&s);
}

TEST(expect_continue) {
    static const char head[] = "POST /c HTTP/1.1\r\nHost: x\r\nExpect: 100-Continue\r\nContent-Length: 3\r\n\r\n";
    site s;
    site_open(&s, (opd_http_server_options){0});
    raw_client raw;
    raw_start(&s, &raw, head, sizeof head - 1, 1000);
    for (int i = 0; i < 100 && raw.heard.size < 25; i++) loop_for_ms(5);
    CHECK_STR(raw.heard.data, "HTTP/1.1 100 Continue\r\n\r\n");
    CHECK_INT(s.requests, 0);
    raw.say = "abc" LAST("/d");
    raw.said = 0;
    raw.size = strlen(raw.say);
    opd_tcp_flush(raw.tcp);
    loop_until(&raw.ended, 1);
    CHECK_CONTAINS(raw.heard.data, "[POST /c abc]");
    CHECK_CONTAINS(raw.heard.data, "[GET /d ]");
    raw_stop(&raw);
    site_close(&s);
}

TEST(idle_connections_are_closed) {
    static const char say[] = POST("/", "abc");
    site s;
    site_open(&s, (opd_http_server_options){.http1_idle_ms = 100});
    raw_client raw;
    raw_ask(&s, &raw, say, sizeof say - 1, 1000); /* ends by itself */
    CHECK_INT(count(raw.heard.data, "200 OK"), 1);
    CHECK_INT(count(raw.heard.data, "connection: close"), 0);
    raw_stop(&raw);
    site_close(&s);
}

/* The client goes while its request is in the handler: that hears of it. */
TEST(lost_client) {
    static const char say[] = "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n";
    site s;
    site_open(&s, (opd_http_server_options){0});
    raw_client raw;
    raw_start(&s, &raw, say, sizeof say - 1, 1000);
    loop_until(&s.held_count, 1);
    raw_stop(&raw);
    loop_until(&s.cancelled, 1);
    site_close(&s);
}

/* What is in the handler when the server ends is still answered, and is the last. */
TEST(drains) {
    static const char say[] = "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n" POST("/never", "abc");
    static const char idle[] = POST("/", "abc");
    site s;
    int closed = 0;
    site_open(&s, (opd_http_server_options){0});
    raw_client raw, kept;
    raw_start(&s, &kept, idle, sizeof idle - 1, 1000);
    raw_start(&s, &raw, say, sizeof say - 1, 1000);
    loop_until(&s.held_count, 1);
    loop_until(&s.requests, 2);
    loop_for_ms(20);
    opd_http_server_close(s.server, 5000, loop_count, &closed);
    loop_until(&kept.ended, 1);
    CHECK_INT(raw.ended, 0);
    opd_http_respond_text(s.held[0], 200, "text/plain", "just in time");
    loop_until(&raw.ended, 1);
    CHECK_CONTAINS(raw.heard.data, "connection: close\r\n\r\njust in time");
    CHECK_INT(count(raw.heard.data, "content-length: "), 1);
    CHECK_INT(s.requests, 2);
    raw_stop(&raw);
    raw_stop(&kept);
    loop_until(&closed, 1);
    loop_fini();
}

/* More behind one request than is kept: that one is answered, and the connection ends. */
TEST(endless_pipeline) {
    site s;
    size_t size = 200000;
    char *say = calloc(1, size);
    strcpy(say, "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
    memset(say + strlen(say), 'x', size - strlen(say));
    site_open(&s, (opd_http_server_options){0});
    raw_client raw;
    raw_start(&s, &raw, say, size, 30000);
    loop_until(&s.held_count, 1);
    for (int i = 0; i < 200 && raw.said < size; i++) loop_for_ms(5);
    loop_for_ms(20);
    opd_http_respond_text(s.held[--s.held_count], 200, "text/plain", "held");
    loop_until(&raw.ended, 1);
    CHECK_CONTAINS(raw.heard.data, "connection: close\r\n\r\nheld");
    CHECK_INT(s.requests, 1);
    raw_stop(&raw);
    free(say);
    site_close(&s);
}

/* ---- on purpose ---- */

#define GET(path) "GET " path " HTTP/1.1\r\nHost: x\r\n\r\n"

/* What the server does to a request, with another one right behind it; all of it is heard. */
static void misbehaves(const char *say, const char *heard) {
    site s;
    raw_client raw;
    site_open(&s, (opd_http_server_options){0});
    raw_ask(&s, &raw, say, strlen(say), 1000);
    CHECK_STR(raw.heard.data, heard);
    CHECK_INT(s.cancelled, s.held_count);
    raw_stop(&raw);
    site_close(&s);
}

TEST(faults_end_the_connection) {
    misbehaves(GET("/drop") GET("/2"), "");
    misbehaves(GET("/lost") GET("/2"), "");
    misbehaves(GET("/bye") GET("/2"), "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 11\r\n"
                                      "connection: close\r\n\r\n[GET /bye ]");
    misbehaves(GET("/short") GET("/2"), "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 13\r\n\r\n[GET");
    misbehaves(GET("/chunk") GET("/2"), "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n"
                                        "transfer-encoding: chunked\r\n\r\nd\r\n[GET");
    misbehaves(LAST("/streams"), "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 15\r\n"
                                 "connection: close\r\n\r\n[GET /streams ]");
}

TEST(a_stalled_answer_never_ends) {
    site s;
    raw_client raw;
    site_open(&s, (opd_http_server_options){.http1_idle_ms = 100});
    raw_start(&s, &raw, GET("/stall") GET("/2"), strlen(GET("/stall") GET("/2")), 1000);
    loop_for_ms(600);
    CHECK(strstr(raw.heard.data, "content-length: 13\r\n\r\n[GET") != NULL && raw.ended == 0);
    CHECK_INT(s.requests, 1);
    raw_stop(&raw);
    site_close(&s);
}

/* As uvicorn: HTTP/2's preface, whole or in pieces, is answered by the connection's end. */
TEST(without_http2_its_preface_closes) {
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
    static const size_t pieces[] = {1, 5, 24, 33};
    site s;
    raw_client raw;
    site_open(&s, (opd_http_server_options){.http1_only = true});
    for (size_t i = 0; i < OPD_COUNTOF(pieces); i++) {
        raw_ask(&s, &raw, preface, sizeof preface - 1, pieces[i]);
        CHECK_STR(raw.heard.data, "");
        raw_stop(&raw);
    }
    raw_ask(&s, &raw, POST("/1", "abc") LAST("/2"), strlen(POST("/1", "abc") LAST("/2")), 3);
    CHECK_INT(count(raw.heard.data, "HTTP/1.1 200 OK"), 2);
    raw_stop(&raw);
    raw_ask(&s, &raw, "PRI * HTTP/1.1\r\n\r\n", 18, 18); /* so it begins, but it is not */
    CHECK_CONTAINS(raw.heard.data, "HTTP/1.1 400 ");
    raw_stop(&raw);
    site_close(&s);
}
