/* test_graph.c - the transformer against a float64 PyTorch reference, on every instruction set,
 * and the bit-identities that opd's determinism rests on. */
#include "models/graph.h"

#include "core/base/rng.h"
#include "kernels/array.h"
#include "tests/unit/models/golden_model.h"

static opd_kernels *kernels_of(opd_cpu_isa isa, size_t threads) {
    opd_kernels *k;
    if (!opd_cpu_isa_available(isa)) SKIP("this processor lacks the instruction set");
    CHECK_OK(opd_kernels_create_cpu(isa, threads, NULL, &k));
    return k;
}

static void check_logits(opd_graph *graph, const golden *g) {
    size_t vocab = (size_t)g->model->config.vocab_size;
    int32_t *ids = malloc(vocab * sizeof *ids);
    float *logp = malloc(vocab * sizeof *logp), *sorted = malloc(vocab * sizeof *sorted);
    for (size_t t = 0; t < g->token_count; t++) { /* every log-prob of every position */
        opd_score_row row = {t, 0, 1.0f};
        opd_scores out = {.top_k = vocab, .top_ids = ids, .top_logp = sorted};
        CHECK_OK(opd_graph_score(graph, &row, 1, &out));
        double sum = 0, *ref = malloc(vocab * sizeof *ref);
        for (size_t i = 0; i < vocab; i++) sum += exp(g->logits[t * vocab + i]);
        for (size_t i = 0; i < vocab; i++) {
            logp[ids[i]] = sorted[i];
            ref[i] = g->logits[t * vocab + i] - log(sum);
            CHECK(i == 0 || sorted[i] <= sorted[i - 1]);
        }
        golden_compare("log-softmax of the logits", logp, ref, vocab);
        free(ref);
    }
    free(ids);
    free(logp);
    free(sorted);
}

static void check_golden(opd_cpu_isa isa, size_t threads) {
    golden both[2];
    opd_kernels *k = kernels_of(isa, threads);
    golden_load(both);
    for (int m = 0; m < 2; m++) {
        golden *g = &both[m];
        opd_graph *graph;
        float logp[GOLDEN_ROWS_MAX], entropy[GOLDEN_ROWS_MAX];
        float *grads = opd_floats_create(NULL, g->model->param_count);
        opd_scores out = {.logp = logp, .entropy = entropy};
        CHECK_OK(opd_graph_create(k, &g->model->config, OPD_GRAPH_TRAIN, 40, NULL, &graph));
        opd_graph_set_weights(graph, g->model->params);
        CHECK_OK(opd_graph_forward(graph, &g->packed));
        check_logits(graph, g);
        CHECK_OK(opd_graph_score(graph, g->rows, g->row_count, &out));
        golden_compare("logp", logp, g->logp, g->row_count);
        golden_compare("entropy", entropy, g->entropy, g->row_count);
        CHECK_OK(opd_graph_backward(graph, g->rows, g->row_count, g->dlogp, g->dentropy, NULL, grads));
        for (size_t i = 0; i < g->model->tensor_count; i++) {
            const opd_tensor *t = &g->model->tensors[i];
            golden_compare(t->name, grads + t->offset, g->grads + t->offset, t->count);
        }
        opd_floats_destroy(NULL, grads);
        opd_graph_destroy(graph);
    }
    golden_free(both);
    opd_kernels_destroy(k);
}

TEST(golden_plain) { check_golden(OPD_CPU_ISA_PLAIN, 1); }
TEST(golden_avx2) { check_golden(OPD_CPU_ISA_AVX2, 1); }
TEST(golden_avx512) { check_golden(OPD_CPU_ISA_AVX512, 1); }
TEST(golden_two_threads) { check_golden(OPD_CPU_ISA_AUTO, 2); }

/* ---- bit-identities, on a model whose sizes do not divide any tile ------------------------- */

enum { SEQS = 5, MOST = 200 };
static const size_t lengths[SEQS] = {17, 1, 40, 3, 26};

typedef struct fixture {
    opd_model *model;
    int32_t tokens[MOST];
    size_t starts[SEQS + 1];
    opd_score_row rows[MOST];
    float dlogp[MOST];
    size_t n;
} fixture;

