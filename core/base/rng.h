/* rng.h - random numbers that depend on what they are for, not on when they are drawn.
 *
 * opd_rng_at is counter-based: the same (seed, a, b, c) gives the same 64 bits on every
 * machine and in any order, e.g. (seed, sample, member, position). opd_rng is its
 * sequential form for code that is sequential anyway.
 * Mixing: the finaliser of splitmix64 (Steele, Lea, Flood, "Fast splittable pseudorandom
 * number generators", 2014), applied between the counters.
 * Thread: opd_rng_at any; an opd_rng has one owner.
 */
#ifndef OPD_CORE_BASE_RNG_H
#define OPD_CORE_BASE_RNG_H

#include <stdint.h>

/* 64 random bits of the counter (a, b, c) under seed. Stateless. */
uint64_t opd_rng_at(uint64_t seed, uint64_t a, uint64_t b, uint64_t c);

/* The top 53 bits as a number in [0, 1). */
double opd_rng_uniform(uint64_t bits);

typedef struct opd_rng {
    uint64_t state;
} opd_rng;

/* Starts the sequence of seed. */
void opd_rng_init(opd_rng *rng, uint64_t seed);

/* The next 64 bits. */
uint64_t opd_rng_next(opd_rng *rng);

/* Unbiased in [0, n), n >= 1 (rejection). */
uint64_t opd_rng_below(opd_rng *rng, uint64_t n);

/* Standard normal (Box-Muller, two draws a value, the second value is not kept). */
double opd_rng_normal(opd_rng *rng);

#endif
