/* test_actor_overflow.c - overflow policies per kind, dead letters, requests nobody wants. */
#include "core/base/check.h"
#include "opd/dead.h"
#include "tests/support/script_actor.h"

enum { ORDER = 1, PROGRESS = 2, DEBUG = 3, ASK = 4, ROOM_MSGS = 3, ROOM_BYTES = 100 };

static const opd_kind_policy policies[] = {{PROGRESS, OPD_OVERFLOW_KEEP_LATEST},
                                           {DEBUG, OPD_OVERFLOW_DROP}};

static const opd_actor_class picky_class = {
    .name = "picky", .mailbox_msgs_max = ROOM_MSGS, .mailbox_bytes_max = ROOM_BYTES,
    .policies = policies, .policy_count = 2, SCRIPT_CALLBACKS};

/* What arrived: kind and first byte of the body, as "2a 1b "; the system stops at the last. */
typedef struct seen {
    char text[128];
    int left;
} seen;

static opd_err see(opd_ctx *ctx, void *arg, opd_msg *msg) {
    seen *s = arg;
    size_t used = strlen(s->text), size = 0;
    const char *body = opd_msg_body(msg, &size);
    (void)snprintf(s->text + used, sizeof s->text - used, "%u%c ", opd_msg_kind(msg),
                   size == 0 ? '-' : body[0]);
    if (--s->left == 0) opd_system_stop(opd_self_system(ctx), OPD_OK);
    return OPD_OK;
}

static opd_msg *letter(const opd_test_sys *t, uint16_t kind, char what, size_t size_bytes) {
    opd_msg *msg = NULL;
    char bytes[256];
    memset(bytes, what, sizeof bytes);
    CHECK_OK(opd_msg_create(t->system, kind, &msg));
    CHECK_OK(opd_msg_body_set(msg, bytes, size_bytes));
    return msg;
}

static void post(const opd_test_sys *t, opd_pid to, uint16_t kind, char what, size_t size_bytes) {
    CHECK_OK(opd_post(t->system, to, letter(t, kind, what, size_bytes)));
}

static void post_refused(const opd_test_sys *t, opd_pid to, uint16_t kind, size_t size_bytes) {
    opd_msg *msg = letter(t, kind, 'x', size_bytes);
    CHECK_ERR(opd_post(t->system, to, msg), OPD_ERR_AGAIN);
    opd_msg_release(msg);
}

static opd_actor_stats stats_of(const opd_test_sys *t, opd_pid pid) {
    opd_actor_stats stats;
    CHECK_OK(opd_actor_stats_get(t->system, pid, &stats));
    return stats;
}

static uint64_t dead(const opd_test_sys *t, opd_dead_reason reason, uint16_t kind,
                     const char *target) {
    opd_dead_count rows[OPD_DEAD_ROWS];
    size_t count = opd_dead_counts(t->system, rows, OPD_DEAD_ROWS);
    for (size_t i = 0; i < count; i++)
        if (rows[i].reason == reason && rows[i].kind == kind &&
            strcmp(rows[i].target, target) == 0)
            return rows[i].count;
    return 0;
}

static void run_down(opd_test_sys *t) {
    CHECK_OK(opd_system_run(t->system));
    sys_down(t);
}

/* ---- policies -------------------------------------------------------------------------- */

TEST(keep_latest_leaves_one_unread_of_a_sender) {
    opd_test_sys t;
    sys_up(&t, NULL);
    seen s = {.left = 2};
    opd_pid a = script_spawn_as(&t, &picky_class, NULL, (opd_script){.message = see, .arg = &s});
    post(&t, a, PROGRESS, 'a', 40);
    post(&t, a, ORDER, 'b', 10);
    post(&t, a, PROGRESS, 'c', 80); /* fits only since the older one goes */
    CHECK_INT(stats_of(&t, a).depth, 2);
    CHECK_INT(stats_of(&t, a).bytes, 90);
    CHECK_INT(stats_of(&t, a).replaced, 1);
    post_refused(&t, a, PROGRESS, 95); /* too large even then: the unread one stays */
    CHECK_INT(stats_of(&t, a).depth, 2);
    CHECK_INT(stats_of(&t, a).refused, 1);
    CHECK_INT(opd_system_stats_get(t.system).messages_in_use, 2);
    CHECK_INT(dead(&t, OPD_DEAD_REPLACED, PROGRESS, "picky"), 1);
    CHECK_OK(opd_system_run(t.system));
    CHECK_STR(s.text, "1b 2c "); /* in the order they were sent */
    sys_down(&t);
}

