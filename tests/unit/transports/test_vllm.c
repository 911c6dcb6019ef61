/* test_vllm.c - prompt_logprobs of vLLM: what is asked, what is believed. */
#include "tests/support/test.h"
#include "transports/vllm.h"

enum { K = 2, R = 3, P = 2, VOCAB = 100 };

static const int32_t sent[P + R] = {5, 6, 7, 8, 9};

typedef struct result {
    float logp[R], topk_logps[R * K];
    uint8_t valid[R];
    int32_t topk_ids[R * K];
    opd_sglang_scores scores;
} result;

static opd_err read_with(const char *body, int32_t top_k, result *out) {
    opd_sglang_score score = {.ids = sent, .count = P + R, .prompt_count = P, .top_k = top_k, .vocab_size = VOCAB};
    memset(out, 0xAB, sizeof *out);
    out->scores = (opd_sglang_scores){.logp = out->logp, .valid = out->valid, .topk_ids = out->topk_ids, .topk_logps = out->topk_logps};
    return opd_vllm_score_read(body, strlen(body), &score, &out->scores);
}

#define ENTRY(id, logp, rank) "\"" id "\":{\"logprob\":" logp ",\"rank\":" rank ",\"decoded_token\":\" a\\\"\"}"
#define ANSWER(rows, rest) "{\"id\":\"cmpl-1\",\"object\":\"text_completion\",\"choices\":[{\"index\":0,\"text\":\"x\",\"logprobs\":null," \
                           "\"finish_reason\":\"length\",\"prompt_logprobs\":[" rows "]" rest "}],\"usage\":{\"prompt_tokens\":5,\"total_tokens\":6}}"
#define PROMPT "null,{" ENTRY("6", "-3", "9") "," ENTRY("1", "-1", "1") "," ENTRY("2", "-2", "2") "},"
#define ROW7 "{" ENTRY("7", "-4.5", "17") "," ENTRY("3", "-0.5", "1") "," ENTRY("4", "-1.5", "2") "}" /* k + 1 */
#define ROW8 "{" ENTRY("8", "-0.25", "2") "," ENTRY("5", "-0.125", "1") "}"                           /* k     */
#define ROW9 "{" ENTRY("9", "-0.75", "1") "," ENTRY("6", "-9999.0", "2") "}"
#define IDS ",\"prompt_token_ids\":[5,6,7,8,9],\"token_ids\":[1]"

static void refuse(const char *body, opd_err want, const char *why) {
    result r;
    opd_err err = read_with(body, K, &r);
    if (err != want) opd_test_fail(__FILE__, __LINE__, "%s for %s, context %s", opd_err_name(err), body, opd_err_context());
    CHECK_CONTAINS(opd_err_context(), why);
    CHECK_INT(r.scores.valid_count, 0);
    for (int t = 0; t < R; t++) CHECK(r.valid[t] == 0 && r.logp[t] == 0 && r.topk_ids[t * K] == -1);
}

TEST(request_is_what_servers_expect) {
    opd_str out;
    opd_sglang_score score = {.ids = sent, .count = 5, .prompt_count = 2, .top_k = 3, .rid = "opd-01."};
    opd_str_init(&out, NULL, 4096);
    CHECK_OK(opd_vllm_score_write(&score, &out));
    CHECK_STR(out.data, "{\"request_id\":\"opd-01.\",\"prompt\":[5,6,7,8,9],\"max_tokens\":1,\"temperature\":1,"
                        "\"prompt_logprobs\":3,\"return_token_ids\":true,\"stream\":false}");
    score.prompt_count = 5;
    CHECK_ERR(opd_vllm_score_write(&score, &out), OPD_ERR_INVALID);
    opd_str_fini(&out);
}

TEST(scores_are_found_by_key_and_alternatives_put_by_rank) {
    static const int32_t ids[R * K] = {3, 4, 5, 8, 9, -1};
    result r;
    CHECK_OK(read_with(ANSWER(PROMPT ROW7 "," ROW8 "," ROW9, IDS), K, &r));
    CHECK_INT(r.scores.valid_count, 3);
    CHECK(r.logp[0] == -4.5f && r.logp[1] == -0.25f && r.logp[2] == -0.75f);
    CHECK(memcmp(r.topk_ids, ids, sizeof ids) == 0);
    CHECK(r.topk_logps[0] == -0.5f && r.topk_logps[1] == -1.5f && r.topk_logps[2] == -0.125f);
    CHECK_OK(read_with(ANSWER("null,{" ENTRY("6", "-3", "9") "},{" ENTRY("7", "-4.5", "17") "},{" ENTRY("8", "-1", "2") "},{" ENTRY("9", "-2", "1") "}", ""), 0, &r));
    CHECK_INT(r.scores.valid_count, 3); /* without echoed ids, k = 0 */
}

TEST(one_bad_value_is_one_invalid_token) {
    static const char *const bad[] = {"-9999.0", "-9999", "null", "0.5", "-1e39"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char body[2048];
        result r;
        (void)snprintf(body, sizeof body, ANSWER(PROMPT ROW7 ",{\"8\":{\"logprob\":%s,\"rank\":1}}," ROW9, IDS), bad[i]);
        CHECK_OK(read_with(body, K, &r));
        CHECK(r.valid[0] && !r.valid[1] && r.valid[2] && r.logp[1] == 0);
        CHECK(r.topk_ids[2] == -1);
    }
}

