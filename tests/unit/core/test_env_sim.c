/* test_env_sim.c - the simulated world: its clock, its order, its jobs, its ends. */
#include "core/base/check.h"
#include "tests/unit/core/sim_world.h"

static const uint64_t MS = 1000000, S = 1000000000;

/* ---- time ------------------------------------------------------------------------------ */

typedef struct sleeper {
    opd_timer timer;
    uint64_t delay_ns, began_ns, woke_ns;
} sleeper;

static opd_err wake_up(opd_ctx *ctx, void *state, opd_timer *timer) {
    (void)state;
    sleeper *s = timer->arg;
    s->woke_ns = opd_now_ns(ctx);
    opd_exit(ctx, OPD_OK);
    return OPD_OK;
}

static opd_err go_to_sleep(opd_ctx *ctx, void *arg) {
    sleeper *s = arg;
    s->began_ns = opd_now_ns(ctx);
    s->timer.arg = s;
    opd_timer_init(&s->timer, ctx, wake_up);
    return opd_timer_start_after(&s->timer, s->delay_ns);
}

TEST(clock_jumps_to_the_next_timer) {
    world w;
    world_up(&w, 1, NULL, 1);
    sleeper s = {.delay_ns = 7 * 24 * 3600 * S};
    (void)script_spawn(&w.nodes[0], "sleeper", (opd_script){.start = go_to_sleep, .arg = &s});
    CHECK_OK(opd_system_run(w.nodes[0].system));
    CHECK(s.woke_ns >= s.began_ns + s.delay_ns);
    CHECK(s.woke_ns < s.began_ns + s.delay_ns + MS);
    CHECK(opd_sim_stats_get(w.sim).steps < 10);
    CHECK_INT(w.nodes[0].env->ops->wall_ns(w.nodes[0].env) / S,
              1704067200 + (opd_sim_now_ns(w.sim) - S) / S);
    world_down(&w);
}

TEST(runs_up_to_a_time) {
    world w;
    world_up(&w, 1, NULL, 1);
    sleeper s = {.delay_ns = 10 * S};
    (void)script_spawn(&w.nodes[0], "sleeper", (opd_script){.start = go_to_sleep, .arg = &s});
    opd_system_begin(w.nodes[0].system);
    CHECK_OK(opd_sim_run(w.sim, 5 * S, NULL, NULL));
    CHECK_INT(opd_sim_now_ns(w.sim), 5 * S);
    CHECK_INT(s.woke_ns, 0);
    CHECK_OK(opd_sim_run(w.sim, OPD_SIM_FOREVER, NULL, NULL));
    CHECK(s.woke_ns >= 11 * S);
    CHECK_OK(opd_system_end(w.nodes[0].system));
    world_down(&w);
}

/* ---- order ----------------------------------------------------------------------------- */

enum { TALKERS = 5, ROUNDS = 20 };

typedef struct talk {
    opd_pid pids[TALKERS];
    char order[TALKERS * ROUNDS + 1];
    size_t count;
    opd_sim_stats stats;
} talk;

static opd_err talk_message(opd_ctx *ctx, void *arg, opd_msg *msg) {
    talk *t = arg;
    CHECK(t->count < sizeof t->order - 1);
    t->order[t->count++] = opd_self_name(ctx)[0];
    if (opd_msg_kind(msg) == 0) {
        opd_exit(ctx, OPD_OK);
        return OPD_OK;
    }
    opd_msg *next = script_msg(opd_self_system(ctx), (uint16_t)(opd_msg_kind(msg) - 1), 0);
    CHECK_OK(opd_send(ctx, opd_self(ctx), next));
    return OPD_OK;
}

static void talk_run(uint64_t seed, talk *t) {
    world w;
    *t = (talk){.count = 0};
    world_up(&w, seed, NULL, 1);
    for (int i = 0; i < TALKERS; i++) {
        char name[] = {(char)('A' + i), '\0'};
        opd_script s = {.message = talk_message, .arg = t};
        t->pids[i] = script_spawn(&w.nodes[0], name, s);
        opd_msg *msg = script_msg(w.nodes[0].system, ROUNDS - 1, 0);
        CHECK_OK(opd_post(w.nodes[0].system, t->pids[i], msg));
    }
    CHECK_OK(opd_system_run(w.nodes[0].system));
    CHECK_INT(t->count, TALKERS * ROUNDS);
    t->stats = opd_sim_stats_get(w.sim);
    world_down(&w);
}

