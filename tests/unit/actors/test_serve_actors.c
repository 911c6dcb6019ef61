/* test_serve_actors.c - a tiny random model behind the real server: its scores, over HTTP and
 * in-process, are those of the graph, and its routes answer as they should. */
#include "core/base/check.h"
#include "tests/unit/actors/serve_rig.h"

/* exact: bit for bit; else within what one reading of a decimal text may move. */
static void check_against_graph(const serve_rig *s, float temperature, bool exact) {
    CHECK_INT(s->rig.got, SERVE_COUNT);
    for (int g = 0; g < SERVE_COUNT; g++) {
        float logp[SERVE_RESPONSE];
        int32_t topk[SERVE_RESPONSE * SERVE_TOP_K];
        const rig_sample *sample = &s->rig.scores[g];
        serve_direct(s, g, temperature, logp, topk);
        CHECK_STR(sample->reason, "");
        CHECK(sample->scored);
        for (int i = 0; i < SERVE_RESPONSE; i++) {
            CHECK_INT(sample->valid[i], 1);
            CHECK(fabsf(sample->logp[i] - logp[i]) <= (exact ? 0 : 1.2e-7f * fabsf(logp[i])));
        }
        CHECK(memcmp(sample->topk, topk, sizeof topk) == 0);
    }
}

static void score_over_http(double temperature) {
    static serve_rig s;
    serve_up(&s, SERVE_COUNT, NULL);
    opd_teacher_http_config config = serve_teacher(&s, temperature);
    rig_teacher(&s.rig, &config);
    rig_feed(&s.rig);
    CHECK_OK(rig_run(&s.rig));
    check_against_graph(&s, (float)temperature, false);
    serve_down(&s);
}

TEST(scores_over_http_are_the_graphs) { score_over_http(1); }

TEST(scores_over_http_at_a_temperature) { score_over_http(0.5); }

TEST(scores_in_process_are_the_graphs) {
    static serve_rig s;
    serve_up(&s, SERVE_COUNT, NULL);
    rig_stage_add(&s.rig, &(opd_config_teacher){.name = "tutor", .deadline_s = 30});
    rig_panel(&s.rig, "tiny", SERVE_TOP_K, 0.5);
    rig_feed(&s.rig);
    CHECK_OK(rig_run(&s.rig));
    check_against_graph(&s, 0.5f, true);
    serve_down(&s);
}

/* ---- routes ---- */

typedef struct request {
    const char *method, *path, *body;
    int status;
    const char *part; /* of the answer */
} request;

/* An actor that makes requests one after another and then stops the system. */
typedef struct visitor {
    const char *url;
    rig *rig;
    const request *requests;
    int count, at;
    opd_http_client *client;
    opd_http_call call;
    opd_buf *body;
    opd_ctx *ctx;
} visitor;

static void visitor_closed(void *arg) {
    visitor *v = arg;
    opd_exit(v->ctx, OPD_OK);
}

static void visitor_next(visitor *v);

static void visitor_done(opd_http_call *call) {
    visitor *v = call->arg;
    const request *r = &v->requests[v->at++];
    if (call->err != OPD_OK) opd_test_fail(__FILE__, __LINE__, "%s: %s", r->path, call->error);
    if (call->status != r->status)
        opd_test_fail(__FILE__, __LINE__, "%s %s %s: %d %s", r->method, r->path,
                      r->body ? r->body : "", call->status, call->answer.data);
    if (r->part != NULL) CHECK_CONTAINS(call->answer.data, r->part);
    if (call->status == 503) CHECK_STR(opd_http_call_header(call, "retry-after"), "1");
    opd_http_call_fini(call);
    opd_buf_release(v->body);
    v->body = NULL;
    visitor_next(v);
}

static void visitor_next(visitor *v) {
    if (v->at == v->count) {
        opd_system_stop(opd_self_system(v->ctx), OPD_OK);
        return;
    }
    const request *r = &v->requests[v->at];
    v->call = (opd_http_call){.method = r->method, .path = r->path, .done = visitor_done, .arg = v};
    if (r->body != NULL) {
        opd_slice slice;
        CHECK_OK(opd_slice_copy(&v->rig->t.memory.alloc, r->body, strlen(r->body), &slice));
        v->body = slice.buf;
        v->call.body = slice;
    }
    CHECK_OK(opd_http_client_send(v->client, &v->call));
}

static opd_err visitor_start(opd_ctx *ctx, void *state, const void *config) {
    visitor *v = state;
    *v = *(const visitor *)config;
    v->ctx = ctx;
    opd_http_client_options options = {.alloc = &v->rig->t.memory.alloc, .env = v->rig->t.env,
                                       .url = v->url};
    OPD_TRY(opd_http_client_create(&options, &v->client));
    visitor_next(v);
    return OPD_OK;
}

static opd_err visitor_signal(opd_ctx *ctx, void *state, const opd_signal *signal) {
    visitor *v = state;
    if (signal->kind != OPD_SIGNAL_STOP) return OPD_OK;
    opd_http_client_close(v->client, visitor_closed, v);
    opd_stop_defer(ctx);
    return OPD_OK;
}

static const opd_actor_class visitor_class = {.name = "visitor", .state_size = sizeof(visitor),
                                              .on_start = visitor_start,
                                              .on_signal = visitor_signal};

