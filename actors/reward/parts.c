/* parts.c - see parts.h. No state. */
#include "actors/reward/parts.h"

#include <string.h>

#include "core/base/check.h"

opd_reward_rule opd_reward_rule_of(opd_config_reward_type type) {
    switch (type) {
    case OPD_CONFIG_REWARD_TYPE_DAPO: return OPD_REWARD_RULE_DAPO;
    case OPD_CONFIG_REWARD_TYPE_F1: return OPD_REWARD_RULE_F1;
    case OPD_CONFIG_REWARD_TYPE_MULTIPLE_CHOICE:
    case OPD_CONFIG_REWARD_TYPE_GPQA: return OPD_REWARD_RULE_CHOICE;
    default: return OPD_REWARD_RULE_MATH;
    }
}

/* Splits a command at blanks. */
static opd_err split(const char *command, char *words, size_t words_size, const char **argv) {
    size_t size = strlen(command), count = 0;
    if (size >= words_size)
        return opd_fail(OPD_ERR_CONFIG, "reward.command has more than %zu bytes", words_size - 1);
    memcpy(words, command, size + 1);
    for (char *c = words; *c != '\0';) {
        while (*c == ' ' || *c == '\t') *c++ = '\0';
        if (*c == '\0') break;
        if (count == OPD_REWARD_ARGS_MAX)
            return opd_fail(OPD_ERR_CONFIG, "reward.command has more than %d words",
                            OPD_REWARD_ARGS_MAX);
        argv[count++] = c;
        while (*c != '\0' && *c != ' ' && *c != '\t') c++;
    }
    argv[count] = NULL;
    return count > 0 ? OPD_OK : opd_fail(OPD_ERR_CONFIG, "reward.command has no word");
}

static opd_err add(opd_reward_parts *out, const opd_config_reward_part *c, const char *program) {
    uint32_t i = out->count++;
    opd_reward_part *part = &out->parts[i];
    *part = (opd_reward_part){.name = c->name != NULL ? c->name : "judge",
                              .weight = c->name != NULL ? c->weight : 1, .boxed = c->boxed,
                              .group = c->group, .rule = opd_reward_rule_of(c->type),
                              .url = c->url, .workers = (uint32_t)c->workers,
                              .retries = (uint32_t)c->retries,
                              .timeout_ms = (uint64_t)(c->timeout_s * 1000) + 1};
    part->argv = out->argv[i];
    if (c->type == OPD_CONFIG_REWARD_TYPE_REMOTE_RM) part->kind = OPD_REWARD_BY_URL;
    if (c->type == OPD_CONFIG_REWARD_TYPE_COMMAND) {
        part->kind = OPD_REWARD_BY_COMMAND;
        part->msgpack = c->encoding == OPD_CONFIG_ENCODING_MSGPACK;
        return split(c->command, out->words[i], sizeof out->words[i], out->argv[i]);
    }
    if (c->type != OPD_CONFIG_REWARD_TYPE_LIBRARY) return OPD_OK;
    if (program == NULL)
        return opd_fail(OPD_ERR_UNSUPPORTED, "reward.library: only the opd command can host it; use "
                        "reward.command in a program of your own");
    part->kind = OPD_REWARD_BY_COMMAND;
    out->argv[i][0] = program;
    out->argv[i][1] = "reward-host";
    out->argv[i][2] = c->library;
    return OPD_OK;
}

opd_err opd_reward_parts_of(const opd_config_reward *config, const char *program,
                            opd_reward_parts *out_parts) {
    memset(out_parts, 0, sizeof *out_parts);
    if (config->one.type == OPD_CONFIG_REWARD_TYPE_NONE) return OPD_OK;
    if (config->one.type != OPD_CONFIG_REWARD_TYPE_PARTS)
        return add(out_parts, &config->one, program);
    for (size_t i = 0; i < config->part_count; i++)
        OPD_TRY(add(out_parts, &config->parts[i], program));
    return OPD_OK;
}
