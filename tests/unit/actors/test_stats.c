/* test_stats.c - Wilson intervals against published values, and the counting. */
#include "actors/evaluator/stats.h"

#include <math.h>

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
    opd_eval_add(&counts, true, true, 5); /* a cut answer is judged as it stands */
    CHECK_INT(counts.correct, 2);
}

/* 1 - C(n-c, k) / C(n, k) from exact integers. */
static double pass_exact(uint32_t n, uint32_t c, uint32_t k) {
    double all = 1, wrong = 1;
    for (uint32_t i = 0; i < k; i++) {
        all = all * (n - i) / (i + 1);
        wrong = n - c < k ? 0 : wrong * (n - c - i) / (i + 1);
    }
    return 1 - wrong / all;
}

TEST(pass_at_k_is_the_unbiased_estimate) {
    for (uint32_t n = 1; n <= 24; n++)
        for (uint32_t c = 0; c <= n; c++)
            for (uint32_t k = 1; k <= n; k++) {
                CHECK_NEAR(opd_pass_at(n, c, k), pass_exact(n, c, k), 1e-12);
                if (k == 1) CHECK_NEAR(opd_pass_at(n, c, k), (double)c / n, 1e-15);
                if (k == n) CHECK_NEAR(opd_pass_at(n, c, k), c > 0, 0);
            }
    double huge = opd_pass_at(4096, 1, 2048); /* C(4096, 2048) has 1232 digits */
    CHECK_NEAR(huge, 0.5, 1e-12);
    CHECK(opd_pass_at(4096, 3, 2048) > 0.874 && opd_pass_at(4096, 3, 2048) < 0.876);
}

/* Its mean over all ways to draw n answers of chance p is 1 - (1 - p)^k. */
TEST(pass_at_k_has_the_right_mean) {
    const uint32_t n = 8;
    for (uint32_t k = 1; k <= n; k++) {
        double mean = 0, p = 0.3;
        for (uint32_t c = 0; c <= n; c++) {
            double ways = 1;
            for (uint32_t i = 0; i < c; i++) ways = ways * (n - i) / (i + 1);
            mean += ways * pow(p, c) * pow(1 - p, n - c) * opd_pass_at(n, c, k);
        }
        CHECK_NEAR(mean, 1 - pow(1 - p, k), 1e-12);
    }
}

TEST(intervals_of_pass_at_k_count_problems) {
    uint32_t right[100];
    for (int i = 0; i < 100; i++) right[i] = i < 30 ? 4 : 0; /* answers to one problem are all the same */
    opd_pass pass = opd_pass_of(right, 100, 4, 1);
    opd_accuracy coins = opd_accuracy_of(30, 100);
    CHECK_NEAR(pass.value, 0.3, 1e-12);
    CHECK_NEAR(pass.low, coins.low, 1e-9); /* so there were 100 trials, not 400 */
    CHECK_NEAR(pass.high, coins.high, 1e-9);
    for (int i = 0; i < 100; i++) right[i] = 2; /* no difference between problems */
    pass = opd_pass_of(right, 100, 4, 1);
    coins = opd_accuracy_of(200, 400);
    CHECK_NEAR(pass.low, coins.low, 1e-9);
    for (int i = 0; i < 100; i++) right[i] = 4;
    pass = opd_pass_of(right, 100, 4, 4);
    CHECK(pass.value == 1 && pass.high == 1 && pass.low > 0.95 && pass.low < 1);
    for (int i = 0; i < 100; i++) right[i] = 0; /* nor can one be seen where none is right: 100 trials */
    pass = opd_pass_of(right, 100, 4, 1);
    CHECK_NEAR(pass.high, opd_accuracy_of(0, 100).high, 1e-9);
    for (int i = 0; i < 100; i++) right[i] = 4;
    pass = opd_pass_of(right, 100, 4, 1);
    CHECK_NEAR(pass.low, opd_accuracy_of(100, 100).low, 1e-9);
    pass = opd_pass_of(right, 0, 4, 2);
    CHECK(pass.low == 0 && pass.high == 1);
}

TEST(a_result_has_the_powers_of_two_and_n) {
    static const uint32_t RIGHT[] = {6, 0, 3};
    static const double KS[] = {1, 2, 4, 6};
    opd_eval_counts counts = {.total = 18, .correct = 9, .truncated = 3, .response_tokens = 90};
    opd_eval_result r = opd_eval_result_of(&counts, RIGHT, 3, 6);
    CHECK_INT(r.pass_count, 4);
    for (size_t i = 0; i < 4; i++) CHECK(r.pass[i].k == KS[i]);
    CHECK_NEAR(r.pass[3].value, 2.0 / 3, 1e-12);
    CHECK_NEAR(r.response_len, 5, 0);
    CHECK_NEAR(r.truncated, 1.0 / 6, 1e-15);
    CHECK_INT(opd_eval_result_of(&counts, RIGHT, 3, 1).pass_count, 0);
    static const uint32_t ONE[] = {1};
    CHECK_INT(opd_eval_result_of(&counts, ONE, 1, 4096).pass_count, 13);
    CHECK_INT(opd_eval_result_of(&counts, ONE, 1, 4095).pass_count, 13); /* to 2048, and 4095 */
}
