/* event.c - events, the inbox from other threads, timers, monitors, cleanups (opd/actor.h).
 *
 * The inbox is a stack of events: any thread pushes with one compare-and-swap, the loop takes
 * the whole stack with one exchange and reverses it, so each thread's events keep their order.
 * The push that finds the stack empty wakes the loop; nothing is ever popped singly, so there
 * is no ABA. Release on push and acquire on the exchange hand over the event's contents.
 *
 * Thread: the loop's, but opd_event_post_remote. Nothing is allocated; owners free.
 */
#include <string.h>

#include "core/actor/internal.h"

void opd_event_post(opd_system *system, opd_event *event) {
    if (event->queued) return;
    opd_list *queue = &system->events;
    opd_ctx *ctx = NULL;
    if (event->to != OPD_PID_NOBODY) {
        ctx = opd__actor_find(system, event->to);
        if (ctx == NULL) {
            if (event->drop != NULL) event->drop(event);
            return;
        }
        queue = &ctx->events;
    }
    event->queued = true;
    opd_list_push_back(queue, &event->node);
    if (ctx != NULL) opd__actor_ready(ctx);
}

void opd_event_post_remote(opd_system *system, opd_event *event) {
    opd_event *head = __atomic_load_n(&system->inbox, __ATOMIC_RELAXED);
    do {
        event->inbox_next = head;
    } while (!__atomic_compare_exchange_n(&system->inbox, &head, event, true, __ATOMIC_RELEASE,
                                          __ATOMIC_RELAXED));
    if (head == NULL) system->env->ops->wake(system->env);
}

void opd__inbox_drain(opd_system *system) {
    if (__atomic_load_n(&system->inbox, __ATOMIC_RELAXED) == NULL) return;
    system->loop.remote++;
    opd_event *newest = __atomic_exchange_n(&system->inbox, NULL, __ATOMIC_ACQUIRE);
    opd_event *oldest = NULL;
    while (newest != NULL) {
        opd_event *next = newest->inbox_next;
        newest->inbox_next = oldest;
        oldest = newest;
        newest = next;
    }
    while (oldest != NULL) {
        opd_event *next = oldest->inbox_next; /* posting may end the event's life */
        opd_event_post(system, oldest);
        oldest = next;
    }
}

void opd_event_cancel(opd_event *event) {
    if (!event->queued) return;
    opd_list_remove(&event->node);
    event->queued = false;
}

void opd__event_deliver(opd_ctx *ctx, opd_event *event, opd_err *out_err) {
    opd_event_cancel(event);
    opd_err err = event->deliver(ctx, ctx == NULL ? NULL : ctx->state, event);
    if (out_err != NULL) *out_err = err;
}

void opd__events_drop(opd_ctx *ctx) {
    while (!opd_list_empty(&ctx->events)) {
        opd_event *event = OPD_CONTAINER_OF(ctx->events.next, opd_event, node);
        opd_event_cancel(event);
        if (event->drop != NULL) event->drop(event);
    }
}

/* ---- timers ---------------------------------------------------------------------------- */

static opd_err deliver_timer(opd_ctx *ctx, void *state, opd_event *event) {
    opd_timer *timer = OPD_CONTAINER_OF(event, opd_timer, event);
    opd_timer_stop(timer);
    return timer->fire(ctx, state, timer);
}

void opd_timer_init(opd_timer *timer, opd_ctx *ctx,
                    opd_err (*fire)(opd_ctx *ctx, void *state, opd_timer *timer)) {
    void *arg = timer->arg;
    *timer = (opd_timer){.ctx = ctx, .fire = fire, .arg = arg};
    timer->event.to = ctx->pid;
    timer->event.deliver = deliver_timer;
    opd_list_init(&timer->owned);
}

opd_err opd_timer_start(opd_timer *timer, uint64_t at_ns) {
    OPD__ASSERT_MAY_START(timer->ctx);
    opd_timer_stop(timer);
    OPD_TRY(opd_heap_push(&timer->ctx->system->timers, &timer->heap, at_ns));
    opd_list_push_back(&timer->ctx->timers, &timer->owned);
    return OPD_OK;
}

opd_err opd_timer_start_after(opd_timer *timer, uint64_t delay_ns) {
    uint64_t now = opd_now_ns(timer->ctx);
    return opd_timer_start(timer, delay_ns > UINT64_MAX - now ? UINT64_MAX : now + delay_ns);
}

void opd_timer_stop(opd_timer *timer) {
    opd_event_cancel(&timer->event);
    if (!opd_list_linked(&timer->owned)) return;
    opd_heap_remove(&timer->ctx->system->timers, &timer->heap);
    opd_list_remove(&timer->owned);
}

