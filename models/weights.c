/* models/weights.c - see weights.h. */
#include "models/weights.h"

#include <math.h>
#include <string.h>

#include "core/base/check.h"
#include "kernels/array.h"
#include "opd/alloc.h"

static opd__dims dims_of(const opd_model_config *c) {
    opd__dims d = {.vocab = (size_t)c->vocab_size, .hidden = (size_t)c->hidden_size,
                   .inner = (size_t)c->intermediate_size, .layers = (size_t)c->layers,
                   .attention = {.heads = (size_t)c->heads, .kv_heads = (size_t)c->kv_heads,
                                 .head_dim = (size_t)c->head_dim},
                   .eps = (float)c->rms_eps};
    d.q = d.attention.heads * d.attention.head_dim;
    d.qkv = d.q + 2 * d.attention.kv_heads * d.attention.head_dim;
    return d;
}

/* Row p: cos(p f_i), then sin(p f_i), f_i = theta^(-2i/head_dim) (Su et al. 2021), rounded
 * from float64. */
static void fill_rope(float *table, const opd_model_config *c) {
    int32_t half = c->head_dim / 2;
    for (int32_t p = 0; p < c->max_position; p++) {
        float *row = table + (size_t)p * (size_t)c->head_dim;
        for (int32_t i = 0; i < half; i++) {
            double angle = p * pow(c->rope_theta, -2.0 * i / c->head_dim);
            row[i] = (float)cos(angle);
            row[half + i] = (float)sin(angle);
        }
    }
}

/* Gives each matrix its place in one packed array; returns the floats needed. With base NULL
 * it only counts. */
static size_t place(opd__weights *w, opd_kernels *k, float *base, bool dx) {
    const opd__dims *d = &w->dims;
    size_t at = 0;
#define PLACE(pointer, n, m)                          \
    do {                                              \
        if (base != NULL) (pointer) = base + at;      \
        at += (k->ops->pack_size((n), (m)) + 15) & ~(size_t)15; \
    } while (0)
    for (size_t i = 0; i < d->layers; i++) {
        opd__layer_weights *l = &w->layers[i];
        PLACE(*(dx ? &l->qkv_dx : &l->qkv), d->qkv, d->hidden);
        PLACE(*(dx ? &l->o_dx : &l->o), d->hidden, d->q);
        PLACE(*(dx ? &l->gate_up_dx : &l->gate_up), 2 * d->inner, d->hidden);
        PLACE(*(dx ? &l->down_dx : &l->down), d->hidden, d->inner);
    }
    PLACE(*(dx ? &w->head_dx : &w->head), d->vocab, d->hidden);
#undef PLACE
    return at;
}

opd_err opd__weights_init(opd__weights *w, opd_kernels *k, const opd_model_config *config,
                          bool train, const opd_alloc *alloc) {
    *w = (opd__weights){.dims = dims_of(config), .layout = opd_model_layout_of(config),
                        .alloc = alloc};
    w->layers = opd_mem_get(alloc, w->dims.layers * sizeof *w->layers);
    if (w->layers == NULL) return opd_fail(OPD_ERR_NOMEM, "weights of %zu layers", w->dims.layers);
    size_t count = place(w, k, NULL, false);
    w->plain = opd_floats_create(alloc, w->layout.total);
    w->packed = opd_floats_create(alloc, count);
    w->rope = opd_floats_create(alloc, (size_t)config->max_position * (size_t)config->head_dim);
    if (train) w->packed_dx = opd_floats_create(alloc, count);
    if (w->plain == NULL || w->packed == NULL || w->rope == NULL || (train && w->packed_dx == NULL))
        return opd_fail(OPD_ERR_NOMEM, "packed weights of %zu floats", count);
    place(w, k, w->packed, false);
    if (train) place(w, k, w->packed_dx, true);
    for (size_t i = 0; i < w->dims.layers; i++) {
        const float *layer = w->plain + w->layout.layer_base + i * w->layout.layer_stride;
        w->layers[i].norm_attn = layer + w->layout.norm_attn;
        w->layers[i].norm_mlp = layer + w->layout.norm_mlp;
    }
    fill_rope(w->rope, config);
    return OPD_OK;
}

void opd__weights_fini(opd__weights *w) {
    opd_floats_destroy(w->alloc, w->plain);
    opd_floats_destroy(w->alloc, w->packed);
    opd_floats_destroy(w->alloc, w->packed_dx);
    opd_floats_destroy(w->alloc, w->rope);
    opd_mem_free(w->alloc, w->layers);
}

/* Packs one matrix [n, d] both ways. */
static void pack(opd_kernels *k, const float *packed, const float *packed_dx, const float *w,
                 size_t n, size_t d) {
    /* the layer table holds const pointers for its readers; this is the one writer */
    k->ops->pack(k, (float *)(uintptr_t)packed, w, n, d);
    if (packed_dx != NULL) k->ops->pack_dx(k, (float *)(uintptr_t)packed_dx, w, n, d);
}

typedef struct pack_job {
    opd__weights *w;
    const float *params;
} pack_job;

/* Item i < layers packs layer i, item `layers` the head. */
static void pack_item(void *arg, opd_kernels *k, size_t i) {
    const pack_job *job = arg;
    opd__weights *w = job->w;
    const opd__dims *d = &w->dims;
    const opd_model_layout *at = &w->layout;
    if (i == d->layers) {
        pack(k, w->head, w->head_dx, job->params + at->head, d->vocab, d->hidden);
        return;
    }
    const opd__layer_weights *l = &w->layers[i];
    const float *layer = job->params + at->layer_base + i * at->layer_stride;
    pack(k, l->qkv, l->qkv_dx, layer + at->qkv, d->qkv, d->hidden);
    pack(k, l->o, l->o_dx, layer + at->o, d->hidden, d->q);
    pack(k, l->gate_up, l->gate_up_dx, layer + at->gate_up, 2 * d->inner, d->hidden);
    pack(k, l->down, l->down_dx, layer + at->down, d->hidden, d->inner);
}

void opd__weights_set(opd__weights *w, opd_kernels *k, const float *params) {
    memcpy(w->plain, params, w->layout.total * sizeof(float));
    pack_job job = {w, params};
    k->ops->for_each(k, w->dims.layers + 1, pack_item, &job);
}
