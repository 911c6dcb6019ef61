/* contrast.c - rows of logits to gradients, and the choice of tokens (contrast.h).
 *
 * A row is passed over three times: its normaliser and entropy, the divergence on the support, the
 * gradient. The ids of the support are written last, each from its own terms, so that a small
 * difference of large ones is never rounded to a float in between. */
#include "actors/trainer/contrast.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/check.h"

struct opd_contrast {
    opd_contrast_config config;
    const opd_alloc *alloc;
    size_t vocab, width; /* ids of a support at most */
    opd_contrast_rows rows;
    opd_contrast_stats *stats;
    int32_t *ids; /* of the row at work, [width], ... */
    double *student, *teacher, *grads;
};

opd_err opd_contrast_create(const opd_contrast_config *config, size_t vocab, const opd_alloc *alloc,
                          opd_contrast **out_contrast) {
    bool lists = config->support != OPD_SUPPORT_SAMPLED && config->support != OPD_SUPPORT_FULL;
    OPD_TRY(opd_divergence_check(&config->divergence));
    if (!isfinite(config->coef) || config->coef < 0)
        return opd_fail(OPD_ERR_CONFIG, "opd.loss_coef is %g; it must be a number of at least 0",
                        config->coef);
    if (lists && (config->k == 0 || config->k > vocab))
        return opd_fail(OPD_ERR_CONFIG, "opd.log_prob_top_k is %zu; this support needs from 1 to the "
                        "%zu ids of the vocabulary", config->k, vocab);
    if (config->selection != OPD_SELECT_ALL && !(config->token_share > 0 && config->token_share <= 1))
        return opd_fail(OPD_ERR_CONFIG, "opd.token_share is %g; it must be above 0, up to 1",
                        config->token_share);
    opd_contrast *c = opd_mem_get(alloc, sizeof *c);
    if (c == NULL) return opd_fail(OPD_ERR_NOMEM, "trainer: no memory for the divergence");
    *c = (opd_contrast){.config = *config, .alloc = alloc, .vocab = vocab,
                      .width = opd_support_max(config->support, config->k, vocab)};
    c->ids = opd_mem_get(alloc, c->width * sizeof *c->ids);
    c->grads = opd_mem_get(alloc, c->width * sizeof *c->grads);
    c->student = opd_mem_get(alloc, c->width * sizeof *c->student);
    c->teacher = opd_mem_get(alloc, c->width * sizeof *c->teacher);
    if (c->ids == NULL || c->grads == NULL || c->student == NULL || c->teacher == NULL) {
        opd_contrast_destroy(c);
        return opd_fail(OPD_ERR_NOMEM, "trainer: no memory for the ids of a support");
    }
    *out_contrast = c;
    return OPD_OK;
}

void opd_contrast_destroy(opd_contrast *c) {
    if (c == NULL) return;
    void *blocks[] = {c->ids, c->grads, c->student, c->teacher};
    for (size_t i = 0; i < OPD_COUNTOF(blocks); i++) opd_mem_free(c->alloc, blocks[i]);
    opd_mem_free(c->alloc, c);
}

void opd_contrast_begin(opd_contrast *c, const opd_contrast_rows *rows, opd_contrast_stats *stats) {
    c->rows = *rows;
    c->stats = stats;
}

/* ---- one row ---- */

static size_t take_support(opd_contrast *c, size_t row, int32_t *out_ids) {
    const opd_contrast_rows *in = &c->rows;
    opd_support_row support = {
        .kind = c->config.support, .k = c->config.k, .vocab = c->vocab,
        .floored = c->config.divergence.logp_floor < 0, .sampled = in->rows[row].target,
        .sampled_logp = in->teacher_logp != NULL ? in->teacher_logp[row] : 0,
        .student_ids = in->student_ids != NULL ? in->student_ids + row * in->student_k : NULL,
        .asked_logp = in->asked_logps != NULL ? in->asked_logps + row * in->student_k : NULL,
        .listed = in->listed, .teacher_ids = in->teacher_ids + row * in->listed,
        .teacher_logp = in->teacher_logps + row * in->listed};
    return opd_support_take(&support, out_ids, c->teacher);
}

/* log-softmax of a row: log p_j = logits[j] * inverse - normaliser. */
typedef struct softmax {
    double inverse, normaliser, entropy;
} softmax;

static softmax softmax_of(const float *logits, double inverse, size_t vocab) {
    double top = -INFINITY, sum = 0, mean = 0;
    for (size_t j = 0; j < vocab; j++) top = fmax(top, (double)logits[j]);
    for (size_t j = 0; j < vocab; j++) {
        double z = ((double)logits[j] - top) * inverse, e = exp(z);
        sum += e;
        if (e > 0) mean += e * z;
    }
    return (softmax){inverse, top * inverse + log(sum), log(sum) - mean / sum};
}

