/* dial_uv.h - from a host and a port to a connected socket, over libuv: for tcp_uv.c only.
 *
 * A name is looked up anew for each dial, in libuv's thread pool, so that the loop never waits.
 * Its addresses are tried as RFC 8305 (Happy Eyeballs) says: the families take turns, beginning with the
 * first that the resolver gave; the next attempt begins when one failed, or after 250 ms beside those
 * under way; the first that stands wins. Numeric addresses are dialled as they are.
 *
 * Invariants: (1) `done` is called exactly once, from the loop, unless the dial was stopped before;
 * (2) `gone` is called exactly once, after `done` or stop, when nothing of the dial is open any more.
 * Bounds: OPD__DIAL_ADDRESSES_MAX addresses. Thread: the loop; the lookup in a thread of libuv's. A socket
 * is a block of its own, for the winner's outlives the dial; the taker frees it with opd__socket_uv_close.
 */
#ifndef OPD_TRANSPORTS_DIAL_UV_H
#define OPD_TRANSPORTS_DIAL_UV_H

#include <uv.h>

#include "opd/alloc.h"
#include "opd/env.h"
#include "opd/err.h"

enum { OPD__DIAL_ADDRESSES_MAX = 8, OPD__DIAL_HOST_MAX = 256 };

typedef struct opd__dial_uv opd__dial_uv;

typedef struct opd__socket_uv {
    uv_tcp_t handle; /* first; its data is the taker's */
    uv_connect_t connect;
    const opd_alloc *alloc;
    opd__dial_uv *dial;          /* whose attempt it is; NULL: taken */
    void (*closed)(void *arg);   /* after it was freed; NULL: nobody */
    void *closed_arg;
} opd__socket_uv;

struct opd__dial_uv {
    struct opd_env *env;
    const opd_alloc *alloc;
    void (*done)(opd__dial_uv *dial, opd_err err, opd__socket_uv *winner); /* winner: the callee's */
    void (*gone)(opd__dial_uv *dial);
    void *arg; /* the user's */

    /* internal */
    char host[OPD__DIAL_HOST_MAX];
    uint16_t port;
    uv_getaddrinfo_t resolve;
    uv_timer_t timer; /* the next attempt, or a failure to be told later */
    struct sockaddr_storage addresses[OPD__DIAL_ADDRESSES_MAX];
    opd__socket_uv *attempts[OPD__DIAL_ADDRESSES_MAX]; /* under way */
    size_t address_count, address_next;
    unsigned open; /* handles that are not closed, and the lookup */
    int code;      /* of the last failure */
    bool resolving, over;
};

/* A socket that is not connected; NULL: no memory. */
opd__socket_uv *opd__socket_uv_create(struct opd_env *env, const opd_alloc *alloc);

/* Closes and frees it; closed(arg) follows, always later. */
void opd__socket_uv_close(opd__socket_uv *socket, void (*closed)(void *arg), void *arg);

/* Starts; the fields above `internal` are set. What goes wrong is told by `done`. */
void opd__dial_uv_start(opd__dial_uv *dial, const char *host, uint16_t port);

/* The same with count addresses that are known, of one port. */
void opd__dial_uv_start_at(opd__dial_uv *dial, const char *host, uint16_t port,
                           const struct sockaddr_storage *addresses, size_t count);

/* Gives it up: no `done` any more. Nothing happens after `done`. */
void opd__dial_uv_stop(opd__dial_uv *dial);

/* Orders addresses for the attempts: families take turns, the first one's first; within a family the
 * order stays. */
void opd__addresses_interleave(struct sockaddr_storage *addresses, size_t count);

#endif
