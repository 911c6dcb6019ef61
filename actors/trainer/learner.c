/* learner.c - the units of work of a batch (learner.h).
 *
 * State of a batch: PREPARE (log-probs of stale samples, by micro-batch) -> REFERENCE (those of
 * the reference, whose weights the graph holds meanwhile; only where it is asked) -> ADVANTAGE ->
 * TRAIN (micro-batches of optimizer step s) -> UPDATE -> TRAIN of step s+1 ... -> DONE.
 * Thread: the trainer's lane. The learner owns its graph, gradients and scratch arrays.
 */
#include "actors/trainer/learner_inside.h"

#include <math.h>
#include <string.h>

#include "actors/trainer/sft_loss.h"
#include "core/base/check.h"

/* The critic's settings are the optimizer's, but for the rate; a head is not decayed. */
static opd_err create_critic(opd_learner *l) {
    const opd_learner_options *o = &l->o;
    opd_optimizer_config config = o->optimizer;
    config.lr = o->critic_lr;
    config.weight_decay = 0;
    if (o->advantage.estimator.kind != OPD_ESTIMATOR_PPO) return OPD_OK;
    OPD_ASSERT(o->objective == OPD_OBJECTIVE_POLICY);
    return opd_critic_create(&o->critic, &config, (size_t)o->model->config.hidden_size,
                             o->micro_batch_tokens, o->alloc, &l->critic);
}

static opd_err learner_alloc(opd_learner *l) {
    const opd_alloc *a = l->o.alloc;
    size_t n = l->o.tokens_max, k = l->o.student_k ? l->o.student_k : 1;
    l->grads = opd_mem_get(a, l->o.model->param_count * sizeof(float));
    float **columns[] = {&l->student_logp, &l->advantages, &l->weights, &l->logp,
                         &l->entropy, &l->dlogp, &l->dentropy, &l->teacher_logp,
                         &l->ref_logp, &l->correction, &l->values, &l->returns, &l->opd_advantages,
                         &l->dlogp_opd, &l->collision};
    bool whole = l->grads != NULL;
    for (size_t i = 0; i < OPD_COUNTOF(columns); i++) {
        *columns[i] = opd_mem_get(a, n * sizeof(float));
        whole = whole && *columns[i] != NULL;
    }
    l->mask = opd_mem_get(a, n);
    l->scored = opd_mem_get(a, n);
    l->teacher_valid = opd_mem_get(a, n);
    l->tallies = opd_mem_get(a, l->o.teachers_max * sizeof *l->tallies);
    l->student_topk = opd_mem_get(a, n * k * sizeof(int32_t));
    l->student_topk_logp = opd_mem_get(a, n * k * sizeof(float));
    l->rows = opd_mem_get(a, n * sizeof *l->rows);
    l->micro_start = opd_mem_get(a, (l->o.samples_max + 1) * sizeof *l->micro_start);
    whole = whole && l->mask && l->scored && l->teacher_valid && l->tallies && l->student_topk && l->student_topk_logp && l->rows && l->micro_start;
    return whole ? OPD_OK : opd_fail(OPD_ERR_NOMEM, "trainer: no memory for a batch of %zu "
                                     "tokens; lower the batch or train.micro_batch_tokens", n);
}

