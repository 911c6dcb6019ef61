/* stub_model.c - tokens and log-probs from hashes (stub_model.h).
 *
 * A prefix is a 64-bit number, made anew by each token; everything else follows from the
 * prefix. The decoder keeps the prefixes of all positions, so that it can be cut back.
 * Thread: the simulation's. Every object owns its arrays.
 */
#include "tests/sim/stub_model.h"

#include <math.h>
#include <string.h>

#include "core/base/check.h"
#include "core/base/rng.h"
#include "opd/alloc.h"

enum { ANSWER_MEAN = 5, LEVELS = 48, SALT_STUDENT = 1, SALT_TEACHER = 2 };

static const stub_recorder *recorder;

void stub_record(const stub_recorder *r) { recorder = r; }

/* ---- the arithmetic -------------------------------------------------------------------- */

static const uint64_t EMPTY = 0x5eed;

static uint64_t grow(uint64_t prefix, int32_t token) {
    return opd_rng_at(prefix, (uint64_t)(uint32_t)token, 0, 0);
}

uint64_t stub_digest(const int32_t *tokens, size_t count) {
    uint64_t prefix = EMPTY;
    for (size_t i = 0; i < count; i++) prefix = grow(prefix, tokens[i]);
    return prefix;
}

static float logp_of(uint64_t prefix, int32_t target, uint64_t salt) {
    return -(float)(1 + opd_rng_at(prefix, (uint64_t)(uint32_t)target, salt, 0) % LEVELS) / 16.0f;
}

static int32_t token_after(uint64_t prefix, float uniform, const opd_model_config *config) {
    uint64_t bits = opd_rng_at(prefix, (uint64_t)(uniform * 16777216.0f), 3, 0);
    if (bits % ANSWER_MEAN == 0) return config->eos_id;
    return (int32_t)((bits >> 16) % (uint64_t)config->vocab_size);
}

size_t stub_response(const opd_model_config *config, uint64_t seed, uint64_t epoch,
                     uint64_t group, uint32_t member, int32_t *tokens, size_t prompt_len,
                     size_t max_new, size_t max_len) {
    uint64_t key = opd_rng_at(seed, epoch, group, member), prefix = stub_digest(tokens, prompt_len);
    size_t length = prompt_len;
    for (;;) {
        uint64_t bits = opd_rng_at(key, length - prompt_len, 0, 0);
        int32_t token = token_after(prefix, (float)(bits >> 40) * 0x1p-24f, config);
        tokens[length++] = token;
        prefix = grow(prefix, token);
        if (token == config->eos_id || length - prompt_len >= max_new || length >= max_len)
            return length;
    }
}

/* ---- the decoder ----------------------------------------------------------------------- */

typedef struct decoder {
    opd_decoder base;
    opd_model_config config;
    size_t slots, max_len, top_k;
    size_t *lengths;    /* [slots] */
    uint64_t *prefixes; /* [slots][max_len + 1]: after so many tokens */
    const opd_alloc *alloc;
} decoder;

static uint64_t *prefixes_of(const decoder *d, size_t slot) {
    return d->prefixes + slot * (d->max_len + 1);
}

static void append(decoder *d, size_t slot, int32_t token) {
    uint64_t *at = prefixes_of(d, slot) + d->lengths[slot]++;
    at[1] = grow(at[0], token);
}

static void decoder_destroy(opd_decoder *base) {
    decoder *d = (decoder *)base;
    opd_mem_free(d->alloc, d->lengths);
    opd_mem_free(d->alloc, d->prefixes);
    opd_mem_free(d->alloc, d);
}

static void decoder_set_weights(opd_decoder *base, const float *params) {
    (void)base;
    (void)params;
}

