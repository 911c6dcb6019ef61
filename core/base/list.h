/* list.h - intrusive doubly linked list with a sentinel.
 *
 * A node is embedded in its owner (OPD_CONTAINER_OF finds it) and is in one list at most;
 * an unlinked node points at itself, so unlinking twice is legal and membership is a
 * comparison. Nothing is allocated. Thread: one owner.
 */
#ifndef OPD_CORE_BASE_LIST_H
#define OPD_CORE_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

#include "opd/node.h"

/* Makes a list empty, or a node unlinked. */
static inline void opd_list_init(opd_list *list) { list->next = list->prev = list; }

static inline bool opd_list_empty(const opd_list *list) { return list->next == list; }

/* Whether an initialised node is in some list. */
static inline bool opd_list_linked(const opd_list *node) { return node->next != node; }

/* Puts node before `at`: with the sentinel as `at`, at the end. */
static inline void opd_list_insert_before(opd_list *at, opd_list *node) {
    node->next = at;
    node->prev = at->prev;
    at->prev->next = node;
    at->prev = node;
}

static inline void opd_list_push_back(opd_list *list, opd_list *node) {
    opd_list_insert_before(list, node);
}

static inline void opd_list_push_front(opd_list *list, opd_list *node) {
    opd_list_insert_before(list->next, node);
}

/* Takes node out of its list; does nothing to an unlinked node. */
static inline void opd_list_remove(opd_list *node) {
    node->prev->next = node->next;
    node->next->prev = node->prev;
    opd_list_init(node);
}

/* The first node, or NULL. */
static inline opd_list *opd_list_first(const opd_list *list) {
    return opd_list_empty(list) ? NULL : list->next;
}

/* Takes out and returns the first node, or NULL. */
static inline opd_list *opd_list_pop_front(opd_list *list) {
    opd_list *node = opd_list_first(list);
    if (node != NULL) opd_list_remove(node);
    return node;
}

#endif
