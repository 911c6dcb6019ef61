/* test_tokenizer.c - the byte-level tokenizer: ids, files, refusals, hash. */
#include <unistd.h>

#include "core/base/file.h"
#include "models/tokenizer.h"
#include "tests/support/test.h"

static opd_tokenizer *own(void) {
    opd_tokenizer *t;
    CHECK_OK(opd_tokenizer_create_bytes(NULL, &t));
    return t;
}

static void check_ids(const opd_tokenizer *t, const char *text, bool specials, const int32_t *want, size_t n) {
    int32_t ids[64];
    size_t count;
    CHECK_OK(opd_tokenizer_encode(t, text, strlen(text), specials, ids, 64, &count));
    CHECK_INT(count, n);
    for (size_t i = 0; i < n; i++) CHECK_INT(ids[i], want[i]);
}

TEST(tokenizer_numbers_bytes_from_3) {
    opd_tokenizer *t = own();
    CHECK_INT(opd_tokenizer_vocab_size(t), 259);
    CHECK_INT(opd_tokenizer_pad(t), 0);
    CHECK_INT(opd_tokenizer_bos(t), 1);
    CHECK_INT(opd_tokenizer_eos(t), 2);
    check_ids(t, "A \xc3\xa9", false, (int32_t[]){68, 35, 0xc3 + 3, 0xa9 + 3}, 4);
    check_ids(t, "<s>a</s", true, (int32_t[]){1, 100, 63, 50, 118}, 5);
    check_ids(t, "<s>", false, (int32_t[]){63, 118, 65}, 3);
    int32_t ids[2];
    size_t count;
    CHECK_ERR(opd_tokenizer_encode(t, "abc", 3, false, ids, 2, &count), OPD_ERR_LIMIT);
    CHECK_OK(opd_tokenizer_encode(t, "", 0, false, ids, 0, &count));
    CHECK_INT(count, 0);
    opd_tokenizer_destroy(t);
}

TEST(tokenizer_decodes_every_byte) {
    opd_tokenizer *t = own();
    opd_str out;
    opd_str_init(&out, NULL, 1024);
    char bytes[256];
    int32_t ids[256];
    size_t count;
    for (int b = 0; b < 256; b++) bytes[b] = (char)b;
    CHECK_OK(opd_tokenizer_encode(t, bytes, 256, true, ids, 256, &count));
    opd_tokenizer_decode(t, ids, count, false, &out);
    CHECK_INT(out.size, 256);
    CHECK(memcmp(out.data, bytes, 256) == 0);
    opd_str_clear(&out);
    const int32_t mixed[] = {1, 68, 2, -5, 259, 0x7FFFFFFF, 0};
    opd_tokenizer_decode(t, mixed, 7, false, &out);
    CHECK_STR(out.data, "<s>A</s><pad>");
    opd_str_clear(&out);
    opd_tokenizer_decode(t, mixed, 7, true, &out);
    CHECK_STR(out.data, "A");
    opd_str_fini(&out);
    opd_tokenizer_destroy(t);
}

TEST(tokenizer_directory_round_trips) {
    char dir[OPD_PATH_SIZE];
    opd_tokenizer *t = own(), *again;
    (void)snprintf(dir, sizeof dir, "%s/test-tmp/tokenizer-%ld", OPD_BINARY_DIR, (long)getpid());
    CHECK_OK(opd_dir_make(dir));
    CHECK_ERR(opd_tokenizer_open(dir, NULL, &again), OPD_ERR_NOT_FOUND);
    CHECK_OK(opd_tokenizer_save(t, dir));
    CHECK_OK(opd_tokenizer_open(dir, NULL, &again));
    CHECK(opd_tokenizer_hash(again) == opd_tokenizer_hash(t));
    CHECK_INT(opd_tokenizer_vocab_size(again), 259);
    CHECK_INT(opd_tokenizer_bos(again), 1);
    CHECK_INT(opd_tokenizer_eos(again), 2);
    CHECK_INT(opd_tokenizer_pad(again), 0);
    check_ids(again, "x<pad>\n", true, (int32_t[]){123, 0, 13}, 3);
    opd_tokenizer_destroy(again);
    opd_tokenizer_destroy(t);
}

TEST(tokenizer_hash_is_fixed) {
    opd_tokenizer *t = own();
    /* Computed apart from this code: machines compare it over the network. */
    CHECK(opd_tokenizer_hash(t) == UINT64_C(0xae7e3b6c2c2fc0dc));
    opd_tokenizer_destroy(t);
}

