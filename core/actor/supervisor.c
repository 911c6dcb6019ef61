/* supervisor.c - starts, watches, restarts and stops children (opd/supervisor.h).
 *
 * Children are dealt with in groups, ranges of the table that are restarted together: one group
 * for each child (one_for_one), or one for all of them, whose lower end is where the restart
 * begins (rest_for_one, one_for_all). A group:
 *
 *   UP --a child failed--> STOPPING --all of the range gone--> WAITING --pause over--> UP
 *                             ^                                                        |
 *                             +---------------- a start failed -----------------------+
 *
 * `leaving` overrides all groups: every child is stopped, last first, then the supervisor exits
 * with `reason`.
 *
 * Invariants:
 *  1. A child is there from the creation of its actor until the supervisor has heard that it was
 *     freed, which comes after its DOWN and its last job; no new one is started before.
 *  2. At most one child of a range is being stopped at a time, so the order is strict.
 *  3. While the system stops, nothing is started and no failure counts: STOP is coming.
 *  4. A supervisor that ends by force takes its children with it (cleanup).
 *
 * Thread: the loop's. The actor's state owns the arrays; specs are the user's.
 */
#include <stdio.h>
#include <string.h>

#include "core/actor/line.h"
#include "opd/log.h"
#include "opd/supervisor.h"

enum { RESTARTS = 3, PERIOD_MS = 30000, BACKOFF_BASE_MS = 100, BACKOFF_MAX_MS = 5000 };

static const uint64_t MS = 1000000;

/* Any number of milliseconds, for which UINT64_MAX ns is as good as for ever. */
static uint64_t ns_of(uint64_t ms) { return ms > UINT64_MAX / MS ? UINT64_MAX : ms * MS; }

typedef struct supervisor supervisor;

typedef enum group_phase { GROUP_UP, GROUP_STOPPING, GROUP_WAITING } group_phase;

typedef struct group {
    size_t lo, hi; /* children [lo, hi) */
    group_phase phase;
    uint64_t delay_ns;
    opd_timer timer;
} group;

typedef struct child {
    const opd_child_spec *spec;
    opd__keeper keeper;
    opd_monitor monitor;
    group *group;
    uint64_t up_ns;      /* when its last start began */
    uint64_t starts;     /* tried, the first one included */
    uint32_t streak;     /* failures without a whole period of life between them */
    bool told;           /* asked to stop */
    bool done;           /* ended for good */
    bool is_supervisor;
} child;

struct supervisor {
    opd_supervisor_options o;
    opd_ctx *ctx;
    child *children;
    group *groups; /* one for each child, or one */
    uint64_t *failed_ns; /* ring of the newest restarts_max failures */
    uint64_t total;      /* failures since the start */
    opd_cleanup cleanup;
    bool leaving;
    opd_err reason;
    char text[OPD_ERROR_TEXT_SIZE];
};

static void failed(supervisor *s, child *c, opd_err reason, const char *text);

static bool is_there(const child *c) {
    return c->keeper.actor != NULL || c->keeper.gone.queued;
}

/* ---- start ----------------------------------------------------------------------------- */

/* The actor that `start` spawned, which must be one. */
static opd_err adopt(supervisor *s, child *c, opd_pid pid) {
    opd_ctx *actor = c->keeper.actor;
    OPD_ASSERT(actor != NULL && actor->pid == pid); /* start spawns one actor and says its pid */
    if (actor->registered[0] == '\0') {
        opd_err err = opd__register(actor, c->spec->id);
        if (err != OPD_OK) {
            opd__actor_set_reason(actor, err, opd_err_context());
            opd__actor_end(actor);
            return err;
        }
    }
    c->told = false;
    c->is_supervisor = opd__is_supervisor(actor);
    opd_monitor_start(s->ctx, &c->monitor, pid);
    return OPD_OK;
}

