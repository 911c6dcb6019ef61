/* transports/sglang_score.c - the client side of sglang.h: ask for scores, believe little.
 *
 * Invariant: an answer is accepted only if every row of it is about the token that was sent;
 * a value is used only if it can be a log-probability.
 * Thread: any. Memory: the caller's arrays; error messages are copied.
 */
#include <string.h>

#include "core/base/check.h"
#include "transports/sglang.h"

/* Rounding may lift a log-prob above 0 by about this; -inf clamped to the smallest float is
 * no score either. */
#define LOGP_MAX 1e-4f
#define LOGP_MIN -1e30f

enum { WORD_SIZE = 32, NO_ROWS = -1 };

opd_err opd_sglang_score_write(const opd_sglang_score *score, opd_str *out) {
    opd_json_writer w;
    if (score->prompt_count < 1 || score->count <= score->prompt_count || score->top_k < 0 ||
        score->top_k > OPD_SGLANG_TOP_MAX)
        return opd_fail(OPD_ERR_INVALID, "cannot score %zu tokens after a prompt of %zu with top %d",
                        score->count, score->prompt_count, (int)score->top_k);
    opd_json_writer_init(&w, out, 0);
    opd_json_write_object_begin(&w);
    if (score->rid != NULL) {
        opd_json_write_key(&w, "rid");
        opd_json_write_text(&w, score->rid);
    }
    opd_json_write_key(&w, "input_ids");
    opd_json_write_array_begin(&w);
    for (size_t i = 0; i < score->count; i++) opd_json_write_int64(&w, score->ids[i]);
    opd_json_write_array_end(&w);
    opd_json_write_key(&w, "sampling_params");
    opd_json_write_object_begin(&w);
    opd_json_write_key(&w, "max_new_tokens");
    opd_json_write_int64(&w, 0);
    opd_json_write_key(&w, "temperature");
    opd_json_write_double(&w, score->temperature > 0 ? score->temperature : 1);
    opd_json_write_object_end(&w);
    opd_json_write_key(&w, "return_logprob");
    opd_json_write_bool(&w, true);
    opd_json_write_key(&w, "logprob_start_len");
    opd_json_write_int64(&w, (int64_t)score->prompt_count - 1);
    opd_json_write_key(&w, "top_logprobs_num");
    opd_json_write_int64(&w, score->top_k);
    opd_json_write_key(&w, "return_text_in_logprobs");
    opd_json_write_bool(&w, false);
    opd_json_write_key(&w, "stream");
    opd_json_write_bool(&w, false);
    opd_json_write_object_end(&w);
    return opd_str_status(out);
}

/* ---- reading an answer ---- */

/* What was found so far; members come in any order, so the verdict comes last. */
typedef struct reading {
    opd_json *json;
    const opd_sglang_score *score;
    opd_sglang_scores *out;
    int64_t prompt_tokens, rows, top_rows; /* -1 = not there */
    int64_t cached_tokens;
    char finish[WORD_SIZE];
    char message[OPD_SGLANG_MESSAGE_SIZE]; /* of an abort, or what a stop matched */
    size_t wrong_row; /* first row with another id */
    int64_t wrong_id;
    bool wrong;
} reading;

/* A string cut to the buffer, control characters as spaces; another kind gives "". */
static void read_cut(opd_json *json, char *out, size_t out_size) {
    char *text;
    size_t size;
    out[0] = '\0';
    if (opd_json_peek(json) != OPD_JSON_STRING) {
        opd_json_skip(json);
        return;
    }
    if (!opd_json_read_dup(json, NULL, &text, &size)) return;
    if (size >= out_size) size = out_size - 1;
    for (size_t i = 0; i < size; i++)
        out[i] = (unsigned char)text[i] < 0x20 || text[i] == 0x7F ? ' ' : text[i];
    out[size] = '\0';
    opd_mem_free(NULL, text);
}

/* A log-prob; false where there is none that can be used: null, too large, above 0. */
static bool read_logp(opd_json *json, float *out) {
    opd_json mark = *json;
    float value;
    if (opd_json_peek(json) != OPD_JSON_NUMBER) {
        opd_json_read_null(json);
        return false;
    }
    if (!opd_json_read_float(json, &value)) {
        *json = mark; /* a number out of range is an invalid token, not an invalid answer */
        opd_json_skip(json);
        return false;
    }
    if (!(value <= LOGP_MAX) || !(value >= LOGP_MIN)) return false;
    *out = value;
    return true;
}

/* [logprob|null, id, text|null]: whether the log-prob can be used. */
static bool read_triple(opd_json *json, float *out_logp, int64_t *out_id) {
    *out_id = -1;
    if (!opd_json_array_begin(json)) return false;
    if (!opd_json_array_next(json)) return opd_json_error(json, "expected [logprob, id, text]");
    bool usable = read_logp(json, out_logp);
    if (!opd_json_array_next(json)) return opd_json_error(json, "expected [logprob, id, text]");
    opd_json_read_int64(json, out_id);
    if (opd_json_array_next(json)) {
        opd_json_skip(json);
        if (opd_json_array_next(json))
            return opd_json_error(json, "expected no more than [logprob, id, text]");
    }
    return usable && json->error == NULL;
}

