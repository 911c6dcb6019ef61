/* transports/sglang_request.c - reads and checks a /generate request (sglang.h).
 *
 * Invariants: nothing is believed before it is checked against the limits; a field that
 * would change the answer and is not supported is refused by name, one that would not is
 * ignored. null means "use the default" everywhere, as in SGLang.
 * Thread: any. Memory: the request owns its items; on error it is emptied here.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/base/check.h"
#include "transports/sglang.h"

static const opd_sglang_ask ask_default = {.logprob_start = -1, .skip_special_tokens = true, .max_new_tokens = 128,
                                           .temperature = 1, .top_p = 1};

/* Fields that are one value for a batch or a list with one for each sequence: read once these are known. */
typedef enum per_item { RETURN_LOGPROB, LOGPROB_START, TOP_LOGPROBS, SAMPLING, PER_ITEM_COUNT } per_item;

typedef struct reading {
    opd_json *json;
    opd_sglang_generate *request;
    const opd_sglang_limits *limits;
    opd_sglang_ask *ask; /* of the sequence whose fields are read, or nowhere */
    opd_sglang_ask nowhere;
    opd_json marks[PER_ITEM_COUNT]; /* bookmarks at their values */
    opd_json spread; /* the one that is read from one of these */
    bool has[PER_ITEM_COUNT];
    opd_json rids; /* bookmark at the value of "rid" */
    bool has_rids, has_ids, has_text;
    opd_err err; /* first refusal; its text is the thread's context */
} reading;

static void refuse(reading *r, opd_err err) {
    if (r->err == OPD_OK) r->err = err;
}

/* Consumes a null, which leaves the default. */
static bool is_null(opd_json *json) {
    return opd_json_peek(json) == OPD_JSON_NULL && opd_json_read_null(json);
}

static void read_int(reading *r, const char *name, int64_t low, int64_t high, int32_t *out) {
    int64_t value;
    if (is_null(r->json) || !opd_json_read_int64(r->json, &value)) return;
    if (value < low || value > high)
        refuse(r, opd_fail(OPD_ERR_INVALID, "%s must be between %lld and %lld, got %lld", name,
                           (long long)low, (long long)high, (long long)value));
    else *out = (int32_t)value;
}

static void read_flag(reading *r, bool *out) {
    if (!is_null(r->json)) opd_json_read_bool(r->json, out);
}

/* A feature that is not here: null, false, 0, "", [], {} and, in a batch, a list of such but 0 do not ask for it. */
static void read_absent(reading *r, opd_json_text name, double neutral) {
    const char *data;
    size_t size;
    double number;
    opd_json mark;
    switch (opd_json_peek(r->json)) {
        case OPD_JSON_NULL: opd_json_read_null(r->json); return;
        case OPD_JSON_ARRAY:
            opd_json_array_begin(r->json);
            while (r->err == OPD_OK && opd_json_array_next(r->json)) read_absent(r, name, NAN);
            return;
        case OPD_JSON_NUMBER:
            if (opd_json_read_double(r->json, &number) && (number == neutral || (number == 0 && !isnan(neutral)))) return;
            break;
        default:
            mark = *r->json;
            if (!opd_json_raw(r->json, &data, &size)) return;
            if (opd_json_peek(&mark) == OPD_JSON_BOOL && data[0] == 'f') return;
            if (size == 2) return; /* "" or {} */
            break;
    }
    refuse(r, opd_fail(OPD_ERR_UNSUPPORTED, "%.*s is not supported by this server",
                       (int)name.size_bytes, name.data));
}

static bool is_one_of(opd_json_text key, const char *const *names, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (opd_json_text_is(key, names[i])) return true;
    return false;
}

/* ---- sampling_params ---- */

static void read_temperature(reading *r) {
    double value;
    if (is_null(r->json) || !opd_json_read_double(r->json, &value)) return;
    if (!(value >= 0))
        refuse(r, opd_fail(OPD_ERR_INVALID, "temperature must be non-negative, got %g", value));
    r->ask->temperature = value < 1e-6 ? 0 : value; /* greedy, as in SGLang */
}

static void read_top_p(reading *r) {
    double value;
    if (is_null(r->json) || !opd_json_read_double(r->json, &value)) return;
    if (!(value > 0 && value <= 1))
        refuse(r, opd_fail(OPD_ERR_INVALID, "top_p must be in (0, 1], got %g", value));
    r->ask->top_p = value;
}

