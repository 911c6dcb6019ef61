/* evaluator_actor.h - the actor that measures pass@1 on held-out problems.
 *
 * In: EVALUATE (request; one at a time, others wait). It asks rollout to GENERATE an answer to
 * each problem and replies EVALUATED. Problems are asked in order, at most `inflight` at once.
 * Thread: the loop.
 */
#ifndef OPD_ACTORS_EVALUATOR_ACTOR_H
#define OPD_ACTORS_EVALUATOR_ACTOR_H

#include "actors/dataset/dataset.h"
#include "actors/roles.h"

extern const opd_actor_class opd_evaluator_class;

/* Borrowed until the actor has stopped. */
typedef struct opd_evaluator_config {
    const opd_dataset *dataset; /* rows in file order, with labels */
    const opd_roles *roles;
    const opd_tokenizer *tokenizer;
    uint32_t samples;           /* answers per problem */
    uint32_t inflight;          /* at most the rollout actor's places */
    uint32_t max_new;
    double temperature, top_p;  /* temperature 0: greedy */
    uint32_t top_k;
    uint64_t seed;
    const opd_alloc *alloc;
} opd_evaluator_config;

#endif
