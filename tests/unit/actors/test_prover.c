/* test_prover.c - the objective prover: what it accepts, what it refuses, and its expectations against
 * drawing. */
#include "actors/trainer/prover.h"
#include "core/base/check.h"
#include "core/base/rng.h"
#include "tests/support/alloc_test.h"
#include "tests/support/test.h"

/* GRPO with the sampled OPD term. */
static opd_learner_options plain(void) {
    return (opd_learner_options){
        .temperature = 1, .reduction = OPD_REDUCTION_SAMPLE_MEAN, .reduction_length = 1,
        .advantage = {.estimator = {.normalize_rewards = true, .normalize_std = true, .gamma = 1, .lambda = 1},
                      .use_opd = true, .kl_coef = 1},
        .policy = {.clip_low = 0.2, .clip_high = 0.28, .tau_pos = 1, .tau_neg = 1.05}};
}

/* A divergence on the teacher's two most likely ids, and nothing else. */
static opd_learner_options topk(opd_support_kind support) {
    opd_learner_options o = plain();
    o.advantage.only_reward = true;
    o.advantage.kl_coef = 0;
    o.signal = (opd_contrast_config){.coef = 1, .support = support, .k = 2,
                                     .divergence = {.kind = OPD_DIVERGENCE_FORWARD_KL, .jsd_alpha = 0.5}};
    return o;
}

static opd_err prove(const opd_learner_options *o, size_t samples, bool rewarded) {
    opd_proof proof;
    opd_objective_claim claim = {.learner = o, .samples_per_prompt = samples, .rewarded = rewarded};
    return opd_objective_prove(&claim, NULL, &proof);
}

/* ---- what is accepted ---- */

TEST(every_estimator_with_every_reduction_learns) {
    static const opd_policy_kind losses[] = {OPD_POLICY_CLIP, OPD_POLICY_GSPO, OPD_POLICY_SAPO, OPD_POLICY_CISPO};
    for (int estimator = OPD_ESTIMATOR_GRPO; estimator <= OPD_ESTIMATOR_PPO; estimator++)
        for (size_t loss = 0; loss < 4; loss++)
            for (int reduction = 0; reduction < 3; reduction++)
                for (int teacher = 0; teacher < 2; teacher++) {
                    opd_learner_options o = plain();
                    o.advantage.estimator.kind = (opd_estimator_kind)estimator;
                    o.policy.kind = losses[loss];
                    o.reduction = (opd_reduction)reduction;
                    o.advantage.use_opd = teacher != 0;
                    o.advantage.whiten = estimator == OPD_ESTIMATOR_REINFORCE;
                    CHECK_OK(prove(&o, 4, true));
                }
}

TEST(every_divergence_on_every_support_learns) {
    for (int support = OPD_SUPPORT_TEACHER_TOPK; support <= OPD_SUPPORT_FULL; support++)
        for (int kind = 0; kind < 4; kind++)
            for (int tail = 0; tail < 3; tail++)
                for (int alone = 0; alone < 2; alone++) {
                    opd_learner_options o = topk((opd_support_kind)support);
                    o.signal.divergence.kind = (opd_divergence_kind)kind;
                    o.signal.divergence.tail = (opd_divergence_tail)tail;
                    o.signal.divergence.clip = 1e-6;      /* bounds of the data say nothing */
                    o.signal.divergence.logp_floor = -1e-6;
                    o.advantage.only_reward = alone != 0;
                    CHECK_OK(prove(&o, alone ? 1 : 4, !alone));
                }
    opd_learner_options o = topk(OPD_SUPPORT_SAMPLED);
    o.signal.divergence = (opd_divergence_config){.kind = OPD_DIVERGENCE_LOW_VAR, .tail = OPD_TAIL_TRUNCATE};
    CHECK_OK(prove(&o, 1, false));
}

TEST(small_weights_and_no_reward_learn) {
    opd_learner_options o = plain();
    o.advantage.kl_coef = 1e-3;
    CHECK_OK(prove(&o, 4, true));
    CHECK_OK(prove(&o, 1, false)); /* n = 1, but with a teacher */
    o = topk(OPD_SUPPORT_TEACHER_TOPK);
    o.signal.coef = 1e-3;
    CHECK_OK(prove(&o, 1, false));
    o = plain();
    o.constant_prob = 1e-3;
    o.advantage.only_reward = true;
    CHECK_OK(prove(&o, 1, false));
}

