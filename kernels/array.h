/* kernels/array.h - float arrays for kernels: zeroed, 64-byte aligned, one block each.
 *
 * Thread: any. The caller frees what it creates, with the same allocator.
 */
#ifndef OPD_KERNELS_ARRAY_H
#define OPD_KERNELS_ARRAY_H

#include <stddef.h>

struct opd_alloc;

/* `count` zeroed floats (at least one cache line is reserved), or NULL when memory is out or
 * the size overflows. */
float *opd_floats_create(const struct opd_alloc *alloc, size_t count);

/* Frees an array from opd_floats_create; NULL is legal. */
void opd_floats_destroy(const struct opd_alloc *alloc, float *floats);

#endif
