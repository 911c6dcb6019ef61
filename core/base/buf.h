/* buf.h - the inside of a buffer, for who embeds one in an object of its own (core/actor/view.c).
 *
 * Invariants: refs >= 1 while anyone can name the buffer; the last release calls `gone` if it is
 * set, and then the memory is its owner's again; otherwise the buffer frees itself.
 * Thread: any (opd/buf.h).
 */
#ifndef OPD_CORE_BASE_BUF_H
#define OPD_CORE_BASE_BUF_H

#include <stdatomic.h>

#include "opd/buf.h"

struct opd_buf {
    atomic_uint refs;
    size_t size_bytes;
    unsigned char *data;
    const opd_alloc *alloc;
    void (*release)(void *arg, void *data); /* wrapped buffers only */
    void *arg;
    void (*gone)(opd_buf *buf); /* embedded buffers only: after the last release, its thread */
};

/* Makes `view`, memory of the caller's, a buffer of one reference over the bytes of `of`, whose
 * reference the caller keeps until gone(view). */
void opd__buf_view(opd_buf *view, const opd_buf *of, void (*gone)(opd_buf *view));

#endif
