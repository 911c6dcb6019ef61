/* sim_run.c - worlds, runs and the judgement of a seed (sim_run.h). Thread: one. */
#include "tests/sim/sim_run.h"

#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "actors/messages.h"
#include "actors/pipeline.h"
#include "actors/reward/rules.h"
#include "actors/run/memory.h"
#include "core/base/check.h"
#include "core/base/file.h"
#include "core/base/rng.h"
#include "tests/sim/checkers.h"
#include "tests/sim/sim_server.h"
#include "tests/sim/stub_model.h"

enum { METRICS_BYTES_MAX = 1 << 20, FLOOD = 1100 };

static const uint64_t SLOW_CUT_NS = 90 * 1000000, SLOW_OPEN_NS = 10 * 1000000;

/* A replica's node. */
typedef struct node {
    sim_server *server; /* NULL: it is down, or there is none */
    uint64_t change_ns; /* when it comes, or goes             */
} node;

/* What must be trained, and how far that has come. */
typedef struct plan {
    uint64_t *expected; /* digests of the sequences of all groups and members, in order */
    size_t count, next;
    size_t skipped; /* the first that this run left out; SIZE_MAX: none */
    size_t per_step;
} plan;

typedef struct run {
    const sim_files *files;
    const sim_case *c;
    sim_result *out;
    plan plan;
    uint32_t attempt;
    bool plain, verbose;
    /* of the present attempt */
    opd_sim *sim;
    opd_net_sim *net;
    opd_env *env;
    node nodes[SIM_REPLICAS_MAX];
    uint32_t server_returns;
    uint64_t slow_ns;        /* when the slow replica is cut off again */
    uint64_t flood_ns;       /* when somebody has far too much to tell */
    opd_rng dice;            /* of what happens from outside */
    opd_assets assets;
    opd_trainer_outcome outcome;
    opd_pipeline *pipeline;
    checkers *checkers;
    uint64_t ceiling; /* bytes */
    int metrics_fd;
} run;

static const checkers *watching; /* of the run under way */

const char *sim_run_violation(void) {
    return watching == NULL ? NULL : checkers_violation(watching);
}

static void wrong(run *r, const char *fmt, ...) OPD_PRINTF(2, 3);

/* Keeps the first thing that was wrong. */
static void wrong(run *r, const char *fmt, ...) {
    va_list args;
    if (!r->out->ok) return;
    r->out->ok = false;
    va_start(args, fmt);
    int n = snprintf(r->out->reason, SIM_REASON_SIZE, "run %u: ", r->attempt);
    (void)vsnprintf(r->out->reason + n, SIM_REASON_SIZE - (size_t)n, fmt, args);
    va_end(args);
    if (r->verbose) (void)fprintf(stderr, "  wrong: %s\n", r->out->reason);
}

/* ---- what must be trained -------------------------------------------------------------- */

enum { SEQUENCE_MAX = 128 };

/* A sequence: a prompt with its answer from the rollout, or from the file. Returns its length. */
static size_t make_sequence(const run *r, uint64_t group, uint32_t member, int32_t *tokens,
                            uint32_t *out_prompt_len) {
    const opd_assets *a = &r->assets;
    const opd_config_rollout *c = &r->c->stage->rollout;
    uint64_t epoch;
    bool supervised = r->c->stage->kind == OPD_CONFIG_KIND_SFT;
    opd_slice row_tokens;
    uint32_t prompt_len;
    const opd_row *row = opd_dataset_row(a->train, group, &epoch);
    if (opd_dataset_tokens(a->train, row, supervised, &row_tokens, &prompt_len) != OPD_OK) abort();
    size_t length = row_tokens.size_bytes / sizeof *tokens;
    memcpy(tokens, opd_slice_data(row_tokens), row_tokens.size_bytes);
    opd_buf_release(row_tokens.buf);
    if (!supervised)
        length = stub_response(&a->model->config, (uint64_t)c->seed, (uint32_t)epoch, group,
                               member, tokens, prompt_len,
                               (size_t)c->max_response_len, a->sizes.max_len);
    *out_prompt_len = prompt_len;
    return length;
}

