/* support.h - the ids at which student and teacher are compared, and what the teacher says there.
 *
 *   sampled       the id that was drawn
 *   teacher_topk  the teacher's k most likely ids
 *   student_topk  the student's k most likely ids when it wrote the token
 *   intersection  of the teacher's list those that are among the k of the student that learns; a row
 *                 without any has no support
 *   union         those of the teacher's list, and the student's when it wrote the token
 *   full          the whole vocabulary
 * The teacher gives a list of ids with log-probs, most likely first: its k likeliest, or all of the
 * vocabulary (full). At the ids that the student had it is asked for its log-probs besides, for it may
 * not list them.
 *
 * Invariants: (1) a row whose score is not valid, or of whose student's ids, where they count, the teacher
 * said nothing, has no support: nothing is made up; (2) an id whose log-prob is no
 * number <= 0 is as if it were not there (-inf: it has no mass, and where a floor is set it lies at the
 * floor).
 * Thread: any; no state. Memory: all arrays are the caller's.
 */
#ifndef OPD_ACTORS_TRAINER_SUPPORT_H
#define OPD_ACTORS_TRAINER_SUPPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum opd_support_kind {
    OPD_SUPPORT_SAMPLED,
    OPD_SUPPORT_TEACHER_TOPK,
    OPD_SUPPORT_STUDENT_TOPK,
    OPD_SUPPORT_INTERSECTION,
    OPD_SUPPORT_UNION,
    OPD_SUPPORT_FULL
} opd_support_kind;

/* Whether the teacher must be asked about the ids that the student had. */
bool opd_support_asks(opd_support_kind kind);

/* Ids that a support of this kind has at most. */
size_t opd_support_max(opd_support_kind kind, size_t k, size_t vocab);

typedef struct opd_support_row {
    opd_support_kind kind;
    size_t k, vocab;
    bool floored;                /* -inf of the teacher may stay: a floor raises it     */
    int32_t sampled;             /* the id that was drawn,                              */
    float sampled_logp;          /* and the teacher's log-prob of it                    */
    const int32_t *student_ids;  /* [k] distinct, -1 = none; student_topk, intersection, union */
    const float *asked_logp;     /* [k] the teacher's log-probs of these, NaN = none said; student_topk, union */
    size_t listed;               /* width of the teacher's list                         */
    const int32_t *teacher_ids;  /* [listed] most likely first, -1 = none               */
    const float *teacher_logp;   /* [listed]                                            */
} opd_support_row;

/* Writes out_ids and out_teacher [opd_support_max] and returns how many; 0: the row has no support. */
size_t opd_support_take(const opd_support_row *row, int32_t *out_ids, double *out_teacher);

#endif
