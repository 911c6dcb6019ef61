/* vllm.c - asks vLLM for prompt log-probs, and believes little of the answer (vllm.h).
 *
 *   level 0  {          1  "choices": [  "usage": {        2  { of the choice; prompt_tokens
 *   level 3  members of the choice                         4  positions; echoed ids
 *   level 5  entries of a position, by id                  6  logprob, rank, decoded_token
 *
 * A token's level is the number of brackets around it (json_push.h).
 * Thread: any. Memory: the caller's arrays.
 */
#include "transports/vllm.h"

#include <math.h>
#include <string.h>

#include "core/base/check.h"
#include "transports/score_inside.h"

/* vLLM writes -9999.0 for minus infinity; no real log-prob of a float32 softmax is near. */
#define MINUS_INFINITY -9998.5f

enum field {
    FIELD_OTHER,
    FIELD_CHOICES,
    FIELD_USAGE,
    FIELD_PROMPT_TOKENS,
    FIELD_FINISH,
    FIELD_ROWS, /* prompt_logprobs  */
    FIELD_IDS,  /* prompt_token_ids */
    FIELD_LOGP,
    FIELD_RANK
};
enum { LEVEL_ROOT = 1, LEVEL_INNER, LEVEL_CHOICE, LEVEL_POSITION, LEVEL_ENTRY, LEVEL_VALUE, LEVELS };

/* The members that are read, by level and by the member around them. */
static const struct { const char *name; uint8_t level, around, field; } members[] = {
    {"choices", LEVEL_ROOT, FIELD_OTHER, FIELD_CHOICES},
    {"usage", LEVEL_ROOT, FIELD_OTHER, FIELD_USAGE},
    {"prompt_tokens", LEVEL_INNER, FIELD_USAGE, FIELD_PROMPT_TOKENS},
    {"finish_reason", LEVEL_CHOICE, FIELD_CHOICES, FIELD_FINISH},
    {"prompt_logprobs", LEVEL_CHOICE, FIELD_CHOICES, FIELD_ROWS},
    {"prompt_token_ids", LEVEL_CHOICE, FIELD_CHOICES, FIELD_IDS},
    {"logprob", LEVEL_VALUE, FIELD_ROWS, FIELD_LOGP},
    {"rank", LEVEL_VALUE, FIELD_ROWS, FIELD_RANK},
};

typedef struct reading {
    opd_json_push json;
    const opd_sglang_score *score;
    opd_sglang_scores *out;
    int64_t id_max;
    uint8_t root, choice, value;  /* the present member of each level          */
    uint32_t seen, seen_value;    /* bits: members that were there; of an entry */
    int skip_level;               /* -1: nothing is passed over                */
    int64_t choices, rows, echoed, prompt_tokens; /* -1: not there             */
    int32_t entries;              /* of the present position                   */
    bool named;                   /* it has an entry for its token             */
    int64_t id, rank;             /* the present entry                         */
    float logp;
    size_t wrong_row, wrong_echo;
    bool wrong, echo_wrong;
    char finish[32];
} reading;

opd_err opd_vllm_score_write(const opd_sglang_score *score, opd_str *out) {
    opd_json_writer w;
    if (score->prompt_count < 1 || score->count <= score->prompt_count || score->top_k < 0 ||
        score->top_k > OPD_SGLANG_TOP_MAX)
        return opd_fail(OPD_ERR_INVALID, "cannot score %zu tokens after a prompt of %zu with top %d",
                        score->count, score->prompt_count, (int)score->top_k);
    opd_json_writer_init(&w, out, 0);
    opd_json_write_object_begin(&w);
    if (score->rid != NULL) {
        opd_json_write_key(&w, "request_id");
        opd_json_write_text(&w, score->rid);
    }
    opd_json_write_key(&w, "prompt");
    opd_json_write_array_begin(&w);
    for (size_t i = 0; i < score->count; i++) opd_json_write_int64(&w, score->ids[i]);
    opd_json_write_array_end(&w);
    opd_json_write_key(&w, "max_tokens");
    opd_json_write_int64(&w, 1);
    opd_json_write_key(&w, "temperature");
    opd_json_write_int64(&w, 1);
    opd_json_write_key(&w, "prompt_logprobs");
    opd_json_write_int64(&w, score->top_k);
    opd_json_write_key(&w, "return_token_ids");
    opd_json_write_bool(&w, true);
    opd_json_write_key(&w, "stream");
    opd_json_write_bool(&w, false);
    opd_json_write_object_end(&w);
    return opd_str_status(out);
}

/* ---- values ---- */

