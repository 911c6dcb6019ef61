/* test_pages.c - the tree of pages: what is shared, forked, continued, kept and thrown out, and
 * that a random life never breaks its books. */
#include "actors/scorer/pages.h"

#include "core/base/rng.h"
#include "kernels/kernels.h"
#include "tests/support/alloc_test.h"
#include "tests/support/test.h"

enum { PAGES = 8, ROOM = PAGES * OPD_KV_PAGE };

static opd_pages *tree_of(size_t count, bool keep) {
    opd_pages *p;
    CHECK_OK(opd_pages_create(count, keep, NULL, &p));
    return p;
}

/* A text: `common` tokens that all have, then its own. */
static void text_make(int32_t tokens[ROOM], uint32_t common, int32_t own) {
    for (uint32_t i = 0; i < ROOM; i++)
        tokens[i] = i < common ? (int32_t)i : own * 1000 + (int32_t)i;
}

static void check_state(const opd_pages *p, size_t used, size_t kept, size_t free) {
    opd_pages_state s = opd_pages_look(p);
    CHECK_INT(s.used, used);
    CHECK_INT(s.kept, kept);
    CHECK_INT(s.free, free);
}

/* Takes, computes all of and releases a text. */
static void read_all(opd_pages *p, const int32_t *tokens, uint32_t length) {
    uint32_t room[PAGES], from, to;
    opd_chain chain = {.pages = room};
    CHECK(opd_pages_take(p, tokens, length, &chain));
    for (uint32_t at = 0; at < length;) {
        opd_pages_step(p);
        (void)opd_pages_join(p, &chain, &from, &to);
        at = opd_pages_filled(p, &chain, 0);
        uint32_t n = opd_pages_claim(p, &chain, at, length);
        opd_pages_fill(p, &chain, at + n);
        at += n;
    }
    opd_pages_release(p, &chain);
}

TEST(the_same_text_takes_the_same_pages) {
    opd_pages *p = tree_of(PAGES, true);
    int32_t text[ROOM];
    uint32_t room[2][PAGES];
    opd_chain a = {.pages = room[0]}, b = {.pages = room[1]};
    text_make(text, ROOM, 0);
    CHECK(opd_pages_take(p, text, 70, &a));
    check_state(p, 3, 0, PAGES - 3);
    CHECK(opd_pages_take(p, text, 70, &b)); /* before anything is computed */
    check_state(p, 3, 0, PAGES - 3);
    CHECK(memcmp(room[0], room[1], 3 * sizeof(uint32_t)) == 0);
    opd_pages_step(p);
    CHECK_INT(opd_pages_claim(p, &a, 0, 40), 40);
    CHECK_INT(opd_pages_claim(p, &b, 0, 70), 0); /* it waits */
    opd_pages_fill(p, &a, 40);
    CHECK_INT(opd_pages_filled(p, &b, 0), 40);
    opd_pages_release(p, &a); /* who computed has gone: the other goes on */
    opd_pages_step(p);
    CHECK_INT(opd_pages_claim(p, &b, 40, 70), 30);
    opd_pages_fill(p, &b, 70);
    opd_pages_release(p, &b);
    check_state(p, 0, 3, PAGES - 3);
    opd_pages_destroy(p);
}

TEST(what_was_not_computed_is_forgotten) {
    opd_pages *p = tree_of(PAGES, true);
    int32_t text[ROOM];
    uint32_t room[PAGES];
    opd_chain a = {.pages = room};
    text_make(text, ROOM, 0);
    CHECK(opd_pages_take(p, text, 100, &a));
    opd_pages_step(p);
    CHECK_INT(opd_pages_claim(p, &a, 0, 40), 40);
    opd_pages_fill(p, &a, 40);
    opd_pages_release(p, &a);
    check_state(p, 0, 2, PAGES - 2);
    CHECK(opd_pages_take(p, text, 100, &a));
    CHECK_INT(opd_pages_filled(p, &a, 0), 40);
    check_state(p, 4, 0, PAGES - 4);
    opd_pages_release(p, &a);
    opd_pages_destroy(p);
}

