/* flags_apply.c - the seed's flags onto the rl stages of a configuration.
 *
 * --set settings are in place already; a flag that would change one of them contradicts it.
 * The seed has one teacher; here the flags mean the one that distils. See load.h. */
#include <string.h>

#include "core/base/check.h"
#include "core/config/load.h"
#include "core/config/overrides.h"

/* Stores the flag's value; an error where a --set gave the key another one. */
static opd_err flag_store(opd__draft *draft, const opd__override *given, size_t item) {
    const opd__key *key = opd__key_find(given->flag->key);
    opd__origin *origin = opd__draft_origin(draft, key, item);
    void *field = opd__key_field(key, &draft->stage, item);
    char before[OPD__VALUE_SIZE], after[OPD__VALUE_SIZE], place[OPD__PLACE_SIZE];
    if (origin->layer < OPD__LAYER_SET)
        return opd__draft_set(draft, key, item, given->value, OPD__LAYER_FLAG);
    const char *set_text = opd__value_text(key, field, before);
    opd__origin set = *origin;
    OPD_TRY(opd__draft_set(draft, key, item, given->value, set.layer));
    if (strcmp(set_text, opd__value_text(key, field, after)) == 0) return OPD_OK;
    return opd_fail(OPD_ERR_CONFIG, "%s: contradicts %s; give only one of the two",
                    given->flag->name, opd__node_place(set.node, place));
}

/* The teacher that distils in this stage; one called "teacher" is made where none is. */
static opd_err teacher_pick(opd__draft *draft, const opd__override *given, size_t *out_item) {
    const opd_config_stage *stage = &draft->stage;
    const char *name = "teacher";
    if (strchr(stage->opd.teacher, ',') != NULL)
        return opd_fail(OPD_ERR_CONFIG, "%s: several teachers distil (opd.teacher); give their own keys "
                        "in the file or with --set teachers.NAME.KEY=VALUE", given->flag->name);
    if (stage->opd.teacher[0] != 0) name = stage->opd.teacher;
    else if (stage->teacher_count == 1) name = stage->teachers[0].name;
    else if (stage->teacher_count > 1)
        return opd_fail(OPD_ERR_CONFIG, "%s: there are several teachers; say which one with "
                        "--set opd.teacher=NAME", given->flag->name);
    return opd__draft_item(draft, opd__map_find("teachers"), name, given->value, out_item);
}

/* One flag onto one stage of kind rl. */
static opd_err flag_apply(opd__draft *draft, const opd__override *given) {
    const opd_config_opd *opd = &draft->stage.opd;
    size_t item = 0;
    switch (given->flag->target) {
    case OPD__FLAG_TARGET_KEY:
        return flag_store(draft, given, 0);
    case OPD__FLAG_TARGET_ENABLED:
        return opd->enabled ? flag_store(draft, given, 0) : OPD_OK;
    case OPD__FLAG_TARGET_TEACHER_URL:
        if (opd->type != OPD_CONFIG_OPD_TYPE_SGLANG) return OPD_OK;
        /* fall through */
    case OPD__FLAG_TARGET_TEACHER:
        if (!opd->enabled) return OPD_OK;
        OPD_TRY(teacher_pick(draft, given, &item));
        return flag_store(draft, given, item);
    default:
        for (item = 0; item < draft->stage.teacher_count; item++)
            OPD_TRY(flag_store(draft, given, item));
        return OPD_OK;
    }
}

static const opd__override *flag_find(const opd_config_overrides *overrides, const char *name) {
    for (const opd__override *at = overrides->first; at != NULL; at = at->next)
        if (at->flag != NULL && strcmp(at->flag->name, name) == 0) return at;
    return NULL;
}

/* Rules 6 and 7 of the seed, as far as they speak of flags rather than values. */
static opd_err flags_check(const opd__loading *loading) {
    bool any_rl = false, any_opd = false;
    const opd__override *load = flag_find(loading->overrides, "--opd-teacher-load");
    const opd__override *only = flag_find(loading->overrides, "--opd-only-reward");
    for (size_t i = 0; i < loading->stage_count; i++) {
        const opd_config_stage *stage = &loading->stages[i]->stage;
        if (stage->kind != OPD_CONFIG_KIND_RL) continue;
        any_rl = true;
        any_opd = any_opd || stage->opd.enabled;
        if (stage->opd.enabled && stage->opd.type == OPD_CONFIG_OPD_TYPE_SGLANG && load != NULL)
            return opd_fail(OPD_ERR_CONFIG, "--opd-teacher-load: an sglang teacher is a server; "
                            "give its address with --rm-url, or use --opd-type megatron");
    }
    const opd__override *idle = load != NULL ? load : only;
    if (any_rl && !any_opd && idle != NULL)
        return opd_fail(OPD_ERR_CONFIG, "%s: on-policy distillation is off; turn it on with "
                        "--use-opd or remove the flag", idle->flag->name);
    return OPD_OK;
}

opd_err opd__flags_apply(opd__loading *loading) {
    /* What switches OPD and its type comes first: the rest depends on it, and the timeout
     * of "every teacher" last: another flag may make one. */
    static const char *const first[] = {"--use-opd", "--opd-type"};
    if (loading->overrides == NULL) return OPD_OK;
    for (size_t i = 0; i < loading->stage_count; i++) {
        opd__draft *draft = loading->stages[i];
        if (draft->stage.kind != OPD_CONFIG_KIND_RL) continue;
        for (size_t f = 0; f < OPD_COUNTOF(first); f++) {
            const opd__override *given = flag_find(loading->overrides, first[f]);
            if (given != NULL) OPD_TRY(flag_apply(draft, given));
        }
    }
    OPD_TRY(flags_check(loading));
    for (size_t pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < loading->stage_count; i++)
            for (const opd__override *at = loading->overrides->first; at != NULL; at = at->next) {
                if (at->flag == NULL || loading->stages[i]->stage.kind != OPD_CONFIG_KIND_RL)
                    continue;
                bool last = at->flag->target == OPD__FLAG_TARGET_TEACHERS;
                if (last == (pass == 1)) OPD_TRY(flag_apply(loading->stages[i], at));
            }
    return OPD_OK;
}
