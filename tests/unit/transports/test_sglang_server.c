/* test_sglang_server.c - the server side of the /generate protocol: requests checked, answers
 * written, and both ends together. */
#include "core/base/check.h"
#include "core/base/rng.h"
#include "tests/support/alloc_test.h"
#include "tests/support/test.h"
#include "transports/sglang.h"

static const opd_sglang_limits limits = {.vocab_size = 100, .context_size = 16, .tokenizer = true};

static opd_err read_request(const char *body, opd_sglang_generate *out) {
    return opd_sglang_generate_read(body, strlen(body), &limits, NULL, out);
}

static void refuse(const char *body, opd_err want, const char *why) {
    opd_sglang_generate q;
    opd_err err = read_request(body, &q);
    if (err != want)
        opd_test_fail(__FILE__, __LINE__, "%s for %s (%s)", opd_err_name(err), body, opd_err_context());
    CHECK_CONTAINS(opd_err_context(), why);
    CHECK_INT(q.item_count, 0);
}

TEST(server_reads_a_scoring_request) {
    opd_sglang_generate q;
    const int32_t ids[] = {1, 2, 3};
    opd_sglang_score score = {.ids = ids, .count = 3, .prompt_count = 1, .top_k = 4, .form = OPD_SGLANG_FORM_BASE64, .rid = "a"};
    opd_str body;
    opd_str_init(&body, NULL, 4096);
    CHECK_OK(opd_sglang_score_write(&score, &body));
    CHECK_OK(read_request(body.data, &q));
    CHECK(!q.batch && q.item_count == 1 && q.items[0].count == 3 && q.items[0].ids[2] == 3);
    CHECK_STR(q.items[0].rid, "a");
    const opd_sglang_ask *ask = &q.items[0].ask;
    CHECK(ask->return_logprob && ask->logprob_start == 0 && ask->top_logprobs == 4 && ask->max_new_tokens == 0);
    CHECK(q.flat && q.flat_base64);
    opd_sglang_generate_fini(&q);
    opd_str_fini(&body);
}

TEST(server_reads_a_generation_request) {
    opd_sglang_generate q;
    CHECK_OK(read_request("{\"rid\":\"x\",\"text\":[\"ab\",\"c\\n\"],\"sampling_params\":{\"max_new_tokens\":5,\"temperature\":0.0,"
                          "\"top_p\":0.9,\"top_k\":7,\"stop\":[\"q\",\"##\"],\"stop_token_ids\":9,\"sampling_seed\":-4,\"n\":1,"
                          "\"min_p\":0.0,\"repetition_penalty\":1.0,\"json_schema\":null,\"ignore_eos\":true},"
                          "\"return_logprob\":null,\"stream\":false,\"lora_path\":null,\"unheard_of\":{\"a\":[1]}}", &q));
    CHECK(q.batch && q.item_count == 2 && q.items[1].text_size_bytes == 2);
    CHECK_STR(q.items[1].text, "c\n");
    CHECK_STR(q.items[0].rid, "x_0");
    CHECK_STR(q.items[1].rid, "x_1");
    for (int i = 0; i < 2; i++) { /* said once, for both */
        const opd_sglang_ask *ask = &q.items[i].ask;
        CHECK(ask->max_new_tokens == 5 && ask->temperature == 0 && ask->top_p == 0.9 && ask->top_k == 7 && ask->ignore_eos);
        CHECK(ask->stop_count == 2 && ask->stop_id_count == 1 && ask->stop_ids[0] == 9 && ask->seeded && ask->seed == -4);
        CHECK(ask->logprob_start == -1 && !ask->return_logprob && ask->skip_special_tokens);
    }
    opd_sglang_generate_fini(&q);
    CHECK_OK(read_request("{\"input_ids\":[[1],[2,3]],\"rid\":[\"a\",\"b\"],\"sampling_params\":{\"max_new_tokens\":1}}", &q));
    CHECK(q.batch && q.item_count == 2 && q.items[1].count == 2 && q.items[1].ask.top_p == 1 && q.items[1].ask.temperature == 1);
    opd_sglang_generate_fini(&q);
}