static void fixture_init(fixture *f) {
    opd_model_config config = {.vocab_size = 83, .hidden_size = 36, .intermediate_size = 70,
                               .layers = 2, .heads = 6, .kv_heads = 2, .head_dim = 10,
                               .max_position = 64, .rope_theta = 1e4, .rms_eps = 1e-5,
                               .tie_embeddings = true, .bos_id = -1, .eos_id = -1, .pad_id = -1};
    memset(f, 0, sizeof *f);
    CHECK_OK(opd_model_create(&config, 3, NULL, &f->model));
    for (size_t i = 0; i < f->model->param_count; i++) f->model->params[i] *= 5.0f;
    for (size_t s = 0; s < SEQS; s++) f->starts[s + 1] = f->starts[s] + lengths[s];
    f->n = f->starts[SEQS];
    for (size_t i = 0; i < f->n; i++) {
        f->tokens[i] = (int32_t)((i * 31 + 7) % 83);
        f->rows[i] = (opd_score_row){i, (int32_t)((i * 17 + 5) % 83), i % 2 ? 1.0f : 0.7f};
        f->dlogp[i] = (float)i * 0.01f - 0.3f;
    }
}

/* logp of all rows and gradients of one batch */
static void run(const fixture *f, opd_cpu_isa isa, size_t threads, float *logp, float *grads) {
    opd_kernels *k = kernels_of(isa, threads);
    opd_graph *graph;
    opd_packed packed = {SEQS, f->starts, f->tokens};
    opd_scores out = {.logp = logp};
    CHECK_OK(opd_graph_create(k, &f->model->config, OPD_GRAPH_TRAIN, MOST, NULL, &graph));
    opd_graph_set_weights(graph, f->model->params);
    CHECK_OK(opd_graph_forward(graph, &packed));
    CHECK_OK(opd_graph_score(graph, f->rows, f->n, &out));
    CHECK_OK(opd_graph_backward(graph, f->rows, f->n, f->dlogp, NULL, NULL, grads));
    opd_graph_destroy(graph);
    opd_kernels_destroy(k);
}

static void check_threads(opd_cpu_isa isa) {
    fixture f;
    float logp[2][MOST] = {{0}};
    fixture_init(&f);
    size_t bytes = f.model->param_count * sizeof(float);
    float *one = opd_floats_create(NULL, f.model->param_count);
    float *three = opd_floats_create(NULL, f.model->param_count);
    run(&f, isa, 1, logp[0], one);
    run(&f, isa, 3, logp[1], three);
    CHECK(memcmp(logp[0], logp[1], sizeof logp[0]) == 0);
    CHECK(memcmp(one, three, bytes) == 0);
    opd_floats_destroy(NULL, one);
    opd_floats_destroy(NULL, three);
    opd_model_destroy(f.model);
}

TEST(threads_do_not_change_a_bit_plain) { check_threads(OPD_CPU_ISA_PLAIN); }
TEST(threads_do_not_change_a_bit_avx2) { check_threads(OPD_CPU_ISA_AVX2); }
TEST(threads_do_not_change_a_bit_avx512) { check_threads(OPD_CPU_ISA_AVX512); }

static void check_batching(opd_cpu_isa isa) {
    fixture f;
    float together[MOST], alone[MOST];
    fixture_init(&f);
    opd_kernels *k = kernels_of(isa, 1);
    opd_graph *graph;
    opd_packed packed = {SEQS, f.starts, f.tokens};
    opd_scores out = {.logp = together};
    CHECK_OK(opd_graph_create(k, &f.model->config, OPD_GRAPH_SCORE, MOST, NULL, &graph));
    opd_graph_set_weights(graph, f.model->params);
    CHECK_OK(opd_graph_forward(graph, &packed));
    CHECK_OK(opd_graph_score(graph, f.rows, f.n, &out));
    for (size_t s = 0; s < SEQS; s++) {
        opd_packed one = {1, (size_t[]){0, lengths[s]}, f.tokens + f.starts[s]};
        CHECK_OK(opd_graph_forward(graph, &one));
        for (size_t i = 0; i < lengths[s]; i++) {
            opd_score_row row = f.rows[f.starts[s] + i];
            row.row = i;
            out.logp = alone + f.starts[s] + i;
            CHECK_OK(opd_graph_score(graph, &row, 1, &out));
        }
    }
    CHECK(memcmp(together, alone, f.n * sizeof(float)) == 0);
    opd_graph_destroy(graph);
    opd_kernels_destroy(k);
    opd_model_destroy(f.model);
}

