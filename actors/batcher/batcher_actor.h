/* batcher_actor.h - the actor that joins the parts of samples and feeds the trainer.
 *
 * In: ROLLOUT, REWARD and, with a teacher, SCORES, in any order. Out: SAMPLE (link to the
 * trainer), whole groups in dataset order, stamped with when all but the scores was there.
 *
 * With a filter, a group whose rewards are all the same (or of which fewer than two are valid) has
 * no advantage from them: FILTERED goes out in its place, but for at most filter_max_dropped groups
 * of a batch; those beyond are let through. It is decided in dataset order, so timing has no part in it.
 *
 * With over-sampling, spare_groups more than a batch needs are in work. Those behind its last group are void
 * when that one has been sent: their parts are dropped, whenever they come, DISCARD tells rollout, and the
 * next batch begins after them (with their prompts; trainer_actor.h).
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
    uint32_t groups_max;         /* admission window: batch * (max_staleness + 1) + spare_groups */
    uint32_t samples_per_prompt;
    bool teacher;                /* SCORES are to be waited for                   */
    bool filter;
    uint64_t filter_max_dropped; /* groups of a batch                             */
    uint32_t batch_prompts;      /* groups of a batch                             */
    uint32_t spare_groups;       /* of over-sampling, with a filter               */
    uint32_t window_msgs;        /* of the link to the trainer                    */
    uint64_t window_bytes;
    const opd_alloc *alloc;
} opd_batcher_config;

#endif
