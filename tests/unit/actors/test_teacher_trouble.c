/* test_teacher_trouble.c - a teacher of three servers of which one is slow and the others die now and
 * then, under load, in virtual time: nothing is lost, and it costs little time.
 *
 * tests/bench/bench_fleet.c does the same for five minutes, with real processes. */
#include "opd/sim.h"
#include "tests/support/alloc_test.h"
#include "tests/support/fleet_load.h"
#include "tests/support/stub_server.h"
#include "tests/support/test.h"
#include "transports/tcp_sim.h"

/* A stub does 400 requests a second, a slow one 20. */
enum { SERVERS = FLEET_LOAD_SERVERS, SLOW = 2, SLOTS = 8 };
static const double MEAN_MS = 20, SIGMA = 0.5, SLOWER = 20;

typedef struct world {
    opd_test_alloc memory;
    opd_sim *sim;
    opd_net_sim *net;
    opd_env *env;
    opd_system *system;
    fleet_load load;
} world;

static void spawn_servers(world *w, bool disturbed) {
    for (int i = 0; i < SERVERS; i++) {
        opd_pid pid;
        stub_server_config stub = {
            .env = w->env, .alloc = &w->memory.alloc, .out_port = &w->load.ports[i], .slots = SLOTS,
            .mean_ms = disturbed && i == SLOW ? MEAN_MS * SLOWER : MEAN_MS, .sigma = SIGMA,
            .seed = w->load.seed * 10 + (uint64_t)i,
            .down_first_ms = !disturbed || i == SLOW ? 0 : i == 0 ? 5000 : 15000,
            .down_every_ms = 20000, .down_for_ms = 700};
        CHECK_OK(opd_spawn(w->system, &stub_server_class, NULL, &stub, &pid));
    }
}

static void run(world *w, uint64_t seed, double seconds, double rate, bool disturbed) {
    *w = (world){.load = {.seconds = seconds, .rate = rate, .seed = seed}};
    opd_test_alloc_tracing(&w->memory);
    w->load.alloc = &w->memory.alloc;
    opd_sim_options so = {.alloc = w->load.alloc};
    opd_net_sim_options no = {.alloc = w->load.alloc};
    opd_system_options o = {.alloc = w->load.alloc};
    CHECK_OK(opd_sim_create(seed, &so, &w->sim));
    CHECK_OK(opd_net_sim_create(w->sim, &no, &w->net));
    CHECK_OK(opd_sim_env(w->sim, "node", &w->env));
    CHECK_OK(opd_net_sim_join(w->net, w->env));
    CHECK_OK(opd_system_create(&o, w->env, &w->system));
    w->load.env = w->env;
    spawn_servers(w, disturbed);
    CHECK_OK(fleet_load_start(&w->load, w->system));
    CHECK_OK(opd_system_run(w->system));
}

static void down(world *w) {
    fleet_load_free(&w->load);
    opd_system_destroy(w->system);
    CHECK_OK(opd_env_destroy(w->env));
    opd_net_sim_destroy(w->net);
    opd_sim_destroy(w->sim);
    CHECK_INT(w->memory.live, 0);
}

TEST(death_and_slowness_cost_little) {
    world calm, rough;
    run(&calm, 1, 20, 320, false);
    run(&rough, 1, 20, 320, true); /* 40 % of what two and a slow one can do; two deaths */
    double calm_ms = fleet_load_quantile_ms(&calm.load, 0.99);
    double rough_ms = fleet_load_quantile_ms(&rough.load, 0.99);
    printf("p99 %.1f and %.1f ms; hedges %d, moves %d of %d\n", calm_ms, rough_ms,
           (int)rough.load.hedges, (int)rough.load.moves, (int)rough.load.count);
    CHECK(fleet_load_accounted(&rough.load) == 1);
    CHECK(fleet_load_valid_share(&rough.load) >= 0.999);
    CHECK(rough_ms <= 1.4 * calm_ms); /* "make bench" allows 2 in real time */
    CHECK(rough.load.hedges > 0 && rough.load.moves > 0);
    down(&calm);
    down(&rough);
}

/* More than all can do: everything waits its turn, nothing is asked twice for impatience. */
TEST(hedging_is_off_under_load) {
    world w;
    run(&w, 3, 5, 1500, false);
    CHECK(fleet_load_accounted(&w.load) == 1);
    CHECK(fleet_load_valid_share(&w.load) == 1);
    CHECK((double)w.load.hedges < 0.01 * (double)w.load.count);
    down(&w);
}
