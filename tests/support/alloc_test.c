/* alloc_test.c - counting and failing allocators (alloc_test.h). Thread: any. */
#include "tests/support/alloc_test.h"

#include <stdlib.h>

static void *test_resize(void *context, void *ptr, size_t size_bytes) {
    opd_test_alloc *t = context;
    if (size_bytes == 0) {
        atomic_fetch_sub(&t->live, 1);
        free(ptr);
        return NULL;
    }
    long call = atomic_fetch_add(&t->calls, 1) + 1;
    bool fails = t->fail_at > 0 && (call == t->fail_at || (t->fail_all_after && call > t->fail_at));
    if (fails) return NULL;
    void *block = realloc(ptr, size_bytes);
    if (block != NULL && ptr == NULL) atomic_fetch_add(&t->live, 1);
    return block;
}

void opd_test_alloc_failing(opd_test_alloc *t, long n, bool all_after) {
    t->alloc = (opd_alloc){.resize = test_resize, .context = t};
    atomic_init(&t->live, 0);
    atomic_init(&t->calls, 0);
    t->fail_at = n;
    t->fail_all_after = all_after;
}

void opd_test_alloc_tracing(opd_test_alloc *t) { opd_test_alloc_failing(t, 0, false); }
