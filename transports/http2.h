/* http2.h - one HTTP/2 connection as a machine without I/O: bytes in, bytes out, events.
 *
 * Wraps nghttp2, which nothing else in opd sees. No clock, no sockets: the owner feeds received
 * bytes to opd_h2_receive and moves batches from opd_h2_pull to the peer; timeouts are his.
 *
 * Invariants:
 *  1. A stream's on_close is its last event and comes exactly once - except after
 *     opd_h2_reset and opd_h2_detach, after which no event of that stream comes at all.
 *  2. Received body bytes keep their part of the windows until opd_h2_consume, so what is not
 *     consumed is bounded by the window options.
 *  3. Events come only from inside opd_h2_receive, opd_h2_pull and opd_h2_destroy. An event may
 *     call request, respond, reset, consume and goaway, but not receive, pull or destroy.
 * Thread: one owner. Bodies to send are referenced, not copied.
 */
#ifndef OPD_TRANSPORTS_HTTP2_H
#define OPD_TRANSPORTS_HTTP2_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "opd/alloc.h"
#include "opd/buf.h"
#include "opd/err.h"
#include "transports/http.h"
#include "transports/iobatch.h"

typedef struct opd_h2 opd_h2;
typedef struct opd_h2_stream opd_h2_stream; /* valid until its on_close or opd_h2_reset */

/* Why we reset a stream (RFC 9113 section 7); other codes may be cast to it. */
typedef enum opd_h2_code {
    OPD_H2_CODE_NO_ERROR = 0,
    OPD_H2_CODE_INTERNAL_ERROR = 2,
    OPD_H2_CODE_REFUSED_STREAM = 7,
    OPD_H2_CODE_CANCEL = 8,
    OPD_H2_CODE_ENHANCE_YOUR_CALM = 11
} opd_h2_code;

/* How a stream ended. */
typedef struct opd_h2_end {
    opd_err err;      /* OK: message complete; REMOTE: reset by the peer; RESET: connection
                         lost; PROTO: peer broke the protocol; LIMIT: headers too large */
    bool retry_safe;  /* the peer certainly did not process it */
    const char *text; /* what happened, for people */
} opd_h2_end;

/* user is what the stream was started with. Any member but on_close may be NULL. */
typedef struct opd_h2_events {
    /* Server: a request begins. Returns its user pointer; NULL refuses it (REFUSED_STREAM). */
    void *(*on_request)(void *arg, opd_h2_stream *stream);
    /* One header, pseudo-headers (":path", ":status") included; NUL-terminated. */
    void (*on_header)(void *arg, void *user, const char *name, const char *value);
    void (*on_body)(void *arg, void *user, const uint8_t *bytes, size_t size_bytes);
    /* The peer's message is complete. A server answers from here on. */
    void (*on_complete)(void *arg, void *user);
    /* Client: the request's head leaves. */
    void (*on_sent)(void *arg, void *user);
    void (*on_close)(void *arg, void *user, const opd_h2_end *end);
    /* The peer's SETTINGS arrived (the first: the peer does speak HTTP/2). */
    void (*on_settings)(void *arg);
    /* The peer will accept no more streams here; calm: it asks us to slow down. */
    void (*on_goaway)(void *arg, bool calm);
} opd_h2_events;

typedef struct opd_h2_options {
    const opd_alloc *alloc;
    bool server;
    uint32_t max_streams;             /* server: announced to the peer */
    uint32_t stream_window_bytes;     /* 1 .. 2^31-1 */
    uint32_t connection_window_bytes; /* 65,535 .. 2^31-1 */
    uint32_t max_header_bytes;        /* of one message received */
} opd_h2_options;

typedef struct opd_h2_request {
    const char *method, *authority;
    const char *scheme; /* NULL: "http" */
    const char *path_prefix, *path; /* sent one after the other */
    const opd_http_header *headers;
    size_t header_count;
    opd_slice body; /* a reference is added */
} opd_h2_request;

/* A session whose preface and SETTINGS wait in the first pull. events outlives it.
 * Errors: NOMEM. */
opd_err opd_h2_create(const opd_h2_options *options, const opd_h2_events *events, void *arg,
                      opd_h2 **out_h2) OPD_MUST_CHECK;

/* Ends all streams that remain with on_close(RESET) and frees the session. NULL is legal. */
void opd_h2_destroy(opd_h2 *h2);

