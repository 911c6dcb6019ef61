/* actors/sample.c - see sample.h. The sample and its arrays are one block: the struct, then
 * the 4-byte arrays, then the bytes, so that every array is aligned and one free ends it. */
#include "actors/sample.h"

#include <string.h>

#include "core/base/check.h"
#include "core/base/rng.h"

const char *opd_sample_status_name(opd_sample_status status) {
    switch (status) {
    case OPD_SAMPLE_COMPLETED: return "completed";
    case OPD_SAMPLE_TRUNCATED: return "truncated";
    case OPD_SAMPLE_ABORTED: return "aborted";
    case OPD_SAMPLE_FAILED: return "failed";
    }
    return "unknown";
}

static int compare_u64(uint64_t a, uint64_t b) { return (a > b) - (a < b); }

int opd_sample_id_compare(const opd_sample_id *a, const opd_sample_id *b) {
    int order = compare_u64(a->run, b->run);
    if (order == 0) order = compare_u64(a->epoch, b->epoch);
    if (order == 0) order = compare_u64(a->group, b->group);
    if (order == 0) order = compare_u64(a->member, b->member);
    return order;
}

uint64_t opd_sample_id_hash(const opd_sample_id *id) {
    return opd_rng_at(id->run, id->epoch, id->group, id->member);
}

opd_err opd_sample_create(const opd_alloc *alloc, opd_sample_id id, uint32_t prompt_len,
                          uint32_t response_len, uint32_t topk, opd_sample **out_sample) {
    size_t rows = response_len, words, ids, size;
    bool overflow = __builtin_mul_overflow(rows, (size_t)topk, &ids);
    overflow = __builtin_add_overflow(ids, 3 * rows + prompt_len, &words) || overflow;
    overflow = __builtin_mul_overflow(words, sizeof(int32_t), &size) || overflow;
    overflow = __builtin_add_overflow(size, rows + sizeof(opd_sample), &size) || overflow;
    if (overflow)
        return opd_fail(OPD_ERR_LIMIT, "a sample of %u + %u tokens with %u ids each is too large",
                        prompt_len, response_len, topk);
    opd_sample *sample = opd_mem_get(alloc, size);
    if (sample == NULL)
        return opd_fail(OPD_ERR_NOMEM, "no memory for a sample of %zu bytes", size);
    sample->id = id;
    sample->status = OPD_SAMPLE_FAILED;
    sample->prompt_len = prompt_len;
    sample->response_len = response_len;
    sample->topk = topk;
    sample->alloc = alloc;
    sample->tokens = (int32_t *)(void *)(sample + 1);
    sample->rollout_logp = (float *)(void *)(sample->tokens + prompt_len + rows);
    sample->teacher_logp = sample->rollout_logp + rows;
    int32_t *topk_ids = (int32_t *)(void *)(sample->teacher_logp + rows);
    sample->teacher_topk = topk > 0 ? topk_ids : NULL;
    sample->teacher_valid = (uint8_t *)(topk_ids + ids);
    for (size_t i = 0; i < ids; i++) topk_ids[i] = -1;
    *out_sample = sample;
    return OPD_OK;
}

void opd_sample_destroy(opd_sample *sample) {
    if (sample != NULL) opd_mem_free(sample->alloc, sample);
}

opd_err opd_sample_cover(opd_sample *sample, uint32_t end, uint64_t version) {
    opd_sample_span *last =
        sample->span_count > 0 ? &sample->spans[sample->span_count - 1] : NULL;
    uint32_t begin = last != NULL ? last->end : 0;
    if (end < begin || end > sample->response_len)
        return opd_fail(OPD_ERR_INVALID, "span %u..%u outside a response of %u tokens", begin, end,
                        sample->response_len);
    if (end == begin) return OPD_OK;
    if (last != NULL && last->version == version) {
        last->end = end;
        return OPD_OK;
    }
    if (sample->span_count == OPD_SAMPLE_SPANS_MAX)
        return opd_fail(OPD_ERR_LIMIT, "a response under more than %d versions of the weights",
                        OPD_SAMPLE_SPANS_MAX);
    sample->spans[sample->span_count++] = (opd_sample_span){begin, end, version};
    return OPD_OK;
}

uint64_t opd_sample_version_min(const opd_sample *sample) {
    uint64_t least = UINT64_MAX;
    for (uint32_t i = 0; i < sample->span_count; i++)
        if (sample->spans[i].version < least) least = sample->spans[i].version;
    return least;
}

uint32_t opd_sample_valid_count(const opd_sample *sample) {
    uint32_t count = 0;
    for (uint32_t t = 0; t < sample->response_len; t++) count += sample->teacher_valid[t] != 0;
    return count;
}
