/* kernels/kernels.h - the arithmetic of language models as a table of functions.
 *
 * A backend fills one opd_kernel_table; all of models/ is written against it. Arguments are
 * raw pointers and sizes, outputs first, shapes in comments, forward next to backward. Rows
 * are tokens; matrices are row-major without gaps unless a stride is named.
 *
 * The numeric contract (each backend's contract test checks it):
 * (1) one output element is one chain of additions in ascending order of the summed index,
 *     never split, so it does not depend on batch size, tiling or thread count;
 * (2) what is computed for a token row reads that row (attention: its own sequence up to
 *     itself) only, so training forward and cached decoding agree bit for bit;
 * (3) sums over tokens (weight gradients) run in token order on any thread count.
 * "+=" outputs start their chain from the value already there.
 *
 * Thread: an opd_kernels belongs to one thread at a time (it holds scratch and a thread pool
 * that works for that thread). Several may exist: one per lane.
 */
#ifndef OPD_KERNELS_KERNELS_H
#define OPD_KERNELS_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "opd/err.h"

struct opd_alloc;
typedef struct opd_kernels opd_kernels;

/* How a token is chosen from logits. temperature 0 or greedy: the most likely id (ties: the
 * lowest). Otherwise softmax(logits / temperature), cut to the top_k most likely ids
 * (0 = all), then to the shortest prefix of those, most likely first, whose probability
 * reaches top_p (1 = all), renormalised. */
typedef struct opd_sampling {
    float temperature; /* >= 0                */
    int32_t top_k;     /* >= 0                */
    float top_p;       /* in (0, 1]           */
    bool greedy;
} opd_sampling;

/* The shape of attention within a packed batch. A qkv row is [heads | kv_heads | kv_heads]
 * blocks of head_dim floats: queries, keys, values. Query head h uses kv head
 * h / (heads / kv_heads). Scores are scaled by 1/sqrt(head_dim). */
typedef struct opd_attention_shape {
    size_t heads, kv_heads, head_dim;
} opd_attention_shape;

/* One sequence's cache for one layer, as the decode kernel sees it. */
typedef struct opd_kv_view {
    float *keys;    /* [kv_heads, head_dim, capacity]: transposed   */
    float *values;  /* [kv_heads, capacity, head_dim]               */
    size_t length;  /* positions filled, the current one included   */
} opd_kv_view;

enum { OPD_KV_PAGE = 32 }; /* positions in a page of keys and values */

/* One sequence whose keys and values of one layer lie in pages: position p is place
 * p % OPD_KV_PAGE of page pages[p / OPD_KV_PAGE]. A page begins `stride` floats after the one
 * before: keys [kv_heads, head_dim, OPD_KV_PAGE], then values [kv_heads, OPD_KV_PAGE, head_dim]. */
typedef struct opd_kv_paged {
    float *base;           /* page 0                                                         */
    size_t stride;
    const uint32_t *pages; /* of every position up to the last new row                       */
    size_t past;           /* positions before the new rows                                  */
    size_t filled;         /* positions whose keys and values are there, >= past; those of new
                              rows below it are the same again and not written               */
} opd_kv_paged;

/* AdamW of one range of weights; bias corrections are folded into the scalars. */
typedef struct opd_adamw_args {
    float beta1, beta2, eps;
    float step_size;      /* lr / (1 - beta1^t)                       */
    float v_scale;        /* 1 / (1 - beta2^t)                        */
    float decay;          /* lr * weight_decay                        */
    float grad_scale;     /* clipping factor, <= 1                    */
} opd_adamw_args;

