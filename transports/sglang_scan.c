/* sglang_scan.c - the schema of a scoring answer over the tokens of json_push.h (sglang_scan.h).
 *
 *   level 0  {            1  "meta_info": {          2  members of meta_info
 *   level 3  rows, top rows, flat numbers, members of finish_reason
 *   level 4  items of a row; entries of a top row     5  items of such an entry
 *
 * A token's level is the number of brackets around it. The bulk is read by sglang_fast.c, and by
 * base64.h; here stand the rules, and everything that is odd. Members come in any order, so the
 * verdict comes last.
 * Thread: the scan's. Memory: none.
 */
#include "transports/sglang_scan.h"

#include <math.h>
#include <string.h>

#include "core/base/check.h"
#include "transports/sglang_scan_inside.h"

enum { LEVEL_ROOT = 1, LEVEL_META = 2, LEVEL_TOP_ITEM = 5, NO_ROWS = -1 };
enum finish_field { FINISH_OTHER, FINISH_TYPE, FINISH_MESSAGE, FINISH_MATCHED };

static const struct { const char *name; uint8_t field; bool top; } members[] = {
    {"input_token_logprobs", OPD__FIELD_ROWS, false},
    {"input_top_logprobs", OPD__FIELD_TOP, true},
    {"input_top_logprobs_val_flat", OPD__FIELD_VAL, true},
    {"input_top_logprobs_idx_flat", OPD__FIELD_IDX, true},
    {"input_top_logprobs_val_flat_b64", OPD__FIELD_VAL64, true},
    {"input_top_logprobs_idx_flat_b64", OPD__FIELD_IDX64, true},
    {"input_top_logprobs_val_flat_b64_dtype", OPD__FIELD_VAL_DTYPE, true},
    {"input_top_logprobs_idx_flat_b64_dtype", OPD__FIELD_IDX_DTYPE, true},
    {"input_top_logprobs_shape", OPD__FIELD_SHAPE, true},
    {"input_top_logprobs_null_prefix", OPD__FIELD_PREFIX, true},
    {"finish_reason", OPD__FIELD_FINISH, false},
    {"prompt_tokens", OPD__FIELD_PROMPT, false},
    {"cached_tokens", OPD__FIELD_CACHED, false},
    {"weight_version", OPD__FIELD_VERSION, false},
    {"id", OPD__FIELD_RID, false},
};

void opd_sglang_scan_init(opd_sglang_scan *s, const opd_sglang_score *score,
                          opd_sglang_scores *out) {
    OPD_ASSERT(score->count > score->prompt_count && score->prompt_count > 0);
    OPD_ASSERT(score->top_k == 0 || (out->topk_ids != NULL && out->topk_logps != NULL));
    memset(s, 0, sizeof *s);
    opd_json_push_init(&s->json);
    s->score = score;
    s->out = out;
    s->expected = opd__score_rows(score) + 1;
    s->id_max = opd__score_id_max(score);
    s->skip_level = -1;
    s->rows = s->top_rows = s->null_prefix = NO_ROWS;
    s->prompt_tokens = s->cached_tokens = -1;
    size_t flat_bytes = (s->expected - 1) * (size_t)score->top_k * sizeof(float);
    s->val64 = (opd_base64){.out = (uint8_t *)out->topk_logps, .room_bytes = flat_bytes};
    s->idx64 = (opd_base64){.out = (uint8_t *)out->topk_ids, .room_bytes = flat_bytes};
    opd__scores_clear(score, out);
}

/* ---- values ---- */

static void fail(opd_sglang_scan *s, const char *text) { (void)opd_json_push_fail(&s->json, text); }

static bool begins(opd_json_push_token token) {
    return token == OPD_JSON_PUSH_OBJECT_BEGIN || token == OPD_JSON_PUSH_ARRAY_BEGIN;
}

static bool ends(opd_json_push_token token) {
    return token == OPD_JSON_PUSH_OBJECT_END || token == OPD_JSON_PUSH_ARRAY_END;
}

/* Passes over the value that begins with this token. */
static void skip(opd_sglang_scan *s, opd_json_push_token token) {
    if (begins(token)) s->skip_level = s->json.depth - 1;
}

static void take_int(opd_sglang_scan *s, opd_json_push_token token, int64_t *out) {
    if (token == OPD_JSON_PUSH_NULL) return;
    if (token != OPD_JSON_PUSH_NUMBER || !opd_json_push_int64(&s->json, out))
        fail(s, "expected a whole number");
}

