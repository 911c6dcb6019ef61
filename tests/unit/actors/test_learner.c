/* test_learner.c - whole optimizer steps: against a step put together by hand, under other cuts
 * and threads, and with everything that may be missing or not a number. */
#include "actors/messages.h"
#include "actors/trainer/sft_loss.h"
#include "tests/support/alloc_test.h"
#include "tests/unit/actors/learner_rig.h"

/* Learns `batch` under options changed by `change` and returns the rig. */
static rig learn_with(void (*change)(opd_learner_options *o), const opd_batch *batch, size_t threads) {
    rig r;
    rig_up(&r, threads);
    if (change != NULL) change(&r.o);
    learn(&r, batch);
    return r;
}

/* ---- one step by hand ---- */

/* The gradient of rig_options' loss, with the whole batch as one micro-batch. */
static void hand_gradient(rig *r, const opd_batch *b, float *grads) {
    opd_graph *graph;
    opd_score_row rows[RIG_TOKENS];
    float old[RIG_TOKENS], logp[RIG_TOKENS], advantages[RIG_TOKENS], weights[RIG_TOKENS];
    float dlogp[RIG_TOKENS];
    uint8_t mask[RIG_TOKENS];
    size_t n = 0;
    for (size_t i = 0; i < b->sample_count; i++) {
        size_t length = b->offsets[i + 1] - b->offsets[i];
        for (size_t at = b->seq_start[i + 1] - length; at < b->seq_start[i + 1]; at++)
            rows[n++] = (opd_score_row){at - 1, b->tokens[at], 1.0f};
    }
    CHECK_OK(opd_graph_create(r->kernels, &r->model->config, OPD_GRAPH_TRAIN, RIG_TOKENS, NULL, &graph));
    opd_graph_set_weights(graph, r->model->params);
    opd_packed packed = {b->sample_count, b->seq_start, b->tokens};
    opd_scores first = {.logp = old}, second = {.logp = logp};
    CHECK_OK(opd_graph_forward(graph, &packed));
    CHECK_OK(opd_graph_score(graph, rows, n, &first));
    opd_advantage_input in = {.sample_count = b->sample_count, .offsets = b->offsets,
                              .groups = b->groups, .rewards = b->rewards,
                              .reward_valid = b->reward_valid, .student_logp = old,
                              .teacher_logp = b->teacher_logp, .teacher_valid = b->teacher_valid};
    opd_advantage_stats stats;
    CHECK_OK(opd_advantage_compute(NULL, &r->o.advantage, &in, advantages, mask, &stats));
    opd_divisor divisor = {.reduction = r->o.reduction, .batch_size = b->sample_count};
    opd_reduction_weights(&divisor, b->sample_count, b->offsets, mask, weights);
    for (size_t t = 0; t < n && r->o.correction.kind == OPD_CORRECTION_TIS; t++)
        weights[t] *= (float)fmin(exp((double)old[t] - (double)b->rollout_logp[t]),
                                  r->o.correction.high);
    opd_policy_stats policy = {0};
    CHECK_OK(opd_graph_forward(graph, &packed));
    CHECK_OK(opd_graph_score(graph, rows, n, &second));
    opd_policy_input loss = {.sample_count = b->sample_count, .offsets = b->offsets, .logp = logp,
                             .old_logp = old, .advantages = advantages, .weights = weights};
    opd_policy_loss(&r->o.policy, &loss, dlogp, NULL, &policy);
    memset(grads, 0, weights_size(r));
    CHECK_OK(opd_graph_backward(graph, rows, n, dlogp, NULL, NULL, grads));
    opd_graph_destroy(graph);
}

/* The learner's step on a stale batch is the step of the gradient put together by hand. */
static void check_step(double tis_clip) {
    rig by_hand, r;
    rig_up(&by_hand, 1);
    rig_up(&r, 1);
    if (tis_clip > 0)
        by_hand.o.correction = r.o.correction =
            (opd_correction_config){.kind = OPD_CORRECTION_TIS, .high = tis_clip};
    opd_batch *batch = rig_batch(3, 0.7, false);
    float *grads = malloc(weights_size(&by_hand));
    opd_optimizer *optimizer;
    hand_gradient(&by_hand, batch, grads);
    CHECK_OK(opd_optimizer_create(&by_hand.o.optimizer, by_hand.model->param_count, NULL, &optimizer));
    CHECK(!opd_optimizer_step(optimizer, by_hand.kernels, by_hand.model, grads).skipped);
    learn(&r, batch);
    CHECK(opd_learner_stepped(r.learner));
    CHECK_INT(opd_learner_steps(r.learner), 1);
    CHECK(memcmp(opd_learner_optimizer(r.learner)->m, grads, weights_size(&r)) == 0);
    CHECK(same_weights(&r, &by_hand));
    opd_optimizer_destroy(optimizer);
    free(grads);
    opd_batch_destroy(batch);
    rig_down(&r);
    rig_down(&by_hand);
}

