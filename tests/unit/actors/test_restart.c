/* test_restart.c - whole stages whose actors are made to fail at a chosen message: what is trained
 * is the same as without, bit for bit. The production pipeline with a real (tiny) model runs in
 * the simulated world, so that each case has its order of events by its seed. */
#include <fcntl.h>
#include <unistd.h>

#include "actors/pipeline.h"
#include "core/base/check.h"
#include "core/base/file.h"
#include "core/base/str.h"
#include "opd/log.h"
#include "opd/sim.h"
#include "tests/support/folder.h"
#include "tests/support/test.h"

enum { STEPS = 6, PATH = 256, TEXT_MAX = 1 << 20, CRASHES_MAX = 4 };

/* ---- files ----------------------------------------------------------------------------- */

typedef struct files {
    char dir[64], data[PATH], held_out[PATH], teacher[PATH], checkpoints[PATH];
    char metrics[PATH], screen[PATH];
} files;

static void write_problems(const char *path, int first, int count) {
    opd_str text;
    opd_str_init(&text, NULL, TEXT_MAX);
    for (int i = first; i < first + count; i++)
        opd_str_printf(&text, "{\"prompt\": \"%d+%d=\", \"label\": \"%d\", \"response\": \"%d\"}\n", i,
                       i, 2 * i, 2 * i);
    CHECK_OK(opd_file_write_atomic(path, text.data, text.size));
    opd_str_fini(&text);
}

static void write_teacher(const char *dir) {
    opd_model_config config = {.vocab_size = 259, .hidden_size = 16, .intermediate_size = 24,
                               .layers = 1, .heads = 2, .kv_heads = 1, .head_dim = 8,
                               .max_position = 64, .rope_theta = 1e4, .rms_eps = 1e-5,
                               .tie_embeddings = true, .bos_id = 1, .eos_id = 2, .pad_id = 0};
    CHECK_OK(folder_write_model(dir, &config));
}

static void files_open(files *f) {
    (void)snprintf(f->dir, sizeof f->dir, "/tmp/opd-restart-XXXXXX");
    CHECK(mkdtemp(f->dir) != NULL);
    CHECK_OK(opd_path_join(f->data, PATH, f->dir, "data.jsonl"));
    CHECK_OK(opd_path_join(f->held_out, PATH, f->dir, "held-out.jsonl"));
    CHECK_OK(opd_path_join(f->teacher, PATH, f->dir, "teacher"));
    CHECK_OK(opd_path_join(f->checkpoints, PATH, f->dir, "checkpoints"));
    CHECK_OK(opd_path_join(f->metrics, PATH, f->dir, "metrics.jsonl"));
    CHECK_OK(opd_path_join(f->screen, PATH, f->dir, "screen"));
    write_problems(f->data, 0, 9);
    write_problems(f->held_out, 50, 3);
    write_teacher(f->teacher);
}

/* ---- a stage with its crashes ---------------------------------------------------------- */

/* An actor fails while it handles its message number `at` (all its lives counted together). */
typedef struct crash {
    const char *name;
    int at;
} crash;

typedef struct stage {
    uint64_t seed;
    bool sft;
    int staleness;
    crash crashes[CRASHES_MAX];
    int seen[CRASHES_MAX]; /* messages of that actor so far */
    /* the result */
    opd_trainer_outcome outcome;
    float *weights;
    size_t param_count;
    char *metrics, *screen;
    char text[512];
    int unanswered; /* problems of an evaluation */
} stage;

/* An answer that got lost would count as wrong; this model's are wrong anyhow. */
static void log_line(void *arg, opd_log_level level, const char *text) {
    stage *s = arg;
    (void)level;
    if (strstr(text, "got no answer") != NULL) s->unanswered++;
}

static bool strikes(void *arg, opd_fault site, const char *name) {
    stage *s = arg;
    bool now = false;
    if (site != OPD_FAULT_ACTOR_CRASH) return false;
    for (int i = 0; i < CRASHES_MAX && s->crashes[i].name != NULL; i++)
        if (strcmp(s->crashes[i].name, name) == 0) now = ++s->seen[i] == s->crashes[i].at || now;
    return now;
}

/* Most answers of a model that was never trained are wrong: groups are dropped, and the bound is met. */
static bool filtered;
static int over_sampling; /* prompts in work for a batch of 2; 0: as many */

