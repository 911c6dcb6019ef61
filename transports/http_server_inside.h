/* http_server_inside.h - what http_server.c, http_exchange.c, http_fault.c and http_respond.c share: the server, its
 * connections and their exchanges. Nobody else includes it. Thread: the loop.
 */
#ifndef OPD_TRANSPORTS_HTTP_SERVER_INSIDE_H
#define OPD_TRANSPORTS_HTTP_SERVER_INSIDE_H

#include "transports/http.h"
#include "transports/http1_server.h"
#include "transports/http2.h"
#include "transports/tcp.h"
#include "transports/tls.h"

typedef struct server_conn {
    opd_http_server *server;
    opd_tcp *tcp;
    opd_h2 *h2;          /* NULL once h1 has taken over */
    opd_h1_session *h1;  /* NULL unless the peer speaks HTTP/1.1 */
    size_t preface_bytes; /* of HTTP/2's preface that came */
    opd_list link;
    opd_list exchanges; /* not yet answered */
    uint64_t close_at_ns; /* handshake or finishing deadline; UINT64_MAX: none */
    uint64_t busy_at_ns;  /* when it last had a stream, or a request of HTTP/1.1 */
    bool broken, finishing, closing;
} server_conn;

struct opd_http_server {
    opd_http_server_options o;
    opd_http_handler handler;
    void *arg;
    opd_tls_context *tls; /* NULL: cleartext */
    opd_tcp_listener *listener;
    opd_tcp_timer *timer;
    uint64_t timer_at_ns;
    uint16_t port;
    opd_list conns;
    uint32_t conn_count;
    opd_list ready, cancelled; /* of exchanges, to be told to the user */
    size_t receiving_bytes;    /* sum of body.size over all exchanges */
    size_t answering_bytes;    /* of answers on their way out */
    bool draining; /* no new connection; the others were told */
    bool in_turn, closing, listener_closed, finishing;
    uint64_t drain_until_ns;
    void (*closed)(void *arg);
    void *closed_arg;
};

struct opd_http_exchange {
    opd_http_server *server; /* NULL once the connection is gone */
    server_conn *conn;       /* as above */
    opd_h2_stream *stream;   /* NULL once the stream is gone, or */
    opd_h1_session *h1;      /* the connection that carries it alone; as above */
    const opd_alloc *alloc;
    opd_list link;       /* in conn->exchanges */
    opd_list event_link; /* in server->ready or ->cancelled */
    opd_str head, body;  /* head holds :method and :path too */
    uint64_t started_ns;
    bool begun, complete, handed, cancelled; /* begun: some of the body came */
    void (*on_cancel)(void *arg, opd_http_exchange *exchange);
    void *cancel_arg;
};

/* What was submitted to a connection is written soon. */
void opd__http_server_wake(opd_http_server *server);

/* Forgets and frees an exchange. */
void opd__http_exchange_destroy(opd_http_exchange *exchange);

/* The exchange's stream, to submit something on it: its connection is written soon. NULL: gone. */
opd_h2_stream *opd__http_exchange_stream(opd_http_exchange *exchange);

/* Ends the exchange's connection soon, with all that is on it; the exchange is cancelled. */
void opd__http_exchange_break(opd_http_exchange *exchange);

#endif
