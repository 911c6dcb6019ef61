/* test_pool.c - every item runs exactly once, on every thread count, also when workers sleep
 * between jobs. Run under the thread sanitizer too. */
#include <stdatomic.h>
#include <time.h>

#include "kernels/cpu/pool.h"
#include "tests/support/test.h"

enum { ITEMS = 300 };

typedef struct job {
    atomic_int counts[ITEMS];
    int plain[ITEMS]; /* written by one thread, read by the caller: a race if unordered */
    size_t threads;
} job;

static void count(void *arg, size_t worker, size_t item) {
    job *j = arg;
    CHECK(worker < j->threads);
    atomic_fetch_add(&j->counts[item], 1);
    j->plain[item]++;
}

static void check_threads(size_t threads) {
    opd_pool *pool;
    job j = {.threads = threads};
    int rounds = 0;
    CHECK_OK(opd_pool_create(threads, NULL, &pool));
    CHECK_INT(opd_pool_threads(pool), threads);
    for (int i = 0; i < 400; i++, rounds++) {
        opd_pool_run(pool, i % 3 == 0 ? ITEMS : ITEMS / 2, count, &j);
        if (i % 50 != 49) continue;
        struct timespec pause = {.tv_nsec = 2000000}; /* long enough for workers to sleep */
        nanosleep(&pause, NULL);
    }
    opd_pool_run(pool, 0, count, &j);
    for (int i = 0; i < ITEMS; i++) {
        int expected = i < ITEMS / 2 ? rounds : (rounds + 2) / 3;
        CHECK_INT(atomic_load(&j.counts[i]), expected);
        CHECK_INT(j.plain[i], expected);
    }
    opd_pool_destroy(pool);
}

TEST(one_thread) { check_threads(1); }
TEST(two_threads) { check_threads(2); }
TEST(five_threads) { check_threads(5); }

TEST(stops_at_once_and_refuses_nonsense) {
    opd_pool *pool;
    CHECK_OK(opd_pool_create(3, NULL, &pool));
    opd_pool_destroy(pool);
    opd_pool_destroy(NULL);
    CHECK_ERR(opd_pool_create(0, NULL, &pool), OPD_ERR_INVALID);
    CHECK(pool == NULL);
}
