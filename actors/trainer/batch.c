/* batch.c - flat arrays for one optimizer batch (batch.h).
 * Thread: one owner at a time. The batch owns its arrays. */
#include "actors/trainer/batch.h"

#include <string.h>

#include "core/base/check.h"

opd_err opd_batch_create(const opd_alloc *alloc, size_t samples_max, size_t tokens_max,
                         size_t top_k, size_t asked_k, size_t teachers_max, opd_batch **out) {
    opd_batch *b = opd_mem_get(alloc, sizeof *b);
    if (b == NULL) return opd_fail(OPD_ERR_NOMEM, "trainer: no memory for a batch");
    *b = (opd_batch){.alloc = alloc, .samples_max = samples_max, .tokens_max = tokens_max,
                     .top_k = top_k, .asked_k = asked_k, .teachers_max = teachers_max};
    size_t scores = tokens_max * teachers_max, parts = samples_max * teachers_max;
    b->scores_start = opd_mem_get(alloc, (samples_max + 1) * sizeof *b->scores_start);
    b->teacher_count = opd_mem_get(alloc, samples_max);
    b->teachers = opd_mem_get(alloc, parts);
    b->weights = opd_mem_get(alloc, parts * sizeof *b->weights);
    b->seq_start = opd_mem_get(alloc, (samples_max + 1) * sizeof *b->seq_start);
    b->offsets = opd_mem_get(alloc, (samples_max + 1) * sizeof *b->offsets);
    b->groups = opd_mem_get(alloc, samples_max * sizeof *b->groups);
    b->rewards = opd_mem_get(alloc, samples_max * sizeof *b->rewards);
    b->reward_valid = opd_mem_get(alloc, samples_max);
    b->reuse_logp = opd_mem_get(alloc, samples_max);
    b->tokens = opd_mem_get(alloc, tokens_max * sizeof *b->tokens);
    b->learn = opd_mem_get(alloc, tokens_max);
    b->rollout_logp = opd_mem_get(alloc, tokens_max * sizeof *b->rollout_logp);
    b->teacher_logp = opd_mem_get(alloc, scores * sizeof *b->teacher_logp);
    b->teacher_valid = opd_mem_get(alloc, scores);
    b->teacher_topk = opd_mem_get(alloc, tokens_max * (top_k ? top_k : 1) * sizeof(int32_t));
    b->teacher_topk_logp = opd_mem_get(alloc, tokens_max * (top_k ? top_k : 1) * sizeof(float));
    b->asked_ids = opd_mem_get(alloc, tokens_max * (asked_k ? asked_k : 1) * sizeof(int32_t));
    b->asked_logp = opd_mem_get(alloc, tokens_max * (asked_k ? asked_k : 1) * sizeof(float));
    if (!b->seq_start || !b->offsets || !b->groups || !b->rewards || !b->reward_valid ||
        !b->reuse_logp || !b->tokens || !b->rollout_logp || !b->teacher_logp ||
        !b->teacher_valid || !b->teacher_topk || !b->teacher_topk_logp || !b->scores_start || !b->teacher_count ||
        !b->teachers || !b->weights || !b->learn || !b->asked_ids || !b->asked_logp) {
        opd_batch_destroy(b);
        return opd_fail(OPD_ERR_NOMEM, "trainer: no memory for a batch of %zu samples of %zu "
                        "tokens in all; lower rollout.batch_prompts or max_response_len",
                        samples_max, tokens_max);
    }
    *out = b;
    return OPD_OK;
}

void opd_batch_destroy(opd_batch *b) {
    if (b == NULL) return;
    void *blocks[] = {b->seq_start, b->offsets, b->groups, b->rewards, b->reward_valid,
                      b->reuse_logp, b->tokens, b->rollout_logp, b->teacher_logp,
                      b->teacher_valid, b->teacher_topk, b->teacher_topk_logp, b->scores_start, b->teacher_count,
                      b->teachers, b->weights, b->learn, b->asked_ids, b->asked_logp};
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++) opd_mem_free(b->alloc, blocks[i]);
    opd_mem_free(b->alloc, b);
}

void opd_batch_clear(opd_batch *b) {
    b->sample_count = b->token_count = b->row_count = b->score_count = 0;
    b->seq_start[0] = b->offsets[0] = b->scores_start[0] = 0;
}

