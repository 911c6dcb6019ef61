/* scorer_actor.h - the actor that scores tokens with a model in this process.
 *
 * Takes SCORE requests (actors/messages.h) and answers each with SCORED. Requests wait in a
 * queue; one job at a time runs on the lane, with as many of them as fit max_tokens. The lane
 * alone touches the kernels and the graph.
 *
 * Answers: INVALID (an id outside the vocabulary, more tokens than max_tokens or the model's
 * positions, start or top_k out of range, temperature not positive), AGAIN (the queue is
 * full), TIMEOUT (the deadline passed in the queue). A request whose deadline passed is
 * never computed.
 *
 * Thread: the loop; scoring on the lane. The actor owns its graph and frees it in on_stop.
 */
#ifndef OPD_ACTORS_SCORER_SCORER_ACTOR_H
#define OPD_ACTORS_SCORER_SCORER_ACTOR_H

#include "kernels/kernels.h"
#include "models/lm.h"
#include "opd/actor.h"

enum { OPD_SCORER_QUEUE_MAX = 1024 }; /* requests waiting; more are answered AGAIN */

/* What it is spawned with. model, lane and kernels are borrowed and outlive the actor. */
typedef struct opd_scorer_config {
    const opd_model *model;
    const opd_lm_ops *lm; /* NULL: the transformer                                       */
    opd_lane *lane;
    opd_kernels *kernels; /* the lane's: nobody else may use them                       */
    uint32_t max_tokens;  /* of one job, and so of one request; 0: the model's positions */
    const opd_alloc *alloc;
} opd_scorer_config;

extern const opd_actor_class opd_scorer_class;

#endif
