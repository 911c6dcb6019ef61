/* test_score_scan.c - answers in pieces: every form, every cut, and numbers against strtof. */
#include "core/base/rng.h"
#include "tests/support/test.h"
#include "transports/sglang_scan.h"

enum { R = 3, K = 2, COUNT = 5, ROWS_MAX = 400, TEXT_MAX = 65536 };

static const int32_t sent[COUNT] = {5, 6, 7, 8, 9};

#define ROWS "{\"text\":\"\",\"meta_info\":{\"input_token_logprobs\":[[null,6,null],[-0.5,7,null],[-1.25,8,null],[-2,9,null]],"
#define REST "\"finish_reason\":{\"type\":\"length\",\"length\":0},\"prompt_tokens\":5,\"cached_tokens\":2,\"weight_version\":\"v7\"}}"
#define SHAPE "\"input_top_logprobs_shape\":[3,2],\"input_top_logprobs_null_prefix\":1,"
#define TYPES "\"input_top_logprobs_val_flat_b64_dtype\":\"float32\",\"input_top_logprobs_idx_flat_b64_dtype\":\"int32\","
#define VAL64 "\"input_top_logprobs_val_flat_b64\":\"AACAvwAAAMAAAMC/AAAgwAAAgMAAAMB/\"," /* -1 -2 -1.5 -2.5 -4 NaN */
#define IDX64 "\"input_top_logprobs_idx_flat_b64\":\"AQAAAAIAAAADAAAABAAAAAUAAAATAAAA\"," /* 1 2 3 4 5 19 */

static const char nested[] = ROWS "\"input_top_logprobs\":[null,[[-1,1,null],[-2,2,null]],[[-1.5,3,null],[-2.5,4,null]],[[-4,5,null],[null,19,null]]]," REST;
static const char flat[] = ROWS "\"input_top_logprobs_idx_flat\":[1,2,3,4,5,19],\"input_top_logprobs_val_flat\":[-1,-2,-1.5,-2.5,-4,null]," SHAPE REST;
static const char base64[] = ROWS VAL64 IDX64 TYPES SHAPE REST;

typedef struct result {
    float logp[R], topk_logps[R * K];
    uint8_t valid[R];
    int32_t topk_ids[R * K];
    opd_sglang_scores scores;
} result;

static opd_err scan(const char *text, size_t size, size_t cut, result *out) {
    opd_sglang_score score = {.ids = sent, .count = COUNT, .prompt_count = 2, .top_k = K, .vocab_size = 100};
    opd_sglang_scan s;
    memset(out, 0xAB, sizeof *out);
    out->scores = (opd_sglang_scores){.logp = out->logp, .valid = out->valid, .topk_ids = out->topk_ids, .topk_logps = out->topk_logps};
    opd_sglang_scan_init(&s, &score, &out->scores);
    if (opd_sglang_scan_feed(&s, text, cut)) (void)opd_sglang_scan_feed(&s, text + cut, size - cut);
    return opd_sglang_scan_finish(&s);
}

static void check_result(const result *r) {
    static const int32_t ids[R * K] = {1, 2, 3, 4, 5, -1};
    static const float logps[R * K] = {-1, -2, -1.5f, -2.5f, -4, 0};
    CHECK_INT(r->scores.valid_count, 3);
    CHECK(r->logp[0] == -0.5f && r->logp[1] == -1.25f && r->logp[2] == -2);
    CHECK(memcmp(r->topk_ids, ids, sizeof ids) == 0);
    CHECK(memcmp(r->topk_logps, logps, sizeof logps) == 0);
    CHECK_STR(r->scores.weight_version, "v7");
    CHECK_INT(r->scores.cached_count, 2);
}

TEST(every_form_may_be_cut_anywhere) {
    static const char *const forms[] = {nested, flat, base64};
    for (size_t f = 0; f < 3; f++) {
        size_t size = strlen(forms[f]);
        for (size_t cut = 0; cut <= size; cut++) {
            result r;
            CHECK_OK(scan(forms[f], size, cut, &r));
            check_result(&r);
        }
        for (size_t end = 0; end < size; end++) { /* and none of its beginnings is an answer */
            result r;
            CHECK_ERR(scan(forms[f], end, end / 2, &r), OPD_ERR_PROTO);
        }
    }
}

