/* table_learner.h - a batch of the fixture's through a real learner, whose model is a table of logits: what it
 * leaves in the weights' gradient is the gradient by the logits (table_lm.h). Thread: the test's. */
#ifndef OPD_TESTS_UNIT_ACTORS_TABLE_LEARNER_H
#define OPD_TESTS_UNIT_ACTORS_TABLE_LEARNER_H

#include "tests/unit/actors/objective_cases.h"

typedef struct table_outcome {
    bool stepped;
    double v[OPD_METRIC_COUNT];
    float dlogits[CASE_TOKENS_MAX * CASE_VOCAB_MAX], dvalues[CASE_TOKENS_MAX]; /* by row of the table */
} table_outcome;

/* objective: as opd_stage_objective sets it. order: of the samples, or NULL as they stand. cut: tokens of a
 * micro-batch, prompts of one token included; 0: all in one. No token of d is masked. */
void table_learn(const opd_learner_options *objective, const case_data *d, const size_t *order, size_t cut,
                 table_outcome *out);

#endif
