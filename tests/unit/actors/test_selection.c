/* test_selection.c - which tokens a divergence looks at: against PyTorch in float64, down to the gradient by
 * the logits (tests/golden/make_selection.py), and what may not change the choice. */
#include "actors/trainer/contrast.h"
#include "actors/trainer/policy_loss.h"
#include "core/base/check.h"
#include "core/base/rng.h"
#include "tests/unit/actors/golden.h"
#include "tests/unit/actors/tiny.h"

enum { VALUES_MAX = 256, ROWS_MAX = 32 };

/* What a case says of its samples, with the entropy by the kernel. */
typedef struct tokens {
    size_t samples, rows, vocab, offsets[ROWS_MAX];
    float logits[VALUES_MAX], teacher[VALUES_MAX], entropy[ROWS_MAX], old[ROWS_MAX], told[ROWS_MAX];
    float inverse[ROWS_MAX];
    int32_t targets[ROWS_MAX], ids[VALUES_MAX];
    uint8_t mask[ROWS_MAX], selected[ROWS_MAX];
} tokens;

static void take(const golden *g, tokens *t) {
    opd_kernels *kernels = tiny_kernels(1);
    size_t count;
    const double *offsets = get(g, "offsets", &count);
    t->samples = count - 1;
    for (size_t i = 0; i < count; i++) t->offsets[i] = (size_t)offsets[i];
    t->vocab = (size_t)number(g, "vocab");
    t->rows = floats(g, "old", t->old, VALUES_MAX);
    CHECK(t->rows <= ROWS_MAX && t->offsets[t->samples] == t->rows);
    CHECK_INT(floats(g, "told", t->told, VALUES_MAX), t->rows);
    CHECK_INT(floats(g, "logits", t->logits, VALUES_MAX), t->rows * t->vocab);
    CHECK_INT(floats(g, "teacher", t->teacher, VALUES_MAX), t->rows * t->vocab);
    for (size_t i = 0; i < t->rows; i++) {
        t->inverse[i] = 1;
        t->targets[i] = (int32_t)get(g, "sampled", NULL)[i];
        t->mask[i] = get(g, "mask", NULL)[i] != 0;
    }
    for (size_t i = 0; i < t->rows * t->vocab; i++) t->ids[i] = (int32_t)(i % t->vocab);
    kernels->ops->logprob(kernels, NULL, t->entropy, NULL, NULL, 0, t->logits, t->targets, t->inverse,
                          t->rows, t->vocab);
    opd_kernels_destroy(kernels);
}

static void choose(const opd_contrast_config *config, tokens *t) {
    size_t order[ROWS_MAX];
    float scores[ROWS_MAX];
    for (size_t i = 0; i < t->samples; i++) {
        size_t at = t->offsets[i], n = t->offsets[i + 1] - at;
        opd_contrast_rank(config, n, t->mask + at, t->entropy + at, t->old + at, t->told + at, scores + at);
        opd_contrast_select(config, n, t->mask + at, scores + at, order, t->selected + at);
    }
}

/* The gradient of the divergence over the selected tokens, in place of the logits. */
static double learn(const opd_contrast_config *config, opd_reduction reduction, tokens *t) {
    opd_divisor divisor = {.reduction = reduction, .batch_size = t->samples,
                           .batch_tokens = opd_reduction_tokens(t->samples, t->offsets, t->selected)};
    float weights[ROWS_MAX], none[ROWS_MAX] = {0};
    opd_score_row rows[ROWS_MAX];
    opd_contrast *contrast;
    opd_contrast_stats stats = {0};
    for (size_t i = 0; i < t->rows; i++) rows[i] = (opd_score_row){i, t->targets[i], 1};
    opd_reduction_weights(&divisor, t->samples, t->offsets, t->selected, weights);
    opd_contrast_rows in = {.rows = rows, .dlogp = none, .weights = weights, .listed = t->vocab,
                            .teacher_ids = t->ids, .teacher_logps = t->teacher};
    CHECK_OK(opd_contrast_create(config, t->vocab, NULL, &contrast));
    opd_contrast_begin(contrast, &in, &stats);
    opd_contrast_grad(contrast, 0, t->rows, t->logits);
    opd_contrast_destroy(contrast);
    return stats.loss;
}

static opd_contrast_config config_of(opd_token_selection selection, double share) {
    return (opd_contrast_config){.coef = 1, .support = OPD_SUPPORT_FULL, .selection = selection,
                                 .divergence = {.kind = OPD_DIVERGENCE_FORWARD_KL, .jsd_alpha = 0.5},
                                 .token_share = share};
}