static void refuse(const char *text, const char *why) {
    result r;
    opd_err err = scan(text, strlen(text), 0, &r);
    if (err != OPD_ERR_PROTO) opd_test_fail(__FILE__, __LINE__, "%s for %s", opd_err_name(err), text);
    CHECK_CONTAINS(opd_err_context(), why);
    CHECK_INT(r.scores.valid_count, 0);
    for (int i = 0; i < R * K; i++) CHECK(r.topk_ids[i] == -1 && r.topk_logps[i] == 0);
}

TEST(flat_alternatives_of_another_shape_are_refused) {
#define VAL "\"input_top_logprobs_val_flat\":[-1,-2,-1.5,-2.5,-4,-5],"
#define IDX "\"input_top_logprobs_idx_flat\":[1,2,3,4,5,19],"
    refuse(ROWS VAL IDX "\"input_top_logprobs_shape\":[3,3],\"input_top_logprobs_null_prefix\":1," REST, "the shape [3, 3]");
    refuse(ROWS VAL IDX "\"input_top_logprobs_shape\":[2,2],\"input_top_logprobs_null_prefix\":1," REST, "the shape [2, 2]");
    refuse(ROWS VAL IDX "\"input_top_logprobs_shape\":[3,2,1],\"input_top_logprobs_null_prefix\":1," REST, "[rows, k]");
    refuse(ROWS VAL IDX "\"input_top_logprobs_shape\":[3,2]," REST, "null rows");
    refuse(ROWS VAL IDX REST, "the shape [0, 0]");
    refuse(ROWS VAL SHAPE REST, "half of one");
    refuse(ROWS IDX SHAPE REST, "half of one");
    refuse(ROWS VAL64 IDX SHAPE TYPES REST, "half of one");
    refuse(ROWS VAL IDX SHAPE "\"input_top_logprobs\":[null,null,null,null]," REST, "more than one form");
    refuse(ROWS VAL "\"input_top_logprobs_idx_flat\":[1,2,3,4,5]," SHAPE REST, "6 values and 5 ids");
    refuse(ROWS VAL "\"input_top_logprobs_idx_flat\":[1,2,3,4,5,6,7]," SHAPE REST, "more alternatives");
    refuse(ROWS VAL "\"input_top_logprobs_idx_flat\":[1,2,3,4,5,6.5]," SHAPE REST, "whole number");
    refuse(ROWS VAL VAL IDX SHAPE REST, "comes twice");
}

TEST(base64_that_is_not_what_it_says_is_refused) {
#define BAD(text) "\"input_top_logprobs_val_flat_b64\":\"" text "\","
    refuse(ROWS VAL64 IDX64 SHAPE REST, "another dtype");
    refuse(ROWS VAL64 IDX64 SHAPE "\"input_top_logprobs_val_flat_b64_dtype\":\"float16\",\"input_top_logprobs_idx_flat_b64_dtype\":\"int32\"," REST, "another dtype");
    refuse(ROWS BAD("AACAvwAAAMAAAMC/AAAgwAAAgMAAAMB") IDX64 SHAPE TYPES REST, "no base64");
    refuse(ROWS BAD("AACAvwAAAMAAAMC/AAAgwAAAgMAAAMB/AAAA") IDX64 SHAPE TYPES REST, "more alternatives");
    refuse(ROWS BAD("AACAvwAAAMAAAMC/AAAgwAAAgMAA*MB/") IDX64 SHAPE TYPES REST, "no base64");
    refuse(ROWS BAD("AACAvwAAAMAAAMC\\/AAAgwAAAgMAAMB/") IDX64 SHAPE TYPES REST, "no base64");
    refuse(ROWS BAD("AACAvwAA\\u0041MAAAMC") IDX64 SHAPE TYPES REST, "no base64");
    refuse(ROWS BAD("AACAvw==") IDX64 SHAPE TYPES REST, "1 values and 6 ids");
    refuse(ROWS BAD("AACAv===") IDX64 SHAPE TYPES REST, "no base64");
    refuse(ROWS BAD("AACA") IDX64 SHAPE TYPES REST, "another dtype"); /* three bytes are no float */
    refuse(ROWS "\"input_top_logprobs_val_flat_b64\":[1]," IDX64 SHAPE TYPES REST, "expected base64");
}