static opd_config *load(const stage *s, const files *f) {
    char yaml[2048], filter[128] = "";
    opd_config *config;
    if (filtered)
        (void)snprintf(filter, sizeof filter, ", filter: zero_std, filter_max_dropped: %d, over_sampling_prompts: %d",
                       over_sampling > 0 ? 3 : 2, over_sampling > 0 ? over_sampling : 2);
    int size = snprintf(yaml, sizeof yaml,
        "run: {kind: %s, seed: 3, metrics_interval: 1, samples_interval: 3}\n"
        "model: {init: {hidden_size: 16, intermediate_size: 24, layers: 1, heads: 2, "
        "max_position: 64}}\n"
        "data: {path: %s}\n"
        "train: {steps: %d, lr: 0.01, save_interval: 2, keep: 2, batch_size: 2}\n"
        "eval: {path: %s, interval: 3, at_start: true, at_end: true, samples: 2, "
        "max_response_len: 4}\n", s->sft ? "sft" : "rl", f->data, STEPS, f->held_out);
    if (!s->sft)
        size += snprintf(yaml + size, sizeof yaml - (size_t)size,
            "rollout: {batch_prompts: 2, samples_per_prompt: 2, max_response_len: 6, "
            "max_staleness: %d, slots: 3%s}\n"
            "reward: {type: math}\n"
            "opd: {enabled: true, type: megatron, log_prob_top_k: 2}\n"
            "teachers: {t: {path: %s}}\n", s->staleness,
            filter, f->teacher);
    CHECK(size > 0 && (size_t)size < sizeof yaml);
    CHECK_OK(opd_config_load_text(NULL, "restart.yaml", yaml, (size_t)size, NULL, &config));
    return config;
}

static char *read_text(const char *path) {
    char *text;
    size_t size;
    CHECK_OK(opd_file_read(NULL, path, TEXT_MAX, &text, &size));
    return text;
}

static opd_err run_on(stage *s, const files *f, opd_sim *sim, opd_assets *assets) {
    opd_env *env;
    int flags = O_WRONLY | O_CREAT | O_APPEND;
    int metrics_fd = open(f->metrics, flags, 0600), screen_fd = open(f->screen, flags, 0600);
    CHECK(metrics_fd >= 0 && screen_fd >= 0);
    CHECK_OK(opd_sim_env(sim, "main", &env));
    opd_pipeline_options options = {
        .assets = assets, .checkpoint_dir = f->checkpoints, .program = "opd",
        .metrics_fd = metrics_fd, .samples_fd = -1, .screen_fd = screen_fd, .env = env};
    opd_err err = opd_pipeline_execute(&options, &s->outcome);
    (void)snprintf(s->text, sizeof s->text, "%s", err == OPD_OK ? "" : opd_err_context());
    CHECK_OK(opd_env_destroy(env));
    close(metrics_fd);
    close(screen_fd);
    return err;
}

static opd_err stage_run(stage *s) {
    files f;
    files_open(&f);
    opd_log_sink_set(log_line, s);
    opd_config *config = load(s, &f);
    opd_sim_options options = {.faults = 1 << OPD_FAULT_ACTOR_CRASH, .fault_one_in = 1,
                               .faults_all_armed = true, .fault_allowed = strikes, .fault_arg = s,
                               .time_max_ns = (uint64_t)3600 * 1000000000};
    opd_sim *sim;
    opd_assets assets;
    CHECK_OK(opd_sim_create(s->seed, &options, &sim));
    CHECK_OK(opd_assets_open(&assets, &config->stages[0], f.checkpoints, false, NULL,
                             opd_sim_alloc(sim)));
    opd_err err = run_on(s, &f, sim, &assets);
    s->param_count = assets.model->param_count;
    s->weights = malloc(s->param_count * sizeof *s->weights);
    memcpy(s->weights, assets.model->params, s->param_count * sizeof *s->weights);
    opd_assets_close(&assets);
    CHECK_INT(opd_sim_stats_get(sim).live_blocks, 0);
    opd_sim_destroy(sim);
    opd_config_destroy(config);
    s->metrics = read_text(f.metrics);
    s->screen = read_text(f.screen);
    folder_remove(f.dir);
    opd_log_sink_set(NULL, NULL);
    return err;
}

static void stage_free(stage *s) {
    free(s->weights);
    opd_mem_free(NULL, s->metrics);
    opd_mem_free(NULL, s->screen);
}

