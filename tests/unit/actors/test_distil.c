/* test_distil.c - the distillation loss within whole optimizer steps: its gradient down to the weights by
 * finite differences, what leaves it, and that order and cuts do not matter. */
#include "actors/messages.h"
#include "tests/support/alloc_test.h"
#include "tests/unit/actors/learner_rig.h"

/* A learner of forward_kl on the teacher's top-k alone; the whole vocabulary may be listed. */
static void distil_up(rig *r, opd_support_kind support, size_t listed) {
    rig_up(r, 1);
    r->o.teacher_k = listed;
    r->o.asked_k = RIG_TOP_K;
    r->o.advantage.only_reward = true;
    r->o.advantage.kl_coef = 0;
    r->o.signal = (opd_contrast_config){.coef = 0.5, .support = support, .k = RIG_TOP_K,
                                        .divergence = {.kind = OPD_DIVERGENCE_FORWARD_KL, .jsd_alpha = 0.4}};
}

static const float *gradient(const rig *r) { return opd_learner_optimizer(r->learner)->m; }

/* rig_batch with lists of `listed` ids and log-probs of some teacher. */
static opd_batch *batch_with_lists(uint64_t seed, double valid_share, size_t listed) {
    opd_batch *plain = rig_batch(seed, valid_share, false), *batch;
    opd_rng rng;
    opd_rng_init(&rng, seed + 1);
    CHECK_OK(opd_batch_create(NULL, RIG_SAMPLES, RIG_TOKENS, listed, RIG_TOP_K, 1, &batch));
    opd_batch_clear(batch);
    int32_t *ids = malloc(RIG_TOKENS * listed * sizeof *ids);
    float *logps = malloc(RIG_TOKENS * listed * sizeof *logps);
    int32_t asked[RIG_TOKENS * RIG_TOP_K]; /* of what a student may have had, and the teacher's words on it */
    float asked_logp[RIG_TOKENS * RIG_TOP_K];
    for (size_t i = 0; i < plain->sample_count; i++) {
        size_t row = plain->offsets[i], rows = plain->offsets[i + 1] - row;
        for (size_t t = 0; t < rows; t++) {
            double sum = 0, weights[RIG_VOCAB];
            for (size_t j = 0; j < RIG_VOCAB; j++) sum += weights[j] = exp(2 * opd_rng_normal(&rng));
            for (size_t k = 0; k < RIG_TOP_K; k++) {
                size_t id = (t * 5 + k * 11) % RIG_VOCAB;
                asked[t * RIG_TOP_K + k] = (int32_t)id;
                asked_logp[t * RIG_TOP_K + k] = (float)log(weights[id] / sum);
            }
            for (size_t k = 0; k < listed; k++) { /* the most likely first */
                size_t best = 0;
                for (size_t j = 1; j < RIG_VOCAB; j++)
                    if (weights[j] > weights[best]) best = j;
                ids[t * listed + k] = (int32_t)best;
                logps[t * listed + k] = (float)log(weights[best] / sum);
                weights[best] = 0;
            }
        }
        opd_batch_sample s = {.group = plain->groups[i], .response_len = (uint32_t)rows,
                              .prompt_len = (uint32_t)(plain->seq_start[i + 1] - plain->seq_start[i] - rows),
                              .tokens = plain->tokens + plain->seq_start[i],
                              .rollout_logp = plain->rollout_logp + row,
                              .teacher_logp = plain->teacher_logp + row,
                              .teacher_valid = plain->teacher_valid + row, .teacher_topk = ids,
                              .teacher_topk_logp = logps, .asked_ids = asked, .asked_logp = asked_logp,
                              .reward = plain->rewards[i],
                              .reward_valid = true};
        CHECK_OK(opd_batch_add(batch, &s));
    }
    free(ids);
    free(logps);
    opd_batch_destroy(plain);
    return batch;
}

/* ---- the gradient of the weights ---- */

/* coef times the mean divergence as the learner itself reports it, at moved weights. */
static double loss_at(const rig *from, const opd_batch *batch, const float *params) {
    rig r = *from;
    r.model = tiny_model(RIG_VOCAB, 2, 21);
    memcpy(r.model->params, params, r.model->param_count * sizeof(float));
    r.o.model = r.model;
    r.kernels = r.o.kernels = tiny_kernels(1);
    r.learner = NULL;
    learn(&r, batch);
    double loss = r.v[OPD_METRIC_LOSS];
    rig_down(&r);
    return loss;
}

