/* test_norms.c - the gradient of the policy loss in two parts, the teacher's and the reward's: they add up,
 * vanish where the loss is clipped, and their norms are those of the gradients by explicit logits. */
#include "actors/trainer/policy_loss.h"
#include "core/base/rng.h"
#include "tests/unit/actors/learner_rig.h"

enum { N = 24, VOCAB = 13 };

static const size_t OFFSETS[] = {0, 7, 8, N};

/* Log-probs, advantages and their parts of three samples. */
typedef struct tokens {
    float logp[N], old[N], rollout[N], a[N], rl[N], opd[N], weights[N], dlogp[N], part[N];
} tokens;

static void fill(opd_rng *rng, tokens *t) {
    for (size_t i = 0; i < N; i++) {
        t->logp[i] = -2 + 0.3f * (float)opd_rng_normal(rng);
        t->old[i] = t->logp[i] + 0.3f * (float)opd_rng_normal(rng);
        t->rollout[i] = t->old[i];
        t->opd[i] = (float)(opd_rng_below(rng, 64)) / 32 - 1; /* exact sums */
        t->rl[i] = (float)(opd_rng_below(rng, 64)) / 32 - 1;
        t->a[i] = t->rl[i] + t->opd[i];
        t->weights[i] = opd_rng_below(rng, 5) == 0 ? 0 : 0.125f;
    }
}

/* dlogp and its part for these advantages. */
static void slopes(const opd_policy_config *config, tokens *t) {
    opd_policy_stats stats = {0};
    opd_policy_input in = {.sample_count = 3, .offsets = OFFSETS, .logp = t->logp, .old_logp = t->old,
                           .advantages = t->a, .weights = t->weights, .rollout_logp = t->rollout,
                           .opd_advantages = t->opd, .out_dlogp_opd = t->part};
    opd_policy_loss(config, &in, t->dlogp, NULL, &stats);
}

/* The other part by the same way, the rest of the advantage named as the teacher's: the sum is the whole. */
static void check_sum(const opd_policy_config *config, opd_rng *rng, size_t *clipped) {
    tokens one, other;
    fill(rng, &one);
    slopes(config, &one);
    other = one;
    memcpy(other.opd, one.rl, sizeof one.rl);
    slopes(config, &other);
    for (size_t i = 0; i < N; i++) {
        double sum = (double)one.part[i] + (double)other.part[i];
        CHECK_NEAR(one.dlogp[i], sum, 1e-6 * (fabs((double)one.part[i]) + fabs((double)other.part[i])) + 1e-12);
        bool gated = one.dlogp[i] == 0 && one.a[i] != 0;
        if (gated) CHECK(one.part[i] == 0 && other.part[i] == 0);
        *clipped += gated && one.weights[i] > 0;
        bool cancels = one.a[i] == 0 && one.opd[i] != 0 && one.weights[i] > 0 && config->kind == OPD_POLICY_CLIP;
        if (cancels) CHECK(one.part[i] != 0); /* the two parts are there, though their sum is not */
    }
}

TEST(the_parts_add_up_and_are_gated_together) {
    static const opd_policy_kind kinds[] = {OPD_POLICY_CLIP, OPD_POLICY_GSPO, OPD_POLICY_SAPO, OPD_POLICY_CISPO};
    opd_rng rng;
    opd_rng_init(&rng, 12);
    for (size_t k = 0; k < OPD_COUNTOF(kinds); k++) {
        size_t clipped = 0;
        for (int round = 0; round < 60; round++) {
            opd_policy_config config = {.kind = kinds[k], .clip_low = 0.1, .clip_high = 0.15, .tau_pos = 1,
                                        .tau_neg = 1.05, .dual_clip = k < 2 && round % 2 ? 1.5 : 0,
                                        .opsm_delta = round % 3 == 0 ? 0.05 : 0};
            check_sum(&config, &rng, &clipped);
        }
        CHECK(clipped > 10);
    }
}

