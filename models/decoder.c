/* models/decoder.c - see decoder.h.
 *
 * Prefill is the graph's forward with each layer's keys and values copied to the cache. A step
 * cuts its rows into blocks and lets a thread run all layers of a block alone: rows do not
 * depend on each other, so there is nothing to wait for between layers.
 */
#include "models/decoder.h"

#include <math.h>
#include <string.h>

#include "core/base/check.h"
#include "kernels/array.h"
#include "models/graph_inside.h"
#include "opd/alloc.h"

enum { BLOCK_ROWS = 48 }; /* most rows of a block: 8 tiles of the matrix product */

typedef struct decoder {
    opd_decoder base;
    opd_kernels *kernels;
    opd__graph *graph; /* prefill; its weights are the decoder's weights */
    const opd__dims *dims;
    size_t slots, max_len, capacity; /* capacity: max_len rounded up to whole vectors */
    size_t plane;    /* floats of one layer's keys (or values) of one slot */
    float *cache;    /* [slots, layers, 2, plane] */
    size_t *lengths; /* [slots] */
    bool *taken;     /* [slots] scratch of check_rows */
    /* the rows of a step, [slots, .]; a block uses its own rows of each */
    float *arena, *x, *normed, *qkv, *attended, *gate_up, *inner, *logits, *uniforms, *logp;
    int32_t *ids, *positions;
    opd_kv_view *views;
    const opd_sampling **sampling;
    size_t top_k;
    int32_t *top_ids; /* [slots, top_k] */
    float *top_logp, *ones; /* [slots, top_k], [slots] */
    const struct opd_alloc *alloc;
} decoder;

static opd_kv_view view_of(const decoder *d, size_t slot, size_t layer) {
    float *keys = d->cache + (slot * d->dims->layers + layer) * 2 * d->plane;
    return (opd_kv_view){.keys = keys, .values = keys + d->plane};
}

static opd_err fill_rows(decoder *d) {
    const opd__dims *m = d->dims;
    size_t n = d->slots, per_row = 2 * m->hidden + m->qkv + m->q + 3 * m->inner + m->vocab + 2;
    if (n > SIZE_MAX / sizeof(float) / per_row) return opd_fail(OPD_ERR_NOMEM, "decoder rows");
    d->arena = opd_floats_create(d->alloc, n * per_row);
    d->ids = opd_mem_get(d->alloc, 2 * n * sizeof *d->ids);
    d->views = opd_mem_get(d->alloc, n * sizeof *d->views);
    d->sampling = opd_mem_get(d->alloc, n * sizeof *d->sampling);
    if (d->arena == NULL || d->ids == NULL || d->views == NULL || d->sampling == NULL)
        return opd_fail(OPD_ERR_NOMEM, "decoder of %zu rows", n);
    d->positions = d->ids + n;
    d->x = d->arena;
    d->normed = d->x + n * m->hidden;
    d->qkv = d->normed + n * m->hidden;
    d->attended = d->qkv + n * m->qkv;
    d->gate_up = d->attended + n * m->q;
    d->inner = d->gate_up + n * 2 * m->inner;
    d->logits = d->inner + n * m->inner;
    d->uniforms = d->logits + n * m->vocab;
    d->logp = d->uniforms + n;
    return OPD_OK;
}

static opd_err fill_top(decoder *d) {
    size_t n = d->slots, k = d->top_k;
    if (k == 0) return OPD_OK;
    if (k > d->dims->vocab)
        return opd_fail(OPD_ERR_INVALID, "decoder: top %zu of a vocabulary of %zu", k, d->dims->vocab);
    d->top_ids = opd_mem_get(d->alloc, n * k * sizeof *d->top_ids);
    d->top_logp = opd_mem_get(d->alloc, n * (k + 1) * sizeof *d->top_logp);
    if (d->top_ids == NULL || d->top_logp == NULL)
        return opd_fail(OPD_ERR_NOMEM, "decoder of %zu rows with %zu ids each", n, k);
    d->ones = d->top_logp + n * k;
    for (size_t i = 0; i < n; i++) d->ones[i] = 1;
    return OPD_OK;
}

