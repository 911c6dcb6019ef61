/* http_server.c - the server half of http.h: connections, exchanges, refusals, draining.
 *
 * An exchange's way: a stream begins -> bytes collect -> complete -> server->ready -> handler
 * -> opd_http_respond (frees it). Before the handler has it, a lost stream simply frees it; once
 * handed out it lives until respond, and the loss is told through on_cancel.
 * Refused early (413, 408, 503): answered and freed at once, the rest of the body is dropped.
 *
 * Handlers and cancel callbacks run from turn(), outside nghttp2. Answers given elsewhere mark
 * the connection and wake the timer, so that many of them leave in one write. While there are
 * connections the timer also ticks, for all coarse timeouts at once.
 *
 * A connection's way: accepted -> first bytes (HTTP/2's preface or else HTTP/1.1; only then we
 * speak) -> serving -> finishing (FIN sent, reading on briefly so that the peer
 * gets our last bytes) -> closed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/check.h"
#include "opd/log.h"
#include "transports/http_head.h"
#include "transports/http_server_inside.h"
#include "transports/tls_tcp.h"

enum { HEAD_BYTES_MAX = 32 * 1024, HEADERS_OUT_MAX = 16 };
static const uint64_t ns_per_ms = 1000000;
static const uint64_t tick_ns = 250 * 1000000;
static const uint64_t linger_ns = 1000 * 1000000;

static uint64_t now_of(const opd_http_server *server) { return opd_tcp_now_ns(server->o.env); }

static void arm(opd_http_server *server, uint64_t at_ns) {
    if (at_ns >= server->timer_at_ns || server->finishing) return;
    server->timer_at_ns = at_ns;
    opd_tcp_timer_set(server->timer, at_ns);
}

void opd__http_server_wake(opd_http_server *server) {
    if (!server->in_turn) arm(server, now_of(server));
}

/* ---- exchanges ---- */

void opd__http_exchange_destroy(opd_http_exchange *exchange) {
    if (exchange->stream != NULL) opd_h2_detach(exchange->stream);
    if (exchange->h1 != NULL) opd_h1_session_detach(exchange->h1);
    if (exchange->server != NULL) exchange->server->receiving_bytes -= exchange->body.size;
    opd_list_remove(&exchange->link);
    opd_list_remove(&exchange->event_link);
    opd_str_fini(&exchange->head);
    opd_str_fini(&exchange->body);
    opd_mem_free(exchange->alloc, exchange);
}

static void *on_request(void *arg, opd_h2_stream *stream) {
    server_conn *conn = arg;
    opd_http_server *server = conn->server;
    if (server->closing) return NULL;
    opd_http_exchange *exchange = opd_mem_get(server->o.alloc, sizeof *exchange);
    if (exchange == NULL) return NULL;
    exchange->server = server;
    exchange->conn = conn;
    exchange->stream = stream;
    exchange->h1 = conn->h1;
    if (conn->h1 != NULL) conn->close_at_ns = UINT64_MAX; /* the handshake is over */
    exchange->alloc = server->o.alloc;
    exchange->started_ns = conn->busy_at_ns = now_of(server);
    opd_str_init(&exchange->head, server->o.alloc, HEAD_BYTES_MAX * 2);
    opd_str_init(&exchange->body, server->o.alloc, server->o.max_body_bytes);
    opd_list_init(&exchange->event_link);
    opd_list_init(&exchange->link);
    opd_list_push_back(&conn->exchanges, &exchange->link);
    return exchange;
}

/* Answers before the handler saw anything; the exchange is gone afterwards. */
static void refuse(opd_http_exchange *exchange, int status, const char *text) {
    opd_http_respond_text(exchange, status, "text/plain; charset=utf-8", text);
}

static void refuse_too_large(opd_http_exchange *exchange) {
    char text[128];
    snprintf(text, sizeof text, "the request body exceeds this server's limit of %zu bytes\n",
             exchange->server->o.max_body_bytes);
    refuse(exchange, 413, text);
}

static void on_header(void *arg, void *user, const char *name, const char *value) {
    (void)arg;
    opd_http_exchange *exchange = user;
    opd__http_head_add(&exchange->head, name, value);
    if (strcmp(name, "content-length") == 0 &&
        strtoull(value, NULL, 10) > exchange->server->o.max_body_bytes)
        refuse_too_large(exchange);
}