opd_err opd_learner_create(const opd_learner_options *options, opd_learner **out) {
    OPD_ASSERT(options->steps_per_batch > 0 && options->temperature > 0);
    OPD_ASSERT(options->teachers_max > 0 && options->student_k <= options->teacher_k);
    OPD_ASSERT(options->ref_params != NULL ||
               (options->policy.kl_coef == 0 && options->advantage.estimator.kl_coef == 0));
    OPD_TRY(opd_policy_config_check(&options->policy));
    opd_learner *l = opd_mem_get(options->alloc, sizeof *l);
    if (l == NULL) return opd_fail(OPD_ERR_NOMEM, "trainer: no memory for the learner");
    l->o = *options;
    l->nonfinite = options->nonfinite;
    l->unscored = options->unscored;
    opd_err err;
    OPD_TRY_GOTO(learner_alloc(l), fail);
    const opd_lm_ops *lm = opd_lm_or_default(options->lm);
    OPD_TRY_GOTO(lm->graph_create(options->kernels, &options->model->config, OPD_GRAPH_TRAIN,
                                  options->micro_batch_tokens, options->alloc, &l->graph), fail);
    OPD_TRY_GOTO(opd_optimizer_create(&options->optimizer, options->model->param_count,
                                      options->alloc, &l->optimizer), fail);
    OPD_TRY_GOTO(create_critic(l), fail);
    if (l->o.signal.coef > 0)
        OPD_TRY_GOTO(opd_distil_create(&l->o.signal,
                                       &(opd_divisor){.reduction = l->o.reduction,
                                                      .length = l->o.reduction_length},
                                       (size_t)l->o.model->config.vocab_size, l->o.tokens_max,
                                       options->alloc, &l->distil), fail);
    opd_graph_set_weights(l->graph, l->o.model->params);
    *out = l;
    return OPD_OK;
fail:
    opd_learner_destroy(l);
    return err;
}

void opd_learner_destroy(opd_learner *l) {
    if (l == NULL) return;
    opd_graph_destroy(l->graph);
    opd_optimizer_destroy(l->optimizer);
    opd_critic_destroy(l->critic);
    opd_distil_destroy(l->distil);
    void *blocks[] = {l->grads, l->student_logp, l->advantages, l->weights, l->logp, l->entropy,
                      l->dlogp, l->dentropy, l->mask, l->student_topk, l->student_topk_logp,
                      l->rows, l->micro_start, l->teacher_logp, l->teacher_valid, l->tallies,
                      l->ref_logp, l->correction, l->values, l->returns, l->scored,
                      l->opd_advantages, l->dlogp_opd, l->collision};
    for (size_t i = 0; i < OPD_COUNTOF(blocks); i++) opd_mem_free(l->o.alloc, blocks[i]);
    opd_mem_free(l->o.alloc, l);
}

void opd_learner_begin(opd_learner *l, const opd_batch *batch) {
    OPD_ASSERT(batch->sample_count > 0 && batch->sample_count <= l->o.samples_max);
    OPD_ASSERT(batch->row_count <= l->o.tokens_max && batch->top_k == l->o.teacher_k);
    OPD_ASSERT(batch->asked_k == l->o.asked_k);
    OPD_ASSERT(batch->teachers_max == l->o.teachers_max);
    l->batch = batch;
    l->phase = l->o.objective == OPD_OBJECTIVE_POLICY ? PHASE_PREPARE : PHASE_ADVANTAGE;
    l->cursor = 0;
    l->end = batch->sample_count;
    l->step = 0;
    l->stepped = false;
    l->policy = (opd_policy_stats){.loss = 0};
    l->value = (opd_value_stats){.loss = 0};
    l->overlap = (opd_overlap){.ratio = 0};
    l->sft_loss = l->logp_diff = l->rl_squares = l->opd_squares = 0;
    l->first_rows = 0;
    memset(l->scored, 0, batch->row_count);
    l->made = 0;
    l->update = (opd_optimizer_report){.grad_norm = (double)NAN, .lr = (double)NAN};
    l->corrected = (opd_correction_stats){0};
}

/* Samples [from, to) of the batch as one packed micro-batch: as many as fit from `from`. */
static size_t micro_end(const opd_learner *l, size_t from, size_t end) {
    const opd_batch *b = l->batch;
    size_t to = from + 1;
    while (to < end && b->seq_start[to + 1] - b->seq_start[from] <= l->o.micro_batch_tokens) to++;
    return to;
}

static opd_err micro_forward(opd_learner *l, size_t from, size_t to) {
    const opd_batch *b = l->batch;
    for (size_t i = from; i <= to; i++) l->micro_start[i - from] = b->seq_start[i] - b->seq_start[from];
    opd_packed packed = {.seq_count = to - from, .seq_start = l->micro_start,
                         .tokens = b->tokens + b->seq_start[from]};
    size_t n = 0;
    for (size_t i = from; i < to; i++) {
        size_t rows = b->offsets[i + 1] - b->offsets[i];
        size_t first = l->micro_start[i - from + 1] - rows; /* first response token */
        for (size_t t = 0; t < rows; t++, n++)
            l->rows[n] = (opd_score_row){
                .row = first + t - 1, .target = packed.tokens[first + t],
                .inverse_temperature = 1.0f / (float)l->o.temperature};
    }
    return opd_graph_forward(l->graph, &packed);
}

