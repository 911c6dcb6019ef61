/* kernels/cpu/ops_plain.c - the plain instruction set: the shared texts under its own prefix. */
#define ISA(name) opd__plain_##name

#include "kernels/cpu/rows_isa.h"

#include "kernels/cpu/attention_isa.h"

#include "kernels/cpu/vocab_isa.h"

const opd__isa opd__isa_plain = {
    .name = "cpu-plain",
    .gemm = opd__plain_gemm,
#define OP(op) .op = ISA(op)
    OP(rmsnorm), OP(rmsnorm_dx), OP(rmsnorm_dw), OP(rope), OP(swiglu), OP(swiglu_grad),
    OP(add), OP(attention), OP(attention_grad), OP(attention_decode), OP(attention_paged),
    OP(logprob), OP(logprob_grad), OP(sample), OP(sum_squares), OP(adamw),
};
