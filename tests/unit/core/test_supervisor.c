/* test_supervisor.c - what is restarted, in which order, after which pause, and what goes up.
 * The diary's signs are those of supervisor_rig.h. Time is virtual. */
#include "tests/unit/core/supervisor_rig.h"

enum { SEEDS = 25 }; /* orders of who runs next, where more than one would be right */

#define THREE                                                                          \
    child_plan a = {.name = "a"}, b = {.name = "b"}, c = {.name = "c"};                 \
    opd_child_spec specs[] = {planned(&a), planned(&b), planned(&c)};                   \
    opd_supervisor_options o = {.name = "top", .children = specs, .child_count = 3}

/* ---- strategies ------------------------------------------------------------------------ */

TEST(one_for_one_restarts_the_one_that_failed) {
    rig r;
    rig_up(&r, 1);
    THREE;
    CHECK_OK(PLAY(&r, &o, {1, "b", DO_FAIL}, {10, "a", DO_FAIL}, {20, NULL, 0}));
    CHECK_STR(r.diary, "+a +b +c -b +b -a +a !c -c !b -b !a -a ");
    CHECK_INT(r.reports, 2);
    rig_down(&r);
}

TEST(rest_for_one_restarts_those_after_it_too) {
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        rig r;
        rig_up(&r, seed);
        THREE;
        o.strategy = OPD_STRATEGY_REST_FOR_ONE;
        CHECK_OK(PLAY(&r, &o, {1, "b", DO_FAIL}, {10, "c", DO_FAIL}, {20, NULL, 0}));
        CHECK_STR(r.diary, "+a +b +c -b !c -c +b +c -c +c !c -c !b -b !a -a ");
        rig_down(&r);
    }
}

TEST(one_for_all_restarts_all_in_order) {
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        rig r;
        rig_up(&r, seed);
        THREE;
        o.strategy = OPD_STRATEGY_ONE_FOR_ALL;
        CHECK_OK(PLAY(&r, &o, {1, "b", DO_FAIL}, {20, NULL, 0}));
        CHECK_STR(r.diary, "+a +b +c -b !c -c !a -a +a +b +c !c -c !b -b !a -a ");
        CHECK_INT(r.reports, 1);
        rig_down(&r);
    }
}

/* The pause is one for the range; a failure before the range widens it. */
TEST(rest_for_one_widens_when_an_earlier_child_fails_meanwhile) {
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        rig r;
        rig_up(&r, seed);
        THREE;
        o.strategy = OPD_STRATEGY_REST_FOR_ONE;
        for (int i = 0; i < 3; i++) specs[i].backoff = (opd_backoff){.base_ms = 10};
        CHECK_OK(PLAY(&r, &o, {1, "b", DO_FAIL}, {5, "a", DO_FAIL}, {30, NULL, 0}));
        CHECK_STR(r.diary, "+a +b +c -b !c -c -a +a +b +c !c -c !b -b !a -a ");
        CHECK_INT(r.reports, 2);
        rig_down(&r);
    }
}

TEST(one_for_one_pauses_are_each_childs_own) {
    rig r;
    rig_up(&r, 1);
    THREE;
    specs[0].backoff = (opd_backoff){.base_ms = 20};
    CHECK_OK(PLAY(&r, &o, {1, "a", DO_FAIL}, {2, "b", DO_FAIL}, {40, NULL, 0}));
    CHECK_STR(r.diary, "+a +b +c -a -b +b +a !c -c !b -b !a -a ");
    rig_down(&r);
}

/* A pause of 2^58 ms, whose nanoseconds are 0 in 64 bits, is a long one. */
TEST(a_pause_longer_than_any_clock_is_no_short_one) {
    rig r;
    rig_up(&r, 1);
    THREE;
    o.period_ms = UINT64_MAX;
    specs[0].backoff = (opd_backoff){.base_ms = UINT64_C(1) << 58, .max_ms = UINT64_MAX};
    specs[1].backoff = (opd_backoff){.base_ms = UINT64_C(1) << 63, .max_ms = UINT64_MAX,
                                     .jitter = 0.01};
    CHECK_OK(PLAY(&r, &o, {1, "a", DO_FAIL}, {2, "b", DO_FAIL}, {1000, NULL, 0}));
    CHECK_STR(r.diary, "+a +b +c -a -b !c -c ");
    CHECK(r.delays_ms[0] > UINT64_C(1) << 43 && r.delays_ms[1] > UINT64_C(1) << 43);
    rig_down(&r);
}

