/* core/codec/json.h - JSON (RFC 8259): a bounded pull cursor over bytes, and a writer.
 *
 * The cursor allocates nothing and trusts nothing: it never reads outside the bytes it
 * was given, nests at most OPD_JSON_DEPTH_MAX deep, accepts UTF-8 only and keeps the
 * first error with its byte offset (sticky: every later call fails quietly, so a reader
 * may check once, at the end). Nothing needs a terminating NUL.
 *
 *     opd_json json;
 *     opd_json_text key;
 *     opd_json_init(&json, bytes, size_bytes);
 *     opd_json_object_begin(&json);
 *     while (opd_json_object_next(&json, &key)) {
 *         if (opd_json_text_is(key, "id")) opd_json_read_int64(&json, &id);
 *         else opd_json_skip(&json);                // every value is read or skipped
 *     }
 *     OPD_TRY(opd_json_finish(&json));              // nothing but white space follows
 *
 * The writer (opd_json_writer) appends to an opd_str and places the commas itself.
 *
 * Thread: none of its own; a cursor or writer belongs to one thread at a time.
 * Memory: the bytes stay the caller's and must outlive the cursor and its texts.
 */
#ifndef OPD_CORE_CODEC_JSON_H
#define OPD_CORE_CODEC_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "opd/alloc.h"
#include "opd/err.h"
#include "core/base/str.h"

/* Deepest nesting of arrays and objects that is read or written. */
#define OPD_JSON_DEPTH_MAX 64

typedef enum opd_json_kind {
    OPD_JSON_OBJECT,
    OPD_JSON_ARRAY,
    OPD_JSON_STRING,
    OPD_JSON_NUMBER,
    OPD_JSON_BOOL,
    OPD_JSON_NULL,
    OPD_JSON_NONE /* no value here: the end, a closing bracket, an error, garbage */
} opd_json_kind;

/* A string as it stands between its quotes: valid UTF-8, escapes not yet undone. */
typedef struct opd_json_text {
    const char *data;
    size_t size_bytes;
    bool escaped; /* holds at least one backslash */
} opd_json_text;

/* The cursor. Plain data: a copy is a bookmark. Fields are read-only for callers. */
typedef struct opd_json {
    const char *begin, *at, *end;
    int depth;         /* open arrays and objects                              */
    bool fresh;        /* the innermost of them was just opened: no comma yet  */
    const char *error; /* text of the first error, a literal; NULL while well  */
    size_t error_offset_bytes;
} opd_json;

/* Starts at the first of `size_bytes` bytes. data may be NULL when the size is 0. */
void opd_json_init(opd_json *json, const char *data, size_t size_bytes);

/* OPD_OK, or OPD_ERR_PARSE with the context "byte N: text". */
OPD_MUST_CHECK opd_err opd_json_status(const opd_json *json);

/* As opd_json_status, and it is an error when anything but white space is left. */
OPD_MUST_CHECK opd_err opd_json_finish(opd_json *json);

/* Sets the sticky error (unless there is one already) at the cursor's place: for
 * readers that find a value of a right kind but wrong content. `text` is a literal.
 * Returns false. */
bool opd_json_error(opd_json *json, const char *text);

/* Kind of the value that comes next, by its first byte. Consumes only white space. */
opd_json_kind opd_json_peek(opd_json *json);

/* Opens an object / array. False (and an error) if another value stands there. */
bool opd_json_object_begin(opd_json *json);
bool opd_json_array_begin(opd_json *json);

/* Goes to the next member / element, which must then be read or skipped whole.
 * False at the closing bracket, which is consumed, and after an error. Keys may
 * repeat; what that means is the caller's choice. */
bool opd_json_object_next(opd_json *json, opd_json_text *out_key);
bool opd_json_array_next(opd_json *json);

/* Typed reads. False and an error ("expected a number", ...) when another value stands
 * there; the output is then untouched. Integers take no fraction and no exponent. */
