/* math_expression.c - see math_expression.h: recursive descent, evaluating as it reads.
 * No state, any thread. */
#include "actors/reward/math_expression.h"

#include <math.h>

#include "actors/reward/math_value.h"

enum { DEPTH_MAX = 40, FACTORIAL_MAX = 60 };

#define PI 3.14159265358979323846
#define E 2.71828182845904523536

bool opd__math_enter(opd_math_reader *r) {
    if (++*r->steps > OPD_MATH_STEPS_MAX || ++r->depth > DEPTH_MAX) r->failed = true;
    return !r->failed;
}

void opd__math_leave(opd_math_reader *r) { r->depth--; }

static bool is(const opd_latex_token *t, opd_latex_kind kind, int op) {
    return t->kind == kind && t->op == op;
}

static bool take(opd_math_reader *r, opd_latex_kind kind, int op) {
    if (!is(r->at, kind, op)) return false;
    r->at++;
    return true;
}

static opd_math_scalar fail(opd_math_reader *r) {
    r->failed = true;
    return opd_math_near(0);
}

static opd_math_scalar power(opd_math_reader *r);

/* ---- atoms ---- */

/* What stands in a group, or the one thing that stands there without braces. */
static opd_math_scalar argument(opd_math_reader *r) {
    if (!take(r, OPD_LATEX_GROUP_OPEN, 0)) {
        bool minus = take(r, OPD_LATEX_OPERATOR, '-');
        opd_math_scalar value = power(r);
        return minus ? opd_math_negate(&value) : value;
    }
    opd_math_scalar value = opd_math_expression(r);
    if (!take(r, OPD_LATEX_GROUP_CLOSE, 0)) return fail(r);
    return value;
}

static opd_math_scalar in_brackets(opd_math_reader *r) {
    opd_latex_kind closing = r->at->kind == OPD_LATEX_BAR          ? OPD_LATEX_BAR
                             : r->at->kind == OPD_LATEX_GROUP_OPEN ? OPD_LATEX_GROUP_CLOSE
                                                                   : OPD_LATEX_CLOSE;
    r->at++;
    opd_math_scalar value = opd_math_expression(r);
    if (r->at->kind != closing) return fail(r);
    r->at++;
    if (closing != OPD_LATEX_BAR) return value;
    if (value.is_exact && value.exact.negative) return opd_math_negate(&value);
    if (!value.is_exact) value.near = cabs(value.near);
    return value;
}

static opd_math_scalar root(opd_math_reader *r) {
    opd_math_scalar degree = opd_math_whole(2), one = opd_math_whole(1);
    if (take(r, OPD_LATEX_OPEN, '[')) {
        degree = opd_math_expression(r);
        if (!take(r, OPD_LATEX_CLOSE, ']')) return fail(r);
    }
    opd_math_scalar inner = argument(r), exponent = opd_math_divide(&one, &degree);
    bool odd = inner.is_exact && inner.exact.negative && degree.is_exact &&
               fmod(creal(degree.near), 2) == 1;
    if (!odd) return opd_math_power(&inner, &exponent);
    inner = opd_math_negate(&inner); /* the real root of a negative number */
    inner = opd_math_power(&inner, &exponent);
    return opd_math_negate(&inner);
}

static bool starts_factor(const opd_latex_token *t) {
    switch (t->kind) {
    case OPD_LATEX_NUMBER:
    case OPD_LATEX_NAME:
    case OPD_LATEX_WORD:
    case OPD_LATEX_FUNCTION:
    case OPD_LATEX_OPEN:
    case OPD_LATEX_GROUP_OPEN:
    case OPD_LATEX_CONSTANT:
    case OPD_LATEX_FRACTION:
    case OPD_LATEX_ROOT: return true;
    default: return false;
    }
}

/* The argument of a function: what is in brackets, or the factors up to an operator. */
static opd_math_scalar function_argument(opd_math_reader *r) {
    bool minus = take(r, OPD_LATEX_OPERATOR, '-');
    bool bracketed = r->at->kind == OPD_LATEX_OPEN || r->at->kind == OPD_LATEX_GROUP_OPEN;
    if (!starts_factor(r->at)) return fail(r);
    opd_math_scalar value = bracketed ? in_brackets(r) : power(r);
    while (!bracketed && !r->failed && starts_factor(r->at) && r->at->kind != OPD_LATEX_FUNCTION &&
           r->at->kind != OPD_LATEX_OPEN) {
        opd_math_scalar next = power(r);
        value = opd_math_multiply(&value, &next);
    }
    return minus ? opd_math_negate(&value) : value;
}

