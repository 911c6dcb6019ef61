/* models/model.h - what a language model is: its configuration and its weights.
 *
 * An opd_model is a configuration plus every weight in ONE float32 allocation, described
 * by a table of tensors that carry their Hugging Face names. A gradient, an Adam moment or
 * a snapshot of the weights is therefore just another float array of `param_count`, and the
 * same table describes it. Semantics are those of LlamaForCausalLM: RMSNorm with eps inside
 * the root, rotate-half RoPE, grouped-query attention, SwiGLU, no biases, tied or own head.
 *
 * Order in memory (tightly packed, no gaps): embed_tokens, then per layer input_layernorm,
 * q, k, v, o, post_attention_layernorm, gate, up, down, then norm and, when the head is not
 * tied, lm_head. q|k|v and gate|up are adjacent on purpose: the graph multiplies each group
 * as one matrix.
 *
 * Thread: none of its own. A model is plain data; whoever owns it serialises writers.
 * Ownership: opd_model_create's caller destroys.
 */
#ifndef OPD_MODELS_MODEL_H
#define OPD_MODELS_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "opd/err.h"

struct opd_alloc; /* opd/alloc.h; NULL means the default allocator */

/* The shape of a model; the names are those of Hugging Face's config.json. */
typedef struct opd_model_config {
    int32_t vocab_size;        /* rows of the embedding, >= 1                     */
    int32_t hidden_size;       /* width of the residual stream                     */
    int32_t intermediate_size; /* width of the SwiGLU layer                        */
    int32_t layers;            /* num_hidden_layers                                */
    int32_t heads;             /* num_attention_heads                              */
    int32_t kv_heads;          /* num_key_value_heads; divides heads               */
    int32_t head_dim;          /* even; heads * head_dim need not be hidden_size   */
    int32_t max_position;      /* max_position_embeddings: longest sequence        */
    double rope_theta;         /* base of the rotary frequencies                   */
    double rms_eps;            /* rms_norm_eps                                     */
    bool tie_embeddings;       /* tie_word_embeddings                              */
    int32_t bos_id, eos_id, pad_id; /* token ids, -1 = none                        */
} opd_model_config;

enum { OPD_TENSOR_NAME_SIZE = 80, OPD_TENSOR_RANK_MAX = 2 };

/* One named weight inside the allocation. */
typedef struct opd_tensor {
    char name[OPD_TENSOR_NAME_SIZE]; /* "model.layers.0.self_attn.q_proj.weight"   */
    int32_t rank;                    /* 1 or 2                                     */
    size_t shape[OPD_TENSOR_RANK_MAX]; /* [out, in] or [n]; unused entries are 1   */
    size_t offset;                   /* first element, in floats                   */
    size_t count;                    /* elements                                   */
} opd_tensor;

typedef struct opd_model {
    opd_model_config config;
    float *params;       /* [param_count], 64-byte aligned                         */
    size_t param_count;
    opd_tensor *tensors; /* [tensor_count], ascending offsets, without gaps        */
    size_t tensor_count;
    const struct opd_alloc *alloc;
} opd_model;

/* Offsets (in floats) of the weights of a configuration; the table without its names, for
 * code that computes. Layer l's tensor X starts at layer_base + l * layer_stride + X. */
typedef struct opd_model_layout {
    size_t embed;                          /* [vocab, hidden]                      */
    size_t layer_base, layer_stride;
    size_t norm_attn;                      /* [hidden]            within a layer   */
    size_t qkv;                            /* [q + 2 kv, hidden]                   */
    size_t o;                              /* [hidden, q]                          */
    size_t norm_mlp;                       /* [hidden]                             */
    size_t gate_up;                        /* [2 * intermediate, hidden]           */
    size_t down;                           /* [hidden, intermediate]               */
    size_t norm;                           /* [hidden]            of the model     */
    size_t head;                           /* [vocab, hidden]; == embed when tied  */
    size_t total;                          /* param_count                          */
} opd_model_layout;

/* Checks a configuration: positive sizes within sane bounds (total parameters < 2^40),
 * heads divisible by kv_heads, even head_dim, positive rope_theta and rms_eps.
 * Errors: INVALID with the offending field. */
OPD_MUST_CHECK opd_err opd_model_config_check(const opd_model_config *config);

/* Where each weight of a (checked) configuration lies. */
opd_model_layout opd_model_layout_of(const opd_model_config *config);

/* Builds a model with random weights: matrices ~ N(0, 0.02), the two that write into the
 * residual stream (o_proj, down_proj) scaled by 1/sqrt(2 * layers), norms 1. Weight i of
 * tensor t depends on (seed, t, i) alone.
 * config: checked here. alloc: kept until destroy, may be NULL. *out_model: caller destroys.
 * Errors: INVALID (configuration), NOMEM. */
OPD_MUST_CHECK opd_err opd_model_create(const opd_model_config *config, uint64_t seed,
                                        const struct opd_alloc *alloc, opd_model **out_model);

/* As opd_model_create with all weights zero: for a loader that fills them. */
OPD_MUST_CHECK opd_err opd_model_create_empty(const opd_model_config *config,
                                              const struct opd_alloc *alloc,
                                              opd_model **out_model);

/* Frees the model; NULL is legal. */
void opd_model_destroy(opd_model *model);

/* The tensor of that name, or NULL. */
const opd_tensor *opd_model_find(const opd_model *model, const char *name);

#endif
