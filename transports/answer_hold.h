/* answer_hold.h - answers counted until their last byte was sent or given up.
 * Thread: the loop. The counter outlives every body held.
 */
#ifndef OPD_TRANSPORTS_ANSWER_HOLD_H
#define OPD_TRANSPORTS_ANSWER_HOLD_H

#include <stddef.h>

#include "opd/alloc.h"
#include "opd/buf.h"
#include "opd/err.h"

/* *body becomes a new reference to the same bytes, which count in *held_bytes until its buffer is
 * released. Errors: LIMIT (more than max_bytes would be held), NOMEM; *body is then as it was. */
opd_err opd__answer_hold(const opd_alloc *alloc, size_t max_bytes, size_t *held_bytes,
                         opd_slice *body) OPD_MUST_CHECK;

#endif
