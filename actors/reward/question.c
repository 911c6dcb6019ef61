/* question.c - see question.h. No state, any thread. */
#include "actors/reward/question.h"

#include <math.h>
#include <string.h>

#include "core/base/check.h"
#include "core/codec/json.h"
#include "core/codec/msgpack.h"

enum { HEADER_BYTES = 5, MEMBERS = 5 }; /* of msgpack: the longest header of a string; of the map */

/* ---- requests ---- */

static void put_string(opd_str *out, const char *text, size_t size) {
    uint8_t head[HEADER_BYTES];
    opd_mp_writer w;
    opd_mp_writer_init(&w, head, sizeof head);
    opd_mp_write_str_head(&w, size);
    opd_str_append(out, head, w.size);
    opd_str_append(out, text, size);
}

/* A JSON string as a msgpack one. It is written behind the longest header, then moved to its own. */
static void put_unescaped(opd_str *out, const opd_str *json) {
    opd_json_text text = {json->data + 1, json->size - 2, true};
    opd_mp_writer w;
    char *room = opd_str_room(out, HEADER_BYTES + text.size_bytes);
    if (room == NULL) return;
    size_t size = opd_json_text_unescape(text, room + HEADER_BYTES);
    opd_mp_writer_init(&w, room, HEADER_BYTES);
    opd_mp_write_str_head(&w, size);
    memmove(room + w.size, room + HEADER_BYTES, size);
    opd_str_extend(out, w.size + size);
}

static void write_msgpack(opd_reward_question *question, const opd_str *prompt,
                          const opd_str *const *responses, const opd_str *label, const char *source) {
    opd_str *out = &question->request;
    uint8_t begin[32];
    opd_mp_writer w;
    opd_mp_writer_init(&w, begin, sizeof begin);
    opd_mp_write_map(&w, MEMBERS);
    opd_mp_write_cstr(&w, "id");
    opd_mp_write_u64(&w, question->id);
    opd_mp_write_cstr(&w, "prompt");
    opd_str_append(out, begin, w.size);
    put_unescaped(out, prompt);
    opd_mp_writer_init(&w, begin, sizeof begin);
    opd_mp_write_cstr(&w, question->group ? "responses" : "response");
    if (question->group) opd_mp_write_array(&w, question->count);
    opd_str_append(out, begin, w.size);
    for (uint32_t i = 0; i < question->count; i++) put_unescaped(out, responses[i]);
    put_string(out, "label", 5);
    put_unescaped(out, label);
    put_string(out, "source", 6);
    put_string(out, source, strlen(source));
}

void opd_reward_question_write(opd_reward_question *question, const opd_str *prompt,
                               const opd_str *const *responses, const opd_str *label,
                               const char *source) {
    opd_json_writer w;
    opd_str_clear(&question->request);
    if (question->msgpack) {
        write_msgpack(question, prompt, responses, label, source);
        return;
    }
    opd_json_writer_init(&w, &question->request, 0);
    opd_json_write_object_begin(&w);
    opd_json_write_key(&w, "id");
    opd_json_write_int64(&w, (int64_t)question->id);
    opd_json_write_key(&w, "prompt");
    opd_json_write_raw(&w, prompt->data, prompt->size);
    opd_json_write_key(&w, question->group ? "responses" : "response");
    if (question->group) opd_json_write_array_begin(&w);
    for (uint32_t i = 0; i < question->count; i++)
        opd_json_write_raw(&w, responses[i]->data, responses[i]->size);
    if (question->group) opd_json_write_array_end(&w);
    opd_json_write_key(&w, "label");
    opd_json_write_raw(&w, label->data, label->size);
    opd_json_write_key(&w, "source");
    opd_json_write_text(&w, source);
    opd_json_write_object_end(&w);
}

/* ---- answers in JSON ---- */

/* A number, or null, which is none. */
static bool read_reward(opd_json *json, double *out) {
    *out = NAN;
    if (opd_json_peek(json) == OPD_JSON_NULL) return opd_json_skip(json);
    if (!opd_json_read_double(json, out)) return false;
    if (!isfinite(*out)) return opd_json_error(json, "the reward is not a finite number");
    return true;
}

/* A number, or of a group a list of them. */
static bool read_rewards(opd_json *json, opd_reward_question *question) {
    if (!question->group) return read_reward(json, &question->rewards[0]);
    uint32_t read = 0;
    if (!opd_json_array_begin(json)) return false;
    while (opd_json_array_next(json)) {
        if (read == question->count) return opd_json_error(json, "more rewards than responses");
        if (!read_reward(json, &question->rewards[read++])) return false;
    }
    return read == question->count || opd_json_error(json, "fewer rewards than responses");
}

static bool is_reward(const opd_reward_question *question, opd_json_text key) {
    if (question->group) return opd_json_text_is(key, "rewards") || opd_json_text_is(key, "scores");
    return opd_json_text_is(key, "reward") || opd_json_text_is(key, "score");
}

