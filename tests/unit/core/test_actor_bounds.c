/* test_actor_bounds.c - who holds the messages, leaks by name, limits of a stop. */
#include "tests/support/script_actor.h"

typedef struct hoard {
    opd_msg *kept[8];
    int count;
} hoard;

static opd_err make_two(opd_ctx *ctx, void *arg) {
    hoard *h = arg;
    for (int i = 0; i < 2; i++) h->kept[h->count++] = script_msg(opd_self_system(ctx), 3, 0);
    return OPD_OK;
}

static opd_err keep(opd_ctx *ctx, void *arg, opd_msg *msg) {
    hoard *h = arg;
    h->kept[h->count++] = msg;
    opd_msg_take(ctx, msg);
    opd_system_stop(opd_self_system(ctx), OPD_OK);
    return OPD_OK;
}

static void let_go(opd_ctx *ctx, void *arg) {
    hoard *h = arg;
    (void)ctx;
    while (h->count > 0) opd_msg_release(h->kept[--h->count]);
}

static uint32_t held_by(const opd_test_sys *t, opd_pid pid) {
    opd_actor_stats stats;
    CHECK_OK(opd_actor_stats_get(t->system, pid, &stats));
    return stats.held;
}

/* ---- holders --------------------------------------------------------------------------- */

TEST(a_message_made_in_a_callback_is_held_until_sent_or_released) {
    opd_test_sys t;
    sys_up(&t, NULL);
    hoard h = {.count = 0};
    opd_pid maker = script_spawn(&t, "maker", (opd_script){.start = make_two, .arg = &h});
    opd_pid other = script_spawn(&t, "other", (opd_script){0});
    opd_msg *nobodys = script_msg(t.system, 3, 0);
    CHECK_INT(held_by(&t, maker), 2);
    CHECK_INT(held_by(&t, other), 0);
    CHECK_OK(opd_post(t.system, other, h.kept[1])); /* in a mailbox it has no holder */
    opd_msg_release(h.kept[0]);
    CHECK_INT(held_by(&t, maker), 0);
    CHECK_INT(held_by(&t, other), 0);
    opd_msg_release(nobodys);
    opd_system_destroy(t.system);
    sys_env_down(&t);
}

static opd_err count_held(opd_ctx *ctx, void *arg, opd_msg *msg) {
    int *seen = arg;
    opd_actor_stats stats;
    CHECK_OK(opd_actor_stats_get(opd_self_system(ctx), opd_self(ctx), &stats));
    CHECK_INT(stats.held, 1); /* the one being handled */
    if (++*seen == 2) opd_system_stop(opd_self_system(ctx), OPD_OK);
    else CHECK_OK(opd_send(ctx, opd_self(ctx), msg));
    return OPD_OK;
}

TEST(the_receiver_holds_what_it_handles) {
    opd_test_sys t;
    sys_up(&t, NULL);
    int seen = 0;
    opd_pid a = script_spawn(&t, "a", (opd_script){.message = count_held, .arg = &seen});
    CHECK_OK(opd_post(t.system, a, script_msg(t.system, 1, 0)));
    CHECK_OK(opd_system_run(t.system));
    CHECK_INT(seen, 2);
    CHECK_INT(opd_system_stats_get(t.system).leaked, 0);
    sys_down(&t);
}

TEST(an_empty_pool_names_who_has_most_of_it) {
    opd_test_sys t;
    sys_up(&t, &(opd_system_options){.messages_max = 4});
    hoard h = {.count = 0};
    (void)script_spawn(&t, "hoarder",
                       (opd_script){.start = make_two, .stop = let_go, .arg = &h});
    opd_pid reader = script_spawn(&t, "reader", (opd_script){0});
    CHECK_OK(opd_post(t.system, reader, script_msg(t.system, 1, 0)));
    opd_msg *fourth = script_msg(t.system, 1, 0), *fifth = NULL;
    CHECK_ERR(opd_msg_create(t.system, 1, &fifth), OPD_ERR_LIMIT);
    CHECK_CONTAINS(opd_err_context(), "all 4 messages are in use; hoarder has most: 2 in hand");
    opd_msg_release(fourth);
    opd_system_kill(t.system, OPD_OK);
    CHECK_OK(opd_system_run(t.system));
    sys_down(&t);
}

/* ---- leaks ----------------------------------------------------------------------------- */

