/* batch.c - flat arrays for one optimizer batch (batch.h).
 * Thread: one owner at a time. The batch owns its arrays. */
#include "actors/trainer/batch.h"

#include <string.h>

opd_err opd_batch_create(const opd_alloc *alloc, size_t samples_max, size_t tokens_max,
                         size_t top_k, opd_batch **out) {
    opd_batch *b = opd_mem_get(alloc, sizeof *b);
    if (b == NULL) return opd_fail(OPD_ERR_NOMEM, "trainer: no memory for a batch");
    *b = (opd_batch){.alloc = alloc, .samples_max = samples_max, .tokens_max = tokens_max,
                     .top_k = top_k};
    b->seq_start = opd_mem_get(alloc, (samples_max + 1) * sizeof *b->seq_start);
    b->offsets = opd_mem_get(alloc, (samples_max + 1) * sizeof *b->offsets);
    b->groups = opd_mem_get(alloc, samples_max * sizeof *b->groups);
    b->rewards = opd_mem_get(alloc, samples_max * sizeof *b->rewards);
    b->reward_valid = opd_mem_get(alloc, samples_max);
    b->reuse_logp = opd_mem_get(alloc, samples_max);
    b->tokens = opd_mem_get(alloc, tokens_max * sizeof *b->tokens);
    b->rollout_logp = opd_mem_get(alloc, tokens_max * sizeof *b->rollout_logp);
    b->teacher_logp = opd_mem_get(alloc, tokens_max * sizeof *b->teacher_logp);
    b->teacher_valid = opd_mem_get(alloc, tokens_max);
    b->teacher_topk = opd_mem_get(alloc, tokens_max * (top_k ? top_k : 1) * sizeof(int32_t));
    if (!b->seq_start || !b->offsets || !b->groups || !b->rewards || !b->reward_valid ||
        !b->reuse_logp || !b->tokens || !b->rollout_logp || !b->teacher_logp ||
        !b->teacher_valid || !b->teacher_topk) {
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
                      b->teacher_valid, b->teacher_topk};
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++) opd_mem_free(b->alloc, blocks[i]);
    opd_mem_free(b->alloc, b);
}

void opd_batch_clear(opd_batch *b) {
    b->sample_count = b->token_count = b->row_count = 0;
    b->seq_start[0] = b->offsets[0] = 0;
}

/* Copies `count` items, or sets them to `fill` bytes where there is no source. */
static void copy_or_fill(void *to, const void *from, size_t size_bytes, int fill) {
    if (from != NULL) memcpy(to, from, size_bytes);
    else memset(to, fill, size_bytes);
}

opd_err opd_batch_add(opd_batch *b, const opd_batch_sample *s) {
    size_t length = (size_t)s->prompt_len + s->response_len, rows = s->response_len;
    if (b->sample_count == b->samples_max || length > b->tokens_max - b->token_count)
        return opd_fail(OPD_ERR_LIMIT, "trainer: a sample of %zu tokens does not fit the batch "
                        "of %zu samples and %zu tokens", length, b->samples_max, b->tokens_max);
    size_t i = b->sample_count++, row = b->row_count;
    memcpy(b->tokens + b->token_count, s->tokens, length * sizeof *b->tokens);
    copy_or_fill(b->rollout_logp + row, s->rollout_logp, rows * sizeof(float), 0);
    copy_or_fill(b->teacher_logp + row, s->teacher_logp, rows * sizeof(float), 0);
    bool scored = s->teacher_logp != NULL && s->teacher_valid != NULL;
    copy_or_fill(b->teacher_valid + row, scored ? s->teacher_valid : NULL, rows, 0);
    copy_or_fill(b->teacher_topk + row * b->top_k, s->teacher_topk,
                 rows * b->top_k * sizeof(int32_t), 0xff); /* all bits set: id -1 */
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