/* Lists stand before or behind the sequences; null is the default. */
TEST(server_reads_a_list_for_each_sequence) {
    static const char *const bodies[] = {
        "{\"input_ids\":[[1,2],[3,4]],\"return_logprob\":[true,false],\"logprob_start_len\":[1,null],\"top_logprobs_num\":[5,0],"
        "\"token_ids_logprob\":[null,null],\"lora_path\":[null,null],\"return_hidden_states\":[false,false],\"rid\":[\"a\",\"b\"],"
        "\"sampling_params\":[{\"max_new_tokens\":0},{\"max_new_tokens\":3,\"temperature\":0.5}]}",
        "{\"sampling_params\":[{\"max_new_tokens\":0},{\"max_new_tokens\":3,\"temperature\":0.5}],\"top_logprobs_num\":[5,null],"
        "\"logprob_start_len\":[1,-1],\"return_logprob\":[true,null],\"rid\":[\"a\",\"b\"],\"text\":[\"a\",\"b\"]}"};
    for (size_t i = 0; i < OPD_COUNTOF(bodies); i++) {
        opd_sglang_generate q;
        CHECK_OK(read_request(bodies[i], &q));
        const opd_sglang_ask *a = &q.items[0].ask, *b = &q.items[1].ask;
        CHECK(q.batch && q.item_count == 2);
        CHECK(a->return_logprob && a->logprob_start == 1 && a->top_logprobs == 5 && a->max_new_tokens == 0 && a->temperature == 1);
        CHECK(!b->return_logprob && b->logprob_start == -1 && b->top_logprobs == 0 && b->max_new_tokens == 3 && b->temperature == 0.5);
        CHECK_STR(q.items[1].rid, "b");
        opd_sglang_generate_fini(&q);
    }
}

