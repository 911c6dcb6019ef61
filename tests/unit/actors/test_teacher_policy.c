/* test_teacher_policy.c - retries, pauses and health of the teacher's client. */
#include "actors/teacher/policy.h"
#include <math.h>

#include "tests/support/test.h"

TEST(a_lost_endpoint_is_waited_for) {
    static const opd_err lost[] = {OPD_ERR_REFUSED, OPD_ERR_RESET, OPD_ERR_CLOSED,
                                   OPD_ERR_NOT_FOUND};
    for (size_t i = 0; i < sizeof lost / sizeof lost[0]; i++)
        CHECK_INT(opd_teacher_judge(lost[i], 0), OPD_TEACHER_WAIT);
}

TEST(statuses) {
    static const int hopeless[] = {201, 204, 301, 400, 401, 403, 404, 405, 413, 422};
    static const int busy[] = {408, 429, 500, 503, 504};
    for (size_t i = 0; i < sizeof hopeless / sizeof hopeless[0]; i++)
        CHECK_INT(opd_teacher_judge(OPD_OK, hopeless[i]), OPD_TEACHER_GIVE_UP);
    for (size_t i = 0; i < sizeof busy / sizeof busy[0]; i++)
        CHECK_INT(opd_teacher_judge(OPD_OK, busy[i]), OPD_TEACHER_RETRY);
    CHECK_INT(opd_teacher_judge(OPD_OK, 502), OPD_TEACHER_WAIT);
    CHECK_INT(opd_teacher_judge(OPD_OK, 200), OPD_TEACHER_READ);
    CHECK_INT(opd_teacher_judge(OPD_ERR_TIMEOUT, 0), OPD_TEACHER_RETRY);
    CHECK_INT(opd_teacher_judge(OPD_ERR_REMOTE, 200), OPD_TEACHER_RETRY);
    CHECK_INT(opd_teacher_judge(OPD_ERR_UNSUPPORTED, 0), OPD_TEACHER_GIVE_UP);
    CHECK_INT(opd_teacher_judge(OPD_ERR_LIMIT, 200), OPD_TEACHER_GIVE_UP);
}

TEST(the_allowance_ends_retries) {
    opd_teacher_history h = {.retries = 3};
    CHECK_INT(opd_teacher_limit(OPD_TEACHER_RETRY, &h, 3), OPD_TEACHER_RETRY);
    CHECK_INT(opd_teacher_limit(OPD_TEACHER_RETRY, &h, 2), OPD_TEACHER_GIVE_UP);
    h.invalid = OPD_TEACHER_INVALID_MAX; /* the second invalid answer is the last */
    CHECK_INT(opd_teacher_limit(OPD_TEACHER_RETRY, &h, 100), OPD_TEACHER_GIVE_UP);
    h = (opd_teacher_history){.retries = 100, .breaks = OPD_TEACHER_BREAKS_MAX - 1};
    CHECK_INT(opd_teacher_limit(OPD_TEACHER_WAIT, &h, 0), OPD_TEACHER_WAIT);
    h.breaks++;
    CHECK_INT(opd_teacher_limit(OPD_TEACHER_WAIT, &h, 0), OPD_TEACHER_GIVE_UP);
    CHECK_INT(opd_teacher_limit(OPD_TEACHER_READ, &h, 0), OPD_TEACHER_READ);
}

TEST(backoff_doubles_within_its_bounds) {
    uint64_t bits = 1;
    for (uint32_t retry = 1; retry < 40; retry++) {
        uint64_t full = retry < 8 ? (uint64_t)100 << (retry - 1) : 10000;
        if (full > 10000) full = 10000;
        for (int i = 0; i < 20; i++) {
            bits = bits * 6364136223846793005u + 1442695040888963407u;
            uint64_t ms = opd_teacher_backoff_ms(retry, 100, 10000, 0, bits);
            CHECK(ms >= full / 2 && ms <= full);
        }
    }
    CHECK_INT(opd_teacher_backoff_ms(1, 100, 10000, 3000, 7), 3000); /* the server asked for it */
    CHECK_INT(opd_teacher_backoff_ms(1, 0, 0, 0, 99), 0);
    /* the pause is not one number: that is what spreads a burst of failures */
    CHECK(opd_teacher_backoff_ms(5, 100, 10000, 0, 1) != opd_teacher_backoff_ms(5, 100, 10000, 0, 2));
}

