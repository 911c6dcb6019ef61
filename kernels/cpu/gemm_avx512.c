/* kernels/cpu/gemm_avx512.c - the matrix product with AVX-512: tiles of 6 x 64 outputs in 24 of
 * its 32 registers. The text is gemm_isa.h's. */
#include <immintrin.h>

#define ISA(name) opd__avx512_##name
#define INLINE static inline __attribute__((always_inline))
#define TILE_VECTORS 4

enum { WIDTH = 16 };
typedef __m512 vec;
typedef __mmask16 mask;

INLINE vec zero(void) { return _mm512_setzero_ps(); }
INLINE vec all(float x) { return _mm512_set1_ps(x); }
INLINE vec load(const float *from) { return _mm512_loadu_ps(from); }
INLINE vec load_part(const float *from, mask m) { return _mm512_maskz_loadu_ps(m, from); }
INLINE void store(float *to, vec x) { _mm512_storeu_ps(to, x); }
INLINE void store_part(float *to, mask m, vec x) { _mm512_mask_storeu_ps(to, m, x); }
INLINE vec fused(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
INLINE mask mask_of(size_t n) { return (mask)(0xffffu >> (WIDTH - n)); }

#include "kernels/cpu/gemm_isa.h"
