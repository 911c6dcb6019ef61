/* http2.c - opd_h2 on nghttp2 (1.52 API); see http2.h. The only file that includes nghttp2.h.
 *
 * Each opd_h2_stream is in h2->streams from its start to its end and is the user data of the
 * nghttp2 stream. nghttp2 pulls a body through read_body / send_body: with NO_COPY the first
 * only says how much, the second puts the frame header and the slice into the batch.
 */
#include "transports/http2.h"

#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <string.h>

#include "core/base/check.h"
#include "core/base/list.h"

enum {
    HEADERS_MAX = 64,
    PATH_MAX_BYTES = 8192,
    SMALL_BODY_BYTES = 1024, /* below this, copying is cheaper than one more segment */
    FRAME_HEAD_BYTES = 9
};

struct opd_h2_stream {
    opd_h2 *h2;
    void *user; /* NULL: forgotten by opd_h2_reset */
    opd_list link;
    int32_t id;
    opd_slice body; /* ours to send; holds a reference */
    size_t body_sent_bytes;
    size_t header_bytes;
    opd_err local_err; /* set where we end the stream ourselves */
    size_t cut_bytes;    /* of our body only so many are sent; 0: all */
    bool sent, complete, answered, peer_reset;
    bool stall, detached; /* after the cut nothing more; forgotten, and not reset */
};

struct opd_h2 {
    opd_h2_options options;
    const opd_h2_events *events;
    void *arg;
    nghttp2_session *session;
    nghttp2_mem mem;
    opd_list streams;
    uint32_t stream_count, detached_count;
    opd_iobatch *batch; /* only inside opd_h2_pull */
    size_t received_bytes; /* counted up to the length of the preface */
    bool settled, draining;
    bool failed; /* nghttp2 gave up in the middle of something: it must not be called again */
    char trouble[160]; /* nghttp2's last complaint about the peer */
};

/* ---- memory for nghttp2 ---- */

static void *mem_malloc(size_t size, void *context) {
    return opd_mem_resize(context, NULL, size > 0 ? size : 1);
}
static void mem_free(void *ptr, void *context) { opd_mem_free(context, ptr); }
static void *mem_calloc(size_t count, size_t size, void *context) {
    if (size > 0 && count > SIZE_MAX / size) return NULL;
    return opd_mem_get(context, count * size > 0 ? count * size : 1);
}
static void *mem_realloc(void *ptr, size_t size, void *context) {
    return opd_mem_resize(context, ptr, size > 0 ? size : 1);
}

static opd_err fail_nghttp2(int code, const char *what) {
    opd_err err = code == NGHTTP2_ERR_NOMEM ? OPD_ERR_NOMEM : OPD_ERR_PROTO;
    return opd_fail(err, "HTTP/2: %s: %s", what, nghttp2_strerror(code));
}

/* The error of a call that may leave the session in the middle of a frame. */
static opd_err fail_session(opd_h2 *h2, int code, const char *what) {
    if (nghttp2_is_fatal(code)) h2->failed = true;
    return fail_nghttp2(code, what);
}

static opd_err fail_again(void) {
    return opd_fail(OPD_ERR_CLOSED, "HTTP/2: the connection failed before");
}

/* ---- streams ---- */

static opd_h2_stream *stream_create(opd_h2 *h2, void *user) {
    opd_h2_stream *stream = opd_mem_get(h2->options.alloc, sizeof *stream);
    if (stream == NULL) return NULL;
    stream->h2 = h2;
    stream->user = user;
    opd_list_push_back(&h2->streams, &stream->link);
    h2->stream_count++;
    return stream;
}

static void stream_destroy(opd_h2_stream *stream) {
    opd_h2 *h2 = stream->h2;
    opd_list_remove(&stream->link);
    h2->stream_count--;
    h2->detached_count -= stream->detached;
    opd_buf_release(stream->body.buf);
    opd_mem_free(h2->options.alloc, stream);
}

/* Tells the owner and frees the stream. */
static void stream_end(opd_h2_stream *stream, opd_err err, bool retry_safe, const char *text) {
    opd_h2_end end = {.err = err, .retry_safe = retry_safe, .text = text};
    if (stream->user != NULL) stream->h2->events->on_close(stream->h2->arg, stream->user, &end);
    stream_destroy(stream);
}