/* ---- restart kinds --------------------------------------------------------------------- */

static void end_each(opd_restart kind, uint16_t what, const char *diary) {
    rig r;
    rig_up(&r, 1);
    child_plan a = {.name = "a"}, other = {.name = "o"};
    opd_child_spec specs[] = {planned(&a), planned(&other)};
    opd_supervisor_options o = {.name = "top", .children = specs, .child_count = 2};
    specs[0].restart = kind;
    CHECK_OK(PLAY(&r, &o, {1, "a", what}, {10, NULL, 0}));
    CHECK_STR(r.diary, diary);
    rig_down(&r);
}

TEST(permanent_children_are_restarted_whenever_they_end) {
    end_each(OPD_RESTART_PERMANENT, DO_FAIL, "+a +o -a +a !o -o !a -a ");
    end_each(OPD_RESTART_PERMANENT, DO_END, "+a +o -a +a !o -o !a -a ");
    end_each(OPD_RESTART_PERMANENT, DO_STOP, "+a +o !a -a +a !o -o !a -a ");
}

TEST(transient_children_are_restarted_when_they_fail) {
    end_each(OPD_RESTART_TRANSIENT, DO_FAIL, "+a +o -a +a !o -o !a -a ");
    end_each(OPD_RESTART_TRANSIENT, DO_END, "+a +o -a !o -o ");
}

TEST(temporary_children_are_never_restarted) {
    end_each(OPD_RESTART_TEMPORARY, DO_FAIL, "+a +o -a !o -o ");
    end_each(OPD_RESTART_TEMPORARY, DO_FATAL, "+a +o -a !o -o ");
    end_each(OPD_RESTART_TEMPORARY, DO_END, "+a +o -a !o -o ");
}

TEST(in_a_restart_of_all_temporary_ones_stay_down_and_transient_ones_come_back) {
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        rig r;
        rig_up(&r, seed);
        THREE;
        o.strategy = OPD_STRATEGY_ONE_FOR_ALL;
        specs[0].restart = OPD_RESTART_TEMPORARY;
        specs[1].restart = OPD_RESTART_TRANSIENT;
        CHECK_OK(PLAY(&r, &o, {1, "c", DO_FAIL}, {10, NULL, 0}));
        CHECK_STR(r.diary, "+a +b +c -c !b -b !a -a +b +c !c -c !b -b ");
        rig_down(&r);
    }
}

TEST(a_supervisor_whose_children_are_all_done_ends) {
    rig r;
    rig_up(&r, 1);
    THREE;
    for (int i = 0; i < 3; i++) specs[i].restart = OPD_RESTART_TRANSIENT;
    r.script = (const step[]){{1, "b", DO_END}, {2, "c", DO_END}, {3, "a", DO_END}};
    r.steps = 3;
    opd_pid driver_pid, top;
    CHECK_OK(opd_supervisor_start(r.t.system, &o, &top));
    CHECK_OK(opd_spawn(r.t.system, &driver_class, NULL, NULL, &driver_pid));
    opd_system_begin(r.t.system);
    CHECK_OK(opd_sim_run(r.sim, opd_sim_now_ns(r.sim) + 10 * MS, NULL, NULL));
    CHECK(!opd_alive(r.t.system, top) && opd_alive(r.t.system, driver_pid));
    CHECK_STR(r.diary, "+a +b +c -b -c -a ");
    CHECK_OK(opd_system_end(r.t.system));
    rig_down(&r);
}

/* ---- intensity ------------------------------------------------------------------------- */

