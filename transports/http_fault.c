/* http_fault.c - a server that misbehaves on purpose (http.h): GOAWAY, bodies that end early,
 * fewer streams. Thread: the loop. Nothing to free. */
#include "transports/http_server_inside.h"

void opd_http_exchange_goaway(opd_http_exchange *exchange, opd_http_goaway kind) {
    static const opd_h2_farewell farewells[] = {
        [OPD_HTTP_GOAWAY_GRACEFUL] = OPD_H2_FAREWELL_GRACEFUL,
        [OPD_HTTP_GOAWAY_DROP] = OPD_H2_FAREWELL_DROP,
        [OPD_HTTP_GOAWAY_NOTICE] = OPD_H2_FAREWELL_NOTICE,
        [OPD_HTTP_GOAWAY_CALM] = OPD_H2_FAREWELL_CALM};
    opd_h2_stream *stream = opd__http_exchange_stream(exchange);
    opd_h1_session *session = exchange->h1;
    bool processed = kind == OPD_HTTP_GOAWAY_GRACEFUL || kind == OPD_HTTP_GOAWAY_NOTICE;
    if (stream != NULL) opd_h2_farewell_send(stream, farewells[kind]);
    else if (session != NULL && processed) opd_h1_session_drain(session);
    else if (session != NULL) opd__http_exchange_break(exchange);
}

void opd_http_exchange_cut(opd_http_exchange *exchange, size_t size_bytes, bool stall, bool chunked) {
    opd_h2_stream *stream = opd__http_exchange_stream(exchange);
    opd_h1_session *session = exchange->h1;
    if (stream != NULL) opd_h2_cut(stream, size_bytes, stall);
    else if (session != NULL) opd_h1_session_cut(session, size_bytes, stall, chunked);
}

void opd_http_exchange_max_streams(opd_http_exchange *exchange, uint32_t max_streams) {
    opd_h2_stream *stream = opd__http_exchange_stream(exchange);
    if (stream != NULL) opd_h2_max_streams_set(stream, max_streams);
}
