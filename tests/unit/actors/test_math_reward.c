/* test_math_reward.c - finding and comparing final answers, hostile texts, and the verdicts
 * of the people who published gsm8k's model solutions. */
#include <time.h>

#include "actors/dataset/jsonl.h"
#include "actors/reward/math.h"
#include "core/base/file.h"
#include "core/base/rng.h"
#include "tests/support/test.h"

static void extracts(const char *text, const char *want) {
    const char *answer;
    size_t size;
    bool found = opd_answer_extract(text, strlen(text), &answer, &size);
    if (found != (want != NULL) ||
        (found && (size != strlen(want) || memcmp(answer, want, size) != 0)))
        opd_test_fail(__FILE__, __LINE__, "\"%s\": got \"%.*s\", expected \"%s\"", text,
                      found ? (int)size : 6, found ? answer : "(none)", want ? want : "(none)");
}

TEST(the_last_marker_decides) {
    extracts("3+4=7\n#### 7", "7");
    extracts("#### 5\nno\n#### 1,234 \nmore 9", "1,234");
    extracts("####\n 12\n13", "12");
    extracts("so \\boxed{ \\frac{1}{2} }.", "\\frac{1}{2}");
    extracts("\\boxed{1} then \\boxed{2}", "2");
    extracts("\\boxed{1} then \\boxed{2", "1");
    extracts("\\boxed{\\{a\\}}", "\\{a\\}");
    extracts("#### 3\n\\boxed{4}", "4");
    extracts("The answer is 42.", "42.");
    extracts("Answer: blue\n", "blue");
    extracts("**Answer:** 17", "17");
    extracts("She has 5\nA: 18", "18");
    extracts("plus 3, then -4.5 apples", "-4.5");
    extracts("x2 = 3 and x^9", "3");
    extracts("10-3", "3");
    extracts("so 1,234,567 it is", "1,234,567");
    extracts("ratio 3/4!", "3/4");
}

TEST(no_answer_is_no_answer) {
    extracts("", NULL);
    extracts("none at all", NULL);
    extracts("1+2=3\n####", NULL); /* cut off before the answer: earlier numbers do not count */
    extracts("\\boxed{}", NULL);
}

static bool same(const char *a, const char *b) {
    bool forth = opd_answer_equal(a, strlen(a), b, strlen(b));
    CHECK(forth == opd_answer_equal(b, strlen(b), a, strlen(a)));
    return forth;
}

TEST(equal_numbers_agree) {
    static const char *const PAIRS[][2] = {
        {"43.0", "43"}, {"1,234", "1234"}, {"$18", "18"}, {"18.", "18"}, {"50%", "50"},
        {"+7", "7"}, {"-0", "0"}, {"0.50", ".5"}, {"1/2", "0.5"}, {"2/4", "1/2"}, {"-3/6", "-0.5"},
        {"007", "7"}, {"\\$5", "5"}, {"-$5", "-5"}, {"\xE2\x88\x92" "5", "-5"}, {" 6 ", "6"},
        {"$x+1$", "X+1"}, {"Blue.", "blue"},
        {"1234567890123456789012345678901234567890", "1234567890123456789012345678901234567890.0"}};
    for (size_t i = 0; i < sizeof PAIRS / sizeof PAIRS[0]; i++)
        if (!same(PAIRS[i][0], PAIRS[i][1]))
            opd_test_fail(__FILE__, __LINE__, "%s and %s", PAIRS[i][0], PAIRS[i][1]);
}

TEST(different_answers_do_not) {
    static const char *const PAIRS[][2] = {
        {"43.1", "43"}, {"-5", "5"}, {"1,23", "123"}, {"12,345,6", "123456"}, {"1/3", "0.3333"},
        {"5/0", "5"}, {"", ""}, {" ", ""}, {"a", "b"}, {"3 4", "34"}, {"--5", "-5"},
        {"1e3", "1000"},
        {"100000000000000000000000000001", "100000000000000000000000000002"},
        {"0.1", "0.10000000000000000000000000000000001"}, {"$", "."}, {"5", "5 apples"}};
    for (size_t i = 0; i < sizeof PAIRS / sizeof PAIRS[0]; i++)
        if (same(PAIRS[i][0], PAIRS[i][1]))
            opd_test_fail(__FILE__, __LINE__, "%s and %s", PAIRS[i][0], PAIRS[i][1]);
}

static double reward(const char *response, const char *label) {
    return opd_reward_math(response, strlen(response), label, strlen(label));
}

TEST(rewards) {
    CHECK_NEAR(reward("47+85=132\n#### 132", "132"), 1, 0);
    CHECK_NEAR(reward("47+85=131\n#### 131", "132"), 0, 0);
    CHECK_NEAR(reward("... 132", "steps\n#### 132"), 1, 0);
    CHECK_NEAR(reward("The answer is 18 dollars.", "18"), 1, 0);
    CHECK_NEAR(reward("The answer is 3*6 = 18 eggs", "18.0"), 1, 0);
    CHECK_NEAR(reward("The answer is 5 km in 3 hours", "5"), 0, 0);
    CHECK_NEAR(reward("\\boxed{2\\sqrt{3}}", "2"), 0, 0);
    CHECK_NEAR(reward("\\boxed{3x}", "3"), 0, 0);
    CHECK_NEAR(reward("\\boxed{(1,2)}", "1"), 0, 0);
    CHECK_NEAR(reward("Answer: Paris", "paris"), 1, 0);
    CHECK_NEAR(reward("", "1"), 0, 0);
    CHECK_NEAR(reward("1", ""), 0, 0);
    CHECK_NEAR(reward("", ""), 0, 0);
}

