/* test_reader.c - text read in pieces, with its past in pages, against the graph over whole
 * sequences: bit for bit, for random models, texts, cuts, company and page tables. */
#include "models/reader.h"

#include "core/base/rng.h"
#include "models/graph.h"
#include "tests/support/alloc_test.h"
#include "tests/support/test.h"

enum { SEQS = 6, LENGTH = 150, PAGES = 64, TOP = 4, GIVEN = 5, VOCAB = 83,
       SEQ_PAGES = (LENGTH + OPD_KV_PAGE - 1) / OPD_KV_PAGE };

static opd_kernels *kernels_of(opd_cpu_isa isa, size_t threads) {
    opd_kernels *k;
    if (!opd_cpu_isa_available(isa)) SKIP("this processor lacks the instruction set");
    CHECK_OK(opd_kernels_create_cpu(isa, threads, NULL, &k));
    return k;
}

static uint64_t draw(uint64_t *seed, uint64_t below) {
    return opd_rng_at((*seed)++, 17, 0, 0) % below;
}

static opd_model *model_make(uint64_t seed) {
    opd_model *model;
    int32_t kv_heads = (int32_t)(1 + seed % 2);
    opd_model_config config = {.vocab_size = VOCAB, .hidden_size = 20 + (int32_t)(seed % 5),
                               .intermediate_size = 37, .layers = 2, .heads = 2 * kv_heads,
                               .kv_heads = kv_heads, .head_dim = seed % 3 == 0 ? 16 : 6,
                               .max_position = LENGTH, .rope_theta = 1e4, .rms_eps = 1e-5,
                               .tie_embeddings = true, .bos_id = -1, .eos_id = -1, .pad_id = -1};
    CHECK_OK(opd_model_create(&config, seed, NULL, &model));
    for (size_t i = 0; i < model->param_count; i++) model->params[i] *= 6.0f;
    return model;
}

/* All scores of a sequence: row i predicts token i + 1. */
typedef struct scores {
    float logp[LENGTH], entropy[LENGTH], top_logp[LENGTH * TOP], ids_logp[LENGTH * GIVEN];
    int32_t top_ids[LENGTH * TOP];
} scores;

static int32_t given[LENGTH * GIVEN]; /* ids whose log-probs are wanted: any */

typedef struct text {
    int32_t tokens[LENGTH + 1];
    size_t count; /* rows */
    float inverse_temperature;
    scores ref, got;
    uint32_t pages[SEQ_PAGES];
    size_t done, filled;
} text;

static opd_scores out_at(scores *s, size_t row) {
    return (opd_scores){.logp = s->logp + row, .entropy = s->entropy + row, .top_k = TOP,
                        .top_ids = s->top_ids + row * TOP, .top_logp = s->top_logp + row * TOP,
                        .ids_k = GIVEN, .ids = given + row * GIVEN, .ids_logp = s->ids_logp + row * GIVEN};
}

static void rows_of(const text *t, size_t first, size_t n, size_t at, opd_score_row *rows) {
    for (size_t i = 0; i < n; i++)
        rows[i] = (opd_score_row){at + i, t->tokens[first + i + 1], t->inverse_temperature};
}

static void score_whole(opd_kernels *k, const opd_model *model, text *t) {
    opd_graph *graph;
    opd_score_row rows[LENGTH];
    opd_scores out = out_at(&t->ref, 0);
    CHECK_OK(opd_graph_create(k, &model->config, OPD_GRAPH_SCORE, LENGTH, NULL, &graph));
    opd_graph_set_weights(graph, model->params);
    opd_packed packed = {1, (size_t[]){0, t->count}, t->tokens};
    CHECK_OK(opd_graph_forward(graph, &packed));
    rows_of(t, 0, t->count, 0, rows);
    CHECK_OK(opd_graph_score(graph, rows, t->count, &out));
    opd_graph_destroy(graph);
}

