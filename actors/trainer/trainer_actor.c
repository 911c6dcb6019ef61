/* trainer_actor.c - the steering of a stage around the learner (trainer_actor.h).
 *
 * States: START (until the first evaluation is done) -> FILL (collecting a batch) -> LEARN (units
 * on the lane) -> FILL ... -> CLOSE (last evaluation, save) -> the system stops. HALT: something
 * is wrong, the system has been asked to stop, no batch is begun.
 * Invariants: (1) the lane has at most one job of ours; (2) messages are held, in order, until
 * the batch takes their content; (3) an interrupt is honoured between batches only, so that the
 * saved state is that of a whole number of batches; (4) a stop that others asked for (a lost
 * teacher, a failed role) ends the batch at work and saves before the actor exits. While the
 * system stops, roles that are gone already (CLOSED) are no failure of this one; (5) what is held
 * is of one batcher, and of the present one when a batch takes it.
 * Thread: the loop, except run_unit and run_snapshot (the lane). The actor owns the batch.
 */
#include "actors/trainer/trainer_actor.h"

#include <math.h>
#include <string.h>

#include "actors/messages.h"
#include "actors/trainer/admission.h"
#include "actors/trainer/evaluations.h"
#include "actors/trainer/sample_metrics.h"
#include "actors/trainer/validation.h"
#include "core/base/check.h"
#include "opd/diagnosis.h"
#include "opd/log.h"

enum {
    INVALID_BATCHES_MAX = 1000,
    RETRY_MS = 10,
    REPLACED_MS = 250, /* the one asked is being restarted */
    REPLACED_MAX = 120
};

typedef enum state { STATE_START, STATE_FILL, STATE_LEARN, STATE_CLOSE, STATE_HALT } state;

typedef struct trainer {
    opd_trainer_config c;
    opd_ctx *ctx;
    state state;
    uint64_t version; /* batches done */
    opd_batch *batch;
    opd_msg **held; /* ring of SAMPLEs or EXAMPLEs, [held_max] */
    size_t held_head, held_count, held_max, batch_samples;
    uint64_t next_group;      /* the first that is not learnt                       */
    opd_admission admission;  /* groups, and places in dataset order                */
    opd_pid source;           /* whose samples these are: a batcher, or the dataset */

    opd_job job;
    bool learned;       /* the unit that ran was the batch's last */
    bool publish;       /* snapshot the weights after this batch */
    opd_slice snapshot; /* made on the lane */
    opd_event begin;
    opd_timer admit_retry, save_retry; /* a full mailbox refused it */
    uint32_t replaced_count; /* times in a row that the one asked was gone */

    opd_evaluations evaluations;
    opd_validation validation;
    uint32_t due; /* sets to evaluate before the next batch: another evaluation is at work */
    bool interrupted, saving, closing;
    bool stopping;          /* STOP came: exit when saved */
    uint64_t saved_version; /* of the newest checkpoint   */
    opd_err stop_reason;
    double batch_values[OPD_METRIC_COUNT]; /* what the actor measures itself */
    uint64_t samples_seen, batch_full_ns, last_batch_ns;
    uint64_t idle_ns;  /* since when a batch could have begun; 0: something else is done */
    uint64_t ready_ns; /* when the batch had everything but scores; 0: unknown          */
    double valid_shares[INVALID_BATCHES_MAX]; /* ring of the newest batches */
    uint64_t valid_share_count;
} trainer;

static opd_err fill(trainer *t);
static void drop_stale(trainer *t);
static opd_err close_stage(trainer *t);

/* ---- evaluation and saving ---- */

/* The one asked is gone: its supervisor starts another, or ends the run. */
static opd_err ask_successor(trainer *t, opd_timer *retry) {
    if (t->replaced_count++ == REPLACED_MAX)
        return opd_fail(OPD_ERR_CLOSED, "nobody has taken its place for %d s",
                        REPLACED_MAX * REPLACED_MS / 1000);
    return opd_timer_start_after(retry, REPLACED_MS * UINT64_C(1000000));
}

