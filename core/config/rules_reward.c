/* rules_reward.c - rules of judges: each has what its type needs, and nothing that it would not read.
 * See load.h. */
#include <stdio.h>

#include "core/base/check.h"
#include "core/config/load.h"

enum { GROUP_MAX = 1024 }; /* answers in one question */

static bool is_outside(opd_config_reward_type type) {
    return type == OPD_CONFIG_REWARD_TYPE_COMMAND || type == OPD_CONFIG_REWARD_TYPE_LIBRARY ||
           type == OPD_CONFIG_REWARD_TYPE_REMOTE_RM;
}

/* The path of a part's key; of the reward itself where the part has no name. */
static const char *key_of(const opd_config_reward_part *part, const char *name, char out[64]) {
    (void)snprintf(out, 64, part->name != NULL ? "reward.parts.*.%s" : "reward.%s", name);
    return out;
}

/* A type and its text belong together. */
static opd_err source_check(opd__draft *draft, const opd_config_reward_part *part, size_t item,
                            opd_config_reward_type type, const char *text, const char *key,
                            const char *type_name) {
    char path[64];
    if (part->type == type && text[0] == 0)
        return opd__draft_fail(draft, key_of(part, key, path), item, "type %s needs it", type_name);
    if (part->type != type && text[0] != 0)
        return opd__draft_fail(draft, key_of(part, key, path), item, "is read by type %s only",
                               type_name);
    return OPD_OK;
}

static opd_err part_check(opd__draft *draft, const opd_config_reward_part *part, size_t item) {
    char path[64];
    bool outside = is_outside(part->type);
    OPD_TRY(source_check(draft, part, item, OPD_CONFIG_REWARD_TYPE_COMMAND, part->command, "command",
                         "command"));
    OPD_TRY(source_check(draft, part, item, OPD_CONFIG_REWARD_TYPE_LIBRARY, part->library, "library",
                         "library"));
    OPD_TRY(source_check(draft, part, item, OPD_CONFIG_REWARD_TYPE_REMOTE_RM, part->url, "url",
                         "remote_rm"));
    if (part->encoding != OPD_CONFIG_ENCODING_JSON && part->type != OPD_CONFIG_REWARD_TYPE_COMMAND)
        return opd__draft_fail(draft, key_of(part, "encoding", path), item, "is read by type command only");
    if (part->group && !outside)
        return opd__draft_fail(draft, key_of(part, "group", path), item, "only command, library and "
                               "remote_rm see a group");
    if (part->group && draft->stage.rollout.samples_per_prompt > GROUP_MAX)
        return opd__draft_fail(draft, key_of(part, "group", path), item, "rollout.samples_per_prompt "
                               "is above %d", GROUP_MAX);
    if (part->boxed && (outside || part->type == OPD_CONFIG_REWARD_TYPE_DAPO))
        return opd__draft_fail(draft, key_of(part, "boxed", path), item, "is read by math, f1, "
                               "multiple_choice and gpqa only");
    return OPD_OK;
}

opd_err opd__reward_check(opd__draft *draft) {
    const opd_config_reward *r = &draft->stage.reward;
    bool parts = r->one.type == OPD_CONFIG_REWARD_TYPE_PARTS;
    if (parts && r->part_count == 0)
        return opd__draft_fail(draft, "reward.type", 0, "parts: there is none; give reward.parts.NAME");
    if (!parts && r->part_count > 0)
        return opd__draft_fail(draft, "reward.type", 0, "reward.parts is given; set reward.type: parts");
    OPD_TRY(part_check(draft, &r->one, 0));
    for (size_t i = 0; i < r->part_count; i++) {
        if (r->parts[i].type == OPD_CONFIG_REWARD_TYPE_PARTS ||
            r->parts[i].type == OPD_CONFIG_REWARD_TYPE_NONE)
            return opd__draft_fail(draft, "reward.parts.*.type", i, "a part judges by itself");
        OPD_TRY(part_check(draft, &r->parts[i], i));
    }
    return OPD_OK;
}
