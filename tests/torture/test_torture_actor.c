/* test_torture_actor.c - the runtime's life with every allocation failing in turn, and with every
 * send, link, request and message refused in turn.
 *
 * The scenario uses everything that may be refused: an actor asks another over a link (with
 * attachments), by messages and by a request with a deadline, runs a job on a lane, waits for
 * a timer and a slot; when all of it has come to its end, the system stops. Whoever is told
 * AGAIN tries again.
 */
#include "core/base/check.h"
#include "opd/supervisor.h"
#include "tests/support/test.h"
#include "tests/torture/torture.h"

enum { PARCELS = 6, WINDOW = 2, NOTES = 4, LARGE = 300 /* bytes: a body of its own block */ };
enum { KIND_PARCEL = 1, KIND_NOTE, KIND_ASK };

typedef struct world {
    opd_lane *lane;
    opd_slot *slot;
    opd_pid worker;
    int parcels, notes; /* received by the worker */
    /* what the boss waits for */
    bool replied, computed, fired, changed;
} world;

/* Stops the system when all was sent, received and answered. */
static opd_err finish_if_over(opd_ctx *ctx, const world *w) {
    bool over = w->parcels == PARCELS && w->notes == NOTES && w->replied && w->computed &&
                w->fired && w->changed;
    if (over) opd_system_stop(opd_self_system(ctx), OPD_OK);
    return OPD_OK;
}

/* ---- the worker -------------------------------------------------------------------------- */

typedef struct worker {
    world *w;
    opd_monitor boss;
} worker;

static opd_err worker_start(opd_ctx *ctx, void *state, const void *config) {
    (void)ctx;
    ((worker *)state)->w = *(world *const *)config;
    return OPD_OK;
}

static opd_err worker_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    worker *s = state;
    opd_msg *reply = NULL;
    if (s->boss.ctx == NULL) opd_monitor_start(ctx, &s->boss, opd_msg_from(msg));
    if (opd_msg_kind(msg) == KIND_PARCEL) s->w->parcels++;
    if (opd_msg_kind(msg) == KIND_NOTE) s->w->notes++;
    if (opd_msg_kind(msg) != KIND_ASK) return finish_if_over(ctx, s->w);
    opd_err err = opd_msg_create(opd_self_system(ctx), KIND_ASK, &reply);
    if (err == OPD_OK) err = opd_msg_body_set(reply, (char[LARGE]){0}, LARGE);
    if (err == OPD_OK) {
        opd_reply(ctx, msg, reply);
    } else {
        opd_msg_release(reply);
        opd_reply_error(ctx, msg, err);
    }
    return OPD_OK;
}

/* The boss is gone: so is the reason to live. */
static opd_err worker_signal(opd_ctx *ctx, void *state, const opd_signal *signal) {
    (void)state;
    if (signal->kind == OPD_SIGNAL_DOWN) opd_exit(ctx, opd_fail(signal->reason, "%s", signal->text));
    return OPD_OK;
}

static const opd_actor_class worker_class = {.name = "worker", .state_size = sizeof(worker),
                                             .on_start = worker_start,
                                             .on_message = worker_message,
                                             .on_signal = worker_signal};

/* ---- the boss ---------------------------------------------------------------------------- */

typedef struct boss {
    world *w;
    opd_link *link;
    opd_buf *buf;
    int parcels, notes; /* sent */
    bool asked;
    opd_timer retry, alarm;
    opd_slot_watch watch;
    opd_job job;
} boss;

static opd_err on_answer(opd_ctx *ctx, void *state, void *arg, opd_err err, opd_msg *reply) {
    boss *b = state;
    size_t size = 0;
    (void)arg;
    if (err == OPD_OK) {
        (void)opd_msg_body(reply, &size);
        CHECK_INT(size, LARGE);
    } else {
        CHECK(opd_err_context()[0] != '\0');
    }
    b->w->replied = true;
    return finish_if_over(ctx, b->w);
}

