/* probe_report.c - the report of a probe as text, JSON and YAML (probe_report.h).
 * Thread: any. Memory: the text is freed here. */
#include "actors/run/probe_report.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "core/base/check.h"

enum { REPORT_BYTES_MAX = 64 << 10 };

static const double TIMEOUT_LEAST_S = 10, TIMEOUT_FACTOR = 10, SCALES_LEAST = 0.5;

static double per_second(const opd_prober_phase *phase, uint64_t count) {
    return phase->seconds > 0 ? (double)count / phase->seconds : 0;
}

static uint64_t good(const opd_prober_phase *phase) { return phase->requests - phase->failures; }

opd_probe_advice opd_probe_advise(const opd_prober_report *r) {
    const opd_prober_phase *alone = &r->alone, *crowd = &r->crowd;
    double rate = per_second(crowd, good(crowd)), rate_alone = per_second(alone, good(alone));
    uint32_t tried = crowd->concurrency > 0 ? crowd->concurrency : 1;
    bool scales = rate_alone > 0 && rate > SCALES_LEAST * tried * rate_alone;
    double busy = ceil(2 * rate * alone->p50_ms / 1000);
    opd_probe_advice advice = {.max_inflight = scales ? 2 * tried : (uint32_t)busy};
    int64_t most = r->inquiry.found.server.max_running;
    if (most > 0 && (int64_t)advice.max_inflight > most) advice.max_inflight = (uint32_t)most;
    if (advice.max_inflight < 4) advice.max_inflight = 4;
    double growth = advice.max_inflight > tried ? (double)advice.max_inflight / tried : 1;
    advice.timeout_s = ceil(TIMEOUT_FACTOR * growth * crowd->p99_ms / 1000);
    if (advice.timeout_s < TIMEOUT_LEAST_S) advice.timeout_s = TIMEOUT_LEAST_S;
    return advice;
}

/* A quoted text; what YAML would read as something else is only in names of files and URLs. */
static void add_text(opd_str *out, const char *key, const char *value) {
    if (value == NULL) return;
    opd_str_printf(out, "    %s: \"", key);
    for (; *value != '\0'; value++) opd_str_printf(out, *value == '"' || *value == '\\' ? "\\%c" : "%c", *value);
    opd_str_text(out, "\"\n");
}

void opd_probe_yaml(const opd_teacher_probe_options *o, const opd_prober_report *r, opd_str *out) {
    opd_probe_advice advice = opd_probe_advise(r);
    opd_str_text(out, "teachers:\n  main:\n");
    add_text(out, "url", o->url);
    if (o->protocol != NULL && strcmp(o->protocol, "sglang") != 0)
        opd_str_printf(out, "    protocol: %s\n", o->protocol);
    add_text(out, "api_key_env", o->api_key_env);
    add_text(out, "api_key_file", o->api_key_file);
    add_text(out, "ca_file", o->ca_file);
    add_text(out, "cert_file", o->cert_file);
    add_text(out, "key_file", o->key_file);
    if (o->unverified) opd_str_text(out, "    verify: false\n");
    opd_str_printf(out, "    max_inflight: %" PRIu32 "\n    timeout_s: %g\n    chunk_tokens: %" PRIu32 "\n",
                   advice.max_inflight, advice.timeout_s, opd_capabilities_chunk_tokens(&r->inquiry.found));
}

/* ---- for people ---- */

static void row(opd_str *out, const char *name) { opd_str_printf(out, "%-16s", name); }

/* A number with commas. */
static void add_count(opd_str *out, double value) {
    char digits[32];
    int n = snprintf(digits, sizeof digits, "%.0f", value);
    for (int i = 0; i < n; i++) {
        if (i > 0 && (n - i) % 3 == 0) opd_str_text(out, ",");
        opd_str_printf(out, "%c", digits[i]);
    }
}

static const char *yes_no(bool value, const char *yes, const char *no) { return value ? yes : no; }

static void add_alternatives(opd_str *out, const opd_capabilities *c) {
    static const char *const forms[] = {"nested", "flat", "base64"};
    bool first = true;
    row(out, "alternatives");
    for (int i = 2; i >= 0; i--) {
        if ((c->forms & (1u << i)) == 0) continue;
        opd_str_printf(out, "%s%s", first ? "" : ", ", forms[i]);
        first = false;
    }
    if (first) opd_str_text(out, c->top_k > 0 ? "none" : "not asked for");
    if (c->top_k > 0)
        opd_str_printf(out, "; %s of top %d", c->top_k_given == OPD_TRI_YES ? "all" : "not all", (int)c->top_k);
    opd_str_text(out, "\n");
}

