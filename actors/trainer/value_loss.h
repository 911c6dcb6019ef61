/* actors/trainer/value_loss.h - the loss of PPO's value head.
 *
 * V is the value of a token now, V_old when the batch began, R its return (estimator.h):
 *   x = max((V - R)^2, (V_c - R)^2),   V_c = V held within [V_old - clip, V_old + clip]
 *   loss = sum over tokens of w x
 * (PPO's implementation, Schulman et al. 2017; the seed's form, without a factor 1/2), with the
 * weights of policy_loss.h. A token of weight 0 is skipped, unread.
 *
 * Thread: any; no state. Memory: all arrays are the caller's.
 */
#ifndef OPD_ACTORS_TRAINER_VALUE_LOSS_H
#define OPD_ACTORS_TRAINER_VALUE_LOSS_H

#include <stddef.h>

/* Weighted sums; zero them before the first micro-batch, each call adds. */
typedef struct opd_value_stats {
    double loss;      /* sum of w x                                        */
    double clip_frac; /* sum of w [the clipped form is the larger]         */
} opd_value_stats;

/* The loss of `count` tokens, all arrays [count]; clip > 0, or 0 = none. Overwrites
 * out_dvalues with d loss / d V. */
void opd_value_loss(double clip, size_t count, const float *values, const float *old_values,
                    const float *returns, const float *weights, float *out_dvalues,
                    opd_value_stats *stats);

#endif
