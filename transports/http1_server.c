/* http1_server.c - see http1_server.h.
 *
 * An exchange's way: START (on_request) -> bytes -> END (on_complete) -> respond -> its bytes pulled ->
 * the next one. Thread: one owner; the session owns its reader, writer and waiting bytes.
 */
#include "transports/http1_server.h"

#include <stdio.h>
#include <string.h>

#include "core/base/check.h"
#include "opd/log.h"

enum { PENDING_BYTES_MAX = 64 * 1024, HEADS_OUT_MAX = 64 * 1024 };
static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

struct opd_h1_session {
    const opd_alloc *alloc;
    const opd_h2_events *events;
    void *arg;
    opd_h1_reader reader;
    opd_h1_writer writer;
    opd_str pending; /* bytes of requests behind the one under way */
    void *user;      /* the exchange, NULL once it is over or forgotten */
    bool busy;       /* a request has begun and was not answered */
    bool complete;   /* and has been read to its end */
    bool closing;    /* the present answer is the last; what comes in is dropped */
    size_t cut_bytes; /* of the next body no more than this is sent; 0: all of it */
    bool stall, chunked;
    bool last;        /* the next answer ends the connection */
};

bool opd_h1_is_preface(size_t *matched, const uint8_t *bytes, size_t size_bytes) {
    for (size_t i = 0; i < size_bytes && *matched < sizeof preface - 1; i++, ++*matched)
        if (bytes[i] != (uint8_t)preface[*matched]) return false;
    return true;
}

bool opd_h1_preface_whole(size_t matched) { return matched == sizeof preface - 1; }

static void end_exchange(opd_h1_session *session, opd_err err, const char *text) {
    opd_h2_end end = {.err = err, .text = text};
    void *user = session->user;
    session->user = NULL;
    if (user != NULL) session->events->on_close(session->arg, user, &end);
}

/* ---- requests ---- */

/* Says why there is no proper answer; the last word on this connection. */
static void refuse(opd_h1_session *session, int status, const char *why) {
    static const opd_http_header type = {"content-type", "text/plain; charset=utf-8"};
    opd_buf *body = NULL;
    char text[256];
    int size = snprintf(text, sizeof text, "%.200s\n", why);
    end_exchange(session, OPD_ERR_PROTO, why);
    session->closing = true;
    session->busy = false;
    if (opd_buf_create(session->alloc, (size_t)size, &body) != OPD_OK) return; /* then no last word */
    memcpy(opd_buf_data(body), text, (size_t)size);
    opd_err err = opd_h1_write_response(&session->writer, status, &type, 1, opd_slice_whole(body), true);
    if (err != OPD_OK) OPD_LOG_WARN("a refusal (%d) could not be sent: %s", status, opd_err_context());
    opd_buf_release(body);
}

static void start_request(opd_h1_session *session, const opd_h1_event *event) {
    session->busy = true;
    session->complete = false;
    session->user = session->events->on_request(session->arg, NULL);
    if (session->user == NULL) {
        refuse(session, 503, "the server cannot take this request now; try again later");
        return;
    }
    session->events->on_header(session->arg, session->user, ":method", event->name);
    if (session->user != NULL)
        session->events->on_header(session->arg, session->user, ":path", event->value);
}

/* The head is whole: a client that asks first is told to send its body. */
static void take_head(opd_h1_session *session) {
    if (!session->reader.keep_alive || session->reader.http10) session->closing = true;
    if (!session->reader.expects_continue || session->user == NULL) return;
    if (opd_h1_write_continue(&session->writer) != OPD_OK)
        refuse(session, 503, "the server is out of memory");
}

static void take_end(opd_h1_session *session) {
    session->complete = true;
    if (session->user != NULL) session->events->on_complete(session->arg, session->user);
}

/* Whether bytes may be read now: not beyond the request under way, nor after the last one. */
static bool may_read(const opd_h1_session *session) {
    if (session->busy) return session->user != NULL && !session->complete;
    return !session->closing && opd_h1_writer_empty(&session->writer);
}

static void take_event(opd_h1_session *session, const opd_h1_event *event) {
    const opd_h2_events *events = session->events;
    switch (event->kind) {
        case OPD_H1_START: start_request(session, event); break;
        case OPD_H1_HEADER: events->on_header(session->arg, session->user, event->name, event->value); break;
        case OPD_H1_HEAD: take_head(session); break;
        case OPD_H1_BODY: events->on_body(session->arg, session->user, event->data, event->size_bytes); break;
        case OPD_H1_END: take_end(session); break;
        case OPD_H1_MORE: break;
    }
}

