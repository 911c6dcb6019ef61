/* measure.h - measures a model in a loop of its own: rollout and evaluator alone.
 * Thread: the caller's becomes the loop's until the end. */
#ifndef OPD_ACTORS_RUN_MEASURE_H
#define OPD_ACTORS_RUN_MEASURE_H

#include "actors/evaluator/sets.h"
#include "opd/config.h"
#include "opd/run.h"

/* Evaluates the model directory `model` on the sets of stage->eval: out[OPD_EVAL_SETS_MAX] by place
 * (`after`); out_sets says which they were, without their datasets. Errors: those of model and data;
 * CONFIG (no set); INTERRUPTED. */
OPD_MUST_CHECK opd_err opd_measure(const opd_config_stage *stage, const char *model,
                                   bool handle_signals, opd_eval_sets *out_sets,
                                   opd_set_outcome *out);

#endif
