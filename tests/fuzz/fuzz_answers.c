/* fuzz_answers.c - the answer checkers on any bytes: every answer is right by itself once it reads,
 * agreement goes both ways, and the work has a bound. */
#include <stdlib.h>
#include <string.h>

#include "actors/reward/answer.h"
#include "actors/reward/math.h"
#include "actors/reward/math_value.h"
#include "tests/fuzz/fuzz.h"

const opd_fuzz_seed opd_fuzz_seeds[] = {
    OPD_FUZZ_SEED("so \\boxed{\\frac{1}{2}+\\sqrt[3]{27}}|3.5"),
    OPD_FUZZ_SEED("x \\in (-\\infty,2]\\cup\\{3\\}|[2,\\pi)"),
    OPD_FUZZ_SEED("\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}|1 \\pm e^{-2t}"),
    OPD_FUZZ_SEED("x_{1}=2\\frac{1}{2}\\text{ cm}^2|50\\%"), OPD_FUZZ_SEED("A: $18|f(x) > |x|!"), {NULL, 0}};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes) {
    char *text = malloc(size_bytes + 1);
    if (text == NULL) abort();
    memcpy(text, data, size_bytes);
    const char *bar = size_bytes > 0 ? memchr(text, '|', size_bytes) : NULL;
    size_t size = bar != NULL ? (size_t)(bar - text) : size_bytes;
    const char *label = bar != NULL ? bar + 1 : text;
    size_t label_size = bar != NULL ? size_bytes - size - 1 : size_bytes;
    opd_piece answer;
    if (opd_answer_find((opd_piece){text, text + size}, &answer) &&
        (answer.data < text || answer.end > text + size || answer.data >= answer.end)) abort();
    double reward = opd_reward_math(text, size, label, label_size);
    if (reward != 0 && reward != 1) abort();
    uint32_t steps = 0;
    (void)opd_answer_matches(text, size, label, label_size, &steps);
    if (steps > 10 * OPD_MATH_STEPS_MAX) abort();
    if (opd_answer_equal(text, size, label, label_size) !=
        opd_answer_equal(label, label_size, text, size)) abort();
    free(text);
    return 0;
}
