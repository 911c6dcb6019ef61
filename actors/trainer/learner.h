/* learner.h - the computing half of the trainer: turns a batch into optimizer steps.
 *
 * A batch is worked off in units, each short enough for one job on the trainer's lane:
 *   1. the student's log-probs before the first step, for samples whose rollout log-probs
 *      are of older weights (values of the same version are reused: decoder and graph give
 *      the same bits); with a critic for all of them, and its values;
 *   2. where a KL term wants it, the log-probs of the reference model;
 *   3. the scores of several teachers as one (mixture.h), rewards, advantages, the OPD term
 *      (advantage.h), once, then frozen;
 *   4. for each optimizer step over its share of the batch: forward, loss, backward per
 *      micro-batch, then AdamW.
 * A batch without a single valid teacher score (where one has a weight), or without a token that SFT
 * learns, makes no step and is counted.
 *
 * Invariants: (1) the result depends on the batch, the weights, the optimizer state and
 * micro_batch_tokens only, not on threads or on what ran before. Log-probs are the same bits
 * under any micro_batch_tokens; a gradient is a float32 sum per micro-batch, added up over
 * them, so another cut rounds differently (about 1e-7 of its norm); (2) a non-finite loss or gradient leaves weights and
 * moments untouched and is counted.
 * Thread: the trainer's lane between begin and done; the model and the batch are borrowed.
 */
#ifndef OPD_ACTORS_TRAINER_LEARNER_H
#define OPD_ACTORS_TRAINER_LEARNER_H

#include "actors/metrics.h"
#include "actors/trainer/advantage.h"
#include "actors/trainer/batch.h"
#include "actors/trainer/correction.h"
#include "actors/trainer/critic.h"
#include "actors/trainer/distil.h"
#include "actors/trainer/policy_loss.h"
#include "models/lm.h"
#include "models/optimizer.h"

typedef enum opd_objective { OPD_OBJECTIVE_SFT, OPD_OBJECTIVE_POLICY } opd_objective;

typedef struct opd_learner_options {
    const opd_lm_ops *lm;             /* what makes the graph; NULL: the transformer     */
    opd_kernels *kernels;             /* the lane's; borrowed                           */
    opd_model *model;                 /* trained in place; borrowed                     */
    opd_objective objective;
    size_t micro_batch_tokens;        /* packed tokens of a micro-batch, at least one sample */
    size_t samples_max, tokens_max;   /* largest batch                                  */
    size_t teacher_k;                 /* width of the batch's teacher_topk              */
    size_t asked_k;                   /* width of its asked_ids                         */
    size_t student_k;                 /* ids of overlap and support, <= teacher_k       */
    size_t teachers_max;              /* as the batch's, >= 1                           */
    uint32_t steps_per_batch;         /* optimizer steps, >= 1                          */
    double temperature;               /* of the rollouts, > 0                           */
    opd_reduction reduction;
    size_t reduction_length;          /* OPD_REDUCTION_CONSTANT only                    */
    opd_correction_config correction;
    bool rollout_is_old;              /* the loss' ratio is to the rollout's log-probs  */
    const float *ref_params;          /* the reference's weights, borrowed; NULL where no KL
                                         term wants them                                */
    opd_advantage_config advantage;
    opd_contrast_config signal;         /* coef 0: no distillation loss                   */
    double constant_prob;             /* > 0: in place of a teacher, see opd_constant_teacher */
    opd_policy_config policy;
    opd_critic_config critic;         /* the PPO estimator only                         */
    double critic_lr;                 /* the same; else as the optimizer                */
    opd_optimizer_config optimizer;
    uint64_t nonfinite, unscored;     /* batches counted before (resume)                */
    const opd_alloc *alloc;
} opd_learner_options;

typedef struct opd_learner opd_learner;

/* Errors: CONFIG or INVALID (a setting), NOMEM. */
OPD_MUST_CHECK opd_err opd_learner_create(const opd_learner_options *options, opd_learner **out);
void opd_learner_destroy(opd_learner *learner);

/* Starts on a batch, which stays untouched until done. */
void opd_learner_begin(opd_learner *learner, const opd_batch *batch);

/* Does the next unit of work; *out_done when the batch is finished. Errors: TEACHER_LOST
 * (policy fail), INVALID or LIMIT (a sample the graph cannot take), NOMEM. */
OPD_MUST_CHECK opd_err opd_learner_advance(opd_learner *learner, bool *out_done);

/* Adds the negative log-probs of a batch's learnt tokens under the present weights to *io_loss, and
 * their number to *io_tokens. Supervised learners between two batches only; nothing is learnt. Errors:
 * as advance. */
OPD_MUST_CHECK opd_err opd_learner_measure(opd_learner *learner, const opd_batch *batch,
                                           double *io_loss, uint64_t *io_tokens);

/* What the finished batch showed; values[] indexed by opd_metric (metrics.h), NaN where not
 * measured. Sample counts, lengths and timing are the actor's to fill in. */
void opd_learner_report(const opd_learner *learner, double values[OPD_METRIC_COUNT]);

/* Of a teacher (its place, below teachers_max) in the finished batch: the share of the response
 * tokens that it scored, and its mean of student minus teacher there; NaN without any. */
void opd_learner_teacher(const opd_learner *learner, size_t teacher, double *out_token_share,
                         double *out_kl);

/* Whether the finished batch changed the weights. */
bool opd_learner_stepped(const opd_learner *learner);

/* Batches in a row that failed for non-finite numbers. */
uint32_t opd_learner_nonfinite_run(const opd_learner *learner);

/* Optimizer steps made so far (a resumed learner starts with the saved number). */
uint64_t opd_learner_steps(const opd_learner *learner);

/* Moments and step counter, for checkpoints. */
opd_optimizer *opd_learner_optimizer(opd_learner *learner);

/* The critic, for checkpoints; NULL unless the estimator is PPO. */
opd_critic *opd_learner_critic(opd_learner *learner);

/* What a checkpoint keeps: weights, first and second moments of the model, then of the critic's
 * head if there is one. So many floats; copies them to out. */
size_t opd_learner_state_count(const opd_learner *learner);
void opd_learner_state_copy(const opd_learner *learner, float *out);

#endif
