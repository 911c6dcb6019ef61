/* dapo.c - the reward of DAPO: equality of texts after the Minerva normalisation (rules.h).
 *
 * Each step of the normalisation rewrites a buffer of fixed size in place; an answer that does not
 * fit is wrong. Thread: any; no state.
 */
#include <string.h>

#include "actors/reward/rules.h"

enum { TAIL_BYTES = 300, TEXT_SIZE = 1024 };

typedef struct text {
    char data[TEXT_SIZE];
    size_t size;
    bool failed; /* it grew beyond the buffer */
} text;

static bool is_blank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/* Bytes [at, at + size) become `by`. */
static void splice(text *t, size_t at, size_t size, const char *by, size_t by_size) {
    if (t->size - size + by_size > TEXT_SIZE) {
        t->failed = true;
        return;
    }
    memmove(t->data + at + by_size, t->data + at + size, t->size - at - size);
    memcpy(t->data + at, by, by_size);
    t->size = t->size - size + by_size;
}

static bool is_at(const text *t, size_t at, const char *want) {
    size_t size = strlen(want);
    return t->size - at >= size && memcmp(t->data + at, want, size) == 0;
}

static void replace(text *t, const char *from, const char *to) {
    size_t size = strlen(from);
    for (size_t at = 0; at < t->size && !t->failed;) {
        if (!is_at(t, at, from)) {
            at++;
            continue;
        }
        splice(t, at, size, to, strlen(to));
        at += strlen(to);
    }
}

/* "\text{x}" becomes "x": up to the first closing brace, or the last one of the text. */
static void unwrap(text *t, const char *command, bool to_last) {
    for (size_t at = 0; at < t->size; at++) {
        if (!is_at(t, at, command)) continue;
        size_t begin = at + strlen(command), close = t->size;
        for (size_t i = begin; i < t->size && (to_last || close == t->size); i++)
            if (t->data[i] == '}') close = i;
        if (close == t->size) return;
        splice(t, close, 1, "", 0);
        splice(t, at, begin - at, "", 0);
        if (to_last) return;
        at += close - begin;
        if (at > 0) at--;
    }
}

/* Keeps the first formula $...$ of the text, where there is one. */
static void keep_formula(text *t) {
    char *begin = memchr(t->data, '$', t->size);
    if (begin == NULL) return;
    char *end = memchr(begin + 1, '$', t->size - (size_t)(begin + 1 - t->data));
    if (end == NULL) return;
    size_t size = (size_t)(end - begin - 1);
    memmove(t->data, begin + 1, size);
    t->size = size;
}

/* "\frac12" becomes "\frac{1}{2}", "\sqrt3" "\sqrt{3}". */
static void brace_arguments(text *t) {
    for (size_t at = 0; at < t->size && !t->failed; at++) {
        bool fraction = is_at(t, at, "frac");
        if (!fraction && !is_at(t, at, "sqrt")) continue;
        size_t first = at + 4, count = fraction ? 2 : 1;
        if (first + count > t->size || t->data[first] == '{') continue;
        char by[6] = {'{', t->data[first], '}', '{', 0, '}'};
        if (fraction) by[4] = t->data[first + 1];
        splice(t, first, count, by, 3 * count);
        at = first + 3 * count - 1;
    }
}

static void join_thousands(text *t) {
    bool digits = false;
    for (size_t i = 0; i < t->size; i++) {
        if (t->data[i] == ',') continue;
        if (t->data[i] < '0' || t->data[i] > '9') return;
        digits = true;
    }
    if (digits) replace(t, ",", "");
}

static void normalize(text *t) {
    static const char *const CHANGED[][2] = {
        {"an ", ""}, {"a ", ""}, {".$", "$"}, {"\\$", ""}, {"\\ ", ""}, {" ", ""},
        {"mbox", "text"}, {",\\text{and}", ","}, {"\\text{and}", ","}, {"\\text{m}", "\\text{}"}};
    static const char *const DROPPED[] = {
        "square", "ways", "integers", "dollars", "mph", "inches", "ft", "hours", "km", "units",
        "\\ldots", "sue", "points", "feet", "minutes", "digits", "cents", "degrees", "cm", "gm",
        "pounds", "meters", "meals", "edges", "students", "childrentickets", "multiples",
        "\\text{s}", "\\text{.}", "\\text{\ns}", "\\text{}^2", "\\text{}^3", "\\text{\n}",
        "\\text{}", "\\mathrm{th}", "^\\circ", "^{\\circ}", "\\;", ",\\!", "{,}", "\"", "\\dots"};
    for (size_t i = t->size; i > 0; i--)
        if (t->data[i - 1] == '=') {
            splice(t, 0, i, "", 0);
            break;
        }
    for (size_t i = 0; i < sizeof CHANGED / sizeof CHANGED[0]; i++)
        replace(t, CHANGED[i][0], CHANGED[i][1]);
    for (size_t i = 0; i < sizeof DROPPED / sizeof DROPPED[0]; i++) replace(t, DROPPED[i], "");
    keep_formula(t);
    unwrap(t, "\\text{", false);
    unwrap(t, "\\textbf{", false);
    unwrap(t, "\\overline{", false);
    unwrap(t, "\\boxed{", true);
    brace_arguments(t);
    replace(t, "$", "");
    join_thousands(t);
    while (t->size > 0 && is_blank(t->data[t->size - 1])) t->size--;
    while (t->size > 0 && is_blank(t->data[0])) splice(t, 0, 1, "", 0);
}

static void set(text *t, opd_piece from) {
    t->failed = opd_piece_size(from) > TEXT_SIZE;
    t->size = t->failed ? 0 : opd_piece_size(from);
    memcpy(t->data, from.data, t->size);
}

static bool says_answer(const char *at, const char *end) {
    static const char WANT[] = "answer";
    if (end - at < 7) return false;
    for (size_t i = 0; i < sizeof WANT - 1; i++)
        if ((at[i] | 0x20) != WANT[i]) return false;
    return true;
}

/* What follows the last "Answer:" up to the end of the line. */
static bool find_line(opd_piece response, opd_piece *out_line) {
    bool found = false;
    if (opd_piece_size(response) > TAIL_BYTES) response.data = response.end - TAIL_BYTES;
    for (const char *at = response.data; at < response.end; at++) {
        if (!says_answer(at, response.end)) continue;
        const char *c = at + 6;
        while (c < response.end && is_blank(*c)) c++;
        if (c == response.end || *c != ':') continue;
        for (c++; c < response.end && is_blank(*c);) c++;
        const char *line = c;
        while (c < response.end && *c != '\n') c++;
        if (c == line) continue;
        *out_line = (opd_piece){line, c};
        found = true;
        at = c - 1;
    }
    return found;
}

double opd_reward_dapo(opd_piece response, opd_piece label) {
    opd_piece line;
    text answer, right;
    if (!find_line(response, &line)) return -1;
    set(&answer, line);
    set(&right, label);
    normalize(&answer);
    normalize(&right);
    bool same = !answer.failed && !right.failed && answer.size == right.size &&
                memcmp(answer.data, right.data, answer.size) == 0;
    return same ? 1 : -1;
}
