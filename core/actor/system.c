/* system.c - the actors of one loop: slices, ordered stop, creation and end (opd/actor.h).
 *
 * A slice: take the inbox, expire timers, then give ready actors turns in FIFO order until
 * 1,024 callbacks or 1 ms; the env then polls I/O and, if work is left, calls again.
 *
 * Ordered stop: stop_current is the actor told to STOP and waited for; when it is gone the
 * next one in reverse start order follows; when none is left the loop stops. Supervised actors
 * are left to their supervisors.
 *
 * Memory ceiling: memory.c.
 *
 * Thread: the loop's. opd_system_destroy frees all.
 */
#include <string.h>

#include "core/actor/heartbeat.h"
#include "opd/log.h"

void opd__text_copy(char *out, size_t out_size, const char *text) {
    size_t length = strnlen(text, out_size - 1);
    memcpy(out, text, length);
    out[length] = '\0';
}

/* ---- the loop's side ------------------------------------------------------------------- */

static void arm_timer(opd_system *system) {
    opd_heap_node *first = opd_heap_first(&system->timers);
    uint64_t at_ns = first == NULL ? UINT64_MAX : first->key;
    const opd_list *stopping = &system->stopping_actors;
    for (const opd_list *n = stopping->next; n != stopping; n = n->next) {
        const opd_ctx *ctx = OPD_CONTAINER_OF(n, opd_ctx, stop_node);
        if (ctx->stop_deadline_ns < at_ns) at_ns = ctx->stop_deadline_ns;
    }
    if (system->stall.due_ns < at_ns) at_ns = system->stall.due_ns;
    if (at_ns == system->armed_ns) return;
    system->armed_ns = at_ns;
    system->env->ops->timer_arm(system->env, at_ns);
}

static opd_ctx *late_to_stop(const opd_system *system) {
    const opd_list *stopping = &system->stopping_actors;
    for (opd_list *n = stopping->next; n != stopping; n = n->next) {
        opd_ctx *ctx = OPD_CONTAINER_OF(n, opd_ctx, stop_node);
        if (ctx->stop_deadline_ns <= system->now_ns) return ctx;
    }
    return NULL;
}

static void check_stop_deadlines(opd_system *system) {
    for (opd_ctx *late; (late = late_to_stop(system)) != NULL;) {
        late->stop_deadline_ns = UINT64_MAX; /* said once; its jobs may still be awaited */
        OPD_LOG_ERROR("%s did not stop within %llu ms (%u jobs in flight): ended by force",
                      late->name, (unsigned long long)late->stop_timeout_ms, late->jobs_in_flight);
        if (late->phase > PHASE_ALIVE) continue;
        opd__actor_set_reason(late, OPD_ERR_TIMEOUT, "it did not stop in time");
        opd__actor_end(late);
    }
}

/* Those that are there; what they post comes in the next turn, after the actors. */
static void deliver_loop_events(opd_system *system) {
    if (opd_list_empty(&system->events)) return;
    opd_list end;
    opd_list_push_back(&system->events, &end);
    if (system->running) opd__heartbeat_loop(system, system->clock_ns);
    for (opd_list *n; (n = opd_list_first(&system->events)) != &end;)
        opd__event_deliver(NULL, OPD_CONTAINER_OF(n, opd_event, node), NULL);
    opd_list_remove(&end);
    opd__heartbeat_loop(system, 0);
    system->clock_ns = system->env->ops->now_ns(system->env); /* the first actor's time begins */
}

/* The ready actor whose turn it is: the first, or the one that a simulated env chooses. */
static opd_ctx *ready_take(opd_system *system) {
    const opd_env_ops *ops = system->env->ops;
    opd_list *n = opd_list_first(&system->ready);
    if (n == NULL) return NULL;
    if (ops->choose != NULL) {
        uint32_t count = 0;
        for (opd_list *at = n; at != &system->ready; at = at->next) count++;
        for (uint32_t skip = ops->choose(system->env, count); skip > 0; skip--) n = n->next;
    }
    opd_list_remove(n);
    opd_ctx *ctx = OPD_CONTAINER_OF(n, opd_ctx, ready);
    if (ops->turned != NULL) ops->turned(system->env, ctx->pid, ctx->name);
    return ctx;
}

