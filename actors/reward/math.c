/* actors/reward/math.c - see math.h. Texts are pieces [data, end) of the caller's bytes;
 * numbers are compared as fractions of decimal digit strings. No state, any thread. */
#include "actors/reward/math.h"

#include <stdint.h>
#include <string.h>

#define DIGITS_MAX 40     /* of a numerator, a denominator, or behind the point */
#define BIG_DIGITS 128    /* room for the product of three such                 */
#define BOXES_TRIED_MAX 256

typedef struct piece {
    const char *data, *end;
} piece;

static size_t piece_size(piece text) { return (size_t)(text.end - text.data); }
static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
static bool is_blank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c; }

static piece trim_blanks(piece text) {
    while (text.data < text.end && is_blank(text.data[0])) text.data++;
    while (text.data < text.end && is_blank(text.end[-1])) text.end--;
    return text;
}

/* Whether `text` goes on with the literal `want` (lower case) at `at`, in any case. */
static bool starts_with(piece text, const char *at, const char *want) {
    for (; *want != '\0'; at++, want++)
        if (at >= text.end || lower(*at) != *want) return false;
    return true;
}

/* Drops `want` (lower case) from the front of the text, if it is there. */
static bool take(piece *text, const char *want) {
    if (!starts_with(*text, text->data, want)) return false;
    text->data += strlen(want);
    return true;
}

/* ---- numbers in a text ---- */

/* End of the digits at `at`, thousands separators included: "1,234,567" is one number,
 * of "12,34" only the "12". */
static const char *skip_digits(const char *at, const char *end) {
    const char *begin = at;
    while (at < end && is_digit(*at)) at++;
    if (at == begin || at - begin > 3) return at;
    while (end - at >= 4 && at[0] == ',' && is_digit(at[1]) && is_digit(at[2]) &&
           is_digit(at[3]) && !(end - at >= 5 && is_digit(at[4])))
        at += 4;
    return at;
}

/* End of "12", "1,234.5", ".5" at `at`; `at` itself when no number starts there. */
static const char *skip_decimal(const char *at, const char *end) {
    const char *stop = skip_digits(at, end);
    if (end - stop >= 2 && stop[0] == '.' && is_digit(stop[1])) {
        stop++;
        while (stop < end && is_digit(*stop)) stop++;
    }
    return stop;
}

/* The next number in [*at, text.end) with its sign and "/denominator"; *at moves behind it.
 * Digits that belong to a name or an exponent (x2, x^2, x_2) are passed over. */
static bool next_number(piece text, const char **at, piece *out_number) {
    const char *scan = *at;
    while (scan < text.end) {
        const char *stop = skip_decimal(scan, text.end);
        if (stop == scan) {
            scan++;
            continue;
        }
        char before = scan > text.data ? scan[-1] : ' ';
        if (stop < text.end && *stop == '/') {
            const char *below = skip_digits(stop + 1, text.end);
            if (below > stop + 1) stop = below;
        }
        *at = stop;
        if (is_letter(before) || before == '^' || before == '_') {
            scan = stop;
            continue;
        }
        const char *begin = scan;
        if (before == '$') begin--;
        if (begin > text.data && begin[-1] == '-' &&
            !(begin - text.data >= 2 && (is_digit(begin[-2]) || is_letter(begin[-2]) ||
                                         begin[-2] == ')')))
            begin--;
        *out_number = (piece){begin, stop};
        return true;
    }
    *at = text.end;
    return false;
}

/* ---- values ---- */

/* A natural number, least digit first, without zeros at the top; size 0 is zero. */
typedef struct natural {
    uint8_t digits[BIG_DIGITS];
    size_t size;
} natural;

static natural multiply(const natural *a, const natural *b) {
    natural product = {.size = a->size + b->size};
    for (size_t i = 0; i < a->size; i++) {
        unsigned carry = 0;
        for (size_t j = 0; j < b->size || carry > 0; j++) {
            unsigned sum = product.digits[i + j] + carry;
            if (j < b->size) sum += (unsigned)a->digits[i] * b->digits[j];
            product.digits[i + j] = (uint8_t)(sum % 10);
            carry = sum / 10;
        }
    }
    while (product.size > 0 && product.digits[product.size - 1] == 0) product.size--;
    return product;
}