TEST(retry_after) {
    CHECK_INT(opd_teacher_retry_after_ms(NULL), 0);
    CHECK_INT(opd_teacher_retry_after_ms(""), 0);
    CHECK_INT(opd_teacher_retry_after_ms("2"), 2000);
    CHECK_INT(opd_teacher_retry_after_ms("99999999999999999999999"), 3600000);
    CHECK_INT(opd_teacher_retry_after_ms("-1"), 0);
    CHECK_INT(opd_teacher_retry_after_ms("Wed, 21 Oct 2026 07:28:00 GMT"), 0);
}

TEST(health_changes_are_told_once) {
    opd_teacher_health h = {.down = false};
    CHECK(opd_teacher_health_gone(&h));
    CHECK(!opd_teacher_health_gone(&h));
    CHECK(opd_teacher_health_back(&h));
    CHECK(!opd_teacher_health_back(&h));
    CHECK(opd_teacher_health_gone(&h));
    opd_teacher_health_answer(&h, 5); /* of a request that was sent before */
    CHECK(h.down);
}

TEST(lost_counts_only_while_work_waits) {
    opd_teacher_health h = {.down = false};
    CHECK(!opd_teacher_health_lost(&h, 10, 1000)); /* idle, however long */
    opd_teacher_health_work(&h, true, 1000);
    CHECK(!opd_teacher_health_lost(&h, 10, 1009));
    opd_teacher_health_work(&h, true, 1009); /* more work does not restart the clock */
    CHECK(opd_teacher_health_lost(&h, 10, 1010));
    opd_teacher_health_answer(&h, 1010);
    CHECK(!opd_teacher_health_lost(&h, 10, 1019));
    (void)opd_teacher_health_gone(&h);
    (void)opd_teacher_health_back(&h); /* being there is not answering */
    CHECK(opd_teacher_health_lost(&h, 10, 1020));
    opd_teacher_health_work(&h, false, 1020);
    CHECK(!opd_teacher_health_lost(&h, 10, 9999));
}

TEST(uniform_scores_are_dropped) {
    float logp[] = {-logf(50), -3.9f, -logf(50) * (1 + 1e-5f), -logf(50), 0};
    uint8_t valid[] = {1, 1, 1, 0, 1};
    CHECK_INT(opd_teacher_uniform_drop(logp, valid, 5, NULL, NULL, 0, 50), 1);
    CHECK_INT(valid[0], 0);
    CHECK(logp[0] == 0);
    CHECK_INT(valid[1] + valid[2] + valid[4], 3);
    float known[] = {-logf(151936)};
    uint8_t yes[] = {1};
    CHECK_INT(opd_teacher_uniform_drop(known, yes, 1, NULL, NULL, 0, -1), 0); /* the vocabulary is not known */
    CHECK_INT(opd_teacher_uniform_drop(known, yes, 1, NULL, NULL, 0, 151936), 1);
}

/* A model that has hardly learnt gives that number by chance, next to others that are not. */
TEST(a_score_beside_a_likelier_alternative_is_honest) {
    float u = -logf(50);
    float logp[] = {u, u, u, u};
    uint8_t valid[] = {1, 1, 1, 1};
    int32_t ids[] = {7, 8, 7, 8, 7, -1, -1, -1}; /* of the last two rows some are missing */
    float alternatives[] = {u + 1e-3f, u, u, u, u, 0, 0, 0};
    CHECK_INT(opd_teacher_uniform_drop(logp, valid, 4, ids, alternatives, 2, 50), 3);
    CHECK(valid[0] == 1 && logp[0] == u);
    CHECK_INT(valid[1] + valid[2] + valid[3], 0);
}
