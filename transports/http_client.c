/* http_client.c - the client half of http.h: queue, deadlines, HTTP/2 connections, and the choice of
 * the protocol (http_client_inside.h). HTTP/1.1 connections are http1_client.c.
 *
 * A call's way: send -> QUEUED -> (turn) WIRE -> DONE -> done(). Whatever ends a call - answer,
 * reset, deadline, cancel, loss, close - goes through settle(), which moves it to client->done;
 * deliver() hands those out. All work happens in turn(), which the timer or a connection event
 * starts; functions the user calls only change lists and arm the timer. So `done` is never
 * called from inside them, and many sends of one loop turn leave in one write.
 *
 * A connection's way: dial -> tcp open -> SETTINGS (settled: usable, `active`) -> draining after
 * GOAWAY, while its streams finish -> closed. One connection is active at a time; calls wait in
 * our queue, never inside nghttp2, so that their deadlines and cancels stay cheap.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/check.h"
#include "opd/log.h"
#include "transports/http.h"
#include "transports/http2.h"
#include "transports/http_client_inside.h"
#include "transports/http_head.h"

static const uint64_t never_ns = UINT64_MAX;
static const uint64_t ns_per_ms = 1000000;

typedef struct client_conn {
    opd_http_client *client;
    opd_tcp *tcp;
    opd_h2 *h2;
    opd_list link;
    uint64_t ready_by_ns; /* connect deadline, then SETTINGS deadline, then never */
    bool served;          /* at least one whole answer came over it */
    bool leaving;         /* the server sent GOAWAY, and not for our fault */
    bool broken;          /* the session cannot go on (no memory) */
    bool closing;
} client_conn;

static void arm(opd_http_client *client, uint64_t at_ns) {
    if (at_ns == 0 || at_ns >= client->timer_at_ns || client->finishing) return;
    client->timer_at_ns = at_ns;
    opd_tcp_timer_set(client->timer, at_ns);
}

static uint64_t now_of(const opd_http_client *client) { return opd_tcp_now_ns(client->o.env); }

static void wake(opd_http_client *client) {
    if (!client->in_turn) arm(client, now_of(client));
}

/* ---- calls ---- */

/* Ends a call in whatever state it is: takes it off its list and its stream. */
static void settle(opd_http_call *call, opd_err err, bool retry_safe, const char *text) {
    opd_http_client *client = call->client;
    if (call->state == OPD__CALL_DONE) return;
    if (call->state == OPD__CALL_QUEUED) client->queued--;
    if (call->state == OPD__CALL_WIRE) {
        client->inflight--;
        client->receiving_bytes -= call->answer.size;
    }
    if (call->stream != NULL) opd_h2_reset(call->stream, OPD_H2_CODE_CANCEL);
    if (call->pooled != NULL) opd__h1_drop(call->pooled);
    call->stream = call->pooled = NULL;
    call->conn = NULL;
    call->state = OPD__CALL_DONE;
    call->err = err;
    call->retry_safe = retry_safe;
    if (err != OPD_OK)
        snprintf(call->error, sizeof call->error, "%s://%s%.64s%.64s: %.300s",
                 opd_url_scheme(&client->url), client->url.authority, client->url.path, call->path, text);
    opd_list_remove(&call->link);
    opd_list_push_back(&client->done, &call->link);
    wake(client);
}

static void deliver(opd_http_client *client) {
    for (opd_list *node; (node = opd_list_pop_front(&client->done)) != NULL;) {
        opd_http_call *call = OPD_CONTAINER_OF(node, opd_http_call, link);
        call->state = OPD__CALL_IDLE;
        call->done(call); /* the call may be gone from here on */
    }
}

static void settle_queue(opd_http_client *client, opd_err err, const char *text) {
    for (opd_list *node; (node = opd_list_first(&client->queue)) != NULL;)
        settle(OPD_CONTAINER_OF(node, opd_http_call, link), err, true, text);
}

/* ---- events of a stream (user is the call) ---- */

static void on_header(void *arg, void *user, const char *name, const char *value) {
    (void)arg;
    opd__call_header(user, name, value);
}