static opd_err start_child(supervisor *s, child *c) {
    opd_system *system = s->ctx->system;
    opd__keeper *outer = system->keeper;
    opd_pid pid = OPD_PID_NOBODY;
    c->up_ns = opd_now_ns(s->ctx);
    c->starts++;
    system->keeper = &c->keeper; /* the next actor that is made is kept by it */
    opd_err err = c->spec->start(system, c->spec->arg, &pid);
    system->keeper = outer;
    return err == OPD_OK ? adopt(s, c, pid) : err;
}

/* Starts what is to be up in the group, in order, until one fails. */
static void start_group(supervisor *s, group *g) {
    g->phase = GROUP_UP;
    for (size_t i = g->lo; i < g->hi; i++) {
        child *c = &s->children[i];
        opd_err err = c->done || is_there(c) ? OPD_OK : start_child(s, c);
        if (err == OPD_OK) continue;
        char text[OPD_ERROR_TEXT_SIZE];
        opd__text_copy(text, sizeof text, opd_err_context());
        failed(s, c, err, text);
        return;
    }
}

static opd_err pause_over(opd_ctx *ctx, void *state, opd_timer *timer) {
    if (!ctx->system->stopping) start_group(state, OPD_CONTAINER_OF(timer, group, timer));
    return OPD_OK;
}

/* ---- stop ------------------------------------------------------------------------------ */

/* Tells the last child of [lo, hi) that is still there to stop. False: none is there. */
static bool stop_last(supervisor *s, size_t lo, size_t hi) {
    for (size_t i = hi; i > lo; i--) {
        child *c = &s->children[i - 1];
        const opd_ctx *actor = c->keeper.actor;
        if (!is_there(c)) continue;
        if (!c->told && actor != NULL)
            opd_stop_within(s->ctx->system, actor->pid, c->spec->stop_timeout_ms);
        c->told = true;
        return true;
    }
    return false;
}

/* The next step of leaving: one more child is told to stop, or the supervisor ends. */
static void leave_on(supervisor *s) {
    if (stop_last(s, 0, s->o.child_count)) return;
    opd_exit(s->ctx, s->reason == OPD_OK ? OPD_OK : opd_fail(s->reason, "%s", s->text));
}

static void leave(supervisor *s, opd_err reason, const char *text) {
    if (s->leaving) return;
    s->leaving = true;
    s->reason = reason;
    opd__text_copy(s->text, sizeof s->text, text);
    for (size_t i = 0; i < s->o.child_count; i++) opd_timer_stop(&s->children[i].group->timer);
    leave_on(s);
}

/* The failure is somebody else's matter: the parent's, or at the top the end of the system. */
static void fail_up(supervisor *s, opd_err reason, const char *text) {
    if (s->ctx->keeper == NULL)
        opd_system_stop(s->ctx->system, opd_fail(reason, "%s", text));
    leave(s, reason, text);
}

/* STOPPING goes on, or turns into WAITING. */
static void group_step(supervisor *s, group *g) {
    if (g->phase != GROUP_STOPPING || stop_last(s, g->lo, g->hi)) return;
    g->phase = GROUP_WAITING;
    opd_err err = opd_timer_start_after(&g->timer, g->delay_ns);
    if (err == OPD_OK) return;
    char text[OPD_ERROR_TEXT_SIZE];
    opd__text_copy(text, sizeof text, opd_err_context());
    fail_up(s, err, text);
}

/* ---- failures -------------------------------------------------------------------------- */

static bool curable(opd_err reason) {
    opd_err_category category = opd_err_category_of(reason);
    return category != OPD_ERR_CATEGORY_USAGE && category != OPD_ERR_CATEGORY_FATAL;
}

static uint64_t jittered(supervisor *s, uint64_t delay_ns, double jitter) {
    if (jitter <= 0) return delay_ns;
    double taken = jitter * opd_rng_uniform(opd_random(s->ctx)) * (double)delay_ns;
    return delay_ns - (uint64_t)taken;
}