static opd_err again(opd_timer *retry) {
    return opd_timer_start_after(retry, RETRY_MS * UINT64_C(1000000));
}

/* Begins what is due, unless another evaluation is at work; that one's end calls again. */
static opd_err evaluate_due(trainer *t) {
    uint32_t sets = t->due;
    if (sets == 0 || t->evaluations.busy) return OPD_OK;
    t->due = 0;
    return opd_evaluations_begin(&t->evaluations, t->version, sets, false);
}

static opd_err evaluated(void *self) {
    trainer *t = self;
    if (t->stopping || t->stop_reason != OPD_OK) return OPD_OK; /* it did not wait */
    OPD_TRY(evaluate_due(t));
    return t->closing ? close_stage(t) : fill(t);
}

static opd_err saved(opd_ctx *ctx, void *self, void *arg, opd_err err, opd_msg *reply) {
    (void)arg;
    (void)reply;
    trainer *t = self;
    if (err == OPD_ERR_CLOSED && !t->stopping)
        return opd_err_prefix(ask_successor(t, &t->save_retry), "checkpoint");
    t->saving = false;
    t->replaced_count = 0;
    opd_buf_release(t->snapshot.buf);
    t->snapshot = (opd_slice){.buf = NULL};
    if (err != OPD_OK && t->stopping) OPD_LOG_ERROR("checkpoint: %s", opd_err_context());
    OPD_TRY(opd_err_prefix(err, "checkpoint"));
    t->saved_version = t->version;
    if (t->stopping) {
        opd_exit(ctx, OPD_OK);
        return OPD_OK;
    }
    if (!t->closing) return fill(t);
    t->c.outcome->finished = t->stop_reason == OPD_OK;
    if (t->stop_reason == OPD_ERR_INTERRUPTED)
        t->stop_reason = opd_fail(OPD_ERR_INTERRUPTED, "stopped by a signal after step %llu; a "
                                  "checkpoint was saved: go on with --resume",
                                  (unsigned long long)t->version);
    opd_system_stop(opd_self_system(t->ctx), t->stop_reason);
    return OPD_OK;
}

/* On the lane: weights and moments side by side in one buffer. */
static opd_err run_snapshot(opd_job *job) {
    trainer *t = job->arg;
    size_t count = opd_learner_state_count(t->c.learner);
    opd_buf *buf;
    OPD_TRY(opd_buf_create(t->c.alloc, count * sizeof(float), &buf));
    opd_learner_state_copy(t->c.learner, opd_buf_data(buf));
    t->snapshot = opd_slice_whole(buf);
    return OPD_OK;
}

static opd_err ask_to_save(trainer *t) {
    const opd_optimizer *optimizer = opd_learner_optimizer(t->c.learner);
    const opd_trainer_outcome *o = t->c.outcome;
    opd_save_fields f = {
        .step = t->version, .group = t->next_group,
        .optimizer_step = optimizer->step, .samples = o->samples,
        .response_tokens = o->response_tokens, .invalid_tokens = o->invalid_tokens,
        .unscored_batches = o->unscored_batches, .skipped_steps = o->skipped_steps,
        .before_correct = o->before_correct, .before_total = o->before_total,
        .state = t->snapshot, .degraded_tokens = o->degraded_tokens,
        .best_step = o->best_step, .best_1e9 = o->best_1e9,
        .judged_step = t->evaluations.busy ? t->evaluations.version : 0};
    opd_err err = opd_message_request(t->ctx, t->c.roles->checkpoint, OPD_MESSAGE_SAVE, &f,
                                      OPD_NO_DEADLINE, saved, NULL, NULL);
    return err == OPD_ERR_AGAIN ? again(&t->save_retry) : err;
}

static opd_err snapshot_done(opd_ctx *ctx, void *self, opd_job *job) {
    (void)ctx;
    if (job->err != OPD_OK) return opd_fail(job->err, "trainer: %s", job->text);
    return ask_to_save(self);
}

