/* test_learner_report.c - what a batch shows is what was measured: nothing of samples that did not take
 * part, nothing of an earlier batch, and no number where there is none. */
#include "tests/unit/actors/learner_rig.h"

/* ---- batches that make no step ---- */

static void supervised(opd_learner_options *o) {
    o->objective = OPD_OBJECTIVE_SFT;
    o->student_k = 0;
    o->advantage.use_opd = false;
}

TEST(sft_without_a_learnt_token_shows_no_loss) {
    rig r;
    rig_up(&r, 1);
    supervised(&r.o);
    opd_batch *batch = rig_batch(3, 1, false);
    memset(batch->learn, 0, batch->row_count);
    float *before = malloc(weights_size(&r));
    memcpy(before, r.model->params, weights_size(&r));
    learn(&r, batch);
    CHECK(!opd_learner_stepped(r.learner));
    CHECK(memcmp(before, r.model->params, weights_size(&r)) == 0);
    CHECK(isnan(r.v[OPD_METRIC_LOSS])); /* a loss of 0 would be that of a perfect model */
    CHECK(isnan(r.v[OPD_METRIC_LR]) && isnan(r.v[OPD_METRIC_GRAD_NORM]));
    CHECK_NEAR(r.v[OPD_METRIC_UNSCORED], 1, 0);
    CHECK_NEAR(r.v[OPD_METRIC_SKIPPED], 0, 0);
    memset(batch->learn, 1, batch->row_count); /* and then it goes on */
    learn(&r, batch);
    CHECK(opd_learner_stepped(r.learner));
    CHECK(r.v[OPD_METRIC_LOSS] > 0 && r.v[OPD_METRIC_LR] > 0);
    CHECK_NEAR(r.v[OPD_METRIC_UNSCORED], 1, 0);
    free(before);
    opd_batch_destroy(batch);
    rig_down(&r);
}

/* An example all of whose learnt messages are empty has not one row, and neither has a micro-batch of it. */
TEST(examples_without_rows_are_passed_over) {
    static const int32_t tokens[] = {1, 5, 7, 3};
    rig r;
    rig_up(&r, 1);
    supervised(&r.o);
    r.o.micro_batch_tokens = 4;
    opd_batch *batch;
    CHECK_OK(opd_batch_create(NULL, RIG_SAMPLES, RIG_TOKENS, RIG_TOP_K, 0, 1, &batch));
    double losses[2];
    for (int filled = 0; filled < 2; filled++) {
        opd_batch_sample empty = {.prompt_len = 4, .tokens = tokens};
        opd_batch_sample full = {.prompt_len = 2, .response_len = 2, .tokens = tokens};
        opd_batch_clear(batch);
        CHECK_OK(opd_batch_add(batch, &empty));
        if (filled) CHECK_OK(opd_batch_add(batch, &full));
        if (filled) CHECK_OK(opd_batch_add(batch, &empty));
        learn(&r, batch);
        CHECK_INT(opd_learner_stepped(r.learner), filled);
        uint64_t count = 0;
        losses[filled] = 0;
        CHECK_OK(opd_learner_measure(r.learner, batch, &losses[filled], &count));
        CHECK_INT(count, 2 * filled);
    }
    CHECK(losses[0] == 0 && isfinite(losses[1]) && losses[1] > 0);
    CHECK(isfinite(r.v[OPD_METRIC_LOSS]));
    opd_batch_destroy(batch);
    rig_down(&r);
}

