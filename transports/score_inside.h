/* score_inside.h - the rules of belief that every scoring protocol shares: what may be used as a
 * log-probability, how refused answers are left behind. Only transports/ includes it.
 *
 * Thread: any. Memory: the caller's arrays.
 */
#ifndef OPD_TRANSPORTS_SCORE_INSIDE_H
#define OPD_TRANSPORTS_SCORE_INSIDE_H

#include "core/codec/json_push.h"
#include "transports/sglang.h"

/* Rounding may lift a log-prob above 0 by about this; -inf clamped to the smallest float is
 * no score either. Not a number compares false. */
#define OPD__LOGP_MAX 1e-4f
#define OPD__LOGP_MIN -1e30f

static inline bool opd__logp_usable(float value) {
    return value <= OPD__LOGP_MAX && value >= OPD__LOGP_MIN;
}

/* The largest id that may be told. */
static inline int64_t opd__score_id_max(const opd_sglang_score *score) {
    return score->vocab_size > 0 ? score->vocab_size - 1 : INT32_MAX;
}

/* How many response tokens R are scored. */
static inline size_t opd__score_rows(const opd_sglang_score *score) {
    return score->count - score->prompt_count;
}

/* "None" everywhere: no score, no alternative. */
void opd__scores_clear(const opd_sglang_score *score, opd_sglang_scores *out);

/* Sums valid into valid_count, or clears everything where err is an error. Returns err. */
OPD_MUST_CHECK opd_err opd__scores_end(const opd_sglang_score *score, opd_sglang_scores *out,
                                       opd_err err);

/* The last string, cut to the buffer, control characters as spaces. */
void opd__push_cut(const opd_json_push *json, char *out, size_t out_size);

#endif