TEST(too_many_failures_in_a_period_stop_the_system_and_name_the_chain) {
    rig r;
    rig_up(&r, 1);
    THREE;
    CHECK_ERR(PLAY(&r, &o, {1000, "b", DO_FAIL}, {2000, "a", DO_FAIL}, {3000, "b", DO_FAIL},
                   {29000, "c", DO_FAIL}),
              OPD_ERR_IO);
    CHECK_STR(opd_err_context(), "top > c failed 4 times within 30 s: c broke");
    CHECK_STR(r.diary, "+a +b +c -b +b -a +a -b +b -c !b -b !a -a ");
    CHECK_INT(r.reports, 3);
    CHECK_INT(r.last.failures, 3);
    CHECK_INT(r.last.restarts_max, 3);
    CHECK_INT(r.last.period_ms, 30000);
    CHECK_INT(r.last.total, 3);
    CHECK_INT(r.last.reason, OPD_ERR_IO);
    CHECK_STR(r.last_child, "b");
    CHECK_STR(r.last_text, "b broke");
    rig_down(&r);
}

TEST(failures_further_apart_than_the_period_are_cured_for_ever) {
    rig r;
    rig_up(&r, 1);
    THREE;
    o.restarts_max = 2;
    o.period_ms = 100;
    CHECK_OK(PLAY(&r, &o, {10, "a", DO_FAIL}, {70, "a", DO_FAIL}, {130, "a", DO_FAIL},
                  {190, "a", DO_FAIL}, {250, "a", DO_FAIL}, {310, NULL, 0}));
    CHECK_INT(a.starts, 6);
    CHECK_INT(r.last.total, 5);
    CHECK_INT(r.last.failures, 2);
    rig_down(&r);
}

TEST(without_restarts_the_first_failure_goes_up) {
    rig r;
    rig_up(&r, 1);
    THREE;
    o.restarts_max = OPD_SUPERVISOR_NO_RESTARTS;
    CHECK_ERR(PLAY(&r, &o, {1, "b", DO_FAIL}), OPD_ERR_IO);
    CHECK_STR(opd_err_context(), "b broke");
    CHECK_STR(r.diary, "+a +b +c -b !c -c !a -a ");
    CHECK_INT(r.reports, 0);
    rig_down(&r);
}

TEST(a_permanent_child_that_ends_too_often_is_a_failure) {
    rig r;
    rig_up(&r, 1);
    THREE;
    o.restarts_max = 1;
    CHECK_ERR(PLAY(&r, &o, {1, "b", DO_END}, {5, "b", DO_END}), OPD_ERR_CLOSED);
    CHECK_CONTAINS(opd_err_context(), "top > b ended 2 times within 30 s");
    rig_down(&r);
}

/* ---- errors that no restart cures ------------------------------------------------------ */

TEST(usage_and_fatal_errors_go_up_at_once_unchanged) {
    const struct { uint16_t what; opd_err err; const char *text; } cases[] = {
        {DO_USAGE, OPD_ERR_MISMATCH, "b has other ids"},
        {DO_FATAL, OPD_ERR_TEACHER_LOST, "b is lost"}};
    for (size_t i = 0; i < OPD_COUNTOF(cases); i++) {
        rig r;
        rig_up(&r, 1);
        THREE;
        opd_supervisor_options outer = {.name = "outer", .child_count = 1,
                                        .children = (opd_child_spec[]){subtree("inner", &o)}};
        CHECK_ERR(PLAY(&r, &outer, {1, "b", cases[i].what}), cases[i].err);
        CHECK_STR(opd_err_context(), cases[i].text);
        CHECK_STR(r.diary, "+a +b +c -b !c -c !a -a ");
        CHECK_INT(r.reports, 0);
        rig_down(&r);
    }
}

/* ---- backoff --------------------------------------------------------------------------- */

TEST(pauses_double_up_to_a_maximum_and_begin_anew_after_a_good_period) {
    rig r;
    rig_up(&r, 1);
    THREE;
    specs[1].backoff = (opd_backoff){.base_ms = 10, .max_ms = 50};
    o.restarts_max = 8;
    o.period_ms = 1000;
    CHECK_OK(PLAY(&r, &o, {100, "b", DO_FAIL}, {200, "b", DO_FAIL}, {300, "b", DO_FAIL},
                  {400, "b", DO_FAIL}, {500, "b", DO_FAIL}, {550, "c", DO_FAIL},
                  {2000, "b", DO_FAIL}, {2100, NULL, 0}));
    const uint64_t expected[] = {10, 20, 40, 50, 50, 1, 10};
    CHECK_INT(r.reports, OPD_COUNTOF(expected));
    for (size_t i = 0; i < r.reports; i++) CHECK_INT(r.delays_ms[i], expected[i]);
    rig_down(&r);
}

