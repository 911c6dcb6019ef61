/* env_uv.c - the real env: one libuv loop (opd/env.h).
 *
 * `turn` runs in a uv_prepare handle, that is before each poll, whatever woke the loop (I/O,
 * timer, eventfd). While it says that work is left, a uv_idle handle is active, which makes the
 * poll return at once. Wake-ups are our own eventfd watched by uv_poll: uv_async of libuv 1.44
 * spins in its receiver and is ten times slower.
 *
 * The wake-up protocol. `woken` says that somebody wants a turn, `asleep` that the loop may be in
 * its poll, where only the eventfd reaches it.
 *   waker: publish the event; woken = 1; if (asleep) write to the eventfd
 *   loop:  woken := 0 (exchange); turn; ...; asleep = 1; if (woken) asleep = 0, again; else poll
 * The last two steps of each are Dekker's pattern and sequentially consistent: one of the two
 * sees the other, so no wake-up is lost. The exchange reads from the waker's store (acquire), so
 * the turn after it sees the event. While a lane has work the loop looks at `woken` for some
 * microseconds (spin.h) before it goes to poll: a short job's end then costs no system call.
 * Stale values cost a spare write to the eventfd or a spare turn, nothing else.
 *
 * Thread: the loop's, but now_ns, wall_ns and wake (any). opd_env_destroy frees.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

#include "core/base/check.h"
#include "core/env/env.h"
#include "core/env/lane.h"
#include "core/env/spin.h"

enum {
    OWN_HANDLES = 4,
    CLOSING_TURNS = 100,
    POLL_EACH_NS = 1000 * 1000 /* turns in between are for spun-for events */
};

typedef struct env_uv {
    opd_env env; /* first */
    const opd_alloc *alloc;
    uv_loop_t loop;
    uv_prepare_t prepare;
    uv_idle_t idle;
    uv_timer_t timer;
    uv_poll_t wake_poll;
    int wake_fd;
    uint32_t woken, asleep; /* atomic; the protocol is above */
    uint32_t jobs;          /* atomic: tasks that lanes have not finished (lane.h) */
    opd__spin spin;
    uint64_t timer_at_ns;
    bool stopped;
    bool (*turn)(void *arg);
    void *turn_arg;
} env_uv;

static env_uv *self_of(opd_env *env) { return (env_uv *)(void *)env; }

static uint64_t clock_ns(clockid_t clock) {
    struct timespec t;
    (void)clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t uv_env_now_ns(opd_env *env) {
    (void)env;
    return clock_ns(CLOCK_MONOTONIC);
}

static uint64_t uv_env_wall_ns(opd_env *env) {
    (void)env;
    return clock_ns(CLOCK_REALTIME);
}

static uint64_t uv_env_random(opd_env *env) {
    uint64_t bits = 0;
    if (getrandom(&bits, sizeof bits, 0) != (ssize_t)sizeof bits) bits = uv_env_now_ns(env);
    return bits;
}

/* ---- the loop -------------------------------------------------------------------------- */

static void on_idle(uv_idle_t *idle) { (void)idle; }

/* Whether an event came before the loop has to sleep; if not, `asleep` is set. */
static bool news_before_sleep(env_uv *self) {
    bool expected = __atomic_load_n(&self->jobs, __ATOMIC_RELAXED) > 0;
    if (expected && opd__spin_wait(&self->spin, &self->woken)) return true;
    __atomic_store_n(&self->asleep, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&self->woken, __ATOMIC_SEQ_CST) == 0) return false;
    __atomic_store_n(&self->asleep, 0, __ATOMIC_RELAXED);
    return true;
}

static bool one_turn(env_uv *self) {
    (void)__atomic_exchange_n(&self->woken, 0, __ATOMIC_ACQ_REL);
    return self->turn != NULL && self->turn(self->turn_arg);
}

