/* test_http.c - the HTTP client and server over loopback, and what they do when the other side,
 * the clock or the declared limits are against them. */
#include "tests/support/test.h"
#include "tests/unit/transports/loop.h"
#include "tests/unit/transports/pair.h"

/* A server whose behaviour the path chooses. */
typedef struct site {
    opd_http_server *server;
    opd_http_client *client;
    char url[64];
    opd_http_exchange *held[256];
    int held_count, cancelled, done;
} site;

static void on_cancel(void *arg, opd_http_exchange *exchange) {
    site *s = arg;
    s->cancelled++;
    CHECK(opd_http_exchange_cancelled(exchange));
}

static void handler(void *arg, opd_http_exchange *exchange) {
    site *s = arg;
    const char *path = opd_http_exchange_path(exchange);
    if (strcmp(path, "/hold") == 0) {
        opd_http_exchange_on_cancel(exchange, on_cancel, s);
        s->held[s->held_count++] = exchange;
    } else if (strcmp(path, "/echo") == 0) {
        opd_buf *buf;
        size_t size = opd_http_exchange_body_size(exchange);
        CHECK_OK(opd_buf_create(NULL, size, &buf));
        if (size > 0) memcpy(opd_buf_data(buf), opd_http_exchange_body(exchange), size);
        opd_http_respond(exchange, 200, opd_http_exchange_header(exchange, "content-type"),
                         opd_slice_whole(buf));
        opd_buf_release(buf);
    } else {
        opd_http_header headers[] = {{"retry-after", "2"}, {"content-type", "text/plain"}};
        opd_http_respond_headers(exchange, 404, headers, 2, (opd_slice){0});
    }
}

static void release_held(site *s, const char *text) {
    for (int i = 0; i < s->held_count; i++)
        opd_http_respond_text(s->held[i], 200, "text/plain", text);
    s->held_count = 0;
}

static void on_done(opd_http_call *call) { ((site *)call->arg)->done++; }

static void site_open_with(site *s, opd_http_server_options server, opd_http_client_options client) {
    memset(s, 0, sizeof *s);
    loop_init();
    server.env = client.env = loop_env;
    CHECK_OK(opd_http_server_create(&server, handler, s, &s->server));
    snprintf(s->url, sizeof s->url, "http://127.0.0.1:%u", opd_http_server_port(s->server));
    if (client.url == NULL) client.url = s->url;
    CHECK_OK(opd_http_client_create(&client, &s->client));
}

static void site_open(site *s) {
    site_open_with(s, (opd_http_server_options){0}, (opd_http_client_options){0});
}

static void site_close(site *s) {
    if (s->client != NULL) loop_client_close(s->client);
    if (s->server != NULL) loop_server_close(s->server, 500);
    release_held(s, "too late");
    loop_fini();
}

static opd_http_call call_to(site *s, const char *path) {
    return (opd_http_call){.path = path, .done = on_done, .arg = s};
}

static void send(site *s, opd_http_call *call) {
    int before = s->done;
    CHECK_OK(opd_http_client_send(s->client, call));
    CHECK_INT(s->done, before); /* never from inside send */
}

TEST(echo) {
    site s;
    site_open(&s);
    opd_buf *body = pattern_create(20u << 20, 4);
    opd_http_header header = {"content-type", "application/x"};
    opd_http_call call = call_to(&s, "/echo");
    call.headers = &header;
    call.header_count = 1;
    call.body = opd_slice_whole(body);
    send(&s, &call);
    loop_until(&s.done, 1);
    CHECK_STR(call.error, "");
    CHECK_INT(call.err, OPD_OK);
    CHECK_INT(call.status, 200);
    CHECK_INT(call.answer.size, 20 << 20);
    CHECK(pattern_is(call.answer.data, call.answer.size, 4));
    CHECK_STR(opd_http_call_header(&call, "content-type"), "application/x");
    CHECK(opd_http_call_header(&call, "x-none") == NULL);
    opd_http_call_fini(&call);
    opd_buf_release(body);
    site_close(&s);
}