/* What opd_h2_destroy will say of the streams that remain; copied. */
void opd_h2_blame(opd_h2 *h2, const char *text);

/* Takes bytes from the peer. Errors, after which the owner pulls once more and closes:
 * UNSUPPORTED (the peer speaks something else), PROTO, NOMEM, CLOSED (it failed before); context
 * set. */
opd_err opd_h2_receive(opd_h2 *h2, const uint8_t *bytes, size_t size_bytes) OPD_MUST_CHECK;

/* Adds to batch what is to be sent, as far as it fits and the peer's windows allow. Errors, after
 * which the owner closes: NOMEM, PROTO, CLOSED (it failed before; nothing is added). */
opd_err opd_h2_pull(opd_h2 *h2, opd_iobatch *batch) OPD_MUST_CHECK;

/* Nothing more to read or write: close the connection. */
bool opd_h2_finished(const opd_h2 *h2);

/* Client: starts a request. Errors: LIMIT (more than 64 headers, path too long), NOMEM, CLOSED
 * (no new stream possible on this connection). */
opd_err opd_h2_request_send(opd_h2 *h2, const opd_h2_request *request, void *user,
                            opd_h2_stream **out_stream) OPD_MUST_CHECK;

/* Server: answers; adds a reference to body. An answer before the request is complete asks the
 * peer to stop sending. Errors: LIMIT, NOMEM. */
opd_err opd_h2_respond(opd_h2_stream *stream, int status, const opd_http_header *headers,
                       size_t header_count, opd_slice body) OPD_MUST_CHECK;

/* Resets a stream; it is forgotten: no further event. */
void opd_h2_reset(opd_h2_stream *stream, opd_h2_code code);

/* Forgets a stream that goes on: no further event, its received bytes are dropped. */
void opd_h2_detach(opd_h2_stream *stream);

/* Client: how many forgotten streams go on and were not reset, and: resets (CANCEL) one of them, the
 * oldest. */
uint32_t opd_h2_detached_count(const opd_h2 *h2);
void opd_h2_reset_detached(opd_h2 *h2);

/* Asks the peer for a sign of life: whatever it sends next is one. */
void opd_h2_ping(opd_h2 *h2);

/* Whether the stream still has an owner: neither reset nor forgotten. */
bool opd_h2_attached(const opd_h2_stream *stream);

/* Gives size_bytes of a received body back to the windows. */
void opd_h2_consume(opd_h2_stream *stream, size_t size_bytes);

/* Server, the first of two steps: says that the connection will end; nothing is refused yet. */
void opd_h2_notice(opd_h2 *h2);

/* Server: says that no new stream will be accepted; running ones go on. */
void opd_h2_goaway(opd_h2 *h2);

/* ---- a server that misbehaves on purpose (opd serve --faults, tests) ---- */

typedef enum opd_h2_farewell {
    OPD_H2_FAREWELL_GRACEFUL, /* all streams that began are processed, this one too     */
    OPD_H2_FAREWELL_DROP,     /* this stream and later ones were not processed          */
    OPD_H2_FAREWELL_NOTICE,   /* the first of two steps: no stream is refused yet       */
    OPD_H2_FAREWELL_CALM      /* as DROP, with ENHANCE_YOUR_CALM                        */
} opd_h2_farewell;

/* GOAWAY with the stream as the measure. */
void opd_h2_farewell_send(opd_h2_stream *stream, opd_h2_farewell kind);

/* Before opd_h2_respond: of the body only the first size_bytes (at least 1) are sent, though its
 * whole length is announced; then the stream ends, or with stall nothing more happens. */
void opd_h2_cut(opd_h2_stream *stream, size_t size_bytes, bool stall);

/* Announces another number of streams that the peer may have at once. */
void opd_h2_max_streams_set(opd_h2_stream *stream, uint32_t max_streams);

/* Client: whether a new stream may be started: SETTINGS arrived, no GOAWAY, ids left. */
bool opd_h2_ready(const opd_h2 *h2);

/* Whether the peer's first bytes were those of HTTP/2. */
bool opd_h2_greeted(const opd_h2 *h2);

/* Whether the peer's SETTINGS arrived. */
bool opd_h2_settled(const opd_h2 *h2);

/* Streams that the peer accepts at once, and streams that exist now. */
uint32_t opd_h2_peer_max_streams(const opd_h2 *h2);
uint32_t opd_h2_stream_count(const opd_h2 *h2);

#endif
