/* test_actor.c - actors, messages, timers, monitors and the ordered stop on the real loop. */
#include "core/actor/body.h"
#include "core/base/check.h"
#include "core/base/list.h"
#include "tests/support/sys_test.h"

enum { KIND_BALL = 1, KIND_OTHER = 2 };

/* ---- ping-pong ------------------------------------------------------------------------- */

typedef struct player {
    opd_pid peer;
    uint64_t rounds_left;
    bool serves;
} player;

static opd_err player_hit(opd_ctx *ctx, player *p, opd_pid to, uint64_t number) {
    opd_msg *msg = NULL;
    OPD_TRY(opd_msg_create(opd_self_system(ctx), KIND_BALL, &msg));
    opd_mp_writer w;
    opd_err err = opd_body_begin(msg, 1, 1, OPD_MSG_BODY_INLINE, &w);
    opd_mp_write_u64(&w, number);
    if (err == OPD_OK) err = opd_body_end(msg, &w);
    if (err == OPD_OK) err = opd_send(ctx, to, msg);
    if (err != OPD_OK) opd_msg_release(msg);
    (void)p;
    return err;
}

static opd_err player_start(opd_ctx *ctx, void *state, const void *config) {
    player *p = state;
    *p = *(const player *)config;
    return p->serves ? player_hit(ctx, p, p->peer, p->rounds_left) : OPD_OK;
}

static opd_err player_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    player *p = state;
    opd_mp_reader r;
    OPD_TRY(opd_body_read(msg, 1, 1, &r));
    uint64_t number = opd_mp_read_u64(&r);
    OPD_TRY(opd_mp_reader_status(&r));
    if (p->serves && --number == 0) {
        opd_system_stop(opd_self_system(ctx), OPD_OK);
        return OPD_OK;
    }
    return player_hit(ctx, p, opd_msg_from(msg), number);
}

static const opd_actor_class player_class = {
    .name = "player", .state_size = sizeof(player), .on_start = player_start,
    .on_message = player_message};

TEST(ping_pong) {
    opd_test_sys t;
    sys_up(&t, NULL);
    opd_pid a = 0, b = 0;
    player receiver = {0};
    CHECK_OK(opd_spawn(t.system, &player_class, "receiver", &receiver, &a));
    player server = {.peer = a, .rounds_left = 10000, .serves = true};
    CHECK_OK(opd_spawn(t.system, &player_class, "server", &server, &b));
    CHECK(a != b && a != OPD_PID_NOBODY && opd_alive(t.system, a));
    CHECK_OK(opd_system_run(t.system));
    CHECK(!opd_alive(t.system, a) && !opd_alive(t.system, b));
    opd_system_stats stats = opd_system_stats_get(t.system);
    CHECK_INT(stats.actors, 0);
    CHECK_INT(stats.dead_letters, 0);
    sys_down(&t);
}

/* ---- a scripted actor: every callback is a function of the test ------------------------- */

typedef struct script {
    opd_err (*start)(opd_ctx *ctx, void *arg);
    opd_err (*message)(opd_ctx *ctx, void *arg, opd_msg *msg);
    opd_err (*signal)(opd_ctx *ctx, void *arg, const opd_signal *signal);
    void (*stop)(opd_ctx *ctx, void *arg);
    void *arg;
} script;

static opd_err script_start(opd_ctx *ctx, void *state, const void *config) {
    script *s = state;
    *s = *(const script *)config;
    return s->start == NULL ? OPD_OK : s->start(ctx, s->arg);
}

static opd_err script_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    script *s = state;
    return s->message == NULL ? OPD_OK : s->message(ctx, s->arg, msg);
}

static opd_err script_signal(opd_ctx *ctx, void *state, const opd_signal *signal) {
    script *s = state;
    return s->signal == NULL ? OPD_OK : s->signal(ctx, s->arg, signal);
}

static void script_stop(opd_ctx *ctx, void *state) {
    script *s = state;
    if (s->stop != NULL) s->stop(ctx, s->arg);
}

static const opd_actor_class script_class = {
    .name = "script", .state_size = sizeof(script), .mailbox_msgs_max = 4,
    .mailbox_bytes_max = 1000, .requests_max = 3, .on_start = script_start,
    .on_message = script_message, .on_signal = script_signal, .on_stop = script_stop};

