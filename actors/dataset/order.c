/* actors/dataset/order.c - see order.h. A balanced Feistel network: each round replaces
 * (left, right) by (right, left xor F(right)), which can be undone, so the whole is a
 * permutation whatever F is; F is the counter-based generator. No state, any thread. */
#include "actors/dataset/order.h"

#include "core/base/check.h"
#include "core/base/rng.h"

#define ROUNDS 6
#define HALF_BITS_MIN 4 /* halves of fewer bits have too few round functions to mix well */

static uint64_t permute(const opd_order *order, uint64_t epoch, unsigned half_bits,
                        uint64_t value) {
    uint64_t half_mask = (UINT64_C(1) << half_bits) - 1;
    uint64_t left = value >> half_bits, right = value & half_mask;
    for (uint64_t round = 0; round < ROUNDS; round++) {
        uint64_t mixed = left ^ (opd_rng_at(order->seed, epoch, round, right) & half_mask);
        left = right;
        right = mixed;
    }
    return left << half_bits | right;
}

uint64_t opd_order_at(const opd_order *order, uint64_t epoch, uint64_t position) {
    OPD_ASSERT(position < order->count && order->count <= UINT64_C(1) << 62);
    if (!order->shuffle) return position;
    unsigned half_bits = HALF_BITS_MIN;
    while (UINT64_C(1) << (2 * half_bits) < order->count) half_bits++;
    uint64_t value = position;
    do value = permute(order, epoch, half_bits, value);
    while (value >= order->count); /* ends: position itself lies on this cycle */
    return value;
}

uint64_t opd_order_of_group(const opd_order *order, uint64_t group, uint64_t *out_epoch) {
    OPD_ASSERT(order->count > 0);
    *out_epoch = group / order->count;
    return opd_order_at(order, *out_epoch, group % order->count);
}
