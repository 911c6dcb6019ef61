/* budget.h - how many requests beyond the first a teacher may cost: the retry budget.
 *
 * Finagle's and Envoy's rule: in any OPD_BUDGET_SECONDS, retries and hedges are at most a share of
 * the requests of that time plus a minimum, so that a fleet in trouble is not buried under
 * repetitions. Who finds the budget empty waits and asks again; nothing is given up for it.
 *
 * Pure: time is given, and does not go backwards. Thread: any. Nothing to free.
 */
#ifndef OPD_ACTORS_TEACHER_BUDGET_H
#define OPD_ACTORS_TEACHER_BUDGET_H

#include <stdbool.h>
#include <stdint.h>

enum { OPD_BUDGET_SECONDS = 10 };

typedef struct opd_budget {
    double share, min_per_s;
    uint64_t second; /* the newest that is counted */
    uint32_t requests[OPD_BUDGET_SECONDS], retries[OPD_BUDGET_SECONDS]; /* at second modulo */
} opd_budget;

/* share: retries per request (0.2); min_per_s: retries per second that are always possible. */
void opd_budget_init(opd_budget *budget, double share, double min_per_s);

/* A first attempt is sent. */
void opd_budget_request(opd_budget *budget, uint64_t now_ns);

/* Takes one retry or hedge out of the budget; false: there is none left now. */
bool opd_budget_take(opd_budget *budget, uint64_t now_ns);

#endif