static opd_err decoder_prefill(opd_decoder *base, const size_t *slots, const opd_packed *packed) {
    decoder *d = (decoder *)base;
    for (size_t s = 0; s < packed->seq_count; s++) {
        size_t first = packed->seq_start[s], last = packed->seq_start[s + 1];
        if (slots[s] >= d->slots) return opd_fail(OPD_ERR_INVALID, "stub: slot %zu", slots[s]);
        if (last - first > d->max_len) return opd_fail(OPD_ERR_LIMIT, "stub: prefill too long");
        d->lengths[slots[s]] = 0;
        for (size_t i = first; i < last; i++) append(d, slots[s], packed->tokens[i]);
    }
    return OPD_OK;
}

static opd_err decoder_copy(opd_decoder *base, size_t from, const size_t *to, size_t n) {
    decoder *d = (decoder *)base;
    for (size_t i = 0; i < n; i++) {
        if (from >= d->slots || to[i] >= d->slots)
            return opd_fail(OPD_ERR_INVALID, "stub: copy %zu to %zu", from, to[i]);
        if (to[i] == from) continue;
        d->lengths[to[i]] = d->lengths[from];
        memcpy(prefixes_of(d, to[i]), prefixes_of(d, from),
               (d->lengths[from] + 1) * sizeof(uint64_t));
    }
    return OPD_OK;
}

static opd_err decoder_step(opd_decoder *base, const opd_decode_row *rows, size_t n,
                            opd_decode_out *out) {
    decoder *d = (decoder *)base;
    for (size_t i = 0; i < n; i++)
        if (rows[i].slot >= d->slots || d->lengths[rows[i].slot] >= d->max_len ||
            rows[i].token < 0 || rows[i].token >= d->config.vocab_size)
            return opd_fail(OPD_ERR_INVALID, "stub: row %zu of a step", i);
    for (size_t i = 0; i < n; i++) {
        append(d, rows[i].slot, rows[i].token);
        uint64_t prefix = prefixes_of(d, rows[i].slot)[d->lengths[rows[i].slot]];
        float uniform = rows[i].sampling->greedy ? 0 : rows[i].uniform;
        out[i].token = token_after(prefix, uniform, &d->config);
        for (size_t k = 0; rows[i].top_ids != NULL && k < d->top_k; k++)
            rows[i].top_ids[k] = (int32_t)((prefix + SALT_STUDENT + k) % (uint64_t)d->config.vocab_size);
        out[i].logp = logp_of(prefix, out[i].token, SALT_STUDENT);
    }
    return OPD_OK;
}

static size_t decoder_length(const opd_decoder *base, size_t slot) {
    return ((const decoder *)base)->lengths[slot];
}

static void decoder_truncate(opd_decoder *base, size_t slot, size_t length) {
    ((decoder *)base)->lengths[slot] = length;
}

static const opd_decoder_ops decoder_ops = {
    .destroy = decoder_destroy, .set_weights = decoder_set_weights, .prefill = decoder_prefill,
    .copy = decoder_copy, .step = decoder_step, .length = decoder_length,
    .truncate = decoder_truncate};

static opd_err decoder_create(opd_kernels *kernels, const opd_model_config *config,
                              const opd_decoder_options *options, const opd_alloc *alloc,
                              opd_decoder **out_decoder) {
    (void)kernels;
    decoder *d = opd_mem_get(alloc, sizeof *d);
    if (d == NULL) return opd_fail(OPD_ERR_NOMEM, "stub decoder");
    *d = (decoder){.base = {&decoder_ops}, .config = *config, .slots = options->slots,
                   .max_len = options->max_len, .top_k = options->top_k, .alloc = alloc};
    d->lengths = opd_mem_get(alloc, d->slots * sizeof *d->lengths);
    d->prefixes = opd_mem_get(alloc, d->slots * (d->max_len + 1) * sizeof *d->prefixes);
    if (d->lengths == NULL || d->prefixes == NULL) {
        decoder_destroy(&d->base);
        return opd_fail(OPD_ERR_NOMEM, "stub decoder");
    }
    for (size_t s = 0; s < d->slots; s++) prefixes_of(d, s)[0] = EMPTY;
    *out_decoder = &d->base;
    return OPD_OK;
}

