/* checkpoint_actor.c - one save at a time on the disk lane (checkpoint_actor.h).
 *
 * Invariants: the SAVE message is held until its answer; a second SAVE while one runs is
 * answered AGAIN. Thread: the loop, except write_job (the lane).
 */
#include "actors/checkpoint/checkpoint_actor.h"

#include "actors/checkpoint/checkpoint.h"
#include "actors/messages.h"
#include "core/base/check.h"

typedef struct checkpoint {
    opd_checkpoint_config c;
    opd_msg *request; /* being served, NULL: idle */
    opd_save_fields fields;
    opd_job job;
} checkpoint;

static opd_err on_start(opd_ctx *ctx, void *state, const void *config) {
    (void)ctx;
    ((checkpoint *)state)->c = *(const opd_checkpoint_config *)config;
    return OPD_OK;
}

static opd_err write_job(opd_job *job) {
    const checkpoint *s = job->arg;
    const opd_save_fields *f = &s->fields;
    opd_checkpoint_state info = {
        .step = f->step, .group = f->group, .optimizer_step = f->optimizer_step,
        .seed = s->c.seed, .samples = f->samples, .response_tokens = f->response_tokens,
        .invalid_tokens = f->invalid_tokens, .unscored_batches = f->unscored_batches,
        .skipped_steps = f->skipped_steps, .before_correct = f->before_correct,
        .before_total = f->before_total, .degraded_tokens = f->degraded_tokens,
        .best_step = f->best_step, .best_1e9 = f->best_1e9, .judged_step = f->judged_step};
    return opd_checkpoint_write(s->c.dir, s->c.model, s->c.critic, s->c.tokenizer, &info,
                                opd_slice_data(s->fields.state), s->c.keep, s->c.alloc);
}

static opd_err written(opd_ctx *ctx, void *state, opd_job *job) {
    checkpoint *s = state;
    opd_saved_fields f = {.step = s->fields.step};
    if (job->err == OPD_OK) opd_message_reply(ctx, s->request, OPD_MESSAGE_SAVED, &f);
    else opd_reply_error(ctx, s->request, opd_fail(job->err, "%s", job->text));
    opd_msg_release(s->request);
    s->request = NULL;
    return OPD_OK;
}

static opd_err on_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    checkpoint *s = state;
    if (s->request != NULL) {
        opd_reply_error(ctx, msg, opd_fail(OPD_ERR_AGAIN, "a checkpoint is being written"));
        return OPD_OK;
    }
    OPD_TRY(opd_message_read(msg, OPD_MESSAGE_SAVE, &s->fields));
    size_t head = s->c.critic != NULL ? s->c.critic->param_count : 0;
    size_t size = 3 * (s->c.model->param_count + head) * sizeof(float);
    if (s->fields.state.size_bytes != size)
        return opd_fail(OPD_ERR_PARSE, "checkpoint: a state of %zu bytes, not %zu",
                        s->fields.state.size_bytes, size);
    opd_msg_take(ctx, msg);
    s->request = msg;
    s->job = (opd_job){.run = write_job, .done = written, .arg = s};
    return opd_job_submit(ctx, s->c.disk, &s->job);
}

static void on_stop(opd_ctx *ctx, void *state) {
    (void)ctx;
    opd_msg_release(((checkpoint *)state)->request);
}

const opd_actor_class opd_checkpoint_class = {
    .name = "checkpoint", .state_size = sizeof(checkpoint), .mailbox_msgs_max = 2,
    .mailbox_bytes_max = UINT64_MAX, /* a state is as large as its model; one is made at a time */
    .on_start = on_start, .on_message = on_message, .on_stop = on_stop};
