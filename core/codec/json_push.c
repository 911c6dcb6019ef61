/* core/codec/json_push.c - the JSON tokenizer for pieces (json_push.h).
 *
 * One state per place in the grammar where the bytes may end; each step looks at one byte (runs
 * of plain string bytes at once). Numbers and words are gathered and then checked by json.h, so
 * that both readers agree by construction.
 * Thread: the caller's. Memory: none.
 */
#include "core/codec/json_push.h"

#include <string.h>

#include "core/base/check.h"

enum state {
    STATE_VALUE,          /* a value must come                   */
    STATE_VALUE_OR_END,   /* behind '['                          */
    STATE_KEY_OR_END,     /* behind '{'                          */
    STATE_KEY,            /* behind ',' in an object             */
    STATE_COLON,
    STATE_AFTER,          /* behind a value: ',' or a bracket    */
    STATE_STRING,
    STATE_ESCAPE,         /* behind a backslash                  */
    STATE_HEX,            /* escape_left hex digits of \u        */
    STATE_UTF8,           /* utf8_left bytes of a character      */
    STATE_NUMBER,
    STATE_WORD,           /* true, false, null                   */
    STATE_DONE            /* nothing but white space may follow  */
};

void opd_json_push_init(opd_json_push *push) {
    memset(push, 0, offsetof(opd_json_push, text)); /* the text is as long as its size says */
    push->state = STATE_VALUE;
}

opd_json_push_token opd_json_push_fail(opd_json_push *push, const char *text) {
    if (push->error == NULL) {
        push->error = text;
        push->error_offset_bytes = push->passed_bytes;
    }
    return OPD_JSON_PUSH_ERROR;
}

opd_json_text opd_json_push_text(const opd_json_push *push) {
    return (opd_json_text){push->text, push->text_size, push->escaped};
}

bool opd_json_push_element(const opd_json_push *push) {
    return push->depth > 0 && !((push->objects >> (push->depth - 1)) & 1) &&
           (push->state == STATE_VALUE || push->state == STATE_VALUE_OR_END);
}

void opd_json_push_behind_comma(opd_json_push *push, size_t size_bytes) {
    push->state = STATE_VALUE;
    push->passed_bytes += size_bytes;
}

void opd_json_push_behind_element(opd_json_push *push, size_t size_bytes) {
    push->state = STATE_AFTER;
    push->passed_bytes += size_bytes;
}

void opd_json_push_in_string(opd_json_push *push, size_t size_bytes) {
    push->passed_bytes += size_bytes;
}

bool opd_json_push_float(const opd_json_push *push, float *out_value) {
    opd_json json;
    opd_json_init(&json, push->text, push->text_size);
    return opd_json_read_float(&json, out_value);
}

bool opd_json_push_int64(const opd_json_push *push, int64_t *out_value) {
    opd_json json;
    opd_json_init(&json, push->text, push->text_size);
    return opd_json_read_int64(&json, out_value);
}

/* ---- the steps ---- */

