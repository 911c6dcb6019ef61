/* test_stage.c - the trainer's steering, measured over small whole runs of the real actors: lag, order of
 * evaluation and saving, the filter, interrupts. */
#include "core/base/check.h"
#include "tests/unit/actors/stage_rig.h"
#include "tests/unit/actors/tiny.h"

/* Runs to the end and returns a copy of the weights. */
static float *run_taught(size_t teachers, uint32_t staleness, uint64_t teacher_delay_us,
                         double *out_lag) {
    stage *s = stage_up(staleness);
    s->teachers = teachers;
    s->teacher_delay_us = teacher_delay_us;
    CHECK_OK(stage_run());
    CHECK(s->outcome.finished);
    CHECK_INT(s->outcome.version, STEPS);
    CHECK_INT(s->outcome.samples, STEPS * BATCH * MEMBERS);
    CHECK_INT(s->outcome.degraded_tokens, STEPS * BATCH * MEMBERS);
    CHECK_STR(s->events, "rrrrrrs");
    CHECK(s->lag_max <= staleness);
    *out_lag = s->lag_max;
    float *weights = malloc(s->model->param_count * sizeof *weights);
    memcpy(weights, s->model->params, s->model->param_count * sizeof *weights);
    stage_down();
    return weights;
}

static float *run_whole(uint32_t staleness, uint64_t teacher_delay_us, double *out_lag) {
    return run_taught(1, staleness, teacher_delay_us, out_lag);
}

TEST(two_teachers_that_agree_teach_like_one) {
    double lag;
    opd_model *start = tiny_model(259, 2, 9);
    float *a = run_whole(0, 50, &lag), *b = run_taught(2, 0, 50, &lag);
    CHECK(memcmp(a, b, start->param_count * sizeof(float)) == 0);
    free(a);
    free(b);
    opd_model_destroy(start);
}

TEST(without_staleness_every_sample_is_of_the_present_weights) {
    double lag;
    opd_model *start = tiny_model(259, 2, 9);
    size_t size = start->param_count * sizeof(float);
    float *a = run_whole(0, 50, &lag), *b = run_whole(0, 900, &lag);
    CHECK_NEAR(lag, 0, 0);
    CHECK(memcmp(a, b, size) == 0); /* timing makes no difference */
    CHECK(memcmp(a, start->params, size) != 0);
    free(a);
    free(b);
    opd_model_destroy(start);
}

TEST(lag_is_at_most_max_staleness) {
    double lag;
    free(run_whole(1, 300, &lag));
    CHECK_NEAR(lag, 1, 0); /* and it is used: rollouts go on while the trainer learns */
    free(run_whole(3, 300, &lag));
    CHECK(lag > 1);
}

/* Seconds of virtual time that the trainer waited for scores alone, over all steps. */
static double score_wait(uint32_t staleness, uint64_t teacher_delay_us, uint64_t eval_interval) {
    CHECK_INT(setenv("OPD_TEST_SIM_SEED", "7", 1), 0);
    stage *s = stage_up(staleness);
    s->teacher_delay_us = teacher_delay_us;
    s->evals.set[0].interval = eval_interval;
    CHECK_OK(stage_run());
    CHECK(s->outcome.finished);
    CHECK_NEAR(s->outcome.score_wait_s, s->score_wait_s, 1e-9);
    double wait_s = s->score_wait_s;
    stage_down();
    return wait_s;
}

/* Jobs take 5 ms at most, and the teacher scores one sample after another. */
TEST(the_wait_for_scores_is_told_apart) {
    double serial = 60.0 * BATCH * MEMBERS * STEPS; /* all of them at 60 s each */
    double waited = score_wait(0, 60 * 1000000, 0);
    CHECK(waited > 0.98 * serial && waited < serial);
    CHECK(score_wait(0, 1, 0) < 0.02); /* the rollout is what takes long */
    double evaluating = score_wait(0, 60 * 1000000, 1); /* while that goes on it is not idle */
    CHECK(evaluating > 0.98 * serial && evaluating < serial);
    CHECK(score_wait(1, 60 * 1000000, 0) < serial);
}

