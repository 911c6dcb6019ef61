/* load.c - from a file and a command line to an opd_config: layers, then derived defaults,
 * then rules. See opd/config.h for the order of layers and load.h for the other steps. */
#include "core/config/load.h"

#include <stdio.h>
#include <string.h>

#include "core/base/check.h"
#include "core/base/file.h"
#include "core/config/overrides.h"

static const char *const kinds[] = {"arithmetic", "sft", "rl", "eval"};

const char *opd_config_kind_name(opd_config_kind kind) {
    return (size_t)kind < OPD_COUNTOF(kinds) ? kinds[kind] : "?";
}

const char *opd_config_opd_type_name(opd_config_opd_type type) {
    const opd__key *key = opd__key_find("opd.type");
    return type <= OPD_CONFIG_OPD_TYPE_CONSTANT ? key->names[type] : "?";
}

static opd_err nomem(void) { return opd_fail(OPD_ERR_NOMEM, "out of memory"); }

static opd_err node_fail(const opd__node *node, const char *what) {
    char place[OPD__PLACE_SIZE];
    return opd_fail(OPD_ERR_CONFIG, "%s: %s", opd__node_place(node, place), what);
}

static opd__draft *stage_by_name(const opd__loading *loading, const char *name) {
    for (size_t i = 0; i < loading->stage_count; i++)
        if (strcmp(loading->stages[i]->stage.name, name) == 0) return loading->stages[i];
    return NULL;
}

/* A copy of mapping `from` without the children called `one` and `other`. The grandchildren
 * are shared. */
static opd_err map_without(opd__arena *arena, const opd__node *from, const char *one,
                           const char *other, opd__node **out) {
    opd__node *map = opd__arena_get(arena, sizeof *map);
    if (map == NULL) return nomem();
    *map = *from;
    opd__node **tail = &map->first;
    for (const opd__node *child = from->first; child != NULL; child = child->next) {
        if (strcmp(child->key->text, one) == 0 || strcmp(child->key->text, other) == 0) continue;
        opd__node *copy = opd__arena_get(arena, sizeof *copy);
        if (copy == NULL) return nomem();
        *copy = *child;
        *tail = copy;
        tail = &copy->next;
    }
    *tail = NULL;
    *out = map;
    return OPD_OK;
}

/* Reads the name and the kind of a stage's mapping. */
static opd_err stage_head(opd__draft *draft, const opd__node *node) {
    const opd__node *name = opd__node_child(node, "name");
    const opd__node *kind = opd__node_child(node, "kind");
    const opd__key *name_key = opd__key_find("run.name"), *kind_key = opd__key_find("run.kind");
    int value = 0;
    if (name == NULL)
        return node_fail(node, "stages: a stage needs a name, e.g. \"name: distill\"");
    OPD_TRY(opd__value_store(name_key, "stages.name", name, &draft->stage.name));
    if (draft->stage.name[0] == 0) return node_fail(name, "stages.name: may not be empty");
    if (kind == NULL)
        return node_fail(node, "stages: a stage needs a kind: arithmetic, sft, rl or eval");
    OPD_TRY(opd__value_store(kind_key, "stages.kind", kind, &value));
    draft->stage.kind = (opd_config_kind)value;
    return OPD_OK;
}

static opd_err stage_add(opd__loading *loading, const opd__node *node) {
    char what[160];
    opd__node *sections;
    if (node->kind != OPD__NODE_KIND_MAP)
        return node_fail(node, "stages: an entry is a mapping with name, kind and sections");
    if (loading->stage_count == OPD_CONFIG_STAGES_MAX)
        return node_fail(node, "stages: too many stages; at most 64 are possible");
    opd__draft *draft = opd__arena_get(loading->arena, sizeof *draft);
    if (draft == NULL) return nomem();
    *draft = *loading->base;
    draft->node = node;
    draft->listed = true;
    OPD_TRY(stage_head(draft, node));
    const opd__draft *twin = stage_by_name(loading, draft->stage.name);
    if (twin != NULL) {
        snprintf(what, sizeof what, "stages.%s: a second stage of this name; the first is on "
                 "line %u", draft->stage.name, twin->node->line);
        return node_fail(opd__node_child(node, "name"), what);
    }
    OPD_TRY(map_without(loading->arena, node, "name", "kind", &sections));
    OPD_TRY(opd__draft_apply(draft, sections, OPD__LAYER_STAGE));
    loading->stages[loading->stage_count++] = draft;
    return OPD_OK;
}

