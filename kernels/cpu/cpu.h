/* kernels/cpu/cpu.h - inside of the CPU backend: its instance, and the ops of cpu_ops.c.
 *
 * Thread: as kernels/kernels.h.
 */
#ifndef OPD_KERNELS_CPU_CPU_H
#define OPD_KERNELS_CPU_CPU_H

#include "core/base/check.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/pool.h"
#include "kernels/kernels.h"

/* What one thread works in; sized by reserve. */
typedef struct opd__scratch {
    float *attention;
    size_t attention_count;
    opd__candidates candidates;
    size_t vocab;
} opd__scratch;

typedef struct opd__cpu {
    opd_kernels base;
    const opd__isa *isa;
    opd_pool *pool;          /* NULL in a serial view                        */
    opd__scratch *scratch;   /* [threads]; in a serial view: its one worker's */
    struct opd__cpu *serial; /* [threads] views; NULL in a view              */
    const struct opd_alloc *alloc;
} opd__cpu;

extern const opd_kernel_table opd__cpu_table;

static inline opd__cpu *opd__cpu_of(opd_kernels *k) { return OPD_CONTAINER_OF(k, opd__cpu, base); }

static inline size_t opd__min_size(size_t a, size_t b) { return a < b ? a : b; }

static inline size_t opd__blocks(size_t n, size_t block) { return (n + block - 1) / block; }

/* Runs the items on the pool, or here in a serial view. */
static inline void opd__spread(opd__cpu *cpu, size_t count, opd_pool_fn fn, void *arg) {
    if (cpu->pool != NULL) {
        opd_pool_run(cpu->pool, count, fn, arg);
        return;
    }
    for (size_t i = 0; i < count; i++) fn(arg, 0, i);
}

void opd__cpu_attention(opd_kernels *k, float *out, const float *qkv, const size_t *seq_start,
                        size_t seq_count, const opd_attention_shape *shape);
void opd__cpu_attention_grad(opd_kernels *k, float *dqkv, const float *dout, const float *qkv,
                             const size_t *seq_start, size_t seq_count,
                             const opd_attention_shape *shape);
void opd__cpu_attention_decode(opd_kernels *k, float *out, const float *qkv,
                               const opd_kv_view *views, size_t n, size_t capacity,
                               const opd_attention_shape *shape);
void opd__cpu_cache_fill(opd_kernels *k, const opd_kv_view *view, const float *qkv, size_t t,
                         size_t capacity, const opd_attention_shape *shape);
void opd__cpu_attention_paged(opd_kernels *k, float *out, const float *qkv,
                              const size_t *seq_start, const opd_kv_paged *seqs, size_t seq_count,
                              const opd_attention_shape *shape);
void opd__cpu_logprob(opd_kernels *k, float *logp, float *entropy, int32_t *top_ids,
                      float *top_logp, size_t top_k, const float *logits, const int32_t *targets,
                      const float *inv_t, size_t n, size_t vocab);
void opd__cpu_logprob_grad(opd_kernels *k, float *logits, const int32_t *targets,
                           const float *inv_t, const float *dlogp, const float *dentropy,
                           size_t n, size_t vocab);
void opd__cpu_sample(opd_kernels *k, int32_t *out_ids, float *out_logp, float *logits,
                     const float *uniforms, const opd_sampling *const *sampling, size_t n,
                     size_t vocab);
double opd__cpu_sum_squares(opd_kernels *k, const float *x, size_t n);
void opd__cpu_adamw(opd_kernels *k, float *p, float *m, float *v, const float *g, size_t n,
                    const opd_adamw_args *args);
opd_err opd__cpu_reserve(opd_kernels *k, size_t seq_max, const opd_attention_shape *shape,
                         size_t vocab);

#endif
