/* sim_case.c - the dice of a seed (sim_case.h). Thread: one; everything is freed by its close. */
#include "tests/sim/sim_case.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/check.h"
#include "core/base/file.h"
#include "core/base/rng.h"
#include "core/base/str.h"
#include "tests/support/folder.h"

enum { PROBLEMS = 24, HELD_OUT = 6, TEXT_MAX = 1 << 16 };

_Noreturn void sim_die(const char *what, opd_err err) {
    (void)fprintf(stderr, "%s: %s: %s\n", what, opd_err_name(err), opd_err_context());
    exit(2);
}

static void must(opd_err err, const char *what) {
    if (err != OPD_OK) sim_die(what, err);
}

/* ---- files ----------------------------------------------------------------------------- */

static void join(char *out, const char *dir, const char *name) {
    must(opd_path_join(out, SIM_PATH_SIZE, dir, name), "path");
}

/* Problems of one kind: no two alike. */
static void write_problems(const char *path, int first, int count) {
    opd_str text;
    opd_str_init(&text, NULL, TEXT_MAX);
    for (int i = first; i < first + count; i++)
        opd_str_printf(&text, "{\"prompt\": \"%d+%d=\", \"label\": \"%d\"}\n", i, i % 7, i + i % 7);
    must(opd_str_status(&text), "problems");
    must(opd_file_write_atomic(path, text.data, text.size), "problems");
    opd_str_fini(&text);
}

/* The smallest model that is one: the stub reads its sizes only. */
static const opd_model_config teacher_shape = {
    .vocab_size = 259, .hidden_size = 2, .intermediate_size = 1, .layers = 1, .heads = 1,
    .kv_heads = 1, .head_dim = 2, .max_position = 64, .rope_theta = 1e4, .rms_eps = 1e-5,
    .tie_embeddings = true, .bos_id = 1, .eos_id = 2, .pad_id = 0};

void sim_files_open(sim_files *f) {
    bool memory = access("/dev/shm", W_OK) == 0;
    (void)snprintf(f->dir, sizeof f->dir, "%s/opd-sim-XXXXXX", memory ? "/dev/shm" : "/tmp");
    if (mkdtemp(f->dir) == NULL) sim_die(f->dir, opd_fail(OPD_ERR_IO, "mkdtemp"));
    join(f->problems, f->dir, "problems.jsonl");
    join(f->held_out, f->dir, "held-out.jsonl");
    join(f->teacher, f->dir, "teacher");
    join(f->checkpoints, f->dir, "checkpoints");
    join(f->metrics, f->dir, "metrics.jsonl");
    write_problems(f->problems, 0, PROBLEMS);
    write_problems(f->held_out, 1000, HELD_OUT);
    must(folder_write_model(f->teacher, &teacher_shape), "teacher");
}

void sim_files_clear(const sim_files *f) {
    folder_remove(f->checkpoints);
    folder_remove(f->metrics);
}

void sim_files_close(const sim_files *f) { folder_remove(f->dir); }

/* ---- the dice -------------------------------------------------------------------------- */

static uint64_t from(opd_rng *r, uint64_t low, uint64_t high) {
    return low + opd_rng_below(r, high - low + 1);
}

static bool one_in(opd_rng *r, uint64_t n) { return opd_rng_below(r, n) == 0; }

/* "key: N, " with N from [low, high]. One draw a call: compilers differ in the order in which they
 * evaluate arguments. */
static uint64_t put(opd_str *y, opd_rng *r, const char *key, uint64_t low, uint64_t high) {
    uint64_t value = from(r, low, high);
    opd_str_printf(y, "%s: %d, ", key, (int)value);
    return value;
}

/* The same in tenths. */
static double put_tenths(opd_str *y, opd_rng *r, const char *key, uint64_t low, uint64_t high) {
    double value = (double)from(r, low, high) / 10;
    opd_str_printf(y, "%s: %g, ", key, value);
    return value;
}

