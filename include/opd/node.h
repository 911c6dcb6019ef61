/* opd/node.h - the intrusive nodes that public structs embed.
 *
 * Data only: their operations live in core/base/list.h and heap.h. A user of the library
 * never touches them; zeroed memory is their valid initial state inside opd_event,
 * opd_timer and the like.
 */
#ifndef OPD_NODE_H
#define OPD_NODE_H

#include <stddef.h>
#include <stdint.h>

/* A place in a doubly linked list. */
typedef struct opd_list {
    struct opd_list *next, *prev;
} opd_list;

/* A place in a min-heap of (key, sequence). */
typedef struct opd_heap_node {
    uint64_t key;
    uint64_t sequence;
    size_t place; /* index + 1; 0 when in no heap */
} opd_heap_node;

#endif
