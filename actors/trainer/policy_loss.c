/* actors/trainer/policy_loss.c - see policy_loss.h for the formulas. Double inside, float32 at
 * the edges. No state, any thread. */
#include "actors/trainer/policy_loss.h"

#include <math.h>
#include <stdbool.h>

#include "core/base/check.h"

/* Number of tokens of a sample that the mask lets through. */
static size_t count_mask(const uint8_t *mask, size_t begin, size_t end) {
    if (mask == NULL) return end - begin;
    size_t count = 0;
    for (size_t t = begin; t < end; t++) count += mask[t] != 0;
    return count;
}

size_t opd_reduction_tokens(size_t sample_count, const size_t *offsets, const uint8_t *mask) {
    size_t total = 0;
    for (size_t i = 0; i < sample_count; i++) {
        size_t count = count_mask(mask, offsets[i], offsets[i + 1]);
        total += count > 0 ? count : 1;
    }
    return total;
}

void opd_reduction_weights(opd_reduction reduction, size_t sample_count, const size_t *offsets,
                           const uint8_t *mask, size_t batch_size, size_t batch_tokens,
                           float *out_weights) {
    bool per_sample = reduction == OPD_REDUCTION_SAMPLE_MEAN;
    OPD_ASSERT(sample_count == 0 || (per_sample ? batch_size : batch_tokens) > 0);
    for (size_t i = 0; i < sample_count; i++) {
        size_t count = count_mask(mask, offsets[i], offsets[i + 1]);
        double divisor = per_sample ? (double)(count > 0 ? count : 1) * (double)batch_size
                                    : (double)batch_tokens;
        for (size_t t = offsets[i]; t < offsets[i + 1]; t++)
            out_weights[t] = mask == NULL || mask[t] ? (float)(1 / divisor) : 0;
    }
}

static opd_err check_number(const char *name, double value) {
    if (isfinite(value) && value >= 0) return OPD_OK;
    return opd_fail(OPD_ERR_CONFIG, "%s is %g; it must be a number of at least 0", name, value);
}

opd_err opd_policy_config_check(const opd_policy_config *config) {
    OPD_TRY(check_number("clip_low", config->clip_low));
    OPD_TRY(check_number("clip_high", config->clip_high));
    OPD_TRY(check_number("dual_clip", config->dual_clip));
    OPD_TRY(check_number("entropy_coef", config->entropy_coef));
    if (config->dual_clip > 0 && config->dual_clip <= 1)
        return opd_fail(OPD_ERR_CONFIG, "dual_clip is %g; it must be above 1, or 0 for off",
                        config->dual_clip);
    return OPD_OK;
}

/* The loss x of one token and its derivative by l. */
typedef struct token_loss {
    double value, slope;
    bool clipped;
} token_loss;

static token_loss clip_loss(const opd_policy_config *config, double logp, double old_logp,
                            double advantage) {
    double ratio = exp(logp - old_logp);
    double held = fmin(fmax(ratio, 1 - config->clip_low), 1 + config->clip_high);
    double free_loss = -ratio * advantage, held_loss = -held * advantage;
    token_loss loss = {free_loss, free_loss, false}; /* d(-rho A)/dl = -rho A */
    if (held_loss > free_loss) loss = (token_loss){held_loss, 0, true};
    if (config->dual_clip > 0 && advantage < 0 && loss.value > -config->dual_clip * advantage) {
        loss.value = -config->dual_clip * advantage;
        loss.slope = 0;
    }
    return loss;
}

void opd_policy_loss(const opd_policy_config *config, size_t token_count, const float *logp,
                     const float *old_logp, const float *advantages, const float *weights,
                     const float *entropy, float *out_dlogp, float *out_dentropy,
                     opd_policy_stats *stats) {
    opd_policy_stats sum = {0};
    for (size_t t = 0; t < token_count; t++) {
        double weight = (double)weights[t];
        out_dlogp[t] = 0;
        if (out_dentropy != NULL) out_dentropy[t] = 0;
        if (weight == 0) continue;
        token_loss loss = clip_loss(config, (double)logp[t], (double)old_logp[t],
                                    (double)advantages[t]);
        out_dlogp[t] = (float)(weight * loss.slope);
        if (out_dentropy != NULL) out_dentropy[t] = (float)(-config->entropy_coef * weight);
        sum.pg_loss += weight * loss.value;
        sum.clip_frac += loss.clipped ? weight : 0;
        sum.ppo_kl += weight * ((double)old_logp[t] - (double)logp[t]);
        if (entropy != NULL) sum.entropy += weight * (double)entropy[t];
    }
    stats->loss += sum.pg_loss - config->entropy_coef * sum.entropy;
    stats->pg_loss += sum.pg_loss;
    stats->clip_frac += sum.clip_frac;
    stats->ppo_kl += sum.ppo_kl;
    stats->entropy += sum.entropy;
}
