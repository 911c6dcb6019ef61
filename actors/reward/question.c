/* question.c - see question.h. No state, any thread. */
#include "actors/reward/question.h"

#include <math.h>

#include "core/base/check.h"
#include "core/codec/json.h"

void opd_reward_question_write(opd_reward_question *question, const opd_str *prompt,
                               const opd_str *const *responses, const opd_str *label,
                               const char *source) {
    opd_json_writer w;
    opd_str_clear(&question->request);
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

opd_err opd_reward_question_read(opd_reward_question *question, const char *text,
                                 size_t size_bytes) {
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
    if (found) return OPD_OK;
    return opd_fail(OPD_ERR_INVALID, "the answer has no \"%s\"", question->group ? "rewards" : "reward");
}
