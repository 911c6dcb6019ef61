/* test_grpo_opd_golden.c - advantages, losses and gradients down to the logits against PyTorch
 * in float64 (tests/golden/make_grpo_opd.py): ||x - ref|| <= 1e-5 ||ref|| + 1e-7 per array. */
#include "actors/trainer/advantage.h"
#include "actors/trainer/policy_loss.h"
#include "actors/trainer/sft_loss.h"
#include "tests/unit/actors/golden.h"

/* The cases, of which there are enough. */
static void for_each_case(void (*check)(const golden *g)) {
    CHECK(golden_each("tests/golden/grpo_opd.json", check) >= 20);
}

static void check_close(const golden *g, const char *want_name, const float *actual, size_t count) {
    size_t want_count;
    const double *want = get(g, want_name, &want_count);
    double error = 0, norm = 0;
    CHECK_INT(want_count, count);
    for (size_t i = 0; i < count; i++) {
        error += ((double)actual[i] - want[i]) * ((double)actual[i] - want[i]);
        norm += want[i] * want[i];
    }
    if (!(sqrt(error) <= 1e-5 * sqrt(norm) + 1e-7))
        opd_test_fail(__FILE__, __LINE__, "%s: error %.3g of norm %.3g", want_name, sqrt(error),
                      sqrt(norm));
}

static void check_number(const golden *g, const char *want_name, double actual) {
    float value = (float)actual;
    check_close(g, want_name, &value, 1);
}

/* A case in the form of the C code. */
typedef struct setup {
    size_t samples, tokens, vocab, offsets[16];
    uint64_t groups[16];
    uint8_t reward_valid[16], mask[64], valid[64], out_mask[64];
    float student[64], teacher[64], rollout[64], logp[64], entropy[64], weights[64];
    float advantages[64], dlogp[64], dentropy[64], dlogits[GOLDEN_VALUES_MAX];
    double probs[GOLDEN_VALUES_MAX], log_probs[GOLDEN_VALUES_MAX], temperature;
    opd_advantage_stats stats;
} setup;

static void copy_floats(const golden *g, const char *name, float *out) {
    size_t count;
    const double *values = get(g, name, &count);
    for (size_t i = 0; i < count; i++) out[i] = (float)values[i];
}

static void copy_bytes(const golden *g, const char *name, uint8_t *out) {
    size_t count;
    const double *values = get(g, name, &count);
    for (size_t i = 0; i < count; i++) out[i] = values[i] != 0;
}

/* log-softmax of the logits at the temperature: what the model's fused kernel computes. */
static void forward(const golden *g, setup *s) {
    const double *logits = get(g, "logits", NULL), *tokens = get(g, "tokens", NULL);
    for (size_t t = 0; t < s->tokens; t++) {
        double top = -INFINITY, sum = 0, entropy = 0;
        for (size_t j = 0; j < s->vocab; j++) top = fmax(top, logits[t * s->vocab + j]);
        for (size_t j = 0; j < s->vocab; j++)
            sum += exp((logits[t * s->vocab + j] - top) / s->temperature);
        for (size_t j = 0; j < s->vocab; j++) {
            double lp = (logits[t * s->vocab + j] - top) / s->temperature - log(sum);
            s->log_probs[t * s->vocab + j] = lp;
            s->probs[t * s->vocab + j] = exp(lp);
            entropy -= exp(lp) * lp;
        }
        s->logp[t] = (float)s->log_probs[t * s->vocab + (size_t)tokens[t]];
        s->entropy[t] = (float)entropy;
    }
}

/* The chain from token gradients to logits: dl_t/dz_j = ([j = token] - p_j) / T and
 * dH_t/dz_j = -p_j (ln p_j + H) / T. */
static void backward(const golden *g, setup *s, const float *dlogp, const float *dentropy) {
    const double *tokens = get(g, "tokens", NULL);
    for (size_t i = 0; i < s->tokens * s->vocab; i++) {
        size_t t = i / s->vocab, j = i % s->vocab;
        double hit = j == (size_t)tokens[t], p = s->probs[i];
        double slope = (double)dlogp[t] * (hit - p);
        if (dentropy != NULL)
            slope -= (double)dentropy[t] * p * (s->log_probs[i] + (double)s->entropy[t]);
        s->dlogits[i] = (float)(slope / s->temperature);
    }
}