TEST(a_fork_waits_for_the_common_places_and_copies_them) {
    opd_pages *p = tree_of(PAGES, true);
    int32_t x[ROOM], y[ROOM];
    uint32_t room[2][PAGES], from = 0, to = 0;
    opd_chain a = {.pages = room[0]}, b = {.pages = room[1]};
    text_make(x, 50, 1);
    text_make(y, 50, 2);
    CHECK(opd_pages_take(p, x, 60, &a));
    CHECK(opd_pages_take(p, y, 64, &b));
    check_state(p, 3, 0, PAGES - 3);
    CHECK_INT(room[1][0], room[0][0]);
    CHECK_INT(room[1][1], room[0][1]); /* until the fork is joined */
    CHECK_INT(b.fork_count, 18);
    opd_pages_step(p);
    CHECK(!opd_pages_join(p, &b, &from, &to));
    CHECK_INT(opd_pages_claim(p, &b, 0, 100), 50); /* whoever comes first computes it */
    CHECK_INT(opd_pages_claim(p, &a, 0, 100), 0);
    opd_pages_fill(p, &b, 50);
    opd_pages_step(p);
    CHECK(opd_pages_join(p, &b, &from, &to));
    CHECK_INT(from, room[0][1]);
    CHECK_INT(to, room[1][1]);
    CHECK(from != to);
    CHECK(!opd_pages_join(p, &b, &from, &to));
    CHECK_INT(opd_pages_filled(p, &a, 0), 50);
    CHECK_INT(opd_pages_filled(p, &b, 0), 50);
    CHECK_INT(opd_pages_claim(p, &a, 50, 100), 10);
    CHECK_INT(opd_pages_claim(p, &b, 50, 100), 14);
    opd_pages_fill(p, &a, 60);
    opd_pages_fill(p, &b, 64);
    opd_pages_release(p, &a);
    opd_pages_release(p, &b);
    check_state(p, 0, 3, PAGES - 3);
    opd_pages_destroy(p);
}

TEST(a_fork_whose_owner_goes_leaves_nothing_locked) {
    opd_pages *p = tree_of(PAGES, true);
    int32_t x[ROOM], y[ROOM];
    uint32_t room[3][PAGES];
    opd_chain a = {.pages = room[0]}, b = {.pages = room[1]}, c = {.pages = room[2]};
    text_make(x, 20, 1);
    text_make(y, 20, 2);
    CHECK(opd_pages_take(p, x, 30, &a));
    CHECK(opd_pages_take(p, y, 30, &b));
    CHECK(opd_pages_take(p, y, 30, &c)); /* shares the page that b's fork will copy to */
    opd_pages_step(p);
    CHECK_INT(opd_pages_claim(p, &c, 0, 30), 0);
    opd_pages_release(p, &a);
    opd_pages_release(p, &b);
    opd_pages_step(p);
    CHECK_INT(opd_pages_claim(p, &c, 0, 30), 30);
    opd_pages_fill(p, &c, 30);
    opd_pages_release(p, &c);
    check_state(p, 0, 1, PAGES - 1);
    opd_pages_destroy(p);
}

TEST(an_idle_end_is_continued_in_place) {
    opd_pages *p = tree_of(PAGES, true);
    int32_t text[ROOM];
    uint32_t room[2][PAGES];
    opd_chain a = {.pages = room[0]}, b = {.pages = room[1]};
    text_make(text, ROOM, 0);
    read_all(p, text, 10);
    CHECK(opd_pages_take(p, text, 40, &a));
    CHECK_INT(opd_pages_filled(p, &a, 0), 10);
    CHECK(a.fork_to == OPD_PAGE_NONE);
    check_state(p, 2, 0, PAGES - 2);
    CHECK(opd_pages_take(p, text, 70, &b)); /* the end is in use now: a page of its own */
    check_state(p, 4, 0, PAGES - 4);
    CHECK(b.fork_to != OPD_PAGE_NONE);
    opd_pages_release(p, &a);
    opd_pages_release(p, &b);
    opd_pages_destroy(p);
}

