/* pages.h - which page of a reader holds which text: the scorer's prefix cache (models/reader.h).
 *
 * Texts that are being read, and those that were, form a tree of pages: a page has up to
 * OPD_KV_PAGE tokens and follows the full page before it. A new text takes the pages of the
 * longest beginning that is in the tree, whether it was computed yet or not; where it leaves a
 * page in the middle it gets a page of its own, to which the common places are copied once they
 * are computed (a fork). An idle page that ends where the text goes on is simply continued.
 * Pages that no text uses stay until their room is needed: least recently used first, ends
 * before beginnings.
 *
 * Who computes a place is decided step by step: in one step a page is written for one chain
 * only, and the others wait for it. So it does not matter who goes away.
 *
 * Invariants: (1) places of a page are computed in order, those of a page after those of the
 * pages before; (2) a page that a chain uses has a use by every page before it, so an unused
 * page has unused ones after it only; (3) an unused page has no place that is not computed.
 *
 * Bounds: a search looks at SIBLINGS_MAX (pages.c) pages, the last used first, for each page of
 * the text. Memory is allocated at creation only. Thread: one; no computation. The owner frees.
 */
#ifndef OPD_ACTORS_SCORER_PAGES_H
#define OPD_ACTORS_SCORER_PAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "opd/alloc.h"
#include "opd/err.h"

#define OPD_PAGE_NONE UINT32_MAX

typedef struct opd_pages opd_pages;

/* The pages of one text. */
typedef struct opd_chain {
    uint32_t *pages;     /* [opd_pages_of(length)], the caller's room; while a fork is pending,
                            the page it leaves stands at fork_at                            */
    uint32_t length;     /* tokens                                                          */
    uint32_t fork_at;    /* which of pages                                                  */
    uint32_t fork_to;    /* the page of its own; OPD_PAGE_NONE: no fork is pending          */
    uint32_t fork_count; /* places that are common                                          */
} opd_chain;

/* Pages that so many tokens take. */
size_t opd_pages_of(size_t tokens);

/* A tree of `count` free pages, 1 .. UINT32_MAX - 1. keep: pages of finished texts stay; false:
 * no two texts ever share. Errors: NOMEM. */
OPD_MUST_CHECK opd_err opd_pages_create(size_t count, bool keep, const opd_alloc *alloc,
                                        opd_pages **out_pages);
void opd_pages_destroy(opd_pages *pages);

/* Gives a text its pages. chain->pages is the caller's room. False: there are too few; nothing
 * has changed. A text of at most `count` pages gets them when no other is in use. */
bool opd_pages_take(opd_pages *pages, const int32_t *tokens, uint32_t length, opd_chain *chain);

/* Ends the use; what was computed stays in the tree. */
void opd_pages_release(opd_pages *pages, opd_chain *chain);

/* Forgets every page. None may be in use. */
void opd_pages_clear(opd_pages *pages);

/* Begins a step: nothing is claimed. */
void opd_pages_step(opd_pages *pages);

/* Ends a pending fork whose common places are computed. True: page *out_from is to be copied to
 * *out_to before anything is read. To be called for each chain before the first claim of a step. */
bool opd_pages_join(opd_pages *pages, opd_chain *chain, uint32_t *out_from, uint32_t *out_to);

/* Tokens of the beginning that are computed; the first `from` are known to be. */
uint32_t opd_pages_filled(const opd_pages *pages, const opd_chain *chain, uint32_t from);

/* How many tokens from `from` on (at most `most`) may be read for this chain in this step, once
 * per chain and step; those before must be computed. 0: another one is at it. */
uint32_t opd_pages_claim(opd_pages *pages, const opd_chain *chain, uint32_t from, uint32_t most);

/* The chain's first `count` tokens are computed. */
void opd_pages_fill(opd_pages *pages, const opd_chain *chain, uint32_t count);

/* Pages in use, kept and free; their sum is the count of all. */
typedef struct opd_pages_state {
    size_t used, kept, free;
} opd_pages_state;
opd_pages_state opd_pages_look(const opd_pages *pages);

#endif
