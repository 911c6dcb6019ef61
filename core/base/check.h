/* check.h - the guard vocabulary of opd's own code.
 *
 * OPD_TRY returns early on an error; OPD_TRY_GOTO jumps to the one cleanup label of a
 * function; OPD_ASSERT states what only a programmer's mistake can break and stays on
 * in release builds. Operating errors (bad input, lost peers, full disks) are never
 * assertions: they are opd_err values.
 */
#ifndef OPD_CORE_BASE_CHECK_H
#define OPD_CORE_BASE_CHECK_H

#include "opd/err.h"

/* Prints "file:line: assertion failed: expr" to stderr and aborts. Does not return. */
_Noreturn void opd_assert_fail(const char *file, int line, const char *expr);

/* Calls hook(arg) once when an assertion fails on this thread, before the end: to tell what
 * happened last. It must not assert or allocate. NULL: none. */
void opd_assert_hook_set(void (*hook)(void *arg), void *arg);

#define OPD_ASSERT(expr) \
    ((expr) ? (void)0 : opd_assert_fail(__FILE__, __LINE__, #expr))

/* Returns from the enclosing function, which returns opd_err, when expr fails. */
#define OPD_TRY(expr)                              \
    do {                                           \
        opd_err opd_try_err_ = (expr);             \
        if (opd_try_err_ != OPD_OK) return opd_try_err_; \
    } while (0)

/* Stores the result of expr in the local `err` and jumps to `label` when it fails. */
#define OPD_TRY_GOTO(expr, label)      \
    do {                               \
        err = (expr);                  \
        if (err != OPD_OK) goto label; \
    } while (0)

#define OPD_COUNTOF(array) (sizeof(array) / sizeof((array)[0]))

/* The struct of type `type` whose member `member` is at `ptr`. */
#define OPD_CONTAINER_OF(ptr, type, member) \
    ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

#endif
