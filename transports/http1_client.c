/* http1_client.c - the HTTP/1.1 half of the client: the probe and the pool (http_client_inside.h).
 *
 * One connection carries one call at a time; never two behind one another (pipelining), since one
 * slow answer would hold up the next and a loss would leave open what the server has done. A
 * connection is kept for the next call when both sides agree where the answer ended, and closed
 * when it was idle for http1_idle_ms: before the server closes it, as the two would race.
 *
 * The race can still be lost: a kept connection that ends without one byte in answer takes its call
 * back to the queue (opd__call_replay), and all other idle ones with it. Any other loss is the
 * call's: RESET.
 *
 * A connection's way: opening -> (probe) -> idle <-> busy -> closed. Thread: the loop. Events end in
 * opd__client_turn, which flushes and closes. Each connection frees itself in on_closed.
 */
#include <stdio.h>
#include <string.h>

#include "core/base/check.h"
#include "opd/log.h"
#include "transports/http1.h"
#include "transports/http_client_inside.h"

static const uint64_t never_ns = UINT64_MAX;
static const uint64_t ns_per_ms = 1000000;
static const char probe_path[] = "/model_info"; /* any path would do: a 404 is an answer, too */

typedef struct h1_conn {
    opd_http_client *client;
    opd_tcp *tcp;
    opd_list link;
    opd_h1_reader reader;
    opd_h1_writer writer;
    opd_http_call *call; /* NULL while opening, probing or idle */
    uint64_t until_ns;   /* limit of connecting, probing or idling; never while busy */
    bool open, probe;    /* probe: asks for the protocol; its answer goes nowhere */
    bool served;         /* has carried a whole answer: it is a kept connection */
    bool sent, heard;    /* bytes of the present call have left, of its answer have come */
    bool closing;
} h1_conn;

static uint64_t in_ms(const opd_http_client *client, uint64_t ms) {
    return opd_tcp_now_ns(client->o.env) + ms * ns_per_ms;
}

static bool is_idle(const h1_conn *conn) {
    return conn->open && !conn->probe && !conn->closing && conn->call == NULL;
}

static h1_conn *conn_of(opd_list *node) { return OPD_CONTAINER_OF(node, h1_conn, link); }

static void conn_limit(h1_conn *conn, uint64_t ms) {
    conn->until_ns = in_ms(conn->client, ms);
    opd__client_arm(conn->client, conn->until_ns);
}

/* ---- ends ---- */

static void conn_close(h1_conn *conn) {
    if (conn->closing) return;
    conn->closing = true;
    conn->client->h1_count--;
    if (conn->probe) conn->client->h1_probing = false;
    opd_tcp_close(conn->tcp);
}

static void close_idle(opd_http_client *client) {
    for (opd_list *node = client->h1_conns.next; node != &client->h1_conns; node = node->next)
        if (is_idle(conn_of(node))) conn_close(conn_of(node));
}

/* No call was on it: the endpoint as such does not work, unless other connections stand. */
static void conn_fail_idle(h1_conn *conn, opd_err err, const char *text) {
    opd_http_client *client = conn->client;
    bool harmless = is_idle(conn) || (conn->probe && client->http1); /* the server's right; learned */
    conn_close(conn);
    if (harmless) return;
    if (opd_tcp_now_ns(client->o.env) >= client->retry_at_ns) opd__client_back_off(client);
    if (conn->probe || client->h1_count == 0) opd__client_settle_queue(client, err, text);
}

/* Ends a connection and what it carries. */
static void conn_fail(h1_conn *conn, opd_err err, const char *text) {
    opd_http_client *client = conn->client;
    opd_http_call *call = conn->call;
    if (conn->closing) return;
    if (call == NULL) {
        conn_fail_idle(conn, err, text);
        return;
    }
    conn->call = NULL;
    call->pooled = NULL;
    conn_close(conn);
    if (err == OPD_ERR_RESET && conn->served && !conn->heard && opd__call_replay(call)) {
        close_idle(client);
        return;
    }
    if (!conn->heard || err == OPD_ERR_PROTO) client->http1_until_ns = 0; /* what does it speak now? */
    opd__client_settle(call, err, !conn->sent, text);
}

void opd__h1_drop(void *pooled) {
    h1_conn *conn = pooled;
    conn->call = NULL;
    conn_close(conn);
}

/* ---- answers ---- */

/* The answer is whole. The connection is kept if the server agrees and nothing is left over. */
static void conn_done(h1_conn *conn, bool clean) {
    opd_http_client *client = conn->client;
    opd_http_call *call = conn->call;
    bool keep = clean && conn->reader.keep_alive && opd_h1_writer_empty(&conn->writer) &&
                opd_tcp_stalled_ns(conn->tcp) == 0;
    client->backoff_ms = 0;
    if (!keep) conn_close(conn);
    conn->call = NULL;
    conn->served = true;
    conn->probe = false;
    if (keep) {
        opd_list_remove(&conn->link);
        opd_list_push_front(&client->h1_conns, &conn->link);
        conn_limit(conn, client->o.http1_idle_ms);
    }
    if (call == NULL) return;
    call->pooled = NULL;
    opd__client_settle(call, opd_str_status(&call->head), false, "no memory for the answer's headers");
}

