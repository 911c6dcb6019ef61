/* session.h - a loop with a rollout actor and one client actor: what `opd eval` and
 * `opd generate` run.
 *
 * Thread: the caller's becomes the loop's in opd_session_run.
 */
#ifndef OPD_ACTORS_RUN_SESSION_H
#define OPD_ACTORS_RUN_SESSION_H

#include "actors/roles.h"
#include "actors/run/watch.h"
#include "models/model.h"
#include "opd/env.h"

struct opd_kernels;
struct opd_signals;

typedef struct opd_session {
    opd_env *env;
    opd_system *system;
    opd_slot *weights;
    struct opd_kernels *kernels;
    struct opd_signals *signals;
    opd_watch watching;
    opd_roles roles; /* rollout is set by open; the caller spawns the rest */
} opd_session;

typedef struct opd_session_options {
    const opd_model *model; /* borrowed */
    uint32_t threads, slots, max_len;
    bool handle_signals;
} opd_session_options;

/* Builds env, system and the rollout actor with the model's weights. On an error everything
 * is taken down again. */
OPD_MUST_CHECK opd_err opd_session_open(opd_session *session, const opd_session_options *options);

/* Runs until the system stops, then takes everything down. Errors: the stop's reason. */
OPD_MUST_CHECK opd_err opd_session_run(opd_session *session);

/* Takes everything down without running; `err` and its context are kept and returned. */
opd_err opd_session_abandon(opd_session *session, opd_err err);

#endif
