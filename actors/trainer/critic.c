/* critic.c - see critic.h. Sums run in double, in the order of the arrays. */
#include "actors/trainer/critic.h"

#include <stdio.h>
#include <string.h>

#include "core/base/check.h"
#include "kernels/array.h"

static void name_tensors(opd_critic *c, size_t hidden) {
    c->tensors[0] = (opd_tensor){.rank = 2, .shape = {1, hidden}, .offset = 0, .count = hidden};
    c->tensors[1] = (opd_tensor){.rank = 1, .shape = {1, 1}, .offset = hidden, .count = 1};
    (void)snprintf(c->tensors[0].name, sizeof c->tensors[0].name, "value_head.weight");
    (void)snprintf(c->tensors[1].name, sizeof c->tensors[1].name, "value_head.bias");
}

opd_err opd_critic_create(const opd_critic_config *config, const opd_optimizer_config *optimizer,
                          size_t hidden, size_t rows_max, const opd_alloc *alloc,
                          opd_critic **out) {
    opd_critic *c = opd_mem_get(alloc, sizeof *c);
    if (c == NULL) return opd_fail(OPD_ERR_NOMEM, "critic: no memory");
    c->config = *config;
    c->rows_max = rows_max;
    name_tensors(c, hidden);
    c->head = (opd_model){.config = {.hidden_size = (int32_t)hidden}, .param_count = hidden + 1,
                          .tensors = c->tensors, .tensor_count = 2, .alloc = alloc};
    c->head.params = opd_floats_create(alloc, hidden + 1);
    c->grads = opd_floats_create(alloc, hidden + 1);
    c->hidden = opd_floats_create(alloc, rows_max * hidden);
    c->dhidden = opd_floats_create(alloc, rows_max * hidden);
    c->values = opd_floats_create(alloc, rows_max);
    c->dvalues = opd_floats_create(alloc, rows_max);
    opd_err err = OPD_OK;
    if (!c->head.params || !c->grads || !c->hidden || !c->dhidden || !c->values || !c->dvalues)
        err = opd_fail(OPD_ERR_NOMEM, "critic: no memory for %zu states of %zu", rows_max, hidden);
    if (err == OPD_OK) err = opd_optimizer_create(optimizer, hidden + 1, alloc, &c->optimizer);
    if (err != OPD_OK) {
        opd_critic_destroy(c);
        return err;
    }
    *out = c;
    return OPD_OK;
}

void opd_critic_destroy(opd_critic *c) {
    if (c == NULL) return;
    const opd_alloc *alloc = c->head.alloc;
    float *blocks[] = {c->head.params, c->grads, c->hidden, c->dhidden, c->values, c->dvalues};
    for (size_t i = 0; i < OPD_COUNTOF(blocks); i++) opd_floats_destroy(alloc, blocks[i]);
    opd_optimizer_destroy(c->optimizer);
    opd_mem_free(alloc, c);
}

void opd_critic_values(const opd_critic *c, size_t rows, float *out) {
    size_t hidden = c->head.param_count - 1;
    OPD_ASSERT(rows <= c->rows_max);
    for (size_t t = 0; t < rows; t++) {
        const float *h = c->hidden + t * hidden;
        double sum = (double)c->head.params[hidden];
        for (size_t j = 0; j < hidden; j++) sum += (double)c->head.params[j] * (double)h[j];
        out[t] = (float)sum;
    }
}

void opd_critic_loss(opd_critic *c, size_t rows, const float *old_values, const float *returns,
                     const float *weights, opd_value_stats *stats) {
    size_t hidden = c->head.param_count - 1;
    float coef = (float)c->config.coef;
    opd_critic_values(c, rows, c->values);
    opd_value_loss(c->config.clip, rows, c->values, old_values, returns, weights, c->dvalues, stats);
    for (size_t t = 0; t < rows; t++) {
        float slope = coef * c->dvalues[t];
        for (size_t j = 0; j < hidden; j++) {
            c->dhidden[t * hidden + j] = slope * c->head.params[j];
            c->grads[j] += slope * c->hidden[t * hidden + j];
        }
        c->grads[hidden] += slope;
    }
}

void opd_critic_begin(opd_critic *c) {
    memset(c->grads, 0, c->head.param_count * sizeof *c->grads);
}

void opd_critic_step(opd_critic *c, opd_kernels *kernels) {
    (void)opd_optimizer_step(c->optimizer, kernels, &c->head, c->grads);
}
