/* engine.h - continuous batching of scoring: what a reader reads, step by step.
 *
 * Requests wait in a queue; each that gets pages (pages.h) runs. A step reads at most `job_tokens`
 * new tokens of all that run, fewer where that would take longer than STEP_NS (engine.c): half of
 * them, or more where the others need less, for the one that came first, the others by what is
 * left of them, the shortest first. So a request waits for a long one no longer than for a step,
 * and one of n tokens that has become the first is done after n / (tokens of a step / 2) + 2
 * steps. What the cache holds of a text is not read again, but
 * from the first row that is to be scored (`start`) on; its last token predicts nothing and is
 * never read.
 *
 * The work is cut in two so that the loop never computes: opd_score_engine_plan and
 * opd_score_engine_apply run on the loop thread, opd_score_engine_execute between them on the
 * lane that owns the reader. Between plan and apply the loop thread may only add requests.
 *
 * Invariants: (1) the numbers of a request are those of opd_graph_forward and opd_graph_score
 * for its tokens, bit for bit, whatever else runs and whatever the cache holds; (2) each
 * request added is finished exactly once; (3) while anything runs a step reads at least one
 * token of the first; (4) all numbers of a request are of the same weights: where these change
 * (opd_score_engine_renew), what runs begins again and the cache is empty.
 *
 * The engine owns its arrays and holds a reference to each request's tokens until it is
 * finished.
 */
#ifndef OPD_ACTORS_SCORER_ENGINE_H
#define OPD_ACTORS_SCORER_ENGINE_H

#include "models/lm.h"
#include "opd/alloc.h"
#include "opd/buf.h"

typedef struct opd_score_engine_options {
    const opd_model *model;
    const opd_lm_ops *lm;    /* what makes the reader; NULL: the transformer          */
    opd_kernels *kernels;    /* borrowed: the lane's                                  */
    uint32_t max_len;        /* tokens of a request at most, >= 2                     */
    uint32_t job_tokens;     /* new tokens of a step at most, >= 2                    */
    uint32_t requests_max;   /* waiting and running at most                           */
    uint32_t running_max;    /* running at most                                       */
    uint64_t cache_bytes;    /* of keys and values; 0: nothing is reused, and just what the
                                longest request and a step of short ones need          */
    const opd_alloc *alloc;
} opd_score_engine_options;

/* What is to be scored: tokens start+1 .. n-1 of n. */
typedef struct opd_score_ask {
    opd_slice tokens; /* int32 ids, at least two, all in the vocabulary */
    opd_slice ids;    /* int32 [tokens to score, k], in the vocabulary: their log-probs are wanted;
                         buf NULL: none */
    uint32_t start, top_k;
    double temperature;
    void *user; /* handed back */
} opd_score_ask;

/* What became of it. Slices are valid during the callback only (retain them). */
typedef struct opd_score_done {
    void *user;
    opd_err err; /* its text is opd_err_context() */
    opd_slice logp, topk_ids, topk_logp, ids_logp;
    uint32_t cached; /* tokens that were not read for this request */
} opd_score_done;

/* Whom the engine asks and tells. */
typedef struct opd_score_listener {
    /* OPD_OK: it is still wanted; else it ends with this error. */
    opd_err (*check)(void *arg, void *user);
    void (*finish)(void *arg, const opd_score_done *done);
    void *arg;
} opd_score_listener;

typedef struct opd_score_engine opd_score_engine;

/* Pages of the reader that these options ask for. */
uint64_t opd_score_engine_pages(const opd_score_engine_options *options);

/* On the loop: everything but the reader. Errors: NOMEM. */
OPD_MUST_CHECK opd_err opd_score_engine_create(const opd_score_engine_options *options,
                                               opd_score_engine **out);
/* On the lane, before the first step: the reader with the model's weights. Errors: NOMEM. */
OPD_MUST_CHECK opd_err opd_score_engine_prepare(opd_score_engine *engine);
void opd_score_engine_destroy(opd_score_engine *engine);

/* Other weights are to come: on the loop, between apply and plan. */
void opd_score_engine_renew(opd_score_engine *engine);
/* And are there: on the lane, before the next step. params [param_count] are copied. */
void opd_score_engine_set_weights(opd_score_engine *engine, const float *params);

/* Takes a request (and a reference to its tokens). Errors: AGAIN (requests_max reached), INVALID
 * (too few or too many tokens, a token or an id outside the vocabulary, not as many ids for each token,
 * start, top_k or temperature out of range). */
OPD_MUST_CHECK opd_err opd_score_engine_add(opd_score_engine *engine, const opd_score_ask *ask);

/* Drops what is not wanted any more, lets in what has room and prepares a step. False when there
 * is nothing to do. */
bool opd_score_engine_plan(opd_score_engine *engine, const opd_score_listener *listener);

/* Does the planned step. Errors: those of the reader (an internal error: plan checks). */
OPD_MUST_CHECK opd_err opd_score_engine_execute(opd_score_engine *engine);

/* Takes the step's results in. With an error (of the step) every running request ends with it,
 * and the cache is emptied. */
void opd_score_engine_apply(opd_score_engine *engine, opd_err err,
                            const opd_score_listener *listener);

/* How long the step that was applied last took: it says how many tokens the next one has. */
void opd_score_engine_pace(opd_score_engine *engine, uint64_t took_ns);

/* Ends every request with CLOSED. Not between execute's begin and end. */
void opd_score_engine_close(opd_score_engine *engine, const opd_score_listener *listener);

typedef struct opd_score_engine_state {
    uint32_t waiting, running;
    uint64_t computed, cached; /* tokens read and not read, since create */
    uint32_t step_tokens;      /* of the next step at most               */
    uint64_t steps;
    uint64_t pages_used, pages_kept, pages_free;
} opd_score_engine_state;
opd_score_engine_state opd_score_engine_look(const opd_score_engine *engine);

#endif
