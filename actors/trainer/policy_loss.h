/* actors/trainer/policy_loss.h - losses on token log-probs, and how they are averaged.
 *
 * Every loss here is  sum over tokens of w_t x_t : the weight w_t holds the whole reduction
 * (mask, per-sample or per-token mean, batch size), is computed once for a global batch, and
 * then serves any cut of it into micro-batches, whose losses and gradients simply add up.
 * The functions return d loss / d l_t, l_t the current log-prob of the sampled token; the
 * model turns that into logit gradients,  dlogit_j = (d loss / d l_t) ([j = token] - p_j) / T,
 * plus, for the entropy bonus, coefficient w_t (see opd_policy_loss).
 *
 * Per token, with rho = exp(l - l_old), A the advantage, c the correction's factor
 * (correction.h), b in {0, 1} the mask of OPSM:  x = b c L + kl_coef k - entropy_coef H,  where L is
 *   CLIP   L1 = -rho A,  L2 = -clip(rho, 1 - low, 1 + high) A,  L = max(L1, L2)   (PPO, Schulman et
 *          al. 2017, arXiv 1707.06347; high > low is DAPO's clip-higher, arXiv 2503.14476);
 *          dual clip d and A < 0:  L = min(-d A, max(L1, L2))  (Ye et al. 2020, arXiv 1912.09729)
 *   GSPO   the same with one ratio per sample, rho = exp(mean over its tokens of l - l_old), so
 *          that every token's loss reaches every token's l  (Zheng et al. 2025, arXiv 2507.18071)
 *   SAPO   L = -f A,  f = (4 / tau) sigmoid(tau (rho - 1)),  tau = tau_pos where A > 0, else tau_neg
 *          (Qwen team 2025, arXiv 2511.20347)
 *   CISPO  L = -clip(rho, 1 - low, 1 + high) A l, the clipped ratio a constant  (MiniMax-M1,
 *          arXiv 2506.13585)
 *   OPSM   b = 0 where A < 0 and the mean over the sample's tokens of l_rollout - l is above delta:
 *          what the student has left behind is not pushed away further  (off-policy sequence
 *          masking, DeepSeek-V3.2, arXiv 2512.02556)
 *   k      an estimate of KL(student || reference), kl.h
 *   H      the entropy of the student's distribution
 *
 * A token of weight 0 is masked: its values are never read, and means over a sample leave it
 * out. Sums run in double in array order. Thread: any; no state. Memory: all arrays are the caller's.
 */
#ifndef OPD_ACTORS_TRAINER_POLICY_LOSS_H
#define OPD_ACTORS_TRAINER_POLICY_LOSS_H

#include <stddef.h>
#include <stdint.h>

#include "actors/trainer/kl.h"
#include "opd/err.h"

typedef enum opd_reduction {
    OPD_REDUCTION_SAMPLE_MEAN, /* w = m / max(1, sum of m in the sample) / batch size; a sample
                                  without tokens still counts in the batch size (seed's default) */
    OPD_REDUCTION_TOKEN_MEAN,  /* w = m / sum over samples of max(1, sum of m)   (DAPO)          */
    OPD_REDUCTION_CONSTANT     /* w = m / batch size / a constant length, so that no answer counts
                                  less for being long   (Dr. GRPO, Liu et al., arXiv 2503.20783) */
} opd_reduction;

/* What the weights of a global batch (all ranks, all micro-batches) are divided by. */
typedef struct opd_divisor {
    opd_reduction reduction;
    size_t batch_size;   /* samples; SAMPLE_MEAN and CONSTANT                    */
    size_t batch_tokens; /* opd_reduction_tokens of the batch; TOKEN_MEAN        */
    size_t length;       /* the constant length; CONSTANT                        */
} opd_divisor;

/* Writes out_weights[tokens]. Sample i owns tokens offsets[i] .. offsets[i+1]-1; mask NULL = all.
 * A divisor of 0 is a programmer's error. */
void opd_reduction_weights(const opd_divisor *divisor, size_t sample_count, const size_t *offsets,
                           const uint8_t *mask, float *out_weights);

/* Sum over samples of max(1, number of mask bits): the divisor of TOKEN_MEAN. */
size_t opd_reduction_tokens(size_t sample_count, const size_t *offsets, const uint8_t *mask);

