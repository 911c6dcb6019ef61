/* test_optimizer.c - AdamW against a float64 reference, schedules, clipping, the guard against
 * non-finite gradients, and that a small model really learns. */
#include "models/optimizer.h"

#include "kernels/array.h"
#include "models/graph.h"
#include "tests/support/test.h"

static opd_model *model_make(void) {
    opd_model *model;
    opd_model_config config = {.vocab_size = 17, .hidden_size = 16, .intermediate_size = 24,
                               .layers = 1, .heads = 2, .kv_heads = 1, .head_dim = 8,
                               .max_position = 32, .rope_theta = 1e4, .rms_eps = 1e-5,
                               .tie_embeddings = true, .bos_id = -1, .eos_id = -1, .pad_id = -1};
    CHECK_OK(opd_model_create(&config, 1, NULL, &model));
    return model;
}

static void check_reference(opd_cpu_isa isa) {
    enum { STEPS = 4 };
    opd_kernels *k;
    opd_optimizer *o;
    opd_model *model = model_make();
    opd_optimizer_config c = {.lr = 0.01, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-8,
                              .weight_decay = 0.1, .clip_norm = 2.0, .warmup_steps = 2};
    if (!opd_cpu_isa_available(isa)) SKIP("this processor lacks the instruction set");
    CHECK_OK(opd_kernels_create_cpu(isa, 2, NULL, &k));
    size_t n = model->param_count;
    CHECK_OK(opd_optimizer_create(&c, n, NULL, &o));
    float *grads = opd_floats_create(NULL, n);
    double *p = calloc(n, sizeof *p), *m = calloc(n, sizeof *m), *v = calloc(n, sizeof *v);
    for (size_t i = 0; i < n; i++) p[i] = (double)model->params[i];
    for (int t = 1; t <= STEPS; t++) {
        double norm = 0;
        for (size_t i = 0; i < n; i++) {
            grads[i] = (float)sin((double)i * 0.37 + t);
            norm += (double)grads[i] * (double)grads[i];
        }
        opd_optimizer_report report = opd_optimizer_step(o, k, model, grads);
        double lr = t < 2 ? 0.005 : 0.01;
        CHECK_NEAR(report.grad_norm, sqrt(norm), 1e-9 * sqrt(norm));
        CHECK_NEAR(report.lr, lr, 1e-12);
        CHECK(!report.skipped);
        for (size_t j = 0; j < model->tensor_count; j++)
            for (size_t i = model->tensors[j].offset;
                 i < model->tensors[j].offset + model->tensors[j].count; i++) {
                double g = (double)grads[i] * 2.0 / sqrt(norm);
                m[i] = 0.9 * m[i] + 0.1 * g;
                v[i] = 0.99 * v[i] + 0.01 * g * g;
                double update = m[i] / (1 - pow(0.9, t)) / (sqrt(v[i] / (1 - pow(0.99, t))) + 1e-8);
                p[i] -= lr * (update + (model->tensors[j].rank == 2 ? 0.1 * p[i] : 0.0));
            }
    }
    for (size_t i = 0; i < n; i++) CHECK_NEAR(model->params[i], p[i], 2e-6);
    CHECK_INT(o->step, STEPS);
    free(p);
    free(m);
    free(v);
    opd_floats_destroy(NULL, grads);
    opd_optimizer_destroy(o);
    opd_kernels_destroy(k);
    opd_model_destroy(model);
}

TEST(adamw_follows_its_formula_plain) { check_reference(OPD_CPU_ISA_PLAIN); }
TEST(adamw_follows_its_formula_avx2) { check_reference(OPD_CPU_ISA_AVX2); }
TEST(adamw_follows_its_formula_avx512) { check_reference(OPD_CPU_ISA_AVX512); }

TEST(schedules) {
    opd_optimizer_config c = {.lr = 2.0, .warmup_steps = 4, .total_steps = 14,
                              .min_lr_ratio = 0.1, .schedule = OPD_SCHEDULE_LINEAR};
    CHECK_NEAR(opd_optimizer_lr_at(&c, 1), 0.5, 1e-12);
    CHECK_NEAR(opd_optimizer_lr_at(&c, 4), 2.0, 1e-12);
    CHECK_NEAR(opd_optimizer_lr_at(&c, 9), 2.0 * 0.55, 1e-12);
    CHECK_NEAR(opd_optimizer_lr_at(&c, 14), 0.2, 1e-12);
    CHECK_NEAR(opd_optimizer_lr_at(&c, 99), 0.2, 1e-12);
    c.schedule = OPD_SCHEDULE_COSINE;
    CHECK_NEAR(opd_optimizer_lr_at(&c, 9), 2.0 * 0.55, 1e-12);
    CHECK(opd_optimizer_lr_at(&c, 6) > 2.0 * 0.82);
    c.schedule = OPD_SCHEDULE_CONSTANT;
    CHECK_NEAR(opd_optimizer_lr_at(&c, 99), 2.0, 1e-12);
}

