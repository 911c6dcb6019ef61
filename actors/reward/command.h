/* command.h - judges in child processes, which read questions and write answers as JSON lines or in msgpack.
 *
 * A part of an actor: `workers` children of one program, each with one question at a time on its
 * stdin and its answer on its stdout (question.h). Lines that are no JSON object of this question's
 * id, and msgpack values that are no map of it, are logged and skipped. A child that dies costs the question
 * in its hands and is started again after 0.2 s, doubling to 5 s; one that says nothing within timeout_ms,
 * or bytes that are no msgpack or above a MiB, is killed and costs its question, too.
 *
 * Invariants: every question asked is answered exactly once, in the actor's context, unless the
 * actor ends first; a child has at most one question.
 * Thread: the loop. The runtime owns the children; the rest is freed by close.
 */
#ifndef OPD_ACTORS_REWARD_COMMAND_H
#define OPD_ACTORS_REWARD_COMMAND_H

#include "actors/reward/question.h"
#include "opd/actor.h"

enum { OPD_REWARD_ARGS_MAX = 32 };

typedef struct opd_reward_command opd_reward_command;

typedef struct opd_reward_command_options {
    const opd_alloc *alloc;
    struct opd_env *env;
    const char *const *argv; /* NULL-terminated; outlives it */
    const char *name;        /* for messages */
    uint32_t workers;
    bool msgpack;            /* no JSON */
    uint64_t timeout_ms;     /* of one question, from when a child has it */
    /* A question is answered: rewards or failure are set. An error fails the actor. */
    opd_err (*answered)(opd_ctx *ctx, void *state, opd_reward_question *question);
} opd_reward_command_options;

/* Starts the children. Errors: NOMEM, those of opd_child_spawn. */
OPD_MUST_CHECK opd_err opd_reward_command_open(opd_ctx *ctx,
                                               const opd_reward_command_options *options,
                                               opd_reward_command **out_command);

/* Asks soon; the question waits where all children are at work. Errors: NOMEM, and REMOTE where the
 * program cannot be started and never answered anything. */
OPD_MUST_CHECK opd_err opd_reward_command_ask(opd_reward_command *command,
                                              opd_reward_question *question);

/* In on_stop. NULL is legal. */
void opd_reward_command_close(opd_reward_command *command);

#endif
