/* test_env_sim_faults.c - what the simulated world does to those who live in it: sends that are refused, crashes,
 * allocations that fail, each by its seed. */
#include "core/base/check.h"
#include "tests/unit/core/sim_world.h"

static const uint64_t MS = 1000000, S = 1000000000;

typedef struct sender {
    opd_pid to;
    opd_link *link;
    opd_timer timer;
    int sent, refused, credits, no_msg, received;
    int goal;
} sender;

static opd_err sender_go(opd_ctx *ctx, sender *s) {
    while (s->sent < s->goal) {
        opd_msg *msg = NULL;
        opd_err err = opd_msg_create(opd_self_system(ctx), 1, &msg);
        if (err == OPD_OK) {
            err = s->link != NULL ? opd_link_send(ctx, s->link, msg) : opd_send(ctx, s->to, msg);
            if (err != OPD_OK) opd_msg_release(msg);
            if (err == OPD_ERR_AGAIN) s->refused++;
        } else {
            CHECK_INT(err, OPD_ERR_LIMIT);
            s->no_msg++;
        }
        if (err == OPD_ERR_AGAIN && s->link != NULL) return OPD_OK; /* CREDIT will come */
        if (err == OPD_ERR_AGAIN || err == OPD_ERR_LIMIT)
            return opd_timer_start_after(&s->timer, MS);
        OPD_TRY(err);
        s->sent++;
    }
    opd_exit(ctx, OPD_OK);
    return OPD_OK;
}

static opd_err sender_again(opd_ctx *ctx, void *state, opd_timer *timer) {
    (void)state;
    return sender_go(ctx, timer->arg);
}

static opd_err sender_start(opd_ctx *ctx, void *arg) {
    sender *s = arg;
    s->timer.arg = s;
    opd_timer_init(&s->timer, ctx, sender_again);
    return opd_timer_start_after(&s->timer, 0);
}

static opd_err sender_link_start(opd_ctx *ctx, void *arg) {
    sender *s = arg;
    OPD_TRY(opd_link_open(ctx, s->to, 4, 4096, &s->link));
    return sender_start(ctx, arg);
}

static opd_err sender_signal(opd_ctx *ctx, void *arg, const opd_signal *signal) {
    sender *s = arg;
    if (signal->kind != OPD_SIGNAL_CREDIT) return OPD_OK;
    CHECK(signal->link == s->link);
    s->credits++;
    return sender_go(ctx, s);
}

static opd_err receiver_message(opd_ctx *ctx, void *arg, opd_msg *msg) {
    sender *s = arg;
    (void)msg;
    if (++s->received == s->goal) opd_exit(ctx, OPD_OK);
    return OPD_OK;
}

/* Runs a sender and a receiver with these faults all armed. */
static void sending(uint64_t seed, uint32_t faults, bool by_link, sender *s, opd_sim_stats *stats) {
    world w;
    opd_sim_options o = {.faults = faults, .faults_all_armed = true, .fault_one_in = 4};
    world_up(&w, seed, &o, 1);
    *s = (sender){.goal = 100};
    s->to = script_spawn(&w.nodes[0], "receiver",
                         (opd_script){.message = receiver_message, .arg = s});
    opd_script script = {.start = by_link ? sender_link_start : sender_start,
                         .signal = sender_signal, .arg = s};
    (void)script_spawn(&w.nodes[0], "sender", script);
    CHECK_OK(opd_system_run(w.nodes[0].system));
    CHECK_INT(s->received, 100);
    *stats = opd_sim_stats_get(w.sim);
    world_down(&w);
}

TEST(sends_are_refused) {
    sender s;
    opd_sim_stats stats;
    sending(1, 1u << OPD_FAULT_SEND_AGAIN | 1u << OPD_FAULT_MSG_CREATE, false, &s, &stats);
    CHECK(stats.faults[OPD_FAULT_SEND_AGAIN] > 5 && stats.faults[OPD_FAULT_MSG_CREATE] > 5);
    CHECK(s.refused >= (int)stats.faults[OPD_FAULT_SEND_AGAIN]);
    CHECK_INT(s.no_msg, stats.faults[OPD_FAULT_MSG_CREATE]);
    CHECK_INT(stats.faults[OPD_FAULT_LINK_AGAIN], 0);
}

