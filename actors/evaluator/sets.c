/* sets.c - see sets.h. Thread: any one at a time. */
#include "actors/evaluator/sets.h"

#include <stdio.h>
#include <string.h>

#include "core/base/check.h"
#include "core/codec/json.h"

enum { KEY_SIZE = OPD_CONFIG_NAME_MAX + 64 };

static uint32_t top_k_of(int64_t top_k) { return top_k > 0 ? (uint32_t)top_k : 0; }

static opd_eval_set plain_set(const opd_config_eval *e) {
    return (opd_eval_set){.name = "eval", .samples = (uint32_t)e->samples,
                          .max_new = (uint32_t)e->max_response_len, .temperature = e->temperature,
                          .top_p = e->top_p, .top_k = top_k_of(e->top_k),
                          .interval = (uint64_t)e->interval};
}

static opd_eval_set named_set(const opd_config_eval_set *e) {
    return (opd_eval_set){.name = e->name, .named = true, .samples = (uint32_t)e->samples,
                          .max_new = (uint32_t)e->max_response_len, .temperature = e->temperature,
                          .top_p = e->top_p, .top_k = top_k_of(e->top_k),
                          .interval = (uint64_t)e->interval};
}

static opd_err open_set(opd_eval_sets *sets, const opd_eval_set *set,
                        const opd_dataset_options *options, const opd_config_record *record,
                        const char *key) {
    opd_dataset_options o = *options;
    if (record->label_key[0] == '\0')
        return opd_fail(OPD_ERR_CONFIG, "%s: there is no label_key; name the key of the right answers",
                        key);
    o.keys = opd_dataset_keys(record);
    o.keys.label = record->label_key;
    opd_eval_set *to = &sets->set[sets->count];
    *to = *set;
    OPD_TRY(opd_err_prefix(opd_dataset_open(&o, &to->dataset), "%s", key));
    sets->count++;
    return OPD_OK;
}

static opd_err open_all(const opd_config_stage *stage, opd_dataset_options *o, opd_eval_sets *sets) {
    const opd_config_eval *e = &stage->eval;
    opd_eval_set set = plain_set(e);
    o->path = e->path;
    o->limit = (uint64_t)e->limit;
    if (e->path[0] != '\0') OPD_TRY(open_set(sets, &set, o, &stage->data.record, "eval.path"));
    for (size_t i = 0; i < e->set_count; i++) {
        const opd_config_eval_set *named = &e->sets[i];
        char key[KEY_SIZE];
        set = named_set(named);
        o->path = named->path;
        o->limit = (uint64_t)named->limit;
        (void)snprintf(key, sizeof key, "eval.sets.%s.path", named->name);
        OPD_TRY(open_set(sets, &set, o, &named->record, key));
    }
    for (size_t i = 0; i < sets->count; i++)
        sets->beside = sets->beside || (e->concurrent && sets->set[i].interval > 0);
    return OPD_OK;
}

opd_err opd_eval_sets_open(const opd_config_stage *stage, const opd_tokenizer *tokenizer,
                           uint32_t max_len, const opd_alloc *alloc, opd_eval_sets *out) {
    opd_dataset_options options = {.max_prompt_len = (uint32_t)stage->data.max_prompt_len,
                                   .max_len = max_len, .tokenizer = tokenizer, .alloc = alloc};
    *out = (opd_eval_sets){.count = 0};
    opd_err err = open_all(stage, &options, out);
    if (err != OPD_OK) opd_eval_sets_close(out);
    return err;
}

void opd_eval_sets_close(opd_eval_sets *sets) {
    for (size_t i = 0; i < sets->count; i++) opd_dataset_close(sets->set[i].dataset);
    sets->count = 0;
}

uint64_t opd_eval_sets_longest(const opd_eval_sets *sets) {
    uint64_t longest = 0;
    for (size_t i = 0; i < sets->count; i++) {
        uint64_t tokens = sets->set[i].dataset->prompt_max + (uint64_t)sets->set[i].max_new;
        if (tokens > longest) longest = tokens;
    }
    return longest;
}

opd_err opd_eval_result_read(uint64_t correct, uint64_t total, double response_len,
                             double truncated, const opd_slice *pass, opd_eval_result *out) {
    size_t size = pass->buf != NULL ? pass->size_bytes : 0;
    *out = (opd_eval_result){.response_len = response_len, .truncated = truncated,
                             .pass_count = size / sizeof *out->pass};
    if (correct > total || size % sizeof *out->pass != 0 || out->pass_count > OPD_PASS_MAX)
        return opd_fail(OPD_ERR_PARSE, "an evaluation of %llu right of %llu and %zu bytes of pass@k",
                        (unsigned long long)correct, (unsigned long long)total, size);
    out->accuracy = opd_accuracy_of((size_t)correct, (size_t)total);
    if (size > 0) memcpy(out->pass, opd_slice_data(*pass), size);
    return OPD_OK;
}