static void on_body(void *arg, void *user, const uint8_t *bytes, size_t size_bytes) {
    (void)arg;
    opd_h2_consume(((opd_http_call *)user)->stream, size_bytes);
    opd__call_body(user, bytes, size_bytes);
}

static void on_sent(void *arg, void *user) {
    (void)arg;
    opd__call_sent(user);
}

static void on_close(void *arg, void *user, const opd_h2_end *end) {
    client_conn *conn = arg;
    opd_http_call *call = user;
    char text[256];
    /* It was on its way as the server took its leave; another connection takes it, and nobody need know. */
    if (conn->leaving && end->retry_safe && opd__call_replay(call)) return;
    call->stream = NULL;
    if (end->err == OPD_OK) {
        conn->served = true;
        conn->client->backoff_ms = 0;
        settle(call, opd_str_status(&call->head), false, "no memory for the answer's headers");
        return;
    }
    const char *what = end->err == OPD_ERR_REMOTE  ? "the server reset the request"
                       : end->err == OPD_ERR_RESET ? "connection lost before the whole answer"
                                                   : "broken answer";
    snprintf(text, sizeof text, "%s: %s", what, end->text);
    settle(call, end->err, end->retry_safe, text);
}

/* ---- connections ---- */

static void back_off(opd_http_client *client) {
    uint64_t next_ms = client->backoff_ms * 2;
    if (next_ms < client->o.backoff_min_ms) next_ms = client->o.backoff_min_ms;
    if (next_ms > client->o.backoff_max_ms) next_ms = client->o.backoff_max_ms;
    client->backoff_ms = next_ms;
    client->retry_at_ns = now_of(client) + next_ms * ns_per_ms;
}

static void on_goaway(void *arg, bool calm) {
    client_conn *conn = arg;
    opd_http_client *client = conn->client;
    conn->leaving = !calm;
    if (client->active != conn) return;
    client->active = NULL; /* its streams finish; new calls get a new connection */
    /* A server that turns us away before it served anything would do so again at once. */
    if (calm || !conn->served) back_off(client);
}

static const opd_h2_events h2_events = {.on_header = on_header, .on_body = on_body,
                                        .on_sent = on_sent, .on_close = on_close,
                                        .on_goaway = on_goaway};

static void conn_close(client_conn *conn) {
    if (conn->closing) return;
    conn->closing = true;
    if (conn->client->active == conn) conn->client->active = NULL;
    opd_h2_destroy(conn->h2); /* settles what is on it */
    conn->h2 = NULL;
    opd_tcp_close(conn->tcp);
}

/* HTTP/2 was tried again beside the pool, in vain. */
static void still_http1(opd_http_client *client) {
    client->http1_until_ns = now_of(client) + client->o.http1_ttl_ms * ns_per_ms;
}

/* Closes a connection for cause. Before SETTINGS nothing was sent over it: the endpoint as such
 * does not work, which the waiting calls should hear now, not at their deadline. */
static void conn_fail(client_conn *conn, opd_err err, const char *text) {
    opd_http_client *client = conn->client;
    bool usable = opd_h2_settled(conn->h2);
    bool draining = client->active != conn;
    conn_close(conn);
    if (draining) return;
    if (client->http1) {
        still_http1(client);
        return;
    }
    back_off(client);
    if (!usable) settle_queue(client, err, text);
}

/* The peer answered our preface in another way, before it was sent any call. */
static void conn_fall_back(client_conn *conn, const char *why) {
    opd_http_client *client = conn->client;
    conn_close(conn);
    if (client->http1) still_http1(client);
    else opd__h1_probe(client, why);
}

static void turn(opd_http_client *client);

/* Over TLS the handshake tells; a server without ALPN is one of HTTP/1.1 (RFC 9113, 3.2). */
static bool is_h2(const client_conn *conn) {
    return conn->client->tls == NULL || opd_tls_tcp_alpn(conn->tcp) == OPD_TLS_ALPN_H2;
}