static void put_bool(opd_str *y, opd_rng *r, const char *key, uint64_t true_one_in) {
    opd_str_printf(y, "%s: %s, ", key, one_in(r, true_one_in) ? "true" : "false");
}

const char *sim_host(uint32_t replica) {
    static const char *const names[SIM_REPLICAS_MAX] = {"server", "server2", "server3"};
    return names[replica];
}

/* The address of a replica, or of several, in what is left of the teacher. */
static void write_urls(opd_str *y, uint32_t first, uint32_t end) {
    opd_str_text(y, "urls: [");
    for (uint32_t i = first; i < end; i++)
        opd_str_printf(y, "%s\"http://%s:%d\"", i > first ? ", " : "", sim_host(i), SIM_TEACHER_PORT);
    opd_str_text(y, "]}");
}

/* The servers as two teachers, of which one or each is the other's fallback. */
static void write_pair(opd_str *y, opd_rng *r, const sim_case *c) {
    opd_str_text(y, "fallback: u, ");
    write_urls(y, 0, 1);
    opd_str_text(y, ", u: {timeout_s: 1, deadline_s: 5, ");
    if (one_in(r, 2)) opd_str_text(y, "fallback: t, ");
    (void)put(y, r, "retries", 0, 4);
    (void)put(y, r, "chunk_tokens", 0, 3);
    write_urls(y, 1, c->replicas);
    opd_str_text(y, "}\n");
}

/* Where the teacher is, and how its fleet is treated. */
static void write_fleet(opd_str *y, const sim_case *c) {
    opd_rng r;
    opd_rng_init(&r, opd_rng_at(c->seed, 5, 0, 0));
    if (c->replicas == 1) {
        opd_str_printf(y, "url: \"http://%s:%d\"}}\n", sim_host(0), SIM_TEACHER_PORT);
        return;
    }
    if (c->pair) {
        write_pair(y, &r, c);
        return;
    }
    (void)put_tenths(y, &r, "eject_s", 1, 30);
    (void)put_tenths(y, &r, "eject_slow_factor", 0, 60);
    (void)put(y, &r, "eject_failures", 0, 5);
    (void)put(y, &r, "retry_min_per_s", 1, 10);
    opd_str_printf(y, "hedge_quantile: %g, ", (double)from(&r, 0, 9) / 10);
    put_bool(y, &r, "adapt_inflight", 2);
    write_urls(y, 0, c->replicas);
    opd_str_text(y, "}\n");
}

/* A filter, and prompts that stand by where the batches are on-policy. */
static void write_filter(opd_str *y, const sim_case *c, uint64_t batch_prompts) {
    if (!c->filter) return;
    opd_str_printf(y, "filter: zero_std, filter_max_dropped: %u, ", c->filter_max);
    opd_str_printf(y, "over_sampling_prompts: %u, ", (unsigned)batch_prompts + c->spare);
}

static void write_teachers(opd_str *y, opd_rng *r, const sim_files *f, const sim_case *c) {
    opd_str_printf(y, "opd: {enabled: true, type: %s, invalid_batches_max: 1000, ",
                   c->http ? "sglang" : "megatron");
    (void)put(y, r, "log_prob_top_k", 0, 2);
    bool only_reward = one_in(r, 3) && !c->filter;
    opd_str_printf(y, "only_reward: %s, ", only_reward ? "true" : "false");
    opd_str_printf(y, "on_missing: %s, teacher: %s}\n", one_in(r, 4) ? "rollout_log_probs" : "mask",
                   c->pair && c->http && c->seed % 2 == 0 ? "[t, u]" : "t");
    opd_str_printf(y, "teachers: {t: {chunk_tokens: %u, ", c->chunk_tokens);
    double timeout_s = put_tenths(y, r, "timeout_s", 1, 20);
    opd_str_printf(y, "deadline_s: %g, ", timeout_s * (double)from(r, 1, 10));
    (void)put_tenths(y, r, "connect_timeout_s", 1, 20);
    (void)put(y, r, "max_inflight", 1, 8);
    (void)put(y, r, "retries", 0, 4);
    (void)put(y, r, "backoff_ms", 1, 40);
    (void)put(y, r, "backoff_max_ms", 40, 400);
    if (c->http) write_fleet(y, c);
    else opd_str_printf(y, "path: %s}}\n", f->teacher);
}

