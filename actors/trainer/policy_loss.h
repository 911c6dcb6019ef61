/* actors/trainer/policy_loss.h - losses on token log-probs, and how they are averaged.
 *
 * Every loss here is  sum over tokens of w_t x_t : the weight w_t holds the whole reduction
 * (mask, per-sample or per-token mean, batch size), is computed once for a global batch, and
 * then serves any cut of it into micro-batches, whose losses and gradients simply add up.
 * The functions return d loss / d l_t, l_t the current log-prob of the sampled token; the
 * model turns that into logit gradients,  dlogit_j = (d loss / d l_t) ([j = token] - p_j) / T,
 * plus, for the entropy bonus, coefficient w_t (see opd_policy_loss).
 *
 * Per token (PPO, Schulman et al. 2017; dual clip, Ye et al. 2020, arXiv 1912.09729):
 *   rho = exp(l - l_old)    L1 = -rho A    L2 = -clip(rho, 1 - low, 1 + high) A
 *   x = max(L1, L2);  with dual clip c and A < 0:  x = min(-c A, max(L1, L2))
 *
 * A token of weight 0 is skipped: its values are never read. Sums run in double in array
 * order. Thread: any; no state. Memory: all arrays are the caller's.
 */
#ifndef OPD_ACTORS_TRAINER_POLICY_LOSS_H
#define OPD_ACTORS_TRAINER_POLICY_LOSS_H

#include <stddef.h>
#include <stdint.h>

#include "opd/err.h"

typedef enum opd_reduction {
    OPD_REDUCTION_SAMPLE_MEAN, /* w = m / max(1, sum of m in the sample) / batch size; a sample
                                  without tokens still counts in the batch size (seed's default) */
    OPD_REDUCTION_TOKEN_MEAN   /* w = m / sum over samples of max(1, sum of m)                   */
} opd_reduction;

/* Writes out_weights[tokens]. `batch_size`: samples of the global batch (all ranks, all
 * micro-batches), used by SAMPLE_MEAN; `batch_tokens`: opd_reduction_tokens of the global
 * batch, used by TOKEN_MEAN. Sample i owns tokens offsets[i] .. offsets[i+1]-1; mask NULL = all.
 * A divisor of 0 is a programmer's error. */
void opd_reduction_weights(opd_reduction reduction, size_t sample_count, const size_t *offsets,
                           const uint8_t *mask, size_t batch_size, size_t batch_tokens,
                           float *out_weights);

/* Sum over samples of max(1, number of mask bits): the divisor of TOKEN_MEAN. */
size_t opd_reduction_tokens(size_t sample_count, const size_t *offsets, const uint8_t *mask);

typedef struct opd_policy_config {
    double clip_low;     /* epsilon below, 0.2                           */
    double clip_high;    /* epsilon above, 0.2                           */
    double dual_clip;    /* c > 1, or 0 = off                            */
    double entropy_coef; /* bonus: loss = ... - entropy_coef * entropy   */
} opd_policy_config;

/* Weighted sums; zero them before the first micro-batch, each call adds. A later KL loss
 * adds its own term to `loss` and to out_dlogp in the same way. */
typedef struct opd_policy_stats {
    double loss;      /* pg_loss - entropy_coef * entropy         */
    double pg_loss;   /* sum of w x                               */
    double clip_frac; /* sum of w [L2 > L1]                       */
    double ppo_kl;    /* sum of w (l_old - l)                     */
    double entropy;   /* sum of w H, 0 when no entropy was given  */
} opd_policy_stats;

/* OPD_OK, or OPD_ERR_CONFIG naming the setting that cannot be (dual clip not above 1, a
 * negative or non-finite number). */
OPD_MUST_CHECK opd_err opd_policy_config_check(const opd_policy_config *config);

/* The policy loss of `token_count` tokens.
 *   logp, old_logp, advantages, weights  [token_count]
 *   entropy     [token_count] entropy of the student's distribution, or NULL = not measured
 *   out_dlogp   [token_count] d loss / d l, overwritten; 0 where the weight is 0
 *   out_dentropy [token_count] d loss / d H = -entropy_coef w, overwritten; NULL = not wanted
 * Non-finite inputs give non-finite sums, which the caller tests; nothing is hidden. */
void opd_policy_loss(const opd_policy_config *config, size_t token_count, const float *logp,
                     const float *old_logp, const float *advantages, const float *weights,
                     const float *entropy, float *out_dlogp, float *out_dentropy,
                     opd_policy_stats *stats);

#endif
