/* test_config_train.c - estimators, losses and corrections: derived defaults, and every combination
 * that contradicts itself or only looks like learning, each with its reason and remedy. */
#include "tests/support/test.h"
#include "tests/unit/core/config_text.h"

/* Loads an rl stage with a teacher under `--set` of up to three settings; what must fail, fails
 * with a text that begins with `key` and holds `reason`. */
static void refused(const char *key, const char *reason, const char *const *args) {
    opd_config *config;
    CHECK_ERR(config_load(RL_TEXT, args, &config), OPD_ERR_CONFIG);
    CHECK_CONTAINS(opd_err_context(), key);
    CHECK_CONTAINS(opd_err_context(), reason);
}

static opd_config_train accepted(const char *const *args) {
    opd_config *config = config_get(RL_TEXT, args);
    opd_config_train train = config->stages[0].train;
    opd_config_destroy(config);
    return train;
}

TEST(defaults_follow_what_is_given) {
    opd_config_train t = accepted(NULL);
    CHECK_INT(t.estimator, OPD_CONFIG_ESTIMATOR_GRPO);
    CHECK_INT(t.correction, OPD_CONFIG_CORRECTION_TIS);
    CHECK_NEAR(t.tis_clip, 2, 0);
    CHECK_NEAR(t.tis_clip_low, 0, 0);
    CHECK_INT(t.kl_loss_type, OPD_CONFIG_KL_TYPE_K3);
    t = accepted(ARGS("--set", "train.tis_clip=0"));
    CHECK_INT(t.correction, OPD_CONFIG_CORRECTION_NONE);
    t = accepted(ARGS("--set", "train.use_rollout_log_probs=true"));
    CHECK_INT(t.correction, OPD_CONFIG_CORRECTION_NONE);
    t = accepted(ARGS("--set", "train.correction=icepop"));
    CHECK_NEAR(t.tis_clip_low, 0.5, 0);
    t = accepted(ARGS("--set", "train.estimator=reinforce++", "--set",
                      "train.normalize_advantages=true", "--set", "train.kl_coef=0.1"));
    CHECK_INT(t.estimator, OPD_CONFIG_ESTIMATOR_REINFORCE);
    CHECK_INT(t.kl_loss_type, OPD_CONFIG_KL_TYPE_K1);
}

TEST(every_estimator_has_its_name) {
    static const char *const names[] = {"grpo", "gspo", "sapo", "cispo", "rloo", "reinforce++",
                                        "reinforce++-baseline", "ppo"};
    for (int i = 0; i < 8; i++) {
        char set[64];
        (void)snprintf(set, sizeof set, "train.estimator=%s", names[i]);
        opd_config_train t = accepted(ARGS("--set", set, "--set", "train.normalize_advantages=true"));
        CHECK_INT(t.estimator, i);
    }
}

TEST(a_kl_in_two_places_or_in_the_wrong_one) {
    refused("train.kl_coef", "give one", ARGS("--set", "train.kl_coef=1", "--set", "train.kl_loss_coef=1"));
    refused("train.kl_coef", "use train.kl_loss_coef", ARGS("--set", "train.kl_coef=1"));
    refused("train.kl_coef", "RLOO", ARGS("--set", "train.kl_coef=1", "--set", "train.estimator=rloo"));
    refused("train.unbiased_kl", "give train.kl_loss_coef", ARGS("--set", "train.unbiased_kl=true"));
    refused("model.ref_path", "nothing asks", ARGS("--set", "model.ref_path=x"));
    (void)accepted(ARGS("--set", "model.ref_path=x", "--set", "train.kl_loss_coef=0.1"));
}

TEST(a_loss_without_the_reference_in_its_gradient) {
    refused("train.kl_loss_type", "cannot learn",
            ARGS("--set", "train.kl_loss_coef=1", "--set", "train.kl_loss_type=k1"));
    (void)accepted(ARGS("--set", "train.kl_loss_coef=1", "--set", "train.kl_loss_type=k1", "--set",
                        "train.unbiased_kl=true"));
}