/* The second of two steps is refused: the means would be of one step's numbers and another's none. */
TEST(a_refused_step_shows_no_means) {
    opd_batch *batch = rig_batch(12, 1, false);
    batch->teacher_logp[batch->offsets[4]] = -INFINITY;
    for (int steps = 1; steps <= 2; steps++) {
        rig r;
        rig_up(&r, 1);
        r.o.steps_per_batch = (uint32_t)steps;
        r.o.advantage.estimator.normalize_rewards = false;
        learn(&r, batch);
        CHECK_INT(opd_learner_stepped(r.learner), steps - 1);
        CHECK_NEAR(r.v[OPD_METRIC_SKIPPED], 1, 0);
        CHECK(isnan(r.v[OPD_METRIC_LOSS]) && isnan(r.v[OPD_METRIC_ENTROPY]) && isnan(r.v[OPD_METRIC_LR]));
        CHECK(steps == 2 || isnan(r.v[OPD_METRIC_OPD_OVERLAP_COVERAGE])); /* 0 would blame the teacher */
        rig_down(&r);
    }
    opd_batch_destroy(batch);
}

TEST(no_reward_is_not_a_reward_of_zero) {
    rig r;
    rig_up(&r, 1);
    opd_batch *batch = rig_batch(4, 1, false);
    memset(batch->reward_valid, 0, batch->sample_count);
    learn(&r, batch);
    CHECK(opd_learner_stepped(r.learner)); /* the teacher has something to say */
    CHECK(isnan(r.v[OPD_METRIC_RAW_REWARD]) && isnan(r.v[OPD_METRIC_REWARDS]));
    CHECK(isfinite(r.v[OPD_METRIC_ADVANTAGES]));
    opd_batch_destroy(batch);
    rig_down(&r);
}

/* ---- means over what took part ---- */

/* Half of the samples have no teacher: under only_reward they are not learnt from, and an entropy or a
 * ratio of 1 is no smaller for that. */
TEST(samples_that_are_left_out_do_not_thin_the_means) {
    rig some, all;
    opd_batch *batch = rig_batch(5, 1, false), *half = rig_batch(5, 1, false);
    for (size_t t = half->offsets[3]; t < half->row_count; t++) half->teacher_valid[t] = 0;
    rig_up(&some, 1);
    rig_up(&all, 1);
    some.o.advantage.only_reward = all.o.advantage.only_reward = true;
    learn(&some, half);
    learn(&all, batch);
    CHECK_NEAR(some.v[OPD_METRIC_OIS], 1, 1e-6);
    CHECK_NEAR(all.v[OPD_METRIC_OIS], 1, 1e-6);
    CHECK_NEAR(some.v[OPD_METRIC_ENTROPY], all.v[OPD_METRIC_ENTROPY], 0.1); /* of a fresh model: ln V */
    CHECK(all.v[OPD_METRIC_ENTROPY] > 3);
    rig_down(&some);
    rig_down(&all);
    opd_batch_destroy(batch);
    opd_batch_destroy(half);
}

/* All tokens, not those of the first step alone. */
TEST(log_probs_are_of_the_whole_batch) {
    rig one, three;
    opd_batch *batch = rig_batch(11, 1, false);
    rig_up(&one, 1);
    rig_up(&three, 1);
    three.o.steps_per_batch = 3;
    learn(&one, batch);
    learn(&three, batch);
    CHECK_INT(opd_learner_steps(three.learner), 3);
    CHECK_NEAR(three.v[OPD_METRIC_LOG_PROBS], one.v[OPD_METRIC_LOG_PROBS], 1e-9);
    rig_down(&one);
    rig_down(&three);
    opd_batch_destroy(batch);
}

/* ---- the overlap ---- */

/* Two of three shares of a batch whose lost rewards leave the middle one without a token to learn. */
static opd_batch *holed_batch(uint64_t seed) {
    opd_batch *batch = rig_batch(seed, 1, true);
    batch->reward_valid[2] = batch->reward_valid[3] = 0;
    return batch;
}

static void three_whitened(opd_learner_options *o) {
    o->steps_per_batch = 3;
    o->advantage.whiten = true;
    o->optimizer.lr = 0; /* the weights stay, so batches do not depend on what was before */
}