TEST(same_seed_same_order) {
    talk first, again, other;
    talk_run(7, &first);
    talk_run(7, &again);
    talk_run(8, &other);
    CHECK_STR(first.order, again.order);
    CHECK(first.stats.hash == again.stats.hash);
    CHECK(strcmp(first.order, other.order) != 0);
    CHECK(first.stats.hash != other.stats.hash);
}

/* Every actor comes first under some seed, and one actor's turn is one message. */
TEST(any_ready_actor_may_be_next) {
    unsigned first[TALKERS] = {0}, switches = 0;
    for (uint64_t seed = 0; seed < 40; seed++) {
        talk t;
        talk_run(seed, &t);
        first[t.order[0] - 'A']++;
        for (size_t i = 1; i < t.count; i++) switches += t.order[i] != t.order[i - 1];
    }
    for (int i = 0; i < TALKERS; i++) CHECK(first[i] > 0);
    CHECK(switches > 40 * TALKERS * ROUNDS / 2);
}

/* ---- lanes ----------------------------------------------------------------------------- */

enum { JOBS = 6 };

typedef struct labour {
    opd_job jobs[JOBS];
    opd_lane *lanes[2];
    char ran[JOBS + 1], done[JOBS + 1];
    size_t ran_count, done_count;
} labour;

static opd_err labour_run(opd_job *job) {
    labour *l = job->arg;
    l->ran[l->ran_count++] = (char)('0' + (job - l->jobs));
    return OPD_OK;
}

static opd_err labour_done(opd_ctx *ctx, void *state, opd_job *job) {
    (void)state;
    labour *l = job->arg;
    CHECK_OK(job->err);
    l->done[l->done_count++] = (char)('0' + (job - l->jobs));
    if (l->done_count == JOBS) opd_exit(ctx, OPD_OK);
    return OPD_OK;
}

static opd_err labour_start(opd_ctx *ctx, void *arg) {
    labour *l = arg;
    for (int i = 0; i < JOBS; i++) {
        l->jobs[i] = (opd_job){.run = labour_run, .done = labour_done, .arg = l};
        OPD_TRY(opd_job_submit(ctx, l->lanes[i % 2], &l->jobs[i]));
    }
    return OPD_OK;
}

static void labour_of(uint64_t seed, labour *l) {
    world w;
    *l = (labour){.ran_count = 0};
    world_up(&w, seed, NULL, 1);
    for (int i = 0; i < 2; i++)
        CHECK_OK(opd_lane_open(w.nodes[0].system, "lane", JOBS, &l->lanes[i]));
    (void)script_spawn(&w.nodes[0], "boss", (opd_script){.start = labour_start, .arg = l});
    CHECK_OK(opd_system_run(w.nodes[0].system));
    CHECK_INT(l->done_count, JOBS);
    CHECK(opd_sim_now_ns(w.sim) >= S + JOBS / 2 * 20000);
    world_down(&w);
}

TEST(lanes_are_serial_and_independent) {
    unsigned orders_differ = 0, run_before_end = 0;
    for (uint64_t seed = 0; seed < 30; seed++) {
        labour l;
        labour_of(seed, &l);
        for (int lane = 0; lane < 2; lane++) { /* each lane in its order of submission */
            char last = '\0';
            for (size_t i = 0; i < JOBS; i++) {
                if ((l.done[i] - '0') % 2 != lane) continue;
                CHECK(l.done[i] > last);
                last = l.done[i];
            }
        }
        orders_differ += strcmp(l.done, "012345") != 0;
        run_before_end += strcmp(l.ran, l.done) != 0;
    }
    CHECK(orders_differ > 15);
    CHECK(run_before_end > 5);
}

TEST(lane_with_work_is_closed) {
    world w;
    labour l = {.ran_count = 0};
    world_up(&w, 3, NULL, 1);
    for (int i = 0; i < 2; i++)
        CHECK_OK(opd_lane_open(w.nodes[0].system, "lane", JOBS, &l.lanes[i]));
    (void)script_spawn(&w.nodes[0], "boss", (opd_script){.start = labour_start, .arg = &l});
    world_down(&w); /* the actor ends, its jobs are waited for */
    CHECK_INT(l.ran_count, 0); /* they were cancelled before they began */
    CHECK_INT(l.done_count, 0);
}

