/* guardian_actor.h - ends the run when an actor fails.
 *
 * It monitors every role and stops the system with the first failure's reason and text. It is
 * spawned last, so in an ordered stop it goes first and the others may end in peace. (A tree of
 * supervisors that restart what can be restarted takes its place with the runtime issue.)
 * Thread: the loop.
 */
#ifndef OPD_ACTORS_GUARDIAN_ACTOR_H
#define OPD_ACTORS_GUARDIAN_ACTOR_H

#include "actors/roles.h"

extern const opd_actor_class opd_guardian_class; /* config: const opd_roles, all spawned */

#endif
