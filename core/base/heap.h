/* heap.h - intrusive binary min-heap of u64 keys, ties broken by order of insertion.
 *
 * Nodes live in their owners; the heap holds an array of pointers to them that grows up
 * to a declared maximum. A node knows its place: removal
 * from the middle is O(log n). Invariants: slots[i]->place == i + 1; place 0 = not in a heap.
 * Thread: one owner. opd_heap_fini frees the array, never the nodes.
 */
#ifndef OPD_CORE_BASE_HEAP_H
#define OPD_CORE_BASE_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "opd/alloc.h"
#include "opd/err.h"
#include "opd/node.h"

typedef struct opd_heap {
    opd_heap_node **slots;
    size_t count, capacity, count_max;
    uint64_t next_sequence;
    const opd_alloc *alloc;
} opd_heap;

/* An empty heap for at most count_max nodes; memory grows with use. */
void opd_heap_init(opd_heap *heap, const opd_alloc *alloc, size_t count_max);

/* Frees the array; nodes still inside are forgotten. */
void opd_heap_fini(opd_heap *heap);

/* Inserts a node that is in no heap. Errors: LIMIT, NOMEM (the node stays outside). */
opd_err opd_heap_push(opd_heap *heap, opd_heap_node *node, uint64_t key) OPD_MUST_CHECK;

/* The node with the smallest (key, sequence), or NULL; pop also removes it. */
opd_heap_node *opd_heap_first(const opd_heap *heap);
opd_heap_node *opd_heap_pop(opd_heap *heap);

/* Removes a node of this heap; does nothing to a node in none. */
void opd_heap_remove(opd_heap *heap, opd_heap_node *node);

static inline bool opd_heap_contains(const opd_heap_node *node) { return node->place != 0; }

#endif
