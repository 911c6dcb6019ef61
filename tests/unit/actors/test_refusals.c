/* test_refusals.c - the closed list of what cannot learn or cannot be compared (docs/learning.md), one test for
 * each entry: it is refused, and the refusal says why and what to do. */
#include "actors/run/assets.h"
#include "actors/teacher/teacher_http.h"
#include "actors/trainer/prover.h"
#include "core/base/check.h"
#include "tests/unit/actors/objective_cases.h"
#include "tests/unit/actors/teacher_rig.h"

/* The validator refuses the settings, about `key`, with this reason and this remedy. */
static void refused(const char *text, const char *key, const char *reason, const char *remedy) {
    opd_config *config = NULL;
    if (case_config(text, &config) != OPD_ERR_CONFIG)
        opd_test_fail(__FILE__, __LINE__, "%s: is not refused", text);
    CHECK_CONTAINS(opd_err_context(), key);
    CHECK_CONTAINS(opd_err_context(), reason);
    CHECK_CONTAINS(opd_err_context(), remedy);
}

static opd_learner_options objective_of(const char *text) {
    opd_config *config;
    opd_learner_options o = {.lm = NULL};
    CHECK_OK(case_config(text, &config));
    opd_stage_objective(&config->stages[0], &o);
    opd_config_destroy(config);
    return o;
}

/* And so does the prover, where a rule would be missing. */
static void disproven(const opd_learner_options *o, size_t samples, const char *reason, const char *remedy) {
    opd_proof proof;
    opd_objective_claim claim = {.learner = o, .samples_per_prompt = samples, .rewarded = true};
    CHECK_ERR(opd_objective_prove(&claim, NULL, &proof), OPD_ERR_CONFIG);
    CHECK_CONTAINS(opd_err_context(), reason);
    CHECK_CONTAINS(opd_err_context(), remedy);
}

TEST(sampled_reverse_kl_as_a_loss_without_score_term) {
    refused("opd.loss_coef=1 opd.divergence=reverse_kl", "opd.divergence", "score term is missing",
            "use it in the advantage");
    opd_learner_options o = objective_of("opd.loss_coef=1 opd.divergence=low_var opd.kl_coef=0 opd.only_reward=true");
    o.signal.divergence.kind = OPD_DIVERGENCE_REVERSE_KL;
    disproven(&o, 4, "the expected gradient", "a teacher a weight");
    o.advantage.only_reward = false;
    disproven(&o, 4, "whatever it says", "opd.kl_coef");
}

TEST(one_id_renormalised) {
    refused("opd.signal=topk opd.log_prob_top_k=1 opd.tail=renormalise", "opd.tail", "has probability 1",
            "raise opd.log_prob_top_k");
    opd_learner_options o = objective_of("opd.signal=topk opd.log_prob_top_k=2 opd.tail=renormalise");
    o.signal.k = 1;
    for (int kind = 0; kind < 4; kind++) {
        o.signal.divergence.kind = (opd_divergence_kind)kind;
        disproven(&o, 4, "whatever it says", "or opd.tail");
    }
}

TEST(whitening_with_only_reward) {
    refused("normalize_advantages=true opd.only_reward=true", "train.normalize_advantages",
            "divides opd.kl_coef out", "contradicts opd.only_reward");
    opd_learner_options o = objective_of("opd.only_reward=true");
    o.advantage.whiten = true;
    disproven(&o, 4, "whitening divides it out", "train.normalize_advantages: false");
}

TEST(one_sample_with_a_std_filter_or_grpo_alone) {
    refused("rollout.samples_per_prompt=1 rollout.filter=zero_std", "rollout.filter", "one answer has no spread",
            "samples_per_prompt to 2 or more");
    static const char *const estimators[] = {"grpo", "gspo", "sapo", "cispo", "rloo",
                                             "reinforce++-baseline normalize_advantages=true"};
    for (size_t i = 0; i < OPD_COUNTOF(estimators); i++) {
        char text[CASE_TEXT_MAX];
        (void)snprintf(text, sizeof text, "rollout.samples_per_prompt=1 opd.enabled=false estimator=%s",
                       estimators[i]);
        refused(text, "rollout.samples_per_prompt", "advantage is always 0", "use 2 or more");
        (void)snprintf(text, sizeof text, "opd.enabled=false estimator=%s", estimators[i]);
        opd_learner_options o = objective_of(text);
        disproven(&o, 1, "is zero", "rewards that differ within a group");
    }
}

