/* opd/histogram.h - how often which size: a histogram with a bucket per power of two.
 *
 * A plain struct without memory of its own, zeroed to begin with, so that recording is one
 * increment and a copy is an assignment. Bucket b counts values of b significant bits, that is
 * 0, 1, 2..3, 4..7, ...; the last one all that are larger. Values are nanoseconds here.
 *
 * Thread: one owner. Implemented by core/metrics.
 */
#ifndef OPD_HISTOGRAM_H
#define OPD_HISTOGRAM_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { OPD_HISTOGRAM_BUCKETS = 40 }; /* the last one begins at 2^38 ns = 275 s */

typedef struct opd_histogram {
    uint64_t max; /* the largest value */
    uint64_t counts[OPD_HISTOGRAM_BUCKETS];
} opd_histogram;

static inline void opd_histogram_record(opd_histogram *histogram, uint64_t value) {
    unsigned bits = value == 0 ? 0 : 64u - (unsigned)__builtin_clzll(value);
    histogram->counts[bits < OPD_HISTOGRAM_BUCKETS ? bits : OPD_HISTOGRAM_BUCKETS - 1]++;
    if (value > histogram->max) histogram->max = value;
}

/* Number of values recorded. */
uint64_t opd_histogram_count(const opd_histogram *histogram);

/* Upper bound of the value below which a fraction q in [0, 1] of the values lie: exact to a
 * factor of two, never above the largest value. 0 without values. */
uint64_t opd_histogram_quantile(const opd_histogram *histogram, double q);

#ifdef __cplusplus
}
#endif
#endif