TEST(server_refuses_bad_requests_by_field) {
    refuse("", OPD_ERR_PARSE, "byte 0: expected an object");
    refuse("{", OPD_ERR_PARSE, "byte 1");
    refuse("{}", OPD_ERR_INVALID, "Either text or input_ids");
    refuse("{\"input_ids\":[]}", OPD_ERR_INVALID, "cannot be empty");
    refuse("{\"input_ids\":[[]]}", OPD_ERR_INVALID, "cannot be empty");
    refuse("{\"input_ids\":[[1],[]]}", OPD_ERR_INVALID, "cannot be empty");
    refuse("{\"input_ids\":[[1],2]}", OPD_ERR_PARSE, "expected an array");
    refuse("{\"input_ids\":[1,[2]]}", OPD_ERR_PARSE, "expected a number");
    refuse("{\"input_ids\":\"a\"}", OPD_ERR_PARSE, "expected an array");
    refuse("{\"input_ids\":[1.5]}", OPD_ERR_PARSE, "whole number");
    refuse("{\"input_ids\":[NaN]}", OPD_ERR_PARSE, "expected a number");
    refuse("{\"input_ids\":[100]}", OPD_ERR_INVALID, "100 is outside the vocabulary");
    refuse("{\"input_ids\":[-1]}", OPD_ERR_INVALID, "-1 is outside");
    refuse("{\"input_ids\":[99999999999999999999]}", OPD_ERR_PARSE, "too large");
    refuse("{\"input_ids\":[1],\"text\":\"a\"}", OPD_ERR_INVALID, "either text or input_ids");
    refuse("{\"text\":\"\"}", OPD_ERR_INVALID, "text cannot be empty");
    refuse("{\"text\":[]}", OPD_ERR_INVALID, "batch is empty");
    refuse("{\"text\":5}", OPD_ERR_PARSE, "expected a string");
    refuse("{\"input_ids\":[1],\"logprob_start_len\":-2}", OPD_ERR_INVALID, "logprob_start_len must be between -1");
    refuse("{\"input_ids\":[1],\"return_logprob\":true,\"logprob_start_len\":2,\"sampling_params\":{\"max_new_tokens\":0}}", OPD_ERR_INVALID, "logprob_start_len (2) is higher");
    refuse("{\"input_ids\":[1],\"top_logprobs_num\":1025}", OPD_ERR_INVALID, "top_logprobs_num must be");
    refuse("{\"input_ids\":[1],\"top_logprobs_num\":101,\"sampling_params\":{\"max_new_tokens\":0}}", OPD_ERR_INVALID, "larger than the vocabulary");
    refuse("{\"input_ids\":[1]}", OPD_ERR_INVALID, "maximum context length"); /* 128 new tokens by default */
    refuse("{\"input_ids\":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],\"sampling_params\":{\"max_new_tokens\":0}}", OPD_ERR_INVALID, "longer than the model's context length");
    refuse("{\"input_ids\":[1],\"rid\":[\"a\"  ,\"b\"],\"sampling_params\":{\"max_new_tokens\":0}}", OPD_ERR_PARSE, "more rids");
    refuse("{\"input_ids\":[[1],[2]],\"rid\":[\"a\",\"a\"],\"sampling_params\":{\"max_new_tokens\":0}}", OPD_ERR_INVALID, "Duplicate request ID: a");
    refuse("{\"input_ids\":[1],\"rid\":7,\"sampling_params\":{\"max_new_tokens\":0}}", OPD_ERR_PARSE, "rid: byte");
    refuse("{\"input_ids\":[1],\"return_flat_raw_top_logprobs_b64\":true,\"sampling_params\":{\"max_new_tokens\":0}}", OPD_ERR_INVALID, "needs return_flat_raw_top_logprobs");
    refuse("{\"input_ids\":[1],\"stream\":true}", OPD_ERR_UNSUPPORTED, "stream is not supported");
    refuse("{\"input_ids\":[1],\"token_ids_logprob\":[3]}", OPD_ERR_UNSUPPORTED, "token_ids_logprob");
    refuse("{\"input_ids\":[1],\"token_ids_logprob\":[0]}", OPD_ERR_UNSUPPORTED, "token_ids_logprob");
    refuse("{\"input_ids\":[[1],[1]],\"token_ids_logprob\":[null,[3]]}", OPD_ERR_UNSUPPORTED, "token_ids_logprob");
    refuse("{\"input_ids\":[1],\"lora_path\":\"x\"}", OPD_ERR_UNSUPPORTED, "lora_path");
    refuse("{\"input_ids\":[1],\"sampling_params\":[{}]}", OPD_ERR_INVALID, "sampling_params: a list is for a batch");
    refuse("{\"sampling_params\":[{},{},{\"temperature\":1}],\"input_ids\":[[1],[1]]}", OPD_ERR_INVALID, "sampling_params: more values than sequences (2)");
    refuse("{\"top_logprobs_num\":[1],\"input_ids\":[[1],[1]]}", OPD_ERR_INVALID, "top_logprobs_num: 1 values for 2");
    refuse("{\"return_logprob\":[true,1],\"input_ids\":[[1],[1]]}", OPD_ERR_PARSE, "expected true or false");
    refuse("{\"logprob_start_len\":[0,[1]],\"input_ids\":[[1],[1]]}", OPD_ERR_PARSE, "expected a number");
    refuse("{\"logprob_start_len\":[0,2],\"return_logprob\":true,\"sampling_params\":{\"max_new_tokens\":0},\"input_ids\":[[1],[1]]}", OPD_ERR_INVALID, "logprob_start_len (2)");
}

