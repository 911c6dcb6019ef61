/* kernels/cpu/lanes_isa.h - sixteen floats at a time, in the vector language of gcc and clang.
 *
 * Included by the *_isa.h texts, so compiled once per instruction set. Sums over a row go
 * into sixteen lanes (element i into lane i mod 16) that are folded in one fixed order: the
 * same numbers in the same order on any processor. Contraction is off in these files.
 */
#ifndef OPD_KERNELS_CPU_LANES_ISA_H
#define OPD_KERNELS_CPU_LANES_ISA_H

#include <math.h>
#include <stdint.h>
#include <string.h>

enum { LANES = 16 };
typedef float lanes __attribute__((vector_size(64)));

#define LANES_INLINE static inline __attribute__((always_inline, unused))

LANES_INLINE lanes lanes_all(float x) {
    return (lanes){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
}

LANES_INLINE lanes lanes_load(const float *from) {
    lanes x;
    memcpy(&x, from, sizeof x);
    return x;
}

LANES_INLINE void lanes_store(float *to, lanes x) { memcpy(to, &x, sizeof x); }

/* The first n (< 16) elements; the rest is `fill`. */
LANES_INLINE lanes lanes_load_part(const float *from, size_t n, float fill) {
    lanes x = lanes_all(fill);
    for (size_t i = 0; i < n; i++) x[i] = from[i];
    return x;
}

LANES_INLINE void lanes_store_part(float *to, lanes x, size_t n) {
    for (size_t i = 0; i < n; i++) to[i] = x[i];
}

/* Comparisons and bit patterns go by the registers the set has, register by register: compilers take
 * wider ones apart into single numbers. */
#if defined(__AVX512F__)
enum { REG_BYTES = 64 };
#elif defined(__AVX2__)
enum { REG_BYTES = 32 };
#else
enum { REG_BYTES = 16 };
#endif
enum { REGS = 64 / REG_BYTES };
typedef float reg __attribute__((vector_size(REG_BYTES)));
typedef int32_t reg_int __attribute__((vector_size(REG_BYTES)));
typedef union lanes_regs {
    lanes whole;
    reg regs[REGS];
} lanes_regs;

LANES_INLINE reg reg_all(float x) { return x - (reg){0}; }

LANES_INLINE reg reg_select(reg_int mask, reg yes, reg no) {
    return (reg)((mask & (reg_int)yes) | (~mask & (reg_int)no));
}

/* yes where x > 0, elsewhere no */
LANES_INLINE lanes lanes_where_positive(lanes x, lanes yes, lanes no) {
    lanes_regs a = {x}, b = {yes}, c = {no};
    for (int i = 0; i < REGS; i++)
        c.regs[i] = reg_select(a.regs[i] > reg_all(0.0f), b.regs[i], c.regs[i]);
    return c.whole;
}

/* a where a > b, else b */
LANES_INLINE lanes lanes_max(lanes a, lanes b) {
    lanes_regs x = {a}, y = {b};
    for (int i = 0; i < REGS; i++)
        y.regs[i] = reg_select(x.regs[i] > y.regs[i], x.regs[i], y.regs[i]);
    return y.whole;
}

LANES_INLINE float lanes_fold_sum(lanes x) {
    float part[LANES];
    lanes_store(part, x);
    for (size_t width = LANES / 2; width > 0; width /= 2)
        for (size_t i = 0; i < width; i++) part[i] += part[i + width];
    return part[0];
}

LANES_INLINE float lanes_fold_max(lanes x) {
    float part[LANES];
    lanes_store(part, x);
    for (size_t width = LANES / 2; width > 0; width /= 2)
        for (size_t i = 0; i < width; i++)
            part[i] = part[i] > part[i + width] ? part[i] : part[i + width];
    return part[0];
}

/* e^x to about 1 ulp for x in [-87, 88]; 0 below (and for -infinity), clamped above.
 * x = n ln2 + r with |r| <= ln2/2; e^r by the Taylor polynomial of degree 7 (error below
 * 1e-8 relative); 2^n through the exponent bits. */
LANES_INLINE reg reg_exp(reg x) {
    const reg rounder = reg_all(12582912.0f); /* 1.5 * 2^23: adding it rounds to integer */
    reg_int tiny = x < reg_all(-87.0f);
    reg y = reg_select(tiny, reg_all(0.0f), x);
    y = reg_select(y > reg_all(88.0f), reg_all(88.0f), y);
    reg shifted = y * reg_all(1.44269504088896341f) + rounder;
    reg n = shifted - rounder;
    reg r = y - n * reg_all(0.693359375f);
    r = r - n * reg_all(-2.12194440e-4f);
    reg e = reg_all(1.0f / 5040.0f);
    e = e * r + reg_all(1.0f / 720.0f);
    e = e * r + reg_all(1.0f / 120.0f);
    e = e * r + reg_all(1.0f / 24.0f);
    e = e * r + reg_all(1.0f / 6.0f);
    e = e * r + reg_all(0.5f);
    e = e * r * r + r + reg_all(1.0f);
    reg_int exponent = ((reg_int)shifted - (reg_int)rounder + 127) << 23;
    return reg_select(tiny, reg_all(0.0f), e * (reg)exponent);
}

LANES_INLINE lanes lanes_exp(lanes x) {
    lanes_regs y = {x};
    for (int i = 0; i < REGS; i++) y.regs[i] = reg_exp(y.regs[i]);
    return y.whole;
}

#endif
