/* h2_peer.c - see h2_peer.h. */
#include "tests/unit/transports/h2_peer.h"

#include "tests/support/test.h"
#include "tests/unit/transports/loop.h"

enum { PREFACE_BYTES = 24, FRAME_RST_STREAM = 3, FRAME_PING = 6 };

/* ---- the session ---- */

static void *on_request(void *arg, opd_h2_stream *stream) {
    h2_peer_conn *conn = arg;
    h2_peer *peer = conn->peer;
    CHECK(peer->begun < H2_PEER_REQUESTS_MAX);
    h2_peer_request *request = &peer->requests[peer->begun++];
    *request = (h2_peer_request){.stream = stream, .conn = conn->index};
    conn->requests++;
    return request;
}

static void on_body(void *arg, void *user, const uint8_t *bytes, size_t size) {
    (void)arg, (void)bytes;
    opd_h2_consume(((h2_peer_request *)user)->stream, size);
}

static void on_complete(void *arg, void *user) {
    h2_peer *peer = ((h2_peer_conn *)arg)->peer;
    h2_peer_request *request = user;
    request->whole = true;
    peer->request_count++;
    if (peer->prompt) CHECK_OK(opd_h2_respond(request->stream, 200, NULL, 0, peer->answer));
}

static void on_close(void *arg, void *user, const opd_h2_end *end) {
    (void)arg, (void)end;
    ((h2_peer_request *)user)->stream = NULL;
}

static const opd_h2_events h2_events = {.on_request = on_request, .on_body = on_body,
                                        .on_complete = on_complete, .on_close = on_close};

/* ---- the stream ---- */

/* Counts frames by their heads. */
static void count_frames(h2_peer_conn *conn, const uint8_t *bytes, size_t size) {
    for (size_t i = 0; i < size; i++) {
        if (conn->skip_bytes > 0) {
            conn->skip_bytes--;
            continue;
        }
        conn->head[conn->head_bytes++] = bytes[i];
        if (conn->head_bytes < sizeof conn->head) continue;
        conn->head_bytes = 0;
        conn->skip_bytes = (size_t)conn->head[0] << 16 | (size_t)conn->head[1] << 8 | conn->head[2];
        conn->peer->pings += conn->head[3] == FRAME_PING && (conn->head[4] & 1) == 0;
        conn->peer->resets += conn->head[3] == FRAME_RST_STREAM;
    }
}

static bool is_deaf(const h2_peer_conn *conn) {
    const h2_peer *peer = conn->peer;
    return peer->deaf || (peer->deaf_from > 0 && conn->index >= peer->deaf_from);
}

static void on_bytes(void *arg, const uint8_t *bytes, size_t size) {
    h2_peer_conn *conn = arg;
    if (is_deaf(conn)) return;
    count_frames(conn, bytes, size);
    CHECK_OK(opd_h2_receive(conn->h2, bytes, size));
    opd_tcp_flush(conn->tcp);
}

static void on_pull(void *arg, opd_iobatch *batch) {
    h2_peer_conn *conn = arg;
    if (conn->h2 != NULL && !is_deaf(conn)) CHECK_OK(opd_h2_pull(conn->h2, batch));
}

static void on_end(void *arg, opd_err err) {
    (void)err;
    opd_tcp_close(((h2_peer_conn *)arg)->tcp);
}

static void on_closed(void *arg) {
    h2_peer_conn *conn = arg;
    opd_h2_destroy(conn->h2);
    conn->h2 = NULL;
    conn->tcp = NULL;
    conn->peer->closed++;
}

static const opd_tcp_events tcp_events = {NULL, on_bytes, on_pull, on_end, on_closed};

static void accepted(void *arg, opd_tcp *tcp) {
    h2_peer *peer = arg;
    CHECK(peer->conn_count < H2_PEER_CONNS_MAX);
    h2_peer_conn *conn = &peer->conns[peer->conn_count];
    *conn = (h2_peer_conn){.peer = peer, .tcp = tcp, .index = peer->conn_count++,
                           .skip_bytes = PREFACE_BYTES};
    opd_h2_options options = {.server = true, .max_streams = peer->max_streams,
                              .stream_window_bytes = 1 << 20, .connection_window_bytes = 16 << 20,
                              .max_header_bytes = 32768};
    CHECK_OK(opd_h2_create(&options, &h2_events, conn, &conn->h2));
    opd_tcp_start(tcp, &tcp_events, conn);
    opd_tcp_flush(tcp);
}

/* ---- the test's hands ---- */

void h2_peer_open(h2_peer *peer, uint32_t max_streams) {
    memset(peer, 0, sizeof *peer);
    peer->max_streams = max_streams;
    CHECK_OK(opd_tcp_listen(loop_env, NULL, "127.0.0.1", 0, accepted, peer, &peer->listener));
}

void h2_peer_close(h2_peer *peer) {
    int closed = 0;
    opd_tcp_listener_close(peer->listener, loop_count, &closed);
    for (int i = 0; i < peer->conn_count; i++)
        if (peer->conns[i].tcp != NULL) opd_tcp_close(peer->conns[i].tcp);
    loop_until(&closed, 1);
    loop_until(&peer->closed, peer->conn_count);
}

uint16_t h2_peer_port(const h2_peer *peer) { return opd_tcp_listener_port(peer->listener); }

void h2_peer_flush(h2_peer *peer, int conn) {
    if (peer->conns[conn].tcp != NULL) opd_tcp_flush(peer->conns[conn].tcp);
}

void h2_peer_answer(h2_peer *peer, int i, opd_slice body) {
    h2_peer_request *request = &peer->requests[i];
    if (request->stream == NULL || !request->whole) return;
    request->whole = false;
    CHECK_OK(opd_h2_respond(request->stream, 200, NULL, 0, body));
    h2_peer_flush(peer, request->conn);
}

void h2_peer_answer_all(h2_peer *peer) {
    for (int i = 0; i < peer->begun; i++) h2_peer_answer(peer, i, peer->answer);
}

int h2_peer_waiting(const h2_peer *peer, int conn) {
    int count = 0;
    for (int i = 0; i < peer->begun; i++)
        count += peer->requests[i].stream != NULL && peer->requests[i].whole &&
                 peer->requests[i].conn == conn;
    return count;
}