static opd_err send_progress(opd_ctx *ctx, void *arg) {
    opd_pid to = *(opd_pid *)arg;
    opd_msg *msg = script_msg(opd_self_system(ctx), PROGRESS, 1);
    CHECK_OK(opd_send(ctx, to, msg));
    return OPD_OK;
}

TEST(keep_latest_keeps_one_of_each_sender) {
    opd_test_sys t;
    sys_up(&t, NULL);
    opd_pid a = script_spawn_as(&t, &picky_class, NULL, (opd_script){0});
    for (int i = 0; i < 2; i++)
        (void)script_spawn(&t, "sender", (opd_script){.start = send_progress, .arg = &a});
    CHECK_INT(stats_of(&t, a).depth, 2);
    CHECK_INT(stats_of(&t, a).replaced, 0);
    opd_system_kill(t.system, OPD_OK);
    run_down(&t);
}

TEST(drop_takes_the_message_when_there_is_no_room_and_counts_it) {
    opd_test_sys t;
    sys_up(&t, NULL);
    seen s = {.left = ROOM_MSGS};
    opd_pid a = script_spawn_as(&t, &picky_class, NULL, (opd_script){.message = see, .arg = &s});
    post(&t, a, DEBUG, 'a', 1);
    post(&t, a, DEBUG, 'b', 1);
    post(&t, a, ORDER, 'c', 1);
    post(&t, a, DEBUG, 'd', 1);
    post(&t, a, DEBUG, 'e', 1);
    post_refused(&t, a, ORDER, 1); /* the others are never dropped */
    CHECK_INT(stats_of(&t, a).dropped, 2);
    CHECK_INT(stats_of(&t, a).refused, 1);
    CHECK_INT(opd_system_stats_get(t.system).messages_in_use, ROOM_MSGS);
    CHECK_INT(dead(&t, OPD_DEAD_DROPPED, DEBUG, "picky"), 2);
    CHECK_OK(opd_system_run(t.system));
    CHECK_STR(s.text, "3a 3b 1c ");
    sys_down(&t);
}

TEST(a_mailbox_may_be_larger_than_four_gib) {
    static const opd_actor_class vast = {.name = "vast", .mailbox_bytes_max = UINT64_MAX,
                                         SCRIPT_CALLBACKS};
    opd_test_sys t;
    sys_up(&t, NULL);
    opd_buf *buf = NULL;
    uint32_t rows = 640u << 20;
    char none; /* the bytes are never touched */
    CHECK_OK(opd_buf_wrap(NULL, &none, (size_t)rows * 8, NULL, NULL, &buf));
    opd_msg *msg = letter(&t, ORDER, 'a', 1);
    CHECK_OK(opd_msg_attach(msg, opd_slice_whole(buf), OPD_DTYPE_F64, 1, &rows, NULL));
    opd_buf_release(buf);
    CHECK_OK(opd_post(t.system, script_spawn_as(&t, &vast, NULL, (opd_script){0}), msg));
    opd_system_kill(t.system, OPD_OK);
    run_down(&t);
}

/* ---- requests and links under such kinds ----------------------------------------------- */

typedef struct asker {
    opd_pid to;
    uint16_t kind;
    uint64_t timeout_ms;
    int requests, calls;
    opd_err last;
    bool cancel;
    opd_timer later;
} asker;