TEST(non_finite_gradient_changes_nothing) {
    opd_kernels *k;
    opd_optimizer *o;
    opd_model *model = model_make();
    opd_optimizer_config c = opd_optimizer_config_default();
    CHECK_OK(opd_kernels_create_cpu(OPD_CPU_ISA_AUTO, 1, NULL, &k));
    CHECK_OK(opd_optimizer_create(&c, model->param_count, NULL, &o));
    size_t bytes = model->param_count * sizeof(float);
    float *grads = opd_floats_create(NULL, model->param_count), *before = malloc(bytes);
    memcpy(before, model->params, bytes);
    const float bad[2] = {NAN, INFINITY};
    for (int i = 0; i < 2; i++) {
        grads[model->param_count - 3] = bad[i];
        opd_optimizer_report report = opd_optimizer_step(o, k, model, grads);
        CHECK(report.skipped && !isfinite(report.grad_norm));
        CHECK_INT(o->step, 0);
        CHECK_INT(o->skipped, i + 1);
        CHECK(memcmp(before, model->params, bytes) == 0);
        for (size_t j = 0; j < model->param_count; j++) CHECK(o->m[j] == 0 && o->v[j] == 0);
    }
    free(before);
    opd_floats_destroy(NULL, grads);
    opd_optimizer_destroy(o);
    opd_kernels_destroy(k);
    opd_model_destroy(model);
}

TEST(settings_out_of_range_are_refused) {
    opd_optimizer *o;
    opd_optimizer_config c = opd_optimizer_config_default();
    c.beta2 = 1.0;
    CHECK_ERR(opd_optimizer_create(&c, 4, NULL, &o), OPD_ERR_INVALID);
    c = opd_optimizer_config_default();
    c.lr = NAN;
    CHECK_ERR(opd_optimizer_create(&c, 4, NULL, &o), OPD_ERR_INVALID);
    c = opd_optimizer_config_default();
    c.schedule = OPD_SCHEDULE_LINEAR;
    CHECK_ERR(opd_optimizer_create(&c, 4, NULL, &o), OPD_ERR_INVALID);
}

TEST(a_model_learns_a_sequence) {
    opd_kernels *k;
    opd_optimizer *o;
    opd_graph *graph;
    opd_model *model = model_make();
    opd_optimizer_config c = opd_optimizer_config_default();
    c.lr = 0.01;
    CHECK_OK(opd_kernels_create_cpu(OPD_CPU_ISA_AUTO, 1, NULL, &k));
    CHECK_OK(opd_optimizer_create(&c, model->param_count, NULL, &o));
    CHECK_OK(opd_graph_create(k, &model->config, OPD_GRAPH_TRAIN, 16, NULL, &graph));
    float *grads = opd_floats_create(NULL, model->param_count), logp[15], dlogp[15];
    int32_t tokens[16];
    opd_score_row rows[15];
    for (size_t i = 0; i < 16; i++) tokens[i] = (int32_t)(i * i * 3 % 17);
    for (size_t i = 0; i < 15; i++) {
        rows[i] = (opd_score_row){i, tokens[i + 1], 1.0f};
        dlogp[i] = -1.0f / 15.0f;
    }
    opd_packed packed = {1, (size_t[]){0, 16}, tokens};
    opd_scores out = {.logp = logp};
    double loss = 0, start = 0;
    for (int step = 0; step < 120; step++) {
        opd_graph_set_weights(graph, model->params);
        memset(grads, 0, model->param_count * sizeof *grads);
        CHECK_OK(opd_graph_forward(graph, &packed));
        CHECK_OK(opd_graph_score(graph, rows, 15, &out));
        CHECK_OK(opd_graph_backward(graph, rows, 15, dlogp, NULL, NULL, grads));
        CHECK(!opd_optimizer_step(o, k, model, grads).skipped);
        loss = 0;
        for (size_t i = 0; i < 15; i++) loss -= (double)logp[i] / 15;
        if (step == 0) start = loss;
    }
    CHECK_NEAR(start, log(17.0), 0.1);
    CHECK(loss < 0.05);
    opd_floats_destroy(NULL, grads);
    opd_graph_destroy(graph);
    opd_optimizer_destroy(o);
    opd_kernels_destroy(k);
    opd_model_destroy(model);
}
