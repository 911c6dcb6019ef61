/* supervisor_rig.h - a world of children that do as a script says, and a diary of what happened.
 *
 * A child "a" writes "+a" when it starts, "!a" when it is told to stop, "-a" when it is freed,
 * "x" for a start that failed. The driver, an actor outside of the tree, runs the script: at a
 * time (virtual, so waiting is free) it finds a child by its registered name and has it do
 * something. A step without a name stops the system.
 */
#ifndef OPD_TESTS_UNIT_CORE_SUPERVISOR_RIG_H
#define OPD_TESTS_UNIT_CORE_SUPERVISOR_RIG_H

#include "core/base/check.h"
#include "opd/sim.h"
#include "opd/supervisor.h"
#include "tests/support/sys_test.h"

enum { DO_FAIL = 1, DO_END, DO_USAGE, DO_FATAL, DO_STOP };

static const uint64_t MS = 1000000;

typedef struct step {
    uint64_t at_ms;
    const char *name;
    uint16_t what;
} step;

typedef struct rig {
    opd_test_sys t;
    opd_sim *sim;
    const step *script;
    size_t steps;
    char diary[512];
    uint64_t delays_ms[32]; /* of the reports */
    size_t reports;
    opd_restart_report last; /* its texts point below */
    char last_text[OPD_ERROR_TEXT_SIZE], last_child[32];
} rig;

static rig *world; /* of the running case */

static inline void note(const char *what, const char *name) {
    size_t used = strlen(world->diary);
    (void)snprintf(world->diary + used, sizeof world->diary - used, "%s%s ", what, name);
}

/* ---- children ---- */

typedef struct child_plan {
    const char *name;
    opd_err bad_start;      /* what the first start fails with */
    int bad_restarts;       /* so many restarts fail with IO */
    uint64_t stop_ms;       /* takes so long to stop */
    opd_lane *lane;         /* has a job there all the time */
    int starts;
    opd_pid pid;            /* of the newest */
} child_plan;

typedef struct child_state {
    child_plan *plan;
    opd_timer timer;
    opd_job job;
} child_state;

static opd_err plan_job_run(opd_job *job) {
    (void)job;
    return OPD_OK;
}

static opd_err plan_job_done(opd_ctx *ctx, void *state, opd_job *job) {
    child_state *c = state;
    *job = (opd_job){.run = plan_job_run, .done = plan_job_done};
    return opd_job_submit(ctx, c->plan->lane, job);
}

static opd_err plan_start(opd_ctx *ctx, void *state, const void *config) {
    child_state *c = state;
    c->plan = *(child_plan *const *)config;
    c->plan->starts++;
    opd_err err = c->plan->bad_start;
    if (c->plan->starts > 1) err = c->plan->starts - 1 <= c->plan->bad_restarts ? OPD_ERR_IO : OPD_OK;
    if (err != OPD_OK) return opd_fail(err, "%s cannot start", c->plan->name);
    note("+", c->plan->name);
    c->plan->pid = opd_self(ctx);
    return c->plan->lane == NULL ? OPD_OK : plan_job_done(ctx, c, &c->job);
}

static opd_err plan_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    const char *name = ((child_state *)state)->plan->name;
    switch (opd_msg_kind(msg)) {
    case DO_FAIL: return opd_fail(OPD_ERR_IO, "%s broke", name);
    case DO_USAGE: return opd_fail(OPD_ERR_MISMATCH, "%s has other ids", name);
    case DO_FATAL: return opd_fail(OPD_ERR_TEACHER_LOST, "%s is lost", name);
    case DO_END: opd_exit(ctx, OPD_OK); return OPD_OK;
    default: opd_stop(opd_self_system(ctx), opd_self(ctx)); return OPD_OK;
    }
}

static opd_err plan_late(opd_ctx *ctx, void *state, opd_timer *timer) {
    (void)state;
    (void)timer;
    opd_exit(ctx, OPD_OK);
    return OPD_OK;
}

static opd_err plan_signal(opd_ctx *ctx, void *state, const opd_signal *signal) {
    child_state *c = state;
    if (signal->kind != OPD_SIGNAL_STOP) return OPD_OK;
    note("!", c->plan->name);
    if (c->plan->stop_ms == 0) return OPD_OK;
    opd_stop_defer(ctx);
    opd_timer_init(&c->timer, ctx, plan_late);
    return opd_timer_start_after(&c->timer, c->plan->stop_ms * MS);
}

static void plan_stop(opd_ctx *ctx, void *state) {
    const child_plan *plan = ((child_state *)state)->plan;
    (void)ctx;
    note(plan->pid == opd_self(ctx) ? "-" : "x", plan->name);
}