static opd_pid spawn_script(opd_test_sys *t, const char *name, script s) {
    opd_pid pid = 0;
    CHECK_OK(opd_spawn(t->system, &script_class, name, &s, &pid));
    return pid;
}

static opd_msg *new_msg(opd_system *system, uint16_t kind, size_t size) {
    opd_msg *msg = NULL;
    char bytes[OPD_MSG_BODY_MAX] = {0};
    CHECK_OK(opd_msg_create(system, kind, &msg));
    CHECK_OK(opd_msg_body_set(msg, bytes, size));
    return msg;
}

/* ---- mailboxes ------------------------------------------------------------------------- */

TEST(mailbox_is_bounded_in_messages_and_bytes_and_closed_when_dead) {
    opd_test_sys t;
    sys_up(&t, NULL);
    opd_pid a = spawn_script(&t, "a", (script){0}), b = spawn_script(&t, "b", (script){0});
    for (int i = 0; i < 4; i++) CHECK_OK(opd_post(t.system, a, new_msg(t.system, 1, 10)));
    opd_msg *fifth = new_msg(t.system, 1, 10);
    CHECK_ERR(opd_post(t.system, a, fifth), OPD_ERR_AGAIN);
    CHECK_ERR(opd_post(t.system, b + 1, fifth), OPD_ERR_CLOSED);
    CHECK_ERR(opd_post(t.system, OPD_PID_NOBODY, fifth), OPD_ERR_CLOSED);
    CHECK_ERR(opd_post(t.system, UINT64_MAX, fifth), OPD_ERR_CLOSED);
    opd_msg_release(fifth);
    CHECK_OK(opd_post(t.system, b, new_msg(t.system, 1, 900)));
    opd_msg *more = new_msg(t.system, 1, 200);
    CHECK_ERR(opd_post(t.system, b, more), OPD_ERR_AGAIN);
    opd_msg_release(more);
    opd_actor_stats stats;
    CHECK_OK(opd_actor_stats_get(t.system, a, &stats));
    CHECK_INT(stats.depth, 4);
    CHECK_INT(stats.bytes, 40);
    opd_system_kill(t.system, OPD_OK);
    CHECK_OK(opd_system_run(t.system));
    CHECK_INT(opd_system_stats_get(t.system).dead_letters, 5);
    CHECK_ERR(opd_actor_stats_get(t.system, a, &stats), OPD_ERR_CLOSED);
    sys_down(&t);
}

TEST(a_message_above_the_whole_mailbox_is_a_limit) {
    opd_test_sys t;
    sys_up(&t, NULL);
    opd_pid a = spawn_script(&t, "a", (script){0});
    opd_msg *big = new_msg(t.system, 1, 1001);
    CHECK_ERR(opd_post(t.system, a, big), OPD_ERR_LIMIT);
    opd_msg_release(big);
    sys_down(&t);
}

TEST(the_message_pool_is_bounded) {
    opd_test_sys t;
    sys_up(&t, &(opd_system_options){.messages_max = 2});
    opd_msg *a = new_msg(t.system, 1, 0), *b = new_msg(t.system, 1, 100), *c = NULL;
    CHECK_ERR(opd_msg_create(t.system, 1, &c), OPD_ERR_LIMIT);
    opd_msg_release(a);
    c = new_msg(t.system, 1, 0);
    opd_msg_release(b);
    opd_msg_release(c);
    opd_msg_release(NULL);
    sys_down(&t);
}

static opd_err stop_on_last(opd_ctx *ctx, void *arg, opd_msg *msg) {
    int *expected = arg;
    CHECK_INT(opd_msg_kind(msg), (*expected)++);
    if (*expected == 4) opd_system_stop(opd_self_system(ctx), OPD_OK);
    return OPD_OK;
}

TEST(messages_of_a_pair_keep_their_order) {
    opd_test_sys t;
    sys_up(&t, NULL);
    int expected = 0;
    opd_pid a = spawn_script(&t, "a", (script){.message = stop_on_last, .arg = &expected});
    for (uint16_t i = 0; i < 4; i++) CHECK_OK(opd_post(t.system, a, new_msg(t.system, i, 0)));
    CHECK_OK(opd_system_run(t.system));
    CHECK_INT(expected, 4);
    sys_down(&t);
}