opd_err opd__client_open_error(opd_err err, char *text, size_t text_size) {
    bool there = err == OPD_ERR_UNTRUSTED || err == OPD_ERR_REMOTE || err == OPD_ERR_PROTO ||
                 err == OPD_ERR_UNSUPPORTED; /* it answered, but like this it will not do */
    snprintf(text, text_size, "%.260s%s", opd_err_context(), there ? "" : "; is the server running there?");
    return there || err == OPD_ERR_NOT_FOUND ? err : OPD_ERR_REFUSED;
}

static void on_tcp_open(void *arg, opd_err err) {
    client_conn *conn = arg;
    if (err == OPD_OK && !is_h2(conn)) {
        conn_fall_back(conn, "it offers only HTTP/1.1 over TLS (ALPN)");
        turn(conn->client);
        return;
    }
    if (err == OPD_OK) {
        conn->ready_by_ns = now_of(conn->client) + conn->client->o.settings_timeout_ms * ns_per_ms;
        arm(conn->client, conn->ready_by_ns);
        opd_tcp_flush(conn->tcp);
        return;
    }
    char text[300];
    err = opd__client_open_error(err, text, sizeof text);
    conn_fail(conn, err, text);
    turn(conn->client);
}

static void on_tcp_bytes(void *arg, const uint8_t *bytes, size_t size_bytes) {
    client_conn *conn = arg;
    opd_http_client *client = conn->client;
    char text[300];
    if (conn->closing) return;
    client->in_turn = true;
    opd_err err = opd_h2_receive(conn->h2, bytes, size_bytes);
    if (opd_h2_settled(conn->h2)) {
        conn->ready_by_ns = never_ns;
        if (client->active == conn) client->http1 = false;
    }
    if (err == OPD_ERR_UNSUPPORTED && size_bytes > 0 && (bytes[0] == 'H' || bytes[0] == '<')) {
        /* '<': a page of HTML without a head, as Python's http.server has it for HTTP/2's preface */
        conn_fall_back(conn, "it answered in HTTP/1");
    } else if (err == OPD_ERR_UNSUPPORTED) {
        conn_fail(conn, err, "the server answered in another protocol, neither HTTP/2 by prior "
                  "knowledge nor HTTP/1.1; is it an HTTP port, and without TLS?");
    } else if (err != OPD_OK) {
        snprintf(text, sizeof text, "%.200s", opd_err_context());
        opd_tcp_flush(conn->tcp); /* let the peer know why, if it can still be written */
        if (!conn->closing) conn_fail(conn, err, text);
    }
    turn(client);
}

static void on_tcp_pull(void *arg, opd_iobatch *batch) {
    client_conn *conn = arg;
    if (conn->h2 == NULL || opd_h2_pull(conn->h2, batch) == OPD_OK) return;
    conn->broken = true;
    wake(conn->client);
}

static void on_tcp_end(void *arg, opd_err err) {
    client_conn *conn = arg;
    char text[300];
    snprintf(text, sizeof text, "%.200s", opd_err_context());
    if (err == OPD_ERR_CLOSED && !opd_h2_settled(conn->h2))
        conn_fall_back(conn, "it closed the connection without an answer");
    else
        conn_fail(conn, OPD_ERR_RESET, text);
    turn(conn->client);
}

static void on_tcp_closed(void *arg) {
    client_conn *conn = arg;
    opd_http_client *client = conn->client;
    opd_list_remove(&conn->link);
    opd_mem_free(client->o.alloc, conn);
    wake(client);
}

static const opd_tcp_events tcp_events = {on_tcp_open, on_tcp_bytes, on_tcp_pull, on_tcp_end,
                                          on_tcp_closed};

opd_err opd__client_connect(opd_http_client *client, const opd_tcp_events *events, void *arg,
                            opd_tcp **out_tcp) {
    return opd_tls_connect(client->tls, client->o.env, client->o.alloc, client->url.host,
                           client->url.port, events, arg, out_tcp);
}

static opd_err conn_open(opd_http_client *client, client_conn *conn) {
    opd_h2_options options = {.alloc = client->o.alloc,
                              .stream_window_bytes = client->o.stream_window_bytes,
                              .connection_window_bytes = client->o.connection_window_bytes,
                              .max_header_bytes = OPD__HEAD_BYTES_MAX};
    OPD_TRY(opd_h2_create(&options, &h2_events, conn, &conn->h2));
    return opd__client_connect(client, &tcp_events, conn, &conn->tcp);
}