TEST(few_common_places_are_not_waited_for) {
    opd_pages *p = tree_of(PAGES, true);
    int32_t x[ROOM], y[ROOM];
    uint32_t room[2][PAGES], from, to;
    opd_chain a = {.pages = room[0]}, b = {.pages = room[1]};
    text_make(x, 2, 1);
    text_make(y, 2, 2);
    CHECK(opd_pages_take(p, x, 30, &a));
    CHECK(opd_pages_take(p, y, 30, &b));
    opd_pages_step(p);
    CHECK_INT(opd_pages_claim(p, &a, 0, 30), 30);
    CHECK_INT(opd_pages_claim(p, &b, 0, 30), 30);
    opd_pages_release(p, &b);
    opd_pages_fill(p, &a, 30);
    CHECK(opd_pages_take(p, y, 30, &b)); /* but those that are there are taken */
    opd_pages_step(p);
    CHECK(opd_pages_join(p, &b, &from, &to));
    CHECK_INT(opd_pages_filled(p, &b, 0), 2);
    opd_pages_release(p, &a);
    opd_pages_release(p, &b);
    opd_pages_destroy(p);
}

/* Room for eight pages: the text that was not used for longest goes, its end first. */
TEST(the_least_recently_used_goes_first) {
    opd_pages *p = tree_of(PAGES, true);
    int32_t text[3][ROOM];
    uint32_t room[PAGES];
    opd_chain a = {.pages = room};
    for (int i = 0; i < 3; i++) text_make(text[i], 0, i + 1);
    read_all(p, text[0], 4 * OPD_KV_PAGE);
    read_all(p, text[1], 4 * OPD_KV_PAGE);
    read_all(p, text[0], 4 * OPD_KV_PAGE); /* used again */
    check_state(p, 0, 8, 0);
    read_all(p, text[2], 2 * OPD_KV_PAGE);
    check_state(p, 0, 8, 0);
    CHECK(opd_pages_take(p, text[0], 4 * OPD_KV_PAGE, &a));
    CHECK_INT(opd_pages_filled(p, &a, 0), 4 * OPD_KV_PAGE);
    opd_pages_release(p, &a);
    CHECK(opd_pages_take(p, text[1], 2 * OPD_KV_PAGE, &a));
    CHECK_INT(opd_pages_filled(p, &a, 0), 2 * OPD_KV_PAGE); /* its beginning is still there */
    opd_pages_release(p, &a);
    opd_pages_destroy(p);
}

TEST(without_room_nothing_changes) {
    opd_pages *p = tree_of(4, true);
    int32_t x[ROOM], y[ROOM];
    uint32_t room[2][PAGES];
    opd_chain a = {.pages = room[0]}, b = {.pages = room[1]};
    text_make(x, 40, 1);
    text_make(y, 40, 2);
    read_all(p, x, 40);
    CHECK(opd_pages_take(p, x, 70, &a));
    CHECK(!opd_pages_take(p, y, 100, &b));
    check_state(p, 3, 0, 1);
    CHECK(opd_pages_take(p, y, 60, &b));
    check_state(p, 4, 0, 0);
    opd_pages_release(p, &a);
    opd_pages_release(p, &b);
    CHECK(opd_pages_take(p, y, 4 * OPD_KV_PAGE, &b)); /* as long as all there is */
    opd_pages_release(p, &b);
    opd_pages_destroy(p);
}

TEST(without_keeping_nothing_is_shared) {
    opd_pages *p = tree_of(PAGES, false);
    int32_t text[ROOM];
    uint32_t room[2][PAGES];
    opd_chain a = {.pages = room[0]}, b = {.pages = room[1]};
    text_make(text, ROOM, 0);
    read_all(p, text, 70);
    check_state(p, 0, 0, PAGES);
    CHECK(opd_pages_take(p, text, 70, &a));
    CHECK(opd_pages_take(p, text, 70, &b));
    check_state(p, 6, 0, 2);
    CHECK_INT(opd_pages_filled(p, &a, 0), 0);
    opd_pages_release(p, &a);
    opd_pages_release(p, &b);
    check_state(p, 0, 0, PAGES);
    opd_pages_destroy(p);
}

/* ---- a random life, against a model of what each page holds ---------------------------- */

enum { CHAINS = 6, COUNT = 24, LONG = 5 * OPD_KV_PAGE };

