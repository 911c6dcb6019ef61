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

/* Reads an answer at every point. */
static bool read_value(opd_piece text, opd_math_value out[OPD_MATH_POINTS], uint32_t *steps) {
    opd_latex latex;
    if (!opd_latex_read(text.data, opd_piece_size(text), &latex)) return false;
    *steps += (uint32_t)latex.count;
    for (unsigned p = 0; p < OPD_MATH_POINTS; p++) {
        uint32_t used = 0;
        bool read = opd_math_value_read(&latex, p, &out[p], &used);
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
    opd_math_value left[OPD_MATH_POINTS], right[OPD_MATH_POINTS];
    return read_value(a, left, steps) && read_value(b, right, steps) &&
           opd_math_value_equal(left, right);
}

bool opd_answer_equal(const char *a, size_t a_size_bytes, const char *b, size_t b_size_bytes) {
    uint32_t steps = 0;
    return equal((opd_piece){a, a + a_size_bytes}, (opd_piece){b, b + b_size_bytes}, &steps);
}

static bool is_number(opd_piece text, uint32_t *steps) {
    opd_math_value value[OPD_MATH_POINTS];
    return opd_piece_size(text) <= OPD_ANSWER_SIZE_MAX && read_value(text, value, steps) &&
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