static void fail(reading *r, const char *text) { (void)opd_json_push_fail(&r->json, text); }

static bool begins(opd_json_push_token t) {
    return t == OPD_JSON_PUSH_OBJECT_BEGIN || t == OPD_JSON_PUSH_ARRAY_BEGIN;
}

static bool ends(opd_json_push_token t) {
    return t == OPD_JSON_PUSH_OBJECT_END || t == OPD_JSON_PUSH_ARRAY_END;
}

static void skip(reading *r, opd_json_push_token t) {
    if (begins(t)) r->skip_level = r->json.depth - 1;
}

static void take_int(reading *r, opd_json_push_token t, int64_t *out) {
    if (t == OPD_JSON_PUSH_NULL) return;
    if (t != OPD_JSON_PUSH_NUMBER || !opd_json_push_int64(&r->json, out))
        fail(r, "expected a whole number");
}

static void expect(reading *r, opd_json_push_token t, opd_json_push_token begin) {
    if (t != begin && t != begin + 1) /* its end follows it in the enum */
        fail(r, begin == OPD_JSON_PUSH_OBJECT_BEGIN ? "expected an object" : "expected an array");
}

/* The field of the key that was read; one that is known comes once. */
static uint8_t key_field(reading *r, int level, uint8_t around, uint32_t *seen) {
    opd_json_text key = opd_json_push_text(&r->json);
    for (size_t i = 0; i < OPD_COUNTOF(members); i++) {
        if (members[i].level != level || members[i].around != around ||
            !opd_json_text_is(key, members[i].name))
            continue;
        if (*seen & (1u << members[i].field)) fail(r, "a member comes twice");
        *seen |= 1u << members[i].field;
        return members[i].field;
    }
    return FIELD_OTHER;
}

/* ---- positions ---- */

/* The token id that is a key: digits. */
static void entry_key(reading *r) {
    opd_json_text key = opd_json_push_text(&r->json);
    int64_t id = 0;
    bool digits = key.size_bytes > 0 && key.size_bytes <= 10;
    for (size_t i = 0; digits && i < key.size_bytes; i++) {
        digits = key.data[i] >= '0' && key.data[i] <= '9';
        id = id * 10 + (key.data[i] - '0');
    }
    if (!digits) fail(r, "expected a token id as key");
    r->id = id;
    r->rank = 0;
    r->logp = NAN;
    r->seen_value = 0;
    if (r->entries++ > r->score->top_k) fail(r, "more alternatives than asked for");
}

static void entry_end(reading *r) {
    const opd_sglang_score *q = r->score;
    size_t row = (size_t)r->rows;
    bool usable = opd__logp_usable(r->logp) && r->logp > MINUS_INFINITY;
    if (row < q->prompt_count || row >= q->count) return;
    size_t t = row - q->prompt_count;
    if (r->id == q->ids[row]) {
        if (r->named) fail(r, "a token comes twice at one position");
        r->named = true;
        r->out->logp[t] = usable ? r->logp : 0;
        r->out->valid[t] = usable;
    }
    if (!usable || r->rank < 1 || r->rank > q->top_k || r->id > r->id_max) return;
    size_t at = t * (size_t)q->top_k + (size_t)r->rank - 1;
    if (r->out->topk_ids[at] >= 0) return; /* of equal probability: one of them is enough */
    r->out->topk_ids[at] = (int32_t)r->id;
    r->out->topk_logps[at] = r->logp;
}

/* Closes a position, which was a dict or null. */
static void row_end(reading *r) {
    const opd_sglang_score *q = r->score;
    size_t row = (size_t)r->rows++, k = (size_t)q->top_k, n = 0;
    if (row < q->prompt_count || row >= q->count) return;
    if (!r->named && !r->wrong) {
        r->wrong = true;
        r->wrong_row = row;
    }
    size_t first = (row - q->prompt_count) * k;
    while (n < k && r->out->topk_ids[first + n] >= 0) n++;
    for (; n < k; n++) {
        r->out->topk_ids[first + n] = -1;
        r->out->topk_logps[first + n] = 0;
    }
}

static void row(reading *r, opd_json_push_token t) {
    if (t == OPD_JSON_PUSH_OBJECT_END || t == OPD_JSON_PUSH_NULL) {
        if (t == OPD_JSON_PUSH_NULL) r->named = false;
        row_end(r);
    } else if (t == OPD_JSON_PUSH_OBJECT_BEGIN) {
        r->entries = 0;
        r->named = false;
    } else {
        fail(r, "expected an object or null");
    }
}

