/* checkpoint.c - writes, finds and reads checkpoint folders (checkpoint.h).
 * Thread: any, blocking. Every function frees what it allocates. */
#include "actors/checkpoint/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/check.h"
#include "core/base/file.h"
#include "core/base/str.h"
#include "core/codec/json.h"
#include "models/safetensors.h"
#include "opd/log.h"

enum { STATE_BYTES_MAX = 1 << 16, CHECKPOINTS_MAX = 4096 };

/* The members of opd_checkpoint_state by name. */
static const struct {
    const char *name;
    size_t offset;
} counts[] = {
#define X(name) {#name, offsetof(opd_checkpoint_state, name)},
    OPD_CHECKPOINT_COUNTS(X)
#undef X
};

static uint64_t *count_at(opd_checkpoint_state *state, size_t i) {
    return (uint64_t *)(void *)((char *)state + counts[i].offset);
}

void opd_checkpoint_path(const char *dir, uint64_t step, char *out) {
    (void)snprintf(out, OPD_PATH_SIZE, "%s/step-%06" PRIu64, dir, step);
}

/* Removes a folder of plain files; what is not there is fine. */
static opd_err remove_folder(const char *path) {
    DIR *folder = opendir(path);
    if (folder == NULL && errno == ENOENT) return OPD_OK;
    if (folder == NULL)
        return opd_fail(OPD_ERR_IO, "%s cannot be replaced: %s", path, strerror(errno));
    for (struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder)) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        char file[OPD_PATH_SIZE];
        if (opd_path_join(file, sizeof file, path, entry->d_name) == OPD_OK) (void)unlink(file);
    }
    (void)closedir(folder);
    if (rmdir(path) != 0)
        return opd_fail(OPD_ERR_IO, "%s cannot be removed: %s", path, strerror(errno));
    return OPD_OK;
}

/* ---- writing ---- */

/* Block 0 of a state holds the weights, 1 and 2 their moments; a tensor's name in each. */
static void block_name(size_t block, const opd_tensor *weights, char out[OPD_TENSOR_NAME_SIZE]) {
    static const char *const prefixes[] = {"", "m.", "v."};
    (void)snprintf(out, OPD_TENSOR_NAME_SIZE, "%s%.*s", prefixes[block], OPD_TENSOR_NAME_SIZE - 3,
                   weights->name);
}

/* Writes the blocks from `first` on of a state [3 * param_count] as one file. */
static opd_err write_blocks(const char *dir, const char *name, const opd_model *model, size_t first,
                            const float *state, const opd_alloc *alloc) {
    size_t n = model->tensor_count, count = (3 - first) * n;
    char path[OPD_PATH_SIZE];
    OPD_TRY(opd_path_join(path, sizeof path, dir, name));
    opd_tensor *table = opd_mem_get(alloc, count * sizeof *table);
    if (table == NULL) return opd_fail(OPD_ERR_NOMEM, "checkpoint: no memory");
    for (size_t i = 0; i < count; i++) {
        table[i] = model->tensors[i % n];
        table[i].offset += model->param_count * (first + i / n);
        block_name(first + i / n, &model->tensors[i % n], table[i].name);
    }
    opd_err err = opd_safetensors_write(path, table, count, state);
    opd_mem_free(alloc, table);
    return err;
}

static opd_err write_state(const char *dir, const opd_checkpoint_state *info) {
    char path[OPD_PATH_SIZE];
    opd_str text;
    OPD_TRY(opd_path_join(path, sizeof path, dir, "trainer_state.json"));
    opd_str_init(&text, NULL, STATE_BYTES_MAX);
    for (size_t i = 0; i < OPD_COUNTOF(counts); i++)
        opd_str_printf(&text, "%s  \"%s\": %" PRIu64, i == 0 ? "{\n" : ",\n", counts[i].name,
                       *count_at((opd_checkpoint_state *)(uintptr_t)info, i));
    opd_str_text(&text, "\n}\n");
    opd_err err = opd_str_status(&text);
    if (err == OPD_OK) err = opd_file_write_atomic(path, text.data, text.size);
    opd_str_fini(&text);
    return err;
}