static opd_h2_stream *stream_of(opd_h2 *h2, int32_t id) {
    return nghttp2_session_get_stream_user_data(h2->session, id);
}

/* ---- events from nghttp2 ---- */

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *arg) {
    opd_h2 *h2 = arg;
    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
    opd_h2_stream *stream = stream_create(h2, NULL);
    if (stream == NULL) return NGHTTP2_ERR_CALLBACK_FAILURE;
    stream->id = frame->hd.stream_id;
    stream->sent = true;
    nghttp2_session_set_stream_user_data(session, stream->id, stream);
    stream->user = h2->events->on_request(h2->arg, stream);
    if (stream->user != NULL) return 0;
    return nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, stream->id, NGHTTP2_REFUSED_STREAM)
               ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_size, const uint8_t *value, size_t value_size, uint8_t flags,
                     void *arg) {
    (void)session, (void)flags;
    opd_h2 *h2 = arg;
    opd_h2_stream *stream = stream_of(h2, frame->hd.stream_id);
    if (stream == NULL || stream->user == NULL) return 0;
    stream->header_bytes += name_size + value_size + 32; /* counted as RFC 9113 6.5.2 does */
    if (stream->header_bytes > h2->options.max_header_bytes) {
        stream->local_err = OPD_ERR_LIMIT;
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE; /* resets this stream only */
    }
    if (h2->events->on_header != NULL)
        h2->events->on_header(h2->arg, stream->user, (const char *)name, (const char *)value);
    return 0;
}

static int on_data_chunk(nghttp2_session *session, uint8_t flags, int32_t stream_id,
                         const uint8_t *bytes, size_t size_bytes, void *arg) {
    (void)flags;
    opd_h2 *h2 = arg;
    opd_h2_stream *stream = stream_of(h2, stream_id);
    if (stream == NULL || stream->user == NULL || h2->events->on_body == NULL) {
        /* Nobody takes these bytes: give the window back, or the connection would starve. */
        return nghttp2_session_consume(session, stream_id, size_bytes) ? NGHTTP2_ERR_CALLBACK_FAILURE
                                                                        : 0;
    }
    h2->events->on_body(h2->arg, stream->user, bytes, size_bytes);
    return 0;
}

static void frame_completes(opd_h2 *h2, int32_t stream_id) {
    opd_h2_stream *stream = stream_of(h2, stream_id);
    if (stream == NULL || stream->complete) return;
    stream->complete = true;
    /* The answer is whole: what is left of our upload interests nobody. */
    if (!h2->options.server && stream->body_sent_bytes < stream->body.size_bytes)
        (void)nghttp2_submit_rst_stream(h2->session, NGHTTP2_FLAG_NONE, stream_id, NGHTTP2_CANCEL);
    if (stream->user != NULL && h2->events->on_complete != NULL)
        h2->events->on_complete(h2->arg, stream->user);
}

static int on_frame_recv(nghttp2_session *session, const nghttp2_frame *frame, void *arg) {
    (void)session;
    opd_h2 *h2 = arg;
    switch (frame->hd.type) {
        case NGHTTP2_HEADERS:
        case NGHTTP2_DATA:
            if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) frame_completes(h2, frame->hd.stream_id);
            break;
        case NGHTTP2_RST_STREAM: {
            opd_h2_stream *stream = stream_of(h2, frame->hd.stream_id);
            if (stream != NULL) stream->peer_reset = true;
            break;
        }
        case NGHTTP2_SETTINGS:
            if (frame->hd.flags & NGHTTP2_FLAG_ACK) break;
            h2->settled = true;
            if (h2->events->on_settings != NULL) h2->events->on_settings(h2->arg);
            break;
        case NGHTTP2_GOAWAY:
            h2->draining = true;
            if (h2->events->on_goaway != NULL)
                h2->events->on_goaway(h2->arg,
                                      frame->goaway.error_code == NGHTTP2_ENHANCE_YOUR_CALM);
            break;
        default:
            break;
    }
    return 0;
}

