/* test_safetensors.c - the file reader against lying headers, the writer, whole directories. */
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include "core/base/file.h"
#include "models/model_config.h"
#include "models/safetensors.h"
#include "tests/support/alloc_test.h"
#include "tests/support/test.h"

/* Builds a file in memory: size, header, data bytes 0, 1, 2, ... */
static size_t make_file(unsigned char *out, const char *header, size_t data_bytes) {
    size_t n = strlen(header);
    for (size_t i = 0; i < 8; i++) out[i] = (unsigned char)(n >> 8 * i);
    memcpy(out + 8, header, n);
    for (size_t i = 0; i < data_bytes; i++) out[8 + n + i] = (unsigned char)i;
    return 8 + n + data_bytes;
}

static void refuse(const char *header, size_t data_bytes, const char *why) {
    unsigned char bytes[1024];
    opd_safetensors *file = NULL;
    size_t size = make_file(bytes, header, data_bytes);
    opd_err err = opd_safetensors_parse(bytes, size, NULL, &file);
    if (err == OPD_OK) opd_test_fail(__FILE__, __LINE__, "accepted: %s", header);
    CHECK(err == OPD_ERR_PARSE || err == OPD_ERR_UNSUPPORTED);
    CHECK_CONTAINS(opd_err_context(), why);
    CHECK(file == NULL);
}

TEST(safetensors_reads_all_three_dtypes) {
    static const unsigned char data[] = {0, 0, 0x80, 0x3F, 0, 0, 0x20, 0xC0, /* F32 1, -2.5 */
                                         0x80, 0x3F, 0x20, 0xC0,             /* BF16 1, -2.5 */
                                         0, 0x3C, 0, 0xC1, 1, 0, 0, 0xFC};   /* F16 1, -2.5, 2^-24, -inf */
    const char *header = "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
                         "\"b\":{\"dtype\":\"BF16\",\"shape\":[1,2],\"data_offsets\":[8,12]},"
                         "\"__metadata__\":{\"format\":\"pt\"},"
                         "\"c\":{\"dtype\":\"F16\",\"shape\":[2,2],\"data_offsets\":[12,20]}}";
    unsigned char bytes[1024];
    opd_safetensors *file;
    float v[4];
    size_t size = make_file(bytes, header, sizeof data);
    memcpy(bytes + size - sizeof data, data, sizeof data);
    CHECK_OK(opd_safetensors_parse(bytes, size, NULL, &file));
    CHECK_INT(opd_safetensors_count(file), 3);
    for (int i = 0; i < 2; i++) {
        const opd_safetensor *t = opd_safetensors_find(file, i == 0 ? "a" : "b");
        CHECK(t != NULL && t->count == 2);
        opd_safetensors_read(file, t, v);
        CHECK(v[0] == 1.0f && v[1] == -2.5f);
    }
    opd_safetensors_read(file, opd_safetensors_find(file, "c"), v);
    CHECK(v[0] == 1.0f && v[1] == -2.5f && v[2] == 0x1p-24f && v[3] == -INFINITY);
    CHECK(opd_safetensors_find(file, "d") == NULL);
    opd_safetensors_close(file);
}

