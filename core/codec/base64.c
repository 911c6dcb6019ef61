/* core/codec/base64.c - base64 by vectors and tables (base64.h).
 *
 * Reading: 16 characters at a time in a vector (GCC's and clang's vector extension, any machine), where
 * ranges are compared and bits are shifted in all places at once; what is left over goes by tables: one
 * per place in a group holds the character's six bits where they belong, and bit 31 as the mark of a
 * character of the alphabet.
 * Thread: any. Memory: none.
 */
#include "core/codec/base64.h"

#include <string.h>

#define MARK 0x80000000u
#define E(c, value, shift) [c] = MARK | ((uint32_t)(value) << (shift))
#define E8(c, d, e, f, g, h, i, j, value, s)                                                     \
    E(c, value, s), E(d, (value) + 1, s), E(e, (value) + 2, s), E(f, (value) + 3, s),            \
    E(g, (value) + 4, s), E(h, (value) + 5, s), E(i, (value) + 6, s), E(j, (value) + 7, s)
#define ALPHABET(s)                                                                              \
    {E8('A', 'B', 'C', 'D', 'E', 'F', 'G', 'H', 0, s),                                           \
     E8('I', 'J', 'K', 'L', 'M', 'N', 'O', 'P', 8, s),                                           \
     E8('Q', 'R', 'S', 'T', 'U', 'V', 'W', 'X', 16, s),                                          \
     E8('Y', 'Z', 'a', 'b', 'c', 'd', 'e', 'f', 24, s),                                          \
     E8('g', 'h', 'i', 'j', 'k', 'l', 'm', 'n', 32, s),                                          \
     E8('o', 'p', 'q', 'r', 's', 't', 'u', 'v', 40, s),                                          \
     E8('w', 'x', 'y', 'z', '0', '1', '2', '3', 48, s),                                          \
     E8('4', '5', '6', '7', '8', '9', '+', '/', 56, s)}

static const uint32_t table[4][256] = {ALPHABET(18), ALPHABET(12), ALPHABET(6), ALPHABET(0)};

/* MARK if all four are letters of the alphabet, else 0. */
static inline uint32_t decode(const char *c, uint32_t *out_bits) {
    uint32_t a = table[0][(unsigned char)c[0]], b = table[1][(unsigned char)c[1]];
    uint32_t d = table[2][(unsigned char)c[2]], e = table[3][(unsigned char)c[3]];
    *out_bits = a | b | d | e;
    return a & b & d & e & MARK;
}

static inline void put(uint8_t *out, uint32_t bits) {
    out[0] = (uint8_t)(bits >> 16);
    out[1] = (uint8_t)(bits >> 8);
    out[2] = (uint8_t)bits;
}

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
typedef int8_t chars __attribute__((vector_size(16)));
typedef uint32_t groups __attribute__((vector_size(16)));
typedef uint64_t pairs __attribute__((vector_size(16)));

#define ALL(c) {c, c, c, c, c, c, c, c, c, c, c, c, c, c, c, c}

static inline chars within(chars c, chars first, chars last) { return (c >= first) & (c <= last); }

/* 16 characters to 12 bytes, written as 14; false, and nothing is written, if one is not of the alphabet. */
static inline bool decode_16(const char *at, uint8_t *out) {
    static const chars upper = ALL('A'), upper_end = ALL('Z'), lower = ALL('a'), lower_end = ALL('z'),
                       digit = ALL('0'), digit_end = ALL('9'), plus = ALL('+'), slash = ALL('/');
    static const chars of_upper = ALL(-'A'), of_lower = ALL(26 - 'a'), of_digit = ALL(52 - '0'),
                       of_plus = ALL(62 - '+'), of_slash = ALL(63 - '/');
    chars c;
    memcpy(&c, at, sizeof c);
    chars u = within(c, upper, upper_end), l = within(c, lower, lower_end), d = within(c, digit, digit_end);
    chars p = c == plus, s = c == slash;
    pairs known = (pairs)(u | l | d | p | s);
    if ((known[0] & known[1]) != UINT64_MAX) return false;
    groups six = (groups)(c + ((u & of_upper) | (l & of_lower) | (d & of_digit) | (p & of_plus) | (s & of_slash)));
    groups twelve = (six & 0x003f003f) << 6 | (six >> 8 & 0x003f003f);
    groups bits = (twelve & 0xffff) << 12 | twelve >> 16;
    pairs bytes = (pairs)((bits >> 16) | (bits & 0xff00) | (bits & 0xff) << 16); /* the first one lowest */
    bytes = (bytes & 0xffffffff) | bytes >> 32 << 24;
    memcpy(out, &bytes, 8);
    memcpy(out + 6, (const char *)&bytes + 8, 8);
    return true;
}
#else
static inline bool decode_16(const char *at, uint8_t *out) {
    (void)at, (void)out;
    return false;
}
#endif

