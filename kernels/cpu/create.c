/* kernels/cpu/create.c - makes a CPU backend: chooses the instruction set, starts the pool,
 * sizes the scratch memory.
 *
 * Thread: any; the instance then belongs to one lane.
 */
#include <stdlib.h>
#include <string.h>

#include "kernels/array.h"
#include "kernels/cpu/cpu.h"
#include "opd/alloc.h"

/* In the order of opd_cpu_isa, after AUTO. */
static const struct {
    const char *name;
    const opd__isa *isa; /* NULL where the program was not built for it */
} sets[] = {
#if defined(__x86_64__)
    {"plain", &opd__isa_plain}, {"avx2", &opd__isa_avx2}, {"avx512", &opd__isa_avx512},
#else
    {"plain", &opd__isa_plain}, {"avx2", NULL}, {"avx512", NULL},
#endif
};

bool opd_cpu_isa_available(opd_cpu_isa isa) {
#if defined(__x86_64__)
    bool fma = __builtin_cpu_supports("fma");
    if (isa == OPD_CPU_ISA_AVX2) return __builtin_cpu_supports("avx2") && fma;
    if (isa == OPD_CPU_ISA_AVX512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && fma;
    return true;
#else
    return isa == OPD_CPU_ISA_AUTO || isa == OPD_CPU_ISA_PLAIN;
#endif
}

const char *opd_kernels_name(const opd_kernels *kernels) {
    return OPD_CONTAINER_OF(kernels, const opd__cpu, base)->isa->name;
}

/* What the environment asks for; AUTO when it is silent. */
static opd_err wish(opd_cpu_isa *out_isa) {
    const char *name = getenv("OPD_CPU_ISA");
    *out_isa = OPD_CPU_ISA_AUTO;
    if (name == NULL || name[0] == '\0') return OPD_OK;
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        if (strcmp(name, sets[i].name) == 0) *out_isa = (opd_cpu_isa)(OPD_CPU_ISA_PLAIN + i);
    if (*out_isa != OPD_CPU_ISA_AUTO) return OPD_OK;
    return opd_fail(OPD_ERR_INVALID,
                    "environment: OPD_CPU_ISA=%s; use plain, avx2 or avx512, or unset it", name);
}

static opd_err choose(opd_cpu_isa isa, const opd__isa **out_isa) {
    if (isa == OPD_CPU_ISA_AUTO) OPD_TRY(wish(&isa));
    if (isa == OPD_CPU_ISA_AUTO)
        for (isa = OPD_CPU_ISA_AVX512; !opd_cpu_isa_available(isa);) isa--;
    if (!opd_cpu_isa_available(isa))
        return opd_fail(OPD_ERR_UNSUPPORTED, "this processor has no %s; use plain",
                        sets[isa - OPD_CPU_ISA_PLAIN].name);
    *out_isa = sets[isa - OPD_CPU_ISA_PLAIN].isa;
    return OPD_OK;
}

static opd_err fill(opd__cpu *cpu, size_t threads) {
    OPD_TRY(opd_pool_create(threads, cpu->alloc, &cpu->pool));
    cpu->scratch = opd_mem_get(cpu->alloc, threads * sizeof *cpu->scratch);
    cpu->serial = opd_mem_get(cpu->alloc, threads * sizeof *cpu->serial);
    if (cpu->scratch == NULL || cpu->serial == NULL)
        return opd_fail(OPD_ERR_NOMEM, "kernels on %zu threads", threads);
    for (size_t i = 0; i < threads; i++)
        cpu->serial[i] = (opd__cpu){.base = {&opd__cpu_table}, .isa = cpu->isa,
                                    .scratch = &cpu->scratch[i], .alloc = cpu->alloc};
    return OPD_OK;
}

opd_err opd_kernels_create_cpu(opd_cpu_isa isa, size_t threads, const opd_alloc *alloc,
                               opd_kernels **out_kernels) {
    *out_kernels = NULL;
    const opd__isa *chosen = NULL;
    OPD_TRY(choose(isa, &chosen));
    opd__cpu *cpu = opd_mem_get(alloc, sizeof *cpu);
    if (cpu == NULL) return opd_fail(OPD_ERR_NOMEM, "kernels");
    *cpu = (opd__cpu){.base = {&opd__cpu_table}, .isa = chosen, .alloc = alloc};
    opd_err err = fill(cpu, threads);
    if (err != OPD_OK) {
        opd_kernels_destroy(&cpu->base);
        return err;
    }
    *out_kernels = &cpu->base;
    return OPD_OK;
}

void opd_kernels_destroy(opd_kernels *kernels) {
    if (kernels == NULL) return;
    opd__cpu *cpu = OPD_CONTAINER_OF(kernels, opd__cpu, base);
    for (size_t i = 0; cpu->scratch != NULL && i < opd_pool_threads(cpu->pool); i++) {
        opd_floats_destroy(cpu->alloc, cpu->scratch[i].attention);
        opd_floats_destroy(cpu->alloc, cpu->scratch[i].candidates.values);
        opd_mem_free(cpu->alloc, cpu->scratch[i].candidates.ids);
    }
    opd_mem_free(cpu->alloc, cpu->scratch);
    opd_mem_free(cpu->alloc, cpu->serial);
    opd_pool_destroy(cpu->pool);
    opd_mem_free(cpu->alloc, cpu);
}

static opd_err reserve_attention(opd__cpu *cpu, opd__scratch *s, size_t count) {
    if (count <= s->attention_count) return OPD_OK;
    float *larger = opd_floats_create(cpu->alloc, count);
    if (larger == NULL) return opd_fail(OPD_ERR_NOMEM, "attention scratch of %zu floats", count);
    opd_floats_destroy(cpu->alloc, s->attention);
    s->attention = larger;
    s->attention_count = count;
    return OPD_OK;
}

static opd_err reserve_vocab(opd__cpu *cpu, opd__scratch *s, size_t vocab) {
    if (vocab <= s->vocab) return OPD_OK;
    float *values = opd_floats_create(cpu->alloc, 2 * vocab);
    int32_t *ids = opd_mem_get(cpu->alloc, vocab * sizeof *ids);
    if (values == NULL || ids == NULL) {
        opd_floats_destroy(cpu->alloc, values);
        opd_mem_free(cpu->alloc, ids);
        return opd_fail(OPD_ERR_NOMEM, "sampling scratch for a vocabulary of %zu", vocab);
    }
    opd_floats_destroy(cpu->alloc, s->candidates.values);
    opd_mem_free(cpu->alloc, s->candidates.ids);
    s->candidates = (opd__candidates){.ids = ids, .values = values};
    s->vocab = vocab;
    return OPD_OK;
}

opd_err opd__cpu_reserve(opd_kernels *k, size_t seq_max, const opd_attention_shape *shape,
                         size_t vocab) {
    opd__cpu *cpu = OPD_CONTAINER_OF(k, opd__cpu, base);
    size_t group = shape->heads / shape->kv_heads;
    size_t packed = opd__attention_scratch(seq_max, shape->head_dim);
    size_t decode = group * opd__round_up(seq_max);
    for (size_t i = 0; i < opd_pool_threads(cpu->pool); i++) {
        OPD_TRY(reserve_attention(cpu, &cpu->scratch[i], packed > decode ? packed : decode));
        OPD_TRY(reserve_vocab(cpu, &cpu->scratch[i], vocab));
    }
    return OPD_OK;
}
