/* test_estimators.c - every estimator with every reduction and correction, on batches with masks: advantages,
 * loss and gradient by the logits against PyTorch in float64 (tests/golden/make_objectives.py),
 * ||x - ref|| <= 1e-5 ||ref|| + 1e-7 each; and what must not matter (order, padding, cuts) does not. The
 * functions are called here one by one; test_objectives.c has the learner call them. */
#include "actors/trainer/advantage.h"
#include "actors/trainer/correction.h"
#include "actors/trainer/policy_loss.h"
#include "actors/trainer/value_loss.h"
#include "core/base/rng.h"
#include "tests/support/test.h"
#include "tests/unit/actors/objective_cases.h"

enum { SAMPLES_MAX = CASE_SAMPLES_MAX, TOKENS_MAX = CASE_TOKENS_MAX, VOCAB_MAX = CASE_VOCAB_MAX };

/* ---- the code under test, between logits and their gradient ---- */

typedef struct softmax {
    double logs[TOKENS_MAX * VOCAB_MAX];
    float logp[TOKENS_MAX], entropy[TOKENS_MAX];
} softmax;

static void forward(const case_data *d, double temperature, softmax *out) {
    for (size_t t = 0; t < d->tokens; t++) {
        const float *z = d->logits + t * d->vocab;
        double sum = 0, entropy = 0, *logs = out->logs + t * d->vocab;
        for (size_t j = 0; j < d->vocab; j++) sum += exp((double)z[j] / temperature);
        for (size_t j = 0; j < d->vocab; j++) {
            logs[j] = (double)z[j] / temperature - log(sum);
            entropy -= exp(logs[j]) * logs[j];
        }
        out->logp[t] = (float)logs[d->sampled[t]];
        out->entropy[t] = (float)entropy;
    }
}

/* dl_t/dz_j = ([j = token] - p_j) / T and dH_t/dz_j = -p_j (ln p_j + H) / T. */
static void backward(const case_data *d, double temperature, const softmax *soft, const float *dlogp,
                     const float *dentropy, float *out) {
    for (size_t i = 0; i < d->tokens * d->vocab; i++) {
        size_t t = i / d->vocab, j = i % d->vocab;
        double p = exp(soft->logs[i]), hit = j == (size_t)d->sampled[t];
        out[i] = (float)(((double)dlogp[t] * (hit - p) -
                          (double)dentropy[t] * p * (soft->logs[i] + (double)soft->entropy[t])) /
                         temperature);
    }
}

/* Runs a combination, its loss in pieces of `piece` samples. */
static void run(const objective_case *s, const case_data *d, size_t piece, case_result *out) {
    float weights[TOKENS_MAX] = {0}, factors[TOKENS_MAX] = {0}, dlogp[TOKENS_MAX] = {0};
    float dentropy[TOKENS_MAX] = {0}, returns[TOKENS_MAX] = {0};
    uint8_t mask[TOKENS_MAX], valid[TOKENS_MAX];
    float teacher[TOKENS_MAX];
    softmax soft;
    opd_advantage_stats stats;
    opd_correction_stats corrected = {0};
    opd_policy_stats sum = {0};
    *out = (case_result){.loss = 0};
    forward(d, s->o.temperature, &soft);
    memcpy(teacher, d->teacher, sizeof teacher);
    memcpy(valid, d->valid, sizeof valid);
    if (s->o.constant_prob > 0) opd_constant_teacher(s->o.constant_prob, d->tokens, d->old, teacher, valid);
    opd_advantage_input in = {d->samples, d->offsets, d->groups,  d->rewards, d->reward_valid,
                              d->mask,    d->old,     teacher,    valid,      d->rollout,
                              d->ref,     d->values,  returns,    NULL};
    CHECK_OK(opd_policy_config_check(&s->o.policy));
    CHECK_OK(opd_advantage_compute(NULL, &s->o.advantage, &in, out->advantages, mask, &stats));
    opd_divisor divisor = {s->o.reduction, d->samples,
                           opd_reduction_tokens(d->samples, d->offsets, mask), s->o.reduction_length};
    opd_reduction_weights(&divisor, d->samples, d->offsets, mask, weights);
    opd_correction_factors(&s->o.correction, d->samples, d->offsets, mask, d->old, d->rollout,
                           factors, &corrected);
    for (size_t i = 0; i < d->samples; i += piece) {
        opd_policy_input loss = {
            .sample_count = d->samples - i < piece ? d->samples - i : piece,
            .offsets = d->offsets + i, .logp = soft.logp,
            .old_logp = s->o.rollout_is_old ? d->rollout : d->old, .advantages = out->advantages,
            .weights = weights, .correction = factors, .rollout_logp = d->rollout,
            .ref_logp = d->ref, .entropy = soft.entropy};
        opd_policy_loss(&s->o.policy, &loss, dlogp, dentropy, &sum);
    }
    opd_value_stats value = {0};
    opd_value_loss(s->o.critic.clip, d->tokens, d->values_now, d->values, returns, weights,
                   out->dvalues, &value);
    out->value_loss = value.loss;
    double tokens = corrected.tokens > 0 ? (double)corrected.tokens : 1;
    out->loss = sum.loss, out->pg_loss = sum.pg_loss, out->kl = sum.kl;
    out->clip_frac = sum.clip_frac, out->opsm_frac = sum.opsm_frac;
    out->ratio = sum.ratio, out->ppo_kl = sum.ppo_kl;
    out->tis = corrected.factors / tokens;
    out->tis_clipfrac = (double)corrected.changed / tokens;
    backward(d, s->o.temperature, &soft, dlogp, dentropy, out->dlogits);
}