TEST(messages_held_by_an_actor_that_ended_are_named) {
    opd_test_sys t;
    opd_log_memory log;
    sys_up(&t, NULL);
    hoard h = {.count = 0};
    opd_pid leaky = script_spawn(&t, "leaky", (opd_script){.start = make_two, .message = keep,
                                                           .arg = &h});
    CHECK_OK(opd_post(t.system, leaky, script_msg(t.system, 9, 0)));
    log_memory_start(&log);
    CHECK_OK(opd_system_run(t.system));
    opd_log_sink_set(NULL, NULL);
    CHECK_CONTAINS(log.text, "error: leaky ended with 3 messages in its hands");
    CHECK_CONTAINS(log.text, "2 of kind 3");
    CHECK_CONTAINS(log.text, "1 of kind 9");
    CHECK_INT(opd_system_stats_get(t.system).leaked, 3);
    CHECK_INT(opd_system_stats_get(t.system).messages_in_use, 3);
    let_go(NULL, &h); /* what the actor should have done */
    sys_down(&t);
}

static opd_err keep_and_exit(opd_ctx *ctx, void *arg, opd_msg *msg) {
    hoard *h = arg;
    h->kept[h->count++] = msg;
    opd_msg_take(ctx, msg);
    opd_exit(ctx, OPD_OK);
    return OPD_OK;
}

static opd_err got_answer(opd_ctx *ctx, void *state, void *arg, opd_err err, opd_msg *reply) {
    (void)state;
    CHECK(reply == NULL);
    *(opd_err *)arg = err;
    opd_system_stop(opd_self_system(ctx), OPD_OK);
    return OPD_OK;
}

typedef struct asking {
    opd_pid to;
    opd_err result;
} asking;

static opd_err ask_once(opd_ctx *ctx, void *arg) {
    asking *a = arg;
    return opd_request(ctx, a->to, script_msg(opd_self_system(ctx), 5, 0), OPD_NO_DEADLINE,
                       got_answer, &a->result, NULL);
}

TEST(a_leaked_request_is_answered_closed) {
    opd_test_sys t;
    sys_up(&t, NULL);
    hoard h = {.count = 0};
    opd_script leaky = {.message = keep_and_exit, .arg = &h};
    asking a = {.to = script_spawn(&t, "leaky", leaky)};
    (void)script_spawn(&t, "asker", (opd_script){.start = ask_once, .arg = &a});
    CHECK_OK(opd_system_run(t.system));
    CHECK_INT(a.result, OPD_ERR_CLOSED);
    CHECK_INT(opd_system_stats_get(t.system).leaked, 1);
    let_go(NULL, &h);
    sys_down(&t);
}

/* ---- opd_stop_within ------------------------------------------------------------------- */

static opd_err defer_for_ever(opd_ctx *ctx, void *arg, const opd_signal *signal) {
    (void)arg;
    if (signal->kind == OPD_SIGNAL_STOP) opd_stop_defer(ctx);
    return OPD_OK;
}

typedef struct watch {
    opd_monitor monitors[2];
    opd_pid pids[2];
    opd_err reasons[2];
    int downs;
} watch;

static opd_err watch_start(opd_ctx *ctx, void *arg) {
    watch *w = arg;
    for (int i = 0; i < 2; i++) opd_monitor_start(ctx, &w->monitors[i], w->pids[i]);
    return OPD_OK;
}

static opd_err watch_signal(opd_ctx *ctx, void *arg, const opd_signal *signal) {
    watch *w = arg;
    if (signal->kind != OPD_SIGNAL_DOWN) return OPD_OK;
    w->reasons[signal->monitor - w->monitors] = signal->reason;
    if (++w->downs == 2) opd_system_stop(opd_self_system(ctx), OPD_OK);
    return OPD_OK;
}

TEST(stop_within_ends_the_late_one_by_name_and_not_the_punctual) {
    opd_test_sys t;
    opd_log_memory log;
    sys_up(&t, NULL);
    watch w = {.pids = {script_spawn(&t, "late", (opd_script){.signal = defer_for_ever}),
                        script_spawn(&t, "punctual", (opd_script){0})}};
    (void)script_spawn(&t, "watcher", (opd_script){.start = watch_start, .signal = watch_signal,
                                                   .arg = &w});
    opd_stop_within(t.system, w.pids[0], 600000);
    opd_stop_within(t.system, w.pids[0], 15); /* the earliest counts */
    opd_stop_within(t.system, w.pids[1], 60000);
    opd_stop_within(t.system, w.pids[1] + 1, 1); /* nobody */
    log_memory_start(&log);
    CHECK_OK(opd_system_run(t.system));
    opd_log_sink_set(NULL, NULL);
    CHECK_INT(w.reasons[0], OPD_ERR_TIMEOUT);
    CHECK_INT(w.reasons[1], OPD_OK);
    CHECK_CONTAINS(log.text, "late did not stop within 15 ms");
    CHECK(strstr(log.text, "punctual did not") == NULL);
    sys_down(&t);
}
