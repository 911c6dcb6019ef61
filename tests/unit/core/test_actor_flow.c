/* test_actor_flow.c - requests (exactly once), links (credits conserved) and jobs. */
#include <stdatomic.h>
#include <time.h>

#include "core/base/check.h"
#include "tests/support/sys_test.h"

static const uint64_t MS = 1000000;

static opd_msg *new_msg(opd_ctx *ctx, uint16_t kind, size_t size) {
    opd_msg *msg = NULL;
    char bytes[OPD_MSG_BODY_MAX] = {0};
    CHECK_OK(opd_msg_create(opd_self_system(ctx), kind, &msg));
    CHECK_OK(opd_msg_body_set(msg, bytes, size));
    return msg;
}

/* ---- requests -------------------------------------------------------------------------- */

/* What the server does with a request of that kind. */
enum { ECHO = 1, FAIL, IGNORE, KEEP, DIE, LATE };

typedef struct server {
    opd_msg *kept;
    opd_timer timer;
} server;

static opd_err answer_late(opd_ctx *ctx, void *state, opd_timer *timer) {
    server *s = state;
    (void)timer;
    opd_reply(ctx, s->kept, new_msg(ctx, ECHO, 0));
    opd_msg_release(s->kept);
    s->kept = NULL;
    return OPD_OK;
}

static opd_err server_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    server *s = state;
    switch (opd_msg_kind(msg)) {
    case ECHO: opd_reply(ctx, msg, new_msg(ctx, ECHO, 5)); return OPD_OK;
    case FAIL:
        opd_reply_error(ctx, msg, opd_fail(OPD_ERR_INVALID, "no such prompt"));
        return OPD_OK;
    case IGNORE: return OPD_OK;
    case DIE: return opd_fail(OPD_ERR_IO, "died");
    default: break;
    }
    s->kept = msg;
    opd_msg_take(ctx, msg);
    if (opd_msg_kind(msg) != LATE) return OPD_OK;
    opd_timer_init(&s->timer, ctx, answer_late);
    return opd_timer_start_after(&s->timer, 120 * MS);
}

static void server_stop(opd_ctx *ctx, void *state) {
    (void)ctx;
    opd_msg_release(((server *)state)->kept);
}

static const opd_actor_class server_class = {.name = "server", .state_size = sizeof(server),
                                             .on_message = server_message,
                                             .on_stop = server_stop};

enum { ASKS_MAX = 8 };

typedef struct client {
    opd_pid server;
    uint16_t kinds[ASKS_MAX];
    uint64_t timeouts_ms[ASKS_MAX];
    int count, done, calls[ASKS_MAX];
    opd_err results[ASKS_MAX];
    char texts[ASKS_MAX][64];
    bool asking;
    int cancel; /* index + 1 of the request to cancel */
    opd_timer linger; /* stays a while for late replies */
} client;

static opd_err linger_over(opd_ctx *ctx, void *state, opd_timer *timer) {
    (void)state;
    (void)timer;
    opd_system_stop(opd_self_system(ctx), OPD_OK);
    return OPD_OK;
}

typedef struct client_state {
    client *c;
} client_state;

static opd_err on_reply(opd_ctx *ctx, void *state, void *arg, opd_err err, opd_msg *reply) {
    client *c = ((client_state *)state)->c;
    long i = (long)(intptr_t)arg;
    CHECK(!c->asking); /* always later */
    CHECK((err == OPD_OK) == (reply != NULL));
    c->calls[i]++;
    c->results[i] = err;
    (void)snprintf(c->texts[i], sizeof c->texts[i], "%.60s", err == OPD_OK ? "" : opd_err_context());
    if (++c->done < c->count) return OPD_OK;
    opd_timer_init(&c->linger, ctx, linger_over);
    return opd_timer_start_after(&c->linger, 160 * MS);
}

static opd_err client_start(opd_ctx *ctx, void *state, const void *config) {
    client *c = *(client *const *)config;
    ((client_state *)state)->c = c;
    c->asking = true;
    for (int i = 0; i < c->count; i++) {
        opd_msg *msg = new_msg(ctx, c->kinds[i], 3);
        uint64_t id = 0;
        CHECK_OK(opd_request(ctx, c->server, msg, opd_deadline_in(ctx, c->timeouts_ms[i]), on_reply,
                             (void *)(intptr_t)i, &id));
        if (c->cancel == i + 1) opd_request_cancel(ctx, id);
        if (c->cancel == i + 1) opd_request_cancel(ctx, id);
    }
    c->asking = false;
    return OPD_OK;
}

