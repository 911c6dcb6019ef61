/* sim_world.h - a simulated world of some nodes, each with a system whose memory is the world's. */
#ifndef OPD_TESTS_UNIT_CORE_SIM_WORLD_H
#define OPD_TESTS_UNIT_CORE_SIM_WORLD_H

#include "core/env/env.h"
#include "opd/sim.h"
#include "tests/support/script_actor.h"

typedef struct world {
    opd_test_alloc memory;
    opd_sim *sim;
    opd_test_sys nodes[3];
} world;

/* A world of `count` nodes named a, b, c; options may be NULL. */
void world_up(world *w, uint64_t seed, const opd_sim_options *options, int count);

/* Fails the test if anything is left. */
void world_down(world *w);

#endif
