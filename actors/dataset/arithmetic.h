/* actors/dataset/arithmetic.h - the quickstart's task: arithmetic with written-out steps.
 *
 * A problem is a chain of additions and subtractions, "47+85-23=". Problems are drawn by seed,
 * all different, and cut into named splits, so that splits are disjoint by construction. Each
 * row is a JSON line with "prompt", "response" and "label"; the response writes the steps out in
 * one of three styles and ends in "#### " and the result:
 *   CHAIN     47+85=132 / 132-23=109            (a slash stands for a line break)
 *   REWRITE   132-23 / =109
 *   COLUMNS   of 47+85: 7+5+0=12 / 4+8+1=13     (digits and carry, least digit first)
 * The formats live in opd_problem_format alone.
 *
 * Invariants: problem i of a seed does not depend on how many are drawn after it; no
 * intermediate result is negative.
 * Thread: any. Memory: the generator's table belongs to it and is freed by destroy.
 */
#ifndef OPD_ACTORS_DATASET_ARITHMETIC_H
#define OPD_ACTORS_DATASET_ARITHMETIC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "opd/alloc.h"
#include "opd/err.h"

#define OPD_PROBLEM_TERMS_MAX 8
#define OPD_PROBLEM_TERM_MAX 999999u

typedef enum opd_problem_style {
    OPD_PROBLEM_CHAIN,
    OPD_PROBLEM_REWRITE,
    OPD_PROBLEM_COLUMNS /* sums of two terms only */
} opd_problem_style;

typedef struct opd_arithmetic_config {
    uint64_t seed;
    opd_problem_style style;
    uint32_t terms_min, terms_max; /* 2 .. OPD_PROBLEM_TERMS_MAX                  */
    uint32_t first_min, first_max; /* of the first term, 0 .. OPD_PROBLEM_TERM_MAX */
    uint32_t other_min, other_max; /* of the other terms, likewise                 */
    bool minus;                    /* signs are + and - at random, else + only     */
} opd_arithmetic_config;

/* One problem: terms[0] (+|-) terms[1] ... ; signs[0] is '+'. */
typedef struct opd_problem {
    uint32_t term_count;
    uint32_t terms[OPD_PROBLEM_TERMS_MAX];
    char signs[OPD_PROBLEM_TERMS_MAX];
} opd_problem;

typedef struct opd_problem_text {
    char prompt[96];
    char response[384];
    char label[24];
} opd_problem_text;

typedef struct opd_arithmetic opd_arithmetic;

/* The task of the quickstart, under a seed of one's own. */
opd_arithmetic_config opd_arithmetic_quickstart(uint64_t seed);

/* A generator. OPD_ERR_INVALID for ranges outside the above, COLUMNS with other than sums of
 * two terms; OPD_ERR_NOMEM. */
OPD_MUST_CHECK opd_err opd_arithmetic_create(const opd_alloc *alloc,
                                             const opd_arithmetic_config *config,
                                             opd_arithmetic **out_generator);

/* Frees the generator. NULL is legal. */
void opd_arithmetic_destroy(opd_arithmetic *generator);

/* The next problem, different from all before. OPD_ERR_LIMIT when the ranges hold no more new
 * ones (1,000 draws in a row were old). OPD_ERR_NOMEM. */
OPD_MUST_CHECK opd_err opd_arithmetic_next(opd_arithmetic *generator, opd_problem *out_problem);

/* THE formats: prompt, worked response and label of a problem. */
void opd_problem_format(const opd_problem *problem, opd_problem_style style,
                        opd_problem_text *out_text);

typedef struct opd_arithmetic_split {
    const char *path; /* file to write */
    size_t count;     /* rows          */
} opd_arithmetic_split;

/* Writes the splits one after another from one stream of distinct problems, each file
 * atomically; existing files are replaced. Errors of the generator and of the files. */
OPD_MUST_CHECK opd_err opd_arithmetic_write(const opd_alloc *alloc,
                                            const opd_arithmetic_config *config,
                                            const opd_arithmetic_split *splits, size_t split_count);

#endif
