/* vllm.h - scores from a vLLM server: POST /v1/completions with prompt_logprobs (teacher-protocol 4).
 *
 * The same question and the same arrays as sglang.h; other bytes. vLLM scores the whole prompt
 * every time, so the answer is cut to the response here. It gives for each position a dict
 * {"id": {logprob, rank, decoded_token}} of the token itself and of the k likeliest ones: k or
 * k + 1 entries in no order, found by key and put by rank.
 *
 * Sans-I/O. Thread: any. Memory: the caller's arrays; nothing is allocated by reading.
 */
#ifndef OPD_TRANSPORTS_VLLM_H
#define OPD_TRANSPORTS_VLLM_H

#include "transports/sglang.h"

/* Appends the body: max_tokens 1 (0 is refused by servers), prompt_logprobs k, return_token_ids. The
 * model is the server's own. Errors: INVALID (shape), those of out. */
OPD_MUST_CHECK opd_err opd_vllm_score_write(const opd_sglang_score *score, opd_str *out);

/* Reads the body of a 200 answer to `score`.
 * Refused whole: not JSON of that shape, another number of choices or positions, echoed ids or
 * prompt_tokens other than sent, a scored position that does not name its token (PROTO);
 * finish_reason abort (AGAIN).
 * One token invalid: logprob null, above 1e-4, or -9999, which stands for minus infinity. A row of
 * alternatives ends at the first rank that is missing or cannot be used.
 * On error the arrays hold nothing of use and valid_count is 0. */
OPD_MUST_CHECK opd_err opd_vllm_score_read(const char *body, size_t size_bytes,
                                           const opd_sglang_score *score,
                                           opd_sglang_scores *out_scores);

/* Reads the body of GET /v1/models: the first model's name and its longest sequence; the server does
 * not tell more. Errors: PARSE. */
OPD_MUST_CHECK opd_err opd_vllm_models_read(const char *body, size_t size_bytes,
                                            opd_sglang_model_info *out_info);

#endif
