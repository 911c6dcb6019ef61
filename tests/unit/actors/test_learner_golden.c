/* test_learner_golden.c - the learner's loss and every gradient, from weights and token ids,
 * against PyTorch in float64 (tests/golden/make_learner.py):
 * ||x - ref|| <= 1e-4 ||ref|| + 1e-7 per tensor. */
#include "actors/messages.h"
#include "tests/unit/actors/learner_rig.h"

enum { SAMPLES_MAX = 8, ROWS_MAX = 64, IDS_MAX = 128 };

typedef struct fixture {
    FILE *file;
    opd_model *model;
    int32_t samples, tokens, rows, cases;
    int32_t starts[SAMPLES_MAX + 1], offsets[SAMPLES_MAX + 1], groups[SAMPLES_MAX], ids[IDS_MAX];
    double rewards[SAMPLES_MAX];
    uint8_t valid[ROWS_MAX];
    float teacher[ROWS_MAX], old[ROWS_MAX];
} fixture;

typedef struct golden_case {
    int32_t only_reward, token_mean;
    double temperature, kl_coef, entropy_coef, clip_low, clip_high;
    double loss, pg_loss, clip_frac, entropy, reverse_kl;
    double logp[ROWS_MAX], *grads;
} golden_case;

static void take(FILE *file, void *to, size_t size) { CHECK_INT(fread(to, 1, size, file), size); }

static void fixture_load(fixture *f) {
    int32_t h[16];
    double reals[2];
    f->file = fopen(OPD_SOURCE_DIR "/tests/golden/learner.bin", "rb");
    CHECK(f->file != NULL);
    take(f->file, h, sizeof h);
    take(f->file, reals, sizeof reals);
    CHECK_INT(h[0], 0x4f50444c);
    opd_model_config config = {.vocab_size = h[1], .hidden_size = h[2], .intermediate_size = h[3],
                               .layers = h[4], .heads = h[5], .kv_heads = h[6], .head_dim = h[7],
                               .max_position = h[8], .rope_theta = reals[0], .rms_eps = reals[1],
                               .tie_embeddings = true, .bos_id = -1, .eos_id = -1, .pad_id = -1};
    f->samples = h[9], f->tokens = h[10], f->rows = h[11], f->cases = h[13];
    CHECK(f->samples <= SAMPLES_MAX && f->rows <= ROWS_MAX && f->tokens <= IDS_MAX);
    size_t n = (size_t)f->samples, rows = (size_t)f->rows;
    take(f->file, f->starts, (n + 1) * 4);
    take(f->file, f->offsets, (n + 1) * 4);
    take(f->file, f->groups, n * 4);
    take(f->file, f->ids, (size_t)f->tokens * 4);
    take(f->file, f->rewards, n * 8);
    take(f->file, f->valid, (rows + 3) / 4 * 4);
    take(f->file, f->teacher, rows * 4);
    take(f->file, f->old, rows * 4);
    CHECK_OK(opd_model_create_empty(&config, NULL, &f->model));
    CHECK_INT(f->model->param_count, h[12]);
    take(f->file, f->model->params, f->model->param_count * sizeof(float));
}

static void case_load(fixture *f, golden_case *c) {
    take(f->file, &c->only_reward, 8);
    take(f->file, &c->temperature, 80);
    take(f->file, c->logp, (size_t)f->rows * 8);
    c->grads = malloc(f->model->param_count * sizeof *c->grads);
    take(f->file, c->grads, f->model->param_count * sizeof *c->grads);
}

static opd_batch *batch_of(const fixture *f) {
    opd_batch *batch;
    CHECK_OK(opd_batch_create(NULL, SAMPLES_MAX, IDS_MAX, 0, 0, 1, &batch));
    opd_batch_clear(batch);
    for (int32_t i = 0; i < f->samples; i++) {
        int32_t first = f->offsets[i], rows = f->offsets[i + 1] - first;
        opd_batch_sample s = {.group = (uint64_t)f->groups[i], .response_len = (uint32_t)rows,
                              .prompt_len = (uint32_t)(f->starts[i + 1] - f->starts[i] - rows),
                              .tokens = f->ids + f->starts[i], .rollout_logp = f->old + first,
                              .teacher_logp = f->teacher + first, .teacher_valid = f->valid + first,
                              .reward = f->rewards[i], .reward_valid = true, .reuse_logp = true};
        CHECK_OK(opd_batch_add(batch, &s));
    }
    return batch;
}

static void compare(const char *name, const float *x, const double *ref, size_t n) {
    double error = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        error += ((double)x[i] - ref[i]) * ((double)x[i] - ref[i]);
        norm += ref[i] * ref[i];
    }
    if (!(sqrt(error) <= 1e-4 * sqrt(norm) + 1e-7))
        opd_test_fail(__FILE__, __LINE__, "%s: error %.3g of norm %.3g", name, sqrt(error), sqrt(norm));
}

