/* lane.c - a compute thread of the real env (opd/env.h).
 *
 * Invariants: one producer (the loop), one consumer (the thread); tasks run in order; closing
 * waits for the queue to empty. The lock guards first, last, closing and sleeping, and is never
 * held while a task runs; what a task was given is handed over by it.
 *
 * Waiting: the thread looks at `news` without the lock for some microseconds (spin.h), then sleeps
 * on the condition variable. `news` is a hint: written under the lock (1 while there is a task,
 * or closing), read relaxed by the spinning thread, which then takes the lock to see the truth.
 * `sleeping` is set under the lock before the wait, so a submit that finds it unset need not
 * signal: the thread will look at the queue under the lock before it sleeps.
 *
 * Thread: as stated per function. lane_close frees.
 */
#include "core/env/lane.h"

#include <pthread.h>
#include <stdio.h>

#include "core/base/check.h"
#include "core/env/spin.h"

struct opd_env_lane {
    const opd_alloc *alloc;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    opd_env_task *first, *last;
    bool closing, sleeping;
    uint32_t news;  /* atomic hint */
    uint32_t *jobs; /* atomic, the env's */
    opd__spin spin; /* the thread's */
    char name[OPD_ENV_LANE_NAME_SIZE];
};

/* Under the lock: makes the hint say what is true. */
static void tell(opd_env_lane *lane) {
    bool news = lane->first != NULL || lane->closing;
    __atomic_store_n(&lane->news, news, __ATOMIC_RELAXED);
}

/* The next task, waiting for it; NULL: closing and nothing is left. */
static opd_env_task *next_task(opd_env_lane *lane) {
    (void)opd__spin_wait(&lane->spin, &lane->news);
    (void)pthread_mutex_lock(&lane->lock);
    lane->sleeping = true;
    while (lane->first == NULL && !lane->closing)
        (void)pthread_cond_wait(&lane->changed, &lane->lock);
    lane->sleeping = false;
    opd_env_task *task = lane->first;
    if (task != NULL) {
        lane->first = task->next;
        if (lane->first == NULL) lane->last = NULL;
    }
    tell(lane);
    (void)pthread_mutex_unlock(&lane->lock);
    return task;
}

static void *lane_main(void *arg) {
    opd_env_lane *lane = arg;
    (void)pthread_setname_np(pthread_self(), lane->name);
    for (opd_env_task *task; (task = next_task(lane)) != NULL;) {
        void (*done)(opd_env_task *) = task->done; /* after done the task may be gone */
        task->run(task);
        done(task);
        (void)__atomic_fetch_sub(lane->jobs, 1, __ATOMIC_RELAXED); /* a hint, too */
    }
    return NULL;
}

opd_err opd__lane_open(const opd_alloc *alloc, const char *name, uint32_t *jobs,
                       opd_env_lane **out_lane) {
    opd_env_lane *lane = opd_mem_get(alloc, sizeof *lane);
    if (lane == NULL) return opd_fail(OPD_ERR_NOMEM, "lane %s", name);
    lane->alloc = alloc;
    lane->jobs = jobs;
    opd__spin_init(&lane->spin);
    (void)snprintf(lane->name, sizeof lane->name, "%.15s", name);
    (void)pthread_mutex_init(&lane->lock, NULL);
    (void)pthread_cond_init(&lane->changed, NULL);
    if (pthread_create(&lane->thread, NULL, lane_main, lane) != 0) {
        (void)pthread_cond_destroy(&lane->changed);
        (void)pthread_mutex_destroy(&lane->lock);
        opd_mem_free(alloc, lane);
        return opd_fail(OPD_ERR_LIMIT, "cannot start the thread of lane %s", name);
    }
    *out_lane = lane;
    return OPD_OK;
}

void opd__lane_submit(opd_env_lane *lane, opd_env_task *task) {
    task->next = NULL;
    (void)__atomic_fetch_add(lane->jobs, 1, __ATOMIC_RELAXED);
    (void)pthread_mutex_lock(&lane->lock);
    if (lane->last == NULL)
        lane->first = task;
    else
        lane->last->next = task;
    lane->last = task;
    bool sleeping = lane->sleeping;
    tell(lane);
    (void)pthread_mutex_unlock(&lane->lock);
    if (sleeping) (void)pthread_cond_signal(&lane->changed); /* unlocked: it can run at once */
}

void opd__lane_close(opd_env_lane *lane) {
    (void)pthread_mutex_lock(&lane->lock);
    lane->closing = true;
    tell(lane);
    (void)pthread_cond_signal(&lane->changed);
    (void)pthread_mutex_unlock(&lane->lock);
    (void)pthread_join(lane->thread, NULL);
    (void)pthread_cond_destroy(&lane->changed);
    (void)pthread_mutex_destroy(&lane->lock);
    opd_mem_free(lane->alloc, lane);
}
