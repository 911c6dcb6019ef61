/* scorer_actor.h - the actor that scores tokens with a model in this process.
 *
 * Takes SCORE requests (actors/messages.h) and answers each with SCORED. Requests are batched
 * continuously (engine.h): one job at a time runs on the lane, with at most
 * OPD_SCORER_JOB_TOKENS tokens, or what can be read in a tenth of a second; new requests join at every job. What was read before is kept
 * as a prefix cache of at most cache_bytes, so that a request costs what its new tokens cost;
 * SCORED.cached tells how many were not read again. The lane alone touches the kernels and the
 * reader.
 *
 * Where it follows a slot of weights, a request that comes after a version was put there is scored by
 * that version or a later one, all of it by the same, which SCORED.weight_version names.
 *
 * Answers: INVALID (an id outside the vocabulary, more tokens than max_tokens or the model's
 * positions, start or top_k out of range, temperature not positive), AGAIN (as many as
 * OPD_SCORER_QUEUE_MAX are waiting or running), TIMEOUT (the deadline passed). A request that
 * nobody waits for any more, or whose deadline passed, is given up at the next job.
 *
 * Thread: the loop; scoring on the lane. The actor owns its engine and frees it in on_stop.
 */
#ifndef OPD_ACTORS_SCORER_SCORER_ACTOR_H
#define OPD_ACTORS_SCORER_SCORER_ACTOR_H

#include "kernels/kernels.h"
#include "models/lm.h"
#include "opd/actor.h"

enum {
    OPD_SCORER_QUEUE_MAX = 1024, /* requests waiting or running; more are answered AGAIN */
    OPD_SCORER_RUNNING_MAX = 256,
    OPD_SCORER_JOB_TOKENS = 512
};

/* What it is spawned with. model, lane and kernels are borrowed and outlive the actor. */
typedef struct opd_scorer_config {
    const opd_model *model;
    const opd_lm_ops *lm; /* NULL: the transformer                                       */
    opd_slot *weights;    /* of the student, whom it follows; NULL: the model's own, for ever */
    opd_lane *lane;
    opd_kernels *kernels; /* the lane's: nobody else may use them                       */
    uint32_t max_tokens;  /* of one request; 0, or more than those: the model's positions */
    uint64_t cache_bytes; /* keys and values at most (but what the longest request and a job need);
                             0: nothing is kept                                          */
    const opd_alloc *alloc;
} opd_scorer_config;

/* The most bytes of keys, values and tables that it will take; without weights, activations and
 * messages. Only model, max_tokens and cache_bytes are read. */
uint64_t opd_scorer_memory_max(const opd_scorer_config *config);

extern const opd_actor_class opd_scorer_class;

#endif
