/* join.c - the answers to the parts of a sample become its SCORES, by position
 * (sample.h). Thread: the loop. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "actors/panel/sample.h"
#include "actors/teacher/protocol.h"
#include "core/base/check.h"
#include "core/base/list.h"
#include "core/codec/json.h"

enum { PROVENANCE_BYTES_PER_PART = 4096 };

static const opd_panel_part *part_of(const opd_list *node) {
    return OPD_CONTAINER_OF(node, const opd_panel_part, node);
}

static opd_err room(opd_slice *slice, const opd_alloc *alloc, size_t size_bytes) {
    opd_buf *buf;
    OPD_TRY(opd_buf_create(alloc, size_bytes, &buf));
    *slice = opd_slice_whole(buf);
    return OPD_OK;
}

void opd_panel_scores_drop(opd_scores_fields *f) {
    opd_slice *slices[] = {&f->logp, &f->valid, &f->topk, &f->topk_logp, &f->asked_logp, &f->teachers,
                           &f->weights, &f->provenance};
    for (size_t i = 0; i < OPD_COUNTOF(slices); i++) {
        opd_buf_release(slices[i]->buf);
        *slices[i] = (opd_slice){.buf = NULL};
    }
}

/* ---- numbers ---- */

/* The lists of a part of the first slot. Ids without log-probs are of use still: to be counted. */
static void copy_lists(const opd_panel_part *part, uint32_t top_k, uint32_t asked_k, opd_scores_fields *f) {
    size_t from = part->from - part->sample->prompt_len, rows = part->to - part->from;
    size_t at = from * top_k, count = rows * top_k;
    if (f->asked_logp.buf != NULL && part->scored.ids_logp.buf != NULL)
        memcpy((float *)opd_slice_data(f->asked_logp) + from * asked_k, opd_slice_data(part->scored.ids_logp),
               rows * asked_k * sizeof(float));
    if (f->topk.buf == NULL || part->scored.topk_ids.buf == NULL) return;
    memcpy((int32_t *)opd_slice_data(f->topk) + at, opd_slice_data(part->scored.topk_ids),
           count * sizeof(int32_t));
    if (part->scored.topk_logp.buf != NULL)
        memcpy((float *)opd_slice_data(f->topk_logp) + at, opd_slice_data(part->scored.topk_logp),
               count * sizeof(float));
}

/* What a part was answered, at its place among the rows of its slot. */
static void copy_part(const opd_panel_part *part, float *logp, uint8_t *valid) {
    uint32_t at = part->from - part->sample->prompt_len, rows = part->to - part->from;
    const float *from = opd_slice_data(part->scored.logp);
    const uint8_t *said = opd_slice_data(part->scored.valid);
    for (uint32_t i = 0; i < rows; i++) {
        bool good = isfinite(from[i]) && from[i] <= 0 && (said == NULL || said[i] != 0);
        valid[at + i] = good;
        logp[at + i] = good ? from[i] : 0;
    }
}

/* Arrays of all slots without any score. */
static opd_err make_room(opd_scores_fields *f, size_t slots, size_t rows, uint32_t top_k, uint32_t asked_k,
                         const opd_alloc *alloc) {
    OPD_TRY(room(&f->logp, alloc, slots * rows * sizeof(float)));
    OPD_TRY(room(&f->valid, alloc, slots * rows));
    memset(opd_slice_data(f->logp), 0, f->logp.size_bytes);
    memset(opd_slice_data(f->valid), 0, f->valid.size_bytes);
    if (asked_k > 0) {
        OPD_TRY(room(&f->asked_logp, alloc, rows * asked_k * sizeof(float)));
        memset(opd_slice_data(f->asked_logp), 0xff, f->asked_logp.size_bytes); /* no numbers */
    }
    if (top_k == 0) return OPD_OK;
    OPD_TRY(room(&f->topk, alloc, rows * top_k * sizeof(int32_t)));
    OPD_TRY(room(&f->topk_logp, alloc, rows * top_k * sizeof(float)));
    memset(opd_slice_data(f->topk), 0xff, f->topk.size_bytes); /* -1: none */
    memset(opd_slice_data(f->topk_logp), 0xff, f->topk_logp.size_bytes); /* no numbers */
    return OPD_OK;
}

/* Tokens that have a score, but of fewer teachers than wanted or of a fallback's. instead: by slot
 * and row, who scored is not who was wanted. */
static uint32_t count_degraded(const uint8_t *valid, const uint8_t *instead, size_t slots,
                               size_t rows) {
    uint32_t count = 0;
    for (size_t i = 0; i < rows; i++) {
        size_t have = 0, others = 0;
        for (size_t j = 0; j < slots; j++) {
            have += valid[j * rows + i];
            others += valid[j * rows + i] & instead[j * rows + i];
        }
        count += have > 0 && (have < slots || others > 0);
    }
    return count;
}

