/* dataset.c - rows, their order and their tokens (dataset.h).
 * Thread: any one at a time. The dataset owns its JSONL rows and the list of kept ones. */
#include "actors/dataset/dataset.h"

#include <string.h>

#include "core/base/check.h"
#include "opd/log.h"

static size_t prompt_tokens(const opd_row *row) { return strlen(row->prompt) + 1; }

/* Whether a row is used; a row that cannot be is an error with its place. */
static opd_err row_check(opd_dataset *d, const opd_dataset_options *o, const opd_row *row,
                         bool *out_keep) {
    size_t prompt = prompt_tokens(row);
    size_t whole = prompt + (row->response != NULL ? strlen(row->response) + 1 : 0);
    *out_keep = o->max_prompt_len == 0 || prompt <= o->max_prompt_len;
    if (*out_keep && whole > o->max_len)
        return opd_fail(OPD_ERR_INVALID,
                        "%s:%zu: this row has %zu tokens and the model takes %u; leave long rows "
                        "out with data.max_prompt_len, or raise model.init.max_position",
                        d->rows->path, row->line, whole, o->max_len);
    if (*out_keep && prompt > d->prompt_max) d->prompt_max = (uint32_t)prompt;
    if (*out_keep && whole > d->whole_max) d->whole_max = (uint32_t)whole;
    return OPD_OK;
}

static opd_err keep_rows(opd_dataset *d, const opd_dataset_options *o) {
    d->kept = opd_mem_get(o->alloc, (d->rows->count + 1) * sizeof *d->kept);
    if (d->kept == NULL) return opd_fail(OPD_ERR_NOMEM, "%s: no memory", o->path);
    for (uint64_t i = o->skip; i < d->rows->count; i++) {
        if (o->limit > 0 && d->count == o->limit) break;
        bool keep;
        OPD_TRY(row_check(d, o, &d->rows->rows[i], &keep));
        if (keep) d->kept[d->count++] = i;
        else d->dropped++;
        d->unsourced += keep && o->source_key != NULL && d->rows->rows[i].source[0] == '\0';
    }
    if (d->count == 0)
        return opd_fail(OPD_ERR_INVALID, "%s: no row is left of %zu after data.skip and "
                        "data.max_prompt_len", o->path, d->rows->count);
    if (d->dropped > 0)
        OPD_LOG_WARN("%s: %llu prompts longer than %u tokens are left out", o->path,
                     (unsigned long long)d->dropped, o->max_prompt_len);
    if (d->unsourced > 0)
        OPD_LOG_WARN("%s: %llu of %llu rows have no \"%s\": the default teacher (opd.teacher) scores "
                     "them", o->path, (unsigned long long)d->unsourced,
                     (unsigned long long)d->count, o->source_key);
    return OPD_OK;
}

opd_err opd_dataset_open(const opd_dataset_options *o, opd_dataset **out) {
    opd_dataset *d = opd_mem_get(o->alloc, sizeof *d);
    if (d == NULL) return opd_fail(OPD_ERR_NOMEM, "%s: no memory", o->path);
    *d = (opd_dataset){.alloc = o->alloc, .tokenizer = o->tokenizer};
    opd_jsonl_keys keys = {.prompt = o->prompt_key, .label = o->label_key,
                           .response = o->response_key, .source = o->source_key};
    opd_err err;
    OPD_TRY_GOTO(opd_jsonl_load(o->alloc, o->path, &keys, &d->rows), fail);
    OPD_TRY_GOTO(keep_rows(d, o), fail);
    d->order = (opd_order){.count = d->count, .seed = o->seed, .shuffle = o->shuffle};
    *out = d;
    return OPD_OK;
fail:
    opd_dataset_close(d);
    return err;
}

void opd_dataset_close(opd_dataset *d) {
    if (d == NULL) return;
    opd_jsonl_destroy(d->rows);
    opd_mem_free(d->alloc, d->kept);
    opd_mem_free(d->alloc, d);
}

const opd_row *opd_dataset_row(const opd_dataset *d, uint64_t group, uint64_t *out_epoch) {
    uint64_t position = opd_order_of_group(&d->order, group, out_epoch);
    return &d->rows->rows[d->kept[position]];
}

opd_err opd_dataset_tokens(const opd_dataset *d, const opd_row *row, bool response,
                           opd_slice *out_tokens, uint32_t *out_prompt_len) {
    size_t prompt = strlen(row->prompt), tail = response ? strlen(row->response) : 0;
    opd_buf *buf;
    OPD_TRY(opd_buf_create(d->alloc, (prompt + tail + 2) * sizeof(int32_t), &buf));
    int32_t *ids = opd_buf_data(buf);
    size_t n = 0, count = 0;
    if (opd_tokenizer_bos(d->tokenizer) >= 0) ids[n++] = opd_tokenizer_bos(d->tokenizer);
    opd_err err;
    OPD_TRY_GOTO(opd_tokenizer_encode(d->tokenizer, row->prompt, prompt, false, ids + n, prompt,
                                      &count), fail);
    n += count;
    *out_prompt_len = (uint32_t)n;
    if (response) {
        OPD_TRY_GOTO(opd_tokenizer_encode(d->tokenizer, row->response, tail, false, ids + n,
                                          tail, &count), fail);
        n += count;
        ids[n++] = opd_tokenizer_eos(d->tokenizer);
    }
    *out_tokens = (opd_slice){.buf = buf, .size_bytes = n * sizeof(int32_t)};
    return OPD_OK;
fail:
    opd_buf_release(buf);
    return err;
}

opd_err opd_dataset_check_disjoint(const opd_dataset *train, const opd_dataset *eval) {
    return opd_jsonl_check_disjoint(train->alloc, train->rows, eval->rows);
}
