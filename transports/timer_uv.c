/* timer_uv.c - the one-shot timer of tcp.h over libuv.
 *
 * libuv counts whole milliseconds from a cached time, so it can fire early; the env's clock
 * decides, and an early firing is armed again. Thread: the loop.
 */
#include <uv.h>

#include "core/actor/transport.h"
#include "core/env/env.h"
#include "transports/tcp_ops.h"

typedef struct timer_uv {
    opd_tcp_timer base; /* first */
    uv_timer_t handle;
    struct opd_env *env;
    opd_pid owner;
    const opd_alloc *alloc;
    uint64_t at_ns; /* UINT64_MAX: not armed */
    void (*fired)(void *arg);
    void (*closed)(void *arg);
    void *arg, *closed_arg;
} timer_uv;

static timer_uv *self_of(opd_tcp_timer *timer) { return (timer_uv *)(void *)timer; }

static void on_timer(uv_timer_t *handle) {
    timer_uv *timer = handle->data;
    if (opd_tcp_now_ns(timer->env) < timer->at_ns) {
        opd__timer_uv_set(&timer->base, timer->at_ns);
        return;
    }
    timer->at_ns = UINT64_MAX;
    struct opd_env *env = timer->env;
    bool entered = opd_transport_enter(env, timer->owner);
    timer->fired(timer->arg);
    opd_transport_leave(env, entered);
}

opd_err opd__timer_uv_create(struct opd_env *env, const opd_alloc *alloc, void (*fired)(void *arg),
                             void *arg, opd_tcp_timer **out_timer) {
    timer_uv *timer = opd_mem_get(alloc, sizeof *timer);
    if (timer == NULL) return opd_fail(OPD_ERR_NOMEM, "no memory for a timer");
    timer->base.ops = &opd__tcp_uv_ops;
    timer->env = env;
    timer->owner = opd_transport_owner(env);
    timer->alloc = alloc;
    timer->at_ns = UINT64_MAX;
    timer->fired = fired;
    timer->arg = arg;
    uv_timer_init(opd_env_uv_loop(env), &timer->handle); /* cannot fail */
    timer->handle.data = timer;
    *out_timer = &timer->base;
    return OPD_OK;
}

void opd__timer_uv_set(opd_tcp_timer *base, uint64_t at_ns) {
    timer_uv *timer = self_of(base);
    timer->at_ns = at_ns;
    if (at_ns == UINT64_MAX) {
        uv_timer_stop(&timer->handle);
        return;
    }
    uint64_t now_ns = opd_tcp_now_ns(timer->env);
    uint64_t left_ms = at_ns > now_ns ? (at_ns - now_ns + 999999) / 1000000 : 0;
    uv_timer_start(&timer->handle, on_timer, left_ms, 0);
}

static void on_closed(uv_handle_t *handle) {
    timer_uv *timer = handle->data;
    bool entered = opd_transport_enter(timer->env, timer->owner);
    if (timer->closed != NULL) timer->closed(timer->closed_arg);
    opd_transport_leave(timer->env, entered);
    opd_mem_free(timer->alloc, timer);
}

void opd__timer_uv_close(opd_tcp_timer *base, void (*closed)(void *arg), void *arg) {
    timer_uv *timer = self_of(base);
    timer->closed = closed;
    timer->closed_arg = arg;
    uv_close((uv_handle_t *)&timer->handle, on_closed);
}
