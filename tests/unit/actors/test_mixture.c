/* test_mixture.c - several teachers as one: against the formula in long double, by what must not
 * matter (agreement, weight 0, what is not valid), and through whole optimizer steps. */
#include "actors/trainer/mixture.h"

#include "tests/unit/actors/learner_rig.h"

enum { TEACHERS = 3, ROWS = 40, WHICH = 4 /* teachers that there are */ };

typedef struct scores {
    double weights[TEACHERS];
    float logp[TEACHERS * ROWS];
    uint8_t valid[TEACHERS * ROWS];
} scores;

static scores random_scores(uint64_t seed, double valid_share) {
    opd_rng rng;
    scores s;
    opd_rng_init(&rng, seed);
    for (size_t j = 0; j < TEACHERS; j++) s.weights[j] = 0.1 + 3 * opd_rng_uniform(opd_rng_next(&rng));
    for (size_t i = 0; i < TEACHERS * ROWS; i++) {
        s.valid[i] = opd_rng_uniform(opd_rng_next(&rng)) < valid_share;
        s.logp[i] = s.valid[i] ? -5 * (float)opd_rng_uniform(opd_rng_next(&rng)) : NAN;
    }
    return s;
}

static opd_mixture mixture_of(const scores *s, size_t teachers) {
    return (opd_mixture){teachers, ROWS, s->weights, s->logp, s->valid};
}

TEST(it_is_the_weighted_mean_of_the_valid_ones) {
    for (uint64_t seed = 1; seed < 20; seed++) {
        scores s = random_scores(seed, 0.6);
        opd_mixture m = mixture_of(&s, TEACHERS);
        float out[ROWS];
        uint8_t valid[ROWS];
        opd_mixture_rows(&m, out, valid);
        for (size_t t = 0; t < ROWS; t++) {
            long double above = 0, below = 0;
            for (size_t j = TEACHERS; j-- > 0;) /* in another order */
                if (s.valid[j * ROWS + t]) {
                    above += (long double)s.weights[j] * (long double)s.logp[j * ROWS + t];
                    below += (long double)s.weights[j];
                }
            CHECK_INT(valid[t], below > 0);
            CHECK_NEAR(out[t], below > 0 ? (double)(above / below) : 0, 1e-6);
        }
    }
}

TEST(agreement_and_lone_voices_are_kept_bit_for_bit) {
    for (uint64_t seed = 1; seed < 200; seed++) {
        scores s = random_scores(seed, 0.5);
        for (size_t i = ROWS; i < TEACHERS * ROWS; i++) /* whoever is valid says the same */
            if (s.valid[i]) s.logp[i] = -0.1f - (float)(i % ROWS) / 7;
        for (size_t t = 0; t < ROWS; t++)
            if (s.valid[t]) s.logp[t] = -0.1f - (float)t / 7;
        opd_mixture m = mixture_of(&s, TEACHERS);
        float out[ROWS];
        uint8_t valid[ROWS];
        opd_mixture_rows(&m, out, valid);
        for (size_t t = 0; t < ROWS; t++)
            if (valid[t]) CHECK(out[t] == -0.1f - (float)t / 7);
    }
}

TEST(a_teacher_without_weight_does_not_count) {
    scores s = random_scores(3, 0.7);
    s.weights[1] = s.weights[2] = 0;
    opd_mixture m = mixture_of(&s, TEACHERS);
    float out[ROWS];
    uint8_t valid[ROWS];
    opd_mixture_rows(&m, out, valid);
    CHECK(memcmp(valid, s.valid, ROWS) == 0); /* also where only the others are valid */
    for (size_t t = 0; t < ROWS; t++)
        if (valid[t]) CHECK(out[t] == s.logp[t]);
}

/* ---- through the learner ---- */

/* What teacher j says where the one teacher says logp (valid), of row t of all. */
typedef void (*opinion)(size_t j, size_t t, float *logp, uint8_t *valid);