/* ---- the graph ------------------------------------------------------------------------- */

typedef struct graph {
    opd_graph base;
    opd_model_config config;
    opd_graph_mode mode;
    size_t max_tokens, count, param_count;
    uint64_t *prefixes; /* [max_tokens]: with that token */
    int32_t *tokens;    /* [max_tokens] */
    size_t *ends;       /* [max_tokens]: where the token's sequence ends */
    bool ready;
    const opd_alloc *alloc;
} graph;

static void graph_destroy(opd_graph *base) {
    graph *g = (graph *)base;
    opd_mem_free(g->alloc, g->prefixes);
    opd_mem_free(g->alloc, g->tokens);
    opd_mem_free(g->alloc, g->ends);
    opd_mem_free(g->alloc, g);
}

static void graph_set_weights(opd_graph *base, const float *params) {
    (void)params;
    ((graph *)base)->ready = false;
}

static opd_err graph_forward(opd_graph *base, const opd_packed *packed) {
    graph *g = (graph *)base;
    g->count = packed->seq_start[packed->seq_count];
    if (g->count > g->max_tokens)
        return opd_fail(OPD_ERR_LIMIT, "stub: %zu tokens in a batch", g->count);
    for (size_t s = 0; s < packed->seq_count; s++) {
        uint64_t prefix = EMPTY;
        for (size_t i = packed->seq_start[s]; i < packed->seq_start[s + 1]; i++) {
            if (packed->tokens[i] < 0 || packed->tokens[i] >= g->config.vocab_size)
                return opd_fail(OPD_ERR_INVALID, "stub: id %d", packed->tokens[i]);
            prefix = grow(prefix, packed->tokens[i]);
            g->prefixes[i] = prefix;
            g->tokens[i] = packed->tokens[i];
            g->ends[i] = packed->seq_start[s + 1];
        }
    }
    g->ready = true;
    return OPD_OK;
}

static opd_err graph_score(opd_graph *base, const opd_score_row *rows, size_t n,
                           const opd_scores *out) {
    graph *g = (graph *)base;
    uint64_t salt = g->mode == OPD_GRAPH_TRAIN ? SALT_STUDENT : SALT_TEACHER;
    uint64_t vocab = (uint64_t)g->config.vocab_size;
    if (!g->ready) return opd_fail(OPD_ERR_INVALID, "stub: score without forward");
    for (size_t i = 0; i < n; i++) {
        if (rows[i].row >= g->count) return opd_fail(OPD_ERR_INVALID, "stub: row %zu", rows[i].row);
        uint64_t prefix = g->prefixes[rows[i].row];
        if (out->logp != NULL) out->logp[i] = logp_of(prefix, rows[i].target, salt);
        if (out->collision != NULL) out->collision[i] = -(float)(prefix % 16) / 16.0f;
        if (out->entropy != NULL) out->entropy[i] = (float)(prefix % 32) / 16.0f;
        for (size_t k = 0; k < out->top_k; k++) {
            out->top_ids[i * out->top_k + k] = (int32_t)((prefix + salt + k) % vocab);
            out->top_logp[i * out->top_k + k] = -(float)(k + 1) / 16.0f;
        }
        for (size_t k = i * out->ids_k; k < (i + 1) * out->ids_k; k++)
            out->ids_logp[k] = logp_of(prefix, out->ids[k], salt);
    }
    return OPD_OK;
}

/* Tells the sequence that ends at `end`; its rows are [first, last). */
static void tell(const graph *g, size_t end, const float *dlogp, size_t first, size_t last) {
    size_t begin = end;
    bool finite = true;
    while (begin > 0 && g->ends[begin - 1] == end) begin--;
    for (size_t i = first; i < last; i++) finite = finite && isfinite(dlogp[i]);
    if (recorder != NULL)
        recorder->trained(recorder->arg, g->tokens + begin, end - begin, finite);
}

