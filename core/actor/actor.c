/* actor.c - the life of one actor: spawn, callbacks, end (states and invariants: internal.h).
 *
 * Every callback is made by one of the run_* functions, which measure it and end the actor if
 * it failed. Thread: the loop's. The actor's block is freed by its end.
 */
#include <stdio.h>
#include <string.h>

#include "core/actor/heartbeat.h"
#include "opd/log.h"

opd_ctx *opd__actor_find(const opd_system *system, opd_pid pid) {
    uint32_t index = (uint32_t)(pid >> 32) & UINT16_MAX;
    if (index >= system->options.actors_max) return NULL;
    opd_ctx *ctx = system->slots[index];
    return ctx != NULL && ctx->pid == pid && ctx->phase <= PHASE_ALIVE ? ctx : NULL;
}

void opd__actor_ready(opd_ctx *ctx) {
    if (!opd_list_linked(&ctx->ready)) opd_list_push_back(&ctx->system->ready, &ctx->ready);
}

void opd__actor_set_reason(opd_ctx *ctx, opd_err reason, const char *text) {
    if (ctx->exiting) return; /* the first reason stays */
    ctx->exiting = true;
    ctx->reason = reason;
    if (reason != OPD_OK && text[0] == '\0') text = opd_err_text(reason);
    opd__text_copy(ctx->text, sizeof ctx->text, reason == OPD_OK ? "" : text);
}

/* ---- spawn ----------------------------------------------------------------------------- */

static opd_err claim_slot(opd_system *system, opd_ctx *ctx) {
    uint32_t count = system->options.actors_max;
    for (uint32_t tried = 0; tried < count; tried++) {
        uint32_t index = (system->slot_hint + tried) % count;
        if (system->slots[index] != NULL) continue;
        system->slots[index] = ctx;
        system->slot_hint = index + 1;
        uint32_t generation = ++system->generations[index];
        if (generation == 0) generation = ++system->generations[index]; /* wrapped */
        ctx->pid = (opd_pid)index << 32 | generation;
        return OPD_OK;
    }
    return opd_fail(OPD_ERR_LIMIT, "all %u actors are in use", count);
}

static opd_err actor_create(opd_system *system, const opd_actor_class *actor_class,
                            const char *name, opd_ctx **out_ctx) {
    const opd_alloc *alloc = system->options.alloc;
    opd_ctx *ctx = opd_mem_get(alloc, sizeof *ctx);
    if (ctx == NULL) return opd_fail(OPD_ERR_NOMEM, "actor %s", actor_class->name);
    size_t state_size = actor_class->state_size == 0 ? 1 : actor_class->state_size;
    ctx->state = opd_mem_get(alloc, state_size);
    opd_err err = ctx->state == NULL ? opd_fail(OPD_ERR_NOMEM, "actor %s", actor_class->name)
                                     : claim_slot(system, ctx);
    if (err != OPD_OK) {
        opd_mem_free(alloc, ctx->state);
        opd_mem_free(alloc, ctx);
        return err;
    }
    opd_list *lists[] = {&ctx->ready,    &ctx->events,   &ctx->spawned, &ctx->timers,
                         &ctx->monitors, &ctx->watchers, &ctx->jobs,    &ctx->watches,
                         &ctx->links,    &ctx->cleanups, &ctx->stop_node};
    for (size_t i = 0; i < OPD_COUNTOF(lists); i++) opd_list_init(lists[i]);
    ctx->system = system;
    ctx->actor_class = actor_class;
    ctx->deadline_ns = OPD_NO_DEADLINE;
    opd__text_copy(ctx->name, sizeof ctx->name, name == NULL ? actor_class->name : name);
    opd__heartbeat_name(ctx);
    opd_rng_init(&ctx->rng, system->env->ops->random(system->env));
    opd_list_push_back(&system->actors, &ctx->spawned);
    ctx->keeper = system->keeper;
    if (ctx->keeper != NULL) ctx->keeper->actor = ctx;
    system->keeper = NULL;
    system->stats.actors++;
    *out_ctx = ctx;
    return OPD_OK;
}

