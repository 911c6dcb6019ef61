/* actors/evaluator/stats.c - see stats.h. No state, any thread. */
#include "actors/evaluator/stats.h"

#include <math.h>

/* 97.5 % quantile of the standard normal distribution. */
#define Z95 1.959963984540054

void opd_eval_add(opd_eval_counts *counts, bool correct, bool truncated, size_t response_len) {
    counts->total++;
    counts->correct += correct;
    counts->truncated += truncated;
    counts->response_tokens += (double)response_len;
}

void opd_eval_add_failed(opd_eval_counts *counts) {
    counts->total++;
    counts->failed++;
}

opd_accuracy opd_accuracy_of(size_t correct, size_t n) {
    if (n == 0) return (opd_accuracy){.high = 1};
    double total = (double)n, p = (double)correct / total, z2 = Z95 * Z95;
    double centre = p + z2 / (2 * total);
    double half = Z95 * sqrt(p * (1 - p) / total + z2 / (4 * total * total));
    double scale = 1 / (1 + z2 / total);
    return (opd_accuracy){.accuracy = p,
                          .low = correct == 0 ? 0 : (centre - half) * scale,
                          .high = correct == n ? 1 : (centre + half) * scale,
                          .n = n};
}
