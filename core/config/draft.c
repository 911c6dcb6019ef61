/* draft.c - layers of settings onto one stage. See draft.h. */
#include "core/config/draft.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/base/check.h"

void opd__draft_init(opd__draft *draft, opd__arena *arena, const opd__node *node) {
    memset(draft, 0, sizeof *draft);
    draft->arena = arena;
    draft->node = node;
    draft->stage.name = "main";
    for (size_t i = 0; i < opd__key_count; i++) {
        const opd__key *key = &opd__keys[i];
        if (opd__key_map(key) == NULL)
            opd__value_initial(key, opd__key_field(key, &draft->stage, 0));
    }
}

opd__origin *opd__draft_origin(opd__draft *draft, const opd__key *key, size_t item) {
    size_t row = opd__key_map(key) != NULL ? 1 + item : 0;
    return &draft->origins[row][opd__key_index(key)];
}

bool opd__draft_given(opd__draft *draft, const char *path) {
    const opd__key *key = opd__key_find(path);
    OPD_ASSERT(key != NULL && opd__key_map(key) == NULL);
    return opd__draft_origin(draft, key, 0)->node != NULL;
}

bool opd__draft_changed(opd__draft *draft, const char *path) {
    const opd__key *key = opd__key_find(path);
    opd_config_stage initial = {.name = NULL};
    char now[OPD__VALUE_SIZE], before[OPD__VALUE_SIZE];
    if (!opd__draft_given(draft, path)) return false;
    opd__value_initial(key, opd__key_field(key, &initial, 0));
    return strcmp(opd__value_text(key, opd__key_field(key, &draft->stage, 0), now),
                  opd__value_text(key, opd__key_field(key, &initial, 0), before)) != 0;
}

const char *opd__draft_display(opd__draft *draft, const opd__key *key, size_t item,
                               char out[OPD__PATH_SIZE]) {
    const opd__map *map = opd__key_map(key);
    const char *name = NULL;
    char path[OPD__PATH_SIZE];
    if (map != NULL) name = *(const char **)opd__map_item(map, &draft->stage, item);
    opd__key_display(key, name, path);
    if (draft->listed) snprintf(out, OPD__PATH_SIZE, "stages.%.64s.%.170s", draft->stage.name, path);
    else snprintf(out, OPD__PATH_SIZE, "%s", path);
    return out;
}

opd_err opd__draft_fail(opd__draft *draft, const char *path, size_t item, const char *fmt, ...) {
    const opd__key *key = opd__key_find(path);
    char display[OPD__PATH_SIZE], place[OPD__PLACE_SIZE], what[768];
    OPD_ASSERT(key != NULL);
    const opd__node *node = opd__draft_origin(draft, key, item)->node;
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    return opd_fail(OPD_ERR_CONFIG, "%s: %s: %s",
                    opd__node_place(node != NULL ? node : draft->node, place),
                    opd__draft_display(draft, key, item, display), what);
}

opd_err opd__draft_item(opd__draft *draft, const opd__map *map, const char *name,
                        const opd__node *node, size_t *out_item) {
    size_t *count = opd__map_size(map, &draft->stage);
    char place[OPD__PLACE_SIZE];
    for (size_t i = 0; i < *count; i++) {
        *out_item = i;
        if (strcmp(*(const char **)opd__map_item(map, &draft->stage, i), name) == 0)
            return OPD_OK;
    }
    if (!opd__name_legal(name))
        return opd_fail(OPD_ERR_CONFIG, "%s: %s: '%.64s' is no name; use 1 to 64 letters, "
                        "digits, '-' and '_'", opd__node_place(node, place), map->path, name);
    if (*count == OPD__ITEMS_MAX)
        return opd_fail(OPD_ERR_CONFIG, "%s: %s: at most %d entries are possible",
                        opd__node_place(node, place), map->path, OPD__ITEMS_MAX);
    const char *kept = opd__arena_text(draft->arena, name, strlen(name));
    if (kept == NULL) return opd_fail(OPD_ERR_NOMEM, "out of memory");
    *out_item = (*count)++;
    *(const char **)opd__map_item(map, &draft->stage, *out_item) = kept;
    for (size_t i = 0; i < opd__key_count; i++)
        if (opd__key_map(&opd__keys[i]) == map)
            opd__value_initial(&opd__keys[i],
                               opd__key_field(&opd__keys[i], &draft->stage, *out_item));
    return OPD_OK;
}

/* One of the keys that rival_reset is about. */
static opd_err key_reset(opd__draft *draft, const opd__key *key, size_t item, opd__layer layer,
                         const opd__key *other, size_t other_item) {
    char display[OPD__PATH_SIZE], place[OPD__PLACE_SIZE];
    opd__origin *origin = opd__draft_origin(draft, other, other_item);
    void *field = opd__key_field(other, &draft->stage, other_item);
    if (origin->node == NULL) return OPD_OK;
    if (origin->layer >= layer && !opd__value_empty(other, field))
        return opd__draft_fail(draft, key->path, item, "contradicts %s (%s); give only one of the two",
                               opd__draft_display(draft, other, other_item, display),
                               opd__node_place(origin->node, place));
    if (origin->layer >= layer) return OPD_OK;
    opd__value_initial(other, field);
    *origin = (opd__origin){0};
    return OPD_OK;
}

