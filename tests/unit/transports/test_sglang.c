/* test_sglang.c - the client side of the /generate protocol: what is asked, what is believed. */
#include "tests/support/test.h"
#include "transports/sglang.h"

enum { K = 2, R = 3, P = 2, VOCAB = 100 };

static const int32_t sent[P + R] = {5, 6, 7, 99, 9};

typedef struct result {
    float logp[R], topk_logps[R * K];
    uint8_t valid[R];
    int32_t topk_ids[R * K];
    opd_sglang_scores scores;
} result;

static opd_err read_with(const char *body, int32_t top_k, int32_t vocab, result *out) {
    opd_sglang_score score = {.ids = sent, .count = P + R, .prompt_count = P, .top_k = top_k, .vocab_size = vocab};
    memset(out, 0xAB, sizeof *out);
    out->scores = (opd_sglang_scores){.logp = out->logp, .valid = out->valid,
                                      .topk_ids = out->topk_ids, .topk_logps = out->topk_logps};
    return opd_sglang_score_read(body, strlen(body), &score, &out->scores);
}

#define META(rows, rest) \
    "{\"text\":\"\",\"output_ids\":[],\"meta_info\":{\"id\":\"r\",\"input_token_logprobs\":" rows "," rest "}}"
#define GOOD_ROWS "[[null,6,null],[-0.5,7,null],[-1.25,0,null],[-2,9,\"x\"]]"
#define GOOD_REST "\"finish_reason\":{\"type\":\"length\",\"length\":0},\"prompt_tokens\":5," \
                  "\"weight_version\":\"v7\",\"cached_tokens\":2,\"completion_tokens\":0"

static void refuse(const char *body, opd_err want, const char *why) {
    result r;
    opd_err err = read_with(body, K, VOCAB, &r);
    if (err != want)
        opd_test_fail(__FILE__, __LINE__, "%s for %s, context %s", opd_err_name(err), body, opd_err_context());
    CHECK_CONTAINS(opd_err_context(), why);
    CHECK_INT(r.scores.valid_count, 0);
    for (int t = 0; t < R; t++) CHECK(r.valid[t] == 0 && r.logp[t] == 0 && r.topk_ids[t * K] == -1);
}

TEST(score_request_is_what_servers_expect) {
    opd_str out;
    opd_sglang_score score = {.ids = sent, .count = 5, .prompt_count = 2, .top_k = 3, .form = OPD_SGLANG_FORM_BASE64, .rid = "opd-01."};
    opd_str_init(&out, NULL, 4096);
    CHECK_OK(opd_sglang_score_write(&score, &out));
    CHECK_STR(out.data, "{\"rid\":\"opd-01.\",\"input_ids\":[5,6,7,99,9],\"sampling_params\":{\"max_new_tokens\":0,"
                        "\"temperature\":1},\"return_logprob\":true,\"logprob_start_len\":1,\"top_logprobs_num\":3,"
                        "\"return_text_in_logprobs\":false,\"return_flat_raw_top_logprobs\":true,"
                        "\"return_flat_raw_top_logprobs_b64\":true,\"stream\":false}");
    opd_str_clear(&out);
    score.form = OPD_SGLANG_FORM_FLAT;
    CHECK_OK(opd_sglang_score_write(&score, &out));
    CHECK_CONTAINS(out.data, "\"return_flat_raw_top_logprobs\":true,\"stream\"");
    opd_str_clear(&out);
    score.form = OPD_SGLANG_FORM_NESTED;
    CHECK_OK(opd_sglang_score_write(&score, &out));
    CHECK(strstr(out.data, "flat") == NULL);
    score.prompt_count = 5;
    CHECK_ERR(opd_sglang_score_write(&score, &out), OPD_ERR_INVALID);
    score.prompt_count = 0;
    CHECK_ERR(opd_sglang_score_write(&score, &out), OPD_ERR_INVALID);
    opd_str_fini(&out);
}