static opd_err make(opd_ctx *ctx, const boss *b, uint16_t kind, opd_msg **out_msg) {
    opd_msg *msg = NULL;
    OPD_TRY(opd_msg_create(opd_self_system(ctx), kind, &msg));
    opd_err err = opd_msg_body_set(msg, (char[LARGE]){0}, LARGE);
    if (err == OPD_OK && kind == KIND_PARCEL)
        err = opd_msg_attach(msg, opd_slice_whole(b->buf), OPD_DTYPE_U8, 1, &(uint32_t){1000}, NULL);
    if (err != OPD_OK) opd_msg_release(msg);
    else *out_msg = msg;
    return err;
}

static opd_err send_one(opd_ctx *ctx, boss *b, uint16_t kind) {
    opd_msg *msg = NULL;
    OPD_TRY(make(ctx, b, kind, &msg));
    opd_err err = OPD_OK;
    if (kind == KIND_PARCEL) err = opd_link_send(ctx, b->link, msg);
    if (kind == KIND_NOTE) err = opd_send(ctx, b->w->worker, msg);
    if (kind == KIND_ASK)
        err = opd_request(ctx, b->w->worker, msg, opd_deadline_in(ctx, 2000), on_answer, NULL, NULL);
    if (err != OPD_OK) opd_msg_release(msg);
    return err;
}

/* LIMIT: the pool of messages was empty, which passes as AGAIN does. */
static bool passes(opd_err err) { return err == OPD_ERR_AGAIN || err == OPD_ERR_LIMIT; }

/* Sends what is still to be sent; a refusal is tried again on a timer, on the link by its CREDIT. */
static opd_err send_all(opd_ctx *ctx, boss *b) {
    opd_err link = OPD_OK, err = OPD_OK;
    for (; b->parcels < PARCELS && link == OPD_OK; b->parcels += link == OPD_OK)
        link = send_one(ctx, b, KIND_PARCEL);
    if (link != OPD_OK && !passes(link)) return link;
    for (; b->notes < NOTES && err == OPD_OK; b->notes += err == OPD_OK)
        err = send_one(ctx, b, KIND_NOTE);
    if (err == OPD_OK && !b->asked) {
        err = send_one(ctx, b, KIND_ASK);
        b->asked = err == OPD_OK;
    }
    if (err != OPD_OK && !passes(err)) return err;
    bool again = err != OPD_OK || link == OPD_ERR_LIMIT;
    if (again) OPD_TRY(opd_timer_start_after(&b->retry, 10000));
    return finish_if_over(ctx, b->w);
}

static opd_err on_retry(opd_ctx *ctx, void *state, opd_timer *timer) {
    (void)timer;
    return send_all(ctx, state);
}

static opd_err on_alarm(opd_ctx *ctx, void *state, opd_timer *timer) {
    boss *b = state;
    opd_buf *version = NULL;
    (void)timer;
    b->w->fired = true;
    OPD_TRY(opd_buf_create(NULL, 8, &version));
    opd_slot_put(b->w->slot, version, 1);
    opd_buf_release(version);
    return finish_if_over(ctx, b->w);
}

static opd_err on_change(opd_ctx *ctx, void *state, opd_slot_watch *watch) {
    boss *b = state;
    (void)watch;
    b->w->changed = true;
    return finish_if_over(ctx, b->w);
}

static opd_err compute(opd_job *job) {
    (void)job;
    return OPD_OK;
}

static opd_err on_computed(opd_ctx *ctx, void *state, opd_job *job) {
    boss *b = state;
    (void)job;
    b->w->computed = true;
    return finish_if_over(ctx, b->w);
}

static opd_err boss_start(opd_ctx *ctx, void *state, const void *config) {
    boss *b = state;
    b->w = *(world *const *)config;
    OPD_TRY(opd_register(ctx, "boss"));
    OPD_TRY(opd_buf_create(NULL, 1000, &b->buf));
    OPD_TRY(opd_link_open(ctx, b->w->worker, WINDOW, 1 << 20, &b->link));
    opd_timer_init(&b->retry, ctx, on_retry);
    opd_timer_init(&b->alarm, ctx, on_alarm);
    OPD_TRY(opd_timer_start_after(&b->alarm, 1000));
    opd_slot_watch_start(ctx, b->w->slot, &b->watch, on_change);
    b->job = (opd_job){.run = compute, .done = on_computed};
    OPD_TRY(opd_job_submit(ctx, b->w->lane, &b->job));
    return send_all(ctx, b);
}

