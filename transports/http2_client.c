/* http2_client.c - the HTTP/2 half of the client: its connections (http_client_inside.h).
 *
 * A connection's way: dial -> tcp open -> SETTINGS (settled: takes calls) -> draining after GOAWAY, or
 * when it has carried connection_calls_max, while its streams finish -> closed.
 *
 * How many: one until a server is known to speak HTTP/2 there, then as many as there are calls, up to
 * `connections`. One that drains or is lost is replaced while the others go on. A call goes to the
 * connection with the fewest streams, each of which holds at most the smaller of its peer's limit and
 * ours: calls wait in our queue, never inside nghttp2, so that deadlines and cancels stay cheap.
 *
 * Resets: a settled call's stream is let go, its bytes are dropped, and it is reset as far as
 * RESETS_BURST and RESETS_PER_S allow; servers take a flood of resets for an attack and hang up (hyper
 * beyond 20 of streams it has not looked at, nghttp2 beyond 33 a second). Until then it keeps its slot,
 * as it does at the server.
 *
 * PING: only where streams are open and nothing was heard for ping_after_ms; it finds connections that
 * are gone without a word during long answers. Whatever arrives shows that the peer is alive.
 *
 * Thread: the loop. Events end in opd__client_turn, which flushes and closes. A connection frees itself
 * in on_tcp_closed.
 */
#include <stdio.h>
#include <string.h>

#include "core/base/check.h"
#include "transports/http2.h"
#include "transports/http_client_inside.h"

enum { RESETS_BURST = 16, RESETS_PER_S = 30 };
static const uint64_t SHARE_WAIT_NS = 250 * 1000000; /* RFC 8305 has as much patience with an address */
static const uint64_t never_ns = UINT64_MAX;
static const uint64_t ns_per_ms = 1000000;
static const uint64_t reset_ns = UINT64_C(1000000000) / RESETS_PER_S;

typedef struct h2_conn {
    opd_http_client *client;
    opd_tcp *tcp;
    opd_h2 *h2;
    opd_list link;
    uint64_t dialed_ns;
    uint64_t ready_by_ns;     /* connect deadline, then SETTINGS deadline, then never */
    uint64_t quiet_since_ns;  /* last word from there, or the first stream after none */
    uint64_t ping_ns;         /* when a PING left that nothing has come after; 0: none */
    uint64_t resets_until_ns; /* each reset moves it on by reset_ns: how much of the burst is used */
    uint32_t calls;           /* carried, of connection_calls_max */
    bool served;              /* at least one whole answer came over it */
    bool leaving;             /* the server sent GOAWAY, and not for our fault */
    bool broken;              /* the session cannot go on (no memory) */
    bool draining;            /* takes no more calls */
    bool closing;
} h2_conn;

static h2_conn *conn_of(opd_list *node) { return OPD_CONTAINER_OF(node, h2_conn, link); }

static uint64_t now_of(const opd_http_client *client) { return opd_tcp_now_ns(client->o.env); }

static bool is_live(const h2_conn *conn) { return !conn->closing && !conn->draining; }

bool opd__h2_settled(const opd_http_client *client) {
    for (opd_list *node = client->conns.next; node != &client->conns; node = node->next)
        if (is_live(conn_of(node)) && opd_h2_settled(conn_of(node)->h2)) return true;
    return false;
}

static uint32_t count_live(const opd_http_client *client) {
    uint32_t count = 0;
    for (opd_list *node = client->conns.next; node != &client->conns; node = node->next)
        count += is_live(conn_of(node));
    return count;
}

bool opd__h2_any(const opd_http_client *client) { return count_live(client) > 0; }

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
    h2_conn *conn = arg;
    opd_http_call *call = user;
    char text[256];
    /* It was on its way as the server took its leave; another connection takes it, and nobody need know. */
    if (conn->leaving && end->retry_safe && opd__call_replay(call)) return;
    call->stream = NULL;
    if (end->err == OPD_OK) {
        conn->served = true;
        conn->client->backoff_ms = 0;
        opd__client_settle(call, opd_str_status(&call->head), false,
                           "no memory for the answer's headers");
        return;
    }
    const char *what = end->err == OPD_ERR_REMOTE  ? "the server reset the request"
                       : end->err == OPD_ERR_RESET ? "connection lost before the whole answer"
                                                   : "broken answer";
    snprintf(text, sizeof text, "%s: %s", what, end->text);
    opd__client_settle(call, end->err, end->retry_safe, text);
}

static void on_goaway(void *arg, bool calm) {
    h2_conn *conn = arg;
    conn->leaving = !calm;
    if (conn->draining) return;
    conn->draining = true; /* its streams finish; new calls get another connection */
    /* A server that turns us away before it served anything would do so again at once. */
    if (calm || !conn->served) opd__client_back_off(conn->client);
}

