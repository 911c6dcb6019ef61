/* bench.h - what the runtime's benchmarks share: a system to run in, a clock, the case table.
 *
 * A case is one function that does its work once and returns its figure (bench_actor.c does the
 * repeats, the median and the JSON). Every message has a msgpack body [version, field...] that
 * is written by its sender and read by its receiver, as in production, and all of the
 * runtime's counters are on.
 *
 * Any error ends the program: a benchmark that did not do its work has no figure.
 * Thread: the loop's. bench_down frees what bench_up made.
 */
#ifndef OPD_TESTS_BENCH_BENCH_H
#define OPD_TESTS_BENCH_BENCH_H

#include <stdint.h>

#include "core/actor/body.h"
#include "core/env/env.h"
#include "opd/actor.h"

enum { BENCH_BODY_BYTES = 16 }; /* room for [version, u64] */

typedef struct bench_case {
    const char *name;
    const char *unit;
    double (*run)(void); /* the figure, in unit */
    bool slow;           /* measured once, without warm-up: it takes its time by design */
} bench_case;

/* A real env and a system on it, as a run has them: with flight recorder and watchdog. */
typedef struct bench_system {
    opd_env *env;
    opd_system *system;
    opd_watchdog *watchdog;
} bench_system;

/* Ends the program with the error and its context, unless err is OPD_OK. */
void bench_must(opd_err err);

/* The monotonic clock, in seconds. */
double bench_now_s(void);

void bench_up(bench_system *b, const opd_system_options *options);

/* Runs until the last actor has exited; returns the seconds that took. */
double bench_run_s(bench_system *b);

void bench_down(bench_system *b);

/* opd_spawn that cannot fail. */
opd_pid bench_spawn(bench_system *b, const opd_actor_class *actor_class, const void *config);

/* A message with the body [1, number]. */
opd_msg *bench_msg(opd_system *system, uint16_t kind, uint64_t number);

/* The number in such a body. */
uint64_t bench_msg_number(const opd_msg *msg);

/* opd_send of such a message, which must not be refused. */
void bench_send(opd_ctx *ctx, opd_pid to, uint16_t kind, uint64_t number);

/* The cases, by file; each list ends with a NULL name. */
extern const bench_case bench_message_cases[]; /* bench_messages.c */
extern const bench_case bench_flow_cases[];    /* bench_flow.c */
extern const bench_case bench_lane_cases[];    /* bench_lane.c */
extern const bench_case bench_parse_cases[];   /* bench_parse.c */

#endif