static opd_batch *with_teachers(const opd_batch *one, size_t teachers, const double *weights, opinion say) {
    static const uint8_t which[TEACHERS] = {2, 0, 3};
    opd_batch *b;
    CHECK_OK(opd_batch_create(NULL, RIG_SAMPLES, RIG_TOKENS, RIG_TOP_K, 0, WHICH, &b));
    opd_batch_clear(b);
    for (size_t i = 0; i < one->sample_count; i++) {
        size_t row = one->offsets[i], rows = one->offsets[i + 1] - row;
        float logp[TEACHERS * RIG_TOKENS];
        uint8_t valid[TEACHERS * RIG_TOKENS];
        for (size_t j = 0; j < teachers; j++)
            for (size_t t = 0; t < rows; t++) {
                logp[j * rows + t] = one->teacher_logp[row + t];
                valid[j * rows + t] = one->teacher_valid[row + t];
                if (say != NULL) say(j, row + t, &logp[j * rows + t], &valid[j * rows + t]);
            }
        opd_batch_sample s = {.group = one->groups[i], .response_len = (uint32_t)rows,
                              .prompt_len = (uint32_t)(one->seq_start[i + 1] - one->seq_start[i] - rows),
                              .tokens = one->tokens + one->seq_start[i],
                              .rollout_logp = one->rollout_logp + row, .teacher_logp = logp,
                              .teacher_valid = valid, .teacher_topk = one->teacher_topk + row * RIG_TOP_K,
                              .teacher_count = teachers, .teachers = which, .weights = weights,
                              .reward = one->rewards[i], .reward_valid = true,
                              .reuse_logp = one->reuse_logp[i]};
        CHECK_OK(opd_batch_add(b, &s));
    }
    return b;
}

typedef struct lesson {
    opd_model *model;
    double values[OPD_METRIC_COUNT], share[WHICH], kl[WHICH];
} lesson;

static lesson lesson_of(opd_batch *batch) {
    lesson l = {.model = tiny_model(RIG_VOCAB, 2, 21)};
    opd_kernels *kernels = tiny_kernels(1);
    opd_learner_options o = rig_options(l.model, kernels);
    opd_learner *learner;
    o.teachers_max = batch->teachers_max;
    CHECK_OK(opd_learner_create(&o, &learner));
    CHECK_OK(rig_learn(learner, batch));
    CHECK(opd_learner_stepped(learner));
    opd_learner_report(learner, l.values);
    for (size_t i = 0; i < batch->teachers_max; i++) opd_learner_teacher(learner, i, &l.share[i], &l.kl[i]);
    opd_learner_destroy(learner);
    opd_kernels_destroy(kernels);
    opd_batch_destroy(batch);
    return l;
}

/* What one teacher teaches, and these; the same weights bit for bit. */
static lesson check_same(const opd_batch *one, size_t teachers, const double *weights, opinion say) {
    lesson want = lesson_of(with_teachers(one, 1, NULL, NULL));
    lesson got = lesson_of(with_teachers(one, teachers, weights, say));
    CHECK(memcmp(want.model->params, got.model->params, want.model->param_count * sizeof(float)) == 0);
    CHECK(memcmp(want.values, got.values, sizeof want.values) == 0);
    opd_model_destroy(want.model);
    opd_model_destroy(got.model);
    return got;
}

static void second_is_wild(size_t j, size_t t, float *logp, uint8_t *valid) {
    if (j == 0) return;
    *logp = t % 2 ? -90 : NAN;
    *valid = t % 2;
}

static void they_take_turns(size_t j, size_t t, float *logp, uint8_t *valid) {
    if (*valid && t % 2 != j) *logp = INFINITY, *valid = 0;
}

TEST(what_must_not_matter_does_not) {
    static const double weights[] = {0.3, 1.7}, first[] = {1, 0};
    opd_batch *one = rig_batch(31, 0.7, false);
    lesson l = check_same(one, 2, weights, NULL); /* two of one opinion */
    CHECK_NEAR(l.share[2], l.values[OPD_METRIC_VALID_SHARE], 0);
    CHECK_NEAR(l.kl[0], l.values[OPD_METRIC_OPD_REVERSE_KL], 0);
    CHECK(isnan(l.kl[1]) && l.share[1] == 0); /* has scored nothing */
    (void)check_same(one, 2, first, second_is_wild);
    opd_batch_destroy(one);
}

