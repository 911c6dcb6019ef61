/* score_oracle.c - see score_oracle.h. */
#include "tests/support/score_oracle.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/check.h"

#define LOGP_MAX 1e-4f
#define LOGP_MIN -1e30f

enum { WORD_SIZE = 512, MEMBERS = 15 };

static const char *const names[MEMBERS] = {
    "input_token_logprobs", "input_top_logprobs", "input_top_logprobs_val_flat",
    "input_top_logprobs_idx_flat", "input_top_logprobs_val_flat_b64",
    "input_top_logprobs_idx_flat_b64", "input_top_logprobs_val_flat_b64_dtype",
    "input_top_logprobs_idx_flat_b64_dtype", "input_top_logprobs_shape",
    "input_top_logprobs_null_prefix", "finish_reason", "prompt_tokens", "cached_tokens",
    "weight_version", "id"};
enum { ROWS, TOP, VAL, IDX, VAL64, IDX64, VAL_TYPE, IDX_TYPE, SHAPE, PREFIX, FINISH, PROMPT, CACHED, VERSION, RID };

typedef struct reading {
    opd_json *json;
    const opd_sglang_score *score;
    size_t rows_wanted, k; /* R + 1 */
    float *logp;           /* [R + 1]    */
    float *top_logp;       /* [R + 1, k] */
    int64_t *top_id;       /* [R + 1, k] */
    float *val;            /* [R, k]     */
    int64_t *idx;
    int64_t prompt, cached, rows, top_rows, prefix, shape[2];
    size_t val_count, idx_count, shape_count;
    bool seen[MEMBERS], given[MEMBERS], wrong;
    char type[WORD_SIZE], message[WORD_SIZE], val_type[16], idx_type[16], version[OPD_SGLANG_NAME_SIZE];
} reading;

static bool usable(float v) { return v <= LOGP_MAX && v >= LOGP_MIN; }

static void read_cut(opd_json *json, char *out, size_t out_size) {
    char *text;
    size_t size;
    if (opd_json_peek(json) != OPD_JSON_STRING) {
        opd_json_skip(json);
        return;
    }
    if (!opd_json_read_dup(json, NULL, &text, &size)) return;
    if (size >= out_size) size = out_size - 1;
    for (size_t i = 0; i < size; i++)
        out[i] = (unsigned char)text[i] < 0x20 || text[i] == 0x7F ? ' ' : text[i];
    out[size] = '\0';
    opd_mem_free(NULL, text);
}

/* A number or null; NAN where it is none that fits. */
static float read_logp(opd_json *json) {
    opd_json mark = *json;
    float value = NAN;
    if (opd_json_peek(json) != OPD_JSON_NUMBER) {
        opd_json_read_null(json);
    } else if (!opd_json_read_float(json, &value)) {
        *json = mark;
        opd_json_skip(json);
        return NAN;
    }
    return value;
}

static bool read_triple(opd_json *json, float *out_logp, int64_t *out_id) {
    if (!opd_json_array_begin(json) || !opd_json_array_next(json)) return opd_json_error(json, "triple");
    *out_logp = read_logp(json);
    if (!opd_json_array_next(json)) return opd_json_error(json, "triple");
    opd_json_read_int64(json, out_id);
    if (opd_json_array_next(json)) {
        opd_json_skip(json);
        if (opd_json_array_next(json)) return opd_json_error(json, "triple");
    }
    return json->error == NULL;
}

static void read_rows(reading *r) {
    opd_json_array_begin(r->json);
    for (; opd_json_array_next(r->json); r->rows++) {
        float logp;
        int64_t id;
        if (!read_triple(r->json, &logp, &id) || (size_t)r->rows >= r->rows_wanted) continue;
        int32_t sent = r->score->ids[r->score->prompt_count - 1 + (size_t)r->rows];
        bool zero = id == 0 && (r->score->vocab_size <= 0 || sent >= r->score->vocab_size - 1);
        if (id != sent && !zero) r->wrong = true;
        r->logp[r->rows] = logp;
    }
}

static void read_top(reading *r) {
    opd_json_array_begin(r->json);
    for (; opd_json_array_next(r->json); r->top_rows++) {
        bool ours = (size_t)r->top_rows < r->rows_wanted;
        if (opd_json_peek(r->json) == OPD_JSON_NULL) {
            opd_json_read_null(r->json);
            continue;
        }
        opd_json_array_begin(r->json);
        for (size_t i = 0; opd_json_array_next(r->json); i++) {
            float logp;
            int64_t id;
            if (!read_triple(r->json, &logp, &id)) return;
            if (i >= r->k) {
                opd_json_error(r->json, "too many");
                return;
            }
            if (!ours) continue;
            r->top_logp[(size_t)r->top_rows * r->k + i] = logp;
            r->top_id[(size_t)r->top_rows * r->k + i] = id;
        }
    }
}

