/* bench_kernels.c - speed of the CPU kernels: one JSON line per case.
 *
 *   opd_bench_kernels [threads [isa]]      isa: auto, plain, avx2, avx512
 *
 * Cases: matrix products (GFLOP/s), training, decoding and scoring of a small model (tokens/s).
 * Each is the best of several repeats within this run; compare figures of one run only. Training
 * counts forward, score, backward and optimizer; decoding samples every row at temperature 1.
 * Scoring: a fresh text of 512 tokens by the graph and by the reader, whole and in pieces; and a
 * text whose beginning is cached, which should cost what its new tokens cost.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/base/check.h"
#include "core/base/rng.h"
#include "kernels/array.h"
#include "models/decoder.h"
#include "models/graph.h"
#include "models/optimizer.h"
#include "models/reader.h"

enum { REPEATS = 7, SEQUENCES = 64, SEQUENCE = 48, PROMPT = 24, GENERATED = 24,
       TEXT = 512 };

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void must(opd_err err) {
    if (err == OPD_OK) return;
    fprintf(stderr, "bench: %s: %s\n", opd_err_name(err), opd_err_context());
    exit(1);
}

static float *random_floats(size_t n) {
    float *x = opd_floats_create(NULL, n);
    if (x == NULL) must(OPD_ERR_NOMEM);
    for (size_t i = 0; i < n; i++) x[i] = (float)opd_rng_uniform(opd_rng_at(1, i, 0, 0)) - 0.5f;
    return x;
}

typedef enum product_kind { PRODUCT_LINEAR, PRODUCT_DX, PRODUCT_DW } product_kind;

static void bench_product(opd_kernels *k, product_kind kind, size_t t, size_t n, size_t d) {
    static const char *const names[] = {"linear", "linear_dx", "linear_dw"};
    float *x = random_floats(t * d), *y = random_floats(t * n), *w = random_floats(n * d);
    float *packed = random_floats(k->ops->pack_size(n, d));
    double best = 1e30;
    if (kind == PRODUCT_DX) k->ops->pack_dx(k, packed, w, n, d);
    else k->ops->pack(k, packed, w, n, d);
    int loops = (int)(2e9 / (2.0 * (double)t * (double)n * (double)d)) + 1;
    for (int r = 0; r < REPEATS; r++) {
        double start = now_s();
        for (int i = 0; i < loops; i++) {
            if (kind == PRODUCT_LINEAR) k->ops->linear(k, y, x, packed, t, n, d, false);
            if (kind == PRODUCT_DX) k->ops->linear_dx(k, x, y, packed, t, n, d, false);
            if (kind == PRODUCT_DW) k->ops->linear_dw(k, w, y, x, t, n, d);
        }
        double each = (now_s() - start) / loops;
        if (each < best) best = each;
    }
    printf("{\"case\":\"%s\",\"t\":%zu,\"n\":%zu,\"d\":%zu,\"threads\":%zu,\"gflops\":%.1f}\n",
           names[kind], t, n, d, k->ops->threads(k),
           2e-9 * (double)t * (double)n * (double)d / best);
    opd_floats_destroy(NULL, x);
    opd_floats_destroy(NULL, y);
    opd_floats_destroy(NULL, w);
    opd_floats_destroy(NULL, packed);
}

typedef struct batch {
    int32_t tokens[SEQUENCES * SEQUENCE];
    size_t starts[SEQUENCES + 1];
    opd_score_row rows[SEQUENCES * SEQUENCE];
    float logp[SEQUENCES * SEQUENCE], dlogp[SEQUENCES * SEQUENCE];
    size_t row_count;
} batch;

static batch *make_batch(int32_t vocab) {
    batch *b = calloc(1, sizeof *b);
    if (b == NULL) must(OPD_ERR_NOMEM);
    for (size_t i = 0; i < SEQUENCES * SEQUENCE; i++)
        b->tokens[i] = (int32_t)((i * 7 + i / SEQUENCE * 13) % (size_t)vocab);
    for (size_t s = 0; s <= SEQUENCES; s++) b->starts[s] = s * SEQUENCE;
    for (size_t i = 0; i + 1 < SEQUENCES * SEQUENCE; i++) {
        if (i % SEQUENCE == SEQUENCE - 1) continue;
        b->rows[b->row_count++] = (opd_score_row){i, b->tokens[i + 1], 1.0f};
    }
    for (size_t i = 0; i < b->row_count; i++) b->dlogp[i] = -1.0f / (float)b->row_count;
    return b;
}

static void bench_training(opd_kernels *k, opd_model *model) {
    opd_graph *graph;
    opd_optimizer *optimizer;
    opd_optimizer_config config = opd_optimizer_config_default();
    batch *b = make_batch(model->config.vocab_size);
    float *grads = random_floats(model->param_count);
    must(opd_graph_create(k, &model->config, OPD_GRAPH_TRAIN, SEQUENCES * SEQUENCE, NULL, &graph));
    must(opd_optimizer_create(&config, model->param_count, NULL, &optimizer));
    opd_packed packed = {SEQUENCES, b->starts, b->tokens};
    opd_scores scores = {.logp = b->logp};
    double best = 1e30, part[5] = {0}, loss = 0;
    for (int r = 0; r < 3 * REPEATS; r++) {
        double at[6] = {now_s()};
        opd_graph_set_weights(graph, model->params);
        memset(grads, 0, model->param_count * sizeof *grads);
        at[1] = now_s();
        must(opd_graph_forward(graph, &packed));
        at[2] = now_s();
        must(opd_graph_score(graph, b->rows, b->row_count, &scores));
        at[3] = now_s();
        must(opd_graph_backward(graph, b->rows, b->row_count, b->dlogp, NULL, NULL, grads));
        at[4] = now_s();
        opd_optimizer_step(optimizer, k, model, grads);
        at[5] = now_s();
        if (at[5] - at[0] < best) {
            best = at[5] - at[0];
            for (int i = 0; i < 5; i++) part[i] = 1e3 * (at[i + 1] - at[i]);
        }
        loss = 0;
        for (size_t i = 0; i < b->row_count; i++) loss -= (double)b->logp[i] / (double)b->row_count;
    }
    printf("{\"case\":\"train\",\"threads\":%zu,\"tokens_per_s\":%.0f,\"pack_ms\":%.2f,"
           "\"forward_ms\":%.2f,\"score_ms\":%.2f,\"backward_ms\":%.2f,\"update_ms\":%.2f,"
           "\"loss\":%.4f}\n", k->ops->threads(k), SEQUENCES * SEQUENCE / best, part[0], part[1],
           part[2], part[3], part[4], loss);
    free(b);
    opd_floats_destroy(NULL, grads);
    opd_graph_destroy(graph);
    opd_optimizer_destroy(optimizer);
}

static void bench_decoding(opd_kernels *k, const opd_model *model, size_t rows) {
    opd_decoder *decoder;
    opd_decoder_options options = {.slots = rows, .max_len = PROMPT + GENERATED};
    opd_sampling sampling = {.temperature = 1.0f, .top_p = 1.0f};
    opd_decode_row *in = calloc(rows, sizeof *in);
    opd_decode_out *out = calloc(rows, sizeof *out);
    size_t *to = calloc(rows, sizeof *to);
    if (in == NULL || out == NULL || to == NULL) must(OPD_ERR_NOMEM);
    must(opd_decoder_create(k, &model->config, &options, NULL, &decoder));
    opd_decoder_set_weights(decoder, model->params);
    int32_t prompt[PROMPT] = {1, 2, 3, 4, 5};
    opd_packed packed = {1, (size_t[]){0, PROMPT}, prompt};
    double best = 1e30;
    for (size_t i = 0; i < rows; i++) to[i] = i;
    for (int r = 0; r < REPEATS; r++) {
        must(opd_decoder_prefill(decoder, to, &packed));
        must(opd_decoder_copy(decoder, 0, to, rows));
        double start = now_s();
        for (size_t i = 0; i < rows; i++) out[i].token = 7;
        for (size_t step = 0; step < GENERATED; step++) {
            for (size_t i = 0; i < rows; i++)
                in[i] = (opd_decode_row){i, out[i].token,
                                         (float)opd_rng_uniform(opd_rng_at(1, i, step, 0)) * 0.99f,
                                         &sampling, NULL};
            must(opd_decoder_step(decoder, in, rows, out));
        }
        if (now_s() - start < best) best = now_s() - start;
    }
    printf("{\"case\":\"decode\",\"threads\":%zu,\"rows\":%zu,\"tokens_per_s\":%.0f}\n",
           k->ops->threads(k), rows, (double)(rows * GENERATED) / best);
    opd_decoder_destroy(decoder);
    free(in);
    free(out);
    free(to);
}

/* A text of TEXT tokens whose first `past` are in the pages already, scored in pieces of `piece`;
 * piece 0: by the graph, whole. */
