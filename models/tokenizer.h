/* models/tokenizer.h - text to token ids and back, as `tokenizers` would do it.
 *
 * Byte-level BPE with an empty merges list: one token per byte, plus special tokens. The
 * vocabulary names byte b by a printable character (GPT-2's byte-to-unicode table: the
 * printable bytes of Latin-1 stand for themselves, the other 68 are U+0100, U+0101, ... in
 * order of their value). A tokenizer of our own making numbers them
 *
 *     0 <pad>   1 <s> (BOS)   2 </s> (EOS)   3 + b for byte b         259 ids in all
 *
 * but any order is read. Files: tokenizer.json, tokenizer_config.json,
 * special_tokens_map.json; `tokenizers` and `transformers` open them and give the same ids.
 *
 * Thread: immutable once made, any thread may use it. create/open -> destroy.
 */
#ifndef OPD_MODELS_TOKENIZER_H
#define OPD_MODELS_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/str.h"
#include "opd/alloc.h"
#include "opd/err.h"

typedef struct opd_tokenizer opd_tokenizer;

/* Our own tokenizer, as numbered above. Errors: NOMEM. */
OPD_MUST_CHECK opd_err opd_tokenizer_create_bytes(const opd_alloc *alloc, opd_tokenizer **out);

/* Reads dir/tokenizer.json (and BOS, EOS, PAD from dir/tokenizer_config.json; without that
 * file, the names <s>, </s>, <pad>). Errors: NOT_FOUND, PARSE (byte), INVALID (what is
 * missing or twice), UNSUPPORTED (merges, a normalizer, another model or pre-tokenizer). */
OPD_MUST_CHECK opd_err opd_tokenizer_open(const char *dir, const opd_alloc *alloc,
                                          opd_tokenizer **out);

/* As open, from the bytes of the two files (config may be NULL). */
OPD_MUST_CHECK opd_err opd_tokenizer_parse(const char *json, size_t json_size_bytes,
                                           const char *config, size_t config_size_bytes,
                                           const opd_alloc *alloc, opd_tokenizer **out);

/* Writes the three files into the existing folder dir, each atomically. Errors: IO, DISK. */
OPD_MUST_CHECK opd_err opd_tokenizer_save(const opd_tokenizer *tokenizer, const char *dir);

/* NULL is legal. */
void opd_tokenizer_destroy(opd_tokenizer *tokenizer);

/* Ids of `size_bytes` bytes of text to out_ids[ids_max]. At most one id per byte is written,
 * so room for size_bytes ids always suffices. Adds no BOS. With `specials`, the content of a
 * special token in the text becomes that token (leftmost, longest), as `tokenizers` does;
 * without, as text that a stranger wrote should be read, it stays bytes.
 * Errors: LIMIT (more than ids_max ids). */
OPD_MUST_CHECK opd_err opd_tokenizer_encode(const opd_tokenizer *tokenizer, const char *text,
                                            size_t size_bytes, bool specials, int32_t *out_ids,
                                            size_t ids_max, size_t *out_count);

/* Appends the bytes of `count` ids to out (they need not be whole UTF-8). Special tokens give
 * their content, or nothing with skip_specials; ids outside the vocabulary give nothing.
 * Errors stick in out. */
void opd_tokenizer_decode(const opd_tokenizer *tokenizer, const int32_t *ids, size_t count,
                          bool skip_specials, opd_str *out);

/* Highest id + 1. */
int32_t opd_tokenizer_vocab_size(const opd_tokenizer *tokenizer);

/* Ids of the special tokens, -1 = none. */
int32_t opd_tokenizer_bos(const opd_tokenizer *tokenizer);
int32_t opd_tokenizer_eos(const opd_tokenizer *tokenizer);
int32_t opd_tokenizer_pad(const opd_tokenizer *tokenizer);

/* A 64-bit hash of what the ids mean: every id's bytes and whether it is special, and which
 * are BOS and EOS. Equal for equal content, whatever file it came from. */
uint64_t opd_tokenizer_hash(const opd_tokenizer *tokenizer);

#endif
