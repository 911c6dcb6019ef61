/* sys_test.h - one env and one system for an actor test, with leak accounting.
 *
 * The env is a real one, or with OPD_TEST_SIM_SEED in the environment a simulated one: the same
 * test then runs in virtual time and in a seeded order.
 *
 * Usage: opd_test_sys t; sys_up(&t, NULL); ... spawn ... CHECK_OK(opd_system_run(t.system));
 * sys_down(&t) checks that every pool is full, the loop closed and no block is live.
 */
#ifndef OPD_TESTS_SUPPORT_SYS_TEST_H
#define OPD_TESTS_SUPPORT_SYS_TEST_H

#include "opd/actor.h"
#include "opd/sim.h"
#include "tests/support/alloc_test.h"
#include "tests/support/test.h"

typedef struct opd_test_sys {
    opd_test_alloc memory;
    opd_env *env;
    opd_system *system;
    opd_sim *sim; /* NULL: a real env */
} opd_test_sys;

static inline void sys_up(opd_test_sys *t, const opd_system_options *options) {
    opd_test_alloc_tracing(&t->memory);
    opd_system_options o = options == NULL ? (opd_system_options){0} : *options;
    o.alloc = &t->memory.alloc;
    const char *seed = getenv("OPD_TEST_SIM_SEED");
    opd_sim_options so = {.alloc = &t->memory.alloc};
    t->sim = NULL;
    if (seed != NULL) {
        CHECK_OK(opd_sim_create(strtoull(seed, NULL, 10), &so, &t->sim));
        CHECK_OK(opd_sim_env(t->sim, "test", &t->env));
    } else {
        CHECK_OK(opd_env_uv_create(&t->memory.alloc, &t->env));
    }
    CHECK_OK(opd_system_create(&o, t->env, &t->system));
}

/* For a test that destroyed the system itself. */
static inline void sys_env_down(opd_test_sys *t) {
    CHECK_OK(opd_env_destroy(t->env));
    opd_sim_destroy(t->sim);
    CHECK_INT(t->memory.live, 0);
}

static inline void sys_down(opd_test_sys *t) {
    CHECK_INT(opd_system_stats_get(t->system).messages_in_use, 0);
    opd_system_destroy(t->system);
    sys_env_down(t);
}

#endif
