/* test_combinations.c - that nothing is missing: every combination that the validator accepts of estimator,
 * reduction, correction and KL to a reference, and of divergence, support, tail and choice of tokens, has its
 * cases in tests/golden/objectives.bin (test_objectives.c compares them with PyTorch), and the objective prover
 * accepts it. The values are read from the schema of the configuration, so a new one without a case fails. */
#include "actors/run/assets.h"
#include "actors/trainer/prover.h"
#include "core/base/check.h"
#include "core/config/schema.h"
#include "tests/support/test.h"
#include "tests/unit/actors/objective_cases.h"

enum { VALUES_MAX = 16, TYPES = 4 };

/* The values of an enumerated key. */
static size_t values_of(const char *key, const char *const **out) {
    const opd__key *k = opd__key_find(key);
    size_t count = 0;
    CHECK(k != NULL && k->names != NULL);
    while (k->names[count] != NULL) count++;
    CHECK(count >= 2 && count <= VALUES_MAX);
    *out = k->names;
    return count;
}

/* What the validator makes of settings; false where it refuses. */
static bool accepted(const char *text, opd_config_stage *out_stage, opd_learner_options *out) {
    opd_config *config;
    if (case_config(text, &config) != OPD_OK) return false;
    *out_stage = config->stages[0];
    *out = (opd_learner_options){.lm = NULL};
    opd_stage_objective(out_stage, out);
    opd_config_destroy(config); /* its texts are gone; numbers remain */
    return true;
}

/* The prover accepts it with a reward and a group of four; and the teacher alone with a single answer. */
static void check_proven(const char *text, const opd_learner_options *o) {
    opd_proof proof;
    opd_objective_claim claim = {.learner = o, .samples_per_prompt = 4, .rewarded = true};
    if (opd_objective_prove(&claim, NULL, &proof) != OPD_OK)
        opd_test_fail(__FILE__, __LINE__, "%s: %s", text, opd_err_context());
    if (!o->advantage.only_reward) return;
    claim = (opd_objective_claim){.learner = o, .samples_per_prompt = 1};
    if (opd_objective_prove(&claim, NULL, &proof) != OPD_OK)
        opd_test_fail(__FILE__, __LINE__, "%s, alone: %s", text, opd_err_context());
}

static void check_count(const char *text, size_t cases, size_t least) {
    if (cases < least)
        opd_test_fail(__FILE__, __LINE__, "%s is accepted, and the fixture has %zu cases of it instead of %zu; "
                      "add it to tests/golden/make_objectives.py", text, cases, least);
}

/* ---- estimators ---- */

/* Cases without a distillation loss: [estimator][reduction][correction, the last one use_rollout_log_probs]
 * [OPSM]; [estimator][place of the KL: none, loss, reward][type][unbiased]; [estimator][who is asked: nobody or
 * opd.type][only_reward][fallback]. */
static size_t policies[VALUES_MAX][VALUES_MAX][VALUES_MAX + 1][2];
static size_t references[VALUES_MAX][3][VALUES_MAX][2];
static size_t teachers[VALUES_MAX][VALUES_MAX][2][2];

static size_t correction_of(const opd_config_train *t) {
    return t->use_rollout_log_probs ? VALUES_MAX : (size_t)t->correction;
}

static size_t place_of(const opd_config_train *t) { return t->kl_loss_coef > 0 ? 1 : t->kl_coef > 0 ? 2 : 0; }

static void count_policy(const objective_case *c, const case_data *d) {
    const opd_config_train *t = &c->stage->train;
    const opd_config_opd *o = &c->stage->opd;
    (void)d;
    if (c->o.signal.coef > 0) return;
    policies[t->estimator][t->loss_reduction][correction_of(t)][t->opsm_delta > 0]++;
    size_t place = place_of(t);
    references[t->estimator][place][place == 0 ? 0 : t->kl_loss_type][t->unbiased_kl]++;
    teachers[t->estimator][o->enabled ? o->type : 0][o->only_reward][o->on_missing]++;
}

/* Settings with and without whitening, which some estimators need and others may not have; true if one of
 * the two is accepted. */
static bool either(const char *text, opd_config_stage *stage, opd_learner_options *o) {
    char white[CASE_TEXT_MAX];
    (void)snprintf(white, sizeof white, "%s normalize_advantages=true", text);
    return accepted(text, stage, o) || accepted(white, stage, o);
}

