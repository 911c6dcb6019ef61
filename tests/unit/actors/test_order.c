/* test_order.c - epochs are permutations, fresh, reproducible, and even. */
#include "actors/dataset/order.h"
#include "tests/support/test.h"

TEST(every_epoch_is_a_permutation) {
    static const uint64_t COUNTS[] = {1, 2, 3, 255, 256, 257, 5000};
    for (size_t c = 0; c < sizeof COUNTS / sizeof COUNTS[0]; c++) {
        opd_order order = {.count = COUNTS[c], .seed = 42, .shuffle = true};
        for (uint64_t epoch = 0; epoch < 3; epoch++) {
            unsigned char *seen = calloc(COUNTS[c], 1);
            for (uint64_t i = 0; i < COUNTS[c]; i++) {
                uint64_t row = opd_order_at(&order, epoch, i);
                CHECK(row < COUNTS[c] && !seen[row]);
                seen[row] = 1;
            }
            free(seen);
        }
    }
}

/* Of 1000 rows about one stays in place; between two epochs or seeds about one agrees. */
TEST(epochs_and_seeds_differ) {
    opd_order a = {1000, 1, true}, b = {1000, 2, true};
    int in_place = 0, same_epochs = 0, same_seeds = 0;
    for (uint64_t i = 0; i < 1000; i++) {
        in_place += opd_order_at(&a, 0, i) == i;
        same_epochs += opd_order_at(&a, 0, i) == opd_order_at(&a, 1, i);
        same_seeds += opd_order_at(&a, 0, i) == opd_order_at(&b, 0, i);
    }
    CHECK(in_place < 10 && same_epochs < 10 && same_seeds < 10);
}

/* Over many epochs each row comes first about equally often (chi-square, 9 degrees of
 * freedom: below 33.7 with probability 0.9999) and each ordered pair of the first two too. */
TEST(first_rows_are_even) {
    opd_order order = {10, 7, true};
    double first[10] = {0}, chi = 0, expected = 2000;
    int pairs[10][10] = {{0}};
    for (uint64_t epoch = 0; epoch < 20000; epoch++) {
        uint64_t row = opd_order_at(&order, epoch, 0);
        first[row]++;
        pairs[row][opd_order_at(&order, epoch, 1)]++;
    }
    for (int i = 0; i < 10; i++) chi += (first[i] - expected) * (first[i] - expected) / expected;
    CHECK(chi < 33.7);
    for (int i = 0; i < 10; i++)
        for (int j = 0; j < 10; j++)
            if (i != j) CHECK(pairs[i][j] > 140 && pairs[i][j] < 310); /* 222 expected */
}

TEST(groups_run_through_the_epochs) {
    opd_order order = {100, 5, true};
    uint64_t epoch;
    uint64_t row = opd_order_of_group(&order, 257, &epoch);
    CHECK_INT(epoch, 2);
    CHECK_INT(row, opd_order_at(&order, 2, 57));
    order.shuffle = false;
    CHECK_INT(opd_order_of_group(&order, 257, &epoch), 57);
}
