/* actors/roles.h - who plays which part in a run.
 *
 * The functions that start the actors fill it; every actor has a pointer and reads a member when
 * it needs it, so a role that is started later, or again, is found too. OPD_PID_NOBODY: nobody
 * plays the role, now or at all. A role that an actor needs in its on_start (to open a link) is spawned before
 * it.
 *
 * Thread: the loop. Memory: the pipeline's, alive as long as the actors.
 */
#ifndef OPD_ACTORS_ROLES_H
#define OPD_ACTORS_ROLES_H

#include "opd/actor.h"
#include "opd/config.h"

typedef struct opd_roles {
    opd_pid monitor;
    opd_pid checkpoint;
    opd_pid trainer;
    opd_pid batcher;
    opd_pid reward;
    opd_pid teacher;      /* the panel: takes ROLLOUT, CHUNK, PRESENCE    */
    opd_pid teachers[OPD_CONFIG_TEACHERS_MAX]; /* by place in stage->teachers: take SCORE */
    opd_pid teacher_hosts[OPD_CONFIG_TEACHERS_MAX]; /* run `opd serve` for those that need it */
    opd_pid scorer;       /* the teacher in this process: takes SCORE     */
    opd_pid rollout;      /* takes PROMPT and GENERATE                    */
    opd_pid eval_rollout; /* takes GENERATE of evaluations beside the training; else rollout does */
    opd_pid evaluator;
    opd_pid dataset;      /* takes ADMIT and HOLD                         */
    opd_pid server;       /* `opd serve`: takes HTTP                      */
} opd_roles;

#endif
