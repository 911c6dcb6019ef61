/* bench_fleet.c - a teacher of three replicas that die and dawdle: what becomes of the samples.
 *
 *   opd_bench_fleet [--seconds N] [--undisturbed N] [--rate N] [--seed N] [--tell MS]
 *
 * The real teacher actor under an open load (tests/support/fleet_load.h), three stub servers in
 * processes of their own (stub_server.h). First the undisturbed phase; then the disturbed one, with
 * fresh servers and a fresh teacher: server 2 is 20 times slower from its start, and every ten
 * seconds server 0 or 1 in turn is killed (SIGKILL) and started again after 0.7 s. --tell shows what
 * happens, and samples that took longer than that.
 *
 * Results: JSON lines on stdout; docs/benchmarks.md explains them. The same in virtual time is a
 * test, test_teacher_trouble.c. Thread: main is the loop.
 */
#include <netinet/in.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/check.h"
#include "opd/log.h"
#include "tests/bench/bench.h"
#include "tests/support/fleet_load.h"
#include "tests/support/stub_server.h"

enum {
    SERVERS = FLEET_LOAD_SERVERS,
    SLOW_SERVER = 2,
    SLOTS = 8,
    KILL_EVERY_MS = 10000,
    KILL_FIRST_MS = 5000,
    BACK_AFTER_MS = 700
};

static const double MEAN_MS = 20, SIGMA = 0.5, SLOWER = 20;

typedef struct phase {
    bool disturbed;
    bench_system b;
    fleet_load load;
    pid_t pids[SERVERS];
    uint64_t starts; /* of servers, for their seeds */
    uint64_t kills;
} phase;

extern char **environ;

/* ---- the servers ---- */

static uint16_t free_port(void) {
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    bool bound = fd >= 0 && bind(fd, (struct sockaddr *)&address, size) == 0 &&
                 getsockname(fd, (struct sockaddr *)&address, &size) == 0;
    bench_must(bound ? OPD_OK : opd_fail(OPD_ERR_IO, "no free port"));
    (void)close(fd);
    return ntohs(address.sin_port);
}

static void server_start(phase *p, int i) {
    char port[16], mean[32], seed[32];
    char *argv[] = {"stub", "--stub", port, mean, seed, NULL};
    double slower = p->disturbed && i == SLOW_SERVER ? SLOWER : 1;
    (void)snprintf(port, sizeof port, "%u", p->load.ports[i]);
    (void)snprintf(mean, sizeof mean, "%g", MEAN_MS * slower);
    (void)snprintf(seed, sizeof seed, "%llu", (unsigned long long)(p->load.seed + 100 + p->starts++));
    int failed = posix_spawn(&p->pids[i], "/proc/self/exe", NULL, NULL, argv, environ);
    bench_must(failed == 0 ? OPD_OK : opd_fail(OPD_ERR_IO, "no server: %s", strerror(failed)));
}

/* Waits until it listens. */
static void server_await(const phase *p, int i) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(p->load.ports[i]),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    for (double end_s = bench_now_s() + 10; bench_now_s() < end_s; (void)usleep(1000)) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        bool there = connect(fd, (struct sockaddr *)&address, sizeof address) == 0;
        (void)close(fd);
        if (there) return;
    }
    bench_must(opd_fail(OPD_ERR_TIMEOUT, "server %d does not listen", i));
}

static void server_kill(phase *p, int i) {
    (void)kill(p->pids[i], SIGKILL);
    (void)waitpid(p->pids[i], NULL, 0);
    p->pids[i] = 0;
}

/* ---- the disturber ---- */

typedef struct disturber {
    phase *p;
    opd_timer kill, back;
    int victim;
} disturber;

static opd_err on_back(opd_ctx *ctx, void *state, opd_timer *timer) {
    disturber *d = state;
    (void)ctx;
    (void)timer;
    server_start(d->p, d->victim);
    return OPD_OK;
}

static opd_err on_kill(opd_ctx *ctx, void *state, opd_timer *timer) {
    disturber *d = state;
    (void)ctx;
    d->victim = (int)(d->p->kills++ % SLOW_SERVER); /* 0 and 1 in turn */
    server_kill(d->p, d->victim);
    OPD_TRY(opd_timer_start_after(&d->back, (uint64_t)BACK_AFTER_MS * 1000000));
    return opd_timer_start_after(timer, (uint64_t)KILL_EVERY_MS * 1000000);
}

static opd_err disturber_start(opd_ctx *ctx, void *state, const void *config) {
    disturber *d = state;
    d->p = *(phase *const *)config;
    opd_timer_init(&d->kill, ctx, on_kill);
    opd_timer_init(&d->back, ctx, on_back);
    return opd_timer_start_after(&d->kill, (uint64_t)KILL_FIRST_MS * 1000000);
}

