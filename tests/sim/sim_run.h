/* sim_run.h - one seed of the pipeline's simulation: runs it to its end and judges it.
 *
 * The production pipeline (actors/pipeline.h) runs on a simulated node; a teacher over HTTP is
 * a second node with the real server. A seed is one stage that is run as often as it takes: a
 * run that is killed, interrupted or ended by a fault is followed by another that goes on from
 * the checkpoint, as a person would with --resume.
 *
 * Judged are: what was trained, against what must have been (every prompt once, in order); the
 * lag; the numbers; what the checkers of the runtime say of each run; memory and files left.
 * Thread: one. Nothing outlives a call.
 */
#ifndef OPD_TESTS_SIM_SIM_RUN_H
#define OPD_TESTS_SIM_SIM_RUN_H

#include "tests/sim/sim_case.h"

enum { SIM_REASON_SIZE = 1024 };

typedef struct sim_result {
    bool ok;
    char reason[SIM_REASON_SIZE]; /* what was wrong */
    uint64_t hash;                /* of everything that happened */
    uint64_t weights;             /* digest of the final weights */
    bool whole;                   /* every token had its score, and every batch its step */
    bool filtered, over_sampled;  /* what the seed's configuration had */
    uint32_t attempts;            /* runs that it took */
    uint64_t steps, faults;       /* of the world, over all runs */
    uint64_t virtual_ns;
    size_t bytes_max;             /* most memory of a run */
} sim_result;

/* Runs the seed; plain: undisturbed. */
sim_result sim_run(const sim_files *files, uint64_t seed, bool plain, bool verbose);

/* What the checkers of the run under way have found, or NULL: for the last words of a crash. */
const char *sim_run_violation(void);

#endif
