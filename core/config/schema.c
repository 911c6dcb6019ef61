/* schema.c - questions to the table of keys: find, place, nearest. See schema.h. */
#include "core/config/schema.h"

#include <stdio.h>
#include <string.h>

#include "core/base/check.h"

enum { WORD_MAX = 64 };

const opd__key *opd__key_find(const char *path) {
    for (size_t i = 0; i < opd__key_count; i++)
        if (strcmp(opd__keys[i].path, path) == 0) return &opd__keys[i];
    return NULL;
}

size_t opd__key_index(const opd__key *key) { return (size_t)(key - opd__keys); }

const opd__section *opd__section_find(const char *path) {
    for (size_t i = 0; i < opd__section_count; i++)
        if (strcmp(opd__sections[i].path, path) == 0) return &opd__sections[i];
    return NULL;
}

const opd__map *opd__map_find(const char *path) {
    for (size_t i = 0; i < opd__map_count; i++)
        if (strcmp(opd__maps[i].path, path) == 0) return &opd__maps[i];
    return NULL;
}

bool opd__path_below(const char *path, const char *prefix) {
    size_t size = strlen(prefix);
    return strncmp(path, prefix, size) == 0 && (path[size] == 0 || path[size] == '.');
}

const opd__map *opd__key_map(const opd__key *key) {
    for (size_t i = 0; i < opd__map_count; i++)
        if (opd__path_below(key->path, opd__maps[i].path)) return &opd__maps[i];
    return NULL;
}

size_t *opd__map_size(const opd__map *map, opd_config_stage *stage) {
    return (size_t *)(void *)((char *)stage + map->count_offset);
}

void *opd__map_item(const opd__map *map, opd_config_stage *stage, size_t item) {
    OPD_ASSERT(item < OPD__ITEMS_MAX);
    return (char *)stage + map->items_offset + item * map->item_size;
}

void *opd__key_field(const opd__key *key, opd_config_stage *stage, size_t item) {
    const opd__map *map = opd__key_map(key);
    char *base = map != NULL ? opd__map_item(map, stage, item) : (char *)stage;
    return base + key->offset;
}

const char *opd__key_display(const opd__key *key, const char *item_name,
                             char out[OPD__PATH_SIZE]) {
    const char *star = strchr(key->path, '*');
    if (star == NULL) {
        snprintf(out, OPD__PATH_SIZE, "%s", key->path);
    } else {
        snprintf(out, OPD__PATH_SIZE, "%.*s%.64s%s", (int)(star - key->path), key->path,
                 item_name, star + 1);
    }
    return out;
}

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

size_t opd__edit_distance(const char *a, const char *b) {
    size_t a_size = strnlen(a, WORD_MAX), b_size = strnlen(b, WORD_MAX);
    size_t rows[3][WORD_MAX + 1]; /* the row before the last, the last, the one being made */
    size_t *older = rows[0], *last = rows[1], *row = rows[2];
    for (size_t j = 0; j <= b_size; j++) last[j] = older[j] = j;
    for (size_t i = 1; i <= a_size; i++) {
        row[0] = i;
        for (size_t j = 1; j <= b_size; j++) {
            size_t swap = a[i - 1] != b[j - 1];
            row[j] = least(least(last[j] + 1, row[j - 1] + 1), last[j - 1] + swap);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                row[j] = least(row[j], older[j - 2] + 1);
        }
        size_t *free_row = older;
        older = last;
        last = row;
        row = free_row;
    }
    return last[b_size];
}

/* The part of `path` right below `prefix` ("train" + "train.lr" -> "lr"), or false. */
static bool child_name(const char *path, const char *prefix, char out[WORD_MAX]) {
    size_t size = strlen(prefix);
    if (size > 0 && (strncmp(path, prefix, size) != 0 || path[size] != '.')) return false;
    const char *child = size > 0 ? path + size + 1 : path;
    snprintf(out, WORD_MAX, "%.*s", (int)strcspn(child, "."), child);
    return strcmp(out, "*") != 0;
}

/* A key elsewhere whose last part is `name`: the user put it into the wrong section. */
static const opd__key *key_elsewhere(const char *name) {
    for (size_t i = 0; i < opd__key_count; i++) {
        const char *dot = strrchr(opd__keys[i].path, '.');
        if (strcmp(dot + 1, name) == 0) return &opd__keys[i];
    }
    return NULL;
}

/* Every valid name below prefix, after `text`. */
static void list_children(const char *prefix, const char *text, char *out, size_t out_size) {
    char child[WORD_MAX], before[WORD_MAX] = "";
    size_t at = (size_t)snprintf(out, out_size, "%s", text);
    for (size_t i = 0; i < opd__key_count; i++) {
        if (!child_name(opd__keys[i].path, prefix, child) || strcmp(child, before) == 0) continue;
        if (at < out_size)
            at += (size_t)snprintf(out + at, out_size - at, "%s%s", before[0] ? ", " : " ", child);
        memcpy(before, child, sizeof before);
    }
    if (prefix[0] == 0 && at < out_size) snprintf(out + at, out_size - at, ", stages");
}

const char *opd__key_advice(const char *prefix, const char *name, char *out, size_t out_size) {
    char child[WORD_MAX], best[WORD_MAX] = "";
    size_t best_distance = SIZE_MAX;
    for (size_t i = 0; i <= opd__key_count; i++) {
        if (i == opd__key_count) {
            if (prefix[0] != 0) break;
            snprintf(child, sizeof child, "stages");
        } else if (!child_name(opd__keys[i].path, prefix, child)) {
            continue;
        }
        size_t distance = opd__edit_distance(name, child);
        if (distance < best_distance) {
            best_distance = distance;
            memcpy(best, child, sizeof best);
        }
    }
    const opd__key *elsewhere = key_elsewhere(name);
    const char *dot = prefix[0] != 0 ? "." : "";
    size_t length = strnlen(name, WORD_MAX);
    if (best_distance <= 1 + length / 3)
        snprintf(out, out_size, "nearest valid key is %s%s%s", prefix, dot, best);
    else if (elsewhere != NULL)
        snprintf(out, out_size, "nearest valid key is %s", elsewhere->path);
    else
        list_children(prefix, "valid keys here are", out, out_size);
    return out;
}

bool opd__name_legal(const char *text) {
    size_t size = 0;
    for (; text[size] != 0; size++) {
        char c = text[size];
        bool legal = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                     (c >= '0' && c <= '9') || c == '-' || c == '_';
        if (!legal || size == OPD_CONFIG_NAME_MAX) return false;
    }
    return size > 0;
}

bool opd__reference_split(const char *text, char out_stage[OPD_CONFIG_NAME_MAX + 1],
                          const char **out_result) {
    static const char head[] = "@stages.";
    if (strncmp(text, head, sizeof head - 1) != 0) return false;
    const char *stage = text + sizeof head - 1;
    size_t size = strcspn(stage, ".");
    if (size == 0 || size > OPD_CONFIG_NAME_MAX || stage[size] != '.') return false;
    memcpy(out_stage, stage, size);
    out_stage[size] = 0;
    *out_result = stage + size + 1;
    return opd__name_legal(out_stage) && opd__name_legal(*out_result);
}