/* Whether the answer says that it is another question's. */
static bool is_of_another(const opd_reward_question *question, opd_json json) {
    opd_json_text key;
    int64_t id = (int64_t)question->id;
    if (opd_json_peek(&json) != OPD_JSON_OBJECT || !opd_json_object_begin(&json)) return false;
    while (opd_json_object_next(&json, &key))
        if (!opd_json_text_is(key, "id")) opd_json_skip(&json);
        else if (!opd_json_read_int64(&json, &id)) return true;
    return id != (int64_t)question->id;
}

static opd_err no_reward(const opd_reward_question *question) {
    return opd_fail(OPD_ERR_INVALID, "the answer has no \"%s\"", question->group ? "rewards" : "reward");
}

static opd_err read_json(opd_reward_question *question, const char *text, size_t size_bytes) {
    opd_json json;
    opd_json_text key;
    bool found = false;
    opd_json_init(&json, text, size_bytes);
    if (is_of_another(question, json))
        return opd_fail(OPD_ERR_MISMATCH, "the answer has another id than the question");
    if (opd_json_peek(&json) == OPD_JSON_OBJECT) {
        opd_json_object_begin(&json);
        while (opd_json_object_next(&json, &key)) {
            if (is_reward(question, key)) found = read_rewards(&json, question);
            else opd_json_skip(&json);
        }
    } else {
        found = read_rewards(&json, question);
    }
    OPD_TRY(opd_json_finish(&json));
    return found ? OPD_OK : no_reward(question);
}

/* ---- answers in msgpack ---- */

/* A value of another type is a wrong answer, not another question's. */
static opd_err status_of(const opd_mp_reader *r) {
    opd_err err = opd_mp_reader_status(r);
    if (err != OPD_ERR_MISMATCH) return err;
    return opd_fail(OPD_ERR_INVALID, "%s at byte %zu", r->what, r->error_offset);
}

static opd_err read_number(opd_mp_reader *r, double *out) {
    *out = NAN;
    if (opd_mp_peek(r) == OPD_MP_NIL) opd_mp_read_nil(r);
    else *out = opd_mp_read_f64(r);
    if (r->err == OPD_OK && isinf(*out)) return opd_fail(OPD_ERR_INVALID, "the reward is not a finite number");
    return status_of(r);
}

static opd_err read_numbers(opd_mp_reader *r, opd_reward_question *question) {
    if (!question->group) return read_number(r, &question->rewards[0]);
    uint32_t count = opd_mp_read_array(r);
    OPD_TRY(status_of(r));
    if (count != question->count)
        return opd_fail(OPD_ERR_INVALID, "%u rewards for %u responses", count, question->count);
    for (uint32_t i = 0; i < count; i++) OPD_TRY(read_number(r, &question->rewards[i]));
    return OPD_OK;
}

static bool key_is(const char *key, size_t size, const char *want) {
    return size == strlen(want) && memcmp(key, want, size) == 0;
}

/* The next key of a map; an empty one where it is no string. */
static const char *next_key(opd_mp_reader *r, size_t *out_size) {
    *out_size = 0;
    if (opd_mp_peek(r) == OPD_MP_STR) return opd_mp_read_str(r, out_size);
    opd_mp_skip(r);
    return "";
}

static bool has_other_id(const opd_reward_question *question, opd_mp_reader r) {
    uint64_t id = question->id;
    uint32_t count = opd_mp_read_map(&r);
    for (uint32_t i = 0; i < count && r.err == OPD_OK; i++) {
        size_t size;
        const char *key = next_key(&r, &size);
        if (r.err != OPD_OK || !key_is(key, size, "id")) opd_mp_skip(&r);
        else if (opd_mp_peek(&r) != OPD_MP_UINT) return true;
        else id = opd_mp_read_u64(&r);
    }
    return id != question->id;
}

static opd_err read_msgpack(opd_reward_question *question, const char *bytes, size_t size_bytes) {
    opd_mp_reader r;
    bool found = false;
    opd_mp_reader_init(&r, bytes, size_bytes);
    if (has_other_id(question, r))
        return opd_fail(OPD_ERR_MISMATCH, "the answer has another id than the question");
    uint32_t count = opd_mp_read_map(&r);
    for (uint32_t i = 0; i < count && r.err == OPD_OK; i++) {
        size_t size;
        const char *key = next_key(&r, &size);
        if (r.err != OPD_OK) break;
        bool wanted = question->group ? key_is(key, size, "rewards") || key_is(key, size, "scores")
                                      : key_is(key, size, "reward") || key_is(key, size, "score");
        if (wanted) OPD_TRY(read_numbers(&r, question));
        else opd_mp_skip(&r);
        found = found || wanted;
    }
    OPD_TRY(status_of(&r));
    if (r.at != r.end) return opd_fail(OPD_ERR_PARSE, "bytes behind the answer");
    return found ? OPD_OK : no_reward(question);
}

opd_err opd_reward_question_read(opd_reward_question *question, const char *text, size_t size_bytes) {
    return question->msgpack ? read_msgpack(question, text, size_bytes)
                             : read_json(question, text, size_bytes);
}
