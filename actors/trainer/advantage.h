/* actors/trainer/advantage.h - from rewards and teacher scores to per-token advantages.
 *
 * The order is fixed (the seed's):
 *   1. rewards are normalised, by group where the estimator wants so (estimator.h);
 *   2. the estimator makes an advantage A_t of them at every response token (estimator.h);
 *   3. only_reward: A_t = 0 (the seed's name: only the OPD term remains);
 *   4. OPD: A_t = A_t - kl_coef (l_student,t - l_teacher,t) where the score is valid;
 *   5. whitening (optional): A_t = (A_t - mean) / sqrt(var + 1e-8) over the used tokens.
 * In step 4 d_t = l_student - l_teacher on a token drawn from the student estimates
 * KL(student || teacher); it is a constant, no gradient flows through it.
 *
 * Invariants
 *  1. teacher_logp[t] is never read where teacher_valid[t] is 0, nor anything of a token
 *     where mask[t] is 0: such values cannot change one bit of the result.
 *  2. Sums run in double in the order of the arrays: same input, same bits.
 *  3. kl_coef = 0 leaves the advantages exactly as with use_opd = false.
 *
 * A batch is stored flat: sample i owns the response tokens offsets[i] .. offsets[i+1]-1 of
 * every array "[tokens]".  Thread: any; no state.  Memory: all arrays are the caller's.
 */
#ifndef OPD_ACTORS_TRAINER_ADVANTAGE_H
#define OPD_ACTORS_TRAINER_ADVANTAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "actors/trainer/estimator.h"

/* What becomes of a token whose teacher score is not valid. */
typedef enum opd_invalid_policy {
    OPD_INVALID_MASK,              /* no OPD term; under only_reward the token leaves the loss */
    OPD_INVALID_ROLLOUT_LOG_PROBS, /* the seed's fallback: the rollout's log-prob instead      */
    OPD_INVALID_FAIL               /* an error                                                 */
} opd_invalid_policy;

typedef struct opd_advantage_config {
    opd_estimator_config estimator; /* steps 1 and 2                         */
    bool use_opd;                   /* step 4                                */
    bool only_reward;               /* step 3; meaningful with use_opd only  */
    bool whiten;                    /* step 5                                */
    double kl_coef;                 /* lambda of step 4                      */
    opd_invalid_policy invalid_policy;
} opd_advantage_config;

typedef struct opd_advantage_input {
    size_t sample_count;
    const size_t *offsets;        /* [sample_count + 1], non-decreasing, offsets[0] = 0         */
    const uint64_t *groups;       /* [sample_count] same prompt, same number; any order         */
    const double *rewards;        /* [sample_count] read only where reward_valid                */
    const uint8_t *reward_valid;  /* [sample_count] 0 = lost member: RL advantage 0; under
                                     whitening, REINFORCE and PPO it leaves the loss            */
    const uint8_t *mask;          /* [tokens] 1 = token to learn from; NULL = all               */
    const float *student_logp;    /* [tokens] trainer's, before the first step; steps 2 and 4   */
    const float *teacher_logp;    /* [tokens] use_opd only                                      */
    const uint8_t *teacher_valid; /* [tokens] use_opd only                                      */
    const float *rollout_logp;    /* [tokens] policy ROLLOUT_LOG_PROBS only, else NULL is fine  */
    const float *ref_logp;        /* [tokens] the reference's; KL shaping only                  */
    const float *values;          /* [tokens] the critic's; PPO only                            */
    float *out_returns;           /* [tokens] overwritten; PPO only                             */
    float *out_opd;               /* [tokens] overwritten: the OPD term's part of the advantage, 0 where
                                     it has none; whitened, less its own mean. NULL: not wanted */
} opd_advantage_input;

typedef struct opd_advantage_stats {
    double raw_reward_mean;    /* over samples with a reward; 0 if none                        */
    double reward_mean;        /* after step 1, over samples with a reward                     */
    double advantage_mean;     /* final, per sample over used tokens, then over samples        */
    double reverse_kl;         /* d_t over valid tokens per sample, then over samples with any */
    double abs_diff_max;       /* largest |d_t| of a valid token                               */
    double teacher_logp_mean;  /* as reverse_kl                                                */
    size_t response_tokens;    /* tokens with mask 1 on entry                                  */
    size_t valid_tokens;       /* of them, with a valid teacher score                          */
    size_t fallback_tokens;    /* of them, scored by the fallback                              */
    size_t used_tokens;        /* tokens with mask 1 on exit                                   */
    size_t reward_count;       /* samples with a reward                                        */
    bool steppable;            /* an optimizer step makes sense: some token is used, and where
                                  step 4 counts some score is valid (or was replaced by policy) */
} opd_advantage_stats;

/* Steps 1 to 5. Writes out_advantages[tokens] (0 where the mask is 0), out_mask[tokens] (the
 * mask to give the loss; smaller than the input's under MASK with only_reward) and the stats.
 * OPD_ERR_TEACHER_LOST under policy FAIL at the first invalid token (sample and token named);
 * OPD_ERR_INVALID when an array that the configuration needs is NULL; OPD_ERR_NOMEM. */
OPD_MUST_CHECK opd_err opd_advantage_compute(const opd_alloc *alloc,
                                             const opd_advantage_config *config,
                                             const opd_advantage_input *in, float *out_advantages,
                                             uint8_t *out_mask, opd_advantage_stats *out_stats);

/* Step 5 in two halves, so that ranks can add their moments between them. Moments count the
 * values with mask 1. Applying uses var = sum of squared deviations / (n - 1); fewer than two
 * values become 0. mask may not be NULL. */
typedef struct opd_moments {
    double sum, sum_squares;
    double count;
} opd_moments;
void opd_whiten_measure(size_t count, const float *values, const uint8_t *mask,
                        opd_moments *out_moments);
void opd_whiten_apply(const opd_moments *moments, size_t count, const uint8_t *mask,
                      float *values);

#endif
