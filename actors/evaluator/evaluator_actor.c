/* evaluator_actor.c - asks, judges, counts (evaluator_actor.h).
 *
 * Invariants: answers = asked - in flight; a problem whose answer failed counts as wrong, but
 * where the rollout itself is gone the evaluator fails too, and whoever asked asks again; the
 * EVALUATE request is held until its reply. Thread: the loop.
 */
#include "actors/evaluator/evaluator_actor.h"

#include <string.h>

#include "actors/evaluator/stats.h"
#include "actors/messages.h"
#include "core/base/check.h"
#include "opd/diagnosis.h"
#include "opd/log.h"

enum { TEXT_BYTES_MAX = 64 << 20, ASKERS_MAX = 8, RETRY_MS = 1 };

typedef struct evaluator {
    opd_evaluator_config c;
    opd_msg *askers[ASKERS_MAX]; /* [0] is being served */
    size_t asker_count;
    uint64_t min_version;
    uint64_t asked, answered, total;
    const opd_eval_set *set; /* being evaluated */
    uint32_t *right;         /* [problems of the largest set] right answers to each */
    opd_eval_counts counts;
    opd_str text;
    opd_timer retry; /* rollout's mailbox was full */
} evaluator;

static opd_err pump(evaluator *e, opd_ctx *ctx);

static void judge(evaluator *e, uint64_t number, const opd_generated_fields *f) {
    uint64_t epoch;
    uint64_t problem = number / e->set->samples;
    const opd_row *row = opd_dataset_row(e->set->dataset, problem, &epoch);
    size_t count = f->tokens.size_bytes / sizeof(int32_t);
    opd_str_clear(&e->text);
    opd_tokenizer_decode(e->c.tokenizer, opd_slice_data(f->tokens), count, true, &e->text);
    const char *text = e->text.data != NULL ? e->text.data : "";
    opd_piece answer = {text, text + e->text.size};
    opd_piece label = {row->label, row->label + strlen(row->label)};
    bool correct = opd_str_status(&e->text) == OPD_OK &&
                   opd_reward_judge(e->c.rule, e->c.boxed, answer, label) == 1;
    e->right[problem] += correct;
    opd_eval_add(&e->counts, correct, f->finish != 0, count);
}

static opd_err answered(opd_ctx *ctx, void *state, void *arg, opd_err err, opd_msg *reply) {
    evaluator *e = state;
    opd_generated_fields f;
    if (err == OPD_ERR_CLOSED) return opd_err_prefix(err, "evaluator: the rollout is gone");
    if (err == OPD_OK) err = opd_message_read(reply, OPD_MESSAGE_GENERATED, &f);
    if (err == OPD_OK) {
        judge(e, (uint64_t)(uintptr_t)arg, &f);
    } else {
        OPD_LOG_WARN("evaluator: problem %zu got no answer: %s", (size_t)(uintptr_t)arg,
                     opd_err_context());
        opd_eval_add_failed(&e->counts);
    }
    e->answered++;
    opd_progress_note(opd_self_system(ctx), 1); /* whoever asked for the evaluation goes on */
    return pump(e, ctx);
}

static opd_err ask(evaluator *e, opd_ctx *ctx, uint64_t number) {
    uint64_t epoch;
    const opd_eval_set *set = e->set;
    const opd_roles *r = e->c.roles;
    const opd_row *row = opd_dataset_row(set->dataset, number / set->samples, &epoch);
    opd_generate_fields f = {.max_new = set->max_new, .temperature = set->temperature,
                             .top_p = set->top_p, .top_k = set->top_k, .seed = e->c.seed,
                             .group = number, .min_version = e->min_version};
    uint32_t prompt_len;
    OPD_TRY(opd_dataset_tokens(set->dataset, row, false, &f.tokens, &prompt_len));
    opd_pid to = r->eval_rollout != OPD_PID_NOBODY ? r->eval_rollout : r->rollout;
    opd_err err = opd_message_request(ctx, to, OPD_MESSAGE_GENERATE, &f,
                                      OPD_NO_DEADLINE, answered, (void *)(uintptr_t)number,
                                      NULL);
    opd_buf_release(f.tokens.buf);
    return err;
}

