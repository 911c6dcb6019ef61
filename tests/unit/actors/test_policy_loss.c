/* test_policy_loss.c - reductions, the clip in each of its regions, finite differences,
 * and that micro-batches add up to the batch. */
#include "actors/trainer/policy_loss.h"
#include "actors/trainer/sft_loss.h"
#include "core/base/rng.h"
#include "tests/support/test.h"

static const opd_policy_config CLIP = {.clip_low = 0.2, .clip_high = 0.3};

static const size_t ONE[] = {0, 1}, TWO[] = {0, 2};

/* Loss and slope of one token of weight 1 at ratio exp(logp - 0). */
static double one(opd_policy_config config, float logp, float advantage, float *out_slope,
                  double *out_clipped) {
    float old = 0, weight = 1;
    opd_policy_stats stats = {0};
    opd_policy_input in = {.sample_count = 1, .offsets = ONE, .logp = &logp, .old_logp = &old,
                           .advantages = &advantage, .weights = &weight};
    opd_policy_loss(&config, &in, out_slope, NULL, &stats);
    if (out_clipped != NULL) *out_clipped = stats.clip_frac;
    CHECK_NEAR(stats.ppo_kl, -logp, 1e-12);
    return stats.pg_loss;
}

TEST(sample_mean_and_token_mean_weights) {
    static const size_t OFFSETS[] = {0, 2, 2, 5};
    static const uint8_t MASK[] = {1, 1, 0, 0, 1};
    float weights[5];
    opd_divisor divisor = {.reduction = OPD_REDUCTION_SAMPLE_MEAN, .batch_size = 4};
    opd_reduction_weights(&divisor, 3, OFFSETS, MASK, weights);
    static const double WANT[] = {0.125, 0.125, 0, 0, 0.25};
    for (int t = 0; t < 5; t++) CHECK_NEAR(weights[t], WANT[t], 1e-7);
    size_t tokens = opd_reduction_tokens(3, OFFSETS, MASK);
    CHECK_INT(tokens, 2 + 1 + 1); /* the empty sample counts one */
    divisor = (opd_divisor){.reduction = OPD_REDUCTION_TOKEN_MEAN, .batch_tokens = tokens};
    opd_reduction_weights(&divisor, 3, OFFSETS, MASK, weights);
    CHECK_NEAR(weights[0], 0.25, 1e-7);
    CHECK_NEAR(weights[2], 0, 0);
    CHECK_INT(opd_reduction_tokens(3, OFFSETS, NULL), 2 + 1 + 3);
    divisor = (opd_divisor){.reduction = OPD_REDUCTION_CONSTANT, .batch_size = 4, .length = 10};
    opd_reduction_weights(&divisor, 3, OFFSETS, MASK, weights);
    static const double SAME[] = {0.025, 0.025, 0, 0, 0.025}; /* no answer counts less for its length */
    for (int t = 0; t < 5; t++) CHECK_NEAR(weights[t], SAME[t], 1e-8);
}

TEST(the_clip_stops_the_gradient_on_the_side_it_guards) {
    float slope;
    double clipped;
    CHECK_NEAR(one(CLIP, 0, 2, &slope, &clipped), -2, 1e-6);
    CHECK_NEAR(slope, -2, 1e-6);
    CHECK_NEAR(clipped, 0, 0);
    CHECK_NEAR(one(CLIP, 1, 2, &slope, &clipped), -1.3 * 2, 1e-6); /* too far up already */
    CHECK_NEAR(slope, 0, 0);
    CHECK_NEAR(clipped, 1, 0);
    CHECK_NEAR(one(CLIP, -1, 2, &slope, &clipped), -2 * exp(-1), 1e-6); /* may come back up */
    CHECK_NEAR(slope, -2 * exp(-1), 1e-6);
    CHECK_NEAR(one(CLIP, -1, -2, &slope, &clipped), 0.8 * 2, 1e-6); /* too far down already */
    CHECK_NEAR(slope, 0, 0);
    CHECK_NEAR(one(CLIP, 1, -2, &slope, &clipped), 2 * exp(1), 1e-5);
    CHECK_NEAR(slope, 2 * exp(1), 1e-5);
    CHECK_NEAR(clipped, 0, 0);
}