/* ---- what is refused ---- */

TEST(the_drawn_token_s_reverse_kl_as_a_loss_knows_no_teacher) {
    opd_learner_options o = topk(OPD_SUPPORT_SAMPLED);
    o.signal.divergence = (opd_divergence_config){.kind = OPD_DIVERGENCE_REVERSE_KL, .tail = OPD_TAIL_TRUNCATE};
    CHECK_ERR(prove(&o, 1, false), OPD_ERR_CONFIG);
    CHECK_CONTAINS(opd_err_context(), "is zero"); /* the mean of a score is zero */
    o.policy.entropy_coef = 0.1; /* something else may learn, but not from the teacher */
    CHECK_ERR(prove(&o, 4, true), OPD_ERR_CONFIG);
    CHECK_CONTAINS(opd_err_context(), "no effect");
    o.advantage.only_reward = false;
    CHECK_ERR(prove(&o, 4, true), OPD_ERR_CONFIG);
}

TEST(one_id_renormalised_is_refused) {
    for (int kind = 0; kind < 4; kind++) {
        opd_learner_options o = topk(OPD_SUPPORT_TEACHER_TOPK);
        o.signal.k = 1;
        o.signal.divergence.kind = (opd_divergence_kind)kind;
        o.signal.divergence.tail = OPD_TAIL_RENORMALISE;
        CHECK_ERR(prove(&o, 1, false), OPD_ERR_CONFIG);
        o.advantage.only_reward = false; /* beside a reward it would go unnoticed */
        CHECK_ERR(prove(&o, 4, true), OPD_ERR_CONFIG);
        o.signal.divergence.tail = OPD_TAIL_BUCKET;
        CHECK_OK(prove(&o, 4, true));
    }
}

TEST(a_weight_that_whitening_divides_out_is_refused) {
    opd_learner_options o = plain();
    o.advantage.whiten = o.advantage.only_reward = true;
    CHECK_ERR(prove(&o, 4, true), OPD_ERR_CONFIG);
    CHECK_CONTAINS(opd_err_context(), "whitening");
    o.advantage.only_reward = false;
    CHECK_OK(prove(&o, 4, true));
}

TEST(grpo_alone_with_one_sample_is_refused) {
    opd_learner_options o = plain();
    o.advantage.use_opd = false;
    CHECK_ERR(prove(&o, 1, true), OPD_ERR_CONFIG);
    CHECK_CONTAINS(opd_err_context(), "rewards that differ");
    CHECK_ERR(prove(&o, 4, false), OPD_ERR_CONFIG); /* as without any reward */
    CHECK_OK(prove(&o, 2, true));
}

TEST(settings_out_of_range_are_refused) {
    opd_learner_options o = topk(OPD_SUPPORT_TEACHER_TOPK);
    const double bad[] = {-1, NAN, INFINITY};
    for (size_t i = 0; i < OPD_COUNTOF(bad); i++) {
        o.signal.coef = bad[i];
        CHECK_ERR(prove(&o, 1, false), OPD_ERR_CONFIG);
    }
}

/* ---- drawing ---- */