/* What the rollout brought stands for the student's own; a critic's values it does not bring. */
static bool reusable(const opd_learner *l, size_t sample) {
    return l->batch->reuse_logp[sample] && l->critic == NULL;
}

/* Log-probs of the next stale samples; samples of the trainer's own version are copied. */
static opd_err unit_prepare(opd_learner *l) {
    const opd_batch *b = l->batch;
    while (l->cursor < l->end && reusable(l, l->cursor)) {
        size_t first = b->offsets[l->cursor], rows = b->offsets[l->cursor + 1] - first;
        memcpy(l->student_logp + first, b->rollout_logp + first, rows * sizeof(float));
        l->cursor++;
    }
    if (l->cursor == l->end) {
        l->cursor = 0;
        l->phase = l->o.ref_params != NULL ? PHASE_REFERENCE : PHASE_ADVANTAGE;
        return OPD_OK;
    }
    size_t stale_end = l->cursor;
    while (stale_end < l->end && !reusable(l, stale_end)) stale_end++;
    size_t to = micro_end(l, l->cursor, stale_end), first = b->offsets[l->cursor];
    OPD_TRY(micro_forward(l, l->cursor, to));
    size_t rows = b->offsets[to] - first;
    opd_scores out = {.logp = l->student_logp + first};
    OPD_TRY(opd_graph_score(l->graph, l->rows, rows, &out));
    if (l->critic != NULL) {
        OPD_TRY(opd_graph_hidden(l->graph, l->rows, rows, l->critic->hidden));
        opd_critic_values(l->critic, rows, l->values + first);
    }
    l->cursor = to;
    return OPD_OK;
}

/* The reference's log-probs of the next samples: its weights take the student's place in the
 * graph for one pass over the batch, which costs no second set of activations. */
static opd_err unit_reference(opd_learner *l) {
    const opd_batch *b = l->batch;
    size_t to = micro_end(l, l->cursor, l->end), first = b->offsets[l->cursor];
    if (l->cursor == 0) opd_graph_set_weights(l->graph, l->o.ref_params);
    opd_err err = micro_forward(l, l->cursor, to);
    opd_scores out = {.logp = l->ref_logp + first};
    if (err == OPD_OK) err = opd_graph_score(l->graph, l->rows, b->offsets[to] - first, &out);
    l->cursor = to;
    if (err == OPD_OK && l->cursor < l->end) return OPD_OK;
    opd_graph_set_weights(l->graph, l->o.model->params);
    l->phase = PHASE_ADVANTAGE;
    return err;
}

/* Response rows of the optimizer step's share of the batch: samples [first, end). */
static void step_share(const opd_learner *l, uint32_t step, size_t *out_first, size_t *out_end) {
    size_t n = l->batch->sample_count, parts = l->o.steps_per_batch;
    *out_first = n * step / parts;
    *out_end = n * (step + 1) / parts;
}

/* Whether any token of samples [first, end) is to be learnt from. */
static bool any_used(const opd_learner *l, size_t first, size_t end) {
    const size_t *offsets = l->batch->offsets;
    return end > first && memchr(l->mask + offsets[first], 1, offsets[end] - offsets[first]);
}

/* Starts the pass over the next share that has tokens to learn from; without one the batch is
 * done. (A step on an empty share would still move the weights by momentum and decay.) */
