/* test_score_engine.c - continuous batching of scoring: every number is the graph's, bit for bit,
 * whatever runs along and whatever is cached; a common beginning is computed once; short
 * requests overtake long ones and long ones are not starved; nothing is finished twice. */
#include "actors/scorer/engine.h"

#include "actors/messages.h"
#include "core/base/rng.h"
#include "models/graph.h"
#include "tests/support/alloc_test.h"
#include "tests/support/test.h"

enum { VOCAB = 47, MAX_LEN = 140, ASKS = 40, TOP = 3, GIVEN = 4 };

typedef struct asked {
    int32_t tokens[MAX_LEN];
    uint32_t count, start, top_k;
    double temperature;
    bool unwanted, given; /* given: log-probs of ids that stand in `ids` are wanted, too */
    int32_t ids[MAX_LEN * GIVEN];
    /* what came */
    int times;
    opd_err err;
    uint32_t cached;
    uint64_t step; /* the engine's count */
    float logp[MAX_LEN], topk_logp[MAX_LEN * TOP], ids_logp[MAX_LEN * GIVEN];
    int32_t topk[MAX_LEN * TOP];
} asked;

typedef struct bench {
    opd_test_alloc memory;
    opd_model *model;
    opd_kernels *kernels;
    opd_score_engine *engine;
    opd_score_engine_options options;
    asked asks[ASKS];
    int finished;
} bench;

static opd_model *model_make(void) {
    opd_model *model;
    opd_model_config config = {.vocab_size = VOCAB, .hidden_size = 16, .intermediate_size = 24,
                               .layers = 2, .heads = 4, .kv_heads = 2, .head_dim = 6,
                               .max_position = 160, .rope_theta = 1e4, .rms_eps = 1e-5,
                               .tie_embeddings = true, .bos_id = -1, .eos_id = -1, .pad_id = -1};
    CHECK_OK(opd_model_create(&config, 3, NULL, &model));
    for (size_t i = 0; i < model->param_count; i++) model->params[i] *= 8;
    return model;
}

static void bench_up(bench *b, opd_cpu_isa isa, size_t threads, uint64_t cache_pages) {
    if (!opd_cpu_isa_available(isa)) SKIP("this processor lacks the instruction set");
    memset(b, 0, sizeof *b);
    opd_test_alloc_tracing(&b->memory);
    b->model = model_make();
    CHECK_OK(opd_kernels_create_cpu(isa, threads, NULL, &b->kernels));
    uint64_t page = opd_reader_page_floats(&b->model->config) * sizeof(float);
    b->options = (opd_score_engine_options){
        .model = b->model, .kernels = b->kernels, .max_len = MAX_LEN, .job_tokens = 48,
        .requests_max = ASKS, .running_max = 12, .cache_bytes = cache_pages * page,
        .alloc = &b->memory.alloc};
}

static void bench_start(bench *b) {
    CHECK_OK(opd_score_engine_create(&b->options, &b->engine));
    CHECK_OK(opd_score_engine_prepare(b->engine));
}

static void bench_down(bench *b) {
    opd_score_engine_destroy(b->engine);
    CHECK_INT(b->memory.live, 0);
    opd_kernels_destroy(b->kernels);
    opd_model_destroy(b->model);
}

static opd_err check(void *arg, void *user) {
    (void)arg;
    return ((asked *)user)->unwanted ? opd_fail(OPD_ERR_CANCELLED, "unwanted") : OPD_OK;
}

static void finish(void *arg, const opd_score_done *done) {
    bench *b = arg;
    asked *a = done->user;
    a->times++;
    a->err = done->err;
    a->cached = done->cached;
    a->step = opd_score_engine_look(b->engine).steps;
    b->finished++;
    if (done->err != OPD_OK) return;
    size_t rows = a->count - 1 - a->start;
    CHECK_INT(done->logp.size_bytes, rows * sizeof(float));
    memcpy(a->logp, opd_slice_data(done->logp), rows * sizeof(float));
    CHECK_INT(done->ids_logp.size_bytes, a->given ? rows * GIVEN * sizeof(float) : 0);
    if (a->given) memcpy(a->ids_logp, opd_slice_data(done->ids_logp), done->ids_logp.size_bytes);
    if (a->top_k == 0) return;
    CHECK_INT(done->topk_ids.size_bytes, rows * a->top_k * sizeof(float));
    memcpy(a->topk, opd_slice_data(done->topk_ids), done->topk_ids.size_bytes);
    memcpy(a->topk_logp, opd_slice_data(done->topk_logp), done->topk_logp.size_bytes);
}

