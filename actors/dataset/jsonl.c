/* actors/dataset/jsonl.c - see jsonl.h. Loading goes over the lines once (record.c reads each).
 * Texts and segments land in blocks whose sizes are known beforehand (opd__record_needs).
 * Thread: the caller's; the opd_jsonl owns the blocks. */
#include "actors/dataset/jsonl.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "actors/dataset/record.h"
#include "core/base/check.h"
#include "core/base/file.h"
#include "core/base/map.h"
#include "core/base/rng.h"

/* Which rows of a file are wanted: begin .. end-1. */
typedef struct row_range {
    size_t begin, end;
} row_range;

/* ---- the file ---- */

static bool is_blank(const char *line, size_t size_bytes) {
    for (size_t i = 0; i < size_bytes; i++)
        if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r') return false;
    return true;
}

static opd_err read_lines(opd__loader *loader, const char *data, size_t size_bytes,
                          row_range range, const opd_jsonl_keys *keys) {
    const char *at = data, *end = data + size_bytes;
    size_t row = 0;
    if (size_bytes >= 3 && memcmp(at, "\xEF\xBB\xBF", 3) == 0) at += 3; /* byte order mark */
    while (at < end && row < range.end) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        if (stop == NULL) stop = end;
        loader->line++;
        if (!is_blank(at, (size_t)(stop - at)) && row++ >= range.begin)
            OPD_TRY(opd__record_read(loader, at, (size_t)(stop - at), keys));
        at = stop < end ? stop + 1 : end;
    }
    if (loader->count == 0)
        return opd_fail(OPD_ERR_INVALID, "%s: no rows%s", loader->name,
                        row > 0 ? " in the chosen slice" : "");
    return OPD_OK;
}

static size_t count_lines(const char *data, size_t size_bytes) {
    size_t lines = 1;
    for (size_t i = 0; i < size_bytes; i++) lines += data[i] == '\n';
    return lines;
}

static opd_err parse_range(const opd_alloc *alloc, const char *name, const char *data,
                           size_t size_bytes, row_range range, const opd_jsonl_keys *keys,
                           opd_jsonl **out_jsonl) {
    OPD_TRY(opd_err_prefix(opd__record_keys_check(keys), "%s", name));
    if (size_bytes > OPD_JSONL_SIZE_MAX)
        return opd_fail(OPD_ERR_LIMIT, "%s: larger than %zu bytes", name, OPD_JSONL_SIZE_MAX);
    opd_jsonl *jsonl = opd_mem_get(alloc, sizeof *jsonl);
    if (jsonl == NULL) return opd_fail(OPD_ERR_NOMEM, "%s: no memory to load it", name);
    opd_err err;
    size_t lines = count_lines(data, size_bytes);
    jsonl->alloc = alloc;
    size_t text_bytes, segments;
    opd__record_needs(keys, size_bytes, lines, &text_bytes, &segments);
    jsonl->memory_bytes = lines * sizeof(opd_row) + segments * sizeof(opd_segment) + text_bytes + size_bytes;
    jsonl->rows_block = opd_mem_get(alloc, lines * sizeof(opd_row));
    jsonl->text_block = opd_mem_get(alloc, text_bytes);
    jsonl->segments_block = opd_mem_get(alloc, (segments + 1) * sizeof(opd_segment));
    jsonl->path_block = opd_mem_strdup(alloc, name);
    if (jsonl->rows_block == NULL || jsonl->text_block == NULL || jsonl->segments_block == NULL ||
        jsonl->path_block == NULL) {
        err = opd_fail(OPD_ERR_NOMEM, "%s: no memory to load it", name);
        goto failed;
    }
    opd__loader loader = {.name = name, .text = jsonl->text_block, .segments = jsonl->segments_block,
                          .rows = jsonl->rows_block};
    OPD_TRY_GOTO(read_lines(&loader, data, size_bytes, range, keys), failed);
    jsonl->rows = jsonl->rows_block;
    jsonl->count = loader.count;
    jsonl->path = jsonl->path_block;
    *out_jsonl = jsonl;
    return OPD_OK;
failed:
    opd_jsonl_destroy(jsonl);
    return err;
}

opd_err opd_jsonl_parse(const opd_alloc *alloc, const char *name, const char *data,
                        size_t size_bytes, const opd_jsonl_keys *keys, opd_jsonl **out_jsonl) {
    return parse_range(alloc, name, data, size_bytes, (row_range){0, SIZE_MAX}, keys, out_jsonl);
}

void opd_jsonl_destroy(opd_jsonl *jsonl) {
    if (jsonl == NULL) return;
    opd_mem_free(jsonl->alloc, jsonl->rows_block);
    opd_mem_free(jsonl->alloc, jsonl->text_block);
    opd_mem_free(jsonl->alloc, jsonl->segments_block);
    opd_mem_free(jsonl->alloc, jsonl->path_block);
    opd_mem_free(jsonl->alloc, jsonl);
}