static opd_err save(trainer *t) {
    t->saving = true;
    t->job = (opd_job){.run = run_snapshot, .done = snapshot_done, .arg = t};
    return opd_job_submit(t->ctx, t->c.lane, &t->job);
}

/* The last steps of a stage: [wait for an evaluation] -> [evaluate] -> save -> stop. */
static opd_err close_stage(trainer *t) {
    const opd_evaluations *e = &t->evaluations;
    bool orderly = t->stop_reason == OPD_OK;
    t->state = STATE_CLOSE;
    t->closing = true;
    if (orderly && e->busy) return OPD_OK;
    if (orderly && t->c.eval_end && !e->last)
        return opd_evaluations_begin(&t->evaluations, t->version, opd_evaluations_all(e), true);
    return save(t);
}

/* ---- a batch ---- */

static opd_err admit(trainer *t) {
    if (t->c.objective == OPD_OBJECTIVE_SFT) return OPD_OK;
    bool learning = t->state == STATE_LEARN;
    if (learning && t->c.spare_groups > 0) return OPD_OK; /* the next batch is of the next weights */
    drop_stale(t);
    opd_admit_fields f;
    t->c.outcome->groups_admitted = opd_admission_bound(&t->admission, t->version, &f);
    opd_err err = opd_message_send(t->ctx, t->c.roles->dataset, OPD_MESSAGE_ADMIT, &f);
    if (err == OPD_ERR_AGAIN) return again(&t->admit_retry);
    return err == OPD_ERR_CLOSED ? OPD_OK : err;
}

/* On the lane: the next unit; after the last one the weights' snapshot, if wanted. */
static opd_err run_unit(opd_job *job) {
    trainer *t = job->arg;
    OPD_TRY(opd_learner_advance(t->c.learner, &t->learned));
    if (!t->learned || !t->publish) return OPD_OK;
    return opd_slice_copy(t->c.alloc, t->c.model->params,
                          t->c.model->param_count * sizeof(float), &t->snapshot);
}

static opd_err unit_done(opd_ctx *ctx, void *self, opd_job *job);

/* A sample came, a part of a batch was learnt: whoever watches for stalls may be at ease. */
static void note_progress(const trainer *t) {
    opd_progress_note(opd_self_system(t->ctx), t->c.steps - t->version);
}

static opd_err submit_unit(trainer *t) {
    t->job = (opd_job){.run = run_unit, .done = unit_done, .arg = t};
    return opd_job_submit(t->ctx, t->c.lane, &t->job);
}

static bool due(uint64_t interval, uint64_t count) { return interval > 0 && count % interval == 0; }

static opd_err begin_batch(trainer *t) {
    uint64_t next = t->version + 1;
    bool last = next == t->c.steps;
    t->publish = t->c.objective == OPD_OBJECTIVE_POLICY || opd_evaluations_due(&t->evaluations, next) != 0 || last;
    t->state = STATE_LEARN;
    t->batch_full_ns = opd_now_ns(t->ctx);
    if (t->c.teacher && t->ready_ns > 0) {
        uint64_t since = t->ready_ns > t->idle_ns ? t->ready_ns : t->idle_ns;
        uint64_t wait = since < t->batch_full_ns ? t->batch_full_ns - since : 0;
        t->batch_values[OPD_METRIC_SCORE_WAIT_TIME] = (double)wait * 1e-9;
    }
    t->idle_ns = t->ready_ns = 0;
    opd_learner_begin(t->c.learner, t->batch);
    return submit_unit(t);
}

static void publish(trainer *t) {
    opd_slot_put(t->c.weights, t->snapshot.buf, t->version);
    opd_buf_release(t->snapshot.buf);
    t->snapshot = (opd_slice){.buf = NULL};
}