/* Pause after this child's latest failure. */
static uint64_t delay_of(supervisor *s, child *c) {
    const opd_backoff *b = &c->spec->backoff;
    uint64_t max_ms = b->max_ms == 0 ? BACKOFF_MAX_MS : b->max_ms;
    uint64_t delay_ms = b->base_ms == 0 ? BACKOFF_BASE_MS : b->base_ms;
    for (uint32_t i = 1; i < c->streak && delay_ms < max_ms; i++)
        delay_ms = delay_ms > max_ms / 2 ? max_ms : 2 * delay_ms;
    if (delay_ms > max_ms) delay_ms = max_ms;
    return jittered(s, ns_of(delay_ms), b->jitter);
}

/* Counts a failure; returns how many fell into the period that ends now. */
static uint32_t count_failure(supervisor *s, child *c) {
    uint64_t now = opd_now_ns(s->ctx), period_ns = ns_of(s->o.period_ms);
    uint64_t kept = (uint64_t)s->o.restarts_max;
    uint32_t within = 1;
    for (uint64_t i = 0; i < kept && i < s->total; i++)
        if (now - s->failed_ns[i] <= period_ns) within++;
    if (kept > 0) s->failed_ns[s->total % kept] = now;
    s->total++;
    if (now - c->up_ns > period_ns) c->streak = 0;
    c->streak++;
    return within;
}

static void give_up(supervisor *s, const child *c, opd_err reason, const char *text,
                    uint32_t within) {
    char chain[OPD_ERROR_TEXT_SIZE];
    const char *did = reason == OPD_OK ? "ended" : "failed";
    const char *name = s->ctx->name;
    int length;
    if (reason == OPD_OK) reason = OPD_ERR_CLOSED, text = "it should not have";
    if (c->is_supervisor) /* whose text is a chain already */
        length = snprintf(chain, sizeof chain, "%s > %s", name, text);
    else if (within == 1) /* nothing is to be said of restarts */
        length = snprintf(chain, sizeof chain, "%s", text);
    else
        length = snprintf(chain, sizeof chain, "%s > %s %s %u times within %llu s: %s", name,
                          c->spec->id, did, within,
                          (unsigned long long)(s->o.period_ms / 1000 + (s->o.period_ms % 1000 > 0)),
                          text);
    fail_up(s, reason, length < 0 ? text : chain);
}

static void tell(supervisor *s, const child *c, opd_err reason, const char *text, uint32_t within) {
    opd_restart_report report = {
        .supervisor = s->ctx->name, .child = c->spec->id, .reason = reason, .text = text,
        .failures = within, .restarts_max = (uint32_t)s->o.restarts_max,
        .period_ms = s->o.period_ms, .delay_ms = c->group->delay_ns / MS, .total = s->total};
    OPD_LOG_INFO("%s: %s %s (%s); starting again in %llu ms, %u of %u", report.supervisor,
                 report.child, reason == OPD_OK ? "ended" : "failed", text,
                 (unsigned long long)report.delay_ms, within, report.restarts_max);
    if (s->o.told != NULL) s->o.told(s->ctx, s->o.arg, &report);
}

/* Passes the failure up, or has the group stopped and started again. */
static void failed(supervisor *s, child *c, opd_err reason, const char *text) {
    if (s->leaving || s->ctx->system->stopping) return;
    if (!curable(reason) && reason != OPD_OK) {
        OPD_LOG_INFO("%s > %s failed, which no restart cures", s->ctx->name, c->spec->id);
        fail_up(s, reason, text);
        return;
    }
    uint32_t within = count_failure(s, c);
    if (within > (uint32_t)s->o.restarts_max) {
        give_up(s, c, reason, text, within);
        return;
    }
    group *g = c->group;
    size_t index = (size_t)(c - s->children);
    if (s->o.strategy == OPD_STRATEGY_ONE_FOR_ALL)
        g->lo = 0;
    else if (g->phase == GROUP_UP || index < g->lo)
        g->lo = index;
    opd_timer_stop(&g->timer); /* a child before the range failed during the pause */
    g->phase = GROUP_STOPPING;
    g->delay_ns = delay_of(s, c);
    tell(s, c, reason, text, within);
    group_step(s, g);
}

