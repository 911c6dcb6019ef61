/* test_stats.c - Wilson intervals against published values, and the counting. */
#include "actors/evaluator/stats.h"
#include "tests/support/test.h"

/* Newcombe 1998 (Stat. Med. 17:857), table I, method 3: 81/263, 15/148, 0/20, 1/29. */
TEST(wilson_matches_the_published_table) {
    opd_accuracy a = opd_accuracy_of(81, 263);
    CHECK_NEAR(a.low, 0.2553, 5e-5);
    CHECK_NEAR(a.high, 0.3662, 5e-5);
    a = opd_accuracy_of(15, 148);
    CHECK_NEAR(a.low, 0.0624, 5e-5);
    CHECK_NEAR(a.high, 0.1605, 5e-5);
    a = opd_accuracy_of(0, 20);
    CHECK_NEAR(a.low, 0, 0);
    CHECK_NEAR(a.high, 0.1611, 5e-5);
    a = opd_accuracy_of(1, 29);
    CHECK_NEAR(a.low, 0.0061, 5e-5);
    CHECK_NEAR(a.high, 0.1718, 5e-5);
}

TEST(the_interval_holds_the_accuracy_and_stays_in_range) {
    for (size_t n = 0; n <= 60; n++)
        for (size_t correct = 0; correct <= n; correct++) {
            opd_accuracy a = opd_accuracy_of(correct, n);
            CHECK(a.low >= 0 && a.high <= 1 && a.low <= a.accuracy && a.accuracy <= a.high);
            CHECK(a.high - a.low > 0);
        }
}

TEST(failures_count_as_wrong) {
    opd_eval_counts counts = {0};
    opd_eval_add(&counts, true, false, 10);
    opd_eval_add(&counts, false, true, 30);
    opd_eval_add_failed(&counts);
    CHECK_INT(counts.total, 3);
    CHECK_INT(counts.correct, 1);
    CHECK_INT(counts.truncated, 1);
    CHECK_INT(counts.failed, 1);
    CHECK_NEAR(counts.response_tokens, 40, 0);
}