/* What each teacher contributed, as REPORT wants it; none without teachers, or memory. */
static opd_slice teacher_report(const trainer *t) {
    double values[2 * OPD_CONFIG_TEACHERS_MAX];
    opd_slice slice = {.buf = NULL};
    if (!t->c.teacher || t->c.teacher_count == 0) return slice;
    for (size_t i = 0; i < t->c.teacher_count; i++)
        opd_learner_teacher(t->c.learner, i, &values[2 * i], &values[2 * i + 1]);
    opd_err err = opd_slice_copy(t->c.alloc, values, t->c.teacher_count * 2 * sizeof *values, &slice);
    if (err != OPD_OK) OPD_LOG_WARN("trainer: the teachers' parts were not shown: %s", opd_err_text(err));
    return slice;
}

static void report(trainer *t) {
    double values[OPD_METRIC_COUNT];
    opd_learner_report(t->c.learner, values);
    uint64_t now = opd_now_ns(t->ctx);
    t->batch_values[OPD_METRIC_STEP_TIME] = (double)(now - t->last_batch_ns) * 1e-9;
    t->batch_values[OPD_METRIC_WAIT_TIME] = (double)(t->batch_full_ns - t->last_batch_ns) * 1e-9;
    t->batch_values[OPD_METRIC_TRAIN_TIME] = (double)(now - t->batch_full_ns) * 1e-9;
    t->batch_values[OPD_METRIC_RESTARTS] = (double)t->c.outcome->restarts;
    t->last_batch_ns = now;
    for (int i = 0; i < OPD_METRIC_COUNT; i++)
        if (!isnan(t->batch_values[i])) values[i] = t->batch_values[i];
    opd_trainer_outcome *o = t->c.outcome;
    o->samples += t->batch->sample_count;
    o->response_tokens += t->batch->row_count;
    if (!isnan(values[OPD_METRIC_INVALID_TOKENS]))
        o->invalid_tokens += (uint64_t)values[OPD_METRIC_INVALID_TOKENS];
    if (!isnan(values[OPD_METRIC_DEGRADED_TOKENS]))
        o->degraded_tokens += (uint64_t)values[OPD_METRIC_DEGRADED_TOKENS];
    if (!isnan(values[OPD_METRIC_SCORE_WAIT_TIME]))
        o->score_wait_s += values[OPD_METRIC_SCORE_WAIT_TIME];
    o->unscored_batches = (uint64_t)values[OPD_METRIC_UNSCORED];
    o->skipped_steps = (uint64_t)values[OPD_METRIC_SKIPPED];
    if (t->c.teacher)
        t->valid_shares[t->valid_share_count++ % t->c.invalid_batches] =
            isnan(values[OPD_METRIC_VALID_SHARE]) ? 0 : values[OPD_METRIC_VALID_SHARE];
    opd_report_fields f = {.step = t->version};
    if (opd_slice_copy(t->c.alloc, values, sizeof values, &f.values) != OPD_OK) return;
    f.teachers = teacher_report(t);
    opd_err err = opd_message_send(t->ctx, t->c.roles->monitor, OPD_MESSAGE_REPORT, &f);
    if (err != OPD_OK) OPD_LOG_WARN("trainer: a report was not shown: %s", opd_err_text(err));
    opd_buf_release(f.values.buf);
    opd_buf_release(f.teachers.buf);
}

/* Whether too many scores were missing for too long. */
static opd_err check_valid_share(const trainer *t) {
    if (!t->c.teacher || t->valid_share_count < t->c.invalid_batches) return OPD_OK;
    double sum = 0;
    for (uint32_t i = 0; i < t->c.invalid_batches; i++) sum += t->valid_shares[i];
    double invalid = 1 - sum / t->c.invalid_batches;
    if (invalid <= t->c.invalid_share_max) return OPD_OK;
    return opd_fail(OPD_ERR_TEACHER_LOST,
                    "%.0f %% of the tokens of the last %u batches have no teacher score (the most "
                    "is opd.invalid_share_max = %g); look at the teacher's log, then --resume",
                    invalid * 100, t->c.invalid_batches, t->c.invalid_share_max);
}

