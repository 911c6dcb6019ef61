/* actors/trainer/correction.h - what a token counts that another policy sampled.
 *
 * Three policies meet in a loss: mu sampled the tokens (the rollout's log-probs), pi_old is the
 * learner's before the first step on the batch (recomputed there; the clip is around it), pi is
 * the present one. The ratio pi / pi_old belongs to the loss (policy_loss.h); here
 *   r_t = exp(l_old,t - l_rollout,t)
 * becomes a factor c_t of the token's policy loss, constant over the steps on the batch:
 *   NONE           1
 *   TIS            min(max(r_t, low), high): truncated importance sampling (Yao et al. 2025, "Your
 *                  efficient RL framework secretly brings you off-policy training")
 *   ICEPOP         r_t within [low, high], else 0 (Ling team 2025, "Every step evolves",
 *                  arXiv 2510.18855)
 *   SEQUENCE_MASK  1 for all tokens of a sample whose geometric mean of r_t is within [low, high],
 *                  else 0 (Liu, Li et al. 2025, "When speed kills stability")
 *   DECOUPLED      r_t: the decoupled objective of PPO, pi_old as its proximal policy (Hilton et
 *                  al. 2022, arXiv 2110.00641)
 * Without a factor the expected gradient of a stale batch is that of a loss under mu, which pushes
 * away from what mu liked, right tokens and wrong.
 *
 * Invariants: (1) where mask is 0 nothing is read; (2) where rollout and learner agree in every
 * bit, r = 1, and bounds around 1 leave the factor at exactly 1; (3) sums run in double in array
 * order. Thread: any; no state. Memory: all arrays are the caller's.
 */
#ifndef OPD_ACTORS_TRAINER_CORRECTION_H
#define OPD_ACTORS_TRAINER_CORRECTION_H

#include <stddef.h>
#include <stdint.h>

typedef enum opd_correction_kind {
    OPD_CORRECTION_NONE,
    OPD_CORRECTION_TIS,
    OPD_CORRECTION_ICEPOP,
    OPD_CORRECTION_SEQUENCE_MASK,
    OPD_CORRECTION_DECOUPLED
} opd_correction_kind;

typedef struct opd_correction_config {
    opd_correction_kind kind;
    double low, high; /* low <= 1 <= high; TIS, ICEPOP and SEQUENCE_MASK only */
} opd_correction_config;

/* Sums over the tokens with mask 1; zero them before the first call, each call adds. */
typedef struct opd_correction_stats {
    size_t tokens;
    size_t changed;   /* with a ratio (or a mean of it) outside of the bounds */
    double factors;   /* c_t                                    */
    double abs;       /* |r_t - 1|                              */
    double kl, k3;    /* of rollout and learner: l_rollout - l_old, and r - 1 - ln r */
} opd_correction_stats;

/* Writes out_factors at the rows offsets[0] .. offsets[sample_count] - 1 of the batch's arrays
 * (all [rows]; 1 where the mask is 0). Sample i owns rows offsets[i] .. offsets[i+1] - 1. */
void opd_correction_factors(const opd_correction_config *config, size_t sample_count,
                            const size_t *offsets, const uint8_t *mask, const float *old_logp,
                            const float *rollout_logp, float *out_factors,
                            opd_correction_stats *stats);

#endif