TEST(dual_clip_bounds_the_loss_of_bad_tokens) {
    opd_policy_config config = CLIP;
    config.dual_clip = 3;
    float slope;
    CHECK_NEAR(one(config, 2, -1, &slope, NULL), 3, 1e-6);
    CHECK_NEAR(slope, 0, 0);
    CHECK_NEAR(one(config, 1, -1, &slope, NULL), exp(1), 1e-5);
    CHECK_NEAR(one(config, 2, 1, &slope, NULL), -1.3, 1e-6); /* good tokens: as before */
}

/* Away from the corners of the clip the slope is the difference quotient. */
TEST(slopes_are_finite_differences) {
    opd_policy_config config = CLIP;
    config.dual_clip = 2.5;
    opd_rng rng;
    opd_rng_init(&rng, 17);
    int checked = 0;
    for (int i = 0; i < 2000; i++) {
        float logp = (float)(opd_rng_normal(&rng) * 0.7), step = 1.0f / 1024;
        float advantage = (float)opd_rng_normal(&rng), slope, up_slope, down_slope;
        (void)one(config, logp, advantage, &slope, NULL);
        double up = one(config, logp + step, advantage, &up_slope, NULL);
        double down = one(config, logp - step, advantage, &down_slope, NULL);
        if ((up_slope == 0) != (down_slope == 0)) continue; /* a corner in between */
        CHECK_NEAR((up - down) / (2 * (double)step), slope, 1e-4 * (1 + fabs((double)slope)));
        checked++;
    }
    CHECK(checked > 1900);
}

TEST(micro_batches_add_up_to_the_batch) {
    enum { N = 40 };
    size_t offsets[] = {0, 7, 7, 20, 33, N};
    float logp[N], old[N], advantage[N], weights[N], whole[N], parts[N], entropy[N];
    float whole_entropy[N], parts_entropy[N];
    opd_rng rng;
    opd_rng_init(&rng, 23);
    for (int t = 0; t < N; t++) {
        logp[t] = (float)opd_rng_normal(&rng);
        old[t] = (float)opd_rng_normal(&rng);
        advantage[t] = (float)opd_rng_normal(&rng);
        entropy[t] = (float)opd_rng_uniform(opd_rng_next(&rng));
    }
    opd_policy_config config = CLIP;
    config.entropy_coef = 0.1;
    opd_divisor divisor = {.reduction = OPD_REDUCTION_SAMPLE_MEAN, .batch_size = 5};
    opd_reduction_weights(&divisor, 5, offsets, NULL, weights);
    opd_policy_stats all = {0}, sum = {0};
    opd_policy_input in = {.sample_count = 5, .offsets = offsets, .logp = logp, .old_logp = old,
                           .advantages = advantage, .weights = weights, .entropy = entropy};
    opd_policy_loss(&config, &in, whole, whole_entropy, &all);
    in.sample_count = 1;
    for (; in.offsets < offsets + 5; in.offsets++)
        opd_policy_loss(&config, &in, parts, parts_entropy, &sum);
    CHECK(memcmp(whole, parts, sizeof whole) == 0);
    CHECK(memcmp(whole_entropy, parts_entropy, sizeof whole) == 0);
    CHECK_NEAR(all.loss, sum.loss, 1e-12);
    CHECK_NEAR(all.loss, all.pg_loss - 0.1 * all.entropy, 1e-12);
    CHECK_NEAR(all.clip_frac, sum.clip_frac, 1e-12);
    CHECK_NEAR(whole_entropy[0], -0.1 * (double)weights[0], 1e-9);
}

