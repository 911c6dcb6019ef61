/* models/tokenizer_private.h - the tokenizer's inside, shared by tokenizer.c (arithmetic)
 * and tokenizer_file.c (files). Nobody else includes it. Thread and memory: tokenizer.h. */
#ifndef OPD_MODELS_TOKENIZER_PRIVATE_H
#define OPD_MODELS_TOKENIZER_PRIVATE_H

#include "models/tokenizer.h"

enum {
    OPD_TOKENIZER_SPECIALS_MAX = 64,
    OPD_TOKENIZER_SPECIAL_SIZE = 64, /* bytes of a special token's content, with the NUL */
    OPD_TOKENIZER_IDS_MAX = 1 << 20, /* ids lie below: a hostile file cannot ask for more */
    OPD_TOKENIZER_NO_BYTE = -1
};

typedef struct opd_special {
    int32_t id;
    size_t size;
    char text[OPD_TOKENIZER_SPECIAL_SIZE];
} opd_special;

struct opd_tokenizer {
    const opd_alloc *alloc;
    int32_t id_of_byte[256];
    int16_t *byte_of_id; /* [vocab_size] OPD_TOKENIZER_NO_BYTE: special or gap */
    int32_t vocab_size;
    opd_special specials[OPD_TOKENIZER_SPECIALS_MAX];
    size_t special_count;
    int32_t bos, eos, pad;
};

/* An empty tokenizer: fill id_of_byte, add the specials, then finish. Errors: NOMEM. */
OPD_MUST_CHECK opd_err opd__tokenizer_create(const opd_alloc *alloc, opd_tokenizer **out);

/* Adds a special token; 0 <= id < OPD_TOKENIZER_IDS_MAX. Errors: INVALID, UNSUPPORTED. */
OPD_MUST_CHECK opd_err opd__tokenizer_add_special(opd_tokenizer *t, int32_t id, const char *text,
                                                  size_t size);

/* Builds the inverse table and checks the invariants. Errors: INVALID, NOMEM. */
OPD_MUST_CHECK opd_err opd__tokenizer_finish(opd_tokenizer *t);

#endif
