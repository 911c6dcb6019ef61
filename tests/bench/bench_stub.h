/* bench_stub.h - a stub of a scoring server: real HTTP, scripted time, scores that can be checked.
 *
 * It does `slots` requests at once, each for a log-normal time of the given mean, the rest wait
 * in order; an aborted or cancelled one gives its slot back, as a real server does. So it has a
 * capacity, slots / mean, and a load. The draws depend on the seed alone.
 *
 * Thread: the loop's of its own process.
 */
#ifndef OPD_TESTS_BENCH_BENCH_STUB_H
#define OPD_TESTS_BENCH_BENCH_STUB_H

#include <stdint.h>

enum { BENCH_STUB_VOCAB = 1000, BENCH_STUB_LEN_MAX = 1024 };

typedef struct bench_stub_options {
    uint16_t port;
    uint32_t slots;
    double mean_ms, sigma; /* of the service time; sigma of its logarithm */
    uint64_t seed;
} bench_stub_options;

/* Serves until the process is killed; ends with the process that started it. Returns its exit
 * status. */
int bench_stub_main(const bench_stub_options *options);

/* The score of token `id` at place `at` of a sequence: exact in a float and in decimal. */
static inline float bench_stub_score(int32_t id, uint64_t at) {
    return -(float)(1 + ((uint64_t)id * 31 + at * 17) % 997) / 64;
}

#endif