static opd_score_listener listener_of(bench *b) {
    return (opd_score_listener){.check = check, .finish = finish, .arg = b};
}

static opd_err add(bench *b, asked *a) {
    opd_slice tokens;
    CHECK_OK(opd_slice_copy(&b->memory.alloc, a->tokens, a->count * sizeof(int32_t), &tokens));
    opd_score_ask ask = {.tokens = tokens, .start = a->start, .top_k = a->top_k,
                         .temperature = a->temperature, .user = a};
    if (a->given)
        CHECK_OK(opd_slice_copy(&b->memory.alloc, a->ids, (a->count - 1 - a->start) * GIVEN * sizeof(int32_t),
                                &ask.ids));
    opd_err err = opd_score_engine_add(b->engine, &ask);
    opd_buf_release(tokens.buf);
    opd_buf_release(ask.ids.buf);
    return err;
}

static bool step(bench *b) {
    opd_score_listener listener = listener_of(b);
    if (!opd_score_engine_plan(b->engine, &listener)) return false;
    CHECK_OK(opd_score_engine_execute(b->engine));
    opd_score_engine_apply(b->engine, OPD_OK, &listener);
    return true;
}

/* Tokens of a family up to `common`, then its own. */
static void ask_make(asked *a, uint32_t family, uint32_t common, uint32_t own, uint32_t count,
                     uint32_t start) {
    *a = (asked){.count = count, .start = start, .temperature = 1};
    for (uint32_t i = 0; i < count; i++)
        a->tokens[i] = (int32_t)(opd_rng_at(i < common ? family : 1000 + own, i, 0, 0) % VOCAB);
    for (uint32_t i = 0; i < MAX_LEN * GIVEN; i++) a->ids[i] = (int32_t)(opd_rng_at(own, i, 5, 0) % VOCAB);
}

static void check_numbers(const bench *b, const asked *a) {
    opd_graph *graph;
    opd_score_row rows[MAX_LEN];
    float logp[MAX_LEN], topk_logp[MAX_LEN * TOP], ids_logp[MAX_LEN * GIVEN];
    int32_t topk[MAX_LEN * TOP];
    size_t n = a->count - 1 - a->start;
    CHECK_INT(a->times, 1);
    CHECK_INT(a->err, OPD_OK);
    CHECK(a->cached <= a->start);
    CHECK_OK(opd_graph_create(b->kernels, &b->model->config, OPD_GRAPH_SCORE, MAX_LEN, NULL,
                              &graph));
    opd_graph_set_weights(graph, b->model->params);
    opd_packed packed = {1, (size_t[]){0, a->count}, a->tokens};
    CHECK_OK(opd_graph_forward(graph, &packed));
    for (size_t i = 0; i < n; i++)
        rows[i] = (opd_score_row){a->start + i, a->tokens[a->start + i + 1],
                                  (float)(1.0 / a->temperature)};
    opd_scores out = {.logp = logp, .top_k = a->top_k, .top_ids = topk, .top_logp = topk_logp,
                      .ids_k = a->given ? GIVEN : 0, .ids = a->ids, .ids_logp = ids_logp};
    CHECK_OK(opd_graph_score(graph, rows, n, &out));
    CHECK(memcmp(logp, a->logp, n * sizeof *logp) == 0);
    CHECK(memcmp(topk, a->topk, n * a->top_k * sizeof *topk) == 0);
    CHECK(memcmp(topk_logp, a->topk_logp, n * a->top_k * sizeof *topk_logp) == 0);
    if (a->given) CHECK(memcmp(ids_logp, a->ids_logp, n * GIVEN * sizeof *ids_logp) == 0);
    opd_graph_destroy(graph);
}

/* ---- every number ------------------------------------------------------------------------ */

