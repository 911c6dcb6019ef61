/* math_scalar.c - see math_scalar.h. No state, any thread. */
#include "actors/reward/math_scalar.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { EXPONENT_MAX = 640 };

static opd_math_scalar exact_of(const opd_rational *value) {
    return (opd_math_scalar){.exact = *value, .near = opd_rational_double(value), .is_exact = true};
}

/* A rounded value whose operands had brought `error` along. */
static opd_math_scalar rounded(double complex near, double error) {
    return (opd_math_scalar){.near = near, .error = error + DBL_EPSILON * cabs(near)};
}

opd_math_scalar opd_math_near(double complex value) { return rounded(value, 0); }

opd_math_scalar opd_math_infinity(void) {
    return (opd_math_scalar){.near = INFINITY, .is_infinity = true};
}

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
    double value = 0.5 + 1.5 * ((double)(bits >> 11) * 0x1p-53);
    if (point == OPD_MATH_SIGNED) value = -value;
    if (point == OPD_MATH_SIGNED + 1) value += 6;
    return opd_math_near(value);
}

/* ---- arithmetic ---- */

typedef bool (*exact_op)(const opd_rational *a, const opd_rational *b, opd_rational *out);

static opd_math_scalar combine(const opd_math_scalar *a, const opd_math_scalar *b, exact_op op,
                               double complex near, double error) {
    opd_math_scalar out = rounded(near, error);
    out.is_decimal = a->is_decimal || b->is_decimal;
    out.is_exact = a->is_exact && b->is_exact && op(&a->exact, &b->exact, &out.exact);
    if (out.is_exact) out.near = opd_rational_double(&out.exact);
    return out;
}

opd_math_scalar opd_math_add(const opd_math_scalar *a, const opd_math_scalar *b) {
    return combine(a, b, opd_rational_add, a->near + b->near, a->error + b->error);
}

opd_math_scalar opd_math_negate(const opd_math_scalar *a) {
    opd_math_scalar out = *a;
    out.near = -a->near;
    out.exact.negative = a->is_exact && !a->exact.negative && a->exact.above.size > 0;
    return out;
}

opd_math_scalar opd_math_multiply(const opd_math_scalar *a, const opd_math_scalar *b) {
    double error = cabs(a->near) * b->error + cabs(b->near) * a->error;
    return combine(a, b, opd_rational_multiply, a->near * b->near, error);
}

opd_math_scalar opd_math_divide(const opd_math_scalar *a, const opd_math_scalar *b) {
    double complex near = a->near / b->near;
    return combine(a, b, opd_rational_divide, near,
                   (a->error + cabs(near) * b->error) / cabs(b->near));
}

opd_math_scalar opd_math_power(const opd_math_scalar *base, const opd_math_scalar *exponent) {
    int whole;
    double complex near = cpow(base->near, exponent->near);
    double size = cabs(base->near);
    double error = size == 0 ? 0 : cabs(near) * (cabs(exponent->near) * base->error / size +
                                                 fabs(log(size)) * exponent->error);
    opd_math_scalar out = rounded(near, error);
    out.is_decimal = base->is_decimal || exponent->is_decimal;
    if (exponent->is_exact && opd_rational_integer(&exponent->exact, EXPONENT_MAX, &whole)) {
        out.is_exact = base->is_exact && opd_rational_power(&base->exact, whole, &out.exact);
        if (out.is_exact) out.near = opd_rational_double(&out.exact);
    }
    return out;
}

static double complex function_at(opd_latex_function function, double complex z) {
    switch (function) {
    case OPD_LATEX_SIN: return csin(z);
    case OPD_LATEX_COS: return ccos(z);
    case OPD_LATEX_TAN: return ctan(z);
    case OPD_LATEX_COT: return 1 / ctan(z);
    case OPD_LATEX_SEC: return 1 / ccos(z);
    case OPD_LATEX_CSC: return 1 / csin(z);
    case OPD_LATEX_ASIN: return casin(z);
    case OPD_LATEX_ACOS: return cacos(z);
    case OPD_LATEX_ATAN: return catan(z);
    case OPD_LATEX_SINH: return csinh(z);
    case OPD_LATEX_COSH: return ccosh(z);
    case OPD_LATEX_TANH: return ctanh(z);
    case OPD_LATEX_LN: return clog(z);
    case OPD_LATEX_LOG: return clog(z);
    case OPD_LATEX_EXP: return cexp(z);
    }
    return z;
}

opd_math_scalar opd_math_function(opd_latex_function function, const opd_math_scalar *a) {
    double complex near = function_at(function, a->near);
    opd_math_scalar out = rounded(near, cabs(function_at(function, a->near + a->error) - near));
    out.is_decimal = a->is_decimal;
    return out;
}

/* ---- equality ---- */

static bool is_finite(double complex z) { return isfinite(creal(z)) && isfinite(cimag(z)); }

static bool equal_values(const opd_math_scalar *a, const opd_math_scalar *b) {
    bool decimal = a->is_decimal || b->is_decimal, known = false;
    if (a->is_infinity && b->is_infinity) return creal(a->near) == creal(b->near);
    if (a->is_exact && b->is_exact) {
        if (opd_rational_equal(&a->exact, &b->exact, &known)) return true;
        if (known && !decimal) return false;
    }
    if (!is_finite(a->near) || !is_finite(b->near)) return false;
    double apart = cabs(a->near - b->near), size = fmax(cabs(a->near), cabs(b->near));
    if (decimal) return apart <= fmin(5e-7, 2e-6 * size);
    double error = 16 * (a->error + b->error);
    return apart <= 1e-9 * size + (isfinite(error) ? error : 0);
}

bool opd_math_scalar_equal(const opd_math_scalar *a, const opd_math_scalar *b) {
    if (equal_values(a, b)) return true;
    if (a->is_percent == b->is_percent) return false;
    opd_math_scalar hundred = opd_math_whole(100);
    opd_math_scalar left = a->is_percent ? opd_math_divide(a, &hundred) : *a;
    opd_math_scalar right = b->is_percent ? opd_math_divide(b, &hundred) : *b;
    return equal_values(&left, &right);
}
