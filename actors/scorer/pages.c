/* pages.c - the tree of pages (pages.h).
 *
 * Data: a fixed table of pages. Siblings form a list, the last used first; free pages a stack,
 * linked by `next`; unused pages without a page after them a list in order of their last use, linked by
 * `older` and `newer`. Thread: the owner's.
 */
#include "actors/scorer/pages.h"

#include <string.h>

#include "core/base/check.h"
#include "kernels/kernels.h"

enum {
    SIBLINGS_MAX = 256, /* looked at for one page of a text                                */
    FORK_MIN = 8        /* fewer common places that are not computed yet are not waited for */
};

#define NONE OPD_PAGE_NONE

typedef struct page {
    int32_t tokens[OPD_KV_PAGE];
    uint32_t parent, first_child, next, previous; /* siblings */
    uint32_t older, newer;                        /* in the order of last use */
    uint32_t users;                               /* chains and forks */
    uint8_t count, filled;                        /* tokens; those computed */
    bool joining;                                 /* a fork will copy to it */
    uint64_t claimed;                             /* the step it is written in */
} page;

struct opd_pages {
    const opd_alloc *alloc;
    page *pages; /* [count] */
    size_t count;
    bool keep;
    uint32_t root;       /* first of the pages that begin a text */
    uint32_t free_first; /* stack */
    size_t free_count, kept_count;
    uint32_t oldest, newest;
    uint64_t step;
};

size_t opd_pages_of(size_t tokens) { return (tokens + OPD_KV_PAGE - 1) / OPD_KV_PAGE; }

static uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

static void make_free(opd_pages *p, uint32_t index) {
    p->pages[index] = (page){.next = p->free_first};
    p->free_first = index;
    p->free_count++;
}

void opd_pages_clear(opd_pages *p) {
    p->root = p->oldest = p->newest = p->free_first = NONE;
    p->free_count = p->kept_count = 0;
    for (size_t i = p->count; i > 0; i--) {
        OPD_ASSERT(p->pages[i - 1].users == 0);
        make_free(p, (uint32_t)(i - 1));
    }
}

opd_err opd_pages_create(size_t count, bool keep, const opd_alloc *alloc, opd_pages **out_pages) {
    OPD_ASSERT(count > 0 && count < NONE);
    opd_pages *p = opd_mem_get(alloc, sizeof *p);
    if (p == NULL) return opd_fail(OPD_ERR_NOMEM, "no memory for a prefix cache");
    *p = (opd_pages){.alloc = alloc, .count = count, .keep = keep};
    p->pages = opd_mem_get(alloc, count * sizeof *p->pages);
    if (p->pages == NULL) {
        opd_mem_free(alloc, p);
        return opd_fail(OPD_ERR_NOMEM, "no memory for a prefix cache of %zu pages", count);
    }
    opd_pages_clear(p);
    *out_pages = p;
    return OPD_OK;
}

void opd_pages_destroy(opd_pages *p) {
    if (p == NULL) return;
    opd_mem_free(p->alloc, p->pages);
    opd_mem_free(p->alloc, p);
}

/* ---- the lists ------------------------------------------------------------------------- */

static uint32_t *children_of(opd_pages *p, uint32_t parent) {
    return parent == NONE ? &p->root : &p->pages[parent].first_child;
}

static void sibling_put(opd_pages *p, uint32_t index) {
    page *it = &p->pages[index];
    uint32_t *first = children_of(p, it->parent);
    it->previous = NONE;
    it->next = *first;
    if (it->next != NONE) p->pages[it->next].previous = index;
    *first = index;
}

static void sibling_remove(opd_pages *p, uint32_t index) {
    const page *it = &p->pages[index];
    if (it->previous == NONE) *children_of(p, it->parent) = it->next;
    else p->pages[it->previous].next = it->next;
    if (it->next != NONE) p->pages[it->next].previous = it->previous;
}

/* Among the unused ones without a page after them: as the newest, or as the oldest. */
static void age_put(opd_pages *p, uint32_t index, bool as_newest) {
    page *it = &p->pages[index];
    it->older = as_newest ? p->newest : NONE;
    it->newer = as_newest ? NONE : p->oldest;
    if (it->older == NONE) p->oldest = index;
    else p->pages[it->older].newer = index;
    if (it->newer == NONE) p->newest = index;
    else p->pages[it->newer].older = index;
}

static void age_remove(opd_pages *p, uint32_t index) {
    const page *it = &p->pages[index];
    if (it->older == NONE) p->oldest = it->newer;
    else p->pages[it->older].newer = it->newer;
    if (it->newer == NONE) p->newest = it->older;
    else p->pages[it->newer].older = it->older;
}

static bool is_leaf(const page *it) { return it->first_child == NONE; }

