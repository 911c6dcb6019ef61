/* test_engine.c - continuous batching: a sample depends on its own key only, log-probs are the
 * learner's bit for bit, and every member of every prompt finishes exactly once. */
#include "actors/rollout/engine.h"

#include "actors/messages.h"
#include "core/base/check.h"
#include "core/base/rng.h"
#include "models/graph.h"
#include "tests/support/alloc_test.h"
#include "tests/unit/actors/tiny.h"

enum { VOCAB = 61, EOS = 2, MAX_LEN = 40, PROMPTS = 9, MEMBERS_MAX = 5, USERS = 100, TOP = 3 };

typedef struct result {
    int times;
    opd_finish finish;
    uint32_t prompt_len, response_len, span_count;
    int32_t tokens[MAX_LEN];
    float logp[MAX_LEN];
    int32_t topk[MAX_LEN * TOP]; /* of prompts that keep them: even groups */
    uint64_t span_version[OPD_ENGINE_SPANS_MAX];
    uint32_t span_start[OPD_ENGINE_SPANS_MAX];
} result;

typedef struct bench {
    opd_model *model;
    opd_kernels *kernels;
    opd_engine *engine;
    opd_slice weights;
    result results[PROMPTS][MEMBERS_MAX];
    int finished;
} bench;

static void bench_up(bench *b, uint32_t slots, uint32_t prompts_max) {
    memset(b, 0, sizeof *b);
    b->model = tiny_model(VOCAB, EOS, 5);
    b->kernels = tiny_kernels(1);
    opd_engine_options options = {.model = &b->model->config, .kernels = b->kernels,
                                  .slots = slots, .max_len = MAX_LEN,
                                  .prompts_max = prompts_max, .top_k = TOP};
    CHECK_OK(opd_engine_create(&options, &b->engine));
    CHECK_OK(opd_slice_copy(NULL, b->model->params, b->model->param_count * sizeof(float),
                            &b->weights));
}

static void bench_down(bench *b) {
    opd_engine_destroy(b->engine);
    opd_kernels_destroy(b->kernels);
    opd_buf_release(b->weights.buf);
    opd_model_destroy(b->model);
}

static uint32_t count_of(uint64_t group) { return 1 + (uint32_t)(group * 3 % MEMBERS_MAX); }

static void add(bench *b, uint64_t group, float temperature) {
    int32_t ids[MAX_LEN];
    uint32_t length = 1 + (uint32_t)(group * 5 % 17);
    for (uint32_t i = 0; i < length; i++) ids[i] = (int32_t)((group * 11 + i * 7) % VOCAB);
    opd_engine_prompt p = {.count = count_of(group), .max_new = group == 4 ? 1000 : 12,
                           .sampling = {.temperature = temperature, .top_p = group % 2 ? 0.9f : 1.0f,
                                        .top_k = group % 3 ? 0 : 20},
                           .seed = 77, .epoch = 1, .group = group, .lists = group % 2 == 0, .user = group};
    CHECK_OK(opd_slice_copy(NULL, ids, length * sizeof *ids, &p.tokens));
    CHECK_OK(opd_engine_add(b->engine, &p));
    opd_buf_release(p.tokens.buf); /* the engine has its own reference */
}

static void finish(void *arg, const opd_engine_sample *s) {
    bench *b = arg;
    result *r = &b->results[s->prompt->group][s->member];
    CHECK(s->prompt->group < PROMPTS && s->member < s->prompt->count);
    r->times++;
    b->finished++;
    r->finish = s->finish;
    r->prompt_len = s->prompt_len, r->response_len = s->response_len;
    memcpy(r->tokens, s->tokens, (s->prompt_len + s->response_len) * sizeof *r->tokens);
    if (s->response_len > 0) memcpy(r->logp, s->logp, s->response_len * sizeof *r->logp);
    CHECK((s->topk != NULL) == s->prompt->lists || s->response_len == 0);
    if (s->topk != NULL) memcpy(r->topk, s->topk, s->response_len * TOP * sizeof *r->topk);
    r->span_count = s->span_count;
    memcpy(r->span_version, s->span_version, sizeof r->span_version);
    memcpy(r->span_start, s->span_start, sizeof r->span_start);
}