static void read_top_k(reading *r) {
    int32_t value = -1;
    read_int(r, "top_k", -1, INT32_MAX, &value);
    if (value == 0) refuse(r, opd_fail(OPD_ERR_INVALID, "top_k must be -1 (all) or at least 1, got 0"));
    r->ask->top_k = value > 0 ? value : 0;
}

static void read_seed(reading *r) {
    if (!is_null(r->json)) r->ask->seeded = opd_json_read_int64(r->json, &r->ask->seed);
}

/* Only counted: the server refuses them by name. */
static void read_one_stop(reading *r) {
    opd_json mark = *r->json;
    const char *data;
    size_t size = 0;
    if (opd_json_peek(&mark) != OPD_JSON_STRING) opd_json_error(r->json, "expected a string");
    else if (opd_json_raw(r->json, &data, &size)) r->ask->stop_count++;
    if (r->json->error == NULL && size == 2) refuse(r, opd_fail(OPD_ERR_INVALID, "a stop string is empty"));
}

static void read_one_stop_id(reading *r) {
    opd_sglang_ask *q = r->ask;
    if (q->stop_id_count == OPD_SGLANG_STOP_MAX) {
        opd_json_skip(r->json);
        refuse(r, opd_fail(OPD_ERR_LIMIT, "more than %d stop_token_ids", OPD_SGLANG_STOP_MAX));
        return;
    }
    read_int(r, "stop_token_ids", 0, (int64_t)r->limits->vocab_size - 1, &q->stop_ids[q->stop_id_count++]);
}

/* One value or a list of them. */
static void read_one_or_list(reading *r, void (*read_one)(reading *r)) {
    if (is_null(r->json)) return;
    if (opd_json_peek(r->json) != OPD_JSON_ARRAY) {
        read_one(r);
        return;
    }
    opd_json_array_begin(r->json);
    while (opd_json_array_next(r->json)) read_one(r);
}

static void read_sampling_field(reading *r, opd_json_text key) {
    static const char *const absent[] = {"min_p", "frequency_penalty", "presence_penalty", "stop_regex",
                                         "json_schema", "regex", "ebnf", "structural_tag", "logit_bias",
                                         "custom_params", "no_stop_trim"};
    opd_sglang_ask *q = r->ask;
    if (opd_json_text_is(key, "max_new_tokens")) read_int(r, "max_new_tokens", 0, INT32_MAX, &q->max_new_tokens);
    else if (opd_json_text_is(key, "min_new_tokens")) read_int(r, "min_new_tokens", 0, INT32_MAX, &q->min_new_tokens);
    else if (opd_json_text_is(key, "temperature")) read_temperature(r);
    else if (opd_json_text_is(key, "top_p")) read_top_p(r);
    else if (opd_json_text_is(key, "top_k")) read_top_k(r);
    else if (opd_json_text_is(key, "sampling_seed")) read_seed(r);
    else if (opd_json_text_is(key, "ignore_eos")) read_flag(r, &q->ignore_eos);
    else if (opd_json_text_is(key, "skip_special_tokens")) read_flag(r, &q->skip_special_tokens);
    else if (opd_json_text_is(key, "stop")) read_one_or_list(r, read_one_stop);
    else if (opd_json_text_is(key, "stop_token_ids")) read_one_or_list(r, read_one_stop_id);
    else if (opd_json_text_is(key, "n") || opd_json_text_is(key, "repetition_penalty")) read_absent(r, key, 1);
    else if (is_one_of(key, absent, OPD_COUNTOF(absent))) read_absent(r, key, 0);
    else opd_json_skip(r->json);
}

static void read_sampling(reading *r) {
    opd_json_text key;
    if (is_null(r->json)) return;
    opd_json_object_begin(r->json);
    while (opd_json_object_next(r->json, &key)) read_sampling_field(r, key);
}

/* ---- the sequences ---- */

