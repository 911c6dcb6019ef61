/* sim.h - what a simulated transport needs of the simulated world (opd/sim.h).
 *
 * A sim event is something that will happen to a node at a virtual time: bytes that arrive, a
 * timer of a transport, the end of a job. Events are embedded in what they happen to; the
 * world keeps them in a sorted list and never allocates. Thread: the world's.
 */
#ifndef OPD_CORE_ENV_SIM_H
#define OPD_CORE_ENV_SIM_H

#include "opd/node.h"
#include "opd/sim.h"

typedef struct opd_sim_event opd_sim_event;

/* Zeroed, then env and fire are set. */
struct opd_sim_event {
    opd_env *env;                       /* the node it happens to */
    void (*fire)(opd_sim_event *event); /* as an I/O callback: the node's turn follows */
    void *arg;                          /* the user's */
    /* the world's */
    opd_list node;
    uint64_t at_ns;
};

/* The world of an env made by opd_sim_env, and the env's name. */
opd_sim *opd_sim_of(opd_env *env);
const char *opd_sim_env_name(opd_env *env);

/* Fires at at_ns or, if that is past, soon, never from inside this call. Moves one that waits. */
void opd_sim_event_at(opd_sim_event *event, uint64_t at_ns);

/* It does not fire any more. Legal on a zeroed event and on one that fired. */
void opd_sim_event_cancel(opd_sim_event *event);

/* Whether it waits to fire. */
bool opd_sim_event_waits(const opd_sim_event *event);

/* Uniform in [0, n), n >= 1, from the network's own sequence. */
uint64_t opd_sim_draw(opd_sim *sim, uint64_t n);

/* Whether the site fails this time, for the thing of that name (sets the error context). */
bool opd_sim_fault(opd_sim *sim, opd_fault site, const char *name);

/* A node counts what is open on it, so that its end can name what was forgotten. */
void opd_sim_handle_opened(opd_env *env);
void opd_sim_handle_closed(opd_env *env);

#endif