TEST(tokens_of_weight_zero_are_unread) {
    float logp[] = {-1, NAN}, old[] = {-1, NAN}, advantage[] = {1, NAN}, weights[] = {1, 0};
    float entropy[] = {0.5f, NAN}, dlogp[2], dentropy[2];
    opd_policy_stats stats = {0};
    opd_policy_input in = {.sample_count = 1, .offsets = TWO, .logp = logp, .old_logp = old,
                           .advantages = advantage, .weights = weights, .entropy = entropy};
    opd_policy_loss(&CLIP, &in, dlogp, dentropy, &stats);
    CHECK_NEAR(stats.loss, -1, 1e-7);
    CHECK_NEAR(dlogp[1], 0, 0);
    CHECK_NEAR(dentropy[1], 0, 0);
    double sft = 0;
    opd_sft_loss(2, logp, weights, dlogp, &sft);
    CHECK_NEAR(sft, 1, 1e-7);
    CHECK_NEAR(dlogp[0], -1, 0);
    CHECK_NEAR(dlogp[1], 0, 0);
}

TEST(non_finite_numbers_show_in_the_loss) {
    float logp[] = {200}, old[] = {-1000}, advantage[] = {-1}, weights[] = {1}, dlogp[1];
    opd_policy_stats stats = {0};
    opd_policy_input in = {.sample_count = 1, .offsets = ONE, .logp = logp, .old_logp = old,
                           .advantages = advantage, .weights = weights};
    opd_policy_loss(&CLIP, &in, dlogp, NULL, &stats);
    CHECK(!isfinite(stats.loss));
    stats = (opd_policy_stats){0};
    logp[0] = NAN;
    opd_policy_loss(&CLIP, &in, dlogp, NULL, &stats);
    CHECK(isnan(stats.loss) && isnan(dlogp[0]));
}

TEST(impossible_settings_are_named) {
    opd_policy_config config = CLIP;
    CHECK_OK(opd_policy_config_check(&config));
    config.dual_clip = 1;
    CHECK_ERR(opd_policy_config_check(&config), OPD_ERR_CONFIG);
    CHECK_CONTAINS(opd_err_context(), "dual_clip");
    config = CLIP;
    config.clip_low = -0.1;
    CHECK_ERR(opd_policy_config_check(&config), OPD_ERR_CONFIG);
    config = CLIP;
    config.entropy_coef = NAN;
    CHECK_ERR(opd_policy_config_check(&config), OPD_ERR_CONFIG);
    CHECK_CONTAINS(opd_err_context(), "entropy_coef");
}

/* Where the student has not moved yet and a sample has one advantage, all four losses have the
 * gradient of the plain policy gradient, -w A. */
TEST(on_policy_all_losses_have_one_gradient) {
    enum { N = 9 };
    static const size_t offsets[] = {0, 2, 3, N};
    float logp[N], advantages[N], weights[N], dlogp[N];
    for (int t = 0; t < N; t++) {
        logp[t] = -0.3f * (float)(t + 1);
        advantages[t] = t < 2 ? 1.5f : t < 3 ? -0.5f : -2;
    }
    opd_divisor divisor = {.reduction = OPD_REDUCTION_SAMPLE_MEAN, .batch_size = 3};
    opd_reduction_weights(&divisor, 3, offsets, NULL, weights);
    opd_policy_input in = {.sample_count = 3, .offsets = offsets, .logp = logp, .old_logp = logp,
                           .advantages = advantages, .weights = weights};
    for (int kind = OPD_POLICY_CLIP; kind <= OPD_POLICY_CISPO; kind++) {
        opd_policy_stats stats = {0};
        opd_policy_config config = CLIP;
        config.kind = (opd_policy_kind)kind;
        config.tau_pos = 1, config.tau_neg = 1.05;
        opd_policy_loss(&config, &in, dlogp, NULL, &stats);
        for (int t = 0; t < N; t++) CHECK_NEAR(dlogp[t], -weights[t] * advantages[t], 1e-7);
        CHECK_NEAR(stats.clip_frac, 0, 0);
        CHECK_NEAR(stats.ratio, 1, 1e-6);
    }
}