static opd_sglang_item *add_item(reading *r) {
    opd_sglang_generate *q = r->request;
    if (q->item_count == OPD_SGLANG_BATCH_MAX) {
        refuse(r, opd_fail(OPD_ERR_LIMIT, "a batch of more than %d sequences", OPD_SGLANG_BATCH_MAX));
        return NULL;
    }
    void *grown = opd_mem_resize(q->alloc, q->items, (q->item_count + 1) * sizeof *q->items);
    if (grown == NULL) {
        refuse(r, opd_fail(OPD_ERR_NOMEM, "no memory for the request"));
        return NULL;
    }
    q->items = grown;
    opd_sglang_item *item = &q->items[q->item_count++];
    *item = (opd_sglang_item){.ask = ask_default};
    return item;
}

/* How many ids follow inside the open array; the cursor stays. */
static size_t count_ids(const opd_json *json) {
    opd_json ahead = *json;
    int64_t id;
    size_t count = 0;
    while (opd_json_array_next(&ahead) && opd_json_read_int64(&ahead, &id)) count++;
    return count;
}

/* The ids of an array that is already open. */
static void read_ids(reading *r) {
    opd_sglang_item *item = add_item(r);
    int64_t id;
    size_t count = count_ids(r->json);
    if (item == NULL) return;
    item->ids = opd_mem_get(r->request->alloc, (count + 1) * sizeof *item->ids);
    if (item->ids == NULL) {
        refuse(r, opd_fail(OPD_ERR_NOMEM, "no memory for %zu input ids", count));
        return;
    }
    while (opd_json_array_next(r->json)) {
        if (!opd_json_read_int64(r->json, &id)) return;
        if (id < 0 || id >= r->limits->vocab_size)
            refuse(r, opd_fail(OPD_ERR_INVALID, "input_ids: %lld is outside the vocabulary of %d ids",
                               (long long)id, (int)r->limits->vocab_size));
        OPD_ASSERT(item->count < count);
        item->ids[item->count++] = (int32_t)(id & INT32_MAX);
    }
    if (item->count == 0) refuse(r, opd_fail(OPD_ERR_INVALID, "input_ids cannot be empty"));
}

static void read_input_ids(reading *r) {
    if (is_null(r->json) || !opd_json_array_begin(r->json)) return;
    opd_json ahead = *r->json;
    r->has_ids = true;
    r->request->batch = opd_json_array_next(&ahead) && opd_json_peek(&ahead) == OPD_JSON_ARRAY;
    if (!r->request->batch) {
        read_ids(r);
        return;
    }
    while (r->err == OPD_OK && opd_json_array_next(r->json))
        if (opd_json_array_begin(r->json)) read_ids(r);
}

static void read_one_text(reading *r) {
    opd_sglang_item *item = r->err == OPD_OK ? add_item(r) : NULL;
    if (item == NULL) {
        opd_json_skip(r->json);
        return;
    }
    if (!opd_json_read_dup(r->json, r->request->alloc, &item->text, &item->text_size_bytes)) return;
    if (item->text_size_bytes == 0) refuse(r, opd_fail(OPD_ERR_INVALID, "text cannot be empty"));
}

static void read_text(reading *r) {
    if (is_null(r->json)) return;
    r->has_text = true;
    r->request->batch = opd_json_peek(r->json) == OPD_JSON_ARRAY;
    if (!r->limits->tokenizer) {
        opd_json_skip(r->json);
        refuse(r, opd_fail(OPD_ERR_UNSUPPORTED, "text needs a tokenizer, which this server has none of; send input_ids"));
        return;
    }
    read_one_or_list(r, read_one_text);
}

/* ---- the request ---- */

static const char *const per_item_names[] = {"return_logprob", "logprob_start_len", "top_logprobs_num", "sampling_params"};

/* Whether it is a field of that kind; its value is then passed over. */
static bool mark_per_item(reading *r, opd_json_text key) {
    for (int i = 0; i < PER_ITEM_COUNT; i++) {
        if (!opd_json_text_is(key, per_item_names[i])) continue;
        (void)opd_json_peek(r->json);
        r->marks[i] = *r->json;
        r->has[i] = true;
        opd_json_skip(r->json);
        return true;
    }
    return false;
}

