/* models/lm.h - the seam between those who use a language model and what it is made of.
 *
 * Rollout, trainer and scorer know a decoder (models/decoder.h) and a graph (models/graph.h)
 * by their functions only. Behind them stands a table, the first member of every decoder
 * and every graph; a factory makes both. opd_lm_transformer is the one that is meant; the
 * simulation brings another that costs nothing.
 *
 * Who writes a second one embeds struct opd_decoder and opd_graph as the first member of
 * his own, fills both tables completely, and keeps the contracts of the two headers: the
 * callers rely on every error named there.
 *
 * Thread: as the two headers say. A table is constant and lives for ever.
 */
#ifndef OPD_MODELS_LM_H
#define OPD_MODELS_LM_H

#include "models/decoder.h"
#include "models/graph.h"

/* Each entry is the function of models/graph.h of that name; destroy never sees NULL. */
typedef struct opd_graph_ops {
    void (*destroy)(opd_graph *graph);
    void (*set_weights)(opd_graph *graph, const float *params);
    opd_err (*forward)(opd_graph *graph, const opd_packed *packed);
    opd_err (*score)(opd_graph *graph, const opd_score_row *rows, size_t n,
                     const opd_scores *out_scores);
    opd_err (*backward)(opd_graph *graph, const opd_score_row *rows, size_t n, const float *dlogp,
                        const float *dentropy, float *grads);
    opd_err (*backward_logits)(opd_graph *graph, const opd_score_row *rows, size_t n,
                               opd_logits_grad_fn grad_fn, void *arg, float *grads);
} opd_graph_ops;

/* Each entry is the function of models/decoder.h of that name; destroy never sees NULL. */
typedef struct opd_decoder_ops {
    void (*destroy)(opd_decoder *decoder);
    void (*set_weights)(opd_decoder *decoder, const float *params);
    opd_err (*prefill)(opd_decoder *decoder, const size_t *slots, const opd_packed *packed);
    opd_err (*copy)(opd_decoder *decoder, size_t from, const size_t *to, size_t n);
    opd_err (*step)(opd_decoder *decoder, const opd_decode_row *rows, size_t n,
                    opd_decode_out *out);
    size_t (*length)(const opd_decoder *decoder, size_t slot);
    void (*truncate)(opd_decoder *decoder, size_t slot, size_t length);
} opd_decoder_ops;

struct opd_graph {
    const opd_graph_ops *ops;
};

struct opd_decoder {
    const opd_decoder_ops *ops;
};

/* Makes both; arguments and errors of opd_graph_create and opd_decoder_create. */
typedef struct opd_lm_ops {
    opd_err (*graph_create)(opd_kernels *kernels, const opd_model_config *config,
                            opd_graph_mode mode, size_t max_tokens, const struct opd_alloc *alloc,
                            opd_graph **out_graph);
    opd_err (*decoder_create)(opd_kernels *kernels, const opd_model_config *config,
                              const opd_decoder_options *options, const struct opd_alloc *alloc,
                              opd_decoder **out_decoder);
} opd_lm_ops;

/* The transformer: opd_graph_create and opd_decoder_create. */
extern const opd_lm_ops opd_lm_transformer;

/* lm, or the transformer where it is NULL. */
static inline const opd_lm_ops *opd_lm_or_default(const opd_lm_ops *lm) {
    return lm != NULL ? lm : &opd_lm_transformer;
}

#endif