/* Whether the rewards of a group tell its members apart. */
static bool rewards_differ(const run *r, uint64_t group) {
    double first = 0;
    uint64_t epoch;
    const char *label = opd_dataset_row(r->assets.train, group, &epoch)->label;
    for (uint32_t m = 0; m < r->assets.sizes.samples; m++) {
        int32_t tokens[SEQUENCE_MAX];
        uint32_t prompt_len;
        size_t length = make_sequence(r, group, m, tokens, &prompt_len);
        opd_str text;
        opd_str_init(&text, NULL, 4096);
        opd_tokenizer_decode(r->assets.tokenizer, tokens + prompt_len, length - prompt_len, true, &text);
        const char *answer = text.data != NULL ? text.data : "";
        double reward = opd_reward_judge(OPD_REWARD_RULE_MATH, false, (opd_piece){answer, answer + text.size},
                                         (opd_piece){label, label + strlen(label)});
        opd_str_fini(&text);
        if (m == 0) first = reward;
        else if (reward != first) return true;
    }
    return false;
}

/* Whether the filter lets a group into the batch that has dropped so many before. */
static bool is_kept(const run *r, uint64_t group, uint64_t dropped) {
    return !r->c->filter || dropped >= r->c->filter_max || rewards_differ(r, group);
}

/* Each row once in each epoch: the order itself is checked, not only that it was kept. */
static void check_order(run *r, uint64_t groups) {
    const opd_dataset *data = r->assets.train;
    for (uint64_t g = 0; g < groups; g++) {
        uint64_t epoch, other;
        const opd_row *row = opd_dataset_row(data, g, &epoch);
        if (epoch != g / data->count)
            wrong(r, "group %llu is of the wrong epoch", (unsigned long long)g);
        for (uint64_t h = epoch * data->count; h < g; h++)
            if (opd_dataset_row(data, h, &other) == row)
                wrong(r, "groups %llu and %llu of one epoch have the same row",
                      (unsigned long long)h, (unsigned long long)g);
    }
}

/* Adds the members of a group to what must be trained. */
static void plan_group(run *r, uint64_t group, size_t *at) {
    for (uint32_t m = 0; m < r->assets.sizes.samples; m++) {
        int32_t tokens[SEQUENCE_MAX];
        uint32_t prompt_len;
        size_t length = make_sequence(r, group, m, tokens, &prompt_len);
        r->plan.expected[(*at)++] = stub_digest(tokens, length);
    }
}

static void plan_fill(run *r) {
    const opd_assets *a = &r->assets;
    plan *p = &r->plan;
    p->per_step = (size_t)a->sizes.batch_prompts * a->sizes.samples;
    p->count = p->per_step * a->steps;
    p->expected = calloc(p->count, sizeof *p->expected);
    uint64_t group = 0;
    for (size_t at = 0; at < p->count;) {
        uint64_t dropped = 0;
        for (size_t end = at + p->per_step; at < end; group++) {
            if (is_kept(r, group, dropped)) plan_group(r, group, &at);
            else dropped++;
        }
    }
    check_order(r, group);
}

/* The trainer made a gradient of a sequence: it must be the next, or a later one where scores
 * were missing (which the end of the run counts). */
static void on_trained(void *arg, const int32_t *tokens, size_t count, bool finite) {
    run *r = arg;
    plan *p = &r->plan;
    uint64_t digest = stub_digest(tokens, count);
    size_t at = p->next;
    if (!finite) wrong(r, "a number that is none reached the gradient");
    while (at < p->count && p->expected[at] != digest) at++;
    if (at == p->count) {
        size_t before = 0;
        while (before < p->count && p->expected[before] != digest) before++;
        if (before < p->count) wrong(r, "sequence %zu was trained again, when %zu was due", before, p->next);
        else wrong(r, "a sequence of %zu tokens was trained that no prompt gives", count);
        return;
    }
    if (at > p->next && r->verbose)
        (void)fprintf(stderr, "  sequence %zu was trained when %zu was due\n", at, p->next);
    if (at > p->next && p->skipped == SIZE_MAX) p->skipped = p->next;
    p->next = at + 1;
}

