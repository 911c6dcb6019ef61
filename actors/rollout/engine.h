/* engine.h - continuous batching: which sequences a decoder works on, step by step.
 *
 * Prompts wait in a queue; each asks for `count` samples. While slots are free the first
 * prompt is prefilled once and copied to its members' slots; every step then produces one
 * token for each running sequence. A sequence ends at its EOS, at its own limit of new
 * tokens or at the decoder's length.
 *
 * The work is cut in two so that the loop never computes: opd_engine_plan and
 * opd_engine_apply run on the loop thread, opd_engine_execute between them on the lane that
 * owns the decoder. Between plan and apply the loop thread may only add prompts.
 *
 * Invariants: (1) the token at a position depends on the prompt, the weights and the key
 * (seed, epoch, group, member, position) alone, never on what else is running;
 * (2) a prompt starts only under weights of at least its min_version; (3) prompts start in
 * the order they were added; (4) each member of each taken prompt finishes exactly once.
 * The engine owns its arrays and holds a reference on each prompt's tokens while it runs.
 */
#ifndef OPD_ACTORS_ROLLOUT_ENGINE_H
#define OPD_ACTORS_ROLLOUT_ENGINE_H

#include "models/lm.h"
#include "opd/alloc.h"
#include "opd/buf.h"

enum { OPD_ENGINE_SPANS_MAX = 4 };

/* Why a sequence ended. */
typedef enum opd_finish {
    OPD_FINISH_STOP,   /* EOS, which is the last token of the response  */
    OPD_FINISH_LENGTH, /* a length limit                                */
    OPD_FINISH_ABORT   /* cancelled before its end                      */
} opd_finish;

/* A prompt and how to continue it. */
typedef struct opd_engine_prompt {
    opd_slice tokens;      /* int32 ids, at least one                              */
    uint32_t count;        /* samples wanted, >= 1                                 */
    uint32_t max_new;      /* tokens of a response at most, >= 1                   */
    opd_sampling sampling;
    uint64_t seed, epoch, group; /* key of the random numbers; member is added     */
    uint64_t min_version;  /* weights that are new enough                          */
    bool ignore_eos;       /* go on after EOS                                      */
    bool lists;            /* keep the likely ids of each position (options.top_k) */
    uint64_t user;         /* handed back                                          */
} opd_engine_prompt;

/* A finished member. Arrays are valid during the callback only. */
typedef struct opd_engine_sample {
    const opd_engine_prompt *prompt;
    uint32_t member;
    opd_finish finish;
    const int32_t *tokens; /* [prompt_len + response_len]                          */
    uint32_t prompt_len, response_len;
    const float *logp;     /* [response_len] at the sampling temperature           */
    const int32_t *topk;   /* [response_len, top_k] likely ids; NULL: not kept     */
    uint32_t span_count;   /* weight versions, oldest first                        */
    uint64_t span_version[OPD_ENGINE_SPANS_MAX];
    uint32_t span_start[OPD_ENGINE_SPANS_MAX]; /* first response token             */
} opd_engine_sample;

typedef void (*opd_engine_finish_fn)(void *arg, const opd_engine_sample *sample);

/* A running member. Arrays are valid during the callback only. */
typedef struct opd_engine_progress {
    const opd_engine_prompt *prompt;
    uint32_t member;
    const int32_t *tokens; /* [length], the prompt included                        */
    const int32_t *topk;   /* [length - prompt_len, top_k]; NULL: not kept         */
    uint32_t prompt_len, length;
    uint32_t told;         /* length at the last callback that took it; 0: none    */
} opd_engine_progress;

/* True: taken, `told` becomes the present length. */
typedef bool (*opd_engine_progress_fn)(void *arg, const opd_engine_progress *progress);

typedef struct opd_engine_options {
    const opd_model_config *model;
    const opd_lm_ops *lm;   /* what makes the decoder; NULL: the transformer       */
    opd_kernels *kernels;   /* borrowed: the lane's                                */
    uint32_t slots;         /* sequences at once                                   */
    uint32_t max_len;       /* tokens of a sequence at most                        */
    uint32_t top_k;         /* likely ids of a position, for prompts that keep them */
    uint32_t prompts_max;   /* prompts queued or running at most                   */
    const opd_alloc *alloc;
} opd_engine_options;

typedef struct opd_engine opd_engine;

/* Errors: INVALID, NOMEM. The engine has no weights until the first offer. */
OPD_MUST_CHECK opd_err opd_engine_create(const opd_engine_options *options, opd_engine **out);
void opd_engine_destroy(opd_engine *engine);

/* Takes a prompt (and a reference to its tokens). Errors: AGAIN (prompts_max reached),
 * INVALID (empty, longer than max_len - 1, token outside the vocabulary, count or max_new 0,
 * sampling settings out of range). */
OPD_MUST_CHECK opd_err opd_engine_add(opd_engine *engine, const opd_engine_prompt *prompt);

/* Offers weights [param_count] of a version; taken up by the next plan. A newer offer
 * replaces one not yet taken up. The engine keeps a reference until then. */
void opd_engine_offer(opd_engine *engine, opd_slice params, uint64_t version);

/* Prepares the next step. False when there is nothing to do. */
bool opd_engine_plan(opd_engine *engine);

/* Does the planned step. Errors: those of the decoder (an internal error: plan checks). */
OPD_MUST_CHECK opd_err opd_engine_execute(opd_engine *engine);

/* Takes the step's results in; calls `finish` for each sequence that ended. */
void opd_engine_apply(opd_engine *engine, opd_engine_finish_fn finish, void *arg);

/* Shows each running sequence, longest running first. At any time but during apply. */
void opd_engine_tell(opd_engine *engine, opd_engine_progress_fn progress, void *arg);

/* Ends every queued and running member whose prompt has this `user` as ABORT. Not between
 * plan and apply. */
void opd_engine_abort(opd_engine *engine, uint64_t user, opd_engine_finish_fn finish, void *arg);

/* Sequences running, and prompts taken but not finished. */
uint32_t opd_engine_running(const opd_engine *engine);
uint32_t opd_engine_prompts(const opd_engine *engine);

/* Version of the weights in use; UINT64_MAX before the first. */
uint64_t opd_engine_version(const opd_engine *engine);

#endif