/* The mean gradient of many drawn outcomes lies within four standard errors of the exact one. */
static void check_drawing(const opd_learner_options *o, size_t samples, bool rewarded, uint64_t seed) {
    enum { DRAWS = 5000 };
    opd_toy *toy;
    opd_objective_claim claim = {.learner = o, .samples_per_prompt = samples, .rewarded = rewarded};
    double exact[OPD_TOY_VOCAB], sum[OPD_TOY_VOCAB] = {0}, squares[OPD_TOY_VOCAB] = {0};
    opd_rng rng;
    opd_rng_init(&rng, seed);
    CHECK_OK(opd_toy_create(&claim, 0, 1, NULL, &toy));
    CHECK_OK(opd_toy_expectation(toy, exact));
    for (int d = 0; d < DRAWS; d++) {
        int32_t ids[OPD_TOY_SAMPLES_MAX];
        double gradient[OPD_TOY_VOCAB];
        for (size_t i = 0; i < opd_toy_samples(toy); i++) {
            double u = opd_rng_uniform(opd_rng_next(&rng));
            ids[i] = 0;
            while (ids[i] < OPD_TOY_VOCAB - 1 && u >= opd_toy_probability(toy, ids[i]))
                u -= opd_toy_probability(toy, ids[i]++);
        }
        CHECK_OK(opd_toy_gradient(toy, ids, gradient));
        for (int j = 0; j < OPD_TOY_VOCAB; j++) {
            sum[j] += gradient[j];
            squares[j] += gradient[j] * gradient[j];
        }
    }
    for (int j = 0; j < OPD_TOY_VOCAB; j++) {
        double mean = sum[j] / DRAWS, variance = fmax(squares[j] / DRAWS - mean * mean, 0);
        CHECK_NEAR(mean, exact[j], 4 * sqrt(variance / DRAWS) + 1e-7);
    }
    opd_toy_destroy(toy);
}

TEST(expectations_are_the_means_of_drawing) {
    uint64_t seed = 1;
    for (int estimator = OPD_ESTIMATOR_GRPO; estimator <= OPD_ESTIMATOR_PPO; estimator++) {
        opd_learner_options o = plain();
        o.advantage.estimator.kind = (opd_estimator_kind)estimator;
        o.advantage.whiten = estimator == OPD_ESTIMATOR_REINFORCE;
        o.policy.entropy_coef = 0.05;
        check_drawing(&o, 4, true, seed++);
    }
    for (int support = OPD_SUPPORT_SAMPLED; support <= OPD_SUPPORT_FULL; support++) {
        opd_learner_options o = topk((opd_support_kind)support);
        o.signal.divergence.kind = OPD_DIVERGENCE_LOW_VAR;
        if (support == OPD_SUPPORT_SAMPLED) o.signal.divergence.tail = OPD_TAIL_TRUNCATE;
        o.advantage.only_reward = false;
        o.temperature = 0.8;
        check_drawing(&o, 4, true, seed++);
    }
}

/* The sampled term is a policy gradient: its expectation is the gradient of KL(student || teacher), which the
 * divergence over the whole vocabulary has without drawing. */
TEST(the_sampled_term_expects_what_the_whole_distribution_gives) {
    double sampled[OPD_TOY_VOCAB], whole[OPD_TOY_VOCAB];
    opd_toy *toy;
    opd_learner_options o = plain(), full = topk(OPD_SUPPORT_FULL);
    o.advantage.only_reward = true;
    full.signal.divergence.kind = OPD_DIVERGENCE_REVERSE_KL;
    opd_objective_claim claim = {.learner = &o, .samples_per_prompt = 1};
    CHECK_OK(opd_toy_create(&claim, 0, 1, NULL, &toy));
    CHECK_OK(opd_toy_expectation(toy, sampled));
    opd_toy_destroy(toy);
    claim.learner = &full;
    CHECK_OK(opd_toy_create(&claim, 0, 1, NULL, &toy));
    CHECK_OK(opd_toy_expectation(toy, whole));
    opd_toy_destroy(toy);
    for (int j = 0; j < OPD_TOY_VOCAB; j++) CHECK_NEAR(sampled[j], whole[j], 1e-6);
}

TEST(a_toy_that_cannot_be_made_leaves_nothing) {
    for (long fail_at = 1;; fail_at++) {
        CHECK(fail_at < 10000);
        opd_test_alloc memory;
        opd_proof proof;
        opd_learner_options o = topk(OPD_SUPPORT_TEACHER_TOPK);
        opd_objective_claim claim = {.learner = &o, .samples_per_prompt = 1};
        opd_test_alloc_failing(&memory, fail_at, false);
        opd_err err = opd_objective_prove(&claim, &memory.alloc, &proof);
        CHECK(err == OPD_OK || err == OPD_ERR_NOMEM);
        CHECK_INT(memory.live, 0);
        if (err == OPD_OK && atomic_load(&memory.calls) < fail_at) break;
    }
}
