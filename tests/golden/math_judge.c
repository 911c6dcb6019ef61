/* math_judge.c - prints the math reward of each pair of a JSONL file with "response" and "label", one
 * a line, for check_math_pairs.py.
 *
 *     math_judge --hostile      what hostile responses of 10 MB cost each rule, and the worst of them
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "actors/dataset/jsonl.h"
#include "actors/reward/math.h"
#include "actors/reward/rules.h"
#include "core/base/check.h"
#include "core/base/rng.h"

enum { HOSTILE_BYTES = 10000000 };

/* A response: what opens it, what is repeated to its size, what closes it. "\xff" alone: random bytes. */
typedef struct hostile {
    const char *name, *begin, *middle, *end;
} hostile;

static const hostile KINDS[] = {
    {"nested fractions", "\\boxed{", "\\frac{1}{", "1"}, {"nested fractions, closed", "", "\\frac{", "1}{2}}"},
    {"digits", "", "7", ""}, {"digits in a box", "\\boxed{", "7", "}"}, {"boxes that open", "", "\\boxed{", ""},
    {"boxes that close", "", "\\boxed{1}", ""}, {"boxes, then braces", "\\boxed{1}", "}", ""},
    {"alternating braces", "\\boxed{", "{}", "}"}, {"alternating wrong braces", "\\boxed{", "}{", "}"},
    {"towers", "\\boxed{10", "^10", "}"}, {"braced towers", "\\boxed{", "10^{", "}"},
    {"a set of millions", "\\boxed{\\{", "1,", "2\\}}"}, {"a set in words", "Answer: ", "1, ", "2"},
    {"answers", "", "answer is 1 ", ""}, {"hashes", "", "#", ""}, {"equations", "The answer is ", "1=", "1"},
    {"thousands", "The answer is 1", ",000", ""}, {"dollars", "", "$", ""}, {"formulas", "", "$1$", ""},
    {"parentheses", "answer: ", "(", ""}, {"options", "answer: ", "(A) or ", "B"}, {"blanks", "Answer:", " ", ""},
    {"blank lines", "Answer:", "\n", "7"}, {"backslashes", "\\boxed{", "\\", "}"}, {"words", "", "a b ", ""},
    {"emoji", "answer: ", "\xF0\x9F\x98\x80", ""}, {"broken UTF-8", "\\boxed{", "\xE2\x88", "}"},
    {"combining marks", "x", "\xCC\x81", ""}, {"random bytes", "", "\xff", ""}, {"NUL bytes", "", "", ""},
    {"NUL bytes in a box", "\\boxed{", "", "}"}};

static void fill(const hostile *kind, char *text, opd_rng *rng) {
    size_t begin = strlen(kind->begin), middle = strlen(kind->middle), end = strlen(kind->end);
    for (size_t i = 0; i < HOSTILE_BYTES; i++) text[i] = middle > 0 ? kind->middle[i % middle] : '\0';
    for (size_t i = 0; strcmp(kind->middle, "\xff") == 0 && i < HOSTILE_BYTES; i++)
        text[i] = (char)opd_rng_below(rng, 256);
    /* the rules look at the last part only: the opening stands in front of that, too */
    memcpy(text, kind->begin, begin);
    memcpy(text + HOSTILE_BYTES - OPD_ANSWER_WINDOW_MAX, kind->begin, begin);
    memcpy(text + HOSTILE_BYTES - end, kind->end, end);
}

static double now_ms(void) {
    struct timespec now;
    if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now) != 0) abort();
    return 1e3 * (double)now.tv_sec + 1e-6 * (double)now.tv_nsec;
}

static int judge_hostile(void) {
    static const char *const RULES[] = {"none", "math", "dapo", "f1", "multiple choice"};
    char *text = malloc(HOSTILE_BYTES);
    opd_rng rng;
    double worst = 0;
    if (text == NULL) return 2;
    opd_rng_init(&rng, 5);
    for (size_t k = 0; k < OPD_COUNTOF(KINDS); k++) {
        fill(&KINDS[k], text, &rng);
        for (int rule = OPD_REWARD_RULE_MATH; rule <= OPD_REWARD_RULE_CHOICE; rule++) {
            opd_piece response = {text, text + HOSTILE_BYTES}, label = {"7", "7" + 1};
            double begin = now_ms();
            (void)opd_reward_judge((opd_reward_rule)rule, false, response, label);
            (void)opd_reward_judge((opd_reward_rule)rule, true, response, label);
            (void)opd_reward_judge((opd_reward_rule)rule, false, label, response);
            double took = now_ms() - begin;
            if (took > worst) worst = took;
            (void)printf("%-26s %-16s %7.2f ms\n", KINDS[k].name, RULES[rule], took);
        }
    }
    (void)printf("worst of %zu kinds, three judgements each: %.2f ms\n", OPD_COUNTOF(KINDS), worst);
    free(text);
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "--hostile") == 0) return judge_hostile();
    opd_jsonl *set;
    opd_jsonl_keys keys = {.prompt = "kind", .label = "label", .response = "response"};
    if (argc != 2 || opd_jsonl_load(NULL, argv[1], &keys, &set) != OPD_OK) {
        (void)fprintf(stderr, "usage: math_judge PAIRS.jsonl | --hostile (%s)\n", opd_err_context());
        return 2;
    }
    for (size_t i = 0; i < set->count; i++) {
        const char *response = set->rows[i].response, *label = set->rows[i].label;
        (void)printf("%d\n", (int)opd_reward_math(response, strlen(response), label, strlen(label)));
    }
    opd_jsonl_destroy(set);
    return 0;
}