/* The key that `key` was just given with layer `layer` excludes every key below `rival`:
 * weaker ones are reset, an equal or stronger one is a contradiction. */
static opd_err rival_reset(opd__draft *draft, const opd__key *key, size_t item,
                           opd__layer layer, const char *rival) {
    const opd__map *map = opd__map_find(rival);
    size_t items = map != NULL ? *opd__map_size(map, &draft->stage) : 1;
    for (size_t i = 0; i < opd__key_count; i++) {
        const opd__key *other = &opd__keys[i];
        if (!opd__path_below(other->path, rival)) continue;
        for (size_t n = 0; n < items; n++)
            OPD_TRY(key_reset(draft, key, item, layer, other, map != NULL ? n : item));
    }
    if (map != NULL) *opd__map_size(map, &draft->stage) = 0;
    return OPD_OK;
}

/* A list of texts as one text with ", " between them: what a key of type URLS or WORDS keeps. */
static opd_err list_join(opd__draft *draft, const opd__key *key, size_t item,
                         const opd__node *list, const opd__node **out_node) {
    char display[OPD__PATH_SIZE], place[OPD__PLACE_SIZE];
    size_t size = 1;
    for (const opd__node *n = list->first; n != NULL; n = n->next) {
        if (n->kind != OPD__NODE_KIND_SCALAR || n->text[0] == 0 || strchr(n->text, ',') != NULL)
            return opd_fail(OPD_ERR_CONFIG, "%s: %s: expected one text for each entry of the list, "
                            "without commas", opd__node_place(n, place),
                            opd__draft_display(draft, key, item, display));
        size += strlen(n->text) + 2;
    }
    opd__node *joined = opd__arena_get(draft->arena, sizeof *joined);
    char *text = opd__arena_get(draft->arena, size), *at = text;
    if (joined == NULL || text == NULL) return opd_fail(OPD_ERR_NOMEM, "out of memory");
    for (const opd__node *n = list->first; n != NULL; n = n->next)
        at += snprintf(at, size - (size_t)(at - text), "%s%s", at > text ? ", " : "", n->text);
    *joined = *list;
    joined->kind = OPD__NODE_KIND_SCALAR;
    joined->text = text;
    joined->first = NULL;
    *out_node = joined;
    return OPD_OK;
}

opd_err opd__draft_set(opd__draft *draft, const opd__key *key, size_t item,
                       const opd__node *value, opd__layer layer) {
    char display[OPD__PATH_SIZE];
    void *field = opd__key_field(key, &draft->stage, item);
    bool list = key->type == OPD__TYPE_URLS || key->type == OPD__TYPE_WORDS;
    if (list && value->kind == OPD__NODE_KIND_LIST)
        OPD_TRY(list_join(draft, key, item, value, &value));
    OPD_TRY(opd__value_store(key, opd__draft_display(draft, key, item, display), value, field));
    *opd__draft_origin(draft, key, item) = (opd__origin){.node = value, .layer = layer};
    if (opd__value_empty(key, field)) return OPD_OK;
    for (size_t i = 0; i < opd__exclusive_count; i++) {
        const opd__exclusive *pair = &opd__exclusives[i];
        const char *rival = NULL;
        if (opd__path_below(key->path, pair->one)) rival = pair->other;
        if (opd__path_below(key->path, pair->other)) rival = pair->one;
        if (rival != NULL) OPD_TRY(rival_reset(draft, key, item, layer, rival));
    }
    return OPD_OK;
}

/* One mapping of the file on its way into a draft. */
typedef struct walk {
    opd__draft *draft;
    opd__layer layer;
    size_t item;
} walk;

static opd_err unknown_fail(const walk *w, const opd__node *node, const char *prefix,
                            const char *name) {
    char place[OPD__PLACE_SIZE], advice[400], stage[80] = "", spot[OPD__PATH_SIZE];
    const opd__node *at = node->line > 0 ? node->key : node;
    const char *dot = prefix[0] != 0 ? "." : "";
    const char *star = strchr(prefix, '*'), *item = "";
    size_t head = star != NULL ? (size_t)(star - prefix) : strlen(prefix);
    for (size_t i = 0; star != NULL && i < opd__map_count; i++)
        if (strlen(opd__maps[i].path) + 1 == head && strncmp(prefix, opd__maps[i].path, head - 1) == 0)
            item = *(const char **)opd__map_item(&opd__maps[i], &w->draft->stage, w->item);
    if (w->draft->listed) snprintf(stage, sizeof stage, "stages.%.64s.", w->draft->stage.name);
    snprintf(spot, sizeof spot, "%s%.*s%s%s%.64s", stage, (int)head, prefix, item, dot, name);
    return opd_fail(OPD_ERR_CONFIG, "%s: %s: unknown key; %s", opd__node_place(at, place), spot,
                    opd__key_advice(prefix, name, advice, sizeof advice));
}

