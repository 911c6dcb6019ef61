/* test_torture_pipeline.c - the whole pipeline with every allocation failing in turn: first only
 * opened and closed, then run to its end on a simulated node with the stub model. A run that
 * was refused memory either copes or ends with that error, in order, with nothing left. */
#include <fcntl.h>
#include <unistd.h>

#include "actors/pipeline.h"
#include "core/base/check.h"
#include "opd/config.h"
#include "opd/sim.h"
#include "tests/sim/sim_case.h"
#include "tests/sim/stub_model.h"
#include "tests/support/test.h"
#include "tests/torture/torture.h"

static const uint64_t NO_MEMORY = TORTURE_ERR(OPD_ERR_NOMEM);

typedef struct stage {
    sim_files files;
    opd_config *config;
    bool run;    /* else: open, then close */
    bool resume; /* go on from the newest checkpoint; else begin, and leave nothing */
    int failed;  /* runs that ended with an error */
} stage;

/* In-process teacher, reward, evaluations and checkpoints: every role of one machine. */
static void stage_up(stage *s, bool run) {
    char text[2048];
    *s = (stage){.run = run};
    sim_files_open(&s->files);
    (void)snprintf(text, sizeof text,
                   "run: {seed: 3, metrics_interval: 1, samples_interval: 1}\n"
                   "model: {init: {hidden_size: 2, intermediate_size: 1, layers: 1, heads: 1, "
                   "max_position: 64}}\n"
                   "data: {path: %s, limit: 4}\n"
                   "rollout: {batch_prompts: 2, samples_per_prompt: 2, max_response_len: 4, "
                   "slots: 4}\n"
                   "reward: {type: math}\n"
                   "opd: {enabled: true, type: megatron, log_prob_top_k: 2}\n"
                   "teachers:\n  t: {path: %s}\n"
                   "train: {steps: 2, lr: 0.01, save_interval: 1, keep: 1}\n"
                   "eval: {path: %s, limit: 2, at_start: true, at_end: true}\n",
                   s->files.problems, s->files.teacher, s->files.held_out);
    CHECK_OK(opd_config_load_text(NULL, "t.yaml", text, strlen(text), NULL, &s->config));
}

static void stage_down(stage *s) {
    opd_config_destroy(s->config);
    sim_files_close(&s->files);
}

static bool is_over(void *arg) {
    return opd_system_stats_get(opd_pipeline_system(arg)).actors == 0;
}

static opd_err run_world(opd_sim *sim, opd_pipeline *pipeline) {
    opd_system *system = opd_pipeline_system(pipeline);
    char text[512];
    opd_system_begin(system);
    opd_err err = opd_sim_run(sim, OPD_SIM_FOREVER, is_over, pipeline);
    (void)snprintf(text, sizeof text, "%s", opd_err_context());
    opd_err ended = opd_system_end(system);
    return err == OPD_OK ? ended : opd_fail(err, "%s", text);
}

static opd_err with_assets(stage *s, opd_sim *sim, opd_env *env, opd_assets *assets) {
    const opd_checkpoint_state *before = &assets->resumed;
    opd_trainer_outcome outcome = {.samples = before->samples,
                                   .has_before = before->before_total > 0,
                                   .before_total = before->before_total};
    opd_pipeline *pipeline = NULL;
    opd_pipeline_options options = {.assets = assets, .checkpoint_dir = s->files.checkpoints,
                                    .program = "opd", .metrics_fd = -1, .samples_fd = -1,
                                    .screen_fd = -1, .env = env};
    OPD_TRY(opd_pipeline_open(&options, &outcome, &pipeline));
    opd_err err = s->run ? run_world(sim, pipeline) : OPD_OK;
    err = opd_pipeline_close(pipeline, err);
    if (err == OPD_OK && s->run) CHECK(outcome.finished);
    return err;
}

static opd_err live(const opd_alloc *alloc, void *arg) {
    stage *s = arg;
    opd_sim *sim = NULL;
    opd_env *env = NULL;
    opd_assets assets;
    char text[1024] = "";
    opd_sim_options options = {.time_max_ns = UINT64_C(3600) * 1000000000};
    CHECK_OK(opd_sim_create(1, &options, &sim)); /* the world itself is not on trial */
    CHECK_OK(opd_sim_env(sim, "main", &env));
    opd_err err = opd_assets_open(&assets, &s->config->stages[0], s->files.checkpoints, s->resume,
                                  &stub_lm, alloc);
    if (err == OPD_OK) {
        err = with_assets(s, sim, env, &assets);
        (void)snprintf(text, sizeof text, "%s", opd_err_context());
        opd_assets_close(&assets);
    } else {
        (void)snprintf(text, sizeof text, "%s", opd_err_context());
    }
    CHECK_OK(opd_env_destroy(env));
    opd_sim_destroy(sim);
    if (alloc != NULL) sim_files_clear(&s->files);
    return err == OPD_OK ? OPD_OK : opd_fail(err, "%s", text);
}

TEST(opened_and_closed_without_memory) {
    stage s;
    stage_up(&s, false);
    torture_alloc(live, &s, NO_MEMORY);
    stage_down(&s);
}

/* After a run that could not write comes another, as with --resume: it finishes the stage, from
 * the newest checkpoint if there is one. */
static void go_on(void *arg, opd_err err) {
    stage *s = arg;
    if (err != OPD_OK) {
        s->failed++;
        s->resume = true;
        CHECK_OK(live(NULL, s));
        s->resume = false;
    }
    sim_files_clear(&s->files);
}

TEST(run_on_a_failing_disk_and_resumed) {
    stage s;
    stage_up(&s, true);
    torture_files(live, go_on, &s, TORTURE_ERR(OPD_ERR_IO) | TORTURE_ERR(OPD_ERR_DISK));
    CHECK(s.failed > 10); /* checkpoints are no luxury: a run that cannot save stops */
    stage_down(&s);
}

TEST(run_without_memory) {
    stage s;
    stage_up(&s, true);
    torture_alloc(live, &s, NO_MEMORY);
    stage_down(&s);
}
