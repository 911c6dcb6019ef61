/* critic.h - PPO's critic: a linear head on the student's last hidden state.
 *
 *   V_t = w . h_t + b,   h_t the state that predicts response token t
 * Its loss (value_loss.h) reaches w and b, with a learning rate of their own, and through h_t the
 * student's weights, by the weight `coef`. w and b begin at 0, so that V = 0.
 *
 * The head looks like a model of two tensors, value_head.weight [1, hidden] and value_head.bias
 * [1], so that AdamW and checkpoints treat it like one. Thread: the trainer's lane; the critic
 * owns its head, gradients, moments and scratch.
 */
#ifndef OPD_ACTORS_TRAINER_CRITIC_H
#define OPD_ACTORS_TRAINER_CRITIC_H

#include "actors/trainer/value_loss.h"
#include "models/optimizer.h"
#include "opd/alloc.h"

typedef struct opd_critic_config {
    double clip; /* of the value loss, 0 = none           */
    double coef; /* of the value loss in the whole loss   */
} opd_critic_config;

typedef struct opd_critic {
    opd_critic_config config;
    opd_model head; /* params [hidden + 1] */
    opd_tensor tensors[2];
    opd_optimizer *optimizer;
    float *grads;   /* [hidden + 1]              */
    float *hidden;  /* [rows_max, hidden] h_t of a micro-batch: the caller fills it, ...   */
    float *dhidden; /* [rows_max, hidden] ... and finds the gradient here                  */
    float *values, *dvalues; /* [rows_max] */
    size_t rows_max;
} opd_critic;

/* Errors: NOMEM, INVALID (the optimizer's settings). Caller destroys. */
OPD_MUST_CHECK opd_err opd_critic_create(const opd_critic_config *config,
                                         const opd_optimizer_config *optimizer, size_t hidden,
                                         size_t rows_max, const opd_alloc *alloc, opd_critic **out);
void opd_critic_destroy(opd_critic *critic);

/* V of the `rows` <= rows_max states in critic->hidden to out[rows]. */
void opd_critic_values(const opd_critic *critic, size_t rows, float *out);

/* coef times the value loss of these states: adds to critic->grads, overwrites critic->dhidden.
 * old_values, returns, weights [rows]. The stats are without coef. */
void opd_critic_loss(opd_critic *critic, size_t rows, const float *old_values,
                     const float *returns, const float *weights, opd_value_stats *stats);

/* Zeroes the gradients; makes one step with them. */
void opd_critic_begin(opd_critic *critic);
void opd_critic_step(opd_critic *critic, opd_kernels *kernels);

#endif
