/* fuzz_http1.c - HTTP/1.1 on hostile bytes: the reader in both roles, and a server's session.
 *
 * The first byte chooses the role and how the rest is cut into pieces. Beyond "no crash": a message
 * read in pieces is the message read whole, and an exchange that began ends exactly once.
 */
#include <stdlib.h>
#include <string.h>

#include "core/base/check.h"
#include "tests/fuzz/fuzz.h"
#include "transports/http1_server.h"

const opd_fuzz_seed opd_fuzz_seeds[] = {
    OPD_FUZZ_SEED("\x01GET /a?b HTTP/1.1\r\nHost: x\r\nX: y\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n"),
    OPD_FUZZ_SEED("\x0dPOST /p HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello"),
    OPD_FUZZ_SEED("\x05POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5;e\r\nhello\r\n0\r\nT: x\r\n\r\n"),
    OPD_FUZZ_SEED("\x00HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"),
    OPD_FUZZ_SEED("\x0eHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n"),
    OPD_FUZZ_SEED("\x0aHTTP/1.0 503 Busy\r\nRetry-After: 2\r\nConnection: close\r\n\r\nup to the end"),
    OPD_FUZZ_SEED("\x07PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    {NULL, 0}};

enum { HEAD_MAX = 512 };

/* What a reader said, folded into one number, so that two readings can be compared. */
typedef struct reading {
    uint64_t digest;
    size_t taken, messages;
    opd_err err;
} reading;

static void fold(reading *r, const void *bytes, size_t size) {
    const uint8_t *at = bytes;
    for (size_t i = 0; i < size; i++) r->digest = (r->digest ^ at[i]) * 1099511628211u;
}

static void note(reading *r, const opd_h1_reader *reader, const opd_h1_event *event) {
    uint8_t kind = (uint8_t)event->kind;
    if (event->kind != OPD_H1_MORE && event->kind != OPD_H1_BODY) fold(r, &kind, 1);
    if (event->name != NULL) fold(r, event->name, strlen(event->name));
    if (event->value != NULL) fold(r, event->value, strlen(event->value));
    if (event->kind == OPD_H1_BODY) fold(r, event->data, event->size_bytes);
    if (event->kind == OPD_H1_HEAD) fold(r, &reader->keep_alive, 1);
    if (event->kind == OPD_H1_HEAD && reader->chunked && reader->has_length) abort();
    if (event->kind == OPD_H1_END) r->messages++;
    if (reader->head_bytes > HEAD_MAX || reader->line_capacity > HEAD_MAX + 1) abort();
}

static reading read_all(bool server, const uint8_t *data, size_t size, size_t piece) {
    reading r = {.digest = 14695981039346656037u};
    opd_h1_reader reader;
    opd_h1_reader_init(&reader, NULL, server, HEAD_MAX);
    for (size_t at = 0; at < size && r.err == OPD_OK; at += piece) {
        const uint8_t *bytes = data + at;
        size_t left = size - at < piece ? size - at : piece;
        opd_h1_event event;
        do {
            size_t before = left;
            r.err = opd_h1_read(&reader, &bytes, &left, &event);
            if (r.err == OPD_OK) r.taken += before - left;
            if (r.err == OPD_OK) note(&r, &reader, &event);
            if (r.err == OPD_OK && event.kind == OPD_H1_END) opd_h1_reader_next(&reader, false);
        } while (r.err == OPD_OK && (event.kind != OPD_H1_MORE || left > 0));
    }
    opd_h1_reader_fini(&reader);
    return r;
}

/* ---- the session ---- */

typedef struct exchanges {
    opd_h1_session *session;
    int begun, ended;
    bool open, complete;
} exchanges;

static void *on_request(void *arg, opd_h2_stream *stream) {
    exchanges *e = arg;
    if (stream != NULL || e->open) abort();
    e->begun++;
    e->open = true;
    e->complete = false;
    return e->begun % 7 == 0 ? (e->open = false, e->ended++, NULL) : e;
}
static void on_header(void *arg, void *user, const char *name, const char *value) {
    if (arg != user || strlen(name) + strlen(value) > HEAD_MAX) abort();
}
static void on_body(void *arg, void *user, const uint8_t *bytes, size_t size) {
    if (arg != user || bytes == NULL || size == 0) abort();
}
static void on_complete(void *arg, void *user) { ((exchanges *)arg)->complete = user == arg; }
static void on_close(void *arg, void *user, const opd_h2_end *end) {
    exchanges *e = arg;
    if (user != arg || end->text == NULL || !e->open) abort();
    e->open = false;
    e->ended++;
}

static void drain(exchanges *e) {
    static opd_iobatch batch;
    opd_iobatch_init(&batch);
    do {
        opd_iobatch_clear(&batch);
        if (e->open && e->complete) {
            if (opd_h1_session_respond(e->session, 200, NULL, 0, (opd_slice){0}) != OPD_OK) abort();
            e->open = false;
            e->ended++;
        }
        opd_h1_session_pull(e->session, &batch);
    } while (batch.size_bytes > 0 || (e->open && e->complete));
}

static void serve(const uint8_t *data, size_t size, size_t piece) {
    static const opd_h2_events events = {.on_request = on_request, .on_header = on_header, .on_body = on_body,
                                         .on_complete = on_complete, .on_close = on_close};
    exchanges e = {0};
    size_t matched = 0;
    if (opd_h1_is_preface(&matched, data, size)) return;
    if (opd_h1_session_create(NULL, HEAD_MAX, &events, &e, 0, &e.session) != OPD_OK) abort();
    for (size_t at = 0; at < size; at += piece) {
        opd_h1_session_receive(e.session, data + at, size - at < piece ? size - at : piece);
        if (at % 3 == 0) drain(&e); /* or bytes pile up behind a request */
    }
    drain(&e);
    opd_h1_session_destroy(e.session);
    if (e.open || e.begun != e.ended) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes) {
    if (size_bytes < 2) return 0;
    bool server = data[0] & 1;
    size_t piece = (data[0] >> 2) == 0 ? size_bytes : data[0] >> 2;
    reading whole = read_all(server, data + 1, size_bytes - 1, size_bytes);
    reading parts = read_all(server, data + 1, size_bytes - 1, piece);
    if (whole.digest != parts.digest || whole.messages != parts.messages || whole.err != parts.err) abort();
    if (server && (data[0] & 2) == 0) serve(data + 1, size_bytes - 1, piece);
    return 0;
}
