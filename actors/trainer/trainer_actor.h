/* trainer_actor.h - the actor that owns the student's weights and steers a stage.
 *
 * In: SAMPLE (from the batcher) or EXAMPLE (from dataset), INTERRUPT. Out: ADMIT to dataset,
 * new weights into the slot, REPORT and ACCURACY to monitor, SAVE to checkpoint, EVALUATE to
 * evaluator. The steering:
 *
 *   start -> [evaluate] -> admit -> (batch full -> learn -> publish -> [save] -> [evaluate]
 *         -> admit)* -> publish -> [evaluate] -> save -> the system stops with OPD_OK
 *
 * Evaluations beside the training (eval_weights) do not hold up what follows but another one; the
 * stage's end waits for them.
 *
 * Stopped by others (STOP) it ends the batch at work and saves, if the newest checkpoint is older.
 *
 * Weights version = batches done. Admission bound = (version + max_staleness + 1) batches, so
 * the lag of any sample is at most max_staleness by construction.
 *
 * Over-sampling (spare_groups more than a batch needs are in work): when a batch is full the groups behind
 * it are void, and their prompts are the first of the next batch, under its weights. What a batch is made
 * of is therefore the same with it and without.
 *
 * Other roles may be restarted. Samples of a batcher (or dataset) that roles does not name any more
 * are dropped: a new one begins at outcome->groups_taken and makes the same samples again. SAVE and
 * EVALUATE are asked again, for half a minute, where the one asked is gone.
 * Thread: the loop; learning and snapshots run on the trainer's lane.
 */
#ifndef OPD_ACTORS_TRAINER_ACTOR_H
#define OPD_ACTORS_TRAINER_ACTOR_H

#include "actors/evaluator/sets.h"
#include "actors/roles.h"
#include "actors/trainer/learner.h"
#include "opd/config.h"

extern const opd_actor_class opd_trainer_class;

/* What a stage ends with; filled by the trainer, read after the system has stopped. A resumed
 * stage begins with the counts of its checkpoint. */
typedef struct opd_trainer_outcome {
    bool finished;              /* all batches done and saved                   */
    uint64_t steps, version;    /* batches done                                 */
    bool has_before;            /* the first set was evaluated at the start     */
    uint64_t before_correct, before_total;
    uint64_t best_step, best_1e9; /* of config best: the checkpoint, 0 = none; billionths */
    opd_set_outcome sets[OPD_EVAL_SETS_MAX]; /* `before` of this process alone   */
    uint64_t samples, response_tokens, invalid_tokens, unscored_batches, skipped_steps;
    uint64_t degraded_tokens;   /* scored by fewer teachers than wanted, or a fallback */
    double score_wait_s;        /* idle with nothing missing but scores, in this process */
    /* places in dataset order where a data plane that is started again begins: the first that no batch
     * took, and the bound of the newest ADMIT */
    uint64_t groups_taken, groups_admitted;
    uint64_t restarts; /* of services and of the data plane; the tree counts */
} opd_trainer_outcome;

/* Borrowed until the actor has stopped. */
typedef struct opd_trainer_config {
    opd_learner *learner;       /* on `model`, made for the lane's kernels              */
    opd_model *model;
    opd_objective objective;
    opd_lane *lane;
    opd_slot *weights;          /* published here                                       */
    const opd_roles *roles;
    uint64_t first_step, steps; /* batches done before (resume), batches in all          */
    uint64_t first_group;       /* the first that is not learnt (resume)                 */
    bool filter;                /* the batcher may send FILTERED                         */
    uint32_t spare_groups;      /* of over-sampling; max_staleness is 0 then             */
    uint32_t batch_prompts;     /* groups (or examples) per batch                        */
    uint32_t samples_per_prompt; /* 1 for examples                                       */
    uint32_t max_staleness;
    size_t tokens_max;          /* of a batch                                           */
    size_t teacher_k, asked_k;  /* widths of the lists in a batch                       */
    bool teacher;               /* scores are expected                                  */
    const opd_config_teacher *teachers; /* all that there are; SCORES name them by place */
    size_t teacher_count;
    const opd_eval_sets *evals;
    bool eval_start, eval_end;
    opd_slot *eval_weights;     /* evaluations beside the training; NULL: it waits       */
    uint64_t save_interval;     /* batches; 0 = off                                      */
    const opd_dataset *validation; /* supervised: held-out examples; NULL: none          */
    uint64_t validation_interval; /* batches; 0 = after the last alone                   */
    const opd_eval_metric *best; /* whose best checkpoint is kept; NULL: none is          */
    uint32_t nonfinite_max;     /* skipped batches in a row that stop the run            */
    double invalid_share_max;   /* over invalid_batches, stops the run                   */
    uint32_t invalid_batches;
    uint64_t samples_interval;  /* every k-th sample goes to monitor; 0 = none            */
    opd_trainer_outcome *outcome;
    const opd_alloc *alloc;
} opd_trainer_config;

#endif
