/* models/graph.h - the transformer as the learner and the in-process teacher run it.
 *
 * A graph holds packed copies of a model's matrices and the activations of one micro-batch:
 * several sequences of different lengths laid end to end, no padding. The order of calls is
 *   set_weights -> { forward -> score -> [backward] } per micro-batch -> (optimizer) -> ...
 * backward needs the activations of the last forward, so it must follow it directly (score
 * in between is fine); gradients add up over micro-batches in the caller's buffer.
 *
 * The head is fused: logits exist for a few rows at a time and only for the rows asked for.
 *
 * Invariants: (1) every number of a token depends on the tokens of its own sequence up to
 * itself and on the weights, never on what else is in the batch nor on the thread count, and
 * equals models/decoder.h bit for bit on the same instruction set; (2) gradients do not
 * depend on the thread count; (3) nothing is allocated after create.
 *
 * Thread: one at a time (the lane that owns the opd_kernels). The caller owns everything it
 * passes; the graph copies what it keeps.
 */
#ifndef OPD_MODELS_GRAPH_H
#define OPD_MODELS_GRAPH_H

#include "kernels/kernels.h"
#include "models/model.h"

/* Sequences laid end to end: sequence s is tokens[seq_start[s] .. seq_start[s+1]). */
typedef struct opd_packed {
    size_t seq_count;
    const size_t *seq_start; /* [seq_count + 1], ascending, seq_start[0] == 0 */
    const int32_t *tokens;   /* [seq_start[seq_count]]                         */
} opd_packed;

typedef enum opd_graph_mode {
    OPD_GRAPH_SCORE, /* forward and score only: activations of one layer at a time */
    OPD_GRAPH_TRAIN  /* keeps what backward needs                                  */
} opd_graph_mode;

/* One prediction to score: the distribution after packed token `row` and one target. */
typedef struct opd_score_row {
    size_t row;                /* index into packed.tokens of the token that predicts */
    int32_t target;            /* id whose log-prob is wanted (usually tokens[row+1])  */
    float inverse_temperature; /* 1/T, > 0; log-probs are log-softmax(logits / T)      */
} opd_score_row;

/* Where score puts its results; NULL members are not computed. */
typedef struct opd_scores {
    float *logp;      /* [n] log-prob of the target                                 */
    float *entropy;   /* [n] in nats                                                */
    size_t top_k;     /* ids per row, <= vocab_size; 0 = none                       */
    int32_t *top_ids; /* [n, top_k] most likely first; ties by the lower id         */
    float *top_logp;  /* [n, top_k]; needed, with top_ids, where top_k > 0          */
    float *collision; /* [n] log of the sum of all squared probabilities; needs logp. Graphs
                         only, a reader leaves it alone                             */
    size_t ids_k;       /* given ids per row; 0 = none                              */
    const int32_t *ids; /* [n, ids_k], in any order                                 */
    float *ids_logp;    /* [n, ids_k] log-probs of these                            */
} opd_scores;

typedef struct opd_graph opd_graph;

/* Creates a graph for up to max_tokens packed tokens of at most config->max_position each.
 * kernels: borrowed, outlives the graph. Errors: INVALID, NOMEM. Caller destroys. */
OPD_MUST_CHECK opd_err opd_graph_create(opd_kernels *kernels, const opd_model_config *config,
                                        opd_graph_mode mode, size_t max_tokens,
                                        const struct opd_alloc *alloc, opd_graph **out_graph);

/* Frees the graph; NULL is legal. */
void opd_graph_destroy(opd_graph *graph);

/* Copies and packs the weights (params [param_count] in the model's layout). To be called
 * before the first forward and after every change of the weights. */
void opd_graph_set_weights(opd_graph *graph, const float *params);

/* Runs the layers on a batch. Errors: LIMIT (more than max_tokens, a sequence longer than
 * max_position), INVALID (an id outside the vocabulary, seq_start not ascending). */
OPD_MUST_CHECK opd_err opd_graph_forward(opd_graph *graph, const opd_packed *packed);

/* Scores n rows of the last forward, in any order, repeats allowed.
 * Errors: INVALID (row, target, given id or top_k out of range, inverse temperature not positive). */
OPD_MUST_CHECK opd_err opd_graph_score(opd_graph *graph, const opd_score_row *rows, size_t n,
                                       const opd_scores *out_scores);

/* The last hidden state h of n rows of the last forward, after the final norm: what the head
 * multiplies. To out [n, hidden_size]; targets and temperatures are not read.
 * Errors: INVALID (a row out of range). */
OPD_MUST_CHECK opd_err opd_graph_hidden(opd_graph *graph, const opd_score_row *rows, size_t n,
                                        float *out);

/* Backward of the last forward (TRAIN mode): adds to grads [param_count] the gradient of
 *   sum_i dlogp[i] * logp_i + dentropy[i] * entropy_i + <dhidden[i], h_i>
 * over the n rows. Rows must be in ascending order of `row`, each at most once.
 * dlogp, dentropy: [n], dhidden: [n, hidden_size]; each may be NULL (zero). Errors: INVALID.
 * Consumes the activations: another backward needs another forward. */
OPD_MUST_CHECK opd_err opd_graph_backward(opd_graph *graph, const opd_score_row *rows, size_t n,
                                          const float *dlogp, const float *dentropy,
                                          const float *dhidden, float *grads);

/* The seam for losses over more than one id (top-k divergences): a function that turns the
 * logits of rows [first, first+count) into their gradients, in place.
 * logits: [count, vocab_size] raw, overwritten by dLoss/dlogits. Called in ascending order on
 * the graph's thread. */
typedef void (*opd_logits_grad_fn)(void *arg, size_t first, size_t count, float *logits);

/* As opd_graph_backward for a loss given by `grad_fn`. `rows[i].target` and the temperature
 * are not read. */
OPD_MUST_CHECK opd_err opd_graph_backward_logits(opd_graph *graph, const opd_score_row *rows,
                                                 size_t n, opd_logits_grad_fn grad_fn, void *arg,
                                                 const float *dhidden, float *grads);

#endif
