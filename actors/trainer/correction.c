/* actors/trainer/correction.c - see correction.h for the formulas. No state, any thread. */
#include "actors/trainer/correction.h"

#include <math.h>
#include <stdbool.h>

/* ln of the geometric mean of the ratio over a sample's tokens; 0 without any. */
static double mean_log_ratio(size_t from, size_t to, const uint8_t *mask, const float *old_logp,
                             const float *rollout_logp) {
    double sum = 0;
    size_t count = 0;
    for (size_t t = from; t < to; t++) {
        if (!mask[t]) continue;
        sum += (double)old_logp[t] - (double)rollout_logp[t];
        count++;
    }
    return count > 0 ? sum / (double)count : 0;
}

static double factor_of(const opd_correction_config *config, double ratio, bool outside) {
    switch (config->kind) {
    case OPD_CORRECTION_TIS: return fmin(fmax(ratio, config->low), config->high);
    case OPD_CORRECTION_ICEPOP: return outside ? 0 : ratio;
    case OPD_CORRECTION_SEQUENCE_MASK: return outside ? 0 : 1;
    case OPD_CORRECTION_DECOUPLED: return ratio;
    case OPD_CORRECTION_NONE: break;
    }
    return 1;
}

void opd_correction_factors(const opd_correction_config *config, size_t sample_count,
                            const size_t *offsets, const uint8_t *mask, const float *old_logp,
                            const float *rollout_logp, float *out_factors,
                            opd_correction_stats *stats) {
    bool bounded = config->kind != OPD_CORRECTION_NONE && config->kind != OPD_CORRECTION_DECOUPLED;
    bool whole = config->kind == OPD_CORRECTION_SEQUENCE_MASK;
    for (size_t i = 0; i < sample_count; i++) {
        size_t from = offsets[i], to = offsets[i + 1];
        double mean = whole ? exp(mean_log_ratio(from, to, mask, old_logp, rollout_logp)) : 0;
        for (size_t t = from; t < to; t++) {
            out_factors[t] = 1;
            if (!mask[t]) continue;
            double d = (double)old_logp[t] - (double)rollout_logp[t], ratio = exp(d);
            double judged = whole ? mean : ratio;
            bool outside = bounded && (judged < config->low || judged > config->high);
            double factor = factor_of(config, ratio, outside);
            out_factors[t] = (float)factor;
            stats->tokens++;
            stats->changed += outside;
            stats->factors += factor;
            stats->abs += fabs(ratio - 1);
            stats->kl -= d;
            stats->k3 += expm1(d) - d;
        }
    }
}
