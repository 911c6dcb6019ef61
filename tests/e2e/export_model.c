/* export_model.c - makes or reads a model directory for the independent readers.
 *
 *   export_model make DIR         writes a small random model and its tokenizer to DIR
 *   export_model dump DIR OUT     loads DIR and writes what opd holds of it to OUT:
 *     params.bin    float32 weights as they lie in memory
 *     tensors.json  [{"name", "shape", "offset"}] of them, offsets in floats
 *     texts.json    [{"text", "ids", "decoded"}] by opd's tokenizer
 *     logprobs.json {"ids": [n], "logprobs": [[vocab] of each token]}, log-softmax in float32
 * Exit status 1 and one line on stderr on error.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/check.h"
#include "core/base/file.h"
#include "core/codec/json.h"
#include "kernels/kernels.h"
#include "models/graph.h"
#include "models/safetensors.h"
#include "models/tokenizer.h"

enum { TOKENS = 24, TEXT_MAX = 256 << 20 };

static const char *const texts[] = {
    "", "a", " a", "12 + 34 = 46", "  two  spaces\n\ttab\r\n", "caf\xc3\xa9 na\xc3\xafve \xe2\x82\xac",
    "\xf0\x9f\x98\x80 emoji \xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x92\xbb", "<s>in</s> text <pad>", "<s", "</s></s>",
    "don't 'quote' \"it\"", "\xc2\xa0nbsp\xc2\xad", "\x01\x7f control", "\xe6\xbc\xa2\xe5\xad\x97", "<<s>>", " <s> "};

static opd_err make(const char *dir) {
    const opd_model_config config = {.vocab_size = 259, .hidden_size = 32, .intermediate_size = 88, .layers = 3,
                                     .heads = 4, .kv_heads = 2, .head_dim = 8, .max_position = 64,
                                     .rope_theta = 10000, .rms_eps = 1e-5, .tie_embeddings = true,
                                     .bos_id = 1, .eos_id = 2, .pad_id = 0};
    opd_model *model = NULL;
    opd_tokenizer *tokenizer = NULL;
    opd_err err = opd_model_create(&config, 1, NULL, &model);
    if (err == OPD_OK) {
        /* Larger weights than at birth, so that a wrong detail shows in the log-probs. */
        for (size_t i = 0; i < model->param_count; i++) model->params[i] *= 4;
        err = opd_model_save(model, dir);
    }
    if (err == OPD_OK) err = opd_tokenizer_create_bytes(NULL, &tokenizer);
    if (err == OPD_OK) err = opd_tokenizer_save(tokenizer, dir);
    opd_tokenizer_destroy(tokenizer);
    opd_model_destroy(model);
    return err;
}

static opd_err save(const char *dir, const char *name, const void *data, size_t size) {
    char path[OPD_PATH_SIZE];
    OPD_TRY(opd_path_join(path, sizeof path, dir, name));
    return opd_file_write_atomic(path, data, size);
}

static opd_err dump_weights(const opd_model *model, const char *out, opd_str *text) {
    opd_json_writer w;
    opd_json_writer_init(&w, text, 0);
    opd_json_write_array_begin(&w);
    for (size_t i = 0; i < model->tensor_count; i++) {
        const opd_tensor *t = &model->tensors[i];
        opd_json_write_object_begin(&w);
        opd_json_write_key(&w, "name");
        opd_json_write_text(&w, t->name);
        opd_json_write_key(&w, "shape");
        opd_json_write_array_begin(&w);
        for (int32_t d = 0; d < t->rank; d++) opd_json_write_int64(&w, (int64_t)t->shape[d]);
        opd_json_write_array_end(&w);
        opd_json_write_key(&w, "offset");
        opd_json_write_int64(&w, (int64_t)t->offset);
        opd_json_write_object_end(&w);
    }
    opd_json_write_array_end(&w);
    OPD_TRY(opd_str_status(text));
    OPD_TRY(save(out, "tensors.json", text->data, text->size));
    return save(out, "params.bin", model->params, model->param_count * sizeof(float));
}

static opd_err dump_texts(const opd_tokenizer *tokenizer, const char *out, opd_str *text) {
    opd_json_writer w;
    opd_str decoded;
    int32_t ids[256];
    size_t count;
    opd_str_init(&decoded, NULL, 1 << 16);
    opd_json_writer_init(&w, text, 0);
    opd_json_write_array_begin(&w);
    for (size_t i = 0; i < OPD_COUNTOF(texts); i++) {
        OPD_TRY(opd_tokenizer_encode(tokenizer, texts[i], strlen(texts[i]), true, ids, OPD_COUNTOF(ids), &count));
        opd_str_clear(&decoded);
        opd_tokenizer_decode(tokenizer, ids, count, true, &decoded);
        opd_json_write_object_begin(&w);
        opd_json_write_key(&w, "text");
        opd_json_write_text(&w, texts[i]);
        opd_json_write_key(&w, "ids");
        opd_json_write_array_begin(&w);
        for (size_t j = 0; j < count; j++) opd_json_write_int64(&w, ids[j]);
        opd_json_write_array_end(&w);
        opd_json_write_key(&w, "decoded");
        opd_json_write_string(&w, decoded.data, decoded.size);
        opd_json_write_object_end(&w);
    }
    opd_json_write_array_end(&w);
    opd_str_fini(&decoded);
    OPD_TRY(opd_str_status(text));
    return save(out, "texts.json", text->data, text->size);
}