static void on_body(void *arg, void *user, const uint8_t *bytes, size_t size_bytes) {
    (void)arg;
    opd_http_exchange *exchange = user;
    opd_http_server *server = exchange->server;
    opd_h2_stream *stream = exchange->stream;
    const opd_h1_session *h1 = exchange->h1;
    if (stream != NULL) opd_h2_consume(stream, size_bytes);
    if (!exchange->begun && server->o.early != NULL) {
        exchange->begun = true;
        server->o.early(server->arg, exchange);
        bool answered = h1 != NULL ? !opd_h1_session_attached(h1) : !opd_h2_attached(stream);
        if (answered) return;
    }
    if (size_bytes > server->o.max_total_bytes - server->receiving_bytes) {
        refuse(exchange, 503, "the server holds too many request bytes; try again later\n");
        return;
    }
    size_t before = exchange->body.size;
    opd_str_append(&exchange->body, bytes, size_bytes);
    server->receiving_bytes += exchange->body.size - before;
    opd_err err = opd_str_status(&exchange->body);
    if (err == OPD_ERR_LIMIT) refuse_too_large(exchange);
    else if (err != OPD_OK) refuse(exchange, 503, "the server is out of memory\n");
}

static void on_complete(void *arg, void *user) {
    opd_http_exchange *exchange = user;
    server_conn *conn = arg;
    exchange->complete = true;
    if (opd_str_status(&exchange->head) != OPD_OK) {
        refuse(exchange, 503, "the server is out of memory\n");
        return;
    }
    opd_list_push_back(&conn->server->ready, &exchange->event_link);
}

static void on_stream_close(void *arg, void *user, const opd_h2_end *end) {
    (void)end;
    server_conn *conn = arg;
    opd_http_exchange *exchange = user;
    exchange->stream = NULL;
    exchange->h1 = NULL;
    if (!exchange->handed) {
        opd__http_exchange_destroy(exchange);
        return;
    }
    exchange->cancelled = true;
    opd_list_push_back(&conn->server->cancelled, &exchange->event_link);
    opd__http_server_wake(conn->server);
}

static const opd_h2_events h2_events = {.on_request = on_request, .on_header = on_header,
                                        .on_body = on_body, .on_complete = on_complete,
                                        .on_close = on_stream_close};

/* ---- connections ---- */

static void conn_close(server_conn *conn) {
    if (conn->closing) return;
    conn->closing = true;
    opd_h2_destroy(conn->h2); /* ends its streams */
    conn->h2 = NULL;
    opd_h1_session_destroy(conn->h1);
    conn->h1 = NULL;
    opd_tcp_close(conn->tcp);
}

/* Lets the last bytes go out, then FIN; the peer's FIN or the linger time closes. */
static void conn_finish(server_conn *conn) {
    if (conn->finishing || conn->closing) return;
    conn->finishing = true;
    conn->close_at_ns = now_of(conn->server) + linger_ns;
    opd_tcp_finish(conn->tcp);
}

static void turn(opd_http_server *server);

/* Gives bytes to the protocol they are of; the first ones tell which. */
static opd_err conn_receive(server_conn *conn, const uint8_t *bytes, size_t size_bytes) {
    size_t before = conn->preface_bytes;
    if (conn->h1 == NULL && conn->server->o.http1_only && opd_h1_is_preface(&conn->preface_bytes, bytes, size_bytes)) {
        conn->broken = opd_h1_preface_whole(conn->preface_bytes);
        return OPD_OK;
    }
    conn->preface_bytes = before;
    if (conn->h1 == NULL && !opd_h1_is_preface(&conn->preface_bytes, bytes, size_bytes)) {
        OPD_TRY(opd_h1_session_create(conn->server->o.alloc, HEAD_BYTES_MAX, &h2_events, conn, before,
                                      &conn->h1));
        opd_h2_destroy(conn->h2);
        conn->h2 = NULL;
        if (conn->server->draining) opd_h1_session_last(conn->h1);
    }
    if (conn->h1 == NULL) return opd_h2_receive(conn->h2, bytes, size_bytes);
    opd_h1_session_receive(conn->h1, bytes, size_bytes);
    return OPD_OK;
}

