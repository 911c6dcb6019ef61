/* result_json.h - stage results as JSON: state.json (read back on --resume) and summary.json.
 * Thread: any. Memory: the caller's. */
#ifndef OPD_ACTORS_RUN_RESULT_JSON_H
#define OPD_ACTORS_RUN_RESULT_JSON_H

#include "actors/run/result.h"
#include "core/base/str.h"

/* Appends {"stages": [...]}. Errors stick in out. */
void opd_results_write(const opd_stage_result *results, size_t count, opd_str *out);

/* Reads what opd_results_write wrote. Errors: PARSE (byte), LIMIT. */
OPD_MUST_CHECK opd_err opd_results_read(const char *text, size_t size, opd_stage_result *out,
                                        size_t max, size_t *out_count);

/* The results that the run's summary names: before and after of the last policy stage and its
 * teacher's accuracy, where this run measured it (NULL where not). */
typedef struct opd_summary {
    const opd_accuracy *student_before, *student_after, *teacher;
    const opd_stage_result *policy; /* the last policy stage, or NULL */
    double wall_s; /* of all stages, also those of earlier sessions */
} opd_summary;

opd_summary opd_summary_of(const opd_stage_result *results, size_t count);

/* Appends summary.json: student_before, student_after, teacher, wall_s, teachers (of the last policy
 * stage), stages. */
void opd_summary_write(const opd_summary *summary, const opd_stage_result *results, size_t count,
                       opd_str *out);

#endif