static void write_eval(opd_str *y, opd_rng *r, const sim_files *f) {
    opd_str_text(y, "eval: {");
    (void)put(y, r, "limit", 1, HELD_OUT);
    (void)put(y, r, "interval", 0, 3);
    (void)put(y, r, "samples", 1, 2);
    put_bool(y, r, "at_start", 2);
    put_bool(y, r, "at_end", 2);
    put_bool(y, r, "concurrent", 2);
    if (one_in(r, 3))
        opd_str_printf(y, "sets: {more: {path: \"%s@[0:2]\", samples: 3, interval: 2}}, ", f->held_out);
    opd_str_printf(y, "path: %s}\n", f->held_out);
}

/* Supervised: the label is the answer to learn. */
static void write_sft(opd_str *y, opd_rng *r, const sim_files *f, sim_case *c) {
    c->filter = false;
    c->spare = 0;
    opd_str_text(y, "run: {kind: sft, metrics_interval: 1}\nmodel: {init: {hidden_size: 2, "
                 "intermediate_size: 1, layers: 1, heads: 1, max_position: 64}}\ndata: {");
    (void)put(y, r, "limit", 1, PROBLEMS);
    put_bool(y, r, "shuffle", 2);
    opd_str_printf(y, "response_key: label, path: %s}\ntrain: {lr: 0.01, ", f->problems);
    (void)put(y, r, "batch_size", 1, 6);
    (void)put(y, r, "steps", 1, 8);
    (void)put(y, r, "micro_batch_tokens", 1, 80);
    (void)put(y, r, "save_interval", 0, 3);
    opd_str_text(y, "}\n");
    if (one_in(r, 2)) write_eval(y, r, f);
}

static void write_rl(opd_str *y, opd_rng *r, const sim_files *f, sim_case *c) {
    bool opd = !one_in(r, 5), eval = one_in(r, 2), math = one_in(r, 2) || !opd;
    c->http = one_in(r, 2) && opd;
    opd_str_text(y, "model: {init: {hidden_size: 2, intermediate_size: 1, layers: 1, heads: 1, "
                 "max_position: 64}}\nrun: {metrics_interval: 1, ");
    (void)put(y, r, "seed", 1, 9);
    (void)put(y, r, "samples_interval", 0, 3);
    opd_str_text(y, "}\ndata: {");
    (void)put(y, r, "limit", 1, PROBLEMS);
    put_bool(y, r, "shuffle", 2);
    opd_str_printf(y, "path: %s}\nrollout: {", f->problems);
    uint64_t batch_prompts = put(y, r, "batch_prompts", 1, 4);
    uint64_t samples = put(y, r, "samples_per_prompt", opd ? 1 : 2, 4); /* a group of one has no advantage */
    (void)put(y, r, "max_response_len", 1, 8);
    c->filter = c->filter && math && samples > 1;
    c->spare = c->filter ? c->spare : 0;
    (void)put(y, r, "max_staleness", 0, c->spare > 0 ? 0 : 2);
    write_filter(y, c, batch_prompts);
    (void)put(y, r, "slots", 1, 8);
    opd_str_printf(y, "}\nreward: {type: %s}\ntrain: {lr: 0.01, ", math ? "math" : "none");
    (void)put(y, r, "steps", 1, 6);
    (void)put(y, r, "micro_batch_tokens", 1, 80);
    (void)put(y, r, "optimizer_steps_per_batch", 1, batch_prompts * samples > 1 ? 2 : 1);
    (void)put(y, r, "save_interval", 0, 3);
    (void)put(y, r, "keep", 1, 2);
    opd_str_text(y, "}\n");
    if (opd) write_teachers(y, r, f, c);
    if (eval) write_eval(y, r, f);
}

