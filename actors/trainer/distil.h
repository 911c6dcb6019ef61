/* distil.h - the learner's distillation loss over a batch: which rows take part, with what weight, and
 * the backward pass that carries it together with the policy loss.
 *
 *   loss += coef * mean over the tokens that take part of the divergence at that token (contrast.h)
 * A token takes part if the loss mask has it, its teacher's score is valid, the teacher listed ids for
 * it, and it is selected; others leave numerator and denominator. (A row whose intersection is empty
 * is found out later: it counts, with a divergence of 0.) The mean is that of the policy loss
 * (opd_reduction). Importance weights of stale tokens are the policy's: a divergence over a support
 * was not sampled, there is nothing to correct; of the sampled kind they are left out, too.
 *
 * Calls per batch: cover -> per optimizer step: share -> per micro-batch: weigh, backward.
 * Thread: the trainer's lane. The object owns its arrays; batch and graph are borrowed.
 */
#ifndef OPD_ACTORS_TRAINER_DISTIL_H
#define OPD_ACTORS_TRAINER_DISTIL_H

#include "actors/metrics.h"
#include "actors/trainer/batch.h"
#include "actors/trainer/policy_loss.h"
#include "actors/trainer/contrast.h"

typedef struct opd_distil opd_distil;

/* For batches of at most tokens_max response rows. mean: its reduction and, where that is CONSTANT, its
 * length. Errors: CONFIG (a setting), NOMEM. */
OPD_MUST_CHECK opd_err opd_distil_create(const opd_contrast_config *config, const opd_divisor *mean,
                                         size_t vocab, size_t tokens_max, const opd_alloc *alloc,
                                         opd_distil **out_distil);
void opd_distil_destroy(opd_distil *distil);

/* Begins a batch: finds the rows that can take part. valid, mask: [rows]. Returns how many. */
size_t opd_distil_cover(opd_distil *distil, const opd_batch *batch, const uint8_t *valid,
                        const uint8_t *mask);

/* Whether a row can take part. */
bool opd_distil_covers(const opd_distil *distil, size_t row);

/* Begins an optimizer step on samples [first, end). */
void opd_distil_share(opd_distil *distil, size_t first, size_t end);

/* Numbers of all rows of the batch. */
typedef struct opd_distil_view {
    const float *entropy;                     /* of the student now                         */
    const float *student_logp, *teacher_logp; /* of the drawn token, before the first step  */
    const float *dlogp, *dentropy;            /* of the policy loss; dentropy may be NULL   */
    const float *dlogp_opd;                   /* the OPD term's part of dlogp; or NULL      */
    const float *dhidden;                     /* of the value loss, of these samples' rows; or NULL */
    const int32_t *student_ids;               /* [rows, student_k] its most likely ids now  */
    size_t student_k;
} opd_distil_view;

/* Backward of samples [from, to), which the graph has run forward and `rows` tells of: of the policy
 * loss and the divergence. Adds to grads. Errors: those of opd_graph_backward_logits. */
OPD_MUST_CHECK opd_err opd_distil_backward(opd_distil *distil, size_t from, size_t to,
                                           const opd_distil_view *view, opd_graph *graph,
                                           const opd_score_row *rows, float *grads);

/* coef times the divergence, summed over the optimizer steps of this batch so far. */
double opd_distil_loss(const opd_distil *distil);

/* Its metrics after `steps` optimizer steps: weighted means over the tokens that took part, and the norms
 * of the two gradients by the logits. */
void opd_distil_report(const opd_distil *distil, uint32_t steps, double values[OPD_METRIC_COUNT]);

#endif
