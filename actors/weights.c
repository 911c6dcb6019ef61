/* weights.c - a model's weights as a buffer (weights.h). Thread: any; nothing is allocated but
 * the buffer's head. */
#include "actors/weights.h"

opd_err opd_weights_buf(const opd_model *model, const opd_alloc *alloc, opd_buf **out_buf) {
    return opd_buf_wrap(alloc, model->params, model->param_count * sizeof(float), NULL, NULL,
                        out_buf);
}
