/* kernels/cpu/isa.h - what one instruction set provides: serial functions on ranges of rows.
 *
 * cpu.c splits the work of the op table over threads and calls these. They are compiled once
 * per instruction set: the matrix product from gemm_plain.c or gemm_isa.h, the rest from one text
 * (rows_isa.h, attention_isa.h, vocab_isa.h) under another prefix.
 *
 * Thread: any; no state. Shapes as in kernels/kernels.h.
 */
#ifndef OPD_KERNELS_CPU_ISA_H
#define OPD_KERNELS_CPU_ISA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/kernels.h"

enum {
    OPD__PANEL = 64,       /* columns of a packed panel                                */
    OPD__ROUND = 16,       /* floats rows of scratch are rounded up to                  */
    OPD__ATTENTION_ROWS = 24 /* query rows attention handles at a time                  */
};

/* One (sequence, kv head) pair of packed attention: pointers to its first row. */
typedef struct opd__attention_args {
    float *out;           /* forward: [n, out_stride]; backward: unused           */
    const float *dout;    /* backward: [n, out_stride]                            */
    const float *q, *k, *v; /* [n, stride], q at the first head of the group     */
    float *dq, *dk, *dv;  /* backward, [n, stride]                                */
    size_t n, group, head_dim, stride, out_stride;
    float *scratch;       /* opd__attention_scratch(n, head_dim) floats           */
} opd__attention_args;

/* One (sequence, kv head) pair of attention over pages: pointers to its first new row. */
typedef struct opd__paged_args {
    float *out;             /* [n, out_stride]                                     */
    const float *q, *k, *v; /* [n, stride], q at the first head of the group       */
    const opd_kv_paged *seq;
    size_t keys_at, values_at; /* floats from a page's start to this head's        */
    size_t n, group, head_dim, stride, out_stride;
    float *scratch;         /* opd__attention_scratch(past + n, head_dim) floats   */
} opd__paged_args;

/* Room for one worker to draw a token. */
typedef struct opd__candidates {
    int32_t *ids;  /* [vocab] */
    float *values; /* [2 * vocab]: candidates, then weights */
} opd__candidates;

typedef struct opd__isa {
    const char *name;

    /* c[m,n] (rows ldc apart) = or += a b. Element (i,j) of a is a[i*a_row + j*a_col] with
     * one of the two strides 1; b is [k,n] with rows ldb apart. Each element of c is one
     * chain over ascending k. */
    void (*gemm)(size_t m, size_t n, size_t k, const float *a, size_t a_row, size_t a_col,
                 const float *b, size_t ldb, float *c, size_t ldc, bool add);

    void (*rmsnorm)(float *y, float *inv_rms, const float *x, const float *w, size_t t, size_t d,
                    float eps);
    void (*rmsnorm_dx)(float *dx, const float *dy, const float *x, const float *w,
                       const float *inv_rms, size_t t, size_t d);
    /* columns [c0, c1) of dw += */
    void (*rmsnorm_dw)(float *dw, const float *dy, const float *x, const float *inv_rms, size_t t,
                       size_t d, size_t c0, size_t c1);
    void (*rope)(float *x, const int32_t *positions, const float *table, size_t t, size_t stride,
                 size_t heads, size_t head_dim, bool backward);
    void (*swiglu)(float *y, const float *gu, size_t t, size_t f);
    void (*swiglu_grad)(float *dgu, const float *dy, const float *gu, size_t t, size_t f);
    void (*add)(float *y, const float *x, size_t n); /* y += x */

    void (*attention)(const opd__attention_args *args);
    void (*attention_grad)(const opd__attention_args *args);
    /* one kv head of one cached sequence; scores: [group, round(length)] scratch */
    void (*attention_decode)(float *out, const float *q, const float *keys, const float *values,
                             size_t length, size_t capacity, size_t group, size_t head_dim,
                             float *scores);
    void (*attention_paged)(const opd__paged_args *args);

    void (*logprob)(float *logp, float *entropy, int32_t *top_ids, float *top_logp, size_t top_k,
                    const float *logits, int32_t target, float inv_t, size_t vocab);
    void (*logprob_grad)(float *logits, int32_t target, float inv_t, float dlogp, float dentropy,
                         size_t vocab);
    void (*sample)(int32_t *out_id, float *out_logp, float *logits, float uniform,
                   const opd_sampling *sampling, size_t vocab, const opd__candidates *room);

    double (*sum_squares)(const float *x, size_t n);
    void (*adamw)(float *p, float *m, float *v, const float *g, size_t n,
                  const opd_adamw_args *args);
} opd__isa;

static inline size_t opd__round_up(size_t n) {
    return (n + OPD__ROUND - 1) / OPD__ROUND * OPD__ROUND;
}

/* Floats of scratch for attention over n positions: keys and values transposed, and two
 * blocks of score rows. */
static inline size_t opd__attention_scratch(size_t n, size_t head_dim) {
    return opd__round_up(n) * (2 * head_dim + 2 * OPD__ATTENTION_ROWS);
}

extern const opd__isa opd__isa_plain;
#if defined(__x86_64__)
extern const opd__isa opd__isa_avx2, opd__isa_avx512;
#endif

#endif
