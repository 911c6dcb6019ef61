/* transports/sglang.h - the SGLang /generate protocol: bytes in, structs out, and back.
 *
 * Sans-I/O: no sockets, no time, so that it can be simulated and fuzzed. The client side
 * writes scoring requests and validates their answers strictly (an answer that could be
 * about other tokens than ours is refused whole; a score that is missing makes its token
 * invalid, never a number). The server side reads /generate requests with every field
 * bounds-checked, and writes the answers that real servers write.
 *
 * Shapes: a scoring entry is [logprob, id, null]; input_token_logprobs has sent - start
 * entries of which entry 0 is always [null, id, null]; entry i scores token start + i given
 * all before it. To score R response tokens after a prompt of P, start = P - 1.
 *
 * Thread: any. Memory: parsers write into the caller's arrays; opd_sglang_generate owns its
 * arrays (fini).
 */
#ifndef OPD_TRANSPORTS_SGLANG_H
#define OPD_TRANSPORTS_SGLANG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/str.h"
#include "core/codec/json.h"
#include "opd/alloc.h"
#include "opd/err.h"

enum {
    OPD_SGLANG_NAME_SIZE = 128,   /* rids, weight versions, hashes, with the NUL      */
    OPD_SGLANG_MESSAGE_SIZE = 512, /* error messages, cut                             */
    OPD_SGLANG_BATCH_MAX = 1024,  /* sequences in one request                         */
    OPD_SGLANG_STOP_MAX = 16,     /* stop ids of one sequence                          */
    OPD_SGLANG_TOP_MAX = 1024     /* top_logprobs_num                                 */
};

/* How alternatives are written (teacher-protocol 2.3). */
typedef enum opd_sglang_form {
    OPD_SGLANG_FORM_NESTED, /* a list of triples for each row                                     */
    OPD_SGLANG_FORM_FLAT,   /* all log-probs, all ids, and a shape; NESTED where a row is shorter */
    OPD_SGLANG_FORM_BASE64  /* as FLAT, but their little-endian bytes in base64, NaN included     */
} opd_sglang_form;

/* ---- client: scoring ---- */

/* One sequence to score: ids[count], the first prompt_count of them the prompt. */
typedef struct opd_sglang_score {
    const int32_t *ids;
    size_t count;        /* >= 2, > prompt_count                          */
    size_t prompt_count; /* P >= 1; R = count - P tokens are scored       */
    int32_t top_k;       /* 0 = none, at most OPD_SGLANG_TOP_MAX          */
    opd_sglang_form form; /* asked for; servers without it send NESTED    */
    int32_t vocab_size;  /* of the teacher; 0 = not known                 */
    double temperature;  /* 0 or 1 = plain scores; else asks for others   */
    const char *rid;     /* fixed width, unique in flight; NULL = none    */
} opd_sglang_score;

/* Where the scores go. topk_* may be NULL when top_k is 0. Values where valid[t] is 0 are 0.
 * Row t of the top-k holds best-first ids, then -1 where the server gave fewer. */
typedef struct opd_sglang_scores {
    float *logp;         /* [R]    natural log                             */
    uint8_t *valid;      /* [R]    1 = logp[t] may be used                 */
    int32_t *topk_ids;   /* [R, k]                                         */
    float *topk_logps;   /* [R, k]                                         */
    size_t valid_count;  /* out: sum of valid                              */
    size_t cached_count; /* out: cached_tokens, 0 when not told            */
    char weight_version[OPD_SGLANG_NAME_SIZE]; /* out: "" when not told    */
    /* out: what the answer showed of the server */
    uint32_t forms;      /* 1 << the form of the alternatives; 0: none came */
    size_t echoed_count; /* rows that named exactly the id that was sent   */
    bool told_count;     /* the number of tokens it scored                 */
    bool told_rid;       /* the rid that was sent                          */
} opd_sglang_scores;

/* Appends the body of POST /generate. Errors: INVALID (shape), those of out. */
OPD_MUST_CHECK opd_err opd_sglang_score_write(const opd_sglang_score *score, opd_str *out);

/* Reads the body of a 200 answer to `score`.
 * Refused whole: not JSON of that shape (PROTO); finish_reason abort (AGAIN: it is busy, or told to) or
 * "NaN happened" (REMOTE), also without prompt_tokens, the server's message in the context; prompt_tokens, number
 * of rows or an echoed id other than sent (PROTO; an id of vocab_size - 1 may come back as
 * 0, and so may any id when vocab_size is not known).
 * One token invalid: score null, not finite or above 1e-4; a top-k entry like that ends its row.
 * On error the arrays hold nothing of use and valid_count is 0. */
OPD_MUST_CHECK opd_err opd_sglang_score_read(const char *body, size_t size_bytes,
                                             const opd_sglang_score *score,
                                             opd_sglang_scores *out_scores);

/* Copies the message of an error answer in any of the three forms ({"error": {"message"}},
 * {"object": "error", "message"}, {"error": "Unauthorized"}), else the start of the body,
 * printable, to out[OPD_SGLANG_MESSAGE_SIZE]. */
void opd_sglang_error_read(const char *body, size_t size_bytes, char *out);

/* ---- /model_info ---- */

/* What a server says about its model. Numbers are -1, texts "" where it does not tell; the
 * last group only opd serve tells. */
typedef struct opd_sglang_model_info {
    char model_path[OPD_SGLANG_MESSAGE_SIZE];
    char weight_version[OPD_SGLANG_NAME_SIZE];
    char model_type[OPD_SGLANG_NAME_SIZE];
    int64_t vocab_size, bos_id, eos_id, pad_id, context_size;
    char tokenizer_hash[OPD_SGLANG_NAME_SIZE]; /* 16 hex digits */
    bool scores_at_temperature; /* scoring honours sampling_params.temperature */
} opd_sglang_model_info;

