/* fuzz_http2.c - an HTTP/2 session of either role on hostile bytes: no crash, no leak, and
 * every stream that was started ends exactly once.
 *
 * The first byte chooses the role and how the rest is cut into pieces. The server answers what
 * it can; the client has three requests open.
 */
#include <stdlib.h>
#include <string.h>

#include "core/base/check.h"
#include "tests/fuzz/fuzz.h"
#include "transports/http2.h"

#define PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#define SETTINGS "\0\0\0\4\0\0\0\0\0"
#define ACK "\0\0\0\4\1\0\0\0\0"
/* GET / on stream 1: :method GET, :scheme http, :path /, :authority "a" (static table). */
#define GET1 "\0\0\6\1\5\0\0\0\1\x82\x86\x84\x41\1a"
/* POST on stream 3 with a body of four bytes. */
#define POST3 "\0\0\6\1\4\0\0\0\3\x83\x86\x84\x41\1a" "\0\0\4\0\1\0\0\0\3body"
/* :status 200 on streams 1 and 3; a body on 3. */
#define ANSWER1 "\0\0\1\1\5\0\0\0\1\x88"
#define ANSWER3 "\0\0\1\1\4\0\0\0\3\x88" "\0\0\4\0\1\0\0\0\3body"
#define RESET5 "\0\0\4\3\0\0\0\0\5\0\0\0\7"
#define GOAWAY "\0\0\x8\7\0\0\0\0\0\0\0\0\3\0\0\0\0"
#define WINDOW "\0\0\4\x8\0\0\0\0\0\0\0\1\0"

const opd_fuzz_seed opd_fuzz_seeds[] = {
    OPD_FUZZ_SEED("\x01" PREFACE SETTINGS ACK GET1 POST3 WINDOW),
    OPD_FUZZ_SEED("\x0f" PREFACE SETTINGS POST3 GOAWAY),
    OPD_FUZZ_SEED("\x00" SETTINGS ACK ANSWER1 ANSWER3 RESET5),
    OPD_FUZZ_SEED("\x0e" SETTINGS ANSWER3 GOAWAY WINDOW),
    OPD_FUZZ_SEED("\x01GET / HTTP/1.1\r\n\r\n"),
    {NULL, 0}};

typedef struct fuzz_stream {
    opd_h2_stream *stream;
    int closed;
    bool answered;
} fuzz_stream;

typedef struct fuzz_side {
    fuzz_stream streams[64];
    size_t count;
    opd_buf *body;
} fuzz_side;

static void *on_request(void *arg, opd_h2_stream *stream) {
    fuzz_side *side = arg;
    if (side->count == OPD_COUNTOF(side->streams)) return NULL;
    side->streams[side->count].stream = stream;
    return &side->streams[side->count++];
}

static void on_body(void *arg, void *user, const uint8_t *bytes, size_t size) {
    (void)arg, (void)bytes;
    opd_h2_consume(((fuzz_stream *)user)->stream, size);
}

static void on_complete(void *arg, void *user) {
    fuzz_side *side = arg;
    fuzz_stream *stream = user;
    if (stream->answered || side->body == NULL) return;
    stream->answered = true;
    if (opd_h2_respond(stream->stream, 200, NULL, 0, opd_slice_whole(side->body)) != OPD_OK) abort();
}

static void on_close(void *arg, void *user, const opd_h2_end *end) {
    (void)arg;
    if (end->text == NULL || ((fuzz_stream *)user)->closed++ != 0) abort();
}

static void drain(opd_h2 *h2) {
    static opd_iobatch batch;
    opd_iobatch_init(&batch);
    do {
        opd_iobatch_clear(&batch);
        if (opd_h2_pull(h2, &batch) != OPD_OK) break;
    } while (batch.size_bytes > 0);
    opd_iobatch_clear(&batch);
}

static void start_requests(opd_h2 *h2, fuzz_side *side, opd_buf *body) {
    for (size_t i = 0; i < 3; i++) {
        opd_h2_request request = {.method = i == 1 ? "POST" : "GET", .authority = "a",
                                  .path_prefix = "", .path = "/"};
        if (i == 1) request.body = opd_slice_whole(body);
        fuzz_stream *stream = &side->streams[side->count++];
        if (opd_h2_request_send(h2, &request, stream, &stream->stream) != OPD_OK) abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes) {
    static const opd_h2_events events = {.on_request = on_request, .on_body = on_body,
                                         .on_complete = on_complete, .on_close = on_close};
    if (size_bytes < 1) return 0;
    fuzz_side side = {.count = 0};
    opd_buf *body;
    opd_h2 *h2;
    opd_h2_options options = {.server = data[0] & 1, .max_streams = 32,
                              .stream_window_bytes = 65535, .connection_window_bytes = 65535,
                              .max_header_bytes = 4096};
    if (opd_buf_create(NULL, 3000, &body) != OPD_OK) abort();
    memset(opd_buf_data(body), 'b', 3000);
    if (opd_h2_create(&options, &events, &side, &h2) != OPD_OK) abort();
    if (options.server) side.body = body;
    else start_requests(h2, &side, body);
    drain(h2);
    size_t piece = (data[0] >> 1) == 0 ? size_bytes : data[0] >> 1;
    for (size_t at = 1; at < size_bytes; at += piece) {
        size_t part = size_bytes - at < piece ? size_bytes - at : piece;
        if (opd_h2_receive(h2, data + at, part) != OPD_OK) break;
        drain(h2);
    }
    opd_h2_destroy(h2);
    for (size_t i = 0; i < side.count; i++)
        if (side.streams[i].closed != 1) abort();
    opd_buf_release(body);
    return 0;
}