TEST(other_status_and_empty_body) {
    site s;
    site_open(&s);
    opd_http_call call = call_to(&s, "/nothing-here");
    send(&s, &call);
    loop_until(&s.done, 1);
    CHECK_INT(call.err, OPD_OK);
    CHECK_INT(call.status, 404);
    CHECK_INT(call.answer.size, 0);
    CHECK_STR(opd_http_call_header(&call, "retry-after"), "2");
    opd_http_call_fini(&call);
    site_close(&s);
}

/* More calls than the client may have on the wire and than the server takes at once. */
TEST(thousand_calls) {
    static opd_http_call calls[1000];
    site s;
    site_open_with(&s, (opd_http_server_options){.max_streams = 7},
                   (opd_http_client_options){.max_inflight = 200});
    opd_buf *body = pattern_create(3000, 2);
    for (int i = 0; i < 1000; i++) {
        calls[i] = call_to(&s, "/echo");
        calls[i].body = (opd_slice){body, 0, (size_t)i * 3};
        send(&s, &calls[i]);
    }
    CHECK_INT(opd_http_client_queued(s.client), 1000);
    loop_until(&s.done, 1000);
    for (int i = 0; i < 1000; i++) {
        CHECK_STR(calls[i].error, "");
        CHECK_INT(calls[i].answer.size, i * 3);
        opd_http_call_fini(&calls[i]);
    }
    CHECK_INT(opd_http_client_inflight(s.client), 0);
    opd_buf_release(body);
    site_close(&s);
}

/* 200 at once in the handler, answered later. */
TEST(two_hundred_at_once) {
    static opd_http_call calls[200];
    site s;
    site_open_with(&s, (opd_http_server_options){0}, (opd_http_client_options){.max_inflight = 200});
    for (int i = 0; i < 200; i++) {
        calls[i] = call_to(&s, "/hold");
        send(&s, &calls[i]);
    }
    loop_until(&s.held_count, 200);
    release_held(&s, "now");
    loop_until(&s.done, 200);
    for (int i = 0; i < 200; i++) {
        CHECK_STR(calls[i].answer.data, "now");
        opd_http_call_fini(&calls[i]);
    }
    CHECK_INT(s.cancelled, 0);
    site_close(&s);
}

TEST(deadline) {
    site s;
    site_open(&s);
    opd_http_call call = call_to(&s, "/hold"), attempt = call_to(&s, "/hold");
    call.deadline_ns = loop_in_ms(150);
    attempt.attempt_timeout_ms = 100;
    uint64_t begin = loop_in_ms(0);
    send(&s, &call);
    send(&s, &attempt);
    loop_until(&s.done, 2);
    CHECK(loop_in_ms(0) - begin >= 100u * 1000000);
    CHECK_INT(call.err, OPD_ERR_TIMEOUT);
    CHECK_CONTAINS(call.error, s.url);
    CHECK_CONTAINS(call.error, "deadline");
    CHECK(!call.retry_safe);
    CHECK_INT(attempt.err, OPD_ERR_TIMEOUT);
    CHECK_CONTAINS(attempt.error, "100 ms");
    loop_until(&s.cancelled, 2); /* RST_STREAM reached the server */
    opd_http_call_fini(&call);
    opd_http_call_fini(&attempt);
    site_close(&s);
}

/* The deadline also ends a call that waits for its turn. */
TEST(deadline_in_queue) {
    site s;
    site_open_with(&s, (opd_http_server_options){0}, (opd_http_client_options){.max_inflight = 1});
    opd_http_call first = call_to(&s, "/hold"), second = call_to(&s, "/hold");
    second.deadline_ns = loop_in_ms(100);
    send(&s, &first);
    send(&s, &second);
    loop_until(&s.done, 1);
    CHECK_INT(second.err, OPD_ERR_TIMEOUT);
    CHECK(second.retry_safe);
    CHECK_CONTAINS(second.error, "waited to be sent");
    release_held(&s, "x");
    loop_until(&s.done, 2);
    CHECK_INT(first.err, OPD_OK);
    opd_http_call_fini(&first);
    opd_http_call_fini(&second);
    site_close(&s);
}

