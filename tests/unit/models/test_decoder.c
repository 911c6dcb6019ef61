/* test_decoder.c - cached decoding against the packed forward (bit for bit), copies of slots,
 * sampling that depends on the slot's own numbers only, and refused input. */
#include "models/decoder.h"

#include "core/base/rng.h"
#include "models/graph.h"
#include "tests/support/test.h"

enum { SLOTS = 7, PROMPT = 19, STEPS = 23, LENGTH = PROMPT + STEPS, TOP = 4 };

static const opd_sampling hot = {.temperature = 0.8f, .top_p = 1.0f};

static opd_kernels *kernels_of(opd_cpu_isa isa, size_t threads) {
    opd_kernels *k;
    if (!opd_cpu_isa_available(isa)) SKIP("this processor lacks the instruction set");
    CHECK_OK(opd_kernels_create_cpu(isa, threads, NULL, &k));
    return k;
}

static opd_model *model_make(void) {
    opd_model *model;
    opd_model_config config = {.vocab_size = 101, .hidden_size = 36, .intermediate_size = 70,
                               .layers = 3, .heads = 6, .kv_heads = 2, .head_dim = 10,
                               .max_position = 64, .rope_theta = 1e4, .rms_eps = 1e-5,
                               .tie_embeddings = true, .bos_id = -1, .eos_id = -1, .pad_id = -1};
    CHECK_OK(opd_model_create(&config, 11, NULL, &model));
    for (size_t i = 0; i < model->param_count; i++) model->params[i] *= 6.0f;
    return model;
}

typedef struct rollout {
    int32_t tokens[LENGTH + 1]; /* prompt, then what was sampled */
    float logp[STEPS];
    int32_t top[STEPS * TOP]; /* of every other member */
} rollout;

/* One group: SLOTS members continue one prompt, `used` of them stepping together. */
static void generate(const opd_model *model, opd_cpu_isa isa, size_t threads, size_t first,
                     size_t used, const opd_sampling *sampling, rollout *out) {
    opd_kernels *k = kernels_of(isa, threads);
    opd_decoder *d;
    opd_decoder_options options = {.slots = SLOTS, .max_len = LENGTH, .top_k = TOP};
    opd_decode_row rows[SLOTS];
    opd_decode_out results[SLOTS];
    int32_t prompt[PROMPT];
    size_t slots[SLOTS];
    CHECK_OK(opd_decoder_create(k, &model->config, &options, NULL, &d));
    opd_decoder_set_weights(d, model->params);
    for (size_t i = 0; i < PROMPT; i++) prompt[i] = (int32_t)(i * 13 % 101);
    for (size_t i = 0; i < used; i++) slots[i] = (i + 3) % SLOTS;
    opd_packed packed = {1, (size_t[]){0, PROMPT - 1}, prompt};
    CHECK_OK(opd_decoder_prefill(d, slots, &packed));
    CHECK_OK(opd_decoder_copy(d, slots[0], slots, used));
    for (size_t i = 0; i < used; i++) memcpy(out[i].tokens, prompt, sizeof prompt);
    for (size_t step = 0; step < STEPS; step++) {
        for (size_t i = 0; i < used; i++) {
            uint64_t bits = opd_rng_at(5, first + i, step, 0);
            rows[i] = (opd_decode_row){slots[i], out[i].tokens[PROMPT - 1 + step],
                                       (float)opd_rng_uniform(bits) * 0.999f, sampling,
                                       (first + i) % 2 == 0 ? out[i].top + step * TOP : NULL};
            CHECK_INT(opd_decoder_length(d, slots[i]), PROMPT - 1 + step);
        }
        CHECK_OK(opd_decoder_step(d, rows, used, results));
        for (size_t i = 0; i < used; i++) {
            out[i].tokens[PROMPT + step] = results[i].token;
            out[i].logp[step] = results[i].logp;
        }
    }
    opd_decoder_destroy(d);
    opd_kernels_destroy(k);
}

