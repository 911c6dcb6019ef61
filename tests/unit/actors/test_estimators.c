/* test_estimators.c - every estimator with every reduction and correction: advantages, loss and
 * gradient by the logits against PyTorch in float64 (tests/golden/make_estimators.py),
 * ||x - ref|| <= 1e-5 ||ref|| + 1e-7 each; and what must not matter (order, padding, cuts) does not. */
#include "actors/trainer/advantage.h"
#include "actors/trainer/correction.h"
#include "actors/trainer/policy_loss.h"
#include "actors/trainer/value_loss.h"
#include "core/base/file.h"
#include "core/base/rng.h"
#include "tests/support/test.h"

enum { SAMPLES_MAX = 8, TOKENS_MAX = 48, VOCAB_MAX = 8, DATASETS_MAX = 8, MAGIC = 0x4f504445 };

typedef struct dataset {
    size_t samples, tokens, vocab, offsets[SAMPLES_MAX + 1];
    uint64_t groups[SAMPLES_MAX];
    uint8_t reward_valid[SAMPLES_MAX], mask[TOKENS_MAX], valid[TOKENS_MAX];
    int32_t sampled[TOKENS_MAX];
    double rewards[SAMPLES_MAX];
    float logits[TOKENS_MAX * VOCAB_MAX];
    float old[TOKENS_MAX], rollout[TOKENS_MAX], teacher[TOKENS_MAX], ref[TOKENS_MAX];
    float values[TOKENS_MAX], values_now[TOKENS_MAX];
} dataset;

/* A combination: what the C code is to be set to. */
typedef struct settings {
    char name[96];
    size_t dataset;
    opd_advantage_config advantage;
    opd_policy_config policy;
    opd_correction_config correction;
    opd_reduction reduction;
    bool rollout_is_old;
    size_t length;
    double temperature, value_clip;
} settings;

/* What comes out, and what PyTorch says. */
typedef struct result {
    double loss, pg_loss, kl, tis, tis_clipfrac, value_loss, clip_frac, opsm_frac, ratio, ppo_kl;
    float advantages[TOKENS_MAX], dlogits[TOKENS_MAX * VOCAB_MAX], dvalues[TOKENS_MAX];
} result;

typedef struct reader {
    const char *at, *end;
} reader;

static void take(reader *r, void *out, size_t size) {
    CHECK((size_t)(r->end - r->at) >= size);
    memcpy(out, r->at, size);
    r->at += size;
}

static int32_t take_int(reader *r) {
    int32_t value;
    take(r, &value, sizeof value);
    return value;
}

static double take_double(reader *r) {
    double value;
    take(r, &value, sizeof value);
    return value;
}

static void take_bytes(reader *r, size_t count, uint8_t *out) {
    for (size_t i = 0; i < count; i++) out[i] = (uint8_t)take_int(r);
}

static void take_dataset(reader *r, dataset *d) {
    d->samples = (size_t)take_int(r);
    d->tokens = (size_t)take_int(r);
    d->vocab = (size_t)take_int(r);
    CHECK(d->samples <= SAMPLES_MAX && d->tokens <= TOKENS_MAX && d->vocab <= VOCAB_MAX);
    for (size_t i = 0; i <= d->samples; i++) d->offsets[i] = (size_t)take_int(r);
    for (size_t i = 0; i < d->samples; i++) d->groups[i] = (uint64_t)take_int(r);
    take_bytes(r, d->samples, d->reward_valid);
    take_bytes(r, d->tokens, d->mask);
    take_bytes(r, d->tokens, d->valid);
    take(r, d->sampled, d->tokens * sizeof(int32_t));
    for (size_t i = 0; i < d->samples; i++) {
        float reward;
        take(r, &reward, sizeof reward);
        d->rewards[i] = (double)reward;
    }
    take(r, d->logits, d->tokens * d->vocab * sizeof(float));
    float *columns[] = {d->old, d->rollout, d->teacher, d->ref, d->values, d->values_now};
    for (size_t i = 0; i < 6; i++) take(r, columns[i], d->tokens * sizeof(float));
}