static opd_err check_numbers(const trainer *t) {
    if (opd_learner_nonfinite_run(t->c.learner) < t->c.nonfinite_max) return OPD_OK;
    return opd_fail(OPD_ERR_NUMERIC, "%u steps in a row had a loss or gradient that is no finite "
                    "number; begin anew with a lower train.lr",
                    t->c.nonfinite_max);
}

/* Asks for the ordered stop. STOP saves what was learnt, except numbers that lead nowhere. */
static opd_err halt(trainer *t, opd_err reason) {
    t->state = STATE_HALT;
    if (reason == OPD_ERR_NUMERIC) t->saved_version = t->version;
    opd_system_stop(opd_self_system(t->ctx), reason);
    return OPD_OK;
}

/* After STOP, with no batch at work: saves if there is something to save, then exits. */
static opd_err leave(trainer *t) {
    opd_progress_note(opd_self_system(t->ctx), 0);
    if (t->version > t->saved_version) return save(t);
    opd_exit(t->ctx, OPD_OK);
    return OPD_OK;
}

static opd_err after_batch(trainer *t) {
    t->version++;
    t->c.outcome->steps = t->c.outcome->version = t->version;
    t->next_group = t->c.outcome->groups_taken;
    report(t);
    opd_batch_clear(t->batch);
    opd_metrics_clear(t->batch_values);
    if (t->publish) publish(t);
    t->state = STATE_FILL;
    opd_err trouble = check_numbers(t);
    if (trouble == OPD_OK) trouble = check_valid_share(t);
    if (trouble != OPD_OK) OPD_TRY(halt(t, trouble));
    if (t->stopping) return leave(t);
    if (trouble != OPD_OK) return OPD_OK;
    if (t->interrupted) {
        t->stop_reason = OPD_ERR_INTERRUPTED;
        return close_stage(t);
    }
    if (t->version == t->c.steps) return close_stage(t);
    t->due = opd_evaluations_due(&t->evaluations, t->version);
    bool judged = t->c.best != NULL && (t->due >> t->c.best->set & 1) != 0;
    if (judged || due(t->c.save_interval, t->version)) OPD_TRY(save(t));
    OPD_TRY(evaluate_due(t));
    return fill(t);
}

/* The loss of held-out examples is part of the batch's report. */
static opd_err validated(void *self, double loss) {
    trainer *t = self;
    t->batch_values[OPD_METRIC_VALIDATION_LOSS] = loss;
    note_progress(t);
    return after_batch(t);
}

static opd_err unit_done(opd_ctx *ctx, void *self, opd_job *job) {
    (void)ctx;
    trainer *t = self;
    if (job->err == OPD_ERR_TEACHER_LOST) { /* before the batch's first step: nothing is lost */
        OPD_TRY(halt(t, opd_fail(job->err, "after step %llu: %s; look at the teacher's log, then "
                                 "--resume", (unsigned long long)t->version, job->text)));
        return t->stopping ? leave(t) : OPD_OK;
    }
    if (job->err != OPD_OK) return opd_fail(job->err, "trainer: %s", job->text);
    note_progress(t);
    if (!t->learned) return submit_unit(t);
    bool validate = t->version + 1 == t->c.steps || due(t->c.validation_interval, t->version + 1);
    return validate && t->c.validation != NULL ? opd_validation_run(&t->validation, t->ctx, t->c.lane)
                                               : after_batch(t);
}

/* ---- filling the batch ---- */

static opd_err add_example(trainer *t, const opd_msg *msg) {
    opd_example_fields f;
    OPD_TRY(opd_message_read(msg, OPD_MESSAGE_EXAMPLE, &f));
    uint32_t length = (uint32_t)(f.tokens.size_bytes / sizeof(int32_t));
    opd_batch_sample sample = {.group = f.group, .prompt_len = f.prompt_len,
                               .response_len = length - f.prompt_len,
                               .tokens = opd_slice_data(f.tokens),
                               .learn = f.learn.buf != NULL ? opd_slice_data(f.learn) : NULL};
    if (f.learn.buf != NULL && f.learn.size_bytes != sample.response_len)
        return opd_fail(OPD_ERR_MISMATCH, "trainer: a mask of %zu for %u tokens",
                        f.learn.size_bytes, sample.response_len);
    return opd_batch_add(t->batch, &sample);
}