/* Reads the digits of [at, end), passing over anything else. False when there are too many. */
static bool read_natural(const char *at, const char *end, natural *out_natural) {
    out_natural->size = 0;
    for (const char *c = end; c > at; c--) {
        if (!is_digit(c[-1])) continue;
        if (out_natural->size == 2 * DIGITS_MAX) return false;
        out_natural->digits[out_natural->size++] = (uint8_t)(c[-1] - '0');
    }
    while (out_natural->size > 0 && out_natural->digits[out_natural->size - 1] == 0)
        out_natural->size--;
    return out_natural->size <= DIGITS_MAX;
}

/* above / below, negated when `negative`; below is not zero. */
typedef struct rational {
    natural above, below;
    bool negative;
} rational;

/* Drops signs and marks that do not change a number: blanks, $, %, a final period. */
static bool strip_marks(piece *text) {
    bool negative = false, signed_once = false;
    for (;;) {
        *text = trim_blanks(*text);
        if (take(text, "\\$") || take(text, "$")) continue;
        bool minus = take(text, "-") || take(text, "\xE2\x88\x92"); /* U+2212 */
        if (!minus && !take(text, "+")) break;
        if (signed_once) return false; /* "--5" stays a text that is no number */
        signed_once = true;
        negative = minus;
    }
    while (text->data < text->end &&
           (text->end[-1] == '.' || text->end[-1] == '%' || text->end[-1] == '$' ||
            text->end[-1] == '\\' || is_blank(text->end[-1])))
        text->end--;
    return negative;
}

/* Reads a text that is a number as a whole. */
static bool read_value(piece text, rational *out_value) {
    out_value->negative = strip_marks(&text);
    const char *stop = skip_decimal(text.data, text.end);
    if (stop == text.data) return false;
    const char *point = memchr(text.data, '.', (size_t)(stop - text.data));
    size_t decimals = point != NULL ? (size_t)(stop - point - 1) : 0;
    while (decimals > 0 && stop[-1] == '0') { /* 43.0 is 43 */
        stop--;
        decimals--;
    }
    if (decimals > DIGITS_MAX || !read_natural(text.data, stop, &out_value->above)) return false;
    out_value->below = (natural){.size = decimals + 1};
    out_value->below.digits[decimals] = 1;
    stop = skip_decimal(text.data, text.end);
    if (stop < text.end && *stop == '/') {
        natural below;
        const char *last = skip_digits(stop + 1, text.end);
        if (!read_natural(stop + 1, last, &below) || below.size == 0) return false;
        out_value->below = multiply(&out_value->below, &below);
        stop = last;
    }
    return stop == text.end;
}

static bool same_value(const rational *a, const rational *b) {
    natural left = multiply(&a->above, &b->below), right = multiply(&b->above, &a->below);
    if (left.size != right.size || memcmp(left.digits, right.digits, left.size) != 0) return false;
    return left.size == 0 || a->negative == b->negative;
}

/* ---- equality of answers ---- */

static piece trim_answer(piece text) {
    for (;;) {
        text = trim_blanks(text);
        if (text.data < text.end && text.data[0] == '$') text.data++;
        else if (text.data < text.end && (text.end[-1] == '$' || text.end[-1] == '.')) text.end--;
        else return text;
    }
}

static bool same_text(piece a, piece b) {
    a = trim_answer(a);
    b = trim_answer(b);
    if (piece_size(a) != piece_size(b) || piece_size(a) == 0) return false;
    for (size_t i = 0; i < piece_size(a); i++)
        if (lower(a.data[i]) != lower(b.data[i])) return false;
    return true;
}

static bool pieces_equal(piece a, piece b) {
    a = trim_blanks(a);
    b = trim_blanks(b);
    if (piece_size(a) > OPD_ANSWER_SIZE_MAX || piece_size(b) > OPD_ANSWER_SIZE_MAX) return false;
    rational left, right;
    if (read_value(a, &left) && read_value(b, &right)) return same_value(&left, &right);
    return same_text(a, b);
}

bool opd_answer_equal(const char *a, size_t a_size_bytes, const char *b, size_t b_size_bytes) {
    return pieces_equal((piece){a, a + a_size_bytes}, (piece){b, b + b_size_bytes});
}

/* ---- finding the answer ---- */

