/* check.c - the end of a failed assertion (check.h). Thread: any. */
#include "core/base/check.h"

#include <stdio.h>
#include <stdlib.h>

_Noreturn void opd_assert_fail(const char *file, int line, const char *expr) {
    (void)fprintf(stderr, "%s:%d: assertion failed: %s\n", file, line, expr);
    abort();
}
