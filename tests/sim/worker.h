/* worker.h - actors that do everything at random: what tests/sim/sim_runtime.c runs.
 *
 * Each worker has a budget of actions: it sends, asks, opens links, runs jobs, watches the
 * others and a slot; what it is sent it drops, keeps, passes on, answers at once, late or
 * not at all. Now and then it fails, exits, stops another one, or is slow to stop. It serves others
 * until the system stops. All it draws comes from its own random sequence, so from the seed.
 * Thread: the loop's.
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
    opd_pid pids[WORKERS_MAX];     /* of the worker that lives now, or lived last, or nobody */
    unsigned budgets[WORKERS_MAX]; /* actions left; survive a restart */
    bool quiet[WORKERS_MAX];      /* budget used up, nothing pending */
    opd_lane *lanes[LANES];
    opd_slot *slot;
    uint64_t versions;            /* put into the slot */
    uint64_t cleanups_begun, cleanups_run;
} playground;

/* Starts worker number index (named "w0", ...) and notes its pid in the playground. */
opd_err worker_spawn(playground *ground, unsigned index, opd_pid *out_pid) OPD_MUST_CHECK;

#endif
