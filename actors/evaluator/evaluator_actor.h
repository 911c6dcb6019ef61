/* evaluator_actor.h - the actor that measures accuracy and pass@k on sets of held-out problems.
 *
 * In: EVALUATE (request; one at a time, others wait). It asks the rollout that serves evaluations to
 * GENERATE the answers to each problem of the set and replies EVALUATED. Problems are asked in order,
 * at most `inflight` answers at once.
 * Thread: the loop.
 */
#ifndef OPD_ACTORS_EVALUATOR_ACTOR_H
#define OPD_ACTORS_EVALUATOR_ACTOR_H

#include "actors/evaluator/sets.h"
#include "actors/reward/rules.h"
#include "actors/roles.h"

extern const opd_actor_class opd_evaluator_class;

/* Borrowed until the actor has stopped. */
typedef struct opd_evaluator_config {
    const opd_eval_sets *sets;
    const opd_roles *roles;     /* asked: eval_rollout, or rollout where there is none */
    const opd_tokenizer *tokenizer;
    opd_reward_rule rule;       /* an answer is right where it says 1 */
    bool boxed;                 /* as rules.h has it                  */
    uint32_t inflight;          /* at most the rollout actor's places */
    uint64_t seed;
    const opd_alloc *alloc;
} opd_evaluator_config;

#endif