/* Every k-th sample goes to samples.jsonl; one that the monitor cannot take is left out. */
static void show_sample(trainer *t, const opd_sample_fields *f) {
    if (t->c.samples_interval == 0 || t->samples_seen++ % t->c.samples_interval != 0) return;
    opd_err err = opd_message_send(t->ctx, t->c.roles->monitor, OPD_MESSAGE_SAMPLE, f);
    if (err != OPD_OK) OPD_LOG_DEBUG("trainer: a sample was not shown: %s", opd_err_text(err));
}

/* Place of the only teacher of a sample, which goes by its name. */
static uint8_t teacher_named(const trainer *t, const char *name) {
    for (size_t i = 0; i < t->c.teacher_count; i++)
        if (strcmp(t->c.teachers[i].name, name) == 0) return (uint8_t)i;
    return 0;
}

static opd_err add_sample(trainer *t, const opd_msg *msg) {
    opd_sample_fields f;
    OPD_TRY(opd_message_read(msg, OPD_MESSAGE_SAMPLE, &f));
    f.group = opd_admission_place(&t->admission, f.group);
    const uint64_t *spans = opd_slice_data(f.spans);
    uint32_t length = (uint32_t)(f.tokens.size_bytes / sizeof(int32_t));
    uint8_t only = teacher_named(t, f.teacher);
    opd_batch_sample sample = {
        .group = f.group, .prompt_len = f.prompt_len, .response_len = length - f.prompt_len,
        .tokens = opd_slice_data(f.tokens), .rollout_logp = opd_slice_data(f.logp),
        .teacher_logp = opd_slice_data(f.teacher_logp), .teacher_valid = opd_slice_data(f.teacher_valid),
        .teacher_topk = opd_slice_data(f.teacher_topk), .teacher_topk_logp = opd_slice_data(f.teacher_topk_logp),
        .asked_ids = opd_slice_data(f.topk), .asked_logp = opd_slice_data(f.asked_logp), .reward = f.reward,
        .reward_valid = f.reward_valid, .teacher_count = f.teachers.size_bytes,
        .teachers = f.teachers.buf != NULL ? opd_slice_data(f.teachers) : &only,
        .weights = opd_slice_data(f.weights), .reuse_logp = spans != NULL && spans[0] == t->version};
    if ((sample.teacher_topk != NULL &&
         f.teacher_topk.size_bytes != sample.response_len * t->c.teacher_k * sizeof(int32_t)) ||
        (sample.asked_ids != NULL &&
         f.topk.size_bytes != sample.response_len * t->c.asked_k * sizeof(int32_t)))
        return opd_fail(OPD_ERR_MISMATCH, "trainer: %zu and %zu bytes of likely ids for %u tokens",
                        f.teacher_topk.size_bytes, f.topk.size_bytes, sample.response_len);
    if (f.ready_ns > t->ready_ns) t->ready_ns = f.ready_ns;
    t->admission.last = f.group;
    opd_sample_metrics_add(t->batch_values, &f, t->version, t->batch_samples, t->c.teacher);
    show_sample(t, &f);
    return opd_batch_add(t->batch, &sample);
}

/* Whether a sample or example is of the present batcher (or dataset). */
static bool current(const trainer *t, const opd_msg *msg) {
    const opd_roles *r = t->c.roles;
    return opd_msg_from(msg) == (t->c.objective == OPD_OBJECTIVE_SFT ? r->dataset : r->batcher);
}

