/* test_critic.c - PPO's critic: its loss against difference quotients through head and student, its
 * part in the learner's steps, and what a checkpoint keeps of it. The formulas of advantages and
 * value loss are proven in test_estimators.c. */
#include <unistd.h>

#include "actors/checkpoint/checkpoint.h"
#include "core/base/file.h"
#include "models/safetensors.h"
#include "models/tokenizer.h"
#include "tests/support/alloc_test.h"
#include "tests/unit/actors/learner_rig.h"

static void rig_ppo(rig *r, size_t threads) {
    rig_up(r, threads);
    r->o.advantage.use_opd = false;
    r->o.advantage.estimator =
        (opd_estimator_config){.kind = OPD_ESTIMATOR_PPO, .gamma = 0.99, .lambda = 0.95};
    r->o.critic = (opd_critic_config){.clip = 0.2, .coef = 0.5};
    r->o.critic_lr = 1e-2;
}

/* ---- the head alone ---- */

enum { HIDDEN = 6, ROWS = 9 };

static opd_critic *head_of(opd_rng *rng, double clip) {
    opd_critic *critic;
    opd_critic_config config = {.clip = clip, .coef = 0.7};
    opd_optimizer_config optimizer = opd_optimizer_config_default();
    CHECK_OK(opd_critic_create(&config, &optimizer, HIDDEN, ROWS, NULL, &critic));
    for (size_t i = 0; i < HIDDEN + 1; i++) critic->head.params[i] = (float)opd_rng_normal(rng);
    for (size_t i = 0; i < HIDDEN * ROWS; i++) critic->hidden[i] = (float)opd_rng_normal(rng);
    return critic;
}

static double loss_of(opd_critic *c, const float *old, const float *returns, const float *weights) {
    opd_value_stats stats = {0};
    opd_critic_loss(c, ROWS, old, returns, weights, &stats);
    return c->config.coef * stats.loss;
}

/* The difference quotient by one number of the critic. */
static double quotient(opd_critic *c, float *at, const float *old, const float *returns,
                       const float *weights) {
    float kept = *at, step = 1.0f / 512;
    *at = kept + step;
    double up = loss_of(c, old, returns, weights);
    *at = kept - step;
    double down = loss_of(c, old, returns, weights);
    *at = kept;
    return (up - down) / (2 * (double)step);
}

TEST(gradients_are_difference_quotients) {
    opd_rng rng;
    opd_rng_init(&rng, 3);
    for (int clip = 0; clip < 2; clip++) {
        float old[ROWS], returns[ROWS], weights[ROWS], grads[HIDDEN + 1], dhidden[HIDDEN * ROWS];
        opd_critic *c = head_of(&rng, clip ? 1.5 : 0);
        for (int t = 0; t < ROWS; t++) {
            old[t] = (float)(2 * opd_rng_normal(&rng));
            returns[t] = (float)opd_rng_normal(&rng);
            weights[t] = t == 4 ? 0 : 0.1f * (float)t;
        }
        opd_critic_begin(c);
        (void)loss_of(c, old, returns, weights);
        memcpy(grads, c->grads, sizeof grads);
        memcpy(dhidden, c->dhidden, sizeof dhidden);
        for (size_t i = 0; i < HIDDEN + 1; i++)
            CHECK_NEAR(grads[i], quotient(c, &c->head.params[i], old, returns, weights), 2e-3);
        for (size_t i = 0; i < HIDDEN * ROWS; i++)
            CHECK_NEAR(dhidden[i], quotient(c, &c->hidden[i], old, returns, weights), 2e-3);
        for (size_t i = 0; i < HIDDEN; i++) CHECK_NEAR(dhidden[4 * HIDDEN + i], 0, 0); /* masked */
        opd_critic_destroy(c);
    }
}

/* ---- in the learner ---- */

/* At the start V = 0: returns are discounted rewards, and the first step moves the head only. */
TEST(an_untaught_critic_says_zero) {
    opd_batch *batch = rig_batch(3, 0.7, false);
    rig r, plain;
    rig_ppo(&r, 1);
    rig_ppo(&plain, 1);
    r.o.advantage.estimator.gamma = r.o.advantage.estimator.lambda = 1;
    plain.o.advantage.estimator =
        (opd_estimator_config){.kind = OPD_ESTIMATOR_REINFORCE, .gamma = 1};
    learn(&r, batch);
    learn(&plain, batch);
    CHECK_NEAR(r.v[OPD_METRIC_VALUES], 0, 0);
    double sum = 0, tokens = 0;
    for (size_t i = 0; i < batch->sample_count; i++) {
        double length = (double)(batch->offsets[i + 1] - batch->offsets[i]);
        sum += batch->rewards[i] * length;
        tokens += length;
    }
    CHECK_NEAR(r.v[OPD_METRIC_RETURNS], sum / tokens, 1e-6);
    CHECK(same_weights(&r, &plain));
    CHECK(isnan(plain.v[OPD_METRIC_VALUE_LOSS]));
    CHECK(opd_learner_critic(plain.learner) == NULL);
    CHECK(opd_learner_critic(r.learner)->head.params[0] != 0);
    opd_batch_destroy(batch);
    rig_down(&r);
    rig_down(&plain);
}

