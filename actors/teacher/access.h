/* access.h - the key with which a teacher's servers let us in.
 *
 * A key is a secret (core/base/secret.h): it is read when the actor starts, lives in its endpoints,
 * and stands in no message, file or error text.
 * Thread: any.
 */
#ifndef OPD_ACTORS_TEACHER_ACCESS_H
#define OPD_ACTORS_TEACHER_ACCESS_H

#include <stdbool.h>

#include "opd/alloc.h"
#include "opd/config.h"

/* The key of a configured teacher, or NULL where none is configured; freed by the caller with
 * opd_secret_free. Errors: CONFIG (names the key of the configuration and the variable or file). */
OPD_MUST_CHECK opd_err opd_access_key(const opd_config_teacher *teacher, const opd_alloc *alloc,
                                      char **out_key);

/* Whether a key would go to this URL in clear text over a network: http, and no loopback address. */
bool opd_access_exposed(const char *url);

/* Whether the status says that the server does not let us in. */
bool opd_access_denied(int status);

#endif
