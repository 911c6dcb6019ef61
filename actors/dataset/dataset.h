/* dataset.h - the rows of a run in the order they are used, as token ids.
 *
 * Group g is position g % count of epoch g / count; each epoch is a fresh seeded permutation
 * (order.h). A prompt is BOS and the bytes of the text; a supervised example is followed by
 * the response and EOS.
 * Thread: any one at a time. The dataset owns its rows; the tokenizer is borrowed.
 */
#ifndef OPD_ACTORS_DATASET_H
#define OPD_ACTORS_DATASET_H

#include "actors/dataset/jsonl.h"
#include "actors/dataset/order.h"
#include "models/tokenizer.h"
#include "opd/buf.h"

typedef struct opd_dataset_options {
    const char *path;          /* JSONL, with an optional slice "@[a:b]" */
    const char *prompt_key, *label_key, *response_key; /* NULL: not needed */
    const char *source_key;    /* of what says which teacher scores a row; NULL: none */
    uint64_t skip, limit;      /* rows left out at the start; rows used, 0 = all */
    uint32_t max_prompt_len;   /* tokens; longer prompts are left out, 0 = no limit */
    uint32_t max_len;          /* tokens that a whole row may have; longer is an error */
    bool shuffle;
    uint64_t seed;
    const opd_tokenizer *tokenizer;
    const opd_alloc *alloc;
} opd_dataset_options;

typedef struct opd_dataset {
    opd_jsonl *rows;
    uint64_t *kept; /* [count] row numbers */
    uint64_t count, dropped, unsourced; /* rows kept, too long, kept without a source */
    uint32_t prompt_max, whole_max; /* tokens of the longest prompt, of the longest row */
    opd_order order;
    const opd_tokenizer *tokenizer;
    const opd_alloc *alloc;
} opd_dataset;

/* Loads and checks the file. Errors: those of opd_jsonl_load; INVALID (file:line, a row that
 * is too long, or nothing left of the file). */
OPD_MUST_CHECK opd_err opd_dataset_open(const opd_dataset_options *options, opd_dataset **out);
void opd_dataset_close(opd_dataset *dataset);

/* The row of a group, and its epoch. */
const opd_row *opd_dataset_row(const opd_dataset *dataset, uint64_t group, uint64_t *out_epoch);

/* Ids of a row: BOS and the prompt; with `response` also the response and EOS. The slice owns
 * one reference. *out_prompt_len counts BOS. Errors: NOMEM. */
OPD_MUST_CHECK opd_err opd_dataset_tokens(const opd_dataset *dataset, const opd_row *row,
                                          bool response, opd_slice *out_tokens,
                                          uint32_t *out_prompt_len);

/* Checks that no prompt of `eval` is among those of `train`, over the whole files. Errors:
 * MISMATCH naming both places. */
OPD_MUST_CHECK opd_err opd_dataset_check_disjoint(const opd_dataset *train,
                                                  const opd_dataset *eval);

#endif
