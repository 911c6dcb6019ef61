/* budget.c - ten buckets of a second (budget.h). Thread: any; allocates nothing. */
#include "actors/teacher/budget.h"

#include <string.h>

void opd_budget_init(opd_budget *budget, double share, double min_per_s) {
    *budget = (opd_budget){.share = share, .min_per_s = min_per_s};
}

/* Moves to the present second; what is older than the window is forgotten. */
static void turn(opd_budget *budget, uint64_t now_ns) {
    uint64_t second = now_ns / 1000000000;
    if (second >= budget->second + OPD_BUDGET_SECONDS) {
        memset(budget->requests, 0, sizeof budget->requests);
        memset(budget->retries, 0, sizeof budget->retries);
        budget->second = second;
    }
    for (; budget->second < second;) {
        uint64_t at = ++budget->second % OPD_BUDGET_SECONDS;
        budget->requests[at] = budget->retries[at] = 0;
    }
}

void opd_budget_request(opd_budget *budget, uint64_t now_ns) {
    turn(budget, now_ns);
    budget->requests[budget->second % OPD_BUDGET_SECONDS]++;
}

bool opd_budget_take(opd_budget *budget, uint64_t now_ns) {
    uint64_t requests = 0, retries = 0;
    turn(budget, now_ns);
    for (int i = 0; i < OPD_BUDGET_SECONDS; i++) {
        requests += budget->requests[i];
        retries += budget->retries[i];
    }
    double most = budget->share * (double)requests + budget->min_per_s * OPD_BUDGET_SECONDS;
    if ((double)(retries + 1) > most) return false;
    budget->retries[budget->second % OPD_BUDGET_SECONDS]++;
    return true;
}