static void dial(opd_http_client *client) {
    client_conn *conn = opd_mem_get(client->o.alloc, sizeof *conn);
    opd_err err = conn == NULL ? opd_fail(OPD_ERR_NOMEM, "no memory for a connection") : OPD_OK;
    if (err == OPD_OK) {
        conn->client = client;
        err = conn_open(client, conn);
    }
    if (err != OPD_OK) {
        if (conn != NULL) opd_h2_destroy(conn->h2);
        opd_mem_free(client->o.alloc, conn);
        if (client->http1) {
            still_http1(client);
            return;
        }
        back_off(client);
        settle_queue(client, err, opd_err_context());
        return;
    }
    conn->ready_by_ns = now_of(client) + client->o.connect_timeout_ms * ns_per_ms;
    arm(client, conn->ready_by_ns);
    opd_list_push_back(&client->conns, &conn->link);
    client->active = conn;
}

/* ---- the turn ---- */

static void start_call(opd_http_client *client, opd_http_call *call) {
    opd_h2_request request = {
        .method = opd__call_method(call), .authority = client->url.authority,
        .scheme = opd_url_scheme(&client->url), .path_prefix = client->url.path, .path = call->path,
        .headers = call->headers, .header_count = call->header_count, .body = call->body};
    opd_h2_stream *stream = NULL;
    opd_err err = opd_h2_request_send(client->active->h2, &request, call, &stream);
    if (err != OPD_OK) {
        settle(call, err, true, opd_err_context());
        return;
    }
    opd__call_to_wire(call);
    call->stream = stream;
    call->conn = client->active;
}

/* Over HTTP/1.1; when that knowledge is old, HTTP/2 is tried beside it. */
static void fill_http1(opd_http_client *client) {
    if (opd_list_empty(&client->queue)) return;
    if (client->active == NULL && now_of(client) >= client->http1_until_ns) dial(client);
    opd__h1_fill(client);
}

/* Puts waiting calls on the wire, as far as we and the peer allow. */
static void fill(opd_http_client *client) {
    client_conn *conn = client->active;
    if (client->closing || client->h1_probing) return;
    if (client->http1) {
        fill_http1(client);
        return;
    }
    if (conn == NULL) {
        if (opd_list_empty(&client->queue)) return;
        if (now_of(client) >= client->retry_at_ns) dial(client);
        else arm(client, client->retry_at_ns);
        return;
    }
    if (!opd_h2_settled(conn->h2)) return;
    if (!opd_h2_ready(conn->h2)) {
        client->active = NULL; /* stream ids used up */
        wake(client);
        return;
    }
    while (!opd_list_empty(&client->queue) && client->inflight < client->o.max_inflight &&
           opd_h2_stream_count(conn->h2) < opd_h2_peer_max_streams(conn->h2))
        start_call(client, OPD_CONTAINER_OF(client->queue.next, opd_http_call, link));
}

/* Writes what waits, and closes connections that have served their time. */
static void flush_conns(opd_http_client *client) {
    for (opd_list *node = client->conns.next, *next; node != &client->conns; node = next) {
        client_conn *conn = OPD_CONTAINER_OF(node, client_conn, link);
        next = node->next;
        if (conn->closing) continue;
        opd_tcp_flush(conn->tcp);
        bool idle = conn != client->active && opd_h2_stream_count(conn->h2) == 0;
        if (client->closing || idle) conn_close(conn);
        else if (conn->broken) conn_fail(conn, OPD_ERR_NOMEM, opd_err_context());
        else if (opd_h2_finished(conn->h2)) conn_fail(conn, OPD_ERR_PROTO, "protocol error");
    }
    opd__h1_flush(client);
}

static void on_timer_closed(void *arg) {
    opd_http_client *client = arg;
    void (*closed)(void *) = client->closed;
    void *closed_arg = client->closed_arg;
    opd_tls_context_destroy(client->tls);
    opd_mem_free(client->o.alloc, client);
    closed(closed_arg);
}

