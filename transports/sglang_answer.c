/* transports/sglang_answer.c - writes the answers of a /generate server (sglang.h) byte for
 * byte in the shapes that SGLang writes. Thread: any. Memory: the caller's string. */
#include <math.h>
#include <string.h>

#include "core/codec/base64.h"
#include "core/codec/decimal.h"
#include "transports/sglang.h"

static void write_number(opd_json_writer *w, const char *key, size_t value) {
    opd_json_write_key(w, key);
    opd_json_write_int64(w, (int64_t)value);
}

/* ---- log-probs: most of an answer's bytes; they go into the text itself, past the writer ---- */

/* Room for one triple with its comma, or one number; and how many such are written between two looks at it. */
enum { ENTRY_ROOM = 2 * OPD_DECIMAL_ROOM + 16, ENTRIES = 128 };

static inline char *put(char *at, const char *text, size_t size) {
    memcpy(at, text, size);
    return at + size;
}

static inline char *put_logp(char *at, float logp) {
    return isfinite(logp) ? at + opd_decimal_float(logp, at) : put(at, "null", 4);
}

/* [logprob, id, null] */
static inline char *put_triple(char *at, float logp, int32_t id) {
    *at++ = '[';
    at = put_logp(at, logp);
    *at++ = ',';
    at += opd_decimal_int64(id, at);
    return put(at, ",null]", 6);
}

/* Begins an array as the writer's next value; its elements and the bracket at its end are appended directly. */
static opd_str *begin_array(opd_json_writer *w, const char *key) {
    opd_json_write_key(w, key);
    opd_json_write_raw(w, "[", 1);
    return w->out;
}

static void write_tokens(opd_json_writer *w, const char *key, const opd_sglang_logprobs *p, bool leading_null) {
    opd_str *out = begin_array(w, key);
    for (size_t i = 0, end; i < p->count; i = end) {
        end = p->count - i > ENTRIES ? i + ENTRIES : p->count;
        char *room = opd_str_room(out, (end - i) * ENTRY_ROOM), *at = room;
        if (room == NULL) return;
        for (size_t r = i; r < end; r++) {
            if (r > 0) *at++ = ',';
            at = put_triple(at, r == 0 && leading_null ? NAN : p->logp[r], p->ids[r]);
        }
        opd_str_extend(out, (size_t)(at - room));
    }
    opd_str_append(out, "]", 1);
}

/* Alternatives in row r: all up to the first id of -1. */
static size_t row_size(const opd_sglang_logprobs *p, size_t r) {
    size_t k = (size_t)p->top_k, n = 0;
    while (n < k && p->topk_ids[r * k + n] >= 0) n++;
    return n;
}

static void write_top_row(opd_str *out, const opd_sglang_logprobs *p, size_t r) {
    size_t k = (size_t)p->top_k, count = row_size(p, r);
    char *room = opd_str_room(out, count * ENTRY_ROOM + 2), *at = room;
    if (room == NULL) return;
    *at++ = '[';
    for (size_t j = 0; j < count; j++) {
        if (j > 0) *at++ = ',';
        at = put_triple(at, p->topk_logps[r * k + j], p->topk_ids[r * k + j]);
    }
    *at++ = ']';
    opd_str_extend(out, (size_t)(at - room));
}

static void write_top(opd_json_writer *w, const char *key, const opd_sglang_logprobs *p, bool leading_null) {
    opd_str *out = begin_array(w, key);
    for (size_t i = 0; i < p->count; i++) {
        if (i > 0) opd_str_append(out, ",", 1);
        if (i == 0 && leading_null) opd_str_append(out, "null", 4);
        else write_top_row(out, p, i);
    }
    opd_str_append(out, "]", 1);
}

/* ---- flat alternatives: rows of the same length, without the first, which has none ---- */

static bool is_ragged(const opd_sglang_logprobs *p) {
    for (size_t r = 1; r < p->count; r++)
        if (row_size(p, r) < (size_t)p->top_k) return true;
    return false;
}

/* One number of each kind: logps, or with NULL ids. */
static void write_flat(opd_json_writer *w, const char *key, const float *logps, const int32_t *ids, size_t count) {
    opd_str *out = begin_array(w, key);
    for (size_t i = 0, end; i < count; i = end) {
        end = count - i > ENTRIES ? i + ENTRIES : count;
        char *room = opd_str_room(out, (end - i) * ENTRY_ROOM), *at = room;
        if (room == NULL) return;
        for (size_t j = i; j < end; j++) {
            if (j > 0) *at++ = ',';
            at = logps != NULL ? put_logp(at, logps[j]) : at + opd_decimal_int64(ids[j], at);
        }
        opd_str_extend(out, (size_t)(at - room));
    }
    opd_str_append(out, "]", 1);
}

/* As they are in memory: little-endian, all of our machines. */
static void write_base64(opd_json_writer *w, const char *key, const void *bytes, size_t size_bytes) {
    size_t size = opd_base64_size(size_bytes);
    opd_json_write_key(w, key);
    opd_json_write_raw(w, "\"", 1);
    char *room = opd_str_room(w->out, size);
    if (room == NULL) return;
    opd_base64_write(bytes, size_bytes, room);
    opd_str_extend(w->out, size);
    opd_str_append(w->out, "\"", 1);
}