static opd_err fill(decoder *d, const opd_model_config *config, size_t prefill_max) {
    opd_graph *graph;
    OPD_TRY(opd_graph_create(d->kernels, config, OPD_GRAPH_SCORE, prefill_max, d->alloc, &graph));
    d->graph = (opd__graph *)graph;
    d->dims = &d->graph->weights.dims;
    const opd_attention_shape *shape = &d->dims->attention;
    OPD_TRY(d->kernels->ops->reserve(d->kernels, d->max_len, shape, d->dims->vocab));
    d->capacity = (d->max_len + 15) / 16 * 16;
    d->plane = shape->kv_heads * shape->head_dim * d->capacity;
    size_t per_slot = d->dims->layers * 2 * d->plane;
    if (d->slots > SIZE_MAX / sizeof(float) / per_slot)
        return opd_fail(OPD_ERR_NOMEM, "KV cache of %zu slots", d->slots);
    d->cache = opd_floats_create(d->alloc, d->slots * per_slot);
    d->lengths = opd_mem_get(d->alloc, d->slots * sizeof *d->lengths);
    d->taken = opd_mem_get(d->alloc, d->slots * sizeof *d->taken);
    if (d->cache == NULL || d->lengths == NULL || d->taken == NULL)
        return opd_fail(OPD_ERR_NOMEM, "KV cache of %zu slots of %zu tokens; lower either",
                        d->slots, d->max_len);
    OPD_TRY(fill_rows(d));
    return fill_top(d);
}

static void decoder_destroy(opd_decoder *base) {
    decoder *d = (decoder *)base;
    const opd_alloc *alloc = d->alloc;
    if (d->graph != NULL) opd_graph_destroy(&d->graph->base);
    opd_floats_destroy(alloc, d->cache);
    opd_floats_destroy(alloc, d->arena);
    opd_mem_free(alloc, d->lengths);
    opd_mem_free(alloc, d->taken);
    opd_mem_free(alloc, d->ids);
    opd_mem_free(alloc, d->views);
    opd_mem_free(alloc, d->sampling);
    opd_mem_free(alloc, d->top_ids);
    opd_mem_free(alloc, d->top_logp);
    opd_mem_free(alloc, d);
}

static void decoder_set_weights(opd_decoder *base, const float *params) {
    opd_graph_set_weights(&((decoder *)base)->graph->base, params);
}

/* ------------------------------------------------------------------ prefill ---------- */

typedef struct prefill_job {
    decoder *decoder;
    const size_t *slots;
    const opd_packed *packed;
    const float *qkv;
    size_t layer;
} prefill_job;

static void fill_item(void *arg, opd_kernels *k, size_t s) {
    const prefill_job *job = arg;
    const decoder *d = job->decoder;
    const size_t *start = job->packed->seq_start;
    opd_kv_view view = view_of(d, job->slots[s], job->layer);
    k->ops->cache_fill(k, &view, job->qkv + start[s] * d->dims->qkv, start[s + 1] - start[s],
                       d->capacity, &d->dims->attention);
}

/* The attention of whole sequences, after their keys and values went to the cache. */
static void prefill_layer(void *arg, size_t layer, float *out, const float *qkv) {
    prefill_job *job = arg;
    const opd__graph *g = job->decoder->graph;
    opd_kernels *k = job->decoder->kernels;
    job->layer = layer;
    job->qkv = qkv;
    k->ops->for_each(k, job->packed->seq_count, fill_item, job);
    k->ops->attention(k, out, qkv, g->seq_start, g->seq_count, &job->decoder->dims->attention);
}

static opd_err decoder_prefill(opd_decoder *base, const size_t *slots, const opd_packed *packed) {
    decoder *d = (decoder *)base;
    for (size_t s = 0; s < packed->seq_count; s++) {
        if (slots[s] >= d->slots)
            return opd_fail(OPD_ERR_INVALID, "prefill: slot %zu of %zu", slots[s], d->slots);
        if (packed->seq_start[s + 1] - packed->seq_start[s] > d->max_len)
            return opd_fail(OPD_ERR_LIMIT, "prefill: %zu tokens, a slot takes %zu",
                            packed->seq_start[s + 1] - packed->seq_start[s], d->max_len);
    }
    prefill_job job = {.decoder = d, .slots = slots, .packed = packed};
    OPD_TRY(opd__graph_forward(d->graph, packed, NULL, prefill_layer, &job));
    for (size_t s = 0; s < packed->seq_count; s++)
        d->lengths[slots[s]] = packed->seq_start[s + 1] - packed->seq_start[s];
    return OPD_OK;
}

/* Copies the filled positions of one slot: a transposed key row is one run per channel, the
 * values of a head are one run. */
static void copy_slot(decoder *d, size_t from, size_t to) {
    const opd_attention_shape *s = &d->dims->attention;
    size_t length = d->lengths[from], channels = s->kv_heads * s->head_dim;
    for (size_t layer = 0; layer < d->dims->layers; layer++) {
        opd_kv_view a = view_of(d, from, layer), b = view_of(d, to, layer);
        for (size_t c = 0; c < channels; c++)
            memcpy(b.keys + c * d->capacity, a.keys + c * d->capacity, length * sizeof(float));
        for (size_t h = 0; h < s->kv_heads; h++)
            memcpy(b.values + h * d->capacity * s->head_dim,
                   a.values + h * d->capacity * s->head_dim, length * s->head_dim * sizeof(float));
    }
    d->lengths[to] = length;
}

