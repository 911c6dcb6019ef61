/* kernels/cpu/cpu_ops.c - attention, the vocabulary and the optimizer on CPU threads.
 *
 * As cpu.c: each op cuts its outputs into items. Attention's item is one (sequence, kv head)
 * pair, so gradients of shared keys are summed by one thread in head order.
 *
 * Thread: the lane that owns the opd_kernels; its pool's workers inside a call.
 */
#include <string.h>

#include "kernels/cpu/cpu.h"

enum { VOCAB_ROWS = 4, WEIGHTS_PER_ITEM = 16384, SUM_PARTS = 64 };

/* ------------------------------------------------------------------ attention -------- */

typedef struct attention_job {
    opd__cpu *cpu;
    float *out, *dqkv;
    const float *dout, *qkv;
    const size_t *seq_start;
    const opd_kv_view *views;
    const opd_kv_paged *paged;
    size_t n, capacity;
    opd_attention_shape shape;
} attention_job;

static size_t row_width(const opd_attention_shape *s) {
    return (s->heads + 2 * s->kv_heads) * s->head_dim;
}

static void attention_item(void *arg, size_t worker, size_t item) {
    const attention_job *job = arg;
    const opd_attention_shape *s = &job->shape;
    size_t seq = item / s->kv_heads, kv = item % s->kv_heads, group = s->heads / s->kv_heads;
    size_t first = job->seq_start[seq], n = job->seq_start[seq + 1] - first;
    size_t stride = row_width(s), at = first * stride, out_stride = s->heads * s->head_dim;
    size_t q = at + kv * group * s->head_dim, k = at + (s->heads + kv) * s->head_dim;
    size_t v = k + s->kv_heads * s->head_dim, o = first * out_stride + kv * group * s->head_dim;
    opd__scratch *scratch = &job->cpu->scratch[worker];
    if (n == 0) return;
    OPD_ASSERT(opd__attention_scratch(n, s->head_dim) <= scratch->attention_count);
    opd__attention_args a = {.q = job->qkv + q, .k = job->qkv + k, .v = job->qkv + v, .n = n,
                             .group = group, .head_dim = s->head_dim, .stride = stride,
                             .out_stride = out_stride, .scratch = scratch->attention};
    if (job->dqkv == NULL) {
        a.out = job->out + o;
        job->cpu->isa->attention(&a);
        return;
    }
    a.dout = job->dout + o;
    a.dq = job->dqkv + q;
    a.dk = job->dqkv + k;
    a.dv = job->dqkv + v;
    job->cpu->isa->attention_grad(&a);
}

void opd__cpu_attention(opd_kernels *k, float *out, const float *qkv, const size_t *seq_start,
                        size_t seq_count, const opd_attention_shape *shape) {
    attention_job job = {.cpu = opd__cpu_of(k), .out = out, .qkv = qkv, .seq_start = seq_start,
                         .shape = *shape};
    opd__spread(job.cpu, seq_count * shape->kv_heads, attention_item, &job);
}

void opd__cpu_attention_grad(opd_kernels *k, float *dqkv, const float *dout, const float *qkv,
                             const size_t *seq_start, size_t seq_count,
                             const opd_attention_shape *shape) {
    attention_job job = {.cpu = opd__cpu_of(k), .dqkv = dqkv, .dout = dout, .qkv = qkv,
                         .seq_start = seq_start, .shape = *shape};
    opd__spread(job.cpu, seq_count * shape->kv_heads, attention_item, &job);
}

/* Row `row` of qkv becomes position `position` of the cache. */
static void cache_put(const opd_kv_view *view, const float *row, size_t position, size_t capacity,
                      const opd_attention_shape *s) {
    const float *keys = row + s->heads * s->head_dim, *values = keys + s->kv_heads * s->head_dim;
    for (size_t i = 0; i < s->kv_heads * s->head_dim; i++)
        view->keys[i * capacity + position] = keys[i];
    for (size_t h = 0; h < s->kv_heads; h++)
        memcpy(view->values + (h * capacity + position) * s->head_dim, values + h * s->head_dim,
               s->head_dim * sizeof(float));
}

/* Asks for what the next row will read: caches of many sequences lie in the last-level cache,
 * whose latency would otherwise bound decoding. */
static void prefetch_view(const opd_kv_view *view, size_t capacity, const opd_attention_shape *s) {
    const size_t line = 64 / sizeof(float);
    for (size_t i = 0; i < s->kv_heads * s->head_dim; i++)
        for (size_t j = 0; j < view->length; j += line)
            __builtin_prefetch(view->keys + i * capacity + j);
    for (size_t h = 0; h < s->kv_heads; h++)
        for (size_t j = 0; j < view->length * s->head_dim; j += line)
            __builtin_prefetch(view->values + h * capacity * s->head_dim + j);
}

