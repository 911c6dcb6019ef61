/* learner_inside.h - the learner's state, for learner.c (which changes it) and learner_report.c
 * (which reads it). Thread: the trainer's lane. */
#ifndef OPD_ACTORS_TRAINER_LEARNER_INSIDE_H
#define OPD_ACTORS_TRAINER_LEARNER_INSIDE_H

#include "actors/trainer/learner.h"
#include "actors/trainer/mixture.h"
#include "actors/trainer/overlap.h"

typedef enum opd__learner_phase {
    PHASE_PREPARE,
    PHASE_REFERENCE,
    PHASE_ADVANTAGE,
    PHASE_TRAIN,
    PHASE_UPDATE,
    PHASE_DONE
} opd__learner_phase;

struct opd_learner {
    opd_learner_options o;
    opd_graph *graph;
    opd_optimizer *optimizer;
    float *grads; /* [param_count] */
    opd_critic *critic; /* NULL unless the estimator is PPO */

    const opd_batch *batch;
    opd__learner_phase phase;
    size_t cursor, end;  /* samples of the current pass still to do: [cursor, end) */
    uint32_t step;       /* share of the batch being worked on  */
    bool stepped;
    uint32_t nonfinite_run;
    uint64_t nonfinite, unscored; /* batches, so far */

    /* per response row of the batch */
    float *student_logp, *advantages, *weights, *logp, *entropy, *dlogp, *dentropy;
    float *teacher_logp; /* of all teachers together */
    float *ref_logp;     /* of the reference; only with ref_params */
    float *opd_advantages, *dlogp_opd; /* the OPD term's parts of advantages and dlogp */
    float *collision;    /* log sum of squared probabilities (models/graph.h) */
    double rl_squares, opd_squares; /* of the gradients by the logits, without a distillation loss */
    float *correction;   /* factors of the policy loss (correction.h) */
    float *values, *returns; /* of the critic, when the batch began */
    uint8_t *mask, *teacher_valid;
    uint8_t *scored;     /* 1 where a training pass has been */
    int32_t *student_topk;      /* [rows, student_k] ids */
    float *student_topk_logp;
    opd_score_row *rows;
    size_t *micro_start; /* [samples_max + 1] */

    opd_advantage_stats advantage;
    opd_teacher_tally *tallies; /* [teachers_max] */
    opd_policy_stats policy;
    opd_value_stats value;
    opd_overlap overlap;
    opd_distil *distil; /* NULL: no distillation loss */
    double sft_loss, logp_diff;
    opd_correction_stats corrected;
    size_t first_rows; /* rows seen by the first optimizer step's pass */
    uint32_t made;     /* optimizer steps made on this batch */
    opd_optimizer_report update;
};

/* Whether the gradients by the logits of the OPD term and of the rest are told apart here; beside a
 * distillation loss that is done where the logits are (contrast.h). */
static inline bool opd__learner_splits(const opd_learner *l) {
    const opd_advantage_config *a = &l->o.advantage;
    return l->o.objective == OPD_OBJECTIVE_POLICY && a->use_opd && a->kl_coef > 0 && l->distil == NULL;
}

#endif
