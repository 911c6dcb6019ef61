/* models/tokenizer.c - the byte-level tokenizer: making, encoding, decoding, hashing.
 *
 * Invariants: each of the 256 bytes has exactly one id; an id is a byte, a special token, or
 * nothing (a gap, decoded to nothing); a special token's content is not empty.
 * Thread: immutable once made. Memory: opd_tokenizer_destroy.
 */
#include <string.h>

#include "core/base/check.h"
#include "models/tokenizer_private.h"

/* The ids of our own tokenizer (tokenizer.h). */
enum { OWN_PAD = 0, OWN_BOS = 1, OWN_EOS = 2, OWN_FIRST_BYTE = 3, BYTES = 256 };

opd_err opd__tokenizer_create(const opd_alloc *alloc, opd_tokenizer **out) {
    opd_tokenizer *t = opd_mem_get(alloc, sizeof *t);
    if (t == NULL) return opd_fail(OPD_ERR_NOMEM, "no memory for a tokenizer");
    t->alloc = alloc;
    t->bos = t->eos = t->pad = -1;
    for (int b = 0; b < BYTES; b++) t->id_of_byte[b] = -1;
    *out = t;
    return OPD_OK;
}

opd_err opd__tokenizer_add_special(opd_tokenizer *t, int32_t id, const char *text, size_t size) {
    if (size == 0 || size >= OPD_TOKENIZER_SPECIAL_SIZE)
        return opd_fail(OPD_ERR_INVALID, "special token %d: its content must have 1 to %d bytes",
                        (int)id, OPD_TOKENIZER_SPECIAL_SIZE - 1);
    if (t->special_count == OPD_TOKENIZER_SPECIALS_MAX)
        return opd_fail(OPD_ERR_UNSUPPORTED, "more than %d special tokens", OPD_TOKENIZER_SPECIALS_MAX);
    for (size_t i = 0; i < t->special_count; i++)
        if (t->specials[i].id == id || (t->specials[i].size == size && memcmp(t->specials[i].text, text, size) == 0))
            return opd_fail(OPD_ERR_INVALID, "special token \"%.*s\" (id %d) is there twice",
                            (int)size, text, (int)id);
    opd_special *special = &t->specials[t->special_count++];
    special->id = id;
    special->size = size;
    memcpy(special->text, text, size);
    special->text[size] = '\0';
    return OPD_OK;
}

opd_err opd__tokenizer_finish(opd_tokenizer *t) {
    int32_t highest = t->vocab_size - 1; /* an id that nothing reaches still counts */
    for (int b = 0; b < BYTES; b++) {
        if (t->id_of_byte[b] < 0)
            return opd_fail(OPD_ERR_INVALID, "the vocabulary has no token for byte 0x%02x", (unsigned)b);
        if (t->id_of_byte[b] > highest) highest = t->id_of_byte[b];
    }
    for (size_t i = 0; i < t->special_count; i++)
        if (t->specials[i].id > highest) highest = t->specials[i].id;
    t->vocab_size = highest + 1;
    t->byte_of_id = opd_mem_get(t->alloc, (size_t)t->vocab_size * sizeof *t->byte_of_id);
    if (t->byte_of_id == NULL) return opd_fail(OPD_ERR_NOMEM, "no memory for a vocabulary");
    for (int32_t id = 0; id < t->vocab_size; id++) t->byte_of_id[id] = OPD_TOKENIZER_NO_BYTE;
    for (int b = 0; b < BYTES; b++) {
        int32_t id = t->id_of_byte[b];
        if (t->byte_of_id[id] != OPD_TOKENIZER_NO_BYTE)
            return opd_fail(OPD_ERR_INVALID, "id %d stands for two bytes", (int)id);
        t->byte_of_id[id] = (int16_t)b;
    }
    for (size_t i = 0; i < t->special_count; i++)
        if (t->byte_of_id[t->specials[i].id] != OPD_TOKENIZER_NO_BYTE)
            return opd_fail(OPD_ERR_INVALID, "id %d is a byte and the special token \"%s\"",
                            (int)t->specials[i].id, t->specials[i].text);
    return OPD_OK;
}

opd_err opd_tokenizer_create_bytes(const opd_alloc *alloc, opd_tokenizer **out) {
    opd_tokenizer *t;
    opd_err err;
    OPD_TRY(opd__tokenizer_create(alloc, &t));
    for (int b = 0; b < BYTES; b++) t->id_of_byte[b] = OWN_FIRST_BYTE + b;
    OPD_TRY_GOTO(opd__tokenizer_add_special(t, OWN_PAD, "<pad>", 5), fail);
    OPD_TRY_GOTO(opd__tokenizer_add_special(t, OWN_BOS, "<s>", 3), fail);
    OPD_TRY_GOTO(opd__tokenizer_add_special(t, OWN_EOS, "</s>", 4), fail);
    OPD_TRY_GOTO(opd__tokenizer_finish(t), fail);
    t->pad = OWN_PAD;
    t->bos = OWN_BOS;
    t->eos = OWN_EOS;
    *out = t;
    return OPD_OK;
fail:
    opd_tokenizer_destroy(t);
    return err;
}