static void check_weights(opd_support_kind support, opd_divergence_kind kind, opd_divergence_tail tail,
                          double temperature) {
    size_t listed = support == OPD_SUPPORT_FULL ? RIG_VOCAB : RIG_TOP_K;
    opd_batch *batch = batch_with_lists(5, 0.7, listed);
    rig r;
    distil_up(&r, support, listed);
    r.o.signal.divergence.kind = kind;
    r.o.signal.divergence.tail = tail;
    r.o.temperature = temperature;
    size_t count = r.model->param_count;
    float *params = malloc(count * sizeof *params);
    memcpy(params, r.model->params, count * sizeof *params);
    learn(&r, batch);
    CHECK(opd_learner_stepped(r.learner));
    double norm = 0;
    for (size_t i = 0; i < count; i++) norm += (double)gradient(&r)[i] * (double)gradient(&r)[i];
    norm = sqrt(norm);
    CHECK(norm > 1e-3);
    const double step = 3e-4; /* along the gradient itself: its length is the slope. (Further off the
                                  student's most likely ids are others, and so is its support.) */
    float *moved = malloc(count * sizeof *moved);
    double losses[2];
    for (int side = 0; side < 2; side++) {
        for (size_t i = 0; i < count; i++)
            moved[i] = (float)((double)params[i] + (side ? -step : step) * (double)gradient(&r)[i] / norm);
        losses[side] = loss_at(&r, batch, moved);
    }
    CHECK_NEAR((losses[0] - losses[1]) / (2 * step), norm, 0.002 * norm);
    free(moved);
    free(params);
    rig_down(&r);
    opd_batch_destroy(batch);
}

TEST(the_gradient_of_the_weights_is_the_slope_of_the_loss) {
    check_weights(OPD_SUPPORT_TEACHER_TOPK, OPD_DIVERGENCE_FORWARD_KL, OPD_TAIL_BUCKET, 1);
    check_weights(OPD_SUPPORT_FULL, OPD_DIVERGENCE_REVERSE_KL, OPD_TAIL_BUCKET, 0.7);
    check_weights(OPD_SUPPORT_TEACHER_TOPK, OPD_DIVERGENCE_JSD, OPD_TAIL_RENORMALISE, 1);
    check_weights(OPD_SUPPORT_UNION, OPD_DIVERGENCE_FORWARD_KL, OPD_TAIL_TRUNCATE, 1);
    check_weights(OPD_SUPPORT_STUDENT_TOPK, OPD_DIVERGENCE_REVERSE_KL, OPD_TAIL_BUCKET, 0.7);
}

/* ---- beside the policy loss ---- */

static double distance(const float *a, const float *b, size_t n) {
    double error = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        error += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        norm += (double)b[i] * (double)b[i];
    }
    return sqrt(error / norm);
}

