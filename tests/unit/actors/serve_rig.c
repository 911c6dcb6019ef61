/* serve_rig.c - see serve_rig.h. */
#include "tests/unit/actors/serve_rig.h"

#include "actors/rollout/rollout_actor.h"
#include "actors/scorer/scorer_actor.h"
#include "actors/weights.h"
#include "models/graph.h"


static void spawn_model_actors(serve_rig *s) {
    opd_lane *scorer_lane, *rollout_lane;
    opd_buf *buf;
    opd_system *system = s->rig.t.system;
    CHECK_OK(opd_kernels_create_cpu(OPD_CPU_ISA_PLAIN, 1, NULL, &s->scorer_kernels));
    CHECK_OK(opd_kernels_create_cpu(OPD_CPU_ISA_PLAIN, 1, NULL, &s->rollout_kernels));
    CHECK_OK(opd_lane_open(system, "scorer", 2, &scorer_lane));
    CHECK_OK(opd_lane_open(system, "rollout", 2, &rollout_lane));
    CHECK_OK(opd_slot_create(system, &s->weights));
    CHECK_OK(opd_weights_buf(s->model, NULL, &buf));
    opd_slot_put(s->weights, buf, 1);
    opd_buf_release(buf);
    opd_scorer_config scorer = {.model = s->model, .lane = scorer_lane,
                                .kernels = s->scorer_kernels, .cache_bytes = 1 << 20,
                                .alloc = &s->rig.t.memory.alloc};
    CHECK_OK(opd_spawn(system, &opd_scorer_class, NULL, &scorer, &s->rig.roles.scorer));
    opd_rollout_config rollout = {.model = &s->model->config, .kernels = s->rollout_kernels,
                                  .lane = rollout_lane, .weights = s->weights,
                                  .roles = &s->rig.roles, .slots = 4, .max_len = 32,
                                  .requests_max = 8, .alloc = &s->rig.t.memory.alloc};
    CHECK_OK(opd_spawn(system, &opd_rollout_class, NULL, &rollout, &s->rig.roles.rollout));
}

void serve_start(serve_rig *s) {
    opd_pid pid;
    CHECK_OK(opd_spawn(s->rig.t.system, &opd_server_class, NULL, &s->server, &pid));
    (void)snprintf(s->url, sizeof s->url, "http://127.0.0.1:%u", s->port);
}

void serve_up(serve_rig *s, int count, const char *faults) {
    opd_model_config config = {.vocab_size = SERVE_VOCAB, .hidden_size = 16, .intermediate_size = 24,
                               .layers = 2, .heads = 4, .kv_heads = 2, .head_dim = 4,
                               .max_position = 32, .rope_theta = 10000, .rms_eps = 1e-6,
                               .tie_embeddings = true, .bos_id = 1, .eos_id = 2, .pad_id = 0};
    memset(s, 0, sizeof *s);
    rig_up(&s->rig, count, SERVE_PROMPT, SERVE_RESPONSE, SERVE_VOCAB);
    CHECK_OK(opd_model_create(&config, 7, NULL, &s->model));
    for (size_t i = 0; i < s->model->param_count; i++) s->model->params[i] *= 8; /* not flat */
    spawn_model_actors(s);
    s->server = (opd_server_config){.roles = &s->rig.roles, .env = s->rig.t.env,
                                    .alloc = &s->rig.t.memory.alloc, .model = &s->model->config,
                                    .model_path = "tiny", .out_port = &s->port};
    if (faults != NULL)
        CHECK_OK(opd_server_faults_read(NULL, "script", faults, strlen(faults), &s->server.faults));
    serve_start(s);
}

void serve_down(serve_rig *s) {
    opd_slot_destroy(s->weights);
    rig_down(&s->rig);
    opd_kernels_destroy(s->scorer_kernels);
    opd_kernels_destroy(s->rollout_kernels);
    opd_model_destroy(s->model);
    opd_server_faults_destroy(s->server.faults);
}

/* The graph's own scores of one sample. */
void serve_direct(const serve_rig *s, int group, float temperature, float logp[SERVE_RESPONSE],
                   int32_t topk[SERVE_RESPONSE * SERVE_TOP_K]) {
    int32_t ids[SERVE_PROMPT + SERVE_RESPONSE];
    size_t seq_start[2] = {0, SERVE_PROMPT + SERVE_RESPONSE};
    float topk_logp[SERVE_RESPONSE * SERVE_TOP_K];
    opd_score_row rows[SERVE_RESPONSE];
    opd_kernels *kernels;
    opd_graph *graph;
    for (uint32_t i = 0; i < SERVE_PROMPT + SERVE_RESPONSE; i++) ids[i] = rig_token(&s->rig, group, i);
    for (size_t i = 0; i < SERVE_RESPONSE; i++)
        rows[i] = (opd_score_row){SERVE_PROMPT - 1 + i, ids[SERVE_PROMPT + i],
                                  (float)(1.0 / (double)temperature)};
    CHECK_OK(opd_kernels_create_cpu(OPD_CPU_ISA_PLAIN, 1, NULL, &kernels));
    CHECK_OK(opd_graph_create(kernels, &s->model->config, OPD_GRAPH_SCORE, 32, NULL, &graph));
    opd_graph_set_weights(graph, s->model->params);
    opd_packed packed = {.seq_count = 1, .seq_start = seq_start, .tokens = ids};
    CHECK_OK(opd_graph_forward(graph, &packed));
    opd_scores out = {.logp = logp, .top_k = SERVE_TOP_K, .top_ids = topk, .top_logp = topk_logp};
    CHECK_OK(opd_graph_score(graph, rows, SERVE_RESPONSE, &out));
    opd_graph_destroy(graph);
    opd_kernels_destroy(kernels);
}

opd_teacher_http_config serve_teacher(serve_rig *s, double temperature) {
    s->teacher = (opd_config_teacher){
        .name = "tutor", .url = s->url, .path = "", .timeout_s = 5, .deadline_s = 30,
        .connect_timeout_s = 2, .max_inflight = 8, .retries = 3, .backoff_ms = 10,
        .backoff_max_ms = 50, .start_timeout_s = 5, .urls = "", .retry_budget = 0.2,
        .retry_min_per_s = 10};
    return (opd_teacher_http_config){
        .roles = &s->rig.roles, .env = s->rig.t.env, .alloc = &s->rig.t.memory.alloc,
        .teacher = &s->teacher, .teacher_lost_s = 20, .temperature = temperature, .top_k = SERVE_TOP_K,
        .vocab_size = SERVE_VOCAB, .bos_id = 1, .eos_id = 2, .tokenizer_hash = ""};
}