static void on_prepare(uv_prepare_t *prepare) {
    env_uv *self = prepare->data;
    uint64_t poll_at_ns = uv_env_now_ns(&self->env) + POLL_EACH_NS;
    __atomic_store_n(&self->asleep, 0, __ATOMIC_RELAXED);
    bool more = one_turn(self);
    while (!more && !self->stopped && news_before_sleep(self)) {
        more = uv_env_now_ns(&self->env) >= poll_at_ns; /* I/O is due; the next turn is, too */
        if (!more) more = one_turn(self);
    }
    uv_update_time(&self->loop); /* the poll's timeout is counted from there */
    if (more)
        (void)uv_idle_start(&self->idle, on_idle);
    else
        (void)uv_idle_stop(&self->idle);
}

/* The next prepare does the work; this only quietens the descriptor. */
static void on_wake(uv_poll_t *poll, int status, int events) {
    (void)status;
    (void)events;
    uint64_t count;
    env_uv *self = poll->data;
    while (read(self->wake_fd, &count, sizeof count) < 0 && errno == EINTR) {
    }
}

static void uv_env_attach(opd_env *env, bool (*turn)(void *arg), void *arg) {
    env_uv *self = self_of(env);
    OPD_ASSERT(turn == NULL || self->turn == NULL);
    self->turn = turn;
    self->turn_arg = arg;
    if (turn == NULL) (void)uv_idle_stop(&self->idle);
}

static void uv_env_wake(opd_env *env) {
    env_uv *self = self_of(env);
    uint64_t one = 1;
    __atomic_store_n(&self->woken, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&self->asleep, __ATOMIC_SEQ_CST) == 0) return;
    while (write(self->wake_fd, &one, sizeof one) < 0 && errno == EINTR) {
    }
}

static void start_timer(env_uv *self);

/* libuv counts in whole milliseconds and may be early by a part of one: then wait the rest. */
static void on_timer(uv_timer_t *timer) {
    env_uv *self = timer->data;
    if (uv_env_now_ns(&self->env) < self->timer_at_ns) start_timer(self);
}

static void start_timer(env_uv *self) {
    uint64_t now = uv_env_now_ns(&self->env), at_ns = self->timer_at_ns;
    uint64_t delay_ms = at_ns <= now ? 0 : (at_ns - now + 999999) / 1000000;
    uv_update_time(&self->loop);
    (void)uv_timer_start(&self->timer, on_timer, delay_ms, 0);
}

static void uv_env_timer_arm(opd_env *env, uint64_t at_ns) {
    env_uv *self = self_of(env);
    self->timer_at_ns = at_ns;
    if (at_ns == UINT64_MAX) {
        (void)uv_timer_stop(&self->timer);
        return;
    }
    start_timer(self);
}

static opd_err uv_env_run(opd_env *env) {
    env_uv *self = self_of(env);
    self->stopped = false;
    while (!self->stopped) (void)uv_run(&self->loop, UV_RUN_DEFAULT);
    return OPD_OK;
}

static void uv_env_stop(opd_env *env) {
    env_uv *self = self_of(env);
    self->stopped = true;
    uv_stop(&self->loop);
    uv_env_wake(env);
}

static opd_err uv_env_lane_open(opd_env *env, const char *name, opd_env_lane **out_lane) {
    return opd__lane_open(self_of(env)->alloc, name, &self_of(env)->jobs, out_lane);
}

/* ---- creation and end ------------------------------------------------------------------ */

typedef struct open_handles {
    const env_uv *self;
    unsigned count;
    const char *kind;
} open_handles;

static bool is_own(const env_uv *self, const uv_handle_t *handle) {
    const void *own[OWN_HANDLES] = {&self->prepare, &self->idle, &self->timer, &self->wake_poll};
    for (size_t i = 0; i < OPD_COUNTOF(own); i++)
        if ((const void *)handle == own[i]) return true;
    return false;
}

