/* test_diagnosis.c - who is stuck? Each planted trouble is named by what the runtime says. */
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/base/check.h"
#include "core/env/env.h"
#include "opd/diagnosis.h"
#include "opd/sim.h"
#include "tests/support/script_actor.h"

enum { KIND_PING = 1, KIND_PONG, KIND_DATA, KIND_ASK };

static const char *kind_name(uint16_t kind) {
    static const char *const names[] = {"none", "ping", "pong", "data", "ask"};
    return kind < OPD_COUNTOF(names) ? names[kind] : "?";
}

/* The log of several threads. */
static struct {
    pthread_mutex_t lock;
    opd_log_memory memory;
} said = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void say(void *arg, opd_log_level level, const char *text) {
    (void)arg;
    (void)pthread_mutex_lock(&said.lock);
    log_memory_sink(&said.memory, level, text);
    (void)pthread_mutex_unlock(&said.lock);
}

static bool has_said(const char *part) {
    (void)pthread_mutex_lock(&said.lock);
    bool found = strstr(said.memory.text, part) != NULL;
    (void)pthread_mutex_unlock(&said.lock);
    return found;
}

static opd_system_options options_of(uint64_t stall_report_ms) {
    return (opd_system_options){.kind_name = kind_name, .recorder = true,
                                .stall_report_ms = stall_report_ms, .messages_max = 256};
}

static void up(opd_test_sys *t, uint64_t stall_report_ms) {
    opd_system_options options = options_of(stall_report_ms);
    opd_log_sink_set(say, NULL);
    sys_up(t, &options);
}

/* The same troubles in both worlds: the real loop, and virtual time with a seeded order. */
static opd_sim *world;

static void up_in(opd_test_sys *t, bool simulated, uint64_t stall_report_ms) {
    world = NULL;
    if (!simulated) {
        up(t, stall_report_ms);
        return;
    }
    opd_log_sink_set(say, NULL);
    opd_test_alloc_tracing(&t->memory);
    opd_system_options options = options_of(stall_report_ms);
    options.alloc = &t->memory.alloc;
    CHECK_OK(opd_sim_create(7, &(opd_sim_options){.alloc = &t->memory.alloc}, &world));
    CHECK_OK(opd_sim_env(world, "node", &t->env));
    CHECK_OK(opd_system_create(&options, t->env, &t->system));
}

static void down(opd_test_sys *t) {
    if (world == NULL) {
        sys_down(t);
    } else {
        opd_system_destroy(t->system);
        CHECK_OK(opd_env_destroy(t->env));
        opd_sim_destroy(world);
        CHECK_INT(t->memory.live, 0);
    }
    opd_log_sink_set(NULL, NULL);
}

/* Runs until the first stall was reported; an actor called "judge" looks every few ms. */
typedef struct judge {
    opd_timer timer;
} judge;

static opd_err judge_looks(opd_ctx *ctx, void *state, opd_timer *timer) {
    (void)state;
    if (opd_stalls(opd_self_system(ctx)) == 0) return opd_timer_start_after(timer, 5000000);
    opd_system_kill(opd_self_system(ctx), OPD_OK);
    return OPD_OK;
}

static opd_err judge_start(opd_ctx *ctx, void *state, const void *config) {
    judge *j = state;
    (void)config;
    opd_timer_init(&j->timer, ctx, judge_looks);
    opd_progress_note(opd_self_system(ctx), 1);
    return opd_timer_start_after(&j->timer, 5000000);
}

static const opd_actor_class judge_class = {.name = "judge", .state_size = sizeof(judge),
                                            .on_start = judge_start};

static void run_until_stall(opd_test_sys *t) {
    opd_pid pid;
    CHECK_OK(opd_spawn(t->system, &judge_class, NULL, NULL, &pid));
    CHECK_OK(opd_system_run(t->system));
    CHECK_INT(opd_stalls(t->system), 1);
}

/* ---- livelock: two actors that send each other the same thing for ever ------------------- */