bool opd_json_read_int64(opd_json *json, int64_t *out_value);
bool opd_json_read_bool(opd_json *json, bool *out_value);
bool opd_json_read_null(opd_json *json);
bool opd_json_read_text(opd_json *json, opd_json_text *out_text);

/* The nearest double (numbers of more than 60 digits: within 1 unit in the last place);
 * too large for a double is an error, too small is 0. */
bool opd_json_read_double(opd_json *json, double *out_value);

/* The fast path for bulk numbers: at most 2 units of double rounding away from the text
 * before the one rounding to float32. Too large for a float is an error. */
bool opd_json_read_float(opd_json *json, float *out_value);

/* Reads a string, escapes undone, into `out` with a terminating NUL. An error when it
 * has more than size_max_bytes - 1 bytes as written, or holds a NUL. */
bool opd_json_read_string(opd_json *json, char *out, size_t size_max_bytes);

/* Reads a string, escapes undone, into new memory of `alloc` (opd_mem_free it), with a
 * NUL added. out_size_bytes may be NULL; then a NUL inside the string is an error.
 * False without memory too. */
bool opd_json_read_dup(opd_json *json, const opd_alloc *alloc, char **out_text,
                       size_t *out_size_bytes);

/* Passes over one value of any kind, checking it whole. */
bool opd_json_skip(opd_json *json);

/* As opd_json_skip; the bytes of the value, without white space around it. */
bool opd_json_raw(opd_json *json, const char **out_data, size_t *out_size_bytes);

/* Whether the text, escapes undone, equals the NUL-terminated `want`. */
bool opd_json_text_is(opd_json_text text, const char *want);

/* Writes the text with escapes undone to `out` (no NUL), which has room for
 * text.size_bytes: more is never needed. Returns the bytes written. A lone surrogate
 * (\ud800) becomes U+FFFD. */
size_t opd_json_text_unescape(opd_json_text text, char *out);

/* Bytes of the UTF-8 sequence that starts at `at`, with left > 0 bytes to the end; 0 when
 * none does (overlong, surrogate, cut). */
size_t opd__utf8_size(const unsigned char *at, size_t left);

/* The writer. Errors (the string's maximum, memory) stick in the opd_str: check
 * opd_str_status once. Wrong nesting is a programmer's error. Fields are private. */
typedef struct opd_json_writer {
    opd_str *out;
    int indent; /* spaces per level; 0 writes one line without spaces */
    int depth;
    bool comma; /* a value precedes at this level */
    bool keyed; /* a key was just written         */
} opd_json_writer;

/* Starts a value appended to `out`, which stays the caller's. */
void opd_json_writer_init(opd_json_writer *writer, opd_str *out, int indent);

void opd_json_write_object_begin(opd_json_writer *writer);
void opd_json_write_object_end(opd_json_writer *writer);
void opd_json_write_array_begin(opd_json_writer *writer);
void opd_json_write_array_end(opd_json_writer *writer);
void opd_json_write_key(opd_json_writer *writer, const char *key);
void opd_json_write_null(opd_json_writer *writer);
void opd_json_write_bool(opd_json_writer *writer, bool value);
void opd_json_write_int64(opd_json_writer *writer, int64_t value);

/* The fewest digits that read back as the same float32 / double; null if not finite. */
void opd_json_write_float(opd_json_writer *writer, float value);
void opd_json_write_double(opd_json_writer *writer, double value);

/* A string of `size_bytes` bytes / a NUL-terminated one. Control characters, quotes and
 * backslashes are escaped; bytes that are no UTF-8 become U+FFFD, one for each. */
void opd_json_write_string(opd_json_writer *writer, const char *text, size_t size_bytes);
void opd_json_write_text(opd_json_writer *writer, const char *text);

/* Bytes that are one JSON value already. */
void opd_json_write_raw(opd_json_writer *writer, const char *data, size_t size_bytes);

#endif