static bool step(bench *b) {
    if (!opd_engine_plan(b->engine)) return false;
    CHECK_OK(opd_engine_execute(b->engine));
    opd_engine_apply(b->engine, finish, b);
    return true;
}

static void run(bench *b) {
    int steps = 0;
    while (step(b)) CHECK(++steps < 10000);
    CHECK_INT(opd_engine_running(b->engine), 0);
    CHECK_INT(opd_engine_prompts(b->engine), 0);
}

static int members_in_all(void) {
    int n = 0;
    for (uint64_t g = 0; g < PROMPTS; g++) n += (int)count_of(g);
    return n;
}

static void same_sample(const result *a, const result *b) {
    CHECK_INT(b->times, 1);
    CHECK_INT(a->finish, b->finish);
    CHECK_INT(a->response_len, b->response_len);
    CHECK(memcmp(a->tokens, b->tokens, (a->prompt_len + a->response_len) * sizeof *a->tokens) == 0);
    CHECK(memcmp(a->logp, b->logp, a->response_len * sizeof *a->logp) == 0);
    CHECK(memcmp(a->topk, b->topk, sizeof a->topk) == 0);
}

/* Every prompt alone, one slot: what each sample must be. */
static void solo(float temperature, bench *out) {
    bench_up(out, 1, 1);
    opd_engine_offer(out->engine, out->weights, 1);
    for (uint64_t g = 0; g < PROMPTS; g++) {
        add(out, g, temperature);
        run(out);
    }
    CHECK_INT(out->finished, members_in_all());
}

/* The same prompts in another order, in other company, some of them arriving later. */
static void crowd(float temperature, uint32_t slots, uint64_t seed, const bench *want) {
    bench b;
    opd_rng rng;
    uint64_t order[PROMPTS];
    bench_up(&b, slots, PROMPTS);
    opd_rng_init(&rng, seed);
    for (uint64_t i = 0; i < PROMPTS; i++) order[i] = i;
    for (uint64_t i = PROMPTS; i > 1; i--) {
        uint64_t j = opd_rng_below(&rng, i), swap = order[i - 1];
        order[i - 1] = order[j];
        order[j] = swap;
    }
    CHECK(!opd_engine_plan(b.engine)); /* no weights yet */
    opd_engine_offer(b.engine, b.weights, 1);
    for (size_t i = 0; i < PROMPTS; i++) {
        add(&b, order[i], temperature);
        for (uint64_t n = opd_rng_below(&rng, 4); n > 0; n--) (void)step(&b);
        CHECK(opd_engine_running(b.engine) <= slots);
    }
    run(&b);
    CHECK_INT(b.finished, members_in_all());
    for (uint64_t g = 0; g < PROMPTS; g++)
        for (uint32_t m = 0; m < count_of(g); m++) same_sample(&want->results[g][m], &b.results[g][m]);
    bench_down(&b);
}

static void check_company(float temperature) {
    static const uint32_t slots[] = {1, 2, 3, 7, 32};
    bench want;
    solo(temperature, &want);
    for (size_t i = 0; i < OPD_COUNTOF(slots); i++) crowd(temperature, slots[i], 10 + i, &want);
    bench_down(&want);
}

TEST(a_sample_depends_on_its_key_only) { check_company(1.0f); }
TEST(a_sample_depends_on_its_key_only_when_cooler) { check_company(0.7f); }

/* ---- log-probs are the learner's ---- */

