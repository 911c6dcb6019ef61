/* admission.c - see admission.h. */
#include "actors/trainer/admission.h"

void opd_admission_begin(opd_admission *a, uint64_t batches) {
    a->filtered = a->taken - batches * a->batch_prompts;
    a->first = a->place = a->taken;
}

uint64_t opd_admission_place(const opd_admission *a, uint64_t group) { return group - a->first + a->place; }

/* A filtered group makes room for another, for the same batch. */
uint64_t opd_admission_bound(const opd_admission *a, uint64_t version, opd_admit_fields *out) {
    uint64_t batches = version + a->max_staleness + 1;
    if (batches > a->steps) batches = a->steps;
    uint64_t end = batches * a->batch_prompts + a->filtered + a->spare_groups;
    *out = (opd_admit_fields){.group_end = end - a->place + a->first, .min_version = version,
                              .first = a->first, .place = a->place};
    return end;
}

uint64_t opd_admission_take(opd_admission *a) {
    uint64_t end = a->last + 1, dropped = end - a->taken - a->batch_prompts;
    a->taken = end;
    if (a->spare_groups > 0) {
        a->first += end - a->place + a->spare_groups;
        a->place = end;
    }
    return dropped;
}
