/* lane.c - a compute thread of the real env (opd/env.h).
 *
 * Invariants: one producer (the loop), one consumer (the thread); tasks run in order; closing
 * waits for the queue to empty. The lock guards first, last and closing, and is never held
 * while a task runs. Thread: as stated per function. lane_close frees.
 */
#include "core/env/lane.h"

#include <pthread.h>
#include <stdio.h>

#include "core/base/check.h"

struct opd_env_lane {
    const opd_alloc *alloc;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    opd_env_task *first, *last;
    bool closing;
    char name[OPD_ENV_LANE_NAME_SIZE];
};

/* The next task, waiting for it; NULL: closing and nothing is left. */
static opd_env_task *next_task(opd_env_lane *lane) {
    (void)pthread_mutex_lock(&lane->lock);
    while (lane->first == NULL && !lane->closing)
        (void)pthread_cond_wait(&lane->changed, &lane->lock);
    opd_env_task *task = lane->first;
    if (task != NULL) {
        lane->first = task->next;
        if (lane->first == NULL) lane->last = NULL;
    }
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
    }
    return NULL;
}

opd_err opd__lane_open(const opd_alloc *alloc, const char *name, opd_env_lane **out_lane) {
    opd_env_lane *lane = opd_mem_get(alloc, sizeof *lane);
    if (lane == NULL) return opd_fail(OPD_ERR_NOMEM, "lane %s", name);
    lane->alloc = alloc;
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
    (void)pthread_mutex_lock(&lane->lock);
    if (lane->last == NULL)
        lane->first = task;
    else
        lane->last->next = task;
    lane->last = task;
    (void)pthread_cond_signal(&lane->changed);
    (void)pthread_mutex_unlock(&lane->lock);
}

void opd__lane_close(opd_env_lane *lane) {
    (void)pthread_mutex_lock(&lane->lock);
    lane->closing = true;
    (void)pthread_cond_signal(&lane->changed);
    (void)pthread_mutex_unlock(&lane->lock);
    (void)pthread_join(lane->thread, NULL);
    (void)pthread_cond_destroy(&lane->changed);
    (void)pthread_mutex_destroy(&lane->lock);
    opd_mem_free(lane->alloc, lane);
}
