/* models/reader.h - reads given text piece by piece and scores it, with its past in pages.
 *
 * A reader is a graph (models/graph.h) whose sequences need not begin at position 0: the keys
 * and values of what was read before lie in pages of OPD_KV_PAGE positions. The caller says
 * which pages a sequence has, so that sequences with a common beginning share them. The reader
 * knows no sequence: it is a pool of pages and the computation on them.
 *
 *   forward({"the cat", past 0, pages 4})       keys and values of 7 tokens go to page 4
 *   forward({" sat",    past 7, pages 4})       reads them, adds four more
 *   score(rows of the last forward)
 *
 * Invariants: (1) every number equals what a graph gives for the whole sequence, bit for bit
 * on the same instruction set, however it was cut, whatever was read along with it, on any
 * number of threads; (2) the logits of a few rows exist at a time; (3) nothing is allocated
 * after create; memory of a page that was never written is not touched.
 *
 * Thread: one at a time (the lane that owns the opd_kernels). Nothing passed in is kept.
 */
#ifndef OPD_MODELS_READER_H
#define OPD_MODELS_READER_H

#include "kernels/kernels.h"
#include "models/graph.h"

typedef struct opd_reader opd_reader;

typedef struct opd_reader_options {
    size_t pages;      /* in the pool, 1 .. UINT32_MAX                                     */
    size_t max_len;    /* tokens of a sequence at most, <= config max_position             */
    size_t max_tokens; /* new tokens of one forward at most, over all its sequences        */
} opd_reader_options;

/* Where one sequence of a forward stands. */
typedef struct opd_read {
    const uint32_t *pages; /* [(past + its new tokens) / OPD_KV_PAGE, rounded up]            */
    size_t past;           /* tokens before, whose keys and values are in the pages          */
    size_t filled;         /* >= past: up to there keys and values are in the pages. New
                              tokens below it are those that were read before, read again for
                              their scores: nothing is written for them                      */
} opd_read;

/* Floats that one page takes. */
size_t opd_reader_page_floats(const opd_model_config *config);

/* Creates a reader. kernels: borrowed, outlives it. Caller destroys. Errors: INVALID, NOMEM. */
OPD_MUST_CHECK opd_err opd_reader_create(opd_kernels *kernels, const opd_model_config *config,
                                         const opd_reader_options *options,
                                         const struct opd_alloc *alloc, opd_reader **out_reader);

/* Frees it; NULL is legal. */
void opd_reader_destroy(opd_reader *reader);

/* Copies and packs the weights (params [param_count]). What the pages hold is of the old
 * weights: it must not be read any more. */
void opd_reader_set_weights(opd_reader *reader, const float *params);

/* Reads sequence s of `packed` (at least one token each) after reads[s].past tokens. In one call
 * the others may share a page that one sequence writes to up to its position `filled` only.
 * Errors: LIMIT (more than max_tokens; a sequence longer than max_len), INVALID (a page, an id
 * outside the vocabulary, an empty sequence, filled below past, seq_start not ascending). */
OPD_MUST_CHECK opd_err opd_reader_forward(opd_reader *reader, const opd_packed *packed,
                                          const opd_read *reads);

/* As opd_graph_score, for rows of the last forward. */
OPD_MUST_CHECK opd_err opd_reader_score(opd_reader *reader, const opd_score_row *rows, size_t n,
                                        const opd_scores *out_scores);

/* Copies what a page holds to another one. Errors: INVALID (no such page). */
OPD_MUST_CHECK opd_err opd_reader_copy(opd_reader *reader, uint32_t from, uint32_t to);

#endif