static void take_settings(reader *r, settings *s) {
    static const opd_estimator_kind estimators[] = {
        OPD_ESTIMATOR_GRPO, OPD_ESTIMATOR_RLOO, OPD_ESTIMATOR_REINFORCE,
        OPD_ESTIMATOR_REINFORCE_BASELINE, OPD_ESTIMATOR_PPO};
    opd_estimator_config *e = &s->advantage.estimator;
    memset(s, 0, sizeof *s);
    take(r, s->name, sizeof s->name);
    s->dataset = (size_t)take_int(r);
    e->kind = estimators[take_int(r)];
    s->policy.kind = (opd_policy_kind)take_int(r);
    s->reduction = (opd_reduction)take_int(r);
    s->correction.kind = (opd_correction_kind)take_int(r);
    s->rollout_is_old = take_int(r) != 0;
    s->advantage.use_opd = take_int(r) != 0;
    s->advantage.only_reward = take_int(r) != 0;
    e->normalize_rewards = take_int(r) != 0;
    e->normalize_std = take_int(r) != 0;
    s->advantage.whiten = take_int(r) != 0;
    s->policy.kl_type = e->kl_type = (opd_kl_type)take_int(r);
    s->policy.kl_unbiased = take_int(r) != 0;
    s->advantage.kl_coef = take_double(r);
    e->kl_coef = take_double(r);
    s->policy.kl_coef = take_double(r);
    e->gamma = take_double(r);
    double *numbers[] = {&s->policy.clip_low, &s->policy.clip_high, &s->policy.dual_clip,
                         &s->policy.tau_pos, &s->policy.tau_neg, &s->correction.low,
                         &s->correction.high, &s->policy.opsm_delta, &s->policy.entropy_coef};
    for (size_t i = 0; i < 9; i++) *numbers[i] = take_double(r);
    s->length = (size_t)take_double(r);
    s->temperature = take_double(r);
    e->lambda = take_double(r);
    s->value_clip = take_double(r);
}

static void take_result(reader *r, const dataset *d, result *out) {
    double *numbers[] = {&out->loss, &out->pg_loss, &out->kl, &out->tis, &out->tis_clipfrac,
                         &out->value_loss, &out->clip_frac, &out->opsm_frac, &out->ratio,
                         &out->ppo_kl};
    for (size_t i = 0; i < 10; i++) *numbers[i] = take_double(r);
    take(r, out->advantages, d->tokens * sizeof(float));
    take(r, out->dlogits, d->tokens * d->vocab * sizeof(float));
    take(r, out->dvalues, d->tokens * sizeof(float));
}

/* ---- the code under test, between logits and their gradient ---- */

typedef struct softmax {
    double logs[TOKENS_MAX * VOCAB_MAX];
    float logp[TOKENS_MAX], entropy[TOKENS_MAX];
} softmax;

