/* math_scalar.c - see math_scalar.h. No state, any thread. */
#include "actors/reward/math_scalar.h"

#include <math.h>
#include <string.h>

enum { EXPONENT_MAX = 640 };

static opd_math_scalar exact_of(const opd_rational *value) {
    return (opd_math_scalar){.exact = *value, .near = opd_rational_double(value), .is_exact = true};
}

opd_math_scalar opd_math_near(double complex value) { return (opd_math_scalar){.near = value}; }

opd_math_scalar opd_math_whole(int64_t value) {
    opd_rational exact = opd_rational_of(value);
    return exact_of(&exact);
}

/* ---- numbers and variables ---- */

/* Multiplies by ten to the power. False when it would not fit. */
static bool scale(opd_rational *value, int power) {
    opd_rational ten = opd_rational_of(10), factor;
    return opd_rational_power(&ten, power, &factor) &&
           opd_rational_multiply(value, &factor, value);
}

bool opd_math_number(const opd_latex_token *token, opd_math_scalar *out) {
    opd_rational value = opd_rational_of(0);
    const char *end = token->text + token->size, *c = token->text;
    int decimals = 0, power = 0;
    bool point = false;
    for (; c < end && *c != 'e' && *c != 'E'; c++) {
        if (*c == '.') point = true;
        if (*c < '0' || *c > '9') continue;
        if (!opd_natural_push_digit(&value.above, (uint32_t)(*c - '0'))) return false;
        decimals += point;
    }
    bool negative = c < end && c[1] == '-';
    for (; c < end; c++)
        if (*c >= '0' && *c <= '9' && power < 10 * EXPONENT_MAX) power = power * 10 + (*c - '0');
    if (!scale(&value, (negative ? -power : power) - decimals)) return false;
    *out = exact_of(&value);
    int whole;
    out->is_decimal = (point || power > 0) && fabs(creal(out->near)) < 1e15 &&
                      !opd_rational_integer(&value, 1 << 30, &whole) &&
                      fabs(creal(out->near)) != floor(fabs(creal(out->near)));
    return true;
}

opd_math_scalar opd_math_variable(uint64_t name, unsigned point) {
    uint64_t bits = name + UINT64_C(0x9e3779b97f4a7c15) * (point + 1); /* splitmix64's mix */
    bits = (bits ^ (bits >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    bits = (bits ^ (bits >> 27)) * UINT64_C(0x94d049bb133111eb);
    bits ^= bits >> 31;
    return opd_math_near(0.5 + 1.5 * ((double)(bits >> 11) * 0x1p-53));
}

/* ---- arithmetic ---- */

typedef bool (*exact_op)(const opd_rational *a, const opd_rational *b, opd_rational *out);

static opd_math_scalar combine(const opd_math_scalar *a, const opd_math_scalar *b, exact_op op,
                               double complex near) {
    opd_math_scalar out = {.near = near, .is_decimal = a->is_decimal || b->is_decimal};
    out.is_exact = a->is_exact && b->is_exact && op(&a->exact, &b->exact, &out.exact);
    if (out.is_exact) out.near = opd_rational_double(&out.exact);
    return out;
}

opd_math_scalar opd_math_add(const opd_math_scalar *a, const opd_math_scalar *b) {
    return combine(a, b, opd_rational_add, a->near + b->near);
}

opd_math_scalar opd_math_negate(const opd_math_scalar *a) {
    opd_math_scalar out = *a;
    out.near = -a->near;
    out.exact.negative = a->is_exact && !a->exact.negative && a->exact.above.size > 0;
    return out;
}

opd_math_scalar opd_math_multiply(const opd_math_scalar *a, const opd_math_scalar *b) {
    return combine(a, b, opd_rational_multiply, a->near * b->near);
}

opd_math_scalar opd_math_divide(const opd_math_scalar *a, const opd_math_scalar *b) {
    return combine(a, b, opd_rational_divide, a->near / b->near);
}

opd_math_scalar opd_math_power(const opd_math_scalar *base, const opd_math_scalar *exponent) {
    int whole;
    opd_math_scalar out = {.is_decimal = base->is_decimal || exponent->is_decimal};
    if (exponent->is_exact && opd_rational_integer(&exponent->exact, EXPONENT_MAX, &whole)) {
        out.is_exact = base->is_exact && opd_rational_power(&base->exact, whole, &out.exact);
        if (out.is_exact) {
            out.near = opd_rational_double(&out.exact);
            return out;
        }
    }
    out.near = cpow(base->near, exponent->near);
    return out;
}

opd_math_scalar opd_math_function(opd_latex_function function, const opd_math_scalar *a) {
    double complex z = a->near;
    switch (function) {
    case OPD_LATEX_SIN: z = csin(z); break;
    case OPD_LATEX_COS: z = ccos(z); break;
    case OPD_LATEX_TAN: z = ctan(z); break;
    case OPD_LATEX_COT: z = 1 / ctan(z); break;
    case OPD_LATEX_SEC: z = 1 / ccos(z); break;
    case OPD_LATEX_CSC: z = 1 / csin(z); break;
    case OPD_LATEX_ASIN: z = casin(z); break;
    case OPD_LATEX_ACOS: z = cacos(z); break;
    case OPD_LATEX_ATAN: z = catan(z); break;
    case OPD_LATEX_SINH: z = csinh(z); break;
    case OPD_LATEX_COSH: z = ccosh(z); break;
    case OPD_LATEX_TANH: z = ctanh(z); break;
    case OPD_LATEX_LN: z = clog(z); break;
    case OPD_LATEX_LOG: z = clog(z); break;
    case OPD_LATEX_EXP: z = cexp(z); break;
    }
    opd_math_scalar out = opd_math_near(z);
    out.is_decimal = a->is_decimal;
    return out;
}

/* ---- equality ---- */

static bool is_finite(double complex z) { return isfinite(creal(z)) && isfinite(cimag(z)); }

static bool equal_values(const opd_math_scalar *a, const opd_math_scalar *b) {
    bool decimal = a->is_decimal || b->is_decimal, known = false;
    if (a->is_exact && b->is_exact) {
        if (opd_rational_equal(&a->exact, &b->exact, &known)) return true;
        if (known && !decimal) return false;
    }
    if (!is_finite(a->near) || !is_finite(b->near)) return false;
    double apart = cabs(a->near - b->near), size = fmax(cabs(a->near), cabs(b->near));
    if (decimal) return apart <= fmin(5e-7, 2e-6 * size);
    return apart <= 1e-9 * size + 1e-12;
}

bool opd_math_scalar_equal(const opd_math_scalar *a, const opd_math_scalar *b) {
    if (equal_values(a, b)) return true;
    if (a->is_percent == b->is_percent) return false;
    opd_math_scalar hundred = opd_math_whole(100);
    opd_math_scalar left = a->is_percent ? opd_math_divide(a, &hundred) : *a;
    opd_math_scalar right = b->is_percent ? opd_math_divide(b, &hundred) : *b;
    return equal_values(&left, &right);
}