/* One backward pass carries both: its gradient is the sum of that of each alone; of the critic, too. */
static void check_sum(opd_estimator_kind estimator) {
    opd_batch *batch = batch_with_lists(6, 1, RIG_TOP_K);
    rig both, policy, distil;
    distil_up(&both, OPD_SUPPORT_TEACHER_TOPK, RIG_TOP_K);
    distil_up(&policy, OPD_SUPPORT_TEACHER_TOPK, RIG_TOP_K);
    distil_up(&distil, OPD_SUPPORT_TEACHER_TOPK, RIG_TOP_K);
    rig *with_policy[] = {&both, &policy};
    policy.o.signal.coef = 0;
    for (int i = 0; i < 2; i++) {
        opd_learner_options *o = &with_policy[i]->o;
        o->advantage.only_reward = false;
        o->advantage.kl_coef = 0.3;
        o->advantage.estimator.kind = estimator;
        o->advantage.estimator.gamma = o->advantage.estimator.lambda = 1;
        o->policy.entropy_coef = 0.02;
        o->critic = (opd_critic_config){.clip = 0.2, .coef = 0.5};
        o->critic_lr = 1e-3;
        CHECK_OK(opd_learner_create(o, &with_policy[i]->learner));
        opd_critic *critic = opd_learner_critic(with_policy[i]->learner);
        for (size_t j = 0; critic != NULL && j < critic->head.param_count; j++)
            critic->head.params[j] = (j % 2 ? 0.2f : -0.1f); /* it begins at 0, and would pass nothing on */
    }
    learn(&both, batch);
    learn(&policy, batch);
    learn(&distil, batch);
    size_t n = both.model->param_count;
    float *sum = malloc(n * sizeof *sum);
    for (size_t i = 0; i < n; i++) sum[i] = gradient(&policy)[i] + gradient(&distil)[i];
    CHECK(distance(gradient(&both), sum, n) < 1e-5);
    CHECK(distance(gradient(&policy), sum, n) > 0.01); /* each is a part that shows */
    CHECK_NEAR(both.v[OPD_METRIC_LOSS], policy.v[OPD_METRIC_LOSS] + distil.v[OPD_METRIC_LOSS], 1e-6);
    CHECK_NEAR(distil.v[OPD_METRIC_LOSS], 0.5 * distil.v[OPD_METRIC_OPD_LOSS], 1e-6);
    double sampled = policy.v[OPD_METRIC_OPD_GRAD_NORM], diverging = distil.v[OPD_METRIC_OPD_GRAD_NORM];
    CHECK(sampled > 0 && diverging > 0); /* two vectors, and their sum */
    CHECK(both.v[OPD_METRIC_OPD_GRAD_NORM] < sampled + diverging);
    CHECK(both.v[OPD_METRIC_OPD_GRAD_NORM] > fabs(sampled - diverging));
    CHECK_NEAR(both.v[OPD_METRIC_RL_GRAD_NORM], policy.v[OPD_METRIC_RL_GRAD_NORM],
               1e-5 * policy.v[OPD_METRIC_RL_GRAD_NORM]);
    CHECK_NEAR(distil.v[OPD_METRIC_RL_GRAD_NORM], 0, 0);
    CHECK(both.v[OPD_METRIC_RL_GRAD_NORM] > 0 && both.v[OPD_METRIC_OPD_GRAD_NORM] > 0);
    CHECK(distil.v[OPD_METRIC_OPD_TEACHER_MASS] > 0.2 && distil.v[OPD_METRIC_OPD_TEACHER_MASS] < 1);
    CHECK(isnan(policy.v[OPD_METRIC_OPD_LOSS]));
    free(sum);
    rig_down(&both);
    rig_down(&policy);
    rig_down(&distil);
    opd_batch_destroy(batch);
}

TEST(policy_and_distillation_add_up) { check_sum(OPD_ESTIMATOR_GRPO); }

TEST(critic_and_distillation_add_up) { check_sum(OPD_ESTIMATOR_PPO); }

/* ---- what leaves the loss ---- */

/* Rows without a valid score, or without a list, may hold anything. */
TEST(what_is_not_valid_cannot_change_a_bit) {
    static const float values[] = {0, NAN, INFINITY, -INFINITY, -777};
    rig first;
    for (size_t v = 0; v < OPD_COUNTOF(values); v++) {
        opd_batch *batch = batch_with_lists(7, 0.6, RIG_TOP_K);
        for (size_t t = 0; t < batch->row_count; t++) {
            if (batch->teacher_valid[t] && t % 5 != 0) continue;
            for (size_t k = 0; k < RIG_TOP_K; k++) {
                batch->teacher_topk_logp[t * RIG_TOP_K + k] = values[v];
                if (batch->teacher_valid[t]) batch->teacher_topk[t * RIG_TOP_K + k] = -1;
            }
            if (!batch->teacher_valid[t]) batch->teacher_logp[t] = values[v];
        }
        rig r;
        distil_up(&r, OPD_SUPPORT_TEACHER_TOPK, RIG_TOP_K);
        learn(&r, batch);
        if (v == 0) first = r;
        else {
            CHECK(memcmp(gradient(&r), gradient(&first), r.model->param_count * sizeof(float)) == 0);
            rig_down(&r);
        }
        opd_batch_destroy(batch);
    }
    rig_down(&first);
}

TEST(a_batch_without_a_list_makes_no_step) {
    opd_batch *batch = batch_with_lists(8, 1, RIG_TOP_K);
    memset(batch->teacher_topk, 0xff, batch->row_count * RIG_TOP_K * sizeof(int32_t));
    rig r;
    distil_up(&r, OPD_SUPPORT_TEACHER_TOPK, RIG_TOP_K);
    learn(&r, batch);
    CHECK(!opd_learner_stepped(r.learner));
    CHECK_NEAR(r.v[OPD_METRIC_UNSCORED], 1, 0);
    rig_down(&r);
    opd_batch_destroy(batch);
}

/* ---- order and cuts ---- */

