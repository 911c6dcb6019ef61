/* emit_schema.c - the table of keys as a JSON Schema, for editors and other tools.
 * See opd_config_schema_json in opd/config.h; the caller frees the text. */
#include <stdio.h>
#include <string.h>

#include "core/base/check.h"
#include "core/base/str.h"
#include "core/codec/json.h"
#include "core/config/schema.h"

#define NAME_PATTERN "[A-Za-z0-9_-]{1,64}"

typedef struct schema_writer {
    opd_json_writer json;
    bool in_stage; /* keys of the whole run are left out */
} schema_writer;

static void pair_put(schema_writer *w, const char *key, const char *value) {
    opd_json_write_key(&w->json, key);
    opd_json_write_text(&w->json, value);
}

static void flag_put(schema_writer *w, const char *key, bool value) {
    opd_json_write_key(&w->json, key);
    opd_json_write_bool(&w->json, value);
}

/* A bound or default that is already JSON text. */
static void raw_put(schema_writer *w, const char *key, const char *text) {
    opd_json_write_key(&w->json, key);
    opd_json_write_raw(&w->json, text, strlen(text));
}

static void bounds_put(schema_writer *w, const opd__key *key) {
    char number[OPD__VALUE_SIZE];
    snprintf(number, sizeof number, "%.16g", key->min);
    raw_put(w, (key->flags & OPD__KEY_ABOVE_MIN) != 0 ? "exclusiveMinimum" : "minimum", number);
    snprintf(number, sizeof number, "%.16g", key->max);
    raw_put(w, (key->flags & OPD__KEY_BELOW_MAX) != 0 ? "exclusiveMaximum" : "maximum", number);
}

static void pattern_put(schema_writer *w, const opd__key *key) {
    if (key->type == OPD__TYPE_NAME) pair_put(w, "pattern", "^(" NAME_PATTERN ")?$");
    if (key->type == OPD__TYPE_URL) pair_put(w, "pattern", "^(https?://[^/ ][^ ]*)?$");
    if (key->type == OPD__TYPE_PATH && (key->flags & OPD__KEY_REFERENCE) != 0)
        pair_put(w, "pattern", "^([^@].*|@stages\\." NAME_PATTERN "\\." NAME_PATTERN ")?$");
}

static void key_schema(schema_writer *w, const opd__key *key) {
    static const char *const types[] = {
        [OPD__TYPE_BOOL] = "boolean", [OPD__TYPE_INT] = "integer", [OPD__TYPE_FLOAT] = "number",
        [OPD__TYPE_ENUM] = "string",  [OPD__TYPE_STRING] = "string", [OPD__TYPE_NAME] = "string",
        [OPD__TYPE_URL] = "string",   [OPD__TYPE_PATH] = "string"};
    bool list = key->type == OPD__TYPE_URLS || key->type == OPD__TYPE_WORDS; /* or one text */
    char doc[512];
    const char *open = key->unit[0] != 0 ? " [" : "", *close = key->unit[0] != 0 ? "]" : "";
    opd_json_write_object_begin(&w->json);
    if (list) raw_put(w, "type", "[\"string\", \"array\"]");
    else pair_put(w, "type", types[key->type]);
    snprintf(doc, sizeof doc, "%s%s%s%s%s%s", key->doc, open, key->unit, close,
             key->derived != NULL ? " Default: " : "", key->derived != NULL ? key->derived : "");
    pair_put(w, "description", doc);
    if (key->type == OPD__TYPE_INT || key->type == OPD__TYPE_FLOAT) bounds_put(w, key);
    pattern_put(w, key);
    if (key->type == OPD__TYPE_URLS)
        raw_put(w, "items", "{\"type\": \"string\", \"pattern\": \"^https?://[^/ ,][^ ,]*$\"}");
    if (key->type == OPD__TYPE_WORDS)
        raw_put(w, "items", "{\"type\": \"string\", \"pattern\": \"^[^,]+$\"}");
    if (key->type == OPD__TYPE_ENUM) {
        opd_json_write_key(&w->json, "enum");
        opd_json_write_array_begin(&w->json);
        for (size_t i = 0; key->names[i] != NULL; i++)
            opd_json_write_text(&w->json, key->names[i]);
        opd_json_write_array_end(&w->json);
    }
    bool text = key->type >= OPD__TYPE_ENUM;
    bool count = opd__key_map(key) != NULL && opd__key_map(key)->scalar; /* has no default */
    if (key->derived == NULL && text) pair_put(w, "default", key->initial);
    else if (key->derived == NULL && !count) raw_put(w, "default", key->initial);
    opd_json_write_object_end(&w->json);
}

static void object_begin(schema_writer *w, const char *doc) {
    opd_json_write_object_begin(&w->json);
    pair_put(w, "type", "object");
    if (doc != NULL) pair_put(w, "description", doc);
}

