/* test_lane.c - a lane's thread and the loop's wake-up, where they spin and where they sleep.
 *
 * Delays between the steps go from nothing to well above OPD__SPIN_NS, so that every path of the
 * two protocols (lane.c, env_uv.c) is taken; a lost wake-up shows as the test's time limit.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "core/base/check.h"
#include "core/base/rng.h"
#include "core/env/spin.h"
#include "tests/support/sys_test.h"

static void sleep_ns(uint64_t ns) {
    struct timespec t = {.tv_sec = 0, .tv_nsec = (long)ns};
    if (ns > 0) (void)nanosleep(&t, NULL);
}

/* Nothing, or up to 3 spins' time. */
static uint64_t some_delay_ns(uint64_t seed, uint64_t i) {
    uint64_t bits = opd_rng_at(seed, i, 0, 0);
    return bits % 3 == 0 ? 0 : bits % (3 * OPD__SPIN_NS);
}

/* ---- the spin ------------------------------------------------------------------------- */

TEST(spin_sees_a_flag_and_backs_off_when_none_comes) {
    opd__spin spin;
    uint32_t set = 1, unset = 0;
    opd__spin_init(&spin);
    CHECK(opd__spin_wait(&spin, &set));
    spin.useful = true;
    for (uint32_t skips = 1; skips < OPD__SPIN_SKIPS_MAX; skips = 2 * skips + 1) {
        CHECK(!opd__spin_wait(&spin, &unset));
        CHECK_INT(spin.skips_left, skips);
        for (uint32_t i = 0; i < skips; i++) CHECK(!opd__spin_wait(&spin, &unset));
        CHECK_INT(spin.skips_left, 0);
    }
    CHECK(opd__spin_wait(&spin, &set)); /* a flag that is set costs no try ... */
    CHECK_INT(spin.skips_left, 0);
    spin.useful = false; /* ... and one processor is not kept busy with waiting */
    CHECK(!opd__spin_wait(&spin, &unset));
    CHECK_INT(spin.skips_left, 0);
}

/* ---- tasks ----------------------------------------------------------------------------- */

enum { TASKS = 2000 };

typedef struct numbered {
    opd_env_task task;
    int number;
    int *log; /* written on the lane, read after it was closed */
    atomic_int *done;
} numbered;

static void run_numbered(opd_env_task *task) {
    numbered *n = OPD_CONTAINER_OF(task, numbered, task);
    if (n->number % 7 == 0) sleep_ns(some_delay_ns(1, (uint64_t)n->number));
    n->log[n->number] = 1 + atomic_load(n->done);
}

static void done_numbered(opd_env_task *task) {
    atomic_fetch_add(OPD_CONTAINER_OF(task, numbered, task)->done, 1);
}

TEST(tasks_run_once_in_order_whether_the_lane_spins_or_sleeps) {
    static numbered tasks[TASKS];
    static int log[TASKS];
    opd_env *env = NULL;
    opd_env_lane *lane = NULL;
    atomic_int done = 0;
    CHECK_OK(opd_env_uv_create(NULL, &env));
    CHECK_OK(env->ops->lane_open(env, "test", &lane));
    for (int i = 0; i < TASKS; i++) {
        tasks[i] = (numbered){.task = {.run = run_numbered, .done = done_numbered},
                              .number = i, .log = log, .done = &done};
        env->ops->lane_submit(lane, &tasks[i].task);
        sleep_ns(some_delay_ns(2, (uint64_t)i));
        while (i % 5 == 0 && atomic_load(&done) <= i) {
        } /* an empty queue again */
    }
    env->ops->lane_close(lane);
    for (int i = 0; i < TASKS; i++) CHECK_INT(log[i], i + 1);
    CHECK_INT(atomic_load(&done), TASKS);
    CHECK_OK(opd_env_destroy(env));
}

TEST(closing_waits_for_what_was_submitted) {
    numbered tasks[3];
    int log[3];
    opd_env *env = NULL;
    CHECK_OK(opd_env_uv_create(NULL, &env));
    for (int round = 0; round < 300; round++) {
        opd_env_lane *lane = NULL;
        atomic_int done = 0;
        CHECK_OK(env->ops->lane_open(env, "test", &lane));
        sleep_ns(some_delay_ns(3, (uint64_t)round));
        for (int i = 0; i < round % 4; i++) {
            tasks[i] = (numbered){.task = {.run = run_numbered, .done = done_numbered},
                                  .number = i, .log = log, .done = &done};
            env->ops->lane_submit(lane, &tasks[i].task);
        }
        env->ops->lane_close(lane);
        CHECK_INT(atomic_load(&done), round % 4);
    }
    CHECK_OK(opd_env_destroy(env));
}

/* ---- waking the loop ------------------------------------------------------------------- */

enum { POSTS = 3000 };

typedef struct poster {
    opd_system *system;
    opd_event event;
    atomic_int posted, delivered;
    atomic_bool over;
    opd_job job; /* while it is in flight, the loop spins before it sleeps */
    opd_lane *lane;
} poster;

static void *post_main(void *arg) {
    poster *p = arg;
    for (int i = 1; i <= POSTS; i++) {
        sleep_ns(some_delay_ns(4, (uint64_t)i));
        atomic_store(&p->posted, i);
        opd_event_post_remote(p->system, &p->event);
        while (atomic_load(&p->delivered) < i) {
        }
    }
    return NULL;
}

static opd_err job_until_over(opd_job *job) {
    while (!atomic_load(&((poster *)job->arg)->over)) sleep_ns(OPD__SPIN_NS);
    return OPD_OK;
}

static opd_err job_is_over(opd_ctx *ctx, void *state, opd_job *job) {
    (void)state;
    (void)job;
    opd_exit(ctx, OPD_OK);
    return OPD_OK;
}

static opd_err on_post(opd_ctx *ctx, void *state, opd_event *event) {
    poster *p = *(poster **)state;
    (void)event;
    int number = atomic_load(&p->posted);
    CHECK_INT(number, atomic_load(&p->delivered) + 1);
    if (number == POSTS / 2) { /* the first half slept, the second spins */
        p->job = (opd_job){.run = job_until_over, .done = job_is_over, .arg = p};
        OPD_TRY(opd_job_submit(ctx, p->lane, &p->job));
    }
    if (number == POSTS) atomic_store(&p->over, true);
    atomic_store(&p->delivered, number); /* from here on the event may be posted again */
    return OPD_OK;
}

static opd_err poster_start(opd_ctx *ctx, void *state, const void *config) {
    poster *p = *(poster *const *)config;
    *(poster **)state = p;
    p->event = (opd_event){.to = opd_self(ctx), .deliver = on_post};
    return OPD_OK;
}

static const opd_actor_class poster_class = {.name = "poster", .state_size = sizeof(poster *),
                                             .on_start = poster_start};

TEST(no_wake_up_of_the_loop_is_lost) {
    static poster p;
    poster *config = &p;
    opd_test_sys t;
    opd_pid pid = 0;
    pthread_t thread;
    sys_up(&t, NULL);
    p.system = t.system;
    CHECK_OK(opd_lane_open(t.system, "test", 1, &p.lane));
    CHECK_OK(opd_spawn(t.system, &poster_class, NULL, &config, &pid));
    CHECK_INT(pthread_create(&thread, NULL, post_main, &p), 0);
    CHECK_OK(opd_system_run(t.system));
    CHECK_INT(pthread_join(thread, NULL), 0);
    CHECK_INT(atomic_load(&p.delivered), POSTS);
    sys_down(&t);
}
