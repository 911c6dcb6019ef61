/* test_actor_end.c - what an actor leaves behind when it fails: nothing. Its timers do not fire, its
 * monitors do not tell, what it held of others comes back to them, what comes late is dropped. */
#include <time.h>

#include "core/base/check.h"
#include "tests/support/script_actor.h"

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

/* ---- links in the last callback -------------------------------------------------------- */

typedef struct sender {
    opd_link *used, *unused, *left;
    opd_pid receiver;
    opd_msg *received;
    bool stopped;
} sender;

static opd_err receiver_keeps(opd_ctx *ctx, void *arg, opd_msg *msg) {
    sender *s = arg;
    opd_msg_take(ctx, msg);
    s->received = msg;
    return OPD_OK;
}

/* The link that it came on was closed meanwhile, and lives as long as what was sent on it. */
static void receiver_releases(opd_ctx *ctx, void *arg) {
    sender *s = arg;
    (void)ctx;
    CHECK(s->stopped && s->received != NULL);
    opd_msg_release(s->received);
}

static opd_err sender_opens(opd_ctx *ctx, void *arg) {
    sender *s = arg;
    CHECK_OK(opd_link_open(ctx, s->receiver, 1, 1000, &s->used));
    CHECK_OK(opd_link_open(ctx, s->receiver, 1, 1000, &s->unused));
    CHECK_OK(opd_link_open(ctx, s->receiver, 1, 1000, &s->left));
    CHECK_OK(opd_link_send(ctx, s->used, new_msg(ctx, BULK)));
    opd_msg *refused = new_msg(ctx, BULK);
    CHECK_ERR(opd_link_send(ctx, s->used, refused), OPD_ERR_AGAIN);
    opd_msg_release(refused);
    return OPD_OK;
}

static void sender_closes(opd_ctx *ctx, void *arg) {
    sender *s = arg;
    (void)ctx;
    opd_link_close(s->used);
    opd_link_close(s->unused);
    s->stopped = true;
}

TEST(on_stop_may_close_links_that_the_end_closed) {
    opd_test_sys t;
    sender s = {.stopped = false};
    sys_up(&t, NULL);
    s.receiver = script_spawn(&t, "receiver", (opd_script){.message = receiver_keeps,
                                                           .stop = receiver_releases, .arg = &s});
    (void)script_spawn(&t, "sender", (opd_script){.start = sender_opens, .stop = sender_closes,
                                                  .arg = &s});
    opd_system_stop(t.system, OPD_OK); /* the last that was started is the first to end */
    CHECK_OK(opd_system_run(t.system));
    CHECK(s.stopped);
    sys_down(&t);
}

/* ---- what the log says of an end -------------------------------------------------------- */

static opd_err fail_without_words(opd_ctx *ctx, void *arg, opd_msg *msg) {
    (void)ctx;
    (void)arg;
    (void)msg;
    return OPD_ERR_REMOTE;
}

static opd_err fail_with_words(opd_ctx *ctx, void *arg, opd_msg *msg) {
    (void)ctx;
    (void)arg;
    (void)msg;
    return opd_fail(OPD_ERR_REMOTE, "its own words");
}

TEST(the_log_names_the_reason_of_an_end_once) {
    opd_test_sys t;
    opd_log_memory log;
    char mute[256], wordy[256];
    const char *general = opd_err_text(OPD_ERR_REMOTE);
    (void)snprintf(mute, sizeof mute, "mute failed: %s\n", general);
    (void)snprintf(wordy, sizeof wordy, "wordy failed: its own words (%s)\n", general);
    sys_up(&t, NULL);
    opd_pid first = script_spawn(&t, "mute", (opd_script){.message = fail_without_words});
    opd_pid second = script_spawn(&t, "wordy", (opd_script){.message = fail_with_words});
    CHECK_OK(opd_post(t.system, first, script_msg(t.system, 1, 0)));
    CHECK_OK(opd_post(t.system, second, script_msg(t.system, 1, 0)));
    log_memory_start(&log);
    CHECK_OK(opd_system_run(t.system));
    opd_log_sink_set(NULL, NULL);
    CHECK_CONTAINS(log.text, mute);
    CHECK_CONTAINS(log.text, wordy);
    sys_down(&t);
}
