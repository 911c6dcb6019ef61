/* rollout_actor.h - the actor that generates: training groups over a link, single answers on
 * request.
 *
 * In: PROMPT (link from the dataset), GENERATE (requests of evaluator and server), new weights
 * through a slot. Out: ROLLOUT to teacher, reward and batcher (links), GENERATED as reply.
 * One lane job at a time: take up weights, prefill what is new, one decode step.
 *
 * With chunk_tokens also CHUNK to the teacher, while a sample is decoded: the prompt alone when a
 * group starts (its member 0), then at least chunk_tokens new tokens at a time. Best effort: they
 * wait for nothing. Without credit, or while a ROLLOUT waits for it, none is sent; the next one
 * has more tokens instead.
 *
 * Backpressure: a PROMPT message is held until its whole group is out, so its link's credit
 * bounds the prompts in work; while a receiver has no credit nothing new is decoded.
 * Groups below a void_end (PROMPT, DISCARD) are aborted: their members leave as they are, and new ones do
 * not begin.
 * Thread: the loop; the engine's execute runs on the lane.
 */
#ifndef OPD_ACTORS_ROLLOUT_ACTOR_H
#define OPD_ACTORS_ROLLOUT_ACTOR_H

#include "actors/roles.h"
#include "actors/rollout/engine.h"

extern const opd_actor_class opd_rollout_class;

/* Borrowed until the actor has stopped. */
typedef struct opd_rollout_config {
    const opd_model_config *model;
    const opd_lm_ops *lm;    /* NULL: the transformer                                   */
    opd_kernels *kernels;    /* the lane's                                              */
    opd_lane *lane;
    opd_slot *weights;       /* float32 params [param_count]; its version is the sample's */
    const opd_roles *roles;
    uint32_t slots;          /* sequences decoded at once                               */
    uint32_t max_len;        /* tokens of a sequence at most                            */
    uint32_t prompts_max;    /* training prompts in work at most: the admission window  */
    uint32_t requests_max;   /* GENERATE requests in work at most; more wait            */
    /* training rollouts; samples_per_prompt 0: serves requests only */
    uint32_t samples_per_prompt, max_new;
    opd_sampling sampling;
    uint64_t seed;
    bool teacher;            /* send rollouts to roles->teacher                         */
    uint32_t top_k;          /* likely ids of each position that go with them; 0: none  */
    uint32_t chunk_tokens;   /* and, before, this many tokens at a time; 0: only rollouts */
    uint32_t window_msgs;    /* window of each outgoing link                            */
    uint64_t window_bytes;
    const opd_alloc *alloc;
} opd_rollout_config;

#endif