static void section_schema(schema_writer *w, const char *path);

/* A mapping whose names the user chooses. */
static void map_schema(schema_writer *w, const opd__map *map) {
    char pattern[OPD__PATH_SIZE];
    object_begin(w, opd__section_find(map->path)->doc);
    opd_json_write_key(&w->json, "propertyNames");
    opd_json_write_object_begin(&w->json);
    pair_put(w, "pattern", "^" NAME_PATTERN "$");
    opd_json_write_object_end(&w->json);
    opd_json_write_key(&w->json, "maxProperties");
    opd_json_write_int64(&w->json, OPD__ITEMS_MAX);
    opd_json_write_key(&w->json, "additionalProperties");
    snprintf(pattern, sizeof pattern, "%s.*", map->path);
    if (map->scalar) key_schema(w, opd__key_find(pattern));
    else section_schema(w, pattern);
    opd_json_write_object_end(&w->json);
}

/* Every key and section right below `path`, as members of "properties". */
static void children_put(schema_writer *w, const char *path) {
    char child[OPD__PATH_SIZE], before[OPD__PATH_SIZE] = "";
    size_t head = path[0] != 0 ? strlen(path) + 1 : 0;
    for (size_t i = 0; i < opd__key_count; i++) {
        const opd__key *key = &opd__keys[i];
        if (head > 0 && (!opd__path_below(key->path, path) || key->path[head - 1] != '.')) continue;
        if (w->in_stage && (key->flags & OPD__KEY_RUN_ONLY) != 0) continue;
        size_t size = head + strcspn(key->path + head, ".");
        snprintf(child, sizeof child, "%.*s", (int)size, key->path);
        if (strcmp(child, before) == 0) continue;
        memcpy(before, child, sizeof before);
        opd_json_write_key(&w->json, child + head);
        const opd__map *map = opd__map_find(child);
        if (strcmp(child, key->path) == 0) key_schema(w, key);
        else if (map != NULL) map_schema(w, map);
        else section_schema(w, child);
    }
}

static void section_schema(schema_writer *w, const char *path) {
    const opd__section *section = opd__section_find(path);
    object_begin(w, section != NULL ? section->doc : NULL);
    flag_put(w, "additionalProperties", false);
    opd_json_write_key(&w->json, "properties");
    opd_json_write_object_begin(&w->json);
    children_put(w, path);
    opd_json_write_object_end(&w->json);
    opd_json_write_object_end(&w->json);
}

static void stages_schema(schema_writer *w) {
    w->in_stage = true;
    opd_json_write_object_begin(&w->json);
    pair_put(w, "type", "array");
    pair_put(w, "description", "Run one after another; sections here override the top level.");
    opd_json_write_key(&w->json, "minItems");
    opd_json_write_int64(&w->json, 1);
    opd_json_write_key(&w->json, "maxItems");
    opd_json_write_int64(&w->json, OPD_CONFIG_STAGES_MAX);
    opd_json_write_key(&w->json, "items");
    object_begin(w, NULL);
    flag_put(w, "additionalProperties", false);
    raw_put(w, "required", "[\"name\", \"kind\"]");
    opd_json_write_key(&w->json, "properties");
    opd_json_write_object_begin(&w->json);
    raw_put(w, "name", "{\"type\": \"string\", \"pattern\": \"^" NAME_PATTERN "$\"}");
    raw_put(w, "kind", "{\"enum\": [\"arithmetic\", \"sft\", \"rl\", \"eval\"]}");
    children_put(w, "");
    opd_json_write_object_end(&w->json);
    opd_json_write_object_end(&w->json);
    opd_json_write_object_end(&w->json);
    w->in_stage = false;
}

opd_err opd_config_schema_json(const opd_alloc *alloc, char **out_text) {
    opd_str out;
    schema_writer w = {0};
    opd_str_init(&out, alloc, 1 << 20);
    opd_json_writer_init(&w.json, &out, 1);
    object_begin(&w, "Generated from core/config/schema_table.c; do not edit.");
    pair_put(&w, "$schema", "https://json-schema.org/draft/2020-12/schema");
    pair_put(&w, "title", "opd configuration");
    flag_put(&w, "additionalProperties", false);
    opd_json_write_key(&w.json, "properties");
    opd_json_write_object_begin(&w.json);
    children_put(&w, "");
    opd_json_write_key(&w.json, "stages");
    stages_schema(&w);
    opd_json_write_object_end(&w.json);
    opd_json_write_object_end(&w.json);
    opd_str_text(&out, "\n");
    opd_err err = opd_str_status(&out);
    if (err == OPD_OK) {
        *out_text = opd_mem_strdup(alloc, out.data);
        if (*out_text == NULL) err = opd_fail(OPD_ERR_NOMEM, "out of memory");
    }
    opd_str_fini(&out);
    return err;
}
