/* actors/trainer/kl.c - see kl.h for the formulas. No state, any thread. */
#include "actors/trainer/kl.h"

#include <math.h>

#define LOW_VAR_BOUND 10

static opd_kl plain(opd_kl_type type, double d) {
    switch (type) {
    case OPD_KL_K1: return (opd_kl){d, 1};
    case OPD_KL_K2: return (opd_kl){d * d / 2, d};
    case OPD_KL_K3:
    case OPD_KL_LOW_VAR: break;
    }
    double e = expm1(-d); /* exp(-d) - 1 loses every digit near d = 0 */
    return (opd_kl){e + d, -e};
}

opd_kl opd_kl_estimate(opd_kl_type type, bool unbiased, double logp, double old_logp,
                       double ref_logp) {
    opd_kl k = plain(type, logp - ref_logp);
    if (unbiased) {
        double ratio = exp(logp - old_logp);
        k = (opd_kl){ratio * k.value, ratio * (k.value + k.slope)};
    }
    if (type == OPD_KL_LOW_VAR && fabs(k.value) > LOW_VAR_BOUND)
        k = (opd_kl){copysign(LOW_VAR_BOUND, k.value), 0};
    return k;
}
