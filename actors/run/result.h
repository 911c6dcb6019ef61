/* result.h - what a finished stage leaves to later stages, to the summary and to --resume.
 * Plain data. */
#ifndef OPD_ACTORS_RUN_RESULT_H
#define OPD_ACTORS_RUN_RESULT_H

#include <stdbool.h>

#include "actors/evaluator/sets.h"
#include "core/base/file.h"
#include "opd/config.h"
#include "opd/run.h"

typedef struct opd_stage_result {
    char name[OPD_CONFIG_NAME_MAX + 1];
    opd_config_kind kind;
    char checkpoint[OPD_PATH_SIZE]; /* the last one; "" where the stage makes none */
    char best[OPD_PATH_SIZE];       /* that of train.keep_best; "" = none                 */
    double best_value;
    uint64_t steps;
    double wall_s;
    bool has_before, has_after;     /* accuracy at the stage's start and end       */
    opd_accuracy before, after;
    size_t set_count;               /* of problems, the first of them that of before and after */
    struct {
        char name[OPD_CONFIG_NAME_MAX + 1];
        opd_set_outcome outcome;
    } sets[OPD_EVAL_SETS_MAX];
    /* policy stages */
    uint64_t samples, response_tokens, invalid_tokens, unscored_batches, skipped_steps;
    uint64_t degraded_tokens;
    double score_wait_s;            /* of wall_s, the trainer idled only for scores */
    char teacher[OPD_PATH_SIZE];    /* path of its teacher's checkpoint, or its URL */
    char teachers[8192];            /* of its servers, a JSON object by name; "": none */
} opd_stage_result;

#endif