static void bench_scoring(opd_kernels *k, opd_model *model, size_t past, size_t piece) {
    opd_reader *reader = NULL;
    opd_graph *graph = NULL;
    opd_reader_options options = {TEXT / OPD_KV_PAGE, TEXT, TEXT};
    int32_t tokens[TEXT];
    uint32_t pages[TEXT / OPD_KV_PAGE];
    opd_score_row rows[TEXT];
    float logp[TEXT];
    opd_scores scores = {.logp = logp};
    must(opd_graph_create(k, &model->config, OPD_GRAPH_SCORE, TEXT, NULL, &graph));
    must(opd_reader_create(k, &model->config, &options, NULL, &reader));
    opd_graph_set_weights(graph, model->params);
    opd_reader_set_weights(reader, model->params);
    for (size_t i = 0; i < TEXT; i++) tokens[i] = (int32_t)(i * 7 % (size_t)model->config.vocab_size);
    for (uint32_t i = 0; i < TEXT / OPD_KV_PAGE; i++) pages[i] = i;
    for (size_t i = 0; i < TEXT; i++) rows[i] = (opd_score_row){i, 1, 1.0f};
    opd_packed whole = {1, (size_t[]){0, TEXT}, tokens};
    must(opd_reader_forward(reader, &whole, &(opd_read){pages, 0, 0}));
    double best = 1e30;
    for (int r = 0; r < 3 * REPEATS; r++) {
        double start = now_s();
        if (piece == 0) {
            must(opd_graph_forward(graph, &whole));
            must(opd_graph_score(graph, rows, TEXT, &scores));
        }
        for (size_t at = past; piece > 0 && at < TEXT; at += piece) {
            opd_packed packed = {1, (size_t[]){0, piece}, tokens + at};
            must(opd_reader_forward(reader, &packed, &(opd_read){pages, at, at}));
            must(opd_reader_score(reader, rows, piece, &scores));
        }
        if (now_s() - start < best) best = now_s() - start;
    }
    printf("{\"case\":\"score_%s\",\"threads\":%zu,\"cached\":%zu,\"new\":%d,\"piece\":%zu,"
           "\"tokens_per_s\":%.0f}\n", piece == 0 ? "graph" : "reader", k->ops->threads(k), past,
           TEXT - (int)past, piece, (double)(TEXT - past) / best);
    opd_graph_destroy(graph);
    opd_reader_destroy(reader);
}