static opd_err keep_first(opd_ctx *ctx, void *arg, opd_msg *msg) {
    opd_msg **kept = arg;
    if (*kept == NULL) {
        opd_msg_take(ctx, msg);
        *kept = msg;
        return OPD_OK;
    }
    opd_msg_release(*kept);
    opd_system_stop(opd_self_system(ctx), OPD_OK);
    return OPD_OK;
}

TEST(a_taken_message_stays_its_handlers) {
    opd_test_sys t;
    sys_up(&t, NULL);
    opd_msg *kept = NULL;
    opd_pid a = spawn_script(&t, "a", (script){.message = keep_first, .arg = &kept});
    for (uint16_t i = 0; i < 2; i++) CHECK_OK(opd_post(t.system, a, new_msg(t.system, i, 0)));
    CHECK_OK(opd_system_run(t.system));
    sys_down(&t);
}

/* ---- bodies and attachments ------------------------------------------------------------ */

TEST(attachments_are_shared_and_checked) {
    opd_test_sys t;
    sys_up(&t, NULL);
    opd_buf *buf = NULL;
    CHECK_OK(opd_buf_create(&t.memory.alloc, 4096, &buf));
    opd_msg *msg = NULL;
    CHECK_OK(opd_msg_create(t.system, 7, &msg));
    opd_mp_writer w;
    CHECK_OK(opd_body_begin(msg, 2, 2, OPD_MSG_BODY_INLINE, &w));
    opd_slice slice = {.buf = buf, .offset_bytes = 64, .size_bytes = 48};
    uint32_t dims[2] = {3, 4}, wrong[2] = {3, 5};
    CHECK_ERR(opd_body_attach(msg, &w, slice, OPD_DTYPE_F32, 2, wrong), OPD_ERR_INVALID);
    CHECK_OK(opd_body_attach(msg, &w, slice, OPD_DTYPE_F32, 2, dims));
    opd_mp_write_cstr(&w, "x");
    CHECK_OK(opd_body_end(msg, &w));
    opd_buf_release(buf); /* the message holds the other reference */
    opd_mp_reader r;
    const opd_attachment *a = NULL;
    CHECK_ERR(opd_body_read(msg, 1, 1, &r), OPD_ERR_MISMATCH);
    CHECK_ERR(opd_body_read(msg, 2, 3, &r), OPD_ERR_MISMATCH);
    CHECK_OK(opd_body_read(msg, 2, 1, &r));
    CHECK_ERR(opd_body_read_attachment(msg, &r, OPD_DTYPE_I32, &a), OPD_ERR_MISMATCH);
    CHECK_OK(opd_body_read(msg, 2, 1, &r));
    CHECK_OK(opd_body_read_attachment(msg, &r, OPD_DTYPE_F32, &a));
    CHECK_INT(a->dims[1], 4);
    CHECK(opd_slice_data(a->slice) == (char *)opd_buf_data(buf) + 64);
    CHECK_ERR(opd_body_read_attachment(msg, &r, OPD_DTYPE_F32, &a), OPD_ERR_MISMATCH);
    for (unsigned i = 1; i < OPD_MSG_ATTACHMENTS_MAX; i++)
        CHECK_OK(opd_msg_attach(msg, slice, OPD_DTYPE_U8, 1, &(uint32_t){48}, NULL));
    CHECK_ERR(opd_msg_attach(msg, slice, OPD_DTYPE_U8, 1, &(uint32_t){48}, NULL), OPD_ERR_LIMIT);
    CHECK(opd_msg_attachment(msg, OPD_MSG_ATTACHMENTS_MAX) == NULL);
    opd_msg_release(msg);
    sys_down(&t);
}

TEST(bodies_have_a_maximum) {
    opd_test_sys t;
    sys_up(&t, NULL);
    opd_msg *msg = NULL;
    void *room = NULL;
    CHECK_OK(opd_msg_create(t.system, 7, &msg));
    CHECK_OK(opd_msg_body_reserve(msg, OPD_MSG_BODY_MAX, &room));
    memset(room, 1, OPD_MSG_BODY_MAX);
    opd_msg_body_commit(msg, OPD_MSG_BODY_MAX);
    CHECK_ERR(opd_msg_body_reserve(msg, OPD_MSG_BODY_MAX + 1, &room), OPD_ERR_LIMIT);
    opd_mp_writer w;
    CHECK_OK(opd_body_begin(msg, 1, 1, 8, &w));
    opd_mp_write_cstr(&w, "too long for it");
    CHECK_ERR(opd_body_end(msg, &w), OPD_ERR_LIMIT);
    opd_msg_release(msg);
    sys_down(&t);
}

