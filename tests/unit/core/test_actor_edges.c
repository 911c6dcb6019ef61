/* test_actor_edges.c - odd moments of the runtime: refusals, stale texts, time between turns. */
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/actor/heartbeat.h"
#include "core/env/env.h"
#include "core/env/sim.h"
#include "opd/diagnosis.h"
#include "opd/tap.h"
#include "tests/support/script_actor.h"

static const uint64_t MS = 1000000, S = 1000000000;

static void sleep_ms(long ms) {
    (void)nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

static void begin(opd_test_sys *t) {
    opd_system_stop(t->system, OPD_OK);
    CHECK_OK(opd_system_run(t->system));
    sys_down(t);
}

/* ---- mailbox --------------------------------------------------------------------------- */

TEST(a_message_above_the_whole_mailbox_is_a_limit_though_others_wait) {
    static const opd_actor_class small = {.name = "small", SCRIPT_CALLBACKS,
                                          .mailbox_bytes_max = 100};
    opd_test_sys t;
    sys_up(&t, NULL);
    opd_pid pid = script_spawn_as(&t, &small, "small", (opd_script){0});
    CHECK_OK(opd_post(t.system, pid, script_msg(t.system, 1, 60)));
    opd_msg *larger = script_msg(t.system, 1, 101), *full = script_msg(t.system, 1, 41);
    CHECK_ERR(opd_post(t.system, pid, larger), OPD_ERR_LIMIT); /* trying again cannot help */
    CHECK_CONTAINS(opd_err_context(), "exceeds its mailbox");
    CHECK_ERR(opd_post(t.system, pid, full), OPD_ERR_AGAIN);
    opd_msg_release(larger);
    opd_msg_release(full);
    begin(&t);
}

/* ---- the text of a reason -------------------------------------------------------------- */

typedef struct witness {
    opd_pid watched;
    opd_monitor monitor;
    opd_err reason;
    char text[OPD_ERROR_TEXT_SIZE];
    char text_after[OPD_ERROR_TEXT_SIZE]; /* signal->text when the monitor was used again */
} witness;

static opd_err watch(opd_ctx *ctx, void *arg) {
    witness *w = arg;
    opd_monitor_start(ctx, &w->monitor, w->watched);
    return OPD_OK;
}

static opd_err note_down(opd_ctx *ctx, void *arg, const opd_signal *signal) {
    witness *w = arg;
    if (signal->kind != OPD_SIGNAL_DOWN) return OPD_OK;
    w->reason = signal->reason;
    (void)snprintf(w->text, sizeof w->text, "%s", signal->text);
    opd_monitor_start(ctx, signal->monitor, opd_self(ctx));
    (void)snprintf(w->text_after, sizeof w->text_after, "%s", signal->text);
    opd_system_stop(opd_self_system(ctx), OPD_OK);
    return OPD_OK;
}

/* Spawns the script as "failing", sends it a message, and tells how it went down. */
static void fail_watched(opd_test_sys *t, opd_script failing, witness *w) {
    *w = (witness){.watched = script_spawn(t, "failing", failing)};
    (void)script_spawn(t, "witness", (opd_script){.start = watch, .signal = note_down, .arg = w});
    CHECK_OK(opd_post(t->system, w->watched, script_msg(t->system, 1, 0)));
    CHECK_OK(opd_system_run(t->system));
}

static opd_err fail_without_words(opd_ctx *ctx, void *arg, opd_msg *msg) {
    (void)ctx;
    (void)arg;
    (void)msg;
    return OPD_ERR_REMOTE;
}

TEST(a_reason_has_no_text_of_an_earlier_callback) {
    opd_test_sys t;
    witness w;
    sys_up(&t, NULL);
    CHECK_ERR(opd_fail(OPD_ERR_PARSE, "somebody else's trouble"), OPD_ERR_PARSE);
    fail_watched(&t, (opd_script){.message = fail_without_words}, &w);
    CHECK_INT(w.reason, OPD_ERR_REMOTE);
    CHECK_STR(w.text, opd_err_text(OPD_ERR_REMOTE));
    sys_down(&t);
}

TEST(a_system_stopped_without_words_has_the_text_of_its_reason) {
    opd_test_sys t;
    sys_up(&t, NULL);
    (void)script_spawn(&t, "actor", (opd_script){0});
    opd_err_clear();
    opd_system_stop(t.system, OPD_ERR_REMOTE);
    CHECK_ERR(opd_system_run(t.system), OPD_ERR_REMOTE);
    CHECK_STR(opd_err_context(), opd_err_text(OPD_ERR_REMOTE));
    sys_down(&t);
}

/* Gets over one error, then passes on the refusal of a send as its own. */
static opd_err pass_on_a_refusal(opd_ctx *ctx, void *arg, opd_msg *msg) {
    const opd_pid *to = arg;
    CHECK_ERR(opd_fail(OPD_ERR_PARSE, "a trouble it got over"), OPD_ERR_PARSE);
    opd_err err = opd_send(ctx, *to, msg);
    CHECK(err != OPD_OK);
    return err;
}

TEST(a_refused_send_says_so_itself) {
    static const opd_actor_class tiny = {.name = "tiny", SCRIPT_CALLBACKS, .mailbox_msgs_max = 1};
    opd_test_sys t;
    witness w;
    opd_pid to = OPD_PID_NOBODY;
    sys_up(&t, NULL);
    fail_watched(&t, (opd_script){.message = pass_on_a_refusal, .arg = &to}, &w);
    CHECK_INT(w.reason, OPD_ERR_CLOSED);
    CHECK(strstr(w.text, "a trouble") == NULL);
    sys_down(&t);

    sys_up(&t, NULL);
    opd_pid failing = script_spawn(&t, "failing", (opd_script){.message = pass_on_a_refusal,
                                                               .arg = &to});
    to = script_spawn_as(&t, &tiny, "tiny", (opd_script){0});
    w = (witness){.watched = failing};
    (void)script_spawn(&t, "witness", (opd_script){.start = watch, .signal = note_down, .arg = &w});
    CHECK_OK(opd_post(t.system, failing, script_msg(t.system, 1, 0)));
    CHECK_OK(opd_post(t.system, to, script_msg(t.system, 1, 0)));
    CHECK_OK(opd_system_run(t.system));
    CHECK(strstr(w.text, "a trouble") == NULL);
    sys_down(&t);
}

static opd_err fail_with_words(opd_ctx *ctx, void *arg, opd_msg *msg) {
    (void)ctx;
    (void)arg;
    (void)msg;
    return opd_fail(OPD_ERR_REMOTE, "its own words");
}

TEST(the_text_of_down_is_valid_while_the_monitor_is_used_again) {
    opd_test_sys t;
    witness w;
    sys_up(&t, NULL);
    fail_watched(&t, (opd_script){.message = fail_with_words}, &w);
    CHECK_STR(w.text, "its own words");
    CHECK_STR(w.text_after, "its own words");
    sys_down(&t);
}

/* ---- on_stop is the end --------------------------------------------------------------- */

typedef struct undead {
    opd_timer timer;
    opd_ctx *ctx;
} undead;

static opd_err never_fire(opd_ctx *ctx, void *state, opd_timer *timer) {
    (void)ctx;
    (void)state;
    (void)timer;
    return OPD_OK;
}

static opd_err rise(opd_ctx *ctx, void *arg) {
    undead *u = arg;
    u->ctx = ctx;
    opd_timer_init(&u->timer, ctx, never_fire);
    return OPD_OK;
}

static void start_a_timer(opd_ctx *ctx, void *arg) {
    undead *u = arg;
    (void)ctx;
    CHECK_OK(opd_timer_start_after(&u->timer, 0));
}

TEST(an_actor_that_starts_something_in_its_end_is_an_assertion) {
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        opd_test_sys t;
        undead u = {.ctx = NULL};
        (void)close(STDERR_FILENO);
        sys_up(&t, NULL);
        (void)script_spawn(&t, "undead", (opd_script){.start = rise, .stop = start_a_timer,
                                                      .arg = &u});
        opd_system_kill(t.system, OPD_OK);
        CHECK_OK(opd_system_run(t.system));
        _exit(0);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

/* ---- late replies ---------------------------------------------------------------------- */

typedef struct late {
    opd_pid answerer;
    opd_msg *request;
    opd_tap_record dead;
    uint64_t id;
    unsigned deads;
} late;

static void see_dead(void *arg, const opd_tap_record *record) {
    late *l = arg;
    if (record->kind != OPD_TAP_DEAD) return;
    l->dead = *record;
    l->deads++;
}

static opd_err answer_late(opd_ctx *ctx, void *arg, opd_msg *msg) {
    late *l = arg;
    if (!opd_msg_is_request(msg)) {
        opd_reply(ctx, l->request, script_msg(opd_self_system(ctx), 8, 0));
        opd_msg_release(l->request);
        opd_system_stop(opd_self_system(ctx), OPD_OK);
        return OPD_OK;
    }
    l->request = msg;
    opd_msg_take(ctx, msg);
    return OPD_OK;
}

static opd_err gave_up(opd_ctx *ctx, void *state, void *arg, opd_err err, opd_msg *reply) {
    late *l = arg;
    (void)state;
    (void)reply;
    CHECK_INT(err, OPD_ERR_CANCELLED);
    return opd_send(ctx, l->answerer, script_msg(opd_self_system(ctx), 9, 0));
}

static opd_err ask_it(opd_ctx *ctx, void *arg) {
    late *l = arg;
    opd_msg *msg = script_msg(opd_self_system(ctx), 7, 0);
    CHECK_OK(opd_request(ctx, l->answerer, msg, OPD_NO_DEADLINE, gave_up, l, &l->id));
    return opd_send(ctx, opd_self(ctx), script_msg(opd_self_system(ctx), 1, 0));
}

static opd_err give_up(opd_ctx *ctx, void *arg, opd_msg *msg) {
    const late *l = arg;
    (void)msg;
    opd_request_cancel(ctx, l->id);
    return OPD_OK;
}

TEST(a_late_reply_is_told_to_taps) {
    opd_test_sys t;
    late l = {.deads = 0};
    opd_tap tap = {.record = see_dead, .arg = &l};
    sys_up(&t, NULL);
    opd_tap_add(t.system, &tap);
    l.answerer = script_spawn(&t, "answerer", (opd_script){.message = answer_late, .arg = &l});
    opd_pid asker = script_spawn(&t, "asker",
                                 (opd_script){.start = ask_it, .message = give_up, .arg = &l});
    CHECK_OK(opd_system_run(t.system));
    CHECK_INT(l.deads, 1);
    CHECK_INT(l.dead.message_kind, 8);
    CHECK_INT(l.dead.err, OPD_ERR_TIMEOUT);
    CHECK(l.dead.from == l.answerer && l.dead.to == asker);
    opd_tap_remove(t.system, &tap);
    sys_down(&t);
}

/* ---- between turns --------------------------------------------------------------------- */

/* What a transport's callback does: it holds a ctx and is called by the loop, not by a turn. */
typedef struct outsider {
    opd_test_sys t;
    opd_sim_event event;
    opd_ctx *ctx;
    opd_timer timer;
    uint64_t called_ns, saw_ns, deadline_ns, fired_ns, waited_ns;
} outsider;

static opd_err on_fire(opd_ctx *ctx, void *state, opd_timer *timer) {
    outsider *o = timer->arg;
    (void)state;
    o->fired_ns = opd_now_ns(ctx);
    opd_system_stop(opd_self_system(ctx), OPD_OK);
    return OPD_OK;
}

static void on_bytes(opd_sim_event *event) {
    outsider *o = event->arg;
    o->called_ns = opd_sim_now_ns(opd_sim_of(event->env));
    o->deadline_ns = opd_deadline_in(o->ctx, 500);
    CHECK_OK(opd_timer_start_after(&o->timer, S));
    o->saw_ns = opd_now_ns(o->ctx);
    CHECK_OK(opd_send(o->ctx, opd_self(o->ctx), script_msg(o->t.system, 1, 0)));
}

static opd_err remember_ctx(opd_ctx *ctx, void *arg) {
    outsider *o = arg;
    o->ctx = ctx;
    o->timer.arg = o;
    opd_timer_init(&o->timer, ctx, on_fire);
    return OPD_OK;
}

static opd_err note_wait(opd_ctx *ctx, void *arg, opd_msg *msg) {
    outsider *o = arg;
    opd_actor_stats stats;
    (void)msg;
    CHECK_OK(opd_actor_stats_get(opd_self_system(ctx), opd_self(ctx), &stats));
    o->waited_ns = stats.queue_wait.max;
    return OPD_OK;
}

TEST(a_callback_of_a_transport_sees_the_present_time) {
    outsider o = {.ctx = NULL};
    opd_sim *sim = NULL;
    CHECK_OK(opd_sim_create(1, NULL, &sim));
    CHECK_OK(opd_sim_env(sim, "node", &o.t.env));
    CHECK_OK(opd_system_create(NULL, o.t.env, &o.t.system));
    (void)script_spawn(&o.t, "actor", (opd_script){.start = remember_ctx, .message = note_wait,
                                                   .arg = &o});
    o.event = (opd_sim_event){.env = o.t.env, .fire = on_bytes, .arg = &o};
    opd_sim_event_at(&o.event, 60 * S); /* after a long silence */
    CHECK_OK(opd_system_run(o.t.system));
    CHECK(o.called_ns >= 60 * S);
    CHECK_INT(o.saw_ns, o.called_ns);
    CHECK_INT(o.deadline_ns, o.called_ns + 500 * MS);
    CHECK(o.fired_ns >= o.called_ns + S);
    CHECK(o.waited_ns < S); /* the silence before is no time in the mailbox */
    opd_system_destroy(o.t.system);
    CHECK_OK(opd_env_destroy(o.t.env));
    opd_sim_destroy(sim);
}

static opd_err look_twice(opd_ctx *ctx, void *arg) {
    uint64_t *looks = arg;
    looks[0] = opd_now_ns(ctx);
    sleep_ms(2);
    looks[1] = opd_now_ns(ctx);
    return OPD_OK;
}

TEST(a_start_before_the_loop_runs_sees_one_time) {
    opd_test_sys t;
    uint64_t looks[2], later[2];
    sys_up(&t, NULL);
    (void)script_spawn(&t, "first", (opd_script){.start = look_twice, .arg = looks});
    (void)script_spawn(&t, "second", (opd_script){.start = look_twice, .arg = later});
    CHECK(looks[0] == looks[1] && later[0] == later[1]);
    CHECK(later[0] >= looks[1] + 2 * MS);
    begin(&t);
}

/* ---- a dump while the loop sleeps -------------------------------------------------------- */

static opd_err never_answered(opd_ctx *ctx, void *state, void *arg, opd_err err, opd_msg *reply) {
    (void)ctx;
    (void)state;
    (void)arg;
    (void)reply;
    return err == OPD_ERR_CLOSED ? OPD_OK : err;
}

static opd_err ask_silent(opd_ctx *ctx, void *arg) {
    const opd_pid *silent = arg;
    return opd_request(ctx, *silent, script_msg(opd_self_system(ctx), 1, 0), OPD_NO_DEADLINE,
                       never_answered, NULL, NULL);
}

typedef struct keeper {
    opd_msg *kept;
    opd_system *system;
    char text[4096];
} keeper;

static opd_err keep_it(opd_ctx *ctx, void *arg, opd_msg *msg) {
    keeper *k = arg;
    k->kept = msg;
    opd_msg_take(ctx, msg);
    return OPD_OK;
}

static void let_it_go(opd_ctx *ctx, void *arg) {
    keeper *k = arg;
    (void)ctx;
    opd_msg_release(k->kept);
}

static void add_line(void *arg, const char *line) {
    keeper *k = arg;
    size_t used = strlen(k->text);
    (void)snprintf(k->text + used, sizeof k->text - used, "%s\n", line);
}

static void dump_and_stop(opd_sim_event *event) {
    keeper *k = event->arg;
    opd_system_dump(k->system, add_line, k);
    opd_system_stop(k->system, OPD_OK);
}

TEST(a_dump_asked_for_by_a_signal_knows_how_long_the_loop_slept) {
    opd_sim *sim = NULL;
    opd_test_sys t;
    keeper k = {.kept = NULL};
    CHECK_OK(opd_sim_create(1, NULL, &sim));
    CHECK_OK(opd_sim_env(sim, "node", &t.env));
    CHECK_OK(opd_system_create(NULL, t.env, &t.system));
    k.system = t.system;
    opd_pid silent = script_spawn(&t, "silent", (opd_script){.message = keep_it, .stop = let_it_go,
                                                             .arg = &k});
    (void)script_spawn(&t, "asker", (opd_script){.start = ask_silent, .arg = &silent});
    opd_sim_event event = {.env = t.env, .fire = dump_and_stop, .arg = &k};
    opd_sim_event_at(&event, 61 * S);
    CHECK_OK(opd_system_run(t.system));
    CHECK_CONTAINS(k.text, "asked 60.0 s ago");
    CHECK_CONTAINS(k.text, "the oldest for 60.0 s");
    opd_system_destroy(t.system);
    CHECK_OK(opd_env_destroy(t.env));
    opd_sim_destroy(sim);
}

/* An event of nobody that posts itself again until an actor had its turn. */
typedef struct echo {
    opd_system *system;
    opd_event event;
    bool heard;
    int count;
} echo;

static opd_err post_again(opd_ctx *ctx, void *state, opd_event *event) {
    (void)ctx;
    (void)state;
    echo *e = event->arg;
    CHECK(++e->count < 1000); /* nobody else has a turn */
    if (!e->heard) opd_event_post(e->system, event);
    return OPD_OK;
}

static opd_err hear(opd_ctx *ctx, void *arg, opd_msg *msg) {
    echo *e = arg;
    (void)msg;
    e->heard = true;
    opd_system_stop(opd_self_system(ctx), OPD_OK);
    return OPD_OK;
}

TEST(an_event_of_nobody_that_posts_itself_lets_actors_have_their_turns) {
    opd_test_sys t;
    sys_up(&t, NULL);
    echo e = {.system = t.system, .event = {.deliver = post_again, .arg = &e}};
    opd_pid pid = script_spawn(&t, "actor", (opd_script){.message = hear, .arg = &e});
    CHECK_OK(opd_post(t.system, pid, script_msg(t.system, 1, 0)));
    opd_event_post(t.system, &e.event);
    CHECK_OK(opd_system_run(t.system));
    CHECK(e.heard);
    sys_down(&t);
}

/* ---- the watchdog ---------------------------------------------------------------------- */

static void end_slowly(opd_ctx *ctx, void *arg) {
    (void)ctx;
    (void)arg;
    sleep_ms(400);
}

TEST(an_actor_that_is_stuck_in_its_end_is_named) {
    opd_test_sys t;
    opd_log_memory log;
    opd_watchdog *dog = NULL;
    sys_up(&t, NULL);
    (void)script_spawn(&t, "laggard", (opd_script){.stop = end_slowly});
    log_memory_start(&log);
    CHECK_OK(opd_watchdog_start(t.env, t.system, &t.memory.alloc, 100, &dog));
    opd_system_stop(t.system, OPD_OK);
    CHECK_OK(opd_system_run(t.system));
    opd_watchdog_stop(dog);
    opd_log_sink_set(NULL, NULL);
    CHECK_CONTAINS(log.text, "error: laggard is stuck");
    sys_down(&t);
}

TEST(a_watchdog_has_a_limit) {
    opd_test_sys t;
    opd_watchdog *dog = NULL;
    sys_up(&t, NULL);
    CHECK_ERR(opd_watchdog_start(t.env, t.system, &t.memory.alloc, 0, &dog), OPD_ERR_INVALID);
    CHECK(dog == NULL);
    CHECK_OK(opd_watchdog_start(t.env, t.system, &t.memory.alloc, UINT64_MAX, &dog));
    opd_watchdog_stop(dog);
    sys_down(&t);
}

/* The loop's side: callbacks of "even" begin at even times, those of "odd" at odd ones. */
enum { BEATS = 3000000 };

typedef struct beating {
    opd_ctx *actors[2];
    opd_system *system;
    unsigned over; /* atomic */
} beating;

static opd_err remember_even(opd_ctx *ctx, void *arg) {
    ((beating *)arg)->actors[0] = ctx;
    return OPD_OK;
}

static opd_err remember_odd(opd_ctx *ctx, void *arg) {
    ((beating *)arg)->actors[1] = ctx;
    return OPD_OK;
}

static void *beat(void *arg) {
    beating *b = arg;
    for (uint64_t i = 2; i < BEATS; i++) opd__heartbeat(b->actors[i % 2], i, (uint16_t)(i % 2));
    __atomic_store_n(&b->over, 1, __ATOMIC_RELEASE);
    return NULL;
}

TEST(what_a_reader_of_the_heartbeat_believes_belongs_together) {
    opd_test_sys t;
    sys_up(&t, NULL);
    beating b = {.system = t.system};
    (void)script_spawn(&t, "even", (opd_script){.start = remember_even, .arg = &b});
    (void)script_spawn(&t, "odd", (opd_script){.start = remember_odd, .arg = &b});
    pthread_t loop;
    unsigned read = 0;
    CHECK_INT(pthread_create(&loop, NULL, beat, &b), 0);
    while (__atomic_load_n(&b.over, __ATOMIC_ACQUIRE) == 0) {
        opd_heartbeat_reading now;
        if (!opd_heartbeat_read(opd_system_heartbeat(t.system), &now)) continue;
        CHECK_STR(now.name, now.began_ns % 2 == 0 ? "even" : "odd");
        CHECK_INT(now.kind, now.began_ns % 2);
        read++;
    }
    (void)pthread_join(loop, NULL);
    (void)read;
    begin(&t);
}