static double logp_of(const softmax *m, float logit) {
    return (double)logit * m->inverse - m->normaliser;
}

/* The divergence of a row on its `count` ids: their log-probs and gradients. */
static opd_divergence_result measure_row(opd_contrast *c, const softmax *m, size_t count, double weight,
                                         const float *logits) {
    opd_divergence_result result;
    for (size_t i = 0; i < count; i++) c->student[i] = logp_of(m, logits[c->ids[i]]);
    opd_divergence_row in = {.k = count, .vocab = c->vocab, .student = c->student,
                             .teacher = c->teacher,
                             .drawn = c->config.support == OPD_SUPPORT_SAMPLED};
    opd_divergence(&c->config.divergence, &in, c->grads, &result);
    c->stats->loss += weight * result.loss;
    c->stats->clipped += result.clipped ? weight : 0;
    c->stats->student_mass += weight * result.student_mass;
    c->stats->teacher_mass += weight * result.teacher_mass;
    c->stats->weight += weight;
    return result;
}

/* Of the gradient of all distillation: the divergence, and the OPD term with its derivative `dlogp` by the
 * log-prob of the drawn id. `all`: the sum of the squares of all probabilities. */
static void add_squares(opd_contrast *c, const softmax *m, size_t count, double scale,
                        const opd_divergence_result *result, double all, double dlogp, double drawn_logp,
                        int32_t drawn) {
    double squares = 0, left = all, outside = scale * (result->outside - result->sum) - dlogp;
    bool apart = true; /* the drawn id is outside of the support */
    for (size_t i = 0; i < count; i++) {
        bool is_drawn = c->ids[i] == drawn;
        double p = exp(c->student[i]), g = scale * (c->grads[i] - result->sum * p) - dlogp * p;
        if (is_drawn) g += dlogp;
        apart = apart && !is_drawn;
        squares += g * g;
        left -= p * p;
    }
    if (apart) {
        double p = exp(drawn_logp), g = outside * p + dlogp;
        squares += g * g;
        left -= p * p;
    }
    squares += outside * outside * fmax(left, 0);
    c->stats->squares += squares * m->inverse * m->inverse;
}

static void grad_row(opd_contrast *c, size_t row, float *logits) {
    const opd_contrast_rows *in = &c->rows;
    softmax m = softmax_of(logits, (double)in->rows[row].inverse_temperature, c->vocab);
    double weight = (double)in->weights[row], scale = c->config.coef * weight;
    double dlogp = (double)in->dlogp[row];
    double dentropy = in->dentropy != NULL ? (double)in->dentropy[row] : 0;
    opd_divergence_result result = {.loss = 0};
    size_t count = weight != 0 ? take_support(c, row, c->ids) : 0;
    if (count > 0) result = measure_row(c, &m, count, weight, logits);
    double common = dlogp + scale * result.sum, outside = scale * result.outside - common;
    double dopd = in->dlogp_opd != NULL ? (double)in->dlogp_opd[row] : 0, squares = 0;
    double drawn_logp = logp_of(&m, logits[in->rows[row].target]);
    for (size_t j = 0; j < c->vocab; j++) {
        double logp = logp_of(&m, logits[j]), p = exp(logp);
        double from_entropy = dentropy != 0 && p > 0 ? dentropy * p * (logp + m.entropy) : 0;
        logits[j] = (float)(m.inverse * (outside * p - from_entropy));
        squares += p * p;
    }
    for (size_t i = 0; i < count; i++) {
        double logp = c->student[i], p = exp(logp);
        double from_entropy = dentropy != 0 && p > 0 ? dentropy * p * (logp + m.entropy) : 0;
        logits[c->ids[i]] = (float)(m.inverse * (scale * c->grads[i] - common * p - from_entropy));
    }
    logits[in->rows[row].target] += (float)(m.inverse * dlogp);
    double rl = (dlogp - dopd) * m.inverse, spread = 1 - 2 * exp(drawn_logp) + squares;
    c->stats->policy_squares += rl * rl * fmax(spread, 0);
    add_squares(c, &m, count, scale, &result, squares, dopd, drawn_logp, in->rows[row].target);
}

void opd_contrast_grad(void *contrast, size_t first, size_t count, float *logits) {
    opd_contrast *c = contrast;
    for (size_t i = 0; i < count; i++) grad_row(c, first + i, logits + i * c->vocab);
}

/* ---- the choice of tokens ---- */

static bool any_id(const int32_t *ids, size_t k) {
    for (size_t j = 0; j < k; j++)
        if (ids[j] >= 0) return true;
    return false;
}