static void draw_troubles(sim_case *c, opd_rng *r) {
    static const uint32_t rates[] = {10, 30, 100, 300};
    c->sim.faults = OPD_SIM_FAULTS_ALL;
    c->sim.fault_one_in = rates[from(r, 0, 3)];
    c->sim.faults_all_armed = one_in(r, 6);
    c->sim.faults_until_ns = from(r, 1, 2000) * 1000000;
    c->sim.job_max_ns = from(r, 1, 20) * 1000000;
    c->server_returns = c->http && one_in(r, 4) ? (uint32_t)from(r, 1, 3) : 0;
    c->server_away_ns = (one_in(r, 4) ? from(r, 1, 15000) : from(r, 1, 300)) * 1000000;
    for (int i = 0; i < SIM_ATTEMPTS_MAX - 1; i++) {
        uint64_t dice = from(r, 0, 7);
        c->end[i] = dice == 0 ? SIM_END_INTERRUPT : dice == 1 ? SIM_END_KILL : SIM_END_NONE;
        c->end_ns[i] = from(r, 1, 200) * 1000000;
    }
}

/* From dice of their own, so that a seed with one replica is what it was. */
static void draw_fleet(sim_case *c, bool plain) {
    opd_rng r;
    opd_rng_init(&r, opd_rng_at(c->seed, 4, 0, 0));
    c->replicas = (uint32_t)from(&r, 1, SIM_REPLICAS_MAX);
    bool slow = one_in(&r, 2);
    uint32_t which = (uint32_t)from(&r, 0, c->replicas - 1);
    if (slow && c->replicas > 1 && !plain) c->slow = (int)which;
    c->pair = c->replicas > 1 && one_in(&r, 3);
    if (c->pair && c->slow > 0) c->slow = 0; /* u may have no fallback, and hardly a word of this one comes through */
    c->chunk_tokens = one_in(&r, 2) ? (uint32_t)from(&r, 1, 4) : 0;
}

/* The same. */
static void draw_filter(sim_case *c) {
    opd_rng r;
    opd_rng_init(&r, opd_rng_at(c->seed, 6, 0, 0));
    c->filter = one_in(&r, 2);
    c->filter_max = (uint32_t)from(&r, 1, 8);
    c->spare = one_in(&r, 2) ? 0 : (uint32_t)from(&r, 1, 6);
}

void sim_case_open(sim_case *c, const sim_files *files, uint64_t seed, bool plain) {
    opd_rng r;
    opd_str yaml;
    *c = (sim_case){.seed = seed, .slow = -1};
    draw_fleet(c, plain);
    draw_filter(c);
    opd_rng_init(&r, opd_rng_at(seed, 1, 0, 0));
    opd_str_init(&yaml, NULL, TEXT_MAX);
    if (one_in(&r, 10)) write_sft(&yaml, &r, files, c);
    else write_rl(&yaml, &r, files, c);
    must(opd_str_status(&yaml), "configuration");
    opd_err err = opd_config_load_text(NULL, "sim.yaml", yaml.data, yaml.size, NULL, &c->config);
    if (err != OPD_OK || getenv("SIM_YAML")) (void)fputs(yaml.data, stderr);
    must(err, "configuration");
    opd_str_fini(&yaml);
    c->stage = &c->config->stages[0];
    /* every job ends within this; a plain case has no other trouble than the order of things */
    c->sim.time_max_ns = (uint64_t)3600 * 1000000000;
    if (!plain) draw_troubles(c, &r);
}

void sim_case_close(sim_case *c) { opd_config_destroy(c->config); }