/* The file's layers: the base, and every stage on top of it. */
static opd_err file_apply(opd__loading *loading) {
    const opd__node *list = opd__node_child(loading->root, "stages");
    opd__node *sections;
    OPD_TRY(map_without(loading->arena, loading->root, "stages", "stages", &sections));
    opd__draft_init(loading->base, loading->arena, loading->root);
    OPD_TRY(opd__draft_apply(loading->base, sections, OPD__LAYER_BASE));
    if (list == NULL) {
        loading->stages[0] = loading->base;
        loading->stage_count = 1;
        return OPD_OK;
    }
    loading->has_stages = true;
    if (opd__draft_given(loading->base, "run.kind"))
        return opd__draft_fail(loading->base, "run.kind", 0,
                               "contradicts stages, each of which has its own kind; remove it");
    if (list->kind != OPD__NODE_KIND_LIST || list->first == NULL)
        return node_fail(list, "stages: expected a list, one \"- name: ...\" for each stage");
    for (const opd__node *node = list->first; node != NULL; node = node->next)
        OPD_TRY(stage_add(loading, node));
    return OPD_OK;
}

/* One --set stages.NAME.KEY=VALUE. */
static opd_err set_stage_apply(opd__loading *loading, const opd__override *set) {
    char name[OPD__PATH_SIZE], what[OPD__PATH_SIZE * 2];
    const char *rest = set->path + strlen("stages.");
    size_t size = strcspn(rest, ".");
    snprintf(name, sizeof name, "%.*s", (int)size, rest);
    opd__draft *draft = loading->has_stages ? stage_by_name(loading, name) : NULL;
    if (draft != NULL && rest[size] == '.')
        return opd__draft_apply_path(draft, rest + size + 1, set->value, OPD__LAYER_SET_STAGE);
    size_t at = (size_t)snprintf(what, sizeof what, "no key of a stage; ");
    if (!loading->has_stages) {
        snprintf(what + at, sizeof what - at, "%s has no stages: leave \"stages.%.64s.\" out",
                 loading->file, name);
        return node_fail(set->value, what);
    }
    at += (size_t)snprintf(what + at, sizeof what - at, "the stages are");
    for (size_t i = 0; i < loading->stage_count && at < sizeof what; i++)
        at += (size_t)snprintf(what + at, sizeof what - at, "%s %s", i > 0 ? "," : "",
                               loading->stages[i]->stage.name);
    return node_fail(set->value, what);
}

/* The --set layers: first the settings of every stage, then those of one. */
static opd_err sets_apply(opd__loading *loading) {
    const opd__override *first = loading->overrides != NULL ? loading->overrides->first : NULL;
    for (const opd__override *set = first; set != NULL; set = set->next) {
        if (set->flag != NULL || opd__path_below(set->path, "stages")) continue;
        OPD_TRY(opd__draft_apply_path(loading->base, set->path, set->value, OPD__LAYER_SET));
        if (!loading->has_stages) continue;
        if (strcmp(set->path, "run.kind") == 0)
            return node_fail(set->value, "run.kind: contradicts stages, each of which has its "
                                         "own kind");
        const opd__key *key = opd__key_find(set->path);
        for (size_t i = 0; i < loading->stage_count; i++) {
            opd__draft *draft = loading->stages[i];
            if (key != NULL && (key->flags & OPD__KEY_RUN_ONLY) != 0)
                OPD_TRY(opd__draft_set(draft, key, 0, set->value, OPD__LAYER_SET));
            else
                OPD_TRY(opd__draft_apply_path(draft, set->path, set->value, OPD__LAYER_SET));
        }
    }
    for (const opd__override *set = first; set != NULL; set = set->next)
        if (set->flag == NULL && opd__path_below(set->path, "stages"))
            OPD_TRY(strlen(set->path) > strlen("stages.")
                        ? set_stage_apply(loading, set)
                        : node_fail(set->value, "write --set stages.NAME.KEY=VALUE"));
    return OPD_OK;
}

/* All layers, derived defaults and rules. */
static opd_err drafts_make(opd__loading *loading) {
    OPD_TRY(file_apply(loading));
    OPD_TRY(sets_apply(loading));
    if (!loading->has_stages) loading->base->stage.kind = loading->base->stage.run.kind;
    OPD_TRY(opd__flags_apply(loading));
    OPD_TRY(opd__draft_derive(loading->base, loading->file));
    for (size_t i = 0; i < loading->stage_count; i++) {
        if (loading->has_stages) OPD_TRY(opd__draft_derive(loading->stages[i], loading->file));
        OPD_TRY(opd__draft_check(loading->stages[i]));
    }
    return opd__references_check(loading);
}