TEST(a_step_is_what_its_parts_give) { check_step(0); }

TEST(stale_tokens_count_by_their_importance) {
    check_step(1.2);
    opd_batch *own = rig_batch(3, 0.7, true);
    rig with, without;
    rig_up(&with, 1);
    rig_up(&without, 1);
    with.o.correction = (opd_correction_config){.kind = OPD_CORRECTION_TIS, .high = 1.2};
    learn(&with, own);
    learn(&without, own);
    CHECK(same_weights(&with, &without)); /* on-policy: not a bit of difference */
    CHECK_NEAR(with.v[OPD_METRIC_TIS], 1, 0);
    CHECK_NEAR(with.v[OPD_METRIC_TIS_CLIPFRAC], 0, 0);
    CHECK(isnan(without.v[OPD_METRIC_TIS]));
    opd_batch_destroy(own);
    rig_down(&with);
    rig_down(&without);
}

/* ---- cuts, threads, reuse ---- */

static void two_steps(opd_learner_options *o) { o->steps_per_batch = 2; }
static void cut_40(opd_learner_options *o) { o->micro_batch_tokens = 40; }
static void cut_20(opd_learner_options *o) { o->micro_batch_tokens = 20; }

TEST(threads_do_not_change_a_bit) {
    opd_batch *batch = rig_batch(4, 0.7, false);
    rig one = learn_with(two_steps, batch, 1), two = learn_with(two_steps, batch, 2);
    CHECK(same_weights(&one, &two));
    CHECK_INT(opd_learner_steps(one.learner), 2);
    rig_down(&one);
    rig_down(&two);
    opd_batch_destroy(batch);
}

/* Scores are the same bits under any cut; a gradient is a float32 sum per micro-batch, added up
 * over them, so another cut rounds differently (learner.h). */
TEST(the_cut_into_micro_batches_changes_rounding_only) {
    opd_batch *batch = rig_batch(4, 0.7, false);
    rig whole = learn_with(NULL, batch, 1), again = learn_with(cut_40, batch, 1);
    rig cut[2] = {learn_with(cut_40, batch, 1), learn_with(cut_20, batch, 1)};
    CHECK(same_weights(&cut[0], &again)); /* the same cut: the same bits */
    const float *g = opd_learner_optimizer(whole.learner)->m;
    for (int i = 0; i < 2; i++) {
        double error = 0, norm = 0;
        const float *x = opd_learner_optimizer(cut[i].learner)->m;
        for (size_t j = 0; j < whole.model->param_count; j++) {
            error += ((double)x[j] - (double)g[j]) * ((double)x[j] - (double)g[j]);
            norm += (double)g[j] * (double)g[j];
        }
        CHECK(sqrt(error) <= 1e-6 * sqrt(norm));
        (void)printf("cut %d: relative difference %.3g\n", i, sqrt(error / norm));
        CHECK(whole.v[OPD_METRIC_LOSS] == cut[i].v[OPD_METRIC_LOSS] ||
              fabs(whole.v[OPD_METRIC_LOSS] - cut[i].v[OPD_METRIC_LOSS]) < 1e-12);
        CHECK(whole.v[OPD_METRIC_OPD_REVERSE_KL] == cut[i].v[OPD_METRIC_OPD_REVERSE_KL]);
        rig_down(&cut[i]);
    }
    rig_down(&whole);
    rig_down(&again);
    opd_batch_destroy(batch);
}

