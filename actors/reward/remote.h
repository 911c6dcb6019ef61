/* remote.h - a judge behind a URL: a question is POSTed as JSON, the answer's body is read as one
 * (question.h). An own HTTP client (actors/teacher/endpoint.h), with its own pool, retries with back-off and
 * a bound of questions under way.
 *
 * Tried again, up to `retries` times, after 0.2 s doubling to 30 s: what has no answer in timeout_ms,
 * lost connections, HTTP 408, 409, 425, 429 and 5xx. Any other answer is final.
 * Invariant: every question asked is answered exactly once, in the actor's context, unless the
 * actor ends first. Thread: the loop. Freed by close.
 */
#ifndef OPD_ACTORS_REWARD_REMOTE_H
#define OPD_ACTORS_REWARD_REMOTE_H

#include "actors/reward/question.h"
#include "opd/actor.h"

typedef struct opd_reward_remote opd_reward_remote;

typedef struct opd_reward_remote_options {
    const opd_alloc *alloc;
    struct opd_env *env;
    const char *url;  /* with its path; outlives it */
    const char *name; /* for messages */
    uint32_t inflight;
    uint32_t retries;
    uint64_t timeout_ms; /* of one attempt, from its first byte */
    /* A question is answered: rewards or failure are set. An error fails the actor. */
    opd_err (*answered)(opd_ctx *ctx, void *state, opd_reward_question *question);
} opd_reward_remote_options;

/* Opens no connection yet. Errors: INVALID (the URL), NOMEM. */
OPD_MUST_CHECK opd_err opd_reward_remote_open(opd_ctx *ctx, const opd_reward_remote_options *options,
                                              opd_reward_remote **out_remote);

/* Asks soon; the question waits where enough are under way. Errors: NOMEM. */
OPD_MUST_CHECK opd_err opd_reward_remote_ask(opd_reward_remote *remote,
                                             opd_reward_question *question);

/* In on_stop: calls under way go on without us. NULL is legal. */
void opd_reward_remote_close(opd_reward_remote *remote);

#endif
