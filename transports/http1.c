/* http1.c - the reader of http1.h. Its grammar is RFC 9112, its strictness the sections "message
 * body length" (6.3) and "request smuggling" (11.2). Thread: one owner; only the line is allocated. */
#include "transports/http1.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/base/check.h"

enum {
    STATE_START, STATE_FIELDS, STATE_LENGTH, STATE_CHUNK_SIZE, STATE_CHUNK, STATE_CHUNK_END,
    STATE_TRAILERS, STATE_TO_END, STATE_END, STATE_DONE
};
enum {
    CHUNK_LINE_MAX = 256,  /* the size and its extensions */
    LENGTH_DIGITS_MAX = 18, /* below 2^63 */
    CHUNK_DIGITS_MAX = 15,
    METHOD_MAX = 32
};

void opd_h1_reader_init(opd_h1_reader *reader, const opd_alloc *alloc, bool server,
                        size_t max_head_bytes) {
    *reader = (opd_h1_reader){.alloc = alloc, .server = server, .max_head_bytes = max_head_bytes};
}

void opd_h1_reader_fini(opd_h1_reader *reader) {
    opd_mem_free(reader->alloc, reader->line);
    reader->line = NULL;
    reader->line_capacity = 0;
}

void opd_h1_reader_next(opd_h1_reader *reader, bool bodiless) {
    opd_h1_reader fresh = {.alloc = reader->alloc, .server = reader->server, .bodiless = bodiless,
                           .max_head_bytes = reader->max_head_bytes, .line = reader->line,
                           .line_capacity = reader->line_capacity};
    *reader = fresh;
}

bool opd_h1_reader_fresh(const opd_h1_reader *reader) {
    return reader->state == STATE_START && !reader->started;
}

/* Fails for good, with the status a server answers. */
static opd_err refuse(opd_h1_reader *reader, int refusal, opd_err err, const char *what) {
    reader->refusal = refusal;
    reader->err = err;
    return opd_fail(err, "HTTP/1.1: %s", what);
}

static opd_err broken(opd_h1_reader *reader, const char *what) {
    return refuse(reader, 400, OPD_ERR_PROTO, what);
}

/* ---- lines ---- */

static opd_err line_add(opd_h1_reader *reader, const uint8_t *bytes, size_t size, size_t max) {
    if (size > max - reader->line_size)
        return refuse(reader, 431, OPD_ERR_LIMIT, "the head or a line of it is too large");
    size_t need = reader->line_size + size + 1;
    if (need > reader->line_capacity) {
        size_t capacity = need < 256 ? 256 : need * 2 < max + 1 ? need * 2 : max + 1;
        char *grown = opd_mem_resize(reader->alloc, reader->line, capacity);
        if (grown == NULL) return refuse(reader, 503, OPD_ERR_NOMEM, "no memory for a line");
        reader->line = grown;
        reader->line_capacity = capacity;
    }
    memcpy(reader->line + reader->line_size, bytes, size);
    reader->line_size += size;
    reader->line[reader->line_size] = '\0';
    return OPD_OK;
}

/* Collects a line of at most max bytes; *out_whole: reader->line is it, without its CRLF. */
static opd_err line_take(opd_h1_reader *reader, const uint8_t **bytes, size_t *size_bytes,
                         size_t max, bool *out_whole) {
    const uint8_t *feed = *size_bytes > 0 ? memchr(*bytes, '\n', *size_bytes) : NULL;
    size_t size = feed != NULL ? (size_t)(feed - *bytes) + 1 : *size_bytes;
    *out_whole = feed != NULL;
    OPD_TRY(line_add(reader, *bytes, size, max));
    *bytes += size;
    *size_bytes -= size;
    if (feed == NULL) return OPD_OK;
    size_t end = reader->line_size - 1;
    if (end == 0 || reader->line[end - 1] != '\r') return broken(reader, "a line ends without CR");
    reader->line_size = end - 1;
    reader->line[end - 1] = '\0';
    return OPD_OK;
}

/* A line of the head: all of them together are bounded. */
static opd_err head_line(opd_h1_reader *reader, const uint8_t **bytes, size_t *size_bytes,
                         bool *out_whole) {
    size_t held = reader->line_size;
    size_t before = *size_bytes;
    OPD_TRY(line_take(reader, bytes, size_bytes, reader->max_head_bytes - reader->head_bytes + held,
                      out_whole));
    reader->head_bytes += before - *size_bytes;
    return OPD_OK;
}