static void step_begin(opd_learner *l) {
    const opd_batch *b = l->batch;
    size_t first = 0;
    for (; l->step < l->o.steps_per_batch; l->step++) {
        step_share(l, l->step, &first, &l->end);
        if (any_used(l, first, l->end)) break;
    }
    l->phase = PHASE_DONE;
    if (l->step == l->o.steps_per_batch) return;
    l->cursor = first;
    const size_t *offsets = b->offsets + first;
    size_t count = l->end - first;
    opd_divisor divisor = {.reduction = l->o.reduction, .batch_size = count,
                           .batch_tokens = opd_reduction_tokens(count, offsets, l->mask),
                           .length = l->o.reduction_length};
    opd_reduction_weights(&divisor, count, offsets, l->mask, l->weights);
    if (l->o.objective == OPD_OBJECTIVE_POLICY)
        opd_correction_factors(&l->o.correction, count, offsets, l->mask, l->student_logp,
                               b->rollout_logp, l->correction, &l->corrected);
    if (l->distil != NULL) opd_distil_share(l->distil, first, l->end);
    memset(l->grads, 0, l->o.model->param_count * sizeof(float));
    if (l->critic != NULL) opd_critic_begin(l->critic);
    l->phase = PHASE_TRAIN;
}

/* The teachers' scores of each sample as one, and what each of them contributed. */
static void mix_teachers(opd_learner *l) {
    const opd_batch *b = l->batch;
    memset(l->tallies, 0, b->teachers_max * sizeof *l->tallies);
    for (size_t i = 0; i < b->sample_count; i++) {
        size_t first = b->offsets[i], rows = b->offsets[i + 1] - first, at = b->scores_start[i];
        opd_mixture mixture = {.teachers = b->teacher_count[i], .rows = rows,
                               .weights = b->weights + i * b->teachers_max,
                               .logp = b->teacher_logp + at, .valid = b->teacher_valid + at};
        opd_mixture_rows(&mixture, l->teacher_logp + first, l->teacher_valid + first);
        for (size_t j = 0; j < mixture.teachers; j++)
            opd_teacher_tally_add(&l->tallies[b->teachers[i * b->teachers_max + j]], rows,
                                  l->student_logp + first, mixture.logp + j * rows,
                                  mixture.valid + j * rows);
    }
}

/* Finds what the distillation loss can learn from. Where it is all there is, tokens without leave the
 * policy's mask, too, so that a step without any is none. */
static void cover(opd_learner *l) {
    const opd_advantage_config *a = &l->o.advantage;
    size_t covered = opd_distil_cover(l->distil, l->batch, l->teacher_valid, l->mask);
    l->advantage.steppable = l->advantage.steppable && covered > 0;
    if (!a->only_reward || a->kl_coef > 0) return;
    for (size_t t = 0; t < l->batch->row_count; t++) l->mask[t] &= opd_distil_covers(l->distil, t);
}

static opd_err unit_advantage(opd_learner *l) {
    const opd_batch *b = l->batch;
    if (l->o.objective == OPD_OBJECTIVE_SFT) {
        memcpy(l->mask, b->learn, b->row_count);
        step_begin(l);
        l->unscored += l->phase == PHASE_DONE;
        return OPD_OK;
    }
    if (l->o.constant_prob > 0)
        opd_constant_teacher(l->o.constant_prob, b->row_count, l->student_logp, l->teacher_logp,
                             l->teacher_valid);
    else
        mix_teachers(l);
    opd_advantage_input in = {
        .sample_count = b->sample_count, .offsets = b->offsets, .groups = b->groups,
        .rewards = b->rewards, .reward_valid = b->reward_valid, .student_logp = l->student_logp,
        .teacher_logp = l->teacher_logp, .teacher_valid = l->teacher_valid,
        .rollout_logp = b->rollout_logp, .ref_logp = l->ref_logp,
        .values = l->values, .out_returns = l->returns, .out_opd = l->opd_advantages};
    OPD_TRY(opd_advantage_compute(l->o.alloc, &l->o.advantage, &in, l->advantages, l->mask,
                                  &l->advantage));
    if (l->distil != NULL) cover(l);
    if (l->advantage.steppable) {
        step_begin(l);
    } else {
        l->unscored++;
        l->phase = PHASE_DONE;
    }
    return OPD_OK;
}

/* What the first pass over the batch shows: it runs under the weights before the update. */
static void measure_first_pass(opd_learner *l, size_t first, size_t rows) {
    const opd_batch *b = l->batch;
    for (size_t t = first; t < first + rows; t++)
        l->logp_diff += fabs((double)l->logp[t] - (double)b->rollout_logp[t]);
    l->first_rows += rows;
}