/* Reads what may be read; returns how many bytes that were. */
static size_t take(opd_h1_session *session, const uint8_t *bytes, size_t size_bytes) {
    size_t left = size_bytes;
    opd_h1_event event = {.kind = OPD_H1_HEAD};
    while (event.kind != OPD_H1_MORE && may_read(session)) {
        opd_err err = opd_h1_read(&session->reader, &bytes, &left, &event);
        if (err != OPD_OK) refuse(session, session->reader.refusal, opd_err_context());
        else take_event(session, &event);
    }
    return size_bytes - left;
}

void opd_h1_session_receive(opd_h1_session *session, const uint8_t *bytes, size_t size_bytes) {
    if (session->pending.size == 0) {
        size_t taken = take(session, bytes, size_bytes);
        bytes += taken;
        size_bytes -= taken;
    }
    if (size_bytes == 0 || session->closing) return;
    opd_str_append(&session->pending, bytes, size_bytes);
    if (opd_str_status(&session->pending) == OPD_OK) return;
    session->closing = true; /* too much behind one request: answer that one and end */
    opd_str_clear(&session->pending);
}

/* ---- answers ---- */

opd_err opd_h1_session_respond(opd_h1_session *session, int status, const opd_http_header *headers,
                               size_t header_count, opd_slice body) {
    bool cut = session->cut_bytes > 0;
    if (!session->complete || cut || session->last) session->closing = true;
    session->user = NULL;
    session->busy = session->stall;
    opd_err err = cut ? opd_h1_write_cut_response(&session->writer, status, headers, header_count, body,
                                                  session->cut_bytes, session->chunked)
                      : opd_h1_write_response(&session->writer, status, headers, header_count, body,
                                              session->closing);
    if (err != OPD_OK) session->closing = true;
    else if (!session->closing) opd_h1_reader_next(&session->reader, false);
    return err;
}

void opd_h1_session_cut(opd_h1_session *session, size_t size_bytes, bool stall, bool chunked) {
    session->cut_bytes = size_bytes > 0 ? size_bytes : 1;
    session->stall = stall;
    session->chunked = chunked;
}

void opd_h1_session_detach(opd_h1_session *session) {
    session->user = NULL;
    if (session->stall) return; /* nothing more happens here until the peer goes */
    if (session->busy) session->closing = true;
    session->busy = false;
}

void opd_h1_session_pull(opd_h1_session *session, opd_iobatch *batch) {
    opd_h1_writer_pull(&session->writer, batch);
    while (session->pending.size > 0 && may_read(session)) {
        /* Moved out first: what is read may add to what waits. */
        opd_str waiting = session->pending;
        opd_str_init(&session->pending, session->alloc, PENDING_BYTES_MAX);
        const uint8_t *bytes = (const uint8_t *)waiting.data;
        size_t taken = take(session, bytes, waiting.size);
        if (taken < waiting.size) opd_str_append(&session->pending, bytes + taken, waiting.size - taken);
        opd_str_fini(&waiting);
        opd_h1_writer_pull(&session->writer, batch);
    }
}

bool opd_h1_session_attached(const opd_h1_session *session) { return session->user != NULL; }

void opd_h1_session_last(opd_h1_session *session) { session->last = true; }

void opd_h1_session_drain(opd_h1_session *session) { session->closing = true; }

bool opd_h1_session_idle(const opd_h1_session *session) {
    return !session->busy && opd_h1_writer_empty(&session->writer);
}

bool opd_h1_session_finished(const opd_h1_session *session) {
    return session->closing && opd_h1_session_idle(session);
}

/* ---- sessions ---- */

opd_err opd_h1_session_create(const opd_alloc *alloc, size_t max_head_bytes,
                              const opd_h2_events *events, void *arg, size_t preface_bytes,
                              opd_h1_session **out_session) {
    opd_h1_session *session = opd_mem_get(alloc, sizeof *session);
    if (session == NULL) return opd_fail(OPD_ERR_NOMEM, "HTTP/1.1: no memory for a session");
    session->alloc = alloc;
    session->events = events;
    session->arg = arg;
    opd_h1_reader_init(&session->reader, alloc, true, max_head_bytes);
    opd_h1_writer_init(&session->writer, alloc, HEADS_OUT_MAX);
    opd_str_init(&session->pending, alloc, PENDING_BYTES_MAX);
    /* Its first line is no request of HTTP/1.1, so no exchange can begin in here. */
    opd_h1_session_receive(session, (const uint8_t *)preface, preface_bytes);
    *out_session = session;
    return OPD_OK;
}

void opd_h1_session_destroy(opd_h1_session *session) {
    if (session == NULL) return;
    end_exchange(session, OPD_ERR_RESET, "the connection was lost");
    opd_h1_reader_fini(&session->reader);
    opd_h1_writer_fini(&session->writer);
    opd_str_fini(&session->pending);
    opd_mem_free(session->alloc, session);
}
