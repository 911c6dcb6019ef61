/* rational.h - exact arithmetic for the answer checker: fractions of naturals of bounded size.
 *
 * A natural has at most 640 bits (192 decimal digits); whatever would grow beyond says so, and the
 * caller goes on in floating point or gives up. Fractions are not reduced: they are compared by
 * cross multiplication.
 *
 * Invariants: fixed memory, no allocation; a denominator is never zero. Thread: any; no state.
 */
#ifndef OPD_ACTORS_REWARD_RATIONAL_H
#define OPD_ACTORS_REWARD_RATIONAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { OPD_NATURAL_WORDS = 20 };

/* Least word first, without zero words at the top; size 0 is zero. */
typedef struct opd_natural {
    uint32_t words[OPD_NATURAL_WORDS];
    uint32_t size;
} opd_natural;

typedef struct opd_rational {
    opd_natural above, below;
    bool negative;
} opd_rational;

opd_rational opd_rational_of(int64_t value);

/* Appends a decimal digit, 0..9: value * 10 + digit. False when it would not fit; then unchanged. */
bool opd_natural_push_digit(opd_natural *value, uint32_t digit);

/* *out = a op b. False when it would not fit or a divisor is zero; then *out is undefined. `out` may
 * be one of the operands. */
bool opd_rational_add(const opd_rational *a, const opd_rational *b, opd_rational *out);
bool opd_rational_multiply(const opd_rational *a, const opd_rational *b, opd_rational *out);
bool opd_rational_divide(const opd_rational *a, const opd_rational *b, opd_rational *out);
bool opd_rational_power(const opd_rational *base, int exponent, opd_rational *out);

/* Equality, exactly. Two values whose cross products do not fit are compared in another form by
 * the caller: false in *out_known then. */
bool opd_rational_equal(const opd_rational *a, const opd_rational *b, bool *out_known);

/* Nearest double, but for the last bits. */
double opd_rational_double(const opd_rational *value);

/* Whether it is an integer of at most `limit` in size; then it is in *out. */
bool opd_rational_integer(const opd_rational *value, int limit, int *out);

#endif
