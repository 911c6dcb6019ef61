/* actors/trainer/overlap.h - how much the likely tokens of student and teacher agree.
 *
 *   overlap_t = |S_t ∩ T_t| / min(k_student, k_teacher)
 * S_t: the student's k most likely ids over the whole vocabulary, T_t: the teacher's. The mean
 * is taken per sample over its counted rows, then over samples that have any
 * (`rollout/opd_overlap_ratio`; "Rethinking OPD", arXiv 2604.13016). A row counts when its mask
 * is 1, its teacher score is valid and the teacher gave at least one id; the share of such rows
 * is reported as coverage. Id -1 means "none" and never matches. It never influences the loss.
 *
 * With log-probs, of the rows where the teacher told all of them, and the same means (p, q:
 * probabilities of student and teacher, C = S_t ∩ T_t):
 *   student_mass, teacher_mass   sum of p, of q, over C
 *   advantage    sum over C of p (ln q - ln p) / sum over C of p; rows with a common id only
 *   entropy_gap  H(student) - H(teacher), H from the k most likely ids and one bucket for the rest: a
 *                lower bound of the entropy, the same for both; exact where k is the vocabulary
 *
 * Thread: any; no state. Memory: all arrays are the caller's.
 */
#ifndef OPD_ACTORS_TRAINER_OVERLAP_H
#define OPD_ACTORS_TRAINER_OVERLAP_H

#include <stddef.h>
#include <stdint.h>

typedef struct opd_overlap_input {
    size_t sample_count;
    const size_t *offsets;        /* [sample_count + 1] sample i owns offsets[i]..offsets[i+1]-1 */
    const uint8_t *mask;          /* [tokens] NULL = all                                         */
    const uint8_t *teacher_valid; /* [tokens] other rows are not read                            */
    size_t student_k, teacher_k;  /* widths; either may be 0: then nothing is covered            */
    const int32_t *student_ids;   /* [tokens, student_k] distinct within a row                   */
    const int32_t *teacher_ids;   /* [tokens, listed] its first teacher_k are read, padded with -1 */
    size_t listed;                /* at least teacher_k; 0: teacher_k                            */
    const float *student_logp;    /* [tokens, student_k] and [tokens, listed]; either NULL: nothing */
    const float *teacher_logp;    /* is said of masses, advantage and entropy                    */
} opd_overlap_input;

typedef struct opd_overlap {
    double ratio;    /* 0..1; 0 when nothing is covered           */
    double coverage; /* counted rows / rows with mask 1, 0..1     */
    size_t rows;     /* counted rows                              */
    size_t valued;   /* of them, those with all log-probs         */
    double student_mass, teacher_mass, advantage, entropy_gap; /* 0 without any */
} opd_overlap;

void opd_overlap_measure(const opd_overlap_input *in, opd_overlap *out_overlap);

#endif
