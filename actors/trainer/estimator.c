/* actors/trainer/estimator.c - see estimator.h for the formulas. Double inside, float32 at the
 * edges. No state, any thread. */
#include "actors/trainer/estimator.h"

#include <math.h>
#include <stdlib.h>

/* Added to the standard deviation (seed's value). */
#define REWARD_STD_EPSILON 1e-6

typedef struct member {
    uint64_t group;
    size_t sample;
} member;

static int compare_members(const void *left, const void *right) {
    const member *a = left, *b = right;
    if (a->group != b->group) return a->group < b->group ? -1 : 1;
    return (a->sample > b->sample) - (a->sample < b->sample);
}

/* Normalises the `count` >= 2 survivors of one group. */
static void normalize_group(const opd_estimator_config *config, const member *members, size_t count,
                            const double *rewards, double *out_normalized) {
    double mean = 0, squares = 0, divisor = 1;
    for (size_t i = 0; i < count; i++) mean += rewards[members[i].sample];
    mean /= (double)count;
    for (size_t i = 0; i < count; i++) {
        double deviation = rewards[members[i].sample] - mean;
        out_normalized[members[i].sample] = deviation;
        squares += deviation * deviation;
    }
    if (config->kind == OPD_ESTIMATOR_RLOO) /* r - mean of the others = n / (n - 1) (r - mean) */
        divisor = (double)(count - 1) / (double)count;
    else if (config->kind == OPD_ESTIMATOR_GRPO && config->normalize_std)
        divisor = sqrt(squares / (double)(count - 1)) + REWARD_STD_EPSILON;
    for (size_t i = 0; i < count; i++) out_normalized[members[i].sample] /= divisor;
}

static bool group_relative(const opd_estimator_config *config) {
    return config->kind == OPD_ESTIMATOR_GRPO ? config->normalize_rewards
                                              : !opd_estimator_absolute(config);
}

opd_err opd_reward_normalize(const opd_alloc *alloc, const opd_estimator_config *config,
                             const opd_rewards *rewards, double *out_normalized) {
    size_t n = rewards->sample_count, survivors = 0;
    bool relative = group_relative(config);
    for (size_t i = 0; i < n; i++)
        out_normalized[i] = relative || !rewards->valid[i] ? 0 : rewards->values[i];
    if (!relative || n == 0) return OPD_OK;
    member *members = opd_mem_get(alloc, n * sizeof *members);
    if (members == NULL) return opd_fail(OPD_ERR_NOMEM, "no memory to group %zu samples", n);
    for (size_t i = 0; i < n; i++)
        if (rewards->valid[i]) members[survivors++] = (member){rewards->groups[i], i};
    qsort(members, survivors, sizeof *members, compare_members);
    for (size_t begin = 0, end; begin < survivors; begin = end) {
        end = begin + 1;
        while (end < survivors && members[end].group == members[begin].group) end++;
        if (end - begin >= 2)
            normalize_group(config, members + begin, end - begin, rewards->values, out_normalized);
    }
    opd_mem_free(alloc, members);
    return OPD_OK;
}

bool opd_estimator_absolute(const opd_estimator_config *config) {
    return config->kind == OPD_ESTIMATOR_REINFORCE || config->kind == OPD_ESTIMATOR_PPO;
}

bool opd_estimator_by_token(const opd_estimator_config *config) {
    return opd_estimator_absolute(config) ||
           (config->kind == OPD_ESTIMATOR_REINFORCE_BASELINE && config->kl_coef != 0);
}

void opd_estimator_tokens(const opd_estimator_config *config, const opd_estimator_sample *sample,
                          float *out_advantages, float *out_returns) {
    bool summed = opd_estimator_absolute(config), critic = config->kind == OPD_ESTIMATOR_PPO;
    bool last = true;
    double after = 0, value_after = 0; /* G or A, and V, of the next token */
    for (size_t t = sample->count; t-- > 0;) {
        out_advantages[t] = 0;
        if (critic) out_returns[t] = 0;
        if (!sample->mask[t]) continue;
        double x = last || !summed ? sample->reward : 0;
        if (config->kl_coef != 0)
            x -= config->kl_coef * opd_kl_estimate(config->kl_type, false, (double)sample->logp[t],
                                                   0, (double)sample->ref_logp[t]).value;
        if (critic) {
            double value = (double)sample->values[t];
            x += config->gamma * value_after - value + config->gamma * config->lambda * after;
            out_returns[t] = (float)(x + value);
            value_after = value;
        } else if (summed) {
            x += config->gamma * after;
        }
        after = x;
        out_advantages[t] = (float)x;
        last = false;
    }
}
