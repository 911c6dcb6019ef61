/* http.h - HTTP for actors: a client of one endpoint, and a server.
 *
 * HTTP/2 (cleartext by prior knowledge, or as TLS agrees) and HTTP/1.1: the client where the server
 * has nothing better, the server on the same port. Over TLS (tls.h) where asked for. Both work on an
 * opd_env alone; an actor system is not
 * needed, and an actor adapts the plain callbacks below to its own events.
 *
 * Invariants:
 *  1. Every call that opd_http_client_send takes is completed exactly once by its `done`, never
 *     from inside a function the user called.
 *  2. Every exchange given to a handler is ended by exactly one opd_http_respond, also after
 *     the peer cancelled it or the server closed (the answer then goes nowhere).
 *  3. Memory is bounded by the options: bytes of one body, bytes of all bodies, calls, streams.
 *  4. Error texts name the endpoint and the remedy.
 *
 * Thread: the env's loop thread only. Ownership is stated per function.
 */
#ifndef OPD_TRANSPORTS_HTTP_H
#define OPD_TRANSPORTS_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/list.h"
#include "core/base/str.h"
#include "opd/alloc.h"
#include "opd/buf.h"
#include "opd/err.h"

struct opd_env;
struct opd_tls_options; /* tls.h */

/* A header to send: lower-case name, NUL-terminated, alive during the call it is given to. */
typedef struct opd_http_header {
    const char *name, *value;
} opd_http_header;

/* ---- client -------------------------------------------------------------------------- */

enum { OPD_HTTP_ERROR_MAX = 768 };

typedef struct opd_http_client opd_http_client;
typedef struct opd_http_call opd_http_call;

/* One request and its answer. Caller's memory, zeroed before the request fields are set; it,
 * method, path and headers stay untouched and alive until `done`. After `done` the caller
 * reads the answer, then opd_http_call_fini; it may be sent again (fini resets the answer). */
struct opd_http_call {
    /* request */
    const char *method; /* NULL: "POST" with a body, else "GET" */
    const char *path;   /* "/generate"; the URL's own path goes in front */
    const opd_http_header *headers;
    size_t header_count;
    opd_slice body;              /* sent without a copy; the caller's reference lives until `done` */
    uint64_t deadline_ns;        /* on the env's clock; 0: none. Covers queueing too */
    uint64_t attempt_timeout_ms; /* from the first byte sent to the whole answer; 0: none */
    void (*done)(opd_http_call *call);
    void *arg; /* the caller's */

    /* answer, valid from `done` to opd_http_call_fini */
    opd_err err;     /* OK: a whole answer arrived, whatever its status */
    int status;      /* 200...; 0 if none arrived */
    opd_str answer;  /* the body, NUL-terminated; what arrived if err != OK */
    opd_str head;    /* internal: read with opd_http_call_header */
    bool retry_safe; /* the server certainly did not process it */
    char error[OPD_HTTP_ERROR_MAX]; /* "" if err is OK, else what happened and where */

    /* internal */
    opd_http_client *client;
    void *stream; /* HTTP/2 */
    void *pooled;        /* HTTP/1.1 connection */
    opd_list link;
    uint64_t attempt_deadline_ns;
    size_t claimed_bytes; /* of max_total_bytes: the answer so far, or as announced */
    uint8_t state, replays;
};

/* 0 means the default of the comment. */
typedef struct opd_http_client_options {
    const opd_alloc *alloc;
    struct opd_env *env; /* outlives the client */
    const char *url;     /* http[s]://host:port[/prefix]; copied */
    const struct opd_tls_options *tls; /* of an https URL; NULL: the system's trust. Not kept */
    uint32_t max_inflight;           /* calls on the wire at once; 128 */
    uint32_t max_queue;              /* calls waiting for the wire; 4096 */
    size_t max_answer_bytes;         /* of one body; 256 MiB */
    size_t max_total_bytes;          /* of all bodies being received; 1 GiB */
    uint32_t stream_window_bytes;    /* 16 MiB */
    uint32_t connection_window_bytes;/* 256 MiB */
    uint64_t connect_timeout_ms;     /* 5,000 */
    uint64_t settings_timeout_ms;    /* connected, but no word of HTTP from there; 10,000 */
    uint64_t backoff_min_ms, backoff_max_ms; /* between attempts to connect; 50, 2,000 */
    uint32_t connections;  /* HTTP/2: at once, as many as there are calls; 1 */
    uint32_t max_streams;  /* HTTP/2: of one connection, even if its peer allows more; max_inflight */
    uint32_t connection_calls_max; /* HTTP/2: then it is replaced, as its stream ids end at 2^30; 2^29 */
    uint64_t ping_after_ms;   /* HTTP/2: PING where calls wait and nothing was heard for; 20,000 */
    uint64_t ping_timeout_ms; /* HTTP/2: ... and RESET if nothing comes after it; 20,000 */
    uint32_t http1_connections; /* sockets over HTTP/1.1, one call each; 64 */
    uint64_t http1_idle_ms;     /* an idle one is closed after; 3,500: uvicorn does after 5,000 */
    uint64_t http1_ttl_ms;      /* then HTTP/2 is tried again; 60,000 */
} opd_http_client_options;

