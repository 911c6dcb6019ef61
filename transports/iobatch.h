/* iobatch.h - bytes on their way to a socket: small ones copied, large ones by reference.
 *
 * A batch is a list of segments for one writev. Bytes staged one after another share a
 * segment; a slice is one segment that holds a reference to its buffer until it is written.
 * Both adders take what fits and say how much: a full batch is how back-pressure reaches the
 * protocol, which then stops producing.
 *
 * Invariant: segments[first..count) are unwritten, size_bytes is their sum.
 * Thread: the loop. Plain struct in the connection; opd_iobatch_clear drops the references.
 */
#ifndef OPD_TRANSPORTS_IOBATCH_H
#define OPD_TRANSPORTS_IOBATCH_H

#include <stddef.h>
#include <stdint.h>

#include "opd/buf.h"

enum { OPD_IOBATCH_SEGMENTS_MAX = 128, OPD_IOBATCH_STAGE_BYTES = 32 * 1024 };

typedef struct opd_iosegment {
    const uint8_t *data;
    size_t size_bytes;
    opd_buf *owner; /* NULL: the bytes are staged */
} opd_iosegment;

typedef struct opd_iobatch {
    size_t first, count;
    size_t size_bytes;
    size_t staged_bytes;
    opd_iosegment segments[OPD_IOBATCH_SEGMENTS_MAX];
    uint8_t stage[OPD_IOBATCH_STAGE_BYTES];
} opd_iobatch;

/* Makes uninitialised memory an empty batch. */
void opd_iobatch_init(opd_iobatch *batch);

/* Empties the batch, dropping its references. */
void opd_iobatch_clear(opd_iobatch *batch);

/* Copies up to size_bytes; returns how many fitted (0: full). */
size_t opd_iobatch_stage(opd_iobatch *batch, const void *bytes, size_t size_bytes);

/* Whether `staged` more copied bytes and one slice would fit together. */
int opd_iobatch_fits(const opd_iobatch *batch, size_t staged_bytes);

/* Adds a slice by reference (retained). The batch must fit it (opd_iobatch_fits). */
void opd_iobatch_slice(opd_iobatch *batch, opd_slice slice);

/* Forgets the first size_bytes, which were written; empty afterwards means ready to refill. */
void opd_iobatch_written(opd_iobatch *batch, size_t size_bytes);

#endif
