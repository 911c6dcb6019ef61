/* secret.h - texts that must not be seen: read once, never printed, wiped when freed.
 *
 * Invariants: (1) no error text holds a part of a secret, only where it was looked for; (2) what
 * is freed here is overwritten first, also under optimisation.
 * Thread: any. Memory: the caller frees with opd_secret_free.
 */
#ifndef OPD_CORE_BASE_SECRET_H
#define OPD_CORE_BASE_SECRET_H

#include <stdbool.h>
#include <stddef.h>

#include "opd/alloc.h"
#include "opd/err.h"

enum { OPD_SECRET_MAX_BYTES = 4096 };

/* The value of an environment variable. Errors: CONFIG (unset, empty, or not one printable ASCII
 * word of at most OPD_SECRET_MAX_BYTES), NOMEM. */
OPD_MUST_CHECK opd_err opd_secret_from_env(const opd_alloc *alloc, const char *variable,
                                           char **out_secret);

/* The first line of a file, without its end. Errors: CONFIG (as above, or it cannot be read). */
OPD_MUST_CHECK opd_err opd_secret_from_file(const opd_alloc *alloc, const char *path,
                                            char **out_secret);

/* A copy, to be freed like the original. Errors: NOMEM. */
OPD_MUST_CHECK opd_err opd_secret_copy(const opd_alloc *alloc, const char *prefix,
                                       const char *secret, char **out_secret);

/* Whether two texts are equal, in a time that depends on the length of `given` alone. */
bool opd_secret_equal(const char *secret, const char *given);

/* Overwrites and frees; NULL is legal. */
void opd_secret_free(const opd_alloc *alloc, char *secret);

#endif
