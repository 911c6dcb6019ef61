/* sglang_fast.c - the bulk of an answer at the speed of its numbers (sglang_scan_inside.h).
 *
 * Only what is written as servers write it is taken here: "[-0.25,17,null]," without white space,
 * numbers of at most 19 digits. Anything else, and the end of a piece, is left where it stands
 * for the tokenizer, which reads every JSON. Numbers come out bit for bit as json.h reads them:
 * the digits as one integer, scaled once by an exact power of ten.
 * Thread: the scan's. Memory: none.
 */
#include <string.h>

#include "transports/sglang_scan_inside.h"

/* More bytes than one element has here: sign, 19 digits, point, exponent, id, brackets, commas,
 * and the eight that are looked at together. */
enum { ELEMENT_MAX = 80, DIGITS_MAX = 19, ZEROS_MAX = 4, POWER_MAX = 22, ID_DIGITS_MAX = 9 };

static const double power[POWER_MAX + 1] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                            1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                            1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

static inline uint64_t load8(const char *at) {
    uint64_t v;
    memcpy(&v, at, sizeof v); /* little-endian, as all our buffers: the first digit is lowest */
    return v;
}

/* Whether all eight bytes are '0'..'9': the high nibble is 3, and adding 6 does not change it. */
static inline bool eight_digits(uint64_t v) {
    const uint64_t high = 0xF0F0F0F0F0F0F0F0u, sixes = 0x0606060606060606u;
    return (((v & high) | (((v + sixes) & high) >> 4)) == 0x3333333333333333u);
}

/* Their value: neighbours are joined three times, 1 digit to 2, 2 to 4, 4 to 8. */
static inline uint64_t eight_value(uint64_t v) {
    v -= 0x3030303030303030u;
    v = (v * 10 + (v >> 8)) & 0x00FF00FF00FF00FFu;
    v = (v * 100 + (v >> 16)) & 0x0000FFFF0000FFFFu;
    return (v * 10000 + (v >> 32)) & 0xFFFFFFFFu;
}

static inline bool is_digit(char c) { return (unsigned char)(c - '0') <= 9; }

/* "e-07" at `at` (the letter): its value; NULL where it is long or none. */
static inline const char *fast_exponent(const char *at, int *out) {
    bool negative = at[1] == '-';
    at += 1 + (at[1] == '-' || at[1] == '+');
    if (!is_digit(*at)) return NULL;
    int value = *at++ - '0';
    if (is_digit(*at)) value = value * 10 + (*at++ - '0');
    if (is_digit(*at)) return NULL;
    *out = negative ? -value : value;
    return at;
}

/* A number; NULL where it is none that can be read here. */
static inline const char *fast_number(const char *at, float *out) {
    bool negative = *at == '-';
    at += negative;
    if (!is_digit(*at) || (*at == '0' && is_digit(at[1]))) return NULL;
    const char *begin = at;
    uint64_t mantissa = 0;
    int exponent = 0;
    while (is_digit(*at) && at - begin < DIGITS_MAX) mantissa = mantissa * 10 + (uint64_t)(*at++ - '0');
    if (*at == '.') {
        const char *limit = at + 1 + DIGITS_MAX - (at - begin), *point = ++at;
        if (!is_digit(*at)) return NULL;
        if (mantissa == 0) { /* zeros in front are no digits of the mantissa */
            while (*at == '0' && at - point < ZEROS_MAX) at++;
            limit = at + DIGITS_MAX;
        }
        for (uint64_t v; limit - at >= 8 && eight_digits(v = load8(at)); at += 8)
            mantissa = mantissa * 100000000 + eight_value(v);
        while (is_digit(*at) && at < limit) mantissa = mantissa * 10 + (uint64_t)(*at++ - '0');
        exponent = -(int)(at - point);
    }
    if (is_digit(*at)) return NULL; /* too long */
    if (*at == 'e' || *at == 'E') {
        int more;
        at = fast_exponent(at, &more);
        if (at == NULL) return NULL;
        exponent += more;
    }
    if (exponent < -POWER_MAX || exponent > POWER_MAX) return NULL;
    double value = (double)mantissa;
    value = exponent < 0 ? value / power[-exponent] : value * power[exponent];
    *out = (float)(negative ? -value : value);
    return at;
}