/* "+b" of the restart is in the diary from its pause on, and not before. */
TEST(the_pause_is_kept) {
    for (uint64_t wait = 0; wait < 2; wait++) {
        rig r;
        rig_up(&r, 1);
        THREE;
        specs[1].backoff = (opd_backoff){.base_ms = 500};
        CHECK_OK(PLAY(&r, &o, {10, "b", DO_FAIL}, {wait ? 511 : 509, NULL, 0}));
        CHECK_INT(b.starts, wait ? 2 : 1);
        rig_down(&r);
    }
}

TEST(jitter_takes_a_random_share_off) {
    rig r;
    rig_up(&r, 7);
    THREE;
    specs[0].backoff = (opd_backoff){.base_ms = 1000, .max_ms = 1000, .jitter = 0.5};
    o.restarts_max = 20;
    CHECK_OK(PLAY(&r, &o, {1000, "a", DO_FAIL}, {3000, "a", DO_FAIL}, {5000, "a", DO_FAIL},
                  {7000, "a", DO_FAIL}, {9000, "a", DO_FAIL}, {11000, NULL, 0}));
    bool differ = false;
    for (size_t i = 0; i < r.reports; i++) {
        CHECK(r.delays_ms[i] >= 500 && r.delays_ms[i] <= 1000);
        differ = differ || r.delays_ms[i] != r.delays_ms[0];
    }
    CHECK_INT(r.reports, 5);
    CHECK(differ);
    rig_down(&r);
}

/* ---- failing starts -------------------------------------------------------------------- */

TEST(a_first_start_that_fails_ends_those_before_and_is_the_callers_error) {
    rig r;
    rig_up(&r, 1);
    THREE;
    opd_pid top;
    c.bad_start = OPD_ERR_CONFIG;
    CHECK_ERR(opd_supervisor_start(r.t.system, &o, &top), OPD_ERR_CONFIG);
    CHECK_STR(opd_err_context(), "c cannot start");
    CHECK_STR(r.diary, "+a +b xc -b -a ");
    CHECK_INT(opd_system_stats_get(r.t.system).actors, 0);
    rig_down(&r);
}

TEST(a_restart_that_fails_counts_as_a_failure_and_is_tried_again) {
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        rig r;
        rig_up(&r, seed);
        THREE;
        o.strategy = OPD_STRATEGY_ONE_FOR_ALL;
        b.bad_restarts = 2;
        CHECK_OK(PLAY(&r, &o, {1, "c", DO_FAIL}, {40, NULL, 0}));
        CHECK_STR(r.diary, "+a +b +c -c !b -b !a -a +a xb !a -a +a xb !a -a +a +b +c "
                           "!c -c !b -b !a -a ");
        CHECK_INT(r.reports, 3);
        CHECK_STR(r.last_text, "b cannot start");
        rig_down(&r);
    }
}

TEST(restarts_that_always_fail_go_up) {
    rig r;
    rig_up(&r, 1);
    THREE;
    b.bad_restarts = 100;
    CHECK_ERR(PLAY(&r, &o, {1, "b", DO_FAIL}), OPD_ERR_IO);
    CHECK_STR(opd_err_context(), "top > b failed 4 times within 30 s: b cannot start");
    CHECK_INT(b.starts, 4);
    CHECK_STR(r.diary, "+a +b +c -b xb xb xb !c -c !a -a ");
    rig_down(&r);
}

/* ---- trees ----------------------------------------------------------------------------- */