/* sin x, sin^2 x, sin^{-1} x, log_2 x */
static opd_math_scalar function(opd_math_reader *r) {
    opd_latex_function name = (opd_latex_function)r->at->op;
    opd_math_scalar base, exponent;
    r->at++;
    bool has_base = name == OPD_LATEX_LOG && take(r, OPD_LATEX_SUBSCRIPT, 0);
    if (has_base) base = argument(r);
    bool raised = take(r, OPD_LATEX_OPERATOR, '^');
    if (raised) exponent = argument(r);
    opd_math_scalar inner = function_argument(r);
    int whole;
    if (raised && name <= OPD_LATEX_TAN && exponent.is_exact &&
        opd_rational_integer(&exponent.exact, 1, &whole) && whole == -1) {
        name = (opd_latex_function)(OPD_LATEX_ASIN + (name - OPD_LATEX_SIN));
        raised = false;
    }
    opd_math_scalar value = opd_math_function(name, &inner);
    if (has_base) {
        base = opd_math_function(OPD_LATEX_LN, &base);
        value = opd_math_divide(&value, &base);
    } else if (name == OPD_LATEX_LOG) {
        base = opd_math_near(log(10));
        value = opd_math_divide(&value, &base);
    }
    return raised ? opd_math_power(&value, &exponent) : value;
}

static opd_math_scalar name(opd_math_reader *r) {
    const opd_latex_token *t = r->at++;
    if (t->op == 'e') return opd_math_near(E);
    if (t->op == 'i') return opd_math_near(I);
    opd_math_scalar value = opd_math_variable(t->name, r->point);
    bool applied = is(r->at, OPD_LATEX_OPEN, '(') &&
                   (r->at[1].kind == OPD_LATEX_NUMBER || r->at[1].kind == OPD_LATEX_NAME) &&
                   is(r->at + 2, OPD_LATEX_CLOSE, ')');
    if (!applied) return value;
    opd_math_scalar inner = in_brackets(r), slope = opd_math_variable(~t->name, r->point);
    inner = opd_math_multiply(&inner, &slope);
    return opd_math_add(&value, &inner);
}

static opd_math_scalar atom(opd_math_reader *r) {
    opd_math_scalar value, below;
    switch (r->at->kind) {
    case OPD_LATEX_NUMBER:
        if (!opd_math_number(r->at++, &value)) return fail(r);
        return value;
    case OPD_LATEX_NAME: return name(r);
    case OPD_LATEX_WORD: return opd_math_variable(r->at++->name, r->point);
    case OPD_LATEX_CONSTANT:
        return r->at++->op == 'p' ? opd_math_near(PI) : opd_math_infinity();
    case OPD_LATEX_FUNCTION: return function(r);
    case OPD_LATEX_FRACTION:
        r->at++;
        value = argument(r);
        below = argument(r);
        return opd_math_divide(&value, &below);
    case OPD_LATEX_ROOT: r->at++; return root(r);
    case OPD_LATEX_OPEN:
    case OPD_LATEX_GROUP_OPEN:
    case OPD_LATEX_BAR: return in_brackets(r);
    default: return fail(r);
    }
}

static opd_math_scalar factorial(opd_math_reader *r, const opd_math_scalar *of) {
    int whole;
    if (!of->is_exact || !opd_rational_integer(&of->exact, FACTORIAL_MAX, &whole) || whole < 0)
        return fail(r);
    opd_math_scalar product = opd_math_whole(1);
    for (int i = 2; i <= whole; i++) {
        opd_math_scalar factor = opd_math_whole(i);
        product = opd_math_multiply(&product, &factor);
    }
    return product;
}

