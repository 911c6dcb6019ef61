/* actors/trainer/sft_loss.h - supervised fine-tuning: cross entropy of the response tokens.
 *
 *   loss = - sum over tokens of w_t l_t,   d loss / d l_t = -w_t
 * with the weights of policy_loss.h: OPD_REDUCTION_TOKEN_MEAN gives the mean over response
 * tokens of the batch, OPD_REDUCTION_SAMPLE_MEAN the mean of per-sample means. The prompt is
 * not learnt: its tokens are not in these arrays. Tokens of weight 0 are skipped, unread.
 *
 * Thread: any; no state. Memory: all arrays are the caller's.
 */
#ifndef OPD_ACTORS_TRAINER_SFT_LOSS_H
#define OPD_ACTORS_TRAINER_SFT_LOSS_H

#include <stddef.h>

/* Adds the loss of `token_count` tokens to *io_loss and overwrites out_dlogp[token_count].
 * logp[t]: log-prob of the target token; weights[t]: see opd_reduction_weights. */
void opd_sft_loss(size_t token_count, const float *logp, const float *weights, float *out_dlogp,
                  double *io_loss);

#endif
