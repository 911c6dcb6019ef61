/* actors/dataset/arithmetic.h - the quickstart's task: written addition, column by column.
 *
 * A problem is the sum of two numbers of `digits` digits; the response works it out from the
 * units up, each line the two digits, the carry that comes in and the column's two-digit sum:
 *   {"prompt": "4712+2589=", "response": "2+9+0=11\n1+8+1=10\n7+5+1=13\n4+2+1=07\n#### 7301",
 *    "label": "7301"}
 * A split may begin with easy problems: those where no column's two digits sum to more than a
 * bound. That is how the quickstart's student meets only a part of the digit pairs in its
 * fine-tuning and has the rest to learn from its teacher.
 *
 * Invariants: all problems of a generator are different, so its splits are disjoint by
 * construction; problem i of a seed does not depend on how many are drawn after it.
 * Thread: any. Memory: the generator's table belongs to it and is freed by destroy.
 */
#ifndef OPD_ACTORS_DATASET_ARITHMETIC_H
#define OPD_ACTORS_DATASET_ARITHMETIC_H

#include <stddef.h>
#include <stdint.h>

#include "opd/alloc.h"
#include "opd/err.h"

enum {
    OPD_PROBLEM_DIGITS_MAX = 8,
    OPD_PROBLEM_COLUMN_SUM_MAX = 18 /* 9 + 9: every problem */
};

/* One problem: a + b. */
typedef struct opd_problem {
    uint32_t a, b;
} opd_problem;

typedef struct opd_problem_text {
    char prompt[32];
    char response[128];
    char label[16];
} opd_problem_text;

typedef struct opd_arithmetic opd_arithmetic;

/* A generator of sums of two numbers of `digits` digits (1 .. OPD_PROBLEM_DIGITS_MAX).
 * Errors: INVALID, NOMEM. */
OPD_MUST_CHECK opd_err opd_arithmetic_create(const opd_alloc *alloc, uint64_t seed,
                                             uint32_t digits, opd_arithmetic **out_generator);

/* Frees the generator. NULL is legal. */
void opd_arithmetic_destroy(opd_arithmetic *generator);

/* The next problem, different from all before, with no column's digits summing to more than
 * column_sum_max. Errors: LIMIT (10,000 draws in a row brought none), NOMEM. */
OPD_MUST_CHECK opd_err opd_arithmetic_next(opd_arithmetic *generator, uint32_t column_sum_max,
                                           opd_problem *out_problem);

/* The format: prompt, worked response and label of a problem. */
void opd_problem_format(const opd_problem *problem, opd_problem_text *out_text);

typedef struct opd_arithmetic_split {
    const char *path;         /* file to write                        */
    size_t count;             /* rows                                 */
    size_t easy_first;        /* of these, easy ones at the start     */
    uint32_t easy_column_sum; /* largest column sum of an easy problem */
} opd_arithmetic_split;

/* Writes the splits one after another from one stream of distinct problems, each file
 * atomically; existing files are replaced. Errors of the generator and of the files. */
OPD_MUST_CHECK opd_err opd_arithmetic_write(const opd_alloc *alloc, uint64_t seed,
                                            uint32_t digits, const opd_arithmetic_split *splits,
                                            size_t split_count);

#endif
