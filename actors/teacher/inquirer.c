/* inquirer.c - questions out, answers in (inquirer.h). Thread: the loop. Memory: calls are their
 * endpoint's. */
#include "actors/teacher/inquirer.h"

#include <stdio.h>

#include "core/base/check.h"
#include "opd/log.h"

static const opd_http_header JSON_HEADERS[] = {{"content-type", "application/json"}};

static opd_err on_answer(opd_ctx *ctx, void *state, opd_endpoint_call *call);

static opd_err fill(const opd_inquirer *q, opd_question question, opd_endpoint_call *call) {
    char rid[OPD_INQUIRY_RID_SIZE];
    call->http.path = opd_inquiry_path(&q->inquiry, question);
    if (call->http.path != NULL) return OPD_OK;
    opd_sglang_score score = opd_inquiry_score(&q->inquiry, question, rid);
    call->http.method = "POST";
    call->http.path = q->o.inquiry.protocol->score_path;
    call->http.headers = JSON_HEADERS;
    call->http.header_count = OPD_COUNTOF(JSON_HEADERS);
    return q->o.inquiry.protocol->write(&score, &call->body);
}

static opd_err ask(opd_inquirer *q, opd_question question) {
    opd_endpoint_call *call;
    OPD_TRY(opd_endpoint_call_create(q->o.endpoint, &call));
    opd_err err = fill(q, question, call);
    q->asked[question] = (struct opd__asked){q, question};
    call->http.attempt_timeout_ms = q->o.attempt_timeout_ms;
    call->http.deadline_ns = q->o.deadline_ns;
    call->answered = on_answer;
    call->arg = &q->asked[question];
    if (err == OPD_OK) err = opd_endpoint_send(call);
    if (err != OPD_OK) opd_endpoint_call_destroy(call);
    return err;
}

/* Asks all that may be asked now. What cannot even be sent counts as answered by that error. */
static void ask_on(opd_inquirer *q) {
    opd_question question;
    while (opd_inquiry_next(&q->inquiry, &question)) {
        opd_err err = ask(q, question);
        if (err == OPD_OK) continue;
        opd_inquiry_answer answer = {.err = err, .error = opd_err_context()};
        opd_inquiry_take(&q->inquiry, question, &answer);
    }
}

static opd_err on_answer(opd_ctx *ctx, void *state, opd_endpoint_call *call) {
    const struct opd__asked *asked = call->arg;
    opd_inquirer *q = asked->inquirer;
    if (call->endpoint != q->o.endpoint) return OPD_OK; /* of a time before */
    OPD_LOG_DEBUG("asked %s for %s: %s, HTTP %d", opd_endpoint_name(call->endpoint),
                  opd_question_name(asked->question), opd_err_name(call->http.err), call->http.status);
    opd_inquiry_answer answer = {.err = call->http.err, .error = call->http.error,
                                 .status = call->http.status, .body = call->http.answer.data,
                                 .size_bytes = call->http.answer.size};
    if (call->http.err == OPD_OK)
        (void)snprintf(q->inquiry.found.http, sizeof q->inquiry.found.http, "%s",
                       opd_endpoint_protocol(q->o.endpoint) == OPD_HTTP_PROTOCOL_HTTP1 ? "HTTP/1.1" : "HTTP/2");
    opd_inquiry_take(&q->inquiry, asked->question, &answer);
    ask_on(q);
    return opd_inquiry_done(&q->inquiry) ? q->o.done(ctx, state, q) : OPD_OK;
}

opd_err opd_inquirer_start(opd_ctx *ctx, opd_inquirer *q, const opd_inquirer_options *options) {
    opd_question question = OPD_QUESTION_MODEL;
    (void)ctx;
    q->o = *options;
    opd_inquiry_init(&q->inquiry, &options->inquiry);
    bool due = opd_inquiry_next(&q->inquiry, &question);
    OPD_ASSERT(due); /* every inquiry begins with the model */
    return ask(q, question);
}
