/* test_learner_terms.c - the learner's other terms: the reference model behind KL loss and KL
 * shaping, estimators and corrections through whole steps, and their metrics. The formulas are
 * proven in test_estimators.c; here it is that the learner hands them the right numbers. */
#include "tests/unit/actors/learner_rig.h"

static void rig_with(rig *r, uint64_t reference_seed) {
    rig_up(r, 1);
    r->reference = tiny_model(RIG_VOCAB, 2, reference_seed);
}

static void with_kl_loss(rig *r) {
    r->o.ref_params = r->reference->params;
    r->o.policy.kl_coef = 0.1;
    r->o.policy.kl_type = OPD_KL_K3;
}

/* Log-probs of the batch's response rows under `model`. */
static void score(const rig *r, const opd_model *model, const opd_batch *b, float *out) {
    opd_graph *graph;
    opd_score_row rows[RIG_TOKENS];
    size_t n = 0;
    for (size_t i = 0; i < b->sample_count; i++) {
        size_t length = b->offsets[i + 1] - b->offsets[i];
        for (size_t at = b->seq_start[i + 1] - length; at < b->seq_start[i + 1]; at++)
            rows[n++] = (opd_score_row){at - 1, b->tokens[at], 1.0f};
    }
    CHECK_OK(opd_graph_create(r->kernels, &model->config, OPD_GRAPH_SCORE, RIG_TOKENS, NULL, &graph));
    opd_graph_set_weights(graph, model->params);
    opd_packed packed = {b->sample_count, b->seq_start, b->tokens};
    opd_scores scores = {.logp = out};
    CHECK_OK(opd_graph_forward(graph, &packed));
    CHECK_OK(opd_graph_score(graph, rows, n, &scores));
    opd_graph_destroy(graph);
}

/* Mean over samples of the token means of x. */
static double sample_mean(const opd_batch *b, const double *x) {
    double sum = 0;
    for (size_t i = 0; i < b->sample_count; i++) {
        double inner = 0;
        for (size_t t = b->offsets[i]; t < b->offsets[i + 1]; t++) inner += x[t];
        sum += inner / (double)(b->offsets[i + 1] - b->offsets[i]);
    }
    return sum / (double)b->sample_count;
}

TEST(a_student_that_is_the_reference_learns_as_without) {
    opd_batch *batch = rig_batch(3, 0.7, false);
    rig with, without;
    rig_with(&with, 21); /* the student's own seed */
    rig_with(&without, 21);
    with_kl_loss(&with);
    learn(&with, batch);
    learn(&without, batch);
    CHECK_NEAR(with.v[OPD_METRIC_KL_LOSS], 0, 0);
    CHECK(isnan(without.v[OPD_METRIC_KL_LOSS]));
    CHECK(same_weights(&with, &without));
    learn(&with, batch); /* the student has moved, the reference has not */
    CHECK(with.v[OPD_METRIC_KL_LOSS] > 0);
    opd_batch_destroy(batch);
    rig_down(&with);
    rig_down(&without);
}

TEST(the_kl_loss_is_to_the_reference_in_any_cut) {
    static const size_t cuts[] = {RIG_TOKENS, 40, 20};
    opd_batch *batch = rig_batch(4, 0.7, true);
    for (size_t i = 0; i < 3; i++) {
        rig r;
        float own[RIG_TOKENS], ref[RIG_TOKENS];
        double x[RIG_TOKENS];
        rig_with(&r, 77);
        with_kl_loss(&r);
        r.o.micro_batch_tokens = cuts[i];
        score(&r, r.model, batch, own);
        score(&r, r.reference, batch, ref);
        for (size_t t = 0; t < batch->row_count; t++) {
            double d = (double)own[t] - (double)ref[t];
            x[t] = expm1(-d) + d;
        }
        learn(&r, batch);
        CHECK_NEAR(r.v[OPD_METRIC_KL_LOSS], sample_mean(batch, x), 1e-6);
        CHECK_NEAR(r.v[OPD_METRIC_LOSS], r.v[OPD_METRIC_PG_LOSS] + 0.1 * r.v[OPD_METRIC_KL_LOSS], 1e-8);
        rig_down(&r);
    }
    opd_batch_destroy(batch);
}

/* It pulls: after some steps of nothing else the student is nearer. */
TEST(the_kl_loss_draws_the_student_to_the_reference) {
    opd_batch *batch = rig_batch(5, 0, true);
    rig r;
    rig_with(&r, 77);
    with_kl_loss(&r);
    r.o.advantage.use_opd = false;
    r.o.policy.kl_type = OPD_KL_K2;
    r.o.policy.kl_coef = 10;
    for (size_t i = 0; i < batch->sample_count; i++) batch->reward_valid[i] = 0;
    learn(&r, batch);
    double before = r.v[OPD_METRIC_KL_LOSS];
    for (int i = 0; i < 20; i++) learn(&r, batch);
    CHECK(r.v[OPD_METRIC_KL_LOSS] < 0.5 * before);
    opd_batch_destroy(batch);
    rig_down(&r);
}

