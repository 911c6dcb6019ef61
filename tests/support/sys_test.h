/* sys_test.h - one real env and one system for an actor test, with leak accounting.
 *
 * Usage: opd_test_sys t; sys_up(&t, NULL); ... spawn ... CHECK_OK(opd_system_run(t.system));
 * sys_down(&t) checks that every pool is full, the loop closed and no block is live.
 */
#ifndef OPD_TESTS_SUPPORT_SYS_TEST_H
#define OPD_TESTS_SUPPORT_SYS_TEST_H

#include "opd/actor.h"
#include "tests/support/alloc_test.h"
#include "tests/support/test.h"

typedef struct opd_test_sys {
    opd_test_alloc memory;
    opd_env *env;
    opd_system *system;
} opd_test_sys;

static inline void sys_up(opd_test_sys *t, const opd_system_options *options) {
    opd_test_alloc_tracing(&t->memory);
    opd_system_options o = options == NULL ? (opd_system_options){0} : *options;
    o.alloc = &t->memory.alloc;
    CHECK_OK(opd_env_uv_create(&t->memory.alloc, &t->env));
    CHECK_OK(opd_system_create(&o, t->env, &t->system));
}

static inline void sys_down(opd_test_sys *t) {
    CHECK_INT(opd_system_stats_get(t->system).messages_in_use, 0);
    opd_system_destroy(t->system);
    CHECK_OK(opd_env_destroy(t->env));
    CHECK_INT(t->memory.live, 0);
}

#endif
