/* models/tokenizer_file.c - tokenizer.json and its companions, read and written.
 *
 * Invariant: a file is accepted only if `tokenizers` would give the same ids for it as
 * tokenizer.c does; whatever would change them (merges, a normalizer, a prefix space,
 * another model) is refused by name.
 * Thread: any; blocking file calls. Memory: freed before return but for the tokenizer.
 */
#include <string.h>

#include "core/base/check.h"
#include "core/base/file.h"
#include "core/codec/json.h"
#include "models/tokenizer_private.h"

enum { FILE_MAX = 64 << 20, TEXT_MAX = 1 << 20, FIRST_SHIFTED = 0x100, BYTES = 256 };

/* ---- the byte-to-unicode table ---- */

/* Bytes that stand for themselves: the printable ones of Latin-1. */
static bool is_printable(int byte) {
    return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

/* The character that names each byte. */
static void byte_characters(uint32_t out[BYTES]) {
    uint32_t shifted = FIRST_SHIFTED;
    for (int b = 0; b < BYTES; b++) out[b] = is_printable(b) ? (uint32_t)b : shifted++;
}

/* The byte named by a symbol of one character (at most U+07FF), else -1. */
static int byte_of_symbol(const char *symbol, size_t size, const uint32_t characters[BYTES]) {
    const unsigned char *at = (const unsigned char *)symbol;
    uint32_t code;
    if (size == 1) code = at[0];
    else if (size == 2) code = (uint32_t)(at[0] & 0x1F) << 6 | (at[1] & 0x3F);
    else return -1;
    if ((size == 1) != (code < 0x80)) return -1;
    for (int b = 0; b < BYTES; b++)
        if (characters[b] == code) return b;
    return -1;
}

static void symbol_of_byte(uint32_t character, char out[3]) {
    size_t size = 0;
    if (character >= 0x80) {
        out[size++] = (char)(0xC0 | character >> 6);
        character = 0x80 | (character & 0x3F);
    }
    out[size++] = (char)character;
    out[size] = '\0';
}

/* ---- reading ---- */

/* Why a file is not ours to read; the first reason is kept. */
typedef struct reading {
    opd_json *json;
    opd_tokenizer *t;
    uint32_t characters[BYTES];
    bool has_model, has_bytes; /* a BPE model, a ByteLevel pre-tokenizer */
    opd_err err;
} reading;

static void refuse(reading *r, opd_err err) {
    if (r->err == OPD_OK) r->err = err;
}

static bool read_id(reading *r, int32_t *out_id) {
    int64_t id;
    if (!opd_json_read_int64(r->json, &id)) return false;
    if (id < 0 || id >= OPD_TOKENIZER_IDS_MAX) return opd_json_error(r->json, "an id below 0 or too large");
    *out_id = (int32_t)id;
    return true;
}

/* Every entry of the vocabulary is a byte or, checked later, a special token's content. */
static void read_vocab(reading *r) {
    opd_json_text key;
    int32_t id = 0;
    opd_json_object_begin(r->json);
    while (opd_json_object_next(r->json, &key)) {
        char symbol[OPD_TOKENIZER_SPECIAL_SIZE];
        if (key.size_bytes >= sizeof symbol) {
            opd_json_error(r->json, "a token longer than 63 bytes: not a byte-level vocabulary");
            return;
        }
        size_t size = opd_json_text_unescape(key, symbol);
        int byte = byte_of_symbol(symbol, size, r->characters);
        if (!read_id(r, &id)) return;
        if (id >= r->t->vocab_size) r->t->vocab_size = id + 1;
        if (byte < 0) continue;
        if (r->t->id_of_byte[byte] >= 0)
            refuse(r, opd_fail(OPD_ERR_INVALID, "byte 0x%02x has two ids", (unsigned)byte));
        r->t->id_of_byte[byte] = id;
    }
}

static void read_empty_merges(reading *r) {
    opd_json_array_begin(r->json);
    while (opd_json_array_next(r->json)) {
        opd_json_skip(r->json);
        refuse(r, opd_fail(OPD_ERR_UNSUPPORTED, "a tokenizer with merges; this version reads "
                                                "byte-level tokenizers with an empty merges list"));
    }
}

static void read_model(reading *r) {
    opd_json_text key, type;
    opd_json_object_begin(r->json);
    while (opd_json_object_next(r->json, &key)) {
        if (opd_json_text_is(key, "type")) {
            if (opd_json_read_text(r->json, &type) && !opd_json_text_is(type, "BPE"))
                refuse(r, opd_fail(OPD_ERR_UNSUPPORTED, "a tokenizer model other than BPE"));
            r->has_model = true;
        } else if (opd_json_text_is(key, "vocab")) {
            read_vocab(r);
        } else if (opd_json_text_is(key, "merges")) {
            read_empty_merges(r);
        } else {
            opd_json_skip(r->json);
        }
    }
}

/* The special tokens; flags that change where they match are refused. */
static void read_added(reading *r) {
    opd_json_text key;
    opd_json_array_begin(r->json);
    while (opd_json_array_next(r->json)) {
        opd_json_text content = {0};
        int32_t id = -1;
        bool flag = false, strips = false;
        opd_json_object_begin(r->json);
        while (opd_json_object_next(r->json, &key)) {
            if (opd_json_text_is(key, "id")) {
                (void)read_id(r, &id);
            } else if (opd_json_text_is(key, "content")) {
                opd_json_read_text(r->json, &content);
            } else if (opd_json_text_is(key, "single_word") || opd_json_text_is(key, "lstrip") ||
                       opd_json_text_is(key, "rstrip")) {
                if (opd_json_read_bool(r->json, &flag)) strips = strips || flag;
            } else {
                opd_json_skip(r->json);
            }
        }
        if (r->json->error != NULL) return;
        char text[OPD_TOKENIZER_SPECIAL_SIZE];
        if (id < 0 || content.data == NULL || content.size_bytes >= sizeof text) {
            refuse(r, opd_fail(OPD_ERR_INVALID, "an added token without id, or with a content that is not 1 to 63 bytes"));
            continue;
        }
        if (strips)
            refuse(r, opd_fail(OPD_ERR_UNSUPPORTED, "added token %d with single_word, lstrip or rstrip", (int)id));
        size_t size = opd_json_text_unescape(content, text);
        refuse(r, opd__tokenizer_add_special(r->t, id, text, size));
    }
}

/* {"type": "ByteLevel", "add_prefix_space": false, ...} */
static void read_pre_tokenizer(reading *r) {
    opd_json_text key, type;
    bool prefix = true; /* the default of `tokenizers` */
    if (opd_json_peek(r->json) != OPD_JSON_OBJECT) {
        opd_json_skip(r->json);
        return;
    }
    opd_json_object_begin(r->json);
    while (opd_json_object_next(r->json, &key)) {
        if (opd_json_text_is(key, "type")) {
            if (opd_json_read_text(r->json, &type)) r->has_bytes = opd_json_text_is(type, "ByteLevel");
        } else if (opd_json_text_is(key, "add_prefix_space")) {
            opd_json_read_bool(r->json, &prefix);
        } else {
            opd_json_skip(r->json);
        }
    }
    if (prefix) refuse(r, opd_fail(OPD_ERR_UNSUPPORTED, "a pre-tokenizer with add_prefix_space"));
}

/* Parts that must be null for the ids to be the plain bytes. */
static void read_null(reading *r, opd_json_text key) {
    if (opd_json_peek(r->json) != OPD_JSON_NULL)
        refuse(r, opd_fail(OPD_ERR_UNSUPPORTED, "a tokenizer with a %.*s; this version reads plain byte-level ones",
                           (int)key.size_bytes, key.data));
    opd_json_skip(r->json);
}

static void read_tokenizer(reading *r) {
    opd_json_text key;
    opd_json_object_begin(r->json);
    while (opd_json_object_next(r->json, &key)) {
        if (opd_json_text_is(key, "model")) read_model(r);
        else if (opd_json_text_is(key, "added_tokens")) read_added(r);
        else if (opd_json_text_is(key, "pre_tokenizer")) read_pre_tokenizer(r);
        else if (opd_json_text_is(key, "normalizer")) read_null(r, key);
        else if (opd_json_text_is(key, "truncation")) read_null(r, key);
        else if (opd_json_text_is(key, "padding")) read_null(r, key);
        else opd_json_skip(r->json); /* post_processor: whether BOS is added is ours to say */
    }
}

static int32_t find_special(const opd_tokenizer *t, opd_json_text content) {
    for (size_t i = 0; i < t->special_count; i++)
        if (opd_json_text_is(content, t->specials[i].text)) return t->specials[i].id;
    return -1;
}

static opd_json_text text_of(const char *text) { return (opd_json_text){text, strlen(text), false}; }

/* A token in tokenizer_config.json: its content, {"content": ...}, or null. */
static void read_named(opd_json *json, const opd_tokenizer *t, int32_t *out_id) {
    opd_json_text key, content;
    *out_id = -1;
    if (opd_json_peek(json) == OPD_JSON_STRING) {
        if (opd_json_read_text(json, &content)) *out_id = find_special(t, content);
    } else if (opd_json_peek(json) == OPD_JSON_OBJECT) {
        opd_json_object_begin(json);
        while (opd_json_object_next(json, &key)) {
            if (!opd_json_text_is(key, "content")) opd_json_skip(json);
            else if (opd_json_read_text(json, &content)) *out_id = find_special(t, content);
        }
    } else {
        opd_json_skip(json);
    }
}

static opd_err parse_config(const char *data, size_t size, opd_tokenizer *t) {
    opd_json json;
    opd_json_text key;
    opd_json_init(&json, data, size);
    opd_json_object_begin(&json);
    while (opd_json_object_next(&json, &key)) {
        if (opd_json_text_is(key, "bos_token")) read_named(&json, t, &t->bos);
        else if (opd_json_text_is(key, "eos_token")) read_named(&json, t, &t->eos);
        else if (opd_json_text_is(key, "pad_token")) read_named(&json, t, &t->pad);
        else opd_json_skip(&json);
    }
    return opd_err_prefix(opd_json_finish(&json), "tokenizer_config.json");
}

static opd_err parse_both(opd_tokenizer *t, const char *json_data, size_t json_size,
                          const char *config, size_t config_size) {
    opd_json json;
    reading r = {.json = &json, .t = t, .err = OPD_OK};
    byte_characters(r.characters);
    opd_json_init(&json, json_data, json_size);
    read_tokenizer(&r);
    if (r.err != OPD_OK) return r.err;
    OPD_TRY(opd_json_finish(&json));
    if (!r.has_model || !r.has_bytes)
        return opd_fail(OPD_ERR_UNSUPPORTED, "no BPE model with a ByteLevel pre-tokenizer");
    OPD_TRY(opd__tokenizer_finish(t));
    t->bos = find_special(t, text_of("<s>"));
    t->eos = find_special(t, text_of("</s>"));
    t->pad = find_special(t, text_of("<pad>"));
    return config != NULL ? parse_config(config, config_size, t) : OPD_OK;
}

opd_err opd_tokenizer_parse(const char *json, size_t json_size_bytes, const char *config,
                            size_t config_size_bytes, const opd_alloc *alloc, opd_tokenizer **out) {
    opd_tokenizer *t;
    OPD_TRY(opd__tokenizer_create(alloc, &t));
    opd_err err = parse_both(t, json, json_size_bytes, config, config_size_bytes);
    if (err != OPD_OK) {
        opd_tokenizer_destroy(t);
        return err;
    }
    *out = t;
    return OPD_OK;
}

opd_err opd_tokenizer_open(const char *dir, const opd_alloc *alloc, opd_tokenizer **out) {
    char path[OPD_PATH_SIZE];
    char *json = NULL, *config = NULL;
    size_t json_size = 0, config_size = 0;
    opd_err err;
    OPD_TRY(opd_path_join(path, sizeof path, dir, "tokenizer_config.json"));
    if (opd_file_exists(path)) OPD_TRY(opd_file_read(alloc, path, FILE_MAX, &config, &config_size));
    OPD_TRY_GOTO(opd_path_join(path, sizeof path, dir, "tokenizer.json"), done);
    OPD_TRY_GOTO(opd_file_read(alloc, path, FILE_MAX, &json, &json_size), done);
    err = opd_err_prefix(opd_tokenizer_parse(json, json_size, config, config_size, alloc, out), "%s", path);
done:
    opd_mem_free(alloc, json);
    opd_mem_free(alloc, config);
    return err;
}

/* ---- writing ---- */

static void write_flag(opd_json_writer *w, const char *key, bool value) {
    opd_json_write_key(w, key);
    opd_json_write_bool(w, value);
}

static void write_null(opd_json_writer *w, const char *key) {
    opd_json_write_key(w, key);
    opd_json_write_null(w);
}

static void write_word(opd_json_writer *w, const char *key, const char *value) {
    opd_json_write_key(w, key);
    opd_json_write_text(w, value);
}

static void write_byte_level(opd_json_writer *w, const char *key, bool defaults) {
    opd_json_write_key(w, key);
    opd_json_write_object_begin(w);
    write_word(w, "type", "ByteLevel");
    write_flag(w, "add_prefix_space", defaults);
    write_flag(w, "trim_offsets", defaults);
    write_flag(w, "use_regex", defaults);
    opd_json_write_object_end(w);
}

static void write_flags(opd_json_writer *w) {
    static const char *const flags[] = {"single_word", "lstrip", "rstrip", "normalized"};
    for (size_t i = 0; i < OPD_COUNTOF(flags); i++) write_flag(w, flags[i], false);
    write_flag(w, "special", true);
}

static void write_vocab(const opd_tokenizer *t, opd_json_writer *w) {
    uint32_t characters[BYTES];
    byte_characters(characters);
    opd_json_write_key(w, "vocab");
    opd_json_write_object_begin(w);
    for (int32_t id = 0; id < t->vocab_size; id++) {
        char symbol[3];
        if (t->byte_of_id[id] != OPD_TOKENIZER_NO_BYTE) {
            symbol_of_byte(characters[t->byte_of_id[id]], symbol);
            opd_json_write_key(w, symbol);
            opd_json_write_int64(w, id);
        }
        for (size_t i = 0; i < t->special_count; i++) {
            if (t->specials[i].id != id) continue;
            opd_json_write_key(w, t->specials[i].text);
            opd_json_write_int64(w, id);
        }
    }
    opd_json_write_object_end(w);
}

static void write_model(const opd_tokenizer *t, opd_json_writer *w) {
    static const char *const nulls[] = {"dropout", "unk_token", "continuing_subword_prefix",
                                        "end_of_word_suffix"};
    static const char *const flags[] = {"fuse_unk", "byte_fallback", "ignore_merges"};
    opd_json_write_key(w, "model");
    opd_json_write_object_begin(w);
    write_word(w, "type", "BPE");
    for (size_t i = 0; i < OPD_COUNTOF(nulls); i++) write_null(w, nulls[i]);
    for (size_t i = 0; i < OPD_COUNTOF(flags); i++) write_flag(w, flags[i], false);
    write_vocab(t, w);
    opd_json_write_key(w, "merges");
    opd_json_write_array_begin(w);
    opd_json_write_array_end(w);
    opd_json_write_object_end(w);
}

static void write_tokenizer(const opd_tokenizer *t, opd_str *out) {
    opd_json_writer w;
    opd_json_writer_init(&w, out, 2);
    opd_json_write_object_begin(&w);
    write_word(&w, "version", "1.0");
    write_null(&w, "truncation");
    write_null(&w, "padding");
    opd_json_write_key(&w, "added_tokens");
    opd_json_write_array_begin(&w);
    for (size_t i = 0; i < t->special_count; i++) {
        opd_json_write_object_begin(&w);
        opd_json_write_key(&w, "id");
        opd_json_write_int64(&w, t->specials[i].id);
        write_word(&w, "content", t->specials[i].text);
        write_flags(&w);
        opd_json_write_object_end(&w);
    }
    opd_json_write_array_end(&w);
    write_null(&w, "normalizer");
    write_byte_level(&w, "pre_tokenizer", false);
    write_null(&w, "post_processor");
    write_byte_level(&w, "decoder", true);
    write_model(t, &w);
    opd_json_write_object_end(&w);
}

static const char *content_of(const opd_tokenizer *t, int32_t id) {
    for (size_t i = 0; i < t->special_count; i++)
        if (t->specials[i].id == id) return t->specials[i].text;
    return NULL;
}

static void write_specials(const opd_tokenizer *t, opd_json_writer *w) {
    const struct {
        const char *key;
        int32_t id;
    } named[] = {{"bos_token", t->bos}, {"eos_token", t->eos}, {"pad_token", t->pad}};
    for (size_t i = 0; i < OPD_COUNTOF(named); i++) {
        const char *content = content_of(t, named[i].id);
        if (content != NULL) write_word(w, named[i].key, content);
    }
}

static void write_config(const opd_tokenizer *t, opd_str *out, bool whole) {
    opd_json_writer w;
    opd_json_writer_init(&w, out, 2);
    opd_json_write_object_begin(&w);
    write_specials(t, &w);
    if (whole) {
        write_flag(&w, "add_bos_token", false);
        write_flag(&w, "add_prefix_space", false);
        write_flag(&w, "clean_up_tokenization_spaces", false);
        write_word(&w, "tokenizer_class", "PreTrainedTokenizerFast");
    }
    opd_json_write_object_end(&w);
}

static opd_err save_text(const char *dir, const char *name, opd_str *text) {
    char path[OPD_PATH_SIZE];
    opd_str_text(text, "\n");
    OPD_TRY(opd_str_status(text));
    OPD_TRY(opd_path_join(path, sizeof path, dir, name));
    OPD_TRY(opd_file_write_atomic(path, text->data, text->size));
    opd_str_clear(text);
    return OPD_OK;
}

opd_err opd_tokenizer_save(const opd_tokenizer *tokenizer, const char *dir) {
    opd_str text;
    opd_err err;
    opd_str_init(&text, tokenizer->alloc, TEXT_MAX);
    write_tokenizer(tokenizer, &text);
    OPD_TRY_GOTO(save_text(dir, "tokenizer.json", &text), done);
    write_config(tokenizer, &text, true);
    OPD_TRY_GOTO(save_text(dir, "tokenizer_config.json", &text), done);
    write_config(tokenizer, &text, false);
    err = save_text(dir, "special_tokens_map.json", &text);
done:
    opd_str_fini(&text);
    return err;
}