static void on_tcp_bytes(void *arg, const uint8_t *bytes, size_t size_bytes) {
    server_conn *conn = arg;
    opd_http_server *server = conn->server;
    if (conn->finishing || conn->closing) return; /* read and dropped: the peer sees our last word */
    server->in_turn = true;
    opd_err err = conn_receive(conn, bytes, size_bytes);
    if (conn->h2 != NULL && opd_h2_settled(conn->h2)) conn->close_at_ns = UINT64_MAX;
    if (err != OPD_OK) {
        OPD_LOG_DEBUG("port %u: a connection was refused: %s", (unsigned)server->port,
                      opd_err_context());
        conn_finish(conn);
    }
    turn(server);
}

static void on_tcp_pull(void *arg, opd_iobatch *batch) {
    server_conn *conn = arg;
    if (conn->h1 != NULL) {
        opd_h1_session_pull(conn->h1, batch);
        bool news = opd_h1_session_finished(conn->h1) || !opd_list_empty(&conn->server->ready);
        if (news) opd__http_server_wake(conn->server);
        return;
    }
    if (conn->h2 == NULL || !opd_h2_greeted(conn->h2)) return;
    if (opd_h2_pull(conn->h2, batch) == OPD_OK) return;
    conn->broken = true;
    opd__http_server_wake(conn->server);
}

static void on_tcp_end(void *arg, opd_err err) {
    (void)err;
    server_conn *conn = arg;
    conn_close(conn);
    turn(conn->server);
}

static void on_tcp_closed(void *arg) {
    server_conn *conn = arg;
    opd_http_server *server = conn->server;
    for (opd_list *node; (node = opd_list_pop_front(&conn->exchanges)) != NULL;) {
        opd_http_exchange *exchange = OPD_CONTAINER_OF(node, opd_http_exchange, link);
        server->receiving_bytes -= exchange->body.size;
        exchange->conn = NULL;
        exchange->server = NULL;
    }
    opd_list_remove(&conn->link);
    server->conn_count--;
    opd_mem_free(server->o.alloc, conn);
    opd__http_server_wake(server);
}

static const opd_tcp_events tcp_events = {NULL, on_tcp_bytes, on_tcp_pull, on_tcp_end,
                                          on_tcp_closed};

static opd_err conn_create(opd_http_server *server, server_conn **out_conn) {
    opd_h2_options options = {.alloc = server->o.alloc, .server = true,
                              .max_streams = server->o.max_streams,
                              .stream_window_bytes = server->o.stream_window_bytes,
                              .connection_window_bytes = server->o.connection_window_bytes,
                              .max_header_bytes = HEAD_BYTES_MAX};
    server_conn *conn = opd_mem_get(server->o.alloc, sizeof *conn);
    if (conn == NULL) return opd_fail(OPD_ERR_NOMEM, "no memory for a connection");
    opd_err err = opd_h2_create(&options, &h2_events, conn, &conn->h2);
    if (err != OPD_OK) {
        opd_mem_free(server->o.alloc, conn);
        return err;
    }
    *out_conn = conn;
    return OPD_OK;
}

static void on_accepted(void *arg, opd_tcp *tcp) {
    opd_http_server *server = arg;
    server_conn *conn = NULL;
    bool full = server->conn_count >= server->o.max_connections;
    if (full || server->draining || server->closing || opd_tls_accept(server->tls, server->o.alloc, &tcp) != OPD_OK ||
        conn_create(server, &conn) != OPD_OK) {
        OPD_LOG_WARN("port %u: a connection was refused: %s", (unsigned)server->port,
                     full ? "max_connections reached" : opd_err_context());
        opd_tcp_close(tcp);
        return;
    }
    conn->server = server;
    conn->tcp = tcp;
    conn->busy_at_ns = now_of(server);
    conn->close_at_ns = now_of(server) + server->o.handshake_timeout_ms * ns_per_ms;
    opd_list_init(&conn->exchanges);
    opd_list_push_back(&server->conns, &conn->link);
    server->conn_count++;
    opd_tcp_start(tcp, &tcp_events, conn);
    arm(server, now_of(server) + tick_ns);
}

/* ---- the turn ---- */

static void tell_user(opd_http_server *server) {
    for (opd_list *node; (node = opd_list_pop_front(&server->ready)) != NULL;) {
        opd_http_exchange *exchange = OPD_CONTAINER_OF(node, opd_http_exchange, event_link);
        exchange->handed = true;
        server->handler(server->arg, exchange); /* may be gone from here on */
    }
    for (opd_list *node; (node = opd_list_pop_front(&server->cancelled)) != NULL;) {
        opd_http_exchange *exchange = OPD_CONTAINER_OF(node, opd_http_exchange, event_link);
        if (exchange->on_cancel != NULL) exchange->on_cancel(exchange->cancel_arg, exchange);
    }
}

