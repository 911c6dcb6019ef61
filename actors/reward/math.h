/* actors/reward/math.h - is the final answer of a worked solution right?
 *
 * The final answer of a text is, in this order of trust: the content of its last balanced
 * \boxed{...}; what follows the last "####" up to the end of the line; what follows the last
 * "answer is", "answer:" or a line's "A:" (any case) up to the end of the line; its last
 * number. Two answers agree when both are numbers of the same value (thousands separators,
 * a currency or percent sign, "43.0" = "43", fractions "a/b" and mixed forms of sign), or when
 * they are the same text after trimming of blanks, dollar signs, a final period and case.
 * Numbers of up to 40 digits are compared digit by digit, so no rounding makes them equal.
 *
 * Invariants: reads only the bytes given, in a fixed number of passes (linear time), with
 * memory of fixed size; any bytes at all are legal input.
 * Thread: any; no state.
 */
#ifndef OPD_ACTORS_REWARD_MATH_H
#define OPD_ACTORS_REWARD_MATH_H

#include <stdbool.h>
#include <stddef.h>

/* Longest answer that is compared; a longer one is never right. */
#define OPD_ANSWER_SIZE_MAX 512

/* Finds the final answer of text[0..size_bytes-1]: *out_answer points into the text, trimmed of
 * blanks. False when there is none (no marker with content and no digit), then nothing is
 * written. */
bool opd_answer_extract(const char *text, size_t size_bytes, const char **out_answer,
                        size_t *out_size_bytes);

/* Whether two answers agree, as above. Empty answers never do. */
bool opd_answer_equal(const char *a, size_t a_size_bytes, const char *b, size_t b_size_bytes);

/* The reward: 1 when the final answer of `response` agrees with that of `label`, else 0. A label
 * without marker is its own answer as a whole ("43.0", "\frac{1}{2}", "blue"). */
double opd_reward_math(const char *response, size_t response_size_bytes, const char *label,
                       size_t label_size_bytes);

#endif
