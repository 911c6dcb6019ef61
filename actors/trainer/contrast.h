/* contrast.h - the distillation signal that is a loss: which tokens it looks at, and how its gradient
 * joins the policy's in one backward pass.
 *
 *   loss = coef * sum over tokens of w_t D_t
 * D_t is the divergence of a token's row (divergence.h) on its support (support.h), w_t the weight of
 * the reduction (policy_loss.h) over the tokens that are selected and have a support.
 *
 * Token selection: `all`, or of each sample the share of its tokens with the highest
 *   entropy     of the student, under the weights that learn
 *   divergence  |l_student - l_teacher| of the drawn token, as it was before the first step
 *   entropy_or_divergence    h + d - h d, high where one of the two is (the soft OR of TIP, Xu et al. 2026,
 *                            arXiv 2604.14084: the student is unsure, or sure and wrong)
 *   entropy_and_divergence   h d, high where both are
 * at least one; h and d are the two, each scaled to [0, 1] by its least and most among the sample's tokens
 * (0 where all are alike). Ties go to the earlier token. The choice is by sample, so it depends neither on the
 * order of the batch nor on its cut into micro-batches.
 *
 * Thread: one at a time. Memory: arrays are the caller's, scratch is the contrast's own.
 */
#ifndef OPD_ACTORS_TRAINER_CONTRAST_H
#define OPD_ACTORS_TRAINER_CONTRAST_H

#include "actors/trainer/divergence.h"
#include "actors/trainer/support.h"
#include "models/graph.h"
#include "opd/alloc.h"

typedef enum opd_token_selection {
    OPD_SELECT_ALL,
    OPD_SELECT_ENTROPY,
    OPD_SELECT_DIVERGENCE,
    OPD_SELECT_ENTROPY_OR_DIVERGENCE,
    OPD_SELECT_ENTROPY_AND_DIVERGENCE
} opd_token_selection;

typedef struct opd_contrast_config {
    double coef; /* 0: there is no such loss */
    opd_support_kind support;
    size_t k;    /* of the lists; below the vocabulary or all of it */
    opd_divergence_config divergence;
    opd_token_selection selection;
    double token_share; /* of a sample's tokens, in (0, 1]; unless all are selected */
} opd_contrast_config;

/* Weighted sums over rows; zero them before the first pass, each call adds. */
typedef struct opd_contrast_stats {
    double loss;                       /* sum of w D, without coef             */
    double clipped;                    /* sum of w [D was clipped]             */
    double student_mass, teacher_mass; /* sums of w times the mass on the support */
    double weight;                     /* sum of w of the rows with a support  */
    double policy_squares, squares;    /* of the gradient by the logits: of the policy loss without the OPD term
                                          and the entropy bonus; of this loss with the OPD term */
} opd_contrast_stats;

/* n rows of one micro-batch, in the order of opd_graph_backward_logits; arrays [n] unless said. */
typedef struct opd_contrast_rows {
    const opd_score_row *rows;  /* the drawn id and the temperature           */
    const float *dlogp;         /* of the policy loss: dLoss/dl of the drawn id */
    const float *dlogp_opd;     /* the part of dlogp that is the OPD term's; NULL: none */
    const float *dentropy;      /* or NULL                                    */
    const float *weights;       /* w; 0: the row has no divergence            */
    const float *teacher_logp;  /* of the drawn id; support sampled only      */
    const int32_t *student_ids; /* [n, student_k], student_k >= k, and the teacher's log-probs of     */
    const float *asked_logps;   /* these, where the support reads them (support.h); else NULL        */
    size_t student_k;
    size_t listed;              /* width of the teacher's lists               */
    const int32_t *teacher_ids; /* [n, listed]                                */
    const float *teacher_logps; /* [n, listed]                                */
} opd_contrast_rows;

typedef struct opd_contrast opd_contrast;

/* Checks the settings and takes scratch for a vocabulary. Errors: CONFIG, NOMEM. */
OPD_MUST_CHECK opd_err opd_contrast_create(const opd_contrast_config *config, size_t vocab,
                                         const opd_alloc *alloc,
                                         opd_contrast **out_contrast);
void opd_contrast_destroy(opd_contrast *contrast);

/* What the next pass is about; borrowed until then. Sums go to `stats`. */
void opd_contrast_begin(opd_contrast *contrast, const opd_contrast_rows *rows, opd_contrast_stats *stats);

/* An opd_logits_grad_fn, its argument the contrast: turns logits into the gradient of the policy loss
 * plus that of the divergence. */
void opd_contrast_grad(void *contrast, size_t first, size_t count, float *logits);

/* Whether a row of the teacher's answer can have a support at all: out_covered [rows] 1 or 0.
 * valid[rows]: of the drawn token's score; ids [rows, listed] of the teacher, -1 = none; asked
 * [rows, asked_k]: its log-probs of the student's ids, NaN = none. */
void opd_contrast_covered(const opd_contrast_config *config, size_t rows, const uint8_t *valid,
                          size_t listed, const int32_t *ids, size_t asked_k, const float *asked,
                          uint8_t *out_covered);

/* The baseline without a teacher (opd.type constant; the ablation of arXiv 2608.31046: a fixed negative
 * advantage on tokens of low probability): out_logp[n] is the student's log-prob, less 1 where its
 * probability is below `prob`, so that the OPD term of the advantage is -kl_coef there and 0 elsewhere.
 * Everything is valid. */
void opd_constant_teacher(double prob, size_t n, const float *student_logp, float *out_logp,
                          uint8_t *out_valid);

/* How many of n tokens are selected. */
size_t opd_contrast_share(const opd_contrast_config *config, size_t n);

/* What the tokens of one sample are ranked by: out_scores[n], where mask[n] is 1; other tokens are not
 * read. entropy: of the student now; student_logp, teacher_logp: of the drawn token, before the first step. */
void opd_contrast_rank(const opd_contrast_config *config, size_t n, const uint8_t *mask, const float *entropy,
                       const float *student_logp, const float *teacher_logp, float *out_scores);

/* Selects among the tokens with mask 1 of one sample: out_mask[n] 1 or 0. scores[n]: what they are
 * ranked by; not read where all are selected. `order`: scratch [n]. */
void opd_contrast_select(const opd_contrast_config *config, size_t n, const uint8_t *mask,
                       const float *scores, size_t *order, uint8_t *out_mask);

#endif
