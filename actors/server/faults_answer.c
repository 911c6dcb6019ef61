/* faults_answer.c - answers with 200 that are wrong: their numbers, and their text (faults.h).
 * Thread: any. Memory: the caller's. */
#include <math.h>
#include <string.h>

#include "actors/server/faults.h"

static void make_uniform(const opd_server_fault_numbers *numbers, opd_sglang_answer *answer) {
    float logp = -logf((float)numbers->vocab_size);
    size_t k = (size_t)answer->input.top_k;
    for (size_t i = 1; i < answer->input.count; i++) {
        numbers->logp[i] = logp;
        for (size_t j = 0; j < k; j++) {
            numbers->topk_logps[i * k + j] = logp;
            numbers->topk_ids[i * k + j] = (int32_t)j;
        }
    }
}

/* The id before; never 0 for the last one, which servers may do rightly. */
static void change_id(const opd_server_fault *fault, const opd_server_fault_numbers *numbers,
                      const opd_sglang_answer *answer) {
    if (fault->row >= answer->input.count) return;
    int32_t id = numbers->ids[fault->row];
    numbers->ids[fault->row] = id > 0 ? id - 1 : 1;
}

static void end_row(const opd_server_fault *fault, const opd_server_fault_numbers *numbers,
                    const opd_sglang_answer *answer) {
    size_t k = (size_t)answer->input.top_k;
    if (k == 0 || fault->row >= answer->input.count) return;
    numbers->topk_ids[fault->row * k + (k > 1 ? 1 : 0)] = -1;
}

void opd_server_fault_answer(const opd_server_fault *fault, const opd_server_fault_numbers *numbers,
                      opd_sglang_answer *answer) {
    switch (fault->kind) {
    case OPD_SERVER_FAULT_ABORT:
        answer->finish = OPD_SGLANG_FINISH_ABORT;
        answer->message = fault->text[0] != '\0' ? fault->text : "Abort in waiting queue";
        answer->input.count = 0;
        break;
    case OPD_SERVER_FAULT_NAN_HAPPENED:
        answer->finish = OPD_SGLANG_FINISH_STOP;
        answer->matched_text = "NaN happened";
        break;
    case OPD_SERVER_FAULT_SHORT:
        if (answer->input.count > 0) answer->input.count--;
        break;
    case OPD_SERVER_FAULT_IDS: change_id(fault, numbers, answer); break;
    case OPD_SERVER_FAULT_RAGGED: end_row(fault, numbers, answer); break;
    case OPD_SERVER_FAULT_PROMPT_TOKENS: answer->prompt_count--; break;
    case OPD_SERVER_FAULT_WEIGHT_VERSION: answer->weight_version = fault->text; break;
    case OPD_SERVER_FAULT_UNIFORM: make_uniform(numbers, answer); break;
    default: break;
    }
}

/* Puts `bytes` in the place of [from, to) of the text. */
static void splice(opd_str *text, size_t from, size_t to, const char *bytes, size_t size_bytes) {
    opd_str next;
    opd_str_init(&next, text->alloc, text->max_bytes);
    opd_str_append(&next, text->data, from);
    opd_str_append(&next, bytes, size_bytes);
    opd_str_append(&next, text->data + to, text->size - to);
    opd_str_fini(text);
    *text = next;
}

/* Where the rows of input_token_logprobs begin; NULL: there are none. */
static const char *rows_of(const opd_str *text) {
    static const char name[] = "\"input_token_logprobs\":[";
    const char *at = text->data != NULL ? strstr(text->data, name) : NULL;
    return at != NULL ? at + sizeof name - 1 : NULL;
}

static void replace_value(opd_str *text, uint32_t row, const char *literal) {
    const char *at = rows_of(text);
    const char *end = at != NULL ? strstr(at, "]]") : NULL;
    if (end == NULL) return;
    for (uint32_t i = 0; i <= row; i++) {
        at = memchr(at, '[', (size_t)(end - at));
        if (at == NULL) return;
        at++;
    }
    const char *comma = memchr(at, ',', (size_t)(end - at));
    if (comma != NULL)
        splice(text, (size_t)(at - text->data), (size_t)(comma - text->data), literal,
               strlen(literal));
}

static void add_row(opd_str *text) {
    static const char row[] = "[null,0,null],";
    const char *at = rows_of(text);
    if (at == NULL || *at != '[') return;
    size_t from = (size_t)(at - text->data);
    splice(text, from, from, row, sizeof row - 1);
}

/* A member of its own in front, of `bytes` letters. */
static void add_padding(opd_str *text, uint32_t bytes) {
    static const char letters[] = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
    opd_str padding;
    if (text->size == 0 || text->data[0] != '{') return;
    opd_str_init(&padding, text->alloc, (size_t)bytes + 64);
    opd_str_text(&padding, "\"padding\":\"");
    for (uint32_t left = bytes, n; left > 0; left -= n) {
        n = left < sizeof letters - 1 ? left : (uint32_t)sizeof letters - 1;
        opd_str_append(&padding, letters, n);
    }
    opd_str_text(&padding, "\",");
    if (opd_str_status(&padding) == OPD_OK) splice(text, 1, 1, padding.data, padding.size);
    opd_str_fini(&padding);
}

void opd_server_fault_text(const opd_server_fault *fault, opd_str *text) {
    if (opd_str_status(text) != OPD_OK) return;
    switch (fault->kind) {
    case OPD_SERVER_FAULT_VALUE: replace_value(text, fault->row, fault->text); break;
    case OPD_SERVER_FAULT_LONG: add_row(text); break;
    case OPD_SERVER_FAULT_PAD: add_padding(text, fault->bytes); break;
    default: break;
    }
}
