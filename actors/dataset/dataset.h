/* dataset.h - the rows of a run in the order they are used, as token ids.
 *
 * Of one source, group g is position g % count of epoch g / count; each epoch is a fresh seeded
 * permutation (order.h). Of several, a mix by weight says whose a group is (mix.h), and each has
 * epochs of its own. A prompt is BOS and the text; a supervised example is followed by the response
 * and EOS. A conversation is its segments (jsonl.h).
 * Thread: any one at a time. The dataset owns its rows; the tokenizer is borrowed.
 */
#ifndef OPD_ACTORS_DATASET_H
#define OPD_ACTORS_DATASET_H

#include "actors/dataset/jsonl.h"
#include "actors/dataset/mix.h"
#include "actors/dataset/order.h"
#include "models/tokenizer.h"
#include "opd/buf.h"
#include "opd/config.h"

typedef struct opd_dataset_options {
    const char *path;          /* JSONL, with an optional slice "@[a:b]" */
    opd_jsonl_keys keys;
    uint64_t skip, limit;      /* rows left out at the start; rows used, 0 = all */
    uint32_t max_prompt_len;   /* tokens; longer prompts are left out, 0 = no limit */
    uint32_t max_privileged_len; /* the same of privileged prompts                  */
    uint32_t max_len;          /* tokens that a whole row may have; longer is an error */
    bool shuffle;
    uint64_t seed;
    const char *name;          /* the source of rows that have none of their own; NULL: "" */
    double weight;             /* among several sources, above 0 */
    const opd_tokenizer *tokenizer;
    const opd_alloc *alloc;
} opd_dataset_options;

typedef struct opd_dataset_source {
    opd_jsonl *rows;
    uint64_t *kept; /* [count] row numbers */
    uint64_t count; /* rows kept */
    opd_order order;
} opd_dataset_source;

typedef struct opd_dataset {
    opd_dataset_source sources[OPD_MIX_SOURCES_MAX];
    size_t source_count;
    opd_mix mix;
    uint64_t count, dropped, unsourced; /* rows kept, too long, kept without a source */
    uint32_t prompt_max, whole_max; /* tokens of the longest prompt, of the longest row */
    uint32_t privileged_max;   /* of the longest privileged prompt; 0: there are none */
    const opd_tokenizer *tokenizer;
    const opd_alloc *alloc;
} opd_dataset;

/* The keys that say where the prompt is; the others are NULL. */
opd_jsonl_keys opd_dataset_keys(const opd_config_record *record);

/* Adds those that say where the privileged prompt is, if they do. */
void opd_dataset_keys_privileged(const opd_config_record *record, opd_jsonl_keys *io_keys);

/* Loads and checks the files of `count` (1 .. OPD_MIX_SOURCES_MAX) sources; alloc and tokenizer are
 * those of the first. Errors: those of opd_jsonl_load; INVALID (file:line, a row that is too long, or
 * nothing left of a file; privileged prompts that are all what the student sees). */
OPD_MUST_CHECK opd_err opd_dataset_open_mixed(const opd_dataset_options *options, size_t count,
                                              opd_dataset **out);

/* The same of one. */
OPD_MUST_CHECK opd_err opd_dataset_open(const opd_dataset_options *options, opd_dataset **out);
void opd_dataset_close(opd_dataset *dataset);

/* The row of a group, and its epoch: that of its source. */
const opd_row *opd_dataset_row(const opd_dataset *dataset, uint64_t group, uint64_t *out_epoch);

/* Ids of a row: BOS and the prompt; with `response` also what follows, to the last token that is
 * learnt. The slice owns one reference. *out_prompt_len counts BOS and all before the first token
 * that is learnt. Errors: NOMEM. */
OPD_MUST_CHECK opd_err opd_dataset_tokens(const opd_dataset *dataset, const opd_row *row,
                                          bool response, opd_slice *out_tokens,
                                          uint32_t *out_prompt_len);

/* The same of what a teacher sees in place of the prompt: BOS and the privileged prompt. buf NULL: the
 * row has none. */
OPD_MUST_CHECK opd_err opd_dataset_privileged(const opd_dataset *dataset, const opd_row *row,
                                              opd_slice *out_tokens);

/* Which of a row's R response tokens are learnt, a byte of 0 or 1 each: [R]. buf NULL: all of them.
 * Errors: NOMEM. */
OPD_MUST_CHECK opd_err opd_dataset_mask(const opd_dataset *dataset, const opd_row *row,
                                        opd_slice *out_mask);

/* Checks that no prompt of `eval` is among those of `train`, over the whole files. Errors:
 * MISMATCH naming both places. */
OPD_MUST_CHECK opd_err opd_dataset_check_disjoint(const opd_dataset *train,
                                                  const opd_dataset *eval);

#endif