/* Copies `count` items, or sets them to `fill` bytes where there is no source. */
static void copy_or_fill(void *to, const void *from, size_t size_bytes, int fill) {
    if (from != NULL) memcpy(to, from, size_bytes);
    else memset(to, fill, size_bytes);
}

static opd_err check_teachers(const opd_batch *b, const opd_batch_sample *s, size_t count) {
    bool there = count <= b->teachers_max;
    for (size_t j = 0; there && s->teachers != NULL && j < count; j++)
        there = s->teachers[j] < b->teachers_max;
    if (there) return OPD_OK;
    return opd_fail(OPD_ERR_MISMATCH, "trainer: a sample scored by %zu teachers, one of which is not "
                    "among the %zu that there are", count, b->teachers_max);
}

/* Its scores, teacher by teacher, and whose they are. */
static void add_scores(opd_batch *b, const opd_batch_sample *s, size_t count) {
    size_t i = b->sample_count, row = b->row_count, rows = s->response_len, n = count * rows;
    bool scored = s->teacher_logp != NULL && s->teacher_valid != NULL;
    copy_or_fill(b->teacher_logp + b->score_count, s->teacher_logp, n * sizeof(float), 0);
    copy_or_fill(b->teacher_valid + b->score_count, scored ? s->teacher_valid : NULL, n, 0);
    copy_or_fill(b->teacher_topk + row * b->top_k, s->teacher_topk,
                 rows * b->top_k * sizeof(int32_t), 0xff); /* all bits set: id -1 */
    copy_or_fill(b->teacher_topk_logp + row * b->top_k, s->teacher_topk_logp,
                 rows * b->top_k * sizeof(float), 0xff); /* all bits set: no number */
    bool asked = s->asked_ids != NULL && s->asked_logp != NULL;
    copy_or_fill(b->asked_ids + row * b->asked_k, asked ? s->asked_ids : NULL,
                 rows * b->asked_k * sizeof(int32_t), 0xff);
    copy_or_fill(b->asked_logp + row * b->asked_k, asked ? s->asked_logp : NULL,
                 rows * b->asked_k * sizeof(float), 0xff);
    for (size_t t = 0; count > 1 && scored && t < rows; t++) /* others may be valid where it is not */
        if (!s->teacher_valid[t])
            memset(b->teacher_topk + (row + t) * b->top_k, 0xff, b->top_k * sizeof(int32_t));
    b->teacher_count[i] = (uint8_t)count;
    for (size_t j = 0; j < count; j++) {
        b->teachers[i * b->teachers_max + j] = s->teachers != NULL ? s->teachers[j] : 0;
        b->weights[i * b->teachers_max + j] = s->weights != NULL ? s->weights[j] : 1;
    }
    b->score_count += n;
    b->scores_start[i + 1] = b->score_count;
}

opd_err opd_batch_add(opd_batch *b, const opd_batch_sample *s) {
    size_t teachers = s->teacher_count > 0 ? s->teacher_count : 1;
    size_t length = (size_t)s->prompt_len + s->response_len, rows = s->response_len;
    if (b->sample_count == b->samples_max || length > b->tokens_max - b->token_count)
        return opd_fail(OPD_ERR_LIMIT, "trainer: a sample of %zu tokens does not fit the batch "
                        "of %zu samples and %zu tokens", length, b->samples_max, b->tokens_max);
    OPD_TRY(check_teachers(b, s, teachers));
    add_scores(b, s, teachers);
    size_t i = b->sample_count++, row = b->row_count;
    memcpy(b->tokens + b->token_count, s->tokens, length * sizeof *b->tokens);
    copy_or_fill(b->rollout_logp + row, s->rollout_logp, rows * sizeof(float), 0);
    copy_or_fill(b->learn + row, s->learn, rows, 1);
    b->groups[i] = s->group;
    b->rewards[i] = s->reward;
    b->reward_valid[i] = s->reward_valid;
    b->reuse_logp[i] = s->reuse_logp && s->rollout_logp != NULL;
    b->token_count += length;
    b->row_count += rows;
    b->seq_start[i + 1] = b->token_count;
    b->offsets[i + 1] = b->row_count;
    return OPD_OK;
}