/* A client of one endpoint. Opens nothing yet: the first call does.
 * Errors: INVALID (the URL), those of opd_tls_context_create. Ended by opd_http_client_close. */
opd_err opd_http_client_create(const opd_http_client_options *options,
                               opd_http_client **out_client) OPD_MUST_CHECK;

/* Takes the call: its `done` follows. Errors (call not taken, no `done`): AGAIN (the queue is
 * full), CLOSED (the client is closing), INVALID (no path or no `done`). What goes wrong later
 * is call->err: TIMEOUT (deadline; the stream is reset with CANCEL), CANCELLED, CLOSED,
 * REFUSED (no connection), RESET (connection or stream lost), REMOTE (the peer reset the
 * stream), LIMIT (answer too large), UNSUPPORTED (the peer speaks no HTTP), PROTO, NOMEM,
 * UNTRUSTED (the server's certificate). A call that a connection certainly did not take (over HTTP/1.1 a kept
 * one that turns out to be closed, without a byte in answer; over HTTP/2 one that goes away in order) goes out
 * again by itself on another one, five times at most. */
opd_err opd_http_client_send(opd_http_client *client, opd_http_call *call) OPD_MUST_CHECK;

/* Completes a taken call with CANCELLED, soon, through `done`; a stream on the wire is reset.
 * No effect when the answer is already on its way to `done`. */
void opd_http_client_cancel(opd_http_call *call);

/* Completes all taken calls with CLOSED, closes the connections and then calls closed(arg)
 * exactly once, always later; the client is freed just before. */
void opd_http_client_close(opd_http_client *client, void (*closed)(void *arg), void *arg);

/* How many calls wait in the queue, and how many are on the wire. */
uint32_t opd_http_client_queued(const opd_http_client *client);
uint32_t opd_http_client_inflight(const opd_http_client *client);

/* How many calls went out again as their kept HTTP/1.1 connection was closed already, or as GOAWAY came
 * before their HTTP/2 connection took them. */
uint64_t opd_http_client_replays(const opd_http_client *client);

/* How many connections were made so far, over which HTTP was or can be spoken. */
uint64_t opd_http_client_connections(const opd_http_client *client);

/* What the endpoint was found to speak; UNKNOWN before the first answer and while not connected
 * over HTTP/2. */
typedef enum opd_http_protocol {
    OPD_HTTP_PROTOCOL_UNKNOWN,
    OPD_HTTP_PROTOCOL_HTTP1,
    OPD_HTTP_PROTOCOL_HTTP2
} opd_http_protocol;
opd_http_protocol opd_http_client_protocol(const opd_http_client *client);

/* The endpoint as "host:port". */
const char *opd_http_client_authority(const opd_http_client *client);

/* An answer header by lower-case name, or NULL. Valid until opd_http_call_fini. */
const char *opd_http_call_header(const opd_http_call *call, const char *name);

/* Frees the answer and empties its fields; legal on a zeroed call, not on a call in flight. */
void opd_http_call_fini(opd_http_call *call);

/* Empties the answer's fields but keeps their memory for the next send of this call. */
void opd_http_call_reset(opd_http_call *call);

/* ---- server -------------------------------------------------------------------------- */

typedef struct opd_http_server opd_http_server;
typedef struct opd_http_exchange opd_http_exchange;

/* Gets a whole request; answers it now or later with opd_http_respond. */
typedef void (*opd_http_handler)(void *arg, opd_http_exchange *exchange);

/* 0 or NULL means the default of the comment. */
typedef struct opd_http_server_options {
    const opd_alloc *alloc;
    struct opd_env *env;         /* outlives the server */
    const char *host;            /* numeric address to bind; "127.0.0.1" */
    uint16_t port;               /* 0: any free one */
    const struct opd_tls_options *tls; /* NULL: cleartext. Not kept */
    uint32_t max_connections;    /* more are closed at once; 256 */
    uint32_t max_streams;        /* per connection; 200 */
    size_t max_body_bytes;       /* of one request; 64 MiB; more is answered 413 */
    size_t max_total_bytes;      /* of all requests being received; 1 GiB; more is answered 503 */
    size_t max_answers_bytes;    /* of all answers not sent yet; 1 GiB; one more becomes a 503 */
    uint32_t stream_window_bytes;     /* 1 MiB */
    uint32_t connection_window_bytes; /* 16 MiB */
    uint64_t handshake_timeout_ms;    /* from accept to the preface or a request line; 10,000 */
    uint64_t request_timeout_ms;      /* from a request's start to its last byte; 60,000 */
    uint64_t idle_timeout_ms;         /* a connection without streams is closed; 0: never */
    uint64_t http1_idle_ms;           /* over HTTP/1.1, where the above is 0; 60,000 */
    /* Speaks no HTTP/2, as uvicorn: a connection that begins with its preface is closed without a byte. Idle ones end
     * after http1_idle_ms, which then is 5,000 if not given. */
    bool http1_only;
    /* Sees a request whose body has begun to come, and may answer it at once; NULL: nobody. Only
     * method, path and headers are there. Called with the handler's arg. */
    opd_http_handler early;
} opd_http_server_options;