/* Requests of all sizes and kinds, some with common beginnings, come while others run. */
static void check_mixture(opd_cpu_isa isa, size_t threads, uint64_t cache_pages) {
    static bench b;
    bench_up(&b, isa, threads, cache_pages);
    bench_start(&b);
    uint64_t seed = cache_pages * 1000;
    for (uint32_t i = 0; i < ASKS; i++) {
        uint32_t count = 2 + (uint32_t)(opd_rng_at(seed, i, 1, 0) % (MAX_LEN - 1));
        uint32_t start = (uint32_t)(opd_rng_at(seed, i, 2, 0) % (count - 1));
        ask_make(&b.asks[i], i % 3, (uint32_t)(opd_rng_at(seed, i, 3, 0) % MAX_LEN), i, count,
                 start);
        b.asks[i].top_k = i % 2 ? TOP : 0;
        b.asks[i].temperature = i % 5 == 0 ? 0.7 : 1;
        b.asks[i].given = i % 3 == 0;
        CHECK_OK(add(&b, &b.asks[i]));
        if (i % 2) (void)step(&b);
    }
    while (step(&b)) continue;
    for (uint32_t i = 0; i < ASKS; i++) check_numbers(&b, &b.asks[i]);
    opd_score_engine_state s = opd_score_engine_look(b.engine);
    CHECK_INT(s.pages_used, 0);
    CHECK((s.cached > 0) == (cache_pages > 0));
    bench_down(&b);
}

TEST(numbers_are_the_graphs_plain) { check_mixture(OPD_CPU_ISA_PLAIN, 1, 60); }
TEST(numbers_are_the_graphs_avx2) { check_mixture(OPD_CPU_ISA_AVX2, 1, 60); }
TEST(numbers_are_the_graphs_avx512) { check_mixture(OPD_CPU_ISA_AVX512, 1, 60); }
TEST(numbers_are_the_graphs_on_three_threads) { check_mixture(OPD_CPU_ISA_AUTO, 3, 60); }
TEST(numbers_are_the_graphs_under_eviction) { check_mixture(OPD_CPU_ISA_AUTO, 1, 7); }
TEST(numbers_are_the_graphs_without_a_cache) { check_mixture(OPD_CPU_ISA_AUTO, 1, 0); }

static void run(bench *b, asked *a) {
    CHECK_OK(add(b, a));
    while (step(b)) continue;
    check_numbers(b, a);
}

/* Weights change while requests run and wait: what had begun begins again, and what was cached is forgotten,
 * so that every number is of the new weights; what was answered before stays of the old ones. */
TEST(other_weights_begin_again) {
    static bench b;
    bench_up(&b, OPD_CPU_ISA_AUTO, 1, 60);
    bench_start(&b);
    ask_make(&b.asks[0], 1, MAX_LEN, 0, 20, 5);
    run(&b, &b.asks[0]);
    for (uint32_t i = 1; i < ASKS / 2; i++) { /* more than run at once */
        ask_make(&b.asks[i], 1, i % 2 ? 100 : 10, i, 130 - i, 9);
        b.asks[i].top_k = TOP;
        CHECK_OK(add(&b, &b.asks[i]));
    }
    while (b.finished < 3) CHECK(step(&b));
    int before = b.finished;
    for (uint32_t i = 1; i < ASKS / 2; i++)
        if (b.asks[i].times == 1) check_numbers(&b, &b.asks[i]);
    for (size_t i = 0; i < b.model->param_count; i++) b.model->params[i] *= 0.9f;
    opd_score_engine_renew(b.engine);
    opd_score_engine_state s = opd_score_engine_look(b.engine);
    CHECK_INT(s.running, 0);
    CHECK_INT((int)s.waiting, ASKS / 2 - before);
    CHECK_INT(s.pages_used + s.pages_kept, 0);
    opd_score_engine_set_weights(b.engine, b.model->params);
    unsigned old = 0;
    for (uint32_t i = 1; i < ASKS / 2; i++) old |= (unsigned)(b.asks[i].times == 1) << i;
    while (step(&b)) continue;
    for (uint32_t i = 1; i < ASKS / 2; i++) {
        CHECK_INT(b.asks[i].times, 1);
        if (!(old >> i & 1)) check_numbers(&b, &b.asks[i]);
    }
    bench_down(&b);
}

/* ---- reuse ------------------------------------------------------------------------------- */