/* Errors: PARSE. */
OPD_MUST_CHECK opd_err opd_sglang_model_info_read(const char *body, size_t size_bytes,
                                                  opd_sglang_model_info *out_info);
void opd_sglang_model_info_write(const opd_sglang_model_info *info, opd_str *out);

/* What a server says about itself (GET /server_info; vLLM: GET /version). As above where it does
 * not tell. */
typedef struct opd_sglang_server_info {
    char server[OPD_SGLANG_NAME_SIZE];  /* "opd" of our own              */
    char version[OPD_SGLANG_NAME_SIZE];
    int64_t max_input;    /* longest input it takes       */
    int64_t context_size;
    int64_t max_running;  /* requests at once             */
    int http2;            /* 1 on, 0 off, -1 not told     */
    bool speculative;     /* decodes speculatively        */
} opd_sglang_server_info;

/* Errors: PARSE. */
OPD_MUST_CHECK opd_err opd_sglang_server_info_read(const char *body, size_t size_bytes,
                                                   opd_sglang_server_info *out_info);

/* ---- server: requests ---- */

/* What is wanted of one sequence. logprob_start -1 = outputs only. */
typedef struct opd_sglang_ask {
    bool return_logprob, ignore_eos, skip_special_tokens;
    int32_t logprob_start, top_logprobs;
    int32_t max_new_tokens, min_new_tokens;
    double temperature, top_p;
    int32_t top_k;           /* 0 = all                                       */
    bool seeded;
    int64_t seed;
    size_t stop_count;       /* stop strings; which is not kept               */
    int32_t stop_ids[OPD_SGLANG_STOP_MAX];
    size_t stop_id_count;
} opd_sglang_ask;

/* One sequence of a request. */
typedef struct opd_sglang_item {
    int32_t *ids;     /* [count]; NULL when text was sent                     */
    size_t count;
    char *text;       /* NULL when ids were sent                              */
    size_t text_size_bytes;
    char rid[OPD_SGLANG_NAME_SIZE]; /* "" when none was sent                  */
    opd_sglang_ask ask; /* the batch's, or its entry of a list                */
} opd_sglang_item;

/* What one /generate asks. */
typedef struct opd_sglang_generate {
    opd_sglang_item *items; /* [item_count]                                   */
    size_t item_count;
    bool batch;             /* the answer is an array                         */
    bool flat, flat_base64; /* the form of the input's alternatives           */
    const opd_alloc *alloc;
} opd_sglang_generate;

/* The bounds a request is checked against. */
typedef struct opd_sglang_limits {
    int32_t vocab_size;
    int32_t context_size; /* len(input) < it, len(input) + max_new_tokens <= it */
    bool tokenizer;       /* text may be sent */
} opd_sglang_limits;

/* Reads and checks the body of a request. Text items are length-checked by the caller after
 * tokenizing (opd_sglang_length_check). On error nothing is to be freed; the context is the
 * message for the 400 answer. Errors: PARSE, INVALID, UNSUPPORTED, NOMEM. */
OPD_MUST_CHECK opd_err opd_sglang_generate_read(const char *body, size_t size_bytes,
                                                const opd_sglang_limits *limits,
                                                const opd_alloc *alloc,
                                                opd_sglang_generate *out_request);
void opd_sglang_generate_fini(opd_sglang_generate *request);

/* Whether `count` input ids fit the limits and what is wanted of them. Errors: INVALID. */
OPD_MUST_CHECK opd_err opd_sglang_length_check(const opd_sglang_limits *limits,
                                               const opd_sglang_ask *ask, size_t count);

/* ---- server: answers ---- */

typedef enum opd_sglang_finish {
    OPD_SGLANG_FINISH_LENGTH, /* max_new_tokens                       */
    OPD_SGLANG_FINISH_STOP,   /* matched_id or matched_text           */
    OPD_SGLANG_FINISH_ABORT   /* message                              */
} opd_sglang_finish;

/* Log-probs of `count` tokens: ids[count], logp[count], and, with top_k > 0, best-first rows
 * [count, top_k] of alternatives (id -1 ends a row). A non-finite value is written as null. */
typedef struct opd_sglang_logprobs {
    const int32_t *ids;
    const float *logp;
    size_t count;
    int32_t top_k;
    const int32_t *topk_ids;
    const float *topk_logps;
} opd_sglang_logprobs;

/* One answer. Inputs are written with entry 0 null: input.logp[0] and its top-k are not
 * read. */
typedef struct opd_sglang_answer {
    const char *rid;
    const char *text; /* decoded output; NULL = no tokenizer, no field */
    size_t text_size_bytes;
    const int32_t *output_ids;
    size_t output_count;
    size_t prompt_count, cached_count;
    const char *weight_version;
    double e2e_latency_s;
    opd_sglang_finish finish;
    int32_t matched_id;       /* STOP: >= 0, or the text    */
    const char *matched_text;
    const char *message;      /* ABORT                      */
    bool return_logprob;
    opd_sglang_form form;
    opd_sglang_logprobs input, output;
} opd_sglang_answer;

/* Appends one answer object through the writer (without indent), so that a batch can be an array of them. */
void opd_sglang_answer_write(const opd_sglang_answer *answer, opd_json_writer *writer);

/* Appends {"error": {"message": ...}}, the envelope of 400 and 503. */
void opd_sglang_error_write(const char *message, opd_str *out);

/* Appends {"object": "error", "message", "type", "param", "code"}: the envelope of a request that
 * does not have the schema. */
void opd_sglang_error_object_write(const char *message, int status, opd_str *out);

#endif