static void read_flat(reading *r, bool ids) {
    size_t max = (r->rows_wanted - 1) * r->k, *count = ids ? &r->idx_count : &r->val_count;
    opd_json_array_begin(r->json);
    while (opd_json_array_next(r->json)) {
        int64_t id = -1;
        float logp = 0;
        if (!ids) logp = read_logp(r->json);
        else if (opd_json_peek(r->json) == OPD_JSON_NULL) opd_json_read_null(r->json);
        else opd_json_read_int64(r->json, &id);
        if (*count >= max) {
            opd_json_error(r->json, "too many");
            return;
        }
        if (ids) r->idx[(*count)++] = id;
        else r->val[(*count)++] = logp;
    }
}

/* Decodes by search in the alphabet; false where it is not canonical. */
static bool decode64(opd_json_text text, uint8_t *out, size_t max, size_t *out_size) {
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t pads = 0, size = 0;
    if (text.escaped || text.size_bytes % 4 != 0) return false;
    while (pads < 3 && pads < text.size_bytes && text.data[text.size_bytes - 1 - pads] == '=') pads++;
    if (pads > 2) return false;
    for (size_t i = 0; i < text.size_bytes; i += 4) {
        uint32_t bits = 0;
        size_t take = i + 4 == text.size_bytes ? 3 - pads : 3;
        for (size_t j = 0; j < 4; j++) {
            bool pad = i + j >= text.size_bytes - pads;
            const char *at = pad ? alphabet : memchr(alphabet, text.data[i + j], 64);
            if (at == NULL) return false;
            bits = bits << 6 | (uint32_t)(at - alphabet);
        }
        for (size_t j = 0; j < 3; j++) {
            uint8_t byte = (uint8_t)(bits >> (16 - 8 * j));
            if (j >= take && byte != 0) return false;
            if (j < take && size >= max) return false;
            if (j < take) out[size++] = byte;
        }
    }
    *out_size = size;
    return true;
}

static void read_flat64(reading *r, bool ids) {
    size_t max = (r->rows_wanted - 1) * r->k * 4, size = 0;
    uint8_t *bytes = malloc(max + 1);
    opd_json_text text;
    if (bytes == NULL) abort();
    if (opd_json_read_text(r->json, &text) && !decode64(text, bytes, max, &size))
        opd_json_error(r->json, "no base64");
    for (size_t i = 0; i < size / 4; i++) {
        int32_t id;
        memcpy(&id, bytes + 4 * i, 4);
        if (ids) r->idx[i] = id;
        else memcpy(&r->val[i], bytes + 4 * i, 4);
    }
    *(ids ? &r->idx_count : &r->val_count) = size % 4 == 0 ? size / 4 : SIZE_MAX;
    free(bytes);
}

static void read_shape(reading *r) {
    opd_json_array_begin(r->json);
    while (opd_json_array_next(r->json)) {
        if (r->shape_count == 2) {
            opd_json_error(r->json, "shape");
            return;
        }
        int64_t *to = &r->shape[r->shape_count++];
        if (opd_json_peek(r->json) == OPD_JSON_NULL) opd_json_read_null(r->json);
        else opd_json_read_int64(r->json, to);
    }
}

static void read_finish(reading *r) {
    static const char *const keys[] = {"type", "message", "matched"};
    bool seen[3] = {false};
    opd_json_text key;
    opd_json_object_begin(r->json);
    while (opd_json_object_next(r->json, &key)) {
        int found = -1;
        for (int i = 0; i < 3; i++)
            if (opd_json_text_is(key, keys[i])) found = i;
        if (found >= 0 && seen[found]) opd_json_error(r->json, "twice");
        if (found < 0) opd_json_skip(r->json);
        else if (found == 0) read_cut(r->json, r->type, 32);
        else read_cut(r->json, r->message, sizeof r->message);
        if (found >= 0) seen[found] = true;
    }
}

static void read_member(reading *r, int member) {
    char rid[OPD_SGLANG_NAME_SIZE];
    if (member == RID) {
        read_cut(r->json, rid, sizeof rid);
    } else if (member == VERSION) {
        read_cut(r->json, r->version, sizeof r->version);
    } else if (member == VAL_TYPE || member == IDX_TYPE) {
        read_cut(r->json, member == VAL_TYPE ? r->val_type : r->idx_type, 16);
    } else if (opd_json_peek(r->json) == OPD_JSON_NULL) {
        opd_json_read_null(r->json);
        if (member == ROWS) r->rows = 0;
    } else {
        r->given[member] = true;
        switch (member) {
        case ROWS: r->rows = 0; read_rows(r); break;
        case TOP: read_top(r); break;
        case VAL: case IDX: read_flat(r, member == IDX); break;
        case VAL64: case IDX64: read_flat64(r, member == IDX64); break;
        case SHAPE: read_shape(r); break;
        case FINISH: read_finish(r); break;
        case PREFIX: opd_json_read_int64(r->json, &r->prefix); break;
        case PROMPT: opd_json_read_int64(r->json, &r->prompt); break;
        default: opd_json_read_int64(r->json, &r->cached); break;
        }
    }
}