static const opd_actor_class client_class = {
    .name = "client", .state_size = sizeof(client_state), .requests_max = ASKS_MAX,
    .on_start = client_start};

static uint64_t ask(client *c) {
    opd_test_sys t;
    sys_up(&t, NULL);
    opd_pid pid = 0;
    if (c->server == OPD_PID_NOBODY)
        CHECK_OK(opd_spawn(t.system, &server_class, NULL, NULL, &c->server));
    CHECK_OK(opd_spawn(t.system, &client_class, NULL, &c, &pid));
    CHECK_OK(opd_system_run(t.system));
    CHECK_INT(c->done, c->count);
    for (int i = 0; i < c->count; i++) CHECK_INT(c->calls[i], 1);
    uint64_t late = opd_system_stats_get(t.system).late_replies;
    sys_down(&t);
    return late;
}

TEST(request_ends_with_reply_error_or_closed) {
    client c = {.kinds = {ECHO, FAIL, IGNORE, ECHO}, .count = 4, .timeouts_ms = {1000, 1000, 1000}};
    CHECK_INT(ask(&c), 0);
    CHECK_INT(c.results[0], OPD_OK);
    CHECK_INT(c.results[1], OPD_ERR_INVALID);
    CHECK_STR(c.texts[1], "no such prompt");
    CHECK_INT(c.results[2], OPD_ERR_CLOSED);
    CHECK_INT(c.results[3], OPD_OK);
}

TEST(request_times_out_and_a_late_reply_is_counted) {
    client c = {.kinds = {LATE}, .timeouts_ms = {40}, .count = 1};
    CHECK_INT(ask(&c), 1);
    CHECK_INT(c.results[0], OPD_ERR_TIMEOUT);
}

TEST(request_in_time_beats_its_deadline) {
    client c = {.kinds = {LATE}, .timeouts_ms = {5000}, .count = 1};
    CHECK_INT(ask(&c), 0);
    CHECK_INT(c.results[0], OPD_OK);
}

TEST(request_of_a_dying_actor_and_queued_behind_it_is_closed) {
    client c = {.kinds = {DIE, ECHO, KEEP}, .count = 3};
    CHECK_INT(ask(&c), 0);
    for (int i = 0; i < 3; i++) CHECK_INT(c.results[i], OPD_ERR_CLOSED);
}

TEST(request_to_the_dead_is_closed_later) {
    client c = {.server = (opd_pid)200 << 32 | 1, .kinds = {ECHO}, .count = 1};
    CHECK_INT(ask(&c), 0);
    CHECK_INT(c.results[0], OPD_ERR_CLOSED);
}

TEST(request_cancelled_ends_once) {
    client c = {.kinds = {ECHO, KEEP}, .count = 2, .cancel = 1, .timeouts_ms = {0, 10}};
    CHECK_INT(ask(&c), 1); /* the cancelled one is answered late */
    CHECK_INT(c.results[0], OPD_ERR_CANCELLED);
    CHECK_INT(c.results[1], OPD_ERR_TIMEOUT);
}

static opd_err crowd_start(opd_ctx *ctx, void *state, const void *config) {
    (void)state;
    opd_pid to = *(const opd_pid *)config;
    for (int i = 0; i < 2; i++)
        CHECK_OK(opd_request(ctx, to, new_msg(ctx, KEEP, 0), OPD_NO_DEADLINE, on_reply, NULL, NULL));
    opd_msg *msg = new_msg(ctx, KEEP, 0);
    CHECK_ERR(opd_request(ctx, to, msg, OPD_NO_DEADLINE, on_reply, NULL, NULL), OPD_ERR_AGAIN);
    opd_msg_release(msg);
    return OPD_OK;
}

TEST(requests_waiting_are_bounded_and_die_with_the_asker) {
    static const opd_actor_class crowd = {.name = "crowd", .state_size = 1, .requests_max = 2,
                                          .on_start = crowd_start};
    opd_test_sys t;
    sys_up(&t, NULL);
    opd_pid to = 0, pid = 0;
    CHECK_OK(opd_spawn(t.system, &server_class, NULL, NULL, &to));
    CHECK_OK(opd_spawn(t.system, &crowd, NULL, &to, &pid));
    opd_system_destroy(t.system); /* both end with two requests between them */
    sys_env_down(&t);
}

/* The deadline of the request being handled is inherited by what its handler asks. */
static uint64_t seen_deadline_ns;

static opd_err relay_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    (void)state;
    seen_deadline_ns = opd_msg_deadline_ns(msg);
    CHECK(opd_deadline_in(ctx, 60000) == seen_deadline_ns);
    CHECK(opd_deadline_in(ctx, 0) == seen_deadline_ns);
    CHECK(opd_deadline_in(ctx, 1) < seen_deadline_ns);
    opd_reply(ctx, msg, new_msg(ctx, ECHO, 0));
    return OPD_OK;
}

