/* distil.c - see distil.h. Thread: the trainer's lane. */
#include "actors/trainer/distil.h"

#include <math.h>
#include <string.h>

#include "core/base/check.h"

struct opd_distil {
    opd_contrast_config config;
    const opd_alloc *alloc;
    opd_contrast *contrast;
    const opd_batch *batch;
    opd_contrast_stats stats; /* of the batch */
    opd_divisor divisor;      /* of the optimizer step's share */
    /* per response row of the batch */
    uint8_t *covered, *selected;
    float *weights, *ranks;
    size_t *order;
};

opd_err opd_distil_create(const opd_contrast_config *config, const opd_divisor *mean,
                          size_t vocab, size_t tokens_max, const opd_alloc *alloc, opd_distil **out_distil) {
    opd_distil *d = opd_mem_get(alloc, sizeof *d);
    if (d == NULL) return opd_fail(OPD_ERR_NOMEM, "trainer: no memory for the distillation loss");
    *d = (opd_distil){.config = *config, .divisor = *mean, .alloc = alloc};
    d->covered = opd_mem_get(alloc, tokens_max);
    d->selected = opd_mem_get(alloc, tokens_max);
    d->weights = opd_mem_get(alloc, tokens_max * sizeof *d->weights);
    d->ranks = opd_mem_get(alloc, tokens_max * sizeof *d->ranks);
    d->order = opd_mem_get(alloc, tokens_max * sizeof *d->order);
    opd_err err = OPD_OK;
    if (!d->covered || !d->selected || !d->weights || !d->ranks || !d->order)
        err = opd_fail(OPD_ERR_NOMEM, "trainer: no memory for the distillation loss of %zu tokens",
                       tokens_max);
    if (err == OPD_OK) err = opd_contrast_create(config, vocab, alloc, &d->contrast);
    if (err != OPD_OK) {
        opd_distil_destroy(d);
        return err;
    }
    *out_distil = d;
    return OPD_OK;
}

void opd_distil_destroy(opd_distil *d) {
    if (d == NULL) return;
    opd_contrast_destroy(d->contrast);
    void *blocks[] = {d->covered, d->selected, d->weights, d->ranks, d->order};
    for (size_t i = 0; i < OPD_COUNTOF(blocks); i++) opd_mem_free(d->alloc, blocks[i]);
    opd_mem_free(d->alloc, d);
}

size_t opd_distil_cover(opd_distil *d, const opd_batch *b, const uint8_t *valid, const uint8_t *mask) {
    size_t count = 0;
    d->batch = b;
    d->stats = (opd_contrast_stats){.loss = 0};
    opd_contrast_covered(&d->config, b->row_count, valid, b->top_k, b->teacher_topk, b->asked_k, b->asked_logp,
                         d->covered);
    for (size_t t = 0; t < b->row_count; t++) {
        d->covered[t] &= mask[t] != 0;
        count += d->covered[t];
    }
    return count;
}

bool opd_distil_covers(const opd_distil *d, size_t row) { return d->covered[row] != 0; }

void opd_distil_share(opd_distil *d, size_t first, size_t end) {
    d->divisor.batch_size = end - first;
    d->divisor.batch_tokens = 0;
    for (size_t i = first; i < end; i++) {
        size_t usable = 0;
        for (size_t t = d->batch->offsets[i]; t < d->batch->offsets[i + 1]; t++) usable += d->covered[t];
        size_t taken = opd_contrast_share(&d->config, usable);
        d->divisor.batch_tokens += taken > 0 ? taken : 1; /* as opd_reduction_tokens counts */
    }
}

/* The weights of the tokens of samples [from, to). */
static void weigh(opd_distil *d, size_t from, size_t to, const opd_distil_view *view) {
    const size_t *offsets = d->batch->offsets;
    for (size_t i = from; i < to; i++) {
        size_t at = offsets[i], n = offsets[i + 1] - at;
        opd_contrast_rank(&d->config, n, d->covered + at, view->entropy + at, view->student_logp + at,
                          view->teacher_logp + at, d->ranks + at);
        opd_contrast_select(&d->config, n, d->covered + at, d->ranks + at, d->order, d->selected + at);
    }
    opd_reduction_weights(&d->divisor, to - from, offsets + from, d->selected, d->weights);
}

opd_err opd_distil_backward(opd_distil *d, size_t from, size_t to, const opd_distil_view *view,
                            opd_graph *graph, const opd_score_row *rows, float *grads) {
    const opd_batch *b = d->batch;
    size_t first = b->offsets[from], n = b->offsets[to] - first;
    bool asks = opd_support_asks(d->config.support);
    size_t k = asks ? b->asked_k : view->student_k;
    weigh(d, from, to, view);
    opd_contrast_rows in = {
        .rows = rows, .dlogp = view->dlogp + first,
        .dlogp_opd = view->dlogp_opd != NULL ? view->dlogp_opd + first : NULL,
        .dentropy = view->dentropy != NULL ? view->dentropy + first : NULL,
        .weights = d->weights + first, .teacher_logp = view->teacher_logp + first,
        .student_ids = (asks ? b->asked_ids : view->student_ids) + first * k, .student_k = k,
        .asked_logps = asks ? b->asked_logp + first * k : NULL,
        .listed = b->top_k, .teacher_ids = b->teacher_topk + first * b->top_k,
        .teacher_logps = b->teacher_topk_logp + first * b->top_k};
    opd_contrast_begin(d->contrast, &in, &d->stats);
    return opd_graph_backward_logits(graph, rows, n, opd_contrast_grad, d->contrast, view->dhidden,
                                     grads);
}

double opd_distil_loss(const opd_distil *d) { return d->config.coef * d->stats.loss; }

void opd_distil_report(const opd_distil *d, uint32_t steps, double values[OPD_METRIC_COUNT]) {
    if (!(d->stats.weight > 0)) return;
    values[OPD_METRIC_OPD_LOSS] = d->stats.loss / d->stats.weight;
    values[OPD_METRIC_OPD_GRAD_NORM] = sqrt(d->stats.squares / steps);
    values[OPD_METRIC_RL_GRAD_NORM] = sqrt(d->stats.policy_squares / steps);
    values[OPD_METRIC_OPD_CLIPFRAC] = d->stats.clipped / d->stats.weight;
    values[OPD_METRIC_OPD_STUDENT_MASS] = d->stats.student_mass / d->stats.weight;
    values[OPD_METRIC_OPD_TEACHER_MASS] = d->stats.teacher_mass / d->stats.weight;
}
