/* fuzz_score_scan.c - the scanner of scoring answers against the plain reader over json.h: the same
 * verdict, the same numbers bit for bit, however the bytes are cut into pieces. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "tests/support/score_oracle.h"
#include "transports/sglang_scan.h"

enum { R = 3, K = 2, COUNT = 5 };

#define REST "\"finish_reason\":{\"type\":\"length\",\"length\":0},\"prompt_tokens\":5,\"weight_version\":\"v7\",\"cached_tokens\":2}}"
#define ROWS "{\"text\":\"\",\"meta_info\":{\"id\":\"r\",\"input_token_logprobs\":[[null,6,null],[-0.5,7,null],[-1.25e-1,8,null],[-2.718281828459045,9,\"x\"]],"
#define SHAPE "\"input_top_logprobs_shape\":[3,2],\"input_top_logprobs_null_prefix\":1,"

const opd_fuzz_seed opd_fuzz_seeds[] = {
    OPD_FUZZ_SEED(ROWS "\"input_top_logprobs\":[null,[[-0.1,1,null],[-3,2,null]],null,[[-0.2,9,null]]]," REST),
    OPD_FUZZ_SEED(ROWS "\"input_top_logprobs_val_flat\":[-0.1,-3.5,null,-0.25,-1e-3,-12.125]," SHAPE
                       "\"input_top_logprobs_idx_flat\":[1,2,3,4,5,19]," REST),
    OPD_FUZZ_SEED(ROWS SHAPE "\"input_top_logprobs_val_flat_b64\":\"AACAvwAAAMAAAMC/AAAgwAAAgMDNzIzA\","
                       "\"input_top_logprobs_idx_flat_b64\":\"AQAAAAIAAAADAAAABAAAAAUAAAATAAAA\","
                       "\"input_top_logprobs_val_flat_b64_dtype\":\"float32\",\"input_top_logprobs_idx_flat_b64_dtype\":\"int32\"," REST),
    OPD_FUZZ_SEED("{\"x\":[{\"a\":[1,2,{}],\"\\u00e9\":\"\\ud83d\\ude00\"}],\"meta_info\":{\"finish_reason\":{\"type\":\"abort\",\"message\":\"gone\"}}}"),
    {NULL, 0}};

typedef struct result {
    opd_err err;
    float logp[R], topk_logps[R * K];
    uint8_t valid[R];
    int32_t topk_ids[R * K];
    opd_sglang_scores scores;
} result;

static const int32_t ids[COUNT] = {5, 6, 7, 8, 9};
static const opd_sglang_score question = {.ids = ids, .count = COUNT, .prompt_count = 2, .top_k = K, .vocab_size = 20};

static void point(result *r) {
    memset(r, 0, sizeof *r);
    r->scores = (opd_sglang_scores){.logp = r->logp, .valid = r->valid, .topk_ids = r->topk_ids, .topk_logps = r->topk_logps};
}

static void scan(const char *text, size_t size, size_t piece, result *r) {
    opd_sglang_scan s;
    point(r);
    opd_sglang_scan_init(&s, &question, &r->scores);
    for (size_t at = 0; at < size; at += piece) { /* each piece in its own memory */
        size_t part = size - at < piece ? size - at : piece;
        char *copy = malloc(part);
        if (copy == NULL) abort();
        memcpy(copy, text + at, part);
        bool more = opd_sglang_scan_feed(&s, copy, part);
        free(copy);
        if (!more) break;
    }
    r->err = opd_sglang_scan_finish(&s);
}

static bool same(const result *a, const result *b) {
    if ((a->err == OPD_OK) != (b->err == OPD_OK)) return false;
    if (a->err != OPD_OK) return true;
    return memcmp(a->logp, b->logp, sizeof a->logp) == 0 && memcmp(a->valid, b->valid, sizeof a->valid) == 0 &&
           memcmp(a->topk_ids, b->topk_ids, sizeof a->topk_ids) == 0 &&
           memcmp(a->topk_logps, b->topk_logps, sizeof a->topk_logps) == 0 &&
           a->scores.valid_count == b->scores.valid_count && a->scores.cached_count == b->scores.cached_count &&
           strcmp(a->scores.weight_version, b->scores.weight_version) == 0;
}

static void check_bounds(const result *r) {
    for (int t = 0; t < R; t++) {
        if (r->valid[t] > 1 || !isfinite(r->logp[t]) || r->logp[t] > 1e-3f) abort();
        for (int j = 0; j < K; j++)
            if (r->topk_ids[t * K + j] < -1 || r->topk_ids[t * K + j] >= 20 || !isfinite(r->topk_logps[t * K + j])) abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes) {
    const char *text = (const char *)data;
    static const size_t pieces[] = {1, 7, 100};
    result whole, oracle, cut;
    if (size_bytes > OPD_JSON_PUSH_TOKEN_MAX) return 0; /* longer numbers the two read differently */
    scan(text, size_bytes, size_bytes + 1, &whole);
    check_bounds(&whole);
    point(&oracle);
    oracle.err = opd_test_score_oracle(text, size_bytes, &question, &oracle.scores);
    if (!same(&whole, &oracle)) abort();
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
        scan(text, size_bytes, pieces[i], &cut);
        if (!same(&whole, &cut) || cut.err != whole.err) abort();
    }
    return 0;
}