TEST(values_are_drawn_to_the_returns) {
    opd_batch *batch = rig_batch(4, 0.7, true);
    rig r;
    rig_ppo(&r, 1);
    r.o.critic.clip = 0;
    learn(&r, batch);
    double before = r.v[OPD_METRIC_VALUE_LOSS];
    for (int i = 0; i < 60; i++) learn(&r, batch);
    CHECK(r.v[OPD_METRIC_VALUE_LOSS] < 0.3 * before);
    opd_batch_destroy(batch);
    rig_down(&r);
}

/* Once the head says something, its loss reaches the student as well. */
TEST(the_critics_loss_moves_the_student) {
    opd_batch *batch = rig_batch(4, 0.7, true);
    rig r[2];
    for (int i = 0; i < 2; i++) {
        rig_ppo(&r[i], 1);
        r[i].o.critic.coef = i == 0 ? 0.5 : 1e-12;
        learn(&r[i], batch);
        if (i == 0) continue;
        float *from = opd_learner_critic(r[0].learner)->head.params; /* AdamW moved both alike */
        memcpy(opd_learner_critic(r[1].learner)->head.params, from,
               opd_learner_critic(r[1].learner)->head.param_count * sizeof(float));
    }
    CHECK(same_weights(&r[0], &r[1]));
    learn(&r[0], batch);
    learn(&r[1], batch);
    CHECK_NEAR(r[0].v[OPD_METRIC_VALUE_LOSS], r[1].v[OPD_METRIC_VALUE_LOSS], 0);
    CHECK(!same_weights(&r[0], &r[1]));
    for (int i = 0; i < 2; i++) rig_down(&r[i]);
    opd_batch_destroy(batch);
}

/* Values are computed for all samples, also those whose log-probs the rollout brought. */
TEST(samples_of_the_present_weights_have_values) {
    opd_batch *own = rig_batch(5, 0.7, true), *stale = rig_batch(5, 0.7, false);
    rig a, b;
    rig_ppo(&a, 1);
    rig_ppo(&b, 1);
    for (int pass = 0; pass < 2; pass++) {
        learn(&a, own);
        learn(&b, stale);
    }
    CHECK(a.v[OPD_METRIC_VALUES] != 0);
    CHECK_NEAR(a.v[OPD_METRIC_VALUES], b.v[OPD_METRIC_VALUES], 0);
    CHECK(same_weights(&a, &b));
    rig_down(&a);
    rig_down(&b);
    opd_batch_destroy(own);
    opd_batch_destroy(stale);
}

/* Micro-batches and threads do not show, and a step is a function of batch and state. */
TEST(cuts_and_threads_change_nothing) {
    static const size_t cuts[] = {RIG_TOKENS, 40, 20};
    opd_batch *batch = rig_batch(5, 0.7, false);
    double loss = 0, value = 0;
    float head = 0;
    for (size_t i = 0; i < 3; i++) {
        rig r;
        rig_ppo(&r, 1 + i);
        r.o.micro_batch_tokens = cuts[i];
        r.o.steps_per_batch = 2;
        for (int pass = 0; pass < 3; pass++) learn(&r, batch);
        const opd_critic *critic = opd_learner_critic(r.learner);
        if (i == 0) {
            loss = r.v[OPD_METRIC_LOSS], value = r.v[OPD_METRIC_VALUE_LOSS];
            head = critic->head.params[3];
        }
        CHECK_NEAR(r.v[OPD_METRIC_LOSS], loss, 1e-4);
        CHECK_NEAR(r.v[OPD_METRIC_VALUE_LOSS], value, 1e-4);
        CHECK_NEAR(critic->head.params[3], head, 1e-4);
        rig_down(&r);
    }
    opd_batch_destroy(batch);
}

