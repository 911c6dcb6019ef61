/* admission.h - which groups may start, and which of them a batch took.
 *
 * A place is where a prompt stands in dataset order; a group is a number in the order in which prompts
 * start. The two differ with over-sampling alone (spare_groups above 0, and then max_staleness 0): when a
 * batch is full, the spare_groups behind its last group are void, and their prompts start again, as other
 * groups, for the next batch:
 *
 *   groups   0 1 2 3 | 4 5 |  6 7 8 9 ...      batches of 3, 2 spare groups, group 1 filtered
 *   places   0 1 2 3 | 4 5 |  4 5 6 7 ...      batch 1: 0 2 3, void: 4 5, batch 2 begins with group 6
 *
 * Thread: the trainer's. Plain data, nothing to free.
 */
#ifndef OPD_ACTORS_TRAINER_ADMISSION_H
#define OPD_ACTORS_TRAINER_ADMISSION_H

#include <stdint.h>

#include "actors/messages.h"

typedef struct opd_admission {
    uint32_t batch_prompts, max_staleness, spare_groups;
    uint64_t steps;        /* batches in all                                             */
    uint64_t taken;        /* places below are learnt, or in the batch at work, or were filtered */
    uint64_t filtered;     /* places that were filtered so far                           */
    uint64_t last;         /* place of the newest sample of the batch                    */
    uint64_t first, place; /* group `first` has this place, and those behind it follow   */
} opd_admission;

/* The data plane begins (again) at `taken`, after so many batches. */
void opd_admission_begin(opd_admission *a, uint64_t batches);

/* The place of a group's prompt. */
uint64_t opd_admission_place(const opd_admission *a, uint64_t group);

/* What may start after `version` batches. Returns the bound as a place. */
uint64_t opd_admission_bound(const opd_admission *a, uint64_t version, opd_admit_fields *out);

/* The batch is full: it took batch_prompts groups up to `last`. Returns how many were filtered between. */
uint64_t opd_admission_take(opd_admission *a);

#endif