/* The whole distribution after each token: a top-k of the whole vocabulary. */
static opd_err score_all(const opd_model *model, const int32_t *ids, int32_t *top_ids, float *top_logp) {
    opd_score_row rows[TOKENS];
    const size_t starts[] = {0, TOKENS};
    const opd_packed packed = {1, starts, ids};
    const opd_scores scores = {.top_k = (size_t)model->config.vocab_size, .top_ids = top_ids, .top_logp = top_logp};
    opd_kernels *kernels = NULL;
    opd_graph *graph = NULL;
    for (size_t i = 0; i < TOKENS; i++) rows[i] = (opd_score_row){.row = i, .inverse_temperature = 1};
    opd_err err = opd_kernels_create_cpu(OPD_CPU_ISA_AUTO, 1, NULL, &kernels);
    if (err == OPD_OK) err = opd_graph_create(kernels, &model->config, OPD_GRAPH_SCORE, TOKENS, NULL, &graph);
    if (err == OPD_OK) {
        opd_graph_set_weights(graph, model->params);
        err = opd_graph_forward(graph, &packed);
    }
    if (err == OPD_OK) err = opd_graph_score(graph, rows, TOKENS, &scores);
    opd_graph_destroy(graph);
    opd_kernels_destroy(kernels);
    return err;
}

static void write_logprobs(const int32_t *ids, const int32_t *top_ids, const float *top_logp, size_t vocab,
                           float *row, opd_str *text) {
    opd_json_writer w;
    opd_json_writer_init(&w, text, 0);
    opd_json_write_object_begin(&w);
    opd_json_write_key(&w, "ids");
    opd_json_write_array_begin(&w);
    for (size_t i = 0; i < TOKENS; i++) opd_json_write_int64(&w, ids[i]);
    opd_json_write_array_end(&w);
    opd_json_write_key(&w, "logprobs");
    opd_json_write_array_begin(&w);
    for (size_t i = 0; i < TOKENS; i++) {
        for (size_t j = 0; j < vocab; j++) row[top_ids[i * vocab + j]] = top_logp[i * vocab + j];
        opd_json_write_array_begin(&w);
        for (size_t j = 0; j < vocab; j++) opd_json_write_float(&w, row[j]);
        opd_json_write_array_end(&w);
    }
    opd_json_write_array_end(&w);
    opd_json_write_object_end(&w);
}

static opd_err dump_logprobs(const opd_model *model, const char *out, opd_str *text) {
    size_t vocab = (size_t)model->config.vocab_size;
    int32_t ids[TOKENS];
    for (size_t i = 0; i < TOKENS; i++) ids[i] = (int32_t)((i * i * 7 + i + 1) % vocab);
    int32_t *top_ids = calloc(TOKENS * vocab, sizeof *top_ids);
    float *top_logp = calloc((TOKENS + 1) * vocab, sizeof *top_logp);
    opd_err err = opd_fail(OPD_ERR_NOMEM, "no memory for the log-probs");
    if (top_ids != NULL && top_logp != NULL) err = score_all(model, ids, top_ids, top_logp);
    if (err == OPD_OK) {
        write_logprobs(ids, top_ids, top_logp, vocab, top_logp + TOKENS * vocab, text);
        err = opd_str_status(text);
    }
    if (err == OPD_OK) err = save(out, "logprobs.json", text->data, text->size);
    free(top_ids);
    free(top_logp);
    return err;
}

static opd_err dump(const char *dir, const char *out) {
    opd_model *model = NULL;
    opd_tokenizer *tokenizer = NULL;
    opd_str text;
    opd_str_init(&text, NULL, TEXT_MAX);
    opd_err err = opd_dir_make(out);
    if (err == OPD_OK) err = opd_model_open(dir, NULL, &model);
    if (err == OPD_OK) err = opd_tokenizer_open(dir, NULL, &tokenizer);
    if (err == OPD_OK) err = dump_weights(model, out, &text);
    opd_str_clear(&text);
    if (err == OPD_OK) err = dump_texts(tokenizer, out, &text);
    opd_str_clear(&text);
    if (err == OPD_OK) err = dump_logprobs(model, out, &text);
    opd_str_fini(&text);
    opd_tokenizer_destroy(tokenizer);
    opd_model_destroy(model);
    return err;
}

int main(int argc, char **argv) {
    opd_err err;
    if (argc == 3 && strcmp(argv[1], "make") == 0) {
        err = make(argv[2]);
    } else if (argc == 4 && strcmp(argv[1], "dump") == 0) {
        err = dump(argv[2], argv[3]);
    } else {
        (void)fprintf(stderr, "usage: export_model make DIR | export_model dump DIR OUT\n");
        return 2;
    }
    if (err == OPD_OK) return 0;
    (void)fprintf(stderr, "export_model: %s: %s\n", opd_err_name(err), opd_err_context());
    return 1;
}