/* ---- characters ---- */

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

static bool is_token(const char *text, size_t size) {
    for (size_t i = 0; i < size; i++) {
        char c = text[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!letter && !is_digit(c) && (c == '\0' || strchr("!#$%&'*+-.^_`|~", c) == NULL))
            return false;
    }
    return size > 0;
}

/* Text without control bytes but tab. */
static bool is_text(const char *text, size_t size) {
    for (size_t i = 0; i < size; i++)
        if (((uint8_t)text[i] < 0x20 && text[i] != '\t') || text[i] == 0x7f) return false;
    return true;
}

/* Visible ASCII: what a request target is made of. */
static bool is_target(const char *text) {
    for (; *text != '\0'; text++)
        if (*text <= 0x20 || *text >= 0x7f) return false;
    return true;
}

/* Whether word stands in a comma-separated list. */
static bool list_has(const char *list, const char *word) {
    size_t size = strlen(word);
    while (*list != '\0') {
        size_t span = strcspn(list, ",");
        const char *item = list + strspn(list, " \t");
        size_t item_size = span > (size_t)(item - list) ? span - (size_t)(item - list) : 0;
        while (item_size > 0 && (item[item_size - 1] == ' ' || item[item_size - 1] == '\t')) item_size--;
        if (item_size == size && strncasecmp(item, word, size) == 0) return true;
        list += span + (list[span] == ',');
    }
    return false;
}

/* ---- the start line ---- */

static opd_err version_read(opd_h1_reader *reader, const char *text) {
    if (strncmp(text, "HTTP/", 5) != 0) return broken(reader, "no HTTP version");
    if (strcmp(text, "HTTP/1.1") != 0 && strcmp(text, "HTTP/1.0") != 0)
        return refuse(reader, 505, OPD_ERR_UNSUPPORTED, "another version of HTTP");
    reader->http10 = text[7] == '0';
    return OPD_OK;
}

/* "GET /path HTTP/1.1"; a full URL as target is cut down to its path. */
static opd_err request_line(opd_h1_reader *reader, opd_h1_event *out) {
    char *method = reader->line;
    if (!is_text(method, reader->line_size)) return broken(reader, "control bytes in the request line");
    char *target = strchr(method, ' ');
    char *version = target != NULL ? strchr(target + 1, ' ') : NULL;
    if (version == NULL) return broken(reader, "no request line");
    *target++ = '\0';
    *version++ = '\0';
    OPD_TRY(version_read(reader, version));
    if (!is_token(method, strlen(method)) || strlen(method) > METHOD_MAX)
        return broken(reader, "the method is not a word");
    if (strncasecmp(target, "http://", 7) == 0) target += 7 + strcspn(target + 7, "/");
    bool all = strcmp(target, "*") == 0 && strcmp(method, "OPTIONS") == 0;
    if ((target[0] != '/' && !all) || !is_target(target)) return broken(reader, "no path in the request line");
    *out = (opd_h1_event){.kind = OPD_H1_START, .name = method, .value = target};
    return OPD_OK;
}

/* "HTTP/1.1 200 OK" */
static opd_err status_line(opd_h1_reader *reader, opd_h1_event *out) {
    char *line = reader->line;
    if (!is_text(line, reader->line_size)) return broken(reader, "control bytes in the status line");
    char *status = strchr(line, ' ');
    if (status == NULL) return broken(reader, "no status line");
    *status++ = '\0';
    OPD_TRY(version_read(reader, line));
    bool digits = is_digit(status[0]) && is_digit(status[1]) && is_digit(status[2]);
    if (!digits || (status[3] != ' ' && status[3] != '\0')) return broken(reader, "no status code");
    int code = (status[0] - '0') * 100 + (status[1] - '0') * 10 + (status[2] - '0');
    if (code < 100 || code > 599) return broken(reader, "the status code is out of range");
    if (code == 101) return broken(reader, "a change of protocol that nobody asked for");
    reader->interim = code < 200;
    if (reader->interim) return OPD_OK;
    reader->status = code;
    *out = (opd_h1_event){.kind = OPD_H1_START};
    return OPD_OK;
}