static void check_policy(const char *estimator, const char *reduction, const char *correction, int opsm) {
    char text[CASE_TEXT_MAX];
    opd_config_stage stage;
    opd_learner_options o;
    (void)snprintf(text, sizeof text, "estimator=%s loss_reduction=%s %s%s%s", estimator, reduction,
                   correction != NULL ? "correction=" : "use_rollout_log_probs=true",
                   correction != NULL ? correction : "", opsm ? " opsm_delta=0.1" : "");
    CHECK(either(text, &stage, &o)); /* all of them are meant to work; a refusal is to be named here */
    const opd_config_train *t = &stage.train;
    check_count(text, policies[t->estimator][t->loss_reduction][correction_of(t)][opsm], 2);
    check_proven(text, &o);
}

TEST(every_estimator_reduction_and_correction_has_its_cases) {
    const char *const *estimators, *const *reductions, *const *corrections;
    size_t e = values_of("train.estimator", &estimators), r = values_of("train.loss_reduction", &reductions);
    size_t c = values_of("train.correction", &corrections);
    (void)objective_each(count_policy);
    for (size_t i = 0; i < e; i++)
        for (size_t j = 0; j < r; j++)
            for (size_t k = 0; k <= c; k++) /* the last: use_rollout_log_probs */
                for (int opsm = 0; opsm < 2; opsm++)
                    check_policy(estimators[i], reductions[j], k < c ? corrections[k] : NULL, opsm);
}

TEST(every_kl_to_the_reference_has_its_cases) {
    static const char *const places[] = {"", "kl_loss_coef=0.1", "kl_coef=0.1"};
    const char *const *estimators, *const *types;
    size_t e = values_of("train.estimator", &estimators), k = values_of("train.kl_loss_type", &types), count = 0;
    (void)objective_each(count_policy);
    for (size_t i = 0; i < e * 3 * k * 2; i++) {
        char text[CASE_TEXT_MAX];
        opd_config_stage stage;
        opd_learner_options o;
        size_t place = i / (2 * k) % 3, type = i / 2 % k, unbiased = i % 2;
        const char *name = estimators[i / (6 * k)];
        (void)snprintf(text, sizeof text, "estimator=%s %s%skl_loss_type=%s%s", name, places[place],
                       place > 0 ? " " : "", types[type], unbiased ? " unbiased_kl=true" : "");
        if (!either(text, &stage, &o)) continue;
        count++;
        check_count(text, references[stage.train.estimator][place][place == 0 ? 0 : type][unbiased], 2);
        check_proven(text, &o);
    }
    CHECK(count >= e * 8); /* none, and seven in the loss */
}

TEST(every_teacher_of_the_drawn_token_has_its_cases) {
    static const char *const teacher_texts[TYPES] = {"opd.enabled=false", "opd.type=sglang",
                                                     "opd.type=megatron teachers.big.path=.", "opd.type=constant"};
    static const char *const missing[] = {"mask", "rollout_log_probs"};
    const char *const *estimators, *const *types;
    size_t e = values_of("train.estimator", &estimators), count = 0;
    CHECK_INT(values_of("opd.type", &types), TYPES);
    CHECK_INT(values_of("opd.on_missing", &types), 3); /* the third stops the run */
    (void)objective_each(count_policy);
    for (size_t i = 0; i < e * TYPES * 2 * 2; i++) {
        char text[CASE_TEXT_MAX];
        opd_config_stage stage;
        opd_learner_options o;
        size_t type = i / 4 % TYPES, only = i / 2 % 2, fallback = i % 2;
        (void)snprintf(text, sizeof text, "estimator=%s %s opd.only_reward=%s opd.on_missing=%s",
                       estimators[i / (4 * TYPES)], teacher_texts[type], only ? "true" : "false", missing[fallback]);
        if (!either(text, &stage, &o)) continue;
        count++;
        /* who answers is no matter; nothing is missing where nobody is asked */
        size_t who = type == OPD_CONFIG_OPD_TYPE_MEGATRON ? OPD_CONFIG_OPD_TYPE_SGLANG : type;
        size_t lost = who == OPD_CONFIG_OPD_TYPE_SGLANG ? fallback : 0;
        check_count(text, teachers[stage.train.estimator][who][only][lost], 2);
        check_proven(text, &o);
    }
    CHECK(count >= e * TYPES + 5 * 3); /* five may have the teacher alone */
}