static bool conn_finished(const server_conn *conn) {
    return conn->h1 != NULL ? opd_h1_session_finished(conn->h1) : opd_h2_finished(conn->h2);
}

static void flush_conns(opd_http_server *server) {
    for (opd_list *node = server->conns.next, *next; node != &server->conns; node = next) {
        server_conn *conn = OPD_CONTAINER_OF(node, server_conn, link);
        next = node->next;
        if (conn->closing) continue;
        opd_tcp_flush(conn->tcp);
        if (conn->broken) conn_close(conn);
        else if (conn_finished(conn)) conn_finish(conn);
    }
}

static void on_timer_closed(void *arg) {
    opd_http_server *server = arg;
    void (*closed)(void *) = server->closed;
    void *closed_arg = server->closed_arg;
    OPD_ASSERT(server->receiving_bytes == 0 && server->answering_bytes == 0 && server->conn_count == 0);
    opd_tls_context_destroy(server->tls);
    opd_mem_free(server->o.alloc, server);
    closed(closed_arg);
}

static void turn(opd_http_server *server) {
    server->in_turn = true;
    tell_user(server);
    flush_conns(server);
    server->in_turn = false;
    if (!opd_list_empty(&server->ready) || !opd_list_empty(&server->cancelled)) opd__http_server_wake(server);
    if (!server->closing || !server->listener_closed || server->finishing ||
        !opd_list_empty(&server->conns) || !opd_list_empty(&server->cancelled))
        return;
    server->finishing = true;
    opd_tcp_timer_close(server->timer, on_timer_closed, server);
}

/* ---- coarse timeouts ---- */

static void expire_requests(server_conn *conn, uint64_t now_ns) {
    uint64_t limit_ns = conn->server->o.request_timeout_ms * ns_per_ms;
    for (opd_list *node = conn->exchanges.next, *next; node != &conn->exchanges; node = next) {
        opd_http_exchange *exchange = OPD_CONTAINER_OF(node, opd_http_exchange, link);
        next = node->next;
        if (!exchange->complete && now_ns - exchange->started_ns >= limit_ns)
            refuse(exchange, 408, "the request did not arrive in time\n");
    }
}

static bool conn_idle(server_conn *conn, uint64_t now_ns) {
    const opd_http_server_options *o = &conn->server->o;
    bool never = o->idle_timeout_ms == 0 && conn->h1 != NULL; /* that is for HTTP/2 alone */
    uint64_t limit_ns = (never ? o->http1_idle_ms : o->idle_timeout_ms) * ns_per_ms;
    bool busy = conn->h1 != NULL ? !opd_h1_session_idle(conn->h1) : opd_h2_stream_count(conn->h2) > 0;
    if (busy) conn->busy_at_ns = now_ns;
    return limit_ns > 0 && now_ns - conn->busy_at_ns >= limit_ns;
}

static void expire(opd_http_server *server, uint64_t now_ns) {
    bool drained = server->closing && now_ns >= server->drain_until_ns;
    for (opd_list *node = server->conns.next, *next; node != &server->conns; node = next) {
        server_conn *conn = OPD_CONTAINER_OF(node, server_conn, link);
        next = node->next;
        if (conn->closing) continue;
        expire_requests(conn, now_ns);
        if (conn_idle(conn, now_ns)) conn->close_at_ns = now_ns;
        bool stuck = opd_tcp_stalled_ns(conn->tcp) >= server->o.request_timeout_ms * ns_per_ms;
        if (drained || stuck || now_ns >= conn->close_at_ns) conn_close(conn);
    }
}

static void on_timer(void *arg) {
    opd_http_server *server = arg;
    uint64_t now_ns = now_of(server);
    server->timer_at_ns = UINT64_MAX;
    server->in_turn = true;
    expire(server, now_ns);
    turn(server);
    if (server->conn_count > 0) arm(server, now_ns + tick_ns);
}

/* ---- the API ---- */

static uint64_t or_default(uint64_t value, uint64_t fallback) { return value ? value : fallback; }

