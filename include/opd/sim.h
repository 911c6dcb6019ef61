/* opd/sim.h - the same actors in a simulated world: virtual time, seeded order, seeded faults.
 *
 * A world holds nodes; a node is an opd_env with one opd_system, as a process would be. All
 * of them run on one thread. Everything that happens follows from the seed: which actor is
 * next, how long a job takes and when it runs, what fails. Time is virtual: it moves by a
 * little at each step and jumps to the next timer when nothing is ready, so an hour of
 * waiting costs nothing. The same seed and program give the same order of everything, on
 * every machine and with every compiler.
 *
 * One node:    opd_sim_create, opd_sim_env, then as with a real env: opd_system_create,
 *              opd_spawn, opd_system_run, opd_system_destroy, opd_env_destroy, opd_sim_destroy.
 * Many nodes:  opd_system_begin for each system, opd_sim_run for all, opd_system_end for each.
 *
 * A run that would never end is an error whose text names the most active actors: a world where
 * nothing can happen any more (INTERNAL), one that is busy for busy_steps_max steps without
 * ever being idle (LIMIT), one that takes longer than time_max_ns (TIMEOUT).
 *
 * Thread: one for the whole world. Implemented by core/env.
 */
#ifndef OPD_SIM_H
#define OPD_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "opd/alloc.h"
#include "opd/env.h"
#include "opd/err.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct opd_sim opd_sim;

#define OPD_SIM_FOREVER UINT64_MAX

/* 0 means the default of the comment. */
typedef struct opd_sim_options {
    const opd_alloc *alloc;        /* the world's own memory, and what opd_sim_alloc wraps */
    uint64_t step_max_ns;          /* a step takes 0 .. this much virtual time; 2,000 */
    uint64_t job_min_ns;           /* a job takes job_min .. job_max; 20,000 */
    uint64_t job_max_ns;           /* 5,000,000 */
    uint64_t busy_steps_max;       /* steps in a row without an idle moment; 1,000,000 */
    uint64_t time_max_ns;          /* virtual time since the beginning; no limit */

    /* Faults. None fires unless `faults` names it, outside of opd_sim_run and opd_system_run,
     * or at and after faults_until_ns: the tail without faults shows that everything recovers. */
    uint32_t faults;               /* a bit 1 << opd_fault for each site that may fail; none */
    uint64_t faults_until_ns;      /* virtual time since the beginning; forever */
    uint32_t fault_one_in;         /* an armed site fails once in so many times; 50 */
    bool faults_all_armed;         /* default: a run arms each site with probability 1/4 */
    /* Whether a fault may strike the actor (or node, for the network) of that name. NULL: any. */
    bool (*fault_allowed)(void *arg, opd_fault site, const char *name);
    void *fault_arg;
} opd_sim_options;

enum { OPD_SIM_FAULTS_ALL = (1 << OPD_FAULT_COUNT) - 1 };

/* A world without nodes; options may be NULL. Errors: NOMEM. */
opd_err opd_sim_create(uint64_t seed, const opd_sim_options *options,
                       opd_sim **out_sim) OPD_MUST_CHECK;

/* Ends the world and the envs that are left; their systems must be gone. NULL is legal. */
void opd_sim_destroy(opd_sim *sim);

/* A new node. Its name (copied, at most 31 bytes) appears in texts and is its host on the
 * simulated network. Freed by opd_env_destroy or opd_sim_destroy. Errors: NOMEM. */
opd_err opd_sim_env(opd_sim *sim, const char *name, opd_env **out_env) OPD_MUST_CHECK;

/* Runs the world until `done(arg)` is true (asked between steps; may be NULL), every system
 * has stopped (there being at least one), or the clock reaches until_ns (OPD_SIM_FOREVER: no
 * such time). Systems that only exist, without opd_system_begin, take part as well.
 * Errors: INTERNAL, LIMIT, TIMEOUT as above. Not from inside of a callback. */
opd_err opd_sim_run(opd_sim *sim, uint64_t until_ns, bool (*done)(void *arg),
                    void *arg) OPD_MUST_CHECK;

/* The virtual clock; it begins at one second. */
uint64_t opd_sim_now_ns(const opd_sim *sim);

typedef struct opd_sim_stats {
    uint64_t steps;
    uint64_t faults[OPD_FAULT_COUNT]; /* fired */
    size_t live_bytes, live_bytes_max, live_blocks; /* through opd_sim_alloc */
    /* Over (time, node, actor) of every turn, in order: equal for equal runs. */
    uint64_t hash;
} opd_sim_stats;

opd_sim_stats opd_sim_stats_get(const opd_sim *sim);

/* An allocator whose failures are a fault site and whose blocks are counted. As long as sim. */
const opd_alloc *opd_sim_alloc(opd_sim *sim);

#ifdef __cplusplus
}
#endif
#endif
