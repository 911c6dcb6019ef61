/* sample_metrics.c - see sample_metrics.h. */
#include "actors/trainer/sample_metrics.h"

#include <math.h>
#include <string.h>

#include "actors/reward/question.h"

enum { TAIL = OPD_REPETITION_TAIL, GRAM = 4, SLOTS = 4 * TAIL };

static const double LOOP_SHARE = 0.9;

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

static uint32_t gram_hash(const int32_t *gram) {
    uint64_t hash = 0;
    for (int i = 0; i < GRAM; i++)
        hash = (hash ^ (uint32_t)gram[i]) * UINT64_C(0x9e3779b97f4a7c15);
    return (uint32_t)(hash >> 32);
}

/* The distinct 4-grams go into an open table that is at most a quarter full, as their places + 1. */
double opd_repetition(const int32_t *tokens, size_t count) {
    uint16_t slots[SLOTS] = {0};
    const int32_t *tail = count > TAIL ? tokens + count - TAIL : tokens;
    size_t length = count > TAIL ? TAIL : count, repeats = 0;
    if (length < GRAM) return 0;
    size_t grams = length - GRAM + 1;
    for (size_t i = 0; i < grams; i++) {
        uint32_t at = gram_hash(tail + i) % SLOTS;
        while (slots[at] != 0 && memcmp(tail + slots[at] - 1, tail + i, GRAM * sizeof *tail) != 0)
            at = (at + 1) % SLOTS;
        if (slots[at] != 0) repeats++;
        else slots[at] = (uint16_t)(i + 1);
    }
    return (double)repeats / (double)grams;
}

static void add_repetition(double values[OPD_METRIC_COUNT], const int32_t *tokens, size_t count, double n) {
    double share = opd_repetition(tokens, count);
    add(values, OPD_METRIC_REPEATED_4GRAMS, share / n);
    add(values, OPD_METRIC_REPETITION, (count >= OPD_REPETITION_LEAST && share >= LOOP_SHARE) / n);
}

void opd_sample_metrics_add(double values[OPD_METRIC_COUNT], const opd_sample_fields *f,
                            uint64_t version, size_t batch_samples, bool teacher) {
    const uint64_t *spans = opd_slice_data(f->spans);
    double n = (double)batch_samples;
    size_t length = f->tokens.size_bytes / sizeof(int32_t);
    add_lag(values, spans != NULL ? version - spans[0] : 0);
    add(values, OPD_METRIC_RESPONSE_LEN, (double)(length - f->prompt_len) / n);
    add_repetition(values, (const int32_t *)opd_slice_data(f->tokens) + f->prompt_len, length - f->prompt_len, n);
    add(values, OPD_METRIC_TRUNCATED, (f->finish != 0) / n);
    if (f->left_over > 0) add(values, OPD_METRIC_LEFT_OVER, f->left_over);
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
