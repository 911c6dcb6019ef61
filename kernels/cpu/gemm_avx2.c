/* kernels/cpu/gemm_avx2.c - the matrix product with AVX2 and FMA: tiles of 6 x 16 outputs in 12 of
 * its 16 registers. The text is gemm_isa.h's, so the bits are those of AVX-512. */
#include <immintrin.h>

#define ISA(name) opd__avx2_##name
#define INLINE static inline __attribute__((always_inline))
#define TILE_VECTORS 2

enum { WIDTH = 8 };
typedef __m256 vec;
typedef __m256i mask;

INLINE vec zero(void) { return _mm256_setzero_ps(); }
INLINE vec all(float x) { return _mm256_set1_ps(x); }
INLINE vec load(const float *from) { return _mm256_loadu_ps(from); }
INLINE vec load_part(const float *from, mask m) { return _mm256_maskload_ps(from, m); }
INLINE void store(float *to, vec x) { _mm256_storeu_ps(to, x); }
INLINE void store_part(float *to, mask m, vec x) { _mm256_maskstore_ps(to, m, x); }
INLINE vec fused(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
INLINE mask mask_of(size_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

#include "kernels/cpu/gemm_isa.h"
