/* test_registry.c - who is found: names of actors have one living owner each and are gone with it;
 * pids of other nodes find nobody. */
#include "tests/support/script_actor.h"

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

/* ---- pids of other nodes --------------------------------------------------------------- */

/* Somebody else's pid: all but its node is that of a living actor. */
typedef struct stranger {
    opd_pid pid;
    opd_monitor monitor;
    bool down, answered, visited;
} stranger;

static void leave_if_done(opd_ctx *ctx, const stranger *s) {
    if (s->down && s->answered) opd_system_stop(opd_self_system(ctx), OPD_OK);
}

static opd_err no_answer(opd_ctx *ctx, void *state, void *arg, opd_err err, opd_msg *reply) {
    stranger *s = arg;
    (void)state;
    CHECK(err == OPD_ERR_CLOSED && reply == NULL);
    s->answered = true;
    leave_if_done(ctx, s);
    return OPD_OK;
}

static opd_err seek(opd_ctx *ctx, void *arg) {
    stranger *s = arg;
    opd_system *system = opd_self_system(ctx);
    opd_link *link = NULL;
    opd_actor_stats stats;
    opd_msg *msg = script_msg(system, 1, 0);
    CHECK(!opd_alive(system, s->pid));
    CHECK_ERR(opd_send(ctx, s->pid, msg), OPD_ERR_CLOSED);
    CHECK_ERR(opd_post(system, s->pid, msg), OPD_ERR_CLOSED);
    CHECK_ERR(opd_link_open(ctx, s->pid, 1, 1, &link), OPD_ERR_CLOSED);
    CHECK_ERR(opd_actor_stats_get(system, s->pid, &stats), OPD_ERR_CLOSED);
    CHECK_OK(opd_request(ctx, s->pid, msg, OPD_NO_DEADLINE, no_answer, s, NULL));
    opd_stop(system, s->pid);
    opd_stop_within(system, s->pid, 1);
    opd_monitor_start(ctx, &s->monitor, s->pid);
    return OPD_OK;
}

static opd_err stranger_down(opd_ctx *ctx, void *arg, const opd_signal *signal) {
    stranger *s = arg;
    if (signal->kind != OPD_SIGNAL_DOWN) return OPD_OK;
    CHECK(signal->pid == s->pid && signal->reason == OPD_ERR_CLOSED);
    s->down = true;
    leave_if_done(ctx, s);
    return OPD_OK;
}

static opd_err visited(opd_ctx *ctx, void *arg, opd_msg *msg) {
    (void)ctx;
    (void)msg;
    ((stranger *)arg)->visited = true;
    return OPD_OK;
}

TEST(a_pid_of_another_node_is_closed) {
    opd_test_sys t;
    sys_up(&t, NULL);
    stranger s = {.down = false};
    opd_pid here = script_spawn(&t, "here", (opd_script){.message = visited, .arg = &s});
    s.pid = here | (opd_pid)1 << 48;
    (void)script_spawn(&t, "seeker", (opd_script){.start = seek, .signal = stranger_down,
                                                  .arg = &s});
    CHECK_OK(opd_system_run(t.system));
    CHECK(s.down && s.answered && !s.visited);
    sys_down(&t);
}
