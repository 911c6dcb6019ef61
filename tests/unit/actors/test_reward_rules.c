/* test_reward_rules.c - dapo, f1 and multiple choice: by hand, and against the references of
 * tests/golden/make_rules.py. */
#include "actors/dataset/jsonl.h"
#include "actors/reward/rules.h"
#include "core/base/rng.h"
#include "tests/support/test.h"

static opd_piece piece(const char *text) { return (opd_piece){text, text + strlen(text)}; }

static void judged(opd_reward_rule rule, const char *response, const char *label, double want) {
    double got = opd_reward_judge(rule, false, piece(response), piece(label));
    if (!(got - want < 1e-12 && want - got < 1e-12))
        opd_test_fail(__FILE__, __LINE__, "rule %d of \"%s\" for \"%s\": %g, expected %g", (int)rule,
                      response, label, got, want);
}

TEST(references_of_the_golden_file) {
    opd_jsonl *set;
    opd_jsonl_keys keys = {.prompt = "case", .label = "label", .response = "response"};
    size_t dapo = 0, f1 = 0;
    CHECK_OK(opd_jsonl_load(NULL, OPD_SOURCE_DIR "/tests/golden/rules.jsonl", &keys, &set));
    for (size_t i = 0; i < set->count; i++) {
        bool is_dapo = strncmp(set->rows[i].prompt, "dapo ", 5) == 0;
        double want = strtod(strchr(set->rows[i].prompt, ' '), NULL);
        judged(is_dapo ? OPD_REWARD_RULE_DAPO : OPD_REWARD_RULE_F1, set->rows[i].response,
               set->rows[i].label, want);
        dapo += is_dapo;
        f1 += !is_dapo;
    }
    CHECK_INT(dapo, 300);
    CHECK_INT(f1, 200);
    opd_jsonl_destroy(set);
}

TEST(dapo_reads_the_last_answer_line_near_the_end) {
    judged(OPD_REWARD_RULE_DAPO, "Answer: 3\nno, Answer: 4", "4", 1);
    judged(OPD_REWARD_RULE_DAPO, "Answer: 4\nAnswer: 3", "4", -1);
    judged(OPD_REWARD_RULE_DAPO, "4", "4", -1);
    judged(OPD_REWARD_RULE_DAPO, "Answer:", "", -1);
    char far[400] = "Answer: 4\n";
    memset(far + 10, 'x', sizeof far - 11);
    judged(OPD_REWARD_RULE_DAPO, far, "4", -1);
}

TEST(f1_by_hand) {
    judged(OPD_REWARD_RULE_F1, "the cat sat", "a cat", 2.0 / 3);
    judged(OPD_REWARD_RULE_F1, "cat cat cat", "cat dog", 0.4);
    judged(OPD_REWARD_RULE_F1, "yes it is", "yes", 0);
    judged(OPD_REWARD_RULE_F1, "Yes.", "yes", 1);
    judged(OPD_REWARD_RULE_F1, "", "", 0);
}

TEST(choices) {
    static const char *const RIGHT[] = {
        "so \\boxed{B}", "\\boxed{\\text{(B)}}", "The answer is (B).", "Answer: **B**",
        "answer: option B", "The answer is B) 12 m", "I think\n(B)", "B", "Answer: $B$",
        "The correct answer is: b", "The answer is B, I think", "(B) I and III only", "B. A cat", "B: Vitamin C",
        "\\boxed{B}, not \\text{C}"};
    static const char *const WRONG[] = {"\\boxed{A}", "The answer is Berlin", "B\nor C", "", "12",
                                        "Answer: A good one would be B", "AB",
                                        /* every option cannot be wrong */
                                        "\\boxed{B, C}", "The answer is B or C", "Answer: (B) or (C)",
                                        "\\boxed{B C D}", "B/C", "\\boxed{B and C}", "B, C, D and E",
                                        "(B), (C)", "\\boxed{\\text{B or C}}", "**B** & **C**"};
    for (size_t i = 0; i < sizeof RIGHT / sizeof RIGHT[0]; i++) {
        judged(OPD_REWARD_RULE_CHOICE, RIGHT[i], "B", 1);
        judged(OPD_REWARD_RULE_CHOICE, RIGHT[i], "(b)", 1);
        judged(OPD_REWARD_RULE_CHOICE, RIGHT[i], "C", 0);
        judged(OPD_REWARD_RULE_CHOICE, RIGHT[i], "", 0);
    }
    for (size_t i = 0; i < sizeof WRONG / sizeof WRONG[0]; i++)
        judged(OPD_REWARD_RULE_CHOICE, WRONG[i], "B", 0);
}

TEST(boxed_judges_nothing_else) {
    opd_piece label = piece("cat");
    CHECK_NEAR(opd_reward_judge(OPD_REWARD_RULE_F1, true, piece("dog \\boxed{cat}"), label), 1, 0);
    CHECK_NEAR(opd_reward_judge(OPD_REWARD_RULE_F1, true, piece("cat"), label), 0, 0);
    label = piece("3");
    CHECK_NEAR(opd_reward_judge(OPD_REWARD_RULE_MATH, true, piece("\\boxed{3}"), label), 1, 0);
    CHECK_NEAR(opd_reward_judge(OPD_REWARD_RULE_MATH, true, piece("#### 3"), label), 0, 0);
}

/* Any bytes in buffers of exact size, and texts of a megabyte. */
TEST(any_bytes_are_harmless) {
    static const char LETTERS[] = "Answer:\n $\\text{}=,fracsqrt12boxed{a the yes\xff(B)";
    opd_rng rng;
    opd_rng_init(&rng, 3);
    for (int i = 0; i < 3000; i++) {
        size_t size = i % 1000 == 999 ? 1000000 : opd_rng_below(&rng, 2000), label_size = size / 3;
        char *text = malloc(size + 1), *label = malloc(label_size + 1);
        for (size_t c = 0; c < size; c++) text[c] = LETTERS[opd_rng_below(&rng, sizeof LETTERS)];
        for (size_t c = 0; c < label_size; c++)
            label[c] = LETTERS[opd_rng_below(&rng, sizeof LETTERS)];
        for (int rule = OPD_REWARD_RULE_NONE; rule <= OPD_REWARD_RULE_CHOICE; rule++) {
            double got = opd_reward_judge((opd_reward_rule)rule, i % 2, (opd_piece){text, text + size},
                                          (opd_piece){label, label + label_size});
            CHECK(got >= -1 && got <= 1);
        }
        free(text);
        free(label);
    }
}
