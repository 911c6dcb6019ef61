/* opd/env.h - where time, wake-ups, randomness and compute threads come from.
 *
 * An env is one loop on one thread. An opd_system (opd/actor.h) attaches to it; nothing else
 * in opd reads a clock or starts a thread for actors. env_uv is the real one; a simulated
 * one implements the same table.
 *
 * The contract between the two: the env calls `turn` at least once after every wake, every
 * expired timer and every I/O callback, before it sleeps; while `turn` returns true
 * (work is left) the env polls I/O without sleeping and calls it again.
 *
 * Thread: the loop's, except where a function says "any thread".
 */
#ifndef OPD_ENV_H
#define OPD_ENV_H

#include <stdbool.h>
#include <stdint.h>

#include "opd/alloc.h"
#include "opd/err.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct opd_env opd_env;
typedef struct opd_env_lane opd_env_lane;

/* One piece of work for a lane; embedded by its owner and alive until `done` was called. */
typedef struct opd_env_task {
    struct opd_env_task *next;          /* the lane's */
    void (*run)(struct opd_env_task *);  /* on the lane's thread */
    void (*done)(struct opd_env_task *); /* any thread, right after run; must be thread-safe */
} opd_env_task;

enum { OPD_ENV_LANE_NAME_SIZE = 16 };

/* Places where a simulated env may make something fail (opd/sim.h). Each is an error that the
 * call may return in earnest, so code that is right in the simulation is right outside. */
typedef enum opd_fault {
    OPD_FAULT_SEND_AGAIN,    /* opd_send: AGAIN */
    OPD_FAULT_LINK_AGAIN,    /* opd_link_send: AGAIN; the CREDIT that is due then follows */
    OPD_FAULT_REQUEST_AGAIN, /* opd_request: AGAIN */
    OPD_FAULT_MSG_CREATE,    /* opd_msg_create: LIMIT, the pool is empty */
    OPD_FAULT_ACTOR_CRASH,   /* an actor fails (REMOTE) before it handles a message */
    OPD_FAULT_JOB,           /* a job ends with REMOTE and is not run */
    OPD_FAULT_ALLOC,         /* an allocation through opd_sim_alloc fails */
    OPD_FAULT_NET_REFUSE,    /* a connection is refused */
    OPD_FAULT_NET_RESET,     /* a connection is lost at some byte */
    OPD_FAULT_NET_SLOW,      /* a peer stops reading for a while */
    OPD_FAULT_NET_PARTITION, /* two hosts do not hear each other for a while */
    OPD_FAULT_COUNT
} opd_fault;

typedef struct opd_env_ops {
    /* Monotonic and wall clock in nanoseconds. Any thread. */
    uint64_t (*now_ns)(opd_env *env);
    uint64_t (*wall_ns)(opd_env *env);
    /* 64 unpredictable bits (env_uv) or seeded ones (simulation). */
    uint64_t (*random)(opd_env *env);

    /* Sets who is called by the loop; NULL detaches. One at a time. */
    void (*attach)(opd_env *env, bool (*turn)(void *arg), void *arg);
    /* Makes the loop call `turn` soon. Any thread. */
    void (*wake)(opd_env *env);
    /* Makes the loop call `turn` at at_ns or a little later; replaces the earlier time;
     * UINT64_MAX disarms. */
    void (*timer_arm)(opd_env *env, uint64_t at_ns);

    /* Runs the loop until `stop`. Errors: IO. */
    opd_err (*run)(opd_env *env);
    void (*stop)(opd_env *env);

    /* A compute thread that runs tasks one after another in order of submission. submit
     * cannot fail: the caller bounds the queue. close waits until every submitted task is
     * done, then ends the thread. Errors of open: NOMEM, LIMIT. */
    opd_err (*lane_open)(opd_env *env, const char *name, opd_env_lane **out_lane);
    void (*lane_submit)(opd_env_lane *lane, opd_env_task *task);
    void (*lane_close)(opd_env_lane *lane);

    /* The simulation's part; all three NULL in a real env.
     * choose: which of count >= 1 ready actors is next, as an index; an actor's turn is then a
     * single callback, so that everything can happen between any two. NULL: first come, first
     * served. turned: that actor's turn begins. fault: whether the site fails this time, for
     * the actor or thing of that name; if so, this thread's error context says why. */
    uint32_t (*choose)(opd_env *env, uint32_t count);
    void (*turned)(opd_env *env, uint64_t pid, const char *name);
    bool (*fault)(opd_env *env, opd_fault site, const char *name);

    /* Releases everything; anything still open on the loop is the owner's mistake and an
     * error (INTERNAL). */
    opd_err (*destroy)(opd_env *env);
} opd_env_ops;

struct opd_tcp_ops; /* transports/tcp.h */
struct opd_system;  /* opd/actor.h */

/* Every env begins with its tables. tcp NULL: sockets of the operating system. system: the one that
 * is attached, or NULL. */
struct opd_env {
    const opd_env_ops *ops;
    const struct opd_tcp_ops *tcp;
    struct opd_system *system;
};

/* The real env: a libuv loop with its own eventfd for wake-ups. Errors: NOMEM, IO.
 * Freed by opd_env_destroy. */
opd_err opd_env_uv_create(const opd_alloc *alloc, opd_env **out_env) OPD_MUST_CHECK;

/* Calls of the table, for readers. */
uint64_t opd_env_now_ns(opd_env *env);
opd_err opd_env_run(opd_env *env) OPD_MUST_CHECK;
void opd_env_stop(opd_env *env);

/* Ends an env of any kind; NULL is legal. Errors: INTERNAL if a handle is still open on the
 * loop (the text says how many and of which kind). */
opd_err opd_env_destroy(opd_env *env) OPD_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