static bool any_number(const float *logp, size_t k) {
    for (size_t j = 0; j < k; j++)
        if (!isnan(logp[j])) return true;
    return false;
}

void opd_contrast_covered(const opd_contrast_config *config, size_t rows, const uint8_t *valid,
                          size_t listed, const int32_t *ids, size_t asked_k, const float *asked,
                          uint8_t *out_covered) {
    bool asks = opd_support_asks(config->support);
    bool lists = config->support != OPD_SUPPORT_SAMPLED && config->support != OPD_SUPPORT_STUDENT_TOPK;
    for (size_t t = 0; t < rows; t++)
        out_covered[t] = valid[t] && (!lists || any_id(ids + t * listed, listed)) &&
                         (!asks || any_number(asked + t * asked_k, asked_k));
}

void opd_constant_teacher(double prob, size_t n, const float *student_logp, float *out_logp,
                          uint8_t *out_valid) {
    double bound = log(prob);
    for (size_t t = 0; t < n; t++) {
        out_logp[t] = student_logp[t] - ((double)student_logp[t] < bound ? 1 : 0);
        out_valid[t] = 1;
    }
}

size_t opd_contrast_share(const opd_contrast_config *config, size_t n) {
    if (config->selection == OPD_SELECT_ALL || n == 0) return n;
    size_t share = (size_t)ceil(config->token_share * (double)n);
    return share > n ? n : share;
}

/* Least and most of the values with mask 1. */
typedef struct range {
    double low, high;
} range;

static void widen(range *r, double value) {
    r->low = fmin(r->low, value);
    r->high = fmax(r->high, value);
}

static double scaled(const range *r, double value) {
    return r->high > r->low ? (value - r->low) / (r->high - r->low) : 0;
}

void opd_contrast_rank(const opd_contrast_config *config, size_t n, const uint8_t *mask, const float *entropy,
                       const float *student_logp, const float *teacher_logp, float *out_scores) {
    range entropies = {INFINITY, -INFINITY}, gaps = entropies;
    for (size_t t = 0; t < n; t++) {
        if (!mask[t]) continue;
        widen(&entropies, (double)entropy[t]);
        widen(&gaps, (double)fabsf(student_logp[t] - teacher_logp[t]));
    }
    for (size_t t = 0; t < n; t++) {
        if (!mask[t]) continue;
        float gap = fabsf(student_logp[t] - teacher_logp[t]);
        double h = scaled(&entropies, (double)entropy[t]), d = scaled(&gaps, (double)gap);
        switch (config->selection) {
        case OPD_SELECT_ALL: break;
        case OPD_SELECT_ENTROPY: out_scores[t] = entropy[t]; break;
        case OPD_SELECT_DIVERGENCE: out_scores[t] = gap; break;
        case OPD_SELECT_ENTROPY_OR_DIVERGENCE: out_scores[t] = (float)(h + d - h * d); break;
        case OPD_SELECT_ENTROPY_AND_DIVERGENCE: out_scores[t] = (float)(h * d); break;
        }
    }
}

/* Whether token a is less worth selecting than b. */
static bool ranks_after(const float *scores, size_t a, size_t b) {
    return scores[a] < scores[b] || (!(scores[a] > scores[b]) && a > b);
}

/* Restores below `at` a heap whose root is the least worth. */
static void sift_down(const float *scores, size_t *heap, size_t n, size_t at) {
    for (size_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && ranks_after(scores, heap[child + 1], heap[child])) child++;
        if (!ranks_after(scores, heap[child], heap[at])) return;
        size_t token = heap[at];
        heap[at] = heap[child];
        heap[child] = token;
    }
}

void opd_contrast_select(const opd_contrast_config *config, size_t n, const uint8_t *mask,
                       const float *scores, size_t *order, uint8_t *out_mask) {
    if (config->selection == OPD_SELECT_ALL) {
        memcpy(out_mask, mask, n);
        return;
    }
    size_t usable = 0, kept = 0;
    for (size_t t = 0; t < n; t++) usable += mask[t] != 0;
    size_t share = opd_contrast_share(config, usable);
    memset(out_mask, 0, n);
    for (size_t t = 0; t < n && share > 0; t++) { /* a heap of the `share` first-ranking ones */
        if (!mask[t]) continue;
        if (kept < share) {
            order[kept++] = t;
            if (kept == share)
                for (size_t i = share / 2; i-- > 0;) sift_down(scores, order, share, i);
        } else if (ranks_after(scores, order[0], t)) {
            order[0] = t;
            sift_down(scores, order, share, 0);
        }
    }
    for (size_t i = 0; i < kept; i++) out_mask[order[i]] = 1;
}
