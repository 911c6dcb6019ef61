/* h2_peer.h - a server of HTTP/2 that a test plays by hand: it answers when told, says what it wants
 * about itself, falls silent, and counts what the client sends.
 *
 * Thread: the loop's. h2_peer_close frees what h2_peer_open made.
 */
#ifndef OPD_TESTS_UNIT_TRANSPORTS_H2_PEER_H
#define OPD_TESTS_UNIT_TRANSPORTS_H2_PEER_H

#include "transports/http2.h"
#include "transports/tcp.h"

enum { H2_PEER_CONNS_MAX = 32, H2_PEER_REQUESTS_MAX = 512 };

typedef struct h2_peer_request {
    opd_h2_stream *stream; /* NULL: over */
    int conn;              /* of which connection */
    bool whole;
} h2_peer_request;

typedef struct h2_peer_conn {
    struct h2_peer *peer;
    opd_tcp *tcp; /* NULL: over */
    opd_h2 *h2;
    int index, requests;
    uint8_t head[9]; /* of the frame that is coming in */
    size_t head_bytes, skip_bytes;
} h2_peer_conn;

typedef struct h2_peer {
    opd_tcp_listener *listener;
    uint32_t max_streams;
    h2_peer_conn conns[H2_PEER_CONNS_MAX];
    h2_peer_request requests[H2_PEER_REQUESTS_MAX];
    int conn_count, closed;
    int begun, request_count; /* requests whose head came; those that came whole */
    int pings, resets; /* frames received */
    bool prompt; /* answer each request at once, with `answer` */
    bool deaf;   /* read nothing any more, say nothing */
    int deaf_from; /* so are connections from this one on; 0: none */
    opd_slice answer;
} h2_peer;

/* Listens on a free port of 127.0.0.1. */
void h2_peer_open(h2_peer *peer, uint32_t max_streams);
void h2_peer_close(h2_peer *peer);

uint16_t h2_peer_port(const h2_peer *peer);

/* Answers request number i with `body`, unless it is over. */
void h2_peer_answer(h2_peer *peer, int i, opd_slice body);

/* Answers all that wait. */
void h2_peer_answer_all(h2_peer *peer);

/* Sends what something else put into a connection's session. */
void h2_peer_flush(h2_peer *peer, int conn);

/* How many requests of a connection wait for an answer. */
int h2_peer_waiting(const h2_peer *peer, int conn);

#endif
