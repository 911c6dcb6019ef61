/* table_lm.c - see table_lm.h. Logits become log-probs and gradients by the backend's own kernels. */
#include "tests/unit/actors/table_lm.h"

#include "kernels/array.h"
#include "tests/support/test.h"

enum { ROWS_MAX = 64, VOCAB_MAX = 16 };

static const table_lm *table;

void table_lm_set(const table_lm *t) {
    CHECK(t->rows <= ROWS_MAX && t->vocab <= VOCAB_MAX);
    table = t;
}

typedef struct graph {
    opd_graph base;
    opd_kernels *kernels;
    const float *params;
    size_t place[2 * ROWS_MAX]; /* of each packed token: its row of the table */
    bool begun;                 /* log-probs alone were asked for last */
} graph;

static void destroy(opd_graph *base) { free(base); }

static void set_weights(opd_graph *base, const float *params) { ((graph *)base)->params = params; }

static opd_err forward(opd_graph *base, const opd_packed *packed) {
    graph *g = (graph *)base;
    CHECK(packed->seq_start[packed->seq_count] <= 2 * ROWS_MAX);
    for (size_t s = 0; s < packed->seq_count; s++) {
        size_t first = packed->seq_start[s];
        for (size_t i = first; i < packed->seq_start[s + 1]; i++)
            g->place[i] = (size_t)packed->tokens[first] + i - first;
    }
    return OPD_OK;
}

static const float *logits_of(const graph *g, size_t row) { return g->params + row * table->vocab; }

/* Rows of logits with what the kernels want to know of them. */
typedef struct rows {
    float logits[ROWS_MAX * VOCAB_MAX], inverse[ROWS_MAX];
    int32_t targets[ROWS_MAX];
} rows;

static void take_rows(const graph *g, const opd_score_row *in, size_t n, rows *out) {
    CHECK(n <= ROWS_MAX);
    for (size_t i = 0; i < n; i++) {
        memcpy(out->logits + i * table->vocab, logits_of(g, g->place[in[i].row]),
               table->vocab * sizeof(float));
        out->inverse[i] = in[i].inverse_temperature;
        out->targets[i] = in[i].target;
    }
}

static opd_err score(opd_graph *base, const opd_score_row *in, size_t n, const opd_scores *out) {
    graph *g = (graph *)base;
    rows r;
    g->begun = out->entropy == NULL;
    if (g->begun) { /* of a reference, or before the first step */
        const float *given = g->params == table->ref_logp ? table->ref_logp : table->old_logp;
        for (size_t i = 0; i < n; i++) out->logp[i] = given[g->place[in[i].row]];
        return OPD_OK;
    }
    take_rows(g, in, n, &r);
    g->kernels->ops->logprob(g->kernels, out->logp, out->entropy, out->top_k > 0 ? out->top_ids : NULL,
                             out->top_k > 0 ? out->top_logp : NULL, out->top_k, r.logits, r.targets,
                             r.inverse, n, table->vocab);
    return OPD_OK;
}

static opd_err hidden(opd_graph *base, const opd_score_row *in, size_t n, float *out) {
    graph *g = (graph *)base;
    const float *now = g->params + table->rows * table->vocab;
    for (size_t i = 0; i < n; i++) {
        size_t row = g->place[in[i].row];
        out[i] = g->begun ? table->old_values[row] : now[row];
    }
    return OPD_OK;
}

static void add(graph *g, const opd_score_row *in, size_t n, const rows *r, const float *dhidden,
                float *grads) {
    for (size_t i = 0; i < n; i++) {
        size_t row = g->place[in[i].row];
        for (size_t j = 0; j < table->vocab; j++)
            grads[row * table->vocab + j] += r->logits[i * table->vocab + j];
        if (dhidden != NULL) grads[table->rows * table->vocab + row] += dhidden[i];
    }
}

static opd_err backward(opd_graph *base, const opd_score_row *in, size_t n, const float *dlogp,
                        const float *dentropy, const float *dhidden, float *grads) {
    graph *g = (graph *)base;
    rows r;
    take_rows(g, in, n, &r);
    g->kernels->ops->logprob_grad(g->kernels, r.logits, r.targets, r.inverse, dlogp, dentropy, n,
                                  table->vocab);
    add(g, in, n, &r, dhidden, grads);
    return OPD_OK;
}

static opd_err backward_logits(opd_graph *base, const opd_score_row *in, size_t n,
                               opd_logits_grad_fn grad_fn, void *arg, const float *dhidden, float *grads) {
    graph *g = (graph *)base;
    rows r;
    size_t half = n / 2; /* in parts, as the transformer does */
    take_rows(g, in, n, &r);
    if (half > 0) grad_fn(arg, 0, half, r.logits);
    if (n > half) grad_fn(arg, half, n - half, r.logits + half * table->vocab);
    add(g, in, n, &r, dhidden, grads);
    return OPD_OK;
}

static const opd_graph_ops graph_ops = {.destroy = destroy, .set_weights = set_weights, .forward = forward,
                                        .score = score, .hidden = hidden, .backward = backward,
                                        .backward_logits = backward_logits};

static opd_err graph_create(opd_kernels *kernels, const opd_model_config *config, opd_graph_mode mode,
                            size_t max_tokens, const struct opd_alloc *alloc, opd_graph **out) {
    (void)config, (void)mode, (void)max_tokens, (void)alloc;
    graph *g = calloc(1, sizeof *g);
    CHECK(g != NULL && table != NULL);
    g->base.ops = &graph_ops;
    g->kernels = kernels;
    *out = &g->base;
    return OPD_OK;
}

const opd_lm_ops table_lm_ops = {.graph_create = graph_create};

void table_model_init(const table_lm *t, opd_tensor *tensor, opd_model *out) {
    size_t count = t->rows * (t->vocab + 1);
    *tensor = (opd_tensor){.name = "table", .rank = 1, .shape = {count, 1}, .count = count};
    *out = (opd_model){.config = {.vocab_size = (int32_t)t->vocab, .hidden_size = 1}, .param_count = count,
                       .tensors = tensor, .tensor_count = 1, .params = opd_floats_create(NULL, count)};
    CHECK(out->params != NULL);
    memset(out->params, 0, count * sizeof(float));
}

void table_model_fini(opd_model *model) { opd_floats_destroy(NULL, model->params); }