static opd_err send_back(opd_ctx *ctx, void *arg, opd_msg *msg) {
    (void)arg;
    uint16_t kind = opd_msg_kind(msg) == KIND_PING ? KIND_PONG : KIND_PING;
    opd_msg *answer = script_msg(opd_self_system(ctx), kind, 1);
    opd_err err = opd_send(ctx, opd_msg_from(msg), answer);
    if (err != OPD_OK) opd_msg_release(answer);
    return OPD_OK;
}

static opd_err ping_first(opd_ctx *ctx, void *arg) {
    return opd_send(ctx, *(opd_pid *)arg, script_msg(opd_self_system(ctx), KIND_PING, 1));
}

/* Long enough for a loop on a busy machine to turn often. */
enum { LIVELOCK_MS = 600 };

static void livelock(bool simulated) {
    opd_test_sys t;
    up_in(&t, simulated, LIVELOCK_MS);
    opd_pid echo = script_spawn(&t, "echo", (opd_script){.message = send_back});
    script_spawn(&t, "caller",
                 (opd_script){.start = ping_first, .message = send_back, .arg = &echo});
    run_until_stall(&t);
    CHECK(has_said("warn: no progress for "));
    CHECK(has_said(": livelock: "));
    CHECK(has_said("most between echo<0.1> (ping) and caller<1.1> (pong)"));
    down(&t);
}

TEST(a_livelock_is_named) { livelock(false); }

TEST(a_livelock_is_named_in_simulation) { livelock(true); }

/* ---- livelock of one: a timer that always fires again ------------------------------------ */

static opd_err spin(opd_ctx *ctx, void *state, opd_timer *timer) {
    (void)state;
    return opd_timer_start(timer, opd_now_ns(ctx));
}

static opd_err spin_start(opd_ctx *ctx, void *state, const void *config) {
    (void)config;
    opd_timer_init(state, ctx, spin);
    return opd_timer_start(state, opd_now_ns(ctx));
}

static void spinning_timer(bool simulated) {
    opd_test_sys t;
    static const opd_actor_class spinner = {.name = "spinner", .state_size = sizeof(opd_timer),
                                            .on_start = spin_start};
    opd_pid pid;
    up_in(&t, simulated, LIVELOCK_MS);
    CHECK_OK(opd_spawn(t.system, &spinner, NULL, NULL, &pid));
    run_until_stall(&t);
    CHECK(has_said(": livelock: spinner handles "));
    down(&t);
}

TEST(a_spinning_timer_is_named) { spinning_timer(false); }

TEST(a_spinning_timer_is_named_in_simulation) { spinning_timer(true); }

/* ---- a leak of credits: the receiver keeps what it got ----------------------------------- */

typedef struct hoard {
    opd_pid receiver;
    opd_link *link;
    opd_msg *kept[2];
    unsigned count;
} hoard;

static opd_err fill_link(opd_ctx *ctx, void *arg) {
    hoard *h = arg;
    CHECK_OK(opd_link_open(ctx, h->receiver, 2, 4096, &h->link));
    for (unsigned i = 0; i < 3; i++) {
        opd_msg *msg = script_msg(opd_self_system(ctx), KIND_DATA, 100);
        opd_err err = opd_link_send(ctx, h->link, msg);
        CHECK_INT(err, i < 2 ? OPD_OK : OPD_ERR_AGAIN);
        if (err != OPD_OK) opd_msg_release(msg);
    }
    return OPD_OK;
}

static opd_err keep(opd_ctx *ctx, void *arg, opd_msg *msg) {
    hoard *h = arg;
    opd_msg_take(ctx, msg);
    h->kept[h->count++] = msg;
    return OPD_OK;
}

static void let_go(opd_ctx *ctx, void *arg) {
    hoard *h = arg;
    (void)ctx;
    while (h->count > 0) opd_msg_release(h->kept[--h->count]);
}

