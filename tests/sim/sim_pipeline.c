/* sim_pipeline.c - the whole pipeline of the main job in a simulated world, seed by seed.
 *
 * Usage: sim_pipeline --seeds A-B [--first] [--hash] [--twice] [--compare K] [--plain] [-v]
 *   --first    ends at the first seed that fails
 *   --hash     prints "SEED HASH" for each seed, to be compared with another build
 *   --twice    runs each seed twice: the two must do the same
 *   --compare K  every K-th seed also runs undisturbed, and must end with the same weights
 *                where no score was missing
 * A seed that fails is printed with its reason; exit status 1. Seeds that found a bug are kept as
 * cases of the tests (tests/sim/CMakeLists.txt).
 * Thread: one.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "opd/log.h"
#include "tests/sim/sim_run.h"

static const double SLOW_S = 0.05;

typedef struct args {
    uint64_t first, last, compare;
    bool first_only, hash, twice, plain, verbose;
} args;

static bool parse(args *a, int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        const char *next = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--first") == 0) a->first_only = true;
        else if (strcmp(argv[i], "--hash") == 0) a->hash = true;
        else if (strcmp(argv[i], "--twice") == 0) a->twice = true;
        else if (strcmp(argv[i], "--plain") == 0) a->plain = true;
        else if (strcmp(argv[i], "-v") == 0) a->verbose = true;
        else if (strcmp(argv[i], "--compare") == 0 && sscanf(next, "%" SCNu64, &a->compare) == 1) i++;
        else if (strcmp(argv[i], "--seeds") == 0) {
            int n = sscanf(next, "%" SCNu64 "-%" SCNu64, &a->first, &a->last);
            if (n == 1) a->last = a->first;
            if (n < 1) return false;
            i++;
        } else return false;
    }
    return a->last >= a->first;
}

/* Of the processor: other work on the machine does not count. */
static double seconds_now(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void no_log(void *arg, opd_log_level level, const char *text) {
    (void)arg, (void)level, (void)text;
}

static uint64_t present; /* the seed that runs */

/* The last words of a run that an assertion or a bad pointer ends: which seed, and what the
 * checkers had found by then. */
static void on_crash(int signal_number) {
    char text[768];
    const char *violation = sim_run_violation();
    int size = snprintf(text, sizeof text, "seed %" PRIu64 " FAILED: ended by signal %d; %s\n",
                        present, signal_number,
                        violation == NULL ? "no checker had found anything" : violation);
    if (size > 0 && write(STDOUT_FILENO, text, (size_t)size) > 0) (void)fflush(stdout);
    (void)signal(signal_number, SIG_DFL);
    (void)raise(signal_number);
}

/* Runs a seed in all the ways that were asked for. */
static sim_result run_seed(const args *a, const sim_files *files, uint64_t seed) {
    sim_result r = sim_run(files, seed, a->plain, a->verbose);
    if (r.ok && a->twice) {
        sim_result again = sim_run(files, seed, a->plain, false);
        r.ok = again.ok && again.hash == r.hash;
        if (!r.ok)
            (void)snprintf(r.reason, sizeof r.reason, "not the same twice: %016" PRIx64 " and %016"
                           PRIx64 "%.200s", r.hash, again.hash, again.reason);
    }
    if (r.ok && r.whole && a->compare > 0 && seed % a->compare == 0) {
        sim_result plain = sim_run(files, seed, true, false);
        r.ok = plain.ok && plain.weights == r.weights;
        if (!r.ok)
            (void)snprintf(r.reason, sizeof r.reason, "other weights than undisturbed %.200s",
                           plain.reason);
    }
    return r;
}

int main(int argc, char **argv) {
    args a = {.first = 1, .last = 100};
    sim_files files;
    uint64_t failed = 0, attempts = 0, steps = 0, faults = 0, whole = 0, filtered = 0, over_sampled = 0;
    double virtual_s = 0, slowest = 0;
    size_t bytes_max = 0;
    if (!parse(&a, argc, argv)) {
        (void)fprintf(stderr, "usage: %s --seeds A-B [--first] [--hash] [--twice] [--compare K] "
                      "[--plain] [-v]\n", argv[0]);
        return 2;
    }
    if (!a.verbose) opd_log_sink_set(no_log, NULL);
    (void)signal(SIGABRT, on_crash);
    (void)signal(SIGSEGV, on_crash);
    sim_files_open(&files);
    double begin = seconds_now();
    for (uint64_t seed = a.first; seed <= a.last && !(failed > 0 && a.first_only); seed++) {
        double at = seconds_now();
        present = seed;
        sim_result r = run_seed(&a, &files, seed);
        double took = seconds_now() - at;
        if (took > SLOW_S && a.verbose) printf("seed %" PRIu64 " took %.0f ms\n", seed, took * 1e3);
        if (!r.ok) printf("seed %" PRIu64 " FAILED: %s\n", seed, r.reason);
        if (a.hash) printf("%" PRIu64 " %016" PRIx64 "\n", seed, r.hash);
        failed += !r.ok;
        attempts += r.attempts;
        steps += r.steps;
        faults += r.faults;
        whole += r.whole;
        filtered += r.filtered;
        over_sampled += r.over_sampled;
        virtual_s += (double)r.virtual_ns * 1e-9;
        if (took > slowest) slowest = took;
        if (r.bytes_max > bytes_max) bytes_max = r.bytes_max;
        (void)fflush(stdout);
    }
    double count = (double)(a.last - a.first + 1), took = seconds_now() - begin;
    sim_files_close(&files);
    (void)fprintf(stderr, "%.0f seeds, %" PRIu64 " failed, %" PRIu64 " whole, %" PRIu64
                  " with a filter, %" PRIu64 " of them with over-sampling; %.2f ms per seed, "
                  "slowest %.0f ms; %.1f runs, %.0f steps, %.1f faults, %.1f virtual s each; "
                  "%zu KiB at most\n", count, failed, whole, filtered, over_sampled, took * 1e3 / count, slowest * 1e3,
                  (double)attempts / count, (double)steps / count, (double)faults / count,
                  virtual_s / count, bytes_max / 1024);
    return failed > 0;
}