static void read_field(reading *r, opd_json_text key) {
    static const char *const absent[] = {"input_embeds", "token_ids_logprob", "image_data", "video_data",
                                         "audio_data", "return_hidden_states", "return_routed_experts",
                                         "lora_path", "custom_logit_processor", "session_params", "stream",
                                         "return_text_in_logprobs"};
    opd_sglang_generate *q = r->request;
    if ((opd_json_text_is(key, "input_ids") || opd_json_text_is(key, "text")) && q->item_count > 0) {
        if (!is_null(r->json)) {
            opd_json_skip(r->json);
            refuse(r, opd_fail(OPD_ERR_INVALID, "either text or input_ids should be provided, once"));
        }
    } else if (opd_json_text_is(key, "input_ids")) {
        read_input_ids(r);
    } else if (opd_json_text_is(key, "text")) {
        read_text(r);
    } else if (mark_per_item(r, key)) {
        return;
    } else if (opd_json_text_is(key, "return_flat_raw_top_logprobs")) {
        read_flag(r, &q->flat);
    } else if (opd_json_text_is(key, "return_flat_raw_top_logprobs_b64")) {
        read_flag(r, &q->flat_base64);
    } else if (opd_json_text_is(key, "rid")) {
        (void)opd_json_peek(r->json);
        r->rids = *r->json;
        r->has_rids = opd_json_peek(r->json) != OPD_JSON_NULL;
        opd_json_skip(r->json);
    } else if (is_one_of(key, absent, OPD_COUNTOF(absent))) {
        read_absent(r, key, 0);
    } else {
        opd_json_skip(r->json);
    }
}

/* rid: one string ("rid_0", "rid_1", ... for the members of a batch) or one for each. */
static void read_rids(reading *r) {
    opd_sglang_generate *q = r->request;
    opd_json *json = &r->rids;
    size_t i = 0;
    if (opd_json_peek(json) != OPD_JSON_ARRAY) {
        char base[OPD_SGLANG_NAME_SIZE - 24]; /* room for "_" and a number */
        if (!opd_json_read_string(json, base, sizeof base)) return;
        for (; i < q->item_count; i++) {
            if (q->batch) (void)snprintf(q->items[i].rid, OPD_SGLANG_NAME_SIZE, "%s_%zu", base, i);
            else (void)snprintf(q->items[i].rid, OPD_SGLANG_NAME_SIZE, "%s", base);
        }
        return;
    }
    opd_json_array_begin(json);
    for (; opd_json_array_next(json); i++) {
        if (i == q->item_count) {
            opd_json_error(json, "more rids than sequences");
            return;
        }
        opd_json_read_string(json, q->items[i].rid, OPD_SGLANG_NAME_SIZE);
        for (size_t j = 0; j < i; j++)
            if (json->error == NULL && strcmp(q->items[j].rid, q->items[i].rid) == 0)
                refuse(r, opd_fail(OPD_ERR_INVALID, "Duplicate request ID: %s", q->items[i].rid));
    }
    if (json->error == NULL && i != q->item_count) opd_json_error(json, "fewer rids than sequences");
}

opd_err opd_sglang_length_check(const opd_sglang_limits *limits, const opd_sglang_ask *ask, size_t count) {
    size_t context = (size_t)limits->context_size, wanted = (size_t)ask->max_new_tokens;
    if (count >= context)
        return opd_fail(OPD_ERR_INVALID, "The input (%zu tokens) is longer than the model's context length (%zu tokens).",
                        count, context);
    if (wanted > context - count)
        return opd_fail(OPD_ERR_INVALID, "Requested token count exceeds the model's maximum context length of %zu tokens: "
                        "%zu in the input, %zu to generate.", context, count, wanted);
    if (ask->return_logprob && ask->logprob_start > 0 && (size_t)ask->logprob_start > count)
        return opd_fail(OPD_ERR_INVALID, "logprob_start_len (%d) is higher than the number of input tokens (%zu)",
                        (int)ask->logprob_start, count);
    return OPD_OK;
}

static void read_per_item(reading *r, per_item field) {
    switch (field) {
        case RETURN_LOGPROB: read_flag(r, &r->ask->return_logprob); break;
        case LOGPROB_START: read_int(r, "logprob_start_len", -1, INT32_MAX, &r->ask->logprob_start); break;
        case TOP_LOGPROBS: read_int(r, "top_logprobs_num", 0, OPD_SGLANG_TOP_MAX, &r->ask->top_logprobs); break;
        default: read_sampling(r); break;
    }
}