static opd_err graph_hidden(opd_graph *base, const opd_score_row *rows, size_t n, float *out) {
    (void)base, (void)rows, (void)n, (void)out;
    return opd_fail(OPD_ERR_UNSUPPORTED, "the stub has no hidden state");
}

static opd_err graph_backward(opd_graph *base, const opd_score_row *rows, size_t n,
                              const float *dlogp, const float *dentropy, const float *dhidden,
                              float *grads) {
    graph *g = (graph *)base;
    (void)dentropy, (void)dhidden;
    if (!g->ready || g->mode != OPD_GRAPH_TRAIN)
        return opd_fail(OPD_ERR_INVALID, "stub: backward without forward");
    for (size_t i = 0, first = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &dlogp[i], sizeof bits);
        uint64_t hash = opd_rng_at(g->prefixes[rows[i].row], (uint64_t)(uint32_t)rows[i].target,
                                   bits, 4);
        grads[(hash >> 8) % g->param_count] += (float)(hash % 15) - 7.0f;
        size_t end = g->ends[rows[i].row];
        if (i + 1 < n && g->ends[rows[i + 1].row] == end) continue;
        tell(g, end, dlogp, first, i + 1);
        first = i + 1;
    }
    g->ready = false;
    return OPD_OK;
}

static opd_err graph_backward_logits(opd_graph *base, const opd_score_row *rows, size_t n,
                                     opd_logits_grad_fn grad_fn, void *arg, const float *dhidden,
                                     float *grads) {
    (void)base, (void)rows, (void)n, (void)grad_fn, (void)arg, (void)dhidden, (void)grads;
    return opd_fail(OPD_ERR_UNSUPPORTED, "the stub has no logits");
}

static const opd_graph_ops graph_ops = {
    .destroy = graph_destroy, .set_weights = graph_set_weights, .forward = graph_forward,
    .score = graph_score, .hidden = graph_hidden, .backward = graph_backward,
    .backward_logits = graph_backward_logits};

static opd_err graph_create(opd_kernels *kernels, const opd_model_config *config,
                            opd_graph_mode mode, size_t max_tokens, const opd_alloc *alloc,
                            opd_graph **out_graph) {
    (void)kernels;
    graph *g = opd_mem_get(alloc, sizeof *g);
    if (g == NULL) return opd_fail(OPD_ERR_NOMEM, "stub graph");
    *g = (graph){.base = {&graph_ops}, .config = *config, .mode = mode, .max_tokens = max_tokens,
                 .param_count = opd_model_layout_of(config).total, .alloc = alloc};
    g->prefixes = opd_mem_get(alloc, max_tokens * sizeof *g->prefixes);
    g->tokens = opd_mem_get(alloc, max_tokens * sizeof *g->tokens);
    g->ends = opd_mem_get(alloc, max_tokens * sizeof *g->ends);
    if (g->prefixes == NULL || g->tokens == NULL || g->ends == NULL) {
        graph_destroy(&g->base);
        return opd_fail(OPD_ERR_NOMEM, "stub graph");
    }
    *out_graph = &g->base;
    return OPD_OK;
}

/* ---- the reader ------------------------------------------------------------------------ */

typedef struct reader {
    opd_reader base;
    opd_graph *graph; /* of what was read last */
    size_t page_count, max_len;
    uint64_t *pages; /* [page_count][OPD_KV_PAGE]: the prefix with the token of that place */
    const opd_alloc *alloc;
} reader;

static void reader_destroy(opd_reader *base) {
    reader *r = (reader *)base;
    opd_graph_destroy(r->graph);
    opd_mem_free(r->alloc, r->pages);
    opd_mem_free(r->alloc, r);
}

static void reader_set_weights(opd_reader *base, const float *params) {
    opd_graph_set_weights(((reader *)base)->graph, params);
}