static void near(const char *name, double x, double ref) {
    if (!(fabs(x - ref) <= 1e-4 * fabs(ref) + 1e-7))
        opd_test_fail(__FILE__, __LINE__, "%s: %.9g, expected %.9g", name, x, ref);
}

/* AdamW's first step with beta1 = 0, from the reference's gradients, in double. */
static void check_weights(const opd_model *model, const float *before, const float *grads) {
    for (size_t i = 0; i < model->tensor_count; i++) {
        const opd_tensor *t = &model->tensors[i];
        double decay = t->rank == 2 ? 0.01 : 0;
        for (size_t j = t->offset; j < t->offset + t->count; j++) {
            double g = (double)grads[j], p = (double)before[j];
            CHECK_NEAR(model->params[j], p - 1e-3 * (g / (fabs(g) + 1e-8) + decay * p), 3e-6);
        }
    }
}

static void check_case(const fixture *f, const golden_case *c, size_t micro_batch_tokens) {
    opd_model *model;
    opd_kernels *kernels = tiny_kernels(1);
    opd_learner *learner;
    double v[OPD_METRIC_COUNT];
    size_t size = f->model->param_count * sizeof(float);
    CHECK_OK(opd_model_create_empty(&f->model->config, NULL, &model));
    memcpy(model->params, f->model->params, size);
    opd_learner_options o = rig_options(model, kernels);
    o.samples_max = SAMPLES_MAX, o.tokens_max = IDS_MAX, o.teacher_k = o.student_k = 0;
    o.micro_batch_tokens = micro_batch_tokens;
    o.temperature = c->temperature;
    o.reduction = c->token_mean ? OPD_REDUCTION_TOKEN_MEAN : OPD_REDUCTION_SAMPLE_MEAN;
    o.advantage.only_reward = c->only_reward, o.advantage.kl_coef = c->kl_coef;
    o.policy = (opd_policy_config){.clip_low = c->clip_low, .clip_high = c->clip_high,
                                   .entropy_coef = c->entropy_coef};
    opd_batch *batch = batch_of(f);
    CHECK_OK(opd_learner_create(&o, &learner));
    CHECK_OK(rig_learn(learner, batch));
    CHECK(opd_learner_stepped(learner));
    const float *grads = opd_learner_optimizer(learner)->m;
    for (size_t i = 0; i < model->tensor_count; i++) {
        const opd_tensor *t = &model->tensors[i];
        compare(t->name, grads + t->offset, c->grads + t->offset, t->count);
    }
    opd_learner_report(learner, v);
    near("loss", v[OPD_METRIC_LOSS], c->loss);
    near("pg_loss", v[OPD_METRIC_PG_LOSS], c->pg_loss);
    near("clip_frac", v[OPD_METRIC_PG_CLIPFRAC], c->clip_frac);
    near("entropy", v[OPD_METRIC_ENTROPY], c->entropy);
    near("reverse_kl", v[OPD_METRIC_OPD_REVERSE_KL], c->reverse_kl);
    double norm = 0, mean = 0, apart = 0;
    for (size_t i = 0; i < model->param_count; i++) norm += c->grads[i] * c->grads[i];
    for (int32_t i = 0; i < f->rows; i++) {
        mean += (double)f->old[i] / f->rows;
        apart += fabs(c->logp[i] - (double)f->old[i]) / f->rows;
    }
    near("grad_norm", v[OPD_METRIC_GRAD_NORM], sqrt(norm));
    near("log_probs", v[OPD_METRIC_LOG_PROBS], mean);
    near("logprob_abs_diff", v[OPD_METRIC_LOGPROB_ABS_DIFF], apart);
    check_weights(model, f->model->params, grads);
    opd_learner_destroy(learner);
    opd_batch_destroy(batch);
    opd_kernels_destroy(kernels);
    opd_model_destroy(model);
}

static void check_all(size_t micro_batch_tokens) {
    fixture f;
    fixture_load(&f);
    CHECK(f.cases == 4);
    for (int32_t i = 0; i < f.cases; i++) {
        golden_case c;
        case_load(&f, &c);
        (void)printf("case %d\n", i);
        check_case(&f, &c, micro_batch_tokens);
        free(c.grads);
    }
    CHECK_INT(fgetc(f.file), EOF);
    fclose(f.file);
    opd_model_destroy(f.model);
}

TEST(loss_and_gradients_agree_with_pytorch) { check_all(IDS_MAX); }
TEST(loss_and_gradients_agree_in_small_micro_batches) { check_all(17); }
