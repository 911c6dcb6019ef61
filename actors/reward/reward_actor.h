/* reward_actor.h - the actor that judges finished rollouts.
 *
 * In: ROLLOUT (link from rollout). Out: REWARD (link to the batcher), one for each and in their
 * order, also where nothing could be judged (valid = false, and why in `failure`).
 *
 * The reward is the sum of its parts times their weights. Texts are decoded and rules (rules.h)
 * judge on a lane; judges outside (command.h, remote.h) are asked by questions. A sample that one
 * part cannot judge has no reward.
 * Thread: the loop, and the lane for one job at a time.
 */
#ifndef OPD_ACTORS_REWARD_ACTOR_H
#define OPD_ACTORS_REWARD_ACTOR_H

#include "actors/reward/rules.h"
#include "actors/roles.h"
#include "models/tokenizer.h"

extern const opd_actor_class opd_reward_class;

enum { OPD_REWARD_PARTS_MAX = 16 };

typedef enum opd_reward_judge_kind {
    OPD_REWARD_BY_RULE,    /* rule, boxed    */
    OPD_REWARD_BY_COMMAND, /* argv, workers  */
    OPD_REWARD_BY_URL      /* url, workers, retries */
} opd_reward_judge_kind;

typedef struct opd_reward_part {
    opd_reward_judge_kind kind;
    const char *name; /* for messages */
    double weight;
    opd_reward_rule rule;
    bool boxed;
    bool group;              /* judged outside: a question holds all members of a group */
    bool msgpack;            /* a command: the encoding of questions and answers */
    const char *const *argv; /* NULL-terminated */
    const char *url;
    uint32_t workers; /* questions under way at once */
    uint32_t retries;
    uint64_t timeout_ms;
} opd_reward_part;

/* Borrowed until the actor has stopped. */
typedef struct opd_reward_config {
    const opd_reward_part *parts;
    uint32_t part_count; /* 0: every reward is 0 */
    uint32_t samples_per_prompt; /* the size of a group */
    const opd_tokenizer *tokenizer;
    opd_lane *lane;
    struct opd_env *env;
    const opd_roles *roles;
    uint32_t window_msgs; /* of the link to the batcher; holds whole groups */
    const opd_alloc *alloc;
} opd_reward_config;

#endif
