/* models/optimizer.h - AdamW with warm-up, schedules, clipping and a guard against non-finite
 * gradients.
 *
 *   m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2;  g clipped by global norm first
 *   p -= lr_t * ( (m / (1-b1^t)) / (sqrt(v / (1-b2^t)) + eps)  +  weight_decay * p )
 * (Loshchilov & Hutter 2019). Weight decay applies to rank-2 tensors only. lr_t rises
 * linearly over warmup_steps (step t of 1.. gets lr * t / warmup_steps), then stays, falls
 * linearly or by half a cosine from lr to min_lr_ratio * lr at total_steps, and stays there.
 *
 * Invariants: the result depends on the gradient bits only, not on the thread count. A step
 * with a non-finite gradient changes nothing but the `skipped` counter.
 *
 * Thread: one at a time (the trainer's lane). The optimizer owns m and v.
 */
#ifndef OPD_MODELS_OPTIMIZER_H
#define OPD_MODELS_OPTIMIZER_H

#include "kernels/kernels.h"
#include "models/model.h"

typedef enum opd_schedule {
    OPD_SCHEDULE_CONSTANT,
    OPD_SCHEDULE_LINEAR,
    OPD_SCHEDULE_COSINE
} opd_schedule;

typedef struct opd_optimizer_config {
    double lr;              /* peak learning rate, >= 0                          */
    double beta1, beta2;    /* in [0, 1)                                          */
    double eps;             /* > 0                                                */
    double weight_decay;    /* >= 0, decoupled                                    */
    double clip_norm;       /* most global gradient norm; 0 = no clipping         */
    opd_schedule schedule;
    uint64_t warmup_steps;  /* 0 = none                                           */
    uint64_t total_steps;   /* where linear and cosine end; unused by constant    */
    double min_lr_ratio;    /* in [0, 1]                                          */
} opd_optimizer_config;

/* Everything a checkpoint must keep besides the weights. */
typedef struct opd_optimizer {
    opd_optimizer_config config;
    uint64_t step;     /* steps made                                              */
    uint64_t skipped;  /* steps refused for non-finite gradients                   */
    float *m, *v;      /* [param_count] first and second moments                   */
    size_t param_count;
    const struct opd_alloc *alloc;
} opd_optimizer;

/* What a step did. */
typedef struct opd_optimizer_report {
    double lr;        /* rate used (or that would have been used)                 */
    double grad_norm; /* global norm before clipping; NaN or Inf when skipped      */
    bool skipped;     /* non-finite gradient: nothing changed                      */
} opd_optimizer_report;

/* Sensible values: lr 1e-3, betas 0.9/0.95, eps 1e-8, decay 0, clip 1, constant, no warm-up. */
opd_optimizer_config opd_optimizer_config_default(void);

/* Zero moments for param_count weights. Errors: INVALID (a setting out of range), NOMEM.
 * Caller destroys. */
OPD_MUST_CHECK opd_err opd_optimizer_create(const opd_optimizer_config *config,
                                            size_t param_count, const struct opd_alloc *alloc,
                                            opd_optimizer **out_optimizer);

/* Frees it; NULL is legal. */
void opd_optimizer_destroy(opd_optimizer *optimizer);

/* The rate of step `step` (1 = the first). */
double opd_optimizer_lr_at(const opd_optimizer_config *config, uint64_t step);

/* One step on `model` from grads [param_count], which stays as it is. The model's packed
 * copies (graphs, decoders) must be renewed by the caller. */
opd_optimizer_report opd_optimizer_step(opd_optimizer *optimizer, opd_kernels *kernels,
                                        opd_model *model, const float *grads);

#endif