opd_err opd_spawn(opd_system *system, const opd_actor_class *actor_class, const char *name,
                  const void *config, opd_pid *out_pid) {
    if (system->stopping) return opd_fail(OPD_ERR_CLOSED, "the system is stopping");
    opd_ctx *ctx = NULL;
    opd__clock_refresh(system);
    OPD_TRY(actor_create(system, actor_class, name, &ctx));
    opd_err err = OPD_OK;
    opd_ctx *spawner = system->current;
    OPD__TAP(system, .kind = OPD_TAP_SPAWNED, .to = ctx->pid, .name = ctx->name,
             .from = spawner == NULL ? OPD_PID_NOBODY : spawner->pid);
    opd_heartbeat outer = system->heartbeat;
    bool in_turn = system->in_turn;
    system->in_turn = true; /* one time for all of on_start, also before the loop runs */
    system->current = ctx;
    if (system->running) opd__heartbeat(ctx, system->clock_ns, 0);
    if (actor_class->on_start != NULL) err = actor_class->on_start(ctx, ctx->state, config);
    if (system->running) opd__heartbeat_set(&system->heartbeat, outer.began_ns, outer.what);
    system->current = spawner;
    system->in_turn = in_turn;
    if (err != OPD_OK) {
        char text[OPD_ERROR_TEXT_SIZE];
        opd__text_copy(text, sizeof text, opd_err_context());
        opd__actor_set_reason(ctx, err, text);
        opd__actor_end(ctx);
        return opd_fail(err, "%s", text);
    }
    ctx->phase = PHASE_ALIVE;
    *out_pid = ctx->pid;
    return OPD_OK;
}

/* ---- end ------------------------------------------------------------------------------- */

/* The last step: no job of it is in flight and nothing names it any more. */
static void actor_free(opd_ctx *ctx) {
    opd_system *system = ctx->system;
    opd_ctx *outer = system->current;
    opd_heartbeat beat = system->heartbeat; /* the watchdog names an end that hangs, too */
    system->current = ctx;
    if (system->running) opd__heartbeat(ctx, system->clock_ns, 0);
    if (ctx->actor_class->on_stop != NULL) ctx->actor_class->on_stop(ctx, ctx->state);
    if (system->running) opd__heartbeat_set(&system->heartbeat, beat.began_ns, beat.what);
    system->current = outer;
    opd__links_free(ctx);
    opd__leaks_of_actor(ctx);
    opd_list_remove(&ctx->stop_node);
    system->slots[(uint32_t)(ctx->pid >> 32) & UINT16_MAX] = NULL;
    opd_list_remove(&ctx->spawned);
    system->stats.actors--;
    if (system->stop_current == ctx) system->stop_current = NULL;
    if (ctx->keeper != NULL) {
        ctx->keeper->actor = NULL;
        opd_event_post(system, &ctx->keeper->gone);
    }
    opd_mem_free(system->options.alloc, ctx->state);
    opd_mem_free(system->options.alloc, ctx);
    opd__system_actor_gone(system);
}

/* Whoever started or monitors the actor gets the reason and reports it to the person; here it
 * is a line of the log. */
static void log_end(const opd_ctx *ctx) {
    if (ctx->reason == OPD_OK)
        OPD_LOG_DEBUG("%s ended", ctx->name);
    else if (opd_err_category_of(ctx->reason) == OPD_ERR_CATEGORY_CLOSED)
        OPD_LOG_INFO("%s ended: %s", ctx->name, ctx->text);
    else if (strcmp(ctx->text, opd_err_text(ctx->reason)) == 0) /* it gave no words of its own */
        OPD_LOG_INFO("%s failed: %s", ctx->name, ctx->text);
    else
        OPD_LOG_INFO("%s failed: %s (%s)", ctx->name, ctx->text, opd_err_text(ctx->reason));
}

void opd__actor_end(opd_ctx *ctx) {
    OPD_ASSERT(ctx->phase <= PHASE_ALIVE);
    opd_system *system = ctx->system;
    opd_ctx *outer = system->current;
    system->current = ctx;
    ctx->phase = PHASE_ENDING;
    OPD__TAP(ctx->system, .kind = OPD_TAP_ENDED, .to = ctx->pid, .name = ctx->name,
             .err = ctx->reason);
    log_end(ctx);
    opd_list_remove(&ctx->ready);
    for (opd_list *n = ctx->jobs.next; n != &ctx->jobs; n = n->next)
        opd_job_cancel(OPD_CONTAINER_OF(n, opd_job, owned));
    opd_msg_release(ctx->current);
    ctx->current = NULL;
    opd__resources_release(ctx);
    opd__events_drop(ctx);
    opd__mail_drop(ctx);
    opd__requests_release(ctx);
    opd__links_close(ctx);
    opd__links_wake(ctx);
    opd__monitors_notify(ctx);
    ctx->phase = PHASE_ENDED;
    system->current = outer;
    if (ctx->jobs_in_flight == 0) actor_free(ctx);
}

void opd__actor_job_ended(opd_ctx *ctx) {
    if (ctx->phase == PHASE_ENDED && ctx->jobs_in_flight == 0) actor_free(ctx);
}

