/* support.c - see support.h. No state, any thread. */
#include "actors/trainer/support.h"

#include <math.h>

bool opd_support_asks(opd_support_kind kind) {
    return kind == OPD_SUPPORT_STUDENT_TOPK || kind == OPD_SUPPORT_UNION;
}

size_t opd_support_max(opd_support_kind kind, size_t k, size_t vocab) {
    size_t most = kind == OPD_SUPPORT_SAMPLED ? 1
                  : kind == OPD_SUPPORT_FULL  ? vocab
                  : kind == OPD_SUPPORT_UNION ? 2 * k
                                              : k;
    return most < vocab ? most : vocab;
}

/* What has been taken so far. */
typedef struct taken {
    const opd_support_row *row;
    int32_t *ids;
    double *teacher;
    size_t count;
} taken;

static bool contains(const int32_t *ids, size_t n, int32_t id) {
    for (size_t i = 0; i < n; i++)
        if (ids[i] == id) return true;
    return false;
}

/* Takes an id unless its log-prob is of no use, or it is there. (A server may repeat one; whoever
 * lists the whole vocabulary is in this process, and a search for each would be long.) */
static void take(taken *to, int32_t id, float logp) {
    const opd_support_row *row = to->row;
    bool number = logp <= 0 && (isfinite(logp) || row->floored); /* false for NaN */
    if (id < 0 || (size_t)id >= row->vocab || !number) return;
    if (row->kind != OPD_SUPPORT_FULL && contains(to->ids, to->count, id)) return;
    to->ids[to->count] = id;
    to->teacher[to->count++] = (double)logp;
}

/* Takes the student's ids; false if the teacher said nothing about any of them. */
static bool take_students(taken *to) {
    const opd_support_row *row = to->row;
    bool said = false;
    for (size_t i = 0; i < row->k; i++) {
        take(to, row->student_ids[i], row->asked_logp[i]);
        said = said || !isnan(row->asked_logp[i]);
    }
    return said;
}

static void take_teachers(taken *to, size_t n, bool common) {
    const opd_support_row *row = to->row;
    for (size_t i = 0; i < n && i < row->listed; i++)
        if (!common || contains(row->student_ids, row->k, row->teacher_ids[i]))
            take(to, row->teacher_ids[i], row->teacher_logp[i]);
}

size_t opd_support_take(const opd_support_row *row, int32_t *out_ids, double *out_teacher) {
    taken to = {.row = row, .ids = out_ids, .teacher = out_teacher};
    bool whole = true;
    switch (row->kind) {
    case OPD_SUPPORT_SAMPLED: take(&to, row->sampled, row->sampled_logp); break;
    case OPD_SUPPORT_TEACHER_TOPK: take_teachers(&to, row->k, false); break;
    case OPD_SUPPORT_INTERSECTION: take_teachers(&to, row->k, true); break;
    case OPD_SUPPORT_STUDENT_TOPK: whole = take_students(&to); break;
    case OPD_SUPPORT_UNION:
        take_teachers(&to, row->k, false);
        whole = take_students(&to);
        break;
    case OPD_SUPPORT_FULL:
        take_teachers(&to, row->vocab, false);
        whole = row->listed >= row->vocab && row->teacher_ids[row->vocab - 1] >= 0;
        break;
    }
    return whole ? to.count : 0;
}
