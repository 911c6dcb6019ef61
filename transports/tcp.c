/* tcp.c - the functions of tcp.h: each goes to the table of its env or object (tcp_ops.h).
 * Thread: the loop. Nothing is owned here. */
#include "opd/env.h"
#include "transports/tcp_ops.h"

static const opd_tcp_ops *ops_of(const struct opd_env *env) {
    return env->tcp != NULL ? env->tcp : &opd__tcp_uv_ops;
}

opd_err opd_tcp_connect(struct opd_env *env, const opd_alloc *alloc, const char *host,
                        uint16_t port, const opd_tcp_events *events, void *arg,
                        opd_tcp **out_tcp) {
    return ops_of(env)->connect(env, alloc, host, port, events, arg, out_tcp);
}

void opd_tcp_flush(opd_tcp *tcp) { tcp->ops->flush(tcp); }

uint64_t opd_tcp_stalled_ns(const opd_tcp *tcp) { return tcp->ops->stalled_ns(tcp); }

void opd_tcp_close(opd_tcp *tcp) { tcp->ops->close(tcp); }

void opd_tcp_finish(opd_tcp *tcp) { tcp->ops->finish(tcp); }

void opd_tcp_start(opd_tcp *tcp, const opd_tcp_events *events, void *arg) {
    tcp->ops->start(tcp, events, arg);
}

opd_err opd_tcp_listen(struct opd_env *env, const opd_alloc *alloc, const char *host,
                       uint16_t port, void (*accepted)(void *arg, opd_tcp *tcp), void *arg,
                       opd_tcp_listener **out_listener) {
    return ops_of(env)->listen(env, alloc, host, port, accepted, arg, out_listener);
}

uint16_t opd_tcp_listener_port(const opd_tcp_listener *listener) {
    return listener->ops->listener_port(listener);
}

void opd_tcp_listener_close(opd_tcp_listener *listener, void (*closed)(void *arg), void *arg) {
    listener->ops->listener_close(listener, closed, arg);
}

opd_err opd_tcp_timer_create(struct opd_env *env, const opd_alloc *alloc, void (*fired)(void *arg),
                             void *arg, opd_tcp_timer **out_timer) {
    return ops_of(env)->timer_create(env, alloc, fired, arg, out_timer);
}

void opd_tcp_timer_set(opd_tcp_timer *timer, uint64_t at_ns) { timer->ops->timer_set(timer, at_ns); }

void opd_tcp_timer_close(opd_tcp_timer *timer, void (*closed)(void *arg), void *arg) {
    timer->ops->timer_close(timer, closed, arg);
}

uint64_t opd_tcp_now_ns(struct opd_env *env) { return opd_env_now_ns(env); }
