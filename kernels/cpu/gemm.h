/* kernels/cpu/gemm.h - the matrix product of each instruction set; contract in isa.h. */
#ifndef OPD_KERNELS_CPU_GEMM_H
#define OPD_KERNELS_CPU_GEMM_H

#include "kernels/cpu/isa.h"

void opd__plain_gemm(size_t m, size_t n, size_t k, const float *a, size_t a_row, size_t a_col,
                     const float *b, size_t ldb, float *c, size_t ldc, bool add);
void opd__avx2_gemm(size_t m, size_t n, size_t k, const float *a, size_t a_row, size_t a_col,
                    const float *b, size_t ldb, float *c, size_t ldc, bool add);
void opd__avx512_gemm(size_t m, size_t n, size_t k, const float *a, size_t a_row, size_t a_col,
                      const float *b, size_t ldb, float *c, size_t ldc, bool add);

#endif