/* A text of ours; another kind leaves "". */
static void take_text(opd_sglang_scan *s, opd_json_push_token token, char *out, size_t size) {
    if (token == OPD_JSON_PUSH_STRING) opd__push_cut(&s->json, out, size);
    else skip(s, token);
}

static void take_logp(opd_sglang_scan *s, opd_json_push_token token, float *out) {
    *out = NAN; /* null, or a number out of range: an invalid token, not an invalid answer */
    if (token == OPD_JSON_PUSH_NUMBER) (void)opd_json_push_float(&s->json, out);
    else if (token != OPD_JSON_PUSH_NULL) fail(s, "expected a number or null");
}

/* An array that is open for its elements, or null, which counts as none. */
static void take_array(opd_sglang_scan *s, opd_json_push_token token, int64_t *rows) {
    *rows = 0;
    if (token == OPD_JSON_PUSH_ARRAY_BEGIN) s->forms |= 1u << s->field;
    else if (token != OPD_JSON_PUSH_NULL) fail(s, "expected an array");
}

static void take_base64(opd_sglang_scan *s, opd_json_push_token token, opd_base64 *text) {
    if (token == OPD_JSON_PUSH_STRING_BEGIN) {
        s->base64 = text;
        s->forms |= 1u << s->field;
    } else if (token == OPD_JSON_PUSH_STRING) {
        s->base64 = NULL;
        if (s->json.text_size > 0 || !opd_base64_whole(text)) fail(s, "no base64");
    } else if (token != OPD_JSON_PUSH_NULL) {
        fail(s, "expected base64");
    }
}

/* ---- entries ---- */

static void triple_begin(opd_sglang_scan *s, opd_json_push_token token) {
    if (token != OPD_JSON_PUSH_ARRAY_BEGIN) fail(s, "expected [logprob, id, text]");
    s->triple = (opd__sglang_triple){.id = -1};
}

static void triple_item(opd_sglang_scan *s, opd_json_push_token token) {
    opd__sglang_triple *t = &s->triple;
    if (ends(token) || token == OPD_JSON_PUSH_STRING_BEGIN) return;
    if (t->item == 0) {
        take_logp(s, token, &t->logp);
        t->usable = opd__logp_usable(t->logp);
    } else if (t->item == 1) {
        if (token == OPD_JSON_PUSH_NULL) fail(s, "expected a whole number");
        take_int(s, token, &t->id);
    } else if (t->item == 2) {
        skip(s, token);
    } else {
        fail(s, "expected no more than [logprob, id, text]");
    }
    t->item++;
}

static void row(opd_sglang_scan *s, opd_json_push_token token) {
    if (token != OPD_JSON_PUSH_ARRAY_END) triple_begin(s, token);
    else if (s->triple.item < 2) fail(s, "expected [logprob, id, text]");
    else opd__scan_row(s, s->triple.usable, s->triple.logp, s->triple.id);
}

static void top_row(opd_sglang_scan *s, opd_json_push_token token) {
    if (token == OPD_JSON_PUSH_ARRAY_BEGIN) {
        s->top_seen = s->top_taken = 0;
        s->top_ended = false;
    } else if (token == OPD_JSON_PUSH_ARRAY_END || token == OPD_JSON_PUSH_NULL) {
        s->top_rows++;
    } else {
        fail(s, "expected an array");
    }
}

static void top_entry(opd_sglang_scan *s, opd_json_push_token token) {
    const opd__sglang_triple *t = &s->triple;
    if (token != OPD_JSON_PUSH_ARRAY_END) triple_begin(s, token);
    else if (t->item < 2) fail(s, "expected [logprob, id, text]");
    else if (!opd__scan_alternative(s, t->usable, t->logp, t->id))
        fail(s, "more alternatives than asked for");
}

static void flat_number(opd_sglang_scan *s, opd_json_push_token token) {
    float logp = 0;
    int64_t id = -1;
    if (s->field == OPD__FIELD_VAL) take_logp(s, token, &logp);
    else take_int(s, token, &id);
    if (!(s->field == OPD__FIELD_VAL ? opd__scan_flat_val(s, logp) : opd__scan_flat_idx(s, id)))
        fail(s, "more alternatives than asked for");
}

static void shape_number(opd_sglang_scan *s, opd_json_push_token token) {
    if (s->shape_count == 2) fail(s, "expected [rows, k]");
    else take_int(s, token, &s->shape[s->shape_count++]);
}

/* ---- members ---- */