typedef enum opd_policy_kind {
    OPD_POLICY_CLIP,
    OPD_POLICY_GSPO,
    OPD_POLICY_SAPO,
    OPD_POLICY_CISPO
} opd_policy_kind;

typedef struct opd_policy_config {
    opd_policy_kind kind;
    double clip_low;     /* epsilon below, 0.2; not read by SAPO         */
    double clip_high;    /* epsilon above, 0.2; not read by SAPO         */
    double dual_clip;    /* d > 1, or 0 = off; CLIP and GSPO only        */
    double tau_pos, tau_neg; /* > 0; SAPO only                           */
    double opsm_delta;   /* > 0, or 0 = off                              */
    double entropy_coef;
    double kl_coef;      /* of the KL loss; 0 = none                     */
    opd_kl_type kl_type;
    bool kl_unbiased;
} opd_policy_config;

/* Samples of a batch, or of a part of it: rows offsets[0] .. offsets[sample_count] - 1 of the
 * batch's arrays, all [rows]. */
typedef struct opd_policy_input {
    size_t sample_count;
    const size_t *offsets;     /* [sample_count + 1] sample i owns rows offsets[i]..offsets[i+1]-1 */
    const float *logp;         /* of the sampled token, now                         */
    const float *old_logp;     /* the same when the batch began                     */
    const float *advantages;
    const float *weights;      /* opd_reduction_weights                             */
    const float *correction;   /* opd_correction_factors; NULL = 1                  */
    const float *rollout_logp; /* OPSM only                                         */
    const float *ref_logp;     /* KL loss only                                      */
    const float *entropy;      /* NULL = not measured                               */
    const float *opd_advantages; /* the OPD term's part of the advantages; NULL = no split */
    float *out_dlogp_opd;      /* overwritten: its part of out_dlogp; with opd_advantages   */
} opd_policy_input;

/* Weighted sums; zero them before the first micro-batch, each call adds. */
typedef struct opd_policy_stats {
    double loss;      /* pg_loss + kl_coef * kl - entropy_coef * entropy           */
    double pg_loss;   /* sum of w b c L                                            */
    double clip_frac; /* sum of w [clipped]: L2 > L1; SAPO: a gate below 0.9 of its most;
                         CISPO: rho outside of the clip                            */
    double ppo_kl;    /* sum of w (l_old - l)                                      */
    double ratio;     /* sum of w exp(l - l_old)                                   */
    double opsm_frac; /* sum of w (1 - b)                                          */
    double kl;        /* sum of w k, 0 without a KL loss                           */
    double weight;    /* sum of w: 1 under TOKEN_MEAN, about 1 under SAMPLE_MEAN   */
    double entropy;   /* sum of w H, 0 when no entropy was given                   */
} opd_policy_stats;

/* OPD_OK, or OPD_ERR_CONFIG naming the setting that cannot be (dual clip not above 1, a
 * negative or non-finite number, a tau of 0). */
OPD_MUST_CHECK opd_err opd_policy_config_check(const opd_policy_config *config);

/* The policy loss of these samples. Overwrites, at their rows:
 *   out_dlogp    [rows] d loss / d l; 0 where the weight is 0
 *   out_dentropy [rows] d loss / d H = -entropy_coef w; NULL = not wanted
 * Non-finite inputs give non-finite sums, which the caller tests; nothing is hidden. */
void opd_policy_loss(const opd_policy_config *config, const opd_policy_input *in,
                     float *out_dlogp, float *out_dentropy, opd_policy_stats *stats);

/* Adds the squares of the norms of two gradients by the logits: of the distillation term, whose part of
 * dlogp is dlogp_opd, and of the rest of dlogp, the reward's (with the KL loss, without the entropy bonus).
 * With g the part of a token's dlogp, its gradient by the logits is g / T ([j = token] - p_j), so no
 * logits are needed:  squares = sum g^2 (1 - 2 p_token + sum_j p_j^2) / T^2.
 * The parts are slopes of the loss as it is: a token whose ratio is clipped, or that OPSM leaves out,
 * has none of either, and a sum is not what the parts would have got alone.
 * logp [rows] of the token; collision [rows]: log sum_j p_j^2 (models/graph.h). */
void opd_policy_norms(size_t rows, double inverse_temperature, const float *logp, const float *collision,
                      const float *dlogp, const float *dlogp_opd, double *io_rl, double *io_opd);

#endif
