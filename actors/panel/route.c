/* route.c - down the chain of fallbacks (route.h). Thread: any; allocates nothing. */
#include "actors/panel/route.h"

void opd_chains_init(opd_chains *chains, const opd_config_stage *stage) {
    *chains = (opd_chains){.count = (uint32_t)stage->teacher_count};
    for (uint32_t i = 0; i < chains->count; i++) {
        chains->fallback[i] = (int8_t)opd_config_teacher_place(stage, stage->teachers[i].fallback);
        chains->used[i] = opd_config_teacher_used(stage, i);
    }
}

void opd_rungs_init(opd_rungs *rungs, const opd_chains *chains, int first) {
    *rungs = (opd_rungs){.asked = 1u << first, .first = (int8_t)first, .at = (int8_t)first,
                         .waits = chains->fallback[first] == OPD_ROUTE_NOBODY};
}

/* The first of the chain that could not be reached. */
static int first_away(const opd_rungs *rungs, const opd_chains *chains) {
    uint32_t left = rungs->away;
    for (int at = rungs->first; left != 0; at = chains->fallback[at]) {
        if ((rungs->away & 1u << at) != 0) return at;
        left &= ~(1u << at);
    }
    return OPD_ROUTE_NOBODY;
}

int opd_rungs_next(opd_rungs *rungs, const opd_chains *chains, bool away) {
    int next = chains->fallback[rungs->at];
    if (away) rungs->away |= 1u << rungs->at;
    if (rungs->waits) {
        next = OPD_ROUTE_NOBODY;
    } else if (next == OPD_ROUTE_NOBODY || (rungs->asked & 1u << next) != 0) {
        next = first_away(rungs, chains);
        rungs->waits = true;
    }
    if (next != OPD_ROUTE_NOBODY) rungs->asked |= 1u << next;
    rungs->at = (int8_t)next;
    return next;
}

bool opd_rungs_more(const opd_rungs *rungs, const opd_chains *chains) {
    opd_rungs after = *rungs;
    return opd_rungs_next(&after, chains, false) != OPD_ROUTE_NOBODY;
}

bool opd_chain_all(const opd_chains *chains, int first,
                   const opd_presence states[OPD_CONFIG_TEACHERS_MAX], bool (*counts)(opd_presence)) {
    uint32_t seen = 0;
    for (int at = first; at != OPD_ROUTE_NOBODY && (seen & 1u << at) == 0; at = chains->fallback[at]) {
        if (!counts(states[at])) return false;
        seen |= 1u << at;
    }
    return true;
}
