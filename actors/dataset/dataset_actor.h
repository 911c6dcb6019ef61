/* dataset_actor.h - the actor that hands out work in dataset order.
 *
 * Policy runs: PROMPT to rollout (link), one per admitted group. ADMIT from the trainer moves
 * the bound, and says which prompts come again; HOLD from the teacher pauses while no teacher answers. Supervised runs: EXAMPLE to
 * the trainer (link), as far as its credit goes, up to group_end.
 * Thread: the loop.
 */
#ifndef OPD_ACTORS_DATASET_ACTOR_H
#define OPD_ACTORS_DATASET_ACTOR_H

#include "actors/dataset/dataset.h"
#include "actors/roles.h"

extern const opd_actor_class opd_dataset_class;

/* Borrowed until the actor has stopped. */
typedef struct opd_dataset_config {
    const opd_dataset *dataset;
    const opd_roles *roles;
    bool examples;          /* supervised: EXAMPLE to the trainer                        */
    uint64_t first_group;   /* of a resumed run, or after a restart                       */
    uint64_t admitted;      /* bound that the trainer gave before; 0: none yet            */
    uint64_t group_end;     /* all groups of the run; UINT64_MAX where a filter decides   */
    uint32_t window_msgs;
    uint64_t window_bytes;
} opd_dataset_config;

#endif