TEST(cancel) {
    site s;
    site_open(&s);
    opd_http_call sent = call_to(&s, "/hold"), queued = call_to(&s, "/hold");
    send(&s, &sent);
    loop_until(&s.held_count, 1);
    send(&s, &queued);
    opd_http_client_cancel(&queued);
    opd_http_client_cancel(&sent);
    opd_http_client_cancel(&sent); /* again: nothing */
    CHECK_INT(s.done, 0);
    loop_until(&s.done, 2);
    CHECK_INT(sent.err, OPD_ERR_CANCELLED);
    CHECK(!sent.retry_safe);
    CHECK_INT(queued.err, OPD_ERR_CANCELLED);
    loop_until(&s.cancelled, 1);
    CHECK_INT(s.held_count, 1); /* the queued one never arrived */
    opd_http_call again = call_to(&s, "/echo"); /* the connection is fine */
    send(&s, &again);
    loop_until(&s.done, 3);
    CHECK_INT(again.err, OPD_OK);
    opd_http_call_fini(&sent);
    opd_http_call_fini(&queued);
    opd_http_call_fini(&again);
    site_close(&s);
}

TEST(queue_limit_and_bad_calls) {
    site s;
    site_open_with(&s, (opd_http_server_options){0},
                   (opd_http_client_options){.max_queue = 2, .max_inflight = 1});
    opd_http_call calls[3];
    for (int i = 0; i < 3; i++) calls[i] = call_to(&s, "/echo");
    send(&s, &calls[0]);
    send(&s, &calls[1]);
    CHECK_ERR(opd_http_client_send(s.client, &calls[2]), OPD_ERR_AGAIN);
    opd_http_call bad = call_to(&s, "no-slash");
    loop_until(&s.done, 2);
    CHECK_ERR(opd_http_client_send(s.client, &bad), OPD_ERR_INVALID);
    for (int i = 0; i < 2; i++) opd_http_call_fini(&calls[i]);
    site_close(&s);
}

TEST(answer_limit) {
    site s;
    site_open_with(&s, (opd_http_server_options){0},
                   (opd_http_client_options){.max_answer_bytes = 100000});
    opd_buf *body = pattern_create(200000, 1);
    opd_http_call big = call_to(&s, "/echo"), small = call_to(&s, "/echo");
    big.body = opd_slice_whole(body);
    small.body = (opd_slice){body, 0, 100000};
    send(&s, &big);
    send(&s, &small);
    loop_until(&s.done, 2);
    CHECK_INT(big.err, OPD_ERR_LIMIT);
    CHECK_CONTAINS(big.error, "max_answer_bytes (100000)");
    CHECK_INT(small.err, OPD_OK);
    CHECK_INT(small.answer.size, 100000);
    opd_http_call_fini(&big);
    opd_http_call_fini(&small);
    opd_buf_release(body);
    site_close(&s);
}