static opd_err decoder_copy(opd_decoder *base, size_t from, const size_t *to, size_t n) {
    decoder *d = (decoder *)base;
    for (size_t i = 0; i < n; i++)
        if (from >= d->slots || to[i] >= d->slots)
            return opd_fail(OPD_ERR_INVALID, "copy: slot %zu to %zu of %zu", from, to[i],
                            d->slots);
    for (size_t i = 0; i < n; i++)
        if (to[i] != from) copy_slot(d, from, to[i]);
    return OPD_OK;
}

/* ------------------------------------------------------------------ step ------------- */

static opd_err check_row(const decoder *d, const opd_decode_row *row) {
    const opd_sampling *s = row->sampling;
    if (row->slot >= d->slots)
        return opd_fail(OPD_ERR_INVALID, "decode: slot %zu of %zu", row->slot, d->slots);
    if (d->taken[row->slot])
        return opd_fail(OPD_ERR_INVALID, "decode: slot %zu appears twice", row->slot);
    if (row->token < 0 || (size_t)row->token >= d->dims->vocab)
        return opd_fail(OPD_ERR_INVALID, "decode: token id %d is outside 0..%zu", (int)row->token,
                        d->dims->vocab - 1);
    if (d->lengths[row->slot] >= d->max_len)
        return opd_fail(OPD_ERR_LIMIT, "decode: slot %zu is full (%zu tokens)", row->slot,
                        d->max_len);
    if (!(s->temperature >= 0) || !isfinite(s->temperature) || s->top_k < 0 ||
        !(s->top_p > 0 && s->top_p <= 1) || !(row->uniform >= 0 && row->uniform < 1))
        return opd_fail(OPD_ERR_INVALID,
                        "decode: temperature %g, top_k %d, top_p %g or uniform %g is out of range",
                        (double)s->temperature, (int)s->top_k, (double)s->top_p,
                        (double)row->uniform);
    return OPD_OK;
}

static opd_err check_rows(decoder *d, const opd_decode_row *rows, size_t n) {
    opd_err err = OPD_OK;
    size_t i = 0;
    for (; i < n && err == OPD_OK; i++) {
        err = check_row(d, &rows[i]);
        if (err == OPD_OK) d->taken[rows[i].slot] = true;
    }
    for (size_t j = 0; j < i; j++)
        if (rows[j].slot < d->slots) d->taken[rows[j].slot] = false;
    return err;
}

typedef struct step_job {
    decoder *decoder;
    const opd_decode_row *rows;
    size_t n, block;
} step_job;

/* The likely ids of rows [first, first + n), where one of them wants them. */
static void list_block(const step_job *job, opd_kernels *k, size_t first, size_t n) {
    decoder *d = job->decoder;
    size_t width = d->top_k, vocab = d->dims->vocab;
    bool wanted = false;
    for (size_t i = first; i < first + n; i++) wanted = wanted || job->rows[i].top_ids != NULL;
    if (width == 0 || !wanted) return;
    k->ops->logprob(k, NULL, NULL, d->top_ids + first * width, d->top_logp + first * width, width,
                    d->logits + first * vocab, d->ids + first, d->ones + first, n, vocab);
    for (size_t i = first; i < first + n; i++)
        if (job->rows[i].top_ids != NULL)
            memcpy(job->rows[i].top_ids, d->top_ids + i * width, width * sizeof *d->top_ids);
}

/* One layer of rows [first, first + n); x in place. */
static void step_layer(const step_job *job, opd_kernels *k, size_t layer, size_t first, size_t n) {
    decoder *d = job->decoder;
    const opd_kernel_table *ops = k->ops;
    const opd__dims *m = d->dims;
    const opd__weights *weights = &d->graph->weights;
    const opd__layer_weights *w = &weights->layers[layer];
    float *x = d->x + first * m->hidden, *normed = d->normed + first * m->hidden;
    float *qkv = d->qkv + first * m->qkv, *attended = d->attended + first * m->q;
    float *gate_up = d->gate_up + first * 2 * m->inner, *inner = d->inner + first * m->inner;
    for (size_t i = first; i < first + n; i++) {
        d->views[i] = view_of(d, job->rows[i].slot, layer);
        d->views[i].length = (size_t)d->positions[i] + 1;
    }
    ops->rmsnorm(k, normed, NULL, x, w->norm_attn, n, m->hidden, m->eps);
    ops->linear(k, qkv, normed, w->qkv, n, m->qkv, m->hidden, false);
    ops->rope(k, qkv, d->positions + first, weights->rope, n, m->qkv,
              m->attention.heads + m->attention.kv_heads, m->attention.head_dim, false);
    ops->attention_decode(k, attended, qkv, d->views + first, n, d->capacity, &m->attention);
    ops->linear(k, x, attended, w->o, n, m->hidden, m->q, true);
    ops->rmsnorm(k, normed, NULL, x, w->norm_mlp, n, m->hidden, m->eps);
    ops->linear(k, gate_up, normed, w->gate_up, n, 2 * m->inner, m->hidden, false);
    ops->swiglu(k, inner, gate_up, n, m->inner);
    ops->linear(k, x, inner, w->down, n, m->hidden, m->inner, true);
}