static void leak_of_credits(bool simulated) {
    opd_test_sys t;
    hoard h = {0};
    up_in(&t, simulated, 150);
    h.receiver = script_spawn(&t, "miser", (opd_script){.message = keep, .stop = let_go, .arg = &h});
    script_spawn(&t, "giver", (opd_script){.start = fill_link, .arg = &h});
    run_until_stall(&t);
    CHECK(has_said(": no credit comes back: link giver -> miser<0.1> is blocked for "));
    CHECK(has_said("with 2 of 2 messages, 200 of 4096 bytes in use, that receiver has 2 data, the "));
    CHECK(has_said(" (0 unread, 2 in hand)"));
    CHECK(has_said("; also: miser keeps 2 data, the oldest for "));
    down(&t);
}

TEST(a_leak_of_credits_is_named) { leak_of_credits(false); }

TEST(a_leak_of_credits_is_named_in_simulation) { leak_of_credits(true); }

/* ---- an unbounded producer, of messages and of attempts ---------------------------------- */

typedef struct flood {
    opd_timer timer;
    opd_pid to;
    opd_msg *made[256];
    unsigned count;
} flood;

/* Makes and keeps, or makes and sends (in vain). */
static void pour_one(opd_ctx *ctx, flood *f) {
    opd_msg *msg = NULL;
    bool keeps = f->to == OPD_PID_NOBODY;
    if (keeps && f->count == 250) return;
    if (opd_msg_create(opd_self_system(ctx), KIND_DATA, &msg) != OPD_OK) return;
    if (keeps)
        f->made[f->count++] = msg;
    else if (opd_send(ctx, f->to, msg) != OPD_OK)
        opd_msg_release(msg);
}

static opd_err pour(opd_ctx *ctx, void *state, opd_timer *timer) {
    for (int i = 0; i < 50; i++) pour_one(ctx, state);
    return opd_timer_start_after(timer, 50000);
}

static opd_err flood_start(opd_ctx *ctx, void *state, const void *config) {
    flood *f = state;
    f->to = *(const opd_pid *)config;
    opd_timer_init(&f->timer, ctx, pour);
    return opd_timer_start(&f->timer, opd_now_ns(ctx));
}

static void flood_stop(opd_ctx *ctx, void *state) {
    flood *f = state;
    (void)ctx;
    while (f->count > 0) opd_msg_release(f->made[--f->count]);
}

static const opd_actor_class flood_class = {.name = "spring", .state_size = sizeof(flood),
                                            .on_start = flood_start, .on_stop = flood_stop};

static void unbounded_producer(bool simulated) {
    opd_test_sys t;
    opd_pid nobody = OPD_PID_NOBODY, pid;
    up_in(&t, simulated, 800);
    CHECK_OK(opd_spawn(t.system, &flood_class, NULL, &nobody, &pid));
    run_until_stall(&t);
    CHECK(has_said(": unbounded producer: spring made "));
    CHECK(has_said("(pool of 256): "));
    down(&t);
}

TEST(an_unbounded_producer_is_named) { unbounded_producer(false); }

TEST(an_unbounded_producer_is_named_in_simulation) { unbounded_producer(true); }

/* A mailbox whose owner has failed to read it: full for good. */
static opd_err never_mind(opd_ctx *ctx, void *arg, opd_msg *msg) {
    (void)arg;
    (void)msg;
    opd_msg *own = script_msg(opd_self_system(ctx), KIND_DATA, 0);
    if (opd_send(ctx, opd_self(ctx), own) != OPD_OK) opd_msg_release(own);
    return OPD_OK;
}

static opd_err fill_own_mailbox(opd_ctx *ctx, void *arg) {
    (void)arg;
    for (;;) {
        opd_msg *own = script_msg(opd_self_system(ctx), KIND_DATA, 0);
        if (opd_send(ctx, opd_self(ctx), own) == OPD_OK) continue;
        opd_msg_release(own);
        return OPD_OK;
    }
}

static void refused_for_ever(bool simulated) {
    opd_test_sys t;
    up_in(&t, simulated, 800);
    opd_pid full = script_spawn(&t, "full", (opd_script){.start = fill_own_mailbox,
                                                         .message = never_mind}), pid;
    CHECK_OK(opd_spawn(t.system, &flood_class, NULL, &full, &pid));
    run_until_stall(&t);
    CHECK(has_said(": unbounded producer: spring was refused "));
    CHECK(has_said(", by full<0.1>"));
    down(&t);
}

