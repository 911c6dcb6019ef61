/* load.h - the steps of loading, one file each: load.c, rules.c, rules_train.c, rules_reward.c,
 * rules_signal.c, rules_self.c, reference.c.
 * Thread: one owner. */
#ifndef OPD_CORE_CONFIG_LOAD_H
#define OPD_CORE_CONFIG_LOAD_H

#include "core/config/draft.h"

/* Everything while it is being loaded. */
typedef struct opd__loading {
    opd__arena *arena;
    const char *file;
    const opd__node *root;
    const opd_config_overrides *overrides; /* may be NULL */
    opd__draft *base;
    opd__draft **stages;
    size_t stage_count;
    bool has_stages;
} opd__loading;

/* Fills derived defaults of keys that no layer gave. `file` names the run. */
opd_err opd__draft_derive(opd__draft *draft, const char *file) OPD_MUST_CHECK;

/* Checks what concerns several keys of one stage, and turns OPD off outside rl stages. */
opd_err opd__draft_check(opd__draft *draft) OPD_MUST_CHECK;

/* The same two for the keys of estimators, losses and corrections (rules_train.c). */
void opd__train_derive(opd__draft *draft);
opd_err opd__train_check(opd__draft *draft) OPD_MUST_CHECK;

/* Who judges (rules_reward.c). */
opd_err opd__reward_check(opd__draft *draft) OPD_MUST_CHECK;

/* Whether advantages are made against the mean of a group. */
bool opd__train_group_relative(const opd_config_train *train);

/* As it stands in a configuration, in capitals. */
const char *opd__estimator_name(opd_config_estimator estimator);

/* Of checking a stage that distils: what concerns the signal (rules_signal.c). */
opd_err opd__signal_check(opd__draft *draft) OPD_MUST_CHECK;

/* Of the same: teachers that are the student, and prompts that only teachers see (rules_self.c). */
opd_err opd__self_check(opd__draft *draft) OPD_MUST_CHECK;

/* Checks every "@stages..." of the drafts: known, earlier, a result that the stage has. */
opd_err opd__references_check(const opd__loading *loading) OPD_MUST_CHECK;

/* Applies the seed's flags; the --set layers are in place already. */
opd_err opd__flags_apply(opd__loading *loading) OPD_MUST_CHECK;

/* Whether a stage of this kind reads `section` ("model", "data", "eval", "teachers"). */
bool opd__kind_uses(opd_config_kind kind, const char *section);

#endif
