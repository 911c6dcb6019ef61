/* opd/alloc.h - where memory comes from.
 *
 * An allocator is one function and its context, passed at construction; a NULL
 * allocator means the C library's. Tests pass a tracing or a failing one.
 *
 * Thread: a given allocator may be called from any thread at once (buffers are freed
 * where their last reference goes), so `resize` must be thread-safe. The opd_alloc
 * itself must outlive everything made from it. Implemented by core/base/alloc.c.
 */
#ifndef OPD_ALLOC_H
#define OPD_ALLOC_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct opd_alloc {
    /* Like realloc with sizes in bytes: ptr NULL allocates, size 0 frees and returns
     * NULL, failure returns NULL and leaves ptr as it was. 16-byte aligned. */
    void *(*resize)(void *context, void *ptr, size_t size_bytes);
    void *context; /* handed back to resize */
} opd_alloc;

/* A new zeroed block of size_bytes (>= 1), or NULL. The caller frees it with
 * opd_mem_free and the same allocator. */
void *opd_mem_get(const opd_alloc *alloc, size_t size_bytes);

/* Grows or shrinks ptr (NULL: a new block) to size_bytes >= 1; bytes past the old size are
 * undefined. NULL on failure, ptr then stays valid. */
void *opd_mem_resize(const opd_alloc *alloc, void *ptr, size_t size_bytes);

/* Frees ptr; NULL is legal. */
void opd_mem_free(const opd_alloc *alloc, void *ptr);

/* A copy of the NUL-terminated text, or NULL; freed with opd_mem_free. */
char *opd_mem_strdup(const opd_alloc *alloc, const char *text);

#ifdef __cplusplus
}
#endif
#endif