static void forward(const dataset *d, double temperature, softmax *out) {
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
static void backward(const dataset *d, double temperature, const softmax *soft, const float *dlogp,
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
static void run(const settings *s, const dataset *d, size_t piece, result *out) {
    float weights[TOKENS_MAX] = {0}, factors[TOKENS_MAX] = {0}, dlogp[TOKENS_MAX] = {0};
    float dentropy[TOKENS_MAX] = {0}, returns[TOKENS_MAX] = {0};
    uint8_t mask[TOKENS_MAX];
    softmax soft;
    opd_advantage_stats stats;
    opd_correction_stats corrected = {0};
    opd_policy_stats sum = {0};
    memset(out, 0, sizeof *out);
    forward(d, s->temperature, &soft);
    opd_advantage_input in = {d->samples, d->offsets, d->groups,  d->rewards, d->reward_valid,
                              d->mask,    d->old,     d->teacher, d->valid,   d->rollout,
                              d->ref,     d->values,  returns,    NULL};
    CHECK_OK(opd_policy_config_check(&s->policy));
    CHECK_OK(opd_advantage_compute(NULL, &s->advantage, &in, out->advantages, mask, &stats));
    opd_divisor divisor = {s->reduction, d->samples,
                           opd_reduction_tokens(d->samples, d->offsets, mask), s->length};
    opd_reduction_weights(&divisor, d->samples, d->offsets, mask, weights);
    opd_correction_factors(&s->correction, d->samples, d->offsets, mask, d->old, d->rollout,
                           factors, &corrected);
    for (size_t i = 0; i < d->samples; i += piece) {
        opd_policy_input loss = {
            .sample_count = d->samples - i < piece ? d->samples - i : piece,
            .offsets = d->offsets + i, .logp = soft.logp,
            .old_logp = s->rollout_is_old ? d->rollout : d->old, .advantages = out->advantages,
            .weights = weights, .correction = factors, .rollout_logp = d->rollout,
            .ref_logp = d->ref, .entropy = soft.entropy};
        opd_policy_loss(&s->policy, &loss, dlogp, dentropy, &sum);
    }
    opd_value_stats value = {0};
    opd_value_loss(s->value_clip, d->tokens, d->values_now, d->values, returns, weights,
                   out->dvalues, &value);
    out->value_loss = value.loss;
    double tokens = corrected.tokens > 0 ? (double)corrected.tokens : 1;
    out->loss = sum.loss, out->pg_loss = sum.pg_loss, out->kl = sum.kl;
    out->clip_frac = sum.clip_frac, out->opsm_frac = sum.opsm_frac;
    out->ratio = sum.ratio, out->ppo_kl = sum.ppo_kl;
    out->tis = corrected.factors / tokens;
    out->tis_clipfrac = (double)corrected.changed / tokens;
    backward(d, s->temperature, &soft, dlogp, dentropy, out->dlogits);
}

/* ---- comparing ---- */

static void check_number(const settings *s, const char *what, double value, double want,
                         double relative) {
    if (fabs(value - want) <= relative * fabs(want) + 1e-7) return;
    opd_test_fail(__FILE__, __LINE__, "%s, data %zu: %s is %.10g, not %.10g", s->name, s->dataset,
                  what, value, want);
}

static void check_array(const settings *s, const char *what, const float *values, const float *want,
                        size_t count, double relative, double absolute) {
    double off = 0, norm = 0;
    for (size_t i = 0; i < count; i++) {
        off += pow((double)values[i] - (double)want[i], 2);
        norm += pow((double)want[i], 2);
    }
    if (sqrt(off) <= relative * sqrt(norm) + absolute) return;
    opd_test_fail(__FILE__, __LINE__, "%s, data %zu: %s is off by %g of %g", s->name, s->dataset,
                  what, sqrt(off), sqrt(norm));
}

static void check_result(const settings *s, const dataset *d, const result *got, const result *want) {
    check_number(s, "loss", got->loss, want->loss, 1e-5);
    check_number(s, "pg_loss", got->pg_loss, want->pg_loss, 1e-5);
    check_number(s, "kl", got->kl, want->kl, 1e-5);
    check_number(s, "tis", got->tis, want->tis, 1e-5);
    check_number(s, "tis_clipfrac", got->tis_clipfrac, want->tis_clipfrac, 1e-9);
    check_number(s, "clip_frac", got->clip_frac, want->clip_frac, 1e-5);
    check_number(s, "opsm_frac", got->opsm_frac, want->opsm_frac, 1e-5);
    check_number(s, "ratio", got->ratio, want->ratio, 1e-5);
    check_number(s, "ppo_kl", got->ppo_kl, want->ppo_kl, 1e-5);
    check_number(s, "value_loss", got->value_loss, want->value_loss, 1e-5);
    check_array(s, "dvalues", got->dvalues, want->dvalues, d->tokens, 1e-5, 1e-7);
    check_array(s, "advantages", got->advantages, want->advantages, d->tokens, 1e-5, 1e-7);
    check_array(s, "dlogits", got->dlogits, want->dlogits, d->tokens * d->vocab, 1e-5, 1e-7);
}

/* Calls `check` with each case of the file. */
static size_t for_each_case(void (*check)(const settings *s, const dataset *d, const result *want)) {
    char *data;
    size_t size;
    CHECK_OK(opd_file_read(NULL, OPD_SOURCE_DIR "/tests/golden/estimators.bin", 1 << 20, &data, &size));
    reader r = {data, data + size};
    CHECK_INT(take_int(&r), MAGIC);
    size_t datasets = (size_t)take_int(&r), cases = (size_t)take_int(&r);
    CHECK(datasets <= DATASETS_MAX);
    dataset *all = calloc(datasets, sizeof *all);
    for (size_t i = 0; i < datasets; i++) take_dataset(&r, &all[i]);
    for (size_t i = 0; i < cases; i++) {
        settings s;
        result want;
        take_settings(&r, &s);
        CHECK(s.dataset < datasets);
        take_result(&r, &all[s.dataset], &want);
        check(&s, &all[s.dataset], &want);
    }
    CHECK(r.at == r.end);
    free(all);
    opd_mem_free(NULL, data);
    return cases;
}

static void check_against_pytorch(const settings *s, const dataset *d, const result *want) {
    result got;
    run(s, d, d->samples, &got);
    check_result(s, d, &got, want);
}

TEST(every_combination_agrees_with_pytorch) {
    CHECK_INT(for_each_case(check_against_pytorch), 8 * 3 * 6 * 2);
}

/* ---- what must not matter ---- */

static void check_cuts(const settings *s, const dataset *d, const result *want) {
    result got, whole;
    (void)want;
    run(s, d, d->samples, &whole);
    for (size_t piece = 1; piece < d->samples; piece++) {
        run(s, d, piece, &got);
        check_number(s, "loss of pieces", got.loss, whole.loss, 1e-6);
        CHECK(memcmp(got.dlogits, whole.dlogits, sizeof got.dlogits) == 0);
    }
}

TEST(a_cut_into_micro_batches_changes_nothing) { (void)for_each_case(check_cuts); }

/* Copies sample `from` of d behind those of out, with `padding` masked tokens of garbage. */
static void append(dataset *out, const dataset *d, size_t from, size_t padding) {
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

static void check_order_and_padding(const settings *s, const dataset *d, const result *want) {
    dataset mixed = {0};
    result got, whole;
    size_t order[SAMPLES_MAX];
    opd_rng rng;
    (void)want;
    opd_rng_init(&rng, 1 + s->dataset);
    for (size_t i = 0; i < d->samples; i++) order[i] = i;
    for (size_t i = d->samples; i > 1; i--) {
        size_t j = (size_t)opd_rng_below(&rng, (uint32_t)i), kept = order[i - 1];
        order[i - 1] = order[j];
        order[j] = kept;
    }
    for (size_t i = 0; i < d->samples; i++) append(&mixed, d, order[i], i % 3);
    run(s, d, d->samples, &whole);
    run(s, &mixed, d->samples, &got);
    check_number(s, "loss in another order", got.loss, whole.loss, 1e-6);
    for (size_t i = 0; i < d->samples; i++) {
        size_t from = d->offsets[order[i]], count = d->offsets[order[i] + 1] - from;
        check_array(s, "dlogits in another order", got.dlogits + mixed.offsets[i] * d->vocab,
                    whole.dlogits + from * d->vocab, count * d->vocab, 1e-6, 1e-6);
    }
}

TEST(order_and_padding_change_nothing) { (void)for_each_case(check_order_and_padding); }

/* Where student and teacher say the same, distilling adds nothing to any estimator. */
static void check_equal_teacher(const settings *s, const dataset *d, const result *want) {
    dataset same = *d;
    settings with = *s, without = *s;
    result a, b;
    (void)want;
    memcpy(same.teacher, same.old, sizeof same.teacher);
    memset(same.valid, 1, sizeof same.valid);
    with.advantage.use_opd = true;
    without.advantage.use_opd = without.advantage.only_reward = with.advantage.only_reward = false;
    run(&with, &same, d->samples, &a);
    run(&without, &same, d->samples, &b);
    CHECK(memcmp(a.dlogits, b.dlogits, sizeof a.dlogits) == 0);
    if (s->advantage.estimator.kind == OPD_ESTIMATOR_PPO) return; /* needs its rewards */
    with.advantage.only_reward = true;
    with.advantage.whiten = false;
    with.policy.entropy_coef = with.policy.kl_coef = 0;
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
