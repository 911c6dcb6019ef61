/* rules_signal.c - which distillation signals can learn, and from whom. See load.h.
 *
 * Each refusal names the reason and the way out. What can be seen by counting is left to the objective
 * prover (actors/trainer/prover.h), which tries the configured loss on three tokens. */
#include "core/base/check.h"
#include "core/config/load.h"

/* Whether some samples are scored by several teachers. */
static bool mixes(const opd_config_stage *s) {
    uint8_t route[OPD_CONFIG_TEACHERS_MAX];
    char word[OPD_CONFIG_WORD_SIZE];
    if (opd_config_route(s, "", route, NULL) > 1) return true;
    for (size_t t = 0; t < s->teacher_count; t++) {
        const char *serves = s->teachers[t].serves[0] != 0 ? s->teachers[t].serves : s->teachers[t].name;
        for (size_t i = 0; opd_config_word_at(serves, i, word, sizeof word); i++)
            if (opd_config_route(s, word, route, NULL) > 1) return true;
    }
    return false;
}

/* The baseline without a teacher. */
static opd_err constant_check(opd__draft *draft) {
    const opd_config_opd *o = &draft->stage.opd;
    if (o->signal == OPD_CONFIG_SIGNAL_TOPK || o->loss_coef > 0)
        return opd__draft_fail(draft, o->signal == OPD_CONFIG_SIGNAL_TOPK ? "opd.signal" : "opd.loss_coef",
                               0, "compares with a teacher, and opd.type constant has none; leave it out");
    if (o->log_prob_top_k > 0)
        return opd__draft_fail(draft, "opd.log_prob_top_k", 0, "compares with a teacher's list, and "
                               "opd.type constant has no teacher; leave it out");
    if (o->kl_coef == 0)
        return opd__draft_fail(draft, "opd.kl_coef", 0, "of 0 leaves nothing of opd.type constant; set it "
                               "above 0, or opd.enabled: false");
    return OPD_OK;
}

/* The drawn token: in the advantage, or its k3 estimate as a loss. */
static opd_err sampled_check(opd__draft *draft) {
    static const char *const lists[] = {"opd.support", "opd.tail"};
    static const char *const losses[] = {"opd.divergence", "opd.token_clip", "opd.logp_floor"};
    const opd_config_opd *o = &draft->stage.opd;
    for (size_t i = 0; i < OPD_COUNTOF(lists); i++)
        if (opd__draft_changed(draft, lists[i]))
            return opd__draft_fail(draft, lists[i], 0, "is about opd.signal topk, and the signal is the "
                                   "drawn token; set opd.signal: topk, or leave it out");
    for (size_t i = 0; i < OPD_COUNTOF(losses) && o->loss_coef <= 0; i++)
        if (opd__draft_changed(draft, losses[i]))
            return opd__draft_fail(draft, losses[i], 0, "is about the divergence in the loss, and there is "
                                   "none: the drawn token's log-probs go into the advantage; set "
                                   "opd.signal: topk, or leave it out");
    if (o->loss_coef > 0 && o->divergence == OPD_CONFIG_DIVERGENCE_REVERSE_KL)
        return opd__draft_fail(draft, "opd.divergence", 0, "cannot learn from the teacher: as a loss on "
                               "the drawn token reverse_kl has the gradient of l_student alone (the "
                               "score term is missing); use it in the advantage (opd.kl_coef, without "
                               "opd.loss_coef), or low_var, or opd.signal: topk");
    if (o->loss_coef > 0 && o->divergence != OPD_CONFIG_DIVERGENCE_LOW_VAR)
        return opd__draft_fail(draft, "opd.divergence", 0, "needs more ids than the drawn token; set "
                               "opd.signal: topk, or use low_var");
    return OPD_OK;
}

static opd_err topk_check(opd__draft *draft) {
    const opd_config_stage *s = &draft->stage;
    const opd_config_opd *o = &s->opd;
    bool full = o->support == OPD_CONFIG_SUPPORT_FULL;
    bool lists = o->support == OPD_CONFIG_SUPPORT_TEACHER_TOPK ||
                 o->support == OPD_CONFIG_SUPPORT_INTERSECTION;
    if (o->loss_coef <= 0)
        return opd__draft_fail(draft, "opd.loss_coef", 0, "of 0 leaves nothing of opd.signal topk, which "
                               "is a loss; set it above 0, or opd.signal: sampled");
    if (o->log_prob_top_k == 0 && !full)
        return opd__draft_fail(draft, "opd.log_prob_top_k", 0, "is the size of opd.support; set it (32 is "
                               "usual), or opd.support: full");
    if (!lists && o->type != OPD_CONFIG_OPD_TYPE_MEGATRON)
        return opd__draft_fail(draft, "opd.support", 0, "needs the teacher's log-probs at ids that it did "
                               "not list, and a server scores one set of ids for all positions; use "
                               "teacher_topk or intersection, or opd.type: megatron");
    if (o->tail == OPD_CONFIG_TAIL_RENORMALISE && o->log_prob_top_k == 1 && !full)
        return opd__draft_fail(draft, "opd.tail", 0, "cannot learn: one id renormalised has probability 1 "
                               "for student and teacher, so the divergence is always 0; raise "
                               "opd.log_prob_top_k, or use bucket");
    if (mixes(s))
        return opd__draft_fail(draft, "opd.signal", 0, "topk compares with one teacher's list, and a "
                               "sample has several teachers; name one, or use opd.signal: sampled");
    return OPD_OK;
}

/* Settings of what is not chosen would be read by nobody. */
static opd_err unread_check(opd__draft *draft) {
    const opd_config_opd *o = &draft->stage.opd;
    if (o->divergence != OPD_CONFIG_DIVERGENCE_JSD && opd__draft_changed(draft, "opd.jsd_alpha"))
        return opd__draft_fail(draft, "opd.jsd_alpha", 0, "is about opd.divergence jsd; set that, or leave it "
                               "out");
    if (o->token_selection == OPD_CONFIG_TOKEN_SELECTION_ALL && opd__draft_changed(draft, "opd.token_share"))
        return opd__draft_fail(draft, "opd.token_share", 0, "is about a choice of tokens, and all take part; "
                               "set opd.token_selection: entropy or divergence, or leave it out");
    if (o->type != OPD_CONFIG_OPD_TYPE_CONSTANT && opd__draft_changed(draft, "opd.constant_prob"))
        return opd__draft_fail(draft, "opd.constant_prob", 0, "is about opd.type constant, and there is a "
                               "teacher; leave it out");
    if (o->on_missing == OPD_CONFIG_ON_MISSING_ROLLOUT_LOG_PROBS && o->kl_coef == 0)
        return opd__draft_fail(draft, "opd.on_missing", 0, "rollout_log_probs stands in for the teacher in the "
                               "advantage, and opd.kl_coef is 0: nothing would read it; use mask or fail");
    return OPD_OK;
}

opd_err opd__signal_check(opd__draft *draft) {
    const opd_config_opd *o = &draft->stage.opd;
    if (o->type == OPD_CONFIG_OPD_TYPE_CONSTANT) OPD_TRY(constant_check(draft));
    if (o->signal == OPD_CONFIG_SIGNAL_TOPK) OPD_TRY(topk_check(draft));
    else OPD_TRY(sampled_check(draft));
    if (o->token_selection != OPD_CONFIG_TOKEN_SELECTION_ALL && o->loss_coef <= 0)
        return opd__draft_fail(draft, "opd.token_selection", 0, "chooses tokens for the divergence in the "
                               "loss; set opd.loss_coef above 0, or leave it out");
    return unread_check(draft);
}
