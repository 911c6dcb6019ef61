/* batch.h - the samples of one optimizer batch laid flat, as the learner computes on them.
 *
 * Sample i owns tokens seq_start[i] .. seq_start[i+1]-1 (prompt, then response) and response
 * rows offsets[i] .. offsets[i+1]-1 of every array marked [rows].
 * A sample scored by T teachers has T values for each row, those of one teacher side by side:
 * [T, rows of the sample] from scores_start[i] on in every array marked [scores]. With one teacher
 * each these are the rows.
 * Invariants: (1) arrays never grow beyond the sizes given at creation; (2) a teacher value
 * means something only where teacher_valid is 1.
 * Thread: one owner at a time (the trainer actor fills it, its lane reads it). The batch owns
 * its arrays.
 */
#ifndef OPD_ACTORS_TRAINER_BATCH_H
#define OPD_ACTORS_TRAINER_BATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "opd/alloc.h"
#include "opd/err.h"

typedef struct opd_batch {
    size_t samples_max, tokens_max, top_k; /* capacities; top_k is the teacher's width */
    size_t asked_k;         /* of the student's ids about which it was asked; 0: none */
    size_t teachers_max;    /* of one sample, and all teachers that there are         */
    size_t sample_count, token_count, row_count, score_count;
    size_t *seq_start;      /* [samples_max + 1]                                  */
    size_t *offsets;        /* [samples_max + 1]                                  */
    size_t *scores_start;   /* [samples_max + 1]                                  */
    uint64_t *groups;       /* [samples]                                          */
    double *rewards;        /* [samples]                                          */
    uint8_t *reward_valid;  /* [samples]                                          */
    uint8_t *reuse_logp;    /* [samples] rollout_logp is of the trainer's version  */
    int32_t *tokens;        /* [tokens]                                           */
    float *rollout_logp;    /* [rows]                                             */
    float *teacher_logp;    /* [scores]                                           */
    uint8_t *teacher_valid; /* [scores]                                           */
    int32_t *teacher_topk;  /* [rows, top_k] of the first teacher, -1 = none      */
    float *teacher_topk_logp; /* [rows, top_k] NaN where it told none             */
    int32_t *asked_ids;     /* [rows, asked_k] likeliest of the student when it wrote, -1 = none */
    float *asked_logp;      /* [rows, asked_k] the first teacher's log-probs of these; NaN: none */
    uint8_t *teacher_count; /* [samples] T                                        */
    uint8_t *teachers;      /* [samples, teachers_max] below teachers_max         */
    double *weights;        /* [samples, teachers_max] of these                   */
    uint8_t *learn;         /* [rows] supervised: 1 where the token is learnt     */
    const opd_alloc *alloc;
} opd_batch;

/* One sample to add; arrays are copied. Teacher arrays may be NULL: no valid score. */
typedef struct opd_batch_sample {
    uint64_t group;
    uint32_t prompt_len, response_len;
    const int32_t *tokens;        /* [P + R] */
    const float *rollout_logp;    /* [R], NULL in supervised batches */
    const float *teacher_logp;    /* [T, R] */
    const uint8_t *teacher_valid; /* [T, R] */
    const int32_t *teacher_topk;  /* [R, top_k] or NULL */
    const float *teacher_topk_logp; /* [R, top_k] or NULL */
    const int32_t *asked_ids;     /* [R, asked_k] or NULL */
    const float *asked_logp;      /* [R, asked_k] or NULL: then its ids are none, too */
    size_t teacher_count;         /* T; 0 is 1                                */
    const uint8_t *teachers;      /* [T] which; NULL: the first               */
    const double *weights;        /* [T]; NULL: the same for all              */
    double reward;
    bool reward_valid, reuse_logp;
    const uint8_t *learn;         /* [R] of 0 or 1; NULL: all 1               */
} opd_batch_sample;

/* An empty batch of at most these sizes. Errors: NOMEM. */
OPD_MUST_CHECK opd_err opd_batch_create(const opd_alloc *alloc, size_t samples_max,
                                        size_t tokens_max, size_t top_k, size_t asked_k,
                                        size_t teachers_max,
                                        opd_batch **out);
void opd_batch_destroy(opd_batch *batch);

/* Empties the batch. */
void opd_batch_clear(opd_batch *batch);

/* Appends a sample. Errors: LIMIT when it does not fit; MISMATCH (a teacher that there is not). */
OPD_MUST_CHECK opd_err opd_batch_add(opd_batch *batch, const opd_batch_sample *sample);

#endif
