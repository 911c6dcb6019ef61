/* sample_metrics.c - see sample_metrics.h. */
#include "actors/trainer/sample_metrics.h"

#include <math.h>

#include "actors/reward/question.h"

static void add(double values[OPD_METRIC_COUNT], opd_metric metric, double value) {
    values[metric] = (isnan(values[metric]) ? 0 : values[metric]) + value;
}

/* The lag of the oldest token, and into which of the histogram's classes it falls. */
static void add_lag(double values[OPD_METRIC_COUNT], uint64_t lag) {
    double *most = &values[OPD_METRIC_LAG_MAX];
    *most = isnan(*most) ? (double)lag : fmax(*most, (double)lag);
    add(values, lag == 0   ? OPD_METRIC_LAG_0
                : lag == 1 ? OPD_METRIC_LAG_1
                : lag < 4  ? OPD_METRIC_LAG_2
                : lag < 8  ? OPD_METRIC_LAG_4
                           : OPD_METRIC_LAG_8, 1);
}

void opd_sample_metrics_add(double values[OPD_METRIC_COUNT], const opd_sample_fields *f,
                            uint64_t version, size_t batch_samples, bool teacher) {
    const uint64_t *spans = opd_slice_data(f->spans);
    double n = (double)batch_samples;
    size_t length = f->tokens.size_bytes / sizeof(int32_t);
    add_lag(values, spans != NULL ? version - spans[0] : 0);
    add(values, OPD_METRIC_RESPONSE_LEN, (double)(length - f->prompt_len) / n);
    add(values, OPD_METRIC_TRUNCATED, (f->finish != 0) / n);
    add(values, OPD_METRIC_REWARD_FAILED, f->reward_failure == OPD_REWARD_FAILED);
    add(values, OPD_METRIC_REWARD_TIMEOUTS, f->reward_failure == OPD_REWARD_TIMEOUT);
    if (!teacher) return;
    add(values, OPD_METRIC_TEACHER_LATENCY_MS, f->latency_ms / n);
    add(values, OPD_METRIC_TEACHER_ATTEMPTS, f->attempts / n);
    add(values, OPD_METRIC_TEACHER_WAIT_MS, f->wait_ms / n);
    add(values, OPD_METRIC_TEACHER_MOVES, f->moves / n);
    add(values, OPD_METRIC_TEACHER_HEDGES, f->hedges / n);
    add(values, OPD_METRIC_TEACHER_GIVEN_UP, (f->teacher_logp.buf == NULL) / n);
    add(values, OPD_METRIC_DEGRADED_TOKENS, (double)f->degraded);
}
