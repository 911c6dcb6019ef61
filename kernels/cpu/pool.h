/* kernels/cpu/pool.h - the threads that share one lane's kernels.
 *
 * A pool of N threads is the calling thread plus N-1 workers. opd_pool_run hands out items
 * 0..count-1 one by one; which thread computes which item is not fixed, so an item must write
 * only its own results and results must not depend on the split.
 *
 * Why atomics here, where the rest of opd sends messages: one kernel lasts microseconds and a
 * training step has hundreds of them; a mailbox round trip costs more than the kernel. The
 * protocol is small: `open` names the current job, a worker counts itself `inside` before it
 * looks at the job, and the caller closes the job and waits for `inside` to be 0 before it
 * returns. Workers spin for some microseconds after a job and then sleep on a condition
 * variable, so that an idle lane costs nothing and two processes can share two cores.
 *
 * Thread: create, run and destroy on one thread at a time. N = 1 makes no thread at all.
 */
#ifndef OPD_KERNELS_CPU_POOL_H
#define OPD_KERNELS_CPU_POOL_H

#include <stddef.h>

#include "opd/err.h"

struct opd_alloc;
typedef struct opd_pool opd_pool;

/* One item of a job; `worker` in 0..threads-1 names the thread (for scratch memory). */
typedef void (*opd_pool_fn)(void *arg, size_t worker, size_t item);

/* Starts threads-1 workers. Errors: INVALID (0 or more than 1024 threads), NOMEM, LIMIT (the
 * system refuses a thread). Caller destroys. */
OPD_MUST_CHECK opd_err opd_pool_create(size_t threads, const struct opd_alloc *alloc,
                                       opd_pool **out_pool);

/* Stops and joins the workers; NULL is legal. */
void opd_pool_destroy(opd_pool *pool);

/* Runs fn(arg, worker, item) for every item < count; returns when all are done. */
void opd_pool_run(opd_pool *pool, size_t count, opd_pool_fn fn, void *arg);

/* Threads, the caller included. */
size_t opd_pool_threads(const opd_pool *pool);

#endif