TEST(the_shaped_reward_has_the_kl_before_the_first_step) {
    opd_batch *batch = rig_batch(6, 0.7, false);
    rig r;
    float own[RIG_TOKENS], ref[RIG_TOKENS];
    double x[RIG_TOKENS];
    rig_with(&r, 77);
    r.o.ref_params = r.reference->params;
    r.o.advantage.use_opd = false;
    r.o.advantage.estimator = (opd_estimator_config){
        .kind = OPD_ESTIMATOR_REINFORCE, .gamma = 1, .kl_coef = 0.25, .kl_type = OPD_KL_K1};
    r.o.steps_per_batch = 2; /* estimated once, then frozen */
    score(&r, r.model, batch, own);
    score(&r, r.reference, batch, ref);
    for (size_t i = 0; i < batch->sample_count; i++) {
        double after = batch->rewards[i];
        for (size_t t = batch->offsets[i + 1]; t-- > batch->offsets[i];)
            x[t] = after = after - 0.25 * ((double)own[t] - (double)ref[t]);
    }
    learn(&r, batch);
    CHECK_NEAR(r.v[OPD_METRIC_ADVANTAGES], sample_mean(batch, x), 1e-5);
    opd_batch_destroy(batch);
    rig_down(&r);
}

/* A sample-wide ratio must see whole samples whatever the cut. */
TEST(gspo_is_the_same_in_any_cut) {
    static const size_t cuts[] = {RIG_TOKENS, 40, 20};
    opd_batch *batch = rig_batch(7, 0.7, false);
    double norm = 0, loss = 0;
    for (size_t i = 0; i < 3; i++) {
        rig r;
        rig_with(&r, 77);
        r.o.policy.kind = OPD_POLICY_GSPO;
        r.o.steps_per_batch = 2; /* the second share meets ratios that are not 1 */
        r.o.micro_batch_tokens = cuts[i];
        learn(&r, batch);
        if (i == 0) norm = r.v[OPD_METRIC_GRAD_NORM], loss = r.v[OPD_METRIC_LOSS];
        CHECK_NEAR(r.v[OPD_METRIC_GRAD_NORM], norm, 1e-5 * norm);
        CHECK_NEAR(r.v[OPD_METRIC_LOSS], loss, 1e-6);
        rig_down(&r);
    }
    opd_batch_destroy(batch);
}

TEST(the_ratio_is_to_the_learner_or_to_the_rollout) {
    opd_batch *batch = rig_batch(8, 0.7, false);
    rig r;
    float own[RIG_TOKENS];
    double ratio[RIG_TOKENS], gap[RIG_TOKENS];
    rig_with(&r, 77);
    score(&r, r.model, batch, own);
    for (size_t t = 0; t < batch->row_count; t++) {
        gap[t] = (double)batch->rollout_logp[t] - (double)own[t];
        ratio[t] = exp(-gap[t]);
    }
    learn(&r, batch);
    CHECK_NEAR(r.v[OPD_METRIC_OIS], 1, 1e-6);
    CHECK_NEAR(r.v[OPD_METRIC_PPO_KL], 0, 1e-6);
    double mean = 0;
    for (size_t t = 0; t < batch->row_count; t++) mean += gap[t] / (double)batch->row_count;
    CHECK_NEAR(r.v[OPD_METRIC_MISMATCH_KL], mean, 1e-6);
    rig_down(&r);
    rig_with(&r, 77);
    r.o.rollout_is_old = true;
    learn(&r, batch);
    CHECK_NEAR(r.v[OPD_METRIC_OIS], sample_mean(batch, ratio), 1e-5);
    CHECK_NEAR(r.v[OPD_METRIC_PPO_KL], sample_mean(batch, gap), 1e-5);
    rig_down(&r);
    opd_batch_destroy(batch);
}

/* Bounds that nothing meets leave no policy loss, and hence only the decay of weights. */
TEST(tokens_that_icepop_drops_do_not_teach) {
    opd_batch *batch = rig_batch(9, 1, false);
    rig r;
    rig_with(&r, 77);
    r.o.correction = (opd_correction_config){.kind = OPD_CORRECTION_ICEPOP, .low = 1, .high = 1};
    learn(&r, batch);
    CHECK_NEAR(r.v[OPD_METRIC_GRAD_NORM], 0, 0);
    CHECK_NEAR(r.v[OPD_METRIC_TIS], 0, 0);
    CHECK_NEAR(r.v[OPD_METRIC_TIS_CLIPFRAC], 1, 0);
    CHECK(r.v[OPD_METRIC_TIS_ABS] > 0);
    rig_down(&r);
    opd_batch_destroy(batch);
}

/* Only tokens with a negative advantage, and only where the rollout liked them better. */
TEST(opsm_leaves_out_what_the_student_has_left) {
    opd_batch *batch = rig_batch(10, 1, false);
    rig r;
    rig_with(&r, 77);
    r.o.policy.opsm_delta = 1e-6;
    for (size_t t = 0; t < batch->row_count; t++) batch->rollout_logp[t] = -0.1f; /* far above */
    learn(&r, batch);
    double left = r.v[OPD_METRIC_OPSM_CLIPFRAC];
    CHECK(left > 0.1 && left < 0.9); /* those with a negative advantage */
    rig_down(&r);
    rig_with(&r, 77);
    r.o.policy.opsm_delta = 1e-6;
    for (size_t t = 0; t < batch->row_count; t++) batch->rollout_logp[t] = -12; /* far below */
    learn(&r, batch);
    CHECK_NEAR(r.v[OPD_METRIC_OPSM_CLIPFRAC], 0, 0);
    rig_down(&r);
    opd_batch_destroy(batch);
}