static void read_meta(reading *r) {
    opd_json_text key;
    opd_json_object_begin(r->json);
    while (opd_json_object_next(r->json, &key)) {
        int found = -1;
        for (int i = 0; i < MEMBERS; i++)
            if (opd_json_text_is(key, names[i])) found = i;
        if (found >= 0 && r->seen[found]) opd_json_error(r->json, "twice");
        if (found >= 0) r->seen[found] = true;
        if (found >= TOP && found <= PREFIX && r->k == 0) found = -1;
        if (found < 0) opd_json_skip(r->json);
        else read_member(r, found);
    }
}

static bool flat_right(const reading *r, bool base64) {
    int64_t rows = (int64_t)r->rows_wanted - 1, k = (int64_t)r->k;
    size_t count = (size_t)(rows * k);
    if (r->shape_count != 2 || r->shape[1] != k || r->prefix != 1) return false;
    if (r->shape[0] != rows && r->shape[0] != rows + 1) return false;
    if (base64 && (strcmp(r->val_type, "float32") != 0 || strcmp(r->idx_type, "int32") != 0)) return false;
    return r->val_count == count && r->idx_count == count;
}

static opd_err verdict(const reading *r) {
    if (strcmp(r->type, "abort") == 0 || (strcmp(r->type, "stop") == 0 && strcmp(r->message, "NaN happened") == 0))
        return opd_fail(OPD_ERR_REMOTE, "abort");
    bool nested = r->given[TOP], flat = r->given[VAL], base64 = r->given[VAL64];
    if (r->type[0] == '\0' || r->prompt != (int64_t)r->score->count || r->wrong ||
        r->rows != (int64_t)r->rows_wanted || flat != r->given[IDX] || base64 != r->given[IDX64] ||
        nested + flat + base64 > 1 || (nested && r->top_rows != (int64_t)r->rows_wanted) ||
        ((flat || base64) && !flat_right(r, base64)))
        return opd_fail(OPD_ERR_PROTO, "refused");
    return OPD_OK;
}

static void hand_over(const reading *r, opd_sglang_scores *out) {
    bool flat = r->given[VAL] || r->given[VAL64];
    int64_t id_max = r->score->vocab_size > 0 ? r->score->vocab_size - 1 : INT32_MAX;
    out->valid_count = 0;
    for (size_t t = 0; t + 1 < r->rows_wanted; t++) {
        out->valid[t] = usable(r->logp[t + 1]);
        out->logp[t] = out->valid[t] ? r->logp[t + 1] : 0;
        out->valid_count += out->valid[t];
        bool ended = false;
        for (size_t j = 0; j < r->k; j++) {
            float logp = flat ? r->val[t * r->k + j] : r->top_logp[(t + 1) * r->k + j];
            int64_t id = flat ? r->idx[t * r->k + j] : r->top_id[(t + 1) * r->k + j];
            ended = ended || !usable(logp) || id < 0 || id > id_max;
            out->topk_ids[t * r->k + j] = ended ? -1 : (int32_t)id;
            out->topk_logps[t * r->k + j] = ended ? 0 : logp;
        }
    }
    out->cached_count = r->cached > 0 ? (size_t)r->cached : 0;
    memcpy(out->weight_version, r->version, sizeof out->weight_version);
}

static opd_err read_all(reading *r, const char *body, size_t size_bytes) {
    opd_json json;
    opd_json_text key;
    bool met = false;
    r->json = &json;
    opd_json_init(&json, body, size_bytes);
    opd_json_object_begin(&json);
    while (opd_json_object_next(&json, &key)) {
        bool meta = opd_json_text_is(key, "meta_info");
        if (meta && met) opd_json_error(&json, "twice");
        met = met || meta;
        if (meta) read_meta(r);
        else opd_json_skip(&json);
    }
    return opd_json_finish(&json);
}

opd_err opd_test_score_oracle(const char *body, size_t size_bytes, const opd_sglang_score *score,
                              opd_sglang_scores *out_scores) {
    reading r = {.score = score, .k = (size_t)score->top_k, .prompt = -1, .cached = -1, .rows = -1,
                 .prefix = -1, .rows_wanted = score->count - score->prompt_count + 1};
    size_t cells = r.rows_wanted * (r.k + 1);
    float *numbers = calloc(3 * cells, sizeof *numbers);
    int64_t *ids = calloc(2 * cells, sizeof *ids);
    if (numbers == NULL || ids == NULL) abort();
    memset(ids, 0xFF, 2 * cells * sizeof *ids); /* -1: no alternative */
    r.logp = numbers;
    r.top_logp = numbers + cells;
    r.val = numbers + 2 * cells;
    r.top_id = ids;
    r.idx = ids + cells;
    opd_err err = read_all(&r, body, size_bytes);
    if (err != OPD_OK) err = opd_err_prefix(OPD_ERR_PROTO, "no answer");
    else err = verdict(&r);
    if (err == OPD_OK) hand_over(&r, out_scores);
    free(numbers);
    free(ids);
    return err;
}
