/* models/model_config.c - reads and writes config.json and generation_config.json.
 *
 * Invariant: a configuration is returned only if the graph computes exactly what the file
 * describes; whatever would change the arithmetic is either read or refused.
 * Thread: any. Memory: freed before return.
 */
#include "models/model_config.h"

#include <string.h>

#include "core/base/check.h"
#include "core/base/file.h"
#include "core/base/str.h"
#include "core/codec/json.h"

enum { FILE_MAX = 1 << 20, WORD_SIZE = 64, ABSENT = -1 };

/* What config.json says beyond the numbers of opd_model_config. */
typedef struct config_file {
    opd_model_config config;
    bool has_config; /* an "architectures" key was there */
    char architecture[WORD_SIZE];
    char activation[WORD_SIZE];
    bool bias, scaled_rope;
} config_file;

static bool read_int32(opd_json *json, int32_t *out) {
    int64_t value;
    if (opd_json_peek(json) == OPD_JSON_NULL) return opd_json_read_null(json);
    if (!opd_json_read_int64(json, &value)) return false;
    if (value < INT32_MIN || value > INT32_MAX) return opd_json_error(json, "the number is too large");
    *out = (int32_t)value;
    return true;
}

/* The ids of an integer or a list of them; null gives none. */
static void read_ids(opd_json *json, int32_t *out_ids, int32_t *out_count) {
    int32_t id = ABSENT;
    *out_count = 0;
    if (opd_json_peek(json) == OPD_JSON_ARRAY) {
        opd_json_array_begin(json);
        while (opd_json_array_next(json)) {
            if (*out_count == OPD_EOS_IDS_MAX) {
                opd_json_error(json, "more end-of-sequence ids than 8");
                return;
            }
            if (read_int32(json, &id) && id >= 0) out_ids[(*out_count)++] = id;
        }
        return;
    }
    if (read_int32(json, &id) && id >= 0) out_ids[(*out_count)++] = id;
}

static void read_architecture(opd_json *json, config_file *file) {
    if (!opd_json_array_begin(json)) return;
    while (opd_json_array_next(json))
        (void)opd_json_read_string(json, file->architecture, sizeof file->architecture);
    file->has_config = true;
}

/* transformers 5 keeps rope_theta inside rope_parameters; rope_type other than default scales. */
static void read_rope(opd_json *json, config_file *file) {
    opd_json_text key, type;
    if (opd_json_peek(json) == OPD_JSON_NULL) {
        opd_json_read_null(json);
        return;
    }
    if (!opd_json_object_begin(json)) return;
    while (opd_json_object_next(json, &key)) {
        if (opd_json_text_is(key, "rope_theta")) {
            opd_json_read_double(json, &file->config.rope_theta);
        } else if (opd_json_text_is(key, "rope_type") || opd_json_text_is(key, "type")) {
            if (opd_json_read_text(json, &type) && !opd_json_text_is(type, "default"))
                file->scaled_rope = true;
        } else {
            opd_json_skip(json);
        }
    }
}

static int32_t *int_field(opd_model_config *c, opd_json_text key) {
    const struct {
        const char *key;
        int32_t *value;
    } fields[] = {{"vocab_size", &c->vocab_size},
                  {"hidden_size", &c->hidden_size},
                  {"intermediate_size", &c->intermediate_size},
                  {"num_hidden_layers", &c->layers},
                  {"num_attention_heads", &c->heads},
                  {"num_key_value_heads", &c->kv_heads},
                  {"head_dim", &c->head_dim},
                  {"max_position_embeddings", &c->max_position},
                  {"bos_token_id", &c->bos_id},
                  {"pad_token_id", &c->pad_id}};
    for (size_t i = 0; i < OPD_COUNTOF(fields); i++)
        if (opd_json_text_is(key, fields[i].key)) return fields[i].value;
    return NULL;
}

static void read_member(opd_json *json, opd_json_text key, config_file *file) {
    opd_model_config *c = &file->config;
    int32_t *number = int_field(c, key), ids[OPD_EOS_IDS_MAX], count;
    bool flag = false;
    if (number != NULL) {
        (void)read_int32(json, number);
    } else if (opd_json_text_is(key, "eos_token_id")) {
        read_ids(json, ids, &count);
        if (count > 0) c->eos_id = ids[0];
    } else if (opd_json_text_is(key, "architectures")) {
        read_architecture(json, file);
    } else if (opd_json_text_is(key, "hidden_act")) {
        (void)opd_json_read_string(json, file->activation, sizeof file->activation);
    } else if (opd_json_text_is(key, "rms_norm_eps")) {
        (void)opd_json_read_double(json, &c->rms_eps);
    } else if (opd_json_text_is(key, "rope_theta")) {
        (void)opd_json_read_double(json, &c->rope_theta);
    } else if (opd_json_text_is(key, "rope_scaling") || opd_json_text_is(key, "rope_parameters")) {
        read_rope(json, file);
    } else if (opd_json_text_is(key, "tie_word_embeddings")) {
        (void)opd_json_read_bool(json, &c->tie_embeddings);
    } else if (opd_json_text_is(key, "attention_bias") || opd_json_text_is(key, "mlp_bias")) {
        if (opd_json_read_bool(json, &flag) && flag) file->bias = true;
    } else {
        (void)opd_json_skip(json);
    }
}

