/* actors/evaluator/stats.h - accuracy on held-out problems and how sure we are of it.
 *
 * The 95 % interval is Wilson's score interval (Wilson 1927, J. Am. Stat. Assoc. 22:209) with
 * z = 1.959964: unlike the normal approximation it stays inside 0..1 and is right near the ends.
 *
 * Thread: any; no state beyond the caller's struct.
 */
#ifndef OPD_ACTORS_EVALUATOR_STATS_H
#define OPD_ACTORS_EVALUATOR_STATS_H

#include <stdbool.h>
#include <stddef.h>

#include "opd/run.h" /* opd_accuracy */

/* Counts so far; start from {0}. Truncated and failed answers count as wrong. */
typedef struct opd_eval_counts {
    size_t total, correct, truncated, failed;
    double response_tokens;
} opd_eval_counts;

/* Adds one answer of `response_len` tokens. */
void opd_eval_add(opd_eval_counts *counts, bool correct, bool truncated, size_t response_len);

/* Adds one problem that got no answer: wrong. */
void opd_eval_add_failed(opd_eval_counts *counts);

/* Accuracy and interval of `correct` out of n; correct <= n is the caller's duty. */
opd_accuracy opd_accuracy_of(size_t correct, size_t n);

#endif
