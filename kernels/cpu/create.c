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

bool opd_cpu_isa_available(opd_cpu_isa isa) {
#if defined(__x86_64__)
    if (isa == OPD_CPU_ISA_AVX512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("fma");
#else
    if (isa == OPD_CPU_ISA_AVX512) return false;
#endif
    return true;
}

const char *opd_kernels_name(const opd_kernels *kernels) {
    return OPD_CONTAINER_OF(kernels, const opd__cpu, base)->isa->name;
}

static opd_err choose(opd_cpu_isa isa, const opd__isa **out_isa) {
    const char *wish = getenv("OPD_CPU_ISA");
    if (isa == OPD_CPU_ISA_AUTO && wish != NULL && wish[0] != '\0') {
        if (strcmp(wish, "plain") == 0) isa = OPD_CPU_ISA_PLAIN;
        else if (strcmp(wish, "avx512") == 0) isa = OPD_CPU_ISA_AVX512;
        else
            return opd_fail(OPD_ERR_INVALID,
                            "environment: OPD_CPU_ISA=%s; use plain or avx512, or unset it", wish);
    }
    if (isa == OPD_CPU_ISA_AUTO)
        isa = opd_cpu_isa_available(OPD_CPU_ISA_AVX512) ? OPD_CPU_ISA_AVX512 : OPD_CPU_ISA_PLAIN;
    if (!opd_cpu_isa_available(isa))
        return opd_fail(OPD_ERR_UNSUPPORTED, "this processor has no AVX-512; use plain");
    *out_isa = &opd__isa_plain;
#if defined(__x86_64__)
    if (isa == OPD_CPU_ISA_AVX512) *out_isa = &opd__isa_avx512;
#endif
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
