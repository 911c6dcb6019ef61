/* reward_actor.h - the actor that judges finished rollouts.
 *
 * In: ROLLOUT (link from rollout). Out: REWARD (link to the batcher), one for each, also
 * where nothing could be judged (valid = false). Thread: the loop; judging one short answer
 * takes microseconds (longer rewards move off the loop with the learning issue).
 */
#ifndef OPD_ACTORS_REWARD_ACTOR_H
#define OPD_ACTORS_REWARD_ACTOR_H

#include "actors/roles.h"
#include "models/tokenizer.h"

extern const opd_actor_class opd_reward_class;

typedef enum opd_reward_type { OPD_REWARD_NONE, OPD_REWARD_MATH } opd_reward_type;

/* Borrowed until the actor has stopped. */
typedef struct opd_reward_config {
    opd_reward_type type;
    const opd_tokenizer *tokenizer;
    const opd_roles *roles;
    uint32_t window_msgs; /* of the link to the batcher */
    const opd_alloc *alloc;
} opd_reward_config;

#endif
