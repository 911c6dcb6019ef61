/* reference.c - "@stages.NAME.RESULT": checked when loading, replaced when the stage runs.
 * See opd/config.h and load.h. */
#include <stdio.h>
#include <string.h>

#include "core/base/check.h"
#include "core/config/load.h"

/* Whether a stage of this kind reads the key: then its references must be resolvable. */
static bool key_used(const opd__key *key, const opd_config_stage *stage, size_t item) {
    char section[OPD__PATH_SIZE];
    snprintf(section, sizeof section, "%.*s", (int)strcspn(key->path, "."), key->path);
    if (!opd__kind_uses(stage->kind, section)) return false;
    if (strcmp(section, "teachers") != 0) return true;
    return opd_config_teacher_used(stage, item);
}

static const char *result_kind(const opd_config_stage *stage, const char *result) {
    if (stage->kind == OPD_CONFIG_KIND_SFT || stage->kind == OPD_CONFIG_KIND_RL)
    {
        bool best = stage->train.keep_best[0] != 0;
        if (best && strcmp(result, "best") == 0) return NULL;
        if (strcmp(result, "checkpoint") == 0) return NULL;
        return best ? "checkpoint and best" : "checkpoint, and with train.keep_best best";
    }
    if (stage->kind == OPD_CONFIG_KIND_EVAL) return "nothing";
    for (size_t i = 0; i < stage->arithmetic.split_count; i++)
        if (strcmp(stage->arithmetic.splits[i].name, result) == 0) return NULL;
    return "its splits";
}

/* Checks one reference of draft number `index` (the stage count for the base). */
static opd_err reference_check(const opd__loading *loading, size_t index, opd__draft *draft,
                               const opd__key *key, size_t item, const char *text) {
    char name[OPD_CONFIG_NAME_MAX + 1];
    const char *result;
    size_t at = 0;
    if (!opd__reference_split(text, name, &result))
        return opd__draft_fail(draft, key->path, item, "%s is no reference", text);
    if (!loading->has_stages)
        return opd__draft_fail(draft, key->path, item, "%s: this file has no stages", text);
    while (at < loading->stage_count && strcmp(loading->stages[at]->stage.name, name) != 0) at++;
    if (at == loading->stage_count) {
        size_t best = 0;
        for (size_t i = 1; i < loading->stage_count; i++)
            if (opd__edit_distance(name, loading->stages[i]->stage.name) <
                opd__edit_distance(name, loading->stages[best]->stage.name)) best = i;
        return opd__draft_fail(draft, key->path, item, "%s: there is no stage '%s'; the nearest is "
                               "%s", text, name, loading->stages[best]->stage.name);
    }
    const char *has = result_kind(&loading->stages[at]->stage, result);
    if (has != NULL)
        return opd__draft_fail(draft, key->path, item, "%s: a stage of kind %s has no '%s'; it "
                               "gives %s", text,
                               opd_config_kind_name(loading->stages[at]->stage.kind), result, has);
    if (index < loading->stage_count && at >= index && key_used(key, &draft->stage, item))
        return opd__draft_fail(draft, key->path, item, "%s: this stage runs before it, or is it; "
                               "only earlier stages have results", text);
    return OPD_OK;
}

static opd_err draft_check(const opd__loading *loading, size_t index, opd__draft *draft) {
    for (size_t i = 0; i < opd__key_count; i++) {
        const opd__key *key = &opd__keys[i];
        const opd__map *map = opd__key_map(key);
        if ((key->flags & OPD__KEY_REFERENCE) == 0) continue;
        size_t items = map != NULL ? *opd__map_size(map, &draft->stage) : 1;
        for (size_t item = 0; item < items; item++) {
            const char *text = *(const char **)opd__key_field(key, &draft->stage, item);
            if (text[0] == '@')
                OPD_TRY(reference_check(loading, index, draft, key, item, text));
        }
    }
    return OPD_OK;
}

opd_err opd__references_check(const opd__loading *loading) {
    if (loading->has_stages) OPD_TRY(draft_check(loading, loading->stage_count, loading->base));
    for (size_t i = 0; i < loading->stage_count; i++)
        OPD_TRY(draft_check(loading, i, loading->stages[i]));
    return OPD_OK;
}

opd_err opd_config_stage_resolve(opd_config *config, size_t index, opd_config_resolve_fn resolve,
                                 void *context, opd_config_stage *out_stage) {
    OPD_ASSERT(index < config->stage_count);
    opd_config_stage stage = config->stages[index];
    char name[OPD_CONFIG_NAME_MAX + 1];
    const char *result, *value;
    for (size_t i = 0; i < opd__key_count; i++) {
        const opd__key *key = &opd__keys[i];
        const opd__map *map = opd__key_map(key);
        if ((key->flags & OPD__KEY_REFERENCE) == 0) continue;
        size_t items = map != NULL ? *opd__map_size(map, &stage) : 1;
        for (size_t item = 0; item < items; item++) {
            const char **field = opd__key_field(key, &stage, item);
            if (!key_used(key, &stage, item) || !opd__reference_split(*field, name, &result))
                continue;
            value = NULL;
            OPD_TRY(opd_err_prefix(resolve(context, name, result, &value), "%s", *field));
            OPD_ASSERT(value != NULL);
            *field = opd__arena_text(config->arena, value, strlen(value));
            if (*field == NULL) return opd_fail(OPD_ERR_NOMEM, "out of memory");
        }
    }
    for (size_t i = 0; i < stage.teacher_count; i++) /* from here on a teacher like any other */
        if (stage.teachers[i].student != OPD_CONFIG_STUDENT_NONE) stage.teachers[i].path = stage.model.path;
    *out_stage = stage;
    return OPD_OK;
}