TEST(deadlines_are_inherited) {
    static const opd_actor_class relay = {.name = "relay", .on_message = relay_message};
    opd_test_sys t;
    sys_up(&t, NULL);
    client c = {.kinds = {ECHO}, .timeouts_ms = {2000}, .count = 1}, *cp = &c;
    opd_pid pid = 0;
    CHECK_OK(opd_spawn(t.system, &relay, NULL, NULL, &c.server));
    CHECK_OK(opd_spawn(t.system, &client_class, NULL, &cp, &pid));
    CHECK_OK(opd_system_run(t.system));
    CHECK(seen_deadline_ns != OPD_NO_DEADLINE);
    sys_down(&t);
}

/* ---- links ----------------------------------------------------------------------------- */

enum { STREAM = 300, WINDOW_MSGS = 8, WINDOW_BYTES = 2000 };

typedef struct producer {
    opd_pid to;
    opd_link *link;
    int sent, refused, credits;
} producer;

static opd_err produce(opd_ctx *ctx, producer *p) {
    while (p->sent < STREAM) {
        opd_msg *msg = new_msg(ctx, (uint16_t)p->sent, (size_t)(p->sent * 37 % 400));
        opd_err err = opd_link_send(ctx, p->link, msg);
        CHECK(opd_link_msgs_used(p->link) <= WINDOW_MSGS);
        CHECK(opd_link_bytes_used(p->link) <= WINDOW_BYTES);
        if (err != OPD_OK) opd_msg_release(msg);
        if (err == OPD_ERR_AGAIN) {
            p->refused++;
            return OPD_OK;
        }
        OPD_TRY(err);
        p->sent++;
    }
    return OPD_OK;
}

static producer *producer_seen;

static opd_err producer_start(opd_ctx *ctx, void *state, const void *config) {
    producer *p = producer_seen = state;
    p->to = *(const opd_pid *)config;
    OPD_TRY(opd_link_open(ctx, p->to, WINDOW_MSGS, WINDOW_BYTES, &p->link));
    opd_msg *big = new_msg(ctx, 0, WINDOW_BYTES + 1);
    CHECK_ERR(opd_link_send(ctx, p->link, big), OPD_ERR_LIMIT);
    opd_msg_release(big);
    return produce(ctx, p);
}

static opd_err producer_signal(opd_ctx *ctx, void *state, const opd_signal *signal) {
    producer *p = state;
    if (signal->kind != OPD_SIGNAL_CREDIT) return OPD_OK;
    CHECK(signal->link == p->link);
    p->credits++;
    return produce(ctx, p);
}

static const opd_actor_class producer_class = {.name = "producer", .state_size = sizeof(producer),
                                               .on_start = producer_start,
                                               .on_signal = producer_signal};

/* Keeps up to four messages at a time, so credits come back late and out of step. */
typedef struct consumer {
    opd_msg *kept[4];
    int next;
} consumer;

static opd_err consume(opd_ctx *ctx, void *state, opd_msg *msg) {
    consumer *c = state;
    CHECK_INT(opd_msg_kind(msg), c->next);
    opd_msg_release(c->kept[c->next % 4]);
    c->kept[c->next % 4] = msg;
    opd_msg_take(ctx, msg);
    if (++c->next < STREAM) return OPD_OK;
    CHECK_INT(producer_seen->sent, STREAM);
    CHECK_INT(producer_seen->refused, producer_seen->credits);
    CHECK(producer_seen->refused > STREAM / WINDOW_MSGS / 2);
    CHECK_INT(opd_link_msgs_used(producer_seen->link), 4); /* exactly what is kept */
    for (int i = 0; i < 4; i++) opd_msg_release(c->kept[i]);
    CHECK_INT(opd_link_msgs_used(producer_seen->link), 0);
    CHECK_INT(opd_link_bytes_used(producer_seen->link), 0);
    memset(c->kept, 0, sizeof c->kept);
    opd_system_stop(opd_self_system(ctx), OPD_OK);
    return OPD_OK;
}

static const opd_actor_class consumer_class = {.name = "consumer", .state_size = sizeof(consumer),
                                               .on_message = consume};

TEST(link_credits_are_conserved_and_order_is_kept) {
    opd_test_sys t;
    sys_up(&t, NULL);
    opd_pid to = 0, from = 0;
    CHECK_OK(opd_spawn(t.system, &consumer_class, NULL, NULL, &to));
    CHECK_OK(opd_spawn(t.system, &producer_class, NULL, &to, &from));
    CHECK_OK(opd_system_run(t.system));
    sys_down(&t);
}