static int on_frame_send(nghttp2_session *session, const nghttp2_frame *frame, void *arg) {
    opd_h2 *h2 = arg;
    bool message = frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA;
    opd_h2_stream *stream = message ? stream_of(h2, frame->hd.stream_id) : NULL;
    if (stream == NULL) return 0;
    if (!stream->sent) {
        stream->sent = true;
        if (stream->user != NULL && h2->events->on_sent != NULL)
            h2->events->on_sent(h2->arg, stream->user);
    }
    if (!h2->options.server || !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM)) return 0;
    stream->answered = true;
    /* An answer that ends before its request does: tell the client to stop uploading. */
    if (!stream->complete)
        return nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, stream->id, NGHTTP2_NO_ERROR)
                   ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
    return 0;
}

static int on_frame_not_send(nghttp2_session *session, const nghttp2_frame *frame, int code,
                             void *arg) {
    opd_h2 *h2 = arg;
    if (frame->hd.type != NGHTTP2_HEADERS || h2->options.server) return 0;
    for (opd_list *node = h2->streams.next; node != &h2->streams; node = node->next) {
        opd_h2_stream *stream = OPD_CONTAINER_OF(node, opd_h2_stream, link);
        if (stream->id != frame->hd.stream_id) continue;
        nghttp2_session_set_stream_user_data(session, stream->id, NULL);
        stream_end(stream, OPD_ERR_RESET, true, nghttp2_strerror(code));
        break;
    }
    return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t stream_id, uint32_t code, void *arg) {
    (void)session;
    opd_h2_stream *stream = stream_of(arg, stream_id);
    if (stream == NULL) return 0;
    bool server = stream->h2->options.server;
    bool done = server ? stream->answered : stream->complete;
    if (stream->local_err != OPD_OK)
        stream_end(stream, stream->local_err, false, "the headers exceed the declared maximum");
    else if (done)
        stream_end(stream, OPD_OK, false, "complete");
    else if (code == NGHTTP2_REFUSED_STREAM)
        stream_end(stream, OPD_ERR_REMOTE, !server, "stream refused (REFUSED_STREAM or GOAWAY)");
    else if (stream->peer_reset)
        stream_end(stream, OPD_ERR_REMOTE, false, nghttp2_http2_strerror(code));
    else
        stream_end(stream, OPD_ERR_PROTO, false, nghttp2_http2_strerror(code));
    return 0;
}

static int on_trouble(nghttp2_session *session, int code, const char *text, size_t size, void *arg) {
    (void)session, (void)code;
    opd_h2 *h2 = arg;
    snprintf(h2->trouble, sizeof h2->trouble, "%.*s", (int)(size < 150 ? size : 150), text);
    return 0;
}

/* ---- bytes out ---- */

static ssize_t send_bytes(nghttp2_session *session, const uint8_t *bytes, size_t size, int flags,
                          void *arg) {
    (void)session, (void)flags;
    size_t taken = opd_iobatch_stage(((opd_h2 *)arg)->batch, bytes, size);
    return taken > 0 ? (ssize_t)taken : NGHTTP2_ERR_WOULDBLOCK;
}

static ssize_t read_body(nghttp2_session *session, int32_t stream_id, uint8_t *to, size_t size_max,
                         uint32_t *out_flags, nghttp2_data_source *source, void *arg) {
    (void)session, (void)stream_id, (void)to, (void)arg;
    const opd_h2_stream *stream = source->ptr;
    size_t left = stream->body.size_bytes - stream->body_sent_bytes;
    if (stream->stall && left <= size_max) { /* the end is never said */
        if (left == 0) return NGHTTP2_ERR_DEFERRED;
        *out_flags |= NGHTTP2_DATA_FLAG_NO_COPY;
        return (ssize_t)left;
    }
    *out_flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (left <= size_max) *out_flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)(left <= size_max ? left : size_max);
}

