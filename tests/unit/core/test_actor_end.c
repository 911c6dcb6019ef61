/* test_actor_end.c - what an actor leaves behind when it fails: nothing. Its timers do not fire, its
 * monitors do not tell, what it held of others comes back to them, what comes late is dropped. */
#include <time.h>

#include "core/base/check.h"
#include "tests/support/sys_test.h"

static const uint64_t MS = 1000000;

enum { ASK = 1, BULK, DIE };

typedef struct victim {
    opd_timer timers[2];
    opd_monitor monitor;
    opd_slot_watch watch;
    opd_job job;
    opd_msg *held[3]; /* a request, two link messages */
    size_t count;
} victim;

typedef struct watcher {
    opd_link *link;
    opd_monitor first, second, stopped;
    opd_timer linger;
    int downs, credits, answers;
} watcher;

typedef struct scene {
    opd_test_sys t;
    opd_slot *slot;
    opd_lane *lane;
    opd_pid victim, short_lived;
    bool ended; /* the victim: no callback of it but on_stop may come */
    bool freed;
} scene;

static scene *now; /* of the running case */

static opd_err never_timer(opd_ctx *ctx, void *state, opd_timer *timer) {
    (void)ctx;
    (void)state;
    (void)timer;
    CHECK(!now->ended);
    return OPD_OK;
}

static opd_err never_changed(opd_ctx *ctx, void *state, opd_slot_watch *watch) {
    (void)ctx;
    (void)state;
    (void)watch;
    CHECK(!now->ended);
    return OPD_OK;
}

static opd_err run_slow(opd_job *job) {
    for (int i = 0; i < 2000 && !opd_job_cancelled(job); i++) {
        struct timespec tenth = {.tv_nsec = 100000};
        nanosleep(&tenth, NULL);
    }
    return OPD_OK;
}

static opd_err never_done(opd_ctx *ctx, void *state, opd_job *job) {
    (void)ctx;
    (void)state;
    (void)job;
    CHECK(false);
    return OPD_OK;
}

static opd_err victim_start(opd_ctx *ctx, void *state, const void *config) {
    victim *v = state;
    (void)config;
    for (int i = 0; i < 2; i++) {
        opd_timer_init(&v->timers[i], ctx, never_timer);
        CHECK_OK(opd_timer_start_after(&v->timers[i], 20 * MS + (uint64_t)i));
    }
    opd_monitor_start(ctx, &v->monitor, now->short_lived);
    opd_slot_watch_start(ctx, now->slot, &v->watch, never_changed);
    v->job = (opd_job){.run = run_slow, .done = never_done};
    return opd_job_submit(ctx, now->lane, &v->job);
}

static opd_err victim_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    victim *v = state;
    if (opd_msg_kind(msg) == DIE) {
        now->ended = true;
        return opd_fail(OPD_ERR_IO, "told to");
    }
    opd_msg_take(ctx, msg);
    v->held[v->count++] = msg;
    return OPD_OK;
}

static opd_err victim_signal(opd_ctx *ctx, void *state, const opd_signal *signal) {
    (void)ctx;
    (void)state;
    (void)signal;
    CHECK(!now->ended);
    return OPD_OK;
}

static void victim_stop(opd_ctx *ctx, void *state) {
    victim *v = state;
    (void)ctx;
    CHECK(!v->job.submitted); /* its memory was the job's until now */
    now->freed = true;
    for (size_t i = 0; i < v->count; i++) opd_msg_release(v->held[i]);
}

static const opd_actor_class victim_class = {
    .name = "victim", .state_size = sizeof(victim), .on_start = victim_start,
    .on_message = victim_message, .on_signal = victim_signal, .on_stop = victim_stop};

static const opd_actor_class idle_class = {.name = "idle"};

/* ---- who deals with it ---- */

static opd_msg *new_msg(opd_ctx *ctx, uint16_t kind) {
    opd_msg *msg = NULL;
    char body[100] = {0};
    CHECK_OK(opd_msg_create(opd_self_system(ctx), kind, &msg));
    CHECK_OK(opd_msg_body_set(msg, body, sizeof body));
    return msg;
}

