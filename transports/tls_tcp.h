/* tls_tcp.h - TLS as one more kind of tcp.h stream: the same events, the same calls, over any
 * stream of the env, real or simulated.
 *
 * What differs from a bare stream: on_open comes after the handshake, or with its error (UNTRUSTED,
 * REMOTE, PROTO, UNSUPPORTED besides those of connecting); on_end is CLOSED only if the peer said
 * close_notify, and RESET for an end of file without it, as bytes may be missing then. Backpressure
 * is kept: the user is asked for plain bytes when the inner stream asks for bytes.
 *
 * A write that fails says FIN; the loss is told by the read side, as with bare streams.
 * Thread: the loop. A stream owns its inner stream.
 */
#ifndef OPD_TRANSPORTS_TLS_TCP_H
#define OPD_TRANSPORTS_TLS_TCP_H

#include "transports/tcp.h"
#include "transports/tls.h"

/* opd_tcp_connect, then TLS by this client context; context NULL: no TLS, just that. The context
 * outlives the stream. Errors: those of opd_tcp_connect and opd_tls_create. */
opd_err opd_tls_connect(const opd_tls_context *context, struct opd_env *env, const opd_alloc *alloc,
                        const char *host, uint16_t port, const opd_tcp_events *events, void *arg,
                        opd_tcp **out_tcp) OPD_MUST_CHECK;

/* Wraps a stream just accepted by this server context, before opd_tcp_start or opd_tcp_close;
 * context NULL: leaves it bare. Errors: NOMEM; *tcp is then as it was. */
opd_err opd_tls_accept(const opd_tls_context *context, const opd_alloc *alloc, opd_tcp **tcp)
    OPD_MUST_CHECK;

/* What ALPN agreed on, once open. tcp is a stream of opd_tls_connect with a context. */
opd_tls_alpn opd_tls_tcp_alpn(const opd_tcp *tcp);

#endif
