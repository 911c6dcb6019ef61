/* http_respond.c - the shorter ways to answer an exchange (http.h), in terms of
 * opd_http_respond_headers. Thread: the loop. Nothing to free. */
#include <string.h>

#include "transports/http_server_inside.h"

void opd_http_respond(opd_http_exchange *exchange, int status, const char *content_type,
                      opd_slice body) {
    opd_http_header header = {"content-type", content_type};
    opd_http_respond_headers(exchange, status, &header, content_type != NULL ? 1 : 0, body);
}

void opd_http_respond_text(opd_http_exchange *exchange, int status, const char *content_type,
                           const char *text) {
    opd_buf *buf = NULL;
    size_t size = strlen(text);
    const opd_alloc *alloc = exchange->alloc;
    if (size > 0 && opd_buf_create(alloc, size, &buf) == OPD_OK)
        memcpy(opd_buf_data(buf), text, size);
    else if (size > 0)
        status = 503; /* no memory: an empty answer must not pass for the text */
    opd_http_respond(exchange, status, content_type,
                     buf != NULL ? opd_slice_whole(buf) : (opd_slice){0});
    opd_buf_release(buf);
}
