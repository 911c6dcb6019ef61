/* test_run_files.c - what a run shows and leaves: progress lines, the table, results as JSON and
 * back (also broken), and the run's folder with its refusals. */
#include <sys/stat.h>
#include <unistd.h>

#include "actors/monitor/screen.h"
#include "actors/run/folder.h"
#include "actors/run/result_json.h"
#include "core/base/check.h"
#include "core/base/rng.h"
#include "tests/support/alloc_test.h"
#include "tests/support/folder.h"
#include "tests/support/test.h"

/* ---- the screen ---- */

static const char *progress(const opd_screen *screen, double valid_share, opd_str *out) {
    double values[OPD_METRIC_COUNT];
    opd_metrics_clear(values);
    values[OPD_METRIC_RAW_REWARD] = 0.5;
    values[OPD_METRIC_OPD_REVERSE_KL] = 0.125;
    values[OPD_METRIC_VALID_SHARE] = valid_share;
    opd_progress p = {.stage = "distill", .step = 7, .steps = 100, .elapsed_s = 14, .steps_here = 7,
                      .samples = 280, .values = values, .policy = true, .teacher = true,
                      .invalid_tokens = valid_share < 1 ? 12 : 0};
    opd_str_clear(out);
    opd_screen_progress(screen, &p, out);
    CHECK_OK(opd_str_status(out));
    return out->data;
}

TEST(a_plain_line_has_every_figure_and_no_escapes) {
    opd_str out;
    opd_str_init(&out, NULL, 4096);
    opd_screen plain = {.width = 20}; /* not a terminal: not cut */
    CHECK_STR(progress(&plain, 1, &out), "distill      step   7/100  20 samples/s  reward 0.500  "
                                         "kl 0.1250  valid 100.0 %  eta 3:06");
    CHECK_CONTAINS(progress(&plain, 0.5, &out), "valid 50.0 %  eta 3:06  masked 12 tokens");
    opd_str_fini(&out);
}

TEST(a_terminal_line_fits_and_its_colours_end) {
    opd_str out;
    opd_str_init(&out, NULL, 4096);
    for (int width = 2; width < 140; width++) {
        opd_screen screen = {.terminal = true, .color = width % 2, .width = width};
        const char *line = progress(&screen, 0.5, &out);
        int columns = 0;
        bool open = false;
        for (const char *c = line; *c != '\0'; c++) {
            if (*c != '\033') {
                columns++;
                continue;
            }
            open = strncmp(c, "\033[0m", 4) != 0;
            c = strchr(c, 'm');
        }
        CHECK(columns < width && !open);
        CHECK(screen.color || strchr(line, '\033') == NULL);
    }
    opd_str_fini(&out);
}

TEST(the_table_shows_percent_and_interval) {
    opd_str out;
    opd_str_init(&out, NULL, 4096);
    opd_screen plain = {.terminal = false};
    opd_table_row row = {"student after", {.accuracy = 0.943, .low = 0.932, .high = 0.952, .n = 2000}};
    opd_screen_table(&plain, &row, 1, &out);
    CHECK_CONTAINS(out.data, "student after");
    CHECK_CONTAINS(out.data, "94.3 %    93.2 -  95.2 %        2000");
    opd_str_fini(&out);
}

/* ---- results ---- */

static opd_stage_result result_of(const char *name) {
    opd_stage_result r = {.kind = OPD_CONFIG_KIND_RL, .checkpoint = "runs/x/step-000009", .steps = 9,
                          .wall_s = 1.25, .has_after = true, .samples = UINT32_MAX, .response_tokens = 7,
                          .invalid_tokens = 3, .unscored_batches = 2, .skipped_steps = 1,
                          .degraded_tokens = 4, .score_wait_s = 0.75, .after = {.accuracy = 0.5, .low = 0.25, .high = 0.75, .n = 12},
                          .teacher = "http://127.0.0.1:1\"\\\n", .set_count = 2,
                          .best = "runs/x/step-000004", .best_value = 0.625};
    r.sets[0].outcome = (opd_set_outcome){.has_after = true, .after = {.accuracy = r.after, .response_len = 3.5,
                                          .truncated = 0.25, .pass_count = 2,
                                          .pass = {{1, 0.5, 0.25, 0.75}, {4096, 0.875, 0.125, 1}}}};
    r.sets[1].outcome = (opd_set_outcome){.has_before = true, .before = {.accuracy = r.after}};
    (void)snprintf(r.sets[0].name, sizeof r.sets[0].name, "eval");
    (void)snprintf(r.sets[1].name, sizeof r.sets[1].name, "more");
    (void)snprintf(r.name, sizeof r.name, "%s", name);
    return r;
}

