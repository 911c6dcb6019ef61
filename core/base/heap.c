/* heap.c - intrusive binary min-heap (heap.h). Thread: one owner. */
#include "core/base/heap.h"

#include "core/base/check.h"

void opd_heap_init(opd_heap *heap, const opd_alloc *alloc, size_t count_max) {
    *heap = (opd_heap){.alloc = alloc, .count_max = count_max};
}

void opd_heap_fini(opd_heap *heap) {
    for (size_t i = 0; i < heap->count; i++) heap->slots[i]->place = 0;
    opd_mem_free(heap->alloc, heap->slots);
    opd_heap_init(heap, heap->alloc, heap->count_max);
}

static bool before(const opd_heap_node *a, const opd_heap_node *b) {
    return a->key != b->key ? a->key < b->key : a->sequence < b->sequence;
}

static void put(opd_heap *heap, size_t index, opd_heap_node *node) {
    heap->slots[index] = node;
    node->place = index + 1;
}

static void sift_up(opd_heap *heap, size_t index, opd_heap_node *node) {
    while (index > 0) {
        size_t parent = (index - 1) / 2;
        if (!before(node, heap->slots[parent])) break;
        put(heap, index, heap->slots[parent]);
        index = parent;
    }
    put(heap, index, node);
}

static void sift_down(opd_heap *heap, size_t index, opd_heap_node *node) {
    for (;;) {
        size_t child = 2 * index + 1;
        if (child >= heap->count) break;
        if (child + 1 < heap->count && before(heap->slots[child + 1], heap->slots[child]))
            child++;
        if (!before(heap->slots[child], node)) break;
        put(heap, index, heap->slots[child]);
        index = child;
    }
    put(heap, index, node);
}

static opd_err grow(opd_heap *heap) {
    size_t capacity = heap->capacity == 0 ? 16 : heap->capacity * 2;
    if (capacity > heap->count_max) capacity = heap->count_max;
    void *slots = opd_mem_resize(heap->alloc, heap->slots, capacity * sizeof(opd_heap_node *));
    if (slots == NULL) return opd_fail(OPD_ERR_NOMEM, "heap of %zu nodes", capacity);
    heap->slots = slots;
    heap->capacity = capacity;
    return OPD_OK;
}

opd_err opd_heap_push(opd_heap *heap, opd_heap_node *node, uint64_t key) {
    OPD_ASSERT(node->place == 0);
    if (heap->count == heap->count_max)
        return opd_fail(OPD_ERR_LIMIT, "heap holds its maximum of %zu nodes", heap->count_max);
    if (heap->count == heap->capacity) OPD_TRY(grow(heap));
    node->key = key;
    node->sequence = heap->next_sequence++;
    heap->count++;
    sift_up(heap, heap->count - 1, node);
    return OPD_OK;
}

opd_heap_node *opd_heap_first(const opd_heap *heap) {
    return heap->count == 0 ? NULL : heap->slots[0];
}

opd_heap_node *opd_heap_pop(opd_heap *heap) {
    opd_heap_node *node = opd_heap_first(heap);
    if (node != NULL) opd_heap_remove(heap, node);
    return node;
}

void opd_heap_remove(opd_heap *heap, opd_heap_node *node) {
    if (node->place == 0) return;
    size_t index = node->place - 1;
    OPD_ASSERT(index < heap->count && heap->slots[index] == node);
    node->place = 0;
    opd_heap_node *last = heap->slots[--heap->count];
    if (last == node) return;
    if (index > 0 && before(last, heap->slots[(index - 1) / 2]))
        sift_up(heap, index, last);
    else
        sift_down(heap, index, last);
}