/* What a set gives, by its name where it has none of its own; NAME stands before the last part of the
 * others' and instead of "accuracy". */
#define EVAL_NUMBERS(X)                                                                    \
    X("eval/accuracy", accuracy.accuracy) X("eval/low", accuracy.low)                      \
    X("eval/high", accuracy.high) X("eval/n", accuracy.n)                                  \
    X("eval/response_len/mean", response_len) X("eval/truncated_ratio", truncated)

static void metric_name(const opd_eval_set *set, uint32_t k, char out[KEY_SIZE]) {
    if (k > 0)
        (void)snprintf(out, KEY_SIZE, "eval/%s%spass@%u", set->named ? set->name : "",
                       set->named ? "-" : "", k);
    else (void)snprintf(out, KEY_SIZE, "eval/%s", set->named ? set->name : "accuracy");
}

static void write_number(const opd_eval_set *set, const char *name, double value,
                         opd_json_writer *w) {
    char key[KEY_SIZE];
    const char *last = strchr(name, '/');
    if (set->named && strcmp(last, "/accuracy") == 0) last = "";
    if (set->named) (void)snprintf(key, sizeof key, "eval/%s%s", set->name, last);
    opd_json_write_key(w, set->named ? key : name);
    opd_json_write_double(w, value);
}

static void write_pass(const opd_eval_set *set, const opd_pass *pass, const char *end, double value,
                       opd_json_writer *w) {
    char key[KEY_SIZE], whole[KEY_SIZE + 8];
    metric_name(set, (uint32_t)pass->k, key);
    (void)snprintf(whole, sizeof whole, "%s%s", key, end);
    opd_json_write_key(w, whole);
    opd_json_write_double(w, value);
}

void opd_eval_result_write(const opd_eval_set *set, const opd_eval_result *r, opd_json_writer *w) {
#define X(name, member) write_number(set, name, (double)r->member, w);
    EVAL_NUMBERS(X)
#undef X
    for (size_t i = 0; i < r->pass_count; i++) {
        write_pass(set, &r->pass[i], "", r->pass[i].value, w);
        write_pass(set, &r->pass[i], "/low", r->pass[i].low, w);
        write_pass(set, &r->pass[i], "/high", r->pass[i].high, w);
    }
}

opd_err opd_eval_metric_find(const opd_eval_sets *sets, const char *name, opd_eval_metric *out) {
    char key[KEY_SIZE], all[512] = "";
    for (uint32_t i = 0; i < sets->count; i++) {
        const opd_eval_set *set = &sets->set[i];
        opd_eval_counts none = {.total = 0};
        opd_eval_result ks = opd_eval_result_of(&none, NULL, 0, set->samples);
        for (size_t j = 0; j <= ks.pass_count; j++) {
            uint32_t k = j > 0 ? (uint32_t)ks.pass[j - 1].k : 0;
            metric_name(set, k, key);
            *out = (opd_eval_metric){.set = i, .k = k};
            if (strcmp(key, name) == 0) return OPD_OK;
            size_t at = strlen(all);
            (void)snprintf(all + at, sizeof all - at, "%s%s", at > 0 ? ", " : "", key);
        }
    }
    if (sets->count == 0)
        return opd_fail(OPD_ERR_CONFIG, "train.keep_best: %s is a number of an evaluation, and there is "
                        "none; give eval.path", name);
    return opd_fail(OPD_ERR_CONFIG, "train.keep_best: there is no %s; there are %s", name, all);
}

double opd_eval_metric_of(const opd_eval_metric *metric, const opd_eval_result *r) {
    for (size_t i = 0; i < r->pass_count; i++)
        if (r->pass[i].k == metric->k) return r->pass[i].value;
    return r->accuracy.accuracy;
}

void opd_eval_result_show(const opd_eval_set *set, const opd_eval_result *r, opd_str *out) {
    const opd_accuracy *a = &r->accuracy;
    const opd_pass *most = r->pass_count > 0 ? &r->pass[r->pass_count - 1] : NULL;
    opd_str_printf(out, "%.1f %% of %zu %s right (95 %%: %.1f - %.1f)", a->accuracy * 100, a->n,
                   r->pass_count > 0 ? "answers" : "held-out problems", a->low * 100, a->high * 100);
    if (set->named) opd_str_printf(out, ", %s", set->name);
    if (most != NULL)
        opd_str_printf(out, "; pass@%.0f %.1f %% (%.1f - %.1f)", most->k, most->value * 100,
                       most->low * 100, most->high * 100);
}
