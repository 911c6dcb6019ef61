/* msgpack.h - msgpack as a bounded writer into fixed memory and a bounded cursor over bytes.
 *
 * Format: https://github.com/msgpack/msgpack/blob/master/spec.md. The writer always chooses
 * the shortest encoding. The reader trusts no length: every count is checked against the
 * bytes that remain, nesting is at most 16 deep, one value holds at most 4,096 items, and
 * nothing is allocated: strings and bytes are returned in place.
 *
 * Errors are sticky: after the first, writes do nothing and reads return zeros, so a user
 * checks once at the end.
 *
 * Thread: one owner. Nothing to free.
 */
#ifndef OPD_CORE_CODEC_MSGPACK_H
#define OPD_CORE_CODEC_MSGPACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "opd/err.h"

enum { OPD_MP_DEPTH_MAX = 16, OPD_MP_ITEMS_MAX = 4096 };

/* ---- writer ---------------------------------------------------------------------------- */

typedef struct opd_mp_writer {
    uint8_t *data;
    size_t size, capacity; /* bytes written, bytes there are */
    bool failed;
} opd_mp_writer;

/* Writes into data[0..capacity). */
void opd_mp_writer_init(opd_mp_writer *w, void *data, size_t capacity);

void opd_mp_write_nil(opd_mp_writer *w);
void opd_mp_write_bool(opd_mp_writer *w, bool value);
void opd_mp_write_u64(opd_mp_writer *w, uint64_t value);
void opd_mp_write_i64(opd_mp_writer *w, int64_t value);
void opd_mp_write_f32(opd_mp_writer *w, float value);
void opd_mp_write_f64(opd_mp_writer *w, double value);
void opd_mp_write_str(opd_mp_writer *w, const char *text, size_t size);
void opd_mp_write_cstr(opd_mp_writer *w, const char *text);
void opd_mp_write_bin(opd_mp_writer *w, const void *bytes, size_t size);
void opd_mp_write_ext(opd_mp_writer *w, int8_t type, const void *bytes, size_t size);
/* The header of a string of size bytes, which the caller appends next. */
void opd_mp_write_str_head(opd_mp_writer *w, size_t size);
/* The header of count items (count pairs for a map), which the caller writes next. */
void opd_mp_write_array(opd_mp_writer *w, uint32_t count);
void opd_mp_write_map(opd_mp_writer *w, uint32_t count);

/* OPD_OK, or LIMIT if what was written did not fit. */
opd_err opd_mp_writer_status(const opd_mp_writer *w) OPD_MUST_CHECK;

/* ---- reader ---------------------------------------------------------------------------- */

typedef enum opd_mp_type {
    OPD_MP_END, /* no bytes are left, or the reader has failed */
    OPD_MP_NIL,
    OPD_MP_BOOL,
    OPD_MP_UINT, /* any integer >= 0 */
    OPD_MP_INT,  /* any integer < 0 */
    OPD_MP_FLOAT,
    OPD_MP_STR,
    OPD_MP_BIN,
    OPD_MP_ARRAY,
    OPD_MP_MAP,
    OPD_MP_EXT
} opd_mp_type;

typedef struct opd_mp_reader {
    const uint8_t *at, *end;
    const uint8_t *begin;
    opd_err err;           /* PARSE (malformed), MISMATCH (other type), LIMIT, or OK */
    const char *what;      /* of the first error; static text */
    size_t error_offset;   /* byte where it happened */
} opd_mp_reader;

/* Reads data[0..size), which must stay until the last value was used. */
void opd_mp_reader_init(opd_mp_reader *r, const void *data, size_t size);

/* The type of the next value, without reading it. */
opd_mp_type opd_mp_peek(const opd_mp_reader *r);

void opd_mp_read_nil(opd_mp_reader *r);
bool opd_mp_read_bool(opd_mp_reader *r);
/* Integers of any encoding; out of range is MISMATCH. */
uint64_t opd_mp_read_u64(opd_mp_reader *r);
int64_t opd_mp_read_i64(opd_mp_reader *r);
uint32_t opd_mp_read_u32(opd_mp_reader *r);
/* A float of either width, or an integer converted. */
double opd_mp_read_f64(opd_mp_reader *r);
/* In place, not NUL-terminated; NULL and size 0 after an error. */
const char *opd_mp_read_str(opd_mp_reader *r, size_t *out_size);
const void *opd_mp_read_bin(opd_mp_reader *r, size_t *out_size);
const void *opd_mp_read_ext(opd_mp_reader *r, int8_t *out_type, size_t *out_size);
/* Item (pair) counts, already checked to be possible in the bytes that are left. */
uint32_t opd_mp_read_array(opd_mp_reader *r);
uint32_t opd_mp_read_map(opd_mp_reader *r);
/* Skips one whole value, however nested (within the bounds). */
void opd_mp_skip(opd_mp_reader *r);

/* The first error with its byte offset as context, or OPD_OK. */
opd_err opd_mp_reader_status(const opd_mp_reader *r) OPD_MUST_CHECK;

/* ---- values in a stream ------------------------------------------------------------------ */

/* Finds where the value ends whose bytes come in pieces. Zeroed, it stands before the first; it allocates
 * nothing, and reads every header once. */
typedef struct opd_mp_scan {
    uint64_t size_bytes; /* read so far: of a whole value, its size */
    uint64_t left;       /* items still to come, where size_bytes > 0 */
} opd_mp_scan;

/* Goes on with the value that begins at data, of which size bytes are there by now. True: it is whole, and has
 * scan->size_bytes bytes. False: more must come (*out_err is OK), or never can be read: PARSE, or LIMIT
 * where it says that it has more than max_bytes bytes. */
bool opd_mp_scan_value(opd_mp_scan *scan, const void *data, size_t size, size_t max_bytes, opd_err *out_err);

#endif