/* An atom with what is written behind it: powers, "!", "%". */
static opd_math_scalar power(opd_math_reader *r) {
    opd_math_scalar value = opd_math_near(0);
    if (opd__math_enter(r)) {
        value = atom(r);
        while (!r->failed) {
            if (take(r, OPD_LATEX_OPERATOR, '^')) {
                opd_math_scalar exponent = argument(r);
                value = opd_math_power(&value, &exponent);
            } else if (take(r, OPD_LATEX_OPERATOR, '!')) {
                value = factorial(r, &value);
            } else if (take(r, OPD_LATEX_OPERATOR, '%')) {
                value.is_percent = true;
            } else {
                break;
            }
        }
    }
    opd__math_leave(r);
    return value;
}

/* ---- products and sums ---- */

/* "2\frac{1}{2}" and "2 1/2": `whole` is followed by the fraction that is added to it. */
static bool mixed(const opd_latex_token *whole) {
    const opd_latex_token *t = whole + 1;
    if (whole->kind != OPD_LATEX_NUMBER) return false;
    if (t->kind == OPD_LATEX_NUMBER)
        return is(t + 1, OPD_LATEX_OPERATOR, '/') && t[2].kind == OPD_LATEX_NUMBER;
    if (t->kind != OPD_LATEX_FRACTION) return false;
    if (t[1].kind == OPD_LATEX_NUMBER) return t[2].kind == OPD_LATEX_NUMBER;
    return t[1].kind == OPD_LATEX_GROUP_OPEN && t[2].kind == OPD_LATEX_NUMBER &&
           t[3].kind == OPD_LATEX_GROUP_CLOSE && t[4].kind == OPD_LATEX_GROUP_OPEN &&
           t[5].kind == OPD_LATEX_NUMBER && t[6].kind == OPD_LATEX_GROUP_CLOSE;
}

static opd_math_scalar mixed_number(opd_math_reader *r) {
    opd_math_scalar whole = atom(r), part = atom(r);
    if (take(r, OPD_LATEX_OPERATOR, '/')) {
        opd_math_scalar below = atom(r);
        part = opd_math_divide(&part, &below);
    }
    return opd_math_add(&whole, &part);
}

/* Units in \text{}: "\text{ cm}^2", "\text{km}/\text{h}". */
static bool skip_unit(opd_math_reader *r) {
    if (!is(r->at, OPD_LATEX_WORD, 0)) return false;
    r->at++;
    if (take(r, OPD_LATEX_OPERATOR, '^')) (void)argument(r);
    if (is(r->at, OPD_LATEX_OPERATOR, '/') && is(r->at + 1, OPD_LATEX_WORD, 0)) r->at++;
    return true;
}

static opd_math_scalar product(opd_math_reader *r) {
    opd_math_scalar value = mixed(r->at) ? mixed_number(r) : power(r);
    while (!r->failed) {
        if (++*r->steps > OPD_MATH_STEPS_MAX) return fail(r);
        if (skip_unit(r)) continue;
        bool times = take(r, OPD_LATEX_OPERATOR, '*');
        bool over = !times && take(r, OPD_LATEX_OPERATOR, '/');
        if (!times && !over &&
            (!starts_factor(r->at) || r->at->kind == OPD_LATEX_NUMBER)) {
            if (r->at->kind == OPD_LATEX_NUMBER && r->at[-1].kind == OPD_LATEX_NUMBER)
                return fail(r); /* "3 4" is no product */
            if (r->at->kind != OPD_LATEX_NUMBER) break;
        }
        bool minus = (times || over) && take(r, OPD_LATEX_OPERATOR, '-');
        if (times || over) (void)take(r, OPD_LATEX_OPERATOR, '+');
        opd_math_scalar next = power(r);
        if (minus) next = opd_math_negate(&next);
        value = over ? opd_math_divide(&value, &next) : opd_math_multiply(&value, &next);
    }
    return value;
}

opd_math_scalar opd_math_expression(opd_math_reader *r) {
    opd_math_scalar sum = opd_math_whole(0);
    bool first = true;
    if (!opd__math_enter(r)) first = false;
    while (!r->failed) {
        int sign = 1;
        if (take(r, OPD_LATEX_OPERATOR, '-')) sign = -1;
        else if (take(r, OPD_LATEX_OPERATOR, '~')) sign = r->plus_minus;
        else if (!take(r, OPD_LATEX_OPERATOR, '+') && !first) break;
        opd_math_scalar term = product(r);
        if (sign < 0) term = opd_math_negate(&term);
        sum = first ? term : opd_math_add(&sum, &term);
        first = false;
    }
    opd__math_leave(r);
    return sum;
}
