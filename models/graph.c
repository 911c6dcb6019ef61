/* models/graph.c - creation, forward and scoring; backward is in graph_backward.c.
 *
 * See graph.h for the contract, graph_inside.h for the parts.
 */
#include <math.h>
#include <string.h>

#include "core/base/check.h"
#include "kernels/array.h"
#include "models/graph_inside.h"
#include "opd/alloc.h"

enum { LOGITS_AT_ONCE = 262144, CHUNK_MIN = 16, CHUNK_MAX = 1024, ALIGN_FLOATS = 16 };

/* Takes `count` floats of the arena, or only counts them while there is none. */
static float *carve(const opd__graph *g, size_t *at, size_t count) {
    float *start = g->arena == NULL ? NULL : g->arena + *at;
    *at += (count + ALIGN_FLOATS - 1) / ALIGN_FLOATS * ALIGN_FLOATS;
    return start;
}

static void carve_layer(opd__graph *g, size_t *at, opd__activations *a) {
    const opd__dims *d = &g->weights.dims;
    size_t t = g->max_tokens;
    a->x = carve(g, at, t * d->hidden);
    a->inv_attn = carve(g, at, t);
    a->qkv = carve(g, at, t * d->qkv);
    a->attended = carve(g, at, t * d->q);
    a->middle = carve(g, at, t * d->hidden);
    a->inv_mlp = carve(g, at, t);
    a->gate_up = carve(g, at, t * 2 * d->inner);
}

/* Lays out every float array; returns the floats needed. */
static size_t carve_all(opd__graph *g) {
    const opd__dims *d = &g->weights.dims;
    size_t t = g->max_tokens, at = 0;
    bool train = g->mode == OPD_GRAPH_TRAIN;
    for (size_t i = 0; i < d->layers; i++) {
        if (i > 0 && !train) g->layers[i] = g->layers[0];
        else carve_layer(g, &at, &g->layers[i]);
    }
    g->final = train ? carve(g, &at, t * d->hidden) : g->layers[0].x;
    g->normed = carve(g, &at, t * d->hidden);
    g->inner = carve(g, &at, t * d->inner);
    g->head_in = carve(g, &at, g->chunk * d->hidden);
    g->head_normed = carve(g, &at, g->chunk * d->hidden);
    g->head_inv = carve(g, &at, g->chunk);
    g->logits = carve(g, &at, g->chunk * d->vocab);
    g->inv_t = carve(g, &at, g->chunk);
    g->first_logp = carve(g, &at, g->chunk);
    if (!train) return at;
    g->dx = carve(g, &at, t * d->hidden);
    g->dnormed = carve(g, &at, t * d->hidden);
    g->dqkv = carve(g, &at, t * d->qkv);
    g->dattended = carve(g, &at, t * d->q);
    g->dgate_up = carve(g, &at, t * 2 * d->inner);
    g->dinner = carve(g, &at, t * d->inner);
    g->dhead_in = carve(g, &at, g->chunk * d->hidden);
    g->dhead_normed = carve(g, &at, g->chunk * d->hidden);
    return at;
}

static opd_err fill(opd__graph *g) {
    opd_kernels *k = g->kernels;
    OPD_TRY(opd__weights_init(&g->weights, k, &g->config, g->mode == OPD_GRAPH_TRAIN, g->alloc));
    const opd__dims *d = &g->weights.dims;
    size_t seq_max = opd__least(g->max_tokens, (size_t)g->config.max_position);
    OPD_TRY(k->ops->reserve(k, seq_max, &d->attention, d->vocab));
    g->chunk = LOGITS_AT_ONCE / d->vocab;
    if (g->chunk < CHUNK_MIN) g->chunk = CHUNK_MIN;
    g->chunk = opd__least(opd__least(g->chunk, CHUNK_MAX), g->max_tokens);
    g->layers = opd_mem_get(g->alloc, d->layers * sizeof *g->layers);
    g->seq_start = opd_mem_get(g->alloc, (g->max_tokens + 1) * sizeof *g->seq_start);
    g->ints = opd_mem_get(g->alloc, 2 * (g->max_tokens + g->chunk) * sizeof *g->ints);
    if (g->layers == NULL || g->seq_start == NULL || g->ints == NULL)
        return opd_fail(OPD_ERR_NOMEM, "graph for %zu tokens", g->max_tokens);
    g->ids = g->ints;
    g->positions = g->ids + g->max_tokens;
    g->targets = g->positions + g->max_tokens;
    g->first = g->targets + g->chunk;
    size_t floats = carve_all(g);
    g->arena = opd_floats_create(g->alloc, floats);
    if (g->arena == NULL)
        return opd_fail(OPD_ERR_NOMEM, "activations of %zu tokens (%zu MB); lower the micro-batch",
                        g->max_tokens, floats >> 18);
    carve_all(g);
    return OPD_OK;
}

