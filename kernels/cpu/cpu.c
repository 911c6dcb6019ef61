/* kernels/cpu/cpu.c - the op table on CPU threads.
 *
 * Each op cuts its outputs into items (blocks of rows, of columns, of heads), hands them to
 * the pool and lets the instruction set's serial function compute them. Invariant: an item
 * computes whole outputs, so neither the cut nor the thread that ran it can change a bit.
 *
 * A `serial` view of a backend has no pool and one worker's scratch: for_each gives one to
 * each item, so that a decode step runs all layers of its rows without a single barrier.
 *
 * Thread: the lane that owns the opd_kernels; its pool's workers inside a call.
 */
#include "kernels/cpu/cpu.h"

#include <string.h>

enum {
    ROWS_PER_ITEM = 64,     /* token rows of an element-wise item            */
    GEMM_ROWS = 96,         /* rows of a matrix-product item: 16 tiles of 6  */
    GEMM_PANELS = 4,        /* column panels of an item                      */
    COLUMNS_PER_ITEM = 64   /* columns of an item that sums over tokens      */
};

/* ------------------------------------------------------------------ matrices --------- */

/* A packed b [k, n]: panels of 64 columns (the last narrower), each [k, its width]. */
typedef struct product {
    const opd__isa *isa;
    float *c;
    const float *a, *b;
    size_t m, n, k;
    size_t column_items;
    bool add;
} product;

static void product_item(void *arg, size_t worker, size_t item) {
    const product *p = arg;
    (void)worker;
    size_t row = item / p->column_items * GEMM_ROWS;
    size_t first = item % p->column_items * GEMM_PANELS;
    size_t rows = opd__min_size(p->m - row, GEMM_ROWS);
    size_t last = opd__min_size(first + GEMM_PANELS, opd__blocks(p->n, OPD__PANEL));
    for (size_t i = first; i < last; i++) {
        size_t column = i * OPD__PANEL, width = opd__min_size(p->n - column, OPD__PANEL);
        p->isa->gemm(rows, width, p->k, p->a + row * p->k, p->k, 1, p->b + column * p->k, width,
                     p->c + row * p->n + column, p->n, p->add);
    }
}

static void product_run(opd__cpu *cpu, product *p) {
    p->isa = cpu->isa;
    p->column_items = opd__blocks(opd__blocks(p->n, OPD__PANEL), GEMM_PANELS);
    opd__spread(cpu, opd__blocks(p->m, GEMM_ROWS) * p->column_items, product_item, p);
}

static size_t cpu_pack_size(size_t n, size_t d) { return n * d; }

static void cpu_pack(opd_kernels *k, float *out, const float *w, size_t n, size_t d) {
    (void)k;
    for (size_t column = 0; column < n; column += OPD__PANEL) {
        size_t width = opd__min_size(n - column, OPD__PANEL);
        for (size_t i = 0; i < width; i++)
            for (size_t j = 0; j < d; j++)
                out[column * d + j * width + i] = w[(column + i) * d + j];
    }
}

static void cpu_pack_dx(opd_kernels *k, float *out, const float *w, size_t n, size_t d) {
    (void)k;
    for (size_t column = 0; column < d; column += OPD__PANEL) {
        size_t width = opd__min_size(d - column, OPD__PANEL);
        for (size_t i = 0; i < n; i++)
            memcpy(out + column * n + i * width, w + i * d + column, width * sizeof(float));
    }
}

static void cpu_linear(opd_kernels *k, float *y, const float *x, const float *packed, size_t t,
                       size_t n, size_t d, bool add) {
    product p = {.c = y, .a = x, .b = packed, .m = t, .n = n, .k = d, .add = add};
    product_run(opd__cpu_of(k), &p);
}

static void cpu_linear_dx(opd_kernels *k, float *dx, const float *dy, const float *packed,
                          size_t t, size_t n, size_t d, bool add) {
    product p = {.c = dx, .a = dy, .b = packed, .m = t, .n = d, .k = n, .add = add};
    product_run(opd__cpu_of(k), &p);
}

static void linear_dw_item(void *arg, size_t worker, size_t item) {
    const product *p = arg; /* c [m,n] += a[k,m]^T b[k,n] */
    (void)worker;
    size_t row = item / p->column_items * GEMM_ROWS, rows = opd__min_size(p->m - row, GEMM_ROWS);
    size_t column = item % p->column_items * OPD__PANEL;
    p->isa->gemm(rows, opd__min_size(p->n - column, OPD__PANEL), p->k, p->a + row, 1, p->m,
                 p->b + column, p->n, p->c + row * p->n + column, p->n, true);
}