/* The policy loss of samples [from, to), just scored; their gradients to dlogp and dentropy. */
static void policy_pass(opd_learner *l, size_t from, size_t to) {
    const opd_batch *b = l->batch;
    opd_policy_input in = {
        .sample_count = to - from, .offsets = b->offsets + from, .logp = l->logp,
        .old_logp = l->o.rollout_is_old ? b->rollout_logp : l->student_logp,
        .advantages = l->advantages, .weights = l->weights, .correction = l->correction,
        .rollout_logp = b->rollout_logp, .ref_logp = l->ref_logp, .entropy = l->entropy,
        .opd_advantages = l->opd_advantages, .out_dlogp_opd = l->dlogp_opd};
    opd_policy_loss(&l->o.policy, &in, l->dlogp, l->dentropy, &l->policy);
    size_t first = b->offsets[from];
    if (opd__learner_splits(l))
        opd_policy_norms(b->offsets[to] - first, 1 / l->o.temperature, l->logp + first, l->collision + first,
                         l->dlogp + first, l->dlogp_opd + first, &l->rl_squares, &l->opd_squares);
}

static opd_err unit_train(opd_learner *l) {
    const opd_batch *b = l->batch;
    size_t to = micro_end(l, l->cursor, l->end);
    size_t first = b->offsets[l->cursor], rows = b->offsets[to] - first;
    bool policy = l->o.objective == OPD_OBJECTIVE_POLICY;
    OPD_TRY(micro_forward(l, l->cursor, to));
    size_t top_k = policy ? l->o.student_k : 0;
    opd_scores out = {.logp = l->logp + first, .entropy = policy ? l->entropy + first : NULL,
                      .top_k = top_k, .top_ids = l->student_topk + first * top_k,
                      .top_logp = l->student_topk_logp + first * top_k,
                      .collision = opd__learner_splits(l) ? l->collision + first : NULL};
    OPD_TRY(opd_graph_score(l->graph, l->rows, rows, &out));
    const float *dentropy = NULL;
    if (policy) {
        if (l->made == 0) measure_first_pass(l, first, rows);
        policy_pass(l, l->cursor, to);
        if (l->o.policy.entropy_coef != 0) dentropy = l->dentropy + first;
    } else {
        opd_sft_loss(rows, l->logp + first, l->weights + first, l->dlogp + first, &l->sft_loss);
    }
    const float *dhidden = NULL;
    if (l->critic != NULL) {
        OPD_TRY(opd_graph_hidden(l->graph, l->rows, rows, l->critic->hidden));
        opd_critic_loss(l->critic, rows, l->values + first, l->returns + first, l->weights + first,
                        &l->value);
        dhidden = l->critic->dhidden;
    }
    if (l->distil == NULL) {
        OPD_TRY(opd_graph_backward(l->graph, l->rows, rows, l->dlogp + first, dentropy, dhidden,
                                   l->grads));
    } else {
        opd_distil_view view = {.entropy = l->entropy, .student_logp = l->student_logp,
                                .teacher_logp = l->teacher_logp, .dlogp = l->dlogp,
                                .dlogp_opd = l->dlogp_opd,
                                .dentropy = dentropy != NULL ? l->dentropy : NULL,
                                .dhidden = dhidden,
                                .student_ids = l->student_topk, .student_k = l->o.student_k};
        OPD_TRY(opd_distil_backward(l->distil, l->cursor, to, &view, l->graph, l->rows, l->grads));
    }
    memset(l->scored + first, 1, rows);
    l->cursor = to;
    if (l->cursor == l->end) l->phase = PHASE_UPDATE;
    return OPD_OK;
}

static void unit_update(opd_learner *l) {
    double loss = l->o.objective == OPD_OBJECTIVE_POLICY ? l->policy.loss + l->value.loss
                                                         : l->sft_loss;
    if (l->distil != NULL) loss += opd_distil_loss(l->distil);
    l->update = (opd_optimizer_report){.grad_norm = (double)NAN, .lr = (double)NAN, .skipped = true};
    if (isfinite(loss))
        l->update = opd_optimizer_step(l->optimizer, l->o.kernels, l->o.model, l->grads);
    if (l->update.skipped) {
        l->nonfinite++;
        l->nonfinite_run++;
        l->phase = PHASE_DONE; /* the rest of this batch would meet the same numbers */
        return;
    }
    if (l->critic != NULL) opd_critic_step(l->critic, l->o.kernels);
    l->nonfinite_run = 0;
    l->stepped = true;
    l->made++;
    opd_graph_set_weights(l->graph, l->o.model->params);
    l->step++;
    step_begin(l);
}

