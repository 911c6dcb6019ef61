/* arena.h - memory of one configuration, freed all at once.
 *
 * Invariants: blocks never move, so pointers stay valid until opd__arena_destroy; memory is
 * zeroed and aligned for any type. Thread: one owner.
 */
#ifndef OPD_CORE_CONFIG_ARENA_H
#define OPD_CORE_CONFIG_ARENA_H

#include <stddef.h>

#include "opd/alloc.h"

typedef struct opd__arena opd__arena;

/* A new arena, or NULL without memory. `alloc` (NULL = default) must outlive it. */
opd__arena *opd__arena_create(const opd_alloc *alloc);

/* Frees everything taken from the arena, and the arena. NULL is legal. */
void opd__arena_destroy(opd__arena *arena);

/* `size` zeroed bytes, or NULL without memory. */
void *opd__arena_get(opd__arena *arena, size_t size);

/* A NUL-terminated copy of `size` bytes, or NULL without memory. */
char *opd__arena_text(opd__arena *arena, const char *bytes, size_t size);

#endif