/* A refused link send is always followed by CREDIT: else the sender would stall. */
TEST(refused_links_get_credit) {
    sender s;
    opd_sim_stats stats;
    for (uint64_t seed = 0; seed < 20; seed++) {
        sending(seed, 1u << OPD_FAULT_LINK_AGAIN, true, &s, &stats);
        CHECK(stats.faults[OPD_FAULT_LINK_AGAIN] > 5);
        CHECK_INT(s.credits, s.refused);
    }
}

TEST(faults_end) {
    world w;
    opd_sim_options o = {.faults = 1u << OPD_FAULT_SEND_AGAIN, .faults_all_armed = true,
                         .fault_one_in = 1, .faults_until_ns = 3 * S};
    world_up(&w, 4, &o, 1);
    sender s = {.goal = 1};
    s.to = script_spawn(&w.nodes[0], "receiver",
                        (opd_script){.message = receiver_message, .arg = &s});
    (void)script_spawn(&w.nodes[0], "sender", (opd_script){.start = sender_start, .arg = &s});
    CHECK_OK(opd_system_run(w.nodes[0].system));
    CHECK(s.refused > 2000); /* each ms of 3 s */
    CHECK(opd_sim_now_ns(w.sim) >= 4 * S && opd_sim_now_ns(w.sim) < 4 * S + 100 * MS);
    world_down(&w);
}

/* Without all_armed a quarter of the runs has a given site. */
TEST(sites_are_armed_by_the_seed) {
    unsigned armed = 0;
    for (uint64_t seed = 0; seed < 200; seed++) {
        opd_sim *sim = NULL;
        opd_sim_options o = {.faults = OPD_SIM_FAULTS_ALL};
        CHECK_OK(opd_sim_create(seed, &o, &sim));
        opd_env *env = NULL;
        CHECK_OK(opd_sim_env(sim, "a", &env));
        for (int i = 0; i < 1000; i++) /* not running: nothing fires */
            CHECK(!env->ops->fault(env, OPD_FAULT_ACTOR_CRASH, "x"));
        opd_sim_destroy(sim);
    }
    for (uint64_t seed = 0; seed < 200; seed++) {
        sender s;
        opd_sim_stats stats;
        world w;
        opd_sim_options o = {.faults = 1u << OPD_FAULT_SEND_AGAIN, .fault_one_in = 2};
        world_up(&w, seed, &o, 1);
        s = (sender){.goal = 20};
        s.to = script_spawn(&w.nodes[0], "receiver",
                            (opd_script){.message = receiver_message, .arg = &s});
        (void)script_spawn(&w.nodes[0], "sender", (opd_script){.start = sender_start, .arg = &s});
        CHECK_OK(opd_system_run(w.nodes[0].system));
        stats = opd_sim_stats_get(w.sim);
        armed += stats.faults[OPD_FAULT_SEND_AGAIN] > 0;
        world_down(&w);
    }
    CHECK(armed > 25 && armed < 75);
}

static bool not_the_sender(void *arg, opd_fault site, const char *name) {
    (void)arg;
    CHECK_INT(site, OPD_FAULT_ACTOR_CRASH);
    return strcmp(name, "sender") != 0;
}

typedef struct witness {
    opd_monitor monitor;
    opd_pid pid;
    opd_err reason;
    char text[256];
} witness;

static opd_err witness_start(opd_ctx *ctx, void *arg) {
    witness *v = arg;
    opd_monitor_start(ctx, &v->monitor, v->pid);
    return OPD_OK;
}

static opd_err witness_signal(opd_ctx *ctx, void *arg, const opd_signal *signal) {
    witness *v = arg;
    if (signal->kind != OPD_SIGNAL_DOWN) return OPD_OK;
    v->reason = signal->reason;
    (void)snprintf(v->text, sizeof v->text, "%s", signal->text);
    opd_exit(ctx, OPD_OK);
    return OPD_OK;
}

