/* metrics.h - counters, gauges and histograms with names, in one bounded registry.
 *
 * A metric is registered once and then updated through its pointer, which stays valid for the
 * registry's life. Iteration is in order of creation, so output is the same on every run.
 * Names are the ones that appear in metrics.jsonl.
 *
 * Thread: one owner (the loop's). opd_metrics_fini frees all.
 */
#ifndef OPD_CORE_METRICS_METRICS_H
#define OPD_CORE_METRICS_METRICS_H

#include <stddef.h>
#include <stdint.h>

#include "core/base/map.h"
#include "opd/alloc.h"
#include "opd/err.h"

enum { OPD_METRIC_NAME_SIZE = 64, OPD_METRIC_BUCKETS = 65 };

typedef enum opd_metric_kind {
    OPD_METRIC_COUNTER,  /* only grows */
    OPD_METRIC_GAUGE,    /* the last value set */
    OPD_METRIC_HISTOGRAM /* of u64 values: bucket b counts values of b significant bits */
} opd_metric_kind;

typedef struct opd_metric {
    char name[OPD_METRIC_NAME_SIZE];
    opd_metric_kind kind;
    uint64_t count;    /* counter: its value; histogram: how many were recorded */
    double value;      /* gauge: its value; histogram: the sum */
    uint64_t max;      /* histogram: the largest */
    uint64_t *buckets; /* histogram: OPD_METRIC_BUCKETS counts, else NULL */
} opd_metric;

typedef struct opd_metrics {
    const opd_alloc *alloc;
    opd_metric **items;
    size_t count, count_max;
    opd_map by_name;
} opd_metrics;

/* An empty registry of at most count_max metrics. Errors: NOMEM. */
opd_err opd_metrics_init(opd_metrics *metrics, const opd_alloc *alloc,
                         size_t count_max) OPD_MUST_CHECK;
void opd_metrics_fini(opd_metrics *metrics);

/* The metric of that name, made if there is none. Errors: LIMIT (count_max, or a name of 64
 * bytes and more), MISMATCH (it exists as another kind), NOMEM. */
opd_err opd_metrics_get(opd_metrics *metrics, opd_metric_kind kind, const char *name,
                        opd_metric **out_metric) OPD_MUST_CHECK;

/* Updates; the metric must be of that kind (assertion). */
void opd_counter_add(opd_metric *metric, uint64_t amount);
void opd_gauge_set(opd_metric *metric, double value);
void opd_histogram_record(opd_metric *metric, uint64_t value);

/* Upper bound of the value below which a fraction q in [0, 1] of the records lie: exact to a
 * factor of two, never above the largest value recorded. 0 without records. */
uint64_t opd_histogram_quantile(const opd_metric *metric, double q);

/* Metric number index in order of creation, or NULL past the last. */
const opd_metric *opd_metrics_at(const opd_metrics *metrics, size_t index);

#endif
