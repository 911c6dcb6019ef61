/* test_divergence.c - losses over several ids and their gradients: against finite differences, and what must
 * hold of any. (Against PyTorch: test_objectives.c.) */
#include "actors/trainer/contrast.h"
#include "core/base/check.h"
#include "core/base/rng.h"
#include "tests/support/alloc_test.h"
#include "tests/support/test.h"

/* ---- finite differences, and properties ---- */

enum { VOCAB = 11 };

static void log_softmax(const double *z, double *out) {
    double sum = 0;
    for (size_t j = 0; j < VOCAB; j++) sum += exp(z[j]);
    for (size_t j = 0; j < VOCAB; j++) out[j] = z[j] - log(sum);
}

/* The loss, and its derivative by each log-prob of the support, which the bucket's mass follows. */
static double loss_at(const opd_divergence_config *config, size_t k, const double *student,
                      const double *teacher, double *out_grad) {
    double grad[VOCAB];
    opd_divergence_result result;
    opd_divergence_row row = {.k = k, .vocab = VOCAB, .student = student, .teacher = teacher};
    opd_divergence(config, &row, grad, &result);
    for (size_t i = 0; i < k && out_grad != NULL; i++)
        out_grad[i] = grad[i] - result.outside * exp(student[i]);
    return result.loss;
}

static void each_config(void (*check)(const opd_divergence_config *config, size_t k, opd_rng *rng)) {
    opd_rng rng;
    opd_rng_init(&rng, 11);
    for (int kind = 0; kind < 4; kind++)
        for (int tail = 0; tail < 3; tail++)
            for (size_t k = 1; k <= VOCAB; k++)
                check(&(opd_divergence_config){.kind = (opd_divergence_kind)kind,
                                               .tail = (opd_divergence_tail)tail, .jsd_alpha = 0.3}, k, &rng);
}

static void random_logp(opd_rng *rng, double *out) {
    double z[VOCAB];
    for (size_t j = 0; j < VOCAB; j++) z[j] = 2 * opd_rng_normal(rng);
    log_softmax(z, out);
}

/* By each log-prob of the support, the others fixed. low_var holds its weights constant, so there the
 * difference of sum w(l0) k3(l) is taken by hand. */
static void check_differences(const opd_divergence_config *config, size_t k, opd_rng *rng) {
    double student[VOCAB], teacher[VOCAB], grad[VOCAB];
    if (config->kind == OPD_DIVERGENCE_LOW_VAR) return; /* its constant weights: autograd's test above */
    random_logp(rng, student);
    random_logp(rng, teacher);
    (void)loss_at(config, k, student, teacher, grad);
    for (size_t i = 0; i < k; i++) {
        double at = student[i], step = 1e-6;
        student[i] = at + step;
        double up = loss_at(config, k, student, teacher, NULL);
        student[i] = at - step;
        double down = loss_at(config, k, student, teacher, NULL);
        student[i] = at;
        CHECK_NEAR(grad[i], (up - down) / (2 * step), 1e-7 + 1e-6 * fabs(grad[i]));
    }
}

TEST(gradients_are_the_differences_of_losses) { each_config(check_differences); }

static void check_agreement(const opd_divergence_config *config, size_t k, opd_rng *rng) {
    double logp[VOCAB], grad[VOCAB], other[VOCAB];
    random_logp(rng, logp);
    random_logp(rng, other);
    CHECK_NEAR(loss_at(config, k, logp, logp, grad), 0, 1e-12);
    bool biased = config->tail == OPD_TAIL_TRUNCATE && config->kind <= OPD_DIVERGENCE_FORWARD_KL;
    double sum = 0;
    for (size_t i = 0; i < k; i++) sum += grad[i];
    for (size_t i = 0; i < k && (k == VOCAB || !biased); i++) /* of the logit */
        CHECK_NEAR(grad[i] - exp(logp[i]) * sum, 0, 1e-9);
    if (config->tail == OPD_TAIL_TRUNCATE) return; /* of parts of distributions: may be negative */
    CHECK(loss_at(config, k, logp, other, NULL) >= -1e-12);
}

TEST(who_agrees_has_no_divergence) { each_config(check_agreement); }

TEST(one_id_renormalised_has_no_gradient) {
    double student[VOCAB], teacher[VOCAB], grad[VOCAB];
    opd_rng rng;
    opd_rng_init(&rng, 3);
    random_logp(&rng, student);
    random_logp(&rng, teacher);
    for (int kind = 0; kind < 4; kind++) {
        opd_divergence_config config = {.kind = (opd_divergence_kind)kind, .tail = OPD_TAIL_RENORMALISE,
                                        .jsd_alpha = 0.5};
        CHECK_NEAR(loss_at(&config, 1, student, teacher, grad), 0, 1e-12);
        CHECK_NEAR(grad[0], 0, 1e-12);
    }
}

