/* opd/log.h - one line of text per event, to one sink.
 *
 * The level and the sink are the process's, set once before threads start; the default
 * writes "HH:MM:SS LEVEL text" to stderr from INFO up. A line is cut at 1,023 bytes.
 *
 * Thread: OPD_LOG_* from any, so the sink must be thread-safe.
 * Implemented by core/base/log.c.
 */
#ifndef OPD_LOG_H
#define OPD_LOG_H

#include "opd/err.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum opd_log_level {
    OPD_LOG_LEVEL_ERROR,
    OPD_LOG_LEVEL_WARN,
    OPD_LOG_LEVEL_INFO,
    OPD_LOG_LEVEL_DEBUG
} opd_log_level;

/* Receives one finished line without newline; text is valid during the call only. */
typedef void (*opd_log_sink)(void *arg, opd_log_level level, const char *text);

/* Lines above this level are not formatted at all. */
void opd_log_level_set(opd_log_level level);

/* Sends lines to sink(arg, ...); NULL restores the default. */
void opd_log_sink_set(opd_log_sink sink, void *arg);

/* "error", "warn", "info" or "debug". */
const char *opd_log_level_name(opd_log_level level);

/* Formats and emits one line; use the macros. */
void opd_log_write(opd_log_level level, const char *fmt, ...) OPD_PRINTF(2, 3);

#define OPD_LOG_ERROR(...) opd_log_write(OPD_LOG_LEVEL_ERROR, __VA_ARGS__)
#define OPD_LOG_WARN(...) opd_log_write(OPD_LOG_LEVEL_WARN, __VA_ARGS__)
#define OPD_LOG_INFO(...) opd_log_write(OPD_LOG_LEVEL_INFO, __VA_ARGS__)
#define OPD_LOG_DEBUG(...) opd_log_write(OPD_LOG_LEVEL_DEBUG, __VA_ARGS__)

#ifdef __cplusplus
}
#endif
#endif