TEST(a_failure_goes_up_until_somebody_cures_it) {
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        rig r;
        rig_up(&r, seed);
        THREE;
        o.restarts_max = 1;
        child_plan before = {.name = "before"}, after = {.name = "after"};
        opd_child_spec outer_specs[] = {planned(&before), subtree("inner", &o), planned(&after)};
        opd_supervisor_options outer = {.name = "outer", .children = outer_specs, .child_count = 3,
                                        .strategy = OPD_STRATEGY_REST_FOR_ONE};
        CHECK_OK(PLAY(&r, &outer, {1, "b", DO_FAIL}, {10, "b", DO_FAIL}, {30, "b", DO_FAIL},
                      {50, NULL, 0}));
        CHECK_STR(r.diary, "+before +a +b +c +after -b +b -b !c -c !a -a !after -after "
                           "+a +b +c +after -b +b !after -after !c -c !b -b !a -a !before -before ");
        CHECK_INT(r.reports, 1); /* the outer one's: the inner one has another table */
        CHECK_STR(r.last_text, "top > b failed 2 times within 30 s: b broke");
        rig_down(&r);
    }
}

/* A supervisor's own start fails when it is restarted: one more failure of that child. */
TEST(a_subtree_that_cannot_start_again_is_tried_again) {
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        rig r;
        rig_up(&r, seed);
        THREE;
        o.restarts_max = OPD_SUPERVISOR_NO_RESTARTS;
        c.bad_restarts = 2;
        opd_supervisor_options outer = {.name = "outer", .child_count = 1,
                                        .children = (opd_child_spec[]){subtree("inner", &o)}};
        CHECK_OK(PLAY(&r, &outer, {1, "b", DO_FAIL}, {50, NULL, 0}));
        CHECK_STR(r.diary, "+a +b +c -b !c -c !a -a +a +b xc -b -a +a +b xc -b -a +a +b +c "
                           "!c -c !b -b !a -a ");
        CHECK_INT(r.reports, 3);
        CHECK_STR(r.last_text, "c cannot start");
        rig_down(&r);
    }
}

TEST(the_chain_names_every_supervisor) {
    rig r;
    rig_up(&r, 1);
    THREE;
    o.restarts_max = 1;
    opd_supervisor_options middle = {.name = "middle", .child_count = 1,
                                     .children = (opd_child_spec[]){subtree("low", &o)},
                                     .restarts_max = OPD_SUPERVISOR_NO_RESTARTS};
    opd_supervisor_options outer = {.name = "outer", .child_count = 1,
                                    .children = (opd_child_spec[]){subtree("mid", &middle)},
                                    .restarts_max = OPD_SUPERVISOR_NO_RESTARTS};
    CHECK_ERR(PLAY(&r, &outer, {1, "c", DO_FAIL}, {10, "c", DO_FAIL}), OPD_ERR_IO);
    CHECK_STR(opd_err_context(), "outer > middle > top > c failed 2 times within 30 s: c broke");
    rig_down(&r);
}

/* ---- stopping -------------------------------------------------------------------------- */

/* Restarted actors are the newest of the system, and still stopped in the order of the table,
 * which actors outside of the tree do not disturb. */
TEST(the_systems_stop_goes_through_the_tree_in_reverse_of_the_table) {
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        rig r;
        rig_up(&r, seed);
        child_plan before = {.name = "before"}, after = {.name = "after", .stop_ms = 3};
        child_plan x = {.name = "x", .stop_ms = 2}, y = {.name = "y"};
        opd_child_spec inner_specs[] = {planned(&x), planned(&y)};
        opd_supervisor_options inner = {.name = "inner", .children = inner_specs, .child_count = 2};
        opd_child_spec specs[] = {planned(&before), subtree("inner", &inner), planned(&after)};
        opd_supervisor_options o = {.name = "top", .children = specs, .child_count = 3};
        CHECK_OK(PLAY(&r, &o, {1, "before", DO_FAIL}, {10, "x", DO_FAIL}, {20, NULL, 0}));
        CHECK_STR(r.diary, "+before +x +y +after -before +before -x +x "
                           "!after -after !y -y !x -x !before -before ");
        rig_down(&r);
    }
}