/* Against the gradients that the kernel makes of the logits. */
TEST(norms_are_those_of_the_gradients_by_the_logits) {
    opd_kernels *kernels = tiny_kernels(1);
    opd_rng rng;
    opd_rng_init(&rng, 13);
    for (int round = 0; round < 20; round++) {
        float logits[N * VOCAB], made[N * VOCAB], logp[N], twice[N], inverse[N], doubled[N], all[N], part[N], rest[N];
        int32_t targets[N];
        double rl = 0, opd = 0;
        for (size_t i = 0; i < N * VOCAB; i++) logits[i] = (float)(1 + round) * (float)opd_rng_normal(&rng);
        for (size_t i = 0; i < N; i++) {
            targets[i] = (int32_t)opd_rng_below(&rng, VOCAB);
            inverse[i] = 1.25f, doubled[i] = 2.5f;
            part[i] = (float)opd_rng_normal(&rng);
            rest[i] = (float)opd_rng_normal(&rng);
            all[i] = part[i] + rest[i];
        }
        kernels->ops->logprob(kernels, logp, NULL, NULL, NULL, 0, logits, targets, inverse, N, VOCAB);
        kernels->ops->logprob(kernels, twice, NULL, NULL, NULL, 0, logits, targets, doubled, N, VOCAB);
        for (size_t i = 0; i < N; i++) twice[i] = 2 * logp[i] - twice[i];
        opd_policy_norms(N, 1.25, logp, twice, all, part, &rl, &opd);
        const float *slopes_of[] = {rest, part};
        const double squares[] = {rl, opd};
        for (int j = 0; j < 2; j++) {
            memcpy(made, logits, sizeof logits);
            kernels->ops->logprob_grad(kernels, made, targets, inverse, slopes_of[j], NULL, N, VOCAB);
            double want = kernels->ops->sum_squares(kernels, made, N * VOCAB);
            CHECK_NEAR(squares[j], want, 1e-5 * want + 1e-9);
        }
    }
    opd_kernels_destroy(kernels);
}

/* ---- through the learner ---- */

static void norms_of(bool only_reward, double loss_coef, double temperature, double *out_rl, double *out_opd) {
    opd_batch *batch = rig_batch(15, 0.8, false);
    rig r;
    rig_up(&r, 1);
    r.o.temperature = temperature;
    r.o.advantage.only_reward = only_reward;
    r.o.signal = (opd_contrast_config){.coef = loss_coef, .support = OPD_SUPPORT_SAMPLED, .k = RIG_TOP_K,
                                       .divergence = {.kind = OPD_DIVERGENCE_LOW_VAR, .jsd_alpha = 0.5,
                                                      .tail = OPD_TAIL_TRUNCATE}};
    learn(&r, batch);
    *out_rl = r.v[OPD_METRIC_RL_GRAD_NORM];
    *out_opd = r.v[OPD_METRIC_OPD_GRAD_NORM];
    rig_down(&r);
    opd_batch_destroy(batch);
}

/* In the advantage alone, beside a divergence of no weight to speak of, and with nothing else: the same. */
TEST(the_learner_tells_the_two_apart_wherever_they_meet) {
    for (int i = 0; i < 2; i++) {
        double rl, opd, rl_beside, opd_beside, none, alone, temperature = i == 0 ? 1 : 0.8;
        norms_of(false, 0, temperature, &rl, &opd);
        norms_of(false, 1e-9, temperature, &rl_beside, &opd_beside);
        norms_of(true, 0, temperature, &none, &alone);
        CHECK(rl > 0 && opd > 0);
        CHECK_NEAR(rl, rl_beside, 1e-5 * rl);
        CHECK_NEAR(opd, opd_beside, 1e-5 * opd);
        CHECK_NEAR(none, 0, 1e-9);
        CHECK_NEAR(alone > 0, 1, 0);
    }
}