static inline bool is_space(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

static inline bool is_number_char(char c) {
    return (c >= '0' && c <= '9') || c == '-' || c == '+' || c == '.' || c == 'e' || c == 'E';
}

static void text_begin(opd_json_push *push) {
    push->text_size = 0;
    push->text_cut = push->escaped = false;
}

/* A cut text ends before a character or an escape that did not fit whole. */
static void text_add(opd_json_push *push, const char *bytes, size_t size) {
    size_t room = sizeof push->text - push->text_size;
    bool inside = push->state >= STATE_ESCAPE && push->state <= STATE_UTF8;
    if (push->text_cut) return;
    if (size > room) {
        push->text_cut = true;
        if (inside) push->text_size = push->special_begin;
        size = inside ? 0 : room;
    }
    memcpy(push->text + push->text_size, bytes, size);
    push->text_size += size;
}

static opd_json_push_token open_bracket(opd_json_push *push, bool object) {
    if (push->depth == OPD_JSON_DEPTH_MAX) return opd_json_push_fail(push, "nested too deep");
    uint64_t bit = UINT64_C(1) << push->depth++;
    push->objects = object ? push->objects | bit : push->objects & ~bit;
    push->state = object ? STATE_KEY_OR_END : STATE_VALUE_OR_END;
    return object ? OPD_JSON_PUSH_OBJECT_BEGIN : OPD_JSON_PUSH_ARRAY_BEGIN;
}

static uint8_t behind_value(const opd_json_push *push) {
    return push->depth == 0 ? STATE_DONE : STATE_AFTER;
}

static opd_json_push_token close_bracket(opd_json_push *push) {
    bool object = (push->objects >> --push->depth) & 1;
    push->state = behind_value(push);
    return object ? OPD_JSON_PUSH_OBJECT_END : OPD_JSON_PUSH_ARRAY_END;
}

static void begin_string(opd_json_push *push, bool is_key) {
    text_begin(push);
    push->is_key = is_key;
    push->state = STATE_STRING;
}

/* The first byte of a value. */
static opd_json_push_token begin_value(opd_json_push *push, char c) {
    switch (c) {
    case '{': return open_bracket(push, true);
    case '[': return open_bracket(push, false);
    case '"': begin_string(push, false); return OPD_JSON_PUSH_STRING_BEGIN;
    case 't': case 'f': case 'n': push->state = STATE_WORD; break;
    default:
        if (c != '-' && (c < '0' || c > '9')) return opd_json_push_fail(push, "expected a value");
        push->state = STATE_NUMBER;
    }
    text_begin(push);
    text_add(push, &c, 1);
    return OPD_JSON_PUSH_MORE;
}

/* A byte between tokens. MORE: no token yet. */
static opd_json_push_token step_between(opd_json_push *push, char c) {
    bool object = push->depth > 0 && ((push->objects >> (push->depth - 1)) & 1);
    if (is_space(c)) return OPD_JSON_PUSH_MORE;
    switch (push->state) {
    case STATE_VALUE_OR_END:
        if (c == ']') return close_bracket(push);
        return begin_value(push, c);
    case STATE_VALUE: return begin_value(push, c);
    case STATE_KEY_OR_END:
        if (c == '}') return close_bracket(push);
        /* fall through */
    case STATE_KEY:
        if (c != '"') return opd_json_push_fail(push, "expected a key in quotes");
        begin_string(push, true);
        return OPD_JSON_PUSH_MORE;
    case STATE_COLON:
        if (c != ':') return opd_json_push_fail(push, "expected ':' after a key");
        push->state = STATE_VALUE;
        return OPD_JSON_PUSH_MORE;
    case STATE_AFTER:
        if (c == (object ? '}' : ']')) return close_bracket(push);
        if (c != ',') return opd_json_push_fail(push, "expected ',' or a closing bracket");
        push->state = object ? STATE_KEY : STATE_VALUE;
        return object ? OPD_JSON_PUSH_MORE : OPD_JSON_PUSH_COMMA;
    default: return opd_json_push_fail(push, "expected nothing after the value");
    }
}

/* The first byte of a character of several bytes (the table of RFC 3629). */
static bool begin_utf8(opd_json_push *push, unsigned char c) {
    push->utf8_low = 0x80;
    push->utf8_high = 0xBF;
    if (c >= 0xC2 && c <= 0xDF) push->utf8_left = 1;
    else if (c >= 0xE0 && c <= 0xEF) push->utf8_left = 2;
    else if (c >= 0xF0 && c <= 0xF4) push->utf8_left = 3;
    else return false;
    if (c == 0xE0) push->utf8_low = 0xA0;
    if (c == 0xED) push->utf8_high = 0x9F;
    if (c == 0xF0) push->utf8_low = 0x90;
    if (c == 0xF4) push->utf8_high = 0x8F;
    push->state = STATE_UTF8;
    return true;
}

static opd_json_push_token end_string(opd_json_push *push) {
    push->state = push->is_key ? STATE_COLON : behind_value(push);
    return push->is_key ? OPD_JSON_PUSH_KEY : OPD_JSON_PUSH_STRING;
}

/* A run of plain bytes, or one that is not. */
static opd_json_push_token step_string(opd_json_push *push, const char **at, const char *end) {
    const char *begin = *at, *to = begin;
    while (to < end && (unsigned char)*to >= 0x20 && (unsigned char)*to < 0x80 && *to != '"' &&
           *to != '\\')
        to++;
    if (to == begin) to++;
    *at = to;
    if (to - begin == 1 && *begin == '"') return end_string(push);
    push->special_begin = push->text_size;
    text_add(push, begin, (size_t)(to - begin));
    unsigned char c = (unsigned char)*begin;
    if (c == '\\') {
        push->escaped = true;
        push->state = STATE_ESCAPE;
    } else if (c < 0x20) {
        return opd_json_push_fail(push, "a control character in a string");
    } else if (c >= 0x80 && !begin_utf8(push, c)) {
        return opd_json_push_fail(push, "bytes that are not UTF-8");
    }
    return OPD_JSON_PUSH_MORE;
}

/* A byte inside an escape or a character of several bytes. */
static opd_json_push_token step_special(opd_json_push *push, char c) {
    unsigned char byte = (unsigned char)c;
    text_add(push, &c, 1);
    if (push->state == STATE_ESCAPE) {
        if (c == '\0' || strchr("\"\\/bfnrtu", c) == NULL)
            return opd_json_push_fail(push, "no such escape");
        push->escape_left = 4;
        push->state = c == 'u' ? STATE_HEX : STATE_STRING;
    } else if (push->state == STATE_HEX) {
        if (c == '\0' || strchr("0123456789abcdefABCDEF", c) == NULL)
            return opd_json_push_fail(push, "no such escape");
        if (--push->escape_left == 0) push->state = STATE_STRING;
    } else {
        if (byte < push->utf8_low || byte > push->utf8_high)
            return opd_json_push_fail(push, "bytes that are not UTF-8");
        push->utf8_low = 0x80;
        push->utf8_high = 0xBF;
        if (--push->utf8_left == 0) push->state = STATE_STRING;
    }
    return OPD_JSON_PUSH_MORE;
}

/* The number that was gathered, now that a byte follows that is not of it. */
static opd_json_push_token end_number(opd_json_push *push) {
    opd_json json;
    opd_json_init(&json, push->text, push->text_size);
    (void)opd_json_skip(&json);
    if (push->text_cut) return opd_json_push_fail(push, "a number of too many digits");
    if (json.error != NULL) return opd_json_push_fail(push, json.error);
    if (json.at != json.end) return opd_json_push_fail(push, "no such number");
    push->state = behind_value(push);
    return OPD_JSON_PUSH_NUMBER;
}

static opd_json_push_token step_word(opd_json_push *push, char c) {
    const char *word = push->text[0] == 't' ? "true" : push->text[0] == 'f' ? "false" : "null";
    if (c != word[push->text_size]) return opd_json_push_fail(push, "no such word");
    text_add(push, &c, 1);
    if (word[push->text_size] != '\0') return OPD_JSON_PUSH_MORE;
    push->state = behind_value(push);
    return *word == 'n' ? OPD_JSON_PUSH_NULL : OPD_JSON_PUSH_BOOL;
}

/* One step; moves *at by what it used, which for the end of a number is nothing. */
static inline opd_json_push_token step(opd_json_push *push, const char **at, const char *end) {
    switch (push->state) {
    case STATE_STRING: return step_string(push, at, end);
    case STATE_ESCAPE:
    case STATE_HEX:
    case STATE_UTF8: return step_special(push, *(*at)++);
    case STATE_WORD: return step_word(push, *(*at)++);
    case STATE_NUMBER:
        if (!is_number_char(**at)) return end_number(push);
        text_add(push, (*at)++, 1);
        return OPD_JSON_PUSH_MORE;
    default: return step_between(push, *(*at)++);
    }
}

opd_json_push_token opd_json_push_next(opd_json_push *push, const char **at, const char *end) {
    const char *begin = *at;
    opd_json_push_token token = OPD_JSON_PUSH_MORE;
    if (push->error != NULL) return OPD_JSON_PUSH_ERROR;
    while (*at < end && token == OPD_JSON_PUSH_MORE) token = step(push, at, end);
    push->passed_bytes += (uint64_t)(*at - begin);
    if (token == OPD_JSON_PUSH_ERROR) push->error_offset_bytes = push->passed_bytes;
    return token;
}

opd_err opd_json_push_finish(opd_json_push *push) {
    if (push->error == NULL && push->depth == 0 && push->state == STATE_NUMBER)
        (void)end_number(push);
    if (push->error == NULL && push->state != STATE_DONE)
        (void)opd_json_push_fail(push, "the text does not end");
    if (push->error == NULL) return OPD_OK;
    return opd_fail(OPD_ERR_PARSE, "byte %llu: %s", (unsigned long long)push->error_offset_bytes,
                    push->error);
}
