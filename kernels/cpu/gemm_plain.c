/* kernels/cpu/gemm_plain.c - the matrix product in portable C.
 *
 * Tiles of 4 x 8 outputs that any compiler keeps in registers; an output is one chain of
 * multiply, round, add in ascending k (contraction is off for this file), so a tile and the
 * single-element path at the edges give the same bits.
 *
 * Thread: any.
 */
#include "kernels/cpu/gemm.h"

enum { TILE_ROWS = 4, TILE_COLUMNS = 8, K_BLOCK = 512 };

typedef struct operand {
    const float *at;
    size_t row, col; /* strides */
} operand;

static void tile(size_t k, operand a, const float *b, size_t ldb, float *c, size_t ldc, bool add) {
    float sum[TILE_ROWS][TILE_COLUMNS];
    for (size_t i = 0; i < TILE_ROWS; i++)
        for (size_t j = 0; j < TILE_COLUMNS; j++) sum[i][j] = add ? c[i * ldc + j] : 0.0f;
    for (size_t p = 0; p < k; p++)
        for (size_t i = 0; i < TILE_ROWS; i++) {
            float left = a.at[i * a.row + p * a.col];
            for (size_t j = 0; j < TILE_COLUMNS; j++) sum[i][j] += left * b[p * ldb + j];
        }
    for (size_t i = 0; i < TILE_ROWS; i++)
        for (size_t j = 0; j < TILE_COLUMNS; j++) c[i * ldc + j] = sum[i][j];
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