/* Copies one sequence of the batch, `past` positions into its text. */
static opd_err take_sequence(opd__graph *g, const opd_packed *packed, size_t s, size_t past) {
    size_t first = packed->seq_start[s], last = packed->seq_start[s + 1];
    if (last < first || (s == 0 && first != 0))
        return opd_fail(OPD_ERR_INVALID, "batch: sequence %zu starts at %zu and ends at %zu", s,
                        first, last);
    if (last > g->max_tokens)
        return opd_fail(OPD_ERR_LIMIT, "batch: more than %zu tokens; lower the micro-batch",
                        g->max_tokens);
    if (past + last - first > (size_t)g->config.max_position)
        return opd_fail(OPD_ERR_LIMIT, "batch: sequence %zu has %zu tokens, the model takes %d", s,
                        past + last - first, (int)g->config.max_position);
    for (size_t i = first; i < last; i++) {
        int32_t id = packed->tokens[i];
        if (id < 0 || id >= g->config.vocab_size)
            return opd_fail(OPD_ERR_INVALID, "batch: token id %d at %zu is outside 0..%d", (int)id,
                            i, (int)g->config.vocab_size - 1);
        g->ids[i] = id;
        g->positions[i] = (int32_t)(past + i - first);
    }
    if (last > first) g->seq_start[++g->seq_count] = last;
    g->tokens = last;
    return OPD_OK;
}

static void layer_forward(opd__graph *g, size_t i, float *next, opd__attention_fn fn,
                          void *arg) {
    opd_kernels *k = g->kernels;
    const opd_kernel_table *ops = k->ops;
    const opd__dims *d = &g->weights.dims;
    const opd__layer_weights *w = &g->weights.layers[i];
    opd__activations *a = &g->layers[i];
    size_t t = g->tokens, bytes = t * d->hidden * sizeof(float);
    ops->rmsnorm(k, g->normed, a->inv_attn, a->x, w->norm_attn, t, d->hidden, d->eps);
    ops->linear(k, a->qkv, g->normed, w->qkv, t, d->qkv, d->hidden, false);
    ops->rope(k, a->qkv, g->positions, g->weights.rope, t, d->qkv,
              d->attention.heads + d->attention.kv_heads, d->attention.head_dim, false);
    if (fn != NULL) fn(arg, i, a->attended, a->qkv);
    else ops->attention(k, a->attended, a->qkv, g->seq_start, g->seq_count, &d->attention);
    memcpy(a->middle, a->x, bytes);
    ops->linear(k, a->middle, a->attended, w->o, t, d->hidden, d->q, true);
    ops->rmsnorm(k, g->normed, a->inv_mlp, a->middle, w->norm_mlp, t, d->hidden, d->eps);
    ops->linear(k, a->gate_up, g->normed, w->gate_up, t, 2 * d->inner, d->hidden, false);
    ops->swiglu(k, g->inner, a->gate_up, t, d->inner);
    memcpy(next, a->middle, bytes);
    ops->linear(k, next, g->inner, w->down, t, d->hidden, d->inner, true);
}

opd_err opd__graph_forward(opd__graph *g, const opd_packed *packed, const size_t *past,
                           opd__attention_fn fn, void *arg) {
    const opd__dims *d = &g->weights.dims;
    g->ready = false;
    g->tokens = g->seq_count = 0;
    for (size_t s = 0; s < packed->seq_count; s++)
        OPD_TRY(take_sequence(g, packed, s, past == NULL ? 0 : past[s]));
    g->kernels->ops->embed(g->kernels, g->layers[0].x, g->weights.plain + g->weights.layout.embed,
                           g->ids, g->tokens, d->hidden);
    for (size_t i = 0; i < d->layers; i++)
        layer_forward(g, i, i + 1 < d->layers ? g->layers[i + 1].x : g->final, fn, arg);
    g->ready = true;
    return OPD_OK;
}