static opd_err on_reply(opd_ctx *ctx, void *state, void *arg, opd_err err, opd_msg *reply) {
    asker *a = arg;
    (void)state;
    (void)reply;
    a->last = err;
    if (++a->calls == a->requests && !a->cancel) opd_system_stop(opd_self_system(ctx), OPD_OK);
    return OPD_OK;
}

static opd_err ask(opd_ctx *ctx, void *arg) {
    asker *a = arg;
    for (int i = 0; i < a->requests; i++) {
        uint64_t id = 0;
        opd_msg *msg = script_msg(opd_self_system(ctx), a->kind, 1);
        CHECK_OK(opd_request(ctx, a->to, msg, opd_deadline_in(ctx, a->timeout_ms), on_reply, a,
                             &id));
        if (a->cancel) opd_request_cancel(ctx, id);
    }
    return OPD_OK;
}

static opd_err answer(opd_ctx *ctx, void *arg, opd_msg *msg) {
    (void)arg;
    CHECK(opd_msg_wanted(msg));
    opd_reply(ctx, msg, script_msg(opd_self_system(ctx), ASK, 0));
    CHECK(!opd_msg_wanted(msg));
    return OPD_OK;
}

TEST(requests_are_never_replaced) {
    opd_test_sys t;
    sys_up(&t, NULL);
    opd_pid a = script_spawn_as(&t, &picky_class, NULL, (opd_script){.message = answer});
    asker q = {.to = a, .kind = PROGRESS, .requests = 3};
    (void)script_spawn(&t, "asker", (opd_script){.start = ask, .arg = &q});
    CHECK_INT(stats_of(&t, a).depth, 3);
    CHECK_INT(stats_of(&t, a).replaced, 0);
    CHECK_OK(opd_system_run(t.system));
    CHECK_INT(q.calls, 3);
    CHECK_INT(q.last, OPD_OK);
    sys_down(&t);
}

/* ---- is the answer still wanted -------------------------------------------------------- */

typedef struct worker {
    opd_msg *request;
    opd_timer look;
    bool was_wanted;
} worker;

/* Looks until nobody waits, then answers with an error all the same. */
static opd_err look_again(opd_ctx *ctx, void *state, opd_timer *timer) {
    worker *w = timer->arg;
    (void)state;
    if (opd_msg_wanted(w->request)) return opd_timer_start_after(&w->look, 1000000);
    opd_reply_error(ctx, w->request, opd_fail(OPD_ERR_CANCELLED, "given up"));
    opd_msg_release(w->request);
    w->request = NULL;
    opd_system_stop(opd_self_system(ctx), OPD_OK);
    return OPD_OK;
}

static opd_err begin_work(opd_ctx *ctx, void *arg, opd_msg *msg) {
    worker *w = arg;
    w->was_wanted = opd_msg_wanted(msg);
    w->request = msg;
    opd_msg_take(ctx, msg);
    w->look.arg = w;
    opd_timer_init(&w->look, ctx, look_again);
    return opd_timer_start_after(&w->look, 0);
}

static opd_err leave(opd_ctx *ctx, void *state, opd_timer *timer) {
    (void)state;
    (void)timer;
    opd_exit(ctx, OPD_OK);
    return OPD_OK;
}

static opd_err ask_and_leave(opd_ctx *ctx, void *arg) {
    asker *a = arg;
    OPD_TRY(ask(ctx, arg));
    opd_timer_init(&a->later, ctx, leave);
    return opd_timer_start_after(&a->later, 5 * 1000000);
}

/* Runs one request that the worker keeps until it is not wanted; 1 late answer must be seen. */
static void work_until_unwanted(asker *q, opd_err (*start)(opd_ctx *, void *), bool wanted) {
    opd_test_sys t;
    sys_up(&t, NULL);
    worker w = {.was_wanted = false};
    q->to = script_spawn(&t, "worker", (opd_script){.message = begin_work, .arg = &w});
    (void)script_spawn(&t, "asker", (opd_script){.start = start, .arg = q});
    CHECK_OK(opd_system_run(t.system));
    CHECK_INT(w.was_wanted, wanted);
    CHECK(w.request == NULL);
    CHECK_INT(opd_system_stats_get(t.system).late_replies, 1);
    sys_down(&t);
}