/* ---- use ------------------------------------------------------------------------------- */

static void use(opd_pages *p, uint32_t index) {
    page *it = &p->pages[index];
    if (it->users++ > 0) return;
    p->kept_count--;
    if (is_leaf(it)) age_remove(p, index);
}

static void forget(opd_pages *p, uint32_t index) {
    sibling_remove(p, index);
    make_free(p, index);
}

/* The last use's end: what was not computed is gone. Ends come before beginnings. */
static void unuse(opd_pages *p, uint32_t index) {
    page *it = &p->pages[index];
    OPD_ASSERT(it->users > 0);
    if (--it->users > 0) return;
    if (!p->keep || it->filled == 0) {
        OPD_ASSERT(is_leaf(it));
        forget(p, index);
        return;
    }
    it->count = it->filled;
    p->kept_count++;
    if (is_leaf(it)) age_put(p, index, true);
}

/* A page for the tree, of the free ones or instead of the one that was not used for longest. */
static uint32_t get_page(opd_pages *p) {
    if (p->free_first == NONE) {
        uint32_t index = p->oldest, parent = p->pages[index].parent;
        age_remove(p, index);
        p->kept_count--;
        forget(p, index);
        if (parent != NONE && p->pages[parent].users == 0 && is_leaf(&p->pages[parent]))
            age_put(p, parent, false);
    }
    uint32_t index = p->free_first;
    p->free_first = p->pages[index].next;
    p->free_count--;
    return index;
}

/* ---- taking pages ---------------------------------------------------------------------- */

/* The page after `parent` that has most of the n tokens in common, an idle one before one in
 * use; NONE without any. */
static uint32_t find(opd_pages *p, uint32_t parent, const int32_t *tokens, uint32_t n,
                     uint32_t *out_common) {
    uint32_t best = NONE, most = 0, looked = 0;
    for (uint32_t i = *children_of(p, parent); i != NONE && looked < SIBLINGS_MAX;
         i = p->pages[i].next, looked++) {
        const page *it = &p->pages[i];
        uint32_t common = 0, end = least(it->count, n);
        while (common < end && it->tokens[common] == tokens[common]) common++;
        bool idle_end = common == it->count && it->users == 0;
        if (common > most || (common == most && common > 0 && common < n && idle_end)) {
            best = i;
            most = common;
        }
    }
    *out_common = most;
    return best;
}

/* How a text goes on after the pages that it shares. */
typedef struct ending {
    uint32_t shared;    /* pages that are shared, or continued in place */
    uint32_t continued; /* the last of them, which gets more tokens; NONE: none does */
    uint32_t fork_from, fork_count;
} ending;

/* Finds and uses the pages of a text that exist. */
static ending match(opd_pages *p, const int32_t *tokens, uint32_t length, uint32_t *pages) {
    ending end = {.continued = NONE, .fork_from = NONE};
    uint32_t parent = NONE;
    for (uint32_t at = 0; at < length && p->keep; at += OPD_KV_PAGE) {
        uint32_t want = least(length - at, OPD_KV_PAGE), common;
        uint32_t found = find(p, parent, tokens + at, want, &common);
        if (found == NONE) return end;
        page *it = &p->pages[found];
        bool continues = common == it->count && it->users == 0;
        bool waits = parent != NONE && p->pages[parent].filled < OPD_KV_PAGE; /* in any case */
        if (common < want && !continues && !waits && common < FORK_MIN && it->filled < common)
            common = it->filled;
        if (common == 0) return end;
        sibling_remove(p, found);
        sibling_put(p, found);
        use(p, found);
        if (common < want && !continues) {
            end.fork_from = found;
            end.fork_count = common;
            return end;
        }
        pages[end.shared++] = found;
        if (common < want) {
            end.continued = found;
            return end;
        }
        parent = found;
    }
    return end;
}

static uint32_t add_page(opd_pages *p, uint32_t parent, const int32_t *tokens, uint32_t n) {
    uint32_t index = get_page(p);
    page *it = &p->pages[index];
    *it = (page){.parent = parent, .first_child = NONE, .users = 1, .count = (uint8_t)n};
    memcpy(it->tokens, tokens, n * sizeof *tokens);
    sibling_put(p, index);
    return index;
}

static void begin_fork(opd_pages *p, opd_chain *chain, const ending *end) {
    chain->fork_at = end->shared;
    chain->fork_to = chain->pages[end->shared];
    chain->fork_count = end->fork_count;
    chain->pages[end->shared] = end->fork_from;
    p->pages[chain->fork_to].joining = true;
}

