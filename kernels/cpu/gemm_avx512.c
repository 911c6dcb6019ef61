/* kernels/cpu/gemm_avx512.c - the matrix product with AVX-512.
 *
 * A tile of up to 6 x 64 outputs lives in 24 registers while k runs over its whole range; each
 * step loads 4 vectors of b, broadcasts 6 numbers of a and makes 24 fused multiply-adds. An
 * output is one chain of fused additions in ascending k whatever the tile's size, so the way
 * a matrix is cut into tiles cannot change a bit. Long sums are cut into blocks for the cache;
 * the chain then continues from the stored float, which is the same float.
 *
 * Thread: any. Compiled with AVX-512 flags; called only after the processor was asked.
 */
#include <immintrin.h>

#include "kernels/cpu/gemm.h"

enum { TILE_ROWS = 6, TILE_VECTORS = 4, LANES = 16, K_BLOCK = 512 };

#define INLINE static inline __attribute__((always_inline))

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif

/* The tile proper; rows, vectors, by_column are compile-time constants at every call. When
 * by_column, element (i,j) of a is a[j*stride + i], else a[i*stride + j]. */
INLINE void tile(int rows, int vectors, bool by_column, size_t k, const float *a, size_t stride,
                 const float *b, size_t ldb, float *c, size_t ldc, __mmask16 last, bool add) {
    __m512 sum[TILE_ROWS][TILE_VECTORS];
    UNROLL
    for (int i = 0; i < rows; i++) {
        UNROLL
        for (int j = 0; j < vectors; j++) {
            __mmask16 mask = j == vectors - 1 ? last : (__mmask16)0xffff;
            sum[i][j] = add ? _mm512_maskz_loadu_ps(mask, c + (size_t)i * ldc + (size_t)j * LANES)
                            : _mm512_setzero_ps();
        }
    }
    for (size_t p = 0; p < k; p++) {
        __m512 right[TILE_VECTORS];
        UNROLL
        for (int j = 0; j < vectors; j++) {
            const float *at = b + p * ldb + (size_t)j * LANES;
            right[j] = j == vectors - 1 ? _mm512_maskz_loadu_ps(last, at) : _mm512_loadu_ps(at);
        }
        UNROLL
        for (int i = 0; i < rows; i++) {
            __m512 left = _mm512_set1_ps(by_column ? a[p * stride + (size_t)i]
                                                   : a[(size_t)i * stride + p]);
            UNROLL
            for (int j = 0; j < vectors; j++)
                sum[i][j] = _mm512_fmadd_ps(left, right[j], sum[i][j]);
        }
    }
    UNROLL
    for (int i = 0; i < rows; i++) {
        UNROLL
        for (int j = 0; j < vectors; j++) {
            __mmask16 mask = j == vectors - 1 ? last : (__mmask16)0xffff;
            _mm512_mask_storeu_ps(c + (size_t)i * ldc + (size_t)j * LANES, mask, sum[i][j]);
        }
    }
}

typedef void (*tile_fn)(size_t k, const float *a, size_t stride, const float *b, size_t ldb,
                        float *c, size_t ldc, __mmask16 last, bool add);

#define TILE(rows, vectors, by_column)                                                         \
    static void tile_##rows##_##vectors##_##by_column(                                         \
        size_t k, const float *a, size_t stride, const float *b, size_t ldb, float *c,         \
        size_t ldc, __mmask16 last, bool add) {                                                \
        tile(rows, vectors, by_column, k, a, stride, b, ldb, c, ldc, last, add);               \
    }
#define TILES(rows) \
    TILE(rows, 1, 0) TILE(rows, 2, 0) TILE(rows, 3, 0) TILE(rows, 4, 0) \
    TILE(rows, 1, 1) TILE(rows, 2, 1) TILE(rows, 3, 1) TILE(rows, 4, 1)
TILES(1)
TILES(2)
TILES(3)
TILES(4)
TILES(5)
TILES(6)

#define ENTRY(rows, col) \
    { tile_##rows##_1_##col, tile_##rows##_2_##col, tile_##rows##_3_##col, tile_##rows##_4_##col }
#define ENTRIES(col) \
    { ENTRY(1, col), ENTRY(2, col), ENTRY(3, col), ENTRY(4, col), ENTRY(5, col), ENTRY(6, col) }

/* [by_column][rows - 1][vectors - 1] */
static const tile_fn tiles[2][TILE_ROWS][TILE_VECTORS] = {ENTRIES(0), ENTRIES(1)};

/* All rows of one column panel, n <= 64, k in one block. */
static void panel(size_t m, size_t n, size_t k, const float *a, size_t stride, bool by_column,
                  const float *b, size_t ldb, float *c, size_t ldc, bool add) {
    size_t vectors = (n + LANES - 1) / LANES;
    __mmask16 last = (__mmask16)(0xffffu >> (vectors * LANES - n));
    for (size_t i = 0; i < m; i += TILE_ROWS) {
        size_t rows = m - i < TILE_ROWS ? m - i : TILE_ROWS;
        tiles[by_column][rows - 1][vectors - 1](k, a + (by_column ? i : i * stride), stride, b,
                                                ldb, c + i * ldc, ldc, last, add);
    }
}

void opd__avx512_gemm(size_t m, size_t n, size_t k, const float *a, size_t a_row, size_t a_col,
                      const float *b, size_t ldb, float *c, size_t ldc, bool add) {
    bool by_column = a_col != 1;
    size_t stride = by_column ? a_col : a_row;
    for (size_t p = 0; p < k || p == 0; p += K_BLOCK) {
        size_t depth = k - p < K_BLOCK ? k - p : K_BLOCK;
        const float *left = a + (by_column ? p * stride : p);
        for (size_t j = 0; j < n; j += OPD__PANEL)
            panel(m, n - j < OPD__PANEL ? n - j : OPD__PANEL, depth, left, stride, by_column,
                  b + p * ldb + j, ldb, c + j, ldc, add || p > 0);
    }
}
