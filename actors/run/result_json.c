/* result_json.c - results to and from JSON (result_json.h). Thread: any. Nothing to free. */
#include "actors/run/result_json.h"

#include <string.h>

#include "core/base/check.h"
#include "core/codec/json.h"

static void write_accuracy(opd_json_writer *w, const char *key, const opd_accuracy *a) {
    opd_json_write_key(w, key);
    opd_json_write_object_begin(w);
    opd_json_write_key(w, "accuracy");
    opd_json_write_double(w, a->accuracy);
    opd_json_write_key(w, "n");
    opd_json_write_int64(w, (int64_t)a->n);
    opd_json_write_key(w, "low");
    opd_json_write_double(w, a->low);
    opd_json_write_key(w, "high");
    opd_json_write_double(w, a->high);
    opd_json_write_object_end(w);
}

static void write_pass(opd_json_writer *w, const opd_pass *pass) {
    opd_json_write_object_begin(w);
    opd_json_write_key(w, "k");
    opd_json_write_double(w, pass->k);
    opd_json_write_key(w, "value");
    opd_json_write_double(w, pass->value);
    opd_json_write_key(w, "low");
    opd_json_write_double(w, pass->low);
    opd_json_write_key(w, "high");
    opd_json_write_double(w, pass->high);
    opd_json_write_object_end(w);
}

static void write_evaluation(opd_json_writer *w, const char *key, const opd_eval_result *r) {
    opd_json_write_key(w, key);
    opd_json_write_object_begin(w);
    write_accuracy(w, "right", &r->accuracy);
    opd_json_write_key(w, "response_len");
    opd_json_write_double(w, r->response_len);
    opd_json_write_key(w, "truncated_ratio");
    opd_json_write_double(w, r->truncated);
    opd_json_write_key(w, "pass_at");
    opd_json_write_array_begin(w);
    for (size_t i = 0; i < r->pass_count; i++) write_pass(w, &r->pass[i]);
    opd_json_write_array_end(w);
    opd_json_write_object_end(w);
}

static void write_sets(opd_json_writer *w, const opd_stage_result *r) {
    opd_json_write_key(w, "sets");
    opd_json_write_object_begin(w);
    for (size_t i = 0; i < r->set_count; i++) {
        const opd_set_outcome *o = &r->sets[i].outcome;
        opd_json_write_key(w, r->sets[i].name);
        opd_json_write_object_begin(w);
        if (o->has_before) write_evaluation(w, "before", &o->before);
        if (o->has_after) write_evaluation(w, "after", &o->after);
        opd_json_write_object_end(w);
    }
    opd_json_write_object_end(w);
}

/* The counts of a result, in the order of `counts_of`. */
static const char *const COUNT_NAMES[] = {"steps", "samples", "response_tokens", "invalid_tokens",
                                          "batches_without_score", "steps_skipped", "degraded_tokens"};

static void counts_of(opd_stage_result *r, uint64_t *out[OPD_COUNTOF(COUNT_NAMES)]) {
    out[0] = &r->steps, out[1] = &r->samples, out[2] = &r->response_tokens;
    out[3] = &r->invalid_tokens, out[4] = &r->unscored_batches, out[5] = &r->skipped_steps;
    out[6] = &r->degraded_tokens;
}

static void write_result(opd_json_writer *w, const opd_stage_result *result) {
    opd_stage_result r = *result;
    uint64_t *counts[OPD_COUNTOF(COUNT_NAMES)];
    counts_of(&r, counts);
    opd_json_write_object_begin(w);
    opd_json_write_key(w, "name");
    opd_json_write_text(w, r.name);
    opd_json_write_key(w, "kind");
    opd_json_write_text(w, opd_config_kind_name(r.kind));
    opd_json_write_key(w, "checkpoint");
    opd_json_write_text(w, r.checkpoint);
    if (r.best[0] != '\0') {
        opd_json_write_key(w, "best");
        opd_json_write_text(w, r.best);
        opd_json_write_key(w, "best_value");
        opd_json_write_double(w, r.best_value);
    }
    opd_json_write_key(w, "teacher");
    opd_json_write_text(w, r.teacher);
    opd_json_write_key(w, "wall_s");
    opd_json_write_double(w, r.wall_s);
    opd_json_write_key(w, "score_wait_s");
    opd_json_write_double(w, r.score_wait_s);
    for (size_t i = 0; i < OPD_COUNTOF(COUNT_NAMES); i++) {
        opd_json_write_key(w, COUNT_NAMES[i]);
        opd_json_write_int64(w, (int64_t)*counts[i]);
    }
    if (r.teachers[0] != '\0') {
        opd_json_write_key(w, "teachers");
        opd_json_write_raw(w, r.teachers, strlen(r.teachers));
    }
    if (r.has_before) write_accuracy(w, "before", &r.before);
    if (r.has_after) write_accuracy(w, "after", &r.after);
    if (r.set_count > 0) write_sets(w, &r);
    opd_json_write_object_end(w);
}