TEST(batching_does_not_change_a_bit_plain) { check_batching(OPD_CPU_ISA_PLAIN); }
TEST(batching_does_not_change_a_bit_avx2) { check_batching(OPD_CPU_ISA_AVX2); }
TEST(batching_does_not_change_a_bit_avx512) { check_batching(OPD_CPU_ISA_AVX512); }

TEST(micro_batches_add_up) {
    fixture f;
    fixture_init(&f);
    opd_kernels *k = kernels_of(OPD_CPU_ISA_AUTO, 1);
    opd_graph *graph;
    size_t count = f.model->param_count;
    float *whole = opd_floats_create(NULL, count), *parts = opd_floats_create(NULL, count);
    float logp[MOST];
    run(&f, OPD_CPU_ISA_AUTO, 1, logp, whole);
    CHECK_OK(opd_graph_create(k, &f.model->config, OPD_GRAPH_TRAIN, MOST, NULL, &graph));
    opd_graph_set_weights(graph, f.model->params);
    for (size_t s = 0; s < SEQS; s++) {
        opd_packed one = {1, (size_t[]){0, lengths[s]}, f.tokens + f.starts[s]};
        opd_score_row rows[MOST];
        for (size_t i = 0; i < lengths[s]; i++) {
            rows[i] = f.rows[f.starts[s] + i];
            rows[i].row = i;
        }
        CHECK_OK(opd_graph_forward(graph, &one));
        CHECK_OK(opd_graph_backward(graph, rows, lengths[s], f.dlogp + f.starts[s], NULL, NULL, parts));
    }
    double error = 0, norm = 0;
    for (size_t i = 0; i < count; i++) {
        error += pow((double)whole[i] - (double)parts[i], 2);
        norm += pow((double)whole[i], 2);
    }
    CHECK(sqrt(error) <= 1e-5 * sqrt(norm));
    opd_floats_destroy(NULL, whole);
    opd_floats_destroy(NULL, parts);
    opd_graph_destroy(graph);
    opd_kernels_destroy(k);
    opd_model_destroy(f.model);
}

TEST(bad_input_is_refused) {
    fixture f;
    fixture_init(&f);
    opd_kernels *k = kernels_of(OPD_CPU_ISA_AUTO, 1);
    opd_graph *graph;
    opd_packed packed = {SEQS, f.starts, f.tokens};
    float logp[MOST];
    opd_scores out = {.logp = logp};
    CHECK_OK(opd_graph_create(k, &f.model->config, OPD_GRAPH_SCORE, f.n, NULL, &graph));
    opd_graph_set_weights(graph, f.model->params);
    CHECK_ERR(opd_graph_score(graph, f.rows, 1, &out), OPD_ERR_INVALID);
    f.tokens[5] = 83;
    CHECK_ERR(opd_graph_forward(graph, &packed), OPD_ERR_INVALID);
    f.tokens[5] = 0;
    CHECK_OK(opd_graph_forward(graph, &packed));
    int32_t ids[2] = {3, 83};
    opd_scores given = {.ids_k = 2, .ids = ids, .ids_logp = logp};
    CHECK_ERR(opd_graph_score(graph, f.rows, 1, &given), OPD_ERR_INVALID);
    CHECK_CONTAINS(opd_err_context(), "given id 83 is outside 0..82");
    ids[1] = -1;
    CHECK_ERR(opd_graph_score(graph, f.rows, 1, &given), OPD_ERR_INVALID);
    f.rows[0].target = -1;
    CHECK_ERR(opd_graph_score(graph, f.rows, 1, &out), OPD_ERR_INVALID);
    f.rows[1].row = f.n;
    CHECK_ERR(opd_graph_score(graph, f.rows + 1, 1, &out), OPD_ERR_INVALID);
    CHECK_ERR(opd_graph_backward(graph, f.rows + 2, 2, f.dlogp, NULL, NULL, logp), OPD_ERR_INVALID);
    size_t backwards[3] = {0, 9, 4};
    packed = (opd_packed){2, backwards, f.tokens};
    CHECK_ERR(opd_graph_forward(graph, &packed), OPD_ERR_INVALID);
    size_t lengthy[2] = {0, 65};
    packed = (opd_packed){1, lengthy, f.tokens};
    CHECK_ERR(opd_graph_forward(graph, &packed), OPD_ERR_LIMIT);
    opd_graph_destroy(graph);
    opd_kernels_destroy(k);
    opd_model_destroy(f.model);
}