static void cpu_linear_dw(opd_kernels *k, float *dw, const float *dy, const float *x, size_t t,
                          size_t n, size_t d) {
    opd__cpu *cpu = opd__cpu_of(k);
    product p = {.isa = cpu->isa, .c = dw, .a = dy, .b = x, .m = n, .n = d, .k = t};
    p.column_items = opd__blocks(d, OPD__PANEL);
    opd__spread(cpu, opd__blocks(n, GEMM_ROWS) * p.column_items, linear_dw_item, &p);
}

/* ------------------------------------------------------------------ rows ------------- */

/* The arguments of any row op; each uses what it needs. */
typedef struct rows_args {
    const opd__isa *isa;
    float *out, *out2;
    const float *a, *b, *c;
    const int32_t *ids;
    size_t t, d, stride, heads, columns;
    float eps;
    bool backward;
} rows_args;

static size_t rows_of(const rows_args *r, size_t item) {
    return opd__min_size(r->t - item * ROWS_PER_ITEM, ROWS_PER_ITEM);
}

static void run_rows(opd_kernels *k, opd_pool_fn fn, rows_args *r) {
    opd__cpu *cpu = opd__cpu_of(k);
    r->isa = cpu->isa;
    opd__spread(cpu, opd__blocks(r->t, ROWS_PER_ITEM), fn, r);
}

static void run_columns(opd_kernels *k, opd_pool_fn fn, rows_args *r) {
    opd__cpu *cpu = opd__cpu_of(k);
    r->isa = cpu->isa;
    opd__spread(cpu, opd__blocks(r->d, COLUMNS_PER_ITEM), fn, r);
}

static void embed_item(void *arg, size_t worker, size_t item) {
    const rows_args *r = arg;
    (void)worker;
    size_t first = item * ROWS_PER_ITEM, rows = rows_of(r, item);
    for (size_t i = first; i < first + rows; i++)
        memcpy(r->out + i * r->d, r->a + (size_t)r->ids[i] * r->d, r->d * sizeof(float));
}

static void cpu_embed(opd_kernels *k, float *y, const float *table, const int32_t *ids, size_t t,
                      size_t d) {
    rows_args r = {.out = y, .a = table, .ids = ids, .t = t, .d = d};
    run_rows(k, embed_item, &r);
}

static void embed_grad_item(void *arg, size_t worker, size_t item) {
    const rows_args *r = arg;
    (void)worker;
    size_t first = item * COLUMNS_PER_ITEM, columns = opd__min_size(r->d - first, COLUMNS_PER_ITEM);
    for (size_t i = 0; i < r->t; i++)
        r->isa->add(r->out + (size_t)r->ids[i] * r->d + first, r->a + i * r->d + first, columns);
}

static void cpu_embed_grad(opd_kernels *k, float *dtable, const float *dy, const int32_t *ids,
                           size_t t, size_t d) {
    rows_args r = {.out = dtable, .a = dy, .ids = ids, .t = t, .d = d};
    run_columns(k, embed_grad_item, &r);
}

static void rmsnorm_item(void *arg, size_t worker, size_t item) {
    const rows_args *r = arg;
    (void)worker;
    size_t first = item * ROWS_PER_ITEM;
    r->isa->rmsnorm(r->out + first * r->d, r->out2 == NULL ? NULL : r->out2 + first,
                    r->a + first * r->d, r->b, rows_of(r, item), r->d, r->eps);
}

static void cpu_rmsnorm(opd_kernels *k, float *y, float *inv_rms, const float *x, const float *w,
                        size_t t, size_t d, float eps) {
    rows_args r = {.out = y, .out2 = inv_rms, .a = x, .b = w, .t = t, .d = d, .eps = eps};
    run_rows(k, rmsnorm_item, &r);
}

typedef struct norm_grad_args {
    rows_args rows;
    const float *inv_rms, *x, *w;
} norm_grad_args;

static void rmsnorm_dx_item(void *arg, size_t worker, size_t item) {
    const norm_grad_args *g = arg;
    const rows_args *r = &g->rows;
    (void)worker;
    size_t first = item * ROWS_PER_ITEM, at = first * r->d;
    r->isa->rmsnorm_dx(r->out + at, r->a + at, g->x + at, g->w, g->inv_rms + first,
                       rows_of(r, item), r->d);
}

static void rmsnorm_dw_item(void *arg, size_t worker, size_t item) {
    const norm_grad_args *g = arg;
    const rows_args *r = &g->rows;
    (void)worker;
    size_t first = item * COLUMNS_PER_ITEM;
    r->isa->rmsnorm_dw(r->out2, r->a, g->x, g->inv_rms, r->t, r->d, first,
                       opd__min_size(first + COLUMNS_PER_ITEM, r->d));
}

