/* mixture.c - see mixture.h. No state, any thread. */
#include "actors/trainer/mixture.h"

bool opd_mixture_at(const opd_mixture *m, size_t t, double *out_logp) {
    if (m->teachers == 1 && m->weights == NULL) {
        if (m->valid[t]) *out_logp = (double)m->logp[t];
        return m->valid[t] != 0;
    }
    double sum = 0, weights = 0;
    for (size_t j = 0; j < m->teachers; j++) {
        double weight = m->weights != NULL ? m->weights[j] : 1;
        if (!m->valid[j * m->rows + t] || !(weight > 0)) continue;
        sum += weight * (double)m->logp[j * m->rows + t];
        weights += weight;
    }
    if (!(weights > 0)) return false;
    *out_logp = sum / weights; /* of equal floats: off by less than a float can tell */
    return true;
}

void opd_mixture_rows(const opd_mixture *m, float *out_logp, uint8_t *out_valid) {
    for (size_t t = 0; t < m->rows; t++) {
        double logp = 0;
        out_valid[t] = opd_mixture_at(m, t, &logp);
        out_logp[t] = (float)logp;
    }
}

void opd_teacher_tally_add(opd_teacher_tally *tally, size_t rows, const float *student,
                           const float *logp, const uint8_t *valid) {
    double sum = 0;
    size_t tokens = 0;
    for (size_t t = 0; t < rows; t++) {
        if (!valid[t]) continue;
        sum += (double)student[t] - (double)logp[t];
        tokens++;
    }
    if (tokens == 0) return;
    tally->kl_sum += sum / (double)tokens;
    tally->tokens += tokens;
    tally->samples++;
}
