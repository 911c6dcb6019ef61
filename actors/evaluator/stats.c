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

/* Wilson's interval of the share p of `total` > 0 trials, which need not be whole. */
static void wilson(double p, double total, double *out_low, double *out_high) {
    double z2 = Z95 * Z95, centre = p + z2 / (2 * total);
    double half = Z95 * sqrt(p * (1 - p) / total + z2 / (4 * total * total));
    double scale = 1 / (1 + z2 / total);
    *out_low = p <= 0 ? 0 : (centre - half) * scale;
    *out_high = p >= 1 ? 1 : (centre + half) * scale;
}

opd_accuracy opd_accuracy_of(size_t correct, size_t n) {
    if (n == 0) return (opd_accuracy){.high = 1};
    opd_accuracy a = {.accuracy = (double)correct / (double)n, .n = n};
    wilson(a.accuracy, (double)n, &a.low, &a.high);
    return a;
}

double opd_pass_at(uint32_t n, uint32_t right, uint32_t k) {
    if (right == 0) return 0;
    if (n - right < k) return 1;
    double missed = 1;
    for (uint32_t j = n - right + 1; j <= n; j++) missed *= 1 - (double)k / j;
    return 1 - missed;
}

opd_pass opd_pass_of(const uint32_t *right, size_t problems, uint32_t n, uint32_t k) {
    double sum = 0, squares = 0, count = (double)problems;
    if (problems == 0) return (opd_pass){.k = k, .high = 1};
    for (size_t i = 0; i < problems; i++) sum += opd_pass_at(n, right[i], k);
    opd_pass pass = {.k = k, .value = fmin(sum / count, 1)};
    for (size_t i = 0; i < problems; i++) {
        double off = opd_pass_at(n, right[i], k) - pass.value;
        squares += off * off;
    }
    double most = count * n / k, trials = most, coin = pass.value * (1 - pass.value);
    if (coin <= 0) trials = count; /* no spread of problems can be seen where all are alike at an end */
    else if (squares > 0) trials = fmin(most, fmax(count, coin * count * count / squares));
    wilson(pass.value, trials, &pass.low, &pass.high);
    return pass;
}

opd_eval_result opd_eval_result_of(const opd_eval_counts *counts, const uint32_t *right,
                                   size_t problems, uint32_t n) {
    double total = counts->total > 0 ? (double)counts->total : 1;
    opd_eval_result r = {.accuracy = opd_accuracy_of(counts->correct, counts->total),
                         .response_len = counts->response_tokens / total,
                         .truncated = (double)counts->truncated / total};
    for (uint32_t k = 1; n > 1 && k <= n; k *= 2)
        r.pass[r.pass_count++] = opd_pass_of(right, problems, n, k);
    if (n > 1 && (n & (n - 1)) != 0) r.pass[r.pass_count++] = opd_pass_of(right, problems, n, n);
    return r;
}