static opd_err answered(opd_ctx *ctx, void *state, void *arg, opd_err err, opd_msg *reply) {
    (void)ctx;
    (void)arg;
    watcher *w = state;
    CHECK(reply == NULL);
    CHECK_INT(err, OPD_ERR_CLOSED);
    w->answers++;
    return OPD_OK;
}

static opd_err linger_over(opd_ctx *ctx, void *state, opd_timer *timer) {
    watcher *w = state;
    (void)timer;
    opd_msg *late = new_msg(ctx, BULK);
    CHECK(now->freed && w->downs == 2 && w->answers == 3);
    CHECK_INT(opd_link_msgs_used(w->link), 0); /* held, unread: all came back */
    CHECK_INT(opd_link_bytes_used(w->link), 0);
    CHECK_ERR(opd_link_send(ctx, w->link, late), OPD_ERR_CLOSED);
    opd_msg_release(late);
    CHECK_INT(opd_system_stats_get(opd_self_system(ctx)).leaked, 0);
    opd_system_stop(opd_self_system(ctx), OPD_OK);
    return OPD_OK;
}

static opd_err watcher_start(opd_ctx *ctx, void *state, const void *config) {
    watcher *w = state;
    (void)config;
    opd_monitor_start(ctx, &w->first, now->victim);
    opd_monitor_start(ctx, &w->second, now->victim);
    opd_monitor_start(ctx, &w->stopped, now->victim);
    CHECK_OK(opd_link_open(ctx, now->victim, 3, 1000, &w->link));
    for (int i = 0; i < 2; i++) CHECK_OK(opd_link_send(ctx, w->link, new_msg(ctx, BULK)));
    CHECK_OK(opd_request(ctx, now->victim, new_msg(ctx, ASK), OPD_NO_DEADLINE, answered, NULL, NULL));
    CHECK_OK(opd_send(ctx, now->victim, new_msg(ctx, DIE)));
    /* unread when it dies, a link message and two requests */
    CHECK_OK(opd_link_send(ctx, w->link, new_msg(ctx, BULK)));
    for (int i = 0; i < 2; i++)
        CHECK_OK(opd_request(ctx, now->victim, new_msg(ctx, ASK), OPD_NO_DEADLINE, answered, NULL,
                             NULL));
    opd_timer_init(&w->linger, ctx, linger_over);
    return OPD_OK;
}

static opd_err watcher_signal(opd_ctx *ctx, void *state, const opd_signal *signal) {
    watcher *w = state;
    if (signal->kind != OPD_SIGNAL_DOWN) return OPD_OK;
    CHECK(signal->monitor != &w->stopped && signal->pid == now->victim);
    CHECK_INT(signal->reason, OPD_ERR_IO);
    CHECK_STR(signal->text, "told to");
    CHECK(!opd_alive(opd_self_system(ctx), signal->pid));
    opd_monitor_stop(&w->stopped); /* its DOWN is queued already: taken back */
    opd_buf *buf;
    CHECK_OK(opd_buf_create(NULL, 8, &buf));
    opd_slot_put(now->slot, buf, 1); /* the dead one watched it */
    opd_buf_release(buf);
    opd_stop(opd_self_system(ctx), now->short_lived); /* the dead one monitored it */
    return ++w->downs == 1 ? opd_timer_start_after(&w->linger, 60 * MS) : OPD_OK;
}

static const opd_actor_class watcher_class = {
    .name = "watcher", .state_size = sizeof(watcher), .on_start = watcher_start,
    .on_signal = watcher_signal};

TEST(a_failed_actor_leaves_nothing_behind) {
    scene s = {.ended = false};
    opd_pid watcher_pid;
    now = &s;
    sys_up(&s.t, NULL);
    CHECK_OK(opd_slot_create(s.t.system, &s.slot));
    CHECK_OK(opd_lane_open(s.t.system, "lane", 1, &s.lane));
    CHECK_OK(opd_spawn(s.t.system, &idle_class, NULL, NULL, &s.short_lived));
    CHECK_OK(opd_spawn(s.t.system, &victim_class, NULL, NULL, &s.victim));
    CHECK_OK(opd_spawn(s.t.system, &watcher_class, NULL, NULL, &watcher_pid));
    CHECK_OK(opd_system_run(s.t.system));
    opd_slot_destroy(s.slot);
    sys_down(&s.t);
}