TEST(a_member_that_comes_twice_is_refused) {
    refuse(ROWS "\"prompt_tokens\":5," REST, "comes twice");
    refuse(ROWS "\"prompt\\u005ftokens\":5," REST, "comes twice");
    refuse("{\"meta_info\":{\"finish_reason\":{\"type\":\"length\",\"type\":\"stop\"},\"prompt_tokens\":5}}", "comes twice");
    refuse("{\"meta_info\":{},\"meta_info\":{}}", "comes twice");
}

TEST(unknown_members_of_any_depth_are_passed_over) {
    char text[4096];
    result r;
    for (int depth = 1; depth <= OPD_JSON_DEPTH_MAX - 2; depth++) {
        char open[512] = "", close[128] = "";
        for (int i = 0; i < depth; i++) {
            strcat(open, i % 2 == 0 ? "[" : "{\"rows\":");
            strcat(close, (depth - i) % 2 == 1 ? "]" : "}");
        }
        (void)snprintf(text, sizeof text, ROWS "\"hidden\":%s0%s," REST, open, close);
        CHECK_OK(scan(text, strlen(text), strlen(text) / 2, &r));
    }
    (void)snprintf(text, sizeof text, ROWS "\"x\":%.*s1", OPD_JSON_DEPTH_MAX, "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[");
    refuse(text, "nested too deep");
}

/* ---- numbers ---- */

static void number_text(opd_rng *rng, char *out, size_t size) {
    float narrow = -(float)(opd_rng_uniform(opd_rng_next(rng)) * pow(10, (double)opd_rng_below(rng, 12) - 8));
    double wide = -opd_rng_uniform(opd_rng_next(rng)) * pow(10, (double)opd_rng_below(rng, 50) - 40);
    switch (opd_rng_below(rng, 8)) {
    case 0: (void)snprintf(out, size, "%.17g", (double)narrow); return;
    case 1: (void)snprintf(out, size, "%.9g", (double)narrow); return;
    case 2: (void)snprintf(out, size, "%.25f", (double)narrow); return;
    case 3: (void)snprintf(out, size, "%.17g", wide); return;
    case 4: (void)snprintf(out, size, "%.40e", wide); return;
    case 5: (void)snprintf(out, size, "-%u.%u", (unsigned)opd_rng_below(rng, 100), (unsigned)opd_rng_below(rng, 1000000)); return;
    case 6: (void)snprintf(out, size, "%.60f", wide); return;
    default: (void)snprintf(out, size, "-%uE-%u", (unsigned)opd_rng_below(rng, 1000), (unsigned)opd_rng_below(rng, 30)); return;
    }
}

static int32_t bits_of(float value) {
    int32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits < 0 ? INT32_MIN - bits : bits; /* neighbours differ by one, across zero, too */
}

/* Reads `count` numbers as log-probs of rows, whole or in pieces. */
static void read_numbers(char (*numbers)[96], size_t count, size_t piece, float *logp, uint8_t *valid) {
    static int32_t ids[ROWS_MAX + 1];
    static char text[TEXT_MAX];
    size_t size = (size_t)snprintf(text, sizeof text, "{\"meta_info\":{\"input_token_logprobs\":[[null,0,null]");
    for (size_t i = 0; i < count; i++)
        size += (size_t)snprintf(text + size, sizeof text - size, ",[%s,0,null]", numbers[i]);
    size += (size_t)snprintf(text + size, sizeof text - size, "],\"finish_reason\":{\"type\":\"length\"},\"prompt_tokens\":%zu}}", count + 1);
    CHECK(size < sizeof text);
    opd_sglang_score score = {.ids = ids, .count = count + 1, .prompt_count = 1};
    opd_sglang_scores scores = {.logp = logp, .valid = valid};
    opd_sglang_scan s;
    opd_sglang_scan_init(&s, &score, &scores);
    for (size_t at = 0; at < size; at += piece)
        CHECK(opd_sglang_scan_feed(&s, text + at, size - at < piece ? size - at : piece));
    CHECK_OK(opd_sglang_scan_finish(&s));
}

