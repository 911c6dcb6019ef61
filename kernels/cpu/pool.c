/* kernels/cpu/pool.c - see pool.h for the protocol and why it uses atomics.
 *
 * Every atomic below is sequentially consistent: two places need it (Dekker's pattern), the
 * worker's "inside, then open" against the caller's "close, then inside", and the sleeper's
 * "sleeping, then open" against the caller's "open, then sleeping".
 */
#include "kernels/cpu/pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/base/check.h"
#include "opd/alloc.h"

enum { THREADS_MAX = 1024, SPINS_BEFORE_SLEEP = 4000, SPINS_BEFORE_YIELD = 2000 };

typedef struct worker {
    opd_pool *pool;
    size_t index; /* 1..threads-1; the caller is 0 */
    pthread_t thread;
} worker;

struct opd_pool {
    size_t threads;
    worker *workers;     /* [threads - 1] */
    size_t started;      /* workers really running */
    uint64_t generation; /* jobs so far; the caller's own */
    /* the job: written by the caller before `open`, read by workers inside */
    opd_pool_fn fn;
    void *arg;
    size_t count;
    atomic_size_t next;      /* first item nobody has taken */
    _Atomic uint64_t open;   /* generation of the job to work on, 0 = none */
    atomic_size_t inside;    /* workers that may be reading the job */
    atomic_size_t sleeping;  /* workers on the condition variable */
    atomic_bool stop;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    const opd_alloc *alloc;
};

static void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static bool has_news(opd_pool *pool, uint64_t last) {
    uint64_t open = atomic_load(&pool->open);
    return (open != 0 && open != last) || atomic_load(&pool->stop);
}

/* Returns when there is a job other than `last`, or the pool stops. */
static void wait_for_news(opd_pool *pool, uint64_t last) {
    for (int i = 0; i < SPINS_BEFORE_SLEEP; i++) {
        if (has_news(pool, last)) return;
        relax();
    }
    pthread_mutex_lock(&pool->mutex);
    atomic_fetch_add(&pool->sleeping, 1);
    while (!has_news(pool, last)) pthread_cond_wait(&pool->wake, &pool->mutex);
    atomic_fetch_sub(&pool->sleeping, 1);
    pthread_mutex_unlock(&pool->mutex);
}

static void take_items(opd_pool *pool, size_t index) {
    for (;;) {
        size_t item = atomic_fetch_add(&pool->next, 1);
        if (item >= pool->count) return;
        pool->fn(pool->arg, index, item);
    }
}

static void *worker_main(void *arg) {
    worker *self = arg;
    opd_pool *pool = self->pool;
    uint64_t last = 0;
    for (;;) {
        wait_for_news(pool, last);
        if (atomic_load(&pool->stop)) return NULL;
        uint64_t open = atomic_load(&pool->open);
        if (open == 0) continue; /* closed while we woke */
        last = open;
        atomic_fetch_add(&pool->inside, 1);
        if (atomic_load(&pool->open) == last) take_items(pool, self->index);
        atomic_fetch_sub(&pool->inside, 1);
    }
}

void opd_pool_run(opd_pool *pool, size_t count, opd_pool_fn fn, void *arg) {
    if (pool->started == 0 || count <= 1) {
        for (size_t i = 0; i < count; i++) fn(arg, 0, i);
        return;
    }
    pool->fn = fn;
    pool->arg = arg;
    pool->count = count;
    atomic_store(&pool->next, 0);
    atomic_store(&pool->open, ++pool->generation);
    if (atomic_load(&pool->sleeping) > 0) {
        pthread_mutex_lock(&pool->mutex);
        pthread_cond_broadcast(&pool->wake);
        pthread_mutex_unlock(&pool->mutex);
    }
    take_items(pool, 0);
    atomic_store(&pool->open, 0);
    for (int i = 0; atomic_load(&pool->inside) != 0; i++) {
        if (i < SPINS_BEFORE_YIELD) relax();
        else sched_yield();
    }
}

opd_err opd_pool_create(size_t threads, const opd_alloc *alloc, opd_pool **out_pool) {
    *out_pool = NULL;
    if (threads < 1 || threads > THREADS_MAX)
        return opd_fail(OPD_ERR_INVALID, "threads: %zu is not in 1..%d", threads, THREADS_MAX);
    opd_pool *pool = opd_mem_get(alloc, sizeof *pool);
    if (pool == NULL) return opd_fail(OPD_ERR_NOMEM, "thread pool");
    pool->alloc = alloc;
    pool->threads = threads;
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->wake, NULL);
    if (threads > 1) {
        pool->workers = opd_mem_get(alloc, (threads - 1) * sizeof *pool->workers);
        if (pool->workers == NULL) {
            opd_pool_destroy(pool);
            return opd_fail(OPD_ERR_NOMEM, "thread pool of %zu", threads);
        }
    }
    for (size_t i = 0; i + 1 < threads; i++) {
        pool->workers[i] = (worker){.pool = pool, .index = i + 1};
        if (pthread_create(&pool->workers[i].thread, NULL, worker_main, &pool->workers[i]) != 0) {
            opd_pool_destroy(pool);
            return opd_fail(OPD_ERR_LIMIT, "thread %zu of %zu; configure fewer", i + 1, threads);
        }
        pool->started++;
    }
    *out_pool = pool;
    return OPD_OK;
}

void opd_pool_destroy(opd_pool *pool) {
    if (pool == NULL) return;
    atomic_store(&pool->stop, true);
    pthread_mutex_lock(&pool->mutex);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
    for (size_t i = 0; i < pool->started; i++) pthread_join(pool->workers[i].thread, NULL);
    pthread_mutex_destroy(&pool->mutex);
    pthread_cond_destroy(&pool->wake);
    opd_mem_free(pool->alloc, pool->workers);
    opd_mem_free(pool->alloc, pool);
}

size_t opd_pool_threads(const opd_pool *pool) { return pool->threads; }
