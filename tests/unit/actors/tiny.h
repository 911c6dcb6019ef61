/* tiny.h - a small random model and its kernels, for tests of actors. Freed by the caller. */
#ifndef OPD_TESTS_UNIT_ACTORS_TINY_H
#define OPD_TESTS_UNIT_ACTORS_TINY_H

#include "kernels/kernels.h"
#include "kernels/cpu/cpu.h"
#include "models/model.h"
#include "tests/support/test.h"

/* Weights are large enough that the distribution over ids is far from even. */
static inline opd_model *tiny_model(int32_t vocab, int32_t eos_id, uint64_t seed) {
    opd_model *model;
    opd_model_config config = {.vocab_size = vocab, .hidden_size = 16, .intermediate_size = 24,
                               .layers = 2, .heads = 2, .kv_heads = 1, .head_dim = 8,
                               .max_position = 64, .rope_theta = 1e4, .rms_eps = 1e-5,
                               .tie_embeddings = true, .bos_id = 1, .eos_id = eos_id,
                               .pad_id = 0};
    CHECK_OK(opd_model_create(&config, seed, NULL, &model));
    for (size_t i = 0; i < model->tensor_count; i++) {
        const opd_tensor *t = &model->tensors[i];
        for (size_t j = 0; t->rank == 2 && j < t->count; j++) model->params[t->offset + j] *= 8.0f;
    }
    return model;
}

static inline opd_kernels *tiny_kernels(size_t threads) {
    opd_kernels *k;
    CHECK_OK(opd_kernels_create_cpu(OPD_CPU_ISA_AUTO, threads, NULL, &k));
    return k;
}

#endif
