/* actors/trainer/overlap.c - see overlap.h. No state, any thread. */
#include "actors/trainer/overlap.h"

#include <math.h>
#include <stdbool.h>

/* What is averaged, each per sample over its rows and then over samples. */
typedef enum value {
    VALUE_RATIO,
    VALUE_STUDENT_MASS,
    VALUE_TEACHER_MASS,
    VALUE_ENTROPY_GAP,
    VALUE_ADVANTAGE,
    VALUE_COUNT
} value;

typedef struct means {
    double sums[VALUE_COUNT]; /* of means of samples */
    size_t samples[VALUE_COUNT];
    double row_sums[VALUE_COUNT]; /* of the open sample */
    size_t rows[VALUE_COUNT];
} means;

static void add(means *m, value which, double x) {
    m->row_sums[which] += x;
    m->rows[which]++;
}

static void close_sample(means *m) {
    for (int i = 0; i < VALUE_COUNT; i++) {
        if (m->rows[i] > 0) {
            m->sums[i] += m->row_sums[i] / (double)m->rows[i];
            m->samples[i]++;
        }
        m->row_sums[i] = 0;
        m->rows[i] = 0;
    }
}

static double mean_of(const means *m, value which) {
    return m->samples[which] > 0 ? m->sums[which] / (double)m->samples[which] : 0;
}

static bool has_id(const int32_t *ids, size_t k) {
    for (size_t j = 0; j < k; j++)
        if (ids[j] >= 0) return true;
    return false;
}

/* One row's lists. */
typedef struct row {
    size_t student_k, teacher_k;
    const int32_t *student, *teacher;
    const float *student_logp, *teacher_logp; /* NULL: not known */
} row;

/* Where the teacher has the student's id i; teacher_k: nowhere. */
static size_t find(const row *r, size_t i) {
    size_t j = 0;
    if (r->student[i] < 0) return r->teacher_k;
    while (j < r->teacher_k && r->teacher[j] != r->student[i]) j++;
    return j;
}

static bool is_logp(float x) { return isfinite(x) && x <= 0; }

/* Whether every id of the teacher has a log-prob. */
static bool is_valued(const row *r) {
    if (r->student_logp == NULL || r->teacher_logp == NULL) return false;
    for (size_t j = 0; j < r->teacher_k; j++)
        if (r->teacher[j] < 0 || !is_logp(r->teacher_logp[j])) return false;
    return true;
}

/* Entropy of the listed ids and a bucket for the rest. */
static double entropy_of(const float *logp, size_t k) {
    double mass = 0, entropy = 0;
    for (size_t i = 0; i < k; i++) {
        double p = exp((double)logp[i]);
        mass += p;
        entropy -= p * (double)logp[i];
    }
    double rest = 1 - mass;
    return rest > 0 ? entropy - rest * log(rest) : entropy;
}

static void measure_row(const row *r, size_t k, means *m, size_t *valued) {
    size_t common = 0;
    double p_sum = 0, q_sum = 0, advantage = 0;
    bool with_values = is_valued(r);
    for (size_t i = 0; i < r->student_k; i++) {
        size_t j = find(r, i);
        if (j == r->teacher_k) continue;
        common++;
        if (!with_values) continue;
        double l = (double)r->student_logp[i], t = (double)r->teacher_logp[j];
        p_sum += exp(l);
        q_sum += exp(t);
        advantage += exp(l) * (t - l);
    }
    add(m, VALUE_RATIO, (double)common / (double)k);
    if (!with_values) return;
    ++*valued;
    add(m, VALUE_STUDENT_MASS, p_sum);
    add(m, VALUE_TEACHER_MASS, q_sum);
    add(m, VALUE_ENTROPY_GAP, entropy_of(r->student_logp, r->student_k) -
                                  entropy_of(r->teacher_logp, r->teacher_k));
    if (p_sum > 0) add(m, VALUE_ADVANTAGE, advantage / p_sum);
}

void opd_overlap_measure(const opd_overlap_input *in, opd_overlap *out_overlap) {
    size_t k = in->student_k < in->teacher_k ? in->student_k : in->teacher_k;
    size_t listed = in->listed > 0 ? in->listed : in->teacher_k, rows_all = 0;
    means m = {.sums = {0}};
    *out_overlap = (opd_overlap){.rows = 0};
    for (size_t i = 0; i < in->sample_count; i++) {
        for (size_t t = in->offsets[i]; t < in->offsets[i + 1]; t++) {
            if (in->mask != NULL && !in->mask[t]) continue;
            rows_all++;
            if (k == 0 || !in->teacher_valid[t]) continue;
            row r = {.student_k = in->student_k, .teacher_k = in->teacher_k,
                     .student = in->student_ids + t * in->student_k,
                     .teacher = in->teacher_ids + t * listed};
            if (in->student_logp != NULL) r.student_logp = in->student_logp + t * in->student_k;
            if (in->teacher_logp != NULL) r.teacher_logp = in->teacher_logp + t * listed;
            if (!has_id(r.teacher, r.teacher_k)) continue;
            out_overlap->rows++;
            measure_row(&r, k, &m, &out_overlap->valued);
        }
        close_sample(&m);
    }
    out_overlap->ratio = mean_of(&m, VALUE_RATIO);
    out_overlap->student_mass = mean_of(&m, VALUE_STUDENT_MASS);
    out_overlap->teacher_mass = mean_of(&m, VALUE_TEACHER_MASS);
    out_overlap->advantage = mean_of(&m, VALUE_ADVANTAGE);
    out_overlap->entropy_gap = mean_of(&m, VALUE_ENTROPY_GAP);
    if (rows_all > 0) out_overlap->coverage = (double)out_overlap->rows / (double)rows_all;
}
