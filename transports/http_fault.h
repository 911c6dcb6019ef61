/* http_fault.h - what http_fault.c and http_respond.c need of http_server.c. Nobody else includes it.
 * Thread: the loop. */
#ifndef OPD_TRANSPORTS_HTTP_FAULT_H
#define OPD_TRANSPORTS_HTTP_FAULT_H

#include "transports/http.h"
#include "transports/http2.h"

/* The exchange's stream, to submit something on it: its connection is written soon. NULL: gone. */
opd_h2_stream *opd__http_exchange_stream(opd_http_exchange *exchange);

/* The allocator of the exchange. */
const opd_alloc *opd__http_exchange_alloc(const opd_http_exchange *exchange);

#endif
