/* kernels/cpu/attention_isa.h - causal attention, compiled once per instruction set.
 *
 * Included by ops_*.c. A score is a chain over the head dimension in order, a softmax sums its
 * row in fixed lanes, an output is a chain over positions in order: packed training and cached
 * decoding run through the same three steps, so they agree bit for bit. Rows of scores past
 * the causal end are zero, which adds nothing to a chain. Contracts in isa.h.
 */
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/lanes_isa.h"

/* row[0..n) = softmax(row * scale); row[n..width) = 0. width is a multiple of 16. */
static void softmax_row(float *row, size_t n, size_t width, float scale) {
    lanes top = lanes_all(-INFINITY), factor = lanes_all(scale);
    for (size_t i = n; i < opd__round_up(n); i++) row[i] = -INFINITY;
    for (size_t i = 0; i < n; i += LANES) top = lanes_max(lanes_load(row + i), top);
    lanes shift = lanes_all(lanes_fold_max(top)), sum = lanes_all(0.0f);
    for (size_t i = 0; i < n; i += LANES) {
        lanes e = lanes_exp((lanes_load(row + i) - shift) * factor);
        lanes_store(row + i, e);
        sum += e;
    }
    lanes inverse = lanes_all(1.0f / lanes_fold_sum(sum));
    for (size_t i = 0; i < n; i += LANES) lanes_store(row + i, lanes_load(row + i) * inverse);
    for (size_t i = opd__round_up(n); i < width; i++) row[i] = 0.0f;
}

/* out[d][width] = transpose of x[n][stride]; sixteen rows at a time, so that writes are runs */
static void transpose(float *out, size_t width, const float *x, size_t stride, size_t n, size_t d) {
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t j = 0; j < d; j++)
            for (size_t l = 0; l < LANES; l++) out[j * width + i + l] = x[(i + l) * stride + j];
    for (; i < n; i++)
        for (size_t j = 0; j < d; j++) out[j * width + i] = x[i * stride + j];
}

/* scores[rows][width] of queries [r0, r0 + rows) against positions 0..r0+rows-1, softmaxed */
static void score_block(float *scores, size_t width, const float *q, const float *keys, size_t r0,
                        size_t rows, const opd__attention_args *a) {
    float scale = 1.0f / sqrtf((float)a->head_dim);
    size_t columns = r0 + rows;
    ISA(gemm)(rows, columns, a->head_dim, q + r0 * a->stride, a->stride, 1, keys, width, scores,
              width, false);
    for (size_t i = 0; i < rows; i++)
        softmax_row(scores + i * width, r0 + i + 1, opd__round_up(columns), scale);
}

static void ISA(attention)(const opd__attention_args *a) {
    const size_t block = OPD__ATTENTION_ROWS / 2, width = opd__round_up(a->n);
    float *keys = a->scratch, *scores = keys + a->head_dim * width;
    transpose(keys, width, a->k, a->stride, a->n, a->head_dim);
    for (size_t h = 0; h < a->group; h++) {
        const float *q = a->q + h * a->head_dim;
        float *out = a->out + h * a->head_dim;
        for (size_t r = 0; r < a->n; r += block) {
            size_t rows = a->n - r < block ? a->n - r : block;
            score_block(scores, width, q, keys, r, rows, a);
            ISA(gemm)(rows, a->head_dim, r + rows, scores, width, 1, a->v, a->stride,
                      out + r * a->out_stride, a->out_stride, false);
        }
    }
}

/* ds = p * (dp - sum_j p_j dp_j) * scale, in place in dp; columns is what p holds */
static void softmax_grad_row(float *dp, const float *p, size_t columns, float scale) {
    lanes sum = lanes_all(0.0f), factor = lanes_all(scale);
    for (size_t i = 0; i < columns; i += LANES) sum += lanes_load(p + i) * lanes_load(dp + i);
    lanes mean = lanes_all(lanes_fold_sum(sum));
    for (size_t i = 0; i < columns; i += LANES)
        lanes_store(dp + i, lanes_load(p + i) * (lanes_load(dp + i) - mean) * factor);
}