TEST(evaluations_and_saves_stand_between_whole_batches) {
    stage *s = stage_up(1);
    s->config.eval_start = s->config.eval_end = true;
    s->evals.set[0].interval = 2;
    s->config.save_interval = 2;
    CHECK_OK(stage_run());
    uint64_t version = 0;
    char evaluated[STEPS + 1] = {0};
    for (size_t i = 0; i < s->event_count; i++) {
        if (s->events[i] == 'r') CHECK_INT(s->steps[i], ++version);
        else CHECK_INT(s->steps[i], version); /* nothing was learnt meanwhile */
        if (s->events[i] == 'a') evaluated[s->steps[i]]++;
    }
    for (int step = 0; step <= STEPS; step++) CHECK_INT(evaluated[step], step % 2 == 0);
    CHECK(s->outcome.has_before && s->outcome.sets[0].has_before && s->outcome.sets[0].has_after);
    CHECK_INT(s->outcome.before_total, 10); /* five problems, two answers */
    CHECK_INT(s->outcome.sets[0].after.accuracy.n, 10);
    CHECK_INT(s->outcome.sets[0].after.pass_count, 2);
    stage_down();
}

/* Which steps' reports came between an evaluation's begin and its end, at most. */
static void evaluate_often(bool beside, uint64_t right[STEPS + 1], uint64_t *ahead) {
    stage *s = stage_up(0);
    s->config.eval_start = s->config.eval_end = true;
    s->evals.set[0].interval = 2;
    s->evals.set[0].samples = 40; /* takes longer than a batch */
    s->evals.set[0].max_new = 8;
    if (beside) s->config.eval_weights = s->eval_weights;
    CHECK_OK(stage_run());
    uint64_t version = 0;
    *ahead = 0;
    for (size_t i = 0; i < s->event_count; i++) {
        if (s->events[i] == 'r') version = s->steps[i];
        if (s->events[i] == 'a' && version - s->steps[i] > *ahead) *ahead = version - s->steps[i];
    }
    for (int step = 0; step <= STEPS; step++) right[step] = s->evaluated_right[step];
    CHECK(s->outcome.finished && s->outcome.sets[0].has_before && s->outcome.sets[0].has_after);
    CHECK_INT(s->events[s->event_count - 1], 's');
    stage_down();
}

/* The training goes on meanwhile, never past the next evaluation; the answers are those of the frozen
 * weights all the same. */
TEST(evaluations_beside_the_training_measure_the_same) {
    uint64_t waiting[STEPS + 1], beside[STEPS + 1], ahead;
    CHECK_INT(setenv("OPD_TEST_SIM_SEED", "11", 1), 0);
    evaluate_often(false, waiting, &ahead);
    CHECK_INT(ahead, 0);
    evaluate_often(true, beside, &ahead);
    CHECK(ahead >= 1 && ahead <= 2);
    CHECK(memcmp(waiting, beside, sizeof waiting) == 0);
}

/* The accuracy "before" is that of the start, whatever is measured later. */
TEST(later_evaluations_do_not_overwrite_the_first) {
    stage *s = stage_up(0);
    s->evals.set[0].interval = 2;
    CHECK_OK(stage_run());
    CHECK(!s->outcome.has_before && !s->outcome.sets[0].has_before && !s->outcome.sets[0].has_after);
    stage_down();
}

/* Every version that is judged has been saved, with what was the best till then. */
TEST(the_best_version_is_remembered) {
    for (int beside = 0; beside < 2; beside++) {
        static const opd_eval_metric accuracy = {0, 0};
        stage *s = stage_up(1);
        s->config.eval_start = s->config.eval_end = true;
        s->config.best = &accuracy;
        s->evals.set[0].interval = 2;
        s->evals.set[0].samples = 40;
        if (beside) s->config.eval_weights = s->eval_weights;
        CHECK_OK(stage_run());
        uint64_t best = 0, most = 0;
        char saved[STEPS + 1] = {0};
        for (size_t i = 0; i < s->event_count; i++)
            if (s->events[i] == 's') saved[s->steps[i]]++;
        for (uint64_t step = 2; step <= STEPS; step += 2) {
            CHECK_INT(saved[step], 1);
            if (best == 0 || s->evaluated_right[step] > most) best = step, most = s->evaluated_right[step];
        }
        CHECK_INT(s->outcome.best_step, best);
        CHECK_INT(s->outcome.best_1e9, most * 1000000000 / 200);
        stage_down();
    }
}