/* Content of the last \boxed{...} whose braces close within the size of an answer. */
static bool find_boxed(piece text, piece *out_answer) {
    int tried = 0;
    for (const char *at = text.end; at > text.data && tried < BOXES_TRIED_MAX; at--) {
        if (at[-1] != '\\' || !starts_with(text, at - 1, "\\boxed{")) continue;
        const char *begin = at + strlen("boxed{"), *c = begin;
        tried++;
        for (int depth = 1; c < text.end && c - begin <= OPD_ANSWER_SIZE_MAX; c++) {
            if (*c == '\\' && c + 1 < text.end) c++; /* an escaped brace is no brace */
            else if (*c == '{') depth++;
            else if (*c == '}' && --depth == 0) {
                *out_answer = trim_blanks((piece){begin, c});
                return true;
            }
        }
    }
    return false;
}

static bool is_padding(char c) { return is_blank(c) || c == '*' || c == ':'; }

/* The line at `at`, or the next one that says something, without blanks, colons and
 * Markdown's asterisks around it. */
static piece line_at(piece text, const char *at) {
    while (at < text.end && is_padding(*at)) at++;
    const char *stop = at < text.end ? memchr(at, '\n', (size_t)(text.end - at)) : NULL;
    if (stop == NULL) stop = text.end;
    while (stop > at && is_padding(stop[-1])) stop--;
    return (piece){at, stop};
}

/* Length of a marker that says "the answer follows" at `at`, else 0. */
static size_t answer_marker(piece text, const char *at) {
    if (starts_with(text, at, "answer is")) return strlen("answer is");
    if (starts_with(text, at, "answer:")) return strlen("answer:");
    bool at_line_start = at == text.data || at[-1] == '\n';
    return at_line_start && starts_with(text, at, "a:") ? strlen("a:") : 0;
}

/* What stands behind the last marker; an empty answer when nothing does. */
static bool find_marked(piece text, piece *out_answer) {
    bool found = find_boxed(text, out_answer);
    for (const char *at = text.end; at > text.data && !found; at--) {
        found = at[-1] == '#' && starts_with(text, at - 1, "####");
        if (found) *out_answer = line_at(text, at + 3);
    }
    for (const char *at = text.end; at > text.data && !found; at--) {
        if (lower(at[-1]) != 'a') continue;
        size_t size = answer_marker(text, at - 1);
        found = size > 0;
        if (found) *out_answer = line_at(text, at - 1 + size);
    }
    return found;
}

static bool find_last_number(piece text, piece *out_answer) {
    const char *at = text.data;
    bool found = false;
    while (next_number(text, &at, out_answer)) found = true;
    return found;
}

bool opd_answer_extract(const char *text, size_t size_bytes, const char **out_answer,
                        size_t *out_size_bytes) {
    piece whole = {text, text + size_bytes}, answer;
    if (!find_marked(whole, &answer) && !find_last_number(whole, &answer)) return false;
    if (piece_size(answer) == 0) return false;
    *out_answer = answer.data;
    *out_size_bytes = piece_size(answer);
    return true;
}

/* The one number of an answer in words ("18 eggs", "x = 5", "3*6 = 18"), after its last "=".
 * None when it says more than one number, or something LaTeX, or a product such as "3x". */
static bool find_only_number(piece answer, piece *out_number) {
    for (const char *c = answer.data; c < answer.end; c++) {
        if (*c == '=') answer.data = c + 1;
        if (*c == '\\' && !(c + 1 < answer.end && (c[1] == '$' || c[1] == '%'))) return false;
    }
    piece second;
    const char *at = answer.data;
    if (!next_number(answer, &at, out_number)) return false;
    if (at < answer.end && is_letter(*at)) return false;
    return !next_number(answer, &at, &second);
}

double opd_reward_math(const char *response, size_t response_size_bytes, const char *label,
                       size_t label_size_bytes) {
    piece answer, number, right = {label, label + label_size_bytes};
    const char *data;
    size_t size;
    if (!opd_answer_extract(response, response_size_bytes, &data, &size)) return 0;
    answer = (piece){data, data + size};
    piece marked;
    if (find_marked(right, &marked)) right = marked;
    if (pieces_equal(answer, right)) return 1;
    rational value;
    right = trim_blanks(right);
    bool worded = size <= OPD_ANSWER_SIZE_MAX && piece_size(right) <= OPD_ANSWER_SIZE_MAX &&
                  read_value(right, &value) && find_only_number(answer, &number);
    return worded && pieces_equal(number, right) ? 1 : 0;
}
