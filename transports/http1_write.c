/* http1_write.c - the writer of http1.h. Thread: one owner; the head is copied, the body
 * referenced. */
#include <stdio.h>
#include <string.h>

#include "core/base/check.h"
#include "transports/http1.h"

enum {
    SMALL_BODY_BYTES = 1024,   /* below this, copying is cheaper than one more segment           */
    PIECE_BYTES = 256 * 1024   /* of a long body in one pull, so that a connection takes turns   */
};

void opd_h1_writer_init(opd_h1_writer *writer, const opd_alloc *alloc, size_t max_head_bytes) {
    *writer = (opd_h1_writer){0};
    opd_str_init(&writer->head, alloc, max_head_bytes);
}

void opd_h1_writer_fini(opd_h1_writer *writer) {
    opd_str_fini(&writer->head);
    opd_buf_release(writer->body.buf);
    writer->body = (opd_slice){0};
}

bool opd_h1_writer_empty(const opd_h1_writer *writer) {
    return writer->sent_bytes == writer->head.size && writer->body.buf == NULL;
}

/* ---- what may be written ---- */

static bool is_name(const char *text) {
    if (*text == '\0') return false;
    for (; *text != '\0'; text++) {
        bool plain = (*text >= 'a' && *text <= 'z') || (*text >= '0' && *text <= '9');
        if (!plain && strchr("!#$%&'*+-.^_`|~", *text) == NULL) return false;
    }
    return true;
}

/* No byte that ends a line; space: may it hold blanks? */
static bool is_plain(const char *text, bool space) {
    for (; *text != '\0'; text++)
        if (((uint8_t)*text <= 0x20 || *text == 0x7f) && !(space && (*text == ' ' || *text == '\t')))
            return false;
    return true;
}

static bool is_own(const char *name) {
    static const char *const own[] = {"host", "connection", "content-length", "transfer-encoding",
                                      "upgrade"};
    for (size_t i = 0; i < OPD_COUNTOF(own); i++)
        if (strcmp(name, own[i]) == 0) return true;
    return false;
}

static opd_err check_headers(const opd_http_header *headers, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (!is_name(headers[i].name) || is_own(headers[i].name) || !is_plain(headers[i].value, true))
            return opd_fail(OPD_ERR_INVALID, "HTTP/1.1: the header \"%.64s\" cannot be sent: its name "
                            "is reserved or not lower-case, or its value has control bytes",
                            headers[i].name);
    }
    return OPD_OK;
}

/* ---- messages ---- */

static void put_headers(opd_str *head, const opd_http_header *headers, size_t count) {
    for (size_t i = 0; i < count; i++) opd_str_printf(head, "%s: %s\r\n", headers[i].name, headers[i].value);
}

/* Forgets what has left, so that the bound is one of what waits. */
static void make_room(opd_h1_writer *writer) {
    if (writer->sent_bytes < writer->head.size) return;
    opd_str_clear(&writer->head);
    writer->sent_bytes = 0;
}

/* Ends a head: with its body if all of it fitted, else as if it had not been begun. */
static opd_err seal(opd_h1_writer *writer, opd_slice body) {
    opd_str_text(&writer->head, "\r\n");
    opd_err err = opd_str_status(&writer->head);
    if (err != OPD_OK) {
        opd_str_clear(&writer->head);
        writer->sent_bytes = 0;
        return err;
    }
    if (body.size_bytes > 0) {
        opd_buf_retain(body.buf);
        writer->body = body;
    }
    return OPD_OK;
}

opd_err opd_h1_write_request(opd_h1_writer *writer, const char *method, const char *authority,
                             const char *path_prefix, const char *path,
                             const opd_http_header *headers, size_t header_count, opd_slice body) {
    OPD_ASSERT(opd_h1_writer_empty(writer));
    OPD_TRY(check_headers(headers, header_count));
    if (!is_plain(method, false) || !is_plain(path_prefix, false) || !is_plain(path, false))
        return opd_fail(OPD_ERR_INVALID, "HTTP/1.1: a method or path with blanks or control bytes");
    make_room(writer);
    opd_str *head = &writer->head;
    opd_str_printf(head, "%s %s%s HTTP/1.1\r\nhost: %s\r\n", method, path_prefix, path, authority);
    put_headers(head, headers, header_count);
    bool bodiless = strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0;
    if (body.size_bytes > 0 || !bodiless) opd_str_printf(head, "content-length: %zu\r\n", body.size_bytes);
    return seal(writer, body);
}