static opd_err failing_done(opd_ctx *ctx, void *state, opd_job *job) {
    (void)state;
    labour *l = job->arg;
    CHECK_ERR(job->err, OPD_ERR_REMOTE);
    CHECK_CONTAINS(job->text, "simulated: a job failed");
    l->done_count++;
    opd_exit(ctx, OPD_OK);
    return OPD_OK;
}

static opd_err failing_start(opd_ctx *ctx, void *arg) {
    labour *l = arg;
    l->jobs[0] = (opd_job){.run = labour_run, .done = failing_done, .arg = l};
    return opd_job_submit(ctx, l->lanes[0], &l->jobs[0]);
}

TEST(jobs_fail) {
    world w;
    labour l = {.ran_count = 0};
    opd_sim_options o = {.faults = 1u << OPD_FAULT_JOB, .faults_all_armed = true, .fault_one_in = 1};
    world_up(&w, 6, &o, 1);
    CHECK_OK(opd_lane_open(w.nodes[0].system, "lane", 1, &l.lanes[0]));
    (void)script_spawn(&w.nodes[0], "boss", (opd_script){.start = failing_start, .arg = &l});
    CHECK_OK(opd_system_run(w.nodes[0].system));
    CHECK_INT(l.done_count, 1);
    CHECK_INT(l.ran_count, 0);
    world_down(&w);
}

/* ---- nodes ----------------------------------------------------------------------------- */

TEST(systems_of_one_world_run_together) {
    world w;
    world_up(&w, 5, NULL, 3);
    sleeper s[3];
    for (int i = 0; i < 3; i++) {
        s[i] = (sleeper){.delay_ns = (uint64_t)(3 - i) * S};
        (void)script_spawn(&w.nodes[i], "sleeper", (opd_script){.start = go_to_sleep, .arg = &s[i]});
        opd_system_begin(w.nodes[i].system);
    }
    CHECK_OK(opd_sim_run(w.sim, OPD_SIM_FOREVER, NULL, NULL));
    CHECK(s[2].woke_ns < s[1].woke_ns && s[1].woke_ns < s[0].woke_ns);
    for (int i = 0; i < 3; i++) CHECK_OK(opd_system_end(w.nodes[i].system));
    world_down(&w);
}

static bool second_woke(void *arg) { return ((sleeper *)arg)[1].woke_ns != 0; }

TEST(world_runs_until_a_condition) {
    world w;
    world_up(&w, 5, NULL, 2);
    sleeper s[2] = {{.delay_ns = 9 * S}, {.delay_ns = 1 * S}};
    for (int i = 0; i < 2; i++) {
        (void)script_spawn(&w.nodes[i], "sleeper", (opd_script){.start = go_to_sleep, .arg = &s[i]});
        opd_system_begin(w.nodes[i].system);
    }
    CHECK_OK(opd_sim_run(w.sim, OPD_SIM_FOREVER, second_woke, s));
    CHECK_INT(s[0].woke_ns, 0);
    opd_system_kill(w.nodes[0].system, OPD_OK); /* as a process would be */
    CHECK_OK(opd_sim_run(w.sim, OPD_SIM_FOREVER, NULL, NULL));
    for (int i = 0; i < 2; i++) CHECK_OK(opd_system_end(w.nodes[i].system));
    world_down(&w);
}

TEST(system_without_actors_is_over_at_once) {
    world w;
    world_up(&w, 5, NULL, 1);
    opd_system_begin(w.nodes[0].system);
    CHECK_OK(opd_sim_run(w.sim, OPD_SIM_FOREVER, NULL, NULL));
    CHECK_OK(opd_system_end(w.nodes[0].system));
    CHECK_OK(opd_system_run(w.nodes[0].system));
    world_down(&w);
}

TEST(open_lane_is_named_at_the_end) {
    opd_sim *sim = NULL;
    opd_env *env = NULL;
    opd_env_lane *lane = NULL;
    CHECK_OK(opd_sim_create(1, NULL, &sim));
    CHECK_OK(opd_sim_env(sim, "first", &env));
    CHECK_OK(env->ops->lane_open(env, "lane", &lane));
    CHECK_ERR(opd_env_destroy(env), OPD_ERR_INTERNAL);
    CHECK_CONTAINS(opd_err_context(), "the node first still has 1 open");
    env->ops->lane_close(lane);
    opd_sim_destroy(sim); /* and its node with it */
    opd_sim_destroy(NULL);
}

static void no_signal(void *arg, int number, bool forced) {
    (void)arg;
    (void)number;
    (void)forced;
}

