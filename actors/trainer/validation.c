/* validation.c - see validation.h. */
#include "actors/trainer/validation.h"

#include <math.h>

#include "core/base/check.h"

opd_err opd_validation_open(opd_validation *v, const opd_dataset *dataset, opd_learner *learner,
                            size_t samples_max, size_t tokens_max, const opd_alloc *alloc,
                            opd_err (*done)(void *owner, double loss), void *owner) {
    *v = (opd_validation){.dataset = dataset, .learner = learner, .done = done, .owner = owner};
    return opd_batch_create(alloc, samples_max, tokens_max, 0, 0, 1, &v->batch);
}

void opd_validation_close(opd_validation *v) { opd_batch_destroy(v->batch); }

static opd_err add(opd_validation *v, bool *out_fits) {
    uint64_t epoch;
    const opd_row *row = opd_dataset_row(v->dataset, v->next, &epoch);
    opd_slice tokens, mask;
    opd_batch_sample sample = {.group = v->next};
    OPD_TRY(opd_dataset_tokens(v->dataset, row, true, &tokens, &sample.prompt_len));
    opd_err err = opd_dataset_mask(v->dataset, row, &mask);
    uint32_t length = (uint32_t)(tokens.size_bytes / sizeof(int32_t));
    *out_fits = v->batch->sample_count < v->batch->samples_max &&
                length <= v->batch->tokens_max - v->batch->token_count;
    if (err == OPD_OK && *out_fits) {
        sample.response_len = length - sample.prompt_len;
        sample.tokens = opd_slice_data(tokens);
        sample.learn = mask.buf != NULL ? opd_slice_data(mask) : NULL;
        err = opd_batch_add(v->batch, &sample);
    }
    opd_buf_release(tokens.buf);
    opd_buf_release(mask.buf);
    return err;
}

/* The next examples; none are left when the batch stays empty. */
static opd_err fill(opd_validation *v) {
    bool fits = true;
    opd_batch_clear(v->batch);
    while (v->next < v->dataset->count) {
        OPD_TRY(add(v, &fits));
        if (!fits) break;
        v->next++;
    }
    if (v->batch->sample_count == 0 && v->next < v->dataset->count)
        return opd_fail(OPD_ERR_LIMIT, "validation: an example is longer than a whole batch");
    return OPD_OK;
}

static opd_err run(opd_job *job) {
    opd_validation *v = job->arg;
    return opd_learner_measure(v->learner, v->batch, &v->loss, &v->tokens);
}

static opd_err measured(opd_ctx *ctx, void *self, opd_job *job);

static opd_err next(opd_validation *v, opd_ctx *ctx) {
    OPD_TRY(fill(v));
    if (v->batch->sample_count == 0)
        return v->done(v->owner, v->tokens > 0 ? v->loss / (double)v->tokens : (double)NAN);
    v->job = (opd_job){.run = run, .done = measured, .arg = v};
    return opd_job_submit(ctx, v->lane, &v->job);
}

static opd_err measured(opd_ctx *ctx, void *self, opd_job *job) {
    (void)self;
    if (job->err != OPD_OK) return opd_fail(job->err, "validation: %s", job->text);
    return next(job->arg, ctx);
}

opd_err opd_validation_run(opd_validation *v, opd_ctx *ctx, opd_lane *lane) {
    v->lane = lane;
    v->next = v->tokens = 0;
    v->loss = 0;
    return next(v, ctx);
}
