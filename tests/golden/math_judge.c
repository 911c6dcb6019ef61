/* math_judge.c - prints the math reward of each pair of a JSONL file with "response" and "label", one
 * a line, for check_math_pairs.py. */
#include <stdio.h>
#include <string.h>

#include "actors/dataset/jsonl.h"
#include "actors/reward/math.h"

int main(int argc, char **argv) {
    opd_jsonl *set;
    opd_jsonl_keys keys = {.prompt = "kind", .label = "label", .response = "response"};
    if (argc != 2 || opd_jsonl_load(NULL, argv[1], &keys, &set) != OPD_OK) {
        (void)fprintf(stderr, "usage: math_judge PAIRS.jsonl (%s)\n", opd_err_context());
        return 2;
    }
    for (size_t i = 0; i < set->count; i++) {
        const char *response = set->rows[i].response, *label = set->rows[i].label;
        (void)printf("%d\n", (int)opd_reward_math(response, strlen(response), label, strlen(label)));
    }
    opd_jsonl_destroy(set);
    return 0;
}
