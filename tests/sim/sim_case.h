/* sim_case.h - what a seed of the pipeline's simulation means: a configuration and its troubles.
 *
 * The files that every seed shares (problems, a teacher's folder) are written once per process
 * into a folder of their own, in memory where the machine has /dev/shm; each seed has its own
 * checkpoints and metrics there, removed before the next.
 *
 * Thread: one. sim_files_close removes the folder; sim_case_close frees the configuration.
 */
#ifndef OPD_TESTS_SIM_SIM_CASE_H
#define OPD_TESTS_SIM_SIM_CASE_H

#include "opd/config.h"
#include "opd/sim.h"

enum { SIM_PATH_SIZE = 256, SIM_ATTEMPTS_MAX = 8, SIM_TEACHER_PORT = 8000, SIM_REPLICAS_MAX = 3 };

typedef struct sim_files {
    char dir[SIM_PATH_SIZE];
    char problems[SIM_PATH_SIZE], held_out[SIM_PATH_SIZE], teacher[SIM_PATH_SIZE];
    char checkpoints[SIM_PATH_SIZE], metrics[SIM_PATH_SIZE];
} sim_files;

/* Writes the shared files. Stops the program where that fails. */
void sim_files_open(sim_files *files);
void sim_files_close(const sim_files *files);

/* Removes what a seed left behind. */
void sim_files_clear(const sim_files *files);

/* How a run of the stage (a process, in earnest) ends, if it does not end by itself. */
typedef enum sim_end { SIM_END_NONE, SIM_END_INTERRUPT, SIM_END_KILL } sim_end;

typedef struct sim_case {
    uint64_t seed;
    opd_config *config;
    const opd_config_stage *stage;
    bool http;                 /* the teacher is a node of its own */
    opd_sim_options sim;       /* faults of the first runs; the last one has none */
    sim_end end[SIM_ATTEMPTS_MAX]; /* of each run */
    uint64_t end_ns[SIM_ATTEMPTS_MAX];
    uint32_t replicas;         /* nodes that serve it: sim_host(0) ...; 1 at least */
    bool pair;                 /* they are two teachers, not one                          */
    bool filter;               /* groups whose rewards are all the same are replaced ... */
    uint32_t filter_max;       /* so many of a batch                              */
    uint32_t spare;            /* prompts in work beyond a batch: over-sampling    */
    uint32_t chunk_tokens;     /* scored at a time while a sample is written; 0: none     */
    int slow;                  /* the replica that is cut off most of the time; -1: none */
    uint32_t server_returns;   /* times that a server's node goes and comes back, in all */
    uint64_t server_away_ns;   /* for so long */
} sim_case;

/* Name of the host of a replica. */
const char *sim_host(uint32_t replica);

/* The case of a seed; `plain`: the same configuration, undisturbed. Stops the program where the
 * configuration is refused. */
void sim_case_open(sim_case *c, const sim_files *files, uint64_t seed, bool plain);
void sim_case_close(sim_case *c);

/* Prints an error to stderr and stops the program: for mistakes of the harness itself. */
_Noreturn void sim_die(const char *what, opd_err err);

#endif
