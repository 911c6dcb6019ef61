/* actors/trainer/overlap.c - see overlap.h. No state, any thread. */
#include "actors/trainer/overlap.h"

#include <stdbool.h>

static bool has_id(const int32_t *ids, size_t k) {
    for (size_t j = 0; j < k; j++)
        if (ids[j] >= 0) return true;
    return false;
}

static size_t count_common(const int32_t *student, size_t student_k, const int32_t *teacher,
                           size_t teacher_k) {
    size_t common = 0;
    for (size_t i = 0; i < student_k; i++) {
        if (student[i] < 0) continue;
        for (size_t j = 0; j < teacher_k; j++) {
            if (teacher[j] != student[i]) continue;
            common++;
            break;
        }
    }
    return common;
}

void opd_overlap_measure(const opd_overlap_input *in, opd_overlap *out_overlap) {
    size_t k = in->student_k < in->teacher_k ? in->student_k : in->teacher_k;
    size_t rows_all = 0, rows = 0, samples = 0;
    double sum = 0;
    for (size_t i = 0; i < in->sample_count; i++) {
        size_t sample_rows = 0, common = 0;
        for (size_t t = in->offsets[i]; t < in->offsets[i + 1]; t++) {
            if (in->mask != NULL && !in->mask[t]) continue;
            rows_all++;
            if (k == 0 || !in->teacher_valid[t]) continue;
            const int32_t *teacher = in->teacher_ids + t * in->teacher_k;
            if (!has_id(teacher, in->teacher_k)) continue;
            sample_rows++;
            common += count_common(in->student_ids + t * in->student_k, in->student_k, teacher,
                                   in->teacher_k);
        }
        if (sample_rows == 0) continue;
        sum += (double)common / ((double)k * (double)sample_rows);
        rows += sample_rows;
        samples++;
    }
    out_overlap->ratio = samples > 0 ? sum / (double)samples : 0;
    out_overlap->coverage = rows_all > 0 ? (double)rows / (double)rows_all : 0;
    out_overlap->rows = rows;
}
