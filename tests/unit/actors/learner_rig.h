/* learner_rig.h - a learner on a tiny model with random batches, for its tests.
 *
 * With beta1 = 0 and no clipping, AdamW's first moment is the gradient itself, bit for bit.
 */
#ifndef OPD_TESTS_UNIT_ACTORS_LEARNER_RIG_H
#define OPD_TESTS_UNIT_ACTORS_LEARNER_RIG_H

#include "actors/trainer/learner.h"
#include "core/base/check.h"
#include "core/base/rng.h"
#include "tests/unit/actors/tiny.h"

enum { RIG_VOCAB = 29, RIG_SAMPLES = 6, RIG_TOKENS = 128, RIG_TOP_K = 2 };

/* Plain options: one step per batch, OPD and rewards, everything in one micro-batch. */
static inline opd_learner_options rig_options(opd_model *model, opd_kernels *kernels) {
    return (opd_learner_options){
        .kernels = kernels, .model = model, .objective = OPD_OBJECTIVE_POLICY,
        .micro_batch_tokens = RIG_TOKENS, .samples_max = RIG_SAMPLES, .tokens_max = RIG_TOKENS,
        .teacher_k = RIG_TOP_K, .student_k = RIG_TOP_K, .teachers_max = 1, .steps_per_batch = 1, .temperature = 1,
        .reduction = OPD_REDUCTION_SAMPLE_MEAN,
        .advantage = {.estimator = {.normalize_rewards = true, .normalize_std = true},
                      .use_opd = true, .kl_coef = 0.5},
        .policy = {.clip_low = 0.2, .clip_high = 0.28},
        .optimizer = {.lr = 1e-3, .beta1 = 0, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.01}};
}

/* Six samples of two groups; valid_share of the teacher's scores are valid. Log-probs are
 * plausible numbers, not those of any model. */
static inline opd_batch *rig_batch(uint64_t seed, double valid_share, bool reuse) {
    static const uint32_t prompts[RIG_SAMPLES] = {4, 4, 4, 2, 2, 2};
    opd_batch *batch;
    opd_rng rng;
    opd_rng_init(&rng, seed);
    CHECK_OK(opd_batch_create(NULL, RIG_SAMPLES, RIG_TOKENS, RIG_TOP_K, 0, 1, &batch));
    opd_batch_clear(batch);
    for (uint32_t i = 0; i < RIG_SAMPLES; i++) {
        uint32_t response = 1 + (uint32_t)opd_rng_below(&rng, 12);
        int32_t tokens[32], topk[32 * RIG_TOP_K];
        float rollout[32], teacher[32];
        uint8_t valid[32];
        for (uint32_t t = 0; t < prompts[i] + response; t++)
            tokens[t] = (int32_t)opd_rng_below(&rng, RIG_VOCAB);
        for (uint32_t t = 0; t < response; t++) {
            rollout[t] = -3.3f + 0.2f * (float)opd_rng_normal(&rng);
            teacher[t] = -3.3f + 0.5f * (float)opd_rng_normal(&rng);
            valid[t] = opd_rng_uniform(opd_rng_next(&rng)) < valid_share;
            for (int k = 0; k < RIG_TOP_K; k++) topk[t * RIG_TOP_K + (uint32_t)k] = (int32_t)((t + (uint32_t)k * 7) % RIG_VOCAB);
        }
        opd_batch_sample sample = {.group = i / 3 + 10, .prompt_len = prompts[i],
                                   .response_len = response, .tokens = tokens,
                                   .rollout_logp = rollout, .teacher_logp = teacher,
                                   .teacher_valid = valid, .teacher_topk = topk,
                                   .reward = (double)(i * i % 4), .reward_valid = true,
                                   .reuse_logp = reuse};
        CHECK_OK(opd_batch_add(batch, &sample));
    }
    return batch;
}

static inline opd_err rig_learn(opd_learner *learner, const opd_batch *batch) {
    bool done = false;
    opd_learner_begin(learner, batch);
    for (int units = 0; !done; units++) {
        CHECK(units < 1000);
        OPD_TRY(opd_learner_advance(learner, &done));
    }
    return OPD_OK;
}

/* A learner with what it needs; the options may be changed before the first batch. */
typedef struct rig {
    opd_model *model, *reference; /* the reference is there if a test made one */
    opd_kernels *kernels;
    opd_learner *learner;
    opd_learner_options o;
    double v[OPD_METRIC_COUNT]; /* what the last batch showed */
} rig;

static inline void rig_up(rig *r, size_t threads) {
    r->model = tiny_model(RIG_VOCAB, 2, 21);
    r->reference = NULL;
    r->kernels = tiny_kernels(threads);
    r->o = rig_options(r->model, r->kernels);
    r->learner = NULL;
}

static inline void rig_down(rig *r) {
    opd_learner_destroy(r->learner);
    opd_kernels_destroy(r->kernels);
    opd_model_destroy(r->model);
    opd_model_destroy(r->reference);
}

/* Learns one batch, making the learner first if there is none. */
static inline void learn(rig *r, const opd_batch *batch) {
    if (r->learner == NULL) CHECK_OK(opd_learner_create(&r->o, &r->learner));
    CHECK_OK(rig_learn(r->learner, batch));
    opd_learner_report(r->learner, r->v);
}

static inline size_t weights_size(const rig *r) { return r->model->param_count * sizeof(float); }

static inline bool same_weights(const rig *a, const rig *b) {
    return memcmp(a->model->params, b->model->params, weights_size(a)) == 0;
}

#endif
