/* http1.h - HTTP/1.1 messages as machines without I/O: a reader and a writer (RFC 9110, 9112).
 *
 * The reader turns bytes into events, one call each, and holds no more than one line: bodies pass
 * through by reference. It is strict where leniency lets two programs see two different messages
 * (request smuggling): both lengths at once, a repeated or non-decimal length, any transfer coding
 * but chunked, folded lines, spaces before a colon, bare CR or LF, control bytes, broken chunk
 * sizes are errors, not guesses.
 *
 * Invariants:
 *  1. A message gives START, then HEADERs, HEAD, BODYs, END, in this order; interim answers (1xx)
 *     give nothing. After END the reader takes no byte until opd_h1_reader_next.
 *  2. The bytes of a head with its trailers never exceed max_head_bytes (else LIMIT).
 *  3. After an error the reader stays failed.
 *  4. A writer sends nothing that could be read as two messages: names and values are checked.
 * Thread: one owner. Plain structs in the connection; fini frees.
 */
#ifndef OPD_TRANSPORTS_HTTP1_H
#define OPD_TRANSPORTS_HTTP1_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/str.h"
#include "opd/alloc.h"
#include "opd/buf.h"
#include "opd/err.h"
#include "transports/http.h"
#include "transports/iobatch.h"

typedef enum opd_h1_event_kind {
    OPD_H1_MORE,   /* nothing: more bytes are needed (or the message is over) */
    OPD_H1_START,  /* request: name is the method, value the path; answer: reader.status */
    OPD_H1_HEADER, /* one field: lower-case name, value */
    OPD_H1_HEAD,   /* the head is complete; the facts in the reader hold from here */
    OPD_H1_BODY,   /* data, size_bytes: part of the body, chunking removed */
    OPD_H1_END
} opd_h1_event_kind;

/* Pointers live until the next call. */
typedef struct opd_h1_event {
    opd_h1_event_kind kind;
    const char *name, *value;
    const uint8_t *data;
    size_t size_bytes;
} opd_h1_event;

typedef struct opd_h1_reader {
    /* facts of the message, for reading only */
    int status;               /* answer: 200..599 */
    int refusal;              /* request, after an error: 400, 431, 501 or 505 */
    bool keep_alive;          /* the connection may carry another message */
    bool expects_continue;    /* request: the client waits for 100 before its body */
    bool chunked, has_length; /* neither: no body, or up to the end of the connection */
    uint64_t length_bytes;    /* has_length */

    /* internal */
    const opd_alloc *alloc;
    bool server, bodiless, http10, host_seen, says_close, says_keep, interim, started;
    uint8_t state;
    opd_err err;
    uint64_t left_bytes; /* of the body or of the chunk */
    size_t head_bytes, max_head_bytes;
    char *line;
    size_t line_size, line_capacity;
} opd_h1_reader;

/* server: reads requests, else answers. Allocates nothing yet. */
void opd_h1_reader_init(opd_h1_reader *reader, const opd_alloc *alloc, bool server,
                        size_t max_head_bytes);
void opd_h1_reader_fini(opd_h1_reader *reader);

/* Prepares for the next message. bodiless: the answer to a HEAD request. */
void opd_h1_reader_next(opd_h1_reader *reader, bool bodiless);

/* Takes bytes from the front of *bytes up to one event and moves *bytes and *size_bytes past them.
 * Call until it says MORE. Errors, context set: PROTO (not HTTP/1.x, or broken), UNSUPPORTED
 * (version, transfer coding), LIMIT (head too large), NOMEM. */
opd_err opd_h1_read(opd_h1_reader *reader, const uint8_t **bytes, size_t *size_bytes,
                    opd_h1_event *out_event) OPD_MUST_CHECK;

/* The peer sent its last byte. OK: the message is complete thereby (a body up to the end of the
 * connection) or was before; else RESET, context set: cut short. */
opd_err opd_h1_read_end(opd_h1_reader *reader) OPD_MUST_CHECK;

/* Whether no byte of the next message has come. */
bool opd_h1_reader_fresh(const opd_h1_reader *reader);

typedef struct opd_h1_writer {
    opd_str head; /* heads waiting, from sent_bytes on */
    size_t sent_bytes;
    opd_slice body; /* holds a reference */
} opd_h1_writer;

void opd_h1_writer_init(opd_h1_writer *writer, const opd_alloc *alloc, size_t max_head_bytes);
void opd_h1_writer_fini(opd_h1_writer *writer);

/* All has been pulled. */
bool opd_h1_writer_empty(const opd_h1_writer *writer);

/* A request; path_prefix and path are sent one after the other; a reference to body is added.
 * The previous message must have been pulled. On an error nothing is sent. Errors: INVALID (a
 * name, value or path that would break the message; a header that is the writer's own: host,
 * connection, content-length, transfer-encoding, upgrade), LIMIT, NOMEM. */
opd_err opd_h1_write_request(opd_h1_writer *writer, const char *method, const char *authority,
                             const char *path_prefix, const char *path,
                             const opd_http_header *headers, size_t header_count,
                             opd_slice body) OPD_MUST_CHECK;

/* An answer with content-length (204 and 304 have neither that nor a body); close: says that the
 * connection ends after it. Errors as above. */
opd_err opd_h1_write_response(opd_h1_writer *writer, int status, const opd_http_header *headers,
                              size_t header_count, opd_slice body, bool close) OPD_MUST_CHECK;

/* A server that misbehaves on purpose: an answer that announces its whole body, by content-length or as one chunk,
 * and of it has only the first size_bytes. Nothing may follow. Errors as above. */
opd_err opd_h1_write_cut_response(opd_h1_writer *writer, int status, const opd_http_header *headers,
                                  size_t header_count, opd_slice body, size_t size_bytes,
                                  bool chunked) OPD_MUST_CHECK;

/* The interim answer that a client waits for before it sends its body. Errors: LIMIT, NOMEM. */
opd_err opd_h1_write_continue(opd_h1_writer *writer) OPD_MUST_CHECK;

/* Adds what waits to batch, as far as it fits: heads copied, bodies by reference. */
void opd_h1_writer_pull(opd_h1_writer *writer, opd_iobatch *batch);

#endif
