/* sample.c - the ranges of a sample (sample.h; how they are joined: join.c).
 * Thread: the loop. */
#include "actors/panel/sample.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/base/check.h"
#include "core/base/list.h"

static opd_panel_part *part_of(opd_list *node) { return OPD_CONTAINER_OF(node, opd_panel_part, node); }

void opd_panel_sample_init(opd_panel_sample *sample, const opd_config_stage *stage, uint64_t group,
                           uint32_t member, uint32_t prompt_len, const char *source, opd_slice privileged) {
    uint8_t places[OPD_CONFIG_TEACHERS_MAX];
    *sample = (opd_panel_sample){.group = group, .member = member, .prompt_len = prompt_len,
                                 .privileged = privileged};
    if (privileged.buf != NULL) (void)opd_buf_retain(privileged.buf);
    opd_list_init(&sample->node);
    opd_list_init(&sample->parts);
    sample->slot_count = (uint32_t)opd_config_route(stage, source, places, NULL);
    for (uint32_t i = 0; i < sample->slot_count; i++)
        sample->slots[i] = (opd_panel_slot){.teacher = places[i], .asked_to = prompt_len,
                                            .weight = stage->teachers[places[i]].weight};
}

static void scored_drop(opd_scored_fields *scored) {
    opd_slice *slices[] = {&scored->logp, &scored->valid, &scored->topk_ids, &scored->topk_logp,
                           &scored->ids_logp};
    for (size_t i = 0; i < OPD_COUNTOF(slices); i++) {
        opd_buf_release(slices[i]->buf);
        *slices[i] = (opd_slice){.buf = NULL};
    }
}

static void part_destroy(opd_panel_part *part, const opd_alloc *alloc) {
    opd_list_remove(&part->node);
    opd_list_remove(&part->queue);
    scored_drop(&part->scored);
    opd_mem_free(alloc, part);
}

void opd_panel_sample_destroy(opd_panel_sample *sample, const opd_alloc *alloc) {
    for (opd_list *node; (node = opd_list_first(&sample->parts)) != NULL;)
        part_destroy(part_of(node), alloc);
    opd_list_remove(&sample->node);
    opd_buf_release(sample->tokens.buf);
    opd_buf_release(sample->topk.buf);
    opd_buf_release(sample->privileged.buf);
    opd_msg_release(sample->message);
    opd_msg_release(sample->rollout);
    opd_mem_free(alloc, sample);
}

/* ---- tokens ---- */

static opd_err room(opd_slice *slice, const opd_alloc *alloc, size_t size_bytes) {
    opd_buf *buf;
    OPD_TRY(opd_buf_create(alloc, size_bytes, &buf));
    *slice = opd_slice_whole(buf);
    return OPD_OK;
}

/* Adds `rows` lists to those of the response so far. */
static opd_err add_lists(opd_panel_sample *s, opd_slice topk, uint32_t rows, uint32_t max_len, uint32_t asked_k,
                         const opd_alloc *alloc) {
    if (rows == 0 || asked_k == 0) return OPD_OK;
    size_t row_bytes = asked_k * sizeof(int32_t), from = s->have > s->prompt_len ? s->have - s->prompt_len : 0;
    if (s->topk.buf == NULL) OPD_TRY(room(&s->topk, alloc, (max_len - s->prompt_len) * row_bytes));
    memcpy((char *)opd_slice_data(s->topk) + from * row_bytes, opd_slice_data(topk), topk.size_bytes);
    return OPD_OK;
}