/* ---- failure, monitors, stop ----------------------------------------------------------- */

typedef struct watcher {
    opd_monitor monitors[3];
    opd_pid targets[3];
    int downs, stopped;
    opd_err last_reason;
    char last_text[OPD_ERROR_TEXT_SIZE];
} watcher;

static opd_err watch_start(opd_ctx *ctx, void *arg) {
    watcher *w = arg;
    for (int i = 0; i < 3; i++) opd_monitor_start(ctx, &w->monitors[i], w->targets[i]);
    return OPD_OK;
}

static opd_err watch_signal(opd_ctx *ctx, void *arg, const opd_signal *signal) {
    watcher *w = arg;
    if (signal->kind != OPD_SIGNAL_DOWN) return OPD_OK;
    w->last_reason = signal->reason;
    (void)snprintf(w->last_text, sizeof w->last_text, "%s", signal->text);
    if (++w->downs == 2) opd_system_stop(opd_self_system(ctx), opd_fail(OPD_ERR_PARSE, "enough"));
    return OPD_OK;
}

static opd_err fail_now(opd_ctx *ctx, void *arg, opd_msg *msg) {
    (void)ctx;
    (void)arg;
    (void)msg;
    return opd_fail(OPD_ERR_NUMERIC, "it broke at step %d", 3);
}

TEST(a_failed_handler_ends_its_actor_and_tells_watchers_once) {
    opd_test_sys t;
    sys_up(&t, NULL);
    watcher w = {0};
    opd_pid dead = spawn_script(&t, "short", (script){0});
    opd_pid victim = spawn_script(&t, "victim", (script){.message = fail_now});
    w.targets[0] = w.targets[1] = victim;
    w.targets[2] = dead;
    (void)spawn_script(&t, "watcher",
                       (script){.start = watch_start, .signal = watch_signal, .arg = &w});
    opd_monitor_stop(&w.monitors[2]);
    CHECK_OK(opd_post(t.system, victim, new_msg(t.system, 1, 0)));
    CHECK_ERR(opd_system_run(t.system), OPD_ERR_PARSE);
    CHECK_STR(opd_err_context(), "enough");
    CHECK_INT(w.downs, 2);
    CHECK_INT(w.last_reason, OPD_ERR_NUMERIC);
    CHECK_STR(w.last_text, "it broke at step 3");
    sys_down(&t);
}

static opd_err watch_dead_start(opd_ctx *ctx, void *arg) {
    watcher *w = arg;
    opd_monitor_start(ctx, &w->monitors[0], (opd_pid)7 << 32 | 9);
    opd_monitor_start(ctx, &w->monitors[1], OPD_PID_NOBODY);
    CHECK_INT(w->downs, 0); /* never from inside the call */
    return OPD_OK;
}

TEST(monitoring_the_dead_tells_at_once) {
    opd_test_sys t;
    sys_up(&t, NULL);
    watcher w = {0};
    (void)spawn_script(&t, "watcher",
                       (script){.start = watch_dead_start, .signal = watch_signal, .arg = &w});
    CHECK_ERR(opd_system_run(t.system), OPD_ERR_PARSE);
    CHECK_INT(w.last_reason, OPD_ERR_CLOSED);
    sys_down(&t);
}

static opd_err fail_start(opd_ctx *ctx, void *arg) {
    (void)ctx;
    (void)arg;
    return opd_fail(OPD_ERR_CONFIG, "no such model");
}

static void count_stop(opd_ctx *ctx, void *arg) {
    (void)ctx;
    ++*(int *)arg;
}