static double seconds_now(void) {
    struct timespec now;
    CHECK_INT(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now), 0);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* 10 MB of each pattern; four times the text may take about four times as long. */
TEST(hostile_texts_take_linear_time) {
    static const char *const PATTERNS[] = {"\\boxed{", "{", "####", "answer is ", "a:\n", "1",
                                           "1,111,", "1/", "-$", ".", "\\boxed{1}{", "\n", "\\",
                                           "1.1", "A", "\xff\x00"};
    enum { SIZE = 10000000 };
    char *text = malloc(SIZE);
    for (size_t p = 0; p < sizeof PATTERNS / sizeof PATTERNS[0]; p++) {
        size_t width = strlen(PATTERNS[p]), sizes[] = {SIZE / 4, SIZE};
        double took[2];
        for (size_t i = 0; i < SIZE; i++) text[i] = PATTERNS[p][i % width];
        for (int i = 0; i < 2; i++) {
            double begin = seconds_now();
            double value = opd_reward_math(text, sizes[i], "7", 1);
            took[i] = seconds_now() - begin;
            CHECK_NEAR(value, 0, 0);
            value = opd_reward_math("7", 1, text, sizes[i]);
            CHECK_NEAR(value, 0, 0);
        }
        if (took[1] > 12 * took[0] + 0.5)
            opd_test_fail(__FILE__, __LINE__, "\"%s\": %.3f s, then %.3f s for 4 times as much",
                          PATTERNS[p], took[0], took[1]);
    }
    free(text);
}

/* Random texts of the characters that mean something, in buffers of exact size. */
TEST(random_texts_are_harmless) {
    static const char LETTERS[] = "0159.,/$-+%\\{}boxed#answer is:A\n \xE2\x88\x92";
    opd_rng rng;
    opd_rng_init(&rng, 99);
    for (int i = 0; i < 20000; i++) {
        size_t size = opd_rng_below(&rng, 60), label_size = opd_rng_below(&rng, 12);
        char *text = malloc(size + 1), *label = malloc(label_size + 1);
        for (size_t c = 0; c < size; c++) text[c] = LETTERS[opd_rng_below(&rng, sizeof LETTERS)];
        for (size_t c = 0; c < label_size; c++)
            label[c] = LETTERS[opd_rng_below(&rng, sizeof LETTERS)];
        text = realloc(text, size > 0 ? size : 1);
        const char *answer = NULL;
        size_t answer_size = 0;
        if (opd_answer_extract(text, size, &answer, &answer_size))
            CHECK(answer >= text && answer + answer_size <= text + size && answer_size > 0);
        double value = opd_reward_math(text, size, label, label_size);
        CHECK(value == 0 || value == 1);
        free(text);
        free(label);
    }
}

/* Our verdict against the published one on 4 x 1,319 solutions. */
TEST(published_verdicts_on_gsm8k_solutions) {
    static const char *const MODELS[] = {"6b_finetuning", "6b_verification", "175b_finetuning",
                                         "175b_verification"};
    const char *folder = getenv("OPD_TEST_DATA");
    if (folder == NULL) SKIP("OPD_TEST_DATA is not set");
    char path[OPD_PATH_SIZE], solution[64], verdict[64];
    CHECK_OK(opd_path_join(path, sizeof path, folder, "gsm8k-model-solutions.jsonl"));
    size_t agreed = 0, total = 0;
    for (size_t m = 0; m < 4; m++) {
        (void)snprintf(solution, sizeof solution, "%s.solution", MODELS[m]);
        (void)snprintf(verdict, sizeof verdict, "%s.is_correct", MODELS[m]);
        opd_jsonl *set, *verdicts;
        CHECK_OK(opd_jsonl_load(NULL, path, &(opd_jsonl_keys){.prompt = "question", .label = "ground_truth",
                                                          .response = solution},
                                &set));
        CHECK_OK(opd_jsonl_load(NULL, path, &(opd_jsonl_keys){.prompt = "question", .label = verdict},
                                &verdicts));
        for (size_t i = 0; i < set->count; i++, total++) {
            bool ours = reward(set->rows[i].response, set->rows[i].label) == 1;
            bool theirs = strcmp(verdicts->rows[i].label, "true") == 0;
            agreed += ours == theirs;
            if (ours != theirs)
                (void)printf("%s:%zu: ours %d, theirs %d: ...%s\n", MODELS[m], set->rows[i].line,
                             ours, theirs, strrchr(set->rows[i].response, '\n') ?: "");
        }
        opd_jsonl_destroy(set);
        opd_jsonl_destroy(verdicts);
    }
    (void)printf("agreement: %zu of %zu\n", agreed, total);
    CHECK((double)agreed >= 0.995 * (double)total);
}
