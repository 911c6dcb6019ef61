/* reward_rig.h - the reward actor between a source of rollouts and a batcher, for tests of judges.
 *
 * Sample i is of group i / members, answers "what?" with responses[i] and has the label "7". The source sends
 * as credits allow; the batcher checks that rewards come in order and each once, keeps what it got for keep_ns,
 * and ends the system when it has them all. If the reward actor ends first, the system ends with its reason.
 *
 * Thread: the loop's. up/down frame it; down checks that nothing is left.
 */
#ifndef OPD_TESTS_SUPPORT_REWARD_RIG_H
#define OPD_TESTS_SUPPORT_REWARD_RIG_H

#include "actors/messages.h"
#include "actors/reward/question.h"
#include "actors/reward/reward_actor.h"
#include "tests/support/script_actor.h"

enum { REWARD_RIG_SAMPLES_MAX = 64, REWARD_RIG_WINDOW_MAX = 16 };

typedef struct reward_rig {
    opd_test_sys t;
    opd_roles roles;
    opd_lane *lane;
    opd_link *link; /* of the source */
    opd_monitor monitor;
    opd_timer timer; /* of the batcher */
    opd_tokenizer *tokenizer;
    const char *const *responses; /* NULL-terminated */
    uint32_t members, window;
    uint64_t keep_ns;
    uint64_t sent, got, total;
    opd_reward_fields rewards[REWARD_RIG_SAMPLES_MAX]; /* in the order of the samples */
    opd_msg *kept[REWARD_RIG_WINDOW_MAX];
    size_t kept_count;
} reward_rig;

/* A world in which nothing runs yet; groups of `members`, a window of 8, and nothing is kept. */
void reward_rig_up(reward_rig *rig, const char *const *responses, uint32_t members);

/* Starts the actors. Errors: of the reward actor's start. */
OPD_MUST_CHECK opd_err reward_rig_start(reward_rig *rig, const opd_reward_part *parts, uint32_t count);

/* Starts them and runs the system to its end. */
OPD_MUST_CHECK opd_err reward_rig_run(reward_rig *rig, const opd_reward_part *parts, uint32_t count);

/* Fails the test unless sample i has this reward, or this reason to have none. */
void reward_rig_got(const reward_rig *rig, size_t i, double reward, opd_reward_failure failure);

void reward_rig_down(reward_rig *rig);

#endif