TEST(crash_names_the_seed) {
    world w;
    opd_sim_options o = {.faults = 1u << OPD_FAULT_ACTOR_CRASH, .faults_all_armed = true,
                         .fault_one_in = 10, .fault_allowed = not_the_sender};
    world_up(&w, 99, &o, 1);
    sender s = {.goal = 1000};
    witness v = {.pid = 0};
    s.to = v.pid = script_spawn(&w.nodes[0], "receiver",
                                (opd_script){.message = receiver_message, .arg = &s});
    (void)script_spawn(&w.nodes[0], "witness",
                       (opd_script){.start = witness_start, .signal = witness_signal, .arg = &v});
    (void)script_spawn(&w.nodes[0], "sender", (opd_script){.start = sender_start, .arg = &s});
    CHECK_OK(opd_system_run(w.nodes[0].system));
    CHECK(s.received < 1000);
    CHECK_INT(v.reason, OPD_ERR_REMOTE);
    CHECK_INT(opd_err_category_of(v.reason), OPD_ERR_CATEGORY_PEER);
    CHECK_CONTAINS(v.text, "simulated: a crash (seed 99, at ");
    CHECK_CONTAINS(v.text, "receiver");
    world_down(&w);
}

TEST(allocations_fail_and_are_counted) {
    opd_sim *sim = NULL;
    opd_sim_options o = {.faults = 1u << OPD_FAULT_ALLOC, .faults_all_armed = true};
    CHECK_OK(opd_sim_create(1, &o, &sim));
    const opd_alloc *alloc = opd_sim_alloc(sim);
    char *block = opd_mem_get(alloc, 100);
    CHECK(block != NULL);
    CHECK_INT(opd_sim_stats_get(sim).live_bytes, 100);
    memset(block, 'x', 100);
    block = opd_mem_resize(alloc, block, 1000);
    CHECK(block != NULL && block[99] == 'x');
    CHECK_INT(opd_sim_stats_get(sim).live_bytes, 1000);
    CHECK_INT(opd_sim_stats_get(sim).live_blocks, 1);
    opd_mem_free(alloc, block);
    CHECK_INT(opd_sim_stats_get(sim).live_bytes, 0);
    CHECK_INT(opd_sim_stats_get(sim).live_blocks, 0);
    CHECK_INT(opd_sim_stats_get(sim).live_bytes_max, 1000);
    CHECK_INT(opd_sim_stats_get(sim).faults[OPD_FAULT_ALLOC], 0);
    opd_sim_destroy(sim);
}

static opd_err hungry(opd_ctx *ctx, void *arg, opd_msg *msg) {
    int *failed = arg;
    void *room = NULL;
    opd_msg *big = script_msg(opd_self_system(ctx), 1, 0);
    opd_err err = opd_msg_body_reserve(big, 1000, &room);
    if (err == OPD_ERR_NOMEM) ++*failed;
    opd_msg_release(big);
    if (opd_msg_kind(msg) == 0) {
        opd_exit(ctx, OPD_OK);
        return OPD_OK;
    }
    opd_msg *next = script_msg(opd_self_system(ctx), (uint16_t)(opd_msg_kind(msg) - 1), 0);
    CHECK_OK(opd_send(ctx, opd_self(ctx), next));
    return OPD_OK;
}

TEST(allocations_fail_in_a_run) {
    world w;
    int failed = 0;
    opd_sim_options o = {.faults = 1u << OPD_FAULT_ALLOC, .faults_all_armed = true,
                         .fault_one_in = 10};
    world_up(&w, 6, &o, 1);
    opd_pid pid = script_spawn(&w.nodes[0], "hungry", (opd_script){.message = hungry, .arg = &failed});
    CHECK_OK(opd_post(w.nodes[0].system, pid, script_msg(w.nodes[0].system, 200, 0)));
    CHECK_OK(opd_system_run(w.nodes[0].system));
    CHECK(failed > 5 && failed < 60);
    CHECK_INT(opd_sim_stats_get(w.sim).faults[OPD_FAULT_ALLOC], failed);
    world_down(&w);
}