static void check_same(const opd_stage_result *a, const opd_stage_result *b) {
    CHECK_STR(a->name, b->name);
    CHECK_INT(a->kind, b->kind);
    CHECK_STR(a->checkpoint, b->checkpoint);
    CHECK_STR(a->teacher, b->teacher);
    CHECK(a->wall_s == b->wall_s && a->has_before == b->has_before && a->has_after == b->has_after);
    CHECK(a->steps == b->steps && a->samples == b->samples && a->invalid_tokens == b->invalid_tokens);
    CHECK(a->response_tokens == b->response_tokens && a->skipped_steps == b->skipped_steps);
    CHECK(a->unscored_batches == b->unscored_batches && a->after.n == b->after.n);
    CHECK(a->degraded_tokens == b->degraded_tokens && a->score_wait_s == b->score_wait_s);
    CHECK(a->after.low == b->after.low && a->after.high == b->after.high);
    CHECK_INT(a->set_count, b->set_count);
    CHECK_STR(a->best, b->best);
    CHECK(a->best_value == b->best_value);
    for (size_t i = 0; i < a->set_count; i++) {
        const opd_set_outcome *p = &a->sets[i].outcome, *q = &b->sets[i].outcome;
        CHECK_STR(a->sets[i].name, b->sets[i].name);
        CHECK(p->has_before == q->has_before && p->has_after == q->has_after);
        CHECK(memcmp(&p->before, &q->before, sizeof p->before) == 0);
        CHECK(memcmp(&p->after, &q->after, sizeof p->after) == 0);
    }
}

TEST(results_come_back_and_broken_ones_do_no_harm) {
    static opd_stage_result in[2], out[3];
    opd_str text;
    size_t count;
    in[0] = result_of("sft"), in[1] = result_of("distill");
    in[0].kind = OPD_CONFIG_KIND_SFT, in[0].has_after = false;
    in[0].after = (opd_accuracy){0};
    opd_str_init(&text, NULL, 1 << 16);
    opd_results_write(in, 2, &text);
    CHECK_OK(opd_results_read(text.data, text.size, out, 3, &count));
    CHECK_INT(count, 2);
    for (int i = 0; i < 2; i++) check_same(&in[i], &out[i]);
    CHECK_ERR(opd_results_read(text.data, text.size, out, 1, &count), OPD_ERR_LIMIT);
    opd_rng rng;
    opd_rng_init(&rng, 1);
    int refused = 0;
    for (int i = 0; i < 3000; i++) { /* a bit flipped, or cut off */
        size_t size = i % 3 == 0 ? (size_t)opd_rng_below(&rng, text.size) : text.size;
        char *copy = malloc(size + 1);
        memcpy(copy, text.data, size);
        if (size > 0 && i % 3) copy[opd_rng_below(&rng, size)] ^= (char)(1 << opd_rng_below(&rng, 8));
        opd_err err = opd_results_read(copy, size, out, 3, &count);
        CHECK(count <= 3);
        refused += err != OPD_OK;
        free(copy);
    }
    CHECK(refused > 1000);
    opd_str_fini(&text);
}