static void drop_stale(trainer *t) {
    const opd_roles *r = t->c.roles;
    opd_pid source = t->c.objective == OPD_OBJECTIVE_SFT ? r->dataset : r->batcher;
    if (source != t->source) { /* it begins anew at the first that no batch took, and filters again */
        t->source = source;
        opd_admission_begin(&t->admission, t->version + (t->state == STATE_LEARN));
    }
    for (; t->held_count > 0 && !current(t, t->held[t->held_head]); t->held_count--) {
        opd_msg_release(t->held[t->held_head]);
        t->held_head = (t->held_head + 1) % t->held_max;
    }
}

/* Notes up to which group the batch goes: B of those, and the ones that were filtered between them. */
static void take_groups(trainer *t) {
    opd_admission *a = &t->admission;
    opd_trainer_outcome *o = t->c.outcome;
    if (!t->c.filter) a->last = a->taken + a->batch_prompts - 1;
    double dropped = (double)opd_admission_take(a);
    if (t->c.filter) t->batch_values[OPD_METRIC_FILTER_ZERO_STD] = dropped;
    o->groups_taken = a->taken;
    if (a->spare_groups > 0) o->groups_admitted = a->taken; /* what was beyond is void */
}

/* Starts the next batch if one is there and nothing else is in the way. */
static opd_err fill(trainer *t) {
    if (t->closing || t->saving || t->due != 0 || t->stopping) return OPD_OK;
    if (opd_evaluations_hold(&t->evaluations)) return OPD_OK;
    if (t->state == STATE_START) {
        t->state = STATE_FILL;
        t->last_batch_ns = opd_now_ns(t->ctx);
    }
    if (t->state != STATE_FILL) return OPD_OK;
    if (t->idle_ns == 0) t->idle_ns = opd_now_ns(t->ctx);
    if (t->interrupted) {
        t->stop_reason = OPD_ERR_INTERRUPTED;
        return close_stage(t);
    }
    OPD_TRY(admit(t));
    drop_stale(t);
    if (t->held_count < t->batch_samples) return OPD_OK;
    for (size_t i = 0; i < t->batch_samples; i++) {
        opd_msg *msg = t->held[t->held_head];
        t->held_head = (t->held_head + 1) % t->held_max;
        t->held_count--;
        opd_err err = t->c.objective == OPD_OBJECTIVE_SFT ? add_example(t, msg)
                                                          : add_sample(t, msg);
        opd_msg_release(msg);
        OPD_TRY(err);
    }
    take_groups(t);
    t->batch_values[OPD_METRIC_SAMPLES] = (double)t->batch->sample_count;
    t->batch_values[OPD_METRIC_TOKENS] = (double)t->batch->token_count;
    return begin_batch(t);
}

/* ---- the actor ---- */

static opd_err admit_again(opd_ctx *ctx, void *self, opd_timer *timer) {
    (void)ctx;
    (void)timer;
    return admit(self);
}

static opd_err save_again(opd_ctx *ctx, void *self, opd_timer *timer) {
    (void)ctx;
    (void)timer;
    return ask_to_save(self);
}

/* Runs when every role has been spawned. */
static opd_err begin(opd_ctx *ctx, void *self, opd_event *event) {
    (void)event;
    trainer *t = self;
    t->last_batch_ns = opd_now_ns(ctx);
    note_progress(t);
    if (t->version == t->c.steps) return close_stage(t); /* resumed after its last batch */
    if (t->c.eval_start && t->version == 0) t->due = opd_evaluations_all(&t->evaluations);
    OPD_TRY(evaluate_due(t));
    return fill(t);
}

