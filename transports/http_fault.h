/* http_fault.h - what http_fault.c and http_respond.c need of http_server.c. Nobody else includes it.
 * Thread: the loop. */
#ifndef OPD_TRANSPORTS_HTTP_FAULT_H
#define OPD_TRANSPORTS_HTTP_FAULT_H

#include "transports/http.h"
#include "transports/http1_server.h"
#include "transports/http2.h"

/* The exchange's stream, to submit something on it: its connection is written soon. NULL: gone. */
opd_h2_stream *opd__http_exchange_stream(opd_http_exchange *exchange);

/* The same over HTTP/1.1: the connection's session. NULL: gone, or HTTP/2. */
opd_h1_session *opd__http_exchange_session(opd_http_exchange *exchange);

/* Ends the exchange's connection soon, with all that is on it; the exchange is cancelled. */
void opd__http_exchange_break(opd_http_exchange *exchange);

/* The allocator of the exchange. */
const opd_alloc *opd__http_exchange_alloc(const opd_http_exchange *exchange);

#endif
