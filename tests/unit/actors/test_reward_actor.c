/* test_reward_actor.c - the reward actor before a batcher that is slow: what has no credit waits,
 * and leaves in order, each once. */
#include "actors/reward/question.h"
#include "core/base/check.h"
#include "tests/support/reward_rig.h"

static const char *const TEXTS[] = {"1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13",
                                    "14", "15", "16", "17", "18", "19", "20", NULL};

static void slow_batcher(reward_rig *rig) {
    reward_rig_up(rig, TEXTS, 1);
    rig->window = 2;
    rig->keep_ns = 300000;
}

TEST(rewards_without_credit_wait_and_leave_in_order) {
    static reward_rig rig;
    slow_batcher(&rig);
    CHECK_OK(reward_rig_run(&rig, NULL, 0));
    CHECK_INT(rig.got, OPD_COUNTOF(TEXTS) - 1);
    for (size_t i = 0; i < rig.got; i++) reward_rig_got(&rig, i, 0, OPD_REWARD_JUDGED);
    reward_rig_down(&rig);
}

TEST(what_waits_is_released_when_it_ends) {
    static reward_rig rig;
    slow_batcher(&rig);
    CHECK_OK(reward_rig_start(&rig, NULL, 0));
    opd_system_stop(rig.t.system, OPD_OK); /* before the first reward left */
    CHECK_OK(opd_system_run(rig.t.system));
    CHECK(rig.got <= rig.window);
    reward_rig_down(&rig);
}
