/* torture.c - allocations that fail one after another (torture.h). Thread: the test's. */
#include "tests/torture/torture.h"

#include "tests/support/alloc_test.h"
#include "tests/support/test.h"

static void check_clean(opd_err err, uint64_t allowed, long n, bool all_after) {
    if (err == OPD_OK) return;
    if ((TORTURE_ERR(err) & allowed) == 0)
        opd_test_fail(__FILE__, __LINE__, "allocation %ld%s: ended with %s (%s)", n,
                      all_after ? " and all later ones" : "", opd_err_name(err), opd_err_context());
    if (opd_err_context()[0] == '\0')
        opd_test_fail(__FILE__, __LINE__, "allocation %ld: %s comes without a text", n,
                      opd_err_name(err));
}

static void each_allocation(torture_scenario scenario, void *arg, uint64_t allowed,
                            bool all_after) {
    for (long n = 1;; n++) {
        opd_test_alloc memory;
        CHECK(n < TORTURE_POINTS_MAX);
        opd_test_alloc_failing(&memory, n, all_after);
        opd_err_clear();
        opd_err err = scenario(&memory.alloc, arg);
        check_clean(err, allowed, n, all_after);
        if (memory.live != 0)
            opd_test_fail(__FILE__, __LINE__, "allocation %ld: %ld blocks are left (%s)", n,
                          (long)memory.live, opd_err_name(err));
        if (memory.calls >= n) continue;
        CHECK_OK(err); /* nothing failed */
        CHECK(n > 1);  /* a scenario that allocates nothing shows nothing */
        return;
    }
}

void torture_alloc(torture_scenario scenario, void *arg, uint64_t allowed) {
    opd_log_sink_set(torture_no_line, NULL);
    each_allocation(scenario, arg, allowed, false);
    each_allocation(scenario, arg, allowed, true);
}