TEST(a_cached_beginning_is_not_computed_again) {
    static bench b;
    bench_up(&b, OPD_CPU_ISA_AUTO, 1, 60);
    bench_start(&b);
    ask_make(&b.asks[0], 1, MAX_LEN, 0, 100, 10);
    run(&b, &b.asks[0]);
    CHECK_INT(b.asks[0].cached, 0);
    CHECK_INT(opd_score_engine_look(b.engine).computed, 99); /* the last token predicts nothing */
    ask_make(&b.asks[1], 1, MAX_LEN, 1, 120, 99); /* the same text, grown */
    run(&b, &b.asks[1]);
    CHECK_INT(b.asks[1].cached, 99);
    CHECK_INT(opd_score_engine_look(b.engine).computed, 119);
    ask_make(&b.asks[2], 1, MAX_LEN, 2, 120, 50); /* no more than `start` */
    run(&b, &b.asks[2]);
    CHECK_INT(b.asks[2].cached, 50);
    ask_make(&b.asks[3], 1, 70, 3, 120, 119 - 1); /* another end */
    run(&b, &b.asks[3]);
    CHECK_INT(b.asks[3].cached, 70);
    ask_make(&b.asks[4], 2, 70, 4, 120, 118); /* another text */
    run(&b, &b.asks[4]);
    CHECK(b.asks[4].cached <= 2);
    bench_down(&b);
}

/* Answers to one prompt, asked at once, in the same step and while the first is under way. */
TEST(a_common_prompt_is_computed_once) {
    for (uint32_t prompt = 12; prompt <= 90; prompt += 13) {
        static bench b;
        bench_up(&b, OPD_CPU_ISA_AUTO, 1, 100);
        bench_start(&b);
        uint32_t answers = 0;
        for (uint32_t i = 0; i < 8; i++) {
            ask_make(&b.asks[i], 1, prompt, i, prompt + 10 + i, prompt - 1);
            b.asks[i].tokens[prompt] = (int32_t)i; /* they part at once */
            CHECK_OK(add(&b, &b.asks[i]));
            answers += 9 + i;
            if (i == 5) CHECK(step(&b));
        }
        while (step(&b)) continue;
        for (uint32_t i = 0; i < 8; i++) check_numbers(&b, &b.asks[i]);
        opd_score_engine_state s = opd_score_engine_look(b.engine);
        /* each reads the last prompt token for its first score, but only once writes it */
        CHECK(s.computed >= prompt + answers);
        CHECK(s.computed <= prompt + answers + 8);
        CHECK(s.cached + s.computed == 8 * prompt + answers);
        bench_down(&b);
    }
}

TEST(a_cancelled_request_leaves_its_prompt_to_the_others) {
    static bench b;
    bench_up(&b, OPD_CPU_ISA_AUTO, 1, 100);
    bench_start(&b);
    for (uint32_t i = 0; i < 4; i++) {
        ask_make(&b.asks[i], 1, 110, i, 130, 109);
        CHECK_OK(add(&b, &b.asks[i]));
    }
    CHECK(step(&b));
    CHECK_INT(opd_score_engine_look(b.engine).running, 4);
    b.asks[0].unwanted = true; /* which is computing for all */
    CHECK(step(&b));
    CHECK_INT(b.asks[0].times, 1);
    CHECK_INT(b.asks[0].err, OPD_ERR_CANCELLED);
    while (step(&b)) continue;
    for (uint32_t i = 1; i < 4; i++) check_numbers(&b, &b.asks[i]);
    CHECK(opd_score_engine_look(b.engine).computed <= 110 + 3 * 20 + 4);
    bench_down(&b);
}

/* ---- who waits ---------------------------------------------------------------------------- */

TEST(short_requests_overtake_a_long_one) {
    static bench b;
    bench_up(&b, OPD_CPU_ISA_AUTO, 1, 100);
    bench_start(&b);
    ask_make(&b.asks[0], 1, 0, 0, 140, 0);
    ask_make(&b.asks[1], 1, 0, 1, 140, 0);
    for (uint32_t i = 2; i < 5; i++) ask_make(&b.asks[i], 1, 0, i, 8, 0);
    for (uint32_t i = 0; i < 5; i++) CHECK_OK(add(&b, &b.asks[i]));
    while (step(&b)) continue;
    for (uint32_t i = 0; i < 5; i++) check_numbers(&b, &b.asks[i]);
    for (uint32_t i = 2; i < 5; i++) CHECK_INT(b.asks[i].step, 1);
    CHECK(b.asks[0].step < b.asks[1].step);
    bench_down(&b);
}

