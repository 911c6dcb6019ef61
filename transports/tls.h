/* tls.h - one TLS connection as bytes in, bytes out: no socket, no clock of its own.
 *
 * A context holds what many connections share: trust, certificate, key, role. A connection (opd_tls)
 * turns the peer's bytes into plain bytes (receive, then read until nothing comes) and plain bytes
 * into bytes for the peer (push, then pull). The handshake happens on the way. TLS 1.2 and 1.3, no
 * renegotiation, no resumption. ALPN offers h2 and, after it, http/1.1.
 *
 * Invariants:
 *  1. Before opd_tls_state says OPEN no plain byte is read or taken; on the client, with
 *     verification on, the peer has then proven to be the host asked for.
 *  2. What waits to be pulled is at most about OPD_TLS_WAITING_BYTES_MAX: push takes no more, and a
 *     peer that makes us answer without reading fails (LIMIT).
 *  3. After an error the connection stays failed; pull still gives the alert that tells the peer.
 *  4. A file that stands behind a connection was read when the context was created.
 *
 * The library underneath (OpenSSL, seen by tls.c alone) has its own memory: of the allocator given
 * here are the blocks of this file only. Trust and dates are judged by the real clock.
 * Thread: the loop. A context outlives its connections.
 */
#ifndef OPD_TRANSPORTS_TLS_H
#define OPD_TRANSPORTS_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "opd/alloc.h"
#include "opd/err.h"
#include "transports/iobatch.h"

enum { OPD_TLS_WAITING_BYTES_MAX = 64 * 1024 };

typedef struct opd_tls_context opd_tls_context;
typedef struct opd_tls opd_tls;

/* All files are PEM; NULL or "": none. Read during the call only. */
typedef struct opd_tls_options {
    const char *ca_file;   /* client: trusted instead of the system's store. server: a client must
                              show a certificate of these; none: clients show nothing */
    const char *cert_file; /* own certificate and the chain above it; a server needs one */
    const char *key_file;  /* its key; none: it stands in cert_file */
    bool unverified;       /* client: believe any peer. Only by explicit wish */
} opd_tls_options;

/* Reads the files. Errors: NOT_FOUND, INVALID (file, reason, remedy), NOMEM. */
opd_err opd_tls_context_create(const opd_alloc *alloc, bool server, const opd_tls_options *options,
                               opd_tls_context **out_context) OPD_MUST_CHECK;

/* NULL is legal. */
void opd_tls_context_destroy(opd_tls_context *context);

typedef enum opd_tls_state {
    OPD_TLS_STATE_HANDSHAKE,
    OPD_TLS_STATE_OPEN,
    OPD_TLS_STATE_ENDED, /* the peer said close_notify: all its bytes have been read */
    OPD_TLS_STATE_FAILED
} opd_tls_state;

/* What the two sides agreed to speak. */
typedef enum opd_tls_alpn {
    OPD_TLS_ALPN_NONE, /* the peer does not know ALPN, or the handshake is not over */
    OPD_TLS_ALPN_H2,
    OPD_TLS_ALPN_HTTP1
} opd_tls_alpn;

/* A connection. host: client: whom we expect, a name or an IP address, also sent as SNI if it is a
 * name; server: whatever texts should call the peer. Copied. Errors: NOMEM, INVALID (the host). */
opd_err opd_tls_create(const opd_tls_context *context, const char *host, opd_tls **out_tls)
    OPD_MUST_CHECK;

/* NULL is legal. */
void opd_tls_destroy(opd_tls *tls);

opd_tls_state opd_tls_state_of(const opd_tls *tls);
opd_tls_alpn opd_tls_alpn_of(const opd_tls *tls);

/* Takes all these bytes from the peer; read then, until it gives nothing. Errors: LIMIT (invariant
 * 2), NOMEM, what it failed with before. */
opd_err opd_tls_receive(opd_tls *tls, const uint8_t *bytes, size_t size_bytes) OPD_MUST_CHECK;

/* Goes on with the handshake and gives up to room plain bytes; *out_size 0: nothing now. Errors:
 * UNTRUSTED (the peer's certificate; what is wrong and what to do), REMOTE (the peer's alert),
 * PROTO (not TLS, or broken), UNSUPPORTED (nothing in common), NOMEM. */
opd_err opd_tls_read(opd_tls *tls, uint8_t *to, size_t room, size_t *out_size) OPD_MUST_CHECK;

/* Encrypts from the front of plain as much as may wait; nothing while not OPEN. Errors: NOMEM,
 * PROTO. */
opd_err opd_tls_push(opd_tls *tls, opd_iobatch *plain) OPD_MUST_CHECK;

/* Says close_notify after what was pushed; once, and only if OPEN or ENDED. */
void opd_tls_finish(opd_tls *tls);

/* Moves what waits for the peer into batch, as far as it fits; whether there was any. */
bool opd_tls_pull(opd_tls *tls, opd_iobatch *batch);

#endif
