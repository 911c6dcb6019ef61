/* fuzz_main.c - runs a fuzz target on seeded mutations of its seeds, for the test suite.
 * Usage: fuzz_x [COUNT [SEED]]. Each input lies in its own exact allocation, so that
 * AddressSanitizer sees a read one byte past it. A crash can be made again by its SEED.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/rng.h"
#include "tests/fuzz/fuzz.h"

enum { GROWTH_MAX = 64, MUTATIONS_MAX = 6 };

static size_t mutate(opd_rng *rng, uint8_t *data, size_t size) {
    static const char tokens[] = "[]{},:\"\\0123456789eE+-.ntf\x00\xff\x80 u";
    size_t at = size > 0 ? (size_t)opd_rng_below(rng, size) : 0;
    size_t span = (size_t)opd_rng_below(rng, 16) + 1;
    if (span > size - at) span = size - at;
    switch (opd_rng_below(rng, 6)) {
        case 0: /* flip a bit */
            if (size > 0) data[at] ^= (uint8_t)(1u << opd_rng_below(rng, 8));
            return size;
        case 1: /* cut the end off */
            return at;
        case 2: /* remove a piece */
            memmove(data + at, data + at + span, size - at - span);
            return size - span;
        case 3: /* repeat a piece */
            if (span > GROWTH_MAX / MUTATIONS_MAX) span = GROWTH_MAX / MUTATIONS_MAX;
            memmove(data + at + span, data + at, size - at);
            return size + span;
        case 4: /* put in a token */
            memmove(data + at + 1, data + at, size - at);
            data[at] = (uint8_t)tokens[opd_rng_below(rng, sizeof tokens)];
            return size + 1;
        default: /* a random byte */
            if (size > 0) data[at] = (uint8_t)opd_rng_next(rng);
            return size;
    }
}

static void run_one(opd_rng *rng, const opd_fuzz_seed *seed) {
    uint8_t *work = malloc(seed->size_bytes + GROWTH_MAX);
    if (work == NULL) abort();
    memcpy(work, seed->data, seed->size_bytes);
    size_t size = seed->size_bytes;
    uint64_t mutations = opd_rng_below(rng, MUTATIONS_MAX + 1);
    for (uint64_t i = 0; i < mutations; i++) size = mutate(rng, work, size);
    uint8_t *exact = malloc(size > 0 ? size : 1);
    if (exact == NULL) abort();
    memcpy(exact, work, size);
    free(work);
    (void)LLVMFuzzerTestOneInput(exact, size);
    free(exact);
}

int main(int argc, char **argv) {
    unsigned long count = argc > 1 ? strtoul(argv[1], NULL, 10) : 10000;
    unsigned long long seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    size_t seeds = 0;
    opd_rng rng;
    while (opd_fuzz_seeds[seeds].data != NULL) seeds++;
    opd_rng_init(&rng, seed);
    for (unsigned long i = 0; i < count; i++) run_one(&rng, &opd_fuzz_seeds[i % seeds]);
    (void)printf("%lu inputs, seed %llu: no crash\n", count, seed);
    return 0;
}