static void check_scores(float temperature) {
    bench b;
    opd_graph *graph;
    int stops = 0, lengths = 0;
    solo(temperature, &b);
    CHECK_OK(opd_graph_create(b.kernels, &b.model->config, OPD_GRAPH_TRAIN, MAX_LEN, NULL, &graph));
    opd_graph_set_weights(graph, b.model->params);
    for (uint64_t g = 0; g < PROMPTS; g++)
        for (uint32_t m = 0; m < count_of(g); m++) {
            const result *r = &b.results[g][m];
            size_t starts[2] = {0, r->prompt_len + r->response_len};
            opd_score_row rows[MAX_LEN];
            float logp[MAX_LEN], top_logp[MAX_LEN * TOP];
            int32_t top[MAX_LEN * TOP];
            for (uint32_t t = 0; t < r->response_len; t++)
                rows[t] = (opd_score_row){r->prompt_len + t - 1, r->tokens[r->prompt_len + t],
                                          1.0f / temperature};
            opd_packed packed = {1, starts, r->tokens};
            opd_scores out = {.logp = logp, .top_k = TOP, .top_ids = top, .top_logp = top_logp};
            CHECK_OK(opd_graph_forward(graph, &packed));
            CHECK_OK(opd_graph_score(graph, rows, r->response_len, &out));
            CHECK(memcmp(logp, r->logp, r->response_len * sizeof *logp) == 0);
            if (g % 2 == 0) CHECK(memcmp(top, r->topk, r->response_len * TOP * sizeof *top) == 0);
            bool stop = r->tokens[r->prompt_len + r->response_len - 1] == EOS;
            CHECK_INT(r->finish, stop ? OPD_FINISH_STOP : OPD_FINISH_LENGTH);
            for (uint32_t t = 0; t + 1 < r->response_len; t++) CHECK(r->tokens[r->prompt_len + t] != EOS);
            if (!stop) CHECK_INT(r->response_len, g == 4 ? MAX_LEN - r->prompt_len : 12);
            stops += stop, lengths += !stop;
        }
    CHECK(stops > 0 && lengths > 0); /* both ends were seen */
    opd_graph_destroy(graph);
    bench_down(&b);
}

TEST(log_probs_are_the_learners) { check_scores(1.0f); }
TEST(log_probs_are_the_learners_when_cooler) { check_scores(0.7f); }

/* ---- progress ---- */

typedef struct watch {
    uint32_t told[PROMPTS][MEMBERS_MAX], calls, taken;
    uint64_t last_group;
} watch;

/* Takes every second one: the others come again, longer. */
static bool look(void *arg, const opd_engine_progress *p) {
    watch *seen = arg;
    uint64_t g = p->prompt->group;
    uint32_t *told = &seen->told[g][p->member];
    CHECK_INT(p->prompt_len, 1 + g * 5 % 17);
    CHECK_INT(p->told, *told);
    CHECK(p->length >= p->prompt_len && p->length > p->told && p->length < MAX_LEN);
    for (uint32_t i = 0; i < p->prompt_len; i++) CHECK_INT(p->tokens[i], (g * 11 + i * 7) % VOCAB);
    CHECK(g >= seen->last_group); /* in the order of their start */
    seen->last_group = g;
    if (seen->calls++ % 2) return false;
    *told = p->length;
    seen->taken++;
    return true;
}

TEST(running_sequences_are_shown_until_they_are_taken) {
    bench b;
    watch seen = {.calls = 0};
    bench_up(&b, 3, PROMPTS);
    opd_engine_offer(b.engine, b.weights, 1);
    for (uint64_t g = 0; g < PROMPTS; g++) add(&b, g, 1);
    while (step(&b)) {
        uint32_t calls = seen.calls;
        seen.last_group = 0;
        opd_engine_tell(b.engine, look, &seen);
        CHECK_INT(seen.calls - calls, opd_engine_running(b.engine));
    }
    CHECK(seen.taken > PROMPTS);
    for (uint64_t g = 0; g < PROMPTS; g++)
        for (uint32_t m = 0; m < count_of(g); m++)
            CHECK(seen.told[g][m] < b.results[g][m].prompt_len + b.results[g][m].response_len);
    bench_down(&b);
}

/* ---- versions ---- */

static void add_simple(bench *b, uint64_t group, uint32_t count, uint32_t max_new, uint64_t min_version) {
    int32_t ids[] = {1, 5, 9};
    opd_engine_prompt p = {.count = count, .max_new = max_new, .seed = 3, .group = group,
                           .user = USERS + group, .min_version = min_version,
                           .sampling = {.temperature = 1, .top_p = 1}};
    CHECK_OK(opd_slice_copy(NULL, ids, sizeof ids, &p.tokens));
    CHECK_OK(opd_engine_add(b->engine, &p));
    opd_buf_release(p.tokens.buf);
}

