/* join.h - joins the parts of each sample by id and gives groups back in dataset order.
 *
 * The way of a sample splits at the rollout: its tokens, its teacher scores and its reward
 * arrive here from different actors, in any order. A group is complete when every part of all
 * its members is there; groups leave in the order of the data set, never in the order of
 * completion, so that a batch does not depend on timing.
 *
 * Invariants: (1) a part is taken at most once; (2) only groups inside the admission window
 * [next, next + groups_max) are accepted, which the credits of the trainer guarantee;
 * (3) memory is fixed at creation: groups_max * members * parts pointers.
 * Thread: the loop. The join borrows the items; its user frees what opd_join_next hands out.
 */
#ifndef OPD_ACTORS_BATCHER_JOIN_H
#define OPD_ACTORS_BATCHER_JOIN_H

#include <stddef.h>
#include <stdint.h>

#include "opd/alloc.h"
#include "opd/err.h"

enum { OPD_JOIN_PARTS_MAX = 4 };

typedef struct opd_join opd_join;

/* Creates a join for groups of `members` samples of `parts` parts each, with at most
 * `groups_max` groups open at once, the first of them numbered `first_group`.
 * Errors: NOMEM. */
OPD_MUST_CHECK opd_err opd_join_create(const opd_alloc *alloc, uint64_t first_group,
                                       uint32_t groups_max, uint32_t members, uint32_t parts,
                                       opd_join **out);

/* Frees the join; `drop` (may be NULL) is called on each item still inside. */
void opd_join_destroy(opd_join *join, void (*drop)(void *arg, void *item), void *arg);

/* Puts one part of sample (group, member). The item is borrowed until opd_join_next.
 * Errors: INVALID (member or part out of range, group outside the window), EXISTS (a part
 * that came already). On an error the item stays the caller's. */
OPD_MUST_CHECK opd_err opd_join_put(opd_join *join, uint64_t group, uint32_t member,
                                    uint32_t part, void *item);

/* If the next group in order is complete, copies its items to out_items
 * [members][parts], its number to *out_group, forgets it and returns 1; else returns 0. */
int opd_join_next(opd_join *join, uint64_t *out_group, void **out_items);

/* Passes over the next `count` groups: `drop` is called on each item of theirs that has come; one that
 * comes later is outside the window. */
void opd_join_skip(opd_join *join, uint32_t count, void (*drop)(void *arg, void *item), void *arg);

/* Number of the group that leaves next. */
uint64_t opd_join_next_group(const opd_join *join);

/* Parts still missing from the next group: what a stalled batch is waiting for. */
uint32_t opd_join_missing(const opd_join *join, uint32_t part);

#endif
