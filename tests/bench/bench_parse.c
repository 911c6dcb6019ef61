/* bench_parse.c - scoring answers of SGLang into arrays and from them: nested, flat and base64.
 *
 * The texts have the shape and the digits of real answers (teacher-protocol 2.3, 6): float32
 * log-probs written with the digits of a double, ids of a vocabulary of 151,936. The figure is
 * the size of the answer over the CPU time of this thread, in MB (1e6 bytes) per second.
 * Thread: the caller's. Each case frees what it makes.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/base/rng.h"
#include "core/base/str.h"
#include "core/codec/base64.h"
#include "tests/bench/bench.h"
#include "transports/sglang.h"

enum { PROMPT = 100, VOCAB = 151936, TEXT_MAX = 64 << 20, REPEATS = 8, BEST_OF = 3 };
typedef enum form { NESTED, FLAT, BASE64 } form;

typedef struct answer {
    opd_str text;
    size_t rows, k;
    int32_t *ids;   /* [PROMPT + rows] */
    float *logps;   /* [rows, k]       */
    int32_t *tops;  /* [rows, k]       */
} answer;

static void *room(size_t size) {
    void *bytes = calloc(1, size > 0 ? size : 1);
    if (bytes == NULL) bench_must(opd_fail(OPD_ERR_NOMEM, "an answer"));
    return bytes;
}

static float logp_of(opd_rng *rng) {
    return (float)(log(opd_rng_uniform(opd_rng_next(rng)) + 1e-9) * 2);
}

static void triple(opd_str *text, float logp, int32_t id) {
    opd_str_printf(text, "[%.17g,%d,null]", (double)logp, (int)id);
}

static void rows_text(answer *a, opd_rng *rng) {
    opd_str_printf(&a->text, "{\"text\":\"\",\"output_ids\":[],\"meta_info\":{\"id\":\"r\",\"input_token_logprobs\":[[null,%d,null]",
                   (int)a->ids[PROMPT - 1]);
    for (size_t r = 0; r < a->rows; r++) {
        opd_str_text(&a->text, ",");
        triple(&a->text, logp_of(rng), a->ids[PROMPT + r]);
    }
    opd_str_text(&a->text, "]");
}

static void nested_text(answer *a) {
    opd_str_text(&a->text, ",\"input_top_logprobs\":[null");
    for (size_t r = 0; r < a->rows; r++)
        for (size_t j = 0; j < a->k; j++) {
            opd_str_text(&a->text, j == 0 ? ",[" : ",");
            triple(&a->text, a->logps[r * a->k + j], a->tops[r * a->k + j]);
            if (j + 1 == a->k) opd_str_text(&a->text, "]");
        }
    opd_str_text(&a->text, "]");
}

static void flat_text(answer *a) {
    opd_str_text(&a->text, ",\"input_top_logprobs_val_flat\":");
    for (size_t i = 0; i < a->rows * a->k; i++)
        opd_str_printf(&a->text, "%c%.17g", i == 0 ? '[' : ',', (double)a->logps[i]);
    opd_str_text(&a->text, "],\"input_top_logprobs_idx_flat\":");
    for (size_t i = 0; i < a->rows * a->k; i++)
        opd_str_printf(&a->text, "%c%d", i == 0 ? '[' : ',', (int)a->tops[i]);
    opd_str_text(&a->text, "]");
}

static void encode(opd_str *text, const char *key, const void *bytes, size_t size) {
    opd_str_printf(text, ",\"%s\":\"", key);
    char *room = opd_str_room(text, opd_base64_size(size));
    if (room != NULL) {
        opd_base64_write(bytes, size, room);
        opd_str_extend(text, opd_base64_size(size));
    }
    opd_str_text(text, "\"");
}

static void make(answer *a, form f, size_t rows, size_t k) {
    opd_rng rng;
    opd_rng_init(&rng, 7);
    *a = (answer){.rows = rows, .k = k, .ids = room((PROMPT + rows) * sizeof(int32_t)),
                  .logps = room(rows * k * sizeof(float)), .tops = room(rows * k * sizeof(int32_t))};
    opd_str_init(&a->text, NULL, TEXT_MAX);
    for (size_t i = 0; i < PROMPT + rows; i++) a->ids[i] = (int32_t)opd_rng_below(&rng, VOCAB);
    for (size_t i = 0; i < rows * k; i++) {
        a->logps[i] = logp_of(&rng);
        a->tops[i] = (int32_t)opd_rng_below(&rng, VOCAB);
    }
    rows_text(a, &rng);
    if (k > 0 && f == NESTED) nested_text(a);
    if (k > 0 && f == FLAT) flat_text(a);
    if (k > 0 && f == BASE64) {
        encode(&a->text, "input_top_logprobs_val_flat_b64", a->logps, rows * k * sizeof(float));
        encode(&a->text, "input_top_logprobs_idx_flat_b64", a->tops, rows * k * sizeof(int32_t));
        opd_str_text(&a->text, ",\"input_top_logprobs_val_flat_b64_dtype\":\"float32\",\"input_top_logprobs_idx_flat_b64_dtype\":\"int32\"");
    }
    if (k > 0 && f != NESTED)
        opd_str_printf(&a->text, ",\"input_top_logprobs_shape\":[%zu,%zu],\"input_top_logprobs_null_prefix\":1", rows, k);
    opd_str_printf(&a->text, ",\"finish_reason\":{\"type\":\"length\",\"length\":0},\"prompt_tokens\":%zu}}", PROMPT + rows);
    bench_must(opd_str_status(&a->text));
}