/* New short requests at every step, more than a step holds: the long one gets its half. */
TEST(a_long_request_is_not_starved) {
    static bench b;
    bench_up(&b, OPD_CPU_ISA_AUTO, 1, 100);
    bench_start(&b);
    ask_make(&b.asks[0], 1, 0, 0, 140, 0);
    CHECK_OK(add(&b, &b.asks[0]));
    uint32_t next = 1;
    for (int i = 0; i < 8 && b.asks[0].times == 0; i++) {
        for (int j = 0; j < 4 && next < ASKS; j++, next++) {
            ask_make(&b.asks[next], 1, 0, next, 24, 0);
            CHECK_OK(add(&b, &b.asks[next]));
        }
        CHECK(step(&b));
    }
    CHECK_INT(b.asks[0].times, 1);
    CHECK(b.asks[0].step <= 139 / (48 / 2) + 2);
    while (step(&b)) continue;
    for (uint32_t i = 0; i < next; i++) check_numbers(&b, &b.asks[i]);
    bench_down(&b);
}

TEST(requests_without_room_wait_in_order) {
    static bench b;
    bench_up(&b, OPD_CPU_ISA_AUTO, 1, 0); /* just the longest one fits */
    b.options.job_tokens = 48;
    bench_start(&b);
    for (uint32_t i = 0; i < 6; i++) {
        ask_make(&b.asks[i], 1, 0, i, 130, 0);
        CHECK_OK(add(&b, &b.asks[i]));
    }
    while (step(&b)) CHECK(opd_score_engine_look(b.engine).running <= 1);
    for (uint32_t i = 0; i < 6; i++) check_numbers(&b, &b.asks[i]);
    for (uint32_t i = 1; i < 6; i++) CHECK(b.asks[i].step > b.asks[i - 1].step);
    bench_down(&b);
}

TEST(a_step_has_the_tokens_that_fit_its_time) {
    static bench b;
    bench_up(&b, OPD_CPU_ISA_AUTO, 1, 100);
    bench_start(&b);
    for (uint32_t i = 0; i < 4; i++) {
        ask_make(&b.asks[i], 1, 0, i, 140, 0);
        CHECK_OK(add(&b, &b.asks[i]));
    }
    CHECK(step(&b)); /* 48 tokens */
    static const struct {
        uint64_t took_ms, tokens;
    } cases[] = {{50, 48}, {200, 24}, {100, 24}, {400, 6}, {9999, 6}, {20, 30}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        opd_score_engine_pace(b.engine, cases[i].took_ms * 1000000);
        opd_score_engine_state s = opd_score_engine_look(b.engine);
        CHECK_INT(s.step_tokens, cases[i].tokens);
        CHECK(step(&b));
        CHECK_INT(opd_score_engine_look(b.engine).computed - s.computed, cases[i].tokens);
    }
    while (step(&b)) continue;
    for (uint32_t i = 0; i < 4; i++) check_numbers(&b, &b.asks[i]);
    bench_down(&b);
}

TEST(the_cache_has_its_bounds) {
    static bench b;
    bench_up(&b, OPD_CPU_ISA_AUTO, 1, 0);
    uint64_t page = opd_reader_page_floats(&b.model->config) * sizeof(float);
    CHECK_INT(opd_score_engine_pages(&b.options), 5); /* the longest request */
    b.options.job_tokens = 200;
    CHECK_INT(opd_score_engine_pages(&b.options), 14); /* short requests for two steps */
    b.options.cache_bytes = 41 * page - 1;
    CHECK_INT(opd_score_engine_pages(&b.options), 40);
    b.options.cache_bytes = UINT64_MAX;
    CHECK_INT(opd_score_engine_pages(&b.options), 12 * 5); /* all that can run */
    bench_down(&b);
}

/* ---- refusals and failures --------------------------------------------------------------- */