static opd_err boss_signal(opd_ctx *ctx, void *state, const opd_signal *signal) {
    return signal->kind == OPD_SIGNAL_CREDIT ? send_all(ctx, state) : OPD_OK;
}

static void boss_stop(opd_ctx *ctx, void *state) {
    (void)ctx;
    opd_buf_release(((boss *)state)->buf);
}

static const opd_actor_class boss_class = {.name = "boss", .state_size = sizeof(boss),
                                           .on_start = boss_start, .on_signal = boss_signal,
                                           .on_stop = boss_stop};

/* ---- the scenario ------------------------------------------------------------------------ */

static opd_err populate(opd_system *system, world *w) {
    world *config = w;
    opd_pid boss_pid = 0;
    OPD_TRY(opd_lane_open(system, "lane", 1, &w->lane));
    OPD_TRY(opd_slot_create(system, &w->slot));
    OPD_TRY(opd_spawn(system, &worker_class, NULL, &config, &w->worker));
    return opd_spawn(system, &boss_class, NULL, &config, &boss_pid);
}

static opd_err run_world(opd_system *system, world *w) {
    opd_err err = populate(system, w);
    if (err != OPD_OK) return err;
    err = opd_system_run(system);
    if (err != OPD_OK) return err;
    bool finished = w->replied && w->computed && w->fired && w->changed;
    /* not finished: the boss failed, and with it the worker, the last one */
    return finished ? OPD_OK : opd_fail(OPD_ERR_NOMEM, "the boss ended early");
}

/* One world on env, taken down. Where nothing was refused memory, everything arrived. */
static opd_err live_in(const opd_alloc *alloc, opd_env *env, world *w) {
    opd_system *system = NULL;
    opd_system_options options = {.alloc = alloc, .messages_max = 64, .actors_max = 8};
    opd_err err = opd_system_create(&options, env, &system);
    if (err != OPD_OK) return err;
    err = run_world(system, w);
    char text[512];
    (void)snprintf(text, sizeof text, "%s", opd_err_context());
    opd_slot_destroy(w->slot);
    opd_system_destroy(system); /* asserts that every message came back */
    return err == OPD_OK ? OPD_OK : opd_fail(err, "%s", text);
}

static opd_err live(const opd_alloc *alloc, void *arg) {
    opd_env *env = NULL;
    world w = {0};
    (void)arg;
    OPD_TRY(opd_env_uv_create(alloc, &env));
    opd_err err = live_in(alloc, env, &w);
    char text[512];
    (void)snprintf(text, sizeof text, "%s", opd_err_context());
    CHECK_OK(opd_env_destroy(env));
    return err == OPD_OK ? OPD_OK : opd_fail(err, "%s", text);
}

TEST(actors_without_memory) { torture_alloc(live, NULL, TORTURE_ERR(OPD_ERR_NOMEM)); }

/* The n-th question is answered with a refusal, then also every third one after it. */
static void refuse_each(opd_fault site) {
    for (long every = 0; every <= 3; every += 3) {
        for (long n = 1;; n++) {
            opd_env *env = NULL;
            world w = {0};
            CHECK(n < TORTURE_POINTS_MAX);
            CHECK_OK(opd_env_uv_create(NULL, &env));
            (void)torture_refuse(env, site, n, every);
            CHECK_OK(live_in(NULL, env, &w));
            long asked = torture_refuse(env, site, 0, 0);
            CHECK_INT(w.parcels, PARCELS);
            CHECK_INT(w.notes, NOTES);
            CHECK_OK(opd_env_destroy(env));
            if (asked >= n) continue;
            CHECK(n > 1);
            break;
        }
    }
}

