/* sglang_scan_inside.h - what sglang_scan.c (any JSON, byte by byte) and sglang_fast.c (the JSON that
 * servers really write, entry by entry) share: what becomes of an entry that was read. Both
 * must do the same with the same bytes.
 *
 * Thread: the scan's. Memory: none.
 */
#ifndef OPD_TRANSPORTS_SGLANG_SCAN_INSIDE_H
#define OPD_TRANSPORTS_SGLANG_SCAN_INSIDE_H

#include "transports/score_inside.h"
#include "transports/sglang_scan.h"

enum opd__sglang_field {
    OPD__FIELD_OTHER,
    OPD__FIELD_ROWS,      /* input_token_logprobs: [[logp, id, text], ...]     */
    OPD__FIELD_TOP,       /* input_top_logprobs: [null | [[logp, id, text]]]   */
    OPD__FIELD_VAL,       /* input_top_logprobs_val_flat: [logp, ...]          */
    OPD__FIELD_IDX,       /* input_top_logprobs_idx_flat: [id, ...]            */
    OPD__FIELD_VAL64,     /* the same two in base64                            */
    OPD__FIELD_IDX64,
    OPD__FIELD_VAL_DTYPE, /* "float32" */
    OPD__FIELD_IDX_DTYPE, /* "int32"   */
    OPD__FIELD_SHAPE,     /* [rows, k] */
    OPD__FIELD_PREFIX,    /* null rows in front of the flat ones */
    OPD__FIELD_FINISH,
    OPD__FIELD_PROMPT,
    OPD__FIELD_CACHED,
    OPD__FIELD_VERSION,
    OPD__FIELD_RID        /* id: the request's */
};

/* The depths around the elements of the arrays: {"meta_info": {"...": [ element */
enum { OPD__LEVEL_ELEMENT = 3, OPD__LEVEL_TOP_ELEMENT = 4 };

/* The server writes ids from vocab_size - 1 on as 0. */
static inline bool opd__is_echo(const opd_sglang_score *score, int64_t got, int32_t sent) {
    if (got == sent) return true;
    return got == 0 && (score->vocab_size <= 0 || sent >= score->vocab_size - 1);
}

/* A whole entry of input_token_logprobs; row 0 stands in front of the scored tokens. */
static inline void opd__scan_row(opd_sglang_scan *s, bool usable, float logp, int64_t id) {
    size_t row = (size_t)s->rows++;
    if (row >= s->expected) return;
    if (!opd__is_echo(s->score, id, s->score->ids[s->score->prompt_count - 1 + row]) && !s->wrong) {
        s->wrong = true;
        s->wrong_row = row;
        s->wrong_id = id;
    }
    if (row == 0) return;
    s->out->echoed_count += id == s->score->ids[s->score->prompt_count - 1 + row];
    s->out->logp[row - 1] = usable ? logp : 0;
    s->out->valid[row - 1] = usable;
}

/* A whole entry of a row of input_top_logprobs. False: one more than was asked for. */
static inline bool opd__scan_alternative(opd_sglang_scan *s, bool usable, float logp, int64_t id) {
    size_t k = (size_t)s->score->top_k, row = (size_t)s->top_rows;
    if (s->top_seen++ >= s->score->top_k) return false;
    if (!usable || id < 0 || id > s->id_max) s->top_ended = true;
    if (s->top_ended || row == 0 || row >= s->expected) return true;
    size_t at = (row - 1) * k + (size_t)s->top_taken++;
    s->out->topk_ids[at] = (int32_t)id;
    s->out->topk_logps[at] = logp;
    return true;
}

/* One number of the flat arrays; they are judged at the end. False: more than [R, k]. */
static inline bool opd__scan_flat_val(opd_sglang_scan *s, float logp) {
    if (s->val_count >= (s->expected - 1) * (size_t)s->score->top_k) return false;
    s->out->topk_logps[s->val_count++] = logp;
    return true;
}

static inline bool opd__scan_flat_idx(opd_sglang_scan *s, int64_t id) {
    if (s->idx_count >= (s->expected - 1) * (size_t)s->score->top_k) return false;
    s->out->topk_ids[s->idx_count++] = id >= 0 && id <= s->id_max ? (int32_t)id : -1;
    return true;
}

/* In sglang_fast.c. Reads whole elements at `at`, as many as are written without white space and
 * with numbers of common length, and tells the tokenizer. Returns where it stopped. */
const char *opd__sglang_fast(opd_sglang_scan *scan, const char *at, const char *end);

#endif
