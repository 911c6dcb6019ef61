/* alloc.c - allocator calls with the C library as default (opd/alloc.h). Thread: any. */
#include "opd/alloc.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/check.h"

static void *libc_resize(void *ptr, size_t size_bytes) {
    if (size_bytes != 0) return realloc(ptr, size_bytes);
    free(ptr);
    return NULL;
}

static void *resize(const opd_alloc *alloc, void *ptr, size_t size_bytes) {
    return alloc == NULL ? libc_resize(ptr, size_bytes)
                         : alloc->resize(alloc->context, ptr, size_bytes);
}

void *opd_mem_get(const opd_alloc *alloc, size_t size_bytes) {
    OPD_ASSERT(size_bytes > 0);
    if (alloc == NULL) return calloc(1, size_bytes); /* big blocks come zeroed for free */
    void *block = resize(alloc, NULL, size_bytes);
    if (block != NULL) memset(block, 0, size_bytes);
    return block;
}

void *opd_mem_resize(const opd_alloc *alloc, void *ptr, size_t size_bytes) {
    OPD_ASSERT(size_bytes > 0);
    return resize(alloc, ptr, size_bytes);
}

void opd_mem_free(const opd_alloc *alloc, void *ptr) {
    if (ptr != NULL) (void)resize(alloc, ptr, 0);
}

char *opd_mem_strdup(const opd_alloc *alloc, const char *text) {
    size_t size = strlen(text) + 1;
    char *copy = resize(alloc, NULL, size);
    if (copy != NULL) memcpy(copy, text, size);
    return copy;
}