TEST(a_failed_start_is_the_spawners_error_and_still_stops) {
    opd_test_sys t;
    sys_up(&t, &(opd_system_options){.actors_max = 1});
    int stops = 0;
    opd_pid pid = 0;
    script s = {.start = fail_start, .stop = count_stop, .arg = &stops};
    CHECK_ERR(opd_spawn(t.system, &script_class, "bad", &s, &pid), OPD_ERR_CONFIG);
    CHECK_STR(opd_err_context(), "no such model");
    CHECK_INT(stops, 1);
    opd_pid first = spawn_script(&t, "a", (script){0});
    CHECK_ERR(opd_spawn(t.system, &script_class, "b", &(script){0}, &pid), OPD_ERR_LIMIT);
    opd_system_stop(t.system, OPD_OK);
    CHECK_OK(opd_system_run(t.system));
    CHECK_ERR(opd_spawn(t.system, &script_class, "c", &(script){0}, &pid), OPD_ERR_CLOSED);
    CHECK(!opd_alive(t.system, first));
    sys_down(&t);
}

typedef struct stop_log {
    char names[64];
} stop_log;

static void log_stop(opd_ctx *ctx, void *arg) {
    stop_log *log = arg;
    size_t used = strlen(log->names);
    (void)snprintf(log->names + used, sizeof log->names - used, "%s ", opd_self_name(ctx));
}

static opd_timer late_timer;

static opd_err exit_later(opd_ctx *ctx, void *state, opd_timer *timer) {
    (void)state;
    (void)timer;
    opd_exit(ctx, OPD_OK);
    return OPD_OK;
}

static opd_err defer_stop(opd_ctx *ctx, void *arg, const opd_signal *signal) {
    (void)arg;
    if (signal->kind != OPD_SIGNAL_STOP) return OPD_OK;
    opd_stop_defer(ctx);
    opd_timer_init(&late_timer, ctx, exit_later);
    return opd_timer_start_after(&late_timer, 20 * 1000000);
}

TEST(stop_goes_in_reverse_order_and_waits_for_those_who_need_time) {
    opd_test_sys t;
    sys_up(&t, NULL);
    stop_log log = {""};
    (void)spawn_script(&t, "a", (script){.stop = log_stop, .arg = &log});
    (void)spawn_script(&t, "b", (script){.stop = log_stop, .signal = defer_stop, .arg = &log});
    (void)spawn_script(&t, "c", (script){.stop = log_stop, .arg = &log});
    opd_system_stop(t.system, OPD_OK);
    opd_system_stop(t.system, OPD_ERR_IO); /* too late to change the reason */
    CHECK_OK(opd_system_run(t.system));
    CHECK_STR(log.names, "c b a ");
    sys_down(&t);
}

static opd_err defer_for_ever(opd_ctx *ctx, void *arg, const opd_signal *signal) {
    (void)arg;
    (void)signal;
    opd_stop_defer(ctx);
    return OPD_OK;
}

TEST(stop_ends_the_late_by_force) {
    opd_test_sys t;
    sys_up(&t, &(opd_system_options){.stop_timeout_ms = 20});
    stop_log log = {""};
    (void)spawn_script(&t, "a", (script){.stop = log_stop, .arg = &log});
    (void)spawn_script(&t, "late",
                       (script){.stop = log_stop, .signal = defer_for_ever, .arg = &log});
    opd_system_stop(t.system, OPD_OK);
    CHECK_OK(opd_system_run(t.system));
    CHECK_STR(log.names, "late a ");
    sys_down(&t);
}

TEST(destroy_without_run_ends_everything) {
    opd_test_sys t;
    sys_up(&t, NULL);
    stop_log log = {""};
    opd_pid a = spawn_script(&t, "a", (script){.stop = log_stop, .arg = &log});
    CHECK_OK(opd_post(t.system, a, new_msg(t.system, 1, 100)));
    opd_system_destroy(t.system);
    CHECK_STR(log.names, "a ");
    sys_env_down(&t);
    opd_system_destroy(NULL);
    CHECK_OK(opd_env_destroy(NULL));
}

/* ---- timers ---------------------------------------------------------------------------- */

typedef struct clockwork {
    opd_timer timers[4];
    int order[4], fired;
    uint64_t started_ns;
} clockwork;

static opd_err tick(opd_ctx *ctx, void *state, opd_timer *timer) {
    (void)state;
    clockwork *c = timer->arg;
    c->order[c->fired++] = (int)(timer - c->timers);
    if (c->fired == 1) opd_timer_stop(&c->timers[3]);
    if (c->fired < 3) return OPD_OK;
    CHECK(opd_now_ns(ctx) - c->started_ns >= 8 * 1000000);
    opd_exit(ctx, OPD_OK);
    return OPD_OK;
}