static opd_err string_keep(opd__arena *arena, const char **string) {
    *string = opd__arena_text(arena, *string, strlen(*string));
    return *string != NULL ? OPD_OK : nomem();
}

/* Copies every string of the stage into `arena`: nodes and drafts go when loading ends. */
static opd_err strings_keep(opd__arena *arena, opd_config_stage *stage) {
    OPD_TRY(string_keep(arena, &stage->name));
    for (size_t i = 0; i < opd__map_count; i++)
        for (size_t item = 0; item < *opd__map_size(&opd__maps[i], stage); item++)
            OPD_TRY(string_keep(arena, opd__map_item(&opd__maps[i], stage, item)));
    for (size_t i = 0; i < opd__key_count; i++) {
        const opd__key *key = &opd__keys[i];
        const opd__map *map = opd__key_map(key);
        if (key->type < OPD__TYPE_STRING) continue;
        size_t items = map != NULL ? *opd__map_size(map, stage) : 1;
        for (size_t item = 0; item < items; item++)
            OPD_TRY(string_keep(arena, opd__key_field(key, stage, item)));
    }
    return OPD_OK;
}

/* The drafts' values as an opd_config, which owns itself through its arena. */
static opd_err config_make(const opd__loading *loading, opd__arena *arena, opd_config **out) {
    opd_config *config = opd__arena_get(arena, sizeof *config);
    if (config == NULL) return nomem();
    config->arena = arena;
    config->has_stages = loading->has_stages;
    config->stage_count = loading->stage_count;
    config->stages = opd__arena_get(arena, loading->stage_count * sizeof *config->stages);
    if (config->stages == NULL) return nomem();
    config->file = loading->file;
    OPD_TRY(string_keep(arena, &config->file));
    config->base = loading->base->stage;
    OPD_TRY(strings_keep(arena, &config->base));
    for (size_t i = 0; i < loading->stage_count; i++) {
        config->stages[i] = loading->stages[i]->stage;
        OPD_TRY(strings_keep(arena, &config->stages[i]));
    }
    *out = config;
    return OPD_OK;
}

/* Text to drafts, all in the loading's arena. */
static opd_err text_load(opd__loading *loading, const char *text, size_t size) {
    opd__node *root = NULL;
    loading->base = opd__arena_get(loading->arena, sizeof *loading->base);
    loading->stages = opd__arena_get(loading->arena,
                                     OPD_CONFIG_STAGES_MAX * sizeof *loading->stages);
    if (loading->base == NULL || loading->stages == NULL) return nomem();
    if (size > OPD_CONFIG_FILE_MAX)
        return opd_fail(OPD_ERR_CONFIG, "%s: larger than 1 MiB; this is no configuration",
                        loading->file);
    OPD_TRY(opd__yaml_parse(loading->arena, loading->file, text, size, &root));
    if (root->kind != OPD__NODE_KIND_MAP)
        return node_fail(root, "expected a mapping of sections, e.g. \"model:\"");
    loading->root = root;
    return drafts_make(loading);
}

opd_err opd_config_load_text(const opd_alloc *alloc, const char *file, const char *text,
                             size_t size, const opd_config_overrides *overrides,
                             opd_config **out) {
    opd_err err = OPD_OK;
    opd__arena *kept = opd__arena_create(alloc);
    opd__loading loading = {
        .arena = opd__arena_create(alloc), .file = file, .overrides = overrides};
    if (kept == NULL || loading.arena == NULL) err = nomem();
    if (err == OPD_OK) err = text_load(&loading, text, size);
    if (err == OPD_OK) err = config_make(&loading, kept, out);
    opd__arena_destroy(loading.arena);
    if (err != OPD_OK) opd__arena_destroy(kept);
    return err;
}

opd_err opd_config_load(const opd_alloc *alloc, const char *path,
                        const opd_config_overrides *overrides, opd_config **out) {
    char *text = NULL;
    size_t size = 0;
    OPD_TRY(opd_file_read(alloc, path, OPD_CONFIG_FILE_MAX, &text, &size));
    opd_err err = opd_config_load_text(alloc, path, text, size, overrides, out);
    opd_mem_free(alloc, text);
    return err;
}

void opd_config_destroy(opd_config *config) {
    if (config != NULL) opd__arena_destroy(config->arena); /* holds the struct too */
}

const opd_config_stage *opd_config_stage_find(const opd_config *config, const char *name) {
    for (size_t i = 0; i < config->stage_count; i++)
        if (strcmp(config->stages[i].name, name) == 0) return &config->stages[i];
    return NULL;
}