TEST(score_answer_is_read) {
    result r;
    CHECK_OK(read_with(META(GOOD_ROWS, "\"input_top_logprobs\":[null,[[-0.1,1,null],[-3,2,null]],null,[[-0.2,9,null]]]," GOOD_REST), K, VOCAB, &r));
    CHECK_INT(r.scores.valid_count, 3);
    CHECK(r.logp[0] == -0.5f && r.logp[1] == -1.25f && r.logp[2] == -2);
    CHECK(r.topk_ids[0] == 1 && r.topk_ids[1] == 2 && r.topk_logps[1] == -3);
    CHECK(r.topk_ids[2] == -1 && r.topk_ids[3] == -1);
    CHECK(r.topk_ids[4] == 9 && r.topk_ids[5] == -1);
    CHECK_STR(r.scores.weight_version, "v7");
    CHECK_INT(r.scores.cached_count, 2);
}

TEST(score_last_vocabulary_id_may_echo_as_0) {
    result r;
    CHECK_OK(read_with(META(GOOD_ROWS, GOOD_REST), 0, VOCAB, &r));     /* 99 came back as 0 */
    CHECK_OK(read_with(META(GOOD_ROWS, GOOD_REST), 0, 0, &r));         /* size not known    */
    CHECK_ERR(read_with(META(GOOD_ROWS, GOOD_REST), 0, 101, &r), OPD_ERR_PROTO);
    CHECK_CONTAINS(opd_err_context(), "row 2 of input_token_logprobs is about token 0, but 99 was sent");
}

TEST(score_one_bad_value_is_one_invalid_token) {
    static const char *const bad[] = {"null", "0.01", "-1e400", "1e400", "-3.4028235e38", "5"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char body[512];
        result r;
        (void)snprintf(body, sizeof body, META("[[null,6,null],[-0.5,7,null],[%s,99,null],[-2,9,null]]", GOOD_REST), bad[i]);
        CHECK_OK(read_with(body, 0, VOCAB, &r));
        CHECK_INT(r.scores.valid_count, 2);
        CHECK(r.valid[0] && !r.valid[1] && r.valid[2] && r.logp[1] == 0);
    }
    result r;
    CHECK_OK(read_with(META("[[null,6],[0.00005,7],[0,99],[-0.0,9]]", GOOD_REST), 0, VOCAB, &r));
    CHECK_INT(r.scores.valid_count, 3); /* rounding above 0 is no error */
}

TEST(score_bad_alternatives_end_their_row) {
    result r;
    CHECK_OK(read_with(META(GOOD_ROWS, "\"input_top_logprobs\":[null,[[null,1,null],[-3,2,null]],[[-1,100,null]],[[-1,4,null],[0.5,5,null]]]," GOOD_REST), K, VOCAB, &r));
    CHECK(r.topk_ids[0] == -1 && r.topk_ids[1] == -1 && r.topk_ids[2] == -1);
    CHECK(r.topk_ids[4] == 4 && r.topk_ids[5] == -1);
    CHECK_INT(r.scores.valid_count, 3);
    CHECK_OK(read_with(META(GOOD_ROWS, "\"input_top_logprobs\":null," GOOD_REST), K, VOCAB, &r));
    CHECK_OK(read_with(META(GOOD_ROWS, GOOD_REST), K, VOCAB, &r));
    CHECK_INT(r.topk_ids[0], -1);
}

