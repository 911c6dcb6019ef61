/* kernels/array.c - see array.h. The block's own address is kept just before the array. */
#include "kernels/array.h"

#include <stdint.h>

#include "opd/alloc.h"

enum { ALIGNMENT = 64 };

float *opd_floats_create(const struct opd_alloc *alloc, size_t count) {
    if (count > (SIZE_MAX - 4 * ALIGNMENT) / sizeof(float)) return NULL;
    void *block = opd_mem_get(alloc, count * sizeof(float) + 3 * ALIGNMENT);
    if (block == NULL) return NULL;
    uintptr_t start = (uintptr_t)block + sizeof(void *) + ALIGNMENT - 1;
    float *floats = (float *)(start & ~(uintptr_t)(ALIGNMENT - 1));
    ((void **)(void *)floats)[-1] = block;
    return floats;
}

void opd_floats_destroy(const struct opd_alloc *alloc, float *floats) {
    if (floats == NULL) return;
    opd_mem_free(alloc, ((void **)(void *)floats)[-1]);
}
