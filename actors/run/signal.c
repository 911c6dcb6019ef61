/* signal.c - the distillation loss that a stage's configuration asks for, and whether all of it together
 * can learn (assets.h). Thread: any. */
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

opd_contrast_config opd_stage_signal(const opd_config_opd *o) {
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