/* The server writes ids from vocab_size - 1 on as 0. */
static bool is_echo(const opd_sglang_score *score, int64_t got, int32_t sent) {
    if (got == sent) return true;
    return got == 0 && (score->vocab_size <= 0 || sent >= score->vocab_size - 1);
}

static void read_rows(reading *r) {
    const opd_sglang_score *score = r->score;
    size_t expected = score->count - score->prompt_count + 1;
    r->rows = 0;
    if (opd_json_peek(r->json) == OPD_JSON_NULL) {
        opd_json_read_null(r->json);
        return;
    }
    opd_json_array_begin(r->json);
    for (; opd_json_array_next(r->json); r->rows++) {
        size_t row = (size_t)r->rows;
        float logp = 0;
        int64_t id;
        bool usable = read_triple(r->json, &logp, &id);
        if (row >= expected || r->json->error != NULL) continue;
        int32_t sent = score->ids[score->prompt_count - 1 + row];
        if (!r->wrong && !is_echo(score, id, sent)) {
            r->wrong = true;
            r->wrong_row = row;
            r->wrong_id = id;
        }
        if (row == 0) continue; /* always null: what precedes the scored tokens */
        r->out->logp[row - 1] = usable ? logp : 0;
        r->out->valid[row - 1] = usable;
    }
}

/* One row of alternatives into ids[k], logps[k], which hold "none" already. */
static void read_top_row(reading *r, int32_t *ids, float *logps) {
    int32_t k = r->score->top_k, n = 0;
    bool ended = false;
    if (opd_json_peek(r->json) == OPD_JSON_NULL) {
        opd_json_read_null(r->json);
        return;
    }
    opd_json_array_begin(r->json);
    for (int32_t i = 0; opd_json_array_next(r->json); i++) {
        float logp = 0;
        int64_t id;
        bool usable = read_triple(r->json, &logp, &id);
        if (i >= k) {
            opd_json_error(r->json, "more alternatives than asked for");
            return;
        }
        int64_t id_max = r->score->vocab_size > 0 ? r->score->vocab_size - 1 : INT32_MAX;
        ended = ended || !usable || id < 0 || id > id_max;
        if (ended || ids == NULL) continue;
        ids[n] = (int32_t)id;
        logps[n++] = logp;
    }
}

static void read_top_rows(reading *r) {
    size_t expected = r->score->count - r->score->prompt_count + 1, k = (size_t)r->score->top_k;
    if (r->score->top_k == 0 || opd_json_peek(r->json) == OPD_JSON_NULL) {
        opd_json_skip(r->json);
        return;
    }
    r->top_rows = 0;
    opd_json_array_begin(r->json);
    for (; opd_json_array_next(r->json); r->top_rows++) {
        size_t row = (size_t)r->top_rows;
        bool ours = row > 0 && row < expected;
        read_top_row(r, ours ? r->out->topk_ids + (row - 1) * k : NULL,
                     ours ? r->out->topk_logps + (row - 1) * k : NULL);
    }
}

static void read_finish(reading *r) {
    opd_json_text key;
    if (opd_json_peek(r->json) == OPD_JSON_NULL) {
        opd_json_read_null(r->json);
        return;
    }
    opd_json_object_begin(r->json);
    while (opd_json_object_next(r->json, &key)) {
        if (opd_json_text_is(key, "type")) read_cut(r->json, r->finish, sizeof r->finish);
        else if (opd_json_text_is(key, "message") || opd_json_text_is(key, "matched"))
            read_cut(r->json, r->message, sizeof r->message);
        else opd_json_skip(r->json);
    }
}

static void read_count(opd_json *json, int64_t *out) {
    if (opd_json_peek(json) == OPD_JSON_NULL) opd_json_read_null(json);
    else opd_json_read_int64(json, out);
}

static void read_meta(reading *r) {
    opd_json_text key;
    opd_json_object_begin(r->json);
    while (opd_json_object_next(r->json, &key)) {
        if (opd_json_text_is(key, "input_token_logprobs")) read_rows(r);
        else if (opd_json_text_is(key, "input_top_logprobs")) read_top_rows(r);
        else if (opd_json_text_is(key, "finish_reason")) read_finish(r);
        else if (opd_json_text_is(key, "prompt_tokens")) read_count(r->json, &r->prompt_tokens);
        else if (opd_json_text_is(key, "cached_tokens")) read_count(r->json, &r->cached_tokens);
        else if (opd_json_text_is(key, "weight_version"))
            read_cut(r->json, r->out->weight_version, sizeof r->out->weight_version);
        else opd_json_skip(r->json);
    }
}