static void step_block(void *arg, opd_kernels *k, size_t block) {
    const step_job *job = arg;
    decoder *d = job->decoder;
    const opd__dims *m = d->dims;
    const opd__weights *weights = &d->graph->weights;
    size_t first = block * job->block, n = opd__least(job->n - first, job->block);
    float *x = d->x + first * m->hidden, *normed = d->normed + first * m->hidden;
    for (size_t i = first; i < first + n; i++) {
        d->ids[i] = job->rows[i].token;
        d->positions[i] = (int32_t)d->lengths[job->rows[i].slot];
        d->uniforms[i] = job->rows[i].uniform;
        d->sampling[i] = job->rows[i].sampling;
    }
    k->ops->embed(k, x, weights->plain + weights->layout.embed, d->ids + first, n, m->hidden);
    for (size_t layer = 0; layer < m->layers; layer++) step_layer(job, k, layer, first, n);
    k->ops->rmsnorm(k, normed, NULL, x, weights->plain + weights->layout.norm, n, m->hidden, m->eps);
    k->ops->linear(k, d->logits + first * m->vocab, normed, weights->head, n, m->vocab, m->hidden,
                   false);
    list_block(job, k, first, n); /* before the draw, which works in the logits */
    k->ops->sample(k, d->ids + first, d->logp + first, d->logits + first * m->vocab,
                   d->uniforms + first, d->sampling + first, n, m->vocab);
}

static opd_err decoder_step(opd_decoder *base, const opd_decode_row *rows, size_t n,
                            opd_decode_out *out) {
    decoder *d = (decoder *)base;
    opd_kernels *k = d->kernels;
    OPD_TRY(check_rows(d, rows, n));
    size_t threads = k->ops->threads(k);
    step_job job = {.decoder = d, .rows = rows, .n = n,
                    .block = opd__least((n + threads - 1) / threads, BLOCK_ROWS)};
    if (n == 0) return OPD_OK;
    k->ops->for_each(k, (n + job.block - 1) / job.block, step_block, &job);
    for (size_t i = 0; i < n; i++) {
        out[i] = (opd_decode_out){.token = d->ids[i], .logp = d->logp[i]};
        d->lengths[rows[i].slot]++;
    }
    return OPD_OK;
}

static size_t decoder_length(const opd_decoder *base, size_t slot) {
    const decoder *d = (const decoder *)base;
    OPD_ASSERT(slot < d->slots);
    return d->lengths[slot];
}

static void decoder_truncate(opd_decoder *base, size_t slot, size_t length) {
    decoder *d = (decoder *)base;
    OPD_ASSERT(slot < d->slots && length <= d->lengths[slot]);
    d->lengths[slot] = length;
}

static const opd_decoder_ops decoder_ops = {
    .destroy = decoder_destroy, .set_weights = decoder_set_weights, .prefill = decoder_prefill,
    .copy = decoder_copy, .step = decoder_step, .length = decoder_length,
    .truncate = decoder_truncate};

opd_err opd_decoder_create(opd_kernels *kernels, const opd_model_config *config,
                           const opd_decoder_options *options, const opd_alloc *alloc,
                           opd_decoder **out_decoder) {
    *out_decoder = NULL;
    OPD_TRY(opd_model_config_check(config));
    if (options->slots == 0 || options->slots > INT32_MAX)
        return opd_fail(OPD_ERR_INVALID, "decoder: %zu slots", options->slots);
    if (options->max_len == 0 || options->max_len > (size_t)config->max_position)
        return opd_fail(OPD_ERR_INVALID, "decoder: max_len %zu is not in 1..%d (max_position)",
                        options->max_len, (int)config->max_position);
    decoder *d = opd_mem_get(alloc, sizeof *d);
    if (d == NULL) return opd_fail(OPD_ERR_NOMEM, "decoder");
    d->base.ops = &decoder_ops;
    d->kernels = kernels;
    d->slots = options->slots;
    d->max_len = options->max_len;
    d->top_k = options->top_k;
    d->alloc = alloc;
    opd_err err = fill(d, config, options->prefill_max_tokens == 0 ? options->max_len
                                                                   : options->prefill_max_tokens);
    if (err != OPD_OK) {
        opd_decoder_destroy(&d->base);
        return err;
    }
    *out_decoder = &d->base;
    return OPD_OK;
}
