/* pipeline_inside.h - a stage at work, shared by pipeline.c (its world) and tree.c (its actors).
 *
 * Thread: the loop's. The pipeline owns everything but options, assets, config and outcome.
 */
#ifndef OPD_ACTORS_PIPELINE_INSIDE_H
#define OPD_ACTORS_PIPELINE_INSIDE_H

#include "actors/pipeline.h"
#include "actors/reward/parts.h"
#include "actors/roles.h"
#include "actors/run/watch.h"
#include "core/base/file.h"
#include "core/env/env.h"
#include "opd/supervisor.h"

enum { OPD__PARTS_MAX = 11 + OPD_CONFIG_TEACHERS_MAX, OPD__PART_ID_SIZE = 32 };

/* A supervisor of the tree with its table of children. */
typedef struct opd__branch {
    opd_supervisor_options options;
    opd_child_spec children[OPD__PARTS_MAX];
} opd__branch;

/* One of the teachers that are asked over HTTP, and its host where opd runs its server. */
typedef struct opd__served {
    struct opd_pipeline *pipeline;
    uint32_t place;          /* in stage->teachers                          */
    opd_slot *endpoint;      /* where the launched server listens; NULL: none is */
    char dir[OPD_PATH_SIZE]; /* what that serves                            */
    char id[OPD__PART_ID_SIZE], host_id[OPD__PART_ID_SIZE]; /* of the actors */
} opd__served;

struct opd_pipeline {
    opd_pipeline_options o;
    const opd_assets *a;
    const opd_config_stage *c;
    bool teacher; /* some teacher scores the samples */
    opd_trainer_outcome *outcome;
    opd_env *env;
    bool env_own; /* made here, not given */
    opd_system *system;
    opd_slot *weights, *eval_weights;
    opd_signals *signals;
    opd_watch watching;
    opd_lane *rollout_lane, *eval_lane, *trainer_lane, *scorer_lane, *disk_lane, *parse_lane;
    opd_lane *reward_lane;
    opd_reward_parts reward; /* the judges */
    opd_roles roles;
    char model[OPD_PATH_SIZE]; /* the in-process teacher's folder */
    bool policy;
    opd__served served[OPD_CONFIG_TEACHERS_MAX]; /* of those that are asked over HTTP */
    uint32_t served_count;
    opd__branch run, services, dataplane;
};

/* Finds the teachers that are servers, given or launched, and makes the slots of the latter, once the
 * system exists. Errors: NOMEM, LIMIT. */
OPD_MUST_CHECK opd_err opd__tree_open_teachers(opd_pipeline *p);
void opd__tree_close_teachers(opd_pipeline *p);

/* Starts the tree of the stage (tree.c draws it). Errors: those of the roles' starts. */
OPD_MUST_CHECK opd_err opd__tree_start(opd_pipeline *p);

#endif
