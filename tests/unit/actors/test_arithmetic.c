/* test_arithmetic.c - generated problems: the format, the truth of every line, distinctness,
 * disjoint splits, easy splits, and that a seed is a data set. */
#include <unistd.h>

#include "actors/dataset/arithmetic.h"
#include "actors/dataset/jsonl.h"
#include "actors/reward/math.h"
#include "tests/support/test.h"

TEST(every_column_is_written) {
    opd_problem_text text;
    opd_problem_format(&(opd_problem){4712, 2589}, &text);
    CHECK_STR(text.prompt, "4712+2589=");
    CHECK_STR(text.response, "2+9+0=11\n1+8+1=10\n7+5+1=13\n4+2+1=07\n#### 7301");
    CHECK_STR(text.label, "7301");
    opd_problem_format(&(opd_problem){99999999, 99999999}, &text);
    CHECK_STR(text.label, "199999998");
    CHECK_CONTAINS(text.response, "9+9+1=19\n#### 199999998");
}

/* An independent reading of prompt and response agrees with the label. */
TEST(problems_are_true_and_within_their_ranges) {
    opd_arithmetic *generator;
    CHECK_OK(opd_arithmetic_create(NULL, 1, 4, &generator));
    for (int i = 0; i < 2000; i++) {
        opd_problem problem;
        opd_problem_text text;
        CHECK_OK(opd_arithmetic_next(generator, i % 2 ? 18 : 11, &problem));
        opd_problem_format(&problem, &text);
        char *at;
        long a = strtol(text.prompt, &at, 10), b = strtol(at, &at, 10);
        CHECK(a >= 1000 && a <= 9999 && b >= 1000 && b <= 9999 && *at == '=');
        CHECK_INT(strtol(text.label, NULL, 10), a + b);
        long place = 1, value = 0, last = 0;
        for (const char *line = text.response; *line != '#'; line += 9, place *= 10) {
            int x, y, carry, sum;
            CHECK_INT(sscanf(line, "%1d+%1d+%1d=%2d\n", &x, &y, &carry, &sum), 4);
            CHECK_INT(sum, x + y + carry);
            CHECK(i % 2 || x + y <= 11);
            value += sum % 10 * place;
            last = sum / 10;
        }
        CHECK_INT(value + last * place, a + b);
        CHECK_NEAR(opd_reward_math(text.response, strlen(text.response), text.label,
                                   strlen(text.label)), 1, 0);
    }
    opd_arithmetic_destroy(generator);
    opd_arithmetic_destroy(NULL);
}

TEST(splits_are_distinct_disjoint_and_reproducible) {
    static const opd_jsonl_keys KEYS = {.prompt = "prompt", .label = "label", .response = "response"};
    char paths[3][64];
    for (int i = 0; i < 3; i++)
        (void)snprintf(paths[i], sizeof paths[i], "arithmetic-%d-%d.jsonl", (int)getpid(), i);
    opd_arithmetic_split splits[] = {{paths[0], 700, 50, 11}, {paths[1], 300, 0, 0}};
    CHECK_OK(opd_arithmetic_write(NULL, 1, 2, splits, 2));
    opd_arithmetic_split again[] = {{paths[2], 700, 50, 11}};
    CHECK_OK(opd_arithmetic_write(NULL, 1, 2, again, 1));
    opd_jsonl *sets[3];
    for (int i = 0; i < 3; i++) {
        CHECK_OK(opd_jsonl_load(NULL, paths[i], &KEYS, &sets[i]));
        CHECK_OK(opd_jsonl_check_distinct(NULL, sets[i]));
        CHECK_INT(unlink(paths[i]), 0);
    }
    CHECK_INT(sets[0]->count, 700);
    CHECK_INT(sets[1]->count, 300);
    CHECK_OK(opd_jsonl_check_disjoint(NULL, sets[0], sets[1]));
    CHECK_ERR(opd_jsonl_check_disjoint(NULL, sets[0], sets[2]), OPD_ERR_MISMATCH);
    for (size_t i = 0; i < 50; i++) {
        int a, b;
        CHECK_INT(sscanf(sets[0]->rows[i].prompt, "%d+%d=", &a, &b), 2);
        CHECK(a % 10 + b % 10 <= 11 && a / 10 + b / 10 <= 11);
    }
    for (size_t i = 0; i < 700; i++)
        CHECK_STR(sets[0]->rows[i].prompt, sets[2]->rows[i].prompt);
    for (int i = 0; i < 3; i++) opd_jsonl_destroy(sets[i]);
}

TEST(running_out_of_problems_is_an_error) {
    opd_arithmetic *generator;
    opd_problem problem;
    opd_err err = OPD_OK;
    int drawn = 0;
    CHECK_OK(opd_arithmetic_create(NULL, 1, 1, &generator));
    while ((err = opd_arithmetic_next(generator, 18, &problem)) == OPD_OK) drawn++;
    CHECK_ERR(err, OPD_ERR_LIMIT);
    CHECK_INT(drawn, 81); /* 1..9 + 1..9 */
    opd_arithmetic_destroy(generator);
}

TEST(digits_are_checked) {
    opd_arithmetic *generator;
    CHECK_ERR(opd_arithmetic_create(NULL, 1, 0, &generator), OPD_ERR_INVALID);
    CHECK_ERR(opd_arithmetic_create(NULL, 1, 9, &generator), OPD_ERR_INVALID);
    CHECK_OK(opd_arithmetic_create(NULL, 1, 8, &generator));
    opd_arithmetic_destroy(generator);
}
