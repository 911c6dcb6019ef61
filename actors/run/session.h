/* session.h - a loop with a rollout actor and the actors of one client: what `opd eval` and
 * `opd generate` run. One supervisor starts them; nothing is restarted, for a person waits and
 * can ask again: the first failure ends the session with its reason.
 *
 * Thread: the caller's becomes the loop's in opd_session_run.
 */
#ifndef OPD_ACTORS_RUN_SESSION_H
#define OPD_ACTORS_RUN_SESSION_H

#include "actors/roles.h"
#include "actors/run/watch.h"
#include "models/model.h"
#include "opd/env.h"
#include "opd/supervisor.h"

struct opd_kernels;
struct opd_signals;

enum { OPD_SESSION_PARTS_MAX = 4 };

typedef struct opd_session {
    opd_env *env;
    opd_system *system;
    opd_slot *weights;
    struct opd_kernels *kernels;
    struct opd_signals *signals;
    opd_watch watching;
    opd_roles roles; /* set by the start functions */
    opd_lane *lane;
    const opd_model *model;
    uint32_t slots, max_len;
    opd_child_spec parts[OPD_SESSION_PARTS_MAX];
    size_t part_count;
} opd_session;

typedef struct opd_session_options {
    const opd_model *model; /* borrowed */
    uint32_t threads, slots, max_len;
    bool handle_signals;
} opd_session_options;

/* Builds env, system and lane, with the model's weights in the slot; the rollout actor will be the
 * first to start. On an error everything is taken down again. */
OPD_MUST_CHECK opd_err opd_session_open(opd_session *session, const opd_session_options *options);

/* An actor to be started after those before it. start and arg as in opd/supervisor.h. */
void opd_session_add(opd_session *session, const char *id,
                     opd_err (*start)(opd_system *system, void *arg, opd_pid *out_pid), void *arg);

/* Starts the actors, runs until the system stops, then takes everything down. Errors: the stop's reason. */
OPD_MUST_CHECK opd_err opd_session_run(opd_session *session);

#endif