void opd__timers_expire(opd_system *system) {
    for (opd_heap_node *n; (n = opd_heap_first(&system->timers)) != NULL;) {
        if (n->key > system->now_ns) return;
        opd_histogram_record(&system->loop.lag, system->now_ns - n->key);
        opd_heap_remove(&system->timers, n);
        opd_event_post(system, &OPD_CONTAINER_OF(n, opd_timer, heap)->event);
    }
}

/* ---- monitors -------------------------------------------------------------------------- */

static opd_err deliver_down(opd_ctx *ctx, void *state, opd_event *event) {
    opd_monitor *monitor = OPD_CONTAINER_OF(event, opd_monitor, event);
    opd_list_remove(&monitor->owned);
    monitor->ctx = NULL;
    OPD__TAP(ctx->system, .kind = OPD_TAP_DOWN, .from = monitor->pid, .to = ctx->pid,
             .err = monitor->reason, .monitor = monitor);
    if (ctx->actor_class->on_signal == NULL) return OPD_OK;
    char text[OPD_ERROR_TEXT_SIZE]; /* the handler may use the monitor again */
    memcpy(text, monitor->text, sizeof text);
    opd_signal signal = {.kind = OPD_SIGNAL_DOWN, .pid = monitor->pid, .reason = monitor->reason,
                         .text = text, .monitor = monitor};
    return ctx->actor_class->on_signal(ctx, state, &signal);
}

void opd_monitor_start(opd_ctx *ctx, opd_monitor *monitor, opd_pid pid) {
    OPD__ASSERT_MAY_START(ctx);
    opd_monitor_stop(monitor);
    *monitor = (opd_monitor){.ctx = ctx, .pid = pid, .reason = OPD_ERR_CLOSED};
    monitor->event.to = ctx->pid;
    monitor->event.deliver = deliver_down;
    opd_list_init(&monitor->watched);
    opd_list_push_back(&ctx->monitors, &monitor->owned);
    OPD__TAP(ctx->system, .kind = OPD_TAP_MONITORED, .from = pid, .to = ctx->pid,
             .monitor = monitor);
    opd_ctx *target = opd__actor_find(ctx->system, pid);
    if (target != NULL) {
        opd_list_push_back(&target->watchers, &monitor->watched);
        return;
    }
    opd__text_copy(monitor->text, sizeof monitor->text, "it was gone before");
    opd_event_post(ctx->system, &monitor->event);
}

void opd_monitor_stop(opd_monitor *monitor) {
    const opd_ctx *ctx = monitor->ctx;
    if (ctx == NULL) return;
    OPD__TAP(ctx->system, .kind = OPD_TAP_UNMONITORED, .from = monitor->pid, .to = ctx->pid,
             .monitor = monitor);
    opd_event_cancel(&monitor->event);
    opd_list_remove(&monitor->watched);
    opd_list_remove(&monitor->owned);
    monitor->ctx = NULL;
}

void opd__monitors_notify(opd_ctx *ctx) {
    for (opd_list *n; (n = opd_list_pop_front(&ctx->watchers)) != NULL;) {
        opd_monitor *monitor = OPD_CONTAINER_OF(n, opd_monitor, watched);
        monitor->reason = ctx->reason;
        memcpy(monitor->text, ctx->text, sizeof monitor->text);
        opd_event_post(ctx->system, &monitor->event);
    }
}

/* ---- cleanups -------------------------------------------------------------------------- */

void opd_cleanup_start(opd_ctx *ctx, opd_cleanup *cleanup, void (*run)(opd_cleanup *cleanup)) {
    OPD__ASSERT_MAY_START(ctx);
    cleanup->run = run;
    opd_list_push_front(&ctx->cleanups, &cleanup->node); /* newest first */
}

void opd_cleanup_stop(opd_cleanup *cleanup) {
    if (cleanup->node.next != NULL) opd_list_remove(&cleanup->node);
}

void opd__resources_release(opd_ctx *ctx) {
    for (opd_list *n; (n = opd_list_pop_front(&ctx->cleanups)) != NULL;) {
        opd_cleanup *cleanup = OPD_CONTAINER_OF(n, opd_cleanup, node);
        cleanup->run(cleanup);
    }
    while (!opd_list_empty(&ctx->timers))
        opd_timer_stop(OPD_CONTAINER_OF(ctx->timers.next, opd_timer, owned));
    while (!opd_list_empty(&ctx->monitors))
        opd_monitor_stop(OPD_CONTAINER_OF(ctx->monitors.next, opd_monitor, owned));
    while (!opd_list_empty(&ctx->watches))
        opd_slot_watch_stop(OPD_CONTAINER_OF(ctx->watches.next, opd_slot_watch, owned));
}