static bool turn(void *arg) {
    opd_system *system = arg;
    uint64_t began_ns = system->env->ops->now_ns(system->env);
    unsigned done = 0;
    system->in_turn = true;
    system->now_ns = system->clock_ns = began_ns;
    system->stats.turns++;
    system->loop.turns++;
    opd__recorder_arm(system);
    opd__inbox_drain(system);
    opd__timers_expire(system);
    check_stop_deadlines(system);
    opd__stall_check(system);
    deliver_loop_events(system);
    unsigned slice = system->turn_msgs_max == 1 ? 1 : OPD__SLICE_MSGS;
    while (done < slice && system->now_ns - began_ns < OPD__SLICE_NS) {
        opd_ctx *ctx = ready_take(system);
        if (ctx == NULL) break;
        done += opd__actor_turn(ctx);
    }
    if (done > 0) opd_histogram_record(&system->loop.slice, system->clock_ns - began_ns);
    if (system->armed_ns <= began_ns) system->armed_ns = UINT64_MAX; /* it went off */
    arm_timer(system);
    system->in_turn = false;
    return !opd_list_empty(&system->ready) || !opd_list_empty(&system->events);
}

/* ---- stop ------------------------------------------------------------------------------ */

static void stop_next(opd_system *system) {
    if (system->stop_current != NULL) return;
    if (opd_list_empty(&system->actors)) {
        if (system->running) opd_env_stop(system->env);
        return;
    }
    opd_list *n = system->actors.prev;
    while (OPD_CONTAINER_OF(n, opd_ctx, spawned)->keeper != NULL) n = n->prev;
    opd_ctx *last = OPD_CONTAINER_OF(n, opd_ctx, spawned);
    system->stop_current = last;
    opd__actor_stop(last, system->options.stop_timeout_ms);
}

void opd__system_actor_gone(opd_system *system) {
    if (system->stopping)
        stop_next(system);
    else if (opd_list_empty(&system->actors) && system->running)
        opd_env_stop(system->env);
}

static void keep_reason(opd_system *system, opd_err reason) {
    if (system->stopping) return;
    system->stopping = true;
    system->reason = reason;
    const char *text = opd_err_context();
    if (reason != OPD_OK && text[0] == '\0') text = opd_err_text(reason);
    opd__text_copy(system->reason_text, sizeof system->reason_text, reason == OPD_OK ? "" : text);
}

void opd_system_stop(opd_system *system, opd_err reason) {
    keep_reason(system, reason);
    stop_next(system);
    system->env->ops->wake(system->env); /* may be called from outside of the loop's turn */
}

void opd_system_kill(opd_system *system, opd_err reason) {
    keep_reason(system, reason);
    opd_list *n = system->actors.prev;
    while (n != &system->actors) {
        opd_ctx *ctx = OPD_CONTAINER_OF(n, opd_ctx, spawned);
        n = n->prev;
        if (ctx->phase <= PHASE_ALIVE) {
            opd__actor_set_reason(ctx, OPD_ERR_INTERRUPTED, "killed");
            opd__actor_ready(ctx);
        }
    }
    system->env->ops->wake(system->env);
}

void opd_system_begin(opd_system *system) {
    OPD_ASSERT(!system->running);
    system->running = true;
    if (opd_list_empty(&system->actors)) opd_env_stop(system->env);
}

opd_err opd_system_end(opd_system *system) {
    OPD_ASSERT(system->running);
    system->running = false;
    if (system->reason == OPD_OK) return OPD_OK;
    return opd_fail(system->reason, "%s", system->reason_text);
}

opd_err opd_system_run(opd_system *system) {
    OPD_ASSERT(!system->running);
    opd_err err = OPD_OK;
    system->running = true;
    if (!opd_list_empty(&system->actors)) err = system->env->ops->run(system->env);
    if (err == OPD_OK) return opd_system_end(system);
    system->running = false;
    return err;
}

/* ---- creation and end ------------------------------------------------------------------ */

static void system_free(opd_system *system) {
    const opd_alloc *alloc = system->options.alloc;
    opd__recorder_destroy(system);
    opd_heap_fini(&system->timers);
    opd_mem_free(alloc, system->heartbeat.names);
    opd_mem_free(alloc, system->slots);
    opd_mem_free(alloc, system->generations);
    opd_mem_free(alloc, system->pool);
    opd__views_free(system);
    opd_mem_free(alloc, system);
}

