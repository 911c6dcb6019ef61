/* models/graph_backward.c - the gradients, in the reverse order of graph.c's forward.
 *
 * Normed rows and the SwiGLU output are computed again from what was kept rather than stored:
 * they cost little and would double the activations. g->dx carries the gradient of the
 * residual stream downwards; each branch adds to it through its norm.
 *
 * Thread: as models/graph.h.
 */
#include <string.h>

#include "core/base/check.h"
#include "models/graph_inside.h"

/* The head's rows: gradient of the loss into g->dx, final norm, head. dhidden [n, hidden] or NULL:
 * what comes to the normed rows from elsewhere. */
static void head_backward(opd__graph *g, const opd_score_row *rows, size_t n,
                          opd_logits_grad_fn grad_fn, void *arg, const float *dhidden,
                          float *grads) {
    opd_kernels *k = g->kernels;
    const opd__dims *d = &g->weights.dims;
    const opd_model_layout *at = &g->weights.layout;
    memset(g->dx, 0, g->tokens * d->hidden * sizeof(float));
    for (size_t i = 0; i < n; i += g->chunk) {
        size_t count = opd__least(n - i, g->chunk);
        opd__graph_head(g, rows + i, count);
        grad_fn(arg, i, count, g->logits);
        k->ops->linear_dw(k, grads + at->head, g->logits, g->head_normed, count, d->vocab,
                          d->hidden);
        k->ops->linear_dx(k, g->dhead_normed, g->logits, g->weights.head_dx, count, d->vocab,
                          d->hidden, false);
        for (size_t r = 0; dhidden != NULL && r < count * d->hidden; r++)
            g->dhead_normed[r] += dhidden[i * d->hidden + r];
        memset(g->dhead_in, 0, count * d->hidden * sizeof(float));
        k->ops->rmsnorm_grad(k, g->dhead_in, grads + at->norm, g->dhead_normed, g->head_in,
                             g->weights.plain + at->norm, g->head_inv, count, d->hidden);
        for (size_t r = 0; r < count; r++)
            memcpy(g->dx + rows[i + r].row * d->hidden, g->dhead_in + r * d->hidden,
                   d->hidden * sizeof(float));
    }
}

static void mlp_backward(opd__graph *g, size_t i, float *grads) {
    opd_kernels *k = g->kernels;
    const opd_kernel_table *ops = k->ops;
    const opd__dims *d = &g->weights.dims;
    const opd_model_layout *at = &g->weights.layout;
    const opd__layer_weights *w = &g->weights.layers[i];
    const opd__activations *a = &g->layers[i];
    size_t t = g->tokens;
    ops->swiglu(k, g->inner, a->gate_up, t, d->inner);
    ops->linear_dw(k, grads + at->down, g->dx, g->inner, t, d->hidden, d->inner);
    ops->linear_dx(k, g->dinner, g->dx, w->down_dx, t, d->hidden, d->inner, false);
    ops->swiglu_grad(k, g->dgate_up, g->dinner, a->gate_up, t, d->inner);
    ops->rmsnorm(k, g->normed, NULL, a->middle, w->norm_mlp, t, d->hidden, d->eps);
    ops->linear_dw(k, grads + at->gate_up, g->dgate_up, g->normed, t, 2 * d->inner, d->hidden);
    ops->linear_dx(k, g->dnormed, g->dgate_up, w->gate_up_dx, t, 2 * d->inner, d->hidden, false);
    ops->rmsnorm_grad(k, g->dx, grads + at->norm_mlp, g->dnormed, a->middle, w->norm_mlp,
                      a->inv_mlp, t, d->hidden);
}

static void attention_backward(opd__graph *g, size_t i, float *grads) {
    opd_kernels *k = g->kernels;
    const opd_kernel_table *ops = k->ops;
    const opd__dims *d = &g->weights.dims;
    const opd_model_layout *at = &g->weights.layout;
    const opd__layer_weights *w = &g->weights.layers[i];
    const opd__activations *a = &g->layers[i];
    size_t t = g->tokens;
    ops->linear_dw(k, grads + at->o, g->dx, a->attended, t, d->hidden, d->q);
    ops->linear_dx(k, g->dattended, g->dx, w->o_dx, t, d->hidden, d->q, false);
    ops->attention_grad(k, g->dqkv, g->dattended, a->qkv, g->seq_start, g->seq_count,
                        &d->attention);
    ops->rope(k, g->dqkv, g->positions, g->weights.rope, t, d->qkv,
              d->attention.heads + d->attention.kv_heads, d->attention.head_dim, true);
    ops->rmsnorm(k, g->normed, NULL, a->x, w->norm_attn, t, d->hidden, d->eps);
    ops->linear_dw(k, grads + at->qkv, g->dqkv, g->normed, t, d->qkv, d->hidden);
    ops->linear_dx(k, g->dnormed, g->dqkv, w->qkv_dx, t, d->qkv, d->hidden, false);
    ops->rmsnorm_grad(k, g->dx, grads + at->norm_attn, g->dnormed, a->x, w->norm_attn,
                      a->inv_attn, t, d->hidden);
}

static opd_err backward(opd__graph *graph, const opd_score_row *rows, size_t n,
                        opd_logits_grad_fn grad_fn, void *arg, const float *dhidden,
                        float *grads) {
    if (graph->mode != OPD_GRAPH_TRAIN)
        return opd_fail(OPD_ERR_INVALID, "backward: the graph was made for scoring only");
    OPD_TRY(opd__graph_check_rows(graph, rows, n, true, false));
    const opd_model_layout *at = &graph->weights.layout;
    head_backward(graph, rows, n, grad_fn, arg, dhidden, grads);
    for (size_t i = graph->weights.dims.layers; i-- > 0;) {
        float *layer = grads + at->layer_base + i * at->layer_stride;
        mlp_backward(graph, i, layer);
        attention_backward(graph, i, layer);
    }
    graph->kernels->ops->embed_grad(graph->kernels, grads + at->embed, graph->dx, graph->ids,
                                    graph->tokens, graph->weights.dims.hidden);
    graph->ready = false;
    return OPD_OK;
}

opd_err opd__graph_backward_logits(opd_graph *base, const opd_score_row *rows, size_t n,
                                   opd_logits_grad_fn grad_fn, void *arg, const float *dhidden,
                                   float *grads) {
    return backward((opd__graph *)base, rows, n, grad_fn, arg, dhidden, grads);
}

typedef struct logp_grads {
    opd__graph *graph;
    const float *dlogp, *dentropy;
} logp_grads;

static void logp_grad_fn(void *arg, size_t first, size_t count, float *logits) {
    const logp_grads *l = arg;
    opd__graph *g = l->graph;
    g->kernels->ops->logprob_grad(g->kernels, logits, g->targets, g->inv_t,
                                  l->dlogp == NULL ? NULL : l->dlogp + first,
                                  l->dentropy == NULL ? NULL : l->dentropy + first, count,
                                  g->weights.dims.vocab);
}

opd_err opd__graph_backward(opd_graph *base, const opd_score_row *rows, size_t n,
                            const float *dlogp, const float *dentropy, const float *dhidden,
                            float *grads) {
    opd__graph *graph = (opd__graph *)base;
    OPD_TRY(opd__graph_check_rows(graph, rows, n, true, true));
    logp_grads l = {graph, dlogp, dentropy};
    return backward(graph, rows, n, logp_grad_fn, &l, dhidden, grads);
}
