/* actors/roles.h - who plays which part in a run.
 *
 * The pipeline fills it while it spawns the actors and gives each a pointer; an actor reads
 * a member when it needs it, so a role spawned later is found too. OPD_PID_NOBODY: the role is
 * not played. A role that an actor needs in its on_start (to open a link) is spawned before
 * it.
 *
 * Thread: the loop. Memory: the pipeline's, alive as long as the actors.
 */
#ifndef OPD_ACTORS_ROLES_H
#define OPD_ACTORS_ROLES_H

#include "opd/actor.h"

typedef struct opd_roles {
    opd_pid monitor;
    opd_pid checkpoint;
    opd_pid trainer;
    opd_pid batcher;
    opd_pid reward;
    opd_pid teacher;      /* teacher_http or teacher_local: takes ROLLOUT */
    opd_pid teacher_host; /* runs `opd serve`, where the run has one      */
    opd_pid scorer;       /* takes SCORE                                  */
    opd_pid rollout;      /* takes PROMPT and GENERATE                    */
    opd_pid evaluator;
    opd_pid dataset;      /* takes ADMIT and HOLD                         */
    opd_pid server;       /* `opd serve`: takes HTTP                      */
    opd_pid client;       /* `opd generate`, `opd eval`: asks the others  */
} opd_roles;

#endif