static void turn(opd_http_client *client) {
    client->in_turn = true;
    deliver(client);
    fill(client);
    flush_conns(client);
    client->in_turn = false;
    bool waiting = client->active == NULL && !client->http1 && !client->h1_probing &&
                   !opd_list_empty(&client->queue);
    if (!opd_list_empty(&client->done)) wake(client);
    else if (waiting && !client->closing) arm(client, client->retry_at_ns + 1);
    if (!client->closing || client->finishing || !opd_list_empty(&client->done) ||
        !opd_list_empty(&client->conns) || !opd_list_empty(&client->h1_conns))
        return;
    client->finishing = true;
    opd_tcp_timer_close(client->timer, on_timer_closed, client);
}

/* ---- for http1_client.c ---- */

void opd__client_turn(opd_http_client *client) { turn(client); }
void opd__client_arm(opd_http_client *client, uint64_t at_ns) { arm(client, at_ns); }
void opd__client_back_off(opd_http_client *client) { back_off(client); }
void opd__client_settle(opd_http_call *call, opd_err err, bool retry_safe, const char *text) {
    settle(call, err, retry_safe, text);
}
void opd__client_settle_queue(opd_http_client *client, opd_err err, const char *text) {
    settle_queue(client, err, text);
}

/* ---- deadlines ---- */

static void expire_conns(opd_http_client *client, uint64_t now_ns) {
    for (opd_list *node = client->conns.next, *next; node != &client->conns; node = next) {
        client_conn *conn = OPD_CONTAINER_OF(node, client_conn, link);
        next = node->next;
        if (conn->closing) continue;
        if (now_ns >= conn->ready_by_ns)
            conn_fail(conn, OPD_ERR_TIMEOUT, "no HTTP/2 connection in time; is the address right, "
                      "and does the server speak HTTP/2 by prior knowledge?");
        else
            arm(client, conn->ready_by_ns);
    }
}

static void on_timer(void *arg) {
    opd_http_client *client = arg;
    uint64_t now_ns = now_of(client);
    client->timer_at_ns = never_ns;
    client->in_turn = true;
    opd__calls_expire(&client->queue, now_ns);
    opd__calls_expire(&client->wire, now_ns);
    expire_conns(client, now_ns);
    opd__h1_expire(client, now_ns);
    turn(client);
}

/* ---- the API ---- */

static uint64_t or_default(uint64_t value, uint64_t fallback) { return value ? value : fallback; }

static void options_complete(opd_http_client_options *o) {
    o->max_inflight = (uint32_t)or_default(o->max_inflight, 128);
    o->max_queue = (uint32_t)or_default(o->max_queue, 4096);
    o->max_answer_bytes = or_default(o->max_answer_bytes, 256u << 20);
    o->max_total_bytes = or_default(o->max_total_bytes, 1u << 30);
    o->stream_window_bytes = (uint32_t)or_default(o->stream_window_bytes, 16u << 20);
    o->connection_window_bytes = (uint32_t)or_default(o->connection_window_bytes, 256u << 20);
    o->connect_timeout_ms = or_default(o->connect_timeout_ms, 5000);
    o->settings_timeout_ms = or_default(o->settings_timeout_ms, 10000);
    o->backoff_min_ms = or_default(o->backoff_min_ms, 50);
    o->backoff_max_ms = or_default(o->backoff_max_ms, 2000);
    o->http1_connections = (uint32_t)or_default(o->http1_connections, 64);
    o->http1_idle_ms = or_default(o->http1_idle_ms, 3500);
    o->http1_ttl_ms = or_default(o->http1_ttl_ms, 60000);
}

static opd_err tls_open(opd_http_client *client) {
    static const opd_tls_options trusting_the_system;
    const opd_tls_options *tls = client->o.tls != NULL ? client->o.tls : &trusting_the_system;
    client->o.tls = NULL; /* not ours to keep */
    if (!client->url.secure) return OPD_OK;
    if (tls->unverified)
        OPD_LOG_WARN("https://%s: the server's certificate is not verified: anyone on the way can read "
                     "and change what it answers", client->url.authority);
    return opd_tls_context_create(client->o.alloc, false, tls, &client->tls);
}

