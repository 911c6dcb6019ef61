/* actors/dataset/order.h - in which order an epoch visits the rows.
 *
 * Each epoch is a fresh permutation of the original order, a pure function of (seed, epoch):
 * nothing has to be stored to resume in the middle, and epoch e does not depend on whether the
 * epochs before it were ever drawn. The permutation is a Feistel network over the next power of
 * four, walked until it lands inside 0..count-1 (cycle walking: Black and Rogaway 2002, "Ciphers
 * with arbitrary finite domains"): O(1) memory, under four steps on average.
 *
 * Thread: any; an order is a value.
 */
#ifndef OPD_ACTORS_DATASET_ORDER_H
#define OPD_ACTORS_DATASET_ORDER_H

#include <stdbool.h>
#include <stdint.h>

typedef struct opd_order {
    uint64_t count;
    uint64_t seed;
    bool shuffle; /* off: the original order in every epoch */
} opd_order;

/* The row that stands at `position` (< count) of `epoch`. */
uint64_t opd_order_at(const opd_order *order, uint64_t epoch, uint64_t position);

/* The same for a counter that runs through the epochs: group g is position g % count of epoch
 * g / count. Also gives the epoch. */
uint64_t opd_order_of_group(const opd_order *order, uint64_t group, uint64_t *out_epoch);

#endif
