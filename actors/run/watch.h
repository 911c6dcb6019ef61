/* watch.h - what keeps an eye on a running system: the watchdog, the signal that prints the
 * topology, the trace of the run (opd/diagnosis.h says what each is).
 *
 * Thread: the loop's. All of it ends before the system it watches.
 */
#ifndef OPD_ACTORS_RUN_WATCH_H
#define OPD_ACTORS_RUN_WATCH_H

#include "core/env/env.h"
#include "opd/diagnosis.h"

typedef struct opd_watch {
    opd_system *system;
    opd_watchdog *watchdog; /* NULL: none */
    opd_tracer *tracer;     /* NULL: none */
    const char *trace_path;
} opd_watch;

typedef struct opd_watch_options {
    const opd_alloc *alloc;
    opd_env *env;           /* NULL: not a real one, so no watchdog */
    opd_system *system;
    uint64_t watchdog_ms;   /* 0: no watchdog */
    const char *trace_path; /* NULL: no trace; lives as long as the watch */
} opd_watch_options;

/* Begins watching; zeroed memory of the caller. Errors: NOMEM, LIMIT; nothing is open then. */
OPD_MUST_CHECK opd_err opd_watch_open(opd_watch *watch, const opd_watch_options *options);

/* SIGUSR1 prints the topology and the newest records to stderr and to the log. Errors: IO. */
OPD_MUST_CHECK opd_err opd_watch_signal(opd_watch *watch, opd_signals *signals);

/* Writes the trace, if there is one (a failure is a warning in the log), and ends. Zeroed
 * memory is legal. Call it before opd_system_destroy. */
void opd_watch_close(opd_watch *watch);

#endif