static void learned(opd_http_client *client) {
    client->http1 = !opd__h2_settled(client); /* which may have come up meanwhile */
    client->h1_probing = false;
    client->http1_until_ns = in_ms(client, client->o.http1_ttl_ms);
}

/* One event of the answer; false: no more of them. */
static bool take_event(h1_conn *conn, const opd_h1_event *event, size_t left_bytes) {
    opd_http_call *call = conn->call;
    if (event->kind == OPD_H1_HEAD && conn->probe) learned(conn->client);
    if (event->kind == OPD_H1_START && call != NULL) call->status = conn->reader.status;
    if (event->kind == OPD_H1_HEADER && call != NULL) opd__call_header(call, event->name, event->value);
    if (event->kind == OPD_H1_BODY && call != NULL) opd__call_body(call, event->data, event->size_bytes);
    if (event->kind == OPD_H1_END) conn_done(conn, left_bytes == 0);
    return event->kind != OPD_H1_MORE && event->kind != OPD_H1_END && !conn->closing;
}

static void conn_receive(h1_conn *conn, const uint8_t *bytes, size_t size_bytes) {
    opd_h1_event event;
    char text[300];
    if (is_idle(conn)) { /* words that nobody asked for */
        conn_close(conn);
        return;
    }
    conn->heard = true;
    do {
        opd_err err = opd_h1_read(&conn->reader, &bytes, &size_bytes, &event);
        if (err != OPD_OK) {
            snprintf(text, sizeof text, "broken answer: %.200s", opd_err_context());
            conn_fail(conn, err, text);
            return;
        }
    } while (take_event(conn, &event, size_bytes));
}

/* ---- events of a stream ---- */

/* The server has come to speak HTTP/2 (ALPN): the pool is not for it. */
static void conn_outgrown(h1_conn *conn) {
    conn->client->http1 = false;
    opd__client_back_off(conn->client); /* should it change its mind each time */
    conn_close(conn);
}

static void on_open(void *arg, opd_err err) {
    h1_conn *conn = arg;
    opd_http_client *client = conn->client;
    char text[300];
    if (err != OPD_OK) {
        err = opd__client_open_error(err, text, sizeof text);
        conn_fail(conn, err, text);
    } else if (client->tls != NULL && opd_tls_tcp_alpn(conn->tcp) == OPD_TLS_ALPN_H2) {
        conn_outgrown(conn);
    } else {
        conn->open = true;
        client->connections++;
        conn_limit(conn, conn->probe ? client->o.settings_timeout_ms : client->o.http1_idle_ms);
    }
    opd__client_turn(client);
}

static void on_bytes(void *arg, const uint8_t *bytes, size_t size_bytes) {
    h1_conn *conn = arg;
    if (conn->closing) return;
    conn->client->in_turn = true;
    conn_receive(conn, bytes, size_bytes);
    opd__client_turn(conn->client);
}

static void on_pull(void *arg, opd_iobatch *batch) {
    h1_conn *conn = arg;
    if (!conn->open || opd_h1_writer_empty(&conn->writer)) return;
    if (!conn->sent && conn->call != NULL) opd__call_sent(conn->call);
    conn->sent = true;
    opd_h1_writer_pull(&conn->writer, batch);
}

static void on_end(void *arg, opd_err err) {
    h1_conn *conn = arg;
    char text[300];
    conn->client->in_turn = true;
    if (conn->probe)
        snprintf(text, sizeof text, "the server speaks neither HTTP/2 by prior knowledge nor HTTP/1.1: "
                 "it closed the connection without an answer to either; is it up, and without TLS?");
    else
        snprintf(text, sizeof text, "connection lost before the whole answer: %.200s", opd_err_context());
    if (!is_idle(conn) && err == OPD_ERR_CLOSED && conn->heard && opd_h1_read_end(&conn->reader) == OPD_OK)
        conn_done(conn, false);
    else
        conn_fail(conn, OPD_ERR_RESET, text);
    conn_close(conn);
    opd__client_turn(conn->client);
}

static void on_closed(void *arg) {
    h1_conn *conn = arg;
    opd_http_client *client = conn->client;
    opd_list_remove(&conn->link);
    opd_h1_reader_fini(&conn->reader);
    opd_h1_writer_fini(&conn->writer);
    opd_mem_free(client->o.alloc, conn);
    opd__client_again(client);
}

static const opd_tcp_events tcp_events = {on_open, on_bytes, on_pull, on_end, on_closed};

/* ---- starting ---- */

