/* test_math_reward.c - finding and comparing final answers, hostile texts, and the verdicts
 * of the people who published gsm8k's model solutions. */
#include <time.h>

#include "actors/dataset/jsonl.h"
#include "actors/reward/answer.h"
#include "actors/reward/math.h"
#include "actors/reward/math_value.h"
#include "core/base/file.h"
#include "core/base/rng.h"
#include "tests/support/test.h"

static void extracts(const char *text, const char *want) {
    opd_piece piece = {NULL, NULL};
    bool found = opd_answer_find((opd_piece){text, text + strlen(text)}, &piece);
    const char *answer = piece.data;
    size_t size = opd_piece_size(piece);
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
    extracts("The answer is $\\frac{1}{2}$. I hope it is correct.", "\\frac{1}{2}");
    extracts("Answer: \\(x+1\\), as above", "x+1");
    extracts("The answer is $18 and not more", "$18 and not more");
    extracts("2 more, so it is $\\frac{3}{4}$.", "\\frac{3}{4}");
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
        {"+7", "7"}, {"1e3", "1000"}, {"0.1", "0.10000000000000000000000000000000001"}, {"-0", "0"}, {"0.50", ".5"}, {"1/2", "0.5"}, {"2/4", "1/2"}, {"-3/6", "-0.5"},
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
        {"100000000000000000000000000001", "100000000000000000000000000002"},
        {"$", "."}, {"5", "5 apples"}};
    for (size_t i = 0; i < sizeof PAIRS / sizeof PAIRS[0]; i++)
        if (same(PAIRS[i][0], PAIRS[i][1]))
            opd_test_fail(__FILE__, __LINE__, "%s and %s", PAIRS[i][0], PAIRS[i][1]);
}

/* Pairs of lines "answer | label". */
static void all_agree(const char *const *pairs, size_t count, bool want) {
    for (size_t i = 0; i < count; i++) {
        const char *bar = strstr(pairs[i], " | ");
        CHECK(bar != NULL);
        size_t size = (size_t)(bar - pairs[i]);
        const char *b = bar + 3;
        if (opd_answer_equal(pairs[i], size, b, strlen(b)) != want ||
            opd_answer_equal(b, strlen(b), pairs[i], size) != want)
            opd_test_fail(__FILE__, __LINE__, "%s: expected %d", pairs[i], want);
    }
}