/* Each step was reported once, and the next step follows. */
static void check_steps(const stage *s) {
    const char *at = s->metrics;
    for (int step = 1; step <= STEPS; step++) {
        char key[64];
        (void)snprintf(key, sizeof key, "\"train/step\":%d,\"rollout/", step);
        if (s->sft) (void)snprintf(key, sizeof key, "\"train/step\":%d,\"train/", step);
        const char *found = strstr(s->metrics, key);
        if (found == NULL) opd_test_fail(__FILE__, __LINE__, "%s not in %s", key, s->metrics);
        CHECK(found >= at && strstr(found + 1, key) == NULL);
        at = found;
    }
}

static void check_same(const stage *s, const stage *plain) {
    const opd_trainer_outcome *a = &s->outcome, *b = &plain->outcome;
    CHECK(a->finished);
    CHECK_INT(a->version, STEPS);
    CHECK_INT(a->samples, b->samples);
    CHECK_INT(a->response_tokens, b->response_tokens);
    CHECK_INT(a->invalid_tokens, 0);
    CHECK_INT(a->before_correct, b->before_correct);
    CHECK(a->sets[0].after.accuracy.accuracy == b->sets[0].after.accuracy.accuracy);
    CHECK_INT(a->sets[0].after.accuracy.n, 6);
    CHECK_INT(s->unanswered, 0);
    if (memcmp(s->weights, plain->weights, s->param_count * sizeof *s->weights) != 0)
        opd_test_fail(__FILE__, __LINE__, "other weights: %s at %d, seed %d", s->crashes[0].name,
                      s->crashes[0].at, (int)s->seed);
}

/* One crash of that actor at each of the messages: it happens, is cured, and changes nothing. */
static void crash_at(const char *name, bool sft, const int *at, size_t count) {
    stage plain = {.sft = sft};
    CHECK_OK(stage_run(&plain));
    CHECK_INT(plain.outcome.restarts, 0);
    check_steps(&plain);
    for (size_t i = 0; i < count; i++) {
        stage s = {.sft = sft, .seed = i, .crashes = {{name, at[i]}}};
        CHECK_OK(stage_run(&s));
        CHECK_INT(s.outcome.restarts, 1);
        check_same(&s, &plain);
        if (strcmp(name, "monitor") != 0) check_steps(&s);
        stage_free(&s);
    }
    stage_free(&plain);
}

#define CRASH_AT(name, sft, ...) \
    crash_at((name), (sft), (const int[]){__VA_ARGS__}, sizeof((const int[]){__VA_ARGS__}) / sizeof(int))

/* ---- the data plane -------------------------------------------------------------------- */

TEST(a_failed_reward_changes_nothing) { CRASH_AT("reward", false, 1, 2, 4, 5, 11, 24); }

TEST(a_failed_rollout_changes_nothing) { CRASH_AT("rollout", false, 1, 4, 7, 9, 14, 20); }

TEST(a_failed_batcher_changes_nothing) { CRASH_AT("batcher", false, 1, 3, 12, 13, 30, 72); }

TEST(a_failed_panel_changes_nothing) { CRASH_AT("panel", false, 1, 3, 8, 17, 23); }

TEST(a_failed_scorer_changes_nothing) { CRASH_AT("scorer", false, 1, 2, 9, 16, 24); }

TEST(a_failed_dataset_changes_nothing) { CRASH_AT("dataset", false, 1, 2, 4, 6); }

TEST(with_a_filter_a_failed_data_plane_changes_nothing) {
    filtered = true;
    CRASH_AT("batcher", false, 1, 3, 12, 13, 30, 72, 100);
    CRASH_AT("rollout", false, 4, 14, 33);
    CRASH_AT("dataset", false, 2, 5, 9);
}

TEST(with_over_sampling_a_failed_batcher_changes_nothing) {
    filtered = true;
    over_sampling = 5;
    CRASH_AT("batcher", false, 3, 30, 72, 100, 130);
}

TEST(with_over_sampling_a_failed_data_plane_changes_nothing) {
    filtered = true;
    over_sampling = 5;
    CRASH_AT("rollout", false, 4, 15, 33);
    CRASH_AT("dataset", false, 2, 3, 9);
}

/* Any number of prompts that stand by: the same weights, and the same groups taken. */
TEST(over_sampling_changes_nothing_but_the_time) {
    stage plain = {.seed = 1};
    filtered = true;
    over_sampling = 2; /* as many as the batch has */
    CHECK_OK(stage_run(&plain));
    for (over_sampling = 3; over_sampling < 9; over_sampling++) {
        stage s = {.seed = (uint64_t)over_sampling};
        CHECK_OK(stage_run(&s));
        check_same(&s, &plain);
        check_steps(&s);
        CHECK_INT(s.outcome.groups_taken, plain.outcome.groups_taken);
        CHECK_INT(s.outcome.samples, plain.outcome.samples);
        stage_free(&s);
    }
    CHECK(plain.outcome.groups_taken > 2 * STEPS); /* something was replaced */
    stage_free(&plain);
}

