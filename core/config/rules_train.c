/* rules_train.c - derived defaults and rules of estimators, losses and off-policy corrections: what
 * contradicts itself, and what looks like learning and is not. See load.h. */
#include "core/base/check.h"
#include "core/config/load.h"

static bool reinforce(const opd_config_train *t) {
    return t->estimator == OPD_CONFIG_ESTIMATOR_REINFORCE ||
           t->estimator == OPD_CONFIG_ESTIMATOR_REINFORCE_BASELINE;
}

bool opd__train_group_relative(const opd_config_train *t) {
    switch (t->estimator) {
    case OPD_CONFIG_ESTIMATOR_PPO:
    case OPD_CONFIG_ESTIMATOR_REINFORCE: return false;
    case OPD_CONFIG_ESTIMATOR_RLOO:
    case OPD_CONFIG_ESTIMATOR_REINFORCE_BASELINE: return true;
    case OPD_CONFIG_ESTIMATOR_GRPO:
    case OPD_CONFIG_ESTIMATOR_GSPO:
    case OPD_CONFIG_ESTIMATOR_SAPO:
    case OPD_CONFIG_ESTIMATOR_CISPO: break;
    }
    return t->rewards_normalization;
}

const char *opd__estimator_name(opd_config_estimator estimator) {
    static const char *const names[] = {
        [OPD_CONFIG_ESTIMATOR_GRPO] = "GRPO",
        [OPD_CONFIG_ESTIMATOR_GSPO] = "GSPO",
        [OPD_CONFIG_ESTIMATOR_SAPO] = "SAPO",
        [OPD_CONFIG_ESTIMATOR_CISPO] = "CISPO",
        [OPD_CONFIG_ESTIMATOR_RLOO] = "RLOO",
        [OPD_CONFIG_ESTIMATOR_REINFORCE] = "REINFORCE++",
        [OPD_CONFIG_ESTIMATOR_REINFORCE_BASELINE] = "REINFORCE++-baseline",
        [OPD_CONFIG_ESTIMATOR_PPO] = "PPO"};
    return names[estimator];
}

void opd__train_derive(opd__draft *draft) {
    opd_config_train *t = &draft->stage.train;
    if (!opd__draft_given(draft, "train.critic_lr")) t->critic_lr = t->lr;
    if (!opd__draft_given(draft, "train.eps_clip_high")) t->eps_clip_high = t->eps_clip;
    if (!opd__draft_given(draft, "train.kl_loss_type"))
        t->kl_loss_type = t->kl_coef > 0 ? OPD_CONFIG_KL_TYPE_K1 : OPD_CONFIG_KL_TYPE_K3;
    if (!opd__draft_given(draft, "train.correction"))
        t->correction = t->tis_clip == 0 || t->use_rollout_log_probs ? OPD_CONFIG_CORRECTION_NONE
                                                                     : OPD_CONFIG_CORRECTION_TIS;
    if (!opd__draft_given(draft, "train.tis_clip_low"))
        t->tis_clip_low = t->correction == OPD_CONFIG_CORRECTION_ICEPOP ||
                                  t->correction == OPD_CONFIG_CORRECTION_SEQUENCE_MASK
                              ? 0.5 : 0;
}

/* The terms that hold the student near a reference model. */
static opd_err kl_check(opd__draft *draft) {
    const opd_config_stage *s = &draft->stage;
    const opd_config_train *t = &s->train;
    if (t->kl_coef > 0 && t->kl_loss_coef > 0)
        return opd__draft_fail(draft, "train.kl_coef", 0, "the KL to the reference is in the reward "
                               "(train.kl_coef) and in the loss (train.kl_loss_coef); give one");
    if (t->kl_coef > 0 && !reinforce(t) && t->estimator != OPD_CONFIG_ESTIMATOR_PPO)
        return opd__draft_fail(draft, "train.kl_coef", 0, "%s gives a sample one number, so its "
                               "reward has no place for a KL per token; use train.kl_loss_coef, or "
                               "train.estimator: reinforce++ (the teacher's weight is opd.kl_coef)", opd__estimator_name(t->estimator));
    if (t->kl_loss_coef > 0 && t->kl_loss_type == OPD_CONFIG_KL_TYPE_K1 && !t->unbiased_kl)
        return opd__draft_fail(draft, "train.kl_loss_type", 0, "cannot learn: as a loss the gradient "
                               "of k1, log-prob minus a constant, has no reference in it and is 0 in "
                               "the mean; use k2, k3 or low_var_kl, or train.unbiased_kl: true");
    if (t->kl_loss_type != OPD_CONFIG_KL_TYPE_K3 && t->kl_coef == 0 && t->kl_loss_coef == 0)
        return opd__draft_fail(draft, "train.kl_loss_type", 0, "is about a KL to the reference, and there is "
                               "none; give train.kl_loss_coef or train.kl_coef, or leave it out");
    if (t->unbiased_kl && t->kl_loss_coef == 0)
        return opd__draft_fail(draft, "train.unbiased_kl", 0, "is about the KL loss; give "
                               "train.kl_loss_coef, or leave it out");
    if (s->model.ref_path[0] != 0 && t->kl_coef == 0 && t->kl_loss_coef == 0)
        return opd__draft_fail(draft, "model.ref_path", 0, "nothing asks the reference model; give "
                               "train.kl_loss_coef or train.kl_coef, or leave it out");
    return OPD_OK;
}

