/* script_actor.h - an actor whose callbacks are functions of the test, and what the log said.
 *
 * Usage: opd_script s = {.message = f, .arg = &x}; pid = script_spawn(&t, "name", &s);
 * The script is copied into the actor's state. Thread: the test's.
 */
#ifndef OPD_TESTS_SUPPORT_SCRIPT_ACTOR_H
#define OPD_TESTS_SUPPORT_SCRIPT_ACTOR_H

#include "opd/actor.h"
#include "opd/log.h"
#include "tests/support/sys_test.h"

typedef struct opd_script {
    opd_err (*start)(opd_ctx *ctx, void *arg);
    opd_err (*message)(opd_ctx *ctx, void *arg, opd_msg *msg);
    opd_err (*signal)(opd_ctx *ctx, void *arg, const opd_signal *signal);
    void (*stop)(opd_ctx *ctx, void *arg);
    void *arg;
} opd_script;

static inline opd_err script_on_start(opd_ctx *ctx, void *state, const void *config) {
    opd_script *s = state;
    *s = *(const opd_script *)config;
    return s->start == NULL ? OPD_OK : s->start(ctx, s->arg);
}

static inline opd_err script_on_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    opd_script *s = state;
    return s->message == NULL ? OPD_OK : s->message(ctx, s->arg, msg);
}

static inline opd_err script_on_signal(opd_ctx *ctx, void *state, const opd_signal *signal) {
    opd_script *s = state;
    return s->signal == NULL ? OPD_OK : s->signal(ctx, s->arg, signal);
}

static inline void script_on_stop(opd_ctx *ctx, void *state) {
    opd_script *s = state;
    if (s->stop != NULL) s->stop(ctx, s->arg);
}

/* The callbacks of a class made of scripts; the test adds name and bounds. */
#define SCRIPT_CALLBACKS                                                                        \
    .state_size = sizeof(opd_script), .on_start = script_on_start,                              \
    .on_message = script_on_message, .on_signal = script_on_signal, .on_stop = script_on_stop

static inline opd_pid script_spawn_as(opd_test_sys *t, const opd_actor_class *actor_class,
                                      const char *name, opd_script s) {
    opd_pid pid = 0;
    CHECK_OK(opd_spawn(t->system, actor_class, name, &s, &pid));
    return pid;
}

static inline opd_pid script_spawn(opd_test_sys *t, const char *name, opd_script s) {
    static const opd_actor_class plain = {.name = "script", SCRIPT_CALLBACKS};
    return script_spawn_as(t, &plain, name, s);
}

/* A message with a body of size_bytes zeros. */
static inline opd_msg *script_msg(opd_system *system, uint16_t kind, size_t size_bytes) {
    opd_msg *msg = NULL;
    char bytes[OPD_MSG_BODY_MAX] = {0};
    CHECK_OK(opd_msg_create(system, kind, &msg));
    CHECK_OK(opd_msg_body_set(msg, bytes, size_bytes));
    return msg;
}

/* ---- what the log said ----------------------------------------------------------------- */

typedef struct opd_log_memory {
    char text[8192]; /* lines, cut when full */
    unsigned lines;
} opd_log_memory;

static inline void log_memory_sink(void *arg, opd_log_level level, const char *text) {
    opd_log_memory *m = arg;
    size_t used = strlen(m->text);
    (void)snprintf(m->text + used, sizeof m->text - used, "%s: %s\n", opd_log_level_name(level),
                   text);
    m->lines++;
}

/* From here on lines go to memory; opd_log_sink_set(NULL, NULL) ends it. */
static inline void log_memory_start(opd_log_memory *memory) {
    *memory = (opd_log_memory){.lines = 0};
    opd_log_sink_set(log_memory_sink, memory);
}

#endif