opd_err opd_panel_chunk(opd_panel_sample *sample, const opd_chunk_fields *chunk, uint32_t max_len,
                        uint32_t asked_k, const opd_alloc *alloc, bool *out_taken) {
    uint64_t count = chunk->tokens.size_bytes / sizeof(int32_t), to = chunk->offset + count;
    uint32_t begin = chunk->offset > chunk->prompt_len ? chunk->offset : chunk->prompt_len;
    uint32_t rows = to > begin ? (uint32_t)(to - begin) : 0;
    *out_taken = sample->rollout == NULL && chunk->offset == sample->have && count > 0 &&
                 chunk->offset + count <= max_len && chunk->prompt_len == sample->prompt_len &&
                 chunk->offset + count >= sample->prompt_len &&
                 chunk->topk.size_bytes == (uint64_t)rows * asked_k * sizeof(int32_t);
    if (!*out_taken) return OPD_OK;
    OPD_TRY(add_lists(sample, chunk->topk, rows, max_len, asked_k, alloc));
    if (sample->tokens.buf == NULL) OPD_TRY(room(&sample->tokens, alloc, max_len * sizeof(int32_t)));
    int32_t *tokens = opd_slice_data(sample->tokens);
    memcpy(tokens + sample->have, opd_slice_data(chunk->tokens), chunk->tokens.size_bytes);
    sample->have += (uint32_t)count;
    return OPD_OK;
}

opd_err opd_panel_complete(opd_panel_sample *sample, const opd_rollout_fields *rollout, uint32_t asked_k) {
    uint32_t count = (uint32_t)(rollout->tokens.size_bytes / sizeof(int32_t));
    if (rollout->prompt_len == 0 || rollout->prompt_len > count)
        return opd_fail(OPD_ERR_PARSE, "rollout of %u tokens with a prompt of %u", count,
                        rollout->prompt_len);
    if (rollout->topk.size_bytes != (size_t)(count - rollout->prompt_len) * asked_k * sizeof(int32_t))
        return opd_fail(OPD_ERR_PARSE, "rollout of %u tokens with %zu bytes of likely ids", count,
                        rollout->topk.size_bytes);
    bool same = sample->have <= count && rollout->prompt_len == sample->prompt_len;
    if (same && sample->have > 0)
        same = memcmp(opd_slice_data(sample->tokens), opd_slice_data(rollout->tokens),
                      sample->have * sizeof(int32_t)) == 0;
    if (!same)
        return opd_fail(OPD_ERR_INTERNAL, "the rollout of sample %llu/%u does not begin as its chunks "
                        "did", (unsigned long long)sample->group, sample->member);
    sample->fields = *rollout;
    sample->have = count;
    opd_buf_release(sample->tokens.buf);
    opd_buf_release(sample->topk.buf);
    sample->tokens = sample->topk = (opd_slice){.buf = NULL};
    return OPD_OK;
}

opd_slice opd_panel_ids(const opd_panel_part *part, uint32_t asked_k) {
    const opd_panel_sample *s = part->sample;
    opd_slice topk = s->tokens.buf != NULL ? s->topk : s->fields.topk;
    if (asked_k == 0 || topk.buf == NULL) return (opd_slice){.buf = NULL};
    size_t row_bytes = asked_k * sizeof(int32_t);
    topk.offset_bytes += (part->from - s->prompt_len) * row_bytes;
    topk.size_bytes = (part->to - part->from) * row_bytes;
    return topk;
}

opd_slice opd_panel_privileged(const opd_panel_sample *sample, const opd_config_stage *stage, int place) {
    return stage->teachers[place].privileged ? sample->privileged : (opd_slice){.buf = NULL};
}

opd_err opd_panel_question(const opd_panel_part *part, opd_slice privileged, const opd_alloc *alloc,
                           opd_slice *out_tokens, uint32_t *out_start) {
    const opd_panel_sample *s = part->sample;
    opd_slice tokens = s->tokens.buf != NULL ? s->tokens : s->fields.tokens;
    size_t prompt = s->prompt_len * sizeof(int32_t), whole = part->to * sizeof(int32_t);
    *out_start = part->from - 1;
    tokens.size_bytes = whole;
    *out_tokens = tokens;
    if (privileged.buf == NULL) {
        (void)opd_buf_retain(tokens.buf);
        return OPD_OK;
    }
    OPD_TRY(room(out_tokens, alloc, privileged.size_bytes + whole - prompt));
    char *to = opd_slice_data(*out_tokens);
    memcpy(to, opd_slice_data(privileged), privileged.size_bytes);
    memcpy(to + privileged.size_bytes, (const char *)opd_slice_data(tokens) + prompt, whole - prompt);
    *out_start += (uint32_t)(privileged.size_bytes / sizeof(int32_t)) - s->prompt_len;
    return OPD_OK;
}