/* Binds and listens. Errors: EXISTS (port busy: names it and the remedy), INVALID (host),
 * IO, NOMEM, those of opd_tls_context_create. Ended by opd_http_server_close. */
opd_err opd_http_server_create(const opd_http_server_options *options, opd_http_handler handler,
                               void *arg, opd_http_server **out_server) OPD_MUST_CHECK;

/* The port it listens on. */
uint16_t opd_http_server_port(const opd_http_server *server);

/* The first of two steps of a shutdown, which close is the second of: stops listening and tells every peer that its
 * connection will end, over HTTP/2 by a GOAWAY that refuses nothing yet, over HTTP/1.1 by `connection: close` with
 * the next answer. Requests still come, to be answered as the handler likes. Legal once. */
void opd_http_server_drain(opd_http_server *server);

/* Stops listening, tells every peer to go away, lets running exchanges finish for drain_ms at
 * most, then closes all and calls closed(arg) exactly once, always later; the server is freed
 * just before. Exchanges not answered by then are cancelled (their owner still responds). */
void opd_http_server_close(opd_http_server *server, uint64_t drain_ms, void (*closed)(void *arg),
                           void *arg);

/* The request. Strings and bytes live until opd_http_respond; the body is NUL-terminated. */
const char *opd_http_exchange_method(const opd_http_exchange *exchange);
const char *opd_http_exchange_path(const opd_http_exchange *exchange); /* with any query */
const char *opd_http_exchange_header(const opd_http_exchange *exchange, const char *name);
const char *opd_http_exchange_body(const opd_http_exchange *exchange);
size_t opd_http_exchange_body_size(const opd_http_exchange *exchange);

/* Calls cancelled(arg, exchange) once, from the loop, if the peer gives up before the answer
 * (reset stream, lost connection, server closed by force). The exchange stays valid. */
void opd_http_exchange_on_cancel(opd_http_exchange *exchange,
                                 void (*cancelled)(void *arg, opd_http_exchange *exchange),
                                 void *arg);

/* Whether the peer has given up. */
bool opd_http_exchange_cancelled(const opd_http_exchange *exchange);

/* Answers and ends the exchange: frees it, whatever happens to the answer. Takes its own
 * reference to body ({0}: no body) until its last byte has left; the caller keeps his. An answer
 * beyond max_answers_bytes becomes a 503 without a body. status 200..599; content_type NULL:
 * none. extra headers are copied. */
void opd_http_respond(opd_http_exchange *exchange, int status, const char *content_type,
                      opd_slice body);
void opd_http_respond_headers(opd_http_exchange *exchange, int status,
                              const opd_http_header *headers, size_t header_count, opd_slice body);

/* The same with a copied text as body (503 and no body if there is no memory to copy it). */
void opd_http_respond_text(opd_http_exchange *exchange, int status, const char *content_type,
                           const char *text);

/* ---- a server that misbehaves on purpose (opd serve --faults, tests) ----
 * None of these answers; those that do not end the exchange leave it to be answered. All are
 * legal after the peer has gone: nothing happens then. Each says what it is over HTTP/1.1. */

/* Ends the exchange without an answer: RST_STREAM with `code` (RFC 9113 section 7), or, with
 * hang_up and always over HTTP/1.1, the connection ends at once with every stream on it. */
void opd_http_exchange_drop(opd_http_exchange *exchange, uint32_t code, bool hang_up);

/* GOAWAY on the exchange's connection. Over HTTP/1.1 `connection: close` with the answer, or for DROP and CALM the
 * connection's end without one. */
typedef enum opd_http_goaway {
    OPD_HTTP_GOAWAY_GRACEFUL, /* what has begun is still answered                     */
    OPD_HTTP_GOAWAY_DROP,     /* this exchange and later ones count as not processed  */
    OPD_HTTP_GOAWAY_NOTICE,   /* the first of two steps; GRACEFUL is the second       */
    OPD_HTTP_GOAWAY_CALM      /* as DROP, with ENHANCE_YOUR_CALM                      */
} opd_http_goaway;
void opd_http_exchange_goaway(opd_http_exchange *exchange, opd_http_goaway kind);

/* The answer's body will end, or with stall stop for ever, after size_bytes (at least 1), though its whole length is
 * announced; over HTTP/1.1 by content-length or as one chunk, and the connection ends, too. */
void opd_http_exchange_cut(opd_http_exchange *exchange, size_t size_bytes, bool stall, bool chunked);

/* Tells the peer that it may have max_streams at once on this connection from now on. HTTP/1.1 has no such thing. */
void opd_http_exchange_max_streams(opd_http_exchange *exchange, uint32_t max_streams);

#endif