/* One block of query rows of one head: dq, and its share of dk and dv. */
static void grad_block(const opd__attention_args *a, size_t h, size_t r, size_t rows,
                       const float *keys, const float *values, float *p, float *dp) {
    const size_t width = opd__round_up(a->n), d = a->head_dim, columns = r + rows;
    const float *q = a->q + h * d, *dout = a->dout + h * d + r * a->out_stride;
    float scale = 1.0f / sqrtf((float)d);
    score_block(p, width, q, keys, r, rows, a);
    ISA(gemm)(rows, columns, d, dout, a->out_stride, 1, values, width, dp, width, false);
    for (size_t i = 0; i < rows; i++) {
        for (size_t j = columns; j < opd__round_up(columns); j++) dp[i * width + j] = 0.0f;
        softmax_grad_row(dp + i * width, p + i * width, opd__round_up(columns), scale);
    }
    ISA(gemm)(rows, d, columns, dp, width, 1, a->k, a->stride, a->dq + h * d + r * a->stride,
              a->stride, false);
    ISA(gemm)(columns, d, rows, dp, 1, width, q + r * a->stride, a->stride, a->dk, a->stride, true);
    ISA(gemm)(columns, d, rows, p, 1, width, dout, a->out_stride, a->dv, a->stride, true);
}

static void ISA(attention_grad)(const opd__attention_args *a) {
    const size_t block = OPD__ATTENTION_ROWS, width = opd__round_up(a->n), d = a->head_dim;
    float *keys = a->scratch, *values = keys + d * width;
    float *p = values + d * width, *dp = p + block * width;
    transpose(keys, width, a->k, a->stride, a->n, d);
    transpose(values, width, a->v, a->stride, a->n, d);
    for (size_t i = 0; i < a->n; i++) {
        memset(a->dk + i * a->stride, 0, d * sizeof(float));
        memset(a->dv + i * a->stride, 0, d * sizeof(float));
    }
    for (size_t h = 0; h < a->group; h++)
        for (size_t r = 0; r < a->n; r += block)
            grad_block(a, h, r, a->n - r < block ? a->n - r : block, keys, values, p, dp);
}

static void ISA(attention_decode)(float *out, const float *q, const float *keys,
                                  const float *values, size_t length, size_t capacity,
                                  size_t group, size_t head_dim, float *scores) {
    size_t width = opd__round_up(length);
    float scale = 1.0f / sqrtf((float)head_dim);
    ISA(gemm)(group, length, head_dim, q, head_dim, 1, keys, capacity, scores, width, false);
    for (size_t h = 0; h < group; h++) softmax_row(scores + h * width, length, width, scale);
    ISA(gemm)(group, head_dim, length, scores, width, 1, values, head_dim, out, head_dim, false);
}

/* Keys and values of the new rows that the pages do not hold yet. */
static void paged_put(const opd__paged_args *a) {
    for (size_t i = a->seq->filled - a->seq->past; i < a->n; i++) {
        size_t position = a->seq->past + i, place = position % OPD_KV_PAGE;
        float *page = a->seq->base + a->seq->pages[position / OPD_KV_PAGE] * a->seq->stride;
        const float *key = a->k + i * a->stride;
        for (size_t j = 0; j < a->head_dim; j++) page[a->keys_at + j * OPD_KV_PAGE + place] = key[j];
        memcpy(page + a->values_at + place * a->head_dim, a->v + i * a->stride,
               a->head_dim * sizeof(float));
    }
}

/* The new rows [r, r + rows) of one head. A page's part of an output goes on with the chain of
 * the pages before it, so that pages change no bit. */
static void paged_block(const opd__paged_args *a, size_t head, size_t r, size_t rows) {
    size_t columns = a->seq->past + r + rows, width = opd__round_up(columns), d = a->head_dim;
    const float *q = a->q + head * d + r * a->stride;
    float *scores = a->scratch, *out = a->out + head * d + r * a->out_stride;
    float scale = 1.0f / sqrtf((float)d);
    for (size_t c = 0; c < columns; c += OPD_KV_PAGE) {
        const float *page = a->seq->base + a->seq->pages[c / OPD_KV_PAGE] * a->seq->stride;
        ISA(gemm)(rows, columns - c < OPD_KV_PAGE ? columns - c : OPD_KV_PAGE, d, q, a->stride, 1,
                  page + a->keys_at, OPD_KV_PAGE, scores + c, width, false);
    }
    for (size_t i = 0; i < rows; i++)
        softmax_row(scores + i * width, a->seq->past + r + i + 1, width, scale);
    for (size_t c = 0; c < columns; c += OPD_KV_PAGE) {
        const float *page = a->seq->base + a->seq->pages[c / OPD_KV_PAGE] * a->seq->stride;
        ISA(gemm)(rows, d, columns - c < OPD_KV_PAGE ? columns - c : OPD_KV_PAGE, scores + c, width,
                  1, page + a->values_at, d, out, a->out_stride, c > 0);
    }
}

static void ISA(attention_paged)(const opd__paged_args *a) {
    const size_t block = OPD__ATTENTION_ROWS / 2;
    paged_put(a);
    for (size_t h = 0; h < a->group; h++)
        for (size_t r = 0; r < a->n; r += block)
            paged_block(a, h, r, a->n - r < block ? a->n - r : block);
}
