/* embedding.c - runs a recipe from a program of one's own and prints the student's accuracy.
 *
 * usage: example_embedding CONFIG [OPD-PROGRAM [KEY=VALUE]...]
 *   OPD-PROGRAM  the opd command, for a teacher that a child process serves
 *   KEY=VALUE    settings, as --set takes them
 * Exit status: 0, or 1 with the error's text on stderr.
 *
 * Thread: main, which opd_run blocks. Every object is freed by who made it.
 */
#include <stdio.h>
#include <string.h>

#include "opd/config.h"
#include "opd/run.h"

enum { SUMMARY_BYTES_MAX = 64 * 1024, PATH_BYTES_MAX = 4096 };

/* Fills a configuration from a file and settings; the caller destroys *out_config. */
static opd_err load(const char *path, char **settings, int count, opd_config **out_config) {
    opd_config_overrides *overrides;
    opd_err err = opd_config_overrides_create(NULL, &overrides);
    if (err != OPD_OK) return err;
    for (int i = 0; i < count && err == OPD_OK; i++)
        err = opd_config_overrides_set(overrides, settings[i]);
    if (err == OPD_OK) err = opd_config_load(NULL, path, overrides, out_config);
    opd_config_overrides_destroy(overrides);
    return err;
}

/* Reads runs/NAME/summary.json as text (a service would parse it with its JSON library). */
static opd_err read_summary(const opd_config *config, char text[SUMMARY_BYTES_MAX]) {
    char path[PATH_BYTES_MAX];
    const opd_config_run *run = &config->base.run;
    (void)snprintf(path, sizeof path, "%s/%s/summary.json", run->dir, run->name);
    FILE *file = fopen(path, "rb");
    if (file == NULL) return opd_fail(OPD_ERR_NOT_FOUND, "%s cannot be opened", path);
    size_t size = fread(text, 1, SUMMARY_BYTES_MAX - 1, file);
    (void)fclose(file);
    text[size] = '\0';
    return OPD_OK;
}

/* Prints the accuracy under `key`, if the run measured it. */
static void print_accuracy(const char *summary, const char *key, const char *title) {
    double accuracy;
    unsigned long n;
    const char *at = strstr(summary, key);
    if (at == NULL) return;
    if (sscanf(at + strlen(key), ": { \"accuracy\": %lf , \"n\": %lu", &accuracy, &n) != 2) return;
    (void)printf("%s: %.1f %% of %lu problems\n", title, accuracy * 100, n);
}

static opd_err run(const char *path, const char *program, char **settings, int count) {
    static char summary[SUMMARY_BYTES_MAX];
    opd_config *config = NULL;
    opd_err err = load(path, settings, count, &config);
    opd_run_options options = {.config = config, .program = program, .screen = NULL};
    if (err == OPD_OK) err = opd_run(&options);
    if (err == OPD_OK) err = read_summary(config, summary);
    if (err == OPD_OK) {
        print_accuracy(summary, "\"student_before\"", "student before");
        print_accuracy(summary, "\"student_after\"", "student after");
        print_accuracy(summary, "\"teacher\"", "teacher");
    }
    opd_config_destroy(config);
    return err;
}

int main(int argc, char **argv) {
    if (argc < 2) {
        (void)fprintf(stderr, "usage: %s CONFIG [OPD-PROGRAM [KEY=VALUE]...]\n", argv[0]);
        return 1;
    }
    int settings = argc > 3 ? argc - 3 : 0;
    opd_err err = run(argv[1], argc > 2 ? argv[2] : NULL, argv + argc - settings, settings);
    if (err == OPD_OK) return 0;
    (void)fprintf(stderr, "%s: %s\n", opd_err_name(err), opd_err_context());
    return 1;
}
