/* actors/trainer/sft_loss.c - see sft_loss.h. No state, any thread. */
#include "actors/trainer/sft_loss.h"

void opd_sft_loss(size_t token_count, const float *logp, const float *weights, float *out_dlogp,
                  double *io_loss) {
    double sum = 0;
    for (size_t t = 0; t < token_count; t++) {
        out_dlogp[t] = 0;
        if (weights[t] == 0) continue;
        out_dlogp[t] = -weights[t];
        sum -= (double)weights[t] * (double)logp[t];
    }
    *io_loss += sum;
}