opd_err opd_http_client_create(const opd_http_client_options *options,
                               opd_http_client **out_client) {
    opd_url url;
    OPD_TRY(opd_url_parse(options->url, &url));
    opd_http_client *client = opd_mem_get(options->alloc, sizeof *client);
    if (client == NULL) return opd_fail(OPD_ERR_NOMEM, "no memory for a client of %s", options->url);
    client->o = *options;
    client->o.url = NULL;
    client->url = url;
    options_complete(&client->o);
    opd_list_init(&client->queue);
    opd_list_init(&client->wire);
    opd_list_init(&client->done);
    opd_list_init(&client->conns);
    opd_list_init(&client->h1_conns);
    client->timer_at_ns = never_ns;
    opd_err err = tls_open(client);
    if (err == OPD_OK)
        err = opd_tcp_timer_create(options->env, options->alloc, on_timer, client, &client->timer);
    if (err != OPD_OK) {
        opd_tls_context_destroy(client->tls);
        opd_mem_free(options->alloc, client);
        return err;
    }
    *out_client = client;
    return OPD_OK;
}

opd_err opd_http_client_send(opd_http_client *client, opd_http_call *call) {
    if (client->closing)
        return opd_fail(OPD_ERR_CLOSED, "the client of %s is closing", client->url.authority);
    if (call->path == NULL || call->path[0] != '/' || call->done == NULL)
        return opd_fail(OPD_ERR_INVALID, "a call to %s needs a path that starts with / and a done "
                        "callback", client->url.authority);
    if (client->queued >= client->o.max_queue)
        return opd_fail(OPD_ERR_AGAIN, "%u calls to %s are waiting already", client->queued,
                        client->url.authority);
    OPD_ASSERT(call->state == OPD__CALL_IDLE);
    opd_http_call_fini(call);
    opd_str_init(&call->answer, client->o.alloc, client->o.max_answer_bytes);
    opd_str_init(&call->head, client->o.alloc, OPD__HEAD_BYTES_MAX * 2);
    call->client = client;
    call->attempt_deadline_ns = 0;
    call->replays = 0;
    call->state = OPD__CALL_QUEUED;
    opd_list_init(&call->link);
    opd_list_push_back(&client->queue, &call->link);
    client->queued++;
    arm(client, call->deadline_ns);
    wake(client);
    return OPD_OK;
}

void opd_http_client_cancel(opd_http_call *call) {
    if (call->state == OPD__CALL_QUEUED || call->state == OPD__CALL_WIRE)
        settle(call, OPD_ERR_CANCELLED, call->state == OPD__CALL_QUEUED, "cancelled by the caller");
}

void opd_http_client_close(opd_http_client *client, void (*closed)(void *arg), void *arg) {
    OPD_ASSERT(!client->closing && closed != NULL);
    client->closing = true;
    client->closed = closed;
    client->closed_arg = arg;
    settle_queue(client, OPD_ERR_CLOSED, "the client was closed");
    for (opd_list *node; (node = opd_list_first(&client->wire)) != NULL;)
        settle(OPD_CONTAINER_OF(node, opd_http_call, link), OPD_ERR_CLOSED, false,
               "the client was closed");
    wake(client);
}

uint32_t opd_http_client_queued(const opd_http_client *client) { return client->queued; }
uint32_t opd_http_client_inflight(const opd_http_client *client) { return client->inflight; }
const char *opd_http_client_authority(const opd_http_client *client) { return client->url.authority; }

uint64_t opd_http_client_replays(const opd_http_client *client) { return client->replays; }

opd_http_protocol opd_http_client_protocol(const opd_http_client *client) {
    if (client->http1) return OPD_HTTP_PROTOCOL_HTTP1;
    bool settled = client->active != NULL && opd_h2_settled(client->active->h2);
    return settled ? OPD_HTTP_PROTOCOL_HTTP2 : OPD_HTTP_PROTOCOL_UNKNOWN;
}
