/* check.c - the end of a failed assertion (check.h). Thread: any. */
#include "core/base/check.h"

#include <stdio.h>
#include <stdlib.h>

static _Thread_local void (*assert_hook)(void *arg);
static _Thread_local void *assert_hook_arg;

void opd_assert_hook_set(void (*hook)(void *arg), void *arg) {
    assert_hook = hook;
    assert_hook_arg = arg;
}

_Noreturn void opd_assert_fail(const char *file, int line, const char *expr) {
    (void)fprintf(stderr, "%s:%d: assertion failed: %s\n", file, line, expr);
    void (*hook)(void *arg) = assert_hook;
    assert_hook = NULL; /* once */
    if (hook != NULL) hook(assert_hook_arg);
    abort();
}