/* Whether an answer's arrays are as copy_part would make them. */
static bool is_clean(const opd_scored_fields *scored, size_t rows) {
    const float *logp = opd_slice_data(scored->logp);
    const uint8_t *valid = opd_slice_data(scored->valid);
    for (size_t i = 0; i < rows; i++) {
        bool good = isfinite(logp[i]) && logp[i] <= 0;
        if (valid[i] > 1 || !good || (valid[i] == 0 && logp[i] != 0)) return false;
    }
    return true;
}

/* The usual case: one part has it all. Its arrays are handed on. */
static const opd_panel_part *only_part(const opd_panel_sample *s) {
    const opd_panel_part *part = part_of(s->parts.next);
    bool whole = s->slot_count == 1 && s->parts.next->next == &s->parts && part->to == s->have &&
                 part->state == OPD_PART_DONE && part->scored.valid.buf != NULL;
    return whole && is_clean(&part->scored, part->to - part->from) ? part : NULL;
}

static void hand_on(const opd_panel_part *part, uint32_t rows, opd_scores_fields *f) {
    f->logp = part->scored.logp;
    f->valid = part->scored.valid;
    f->topk = part->scored.topk_ids;
    f->topk_logp = part->scored.topk_logp;
    f->asked_logp = part->scored.ids_logp;
    const opd_slice kept[] = {f->logp, f->valid, f->topk, f->topk_logp, f->asked_logp};
    for (size_t i = 0; i < OPD_COUNTOF(kept); i++)
        if (kept[i].buf != NULL) (void)opd_buf_retain(kept[i].buf);
    if (part->rungs.at == part->sample->slots[0].teacher) return;
    const uint8_t *valid = opd_slice_data(f->valid);
    for (uint32_t i = 0; i < rows; i++) f->degraded += valid[i];
}

static opd_err join_numbers(const opd_panel_sample *s, uint32_t top_k, uint32_t asked_k,
                            const opd_alloc *alloc, opd_scores_fields *f) {
    size_t rows = s->have - s->prompt_len;
    const opd_panel_part *only = only_part(s);
    if (only != NULL) {
        hand_on(only, (uint32_t)rows, f);
        return OPD_OK;
    }
    uint8_t *instead = opd_mem_get(alloc, s->slot_count * rows); /* zeroed */
    if (instead == NULL) return opd_fail(OPD_ERR_NOMEM, "no memory to join scores");
    opd_err err = make_room(f, s->slot_count, rows, top_k, asked_k, alloc);
    for (const opd_list *n = s->parts.next; err == OPD_OK && n != &s->parts; n = n->next) {
        const opd_panel_part *part = part_of(n);
        size_t row = part->slot * rows;
        if (part->state != OPD_PART_DONE) continue;
        copy_part(part, (float *)opd_slice_data(f->logp) + row,
                  (uint8_t *)opd_slice_data(f->valid) + row);
        if (part->slot == 0) copy_lists(part, top_k, asked_k, f);
        if (part->rungs.at != s->slots[part->slot].teacher)
            memset(instead + row + part->from - s->prompt_len, 1, part->to - part->from);
    }
    if (err == OPD_OK)
        f->degraded = count_degraded(opd_slice_data(f->valid), instead, s->slot_count, rows);
    opd_mem_free(alloc, instead);
    return err;
}

/* ---- who ---- */

/* Who scored most of a slot's tokens; where nobody did, who was wanted. */
static int scored_most(const opd_panel_sample *s, uint32_t slot) {
    uint32_t tokens[OPD_CONFIG_TEACHERS_MAX] = {0};
    int most = s->slots[slot].teacher;
    for (const opd_list *n = s->parts.next; n != &s->parts; n = n->next) {
        const opd_panel_part *part = part_of(n);
        if (part->slot == slot && part->state == OPD_PART_DONE)
            tokens[part->rungs.at] += part->to - part->from;
    }
    for (int i = 0; i < OPD_CONFIG_TEACHERS_MAX; i++)
        if (tokens[i] > tokens[most]) most = i;
    return most;
}

/* teachers, weights and the text `teacher`. */
static opd_err join_teachers(const opd_panel_sample *s, const opd_panel_names *names,
                             const opd_alloc *alloc, opd_scores_fields *f) {
    uint8_t places[OPD_CONFIG_TEACHERS_MAX];
    double weights[OPD_CONFIG_TEACHERS_MAX];
    size_t used = 0;
    for (uint32_t j = 0; j < s->slot_count; j++) {
        places[j] = (uint8_t)scored_most(s, j);
        weights[j] = s->slots[j].weight;
        int n = snprintf(f->teacher + used, sizeof f->teacher - used, "%s%s", j > 0 ? ", " : "",
                         names->stage->teachers[places[j]].name);
        if (n > 0) used += (size_t)n;
        if (used >= sizeof f->teacher) used = sizeof f->teacher - 1;
    }
    if (s->slot_count == 1 && names->stage->teacher_count == 1) return OPD_OK;
    OPD_TRY(opd_slice_copy(alloc, places, s->slot_count, &f->teachers));
    return opd_slice_copy(alloc, weights, s->slot_count * sizeof *weights, &f->weights);
}