static opd_err check_features(const config_file *file) {
    if (!file->has_config)
        return opd_fail(OPD_ERR_INVALID, "no \"architectures\"; a model directory of Hugging Face has it");
    if (strcmp(file->architecture, "LlamaForCausalLM") != 0)
        return opd_fail(OPD_ERR_UNSUPPORTED, "architecture %s; this version computes LlamaForCausalLM",
                        file->architecture);
    if (strcmp(file->activation, "silu") != 0)
        return opd_fail(OPD_ERR_UNSUPPORTED, "hidden_act %s; LlamaForCausalLM is computed with silu",
                        file->activation);
    if (file->bias)
        return opd_fail(OPD_ERR_UNSUPPORTED, "attention_bias or mlp_bias is true; biases are not computed");
    if (file->scaled_rope)
        return opd_fail(OPD_ERR_UNSUPPORTED, "rope_scaling is set; only plain RoPE is computed");
    return OPD_OK;
}

static opd_err parse_config(const char *data, size_t size, opd_model_config *out) {
    /* The defaults of transformers' LlamaConfig where a key may be missing. */
    config_file file = {.activation = "silu",
                        .config = {.max_position = 2048, .rope_theta = 10000, .rms_eps = 1e-6,
                                   .bos_id = ABSENT, .eos_id = ABSENT, .pad_id = ABSENT}};
    opd_json json;
    opd_json_text key;
    opd_json_init(&json, data, size);
    opd_json_object_begin(&json);
    while (opd_json_object_next(&json, &key)) read_member(&json, key, &file);
    OPD_TRY(opd_json_finish(&json));
    OPD_TRY(check_features(&file));
    opd_model_config *c = &file.config;
    if (c->kv_heads == 0) c->kv_heads = c->heads;
    if (c->head_dim == 0 && c->heads > 0) c->head_dim = c->hidden_size / c->heads;
    OPD_TRY(opd_model_config_check(c));
    *out = *c;
    return OPD_OK;
}

opd_err opd_model_config_read(const char *dir, opd_model_config *out_config) {
    char path[OPD_PATH_SIZE];
    char *data;
    size_t size;
    OPD_TRY(opd_path_join(path, sizeof path, dir, "config.json"));
    OPD_TRY(opd_file_read(NULL, path, FILE_MAX, &data, &size));
    opd_err err = opd_err_prefix(parse_config(data, size, out_config), "%s", path);
    opd_mem_free(NULL, data);
    return err;
}

static void write_int(opd_json_writer *w, const char *key, int64_t value) {
    opd_json_write_key(w, key);
    opd_json_write_int64(w, value);
}

static void write_id(opd_json_writer *w, const char *key, int32_t id) {
    opd_json_write_key(w, key);
    if (id < 0) opd_json_write_null(w);
    else opd_json_write_int64(w, id);
}

static void write_word(opd_json_writer *w, const char *key, const char *value) {
    opd_json_write_key(w, key);
    opd_json_write_text(w, value);
}

static void write_flag(opd_json_writer *w, const char *key, bool value) {
    opd_json_write_key(w, key);
    opd_json_write_bool(w, value);
}

static void write_real(opd_json_writer *w, const char *key, double value) {
    opd_json_write_key(w, key);
    opd_json_write_double(w, value);
}

static void write_config(const opd_model_config *c, opd_str *out) {
    opd_json_writer w;
    opd_json_writer_init(&w, out, 2);
    opd_json_write_object_begin(&w);
    opd_json_write_key(&w, "architectures");
    opd_json_write_array_begin(&w);
    opd_json_write_text(&w, "LlamaForCausalLM");
    opd_json_write_array_end(&w);
    write_flag(&w, "attention_bias", false);
    write_real(&w, "attention_dropout", 0);
    write_id(&w, "bos_token_id", c->bos_id);
    write_id(&w, "eos_token_id", c->eos_id);
    write_int(&w, "head_dim", c->head_dim);
    write_word(&w, "hidden_act", "silu");
    write_int(&w, "hidden_size", c->hidden_size);
    write_real(&w, "initializer_range", 0.02);
    write_int(&w, "intermediate_size", c->intermediate_size);
    write_int(&w, "max_position_embeddings", c->max_position);
    write_flag(&w, "mlp_bias", false);
    write_word(&w, "model_type", "llama");
    write_int(&w, "num_attention_heads", c->heads);
    write_int(&w, "num_hidden_layers", c->layers);
    write_int(&w, "num_key_value_heads", c->kv_heads);
    write_id(&w, "pad_token_id", c->pad_id);
    write_int(&w, "pretraining_tp", 1);
    write_real(&w, "rms_norm_eps", c->rms_eps);
    opd_json_write_key(&w, "rope_scaling");
    opd_json_write_null(&w);
    write_real(&w, "rope_theta", c->rope_theta);
    write_flag(&w, "tie_word_embeddings", c->tie_embeddings);
    write_word(&w, "torch_dtype", "float32");
    write_flag(&w, "use_cache", true);
    write_int(&w, "vocab_size", c->vocab_size);
    opd_json_write_object_end(&w);
    opd_str_text(out, "\n");
}