static const opd_actor_class disturber_class = {.name = "disturber",
                                                .state_size = sizeof(disturber),
                                                .on_start = disturber_start};

/* ---- a phase ---- */

static void run_phase(phase *p) {
    const void *self = &p;
    for (int i = 0; i < SERVERS; i++) {
        p->load.ports[i] = free_port();
        server_start(p, i);
    }
    for (int i = 0; i < SERVERS; i++) server_await(p, i);
    bench_up(&p->b, NULL);
    p->load.env = p->b.env;
    bench_must(fleet_load_start(&p->load, p->b.system));
    if (p->disturbed) (void)bench_spawn(&p->b, &disturber_class, self);
    (void)bench_run_s(&p->b);
    bench_down(&p->b);
    for (int i = 0; i < SERVERS; i++)
        if (p->pids[i] > 0) server_kill(p, i);
}

/* ---- the report ---- */

static void emit(const char *name, double value, const char *unit, phase *p) {
    fleet_load *l = &p->load;
    double load[1] = {0}, count = (double)l->count;
    (void)getloadavg(load, 1);
    printf("{\"case\":\"%s\",\"value\":%.6g,\"unit\":\"%s\",\"samples\":%llu,\"rate\":%g,"
           "\"p50_ms\":%.4g,\"p90_ms\":%.4g,\"p99_ms\":%.4g,\"p999_ms\":%.4g,\"max_ms\":%.4g,"
           "\"masked\":%llu,\"attempts\":%.4f,\"hedges\":%.4f,\"moves\":%llu,\"kills\":%llu,\"load\":%.2f}\n",
           name, value, unit, (unsigned long long)l->count, l->rate, fleet_load_quantile_ms(l, 0.5),
           fleet_load_quantile_ms(l, 0.9), fleet_load_quantile_ms(l, 0.99),
           fleet_load_quantile_ms(l, 0.999), fleet_load_quantile_ms(l, 1),
           (unsigned long long)l->masked, (double)l->attempts / count, (double)l->hedges / count,
           (unsigned long long)l->moves, (unsigned long long)p->kills, load[0]);
    (void)fflush(stdout);
}

static void report(phase *calm, phase *rough) {
    double calm_ms = fleet_load_quantile_ms(&calm->load, 0.99);
    double rough_ms = fleet_load_quantile_ms(&rough->load, 0.99);
    emit("fleet_p99_undisturbed", calm_ms, "ms", calm);
    emit("fleet_p99_disturbed", rough_ms, "ms", rough);
    emit("fleet_p99_ratio", rough_ms / calm_ms, "ratio", rough);
    emit("fleet_valid_share", fleet_load_valid_share(&rough->load), "share", rough);
    emit("fleet_accounted", fleet_load_accounted(&rough->load), "share", rough);
}

/* A server's process: it ends when it is killed, or with the one that started it. */
static int stub_main(char **argv) {
    bench_system b;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    bench_up(&b, NULL);
    stub_server_config config = {.env = b.env, .port = (uint16_t)strtoul(argv[2], NULL, 10),
                                 .slots = SLOTS, .mean_ms = strtod(argv[3], NULL), .sigma = SIGMA,
                                 .seed = strtoull(argv[4], NULL, 10)};
    (void)bench_spawn(&b, &stub_server_class, &config);
    (void)bench_run_s(&b);
    return 1;
}

int main(int argc, char **argv) {
    fleet_load o = {.seconds = 300, .rate = 320, .seed = 1};
    double undisturbed_s = 60;
    opd_log_level_set(OPD_LOG_LEVEL_ERROR);
    if (argc == 5 && strcmp(argv[1], "--stub") == 0) return stub_main(argv);
    for (int i = 1; i + 1 < argc; i += 2) {
        double value = strtod(argv[i + 1], NULL);
        if (strcmp(argv[i], "--seconds") == 0) o.seconds = value;
        else if (strcmp(argv[i], "--undisturbed") == 0) undisturbed_s = value;
        else if (strcmp(argv[i], "--rate") == 0) o.rate = value;
        else if (strcmp(argv[i], "--seed") == 0) o.seed = (uint64_t)value;
        else if (strcmp(argv[i], "--tell") == 0) o.tell_ms = value;
        else bench_must(opd_fail(OPD_ERR_INVALID, "no such option: %s", argv[i]));
    }
    if (!(o.seconds >= 1 && undisturbed_s >= 1 && o.rate >= 1))
        bench_must(opd_fail(OPD_ERR_INVALID, "seconds and rate are at least 1"));
    phase calm = {.load = o}, rough = {.load = o, .disturbed = true};
    calm.load.seconds = undisturbed_s;
    run_phase(&calm);
    run_phase(&rough);
    report(&calm, &rough);
    fleet_load_free(&calm.load);
    fleet_load_free(&rough.load);
    return 0;
}
