/* table_lm.h - a language model that is a table of logits, so that what a learner does to its weights is the
 * gradient by the logits (models/lm.h).
 *
 * A sequence is a prompt of one token, which says what row of the table is the sequence's first, and an
 * answer: position p of it predicts by row prompt + p. So samples keep their rows in any order and cut.
 * The weights are the logits [rows, vocab] and after them the states [rows], hidden size 1.
 *
 * What a learner asks for before its first step, or of a reference, is not computed from the weights but
 * given: so a test sets the student now, when the batch began, the reference and the critic's two values
 * apart from each other, as a batch's later optimizer steps find them.
 *
 * Thread: the test's; one table at a time. Everything is the test's.
 */
#ifndef OPD_TESTS_UNIT_ACTORS_TABLE_LM_H
#define OPD_TESTS_UNIT_ACTORS_TABLE_LM_H

#include "models/lm.h"

typedef struct table_lm {
    size_t rows, vocab;
    const float *old_logp;   /* [rows] of the drawn id, where log-probs alone are asked for        */
    const float *old_values; /* [rows] the state then                                              */
    const float *ref_logp;   /* [rows] under the weights ref_logp itself stands for (ref_params)   */
} table_lm;

/* Graphs only; of the table that was set last. */
extern const opd_lm_ops table_lm_ops;
void table_lm_set(const table_lm *table);

/* A model of zeros with the table's weights. The caller frees it with table_model_fini. */
void table_model_init(const table_lm *table, opd_tensor *tensor, opd_model *out);
void table_model_fini(opd_model *model);

#endif
