/* test_advantage.c - the steps of the advantage one by one, the policies for invalid scores,
 * and that values without validity cannot change a bit. */
#include "actors/trainer/advantage.h"
#include "actors/trainer/policy_loss.h"
#include "core/base/rng.h"
#include "tests/support/test.h"

#define SAMPLES 6
#define TOKENS 18

/* Two groups of three, interleaved; lengths 3, 4, 0, 5, 1, 5. */
typedef struct batch {
    size_t offsets[SAMPLES + 1];
    uint64_t groups[SAMPLES];
    double rewards[SAMPLES];
    uint8_t reward_valid[SAMPLES], mask[TOKENS], valid[TOKENS];
    float student[TOKENS], teacher[TOKENS], rollout[TOKENS];
    float advantages[TOKENS];
    uint8_t out_mask[TOKENS];
    opd_advantage_stats stats;
} batch;

static const opd_advantage_config GRPO = {.estimator = {.normalize_rewards = true, .normalize_std = true}};
static const opd_advantage_config OPD = {.estimator = {.normalize_rewards = true, .normalize_std = true},
                                         .use_opd = true, .kl_coef = 1};
static const opd_advantage_config ONLY = {.estimator = {.normalize_rewards = true, .normalize_std = true},
                                          .use_opd = true, .only_reward = true, .kl_coef = 0.5};

static batch make_batch(uint64_t seed) {
    batch b = {.offsets = {0, 3, 7, 7, 12, 13, 18}, .groups = {8, 3, 8, 3, 8, 3}};
    opd_rng rng;
    opd_rng_init(&rng, seed);
    for (size_t i = 0; i < SAMPLES; i++) {
        b.rewards[i] = (double)opd_rng_below(&rng, 3);
        b.reward_valid[i] = 1;
    }
    for (size_t t = 0; t < TOKENS; t++) {
        b.mask[t] = opd_rng_below(&rng, 5) > 0;
        b.valid[t] = opd_rng_below(&rng, 3) > 0;
        b.student[t] = (float)(-2 * opd_rng_uniform(opd_rng_next(&rng)));
        b.teacher[t] = (float)(-2 * opd_rng_uniform(opd_rng_next(&rng)));
        b.rollout[t] = (float)(-2 * opd_rng_uniform(opd_rng_next(&rng)));
    }
    return b;
}

static opd_err compute(batch *b, opd_advantage_config config) {
    opd_advantage_input in = {SAMPLES,    b->offsets, b->groups,  b->rewards, b->reward_valid,
                              b->mask,    b->student, b->teacher, b->valid,   b->rollout, NULL, NULL, NULL, NULL};
    return opd_advantage_compute(NULL, &config, &in, b->advantages, b->out_mask, &b->stats);
}

static void normalize(const double *rewards, const uint8_t *valid, const uint64_t *groups,
                      size_t count, bool std, double *out) {
    opd_estimator_config config = {.normalize_rewards = true, .normalize_std = std};
    opd_rewards in = {count, groups, rewards, valid};
    CHECK_OK(opd_reward_normalize(NULL, &config, &in, out));
}

TEST(rewards_are_normalised_by_group_not_by_place) {
    static const double REWARDS[] = {1, 10, 0, 20, 1, 30};
    static const uint64_t GROUPS[] = {5, 2, 5, 2, 5, 2};
    static const uint8_t VALID[] = {1, 1, 1, 1, 1, 1};
    double out[6];
    normalize(REWARDS, VALID, GROUPS, 6, true, out);
    double std = sqrt(1.0 / 3); /* of 1, 0, 1: mean 2/3, squares 2/3, n - 1 = 2 */
    CHECK_NEAR(out[0], (1.0 / 3) / (std + 1e-6), 1e-12);
    CHECK_NEAR(out[2], (-2.0 / 3) / (std + 1e-6), 1e-12);
    CHECK_NEAR(out[1], -10 / (10 + 1e-6), 1e-12);
    CHECK_NEAR(out[3], 0, 1e-12);
    normalize(REWARDS, VALID, GROUPS, 6, false, out);
    CHECK_NEAR(out[5], 10, 1e-12);
}

