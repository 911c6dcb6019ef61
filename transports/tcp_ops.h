/* tcp_ops.h - the table behind tcp.h: what a network must implement. For implementers only.
 *
 * Each entry has the contract of the function of tcp.h with the same name. Streams, listeners
 * and timers begin with their table; an env without a table of its own has the one of libuv.
 */
#ifndef OPD_TRANSPORTS_TCP_OPS_H
#define OPD_TRANSPORTS_TCP_OPS_H

#include "transports/tcp.h"

typedef struct opd_tcp_ops {
    opd_err (*connect)(struct opd_env *env, const opd_alloc *alloc, const char *host,
                       uint16_t port, const opd_tcp_events *events, void *arg, opd_tcp **out_tcp);
    void (*flush)(opd_tcp *tcp);
    uint64_t (*stalled_ns)(const opd_tcp *tcp);
    void (*close)(opd_tcp *tcp);
    void (*finish)(opd_tcp *tcp);
    void (*start)(opd_tcp *tcp, const opd_tcp_events *events, void *arg);

    opd_err (*listen)(struct opd_env *env, const opd_alloc *alloc, const char *host, uint16_t port,
                      void (*accepted)(void *arg, opd_tcp *tcp), void *arg,
                      opd_tcp_listener **out_listener);
    uint16_t (*listener_port)(const opd_tcp_listener *listener);
    void (*listener_close)(opd_tcp_listener *listener, void (*closed)(void *arg), void *arg);

    opd_err (*timer_create)(struct opd_env *env, const opd_alloc *alloc, void (*fired)(void *arg),
                            void *arg, opd_tcp_timer **out_timer);
    void (*timer_set)(opd_tcp_timer *timer, uint64_t at_ns);
    void (*timer_close)(opd_tcp_timer *timer, void (*closed)(void *arg), void *arg);
} opd_tcp_ops;

struct opd_tcp {
    const opd_tcp_ops *ops;
};

struct opd_tcp_listener {
    const opd_tcp_ops *ops;
};

struct opd_tcp_timer {
    const opd_tcp_ops *ops;
};

extern const opd_tcp_ops opd__tcp_uv_ops; /* tcp_uv.c */

opd_err opd__err_of_uv(int code); /* tcp_uv.c: what a libuv code means here */

/* timer_uv.c, for that table */
opd_err opd__timer_uv_create(struct opd_env *env, const opd_alloc *alloc, void (*fired)(void *arg),
                             void *arg, opd_tcp_timer **out_timer);
void opd__timer_uv_set(opd_tcp_timer *timer, uint64_t at_ns);
void opd__timer_uv_close(opd_tcp_timer *timer, void (*closed)(void *arg), void *arg);

#endif