TEST(one_who_is_refused_for_ever_is_named) { refused_for_ever(false); }

TEST(one_who_is_refused_for_ever_is_named_in_simulation) { refused_for_ever(true); }

/* ---- a request that nobody answers ------------------------------------------------------- */

static opd_err answered(opd_ctx *ctx, void *state, void *arg, opd_err err, opd_msg *reply) {
    (void)ctx;
    (void)state;
    (void)arg;
    (void)err;
    (void)reply;
    return OPD_OK;
}

static opd_err ask(opd_ctx *ctx, void *arg) {
    return opd_request(ctx, *(opd_pid *)arg, script_msg(opd_self_system(ctx), KIND_ASK, 0),
                       OPD_NO_DEADLINE, answered, NULL, NULL);
}

static void unanswered_request(bool simulated) {
    opd_test_sys t;
    hoard h = {0};
    up_in(&t, simulated, 150);
    opd_pid mute = script_spawn(&t, "mute", (opd_script){.message = keep, .stop = let_go, .arg = &h});
    script_spawn(&t, "waiter", (opd_script){.start = ask, .arg = &mute});
    run_until_stall(&t);
    CHECK(has_said(": waiter waits for mute<0.1>, which has not answered ask for "));
    down(&t);
}

TEST(an_unanswered_request_is_named) { unanswered_request(false); }

TEST(an_unanswered_request_is_named_in_simulation) { unanswered_request(true); }

/* ---- a job that does not end ------------------------------------------------------------- */

typedef struct labour {
    opd_job job;
    opd_lane *lane;
} labour;

