/* transports/sglang_score.c - the client side of sglang.h: ask for scores, believe little.
 *
 * Invariant: an answer is accepted only if every row of it is about the token that was sent;
 * a value is used only if it can be a log-probability. How it is read: sglang_scan.c.
 * Thread: any. Memory: the caller's arrays; error messages are copied.
 */
#include <string.h>

#include "core/base/check.h"
#include "transports/score_inside.h"
#include "transports/sglang.h"
#include "transports/sglang_scan.h"

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
    if (score->top_k > 0 && score->form != OPD_SGLANG_FORM_NESTED) {
        opd_json_write_key(&w, "return_flat_raw_top_logprobs");
        opd_json_write_bool(&w, true);
    }
    if (score->top_k > 0 && score->form == OPD_SGLANG_FORM_BASE64) {
        opd_json_write_key(&w, "return_flat_raw_top_logprobs_b64");
        opd_json_write_bool(&w, true);
    }
    opd_json_write_key(&w, "stream");
    opd_json_write_bool(&w, false);
    opd_json_write_object_end(&w);
    return opd_str_status(out);
}

/* ---- reading an answer ---- */

void opd__scores_clear(const opd_sglang_score *score, opd_sglang_scores *out) {
    size_t rows = opd__score_rows(score), top = rows * (size_t)score->top_k;
    memset(out->logp, 0, rows * sizeof *out->logp);
    memset(out->valid, 0, rows * sizeof *out->valid);
    if (top > 0) {
        memset(out->topk_ids, 0xFF, top * sizeof *out->topk_ids); /* -1 */
        memset(out->topk_logps, 0, top * sizeof *out->topk_logps);
    }
    out->valid_count = out->cached_count = out->echoed_count = 0;
    out->forms = 0;
    out->told_count = out->told_rid = false;
    out->weight_version[0] = '\0';
}

opd_err opd__scores_end(const opd_sglang_score *score, opd_sglang_scores *out, opd_err err) {
    if (err != OPD_OK) {
        opd__scores_clear(score, out);
        return err;
    }
    for (size_t t = 0; t < opd__score_rows(score); t++) out->valid_count += out->valid[t];
    return OPD_OK;
}

void opd__push_cut(const opd_json_push *json, char *out, size_t out_size) {
    char text[OPD_JSON_PUSH_TOKEN_MAX];
    size_t size = opd_json_text_unescape(opd_json_push_text(json), text);
    if (size >= out_size) size = out_size - 1;
    for (size_t i = 0; i < size; i++)
        out[i] = (unsigned char)text[i] < 0x20 || text[i] == 0x7F ? ' ' : text[i];
    out[size] = '\0';
}

opd_err opd_sglang_score_read(const char *body, size_t size_bytes, const opd_sglang_score *score,
                              opd_sglang_scores *out_scores) {
    opd_sglang_scan scan;
    opd_sglang_scan_init(&scan, score, out_scores);
    (void)opd_sglang_scan_feed(&scan, body, size_bytes);
    return opd_sglang_scan_finish(&scan);
}

/* ---- errors ---- */

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
