/* parts.h - the judges that a configuration names, as the reward actor takes them.
 *
 * Thread: the loop. All memory is the caller's and the configuration's.
 */
#ifndef OPD_ACTORS_REWARD_PARTS_H
#define OPD_ACTORS_REWARD_PARTS_H

#include "actors/reward/command.h"
#include "actors/reward/reward_actor.h"
#include "opd/config.h"

/* The parts, and the words of their commands. */
typedef struct opd_reward_parts {
    opd_reward_part parts[OPD_REWARD_PARTS_MAX];
    uint32_t count;
    char words[OPD_REWARD_PARTS_MAX][1024];
    const char *argv[OPD_REWARD_PARTS_MAX][OPD_REWARD_ARGS_MAX + 1];
} opd_reward_parts;

/* program: the opd command, which hosts libraries; NULL: there is none. Errors: CONFIG (a command
 * of too many words, or of none), UNSUPPORTED (a library, and no program). */
OPD_MUST_CHECK opd_err opd_reward_parts_of(const opd_config_reward *config, const char *program,
                                           opd_reward_parts *out_parts);

/* The rule of a type; MATH for those that are none: what an evaluation counts as right. */
opd_reward_rule opd_reward_rule_of(opd_config_reward_type type);

#endif