/* An id; NULL where it is none that can be read here. */
static inline const char *fast_id(const char *at, int64_t *out) {
    const char *begin = at;
    int64_t id = 0;
    while (is_digit(*at) && at - begin < ID_DIGITS_MAX) id = id * 10 + (*at++ - '0');
    if (at == begin || is_digit(*at) || (*begin == '0' && at - begin > 1) || *at == '.' ||
        *at == 'e' || *at == 'E')
        return NULL;
    *out = id;
    return at;
}

/* "[logp,id,null]"; NULL where it is none. A float that overflows is not usable either way. */
static inline const char *fast_triple(const char *at, float *out_logp, int64_t *out_id) {
    static const char tail[] = ",null]";
    if (*at != '[') return NULL;
    at = fast_number(at + 1, out_logp);
    if (at == NULL || *at != ',') return NULL;
    at = fast_id(at + 1, out_id);
    if (at == NULL || memcmp(at, tail, sizeof tail - 1) != 0) return NULL;
    return at + sizeof tail - 1;
}

/* What follows an element: a comma (go on behind it), the array's end, or something else. */
typedef enum follows { FOLLOWS_COMMA, FOLLOWS_END, FOLLOWS_OTHER } follows;

static inline follows what_follows(const char *at) {
    return *at == ',' ? FOLLOWS_COMMA : *at == ']' ? FOLLOWS_END : FOLLOWS_OTHER;
}

static inline const char *triples(opd_sglang_scan *s, const char *at, const char *end, bool top,
                                  bool *out_last) {
    float logp;
    int64_t id;
    while (end - at >= ELEMENT_MAX) {
        const char *next = fast_triple(at, &logp, &id);
        follows f = next == NULL ? FOLLOWS_OTHER : what_follows(next);
        if (f == FOLLOWS_OTHER || (top && s->top_seen >= s->score->top_k)) break;
        bool usable = opd__logp_usable(logp);
        if (top) (void)opd__scan_alternative(s, usable, logp, id);
        else opd__scan_row(s, usable, logp, id);
        *out_last = f == FOLLOWS_END;
        at = next + (f == FOLLOWS_COMMA);
        if (f == FOLLOWS_END) break;
    }
    return at;
}

static inline const char *flat(opd_sglang_scan *s, const char *at, const char *end, bool ids,
                               bool *out_last) {
    size_t room = (s->expected - 1) * (size_t)s->score->top_k - (ids ? s->idx_count : s->val_count);
    float logp;
    int64_t id;
    while (end - at >= ELEMENT_MAX && room > 0) {
        const char *next = ids ? fast_id(at, &id) : fast_number(at, &logp);
        follows f = next == NULL ? FOLLOWS_OTHER : what_follows(next);
        if (f == FOLLOWS_OTHER) break;
        if (ids) (void)opd__scan_flat_idx(s, id);
        else (void)opd__scan_flat_val(s, logp);
        room--;
        *out_last = f == FOLLOWS_END;
        at = next + (f == FOLLOWS_COMMA);
        if (f == FOLLOWS_END) break;
    }
    return at;
}

const char *opd__sglang_fast(opd_sglang_scan *scan, const char *at, const char *end) {
    const char *begin = at;
    bool last = false;
    if (scan->skip_level >= 0) return at;
    if (scan->json.depth == OPD__LEVEL_TOP_ELEMENT) {
        if (scan->field == OPD__FIELD_TOP) at = triples(scan, at, end, true, &last);
    } else if (scan->json.depth == OPD__LEVEL_ELEMENT) {
        if (scan->field == OPD__FIELD_ROWS) at = triples(scan, at, end, false, &last);
        else if (scan->field == OPD__FIELD_VAL) at = flat(scan, at, end, false, &last);
        else if (scan->field == OPD__FIELD_IDX) at = flat(scan, at, end, true, &last);
    }
    if (at == begin) return at;
    if (last) opd_json_push_behind_element(&scan->json, (size_t)(at - begin));
    else opd_json_push_behind_comma(&scan->json, (size_t)(at - begin));
    return at;
}