/* ---- signals ---- */

/* Cases with a distillation loss: [divergence][support][tail][selection], as the learner is told. */
static size_t signals[VALUES_MAX][VALUES_MAX][VALUES_MAX][VALUES_MAX];
static size_t with_estimator[VALUES_MAX][2], with_reduction[VALUES_MAX][VALUES_MAX];

static void count_signal(const objective_case *c, const case_data *d) {
    const opd_contrast_config *s = &c->o.signal;
    (void)d;
    if (s->coef == 0) return;
    signals[s->divergence.kind][s->support][s->divergence.tail][s->selection]++;
    with_estimator[c->stage->train.estimator][c->o.advantage.kl_coef > 0]++;
    with_reduction[s->support][c->o.reduction]++;
}

static bool check_signal(const char *text) {
    opd_config_stage stage;
    opd_learner_options o;
    if (!accepted(text, &stage, &o)) return false;
    const opd_contrast_config *s = &o.signal;
    size_t all = 0;
    for (size_t i = 0; i < VALUES_MAX; i++) all += signals[s->divergence.kind][s->support][s->divergence.tail][i];
    check_count(text, signals[s->divergence.kind][s->support][s->divergence.tail][s->selection], 1);
    check_count(text, all, 2);
    check_proven(text, &o);
    o.advantage.only_reward = true;
    check_proven(text, &o);
    return true;
}

TEST(every_divergence_support_and_tail_has_its_cases) {
    static const char *const types[] = {"sglang", "megatron teachers.big.path=."};
    const char *const *kinds, *const *supports, *const *tails, *const *choices;
    size_t d = values_of("opd.divergence", &kinds), s = values_of("opd.support", &supports), count = 0;
    size_t t = values_of("opd.tail", &tails), c = values_of("opd.token_selection", &choices);
    (void)objective_each(count_signal);
    for (size_t i = 0; i < d * (s + 1) * t * c * 2; i++) { /* the last support: none, the drawn token */
        char text[CASE_TEXT_MAX];
        size_t support = i / (2 * t * c) % (s + 1);
        bool drawn = support == s;
        if (i % 2 == 0 && i / 2 % c > 0) continue; /* whoever answers, tokens are chosen alike */
        (void)snprintf(text, sizeof text, "opd.divergence=%s %s%s opd.tail=%s opd.token_selection=%s opd.type=%s "
                       "opd.loss_coef=0.5 opd.log_prob_top_k=2", kinds[i / (2 * t * c * (s + 1))],
                       drawn ? "opd.signal=sampled" : "opd.signal=topk opd.support=",
                       drawn ? "" : supports[support], tails[i / (2 * c) % t], choices[i / 2 % c], types[i % 2]);
        count += check_signal(text);
    }
    CHECK(count >= d * t * (s * c + 2) + c + 1); /* all in this process, two supports by a server; low_var drawn */
}

TEST(every_estimator_and_reduction_meets_a_distillation_loss) {
    const char *const *names;
    (void)objective_each(count_signal);
    for (size_t i = 0; i < values_of("train.estimator", &names); i++)
        for (int sampled = 0; sampled < 2; sampled++) check_count(names[i], with_estimator[i][sampled], 2);
    for (size_t i = 0; i < values_of("train.loss_reduction", &names); i++)
        for (int support = OPD_SUPPORT_SAMPLED; support <= OPD_SUPPORT_FULL; support++)
            check_count(names[i], with_reduction[support][i], 1);
}

/* ---- what is not an rl stage ---- */

/* Stages inherit `train`; a supervised one has neither critic nor reference nor teacher. */
TEST(a_supervised_stage_takes_the_reduction_alone) {
    opd_config *config;
    opd_learner_options o = {.lm = NULL};
    CHECK_OK(case_config("run.kind=sft estimator=ppo kl_loss_coef=0.1 loss_reduction=token_mean "
                         "rollout.temperature=0.5", &config));
    opd_stage_objective(&config->stages[0], &o);
    CHECK_INT(o.reduction, OPD_REDUCTION_TOKEN_MEAN);
    CHECK_NEAR(o.temperature, 1, 0);
    CHECK_INT(o.advantage.estimator.kind, OPD_ESTIMATOR_GRPO);
    CHECK_NEAR(o.policy.kl_coef, 0, 0);
    CHECK_NEAR(o.signal.coef, 0, 0);
    opd_config_destroy(config);
}