static void check_text(const text *t) {
    CHECK(memcmp(t->ref.logp, t->got.logp, t->count * sizeof(float)) == 0);
    CHECK(memcmp(t->ref.entropy, t->got.entropy, t->count * sizeof(float)) == 0);
    CHECK(memcmp(t->ref.top_ids, t->got.top_ids, t->count * TOP * sizeof(int32_t)) == 0);
    CHECK(memcmp(t->ref.top_logp, t->got.top_logp, t->count * TOP * sizeof(float)) == 0);
    CHECK(memcmp(t->ref.ids_logp, t->got.ids_logp, t->count * GIVEN * sizeof(float)) == 0);
    for (size_t i = 0; i < t->count * GIVEN; i++) /* where both name an id they say the same */
        for (size_t j = i / GIVEN * TOP; j < (i / GIVEN + 1) * TOP; j++)
            if (t->got.top_ids[j] == given[i]) {
                CHECK_NEAR((double)t->got.ids_logp[i], (double)t->got.top_logp[j], 1e-6);
                if (t->inverse_temperature == 1) CHECK(t->got.ids_logp[i] == t->got.top_logp[j]);
            }
}

static void texts_make(text *texts, uint64_t *seed) {
    for (size_t i = 0; i < LENGTH * GIVEN; i++) given[i] = (int32_t)draw(seed, VOCAB);
    for (size_t s = 0; s < SEQS; s++) {
        text *t = &texts[s];
        memset(t, 0, sizeof *t);
        t->count = 1 + draw(seed, LENGTH);
        t->inverse_temperature = 0.5f + (float)draw(seed, 4) / 2;
        for (size_t i = 0; i <= t->count; i++) t->tokens[i] = (int32_t)draw(seed, VOCAB);
    }
}

/* One forward: a piece of random length of each text that is not done. */
static bool read_pieces(opd_reader *reader, text *texts, uint64_t *seed) {
    size_t starts[SEQS + 1] = {0}, n = 0;
    int32_t tokens[SEQS * LENGTH];
    opd_read reads[SEQS];
    size_t who[SEQS];
    for (size_t s = 0; s < SEQS; s++) {
        text *t = &texts[s];
        if (t->done == t->count || draw(seed, 3) == 0) continue;
        size_t most = t->count - t->done, piece = 1 + draw(seed, draw(seed, 2) == 0 ? 3 : most);
        if (piece > most) piece = most;
        memcpy(tokens + starts[n], t->tokens + t->done, piece * sizeof *tokens);
        reads[n] = (opd_read){t->pages, t->done, t->filled > t->done ? t->filled : t->done};
        starts[n + 1] = starts[n] + piece;
        who[n++] = s;
    }
    opd_packed packed = {n, starts, tokens};
    CHECK_OK(opd_reader_forward(reader, &packed, reads));
    for (size_t i = 0; i < n; i++) {
        text *t = &texts[who[i]];
        size_t piece = starts[i + 1] - starts[i];
        opd_score_row rows[LENGTH];
        opd_scores out = out_at(&t->got, t->done);
        rows_of(t, t->done, piece, starts[i], rows);
        CHECK_OK(opd_reader_score(reader, rows, piece, &out));
        t->done += piece;
    }
    bool more = false;
    for (size_t s = 0; s < SEQS; s++) more = more || texts[s].done < texts[s].count;
    return more;
}

static void check_cuts(opd_cpu_isa isa, size_t threads) {
    static text texts[SEQS];
    for (uint64_t round = 0; round < 6; round++) {
        uint64_t seed = 1000 * round;
        opd_kernels *k = kernels_of(isa, threads);
        opd_model *model = model_make(round);
        opd_reader *reader;
        opd_reader_options options = {PAGES, LENGTH, SEQS * LENGTH};
        uint32_t page = PAGES;
        CHECK_OK(opd_reader_create(k, &model->config, &options, NULL, &reader));
        opd_reader_set_weights(reader, model->params);
        texts_make(texts, &seed);
        for (size_t s = 0; s < SEQS; s++) {
            score_whole(k, model, &texts[s]);
            for (size_t i = 0; i < SEQ_PAGES; i++) texts[s].pages[i] = --page;
        }
        while (read_pieces(reader, texts, &seed)) continue;
        for (size_t s = 0; s < SEQS; s++) check_text(&texts[s]);
        /* once more from anywhere on, over what the pages hold */
        for (size_t s = 0; s < SEQS; s++) {
            memset(texts[s].got.logp, 0, sizeof texts[s].got.logp);
            texts[s].filled = texts[s].count;
            texts[s].done = 0;
        }
        while (read_pieces(reader, texts, &seed)) continue;
        for (size_t s = 0; s < SEQS; s++) check_text(&texts[s]);
        opd_reader_destroy(reader);
        opd_model_destroy(model);
        opd_kernels_destroy(k);
    }
}

