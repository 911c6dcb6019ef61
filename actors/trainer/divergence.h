/* divergence.h - how far student and teacher are apart over several ids of one row, and the gradient.
 *
 * The signal that is a loss: at a response token it compares the two distributions over a set S of
 * ids (support.h) instead of the one id that was drawn. With s, t the probabilities of student and
 * teacher at the elements e of S, and l = ln s:
 *   reverse_kl  sum s (l - ln t)                         KL(student || teacher), mode-seeking
 *   forward_kl  sum t (ln t - l)                         KL(teacher || student), mass-covering
 *   jsd         (1-a) sum s (l - ln m) + a sum t (ln t - ln m),  m = (1-a) s + a t, 0 < a < 1
 *   low_var     sum w (exp(d) - 1 - d),  d = ln t - l,  w = s held constant
 * (the first three with their tails: the seed system's later version, its --opd-kl-type and
 * --opd-norm-mode; jsd: Agarwal et al. 2024, arXiv 2306.13649; low_var: the k3 estimator of Schulman
 * 2020, "Approximating KL divergence", in expectation over the student, so w carries no gradient.)
 * What lies outside of S:
 *   bucket       one more element of mass 1 - sum over S, at least OPD_DIVERGENCE_TAIL_MIN (where it
 *                is held there it carries no gradient); none where S is the whole vocabulary
 *   renormalise  s and t are divided by their sums over S
 *   truncate     nothing: the sums run over S as it stands. Biased: where student and teacher agree,
 *                reverse_kl still moves the student's mass out of S, and forward_kl into it
 *
 * The set, the teacher's values and every weight are constants: gradient flows through l alone, but
 * through each place where l appears in a KL; reverse_kl with constant weights would have a gradient
 * without the teacher. With g_i = dL/d ln s_i of the ids and g_r of the bucket, o = g_r / r for its mass
 * r, and G = sum g_i + g_r, the logits get
 *   dL/dz_j = (g_j - p_j G) / T   for j in S,   (o p_j - p_j G) / T   elsewhere.
 * The floor raises log-probs of S below it, of both, before anything else; a raised one of the student
 * has no gradient of its own: its logit gets what those outside of S get. A loss above the clip becomes
 * the clip, without gradient: such a token is left out.
 *
 * Thread: any; no state. Memory: all arrays are the caller's. Doubles throughout.
 */
#ifndef OPD_ACTORS_TRAINER_DIVERGENCE_H
#define OPD_ACTORS_TRAINER_DIVERGENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "opd/err.h"

#define OPD_DIVERGENCE_TAIL_MIN 1e-7

typedef enum opd_divergence_kind {
    OPD_DIVERGENCE_REVERSE_KL,
    OPD_DIVERGENCE_FORWARD_KL,
    OPD_DIVERGENCE_JSD,
    OPD_DIVERGENCE_LOW_VAR
} opd_divergence_kind;

typedef enum opd_divergence_tail {
    OPD_TAIL_BUCKET,
    OPD_TAIL_RENORMALISE,
    OPD_TAIL_TRUNCATE
} opd_divergence_tail;

typedef struct opd_divergence_config {
    opd_divergence_kind kind;
    opd_divergence_tail tail;
    double jsd_alpha;  /* a; of jsd only            */
    double logp_floor; /* < 0; 0: none              */
    double clip;       /* of a token's loss; 0: none */
} opd_divergence_config;

/* One row: k distinct ids, 1 <= k <= vocab. */
typedef struct opd_divergence_row {
    size_t k, vocab;
    const double *student; /* [k] log-probs over the whole vocabulary */
    const double *teacher; /* [k] the same, finite, <= 0              */
    bool drawn; /* the one id was drawn from the student, which weighs it: reverse_kl is l - ln t (its
                   gradient knows no teacher: opd refuses it), low_var has w = 1; tail truncate */
} opd_divergence_row;

typedef struct opd_divergence_result {
    double loss;
    bool clipped;
    double student_mass, teacher_mass; /* on S       */
    double outside, sum;               /* o and G    */
} opd_divergence_result;

/* OPD_OK, or CONFIG naming what cannot be: a not between 0 and 1, a floor above 0, a negative clip, a
 * number that is not finite. */
OPD_MUST_CHECK opd_err opd_divergence_check(const opd_divergence_config *config);

/* The loss of a row, and out_grad[k]: g of each id (of a raised one o p). */
void opd_divergence(const opd_divergence_config *config, const opd_divergence_row *row,
                    double *out_grad, opd_divergence_result *out_result);

#endif