static void options_complete(opd_http_server_options *o) {
    if (o->host == NULL) o->host = "127.0.0.1";
    o->max_connections = (uint32_t)or_default(o->max_connections, 256);
    o->max_streams = (uint32_t)or_default(o->max_streams, 200);
    o->max_body_bytes = or_default(o->max_body_bytes, 64u << 20);
    o->max_total_bytes = or_default(o->max_total_bytes, 1u << 30);
    o->max_answers_bytes = or_default(o->max_answers_bytes, 1u << 30);
    o->stream_window_bytes = (uint32_t)or_default(o->stream_window_bytes, 1u << 20);
    o->connection_window_bytes = (uint32_t)or_default(o->connection_window_bytes, 16u << 20);
    o->handshake_timeout_ms = or_default(o->handshake_timeout_ms, 10000);
    o->request_timeout_ms = or_default(o->request_timeout_ms, 60000);
    o->http1_idle_ms = or_default(o->http1_idle_ms, o->http1_only ? 5000 : 60000);
}

opd_err opd_http_server_create(const opd_http_server_options *options, opd_http_handler handler,
                               void *arg, opd_http_server **out_server) {
    OPD_ASSERT(handler != NULL);
    opd_http_server *server = opd_mem_get(options->alloc, sizeof *server);
    if (server == NULL) return opd_fail(OPD_ERR_NOMEM, "no memory for a server");
    server->o = *options;
    options_complete(&server->o);
    server->handler = handler;
    server->arg = arg;
    opd_list_init(&server->conns);
    opd_list_init(&server->ready);
    opd_list_init(&server->cancelled);
    server->timer_at_ns = UINT64_MAX;
    opd_err err = OPD_OK;
    if (options->tls != NULL)
        err = opd_tls_context_create(options->alloc, true, options->tls, &server->tls);
    if (err == OPD_OK)
        err = opd_tcp_listen(options->env, options->alloc, server->o.host, options->port,
                             on_accepted, server, &server->listener);
    if (err == OPD_OK) {
        err = opd_tcp_timer_create(options->env, options->alloc, on_timer, server, &server->timer);
        if (err != OPD_OK) opd_tcp_listener_close(server->listener, NULL, NULL);
    }
    if (err != OPD_OK) {
        opd_tls_context_destroy(server->tls);
        opd_mem_free(options->alloc, server);
        return err;
    }
    server->port = opd_tcp_listener_port(server->listener);
    server->o.host = NULL; /* not ours to keep */
    server->o.tls = NULL;
    *out_server = server;
    return OPD_OK;
}

uint16_t opd_http_server_port(const opd_http_server *server) { return server->port; }

static void on_listener_closed(void *arg) {
    opd_http_server *server = arg;
    server->listener_closed = true;
    opd__http_server_wake(server);
}

void opd_http_server_drain(opd_http_server *server) {
    OPD_ASSERT(!server->closing && !server->draining);
    server->draining = true;
    opd_tcp_listener_close(server->listener, on_listener_closed, server);
    for (opd_list *node = server->conns.next; node != &server->conns; node = node->next) {
        server_conn *conn = OPD_CONTAINER_OF(node, server_conn, link);
        if (conn->closing) continue;
        if (conn->h1 != NULL) opd_h1_session_last(conn->h1);
        else if (opd_h2_greeted(conn->h2)) opd_h2_notice(conn->h2);
    }
    opd__http_server_wake(server);
}

void opd_http_server_close(opd_http_server *server, uint64_t drain_ms, void (*closed)(void *arg),
                           void *arg) {
    OPD_ASSERT(!server->closing && closed != NULL);
    server->closing = true;
    server->closed = closed;
    server->closed_arg = arg;
    server->drain_until_ns = now_of(server) + drain_ms * ns_per_ms;
    if (!server->draining) opd_tcp_listener_close(server->listener, on_listener_closed, server);
    for (opd_list *node = server->conns.next; node != &server->conns; node = node->next) {
        server_conn *conn = OPD_CONTAINER_OF(node, server_conn, link);
        if (conn->closing) continue;
        if (conn->h1 != NULL) opd_h1_session_drain(conn->h1);
        else if (opd_h2_greeted(conn->h2)) opd_h2_goaway(conn->h2);
        else conn->close_at_ns = 0; /* it never said a word */
    }
    opd__http_server_wake(server);
}
