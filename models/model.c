/* models/model.c - see model.h: the table of tensors and the random start. */
#include "models/model.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/base/check.h"
#include "core/base/rng.h"
#include "kernels/array.h"
#include "opd/alloc.h"

enum { SIZE_LIMIT = 1 << 24, LAYERS_LIMIT = 1024, TENSORS_PER_LAYER = 9 };
static const double PARAMS_LIMIT = 1099511627776.0; /* 2^40 */
static const double INIT_STD = 0.02;

static opd_err check_size(const char *name, int32_t value, int32_t most) {
    if (value >= 1 && value <= most) return OPD_OK;
    return opd_fail(OPD_ERR_INVALID, "model configuration: %s is %d, must be in 1..%d", name,
                    (int)value, (int)most);
}

static double params_estimate(const opd_model_config *c) {
    double hidden = c->hidden_size, qkv = (double)(c->heads + c->kv_heads) * 2 * c->head_dim;
    return 2.0 * c->vocab_size * hidden +
           c->layers * hidden * (qkv + 3.0 * c->intermediate_size + 2);
}

opd_err opd_model_config_check(const opd_model_config *c) {
    OPD_TRY(check_size("vocab_size", c->vocab_size, SIZE_LIMIT));
    OPD_TRY(check_size("hidden_size", c->hidden_size, SIZE_LIMIT));
    OPD_TRY(check_size("intermediate_size", c->intermediate_size, SIZE_LIMIT));
    OPD_TRY(check_size("num_hidden_layers", c->layers, LAYERS_LIMIT));
    OPD_TRY(check_size("num_attention_heads", c->heads, 65536));
    OPD_TRY(check_size("num_key_value_heads", c->kv_heads, c->heads));
    OPD_TRY(check_size("head_dim", c->head_dim, 4096));
    OPD_TRY(check_size("max_position_embeddings", c->max_position, SIZE_LIMIT));
    if (c->heads % c->kv_heads != 0)
        return opd_fail(OPD_ERR_INVALID,
                        "model configuration: num_attention_heads %d is no multiple of "
                        "num_key_value_heads %d", (int)c->heads, (int)c->kv_heads);
    if (c->head_dim % 2 != 0)
        return opd_fail(OPD_ERR_INVALID, "model configuration: head_dim %d must be even",
                        (int)c->head_dim);
    if (!(c->rope_theta > 0) || !isfinite(c->rope_theta))
        return opd_fail(OPD_ERR_INVALID, "model configuration: rope_theta %g must be positive",
                        c->rope_theta);
    if (!(c->rms_eps > 0) || !isfinite(c->rms_eps))
        return opd_fail(OPD_ERR_INVALID, "model configuration: rms_norm_eps %g must be positive",
                        c->rms_eps);
    if (params_estimate(c) >= PARAMS_LIMIT)
        return opd_fail(OPD_ERR_INVALID, "model configuration: %g parameters are too many",
                        params_estimate(c));
    return OPD_OK;
}

opd_model_layout opd_model_layout_of(const opd_model_config *c) {
    size_t hidden = (size_t)c->hidden_size, vocab = (size_t)c->vocab_size;
    size_t q = (size_t)c->heads * (size_t)c->head_dim;
    size_t kv = (size_t)c->kv_heads * (size_t)c->head_dim, inner = (size_t)c->intermediate_size;
    opd_model_layout at = {.embed = 0, .layer_base = vocab * hidden, .norm_attn = 0};
    at.qkv = hidden;
    at.o = at.qkv + (q + 2 * kv) * hidden;
    at.norm_mlp = at.o + hidden * q;
    at.gate_up = at.norm_mlp + hidden;
    at.down = at.gate_up + 2 * inner * hidden;
    at.layer_stride = at.down + hidden * inner;
    at.norm = at.layer_base + (size_t)c->layers * at.layer_stride;
    at.head = c->tie_embeddings ? at.embed : at.norm + hidden;
    at.total = at.norm + hidden + (c->tie_embeddings ? 0 : vocab * hidden);
    return at;
}

/* Appends the next tensor in memory order; columns 0 makes a rank-1 tensor. */
static void append(opd_model *m, size_t rows, size_t columns, const char *fmt, ...)
    OPD_PRINTF(4, 5);
static void append(opd_model *m, size_t rows, size_t columns, const char *fmt, ...) {
    opd_tensor *t = &m->tensors[m->tensor_count];
    const opd_tensor *before = m->tensor_count == 0 ? NULL : t - 1;
    *t = (opd_tensor){.rank = columns == 0 ? 1 : 2,
                      .shape = {rows, columns == 0 ? 1 : columns},
                      .offset = before == NULL ? 0 : before->offset + before->count};
    t->count = t->shape[0] * t->shape[1];
    va_list args;
    va_start(args, fmt);
    vsnprintf(t->name, sizeof t->name, fmt, args);
    va_end(args);
    m->tensor_count++;
}