TEST(random_numbers_are_those_of_strtof_within_one_ulp) {
    static char numbers[ROWS_MAX][96];
    float logp[ROWS_MAX], again[ROWS_MAX];
    uint8_t valid[ROWS_MAX], valid_again[ROWS_MAX];
    opd_rng rng;
    opd_rng_init(&rng, 11);
    for (int round = 0; round < 250; round++) { /* 100,000 numbers */
        for (size_t i = 0; i < ROWS_MAX; i++) number_text(&rng, numbers[i], sizeof numbers[i]);
        read_numbers(numbers, ROWS_MAX, TEXT_MAX, logp, valid);
        for (size_t i = 0; i < ROWS_MAX; i++) {
            float want = strtof(numbers[i], NULL);
            CHECK_INT(valid[i], want >= -1e30f);
            int32_t apart = bits_of(logp[i]) - bits_of(want);
            if (valid[i] && (apart < -1 || apart > 1))
                opd_test_fail(__FILE__, __LINE__, "%s was read as %.9g, strtof has %.9g", numbers[i], (double)logp[i], (double)want);
        }
        if (round % 25 > 0) continue;
        read_numbers(numbers, ROWS_MAX, 1 + (size_t)round % 7, again, valid_again);
        CHECK(memcmp(logp, again, sizeof logp) == 0 && memcmp(valid, valid_again, sizeof valid) == 0);
    }
}

TEST(hard_numbers_are_those_of_strtof_within_one_ulp) {
    static char numbers[][96] = {
        "-0", "-0.0", "0e99999", "-0e-99999", "-1e-46", "-1.4012984643248171e-45", "-7.0064923216240854e-46",
        "-1.1754943508222875e-38", "-1.1754942807573643e-38", "-2.3509887e-38", "-16777217", "-16777219",
        "-9007199254740993", "-33554433.000000000000000000000000000000000000000000001", "-0.1", "-0.3",
        "-1.00000005960464477539062500000000000000000000000001", "-1.000000059604644775390625",
        "-1.00000017881393432617187500", "-9999999999999999999", "-99999999999999999999", "-8.5e-7", "-123456789012345678e-17",
        "-0.000000000000000000000000000000000000000000000000000000000000000001e66", "-5e-324", "-1e-400"};
    float logp[sizeof numbers / sizeof numbers[0]];
    uint8_t valid[sizeof numbers / sizeof numbers[0]];
    for (size_t piece = 1; piece < 2000; piece = piece * 3 + 1) {
        read_numbers(numbers, sizeof numbers / sizeof numbers[0], piece, logp, valid);
        for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
            int32_t apart = bits_of(logp[i]) - bits_of(strtof(numbers[i], NULL));
            CHECK(valid[i] == 1);
            if (apart < -1 || apart > 1) opd_test_fail(__FILE__, __LINE__, "%s was read as %.9g", numbers[i], (double)logp[i]);
        }
    }
}

TEST(what_is_no_number_is_no_answer) {
    static const char *const bad[] = {"NaN", "Infinity", "-Infinity", "-", "+1", "-.5", "-1.", "-01", "-1e", "-1e+", "1-2", "0x1", "-1,", "--1", "1e5.5", "nul", "nulll"};
    char text[512];
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        (void)snprintf(text, sizeof text, "{\"meta_info\":{\"input_token_logprobs\":[[null,6,null],[%s,7,null],[-1,8,null],[-1,9,null]]," REST, bad[i]);
        refuse(text, "");
    }
    char digits[1200];
    memset(digits, '1', sizeof digits);
    static char body[2000];
    (void)snprintf(body, sizeof body, "{\"x\":-0.%.1100s}", digits);
    refuse(body, "too many digits");
}