/* Whole groups without padding, as far as they and the room go: four at a time, then singly. */
static const char *feed_fast(opd_base64 *text, const char *at, const char *end) {
    uint8_t *out = text->out, *out_end = out + text->room_bytes;
    uint32_t bits;
    for (; end - at >= 16 && out_end - out >= 14 && decode_16(at, out); at += 16) out += 12;
    for (; end - at >= 4 && out_end - out >= 3 && decode(at, &bits); at += 4, out += 3)
        put(out, bits);
    text->room_bytes = (size_t)(out_end - out);
    text->out = out;
    return at;
}

/* The group in quad, which may be padded. */
static opd_base64_status end_group(opd_base64 *text) {
    char quad[4];
    uint8_t bytes[3];
    uint32_t bits;
    size_t size = text->quad[3] != '=' ? 3 : text->quad[2] != '=' ? 2 : 1;
    memcpy(quad, text->quad, sizeof quad);
    for (size_t i = size + 1; i < sizeof quad; i++) quad[i] = 'A';
    if (!decode(quad, &bits)) return OPD_BASE64_WRONG; /* '=' before the padding's place */
    put(bytes, bits);
    for (size_t i = size; i < sizeof bytes; i++)
        if (bytes[i] != 0) return OPD_BASE64_WRONG;
    if (size > text->room_bytes) return OPD_BASE64_FULL;
    memcpy(text->out, bytes, size);
    text->out += size;
    text->room_bytes -= size;
    text->have = 0;
    text->ended = size < 3;
    return OPD_BASE64_OK;
}

opd_base64_status opd_base64_feed(opd_base64 *text, const char **at, const char *end) {
    while (*at < end) {
        if (text->have == 0 && !text->ended) *at = feed_fast(text, *at, end);
        if (*at == end) break;
        char c = **at;
        if (table[0][(unsigned char)c] == 0 && c != '=') break;
        if (text->ended) return OPD_BASE64_WRONG;
        text->quad[text->have++] = c;
        (*at)++;
        if (text->have < sizeof text->quad) continue;
        opd_base64_status status = end_group(text);
        if (status != OPD_BASE64_OK) return status;
    }
    return OPD_BASE64_OK;
}

bool opd_base64_whole(const opd_base64 *text) { return text->have == 0; }

/* ---- writing ---- */

static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

size_t opd_base64_size(size_t size_bytes) { return (size_bytes + 2) / 3 * 4; }

static inline void encode(const uint8_t *three, char *out) {
    uint32_t bits = (uint32_t)three[0] << 16 | (uint32_t)three[1] << 8 | three[2];
    out[0] = letters[bits >> 18];
    out[1] = letters[bits >> 12 & 63];
    out[2] = letters[bits >> 6 & 63];
    out[3] = letters[bits & 63];
}

void opd_base64_write(const void *bytes, size_t size_bytes, char *out) {
    const uint8_t *at = bytes, *end = at + size_bytes;
    uint8_t last[3] = {0};
    for (; end - at >= 3; at += 3, out += 4) encode(at, out);
    if (at == end) return;
    memcpy(last, at, (size_t)(end - at));
    encode(last, out);
    for (size_t i = 1 + (size_t)(end - at); i < 4; i++) out[i] = '=';
}
