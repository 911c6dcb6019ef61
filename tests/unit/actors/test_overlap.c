/* test_overlap.c - the top-k overlap: what matches, what counts, what is covered. */
#include "actors/trainer/overlap.h"
#include "tests/support/test.h"

#define K 3

TEST(counts_common_ids_whatever_their_order) {
    static const size_t OFFSETS[] = {0, 2};
    static const int32_t STUDENT[] = {1, 2, 3, 4, 5, 6}, TEACHER[] = {3, 1, 9, 7, 8, 9};
    static const uint8_t VALID[] = {1, 1};
    opd_overlap_input in = {1, OFFSETS, NULL, VALID, K, K, STUDENT, TEACHER, 0, NULL, NULL};
    opd_overlap overlap;
    opd_overlap_measure(&in, &overlap);
    CHECK_NEAR(overlap.ratio, (2.0 / 3 + 0) / 2, 1e-12);
    CHECK_NEAR(overlap.coverage, 1, 0);
    CHECK_INT(overlap.rows, 2);
}

TEST(minus_one_never_matches_and_empty_rows_are_not_covered) {
    static const size_t OFFSETS[] = {0, 3};
    static const int32_t STUDENT[] = {1, -1, -1, 1, 2, 3, 1, 2, 3};
    static const int32_t TEACHER[] = {1, -1, -1, -1, -1, -1, 3, 2, 1};
    static const uint8_t VALID[] = {1, 1, 1};
    opd_overlap_input in = {1, OFFSETS, NULL, VALID, K, K, STUDENT, TEACHER, 0, NULL, NULL};
    opd_overlap overlap;
    opd_overlap_measure(&in, &overlap);
    CHECK_NEAR(overlap.ratio, (1.0 / 3 + 1) / 2, 1e-12);
    CHECK_NEAR(overlap.coverage, 2.0 / 3, 1e-12);
}

TEST(invalid_and_masked_rows_are_left_out_and_unread) {
    static const size_t OFFSETS[] = {0, 2, 4, 5};
    static const int32_t STUDENT[] = {1, 2, 1, 2, 1, 2, 1, 2, 1, 2};
    static int32_t teacher[] = {1, 2, 0, 0, 1, 9, 0, 0, 0, 0};
    static const uint8_t VALID[] = {1, 0, 1, 0, 0}, MASK[] = {1, 1, 1, 0, 1};
    opd_overlap_input in = {3, OFFSETS, MASK, VALID, 2, 2, STUDENT, teacher, 0, NULL, NULL};
    opd_overlap before, after;
    opd_overlap_measure(&in, &before);
    CHECK_NEAR(before.ratio, (1.0 + 0.5) / 2, 1e-12); /* sample 2 has no row and no say */
    CHECK_NEAR(before.coverage, 2.0 / 4, 1e-12);
    for (int i = 0; i < 10; i++)
        if (!VALID[i / 2]) teacher[i] = 1 + i % 2;
    opd_overlap_measure(&in, &after);
    CHECK(memcmp(&before, &after, sizeof before) == 0);
}

TEST(widths_may_differ_and_the_smaller_divides) {
    static const size_t OFFSETS[] = {0, 1};
    static const int32_t STUDENT[] = {5, 6}, TEACHER[] = {9, 6, 5, 4};
    static const uint8_t VALID[] = {1};
    opd_overlap_input in = {1, OFFSETS, NULL, VALID, 2, 4, STUDENT, TEACHER, 0, NULL, NULL};
    opd_overlap overlap;
    opd_overlap_measure(&in, &overlap);
    CHECK_NEAR(overlap.ratio, 1, 0);
    in.teacher_k = 0;
    opd_overlap_measure(&in, &overlap);
    CHECK_NEAR(overlap.ratio, 0, 0);
    CHECK_NEAR(overlap.coverage, 0, 0);
}

TEST(masses_advantage_and_entropy_of_the_common_ids) {
    static const int32_t student[] = {1, 2, 5, 6, 0, 3}, teacher[] = {2, 1, 4, 7, 8, 9, 3, 0, 4};
    static const float p[] = {0.5f, 0.25f, 0.6f, 0.3f, 0.5f, 0.2f};
    static const float q[] = {0.5f, 0.25f, 0.1f, 0.9f, 0.05f, 0.01f, 0.5f, 0.3f, 0.1f};
    float student_logp[6], teacher_logp[9];
    static const size_t offsets[] = {0, 2, 3};
    static const uint8_t valid[] = {1, 1, 1};
    for (int i = 0; i < 6; i++) student_logp[i] = logf(p[i]);
    for (int i = 0; i < 9; i++) teacher_logp[i] = logf(q[i]);
    opd_overlap_input in = {2, offsets, NULL, valid, 2, 2, student, teacher, 3, student_logp, teacher_logp};
    opd_overlap overlap;
    opd_overlap_measure(&in, &overlap);
    CHECK_INT(overlap.valued, 3);
    CHECK_NEAR(overlap.ratio, (0.5 + 1) / 2, 1e-6);
    CHECK_NEAR(overlap.student_mass, ((0.75 + 0) / 2 + 0.7) / 2, 1e-6);
    CHECK_NEAR(overlap.teacher_mass, ((0.75 + 0) / 2 + 0.8) / 2, 1e-6);
    double first = (0.5 * log(0.25 / 0.5) + 0.25 * log(0.5 / 0.25)) / 0.75;
    double third = (0.5 * log(0.3 / 0.5) + 0.2 * log(0.5 / 0.2)) / 0.7;
    CHECK_NEAR(overlap.advantage, (first + third) / 2, 1e-6); /* the second row has no common id */
    teacher_logp[1] = NAN; /* not told: the row counts for the ratio alone */
    opd_overlap_measure(&in, &overlap);
    CHECK_INT(overlap.valued, 2);
    CHECK_NEAR(overlap.ratio, (0.5 + 1) / 2, 1e-6);
    CHECK_NEAR(overlap.student_mass, (0 + 0.7) / 2, 1e-6);
    static const uint8_t only_last[] = {0, 0, 1};
    in.teacher_valid = only_last;
    opd_overlap_measure(&in, &overlap);
    double h_s = -(0.5 * log(0.5) + 0.2 * log(0.2) + 0.3 * log(0.3));
    double h_t = -(0.5 * log(0.5) + 0.3 * log(0.3) + 0.2 * log(0.2));
    CHECK_NEAR(overlap.entropy_gap, h_s - h_t, 1e-6);
}