/* The model's own log-probs as rollout values, as a rollout of the same version records them. */
static void score_batch(const rig *r, opd_batch *b) {
    opd_graph *graph;
    opd_score_row rows[RIG_TOKENS];
    size_t n = 0;
    for (size_t i = 0; i < b->sample_count; i++)
        for (size_t t = 0, length = b->offsets[i + 1] - b->offsets[i]; t < length; t++) {
            size_t at = b->seq_start[i + 1] - length + t;
            rows[n++] = (opd_score_row){at - 1, b->tokens[at], 1.0f};
        }
    opd_packed packed = {b->sample_count, b->seq_start, b->tokens};
    opd_scores out = {.logp = b->rollout_logp};
    CHECK_OK(opd_graph_create(r->kernels, &r->model->config, OPD_GRAPH_SCORE, RIG_TOKENS, NULL, &graph));
    opd_graph_set_weights(graph, r->model->params);
    CHECK_OK(opd_graph_forward(graph, &packed));
    CHECK_OK(opd_graph_score(graph, rows, n, &out));
    opd_graph_destroy(graph);
}

TEST(stale_samples_are_scored_anew_and_own_ones_reused) {
    opd_batch *stale = rig_batch(5, 0.7, false), *own = rig_batch(5, 0.7, true);
    opd_batch *mixed = rig_batch(5, 0.7, true);
    rig one = learn_with(cut_40, stale, 1); /* its rollout values are nonsense and unread */
    rig two, three;
    rig_up(&two, 1);
    score_batch(&two, own);
    cut_40(&two.o);
    learn(&two, own);
    CHECK(same_weights(&one, &two));
    CHECK_NEAR(two.v[OPD_METRIC_LOGPROB_ABS_DIFF], 0, 0); /* decoder and graph: the same bits */
    CHECK(one.v[OPD_METRIC_LOGPROB_ABS_DIFF] > 0.1);
    rig_up(&three, 1);
    score_batch(&three, mixed);
    for (size_t i = 0; i < mixed->sample_count; i += 2) { /* every other one is older */
        mixed->reuse_logp[i] = 0;
        for (size_t t = mixed->offsets[i]; t < mixed->offsets[i + 1]; t++) mixed->rollout_logp[t] = NAN;
    }
    cut_40(&three.o);
    learn(&three, mixed);
    CHECK(same_weights(&one, &three));
    rig_down(&one);
    rig_down(&two);
    rig_down(&three);
    opd_batch_destroy(stale);
    opd_batch_destroy(own);
    opd_batch_destroy(mixed);
}

/* ---- several steps per batch ---- */

static void raw_rewards(opd_learner_options *o) { o->advantage.estimator.normalize_rewards = false; }

/* Samples [first, end) of a batch as a batch of their own. */
static opd_batch *part_of(const opd_batch *b, size_t first, size_t end) {
    opd_batch *part;
    CHECK_OK(opd_batch_create(NULL, RIG_SAMPLES, RIG_TOKENS, RIG_TOP_K, 0, 1, &part));
    opd_batch_clear(part);
    for (size_t i = first; i < end; i++) {
        size_t row = b->offsets[i], rows = b->offsets[i + 1] - row;
        opd_batch_sample s = {.group = b->groups[i], .response_len = (uint32_t)rows,
                              .prompt_len = (uint32_t)(b->seq_start[i + 1] - b->seq_start[i] - rows),
                              .tokens = b->tokens + b->seq_start[i],
                              .rollout_logp = b->rollout_logp + row,
                              .teacher_logp = b->teacher_logp + row,
                              .teacher_valid = b->teacher_valid + row,
                              .teacher_topk = b->teacher_topk + row * RIG_TOP_K,
                              .reward = b->rewards[i], .reward_valid = true, .reuse_logp = true};
        CHECK_OK(opd_batch_add(part, &s));
    }
    return part;
}

TEST(several_steps_share_one_frozen_advantage) {
    opd_batch *batch = rig_batch(6, 0.7, true);
    opd_batch *parts[3] = {part_of(batch, 0, 2), part_of(batch, 2, 4), part_of(batch, 4, 6)};
    rig whole, single;
    rig_up(&whole, 1);
    raw_rewards(&whole.o); /* without groups the parts are independent of each other */
    whole.o.steps_per_batch = 3;
    learn(&whole, batch);
    CHECK_INT(opd_learner_steps(whole.learner), 3);
    rig_up(&single, 1);
    raw_rewards(&single.o);
    double loss = 0;
    for (int i = 0; i < 3; i++) {
        learn(&single, parts[i]);
        loss += single.v[OPD_METRIC_LOSS] / 3;
        opd_batch_destroy(parts[i]);
    }
    CHECK(same_weights(&whole, &single));
    CHECK_NEAR(whole.v[OPD_METRIC_LOSS], loss, 1e-12);
    rig_down(&whole);
    rig_down(&single);
    opd_batch_destroy(batch);
}