static opd_err write_files(const char *dir, const opd_model *model, const opd_model *critic,
                           const opd_tokenizer *tokenizer, const opd_checkpoint_state *info,
                           const float *state, const opd_alloc *alloc) {
    opd_model snapshot = *model; /* same table, the weights of that moment */
    snapshot.params = (float *)(uintptr_t)state;
    OPD_TRY(opd_dir_make(dir));
    OPD_TRY(opd_model_save(&snapshot, dir));
    OPD_TRY(opd_tokenizer_save(tokenizer, dir));
    OPD_TRY(write_blocks(dir, "optimizer.safetensors", model, 1, state, alloc));
    if (critic != NULL)
        OPD_TRY(write_blocks(dir, "critic.safetensors", critic, 0, state + 3 * model->param_count,
                             alloc));
    return write_state(dir, info);
}

static int compare_steps(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* The steps of all checkpoints below dir, ascending; at most CHECKPOINTS_MAX. */
static size_t list_steps(const char *dir, uint64_t *steps) {
    size_t count = 0;
    DIR *folder = opendir(dir);
    if (folder == NULL) return 0;
    for (struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder)) {
        uint64_t step;
        char name[32]; /* only what we would call it is ours */
        if (sscanf(entry->d_name, "step-%" SCNu64, &step) != 1) continue;
        (void)snprintf(name, sizeof name, "step-%06" PRIu64, step);
        if (strcmp(entry->d_name, name) == 0 && count < CHECKPOINTS_MAX) steps[count++] = step;
    }
    (void)closedir(folder);
    qsort(steps, count, sizeof *steps, compare_steps);
    return count;
}

static void prune(const char *dir, uint32_t keep, const opd_checkpoint_state *info) {
    uint64_t steps[CHECKPOINTS_MAX];
    size_t count = keep > 0 ? list_steps(dir, steps) : 0;
    for (size_t i = 0; i + keep < count; i++) {
        char path[OPD_PATH_SIZE];
        if (steps[i] == info->best_step || steps[i] == info->judged_step) continue;
        opd_checkpoint_path(dir, steps[i], path);
        if (remove_folder(path) != OPD_OK) OPD_LOG_WARN("checkpoint: %s", opd_err_context());
    }
}

static opd_err fail_place(void) {
    int code = errno;
    return opd_fail(code == ENOSPC || code == EDQUOT ? OPD_ERR_DISK : OPD_ERR_IO,
                    "it cannot be put in place: %s", strerror(code));
}

/* For file systems that cannot exchange two names: the old one steps aside for a moment. */
static opd_err put_in_place_by_steps(const char *part, const char *path) {
    char aside[OPD_PATH_SIZE];
    if (snprintf(aside, sizeof aside, "%s.old", part) >= (int)sizeof aside)
        return opd_fail(OPD_ERR_LIMIT, "%s: the path is too long", path);
    OPD_TRY(remove_folder(aside));
    bool moved = rename(path, aside) == 0;
    if (!moved && errno != ENOENT) return fail_place();
    if (rename(part, path) != 0) {
        opd_err err = fail_place();
        if (moved && rename(aside, path) != 0) OPD_LOG_ERROR("%s is now called %s", path, aside);
        return err;
    }
    return remove_folder(aside);
}

/* Makes the written folder the checkpoint; an old one of that step leaves in the same move, so
 * that at no moment there is neither. */
static opd_err put_in_place(const char *part, const char *path) {
    if (renameat2(AT_FDCWD, part, AT_FDCWD, path, RENAME_EXCHANGE) == 0)
        return remove_folder(part); /* the old one */
    if (errno == EINVAL || errno == ENOSYS) return put_in_place_by_steps(part, path);
    if (errno != ENOENT) return fail_place(); /* the old one stays */
    return rename(part, path) == 0 ? OPD_OK : fail_place();
}

/* The error that ended a write, with what there was of it removed. */
static opd_err give_up(const char *part, const char *path, opd_err err) {
    char context[1024];
    (void)snprintf(context, sizeof context, "%s", opd_err_context());
    (void)remove_folder(part);
    return opd_fail(err, "%s: %s", path, context);
}

opd_err opd_checkpoint_write(const char *dir, const opd_model *model, const opd_model *critic,
                             const opd_tokenizer *tokenizer, const opd_checkpoint_state *info,
                             const float *state, uint32_t keep, const opd_alloc *alloc) {
    char path[OPD_PATH_SIZE], part[OPD_PATH_SIZE];
    opd_checkpoint_path(dir, info->step, path);
    if (snprintf(part, sizeof part, "%s/.part-%06" PRIu64, dir, info->step) >= (int)sizeof part)
        return opd_fail(OPD_ERR_LIMIT, "%s: the path is too long", dir);
    OPD_TRY(opd_dir_make(dir));
    OPD_TRY(remove_folder(part));
    opd_err err = write_files(part, model, critic, tokenizer, info, state, alloc);
    if (err != OPD_OK) return give_up(part, path, err);
    err = put_in_place(part, path);
    if (err != OPD_OK) return give_up(part, path, err);
    prune(dir, keep, info);
    return OPD_OK;
}