TEST(score_answers_about_something_else_are_refused) {
    refuse(META("[[null,6,null],[-1,7,null],[-1,99,null]]", GOOD_REST), OPD_ERR_PROTO, "3 rows, expected 4");
    refuse(META("[[null,6,null],[-1,7,null],[-1,99,null],[-1,9,null],[-1,9,null]]", GOOD_REST), OPD_ERR_PROTO, "5 rows, expected 4");
    refuse(META("[]", GOOD_REST), OPD_ERR_PROTO, "0 rows");
    refuse(META("null", GOOD_REST), OPD_ERR_PROTO, "0 rows");
    refuse(META("[[null,6,null],[-1,8,null],[-1,99,null],[-1,9,null]]", GOOD_REST), OPD_ERR_PROTO, "row 1 of input_token_logprobs is about token 8, but 7 was sent");
    refuse(META("[[null,5,null],[-1,6,null],[-1,7,null],[-1,99,null]]", GOOD_REST), OPD_ERR_PROTO, "row 0");
    refuse(META(GOOD_ROWS, "\"finish_reason\":{\"type\":\"length\",\"length\":0},\"prompt_tokens\":4"), OPD_ERR_PROTO, "4 prompt tokens, 5 were sent");
    refuse(META(GOOD_ROWS, "\"finish_reason\":{\"type\":\"length\",\"length\":0}"), OPD_ERR_PROTO, "-1 prompt tokens");
    refuse(META(GOOD_ROWS, "\"prompt_tokens\":5"), OPD_ERR_PROTO, "finish_reason");
    refuse(META(GOOD_ROWS, "\"finish_reason\":null,\"prompt_tokens\":5"), OPD_ERR_PROTO, "finish_reason");
    refuse(META(GOOD_ROWS, "\"input_top_logprobs\":[null,null,null]," GOOD_REST), OPD_ERR_PROTO, "input_top_logprobs has 3 rows");
    refuse(META(GOOD_ROWS, "\"input_top_logprobs\":[null,[[-1,1],[-1,2],[-1,3]],null,null]," GOOD_REST), OPD_ERR_PROTO, "more alternatives");
}

TEST(score_failures_with_http_200_are_seen) {
    refuse("{\"meta_info\":{\"finish_reason\":{\"type\":\"abort\",\"message\":\"Abort in waiting queue\"}}}",
           OPD_ERR_AGAIN, "Abort in waiting queue");
    refuse(META(GOOD_ROWS, "\"finish_reason\":{\"type\":\"stop\",\"matched\":\"NaN happened\"},\"prompt_tokens\":5"),
           OPD_ERR_REMOTE, "NaN happened");
    result r;
    CHECK_OK(read_with(META(GOOD_ROWS, "\"finish_reason\":{\"type\":\"stop\",\"matched\":2},\"prompt_tokens\":5"), 0, VOCAB, &r));
}

TEST(score_malformed_answers_are_refused) {
    static const char *const bad[] = {
        "", "null", "[]", "7", "{", "{}x", "{\"meta_info\":7}", "<html>502</html>",
        META("[[null,6,null],[NaN,7,null],[-1,99,null],[-1,9,null]]", GOOD_REST),
        META("[[null,6,null],[-1,\"7\",null],[-1,99,null],[-1,9,null]]", GOOD_REST),
        META("[[null,6,null],[\"-1\",7,null],[-1,99,null],[-1,9,null]]", GOOD_REST),
        META("[[null,6,null],[-1,7,null,1],[-1,99,null],[-1,9,null]]", GOOD_REST),
        META("[[null,6,null],[-1],[-1,99,null],[-1,9,null]]", GOOD_REST),
        META("[[null,6,null],[],[-1,99,null],[-1,9,null]]", GOOD_REST),
        META("[[null,6,null],-1,[-1,99,null],[-1,9,null]]", GOOD_REST),
        META("[[null,6,null],[-1,7.5,null],[-1,99,null],[-1,9,null]]", GOOD_REST),
        META("{}", GOOD_REST), META(GOOD_ROWS, "\"finish_reason\":\"length\""),
        META(GOOD_ROWS, "\"finish_reason\":{\"type\":\"length\"},\"prompt_tokens\":\"5\"")};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) refuse(bad[i], OPD_ERR_PROTO, "");
}

TEST(score_truncated_answers_are_refused) {
    const char *whole = META(GOOD_ROWS, "\"input_top_logprobs\":[null,[[-0.1,1,null]],null,null]," GOOD_REST);
    char cut[1024];
    for (size_t n = 0; n < strlen(whole); n++) {
        (void)snprintf(cut, sizeof cut, "%.*s", (int)n, whole);
        refuse(cut, OPD_ERR_PROTO, "");
    }
}

