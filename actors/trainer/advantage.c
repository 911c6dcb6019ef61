/* actors/trainer/advantage.c - see advantage.h for the order of the steps and their formulas.
 * Double inside, float32 at the edges. No state, any thread. */
#include "actors/trainer/advantage.h"

#include <math.h>
#include <string.h>

#include "core/base/check.h"

/* Added to the variance in step 5 (seed's value). */
#define WHITEN_VARIANCE_EPSILON 1e-8

/* A mean over samples of a mean over tokens: tokens are added to the open sample, which
 * counts only if it got any. */
typedef struct nested_mean {
    double sum, sample_sum;
    size_t samples, sample_tokens;
} nested_mean;

static void nested_add(nested_mean *mean, double value) {
    mean->sample_sum += value;
    mean->sample_tokens++;
}

static void nested_close_sample(nested_mean *mean) {
    if (mean->sample_tokens > 0) {
        mean->sum += mean->sample_sum / (double)mean->sample_tokens;
        mean->samples++;
    }
    mean->sample_sum = 0;
    mean->sample_tokens = 0;
}

static double nested_value(const nested_mean *mean) {
    return mean->samples > 0 ? mean->sum / (double)mean->samples : 0;
}

/* ---- steps 2 to 4: the tokens ---- */

/* What the loop over tokens carries along. */
typedef struct token_pass {
    const opd_advantage_config *config;
    const opd_advantage_input *in;
    float *advantages;
    uint8_t *mask;
    opd_advantage_stats *stats;
    nested_mean reverse_kl, teacher_logp;
} token_pass;

/* Step 4 at token t: the advantage after the OPD term. The only place that reads a teacher's
 * score, and it asks for validity first. Clears the token's mask where policy MASK wants so. */
static double add_opd_term(token_pass *pass, size_t t, double advantage) {
    const opd_advantage_config *config = pass->config;
    const opd_advantage_input *in = pass->in;
    double teacher_logp;
    if (in->teacher_valid[t]) {
        teacher_logp = (double)in->teacher_logp[t];
        double difference = (double)in->student_logp[t] - teacher_logp;
        nested_add(&pass->reverse_kl, difference);
        pass->stats->abs_diff_max = fmax(pass->stats->abs_diff_max, fabs(difference));
        nested_add(&pass->teacher_logp, teacher_logp);
        pass->stats->valid_tokens++;
    } else if (config->invalid_policy == OPD_INVALID_ROLLOUT_LOG_PROBS) {
        teacher_logp = (double)in->rollout_logp[t];
        pass->stats->fallback_tokens++;
    } else {
        if (config->only_reward) pass->mask[t] = 0;
        return advantage;
    }
    if (config->kl_coef == 0) return advantage; /* exactly as without OPD */
    return advantage - config->kl_coef * ((double)in->student_logp[t] - teacher_logp);
}

/* Step 2, where it is one number per token: left in the advantages of the sample. */
static void estimate_tokens(const token_pass *pass, size_t from, size_t to, double reward) {
    const opd_advantage_input *in = pass->in;
    bool shaped = pass->config->estimator.kl_coef != 0;
    bool critic = pass->config->estimator.kind == OPD_ESTIMATOR_PPO;
    opd_estimator_sample sample = {.reward = reward, .count = to - from, .mask = pass->mask + from,
                                   .logp = shaped ? in->student_logp + from : NULL,
                                   .ref_logp = shaped ? in->ref_logp + from : NULL,
                                   .values = critic ? in->values + from : NULL};
    opd_estimator_tokens(&pass->config->estimator, &sample, pass->advantages + from,
                         critic ? in->out_returns + from : NULL);
}

static opd_err compute_sample(token_pass *pass, size_t sample, double reward) {
    const opd_advantage_config *config = pass->config;
    const opd_advantage_input *in = pass->in;
    size_t from = in->offsets[sample], to = in->offsets[sample + 1];
    bool by_token = !config->only_reward && opd_estimator_by_token(&config->estimator);
    /* without a reward an advantage of 0 is neutral only where 0 stays 0 and means "as the group" */
    bool unknown = (opd_estimator_absolute(&config->estimator) || config->whiten) &&
                   !config->only_reward && !in->reward_valid[sample];
    for (size_t t = from; t < to; t++) pass->mask[t] = in->mask == NULL || in->mask[t] != 0;
    if (by_token) estimate_tokens(pass, from, to, reward);
    for (size_t t = from; t < to; t++) {
        double advantage = config->only_reward ? 0
                           : by_token          ? (double)pass->advantages[t]
                                               : reward;
        double before = advantage;
        pass->advantages[t] = 0;
        if (in->out_opd != NULL) in->out_opd[t] = 0;
        if (!pass->mask[t]) continue;
        pass->stats->response_tokens++;
        if (config->use_opd) {
            if (config->invalid_policy == OPD_INVALID_FAIL && !in->teacher_valid[t])
                return opd_fail(OPD_ERR_TEACHER_LOST,
                                "sample %zu, response token %zu has no valid teacher score, and "
                                "the policy for invalid scores is \"fail\"",
                                sample, t - from);
            advantage = add_opd_term(pass, t, advantage);
        }
        if (unknown) pass->mask[t] = 0;
        if (!pass->mask[t]) continue;
        pass->advantages[t] = (float)advantage;
        if (in->out_opd != NULL) in->out_opd[t] = (float)(advantage - before);
        pass->stats->used_tokens++;
    }
    nested_close_sample(&pass->reverse_kl);
    nested_close_sample(&pass->teacher_logp);
    return OPD_OK;
}

/* ---- step 5 ---- */