static const opd_actor_class plan_class = {
    .name = "planned", .state_size = sizeof(child_state), .on_start = plan_start,
    .on_message = plan_message, .on_signal = plan_signal, .on_stop = plan_stop};

static inline opd_err start_planned(opd_system *system, void *arg, opd_pid *out_pid) {
    child_plan *plan = arg;
    return opd_spawn(system, &plan_class, plan->name, &plan, out_pid);
}

static inline opd_err start_tree(opd_system *system, void *arg, opd_pid *out_pid) {
    return opd_supervisor_start(system, arg, out_pid);
}

/* A permanent child by its plan, whose pauses are 1 ms. */
static inline opd_child_spec planned(child_plan *plan) {
    return (opd_child_spec){.id = plan->name, .start = start_planned, .arg = plan,
                            .backoff = {.base_ms = 1, .max_ms = 1}};
}

static inline opd_child_spec subtree(const char *id, opd_supervisor_options *o) {
    return (opd_child_spec){.id = id, .start = start_tree, .arg = o,
                            .backoff = {.base_ms = 1, .max_ms = 1}};
}

static inline void told(opd_ctx *ctx, void *arg, const opd_restart_report *report) {
    rig *r = arg;
    CHECK_STR(report->supervisor, opd_self_name(ctx));
    CHECK(r->reports < OPD_COUNTOF(r->delays_ms));
    r->delays_ms[r->reports++] = report->delay_ms;
    r->last = *report;
    (void)snprintf(r->last_text, sizeof r->last_text, "%s", report->text);
    (void)snprintf(r->last_child, sizeof r->last_child, "%s", report->child);
}

/* ---- the driver ---- */

typedef struct driver {
    opd_timer timer;
    size_t next;
    uint64_t began_ns;
} driver;

static opd_err drive(opd_ctx *ctx, void *state, opd_timer *timer) {
    driver *d = state;
    opd_system *system = opd_self_system(ctx);
    const step *s = &world->script[d->next++];
    opd_msg *msg;
    if (s->name == NULL) {
        opd_system_stop(system, OPD_OK);
    } else {
        CHECK_OK(opd_msg_create(system, s->what, &msg));
        CHECK_OK(opd_send(ctx, opd_whereis(system, s->name), msg));
    }
    if (d->next == world->steps) return OPD_OK;
    return opd_timer_start(timer, d->began_ns + world->script[d->next].at_ms * MS);
}

static opd_err driver_start(opd_ctx *ctx, void *state, const void *config) {
    driver *d = state;
    (void)config;
    d->began_ns = opd_now_ns(ctx);
    opd_timer_init(&d->timer, ctx, drive);
    return opd_timer_start_after(&d->timer, world->script[0].at_ms * MS);
}

static const opd_actor_class driver_class = {.name = "driver", .state_size = sizeof(driver),
                                             .on_start = driver_start};

/* ---- the world ---- */

static inline void rig_up(rig *r, uint64_t seed) {
    world = memset(r, 0, sizeof *r);
    opd_test_alloc_tracing(&r->t.memory);
    opd_sim_options o = {.alloc = &r->t.memory.alloc};
    CHECK_OK(opd_sim_create(seed, &o, &r->sim));
    CHECK_OK(opd_sim_env(r->sim, "a", &r->t.env));
    opd_system_options so = {.alloc = &r->t.memory.alloc, .messages_max = 64, .actors_max = 32};
    CHECK_OK(opd_system_create(&so, r->t.env, &r->t.system));
}

static inline void rig_down(rig *r) {
    CHECK_INT(opd_system_stats_get(r->t.system).messages_in_use, 0);
    opd_system_destroy(r->t.system);
    CHECK_OK(opd_env_destroy(r->t.env));
    opd_sim_destroy(r->sim);
    CHECK_INT(r->t.memory.live, 0);
}

/* Starts the tree, has the script played, returns what the system ended with. */
static inline opd_err rig_play(rig *r, opd_supervisor_options *o, const step *script, size_t steps) {
    opd_pid driver_pid, top;
    r->script = script;
    r->steps = steps;
    o->told = told;
    o->arg = r;
    CHECK_OK(opd_spawn(r->t.system, &driver_class, NULL, NULL, &driver_pid));
    CHECK_OK(opd_supervisor_start(r->t.system, o, &top));
    return opd_system_run(r->t.system);
}

#define PLAY(r, o, ...)                                                        \
    rig_play((r), (o), (const step[]){__VA_ARGS__},                            \
             sizeof((const step[]){__VA_ARGS__}) / sizeof(step))

#endif