/* ---- comparing ---- */

static void check_against_pytorch(const objective_case *s, const case_data *d) {
    case_result got;
    const case_result *want = &s->want;
    run(s, d, d->samples, &got);
    case_number(s, "loss", got.loss, want->loss, 1e-5);
    case_number(s, "pg_loss", got.pg_loss, want->pg_loss, 1e-5);
    case_number(s, "kl", got.kl, want->kl, 1e-5);
    case_number(s, "tis", got.tis, want->tis, 1e-5);
    case_number(s, "tis_clipfrac", got.tis_clipfrac, want->tis_clipfrac, 1e-5);
    case_number(s, "clip_frac", got.clip_frac, want->clip_frac, 1e-5);
    case_number(s, "opsm_frac", got.opsm_frac, want->opsm_frac, 1e-5);
    case_number(s, "ratio", got.ratio, want->ratio, 1e-5);
    case_number(s, "ppo_kl", got.ppo_kl, want->ppo_kl, 1e-5);
    case_array(s, "advantages", got.advantages, want->advantages, d->tokens, 1e-5);
    case_array(s, "dlogits", got.dlogits, want->dlogits, d->tokens * d->vocab, 1e-5);
    if (s->o.advantage.estimator.kind != OPD_ESTIMATOR_PPO) return;
    case_number(s, "value_loss", got.value_loss, want->value_loss, 1e-5);
    case_array(s, "dvalues", got.dvalues, want->dvalues, d->tokens, 1e-5);
}

static size_t checked;
static void (*check_of_policy)(const objective_case *s, const case_data *d);

static void check_policy(const objective_case *s, const case_data *d) {
    if (s->o.signal.coef > 0) return; /* needs a learner: test_objectives.c */
    check_of_policy(s, d);
    checked++;
}

/* Calls `check` with each case without a distillation loss. */
static size_t for_each_case(void (*check)(const objective_case *s, const case_data *d)) {
    check_of_policy = check;
    checked = 0;
    (void)objective_each(check_policy);
    return checked;
}

TEST(every_combination_agrees_with_pytorch) {
    CHECK_INT(for_each_case(check_against_pytorch), 8 * 3 * 6 * 2 * 2);
}

/* ---- what must not matter ---- */

static void check_cuts(const objective_case *s, const case_data *d) {
    case_result got, whole;
    run(s, d, d->samples, &whole);
    for (size_t piece = 1; piece < d->samples; piece++) {
        run(s, d, piece, &got);
        case_number(s, "loss of pieces", got.loss, whole.loss, 1e-6);
        CHECK(memcmp(got.dlogits, whole.dlogits, sizeof got.dlogits) == 0);
    }
}

TEST(a_cut_into_micro_batches_changes_nothing) { (void)for_each_case(check_cuts); }

/* Copies sample `from` of d behind those of out, with `padding` masked tokens of garbage. */
static void append(case_data *out, const case_data *d, size_t from, size_t padding) {
    size_t to = out->samples++, at = out->offsets[to], begin = d->offsets[from];
    size_t count = d->offsets[from + 1] - begin;
    out->groups[to] = d->groups[from];
    out->rewards[to] = d->rewards[from];
    out->reward_valid[to] = d->reward_valid[from];
    out->vocab = d->vocab;
    for (size_t t = 0; t < count + padding; t++, at++) {
        bool real = t < count;
        CHECK(at < TOKENS_MAX);
        out->mask[at] = real ? d->mask[begin + t] : 0;
        out->valid[at] = real ? d->valid[begin + t] : 1;
        out->sampled[at] = real ? d->sampled[begin + t] : 0;
        out->old[at] = real ? d->old[begin + t] : NAN;
        out->rollout[at] = real ? d->rollout[begin + t] : NAN;
        out->teacher[at] = real ? d->teacher[begin + t] : NAN;
        out->ref[at] = real ? d->ref[begin + t] : NAN;
        out->values[at] = real ? d->values[begin + t] : NAN;
        out->values_now[at] = real ? d->values_now[begin + t] : NAN;
        for (size_t j = 0; j < d->vocab; j++)
            out->logits[at * d->vocab + j] = real ? d->logits[(begin + t) * d->vocab + j] : 0;
    }
    out->tokens = out->offsets[to + 1] = at;
}