static void only_opd(opd_learner_options *o) { o->advantage.only_reward = true; }
static void only_opd_three_steps(opd_learner_options *o) {
    only_opd(o);
    raw_rewards(o);
    o->steps_per_batch = 3;
}

TEST(a_share_without_a_usable_token_makes_no_step) {
    opd_batch *batch = rig_batch(6, 1, true);
    for (size_t t = batch->offsets[2]; t < batch->offsets[4]; t++) batch->teacher_valid[t] = 0;
    rig r = learn_with(only_opd_three_steps, batch, 1);
    CHECK_INT(opd_learner_steps(r.learner), 2);
    CHECK_NEAR(r.v[OPD_METRIC_UNSCORED], 0, 0);
    CHECK(isfinite(r.v[OPD_METRIC_LOSS]));
    rig_down(&r);
    for (size_t t = batch->offsets[0]; t < batch->offsets[2]; t++) batch->teacher_valid[t] = 0;
    r = learn_with(only_opd_three_steps, batch, 1); /* the first one, too */
    CHECK_INT(opd_learner_steps(r.learner), 1);
    CHECK(isfinite(r.v[OPD_METRIC_LOGPROB_ABS_DIFF]));
    rig_down(&r);
    opd_batch_destroy(batch);
}

/* ---- missing scores ---- */

static void fail_policy(opd_learner_options *o) { o->advantage.invalid_policy = OPD_INVALID_FAIL; }

TEST(a_batch_without_a_valid_score_makes_no_step) {
    opd_batch *none = rig_batch(7, 0, false), *some = rig_batch(7, 0.5, false);
    void (*changes[])(opd_learner_options *) = {NULL, only_opd};
    for (int i = 0; i < 2; i++) {
        rig r;
        rig_up(&r, 1);
        if (changes[i] != NULL) changes[i](&r.o);
        float *before = malloc(weights_size(&r));
        memcpy(before, r.model->params, weights_size(&r));
        learn(&r, none);
        learn(&r, none);
        CHECK(!opd_learner_stepped(r.learner));
        CHECK(memcmp(before, r.model->params, weights_size(&r)) == 0);
        CHECK_INT(opd_learner_steps(r.learner), 0);
        CHECK_NEAR(r.v[OPD_METRIC_UNSCORED], 2, 0);
        CHECK_NEAR(r.v[OPD_METRIC_SKIPPED], 0, 0);
        CHECK_NEAR(r.v[OPD_METRIC_VALID_SHARE], 0, 0);
        CHECK_NEAR(r.v[OPD_METRIC_INVALID_TOKENS], (double)none->row_count, 0);
        CHECK(isnan(r.v[OPD_METRIC_LOSS]) && isnan(r.v[OPD_METRIC_OPD_REVERSE_KL]));
        learn(&r, some); /* and then it goes on */
        CHECK(opd_learner_stepped(r.learner));
        CHECK_NEAR(r.v[OPD_METRIC_UNSCORED], 2, 0);
        free(before);
        rig_down(&r);
    }
    opd_batch_destroy(none);
    opd_batch_destroy(some);
}

TEST(values_under_invalid_bits_cannot_change_a_weight) {
    static const float values[] = {0, NAN, INFINITY, -INFINITY, 1e30f, -777};
    void (*changes[])(opd_learner_options *) = {NULL, only_opd, two_steps};
    for (int c = 0; c < 3; c++) {
        rig want = {0};
        for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
            opd_batch *batch = rig_batch(8, 0.5, false);
            size_t invalid = 0;
            for (size_t t = 0; t < batch->row_count; t++) {
                if (batch->teacher_valid[t]) continue;
                batch->teacher_logp[t] = values[i];
                for (int k = 0; k < RIG_TOP_K; k++) batch->teacher_topk[t * RIG_TOP_K + (size_t)k] = (int32_t)i * 1000 - 5;
                invalid++;
            }
            CHECK(invalid > 5 && invalid < batch->row_count);
            rig r = learn_with(changes[c], batch, 1);
            CHECK(opd_learner_stepped(r.learner));
            opd_batch_destroy(batch);
            if (i == 0) {
                want = r;
                continue;
            }
            CHECK(same_weights(&want, &r));
            CHECK(memcmp(opd_learner_optimizer(want.learner)->m, opd_learner_optimizer(r.learner)->m,
                         weights_size(&r)) == 0);
            for (int m = 0; m < OPD_METRIC_COUNT; m++) /* nor a figure */
                CHECK(r.v[m] == want.v[m] || (isnan(r.v[m]) && isnan(want.v[m])));
            rig_down(&r);
        }
        rig_down(&want);
    }
}