static void write_stages(opd_json_writer *w, const opd_stage_result *results, size_t count) {
    opd_json_write_key(w, "stages");
    opd_json_write_array_begin(w);
    for (size_t i = 0; i < count; i++) write_result(w, &results[i]);
    opd_json_write_array_end(w);
}

void opd_results_write(const opd_stage_result *results, size_t count, opd_str *out) {
    opd_json_writer w;
    opd_json_writer_init(&w, out, 2);
    opd_json_write_object_begin(&w);
    write_stages(&w, results, count);
    opd_json_write_object_end(&w);
    opd_str_text(out, "\n");
}

/* ---- reading ---- */

static void read_n(opd_json *json, int64_t *out) {
    if (opd_json_read_int64(json, out) && *out < 0) (void)opd_json_error(json, "expected a count");
}

static void read_accuracy(opd_json *json, opd_accuracy *out) {
    opd_json_text key;
    int64_t n = 0;
    (void)opd_json_object_begin(json);
    while (opd_json_object_next(json, &key)) {
        if (opd_json_text_is(key, "accuracy")) (void)opd_json_read_double(json, &out->accuracy);
        else if (opd_json_text_is(key, "low")) (void)opd_json_read_double(json, &out->low);
        else if (opd_json_text_is(key, "high")) (void)opd_json_read_double(json, &out->high);
        else if (opd_json_text_is(key, "n")) read_n(json, &n);
        else (void)opd_json_skip(json);
    }
    out->n = (size_t)n;
}

static void read_passes(opd_json *json, opd_eval_result *r) {
    opd_json_text key;
    (void)opd_json_array_begin(json);
    while (opd_json_array_next(json)) {
        opd_pass pass = {.k = 0};
        (void)opd_json_object_begin(json);
        while (opd_json_object_next(json, &key)) {
            if (opd_json_text_is(key, "k")) (void)opd_json_read_double(json, &pass.k);
            else if (opd_json_text_is(key, "value")) (void)opd_json_read_double(json, &pass.value);
            else if (opd_json_text_is(key, "low")) (void)opd_json_read_double(json, &pass.low);
            else if (opd_json_text_is(key, "high")) (void)opd_json_read_double(json, &pass.high);
            else (void)opd_json_skip(json);
        }
        if (r->pass_count < OPD_PASS_MAX) r->pass[r->pass_count++] = pass;
    }
}

static void read_evaluation(opd_json *json, opd_eval_result *r) {
    opd_json_text key;
    *r = (opd_eval_result){.response_len = 0};
    (void)opd_json_object_begin(json);
    while (opd_json_object_next(json, &key)) {
        if (opd_json_text_is(key, "right")) read_accuracy(json, &r->accuracy);
        else if (opd_json_text_is(key, "response_len")) (void)opd_json_read_double(json, &r->response_len);
        else if (opd_json_text_is(key, "truncated_ratio")) (void)opd_json_read_double(json, &r->truncated);
        else if (opd_json_text_is(key, "pass_at")) read_passes(json, r);
        else (void)opd_json_skip(json);
    }
}

static void read_outcome(opd_json *json, opd_set_outcome *o) {
    opd_json_text key;
    (void)opd_json_object_begin(json);
    while (opd_json_object_next(json, &key)) {
        if (opd_json_text_is(key, "before")) {
            read_evaluation(json, &o->before);
            o->has_before = true;
        } else if (opd_json_text_is(key, "after")) {
            read_evaluation(json, &o->after);
            o->has_after = true;
        } else {
            (void)opd_json_skip(json);
        }
    }
}

static void read_sets(opd_json *json, opd_stage_result *r) {
    opd_json_text key;
    (void)opd_json_object_begin(json);
    while (opd_json_object_next(json, &key)) {
        size_t i = r->set_count;
        if (i == OPD_EVAL_SETS_MAX || key.escaped || key.size_bytes >= sizeof r->sets[0].name) {
            (void)opd_json_error(json, "expected fewer sets, or shorter names");
            return;
        }
        memcpy(r->sets[i].name, key.data, key.size_bytes);
        r->sets[i].name[key.size_bytes] = '\0';
        read_outcome(json, &r->sets[i].outcome);
        r->set_count++;
    }
}

static void read_kind(opd_json *json, opd_config_kind *out) {
    char name[32] = "";
    if (!opd_json_read_string(json, name, sizeof name)) return;
    for (int k = OPD_CONFIG_KIND_ARITHMETIC; k <= OPD_CONFIG_KIND_EVAL; k++)
        if (strcmp(name, opd_config_kind_name((opd_config_kind)k)) == 0) {
            *out = (opd_config_kind)k;
            return;
        }
    (void)opd_json_error(json, "expected the kind of a stage");
}

