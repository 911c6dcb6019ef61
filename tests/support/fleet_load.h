/* fleet_load.h - the load of a teacher with several stub servers, and what becomes of it.
 *
 * Samples are offered in an open loop at moments drawn beforehand (Poisson), whatever becomes of the
 * earlier ones. The latency of a sample is from the moment at which it was due to its delivery, so
 * waiting for the teacher's window counts. The teacher is the real one, with the defaults of its
 * configuration. Every valid score is compared with the stub's formula: a wrong one, or a sample
 * delivered twice, stops the system with MISMATCH.
 *
 * Usage: fill in the options; fleet_load_start; run the system, which stops when the last sample
 * came back; read the results; fleet_load_free. Thread: the loop.
 */
#ifndef OPD_TESTS_SUPPORT_FLEET_LOAD_H
#define OPD_TESTS_SUPPORT_FLEET_LOAD_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "actors/roles.h"
#include "opd/config.h"

enum { FLEET_LOAD_SERVERS = 3 };

typedef struct fleet_load {
    /* options */
    double seconds, rate; /* samples a second */
    uint64_t seed;
    double tell_ms;       /* slower samples and all notes are told on stderr; 0: nothing is */
    const opd_alloc *alloc;
    opd_env *env;
    uint16_t ports[FLEET_LOAD_SERVERS]; /* of stub servers on 127.0.0.1 */
    /* the samples, by group */
    uint64_t count;
    double *due_ms, *latency_ms;
    uint8_t *times; /* delivered */
    uint64_t began_ns;
    /* what became of them */
    uint64_t offered, delivered, masked, tokens, valid_tokens, attempts, hedges, moves;
    /* internal */
    opd_roles roles;
    opd_config *config;
} fleet_load;

/* Spawns the teacher and everything around it. Errors: those of opd_spawn, NOMEM. */
OPD_MUST_CHECK opd_err fleet_load_start(fleet_load *load, opd_system *system);

/* The share of the samples that were delivered exactly once. */
double fleet_load_accounted(const fleet_load *load);

/* The share of the tokens that have a score. */
double fleet_load_valid_share(const fleet_load *load);

/* Nearest rank of the latencies, which it sorts. */
double fleet_load_quantile_ms(fleet_load *load, double q);

void fleet_load_free(fleet_load *load);

#endif