/* One value, read for each sequence again, or a list of one for each. Without sequences into nowhere, for its errors. */
static opd_err spread(reading *r, per_item field) {
    const char *name = per_item_names[field];
    r->nowhere = ask_default;
    opd_json *json = r->json = &r->spread;
    opd_sglang_generate *q = r->request;
    *json = r->marks[field];
    bool list = opd_json_peek(json) == OPD_JSON_ARRAY;
    size_t count = q->item_count > 0 ? q->item_count : 1;
    if (list && !q->batch) return opd_fail(OPD_ERR_INVALID, "%s: a list is for a batch; this is one sequence", name);
    if (list) opd_json_array_begin(json);
    for (size_t i = 0; i < count; i++) {
        if (!list) *json = r->marks[field];
        else if (!opd_json_array_next(json))
            return opd_fail(OPD_ERR_INVALID, "%s: %zu values for %zu sequences", name, i, count);
        r->ask = q->item_count > 0 ? &q->items[i].ask : &r->nowhere;
        read_per_item(r, field);
        OPD_TRY(r->err);
        OPD_TRY(opd_json_status(json));
    }
    if (list && opd_json_array_next(json))
        return opd_fail(OPD_ERR_INVALID, "%s: more values than sequences (%zu)", name, count);
    return OPD_OK;
}

static opd_err check_ask(const opd_sglang_limits *limits, const opd_sglang_item *item) {
    const opd_sglang_ask *q = &item->ask;
    if (q->top_logprobs > limits->vocab_size)
        return opd_fail(OPD_ERR_INVALID, "top_logprobs_num %d is larger than the vocabulary of %d ids",
                        (int)q->top_logprobs, (int)limits->vocab_size);
    if (q->min_new_tokens > q->max_new_tokens)
        return opd_fail(OPD_ERR_INVALID, "min_new_tokens %d is larger than max_new_tokens %d",
                        (int)q->min_new_tokens, (int)q->max_new_tokens);
    return item->ids != NULL ? opd_sglang_length_check(limits, q, item->count) : OPD_OK;
}

static opd_err check_request(reading *r) {
    const opd_sglang_generate *q = r->request;
    for (int i = 0; i < PER_ITEM_COUNT; i++)
        if (r->has[i]) OPD_TRY(spread(r, (per_item)i));
    if (!r->has_ids && !r->has_text)
        return opd_fail(OPD_ERR_INVALID, "Either text or input_ids should be provided.");
    if (q->item_count == 0) return opd_fail(OPD_ERR_INVALID, "the batch is empty");
    if (q->flat_base64 && !q->flat)
        return opd_fail(OPD_ERR_INVALID, "return_flat_raw_top_logprobs_b64 needs return_flat_raw_top_logprobs");
    for (size_t i = 0; i < q->item_count; i++) OPD_TRY(check_ask(r->limits, &q->items[i]));
    if (r->has_rids) {
        read_rids(r);
        OPD_TRY(opd_err_prefix(opd_json_status(&r->rids), "rid"));
    }
    return r->err;
}

static opd_err read_request(reading *r) {
    opd_json_text key;
    opd_json_object_begin(r->json);
    while (r->err == OPD_OK && opd_json_object_next(r->json, &key)) read_field(r, key);
    if (r->err != OPD_OK) return r->err;
    OPD_TRY(opd_json_finish(r->json));
    return check_request(r);
}

opd_err opd_sglang_generate_read(const char *body, size_t size_bytes, const opd_sglang_limits *limits,
                                 const opd_alloc *alloc, opd_sglang_generate *out_request) {
    opd_json json;
    reading r = {.json = &json, .request = out_request, .limits = limits, .err = OPD_OK};
    *out_request = (opd_sglang_generate){.alloc = alloc};
    opd_json_init(&json, body, size_bytes);
    opd_err err = read_request(&r);
    if (err != OPD_OK) opd_sglang_generate_fini(out_request);
    return err;
}

void opd_sglang_generate_fini(opd_sglang_generate *request) {
    for (size_t i = 0; i < request->item_count; i++) {
        opd_mem_free(request->alloc, request->items[i].ids);
        opd_mem_free(request->alloc, request->items[i].text);
    }
    opd_mem_free(request->alloc, request->items);
    request->items = NULL;
    request->item_count = 0;
}