static void child_down(supervisor *s, child *c, opd_err reason, const char *text) {
    bool temporary = c->spec->restart == OPD_RESTART_TEMPORARY;
    bool transient = c->spec->restart == OPD_RESTART_TRANSIENT;
    if (temporary || (transient && reason == OPD_OK && !c->told)) c->done = true;
    size_t index = (size_t)(c - s->children);
    bool expected = c->group->phase == GROUP_STOPPING && index >= c->group->lo;
    if (!c->done && !expected) failed(s, c, reason, text);
}

/* A child is freed: what waited for that goes on. */
static opd_err child_gone(opd_ctx *ctx, void *state, opd_event *event) {
    (void)ctx;
    supervisor *s = state;
    child *c = event->arg;
    if (s->leaving) {
        leave_on(s);
        return OPD_OK;
    }
    bool over = true;
    for (size_t i = 0; i < s->o.child_count; i++) over = over && s->children[i].done;
    if (over && !s->ctx->system->stopping) leave(s, OPD_OK, "");
    group_step(s, c->group);
    return OPD_OK;
}

/* ---- the actor ------------------------------------------------------------------------- */

static opd_err check_options(const opd_supervisor_options *o) {
    if (o->child_count < 1 || o->child_count > OPD_SUPERVISOR_CHILDREN_MAX)
        return opd_fail(OPD_ERR_INVALID, "supervisor %s: %zu children, 1 to %d are legal", o->name,
                        o->child_count, OPD_SUPERVISOR_CHILDREN_MAX);
    if (o->restarts_max < OPD_SUPERVISOR_NO_RESTARTS ||
        o->restarts_max > OPD_SUPERVISOR_RESTARTS_MAX)
        return opd_fail(OPD_ERR_INVALID, "supervisor %s: restarts_max is %d, the most is %d",
                        o->name, o->restarts_max, OPD_SUPERVISOR_RESTARTS_MAX);
    for (size_t i = 0; i < o->child_count; i++) {
        const opd_child_spec *c = &o->children[i];
        if (c->id == NULL || c->id[0] == '\0' || c->start == NULL)
            return opd_fail(OPD_ERR_INVALID, "supervisor %s: child %zu has no id or no start",
                            o->name, i);
        if (c->backoff.jitter < 0 || c->backoff.jitter > 1)
            return opd_fail(OPD_ERR_INVALID, "supervisor %s: %s: jitter is %g, 0 to 1 is legal",
                            o->name, c->id, c->backoff.jitter);
    }
    return OPD_OK;
}

/* The supervisor ends, by force or because its start failed: so do those below, last first. */
static void end_children(opd_cleanup *cleanup) {
    supervisor *s = cleanup->arg;
    for (size_t i = s->o.child_count; i > 0; i--) {
        opd_ctx *actor = s->children[i - 1].keeper.actor;
        if (actor == NULL) continue;
        s->children[i - 1].keeper.actor = NULL;
        actor->keeper = NULL;
        if (actor->phase > PHASE_ALIVE) continue;
        opd__actor_set_reason(actor, OPD_ERR_CANCELLED, "its supervisor ended");
        opd__actor_end(actor);
    }
}

static void prepare(supervisor *s) {
    bool single = s->o.strategy == OPD_STRATEGY_ONE_FOR_ONE;
    for (size_t i = 0; i < s->o.child_count; i++) {
        child *c = &s->children[i];
        c->spec = &s->o.children[i];
        c->group = single ? &s->groups[i] : s->groups;
        c->keeper.gone = (opd_event){.to = s->ctx->pid, .deliver = child_gone, .arg = c};
        if (single || i == 0) opd_timer_init(&c->group->timer, s->ctx, pause_over);
        c->group->lo = single ? i : 0;
        c->group->hi = single ? i + 1 : s->o.child_count;
    }
    s->cleanup.arg = s;
    opd_cleanup_start(s->ctx, &s->cleanup, end_children);
}

