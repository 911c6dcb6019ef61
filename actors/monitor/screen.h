/* screen.h - what a person sees of a run: progress lines and the final table, as text.
 *
 * Pure formatting. On a terminal the progress of a stage is one line rewritten in place;
 * elsewhere it is a plain line now and then. Colours only on a terminal without NO_COLOR.
 * Thread: any. Memory: writes into the caller's opd_str.
 */
#ifndef OPD_ACTORS_MONITOR_SCREEN_H
#define OPD_ACTORS_MONITOR_SCREEN_H

#include <stdbool.h>
#include <stdint.h>

#include "actors/metrics.h"
#include "core/base/str.h"
#include "opd/run.h"

typedef struct opd_screen {
    bool terminal; /* rewrite lines in place */
    bool color;
    int width;     /* columns of the terminal */
} opd_screen;

/* A step of a stage. */
typedef struct opd_progress {
    const char *stage;
    uint64_t step, steps;
    double elapsed_s;         /* of this stage, in this process      */
    uint64_t steps_here;      /* done in that time                   */
    double samples;           /* learnt in that time                 */
    double invalid_tokens;    /* so far in this stage                */
    const double *values;     /* [OPD_METRIC_COUNT] of the step      */
    bool policy, teacher;
} opd_progress;

/* One line, without newline: stage, step, rate, reward, KL, valid share, ETA. On a terminal it is
 * cut to one column less than its width (width 0: unknown, not cut). */
void opd_screen_progress(const opd_screen *screen, const opd_progress *progress, opd_str *out);

/* One row of the final table. */
typedef struct opd_table_row {
    const char *name;
    opd_accuracy accuracy;
} opd_table_row;

/* The table of accuracies with 95 % intervals. */
void opd_screen_table(const opd_screen *screen, const opd_table_row *rows, size_t count,
                      opd_str *out);

#endif