static opd_err begin(evaluator *e, opd_ctx *ctx) {
    opd_evaluate_fields f;
    OPD_TRY(opd_message_read(e->askers[0], OPD_MESSAGE_EVALUATE, &f));
    if (f.set >= e->c.sets->count)
        return opd_fail(OPD_ERR_INVALID, "evaluator: there is no set %u", f.set);
    e->set = &e->c.sets->set[f.set];
    e->min_version = f.min_version;
    e->asked = e->answered = 0;
    e->total = e->set->dataset->count * e->set->samples;
    memset(e->right, 0, e->set->dataset->count * sizeof *e->right);
    e->counts = (opd_eval_counts){.total = 0};
    return pump(e, ctx);
}

static opd_err finish(evaluator *e, opd_ctx *ctx) {
    opd_eval_result r = opd_eval_result_of(&e->counts, e->right, e->set->dataset->count,
                                           e->set->samples);
    opd_evaluated_fields f = {.correct = e->counts.correct, .total = e->counts.total,
                              .response_len = r.response_len, .truncated = r.truncated};
    if (r.pass_count > 0)
        OPD_TRY(opd_slice_copy(e->c.alloc, r.pass, r.pass_count * sizeof *r.pass, &f.pass));
    opd_message_reply(ctx, e->askers[0], OPD_MESSAGE_EVALUATED, &f);
    opd_buf_release(f.pass.buf);
    opd_msg_release(e->askers[0]);
    e->asker_count--;
    memmove(e->askers, e->askers + 1, e->asker_count * sizeof *e->askers);
    return e->asker_count > 0 ? begin(e, ctx) : OPD_OK;
}

static opd_err pump(evaluator *e, opd_ctx *ctx) {
    while (e->asked < e->total && e->asked - e->answered < e->c.inflight) {
        opd_err err = ask(e, ctx, e->asked);
        if (err == OPD_ERR_AGAIN)
            return opd_timer_start_after(&e->retry, RETRY_MS * UINT64_C(1000000));
        OPD_TRY(err);
        e->asked++;
    }
    return e->asker_count > 0 && e->answered == e->total ? finish(e, ctx) : OPD_OK;
}

static opd_err retry_fired(opd_ctx *ctx, void *state, opd_timer *timer) {
    (void)timer;
    return pump(state, ctx);
}

static opd_err on_start(opd_ctx *ctx, void *state, const void *config) {
    evaluator *e = state;
    e->c = *(const opd_evaluator_config *)config;
    uint64_t problems = 1;
    for (size_t i = 0; i < e->c.sets->count; i++)
        if (e->c.sets->set[i].dataset->count > problems) problems = e->c.sets->set[i].dataset->count;
    e->right = opd_mem_get(e->c.alloc, problems * sizeof *e->right);
    if (e->right == NULL) return opd_fail(OPD_ERR_NOMEM, "evaluator: no memory");
    opd_str_init(&e->text, e->c.alloc, TEXT_BYTES_MAX);
    opd_timer_init(&e->retry, ctx, retry_fired);
    return OPD_OK;
}

static opd_err on_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    evaluator *e = state;
    if (e->asker_count == ASKERS_MAX) {
        opd_reply_error(ctx, msg, opd_fail(OPD_ERR_AGAIN, "%d evaluations wait", ASKERS_MAX));
        return OPD_OK;
    }
    opd_msg_take(ctx, msg);
    e->askers[e->asker_count++] = msg;
    return e->asker_count == 1 ? begin(e, ctx) : OPD_OK;
}

static void on_stop(opd_ctx *ctx, void *state) {
    (void)ctx;
    evaluator *e = state;
    for (size_t i = 0; i < e->asker_count; i++) opd_msg_release(e->askers[i]);
    opd_mem_free(e->c.alloc, e->right);
    opd_str_fini(&e->text);
}

const opd_actor_class opd_evaluator_class = {
    .name = "evaluator", .state_size = sizeof(evaluator), .requests_max = 4096,
    .on_start = on_start, .on_message = on_message, .on_stop = on_stop};