opd_err opd__graph_check_rows(const opd__graph *g, const opd_score_row *rows, size_t n,
                              bool ascending, bool targets) {
    if (!g->ready) return opd_fail(OPD_ERR_INVALID, "score: no forward since the weights changed");
    for (size_t i = 0; i < n; i++) {
        if (rows[i].row >= g->tokens)
            return opd_fail(OPD_ERR_INVALID, "score: row %zu of a batch of %zu tokens", rows[i].row,
                            g->tokens);
        if (ascending && i > 0 && rows[i].row <= rows[i - 1].row)
            return opd_fail(OPD_ERR_INVALID, "backward: row %zu after row %zu; sort them",
                            rows[i].row, rows[i - 1].row);
        if (!targets) continue;
        if (rows[i].target < 0 || rows[i].target >= g->config.vocab_size)
            return opd_fail(OPD_ERR_INVALID, "score: target id %d is outside 0..%d",
                            (int)rows[i].target, (int)g->config.vocab_size - 1);
        if (!(rows[i].inverse_temperature > 0) || !isfinite(rows[i].inverse_temperature))
            return opd_fail(OPD_ERR_INVALID, "score: inverse temperature %g must be positive",
                            (double)rows[i].inverse_temperature);
    }
    return OPD_OK;
}

void opd__graph_head_norm(opd__graph *g, const opd_score_row *rows, size_t count) {
    opd_kernels *k = g->kernels;
    const opd__dims *d = &g->weights.dims;
    for (size_t i = 0; i < count; i++) {
        memcpy(g->head_in + i * d->hidden, g->final + rows[i].row * d->hidden,
               d->hidden * sizeof(float));
        g->targets[i] = rows[i].target;
        g->inv_t[i] = rows[i].inverse_temperature;
    }
    k->ops->rmsnorm(k, g->head_normed, g->head_inv, g->head_in,
                    g->weights.plain + g->weights.layout.norm, count, d->hidden, d->eps);
}

void opd__graph_head(opd__graph *g, const opd_score_row *rows, size_t count) {
    opd_kernels *k = g->kernels;
    const opd__dims *d = &g->weights.dims;
    opd__graph_head_norm(g, rows, count);
    k->ops->linear(k, g->logits, g->head_normed, g->weights.head, count, d->vocab, d->hidden, false);
}

/* sum p^2 = (sum e^2z) / (sum e^z)^2: what the log-prob of any one id at half the temperature lacks to
 * twice that at the whole. */
static void collide(opd__graph *g, const float *logp, size_t count, float *out) {
    for (size_t i = 0; i < count; i++) g->inv_t[i] *= 2;
    g->kernels->ops->logprob(g->kernels, out, NULL, NULL, NULL, 0, g->logits, g->targets, g->inv_t, count,
                             g->weights.dims.vocab);
    for (size_t i = 0; i < count; i++) out[i] = 2 * logp[i] - out[i];
}

static opd_err check_given(const opd__graph *g, const opd_scores *out, size_t n) {
    for (size_t i = 0; i < n * out->ids_k; i++)
        if (out->ids[i] < 0 || (size_t)out->ids[i] >= g->weights.dims.vocab)
            return opd_fail(OPD_ERR_INVALID, "score: given id %d is outside 0..%zu", (int)out->ids[i],
                            g->weights.dims.vocab - 1);
    return OPD_OK;
}

/* Log-probs of given ids of the rows whose logits are there, by the same sums as those of the list:
 * z - max - log(sum), of which the likeliest id has told the two. */
static void score_given(opd__graph *g, const int32_t *ids, size_t ids_k, size_t count, float *out) {
    size_t vocab = g->weights.dims.vocab;
    g->kernels->ops->logprob(g->kernels, NULL, NULL, g->first, g->first_logp, 1, g->logits, g->targets,
                             g->inv_t, count, vocab);
    for (size_t i = 0; i < count; i++) {
        const float *logits = g->logits + i * vocab;
        float max = logits[g->first[i]] * g->inv_t[i];
        for (size_t j = i * ids_k; j < (i + 1) * ids_k; j++)
            out[j] = logits[ids[j]] * g->inv_t[i] - max + g->first_logp[i];
    }
}