static void check_order_and_padding(const objective_case *s, const case_data *d) {
    case_data mixed = {0};
    case_result got, whole;
    size_t order[SAMPLES_MAX];
    opd_rng rng;
    opd_rng_init(&rng, 1 + s->data);
    for (size_t i = 0; i < d->samples; i++) order[i] = i;
    for (size_t i = d->samples; i > 1; i--) {
        size_t j = (size_t)opd_rng_below(&rng, (uint32_t)i), kept = order[i - 1];
        order[i - 1] = order[j];
        order[j] = kept;
    }
    for (size_t i = 0; i < d->samples; i++) append(&mixed, d, order[i], i % 3);
    run(s, d, d->samples, &whole);
    run(s, &mixed, d->samples, &got);
    case_number(s, "loss in another order", got.loss, whole.loss, 1e-6);
    for (size_t i = 0; i < d->samples; i++) {
        size_t from = d->offsets[order[i]], count = d->offsets[order[i] + 1] - from;
        case_array(s, "dlogits in another order", got.dlogits + mixed.offsets[i] * d->vocab,
                    whole.dlogits + from * d->vocab, count * d->vocab, 1e-6);
    }
}

TEST(order_and_padding_change_nothing) { (void)for_each_case(check_order_and_padding); }

/* Where student and teacher say the same, distilling adds nothing to any estimator. */
static void check_equal_teacher(const objective_case *s, const case_data *d) {
    case_data same = *d;
    objective_case with = *s, without = *s;
    case_result a, b;
    memcpy(same.teacher, same.old, sizeof same.teacher);
    memset(same.valid, 1, sizeof same.valid);
    with.o.advantage.use_opd = true;
    with.o.constant_prob = without.o.constant_prob = 0;
    without.o.advantage.use_opd = without.o.advantage.only_reward = with.o.advantage.only_reward = false;
    run(&with, &same, d->samples, &a);
    run(&without, &same, d->samples, &b);
    CHECK(memcmp(a.dlogits, b.dlogits, sizeof a.dlogits) == 0);
    if (s->o.advantage.estimator.kind == OPD_ESTIMATOR_PPO) return; /* needs its rewards */
    with.o.advantage.only_reward = true;
    with.o.advantage.whiten = false;
    with.o.policy.entropy_coef = with.o.policy.kl_coef = 0;
    run(&with, &same, d->samples, &a);
    for (size_t i = 0; i < d->tokens * d->vocab; i++) CHECK_NEAR(a.dlogits[i], 0, 0);
}

TEST(a_teacher_that_agrees_adds_nothing) { (void)for_each_case(check_equal_teacher); }

/* A student that is the reference pays nothing, by every estimate; and near it k3 keeps its digits. */
TEST(the_kl_to_oneself_is_zero) {
    for (int type = OPD_KL_K1; type <= OPD_KL_LOW_VAR; type++) {
        opd_kl k = opd_kl_estimate((opd_kl_type)type, false, -1.25, 0, -1.25);
        CHECK_NEAR(k.value, 0, 0);
        CHECK_NEAR(k.slope, type == OPD_KL_K1, 0);
    }
    opd_kl near = opd_kl_estimate(OPD_KL_K3, false, -1.25 + 1e-9, 0, -1.25);
    CHECK_NEAR(near.slope, 1e-9, 1e-15);
    double d = ldexp(1, -20); /* exp(-d) - 1 would have left four digits of d^2 / 2 */
    opd_kl small = opd_kl_estimate(OPD_KL_K3, false, -1.25 + d, 0, -1.25);
    CHECK_NEAR(small.value, d * d / 2 - d * d * d / 6, 1e-8 * d * d);
    opd_kl far = opd_kl_estimate(OPD_KL_LOW_VAR, false, -20, 0, -1);
    CHECK_NEAR(far.value, 10, 0);
    CHECK_NEAR(far.slope, 0, 0);
}

/* On three tokens, by enumeration: the expected slope of k1 as a loss has no reference in it, those
 * of k2 and of the unbiased k1 and k3 are the gradient of KL(student || reference). */
TEST(the_expected_slopes_are_what_the_header_says) {
    static const double p[] = {0.5, 0.3, 0.2}, q[] = {0.2, 0.2, 0.6};
    for (int type = OPD_KL_K1; type <= OPD_KL_K3; type++) {
        for (int unbiased = 0; unbiased < 2; unbiased++) {
            if (unbiased && type == OPD_KL_K2) continue; /* that of the mean of d^2 / 2 */
            for (int j = 0; j < 3; j++) { /* by logit j: dl_i/dz_j = [i = j] - p_j */
                double got = 0, reverse = 0, forward_kl = 0;
                for (int i = 0; i < 3; i++) {
                    double slope = opd_kl_estimate((opd_kl_type)type, unbiased, log(p[i]), log(p[i]),
                                                   log(q[i])).slope;
                    got += p[i] * slope * ((i == j) - p[j]);
                    reverse += p[i] * log(p[i] / q[i]) * ((i == j) - p[j]);
                    forward_kl -= q[i] * ((i == j) - p[j]);
                }
                double want = unbiased || type == OPD_KL_K2 ? reverse
                              : type == OPD_KL_K1 ? 0 : forward_kl;
                CHECK_NEAR(got, want, 1e-12);
            }
        }
    }
}
