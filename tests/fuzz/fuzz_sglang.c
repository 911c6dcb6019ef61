/* fuzz_sglang.c - both sides of the /generate protocol on hostile bytes. */
#include <math.h>
#include <stdlib.h>

#include "tests/fuzz/fuzz.h"
#include "transports/sglang.h"
#include "transports/vllm.h"

enum { R = 3, K = 2 };

const opd_fuzz_seed opd_fuzz_seeds[] = {
    OPD_FUZZ_SEED("{\"text\":\"\",\"output_ids\":[],\"meta_info\":{\"id\":\"r\",\"input_token_logprobs\":[[null,6,null],"
                  "[-0.5,7,null],[-1.25,8,null],[-2,9,\"x\"]],\"input_top_logprobs\":[null,[[-0.1,1,null],[-3,2,null]],null,"
                  "[[-0.2,9,null]]],\"finish_reason\":{\"type\":\"length\",\"length\":0},\"prompt_tokens\":5,"
                  "\"weight_version\":\"v7\",\"cached_tokens\":2}}"),
    OPD_FUZZ_SEED("{\"rid\":[\"a\",\"b\"],\"input_ids\":[[1,2],[3]],\"sampling_params\":{\"max_new_tokens\":5,\"stop\":[\"q\"],"
                  "\"stop_token_ids\":[9],\"top_k\":7,\"n\":1},\"return_logprob\":true,\"logprob_start_len\":0}"),
    OPD_FUZZ_SEED("{\"text\":\"abc\",\"rid\":\"x\",\"sampling_params\":{\"temperature\":0.5,\"regex\":null}}"),
    OPD_FUZZ_SEED("{\"error\":{\"message\":\"too long\"},\"model_path\":\"m\",\"eos_token_id\":[1,2],\"vocab_size\":7}"),
    {NULL, 0}};

static void check_scores(const char *text, size_t size) {
    static const int32_t ids[] = {5, 6, 7, 8, 9};
    float logp[R], top_logps[R * K];
    uint8_t valid[R];
    int32_t top_ids[R * K];
    opd_sglang_score score = {.ids = ids, .count = 5, .prompt_count = 2, .top_k = K, .vocab_size = 20};
    opd_sglang_scores scores = {.logp = logp, .valid = valid, .topk_ids = top_ids, .topk_logps = top_logps};
    if (opd_sglang_score_read(text, size, &score, &scores) != OPD_OK && scores.valid_count != 0) abort();
    for (int t = 0; t < R; t++) {
        if (valid[t] > 1 || !isfinite(logp[t]) || logp[t] > 1e-3f) abort();
        for (int j = 0; j < K; j++)
            if (top_ids[t * K + j] < -1 || top_ids[t * K + j] >= 20) abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes) {
    const char *text = (const char *)data;
    opd_sglang_limits limits = {.vocab_size = 10, .context_size = 200, .tokenizer = true};
    opd_sglang_generate request;
    opd_sglang_model_info info;
    opd_sglang_server_info server;
    char message[OPD_SGLANG_MESSAGE_SIZE];
    check_scores(text, size_bytes);
    if (opd_sglang_generate_read(text, size_bytes, &limits, NULL, &request) == OPD_OK) {
        for (size_t i = 0; i < request.item_count; i++)
            for (size_t j = 0; j < request.items[i].count; j++)
                if (request.items[i].ids[j] < 0 || request.items[i].ids[j] >= 10) abort();
        opd_sglang_generate_fini(&request);
    }
    if (opd_sglang_model_info_read(text, size_bytes, &info) == OPD_OK && info.vocab_size < -1) return 0;
    if (opd_vllm_models_read(text, size_bytes, &info) == OPD_OK && info.vocab_size != -1) abort();
    if (opd_sglang_server_info_read(text, size_bytes, &server) == OPD_OK && server.http2 > 1) abort();
    opd_sglang_error_read(text, size_bytes, message);
    return 0;
}