static void decode_item(void *arg, size_t worker, size_t item) {
    const attention_job *job = arg;
    const opd_attention_shape *s = &job->shape;
    const opd_kv_view *view = &job->views[item];
    size_t group = s->heads / s->kv_heads, plane = s->head_dim * job->capacity;
    const float *row = job->qkv + item * row_width(s);
    if (item + 1 < job->n) prefetch_view(view + 1, job->capacity, s);
    cache_put(view, row, view->length - 1, job->capacity, s);
    for (size_t kv = 0; kv < s->kv_heads; kv++) {
        size_t head = kv * group * s->head_dim;
        job->cpu->isa->attention_decode(job->out + item * s->heads * s->head_dim + head,
                                        row + head, view->keys + kv * plane,
                                        view->values + kv * plane, view->length, job->capacity,
                                        group, s->head_dim, job->cpu->scratch[worker].attention);
    }
}

void opd__cpu_attention_decode(opd_kernels *k, float *out, const float *qkv,
                               const opd_kv_view *views, size_t n, size_t capacity,
                               const opd_attention_shape *shape) {
    attention_job job = {.cpu = opd__cpu_of(k), .out = out, .qkv = qkv, .views = views,
                         .n = n, .capacity = capacity, .shape = *shape};
    opd__spread(job.cpu, n, decode_item, &job);
}

void opd__cpu_cache_fill(opd_kernels *k, const opd_kv_view *view, const float *qkv, size_t t,
                         size_t capacity, const opd_attention_shape *shape) {
    (void)k;
    for (size_t i = 0; i < t; i++)
        cache_put(view, qkv + i * row_width(shape), i, capacity, shape);
}

static void paged_item(void *arg, size_t worker, size_t item) {
    const attention_job *job = arg;
    const opd_attention_shape *s = &job->shape;
    size_t seq = item / s->kv_heads, kv = item % s->kv_heads, group = s->heads / s->kv_heads;
    size_t first = job->seq_start[seq], n = job->seq_start[seq + 1] - first;
    size_t stride = row_width(s), out_stride = s->heads * s->head_dim;
    const float *row = job->qkv + first * stride;
    const opd__scratch *scratch = &job->cpu->scratch[worker];
    const opd_kv_paged *paged = &job->paged[seq];
    size_t head_plane = s->head_dim * OPD_KV_PAGE;
    OPD_ASSERT(opd__attention_scratch(paged->past + n, s->head_dim) <= scratch->attention_count);
    opd__paged_args a = {.out = job->out + first * out_stride + kv * group * s->head_dim,
                         .q = row + kv * group * s->head_dim,
                         .k = row + (s->heads + kv) * s->head_dim,
                         .v = row + (s->heads + s->kv_heads + kv) * s->head_dim,
                         .seq = paged, .keys_at = kv * head_plane,
                         .values_at = (s->kv_heads + kv) * head_plane, .n = n, .group = group,
                         .head_dim = s->head_dim, .stride = stride, .out_stride = out_stride,
                         .scratch = scratch->attention};
    job->cpu->isa->attention_paged(&a);
}

void opd__cpu_attention_paged(opd_kernels *k, float *out, const float *qkv,
                              const size_t *seq_start, const opd_kv_paged *seqs, size_t seq_count,
                              const opd_attention_shape *shape) {
    attention_job job = {.cpu = opd__cpu_of(k), .out = out, .qkv = qkv, .seq_start = seq_start,
                         .paged = seqs, .shape = *shape};
    opd__spread(job.cpu, seq_count * shape->kv_heads, paged_item, &job);
}

/* ------------------------------------------------------------------ vocabulary ------- */

typedef struct vocab_job {
    opd__cpu *cpu;
    float *logp, *entropy, *top_logp, *grad;
    int32_t *ids;
    const float *logits, *inv_t, *dlogp, *dentropy, *uniforms;
    const int32_t *targets;
    const opd_sampling *const *sampling;
    size_t top_k, n, vocab;
} vocab_job;

static void logprob_row(const vocab_job *j, size_t i) {
    j->cpu->isa->logprob(j->logp == NULL ? NULL : j->logp + i,
                         j->entropy == NULL ? NULL : j->entropy + i,
                         j->top_k == 0 ? NULL : j->ids + i * j->top_k,
                         j->top_k == 0 ? NULL : j->top_logp + i * j->top_k, j->top_k,
                         j->logits + i * j->vocab, j->targets[i], j->inv_t[i], j->vocab);
}

static void logprob_item(void *arg, size_t worker, size_t item) {
    const vocab_job *j = arg;
    (void)worker;
    for (size_t i = item * VOCAB_ROWS; i < opd__min_size((item + 1) * VOCAB_ROWS, j->n); i++)
        logprob_row(j, i);
}