/* Its first messages are the question and the answers of the evaluation before the first step. */
TEST(a_failed_evaluator_changes_nothing) { CRASH_AT("evaluator", false, 1, 2, 5, 7, 8, 12); }

TEST(in_sft_a_failed_data_plane_changes_nothing) {
    CRASH_AT("rollout", true, 1, 3, 8);
    CRASH_AT("evaluator", true, 1, 6, 9);
}

/* ---- services -------------------------------------------------------------------------- */

/* SAVE is asked again. */
TEST(a_failed_checkpoint_changes_nothing) { CRASH_AT("checkpoint", false, 1, 2, 3); }

TEST(a_failed_monitor_changes_nothing) { CRASH_AT("monitor", false, 1, 3, 7); }

/* ---- more than one, and too many ------------------------------------------------------- */

TEST(three_failures_in_a_run_change_nothing) {
    stage plain = {.seed = 1};
    CHECK_OK(stage_run(&plain));
    for (uint64_t seed = 0; seed < 8; seed++) {
        stage s = {.seed = seed, .crashes = {{"reward", 3 + (int)seed},
                                             {"rollout", 9 + 2 * (int)seed},
                                             {"batcher", 40 + (int)seed}}};
        CHECK_OK(stage_run(&s));
        CHECK(s.outcome.restarts >= 2 && s.outcome.restarts <= 3);
        check_same(&s, &plain);
        stage_free(&s);
    }
    stage_free(&plain);
}

/* With staleness the redone samples may be of newer weights; the bound on the lag holds, and every
 * group is trained once. */
TEST(with_staleness_a_restart_keeps_the_bound_and_the_count) {
    for (uint64_t seed = 0; seed < 8; seed++) {
        stage s = {.seed = seed, .staleness = 2, .crashes = {{"panel", 5 + 2 * (int)seed}}};
        CHECK_OK(stage_run(&s));
        CHECK(s.outcome.finished && s.outcome.restarts == 1);
        CHECK_INT(s.outcome.samples, STEPS * 2 * 2);
        check_steps(&s);
        int steps = 0;
        const char *key = "\"rollout/lag_max\":";
        for (const char *at = s.metrics; (at = strstr(at, key)) != NULL; at++, steps++)
            CHECK(strtod(at + strlen(key), NULL) <= 2);
        CHECK_INT(steps, STEPS);
        stage_free(&s);
    }
}

TEST(the_person_sees_a_restart_and_the_metrics_count_it) {
    stage s = {.crashes = {{"reward", 6}}};
    CHECK_OK(stage_run(&s));
    CHECK_CONTAINS(s.screen, "reward failed: ");
    CHECK_CONTAINS(s.screen, "; the data plane starts again (1 of 3 in 30 s)");
    CHECK_CONTAINS(s.metrics, "\"run/restarts\":0");
    CHECK_CONTAINS(s.metrics, "\"run/restarts\":1");
    stage_free(&s);
    stage c = {.crashes = {{"checkpoint", 1}}};
    CHECK_OK(stage_run(&c));
    CHECK_CONTAINS(c.screen, "checkpoint failed: ");
    CHECK_CONTAINS(c.screen, "; it starts again (1 of 3 in 30 s)");
    stage_free(&c);
}

TEST(a_data_plane_that_fails_too_often_ends_the_run_and_keeps_what_was_learnt) {
    stage s = {.crashes = {{"reward", 9}, {"reward", 10}, {"reward", 11}, {"reward", 12}}};
    CHECK_ERR(stage_run(&s), OPD_ERR_REMOTE);
    CHECK_CONTAINS(s.text, "run > dataplane > reward failed 4 times within 30 s: ");
    CHECK(!s.outcome.finished);
    CHECK_INT(s.outcome.version, 2); /* eight samples made two batches */
    CHECK_INT(s.outcome.restarts, 3);
    stage_free(&s);
}

TEST(a_failed_trainer_ends_the_run) {
    stage s = {.crashes = {{"trainer", 7}}};
    CHECK_ERR(stage_run(&s), OPD_ERR_REMOTE);
    CHECK(!s.outcome.finished);
    CHECK_INT(s.outcome.restarts, 0);
    stage_free(&s);
}
