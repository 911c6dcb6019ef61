/* answer_hold.c - see answer_hold.h. */
#include "transports/answer_hold.h"

typedef struct answer {
    const opd_alloc *alloc;
    size_t *held_bytes;
    opd_buf *body;
    size_t size_bytes;
} answer;

static void answer_over(void *arg, void *data) {
    (void)data;
    answer *held = arg;
    *held->held_bytes -= held->size_bytes;
    opd_buf_release(held->body);
    opd_mem_free(held->alloc, held);
}

opd_err opd__answer_hold(const opd_alloc *alloc, size_t max_bytes, size_t *held_bytes,
                         opd_slice *body) {
    if (body->size_bytes > max_bytes - *held_bytes)
        return opd_fail(OPD_ERR_LIMIT, "the server holds too many bytes of answers");
    answer *held = opd_mem_get(alloc, sizeof *held);
    if (held == NULL) return opd_fail(OPD_ERR_NOMEM, "answer");
    *held = (answer){.alloc = alloc, .held_bytes = held_bytes, .size_bytes = body->size_bytes};
    opd_buf *counted;
    opd_err err = opd_buf_wrap(alloc, opd_slice_data(*body), body->size_bytes, answer_over, held,
                               &counted);
    if (err != OPD_OK) {
        opd_mem_free(alloc, held);
        return err;
    }
    held->body = opd_buf_retain(body->buf);
    *held_bytes += body->size_bytes;
    *body = opd_slice_whole(counted);
    return OPD_OK;
}
