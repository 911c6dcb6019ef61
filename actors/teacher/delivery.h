/* delivery.h - what every kind of teacher does alike: hold a rollout until its scores are sent.
 *
 * Invariants: (1) every rollout that opd_scoring_take accepted is followed by exactly one
 * SCORES over the link to the batcher, or let go when the actor ends; (2) the ROLLOUT message is
 * held until then, so its link's credit bounds the samples in work; (3) SCORES for which
 * there is no credit wait, in order.
 *
 * Thread: the loop. Memory: an actor embeds opd_scoring as the FIRST member of its own sample,
 * a block from the delivery's allocator; opd_delivery_send frees it in the end.
 */
#ifndef OPD_ACTORS_TEACHER_DELIVERY_H
#define OPD_ACTORS_TEACHER_DELIVERY_H

#include "actors/messages.h"

/* One rollout in a teacher's hands. */
typedef struct opd_scoring {
    opd_list node;              /* the actor's until it is sent, then the delivery's */
    opd_msg *rollout;           /* held                                              */
    opd_rollout_fields fields;  /* of it; slices live as long                        */
    const int32_t *ids;         /* [count] prompt and response                       */
    uint32_t count, response_len; /* R                                               */
    opd_scores_fields scores;   /* to be filled in; owns its slices                  */
    opd_msg *message;           /* the SCORES that waits for credit                  */
    uint64_t began_ns;
} opd_scoring;

typedef struct opd_delivery {
    opd_link *link;
    opd_list waiting; /* of opd_scoring */
    const opd_alloc *alloc;
    const char *teacher; /* its name in SCORES; borrowed */
} opd_delivery;

/* Opens the link to the batcher. alloc and teacher outlive the delivery.
 * Errors: those of opd_link_open. */
OPD_MUST_CHECK opd_err opd_delivery_open(opd_delivery *delivery, opd_ctx *ctx, opd_pid batcher,
                                         uint32_t window_msgs, uint64_t window_bytes,
                                         const char *teacher, const opd_alloc *alloc);

/* Lets go of everything that still waits. Legal on a zeroed delivery. */
void opd_delivery_fini(opd_delivery *delivery);

/* Reads a ROLLOUT and takes it. scoring: zeroed. Errors: PARSE, MISMATCH (not taken). */
OPD_MUST_CHECK opd_err opd_scoring_take(opd_scoring *scoring, opd_ctx *ctx, opd_msg *rollout);

/* Makes room for R scores: scores.logp, valid, and topk [R, k] if k > 0. Errors: NOMEM. */
OPD_MUST_CHECK opd_err opd_scoring_room(opd_scoring *scoring, const opd_alloc *alloc, uint32_t k);

/* Gives it scores that were read elsewhere; takes the references of the slices over. */
void opd_scoring_fill(opd_scoring *scoring, opd_slice logp, opd_slice valid, opd_slice topk);

/* Says why there are no scores, and drops the room for them. */
void opd_scoring_refuse(opd_scoring *scoring, const char *fmt, ...) OPD_PRINTF(2, 3);

/* Lets go of the rollout and frees the scoring without a word to the batcher. */
void opd_scoring_destroy(opd_scoring *scoring, const opd_alloc *alloc);

/* Sends the SCORES, now or when there is credit, and frees the scoring (which is in no list of
 * the actor's any more). Errors: those of opd_link_send but AGAIN: the batcher is gone. */
OPD_MUST_CHECK opd_err opd_delivery_send(opd_delivery *delivery, opd_ctx *ctx,
                                         opd_scoring *scoring);

/* To be called on a CREDIT signal. Errors as above. */
OPD_MUST_CHECK opd_err opd_delivery_credit(opd_delivery *delivery, opd_ctx *ctx);

#endif
