/* alloc_test.h - allocators for tests: one that counts, one that fails on purpose.
 *
 * Both wrap the C library. Thread: any (counters are atomic). The allocators are plain
 * values in the test; nothing to free.
 */
#ifndef OPD_TESTS_SUPPORT_ALLOC_TEST_H
#define OPD_TESTS_SUPPORT_ALLOC_TEST_H

#include <stdatomic.h>
#include <stdbool.h>

#include "opd/alloc.h"

typedef struct opd_test_alloc {
    opd_alloc alloc;        /* pass &t.alloc */
    atomic_long live;       /* blocks not freed */
    atomic_long calls;      /* allocations and growths asked for */
    long fail_at;           /* this call (1 = first) returns NULL; 0: none */
    bool fail_all_after;    /* ... and so does every later one */
} opd_test_alloc;

/* Counts live blocks: at the end, CHECK_INT(t.live, 0). */
void opd_test_alloc_tracing(opd_test_alloc *t);

/* Also fails call number n, once or from there on. */
void opd_test_alloc_failing(opd_test_alloc *t, long n, bool all_after);

#endif