/* Log-probs at the ends of what a float can hold give finite numbers. */
TEST(extreme_log_probs_give_finite_numbers) {
    static const double ends[] = {0, -1e-8, -30, -100, -1e4, -1e30};
    double grad[1];
    for (int kind = 0; kind < 4; kind++)
        for (int tail = 0; tail < 3; tail++)
            for (size_t s = 0; s < OPD_COUNTOF(ends); s++)
                for (size_t t = 0; t < OPD_COUNTOF(ends); t++) {
                    opd_divergence_config config = {.kind = (opd_divergence_kind)kind,
                                                    .tail = (opd_divergence_tail)tail, .jsd_alpha = 0.5};
                    CHECK(isfinite(loss_at(&config, 1, &ends[s], &ends[t], grad)));
                    CHECK(isfinite(grad[0]));
                }
}

TEST(settings_that_cannot_be_are_refused) {
    opd_divergence_config good = {.kind = OPD_DIVERGENCE_JSD, .jsd_alpha = 0.5, .logp_floor = -5, .clip = 1};
    CHECK_OK(opd_divergence_check(&good));
    const double bad[] = {0, 1, -0.1, NAN};
    for (size_t i = 0; i < OPD_COUNTOF(bad); i++) {
        opd_divergence_config config = good;
        config.jsd_alpha = bad[i];
        CHECK_ERR(opd_divergence_check(&config), OPD_ERR_CONFIG);
        CHECK_CONTAINS(opd_err_context(), "opd.jsd_alpha");
    }
    opd_divergence_config floor = good, clip = good;
    floor.logp_floor = 1;
    clip.clip = -1;
    CHECK_ERR(opd_divergence_check(&floor), OPD_ERR_CONFIG);
    CHECK_CONTAINS(opd_err_context(), "opd.logp_floor");
    CHECK_ERR(opd_divergence_check(&clip), OPD_ERR_CONFIG);
    CHECK_CONTAINS(opd_err_context(), "opd.token_clip");
    clip.clip = (double)INFINITY;
    CHECK_ERR(opd_divergence_check(&clip), OPD_ERR_CONFIG);
    CHECK_CONTAINS(opd_err_context(), "opd.token_clip");
}

/* ---- supports ---- */

TEST(nothing_is_made_up_where_the_teacher_said_nothing) {
    const int32_t teacher[] = {4, 2, 4, -1, 9}, student[] = {2, 7};
    const float logp[] = {-0.5f, NAN, -0.6f, -1, -2}, asked[] = {NAN, -0.25f};
    const float nothing[] = {NAN, NAN};
    int32_t out[8];
    double values[8];
    opd_support_row row = {.kind = OPD_SUPPORT_TEACHER_TOPK, .k = 5, .vocab = 8, .student_ids = student,
                           .asked_logp = asked, .listed = 5, .teacher_ids = teacher, .teacher_logp = logp};
    CHECK_INT(opd_support_take(&row, out, values), 1); /* NaN, twice, none, beyond the vocabulary */
    CHECK_INT(out[0], 4);
    CHECK_NEAR(values[0], -0.5, 0);
    row.kind = OPD_SUPPORT_STUDENT_TOPK;
    row.k = 2;
    CHECK_INT(opd_support_take(&row, out, values), 1); /* of 2 it said no number */
    CHECK_INT(out[0], 7);
    CHECK_NEAR(values[0], -0.25, 0);
    row.kind = OPD_SUPPORT_UNION;
    CHECK_INT(opd_support_take(&row, out, values), 2);
    CHECK(out[0] == 4 && out[1] == 7);
    row.asked_logp = nothing; /* it was not asked, or did not answer */
    CHECK_INT(opd_support_take(&row, out, values), 0);
    row.kind = OPD_SUPPORT_STUDENT_TOPK;
    CHECK_INT(opd_support_take(&row, out, values), 0);
    row.kind = OPD_SUPPORT_FULL;
    CHECK_INT(opd_support_take(&row, out, values), 0);
}

/* ---- selection ---- */

TEST(the_highest_share_of_a_sample_is_selected) {
    const float scores[] = {0.5f, 3, NAN, 1, 3, 2, -1};
    const uint8_t mask[] = {1, 1, 0, 1, 1, 1, 1};
    uint8_t out[7];
    size_t order[7];
    opd_contrast_config config = {.selection = OPD_SELECT_ENTROPY, .token_share = 0.5};
    opd_contrast_select(&config, 7, mask, scores, order, out);
    CHECK(memcmp(out, ((uint8_t[]){0, 1, 0, 0, 1, 1, 0}), 7) == 0);
    config.token_share = 0.1;
    opd_contrast_select(&config, 7, mask, scores, order, out);
    CHECK(memcmp(out, ((uint8_t[]){0, 1, 0, 0, 0, 0, 0}), 7) == 0); /* the earlier of two */
    config.token_share = 1;
    opd_contrast_select(&config, 7, mask, scores, order, out);
    CHECK(memcmp(out, mask, 7) == 0);
    config.selection = OPD_SELECT_ALL;
    opd_contrast_select(&config, 7, mask, NULL, NULL, out);
    CHECK(memcmp(out, mask, 7) == 0);
    CHECK_INT(opd_contrast_share(&config, 7), 7);
}
