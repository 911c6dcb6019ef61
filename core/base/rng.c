/* rng.c - counter-based random numbers (rng.h). Thread: see rng.h. Nothing to free. */
#include "core/base/rng.h"

#include <math.h>

#include "core/base/check.h"

static const uint64_t GOLDEN = 0x9e3779b97f4a7c15u; /* 2^64 / golden ratio, odd */

/* The splitmix64 finaliser: a bijection with good avalanche. */
static uint64_t mix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

uint64_t opd_rng_at(uint64_t seed, uint64_t a, uint64_t b, uint64_t c) {
    uint64_t x = mix(seed + GOLDEN);
    x = mix((x ^ a) + GOLDEN);
    x = mix((x ^ b) + GOLDEN);
    return mix((x ^ c) + GOLDEN);
}

double opd_rng_uniform(uint64_t bits) { return (double)(bits >> 11) * 0x1p-53; }

void opd_rng_init(opd_rng *rng, uint64_t seed) { rng->state = mix(seed + GOLDEN); }

uint64_t opd_rng_next(opd_rng *rng) {
    rng->state += GOLDEN;
    return mix(rng->state);
}

uint64_t opd_rng_below(opd_rng *rng, uint64_t n) {
    OPD_ASSERT(n >= 1);
    uint64_t reject = (0 - n) % n; /* 2^64 mod n: this many low values would be favoured */
    uint64_t bits;
    do {
        bits = opd_rng_next(rng);
    } while (bits < reject);
    return bits % n;
}

double opd_rng_normal(opd_rng *rng) {
    double u = 1.0 - opd_rng_uniform(opd_rng_next(rng)); /* (0, 1]: log is finite */
    double v = opd_rng_uniform(opd_rng_next(rng));
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}
