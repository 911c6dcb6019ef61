/* actors/evaluator/stats.h - accuracy on held-out problems and how sure we are of it.
 *
 * The 95 % interval of a share is Wilson's score interval (Wilson 1927, J. Am. Stat. Assoc. 22:209)
 * with z = 1.959964: unlike the normal approximation it stays inside 0..1 and is right near the ends.
 *
 * pass@k of a problem with n answers, c of them right, is the chance that some of k of them is right,
 * unbiased: 1 - C(n-c, k) / C(n, k), as the product 1 - prod over j = n-c+1..n of (1 - k / j), which
 * neither overflows nor cancels (Chen et al. 2021, arXiv 2107.03374). Its mean p over P problems has
 * Wilson's interval for an effective number of trials p (1-p) / (s^2 / P), s^2 the variance over the
 * problems: at least P, since values in 0..1 vary at most as coin flips of their mean do, and at most
 * the P n / k disjoint draws that there were; P where p is 0 or 1, which shows no spread. So answers to
 * one problem do not count as independent.
 *
 * Thread: any; no state beyond the caller's struct.
 */
#ifndef OPD_ACTORS_EVALUATOR_STATS_H
#define OPD_ACTORS_EVALUATOR_STATS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "opd/run.h" /* opd_accuracy */

enum { OPD_PASS_MAX = 14 }; /* k = 1, 2, 4 .. 4096, and n */

/* Counts so far; start from {0}. A failed answer counts as wrong; a truncated one is judged as it stands. */
typedef struct opd_eval_counts {
    size_t total, correct, truncated, failed;
    double response_tokens;
} opd_eval_counts;

/* pass@k over a set of problems; doubles, as it travels in messages. */
typedef struct opd_pass {
    double k, value, low, high;
} opd_pass;

/* What one evaluation of one set gave. */
typedef struct opd_eval_result {
    opd_accuracy accuracy;  /* of the answers, taken as independent             */
    double response_len;    /* tokens, mean                                     */
    double truncated;       /* share of answers that a length limit cut         */
    size_t pass_count;      /* 0 with one answer per problem                    */
    opd_pass pass[OPD_PASS_MAX];
} opd_eval_result;

/* Adds one answer of `response_len` tokens. */
void opd_eval_add(opd_eval_counts *counts, bool correct, bool truncated, size_t response_len);

/* Adds one problem that got no answer: wrong. */
void opd_eval_add_failed(opd_eval_counts *counts);

/* Accuracy and interval of `correct` out of n; correct <= n is the caller's duty. */
opd_accuracy opd_accuracy_of(size_t correct, size_t n);

/* pass@k of one problem; right <= n, 1 <= k <= n. */
double opd_pass_at(uint32_t n, uint32_t right, uint32_t k);

/* pass@k of problems with `n` answers each, right[i] of them right. */
opd_pass opd_pass_of(const uint32_t *right, size_t problems, uint32_t n, uint32_t k);

/* The result of a whole evaluation: right[problems], and pass@k for the powers of two up to n and for
 * n itself where n > 1. */
opd_eval_result opd_eval_result_of(const opd_eval_counts *counts, const uint32_t *right,
                                   size_t problems, uint32_t n);

#endif