TEST(a_group_lives_on_its_survivors) {
    static const double REWARDS[] = {1, NAN, 0, 1, NAN, NAN, 1, 1};
    static const uint64_t GROUPS[] = {0, 0, 0, 1, 1, 1, 2, 2};
    static const uint8_t VALID[] = {1, 0, 1, 1, 0, 0, 1, 1};
    double out[8];
    normalize(REWARDS, VALID, GROUPS, 8, true, out);
    CHECK_NEAR(out[0], 0.5 / (sqrt(0.5) + 1e-6), 1e-12);
    CHECK_NEAR(out[1], 0, 0);
    CHECK_NEAR(out[3], 0, 0); /* one survivor */
    CHECK_NEAR(out[6], 0, 0); /* equal rewards */
}

TEST(the_opd_term_is_subtracted_at_valid_tokens_only) {
    batch off = make_batch(1), on = make_batch(1);
    opd_advantage_config config = OPD;
    config.kl_coef = 0.25;
    CHECK_OK(compute(&off, GRPO));
    CHECK_OK(compute(&on, config));
    double kl = 0;
    size_t valid = 0;
    for (size_t t = 0; t < TOKENS; t++) {
        double d = (double)on.student[t] - (double)on.teacher[t];
        bool scored = on.mask[t] && on.valid[t];
        CHECK_NEAR(on.advantages[t], (double)off.advantages[t] - (scored ? 0.25 * d : 0), 1e-6);
        CHECK_INT(on.out_mask[t], on.mask[t]);
        valid += scored;
        kl += scored ? fabs(d) : 0;
    }
    CHECK(valid > 0 && kl > 0);
    CHECK_INT(on.stats.valid_tokens, valid);
    CHECK_INT(off.stats.valid_tokens, 0);
}

TEST(the_teacher_liking_a_token_raises_its_advantage) {
    batch b = make_batch(2);
    for (size_t t = 0; t < TOKENS; t++) {
        b.valid[t] = b.mask[t] = 1;
        b.student[t] = -1.0f;
        b.teacher[t] = t % 2 == 0 ? -0.5f : -3.0f;
    }
    CHECK_OK(compute(&b, ONLY));
    for (size_t t = 0; t < TOKENS; t++)
        CHECK_NEAR(b.advantages[t], t % 2 == 0 ? 0.25 : -1.0, 1e-7);
}

TEST(kl_coef_zero_is_opd_off_to_the_bit) {
    batch off = make_batch(3), zero = make_batch(3);
    opd_advantage_config config = OPD;
    config.kl_coef = 0;
    CHECK_OK(compute(&off, GRPO));
    CHECK_OK(compute(&zero, config));
    CHECK(memcmp(off.advantages, zero.advantages, sizeof off.advantages) == 0);
    CHECK(memcmp(off.out_mask, zero.out_mask, sizeof off.out_mask) == 0);
}

TEST(only_reward_does_not_see_the_rewards) {
    batch a = make_batch(4), b = make_batch(4);
    for (size_t i = 0; i < SAMPLES; i++) b.rewards[i] = (double)(i * 7 % 4);
    b.reward_valid[3] = 0;
    CHECK_OK(compute(&a, ONLY));
    CHECK_OK(compute(&b, ONLY));
    CHECK(memcmp(a.advantages, b.advantages, sizeof a.advantages) == 0);
    CHECK(memcmp(a.out_mask, b.out_mask, sizeof a.out_mask) == 0);
}

