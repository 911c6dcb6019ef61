/* math.h - is the final answer of a worked solution right?
 *
 * The answer is found by answer.h. Two answers agree when they are the same text after trimming of
 * blanks, dollar signs, a final period and case; or when both read as mathematics (latex.h) and say
 * the same (math_value.h, and math_scalar.h for what counts as equal numbers). A label that is a
 * number also agrees with the only number of an answer in words ("18 eggs").
 *
 * Invariants: reads only the bytes given; bounded work (a window of the text, a longest answer, a
 * limit of steps) and fixed memory, some 150 KB of stack; any bytes at all are legal input.
 * Thread: any; no state.
 */
#ifndef OPD_ACTORS_REWARD_MATH_H
#define OPD_ACTORS_REWARD_MATH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Whether two answers agree, as above. Empty answers never do, nor does one that is longer than
 * OPD_ANSWER_SIZE_MAX. */
bool opd_answer_equal(const char *a, size_t a_size_bytes, const char *b, size_t b_size_bytes);

/* The reward: 1 when the final answer of `response` agrees with that of `label`, else 0. A label
 * without marker is its own answer as a whole ("43.0", "\frac{1}{2}", "blue"). */
double opd_reward_math(const char *response, size_t response_size_bytes, const char *label,
                       size_t label_size_bytes);

/* The same of an answer that was found already. *out_steps, unless NULL, counts the steps that
 * reading took: never more than some ten times OPD_MATH_STEPS_MAX. */
bool opd_answer_matches(const char *answer, size_t answer_size_bytes, const char *label,
                        size_t label_size_bytes, uint32_t *out_steps);

#endif
