/* watchdog.c - a thread that names a stuck callback (env.h).
 *
 * It wakes by time alone, four times per limit, and looks at the heartbeat. What it saw last is
 * its own; the heartbeat is read with relaxed atomics; `closing` is guarded by the lock. So
 * the loop pays two stores per callback, and nothing for being watched.
 *
 *   QUIET --the same callback runs longer than the limit--> STUCK (said once)
 *   STUCK --another callback, or none--> QUIET (said once)
 *
 * Thread: its own, but start and stop (the loop's). opd_watchdog_stop frees.
 */
#include <pthread.h>
#include <time.h>

#include "core/base/check.h"
#include "core/env/env.h"
#include "opd/diagnosis.h"
#include "opd/log.h"
#include "opd/tap.h"

struct opd_watchdog {
    const opd_alloc *alloc;
    opd_system *system;
    opd_env *env;
    uint64_t limit_ns;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed; /* on CLOCK_MONOTONIC */
    bool closing;
    uint64_t stuck_began_ns; /* the callback that was named; 0: none */
    opd_heartbeat_reading stuck;
    uint64_t seen_ns; /* how long it was stuck when seen last */
};

static void look(opd_watchdog *dog) {
    opd_heartbeat_reading now;
    bool runs = opd_heartbeat_read(opd_system_heartbeat(dog->system), &now);
    if (dog->stuck_began_ns != 0 && (!runs || now.began_ns != dog->stuck_began_ns)) {
        OPD_LOG_WARN("%s returned: it held the loop for about %llu ms", dog->stuck.name,
                     (unsigned long long)(dog->seen_ns / 1000000));
        dog->stuck_began_ns = 0;
    }
    uint64_t time_ns = dog->env->ops->now_ns(dog->env);
    if (!runs || time_ns < now.began_ns || time_ns - now.began_ns < dog->limit_ns) return;
    dog->seen_ns = time_ns - now.began_ns;
    if (dog->stuck_began_ns != 0) return;
    dog->stuck_began_ns = now.began_ns;
    dog->stuck = now;
    char room[8];
    const char *what = now.is_transport ? "network input and output"
                       : now.kind == 0  ? "an event"
                                        : opd_kind_name(dog->system, now.kind, room, sizeof room);
    OPD_LOG_ERROR("%s is stuck: its handler of %s runs for %llu ms and holds the loop", now.name,
                  what, (unsigned long long)(dog->seen_ns / 1000000));
}

static void add_ns(struct timespec *time, uint64_t ns) {
    ns += (uint64_t)time->tv_nsec;
    time->tv_sec += (time_t)(ns / 1000000000);
    time->tv_nsec = (long)(ns % 1000000000);
}

static void *watch(void *arg) {
    opd_watchdog *dog = arg;
    (void)pthread_setname_np(pthread_self(), "opd watchdog");
    (void)pthread_mutex_lock(&dog->lock);
    while (!dog->closing) {
        struct timespec until;
        (void)clock_gettime(CLOCK_MONOTONIC, &until);
        add_ns(&until, dog->limit_ns / 4);
        (void)pthread_cond_timedwait(&dog->changed, &dog->lock, &until);
        if (!dog->closing) look(dog);
    }
    (void)pthread_mutex_unlock(&dog->lock);
    return NULL;
}

static void sync_init(opd_watchdog *dog) {
    pthread_condattr_t attributes;
    (void)pthread_condattr_init(&attributes);
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&dog->changed, &attributes);
    (void)pthread_condattr_destroy(&attributes);
    (void)pthread_mutex_init(&dog->lock, NULL);
}

static void sync_fini(opd_watchdog *dog) {
    (void)pthread_mutex_destroy(&dog->lock);
    (void)pthread_cond_destroy(&dog->changed);
}

opd_err opd_watchdog_start(opd_env *env, opd_system *system, const opd_alloc *alloc,
                           uint64_t limit_ms, opd_watchdog **out_watchdog) {
    if (limit_ms == 0) return opd_fail(OPD_ERR_INVALID, "a watchdog needs a limit of 1 ms or more");
    opd_watchdog *dog = opd_mem_get(alloc, sizeof *dog);
    if (dog == NULL) return opd_fail(OPD_ERR_NOMEM, "watchdog");
    dog->alloc = alloc;
    dog->env = env;
    dog->system = system;
    dog->limit_ns = limit_ms > UINT64_MAX / 1000000 ? UINT64_MAX : limit_ms * 1000000;
    sync_init(dog);
    if (pthread_create(&dog->thread, NULL, watch, dog) != 0) {
        sync_fini(dog);
        opd_mem_free(alloc, dog);
        return opd_fail(OPD_ERR_LIMIT, "cannot start the watchdog's thread");
    }
    *out_watchdog = dog;
    return OPD_OK;
}

void opd_watchdog_stop(opd_watchdog *dog) {
    if (dog == NULL) return;
    (void)pthread_mutex_lock(&dog->lock);
    dog->closing = true;
    (void)pthread_cond_signal(&dog->changed);
    (void)pthread_mutex_unlock(&dog->lock);
    (void)pthread_join(dog->thread, NULL);
    sync_fini(dog);
    opd_mem_free(dog->alloc, dog);
}