static opd_err on_start(opd_ctx *ctx, void *state, const void *config) {
    supervisor *s = state;
    const opd_alloc *alloc = ctx->system->options.alloc;
    s->ctx = ctx;
    s->o = *(const opd_supervisor_options *)config;
    if (s->o.restarts_max == 0) s->o.restarts_max = RESTARTS;
    if (s->o.restarts_max == OPD_SUPERVISOR_NO_RESTARTS) s->o.restarts_max = 0;
    if (s->o.period_ms == 0) s->o.period_ms = PERIOD_MS;
    size_t count = s->o.child_count;
    s->children = opd_mem_get(alloc, count * sizeof *s->children);
    s->groups = opd_mem_get(alloc, count * sizeof *s->groups);
    s->failed_ns = opd_mem_get(alloc, ((size_t)s->o.restarts_max + 1) * sizeof *s->failed_ns);
    if (s->children == NULL || s->groups == NULL || s->failed_ns == NULL)
        return opd_fail(OPD_ERR_NOMEM, "supervisor %s", ctx->name);
    prepare(s);
    for (size_t i = 0; i < count; i++) OPD_TRY(start_child(s, &s->children[i]));
    return OPD_OK;
}

static opd_err on_signal(opd_ctx *ctx, void *state, const opd_signal *signal) {
    supervisor *s = state;
    if (signal->kind == OPD_SIGNAL_DOWN)
        child_down(s, OPD_CONTAINER_OF(signal->monitor, child, monitor), signal->reason,
                          signal->text);
    if (signal->kind != OPD_SIGNAL_STOP) return OPD_OK;
    opd_stop_defer(ctx);
    leave(s, OPD_OK, "");
    return OPD_OK;
}

static void on_stop(opd_ctx *ctx, void *state) {
    supervisor *s = state;
    opd_mem_free(ctx->system->options.alloc, s->children);
    opd_mem_free(ctx->system->options.alloc, s->groups);
    opd_mem_free(ctx->system->options.alloc, s->failed_ns);
}

static const opd_actor_class supervisor_class = {
    .name = "supervisor", .state_size = sizeof(supervisor), .on_start = on_start,
    .on_signal = on_signal, .on_stop = on_stop};

bool opd__is_supervisor(const opd_ctx *ctx) { return ctx->actor_class == &supervisor_class; }

opd_err opd_supervisor_start(opd_system *system, const opd_supervisor_options *options,
                             opd_pid *out_pid) {
    OPD_TRY(check_options(options));
    return opd_spawn(system, &supervisor_class, options->name, options, out_pid);
}

/* ---- what there is to see -------------------------------------------------------------- */

void opd__supervisor_dump(const opd_ctx *ctx, opd_line_fn out, void *arg) {
    const supervisor *s = ctx->state;
    static const char *const restarts[] = {
        [OPD_RESTART_PERMANENT] = "permanent", [OPD_RESTART_TRANSIENT] = "transient",
        [OPD_RESTART_TEMPORARY] = "temporary"};
    for (size_t i = 0; s->children != NULL && i < s->o.child_count; i++) {
        const child *c = &s->children[i];
        opd__line line = {.used = 0};
        opd__line_add(&line, "  child %s (%s): ", c->spec->id, restarts[c->spec->restart]);
        if (c->keeper.actor != NULL)
            opd__line_pid(&line, ctx->system, c->keeper.actor->pid);
        else
            opd__line_add(&line, c->done ? "ended for good" : "down");
        if (c->starts > 1)
            opd__line_add(&line, ", started %llu times", (unsigned long long)c->starts);
        if (c->told) opd__line_add(&line, ", told to stop");
        opd__line_end(&line, out, arg);
    }
    if (s->total == 0) return;
    opd__line line = {.used = 0};
    opd__line_add(&line, "  failures since its start: %llu", (unsigned long long)s->total);
    opd__line_end(&line, out, arg);
}
