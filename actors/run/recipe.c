/* recipe.c - `opd run`: the stages of a configuration, one after another (opd/run.h).
 *
 * Invariants: a stage runs only after all before it have their results in state.json, so a
 * resumed run skips exactly the finished ones; summary.json appears only when all are done.
 * Thread: the caller's; each stage runs its own loop on it. The recipe owns the run folder.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "actors/checkpoint/checkpoint.h"
#include "actors/dataset/arithmetic.h"
#include "actors/evaluator/stats.h"
#include "actors/monitor/screen.h"
#include "actors/pipeline.h"
#include "actors/run/folder.h"
#include "actors/run/measure.h"
#include "actors/run/memory.h"
#include "actors/run/result_json.h"
#include "actors/teacher/teacher_http.h"
#include "core/base/check.h"
#include "core/codec/json.h"
#include "core/env/env.h"
#include "opd/log.h"
#include "opd/run.h"

enum { SUMMARY_BYTES_MAX = 4 << 20 };

typedef struct recipe {
    const opd_run_options *o;
    opd_config *config;
    opd_run_folder folder;
    opd_screen screen;
    int screen_fd;
    char program[OPD_PATH_SIZE];
    char resolved[OPD_PATH_SIZE]; /* of the reference looked up last */
    opd_teacher_account accounts[OPD_CONFIG_TEACHERS_MAX]; /* of the present stage's teachers */
} recipe;

const char *opd_version(void) { return OPD_VERSION; }