/* sum_i <weights_i, h_i> over the fixture's rows, weights as they come. */
static double hidden_sum(const fixture *f, opd_graph *graph, const float *params, const float *weights) {
    size_t count = f->n * (size_t)f->model->config.hidden_size;
    opd_packed packed = {SEQS, f->starts, f->tokens};
    float *hidden = malloc(count * sizeof *hidden);
    double sum = 0;
    opd_graph_set_weights(graph, params);
    CHECK_OK(opd_graph_forward(graph, &packed));
    CHECK_OK(opd_graph_hidden(graph, f->rows, f->n, hidden));
    for (size_t i = 0; i < count; i++) sum += (double)weights[i] * (double)hidden[i];
    free(hidden);
    return sum;
}

/* The gradient of a function of the hidden state is its difference quotient, in random directions
 * through all weights; and it adds to that of the log-probs. */
TEST(gradients_by_way_of_the_hidden_state) {
    fixture f;
    fixture_init(&f);
    size_t n = f.model->param_count, count = f.n * (size_t)f.model->config.hidden_size;
    opd_kernels *k = kernels_of(OPD_CPU_ISA_AUTO, 1);
    opd_graph *graph;
    opd_rng rng;
    opd_rng_init(&rng, 5);
    float *weights = malloc(count * sizeof *weights), *moved = malloc(n * sizeof *moved);
    float *grads = opd_floats_create(NULL, n), *logp = opd_floats_create(NULL, n);
    float *both = opd_floats_create(NULL, n), *way = malloc(n * sizeof *way);
    for (size_t i = 0; i < count; i++) weights[i] = (float)opd_rng_normal(&rng);
    CHECK_OK(opd_graph_create(k, &f.model->config, OPD_GRAPH_TRAIN, MOST, NULL, &graph));
    (void)hidden_sum(&f, graph, f.model->params, weights);
    CHECK_OK(opd_graph_backward(graph, f.rows, f.n, NULL, NULL, weights, grads));
    (void)hidden_sum(&f, graph, f.model->params, weights);
    CHECK_OK(opd_graph_backward(graph, f.rows, f.n, f.dlogp, NULL, NULL, logp));
    (void)hidden_sum(&f, graph, f.model->params, weights);
    CHECK_OK(opd_graph_backward(graph, f.rows, f.n, f.dlogp, NULL, weights, both));
    double off = 0, whole = 0;
    for (size_t i = 0; i < n; i++) {
        off += pow((double)both[i] - (double)grads[i] - (double)logp[i], 2);
        whole += pow((double)both[i], 2);
    }
    CHECK(whole > 0 && sqrt(off) < 1e-4 * sqrt(whole));
    for (int direction = 0; direction < 4; direction++) {
        double slope = 0, norm = 0;
        const double step = 0.02;
        for (size_t i = 0; i < n; i++) {
            way[i] = (float)opd_rng_normal(&rng);
            norm += (double)way[i] * (double)way[i];
        }
        for (size_t i = 0; i < n; i++) {
            way[i] = (float)((double)way[i] / sqrt(norm));
            slope += (double)way[i] * (double)grads[i];
        }
        for (size_t i = 0; i < n; i++) moved[i] = f.model->params[i] + (float)step * way[i];
        double up = hidden_sum(&f, graph, moved, weights);
        for (size_t i = 0; i < n; i++) moved[i] = f.model->params[i] - (float)step * way[i];
        double down = hidden_sum(&f, graph, moved, weights);
        CHECK_NEAR((up - down) / (2 * step), slope, 2e-2 * (1 + fabs(slope)));
    }
    opd_score_row outside = {MOST, 0, 1};
    CHECK_ERR(opd_graph_hidden(graph, &outside, 1, moved), OPD_ERR_INVALID);
    opd_graph_destroy(graph);
    opd_kernels_destroy(k);
    opd_floats_destroy(NULL, grads);
    opd_floats_destroy(NULL, logp);
    opd_floats_destroy(NULL, both);
    free(weights), free(moved), free(way);
    opd_model_destroy(f.model);
}