static void finish_member(opd_sglang_scan *s, opd_json_push_token token) {
    if (token == OPD_JSON_PUSH_KEY) {
        opd_json_text key = opd_json_push_text(&s->json);
        s->finish_field = opd_json_text_is(key, "type")      ? FINISH_TYPE
                          : opd_json_text_is(key, "message") ? FINISH_MESSAGE
                          : opd_json_text_is(key, "matched") ? FINISH_MATCHED
                                                             : FINISH_OTHER;
        if (s->finish_field != FINISH_OTHER && (s->seen_finish & (1u << s->finish_field)))
            fail(s, "a member of finish_reason comes twice");
        s->seen_finish |= 1u << s->finish_field;
    } else if (s->finish_field == FINISH_TYPE) {
        take_text(s, token, s->finish, sizeof s->finish);
    } else if (s->finish_field != FINISH_OTHER) {
        take_text(s, token, s->message, sizeof s->message);
    } else {
        skip(s, token);
    }
}

static void meta_key(opd_sglang_scan *s) {
    opd_json_text key = opd_json_push_text(&s->json);
    s->field = OPD__FIELD_OTHER;
    for (size_t i = 0; i < OPD_COUNTOF(members); i++)
        if (opd_json_text_is(key, members[i].name)) {
            if (s->seen & (1u << members[i].field)) fail(s, "a member of meta_info comes twice");
            s->seen |= 1u << members[i].field;
            if (!members[i].top || s->score->top_k > 0) s->field = members[i].field;
        }
}

static void meta_member(opd_sglang_scan *s, opd_json_push_token token) {
    int64_t unused;
    switch (s->field) {
    case OPD__FIELD_ROWS: if (!ends(token)) take_array(s, token, &s->rows); break;
    case OPD__FIELD_TOP:
        if (token != OPD_JSON_PUSH_NULL && !ends(token)) take_array(s, token, &s->top_rows);
        break;
    case OPD__FIELD_VAL:
    case OPD__FIELD_IDX:
    case OPD__FIELD_SHAPE:
        if (!ends(token)) take_array(s, token, &unused);
        break;
    case OPD__FIELD_VAL64: take_base64(s, token, &s->val64); break;
    case OPD__FIELD_IDX64: take_base64(s, token, &s->idx64); break;
    case OPD__FIELD_VAL_DTYPE: take_text(s, token, s->val_dtype, sizeof s->val_dtype); break;
    case OPD__FIELD_IDX_DTYPE: take_text(s, token, s->idx_dtype, sizeof s->idx_dtype); break;
    case OPD__FIELD_PREFIX: take_int(s, token, &s->null_prefix); break;
    case OPD__FIELD_PROMPT: take_int(s, token, &s->prompt_tokens); break;
    case OPD__FIELD_CACHED: take_int(s, token, &s->cached_tokens); break;
    case OPD__FIELD_VERSION:
        take_text(s, token, s->out->weight_version, sizeof s->out->weight_version);
        break;
    case OPD__FIELD_RID: take_text(s, token, s->rid, sizeof s->rid); break;
    case OPD__FIELD_FINISH:
        if (token == OPD_JSON_PUSH_ARRAY_BEGIN ||
            (!begins(token) && !ends(token) && token != OPD_JSON_PUSH_NULL))
            fail(s, "expected an object");
        break;
    default: skip(s, token);
    }
}

/* A value inside a member of meta_info. */
static void inner(opd_sglang_scan *s, opd_json_push_token token, int level) {
    if (level == OPD__LEVEL_ELEMENT) {
        switch (s->field) {
        case OPD__FIELD_ROWS: row(s, token); return;
        case OPD__FIELD_TOP: top_row(s, token); return;
        case OPD__FIELD_FINISH: finish_member(s, token); return;
        case OPD__FIELD_SHAPE: shape_number(s, token); return;
        default: flat_number(s, token); return;
        }
    }
    if (level == OPD__LEVEL_TOP_ELEMENT && s->field == OPD__FIELD_TOP) top_entry(s, token);
    else triple_item(s, token);
}

static void root_member(opd_sglang_scan *s, opd_json_push_token token) {
    if (token == OPD_JSON_PUSH_KEY) {
        s->root_field = opd_json_text_is(opd_json_push_text(&s->json), "meta_info");
        if (s->root_field && s->seen_meta) fail(s, "meta_info comes twice");
        s->seen_meta = s->seen_meta || s->root_field;
    } else if (!s->root_field) {
        skip(s, token);
    } else if (token != OPD_JSON_PUSH_OBJECT_BEGIN && token != OPD_JSON_PUSH_OBJECT_END) {
        fail(s, "expected an object");
    }
}