static void check_message(const char *body, const char *want) {
    char message[OPD_SGLANG_MESSAGE_SIZE];
    opd_sglang_error_read(body, strlen(body), message);
    CHECK_STR(message, want);
}

TEST(error_envelopes_are_read) {
    check_message("{\"error\":{\"message\":\"too long\",\"code\":400}}", "too long");
    check_message("{\"object\":\"error\",\"message\":\"bad\\nfield\",\"type\":\"BadRequest\",\"param\":null,\"code\":400}", "bad field");
    check_message("{\"error\":\"Unauthorized\"}", "Unauthorized");
    check_message("upstream\x01 gone", "upstream  gone");
    check_message("", "");
    char body[2048], message[OPD_SGLANG_MESSAGE_SIZE];
    memset(body, 'x', sizeof body);
    opd_sglang_error_read(body, sizeof body, message);
    CHECK_INT(strlen(message), OPD_SGLANG_MESSAGE_SIZE - 1);
}

TEST(server_info_is_read_as_far_as_it_is_told) {
    opd_sglang_server_info info;
    const char *sglang = "{\"model_path\":\"Q\",\"version\":\"0.5.17\",\"max_req_input_len\":32763,\"context_length\":null,"
                         "\"enable_http2\":false,\"max_running_requests\":48,\"speculative_algorithm\":\"EAGLE\","
                         "\"internal_states\":[{\"version\":7,\"context_length\":1}]}";
    CHECK_OK(opd_sglang_server_info_read(sglang, strlen(sglang), &info));
    CHECK_STR(info.version, "0.5.17");
    CHECK_STR(info.server, "");
    CHECK(info.max_input == 32763 && info.context_size == -1 && info.max_running == 48 && info.http2 == 0 && info.speculative);
    const char *odd = "{\"version\":3,\"enable_http2\":\"yes\",\"speculative_algorithm\":null,\"server\":\"opd\"}";
    CHECK_OK(opd_sglang_server_info_read(odd, strlen(odd), &info));
    CHECK(info.max_input == -1 && info.http2 == -1 && !info.speculative);
    CHECK_STR(info.version, "");
    CHECK_STR(info.server, "opd");
    CHECK_ERR(opd_sglang_server_info_read("{\"max_req_input_len\":1.5}", 25, &info), OPD_ERR_PARSE);
    CHECK_ERR(opd_sglang_server_info_read("", 0, &info), OPD_ERR_PARSE);
}

TEST(model_info_is_read_from_us_and_from_others) {
    opd_sglang_model_info info = {.model_path = "/m", .weight_version = "3", .model_type = "llama", .vocab_size = 259,
                                  .bos_id = 1, .eos_id = 2, .context_size = 128, .tokenizer_hash = "00ff", .scores_at_temperature = true};
    opd_sglang_model_info again;
    opd_str out;
    opd_str_init(&out, NULL, 4096);
    opd_sglang_model_info_write(&info, &out);
    CHECK_OK(opd_sglang_model_info_read(out.data, out.size, &again));
    CHECK_STR(again.model_path, "/m");
    CHECK_STR(again.tokenizer_hash, "00ff");
    CHECK_STR(again.weight_version, "3");
    CHECK(again.vocab_size == 259 && again.bos_id == 1 && again.eos_id == 2 && again.context_size == 128);
    CHECK(again.scores_at_temperature);
    opd_str_fini(&out);
    const char *sglang = "{\"model_path\":\"Q\",\"is_generation\":true,\"preferred_sampling_params\":null,"
                         "\"eos_token_id\":[5,6],\"weight_version\":null,\"architectures\":[\"X\"]}";
    CHECK_OK(opd_sglang_model_info_read(sglang, strlen(sglang), &again));
    CHECK(again.vocab_size == -1 && again.eos_id == 5 && !again.scores_at_temperature);
    CHECK_STR(again.tokenizer_hash, "");
    CHECK_ERR(opd_sglang_model_info_read("[]", 2, &again), OPD_ERR_PARSE);
}