TEST(a_prompt_waits_for_its_version_and_those_behind_it_too) {
    bench b;
    bench_up(&b, 4, PROMPTS);
    b.model->config.eos_id = -1;
    CHECK(opd_engine_version(b.engine) == UINT64_MAX);
    opd_engine_offer(b.engine, b.weights, 3);
    add_simple(&b, 0, 1, 3, 5);
    add_simple(&b, 1, 1, 3, 0);
    CHECK(!step(&b));
    opd_engine_offer(b.engine, b.weights, 4);
    CHECK(!step(&b));
    opd_engine_offer(b.engine, b.weights, 5);
    run(&b);
    CHECK_INT(opd_engine_version(b.engine), 5);
    for (int g = 0; g < 2; g++) {
        CHECK_INT(b.results[g][0].span_count, 1);
        CHECK_INT(b.results[g][0].span_version[0], 5);
    }
    bench_down(&b);
}

TEST(spans_say_which_weights_made_which_tokens) {
    bench b;
    bench_up(&b, 2, PROMPTS);
    add_simple(&b, 0, 1, 20, 0);
    uint32_t changes = 0;
    for (uint32_t t = 0; t < 20 && b.finished == 0; t++) {
        if (t % 3 == 0) opd_engine_offer(b.engine, b.weights, 10 + changes++);
        CHECK(step(&b));
    }
    const result *r = &b.results[0][0];
    CHECK_INT(r->times, 1);
    uint32_t want = (r->response_len + 2) / 3;
    CHECK_INT(r->span_count, want < OPD_ENGINE_SPANS_MAX ? want : OPD_ENGINE_SPANS_MAX);
    for (uint32_t i = 0; i < r->span_count; i++) { /* the oldest are kept: they bound the lag */
        CHECK_INT(r->span_version[i], 10 + i);
        CHECK_INT(r->span_start[i], 3 * i);
    }
    bench_down(&b);
}

TEST(a_newer_offer_replaces_one_not_taken_up) {
    bench b;
    bench_up(&b, 2, PROMPTS);
    opd_engine_offer(b.engine, b.weights, 1);
    opd_engine_offer(b.engine, b.weights, 2);
    add_simple(&b, 0, 1, 2, 0);
    run(&b);
    CHECK_INT(b.results[0][0].span_version[0], 2);
    opd_engine_offer(b.engine, b.weights, 3); /* never taken up: freed by destroy */
    bench_down(&b);
}

/* ---- limits, abort, errors ---- */

TEST(more_members_than_slots_start_as_slots_become_free) {
    bench b;
    bench_up(&b, 2, PROMPTS);
    opd_engine_offer(b.engine, b.weights, 1);
    add_simple(&b, 3, 5, 6, 0);
    CHECK(step(&b));
    CHECK_INT(opd_engine_running(b.engine) + (uint32_t)b.finished, 2);
    run(&b);
    CHECK_INT(b.finished, 5);
    for (int m = 0; m < 5; m++) CHECK_INT(b.results[3][m].times, 1);
    bench_down(&b);
}

TEST(abort_ends_running_and_waiting_members_once) {
    bench b, want;
    bench_up(&want, 3, PROMPTS);
    opd_engine_offer(want.engine, want.weights, 1);
    add_simple(&want, 1, 2, 8, 0);
    run(&want);
    bench_up(&b, 3, PROMPTS);
    opd_engine_offer(b.engine, b.weights, 1);
    add_simple(&b, 0, 5, 30, 0); /* three run, two wait */
    add_simple(&b, 1, 2, 8, 0);
    add_simple(&b, 2, 1, 8, 0);
    CHECK(step(&b));
    opd_engine_abort(b.engine, USERS + 0, finish, &b);
    opd_engine_abort(b.engine, USERS + 2, finish, &b); /* never started */
    opd_engine_abort(b.engine, USERS + 7, finish, &b); /* nobody's */
    CHECK_INT(opd_engine_running(b.engine), 0);
    CHECK_INT(opd_engine_prompts(b.engine), 1);
    int aborted = 0;
    for (int m = 0; m < 5; m++) {
        CHECK_INT(b.results[0][m].times, 1);
        aborted += b.results[0][m].finish == OPD_FINISH_ABORT;
        if (m >= 3) CHECK_INT(b.results[0][m].response_len, 0);
    }
    CHECK(aborted >= 2);
    CHECK_INT(b.results[2][0].finish, OPD_FINISH_ABORT);
    run(&b); /* the others go on as if nothing had been */
    for (int m = 0; m < 2; m++) same_sample(&want.results[1][m], &b.results[1][m]);
    bench_down(&b);
    bench_down(&want);
}