TEST(under_only_reward_invalid_tokens_leave_the_loss) {
    batch b = make_batch(5);
    CHECK_OK(compute(&b, ONLY));
    size_t used = 0;
    for (size_t t = 0; t < TOKENS; t++) {
        CHECK_INT(b.out_mask[t], b.mask[t] && b.valid[t]);
        if (!b.out_mask[t]) CHECK_NEAR(b.advantages[t], 0, 0);
        used += b.out_mask[t];
    }
    CHECK_INT(b.stats.used_tokens, used);
    CHECK(b.stats.steppable);
    memset(b.valid, 0, sizeof b.valid);
    CHECK_OK(compute(&b, ONLY));
    CHECK_INT(b.stats.used_tokens, 0);
    CHECK(!b.stats.steppable);
    CHECK_OK(compute(&b, OPD)); /* tokens keep their RL term, yet no score: no step */
    CHECK(b.stats.used_tokens > 0 && !b.stats.steppable);
    CHECK_OK(compute(&b, GRPO));
    CHECK(b.stats.steppable);
}

/* The gradient of the whole chain, for each policy that goes on, with and without RL. */
static void gradient(batch *b, opd_advantage_config config, float *out_dlogp) {
    opd_policy_config policy = {.clip_low = 0.2, .clip_high = 0.2};
    opd_policy_stats stats = {0};
    float weights[TOKENS], logp[TOKENS];
    CHECK_OK(compute(b, config));
    for (size_t t = 0; t < TOKENS; t++) logp[t] = b->student[t] + 0.01f * (float)t;
    opd_divisor divisor = {.reduction = OPD_REDUCTION_SAMPLE_MEAN, .batch_size = SAMPLES};
    opd_reduction_weights(&divisor, SAMPLES, b->offsets, b->out_mask, weights);
    opd_policy_input in = {.sample_count = SAMPLES, .offsets = b->offsets, .logp = logp,
                           .old_logp = b->student, .advantages = b->advantages, .weights = weights};
    opd_policy_loss(&policy, &in, out_dlogp, NULL, &stats);
}

TEST(values_under_invalid_bits_cannot_change_a_bit) {
    static const float GARBAGE[] = {NAN, INFINITY, -INFINITY, 1e30f, -0.0f, 12.5f};
    for (uint64_t seed = 0; seed < 200; seed++) {
        for (int variant = 0; variant < 6; variant++) {
            opd_advantage_config config = variant % 2 == 0 ? OPD : ONLY;
            config.whiten = variant / 2 == 1;
            if (variant / 2 == 2) config.invalid_policy = OPD_INVALID_ROLLOUT_LOG_PROBS;
            batch clean = make_batch(seed), dirty = make_batch(seed);
            for (size_t t = 0; t < TOKENS; t++) {
                if (!dirty.valid[t]) dirty.teacher[t] = GARBAGE[(seed + t) % 6];
                if (!dirty.mask[t]) dirty.teacher[t] = dirty.student[t] = NAN;
            }
            float expected[TOKENS], actual[TOKENS];
            gradient(&clean, config, expected);
            gradient(&dirty, config, actual);
            CHECK(memcmp(expected, actual, sizeof expected) == 0);
            CHECK(memcmp(clean.advantages, dirty.advantages, sizeof clean.advantages) == 0);
            CHECK(memcmp(clean.out_mask, dirty.out_mask, sizeof clean.out_mask) == 0);
            CHECK(memcmp(&clean.stats, &dirty.stats, sizeof clean.stats) == 0);
        }
    }
}

/* The counterpart: values under valid bits do reach the gradient. */
TEST(values_under_valid_bits_change_the_gradient) {
    batch clean = make_batch(6), other = make_batch(6);
    size_t t = 0;
    while (!other.valid[t] || !other.mask[t]) t++;
    other.teacher[t] -= 1;
    float expected[TOKENS], actual[TOKENS];
    gradient(&clean, ONLY, expected);
    gradient(&other, ONLY, actual);
    CHECK(actual[t] != expected[t]);
}