static void logprob_grad_item(void *arg, size_t worker, size_t item) {
    const vocab_job *j = arg;
    (void)worker;
    for (size_t i = item * VOCAB_ROWS; i < opd__min_size((item + 1) * VOCAB_ROWS, j->n); i++)
        j->cpu->isa->logprob_grad(j->grad + i * j->vocab, j->targets[i], j->inv_t[i],
                                  j->dlogp == NULL ? 0.0f : j->dlogp[i],
                                  j->dentropy == NULL ? 0.0f : j->dentropy[i], j->vocab);
}

static void sample_item(void *arg, size_t worker, size_t item) {
    const vocab_job *j = arg;
    const opd__scratch *scratch = &j->cpu->scratch[worker];
    OPD_ASSERT(j->vocab <= scratch->vocab);
    for (size_t i = item * VOCAB_ROWS; i < opd__min_size((item + 1) * VOCAB_ROWS, j->n); i++)
        j->cpu->isa->sample(j->ids + i, j->logp + i, j->grad + i * j->vocab, j->uniforms[i],
                            j->sampling[i], j->vocab, &scratch->candidates);
}

static void run_vocab(vocab_job *job, opd_pool_fn fn) {
    opd__spread(job->cpu, (job->n + VOCAB_ROWS - 1) / VOCAB_ROWS, fn, job);
}

void opd__cpu_logprob(opd_kernels *k, float *logp, float *entropy, int32_t *top_ids,
                      float *top_logp, size_t top_k, const float *logits, const int32_t *targets,
                      const float *inv_t, size_t n, size_t vocab) {
    vocab_job job = {.cpu = opd__cpu_of(k), .logp = logp, .entropy = entropy, .ids = top_ids,
                     .top_logp = top_logp, .top_k = top_k, .logits = logits,
                     .targets = targets, .inv_t = inv_t, .n = n, .vocab = vocab};
    run_vocab(&job, logprob_item);
}

void opd__cpu_logprob_grad(opd_kernels *k, float *logits, const int32_t *targets,
                           const float *inv_t, const float *dlogp, const float *dentropy,
                           size_t n, size_t vocab) {
    vocab_job job = {.cpu = opd__cpu_of(k), .grad = logits, .targets = targets, .inv_t = inv_t,
                     .dlogp = dlogp, .dentropy = dentropy, .n = n, .vocab = vocab};
    run_vocab(&job, logprob_grad_item);
}

void opd__cpu_sample(opd_kernels *k, int32_t *out_ids, float *out_logp, float *logits,
                     const float *uniforms, const opd_sampling *const *sampling, size_t n,
                     size_t vocab) {
    vocab_job job = {.cpu = opd__cpu_of(k), .ids = out_ids, .logp = out_logp, .grad = logits,
                     .uniforms = uniforms, .sampling = sampling, .n = n, .vocab = vocab};
    run_vocab(&job, sample_item);
}

/* ------------------------------------------------------------------ optimizer -------- */

typedef struct weights_job {
    opd__cpu *cpu;
    float *p, *m, *v;
    const float *g;
    size_t n, part;
    const opd_adamw_args *args;
    double sums[SUM_PARTS];
} weights_job;

static void sum_item(void *arg, size_t worker, size_t item) {
    weights_job *j = arg;
    (void)worker;
    size_t first = opd__min_size(item * j->part, j->n), last = opd__min_size(first + j->part, j->n);
    j->sums[item] = j->cpu->isa->sum_squares(j->g + first, last - first);
}

/* Always 64 parts, added in order, on any number of threads. */
double opd__cpu_sum_squares(opd_kernels *k, const float *x, size_t n) {
    weights_job job = {.cpu = opd__cpu_of(k), .g = x, .n = n, .part = (n + SUM_PARTS - 1) / SUM_PARTS};
    opd__spread(job.cpu, SUM_PARTS, sum_item, &job);
    double sum = 0;
    for (size_t i = 0; i < SUM_PARTS; i++) sum += job.sums[i];
    return sum;
}

static void adamw_item(void *arg, size_t worker, size_t item) {
    const weights_job *j = arg;
    (void)worker;
    size_t at = item * WEIGHTS_PER_ITEM;
    j->cpu->isa->adamw(j->p + at, j->m + at, j->v + at, j->g + at,
                       opd__min_size(j->n - at, WEIGHTS_PER_ITEM), j->args);
}

void opd__cpu_adamw(opd_kernels *k, float *p, float *m, float *v, const float *g, size_t n,
                    const opd_adamw_args *args) {
    weights_job job = {.cpu = opd__cpu_of(k), .p = p, .m = m, .v = v, .g = g, .n = n, .args = args};
    opd__spread(job.cpu, (n + WEIGHTS_PER_ITEM - 1) / WEIGHTS_PER_ITEM, adamw_item, &job);
}