static void add_server(opd_str *out, const opd_capabilities *c, const opd_teacher_protocol *protocol) {
    bool ours = strcmp(c->server.server, "opd") == 0;
    row(out, "server");
    opd_str_printf(out, "%s %s, %s\n", ours ? "opd serve" : protocol->forms ? "SGLang protocol" : "vLLM",
                   c->server.version[0] != '\0' ? c->server.version : "(version not told)", c->http);
    row(out, "model");
    opd_str_printf(out, "%s", c->model.model_path[0] != '\0' ? c->model.model_path : "not told");
    if (c->weight_version[0] != '\0') opd_str_printf(out, ", weights \"%s\"", c->weight_version);
    opd_str_text(out, "\n");
    row(out, "vocabulary");
    if (c->model.vocab_size < 0) opd_str_text(out, "not told: cannot be compared with a student's\n");
    else opd_str_printf(out, "%" PRId64 " ids%s%s\n", c->model.vocab_size,
                        c->model.tokenizer_hash[0] != '\0' ? ", tokenizer " : "", c->model.tokenizer_hash);
    row(out, "longest");
    if (opd_capabilities_longest(c) < 0) opd_str_text(out, "not told\n");
    else opd_str_printf(out, "%" PRId64 " tokens\n", opd_capabilities_longest(c));
}

static void add_scores(opd_str *out, const opd_capabilities *c) {
    add_alternatives(out, c);
    row(out, "ids, lengths");
    opd_str_printf(out, "%s, %s\n", yes_no(c->echoes_ids, "repeated", "not repeated"),
                   yes_no(c->told_count, "told", "not told"));
    row(out, "prefixes");
    if (c->keeps_prefix == OPD_TRI_YES)
        opd_str_printf(out, "kept (%zu of %d tokens were there)\n", c->cached, OPD_INQUIRY_PREFIX_IDS);
    else opd_str_printf(out, "%s\n", c->keeps_prefix == OPD_TRI_NO ? "not kept" : "not known");
    row(out, "temperature");
    opd_str_text(out, c->at_temperature == OPD_TRI_YES ? "scores at any\n"
                      : c->at_temperature == OPD_TRI_NO ? "scores at 1 only: rollout.temperature must be 1\n"
                                                        : "not known: rollout.temperature must be 1\n");
    if (c->strips_forms || c->strips_rid) {
        row(out, "dropped fields");
        opd_str_printf(out, "%s%s%s\n", yes_no(c->strips_forms, "the form of alternatives", ""),
                       c->strips_forms && c->strips_rid ? ", " : "",
                       yes_no(c->strips_rid, "the rid (aborts will not work)", ""));
    }
    if (c->server.speculative) opd_str_text(out, "it decodes speculatively: scoring is slower\n");
    if (c->refusal[0] != '\0') {
        row(out, "refused");
        opd_str_printf(out, "%s\n", c->refusal);
    }
}

static void add_load(opd_str *out, const opd_prober_report *r) {
    const opd_prober_phase *p = &r->crowd;
    double tokens = (double)good(p) * p->tokens;
    opd_str_text(out, "\n");
    row(out, "load");
    opd_str_printf(out, "%" PRIu32 " at once, %" PRIu32 " tokens each, %.1f s\n", p->concurrency, p->tokens,
                   p->seconds);
    row(out, "tokens/s");
    add_count(out, per_second(p, good(p)) * p->tokens);
    opd_str_text(out, "\n");
    row(out, "requests/s");
    opd_str_printf(out, "%.1f (one alone: %.1f)\n", per_second(p, good(p)),
                   per_second(&r->alone, good(&r->alone)));
    row(out, "latency");
    opd_str_printf(out, "p50 %.1f ms, p99 %.1f ms (one alone: p50 %.1f ms)\n", p->p50_ms, p->p99_ms,
                   r->alone.p50_ms);
    row(out, "bytes per token");
    opd_str_printf(out, "%.1f up, %.1f down\n", tokens > 0 ? (double)p->bytes_up / tokens : 0,
                   p->scored > 0 ? (double)p->bytes_down / (double)p->scored : 0);
    row(out, "valid");
    opd_str_printf(out, "%.2f %% of ", p->scored > 0 ? 100 * (double)p->valid / (double)p->scored : 0);
    add_count(out, (double)p->scored);
    opd_str_printf(out, " scores; %" PRIu64 " of %" PRIu64 " requests failed\n", p->failures, p->requests);
    if (r->failure[0] != '\0') {
        row(out, "first failure");
        opd_str_printf(out, "%s\n", r->failure);
    }
}

