/* actors/trainer/kl.h - how far the student is from a reference, estimated on one sampled token.
 *
 * With d = l - l_ref, l the log-prob of a token drawn from the student (Schulman 2020,
 * "Approximating KL divergence"):
 *   k1: d      k2: d^2 / 2      k3: exp(-d) - 1 + d      low_var: k3 held within [-10, 10]
 * All but k2 have the expectation KL(student || reference); k1 may be negative, k3 may not and
 * varies less. As a loss the *slope* counts, and there they differ:
 *   k1: E[slope grad l] = E[grad l] = 0, whatever the reference: no loss at all;
 *   k2: its expected gradient is that of KL(student || reference);
 *   k3: that of KL(reference || student).
 * `unbiased` multiplies by the ratio rho = exp(l - l_old) (DeepSeek-V3.2, arXiv 2512.02556), gradient
 * through both: then k1 and k3, too, have the gradient of KL(student || reference), also where
 * l_old is of an older student. low_var is held after that.
 *
 * Thread: any; no state.
 */
#ifndef OPD_ACTORS_TRAINER_KL_H
#define OPD_ACTORS_TRAINER_KL_H

#include <stdbool.h>

typedef enum opd_kl_type { OPD_KL_K1, OPD_KL_K2, OPD_KL_K3, OPD_KL_LOW_VAR } opd_kl_type;

typedef struct opd_kl {
    double value;
    double slope; /* d value / d l */
} opd_kl;

/* The estimate at one token. old_logp is read with `unbiased` only. */
opd_kl opd_kl_estimate(opd_kl_type type, bool unbiased, double logp, double old_logp,
                       double ref_logp);

#endif
