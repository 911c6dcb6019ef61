/* arena.c - a list of blocks, each filled from its front. See arena.h. */
#include "core/config/arena.h"

#include <stdalign.h>
#include <stdint.h>
#include <string.h>

enum { BLOCK_SIZE = 16384 };

typedef struct block {
    struct block *next;
    size_t size; /* bytes after this header */
    size_t used;
    alignas(max_align_t) char bytes[];
} block;

struct opd__arena {
    const opd_alloc *alloc;
    block *blocks; /* the first is the one being filled */
};

opd__arena *opd__arena_create(const opd_alloc *alloc) {
    opd__arena *arena = opd_mem_get(alloc, sizeof *arena);
    if (arena != NULL) arena->alloc = alloc;
    return arena;
}

void opd__arena_destroy(opd__arena *arena) {
    if (arena == NULL) return;
    for (block *next, *at = arena->blocks; at != NULL; at = next) {
        next = at->next;
        opd_mem_free(arena->alloc, at);
    }
    opd_mem_free(arena->alloc, arena);
}

void *opd__arena_get(opd__arena *arena, size_t size) {
    const size_t align = alignof(max_align_t);
    if (size > SIZE_MAX / 2) return NULL;
    size = (size + align - 1) / align * align;
    block *at = arena->blocks;
    if (at == NULL || at->size - at->used < size) {
        size_t block_size = size > BLOCK_SIZE ? size : BLOCK_SIZE;
        at = opd_mem_get(arena->alloc, sizeof *at + block_size);
        if (at == NULL) return NULL;
        at->size = block_size;
        at->next = arena->blocks;
        arena->blocks = at;
    }
    void *taken = at->bytes + at->used;
    at->used += size;
    return taken;
}

char *opd__arena_text(opd__arena *arena, const char *bytes, size_t size) {
    char *copy = opd__arena_get(arena, size + 1);
    if (copy != NULL && size > 0) memcpy(copy, bytes, size);
    return copy;
}
