/* models/graph_inside.h - inside of models/: the graph's parts, for graph.c, graph_backward.c,
 * decoder.c (its prefill) and reader.c.
 *
 * Thread: as models/graph.h.
 */
#ifndef OPD_MODELS_GRAPH_INSIDE_H
#define OPD_MODELS_GRAPH_INSIDE_H

#include "models/lm.h"
#include "models/weights.h"

/* Activations of one layer. In SCORE mode all layers share one set. */
typedef struct opd__activations {
    float *x;       /* [t, hidden] input of the layer            */
    float *inv_attn; /* [t] of the first norm                     */
    float *qkv;     /* [t, qkv] after rotation                   */
    float *attended; /* [t, q]                                    */
    float *middle;  /* [t, hidden] after attention               */
    float *inv_mlp; /* [t] of the second norm                    */
    float *gate_up; /* [t, 2 inner]                              */
} opd__activations;

/* Another attention than that of whole sequences among themselves: computes out [t, q] of a layer
 * from its rotated rows qkv [t, qkv]. */
typedef void (*opd__attention_fn)(void *arg, size_t layer, float *out, const float *qkv);

/* The transformer's graph; base first, so that an opd_graph is one. */
typedef struct opd__graph {
    opd_graph base;
    opd_kernels *kernels;
    opd_model_config config;
    opd_graph_mode mode;
    opd__weights weights;
    size_t max_tokens;
    /* the batch of the last forward */
    size_t tokens, seq_count;
    int32_t *ids, *positions; /* [max_tokens] */
    size_t *seq_start;        /* [max_tokens + 1]; empty sequences are dropped */
    bool ready;               /* activations belong to the batch */
    /* activations */
    opd__activations *layers; /* [layers] */
    float *final;             /* [t, hidden] output of the last layer */
    /* scratch, [max_tokens, .] */
    float *normed, *inner;                                     /* hidden; inner   */
    float *dx, *dnormed, *dqkv, *dattended, *dgate_up, *dinner; /* TRAIN only      */
    /* the head's chunk of rows */
    size_t chunk;
    float *head_in, *head_normed, *head_inv, *logits; /* [chunk, .] */
    float *dhead_in, *dhead_normed;                   /* TRAIN only */
    int32_t *targets, *first; /* [chunk]; first: the likeliest id, where ids are given */
    float *first_logp;        /* of these; less than 0 by the logarithm of the softmax's sum */
    float *inv_t;
    const struct opd_alloc *alloc;
    float *arena;  /* every float array above */
    int32_t *ints; /* ids, positions, targets */
} opd__graph;

/* backward and backward_logits of the table (graph_backward.c). */
OPD_MUST_CHECK opd_err opd__graph_backward(opd_graph *graph, const opd_score_row *rows, size_t n,
                                           const float *dlogp, const float *dentropy,
                                           const float *dhidden, float *grads);
OPD_MUST_CHECK opd_err opd__graph_backward_logits(opd_graph *graph, const opd_score_row *rows,
                                                  size_t n, opd_logits_grad_fn grad_fn, void *arg,
                                                  const float *dhidden, float *grads);

/* Forward of sequences that begin at position past[s] (NULL: all at 0), with `fn` as the attention
 * (NULL: the graph's own). Errors: those of opd_graph_forward. */
OPD_MUST_CHECK opd_err opd__graph_forward(opd__graph *g, const opd_packed *packed,
                                          const size_t *past, opd__attention_fn fn, void *arg);

/* Checks rows: in range; when `ascending`, strictly ascending; when `targets`, target ids and
 * temperatures too. */
OPD_MUST_CHECK opd_err opd__graph_check_rows(const opd__graph *g, const opd_score_row *rows,
                                             size_t n, bool ascending, bool targets);

/* The final norm of `count` <= chunk rows into g->head_normed, and of that their logits into
 * g->logits. */
void opd__graph_head_norm(opd__graph *g, const opd_score_row *rows, size_t count);
void opd__graph_head(opd__graph *g, const opd_score_row *rows, size_t count);

#endif
