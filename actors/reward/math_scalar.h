/* math_scalar.h - one number of an answer: exact where it is a fraction, else a complex double.
 *
 * Equality. Two exact numbers are compared exactly. Where a decimal fraction takes part, which is
 * taken for rounded, they agree within half a unit of the sixth decimal place, and within 2e-6 of
 * their size (so 0.333333 is 1/3, and 1e-9 is not 2e-9). Where something irrational takes part and
 * no decimal fraction, they agree within 1e-9 of their size and within what rounding may have cost. A
 * percentage agrees with the number before the sign and with the hundredth of it. Infinity equals
 * infinity of the same sign; nothing can be computed with it.
 * Invariants: fixed memory; what is not a finite number equals nothing else. Thread: any; no state.
 */
#ifndef OPD_ACTORS_REWARD_MATH_SCALAR_H
#define OPD_ACTORS_REWARD_MATH_SCALAR_H

#include <complex.h>

#include "actors/reward/latex.h"
#include "actors/reward/rational.h"

typedef struct opd_math_scalar {
    opd_rational exact; /* where is_exact */
    double complex near;
    double error; /* a bound, roughly, of what rounding did to near */
    bool is_exact, is_decimal, is_percent, is_infinity;
} opd_math_scalar;

opd_math_scalar opd_math_near(double complex value);
opd_math_scalar opd_math_whole(int64_t value);
opd_math_scalar opd_math_infinity(void);

/* A number token: digits with separators, a point, an exponent of ten. False where it has more
 * digits than are compared. */
bool opd_math_number(const opd_latex_token *token, opd_math_scalar *out);

/* The value of a variable at one of the points where expressions are compared, the same for the same name
 * and point: between 0.5 and 2; at points from OPD_MATH_SIGNED on, for expressions with absolute
 * values, the first is negative and the second lies above 6.5. */
enum { OPD_MATH_SIGNED = 8 };
opd_math_scalar opd_math_variable(uint64_t name, unsigned point);

opd_math_scalar opd_math_add(const opd_math_scalar *a, const opd_math_scalar *b);
opd_math_scalar opd_math_negate(const opd_math_scalar *a);
opd_math_scalar opd_math_multiply(const opd_math_scalar *a, const opd_math_scalar *b);
opd_math_scalar opd_math_divide(const opd_math_scalar *a, const opd_math_scalar *b);
opd_math_scalar opd_math_power(const opd_math_scalar *base, const opd_math_scalar *exponent);
opd_math_scalar opd_math_function(opd_latex_function function, const opd_math_scalar *a);

bool opd_math_scalar_equal(const opd_math_scalar *a, const opd_math_scalar *b);

#endif
