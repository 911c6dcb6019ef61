/* test_shared.c - the small things that every thread may touch: reference counts, the log's
 * level, error texts, the cancel flag of a job. Meant for ThreadSanitizer (make tsan). */
#include <pthread.h>
#include <stdatomic.h>

#include "opd/buf.h"
#include "opd/log.h"
#include "tests/support/sys_test.h"

enum { THREADS = 4, ROUNDS = 2000 };

static void on_threads(void *(*main)(void *), void *arg) {
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) CHECK_INT(pthread_create(&threads[i], NULL, main, arg), 0);
    for (int i = 0; i < THREADS; i++) CHECK_INT(pthread_join(threads[i], NULL), 0);
}

/* ---- buffers --------------------------------------------------------------------------- */

typedef struct counted {
    char bytes[64];
    int sum;
    atomic_int freed;
} counted;

/* Reads what every thread wrote or read before it let go: the last release sees all of it. */
static void free_counted(void *arg, void *data) {
    counted *c = arg;
    c->sum = 0;
    for (size_t i = 0; i < sizeof c->bytes; i++) c->sum += ((char *)data)[i];
    c->bytes[0] = 99;
    atomic_fetch_add(&c->freed, 1);
}

static void *hold_and_release(void *arg) {
    opd_buf *buf = arg;
    for (int i = 0; i < ROUNDS; i++) opd_buf_release(opd_buf_retain(buf));
    CHECK_INT(((const char *)opd_buf_data(buf))[1], 2);
    opd_buf_release(buf); /* this thread's own reference */
    return NULL;
}

TEST(the_last_of_many_threads_frees_a_buffer) {
    counted c = {.bytes = {1, 2, 3}};
    opd_buf *buf = NULL;
    CHECK_OK(opd_buf_wrap(NULL, c.bytes, sizeof c.bytes, free_counted, &c, &buf));
    for (int i = 1; i < THREADS; i++) (void)opd_buf_retain(buf);
    on_threads(hold_and_release, buf);
    CHECK_INT(atomic_load(&c.freed), 1);
    CHECK_INT(c.sum, 6);
    CHECK_INT(c.bytes[0], 99);
}

/* ---- log and error texts ----------------------------------------------------------------- */

static void count_line(void *arg, opd_log_level level, const char *text) {
    (void)level;
    (void)text;
    atomic_fetch_add((atomic_int *)arg, 1);
}

static void *log_lines(void *arg) {
    (void)arg;
    for (int i = 0; i < ROUNDS; i++) {
        opd_log_level_set(i % 2 == 0 ? OPD_LOG_LEVEL_DEBUG : OPD_LOG_LEVEL_WARN);
        OPD_LOG_WARN("line %d", i);
        OPD_LOG_DEBUG("line %d", i);
    }
    return NULL;
}

TEST(threads_log_while_the_level_changes) {
    atomic_int lines = 0;
    opd_log_sink_set(count_line, &lines);
    on_threads(log_lines, NULL);
    opd_log_sink_set(NULL, NULL);
    CHECK(atomic_load(&lines) >= THREADS * ROUNDS); /* every warning */
}

static void *fail_often(void *arg) {
    char expected[64];
    (void)snprintf(expected, sizeof expected, "thread %p", (void *)&expected);
    (void)arg;
    for (int i = 0; i < ROUNDS; i++) {
        CHECK_ERR(opd_fail(OPD_ERR_IO, "thread %p", (void *)&expected), OPD_ERR_IO);
        CHECK_STR(opd_err_context(), expected);
    }
    return NULL;
}

TEST(each_thread_has_its_own_error_text) { on_threads(fail_often, NULL); }

/* ---- cancelling a job --------------------------------------------------------------------- */

typedef struct canceller {
    opd_lane *lane;
    opd_job job;
    opd_timer timer;
    atomic_bool began;
    opd_err ended;
} canceller;

static opd_err run_until_cancelled(opd_job *job) {
    canceller *c = job->arg;
    atomic_store(&c->began, true);
    while (!opd_job_cancelled(job)) {
    }
    return opd_fail(OPD_ERR_CANCELLED, "asked to");
}

static opd_err cancelled(opd_ctx *ctx, void *state, opd_job *job) {
    (void)state;
    ((canceller *)job->arg)->ended = job->err;
    opd_exit(ctx, OPD_OK);
    return OPD_OK;
}

static opd_err cancel_once_it_began(opd_ctx *ctx, void *state, opd_timer *timer) {
    canceller *c = timer->arg;
    (void)ctx;
    (void)state;
    if (!atomic_load(&c->began)) return opd_timer_start_after(timer, 100000);
    opd_job_cancel(&c->job);
    return OPD_OK;
}

static opd_err canceller_start(opd_ctx *ctx, void *state, const void *config) {
    canceller *c = *(canceller *const *)config;
    (void)state;
    c->job = (opd_job){.run = run_until_cancelled, .done = cancelled, .arg = c};
    c->timer.arg = c;
    opd_timer_init(&c->timer, ctx, cancel_once_it_began);
    CHECK_OK(opd_job_submit(ctx, c->lane, &c->job));
    return opd_timer_start_after(&c->timer, 0);
}

static const opd_actor_class canceller_class = {.name = "canceller", .on_start = canceller_start};

TEST(a_running_job_sees_that_it_was_cancelled) {
    opd_test_sys t;
    opd_pid pid = 0;
    static canceller c;
    canceller *config = &c;
    sys_up(&t, NULL);
    CHECK_OK(opd_lane_open(t.system, "test", 1, &c.lane));
    CHECK_OK(opd_spawn(t.system, &canceller_class, NULL, &config, &pid));
    CHECK_OK(opd_system_run(t.system));
    CHECK_INT(c.ended, OPD_ERR_CANCELLED);
    sys_down(&t);
}