static void echo(reading *r, opd_json_push_token t) {
    int64_t id = -1;
    take_int(r, t, &id);
    size_t at = (size_t)r->echoed++;
    if (r->echo_wrong || at >= r->score->count || id == r->score->ids[at]) return;
    r->echo_wrong = true;
    r->wrong_echo = at;
}

static void entry_value(reading *r, opd_json_push_token t) {
    if (t == OPD_JSON_PUSH_KEY) {
        r->value = key_field(r, LEVEL_VALUE, FIELD_ROWS, &r->seen_value);
    } else if (r->value == FIELD_RANK) {
        take_int(r, t, &r->rank);
    } else if (r->value == FIELD_LOGP) {
        if (t == OPD_JSON_PUSH_NUMBER) (void)opd_json_push_float(&r->json, &r->logp);
        else if (t != OPD_JSON_PUSH_NULL) fail(r, "expected a number or null");
    } else {
        skip(r, t);
    }
}

/* ---- members ---- */

static void root_member(reading *r, opd_json_push_token t) {
    if (t == OPD_JSON_PUSH_KEY) {
        r->root = key_field(r, LEVEL_ROOT, FIELD_OTHER, &r->seen);
    } else if (r->root == FIELD_CHOICES) {
        if (t == OPD_JSON_PUSH_ARRAY_BEGIN) r->choices = 0;
        expect(r, t, OPD_JSON_PUSH_ARRAY_BEGIN);
    } else if (r->root == FIELD_USAGE && t != OPD_JSON_PUSH_NULL) {
        expect(r, t, OPD_JSON_PUSH_OBJECT_BEGIN);
    } else {
        skip(r, t);
    }
}

/* A choice, or a member of usage. */
static void inner(reading *r, opd_json_push_token t) {
    if (r->root == FIELD_CHOICES) {
        if (t == OPD_JSON_PUSH_OBJECT_BEGIN && r->choices++ > 0) fail(r, "more than one choice");
        expect(r, t, OPD_JSON_PUSH_OBJECT_BEGIN);
    } else if (t == OPD_JSON_PUSH_KEY) {
        r->choice = key_field(r, LEVEL_INNER, FIELD_USAGE, &r->seen);
    } else if (r->choice == FIELD_PROMPT_TOKENS) {
        take_int(r, t, &r->prompt_tokens);
    } else {
        skip(r, t);
    }
}

static void choice_member(reading *r, opd_json_push_token t) {
    if (t == OPD_JSON_PUSH_KEY) {
        r->choice = key_field(r, LEVEL_CHOICE, FIELD_CHOICES, &r->seen);
    } else if (r->choice == FIELD_ROWS || r->choice == FIELD_IDS) {
        if (t == OPD_JSON_PUSH_ARRAY_BEGIN) *(r->choice == FIELD_ROWS ? &r->rows : &r->echoed) = 0;
        if (t != OPD_JSON_PUSH_NULL) expect(r, t, OPD_JSON_PUSH_ARRAY_BEGIN);
    } else if (r->choice == FIELD_FINISH && t == OPD_JSON_PUSH_STRING) {
        opd__push_cut(&r->json, r->finish, sizeof r->finish);
    } else {
        skip(r, t);
    }
}

static void entry(reading *r, opd_json_push_token t) {
    if (t == OPD_JSON_PUSH_KEY) entry_key(r);
    else if (t == OPD_JSON_PUSH_OBJECT_END) entry_end(r);
    else if (t != OPD_JSON_PUSH_OBJECT_BEGIN) fail(r, "expected an object");
}

static void take_token(reading *r, opd_json_push_token t) {
    int level = r->json.depth - begins(t);
    if (r->skip_level >= 0) {
        if (level == r->skip_level && ends(t)) r->skip_level = -1;
        return;
    }
    if (t == OPD_JSON_PUSH_COMMA || t == OPD_JSON_PUSH_STRING_BEGIN) return;
    switch (level) {
    case 0: expect(r, t, OPD_JSON_PUSH_OBJECT_BEGIN); break;
    case LEVEL_ROOT: root_member(r, t); break;
    case LEVEL_INNER: inner(r, t); break;
    case LEVEL_CHOICE: choice_member(r, t); break;
    case LEVEL_POSITION:
        if (r->choice == FIELD_ROWS) row(r, t);
        else echo(r, t);
        break;
    case LEVEL_ENTRY: entry(r, t); break;
    default: entry_value(r, t); break;
    }
}

/* ---- the verdict ---- */

