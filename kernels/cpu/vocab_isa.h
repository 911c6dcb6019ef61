/* kernels/cpu/vocab_isa.h - one row of logits: log-probs, entropy, top-k, gradients, sampling;
 * compiled once per instruction set.
 *
 * Included by ops_*.c. logprob and sample share `normaliser`, so a recorded log-prob equals a
 * recomputed one bit for bit. With z = logits * inv_t: log p_i = z_i - max - log(sum).
 * Order among ids: larger value first, ties by the lower id. Contracts in isa.h, kernels.h.
 */
#include "kernels/cpu/isa.h"
#include "kernels/cpu/lanes_isa.h"

typedef struct softmax_stats {
    float max; /* of z */
    float sum; /* of exp(z - max) */
    float log_sum;
    float mean; /* of z - max under p */
} softmax_stats;

LANES_INLINE lanes scaled(const float *logits, size_t i, size_t vocab, float inv_t) {
    return vocab - i >= LANES ? lanes_load(logits + i) * lanes_all(inv_t)
                              : lanes_load_part(logits + i, vocab - i, -INFINITY) * lanes_all(inv_t);
}

static softmax_stats normaliser(const float *logits, float inv_t, size_t vocab) {
    lanes top = lanes_all(-INFINITY), sum = lanes_all(0.0f), mean = lanes_all(0.0f);
    for (size_t i = 0; i < vocab; i += LANES) top = lanes_max(scaled(logits, i, vocab, inv_t), top);
    lanes shift = lanes_all(lanes_fold_max(top));
    for (size_t i = 0; i < vocab; i += LANES) {
        lanes z = scaled(logits, i, vocab, inv_t) - shift, e = lanes_exp(z);
        sum += e;
        mean += lanes_where_positive(e, e * z, lanes_all(0.0f));
    }
    softmax_stats stats = {.max = shift[0], .sum = lanes_fold_sum(sum)};
    stats.log_sum = logf(stats.sum);
    stats.mean = lanes_fold_sum(mean) / stats.sum;
    return stats;
}

/* Whether (value a, id i) ranks after (value b, id j). */
static bool ranks_after(float a, int32_t i, float b, int32_t j) {
    return a < b || (!(a > b) && i > j);
}

/* Restores the heap below `at`: the root of a heap is its last-ranking entry. */
static void sift_down(float *values, int32_t *ids, size_t n, size_t at) {
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= n) return;
        if (child + 1 < n && ranks_after(values[child + 1], ids[child + 1], values[child], ids[child]))
            child++;
        if (!ranks_after(values[child], ids[child], values[at], ids[at])) return;
        float value = values[at];
        int32_t id = ids[at];
        values[at] = values[child];
        ids[at] = ids[child];
        values[child] = value;
        ids[child] = id;
        at = child;
    }
}

static void heap_make(float *values, int32_t *ids, size_t n) {
    for (size_t i = n / 2; i-- > 0;) sift_down(values, ids, n, i);
}

/* Turns a heap into a list, first-ranking first. */
static void heap_sort(float *values, int32_t *ids, size_t n) {
    for (size_t end = n; end-- > 1;) {
        float value = values[0];
        int32_t id = ids[0];
        values[0] = values[end];
        ids[0] = ids[end];
        values[end] = value;
        ids[end] = id;
        sift_down(values, ids, end, 0);
    }
}

/* The k first-ranking of x[0..n), sorted. */
static void top_of(float *values, int32_t *ids, size_t k, const float *x, size_t n) {
    for (size_t i = 0; i < k; i++) {
        values[i] = x[i];
        ids[i] = (int32_t)i;
    }
    heap_make(values, ids, k);
    for (size_t i = k; i < n; i++) {
        if (!ranks_after(values[0], ids[0], x[i], (int32_t)i)) continue;
        values[0] = x[i];
        ids[0] = (int32_t)i;
        sift_down(values, ids, k, 0);
    }
    heap_sort(values, ids, k);
}

static void ISA(logprob)(float *logp, float *entropy, int32_t *top_ids, float *top_logp,
                         size_t top_k, const float *logits, int32_t target, float inv_t,
                         size_t vocab) {
    softmax_stats s = normaliser(logits, inv_t, vocab);
    if (logp != NULL) *logp = logits[target] * inv_t - s.max - s.log_sum;
    if (entropy != NULL) *entropy = s.log_sum - s.mean;
    if (top_k == 0) return;
    top_of(top_logp, top_ids, top_k, logits, vocab);
    for (size_t i = 0; i < top_k; i++) top_logp[i] = top_logp[i] * inv_t - s.max - s.log_sum;
}

