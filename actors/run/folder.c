/* folder.c - makes, opens and fills the folder of a run (folder.h).
 * Thread: the caller's, blocking. The folder owns its results and descriptors. */
#include "actors/run/folder.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "actors/run/result_json.h"
#include "core/base/check.h"

enum { STATE_BYTES_MAX = 4 << 20 };

static opd_err in_folder(const opd_run_folder *f, const char *name, char out[OPD_PATH_SIZE]) {
    return opd_path_join(out, OPD_PATH_SIZE, f->path, name);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw) {
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static void remove_tree(const char *path) {
    if (opd_file_exists(path)) (void)nftw(path, remove_one, 32, FTW_DEPTH | FTW_PHYS);
}

/* Where a run that is being replaced waits until its successor has begun to work. */
static void replaced_path(const opd_run_folder *f, char out[OPD_PATH_SIZE]) {
    (void)snprintf(out, OPD_PATH_SIZE, "%.*s.replaced", OPD_PATH_SIZE - 16, f->path);
}

/* Moves an existing run folder aside, but only one that opd made. */
static opd_err set_aside(opd_run_folder *f) {
    char config[OPD_PATH_SIZE];
    OPD_TRY(in_folder(f, "config.yaml", config));
    if (!opd_file_exists(config))
        return opd_fail(OPD_ERR_EXISTS, "%s exists but is no run folder of opd (it has no "
                        "config.yaml), so --force leaves it alone; choose another run.name",
                        f->path);
    char aside[OPD_PATH_SIZE];
    replaced_path(f, aside);
    remove_tree(aside);
    if (rename(f->path, aside) != 0)
        return opd_fail(OPD_ERR_IO, "%s cannot be replaced: %s", f->path, strerror(errno));
    f->replaces = true;
    return OPD_OK;
}

static opd_err open_file(const opd_run_folder *f, const char *name, int *out_fd) {
    char path[OPD_PATH_SIZE];
    OPD_TRY(in_folder(f, name, path));
    *out_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (*out_fd < 0)
        return opd_fail(OPD_ERR_IO, "%s cannot be opened: %s", path, strerror(errno));
    return OPD_OK;
}

/* The first line in which two texts differ: its number, and where it starts in both. */
static int differing_line(const char **old, const char **now) {
    const char *old_line = *old, *now_line = *now;
    int line = 1;
    for (size_t i = 0; (*old)[i] != '\0' && (*old)[i] == (*now)[i]; i++) {
        if ((*old)[i] != '\n') continue;
        old_line = *old + i + 1;
        now_line = *now + i + 1;
        line++;
    }
    *old = old_line + strspn(old_line, " ");
    *now = now_line + strspn(now_line, " ");
    return line;
}

static int line_length(const char *line) {
    size_t size = strcspn(line, "\n#");
    while (size > 0 && line[size - 1] == ' ') size--;
    return (int)(size < 120 ? size : 120);
}

/* On resume the configuration must be the one the run began with. */
static opd_err check_config(const char *path, const char *text, const opd_alloc *alloc) {
    char *old;
    size_t size;
    OPD_TRY(opd_file_read(alloc, path, OPD_CONFIG_FILE_MAX * 4, &old, &size));
    opd_err err = OPD_OK;
    if (strcmp(old, text) != 0) {
        const char *then = old, *now = text;
        int line = differing_line(&then, &now);
        err = opd_fail(OPD_ERR_MISMATCH, "%s:%d: --resume needs the configuration that the run "
                       "began with: it was \"%.*s\" and is \"%.*s\" now; use the same settings, "
                       "or begin anew under another run.name", path, line, line_length(then), then,
                       line_length(now), now);
    }
    opd_mem_free(alloc, old);
    return err;
}

static opd_err write_config(const opd_run_folder *f, const opd_config *config, bool resume) {
    char path[OPD_PATH_SIZE], *text;
    OPD_TRY(in_folder(f, "config.yaml", path));
    OPD_TRY(opd_config_yaml(f->alloc, config, true, &text));
    opd_err err = resume ? check_config(path, text, f->alloc)
                         : opd_file_write_atomic(path, text, strlen(text));
    opd_mem_free(f->alloc, text);
    return err;
}

static opd_err read_state(opd_run_folder *f) {
    char path[OPD_PATH_SIZE], *text;
    size_t size;
    OPD_TRY(in_folder(f, "state.json", path));
    if (!opd_file_exists(path)) return OPD_OK; /* stopped in its first stage */
    OPD_TRY(opd_file_read(f->alloc, path, STATE_BYTES_MAX, &text, &size));
    opd_err err = opd_results_read(text, size, f->results, OPD_CONFIG_STAGES_MAX,
                                   &f->result_count);
    opd_mem_free(f->alloc, text);
    return opd_err_prefix(err, "%s", path);
}

static opd_err prepare(opd_run_folder *f, const opd_config *config, bool resume, bool force) {
    bool exists = opd_file_exists(f->path);
    if (exists && !resume && !force)
        return opd_fail(OPD_ERR_EXISTS, "%s exists already: go on with --resume, replace it with "
                        "--force, or choose another name with --set run.name=NAME", f->path);
    if (!exists && resume)
        return opd_fail(OPD_ERR_NOT_FOUND, "%s does not exist, so there is nothing to resume",
                        f->path);
    if (exists && force) OPD_TRY(set_aside(f));
    f->made = !resume;
    OPD_TRY(opd_dir_make(f->path));
    OPD_TRY(write_config(f, config, resume));
    if (resume) OPD_TRY(read_state(f));
    OPD_TRY(open_file(f, "metrics.jsonl", &f->metrics_fd));
    OPD_TRY(open_file(f, "samples.jsonl", &f->samples_fd));
    return open_file(f, "log", &f->log_fd);
}

/* Whether anything was learnt, written or measured in the folder. */
static bool has_work(const opd_run_folder *f) {
    char checkpoints[OPD_PATH_SIZE];
    struct stat st;
    if (f->result_count > 0 || in_folder(f, "checkpoints", checkpoints) != OPD_OK) return true;
    if (opd_file_exists(checkpoints)) return true;
    return f->metrics_fd >= 0 && (fstat(f->metrics_fd, &st) != 0 || st.st_size > 0);
}

void opd_run_folder_abandon(opd_run_folder *f) {
    if (!f->made || has_work(f)) return;
    remove_tree(f->path);
    char aside[OPD_PATH_SIZE];
    replaced_path(f, aside);
    if (f->replaces && rename(aside, f->path) == 0) f->replaces = false;
}

opd_err opd_run_folder_open(opd_run_folder *f, const opd_config *config, bool resume, bool force,
                            const opd_alloc *alloc) {
    const opd_config_run *run = &config->base.run;
    *f = (opd_run_folder){.metrics_fd = -1, .samples_fd = -1, .log_fd = -1, .alloc = alloc};
    OPD_TRY(opd_path_join(f->path, sizeof f->path, run->dir, run->name));
    f->results = opd_mem_get(alloc, OPD_CONFIG_STAGES_MAX * sizeof *f->results);
    if (f->results == NULL) return opd_fail(OPD_ERR_NOMEM, "%s: no memory", f->path);
    opd_err err = prepare(f, config, resume, force);
    if (err == OPD_OK) return OPD_OK;
    opd_run_folder_abandon(f);
    opd_run_folder_close(f);
    return err;
}

void opd_run_folder_close(opd_run_folder *f) {
    int *fds[] = {&f->metrics_fd, &f->samples_fd, &f->log_fd};
    for (size_t i = 0; i < OPD_COUNTOF(fds); i++) {
        if (*fds[i] >= 0) (void)close(*fds[i]);
        *fds[i] = -1;
    }
    char aside[OPD_PATH_SIZE];
    replaced_path(f, aside);
    if (f->replaces) remove_tree(aside);
    f->replaces = false;
    opd_mem_free(f->alloc, f->results);
    f->results = NULL;
}

const opd_stage_result *opd_run_folder_result(const opd_run_folder *f, const char *stage) {
    for (size_t i = 0; i < f->result_count; i++)
        if (strcmp(f->results[i].name, stage) == 0) return &f->results[i];
    return NULL;
}

opd_err opd_run_folder_add(opd_run_folder *f, const opd_stage_result *result) {
    OPD_ASSERT(f->result_count < OPD_CONFIG_STAGES_MAX);
    f->results[f->result_count++] = *result;
    opd_str text;
    char path[OPD_PATH_SIZE];
    opd_str_init(&text, f->alloc, STATE_BYTES_MAX);
    opd_results_write(f->results, f->result_count, &text);
    opd_err err = opd_str_status(&text);
    if (err == OPD_OK) err = in_folder(f, "state.json", path);
    if (err == OPD_OK) err = opd_file_write_atomic(path, text.data, text.size);
    opd_str_fini(&text);
    return err;
}

void opd_run_folder_checkpoints(const opd_run_folder *f, const opd_config *config,
                                const char *stage, char out[OPD_PATH_SIZE]) {
    (void)snprintf(out, OPD_PATH_SIZE, "%.*s/checkpoints%s%s", OPD_PATH_SIZE - 128, f->path,
                   config->has_stages ? "/" : "", config->has_stages ? stage : "");
}

void opd_run_folder_trace(const opd_run_folder *f, const opd_config *config, const char *stage,
                          char out[OPD_PATH_SIZE]) {
    (void)snprintf(out, OPD_PATH_SIZE, "%.*s/trace%s%s.json", OPD_PATH_SIZE - 128, f->path,
                   config->has_stages ? "-" : "", config->has_stages ? stage : "");
}
