/* metrics.c - the metrics registry (metrics.h).
 *
 * Invariants: by_name maps a hash of the name to the metric; two names with one hash are kept
 * apart by probing to the next hash. Thread: one owner.
 */
#include "core/metrics/metrics.h"

#include <string.h>

#include "core/base/check.h"

opd_err opd_metrics_init(opd_metrics *metrics, const opd_alloc *alloc, size_t count_max) {
    OPD_ASSERT(count_max > 0);
    *metrics = (opd_metrics){.alloc = alloc, .count_max = count_max};
    opd_map_init(&metrics->by_name, alloc, count_max);
    metrics->items = opd_mem_get(alloc, count_max * sizeof *metrics->items);
    return metrics->items != NULL ? OPD_OK : opd_fail(OPD_ERR_NOMEM, "%zu metrics", count_max);
}

void opd_metrics_fini(opd_metrics *metrics) {
    for (size_t i = 0; i < metrics->count; i++) {
        opd_mem_free(metrics->alloc, metrics->items[i]->buckets);
        opd_mem_free(metrics->alloc, metrics->items[i]);
    }
    opd_mem_free(metrics->alloc, metrics->items);
    opd_map_fini(&metrics->by_name);
    metrics->items = NULL;
    metrics->count = 0;
}

/* FNV-1a, 64 bit (Fowler, Noll, Vo). */
static uint64_t hash_of(const char *name) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (; *name != '\0'; name++) hash = (hash ^ (uint8_t)*name) * 0x100000001b3u;
    return hash;
}

static opd_metric *metric_create(opd_metrics *metrics, opd_metric_kind kind, const char *name) {
    opd_metric *metric = opd_mem_get(metrics->alloc, sizeof *metric);
    if (metric == NULL) return NULL;
    metric->kind = kind;
    memcpy(metric->name, name, strlen(name) + 1);
    if (kind != OPD_METRIC_HISTOGRAM) return metric;
    metric->buckets = opd_mem_get(metrics->alloc, OPD_METRIC_BUCKETS * sizeof(uint64_t));
    if (metric->buckets != NULL) return metric;
    opd_mem_free(metrics->alloc, metric);
    return NULL;
}

static opd_err add(opd_metrics *metrics, uint64_t hash, opd_metric_kind kind, const char *name,
                   opd_metric **out_metric) {
    if (metrics->count == metrics->count_max)
        return opd_fail(OPD_ERR_LIMIT, "metric %s: all %zu are in use", name, metrics->count_max);
    opd_metric *metric = metric_create(metrics, kind, name);
    if (metric == NULL) return opd_fail(OPD_ERR_NOMEM, "metric %s", name);
    opd_err err = opd_map_put(&metrics->by_name, hash, metric);
    if (err != OPD_OK) {
        opd_mem_free(metrics->alloc, metric->buckets);
        opd_mem_free(metrics->alloc, metric);
        return err;
    }
    metrics->items[metrics->count++] = metric;
    *out_metric = metric;
    return OPD_OK;
}

opd_err opd_metrics_get(opd_metrics *metrics, opd_metric_kind kind, const char *name,
                        opd_metric **out_metric) {
    if (strlen(name) >= OPD_METRIC_NAME_SIZE)
        return opd_fail(OPD_ERR_LIMIT, "metric name %s is too long", name);
    uint64_t hash = hash_of(name);
    opd_metric *found;
    while ((found = opd_map_get(&metrics->by_name, hash)) != NULL) {
        if (strcmp(found->name, name) == 0) break;
        hash++;
    }
    if (found == NULL) return add(metrics, hash, kind, name, out_metric);
    if (found->kind != kind) return opd_fail(OPD_ERR_MISMATCH, "metric %s is of another kind", name);
    *out_metric = found;
    return OPD_OK;
}

void opd_counter_add(opd_metric *metric, uint64_t amount) {
    OPD_ASSERT(metric->kind == OPD_METRIC_COUNTER);
    metric->count += amount;
}

void opd_gauge_set(opd_metric *metric, double value) {
    OPD_ASSERT(metric->kind == OPD_METRIC_GAUGE);
    metric->value = value;
}

void opd_histogram_record(opd_metric *metric, uint64_t value) {
    OPD_ASSERT(metric->kind == OPD_METRIC_HISTOGRAM);
    metric->buckets[value == 0 ? 0 : 64 - __builtin_clzll(value)]++;
    metric->count++;
    metric->value += (double)value;
    if (value > metric->max) metric->max = value;
}

uint64_t opd_histogram_quantile(const opd_metric *metric, double q) {
    OPD_ASSERT(metric->kind == OPD_METRIC_HISTOGRAM && q >= 0 && q <= 1);
    double wanted = q * (double)metric->count;
    uint64_t seen = 0;
    for (unsigned b = 0; b < OPD_METRIC_BUCKETS; b++) {
        seen += metric->buckets[b];
        if (seen == 0 || (double)seen < wanted) continue;
        uint64_t top = b == 64 ? UINT64_MAX : (UINT64_C(1) << b) - 1;
        return top < metric->max ? top : metric->max;
    }
    return metric->max;
}

const opd_metric *opd_metrics_at(const opd_metrics *metrics, size_t index) {
    return index < metrics->count ? metrics->items[index] : NULL;
}
