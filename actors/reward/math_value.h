/* math_value.h - what an answer says: numbers and expressions, relations, tuples, sets, intervals,
 * matrices.
 *
 * An answer is read as a flat list of items; brackets are items of their own. An expression with
 * variables is evaluated at OPD_MATH_POINTS fixed points: expressions that agree at all of them
 * are taken for the same function. Two relations agree when the differences of their sides have
 * the same ratio at all points (a positive one for an inequality).
 *
 * Invariants: recursion ends at depth 40, work at OPD_MATH_STEPS_MAX steps: beyond, there is no
 * value. Fixed memory (some 120 KB for the two sides of a comparison, the caller's stack). Thread:
 * any; no state.
 */
#ifndef OPD_ACTORS_REWARD_MATH_VALUE_H
#define OPD_ACTORS_REWARD_MATH_VALUE_H

#include "actors/reward/math_scalar.h"

enum { OPD_MATH_POINTS = 3, OPD_MATH_ITEMS_MAX = 32, OPD_MATH_STEPS_MAX = 1 << 15 };

typedef enum opd_math_kind {
    OPD_MATH_SCALAR,   /* value                                               */
    OPD_MATH_RELATION, /* op: = < l n; value: left - right; right             */
    OPD_MATH_OPEN,     /* op: ( [ { m                                         */
    OPD_MATH_CLOSE,    /* op: ) ] } m                                         */
    OPD_MATH_ROW,
    OPD_MATH_UNION
} opd_math_kind;

typedef struct opd_math_item {
    uint8_t kind, op;
    bool assigns;  /* a relation "x = ..." or "f(x) = ..." or "3*6 = ..." */
    uint64_t name; /* of what is assigned; 0: a number                    */
    opd_math_scalar value, right;
} opd_math_item;

typedef struct opd_math_value {
    opd_math_item items[OPD_MATH_ITEMS_MAX];
    size_t count;
} opd_math_value;

/* Reads an answer at a point, adding to *steps. False when it is none of the things above. */
bool opd_math_value_read(const opd_latex *latex, unsigned point, opd_math_value *out_value,
                         uint32_t *steps);

/* Whether two answers, each read at all points, say the same. */
bool opd_math_value_equal(const opd_math_value a[OPD_MATH_POINTS],
                          const opd_math_value b[OPD_MATH_POINTS]);

#endif