static void take_token(opd_sglang_scan *s, opd_json_push_token token) {
    int level = s->json.depth - begins(token);
    bool base64 = level == LEVEL_META &&
                  (s->field == OPD__FIELD_VAL64 || s->field == OPD__FIELD_IDX64);
    if (s->skip_level >= 0) {
        if (level == s->skip_level && ends(token)) s->skip_level = -1;
    } else if (token == OPD_JSON_PUSH_COMMA || (token == OPD_JSON_PUSH_STRING_BEGIN && !base64)) {
        /* what follows is what counts */
    } else if (level == 0) {
        if (token != OPD_JSON_PUSH_OBJECT_BEGIN && token != OPD_JSON_PUSH_OBJECT_END)
            fail(s, "expected an object");
    } else if (level == LEVEL_ROOT) {
        root_member(s, token);
    } else if (level == LEVEL_META) {
        if (token == OPD_JSON_PUSH_KEY) meta_key(s);
        else meta_member(s, token);
    } else {
        inner(s, token, level);
    }
}

/* The characters of a base64 string, as far as they go. */
static void feed_base64(opd_sglang_scan *s, const char **at, const char *end) {
    const char *begin = *at;
    opd_base64_status status = opd_base64_feed(s->base64, at, end);
    opd_json_push_in_string(&s->json, (size_t)(*at - begin));
    if (status == OPD_BASE64_WRONG) fail(s, "no base64");
    if (status == OPD_BASE64_FULL) fail(s, "more alternatives than asked for");
}

bool opd_sglang_scan_feed(opd_sglang_scan *s, const char *bytes, size_t size_bytes) {
    const char *at = bytes, *end = bytes + size_bytes;
    for (;;) {
        if (s->base64 != NULL) feed_base64(s, &at, end);
        else if (opd_json_push_element(&s->json)) at = opd__sglang_fast(s, at, end);
        opd_json_push_token token = opd_json_push_next(&s->json, &at, end);
        if (token == OPD_JSON_PUSH_MORE) return true;
        if (token == OPD_JSON_PUSH_ERROR) return false;
        take_token(s, token);
    }
}

/* ---- the verdict ---- */

/* Whether a member was there, and not null. */
static bool has(const opd_sglang_scan *s, uint8_t field) {
    return (s->forms & (1u << field)) != 0;
}

/* Entries of the flat arrays, or -1 where the base64 is not what it says. */
static int64_t flat_count(const opd_sglang_scan *s, bool base64, bool ids) {
    const opd_base64 *text = ids ? &s->idx64 : &s->val64;
    size_t bytes = (s->expected - 1) * (size_t)s->score->top_k * sizeof(float) - text->room_bytes;
    if (!base64) return (int64_t)(ids ? s->idx_count : s->val_count);
    if (strcmp(ids ? s->idx_dtype : s->val_dtype, ids ? "int32" : "float32") != 0) return -1;
    return bytes % sizeof(float) == 0 ? (int64_t)(bytes / sizeof(float)) : -1;
}

/* The row in front is null, so there are R rows of k; some servers count the null row into the
 * shape, others do not. */
static opd_err judge_flat(const opd_sglang_scan *s, bool base64) {
    int64_t rows = (int64_t)s->expected - 1, k = s->score->top_k;
    if (s->shape_count != 2 || s->shape[1] != k || s->null_prefix != 1 ||
        (s->shape[0] != rows && s->shape[0] != rows + 1))
        return opd_fail(OPD_ERR_PROTO,
                        "the flat alternatives have the shape [%lld, %lld] and %lld null rows, "
                        "expected [%lld, %lld] and 1",
                        (long long)s->shape[0], (long long)s->shape[1], (long long)s->null_prefix,
                        (long long)rows, (long long)k);
    int64_t values = flat_count(s, base64, false), ids = flat_count(s, base64, true);
    if (values != rows * k || ids != rows * k)
        return opd_fail(OPD_ERR_PROTO,
                        "the flat alternatives are %lld values and %lld ids, expected %lld (-1: of "
                        "another dtype)",
                        (long long)values, (long long)ids, (long long)(rows * k));
    return OPD_OK;
}

