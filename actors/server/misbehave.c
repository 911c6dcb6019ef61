/* misbehave.c - what a script of faults does to a visit (server_inside.h, faults.h).
 *
 * A visit without a fault goes straight to its route. A fault that changes the answer lets the
 * route run, and generate.c bends what it writes; one of the wire is done here.
 *
 * Thread: the loop.
 */
#include <stdio.h>

#include "actors/server/server_inside.h"
#include "core/base/check.h"

static const uint64_t ns_per_ms = 1000000;

/* A request that is not processed: nghttp2 refuses its stream with the GOAWAY, HTTP/1.1 closes; either cancels the
 * visit. */
static void say_goaway(opd__visit *visit) {
    switch (visit->fault.goaway) {
    case OPD_SERVER_FAULT_GOAWAY_GRACEFUL:
        opd_http_exchange_goaway(visit->exchange, OPD_HTTP_GOAWAY_GRACEFUL);
        break;
    case OPD_SERVER_FAULT_GOAWAY_TWO_STEP:
        opd_http_exchange_goaway(visit->exchange, OPD_HTTP_GOAWAY_NOTICE);
        break;
    case OPD_SERVER_FAULT_GOAWAY_DROP:
        opd_http_exchange_goaway(visit->exchange, OPD_HTTP_GOAWAY_DROP);
        visit->held = true;
        return;
    case OPD_SERVER_FAULT_GOAWAY_CALM:
        opd_http_exchange_goaway(visit->exchange, OPD_HTTP_GOAWAY_CALM);
        visit->held = true;
        return;
    }
    opd__visit_dispatch(visit);
}

static const char *words_of(const opd_server_fault *fault) {
    return fault->text[0] != '\0' ? fault->text : "a fault of the script";
}

static void act(opd__visit *visit) {
    const opd_server_fault *fault = &visit->fault;
    switch (fault->kind) {
    case OPD_SERVER_FAULT_STATUS:
        opd__visit_refuse_as(visit, fault->status, words_of(fault), fault->object_form,
                             fault->retry_after_s);
        return;
    case OPD_SERVER_FAULT_RESET: opd__visit_drop(visit, fault->code, false); return;
    case OPD_SERVER_FAULT_CLOSE: opd__visit_drop(visit, 0, true); return;
    case OPD_SERVER_FAULT_GOAWAY: say_goaway(visit); return;
    case OPD_SERVER_FAULT_STALL: opd_http_exchange_cut(visit->exchange, fault->bytes, true, fault->chunked); break;
    case OPD_SERVER_FAULT_TRUNCATE: opd_http_exchange_cut(visit->exchange, fault->bytes, false, fault->chunked); break;
    case OPD_SERVER_FAULT_SETTINGS: opd_http_exchange_max_streams(visit->exchange, fault->streams); break;
    default: break;
    }
    opd__visit_dispatch(visit);
}

static opd_err on_delay(opd_ctx *ctx, void *state, opd_timer *timer) {
    opd__visit *visit = OPD_CONTAINER_OF(timer, opd__visit, delay);
    (void)ctx;
    (void)state;
    visit->held = false;
    act(visit);
    return OPD_OK;
}

void opd__misbehave_begin(opd__visit *visit) {
    opd__server *server = visit->server;
    if (!opd_server_faults_next(server->c.faults, opd_http_exchange_path(visit->exchange), false,
                         opd_now_ns(server->ctx) - server->started_ns, &visit->fault)) {
        opd__visit_dispatch(visit);
        return;
    }
    opd_timer_init(&visit->delay, server->ctx, on_delay);
    bool hang = visit->fault.kind == OPD_SERVER_FAULT_HANG;
    if (!hang && visit->fault.delay_ms == 0) {
        act(visit);
        return;
    }
    visit->held = true;
    if (hang || opd_timer_start_after(&visit->delay, visit->fault.delay_ms * ns_per_ms) == OPD_OK)
        return;
    visit->held = false; /* no memory for the timer: at once */
    act(visit);
}

void opd__misbehave_answer(opd__visit *visit) {
    if (visit->fault.kind == OPD_SERVER_FAULT_GOAWAY && visit->fault.goaway == OPD_SERVER_FAULT_GOAWAY_TWO_STEP)
        opd_http_exchange_goaway(visit->exchange, OPD_HTTP_GOAWAY_GRACEFUL);
}

void opd__misbehave_early(opd_server_faults *faults, uint64_t elapsed_ns, const opd_alloc *alloc,
                          opd_http_exchange *exchange) {
    char seconds[16];
    opd_http_header headers[] = {{"content-type", "application/json"}, {"retry-after", seconds}};
    opd_server_fault fault;
    opd_slice body;
    if (!opd_server_faults_next(faults, opd_http_exchange_path(exchange), true, elapsed_ns, &fault)) return;
    (void)snprintf(seconds, sizeof seconds, "%d", fault.retry_after_s);
    opd__error_body(alloc, fault.status, words_of(&fault), fault.object_form, &body);
    opd_http_respond_headers(exchange, fault.status, headers, fault.retry_after_s > 0 ? 2 : 1, body);
    opd_buf_release(body.buf);
}