/* The learner's log-probs of the sampled tokens at the sampling temperature. */
static void rescore(const opd_model *model, opd_cpu_isa isa, const rollout *r, float temperature,
                    float *logp, int32_t *top) {
    static float top_logp[SLOTS * STEPS * TOP];
    opd_kernels *k = kernels_of(isa, 2);
    opd_graph *graph;
    size_t starts[SLOTS + 1];
    int32_t tokens[SLOTS * LENGTH];
    opd_score_row rows[SLOTS * STEPS];
    opd_scores out = {.logp = logp, .top_k = TOP, .top_ids = top, .top_logp = top_logp};
    CHECK_OK(opd_graph_create(k, &model->config, OPD_GRAPH_TRAIN, SLOTS * LENGTH, NULL, &graph));
    opd_graph_set_weights(graph, model->params);
    for (size_t s = 0; s <= SLOTS; s++) starts[s] = s * LENGTH;
    for (size_t s = 0; s < SLOTS; s++) {
        memcpy(tokens + s * LENGTH, r[s].tokens, LENGTH * sizeof *tokens);
        for (size_t i = 0; i < STEPS; i++)
            rows[s * STEPS + i] = (opd_score_row){s * LENGTH + PROMPT - 1 + i,
                                                  r[s].tokens[PROMPT + i], 1.0f / temperature};
    }
    opd_packed packed = {SLOTS, starts, tokens};
    CHECK_OK(opd_graph_forward(graph, &packed));
    CHECK_OK(opd_graph_score(graph, rows, SLOTS * STEPS, &out));
    opd_graph_destroy(graph);
    opd_kernels_destroy(k);
}

static void check_forward(opd_cpu_isa isa) {
    opd_model *model = model_make();
    rollout r[SLOTS];
    float logp[SLOTS * STEPS];
    int32_t top[SLOTS * STEPS * TOP];
    opd_sampling cut = {.temperature = 0.8f, .top_k = 20, .top_p = 0.9f};
    for (int pass = 0; pass < 2; pass++) {
        generate(model, isa, 2, 0, SLOTS, pass == 0 ? &hot : &cut, r);
        rescore(model, isa, r, 0.8f, logp, top);
        for (size_t s = 0; s < SLOTS; s++) {
            CHECK(memcmp(logp + s * STEPS, r[s].logp, sizeof r[s].logp) == 0);
            if (s % 2 == 0) /* whatever is drawn from, cut or not */
                CHECK(memcmp(top + s * STEPS * TOP, r[s].top, sizeof r[s].top) == 0);
        }
    }
    CHECK(memcmp(r[0].tokens, r[1].tokens, sizeof r[0].tokens) != 0); /* members differ */
    opd_model_destroy(model);
}

TEST(decode_equals_forward_bit_for_bit_plain) { check_forward(OPD_CPU_ISA_PLAIN); }
TEST(decode_equals_forward_bit_for_bit_avx2) { check_forward(OPD_CPU_ISA_AVX2); }
TEST(decode_equals_forward_bit_for_bit_avx512) { check_forward(OPD_CPU_ISA_AVX512); }

TEST(company_and_threads_do_not_change_a_sample) {
    opd_model *model = model_make();
    rollout together[SLOTS], alone[1];
    generate(model, OPD_CPU_ISA_AUTO, 3, 0, SLOTS, &hot, together);
    for (size_t i = 0; i < SLOTS; i++) {
        generate(model, OPD_CPU_ISA_AUTO, 1, i, 1, &hot, alone);
        CHECK(memcmp(alone[0].logp, together[i].logp, sizeof alone[0].logp) == 0);
        for (size_t t = 0; t < LENGTH; t++) CHECK_INT(alone[0].tokens[t], together[i].tokens[t]);
    }
    opd_model_destroy(model);
}