static void check_selection(opd_token_selection selection, opd_reduction reduction) {
    opd_batch *batch = batch_with_lists(9, 0.8, RIG_TOP_K);
    opd_batch *reversed;
    CHECK_OK(opd_batch_create(NULL, RIG_SAMPLES, RIG_TOKENS, RIG_TOP_K, RIG_TOP_K, 1, &reversed));
    opd_batch_clear(reversed);
    for (size_t i = batch->sample_count; i-- > 0;) {
        size_t row = batch->offsets[i], rows = batch->offsets[i + 1] - row;
        opd_batch_sample s = {.group = batch->groups[i], .response_len = (uint32_t)rows,
                              .prompt_len = (uint32_t)(batch->seq_start[i + 1] - batch->seq_start[i] - rows),
                              .tokens = batch->tokens + batch->seq_start[i],
                              .rollout_logp = batch->rollout_logp + row,
                              .teacher_logp = batch->teacher_logp + row,
                              .teacher_valid = batch->teacher_valid + row,
                              .teacher_topk = batch->teacher_topk + row * RIG_TOP_K,
                              .teacher_topk_logp = batch->teacher_topk_logp + row * RIG_TOP_K,
                              .reward = batch->rewards[i], .reward_valid = true};
        CHECK_OK(opd_batch_add(reversed, &s));
    }
    rig whole, cut, other;
    rig *rigs[] = {&whole, &cut, &other};
    for (int i = 0; i < 3; i++) {
        distil_up(rigs[i], OPD_SUPPORT_TEACHER_TOPK, RIG_TOP_K);
        rigs[i]->o.signal.selection = selection;
        rigs[i]->o.signal.token_share = 0.4;
        rigs[i]->o.reduction = reduction;
        if (i == 1) rigs[i]->o.micro_batch_tokens = 20;
        learn(rigs[i], i == 2 ? reversed : batch);
    }
    CHECK(distance(gradient(&cut), gradient(&whole), whole.model->param_count) < 1e-6);
    CHECK(distance(gradient(&other), gradient(&whole), whole.model->param_count) < 1e-6);
    CHECK_NEAR(cut.v[OPD_METRIC_LOSS], whole.v[OPD_METRIC_LOSS], 1e-9);
    for (int i = 0; i < 3; i++) rig_down(rigs[i]);
    opd_batch_destroy(reversed);
    opd_batch_destroy(batch);
}

TEST(order_and_cuts_change_rounding_only) {
    check_selection(OPD_SELECT_ALL, OPD_REDUCTION_SAMPLE_MEAN);
    check_selection(OPD_SELECT_ENTROPY, OPD_REDUCTION_SAMPLE_MEAN);
    check_selection(OPD_SELECT_DIVERGENCE, OPD_REDUCTION_TOKEN_MEAN);
    check_selection(OPD_SELECT_ENTROPY_OR_DIVERGENCE, OPD_REDUCTION_TOKEN_MEAN);
    check_selection(OPD_SELECT_ENTROPY_AND_DIVERGENCE, OPD_REDUCTION_SAMPLE_MEAN);
}

/* ---- the baseline without a teacher ---- */

TEST(a_constant_teacher_dislikes_unlikely_tokens) {
    const float student[] = {-0.1f, -2.30f, -2.31f, -9};
    float out[4];
    uint8_t valid[4];
    opd_constant_teacher(0.1, 4, student, out, valid);
    const double difference[] = {0, 0, 1, 1};
    for (int i = 0; i < 4; i++) {
        CHECK_NEAR((double)student[i] - (double)out[i], difference[i], 1e-6);
        CHECK_INT(valid[i], 1);
    }
    opd_batch *batch = rig_batch(3, 0, false);
    rig r;
    distil_up(&r, OPD_SUPPORT_SAMPLED, RIG_TOP_K);
    r.o.asked_k = 0;
    r.o.signal.coef = 0;
    r.o.advantage.kl_coef = 1;
    r.o.constant_prob = 0.1;
    learn(&r, batch);
    CHECK(opd_learner_stepped(r.learner)); /* nothing of a teacher is asked for */
    rig_down(&r);
    opd_batch_destroy(batch);
}

/* ---- memory ---- */

TEST(a_learner_that_cannot_be_made_leaves_nothing) {
    for (long fail_at = 1;; fail_at++) {
        CHECK(fail_at < 100);
        opd_test_alloc memory;
        opd_test_alloc_failing(&memory, fail_at, false);
        rig r;
        distil_up(&r, OPD_SUPPORT_TEACHER_TOPK, RIG_TOP_K);
        r.o.alloc = &memory.alloc;
        opd_err err = opd_learner_create(&r.o, &r.learner);
        bool made = err == OPD_OK;
        if (!made) CHECK_INT(err, OPD_ERR_NOMEM);
        rig_down(&r);
        CHECK_INT(memory.live, 0);
        if (made && atomic_load(&memory.calls) < fail_at) break;
    }
}