static void read_count(opd_json *json, opd_json_text key, opd_stage_result *r) {
    uint64_t *counts[OPD_COUNTOF(COUNT_NAMES)];
    counts_of(r, counts);
    int64_t value = 0;
    for (size_t i = 0; i < OPD_COUNTOF(COUNT_NAMES); i++) {
        if (!opd_json_text_is(key, COUNT_NAMES[i])) continue;
        read_n(json, &value);
        *counts[i] = (uint64_t)value;
        return;
    }
    (void)opd_json_skip(json);
}

/* Kept as it stands. */
static void read_teachers(opd_json *json, opd_stage_result *r) {
    const char *data;
    size_t size;
    if (!opd_json_raw(json, &data, &size)) return;
    if (size >= sizeof r->teachers) {
        (void)opd_json_error(json, "expected fewer words about teachers");
        return;
    }
    memcpy(r->teachers, data, size);
    r->teachers[size] = '\0';
}

static void read_result(opd_json *json, opd_stage_result *r) {
    opd_json_text key;
    *r = (opd_stage_result){.name = ""};
    (void)opd_json_object_begin(json);
    while (opd_json_object_next(json, &key)) {
        if (opd_json_text_is(key, "name")) {
            (void)opd_json_read_string(json, r->name, sizeof r->name);
        } else if (opd_json_text_is(key, "kind")) {
            read_kind(json, &r->kind);
        } else if (opd_json_text_is(key, "checkpoint")) {
            (void)opd_json_read_string(json, r->checkpoint, sizeof r->checkpoint);
        } else if (opd_json_text_is(key, "teacher")) {
            (void)opd_json_read_string(json, r->teacher, sizeof r->teacher);
        } else if (opd_json_text_is(key, "best")) {
            (void)opd_json_read_string(json, r->best, sizeof r->best);
        } else if (opd_json_text_is(key, "best_value")) {
            (void)opd_json_read_double(json, &r->best_value);
        } else if (opd_json_text_is(key, "sets")) {
            read_sets(json, r);
        } else if (opd_json_text_is(key, "teachers")) {
            read_teachers(json, r);
        } else if (opd_json_text_is(key, "wall_s")) {
            (void)opd_json_read_double(json, &r->wall_s);
        } else if (opd_json_text_is(key, "score_wait_s")) {
            (void)opd_json_read_double(json, &r->score_wait_s);
        } else if (opd_json_text_is(key, "before")) {
            read_accuracy(json, &r->before);
            r->has_before = true;
        } else if (opd_json_text_is(key, "after")) {
            read_accuracy(json, &r->after);
            r->has_after = true;
        } else {
            read_count(json, key, r);
        }
    }
}

opd_err opd_results_read(const char *text, size_t size, opd_stage_result *out, size_t max,
                         size_t *out_count) {
    opd_json json;
    opd_json_text key;
    *out_count = 0;
    opd_json_init(&json, text, size);
    (void)opd_json_object_begin(&json);
    while (opd_json_object_next(&json, &key)) {
        if (!opd_json_text_is(key, "stages")) {
            (void)opd_json_skip(&json);
            continue;
        }
        (void)opd_json_array_begin(&json);
        while (opd_json_array_next(&json)) {
            if (*out_count == max) return opd_fail(OPD_ERR_LIMIT, "more than %zu stages", max);
            read_result(&json, &out[(*out_count)++]);
        }
    }
    return opd_json_finish(&json);
}

/* ---- the summary ---- */

opd_summary opd_summary_of(const opd_stage_result *results, size_t count) {
    opd_summary s = {.wall_s = 0};
    for (size_t i = 0; i < count; i++) s.wall_s += results[i].wall_s;
    for (size_t i = 0; i < count; i++)
        if (results[i].kind == OPD_CONFIG_KIND_RL) s.policy = &results[i];
    if (s.policy == NULL) return s;
    if (s.policy->has_before) s.student_before = &s.policy->before;
    if (s.policy->has_after) s.student_after = &s.policy->after;
    for (size_t i = 0; i < count; i++)
        if (results[i].has_after && results[i].checkpoint[0] != '\0' &&
            strcmp(results[i].checkpoint, s.policy->teacher) == 0)
            s.teacher = &results[i].after;
    return s;
}

void opd_summary_write(const opd_summary *s, const opd_stage_result *results, size_t count,
                       opd_str *out) {
    opd_json_writer w;
    opd_json_writer_init(&w, out, 2);
    opd_json_write_object_begin(&w);
    if (s->student_before != NULL) write_accuracy(&w, "student_before", s->student_before);
    if (s->student_after != NULL) write_accuracy(&w, "student_after", s->student_after);
    if (s->teacher != NULL) write_accuracy(&w, "teacher", s->teacher);
    opd_json_write_key(&w, "wall_s");
    opd_json_write_double(&w, s->wall_s);
    if (s->policy != NULL && s->policy->teachers[0] != '\0') {
        opd_json_write_key(&w, "teachers");
        opd_json_write_raw(&w, s->policy->teachers, strlen(s->policy->teachers));
    }
    write_stages(&w, results, count);
    opd_json_write_object_end(&w);
    opd_str_text(out, "\n");
}
