/* models/model_dir.c - a whole model directory to an opd_model and back.
 *
 * Invariant: a model is returned only if every one of its weights was read, each from a
 * tensor of its name and shape, and no tensor of the files was left over.
 * Thread: any; blocking. Memory: the files are closed before return; the model is the
 * caller's.
 */
#include <stdio.h>
#include <string.h>

#include "core/base/check.h"
#include "core/base/file.h"
#include "core/base/str.h"
#include "core/codec/json.h"
#include "models/model_config.h"
#include "models/safetensors.h"

enum { SHARDS_MAX = 512, INDEX_MAX_BYTES = 64 << 20, SHARD_NAME_SIZE = 256 };

typedef struct shards {
    const opd_alloc *alloc;
    opd_safetensors *files[SHARDS_MAX];
    char names[SHARDS_MAX][SHARD_NAME_SIZE];
    size_t count;
} shards;

static opd_err open_shard(shards *all, const char *dir, const char *name) {
    char path[OPD_PATH_SIZE];
    for (size_t i = 0; i < all->count; i++)
        if (strcmp(all->names[i], name) == 0) return OPD_OK;
    if (all->count == SHARDS_MAX) return opd_fail(OPD_ERR_LIMIT, "%s: more than %d files", dir, SHARDS_MAX);
    if (strchr(name, '/') != NULL)
        return opd_fail(OPD_ERR_PARSE, "the index names \"%s\", which is not beside it", name);
    OPD_TRY(opd_path_join(path, sizeof path, dir, name));
    OPD_TRY(opd_safetensors_open(path, all->alloc, &all->files[all->count]));
    (void)snprintf(all->names[all->count++], SHARD_NAME_SIZE, "%s", name);
    return OPD_OK;
}

static opd_err open_indexed(shards *all, const char *dir, const char *data, size_t size) {
    opd_json json;
    opd_json_text key;
    char name[SHARD_NAME_SIZE];
    opd_json_init(&json, data, size);
    opd_json_object_begin(&json);
    while (opd_json_object_next(&json, &key)) {
        if (!opd_json_text_is(key, "weight_map")) {
            opd_json_skip(&json);
            continue;
        }
        opd_json_object_begin(&json);
        while (opd_json_object_next(&json, &key))
            if (opd_json_read_string(&json, name, sizeof name)) OPD_TRY(open_shard(all, dir, name));
    }
    return opd_json_finish(&json);
}

/* Opens model.safetensors, or else every file that the index names. */
static opd_err open_shards(shards *all, const char *dir) {
    char path[OPD_PATH_SIZE];
    char *data;
    size_t size;
    OPD_TRY(opd_path_join(path, sizeof path, dir, "model.safetensors"));
    if (opd_file_exists(path)) return open_shard(all, dir, "model.safetensors");
    OPD_TRY(opd_path_join(path, sizeof path, dir, "model.safetensors.index.json"));
    if (!opd_file_exists(path))
        return opd_fail(OPD_ERR_NOT_FOUND, "%s: neither model.safetensors nor model.safetensors.index.json is there", dir);
    OPD_TRY(opd_file_read(all->alloc, path, INDEX_MAX_BYTES, &data, &size));
    opd_err err = opd_err_prefix(open_indexed(all, dir, data, size), "%s", path);
    opd_mem_free(all->alloc, data);
    return err;
}

static void shape_text(char *out, size_t out_size, const size_t *shape, int32_t rank) {
    size_t at = 0;
    out[0] = '\0';
    for (int32_t i = 0; i < rank && at < out_size; i++)
        at += (size_t)snprintf(out + at, out_size - at, i > 0 ? ", %zu" : "%zu", shape[i]);
}

static opd_err load_tensor(const shards *all, const opd_tensor *tensor, float *out) {
    const opd_safetensor *found = NULL;
    const opd_safetensors *file = NULL;
    for (size_t i = 0; i < all->count && found == NULL; i++) {
        file = all->files[i];
        found = opd_safetensors_find(file, tensor->name);
    }
    if (found == NULL)
        return opd_fail(OPD_ERR_MISMATCH, "tensor %s is missing; config.json asks for it", tensor->name);
    if (found->rank != tensor->rank ||
        memcmp(found->shape, tensor->shape, (size_t)tensor->rank * sizeof found->shape[0]) != 0) {
        char has[64], needs[64];
        shape_text(has, sizeof has, found->shape, found->rank);
        shape_text(needs, sizeof needs, tensor->shape, tensor->rank);
        return opd_fail(OPD_ERR_MISMATCH, "tensor %s has shape [%s]; config.json asks for [%s]",
                        tensor->name, has, needs);
    }
    opd_safetensors_read(file, found, out);
    return OPD_OK;
}

/* Tensors that older exports carry although the model does not need them. */
static bool is_ignored(const opd_model *model, const char *name) {
    if (model->config.tie_embeddings && strcmp(name, "lm_head.weight") == 0) return true;
    return strstr(name, "rotary_emb.inv_freq") != NULL;
}

static opd_err check_extra(const shards *all, const opd_model *model) {
    for (size_t f = 0; f < all->count; f++) {
        for (size_t i = 0; i < opd_safetensors_count(all->files[f]); i++) {
            const char *name = opd_safetensors_at(all->files[f], i)->name;
            if (opd_model_find(model, name) == NULL && !is_ignored(model, name))
                return opd_fail(OPD_ERR_MISMATCH, "tensor %s belongs to no part of a model of this config.json", name);
        }
    }
    return OPD_OK;
}

static opd_err load_weights(const shards *all, opd_model *model) {
    for (size_t i = 0; i < model->tensor_count; i++)
        OPD_TRY(load_tensor(all, &model->tensors[i], model->params + model->tensors[i].offset));
    return check_extra(all, model);
}

opd_err opd_model_open(const char *dir, const opd_alloc *alloc, opd_model **out_model) {
    opd_model_config config;
    opd_model *model = NULL;
    OPD_TRY(opd_model_config_read(dir, &config));
    shards *all = opd_mem_get(alloc, sizeof *all);
    if (all == NULL) return opd_fail(OPD_ERR_NOMEM, "%s: no memory to open it", dir);
    all->alloc = alloc;
    opd_err err = open_shards(all, dir);
    if (err == OPD_OK) err = opd_model_create_empty(&config, alloc, &model);
    if (err == OPD_OK) err = opd_err_prefix(load_weights(all, model), "%s", dir);
    for (size_t i = 0; i < all->count; i++) opd_safetensors_close(all->files[i]);
    opd_mem_free(alloc, all);
    if (err != OPD_OK) {
        opd_model_destroy(model);
        return err;
    }
    *out_model = model;
    return OPD_OK;
}

opd_err opd_model_save(const opd_model *model, const char *dir) {
    char path[OPD_PATH_SIZE];
    opd_generation_config generation = {.temperature = 1, .top_p = 1,
                                        .bos_id = model->config.bos_id,
                                        .pad_id = model->config.pad_id,
                                        .eos_ids = {model->config.eos_id},
                                        .eos_count = model->config.eos_id >= 0 ? 1 : 0};
    OPD_TRY(opd_dir_make(dir));
    OPD_TRY(opd_path_join(path, sizeof path, dir, "model.safetensors"));
    OPD_TRY(opd_safetensors_write(path, model->tensors, model->tensor_count, model->params));
    OPD_TRY(opd_model_config_write(&model->config, dir));
    return opd_generation_config_write(&generation, dir);
}