static opd_err on_start(opd_ctx *ctx, void *self, const void *config) {
    trainer *t = self;
    t->c = *(const opd_trainer_config *)config;
    OPD_ASSERT(t->c.invalid_batches <= INVALID_BATCHES_MAX);
    OPD_ASSERT(t->c.teacher_count <= OPD_CONFIG_TEACHERS_MAX);
    t->ctx = ctx;
    t->version = t->c.first_step;
    t->saved_version = t->version;
    t->c.outcome->steps = t->c.outcome->version = t->version;
    t->next_group = t->c.first_group;
    t->admission = (opd_admission){
        .batch_prompts = t->c.batch_prompts, .max_staleness = t->c.max_staleness, .steps = t->c.steps,
        .spare_groups = t->c.spare_groups, .taken = t->c.first_group};
    opd_admission_begin(&t->admission, t->version);
    t->c.outcome->groups_taken = t->c.outcome->groups_admitted = t->c.first_group;
    t->samples_seen = t->c.outcome->samples;
    t->batch_samples = (size_t)t->c.batch_prompts * t->c.samples_per_prompt;
    t->held_max = t->batch_samples * (t->c.max_staleness + 2);
    opd_metrics_clear(t->batch_values);
    t->held = opd_mem_get(t->c.alloc, t->held_max * sizeof *t->held);
    if (t->held == NULL) return opd_fail(OPD_ERR_NOMEM, "trainer: no memory");
    OPD_TRY(opd_batch_create(t->c.alloc, t->batch_samples, t->c.tokens_max, t->c.teacher_k, t->c.asked_k,
                             t->c.teacher_count > 0 ? t->c.teacher_count : 1, &t->batch));
    opd_batch_clear(t->batch);
    if (t->c.validation != NULL)
        OPD_TRY(opd_validation_open(&t->validation, t->c.validation, t->c.learner, t->batch_samples,
                                    t->c.tokens_max, t->c.alloc, validated, t));
    OPD_TRY(opd_slice_copy(t->c.alloc, t->c.model->params,
                           t->c.model->param_count * sizeof(float), &t->snapshot));
    publish(t);
    opd_timer_init(&t->admit_retry, ctx, admit_again);
    opd_evaluations_init(&t->evaluations, &t->c, ctx, evaluated, t);
    opd_timer_init(&t->save_retry, ctx, save_again);
    t->begin = (opd_event){.to = opd_self(ctx), .deliver = begin};
    opd_event_post(opd_self_system(ctx), &t->begin);
    return OPD_OK;
}

static opd_err on_message(opd_ctx *ctx, void *self, opd_msg *msg) {
    trainer *t = self;
    if (opd_msg_kind(msg) == OPD_MESSAGE_INTERRUPT) {
        t->interrupted = true;
        return t->state == STATE_FILL ? fill(t) : OPD_OK;
    }
    drop_stale(t);
    if (!current(t, msg)) return OPD_OK;
    OPD_ASSERT(t->held_count < t->held_max || opd_msg_kind(msg) == OPD_MESSAGE_FILTERED); /* the window is smaller */
    note_progress(t);
    if (opd_msg_kind(msg) == OPD_MESSAGE_FILTERED) {
        t->admission.filtered++;
        return admit(t);
    }
    opd_msg_take(ctx, msg);
    t->held[(t->held_head + t->held_count++) % t->held_max] = msg;
    return t->state == STATE_FILL && t->held_count >= t->batch_samples ? fill(t) : OPD_OK;
}

static opd_err on_signal(opd_ctx *ctx, void *self, const opd_signal *signal) {
    trainer *t = self;
    if (signal->kind != OPD_SIGNAL_STOP) return OPD_OK;
    t->stopping = t->evaluations.stopped = true;
    opd_stop_defer(ctx);
    return t->state == STATE_LEARN || t->saving ? OPD_OK : leave(t);
}

static void on_stop(opd_ctx *ctx, void *self) {
    (void)ctx;
    trainer *t = self;
    for (size_t i = 0; i < t->held_count; i++)
        opd_msg_release(t->held[(t->held_head + i) % t->held_max]);
    opd_mem_free(t->c.alloc, t->held);
    opd_buf_release(t->snapshot.buf);
    opd_batch_destroy(t->batch);
    opd_validation_close(&t->validation);
}

const opd_actor_class opd_trainer_class = {
    .name = "trainer", .state_size = sizeof(trainer), .on_start = on_start,
    .on_message = on_message, .on_signal = on_signal, .on_stop = on_stop};
