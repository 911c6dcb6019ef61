/* tcp.h - byte streams and a timer from the env: all that HTTP needs from outside.
 *
 * The env says what stands behind these functions (tcp.c): libuv (tcp_uv.c, timer_uv.c) or a
 * simulated network (tcp_sim.c).
 *
 * Life of a stream: (connect) OPENING -> OPEN -> ended -> closed. Events arrive in that order,
 * from the loop, never from inside opd_tcp_connect. After on_end only on_closed follows, and
 * only once the owner called opd_tcp_close. After opd_tcp_close only on_closed follows; it is
 * the last event and the stream is freed right after it.
 *
 * Writing is pull: the stream asks on_pull for a batch when the socket can take one and
 * opd_tcp_flush was called; at most one batch is under way, so what a slow peer makes us hold
 * is one batch. SIGPIPE is ignored from the first
 * socket on, unless the program handles it. Thread: the env's loop.
 */
#ifndef OPD_TRANSPORTS_TCP_H
#define OPD_TRANSPORTS_TCP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "opd/alloc.h"
#include "opd/err.h"
#include "transports/iobatch.h"

struct opd_env;
typedef struct opd_tcp opd_tcp;
typedef struct opd_tcp_listener opd_tcp_listener;
typedef struct opd_tcp_timer opd_tcp_timer;

typedef struct opd_tcp_events {
    /* The connection stands (OPD_OK) or failed (REFUSED, NOT_FOUND for the name; context set).
     * Not called for accepted streams. After a failure call opd_tcp_close. */
    void (*on_open)(void *arg, opd_err err);
    /* Bytes from the peer, valid during the call. */
    void (*on_bytes)(void *arg, const uint8_t *bytes, size_t size_bytes);
    /* Fill the (empty) batch; leaving it empty means nothing to send now. */
    void (*on_pull)(void *arg, opd_iobatch *batch);
    /* The peer closed (CLOSED) or the connection broke (RESET); context set. */
    void (*on_end)(void *arg, opd_err err);
    /* All is released; last event. */
    void (*on_closed)(void *arg);
} opd_tcp_events;

/* Starts connecting to host (name or numeric address). events outlives the stream.
 * Errors: NOMEM, IO; nothing follows then. */
opd_err opd_tcp_connect(struct opd_env *env, const opd_alloc *alloc, const char *host,
                        uint16_t port, const opd_tcp_events *events, void *arg,
                        opd_tcp **out_tcp) OPD_MUST_CHECK;

/* Asks for on_pull soon (possibly from inside this call): there is something to send. */
void opd_tcp_flush(opd_tcp *tcp);

/* Nanoseconds on the env's clock since the last byte went out, 0 while none is waiting. */
uint64_t opd_tcp_stalled_ns(const opd_tcp *tcp);

/* Closes at once, dropping unsent bytes. Calling it again does nothing. */
void opd_tcp_close(opd_tcp *tcp);

/* Says FIN after the bytes now waiting, and goes on reading: on_end tells when the peer is
 * done. Closing at once instead could destroy the last answer on its way. */
void opd_tcp_finish(opd_tcp *tcp);

/* Listens on a numeric address. accepted(arg, tcp) gives each new stream: the callee must call
 * opd_tcp_start or opd_tcp_close on it. Errors: EXISTS (busy), INVALID, IO, NOMEM. */
opd_err opd_tcp_listen(struct opd_env *env, const opd_alloc *alloc, const char *host,
                       uint16_t port, void (*accepted)(void *arg, opd_tcp *tcp), void *arg,
                       opd_tcp_listener **out_listener) OPD_MUST_CHECK;

/* Gives an accepted stream its events and begins to read. */
void opd_tcp_start(opd_tcp *tcp, const opd_tcp_events *events, void *arg);

/* The port listened on. */
uint16_t opd_tcp_listener_port(const opd_tcp_listener *listener);

/* Stops listening; closed(arg) is called once, later. */
void opd_tcp_listener_close(opd_tcp_listener *listener, void (*closed)(void *arg), void *arg);

/* A one-shot timer, not running. Errors: NOMEM, IO. */
opd_err opd_tcp_timer_create(struct opd_env *env, const opd_alloc *alloc, void (*fired)(void *arg),
                             void *arg, opd_tcp_timer **out_timer) OPD_MUST_CHECK;

/* (Re)arms it: fires once at or after at_ns, always later; UINT64_MAX disarms. */
void opd_tcp_timer_set(opd_tcp_timer *timer, uint64_t at_ns);

/* closed(arg) is called once, later; the timer is freed right after. */
void opd_tcp_timer_close(opd_tcp_timer *timer, void (*closed)(void *arg), void *arg);

/* The env's clock. */
uint64_t opd_tcp_now_ns(struct opd_env *env);

#endif