TEST(server_refuses_bad_sampling_params) {
    refuse("{\"sampling_params\":{\"max_new_tokens\":-1}}", OPD_ERR_INVALID, "max_new_tokens must be");
    refuse("{\"sampling_params\":{\"temperature\":-0.5}}", OPD_ERR_INVALID, "temperature");
    refuse("{\"sampling_params\":{\"temperature\":\"hot\"}}", OPD_ERR_PARSE, "expected a number");
    refuse("{\"sampling_params\":{\"top_p\":0}}", OPD_ERR_INVALID, "top_p");
    refuse("{\"sampling_params\":{\"top_p\":1.5}}", OPD_ERR_INVALID, "top_p");
    refuse("{\"sampling_params\":{\"top_k\":0}}", OPD_ERR_INVALID, "top_k");
    refuse("{\"sampling_params\":{\"n\":2}}", OPD_ERR_UNSUPPORTED, "n is not supported");
    refuse("{\"sampling_params\":{\"regex\":\"a+\"}}", OPD_ERR_UNSUPPORTED, "regex");
    refuse("{\"sampling_params\":{\"frequency_penalty\":0.5}}", OPD_ERR_UNSUPPORTED, "frequency_penalty");
    refuse("{\"sampling_params\":{\"stop\":[\"\"]}}", OPD_ERR_INVALID, "stop string is empty");
    refuse("{\"sampling_params\":{\"stop_token_ids\":[100]}}", OPD_ERR_INVALID, "stop_token_ids");
    refuse("{\"input_ids\":[1],\"sampling_params\":{\"max_new_tokens\":2,\"min_new_tokens\":3}}", OPD_ERR_INVALID, "min_new_tokens");
}

TEST(server_needs_a_tokenizer_for_text) {
    opd_sglang_limits bare = limits;
    opd_sglang_generate q;
    bare.tokenizer = false;
    CHECK_ERR(opd_sglang_generate_read("{\"text\":\"a\"}", 12, &bare, NULL, &q), OPD_ERR_UNSUPPORTED);
    CHECK_CONTAINS(opd_err_context(), "send input_ids");
}

TEST(server_survives_every_failed_allocation) {
    const char *body = "{\"input_ids\":[[1],[2,3]],\"rid\":\"a\",\"sampling_params\":{\"max_new_tokens\":1,\"stop\":[\"x\",\"y\"]}}";
    bool passed = false;
    for (long n = 1; n < 20 && !passed; n++) {
        opd_test_alloc t;
        opd_sglang_generate q;
        opd_test_alloc_failing(&t, n, true);
        passed = opd_sglang_generate_read(body, strlen(body), &limits, &t.alloc, &q) == OPD_OK;
        if (passed) opd_sglang_generate_fini(&q);
        CHECK_INT(t.live, 0);
    }
    CHECK(passed);
}

static void write_answer(const opd_sglang_answer *a, opd_str *out) {
    opd_json_writer w;
    opd_json_writer_init(&w, out, 0);
    opd_sglang_answer_write(a, &w);
    CHECK_OK(opd_str_status(out));
}

