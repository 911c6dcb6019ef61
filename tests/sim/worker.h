/* worker.h - actors that do everything at random: what tests/sim/sim_runtime.c runs.
 *
 * Each worker has a budget of actions: it sends, asks, opens links, runs jobs, watches the
 * others and a slot; what it is sent it drops, keeps, passes on, answers at once, late or
 * not at all. All it draws comes from its own random sequence, so from the seed. It serves
 * others until the system stops. Thread: the loop's.
 */
#ifndef OPD_TESTS_SIM_WORKER_H
#define OPD_TESTS_SIM_WORKER_H

#include "opd/actor.h"
#include "tests/sim/checkers.h"

enum { WORKERS_MAX = 8, LANES = 2 };

/* What the workers of one run share. */
typedef struct playground {
    opd_system *system;
    checkers *checks;
    const opd_alloc *alloc;
    unsigned count;
    opd_pid pids[WORKERS_MAX];    /* of the worker that lives now, or nobody */
    unsigned budgets[WORKERS_MAX]; /* actions left; survive a restart */
    bool quiet[WORKERS_MAX];      /* budget used up, nothing pending */
    opd_lane *lanes[LANES];
    opd_slot *slot;
    uint64_t versions;            /* put into the slot */
} playground;

typedef struct worker_config {
    playground *ground;
    unsigned index;
} worker_config;

extern const opd_actor_class worker_class;

#endif
