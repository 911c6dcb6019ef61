/* measure.c - `opd eval` and eval stages: an evaluator and one question to it (measure.h).
 * Thread: the loop. Everything built here is freed here. */
#include "actors/run/measure.h"

#include <stdio.h>

#include "actors/dataset/dataset.h"
#include "actors/evaluator/evaluator_actor.h"
#include "actors/evaluator/stats.h"
#include "actors/messages.h"
#include "actors/run/session.h"
#include "core/base/check.h"
#include "models/safetensors.h"

/* Asks the evaluator once and stops the system with the answer. */
typedef struct examiner_config {
    const opd_roles *roles;
    opd_accuracy *out;
} examiner_config;

static opd_err answered(opd_ctx *ctx, void *state, void *arg, opd_err err, opd_msg *reply) {
    (void)arg;
    opd_evaluated_fields f;
    if (err == OPD_OK) err = opd_message_read(reply, OPD_MESSAGE_EVALUATED, &f);
    if (err == OPD_OK) *((examiner_config *)state)->out = opd_accuracy_of(f.correct, f.total);
    opd_system_stop(opd_self_system(ctx), err);
    return OPD_OK;
}

static opd_err on_start(opd_ctx *ctx, void *state, const void *config) {
    examiner_config *e = state;
    *e = *(const examiner_config *)config;
    opd_evaluate_fields f = {.min_version = 1};
    return opd_message_request(ctx, e->roles->evaluator, OPD_MESSAGE_EVALUATE, &f,
                               OPD_NO_DEADLINE, answered, NULL, NULL);
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

static opd_err open_problems(const opd_config_stage *stage, const opd_model *model,
                             const opd_tokenizer *tokenizer, opd_dataset **out) {
    opd_dataset_options options = {
        .path = stage->eval.path, .keys = opd_dataset_keys(&stage->data.record),
        .limit = (uint64_t)stage->eval.limit,
        .max_len = (uint32_t)model->config.max_position - 1, .tokenizer = tokenizer};
    options.keys.label = stage->data.record.label_key;
    return opd_dataset_open(&options, out);
}

static opd_err examine(const opd_config_stage *stage, const opd_model *model,
                       const opd_tokenizer *tokenizer, const opd_dataset *problems,
                       bool handle_signals, opd_accuracy *out) {
    const opd_config_eval *e = &stage->eval;
    uint64_t longest = problems->prompt_max + (uint64_t)e->max_response_len;
    uint64_t most = (uint64_t)model->config.max_position;
    exam x;
    opd_session_options options = {
        .model = model, .threads = (uint32_t)stage->device.rollout_threads,
        .slots = (uint32_t)stage->rollout.slots,
        .max_len = (uint32_t)(longest < most ? longest : most),
        .handle_signals = handle_signals};
    OPD_TRY(opd_session_open(&x.session, &options));
    x.evaluator = (opd_evaluator_config){
        .dataset = problems, .roles = &x.session.roles, .tokenizer = tokenizer,
        .samples = (uint32_t)e->samples, .inflight = options.slots,
        .max_new = (uint32_t)e->max_response_len, .temperature = e->temperature,
        .top_p = e->top_p, .top_k = e->top_k > 0 ? (uint32_t)e->top_k : 0,
        .seed = (uint64_t)stage->rollout.seed};
    x.examiner = (examiner_config){.roles = &x.session.roles, .out = out};
    opd_session_add(&x.session, "evaluator", start_evaluator, &x);
    opd_session_add(&x.session, "examiner", start_examiner, &x);
    return opd_session_run(&x.session);
}

opd_err opd_measure(const opd_config_stage *stage, const char *dir, bool handle_signals,
                    opd_accuracy *out) {
    if (stage->eval.path[0] == '\0')
        return opd_fail(OPD_ERR_CONFIG, "eval.path is not set: it names the JSONL file of problems");
    opd_model *model = NULL;
    opd_tokenizer *tokenizer = NULL;
    opd_dataset *problems = NULL;
    opd_err err = opd_model_open(dir, NULL, &model);
    if (err == OPD_OK) err = opd_tokenizer_open(dir, NULL, &tokenizer);
    if (err == OPD_OK) err = open_problems(stage, model, tokenizer, &problems);
    if (err == OPD_OK) err = examine(stage, model, tokenizer, problems, handle_signals, out);
    opd_dataset_close(problems);
    opd_tokenizer_destroy(tokenizer);
    opd_model_destroy(model);
    return err;
}

opd_err opd_evaluate(const opd_eval_options *options, opd_accuracy *out) {
    const opd_config_stage *stage = NULL;
    for (size_t i = 0; i < options->config->stage_count && stage == NULL; i++)
        if (options->config->stages[i].eval.path[0] != '\0') stage = &options->config->stages[i];
    if (stage == NULL)
        return opd_fail(OPD_ERR_CONFIG, "%s: no eval.path is set, so there is nothing to evaluate "
                        "on; add --set eval.path=FILE.jsonl", options->config->file);
    if (stage->eval.path[0] == '@')
        return opd_fail(OPD_ERR_CONFIG, "eval.path is %s, a file that a run writes; name one with "
                        "--set eval.path=runs/NAME/data/FILE.jsonl", stage->eval.path);
    OPD_TRY(opd_measure(stage, options->model, options->handle_signals, out));
    if (options->screen == NULL) return OPD_OK;
    (void)fprintf(options->screen, "%s: %.1f %% of %zu problems right (95 %%: %.1f - %.1f)\n",
                  options->model, out->accuracy * 100, out->n, out->low * 100, out->high * 100);
    return OPD_OK;
}
