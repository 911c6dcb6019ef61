/* measure.c - `opd eval` and eval stages: an evaluator and one question to it (measure.h).
 * Thread: the loop. Everything built here is freed here. */
#include "actors/run/measure.h"

#include <stdio.h>
#include <string.h>

#include "actors/evaluator/evaluator_actor.h"
#include "actors/messages.h"
#include "actors/run/session.h"
#include "core/base/check.h"
#include "models/safetensors.h"

enum { SCREEN_BYTES_MAX = 1 << 20 };

/* Asks the evaluator about each set and stops the system with the last answer. */
typedef struct examiner_config {
    const opd_roles *roles;
    size_t sets;
    opd_set_outcome *out; /* [sets] */
} examiner_config;

static opd_err ask(opd_ctx *ctx, examiner_config *e, size_t set);

static opd_err answered(opd_ctx *ctx, void *state, void *arg, opd_err err, opd_msg *reply) {
    examiner_config *e = state;
    size_t set = (size_t)(uintptr_t)arg;
    opd_evaluated_fields f;
    if (err == OPD_OK) err = opd_message_read(reply, OPD_MESSAGE_EVALUATED, &f);
    if (err == OPD_OK)
        err = opd_eval_result_read(f.correct, f.total, f.response_len, f.truncated, &f.pass,
                                   &e->out[set].after);
    e->out[set].has_after = err == OPD_OK;
    if (err == OPD_OK && set + 1 < e->sets) return ask(ctx, e, set + 1);
    opd_system_stop(opd_self_system(ctx), err);
    return OPD_OK;
}

static opd_err ask(opd_ctx *ctx, examiner_config *e, size_t set) {
    opd_evaluate_fields f = {.min_version = 1, .set = (uint32_t)set};
    return opd_message_request(ctx, e->roles->evaluator, OPD_MESSAGE_EVALUATE, &f,
                               OPD_NO_DEADLINE, answered, (void *)(uintptr_t)set, NULL);
}

static opd_err on_start(opd_ctx *ctx, void *state, const void *config) {
    examiner_config *e = state;
    *e = *(const examiner_config *)config;
    return ask(ctx, e, 0);
}

static const opd_actor_class examiner_class = {
    .name = "examiner", .state_size = sizeof(examiner_config), .on_start = on_start};

/* What `opd eval` starts besides the rollout. */
typedef struct exam {
    opd_session session;
    opd_evaluator_config evaluator;
    examiner_config examiner;
} exam;

static opd_err start_evaluator(opd_system *system, void *arg, opd_pid *out_pid) {
    exam *e = arg;
    OPD_TRY(opd_spawn(system, &opd_evaluator_class, NULL, &e->evaluator, out_pid));
    e->session.roles.evaluator = *out_pid;
    return OPD_OK;
}

static opd_err start_examiner(opd_system *system, void *arg, opd_pid *out_pid) {
    return opd_spawn(system, &examiner_class, NULL, &((exam *)arg)->examiner, out_pid);
}

static opd_err examine(const opd_config_stage *stage, const opd_model *model,
                       const opd_tokenizer *tokenizer, const opd_eval_sets *sets,
                       bool handle_signals, opd_set_outcome *out) {
    uint64_t longest = opd_eval_sets_longest(sets), most = (uint64_t)model->config.max_position;
    exam x;
    opd_session_options options = {
        .model = model, .threads = (uint32_t)stage->device.rollout_threads,
        .slots = (uint32_t)stage->rollout.slots,
        .max_len = (uint32_t)(longest < most ? longest : most),
        .handle_signals = handle_signals};
    OPD_TRY(opd_session_open(&x.session, &options));
    x.evaluator = (opd_evaluator_config){
        .sets = sets, .roles = &x.session.roles, .tokenizer = tokenizer,
        .inflight = options.slots, .seed = (uint64_t)stage->rollout.seed};
    x.examiner = (examiner_config){.roles = &x.session.roles, .sets = sets->count, .out = out};
    opd_session_add(&x.session, "evaluator", start_evaluator, &x);
    opd_session_add(&x.session, "examiner", start_examiner, &x);
    return opd_session_run(&x.session);
}

opd_err opd_measure(const opd_config_stage *stage, const char *dir, bool handle_signals,
                    opd_eval_sets *out_sets, opd_set_outcome *out) {
    if (stage->eval.path[0] == '\0' && stage->eval.set_count == 0)
        return opd_fail(OPD_ERR_CONFIG, "eval.path is not set: it names the JSONL file of problems");
    opd_model *model = NULL;
    opd_tokenizer *tokenizer = NULL;
    *out_sets = (opd_eval_sets){.count = 0};
    memset(out, 0, OPD_EVAL_SETS_MAX * sizeof *out);
    opd_err err = opd_model_open(dir, NULL, &model);
    if (err == OPD_OK) err = opd_tokenizer_open(dir, NULL, &tokenizer);
    if (err == OPD_OK)
        err = opd_eval_sets_open(stage, tokenizer, (uint32_t)model->config.max_position - 1, NULL,
                                 out_sets);
    if (err == OPD_OK) err = examine(stage, model, tokenizer, out_sets, handle_signals, out);
    size_t count = out_sets->count;
    opd_eval_sets_close(out_sets);
    out_sets->count = count; /* names and settings stay */
    opd_tokenizer_destroy(tokenizer);
    opd_model_destroy(model);
    return err;
}

/* The first stage with a set of problems. */
static const opd_config_stage *stage_of(const opd_config *config) {
    for (size_t i = 0; i < config->stage_count; i++) {
        const opd_config_eval *e = &config->stages[i].eval;
        if (e->path[0] != '\0' || e->set_count > 0) return &config->stages[i];
    }
    return NULL;
}

/* A file that a run writes has no path here. */
static opd_err check_paths(const opd_config_stage *stage) {
    const opd_config_eval *e = &stage->eval;
    bool written = e->path[0] == '@';
    for (size_t i = 0; i < e->set_count; i++) written = written || e->sets[i].path[0] == '@';
    if (!written) return OPD_OK;
    return opd_fail(OPD_ERR_CONFIG, "eval.path is %s, a file that a run writes; name one with "
                    "--set eval.path=runs/NAME/data/FILE.jsonl", e->path[0] == '@' ? e->path : "(a set)");
}

static void show(const opd_eval_options *options, const opd_eval_sets *sets,
                 const opd_set_outcome *outcomes) {
    opd_str text;
    opd_str_init(&text, NULL, SCREEN_BYTES_MAX);
    for (size_t i = 0; i < sets->count; i++) {
        opd_str_printf(&text, "%s: ", options->model);
        opd_eval_result_show(&sets->set[i], &outcomes[i].after, &text);
        opd_str_text(&text, "\n");
    }
    if (opd_str_status(&text) == OPD_OK) (void)fputs(text.data, options->screen);
    opd_str_fini(&text);
}

opd_err opd_evaluate(const opd_eval_options *options, opd_accuracy *out) {
    const opd_config_stage *stage = stage_of(options->config);
    opd_set_outcome outcomes[OPD_EVAL_SETS_MAX];
    opd_eval_sets sets;
    if (stage == NULL)
        return opd_fail(OPD_ERR_CONFIG, "%s: no eval.path is set, so there is nothing to evaluate "
                        "on; add --set eval.path=FILE.jsonl", options->config->file);
    OPD_TRY(check_paths(stage));
    OPD_TRY(opd_measure(stage, options->model, options->handle_signals, &sets, outcomes));
    *out = outcomes[0].after.accuracy;
    if (options->screen != NULL) show(options, &sets, outcomes);
    return OPD_OK;
}