/* The verdict, worst first. */
static opd_err judge(const reading *r) {
    const opd_sglang_score *score = r->score;
    size_t expected = score->count - score->prompt_count + 1;
    if (strcmp(r->finish, "abort") == 0)
        return opd_fail(OPD_ERR_REMOTE, "the server aborted the request: %s", r->message);
    if (strcmp(r->finish, "stop") == 0 && strcmp(r->message, "NaN happened") == 0)
        return opd_fail(OPD_ERR_REMOTE, "the server met non-finite numbers (NaN happened)");
    if (r->finish[0] == '\0')
        return opd_fail(OPD_ERR_PROTO, "the answer has no meta_info.finish_reason");
    if (r->prompt_tokens != (int64_t)score->count)
        return opd_fail(OPD_ERR_PROTO, "the server scored %lld prompt tokens, %zu were sent (-1: it does not say); does it truncate?",
                        (long long)r->prompt_tokens, score->count);
    if (r->rows != (int64_t)expected)
        return opd_fail(OPD_ERR_PROTO, "input_token_logprobs has %lld rows, expected %zu",
                        (long long)r->rows, expected);
    if (r->wrong)
        return opd_fail(OPD_ERR_PROTO, "row %zu of input_token_logprobs is about token %lld, but %d was sent",
                        r->wrong_row, (long long)r->wrong_id,
                        (int)score->ids[score->prompt_count - 1 + r->wrong_row]);
    if (r->top_rows != NO_ROWS && r->top_rows != (int64_t)expected)
        return opd_fail(OPD_ERR_PROTO, "input_top_logprobs has %lld rows, expected %zu",
                        (long long)r->top_rows, expected);
    return OPD_OK;
}

/* "None" everywhere: no score, no alternative. */
static void clear_scores(const opd_sglang_score *score, opd_sglang_scores *out) {
    size_t rows = score->count - score->prompt_count, top = rows * (size_t)score->top_k;
    memset(out->logp, 0, rows * sizeof *out->logp);
    memset(out->valid, 0, rows * sizeof *out->valid);
    for (size_t i = 0; i < top; i++) {
        out->topk_ids[i] = -1;
        out->topk_logps[i] = 0;
    }
    out->valid_count = out->cached_count = 0;
    out->weight_version[0] = '\0';
}

opd_err opd_sglang_score_read(const char *body, size_t size_bytes, const opd_sglang_score *score,
                              opd_sglang_scores *out_scores) {
    opd_json json;
    opd_json_text key;
    reading r = {.json = &json, .score = score, .out = out_scores, .prompt_tokens = -1,
                 .rows = NO_ROWS, .top_rows = NO_ROWS};
    OPD_ASSERT(score->count > score->prompt_count && score->prompt_count > 0);
    OPD_ASSERT(score->top_k == 0 || (out_scores->topk_ids != NULL && out_scores->topk_logps != NULL));
    clear_scores(score, out_scores);
    opd_json_init(&json, body, size_bytes);
    opd_json_object_begin(&json);
    while (opd_json_object_next(&json, &key)) {
        if (opd_json_text_is(key, "meta_info")) read_meta(&r);
        else opd_json_skip(&json);
    }
    opd_err err = opd_json_finish(&json);
    if (err != OPD_OK) err = opd_err_prefix(OPD_ERR_PROTO, "the answer is no scoring answer");
    else err = judge(&r);
    if (err != OPD_OK) {
        clear_scores(score, out_scores);
        return err;
    }
    for (size_t t = 0; t < score->count - score->prompt_count; t++)
        out_scores->valid_count += out_scores->valid[t];
    out_scores->cached_count = r.cached_tokens > 0 ? (size_t)r.cached_tokens : 0;
    return OPD_OK;
}

/* ---- errors ---- */

void opd_sglang_error_read(const char *body, size_t size_bytes, char *out) {
    opd_json json;
    opd_json_text key;
    char message[OPD_SGLANG_MESSAGE_SIZE] = "";
    opd_json_init(&json, body, size_bytes);
    opd_json_object_begin(&json);
    while (opd_json_object_next(&json, &key)) {
        if (opd_json_text_is(key, "error") && opd_json_peek(&json) == OPD_JSON_OBJECT) {
            opd_json_object_begin(&json);
            while (opd_json_object_next(&json, &key)) {
                if (opd_json_text_is(key, "message")) read_cut(&json, message, sizeof message);
                else opd_json_skip(&json);
            }
        } else if (opd_json_text_is(key, "error") || opd_json_text_is(key, "message")) {
            read_cut(&json, message, sizeof message);
        } else {
            opd_json_skip(&json);
        }
    }
    size_t size = strlen(message);
    if (size == 0) { /* no envelope: what can be printed of the body */
        size = size_bytes < sizeof message - 1 ? size_bytes : sizeof message - 1;
        for (size_t i = 0; i < size; i++)
            message[i] = body[i] >= 0x20 && body[i] < 0x7F ? body[i] : ' ';
    }
    memcpy(out, message, size);
    out[size] = '\0';
}