TEST(fail_policy_ends_with_the_reason) {
    opd_batch *batch = rig_batch(8, 0.5, false);
    rig r;
    rig_up(&r, 1);
    fail_policy(&r.o);
    CHECK_OK(opd_learner_create(&r.o, &r.learner));
    CHECK_ERR(rig_learn(r.learner, batch), OPD_ERR_TEACHER_LOST);
    rig_down(&r);
    opd_batch_destroy(batch);
}

/* ---- what must make no difference ---- */

static void no_opd(opd_learner_options *o) { o->advantage.use_opd = false; }
static void zero_coef(opd_learner_options *o) { o->advantage.kl_coef = 0; }

TEST(kl_coef_zero_is_opd_off) {
    opd_batch *batch = rig_batch(9, 0.7, false);
    rig off = learn_with(no_opd, batch, 1), zero = learn_with(zero_coef, batch, 1);
    rig on = learn_with(NULL, batch, 1);
    CHECK(same_weights(&off, &zero));
    CHECK(!same_weights(&off, &on));
    rig_down(&off);
    rig_down(&zero);
    rig_down(&on);
    opd_batch_destroy(batch);
}

TEST(only_reward_does_not_look_at_rewards) {
    opd_batch *a = rig_batch(9, 0.7, false), *b = rig_batch(9, 0.7, false);
    for (size_t i = 0; i < b->sample_count; i++) b->rewards[i] = (double)(i * 7 % 5);
    b->reward_valid[1] = 0;
    rig one = learn_with(only_opd, a, 1), two = learn_with(only_opd, b, 1);
    CHECK(same_weights(&one, &two));
    rig_down(&one);
    rig_down(&two);
    opd_batch_destroy(a);
    opd_batch_destroy(b);
}

/* ---- numbers that are none ---- */

TEST(a_loss_that_is_no_number_changes_nothing_and_is_counted) {
    opd_batch *good = rig_batch(10, 0.7, false), *bad = rig_batch(10, 0.7, false);
    bad->rewards[1] = NAN;
    rig r, want;
    rig_up(&r, 1);
    rig_up(&want, 1);
    learn(&r, good);
    learn(&want, good);
    for (uint32_t i = 1; i <= 3; i++) {
        learn(&r, bad);
        CHECK(!opd_learner_stepped(r.learner));
        CHECK_INT(opd_learner_nonfinite_run(r.learner), i);
        CHECK_NEAR(r.v[OPD_METRIC_SKIPPED], i, 0);
    }
    CHECK(same_weights(&r, &want));
    opd_optimizer *a = opd_learner_optimizer(r.learner), *b = opd_learner_optimizer(want.learner);
    CHECK(memcmp(a->m, b->m, weights_size(&r)) == 0 && memcmp(a->v, b->v, weights_size(&r)) == 0);
    CHECK_INT(a->step, 1);
    learn(&r, good); /* and nothing of it lingers */
    learn(&want, good);
    CHECK(same_weights(&r, &want));
    CHECK_INT(opd_learner_nonfinite_run(r.learner), 0);
    CHECK_NEAR(r.v[OPD_METRIC_SKIPPED], 3, 0);
    rig_down(&r);
    rig_down(&want);
    opd_batch_destroy(good);
    opd_batch_destroy(bad);
}

