/* test_http1_client.c - the client against a server of HTTP/1.1 alone, whose behaviour the path
 * chooses; also over a simulated network. */
#include "tests/support/test.h"
#include "tests/unit/transports/loop.h"
#include "tests/unit/transports/pair.h"
#include "transports/http1.h"

/* The server: what it does with HTTP/2's preface, and with the requests of one connection. */
typedef struct old_server {
    opd_tcp_listener *listener;
    uint16_t port;
    bool words;         /* answers the preface with a 400, else hangs up without a word */
    bool dies_on_reuse; /* the second request of a connection is closed on, without a byte */
    int open, accepted, closed, requests, prefaces;
    char first[32]; /* the first request ever: "GET /model_info" */
} old_server;

typedef struct old_conn {
    old_server *server;
    opd_tcp *tcp;
    opd_h1_reader reader;
    opd_str path, body, out;
    size_t sent;
    int requests;
    bool finish, early;
} old_conn;

static void old_put(old_conn *conn, const char *head, const char *body, size_t size) {
    opd_str_printf(&conn->out, "HTTP/1.1 %s\r\n", head);
    if (body != NULL) opd_str_printf(&conn->out, "Content-Length: %zu\r\n", size);
    opd_str_text(&conn->out, "\r\n");
    if (body != NULL) opd_str_append(&conn->out, body, size);
}

static bool is(const old_conn *conn, const char *path) { return strcmp(conn->path.data, path) == 0; }