/* The student's likeliest ids are compared with the first teacher's alone, so k is left out. */
TEST(one_speaks_where_the_other_is_silent) {
    static const double weights[] = {2, 5};
    opd_batch *one = rig_batch(32, 0.8, true);
    lesson want = lesson_of(with_teachers(one, 1, NULL, NULL));
    lesson got = lesson_of(with_teachers(one, 2, weights, they_take_turns));
    CHECK(memcmp(want.model->params, got.model->params, want.model->param_count * sizeof(float)) == 0);
    CHECK(want.values[OPD_METRIC_OPD_REVERSE_KL] == got.values[OPD_METRIC_OPD_REVERSE_KL]);
    CHECK(got.values[OPD_METRIC_OPD_OVERLAP_COVERAGE] < want.values[OPD_METRIC_OPD_OVERLAP_COVERAGE]);
    CHECK_NEAR(got.share[2] + got.share[0], want.values[OPD_METRIC_VALID_SHARE], 1e-12);
    opd_model_destroy(want.model);
    opd_model_destroy(got.model);
    opd_batch_destroy(one);
}

static void they_differ(size_t j, size_t t, float *logp, uint8_t *valid) {
    *logp -= (float)j * 0.25f;
    *valid = (t + j) % 4 != 0;
}

static void their_mean(size_t j, size_t t, float *logp, uint8_t *valid) {
    static const long double weights[] = {1, 2, 4};
    long double above = 0, below = 0;
    (void)j;
    for (size_t i = 0; i < TEACHERS; i++)
        if ((t + i) % 4 != 0) {
            above += weights[i] * ((long double)*logp - (long double)i * 0.25L);
            below += weights[i];
        }
    *valid = below > 0;
    *logp = (float)(above / below);
}

TEST(three_teach_what_their_mean_would) {
    static const double weights[] = {1, 2, 4};
    opd_batch *one = rig_batch(33, 1, false);
    lesson want = lesson_of(with_teachers(one, 1, NULL, their_mean));
    lesson got = lesson_of(with_teachers(one, TEACHERS, weights, they_differ));
    CHECK_NEAR(got.values[OPD_METRIC_OPD_REVERSE_KL], want.values[OPD_METRIC_OPD_REVERSE_KL], 1e-6);
    CHECK_NEAR(got.values[OPD_METRIC_VALID_SHARE], 1, 0);
    for (size_t i = 0; i < got.model->param_count; i++) /* lr is 1e-3 */
        CHECK_NEAR(got.model->params[i], want.model->params[i], 2e-5);
    opd_model_destroy(want.model);
    opd_model_destroy(got.model);
    opd_batch_destroy(one);
}

static void each_is_lower(size_t j, size_t t, float *logp, uint8_t *valid) {
    (void)t;
    (void)valid;
    *logp -= (float)j * 0.25f;
}

TEST(each_teachers_part_is_told) {
    static const double weights[] = {1, 2, 4};
    opd_batch *one = rig_batch(34, 0.5, false);
    lesson l = lesson_of(with_teachers(one, TEACHERS, weights, each_is_lower));
    double of_all = l.values[OPD_METRIC_OPD_REVERSE_KL];
    CHECK_NEAR(l.kl[0] - l.kl[2], 0.25, 1e-6); /* the first is number 2, the second number 0 */
    CHECK_NEAR(l.kl[3] - l.kl[2], 0.5, 1e-6);
    CHECK_NEAR((l.kl[2] + 2 * l.kl[0] + 4 * l.kl[3]) / 7, of_all, 1e-6);
    for (int i = 0; i < WHICH; i++)
        CHECK_NEAR(l.share[i], i == 1 ? 0 : l.values[OPD_METRIC_VALID_SHARE], 1e-12);
    opd_model_destroy(l.model);
    opd_batch_destroy(one);
}

TEST(a_teacher_that_there_is_not_is_refused) {
    static const uint8_t which[] = {0, 1, 0};
    int32_t tokens[] = {1, 2};
    opd_batch *b;
    opd_batch_sample s = {.prompt_len = 1, .response_len = 1, .tokens = tokens, .teachers = which};
    CHECK_OK(opd_batch_create(NULL, 4, 16, 0, 0, 2, &b));
    opd_batch_clear(b);
    s.teacher_count = 2;
    CHECK_OK(opd_batch_add(b, &s));
    s.teacher_count = 3;
    CHECK_ERR(opd_batch_add(b, &s), OPD_ERR_MISMATCH);
    opd_batch_destroy(b);
    CHECK_OK(opd_batch_create(NULL, 4, 16, 0, 0, 1, &b));
    opd_batch_clear(b);
    s.teacher_count = 1, s.teachers = which + 1;
    CHECK_ERR(opd_batch_add(b, &s), OPD_ERR_MISMATCH);
    CHECK_INT(b->sample_count, 0);
    opd_batch_destroy(b);
}