typedef struct opd_kernel_table {
    /* --- matrices: w is [n, d] (out, in) ------------------------------------------------ */
    /* floats that a packed copy of w takes (either direction) */
    size_t (*pack_size)(size_t n, size_t d);
    /* for linear */
    void (*pack)(opd_kernels *k, float *out_packed, const float *w, size_t n, size_t d);
    /* for linear_dx */
    void (*pack_dx)(opd_kernels *k, float *out_packed, const float *w, size_t n, size_t d);
    /* y[t,n] (+)= x[t,d] w^T; `add`: += */
    void (*linear)(opd_kernels *k, float *y, const float *x, const float *packed, size_t t,
                   size_t n, size_t d, bool add);
    /* dx[t,d] (+)= dy[t,n] w */
    void (*linear_dx)(opd_kernels *k, float *dx, const float *dy, const float *packed, size_t t,
                      size_t n, size_t d, bool add);
    /* dw[n,d] += dy[t,n]^T x[t,d] */
    void (*linear_dw)(opd_kernels *k, float *dw, const float *dy, const float *x, size_t t,
                      size_t n, size_t d);

    /* --- rows ---------------------------------------------------------------------------- */
    /* y[t,d] = table[ids[t], :] */
    void (*embed)(opd_kernels *k, float *y, const float *table, const int32_t *ids, size_t t,
                  size_t d);
    /* dtable[ids[t], :] += dy[t,d] */
    void (*embed_grad)(opd_kernels *k, float *dtable, const float *dy, const int32_t *ids,
                       size_t t, size_t d);
    /* y[t,d] = x * w * inv_rms, inv_rms[t] = 1/sqrt(mean(x^2) + eps) is kept unless NULL */
    void (*rmsnorm)(opd_kernels *k, float *y, float *inv_rms, const float *x, const float *w,
                    size_t t, size_t d, float eps);
    /* dx[t,d] += ..., dw[d] += ...; dy may not be dx */
    void (*rmsnorm_grad)(opd_kernels *k, float *dx, float *dw, const float *dy, const float *x,
                         const float *w, const float *inv_rms, size_t t, size_t d);
    /* rotates, in place, the first `heads` blocks of head_dim floats of each row of x (rows
     * `stride` apart): pairs (i, i + head_dim/2) by the angle of positions[t]. table is
     * [max_position, head_dim]: head_dim/2 cosines then head_dim/2 sines. backward: by the
     * negative angle. */
    void (*rope)(opd_kernels *k, float *x, const int32_t *positions, const float *table, size_t t,
                 size_t stride, size_t heads, size_t head_dim, bool backward);
    /* y[t,f] = silu(gu[:, :f]) * gu[:, f:], gu [t,2f] */
    void (*swiglu)(opd_kernels *k, float *y, const float *gu, size_t t, size_t f);
    /* dgu[t,2f] = ... from dy[t,f] */
    void (*swiglu_grad)(opd_kernels *k, float *dgu, const float *dy, const float *gu, size_t t,
                        size_t f);

    /* --- attention, causal within each sequence -------------------------------------------- */
    /* out[t, heads*head_dim] from qkv[t, (heads + 2 kv_heads)*head_dim] */
    void (*attention)(opd_kernels *k, float *out, const float *qkv, const size_t *seq_start,
                      size_t seq_count, const opd_attention_shape *shape);
    /* dqkv (same shape as qkv) = ... */
    void (*attention_grad)(opd_kernels *k, float *dqkv, const float *dout, const float *qkv,
                           const size_t *seq_start, size_t seq_count,
                           const opd_attention_shape *shape);
    /* out[n, heads*head_dim] of the newest position of n cached sequences; qkv holds the
     * (rotated) row of that position, its key and value are written to the cache first */
    void (*attention_decode)(opd_kernels *k, float *out, const float *qkv,
                             const opd_kv_view *views, size_t n, size_t capacity,
                             const opd_attention_shape *shape);
    /* writes keys and values of one sequence (t rows of qkv) to an empty cache view */
    void (*cache_fill)(opd_kernels *k, const opd_kv_view *view, const float *qkv, size_t t,
                       size_t capacity, const opd_attention_shape *shape);

    /* out[t, heads*head_dim] of new rows of sequences that lie in pages: rows
     * seq_start[s] .. seq_start[s+1] of qkv (rotated) follow the `past` positions of seqs[s];
     * their keys and values are written to the pages first. Two sequences may share a page that
     * neither writes to. */
    void (*attention_paged)(opd_kernels *k, float *out, const float *qkv,
                            const size_t *seq_start, const opd_kv_paged *seqs, size_t seq_count,
                            const opd_attention_shape *shape);

    /* --- the distribution over the vocabulary: log-softmax(logits * inv_t) ------------------ */
    /* logp[n] of targets[n]; entropy[n], top_ids/top_logp [n,top_k] unless NULL/0 */
    void (*logprob)(opd_kernels *k, float *logp, float *entropy, int32_t *top_ids,
                    float *top_logp, size_t top_k, const float *logits, const int32_t *targets,
                    const float *inv_t, size_t n, size_t vocab);
    /* logits[n,vocab] overwritten by the gradient of sum dlogp*logp + dentropy*entropy */
    void (*logprob_grad)(opd_kernels *k, float *logits, const int32_t *targets,
                         const float *inv_t, const float *dlogp, const float *dentropy, size_t n,
                         size_t vocab);
    /* draws one id per row; logp as logprob gives (temperature 0/greedy: at inv_t 1).
     * */
    void (*sample)(opd_kernels *k, int32_t *out_ids, float *out_logp, float *logits,
                   const float *uniforms, const opd_sampling *const *sampling, size_t n,
                   size_t vocab);

    /* --- the optimizer ------------------------------------------------------------------- */
    /* sum of squares in float64, order fixed */
    double (*sum_squares)(opd_kernels *k, const float *x, size_t n);
    void (*adamw)(opd_kernels *k, float *p, float *m, float *v, const float *g, size_t n,
                  const opd_adamw_args *args);

    /* --- control ------------------------------------------------------------------------- */
    /* Runs fn(arg, serial, i) for each i < n, spread over the pool; `serial` is a view of
     * this backend that runs everything on the calling thread. For whole-layer work whose
     * rows are independent (decoding). */
    void (*for_each)(opd_kernels *k, size_t n, void (*fn)(void *arg, opd_kernels *serial, size_t i),
                     void *arg);
    size_t (*threads)(const opd_kernels *k);
    /* Declares the longest sequence attention and the widest vocabulary sampling will meet.
     * Must precede their use. Errors: NOMEM. */
    opd_err (*reserve)(opd_kernels *k, size_t seq_max, const opd_attention_shape *shape,
                       size_t vocab);
} opd_kernel_table;