static opd_err add_bad(bench *b, const int32_t *ids, size_t n, uint32_t count, uint32_t max_new,
                       opd_sampling sampling) {
    opd_engine_prompt p = {.count = count, .max_new = max_new, .sampling = sampling};
    CHECK_OK(opd_slice_copy(NULL, ids, n * sizeof *ids, &p.tokens));
    opd_err err = opd_engine_add(b->engine, &p);
    opd_buf_release(p.tokens.buf);
    return err;
}

TEST(what_cannot_be_continued_is_refused) {
    static const opd_sampling one = {.temperature = 1, .top_p = 1};
    static const opd_sampling bad[] = {{.temperature = -1, .top_p = 1}, {.temperature = NAN, .top_p = 1},
                                       {.temperature = INFINITY, .top_p = 1},
                                       {.temperature = 1, .top_p = 0}, {.temperature = 1, .top_p = 1.5f},
                                       {.temperature = 1, .top_p = NAN},
                                       {.temperature = 1, .top_p = 1, .top_k = -1}};
    bench b;
    int32_t ids[MAX_LEN] = {1, 2, 3};
    bench_up(&b, 2, 2);
    CHECK_ERR(add_bad(&b, ids, 0, 1, 1, one), OPD_ERR_INVALID);
    CHECK_ERR(add_bad(&b, ids, 3, 0, 1, one), OPD_ERR_INVALID);
    CHECK_ERR(add_bad(&b, ids, 3, 1, 0, one), OPD_ERR_INVALID);
    CHECK_ERR(add_bad(&b, ids, MAX_LEN, 1, 1, one), OPD_ERR_INVALID);
    for (size_t i = 0; i < OPD_COUNTOF(bad); i++)
        CHECK_ERR(add_bad(&b, ids, 3, 1, 1, bad[i]), OPD_ERR_INVALID);
    ids[1] = VOCAB;
    CHECK_ERR(add_bad(&b, ids, 3, 1, 1, one), OPD_ERR_INVALID);
    ids[1] = -1;
    CHECK_ERR(add_bad(&b, ids, 3, 1, 1, one), OPD_ERR_INVALID);
    ids[1] = 0;
    CHECK_OK(add_bad(&b, ids, MAX_LEN - 1, 1, 5, one)); /* room for one token */
    CHECK_OK(add_bad(&b, ids, 1, 1, 5, one));
    CHECK_ERR(add_bad(&b, ids, 1, 1, 5, one), OPD_ERR_AGAIN);
    CHECK_INT(opd_engine_prompts(b.engine), 2);
    bench_down(&b); /* with prompts inside */
}

TEST(destroy_in_the_middle_and_no_memory_leak_nothing) {
    opd_model *model = tiny_model(VOCAB, EOS, 5);
    opd_kernels *kernels = tiny_kernels(1);
    opd_test_alloc memory;
    opd_engine *engine = NULL;
    opd_engine_options options = {.model = &model->config, .kernels = kernels, .slots = 2,
                                  .max_len = MAX_LEN, .prompts_max = 3, .alloc = &memory.alloc};
    long n = 1;
    for (;; n++) {
        opd_test_alloc_failing(&memory, n, false);
        opd_err err = opd_engine_create(&options, &engine);
        if (err == OPD_OK) break;
        CHECK_INT(err, OPD_ERR_NOMEM);
        CHECK_INT(memory.live, 0);
        CHECK(n < 200);
    }
    CHECK(n > 15);
    opd_engine_destroy(engine);
    CHECK_INT(memory.live, 0);
    opd_engine_destroy(NULL);
    opd_kernels_destroy(kernels);
    opd_model_destroy(model);
    bench b;
    bench_up(&b, 2, PROMPTS);
    opd_engine_offer(b.engine, b.weights, 1);
    add_simple(&b, 0, 5, 30, 0);
    add_simple(&b, 1, 5, 30, 0);
    CHECK(step(&b));
    CHECK(opd_engine_plan(b.engine));
    bench_down(&b);
}