opd_err opd_system_create(const opd_system_options *options, opd_env *env,
                          opd_system **out_system) {
    opd_system_options filled = opd__options_filled(options);
    if (filled.actors_max > UINT16_MAX)
        return opd_fail(OPD_ERR_INVALID, "actors_max is %u, the most is %d", filled.actors_max,
                        UINT16_MAX);
    opd_system *system = opd_mem_get(filled.alloc, sizeof *system);
    if (system == NULL) return opd_fail(OPD_ERR_NOMEM, "actor system");
    system->env = env;
    system->options = filled;
    system->thread_mark = opd__thread_mark();
    system->armed_ns = system->stall.due_ns = UINT64_MAX;
    system->turn_msgs_max = env->ops->choose == NULL ? OPD__TURN_MSGS : 1;
    system->now_ns = system->clock_ns = env->ops->now_ns(env);
    opd_list_init(&system->ready);
    opd_list_init(&system->events);
    opd_list_init(&system->actors);
    opd_list_init(&system->lanes);
    opd_list_init(&system->slot_list);
    opd_list_init(&system->stopping_actors);
    opd_heap_init(&system->timers, filled.alloc, filled.timers_max);
    system->slots = opd_mem_get(filled.alloc, filled.actors_max * sizeof *system->slots);
    system->generations =
        opd_mem_get(filled.alloc, filled.actors_max * sizeof *system->generations);
    system->pool = opd_mem_get(filled.alloc, filled.messages_max * sizeof *system->pool);
    if (system->slots == NULL || system->generations == NULL || system->pool == NULL) {
        system_free(system);
        return opd_fail(OPD_ERR_NOMEM, "actor system of %u actors and %u messages",
                        filled.actors_max, filled.messages_max);
    }
    opd_err err = opd__heartbeat_create(system);
    if (err == OPD_OK && filled.recorder) err = opd__recorder_create(system);
    if (err != OPD_OK) {
        system_free(system);
        return err;
    }
    env->ops->attach(env, turn, system);
    env->system = system;
    *out_system = system;
    return OPD_OK;
}

/* Ends living actors, last started first; those with jobs in flight stay until these ended. */
static void end_all(opd_system *system) {
    opd_list *n = system->actors.prev;
    while (n != &system->actors) {
        opd_ctx *ctx = OPD_CONTAINER_OF(n, opd_ctx, spawned);
        n = n->prev;
        if (ctx->phase > PHASE_ALIVE) continue;
        opd__actor_set_reason(ctx, OPD_ERR_CLOSED, "the system was destroyed");
        opd__actor_end(ctx);
    }
}

void opd_system_destroy(opd_system *system) {
    if (system == NULL) return;
    OPD_ASSERT(!system->running);
    system->stopping = true;
    system->stop_current = NULL;
    end_all(system);
    for (opd_list *n; (n = opd_list_pop_front(&system->lanes)) != NULL;) {
        opd_lane *lane = OPD_CONTAINER_OF(n, opd_lane, node);
        system->env->ops->lane_close(lane->env_lane); /* every job is in the inbox now */
        opd__inbox_drain(system);
        OPD_ASSERT(lane->in_flight == 0);
        opd_mem_free(system->options.alloc, lane);
    }
    opd__inbox_drain(system);
    while (!opd_list_empty(&system->events)) deliver_loop_events(system);
    system->env->ops->timer_arm(system->env, UINT64_MAX);
    system->env->ops->attach(system->env, NULL, NULL);
    system->env->system = NULL;
    OPD_ASSERT(opd_list_empty(&system->actors));
    opd__leaks_of_system(system);
    OPD_ASSERT(system->stats.messages_in_use == 0); /* a message was neither sent nor released */
    OPD_ASSERT(system->views_live == 0); /* bytes received over a link are still referenced */
    system_free(system);
}

opd_loop_stats opd_loop_stats_get(const opd_system *system) { return system->loop; }

opd_system_stats opd_system_stats_get(const opd_system *system) { return system->stats; }
