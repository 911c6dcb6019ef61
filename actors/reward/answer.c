/* answer.c - see answer.h. Texts are pieces of the caller's bytes. No state, any thread. */
#include "actors/reward/answer.h"

#include <stdint.h>
#include <string.h>

#define BOXES_TRIED_MAX 256

static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
static bool is_blank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c; }

opd_piece opd_piece_trim(opd_piece text) {
    while (text.data < text.end && is_blank(text.data[0])) text.data++;
    while (text.data < text.end && is_blank(text.end[-1])) text.end--;
    return text;
}

opd_piece opd_answer_window(opd_piece text) {
    if (opd_piece_size(text) > OPD_ANSWER_WINDOW_MAX) text.data = text.end - OPD_ANSWER_WINDOW_MAX;
    return text;
}

/* Whether `text` goes on with the literal `want` (lower case) at `at`, in any case. */
static bool starts_with(opd_piece text, const char *at, const char *want) {
    for (; *want != '\0'; at++, want++)
        if (at >= text.end || lower(*at) != *want) return false;
    return true;
}

/* ---- numbers in a text ---- */

/* End of the digits at `at`, thousands separators included: "1,234,567" is one number,
 * of "12,34" only the "12". */
static const char *skip_digits(const char *at, const char *end) {
    const char *begin = at;
    while (at < end && is_digit(*at)) at++;
    if (at == begin || at - begin > 3 || *begin == '0') return at;
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
static bool next_number(opd_piece text, const char **at, opd_piece *out_number) {
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
        *out_number = (opd_piece){begin, stop};
        return true;
    }
    *at = text.end;
    return false;
}

/* ---- finding the answer ---- */

/* Content of the last \boxed{...} whose braces close within the size of an answer. */
bool opd_answer_boxed(opd_piece text, opd_piece *out_answer) {
    text = opd_answer_window(text);
    int tried = 0;
    for (const char *at = text.end; at > text.data && tried < BOXES_TRIED_MAX; at--) {
        if (at[-1] != '\\' || !starts_with(text, at - 1, "\\boxed{")) continue;
        const char *begin = at + strlen("boxed{"), *c = begin;
        tried++;
        for (int depth = 1; c < text.end && c - begin <= OPD_ANSWER_SIZE_MAX; c++) {
            if (*c == '\\' && c + 1 < text.end) c++; /* an escaped brace is no brace */
            else if (*c == '{') depth++;
            else if (*c == '}' && --depth == 0) {
                *out_answer = opd_piece_trim((opd_piece){begin, c});
                return true;
            }
        }
    }
    return false;
}

static bool is_padding(char c) { return is_blank(c) || c == '*' || c == ':'; }

/* The line at `at`, or the next one that says something, without blanks, colons and
 * Markdown's asterisks around it. */
static opd_piece line_at(opd_piece text, const char *at) {
    while (at < text.end && is_padding(*at)) at++;
    const char *stop = at < text.end ? memchr(at, '\n', (size_t)(text.end - at)) : NULL;
    if (stop == NULL) stop = text.end;
    while (stop > at && is_padding(stop[-1])) stop--;
    return (opd_piece){at, stop};
}

/* Length of a marker that says "the answer follows" at `at`, else 0. */
static size_t answer_marker(opd_piece text, const char *at) {
    if (starts_with(text, at, "answer is")) return strlen("answer is");
    if (starts_with(text, at, "answer:")) return strlen("answer:");
    bool at_line_start = at == text.data || at[-1] == '\n';
    return at_line_start && starts_with(text, at, "a:") ? strlen("a:") : 0;
}

/* The formula that begins at `at`, "$...$" or "\(...\)" on one line; false when none does. */
static bool formula_at(opd_piece text, const char *at, opd_piece *out_formula) {
    bool dollars = at < text.end && *at == '$';
    if (!dollars && !starts_with(text, at, "\\(")) return false;
    const char *begin = at + (dollars ? 1 : 2);
    if (dollars && begin < text.end && *begin == '$') begin++;
    for (const char *c = begin; c < text.end && *c != '\n'; c++) {
        bool over = dollars ? *c == '$' && c[-1] != '\\' && !is_blank(c[-1])
                            : starts_with(text, c, "\\)");
        if (!over || c == begin) continue;
        *out_formula = (opd_piece){begin, c};
        return true;
    }
    return false;
}