/* Writes the text to dir/name atomically and frees it. */
static opd_err write_file(const char *dir, const char *name, opd_str *text) {
    char path[OPD_PATH_SIZE];
    opd_err err = opd_str_status(text);
    if (err == OPD_OK) err = opd_path_join(path, sizeof path, dir, name);
    if (err == OPD_OK) err = opd_file_write_atomic(path, text->data, text->size);
    opd_str_fini(text);
    return err;
}

opd_err opd_model_config_write(const opd_model_config *config, const char *dir) {
    opd_str text;
    opd_str_init(&text, NULL, FILE_MAX);
    write_config(config, &text);
    return write_file(dir, "config.json", &text);
}

static opd_err parse_generation(const char *data, size_t size, opd_generation_config *out) {
    opd_json json;
    opd_json_text key;
    int32_t ids[OPD_EOS_IDS_MAX], count;
    opd_json_init(&json, data, size);
    opd_json_object_begin(&json);
    while (opd_json_object_next(&json, &key)) {
        bool null = opd_json_peek(&json) == OPD_JSON_NULL;
        if (null) opd_json_read_null(&json); /* null means "use the default" */
        else if (opd_json_text_is(key, "temperature")) opd_json_read_double(&json, &out->temperature);
        else if (opd_json_text_is(key, "top_p")) opd_json_read_double(&json, &out->top_p);
        else if (opd_json_text_is(key, "top_k")) read_int32(&json, &out->top_k);
        else if (opd_json_text_is(key, "bos_token_id")) read_int32(&json, &out->bos_id);
        else if (opd_json_text_is(key, "pad_token_id")) read_int32(&json, &out->pad_id);
        else if (opd_json_text_is(key, "eos_token_id")) {
            read_ids(&json, ids, &count);
            if (count > 0) {
                memcpy(out->eos_ids, ids, (size_t)count * sizeof ids[0]);
                out->eos_count = count;
            }
        } else {
            opd_json_skip(&json);
        }
    }
    OPD_TRY(opd_json_finish(&json));
    if (!(out->temperature >= 0) || !(out->top_p > 0 && out->top_p <= 1) || out->top_k < -1)
        return opd_fail(OPD_ERR_INVALID, "temperature must be >= 0, top_p in (0, 1], top_k >= -1");
    if (out->top_k == -1) out->top_k = 0;
    return OPD_OK;
}

opd_err opd_generation_config_read(const char *dir, const opd_model_config *config,
                                   opd_generation_config *out_config) {
    char path[OPD_PATH_SIZE];
    char *data;
    size_t size;
    *out_config = (opd_generation_config){.temperature = 1, .top_p = 1,
                                          .bos_id = config->bos_id, .pad_id = config->pad_id};
    if (config->eos_id >= 0) out_config->eos_ids[out_config->eos_count++] = config->eos_id;
    OPD_TRY(opd_path_join(path, sizeof path, dir, "generation_config.json"));
    if (!opd_file_exists(path)) return OPD_OK;
    OPD_TRY(opd_file_read(NULL, path, FILE_MAX, &data, &size));
    opd_err err = opd_err_prefix(parse_generation(data, size, out_config), "%s", path);
    opd_mem_free(NULL, data);
    return err;
}

opd_err opd_generation_config_write(const opd_generation_config *config, const char *dir) {
    opd_str text;
    opd_json_writer w;
    bool sampled = config->temperature > 0;
    opd_str_init(&text, NULL, FILE_MAX);
    opd_json_writer_init(&w, &text, 2);
    opd_json_write_object_begin(&w);
    write_id(&w, "bos_token_id", config->bos_id);
    write_flag(&w, "do_sample", sampled);
    opd_json_write_key(&w, "eos_token_id");
    if (config->eos_count == 1) {
        opd_json_write_int64(&w, config->eos_ids[0]);
    } else {
        opd_json_write_array_begin(&w);
        for (int32_t i = 0; i < config->eos_count; i++) opd_json_write_int64(&w, config->eos_ids[i]);
        opd_json_write_array_end(&w);
    }
    write_id(&w, "pad_token_id", config->pad_id);
    if (sampled) { /* transformers warns of these without sampling */
        write_real(&w, "temperature", config->temperature);
        write_int(&w, "top_k", config->top_k);
        write_real(&w, "top_p", config->top_p);
    }
    opd_json_write_object_end(&w);
    opd_str_text(&text, "\n");
    return write_file(dir, "generation_config.json", &text);
}