/* ---- parts ---- */

uint32_t opd_panel_early_to(const opd_panel_sample *sample, uint32_t slot, uint32_t chunk_tokens) {
    const opd_panel_slot *s = &sample->slots[slot];
    bool due = chunk_tokens > 0 && !s->early_under_way && !s->early_failed &&
               sample->have >= s->asked_to + chunk_tokens;
    return due ? sample->have : 0;
}

opd_err opd_panel_part_add(opd_panel_sample *sample, uint32_t slot, uint32_t to, bool early,
                           const opd_chains *chains, const opd_alloc *alloc,
                           opd_panel_part **out_part) {
    opd_panel_slot *s = &sample->slots[slot];
    OPD_ASSERT(to > s->asked_to && to <= sample->have);
    opd_panel_part *part = opd_mem_get(alloc, sizeof *part);
    if (part == NULL) return opd_fail(OPD_ERR_NOMEM, "no memory for a question");
    *part = (opd_panel_part){.sample = sample, .slot = slot, .from = s->asked_to, .to = to,
                             .early = early};
    opd_list_init(&part->node);
    opd_list_init(&part->queue);
    opd_rungs_init(&part->rungs, chains, s->teacher);
    if (early) part->rungs.waits = false;
    opd_list_push_back(&sample->parts, &part->node);
    s->asked_to = to;
    s->early_under_way |= early;
    sample->open++;
    *out_part = part;
    return OPD_OK;
}

/* An array of the answer, of `rows` elements of a size, or absent. */
static bool fits(opd_slice slice, size_t rows, size_t size) {
    return slice.buf == NULL || slice.size_bytes == rows * size;
}

static void close_part(opd_panel_part *part, opd_part_state state) {
    part->state = state;
    part->sample->open--;
    if (part->early) part->sample->slots[part->slot].early_under_way = false;
}

opd_err opd_panel_answered(opd_panel_part *part, const opd_scored_fields *scored, uint32_t top_k,
                           uint32_t asked_k) {
    size_t rows = part->to - part->from;
    if (scored->logp.buf == NULL || !fits(scored->logp, rows, sizeof(float)) ||
        !fits(scored->valid, rows, 1) || !fits(scored->topk_ids, rows, top_k * sizeof(int32_t)) ||
        !fits(scored->topk_logp, rows, top_k * sizeof(float)) ||
        !fits(scored->ids_logp, rows, asked_k * sizeof(float)))
        return opd_fail(OPD_ERR_INTERNAL, "the teacher gave %zu scores for %zu tokens",
                        scored->logp.size_bytes / sizeof(float), rows);
    part->scored = *scored;
    const opd_slice kept[] = {scored->logp, scored->valid, scored->topk_ids, scored->topk_logp,
                              scored->ids_logp};
    for (size_t i = 0; i < OPD_COUNTOF(kept); i++)
        if (kept[i].buf != NULL) (void)opd_buf_retain(kept[i].buf);
    close_part(part, OPD_PART_DONE);
    return OPD_OK;
}

bool opd_panel_early_back(opd_panel_part *part, const opd_chains *chains, const opd_alloc *alloc) {
    opd_panel_sample *s = part->sample;
    opd_panel_slot *slot = &s->slots[part->slot];
    slot->early_under_way = false;
    slot->early_failed = true;
    part->early = false;
    if (s->rollout != NULL) {
        opd_rungs_init(&part->rungs, chains, slot->teacher);
        part->deadline_ns = 0;
        part->state = OPD_PART_WAITING;
        return true;
    }
    slot->asked_to = part->from; /* nothing was asked for beyond it: one early part at a time */
    s->open--;
    part_destroy(part, alloc);
    return false;
}

void opd_panel_part_fail(opd_panel_part *part, const char *reason) {
    (void)snprintf(part->sample->reason, sizeof part->sample->reason, "%s", reason);
    close_part(part, OPD_PART_FAILED);
}

bool opd_panel_settled(const opd_panel_sample *sample) {
    return sample->rollout != NULL && sample->open == 0;
}