static void measure_overlap(opd_learner *l) {
    const opd_batch *b = l->batch;
    if (l->o.student_k == 0 || !l->stepped) return;
    for (size_t t = 0; t < b->row_count; t++) l->scored[t] &= l->teacher_valid[t]; /* both lists are there */
    opd_overlap_input in = {.sample_count = b->sample_count, .offsets = b->offsets,
                            .teacher_valid = l->scored, .student_k = l->o.student_k,
                            .teacher_k = l->o.student_k, .listed = b->top_k, .student_ids = l->student_topk,
                            .student_logp = l->student_topk_logp, .teacher_ids = b->teacher_topk,
                            .teacher_logp = b->teacher_topk_logp};
    opd_overlap_measure(&in, &l->overlap);
}

opd_err opd_learner_advance(opd_learner *l, bool *out_done) {
    *out_done = false;
    switch (l->phase) {
    case PHASE_PREPARE: return unit_prepare(l);
    case PHASE_REFERENCE: return unit_reference(l);
    case PHASE_ADVANTAGE: OPD_TRY(unit_advantage(l)); break;
    case PHASE_TRAIN: return unit_train(l);
    case PHASE_UPDATE: unit_update(l); break;
    case PHASE_DONE: break;
    }
    if (l->phase == PHASE_DONE) {
        measure_overlap(l);
        *out_done = true;
    }
    return OPD_OK;
}

opd_err opd_learner_measure(opd_learner *l, const opd_batch *batch, double *io_loss,
                            uint64_t *io_tokens) {
    const opd_batch *learnt = l->batch;
    opd_err err = OPD_OK;
    OPD_ASSERT(l->o.objective == OPD_OBJECTIVE_SFT && l->phase == PHASE_DONE);
    l->batch = batch;
    for (size_t from = 0, to; from < batch->sample_count && err == OPD_OK; from = to) {
        to = micro_end(l, from, batch->sample_count);
        size_t first = batch->offsets[from], rows = batch->offsets[to] - first;
        opd_scores out = {.logp = l->logp + first};
        err = micro_forward(l, from, to);
        if (err == OPD_OK) err = opd_graph_score(l->graph, l->rows, rows, &out);
        for (size_t t = first; err == OPD_OK && t < first + rows; t++) {
            if (!batch->learn[t]) continue;
            *io_loss -= (double)l->logp[t];
            (*io_tokens)++;
        }
    }
    l->batch = learnt;
    return err;
}

bool opd_learner_stepped(const opd_learner *l) { return l->stepped; }

uint32_t opd_learner_nonfinite_run(const opd_learner *l) { return l->nonfinite_run; }

uint64_t opd_learner_steps(const opd_learner *l) { return l->optimizer->step; }

opd_optimizer *opd_learner_optimizer(opd_learner *l) { return l->optimizer; }

opd_critic *opd_learner_critic(opd_learner *l) { return l->critic; }

size_t opd_learner_state_count(const opd_learner *l) {
    return 3 * (l->o.model->param_count + (l->critic != NULL ? l->critic->head.param_count : 0));
}

/* Weights and moments of one of the two; returns where the next may stand. */
static float *copy_state(float *to, const opd_model *model, const opd_optimizer *optimizer) {
    const float *from[] = {model->params, optimizer->m, optimizer->v};
    for (size_t i = 0; i < 3; i++, to += model->param_count)
        memcpy(to, from[i], model->param_count * sizeof(float));
    return to;
}

void opd_learner_state_copy(const opd_learner *l, float *out) {
    out = copy_state(out, l->o.model, l->optimizer);
    if (l->critic != NULL) (void)copy_state(out, &l->critic->head, l->critic->optimizer);
}
