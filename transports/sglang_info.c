/* transports/sglang_info.c - /model_info and /server_info of sglang.h.
 * Thread: any. Memory: plain data. */
#include <string.h>

#include "core/base/check.h"
#include "transports/sglang.h"

/* A text field of another kind, or too long, is not told. */
static void read_text_field(opd_json *json, char *out, size_t out_size) {
    opd_json mark;
    if (opd_json_peek(json) != OPD_JSON_STRING) {
        opd_json_skip(json);
        return;
    }
    mark = *json;
    if (!opd_json_read_string(json, out, out_size)) {
        *json = mark;
        out[0] = '\0';
        opd_json_skip(json);
    }
}

/* The first of a list, since EOS may be several ids. */
static void read_number_field(opd_json *json, int64_t *out) {
    if (opd_json_peek(json) == OPD_JSON_NUMBER) {
        opd_json_read_int64(json, out);
    } else if (opd_json_peek(json) == OPD_JSON_ARRAY) {
        bool first = true;
        opd_json_array_begin(json);
        while (opd_json_array_next(json)) {
            if (first) opd_json_read_int64(json, out);
            else opd_json_skip(json);
            first = false;
        }
    } else {
        opd_json_skip(json);
    }
}

static void read_flag_field(opd_json *json, int *out) {
    bool value = false;
    if (opd_json_peek(json) != OPD_JSON_BOOL) opd_json_skip(json);
    else if (opd_json_read_bool(json, &value)) *out = value;
}

opd_err opd_sglang_server_info_read(const char *body, size_t size_bytes,
                                    opd_sglang_server_info *out_info) {
    opd_sglang_server_info info = {.max_input = -1, .context_size = -1, .max_running = -1, .http2 = -1};
    opd_json json;
    opd_json_text key;
    opd_json_init(&json, body, size_bytes);
    opd_json_object_begin(&json);
    while (opd_json_object_next(&json, &key)) {
        if (opd_json_text_is(key, "server")) read_text_field(&json, info.server, sizeof info.server);
        else if (opd_json_text_is(key, "version")) read_text_field(&json, info.version, sizeof info.version);
        else if (opd_json_text_is(key, "max_req_input_len")) read_number_field(&json, &info.max_input);
        else if (opd_json_text_is(key, "context_length")) read_number_field(&json, &info.context_size);
        else if (opd_json_text_is(key, "max_running_requests")) read_number_field(&json, &info.max_running);
        else if (opd_json_text_is(key, "enable_http2")) read_flag_field(&json, &info.http2);
        else if (opd_json_text_is(key, "speculative_algorithm")) {
            info.speculative = opd_json_peek(&json) == OPD_JSON_STRING;
            opd_json_skip(&json);
        } else opd_json_skip(&json);
    }
    OPD_TRY(opd_err_prefix(opd_json_finish(&json), "/server_info"));
    *out_info = info;
    return OPD_OK;
}

opd_err opd_sglang_model_info_read(const char *body, size_t size_bytes,
                                   opd_sglang_model_info *out_info) {
    opd_sglang_model_info info = {.vocab_size = -1, .bos_id = -1, .eos_id = -1, .pad_id = -1, .context_size = -1};
    opd_json json;
    opd_json_text key;
    opd_json_init(&json, body, size_bytes);
    opd_json_object_begin(&json);
    while (opd_json_object_next(&json, &key)) {
        if (opd_json_text_is(key, "model_path")) read_text_field(&json, info.model_path, sizeof info.model_path);
        else if (opd_json_text_is(key, "weight_version")) read_text_field(&json, info.weight_version, sizeof info.weight_version);
        else if (opd_json_text_is(key, "model_type")) read_text_field(&json, info.model_type, sizeof info.model_type);
        else if (opd_json_text_is(key, "tokenizer_hash")) read_text_field(&json, info.tokenizer_hash, sizeof info.tokenizer_hash);
        else if (opd_json_text_is(key, "vocab_size")) read_number_field(&json, &info.vocab_size);
        else if (opd_json_text_is(key, "bos_token_id")) read_number_field(&json, &info.bos_id);
        else if (opd_json_text_is(key, "eos_token_id")) read_number_field(&json, &info.eos_id);
        else if (opd_json_text_is(key, "pad_token_id")) read_number_field(&json, &info.pad_id);
        else if (opd_json_text_is(key, "context_length")) read_number_field(&json, &info.context_size);
        else if (opd_json_text_is(key, "scores_at_temperature") && opd_json_peek(&json) == OPD_JSON_BOOL)
            opd_json_read_bool(&json, &info.scores_at_temperature);
        else opd_json_skip(&json);
    }
    OPD_TRY(opd_err_prefix(opd_json_finish(&json), "/model_info"));
    *out_info = info;
    return OPD_OK;
}

static void write_text_field(opd_json_writer *w, const char *key, const char *value) {
    opd_json_write_key(w, key);
    opd_json_write_text(w, value);
}

static void write_number_field(opd_json_writer *w, const char *key, int64_t value) {
    opd_json_write_key(w, key);
    if (value < 0) opd_json_write_null(w);
    else opd_json_write_int64(w, value);
}

void opd_sglang_model_info_write(const opd_sglang_model_info *info, opd_str *out) {
    opd_json_writer w;
    opd_json_writer_init(&w, out, 0);
    opd_json_write_object_begin(&w);
    write_text_field(&w, "model_path", info->model_path);
    write_text_field(&w, "tokenizer_path", info->model_path);
    opd_json_write_key(&w, "is_generation");
    opd_json_write_bool(&w, true);
    write_text_field(&w, "weight_version", info->weight_version);
    write_text_field(&w, "model_type", info->model_type);
    write_number_field(&w, "vocab_size", info->vocab_size);
    write_number_field(&w, "bos_token_id", info->bos_id);
    write_number_field(&w, "eos_token_id", info->eos_id);
    write_number_field(&w, "pad_token_id", info->pad_id);
    write_number_field(&w, "context_length", info->context_size);
    write_text_field(&w, "tokenizer_hash", info->tokenizer_hash);
    opd_json_write_key(&w, "scores_at_temperature");
    opd_json_write_bool(&w, info->scores_at_temperature);
    opd_json_write_object_end(&w);
}