TEST(the_overlap_is_of_this_batch_alone) {
    opd_batch *holed = holed_batch(6), *before = rig_batch(7, 1, true), *two = rig_batch(6, 1, true);
    for (size_t t = two->offsets[2]; t < two->offsets[4]; t++) two->teacher_valid[t] = 0;
    rig fresh, used, told;
    rig_up(&fresh, 1);
    rig_up(&used, 1);
    rig_up(&told, 1);
    three_whitened(&fresh.o);
    three_whitened(&used.o);
    three_whitened(&told.o);
    learn(&fresh, holed);
    learn(&used, before);
    learn(&used, holed);
    learn(&told, two); /* the same rows are covered: nobody asked the teacher about the others */
    CHECK_INT(opd_learner_steps(fresh.learner), 2);
    CHECK(fresh.v[OPD_METRIC_OPD_OVERLAP_COVERAGE] < 1);
    CHECK_NEAR(fresh.v[OPD_METRIC_OPD_OVERLAP_COVERAGE], told.v[OPD_METRIC_OPD_OVERLAP_COVERAGE], 0);
    CHECK_NEAR(fresh.v[OPD_METRIC_OPD_OVERLAP], told.v[OPD_METRIC_OPD_OVERLAP], 0);
    CHECK_NEAR(used.v[OPD_METRIC_OPD_OVERLAP], told.v[OPD_METRIC_OPD_OVERLAP], 0);
    CHECK_NEAR(used.v[OPD_METRIC_OPD_OVERLAP_COVERAGE], told.v[OPD_METRIC_OPD_OVERLAP_COVERAGE], 0);
    rig_down(&fresh);
    rig_down(&used);
    rig_down(&told);
    opd_batch_destroy(holed);
    opd_batch_destroy(before);
    opd_batch_destroy(two);
}

/* The last share, too, counts as not covered. */
TEST(coverage_counts_every_token_of_the_batch) {
    opd_batch *batch = rig_batch(8, 1, true);
    for (size_t t = batch->offsets[4]; t < batch->row_count; t++) batch->teacher_valid[t] = 0;
    rig r;
    rig_up(&r, 1);
    r.o.steps_per_batch = 3;
    r.o.advantage.only_reward = true;
    learn(&r, batch);
    CHECK_INT(opd_learner_steps(r.learner), 2);
    CHECK_NEAR(r.v[OPD_METRIC_OPD_OVERLAP_COVERAGE],
               (double)batch->offsets[4] / (double)batch->row_count, 1e-12);
    rig_down(&r);
    opd_batch_destroy(batch);
}

/* ---- who is not there is not measured ---- */

TEST(the_constant_baseline_has_no_teacher_to_report) {
    rig r;
    rig_up(&r, 1);
    r.o.constant_prob = 0.05;
    r.o.student_k = 0;
    opd_batch *batch = rig_batch(9, 1, false);
    learn(&r, batch);
    CHECK(opd_learner_stepped(r.learner));
    CHECK(isnan(r.v[OPD_METRIC_TEACHER_LOG_PROBS]) && isnan(r.v[OPD_METRIC_OPD_REVERSE_KL]));
    CHECK(isnan(r.v[OPD_METRIC_VALID_SHARE]) && isnan(r.v[OPD_METRIC_INVALID_TOKENS]));
    opd_batch_destroy(batch);
    rig_down(&r);
}

/* A teacher that is only watched has no weight: losing it does not hold up what is learnt. */
TEST(a_teacher_without_a_weight_is_not_waited_for) {
    rig watched, alone;
    opd_batch *batch = rig_batch(10, 0, false);
    rig_up(&watched, 1);
    rig_up(&alone, 1);
    watched.o.advantage.kl_coef = 0;
    alone.o.advantage.use_opd = false;
    learn(&watched, batch);
    learn(&alone, batch);
    CHECK(opd_learner_stepped(watched.learner));
    CHECK(same_weights(&watched, &alone));
    CHECK_NEAR(watched.v[OPD_METRIC_VALID_SHARE], 0, 0);
    CHECK_NEAR(watched.v[OPD_METRIC_UNSCORED], 0, 0);
    rig_down(&watched);
    rig_down(&alone);
    opd_batch_destroy(batch);
}
