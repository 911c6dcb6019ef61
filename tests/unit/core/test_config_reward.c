/* test_config_reward.c - judges: each has what its type needs, and nothing that it would not read. */
#include "tests/support/test.h"
#include "tests/unit/core/config_text.h"

static void refused(const char *key, const char *reason, const char *const *args) {
    opd_config *config;
    CHECK_ERR(config_load(RL_TEXT, args, &config), OPD_ERR_CONFIG);
    CHECK_CONTAINS(opd_err_context(), key);
    CHECK_CONTAINS(opd_err_context(), reason);
}

static opd_config_reward accepted(const char *const *args) {
    opd_config *config = config_get(RL_TEXT, args);
    opd_config_reward reward = config->stages[0].reward; /* its texts end with the configuration */
    CHECK(reward.one.name == NULL);
    opd_config_destroy(config);
    return reward;
}

TEST(every_judge_has_its_name) {
    static const char *const names[] = {"none", "math", "dapo", "f1", "multiple_choice", "gpqa"};
    for (int i = 0; i < 6; i++) {
        char set[64];
        (void)snprintf(set, sizeof set, "reward.type=%s", names[i]);
        CHECK_INT(accepted(ARGS("--set", set)).one.type, i);
    }
    CHECK_INT(accepted(ARGS("--set", "reward.type=command", "--set", "reward.command=judge -x")).one.type,
              OPD_CONFIG_REWARD_TYPE_COMMAND);
    CHECK_INT(accepted(ARGS("--set", "reward.type=library", "--set", "reward.library=a.so")).one.type,
              OPD_CONFIG_REWARD_TYPE_LIBRARY);
    CHECK_INT(accepted(ARGS("--set", "reward.type=remote_rm", "--set", "reward.url=http://h:1/s")).one.type,
              OPD_CONFIG_REWARD_TYPE_REMOTE_RM);
}

TEST(a_sum_has_its_parts) {
    opd_config_reward r = accepted(ARGS("--set", "reward.type=parts", "--set", "reward.parts.right.weight=2",
                                        "--set", "reward.parts.short.type=command", "--set",
                                        "reward.parts.short.command=judge"));
    CHECK_INT(r.part_count, 2);
    CHECK_INT(r.parts[0].type, OPD_CONFIG_REWARD_TYPE_MATH);
    CHECK_NEAR(r.parts[0].weight, 2, 0);
    CHECK_NEAR(r.parts[1].weight, 1, 0);
    CHECK_NEAR(r.parts[1].timeout_s, 10, 0);
    refused("reward.type", "there is none", ARGS("--set", "reward.type=parts"));
    refused("reward.type", "set reward.type: parts", ARGS("--set", "reward.parts.right.weight=2"));
    refused("reward.parts.x.type", "judges by itself",
            ARGS("--set", "reward.type=parts", "--set", "reward.parts.x.type=none"));
    refused("reward.parts.x.url", "needs it",
            ARGS("--set", "reward.type=parts", "--set", "reward.parts.x.type=remote_rm"));
}

TEST(what_a_judge_does_not_read_is_refused) {
    refused("reward.command", "needs it", ARGS("--set", "reward.type=command"));
    refused("reward.command", "is read by type command only", ARGS("--set", "reward.command=judge"));
    refused("reward.library", "needs it", ARGS("--set", "reward.type=library"));
    refused("reward.url", "is read by type remote_rm only", ARGS("--set", "reward.url=http://h:1"));
    refused("reward.encoding", "is read by type command only", ARGS("--set", "reward.encoding=msgpack"));
    refused("reward.encoding", "is read by type command only",
            ARGS("--set", "reward.type=library", "--set", "reward.library=a.so", "--set", "reward.encoding=msgpack"));
    CHECK_INT(accepted(ARGS("--set", "reward.type=command", "--set", "reward.command=j", "--set",
                            "reward.encoding=msgpack")).one.encoding, OPD_CONFIG_ENCODING_MSGPACK);
    refused("reward.group", "see a group", ARGS("--set", "reward.group=true"));
    refused("reward.boxed", "is read by math", ARGS("--set", "reward.type=dapo", "--set", "reward.boxed=true"));
    refused("reward.group", "is above 1024",
            ARGS("--set", "reward.type=command", "--set", "reward.command=j", "--set", "reward.group=true",
                 "--set", "rollout.samples_per_prompt=2000"));
}
