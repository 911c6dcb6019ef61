/* golden_model.h - reads tests/golden/model.bin (format: tests/golden/make_model.py). */
#ifndef OPD_TESTS_UNIT_MODELS_GOLDEN_MODEL_H
#define OPD_TESTS_UNIT_MODELS_GOLDEN_MODEL_H

#include "models/graph.h"
#include "tests/support/test.h"

enum { GOLDEN_ROWS_MAX = 32, GOLDEN_SEQUENCES_MAX = 8, GOLDEN_TOKENS_MAX = 64 };

typedef struct golden {
    opd_model *model;
    size_t seq_start[GOLDEN_SEQUENCES_MAX];
    int32_t ids[GOLDEN_TOKENS_MAX];
    opd_packed packed;
    opd_score_row rows[GOLDEN_ROWS_MAX];
    float dlogp[GOLDEN_ROWS_MAX], dentropy[GOLDEN_ROWS_MAX];
    size_t row_count, token_count;
    double *logits, *logp, *entropy, *grads;
} golden;

static void golden_read(FILE *file, void *to, size_t size) {
    CHECK_INT(fread(to, 1, size, file), size);
}

static double *golden_doubles(FILE *file, size_t n) {
    double *x = malloc(n * sizeof *x);
    CHECK(x != NULL);
    golden_read(file, x, n * sizeof *x);
    return x;
}

static void golden_load_one(FILE *file, golden *g) {
    int32_t h[16], pairs[2 * GOLDEN_ROWS_MAX], starts[GOLDEN_SEQUENCES_MAX];
    double reals[2];
    float inv_t[GOLDEN_ROWS_MAX];
    golden_read(file, h, sizeof h);
    golden_read(file, reals, sizeof reals);
    CHECK_INT(h[0], 0x4f504447);
    opd_model_config config = {.vocab_size = h[1], .hidden_size = h[2], .intermediate_size = h[3],
                               .layers = h[4], .heads = h[5], .kv_heads = h[6], .head_dim = h[7],
                               .max_position = h[8], .rope_theta = reals[0], .rms_eps = reals[1],
                               .tie_embeddings = h[12] != 0, .bos_id = -1, .eos_id = -1,
                               .pad_id = -1};
    size_t sequences = (size_t)h[9];
    g->token_count = (size_t)h[10];
    g->row_count = (size_t)h[11];
    CHECK(sequences < GOLDEN_SEQUENCES_MAX && g->token_count <= GOLDEN_TOKENS_MAX);
    CHECK(g->row_count <= GOLDEN_ROWS_MAX);
    golden_read(file, starts, (sequences + 1) * sizeof starts[0]);
    golden_read(file, g->ids, g->token_count * sizeof g->ids[0]);
    golden_read(file, pairs, 2 * g->row_count * sizeof pairs[0]);
    golden_read(file, inv_t, g->row_count * sizeof inv_t[0]);
    golden_read(file, g->dlogp, g->row_count * sizeof(float));
    golden_read(file, g->dentropy, g->row_count * sizeof(float));
    for (size_t i = 0; i <= sequences; i++) g->seq_start[i] = (size_t)starts[i];
    for (size_t i = 0; i < g->row_count; i++)
        g->rows[i] = (opd_score_row){(size_t)pairs[2 * i], pairs[2 * i + 1], inv_t[i]};
    g->packed = (opd_packed){sequences, g->seq_start, g->ids};
    CHECK_OK(opd_model_create_empty(&config, NULL, &g->model));
    CHECK_INT(g->model->param_count, h[13]);
    golden_read(file, g->model->params, g->model->param_count * sizeof(float));
    g->logits = golden_doubles(file, g->token_count * (size_t)h[1]);
    g->logp = golden_doubles(file, g->row_count);
    g->entropy = golden_doubles(file, g->row_count);
    g->grads = golden_doubles(file, g->model->param_count);
}

/* Loads both models: [0] with its own head, [1] tied. */
static void golden_load(golden out[2]) {
    FILE *file = fopen(OPD_SOURCE_DIR "/tests/golden/model.bin", "rb");
    CHECK(file != NULL);
    golden_load_one(file, &out[0]);
    golden_load_one(file, &out[1]);
    fclose(file);
}

static void golden_free(golden g[2]) {
    for (int i = 0; i < 2; i++) {
        opd_model_destroy(g[i].model);
        free(g[i].logits);
        free(g[i].logp);
        free(g[i].entropy);
        free(g[i].grads);
    }
}

/* Fails unless ||x - ref|| <= 1e-4 ||ref|| + 1e-7. */
static void golden_compare(const char *name, const float *x, const double *ref, size_t n) {
    double error = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        error += ((double)x[i] - ref[i]) * ((double)x[i] - ref[i]);
        norm += ref[i] * ref[i];
    }
    if (!(sqrt(error) <= 1e-4 * sqrt(norm) + 1e-7))
        opd_test_fail(__FILE__, __LINE__, "%s: error %.3g of norm %.3g", name, sqrt(error),
                      sqrt(norm));
}

#endif