TEST(request_limit) {
    site s;
    site_open_with(&s, (opd_http_server_options){.max_body_bytes = 50000, .max_total_bytes = 60000},
                   (opd_http_client_options){0});
    opd_buf *body = pattern_create(4u << 20, 1);
    opd_http_call big = call_to(&s, "/echo"), fit = call_to(&s, "/echo");
    big.body = opd_slice_whole(body);
    fit.body = (opd_slice){body, 0, 50000};
    send(&s, &big);
    loop_until(&s.done, 1);
    CHECK_INT(big.status, 413);
    CHECK_CONTAINS(big.answer.data, "limit of 50000 bytes");
    send(&s, &fit);
    loop_until(&s.done, 2);
    CHECK_INT(fit.status, 200);
    CHECK_INT(fit.answer.size, 50000);
    opd_http_call_fini(&big);
    opd_http_call hold = call_to(&s, "/hold"), second = call_to(&s, "/echo");
    hold.body = second.body = (opd_slice){body, 0, 40000};
    send(&s, &hold);
    loop_until(&s.held_count, 1);
    send(&s, &second);
    loop_until(&s.done, 3);
    CHECK_INT(second.status, 503); /* 40,000 held + 40,000 > 60,000 */
    release_held(&s, "ok");
    loop_until(&s.done, 4);
    opd_http_call_fini(&fit);
    opd_http_call_fini(&hold);
    opd_http_call_fini(&second);
    opd_buf_release(body);
    site_close(&s);
}

/* ---- connections that fail ---- */

TEST(refused_connection) {
    site s;
    site_open(&s);
    uint16_t port = opd_http_server_port(s.server);
    loop_server_close(s.server, 0); /* nobody listens there now */
    s.server = NULL;
    opd_http_call call = call_to(&s, "/echo"), other = call_to(&s, "/echo");
    send(&s, &call);
    send(&s, &other);
    loop_until(&s.done, 2);
    CHECK_INT(call.err, OPD_ERR_REFUSED);
    CHECK(call.retry_safe && other.retry_safe);
    char part[32];
    snprintf(part, sizeof part, "127.0.0.1:%u", port);
    CHECK_CONTAINS(call.error, part);
    CHECK_CONTAINS(call.error, "connection refused");
    CHECK_CONTAINS(call.error, "is the server running there?");
    /* The server comes back on the same port: the next call reaches it after the back-off. */
    opd_http_server_options options = {.env = loop_env, .port = port};
    CHECK_OK(opd_http_server_create(&options, handler, &s, &s.server));
    opd_http_call_fini(&call);
    send(&s, &call);
    loop_until(&s.done, 3);
    CHECK_INT(call.err, OPD_OK);
    opd_http_call_fini(&call);
    opd_http_call_fini(&other);
    site_close(&s);
}

TEST(unknown_host) {
    site s;
    site_open_with(&s, (opd_http_server_options){0},
                   (opd_http_client_options){.url = "http://no-such-host.invalid:1"});
    opd_http_call call = call_to(&s, "/echo");
    send(&s, &call);
    loop_until(&s.done, 1);
    CHECK(call.err != OPD_OK);
    CHECK(call.retry_safe);
    CHECK_CONTAINS(call.error, "no-such-host.invalid");
    opd_http_call_fini(&call);
    site_close(&s);
}

/* A name that may resolve to ::1 first reaches a server on 127.0.0.1 only. */
TEST(localhost_by_name) {
    site s;
    site_open(&s);
    char url[64];
    snprintf(url, sizeof url, "http://localhost:%u", opd_http_server_port(s.server));
    opd_http_client_options options = {.env = loop_env, .url = url};
    opd_http_client *client;
    CHECK_OK(opd_http_client_create(&options, &client));
    opd_http_call call = call_to(&s, "/echo");
    CHECK_OK(opd_http_client_send(client, &call));
    loop_until(&s.done, 1);
    CHECK_STR(call.error, "");
    opd_http_call_fini(&call);
    loop_client_close(client);
    site_close(&s);
}

TEST(close_while_connecting) {
    site s;
    site_open(&s);
    opd_http_client_options options = {.env = loop_env, .url = "http://localhost:9"};
    opd_http_client *client;
    CHECK_OK(opd_http_client_create(&options, &client));
    opd_http_call call = call_to(&s, "/echo");
    CHECK_OK(opd_http_client_send(client, &call));
    loop_for_ms(1); /* the name is being looked up */
    loop_client_close(client);
    CHECK_INT(s.done, 1);
    CHECK(call.err == OPD_ERR_CLOSED || call.err == OPD_ERR_REFUSED);
    opd_http_call_fini(&call);
    site_close(&s);
}