static opd_err estimator_check(opd__draft *draft) {
    const opd_config_stage *s = &draft->stage;
    const opd_config_train *t = &s->train;
    if ((reinforce(t) || t->estimator == OPD_CONFIG_ESTIMATOR_PPO) && s->opd.only_reward)
        return opd__draft_fail(draft, "train.estimator", 0, "opd.only_reward drops what %s estimates; "
                               "leave the estimator out", opd__estimator_name(t->estimator));
    if (reinforce(t) && !t->normalize_advantages)
        return opd__draft_fail(draft, "train.normalize_advantages", 0, "%s has no scale of its own: its "
                               "advantages are whitened over the batch; set it to true",
                               opd__estimator_name(t->estimator));
    if (!t->rewards_normalization && (t->estimator == OPD_CONFIG_ESTIMATOR_RLOO ||
                                      t->estimator == OPD_CONFIG_ESTIMATOR_REINFORCE_BASELINE))
        return opd__draft_fail(draft, "train.rewards_normalization", 0, "%s is the reward less the mean of its "
                               "group; leave it out, or use train.estimator: reinforce++ or grpo",
                               opd__estimator_name(t->estimator));
    if (t->eps_clip_c > 0 && t->eps_clip_c <= 1)
        return opd__draft_fail(draft, "train.eps_clip_c", 0, "must be above 1, or 0 for off");
    if (t->eps_clip_c > 0 && (t->estimator == OPD_CONFIG_ESTIMATOR_SAPO ||
                              t->estimator == OPD_CONFIG_ESTIMATOR_CISPO))
        return opd__draft_fail(draft, "train.eps_clip_c", 0, "bounds the loss that PPO's clip leaves "
                               "open, and %s has another; leave it out",
                               opd__estimator_name(t->estimator));
    return OPD_OK;
}

/* How tokens of older weights count. */
static opd_err correction_check(opd__draft *draft) {
    const opd_config_train *t = &draft->stage.train;
    bool bounded = t->correction == OPD_CONFIG_CORRECTION_TIS ||
                   t->correction == OPD_CONFIG_CORRECTION_ICEPOP ||
                   t->correction == OPD_CONFIG_CORRECTION_SEQUENCE_MASK;
    if (t->use_rollout_log_probs && t->correction != OPD_CONFIG_CORRECTION_NONE)
        return opd__draft_fail(draft, "train.correction", 0, "weighs tokens by learner / rollout, and "
                               "train.use_rollout_log_probs has that in the loss' ratio already; "
                               "give one");
    if (bounded && t->tis_clip < 1)
        return opd__draft_fail(draft, "train.tis_clip", 0, "%g is below 1, the ratio of tokens of the "
                               "present weights; give 1 or more, or train.correction: none",
                               t->tis_clip);
    const char *bound = t->tis_clip_low > 0 ? "train.tis_clip_low"
                        : t->tis_clip > 0 && opd__draft_changed(draft, "train.tis_clip") ? "train.tis_clip"
                                                                                         : NULL;
    if (!bounded && bound != NULL)
        return opd__draft_fail(draft, bound, 0, "bounds a correction, and there is none "
                               "with bounds; leave it out, or give train.correction");
    return OPD_OK;
}

/* Each step wants a share of the batch. */
static opd_err steps_check(opd__draft *draft) {
    const opd_config_rollout *r = &draft->stage.rollout;
    int64_t steps = draft->stage.train.optimizer_steps_per_batch;
    int64_t samples = r->batch_prompts * r->samples_per_prompt;
    if (steps <= samples) return OPD_OK;
    return opd__draft_fail(draft, "train.optimizer_steps_per_batch", 0, "%lld steps do not find a sample each "
                           "in a batch of %lld; lower it, or raise rollout.batch_prompts",
                           (long long)steps, (long long)samples);
}

opd_err opd__train_check(opd__draft *draft) {
    OPD_TRY(estimator_check(draft));
    OPD_TRY(kl_check(draft));
    OPD_TRY(steps_check(draft));
    return correction_check(draft);
}
