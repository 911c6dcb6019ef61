/* flags.c - the command line's share of the configuration: --set and the seed's flags.
 * Ranges of flags are checked here, so that a bad timeout or top-k is refused even while
 * OPD is off. See opd/config.h. */
#include <stdio.h>
#include <string.h>

#include "core/base/check.h"
#include "core/config/overrides.h"

static const opd__flag flags[] = {
    {"--use-opd", "opd.enabled", OPD__FLAG_TARGET_KEY, false},
    {"--opd-type", "opd.type", OPD__FLAG_TARGET_KEY, true},
    {"--opd-kl-coef", "opd.kl_coef", OPD__FLAG_TARGET_KEY, true},
    {"--opd-only-reward", "opd.only_reward", OPD__FLAG_TARGET_ENABLED, false},
    {"--opd-log-prob-top-k", "opd.log_prob_top_k", OPD__FLAG_TARGET_KEY, true},
    {"--rm-url", "teachers.*.url", OPD__FLAG_TARGET_TEACHER_URL, true},
    {"--opd-teacher-load", "teachers.*.path", OPD__FLAG_TARGET_TEACHER, true},
    {"--opd-teacher-ckpt-step", "teachers.*.ckpt_step", OPD__FLAG_TARGET_TEACHER, true},
    {"--opd-teacher-timeout-s", "teachers.*.timeout_s", OPD__FLAG_TARGET_TEACHERS, true},
};

const char *opd_config_flags_help(void) {
    return "  --set KEY=VALUE               change one setting, e.g. --set train.lr=1e-4 or\n"
           "                                --set stages.distill.opd.kl_coef=0.5\n"
           "  --use-opd                     turn on-policy distillation on\n"
           "  --opd-type sglang|megatron    the teacher is a server | in this process\n"
           "  --opd-kl-coef X               weight of the distillation term (1.0)\n"
           "  --opd-only-reward             learn from the teacher alone\n"
           "  --opd-teacher-load DIR        teacher's Hugging Face directory (megatron)\n"
           "  --opd-teacher-ckpt-step N     its checkpoint step-N\n"
           "  --opd-teacher-timeout-s X     one teacher request (30)\n"
           "  --opd-log-prob-top-k K        k of the overlap metric (0 = off)\n"
           "  --rm-url URL                  teacher server (sglang)\n";
}

opd_err opd_config_overrides_create(const opd_alloc *alloc, opd_config_overrides **out) {
    opd__arena *arena = opd__arena_create(alloc);
    if (arena == NULL) return opd_fail(OPD_ERR_NOMEM, "out of memory");
    opd_config_overrides *overrides = opd__arena_get(arena, sizeof *overrides);
    if (overrides == NULL) {
        opd__arena_destroy(arena);
        return opd_fail(OPD_ERR_NOMEM, "out of memory");
    }
    overrides->arena = arena;
    *out = overrides;
    return OPD_OK;
}

void opd_config_overrides_destroy(opd_config_overrides *overrides) {
    if (overrides != NULL) opd__arena_destroy(overrides->arena); /* holds the struct too */
}

/* Appends a setting whose value is YAML text `value`; errors name `place`. */
static opd_err override_add(opd_config_overrides *overrides, const opd__flag *flag,
                            const char *path, const char *place, const char *value) {
    opd__override *added = opd__arena_get(overrides->arena, sizeof *added);
    char *kept_place = opd__arena_text(overrides->arena, place, strlen(place));
    if (added == NULL || kept_place == NULL) return opd_fail(OPD_ERR_NOMEM, "out of memory");
    OPD_TRY(opd__yaml_scalar(overrides->arena, kept_place, value, &added->value));
    added->flag = flag;
    added->path = path;
    if (overrides->last == NULL) overrides->first = added;
    else overrides->last->next = added;
    overrides->last = added;
    return OPD_OK;
}

opd_err opd_config_overrides_set(opd_config_overrides *overrides, const char *setting) {
    const char *equals = strchr(setting, '=');
    char place[OPD__PATH_SIZE];
    if (equals == NULL || equals == setting)
        return opd_fail(OPD_ERR_CONFIG, "--set %.80s: write it as KEY=VALUE", setting);
    size_t size = (size_t)(equals - setting);
    if (size > OPD__PATH_SIZE / 2)
        return opd_fail(OPD_ERR_CONFIG, "--set %.80s...: the key is too long", setting);
    const char *path = opd__arena_text(overrides->arena, setting, size);
    if (path == NULL) return opd_fail(OPD_ERR_NOMEM, "out of memory");
    snprintf(place, sizeof place, "--set %s", path);
    return override_add(overrides, NULL, path, place, equals + 1);
}

static opd_err flag_add(opd_config_overrides *overrides, const opd__flag *flag,
                        const char *value) {
    union {
        bool truth;
        int64_t whole;
        double number;
        int word;
        const char *text;
    } scratch;
    for (const opd__override *at = overrides->first; at != NULL; at = at->next)
        if (at->flag == flag)
            return opd_fail(OPD_ERR_CONFIG, "%s: given twice; give it once", flag->name);
    OPD_TRY(override_add(overrides, flag, flag->key, flag->name, value));
    const opd__key *key = opd__key_find(flag->key);
    char display[OPD__PATH_SIZE];
    OPD_ASSERT(key != NULL);
    return opd__value_store(key, opd__key_display(key, "NAME", display), overrides->last->value,
                            &scratch);
}

/* The flag that `arg` is, with *out_value behind its '=' or NULL; or NULL. */
static const opd__flag *flag_match(const char *arg, const char **out_value) {
    size_t size = strcspn(arg, "=");
    *out_value = arg[size] == '=' ? arg + size + 1 : NULL;
    for (size_t i = 0; i < OPD_COUNTOF(flags); i++)
        if (strlen(flags[i].name) == size && strncmp(flags[i].name, arg, size) == 0)
            return &flags[i];
    return NULL;
}

/* Takes argv[*at] if it is ours, and its value; moves *at to the last argument used. */
static opd_err argument_take(opd_config_overrides *overrides, int argc, char **argv, int *at,
                             bool *out_taken) {
    const char *arg = argv[*at], *value;
    bool set = strcmp(arg, "--set") == 0 || strncmp(arg, "--set=", 6) == 0;
    const opd__flag *flag = flag_match(arg, &value);
    *out_taken = set || flag != NULL;
    if (!*out_taken) return OPD_OK;
    if (flag != NULL && !flag->takes_value) {
        if (value != NULL) return opd_fail(OPD_ERR_CONFIG, "%s: takes no value", flag->name);
        return flag_add(overrides, flag, "true");
    }
    if (value == NULL) {
        if (*at + 1 >= argc) return opd_fail(OPD_ERR_CONFIG, "%s: its value is missing", arg);
        value = argv[++*at];
    }
    return set ? opd_config_overrides_set(overrides, value) : flag_add(overrides, flag, value);
}

opd_err opd_config_flags_parse(opd_config_overrides *overrides, int argc, char **argv,
                               int *out_argc) {
    int kept = 0;
    for (int i = 0; i < argc; i++) {
        bool taken;
        if (strcmp(argv[i], "--") == 0) {
            while (i < argc) argv[kept++] = argv[i++];
            break;
        }
        OPD_TRY(argument_take(overrides, argc, argv, &i, &taken));
        if (!taken) argv[kept++] = argv[i];
    }
    *out_argc = kept;
    return OPD_OK;
}
