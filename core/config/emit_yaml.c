/* emit_yaml.c - the effective configuration as YAML that loads back to the same structs.
 *
 * A stage prints only what differs from the base. Values that exclude each other in one
 * layer are never both printed: model.init is left out where model.path is given.
 * See opd_config_yaml in opd/config.h; the caller frees the text. */
#include <string.h>

#include "core/base/check.h"
#include "core/base/str.h"
#include "core/config/schema.h"

typedef struct emitter {
    opd_str *out;
    opd_config_stage *stage;
    opd_config_stage *base; /* print only differences from it; NULL = everything */
    bool comments;
    bool run_only;  /* print the keys of the whole run too */
    bool has_stages;
    int indent;     /* of sections */
    char open[OPD__PATH_SIZE]; /* the path of the mapping that was printed last */
} emitter;

static void indent_put(emitter *e, int levels) {
    for (int i = 0; i < e->indent + 2 * levels; i++) opd_str_text(e->out, " ");
}

/* Prints the headers of the mappings above `path` that are not open yet. */
static void parents_open(emitter *e, const char *path) {
    int level = 0;
    for (const char *dot = strchr(path, '.'); dot != NULL; dot = strchr(dot + 1, '.'), level++) {
        size_t size = (size_t)(dot - path);
        if (strncmp(e->open, path, size) == 0 && (e->open[size] == '.' || e->open[size] == 0))
            continue;
        char prefix[OPD__PATH_SIZE] = "";
        memcpy(prefix, path, size);
        const opd__section *section = opd__section_find(prefix);
        if (level == 0 && e->base == NULL) opd_str_text(e->out, "\n");
        if (e->comments && section != NULL) {
            indent_put(e, level);
            opd_str_printf(e->out, "# %s\n", section->doc);
        }
        indent_put(e, level);
        const char *name = strrchr(prefix, '.');
        opd_str_printf(e->out, "%s:\n", name != NULL ? name + 1 : prefix);
        memcpy(e->open, prefix, sizeof prefix);
    }
    const char *end = strrchr(path, '.');
    memset(e->open, 0, sizeof e->open);
    memcpy(e->open, path, (size_t)(end - path));
}

static void value_put(emitter *e, const opd__key *key, const char *text) {
    if (key->type < OPD__TYPE_STRING) {
        opd_str_text(e->out, text);
        return;
    }
    opd_str_text(e->out, "\"");
    for (; *text != 0; text++) {
        if (*text == '"' || *text == '\\') opd_str_text(e->out, "\\");
        opd_str_append(e->out, text, 1);
    }
    opd_str_text(e->out, "\"");
}

/* Whether this is a prompt_key in whose place a template or a conversation was given. */
static bool prompt_elsewhere(emitter *e, const opd__key *key, size_t item) {
    const opd_config_data *d = &e->stage->data;
    const char *dot = strrchr(key->path, '.');
    if (strcmp(dot, ".prompt_key") != 0) return false;
    const opd_config_record *r = &d->record;
    if (opd__path_below(key->path, "data.sources")) r = &d->sources[item].record;
    if (opd__path_below(key->path, "eval.sets")) r = &e->stage->eval.sets[item].record;
    return r->prompt_template[0] != 0 || r->messages_key[0] != 0;
}

/* Whether the key is left out of this stage's text. */
static bool key_hidden(emitter *e, const opd__key *key, size_t item) {
    char one[OPD__VALUE_SIZE], other[OPD__VALUE_SIZE];
    const opd__map *map = opd__key_map(key);
    if ((key->flags & OPD__KEY_RUN_ONLY) != 0 && !e->run_only) return true;
    if (e->has_stages && strcmp(key->path, "run.kind") == 0) return true;
    if (opd__path_below(key->path, "model.init") && e->stage->model.path[0] != 0) return true;
    if (prompt_elsewhere(e, key, item)) return true;
    if (e->base == NULL || (map != NULL && item >= *opd__map_size(map, e->base))) return false;
    return strcmp(opd__value_text(key, opd__key_field(key, e->stage, item), one),
                  opd__value_text(key, opd__key_field(key, e->base, item), other)) == 0;
}

static void key_put(emitter *e, const opd__key *key, size_t item) {
    char path[OPD__PATH_SIZE], value[OPD__VALUE_SIZE];
    const opd__map *map = opd__key_map(key);
    const char *name = map != NULL ? *(const char **)opd__map_item(map, e->stage, item) : "";
    int level = 0;
    if (key_hidden(e, key, item)) return;
    opd__key_display(key, name, path);
    parents_open(e, path);
    for (const char *at = path; *at != 0; at++) level += *at == '.';
    indent_put(e, level);
    opd_str_printf(e->out, "%s: ", strrchr(path, '.') + 1);
    value_put(e, key, opd__value_text(key, opd__key_field(key, e->stage, item), value));
    if (e->comments) {
        opd_str_printf(e->out, "  # %s", key->doc);
        if (key->unit[0] != 0) opd_str_printf(e->out, " [%s]", key->unit);
    }
    opd_str_text(e->out, "\n");
}

/* Index one past the keys of the same map as key `from`. */
static size_t map_keys_end(size_t from) {
    const opd__map *map = opd__key_map(&opd__keys[from]);
    size_t end = from;
    while (end < opd__key_count && opd__key_map(&opd__keys[end]) == map) end++;
    return end;
}

static void sections_put(emitter *e) {
    memset(e->open, 0, sizeof e->open);
    for (size_t i = 0; i < opd__key_count;) {
        const opd__map *map = opd__key_map(&opd__keys[i]);
        if (map == NULL) {
            key_put(e, &opd__keys[i++], 0);
            continue;
        }
        size_t end = map_keys_end(i);
        for (size_t item = 0; item < *opd__map_size(map, e->stage); item++)
            for (size_t k = i; k < end; k++) key_put(e, &opd__keys[k], item);
        i = end;
    }
}

opd_err opd_config_yaml(const opd_alloc *alloc, const opd_config *config, bool comments,
                        char **out_text) {
    opd_str out;
    opd_str_init(&out, alloc, 1 << 22);
    opd_config_stage base = config->base, stage;
    opd_str_text(&out, "# Effective configuration: every key with its value.\n");
    emitter e = {.out = &out, .stage = &base, .comments = comments, .run_only = true,
                 .has_stages = config->has_stages};
    sections_put(&e);
    if (config->has_stages) opd_str_text(&out, "\nstages:\n");
    for (size_t i = 0; config->has_stages && i < config->stage_count; i++) {
        stage = config->stages[i];
        opd_str_printf(&out, "  - name: \"%s\"\n    kind: %s\n", stage.name,
                       opd_config_kind_name(stage.kind));
        e = (emitter){.out = &out, .stage = &stage, .base = &base, .comments = comments,
                      .has_stages = true, .indent = 4};
        sections_put(&e);
    }
    opd_err err = opd_str_status(&out);
    if (err == OPD_OK) {
        *out_text = opd_mem_strdup(alloc, out.data);
        if (*out_text == NULL) err = opd_fail(OPD_ERR_NOMEM, "out of memory");
    }
    opd_str_fini(&out);
    return err;
}
