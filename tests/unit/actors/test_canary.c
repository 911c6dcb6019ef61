/* test_canary.c - replicas that lie: uniform, invalid, changed, apart; who is believed, and who comes
 * back when. */
#include "actors/teacher/canary.h"

#include <math.h>

#include "tests/support/test.h"

enum { VOCAB = 1000 };

static const double TOLERANCE = 0.02;

static void init(opd_canary *c, size_t replicas) { opd_canary_init(c, replicas, VOCAB, 1, 0, TOLERANCE); }

/* Scores of model `which` with `noise` on every one. */
static opd_canary_scores scores_of(const opd_canary *c, int which, float noise, const char *version) {
    opd_canary_scores s = {.valid = {0}};
    for (size_t i = 0; i < c->scores; i++) {
        s.logp[i] = -1 - (float)((i * 7 + (size_t)which * 13) % 11) / 4 + (i % 2 ? noise : -noise);
        s.valid[i] = 1;
    }
    (void)snprintf(s.weight_version, sizeof s.weight_version, "%s", version);
    return s;
}

static opd_canary_finding take(opd_canary *c, size_t i, int which, float noise, const char *version) {
    opd_canary_scores s = scores_of(c, which, noise, version);
    return opd_canary_take(c, i, &s);
}

static int outlier(opd_canary *c) {
    double distance;
    return opd_canary_outlier(c, &distance);
}

TEST(sequences_depend_on_the_vocabulary_alone) {
    opd_canary a, b;
    opd_canary_init(&a, 1, VOCAB, 1, 0, TOLERANCE);
    opd_canary_init(&b, 2, VOCAB, 1, 0, 1);
    CHECK_INT(a.scores, OPD_CANARY_SCORES_MAX);
    for (size_t s = 0; s < OPD_CANARY_SEQUENCES; s++) {
        CHECK_INT(a.sequences[s].ids[0], 1);
        CHECK_INT(opd_canary_at(&a, s), s * (OPD_CANARY_IDS_MAX - 1));
        for (uint32_t i = 0; i < a.sequences[s].count; i++) {
            CHECK_INT(a.sequences[s].ids[i], b.sequences[s].ids[i]);
            CHECK(a.sequences[s].ids[i] >= 0 && a.sequences[s].ids[i] < VOCAB - 1);
        }
    }
    CHECK(memcmp(&a.sequences[0], &a.sequences[1], sizeof a.sequences[0]) != 0);
    opd_canary_init(&a, 1, 0, -1, 7, TOLERANCE);
    CHECK_INT(a.sequences[2].count, 7);
    for (uint32_t i = 0; i < 7; i++) CHECK(a.sequences[0].ids[i] >= 3 && a.sequences[0].ids[i] < 31);
    int32_t ids[] = {5, 6, 7, 8, 9, 10, 11, 12};
    opd_canary_set(&a, 1, ids, 8);
    CHECK_INT(a.sequences[1].count, 7);
    opd_canary_set(&a, 1, ids, 3);
    CHECK_INT(a.scores, 6 + 2 + 6);
    CHECK_INT(opd_canary_at(&a, 2), 8);
}

TEST(the_same_again_is_good_and_a_little_noise_is) {
    opd_canary c;
    init(&c, 1);
    for (int i = 0; i < 5; i++) {
        opd_canary_finding f = take(&c, 0, 0, i % 2 ? 0.015f : 0, "w1");
        CHECK_INT(f.verdict, OPD_CANARY_OK);
        CHECK(!f.went && !f.came && !f.renewed);
        CHECK_INT(f.disputed, OPD_CANARY_NOBODY);
        CHECK_INT(outlier(&c), OPD_CANARY_NOBODY);
    }
}

TEST(a_change_under_the_same_version_is_quarantined_until_it_is_undone_twice) {
    opd_canary c;
    init(&c, 1);
    (void)take(&c, 0, 0, 0, "w1");
    opd_canary_finding f = take(&c, 0, 1, 0, "w1");
    CHECK_INT(f.verdict, OPD_CANARY_CHANGED);
    CHECK(f.went && f.distance > 0.1);
    f = take(&c, 0, 1, 0, "w1");
    CHECK(f.verdict == OPD_CANARY_CHANGED && !f.went); /* what it says now is no new baseline */
    f = take(&c, 0, 0, 0, "w1");
    CHECK(f.verdict == OPD_CANARY_OK && !f.came);
    f = take(&c, 0, 1, 0, "w1");
    f = take(&c, 0, 0, 0, "w1");
    CHECK(!f.came); /* in a row */
    f = take(&c, 0, 0, 0, "w1");
    CHECK(f.came && !c.replicas[0].quarantined);
    f = take(&c, 0, 0, 0.03f, "w1");
    CHECK(f.went); /* all by 0.03 */
}