static const opd_h2_events h2_events = {.on_header = on_header, .on_body = on_body,
                                        .on_sent = on_sent, .on_close = on_close,
                                        .on_goaway = on_goaway};

/* ---- ends ---- */

static void conn_close(h2_conn *conn) {
    if (conn->closing) return;
    conn->closing = true;
    opd_h2_destroy(conn->h2); /* settles what is on it */
    conn->h2 = NULL;
    opd_tcp_close(conn->tcp);
}

/* HTTP/2 was tried again beside the pool, in vain. */
static void still_http1(opd_http_client *client) {
    client->http1_until_ns = now_of(client) + client->o.http1_ttl_ms * ns_per_ms;
}

/* Closes a connection for cause. Before SETTINGS nothing was sent over it: if it was the only one, the
 * endpoint as such does not work, which the waiting calls should hear now, not at their deadline. */
static void conn_fail(h2_conn *conn, opd_err err, const char *text) {
    opd_http_client *client = conn->client;
    bool usable = opd_h2_settled(conn->h2);
    conn_close(conn);
    if (conn->draining) return;
    if (client->http1) {
        still_http1(client);
        return;
    }
    opd__client_back_off(client);
    if (!usable && count_live(client) == 0) opd__client_settle_queue(client, err, text);
}

/* The peer answered our preface in another way, before it was sent any call. */
static void conn_fall_back(h2_conn *conn, const char *why) {
    opd_http_client *client = conn->client;
    conn_close(conn);
    if (client->http1) still_http1(client);
    else if (count_live(client) > 0) opd__client_back_off(client); /* it has enough of us */
    else opd__h1_probe(client, why);
}

/* ---- resets and silence ---- */

void opd__h2_drop(opd_http_call *call) {
    opd_h2_detach(call->stream);
    call->stream = NULL;
}

/* Resets streams that nobody waits for, as far as the peer's patience is guessed to go. */
static void reset_dropped(h2_conn *conn) {
    if (opd_h2_detached_count(conn->h2) == 0) return;
    uint64_t now_ns = now_of(conn->client);
    if (conn->resets_until_ns < now_ns) conn->resets_until_ns = now_ns;
    while (opd_h2_detached_count(conn->h2) > 0) {
        uint64_t used_ns = conn->resets_until_ns - now_ns;
        if (used_ns > (RESETS_BURST - 1) * reset_ns) {
            opd__client_arm(conn->client, now_ns + used_ns - (RESETS_BURST - 1) * reset_ns);
            return;
        }
        opd_h2_reset_detached(conn->h2);
        conn->resets_until_ns += reset_ns;
    }
}

/* Asks a silent peer whether it is there, and gives up one that does not say so. */
static void check_silence(h2_conn *conn, uint64_t now_ns) {
    opd_http_client *client = conn->client;
    char text[128];
    if (opd_h2_stream_count(conn->h2) == 0) return;
    uint64_t due_ns = conn->ping_ns > 0 ? conn->ping_ns + client->o.ping_timeout_ms * ns_per_ms
                                        : conn->quiet_since_ns + client->o.ping_after_ms * ns_per_ms;
    if (now_ns < due_ns) {
        opd__client_arm(client, due_ns);
    } else if (conn->ping_ns > 0) {
        snprintf(text, sizeof text, "the server fell silent: no answer to a PING within %llu ms",
                 (unsigned long long)client->o.ping_timeout_ms);
        opd_h2_blame(conn->h2, text);
        conn_fail(conn, OPD_ERR_RESET, text);
    } else {
        opd_h2_ping(conn->h2);
        conn->ping_ns = now_ns;
        opd__client_arm(client, now_ns + client->o.ping_timeout_ms * ns_per_ms);
    }
}

/* ---- events of a connection ---- */

/* Over TLS the handshake tells; a server without ALPN is one of HTTP/1.1 (RFC 9113, 3.2). */
static bool is_h2(const h2_conn *conn) {
    return conn->client->tls == NULL || opd_tls_tcp_alpn(conn->tcp) == OPD_TLS_ALPN_H2;
}

static void on_tcp_open(void *arg, opd_err err) {
    h2_conn *conn = arg;
    opd_http_client *client = conn->client;
    char text[300];
    if (err == OPD_OK && is_h2(conn)) {
        conn->ready_by_ns = now_of(client) + client->o.settings_timeout_ms * ns_per_ms;
        opd__client_arm(client, conn->ready_by_ns);
        opd_tcp_flush(conn->tcp);
        return;
    }
    client->in_turn = true;
    if (err == OPD_OK) {
        conn_fall_back(conn, "it offers only HTTP/1.1 over TLS (ALPN)");
    } else {
        err = opd__client_open_error(err, text, sizeof text);
        conn_fail(conn, err, text);
    }
    opd__client_turn(client);
}