static int send_body(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *head,
                     size_t size, nghttp2_data_source *source, void *arg) {
    (void)session, (void)frame;
    opd_iobatch *batch = ((opd_h2 *)arg)->batch;
    opd_h2_stream *stream = source->ptr;
    if (!opd_iobatch_fits(batch, FRAME_HEAD_BYTES + SMALL_BODY_BYTES)) return NGHTTP2_ERR_WOULDBLOCK;
    opd_slice part = stream->body;
    part.offset_bytes += stream->body_sent_bytes;
    part.size_bytes = size;
    opd_iobatch_stage(batch, head, FRAME_HEAD_BYTES);
    if (size > SMALL_BODY_BYTES)
        opd_iobatch_slice(batch, part);
    else if (size > 0)
        opd_iobatch_stage(batch, opd_slice_data(part), size);
    stream->body_sent_bytes += size;
    return 0;
}

opd_err opd_h2_pull(opd_h2 *h2, opd_iobatch *batch) {
    OPD_ASSERT(h2->batch == NULL);
    if (h2->failed) return fail_again();
    h2->batch = batch;
    int code = nghttp2_session_send(h2->session);
    h2->batch = NULL;
    return code == 0 ? OPD_OK : fail_session(h2, code, "cannot send");
}

/* ---- bytes in ---- */

static size_t preface_bytes(const opd_h2 *h2) {
    return h2->options.server ? NGHTTP2_CLIENT_MAGIC_LEN : 1;
}

bool opd_h2_greeted(const opd_h2 *h2) { return h2->received_bytes == preface_bytes(h2); }

/* Looks at the very first bytes: a peer that speaks HTTP/1.1 deserves a clear word, and nghttp2
 * would only see a broken frame. A server's first frame is SETTINGS, whose length has a zero
 * high byte; a client sends the fixed preface. */
static opd_err check_preface(opd_h2 *h2, const uint8_t *bytes, size_t size) {
    const char *preface = h2->options.server ? NGHTTP2_CLIENT_MAGIC : "";
    for (size_t i = 0; i < size && !opd_h2_greeted(h2); i++, h2->received_bytes++)
        if (bytes[i] != (uint8_t)preface[h2->received_bytes])
            return opd_fail(OPD_ERR_UNSUPPORTED, "the %s does not speak HTTP/2 by prior knowledge",
                            h2->options.server ? "client" : "server");
    return OPD_OK;
}

opd_err opd_h2_receive(opd_h2 *h2, const uint8_t *bytes, size_t size_bytes) {
    if (h2->failed) return fail_again();
    OPD_TRY(check_preface(h2, bytes, size_bytes));
    ssize_t taken = nghttp2_session_mem_recv(h2->session, bytes, size_bytes);
    if (taken < 0) return fail_session(h2, (int)taken, "the peer broke the protocol");
    return OPD_OK;
}

/* ---- sessions ---- */

static opd_err callbacks_create(nghttp2_session_callbacks **out_callbacks) {
    nghttp2_session_callbacks *c;
    if (nghttp2_session_callbacks_new(&c) != 0)
        return opd_fail(OPD_ERR_NOMEM, "HTTP/2: no memory for a session");
    nghttp2_session_callbacks_set_send_callback(c, send_bytes);
    nghttp2_session_callbacks_set_send_data_callback(c, send_body);
    nghttp2_session_callbacks_set_on_begin_headers_callback(c, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(c, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(c, on_data_chunk);
    nghttp2_session_callbacks_set_on_frame_recv_callback(c, on_frame_recv);
    nghttp2_session_callbacks_set_on_frame_send_callback(c, on_frame_send);
    nghttp2_session_callbacks_set_on_frame_not_send_callback(c, on_frame_not_send);
    nghttp2_session_callbacks_set_on_stream_close_callback(c, on_stream_close);
    nghttp2_session_callbacks_set_error_callback2(c, on_trouble);
    *out_callbacks = c;
    return OPD_OK;
}

static opd_err session_create(opd_h2 *h2) {
    nghttp2_session_callbacks *callbacks = NULL;
    nghttp2_option *option = NULL;
    OPD_TRY(callbacks_create(&callbacks));
    if (nghttp2_option_new(&option) != 0) {
        nghttp2_session_callbacks_del(callbacks);
        return opd_fail(OPD_ERR_NOMEM, "HTTP/2: no memory for a session");
    }
    nghttp2_option_set_no_auto_window_update(option, 1);
    nghttp2_option_set_no_closed_streams(option, 1);
    int code = h2->options.server
        ? nghttp2_session_server_new3(&h2->session, callbacks, h2, option, &h2->mem)
        : nghttp2_session_client_new3(&h2->session, callbacks, h2, option, &h2->mem);
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(callbacks);
    return code == 0 ? OPD_OK : fail_nghttp2(code, "cannot make a session");
}

static opd_err send_settings(opd_h2 *h2) {
    const opd_h2_options *o = &h2->options;
    nghttp2_settings_entry entries[3] = {
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, o->stream_window_bytes},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, o->max_header_bytes},
        {NGHTTP2_SETTINGS_ENABLE_PUSH, 0}};
    if (o->server)
        entries[2] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, o->max_streams};
    int code = nghttp2_submit_settings(h2->session, NGHTTP2_FLAG_NONE, entries, OPD_COUNTOF(entries));
    if (code == 0)
        code = nghttp2_session_set_local_window_size(h2->session, NGHTTP2_FLAG_NONE, 0,
                                                     (int32_t)o->connection_window_bytes);
    return code == 0 ? OPD_OK : fail_nghttp2(code, "cannot announce settings");
}

