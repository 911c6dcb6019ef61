/* kernels/cpu/gemm_plain.c - the matrix product in portable C (with gcc's and clang's vectors).
 *
 * Tiles of 4 x 8 outputs, two vectors of four a row, which any processor keeps in registers; an output is one chain of
 * multiply, round, add in ascending k (contraction is off for this file), so a tile and the
 * single-element path at the edges give the same bits.
 *
 * Thread: any.
 */
#include "kernels/cpu/gemm.h"

#include <string.h>

enum { TILE_ROWS = 4, TILE_COLUMNS = 8, K_BLOCK = 512 };

typedef float four __attribute__((vector_size(16)));

typedef struct operand {
    const float *at;
    size_t row, col; /* strides */
} operand;

static four load(const float *from) {
    four x;
    memcpy(&x, from, sizeof x);
    return x;
}

static void store(float *to, four x) { memcpy(to, &x, sizeof x); }

static void tile(size_t k, operand a, const float *b, size_t ldb, float *c, size_t ldc, bool add) {
    const four zero = {0};
    four s0 = add ? load(c) : zero, t0 = add ? load(c + 4) : zero;
    four s1 = add ? load(c + ldc) : zero, t1 = add ? load(c + ldc + 4) : zero;
    four s2 = add ? load(c + 2 * ldc) : zero, t2 = add ? load(c + 2 * ldc + 4) : zero;
    four s3 = add ? load(c + 3 * ldc) : zero, t3 = add ? load(c + 3 * ldc + 4) : zero;
    for (size_t p = 0; p < k; p++, b += ldb) {
        const float *left = a.at + p * a.col;
        four low = load(b), high = load(b + 4);
        s0 += left[0] * low;
        t0 += left[0] * high;
        s1 += left[a.row] * low;
        t1 += left[a.row] * high;
        s2 += left[2 * a.row] * low;
        t2 += left[2 * a.row] * high;
        s3 += left[3 * a.row] * low;
        t3 += left[3 * a.row] * high;
    }
    store(c, s0);
    store(c + 4, t0);
    store(c + ldc, s1);
    store(c + ldc + 4, t1);
    store(c + 2 * ldc, s2);
    store(c + 2 * ldc + 4, t2);
    store(c + 3 * ldc, s3);
    store(c + 3 * ldc + 4, t3);
}

/* A row of up to TILE_COLUMNS outputs. */
static void edge(size_t n, size_t k, operand a, const float *b, size_t ldb, float *c, bool add) {
    float sum[TILE_COLUMNS] = {0};
    for (size_t j = 0; j < n; j++) sum[j] = add ? c[j] : 0.0f;
    for (size_t p = 0; p < k; p++) {
        float left = a.at[p * a.col];
        for (size_t j = 0; j < n; j++) sum[j] += left * b[p * ldb + j];
    }
    for (size_t j = 0; j < n; j++) c[j] = sum[j];
}

static void column(size_t m, size_t n, size_t k, operand a, const float *b, size_t ldb, float *c,
                   size_t ldc, bool add) {
    size_t i = 0;
    for (; n == TILE_COLUMNS && i + TILE_ROWS <= m; i += TILE_ROWS)
        tile(k, (operand){a.at + i * a.row, a.row, a.col}, b, ldb, c + i * ldc, ldc, add);
    for (; i < m; i++)
        edge(n, k, (operand){a.at + i * a.row, a.row, a.col}, b, ldb, c + i * ldc, add);
}

void opd__plain_gemm(size_t m, size_t n, size_t k, const float *a, size_t a_row, size_t a_col,
                     const float *b, size_t ldb, float *c, size_t ldc, bool add) {
    for (size_t p = 0; p < k || p == 0; p += K_BLOCK) {
        size_t depth = k - p < K_BLOCK ? k - p : K_BLOCK;
        operand left = {a + p * a_col, a_row, a_col};
        for (size_t j = 0; j < n; j += TILE_COLUMNS)
            column(m, n - j < TILE_COLUMNS ? n - j : TILE_COLUMNS, depth, left, b + p * ldb + j,
                   ldb, c + j, ldc, add || p > 0);
    }
}