static void fill_table(opd_model *m) {
    const opd_model_config *c = &m->config;
    size_t hidden = (size_t)c->hidden_size, inner = (size_t)c->intermediate_size;
    size_t q = (size_t)c->heads * (size_t)c->head_dim;
    size_t kv = (size_t)c->kv_heads * (size_t)c->head_dim;
    append(m, (size_t)c->vocab_size, hidden, "model.embed_tokens.weight");
    for (int32_t i = 0; i < c->layers; i++) {
        append(m, hidden, 0, "model.layers.%d.input_layernorm.weight", (int)i);
        append(m, q, hidden, "model.layers.%d.self_attn.q_proj.weight", (int)i);
        append(m, kv, hidden, "model.layers.%d.self_attn.k_proj.weight", (int)i);
        append(m, kv, hidden, "model.layers.%d.self_attn.v_proj.weight", (int)i);
        append(m, hidden, q, "model.layers.%d.self_attn.o_proj.weight", (int)i);
        append(m, hidden, 0, "model.layers.%d.post_attention_layernorm.weight", (int)i);
        append(m, inner, hidden, "model.layers.%d.mlp.gate_proj.weight", (int)i);
        append(m, inner, hidden, "model.layers.%d.mlp.up_proj.weight", (int)i);
        append(m, hidden, inner, "model.layers.%d.mlp.down_proj.weight", (int)i);
    }
    append(m, hidden, 0, "model.norm.weight");
    if (!c->tie_embeddings) append(m, (size_t)c->vocab_size, hidden, "lm_head.weight");
}

opd_err opd_model_create_empty(const opd_model_config *config, const opd_alloc *alloc,
                               opd_model **out_model) {
    *out_model = NULL;
    OPD_TRY(opd_model_config_check(config));
    opd_model *m = opd_mem_get(alloc, sizeof *m);
    if (m == NULL) return opd_fail(OPD_ERR_NOMEM, "model");
    m->config = *config;
    m->alloc = alloc;
    m->param_count = opd_model_layout_of(config).total;
    size_t most = 3 + TENSORS_PER_LAYER * (size_t)config->layers;
    m->tensors = opd_mem_get(alloc, most * sizeof *m->tensors);
    m->params = opd_floats_create(alloc, m->param_count);
    if (m->tensors == NULL || m->params == NULL) {
        opd_model_destroy(m);
        return opd_fail(OPD_ERR_NOMEM, "model of %g parameters", params_estimate(config));
    }
    fill_table(m);
    const opd_tensor *last = &m->tensors[m->tensor_count - 1];
    OPD_ASSERT(last->offset + last->count == m->param_count);
    *out_model = m;
    return OPD_OK;
}

/* Two standard normals from counter i (Box & Muller 1958). */
static void normal_pair(uint64_t seed, size_t tensor, size_t i, double out[2]) {
    double u = opd_rng_uniform(opd_rng_at(seed, tensor, i, 0));
    double angle = 6.283185307179586 * opd_rng_uniform(opd_rng_at(seed, tensor, i, 1));
    double radius = sqrt(-2.0 * log(1.0 - u));
    out[0] = radius * cos(angle);
    out[1] = radius * sin(angle);
}

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), k = strlen(end);
    return n >= k && strcmp(text + n - k, end) == 0;
}

static void fill_random(opd_model *m, uint64_t seed) {
    for (size_t t = 0; t < m->tensor_count; t++) {
        const opd_tensor *tensor = &m->tensors[t];
        float *out = m->params + tensor->offset;
        double std = INIT_STD;
        if (ends_with(tensor->name, "o_proj.weight") || ends_with(tensor->name, "down_proj.weight"))
            std /= sqrt(2.0 * m->config.layers);
        for (size_t i = 0; i < tensor->count; i += 2) {
            double pair[2] = {1.0, 1.0};
            if (tensor->rank == 2) normal_pair(seed, t, i, pair);
            out[i] = (float)(tensor->rank == 2 ? pair[0] * std : 1.0);
            if (i + 1 < tensor->count)
                out[i + 1] = (float)(tensor->rank == 2 ? pair[1] * std : 1.0);
        }
    }
}

opd_err opd_model_create(const opd_model_config *config, uint64_t seed, const opd_alloc *alloc,
                         opd_model **out_model) {
    OPD_TRY(opd_model_create_empty(config, alloc, out_model));
    fill_random(*out_model, seed);
    return OPD_OK;
}

void opd_model_destroy(opd_model *model) {
    if (model == NULL) return;
    opd_floats_destroy(model->alloc, model->params);
    opd_mem_free(model->alloc, model->tensors);
    opd_mem_free(model->alloc, model);
}

const opd_tensor *opd_model_find(const opd_model *model, const char *name) {
    for (size_t i = 0; i < model->tensor_count; i++)
        if (strcmp(model->tensors[i].name, name) == 0) return &model->tensors[i];
    return NULL;
}