TEST(server_answers_have_the_shape_of_sglang) {
    const int32_t in[] = {6, 7}, topk[] = {0, 0, 7, -1}, made[] = {8, 2};
    const float in_logp[] = {0, -0.1f}, topk_logps[] = {0, 0, -0.1f, 0}, made_logp[] = {-1, -INFINITY};
    opd_sglang_answer a = {.rid = "r1", .text = "\"\xff", .text_size_bytes = 2, .output_ids = made, .output_count = 2,
                           .prompt_count = 3, .weight_version = "v", .e2e_latency_s = 0.5, .finish = OPD_SGLANG_FINISH_STOP,
                           .matched_id = 2, .return_logprob = true,
                           .input = {in, in_logp, 2, 2, topk, topk_logps}, .output = {made, made_logp, 2, 0, NULL, NULL}};
    opd_str out;
    opd_str_init(&out, NULL, 4096);
    write_answer(&a, &out);
    CHECK_STR(out.data, "{\"text\":\"\\\"\xef\xbf\xbd\",\"output_ids\":[8,2],\"meta_info\":{\"id\":\"r1\",\"finish_reason\":"
                        "{\"type\":\"stop\",\"matched\":2},\"prompt_tokens\":3,\"weight_version\":\"v\","
                        "\"weight_versions\":[{\"version\":\"v\",\"start\":0,\"end\":2}],\"input_token_logprobs\":[[null,6,null],[-0.1,7,null]],"
                        "\"output_token_logprobs\":[[-1,8,null],[null,2,null]],\"output_token_logprobs_length\":2,"
                        "\"input_top_logprobs\":[null,[[-0.1,7,null]]],"
                        "\"completion_tokens\":2,\"cached_tokens\":0,\"e2e_latency\":0.5}}");
    opd_str_clear(&out);
    opd_sglang_error_write("a \"b\"", &out);
    CHECK_STR(out.data, "{\"error\":{\"message\":\"a \\\"b\\\"\"}}");
    opd_str_fini(&out);
}

TEST(server_and_client_agree) {
    const int32_t ids[] = {5, 6, 7, 8}, topk[] = {-1, -1, 3, 7, 8, -1};
    const float logp[] = {0, -0.123456789f, NAN}, topk_logps[] = {0, 0, -0.01f, -0.1f, -2, 0};
    opd_sglang_score score = {.ids = ids, .count = 4, .prompt_count = 2, .top_k = 2, .vocab_size = 100};
    opd_sglang_answer a = {.rid = "r", .prompt_count = 4, .weight_version = "9", .return_logprob = true,
                           .input = {ids + 1, logp, 3, 2, topk, topk_logps}};
    float got[2], got_top[4];
    uint8_t valid[2];
    int32_t got_ids[4];
    opd_sglang_scores scores = {.logp = got, .valid = valid, .topk_ids = got_ids, .topk_logps = got_top};
    opd_str out;
    opd_str_init(&out, NULL, 4096);
    write_answer(&a, &out);
    CHECK_OK(opd_sglang_score_read(out.data, out.size, &score, &scores));
    CHECK(valid[0] == 1 && valid[1] == 0 && got[0] == logp[1] && scores.valid_count == 1);
    CHECK(got_ids[0] == 3 && got_ids[1] == 7 && got_ids[2] == 8 && got_ids[3] == -1);
    CHECK(got_top[0] == -0.01f && got_top[2] == -2);
    CHECK_STR(scores.weight_version, "9");
    opd_str_clear(&out);
    a.finish = OPD_SGLANG_FINISH_ABORT;
    a.message = "stopping";
    write_answer(&a, &out);
    CHECK_ERR(opd_sglang_score_read(out.data, out.size, &score, &scores), OPD_ERR_AGAIN);
    opd_str_fini(&out);
}

