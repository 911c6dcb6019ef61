/* models/lm.h - the seam between those who use a language model and what it is made of.
 *
 * Rollout, trainer and scorer know a decoder (models/decoder.h), a graph (models/graph.h) and
 * a reader (models/reader.h) by their functions only. Behind them stands a table, the first
 * member of every one of them; a factory makes them. opd_lm_transformer is the one that is
 * meant; the simulation brings another that costs nothing.
 *
 * Who writes a second one embeds struct opd_decoder, opd_graph and opd_reader as the first
 * member of his own, fills the tables completely, and keeps the contracts of the headers: the
 * callers rely on every error named there.
 *
 * Thread: as the headers say. A table is constant and lives for ever.
 */
#ifndef OPD_MODELS_LM_H
#define OPD_MODELS_LM_H

#include "models/decoder.h"
#include "models/graph.h"
#include "models/reader.h"

/* Each entry is the function of models/graph.h of that name; destroy never sees NULL. */
typedef struct opd_graph_ops {
    void (*destroy)(opd_graph *graph);
    void (*set_weights)(opd_graph *graph, const float *params);
    opd_err (*forward)(opd_graph *graph, const opd_packed *packed);
    opd_err (*score)(opd_graph *graph, const opd_score_row *rows, size_t n,
                     const opd_scores *out_scores);
    opd_err (*hidden)(opd_graph *graph, const opd_score_row *rows, size_t n, float *out);
    opd_err (*backward)(opd_graph *graph, const opd_score_row *rows, size_t n, const float *dlogp,
                        const float *dentropy, const float *dhidden, float *grads);
    opd_err (*backward_logits)(opd_graph *graph, const opd_score_row *rows, size_t n,
                               opd_logits_grad_fn grad_fn, void *arg, const float *dhidden,
                               float *grads);
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

/* Each entry is the function of models/reader.h of that name; destroy never sees NULL. */
typedef struct opd_reader_ops {
    void (*destroy)(opd_reader *reader);
    void (*set_weights)(opd_reader *reader, const float *params);
    opd_err (*forward)(opd_reader *reader, const opd_packed *packed, const opd_read *reads);
    opd_err (*score)(opd_reader *reader, const opd_score_row *rows, size_t n,
                     const opd_scores *out_scores);
    opd_err (*copy)(opd_reader *reader, uint32_t from, uint32_t to);
} opd_reader_ops;

struct opd_graph {
    const opd_graph_ops *ops;
};

struct opd_decoder {
    const opd_decoder_ops *ops;
};

struct opd_reader {
    const opd_reader_ops *ops;
};

/* Makes them; arguments and errors of opd_graph_create, opd_decoder_create, opd_reader_create. */
typedef struct opd_lm_ops {
    opd_err (*graph_create)(opd_kernels *kernels, const opd_model_config *config,
                            opd_graph_mode mode, size_t max_tokens, const struct opd_alloc *alloc,
                            opd_graph **out_graph);
    opd_err (*decoder_create)(opd_kernels *kernels, const opd_model_config *config,
                              const opd_decoder_options *options, const struct opd_alloc *alloc,
                              opd_decoder **out_decoder);
    opd_err (*reader_create)(opd_kernels *kernels, const opd_model_config *config,
                             const opd_reader_options *options, const struct opd_alloc *alloc,
                             opd_reader **out_reader);
} opd_lm_ops;

/* The transformer: opd_graph_create, opd_decoder_create and opd_reader_create. */
extern const opd_lm_ops opd_lm_transformer;

/* lm, or the transformer where it is NULL. */
static inline const opd_lm_ops *opd_lm_or_default(const opd_lm_ops *lm) {
    return lm != NULL ? lm : &opd_lm_transformer;
}

#endif
