/* test_registry.c - names of actors: one living owner each, gone with the actor. */
#include "tests/support/sys_test.h"

static opd_err register_as(opd_ctx *ctx, void *state, const void *config) {
    (void)state;
    return opd_register(ctx, config);
}

static const opd_actor_class named_class = {.name = "named", .on_start = register_as};

static opd_pid spawn_named(opd_test_sys *t, const char *name) {
    opd_pid pid = OPD_PID_NOBODY;
    CHECK_OK(opd_spawn(t->system, &named_class, NULL, name, &pid));
    return pid;
}

TEST(a_name_finds_its_owner_and_nobody_else) {
    opd_test_sys t;
    sys_up(&t, NULL);
    opd_pid a = spawn_named(&t, "a"), b = spawn_named(&t, "b"), other;
    CHECK(opd_whereis(t.system, "a") == a && opd_whereis(t.system, "b") == b);
    CHECK(opd_whereis(t.system, "c") == OPD_PID_NOBODY);
    CHECK(opd_whereis(t.system, "") == OPD_PID_NOBODY);
    CHECK(opd_whereis(t.system, "named") == OPD_PID_NOBODY); /* the class's name is no entry */
    CHECK_ERR(opd_spawn(t.system, &named_class, NULL, "a", &other), OPD_ERR_EXISTS);
    CHECK_CONTAINS(opd_err_context(), "'a'");
    CHECK(opd_whereis(t.system, "a") == a);
    sys_down(&t);
}

TEST(a_name_has_1_to_31_bytes) {
    opd_test_sys t;
    sys_up(&t, NULL);
    opd_pid pid;
    CHECK_ERR(opd_spawn(t.system, &named_class, NULL, "", &pid), OPD_ERR_INVALID);
    CHECK_ERR(opd_spawn(t.system, &named_class, NULL, "12345678901234567890123456789012", &pid),
              OPD_ERR_INVALID);
    pid = spawn_named(&t, "1234567890123456789012345678901");
    CHECK(opd_whereis(t.system, "1234567890123456789012345678901") == pid);
    sys_down(&t);
}

/* Renames itself, ends, and a second one takes the name while the first is still known by pid. */
typedef struct renamer {
    opd_pid first;
    opd_monitor monitor;
    int downs;
} renamer;

static opd_err rename_start(opd_ctx *ctx, void *state, const void *config) {
    (void)state;
    CHECK_OK(opd_register(ctx, "old"));
    CHECK_OK(opd_register(ctx, "new"));
    CHECK_OK(opd_register(ctx, "new")); /* its own: fine */
    CHECK(opd_whereis(opd_self_system(ctx), "old") == OPD_PID_NOBODY);
    CHECK(opd_whereis(opd_self_system(ctx), "new") == opd_self(ctx));
    if (config != NULL) opd_exit(ctx, OPD_OK);
    return OPD_OK;
}

static const opd_actor_class renamed_class = {.name = "renamed", .on_start = rename_start};

static opd_err watch_start(opd_ctx *ctx, void *state, const void *config) {
    renamer *r = state;
    CHECK_OK(opd_spawn(opd_self_system(ctx), &renamed_class, NULL, config, &r->first));
    opd_monitor_start(ctx, &r->monitor, r->first);
    return OPD_OK;
}

static opd_err watch_signal(opd_ctx *ctx, void *state, const opd_signal *signal) {
    renamer *r = state;
    opd_system *system = opd_self_system(ctx);
    if (signal->kind != OPD_SIGNAL_DOWN) return OPD_OK;
    CHECK_INT(++r->downs, 1);
    CHECK(opd_whereis(system, "new") == OPD_PID_NOBODY);
    opd_pid second;
    CHECK_OK(opd_spawn(system, &renamed_class, NULL, NULL, &second));
    CHECK(second != r->first && opd_whereis(system, "new") == second);
    CHECK(!opd_alive(system, r->first)); /* the same place, another generation */
    opd_system_stop(system, OPD_OK);
    return OPD_OK;
}

static const opd_actor_class watch_class = {.name = "watch", .state_size = sizeof(renamer),
                                            .on_start = watch_start, .on_signal = watch_signal};

TEST(a_name_is_free_again_when_its_owner_ends) {
    opd_test_sys t;
    sys_up(&t, NULL);
    opd_pid pid;
    CHECK_OK(opd_spawn(t.system, &watch_class, NULL, &t, &pid));
    CHECK_OK(opd_system_run(t.system));
    sys_down(&t);
}