static opd_err judge(const reading *r) {
    const opd_sglang_score *q = r->score;
    if (strcmp(r->finish, "abort") == 0)
        return opd_fail(OPD_ERR_AGAIN, "the server aborted the request");
    if (r->choices != 1)
        return opd_fail(OPD_ERR_PROTO, "the answer has %lld choices, expected 1",
                        (long long)(r->choices < 0 ? 0 : r->choices));
    if (r->prompt_tokens >= 0 && r->prompt_tokens != (int64_t)q->count)
        return opd_fail(OPD_ERR_PROTO, "the server scored %lld prompt tokens, %zu were sent; does it truncate?",
                        (long long)r->prompt_tokens, q->count);
    if (r->rows != (int64_t)q->count)
        return opd_fail(OPD_ERR_PROTO, "prompt_logprobs has %lld positions, expected %zu (-1: none at all)",
                        (long long)r->rows, q->count);
    if (r->echoed >= 0 && (r->echoed != (int64_t)q->count || r->echo_wrong))
        return opd_fail(OPD_ERR_PROTO, "prompt_token_ids are %lld ids, %zu were sent; the first other one is number %zu",
                        (long long)r->echoed, q->count, r->echo_wrong ? r->wrong_echo : q->count);
    if (r->wrong)
        return opd_fail(OPD_ERR_PROTO, "position %zu of prompt_logprobs does not name token %d, which was sent",
                        r->wrong_row, (int)q->ids[r->wrong_row]);
    return OPD_OK;
}

opd_err opd_vllm_score_read(const char *body, size_t size_bytes, const opd_sglang_score *score,
                            opd_sglang_scores *out_scores) {
    reading r = {.score = score, .out = out_scores, .id_max = opd__score_id_max(score),
                 .skip_level = -1, .choices = -1, .rows = -1, .echoed = -1, .prompt_tokens = -1};
    const char *at = body, *end = body + size_bytes;
    opd_json_push_token t;
    OPD_ASSERT(score->count > score->prompt_count && score->prompt_count > 0);
    OPD_ASSERT(score->top_k == 0 || (out_scores->topk_ids != NULL && out_scores->topk_logps != NULL));
    opd__scores_clear(score, out_scores);
    opd_json_push_init(&r.json);
    while ((t = opd_json_push_next(&r.json, &at, end)) > OPD_JSON_PUSH_ERROR) take_token(&r, t);
    opd_err err = opd_json_push_finish(&r.json);
    if (err != OPD_OK) err = opd_err_prefix(OPD_ERR_PROTO, "the answer is no scoring answer");
    else err = judge(&r);
    if (err == OPD_OK) {
        out_scores->told_count = r.prompt_tokens >= 0;
        out_scores->echoed_count = opd__score_rows(score); /* entries are found by their id */
        out_scores->forms = score->top_k > 0 ? 1u << OPD_SGLANG_FORM_NESTED : 0;
    }
    return opd__scores_end(score, out_scores, err);
}

/* ---- /v1/models ---- */

static void read_model(opd_json *json, opd_sglang_model_info *info) {
    opd_json_text key;
    opd_json_object_begin(json);
    while (opd_json_object_next(json, &key)) {
        if (opd_json_text_is(key, "id") && opd_json_peek(json) == OPD_JSON_STRING) {
            if (!opd_json_read_string(json, info->model_path, sizeof info->model_path)) return;
        } else if (opd_json_text_is(key, "max_model_len") && opd_json_peek(json) == OPD_JSON_NUMBER) {
            opd_json_read_int64(json, &info->context_size);
        } else {
            opd_json_skip(json);
        }
    }
}

opd_err opd_vllm_models_read(const char *body, size_t size_bytes, opd_sglang_model_info *out_info) {
    opd_sglang_model_info info = {.vocab_size = -1, .bos_id = -1, .eos_id = -1, .pad_id = -1, .context_size = -1};
    opd_json json;
    opd_json_text key;
    bool first = true;
    opd_json_init(&json, body, size_bytes);
    opd_json_object_begin(&json);
    while (opd_json_object_next(&json, &key)) {
        if (!opd_json_text_is(key, "data") || opd_json_peek(&json) != OPD_JSON_ARRAY) {
            opd_json_skip(&json);
            continue;
        }
        opd_json_array_begin(&json);
        for (; opd_json_array_next(&json); first = false) {
            if (first && opd_json_peek(&json) == OPD_JSON_OBJECT) read_model(&json, &info);
            else opd_json_skip(&json);
        }
    }
    OPD_TRY(opd_err_prefix(opd_json_finish(&json), "/v1/models"));
    *out_info = info;
    return OPD_OK;
}