TEST(a_missing_rank_ends_the_row_and_equal_ranks_stand_once) {
    result r;
    CHECK_OK(read_with(ANSWER(PROMPT "{" ENTRY("7", "-1", "2") "}," ROW8 ",{" ENTRY("9", "-1", "1") "," ENTRY("3", "-1", "1") "," ENTRY("4", "-2", "2") "}", IDS), K, &r));
    CHECK(r.topk_ids[0] == -1 && r.topk_ids[1] == -1);
    CHECK(r.topk_ids[4] == 9 && r.topk_ids[5] == 4);
}

TEST(answers_about_something_else_are_refused) {
    refuse(ANSWER(PROMPT ROW7 "," ROW8, IDS), OPD_ERR_PROTO, "4 positions, expected 5");
    refuse(ANSWER(PROMPT ROW7 "," ROW8 "," ROW9 "," ROW9, IDS), OPD_ERR_PROTO, "6 positions, expected 5");
    refuse(ANSWER(PROMPT ROW7 "," ROW7 "," ROW9, IDS), OPD_ERR_PROTO, "position 3 of prompt_logprobs does not name token 8");
    refuse(ANSWER(PROMPT ROW7 ",null," ROW9, IDS), OPD_ERR_PROTO, "position 3");
    refuse(ANSWER(PROMPT ROW7 "," ROW8 "," ROW9, ",\"prompt_token_ids\":[5,6,7,8,10]"), OPD_ERR_PROTO, "number 4");
    refuse(ANSWER(PROMPT ROW7 "," ROW8 "," ROW9, ",\"prompt_token_ids\":[5,6,7,8]"), OPD_ERR_PROTO, "4 ids, 5 were sent");
    refuse("{\"choices\":[]}", OPD_ERR_PROTO, "0 choices");
    refuse("{\"choices\":[{},{}]}", OPD_ERR_PROTO, "more than one choice");
    refuse("{\"choices\":[{\"prompt_logprobs\":null}]}", OPD_ERR_PROTO, "none at all");
    refuse("{\"usage\":{\"prompt_tokens\":4},\"choices\":[{}]}", OPD_ERR_PROTO, "4 prompt tokens, 5 were sent");
    refuse("{\"choices\":[{\"finish_reason\":\"abort\"}]}", OPD_ERR_AGAIN, "aborted");
}

TEST(malformed_answers_are_refused) {
    static const char *const bad[] = {
        "", "null", "[]", "{", "{}x", "<html>", "{\"choices\":7}", "{\"choices\":{}}", "{\"choices\":[7]}", "{\"usage\":[]}",
        ANSWER("7", ""), ANSWER("[]", ""), ANSWER("{\"7\":1}", ""), ANSWER("{\"x\":{}}", ""), ANSWER("{\"\":{}}", ""),
        ANSWER("{\"-7\":{}}", ""), ANSWER("{\"77777777777\":{}}", ""), ANSWER("{\"7\":{\"rank\":1.5}}", ""), ANSWER("{\"7\":{\"logprob\":\"-1\"}}", ""),
        ANSWER("{\"7\":{\"rank\":1,\"rank\":1}}", ""), ANSWER("{\"1\":{},\"2\":{},\"3\":{},\"4\":{}}", ""), ANSWER("", ",\"prompt_token_ids\":[5.5]"),
        ANSWER(PROMPT "{" ENTRY("7", "-1", "1") "," ENTRY("7", "-1", "2") "}," ROW8 "," ROW9, IDS)};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) refuse(bad[i], OPD_ERR_PROTO, "");
    static const char whole[] = ANSWER(PROMPT ROW7 "," ROW8 "," ROW9, IDS);
    result r;
    for (size_t size = 0; size < sizeof whole - 1; size++) {
        opd_sglang_score score = {.ids = sent, .count = P + R, .prompt_count = P, .top_k = K, .vocab_size = VOCAB};
        memset(&r, 0, sizeof r);
        r.scores = (opd_sglang_scores){.logp = r.logp, .valid = r.valid, .topk_ids = r.topk_ids, .topk_logps = r.topk_logps};
        CHECK_ERR(opd_vllm_score_read(whole, size, &score, &r.scores), OPD_ERR_PROTO);
    }
}

TEST(models_are_read_as_far_as_they_are_told) {
    opd_sglang_model_info info;
    const char *two = "{\"object\":\"list\",\"data\":[{\"id\":\"Qwen/Q\",\"max_model_len\":4096,\"permission\":[{\"id\":\"p\"}]},"
                      "{\"id\":\"other\",\"max_model_len\":1}]}";
    CHECK_OK(opd_vllm_models_read(two, strlen(two), &info));
    CHECK_STR(info.model_path, "Qwen/Q");
    CHECK(info.context_size == 4096 && info.vocab_size == -1 && !info.scores_at_temperature);
    static const char *const odd[] = {"{}", "{\"data\":null}", "{\"data\":[]}", "{\"data\":[7]}",
                                      "{\"data\":[{\"id\":7,\"max_model_len\":null}]}"};
    for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++) {
        CHECK_OK(opd_vllm_models_read(odd[i], strlen(odd[i]), &info));
        CHECK(info.model_path[0] == 0 && info.context_size == -1);
    }
    CHECK_ERR(opd_vllm_models_read("[]", 2, &info), OPD_ERR_PARSE);
    CHECK_ERR(opd_vllm_models_read(two, 40, &info), OPD_ERR_PARSE);
}