static void drop(answer *a) {
    free(a->ids);
    free(a->logps);
    free(a->tops);
    opd_str_fini(&a->text);
}

static double cpu_s(void) {
    struct timespec t;
    if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t) != 0) bench_must(opd_fail(OPD_ERR_IO, "the clock"));
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* MB/s, the best of a few rounds; every round's numbers are compared with what was written. */
static double parse(form f, size_t rows, size_t k) {
    answer a;
    double best_s = 1e9;
    make(&a, f, rows, k);
    opd_sglang_score score = {.ids = a.ids, .count = PROMPT + rows, .prompt_count = PROMPT,
                              .top_k = (int32_t)k, .vocab_size = VOCAB};
    opd_sglang_scores out = {.logp = room(rows * sizeof(float)), .valid = room(rows),
                             .topk_ids = room(rows * k * sizeof(int32_t)),
                             .topk_logps = room(rows * k * sizeof(float))};
    for (int round = 0; round < BEST_OF; round++) {
        double began_s = cpu_s();
        for (int i = 0; i < REPEATS; i++)
            bench_must(opd_sglang_score_read(a.text.data, a.text.size, &score, &out));
        double took_s = (cpu_s() - began_s) / REPEATS;
        if (took_s < best_s) best_s = took_s;
        if (out.valid_count != rows ||
            memcmp(out.topk_ids, a.tops, rows * k * sizeof(int32_t)) != 0 ||
            memcmp(out.topk_logps, a.logps, rows * k * sizeof(float)) != 0)
            bench_must(opd_fail(OPD_ERR_MISMATCH, "other numbers were read than written"));
    }
    double rate = (double)a.text.size / best_s / 1e6;
    free(out.logp);
    free(out.valid);
    free(out.topk_ids);
    free(out.topk_logps);
    drop(&a);
    return rate;
}

/* MB/s of writing such an answer as opd serve does. */
static double compose(opd_sglang_form f, size_t rows, size_t k) {
    answer a;
    double best_s = 1e9;
    make(&a, NESTED, rows, k);
    opd_sglang_answer out = {.rid = "r", .prompt_count = PROMPT + rows, .weight_version = "1", .return_logprob = true,
                             .form = f, .input = {a.ids, a.logps, rows, (int32_t)k, a.tops, a.logps}};
    for (int i = 0; i < BEST_OF * REPEATS; i++) {
        opd_json_writer writer;
        opd_str_clear(&a.text); /* memory and all: what is measured is the writing */
        opd_json_writer_init(&writer, &a.text, 0);
        double began_s = cpu_s();
        opd_sglang_answer_write(&out, &writer);
        double took_s = cpu_s() - began_s;
        if (took_s < best_s) best_s = took_s;
        bench_must(opd_str_status(&a.text));
    }
    double rate = (double)a.text.size / best_s / 1e6;
    drop(&a);
    return rate;
}

static double nested_0(void) { return parse(NESTED, 131072, 0); }
static double nested_10(void) { return parse(NESTED, 14000, 10); }
static double nested_64(void) { return parse(NESTED, 2400, 64); }
static double flat_64(void) { return parse(FLAT, 3000, 64); }
static double base64_64(void) { return parse(BASE64, 7000, 64); }
static double write_nested_64(void) { return compose(OPD_SGLANG_FORM_NESTED, 8192, 64); }
static double write_flat_64(void) { return compose(OPD_SGLANG_FORM_FLAT, 8192, 64); }
static double write_base64_64(void) { return compose(OPD_SGLANG_FORM_BASE64, 8192, 64); }

const bench_case bench_parse_cases[] = {
    {.name = "parse_nested_k0", .unit = "MB/s", .run = nested_0},
    {.name = "parse_nested_k10", .unit = "MB/s", .run = nested_10},
    {.name = "parse_nested_k64", .unit = "MB/s", .run = nested_64},
    {.name = "parse_flat_k64", .unit = "MB/s", .run = flat_64},
    {.name = "parse_base64_k64", .unit = "MB/s", .run = base64_64},
    {.name = "write_nested_k64", .unit = "MB/s", .run = write_nested_64},
    {.name = "write_flat_k64", .unit = "MB/s", .run = write_flat_64},
    {.name = "write_base64_k64", .unit = "MB/s", .run = write_base64_64},
    {.name = NULL},
};