static void write_span(opd_json_writer *w, const opd_panel_part *part, const opd_panel_names *names) {
    const opd_config_teacher *teacher = &names->stage->teachers[part->rungs.at];
    bool served = names->stage->opd.type != OPD_CONFIG_OPD_TYPE_MEGATRON;
    opd_json_write_object_begin(w);
    opd_json_write_key(w, "from");
    opd_json_write_int64(w, part->from - part->sample->prompt_len);
    opd_json_write_key(w, "to");
    opd_json_write_int64(w, part->to - part->sample->prompt_len);
    opd_json_write_key(w, "teacher");
    opd_json_write_text(w, teacher->name);
    opd_json_write_key(w, "endpoint");
    opd_json_write_text(w, part->scored.endpoint);
    opd_json_write_key(w, "model");
    opd_json_write_text(w, names->model(names->arg, part->rungs.at));
    opd_json_write_key(w, "weight_version");
    opd_json_write_text(w, part->scored.weight_version);
    opd_json_write_key(w, "attempt");
    opd_json_write_int64(w, part->scored.attempts);
    opd_json_write_key(w, "protocol");
    opd_json_write_text(w, served ? opd_teacher_protocol_of(teacher)->name : "in-process");
    opd_json_write_key(w, "privileged");
    opd_json_write_bool(w, opd_panel_privileged(part->sample, names->stage, part->rungs.at).buf != NULL);
    opd_json_write_object_end(w);
}

/* An object for each part that was answered; none without any. */
static opd_err join_provenance(const opd_panel_sample *s, const opd_panel_names *names,
                               const opd_alloc *alloc, opd_scores_fields *f) {
    opd_json_writer w;
    opd_str text;
    size_t parts = 0;
    for (const opd_list *n = s->parts.next; n != &s->parts; n = n->next) parts++;
    opd_str_init(&text, alloc, (parts + 1) * PROVENANCE_BYTES_PER_PART);
    opd_json_writer_init(&w, &text, 0);
    opd_json_write_array_begin(&w);
    for (const opd_list *n = s->parts.next; n != &s->parts; n = n->next)
        if (part_of(n)->state == OPD_PART_DONE) write_span(&w, part_of(n), names);
    opd_json_write_array_end(&w);
    opd_err err = opd_str_status(&text);
    if (err == OPD_OK) err = opd_slice_copy(alloc, text.data, text.size, &f->provenance);
    opd_str_fini(&text);
    return err;
}

/* The endpoint of the first slot's last tokens. */
static void name_endpoint(const opd_panel_sample *s, opd_scores_fields *f) {
    uint32_t to = 0;
    for (const opd_list *n = s->parts.next; n != &s->parts; n = n->next) {
        const opd_panel_part *part = part_of(n);
        if (part->slot != 0 || part->state != OPD_PART_DONE || part->to <= to) continue;
        to = part->to;
        (void)snprintf(f->endpoint, sizeof f->endpoint, "%s", part->scored.endpoint);
    }
}

static bool any_done(const opd_panel_sample *s) {
    for (const opd_list *n = s->parts.next; n != &s->parts; n = n->next)
        if (part_of(n)->state == OPD_PART_DONE) return true;
    return false;
}

static opd_err join(const opd_panel_sample *s, const opd_panel_names *names, uint32_t top_k,
                    uint32_t asked_k, const opd_alloc *alloc, opd_scores_fields *f) {
    OPD_TRY(join_teachers(s, names, alloc, f));
    if (!any_done(s)) return OPD_OK;
    OPD_TRY(join_numbers(s, top_k, asked_k, alloc, f));
    name_endpoint(s, f);
    return join_provenance(s, names, alloc, f);
}

opd_err opd_panel_join(const opd_panel_sample *s, const opd_panel_names *names, uint32_t top_k,
                       uint32_t asked_k, const opd_alloc *alloc, opd_scores_fields *out_scores) {
    *out_scores = (opd_scores_fields){.group = s->group, .member = s->member, .attempts = s->attempts,
                                      .moves = s->moves, .hedges = s->hedges, .wait_ms = s->wait_ms};
    (void)snprintf(out_scores->reason, sizeof out_scores->reason, "%s", s->reason);
    opd_err err = join(s, names, top_k, asked_k, alloc, out_scores);
    if (err != OPD_OK) opd_panel_scores_drop(out_scores);
    return err;
}
