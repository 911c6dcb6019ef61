/* opd/buf.h - reference-counted bytes, and slices of them.
 *
 * A buffer's bytes are 64-byte aligned and, by convention, immutable once the buffer
 * is shared with another owner. The last release frees them.
 *
 * Thread: retain and release from any thread; the bytes are handed over, never written
 * while shared. Implemented by core/base/buf.c.
 */
#ifndef OPD_BUF_H
#define OPD_BUF_H

#include <stddef.h>
#include <stdint.h>

#include "opd/alloc.h"
#include "opd/err.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { OPD_BUF_ALIGN_BYTES = 64 };

typedef struct opd_buf opd_buf;

/* A window into a buffer. A plain value: it owns a reference only where the function that
 * takes or returns it says so. {NULL, 0, 0} is the empty slice. */
typedef struct opd_slice {
    opd_buf *buf;
    size_t offset_bytes;
    size_t size_bytes;
} opd_slice;

/* A buffer of size_bytes (0 is legal) undefined bytes with one reference, owned by the
 * caller. Errors: NOMEM. */
opd_err opd_buf_create(const opd_alloc *alloc, size_t size_bytes, opd_buf **out_buf) OPD_MUST_CHECK;

/* A buffer over memory that stays the caller's until the last release, which calls
 * release(arg, data) (NULL: nothing) on the releasing thread. Errors: NOMEM. */
opd_err opd_buf_wrap(const opd_alloc *alloc, void *data, size_t size_bytes,
                     void (*release)(void *arg, void *data), void *arg,
                     opd_buf **out_buf) OPD_MUST_CHECK;

/* Adds a reference and returns buf. */
opd_buf *opd_buf_retain(opd_buf *buf);

/* Drops a reference, freeing the buffer with the last; NULL is legal. */
void opd_buf_release(opd_buf *buf);

/* The buffer's bytes and their number. */
void *opd_buf_data(const opd_buf *buf);
size_t opd_buf_size(const opd_buf *buf);

/* The first byte of a slice; NULL for the empty slice. */
void *opd_slice_data(opd_slice slice);

/* The whole of buf as a slice (no reference is added). */
opd_slice opd_slice_whole(opd_buf *buf);

#ifdef __cplusplus
}
#endif
#endif