/* The whole request is there. */
static void old_answer(old_conn *conn) {
    conn->requests++;
    conn->server->requests++;
    if (is(conn, "/echo")) {
        old_put(conn, "200 OK", conn->body.size > 0 ? conn->body.data : "", conn->body.size);
    } else if (is(conn, "/chunks")) {
        old_put(conn, "200 OK\r\nTransfer-Encoding: chunked", NULL, 0);
        opd_str_text(&conn->out, "5\r\nhello\r\n6;x\r\n world\r\n0\r\n\r\n");
    } else if (is(conn, "/to-the-end")) {
        old_put(conn, "200 OK", NULL, 0);
        opd_str_text(&conn->out, "to the end");
        conn->finish = true;
    } else if (is(conn, "/cut")) {
        old_put(conn, "200 OK\r\nContent-Length: 10", NULL, 0);
        opd_str_text(&conn->out, "half");
        conn->finish = true;
    } else if (is(conn, "/cut-chunk")) {
        old_put(conn, "200 OK\r\nTransfer-Encoding: chunked", NULL, 0);
        opd_str_text(&conn->out, "a\r\nhalf");
        conn->finish = true;
    } else if (is(conn, "/too-much")) {
        old_put(conn, "200 OK", "ok", 2);
        opd_str_text(&conn->out, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    } else if (is(conn, "/garbage")) {
        opd_str_text(&conn->out, "\x01\x02garbage\r\n\r\n");
    } else if (is(conn, "/close")) {
        old_put(conn, "200 OK\r\nConnection: close", "bye", 3);
        conn->finish = true;
    } else if (is(conn, "/die")) {
        conn->finish = true;
    } else if (!is(conn, "/silence")) {
        old_put(conn, "404 Not Found\r\nRetry-After: 7", "none", 4);
    }
}

static void old_start(old_conn *conn, const opd_h1_event *event) {
    opd_str_clear(&conn->path);
    opd_str_clear(&conn->body);
    opd_str_text(&conn->path, event->value);
    old_server *server = conn->server;
    if (server->first[0] == '\0')
        snprintf(server->first, sizeof server->first, "%s %s", event->name, event->value);
    if (server->dies_on_reuse && conn->requests > 0) conn->finish = true;
    if (!is(conn, "/early")) return;
    conn->early = conn->finish = true; /* with the request's body still on its way */
    old_put(conn, "413 Content Too Large", "too much", 8);
}

static void old_preface(old_conn *conn) {
    conn->server->prefaces++;
    if (conn->server->words) old_put(conn, "400 Bad Request\r\nConnection: close", "no", 2);
    conn->finish = true;
}

static void old_receive(old_conn *conn, const uint8_t *bytes, size_t size) {
    opd_h1_event event = {.kind = OPD_H1_HEAD};
    while (event.kind != OPD_H1_MORE && !conn->finish) {
        opd_err err = opd_h1_read(&conn->reader, &bytes, &size, &event);
        if (err != OPD_OK) old_preface(conn);
        else if (event.kind == OPD_H1_START) old_start(conn, &event);
        else if (event.kind == OPD_H1_BODY) opd_str_append(&conn->body, event.data, event.size_bytes);
        else if (event.kind == OPD_H1_END) {
            old_answer(conn);
            opd_h1_reader_next(&conn->reader, false);
        }
    }
}

static void old_bytes(void *arg, const uint8_t *bytes, size_t size) {
    old_conn *conn = arg;
    if (conn->finish) return;
    old_receive(conn, bytes, size);
    opd_tcp_flush(conn->tcp);
    if (conn->finish && conn->sent == conn->out.size) opd_tcp_finish(conn->tcp);
}

static void old_pull(void *arg, opd_iobatch *batch) {
    old_conn *conn = arg;
    if (conn->sent == conn->out.size) return;
    conn->sent += opd_iobatch_stage(batch, conn->out.data + conn->sent, conn->out.size - conn->sent);
    if (conn->finish && conn->sent == conn->out.size) opd_tcp_finish(conn->tcp);
}

static void old_end(void *arg, opd_err err) {
    (void)err;
    opd_tcp_close(((old_conn *)arg)->tcp);
}

static void old_closed(void *arg) {
    old_conn *conn = arg;
    conn->server->open--;
    conn->server->closed++;
    opd_h1_reader_fini(&conn->reader);
    opd_str_fini(&conn->path);
    opd_str_fini(&conn->body);
    opd_str_fini(&conn->out);
    free(conn);
}

static const opd_tcp_events old_events = {NULL, old_bytes, old_pull, old_end, old_closed};

static void old_accepted(void *arg, opd_tcp *tcp) {
    old_conn *conn = calloc(1, sizeof *conn);
    conn->server = arg;
    conn->server->open++;
    conn->server->accepted++;
    conn->tcp = tcp;
    opd_h1_reader_init(&conn->reader, NULL, true, 65536);
    opd_str_init(&conn->path, NULL, 4096);
    opd_str_init(&conn->body, NULL, 64u << 20);
    opd_str_init(&conn->out, NULL, 512u << 20);
    opd_tcp_start(tcp, &old_events, conn);
}

typedef struct site {
    old_server server;
    opd_http_client *client;
    char url[64];
    int done;
} site;

static void old_open(site *s, uint16_t port) {
    memset(&s->server, 0, sizeof s->server);
    CHECK_OK(opd_tcp_listen(loop_env, NULL, "127.0.0.1", port, old_accepted, &s->server,
                            &s->server.listener));
    s->server.port = opd_tcp_listener_port(s->server.listener);
    snprintf(s->url, sizeof s->url, "http://127.0.0.1:%u", s->server.port);
}

static void old_stop(site *s) {
    int closed = 0;
    opd_tcp_listener_close(s->server.listener, loop_count, &closed);
    loop_until(&closed, 1);
}

static void site_open(site *s, opd_http_client_options options) {
    memset(s, 0, sizeof *s);
    loop_init();
    old_open(s, 0);
    options.env = loop_env;
    options.url = s->url;
    CHECK_OK(opd_http_client_create(&options, &s->client));
}

static void site_close(site *s) {
    loop_client_close(s->client);
    old_stop(s);
    loop_until(&s->server.closed, s->server.accepted);
    loop_fini();
}

static void on_done(opd_http_call *call) { ((site *)call->arg)->done++; }

static opd_http_call call_to(site *s, const char *path) {
    return (opd_http_call){.path = path, .done = on_done, .arg = s};
}

static void ask(site *s, opd_http_call *call) {
    int before = s->done;
    CHECK_OK(opd_http_client_send(s->client, call));
    CHECK_INT(s->done, before);
    loop_until(&s->done, before + 1);
}

static void check_get(site *s, const char *path, int status, const char *text) {
    opd_http_call call = call_to(s, path);
    ask(s, &call);
    CHECK_STR(call.error, "");
    CHECK_INT(call.status, status);
    CHECK_STR(call.answer.data, text);
    opd_http_call_fini(&call);
}

static void check_fails(site *s, const char *path, opd_err err, const char *part) {
    opd_http_call call = call_to(s, path);
    ask(s, &call);
    CHECK_INT(call.err, err);
    CHECK(!call.retry_safe);
    CHECK_CONTAINS(call.error, part);
    opd_http_call_fini(&call);
}

/* The endpoint is asked by a GET, whatever waits; then calls share few connections. */
static void check_learns(bool words) {
    enum { CALLS = 300 };
    static opd_http_call calls[CALLS];
    site s;
    site_open(&s, (opd_http_client_options){.http1_connections = 8});
    s.server.words = words;
    opd_buf *body = pattern_create(3000, 2);
    CHECK_INT(opd_http_client_protocol(s.client), OPD_HTTP_PROTOCOL_UNKNOWN);
    for (int i = 0; i < CALLS; i++) {
        calls[i] = call_to(&s, "/echo");
        calls[i].body = (opd_slice){body, 0, 1 + (size_t)i * 7};
        CHECK_OK(opd_http_client_send(s.client, &calls[i]));
    }
    loop_until(&s.done, CALLS);
    CHECK_STR(s.server.first, "GET /model_info");
    CHECK_INT(s.server.prefaces, 1);
    CHECK_INT(s.server.requests, CALLS + 1);
    CHECK(s.server.accepted <= 1 + 8); /* the preface's, and the pool */
    CHECK_INT(opd_http_client_protocol(s.client), OPD_HTTP_PROTOCOL_HTTP1);
    for (int i = 0; i < CALLS; i++) {
        CHECK_STR(calls[i].error, "");
        CHECK_INT(calls[i].status, 200);
        CHECK_INT(calls[i].answer.size, 1 + i * 7);
        CHECK(memcmp(calls[i].answer.data, opd_buf_data(body), calls[i].answer.size) == 0);
        opd_http_call_fini(&calls[i]);
    }
    CHECK_INT(opd_http_client_inflight(s.client), 0);
    CHECK_INT(opd_http_client_replays(s.client), 0);
    opd_buf_release(body);
    site_close(&s);
}

TEST(learns_from_silence) { check_learns(false); }
TEST(learns_from_words) { check_learns(true); }

TEST(kinds_of_answers) {
    site s;
    site_open(&s, (opd_http_client_options){0});
    check_get(&s, "/chunks", 200, "hello world");
    check_get(&s, "/nothing", 404, "none");
    check_get(&s, "/to-the-end", 200, "to the end");
    check_get(&s, "/close", 200, "bye");
    check_get(&s, "/too-much", 200, "ok"); /* and the connection is not used again */
    check_get(&s, "/echo", 200, "");
    CHECK_INT(s.server.requests, 7);
    site_close(&s);
}

TEST(twenty_megabytes) {
    site s;
    site_open(&s, (opd_http_client_options){0});
    opd_buf *body = pattern_create(20u << 20, 4);
    opd_http_call call = call_to(&s, "/echo");
    call.body = opd_slice_whole(body);
    ask(&s, &call);
    CHECK_STR(call.error, "");
    CHECK(pattern_is(call.answer.data, 20u << 20, 4));
    CHECK_INT(call.answer.size, 20 << 20);
    opd_http_call_fini(&call);
    opd_buf_release(body);
    site_close(&s);
}

TEST(broken_answers) {
    site s;
    site_open(&s, (opd_http_client_options){0});
    check_fails(&s, "/cut", OPD_ERR_RESET, "connection lost before the whole answer");
    check_fails(&s, "/cut-chunk", OPD_ERR_RESET, "connection lost before the whole answer");
    check_fails(&s, "/garbage", OPD_ERR_PROTO, "broken answer");
    site_close(&s);
}

/* A connection that ends without a byte: a kept one is the race of keep-alive and costs nothing, a
 * fresh one is the call's own affair. */
TEST(kept_connection_closed) {
    site s;
    site_open(&s, (opd_http_client_options){0});
    check_get(&s, "/echo", 200, ""); /* on the probe's connection */
    s.server.dies_on_reuse = true;
    int accepted = s.server.accepted;
    for (int i = 0; i < 20; i++) {
        opd_http_call call = call_to(&s, "/echo");
        call.attempt_timeout_ms = 2000;
        call.deadline_ns = loop_in_ms(5000);
        ask(&s, &call);
        CHECK_STR(call.error, "");
        CHECK_INT(call.status, 200);
        opd_http_call_fini(&call);
    }
    CHECK_INT(opd_http_client_replays(s.client), 20);
    CHECK_INT(opd_http_client_connections(s.client), 1 + 20); /* what HTTP/2 was tried on is none */
    CHECK_INT(s.server.accepted - accepted, 20);
    site_close(&s);
}

TEST(fresh_connection_closed) {
    site s;
    site_open(&s, (opd_http_client_options){0});
    check_get(&s, "/close", 200, "bye");
    check_fails(&s, "/die", OPD_ERR_RESET, "connection lost");
    CHECK_INT(opd_http_client_replays(s.client), 0);
    check_get(&s, "/close", 200, "bye");
    check_get(&s, "/echo", 200, "");
    check_fails(&s, "/die", OPD_ERR_RESET, "connection lost"); /* kept, then fresh: once each */
    CHECK_INT(opd_http_client_replays(s.client), 1);
    site_close(&s);
}

/* All kept connections at once turn out to be closed. */
TEST(many_kept_connections_closed) {
    enum { CALLS = 40 };
    static opd_http_call calls[CALLS];
    site s;
    site_open(&s, (opd_http_client_options){.http1_connections = 16});
    for (int round = 0; round < 3; round++) {
        s.server.dies_on_reuse = round == 1;
        for (int i = 0; i < CALLS; i++) {
            calls[i] = call_to(&s, "/echo");
            CHECK_OK(opd_http_client_send(s.client, &calls[i]));
        }
        loop_until(&s.done, CALLS * (round + 1));
        for (int i = 0; i < CALLS; i++) {
            bool unlucky = calls[i].err == OPD_ERR_RESET; /* more than REPLAYS_MAX in a row */
            CHECK(round == 1 ? unlucky || calls[i].status == 200 : calls[i].status == 200);
            opd_http_call_fini(&calls[i]);
        }
    }
    CHECK(opd_http_client_replays(s.client) > 0);
    site_close(&s);
}

TEST(idle_connections_retire) {
    site s;
    site_open(&s, (opd_http_client_options){.http1_idle_ms = 60});
    check_get(&s, "/echo", 200, "");
    CHECK_INT(s.server.open, 1);
    loop_for_ms(30);
    CHECK_INT(s.server.open, 1);
    loop_for_ms(200);
    CHECK_INT(s.server.open, 0);
    check_get(&s, "/echo", 200, "");
    CHECK_INT(opd_http_client_replays(s.client), 0);
    site_close(&s);
}

TEST(early_413) {
    site s;
    site_open(&s, (opd_http_client_options){0});
    check_get(&s, "/echo", 200, "");
    opd_buf *body = pattern_create(20u << 20, 4);
    opd_http_call call = call_to(&s, "/early");
    call.body = opd_slice_whole(body);
    ask(&s, &call);
    CHECK_STR(call.error, "");
    CHECK_INT(call.status, 413);
    CHECK_STR(call.answer.data, "too much");
    opd_http_call_fini(&call);
    check_get(&s, "/echo", 200, ""); /* elsewhere */
    opd_buf_release(body);
    site_close(&s);
}

TEST(deadline_cancel_and_limit) {
    site s;
    site_open(&s, (opd_http_client_options){.max_answer_bytes = 100});
    opd_http_call late = call_to(&s, "/silence"), slow = late, unwanted = late, large;
    late.deadline_ns = loop_in_ms(100);
    slow.attempt_timeout_ms = 100;
    CHECK_OK(opd_http_client_send(s.client, &unwanted));
    CHECK_OK(opd_http_client_send(s.client, &slow));
    ask(&s, &late);
    loop_until(&s.done, 2);
    CHECK_INT(late.err, OPD_ERR_TIMEOUT);
    CHECK_CONTAINS(late.error, "deadline passed before the whole answer");
    CHECK_INT(slow.err, OPD_ERR_TIMEOUT);
    CHECK_CONTAINS(slow.error, "within the attempt's 100 ms");
    opd_http_client_cancel(&unwanted);
    loop_until(&s.done, 3);
    CHECK_INT(unwanted.err, OPD_ERR_CANCELLED);
    CHECK_INT(opd_http_client_inflight(s.client), 0);
    opd_buf *body = pattern_create(101, 1);
    large = call_to(&s, "/echo");
    large.body = opd_slice_whole(body);
    ask(&s, &large);
    CHECK_INT(large.err, OPD_ERR_LIMIT);
    check_get(&s, "/echo", 200, "");
    opd_http_call_fini(&late);
    opd_http_call_fini(&slow);
    opd_http_call_fini(&unwanted);
    opd_http_call_fini(&large);
    opd_buf_release(body);
    site_close(&s);
}

TEST(client_closed_midway) {
    site s;
    site_open(&s, (opd_http_client_options){.http1_connections = 4});
    opd_http_call calls[8];
    check_get(&s, "/echo", 200, "");
    for (int i = 0; i < 8; i++) {
        calls[i] = call_to(&s, "/silence");
        CHECK_OK(opd_http_client_send(s.client, &calls[i]));
    }
    loop_for_ms(50);
    CHECK_INT(opd_http_client_inflight(s.client), 4);
    site_close(&s);
    CHECK_INT(s.done, 9);
    for (int i = 0; i < 8; i++) {
        CHECK_INT(calls[i].err, OPD_ERR_CLOSED);
        CHECK_INT(calls[i].retry_safe, i >= 4);
        opd_http_call_fini(&calls[i]);
    }
}

TEST(header_that_cannot_be_sent) {
    site s;
    site_open(&s, (opd_http_client_options){0});
    check_get(&s, "/echo", 200, "");
    opd_http_header header = {"x", "a\r\nb: c"};
    opd_http_call call = call_to(&s, "/echo");
    call.headers = &header;
    call.header_count = 1;
    ask(&s, &call);
    CHECK_INT(call.err, OPD_ERR_INVALID);
    CHECK(call.retry_safe);
    opd_http_call_fini(&call);
    site_close(&s);
}

static void h2_handler(void *arg, opd_http_exchange *exchange) {
    (void)arg;
    opd_http_respond_text(exchange, 200, "text/plain", "over HTTP/2");
}

/* Another server takes the place of the first: what was learned is forgotten in time. */
TEST(learns_again) {
    site s;
    site_open(&s, (opd_http_client_options){.http1_ttl_ms = 100, .backoff_max_ms = 50});
    check_get(&s, "/echo", 200, "");
    int prefaces = s.server.prefaces;
    loop_for_ms(150);
    check_get(&s, "/echo", 200, ""); /* asked again beside the pool: the same */
    loop_for_ms(50);
    CHECK_INT(s.server.prefaces, prefaces + 1);
    CHECK_INT(opd_http_client_protocol(s.client), OPD_HTTP_PROTOCOL_HTTP1);
    uint16_t port = s.server.port;
    check_get(&s, "/close", 200, "bye");
    old_stop(&s);
    loop_for_ms(150);
    opd_http_server *server;
    opd_http_server_options options = {.env = loop_env, .port = port};
    CHECK_OK(opd_http_server_create(&options, h2_handler, NULL, &server));
    check_get(&s, "/x", 200, "over HTTP/2");
    loop_for_ms(50);
    check_get(&s, "/x", 200, "over HTTP/2");
    CHECK_INT(opd_http_client_protocol(s.client), OPD_HTTP_PROTOCOL_HTTP2);
    loop_server_close(server, 500);
    loop_until(&s.server.closed, s.server.accepted);
    old_open(&s, port); /* and back */
    loop_for_ms(100);
    check_get(&s, "/echo", 200, "");
    CHECK_INT(opd_http_client_protocol(s.client), OPD_HTTP_PROTOCOL_HTTP1);
    site_close(&s);
}
