/* pipeline_inside.h - a stage at work, shared by pipeline.c (its world) and tree.c (its actors).
 *
 * Thread: the loop's. The pipeline owns everything but options, assets, config and outcome.
 */
#ifndef OPD_ACTORS_PIPELINE_INSIDE_H
#define OPD_ACTORS_PIPELINE_INSIDE_H

#include "actors/pipeline.h"
#include "actors/roles.h"
#include "actors/run/watch.h"
#include "core/base/file.h"
#include "core/env/env.h"
#include "opd/supervisor.h"

enum { OPD__PARTS_MAX = 16 };

/* A supervisor of the tree with its table of children. */
typedef struct opd__branch {
    opd_supervisor_options options;
    opd_child_spec children[OPD__PARTS_MAX];
} opd__branch;

struct opd_pipeline {
    opd_pipeline_options o;
    const opd_assets *a;
    const opd_config_stage *c;
    const opd_config_teacher *teacher; /* NULL without OPD */
    opd_trainer_outcome *outcome;
    opd_env *env;
    bool env_own; /* made here, not given */
    opd_system *system;
    opd_slot *weights;
    opd_slot *endpoint; /* where the launched teacher listens; NULL: none is launched */
    opd_signals *signals;
    opd_watch watching;
    opd_lane *rollout_lane, *trainer_lane, *scorer_lane, *disk_lane, *parse_lane;
    opd_roles roles;
    char teacher_dir[OPD_PATH_SIZE]; /* what the launched teacher serves */
    bool policy;
    opd__branch run, services, dataplane;
};

/* Whether the stage launches `opd serve` for its teacher. */
bool opd__tree_launches_teacher(const opd_pipeline *p);

/* Whether the teacher is a server, given or launched. */
bool opd__tree_asks_teacher(const opd_pipeline *p);

/* Starts the tree of the stage (tree.c draws it). Errors: those of the roles' starts. */
OPD_MUST_CHECK opd_err opd__tree_start(opd_pipeline *p);

#endif