/* What stands behind the last marker; an empty answer when nothing does. */
bool opd_answer_marked(opd_piece text, opd_piece *out_answer) {
    text = opd_answer_window(text);
    if (opd_answer_boxed(text, out_answer)) return true;
    bool found = false;
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
    opd_piece formula;
    if (found && formula_at(*out_answer, out_answer->data, &formula)) *out_answer = formula;
    return found;
}

/* A formula that closes the text: "... so $\frac{1}{2}$." */
static bool find_closing_formula(opd_piece text, opd_piece *out_answer) {
    text = opd_piece_trim(text);
    if (text.data < text.end && text.end[-1] == '.') text.end--;
    if (opd_piece_size(text) < 3 || text.end[-1] != '$') return false;
    const char *begin = text.end - 1;
    while (begin > text.data && begin[-1] != '$' && begin[-1] != '\n' &&
           text.end - begin <= OPD_ANSWER_SIZE_MAX)
        begin--;
    if (begin == text.data || begin[-1] != '$') return false;
    *out_answer = (opd_piece){begin, text.end - 1};
    return true;
}

static bool find_last_number(opd_piece text, opd_piece *out_answer) {
    const char *at = text.data;
    bool found = false;
    while (next_number(text, &at, out_answer)) found = true;
    return found;
}

bool opd_answer_find(opd_piece text, opd_piece *out_answer) {
    opd_piece answer;
    text = opd_answer_window(text);
    if (!opd_answer_marked(text, &answer) && !find_closing_formula(text, &answer) &&
        !find_last_number(text, &answer))
        return false;
    if (opd_piece_size(answer) == 0) return false;
    *out_answer = answer;
    return true;
}

/* ---- a number among words ---- */

/* Words that make another number of the one beside them, and letters that are no unit. */
static bool is_harmless_word(opd_piece word) {
    static const char *const CHANGE[] = {
        "not", "minus", "negative", "plus", "times", "over", "than", "half", "hundred", "thousand",
        "million", "billion", "trillion", "dozen", "squared", "cubed", "factorial", "infinity", "inf",
        "sqrt", "root", "log", "ln", "exp", "sin", "cos", "tan", "abs", "mod"};
    static const char UNITS[] = "aghlmstACFIJKLNVW"; /* articles and I as well */
    size_t size = opd_piece_size(word);
    if (size == 1) return strchr(UNITS, *word.data) != NULL;
    for (size_t i = 0; i < sizeof CHANGE / sizeof CHANGE[0]; i++)
        if (strlen(CHANGE[i]) == size && starts_with(word, word.data, CHANGE[i])) return false;
    return true;
}

/* Whether the text beside a number only tells what it counts: words, units such as "cm^2" and "km/h",
 * punctuation; nothing that computes or compares. */
static bool is_words(opd_piece text) {
    for (const char *c = text.data; c < text.end;) {
        bool after_letter = c > text.data && is_letter(c[-1]);
        bool before_letter = c + 1 < text.end && is_letter(c[1]);
        if (is_letter(*c)) {
            const char *begin = c;
            while (c < text.end && is_letter(*c)) c++;
            if (!is_harmless_word((opd_piece){begin, c})) return false;
            if (text.end - c >= 2 && *c == '^' && (c[1] == '2' || c[1] == '3')) c += 2;
            continue;
        }
        bool joins = (*c == '-' && after_letter && before_letter) || (*c == '/' && before_letter) ||
                     (*c == '(' && before_letter) || (*c == ')' && after_letter);
        if (*c != '\0' && !is_blank(*c) && (uint8_t)*c < 0x80 && !strchr("$%.,:;\"'*_\\", *c) && !joins)
            return false;
        c++;
    }
    return true;
}

/* The one number of an answer in words ("18 eggs", "x = 5", "3*6 = 18"), after its last "=".
 * None when it says more than one number, or something LaTeX, or computes ("3x", "x + 3", "sqrt(3)"). */
bool opd_answer_only_number(opd_piece answer, opd_piece *out_number) {
    for (const char *c = answer.data; c < answer.end; c++) {
        if (*c == '<' || *c == '>' || *c == '!') return false;
        if (*c == '=') answer.data = c + 1;
        if (*c == '\\' && !(c + 1 < answer.end && (c[1] == '$' || c[1] == '%'))) return false;
    }
    opd_piece second;
    const char *at = answer.data;
    if (!next_number(answer, &at, out_number)) return false;
    if (at < answer.end && is_letter(*at)) return false;
    opd_piece before = {answer.data, out_number->data}, behind = {at, answer.end};
    return !next_number(answer, &at, &second) && is_words(before) && is_words(behind);
}