/* ---- callbacks ------------------------------------------------------------------------- */

/* Accounts for a callback that began at *began_ns and moves *began_ns to its end. A long one is
 * a line of the log, not a warning: on a busy machine the kernel itself makes them. */
static void measure(opd_ctx *ctx, const char *what, uint16_t kind, uint64_t *began_ns) {
    opd_system *system = ctx->system;
    uint64_t now = system->env->ops->now_ns(system->env), took = now - *began_ns;
    *began_ns = now;
    system->clock_ns = now;
    ctx->stats.busy_ns += took;
    if (took <= ctx->stats.slowest_ns) return;
    ctx->stats.slowest_ns = took;
    ctx->stats.slowest_kind = kind;
    char room[8];
    if (took > system->options.handler_warn_ms * 1000000)
        OPD_LOG_INFO("%s held the loop for %llu ms (%s of kind %s)", ctx->name,
                     (unsigned long long)(took / 1000000), what,
                     opd_kind_name(system, kind, room, sizeof room));
}

static void run_event(opd_ctx *ctx, opd_event *event, uint64_t *clock_ns) {
    opd_err err = OPD_OK;
    ctx->deadline_ns = OPD_NO_DEADLINE;
    ctx->trace = 0;
    ctx->stats.events++;
    opd_err_clear(); /* the text of an earlier callback is no reason of this one */
    opd__heartbeat(ctx, *clock_ns, 0);
    OPD__TAP(ctx->system, .kind = OPD_TAP_EVENT, .to = ctx->pid);
    opd__event_deliver(ctx, event, &err);
    measure(ctx, "event", 0, clock_ns);
    OPD__TAP(ctx->system, .kind = OPD_TAP_RETURNED, .to = ctx->pid, .err = err);
    if (err != OPD_OK) opd__actor_set_reason(ctx, err, opd_err_context());
}

static void run_message(opd_ctx *ctx, opd_msg *msg, uint64_t *clock_ns) {
    opd_err err = OPD_OK;
    uint16_t kind = msg->kind;
    uint64_t serial = msg->serial;
    ctx->current = msg;
    ctx->deadline_ns = msg->deadline_ns;
    ctx->trace = msg->trace;
    ctx->stats.messages++;
    opd_histogram_record(&ctx->stats.queue_wait, *clock_ns - msg->since_ns);
    msg->since_ns = *clock_ns;
    opd_err_clear();
    opd__heartbeat(ctx, *clock_ns, kind);
    OPD__TAP_MSG(msg, OPD_TAP_HANDLED, msg->from, ctx->pid, OPD_OK);
    if (opd__fault(ctx->system, OPD_FAULT_ACTOR_CRASH, ctx))
        err = OPD_ERR_REMOTE;
    else if (msg->flags & OPD__MSG_REPLY)
        err = opd__reply_dispatch(ctx, msg);
    else if (msg->deadline_ns <= ctx->system->now_ns)
        opd__request_expired(ctx, msg);
    else if (ctx->actor_class->on_message != NULL)
        err = ctx->actor_class->on_message(ctx, ctx->state, msg);
    measure(ctx, "message", kind, clock_ns);
    OPD__TAP(ctx->system, .kind = OPD_TAP_RETURNED, .to = ctx->pid, .serial = serial,
             .message_kind = kind, .err = err);
    if (err != OPD_OK) opd__actor_set_reason(ctx, err, opd_err_context());
    opd_msg_release(ctx->current);
    ctx->current = NULL;
}

/* An actor's end may take long (its on_stop frees much); the next one's time begins after it. */
static void actor_end_measured(opd_ctx *ctx) {
    opd_system *system = ctx->system;
    opd__actor_end(ctx);
    system->clock_ns = system->env->ops->now_ns(system->env);
}

unsigned opd__actor_turn(opd_ctx *ctx) {
    opd_system *system = ctx->system;
    uint64_t began_ns = system->clock_ns, clock_ns = began_ns; /* read when the last one ended */
    unsigned done = 0;
    system->now_ns = began_ns;
    system->current = ctx;
    while (!ctx->exiting && done < system->turn_msgs_max && clock_ns - began_ns < OPD__TURN_NS) {
        opd_list *first = opd_list_first(&ctx->events);
        if (first != NULL) {
            run_event(ctx, OPD_CONTAINER_OF(first, opd_event, node), &clock_ns);
        } else {
            opd_msg *msg = opd__mail_take(ctx);
            if (msg == NULL) break;
            run_message(ctx, msg, &clock_ns);
        }
        done++;
    }
    ctx->deadline_ns = OPD_NO_DEADLINE;
    system->current = NULL;
    opd__heartbeat(ctx, 0, 0);
    if (ctx->exiting)
        actor_end_measured(ctx);
    else if (ctx->mail_first != NULL || !opd_list_empty(&ctx->events))
        opd__actor_ready(ctx);
    return done;
}