static void write_people(const opd_teacher_probe_options *o, const opd_prober_config *config,
                         const opd_prober_report *r, opd_str *out) {
    const opd_capabilities *c = &r->inquiry.found;
    opd_str_printf(out, "opd teacher probe: %s\n\n", o->url);
    if (c->scores) {
        add_server(out, c, config->protocol);
        add_scores(out, c);
    }
    if (r->crowd.requests > 0) add_load(out, r);
    if (c->scores) opd_str_text(out, "\n");
    row(out, "usable");
    opd_str_text(out, r->usable ? "yes; in a configuration:\n\n" : "no\n");
    if (r->usable) opd_probe_yaml(o, r, out);
}

/* ---- for machines ---- */

static void write_phase(opd_json_writer *w, const char *key, const opd_prober_phase *p) {
    const struct { const char *key; double value; } numbers[] = {
        {"concurrency", p->concurrency}, {"tokens", p->tokens}, {"seconds", p->seconds},
        {"requests", (double)p->requests}, {"failures", (double)p->failures},
        {"scored", (double)p->scored}, {"valid", (double)p->valid},
        {"bytes_up", (double)p->bytes_up}, {"bytes_down", (double)p->bytes_down},
        {"tokens_per_s", per_second(p, good(p)) * p->tokens}, {"requests_per_s", per_second(p, good(p))},
        {"p50_ms", p->p50_ms}, {"p99_ms", p->p99_ms}};
    opd_json_write_key(w, key);
    opd_json_write_object_begin(w);
    for (size_t i = 0; i < OPD_COUNTOF(numbers); i++) {
        opd_json_write_key(w, numbers[i].key);
        opd_json_write_double(w, numbers[i].value);
    }
    opd_json_write_object_end(w);
}

static void write_machine(const opd_teacher_probe_options *o, const opd_prober_config *config,
                          const opd_prober_report *r, opd_str *out) {
    opd_json_writer w;
    opd_str yaml;
    opd_str_init(&yaml, NULL, REPORT_BYTES_MAX);
    if (r->usable) opd_probe_yaml(o, r, &yaml);
    opd_json_writer_init(&w, out, 2);
    opd_json_write_object_begin(&w);
    opd_json_write_key(&w, "url");
    opd_json_write_text(&w, o->url);
    opd_json_write_key(&w, "usable");
    opd_json_write_bool(&w, r->usable);
    opd_json_write_key(&w, "reason");
    opd_json_write_text(&w, r->reason);
    opd_json_write_key(&w, "capabilities");
    opd_capabilities_write(&r->inquiry.found, config->protocol, &w);
    write_phase(&w, "alone", &r->alone);
    write_phase(&w, "load", &r->crowd);
    opd_json_write_key(&w, "failure");
    opd_json_write_text(&w, r->failure);
    opd_json_write_key(&w, "yaml");
    opd_json_write_text(&w, yaml.size > 0 ? yaml.data : "");
    opd_json_write_object_end(&w);
    opd_str_text(out, "\n");
    opd_str_fini(&yaml);
}

opd_err opd_probe_report_print(const opd_teacher_probe_options *o, const opd_prober_config *config,
                               const opd_prober_report *r) {
    opd_str text;
    if (o->out == NULL) return OPD_OK;
    opd_str_init(&text, NULL, REPORT_BYTES_MAX);
    if (o->json) write_machine(o, config, r, &text);
    else write_people(o, config, r, &text);
    opd_err err = opd_str_status(&text);
    if (err == OPD_OK && (fputs(text.data, o->out) == EOF || fflush(o->out) != 0))
        err = opd_fail(OPD_ERR_IO, "the output cannot be written");
    opd_str_fini(&text);
    return err;
}
