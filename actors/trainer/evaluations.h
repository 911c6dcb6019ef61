/* evaluations.h - asks the evaluator about the sets that are due, one after another, for the trainer.
 *
 * An evaluation is of one version of the weights. Beside the training (config eval_weights): the
 * weights of that version are put into a slot of their own and stay there until its last set is done,
 * so the training may go on and publish newer ones. Else the trainer waits, and the rollout has no
 * other weights meanwhile.
 *
 * Where the evaluator is gone its successor is asked again, for half a minute.
 * Thread: the loop. Memory: part of the trainer's state; nothing to free.
 */
#ifndef OPD_ACTORS_TRAINER_EVALUATIONS_H
#define OPD_ACTORS_TRAINER_EVALUATIONS_H

#include "actors/trainer/trainer_actor.h"

typedef struct opd_evaluations {
    const opd_trainer_config *c;
    opd_ctx *ctx;
    opd_err (*done)(void *trainer); /* the last set is evaluated */
    void *trainer;
    bool busy;
    bool last;        /* the one after the last batch       */
    bool stopped;     /* the system stops: answers are void */
    uint64_t version; /* of the evaluation at work          */
    uint32_t to_do;   /* its sets, bit by place             */
    uint32_t set;     /* being evaluated                    */
    opd_timer retry;
    uint32_t replaced_count; /* times in a row that the one asked was gone */
} opd_evaluations;

void opd_evaluations_init(opd_evaluations *evaluations, const opd_trainer_config *config,
                          opd_ctx *ctx, opd_err (*done)(void *trainer), void *trainer);

/* The sets that are to be evaluated after `version` batches, bit by place; all of them. */
uint32_t opd_evaluations_due(const opd_evaluations *evaluations, uint64_t version);
uint32_t opd_evaluations_all(const opd_evaluations *evaluations);

/* Begins to evaluate `sets` (not 0) under the newest published weights, which are of `version`; none
 * is at work. `last`: results are the stage's. Errors: those of sending. */
OPD_MUST_CHECK opd_err opd_evaluations_begin(opd_evaluations *evaluations, uint64_t version,
                                             uint32_t sets, bool last);

/* Whether no batch may be begun meanwhile. */
bool opd_evaluations_hold(const opd_evaluations *evaluations);

#endif