TEST(a_child_later_than_its_own_limit_is_ended_by_force) {
    rig r;
    rig_up(&r, 1);
    THREE;
    b.stop_ms = 1000000;
    specs[1].stop_timeout_ms = 20;
    uint64_t began_ns = opd_sim_now_ns(r.sim);
    CHECK_OK(PLAY(&r, &o, {1, NULL, 0}));
    CHECK_STR(r.diary, "+a +b +c !c -c !b -b !a -a ");
    CHECK(opd_sim_now_ns(r.sim) - began_ns < 100 * MS);
    rig_down(&r);
}

/* The whole tree may take longer than the limit of one actor. */
TEST(a_supervisor_has_no_limit_of_its_own) {
    rig r;
    rig_up(&r, 1);
    THREE;
    a.stop_ms = b.stop_ms = c.stop_ms = 3000; /* the system's limit is 5,000 */
    CHECK_OK(PLAY(&r, &o, {1, NULL, 0}));
    CHECK_STR(r.diary, "+a +b +c !c -c !b -b !a -a ");
    CHECK(opd_sim_now_ns(r.sim) > 9000 * MS);
    rig_down(&r);
}

TEST(nothing_is_restarted_while_the_system_stops) {
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        rig r;
        rig_up(&r, seed);
        THREE;
        specs[0].backoff = (opd_backoff){.base_ms = 10};
        c.stop_ms = 50; /* meanwhile a's pause ends and b fails */
        CHECK_OK(PLAY(&r, &o, {10, "a", DO_FAIL}, {15, NULL, 0}, {25, "b", DO_FAIL}));
        CHECK_STR(r.diary, "+a +b +c -a !c -b -c ");
        rig_down(&r);
    }
}

static void kill_or_destroy(bool run) {
    rig r;
    rig_up(&r, 1);
    THREE;
    opd_supervisor_options outer = {.name = "outer", .child_count = 1,
                                    .children = (opd_child_spec[]){subtree("inner", &o)}};
    opd_pid top;
    CHECK_OK(opd_supervisor_start(r.t.system, &outer, &top));
    if (run) {
        opd_system_kill(r.t.system, opd_fail(OPD_ERR_INTERRUPTED, "at once"));
        CHECK_ERR(opd_system_run(r.t.system), OPD_ERR_INTERRUPTED);
        CHECK_INT(opd_system_stats_get(r.t.system).actors, 0);
    }
    rig_down(&r);
    const char *ends[] = {"-a ", "-b ", "-c "};
    for (int i = 0; i < 3; i++) CHECK_CONTAINS(r.diary, ends[i]);
    CHECK_INT(strlen(r.diary), 6 * 3);
}

TEST(a_tree_that_is_killed_or_never_run_ends_with_all_below) {
    kill_or_destroy(true);
    kill_or_destroy(false);
}

/* ---- the new one and the old one ------------------------------------------------------- */

TEST(a_restarted_child_has_a_new_pid_and_its_name) {
    rig r;
    rig_up(&r, 1);
    THREE;
    r.script = (const step[]){{1, "b", DO_FAIL}, {10, NULL, 0}};
    r.steps = 2;
    opd_pid driver_pid, top;
    CHECK_OK(opd_supervisor_start(r.t.system, &o, &top));
    opd_pid old = b.pid;
    CHECK(opd_whereis(r.t.system, "b") == old);
    CHECK_OK(opd_spawn(r.t.system, &driver_class, NULL, NULL, &driver_pid));
    opd_system_begin(r.t.system);
    CHECK_OK(opd_sim_run(r.sim, opd_sim_now_ns(r.sim) + 5 * MS, NULL, NULL));
    CHECK(b.pid != old && opd_whereis(r.t.system, "b") == b.pid);
    CHECK(!opd_alive(r.t.system, old) && opd_alive(r.t.system, b.pid));
    opd_msg *msg;
    CHECK_OK(opd_msg_create(r.t.system, DO_END, &msg));
    CHECK_ERR(opd_post(r.t.system, old, msg), OPD_ERR_CLOSED); /* not to its successor */
    opd_msg_release(msg);
    CHECK_OK(opd_sim_run(r.sim, OPD_SIM_FOREVER, NULL, NULL));
    CHECK_OK(opd_system_end(r.t.system));
    rig_down(&r);
}