TEST(a_gradient_that_is_no_number_is_refused_too) {
    opd_batch *batch = rig_batch(10, 0.7, false);
    for (size_t t = 0; t < batch->row_count; t++) /* a finite loss; float32 overflows behind it */
        if (batch->teacher_valid[t]) batch->teacher_logp[t] = 3e38f;
    rig r;
    rig_up(&r, 1);
    r.o.advantage.kl_coef = 1;
    for (size_t i = 0; i < r.model->tensor_count; i++) {
        const opd_tensor *t = &r.model->tensors[i];
        for (size_t j = 0; t->rank == 1 && j < t->count; j++) r.model->params[t->offset + j] *= 30;
    }
    float *before = malloc(weights_size(&r));
    memcpy(before, r.model->params, weights_size(&r));
    learn(&r, batch);
    CHECK(!opd_learner_stepped(r.learner) && !isfinite(r.v[OPD_METRIC_GRAD_NORM]));
    CHECK_INT(opd_learner_nonfinite_run(r.learner), 1);
    CHECK_INT(opd_learner_optimizer(r.learner)->skipped, 1); /* it was the gradient, not the loss */
    CHECK(memcmp(before, r.model->params, weights_size(&r)) == 0);
    free(before);
    rig_down(&r);
    opd_batch_destroy(batch);
}

/* ---- supervised ---- */

static void sft(opd_learner_options *o) {
    o->objective = OPD_OBJECTIVE_SFT;
    o->teacher_k = o->student_k = 0;
    o->optimizer.lr = 0;
    o->advantage = (opd_advantage_config){0};
}

/* Loss at the weights + h * direction; lr 0 keeps the weights. */
static double sft_loss_at(rig *r, const opd_batch *batch, const float *center, const float *direction, float h) {
    for (size_t i = 0; i < r->model->param_count; i++) r->model->params[i] = center[i] + h * direction[i];
    opd_learner_destroy(r->learner); /* a new one packs the weights anew */
    r->learner = NULL;
    learn(r, batch);
    return r->v[OPD_METRIC_LOSS];
}

/* A batch of one example whose response ends after `length` of 9 tokens, or is learnt that far. */
static opd_batch *cut_example(uint32_t length, bool by_mask) {
    opd_batch *batch;
    int32_t tokens[12];
    uint8_t learn[9];
    for (uint32_t t = 0; t < 12; t++) tokens[t] = (int32_t)((t * t * 3 + 1) % RIG_VOCAB);
    for (uint32_t t = 0; t < 9; t++) learn[t] = t < length;
    CHECK_OK(opd_batch_create(NULL, RIG_SAMPLES, RIG_TOKENS, 0, 0, 1, &batch));
    opd_batch_clear(batch);
    opd_batch_sample s = {.prompt_len = 3, .response_len = by_mask ? 9 : length, .tokens = tokens,
                          .learn = by_mask ? learn : NULL};
    CHECK_OK(opd_batch_add(batch, &s));
    return batch;
}

TEST(tokens_of_other_roles_are_not_learnt) {
    for (uint32_t length = 1; length <= 9; length++) {
        opd_batch *masked = cut_example(length, true), *cut = cut_example(length, false);
        rig a, b;
        rig_up(&a, 1);
        rig_up(&b, 1);
        sft(&a.o);
        sft(&b.o);
        learn(&a, masked);
        learn(&b, cut);
        CHECK_NEAR(a.v[OPD_METRIC_LOSS], b.v[OPD_METRIC_LOSS], 1e-6);
        CHECK_NEAR(a.v[OPD_METRIC_GRAD_NORM], b.v[OPD_METRIC_GRAD_NORM], 1e-5);
        opd_batch_destroy(masked);
        opd_batch_destroy(cut);
        rig_down(&a);
        rig_down(&b);
    }
}

/* The loss of examples that are only measured is that of learning them, under the present weights. */
TEST(a_measured_loss_is_the_training_loss) {
    opd_batch *batch = cut_example(6, true);
    rig r;
    rig_up(&r, 1);
    sft(&r.o);
    r.o.optimizer.lr = 0.01; /* so that the weights move */
    learn(&r, batch);
    for (int step = 0; step < 3; step++) {
        double loss = 0, before = r.v[OPD_METRIC_LOSS];
        uint64_t tokens = 0;
        CHECK_OK(opd_learner_measure(r.learner, batch, &loss, &tokens));
        CHECK_INT(tokens, 6);
        CHECK(fabs(loss / 6 - before) > 1e-4); /* that was before the step */
        learn(&r, batch);
        CHECK_NEAR(r.v[OPD_METRIC_LOSS], loss / 6, 1e-6);
    }
    opd_batch_destroy(batch);
    rig_down(&r);
}

