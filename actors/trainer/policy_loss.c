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

void opd_reduction_weights(const opd_divisor *d, size_t sample_count, const size_t *offsets,
                           const uint8_t *mask, float *out_weights) {
    for (size_t i = 0; i < sample_count; i++) {
        size_t count = count_mask(mask, offsets[i], offsets[i + 1]);
        double divisor = 0;
        switch (d->reduction) {
        case OPD_REDUCTION_SAMPLE_MEAN:
            divisor = (double)(count > 0 ? count : 1) * (double)d->batch_size;
            break;
        case OPD_REDUCTION_TOKEN_MEAN: divisor = (double)d->batch_tokens; break;
        case OPD_REDUCTION_CONSTANT: divisor = (double)d->length * (double)d->batch_size; break;
        }
        OPD_ASSERT(divisor > 0);
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
    OPD_TRY(check_number("opsm_delta", config->opsm_delta));
    OPD_TRY(check_number("entropy_coef", config->entropy_coef));
    OPD_TRY(check_number("kl_coef", config->kl_coef));
    if (config->dual_clip > 0 && config->dual_clip <= 1)
        return opd_fail(OPD_ERR_CONFIG, "dual_clip is %g; it must be above 1, or 0 for off",
                        config->dual_clip);
    if (config->kind == OPD_POLICY_SAPO && !(config->tau_pos > 0 && config->tau_neg > 0))
        return opd_fail(OPD_ERR_CONFIG, "the temperatures of the sapo gate are %g and %g; they must "
                        "be above 0", config->tau_pos, config->tau_neg);
    return OPD_OK;
}

/* The loss L of one token, its derivative by the l that its ratio is made of, and that for each unit of
 * the advantage. */
typedef struct token_loss {
    double value, slope, unit;
    bool clipped;
} token_loss;

static double held_ratio(const opd_policy_config *config, double ratio) {
    return fmin(fmax(ratio, 1 - config->clip_low), 1 + config->clip_high);
}

static token_loss clip_loss(const opd_policy_config *config, double ratio, double advantage) {
    double held = held_ratio(config, ratio);
    double free_loss = -ratio * advantage, held_loss = -held * advantage;
    token_loss loss = {free_loss, free_loss, -ratio, false}; /* d(-rho A)/dl = -rho A */
    if (held_loss > free_loss) loss = (token_loss){held_loss, 0, 0, true};
    if (config->dual_clip > 0 && advantage < 0 && loss.value > -config->dual_clip * advantage) {
        loss.value = -config->dual_clip * advantage;
        loss.slope = loss.unit = 0;
    }
    return loss;
}

static token_loss sapo_loss(const opd_policy_config *config, double ratio, double advantage) {
    double tau = advantage > 0 ? config->tau_pos : config->tau_neg;
    double p = 1 / (1 + exp(-tau * (ratio - 1))), gate = 4 * p * (1 - p);
    return (token_loss){-4 / tau * p * advantage, -gate * ratio * advantage, -gate * ratio, gate < 0.9};
}

static token_loss cispo_loss(const opd_policy_config *config, double ratio, double advantage,
                             double logp) {
    double held = held_ratio(config, ratio);
    return (token_loss){-held * advantage * logp, -held * advantage, -held, held != ratio};
}

static token_loss loss_of(const opd_policy_config *config, double ratio, double advantage,
                          double logp) {
    switch (config->kind) {
    case OPD_POLICY_SAPO: return sapo_loss(config, ratio, advantage);
    case OPD_POLICY_CISPO: return cispo_loss(config, ratio, advantage, logp);
    case OPD_POLICY_CLIP:
    case OPD_POLICY_GSPO: break;
    }
    return clip_loss(config, ratio, advantage);
}

/* Means over the tokens of a sample. */
typedef struct sample_means {
    double gain; /* l - l_old           */
    double left; /* l_rollout - l       */
    size_t tokens;
} sample_means;

static sample_means measure_sample(const opd_policy_config *config, const opd_policy_input *in,
                                   size_t from, size_t to) {
    sample_means m = {0};
    bool gspo = config->kind == OPD_POLICY_GSPO, opsm = config->opsm_delta > 0;
    for (size_t t = from; t < to; t++) {
        if (in->weights[t] == 0) continue;
        if (gspo) m.gain += (double)in->logp[t] - (double)in->old_logp[t];
        if (opsm) m.left += (double)in->rollout_logp[t] - (double)in->logp[t];
        m.tokens++;
    }
    if (m.tokens > 0) {
        m.gain /= (double)m.tokens;
        m.left /= (double)m.tokens;
    }
    return m;
}

/* What token t's policy loss counts: its weight times the correction, 0 under OPSM. */
static double policy_weight(const opd_policy_config *config, const opd_policy_input *in,
                            const sample_means *means, size_t t, opd_policy_stats *sum) {
    bool left = config->opsm_delta > 0 && in->advantages[t] < 0 && means->left > config->opsm_delta;
    sum->opsm_frac += left ? (double)in->weights[t] : 0;
    if (left) return 0;
    return (double)(in->correction != NULL ? in->weights[t] * in->correction[t] : in->weights[t]);
}

/* The KL loss of token t; returns its slope with weight and coefficient. */
static double add_kl(const opd_policy_config *config, const opd_policy_input *in, size_t t,
                     opd_policy_stats *sum) {
    if (config->kl_coef == 0) return 0;
    double weight = (double)in->weights[t];
    opd_kl k = opd_kl_estimate(config->kl_type, config->kl_unbiased, (double)in->logp[t],
                               (double)in->old_logp[t], (double)in->ref_logp[t]);
    sum->kl += weight * k.value;
    return config->kl_coef * weight * k.slope;
}

/* One sample. Under GSPO the slopes of all its tokens, added up, belong to each in equal parts. */
static void sample_loss(const opd_policy_config *config, const opd_policy_input *in, size_t from,
                        size_t to, float *out_dlogp, float *out_dentropy, opd_policy_stats *sum) {
    bool gspo = config->kind == OPD_POLICY_GSPO;
    sample_means means = measure_sample(config, in, from, to);
    float *opd = in->opd_advantages != NULL ? in->out_dlogp_opd : NULL;
    double shared = 0, shared_opd = 0;
    for (size_t t = from; t < to; t++) {
        double weight = (double)in->weights[t];
        out_dlogp[t] = 0;
        if (out_dentropy != NULL) out_dentropy[t] = 0;
        if (opd != NULL) opd[t] = 0;
        if (weight == 0) continue;
        double logp = (double)in->logp[t], gain = logp - (double)in->old_logp[t];
        double slope = 0, slope_opd = 0, counted = policy_weight(config, in, &means, t, sum);
        double ratio = exp(gain);
        token_loss loss = loss_of(config, gspo ? exp(means.gain) : ratio,
                                  (double)in->advantages[t], logp);
        if (counted != 0) { /* 0 times a loss that is no number is nothing */
            slope = counted * loss.slope;
            if (opd != NULL) slope_opd = counted * loss.unit * (double)in->opd_advantages[t];
            sum->pg_loss += counted * loss.value;
        }
        if (gspo) {
            shared += slope;
            shared_opd += slope_opd;
            slope = slope_opd = 0;
        }
        if (opd != NULL) opd[t] = (float)slope_opd;
        out_dlogp[t] = (float)(slope + add_kl(config, in, t, sum));
        if (out_dentropy != NULL) out_dentropy[t] = (float)(-config->entropy_coef * weight);
        sum->clip_frac += loss.clipped ? weight : 0;
        sum->ppo_kl -= weight * gain;
        sum->ratio += weight * ratio;
        sum->weight += weight;
        if (in->entropy != NULL) sum->entropy += weight * (double)in->entropy[t];
    }
    for (size_t t = from; gspo && t < to; t++)
        if (in->weights[t] != 0)
            out_dlogp[t] = (float)((double)out_dlogp[t] + shared / (double)means.tokens);
    for (size_t t = from; gspo && opd != NULL && t < to; t++)
        if (in->weights[t] != 0) opd[t] = (float)(shared_opd / (double)means.tokens);
}

void opd_policy_norms(size_t rows, double inverse_temperature, const float *logp, const float *collision,
                      const float *dlogp, const float *dlogp_opd, double *io_rl, double *io_opd) {
    double rl = 0, opd = 0;
    for (size_t t = 0; t < rows; t++) {
        double spread = 1 - 2 * exp((double)logp[t]) + exp((double)collision[t]);
        double of_opd = (double)dlogp_opd[t], of_rl = (double)dlogp[t] - of_opd;
        rl += of_rl * of_rl * fmax(spread, 0);
        opd += of_opd * of_opd * fmax(spread, 0);
    }
    *io_rl += rl * inverse_temperature * inverse_temperature;
    *io_opd += opd * inverse_temperature * inverse_temperature;
}

void opd_policy_loss(const opd_policy_config *config, const opd_policy_input *in,
                     float *out_dlogp, float *out_dentropy, opd_policy_stats *stats) {
    opd_policy_stats sum = {0};
    for (size_t i = 0; i < in->sample_count; i++)
        sample_loss(config, in, in->offsets[i], in->offsets[i + 1], out_dlogp, out_dentropy, &sum);
    stats->loss += sum.pg_loss + config->kl_coef * sum.kl - config->entropy_coef * sum.entropy;
    stats->pg_loss += sum.pg_loss;
    stats->clip_frac += sum.clip_frac;
    stats->ppo_kl += sum.ppo_kl;
    stats->ratio += sum.ratio;
    stats->opsm_frac += sum.opsm_frac;
    stats->weight += sum.weight;
    stats->kl += sum.kl;
    stats->entropy += sum.entropy;
}
