/* log.c - the process's log sink (opd/log.h).
 *
 * No lock: the sink is set before threads start and is itself thread-safe; the default one
 * emits a line with a single fprintf, which stdio makes whole. A filtered line costs one
 * atomic load. Thread: any. Nothing to free.
 */
#include "opd/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

enum { LINE_SIZE = 1024 };

static atomic_int log_level = OPD_LOG_LEVEL_INFO;
static opd_log_sink log_sink; /* NULL: stderr */
static void *log_sink_arg;

void opd_log_level_set(opd_log_level level) { atomic_store(&log_level, (int)level); }

void opd_log_sink_set(opd_log_sink sink, void *arg) {
    log_sink = sink;
    log_sink_arg = arg;
}

const char *opd_log_level_name(opd_log_level level) {
    switch (level) {
    case OPD_LOG_LEVEL_ERROR: return "error";
    case OPD_LOG_LEVEL_WARN: return "warn";
    case OPD_LOG_LEVEL_INFO: return "info";
    case OPD_LOG_LEVEL_DEBUG: return "debug";
    }
    return "unknown";
}

static void stderr_sink(opd_log_level level, const char *text) {
    time_t seconds = time(NULL);
    struct tm local;
    char clock[16] = "";
    if (localtime_r(&seconds, &local) != NULL)
        (void)strftime(clock, sizeof clock, "%H:%M:%S", &local);
    (void)fprintf(stderr, "%s %-5s %s\n", clock, opd_log_level_name(level), text);
}

void opd_log_write(opd_log_level level, const char *fmt, ...) {
    if ((int)level > atomic_load_explicit(&log_level, memory_order_relaxed)) return;
    char line[LINE_SIZE];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    if (log_sink != NULL)
        log_sink(log_sink_arg, level, line);
    else
        stderr_sink(level, line);
}
