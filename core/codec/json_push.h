/* core/codec/json_push.h - JSON (RFC 8259) from pieces: bytes in as they come, tokens out.
 *
 * The sibling of json.h for texts that arrive in parts or are too large to hold. It may stop
 * after any byte; everything it must remember is in the struct, of constant size. It accepts
 * exactly what json.h accepts, but for numbers of more than OPD_JSON_PUSH_TOKEN_MAX characters.
 *
 *     const char *at = piece;
 *     while ((token = opd_json_push_next(&push, &at, piece + size)) != OPD_JSON_PUSH_MORE)
 *         if (token == OPD_JSON_PUSH_ERROR) ...; else use(token, push.text, push.depth);
 *
 * A caller that knows what must come may read bytes itself in two places: whole elements of an
 * array where opd_json_push_element says that one may begin, and the characters of a string
 * after STRING_BEGIN, up to its closing quote (plain characters only: no escapes, ASCII).
 *
 * Thread: none of its own. Memory: nothing is allocated; the bytes stay the caller's and are
 * not needed after the call.
 */
#ifndef OPD_CORE_CODEC_JSON_PUSH_H
#define OPD_CORE_CODEC_JSON_PUSH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/codec/json.h"
#include "opd/err.h"

enum { OPD_JSON_PUSH_TOKEN_MAX = 1024 };

typedef enum opd_json_push_token {
    OPD_JSON_PUSH_MORE, /* the piece is used up */
    OPD_JSON_PUSH_ERROR,
    OPD_JSON_PUSH_OBJECT_BEGIN, /* depth counts it already  */
    OPD_JSON_PUSH_OBJECT_END,   /* depth counts it no more  */
    OPD_JSON_PUSH_ARRAY_BEGIN,
    OPD_JSON_PUSH_ARRAY_END,
    OPD_JSON_PUSH_COMMA,        /* in an array: an element must follow */
    OPD_JSON_PUSH_KEY,          /* text                     */
    OPD_JSON_PUSH_STRING_BEGIN, /* the quote was passed     */
    OPD_JSON_PUSH_STRING,       /* text: what next() read   */
    OPD_JSON_PUSH_NUMBER,       /* text, of valid grammar   */
    OPD_JSON_PUSH_BOOL,
    OPD_JSON_PUSH_NULL
} opd_json_push_token;

/* Fields are read-only for callers; plain data, a copy is a bookmark. */
typedef struct opd_json_push {
    uint8_t state, escape_left, utf8_left, utf8_low, utf8_high;
    bool is_key, text_cut; /* text_cut: the string was longer than text          */
    bool escaped;          /* text holds a backslash                             */
    int depth;             /* open arrays and objects                            */
    uint64_t objects;      /* bit d: the bracket at depth d + 1 is '{'           */
    size_t text_size, special_begin;
    const char *error;     /* text of the first error, a literal; NULL while well */
    uint64_t passed_bytes; /* before the present piece                           */
    uint64_t error_offset_bytes;
    char text[OPD_JSON_PUSH_TOKEN_MAX]; /* of the last token, as written, no NUL  */
} opd_json_push;

void opd_json_push_init(opd_json_push *push);

/* The next token of [*at, end); *at moves behind what was read. MORE: give the next piece. After
 * an error it is ERROR for ever. */
opd_json_push_token opd_json_push_next(opd_json_push *push, const char **at, const char *end);

/* Sets the sticky error (unless there is one) at the end of what was passed. Returns ERROR. */
opd_json_push_token opd_json_push_fail(opd_json_push *push, const char *text);

/* After the last piece: OPD_OK, or OPD_ERR_PARSE with "byte N: text"; an unfinished text is one. */
OPD_MUST_CHECK opd_err opd_json_push_finish(opd_json_push *push);

/* Whether an element of an array may begin at the next byte. The caller who then reads whole
 * elements says how many bytes they were, and whether it stands behind a comma or an element. */
bool opd_json_push_element(const opd_json_push *push);
void opd_json_push_behind_comma(opd_json_push *push, size_t size_bytes);
void opd_json_push_behind_element(opd_json_push *push, size_t size_bytes);

/* The caller has read `size_bytes` plain characters of the string itself. */
void opd_json_push_in_string(opd_json_push *push, size_t size_bytes);

/* The text of the last KEY or STRING, for opd_json_text_is and opd_json_text_unescape. One that
 * was cut equals nothing that has fewer than OPD_JSON_PUSH_TOKEN_MAX bytes. */
opd_json_text opd_json_push_text(const opd_json_push *push);

/* The last NUMBER as a float32, as opd_json_read_float has it / as a whole number. False when
 * it does not fit or is no whole number; that is no error of the text. */
bool opd_json_push_float(const opd_json_push *push, float *out_value);
bool opd_json_push_int64(const opd_json_push *push, int64_t *out_value);

#endif
