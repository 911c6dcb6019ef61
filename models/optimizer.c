/* models/optimizer.c - see optimizer.h. */
#include "models/optimizer.h"

#include <math.h>

#include "core/base/check.h"
#include "kernels/array.h"
#include "opd/alloc.h"

opd_optimizer_config opd_optimizer_config_default(void) {
    return (opd_optimizer_config){.lr = 1e-3, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8,
                                  .clip_norm = 1.0, .schedule = OPD_SCHEDULE_CONSTANT};
}

static opd_err check_range(const char *name, double value, double least, double below) {
    if (value >= least && value < below) return OPD_OK;
    return opd_fail(OPD_ERR_INVALID, "optimizer: %s is %g, must be at least %g and below %g", name,
                    value, least, below);
}

static opd_err check_config(const opd_optimizer_config *c) {
    OPD_TRY(check_range("lr", c->lr, 0, 1e6));
    OPD_TRY(check_range("beta1", c->beta1, 0, 1));
    OPD_TRY(check_range("beta2", c->beta2, 0, 1));
    OPD_TRY(check_range("eps", c->eps, 1e-30, 1e6));
    OPD_TRY(check_range("weight_decay", c->weight_decay, 0, 1e6));
    OPD_TRY(check_range("clip_norm", c->clip_norm, 0, 1e30));
    OPD_TRY(check_range("min_lr_ratio", c->min_lr_ratio, 0, 1.0000001));
    if (c->schedule != OPD_SCHEDULE_CONSTANT && c->total_steps <= c->warmup_steps)
        return opd_fail(OPD_ERR_INVALID,
                        "optimizer: total_steps %llu must exceed warmup_steps %llu",
                        (unsigned long long)c->total_steps, (unsigned long long)c->warmup_steps);
    return OPD_OK;
}

opd_err opd_optimizer_create(const opd_optimizer_config *config, size_t param_count,
                             const opd_alloc *alloc, opd_optimizer **out_optimizer) {
    *out_optimizer = NULL;
    OPD_TRY(check_config(config));
    opd_optimizer *o = opd_mem_get(alloc, sizeof *o);
    if (o == NULL) return opd_fail(OPD_ERR_NOMEM, "optimizer");
    o->config = *config;
    o->param_count = param_count;
    o->alloc = alloc;
    o->m = opd_floats_create(alloc, param_count);
    o->v = opd_floats_create(alloc, param_count);
    if (o->m == NULL || o->v == NULL) {
        opd_optimizer_destroy(o);
        return opd_fail(OPD_ERR_NOMEM, "optimizer state of %zu weights", param_count);
    }
    *out_optimizer = o;
    return OPD_OK;
}

void opd_optimizer_destroy(opd_optimizer *optimizer) {
    if (optimizer == NULL) return;
    opd_floats_destroy(optimizer->alloc, optimizer->m);
    opd_floats_destroy(optimizer->alloc, optimizer->v);
    opd_mem_free(optimizer->alloc, optimizer);
}

double opd_optimizer_lr_at(const opd_optimizer_config *c, uint64_t step) {
    if (c->warmup_steps > 0 && step < c->warmup_steps)
        return c->lr * (double)step / (double)c->warmup_steps;
    if (c->schedule == OPD_SCHEDULE_CONSTANT) return c->lr;
    double done = 1.0;
    if (step < c->total_steps)
        done = (double)(step - c->warmup_steps) / (double)(c->total_steps - c->warmup_steps);
    double left = c->schedule == OPD_SCHEDULE_LINEAR
                      ? 1.0 - done
                      : 0.5 * (1.0 + cos(3.14159265358979323846 * done));
    return c->lr * (c->min_lr_ratio + (1.0 - c->min_lr_ratio) * left);
}

opd_optimizer_report opd_optimizer_step(opd_optimizer *o, opd_kernels *kernels, opd_model *model,
                                        const float *grads) {
    const opd_optimizer_config *c = &o->config;
    OPD_ASSERT(model->param_count == o->param_count);
    opd_optimizer_report report = {.lr = opd_optimizer_lr_at(c, o->step + 1)};
    report.grad_norm = sqrt(kernels->ops->sum_squares(kernels, grads, o->param_count));
    if (!isfinite(report.grad_norm)) {
        report.skipped = true;
        o->skipped++;
        return report;
    }
    o->step++;
    double scale = 1.0, t = (double)o->step;
    if (c->clip_norm > 0 && report.grad_norm > c->clip_norm) scale = c->clip_norm / report.grad_norm;
    opd_adamw_args args = {.beta1 = (float)c->beta1, .beta2 = (float)c->beta2,
                           .eps = (float)c->eps, .grad_scale = (float)scale,
                           .step_size = (float)(report.lr / (1.0 - pow(c->beta1, t))),
                           .v_scale = (float)(1.0 / (1.0 - pow(c->beta2, t)))};
    for (size_t i = 0; i < model->tensor_count; i++) {
        const opd_tensor *tensor = &model->tensors[i];
        size_t at = tensor->offset;
        args.decay = tensor->rank == 2 ? (float)(report.lr * c->weight_decay) : 0.0f;
        kernels->ops->adamw(kernels, model->params + at, o->m + at, o->v + at, grads + at,
                            tensor->count, &args);
    }
    return report;
}