static opd_err judge_top(const opd_sglang_scan *s) {
    bool val = has(s, OPD__FIELD_VAL), val64 = has(s, OPD__FIELD_VAL64);
    bool nested = has(s, OPD__FIELD_TOP);
    if (s->score->top_k == 0) return OPD_OK;
    if (val != has(s, OPD__FIELD_IDX) || val64 != has(s, OPD__FIELD_IDX64) ||
        val + val64 + nested > 1)
        return opd_fail(OPD_ERR_PROTO, "the alternatives come in more than one form, or in half of one");
    if (nested && s->top_rows != (int64_t)s->expected)
        return opd_fail(OPD_ERR_PROTO, "input_top_logprobs has %lld rows, expected %zu",
                        (long long)s->top_rows, s->expected);
    return val || val64 ? judge_flat(s, val64) : OPD_OK;
}

/* The verdict, worst first. */
static opd_err judge(const opd_sglang_scan *s) {
    const opd_sglang_score *score = s->score;
    if (strcmp(s->finish, "abort") == 0)
        return opd_fail(OPD_ERR_AGAIN, "the server aborted the request: %s", s->message);
    if (strcmp(s->finish, "stop") == 0 && strcmp(s->message, "NaN happened") == 0)
        return opd_fail(OPD_ERR_REMOTE, "the server met non-finite numbers (NaN happened)");
    if (s->finish[0] == '\0')
        return opd_fail(OPD_ERR_PROTO, "the answer has no meta_info.finish_reason");
    if (s->prompt_tokens != (int64_t)score->count)
        return opd_fail(OPD_ERR_PROTO, "the server scored %lld prompt tokens, %zu were sent (-1: it does not say); does it truncate?",
                        (long long)s->prompt_tokens, score->count);
    if (s->rows != (int64_t)s->expected)
        return opd_fail(OPD_ERR_PROTO, "input_token_logprobs has %lld rows, expected %zu",
                        (long long)s->rows, s->expected);
    if (s->wrong)
        return opd_fail(OPD_ERR_PROTO, "row %zu of input_token_logprobs is about token %lld, but %d was sent",
                        s->wrong_row, (long long)s->wrong_id,
                        (int)score->ids[score->prompt_count - 1 + s->wrong_row]);
    return judge_top(s);
}

/* What the answer shows of the server. */
static void tell(const opd_sglang_scan *s) {
    opd_sglang_scores *out = s->out;
    out->cached_count = s->cached_tokens > 0 ? (size_t)s->cached_tokens : 0;
    out->told_count = s->prompt_tokens >= 0;
    out->told_rid = s->score->rid != NULL && strcmp(s->rid, s->score->rid) == 0;
    if (has(s, OPD__FIELD_TOP)) out->forms = 1u << OPD_SGLANG_FORM_NESTED;
    if (has(s, OPD__FIELD_VAL)) out->forms = 1u << OPD_SGLANG_FORM_FLAT;
    if (has(s, OPD__FIELD_VAL64)) out->forms = 1u << OPD_SGLANG_FORM_BASE64;
}

/* Flat alternatives were written as they came: an entry that cannot be used ends its row. */
static void settle_flat(opd_sglang_scan *s) {
    size_t rows = s->expected - 1, k = (size_t)s->score->top_k;
    int32_t id_max = (int32_t)s->id_max;
    for (size_t r = 0; r < rows; r++) {
        int32_t *ids = s->out->topk_ids + r * k;
        float *logps = s->out->topk_logps + r * k;
        int bad = 0;
        size_t n = 0;
        for (size_t j = 0; j < k; j++) /* most rows are good: no branches, so that it is quick */
            bad |= (ids[j] < 0) | (ids[j] > id_max) | !(logps[j] <= OPD__LOGP_MAX) |
                   !(logps[j] >= OPD__LOGP_MIN);
        if (!bad) continue;
        while (ids[n] >= 0 && ids[n] <= id_max && opd__logp_usable(logps[n])) n++;
        for (; n < k; n++) {
            ids[n] = -1;
            logps[n] = 0;
        }
    }
}

opd_err opd_sglang_scan_finish(opd_sglang_scan *s) {
    opd_err err = opd_json_push_finish(&s->json);
    if (err != OPD_OK) err = opd_err_prefix(OPD_ERR_PROTO, "the answer is no scoring answer");
    else err = judge(s);
    if (err == OPD_OK) tell(s);
    if (err == OPD_OK && s->score->top_k > 0 && (has(s, OPD__FIELD_VAL) || has(s, OPD__FIELD_VAL64)))
        settle_flat(s);
    return opd__scores_end(s->score, s->out, err);
}