static void receive_failed(h2_conn *conn, opd_err err, bool http1) {
    char text[300];
    if (err == OPD_ERR_UNSUPPORTED && http1) {
        conn_fall_back(conn, "it answered in HTTP/1");
    } else if (err == OPD_ERR_UNSUPPORTED) {
        conn_fail(conn, err, "the server answered in another protocol, neither HTTP/2 by prior "
                  "knowledge nor HTTP/1.1; is it an HTTP port, and without TLS?");
    } else {
        snprintf(text, sizeof text, "%.200s", opd_err_context());
        opd_tcp_flush(conn->tcp); /* let the peer know why, if it can still be written */
        if (!conn->closing) conn_fail(conn, err, text);
    }
}

static void on_tcp_bytes(void *arg, const uint8_t *bytes, size_t size_bytes) {
    h2_conn *conn = arg;
    opd_http_client *client = conn->client;
    if (conn->closing) return;
    client->in_turn = true;
    conn->quiet_since_ns = now_of(client);
    conn->ping_ns = 0;
    bool was_settled = opd_h2_settled(conn->h2);
    opd_err err = opd_h2_receive(conn->h2, bytes, size_bytes);
    if (opd_h2_settled(conn->h2)) {
        client->connections += !was_settled;
        conn->ready_by_ns = never_ns;
        if (!conn->draining) client->http1 = false;
    }
    /* '<': a page of HTML without a head, as Python's http.server has it for HTTP/2's preface */
    if (err != OPD_OK)
        receive_failed(conn, err, size_bytes > 0 && (bytes[0] == 'H' || bytes[0] == '<'));
    opd__client_turn(client);
}

static void on_tcp_pull(void *arg, opd_iobatch *batch) {
    h2_conn *conn = arg;
    if (conn->h2 == NULL) return;
    uint32_t before = opd_h2_stream_count(conn->h2);
    if (opd_h2_pull(conn->h2, batch) != OPD_OK) conn->broken = true;
    /* A reset that left has made room for a call. */
    if (conn->broken || opd_h2_stream_count(conn->h2) < before) opd__client_again(conn->client);
}

static void on_tcp_end(void *arg, opd_err err) {
    h2_conn *conn = arg;
    opd_http_client *client = conn->client;
    char text[300];
    snprintf(text, sizeof text, "%.200s", opd_err_context());
    client->in_turn = true;
    if (err == OPD_ERR_CLOSED && !opd_h2_settled(conn->h2))
        conn_fall_back(conn, "it closed the connection without an answer");
    else
        conn_fail(conn, OPD_ERR_RESET, text);
    opd__client_turn(client);
}

static void on_tcp_closed(void *arg) {
    h2_conn *conn = arg;
    opd_http_client *client = conn->client;
    opd_list_remove(&conn->link);
    opd_mem_free(client->o.alloc, conn);
    opd__client_again(client);
}

static const opd_tcp_events tcp_events = {on_tcp_open, on_tcp_bytes, on_tcp_pull, on_tcp_end,
                                          on_tcp_closed};

/* ---- starting ---- */

static opd_err conn_open(opd_http_client *client, h2_conn *conn) {
    opd_h2_options options = {.alloc = client->o.alloc,
                              .stream_window_bytes = client->o.stream_window_bytes,
                              .connection_window_bytes = client->o.connection_window_bytes,
                              .max_header_bytes = OPD__HEAD_BYTES_MAX};
    OPD_TRY(opd_h2_create(&options, &h2_events, conn, &conn->h2));
    return opd__client_connect(client, &tcp_events, conn, &conn->tcp);
}

/* A turn when calls wait for it no longer, and one when it is given up. */
static void await_ready(const h2_conn *conn, uint64_t now_ns) {
    opd__client_arm(conn->client, conn->ready_by_ns);
    if (now_ns < conn->dialed_ns + SHARE_WAIT_NS)
        opd__client_arm(conn->client, conn->dialed_ns + SHARE_WAIT_NS);
}

bool opd__h2_dial(opd_http_client *client) {
    h2_conn *conn = opd_mem_get(client->o.alloc, sizeof *conn);
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
            return false;
        }
        opd__client_back_off(client);
        if (count_live(client) == 0) opd__client_settle_queue(client, err, opd_err_context());
        return false;
    }
    conn->dialed_ns = now_of(client);
    conn->ready_by_ns = conn->dialed_ns + client->o.connect_timeout_ms * ns_per_ms;
    await_ready(conn, conn->dialed_ns);
    opd_list_push_back(&client->conns, &conn->link);
    return true;
}