TEST(a_request_that_timed_out_is_unwanted_and_its_error_late) {
    asker q = {.kind = ASK, .requests = 1, .timeout_ms = 300}; /* the worker must see it first */
    q.calls = -1; /* the worker ends the system, not the reply */
    work_until_unwanted(&q, ask, true);
    CHECK_INT(q.last, OPD_ERR_TIMEOUT);
}

TEST(a_request_that_was_cancelled_is_unwanted_and_its_error_late) {
    asker q = {.kind = ASK, .requests = 1, .cancel = true};
    work_until_unwanted(&q, ask, false);
    CHECK_INT(q.last, OPD_ERR_CANCELLED);
    CHECK_INT(q.calls, 1);
}

TEST(a_request_of_an_asker_that_ended_is_unwanted_and_its_error_late) {
    asker q = {.kind = ASK, .requests = 1};
    work_until_unwanted(&q, ask_and_leave, true);
    CHECK_INT(q.calls, 0);
}

TEST(a_plain_message_is_wanted_by_nobody) {
    opd_test_sys t;
    sys_up(&t, NULL);
    opd_msg *msg = letter(&t, ORDER, 'a', 1);
    CHECK(!opd_msg_wanted(msg));
    opd_msg_release(msg);
    sys_down(&t);
}

/* ---- a place in the table used again --------------------------------------------------- */

/* Keeps the first request, answers the second, and only then the first. */
typedef struct slowpoke {
    opd_msg *first;
} slowpoke;

static opd_err answer_both(opd_ctx *ctx, void *arg, opd_msg *msg) {
    slowpoke *s = arg;
    opd_system *system = opd_self_system(ctx);
    opd_msg_take(ctx, msg);
    if (s->first == NULL) {
        s->first = msg;
        return OPD_OK;
    }
    CHECK(!opd_msg_wanted(s->first));
    opd_reply(ctx, s->first, script_msg(system, ORDER, 1)); /* late: its place is msg's now */
    CHECK(opd_msg_wanted(msg));
    opd_reply(ctx, msg, script_msg(system, ASK, 2));
    opd_msg_release(s->first);
    opd_msg_release(msg);
    return OPD_OK;
}

typedef struct again {
    opd_pid to;
    int calls;
} again;

static opd_err second_reply(opd_ctx *ctx, void *state, void *arg, opd_err err, opd_msg *reply) {
    again *a = arg;
    (void)state;
    CHECK_INT(err, OPD_OK);
    CHECK_INT(opd_msg_kind(reply), ASK); /* its own answer, not that of the first */
    CHECK_INT(++a->calls, 2);
    opd_system_stop(opd_self_system(ctx), OPD_OK);
    return OPD_OK;
}

static opd_err first_reply(opd_ctx *ctx, void *state, void *arg, opd_err err, opd_msg *reply) {
    again *a = arg;
    (void)state;
    CHECK_INT(err, OPD_ERR_TIMEOUT);
    CHECK(reply == NULL);
    CHECK_INT(++a->calls, 1);
    opd_msg *msg = script_msg(opd_self_system(ctx), ASK, 0);
    return opd_request(ctx, a->to, msg, OPD_NO_DEADLINE, second_reply, a, NULL);
}

static opd_err ask_twice(opd_ctx *ctx, void *arg) {
    again *a = arg;
    opd_msg *msg = script_msg(opd_self_system(ctx), ASK, 0);
    return opd_request(ctx, a->to, msg, opd_deadline_in(ctx, 300), first_reply, a, NULL);
}