static uint64_t *place_of(const reader *r, const opd_read *read, size_t position) {
    return &r->pages[read->pages[position / OPD_KV_PAGE] * (size_t)OPD_KV_PAGE +
                     position % OPD_KV_PAGE];
}

static opd_err check_read(const reader *r, const opd_read *read, size_t n) {
    if (n == 0 || read->filled < read->past) return opd_fail(OPD_ERR_INVALID, "stub: a read");
    if (read->past + n > r->max_len) return opd_fail(OPD_ERR_LIMIT, "stub: a read is too long");
    for (size_t i = 0; i * OPD_KV_PAGE < read->past + n; i++)
        if (read->pages[i] >= r->page_count)
            return opd_fail(OPD_ERR_INVALID, "stub: page %u", read->pages[i]);
    return OPD_OK;
}

/* The graph takes the batch as whole sequences; then each gets the past that its pages hold. */
static opd_err reader_forward(opd_reader *base, const opd_packed *packed, const opd_read *reads) {
    reader *r = (reader *)base;
    graph *g = (graph *)r->graph;
    for (size_t s = 0; s < packed->seq_count; s++)
        OPD_TRY(check_read(r, &reads[s], packed->seq_start[s + 1] - packed->seq_start[s]));
    OPD_TRY(graph_forward(r->graph, packed));
    for (size_t s = 0; s < packed->seq_count; s++) {
        const opd_read *read = &reads[s];
        uint64_t prefix = read->past == 0 ? EMPTY : *place_of(r, read, read->past - 1);
        for (size_t i = packed->seq_start[s]; i < packed->seq_start[s + 1]; i++) {
            size_t position = read->past + i - packed->seq_start[s];
            prefix = g->prefixes[i] = grow(prefix, packed->tokens[i]);
            if (position >= read->filled) *place_of(r, read, position) = prefix;
        }
    }
    return OPD_OK;
}

static opd_err reader_score(opd_reader *base, const opd_score_row *rows, size_t n,
                            const opd_scores *out) {
    return graph_score(((reader *)base)->graph, rows, n, out);
}

static opd_err reader_copy(opd_reader *base, uint32_t from, uint32_t to) {
    reader *r = (reader *)base;
    if (from >= r->page_count || to >= r->page_count)
        return opd_fail(OPD_ERR_INVALID, "stub: copy page %u to %u", from, to);
    memmove(r->pages + to * (size_t)OPD_KV_PAGE, r->pages + from * (size_t)OPD_KV_PAGE,
            OPD_KV_PAGE * sizeof *r->pages);
    return OPD_OK;
}

static const opd_reader_ops reader_ops = {
    .destroy = reader_destroy, .set_weights = reader_set_weights, .forward = reader_forward,
    .score = reader_score, .copy = reader_copy};

static opd_err reader_create(opd_kernels *kernels, const opd_model_config *config,
                             const opd_reader_options *options, const opd_alloc *alloc,
                             opd_reader **out_reader) {
    reader *r = opd_mem_get(alloc, sizeof *r);
    if (r == NULL) return opd_fail(OPD_ERR_NOMEM, "stub reader");
    *r = (reader){.base = {&reader_ops}, .page_count = options->pages,
                  .max_len = options->max_len, .alloc = alloc};
    opd_err err = graph_create(kernels, config, OPD_GRAPH_SCORE, options->max_tokens, alloc,
                               &r->graph);
    r->pages = opd_mem_get(alloc, r->page_count * OPD_KV_PAGE * sizeof *r->pages);
    if (err == OPD_OK && r->pages == NULL) err = opd_fail(OPD_ERR_NOMEM, "stub reader");
    if (err != OPD_OK) {
        reader_destroy(&r->base);
        return err;
    }
    *out_reader = &r->base;
    return OPD_OK;
}

const opd_lm_ops stub_lm = {.graph_create = graph_create, .decoder_create = decoder_create,
                            .reader_create = reader_create};