/* Sender and receiver end with messages in flight on the link, in either order. */
TEST(link_survives_the_end_of_either_side) {
    for (int receiver_first = 0; receiver_first < 2; receiver_first++) {
        opd_test_sys t;
        sys_up(&t, NULL);
        opd_pid to = 0, from = 0;
        CHECK_OK(opd_spawn(t.system, &server_class, NULL, NULL, &to));
        CHECK_OK(opd_spawn(t.system, &producer_class, NULL, &to, &from));
        opd_stop(t.system, receiver_first ? to : from);
        opd_stop(t.system, receiver_first ? from : to);
        CHECK_OK(opd_system_run(t.system));
        sys_down(&t);
    }
}


static opd_ctx *linkers[3];

static opd_err linker_start(opd_ctx *ctx, void *state, const void *config) {
    (void)state;
    linkers[*(const int *)config] = ctx; /* a ctx is valid until on_stop */
    return OPD_OK;
}

TEST(links_may_not_form_a_cycle) {
    static const opd_actor_class linker_class = {.name = "linker", .on_start = linker_start};
    static const char *const names[] = {"rollout", "teacher", "batcher"};
    opd_test_sys t;
    sys_up(&t, NULL);
    opd_pid pids[3];
    opd_link *link = NULL;
    for (int i = 0; i < 3; i++)
        CHECK_OK(opd_spawn(t.system, &linker_class, names[i], &i, &pids[i]));
    CHECK_ERR(opd_link_open(linkers[0], pids[0], 1, 1, &link), OPD_ERR_INVALID);
    CHECK_ERR(opd_link_open(linkers[0], pids[1], 0, 1, &link), OPD_ERR_INVALID);
    CHECK_OK(opd_link_open(linkers[0], pids[1], 1, 1, &link));
    CHECK_OK(opd_link_open(linkers[0], pids[2], 1, 1, &link));
    CHECK_OK(opd_link_open(linkers[1], pids[2], 1, 1, &link));
    CHECK_ERR(opd_link_open(linkers[2], pids[0], 1, 1, &link), OPD_ERR_INVALID);
    CHECK_CONTAINS(opd_err_context(), "batcher -> rollout -> batcher");
    opd_link_close(link);
    CHECK_ERR(opd_link_open(linkers[2], pids[1] + 1, 1, 1, &link), OPD_ERR_CLOSED);
    CHECK_OK(opd_link_open(linkers[2], pids[1], 1, 1, &link));
    sys_down(&t);
}

/* ---- jobs ------------------------------------------------------------------------------ */

typedef struct worker {
    opd_job job, extra;
    opd_lane *lane;
    int rounds, result;
    bool die_early;
} worker;

static atomic_int runs;

static opd_err run_square(opd_job *job) {
    worker *w = job->arg;
    atomic_fetch_add(&runs, 1);
    w->result = w->rounds * w->rounds;
    return w->rounds == 0 ? opd_fail(OPD_ERR_NUMERIC, "nothing left") : OPD_OK;
}

static opd_err square_done(opd_ctx *ctx, void *state, opd_job *job) {
    worker *w = state;
    CHECK_INT(w->result, w->rounds * w->rounds);
    if (w->rounds == 0) {
        CHECK_INT(job->err, OPD_ERR_NUMERIC);
        CHECK_STR(job->text, "nothing left");
        opd_exit(ctx, OPD_OK);
        return OPD_OK;
    }
    CHECK_INT(job->err, OPD_OK);
    w->rounds--;
    return opd_job_submit(ctx, w->lane, job);
}

static opd_err worker_start(opd_ctx *ctx, void *state, const void *config) {
    worker *w = state;
    *w = *(const worker *)config;
    w->job.arg = w;
    OPD_TRY(opd_job_submit(ctx, w->lane, &w->job));
    w->extra = (opd_job){.run = w->job.run, .done = w->job.done};
    CHECK_ERR(opd_job_submit(ctx, w->lane, &w->extra), OPD_ERR_AGAIN);
    if (w->die_early) opd_exit(ctx, OPD_OK);
    return OPD_OK;
}

static void worker_stop(opd_ctx *ctx, void *state) {
    (void)ctx;
    CHECK(!((worker *)state)->job.submitted); /* the lane is done with our memory */
}

static const opd_actor_class worker_class = {.name = "worker", .state_size = sizeof(worker),
                                             .on_start = worker_start, .on_stop = worker_stop};

