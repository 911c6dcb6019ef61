/* soak.c - many samples through the pipeline with the stub model: memory must not grow.
 *
 * Usage: soak [SAMPLES]   (200,000)
 * The production pipeline on the real env, with its threads: dataset, rollout, a teacher in this
 * process, reward, batcher, trainer, checkpoint, monitor. Resident memory is read when the
 * trainer has learnt 20,000 samples (or a tenth) and after every later batch; prints one JSON
 * line; exit status 1 where its maximum is more than 2 MiB above the first.
 * Thread: the loop; the model's arithmetic on the lanes.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "actors/pipeline.h"
#include "opd/log.h"
#include "opd/tap.h"
#include "tests/sim/sim_case.h"
#include "tests/sim/stub_model.h"

enum { BATCH = 16, MEMBERS = 8, FIRST = 20000, GROWTH_KIB_MAX = 2048 };

typedef struct soak {
    uint64_t first; /* samples at which memory is read for the first time */
    uint64_t seen;  /* samples when it was read last */
    long rss_first_kib, rss_max_kib, rss_last_kib; /* max, last: from then on, while it runs */
    opd_trainer_outcome outcome;
    opd_tap tap;
} soak;

static long rss_kib(void) {
    long pages = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file == NULL || fscanf(file, "%ld %ld", &pages, &resident) != 2) resident = 0;
    if (file != NULL) (void)fclose(file);
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

static void on_record(void *arg, const opd_tap_record *record) {
    soak *s = arg;
    uint64_t samples = s->outcome.samples;
    if (record->kind != OPD_TAP_JOB_END || samples < s->first || samples == s->seen) return;
    s->seen = samples;
    s->rss_last_kib = rss_kib();
    if (s->rss_first_kib == 0) s->rss_first_kib = s->rss_last_kib;
    if (s->rss_last_kib > s->rss_max_kib) s->rss_max_kib = s->rss_last_kib;
}

static void watch(void *arg, opd_system *system) {
    soak *s = arg;
    s->tap = (opd_tap){.record = on_record, .arg = s};
    opd_tap_add(system, &s->tap);
}

static opd_config *configure(const sim_files *files, uint64_t samples) {
    char text[4096];
    opd_config *config;
    int size = snprintf(text, sizeof text,
        "run: {metrics_interval: 10, samples_interval: 100}\n"
        "model: {init: {hidden_size: 2, intermediate_size: 1, layers: 1, heads: 1, max_position: 64}}\n"
        "data: {path: %s}\n"
        "rollout: {batch_prompts: %d, samples_per_prompt: %d, max_response_len: 16, "
        "max_staleness: 1, slots: 64}\n"
        "opd: {enabled: true, type: megatron, log_prob_top_k: 4}\n"
        "teachers: {t: {path: %s}}\n"
        "train: {steps: %" PRIu64 ", lr: 0.001, save_interval: 100, keep: 1}\n",
        files->problems, BATCH, MEMBERS, files->teacher, (samples + BATCH * MEMBERS - 1) / (BATCH * MEMBERS));
    opd_err err = opd_config_load_text(NULL, "soak.yaml", text, (size_t)size, NULL, &config);
    if (err != OPD_OK) sim_die("configuration", err);
    return config;
}

static void run(soak *s, const sim_files *files, const opd_config_stage *stage) {
    opd_assets assets;
    int fd = open(files->metrics, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    opd_err err = opd_assets_open(&assets, stage, files->checkpoints, false, &stub_lm, NULL);
    if (err != OPD_OK) sim_die("assets", err);
    opd_pipeline_options options = {
        .assets = &assets, .checkpoint_dir = files->checkpoints, .program = "opd",
        .metrics_fd = fd, .samples_fd = fd, .screen_fd = -1, .watch = watch, .watch_arg = s};
    err = opd_pipeline_execute(&options, &s->outcome);
    if (err != OPD_OK) sim_die("run", err);
    opd_assets_close(&assets);
    (void)close(fd);
}

static void no_log(void *arg, opd_log_level level, const char *text) {
    (void)arg, (void)level, (void)text;
}

int main(int argc, char **argv) {
    uint64_t samples = argc > 1 ? strtoull(argv[1], NULL, 10) : 200000;
    soak s = {.first = samples >= 10 * FIRST ? FIRST : samples / 10};
    sim_files files;
    opd_log_sink_set(no_log, NULL);
    sim_files_open(&files);
    opd_config *config = configure(&files, samples);
    run(&s, &files, &config->stages[0]);
    long growth = s.rss_max_kib - s.rss_first_kib;
    opd_config_destroy(config);
    sim_files_close(&files);
    printf("{\"case\": \"soak\", \"samples\": %" PRIu64 ", \"first\": %" PRIu64
           ", \"rss_first_kib\": %ld, \"rss_end_kib\": %ld, \"rss_max_kib\": %ld, "
           "\"growth_kib\": %ld}\n", s.outcome.samples, s.first, s.rss_first_kib, s.rss_last_kib,
           s.rss_max_kib, growth);
    return growth <= GROWTH_KIB_MAX && s.rss_first_kib > 0 ? 0 : 1;
}
