/* http1_server.h - the server's side of one HTTP/1.1 connection as a machine without I/O: the
 * counterpart of an opd_h2 session, with the same events (http2.h), for http_server.c.
 *
 * One exchange at a time; requests that come while one is under way (pipelining) wait as bytes, at
 * most PENDING_BYTES_MAX of them, beyond which the connection ends after the answer. A request that
 * is not one is answered here (400, 431, 501, 505) and ends the connection; so does an answer given
 * before its request was complete. Upgrade is not heard: the answer comes in HTTP/1.1.
 *
 * Invariants: as in http2.h: on_close is an exchange's last event, and no event follows
 * opd_h1_session_respond or _detach; events come only from inside receive, pull and destroy; of
 * on_request the stream is NULL. Thread: one owner.
 */
#ifndef OPD_TRANSPORTS_HTTP1_SERVER_H
#define OPD_TRANSPORTS_HTTP1_SERVER_H

#include "transports/http1.h"
#include "transports/http2.h"

typedef struct opd_h1_session opd_h1_session;

/* Counts in *matched how much of HTTP/2's preface these first bytes were; false: they are not it,
 * the peer speaks HTTP/1.1 (or nonsense). */
bool opd_h1_is_preface(size_t *matched, const uint8_t *bytes, size_t size_bytes);

/* Whether that was all of it. */
bool opd_h1_preface_whole(size_t matched);

/* events outlives it. preface_bytes: how much of the preface was taken for HTTP/2's before the peer
 * turned out to speak HTTP/1.1. Errors: NOMEM. */
opd_err opd_h1_session_create(const opd_alloc *alloc, size_t max_head_bytes,
                              const opd_h2_events *events, void *arg, size_t preface_bytes,
                              opd_h1_session **out_session) OPD_MUST_CHECK;

/* Ends the exchange under way, if it was not answered, with on_close(RESET). NULL is legal. */
void opd_h1_session_destroy(opd_h1_session *session);

/* Takes bytes from the peer. */
void opd_h1_session_receive(opd_h1_session *session, const uint8_t *bytes, size_t size_bytes);

/* Adds to batch what is to be sent, as far as it fits, and goes on with requests that waited. */
void opd_h1_session_pull(opd_h1_session *session, opd_iobatch *batch);

/* Answers the exchange under way; adds a reference to body. Errors: INVALID, LIMIT, NOMEM; the
 * connection then ends without the answer. */
opd_err opd_h1_session_respond(opd_h1_session *session, int status, const opd_http_header *headers,
                               size_t header_count, opd_slice body) OPD_MUST_CHECK;

/* Forgets the exchange under way; if it was not answered, the connection ends. */
void opd_h1_session_detach(opd_h1_session *session);

/* Whether an exchange is under way that was neither answered nor forgotten. */
bool opd_h1_session_attached(const opd_h1_session *session);

/* The connection ends after the answer under way, at once if there is none. */
void opd_h1_session_drain(opd_h1_session *session);

/* The connection ends with the next answer, that under way or of a request yet to come. */
void opd_h1_session_last(opd_h1_session *session);

/* A server that misbehaves on purpose, before opd_h1_session_respond: the answer ends short (opd_h1_write_cut_response)
 * and the connection with it; with stall both stay open for ever. */
void opd_h1_session_cut(opd_h1_session *session, size_t size_bytes, bool stall, bool chunked);

/* Between two exchanges, with nothing left to send. */
bool opd_h1_session_idle(const opd_h1_session *session);

/* Nothing more to read or write: close the connection. */
bool opd_h1_session_finished(const opd_h1_session *session);

#endif