TEST(job_round_trips_and_its_error_travels_back) {
    opd_test_sys t;
    sys_up(&t, NULL);
    worker w = {.rounds = 500, .job = {.run = run_square, .done = square_done}};
    opd_pid pid = 0;
    CHECK_OK(opd_lane_open(t.system, "test-lane", 1, &w.lane));
    CHECK_OK(opd_spawn(t.system, &worker_class, NULL, &w, &pid));
    CHECK_OK(opd_system_run(t.system));
    CHECK_INT(runs, 501);
    sys_down(&t);
}

static opd_err run_until_cancelled(opd_job *job) {
    while (!opd_job_cancelled(job)) {
        struct timespec pause = {.tv_nsec = 100000};
        (void)nanosleep(&pause, NULL);
    }
    struct timespec more = {.tv_nsec = 5000000}; /* the actor must wait for this */
    (void)nanosleep(&more, NULL);
    return opd_fail(OPD_ERR_CANCELLED, "stopped");
}

static opd_err never_done(opd_ctx *ctx, void *state, opd_job *job) {
    (void)ctx;
    (void)state;
    (void)job;
    return opd_fail(OPD_ERR_INTERNAL, "done of a dead actor");
}

TEST(an_ending_actor_cancels_and_waits_for_its_job) {
    for (int run_it = 0; run_it < 2; run_it++) {
        opd_test_sys t;
        sys_up(&t, NULL);
        worker w = {.die_early = true, .job = {.run = run_until_cancelled, .done = never_done}};
        opd_pid pid = 0;
        CHECK_OK(opd_lane_open(t.system, "test-lane", 1, &w.lane));
        CHECK_OK(opd_spawn(t.system, &worker_class, NULL, &w, &pid));
        if (run_it) CHECK_OK(opd_system_run(t.system)); /* else: destroy waits */
        sys_down(&t);
    }
}

/* ---- events from other threads --------------------------------------------------------- */

enum { POSTS = 2000, LANES = 3 };

typedef struct posted {
    opd_event event;
    int lane, number;
} posted;

typedef struct poster {
    opd_job job;
    posted *items;
} poster;

typedef struct collector {
    opd_lane *lanes[LANES];
    poster posters[LANES];
    int next[LANES], total;
} collector;

static opd_system *collecting_system;

static opd_err run_poster(opd_job *job) {
    poster *p = job->arg;
    for (int i = 0; i < POSTS; i++) opd_event_post_remote(collecting_system, &p->items[i].event);
    return OPD_OK;
}

static opd_err poster_done(opd_ctx *ctx, void *state, opd_job *job) {
    collector *c = state;
    poster *p = job->arg;
    (void)ctx;
    CHECK_INT(c->next[p - c->posters], POSTS); /* its own events came before its completion */
    if (c->total == POSTS * LANES) opd_exit(ctx, OPD_OK);
    return OPD_OK;
}

static opd_err deliver_posted(opd_ctx *ctx, void *state, opd_event *event) {
    (void)ctx;
    collector *c = state;
    posted *p = OPD_CONTAINER_OF(event, posted, event);
    CHECK_INT(p->number, c->next[p->lane]++); /* FIFO for each thread */
    c->total++;
    return OPD_OK;
}

static opd_err collector_start(opd_ctx *ctx, void *state, const void *config) {
    collector *c = state;
    *c = *(const collector *)config;
    collecting_system = opd_self_system(ctx);
    for (int lane = 0; lane < LANES; lane++) {
        poster *p = &c->posters[lane];
        for (int i = 0; i < POSTS; i++)
            p->items[i] = (posted){.event = {.to = opd_self(ctx), .deliver = deliver_posted},
                                   .lane = lane, .number = i};
        p->job = (opd_job){.run = run_poster, .done = poster_done, .arg = p};
        OPD_TRY(opd_job_submit(ctx, c->lanes[lane], &p->job));
    }
    return OPD_OK;
}

TEST(events_of_many_threads_all_arrive_in_order) {
    static const opd_actor_class collector_class = {
        .name = "collector", .state_size = sizeof(collector), .on_start = collector_start};
    static posted items[LANES][POSTS];
    opd_test_sys t;
    sys_up(&t, NULL);
    collector c = {.total = 0};
    opd_pid pid = 0;
    for (int i = 0; i < LANES; i++) {
        CHECK_OK(opd_lane_open(t.system, "poster", 1, &c.lanes[i]));
        c.posters[i].items = items[i];
    }
    CHECK_OK(opd_spawn(t.system, &collector_class, NULL, &c, &pid));
    CHECK_OK(opd_system_run(t.system));
    sys_down(&t);
}