static opd_err clock_start(opd_ctx *ctx, void *arg) {
    clockwork *c = arg;
    c->started_ns = opd_now_ns(ctx);
    for (int i = 0; i < 4; i++) {
        c->timers[i].arg = c;
        opd_timer_init(&c->timers[i], ctx, tick);
    }
    OPD_TRY(opd_timer_start_after(&c->timers[0], 8 * 1000000));
    OPD_TRY(opd_timer_start_after(&c->timers[1], 90 * 1000000));
    OPD_TRY(opd_timer_start_after(&c->timers[2], 4 * 1000000));
    OPD_TRY(opd_timer_start_after(&c->timers[3], 4 * 1000000));
    return opd_timer_start_after(&c->timers[1], 0); /* a restart replaces */
}

TEST(timers_fire_in_order_once_and_can_be_stopped) {
    opd_test_sys t;
    sys_up(&t, NULL);
    clockwork c = {0};
    (void)spawn_script(&t, "clock", (script){.start = clock_start, .arg = &c});
    CHECK_OK(opd_system_run(t.system)); /* ends with its last actor */
    CHECK_INT(c.order[0], 1);
    CHECK_INT(c.order[1], 2);
    /* timer 3 expired together with 2: it was stopped by the first tick */
    CHECK_INT(c.order[2], 0);
    sys_down(&t);
}

/* ---- slots ----------------------------------------------------------------------------- */

typedef struct slot_user {
    opd_slot *slot;
    opd_slot_watch watch;
    int changes;
    uint64_t seen;
} slot_user;

static opd_err slot_changed(opd_ctx *ctx, void *state, opd_slot_watch *watch) {
    (void)state;
    slot_user *u = watch->arg;
    opd_buf *buf = NULL;
    u->changes++;
    u->seen = opd_slot_get(u->slot, &buf);
    CHECK_INT(*(uint64_t *)opd_buf_data(buf), u->seen);
    opd_buf_release(buf);
    opd_exit(ctx, OPD_OK);
    return OPD_OK;
}

static opd_err slot_start(opd_ctx *ctx, void *arg) {
    slot_user *u = arg;
    u->watch.arg = u;
    opd_slot_watch_start(ctx, u->slot, &u->watch, slot_changed);
    return OPD_OK;
}

TEST(slot_keeps_the_latest_and_coalesces) {
    opd_test_sys t;
    sys_up(&t, NULL);
    slot_user u = {0};
    CHECK_OK(opd_slot_create(t.system, &u.slot));
    CHECK_INT(opd_slot_get(u.slot, NULL), 0);
    (void)spawn_script(&t, "user", (script){.start = slot_start, .arg = &u});
    for (uint64_t version = 1; version <= 3; version++) {
        opd_buf *buf = NULL;
        CHECK_OK(opd_buf_create(&t.memory.alloc, 8, &buf));
        memcpy(opd_buf_data(buf), &version, 8);
        opd_slot_put(u.slot, buf, version);
        opd_buf_release(buf);
    }
    CHECK_OK(opd_system_run(t.system));
    CHECK_INT(u.changes, 1);
    CHECK_INT(u.seen, 3);
    opd_slot_destroy(u.slot);
    sys_down(&t);
}

/* Every allocation of a small run fails once: an error or success, never a leak or a crash. */
TEST(creation_survives_each_failing_allocation) {
    for (long n = 1; n < 12; n++) {
        opd_test_alloc memory;
        opd_test_alloc_failing(&memory, n, false);
        opd_env *env = NULL;
        opd_system *system = NULL;
        opd_system_options o = {.alloc = &memory.alloc};
        opd_pid pid = 0;
        if (opd_env_uv_create(&memory.alloc, &env) == OPD_OK) {
            if (opd_system_create(&o, env, &system) == OPD_OK) {
                opd_err err = opd_spawn(system, &script_class, "a", &(script){0}, &pid);
                CHECK(err == OPD_OK || err == OPD_ERR_NOMEM);
            }
            opd_system_destroy(system);
            CHECK_OK(opd_env_destroy(env));
        }
        CHECK_INT(memory.live, 0);
    }
}