static opd_err child_start(opd_ctx *ctx, void *arg) {
    const char *const argv[] = {"true", NULL};
    opd_child_options o = {.argv = argv};
    opd_child *child = NULL;
    CHECK_ERR(opd_child_spawn(ctx, arg, &o, &child), OPD_ERR_UNSUPPORTED);
    CHECK_CONTAINS(opd_err_context(), "true: a simulated world has no child processes");
    opd_exit(ctx, OPD_OK);
    return OPD_OK;
}

TEST(there_are_no_children_and_signals) {
    world w;
    opd_signals *signals = NULL;
    opd_env *real = NULL;
    world_up(&w, 1, NULL, 1);
    CHECK_ERR(opd_signals_open(w.nodes[0].env, NULL, no_signal, NULL, &signals),
              OPD_ERR_UNSUPPORTED);
    (void)script_spawn(&w.nodes[0], "parent",
                       (opd_script){.start = child_start, .arg = w.nodes[0].env});
    CHECK_OK(opd_system_run(w.nodes[0].system));
    CHECK(opd_env_is_simulated(w.nodes[0].env));
    CHECK_OK(opd_env_uv_create(NULL, &real));
    CHECK(!opd_env_is_simulated(real));
    CHECK_OK(opd_env_destroy(real));
    world_down(&w);
}

/* ---- runs that do not end -------------------------------------------------------------- */

static opd_err pass_on(opd_ctx *ctx, void *arg, opd_msg *msg) {
    return opd_send(ctx, *(opd_pid *)arg, msg);
}

/* Two actors that send one message to and fro for ever, beside one that sleeps. */
TEST(livelock_is_named) {
    world w;
    world_up(&w, 2, &(opd_sim_options){.busy_steps_max = 5000}, 1);
    sleeper s = {.delay_ns = 3600 * S};
    opd_pid pids[2];
    (void)script_spawn(&w.nodes[0], "sleeper", (opd_script){.start = go_to_sleep, .arg = &s});
    pids[0] = script_spawn(&w.nodes[0], "ping", (opd_script){.message = pass_on, .arg = &pids[1]});
    pids[1] = script_spawn(&w.nodes[0], "pong", (opd_script){.message = pass_on, .arg = &pids[0]});
    CHECK_OK(opd_post(w.nodes[0].system, pids[0], script_msg(w.nodes[0].system, 1, 0)));
    CHECK_ERR(opd_system_run(w.nodes[0].system), OPD_ERR_LIMIT);
    CHECK_CONTAINS(opd_err_context(), "busy without end");
    CHECK_CONTAINS(opd_err_context(), "ping (128)");
    CHECK_CONTAINS(opd_err_context(), "pong (128)");
    CHECK(strstr(opd_err_context(), "sleeper") == NULL);
    opd_system_destroy(w.nodes[0].system);
    opd_system_options so = {.alloc = opd_sim_alloc(w.sim)};
    CHECK_OK(opd_system_create(&so, w.nodes[0].env, &w.nodes[0].system)); /* for world_down */
    world_down(&w);
}

TEST(stall_is_an_error) {
    world w;
    world_up(&w, 2, NULL, 1);
    (void)script_spawn(&w.nodes[0], "idler", (opd_script){.arg = NULL});
    CHECK_ERR(opd_system_run(w.nodes[0].system), OPD_ERR_INTERNAL);
    CHECK_CONTAINS(opd_err_context(), "stalled");
    CHECK_CONTAINS(opd_err_context(), "seed 2");
    world_down(&w);
}

static opd_err tick(opd_ctx *ctx, void *state, opd_timer *timer) {
    (void)ctx;
    (void)state;
    return opd_timer_start_after(timer, 10 * MS);
}

static opd_err tick_start(opd_ctx *ctx, void *arg) {
    opd_timer_init(arg, ctx, tick);
    return opd_timer_start_after(arg, 10 * MS);
}

TEST(too_long_a_run_is_an_error) {
    world w;
    opd_timer timer = {.arg = NULL};
    world_up(&w, 2, &(opd_sim_options){.time_max_ns = 60 * S}, 1);
    (void)script_spawn(&w.nodes[0], "ticker", (opd_script){.start = tick_start, .arg = &timer});
    CHECK_ERR(opd_system_run(w.nodes[0].system), OPD_ERR_TIMEOUT);
    CHECK_CONTAINS(opd_err_context(), "ticker (256)");
    world_down(&w);
}