static opd_err dotted_fail(const opd__node *node) {
    char place[OPD__PLACE_SIZE];
    return opd_fail(OPD_ERR_CONFIG, "%s: %.80s: dotted keys are for --set; in a file write nested "
                    "mappings", opd__node_place(node->key, place), node->key->text);
}

static opd_err mapping_expect(const opd__node *node, const char *path) {
    char place[OPD__PLACE_SIZE];
    if (node->kind == OPD__NODE_KIND_MAP) return OPD_OK;
    return opd_fail(OPD_ERR_CONFIG, "%s: %s: expected a mapping of keys, this is %s%s",
                    opd__node_place(node, place), path, opd__node_what(node),
                    node->text != NULL && node->text[0] == 0 ? "; give it keys or remove it" : "");
}

static opd_err key_take(const walk *w, const opd__key *key, const opd__node *value) {
    char place[OPD__PLACE_SIZE];
    if (w->draft->listed && (key->flags & OPD__KEY_RUN_ONLY) != 0)
        return opd_fail(OPD_ERR_CONFIG, "%s: %s: belongs to the whole run; move it to the top "
                        "level", opd__node_place(value, place), key->path);
    return opd__draft_set(w->draft, key, w->item, value, w->layer);
}

/* The entries of a map: NAME: value, or NAME: a mapping whose keys go to `below`. */
static opd_err map_take(walk *w, const opd__map *map, const opd__node *node,
                        opd_err (*below)(walk *, const opd__node *, const char *)) {
    char pattern[OPD__PATH_SIZE], path[OPD__PATH_SIZE];
    snprintf(pattern, sizeof pattern, "%s.*", map->path);
    for (const opd__node *child = node->first; child != NULL; child = child->next) {
        OPD_TRY(opd__draft_item(w->draft, map, child->key->text, child->key, &w->item));
        snprintf(path, sizeof path, "%s.%.64s", map->path, child->key->text);
        if (map->scalar) {
            OPD_TRY(key_take(w, opd__key_find(pattern), child));
            continue;
        }
        OPD_TRY(mapping_expect(child, path));
        OPD_TRY(below(w, child, pattern));
    }
    return OPD_OK;
}

/* The keys of mapping `node`, which is section `prefix`. Depth: that of the table. */
static opd_err section_take(walk *w, const opd__node *node, const char *prefix) {
    char path[OPD__PATH_SIZE];
    const char *dot = prefix[0] != 0 ? "." : "";
    for (const opd__node *child = node->first; child != NULL; child = child->next) {
        snprintf(path, sizeof path, "%s%s%.64s", prefix, dot, child->key->text);
        if (strpbrk(child->key->text, ".*") != NULL) return dotted_fail(child);
        const opd__key *key = opd__key_find(path);
        const opd__map *map = opd__map_find(path);
        if (key != NULL) {
            OPD_TRY(key_take(w, key, child));
        } else if (map != NULL) {
            OPD_TRY(mapping_expect(child, path));
            OPD_TRY(map_take(w, map, child, section_take));
        } else if (opd__section_find(path) != NULL) {
            OPD_TRY(mapping_expect(child, path));
            OPD_TRY(section_take(w, child, path));
        } else {
            return unknown_fail(w, child, prefix, child->key->text);
        }
    }
    return OPD_OK;
}

opd_err opd__draft_apply(opd__draft *draft, const opd__node *map, opd__layer layer) {
    walk w = {.draft = draft, .layer = layer};
    return section_take(&w, map, "");
}

opd_err opd__draft_apply_path(opd__draft *draft, const char *path, const opd__node *value,
                              opd__layer layer) {
    walk w = {.draft = draft, .layer = layer};
    char pattern[OPD__PATH_SIZE], prefix[OPD__PATH_SIZE] = "", name[OPD_CONFIG_NAME_MAX + 2];
    snprintf(pattern, sizeof pattern, "%s", path);
    for (size_t i = 0; i < opd__map_count; i++) {
        const opd__map *map = &opd__maps[i];
        size_t head = strlen(map->path);
        if (!opd__path_below(path, map->path) || path[head] == 0) continue;
        size_t size = strcspn(path + head + 1, ".");
        snprintf(name, sizeof name, "%.*s", (int)size, path + head + 1);
        snprintf(pattern, sizeof pattern, "%s.*%s", map->path, path + head + 1 + size);
        if (opd__key_find(pattern) == NULL) break;
        OPD_TRY(opd__draft_item(draft, map, name, value, &w.item));
    }
    const opd__key *key = opd__key_find(pattern);
    if (key != NULL) return key_take(&w, key, value);
    const char *dot = strrchr(pattern, '.');
    if (dot != NULL) snprintf(prefix, sizeof prefix, "%.*s", (int)(dot - pattern), pattern);
    return unknown_fail(&w, value, prefix, dot != NULL ? dot + 1 : pattern);
}
