/* transports/sglang_answer.c - writes the answers of a /generate server (sglang.h) byte for
 * byte in the shapes that SGLang writes. Thread: any. Memory: the caller's string. */
#include "transports/sglang.h"

static void write_number(opd_json_writer *w, const char *key, size_t value) {
    opd_json_write_key(w, key);
    opd_json_write_int64(w, (int64_t)value);
}

/* [logprob|null, id, null] */
static void write_triple(opd_json_writer *w, bool scored, float logp, int32_t id) {
    opd_json_write_array_begin(w);
    if (scored) opd_json_write_float(w, logp); /* writes null if not finite */
    else opd_json_write_null(w);
    opd_json_write_int64(w, id);
    opd_json_write_null(w);
    opd_json_write_array_end(w);
}

static void write_tokens(opd_json_writer *w, const char *key, const opd_sglang_logprobs *p, bool leading_null) {
    opd_json_write_key(w, key);
    opd_json_write_array_begin(w);
    for (size_t i = 0; i < p->count; i++) {
        bool scored = i > 0 || !leading_null;
        write_triple(w, scored, scored ? p->logp[i] : 0, p->ids[i]);
    }
    opd_json_write_array_end(w);
}

static void write_top(opd_json_writer *w, const char *key, const opd_sglang_logprobs *p, bool leading_null) {
    size_t k = (size_t)p->top_k;
    opd_json_write_key(w, key);
    opd_json_write_array_begin(w);
    for (size_t i = 0; i < p->count; i++) {
        if (i == 0 && leading_null) {
            opd_json_write_null(w);
            continue;
        }
        opd_json_write_array_begin(w);
        for (size_t j = 0; j < k && p->topk_ids[i * k + j] >= 0; j++)
            write_triple(w, true, p->topk_logps[i * k + j], p->topk_ids[i * k + j]);
        opd_json_write_array_end(w);
    }
    opd_json_write_array_end(w);
}

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

static void write_meta(opd_json_writer *w, const opd_sglang_answer *a) {
    opd_json_write_object_begin(w);
    opd_json_write_key(w, "id");
    opd_json_write_text(w, a->rid);
    write_finish(w, a);
    write_number(w, "prompt_tokens", a->prompt_count);
    opd_json_write_key(w, "weight_version");
    opd_json_write_text(w, a->weight_version);
    if (a->return_logprob) {
        write_tokens(w, "input_token_logprobs", &a->input, true);
        write_tokens(w, "output_token_logprobs", &a->output, false);
        write_number(w, "output_token_logprobs_length", a->output.count);
        if (a->input.top_k > 0) write_top(w, "input_top_logprobs", &a->input, true);
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
