/* test_config_signal.c - distillation signals: derived weights, and every combination that cannot learn or
 * cannot be asked of its teacher, each with its reason and remedy. */
#include "tests/support/test.h"
#include "tests/unit/core/config_text.h"

/* Loads an rl stage with a teacher under `--set` settings; what must fail, fails with a text that begins
 * with `key` and holds `reason`. */
static void refused(const char *key, const char *reason, const char *const *args) {
    opd_config *config;
    CHECK_ERR(config_load(RL_TEXT, args, &config), OPD_ERR_CONFIG);
    CHECK_CONTAINS(opd_err_context(), key);
    CHECK_CONTAINS(opd_err_context(), reason);
}

static opd_config_opd accepted(const char *const *args) {
    opd_config *config = config_get(RL_TEXT, args);
    opd_config_opd opd = config->stages[0].opd;
    opd_config_destroy(config);
    return opd;
}

#define TOPK "--set", "opd.signal=topk"
#define K8 "--set", "opd.log_prob_top_k=8"
#define HERE "--set", "opd.type=megatron", "--set", "teachers.big.path=."

TEST(the_signal_says_what_its_weights_are) {
    opd_config_opd o = accepted(NULL);
    CHECK_INT(o.signal, OPD_CONFIG_SIGNAL_SAMPLED);
    CHECK_NEAR(o.kl_coef, 1, 0);
    CHECK_NEAR(o.loss_coef, 0, 0);
    o = accepted(ARGS(TOPK, K8));
    CHECK_NEAR(o.kl_coef, 0, 0);
    CHECK_NEAR(o.loss_coef, 1, 0);
    CHECK_INT(o.support, OPD_CONFIG_SUPPORT_TEACHER_TOPK);
    CHECK_INT(o.divergence, OPD_CONFIG_DIVERGENCE_FORWARD_KL);
    CHECK_INT(o.tail, OPD_CONFIG_TAIL_BUCKET);
    o = accepted(ARGS(TOPK, K8, "--set", "opd.kl_coef=0.5", "--set", "opd.loss_coef=0.1"));
    CHECK_NEAR(o.kl_coef, 0.5, 0);
    CHECK_NEAR(o.loss_coef, 0.1, 0);
    (void)accepted(ARGS(TOPK, K8, "--set", "opd.only_reward=true"));
    (void)accepted(ARGS("--set", "opd.loss_coef=1", "--set", "opd.divergence=low_var"));
}

TEST(a_loss_on_the_drawn_token_must_know_the_teacher) {
    refused("opd.divergence", "score term is missing",
            ARGS("--set", "opd.loss_coef=1", "--set", "opd.divergence=reverse_kl"));
    refused("opd.divergence", "more ids", ARGS("--set", "opd.loss_coef=1"));
    refused("opd.divergence", "more ids", ARGS("--set", "opd.loss_coef=1", "--set", "opd.divergence=jsd"));
    refused("opd.support", "set opd.signal: topk", ARGS("--set", "opd.loss_coef=1", "--set",
                                                        "opd.divergence=low_var", "--set", "opd.support=full"));
}

TEST(what_leaves_nothing_to_learn) {
    refused("opd.tail", "probability 1",
            ARGS(TOPK, "--set", "opd.log_prob_top_k=1", "--set", "opd.tail=renormalise"));
    (void)accepted(ARGS(TOPK, "--set", "opd.log_prob_top_k=1"));
    refused("opd.loss_coef", "of 0 leaves nothing", ARGS(TOPK, K8, "--set", "opd.loss_coef=0"));
    refused("opd.log_prob_top_k", "size of opd.support", ARGS(TOPK));
    refused("opd.jsd_alpha", "", ARGS(TOPK, K8, "--set", "opd.jsd_alpha=0"));
    refused("opd.jsd_alpha", "", ARGS(TOPK, K8, "--set", "opd.jsd_alpha=1"));
    refused("opd.token_selection", "opd.loss_coef above 0", ARGS("--set", "opd.token_selection=entropy"));
    refused("opd.kl_coef", "", ARGS("--set", "opd.kl_coef=-0.1"));
    refused("opd.kl_coef", "", ARGS("--set", "opd.kl_coef=.nan"));
    refused("opd.kl_coef", "", ARGS("--set", "opd.kl_coef=.inf"));
    refused("opd.loss_coef", "", ARGS(TOPK, K8, "--set", "opd.loss_coef=-1"));
    refused("train.normalize_advantages", "out again",
            ARGS("--set", "opd.only_reward=true", "--set", "train.normalize_advantages=true"));
}

