/* kernels/cpu/gemm_isa.h - the matrix product with fused multiply-adds, compiled once per
 * instruction set.
 *
 * Included by gemm_avx2.c and gemm_avx512.c after they name their vectors:
 *   vec, mask                 a vector of WIDTH floats, which of its floats count
 *   WIDTH, TILE_VECTORS       floats of a vector; vectors of a tile's row
 *   zero(), all(x)            every float 0, or x
 *   load(p), store(p, x)      a whole vector
 *   load_part(p, m), store_part(p, m, x)   the floats that count; others read as 0, stay as they are
 *   fused(a, b, c)            a * b + c, rounded once
 *   mask_of(n)                the first n floats count, 1 <= n <= WIDTH
 *
 * A tile of up to 6 rows of TILE_VECTORS vectors of outputs lives in registers while k runs over
 * its whole range; each step loads a row of b, broadcasts 6 numbers of a and makes the fused
 * additions. An output is one chain of fused additions in ascending k whatever the tile's size or
 * the vector's width, so neither the way a matrix is cut into tiles nor the instruction set can
 * change a bit. Long sums are cut into blocks for the cache; the chain then continues from the
 * stored float, which is the same float.
 *
 * Thread: any. Compiled with the set's flags; called only after the processor was asked.
 */
#include "kernels/cpu/gemm.h"

enum { TILE_ROWS = 6, TILE_COLUMNS = TILE_VECTORS * WIDTH, K_BLOCK = 512 };

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif

/* What a tile reads and writes. When by_column, element (i,j) of a is a[j*stride + i], else
 * a[i*stride + j]. */
typedef struct tile_args {
    size_t k;
    const float *a;
    size_t stride;
    const float *b;
    size_t ldb;
    float *c;
    size_t ldc;
    mask last; /* of a row's last vector, when the tile is not whole */
    bool add;
} tile_args;

/* The tile proper; rows, vectors, by_column and whole are compile-time constants at every call. */
INLINE void tile(int rows, int vectors, bool by_column, bool whole, const tile_args *t) {
    vec sum[TILE_ROWS][TILE_VECTORS];
    UNROLL
    for (int i = 0; i < rows; i++) {
        UNROLL
        for (int j = 0; j < vectors; j++) {
            const float *at = t->c + (size_t)i * t->ldc + (size_t)j * WIDTH;
            if (!t->add) sum[i][j] = zero();
            else sum[i][j] = whole || j < vectors - 1 ? load(at) : load_part(at, t->last);
        }
    }
    const float *a = t->a, *b = t->b;
    const size_t k = t->k, stride = t->stride, ldb = t->ldb;
    for (size_t p = 0; p < k; p++) {
        vec right[TILE_VECTORS];
        UNROLL
        for (int j = 0; j < vectors; j++) {
            const float *at = b + p * ldb + (size_t)j * WIDTH;
            right[j] = whole || j < vectors - 1 ? load(at) : load_part(at, t->last);
        }
        UNROLL
        for (int i = 0; i < rows; i++) {
            vec left = all(by_column ? a[p * stride + (size_t)i] : a[(size_t)i * stride + p]);
            UNROLL
            for (int j = 0; j < vectors; j++) sum[i][j] = fused(left, right[j], sum[i][j]);
        }
    }
    UNROLL
    for (int i = 0; i < rows; i++) {
        UNROLL
        for (int j = 0; j < vectors; j++) {
            float *at = t->c + (size_t)i * t->ldc + (size_t)j * WIDTH;
            if (whole || j < vectors - 1) store(at, sum[i][j]);
            else store_part(at, t->last, sum[i][j]);
        }
    }
}

typedef void (*tile_fn)(const tile_args *t);

#define TILE(rows, vectors, col)                                                              \
    static void tile_##rows##_##vectors##_##col(const tile_args *t) {                         \
        tile(rows, vectors, col, false, t);                                                   \
    }                                                                                         \
    static void whole_##rows##_##vectors##_##col(const tile_args *t) {                        \
        tile(rows, vectors, col, true, t);                                                    \
    }
#if TILE_VECTORS == 4
#define TILES_OF(rows, col) TILE(rows, 1, col) TILE(rows, 2, col) TILE(rows, 3, col) TILE(rows, 4, col)
#define ENTRY(kind, rows, col) \
    {kind##_##rows##_1_##col, kind##_##rows##_2_##col, kind##_##rows##_3_##col, kind##_##rows##_4_##col}
#elif TILE_VECTORS == 2
#define TILES_OF(rows, col) TILE(rows, 1, col) TILE(rows, 2, col)
#define ENTRY(kind, rows, col) {kind##_##rows##_1_##col, kind##_##rows##_2_##col}
#endif
#define TILES(rows) TILES_OF(rows, 0) TILES_OF(rows, 1)
TILES(1)
TILES(2)
TILES(3)
TILES(4)
TILES(5)
TILES(6)

#define ENTRIES(kind, col)                                                                    \
    { ENTRY(kind, 1, col), ENTRY(kind, 2, col), ENTRY(kind, 3, col), ENTRY(kind, 4, col),     \
      ENTRY(kind, 5, col), ENTRY(kind, 6, col) }

/* [whole][by_column][rows - 1][vectors - 1] */
static const tile_fn tiles[2][2][TILE_ROWS][TILE_VECTORS] = {
    {ENTRIES(tile, 0), ENTRIES(tile, 1)}, {ENTRIES(whole, 0), ENTRIES(whole, 1)}};

/* All rows of one column panel, n <= TILE_COLUMNS, k in one block. */
static void panel(size_t m, size_t n, bool by_column, tile_args t) {
    size_t vectors = (n + WIDTH - 1) / WIDTH, step = by_column ? 1 : t.stride;
    bool whole = n == vectors * WIDTH;
    t.last = mask_of(n - (vectors - 1) * WIDTH);
    for (size_t i = 0; i < m; i += TILE_ROWS) {
        size_t rows = m - i < TILE_ROWS ? m - i : TILE_ROWS;
        tiles[whole][by_column][rows - 1][vectors - 1](&t);
        t.a += TILE_ROWS * step;
        t.c += TILE_ROWS * t.ldc;
    }
}

void ISA(gemm)(size_t m, size_t n, size_t k, const float *a, size_t a_row, size_t a_col,
               const float *b, size_t ldb, float *c, size_t ldc, bool add) {
    bool by_column = a_col != 1;
    size_t stride = by_column ? a_col : a_row;
    for (size_t p = 0; p < k || p == 0; p += K_BLOCK) {
        size_t depth = k - p < K_BLOCK ? k - p : K_BLOCK;
        tile_args t = {.k = depth, .a = a + (by_column ? p * stride : p), .stride = stride,
                       .ldb = ldb, .ldc = ldc, .add = add || p > 0};
        for (size_t j = 0; j < n; j += TILE_COLUMNS) {
            t.b = b + p * ldb + j;
            t.c = c + j;
            panel(m, n - j < TILE_COLUMNS ? n - j : TILE_COLUMNS, by_column, t);
        }
    }
}
