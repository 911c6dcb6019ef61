/* mixture.h - what several teachers say about the same tokens, as one log-prob per token.
 *
 *   l_t = sum_j w_j l_j,t / sum_j w_j    over the teachers j whose score of token t is valid
 * so that the OPD term of the mixture is the weighted mean of the teachers' OPD terms. A token
 * without a valid score of a teacher with a weight above 0 has none.
 *
 * Invariants: (1) what is not valid is not read; (2) one teacher's values, and those of teachers
 * that agree, come out bit for bit; (3) sums run in double in the order of the teachers.
 * Thread: any; no state. Memory: all arrays are the caller's.
 */
#ifndef OPD_ACTORS_TRAINER_MIXTURE_H
#define OPD_ACTORS_TRAINER_MIXTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A sample's scores. */
typedef struct opd_mixture {
    size_t teachers, rows;
    const double *weights; /* [teachers] finite, >= 0; NULL: all the same */
    const float *logp;     /* [teachers, rows]                            */
    const uint8_t *valid;  /* [teachers, rows]                            */
} opd_mixture;

/* The mixed log-prob of row t. False: none is valid, *out_logp is left alone. */
bool opd_mixture_at(const opd_mixture *mixture, size_t t, double *out_logp);

/* All rows to out_logp[rows] and out_valid[rows] (1 or 0); 0 where none is valid. */
void opd_mixture_rows(const opd_mixture *mixture, float *out_logp, uint8_t *out_valid);

/* Running means of one teacher's part in a batch: of student minus teacher over the tokens that it
 * scored, per sample, then over the samples that have any. */
typedef struct opd_teacher_tally {
    double kl_sum;
    size_t samples, tokens;
} opd_teacher_tally;

/* Adds a sample: student[rows], and one teacher's logp[rows] and valid[rows]. */
void opd_teacher_tally_add(opd_teacher_tally *tally, size_t rows, const float *student,
                           const float *logp, const uint8_t *valid);

#endif
