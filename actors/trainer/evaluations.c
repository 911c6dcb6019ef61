/* evaluations.c - see evaluations.h. Invariant: busy from begin until done is called; at most one
 * EVALUATE is under way. Thread: the loop. */
#include "actors/trainer/evaluations.h"

#include <math.h>
#include <stddef.h>

#include "actors/messages.h"
#include "core/base/check.h"
#include "opd/log.h"

enum {
    RETRY_MS = 10,
    REPLACED_MS = 250, /* the one asked is being restarted */
    REPLACED_MAX = 120
};

static opd_err ask(opd_evaluations *e);

static opd_err retry_fired(opd_ctx *ctx, void *self, opd_timer *timer) {
    (void)ctx;
    (void)self;
    opd_evaluations *e = (opd_evaluations *)(void *)((char *)timer - offsetof(opd_evaluations, retry));
    return e->stopped ? OPD_OK : ask(e);
}

void opd_evaluations_init(opd_evaluations *e, const opd_trainer_config *config, opd_ctx *ctx,
                          opd_err (*done)(void *trainer), void *trainer) {
    e->c = config;
    e->ctx = ctx;
    e->done = done;
    e->trainer = trainer;
    opd_timer_init(&e->retry, ctx, retry_fired);
}

uint32_t opd_evaluations_due(const opd_evaluations *e, uint64_t version) {
    uint32_t sets = 0;
    for (size_t i = 0; i < e->c->evals->count; i++) {
        uint64_t interval = e->c->evals->set[i].interval;
        if (interval > 0 && version % interval == 0) sets |= UINT32_C(1) << i;
    }
    return sets;
}

uint32_t opd_evaluations_all(const opd_evaluations *e) {
    return (uint32_t)((UINT64_C(1) << e->c->evals->count) - 1);
}

bool opd_evaluations_hold(const opd_evaluations *e) { return e->busy && e->c->eval_weights == NULL; }

static void note(opd_evaluations *e, const opd_evaluated_fields *f, const opd_eval_result *r) {
    opd_trainer_outcome *o = e->c->outcome;
    opd_set_outcome *set = &o->sets[e->set];
    if (e->last) set->has_after = true, set->after = *r;
    else if (e->version == 0) set->has_before = true, set->before = *r;
    if (e->set == 0 && !e->last && e->version == 0)
        o->has_before = true, o->before_correct = f->correct, o->before_total = f->total;
    const opd_eval_metric *best = e->c->best;
    if (best != NULL && best->set == e->set && e->version > 0) { /* which has a checkpoint */
        uint64_t value = (uint64_t)llround(opd_eval_metric_of(best, r) * 1e9);
        if (o->best_step == 0 || value > o->best_1e9) o->best_step = e->version, o->best_1e9 = value;
    }
    opd_accuracy_fields a = {.step = e->version, .correct = f->correct, .total = f->total,
                             .set = e->set, .response_len = f->response_len,
                             .truncated = f->truncated, .pass = f->pass};
    opd_err err = opd_message_send(e->ctx, e->c->roles->monitor, OPD_MESSAGE_ACCURACY, &a);
    if (err != OPD_OK) OPD_LOG_WARN("trainer: an accuracy was not shown: %s", opd_err_text(err));
}

/* The one asked is gone: its supervisor starts another, or ends the run. */
static opd_err ask_successor(opd_evaluations *e) {
    if (e->stopped) return OPD_OK;
    if (e->replaced_count++ == REPLACED_MAX)
        return opd_fail(OPD_ERR_CLOSED, "evaluation: nobody has taken the evaluator's place for %d s",
                        REPLACED_MAX * REPLACED_MS / 1000);
    return opd_timer_start_after(&e->retry, REPLACED_MS * UINT64_C(1000000));
}

static opd_err evaluated(opd_ctx *ctx, void *self, void *arg, opd_err err, opd_msg *reply) {
    (void)ctx;
    (void)self;
    opd_evaluations *e = arg;
    opd_evaluated_fields f;
    opd_eval_result r;
    if (err == OPD_ERR_CLOSED) return ask_successor(e);
    e->replaced_count = 0;
    if (err == OPD_OK) err = opd_message_read(reply, OPD_MESSAGE_EVALUATED, &f);
    if (err == OPD_OK)
        err = opd_eval_result_read(f.correct, f.total, f.response_len, f.truncated, &f.pass, &r);
    OPD_TRY(opd_err_prefix(err, "evaluation"));
    note(e, &f, &r);
    e->to_do &= ~(UINT32_C(1) << e->set);
    if (e->to_do != 0) return ask(e);
    e->busy = false;
    return e->done(e->trainer);
}

/* Asks about the next set. */
static opd_err ask(opd_evaluations *e) {
    opd_evaluate_fields f = {.min_version = e->version};
    for (e->set = 0; (e->to_do >> e->set & 1) == 0;) e->set++;
    f.set = e->set;
    opd_err err = opd_message_request(e->ctx, e->c->roles->evaluator, OPD_MESSAGE_EVALUATE, &f,
                                      OPD_NO_DEADLINE, evaluated, e, NULL);
    if (err == OPD_ERR_AGAIN)
        return opd_timer_start_after(&e->retry, RETRY_MS * UINT64_C(1000000));
    return err == OPD_ERR_CLOSED ? ask_successor(e) : err;
}

opd_err opd_evaluations_begin(opd_evaluations *e, uint64_t version, uint32_t sets, bool last) {
    OPD_ASSERT(!e->busy && sets != 0);
    e->busy = true;
    e->last = last;
    e->version = version;
    e->to_do = sets;
    if (e->c->eval_weights != NULL) {
        opd_buf *buf = NULL;
        uint64_t published = opd_slot_get(e->c->weights, &buf);
        OPD_ASSERT(buf != NULL && published == version);
        opd_slot_put(e->c->eval_weights, buf, version);
        opd_buf_release(buf);
    }
    return ask(e);
}
