/* models/decoder.h - batched generation with a KV cache per sequence.
 *
 * A decoder owns `slots` independent sequences of up to max_len tokens each. The prompt of a
 * group goes in once: prefill all of it BUT its last token into one slot, copy that slot to
 * the group's others, then step them all, feeding the last prompt token first:
 *
 *   prefill(slot 0, prompt[0 .. P-1))   length becomes P-1
 *   copy(0 -> 1..n-1)
 *   step({0..n-1}, token = prompt[P-1]) -> first sampled token of each
 *   step(..., token = the sampled one)  -> and so on
 *
 * Keys are stored transposed ([head_dim, max_len]) so that scores run along positions.
 *
 * Invariants: (1) a sampled token and its log-prob depend on the slot's own tokens, the
 * weights, the uniform number and the sampling settings only, never on which other slots
 * step along nor on the thread count; (2) the recorded log-prob equals what opd_graph_score
 * gives for the same tokens, weights and temperature, bit for bit on the same instruction
 * set; (3) nothing is allocated after create.
 *
 * Thread: one at a time (the lane that owns the opd_kernels). Nothing passed in is kept.
 */
#ifndef OPD_MODELS_DECODER_H
#define OPD_MODELS_DECODER_H

#include "kernels/kernels.h"
#include "models/graph.h"
#include "models/model.h"

typedef struct opd_decoder opd_decoder;

typedef struct opd_decoder_options {
    size_t slots;              /* sequences held at once, >= 1                        */
    size_t max_len;            /* tokens per sequence, <= config max_position         */
    size_t prefill_max_tokens; /* most tokens of one prefill call; 0 = max_len        */
    size_t top_k;              /* likely ids that a row may ask for, <= vocab_size    */
} opd_decoder_options;

/* One sequence's part in a decode step. */
typedef struct opd_decode_row {
    size_t slot;                  /* which sequence; each at most once per step        */
    int32_t token;                /* input: appended to the slot, then predicted from  */
    float uniform;                /* in [0, 1): the draw for this position              */
    const opd_sampling *sampling; /* how to choose (kernels/kernels.h)                 */
    int32_t *top_ids;             /* [top_k] gets the most likely ids of this position, before top-k and
                                     top-p; most likely first, ties by the lower id; NULL: not wanted */
} opd_decode_row;

/* What came out of a step for one row. */
typedef struct opd_decode_out {
    int32_t token; /* chosen id                                                        */
    float logp;    /* log-softmax(logits / T)[token], before top-k and top-p; T = 1 if greedy */
} opd_decode_out;

/* Creates a decoder with empty slots. kernels: borrowed, outlives it. Caller destroys.
 * Errors: INVALID, NOMEM. */
OPD_MUST_CHECK opd_err opd_decoder_create(opd_kernels *kernels, const opd_model_config *config,
                                          const opd_decoder_options *options,
                                          const struct opd_alloc *alloc,
                                          opd_decoder **out_decoder);

/* Frees it; NULL is legal. */
void opd_decoder_destroy(opd_decoder *decoder);

/* Swaps the weights: copies and packs params [param_count]. The caches keep what older
 * weights wrote (a sample may span versions); prefill anew where that is not wanted. */
void opd_decoder_set_weights(opd_decoder *decoder, const float *params);

/* Fills slots[s] from position 0 with sequence s of `packed` (empty sequences are legal) and
 * sets its length. Errors: LIMIT (too many tokens or too long), INVALID (slot, token id). */
OPD_MUST_CHECK opd_err opd_decoder_prefill(opd_decoder *decoder, const size_t *slots,
                                           const opd_packed *packed);

/* Copies the content and length of slot `from` to n slots `to`. Errors: INVALID (slot). */
OPD_MUST_CHECK opd_err opd_decoder_copy(opd_decoder *decoder, size_t from, const size_t *to,
                                        size_t n);

/* One token for each of n rows. Errors: INVALID (slot, token, sampling), LIMIT (a slot is
 * full: its length is max_len); on error no slot has changed. */
OPD_MUST_CHECK opd_err opd_decoder_step(opd_decoder *decoder, const opd_decode_row *rows,
                                        size_t n, opd_decode_out *out);

/* Tokens in a slot. */
size_t opd_decoder_length(const opd_decoder *decoder, size_t slot);

/* Cuts a slot back to `length` tokens (at most its present length; 0 empties it). */
void opd_decoder_truncate(opd_decoder *decoder, size_t slot, size_t length);

#endif