/* Starts a connection; NULL: it could not, and what waits was told. */
static h1_conn *conn_dial(opd_http_client *client) {
    h1_conn *conn = opd_mem_get(client->o.alloc, sizeof *conn);
    opd_err err = conn == NULL ? opd_fail(OPD_ERR_NOMEM, "no memory for a connection") : OPD_OK;
    if (err == OPD_OK) {
        conn->client = client;
        opd_h1_reader_init(&conn->reader, client->o.alloc, false, OPD__HEAD_BYTES_MAX);
        opd_h1_writer_init(&conn->writer, client->o.alloc, OPD__HEAD_BYTES_MAX);
        err = opd__client_connect(client, &tcp_events, conn, &conn->tcp);
    }
    if (err != OPD_OK) {
        opd_mem_free(client->o.alloc, conn);
        opd__client_back_off(client);
        if (client->h1_count == 0) opd__client_settle_queue(client, err, opd_err_context());
        return NULL;
    }
    opd_list_push_back(&client->h1_conns, &conn->link);
    client->h1_count++;
    conn_limit(conn, client->o.connect_timeout_ms);
    return conn;
}

void opd__h1_probe(opd_http_client *client, const char *why) {
    static const opd_http_header header = {"accept", "*/*"};
    h1_conn *conn = conn_dial(client);
    if (conn == NULL) return;
    conn->probe = true;
    client->h1_probing = true;
    OPD_LOG_DEBUG("%s speaks no HTTP/2 (%s): asking it over HTTP/1.1", client->url.authority, why);
    opd_err err = opd_h1_write_request(&conn->writer, "GET", client->url.authority, client->url.path,
                                       probe_path, &header, 1, (opd_slice){0});
    if (err != OPD_OK) conn_fail(conn, err, opd_err_context());
}

static void start_call(h1_conn *conn, opd_http_call *call) {
    opd_http_client *client = conn->client;
    const char *method = opd__call_method(call);
    opd_h1_reader_next(&conn->reader, strcmp(method, "HEAD") == 0);
    opd_err err = opd_h1_write_request(&conn->writer, method, client->url.authority, client->url.path,
                                       call->path, call->headers, call->header_count, call->body);
    if (err != OPD_OK) {
        opd__client_settle(call, err, true, opd_err_context());
        return;
    }
    opd__call_to_wire(call);
    call->pooled = conn;
    conn->call = call;
    conn->sent = conn->heard = false;
    conn->until_ns = never_ns;
}

/* The idle connection that worked last, so that the others can retire. */
static h1_conn *find_idle(opd_http_client *client) {
    for (opd_list *node = client->h1_conns.next; node != &client->h1_conns; node = node->next)
        if (is_idle(conn_of(node))) return conn_of(node);
    return NULL;
}

static uint32_t count_opening(opd_http_client *client) {
    uint32_t count = 0;
    for (opd_list *node = client->h1_conns.next; node != &client->h1_conns; node = node->next)
        if (!conn_of(node)->open && !conn_of(node)->closing) count++;
    return count;
}

void opd__h1_fill(opd_http_client *client) {
    uint64_t now_ns = opd_tcp_now_ns(client->o.env);
    for (h1_conn *conn; client->inflight < client->o.max_inflight && !opd_list_empty(&client->queue) &&
                        (conn = find_idle(client)) != NULL;) {
        if (now_ns >= conn->until_ns) conn_close(conn); /* the timer is late */
        else start_call(conn, OPD_CONTAINER_OF(client->queue.next, opd_http_call, link));
    }
    if (client->queued == 0) return;
    if (now_ns < client->retry_at_ns) {
        opd__client_arm(client, client->retry_at_ns);
        return;
    }
    uint32_t room = client->o.max_inflight - client->inflight;
    uint32_t wanted = client->queued < room ? client->queued : room;
    for (uint32_t opening = count_opening(client);
         opening < wanted && client->h1_count < client->o.http1_connections; opening++)
        if (conn_dial(client) == NULL) return;
}

/* ---- turns of the client ---- */

void opd__h1_flush(opd_http_client *client) {
    for (opd_list *node = client->h1_conns.next; node != &client->h1_conns; node = node->next) {
        h1_conn *conn = conn_of(node);
        if (conn->closing) continue;
        if (client->closing || (is_idle(conn) && !client->http1)) conn_close(conn);
        else if (conn->open && !opd_h1_writer_empty(&conn->writer)) opd_tcp_flush(conn->tcp);
    }
}

void opd__h1_expire(opd_http_client *client, uint64_t now_ns) {
    for (opd_list *node = client->h1_conns.next; node != &client->h1_conns; node = node->next) {
        h1_conn *conn = conn_of(node);
        if (conn->closing) continue;
        if (now_ns < conn->until_ns) opd__client_arm(client, conn->until_ns);
        else if (conn->probe && conn->open)
            conn_fail(conn, OPD_ERR_TIMEOUT, "the server speaks no HTTP/2 by prior knowledge, and over "
                      "HTTP/1.1 it did not answer in time");
        else
            conn_fail(conn, OPD_ERR_TIMEOUT, "no connection in time; is the address right?");
    }
}
