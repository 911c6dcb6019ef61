/* core/codec/json.c - the JSON cursor of json.h.
 *
 * Invariants: begin <= at <= end; after the first error `at` does not move and every
 * call fails; a text handed out is valid UTF-8 with valid escapes, so that undoing the
 * escapes later cannot fail.
 * Thread: the cursor's owner. Memory: only opd_json_read_dup allocates, for its caller.
 */
#include "core/codec/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/check.h"

/* Powers of ten that a double holds exactly. */
static const double exact_power[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                     1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                     1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

enum {
    EXACT_POWER_MAX = 22,
    MANTISSA_DIGITS_MAX = 19,   /* any 19 digits fit an uint64_t                      */
    HARD_DIGITS_MAX = 60,       /* digits handed to strtod                            */
    EXPONENT_MAX = 100000,      /* clamp: far outside double, far inside int          */
    TEXT_CHUNK = 8
};

/* A number as written: mantissa x 10^exponent, from its first 19 significant digits. */
typedef struct number {
    const char *begin, *end;
    uint64_t mantissa;
    int exponent;
    bool negative;
    bool truncated; /* more significant digits than the mantissa took */
    bool integer;   /* neither fraction nor exponent                   */
} number;

void opd_json_init(opd_json *json, const char *data, size_t size_bytes) {
    static const char nothing[1] = "";
    const char *begin = data != NULL ? data : nothing;
    *json = (opd_json){.begin = begin, .at = begin, .end = begin + (data ? size_bytes : 0)};
}

bool opd_json_error(opd_json *json, const char *text) {
    if (json->error == NULL) {
        json->error = text;
        json->error_offset_bytes = (size_t)(json->at - json->begin);
    }
    return false;
}

static bool error_at(opd_json *json, const char *at, const char *text) {
    if (json->error == NULL) json->at = at;
    return opd_json_error(json, text);
}

opd_err opd_json_status(const opd_json *json) {
    if (json->error == NULL) return OPD_OK;
    return opd_fail(OPD_ERR_PARSE, "byte %zu: %s", json->error_offset_bytes, json->error);
}

static inline void skip_space(opd_json *json) {
    const char *at = json->at;
    while (at < json->end && (*at == ' ' || *at == '\n' || *at == '\t' || *at == '\r')) at++;
    json->at = at;
}

opd_err opd_json_finish(opd_json *json) {
    if (json->error == NULL) {
        skip_space(json);
        if (json->at != json->end) opd_json_error(json, "expected nothing after the value");
    }
    return opd_json_status(json);
}

opd_json_kind opd_json_peek(opd_json *json) {
    if (json->error != NULL) return OPD_JSON_NONE;
    skip_space(json);
    if (json->at == json->end) return OPD_JSON_NONE;
    switch (*json->at) {
        case '{': return OPD_JSON_OBJECT;
        case '[': return OPD_JSON_ARRAY;
        case '"': return OPD_JSON_STRING;
        case 't':
        case 'f': return OPD_JSON_BOOL;
        case 'n': return OPD_JSON_NULL;
        case '-': return OPD_JSON_NUMBER;
        default:
            return *json->at >= '0' && *json->at <= '9' ? OPD_JSON_NUMBER : OPD_JSON_NONE;
    }
}

/* ---- objects and arrays ---- */

static bool open_bracket(opd_json *json, char bracket, const char *expected) {
    if (json->error != NULL) return false;
    skip_space(json);
    if (json->at == json->end || *json->at != bracket) return opd_json_error(json, expected);
    if (json->depth == OPD_JSON_DEPTH_MAX) return opd_json_error(json, "nested too deep");
    json->at++;
    json->depth++;
    json->fresh = true;
    return true;
}

bool opd_json_object_begin(opd_json *json) {
    return open_bracket(json, '{', "expected an object");
}

bool opd_json_array_begin(opd_json *json) {
    return open_bracket(json, '[', "expected an array");
}

/* Passes the comma before the next member, or the closing bracket. */
static bool next_member(opd_json *json, char bracket, const char *expected) {
    if (json->error != NULL) return false;
    OPD_ASSERT(json->depth > 0);
    skip_space(json);
    if (json->at == json->end) return opd_json_error(json, expected);
    if (*json->at == bracket) {
        json->at++;
        json->depth--;
        json->fresh = false;
        return false;
    }
    if (!json->fresh) {
        if (*json->at != ',') return opd_json_error(json, expected);
        json->at++;
        skip_space(json);
        if (json->at < json->end && *json->at == bracket)
            return opd_json_error(json, "expected a value after ','");
    }
    json->fresh = false;
    return true;
}

bool opd_json_array_next(opd_json *json) {
    return next_member(json, ']', "expected ',' or ']'");
}

bool opd_json_object_next(opd_json *json, opd_json_text *out_key) {
    if (!next_member(json, '}', "expected ',' or '}'")) return false;
    if (opd_json_peek(json) != OPD_JSON_STRING)
        return opd_json_error(json, "expected a key in quotes");
    if (!opd_json_read_text(json, out_key)) return false;
    skip_space(json);
    if (json->at == json->end || *json->at != ':')
        return opd_json_error(json, "expected ':' after a key");
    json->at++;
    return true;
}

/* ---- strings ---- */

size_t opd__utf8_size(const unsigned char *at, size_t left) {
    unsigned char low = 0x80, high = 0xBF;
    size_t size;
    if (at[0] < 0x80) return 1;
    if (at[0] >= 0xC2 && at[0] <= 0xDF) size = 2;
    else if (at[0] >= 0xE0 && at[0] <= 0xEF) size = 3;
    else if (at[0] >= 0xF0 && at[0] <= 0xF4) size = 4;
    else return 0;
    if (at[0] == 0xE0) low = 0xA0;
    if (at[0] == 0xED) high = 0x9F;
    if (at[0] == 0xF0) low = 0x90;
    if (at[0] == 0xF4) high = 0x8F;
    if (left < size || at[1] < low || at[1] > high) return 0;
    for (size_t i = 2; i < size; i++)
        if ((at[i] & 0xC0) != 0x80) return 0;
    return size;
}

/* Bytes from `at` on that need no look: printable ASCII but '"' and '\\', 8 at a time. */
static const char *skip_plain(const char *at, const char *end) {
    const uint64_t ones = 0x0101010101010101u, tops = 0x8080808080808080u;
    while (end - at >= TEXT_CHUNK) {
        uint64_t v;
        memcpy(&v, at, TEXT_CHUNK);
        uint64_t quote = v ^ (ones * '"'), slash = v ^ (ones * '\\');
        uint64_t special = ((quote - ones) & ~quote) | ((slash - ones) & ~slash) |
                           (v - ones * 0x20) | v;
        if (special & tops) break;
        at += TEXT_CHUNK;
    }
    return at;
}

static int hex_value(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* The four hex digits at `at`, -1 when they are none. */
static int hex4(const char *at, const char *end) {
    int value = 0;
    if (end - at < 4) return -1;
    for (int i = 0; i < 4; i++) {
        int digit = hex_value(at[i]);
        if (digit < 0) return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* Bytes of the escape at `at` (a backslash), 0 when it is none. */
static size_t escape_size(const char *at, const char *end) {
    if (end - at < 2) return 0;
    if (at[1] == 'u') return hex4(at + 2, end) < 0 ? 0 : 6;
    return at[1] != '\0' && strchr("\"\\/bfnrt", at[1]) != NULL ? 2 : 0;
}

bool opd_json_read_text(opd_json *json, opd_json_text *out_text) {
    if (opd_json_peek(json) != OPD_JSON_STRING) return opd_json_error(json, "expected a string");
    const char *begin = json->at + 1, *at = begin, *end = json->end;
    bool escaped = false;
    for (;;) {
        at = skip_plain(at, end);
        if (at == end) return error_at(json, at, "the string does not end");
        unsigned char c = (unsigned char)*at;
        size_t size = 1;
        if (c == '"') break;
        if (c < 0x20) return error_at(json, at, "a control character in a string");
        if (c == '\\') {
            escaped = true;
            size = escape_size(at, end);
            if (size == 0) return error_at(json, at, "no such escape");
        } else if (c >= 0x80) {
            size = opd__utf8_size((const unsigned char *)at, (size_t)(end - at));
            if (size == 0) return error_at(json, at, "bytes that are not UTF-8");
        }
        at += size;
    }
    json->at = at + 1;
    *out_text = (opd_json_text){begin, (size_t)(at - begin), escaped};
    return true;
}

static size_t put_utf8(uint32_t code, char *out) {
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (char)(0xC0 | (code >> 6));
        out[1] = (char)(0x80 | (code & 0x3F));
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (char)(0xE0 | (code >> 12));
        out[1] = (char)(0x80 | ((code >> 6) & 0x3F));
        out[2] = (char)(0x80 | (code & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | (code >> 18));
    out[1] = (char)(0x80 | ((code >> 12) & 0x3F));
    out[2] = (char)(0x80 | ((code >> 6) & 0x3F));
    out[3] = (char)(0x80 | (code & 0x3F));
    return 4;
}

/* The code point of the escape at `at`; *out_size its bytes, 12 for a surrogate pair. */
static uint32_t escape_code(const char *at, const char *end, size_t *out_size) {
    static const char letters[] = "bfnrt", codes[] = "\b\f\n\r\t";
    *out_size = 2;
    if (at[1] != 'u') {
        const char *letter = strchr(letters, at[1]);
        return (uint32_t)(letter != NULL ? codes[letter - letters] : at[1]);
    }
    *out_size = 6;
    uint32_t code = (uint32_t)hex4(at + 2, end);
    if (code < 0xD800 || code > 0xDFFF) return code;
    int low = -1;
    if (code < 0xDC00 && end - at >= 12 && at[6] == '\\' && at[7] == 'u') low = hex4(at + 8, end);
    if (low < 0xDC00 || low > 0xDFFF) return 0xFFFD;
    *out_size = 12;
    return 0x10000 + ((code - 0xD800) << 10) + ((uint32_t)low - 0xDC00);
}

size_t opd_json_text_unescape(opd_json_text text, char *out) {
    const char *at = text.data, *end = text.data + text.size_bytes;
    char *to = out;
    while (at < end) {
        const char *slash = text.escaped ? memchr(at, '\\', (size_t)(end - at)) : NULL;
        size_t plain = (size_t)((slash != NULL ? slash : end) - at);
        memcpy(to, at, plain);
        to += plain;
        at += plain;
        if (at == end) break;
        size_t size;
        uint32_t code = escape_code(at, end, &size);
        to += put_utf8(code, to);
        at += size;
    }
    return (size_t)(to - out);
}

bool opd_json_text_is(opd_json_text text, const char *want) {
    size_t want_size = strlen(want);
    if (!text.escaped)
        return text.size_bytes == want_size && memcmp(text.data, want, want_size) == 0;
    const char *at = text.data, *end = text.data + text.size_bytes, *rest = want;
    while (at < end) { /* one character at a time: escaped keys are rare */
        char bytes[4];
        size_t size = 1, count = 1;
        bytes[0] = *at;
        if (*at == '\\') count = put_utf8(escape_code(at, end, &size), bytes);
        if ((size_t)(want + want_size - rest) < count || memcmp(bytes, rest, count) != 0)
            return false;
        rest += count;
        at += size;
    }
    return rest == want + want_size;
}

bool opd_json_read_string(opd_json *json, char *out, size_t size_max_bytes) {
    opd_json_text text;
    opd_json_kind kind = opd_json_peek(json);
    const char *at = json->at;
    if (kind != OPD_JSON_STRING || !opd_json_read_text(json, &text))
        return opd_json_error(json, "expected a string");
    /* The raw text is the larger one, so what fits raw needs no second look. */
    if (text.size_bytes >= size_max_bytes)
        return error_at(json, at, "the string is too long");
    size_t size = opd_json_text_unescape(text, out);
    if (memchr(out, '\0', size) != NULL) return error_at(json, at, "a NUL inside the string");
    out[size] = '\0';
    return true;
}

bool opd_json_read_dup(opd_json *json, const opd_alloc *alloc, char **out_text,
                       size_t *out_size_bytes) {
    opd_json_text text;
    if (!opd_json_read_text(json, &text)) return false;
    char *copy = opd_mem_get(alloc, text.size_bytes + 1);
    if (copy == NULL) return opd_json_error(json, "out of memory for a string");
    size_t size = opd_json_text_unescape(text, copy);
    if (out_size_bytes == NULL && memchr(copy, '\0', size) != NULL) {
        opd_mem_free(alloc, copy);
        return opd_json_error(json, "a NUL inside the string");
    }
    copy[size] = '\0';
    if (out_size_bytes != NULL) *out_size_bytes = size;
    *out_text = copy;
    return true;
}

/* ---- numbers ---- */

static inline bool is_digit(const char *at, const char *end) {
    return at < end && (unsigned char)(*at - '0') <= 9;
}

/* Takes the digits at `at` into the mantissa; `scale` is what a taken digit does to the
 * exponent (0 before the point, -1 after), and one left out does one more. */
static const char *take_digits(number *n, const char *at, const char *end, int scale, int *taken) {
    for (; is_digit(at, end); at++) {
        if (*taken < MANTISSA_DIGITS_MAX) {
            n->mantissa = n->mantissa * 10 + (uint64_t)(*at - '0');
            n->exponent += scale;
            if (n->mantissa != 0) (*taken)++;
        } else {
            n->truncated = true;
            if (n->exponent < EXPONENT_MAX) n->exponent += scale + 1;
        }
    }
    return at;
}

/* Takes "e+12" at `at` (the letter) into the exponent; NULL when no digit follows. */
static const char *take_exponent(number *n, const char *at, const char *end) {
    int value = 0;
    bool negative = false;
    at++;
    if (at < end && (*at == '+' || *at == '-')) negative = *at++ == '-';
    if (!is_digit(at, end)) return NULL;
    for (; is_digit(at, end); at++)
        if (value < EXPONENT_MAX) value = value * 10 + (*at - '0');
    n->exponent += negative ? -value : value;
    return at;
}

/* Scans one number by the grammar. False and an error when none stands there. */
static bool scan_number(opd_json *json, number *n) {
    if (opd_json_peek(json) != OPD_JSON_NUMBER) return opd_json_error(json, "expected a number");
    const char *at = json->at, *end = json->end;
    int taken = 0;
    *n = (number){.begin = at, .integer = true};
    if (*at == '-') {
        n->negative = true;
        at++;
    }
    if (!is_digit(at, end)) return error_at(json, at, "expected a digit");
    if (*at == '0' && is_digit(at + 1, end)) return error_at(json, at, "a number with a leading 0");
    at = take_digits(n, at, end, 0, &taken);
    if (at < end && *at == '.') {
        n->integer = false;
        if (!is_digit(at + 1, end)) return error_at(json, at + 1, "expected a digit");
        at = take_digits(n, at + 1, end, -1, &taken);
    }
    if (at < end && (*at == 'e' || *at == 'E')) {
        n->integer = false;
        const char *after = take_exponent(n, at, end);
        if (after == NULL) return error_at(json, at + 1, "expected a digit");
        at = after;
    }
    n->end = json->at = at;
    return true;
}

/* strtod over at most HARD_DIGITS_MAX digits rewritten as "digits e exponent", which
 * needs neither a terminator in the input nor a decimal point (that a locale may change).
 * Digits left out leave a last 1 behind when any is not 0, so that ties break right. */
static double hard_double(const number *n) {
    char text[HARD_DIGITS_MAX + 32];
    int size = 0, written = 0, scale = 0, explicit_exponent = 0;
    bool point = false, sticky = false;
    if (n->negative) text[size++] = '-';
    for (const char *at = n->begin; at < n->end; at++) {
        if (*at == '.') point = true;
        if (*at == 'e' || *at == 'E') {
            number tail = {0};
            (void)take_exponent(&tail, at, n->end);
            explicit_exponent = tail.exponent;
            break;
        }
        if (!is_digit(at, n->end)) continue;
        bool leading = *at == '0' && written == 0;
        bool kept = written < HARD_DIGITS_MAX;
        if (!kept && *at != '0') sticky = true;
        if (kept && !leading) {
            text[size++] = *at;
            written++;
        }
        if (point && kept && scale > -EXPONENT_MAX) scale--;
        if (!point && !kept && scale < EXPONENT_MAX) scale++;
    }
    if (written == 0) text[size++] = '0';
    if (sticky) {
        text[size++] = '1';
        scale--;
    }
    (void)snprintf(text + size, sizeof text - (size_t)size, "e%d", scale + explicit_exponent);
    return strtod(text, NULL);
}

bool opd_json_read_double(opd_json *json, double *out_value) {
    number n;
    double value;
    if (!scan_number(json, &n)) return false;
    if (!n.truncated && n.mantissa <= (UINT64_C(1) << 53) && n.exponent >= -EXACT_POWER_MAX &&
        n.exponent <= EXACT_POWER_MAX) { /* both exact: one correct rounding */
        value = (double)n.mantissa;
        value = n.exponent < 0 ? value / exact_power[-n.exponent] : value * exact_power[n.exponent];
        if (n.negative) value = -value;
    } else {
        value = hard_double(&n);
    }
    if (!isfinite(value)) return error_at(json, n.begin, "the number is too large");
    *out_value = value;
    return true;
}

bool opd_json_read_float(opd_json *json, float *out_value) {
    number n;
    double value;
    if (!scan_number(json, &n)) return false;
    if (n.exponent >= -EXACT_POWER_MAX && n.exponent <= EXACT_POWER_MAX) {
        value = (double)n.mantissa;
        value = n.exponent < 0 ? value / exact_power[-n.exponent] : value * exact_power[n.exponent];
        if (n.negative) value = -value;
    } else {
        value = hard_double(&n);
    }
    float narrow = (float)value;
    if (!isfinite(narrow)) return error_at(json, n.begin, "the number is too large");
    *out_value = narrow;
    return true;
}

bool opd_json_read_int64(opd_json *json, int64_t *out_value) {
    number n = {0};
    if (!scan_number(json, &n)) return false;
    uint64_t limit = (uint64_t)INT64_MAX + (n.negative ? 1 : 0);
    if (!n.integer) return error_at(json, n.begin, "expected a whole number");
    if (n.truncated || n.mantissa > limit)
        return error_at(json, n.begin, "the whole number is too large");
    *out_value = n.negative ? (int64_t)(0 - n.mantissa) : (int64_t)n.mantissa;
    return true;
}

/* ---- words, skipping ---- */

static bool take_word(opd_json *json, const char *word, const char *expected) {
    size_t size = strlen(word);
    if ((size_t)(json->end - json->at) < size || memcmp(json->at, word, size) != 0)
        return opd_json_error(json, expected);
    json->at += size;
    return true;
}

bool opd_json_read_bool(opd_json *json, bool *out_value) {
    if (opd_json_peek(json) != OPD_JSON_BOOL)
        return opd_json_error(json, "expected true or false");
    bool value = *json->at == 't';
    if (!take_word(json, value ? "true" : "false", "expected true or false")) return false;
    *out_value = value;
    return true;
}

bool opd_json_read_null(opd_json *json) {
    if (opd_json_peek(json) != OPD_JSON_NULL) return opd_json_error(json, "expected null");
    return take_word(json, "null", "expected null");
}

/* Passes over one scalar, or over an opening bracket. */
static bool skip_token(opd_json *json) {
    opd_json_text text;
    number n;
    bool flag;
    switch (opd_json_peek(json)) {
        case OPD_JSON_OBJECT: return opd_json_object_begin(json);
        case OPD_JSON_ARRAY: return opd_json_array_begin(json);
        case OPD_JSON_STRING: return opd_json_read_text(json, &text);
        case OPD_JSON_NUMBER: return scan_number(json, &n);
        case OPD_JSON_BOOL: return opd_json_read_bool(json, &flag);
        case OPD_JSON_NULL: return opd_json_read_null(json);
        default: return opd_json_error(json, "expected a value");
    }
}

bool opd_json_skip(opd_json *json) {
    uint64_t objects = 0; /* bit d: the bracket opened at depth base + d + 1 is '{' */
    int base = json->depth;
    _Static_assert(OPD_JSON_DEPTH_MAX <= 64, "one bit per level");
    do {
        if (json->depth > base) { /* inside: go to the next member, or leave */
            int level = json->depth - base - 1;
            opd_json_text key;
            bool more = (objects >> level) & 1 ? opd_json_object_next(json, &key)
                                               : opd_json_array_next(json);
            if (json->error != NULL) return false;
            if (!more) continue;
        }
        bool object = opd_json_peek(json) == OPD_JSON_OBJECT;
        int before = json->depth;
        if (!skip_token(json)) return false;
        if (json->depth > before) {
            uint64_t bit = UINT64_C(1) << (before - base);
            objects = object ? objects | bit : objects & ~bit;
        }
    } while (json->depth > base);
    return true;
}

bool opd_json_raw(opd_json *json, const char **out_data, size_t *out_size_bytes) {
    (void)opd_json_peek(json);
    const char *begin = json->at;
    if (!opd_json_skip(json)) return false;
    *out_data = begin;
    *out_size_bytes = (size_t)(json->at - begin);
    return true;
}