static opd_err read_start(opd_h1_reader *reader, opd_h1_event *out) {
    if (reader->server && reader->line_size == 0) return OPD_OK; /* an empty line before it is legal */
    reader->state = STATE_FIELDS;
    return reader->server ? request_line(reader, out) : status_line(reader, out);
}

/* ---- fields ---- */

static opd_err note_length(opd_h1_reader *reader, const char *value) {
    size_t digits = strspn(value, "0123456789");
    if (digits == 0 || value[digits] != '\0' || digits > LENGTH_DIGITS_MAX)
        return broken(reader, "content-length is not a number");
    if (reader->has_length) return broken(reader, "content-length twice");
    reader->has_length = true;
    reader->length_bytes = strtoull(value, NULL, 10);
    return OPD_OK;
}

static opd_err note_coding(opd_h1_reader *reader, const char *value) {
    if (reader->chunked) return broken(reader, "transfer-encoding twice");
    if (strcasecmp(value, "chunked") != 0)
        return refuse(reader, 501, OPD_ERR_UNSUPPORTED, "a transfer coding other than chunked");
    reader->chunked = true;
    return OPD_OK;
}

/* Keeps what decides about the body and the connection. */
static opd_err note_field(opd_h1_reader *reader, const char *name, const char *value) {
    if (strcmp(name, "content-length") == 0) return note_length(reader, value);
    if (strcmp(name, "transfer-encoding") == 0) return note_coding(reader, value);
    if (strcmp(name, "connection") == 0) {
        if (list_has(value, "close")) reader->says_close = true;
        if (list_has(value, "keep-alive")) reader->says_keep = true;
    }
    if (!reader->server) return OPD_OK;
    if (strcmp(name, "host") == 0) {
        if (reader->host_seen) return broken(reader, "host twice");
        reader->host_seen = true;
    }
    if (strcmp(name, "expect") == 0 && strcasecmp(value, "100-continue") == 0)
        reader->expects_continue = !reader->http10;
    return OPD_OK;
}

static opd_err read_field(opd_h1_reader *reader, opd_h1_event *out) {
    char *name = reader->line;
    if (name[0] == ' ' || name[0] == '\t') return broken(reader, "a folded header line");
    char *colon = memchr(name, ':', reader->line_size);
    if (colon == NULL || !is_token(name, (size_t)(colon - name))) return broken(reader, "a header without a name");
    char *value = colon + 1;
    char *end = name + reader->line_size;
    *colon = '\0';
    while (*value == ' ' || *value == '\t') value++;
    while (end > value && (end[-1] == ' ' || end[-1] == '\t')) end--;
    *end = '\0';
    if (!is_text(value, (size_t)(end - value))) return broken(reader, "control bytes in a header");
    for (char *c = name; c < colon; c++)
        if (*c >= 'A' && *c <= 'Z') *c = (char)(*c - 'A' + 'a');
    if (reader->interim || reader->state == STATE_TRAILERS) return OPD_OK;
    OPD_TRY(note_field(reader, name, value));
    *out = (opd_h1_event){.kind = OPD_H1_HEADER, .name = name, .value = value};
    return OPD_OK;
}

/* The empty line after the fields: what follows it? */
static opd_err end_head(opd_h1_reader *reader, opd_h1_event *out) {
    if (reader->interim) {
        reader->interim = false;
        reader->state = STATE_START;
        return OPD_OK;
    }
    if (reader->chunked && reader->has_length) return broken(reader, "both content-length and transfer-encoding");
    if (reader->chunked && reader->http10) return broken(reader, "transfer-encoding in HTTP/1.0");
    if (reader->server && !reader->host_seen && !reader->http10) return broken(reader, "no host header");
    bool bodiless = reader->server ? !reader->chunked && !reader->has_length
                                   : reader->bodiless || reader->status == 204 || reader->status == 304;
    reader->left_bytes = reader->length_bytes;
    reader->state = bodiless || (reader->has_length && reader->left_bytes == 0) ? STATE_END
                    : reader->chunked    ? STATE_CHUNK_SIZE
                    : reader->has_length ? STATE_LENGTH
                                         : STATE_TO_END;
    reader->keep_alive = !reader->says_close && (!reader->http10 || reader->says_keep) &&
                         reader->state != STATE_TO_END;
    *out = (opd_h1_event){.kind = OPD_H1_HEAD};
    return OPD_OK;
}

