/* test_arithmetic.c - generated problems: the format, the truth of every step, distinctness,
 * disjoint splits, and that a seed is a data set. */
#include <unistd.h>

#include "actors/dataset/arithmetic.h"
#include "actors/dataset/jsonl.h"
#include "actors/reward/math.h"
#include "core/base/file.h"
#include "tests/support/test.h"

static const opd_arithmetic_config EASY = {.seed = 1, .terms_min = 2, .terms_max = 4,
                                           .first_min = 0, .first_max = 999, .other_min = 1,
                                           .other_max = 999, .minus = true};

static const opd_problem CHAIN = {3, {47, 85, 23}, {'+', '+', '-'}};

TEST(each_style_writes_every_step) {
    opd_problem sum = {2, {4619, 387}, {'+', '+'}};
    opd_problem_text text;
    opd_problem_format(&CHAIN, OPD_PROBLEM_CHAIN, &text);
    CHECK_STR(text.prompt, "47+85-23=");
    CHECK_STR(text.response, "47+85=132\n132-23=109\n#### 109");
    CHECK_STR(text.label, "109");
    opd_problem_format(&CHAIN, OPD_PROBLEM_REWRITE, &text);
    CHECK_STR(text.response, "132-23\n=109\n#### 109");
    opd_problem_format(&sum, OPD_PROBLEM_COLUMNS, &text);
    CHECK_STR(text.prompt, "4619+387=");
    CHECK_STR(text.response, "9+7+0=16\n1+8+1=10\n6+3+1=10\n4+0+1=05\n#### 5006");
}

TEST(the_longest_problem_fits) {
    opd_problem problem = {.term_count = OPD_PROBLEM_TERMS_MAX};
    for (int i = 0; i < OPD_PROBLEM_TERMS_MAX; i++) {
        problem.terms[i] = OPD_PROBLEM_TERM_MAX;
        problem.signs[i] = '+';
    }
    opd_problem_text text;
    opd_problem_format(&problem, OPD_PROBLEM_CHAIN, &text);
    CHECK_STR(text.label, "7999992");
    CHECK_CONTAINS(text.response, "6999993+999999=7999992\n#### 7999992");
    opd_problem_format(&problem, OPD_PROBLEM_REWRITE, &text);
    CHECK_CONTAINS(text.response, "=6999993+999999\n=7999992\n#### 7999992");
}

/* An independent reading of the prompt gives the label; responses are right by our reward. */
TEST(problems_are_true_and_within_their_ranges) {
    opd_arithmetic *generator;
    CHECK_OK(opd_arithmetic_create(NULL, &EASY, &generator));
    for (int i = 0; i < 2000; i++) {
        opd_problem problem;
        opd_problem_text text;
        CHECK_OK(opd_arithmetic_next(generator, &problem));
        opd_problem_format(&problem, (opd_problem_style)(i % 2), &text);
        long value = 0, terms = 0;
        for (char *at = text.prompt; *at != '='; terms++) {
            char sign = terms > 0 ? *at++ : '+';
            long term = strtol(at, &at, 10);
            CHECK(term >= 0 && term <= 999);
            value += sign == '-' ? -term : term;
            CHECK(value >= 0);
        }
        CHECK(terms >= 2 && terms <= 4);
        CHECK_INT(strtol(text.label, NULL, 10), value);
        CHECK_NEAR(opd_reward_math(text.response, strlen(text.response), text.label,
                                   strlen(text.label)), 1, 0);
    }
    opd_arithmetic_destroy(generator);
    opd_arithmetic_destroy(NULL);
}

TEST(splits_are_distinct_disjoint_and_reproducible) {
    static const opd_jsonl_keys KEYS = {"prompt", "label", "response"};
    char paths[3][64];
    for (int i = 0; i < 3; i++)
        (void)snprintf(paths[i], sizeof paths[i], "arithmetic-%d-%d.jsonl", (int)getpid(), i);
    opd_arithmetic_split splits[] = {{paths[0], 700}, {paths[1], 300}};
    CHECK_OK(opd_arithmetic_write(NULL, &EASY, splits, 2));
    opd_arithmetic_split again[] = {{paths[2], 700}};
    CHECK_OK(opd_arithmetic_write(NULL, &EASY, again, 1));
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
    for (size_t i = 0; i < 700; i++)
        CHECK_STR(sets[0]->rows[i].prompt, sets[2]->rows[i].prompt);
    for (int i = 0; i < 3; i++) opd_jsonl_destroy(sets[i]);
}

TEST(running_out_of_problems_is_an_error) {
    opd_arithmetic_config tiny = {.seed = 1, .terms_min = 2, .terms_max = 2, .first_max = 9,
                                  .other_max = 9, .minus = true};
    opd_arithmetic *generator;
    opd_problem problem;
    opd_err err = OPD_OK;
    int drawn = 0;
    CHECK_OK(opd_arithmetic_create(NULL, &tiny, &generator));
    while ((err = opd_arithmetic_next(generator, &problem)) == OPD_OK) drawn++;
    CHECK_ERR(err, OPD_ERR_LIMIT);
    CHECK_INT(drawn, 100 + 55); /* a+b: 100, a-b with b <= a: 55 */
    opd_arithmetic_destroy(generator);
}

TEST(ranges_are_checked) {
    opd_arithmetic *generator;
    opd_arithmetic_config config = EASY;
    config.terms_min = 1;
    CHECK_ERR(opd_arithmetic_create(NULL, &config, &generator), OPD_ERR_INVALID);
    config = EASY;
    config.other_max = OPD_PROBLEM_TERM_MAX + 1;
    CHECK_ERR(opd_arithmetic_create(NULL, &config, &generator), OPD_ERR_INVALID);
    config = EASY;
    config.style = OPD_PROBLEM_COLUMNS;
    CHECK_ERR(opd_arithmetic_create(NULL, &config, &generator), OPD_ERR_INVALID);
    config.minus = false;
    config.terms_max = 2;
    CHECK_OK(opd_arithmetic_create(NULL, &config, &generator));
    opd_arithmetic_destroy(generator);
    config = opd_arithmetic_quickstart(3);
    CHECK_OK(opd_arithmetic_create(NULL, &config, &generator));
    opd_arithmetic_destroy(generator);
}