static void count_foreign(uv_handle_t *handle, void *arg) {
    open_handles *found = arg;
    if (uv_is_closing(handle) || is_own(found->self, handle)) return;
    found->count++;
    found->kind = uv_handle_type_name(uv_handle_get_type(handle));
}

static void close_own(env_uv *self) {
    uv_handle_t *own[OWN_HANDLES] = {
        (uv_handle_t *)&self->prepare, (uv_handle_t *)&self->idle, (uv_handle_t *)&self->timer,
        (uv_handle_t *)&self->wake_poll};
    for (size_t i = 0; i < OPD_COUNTOF(own); i++) uv_close(own[i], NULL);
}

/* What a killed actor closed on its way out needs a few turns of the loop to be gone. */
static open_handles let_close(env_uv *self) {
    open_handles found = {.count = 1};
    for (unsigned turn = 0; found.count > 0 && turn < CLOSING_TURNS; turn++) {
        if (turn > 0) (void)uv_run(&self->loop, UV_RUN_NOWAIT);
        found = (open_handles){.self = self};
        uv_walk(&self->loop, count_foreign, &found);
    }
    return found;
}

static opd_err uv_env_destroy(opd_env *env) {
    env_uv *self = self_of(env);
    open_handles found = let_close(self);
    if (found.count > 0)
        return opd_fail(OPD_ERR_INTERNAL, "the loop still has %u open handles, one is a %s",
                        found.count, found.kind);
    close_own(self);
    (void)uv_run(&self->loop, UV_RUN_DEFAULT); /* only close callbacks are left */
    int closed = uv_loop_close(&self->loop);
    (void)close(self->wake_fd);
    opd_mem_free(self->alloc, self);
    return closed == 0 ? OPD_OK : opd_fail(OPD_ERR_INTERNAL, "loop: %s", uv_strerror(closed));
}

static const opd_env_ops uv_ops = {
    .now_ns = uv_env_now_ns,       .wall_ns = uv_env_wall_ns,     .random = uv_env_random,
    .attach = uv_env_attach,       .wake = uv_env_wake,           .timer_arm = uv_env_timer_arm,
    .run = uv_env_run,             .stop = uv_env_stop,           .lane_open = uv_env_lane_open,
    .lane_submit = opd__lane_submit, .lane_close = opd__lane_close, .destroy = uv_env_destroy,
};

static opd_err fail_loop(env_uv *self, const char *what) {
    if (self->wake_fd >= 0) (void)close(self->wake_fd);
    opd_mem_free(self->alloc, self);
    return opd_fail(OPD_ERR_IO, "cannot create the event loop: %s", what);
}

opd_err opd_env_uv_create(const opd_alloc *alloc, opd_env **out_env) {
    env_uv *self = opd_mem_get(alloc, sizeof *self);
    if (self == NULL) return opd_fail(OPD_ERR_NOMEM, "event loop");
    self->env.ops = &uv_ops;
    self->alloc = alloc;
    opd__spin_init(&self->spin);
    self->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (self->wake_fd < 0) return fail_loop(self, "eventfd");
    if (uv_loop_init(&self->loop) != 0) return fail_loop(self, "uv_loop_init");
    if (uv_poll_init(&self->loop, &self->wake_poll, self->wake_fd) != 0) {
        (void)uv_loop_close(&self->loop);
        return fail_loop(self, "uv_poll_init");
    }
    (void)uv_prepare_init(&self->loop, &self->prepare);
    (void)uv_idle_init(&self->loop, &self->idle);
    (void)uv_timer_init(&self->loop, &self->timer);
    self->prepare.data = self->wake_poll.data = self->timer.data = self;
    (void)uv_prepare_start(&self->prepare, on_prepare);
    (void)uv_poll_start(&self->wake_poll, UV_READABLE, on_wake);
    *out_env = &self->env;
    return OPD_OK;
}

void *opd_env_uv_loop(opd_env *env) {
    OPD_ASSERT(env->ops == &uv_ops);
    return &self_of(env)->loop;
}
