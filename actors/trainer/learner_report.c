/* learner_report.c - what a finished batch showed, as the metrics of metrics.h (learner.h).
 * Thread: the trainer's lane, or the loop between batches. Nothing is allocated. */
#include <math.h>

#include "actors/trainer/learner_inside.h"
#include "core/base/check.h"

static void report_correction(const opd_learner *l, double *v) {
    const opd_correction_stats *c = &l->corrected;
    double tokens = (double)c->tokens;
    if (c->tokens == 0) return;
    v[OPD_METRIC_MISMATCH_KL] = c->kl / tokens;
    v[OPD_METRIC_MISMATCH_K3_KL] = c->k3 / tokens;
    if (l->o.correction.kind == OPD_CORRECTION_NONE) return;
    v[OPD_METRIC_TIS] = c->factors / tokens;
    v[OPD_METRIC_TIS_CLIPFRAC] = (double)c->changed / tokens;
    v[OPD_METRIC_TIS_ABS] = c->abs / tokens;
}

/* Of all tokens, when the batch began. */
static double mean_logp(const opd_learner *l) {
    double sum = 0;
    for (size_t t = 0; t < l->batch->row_count; t++) sum += (double)l->student_logp[t];
    return sum / (double)l->batch->row_count;
}

/* Token means of what the critic said when the batch began, and of what came. */
static void report_critic(const opd_learner *l, double *v, double means) {
    double values = 0, returns = 0, count = 0;
    for (size_t t = 0; t < l->batch->row_count; t++) {
        if (!l->mask[t]) continue;
        values += (double)l->values[t];
        returns += (double)l->returns[t];
        count++;
    }
    v[OPD_METRIC_VALUES] = values / fmax(count, 1);
    v[OPD_METRIC_RETURNS] = returns / fmax(count, 1);
    v[OPD_METRIC_VALUE_LOSS] = l->value.loss / means;
    v[OPD_METRIC_VALUE_CLIPFRAC] = l->value.clip_frac / means;
}

static void report_overlap(const opd_overlap *overlap, double *v) {
    v[OPD_METRIC_OPD_OVERLAP] = overlap->ratio;
    if (overlap->valued == 0) return; /* a teacher that lists ids without log-probs */
    v[OPD_METRIC_OPD_OVERLAP_ADVANTAGE] = overlap->advantage;
    v[OPD_METRIC_OPD_OVERLAP_STUDENT_MASS] = overlap->student_mass;
    v[OPD_METRIC_OPD_OVERLAP_TEACHER_MASS] = overlap->teacher_mass;
    v[OPD_METRIC_OPD_ENTROPY_GAP] = overlap->entropy_gap;
}

static void report_policy(const opd_learner *l, double *v) {
    const opd_advantage_stats *a = &l->advantage;
    double steps = l->made; /* each one's loss is a mean over its share */
    double means = l->policy.weight; /* samples without a token to learn from have none */
    if (a->reward_count > 0) {
        v[OPD_METRIC_RAW_REWARD] = a->raw_reward_mean;
        v[OPD_METRIC_REWARDS] = a->reward_mean;
    }
    if (a->used_tokens > 0) v[OPD_METRIC_ADVANTAGES] = a->advantage_mean;
    if (l->o.advantage.use_opd && l->o.constant_prob == 0) {
        size_t valid = a->valid_tokens;
        v[OPD_METRIC_VALID_SHARE] = (double)valid / fmax(1.0, (double)a->response_tokens);
        v[OPD_METRIC_INVALID_TOKENS] = (double)(a->response_tokens - valid);
        v[OPD_METRIC_FALLBACK_TOKENS] = (double)a->fallback_tokens;
        if (valid > 0) {
            v[OPD_METRIC_OPD_REVERSE_KL] = a->reverse_kl;
            v[OPD_METRIC_OPD_ABS_DIFF_MAX] = a->abs_diff_max;
            v[OPD_METRIC_TEACHER_LOG_PROBS] = a->teacher_logp_mean;
        }
        if (l->overlap.rows > 0) report_overlap(&l->overlap, v);
        if (l->o.student_k > 0 && (l->stepped || valid == 0))
            v[OPD_METRIC_OPD_OVERLAP_COVERAGE] = l->overlap.coverage;
    }
    if (!l->stepped || l->update.skipped) return; /* sums of a refused step say nothing */
    v[OPD_METRIC_LOSS] = (l->policy.loss + l->o.critic.coef * l->value.loss) / steps;
    if (l->critic != NULL) report_critic(l, v, means);
    if (l->distil != NULL) {
        v[OPD_METRIC_LOSS] += opd_distil_loss(l->distil) / steps;
        opd_distil_report(l->distil, l->made, v);
    }
    if (opd__learner_splits(l)) {
        v[OPD_METRIC_OPD_GRAD_NORM] = sqrt(l->opd_squares / steps);
        v[OPD_METRIC_RL_GRAD_NORM] = sqrt(l->rl_squares / steps);
    }
    v[OPD_METRIC_PG_LOSS] = l->policy.pg_loss / steps;
    v[OPD_METRIC_PG_CLIPFRAC] = l->policy.clip_frac / means;
    v[OPD_METRIC_PPO_KL] = l->policy.ppo_kl / means;
    v[OPD_METRIC_OIS] = l->policy.ratio / means;
    if (l->o.policy.opsm_delta > 0) v[OPD_METRIC_OPSM_CLIPFRAC] = l->policy.opsm_frac / means;
    if (l->o.policy.kl_coef > 0) v[OPD_METRIC_KL_LOSS] = l->policy.kl / means;
    report_correction(l, v);
    v[OPD_METRIC_ENTROPY] = l->policy.entropy / means;
    v[OPD_METRIC_LOGPROB_ABS_DIFF] = l->logp_diff / (double)l->first_rows;
    v[OPD_METRIC_LOG_PROBS] = mean_logp(l);
}

void opd_learner_report(const opd_learner *l, double values[OPD_METRIC_COUNT]) {
    opd_metrics_clear(values);
    if (l->o.objective == OPD_OBJECTIVE_POLICY) report_policy(l, values);
    else if (l->stepped) values[OPD_METRIC_LOSS] = l->sft_loss / l->made;
    values[OPD_METRIC_GRAD_NORM] = l->update.grad_norm;
    values[OPD_METRIC_LR] = l->update.lr;
    values[OPD_METRIC_SKIPPED] = (double)l->nonfinite;
    values[OPD_METRIC_UNSCORED] = (double)l->unscored;
}

void opd_learner_teacher(const opd_learner *l, size_t teacher, double *out_token_share,
                         double *out_kl) {
    OPD_ASSERT(teacher < l->o.teachers_max);
    const opd_teacher_tally *t = &l->tallies[teacher];
    size_t rows = l->batch->row_count;
    *out_token_share = rows > 0 ? (double)t->tokens / (double)rows : 0;
    *out_kl = t->samples > 0 ? t->kl_sum / (double)t->samples : (double)NAN;
}
