/* models/weights.h - inside of models/: a model's weights as the kernels want them.
 *
 * Packed copies of every matrix for y = x W^T and, for the learner, for dx = dy W; plain
 * copies of the embedding and the norms; the rotary table. Renewed after each optimizer step,
 * used by thousands of tokens in between.
 *
 * Thread: of the graph or decoder that owns it; read by kernels meanwhile.
 */
#ifndef OPD_MODELS_WEIGHTS_H
#define OPD_MODELS_WEIGHTS_H

#include "kernels/kernels.h"
#include "models/model.h"

/* The sizes of a model that the computation uses again and again. */
typedef struct opd__dims {
    size_t vocab, hidden, inner, layers;
    size_t q, qkv; /* width of the queries; of a qkv row */
    opd_attention_shape attention;
    float eps;
} opd__dims;

typedef struct opd__layer_weights {
    const float *norm_attn, *norm_mlp;        /* [hidden]                       */
    const float *qkv, *o, *gate_up, *down;    /* packed for linear              */
    const float *qkv_dx, *o_dx, *gate_up_dx, *down_dx; /* for linear_dx, or NULL */
} opd__layer_weights;

typedef struct opd__weights {
    opd__dims dims;
    opd_model_layout layout;
    float *plain;                /* copy of the weights [total] (only embedding and norms are read) */
    float *packed, *packed_dx;   /* packed_dx NULL unless training */
    float *rope;                 /* [max_position, head_dim] */
    const float *head, *head_dx;
    opd__layer_weights *layers;  /* [layers] */
    const struct opd_alloc *alloc;
} opd__weights;

static inline size_t opd__least(size_t a, size_t b) { return a < b ? a : b; }

/* Room for the weights of a checked configuration. Errors: NOMEM. Fini after any result. */
OPD_MUST_CHECK opd_err opd__weights_init(opd__weights *w, opd_kernels *k,
                                         const opd_model_config *config, bool train,
                                         const struct opd_alloc *alloc);
void opd__weights_fini(opd__weights *w);

/* Copies and packs params [total]. */
void opd__weights_set(opd__weights *w, opd_kernels *k, const float *params);

#endif
