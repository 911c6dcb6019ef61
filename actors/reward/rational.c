/* rational.c - see rational.h: schoolbook arithmetic on 32-bit words. No state, any thread. */
#include "actors/reward/rational.h"

#include <math.h>
#include <string.h>

/* ---- naturals ---- */

static opd_natural natural_of(uint64_t value) {
    opd_natural n = {.words = {(uint32_t)value, (uint32_t)(value >> 32)}};
    n.size = n.words[1] != 0 ? 2 : n.words[0] != 0;
    return n;
}

static int compare(const opd_natural *a, const opd_natural *b) {
    if (a->size != b->size) return a->size < b->size ? -1 : 1;
    for (uint32_t i = a->size; i > 0; i--)
        if (a->words[i - 1] != b->words[i - 1]) return a->words[i - 1] < b->words[i - 1] ? -1 : 1;
    return 0;
}

static bool multiply(const opd_natural *a, const opd_natural *b, opd_natural *out) {
    uint32_t wide[2 * OPD_NATURAL_WORDS] = {0};
    for (uint32_t i = 0; i < a->size; i++) {
        uint64_t carry = 0;
        for (uint32_t j = 0; j < b->size; j++) {
            carry += (uint64_t)a->words[i] * b->words[j] + wide[i + j];
            wide[i + j] = (uint32_t)carry;
            carry >>= 32;
        }
        wide[i + b->size] = (uint32_t)carry;
    }
    uint32_t size = a->size + b->size;
    while (size > 0 && wide[size - 1] == 0) size--;
    if (size > OPD_NATURAL_WORDS) return false;
    memcpy(out->words, wide, sizeof out->words);
    out->size = size;
    return true;
}

static bool add(const opd_natural *a, const opd_natural *b, opd_natural *out) {
    uint32_t size = a->size > b->size ? a->size : b->size;
    uint64_t carry = 0;
    opd_natural sum = {.size = size};
    for (uint32_t i = 0; i < size; i++) {
        carry += (uint64_t)(i < a->size ? a->words[i] : 0) + (i < b->size ? b->words[i] : 0);
        sum.words[i] = (uint32_t)carry;
        carry >>= 32;
    }
    if (carry != 0 && size == OPD_NATURAL_WORDS) return false;
    if (carry != 0) sum.words[sum.size++] = (uint32_t)carry;
    *out = sum;
    return true;
}

/* a - b, where a >= b. */
static opd_natural subtract(const opd_natural *a, const opd_natural *b) {
    opd_natural rest = {.size = a->size};
    uint64_t borrow = 0;
    for (uint32_t i = 0; i < a->size; i++) {
        uint64_t take = (uint64_t)(i < b->size ? b->words[i] : 0) + borrow;
        borrow = a->words[i] < take;
        rest.words[i] = (uint32_t)(a->words[i] - take);
    }
    while (rest.size > 0 && rest.words[rest.size - 1] == 0) rest.size--;
    return rest;
}

bool opd_natural_push_digit(opd_natural *value, uint32_t digit) {
    opd_natural ten = natural_of(10), last = natural_of(digit), grown;
    if (!multiply(value, &ten, &grown) || !add(&grown, &last, &grown)) return false;
    *value = grown;
    return true;
}

static double natural_double(const opd_natural *value) {
    double sum = 0;
    for (uint32_t i = value->size; i > 0; i--) sum = sum * 4294967296.0 + value->words[i - 1];
    return sum;
}

/* ---- rationals ---- */

opd_rational opd_rational_of(int64_t value) {
    uint64_t size = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    return (opd_rational){natural_of(size), natural_of(1), value < 0};
}

bool opd_rational_add(const opd_rational *a, const opd_rational *b, opd_rational *out) {
    opd_natural left, right, below;
    if (!multiply(&a->above, &b->below, &left) || !multiply(&b->above, &a->below, &right) ||
        !multiply(&a->below, &b->below, &below))
        return false;
    bool negative = a->negative;
    if (a->negative == b->negative) {
        if (!add(&left, &right, &left)) return false;
    } else if (compare(&left, &right) >= 0) {
        left = subtract(&left, &right);
    } else {
        left = subtract(&right, &left);
        negative = b->negative;
    }
    *out = (opd_rational){left, below, negative && left.size > 0};
    return true;
}

bool opd_rational_multiply(const opd_rational *a, const opd_rational *b, opd_rational *out) {
    opd_natural above, below;
    if (!multiply(&a->above, &b->above, &above) || !multiply(&a->below, &b->below, &below))
        return false;
    *out = (opd_rational){above, below, a->negative != b->negative && above.size > 0};
    return true;
}

bool opd_rational_divide(const opd_rational *a, const opd_rational *b, opd_rational *out) {
    if (b->above.size == 0) return false;
    opd_rational turned = {b->below, b->above, b->negative};
    return opd_rational_multiply(a, &turned, out);
}

bool opd_rational_power(const opd_rational *base, int exponent, opd_rational *out) {
    opd_rational square = *base, product = opd_rational_of(1);
    unsigned left = exponent < 0 ? 0U - (unsigned)exponent : (unsigned)exponent;
    for (; left > 0; left >>= 1) {
        if ((left & 1) && !opd_rational_multiply(&product, &square, &product)) return false;
        if (left > 1 && !opd_rational_multiply(&square, &square, &square)) return false;
    }
    if (exponent >= 0) *out = product;
    opd_rational one = opd_rational_of(1);
    return exponent >= 0 || opd_rational_divide(&one, &product, out);
}

bool opd_rational_equal(const opd_rational *a, const opd_rational *b, bool *out_known) {
    opd_natural left, right;
    *out_known = multiply(&a->above, &b->below, &left) && multiply(&b->above, &a->below, &right);
    return *out_known && compare(&left, &right) == 0 && a->negative == b->negative;
}

double opd_rational_double(const opd_rational *value) {
    double size = natural_double(&value->above) / natural_double(&value->below);
    return value->negative ? -size : size;
}

bool opd_rational_integer(const opd_rational *value, int limit, int *out) {
    double number = opd_rational_double(value);
    if (!(fabs(number) <= limit)) return false;
    bool known;
    opd_rational whole = opd_rational_of((int64_t)number);
    *out = (int)number;
    return opd_rational_equal(value, &whole, &known);
}