TEST(reinforce_is_whitened_and_not_dropped) {
    refused("train.normalize_advantages", "REINFORCE++", ARGS("--set", "train.estimator=reinforce++"));
    refused("train.normalize_advantages", "REINFORCE++-baseline",
            ARGS("--set", "train.estimator=reinforce++-baseline"));
    refused("train.estimator", "opd.only_reward drops",
            ARGS("--set", "train.estimator=reinforce++", "--set", "opd.only_reward=true"));
    refused("train.estimator", "PPO", ARGS("--set", "train.estimator=ppo", "--set", "opd.only_reward=true"));
    opd_config_train t = accepted(ARGS("--set", "train.estimator=ppo", "--set", "train.lr=0.25",
                                       "--set", "train.kl_coef=0.1"));
    CHECK_NEAR(t.critic_lr, 0.25, 0);
}

TEST(a_bound_for_a_loss_that_has_none) {
    refused("train.eps_clip_c", "SAPO", ARGS("--set", "train.eps_clip_c=3", "--set", "train.estimator=sapo"));
    refused("train.eps_clip_c", "CISPO", ARGS("--set", "train.eps_clip_c=3", "--set", "train.estimator=cispo"));
    refused("train.eps_clip_c", "above 1", ARGS("--set", "train.eps_clip_c=0.5"));
    (void)accepted(ARGS("--set", "train.eps_clip_c=3", "--set", "train.estimator=gspo"));
}

TEST(corrections_that_exclude_each_other) {
    refused("train.correction", "give one", ARGS("--set", "train.use_rollout_log_probs=true", "--set",
                                                 "train.correction=tis"));
    refused("train.tis_clip", "below 1", ARGS("--set", "train.tis_clip=0.9"));
    refused("train.tis_clip", "below 1", ARGS("--set", "train.tis_clip=0", "--set", "train.correction=icepop"));
    refused("train.tis_clip_low", "bounds a correction",
            ARGS("--set", "train.correction=decoupled", "--set", "train.tis_clip_low=0.5"));
}

TEST(a_group_of_one_is_told_by_the_estimator) {
    static const char *const relative[] = {"grpo", "gspo", "sapo", "cispo", "rloo", "reinforce++-baseline"};
    for (size_t i = 0; i < 6; i++) {
        char set[64];
        (void)snprintf(set, sizeof set, "train.estimator=%s", relative[i]);
        refused("rollout.samples_per_prompt", "cannot learn",
                ARGS("--set", set, "--set", "train.normalize_advantages=true", "--set",
                     "opd.kl_coef=0", "--set", "rollout.samples_per_prompt=1"));
    }
    (void)accepted(ARGS("--set", "train.estimator=reinforce++", "--set", "train.normalize_advantages=true",
                        "--set", "opd.kl_coef=0", "--set", "rollout.samples_per_prompt=1"));
}

TEST(what_an_estimator_would_not_read) {
    refused("train.rewards_normalization", "RLOO", ARGS("--set", "train.estimator=rloo", "--set",
                                                        "train.rewards_normalization=false"));
    refused("train.rewards_normalization", "REINFORCE++-baseline",
            ARGS("--set", "train.estimator=reinforce++-baseline", "--set", "train.normalize_advantages=true",
                 "--set", "train.rewards_normalization=false"));
    (void)accepted(ARGS("--set", "train.rewards_normalization=false"));
    refused("train.kl_loss_type", "there is none", ARGS("--set", "train.kl_loss_type=k2"));
    refused("train.tis_clip", "none with bounds", ARGS("--set", "train.tis_clip=3", "--set",
                                                       "train.correction=decoupled"));
    refused("train.tis_clip", "none with bounds", ARGS("--set", "train.tis_clip=3", "--set",
                                                       "train.use_rollout_log_probs=true"));
    (void)accepted(ARGS("--set", "train.tis_clip=0", "--set", "train.correction=none"));
}

TEST(each_step_has_a_sample) {
    refused("train.optimizer_steps_per_batch", "raise rollout.batch_prompts",
            ARGS("--set", "train.optimizer_steps_per_batch=9", "--set", "rollout.batch_prompts=4", "--set",
                 "rollout.samples_per_prompt=2"));
    (void)accepted(ARGS("--set", "train.optimizer_steps_per_batch=8", "--set", "rollout.batch_prompts=4",
                        "--set", "rollout.samples_per_prompt=2"));
}