static void check_case(const golden *g) {
    static tokens t;
    size_t total;
    double error = 0, norm = 0;
    take(g, &t);
    opd_contrast_config config = config_of((opd_token_selection)number(g, "way"), number(g, "share"));
    config.coef = number(g, "coef");
    choose(&config, &t);
    for (size_t i = 0; i < t.rows; i++) CHECK_INT(t.selected[i], get(g, "selected", NULL)[i]);
    double loss = learn(&config, (opd_reduction)number(g, "reduction"), &t);
    CHECK_NEAR(loss, number(g, "loss"), 1e-5 * number(g, "loss") + 1e-7);
    const double *want = get(g, "grad", &total);
    CHECK_INT(total, t.rows * t.vocab);
    for (size_t i = 0; i < total; i++) {
        error += ((double)t.logits[i] - want[i]) * ((double)t.logits[i] - want[i]);
        norm += want[i] * want[i];
    }
    if (!(sqrt(error) <= 1e-5 * sqrt(norm) + 1e-7))
        opd_test_fail(__FILE__, __LINE__, "gradient: error %.3g of norm %.3g", sqrt(error), sqrt(norm));
}

TEST(every_selection_is_pytorch_s) {
    CHECK_INT(golden_each("tests/golden/selection.json", check_case), 5 * 2 * 2);
}

/* ---- properties ---- */

enum { N = 30 };

static void random_tokens(opd_rng *rng, tokens *t) {
    *t = (tokens){.samples = 1, .rows = N, .offsets = {0, N}};
    for (size_t i = 0; i < t->rows; i++) {
        t->entropy[i] = (float)opd_rng_below(rng, 1000) / 100;
        t->old[i] = -(float)opd_rng_below(rng, 1000) / 100;
        t->told[i] = -(float)opd_rng_below(rng, 1000) / 100;
        t->mask[i] = opd_rng_below(rng, 4) != 0;
    }
}

#define EACH_SELECTION(selection) \
    for (opd_token_selection selection = OPD_SELECT_ALL; \
         selection <= OPD_SELECT_ENTROPY_AND_DIVERGENCE; selection++)

/* Neither what is masked, nor the units of entropy and log-probs, say which tokens are chosen. */
TEST(what_is_masked_and_scale_do_not_change_the_choice) {
    static tokens t, other;
    opd_rng rng;
    opd_rng_init(&rng, 8);
    for (int round = 0; round < 50; round++) {
        random_tokens(&rng, &t);
        EACH_SELECTION(selection) {
            opd_contrast_config config = config_of(selection, 0.25);
            choose(&config, &t);
            other = t;
            for (size_t i = 0; i < t.rows; i++) {
                other.entropy[i] = t.mask[i] ? 4 * t.entropy[i] : NAN;
                other.old[i] = t.mask[i] ? 2 * t.old[i] : NAN;
                other.told[i] = t.mask[i] ? 2 * t.told[i] : INFINITY;
            }
            choose(&config, &other);
            CHECK(memcmp(other.selected, t.selected, sizeof t.selected) == 0);
        }
    }
}

/* Four tokens: unsure, sure and wrong, both, neither. */
TEST(each_selection_finds_its_region) {
    tokens t = {.samples = 1, .rows = 4, .offsets = {0, 4}, .mask = {1, 1, 1, 1},
                .entropy = {2, 0.1f, 1.8f, 0}, .old = {-1, -1, -1, -1}, .told = {-1.1f, -6, -5, -1}};
    const struct { opd_token_selection selection; double share; uint8_t want[4]; } cases[] = {
        {OPD_SELECT_ENTROPY, 0.5, {1, 0, 1, 0}}, {OPD_SELECT_DIVERGENCE, 0.5, {0, 1, 1, 0}},
        {OPD_SELECT_ENTROPY_OR_DIVERGENCE, 0.75, {1, 1, 1, 0}},
        {OPD_SELECT_ENTROPY_AND_DIVERGENCE, 0.25, {0, 0, 1, 0}}};
    for (size_t i = 0; i < OPD_COUNTOF(cases); i++) {
        opd_contrast_config config = config_of(cases[i].selection, cases[i].share);
        choose(&config, &t);
        CHECK(memcmp(t.selected, cases[i].want, 4) == 0);
    }
}