TEST(results_that_cannot_be_are_refused) {
    static const char *const bad[] = {
        "{\"stages\": [{\"name\": \"a\", \"kind\": \"dance\"}]}", "{\"stages\": [{\"steps\": -1}]}",
        "{\"stages\": [{\"after\": {\"n\": -5}}]}", "{\"stages\": 5}", "[]", "", "{\"stages\": []} x"};
    static opd_stage_result out[2];
    size_t count;
    for (size_t i = 0; i < OPD_COUNTOF(bad); i++)
        CHECK_ERR(opd_results_read(bad[i], strlen(bad[i]), out, 2, &count), OPD_ERR_PARSE);
    const char newer[] = "{\"later\": {}, \"stages\": [{\"name\": \"a\", \"more\": [1]}]}";
    CHECK_OK(opd_results_read(newer, strlen(newer), out, 2, &count));
    CHECK_INT(count, 1);
}

/* ---- the folder ---- */

static opd_config *config_of(const char *dir, const char *steps) {
    char text[512];
    opd_config *config;
    (void)snprintf(text, sizeof text, "run: {name: x, dir: %s, kind: sft}\nmodel: {path: m}\ndata: {path: d.jsonl}\n"
                   "train: {steps: %s}\n", dir, steps);
    CHECK_OK(opd_config_load_text(NULL, "t.yaml", text, strlen(text), NULL, &config));
    return config;
}

static void write_text(const char *dir, const char *name, const char *text) {
    char path[256];
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    CHECK_OK(opd_file_write_atomic(path, text, strlen(text)));
}

TEST(a_folder_is_made_resumed_and_replaced_but_never_a_strangers) {
    char dir[] = "/tmp/opd-runs-XXXXXX", path[64], command[64];
    opd_run_folder f;
    CHECK(mkdtemp(dir) != NULL);
    (void)snprintf(path, sizeof path, "%s/x", dir);
    opd_config *config = config_of(dir, "5"), *other = config_of(dir, "6");
    CHECK_ERR(opd_run_folder_open(&f, config, true, false, NULL), OPD_ERR_NOT_FOUND);
    CHECK_OK(opd_run_folder_open(&f, config, false, false, NULL));
    static opd_stage_result result;
    result = result_of("main");
    CHECK_OK(opd_run_folder_add(&f, &result));
    CHECK_INT(write(f.metrics_fd, "{}\n", 3), 3);
    opd_run_folder_close(&f);
    CHECK_ERR(opd_run_folder_open(&f, config, false, false, NULL), OPD_ERR_EXISTS);
    CHECK_CONTAINS(opd_err_context(), "--resume");
    CHECK_CONTAINS(opd_err_context(), "--force");
    CHECK_ERR(opd_run_folder_open(&f, other, true, false, NULL), OPD_ERR_MISMATCH);
    CHECK_OK(opd_run_folder_open(&f, config, true, false, NULL));
    CHECK(opd_run_folder_result(&f, "main") != NULL && opd_run_folder_result(&f, "y") == NULL);
    check_same(opd_run_folder_result(&f, "main"), &result);
    opd_run_folder_close(&f);
    write_text(path, "state.json", "{\"stages\": [");
    CHECK_ERR(opd_run_folder_open(&f, config, true, false, NULL), OPD_ERR_PARSE);
    CHECK_CONTAINS(opd_err_context(), "state.json");
    CHECK_OK(opd_run_folder_open(&f, other, false, true, NULL)); /* --force: all of it is new */
    CHECK_INT(f.result_count, 0);
    struct stat st;
    CHECK_INT(fstat(f.metrics_fd, &st), 0);
    CHECK_INT(st.st_size, 0);
    opd_run_folder_close(&f);
    (void)snprintf(command, sizeof command, "%s/x/config.yaml", dir);
    CHECK_INT(unlink(command), 0);
    write_text(path, "thesis.txt", "the only copy");
    CHECK_ERR(opd_run_folder_open(&f, config, false, true, NULL), OPD_ERR_EXISTS);
    CHECK_CONTAINS(opd_err_context(), "no run folder of opd");
    (void)snprintf(command, sizeof command, "%s/x/thesis.txt", dir);
    CHECK(opd_file_exists(command));
    folder_remove(dir);
    opd_config_destroy(config);
    opd_config_destroy(other);
}
