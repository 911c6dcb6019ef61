/* actors/weights.h - a model's weights as the buffer that actors pass around.
 *
 * Thread: any. Memory: the model's; see below.
 */
#ifndef OPD_ACTORS_WEIGHTS_H
#define OPD_ACTORS_WEIGHTS_H

#include "models/model.h"
#include "opd/alloc.h"
#include "opd/buf.h"

/* A buffer over model->params [param_count] float32, without a copy, for opd_slot_put and the
 * like. The model must outlive the last reference; its weights must not change meanwhile.
 * Errors: NOMEM. The caller owns one reference. */
OPD_MUST_CHECK opd_err opd_weights_buf(const opd_model *model, const opd_alloc *alloc,
                                       opd_buf **out_buf);

#endif
