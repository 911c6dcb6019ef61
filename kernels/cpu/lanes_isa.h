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
typedef int32_t lanes_int __attribute__((vector_size(64)));

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

LANES_INLINE lanes lanes_select(lanes_int mask, lanes yes, lanes no) {
    return (lanes)((mask & (lanes_int)yes) | (~mask & (lanes_int)no));
}

LANES_INLINE lanes lanes_max(lanes a, lanes b) { return lanes_select(a > b, a, b); }

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
LANES_INLINE lanes lanes_exp(lanes x) {
    const lanes rounder = lanes_all(12582912.0f); /* 1.5 * 2^23: adding it rounds to integer */
    lanes_int tiny = x < lanes_all(-87.0f);
    lanes y = lanes_select(tiny, lanes_all(0.0f), x);
    y = lanes_select(y > lanes_all(88.0f), lanes_all(88.0f), y);
    lanes shifted = y * lanes_all(1.44269504088896341f) + rounder;
    lanes n = shifted - rounder;
    lanes r = y - n * lanes_all(0.693359375f);
    r = r - n * lanes_all(-2.12194440e-4f);
    lanes e = lanes_all(1.0f / 5040.0f);
    e = e * r + lanes_all(1.0f / 720.0f);
    e = e * r + lanes_all(1.0f / 120.0f);
    e = e * r + lanes_all(1.0f / 24.0f);
    e = e * r + lanes_all(1.0f / 6.0f);
    e = e * r + lanes_all(0.5f);
    e = e * r * r + r + lanes_all(1.0f);
    lanes_int exponent = ((lanes_int)shifted - (lanes_int)rounder + 127) << 23;
    return lanes_select(tiny, lanes_all(0.0f), e * (lanes)exponent);
}

#endif