TEST(a_weight_below_zero_or_not_finite) {
    static const char *const values[] = {"-0.5", "-1e-9", ".nan", ".inf", "-.inf"};
    for (size_t i = 0; i < OPD_COUNTOF(values); i++) {
        char text[CASE_TEXT_MAX];
        (void)snprintf(text, sizeof text, "opd.kl_coef=%s", values[i]);
        refused(text, "opd.kl_coef", values[i][0] == '-' && values[i][1] != '.' ? "too small" : "", "must be");
        (void)snprintf(text, sizeof text, "opd.signal=topk opd.log_prob_top_k=2 opd.loss_coef=%s", values[i]);
        refused(text, "opd.loss_coef", values[i][0] == '-' && values[i][1] != '.' ? "too small" : "", "must be");
    }
}

TEST(k_above_the_vocabulary) {
    opd_config *config;
    opd_assets assets;
    static const char text[] =
        "model: {init: {hidden_size: 16, intermediate_size: 32, layers: 1, heads: 2}}\n"
        "data: {path: d.jsonl}\n"
        "teachers: {big: {url: \"http://127.0.0.1:30000\"}}\n"
        "opd: {enabled: true, type: sglang, log_prob_top_k: 1000000}\n"
        "rollout: {samples_per_prompt: 4}\n"
        "train: {steps: 1}\n";
    CHECK_OK(opd_config_load_text(NULL, "k.yaml", text, strlen(text), NULL, &config));
    CHECK_ERR(opd_assets_open(&assets, &config->stages[0], ".", false, NULL, NULL), OPD_ERR_CONFIG);
    CHECK_CONTAINS(opd_err_context(), "opd.log_prob_top_k is 1000000");
    CHECK_CONTAINS(opd_err_context(), "the vocabulary has");
    CHECK_CONTAINS(opd_err_context(), "lower it");
    opd_config_destroy(config);
    opd_contrast *contrast; /* and whoever makes a loss of its own */
    opd_contrast_config too_many = {.coef = 1, .support = OPD_SUPPORT_TEACHER_TOPK, .k = 11};
    CHECK_ERR(opd_contrast_create(&too_many, 10, NULL, &contrast), OPD_ERR_CONFIG);
    CHECK_CONTAINS(opd_err_context(), "from 1 to the 10 ids");
}

/* A server that scores at 1, asked by a teacher actor for rollouts at another temperature. */
TEST(a_temperature_other_than_one_with_a_teacher_that_scores_at_one) {
    static rig r;
    static script s;
    char url[64];
    rig_up(&r, 3, 4, 5, 50);
    s = (script){.steps = {STEP_OK}, .step_count = 1};
    script_up(&s, &r);
    (void)snprintf(url, sizeof url, "http://127.0.0.1:%u/generate", s.port);
    opd_config_teacher teacher = {.name = "tutor", .url = url, .urls = "", .path = "", .timeout_s = 5,
                                  .deadline_s = 30, .connect_timeout_s = 2, .max_inflight = 8,
                                  .start_timeout_s = 5};
    opd_teacher_http_config config = {.roles = &r.roles, .env = r.t.env, .alloc = &r.t.memory.alloc,
                                      .teacher = &teacher, .teacher_lost_s = 20, .temperature = 0.7,
                                      .vocab_size = 50, .bos_id = 1, .eos_id = 2, .tokenizer_hash = ""};
    rig_teacher(&r, &config);
    rig_feed(&r);
    CHECK_ERR(rig_run(&r), OPD_ERR_UNSUPPORTED);
    CHECK_CONTAINS(opd_err_context(), "rollout.temperature is 0.7");
    CHECK_CONTAINS(opd_err_context(), "scores at temperature 1");
    CHECK_CONTAINS(opd_err_context(), "Set rollout.temperature to 1");
    CHECK_INT(r.got, 0);
    rig_down(&r);
}
