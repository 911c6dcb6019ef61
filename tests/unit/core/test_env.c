/* test_env.c - child processes, signals and the terminal on the real loop. */
#include <errno.h>
#include <signal.h>
#include <unistd.h>

#include "core/base/check.h"
#include "core/env/env.h"
#include "tests/support/sys_test.h"

typedef struct parent {
    opd_test_sys *t;
    opd_child_options options;
    opd_child *child;
    char out[4000];
    int lines, err_lines, exits, kill_with, term_signal;
    int64_t status;
    opd_err spawn_err;
    bool die;
    int pid;
} parent;

static parent *parent_of(void *state) { return *(parent **)state; }

static opd_err on_line(opd_ctx *ctx, void *state, opd_child *child, bool is_stderr,
                       const char *line) {
    parent *p = parent_of(state);
    size_t used = strlen(p->out);
    (void)ctx;
    CHECK(opd_child_arg(child) == p);
    (void)snprintf(p->out + used, sizeof p->out - used, "%s|", line);
    p->lines++;
    if (is_stderr) p->err_lines++;
    if (p->kill_with != 0) opd_child_kill(child, p->kill_with);
    if (p->die) return opd_fail(OPD_ERR_IO, "the parent dies");
    return OPD_OK;
}

static opd_err on_exit_child(opd_ctx *ctx, void *state, opd_child *child, int64_t exit_status,
                             int term_signal) {
    parent *p = parent_of(state);
    (void)child;
    p->exits++;
    p->status = exit_status;
    p->term_signal = term_signal;
    opd_exit(ctx, OPD_OK);
    return OPD_OK;
}

static opd_err parent_start(opd_ctx *ctx, void *state, const void *config) {
    parent *p = *(parent *const *)config;
    *(parent **)state = p;
    p->options.alloc = &p->t->memory.alloc;
    p->options.on_line = on_line;
    p->options.on_exit = on_exit_child;
    p->options.arg = p;
    p->spawn_err = opd_child_spawn(ctx, p->t->env, &p->options, &p->child);
    if (p->spawn_err != OPD_OK) {
        (void)snprintf(p->out, sizeof p->out, "%s", opd_err_context());
        opd_exit(ctx, OPD_OK);
        return OPD_OK;
    }
    p->pid = opd_child_pid(p->child);
    CHECK(p->pid > 0);
    return OPD_OK;
}

static const opd_actor_class parent_class = {.name = "parent", .state_size = sizeof(parent *),
                                             .on_start = parent_start};

static void run_parent(parent *p) {
    opd_test_sys t;
    opd_pid pid = 0;
    sys_up(&t, NULL);
    p->t = &t;
    CHECK_OK(opd_spawn(t.system, &parent_class, NULL, &p, &pid));
    CHECK_OK(opd_system_run(t.system));
    sys_down(&t);
}

TEST(child_lines_then_exit) {
    const char *argv[] = {"sh", "-c", "echo one; echo $OPD_X; printf end; exit 7", NULL};
    const char *env[] = {"OPD_X=two", NULL};
    parent p = {.options = {.argv = argv, .env_add = env}};
    run_parent(&p);
    CHECK_STR(p.out, "one|two|end|");
    CHECK_INT(p.exits, 1);
    CHECK_INT(p.status, 7);
    CHECK_INT(p.term_signal, 0);
}

TEST(child_stderr_is_told_apart_and_env_is_replaced) {
    const char *argv[] = {"sh", "-c", "echo \"$OPD_Y\" >&2", NULL};
    const char *env[] = {"OPD_Y=new", NULL};
    CHECK_INT(setenv("OPD_Y", "old", 1), 0);
    parent p = {.options = {.argv = argv, .env_add = env}};
    run_parent(&p);
    CHECK_STR(p.out, "new|");
    CHECK_INT(p.err_lines, 1);
}

TEST(child_long_lines_are_cut_and_none_is_lost) {
    const char *argv[] = {"sh", "-c", "printf 0123456789abc; echo; i=0; while [ $i -lt 200 ]; "
                          "do echo $i; i=$((i+1)); done", NULL};
    parent p = {.options = {.argv = argv, .line_max = 10}};
    run_parent(&p);
    CHECK_INT(strncmp(p.out, "0123456789|abc|0|1|2|", 21), 0);
    CHECK_CONTAINS(p.out, "|198|199|");
    CHECK_INT(p.lines, 202);
}

TEST(child_can_be_killed) {
    const char *argv[] = {"sh", "-c", "echo up; exec sleep 100", NULL};
    parent p = {.options = {.argv = argv}, .kill_with = SIGTERM};
    run_parent(&p);
    CHECK_INT(p.term_signal, SIGTERM);
    CHECK_INT(p.exits, 1);
}

TEST(child_dies_with_its_actor) {
    const char *argv[] = {"sh", "-c", "echo up; exec sleep 100", NULL};
    parent p = {.options = {.argv = argv}, .die = true};
    run_parent(&p);
    CHECK_INT(p.exits, 0);
    CHECK_INT(kill(p.pid, 0), -1);
    CHECK_INT(errno, ESRCH); /* not even a zombie */
}

TEST(child_that_does_not_exist_is_named) {
    const char *argv[] = {"/nonexistent/program", NULL};
    parent p = {.options = {.argv = argv}};
    run_parent(&p);
    CHECK_INT(p.spawn_err, OPD_ERR_NOT_FOUND);
    CHECK_CONTAINS(p.out, "/nonexistent/program");
}

typedef struct signal_log {
    opd_env *env;
    int polite, forced;
} signal_log;

static void on_stop_signal(void *arg, int signal_number, bool forced) {
    signal_log *log = arg;
    if (forced)
        log->forced = signal_number;
    else
        log->polite = signal_number;
    if (forced)
        opd_env_stop(log->env);
    else
        CHECK_INT(raise(SIGINT), 0);
}

TEST(second_signal_is_forced) {
    opd_test_alloc memory;
    opd_test_alloc_tracing(&memory);
    signal_log log = {0};
    opd_signals *signals = NULL;
    CHECK_OK(opd_env_uv_create(&memory.alloc, &log.env));
    CHECK_OK(opd_signals_open(log.env, &memory.alloc, on_stop_signal, &log, &signals));
    CHECK_INT(raise(SIGTERM), 0);
    CHECK_OK(opd_env_run(log.env));
    CHECK_INT(log.polite, SIGTERM);
    CHECK_INT(log.forced, SIGINT);
    CHECK_ERR(opd_env_destroy(log.env), OPD_ERR_INTERNAL); /* signals are still open */
    CHECK_CONTAINS(opd_err_context(), "signal");
    opd_signals_close(signals);
    opd_signals_close(NULL);
    CHECK_OK(opd_env_destroy(log.env));
    CHECK_INT(memory.live, 0);
}

TEST(a_pipe_is_no_terminal) {
    int fds[2];
    CHECK_INT(pipe(fds), 0);
    CHECK(!opd_tty_is(fds[0]));
    CHECK_INT(opd_tty_width(fds[0]), 80);
    (void)close(fds[0]);
    (void)close(fds[1]);
}
