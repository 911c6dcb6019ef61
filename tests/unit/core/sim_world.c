/* sim_world.c - see sim_world.h. */
#include "tests/unit/core/sim_world.h"

void world_up(world *w, uint64_t seed, const opd_sim_options *options, int count) {
    static const char *const names[] = {"a", "b", "c"};
    opd_sim_options o = options == NULL ? (opd_sim_options){0} : *options;
    *w = (world){.sim = NULL};
    opd_test_alloc_tracing(&w->memory);
    o.alloc = &w->memory.alloc;
    CHECK_OK(opd_sim_create(seed, &o, &w->sim));
    opd_system_options so = {.alloc = opd_sim_alloc(w->sim), .messages_max = 64};
    for (int i = 0; i < count; i++) {
        CHECK_OK(opd_sim_env(w->sim, names[i], &w->nodes[i].env));
        CHECK_OK(opd_system_create(&so, w->nodes[i].env, &w->nodes[i].system));
    }
}

void world_down(world *w) {
    for (int i = 0; i < 3 && w->nodes[i].env != NULL; i++) {
        CHECK_INT(opd_system_stats_get(w->nodes[i].system).messages_in_use, 0);
        opd_system_destroy(w->nodes[i].system);
        CHECK_OK(opd_env_destroy(w->nodes[i].env));
    }
    CHECK_INT(opd_sim_stats_get(w->sim).live_blocks, 0);
    CHECK_INT(opd_sim_stats_get(w->sim).live_bytes, 0);
    opd_sim_destroy(w->sim);
    CHECK_INT(w->memory.live, 0);
}