opd_err opd_h2_create(const opd_h2_options *options, const opd_h2_events *events, void *arg,
                      opd_h2 **out_h2) {
    OPD_ASSERT(options->stream_window_bytes > 0 && options->stream_window_bytes <= INT32_MAX);
    OPD_ASSERT(options->connection_window_bytes <= INT32_MAX);
    opd_h2 *h2 = opd_mem_get(options->alloc, sizeof *h2);
    if (h2 == NULL) return opd_fail(OPD_ERR_NOMEM, "HTTP/2: no memory for a session");
    h2->options = *options;
    h2->events = events;
    h2->arg = arg;
    /* nghttp2 hands the context back as it is; our functions never write through it. */
    h2->mem = (nghttp2_mem){(void *)(uintptr_t)options->alloc, mem_malloc, mem_free, mem_calloc,
                            mem_realloc};
    opd_list_init(&h2->streams);
    opd_err err = session_create(h2);
    if (err == OPD_OK) err = send_settings(h2);
    if (err != OPD_OK) {
        opd_h2_destroy(h2);
        return err;
    }
    *out_h2 = h2;
    return OPD_OK;
}

void opd_h2_destroy(opd_h2 *h2) {
    if (h2 == NULL) return;
    const char *text = h2->trouble[0] != '\0' ? h2->trouble : "the connection was lost";
    for (opd_list *node; (node = opd_list_first(&h2->streams)) != NULL;) {
        opd_h2_stream *stream = OPD_CONTAINER_OF(node, opd_h2_stream, link);
        bool done = stream->complete && !h2->options.server;
        stream_end(stream, done ? OPD_OK : OPD_ERR_RESET, !stream->sent, done ? "complete" : text);
    }
    nghttp2_session_del(h2->session);
    opd_mem_free(h2->options.alloc, h2);
}

void opd_h2_blame(opd_h2 *h2, const char *text) {
    snprintf(h2->trouble, sizeof h2->trouble, "%.150s", text);
}

bool opd_h2_finished(const opd_h2 *h2) {
    return !nghttp2_session_want_read(h2->session) && !nghttp2_session_want_write(h2->session);
}

bool opd_h2_settled(const opd_h2 *h2) { return h2->settled; }

bool opd_h2_ready(const opd_h2 *h2) {
    return h2->settled && !h2->draining && nghttp2_session_check_request_allowed(h2->session);
}