/* ---- reading ---- */

opd_err opd_checkpoint_newest(const char *dir, uint64_t *out_step) {
    uint64_t steps[CHECKPOINTS_MAX];
    size_t count = list_steps(dir, steps);
    if (count == 0) return opd_fail(OPD_ERR_NOT_FOUND, "%s holds no checkpoint", dir);
    *out_step = steps[count - 1];
    return OPD_OK;
}

/* Fills blocks[i] [param_count] from the file; one that is NULL is not read. */
static opd_err read_blocks(const char *dir, const char *name, const opd_model *model,
                           float *const blocks[3], const opd_alloc *alloc) {
    char path[OPD_PATH_SIZE], tensor_name[OPD_TENSOR_NAME_SIZE];
    OPD_TRY(opd_path_join(path, sizeof path, dir, name));
    opd_safetensors *file;
    OPD_TRY(opd_safetensors_open(path, alloc, &file));
    opd_err err = OPD_OK;
    for (size_t i = 0; i < 3 * model->tensor_count && err == OPD_OK; i++) {
        const opd_tensor *weights = &model->tensors[i % model->tensor_count];
        size_t block = i / model->tensor_count;
        if (blocks[block] == NULL) continue;
        block_name(block, weights, tensor_name);
        const opd_safetensor *tensor = opd_safetensors_find(file, tensor_name);
        if (tensor == NULL || tensor->count != weights->count)
            err = opd_fail(OPD_ERR_MISMATCH, "%s: tensor %s is missing or of another shape", path,
                           tensor_name);
        else
            opd_safetensors_read(file, tensor, blocks[block] + weights->offset);
    }
    opd_safetensors_close(file);
    return err;
}

opd_err opd_checkpoint_read_moments(const char *path, const opd_model *model,
                                    opd_optimizer *optimizer, const opd_alloc *alloc) {
    float *const blocks[] = {NULL, optimizer->m, optimizer->v};
    return read_blocks(path, "optimizer.safetensors", model, blocks, alloc);
}

opd_err opd_checkpoint_read_critic(const char *path, opd_model *head, opd_optimizer *optimizer,
                                   const opd_alloc *alloc) {
    float *const blocks[] = {head->params, optimizer->m, optimizer->v};
    return read_blocks(path, "critic.safetensors", head, blocks, alloc);
}

static bool read_count(opd_json *json, uint64_t *out) {
    int64_t value;
    if (!opd_json_read_int64(json, &value)) return false;
    if (value < 0) return opd_json_error(json, "expected a count");
    *out = (uint64_t)value;
    return true;
}

static opd_err parse_state(const char *text, size_t size, opd_checkpoint_state *out) {
    unsigned seen = 0;
    opd_json json;
    opd_json_text key;
    opd_json_init(&json, text, size);
    (void)opd_json_object_begin(&json);
    while (opd_json_object_next(&json, &key)) {
        size_t i = 0;
        while (i < OPD_COUNTOF(counts) && !opd_json_text_is(key, counts[i].name)) i++;
        if (i == OPD_COUNTOF(counts)) (void)opd_json_skip(&json);
        else if (read_count(&json, count_at(out, i))) seen |= 1u << i;
    }
    OPD_TRY(opd_json_finish(&json));
    for (size_t i = 0; i < OPD_COUNTOF(counts); i++)
        if ((seen >> i & 1u) == 0)
            return opd_fail(OPD_ERR_PARSE, "\"%s\" is missing", counts[i].name);
    return OPD_OK;
}

opd_err opd_checkpoint_read(const char *path, const opd_alloc *alloc,
                            opd_checkpoint_state *out_info) {
    char file[OPD_PATH_SIZE], *text;
    size_t size;
    OPD_TRY(opd_path_join(file, sizeof file, path, "trainer_state.json"));
    OPD_TRY(opd_file_read(alloc, file, STATE_BYTES_MAX, &text, &size));
    opd_err err = parse_state(text, size, out_info);
    opd_mem_free(alloc, text);
    return opd_err_prefix(err, "%s", file);
}
