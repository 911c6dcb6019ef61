/* fuzz_answers.c - answers, on any bytes. Those of judges outside: only finite numbers are rewards, and no
 * more of them than were wanted. The checkers: agreement goes both ways, and the work has a bound. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "actors/reward/answer.h"
#include "actors/reward/math.h"
#include "actors/reward/math_value.h"
#include "actors/reward/question.h"
#include "core/base/check.h"
#include "tests/fuzz/fuzz.h"

const opd_fuzz_seed opd_fuzz_seeds[] = {
    OPD_FUZZ_SEED("so \\boxed{\\frac{1}{2}+\\sqrt[3]{27}}|3.5"),
    OPD_FUZZ_SEED("x \\in (-\\infty,2]\\cup\\{3\\}|[2,\\pi)"),
    OPD_FUZZ_SEED("\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}|1 \\pm e^{-2t}"),
    OPD_FUZZ_SEED("x_{1}=2\\frac{1}{2}\\text{ cm}^2|50\\%"), OPD_FUZZ_SEED("A: $18|f(x) > |x|!"), OPD_FUZZ_SEED("{\"id\":5,\"reward\":1.5}"),
    OPD_FUZZ_SEED("{\"rewards\":[1,null],\"id\":5}"), OPD_FUZZ_SEED("\x82\xa2id\x05\xa6reward\xcb\x3f\xf0\0\0\0\0\0\0"),
    OPD_FUZZ_SEED("\x82\xa7rewards\x92\x01\xc0\xa2id\x05"), {NULL, 0}};

static void read_answer(const char *text, size_t size, uint32_t count, bool group, bool msgpack) {
    double rewards[3] = {-7, -7, -7};
    opd_reward_question question = {.id = 5, .count = count, .group = group, .msgpack = msgpack,
                                    .rewards = rewards};
    if (opd_reward_question_read(&question, text, size) != OPD_OK) return;
    for (uint32_t i = 0; i < OPD_COUNTOF(rewards); i++) {
        if (isinf(rewards[i])) abort();
        if (i >= count && rewards[i] != -7) abort(); /* beyond its memory */
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes) {
    char *text = malloc(size_bytes + 1);
    if (text == NULL) abort();
    memcpy(text, data, size_bytes);
    const char *bar = size_bytes > 0 ? memchr(text, '|', size_bytes) : NULL;
    size_t size = bar != NULL ? (size_t)(bar - text) : size_bytes;
    const char *label = bar != NULL ? bar + 1 : text;
    size_t label_size = bar != NULL ? size_bytes - size - 1 : size_bytes;
    for (int i = 0; i < 4; i++) read_answer(text, size_bytes, 1 + (i & 1), i & 1, i & 2);
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
