/* buf.c - reference-counted buffers (opd/buf.h).
 *
 * Invariants (buf.h): header and bytes share one block for created buffers, the header alone is
 * ours for wrapped ones, nothing is for views.
 * Memory order: retain is relaxed (the caller already owns a reference); release is
 * acquire-release so that the thread that frees sees every earlier use.
 * Thread: any. The last release frees.
 */
#include "core/base/buf.h"

#include "core/base/check.h"

opd_err opd_buf_create(const opd_alloc *alloc, size_t size_bytes, opd_buf **out_buf) {
    size_t extra = sizeof(opd_buf) + OPD_BUF_ALIGN_BYTES;
    if (size_bytes > SIZE_MAX - extra)
        return opd_fail(OPD_ERR_NOMEM, "buffer of %zu bytes", size_bytes);
    opd_buf *buf = opd_mem_resize(alloc, NULL, size_bytes + extra);
    if (buf == NULL) return opd_fail(OPD_ERR_NOMEM, "buffer of %zu bytes", size_bytes);
    uintptr_t first = (uintptr_t)(buf + 1) + OPD_BUF_ALIGN_BYTES - 1;
    *buf = (opd_buf){.size_bytes = size_bytes, .alloc = alloc};
    buf->data = (unsigned char *)(first & ~(uintptr_t)(OPD_BUF_ALIGN_BYTES - 1));
    atomic_init(&buf->refs, 1);
    *out_buf = buf;
    return OPD_OK;
}

opd_err opd_buf_wrap(const opd_alloc *alloc, void *data, size_t size_bytes,
                     void (*release)(void *arg, void *data), void *arg, opd_buf **out_buf) {
    opd_buf *buf = opd_mem_get(alloc, sizeof *buf);
    if (buf == NULL) return opd_fail(OPD_ERR_NOMEM, "buffer header");
    *buf = (opd_buf){.size_bytes = size_bytes, .data = data, .alloc = alloc,
                     .release = release, .arg = arg};
    atomic_init(&buf->refs, 1);
    *out_buf = buf;
    return OPD_OK;
}

void opd__buf_view(opd_buf *view, const opd_buf *of, void (*gone)(opd_buf *view)) {
    *view = (opd_buf){.size_bytes = of->size_bytes, .data = of->data, .gone = gone};
    atomic_init(&view->refs, 1);
}

opd_buf *opd_buf_retain(opd_buf *buf) {
    unsigned before = atomic_fetch_add_explicit(&buf->refs, 1, memory_order_relaxed);
    OPD_ASSERT(before >= 1 && before < UINT32_MAX);
    return buf;
}

void opd_buf_release(opd_buf *buf) {
    if (buf == NULL) return;
    unsigned before = atomic_fetch_sub_explicit(&buf->refs, 1, memory_order_acq_rel);
    OPD_ASSERT(before >= 1);
    if (before > 1) return;
    if (buf->gone != NULL) {
        buf->gone(buf);
        return;
    }
    if (buf->release != NULL) buf->release(buf->arg, buf->data);
    opd_mem_free(buf->alloc, buf);
}

void *opd_buf_data(const opd_buf *buf) { return buf->data; }

size_t opd_buf_size(const opd_buf *buf) { return buf->size_bytes; }

void *opd_slice_data(opd_slice slice) {
    return slice.buf == NULL ? NULL : slice.buf->data + slice.offset_bytes;
}

opd_slice opd_slice_whole(opd_buf *buf) {
    return (opd_slice){.buf = buf, .offset_bytes = 0, .size_bytes = buf->size_bytes};
}