static void start_call(h2_conn *conn, opd_http_call *call) {
    opd_http_client *client = conn->client;
    opd_h2_request request = {
        .method = opd__call_method(call), .authority = client->url.authority,
        .scheme = opd_url_scheme(&client->url), .path_prefix = client->url.path, .path = call->path,
        .headers = call->headers, .header_count = call->header_count, .body = call->body};
    opd_h2_stream *stream = NULL;
    bool was_idle = opd_h2_stream_count(conn->h2) == 0;
    opd_err err = opd_h2_request_send(conn->h2, &request, call, &stream);
    if (err != OPD_OK) {
        opd__client_settle(call, err, true, opd_err_context());
        return;
    }
    if (was_idle) { /* its silence so far was in order */
        conn->quiet_since_ns = now_of(client);
        conn->ping_ns = 0;
        opd__client_arm(client, conn->quiet_since_ns + client->o.ping_after_ms * ns_per_ms);
    }
    opd__call_to_wire(call);
    call->stream = stream;
    if (++conn->calls >= client->o.connection_calls_max) conn->draining = true;
}

/* The connection with the fewest streams of those that may have one more, each up to `most`; NULL:
 * none. */
static h2_conn *find_room(opd_http_client *client, uint32_t most) {
    h2_conn *best = NULL;
    for (opd_list *node = client->conns.next; node != &client->conns; node = node->next) {
        h2_conn *conn = conn_of(node);
        if (!is_live(conn) || !opd_h2_settled(conn->h2)) continue;
        if (!opd_h2_ready(conn->h2)) { /* stream ids used up */
            conn->draining = true;
            continue;
        }
        uint32_t count = opd_h2_stream_count(conn->h2);
        if (count >= most || count >= opd_h2_peer_max_streams(conn->h2)) continue;
        if (best == NULL || count < opd_h2_stream_count(best->h2)) best = conn;
    }
    return best;
}

/* Opens what is missing; while there must be a pause, the timer comes back to it. */
static void dial_missing(opd_http_client *client) {
    uint32_t calls = client->queued + client->inflight;
    uint32_t wanted = opd__h2_settled(client) ? client->o.connections : client->queued > 0;
    if (wanted > calls) wanted = calls;
    for (uint32_t live = count_live(client); live < wanted; live++) {
        if (now_of(client) < client->retry_at_ns) {
            opd__client_arm(client, client->retry_at_ns);
            return;
        }
        if (!opd__h2_dial(client)) return;
    }
}

/* How many streams a connection may have now: while others are being opened, which takes them no longer
 * than SHARE_WAIT_NS, not their share too. */
static uint32_t most_streams(const opd_http_client *client) {
    uint32_t live = 0, settled = 0, calls = client->queued + client->inflight;
    uint64_t now_ns = now_of(client);
    for (opd_list *node = client->conns.next; node != &client->conns; node = node->next) {
        const h2_conn *conn = conn_of(node);
        bool up = is_live(conn) && opd_h2_settled(conn->h2);
        live += up || (is_live(conn) && now_ns - conn->dialed_ns < SHARE_WAIT_NS);
        settled += up;
    }
    if (live == 0) return 0;
    uint32_t share = settled < live ? (calls + live - 1) / live : calls;
    return share < client->o.max_streams ? share : client->o.max_streams;
}

void opd__h2_fill(opd_http_client *client) {
    dial_missing(client);
    uint32_t most = most_streams(client);
    h2_conn *conn;
    while (!opd_list_empty(&client->queue) && client->inflight < client->o.max_inflight &&
           (conn = find_room(client, most)) != NULL)
        start_call(conn, OPD_CONTAINER_OF(client->queue.next, opd_http_call, link));
}

/* ---- turns of the client ---- */

void opd__h2_flush(opd_http_client *client) {
    for (opd_list *node = client->conns.next, *next; node != &client->conns; node = next) {
        h2_conn *conn = conn_of(node);
        next = node->next;
        if (conn->closing) continue;
        if (!client->closing) reset_dropped(conn);
        opd_tcp_flush(conn->tcp);
        bool idle = conn->draining && opd_h2_stream_count(conn->h2) == 0;
        if (client->closing || idle) conn_close(conn);
        else if (conn->broken) conn_fail(conn, OPD_ERR_NOMEM, opd_err_context());
        else if (opd_h2_finished(conn->h2)) conn_fail(conn, OPD_ERR_PROTO, "protocol error");
    }
}

void opd__h2_expire(opd_http_client *client, uint64_t now_ns) {
    for (opd_list *node = client->conns.next, *next; node != &client->conns; node = next) {
        h2_conn *conn = conn_of(node);
        next = node->next;
        if (conn->closing) continue;
        if (now_ns >= conn->ready_by_ns)
            conn_fail(conn, OPD_ERR_TIMEOUT, "no HTTP/2 connection in time; is the address right, "
                      "and does the server speak HTTP/2 by prior knowledge?");
        else if (conn->ready_by_ns != never_ns)
            await_ready(conn, now_ns);
        else
            check_silence(conn, now_ns);
    }
}