TEST(greedy_takes_the_most_likely) {
    opd_model *model = model_make();
    rollout r[1], same[1];
    opd_sampling greedy = {.temperature = 0.7f, .top_p = 1.0f, .greedy = true};
    opd_sampling zero = {.temperature = 0.0f, .top_p = 1.0f};
    opd_sampling top1 = {.temperature = 1.0f, .top_k = 1, .top_p = 1.0f};
    generate(model, OPD_CPU_ISA_AUTO, 1, 0, 1, &greedy, r);
    generate(model, OPD_CPU_ISA_AUTO, 1, 9, 1, &zero, same);
    CHECK(memcmp(r[0].logp, same[0].logp, sizeof r[0].logp) == 0);
    generate(model, OPD_CPU_ISA_AUTO, 1, 17, 1, &top1, same);
    CHECK(memcmp(r[0].logp, same[0].logp, sizeof r[0].logp) == 0); /* logp at T = 1 */
    for (size_t t = 0; t < LENGTH; t++) CHECK_INT(r[0].tokens[t], same[0].tokens[t]);
    opd_model_destroy(model);
}

TEST(truncated_slot_continues_as_if_new) {
    opd_model *model = model_make();
    opd_kernels *k = kernels_of(OPD_CPU_ISA_AUTO, 1);
    opd_decoder *d;
    opd_decoder_options options = {.slots = 1, .max_len = LENGTH};
    opd_decode_out first, again;
    opd_decode_row row = {0, 5, 0.3f, &hot, NULL};
    CHECK_OK(opd_decoder_create(k, &model->config, &options, NULL, &d));
    opd_decoder_set_weights(d, model->params);
    CHECK_OK(opd_decoder_step(d, &row, 1, &first));
    for (int i = 0; i < 4; i++) CHECK_OK(opd_decoder_step(d, &row, 1, &again));
    opd_decoder_truncate(d, 0, 0);
    CHECK_OK(opd_decoder_step(d, &row, 1, &again));
    CHECK_INT(again.token, first.token);
    CHECK(again.logp == first.logp);
    opd_decoder_destroy(d);
    opd_kernels_destroy(k);
    opd_model_destroy(model);
}

TEST(bad_input_is_refused) {
    opd_model *model = model_make();
    opd_kernels *k = kernels_of(OPD_CPU_ISA_AUTO, 1);
    opd_decoder *d;
    opd_decoder_options options = {.slots = 2, .max_len = 2};
    opd_decode_out out[2];
    opd_sampling bad = {.temperature = -1.0f, .top_p = 1.0f};
    opd_decoder_options lengthy = {.slots = 2, .max_len = 65};
    CHECK_ERR(opd_decoder_create(k, &model->config, &lengthy, NULL, &d), OPD_ERR_INVALID);
    CHECK_OK(opd_decoder_create(k, &model->config, &options, NULL, &d));
    opd_decoder_set_weights(d, model->params);
    opd_decode_row rows[2] = {{0, 1, 0.5f, &hot, NULL}, {0, 1, 0.5f, &hot, NULL}};
    CHECK_ERR(opd_decoder_step(d, rows, 2, out), OPD_ERR_INVALID); /* twice */
    rows[1].slot = 2;
    CHECK_ERR(opd_decoder_step(d, rows, 2, out), OPD_ERR_INVALID);
    rows[1] = (opd_decode_row){1, 101, 0.5f, &hot, NULL};
    CHECK_ERR(opd_decoder_step(d, rows, 2, out), OPD_ERR_INVALID);
    rows[1] = (opd_decode_row){1, 1, 0.5f, &bad, NULL};
    CHECK_ERR(opd_decoder_step(d, rows, 2, out), OPD_ERR_INVALID);
    rows[1].sampling = &hot;
    CHECK_INT(opd_decoder_length(d, 0), 0);
    CHECK_OK(opd_decoder_step(d, rows, 2, out));
    CHECK_OK(opd_decoder_step(d, rows, 2, out));
    CHECK_ERR(opd_decoder_step(d, rows, 2, out), OPD_ERR_LIMIT);
    CHECK_INT(opd_decoder_length(d, 0), 2);
    int32_t tokens[3] = {1, 2, 3};
    opd_packed packed = {1, (size_t[]){0, 3}, tokens};
    CHECK_ERR(opd_decoder_prefill(d, (size_t[]){0}, &packed), OPD_ERR_LIMIT);
    opd_decoder_destroy(d);
    opd_kernels_destroy(k);
    opd_model_destroy(model);
}