/* "-b" is its on_stop, which comes after its job; whatever the job's time, "+b" comes after. */
TEST(a_restart_waits_for_the_old_ones_job) {
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        rig r;
        rig_up(&r, seed);
        THREE;
        CHECK_OK(opd_lane_open(r.t.system, "lane", 1, &b.lane)); /* room for one job only */
        specs[1].backoff = (opd_backoff){.base_ms = 1, .max_ms = 1};
        CHECK_OK(PLAY(&r, &o, {10, "b", DO_FAIL}, {30, NULL, 0}));
        CHECK_STR(r.diary, "+a +b +c -b +b !c -c !b -b !a -a ");
        rig_down(&r);
    }
}

TEST(ids_are_unique_among_the_living) {
    rig r;
    rig_up(&r, 1);
    THREE;
    opd_pid top;
    specs[2].id = "a";
    CHECK_ERR(opd_supervisor_start(r.t.system, &o, &top), OPD_ERR_EXISTS);
    CHECK_STR(r.diary, "+a +b +c -c -b -a ");
    rig_down(&r);
}

/* ---- limits ---------------------------------------------------------------------------- */

TEST(options_are_checked) {
    rig r;
    rig_up(&r, 1);
    THREE;
    opd_pid top;
    opd_supervisor_options bad = o;
    bad.child_count = 0;
    CHECK_ERR(opd_supervisor_start(r.t.system, &bad, &top), OPD_ERR_INVALID);
    bad.child_count = OPD_SUPERVISOR_CHILDREN_MAX + 1;
    CHECK_ERR(opd_supervisor_start(r.t.system, &bad, &top), OPD_ERR_INVALID);
    bad = o;
    bad.restarts_max = OPD_SUPERVISOR_RESTARTS_MAX + 1;
    CHECK_ERR(opd_supervisor_start(r.t.system, &bad, &top), OPD_ERR_INVALID);
    bad.restarts_max = -2;
    CHECK_ERR(opd_supervisor_start(r.t.system, &bad, &top), OPD_ERR_INVALID);
    specs[1].backoff.jitter = 1.5;
    CHECK_ERR(opd_supervisor_start(r.t.system, &o, &top), OPD_ERR_INVALID);
    CHECK_CONTAINS(opd_err_context(), "b: jitter");
    specs[1].backoff.jitter = 0;
    specs[1].id = "";
    CHECK_ERR(opd_supervisor_start(r.t.system, &o, &top), OPD_ERR_INVALID);
    rig_down(&r);
}

TEST(starting_survives_each_failing_allocation) {
    bool whole = false;
    for (long n = 1; !whole && n < 100; n++) {
        rig r;
        rig_up(&r, 1);
        THREE;
        opd_pid top;
        long live = r.t.memory.live;
        r.t.memory.fail_at = r.t.memory.calls + n;
        opd_err err = opd_supervisor_start(r.t.system, &o, &top);
        r.t.memory.fail_at = 0;
        whole = err == OPD_OK;
        if (!whole) {
            CHECK_INT(err, OPD_ERR_NOMEM);
            CHECK_INT(opd_system_stats_get(r.t.system).actors, 0);
            CHECK_INT(r.t.memory.live, live);
        }
        rig_down(&r);
    }
    CHECK(whole);
}

/* No room for the pause's timer: the failure goes up, as the lack of memory that it is. */
TEST(a_pause_that_cannot_begin_goes_up) {
    rig r;
    rig_up(&r, 1);
    opd_system_destroy(r.t.system);
    opd_system_options so = {.alloc = &r.t.memory.alloc, .timers_max = 1, .messages_max = 8};
    CHECK_OK(opd_system_create(&so, r.t.env, &r.t.system));
    THREE;
    CHECK_ERR(PLAY(&r, &o, {1, "b", DO_FAIL}, {1000, NULL, 0}), OPD_ERR_LIMIT);
    CHECK_STR(r.diary, "+a +b +c -b !c -c !a -a ");
    rig_down(&r);
}
