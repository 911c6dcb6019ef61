/* validation.h - the loss of held-out examples under the present weights, a batch at a time.
 *
 * The loop fills a batch, the trainer's lane measures it, until all examples are done; the loss is
 * the mean over all their learnt tokens, whatever train.loss_reduction says; NaN without any.
 * Thread: the loop, except what runs on the lane.
 * Memory: the batch is the validation's; dataset and learner are borrowed.
 */
#ifndef OPD_ACTORS_TRAINER_VALIDATION_H
#define OPD_ACTORS_TRAINER_VALIDATION_H

#include "actors/dataset/dataset.h"
#include "actors/trainer/learner.h"
#include "opd/actor.h"

typedef struct opd_validation {
    const opd_dataset *dataset; /* with responses */
    opd_learner *learner;
    opd_batch *batch;
    opd_err (*done)(void *owner, double loss);
    void *owner;
    opd_lane *lane;
    opd_job job;
    uint64_t next;              /* example        */
    double loss;                /* sum ...        */
    uint64_t tokens;            /* ... over these */
} opd_validation;

/* With a batch of at most these sizes, which every example must fit; `done` is called with the mean
 * when all are measured. Errors: NOMEM. */
OPD_MUST_CHECK opd_err opd_validation_open(opd_validation *validation, const opd_dataset *dataset,
                                           opd_learner *learner, size_t samples_max,
                                           size_t tokens_max, const opd_alloc *alloc,
                                           opd_err (*done)(void *owner, double loss), void *owner);
void opd_validation_close(opd_validation *validation);

/* Measures all examples, on the lane of the actor ctx is of, which has no other job meanwhile. Errors:
 * NOMEM, LIMIT (an example longer than a batch), those of opd_learner_measure and of done: of the
 * actor, as the lane's jobs end. */
OPD_MUST_CHECK opd_err opd_validation_run(opd_validation *validation, opd_ctx *ctx, opd_lane *lane);

#endif