/* Where math-verify 0.9.0 has a verdict on these, it is the same, but for "2 1/2 | 5/2". */
TEST(notations_of_one_value_agree) {
    static const char *const PAIRS[] = {
        "(1,2) | (1, 2)", "\\{1,2,3\\} | \\{3,2,1\\}", "1, 2 | 2, 1", "1 \\text{ and } 2 | 1, 2",
        "[0,1) | [0, 1)", "(-\\infty, 2) \\cup (3, \\infty) | (3,\\infty)\\cup(-\\infty,2)",
        "\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix} | \\begin{bmatrix} 1 & 2 \\\\ 3 & 4 \\end{bmatrix}",
        "x = 5 | 5", "x^2+2x+1 | (x+1)^2", "\\sqrt{8} | 2\\sqrt{2}", "2\\frac{1}{2} | 2.5",
        "\\frac{1}{\\sqrt{2}} | \\frac{\\sqrt{2}}{2}", "\\frac{\\pi}{2} | 0.5\\pi", "2 1/2 | 5/2",
        "50\\% | 0.5", "50\\% | 50", "90^\\circ | 90", "3:4 | 3/4", "1.5 \\times 10^{3} | 1500",
        "\\frac12 | 0.5", "\\text{blue} | blue", "\\text{(B)} | B", "x > 3 | 3 < x",
        "1 \\pm \\sqrt{2} | 1+\\sqrt{2}, 1-\\sqrt{2}", "\\log_2 8 | 3", "\\ln e^2 | 2",
        "2^{10} | 1024", "5! | 120", "3+4i | 4i+3", "\\sin^2 x + \\cos^2 x | 1",
        "y = 2x + 1 | 2x - y + 1 = 0", "x \\in [1,2] | [1,2]", "10\\text{ cm}^2 | 10",
        "\\$32{,}500 | 32500", "0.333333 | 1/3", "3.141593 | \\pi", "\\sqrt[3]{27} | 3",
        "|{-3}| | 3", "-\\frac{1}{2} | \\frac{-1}{2}", "11_2 | 11", "(1,2),(3,4) | (3,4),(1,2)",
        "\\left(3, \\tfrac{\\pi}{2}\\right) | (3, \\dfrac{\\pi}{2})", "\\sin^{-1} x | \\arcsin x",
        "\\mathrm{e}^{2} | e^2", "S = \\{1,2\\} | \\{2,1\\}", "f(t) e^{-t} | \\frac{f(t)}{e^{t}}",
        "6.5 \\mathrm{~m} | 6.5", "2 \\cdot -3 | -6", "1\\,234 | 1234", "\xE2\x88\x9A" "4 | 2",
        "3^{100} | 515377520732011331036461129765621272702107522001",
        "(107,123) | (107, 123)", "\\{1,234\\} | \\{234, 1\\}", "(1{,}234, 5) | (1234, 5)",
        "1 < x < 2 | x > 1 \\text{ and } x < 2", "0 \\le x < 1 | 1 > x \\ge 0", "-\\infty < x<2 | -\\infty<x < 2",
        "x=5 | 5=x", "\\emptyset | \\{\\}", "\\approx 5 | 5", "= 5 | 5", "-|x-3| | -|3-x|", "\\sqrt{x^2} | |x|",
        "\\sin \\pi | 0", "\\sqrt{\\sqrt{2}^2-2} | 0", "+\\infty | \\infty", "-\\infty | -inf",
        "\\sqrt{2} \\times 10^{-19} | \\frac{2 \\times 10^{-19}}{\\sqrt{2}}"};
    all_agree(PAIRS, sizeof PAIRS / sizeof PAIRS[0], true);
}

TEST(other_values_do_not_agree) {
    static const char *const PAIRS[] = {
        "(1,2) | (2,1)", "[0,1) | (0,1)", "\\{1,2\\} | \\{1,2,2\\}", "x=5 | y=5", "i | 1",
        "\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix} | \\begin{pmatrix} 1 & 3 \\\\ 2 & 4 \\end{pmatrix}",
        "\\begin{pmatrix} 1 & 2 \\end{pmatrix} | \\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}",
        "x^2+2x+1 | (x+1)^3", "x \\ge 3 | x > 3", "x > 3 | x < 3", "0.3333 | 1/3", "3.14 | \\pi",
        "1e-9 | 2e-9", "0.00001 | 0.00002", "1234567.5 | 1234568.5", "1234567 | 1234568.0",
        "I(0) e^{-t} | I(1) e^{-t}", "\\infty | -\\infty", "e_1 | e", "\\text{blue} | \\text{red}",
        "y'+y=0 | y'+2y=0", "2 | 2 = 3x", "50\\% | 5", "\\sqrt{2} | 1.41421", "2^{3^2} | 64",
        "3^{100} | 515377520732011331036461129765621272702107522002",
        "(1,234) | 1234", "0,123 | 123", "1 < x < 2 | 2 < x < 3", "1 < x < 2 | 1 < x \\le 2", "1 < x < 2 | 1 < y < 2",
        "-\\infty < x < 2 | -\\infty < x < 3", "\\infty-\\infty | 0", "\\frac{\\infty}{\\infty} | 1",
        "e^{-30} | 0", "e^{-30} | e^{-40}", "\\sqrt{2} \\times 10^{-19} | \\sqrt{3} \\times 10^{-19}",
        "10^{10^{10}} | 10^{10^{11}}", "10^{10^{10}} | \\infty", "|x| | x", "|x-3| | 3-x", "[91, 48] | (91, 48)",
        "1,2,3,4 | 4", "3 \\text{ or } 4 | 4", "x \\ne 5 | 5", "5 \\pm 1 | 6", "1e400 | 1e401", "5 | 05.1"};
    all_agree(PAIRS, sizeof PAIRS / sizeof PAIRS[0], false);
}

