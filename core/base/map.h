/* map.h - u64 -> void * by open addressing, bounded.
 *
 * Linear probing with backward-shift deletion (no tombstones); at most 3/4 full. There is no
 * iteration on purpose: hash order must never be visible (determinism). Owners who need to
 * walk their entries keep a list as well. Values are not NULL.
 * Thread: one owner. opd_map_fini frees the table, never the values.
 */
#ifndef OPD_CORE_BASE_MAP_H
#define OPD_CORE_BASE_MAP_H

#include <stddef.h>
#include <stdint.h>

#include "opd/alloc.h"
#include "opd/err.h"

typedef struct opd_map_entry {
    uint64_t key;
    void *value; /* NULL: free place */
} opd_map_entry;

typedef struct opd_map {
    opd_map_entry *entries;
    size_t count, capacity, count_max; /* capacity is 0 or a power of two */
    const opd_alloc *alloc;
} opd_map;

/* An empty map for at most count_max entries; memory grows with use. */
void opd_map_init(opd_map *map, const opd_alloc *alloc, size_t count_max);

/* Frees the table. */
void opd_map_fini(opd_map *map);

/* Inserts or replaces. Errors: LIMIT, NOMEM (the map is unchanged). */
opd_err opd_map_put(opd_map *map, uint64_t key, void *value) OPD_MUST_CHECK;

/* The value of key, or NULL. */
void *opd_map_get(const opd_map *map, uint64_t key);

/* Removes key and returns its value, or NULL. */
void *opd_map_remove(opd_map *map, uint64_t key);

#endif
