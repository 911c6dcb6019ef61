/* test_sample.c - the sample struct: its arrays do not overlap, spans merge, ids order. */
#include "actors/sample.h"
#include "tests/support/test.h"

static const opd_sample_id ID = {.group = 7, .run = 1, .epoch = 2, .member = 3};

TEST(arrays_are_apart_and_start_invalid) {
    opd_sample *sample;
    CHECK_OK(opd_sample_create(NULL, ID, 3, 5, 4, &sample));
    CHECK_INT(opd_sample_valid_count(sample), 0);
    for (int i = 0; i < 20; i++) CHECK_INT(sample->teacher_topk[i], -1);
    for (int i = 0; i < 8; i++) sample->tokens[i] = 100 + i;
    for (int i = 0; i < 5; i++) {
        sample->rollout_logp[i] = -1.0f;
        sample->teacher_logp[i] = -2.0f;
        sample->teacher_valid[i] = i % 2 == 0;
    }
    for (int i = 0; i < 20; i++) sample->teacher_topk[i] = i;
    for (int i = 0; i < 8; i++) CHECK_INT(sample->tokens[i], 100 + i);
    for (int i = 0; i < 5; i++) {
        CHECK_NEAR(sample->rollout_logp[i], -1, 0);
        CHECK_NEAR(sample->teacher_logp[i], -2, 0);
    }
    CHECK_INT(opd_sample_valid_count(sample), 3);
    opd_sample_destroy(sample);
    opd_sample_destroy(NULL);
}

TEST(an_empty_response_is_a_sample) {
    opd_sample *sample;
    CHECK_OK(opd_sample_create(NULL, ID, 0, 0, 0, &sample));
    CHECK(sample->teacher_topk == NULL);
    CHECK(opd_sample_version_min(sample) == UINT64_MAX);
    opd_sample_destroy(sample);
    CHECK_ERR(opd_sample_create(NULL, ID, UINT32_MAX, UINT32_MAX, UINT32_MAX, &sample),
              OPD_ERR_LIMIT);
}

TEST(spans_merge_and_keep_their_order) {
    opd_sample *sample;
    CHECK_OK(opd_sample_create(NULL, ID, 1, 40, 0, &sample));
    CHECK_OK(opd_sample_cover(sample, 4, 11));
    CHECK_OK(opd_sample_cover(sample, 6, 11));
    CHECK_OK(opd_sample_cover(sample, 6, 12)); /* nothing new */
    CHECK_OK(opd_sample_cover(sample, 9, 12));
    CHECK_INT(sample->span_count, 2);
    CHECK_INT(sample->spans[0].end, 6);
    CHECK_INT(sample->spans[1].begin, 6);
    CHECK_INT(opd_sample_version_min(sample), 11);
    CHECK_ERR(opd_sample_cover(sample, 8, 12), OPD_ERR_INVALID);
    CHECK_ERR(opd_sample_cover(sample, 41, 12), OPD_ERR_INVALID);
    for (uint32_t i = 2; i < OPD_SAMPLE_SPANS_MAX; i++)
        CHECK_OK(opd_sample_cover(sample, 8 + i, 11 + i));
    CHECK_ERR(opd_sample_cover(sample, 40, 99), OPD_ERR_LIMIT);
    opd_sample_destroy(sample);
}

TEST(ids_order_by_run_epoch_group_member) {
    opd_sample_id a = ID, b = ID;
    CHECK_INT(opd_sample_id_compare(&a, &b), 0);
    CHECK(opd_sample_id_hash(&a) == opd_sample_id_hash(&b));
    b.member++;
    CHECK(opd_sample_id_compare(&a, &b) < 0);
    CHECK(opd_sample_id_hash(&a) != opd_sample_id_hash(&b));
    a.group = UINT64_MAX;
    CHECK(opd_sample_id_compare(&a, &b) > 0);
    b.epoch++;
    CHECK(opd_sample_id_compare(&a, &b) < 0);
    a.run++;
    CHECK(opd_sample_id_compare(&a, &b) > 0);
}

TEST(every_status_has_a_name) {
    CHECK_STR(opd_sample_status_name(OPD_SAMPLE_COMPLETED), "completed");
    CHECK_STR(opd_sample_status_name(OPD_SAMPLE_TRUNCATED), "truncated");
    CHECK_STR(opd_sample_status_name(OPD_SAMPLE_ABORTED), "aborted");
    CHECK_STR(opd_sample_status_name(OPD_SAMPLE_FAILED), "failed");
}