TEST(another_version_is_another_baseline) {
    opd_canary c;
    init(&c, 1);
    (void)take(&c, 0, 0, 0, "w1");
    opd_canary_finding f = take(&c, 0, 1, 0, "w2");
    CHECK(f.verdict == OPD_CANARY_OK && f.renewed && !f.went);
    f = take(&c, 0, 1, 0, "w2");
    CHECK(f.verdict == OPD_CANARY_OK && !f.renewed);
    f = take(&c, 0, 0, 0, "w2");
    CHECK(f.verdict == OPD_CANARY_CHANGED && f.went);
    f = take(&c, 0, 0, 0, "w3");
    f = take(&c, 0, 0, 0, "w3");
    CHECK(f.came);
}

TEST(uniform_and_invalid_scores_are_never_believed) {
    opd_canary c;
    init(&c, 2);
    opd_canary_scores s = scores_of(&c, 0, 0, "w1");
    for (size_t i = 0; i < c.scores; i++) s.logp[i] = -logf(VOCAB);
    CHECK_INT(opd_canary_take(&c, 0, &s).verdict, OPD_CANARY_UNIFORM);
    for (size_t i = 0; i < c.scores; i++) s.logp[i] = -2.5f;
    CHECK_INT(opd_canary_take(&c, 0, &s).verdict, OPD_CANARY_UNIFORM);
    s = scores_of(&c, 0, 0, "w1");
    s.valid[c.scores - 1] = 0;
    CHECK_INT(opd_canary_take(&c, 0, &s).verdict, OPD_CANARY_INVALID);
    CHECK(c.replicas[0].quarantined && !c.replicas[0].seen);
    opd_canary_finding f = opd_canary_take(&c, 1, NULL);
    CHECK(f.verdict == OPD_CANARY_INVALID && f.went);
    (void)take(&c, 0, 0, 0, "w1");
    CHECK(take(&c, 0, 0, 0, "w1").came);
}

TEST(one_of_three_that_is_apart_is_found_whoever_comes_last) {
    for (size_t bad = 0; bad < 3; bad++)
        for (size_t last = 0; last < 3; last++) {
            opd_canary c;
            init(&c, 3);
            for (size_t n = 1; n <= 3; n++) {
                size_t i = (last + n) % 3;
                opd_canary_finding f = take(&c, i, i == bad, 0.01f * (float)i, "w1");
                if (n == 1) CHECK(!f.went);
                (void)outlier(&c);
            }
            CHECK_INT(outlier(&c), OPD_CANARY_NOBODY);
            for (size_t i = 0; i < 3; i++) CHECK(c.replicas[i].quarantined == (i == bad));
            /* repaired: what it said at first is no past to be held to */
            CHECK(take(&c, bad, 1, 0, "w1").verdict == OPD_CANARY_IS_APART);
            (void)take(&c, bad, 0, 0, "w1");
            CHECK(take(&c, bad, 0, 0, "w1").came);
        }
}

TEST(of_two_that_disagree_neither_is_believed_over_the_other) {
    opd_canary c;
    init(&c, 2);
    (void)take(&c, 0, 0, 0, "w1");
    opd_canary_finding f = take(&c, 1, 1, 0, "w1");
    CHECK(f.verdict == OPD_CANARY_OK && !f.went);
    CHECK_INT(f.disputed, 0);
    CHECK(f.dispute > 0.1);
    CHECK_INT(outlier(&c), OPD_CANARY_NOBODY);
    CHECK_INT(take(&c, 0, 0, 0, "w1").disputed, 1);
    CHECK(take(&c, 1, 0, 0, "w1").verdict == OPD_CANARY_CHANGED); /* against its own past, though */
}

TEST(replicas_of_different_versions_are_not_compared) {
    opd_canary c;
    init(&c, 4);
    (void)take(&c, 0, 0, 0, "w1");
    (void)take(&c, 1, 0, 0, "w1");
    (void)take(&c, 2, 0, 0, "w1");
    opd_canary_finding f = take(&c, 3, 1, 0, "w2"); /* the first of a rolling update */
    CHECK(f.verdict == OPD_CANARY_OK && f.disputed == OPD_CANARY_NOBODY);
    CHECK_INT(outlier(&c), OPD_CANARY_NOBODY);
    CHECK(take(&c, 2, 1, 0, "w2").renewed);
    CHECK(take(&c, 1, 1, 0, "w2").renewed);
    CHECK(take(&c, 0, 2, 0, "w2").verdict == OPD_CANARY_IS_APART);
}
