/* transport.h - what a transport tells the runtime of its callbacks, so that one that holds the loop
 * is named (opd/diagnosis.h, heartbeat.c).
 *
 *   opened:    self->owner = opd_transport_owner(env);
 *   called:    bool entered = opd_transport_enter(env, self->owner);
 *              ... calls of its user ...
 *              opd_transport_leave(env, entered);
 *
 * Thread: the loop's. Nothing is allocated.
 */
#ifndef OPD_CORE_ACTOR_TRANSPORT_H
#define OPD_CORE_ACTOR_TRANSPORT_H

#include "opd/actor.h"

/* Who opens what is opened now: the actor whose callback runs, or the owner of the transport whose
 * callback runs; OPD_PID_NOBODY between callbacks, and on an env without a system. */
opd_pid opd_transport_owner(const opd_env *env);

/* A transport's callback begins. False: it runs inside of another callback, which answers for
 * it, or nothing is attached to env. An owner that has ended is as good as none. */
bool opd_transport_enter(opd_env *env, opd_pid owner);

/* It is over; entered: what enter said. */
void opd_transport_leave(opd_env *env, bool entered);

#endif
