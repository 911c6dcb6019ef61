/* map.c - bounded hash map (map.h). Thread: one owner. */
#include "core/base/map.h"

#include "core/base/check.h"
#include "core/base/rng.h"

void opd_map_init(opd_map *map, const opd_alloc *alloc, size_t count_max) {
    *map = (opd_map){.alloc = alloc, .count_max = count_max};
}

void opd_map_fini(opd_map *map) {
    opd_mem_free(map->alloc, map->entries);
    opd_map_init(map, map->alloc, map->count_max);
}

static size_t home_of(const opd_map *map, uint64_t key) {
    return (size_t)(opd_rng_at(key, 0, 0, 0) & (map->capacity - 1));
}

/* The place of key, or the free place where it would go. */
static size_t find(const opd_map *map, uint64_t key) {
    size_t i = home_of(map, key);
    while (map->entries[i].value != NULL && map->entries[i].key != key)
        i = (i + 1) & (map->capacity - 1);
    return i;
}

static opd_err grow(opd_map *map) {
    opd_map bigger = *map;
    bigger.capacity = map->capacity == 0 ? 16 : map->capacity * 2;
    bigger.entries = opd_mem_get(map->alloc, bigger.capacity * sizeof(opd_map_entry));
    if (bigger.entries == NULL)
        return opd_fail(OPD_ERR_NOMEM, "map of %zu entries", bigger.capacity);
    for (size_t i = 0; i < map->capacity; i++)
        if (map->entries[i].value != NULL)
            bigger.entries[find(&bigger, map->entries[i].key)] = map->entries[i];
    opd_mem_free(map->alloc, map->entries);
    *map = bigger;
    return OPD_OK;
}

opd_err opd_map_put(opd_map *map, uint64_t key, void *value) {
    OPD_ASSERT(value != NULL);
    if (map->capacity > 0) {
        opd_map_entry *entry = &map->entries[find(map, key)];
        if (entry->value != NULL) {
            entry->value = value;
            return OPD_OK;
        }
    }
    if (map->count == map->count_max)
        return opd_fail(OPD_ERR_LIMIT, "map holds its maximum of %zu entries", map->count_max);
    if (4 * (map->count + 1) > 3 * map->capacity) OPD_TRY(grow(map));
    map->entries[find(map, key)] = (opd_map_entry){.key = key, .value = value};
    map->count++;
    return OPD_OK;
}

void *opd_map_get(const opd_map *map, uint64_t key) {
    return map->capacity == 0 ? NULL : map->entries[find(map, key)].value;
}

void *opd_map_remove(opd_map *map, uint64_t key) {
    if (map->capacity == 0) return NULL;
    size_t mask = map->capacity - 1, hole = find(map, key);
    void *value = map->entries[hole].value;
    if (value == NULL) return NULL;
    /* Close the gap: an entry moves back into the hole unless its home lies after it. */
    for (size_t i = (hole + 1) & mask; map->entries[i].value != NULL; i = (i + 1) & mask) {
        size_t home = home_of(map, map->entries[i].key);
        if (((i - home) & mask) < ((i - hole) & mask)) continue;
        map->entries[hole] = map->entries[i];
        hole = i;
    }
    map->entries[hole].value = NULL;
    map->count--;
    return value;
}