TEST(a_late_reply_does_not_answer_the_next_request_in_its_place) {
    static const opd_actor_class one_at_a_time = {.name = "asker", .requests_max = 1,
                                                  SCRIPT_CALLBACKS};
    opd_test_sys t;
    sys_up(&t, NULL);
    slowpoke s = {.first = NULL};
    again a = {.to = script_spawn(&t, "slow", (opd_script){.message = answer_both, .arg = &s})};
    (void)script_spawn_as(&t, &one_at_a_time, NULL, (opd_script){.start = ask_twice, .arg = &a});
    CHECK_OK(opd_system_run(t.system));
    CHECK_INT(a.calls, 2);
    CHECK_INT(opd_system_stats_get(t.system).late_replies, 1);
    CHECK_INT(dead(&t, OPD_DEAD_LATE, ORDER, "asker"), 1);
    sys_down(&t);
}

/* ---- expiry ---------------------------------------------------------------------------- */

static opd_err must_not_run(opd_ctx *ctx, void *arg, opd_msg *msg) {
    (void)ctx;
    (void)arg;
    (void)msg;
    return opd_fail(OPD_ERR_INTERNAL, "an expired request was handled");
}

TEST(a_request_that_expired_in_the_mailbox_is_answered_without_its_handler) {
    if (getenv("OPD_TEST_SIM_SEED") != NULL) SKIP("needs a clock that runs by itself");
    opd_test_sys t;
    sys_up(&t, NULL);
    asker q = {.to = script_spawn(&t, "busy", (opd_script){.message = must_not_run}),
               .kind = ASK, .requests = 1, .calls = -1, .timeout_ms = 1};
    (void)script_spawn(&t, "asker", (opd_script){.start = ask, .arg = &q});
    seen s = {.left = 1};
    post(&t, script_spawn(&t, "end", (opd_script){.message = see, .arg = &s}), ORDER, 'z', 1);
    /* The mailboxes are read only when the loop runs; by then the deadline is over. */
    uint64_t until_ns = opd_env_now_ns(t.env) + 5 * 1000000;
    while (opd_env_now_ns(t.env) < until_ns) continue;
    CHECK_OK(opd_system_run(t.system));
    CHECK_INT(q.last, OPD_ERR_TIMEOUT);
    CHECK_INT(dead(&t, OPD_DEAD_EXPIRED, ASK, "busy"), 1);
    CHECK_INT(opd_system_stats_get(t.system).late_replies, 0);
    sys_down(&t);
}

/* ---- a request sent on ----------------------------------------------------------------- */

/* Answers the request, waits until its deadline is over, and sends the message itself on. */
typedef struct forwarder {
    opd_msg *msg;
    opd_pid to;
    opd_timer later;
} forwarder;

static opd_err send_on(opd_ctx *ctx, void *state, opd_timer *timer) {
    forwarder *f = timer->arg;
    (void)state;
    return opd_send(ctx, f->to, f->msg);
}

static opd_err answer_and_keep(opd_ctx *ctx, void *arg, opd_msg *msg) {
    forwarder *f = arg;
    f->msg = msg;
    opd_msg_take(ctx, msg);
    opd_reply(ctx, msg, script_msg(opd_self_system(ctx), ASK, 0));
    f->later.arg = f;
    opd_timer_init(&f->later, ctx, send_on);
    return opd_timer_start(&f->later, opd_msg_deadline_ns(msg) + 1000000);
}

TEST(an_answered_request_may_be_sent_on_after_its_deadline) {
    opd_test_sys t;
    sys_up(&t, NULL);
    seen s = {.left = 1};
    forwarder f = {.to = script_spawn(&t, "end", (opd_script){.message = see, .arg = &s})};
    opd_script forward = {.message = answer_and_keep, .arg = &f};
    asker q = {.to = script_spawn(&t, "forwarder", forward), .kind = ASK, .requests = 1,
               .calls = -1, .timeout_ms = 10};
    (void)script_spawn(&t, "asker", (opd_script){.start = ask, .arg = &q});
    CHECK_OK(opd_system_run(t.system));
    CHECK_INT(s.left, 0); /* a plain message has no deadline */
    CHECK_INT(opd_system_stats_get(t.system).dead_letters, 0);
    sys_down(&t);
}