TEST(sends_are_refused) { refuse_each(OPD_FAULT_SEND_AGAIN); }
TEST(links_are_refused) { refuse_each(OPD_FAULT_LINK_AGAIN); }
TEST(requests_are_refused) { refuse_each(OPD_FAULT_REQUEST_AGAIN); }
TEST(messages_are_refused) { refuse_each(OPD_FAULT_MSG_CREATE); }

/* ---- supervision --------------------------------------------------------------------------- */

/* A child that fails in its first life; the second ends the run. */
typedef struct flaky {
    opd_timer timer;
} flaky;

static opd_err flaky_fires(opd_ctx *ctx, void *state, opd_timer *timer) {
    int *lives = timer->arg;
    (void)state;
    if (*lives == 1) return opd_fail(OPD_ERR_REMOTE, "its first life is over");
    opd_system_stop(opd_self_system(ctx), OPD_OK);
    return OPD_OK;
}

static opd_err flaky_start(opd_ctx *ctx, void *state, const void *config) {
    flaky *f = state;
    int *lives = *(int *const *)config;
    ++*lives;
    f->timer.arg = lives;
    opd_timer_init(&f->timer, ctx, flaky_fires);
    return opd_timer_start_after(&f->timer, 1000);
}

static const opd_actor_class flaky_class = {.name = "flaky", .state_size = sizeof(flaky),
                                            .on_start = flaky_start};
static const opd_actor_class steady_class = {.name = "steady"};

static opd_err start_flaky(opd_system *system, void *arg, opd_pid *out_pid) {
    return opd_spawn(system, &flaky_class, "flaky", &arg, out_pid);
}

static opd_err start_steady(opd_system *system, void *arg, opd_pid *out_pid) {
    (void)arg;
    return opd_spawn(system, &steady_class, "steady", NULL, out_pid);
}

/* The top of the tree: one supervisor below it. */
static opd_err start_tree(opd_system *system, void *arg, opd_pid *out_pid) {
    return opd_supervisor_start(system, arg, out_pid);
}

static opd_err supervise(opd_system *system) {
    opd_pid top = 0;
    int lives = 0;
    opd_backoff soon = {.base_ms = 1, .max_ms = 2};
    opd_child_spec leaves[] = {
        {.id = "steady", .start = start_steady, .backoff = soon},
        {.id = "flaky", .start = start_flaky, .arg = &lives, .backoff = soon}};
    opd_supervisor_options below = {.name = "below", .strategy = OPD_STRATEGY_ONE_FOR_ALL,
                                    .children = leaves, .child_count = OPD_COUNTOF(leaves)};
    opd_child_spec nodes[] = {{.id = "below", .start = start_tree, .arg = &below, .backoff = soon}};
    opd_supervisor_options above = {.name = "above", .children = nodes, .child_count = 1};
    OPD_TRY(opd_supervisor_start(system, &above, &top));
    opd_err err = opd_system_run(system);
    if (err == OPD_OK && lives < 2) return opd_fail(OPD_ERR_INTERNAL, "it ended after %d lives", lives);
    return err;
}

static opd_err live_supervised(const opd_alloc *alloc, void *arg) {
    opd_env *env = NULL;
    opd_system *system = NULL;
    opd_system_options options = {.alloc = alloc, .messages_max = 16, .actors_max = 8};
    char text[512];
    (void)arg;
    OPD_TRY(opd_env_uv_create(alloc, &env));
    opd_err err = opd_system_create(&options, env, &system);
    if (err == OPD_OK) err = supervise(system);
    (void)snprintf(text, sizeof text, "%s", opd_err_context());
    opd_system_destroy(system);
    CHECK_OK(opd_env_destroy(env));
    return err == OPD_OK ? OPD_OK : opd_fail(err, "%s", text);
}

TEST(supervision_without_memory) {
    torture_alloc(live_supervised, NULL, TORTURE_ERR(OPD_ERR_NOMEM));
}