/* The two forms of flat alternatives: the texts, and the same bits in the client. */
TEST(flat_alternatives_come_back_bit_for_bit) {
    enum { ROWS = 300, K = 5, VOCAB = 1000 };
    static int32_t ids[ROWS + 2], topk[(ROWS + 1) * K], got_ids[ROWS * K];
    static float logp[ROWS + 1], topk_logps[(ROWS + 1) * K], got[ROWS], got_logps[ROWS * K];
    static uint8_t valid[ROWS];
    opd_rng rng;
    opd_rng_init(&rng, 5);
    for (size_t i = 0; i < ROWS + 2; i++) ids[i] = (int32_t)opd_rng_below(&rng, VOCAB);
    for (size_t i = 0; i < ROWS + 1; i++) logp[i] = -(float)opd_rng_uniform(opd_rng_next(&rng)) * 9;
    for (size_t i = 0; i < (ROWS + 1) * K; i++) {
        topk[i] = (int32_t)opd_rng_below(&rng, VOCAB);
        topk_logps[i] = -(float)opd_rng_uniform(opd_rng_next(&rng)) * 20;
    }
    opd_sglang_score score = {.ids = ids, .count = ROWS + 2, .prompt_count = 2, .top_k = K, .vocab_size = VOCAB};
    opd_sglang_answer a = {.rid = "r", .prompt_count = ROWS + 2, .weight_version = "1", .return_logprob = true,
                           .input = {ids + 1, logp, ROWS + 1, K, topk, topk_logps}};
    opd_sglang_scores scores = {.logp = got, .valid = valid, .topk_ids = got_ids, .topk_logps = got_logps};
    static const char *const names[] = {"\"input_top_logprobs\":[null,[[", "\"input_top_logprobs_val_flat\":[-",
                                        "\"input_top_logprobs_val_flat_b64\":\""};
    for (a.form = OPD_SGLANG_FORM_NESTED; a.form <= OPD_SGLANG_FORM_BASE64; a.form++) {
        opd_str out;
        opd_str_init(&out, NULL, 1 << 20);
        write_answer(&a, &out);
        CHECK_CONTAINS(out.data, names[a.form]);
        CHECK_INT(strstr(out.data, "\"input_top_logprobs_shape\":[300,5],\"input_top_logprobs_null_prefix\":1") != NULL,
                  a.form != OPD_SGLANG_FORM_NESTED);
        CHECK_OK(opd_sglang_score_read(out.data, out.size, &score, &scores));
        CHECK_INT(scores.valid_count, ROWS);
        CHECK(memcmp(got, logp + 1, sizeof got) == 0);
        CHECK(memcmp(got_ids, topk + K, sizeof got_ids) == 0);
        CHECK(memcmp(got_logps, topk_logps + K, sizeof got_logps) == 0);
        opd_str_fini(&out);
    }
}

TEST(flat_alternatives_are_nested_where_rows_are_ragged) {
    const int32_t in[] = {6, 7, 8}, topk[] = {0, 0, 7, -1, 8, 1};
    const float logp[] = {0, -1, -2}, topk_logps[] = {0, 0, -1, 0, NAN, -INFINITY};
    opd_sglang_answer a = {.rid = "r1", .weight_version = "v", .return_logprob = true, .form = OPD_SGLANG_FORM_BASE64,
                           .input = {in, logp, 3, 2, topk, topk_logps}};
    opd_str out;
    opd_str_init(&out, NULL, 4096);
    write_answer(&a, &out);
    CHECK_CONTAINS(out.data, "\"input_top_logprobs\":[null,[[-1,7,null]],[[null,8,null],[null,1,null]]],");
    CHECK(strstr(out.data, "flat") == NULL);
    opd_str_clear(&out);
    a.input = (opd_sglang_logprobs){in + 1, logp + 1, 2, 2, topk + 2, topk_logps + 2}; /* row 0 does not count */
    write_answer(&a, &out);
    CHECK_CONTAINS(out.data, "\"input_top_logprobs_val_flat_b64\":\"AADAfwAAgP8=\""); /* NaN and -inf as they are */
    CHECK_CONTAINS(out.data, "\"input_top_logprobs_idx_flat_b64\":\"CAAAAAEAAAA=\"");
    CHECK_CONTAINS(out.data, "\"input_top_logprobs_val_flat_b64_dtype\":\"float32\",\"input_top_logprobs_idx_flat_b64_dtype\":\"int32\"");
    opd_str_clear(&out);
    a.form = OPD_SGLANG_FORM_FLAT;
    write_answer(&a, &out);
    CHECK_CONTAINS(out.data, "\"input_top_logprobs_val_flat\":[null,null],\"input_top_logprobs_idx_flat\":[8,1],"
                             "\"input_top_logprobs_shape\":[1,2]");
    opd_str_clear(&out);
    a.input.count = 0;
    write_answer(&a, &out);
    CHECK_CONTAINS(out.data, "\"input_top_logprobs\":[]");
    opd_str_fini(&out);
}
