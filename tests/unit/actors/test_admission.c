/* test_admission.c - which groups may start and which a batch took, with over-sampling and without. */
#include "actors/trainer/admission.h"
#include "core/base/rng.h"
#include "tests/support/test.h"

/* The picture in admission.h. */
TEST(prompts_that_were_left_over_are_the_first_of_the_next_batch) {
    opd_admission a = {.batch_prompts = 3, .spare_groups = 2, .steps = 9};
    opd_admit_fields f;
    opd_admission_begin(&a, 0);
    CHECK_INT(opd_admission_bound(&a, 0, &f), 5);
    CHECK_INT(f.group_end, 5);
    a.filtered++; /* group 1 */
    CHECK_INT(opd_admission_bound(&a, 0, &f), 6);
    CHECK_INT(f.group_end, 6);
    CHECK_INT(f.first, 0);
    a.last = opd_admission_place(&a, 3);
    CHECK_INT(opd_admission_take(&a), 1);
    CHECK_INT(a.taken, 4);
    CHECK_INT(opd_admission_bound(&a, 1, &f), 4 + 3 + 2);
    CHECK_INT(f.first, 6);
    CHECK_INT(f.place, 4);
    CHECK_INT(f.group_end, 6 + 3 + 2);
    CHECK_INT(f.min_version, 1);
    CHECK_INT(opd_admission_place(&a, 8), 6);
    opd_admission_begin(&a, 1); /* started again: the numbers are places */
    CHECK_INT(a.filtered, 1);
    CHECK_INT(opd_admission_place(&a, 4), 4);
    CHECK_INT(opd_admission_bound(&a, 1, &f), 4 + 3 + 2);
    CHECK_INT(f.group_end, 4 + 3 + 2);
}

/* Whatever is dropped, each batch begins where the one before ended, there is always room for a whole
 * batch, and what is in work never exceeds what was reserved. */
TEST(places_are_taken_once_and_in_order) {
    opd_rng rng;
    opd_rng_init(&rng, 4);
    for (int round = 0; round < 200; round++) {
        opd_admission a = {.batch_prompts = 1 + (uint32_t)opd_rng_below(&rng, 5), .steps = 20};
        opd_admit_fields f;
        if (round % 2 == 0) a.spare_groups = (uint32_t)opd_rng_below(&rng, 6);
        else a.max_staleness = (uint32_t)opd_rng_below(&rng, 3);
        opd_admission_begin(&a, 0);
        uint64_t group = 0;
        for (uint64_t version = 0; version < a.steps; version++) {
            uint64_t from = a.taken, dropped = 0;
            for (uint32_t kept = 0; kept < a.batch_prompts;) {
                (void)opd_admission_bound(&a, version, &f);
                CHECK(group < f.group_end);
                CHECK(f.group_end - group <= a.batch_prompts * (a.max_staleness + 1) + a.spare_groups);
                CHECK_INT(opd_admission_place(&a, group), from + kept + dropped);
                if (opd_rng_below(&rng, 3) == 0) {
                    dropped++;
                    a.filtered++;
                } else {
                    kept++;
                    a.last = opd_admission_place(&a, group);
                }
                group++;
            }
            CHECK_INT(opd_admission_take(&a), dropped);
            CHECK_INT(a.taken, from + a.batch_prompts + dropped);
            group += a.spare_groups; /* void */
        }
    }
}
