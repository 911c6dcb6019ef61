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
#include <uv.h>

#include "opd/log.h"

enum { RUNS_MAX = 101 };

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
