/* math_expression.h - the value of one expression of tokens at one point.
 *
 * Reads as people write: implicit products ("2x", "3 \sqrt{2}"), mixed numbers ("2\frac{1}{2}"),
 * functions without brackets ("\sin 2t"), units in \text{} behind a number left out, "f(t)" with a
 * single sign between the brackets as a value of its own.
 * Thread: any; no state but the reader's.
 */
#ifndef OPD_ACTORS_REWARD_MATH_EXPRESSION_H
#define OPD_ACTORS_REWARD_MATH_EXPRESSION_H

#include "actors/reward/math_scalar.h"

/* Where the reading is. */
typedef struct opd_math_reader {
    const opd_latex_token *at; /* ends with OPD_LATEX_END */
    unsigned point, depth;
    uint32_t *steps; /* counts on; the reading fails at OPD_MATH_STEPS_MAX */
    int plus_minus;  /* 1 or -1: what "+-" is this time                    */
    bool failed;
} opd_math_reader;

/* One more level deeper, one more step done; false (and failed) beyond the bounds. Each is followed
 * by opd__math_leave. */
bool opd__math_enter(opd_math_reader *r);
void opd__math_leave(opd_math_reader *r);

/* Reads a sum of products up to the first token that belongs to none. After a failure the value
 * means nothing. */
opd_math_scalar opd_math_expression(opd_math_reader *r);

#endif