static const char *reason_of(int status) {
    switch (status) {
        case 200: return "OK";
        case 400: return "Bad Request";
        case 404: return "Not Found";
        case 405: return "Method Not Allowed";
        case 408: return "Request Timeout";
        case 413: return "Content Too Large";
        case 431: return "Request Header Fields Too Large";
        case 500: return "Internal Server Error";
        case 501: return "Not Implemented";
        case 503: return "Service Unavailable";
        case 505: return "HTTP Version Not Supported";
        default: return ""; /* the phrase says nothing that the number does not */
    }
}

/* The head, but for what says how long the body is. */
static opd_err begin_response(opd_h1_writer *writer, int status, const opd_http_header *headers,
                              size_t header_count) {
    OPD_ASSERT(writer->body.buf == NULL);
    OPD_TRY(check_headers(headers, header_count));
    make_room(writer);
    opd_str_printf(&writer->head, "HTTP/1.1 %03d %s\r\n", status, reason_of(status));
    put_headers(&writer->head, headers, header_count);
    return OPD_OK;
}

opd_err opd_h1_write_response(opd_h1_writer *writer, int status, const opd_http_header *headers,
                              size_t header_count, opd_slice body, bool close) {
    OPD_TRY(begin_response(writer, status, headers, header_count));
    opd_str *head = &writer->head;
    bool bodiless = status == 204 || status == 304;
    if (!bodiless) opd_str_printf(head, "content-length: %zu\r\n", body.size_bytes);
    if (close) opd_str_text(head, "connection: close\r\n");
    return seal(writer, bodiless ? (opd_slice){0} : body);
}

opd_err opd_h1_write_cut_response(opd_h1_writer *writer, int status, const opd_http_header *headers,
                                  size_t header_count, opd_slice body, size_t size_bytes, bool chunked) {
    OPD_TRY(begin_response(writer, status, headers, header_count));
    opd_str *head = &writer->head;
    if (chunked) opd_str_printf(head, "transfer-encoding: chunked\r\n\r\n%zx", body.size_bytes);
    else opd_str_printf(head, "content-length: %zu\r\n", body.size_bytes);
    if (body.size_bytes > size_bytes) body.size_bytes = size_bytes;
    return seal(writer, body); /* its empty line is the head's end, or that of the chunk's size */
}

opd_err opd_h1_write_continue(opd_h1_writer *writer) {
    make_room(writer);
    opd_str_text(&writer->head, "HTTP/1.1 100 Continue\r\n");
    return seal(writer, (opd_slice){0});
}

void opd_h1_writer_pull(opd_h1_writer *writer, opd_iobatch *batch) {
    writer->sent_bytes += opd_iobatch_stage(batch, writer->head.data + writer->sent_bytes,
                                            writer->head.size - writer->sent_bytes);
    if (writer->sent_bytes < writer->head.size || writer->body.buf == NULL) return;
    size_t size = writer->body.size_bytes;
    if (!opd_iobatch_fits(batch, SMALL_BODY_BYTES)) return;
    if (size > PIECE_BYTES) {
        opd_slice piece = writer->body;
        piece.size_bytes = PIECE_BYTES;
        opd_iobatch_slice(batch, piece);
        writer->body.offset_bytes += PIECE_BYTES;
        writer->body.size_bytes -= PIECE_BYTES;
        return;
    }
    if (size > SMALL_BODY_BYTES) opd_iobatch_slice(batch, writer->body);
    else opd_iobatch_stage(batch, opd_slice_data(writer->body), size);
    opd_buf_release(writer->body.buf);
    writer->body = (opd_slice){0};
}
