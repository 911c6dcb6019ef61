/* teacher_local.h - the teacher that is loaded into this process (opd.type megatron).
 *
 * In: ROLLOUT (link). Out: SCORES to the batcher (link), exactly one for each ROLLOUT; SCORE
 * requests to the scorer actor. Scores are taken at the rollout's temperature.
 * Thread: the loop.
 */
#ifndef OPD_ACTORS_TEACHER_TEACHER_LOCAL_H
#define OPD_ACTORS_TEACHER_TEACHER_LOCAL_H

#include "actors/roles.h"

/* roles, name and alloc are borrowed and outlive the actor; roles->batcher is set at start. */
typedef struct opd_teacher_local_config {
    const opd_roles *roles;
    const char *name;    /* the teacher's, in SCORES         */
    uint32_t top_k;      /* ids per row in SCORES.topk; 0: none */
    double temperature;  /* of the rollouts; greedy (0) counts as 1 */
    uint32_t window_msgs; /* of the link to the batcher      */
    uint64_t window_bytes;
    const opd_alloc *alloc;
} opd_teacher_local_config;

extern const opd_actor_class opd_teacher_local_class;

#endif
