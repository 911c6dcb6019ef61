/* histogram.c - what a histogram says (opd/histogram.h). Thread: any; nothing is allocated. */
#include "opd/histogram.h"

uint64_t opd_histogram_count(const opd_histogram *histogram) {
    uint64_t count = 0;
    for (unsigned b = 0; b < OPD_HISTOGRAM_BUCKETS; b++) count += histogram->counts[b];
    return count;
}

uint64_t opd_histogram_quantile(const opd_histogram *histogram, double q) {
    uint64_t count = opd_histogram_count(histogram), below = 0;
    double wanted = q * (double)count;
    for (unsigned b = 0; b + 1 < OPD_HISTOGRAM_BUCKETS; b++) {
        uint64_t bound = ((uint64_t)1 << b) - 1;
        below += histogram->counts[b];
        if (below > 0 && (double)below >= wanted)
            return bound < histogram->max ? bound : histogram->max;
    }
    return histogram->max;
}