/* Lost rewards have no return to be drawn to. */
TEST(samples_without_a_reward_teach_nothing) {
    opd_batch *batch = rig_batch(6, 0.7, true);
    rig r;
    rig_ppo(&r, 1);
    for (size_t i = 0; i < batch->sample_count; i++) batch->reward_valid[i] = 0;
    learn(&r, batch);
    CHECK(!opd_learner_stepped(r.learner));
    CHECK_NEAR(opd_learner_critic(r.learner)->head.params[0], 0, 0);
    opd_batch_destroy(batch);
    rig_down(&r);
}

TEST(numbers_that_are_none_leave_the_critic_alone) {
    opd_batch *batch = rig_batch(7, 0.7, true);
    rig r;
    rig_ppo(&r, 1);
    batch->rewards[2] = (double)INFINITY;
    learn(&r, batch);
    CHECK(!opd_learner_stepped(r.learner));
    CHECK_NEAR(opd_learner_critic(r.learner)->head.params[0], 0, 0);
    CHECK_INT(opd_learner_critic(r.learner)->optimizer->step, 0);
    opd_batch_destroy(batch);
    rig_down(&r);
}

/* ---- checkpoints ---- */

TEST(a_checkpoint_keeps_the_critic_and_opens_without_it) {
    opd_batch *batch = rig_batch(8, 0.7, true);
    rig r, again;
    char dir[] = "/tmp/opd-critic-XXXXXX", path[OPD_PATH_SIZE];
    opd_tokenizer *tokenizer;
    CHECK(mkdtemp(dir) != NULL);
    rig_ppo(&r, 1);
    learn(&r, batch);
    learn(&r, batch);
    opd_critic *critic = opd_learner_critic(r.learner);
    float *state = malloc(opd_learner_state_count(r.learner) * sizeof *state);
    opd_learner_state_copy(r.learner, state);
    opd_checkpoint_state info = {.step = 2, .optimizer_step = opd_learner_steps(r.learner)};
    CHECK_OK(opd_tokenizer_create_bytes(NULL, &tokenizer));
    CHECK_OK(opd_checkpoint_write(dir, r.model, &critic->head, tokenizer, &info, state, 0, NULL));
    opd_checkpoint_path(dir, 2, path);

    opd_model *model;
    CHECK_OK(opd_model_open(path, NULL, &model));
    CHECK(memcmp(model->params, r.model->params, model->param_count * sizeof(float)) == 0);
    rig_ppo(&again, 1);
    memcpy(again.model->params, model->params, model->param_count * sizeof(float));
    CHECK_OK(opd_learner_create(&again.o, &again.learner));
    opd_optimizer *optimizer = opd_learner_optimizer(again.learner);
    opd_critic *other = opd_learner_critic(again.learner);
    CHECK_OK(opd_checkpoint_read_moments(path, again.model, optimizer, NULL));
    CHECK_OK(opd_checkpoint_read_critic(path, &other->head, other->optimizer, NULL));
    optimizer->step = other->optimizer->step = info.optimizer_step;
    learn(&r, batch); /* goes on as if nothing had been */
    learn(&again, batch);
    CHECK(memcmp(again.model->params, r.model->params, model->param_count * sizeof(float)) == 0);
    CHECK(memcmp(other->head.params, critic->head.params, other->head.param_count * sizeof(float)) == 0);

    CHECK_OK(opd_checkpoint_write(dir, r.model, NULL, tokenizer, &info, state, 0, NULL));
    CHECK_ERR(opd_checkpoint_read_critic(path, &other->head, other->optimizer, NULL), OPD_ERR_NOT_FOUND);
    char command[64];
    (void)snprintf(command, sizeof command, "rm -rf %s", dir);
    CHECK_INT(system(command), 0);
    free(state);
    opd_tokenizer_destroy(tokenizer);
    opd_model_destroy(model);
    opd_batch_destroy(batch);
    rig_down(&r);
    rig_down(&again);
}

TEST(running_out_of_memory_is_an_error) {
    opd_err err = OPD_ERR_NOMEM;
    for (long n = 0; err != OPD_OK; n++) {
        opd_test_alloc memory;
        opd_critic *critic;
        opd_optimizer_config optimizer = opd_optimizer_config_default();
        opd_critic_config config = {.coef = 1};
        opd_test_alloc_failing(&memory, n + 1, false);
        err = opd_critic_create(&config, &optimizer, HIDDEN, ROWS, &memory.alloc, &critic);
        if (err == OPD_OK) opd_critic_destroy(critic);
        else CHECK_INT(err, OPD_ERR_NOMEM);
        CHECK_INT(memory.live, 0);
        CHECK(n < 100);
    }
}