TEST(a_server_lists_only_its_own_ids) {
    static const char *const supports[] = {"opd.support=student_topk", "opd.support=union", "opd.support=full"};
    for (int i = 0; i < 3; i++) {
        refused("opd.support", "opd.type: megatron", ARGS(TOPK, K8, "--set", supports[i]));
        (void)accepted(ARGS(TOPK, K8, "--set", supports[i], HERE));
    }
    (void)accepted(ARGS(TOPK, "--set", supports[2], HERE)); /* of any size */
    (void)accepted(ARGS(TOPK, K8, "--set", "opd.support=intersection"));
}

TEST(the_baseline_has_no_teacher) {
    const char *constant = "opd.type=constant";
    opd_config_opd o = accepted(ARGS("--set", constant, "--set", "opd.only_reward=true"));
    CHECK_NEAR(o.constant_prob, 0.1, 0);
    CHECK_NEAR(o.kl_coef, 1, 0);
    refused("opd.signal", "has none", ARGS("--set", constant, TOPK, K8));
    refused("opd.loss_coef", "has none", ARGS("--set", constant, "--set", "opd.loss_coef=1"));
    refused("opd.log_prob_top_k", "no teacher", ARGS("--set", constant, K8));
}

/* A setting that nobody would read is a misunderstanding; one with its default is not (the effective
 * configuration gives every key). */
TEST(what_nobody_would_read) {
    static const char *const about_lists[] = {"opd.support=student_topk", "opd.tail=truncate"};
    static const char *const about_a_loss[] = {"opd.divergence=reverse_kl", "opd.token_clip=1",
                                               "opd.logp_floor=-5"};
    for (int i = 0; i < 2; i++) refused("opd", "set opd.signal: topk", ARGS("--set", about_lists[i], HERE));
    for (int i = 0; i < 3; i++) {
        refused("opd", "set opd.signal: topk", ARGS("--set", about_a_loss[i]));
        (void)accepted(ARGS("--set", about_a_loss[i], TOPK, K8));
    }
    refused("opd.tail", "set opd.signal: topk", ARGS("--set", "opd.loss_coef=1", "--set",
                                                     "opd.divergence=low_var", "--set", "opd.tail=truncate"));
    (void)accepted(ARGS("--set", "opd.support=teacher_topk", "--set", "opd.divergence=forward_kl", "--set",
                        "opd.token_clip=0"));
    refused("opd.jsd_alpha", "opd.divergence jsd", ARGS(TOPK, K8, "--set", "opd.jsd_alpha=0.3"));
    refused("opd.token_share", "opd.token_selection", ARGS(TOPK, K8, "--set", "opd.token_share=0.3"));
    refused("opd.constant_prob", "opd.type constant", ARGS("--set", "opd.constant_prob=0.3"));
    refused("opd.on_missing", "use mask", ARGS(TOPK, K8, "--set", "opd.on_missing=rollout_log_probs"));
    (void)accepted(ARGS(TOPK, K8, "--set", "opd.on_missing=fail"));
}

/* With a bound of 1 every token is below it, and what is the same for all has no expected gradient. */
TEST(a_constant_that_says_nothing) {
    refused("opd.kl_coef", "leaves nothing", ARGS("--set", "opd.type=constant", "--set", "opd.kl_coef=0"));
    refused("opd.constant_prob", "", ARGS("--set", "opd.type=constant", "--set", "opd.constant_prob=1"));
}