TEST(pieces_equal_the_whole_bit_for_bit_plain) { check_cuts(OPD_CPU_ISA_PLAIN, 1); }
TEST(pieces_equal_the_whole_bit_for_bit_avx2) { check_cuts(OPD_CPU_ISA_AVX2, 1); }
TEST(pieces_equal_the_whole_bit_for_bit_avx512) { check_cuts(OPD_CPU_ISA_AVX512, 1); }
TEST(pieces_equal_the_whole_on_three_threads) { check_cuts(OPD_CPU_ISA_AUTO, 3); }

/* A second text shares the first's whole pages, and a copy of its last one, at every length of
 * the common beginning; both are read in one forward. */
TEST(texts_share_their_beginning) {
    static text texts[SEQS];
    opd_kernels *k = kernels_of(OPD_CPU_ISA_AUTO, 2);
    opd_model *model = model_make(3);
    opd_reader *reader;
    opd_reader_options options = {PAGES, LENGTH, LENGTH};
    CHECK_OK(opd_reader_create(k, &model->config, &options, NULL, &reader));
    opd_reader_set_weights(reader, model->params);
    for (size_t common = 1; common <= 70; common += 3) {
        uint64_t seed = common;
        text *a = &texts[0], *b = &texts[1];
        texts_make(texts, &seed);
        a->count = 80;
        b->count = 90;
        for (size_t i = 0; i <= LENGTH; i++) a->tokens[i] = (int32_t)draw(&seed, VOCAB);
        for (size_t i = 0; i <= LENGTH; i++) b->tokens[i] = (int32_t)draw(&seed, VOCAB);
        memcpy(b->tokens, a->tokens, common * sizeof(int32_t));
        score_whole(k, model, a);
        score_whole(k, model, b);
        size_t whole = common / OPD_KV_PAGE;
        for (uint32_t i = 0; i < SEQ_PAGES; i++) {
            a->pages[i] = i;
            b->pages[i] = i < whole ? i : 20 + i;
        }
        opd_packed first = {1, (size_t[]){0, common}, a->tokens};
        opd_read alone = {a->pages, 0, 0};
        CHECK_OK(opd_reader_forward(reader, &first, &alone));
        CHECK_OK(opd_reader_copy(reader, a->pages[whole], b->pages[whole]));
        int32_t tokens[LENGTH * 2];
        size_t an = 80 - common, bn = 90 - common, starts[3] = {0, an, an + bn};
        memcpy(tokens, a->tokens + common, an * sizeof *tokens);
        memcpy(tokens + an, b->tokens + common, bn * sizeof *tokens);
        opd_packed both = {2, starts, tokens};
        opd_read reads[2] = {{a->pages, common, common}, {b->pages, common, common}};
        if (an + bn > LENGTH) {
            CHECK_ERR(opd_reader_forward(reader, &both, reads), OPD_ERR_LIMIT);
            continue;
        }
        CHECK_OK(opd_reader_forward(reader, &both, reads));
        opd_score_row rows[LENGTH];
        opd_scores out = out_at(&b->got, common);
        rows_of(b, common, bn, an, rows);
        CHECK_OK(opd_reader_score(reader, rows, bn, &out));
        CHECK(memcmp(b->got.logp + common, b->ref.logp + common, bn * sizeof(float)) == 0);
        out = out_at(&a->got, common);
        rows_of(a, common, an, 0, rows);
        CHECK_OK(opd_reader_score(reader, rows, an, &out));
        CHECK(memcmp(a->got.logp + common, a->ref.logp + common, an * sizeof(float)) == 0);
    }
    opd_reader_destroy(reader);
    opd_model_destroy(model);
    opd_kernels_destroy(k);
}