TEST(sft_gradient_is_that_of_the_cross_entropy) {
    opd_batch *batch;
    rig r;
    rig_up(&r, 1);
    sft(&r.o);
    CHECK_OK(opd_batch_create(NULL, RIG_SAMPLES, RIG_TOKENS, 0, 0, 1, &batch));
    opd_batch_clear(batch);
    for (uint32_t i = 0; i < 4; i++) {
        int32_t tokens[16];
        for (uint32_t t = 0; t < 16; t++) tokens[t] = (int32_t)((i * 5 + t * t * 3) % RIG_VOCAB);
        opd_batch_sample s = {.group = i, .prompt_len = 3 + i, .response_len = 9 - i, .tokens = tokens};
        CHECK_OK(opd_batch_add(batch, &s));
    }
    size_t n = r.model->param_count;
    float *center = malloc(n * sizeof *center), *direction = malloc(n * sizeof *direction);
    memcpy(center, r.model->params, n * sizeof *center);
    opd_rng rng;
    opd_rng_init(&rng, 4);
    for (int trial = 0; trial < 4; trial++) {
        double slope = 0;
        for (size_t i = 0; i < n; i++) direction[i] = (float)opd_rng_normal(&rng) * 0.02f;
        double at = sft_loss_at(&r, batch, center, direction, 0);
        CHECK(at > 1 && at < 100);
        const float *g = opd_learner_optimizer(r.learner)->m;
        for (size_t i = 0; i < n; i++) slope += (double)g[i] * (double)direction[i];
        double h = 0.02;
        double difference = (sft_loss_at(&r, batch, center, direction, (float)h) -
                             sft_loss_at(&r, batch, center, direction, (float)-h)) / (2 * h);
        CHECK_NEAR(difference, slope, 2e-3 * fabs(slope) + 2e-3);
    }
    free(center);
    free(direction);
    opd_batch_destroy(batch);
    rig_down(&r);
}

/* ---- creation and the batch's bounds ---- */

TEST(no_memory_is_an_error_at_every_point) {
    rig r;
    rig_up(&r, 1);
    opd_test_alloc memory;
    opd_learner *learner = NULL;
    r.o.alloc = &memory.alloc;
    for (long n = 1;; n++) {
        opd_test_alloc_failing(&memory, n, false);
        opd_err err = opd_learner_create(&r.o, &learner);
        if (err == OPD_OK) break;
        CHECK_INT(err, OPD_ERR_NOMEM);
        CHECK_INT(memory.live, 0);
        CHECK(n < 200);
    }
    opd_learner_destroy(learner);
    CHECK_INT(memory.live, 0);
    for (long n = 1; n <= 12; n++) {
        opd_batch *batch;
        opd_test_alloc_failing(&memory, n, false);
        CHECK_ERR(opd_batch_create(&memory.alloc, 3, 10, 2, 0, 1, &batch), OPD_ERR_NOMEM);
        CHECK_INT(memory.live, 0);
    }
    r.o.policy.dual_clip = 0.5;
    CHECK_ERR(opd_learner_create(&r.o, &learner), OPD_ERR_CONFIG);
    rig_down(&r);
}

TEST(a_batch_takes_what_fits_and_fills_what_is_absent) {
    opd_batch *b;
    int32_t tokens[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    float logp[4] = {-1, -2, -3, -4};
    opd_batch_sample s = {.prompt_len = 3, .response_len = 4, .tokens = tokens, .teacher_logp = logp,
                          .reuse_logp = true};
    CHECK_OK(opd_batch_create(NULL, 2, 10, 3, 0, 1, &b));
    opd_batch_clear(b);
    CHECK_OK(opd_batch_add(b, &s));
    CHECK_INT(b->reuse_logp[0], 0); /* nothing there to reuse */
    for (int t = 0; t < 4; t++) CHECK_INT(b->teacher_valid[t], 0); /* no bits: nothing is valid */
    for (int t = 0; t < 12; t++) CHECK_INT(b->teacher_topk[t], -1);
    CHECK_ERR(opd_batch_add(b, &s), OPD_ERR_LIMIT); /* 7 + 7 tokens */
    CHECK_INT(b->sample_count, 1);
    s.prompt_len = 1, s.response_len = 2;
    CHECK_OK(opd_batch_add(b, &s));
    CHECK_ERR(opd_batch_add(b, &s), OPD_ERR_LIMIT); /* two samples */
    CHECK_INT(b->token_count, 10);
    CHECK_INT(b->row_count, 6);
    opd_batch_clear(b);
    CHECK_OK(opd_batch_add(b, &s));
    opd_batch_destroy(b);
    opd_batch_destroy(NULL);
}
