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

    /* Releases everything; anything still open on the loop is the owner's mistake and an
     * error (INTERNAL). */
    opd_err (*destroy)(opd_env *env);
} opd_env_ops;

/* Every env begins with its table. */
struct opd_env {
    const opd_env_ops *ops;
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
