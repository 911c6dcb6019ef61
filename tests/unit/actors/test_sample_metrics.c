/* test_sample_metrics.c - what is said of an answer's tokens: which repeat, which end in a loop. */
#include "actors/trainer/sample_metrics.h"
#include "core/base/check.h"
#include "core/base/rng.h"
#include "tests/support/test.h"

enum { LONG = 3000 };

/* count tokens: a start without repeats, then the block of `period` tokens over and over. */
static void fill(int32_t *tokens, size_t count, size_t start, size_t period) {
    for (size_t i = 0; i < count; i++) tokens[i] = (int32_t)(i < start ? i : start + (i - start) % period);
}

/* By its definition, one pair of 4-grams after the other. */
static double slow_repetition(const int32_t *tokens, size_t count) {
    size_t from = count > OPD_REPETITION_TAIL ? count - OPD_REPETITION_TAIL : 0, repeats = 0;
    if (count < 4) return 0;
    for (size_t i = from; i + 4 <= count; i++) {
        size_t j = from;
        while (j < i && memcmp(tokens + j, tokens + i, 4 * sizeof *tokens) != 0) j++;
        repeats += j < i;
    }
    return (double)repeats / (double)(count - from - 3);
}

TEST(repeats_are_those_of_the_definition) {
    static int32_t tokens[LONG];
    opd_rng rng;
    opd_rng_init(&rng, 5);
    for (size_t count = 0; count < LONG; count = count * 3 / 2 + 1)
        for (uint64_t ids = 1; ids < 100; ids += 7) {
            for (size_t i = 0; i < count; i++) tokens[i] = (int32_t)opd_rng_below(&rng, ids) - 1;
            CHECK_NEAR(opd_repetition(tokens, count), slow_repetition(tokens, count), 0);
        }
}

/* The metrics of one answer alone, after a prompt that is nothing but repeats. */
static void measure(const int32_t *answer, size_t count, double *out_loop, double *out_share) {
    enum { PROMPT = 100 };
    static int32_t tokens[PROMPT + LONG];
    double values[OPD_METRIC_COUNT];
    opd_sample_fields f = {.prompt_len = PROMPT};
    memset(tokens, 0, PROMPT * sizeof *tokens);
    memcpy(tokens + PROMPT, answer, count * sizeof *tokens);
    CHECK_OK(opd_slice_copy(NULL, tokens, (PROMPT + count) * sizeof *tokens, &f.tokens));
    opd_metrics_clear(values);
    opd_sample_metrics_add(values, &f, 0, 1, false);
    opd_sample_metrics_add(values, &f, 0, 1, false); /* sums */
    *out_loop = values[OPD_METRIC_REPETITION] / 2;
    *out_share = values[OPD_METRIC_REPEATED_4GRAMS] / 2;
    opd_buf_release(f.tokens.buf);
}

TEST(an_answer_ends_in_a_loop_or_it_does_not) {
    static int32_t tokens[LONG];
    const struct { size_t count, start, period; bool loop; } cases[] = {
        {LONG, LONG, 1, false},            /* never the same */
        {LONG, 1500, 90, true},            /* the loop fills the tail */
        {LONG, 1500, 110, false},          /* long enough to be an argument of its own */
        {LONG, LONG - 100, 1, false},      /* it has hardly begun */
        {64, 0, 6, true}, {64, 0, 7, false},
        {63, 0, 1, false},                 /* too short to say */
        {3, 0, 1, false}, {0, 0, 1, false}};
    for (size_t i = 0; i < OPD_COUNTOF(cases); i++) {
        double loop, share;
        fill(tokens, cases[i].count, cases[i].start, cases[i].period);
        measure(tokens, cases[i].count, &loop, &share);
        CHECK_NEAR(loop, cases[i].loop, 0);
        CHECK_NEAR(share, slow_repetition(tokens, cases[i].count), 1e-12);
    }
}