typedef struct life {
    opd_pages *pages;
    uint64_t seed;
    opd_chain chains[CHAINS];
    uint32_t room[CHAINS][PAGES], at[CHAINS];
    int32_t texts[CHAINS][LONG];
    int32_t held[COUNT][OPD_KV_PAGE]; /* what was computed, as a digest of the text so far */
} life;

static uint64_t draw(life *l, uint64_t below) { return opd_rng_at(l->seed++, 5, 0, 0) % below; }

static int32_t digest(const int32_t *text, uint32_t length) {
    uint64_t d = 7;
    for (uint32_t i = 0; i < length; i++) d = opd_rng_at(d, (uint64_t)text[i], 0, 0);
    return (int32_t)(d >> 33);
}

/* What the pages hold of the chain's first `count` places is of the chain's text. */
static void check_held(const life *l, int c, uint32_t count) {
    for (uint32_t i = 0; i < count; i++)
        CHECK_INT(l->held[l->room[c][i / OPD_KV_PAGE]][i % OPD_KV_PAGE], digest(l->texts[c], i + 1));
}

static void begin(life *l, int c) {
    int32_t *text = l->texts[c];
    uint32_t length = 1 + (uint32_t)draw(l, LONG);
    uint64_t family = draw(l, 3), leaves = draw(l, LONG), own = draw(l, 4);
    for (uint32_t i = 0; i < LONG; i++)
        text[i] = (int32_t)(i < leaves ? family * 1000 + i : 5000 + own * 1000 + i);
    l->chains[c].pages = l->room[c];
    l->at[c] = 0;
    if (!opd_pages_take(l->pages, text, length, &l->chains[c])) l->chains[c].length = 0;
}

static void step(life *l) {
    uint32_t from, to, n[CHAINS] = {0};
    opd_pages_step(l->pages);
    for (int c = 0; c < CHAINS; c++)
        if (l->chains[c].length > 0 && opd_pages_join(l->pages, &l->chains[c], &from, &to))
            memcpy(l->held[to], l->held[from], sizeof l->held[to]);
    for (int c = 0; c < CHAINS; c++) {
        if (l->chains[c].length == 0) continue;
        uint32_t filled = opd_pages_filled(l->pages, &l->chains[c], 0);
        check_held(l, c, filled);
        if (filled > l->at[c] && draw(l, 2)) l->at[c] = filled;
        if (draw(l, 4) == 0) continue;
        n[c] = opd_pages_claim(l->pages, &l->chains[c], l->at[c], 1 + (uint32_t)draw(l, 60));
        CHECK(l->at[c] + n[c] <= l->chains[c].length);
    }
    for (int c = 0; c < CHAINS; c++) /* all at once, each in its own pages */
        for (uint32_t i = l->at[c]; i < l->at[c] + n[c]; i++)
            l->held[l->room[c][i / OPD_KV_PAGE]][i % OPD_KV_PAGE] = digest(l->texts[c], i + 1);
    for (int c = 0; c < CHAINS; c++) {
        if (l->chains[c].length == 0 || n[c] == 0) continue;
        l->at[c] += n[c];
        opd_pages_fill(l->pages, &l->chains[c], l->at[c]);
    }
}

TEST(a_random_life_keeps_its_books) {
    static life l;
    for (uint64_t round = 0; round < 20; round++) {
        l = (life){.pages = tree_of(COUNT, true), .seed = round * 100000};
        for (int i = 0; i < 400; i++) {
            int c = (int)draw(&l, CHAINS);
            bool done = l.chains[c].length > 0 && l.at[c] == l.chains[c].length;
            if (l.chains[c].length == 0) begin(&l, c);
            else if (done || draw(&l, 12) == 0) opd_pages_release(l.pages, &l.chains[c]);
            step(&l);
            opd_pages_state s = opd_pages_look(l.pages);
            CHECK_INT(s.used + s.kept + s.free, COUNT);
        }
        for (int c = 0; c < CHAINS; c++)
            if (l.chains[c].length > 0) opd_pages_release(l.pages, &l.chains[c]);
        CHECK_INT(opd_pages_look(l.pages).used, 0);
        opd_pages_clear(l.pages);
        CHECK_INT(opd_pages_look(l.pages).free, COUNT);
        opd_pages_destroy(l.pages);
    }
}
