/* watch.c - the watchdog, SIGUSR1 and the trace of a running system (watch.h).
 * Thread: the loop's. The struct is its owner's; what it opened is freed by close. */
#include "actors/run/watch.h"

#include <stdio.h>

#include "actors/messages.h"
#include "core/base/check.h"
#include "opd/log.h"

enum { RECORDS_SHOWN = 64 };

opd_err opd_watch_open(opd_watch *watch, const opd_watch_options *o) {
    *watch = (opd_watch){.system = o->system, .trace_path = o->trace_path};
    opd_err err = OPD_OK;
    if (o->trace_path != NULL) {
        opd_tracer_options tracer = {.alloc = o->alloc, .trace_text = opd_sample_trace_text};
        err = opd_tracer_create(&tracer, o->system, &watch->tracer);
    }
    if (err == OPD_OK && o->env != NULL && o->watchdog_ms > 0)
        err = opd_watchdog_start(o->env, o->system, o->alloc, o->watchdog_ms, &watch->watchdog);
    if (err == OPD_OK) return OPD_OK;
    opd_tracer_destroy(watch->tracer);
    *watch = (opd_watch){.system = NULL};
    return err;
}

static void show(void *arg, const char *line) {
    (void)arg;
    (void)fprintf(stderr, "%s\n", line);
    OPD_LOG_INFO("%s", line);
}

static void on_dump(void *arg) {
    const opd_watch *watch = arg;
    show(NULL, "---- topology, asked for by SIGUSR1 ----");
    opd_system_dump(watch->system, show, NULL);
    show(NULL, "---- the newest records ----");
    opd_recorder_dump(watch->system, RECORDS_SHOWN, show, NULL);
    show(NULL, "---- end of the topology ----");
    (void)fflush(stderr);
}

opd_err opd_watch_signal(opd_watch *watch, opd_signals *signals) {
    return opd_signals_watch_dump(signals, on_dump, watch);
}

void opd_watch_close(opd_watch *watch) {
    opd_watchdog_stop(watch->watchdog);
    if (watch->tracer != NULL && opd_tracer_write(watch->tracer, watch->trace_path) != OPD_OK)
        OPD_LOG_WARN("the trace was not written: %s", opd_err_context());
    opd_tracer_destroy(watch->tracer);
    *watch = (opd_watch){.system = NULL};
}