TEST(bad_input_is_refused) {
    opd_model *model = model_make(1);
    opd_kernels *k = kernels_of(OPD_CPU_ISA_AUTO, 1);
    opd_reader *reader;
    opd_reader_options none = {0, 8, 8}, lengthy = {2, LENGTH + 1, 8}, options = {2, 40, 8};
    CHECK_ERR(opd_reader_create(k, &model->config, &none, NULL, &reader), OPD_ERR_INVALID);
    CHECK_ERR(opd_reader_create(k, &model->config, &lengthy, NULL, &reader), OPD_ERR_INVALID);
    CHECK_OK(opd_reader_create(k, &model->config, &options, NULL, &reader));
    opd_reader_set_weights(reader, model->params);
    int32_t tokens[9] = {1, 2, 3, 4, 5, 6, 7, 8, 9}, wrong[1] = {VOCAB};
    uint32_t pages[2] = {0, 1}, beyond[1] = {2};
    size_t one[2] = {0, 1}, nine[2] = {0, 9}, empty[3] = {0, 0, 1};
    opd_read reads[2] = {{pages, 0, 0}, {pages, 0, 0}};
    opd_scores out = {.logp = (float[1]){0}};
    opd_score_row row = {0, 1, 1};
    CHECK_ERR(opd_reader_score(reader, &row, 1, &out), OPD_ERR_INVALID); /* nothing was read */
    CHECK_ERR(opd_reader_forward(reader, &(opd_packed){1, nine, tokens}, reads), OPD_ERR_LIMIT);
    CHECK_ERR(opd_reader_forward(reader, &(opd_packed){2, empty, tokens}, reads), OPD_ERR_INVALID);
    CHECK_ERR(opd_reader_forward(reader, &(opd_packed){1, one, wrong}, reads), OPD_ERR_INVALID);
    reads[0] = (opd_read){beyond, 0, 0};
    CHECK_ERR(opd_reader_forward(reader, &(opd_packed){1, one, tokens}, reads), OPD_ERR_INVALID);
    reads[0] = (opd_read){pages, 40, 40};
    CHECK_ERR(opd_reader_forward(reader, &(opd_packed){1, one, tokens}, reads), OPD_ERR_LIMIT);
    reads[0] = (opd_read){pages, 4, 3};
    CHECK_ERR(opd_reader_forward(reader, &(opd_packed){1, one, tokens}, reads), OPD_ERR_INVALID);
    CHECK_ERR(opd_reader_score(reader, &row, 1, &out), OPD_ERR_INVALID); /* it failed */
    CHECK_ERR(opd_reader_copy(reader, 0, 2), OPD_ERR_INVALID);
    CHECK_ERR(opd_reader_copy(reader, 2, 0), OPD_ERR_INVALID);
    reads[0] = (opd_read){pages, 0, 0};
    CHECK_OK(opd_reader_forward(reader, &(opd_packed){1, one, tokens}, reads));
    CHECK_OK(opd_reader_score(reader, &row, 1, &out));
    opd_reader_destroy(reader);
    opd_kernels_destroy(k);
    opd_model_destroy(model);
}

TEST(without_memory_nothing_is_left) {
    opd_model *model = model_make(1);
    opd_kernels *k = kernels_of(OPD_CPU_ISA_PLAIN, 1);
    opd_reader_options options = {4, 40, 8};
    for (long n = 1;; n++) {
        opd_test_alloc memory;
        opd_reader *reader;
        opd_test_alloc_failing(&memory, n, false);
        opd_err err = opd_reader_create(k, &model->config, &options, &memory.alloc, &reader);
        opd_reader_destroy(reader);
        CHECK_INT(memory.live, 0);
        if (err == OPD_OK) break;
        CHECK_INT(err, OPD_ERR_NOMEM);
    }
    opd_kernels_destroy(k);
    opd_model_destroy(model);
}