static void check_peer(const char *answer, bool hang_up, opd_err err, const char *part) {
    site s;
    raw_server raw;
    char url[64];
    loop_init();
    memset(&s, 0, sizeof s);
    raw_server_open(&raw, answer, hang_up);
    snprintf(url, sizeof url, "http://127.0.0.1:%u", opd_tcp_listener_port(raw.listener));
    opd_http_client_options options = {.env = loop_env, .url = url, .settings_timeout_ms = 150};
    CHECK_OK(opd_http_client_create(&options, &s.client));
    opd_http_call call = call_to(&s, "/secret");
    send(&s, &call);
    loop_until(&s.done, 1);
    CHECK_INT(call.err, err);
    CHECK_CONTAINS(call.error, part);
    CHECK_CONTAINS(call.error, url);
    CHECK(call.retry_safe);
    opd_http_call_fini(&call);
    loop_client_close(s.client);
    raw_server_close(&raw);
    loop_fini();
}

TEST(peer_hangs_up) {
    check_peer(NULL, true, OPD_ERR_RESET, "neither HTTP/2 by prior knowledge nor HTTP/1.1");
}

TEST(peer_speaks_another_version_of_http) {
    check_peer("HTTP/3.9 200 OK\r\n\r\n", true, OPD_ERR_UNSUPPORTED, "another version of HTTP");
}

TEST(peer_is_silent) { check_peer(NULL, false, OPD_ERR_TIMEOUT, "no HTTP/2 connection in time"); }

TEST(peer_sends_garbage) {
    check_peer("\x01garbage garbage garbage", false, OPD_ERR_UNSUPPORTED, "another protocol");
}

/* The server goes down by force with calls in the handler and on the way. */
TEST(server_killed) {
    site s;
    site_open(&s);
    opd_http_call calls[20];
    for (int i = 0; i < 20; i++) {
        calls[i] = call_to(&s, "/hold");
        send(&s, &calls[i]);
    }
    loop_until(&s.held_count, 20);
    loop_server_close(s.server, 0);
    s.server = NULL;
    loop_until(&s.done, 20);
    CHECK_INT(s.cancelled, 20);
    for (int i = 0; i < 20; i++) {
        CHECK_INT(calls[i].err, OPD_ERR_RESET);
        CHECK(!calls[i].retry_safe);
        opd_http_call_fini(&calls[i]);
    }
    release_held(&s, "nobody hears this");
    site_close(&s);
}

/* A process that ends at once closes both and then its env: what is closing gets its turns there. */
TEST(what_is_closing_ends_with_the_env) {
    site s;
    int closed = 0;
    site_open(&s);
    opd_http_call call = call_to(&s, "/echo");
    send(&s, &call);
    loop_until(&s.done, 1);
    opd_http_call_fini(&call);
    opd_http_client_close(s.client, loop_count, &closed);
    opd_http_server_close(s.server, 0, loop_count, &closed);
    loop_fini();
    CHECK_INT(closed, 2);
}

/* In order: what runs is answered, what comes is refused as safe to retry. */
TEST(server_drains) {
    site s;
    site_open(&s);
    opd_http_call running = call_to(&s, "/hold");
    send(&s, &running);
    loop_until(&s.held_count, 1);
    int closed = 0;
    opd_http_server_close(s.server, 5000, loop_count, &closed);
    loop_for_ms(50);
    CHECK_INT(closed, 0);
    release_held(&s, "last words");
    loop_until(&s.done, 1);
    CHECK_INT(running.err, OPD_OK);
    CHECK_STR(running.answer.data, "last words");
    loop_until(&closed, 1);
    s.server = NULL;
    opd_http_call late = call_to(&s, "/echo");
    send(&s, &late);
    loop_until(&s.done, 2);
    CHECK_INT(late.err, OPD_ERR_REFUSED);
    CHECK(late.retry_safe);
    opd_http_call_fini(&running);
    opd_http_call_fini(&late);
    site_close(&s);
}

