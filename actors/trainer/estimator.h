/* actors/trainer/estimator.h - from rewards to advantages, before any teacher has a say.
 *
 * Two steps, by estimator; r_i is the reward of sample i, n the members of its group that have one:
 *
 *   GRPO        r' = (r - mean of the group) / (s + 1e-6), s the unbiased standard deviation
 *               (Shao et al. 2024, arXiv 2402.03300); without the division by s it is the
 *               advantage of Dr. GRPO (Liu et al. 2025, arXiv 2503.20783).   A_t = r'
 *   RLOO        r' = r - mean of the others of the group  (Ahmadian et al. 2024, arXiv 2402.14740).
 *               A_t = r'
 *   REINFORCE   REINFORCE++ (Hu et al. 2025, arXiv 2501.03262).  r' = r;
 *               A_t = G_t = x_t + gamma G_(t+1),  x_t = -kl_coef k_t, and r' more at the last token
 *   REINFORCE_BASELINE  its form with a baseline.  r' = r - mean of the group;
 *               A_t = r' - kl_coef k_t
 *   PPO         with values V_t of a critic, V after the last token 0 (generalised advantages, Schulman
 *               et al. 2016, arXiv 1506.02438).  r' = r;  x_t as above;
 *               A_t = x_t + gamma V_(t+1) - V_t + gamma lambda A_(t+1),  return R_t = A_t + V_t
 * where k_t estimates KL(student || reference) at token t from the student's log-prob before the
 * first step (kl.h): KL shaping. GRPO and RLOO have none.
 *
 * Tokens with mask 0 do not exist: neither k_t, nor the discount, nor V_(t+1) sees them. A sample without a
 * reward, and all of a group with fewer than two rewards where the group's mean is wanted, gets
 * r' = 0. Under REINFORCE and PPO a sample without a reward leaves the loss instead (what it should
 * have got is unknown, and 0 is a reward like others).
 *
 * Thread: any; no state. Memory: all arrays are the caller's.
 */
#ifndef OPD_ACTORS_TRAINER_ESTIMATOR_H
#define OPD_ACTORS_TRAINER_ESTIMATOR_H

#include <stddef.h>
#include <stdint.h>

#include "actors/trainer/kl.h"
#include "opd/alloc.h"
#include "opd/err.h"

typedef enum opd_estimator_kind {
    OPD_ESTIMATOR_GRPO,
    OPD_ESTIMATOR_RLOO,
    OPD_ESTIMATOR_REINFORCE,
    OPD_ESTIMATOR_REINFORCE_BASELINE,
    OPD_ESTIMATOR_PPO
} opd_estimator_kind;

typedef struct opd_estimator_config {
    opd_estimator_kind kind;
    bool normalize_rewards; /* GRPO: off = raw rewards, A_t = r                     */
    bool normalize_std;     /* GRPO: divide by s                                    */
    double gamma;           /* 0..1; REINFORCE and PPO                              */
    double lambda;          /* 0..1; PPO                                            */
    double kl_coef;         /* of the shaping; not GRPO, not RLOO                   */
    opd_kl_type kl_type;
} opd_estimator_config;

/* Rewards of a batch. */
typedef struct opd_rewards {
    size_t sample_count;
    const uint64_t *groups;      /* [sample_count] same prompt, same number; any order */
    const double *values;        /* [sample_count] read only where valid               */
    const uint8_t *valid;        /* [sample_count] 0 = lost member                     */
} opd_rewards;

/* r' of every sample to out_normalized[sample_count]. OPD_ERR_NOMEM (a scratch index). */
OPD_MUST_CHECK opd_err opd_reward_normalize(const opd_alloc *alloc,
                                            const opd_estimator_config *config,
                                            const opd_rewards *rewards, double *out_normalized);

/* Whether the reward stands for itself: then a sample that lost it has nothing to learn from. */
bool opd_estimator_absolute(const opd_estimator_config *config);

/* Whether A_t differs from token to token: then opd_estimator_tokens is to be called. */
bool opd_estimator_by_token(const opd_estimator_config *config);

/* One sample; arrays are [count]. */
typedef struct opd_estimator_sample {
    double reward; /* r' */
    size_t count;
    const uint8_t *mask;
    const float *logp, *ref_logp; /* read where kl_coef is not 0 */
    const float *values;          /* PPO                         */
} opd_estimator_sample;

/* A_t to out_advantages[count], and under PPO R_t to out_returns[count]; 0 where the mask is 0. */
void opd_estimator_tokens(const opd_estimator_config *config, const opd_estimator_sample *sample,
                          float *out_advantages, float *out_returns);

#endif