/* A backend instance; its private part follows in memory. */
struct opd_kernels {
    const opd_kernel_table *ops;
};

typedef enum opd_cpu_isa {
    OPD_CPU_ISA_AUTO,  /* OPD_CPU_ISA in the environment (plain, avx2, avx512), or the best */
    OPD_CPU_ISA_PLAIN, /* portable C                                                       */
    OPD_CPU_ISA_AVX2,  /* with FMA; the bits of AVX512                                     */
    OPD_CPU_ISA_AVX512
} opd_cpu_isa;

/* A CPU backend that computes with `threads` threads (>= 1; the caller is one of them).
 * Errors: INVALID (threads 0, unknown name in the environment), UNSUPPORTED (this processor
 * lacks the instruction set), NOMEM. Caller destroys. */
OPD_MUST_CHECK opd_err opd_kernels_create_cpu(opd_cpu_isa isa, size_t threads,
                                              const struct opd_alloc *alloc,
                                              opd_kernels **out_kernels);

/* Joins the threads and frees; NULL is legal. */
void opd_kernels_destroy(opd_kernels *kernels);

/* Which backend and instruction set: "cpu-avx512", "cpu-avx2", "cpu-plain"; static text. */
const char *opd_kernels_name(const opd_kernels *kernels);

/* Whether this processor can run that instruction set. */
bool opd_cpu_isa_available(opd_cpu_isa isa);

#endif