TEST(the_seed_fallback_is_flagged_and_outside_the_means) {
    batch mask = make_batch(7), seed = make_batch(7);
    opd_advantage_config config = ONLY;
    config.invalid_policy = OPD_INVALID_ROLLOUT_LOG_PROBS;
    CHECK_OK(compute(&mask, ONLY));
    CHECK_OK(compute(&seed, config));
    size_t fallback = 0;
    for (size_t t = 0; t < TOKENS; t++) {
        CHECK_INT(seed.out_mask[t], seed.mask[t]);
        if (!seed.mask[t] || seed.valid[t]) continue;
        fallback++;
        CHECK_NEAR(seed.advantages[t],
                   -0.5 * ((double)seed.student[t] - (double)seed.rollout[t]), 1e-6);
    }
    CHECK(fallback > 0);
    CHECK_INT(seed.stats.fallback_tokens, fallback);
    CHECK_NEAR(seed.stats.reverse_kl, mask.stats.reverse_kl, 0);
    CHECK_NEAR(seed.stats.abs_diff_max, mask.stats.abs_diff_max, 0);
}

TEST(the_policy_fail_names_the_token) {
    batch b = make_batch(8);
    opd_advantage_config config = OPD;
    config.invalid_policy = OPD_INVALID_FAIL;
    memset(b.valid, 1, sizeof b.valid);
    CHECK_OK(compute(&b, config));
    b.mask[9] = 1;
    b.valid[9] = 0;
    CHECK_ERR(compute(&b, config), OPD_ERR_TEACHER_LOST);
    CHECK_CONTAINS(opd_err_context(), "sample 3, response token 2");
    b.mask[9] = 0;
    CHECK_OK(compute(&b, config));
}

TEST(whitened_advantages_have_mean_zero_and_variance_one) {
    batch b = make_batch(9);
    opd_advantage_config config = OPD;
    config.whiten = true;
    CHECK_OK(compute(&b, config));
    double sum = 0, squares = 0, n = 0;
    for (size_t t = 0; t < TOKENS; t++) {
        if (!b.out_mask[t]) CHECK_NEAR(b.advantages[t], 0, 0);
        sum += (double)b.advantages[t];
        squares += (double)b.advantages[t] * (double)b.advantages[t];
        n += b.out_mask[t];
    }
    CHECK_NEAR(sum, 0, 1e-5);
    CHECK_NEAR(squares / (n - 1), 1, 1e-5);
}

TEST(whitening_one_value_gives_zero) {
    float value = 3;
    uint8_t mask = 1;
    opd_moments moments;
    opd_whiten_measure(1, &value, &mask, &moments);
    opd_whiten_apply(&moments, 1, &mask, &value);
    CHECK_NEAR(value, 0, 0);
}

TEST(impossible_inputs_are_refused) {
    batch b = make_batch(10);
    opd_advantage_config config = GRPO;
    config.only_reward = true;
    CHECK_ERR(compute(&b, config), OPD_ERR_INVALID);
    opd_advantage_input in = {.sample_count = SAMPLES, .offsets = b.offsets, .groups = b.groups,
                              .rewards = b.rewards, .reward_valid = b.reward_valid};
    CHECK_ERR(opd_advantage_compute(NULL, &OPD, &in, b.advantages, b.out_mask, &b.stats),
              OPD_ERR_INVALID);
    in.sample_count = 0;
    CHECK_OK(opd_advantage_compute(NULL, &GRPO, &in, b.advantages, b.out_mask, &b.stats));
    CHECK(!b.stats.steppable);
}

/* An allocator that gives `left` blocks and then none. */
static void *few_blocks(void *context, void *ptr, size_t size_bytes) {
    int *left = context;
    if (size_bytes == 0) {
        free(ptr);
        return NULL;
    }
    return (*left)-- > 0 ? realloc(ptr, size_bytes) : NULL;
}

TEST(running_out_of_memory_is_an_error) {
    batch b = make_batch(11);
    opd_advantage_input in = {SAMPLES, b.offsets, b.groups,  b.rewards, b.reward_valid,
                              b.mask,  b.student, b.teacher, b.valid,   b.rollout, NULL, NULL, NULL, NULL};
    for (int blocks = 0; blocks <= 2; blocks++) {
        int left = blocks;
        opd_alloc alloc = {few_blocks, &left};
        CHECK_ERR(opd_advantage_compute(&alloc, &OPD, &in, b.advantages, b.out_mask, &b.stats),
                  blocks < 2 ? OPD_ERR_NOMEM : OPD_OK);
    }
}
