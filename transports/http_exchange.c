/* http_exchange.c - one request at a server (http.h): what it says, and how it ends.
 *
 * Thread: the loop. Each of the three ends (respond, drop, respond_headers) frees the exchange.
 */
#include <string.h>

#include "core/base/check.h"
#include "opd/log.h"
#include "transports/answer_hold.h"
#include "transports/http_head.h"
#include "transports/http_server_inside.h"

const char *opd_http_exchange_method(const opd_http_exchange *exchange) {
    const char *method = opd__http_head_get(&exchange->head, ":method");
    return method != NULL ? method : "";
}

const char *opd_http_exchange_path(const opd_http_exchange *exchange) {
    const char *path = opd__http_head_get(&exchange->head, ":path");
    return path != NULL ? path : "";
}

const char *opd_http_exchange_header(const opd_http_exchange *exchange, const char *name) {
    return opd__http_head_get(&exchange->head, name);
}

const char *opd_http_exchange_body(const opd_http_exchange *exchange) { return exchange->body.data; }
size_t opd_http_exchange_body_size(const opd_http_exchange *exchange) { return exchange->body.size; }

void opd_http_exchange_on_cancel(opd_http_exchange *exchange,
                                 void (*cancelled)(void *arg, opd_http_exchange *exchange),
                                 void *arg) {
    exchange->on_cancel = cancelled;
    exchange->cancel_arg = arg;
}

bool opd_http_exchange_cancelled(const opd_http_exchange *exchange) { return exchange->cancelled; }

opd_h2_stream *opd__http_exchange_stream(opd_http_exchange *exchange) {
    if (exchange->stream != NULL) opd__http_server_wake(exchange->server); /* for what is submitted on it */
    return exchange->stream;
}

void opd__http_exchange_break(opd_http_exchange *exchange) {
    exchange->conn->broken = true;
    opd__http_server_wake(exchange->server);
}

void opd_http_exchange_drop(opd_http_exchange *exchange, uint32_t code, bool hang_up) {
    if (exchange->h1 != NULL || (hang_up && exchange->stream != NULL)) {
        opd__http_exchange_break(exchange);
    } else if (exchange->stream != NULL) {
        opd_h2_reset(exchange->stream, (opd_h2_code)code);
        opd__http_server_wake(exchange->server);
    }
    opd__http_exchange_destroy(exchange);
}

static void send_answer(opd_http_exchange *exchange, int status, const opd_http_header *headers,
                        size_t header_count, opd_slice body) {
    if (strcmp(opd_http_exchange_method(exchange), "HEAD") == 0) body = (opd_slice){0};
    opd_http_server *server = exchange->server;
    if (body.buf != NULL && opd__answer_hold(server->o.alloc, server->o.max_answers_bytes,
                                             &server->answering_bytes, &body) != OPD_OK) {
        OPD_LOG_WARN("an answer of %zu bytes became a 503: %s", body.size_bytes, opd_err_context());
        status = 503;
        header_count = 0;
        body = (opd_slice){0};
    }
    if (exchange->h1 != NULL) {
        if (opd_h1_session_respond(exchange->h1, status, headers, header_count, body) != OPD_OK)
            OPD_LOG_ERROR("an answer was lost: %s", opd_err_context());
    } else if (opd_h2_respond(exchange->stream, status, headers, header_count, body) != OPD_OK) {
        OPD_LOG_ERROR("an answer was lost: %s", opd_err_context());
        opd_h2_reset(exchange->stream, OPD_H2_CODE_INTERNAL_ERROR);
    }
    opd_buf_release(body.buf); /* the stream has its own reference */
    opd__http_server_wake(exchange->server);
}

void opd_http_respond_headers(opd_http_exchange *exchange, int status,
                              const opd_http_header *headers, size_t header_count,
                              opd_slice body) {
    OPD_ASSERT(status >= 200 && status <= 599);
    if (exchange->stream != NULL || exchange->h1 != NULL)
        send_answer(exchange, status, headers, header_count, body);
    opd__http_exchange_destroy(exchange);
}
