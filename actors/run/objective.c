/* objective.c - what a stage's configuration wants to be computed, in the learner's own terms, and whether
 * that can learn (assets.h). Thread: any. Nothing is allocated or kept. */
#include "actors/run/assets.h"
#include "actors/trainer/prover.h"
#include "core/base/check.h"
#include "opd/log.h"

opd_support_kind opd_stage_support(const opd_config_opd *o) {
    static const opd_support_kind kinds[] = {
        [OPD_CONFIG_SUPPORT_TEACHER_TOPK] = OPD_SUPPORT_TEACHER_TOPK,
        [OPD_CONFIG_SUPPORT_STUDENT_TOPK] = OPD_SUPPORT_STUDENT_TOPK,
        [OPD_CONFIG_SUPPORT_INTERSECTION] = OPD_SUPPORT_INTERSECTION,
        [OPD_CONFIG_SUPPORT_UNION] = OPD_SUPPORT_UNION,
        [OPD_CONFIG_SUPPORT_FULL] = OPD_SUPPORT_FULL};
    return o->signal == OPD_CONFIG_SIGNAL_TOPK ? kinds[o->support] : OPD_SUPPORT_SAMPLED;
}

static opd_contrast_config signal_of(const opd_config_opd *o) {
    static const opd_divergence_kind kinds[] = {
        [OPD_CONFIG_DIVERGENCE_REVERSE_KL] = OPD_DIVERGENCE_REVERSE_KL,
        [OPD_CONFIG_DIVERGENCE_FORWARD_KL] = OPD_DIVERGENCE_FORWARD_KL,
        [OPD_CONFIG_DIVERGENCE_JSD] = OPD_DIVERGENCE_JSD,
        [OPD_CONFIG_DIVERGENCE_LOW_VAR] = OPD_DIVERGENCE_LOW_VAR};
    static const opd_divergence_tail tails[] = {
        [OPD_CONFIG_TAIL_BUCKET] = OPD_TAIL_BUCKET,
        [OPD_CONFIG_TAIL_RENORMALISE] = OPD_TAIL_RENORMALISE,
        [OPD_CONFIG_TAIL_TRUNCATE] = OPD_TAIL_TRUNCATE};
    static const opd_token_selection selections[] = {
        [OPD_CONFIG_TOKEN_SELECTION_ALL] = OPD_SELECT_ALL,
        [OPD_CONFIG_TOKEN_SELECTION_ENTROPY] = OPD_SELECT_ENTROPY,
        [OPD_CONFIG_TOKEN_SELECTION_DIVERGENCE] = OPD_SELECT_DIVERGENCE,
        [OPD_CONFIG_TOKEN_SELECTION_ENTROPY_OR_DIVERGENCE] = OPD_SELECT_ENTROPY_OR_DIVERGENCE,
        [OPD_CONFIG_TOKEN_SELECTION_ENTROPY_AND_DIVERGENCE] = OPD_SELECT_ENTROPY_AND_DIVERGENCE};
    opd_support_kind support = opd_stage_support(o);
    return (opd_contrast_config){
        .coef = o->enabled ? o->loss_coef : 0, .support = support, .k = (size_t)o->log_prob_top_k,
        .divergence = {.kind = kinds[o->divergence],
                       .tail = support == OPD_SUPPORT_SAMPLED ? OPD_TAIL_TRUNCATE : tails[o->tail],
                       .jsd_alpha = o->jsd_alpha, .logp_floor = o->logp_floor, .clip = o->token_clip},
        .selection = selections[o->token_selection], .token_share = o->token_share};
}

/* An estimator's name stands for how advantages are made and for the loss they meet. */
static const struct {
    opd_estimator_kind estimator;
    opd_policy_kind policy;
} estimators[] = {
    [OPD_CONFIG_ESTIMATOR_GRPO] = {OPD_ESTIMATOR_GRPO, OPD_POLICY_CLIP},
    [OPD_CONFIG_ESTIMATOR_GSPO] = {OPD_ESTIMATOR_GRPO, OPD_POLICY_GSPO},
    [OPD_CONFIG_ESTIMATOR_SAPO] = {OPD_ESTIMATOR_GRPO, OPD_POLICY_SAPO},
    [OPD_CONFIG_ESTIMATOR_CISPO] = {OPD_ESTIMATOR_GRPO, OPD_POLICY_CISPO},
    [OPD_CONFIG_ESTIMATOR_RLOO] = {OPD_ESTIMATOR_RLOO, OPD_POLICY_CLIP},
    [OPD_CONFIG_ESTIMATOR_REINFORCE] = {OPD_ESTIMATOR_REINFORCE, OPD_POLICY_CLIP},
    [OPD_CONFIG_ESTIMATOR_REINFORCE_BASELINE] = {OPD_ESTIMATOR_REINFORCE_BASELINE,
                                                 OPD_POLICY_CLIP},
    [OPD_CONFIG_ESTIMATOR_PPO] = {OPD_ESTIMATOR_PPO, OPD_POLICY_CLIP}};