int main(int argc, char **argv) {
    const char *isa_name = argc > 2 ? argv[2] : "auto";
    opd_cpu_isa isa = OPD_CPU_ISA_AUTO;
    if (strcmp(isa_name, "plain") == 0) isa = OPD_CPU_ISA_PLAIN;
    if (strcmp(isa_name, "avx2") == 0) isa = OPD_CPU_ISA_AVX2;
    if (strcmp(isa_name, "avx512") == 0) isa = OPD_CPU_ISA_AVX512;
    size_t threads = argc > 1 ? strtoul(argv[1], NULL, 10) : 1;
    opd_kernels *k;
    opd_model *model;
    opd_model_config config = {.vocab_size = 258, .hidden_size = 128, .intermediate_size = 384,
                               .layers = 4, .heads = 4, .kv_heads = 4, .head_dim = 32,
                               .max_position = TEXT, .rope_theta = 10000, .rms_eps = 1e-5,
                               .tie_embeddings = true, .bos_id = 256, .eos_id = 257, .pad_id = -1};
    must(opd_kernels_create_cpu(isa, threads, NULL, &k));
    must(opd_model_create(&config, 1, NULL, &model));
    static const size_t shapes[][3] = {{3072, 384, 128}, {3072, 768, 128}, {3072, 128, 384},
                                       {2048, 1536, 384}, {32, 768, 256}, {128, 768, 256}};
    for (size_t i = 0; i < OPD_COUNTOF(shapes); i++)
        for (int kind = 0; kind < 3; kind++)
            bench_product(k, (product_kind)kind, shapes[i][0], shapes[i][1], shapes[i][2]);
    bench_training(k, model);
    for (size_t rows = 1; rows <= 256; rows *= 4) bench_decoding(k, model, rows);
    bench_scoring(k, model, 0, 0);
    bench_scoring(k, model, 0, TEXT);
    bench_scoring(k, model, 0, TEXT / 4);
    bench_scoring(k, model, TEXT - 128, 128);
    bench_scoring(k, model, TEXT - 32, 32);
    opd_model_destroy(model);
    opd_kernels_destroy(k);
    return 0;
}