static void prepare(const golden *g, setup *s) {
    size_t count;
    const double *lengths = get(g, "lengths", &count), *groups = get(g, "groups", NULL);
    memset(s, 0, sizeof *s);
    s->samples = count;
    for (size_t i = 0; i < count; i++) {
        s->groups[i] = (uint64_t)groups[i];
        s->offsets[i + 1] = s->offsets[i] + (size_t)lengths[i];
    }
    s->tokens = s->offsets[count];
    s->vocab = (size_t)number(g, "vocab");
    s->temperature = number(g, "temperature");
    CHECK(s->tokens <= 64);
    copy_bytes(g, "reward_valid", s->reward_valid);
    copy_bytes(g, "mask", s->mask);
    copy_bytes(g, "valid", s->valid);
    copy_floats(g, "student", s->student);
    copy_floats(g, "teacher", s->teacher);
    copy_floats(g, "rollout", s->rollout);
    forward(g, s);
}

static void compute_advantages(const golden *g, setup *s) {
    opd_advantage_config config = {
        .estimator = {.normalize_rewards = true,
                      .normalize_std = number(g, "normalize_std") != 0},
        .use_opd = number(g, "use_opd") != 0,
        .only_reward = number(g, "only_reward") != 0,
        .whiten = number(g, "whiten") != 0,
        .kl_coef = number(g, "kl_coef"),
        .invalid_policy =
            number(g, "fallback") != 0 ? OPD_INVALID_ROLLOUT_LOG_PROBS : OPD_INVALID_MASK};
    opd_advantage_input in = {s->samples, s->offsets, s->groups,  get(g, "rewards", NULL),
                              s->reward_valid, s->mask, s->student, s->teacher, s->valid,
                              s->rollout, NULL, NULL, NULL, NULL};
    CHECK_OK(opd_advantage_compute(NULL, &config, &in, s->advantages, s->out_mask, &s->stats));
}

static void weigh(const golden *g, setup *s, const uint8_t *mask) {
    bool token_mean = number(g, "token_mean") != 0;
    opd_divisor divisor = {
        .reduction = token_mean ? OPD_REDUCTION_TOKEN_MEAN : OPD_REDUCTION_SAMPLE_MEAN,
        .batch_size = s->samples,
        .batch_tokens = opd_reduction_tokens(s->samples, s->offsets, mask)};
    opd_reduction_weights(&divisor, s->samples, s->offsets, mask, s->weights);
}

static void check_grpo(const golden *g) {
    setup s;
    prepare(g, &s);
    compute_advantages(g, &s);
    check_close(g, "want_advantages", s.advantages, s.tokens);
    check_number(g, "want_reverse_kl", s.stats.reverse_kl);
    const double *want_mask = get(g, "want_mask", NULL);
    for (size_t t = 0; t < s.tokens; t++) CHECK_INT(s.out_mask[t], want_mask[t]);
    opd_policy_config policy = {.clip_low = number(g, "clip_low"),
                                .clip_high = number(g, "clip_high"),
                                .dual_clip = number(g, "dual_clip"),
                                .entropy_coef = number(g, "entropy_coef")};
    opd_policy_stats stats = {0};
    CHECK_OK(opd_policy_config_check(&policy));
    weigh(g, &s, s.out_mask);
    opd_policy_input in = {.sample_count = s.samples, .offsets = s.offsets, .logp = s.logp,
                           .old_logp = s.student, .advantages = s.advantages,
                           .weights = s.weights, .entropy = s.entropy};
    opd_policy_loss(&policy, &in, s.dlogp, s.dentropy, &stats);
    check_number(g, "want_loss", stats.loss);
    check_number(g, "want_pg_loss", stats.pg_loss);
    check_number(g, "want_clip_frac", stats.clip_frac);
    check_number(g, "want_entropy", stats.entropy);
    check_close(g, "want_dlogp", s.dlogp, s.tokens);
    backward(g, &s, s.dlogp, s.dentropy);
    check_close(g, "want_dlogits", s.dlogits, s.tokens * s.vocab);
}

static void check_sft(const golden *g) {
    setup s;
    prepare(g, &s);
    weigh(g, &s, s.mask);
    double loss = 0;
    opd_sft_loss(s.tokens, s.logp, s.weights, s.dlogp, &loss);
    check_number(g, "want_sft_loss", loss);
    backward(g, &s, s.dlogp, NULL);
    check_close(g, "want_sft_dlogits", s.dlogits, s.tokens * s.vocab);
}

TEST(grpo_with_opd_agrees_with_pytorch) { for_each_case(check_grpo); }

TEST(sft_agrees_with_pytorch) { for_each_case(check_sft); }
