/* test_panel_route.c - who is asked after whom. */
#include "actors/panel/route.h"
#include "tests/support/test.h"

/* Teachers 0, 1, 2 with these fallbacks; NOBODY: none. */
static opd_chains chains_of(int a, int b, int c) {
    return (opd_chains){.count = 3, .fallback = {(int8_t)a, (int8_t)b, (int8_t)c}};
}

enum { N = OPD_ROUTE_NOBODY };

TEST(one_alone_is_waited_for_at_once) {
    opd_chains chains = chains_of(N, N, N);
    opd_rungs rungs;
    opd_rungs_init(&rungs, &chains, 1);
    CHECK_INT(rungs.at, 1);
    CHECK(rungs.waits);
    CHECK_INT(opd_rungs_next(&rungs, &chains, true), N);
}

TEST(each_once_then_the_first_that_is_away) {
    opd_chains chains = chains_of(1, 2, N);
    opd_rungs rungs;
    opd_rungs_init(&rungs, &chains, 0);
    CHECK(!rungs.waits);
    CHECK_INT(opd_rungs_next(&rungs, &chains, true), 1);
    CHECK(!rungs.waits);
    CHECK_INT(opd_rungs_next(&rungs, &chains, true), 2);
    CHECK(!rungs.waits);
    CHECK_INT(opd_rungs_next(&rungs, &chains, false), 0);
    CHECK(rungs.waits);
    CHECK_INT(opd_rungs_next(&rungs, &chains, false), N);
}

/* Who answered without a score has had its retries. */
TEST(who_was_there_is_not_waited_for) {
    opd_chains chains = chains_of(1, 2, N);
    opd_rungs rungs;
    opd_rungs_init(&rungs, &chains, 0);
    CHECK_INT(opd_rungs_next(&rungs, &chains, false), 1);
    CHECK_INT(opd_rungs_next(&rungs, &chains, true), 2);
    CHECK_INT(opd_rungs_next(&rungs, &chains, false), 1);
    CHECK(rungs.waits);
    opd_rungs_init(&rungs, &chains, 0);
    for (int i = 1; i < 3; i++) CHECK_INT(opd_rungs_next(&rungs, &chains, false), i);
    CHECK_INT(opd_rungs_next(&rungs, &chains, false), N);
}

TEST(a_circle_ends) {
    opd_chains chains = chains_of(1, 0, N);
    opd_rungs rungs;
    opd_rungs_init(&rungs, &chains, 0);
    CHECK_INT(opd_rungs_next(&rungs, &chains, true), 1);
    CHECK_INT(opd_rungs_next(&rungs, &chains, true), 0);
    CHECK(rungs.waits);
    CHECK_INT(opd_rungs_next(&rungs, &chains, true), N);
    /* entered from outside: 2 -> 0 -> 1 -> 0 */
    chains = chains_of(1, 0, 0);
    opd_rungs_init(&rungs, &chains, 2);
    CHECK_INT(opd_rungs_next(&rungs, &chains, false), 0);
    CHECK_INT(opd_rungs_next(&rungs, &chains, false), 1);
    CHECK_INT(opd_rungs_next(&rungs, &chains, true), 1);
    CHECK(rungs.waits);
}

static bool down(opd_presence state) { return state == OPD_PRESENCE_DOWN; }

TEST(a_chain_is_down_when_all_of_it_is) {
    opd_chains chains = chains_of(1, 0, 1);
    opd_presence states[OPD_CONFIG_TEACHERS_MAX] = {OPD_PRESENCE_DOWN, OPD_PRESENCE_DOWN, OPD_PRESENCE_UP};
    CHECK(opd_chain_all(&chains, 0, states, down));
    CHECK(opd_chain_all(&chains, 1, states, down));
    CHECK(!opd_chain_all(&chains, 2, states, down));
    states[1] = OPD_PRESENCE_STARTING;
    CHECK(!opd_chain_all(&chains, 0, states, down));
}