static void write_flat_top(opd_json_writer *w, const opd_sglang_logprobs *p, bool base64) {
    size_t k = (size_t)p->top_k, rows = p->count - 1;
    const float *logps = p->topk_logps + k;
    const int32_t *ids = p->topk_ids + k;
    if (base64) {
        write_base64(w, "input_top_logprobs_val_flat_b64", logps, rows * k * sizeof *logps);
        write_base64(w, "input_top_logprobs_idx_flat_b64", ids, rows * k * sizeof *ids);
        opd_json_write_key(w, "input_top_logprobs_val_flat_b64_dtype");
        opd_json_write_text(w, "float32");
        opd_json_write_key(w, "input_top_logprobs_idx_flat_b64_dtype");
        opd_json_write_text(w, "int32");
    } else {
        write_flat(w, "input_top_logprobs_val_flat", logps, NULL, rows * k);
        write_flat(w, "input_top_logprobs_idx_flat", NULL, ids, rows * k);
    }
    opd_json_write_key(w, "input_top_logprobs_shape");
    opd_json_write_array_begin(w);
    opd_json_write_int64(w, (int64_t)rows);
    opd_json_write_int64(w, (int64_t)k);
    opd_json_write_array_end(w);
    write_number(w, "input_top_logprobs_null_prefix", 1);
}

static void write_input_top(opd_json_writer *w, const opd_sglang_logprobs *p, opd_sglang_form form) {
    bool nested = form == OPD_SGLANG_FORM_NESTED || p->count == 0 || is_ragged(p);
    if (nested) write_top(w, "input_top_logprobs", p, true);
    else write_flat_top(w, p, form == OPD_SGLANG_FORM_BASE64);
}

/* ---- the rest ---- */

static void write_finish(opd_json_writer *w, const opd_sglang_answer *a) {
    opd_json_write_key(w, "finish_reason");
    opd_json_write_object_begin(w);
    opd_json_write_key(w, "type");
    switch (a->finish) {
        case OPD_SGLANG_FINISH_LENGTH:
            opd_json_write_text(w, "length");
            write_number(w, "length", a->output_count);
            break;
        case OPD_SGLANG_FINISH_STOP:
            opd_json_write_text(w, "stop");
            opd_json_write_key(w, "matched");
            if (a->matched_text != NULL) opd_json_write_text(w, a->matched_text);
            else opd_json_write_int64(w, a->matched_id);
            break;
        case OPD_SGLANG_FINISH_ABORT:
            opd_json_write_text(w, "abort");
            opd_json_write_key(w, "message");
            opd_json_write_text(w, a->message != NULL ? a->message : "");
            break;
    }
    opd_json_write_object_end(w);
}

/* Which weights made which of the output tokens: ours are the same for all. */
static void write_versions(opd_json_writer *w, const opd_sglang_answer *a) {
    opd_json_write_key(w, "weight_versions");
    opd_json_write_array_begin(w);
    opd_json_write_object_begin(w);
    opd_json_write_key(w, "version");
    opd_json_write_text(w, a->weight_version);
    write_number(w, "start", 0);
    write_number(w, "end", a->output_count);
    opd_json_write_object_end(w);
    opd_json_write_array_end(w);
}

static void write_meta(opd_json_writer *w, const opd_sglang_answer *a) {
    opd_json_write_object_begin(w);
    opd_json_write_key(w, "id");
    opd_json_write_text(w, a->rid);
    write_finish(w, a);
    write_number(w, "prompt_tokens", a->prompt_count);
    opd_json_write_key(w, "weight_version");
    opd_json_write_text(w, a->weight_version);
    if (a->output_count > 0) write_versions(w, a);
    if (a->return_logprob) {
        write_tokens(w, "input_token_logprobs", &a->input, true);
        write_tokens(w, "output_token_logprobs", &a->output, false);
        write_number(w, "output_token_logprobs_length", a->output.count);
        if (a->input.top_k > 0) write_input_top(w, &a->input, a->form);
        if (a->output.top_k > 0) write_top(w, "output_top_logprobs", &a->output, false);
    }
    write_number(w, "completion_tokens", a->output_count);
    write_number(w, "cached_tokens", a->cached_count);
    opd_json_write_key(w, "e2e_latency");
    opd_json_write_double(w, a->e2e_latency_s);
    opd_json_write_object_end(w);
}

void opd_sglang_answer_write(const opd_sglang_answer *answer, opd_json_writer *writer) {
    opd_json_write_object_begin(writer);
    if (answer->text != NULL) {
        opd_json_write_key(writer, "text");
        opd_json_write_string(writer, answer->text, answer->text_size_bytes);
    }
    opd_json_write_key(writer, "output_ids");
    opd_json_write_array_begin(writer);
    for (size_t i = 0; i < answer->output_count; i++)
        opd_json_write_int64(writer, answer->output_ids[i]);
    opd_json_write_array_end(writer);
    opd_json_write_key(writer, "meta_info");
    write_meta(writer, answer);
    opd_json_write_object_end(writer);
}

void opd_sglang_error_write(const char *message, opd_str *out) {
    opd_json_writer w;
    opd_json_writer_init(&w, out, 0);
    opd_json_write_object_begin(&w);
    opd_json_write_key(&w, "error");
    opd_json_write_object_begin(&w);
    opd_json_write_key(&w, "message");
    opd_json_write_text(&w, message);
    opd_json_write_object_end(&w);
    opd_json_write_object_end(&w);
}

void opd_sglang_error_object_write(const char *message, int status, opd_str *out) {
    opd_json_writer w;
    opd_json_writer_init(&w, out, 0);
    opd_json_write_object_begin(&w);
    opd_json_write_key(&w, "object");
    opd_json_write_text(&w, "error");
    opd_json_write_key(&w, "message");
    opd_json_write_text(&w, message);
    opd_json_write_key(&w, "type");
    opd_json_write_text(&w, status < 500 ? "BadRequestError" : "InternalServerError");
    opd_json_write_key(&w, "param");
    opd_json_write_null(&w);
    write_number(&w, "code", (size_t)status);
    opd_json_write_object_end(&w);
}
