/* bench_actor.c - speed of the actor runtime: one JSON line per case.
 *
 *   opd_bench_actor [--runs N] [--list] [CASE...]      no CASE: all; 5 runs each
 *
 * Each case runs once to warm up and then N times; the line holds the median, the least and the
 * greatest figure, the load of the machine and the versions. What a case measures stands in
 * docs/benchmarks.md. Compare figures of one machine and one session only; tests/bench/run.py
 * does so, and checks the floors. Thread: main is the loop.
 */
#include "tests/bench/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <uv.h>

#include "opd/log.h"

enum { RUNS_MAX = 101, WATCHDOG_MS = 1000 };

/* ---- shared with the cases (bench.h) --------------------------------------------------- */

void bench_must(opd_err err) {
    if (err == OPD_OK) return;
    (void)fprintf(stderr, "bench: %s: %s\n", opd_err_name(err), opd_err_context());
    exit(1);
}

double bench_now_s(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void bench_up(bench_system *b, const opd_system_options *options) {
    bench_must(opd_env_uv_create(NULL, &b->env));
    opd_system_options o = options == NULL ? (opd_system_options){0} : *options;
    o.recorder = true;
    bench_must(opd_system_create(&o, b->env, &b->system));
    bench_must(opd_watchdog_start(b->env, b->system, NULL, WATCHDOG_MS, &b->watchdog));
}

double bench_run_s(bench_system *b) {
    double start = bench_now_s();
    bench_must(opd_system_run(b->system));
    return bench_now_s() - start;
}

void bench_down(bench_system *b) {
    opd_watchdog_stop(b->watchdog);
    opd_system_destroy(b->system);
    bench_must(opd_env_destroy(b->env));
}

opd_pid bench_spawn(bench_system *b, const opd_actor_class *actor_class, const void *config) {
    opd_pid pid = OPD_PID_NOBODY;
    bench_must(opd_spawn(b->system, actor_class, NULL, config, &pid));
    return pid;
}

opd_msg *bench_msg(opd_system *system, uint16_t kind, uint64_t number) {
    opd_msg *msg = NULL;
    opd_mp_writer w;
    bench_must(opd_msg_create(system, kind, &msg));
    bench_must(opd_body_begin(msg, 1, 1, BENCH_BODY_BYTES, &w));
    opd_mp_write_u64(&w, number);
    bench_must(opd_body_end(msg, &w));
    return msg;
}

uint64_t bench_msg_number(const opd_msg *msg) {
    opd_mp_reader r;
    bench_must(opd_body_read(msg, 1, 1, &r));
    uint64_t number = opd_mp_read_u64(&r);
    bench_must(opd_mp_reader_status(&r));
    return number;
}

void bench_send(opd_ctx *ctx, opd_pid to, uint16_t kind, uint64_t number) {
    bench_must(opd_send(ctx, to, bench_msg(opd_self_system(ctx), kind, number)));
}

/* ---- repeats and the report ------------------------------------------------------------ */

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void report(const bench_case *c, double *figures, int runs) {
    double load[1] = {0};
    qsort(figures, (size_t)runs, sizeof *figures, by_value);
    double median = runs % 2 == 1 ? figures[runs / 2]
                                  : (figures[runs / 2 - 1] + figures[runs / 2]) / 2;
    (void)getloadavg(load, 1);
    printf("{\"case\":\"%s\",\"value\":%.6g,\"unit\":\"%s\",\"median\":%.6g,\"min\":%.6g,"
           "\"max\":%.6g,\"runs\":%d,\"load\":%.2f,"
           "\"versions\":{\"opd\":\"%s\",\"libuv\":\"%s\",\"compiler\":\"%s\"}}\n",
           c->name, median, c->unit, median, figures[0], figures[runs - 1], runs, load[0],
           OPD_VERSION, uv_version_string(), __VERSION__);
    (void)fflush(stdout);
}

static void measure(const bench_case *c, int runs) {
    double figures[RUNS_MAX];
    if (c->slow) runs = 1;
    if (!c->slow) (void)c->run();
    for (int i = 0; i < runs; i++) figures[i] = c->run();
    report(c, figures, runs);
}

static bool chosen(const bench_case *c, char **names, int count) {
    for (int i = 0; i < count; i++)
        if (strcmp(names[i], c->name) == 0) return true;
    return count == 0;
}

int main(int argc, char **argv) {
    const bench_case *lists[] = {bench_message_cases, bench_flow_cases, bench_lane_cases,
                                 bench_parse_cases};
    int runs = 5, at = 1, found = 0;
    bool list = false;
    for (; at < argc && argv[at][0] == '-'; at++) {
        if (strcmp(argv[at], "--list") == 0) list = true;
        if (strcmp(argv[at], "--runs") == 0 && at + 1 < argc)
            runs = (int)strtol(argv[++at], NULL, 10);
    }
    if (runs < 1 || runs > RUNS_MAX) runs = 5;
    opd_log_level_set(OPD_LOG_LEVEL_WARN); /* not each handler that the kernel kept waiting */
    for (size_t l = 0; l < sizeof lists / sizeof *lists; l++) {
        for (const bench_case *c = lists[l]; c->name != NULL; c++) {
            if (!chosen(c, argv + at, argc - at)) continue;
            found++;
            if (list) printf("%s\n", c->name);
            else measure(c, runs);
        }
    }
    if (found > 0) return 0;
    (void)fprintf(stderr, "bench: no such case; --list names them\n");
    return 2;
}
