/* batcher_actor.h - the actor that joins the parts of samples and feeds the trainer.
 *
 * In: ROLLOUT, REWARD and, with a teacher, SCORES, in any order. Out: SAMPLE (link to the
 * trainer), whole groups in dataset order, stamped with when all but the scores was there.
 * Thread: the loop.
 */
#ifndef OPD_ACTORS_BATCHER_ACTOR_H
#define OPD_ACTORS_BATCHER_ACTOR_H

#include "actors/roles.h"

extern const opd_actor_class opd_batcher_class;

/* Borrowed until the actor has stopped. */
typedef struct opd_batcher_config {
    const opd_roles *roles;
    uint64_t first_group;        /* of a resumed run                              */
    uint32_t groups_max;         /* admission window: batch * (max_staleness + 1) */
    uint32_t samples_per_prompt;
    bool teacher;                /* SCORES are to be waited for                   */
    uint32_t window_msgs;        /* of the link to the trainer                    */
    uint64_t window_bytes;
    const opd_alloc *alloc;
} opd_batcher_config;

#endif