static double seconds_now(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void say(const recipe *r, const char *text) {
    if (r->o->screen == NULL) return;
    (void)fputs(text, r->o->screen);
    (void)fflush(r->o->screen);
}

/* ---- stages ---- */

static void split_path(const recipe *r, const char *stage, const char *split, char *out) {
    (void)snprintf(out, OPD_PATH_SIZE, "%.*s/data/%s-%s.jsonl", OPD_PATH_SIZE - 160,
                   r->folder.path, stage, split);
}

/* @stages.NAME.RESULT: a checkpoint or a generated file of a finished stage. */
static opd_err resolve(void *arg, const char *stage, const char *result, const char **out_value) {
    recipe *r = arg;
    const opd_stage_result *done = opd_run_folder_result(&r->folder, stage);
    if (done == NULL)
        return opd_fail(OPD_ERR_CONFIG, "@stages.%s.%s: that stage has not run", stage, result);
    if (done->kind == OPD_CONFIG_KIND_ARITHMETIC)
        split_path(r, stage, result, r->resolved);
    else
        (void)snprintf(r->resolved, sizeof r->resolved, "%s",
                       strcmp(result, "best") == 0 ? done->best : done->checkpoint);
    if (r->resolved[0] == '\0')
        return opd_fail(OPD_ERR_CONFIG, "@stages.%s.%s: its evaluations did not measure train.keep_best; "
                        "give eval.interval or eval.at_end", stage, result);
    *out_value = r->resolved;
    return OPD_OK;
}

static opd_err run_arithmetic(recipe *r, const opd_config_stage *stage) {
    const opd_config_arithmetic *a = &stage->arithmetic;
    opd_arithmetic_split splits[OPD_CONFIG_SPLITS_MAX];
    char(*paths)[OPD_PATH_SIZE] = opd_mem_get(NULL, OPD_CONFIG_SPLITS_MAX * sizeof *paths);
    if (paths == NULL) return opd_fail(OPD_ERR_NOMEM, "stage %s: no memory", stage->name);
    char dir[OPD_PATH_SIZE];
    opd_err err = opd_path_join(dir, sizeof dir, r->folder.path, "data");
    if (err == OPD_OK) err = opd_dir_make(dir);
    for (size_t i = 0; i < a->split_count; i++) {
        split_path(r, stage->name, a->splits[i].name, paths[i]);
        splits[i] = (opd_arithmetic_split){
            .path = paths[i], .count = (size_t)a->splits[i].count,
            .easy_first = i == 0 ? (size_t)a->easy_first : 0,
            .easy_column_sum = (uint32_t)a->easy_column_sum};
    }
    if (err == OPD_OK)
        err = opd_arithmetic_write(NULL, (uint64_t)a->seed, (uint32_t)a->digits, splits,
                                   a->split_count);
    opd_mem_free(NULL, paths);
    return err;
}

static void fill_sets(opd_stage_result *result, const opd_eval_sets *sets,
                      const opd_set_outcome *outcomes) {
    result->set_count = sets->count;
    for (size_t i = 0; i < sets->count; i++) {
        (void)snprintf(result->sets[i].name, sizeof result->sets[i].name, "%s", sets->set[i].name);
        result->sets[i].outcome = outcomes[i];
    }
    if (sets->count == 0 || !outcomes[0].has_after) return;
    result->has_after = true;
    result->after = outcomes[0].after.accuracy;
}

static void fill_result(opd_stage_result *result, const opd_trainer_outcome *o,
                        const char *checkpoints) {
    result->steps = o->steps;
    result->has_before = o->has_before;
    if (o->has_before) result->before = opd_accuracy_of(o->before_correct, o->before_total);
    result->samples = o->samples;
    result->response_tokens = o->response_tokens;
    result->invalid_tokens = o->invalid_tokens;
    result->unscored_batches = o->unscored_batches;
    result->skipped_steps = o->skipped_steps;
    result->degraded_tokens = o->degraded_tokens;
    result->score_wait_s = o->score_wait_s;
    opd_checkpoint_path(checkpoints, o->steps, result->checkpoint);
    if (o->best_step == 0) return;
    opd_checkpoint_path(checkpoints, o->best_step, result->best);
    result->best_value = (double)o->best_1e9 * 1e-9;
}

static void name_teacher(const opd_config_stage *stage, opd_stage_result *result) {
    const opd_config_teacher *t = opd_stage_teacher(stage);
    if (t == NULL) return;
    if (t->url[0] != '\0') (void)snprintf(result->teacher, sizeof result->teacher, "%s", t->url);
    else if (opd_teacher_dir(t, result->teacher, sizeof result->teacher) != OPD_OK)
        result->teacher[0] = '\0';
}

/* What the stage's servers can do and how often one was not believed. */
static void note_teachers(const opd_config_stage *stage, const opd_teacher_account *accounts,
                          opd_stage_result *result) {
    opd_json_writer w;
    opd_str text;
    opd_str_init(&text, NULL, sizeof result->teachers - 1);
    opd_json_writer_init(&w, &text, 0);
    opd_json_write_object_begin(&w);
    for (size_t i = 0; i < stage->teacher_count; i++) {
        if (accounts[i].capabilities[0] == '\0') continue;
        opd_json_write_key(&w, stage->teachers[i].name);
        opd_json_write_object_begin(&w);
        opd_json_write_key(&w, "capabilities");
        opd_json_write_raw(&w, accounts[i].capabilities, strlen(accounts[i].capabilities));
        opd_json_write_key(&w, "quarantines");
        opd_json_write_int64(&w, (int64_t)accounts[i].quarantines);
        opd_json_write_object_end(&w);
    }
    opd_json_write_object_end(&w);
    if (opd_str_status(&text) == OPD_OK && strcmp(text.data, "{}") != 0)
        memcpy(result->teachers, text.data, text.size + 1);
    opd_str_fini(&text);
}

static opd_err run_training(recipe *r, const opd_config_stage *stage, opd_stage_result *result) {
    char checkpoints[OPD_PATH_SIZE], trace[OPD_PATH_SIZE];
    opd_run_folder_checkpoints(&r->folder, r->config, stage->name, checkpoints);
    opd_run_folder_trace(&r->folder, r->config, stage->name, trace);
    opd_assets assets;
    OPD_TRY(opd_assets_open(&assets, stage, checkpoints, r->o->resume, NULL, NULL));
    memset(r->accounts, 0, sizeof r->accounts);
    opd_memory memory = opd_memory_of(&assets);
    opd_memory_log(stage->name, &memory);
    const opd_checkpoint_state *before = &assets.resumed;
    opd_trainer_outcome outcome = {
        .samples = before->samples, .response_tokens = before->response_tokens,
        .invalid_tokens = before->invalid_tokens, .unscored_batches = before->unscored_batches,
        .skipped_steps = before->skipped_steps, .degraded_tokens = before->degraded_tokens, .has_before = before->before_total > 0,
        .best_step = before->best_step, .best_1e9 = before->best_1e9,
        .before_correct = before->before_correct, .before_total = before->before_total};
    opd_pipeline_options options = {
        .accounts = r->accounts, .assets = &assets, .checkpoint_dir = checkpoints, .program = r->program,
        .metrics_fd = r->folder.metrics_fd, .samples_fd = r->folder.samples_fd,
        .screen_fd = r->screen_fd, .screen = r->screen,
        .handle_signals = r->o->handle_signals,
        .trace_path = stage->run.trace ? trace : NULL};
    opd_err err = opd_pipeline_execute(&options, &outcome);
    if (err == OPD_OK) fill_sets(result, &assets.evals, outcome.sets);
    opd_assets_close(&assets);
    name_teacher(stage, result);
    if (err == OPD_OK) fill_result(result, &outcome, checkpoints);
    note_teachers(stage, r->accounts, result);
    return err;
}

static opd_err run_eval(recipe *r, const opd_config_stage *stage, opd_stage_result *result) {
    opd_set_outcome outcomes[OPD_EVAL_SETS_MAX];
    opd_eval_sets sets;
    OPD_TRY(opd_measure(stage, stage->model.path, r->o->handle_signals, &sets, outcomes));
    fill_sets(result, &sets, outcomes);
    return OPD_OK;
}

static opd_err run_stage(recipe *r, const opd_config_stage *stage, opd_stage_result *result) {
    switch (stage->kind) {
    case OPD_CONFIG_KIND_ARITHMETIC: return run_arithmetic(r, stage);
    case OPD_CONFIG_KIND_EVAL:
        return run_eval(r, stage, result);
    case OPD_CONFIG_KIND_SFT:
    case OPD_CONFIG_KIND_RL: break;
    }
    return run_training(r, stage, result);
}

static opd_err run_stages(recipe *r) {
    for (size_t i = 0; i < r->config->stage_count; i++) {
        const char *name = r->config->stages[i].name;
        if (opd_run_folder_result(&r->folder, name) != NULL) continue; /* done before */
        opd_config_stage stage;
        OPD_TRY(opd_config_stage_resolve(r->config, i, resolve, r, &stage));
        opd_stage_result result = {.kind = stage.kind};
        (void)snprintf(result.name, sizeof result.name, "%s", name);
        double begin = seconds_now();
        OPD_LOG_INFO("stage %s (%s) begins", name, opd_config_kind_name(stage.kind));
        opd_err err = run_stage(r, &stage, &result);
        if (err != OPD_OK)
            return r->config->has_stages ? opd_err_prefix(err, "stage %s", name) : err;
        result.wall_s = seconds_now() - begin;
        OPD_TRY(opd_run_folder_add(&r->folder, &result));
    }
    return OPD_OK;
}

/* ---- the end ---- */

static opd_err write_summary(recipe *r, const opd_summary *summary) {
    opd_str text;
    char path[OPD_PATH_SIZE];
    opd_str_init(&text, NULL, SUMMARY_BYTES_MAX);
    opd_summary_write(summary, r->folder.results, r->folder.result_count, &text);
    opd_err err = opd_str_status(&text);
    if (err == OPD_OK) err = opd_path_join(path, sizeof path, r->folder.path, "summary.json");
    if (err == OPD_OK) err = opd_file_write_atomic(path, text.data, text.size);
    opd_str_fini(&text);
    return err;
}

/* One row per accuracy that the run measured: the three of a distillation, else all. */
static size_t table_rows(const recipe *r, const opd_summary *s, opd_table_row *rows) {
    size_t n = 0;
    if (s->student_before != NULL)
        rows[n++] = (opd_table_row){"student before", *s->student_before};
    if (s->student_after != NULL) rows[n++] = (opd_table_row){"student after", *s->student_after};
    if (s->teacher != NULL) rows[n++] = (opd_table_row){"teacher", *s->teacher};
    if (n > 0) return n;
    for (size_t i = 0; i < r->folder.result_count; i++) {
        const opd_stage_result *result = &r->folder.results[i];
        if (result->has_after) rows[n++] = (opd_table_row){result->name, result->after};
    }
    return n;
}

static void show_next(const opd_summary *s, const opd_run_folder *folder,
                      const opd_config *config, opd_str *out) {
    if (folder->result_count == 0) return;
    const char *checkpoint = folder->results[folder->result_count - 1].checkpoint;
    opd_str_printf(out, "\n  run folder   %s  (summary.json, metrics.jsonl, samples.jsonl, log)\n",
                   folder->path);
    if (checkpoint[0] == '\0') return;
    opd_str_printf(out, "  checkpoint   %s  (opens in transformers)\n", checkpoint);
    const opd_stage_result *last = &folder->results[folder->result_count - 1];
    if (last->best[0] != '\0')
        opd_str_printf(out, "  best         %s  (%.4g)\n", last->best, last->best_value);
    bool sums = folder->results[0].kind == OPD_CONFIG_KIND_ARITHMETIC;
    opd_str_printf(out, "\n  what to try next\n"
                   "    opd generate --model %s --prompt '%s'\n"
                   "    opd serve --model %s --port 8000\n", checkpoint,
                   sums ? "4712+2589=" : "TEXT", checkpoint);
    bool launched = s->policy != NULL && s->policy->teachers[0] != '\0' &&
                    strstr(s->policy->teacher, "://") == NULL;
    if (launched)
        opd_str_printf(out, "    opd run %s --set run.name=inproc --set opd.type=megatron   (the "
                       "teacher in this process)\n", config->file);
}

static void show_end(const recipe *r, const opd_summary *summary) {
    opd_table_row rows[OPD_CONFIG_STAGES_MAX];
    opd_str text;
    opd_str_init(&text, NULL, SUMMARY_BYTES_MAX);
    size_t count = table_rows(r, summary, rows);
    if (count > 0) opd_screen_table(&r->screen, rows, count, &text);
    const opd_stage_result *p = summary->policy;
    if (p != NULL && p->teacher[0] != '\0')
        opd_str_printf(&text, "\n  %" PRIu64 " samples; %" PRIu64 " of %" PRIu64
                       " tokens had no teacher score\n", p->samples,
                       p->invalid_tokens, p->response_tokens);
    if (p != NULL && p->degraded_tokens > 0)
        opd_str_printf(&text, "  %" PRIu64 " tokens were scored by fewer teachers than wanted, or by a "
                       "fallback\n", p->degraded_tokens);
    opd_str_printf(&text, "\n  wall time    %.0f s\n", summary->wall_s);
    show_next(summary, &r->folder, r->config, &text);
    if (opd_str_status(&text) == OPD_OK) say(r, text.data);
    opd_str_fini(&text);
}

/* ---- the run ---- */

/* The run's log gets every line; warnings and errors also go to stderr. */
static void log_line(void *arg, opd_log_level level, const char *text) {
    const recipe *r = arg;
    char line[2048];
    time_t now = time(NULL);
    struct tm tm;
    (void)localtime_r(&now, &tm);
    size_t at = strftime(line, sizeof line, "%Y-%m-%d %H:%M:%S ", &tm);
    int n = snprintf(line + at, sizeof line - at, "%s %s\n", opd_log_level_name(level), text);
    size_t size = n < 0 ? at : at + (size_t)n < sizeof line ? at + (size_t)n : sizeof line - 1;
    if (r->folder.log_fd >= 0 && write(r->folder.log_fd, line, size) < 0)
        (void)fputs("opd: the run's log cannot be written\n", stderr);
    if (level <= OPD_LOG_LEVEL_WARN) (void)fprintf(stderr, "opd: %s\n", text);
}

static void open_screen(recipe *r) {
    r->screen_fd = r->o->screen != NULL ? fileno(r->o->screen) : -1;
    const char *no_color = getenv("NO_COLOR");
    r->screen.terminal = r->screen_fd >= 0 && opd_tty_is(r->screen_fd);
    r->screen.color = r->screen.terminal && (no_color == NULL || no_color[0] == '\0');
    r->screen.width = r->screen.terminal ? opd_tty_width(r->screen_fd) : 80;
}

static opd_err find_program(recipe *r) {
    if (r->o->program != NULL)
        return opd_path_join(r->program, sizeof r->program, "", r->o->program);
    ssize_t n = readlink("/proc/self/exe", r->program, sizeof r->program - 1);
    if (n < 0) return opd_fail(OPD_ERR_NOT_FOUND, "the path of the opd command is not known");
    r->program[n] = '\0';
    return OPD_OK;
}

/* Writes the reason to the log; a run that failed before it did anything leaves no folder, so
 * that the corrected one needs no --force. */
static void end_badly(recipe *r) {
    OPD_LOG_INFO("the run ends: %s", opd_err_context());
    opd_run_folder_abandon(&r->folder);
}

opd_err opd_run(const opd_run_options *options) {
    recipe *r = opd_mem_get(NULL, sizeof *r);
    if (r == NULL) return opd_fail(OPD_ERR_NOMEM, "no memory for the run");
    r->o = options;
    r->config = options->config;
    open_screen(r);
    opd_err err = find_program(r);
    if (err == OPD_OK)
        err = opd_run_folder_open(&r->folder, r->config, options->resume, options->force, NULL);
    if (err != OPD_OK) {
        opd_mem_free(NULL, r);
        return err;
    }
    opd_log_level_set(r->config->base.run.log_level);
    opd_log_sink_set(log_line, r);
    err = run_stages(r);
    opd_summary summary = opd_summary_of(r->folder.results, r->folder.result_count);
    if (err == OPD_OK) err = write_summary(r, &summary);
    if (err == OPD_OK) show_end(r, &summary);
    if (err != OPD_OK) end_badly(r);
    opd_log_sink_set(NULL, NULL);
    opd_run_folder_close(&r->folder);
    opd_mem_free(NULL, r);
    return err;
}