static void cpu_rmsnorm_grad(opd_kernels *k, float *dx, float *dw, const float *dy, const float *x,
                             const float *w, const float *inv_rms, size_t t, size_t d) {
    norm_grad_args g = {.rows = {.out = dx, .out2 = dw, .a = dy, .t = t, .d = d},
                        .inv_rms = inv_rms, .x = x, .w = w};
    run_rows(k, rmsnorm_dx_item, &g.rows);
    run_columns(k, rmsnorm_dw_item, &g.rows);
}

static void rope_item(void *arg, size_t worker, size_t item) {
    const rows_args *r = arg;
    (void)worker;
    size_t first = item * ROWS_PER_ITEM;
    r->isa->rope(r->out + first * r->stride, r->ids + first, r->a, rows_of(r, item), r->stride,
                 r->heads, r->d, r->backward);
}

static void cpu_rope(opd_kernels *k, float *x, const int32_t *positions, const float *table,
                     size_t t, size_t stride, size_t heads, size_t head_dim, bool backward) {
    rows_args r = {.out = x, .ids = positions, .a = table, .t = t, .d = head_dim,
                   .stride = stride, .heads = heads, .backward = backward};
    run_rows(k, rope_item, &r);
}

static void swiglu_item(void *arg, size_t worker, size_t item) {
    const rows_args *r = arg;
    (void)worker;
    size_t at = item * ROWS_PER_ITEM * r->d;
    r->isa->swiglu(r->out + at, r->a + 2 * at, rows_of(r, item), r->d);
}

static void cpu_swiglu(opd_kernels *k, float *y, const float *gu, size_t t, size_t f) {
    rows_args r = {.out = y, .a = gu, .t = t, .d = f};
    run_rows(k, swiglu_item, &r);
}

static void swiglu_grad_item(void *arg, size_t worker, size_t item) {
    const rows_args *r = arg;
    (void)worker;
    size_t at = item * ROWS_PER_ITEM * r->d;
    r->isa->swiglu_grad(r->out + 2 * at, r->a + at, r->b + 2 * at, rows_of(r, item), r->d);
}

static void cpu_swiglu_grad(opd_kernels *k, float *dgu, const float *dy, const float *gu, size_t t,
                            size_t f) {
    rows_args r = {.out = dgu, .a = dy, .b = gu, .t = t, .d = f};
    run_rows(k, swiglu_grad_item, &r);
}

/* ------------------------------------------------------------------ control ---------- */

typedef struct each {
    opd__cpu *cpu;
    void (*fn)(void *arg, opd_kernels *serial, size_t i);
    void *arg;
} each;

static void each_item(void *arg, size_t worker, size_t item) {
    const each *e = arg;
    e->fn(e->arg, &e->cpu->serial[worker].base, item);
}

static void cpu_for_each(opd_kernels *k, size_t n,
                         void (*fn)(void *arg, opd_kernels *serial, size_t i), void *arg) {
    opd__cpu *cpu = opd__cpu_of(k);
    each e = {cpu, fn, arg};
    if (cpu->serial != NULL) opd__spread(cpu, n, each_item, &e);
    else
        for (size_t i = 0; i < n; i++) fn(arg, k, i);
}

static size_t cpu_threads(const opd_kernels *k) {
    const opd__cpu *cpu = OPD_CONTAINER_OF(k, const opd__cpu, base);
    return cpu->pool == NULL ? 1 : opd_pool_threads(cpu->pool);
}

const opd_kernel_table opd__cpu_table = {
    .pack_size = cpu_pack_size,
    .pack = cpu_pack,
    .pack_dx = cpu_pack_dx,
    .linear = cpu_linear,
    .linear_dx = cpu_linear_dx,
    .linear_dw = cpu_linear_dw,
    .embed = cpu_embed,
    .embed_grad = cpu_embed_grad,
    .rmsnorm = cpu_rmsnorm,
    .rmsnorm_grad = cpu_rmsnorm_grad,
    .rope = cpu_rope,
    .swiglu = cpu_swiglu,
    .swiglu_grad = cpu_swiglu_grad,
    .attention = opd__cpu_attention,
    .attention_grad = opd__cpu_attention_grad,
    .attention_decode = opd__cpu_attention_decode,
    .cache_fill = opd__cpu_cache_fill,
    .attention_paged = opd__cpu_attention_paged,
    .logprob = opd__cpu_logprob,
    .logprob_grad = opd__cpu_logprob_grad,
    .sample = opd__cpu_sample,
    .sum_squares = opd__cpu_sum_squares,
    .adamw = opd__cpu_adamw,
    .for_each = cpu_for_each,
    .threads = cpu_threads,
    .reserve = opd__cpu_reserve,
};