/* ---- what an actor says about itself --------------------------------------------------- */

void opd_exit(opd_ctx *ctx, opd_err reason) {
    if (ctx->phase > PHASE_ALIVE) return;
    opd__actor_set_reason(ctx, reason, opd_err_context());
    opd__actor_ready(ctx);
}

static opd_err deliver_stop(opd_ctx *ctx, void *state, opd_event *event) {
    (void)event;
    opd_err err = OPD_OK;
    opd_signal signal = {.kind = OPD_SIGNAL_STOP, .pid = ctx->pid};
    ctx->stop_deferred = false;
    if (ctx->actor_class->on_signal != NULL) err = ctx->actor_class->on_signal(ctx, state, &signal);
    if (err == OPD_OK && !ctx->stop_deferred) opd__actor_set_reason(ctx, OPD_OK, "");
    return err;
}

void opd_stop(opd_system *system, opd_pid pid) {
    opd_ctx *ctx = opd__actor_find(system, pid);
    if (ctx == NULL || ctx->stop_event.to != OPD_PID_NOBODY) return; /* gone, or told already */
    ctx->stop_event.to = pid;
    ctx->stop_event.deliver = deliver_stop;
    opd_event_post(system, &ctx->stop_event);
}

/* Also for an actor that ended already and waits for its jobs: it is named when late. */
void opd__actor_stop(opd_ctx *ctx, uint64_t timeout_ms) {
    opd_system *system = ctx->system;
    if (opd__is_supervisor(ctx)) { /* its children have their limits */
        opd_stop(system, ctx->pid);
        return;
    }
    uint64_t now = system->env->ops->now_ns(system->env);
    uint64_t at_ns = timeout_ms > (UINT64_MAX - 1 - now) / 1000000 ? UINT64_MAX - 1
                                                                  : now + timeout_ms * 1000000;
    if (!opd_list_linked(&ctx->stop_node) || at_ns < ctx->stop_deadline_ns) {
        ctx->stop_deadline_ns = at_ns;
        ctx->stop_timeout_ms = timeout_ms;
    }
    if (!opd_list_linked(&ctx->stop_node))
        opd_list_push_back(&system->stopping_actors, &ctx->stop_node);
    opd_stop(system, ctx->pid);
}

void opd_stop_within(opd_system *system, opd_pid pid, uint64_t timeout_ms) {
    uint32_t index = (uint32_t)(pid >> 32) & UINT16_MAX;
    opd_ctx *ctx = index < system->options.actors_max ? system->slots[index] : NULL;
    if (ctx == NULL || ctx->pid != pid) return;
    opd__actor_stop(ctx, timeout_ms == 0 ? system->options.stop_timeout_ms : timeout_ms);
}

void opd_stop_defer(opd_ctx *ctx) { ctx->stop_deferred = true; }

opd_pid opd_self(const opd_ctx *ctx) { return ctx->pid; }

const char *opd_self_name(const opd_ctx *ctx) { return ctx->name; }

void *opd_self_state(const opd_ctx *ctx) { return ctx->state; }

opd_system *opd_self_system(const opd_ctx *ctx) { return ctx->system; }

bool opd_alive(const opd_system *system, opd_pid pid) {
    return opd__actor_find(system, pid) != NULL;
}

void opd_trace_set(opd_ctx *ctx, uint64_t trace) { ctx->trace = trace; }

uint64_t opd_now_ns(const opd_ctx *ctx) {
    opd__clock_refresh(ctx->system);
    return ctx->system->now_ns;
}

uint64_t opd_random(opd_ctx *ctx) { return opd_rng_next(&ctx->rng); }

uint64_t opd_deadline_in(const opd_ctx *ctx, uint64_t timeout_ms) {
    uint64_t now = opd_now_ns(ctx);
    if (timeout_ms == 0 || timeout_ms > (UINT64_MAX - now) / 1000000) return ctx->deadline_ns;
    uint64_t own = now + timeout_ms * 1000000;
    return own < ctx->deadline_ns ? own : ctx->deadline_ns;
}

opd_err opd_actor_stats_get(const opd_system *system, opd_pid pid, opd_actor_stats *out_stats) {
    const opd_ctx *ctx = opd__actor_find(system, pid);
    if (ctx == NULL) return opd_fail(OPD_ERR_CLOSED, "no such actor");
    *out_stats = ctx->stats;
    return OPD_OK;
}