void opd_tokenizer_destroy(opd_tokenizer *tokenizer) {
    if (tokenizer == NULL) return;
    opd_mem_free(tokenizer->alloc, tokenizer->byte_of_id);
    opd_mem_free(tokenizer->alloc, tokenizer);
}

/* The longest special token that stands at the start of the text, or NULL. */
static const opd_special *special_at(const opd_tokenizer *t, const char *text, size_t left) {
    const opd_special *best = NULL;
    for (size_t i = 0; i < t->special_count; i++) {
        const opd_special *s = &t->specials[i];
        if (s->size <= left && memcmp(s->text, text, s->size) == 0 &&
            (best == NULL || s->size > best->size))
            best = s;
    }
    return best;
}

opd_err opd_tokenizer_encode(const opd_tokenizer *tokenizer, const char *text, size_t size_bytes,
                             bool specials, int32_t *out_ids, size_t ids_max, size_t *out_count) {
    size_t count = 0;
    for (size_t at = 0; at < size_bytes; count++) {
        const opd_special *special = specials ? special_at(tokenizer, text + at, size_bytes - at) : NULL;
        if (count == ids_max)
            return opd_fail(OPD_ERR_LIMIT, "the text has more than %zu tokens", ids_max);
        out_ids[count] = special != NULL ? special->id : tokenizer->id_of_byte[(unsigned char)text[at]];
        at += special != NULL ? special->size : 1;
    }
    *out_count = count;
    return OPD_OK;
}

static const opd_special *special_of_id(const opd_tokenizer *t, int32_t id) {
    for (size_t i = 0; i < t->special_count; i++)
        if (t->specials[i].id == id) return &t->specials[i];
    return NULL;
}

void opd_tokenizer_decode(const opd_tokenizer *tokenizer, const int32_t *ids, size_t count,
                          bool skip_specials, opd_str *out) {
    for (size_t i = 0; i < count; i++) {
        if (ids[i] < 0 || ids[i] >= tokenizer->vocab_size) continue;
        int16_t value = tokenizer->byte_of_id[ids[i]];
        if (value != OPD_TOKENIZER_NO_BYTE) {
            char byte = (char)value;
            opd_str_append(out, &byte, 1);
        } else if (!skip_specials) {
            const opd_special *special = special_of_id(tokenizer, ids[i]);
            if (special != NULL) opd_str_append(out, special->text, special->size);
        }
    }
}

int32_t opd_tokenizer_vocab_size(const opd_tokenizer *tokenizer) { return tokenizer->vocab_size; }
int32_t opd_tokenizer_bos(const opd_tokenizer *tokenizer) { return tokenizer->bos; }
int32_t opd_tokenizer_eos(const opd_tokenizer *tokenizer) { return tokenizer->eos; }
int32_t opd_tokenizer_pad(const opd_tokenizer *tokenizer) { return tokenizer->pad; }

/* FNV-1a, 64 bit: fixed for ever, since hashes are compared between machines. */
static uint64_t hash_bytes(uint64_t hash, const void *bytes, size_t size) {
    const unsigned char *at = bytes;
    for (size_t i = 0; i < size; i++) hash = (hash ^ at[i]) * UINT64_C(0x100000001b3);
    return hash;
}

static uint64_t hash_int(uint64_t hash, int32_t value) {
    unsigned char bytes[4];
    for (int i = 0; i < 4; i++) bytes[i] = (unsigned char)((uint32_t)value >> (8 * i));
    return hash_bytes(hash, bytes, sizeof bytes);
}

uint64_t opd_tokenizer_hash(const opd_tokenizer *tokenizer) {
    uint64_t hash = hash_int(UINT64_C(0xcbf29ce484222325), tokenizer->vocab_size);
    for (int32_t id = 0; id < tokenizer->vocab_size; id++) {
        const opd_special *special = special_of_id(tokenizer, id);
        hash = hash_int(hash, tokenizer->byte_of_id[id]);
        hash = hash_int(hash, special != NULL ? (int32_t)special->size : 0);
        if (special != NULL) hash = hash_bytes(hash, special->text, special->size);
    }
    return hash_int(hash_int(hash, tokenizer->bos), tokenizer->eos);
}