TEST(safetensors_lying_headers_are_named) {
    refuse("{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 4, "tensor w: data_offsets [0, 8] lie outside");
    refuse("{\"w\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", 8, "tensor w: its shape needs 3 elements");
    refuse("{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", 8, "tensor w: data_offsets");
    refuse("{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[-8,0]}}", 8, "tensor w");
    refuse("{\"w\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", 8, "tensor w: impossible shape");
    refuse("{\"w\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,8],\"data_offsets\":[0,8]}}", 8, "tensor w: impossible");
    refuse("{\"w\":{\"dtype\":\"F32\",\"shape\":[4611686018427387906],\"data_offsets\":[0,8]}}", 8, "tensor w: its shape");
    refuse("{\"w\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[0,8]}}", 8, "tensor w: dtype \"I64\"");
    refuse("{\"w\":{\"shape\":[1],\"data_offsets\":[0,8]}}", 8, "tensor w: dtype");
    refuse("{\"w\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", 8, "tensor w: shape or data_offsets");
    refuse("{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]}}", 8, "tensor w: shape or data_offsets");
    refuse("{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8,8]}}", 8, "tensor w: byte");
    refuse("{\"w\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,2],\"data_offsets\":[0,8]}}", 8, "more than 4 dim");
    refuse("{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 8, "4 bytes at the end");
    refuse("{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, "tensor w: begins at data byte 4");
    refuse("{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
           "\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, "tensor x: begins at data byte 4");
    refuse("{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
           "\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, "tensor w is there twice");
    refuse("{\"w\":7}", 0, "tensor w: byte 5: expected an object");
    refuse("[1]", 0, "header: byte 0: expected an object");
    refuse("{", 0, "header");
}

TEST(safetensors_header_size_is_checked) {
    unsigned char bytes[16] = {9, 0, 0, 0, 0, 0, 0, 0, '{', '}', ' ', ' ', ' ', ' ', ' ', ' '};
    opd_safetensors *file;
    CHECK_ERR(opd_safetensors_parse(bytes, 16, NULL, &file), OPD_ERR_PARSE);
    CHECK_CONTAINS(opd_err_context(), "the header claims 9 bytes, the file has 8");
    memset(bytes, 0xFF, 8);
    CHECK_ERR(opd_safetensors_parse(bytes, 16, NULL, &file), OPD_ERR_PARSE);
    CHECK_ERR(opd_safetensors_parse(bytes, 7, NULL, &file), OPD_ERR_PARSE);
    CHECK_ERR(opd_safetensors_parse(NULL, 0, NULL, &file), OPD_ERR_PARSE);
    memset(bytes, 0, 8);
    bytes[0] = 8;
    CHECK_OK(opd_safetensors_parse(bytes, 16, NULL, &file));
    CHECK_INT(opd_safetensors_count(file), 0);
    opd_safetensors_close(file);
}

static void make_dir(char *out, size_t size, const char *name) {
    (void)snprintf(out, size, "%s/test-tmp/%s-%ld", OPD_BINARY_DIR, name, (long)getpid());
    CHECK_OK(opd_dir_make(out));
}

static opd_model *small_model(bool tied) {
    opd_model_config config = {.vocab_size = 11, .hidden_size = 8, .intermediate_size = 12,
                               .layers = 2, .heads = 2, .kv_heads = 1, .head_dim = 4,
                               .max_position = 16, .rope_theta = 10000, .rms_eps = 1e-5,
                               .tie_embeddings = tied, .bos_id = 1, .eos_id = 2, .pad_id = -1};
    opd_model *model;
    CHECK_OK(opd_model_create(&config, 7, NULL, &model));
    return model;
}

static void join(char *out, size_t size, const char *dir, const char *name) {
    CHECK_OK(opd_path_join(out, size, dir, name));
}

static void write_text(const char *dir, const char *name, const char *text) {
    char path[OPD_PATH_SIZE];
    join(path, sizeof path, dir, name);
    CHECK_OK(opd_file_write_atomic(path, text, strlen(text)));
}

TEST(model_directory_round_trips_bit_for_bit) {
    for (int tied = 0; tied < 2; tied++) {
        char dir[OPD_PATH_SIZE];
        make_dir(dir, sizeof dir, "round");
        opd_model *model = small_model(tied != 0), *again = NULL;
        CHECK_OK(opd_model_save(model, dir));
        CHECK_OK(opd_model_open(dir, NULL, &again));
        CHECK_INT(again->param_count, model->param_count);
        CHECK(memcmp(again->params, model->params, model->param_count * sizeof(float)) == 0);
        CHECK_INT(again->config.pad_id, -1);
        CHECK_INT(again->config.eos_id, 2);
        CHECK(again->config.rms_eps == 1e-5 && again->config.tie_embeddings == (tied != 0));
        opd_generation_config generation;
        CHECK_OK(opd_generation_config_read(dir, &again->config, &generation));
        CHECK_INT(generation.eos_count, 1);
        CHECK_INT(generation.eos_ids[0], 2);
        CHECK(generation.temperature == 1 && generation.top_p == 1 && generation.top_k == 0);
        opd_model_destroy(again);
        opd_model_destroy(model);
    }
}

TEST(model_directory_names_what_differs) {
    char dir[OPD_PATH_SIZE], path[OPD_PATH_SIZE];
    opd_model *model = small_model(true), *again = NULL;
    make_dir(dir, sizeof dir, "differs");
    CHECK_OK(opd_model_save(model, dir));
    join(path, sizeof path, dir, "model.safetensors");
    CHECK_OK(opd_safetensors_write(path, model->tensors, model->tensor_count - 1, model->params));
    CHECK_ERR(opd_model_open(dir, NULL, &again), OPD_ERR_MISMATCH);
    CHECK_CONTAINS(opd_err_context(), "tensor model.norm.weight is missing");
    opd_tensor last = model->tensors[model->tensor_count - 1];
    model->tensors[model->tensor_count - 1].rank = 2;
    model->tensors[model->tensor_count - 1].shape[1] = 1;
    CHECK_OK(opd_safetensors_write(path, model->tensors, model->tensor_count, model->params));
    CHECK_ERR(opd_model_open(dir, NULL, &again), OPD_ERR_MISMATCH);
    CHECK_CONTAINS(opd_err_context(), "tensor model.norm.weight has shape [8, 1]; config.json asks for [8]");
    model->tensors[model->tensor_count - 1] = last;
    opd_model_config smaller = model->config;
    CHECK_OK(opd_model_save(model, dir));
    smaller.layers = 1;
    CHECK_OK(opd_model_config_write(&smaller, dir));
    CHECK_ERR(opd_model_open(dir, NULL, &again), OPD_ERR_MISMATCH);
    CHECK_CONTAINS(opd_err_context(), "tensor model.layers.1.");
    CHECK(again == NULL);
    opd_model_destroy(model);
}

TEST(model_directory_reads_shards) {
    char dir[OPD_PATH_SIZE], path[OPD_PATH_SIZE];
    opd_model *model = small_model(true), *again = NULL;
    make_dir(dir, sizeof dir, "shards");
    CHECK_OK(opd_model_save(model, dir));
    join(path, sizeof path, dir, "model.safetensors");
    CHECK_INT(unlink(path), 0);
    CHECK_ERR(opd_model_open(dir, NULL, &again), OPD_ERR_NOT_FOUND);
    join(path, sizeof path, dir, "a.safetensors");
    CHECK_OK(opd_safetensors_write(path, model->tensors, 3, model->params));
    join(path, sizeof path, dir, "b.safetensors");
    CHECK_OK(opd_safetensors_write(path, model->tensors + 3, model->tensor_count - 3, model->params));
    write_text(dir, "model.safetensors.index.json",
               "{\"weight_map\":{\"x\":\"a.safetensors\",\"y\":\"b.safetensors\",\"z\":\"a.safetensors\"}}");
    CHECK_OK(opd_model_open(dir, NULL, &again));
    CHECK(memcmp(again->params, model->params, model->param_count * sizeof(float)) == 0);
    opd_model_destroy(again);
    again = NULL;
    write_text(dir, "model.safetensors.index.json", "{\"weight_map\":{\"x\":\"../a.safetensors\"}}");
    CHECK_ERR(opd_model_open(dir, NULL, &again), OPD_ERR_PARSE);
    opd_model_destroy(model);
}

TEST(safetensors_full_disk_leaves_the_old_file) {
    char dir[OPD_PATH_SIZE], path[OPD_PATH_SIZE], temporary[OPD_PATH_SIZE + 32];
    opd_model *model = small_model(true);
    opd_safetensors *file;
    struct rlimit limit;
    make_dir(dir, sizeof dir, "full");
    join(path, sizeof path, dir, "m.safetensors");
    CHECK_OK(opd_safetensors_write(path, model->tensors, 1, model->params));
    CHECK(signal(SIGXFSZ, SIG_IGN) != SIG_ERR); /* a file size limit stands in for the disk */
    CHECK_INT(getrlimit(RLIMIT_FSIZE, &limit), 0);
    struct rlimit small = {2048, limit.rlim_max};
    CHECK_INT(setrlimit(RLIMIT_FSIZE, &small), 0);
    CHECK_ERR(opd_safetensors_write(path, model->tensors, model->tensor_count, model->params), OPD_ERR_DISK);
    CHECK_CONTAINS(opd_err_context(), "nothing was replaced");
    CHECK_INT(setrlimit(RLIMIT_FSIZE, &limit), 0);
    (void)snprintf(temporary, sizeof temporary, "%s.tmp.%ld", path, (long)getpid());
    CHECK(!opd_file_exists(temporary));
    CHECK_OK(opd_safetensors_open(path, NULL, &file));
    CHECK_INT(opd_safetensors_count(file), 1);
    opd_safetensors_close(file);
    opd_model_destroy(model);
}

static void refuse_config(const char *text, opd_err want, const char *why) {
    char dir[OPD_PATH_SIZE];
    opd_model_config config;
    make_dir(dir, sizeof dir, "config");
    write_text(dir, "config.json", text);
    CHECK_ERR(opd_model_config_read(dir, &config), want);
    CHECK_CONTAINS(opd_err_context(), "config.json");
    CHECK_CONTAINS(opd_err_context(), why);
}

TEST(model_config_refuses_what_it_cannot_compute) {
    refuse_config("{\"architectures\":[\"GPT2LMHeadModel\"]}", OPD_ERR_UNSUPPORTED, "architecture GPT2LMHeadModel");
    refuse_config("{}", OPD_ERR_INVALID, "architectures");
    refuse_config("{\"architectures\":[\"LlamaForCausalLM\"],\"hidden_act\":\"gelu\"}", OPD_ERR_UNSUPPORTED, "gelu");
    refuse_config("{\"architectures\":[\"LlamaForCausalLM\"],\"attention_bias\":true}", OPD_ERR_UNSUPPORTED, "bias");
    refuse_config("{\"architectures\":[\"LlamaForCausalLM\"],\"rope_scaling\":{\"rope_type\":\"llama3\"}}",
                  OPD_ERR_UNSUPPORTED, "rope_scaling");
    refuse_config("{\"architectures\":[\"LlamaForCausalLM\"],\"vocab_size\":0}", OPD_ERR_INVALID, "");
    refuse_config("{\"vocab_size\":99999999999}", OPD_ERR_PARSE, "byte");
    refuse_config("{\"vocab_size\":\"a\"}", OPD_ERR_PARSE, "expected a number");
    char dir[OPD_PATH_SIZE];
    opd_model_config config;
    make_dir(dir, sizeof dir, "nothing-here");
    CHECK_ERR(opd_model_config_read(dir, &config), OPD_ERR_NOT_FOUND);
}