static const opd_kl_type kl_types[] = {[OPD_CONFIG_KL_TYPE_K1] = OPD_KL_K1,
                                       [OPD_CONFIG_KL_TYPE_K2] = OPD_KL_K2,
                                       [OPD_CONFIG_KL_TYPE_K3] = OPD_KL_K3,
                                       [OPD_CONFIG_KL_TYPE_LOW_VAR] = OPD_KL_LOW_VAR};

static opd_estimator_config estimator_of(const opd_config_train *t) {
    return (opd_estimator_config){
        .kind = estimators[t->estimator].estimator, .normalize_rewards = t->rewards_normalization,
        .normalize_std = t->grpo_std_normalization, .gamma = t->gamma,
        .lambda = t->gae_lambda, .kl_coef = t->kl_coef,
        .kl_type = kl_types[t->kl_loss_type]};
}

static opd_policy_config policy_of(const opd_config_train *t) {
    return (opd_policy_config){
        .kind = estimators[t->estimator].policy, .clip_low = t->eps_clip,
        .clip_high = t->eps_clip_high, .dual_clip = t->eps_clip_c, .tau_pos = t->sapo_tau_pos,
        .tau_neg = t->sapo_tau_neg, .opsm_delta = t->opsm_delta, .entropy_coef = t->entropy_coef,
        .kl_coef = t->kl_loss_coef, .kl_type = kl_types[t->kl_loss_type],
        .kl_unbiased = t->unbiased_kl};
}

static opd_correction_config correction_of(const opd_config_train *t) {
    static const opd_correction_kind kinds[] = {
        [OPD_CONFIG_CORRECTION_NONE] = OPD_CORRECTION_NONE,
        [OPD_CONFIG_CORRECTION_TIS] = OPD_CORRECTION_TIS,
        [OPD_CONFIG_CORRECTION_ICEPOP] = OPD_CORRECTION_ICEPOP,
        [OPD_CONFIG_CORRECTION_SEQUENCE_MASK] = OPD_CORRECTION_SEQUENCE_MASK,
        [OPD_CONFIG_CORRECTION_DECOUPLED] = OPD_CORRECTION_DECOUPLED};
    return (opd_correction_config){.kind = kinds[t->correction], .low = t->tis_clip_low,
                                   .high = t->tis_clip};
}

static opd_advantage_config advantage_of(const opd_config_stage *c) {
    static const opd_invalid_policy policies[] = {
        [OPD_CONFIG_ON_MISSING_MASK] = OPD_INVALID_MASK,
        [OPD_CONFIG_ON_MISSING_ROLLOUT_LOG_PROBS] = OPD_INVALID_ROLLOUT_LOG_PROBS,
        [OPD_CONFIG_ON_MISSING_FAIL] = OPD_INVALID_FAIL};
    return (opd_advantage_config){
        .estimator = estimator_of(&c->train), .use_opd = c->opd.enabled,
        .only_reward = c->opd.only_reward, .whiten = c->train.normalize_advantages,
        .kl_coef = c->opd.kl_coef, .invalid_policy = policies[c->opd.on_missing]};
}

void opd_stage_objective(const opd_config_stage *c, opd_learner_options *out) {
    static const opd_reduction reductions[] = {
        [OPD_CONFIG_LOSS_REDUCTION_SAMPLE_MEAN] = OPD_REDUCTION_SAMPLE_MEAN,
        [OPD_CONFIG_LOSS_REDUCTION_TOKEN_MEAN] = OPD_REDUCTION_TOKEN_MEAN,
        [OPD_CONFIG_LOSS_REDUCTION_CONSTANT] = OPD_REDUCTION_CONSTANT};
    const opd_config_train *t = &c->train;
    bool constant = c->opd.enabled && c->opd.type == OPD_CONFIG_OPD_TYPE_CONSTANT;
    out->temperature = 1;
    out->reduction = reductions[t->loss_reduction];
    out->reduction_length = (size_t)c->rollout.max_response_len;
    if (c->kind != OPD_CONFIG_KIND_RL) return;
    if (c->rollout.temperature > 0) out->temperature = c->rollout.temperature;
    out->student_k = c->opd.enabled ? (size_t)c->opd.log_prob_top_k : 0;
    out->signal = signal_of(&c->opd);
    out->constant_prob = constant ? c->opd.constant_prob : 0;
    out->correction = correction_of(t);
    out->rollout_is_old = t->use_rollout_log_probs;
    out->advantage = advantage_of(c);
    out->policy = policy_of(t);
    out->critic = (opd_critic_config){.clip = t->value_clip, .coef = t->value_coef};
    out->critic_lr = t->critic_lr;
}

opd_err opd_stage_prove(const opd_config_stage *c, const opd_learner_options *options) {
    opd_objective_claim claim = {.learner = options,
                                 .samples_per_prompt = (size_t)c->rollout.samples_per_prompt,
                                 .rewarded = c->reward.one.type != OPD_CONFIG_REWARD_TYPE_NONE};
    opd_proof proof;
    OPD_TRY(opd_err_prefix(opd_objective_prove(&claim, options->alloc, &proof), "stage %s", c->name));
    OPD_LOG_INFO("stage %s: the objective can learn: expected gradient %.3g on three tokens, %.3g apart "
                 "under two teachers", c->name, proof.norm, proof.teacher);
    return OPD_OK;
}