/* dz_i = dlogp (1[i = target] - p_i) - dentropy p_i (log p_i + H); dlogits = dz inv_t */
static void ISA(logprob_grad)(float *logits, int32_t target, float inv_t, float dlogp,
                              float dentropy, size_t vocab) {
    softmax_stats s = normaliser(logits, inv_t, vocab);
    lanes shift = lanes_all(s.max), share = lanes_all(1.0f / s.sum);
    lanes mean = lanes_all(s.mean); /* log p + H = z - max - mean */
    lanes from_logp = lanes_all(dlogp), from_entropy = lanes_all(dentropy);
    for (size_t i = 0; i < vocab; i += LANES) {
        lanes z = scaled(logits, i, vocab, inv_t) - shift;
        lanes p = lanes_exp(z) * share;
        lanes spread = lanes_where_positive(p, z - mean, lanes_all(0.0f));
        lanes g = (-from_logp * p - from_entropy * p * spread) * lanes_all(inv_t);
        if (vocab - i >= LANES) lanes_store(logits + i, g);
        else lanes_store_part(logits + i, g, vocab - i);
    }
    logits[target] += dlogp * inv_t;
}

static int32_t most_likely(const float *logits, size_t vocab) {
    size_t best = 0;
    for (size_t i = 1; i < vocab; i++)
        if (logits[i] > logits[best]) best = i;
    return (int32_t)best;
}

/* The index where the running sum of weights first exceeds u * total; the last index of
 * positive weight when rounding leaves none. */
static size_t draw(const float *weights, size_t n, double total, float u) {
    double sum = 0, goal = (double)u * total;
    size_t last = 0;
    for (size_t i = 0; i < n; i++) {
        sum += (double)weights[i];
        if (sum > goal) return i;
        if (weights[i] > 0) last = i;
    }
    return last;
}

/* Draws among the top_k / top_p candidates of `weights` (unnormalised probabilities). */
static int32_t draw_truncated(const float *weights, size_t vocab, float sum,
                              const opd_sampling *sampling, float u, const opd__candidates *room) {
    size_t n = sampling->top_k > 0 && (size_t)sampling->top_k < vocab ? (size_t)sampling->top_k : 0;
    if (n > 0) {
        top_of(room->values, room->ids, n, weights, vocab);
    } else { /* ids below (1-p)/vocab hold less than 1-p together: never in the prefix */
        float floor = (1.0f - sampling->top_p) * sum / (float)vocab * 0.5f;
        for (size_t i = 0; i < vocab; i++) {
            if (weights[i] < floor) continue;
            room->values[n] = weights[i];
            room->ids[n++] = (int32_t)i;
        }
        heap_make(room->values, room->ids, n);
        heap_sort(room->values, room->ids, n);
    }
    double kept = 0, whole = 0;
    for (size_t i = 0; i < n; i++) whole += (double)room->values[i];
    if (sampling->top_k <= 0) whole = (double)sum;
    size_t count = 0;
    while (count < n && (count == 0 || kept < (double)sampling->top_p * whole))
        kept += (double)room->values[count++];
    return room->ids[draw(room->values, count, kept, u)];
}

static void ISA(sample)(int32_t *out_id, float *out_logp, float *logits, float uniform,
                        const opd_sampling *sampling, size_t vocab, const opd__candidates *room) {
    bool greedy = sampling->greedy || !(sampling->temperature > 0);
    float inv_t = greedy ? 1.0f : 1.0f / sampling->temperature;
    softmax_stats s = normaliser(logits, inv_t, vocab);
    if (greedy) {
        *out_id = most_likely(logits, vocab);
        *out_logp = logits[*out_id] * inv_t - s.max - s.log_sum;
        return;
    }
    float *weights = room->values + vocab; /* beside the candidates: logits stay for logp */
    for (size_t i = 0; i < vocab; i += LANES) {
        lanes e = lanes_exp(scaled(logits, i, vocab, inv_t) - lanes_all(s.max));
        if (vocab - i >= LANES) lanes_store(weights + i, e);
        else lanes_store_part(weights + i, e, vocab - i);
    }
    bool whole = (sampling->top_k <= 0 || (size_t)sampling->top_k >= vocab) && sampling->top_p >= 1;
    *out_id = whole ? (int32_t)draw(weights, vocab, (double)s.sum, uniform)
                    : draw_truncated(weights, vocab, s.sum, sampling, uniform, room);
    *out_logp = logits[*out_id] * inv_t - s.max - s.log_sum;
}