TEST(bad_requests_are_refused) {
    static bench b;
    bench_up(&b, OPD_CPU_ISA_AUTO, 1, 60);
    bench_start(&b);
    asked *a = &b.asks[0];
    ask_make(a, 1, 0, 0, 10, 8);
    a->start = 9;
    CHECK_ERR(add(&b, a), OPD_ERR_INVALID);
    a->start = 0;
    a->top_k = VOCAB + 1;
    CHECK_ERR(add(&b, a), OPD_ERR_INVALID);
    a->top_k = 0;
    for (int i = 0; i < 4; i++) {
        a->temperature = (double[]){0, -1, NAN, 1e-60}[i];
        CHECK_ERR(add(&b, a), OPD_ERR_INVALID);
    }
    a->temperature = 1;
    a->given = true;
    for (int i = 0; i < 2; i++) {
        a->ids[3] = i == 0 ? -1 : VOCAB;
        CHECK_ERR(add(&b, a), OPD_ERR_INVALID);
        CHECK_CONTAINS(opd_err_context(), "id 3 of those to score");
    }
    opd_slice tokens, ids;
    CHECK_OK(opd_slice_copy(NULL, a->tokens, 10 * sizeof(int32_t), &tokens));
    CHECK_OK(opd_slice_copy(NULL, a->tokens, 10 * sizeof(int32_t), &ids)); /* nine tokens are scored */
    opd_score_ask uneven = {.tokens = tokens, .ids = ids, .temperature = 1};
    CHECK_ERR(opd_score_engine_add(b.engine, &uneven), OPD_ERR_INVALID);
    CHECK_CONTAINS(opd_err_context(), "40 bytes of ids for 9 tokens");
    opd_buf_release(tokens.buf);
    opd_buf_release(ids.buf);
    a->given = false;
    a->tokens[9] = VOCAB;
    CHECK_ERR(add(&b, a), OPD_ERR_INVALID);
    a->tokens[9] = 0;
    a->count = 1;
    CHECK_ERR(add(&b, a), OPD_ERR_INVALID);
    a->count = 2;
    for (int i = 0; i < ASKS; i++) CHECK_OK(add(&b, a));
    CHECK_ERR(add(&b, a), OPD_ERR_AGAIN);
    while (step(&b)) continue;
    CHECK_INT(b.finished, ASKS);
    CHECK_OK(add(&b, a));
    opd_score_listener listener = listener_of(&b);
    opd_score_engine_close(b.engine, &listener);
    CHECK_INT(a->err, OPD_ERR_CLOSED);
    CHECK_INT(b.finished, ASKS + 1);
    bench_down(&b);
}

/* A step that failed may have left anything in the pages: nothing of it is used. */
TEST(a_failed_step_ends_what_runs_and_empties_the_cache) {
    static bench b;
    bench_up(&b, OPD_CPU_ISA_AUTO, 1, 60);
    bench_start(&b);
    opd_score_listener listener = listener_of(&b);
    ask_make(&b.asks[0], 1, MAX_LEN, 0, 60, 50);
    run(&b, &b.asks[0]);
    ask_make(&b.asks[1], 1, MAX_LEN, 1, 100, 90);
    CHECK_OK(add(&b, &b.asks[1]));
    CHECK(opd_score_engine_plan(b.engine, &listener));
    opd_score_engine_apply(b.engine, opd_fail(OPD_ERR_INTERNAL, "a fault"), &listener);
    CHECK_INT(b.asks[1].err, OPD_ERR_INTERNAL);
    ask_make(&b.asks[2], 1, MAX_LEN, 2, 60, 50);
    run(&b, &b.asks[2]);
    CHECK_INT(b.asks[2].cached, 0);
    bench_down(&b);
}

/* The n-th allocation fails: creation fails cleanly, or one request does. */
TEST(without_memory_requests_fail_alone) {
    for (long n = 1;; n++) {
        static bench b;
        bench_up(&b, OPD_CPU_ISA_AUTO, 1, 60);
        opd_test_alloc tokens_memory;
        opd_test_alloc_tracing(&tokens_memory);
        opd_test_alloc_failing(&b.memory, n, false);
        opd_err err = opd_score_engine_create(&b.options, &b.engine);
        if (err == OPD_OK) err = opd_score_engine_prepare(b.engine);
        int failed = err != OPD_OK;
        for (uint32_t i = 0; err == OPD_OK && i < 3; i++) {
            opd_slice tokens;
            ask_make(&b.asks[i], 1, 40, i, 60, 20);
            b.asks[i].top_k = TOP;
            CHECK_OK(opd_slice_copy(&tokens_memory.alloc, b.asks[i].tokens, 60 * sizeof(int32_t),
                                    &tokens));
            opd_score_ask ask = {.tokens = tokens, .start = 20, .top_k = TOP, .temperature = 1,
                                 .user = &b.asks[i]};
            CHECK_OK(opd_score_engine_add(b.engine, &ask));
            opd_buf_release(tokens.buf);
        }
        while (err == OPD_OK && step(&b)) continue;
        for (uint32_t i = 0; err == OPD_OK && i < 3; i++) {
            if (b.asks[i].err == OPD_OK) check_numbers(&b, &b.asks[i]);
            else failed++;
        }
        bool all = n > b.memory.calls;
        CHECK_INT(failed, all ? 0 : 1);
        bench_down(&b);
        CHECK_INT(tokens_memory.live, 0);
        if (all) return;
    }
}
