/* models/reader.c - see reader.h. A graph does all but the attention, which goes over pages.
 *
 * Thread: as reader.h. The reader owns its graph and the pool.
 */
#include "models/reader.h"

#include <string.h>

#include "core/base/check.h"
#include "kernels/array.h"
#include "models/graph_inside.h"
#include "opd/alloc.h"

typedef struct reader {
    opd_reader base;
    opd_kernels *kernels;
    opd__graph *graph;
    const opd__dims *dims;
    size_t page_count, max_len, max_tokens;
    size_t layer_floats, page_floats; /* of one page */
    float *pool;                      /* [page_count, layers, layer_floats] */
    opd_kv_paged *paged;              /* [max_tokens], of the present layer */
    size_t *past;                     /* [max_tokens] */
    const struct opd_alloc *alloc;
} reader;

static size_t layer_floats(const opd_model_config *c) {
    return 2 * (size_t)c->kv_heads * (size_t)c->head_dim * OPD_KV_PAGE;
}

size_t opd_reader_page_floats(const opd_model_config *config) {
    return (size_t)config->layers * layer_floats(config);
}

static opd_err fill(reader *r, const opd_model_config *config) {
    opd_graph *graph;
    OPD_TRY(opd_graph_create(r->kernels, config, OPD_GRAPH_SCORE, r->max_tokens, r->alloc, &graph));
    r->graph = (opd__graph *)graph;
    r->dims = &r->graph->weights.dims;
    OPD_TRY(r->kernels->ops->reserve(r->kernels, r->max_len, &r->dims->attention, r->dims->vocab));
    r->layer_floats = layer_floats(config);
    r->page_floats = opd_reader_page_floats(config);
    if (r->page_count > SIZE_MAX / sizeof(float) / r->page_floats)
        return opd_fail(OPD_ERR_NOMEM, "reader: %zu pages", r->page_count);
    r->pool = opd_floats_create(r->alloc, r->page_count * r->page_floats);
    r->paged = opd_mem_get(r->alloc, r->max_tokens * sizeof *r->paged);
    r->past = opd_mem_get(r->alloc, r->max_tokens * sizeof *r->past);
    if (r->pool == NULL || r->paged == NULL || r->past == NULL)
        return opd_fail(OPD_ERR_NOMEM, "no memory for %zu pages of %zu bytes of keys and values",
                        r->page_count, r->page_floats * sizeof(float));
    return OPD_OK;
}

static void reader_destroy(opd_reader *base) {
    reader *r = (reader *)base;
    if (r->graph != NULL) opd_graph_destroy(&r->graph->base);
    opd_floats_destroy(r->alloc, r->pool);
    opd_mem_free(r->alloc, r->paged);
    opd_mem_free(r->alloc, r->past);
    opd_mem_free(r->alloc, r);
}

static void reader_set_weights(opd_reader *base, const float *params) {
    opd_graph_set_weights(&((reader *)base)->graph->base, params);
}

/* What the graph does not check. */
static opd_err take_read(reader *r, const opd_packed *packed, const opd_read *reads, size_t s) {
    const opd_read *read = &reads[s];
    size_t first = packed->seq_start[s], last = packed->seq_start[s + 1];
    if (last <= first)
        return opd_fail(OPD_ERR_INVALID, "read: sequence %zu has no new token", s);
    if (read->filled < read->past)
        return opd_fail(OPD_ERR_INVALID, "read: sequence %zu lacks keys and values of %zu tokens",
                        s, read->past - read->filled);
    if (last - first > r->max_len || read->past > r->max_len - (last - first))
        return opd_fail(OPD_ERR_LIMIT, "read: sequence %zu: %zu tokens after %zu; at most %zu", s,
                        last - first, read->past, r->max_len);
    for (size_t i = 0; i * OPD_KV_PAGE < read->past + last - first; i++)
        if (read->pages[i] >= r->page_count)
            return opd_fail(OPD_ERR_INVALID, "read: page %u of %zu", read->pages[i], r->page_count);
    r->past[s] = read->past;
    r->paged[s] = (opd_kv_paged){.stride = r->page_floats, .pages = read->pages,
                                 .past = read->past, .filled = read->filled};
    return OPD_OK;
}

static void paged_layer(void *arg, size_t layer, float *out, const float *qkv) {
    reader *r = arg;
    const opd__graph *g = r->graph;
    for (size_t s = 0; s < g->seq_count; s++) r->paged[s].base = r->pool + layer * r->layer_floats;
    r->kernels->ops->attention_paged(r->kernels, out, qkv, g->seq_start, r->paged, g->seq_count,
                                     &r->dims->attention);
}

static opd_err reader_forward(opd_reader *base, const opd_packed *packed, const opd_read *reads) {
    reader *r = (reader *)base;
    if (packed->seq_count > r->max_tokens)
        return opd_fail(OPD_ERR_LIMIT, "read: %zu sequences; at most %zu tokens at once",
                        packed->seq_count, r->max_tokens);
    r->graph->ready = false;
    for (size_t s = 0; s < packed->seq_count; s++) OPD_TRY(take_read(r, packed, reads, s));
    return opd__graph_forward(r->graph, packed, r->past, paged_layer, r);
}

static opd_err reader_score(opd_reader *base, const opd_score_row *rows, size_t n,
                            const opd_scores *out_scores) {
    return opd_graph_score(&((reader *)base)->graph->base, rows, n, out_scores);
}

static opd_err reader_copy(opd_reader *base, uint32_t from, uint32_t to) {
    reader *r = (reader *)base;
    if (from >= r->page_count || to >= r->page_count)
        return opd_fail(OPD_ERR_INVALID, "copy: page %u to %u of %zu", from, to, r->page_count);
    if (from != to)
        memcpy(r->pool + to * r->page_floats, r->pool + from * r->page_floats,
               r->page_floats * sizeof(float));
    return OPD_OK;
}

static const opd_reader_ops reader_ops = {
    .destroy = reader_destroy, .set_weights = reader_set_weights, .forward = reader_forward,
    .score = reader_score, .copy = reader_copy};

opd_err opd_reader_create(opd_kernels *kernels, const opd_model_config *config,
                          const opd_reader_options *options, const opd_alloc *alloc,
                          opd_reader **out_reader) {
    *out_reader = NULL;
    OPD_TRY(opd_model_config_check(config));
    if (options->pages == 0 || options->pages > UINT32_MAX)
        return opd_fail(OPD_ERR_INVALID, "reader: %zu pages", options->pages);
    if (options->max_len == 0 || options->max_len > (size_t)config->max_position)
        return opd_fail(OPD_ERR_INVALID, "reader: max_len %zu is not in 1..%d (max_position)",
                        options->max_len, (int)config->max_position);
    reader *r = opd_mem_get(alloc, sizeof *r);
    if (r == NULL) return opd_fail(OPD_ERR_NOMEM, "reader");
    *r = (reader){.base = {&reader_ops}, .kernels = kernels, .page_count = options->pages,
                  .max_len = options->max_len, .max_tokens = options->max_tokens, .alloc = alloc};
    opd_err err = fill(r, config);
    if (err != OPD_OK) {
        opd_reader_destroy(&r->base);
        return err;
    }
    *out_reader = &r->base;
    return OPD_OK;
}
