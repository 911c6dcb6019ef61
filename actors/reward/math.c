/* math.c - see math.h. No state, any thread. */
#include "actors/reward/math.h"

#include <string.h>

#include "actors/reward/answer.h"
#include "actors/reward/math_value.h"

static opd_piece trim_answer(opd_piece text) {
    for (;;) {
        text = opd_piece_trim(text);
        if (text.data < text.end && text.data[0] == '$') text.data++;
        else if (text.data < text.end && (text.end[-1] == '$' || text.end[-1] == '.')) text.end--;
        else return text;
    }
}

static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c; }

static bool same_text(opd_piece a, opd_piece b) {
    a = trim_answer(a);
    b = trim_answer(b);
    if (opd_piece_size(a) != opd_piece_size(b) || opd_piece_size(a) == 0) return false;
    for (size_t i = 0; i < opd_piece_size(a); i++)
        if (lower(a.data[i]) != lower(b.data[i])) return false;
    return true;
}

static bool has_bar(const opd_latex *latex) {
    for (size_t i = 0; i < latex->count; i++)
        if (latex->tokens[i].kind == OPD_LATEX_BAR) return true;
    return false;
}

/* Reads an answer at every point from `first` on. */
static bool read_value(const opd_latex *latex, unsigned first, opd_math_value out[OPD_MATH_POINTS],
                       uint32_t *steps) {
    *steps += (uint32_t)latex->count;
    for (unsigned p = 0; p < OPD_MATH_POINTS; p++) {
        uint32_t used = 0;
        bool read = opd_math_value_read(latex, first + p, &out[p], &used);
        *steps += used;
        if (!read) return false;
    }
    return true;
}

static bool equal(opd_piece a, opd_piece b, uint32_t *steps) {
    a = opd_piece_trim(a);
    b = opd_piece_trim(b);
    if (opd_piece_size(a) > OPD_ANSWER_SIZE_MAX || opd_piece_size(b) > OPD_ANSWER_SIZE_MAX)
        return false;
    if (same_text(a, b)) return true;
    opd_latex first, second;
    opd_math_value left[OPD_MATH_POINTS], right[OPD_MATH_POINTS];
    if (!opd_latex_read(a.data, opd_piece_size(a), &first) ||
        !opd_latex_read(b.data, opd_piece_size(b), &second))
        return false;
    unsigned point = has_bar(&first) || has_bar(&second) ? OPD_MATH_SIGNED : 0; /* |x| is not x */
    return read_value(&first, point, left, steps) && read_value(&second, point, right, steps) &&
           opd_math_value_equal(left, right);
}

bool opd_answer_equal(const char *a, size_t a_size_bytes, const char *b, size_t b_size_bytes) {
    uint32_t steps = 0;
    return equal((opd_piece){a, a + a_size_bytes}, (opd_piece){b, b + b_size_bytes}, &steps);
}

static bool is_number(opd_piece text, uint32_t *steps) {
    opd_latex latex;
    opd_math_value value[OPD_MATH_POINTS];
    return opd_piece_size(text) <= OPD_ANSWER_SIZE_MAX &&
           opd_latex_read(text.data, opd_piece_size(text), &latex) &&
           read_value(&latex, 0, value, steps) &&
           value[0].count == 1 && value[0].items[0].kind == OPD_MATH_SCALAR &&
           value[0].items[0].value.is_exact;
}

bool opd_answer_matches(const char *answer, size_t answer_size_bytes, const char *label,
                        size_t label_size_bytes, uint32_t *out_steps) {
    opd_piece found = {answer, answer + answer_size_bytes};
    opd_piece right = {label, label + label_size_bytes}, marked, number;
    uint32_t steps = 0;
    if (opd_answer_marked(right, &marked)) right = marked;
    right = opd_piece_trim(right);
    bool same = equal(found, right, &steps) ||
                (answer_size_bytes <= OPD_ANSWER_SIZE_MAX && is_number(right, &steps) &&
                 opd_answer_only_number(found, &number) && equal(number, right, &steps));
    if (out_steps != NULL) *out_steps = steps;
    return same;
}

double opd_reward_math(const char *response, size_t response_size_bytes, const char *label,
                       size_t label_size_bytes) {
    opd_piece answer, whole = {response, response + response_size_bytes};
    if (!opd_answer_find(whole, &answer)) return 0;
    return opd_answer_matches(answer.data, opd_piece_size(answer), label, label_size_bytes, NULL);
}