uint32_t opd_h2_peer_max_streams(const opd_h2 *h2) {
    return nghttp2_session_get_remote_settings(h2->session, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
}

uint32_t opd_h2_stream_count(const opd_h2 *h2) { return h2->stream_count; }

void opd_h2_notice(opd_h2 *h2) { (void)nghttp2_submit_shutdown_notice(h2->session); }

void opd_h2_goaway(opd_h2 *h2) {
    h2->draining = true;
    /* A failure here is lack of memory; the owner's drain deadline then ends the connection. */
    int32_t last = nghttp2_session_get_last_proc_stream_id(h2->session);
    (void)nghttp2_submit_goaway(h2->session, NGHTTP2_FLAG_NONE, last, NGHTTP2_NO_ERROR, NULL, 0);
}

/* ---- messages ---- */

static nghttp2_nv nv_make(const char *name, const char *value) {
    /* nghttp2 copies both; its pointers lack const only for history. A key is in no table of HPACK
     * (RFC 7541 7.1.3). */
    uint8_t flags = strcmp(name, "authorization") == 0 ? NGHTTP2_NV_FLAG_NO_INDEX
                                                       : NGHTTP2_NV_FLAG_NONE;
    return (nghttp2_nv){(uint8_t *)(uintptr_t)name, (uint8_t *)(uintptr_t)value, strlen(name),
                        strlen(value), flags};
}

/* Appends headers and a content-length to nv, which holds HEADERS_MAX. */
static opd_err nv_fill(nghttp2_nv *nv, size_t *count, const opd_http_header *headers,
                       size_t header_count, const char *content_length) {
    if (header_count > HEADERS_MAX - 1 - *count)
        return opd_fail(OPD_ERR_LIMIT, "HTTP/2: %zu headers are too many", header_count);
    for (size_t i = 0; i < header_count; i++)
        nv[(*count)++] = nv_make(headers[i].name, headers[i].value);
    if (content_length[0] != '\0') nv[(*count)++] = nv_make("content-length", content_length);
    return OPD_OK;
}

static void stream_body_set(opd_h2_stream *stream, opd_slice body) {
    if (body.size_bytes == 0) return;
    stream->body = body;
    if (stream->cut_bytes > 0 && stream->cut_bytes < body.size_bytes)
        stream->body.size_bytes = stream->cut_bytes;
    else
        stream->stall = false; /* all of it is sent */
    opd_buf_retain(body.buf);
}

static opd_err request_submit(opd_h2_stream *stream, const opd_h2_request *request,
                              const char *path) {
    char length[24] = "";
    nghttp2_nv nv[HEADERS_MAX] = {
        nv_make(":method", request->method),
        nv_make(":scheme", request->scheme != NULL ? request->scheme : "http"),
        nv_make(":authority", request->authority), nv_make(":path", path)};
    size_t count = 4;
    if (request->body.size_bytes > 0) snprintf(length, sizeof length, "%zu", request->body.size_bytes);
    OPD_TRY(nv_fill(nv, &count, request->headers, request->header_count, length));
    stream_body_set(stream, request->body);
    nghttp2_data_provider provider = {.source.ptr = stream, .read_callback = read_body};
    int32_t id = nghttp2_submit_request(stream->h2->session, NULL, nv, count,
                                        stream->body.size_bytes > 0 ? &provider : NULL, stream);
    if (id == NGHTTP2_ERR_STREAM_ID_NOT_AVAILABLE)
        return opd_fail(OPD_ERR_CLOSED, "HTTP/2: no stream ids left on this connection");
    if (id < 0) return fail_nghttp2(id, "cannot start a request");
    stream->id = id;
    return OPD_OK;
}

opd_err opd_h2_request_send(opd_h2 *h2, const opd_h2_request *request, void *user,
                            opd_h2_stream **out_stream) {
    OPD_ASSERT(!h2->options.server && user != NULL);
    char path[PATH_MAX_BYTES];
    int size = snprintf(path, sizeof path, "%s%s", request->path_prefix, request->path);
    if (size < 0 || (size_t)size >= sizeof path)
        return opd_fail(OPD_ERR_LIMIT, "HTTP/2: the path is longer than %d bytes", PATH_MAX_BYTES);
    opd_h2_stream *stream = stream_create(h2, user);
    if (stream == NULL) return opd_fail(OPD_ERR_NOMEM, "HTTP/2: no memory for a stream");
    opd_err err = request_submit(stream, request, path);
    if (err != OPD_OK) {
        stream_destroy(stream);
        return err;
    }
    *out_stream = stream;
    return OPD_OK;
}

opd_err opd_h2_respond(opd_h2_stream *stream, int status, const opd_http_header *headers,
                       size_t header_count, opd_slice body) {
    char code_text[16], length[24];
    snprintf(code_text, sizeof code_text, "%03d", status);
    snprintf(length, sizeof length, "%zu", body.size_bytes);
    nghttp2_nv nv[HEADERS_MAX] = {nv_make(":status", code_text)};
    size_t count = 1;
    OPD_TRY(nv_fill(nv, &count, headers, header_count, length));
    stream_body_set(stream, body);
    nghttp2_data_provider provider = {.source.ptr = stream, .read_callback = read_body};
    int code = nghttp2_submit_response(stream->h2->session, stream->id, nv, count,
                                       stream->body.size_bytes > 0 ? &provider : NULL);
    return code == 0 ? OPD_OK : fail_nghttp2(code, "cannot answer");
}

void opd_h2_farewell_send(opd_h2_stream *stream, opd_h2_farewell kind) {
    nghttp2_session *session = stream->h2->session;
    bool drop = kind == OPD_H2_FAREWELL_DROP || kind == OPD_H2_FAREWELL_CALM;
    uint32_t code = kind == OPD_H2_FAREWELL_CALM ? NGHTTP2_ENHANCE_YOUR_CALM : NGHTTP2_NO_ERROR;
    int32_t last = drop ? (stream->id > 2 ? stream->id - 2 : 0)
                        : nghttp2_session_get_last_proc_stream_id(session);
    if (kind != OPD_H2_FAREWELL_NOTICE) stream->h2->draining = true;
    /* Without memory the fault does not happen. */
    if (kind == OPD_H2_FAREWELL_NOTICE) (void)nghttp2_submit_shutdown_notice(session);
    else (void)nghttp2_submit_goaway(session, NGHTTP2_FLAG_NONE, last, code, NULL, 0);
}

void opd_h2_cut(opd_h2_stream *stream, size_t size_bytes, bool stall) {
    stream->cut_bytes = size_bytes > 0 ? size_bytes : 1;
    stream->stall = stall;
}

void opd_h2_max_streams_set(opd_h2_stream *stream, uint32_t max_streams) {
    nghttp2_settings_entry entry = {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, max_streams};
    (void)nghttp2_submit_settings(stream->h2->session, NGHTTP2_FLAG_NONE, &entry, 1);
}

void opd_h2_detach(opd_h2_stream *stream) {
    if (stream->user != NULL) stream->h2->detached_count++;
    if (stream->user != NULL) stream->detached = true;
    stream->user = NULL;
}

uint32_t opd_h2_detached_count(const opd_h2 *h2) { return h2->detached_count; }

void opd_h2_reset_detached(opd_h2 *h2) {
    for (opd_list *node = h2->streams.next; node != &h2->streams; node = node->next) {
        opd_h2_stream *stream = OPD_CONTAINER_OF(node, opd_h2_stream, link);
        if (!stream->detached) continue;
        stream->detached = false;
        h2->detached_count--;
        opd_h2_reset(stream, OPD_H2_CODE_CANCEL);
        return;
    }
}

void opd_h2_ping(opd_h2 *h2) {
    /* Without memory nothing is sent, and nothing will be heard: the owner's limit ends it. */
    (void)nghttp2_submit_ping(h2->session, NGHTTP2_FLAG_NONE, NULL);
}

bool opd_h2_attached(const opd_h2_stream *stream) { return stream->user != NULL; }

void opd_h2_reset(opd_h2_stream *stream, opd_h2_code code) {
    stream->user = NULL;
    /* Fails only without memory: the stream then stays open and silent until the connection goes. */
    (void)nghttp2_submit_rst_stream(stream->h2->session, NGHTTP2_FLAG_NONE, stream->id,
                                    (uint32_t)code);
}

void opd_h2_consume(opd_h2_stream *stream, size_t size_bytes) {
    /* As above: without memory the window stays smaller, which is safe. */
    (void)nghttp2_session_consume(stream->h2->session, stream->id, size_bytes);
}
