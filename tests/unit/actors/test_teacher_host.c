/* test_teacher_host.c - the host of a launched `opd serve`: with a stand-in for the program that
 * says what the real one says, and dies when told to. */
#include "actors/teacher/teacher_host.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/check.h"
#include "tests/support/sys_test.h"

enum { URL_SIZE = 256 };

typedef struct listener {
    opd_slot *endpoint;
    opd_slot_watch watch;
    int ready, gone, stop_after;
    char last_url[URL_SIZE];
} listener;

static opd_err listener_moved(opd_ctx *ctx, void *state, opd_slot_watch *watch) {
    listener *l = *(listener **)state;
    opd_buf *buf;
    (void)opd_slot_get(watch->slot, &buf);
    const char *url = opd_buf_data(buf);
    CHECK(memchr(url, '\0', opd_buf_size(buf)) != NULL);
    if (url[0] == '\0') l->gone++;
    else (void)snprintf(l->last_url, sizeof l->last_url, "%s", url);
    if (url[0] != '\0' && ++l->ready == l->stop_after)
        opd_system_stop(opd_self_system(ctx), OPD_OK);
    opd_buf_release(buf);
    return OPD_OK;
}

static opd_err listener_start(opd_ctx *ctx, void *state, const void *config) {
    listener *l = *(listener *const *)config;
    *(listener **)state = l;
    opd_slot_watch_start(ctx, l->endpoint, &l->watch, listener_moved);
    return OPD_OK;
}

static const opd_actor_class listener_class = {
    .name = "listener", .state_size = sizeof(listener *), .on_start = listener_start};

typedef struct stage {
    opd_test_sys t;
    opd_roles roles;
    listener heard;
    char program[256];
} stage;

/* A shell script in place of the opd command. */
static void stage_up(stage *s, const char *script, int stop_after) {
    memset(s, 0, sizeof *s);
    listener *heard = &s->heard;
    heard->stop_after = stop_after;
    sys_up(&s->t, NULL);
    (void)snprintf(s->program, sizeof s->program, "%s/fake_opd_%d.sh", OPD_BINARY_DIR, getpid());
    FILE *file = fopen(s->program, "w");
    CHECK(file != NULL);
    CHECK(fputs(script, file) >= 0);
    CHECK(fclose(file) == 0);
    CHECK(chmod(s->program, 0755) == 0);
    CHECK_OK(opd_slot_create(s->t.system, &heard->endpoint));
    CHECK_OK(opd_spawn(s->t.system, &listener_class, NULL, &heard, &s->roles.teacher));
    opd_teacher_host_config config = {.roles = &s->roles, .env = s->t.env, .program = s->program,
                                      .name = "tutor", .model = "some/model",
                                      .endpoint = heard->endpoint, .alloc = &s->t.memory.alloc};
    CHECK_OK(opd_spawn(s->t.system, &opd_teacher_host_class, NULL, &config,
                       &s->roles.teacher_hosts[0]));
}

static void stage_down(stage *s) {
    (void)unlink(s->program);
    opd_slot_destroy(s->heard.endpoint);
    sys_down(&s->t);
}

TEST(the_ready_line_is_told) {
    static stage s;
    stage_up(&s, "#!/bin/sh\necho noise\necho opd serve: ready on http://127.0.0.1:1234\n"
                 "exec sleep 100\n", 1);
    CHECK_OK(opd_system_run(s.t.system));
    CHECK_STR(s.heard.last_url, "http://127.0.0.1:1234");
    CHECK_INT(s.heard.gone, 1); /* before the first one listens */
    stage_down(&s);
}

TEST(the_arguments_are_those_of_serve) {
    static stage s;
    stage_up(&s, "#!/bin/sh\n"
                 "[ \"$*\" = \"serve --model some/model --port 0 --threads 1 --prefix-cache-mb 0"
                 " --exit-with-parent\" ]"
                 " && echo opd serve: ready on http://127.0.0.1:1\nexec sleep 100\n", 1);
    CHECK_OK(opd_system_run(s.t.system));
    CHECK_INT(s.heard.ready, 1);
    stage_down(&s);
}

TEST(a_child_that_dies_is_started_again) {
    static stage s;
    stage_up(&s, "#!/bin/sh\necho opd serve: ready on http://127.0.0.1:$$\nsleep 0.05\nkill -9 $$\n",
             3);
    uint64_t began = opd_env_now_ns(s.t.env);
    CHECK_OK(opd_system_run(s.t.system));
    CHECK_INT(s.heard.ready, 3);
    CHECK_INT(s.heard.gone, 3); /* told before each */
    CHECK((opd_env_now_ns(s.t.env) - began) / 1000000 >= 400); /* two pauses of 0.2 s */
    stage_down(&s);
}

TEST(a_child_that_cannot_start_stops_the_run) {
    static stage s;
    stage_up(&s, "#!/bin/sh\necho opd: some/model: config.json: not found >&2\nexit 3\n", 1);
    CHECK_ERR(opd_system_run(s.t.system), OPD_ERR_REMOTE);
    CHECK_CONTAINS(opd_err_context(), "config.json: not found");
    CHECK_CONTAINS(opd_err_context(), "exit status 3");
    CHECK_INT(s.heard.ready, 0);
    stage_down(&s);
}

TEST(a_child_that_ignores_sigterm_is_killed) {
    static stage s;
    stage_up(&s, "#!/bin/sh\ntrap '' TERM\necho opd serve: ready on http://127.0.0.1:1\n"
                 "while :; do sleep 0.1; done\n", 1);
    uint64_t began = opd_env_now_ns(s.t.env);
    CHECK_OK(opd_system_run(s.t.system));
    CHECK((opd_env_now_ns(s.t.env) - began) / 1000000000 < 5);
    stage_down(&s);
}