static void visit(const request *requests, int count) {
    static serve_rig s;
    opd_pid pid;
    serve_up(&s, 0, NULL);
    visitor v = {.url = s.url, .rig = &s.rig, .requests = requests, .count = count};
    CHECK_OK(opd_spawn(s.rig.t.system, &visitor_class, NULL, &v, &pid));
    CHECK_OK(rig_run(&s.rig));
    serve_down(&s);
}

TEST(simple_routes) {
    static const request requests[] = {
        {"GET", "/model_info", NULL, 200, "\"vocab_size\":50"},
        {"GET", "/model_info", NULL, 200, "\"scores_at_temperature\":true"},
        {"GET", "/server_info?x=1", NULL, 200, "\"server\":\"opd\""},
        {"GET", "/health", NULL, 200, NULL},
        {"GET", "/health_generate", NULL, 200, NULL},
        {"GET", "/nowhere", NULL, 404, "{\"error\":{\"message\""},
        {"GET", "/generate", NULL, 405, "{\"error\":{\"message\""},
        {"POST", "/abort_request", "{\"rid\": \"nobody\"}", 200, NULL},
        {"POST", "/abort_request", "{}", 400, "rid"},
    };
    visit(requests, (int)OPD_COUNTOF(requests));
}

/* A text that was scored costs only its new tokens, but is read from the first score on. */
TEST(the_beginning_of_a_text_is_cached) {
#define SCORE_OF(ids, start)                                                             \
    "{\"input_ids\": [" ids "], \"sampling_params\": {\"max_new_tokens\": 0}, "             \
    "\"return_logprob\": true, \"logprob_start_len\": " start "}"
    static const request requests[] = {
        {"POST", "/generate", SCORE_OF("1,5,9,3,7,8", "0"), 200, "\"cached_tokens\":0"},
        {"POST", "/generate", SCORE_OF("1,5,9,3,7,8,4,4", "5"), 200, "\"cached_tokens\":5"},
        {"POST", "/generate", SCORE_OF("1,5,9,3,7,8,4,4", "2"), 200, "\"cached_tokens\":2"},
        {"POST", "/generate", SCORE_OF("1,5,9,6,6,6,6,6", "6"), 200, "\"cached_tokens\":3"},
        {"POST", "/generate", SCORE_OF("2,5,9,6,6,6,6,6", "6"), 200, "\"cached_tokens\":0"},
    };
#undef SCORE_OF
    visit(requests, (int)OPD_COUNTOF(requests));
}

TEST(bad_requests_are_named) {
    static const request requests[] = {
        {"POST", "/generate", "nonsense", 400, "error"},
        {"POST", "/generate", "{\"input_ids\": []}", 400, "error"},
        {"POST", "/generate", "{\"input_ids\": [1, 99]}", 400, "error"},
        {"POST", "/generate", "{\"text\": \"hello\"}", 400, "error"}, /* no tokenizer here */
        {"POST", "/generate", "{\"input_ids\": [1], \"sampling_params\": {\"max_new_tokens\": 1, "
         "\"min_new_tokens\": 1}}",
         400, "min_new_tokens"},
        {"POST", "/generate", "{\"input_ids\": [1], \"sampling_params\": {\"max_new_tokens\": 1, "
         "\"stop\": \"x\"}}", 400,
         "stop strings"},
        {"POST", "/generate", "{\"input_ids\": [1], \"sampling_params\": {\"max_new_tokens\": 99}}",
         400, "context"},
    };
    visit(requests, (int)OPD_COUNTOF(requests));
}

TEST(generation_and_scores_together) {
    static const request requests[] = {
        {"POST", "/generate",
         "{\"input_ids\": [1, 5, 9], \"sampling_params\": {\"max_new_tokens\": 4, "
         "\"temperature\": 0}, \"return_logprob\": true, \"logprob_start_len\": 0}",
         200, "\"input_token_logprobs\":[[null,1,null],["},
        {"PUT", "/generate",
         "{\"input_ids\": [[1, 5, 9], [1, 7]], \"sampling_params\": {\"max_new_tokens\": 3}}", 200,
         "[{"},
        {"POST", "/generate",
         "{\"input_ids\": [1, 5, 9], \"sampling_params\": {\"max_new_tokens\": 0}, "
         "\"return_logprob\": true, \"logprob_start_len\": 2}",
         200, "\"input_token_logprobs\":[[null,9,null]]"},
        {"POST", "/generate",
         "{\"input_ids\": [1, 5, 9], \"rid\": \"abc\", \"sampling_params\": {\"max_new_tokens\": 0}}",
         200, "\"id\":\"abc\""},
        {"POST", "/generate", /* past EOS, up to the whole context of 32 */
         "{\"input_ids\": [1, 5], \"sampling_params\": {\"max_new_tokens\": 30, "
         "\"temperature\": 2, \"sampling_seed\": 5, \"ignore_eos\": true}}",
         200, "\"type\":\"length\",\"length\":30"},
        {"POST", "/generate",
         "{\"input_ids\": [1, 5], \"sampling_params\": {\"max_new_tokens\": 20, \"temperature\": "
         "1.5, \"sampling_seed\": 3, \"stop_token_ids\": [3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]}}",
         200, "\"type\":\"stop\",\"matched\":"},
    };
    visit(requests, (int)OPD_COUNTOF(requests));
}