/* ---- one run --------------------------------------------------------------------------- */

static void watch(void *arg, opd_system *system) {
    run *r = arg;
    r->checkers = checkers_create(system);
    watching = r->checkers;
}

static opd_err attempt_open(run *r) {
    const sim_case *c = r->c;
    opd_sim_options options = c->sim;
    if (r->attempt + 1 >= SIM_ATTEMPTS_MAX) options.faults = 0;
    OPD_TRY(opd_sim_create(opd_rng_at(c->seed, 2, r->attempt, 0), &options, &r->sim));
    OPD_TRY(opd_net_sim_create(r->sim, NULL, &r->net));
    OPD_TRY(opd_sim_env(r->sim, "main", &r->env));
    OPD_TRY(opd_net_sim_join(r->net, r->env));
    OPD_TRY(opd_assets_open(&r->assets, c->stage, r->files->checkpoints, true, &stub_lm,
                            opd_sim_alloc(r->sim)));
    opd_memory memory = opd_memory_of(&r->assets);
    r->ceiling = opd_memory_total(&memory);
    if (r->plan.expected == NULL) plan_fill(r);
    opd_rng_init(&r->dice, opd_rng_at(c->seed, 3, r->attempt, 0));
    r->server_returns = c->server_returns;
    for (uint32_t i = 0; i < SIM_REPLICAS_MAX; i++) {
        bool there = c->http && i < c->replicas;
        r->nodes[i].change_ns = there ? opd_sim_now_ns(r->sim) : OPD_SIM_FOREVER;
        if (there && opd_rng_below(&r->dice, 4) == 0)
            r->nodes[i].change_ns += opd_rng_below(&r->dice, 2000) * 1000000; /* it comes later */
    }
    r->slow_ns = c->http && c->slow >= 0 ? opd_sim_now_ns(r->sim) : OPD_SIM_FOREVER;
    r->flood_ns = opd_rng_below(&r->dice, 8) == 0
                      ? opd_sim_now_ns(r->sim) + opd_rng_below(&r->dice, 100) * 1000000
                      : OPD_SIM_FOREVER;
    r->plan.next = (size_t)r->assets.first_step * r->plan.per_step;
    r->plan.skipped = SIZE_MAX;
    const opd_checkpoint_state *before = &r->assets.resumed;
    r->outcome = (opd_trainer_outcome){
        .samples = before->samples, .response_tokens = before->response_tokens,
        .invalid_tokens = before->invalid_tokens, .unscored_batches = before->unscored_batches,
        .skipped_steps = before->skipped_steps, .degraded_tokens = before->degraded_tokens,
        .has_before = before->before_total > 0,
        .before_correct = before->before_correct, .before_total = before->before_total};
    r->metrics_fd = open(r->files->metrics, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (r->metrics_fd < 0) return opd_fail(OPD_ERR_IO, "%s", r->files->metrics);
    opd_pipeline_options pipeline = {
        .assets = &r->assets, .checkpoint_dir = r->files->checkpoints, .program = "opd",
        .metrics_fd = r->metrics_fd, .samples_fd = -1, .screen_fd = -1, .env = r->env,
        .watch = watch, .watch_arg = r};
    return opd_pipeline_open(&pipeline, &r->outcome, &r->pipeline);
}

static bool main_is_over(const run *r) {
    return opd_system_stats_get(opd_pipeline_system(r->pipeline)).actors == 0;
}

/* A replica whose process has ended, or NULL. */
static node *dead_node(run *r) {
    for (uint32_t i = 0; i < SIM_REPLICAS_MAX; i++)
        if (r->nodes[i].server != NULL && !sim_server_lives(r->nodes[i].server))
            return &r->nodes[i];
    return NULL;
}

/* Whether the world must pause: the stage is over, or a server's process is. */
static bool is_pause(void *arg) { return main_is_over(arg) || dead_node(arg) != NULL; }

static void server_end(run *r, node *n) {
    char violation[SIM_REASON_SIZE];
    if (n->server == NULL) return;
    sim_server_kill(n->server, violation, sizeof violation, &r->out->hash);
    n->server = NULL;
    if (violation[0] != '\0') wrong(r, "%s", violation);
}

/* A server's node comes, goes and comes back; one whose process ended does, too. */
static void server_change(run *r, node *n) {
    uint64_t now = opd_sim_now_ns(r->sim);
    if (n->server != NULL) {
        server_end(r, n);
        n->change_ns = now + r->c->server_away_ns;
        return;
    }
    n->server = sim_server_start(r->sim, r->net, r->files, sim_host((uint32_t)(n - r->nodes)));
    bool goes = r->server_returns > 0;
    if (goes) r->server_returns--;
    n->change_ns = goes ? now + (1 + opd_rng_below(&r->dice, 300)) * 1000000 : OPD_SIM_FOREVER;
}

/* The slow replica: nine tenths of the time nothing comes through. */
static void slow_down(run *r) {
    opd_err err = opd_net_sim_cut(r->net, "main", sim_host((uint32_t)r->c->slow), SLOW_CUT_NS);
    if (err != OPD_OK) sim_die("cut", err);
    r->slow_ns = opd_sim_now_ns(r->sim) + SLOW_CUT_NS + SLOW_OPEN_NS;
}

/* More notes at once than the monitor's mailbox takes: those beyond are dropped, by its policy. */
static void flood(run *r) {
    opd_system *system = opd_pipeline_system(r->pipeline);
    opd_pid monitor = opd_pipeline_roles(r->pipeline)->monitor;
    for (int i = 0; i < FLOOD; i++) {
        opd_note_fields note = {.text = "a note of the flood"};
        opd_msg *msg;
        if (opd_message_create(system, OPD_MESSAGE_NOTE, &note, &msg) != OPD_OK) return;
        if (opd_post(system, monitor, msg) != OPD_OK) opd_msg_release(msg);
    }
    r->flood_ns = OPD_SIM_FOREVER;
}

static uint64_t sooner(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* Does what is due from outside; returns when the next of it is, at most until_ns. */
static uint64_t outside(run *r, uint64_t until_ns) {
    uint64_t now = opd_sim_now_ns(r->sim), next_ns = until_ns;
    for (uint32_t i = 0; i < SIM_REPLICAS_MAX; i++) {
        if (r->nodes[i].change_ns <= now) server_change(r, &r->nodes[i]);
        next_ns = sooner(next_ns, r->nodes[i].change_ns);
    }
    if (r->flood_ns <= now) flood(r);
    if (r->slow_ns <= now) slow_down(r);
    return sooner(next_ns, sooner(r->flood_ns, r->slow_ns));
}

/* Runs the world until the stage is over or until_ns. */
static opd_err world_until(run *r, uint64_t until_ns) {
    while (!main_is_over(r) && opd_sim_now_ns(r->sim) < until_ns) {
        OPD_TRY(opd_sim_run(r->sim, outside(r, until_ns), is_pause, r));
        node *dead = main_is_over(r) ? NULL : dead_node(r);
        if (dead != NULL) server_change(r, dead);
    }
    return OPD_OK;
}

/* Runs the world until the stage is over, or killed. */
static opd_err attempt_world(run *r) {
    sim_end end = r->c->end[r->attempt];
    uint64_t now = opd_sim_now_ns(r->sim);
    if (end != SIM_END_NONE) OPD_TRY(world_until(r, now + r->c->end_ns[r->attempt]));
    if (end == SIM_END_KILL && !main_is_over(r))
        return opd_fail(OPD_ERR_INTERRUPTED, "killed");
    if (end == SIM_END_INTERRUPT && !main_is_over(r)) opd_pipeline_interrupt(r->pipeline, 2, false);
    return world_until(r, OPD_SIM_FOREVER);
}

static opd_err attempt_run(run *r) {
    opd_system *system = opd_pipeline_system(r->pipeline);
    opd_system_begin(system);
    opd_err err = attempt_world(r);
    char text[512];
    (void)snprintf(text, sizeof text, "%s", err == OPD_OK ? "" : opd_err_context());
    opd_err ended = opd_system_end(system);
    if (opd_system_stats_get(system).actors == 0) checkers_end(r->checkers);
    if (checkers_violation(r->checkers) != NULL) wrong(r, "%s", checkers_violation(r->checkers));
    return err == OPD_OK ? ended : opd_fail(err, "%s", text);
}

static uint64_t digest_weights(const opd_model *model) {
    uint64_t digest = 0;
    for (size_t i = 0; i < model->param_count; i++) {
        uint32_t bits;
        memcpy(&bits, &model->params[i], sizeof bits);
        digest = opd_rng_at(digest, bits, 0, 0);
    }
    return digest;
}

/* Ends the run's world; what is still there then was forgotten. */
static void attempt_close(run *r) {
    opd_assets_close(&r->assets);
    (void)close(r->metrics_fd);
    for (uint32_t i = 0; i < SIM_REPLICAS_MAX; i++) server_end(r, &r->nodes[i]);
    opd_err err = opd_env_destroy(r->env);
    opd_net_sim_destroy(r->net);
    if (err != OPD_OK) wrong(r, "%s", opd_err_context());
    r->out->hash = opd_rng_at(r->out->hash, checkers_hash(r->checkers), 1, 0);
    watching = NULL;
    checkers_destroy(r->checkers);
    opd_sim_stats stats = opd_sim_stats_get(r->sim);
    if (stats.live_blocks > 0)
        wrong(r, "%zu blocks (%zu bytes) were never freed", stats.live_blocks, stats.live_bytes);
    for (int i = 0; i < OPD_FAULT_COUNT; i++) r->out->faults += stats.faults[i];
    r->out->steps += stats.steps;
    r->out->virtual_ns += opd_sim_now_ns(r->sim);
    r->out->hash = opd_rng_at(r->out->hash, stats.hash, stats.steps, opd_sim_now_ns(r->sim));
    if (!r->c->http && stats.live_bytes_max > r->ceiling)
        wrong(r, "%zu bytes were allocated, the ceiling is %llu", stats.live_bytes_max,
              (unsigned long long)r->ceiling);
    if (stats.live_bytes_max > r->out->bytes_max) r->out->bytes_max = stats.live_bytes_max;
    opd_sim_destroy(r->sim);
}

/* Whether a fault that the dice made struck an actor of the data plane. */
static bool names_data_plane(const char *text) {
    static const char *const roles[] = {", batcher)", ", reward)", ", scorer)", ", teacher)",
                                        ", rollout)", ", dataset)"};
    for (size_t i = 0; i < OPD_COUNTOF(roles); i++)
        if (strstr(text, roles[i]) != NULL) return true;
    return false;
}

/* Whether an error may end a run: the person's or the dice's doing. A data plane is started
 * again; only one that fails again and again may end it. */
static bool is_excused(const run *r, opd_err err, const char *text) {
    if (err == OPD_ERR_INTERRUPTED && r->c->end[r->attempt] != SIM_END_NONE) return true;
    if (err == OPD_ERR_AGAIN) return false; /* whoever is refused tries again */
    if (names_data_plane(text) && strstr(text, " times within ") == NULL) return false;
    return strstr(text, "simulated: ") != NULL || err == OPD_ERR_NOMEM;
}

/* One run; true: the stage is finished, or there is no use in another. */
static bool attempt(run *r) {
    opd_err err = attempt_open(r);
    if (err != OPD_OK) sim_die("open", err);
    err = attempt_run(r);
    err = opd_pipeline_close(r->pipeline, err);
    char text[512];
    (void)snprintf(text, sizeof text, "%s", err == OPD_OK ? "" : opd_err_context());
    if (r->verbose)
        (void)fprintf(stderr, "  run %u: from step %llu to %llu of %llu at %.3f s: %s %s\n",
                      r->attempt, (unsigned long long)r->assets.first_step,
                      (unsigned long long)r->outcome.steps, (unsigned long long)r->assets.steps,
                      (double)opd_sim_now_ns(r->sim) * 1e-9, opd_err_name(err), text);
    if (err != OPD_OK && !is_excused(r, err, text)) wrong(r, "%s: %s", opd_err_name(err), text);
    if (err == OPD_OK && !r->outcome.finished) wrong(r, "ended without an error, unfinished");
    const opd_trainer_outcome *o = &r->outcome;
    r->out->whole = o->invalid_tokens == 0 && o->unscored_batches == 0 && o->skipped_steps == 0;
    if (r->out->whole && r->plan.skipped < o->version * r->plan.per_step)
        wrong(r, "sequence %zu had its scores and was not trained", r->plan.skipped);
    r->out->weights = digest_weights(r->assets.model);
    attempt_close(r);
    return err == OPD_OK || !r->out->ok;
}

/* ---- the end --------------------------------------------------------------------------- */

/* Every value of `key` in the metrics is a number, at most `most`; where nothing failed (a monitor that
 * crashes loses unread reports) there is one at least. */
static void check_metric(run *r, const char *text, const char *key, double most) {
    char quoted[64];
    size_t found = 0;
    (void)snprintf(quoted, sizeof quoted, "\"%s\":", key);
    for (const char *at = strstr(text, quoted); at != NULL; at = strstr(at + 1, quoted), found++) {
        double value = strtod(at + strlen(quoted), NULL);
        if (!(value <= most)) wrong(r, "%s is %g, the most is %g", key, value, most);
    }
    if (found == 0 && r->plain) wrong(r, "%s is in no line of the metrics", key);
}

static void judge(run *r) {
    const opd_trainer_outcome *o = &r->outcome;
    plan *p = &r->plan;
    char *text = NULL;
    size_t size;
    if (o->samples != p->count)
        wrong(r, "%llu samples were counted, not %zu", (unsigned long long)o->samples, p->count);
    if (r->out->whole && p->next != p->count)
        wrong(r, "only %zu of %zu sequences were trained", p->next, p->count);
    if (opd_file_read(NULL, r->files->metrics, METRICS_BYTES_MAX, &text, &size) != OPD_OK) {
        wrong(r, "no metrics: %s", opd_err_context());
        return;
    }
    if (strstr(text, "nan") != NULL || strstr(text, "inf,") != NULL) wrong(r, "a metric is no number");
    if (r->c->stage->kind == OPD_CONFIG_KIND_RL)
        check_metric(r, text, "rollout/lag_max", (double)r->c->stage->rollout.max_staleness);
    check_metric(r, text, "train/steps_skipped", 0);
    opd_mem_free(NULL, text);
}

sim_result sim_run(const sim_files *files, uint64_t seed, bool plain, bool verbose) {
    sim_case c;
    sim_result result = {.ok = true};
    sim_case_open(&c, files, seed, plain);
    result.filtered = c.filter;
    result.over_sampled = c.spare > 0;
    run r = {.files = files, .c = &c, .out = &result, .plain = plain,
             .verbose = verbose};
    stub_recorder recorder = {.trained = on_trained, .arg = &r};
    stub_record(&recorder);
    bool done = false;
    for (; !done && r.attempt < SIM_ATTEMPTS_MAX; r.attempt++) done = attempt(&r);
    result.attempts = r.attempt--;
    if (!done) wrong(&r, "not finished after %u runs", result.attempts);
    if (result.ok) judge(&r);
    stub_record(NULL);
    free(r.plan.expected);
    sim_case_close(&c);
    sim_files_clear(files);
    return result;
}