/* ---- dead letters ---------------------------------------------------------------------- */

TEST(dead_letters_are_counted_by_reason_kind_and_target_and_the_last_kept) {
    opd_test_sys t;
    opd_log_memory log;
    sys_up(&t, NULL);
    opd_pid a = script_spawn(&t, "a", (opd_script){0}), b = script_spawn(&t, "b", (opd_script){0});
    for (int i = 0; i < 5; i++) post(&t, a, ORDER, 'x', 7);
    post(&t, b, ORDER, 'x', 7);
    post(&t, b, DEBUG, 'x', 9);
    log_memory_start(&log);
    opd_system_kill(t.system, OPD_OK);
    CHECK_OK(opd_system_run(t.system));
    opd_log_sink_set(NULL, NULL);
    CHECK_INT(opd_dead_counts(t.system, NULL, 0), 3);
    CHECK_INT(dead(&t, OPD_DEAD_UNREAD, ORDER, "a"), 5);
    CHECK_INT(dead(&t, OPD_DEAD_UNREAD, ORDER, "b"), 1);
    CHECK_INT(dead(&t, OPD_DEAD_UNREAD, DEBUG, "b"), 1);
    CHECK_INT(opd_system_stats_get(t.system).dead_letters, 7);
    opd_dead_letter last[8];
    CHECK_INT(opd_dead_letters(t.system, last, 8), 7);
    CHECK(last[0].to == b || last[0].to == a); /* b ends first or last */
    CHECK_INT(last[0].bytes, last[0].kind == DEBUG ? 9 : 7);
    CHECK_INT(opd_dead_letters(t.system, last, 2), 2);
    CHECK_CONTAINS(log.text, "to a: unread (4 so far)"); /* 1, 2, 4 of 5 are said */
    CHECK(strstr(log.text, "(5 so far)") == NULL && strstr(log.text, "(3 so far)") == NULL);
    sys_down(&t);
}

TEST(dead_letters_are_bounded_in_rows_and_headers) {
    opd_test_sys t;
    sys_up(&t, NULL);
    static const opd_kind_policy drop_all[] = {{DEBUG, OPD_OVERFLOW_DROP}};
    static const opd_actor_class tiny = {.name = "tiny", .mailbox_msgs_max = 1,
                                         .policies = drop_all, .policy_count = 1,
                                         SCRIPT_CALLBACKS};
    opd_log_memory log;
    log_memory_start(&log);
    for (int i = 0; i < OPD_DEAD_ROWS + 10; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "tiny-%d", i);
        opd_pid a = script_spawn_as(&t, &tiny, name, (opd_script){0});
        for (int k = 0; k < 6; k++) post(&t, a, DEBUG, 'x', 1); /* one waits, five are dropped */
    }
    opd_dead_count rows[OPD_DEAD_ROWS];
    CHECK_INT(opd_dead_counts(t.system, rows, OPD_DEAD_ROWS), OPD_DEAD_ROWS);
    CHECK_STR(rows[OPD_DEAD_ROWS - 1].target, "(others)");
    CHECK_INT(rows[OPD_DEAD_ROWS - 1].count, 11 * 5);
    uint64_t sum = 0;
    for (int i = 0; i < OPD_DEAD_ROWS; i++) sum += rows[i].count;
    CHECK_INT(sum, opd_system_stats_get(t.system).dead_letters);
    static opd_dead_letter last[OPD_DEAD_LETTERS_KEPT + 1];
    CHECK_INT(opd_dead_letters(t.system, last, OPD_DEAD_LETTERS_KEPT + 1), OPD_DEAD_LETTERS_KEPT);
    opd_system_kill(t.system, OPD_OK);
    CHECK_OK(opd_system_run(t.system));
    opd_log_sink_set(NULL, NULL);
    sys_down(&t);
}