/* The longest answers of each kind: the steps are counted, not the time. */
TEST(hostile_answers_take_bounded_work) {
    static const char *const PATTERNS[] = {
        "(", "{", "[", "\\{", "(1,", "-", "1+", "\\sqrt", "\\frac", "x^", "2^", "9^9^", "((1,2),",
        "\\sin", "x(", "|", "x_{", "\\text{", "1\\pm", "9!", "=", "x=", "\\cup", "1,", "\\begin{matrix}",
        "9999999999", "1/", "e^{", "\\left(", "\\\\", "\xff", "%", "10^{640}*", "'"};
    char text[OPD_ANSWER_SIZE_MAX];
    for (size_t p = 0; p < sizeof PATTERNS / sizeof PATTERNS[0]; p++) {
        size_t width = strlen(PATTERNS[p]);
        for (size_t i = 0; i < sizeof text; i++) text[i] = PATTERNS[p][i % width];
        for (size_t cut = 0; cut < 2 * width && cut < 20; cut++) {
            uint32_t steps = 0;
            (void)opd_answer_matches(text, sizeof text - cut, "(1,\\frac{2}{3})", 15, &steps);
            if (steps > 10 * OPD_MATH_STEPS_MAX)
                opd_test_fail(__FILE__, __LINE__, "\"%s\": %u steps", PATTERNS[p], steps);
        }
    }
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

/* A number among words counts; what computes or compares is not the number in it. */
TEST(a_number_among_signs_is_not_the_answer) {
    static const char *const WORDS[] = {"5 apples", "She has 5.", "5 km/h", "5 cm^2", "5 m^2", "$5/day", "x = 5",
                                        "5 (km)", "I got 5 eggs", "5, of course", "**5**", "five: 5", "about $5",
                                        "2+3 = 5", "note: 5"};
    static const char *const OTHERS[] = {
        "x+5", "x-5", "x - 5", "5 x", "5!", "sqrt(5)", "f(5)", "log 5", "x != 5", "x >= 5", "x <= 5", "x > 5", "< 5",
        "(5, infinity)", "[5, oo)", "not 5", "minus 5", "5 thousand", "5 million", "half of 5", "more than 5",
        "5+", "5-", "|5", "5 squared", "5?", "4 or 5", "4, 5", "1 2 3 4 5", "5 of 9", "5^x", "5i", "5 i"};
    char text[64];
    for (size_t i = 0; i < sizeof WORDS / sizeof WORDS[0]; i++) {
        (void)snprintf(text, sizeof text, "The answer is %s", WORDS[i]);
        if (reward(text, "5") != 1) opd_test_fail(__FILE__, __LINE__, "%s is not 5", text);
    }
    for (size_t i = 0; i < sizeof OTHERS / sizeof OTHERS[0]; i++) {
        (void)snprintf(text, sizeof text, "\\boxed{%s}", OTHERS[i]);
        if (reward(text, "5") != 0) opd_test_fail(__FILE__, __LINE__, "%s is 5", text);
    }
}

static double seconds_now(void) {
    struct timespec now;
    CHECK_INT(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now), 0);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* As much of each pattern as is looked at; four times the text may take about four times as long. What 10 MB
 * cost: math_judge --hostile (tests/golden). */
TEST(hostile_texts_take_linear_time) {
    static const char *const PATTERNS[] = {"\\boxed{", "{", "####", "answer is ", "a:\n", "1",
                                           "1,111,", "1/", "-$", ".", "\\boxed{1}{", "\n", "\\",
                                           "1.1", "A", "\xff\x00"};
    enum { SIZE = OPD_ANSWER_WINDOW_MAX };
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
        opd_piece answer;
        if (opd_answer_find((opd_piece){text, text + size}, &answer))
            CHECK(answer.data >= text && answer.end <= text + size && answer.end > answer.data);
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
    CHECK_INT(total, 5276);
    CHECK_INT(agreed, total);
}