static opd_err graph_score(opd_graph *base, const opd_score_row *rows, size_t n,
                           const opd_scores *out_scores) {
    opd__graph *graph = (opd__graph *)base;
    opd_kernels *k = graph->kernels;
    const opd_scores *out = out_scores;
    OPD_TRY(opd__graph_check_rows(graph, rows, n, false, true));
    size_t top = out->top_k;
    if (top > graph->weights.dims.vocab)
        return opd_fail(OPD_ERR_INVALID, "score: top %zu of a vocabulary of %zu", top,
                        graph->weights.dims.vocab);
    OPD_ASSERT(top == 0 || (out->top_ids != NULL && out->top_logp != NULL));
    OPD_ASSERT(out->collision == NULL || out->logp != NULL);
    OPD_TRY(check_given(graph, out, n));
    for (size_t i = 0; i < n; i += graph->chunk) {
        size_t count = opd__least(n - i, graph->chunk);
        opd__graph_head(graph, rows + i, count);
        k->ops->logprob(k, out->logp == NULL ? NULL : out->logp + i,
                        out->entropy == NULL ? NULL : out->entropy + i,
                        top == 0 ? NULL : out->top_ids + i * top,
                        top == 0 ? NULL : out->top_logp + i * top, top, graph->logits,
                        graph->targets, graph->inv_t, count, graph->weights.dims.vocab);
        if (out->ids_k > 0)
            score_given(graph, out->ids + i * out->ids_k, out->ids_k, count, out->ids_logp + i * out->ids_k);
        if (out->collision != NULL) collide(graph, out->logp + i, count, out->collision + i);
    }
    return OPD_OK;
}

static opd_err graph_hidden(opd_graph *base, const opd_score_row *rows, size_t n, float *out) {
    opd__graph *graph = (opd__graph *)base;
    size_t hidden = graph->weights.dims.hidden;
    OPD_TRY(opd__graph_check_rows(graph, rows, n, false, false));
    for (size_t i = 0; i < n; i += graph->chunk) {
        size_t count = opd__least(n - i, graph->chunk);
        opd__graph_head_norm(graph, rows + i, count);
        memcpy(out + i * hidden, graph->head_normed, count * hidden * sizeof(float));
    }
    return OPD_OK;
}

static void graph_destroy(opd_graph *base) {
    opd__graph *graph = (opd__graph *)base;
    opd__weights_fini(&graph->weights);
    opd_floats_destroy(graph->alloc, graph->arena);
    opd_mem_free(graph->alloc, graph->ints);
    opd_mem_free(graph->alloc, graph->seq_start);
    opd_mem_free(graph->alloc, graph->layers);
    opd_mem_free(graph->alloc, graph);
}

static void graph_set_weights(opd_graph *base, const float *params) {
    opd__graph *graph = (opd__graph *)base;
    opd__weights_set(&graph->weights, graph->kernels, params);
    graph->ready = false;
}

static opd_err graph_forward(opd_graph *base, const opd_packed *packed) {
    return opd__graph_forward((opd__graph *)base, packed, NULL, NULL, NULL);
}

static const opd_graph_ops graph_ops = {
    .destroy = graph_destroy, .set_weights = graph_set_weights, .forward = graph_forward,
    .score = graph_score, .hidden = graph_hidden, .backward = opd__graph_backward,
    .backward_logits = opd__graph_backward_logits};

opd_err opd_graph_create(opd_kernels *kernels, const opd_model_config *config, opd_graph_mode mode,
                         size_t max_tokens, const opd_alloc *alloc, opd_graph **out_graph) {
    *out_graph = NULL;
    OPD_TRY(opd_model_config_check(config));
    if (max_tokens == 0 || max_tokens > INT32_MAX)
        return opd_fail(OPD_ERR_INVALID, "graph: max_tokens %zu is out of range", max_tokens);
    opd__graph *g = opd_mem_get(alloc, sizeof *g);
    if (g == NULL) return opd_fail(OPD_ERR_NOMEM, "graph");
    g->base.ops = &graph_ops;
    g->kernels = kernels;
    g->config = *config;
    g->mode = mode;
    g->max_tokens = max_tokens;
    g->alloc = alloc;
    opd_err err = fill(g);
    if (err != OPD_OK) {
        opd_graph_destroy(&g->base);
        return err;
    }
    *out_graph = &g->base;
    return OPD_OK;
}