TEST(client_closed_midway) {
    site s;
    site_open(&s);
    opd_http_call call = call_to(&s, "/hold");
    send(&s, &call);
    loop_until(&s.held_count, 1);
    loop_client_close(s.client);
    s.client = NULL;
    CHECK_INT(s.done, 1);
    CHECK_INT(call.err, OPD_ERR_CLOSED);
    loop_until(&s.cancelled, 1);
    opd_http_call_fini(&call);
    site_close(&s);
}

/* ---- the server against odd clients ---- */

TEST(busy_port) {
    site s;
    site_open(&s);
    opd_http_server_options options = {.env = loop_env, .port = opd_http_server_port(s.server)};
    opd_http_server *second;
    char part[32];
    snprintf(part, sizeof part, "port %u", options.port);
    CHECK_ERR(opd_http_server_create(&options, handler, &s, &second), OPD_ERR_EXISTS);
    CHECK_CONTAINS(opd_err_context(), part);
    CHECK_CONTAINS(opd_err_context(), "0 for any free one");
    options.host = "not-an-address";
    CHECK_ERR(opd_http_server_create(&options, handler, &s, &second), OPD_ERR_INVALID);
    loop_for_ms(1); /* lets the failed listener's handle close */
    site_close(&s);
}

typedef struct raw_client {
    opd_tcp *tcp;
    const char *say;
    size_t say_size;
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
    opd_iobatch_stage(batch, raw->say, raw->say_size);
    raw->say_size = 0;
}
static void raw_end(void *arg, opd_err err) {
    (void)err;
    ((raw_client *)arg)->ended++;
}
static void raw_closed(void *arg) { ((raw_client *)arg)->closed++; }

static const opd_tcp_events raw_events = {raw_open, raw_bytes, raw_pull, raw_end, raw_closed};

/* Says `say` to the server and returns what it answered until it hung up; caller frees. */
static char *ask_raw(site *s, const char *say, size_t say_size) {
    raw_client raw = {.say = say, .say_size = say_size};
    opd_str_init(&raw.heard, NULL, 1 << 20);
    CHECK_OK(opd_tcp_connect(loop_env, NULL, "127.0.0.1", opd_http_server_port(s->server),
                             &raw_events, &raw, &raw.tcp));
    loop_until(&raw.ended, 1);
    opd_tcp_close(raw.tcp);
    loop_until(&raw.closed, 1);
    char *heard = calloc(1, raw.heard.size + 1);
    memcpy(heard, raw.heard.data, raw.heard.size);
    opd_str_fini(&raw.heard);
    return heard;
}

TEST(garbage_client) {
    site s;
    site_open_with(&s, (opd_http_server_options){.handshake_timeout_ms = 100},
                   (opd_http_client_options){0});
    char noise[4096];
    for (size_t i = 0; i < sizeof noise; i++) noise[i] = (char)(i * 7919 % 251);
    free(ask_raw(&s, noise, sizeof noise));
    memcpy(noise, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
    free(ask_raw(&s, noise, sizeof noise)); /* a preface, then nonsense */
    free(ask_raw(&s, noise, 10));           /* half a preface, then silence */
    opd_http_call call = call_to(&s, "/echo"); /* others are served on */
    send(&s, &call);
    loop_until(&s.done, 1);
    CHECK_INT(call.err, OPD_OK);
    opd_http_call_fini(&call);
    site_close(&s);
}

TEST(too_many_connections) {
    site s;
    site_open_with(&s, (opd_http_server_options){.max_connections = 1}, (opd_http_client_options){0});
    opd_http_call call = call_to(&s, "/echo");
    send(&s, &call);
    loop_until(&s.done, 1);
    char *answer = ask_raw(&s, "PRI", 3);
    CHECK_STR(answer, "");
    free(answer);
    opd_http_call_fini(&call);
    site_close(&s);
}