static opd_err work_until_cancelled(opd_job *job) {
    while (!opd_job_cancelled(job)) (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    return OPD_OK;
}

static opd_err worked(opd_ctx *ctx, void *state, opd_job *job) {
    (void)ctx;
    (void)state;
    (void)job;
    return OPD_OK;
}

static opd_err begin_work(opd_ctx *ctx, void *arg) {
    labour *l = arg;
    l->job = (opd_job){.run = work_until_cancelled, .done = worked};
    return opd_job_submit(ctx, l->lane, &l->job);
}

TEST(a_long_job_is_named) {
    opd_test_sys t;
    labour l = {0};
    up(&t, 150);
    CHECK_OK(opd_lane_open(t.system, "mill", 1, &l.lane));
    script_spawn(&t, "miller", (opd_script){.start = begin_work, .arg = &l});
    run_until_stall(&t);
    CHECK(has_said(": a job of miller is on lane mill since "));
    down(&t);
}

/* ---- silence that is none, and the end of a stall ----------------------------------------- */

typedef struct pace {
    opd_timer timer;
    unsigned beats;
} pace;

static opd_err pace_on(opd_ctx *ctx, void *state, opd_timer *timer) {
    pace *p = state;
    opd_system *system = opd_self_system(ctx);
    if (++p->beats == 1) { /* the stall came before this: it is over now, and nothing is left */
        CHECK_INT(opd_stalls(system), 1);
        opd_progress_note(system, 0);
        return opd_timer_start_after(timer, 300000000);
    }
    CHECK_INT(opd_stalls(system), 1); /* silence with nothing outstanding */
    opd_system_stop(system, OPD_OK);
    return OPD_OK;
}

static opd_err pace_start(opd_ctx *ctx, void *state, const void *config) {
    pace *p = state;
    (void)config;
    opd_timer_init(&p->timer, ctx, pace_on);
    opd_progress_note(opd_self_system(ctx), 5);
    return opd_timer_start_after(&p->timer, 300000000);
}

TEST(a_stall_is_reported_once_and_idleness_is_none) {
    opd_test_sys t;
    opd_pid pid;
    static const opd_actor_class pacer = {.name = "pacer", .state_size = sizeof(pace),
                                          .on_start = pace_start};
    up(&t, 50);
    CHECK_OK(opd_spawn(t.system, &pacer, NULL, NULL, &pid));
    CHECK_OK(opd_system_run(t.system));
    CHECK(has_said("every actor is idle, nothing is under way"));
    CHECK(has_said("warn: things move again, after "));
    down(&t);
}

/* ---- the watchdog ------------------------------------------------------------------------ */

static opd_err sleep_until_named(opd_ctx *ctx, void *arg, opd_msg *msg) {
    (void)arg;
    (void)msg;
    while (!has_said("is stuck")) (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    return opd_send(ctx, opd_self(ctx), script_msg(opd_self_system(ctx), KIND_PONG, 0));
}

static opd_err wait_for_release(opd_ctx *ctx, void *arg, opd_msg *msg) {
    if (opd_msg_kind(msg) == KIND_PING) return sleep_until_named(ctx, arg, msg);
    if (has_said("returned")) {
        opd_system_stop(opd_self_system(ctx), OPD_OK);
        return OPD_OK;
    }
    return opd_send(ctx, opd_self(ctx), script_msg(opd_self_system(ctx), KIND_PONG, 0));
}

static opd_err ping_self(opd_ctx *ctx, void *arg) {
    (void)arg;
    return opd_send(ctx, opd_self(ctx), script_msg(opd_self_system(ctx), KIND_PING, 0));
}

TEST(a_stuck_handler_is_named) {
    opd_test_sys t;
    opd_watchdog *dog = NULL;
    up(&t, 0);
    CHECK_OK(opd_watchdog_start(t.env, t.system, &t.memory.alloc, 100, &dog));
    script_spawn(&t, "sleeper", (opd_script){.start = ping_self, .message = wait_for_release});
    CHECK_OK(opd_system_run(t.system));
    opd_watchdog_stop(dog);
    opd_watchdog_stop(NULL);
    CHECK(has_said("error: sleeper is stuck: its handler of ping runs for "));
    CHECK(has_said("warn: sleeper returned: it held the loop for about "));
    down(&t);
}

/* ---- the topology ------------------------------------------------------------------------ */

static void keep_line(void *arg, const char *line) {
    opd_log_memory *m = arg;
    size_t used = strlen(m->text);
    (void)snprintf(m->text + used, sizeof m->text - used, "%s\n", line);
    m->lines++;
}

typedef struct scene {
    hoard h;
    labour l;
    opd_pid mute;
} scene;

static opd_err set_scene(opd_ctx *ctx, void *arg) {
    scene *s = arg;
    CHECK_OK(fill_link(ctx, &s->h));
    CHECK_OK(begin_work(ctx, &s->l));
    uint64_t deadline_ns = opd_deadline_in(ctx, 3600000);
    return opd_request(ctx, s->mute, script_msg(opd_self_system(ctx), KIND_ASK, 0), deadline_ns,
                       answered, NULL, NULL);
}

static opd_err keep_then_dump(opd_ctx *ctx, void *arg, opd_msg *msg) {
    scene *s = arg;
    CHECK_OK(keep(ctx, &s->h, msg));
    if (s->h.count < 2) return OPD_OK;
    static opd_log_memory dump;
    opd_system_dump(opd_self_system(ctx), keep_line, &dump);
    CHECK_CONTAINS(dump.text, "system: 3 actors, 3 of 256 messages in use, 1 timers");
    CHECK_CONTAINS(dump.text, "loop: 1 turns");
    CHECK_CONTAINS(dump.text, "actor miser<0.1> alive: mailbox 0 (most 2), 0 bytes; in hand 2 data");
    CHECK_CONTAINS(dump.text, "actor mute<1.1> alive: mailbox 1");
    CHECK_CONTAINS(dump.text,
                   "  link to miser<0.1>: 2 of 2 messages, 200 of 4096 bytes, BLOCKED for ");
    CHECK_CONTAINS(dump.text, "  request ask to mute<1.1>: asked ");
    CHECK_CONTAINS(dump.text, " ago, deadline in 3");
    CHECK_CONTAINS(dump.text, "  job on lane mill, submitted ");
    CHECK_CONTAINS(dump.text, "lane mill: 1 of 1 jobs");
    CHECK_CONTAINS(dump.text, "slot: version 7, 64 bytes");
    opd_log_memory records = {.lines = 0};
    opd_recorder_dump(opd_self_system(ctx), 4, keep_line, &records);
    CHECK_INT(records.lines, 4);
    CHECK_CONTAINS(records.text, "handled   giver<2.1> -> miser<0.1> data #");
    opd_system_kill(opd_self_system(ctx), OPD_OK);
    return OPD_OK;
}

TEST(the_topology_is_printed) {
    opd_test_sys t;
    scene s = {.h = {0}};
    opd_slot *slot = NULL;
    opd_buf *buf = NULL;
    up(&t, 0);
    CHECK_OK(opd_lane_open(t.system, "mill", 1, &s.l.lane));
    CHECK_OK(opd_slot_create(t.system, &slot));
    CHECK_OK(opd_buf_create(&t.memory.alloc, 64, &buf));
    opd_slot_put(slot, buf, 7);
    opd_buf_release(buf);
    s.h.receiver = script_spawn(&t, "miser", (opd_script){.message = keep_then_dump, .stop = let_go,
                                                          .arg = &s});
    s.mute = script_spawn(&t, "mute", (opd_script){0});
    script_spawn(&t, "giver", (opd_script){.start = set_scene, .arg = &s});
    CHECK_OK(opd_system_run(t.system));
    opd_slot_destroy(slot);
    down(&t);
}

/* ---- the recorder at the end ------------------------------------------------------------- */

static opd_err fail_assertion(opd_ctx *ctx, void *arg, opd_msg *msg) {
    (void)arg;
    (void)msg;
    OPD_ASSERT(ctx == NULL);
    return OPD_OK;
}

TEST(a_failed_assertion_prints_the_last_records) {
    int fds[2];
    CHECK_INT(pipe(fds), 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        opd_test_sys t;
        (void)dup2(fds[1], STDERR_FILENO);
        up(&t, 0);
        script_spawn(&t, "rash", (opd_script){.start = ping_self, .message = fail_assertion});
        CHECK_OK(opd_system_run(t.system));
        _exit(0);
    }
    (void)close(fds[1]);
    char text[4096] = "";
    size_t used = 0;
    for (ssize_t n; (n = read(fds[0], text + used, sizeof text - 1 - used)) > 0;) used += (size_t)n;
    (void)close(fds[0]);
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    CHECK_CONTAINS(text, "assertion failed: ctx == NULL\nthe last records of this loop:\n");
    CHECK_CONTAINS(text, "sent      rash<0.1> -> rash<0.1> ping #1");
    CHECK_CONTAINS(text, "handled   rash<0.1> -> rash<0.1> ping #1");
}

/* ---- what an actor's numbers say ---------------------------------------------------------- */

static opd_err count_and_stop(opd_ctx *ctx, void *arg, opd_msg *msg) {
    (void)arg;
    (void)msg;
    opd_actor_stats stats;
    CHECK_OK(opd_actor_stats_get(opd_self_system(ctx), opd_self(ctx), &stats));
    CHECK_INT(opd_histogram_count(&stats.queue_wait), stats.messages);
    if (stats.messages < 64) return OPD_OK;
    CHECK_INT(stats.made, 65); /* the last one was refused: 64 are the most */
    CHECK_INT(stats.sends_refused, 1);
    CHECK_INT(stats.refused, 1);
    CHECK_INT(stats.depth_max, 64);
    CHECK(opd_loop_stats_get(opd_self_system(ctx)).turns > 0);
    opd_system_stop(opd_self_system(ctx), OPD_OK);
    return OPD_OK;
}

TEST(an_actor_counts) {
    opd_test_sys t;
    up(&t, 0);
    script_spawn(&t, "counter", (opd_script){.start = fill_own_mailbox, .message = count_and_stop});
    CHECK_OK(opd_system_run(t.system));
    down(&t);
}
