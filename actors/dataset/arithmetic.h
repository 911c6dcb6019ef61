/* actors/dataset/arithmetic.h - the quickstart's task: arithmetic with written-out steps.
 *
 * Problems are drawn by seed, all different, and cut into named splits, so that splits are
 * disjoint by construction; the writer asserts it again. A row reads
 *   {"prompt":"47+85-23=","response":"47+85=132;132-23=109\n#### 109","label":"109"}
 * The format lives in opd_problem_format alone.
 *
 * Invariants: problem i of a seed does not depend on how many are drawn after it; no
 * intermediate result is negative.
 * Thread: any. Memory: the generator's table belongs to it and is freed by destroy.
 */
#ifndef OPD_ACTORS_DATASET_ARITHMETIC_H
#define OPD_ACTORS_DATASET_ARITHMETIC_H

#include <stddef.h>
#include <stdint.h>

#include "opd/alloc.h"
#include "opd/err.h"

#define OPD_PROBLEM_TERMS_MAX 8

typedef struct opd_arithmetic_config {
    uint64_t seed;
    uint32_t terms_min, terms_max;   /* 2 .. OPD_PROBLEM_TERMS_MAX         */
    uint32_t digits_min, digits_max; /* of each term, 1 .. 6               */
} opd_arithmetic_config;

/* One problem: terms[0] (+|-) terms[1] ... ; signs[0] is '+'. */
typedef struct opd_problem {
    uint32_t term_count;
    uint32_t terms[OPD_PROBLEM_TERMS_MAX];
    char signs[OPD_PROBLEM_TERMS_MAX];
} opd_problem;

typedef struct opd_problem_text {
    char prompt[96];
    char response[288];
    char label[24];
} opd_problem_text;

typedef struct opd_arithmetic opd_arithmetic;

/* A generator. OPD_ERR_INVALID for ranges outside the above; OPD_ERR_NOMEM. */
OPD_MUST_CHECK opd_err opd_arithmetic_create(const opd_alloc *alloc,
                                             const opd_arithmetic_config *config,
                                             opd_arithmetic **out_generator);

/* Frees the generator. NULL is legal. */
void opd_arithmetic_destroy(opd_arithmetic *generator);

/* The next problem, different from all before. OPD_ERR_LIMIT when the ranges hold no more new
 * ones (1,000 draws in a row were old). OPD_ERR_NOMEM. */
OPD_MUST_CHECK opd_err opd_arithmetic_next(opd_arithmetic *generator, opd_problem *out_problem);

/* THE format: prompt, worked response and label of a problem. */
void opd_problem_format(const opd_problem *problem, opd_problem_text *out_text);

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
