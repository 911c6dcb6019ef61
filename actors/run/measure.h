/* measure.h - measures a model's pass@1 in a loop of its own: rollout and evaluator alone.
 * Thread: the caller's becomes the loop's until the end. */
#ifndef OPD_ACTORS_RUN_MEASURE_H
#define OPD_ACTORS_RUN_MEASURE_H

#include "opd/config.h"
#include "opd/run.h"

/* Evaluates the model directory `model` as stage->eval says. Errors: those of model and data;
 * INTERRUPTED. */
OPD_MUST_CHECK opd_err opd_measure(const opd_config_stage *stage, const char *model,
                                   bool handle_signals, opd_accuracy *out);

#endif
