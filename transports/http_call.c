/* http_call.c - the steps of one call, whatever protocol carries it; see http_client_inside.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/check.h"
#include "transports/http_client_inside.h"
#include "transports/http_head.h"

enum { REPLAYS_MAX = 5, RESERVE_BYTES_MAX = 1 << 20 };

const char *opd__call_method(const opd_http_call *call) {
    if (call->method != NULL) return call->method;
    return call->body.size_bytes > 0 ? "POST" : "GET";
}

void opd__call_to_wire(opd_http_call *call) {
    opd_http_client *client = call->client;
    opd_list_remove(&call->link);
    opd_list_push_back(&client->wire, &call->link);
    client->queued--;
    client->inflight++;
    call->state = OPD__CALL_WIRE;
}

bool opd__call_replay(opd_http_call *call) {
    opd_http_client *client = call->client;
    if (call->replays == REPLAYS_MAX || call->status != 0) return false;
    call->replays++;
    client->replays++;
    opd_list_remove(&call->link);
    opd_list_push_front(&client->queue, &call->link);
    client->queued++;
    client->inflight--;
    call->state = OPD__CALL_QUEUED;
    call->stream = call->pooled = NULL;
    call->attempt_deadline_ns = 0;
    return true;
}

/* ---- the answer ---- */

/* Claims room for an answer of `size` bytes in all; false: there is none. */
static bool claim(opd_http_call *call, size_t size) {
    opd_http_client *client = call->client;
    if (size <= call->claimed_bytes) return true;
    size_t more = size - call->claimed_bytes;
    if (more > client->o.max_total_bytes - client->receiving_bytes) return false;
    client->receiving_bytes += more;
    call->claimed_bytes = size;
    return true;
}

/* An announced length is room at once, without copies on the way; not more than one could lose to a
 * server that promises too much. */
static void reserve_answer(opd_http_call *call, const char *length) {
    unsigned long long size = strtoull(length, NULL, 10);
    if (size <= RESERVE_BYTES_MAX && claim(call, (size_t)size))
        opd_str_reserve(&call->answer, (size_t)size);
}

void opd__call_header(opd_http_call *call, const char *name, const char *value) {
    if (strcmp(name, ":status") == 0) { /* also drops the headers of an interim 1xx answer */
        call->status = (int)strtol(value, NULL, 10);
        opd_str_clear(&call->head);
        return;
    }
    opd__http_head_add(&call->head, name, value);
    if (strcmp(name, "content-length") == 0) reserve_answer(call, value);
}

void opd__call_body(opd_http_call *call, const uint8_t *bytes, size_t size_bytes) {
    opd_http_client *client = call->client;
    char text[128];
    if (!claim(call, call->answer.size + size_bytes)) {
        snprintf(text, sizeof text, "answers being received exceed max_total_bytes (%zu)",
                 client->o.max_total_bytes);
        opd__client_settle(call, OPD_ERR_LIMIT, false, text);
        return;
    }
    opd_str_append(&call->answer, bytes, size_bytes);
    opd_err err = opd_str_status(&call->answer);
    if (err == OPD_OK) return;
    snprintf(text, sizeof text, err == OPD_ERR_LIMIT ? "the answer exceeds max_answer_bytes (%zu)"
             : "no memory for the answer (limit %zu bytes)", client->o.max_answer_bytes);
    opd__client_settle(call, err, false, text);
}

void opd__call_sent(opd_http_call *call) {
    if (call->attempt_timeout_ms == 0) return;
    call->attempt_deadline_ns = opd_tcp_now_ns(call->client->o.env) + call->attempt_timeout_ms * 1000000;
    opd__client_arm(call->client, call->attempt_deadline_ns);
}

/* ---- deadlines ---- */

static uint64_t min_deadline(uint64_t a_ns, uint64_t b_ns) {
    if (a_ns == 0) return b_ns == 0 ? UINT64_MAX : b_ns;
    return b_ns == 0 || a_ns < b_ns ? a_ns : b_ns;
}

static void expire_call(opd_http_call *call, uint64_t now_ns) {
    bool attempt = call->attempt_deadline_ns != 0 && now_ns >= call->attempt_deadline_ns;
    bool whole = call->deadline_ns != 0 && now_ns >= call->deadline_ns;
    char text[160];
    if (whole)
        snprintf(text, sizeof text, call->state == OPD__CALL_QUEUED
                 ? "the deadline passed while the request waited to be sent"
                 : "the deadline passed before the whole answer came (%zu bytes so far)",
                 call->answer.size);
    else if (attempt)
        snprintf(text, sizeof text, "no whole answer within the attempt's %llu ms",
                 (unsigned long long)call->attempt_timeout_ms);
    if (whole || attempt) opd__client_settle(call, OPD_ERR_TIMEOUT, call->state == OPD__CALL_QUEUED, text);
    else opd__client_arm(call->client, min_deadline(call->deadline_ns, call->attempt_deadline_ns));
}

void opd__calls_expire(opd_list *list, uint64_t now_ns) {
    for (opd_list *node = list->next, *next; node != list; node = next) {
        next = node->next;
        expire_call(OPD_CONTAINER_OF(node, opd_http_call, link), now_ns);
    }
}

/* ---- the API ---- */

const char *opd_http_call_header(const opd_http_call *call, const char *name) {
    return opd__http_head_get(&call->head, name);
}

void opd_http_call_reset(opd_http_call *call) {
    OPD_ASSERT(call->state == OPD__CALL_IDLE);
    opd_str_clear(&call->answer);
    opd_str_clear(&call->head);
    call->err = OPD_OK;
    call->status = 0;
    call->retry_safe = false;
    call->error[0] = '\0';
}

void opd_http_call_fini(opd_http_call *call) {
    opd_http_call_reset(call);
    opd_str_fini(&call->answer);
    opd_str_fini(&call->head);
}

/* Makes an empty text of this client out of what the last answer, maybe another client's, left. */
static void text_ready(opd_str *text, const opd_alloc *alloc, size_t max_bytes) {
    if (text->capacity > 0 && text->alloc == alloc) {
        text->max_bytes = max_bytes;
        return;
    }
    opd_str_fini(text);
    opd_str_init(text, alloc, max_bytes);
}

void opd__call_ready(opd_http_call *call, opd_http_client *client) {
    opd_http_call_reset(call);
    text_ready(&call->answer, client->o.alloc, client->o.max_answer_bytes);
    text_ready(&call->head, client->o.alloc, OPD__HEAD_BYTES_MAX * 2);
    call->client = client;
    call->attempt_deadline_ns = 0;
    call->claimed_bytes = 0;
    call->replays = 0;
}