void opd_whiten_measure(size_t count, const float *values, const uint8_t *mask,
                        opd_moments *out_moments) {
    *out_moments = (opd_moments){0};
    for (size_t t = 0; t < count; t++) {
        if (!mask[t]) continue;
        double value = (double)values[t];
        out_moments->sum += value;
        out_moments->sum_squares += value * value;
        out_moments->count += 1;
    }
}

/* By the mean of these values, and the deviation that the moments have. */
static void whiten(double sum, const opd_moments *moments, size_t count, const uint8_t *mask, float *values) {
    double n = moments->count, scale = 0;
    if (n >= 2) {
        double variance = (moments->sum_squares - moments->sum * (moments->sum / n)) / (n - 1);
        scale = 1 / sqrt(fmax(variance, 0) + WHITEN_VARIANCE_EPSILON);
    }
    for (size_t t = 0; t < count; t++)
        values[t] = mask[t] && n >= 2 ? (float)(((double)values[t] - sum / n) * scale) : 0;
}

void opd_whiten_apply(const opd_moments *moments, size_t count, const uint8_t *mask,
                      float *values) {
    whiten(moments->sum, moments, count, mask, values);
}

/* ---- the whole ---- */

static opd_err check_input(const opd_advantage_config *config, const opd_advantage_input *in) {
    OPD_ASSERT(in->sample_count == 0 || in->offsets[0] == 0);
    if (in->rewards == NULL || in->reward_valid == NULL || in->groups == NULL)
        return opd_fail(OPD_ERR_INVALID, "advantages need rewards, their validity and groups");
    if (config->estimator.kind == OPD_ESTIMATOR_PPO &&
        (in->values == NULL || in->out_returns == NULL || config->only_reward))
        return opd_fail(OPD_ERR_INVALID, "PPO needs values and rewards");
    if (config->estimator.kl_coef != 0 && (in->student_logp == NULL || in->ref_logp == NULL))
        return opd_fail(OPD_ERR_INVALID, "KL shaping needs the log-probs of student and reference");
    if (!config->use_opd)
        return config->only_reward
                   ? opd_fail(OPD_ERR_INVALID, "only_reward keeps nothing without the OPD term")
                   : OPD_OK;
    if (in->student_logp == NULL || in->teacher_logp == NULL || in->teacher_valid == NULL)
        return opd_fail(OPD_ERR_INVALID, "the OPD term needs the log-probs of student and teacher");
    if (config->invalid_policy == OPD_INVALID_ROLLOUT_LOG_PROBS && in->rollout_logp == NULL)
        return opd_fail(OPD_ERR_INVALID, "the policy rollout_log_probs needs rollout log-probs");
    return OPD_OK;
}

static void finish_stats(const token_pass *pass, const double *normalized) {
    const opd_advantage_input *in = pass->in;
    opd_advantage_stats *stats = pass->stats;
    nested_mean advantages = {0};
    double raw = 0, processed = 0;
    for (size_t i = 0; i < in->sample_count; i++) {
        for (size_t t = in->offsets[i]; t < in->offsets[i + 1]; t++)
            if (pass->mask[t]) nested_add(&advantages, (double)pass->advantages[t]);
        nested_close_sample(&advantages);
        if (!in->reward_valid[i]) continue;
        raw += in->rewards[i];
        processed += normalized[i];
        stats->reward_count++;
    }
    if (stats->reward_count > 0) {
        stats->raw_reward_mean = raw / (double)stats->reward_count;
        stats->reward_mean = processed / (double)stats->reward_count;
    }
    stats->advantage_mean = nested_value(&advantages);
    stats->reverse_kl = nested_value(&pass->reverse_kl);
    stats->teacher_logp_mean = nested_value(&pass->teacher_logp);
    bool wanted = pass->config->use_opd && pass->config->kl_coef != 0;
    bool scored = !wanted || stats->valid_tokens + stats->fallback_tokens > 0;
    stats->steppable = scored && stats->used_tokens > 0;
}

opd_err opd_advantage_compute(const opd_alloc *alloc, const opd_advantage_config *config,
                              const opd_advantage_input *in, float *out_advantages,
                              uint8_t *out_mask, opd_advantage_stats *out_stats) {
    *out_stats = (opd_advantage_stats){0};
    if (in->sample_count == 0) return OPD_OK;
    OPD_TRY(check_input(config, in));
    double *normalized = opd_mem_get(alloc, in->sample_count * sizeof *normalized);
    if (normalized == NULL)
        return opd_fail(OPD_ERR_NOMEM, "no memory for %zu rewards", in->sample_count);
    token_pass pass = {.config = config, .in = in, .advantages = out_advantages, .mask = out_mask,
                 .stats = out_stats};
    opd_err err;
    opd_rewards rewards = {in->sample_count, in->groups, in->rewards, in->reward_valid};
    OPD_TRY_GOTO(opd_reward_normalize(alloc, &config->estimator, &rewards, normalized), done);
    for (size_t i = 0; i < in->sample_count; i++)
        OPD_TRY_GOTO(compute_sample(&pass, i, normalized[i]), done);
    if (config->whiten) {
        size_t tokens = in->offsets[in->sample_count];
        opd_moments moments;
        opd_whiten_measure(tokens, out_advantages, out_mask, &moments);
        opd_whiten_apply(&moments, tokens, out_mask, out_advantages);
        if (in->out_opd != NULL) {
            opd_moments part;
            opd_whiten_measure(tokens, in->out_opd, out_mask, &part);
            whiten(part.sum, &moments, tokens, out_mask, in->out_opd);
        }
    }
    finish_stats(&pass, normalized);
done:
    opd_mem_free(alloc, normalized);
    return err;
}
