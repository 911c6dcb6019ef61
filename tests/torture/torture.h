/* torture.h - runs a scenario again and again with one thing failing: the n-th, for each n.
 *
 * A scenario is a whole life in miniature: it makes everything, uses it, takes it down, and returns
 * how it went. It is run with failure point n = 1, 2, ... until it has fewer points than n. Each
 * time it must end with OPD_OK (it coped) or with a clean error, one of those that the failure
 * may cause and with a text, and nothing may be left: no block of memory, no crash (the
 * sanitizers), no hang (the test's time limit).
 *
 * Three kinds of points: allocations through the allocator the scenario is given (the n-th, then the
 * n-th and all later ones), calls of the system that write (files.c), and refusals of the
 * runtime (refuse.c). Thread: the test's.
 */
#ifndef OPD_TESTS_TORTURE_TORTURE_H
#define OPD_TESTS_TORTURE_TORTURE_H

#include <stdbool.h>
#include <stdint.h>

#include "opd/alloc.h"
#include "opd/env.h"
#include "opd/err.h"
#include "opd/log.h"

enum { TORTURE_POINTS_MAX = 20000 };

typedef opd_err (*torture_scenario)(const opd_alloc *alloc, void *arg);

/* A set of codes that a failure may end in besides OPD_OK. */
#define TORTURE_ERR(code) (UINT64_C(1) << (code))

/* Every allocation fails once, then with all after it. */
void torture_alloc(torture_scenario scenario, void *arg, uint64_t allowed);

/* What the log says of failures that are made on purpose: nothing. */
static inline void torture_no_line(void *arg, opd_log_level level, const char *text) {
    (void)arg;
    (void)level;
    (void)text;
}

/* ---- calls that write (files.c; the program is linked with --wrap) ------------------------ */

typedef enum torture_file_fault {
    TORTURE_FILE_EIO,       /* the n-th open, mkdir, write, fsync, rename fails */
    TORTURE_FILE_FULL,      /* from the n-th open, mkdir, write, fsync on, the disk is full */
    TORTURE_FILE_SHORT,     /* the n-th write takes a part only: no failure at all */
    TORTURE_FILE_INTERRUPT, /* the n-th write is interrupted: no failure either */
    TORTURE_FILE_FAULTS
} torture_file_fault;

/* Arms the n-th call from now on; 0 disarms. Returns how many there were since the last time. */
long torture_files_arm(torture_file_fault fault, long n);

/* Whether two names can be exchanged, as most file systems allow (true at first). */
void torture_files_exchange(bool can);

/* Runs the scenario with each kind of fault at each point. arg as it is given; after each run
 * `check` (may be NULL) looks at what is on the disk, undisturbed. */
void torture_files(torture_scenario scenario, void (*check)(void *arg, opd_err err), void *arg,
                   uint64_t allowed);

/* ---- refusals of the runtime (refuse.c) ----------------------------------------------------- */

/* Makes env refuse at its n-th question whether `site` fails (opd_env_ops.fault), once or, with
 * every > 0, at each `every`-th from there on. Undone by n = 0. Returns how often it was asked
 * since the last time. One env at a time, not one that transports use. */
long torture_refuse(opd_env *env, opd_fault site, long n, long every);

#endif
