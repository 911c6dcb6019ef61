/* kernels/cpu/ops_avx2.c - the avx2 instruction set: the shared texts under its own prefix. */
#define ISA(name) opd__avx2_##name

#include "kernels/cpu/rows_isa.h"

#include "kernels/cpu/attention_isa.h"

#include "kernels/cpu/vocab_isa.h"

const opd__isa opd__isa_avx2 = {
    .name = "cpu-avx2",
    .gemm = opd__avx2_gemm,
#define OP(op) .op = ISA(op)
    OP(rmsnorm), OP(rmsnorm_dx), OP(rmsnorm_dw), OP(rope), OP(swiglu), OP(swiglu_grad),
    OP(add), OP(attention), OP(attention_grad), OP(attention_decode), OP(attention_paged),
    OP(logprob), OP(logprob_grad), OP(sample), OP(sum_squares), OP(adamw),
};