/* The saved tokenizer.json with the first `from` replaced by `to`. */
static char *saved_with(const char *from, const char *to) {
    char dir[OPD_PATH_SIZE], path[OPD_PATH_SIZE];
    char *data;
    size_t size;
    opd_tokenizer *t = own();
    (void)snprintf(dir, sizeof dir, "%s/test-tmp/tokenizer-edit-%ld", OPD_BINARY_DIR, (long)getpid());
    CHECK_OK(opd_dir_make(dir));
    CHECK_OK(opd_tokenizer_save(t, dir));
    CHECK_OK(opd_path_join(path, sizeof path, dir, "tokenizer.json"));
    CHECK_OK(opd_file_read(NULL, path, 1 << 20, &data, &size));
    char *at = strstr(data, from);
    CHECK(at != NULL);
    size_t room = size + strlen(to) + 1;
    char *out = malloc(room);
    CHECK(out != NULL);
    (void)snprintf(out, room, "%.*s%s%s", (int)(at - data), data, to, at + strlen(from));
    opd_mem_free(NULL, data);
    opd_tokenizer_destroy(t);
    return out;
}

static void refuse(const char *from, const char *to, opd_err want, const char *why) {
    char *text = saved_with(from, to);
    opd_tokenizer *t = NULL;
    CHECK_ERR(opd_tokenizer_parse(text, strlen(text), NULL, 0, NULL, &t), want);
    CHECK_CONTAINS(opd_err_context(), why);
    CHECK(t == NULL);
    free(text);
}

TEST(tokenizer_refuses_what_it_would_get_wrong) {
    refuse("\"merges\": []", "\"merges\": [\"a b\"]", OPD_ERR_UNSUPPORTED, "merges");
    refuse("\"merges\": []", "\"merges\": [[\"a\", \"b\"]]", OPD_ERR_UNSUPPORTED, "merges");
    refuse("\"type\": \"BPE\"", "\"type\": \"Unigram\"", OPD_ERR_UNSUPPORTED, "BPE");
    refuse("\"normalizer\": null", "\"normalizer\": {\"type\": \"NFC\"}", OPD_ERR_UNSUPPORTED, "normalizer");
    refuse("\"add_prefix_space\": false", "\"add_prefix_space\": true", OPD_ERR_UNSUPPORTED, "prefix");
    refuse("\"type\": \"ByteLevel\"", "\"type\": \"Metaspace\"", OPD_ERR_UNSUPPORTED, "ByteLevel");
    refuse("\"lstrip\": false", "\"lstrip\": true", OPD_ERR_UNSUPPORTED, "lstrip");
    refuse("\"A\": 68,", "", OPD_ERR_INVALID, "no token for byte 0x41");
    refuse("\"A\": 68,", "\"A\": 69,", OPD_ERR_INVALID, "id 69 stands for two bytes");
    refuse("\"A\": 68,", "\"A\": 1,", OPD_ERR_INVALID, "id 1 is a byte and the special token \"<s>\"");
    refuse("\"A\": 68,", "\"A\": 68, \"A\": 300,", OPD_ERR_INVALID, "byte 0x41 has two ids");
    refuse("\"A\": 68,", "\"A\": -1,", OPD_ERR_PARSE, "an id below 0");
    refuse("\"A\": 68,", "\"A\": 4000000000,", OPD_ERR_PARSE, "an id below 0 or too large");
    refuse("\"content\": \"</s>\"", "\"content\": \"<s>\"", OPD_ERR_INVALID, "twice");
    refuse("\"content\": \"</s>\"", "\"content\": \"\"", OPD_ERR_INVALID, "special token 2");
    refuse("\"model\": {", "\"m\": {", OPD_ERR_UNSUPPORTED, "no BPE model");
    refuse("{", "[", OPD_ERR_PARSE, "byte 0");
}

TEST(tokenizer_hash_tells_contents_apart) {
    opd_tokenizer *t = own(), *other;
    char *text = saved_with("\"content\": \"</s>\"", "\"content\": \"<end>\"");
    const char *config = "{\"eos_token\": {\"content\": \"<end>\"}, \"bos_token\": null}";
    CHECK_OK(opd_tokenizer_parse(text, strlen(text), config, strlen(config), NULL, &other));
    CHECK_INT(opd_tokenizer_eos(other), 2);
    CHECK_INT(opd_tokenizer_bos(other), -1);
    CHECK(opd_tokenizer_hash(other) != opd_tokenizer_hash(t));
    opd_tokenizer_destroy(other);
    opd_tokenizer_destroy(t);
    free(text);
}