/* ---- the filter ---- */

static stage *filtered_stage(uint32_t staleness, uint64_t same_below, uint64_t max) {
    stage *s = stage_up(staleness);
    s->same_below = same_below;
    s->filter_max = max;
    s->config.filter = true;
    s->config.samples_interval = 1;
    return s;
}

/* The batches take the groups that are left, in order, whatever their samples' timing; each group
 * waits for weights that are new enough for the batch it is in. */
TEST(a_group_that_teaches_nothing_is_replaced_by_the_next) {
    for (uint32_t staleness = 0; staleness < 3; staleness++) {
        stage *s = filtered_stage(staleness, 2, 100);
        CHECK_OK(stage_run());
        CHECK(s->outcome.finished);
        CHECK_INT(s->shown_count, STEPS * BATCH * MEMBERS);
        for (size_t i = 0; i < s->shown_count; i++) CHECK_INT(s->shown[i], i / MEMBERS * 3 + 2);
        CHECK_INT(s->outcome.groups_taken, 3 * STEPS * BATCH);
        CHECK_NEAR(s->filtered, 2 * STEPS * BATCH, 0);
        stage_down();
    }
}

TEST(a_batch_drops_no_more_groups_than_it_may) {
    stage *s = filtered_stage(1, 3, 2);
    CHECK_OK(stage_run());
    for (size_t i = 0; i < s->shown_count; i++) {
        uint64_t group = i / MEMBERS;
        CHECK_INT(s->shown[i], group / BATCH * (BATCH + 2) + 2 + group % BATCH);
    }
    CHECK_NEAR(s->filtered, 2 * STEPS, 0);
    stage_down();
}

/* The weights that a seed of the simulation ends with. */
static uint64_t filtered_weights(uint64_t seed, float *out_params, size_t params_max) {
    char text[32];
    (void)snprintf(text, sizeof text, "%llu", (unsigned long long)seed);
    CHECK_INT(setenv("OPD_TEST_SIM_SEED", text, 1), 0);
    stage *s = filtered_stage(0, 1, 100);
    CHECK_OK(stage_run());
    CHECK(s->model->param_count <= params_max);
    memcpy(out_params, s->model->params, s->model->param_count * sizeof(float));
    uint64_t group = s->outcome.groups_taken;
    stage_down();
    return group;
}

TEST(a_filtered_batch_does_not_depend_on_timing) {
    static float one[1 << 16], other[1 << 16];
    for (uint64_t seed = 1; seed < 4; seed++) {
        CHECK_INT(filtered_weights(seed, seed == 1 ? one : other, OPD_COUNTOF(one)), STEPS * BATCH * 3 / 2);
        if (seed > 1) CHECK(memcmp(one, other, sizeof one) == 0);
    }
}

TEST(an_interrupt_saves_at_a_batch_boundary) {
    for (uint64_t at = 1; at < STEPS; at += 2) {
        stage *s = stage_up((uint32_t)at % 3);
        s->interrupt_at = at;
        CHECK_ERR(stage_run(), OPD_ERR_INTERRUPTED);
        CHECK_CONTAINS(opd_err_context(), "--resume");
        CHECK(!s->outcome.finished);
        CHECK(s->outcome.version >= at && s->outcome.version <= at + 1);
        CHECK_INT(s->events[s->event_count - 1], 's');
        CHECK_INT(s->steps[s->event_count - 1], s->outcome.version);
        stage_down();
    }
}

TEST(a_stage_that_was_done_only_saves) {
    stage *s = stage_up(0);
    s->config.first_step = STEPS;
    s->config.first_group = STEPS * BATCH;
    CHECK_OK(stage_run());
    CHECK_STR(s->events, "s");
    CHECK(s->outcome.finished);
    stage_down();
}

TEST(numbers_that_are_none_stop_the_run) {
    stage *s = stage_up(0);
    opd_learner_optimizer(s->learner)->config.lr = 0;
    for (size_t i = 0; i < 8; i++) s->model->params[s->model->param_count - 1 - i] = INFINITY;
    CHECK_ERR(stage_run(), OPD_ERR_NUMERIC);
    CHECK_CONTAINS(opd_err_context(), "train.lr");
    CHECK_INT(s->outcome.skipped_steps, 2);
    CHECK(!s->outcome.finished);
    stage_down();
}
