/* iobatch.c - see iobatch.h. */
#include "transports/iobatch.h"

#include <string.h>

#include "core/base/check.h"

void opd_iobatch_init(opd_iobatch *batch) {
    batch->first = batch->count = 0;
    batch->size_bytes = batch->staged_bytes = 0;
}

void opd_iobatch_clear(opd_iobatch *batch) {
    for (size_t i = batch->first; i < batch->count; i++) opd_buf_release(batch->segments[i].owner);
    opd_iobatch_init(batch);
}

size_t opd_iobatch_stage(opd_iobatch *batch, const void *bytes, size_t size_bytes) {
    size_t room = OPD_IOBATCH_STAGE_BYTES - batch->staged_bytes;
    size_t take = size_bytes < room ? size_bytes : room;
    if (take == 0) return 0;
    uint8_t *to = batch->stage + batch->staged_bytes;
    opd_iosegment *last = batch->count > batch->first ? &batch->segments[batch->count - 1] : NULL;
    /* The stage is contiguous, so a staged segment at the end simply grows. */
    if (last == NULL || last->owner != NULL) {
        if (batch->count == OPD_IOBATCH_SEGMENTS_MAX) return 0;
        last = &batch->segments[batch->count++];
        *last = (opd_iosegment){.data = to};
    }
    memcpy(to, bytes, take);
    last->size_bytes += take;
    batch->staged_bytes += take;
    batch->size_bytes += take;
    return take;
}

int opd_iobatch_fits(const opd_iobatch *batch, size_t staged_bytes) {
    return batch->count + 2 <= OPD_IOBATCH_SEGMENTS_MAX &&
           batch->staged_bytes + staged_bytes <= OPD_IOBATCH_STAGE_BYTES;
}

void opd_iobatch_slice(opd_iobatch *batch, opd_slice slice) {
    OPD_ASSERT(batch->count < OPD_IOBATCH_SEGMENTS_MAX);
    OPD_ASSERT(slice.buf != NULL && slice.size_bytes > 0);
    batch->segments[batch->count++] = (opd_iosegment){
        .data = opd_slice_data(slice), .size_bytes = slice.size_bytes,
        .owner = opd_buf_retain(slice.buf)};
    batch->size_bytes += slice.size_bytes;
}

void opd_iobatch_written(opd_iobatch *batch, size_t size_bytes) {
    OPD_ASSERT(size_bytes <= batch->size_bytes);
    batch->size_bytes -= size_bytes;
    while (size_bytes > 0) {
        opd_iosegment *head = &batch->segments[batch->first];
        if (size_bytes < head->size_bytes) {
            head->data += size_bytes;
            head->size_bytes -= size_bytes;
            return;
        }
        size_bytes -= head->size_bytes;
        opd_buf_release(head->owner);
        batch->first++;
    }
    if (batch->size_bytes == 0) opd_iobatch_init(batch);
}
