/* sets.h - the sets of held-out problems of a stage, and the result of one as a message.
 *
 * The first set is that of eval.path, named "eval", where there is one; then eval.sets in the order
 * of the file. Everywhere a set goes by its place.
 * Thread: any one at a time. Memory: datasets are owned, freed by opd_eval_sets_close; names are the
 * configuration's.
 */
#ifndef OPD_ACTORS_EVALUATOR_SETS_H
#define OPD_ACTORS_EVALUATOR_SETS_H

#include "actors/dataset/dataset.h"
#include "actors/evaluator/stats.h"
#include "actors/messages.h"
#include "core/codec/json.h"
#include "opd/config.h"

enum { OPD_EVAL_SETS_MAX = OPD_CONFIG_EVAL_SETS_MAX + 1 };

typedef struct opd_eval_set {
    const char *name;
    bool named;           /* of eval.sets: its metrics are eval/NAME, not eval/accuracy */
    opd_dataset *dataset; /* rows in file order, with labels                            */
    uint32_t samples;     /* answers per problem                                        */
    uint32_t max_new;
    double temperature, top_p; /* temperature 0: greedy                                 */
    uint32_t top_k;
    uint64_t interval;    /* batches between evaluations; 0: only at the start and the end */
} opd_eval_set;

typedef struct opd_eval_sets {
    opd_eval_set set[OPD_EVAL_SETS_MAX];
    size_t count;
    bool beside; /* evaluated while the training goes on (eval.concurrent): some have an interval */
} opd_eval_sets;

/* What a stage knows of a set in the end. */
typedef struct opd_set_outcome {
    bool has_before, has_after; /* at its start, at its end */
    opd_eval_result before, after;
} opd_set_outcome;

/* Loads the sets of a stage; max_len: tokens of a prompt at most. Errors: those of
 * opd_dataset_open, with the key; CONFIG (no label key). On an error nothing stays open. */
OPD_MUST_CHECK opd_err opd_eval_sets_open(const opd_config_stage *stage,
                                          const opd_tokenizer *tokenizer, uint32_t max_len,
                                          const opd_alloc *alloc, opd_eval_sets *out);
void opd_eval_sets_close(opd_eval_sets *sets);

/* Longest prompt and answer of all sets together, in tokens; 0 without sets. */
uint64_t opd_eval_sets_longest(const opd_eval_sets *sets);

/* The result that an EVALUATED or ACCURACY carries, and the bytes of its pass@k ([count, 4] doubles).
 * Errors: PARSE. */
OPD_MUST_CHECK opd_err opd_eval_result_read(uint64_t correct, uint64_t total, double response_len,
                                            double truncated, const opd_slice *pass,
                                            opd_eval_result *out);

/* Puts a result as JSON members behind those that are there: of a set without a name
 * "eval/accuracy" .. as EVAL_NUMBERS in sets.c, else "eval/NAME" ... */
void opd_eval_result_write(const opd_eval_set *set, const opd_eval_result *result,
                           opd_json_writer *writer);

/* One of the numbers that opd_eval_result_write names: the accuracy of a set, or its pass@k (k = 0:
 * the accuracy). */
typedef struct opd_eval_metric {
    uint32_t set, k;
} opd_eval_metric;

/* Finds the metric of that name ("eval/accuracy", "eval/NAME", "eval/NAME-pass@8"). Errors: CONFIG,
 * with the names that there are. */
OPD_MUST_CHECK opd_err opd_eval_metric_find(const opd_eval_sets *sets, const char *name,
                                            opd_eval_metric *out);
double opd_eval_metric_of(const opd_eval_metric *metric, const opd_eval_result *result);

/* The same for a person: "43.2 % of 1000 held-out problems right (95 %: 40.2 - 46.3)". */
void opd_eval_result_show(const opd_eval_set *set, const opd_eval_result *result, opd_str *out);

#endif