/* One whole line of the head, or of the trailers. */
static opd_err read_head(opd_h1_reader *reader, opd_h1_event *out) {
    opd_err err = OPD_OK;
    bool empty = reader->line_size == 0;
    if (reader->state == STATE_START) err = read_start(reader, out);
    else if (!empty) err = read_field(reader, out);
    else if (reader->state == STATE_TRAILERS) reader->state = STATE_END;
    else err = end_head(reader, out);
    reader->line_size = 0; /* its bytes stay for the event */
    return err;
}

/* ---- bodies ---- */

static int hex_of(char c) {
    if (is_digit(c)) return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static opd_err read_chunk_size(opd_h1_reader *reader) {
    const char *c = reader->line;
    uint64_t size = 0;
    int digits = 0;
    for (; hex_of(*c) >= 0 && digits <= CHUNK_DIGITS_MAX; c++, digits++)
        size = size * 16 + (uint64_t)hex_of(*c);
    if (digits == 0 || digits > CHUNK_DIGITS_MAX || (*c != '\0' && *c != ';') ||
        !is_text(reader->line, reader->line_size))
        return broken(reader, "a broken chunk size");
    reader->line_size = 0;
    reader->left_bytes = size;
    reader->state = size > 0 ? STATE_CHUNK : STATE_TRAILERS;
    return OPD_OK;
}

static void read_body(opd_h1_reader *reader, const uint8_t **bytes, size_t *size_bytes,
                      opd_h1_event *out) {
    size_t size = *size_bytes;
    if (reader->state != STATE_TO_END) {
        if (size > reader->left_bytes) size = (size_t)reader->left_bytes;
        reader->left_bytes -= size;
        if (reader->left_bytes == 0)
            reader->state = reader->state == STATE_CHUNK ? STATE_CHUNK_END : STATE_END;
    }
    *out = (opd_h1_event){.kind = OPD_H1_BODY, .data = *bytes, .size_bytes = size};
    *bytes += size;
    *size_bytes -= size;
}

static opd_err read_chunk_line(opd_h1_reader *reader, const uint8_t **bytes, size_t *size_bytes) {
    bool whole;
    bool end = reader->state == STATE_CHUNK_END;
    OPD_TRY(line_take(reader, bytes, size_bytes, CHUNK_LINE_MAX, &whole));
    if (!whole) return OPD_OK;
    if (!end) return read_chunk_size(reader);
    if (reader->line_size != 0) return broken(reader, "a chunk longer than its size");
    reader->state = STATE_CHUNK_SIZE;
    return OPD_OK;
}

/* ---- the machine ---- */

opd_err opd_h1_read(opd_h1_reader *reader, const uint8_t **bytes, size_t *size_bytes,
                    opd_h1_event *out_event) {
    *out_event = (opd_h1_event){.kind = OPD_H1_MORE};
    if (reader->err != OPD_OK) return opd_fail(reader->err, "HTTP/1.1: the message was broken before");
    if (*size_bytes > 0) reader->started = true;
    while (out_event->kind == OPD_H1_MORE) {
        if (reader->state == STATE_END) {
            reader->state = STATE_DONE;
            out_event->kind = OPD_H1_END;
            break;
        }
        if (*size_bytes == 0 || reader->state == STATE_DONE) break;
        switch (reader->state) {
            case STATE_LENGTH:
            case STATE_CHUNK:
            case STATE_TO_END: read_body(reader, bytes, size_bytes, out_event); break;
            case STATE_CHUNK_SIZE:
            case STATE_CHUNK_END: OPD_TRY(read_chunk_line(reader, bytes, size_bytes)); break;
            default: {
                bool whole;
                OPD_TRY(head_line(reader, bytes, size_bytes, &whole));
                if (whole) OPD_TRY(read_head(reader, out_event));
            }
        }
    }
    return OPD_OK;
}

opd_err opd_h1_read_end(opd_h1_reader *reader) {
    if (reader->err == OPD_OK && reader->state == STATE_TO_END) reader->state = STATE_END;
    if (reader->err == OPD_OK && reader->state >= STATE_END) return OPD_OK;
    return opd_fail(OPD_ERR_RESET, "HTTP/1.1: the message was cut short");
}
