/* metrics.c - the names of the metric table (metrics.h). Thread: any. Nothing to free. */
#include "actors/metrics.h"

#include <math.h>
#include <stddef.h>

static const char *const NAMES[] = {
#define X(name, text) text,
    OPD_METRIC_TABLE(X)
#undef X
};

const char *opd_metric_name(opd_metric metric) { return NAMES[metric]; }

void opd_metrics_clear(double values[OPD_METRIC_COUNT]) {
    for (int i = 0; i < OPD_METRIC_COUNT; i++) values[i] = (double)NAN;
}