/* ---- path@[a:b] ---- */

/* Reads digits at *at, or keeps `otherwise` when there are none. False on overflow. */
static bool parse_bound(const char **at, size_t otherwise, size_t *out_value) {
    size_t value = 0;
    if (**at < '0' || **at > '9') {
        *out_value = otherwise;
        return true;
    }
    for (; **at >= '0' && **at <= '9'; (*at)++)
        if (__builtin_mul_overflow(value, (size_t)10, &value) ||
            __builtin_add_overflow(value, (size_t)(**at - '0'), &value))
            return false;
    *out_value = value;
    return true;
}

/* Cuts "@[a:b]" off a path (changed in place). A path without it is the whole file. */
static opd_err split_path(char *path, row_range *out_range) {
    size_t size = strlen(path);
    *out_range = (row_range){0, SIZE_MAX};
    char *mark = NULL;
    for (char *at = path; (at = strstr(at, "@[")) != NULL; at++) mark = at;
    if (mark == NULL || path[size - 1] != ']') return OPD_OK;
    const char *at = mark + 2;
    bool well = parse_bound(&at, 0, &out_range->begin) && *at == ':';
    at += well;
    well = well && parse_bound(&at, SIZE_MAX, &out_range->end) && at == path + size - 1;
    if (!well || out_range->begin >= out_range->end)
        return opd_fail(OPD_ERR_PARSE,
                        "%s: the slice is not of the form @[a:b] with 0 <= a < b, such as "
                        "data.jsonl@[0:1000]",
                        path);
    *mark = '\0';
    return OPD_OK;
}

opd_err opd_jsonl_load(const opd_alloc *alloc, const char *path, const opd_jsonl_keys *keys,
                       opd_jsonl **out_jsonl) {
    char *file = opd_mem_strdup(alloc, path), *data = NULL;
    if (file == NULL) return opd_fail(OPD_ERR_NOMEM, "%s: no memory to load it", path);
    size_t size = 0;
    row_range range;
    opd_err err;
    OPD_TRY_GOTO(split_path(file, &range), done);
    OPD_TRY_GOTO(opd_file_read(alloc, file, OPD_JSONL_SIZE_MAX, &data, &size), done);
    err = parse_range(alloc, file, data, size, range, keys, out_jsonl);
done:
    opd_mem_free(alloc, data);
    opd_mem_free(alloc, file);
    return err;
}

/* ---- sets of prompts ---- */

static uint64_t hash_text(const char *text) {
    uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a, 64 bits */
    for (; *text != '\0'; text++) hash = (hash ^ (uint8_t)*text) * UINT64_C(0x100000001b3);
    return hash;
}

/* Row with this prompt, or NULL and the key to store it under. Two prompts of one hash are
 * told apart: the later one goes to the next key of a chain. */
static const opd_row *set_find(const opd_map *set, const char *prompt, uint64_t *out_key) {
    uint64_t key = hash_text(prompt);
    const opd_row *row;
    while ((row = opd_map_get(set, key)) != NULL && strcmp(row->prompt, prompt) != 0)
        key = opd_rng_at(key, 0, 0, 0);
    *out_key = key;
    return row;
}

/* Puts all prompts of a into the set; with `distinct`, a prompt that is there is an error. */
static opd_err set_fill(opd_map *set, const opd_jsonl *a, bool distinct) {
    for (size_t i = 0; i < a->count; i++) {
        uint64_t key;
        const opd_row *old = set_find(set, a->rows[i].prompt, &key);
        if (old == NULL)
            OPD_TRY(opd_map_put(set, key, &a->rows_block[i]));
        else if (distinct)
            return opd_fail(OPD_ERR_MISMATCH, "%s:%zu: the prompt of line %zu again: \"%.60s\"",
                            a->path, a->rows[i].line, old->line, old->prompt);
    }
    return OPD_OK;
}

opd_err opd_jsonl_check_distinct(const opd_alloc *alloc, const opd_jsonl *a) {
    opd_map set;
    opd_map_init(&set, alloc, a->count);
    opd_err err = set_fill(&set, a, true);
    opd_map_fini(&set);
    return err;
}

opd_err opd_jsonl_check_disjoint(const opd_alloc *alloc, const opd_jsonl *a, const opd_jsonl *b) {
    opd_map set;
    opd_map_init(&set, alloc, a->count);
    opd_err err;
    OPD_TRY_GOTO(set_fill(&set, a, false), done);
    for (size_t i = 0; i < b->count; i++) {
        uint64_t key;
        const opd_row *old = set_find(&set, b->rows[i].prompt, &key);
        if (old == NULL) continue;
        err = opd_fail(OPD_ERR_MISMATCH, "%s:%zu: this prompt is also in %s:%zu: \"%.60s\"",
                       b->path, b->rows[i].line, a->path, old->line, old->prompt);
        break;
    }
done:
    opd_map_fini(&set);
    return err;
}
