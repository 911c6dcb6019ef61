/* prover.h - whether the configured objective can learn, tried on three tokens before a stage begins.
 *
 * The toy: a vocabulary of three ids, one state, responses of one token, two groups of up to two samples.
 * Everything that can be drawn is enumerated, and each outcome goes through the learner's own functions
 * (advantage.h, policy_loss.h, contrast.h), so that the expected gradient by the three logits is exact:
 *   E = sum over outcomes of P(outcome) dLoss/dlogits
 * Three things must hold:
 *   1. E is not zero;
 *   2. where a teacher has a weight (opd.kl_coef or opd.loss_coef), E depends on what the teacher says;
 *   3. and on that weight: doubled, E is another.
 * What depends on the data is put where it shows: no clip and no floor of the divergence, all tokens
 * selected, the bound of the constant teacher among the toy's probabilities, k at most 2 unless it is the
 * whole vocabulary. The student is the rollout's, so ratios and corrections are 1; a reference is another
 * distribution, a critic says 0.
 * What is not a matter of one step (temperatures, vocabularies, who can be asked what) the rules refuse
 * (core/config/rules*.c).
 *
 * Thread: any. Memory: the toy owns what it has.
 */
#ifndef OPD_ACTORS_TRAINER_PROVER_H
#define OPD_ACTORS_TRAINER_PROVER_H

#include "actors/trainer/learner.h"

enum { OPD_TOY_VOCAB = 3, OPD_TOY_SAMPLES_MAX = 4 };

/* What is proven. */
typedef struct opd_objective_claim {
    const opd_learner_options *learner; /* objective, losses, signal; nothing else is read */
    size_t samples_per_prompt;          /* >= 1                                            */
    bool rewarded;                      /* samples have rewards that differ                */
} opd_objective_claim;

typedef struct opd_toy opd_toy;

/* The toy of a claim, with one of two teachers (0 or 1) and the teacher's weights times `scale`.
 * Errors: CONFIG (a setting), NOMEM. */
OPD_MUST_CHECK opd_err opd_toy_create(const opd_objective_claim *claim, int teacher, double scale,
                                      const opd_alloc *alloc, opd_toy **out_toy);
void opd_toy_destroy(opd_toy *toy);

/* Samples of an outcome. */
size_t opd_toy_samples(const opd_toy *toy);

/* The student's probability of an id. */
double opd_toy_probability(const opd_toy *toy, int32_t id);

/* The gradient by the logits when these ids [opd_toy_samples] were drawn. Errors: NOMEM. */
OPD_MUST_CHECK opd_err opd_toy_gradient(opd_toy *toy, const int32_t *ids, double out[OPD_TOY_VOCAB]);

/* E. Errors: NOMEM. */
OPD_MUST_CHECK opd_err opd_toy_expectation(opd_toy *toy, double out[OPD_TOY_VOCAB]);

typedef struct opd_proof {
    double norm;    /* of E                                                             */
    double teacher; /* distance of E under the two teachers; 0 where none has a weight */
} opd_proof;

/* Tries the claim. Errors: CONFIG with the reason and what to change; those of the toy. */
OPD_MUST_CHECK opd_err opd_objective_prove(const opd_objective_claim *claim, const opd_alloc *alloc,
                                           opd_proof *out_proof);

#endif