bool opd_pages_take(opd_pages *p, const int32_t *tokens, uint32_t length, opd_chain *chain) {
    OPD_ASSERT(length > 0);
    ending end = match(p, tokens, length, chain->pages);
    uint32_t total = (uint32_t)opd_pages_of(length), parent = NONE;
    if (total - end.shared > p->free_count + p->kept_count) {
        if (end.fork_from != NONE) unuse(p, end.fork_from);
        while (end.shared > 0) unuse(p, chain->pages[--end.shared]);
        return false;
    }
    if (end.continued != NONE) {
        page *it = &p->pages[end.continued];
        uint32_t at = (end.shared - 1) * OPD_KV_PAGE, want = least(length - at, OPD_KV_PAGE);
        memcpy(it->tokens + it->count, tokens + at + it->count,
               (want - it->count) * sizeof *tokens);
        it->count = (uint8_t)want;
    }
    if (end.shared > 0) parent = chain->pages[end.shared - 1];
    for (uint32_t i = end.shared; i < total; i++) {
        uint32_t at = i * OPD_KV_PAGE;
        parent = add_page(p, parent, tokens + at, least(length - at, OPD_KV_PAGE));
        chain->pages[i] = parent;
    }
    chain->length = length;
    chain->fork_to = NONE;
    if (end.fork_from != NONE) begin_fork(p, chain, &end);
    return true;
}

/* Ends a pending fork: the chain has its own page, the one it left is used once less. */
static void end_fork(opd_pages *p, opd_chain *chain) {
    uint32_t from = chain->pages[chain->fork_at];
    chain->pages[chain->fork_at] = chain->fork_to;
    p->pages[chain->fork_to].joining = false;
    chain->fork_to = NONE;
    unuse(p, from);
}

void opd_pages_release(opd_pages *p, opd_chain *chain) {
    if (chain->fork_to != NONE) end_fork(p, chain);
    for (size_t i = opd_pages_of(chain->length); i > 0; i--) unuse(p, chain->pages[i - 1]);
    chain->length = 0;
}

/* ---- steps ----------------------------------------------------------------------------- */

void opd_pages_step(opd_pages *p) { p->step++; }

bool opd_pages_join(opd_pages *p, opd_chain *chain, uint32_t *out_from, uint32_t *out_to) {
    if (chain->fork_to == NONE) return false;
    uint32_t from = chain->pages[chain->fork_at], to = chain->fork_to;
    if (p->pages[from].filled < chain->fork_count) return false;
    bool copy = p->pages[to].filled < chain->fork_count; /* others use it, too, and may be ahead */
    if (copy) p->pages[to].filled = (uint8_t)chain->fork_count;
    *out_from = from;
    *out_to = to;
    end_fork(p, chain);
    return copy;
}

/* Places of the chain's i-th page that are the chain's. */
static uint32_t places_of(const opd_chain *chain, uint32_t i) {
    if (chain->fork_to != NONE && i == chain->fork_at) return chain->fork_count;
    return least(chain->length - i * OPD_KV_PAGE, OPD_KV_PAGE);
}

uint32_t opd_pages_filled(const opd_pages *p, const opd_chain *chain, uint32_t from) {
    for (uint32_t i = from / OPD_KV_PAGE; i * OPD_KV_PAGE < chain->length; i++) {
        uint32_t filled = least(p->pages[chain->pages[i]].filled, places_of(chain, i));
        if (filled < OPD_KV_PAGE) return i * OPD_KV_PAGE + filled;
    }
    return chain->length;
}

uint32_t opd_pages_claim(opd_pages *p, const opd_chain *chain, uint32_t from, uint32_t most) {
    uint32_t n = 0;
    while (n < most && from + n < chain->length) {
        uint32_t i = (from + n) / OPD_KV_PAGE, place = (from + n) % OPD_KV_PAGE;
        uint32_t places = places_of(chain, i);
        page *it = &p->pages[chain->pages[i]];
        if (place >= places) return n; /* the fork comes first */
        uint32_t end = least(places, place + (most - n));
        bool busy = it->joining || it->claimed == p->step;
        if (end > it->filled && busy)
            return n + (it->filled > place ? it->filled - place : 0);
        if (end > it->filled) it->claimed = p->step;
        n += end - place;
    }
    return n;
}

void opd_pages_fill(opd_pages *p, const opd_chain *chain, uint32_t count) {
    for (uint32_t i = 0; i * OPD_KV_PAGE < count; i++) {
        page *it = &p->pages[chain->pages[i]];
        uint32_t filled = least(count - i * OPD_KV_PAGE, OPD_KV_PAGE);
        if (filled > it->filled) it->filled = (uint8_t)filled;
    }
}

opd_pages_state opd_pages_look(const opd_pages *p) {
    return (opd_pages_state){.used = p->count - p->free_count - p->kept_count,
                             .kept = p->kept_count, .free = p->free_count};
}
