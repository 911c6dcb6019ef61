/* dataset.c - rows, their order and their tokens (dataset.h).
 * Thread: any one at a time. The dataset owns its JSONL rows and the lists of kept ones. */
#include "actors/dataset/dataset.h"

#include <string.h>

#include "core/base/check.h"
#include "opd/log.h"

/* ---- tokens ---- */

/* The pieces of a row, the same for all kinds: a prompt and a response are two segments. */
typedef struct pieces {
    opd_segment two[2];
    const opd_segment *at;
    size_t count;
} pieces;

static void pieces_of(const opd_row *row, bool response, pieces *out) {
    if (row->segments != NULL) {
        out->at = row->segments;
        out->count = row->prompt_segments;
        for (size_t i = 0; response && i < row->segment_count; i++)
            if (row->segments[i].learn) out->count = i + 1;
        return;
    }
    out->two[0] = (opd_segment){.text = row->prompt};
    out->two[1] = (opd_segment){.text = row->response, .learn = true, .ends = true};
    out->at = out->two;
    out->count = response ? 2 : 1;
}

static size_t ids_max(const pieces *p) {
    size_t size = 1; /* BOS */
    for (size_t i = 0; i < p->count; i++) size += strlen(p->at[i].text) + 1;
    return size;
}

/* Writes ids[ids_max], and learn [ids_max] where it is not NULL. *out_prompt: those before the first
 * that is learnt, or all. */
static opd_err encode(const opd_dataset *d, const pieces *p, int32_t *ids, uint8_t *learn,
                      size_t *out_count, size_t *out_prompt) {
    size_t n = 0, prompt = SIZE_MAX;
    if (opd_tokenizer_bos(d->tokenizer) >= 0) ids[n++] = opd_tokenizer_bos(d->tokenizer);
    for (size_t i = 0; i < p->count; i++) {
        const opd_segment *s = &p->at[i];
        size_t size = strlen(s->text), from = n, count;
        OPD_TRY(opd_tokenizer_encode(d->tokenizer, s->text, size, false, ids + n, size, &count));
        n += count;
        if (s->ends) ids[n++] = opd_tokenizer_eos(d->tokenizer);
        if (learn != NULL) memset(learn + from, s->learn, n - from);
        if (s->learn && prompt == SIZE_MAX) prompt = from;
    }
    *out_count = n;
    *out_prompt = prompt == SIZE_MAX ? n : prompt;
    return OPD_OK;
}

/* Ids of the pieces, as a slice that owns one reference. */
static opd_err encode_slice(const opd_dataset *d, const pieces *p, opd_slice *out_tokens, size_t *out_prompt) {
    opd_buf *buf;
    size_t count;
    OPD_TRY(opd_buf_create(d->alloc, ids_max(p) * sizeof(int32_t), &buf));
    opd_err err = encode(d, p, opd_buf_data(buf), NULL, &count, out_prompt);
    if (err != OPD_OK) {
        opd_buf_release(buf);
        return err;
    }
    *out_tokens = (opd_slice){.buf = buf, .size_bytes = count * sizeof(int32_t)};
    return OPD_OK;
}

opd_err opd_dataset_tokens(const opd_dataset *d, const opd_row *row, bool response,
                           opd_slice *out_tokens, uint32_t *out_prompt_len) {
    pieces p;
    size_t prompt;
    pieces_of(row, response, &p);
    OPD_TRY(encode_slice(d, &p, out_tokens, &prompt));
    *out_prompt_len = (uint32_t)(response ? prompt : out_tokens->size_bytes / sizeof(int32_t));
    return OPD_OK;
}

opd_err opd_dataset_privileged(const opd_dataset *d, const opd_row *row, opd_slice *out_tokens) {
    opd_row second = {.prompt = row->privileged, .segments = row->privileged_segments,
                      .prompt_segments = row->privileged_segment_count};
    pieces p;
    size_t prompt;
    *out_tokens = (opd_slice){.buf = NULL};
    if (row->privileged == NULL) return OPD_OK;
    pieces_of(&second, false, &p);
    return encode_slice(d, &p, out_tokens, &prompt);
}

opd_err opd_dataset_mask(const opd_dataset *d, const opd_row *row, opd_slice *out_mask) {
    pieces p;
    pieces_of(row, true, &p);
    *out_mask = (opd_slice){.buf = NULL};
    if (row->segments == NULL) return OPD_OK;
    opd_buf *buf;
    size_t count = 0, prompt = 0, most = ids_max(&p);
    int32_t *ids = opd_mem_get(d->alloc, most * sizeof *ids);
    if (ids == NULL) return opd_fail(OPD_ERR_NOMEM, "data: no memory for a row");
    opd_err err = opd_buf_create(d->alloc, most, &buf);
    if (err == OPD_OK) {
        err = encode(d, &p, ids, opd_buf_data(buf), &count, &prompt);
        memmove(opd_buf_data(buf), (uint8_t *)opd_buf_data(buf) + prompt, count - prompt);
        *out_mask = (opd_slice){.buf = buf, .size_bytes = count - prompt};
    }
    opd_mem_free(d->alloc, ids);
    return err;
}

/* ---- which rows ---- */

opd_jsonl_keys opd_dataset_keys(const opd_config_record *record) {
    if (record->messages_key[0] != '\0') return (opd_jsonl_keys){.messages = record->messages_key};
    if (record->prompt_template[0] != '\0')
        return (opd_jsonl_keys){.template_text = record->prompt_template};
    return (opd_jsonl_keys){.prompt = record->prompt_key};
}

void opd_dataset_keys_privileged(const opd_config_record *record, opd_jsonl_keys *io_keys) {
    if (record->privileged_messages_key[0] != '\0')
        io_keys->privileged_messages = record->privileged_messages_key;
    else if (record->privileged_template[0] != '\0')
        io_keys->privileged_template = record->privileged_template;
    else if (record->privileged_key[0] != '\0')
        io_keys->privileged = record->privileged_key;
}

/* Looks at a row's privileged prompt. out_len: its tokens; out_same: it says nothing that the prompt,
 * whose ids are given, does not say. Both are 0 where there is none. */
static opd_err privileged_check(const opd_dataset *d, const opd_dataset_options *o, const opd_jsonl *file,
                                const opd_row *row, opd_slice prompt, uint32_t *out_len, bool *out_same) {
    opd_slice tokens;
    OPD_TRY(opd_dataset_privileged(d, row, &tokens));
    *out_len = (uint32_t)(tokens.size_bytes / sizeof(int32_t));
    *out_same = tokens.buf != NULL && tokens.size_bytes == prompt.size_bytes &&
                memcmp(opd_slice_data(tokens), opd_slice_data(prompt), prompt.size_bytes) == 0;
    opd_buf_release(tokens.buf);
    if (*out_len <= o->max_len || (o->max_privileged_len > 0 && *out_len > o->max_privileged_len))
        return OPD_OK;
    return opd_fail(OPD_ERR_INVALID, "%s:%zu: the privileged prompt of this row has %u tokens and the model "
                    "takes %u; leave such rows out with data.max_privileged_len", file->path, row->line,
                    *out_len, o->max_len);
}

/* Whether a row is used; a row that cannot be is an error with its place. out_same: as
 * privileged_check. */
static opd_err row_check(opd_dataset *d, const opd_dataset_options *o, const opd_jsonl *file,
                         const opd_row *row, bool *out_keep, bool *out_same) {
    opd_slice tokens;
    uint32_t prompt, whole, learnt_from, privileged;
    bool response = o->keys.response != NULL || o->keys.roles != NULL;
    OPD_TRY(opd_dataset_tokens(d, row, false, &tokens, &prompt));
    opd_err err = privileged_check(d, o, file, row, tokens, &privileged, out_same);
    opd_buf_release(tokens.buf);
    OPD_TRY(err);
    whole = prompt;
    if (response) {
        OPD_TRY(opd_dataset_tokens(d, row, true, &tokens, &learnt_from));
        whole = (uint32_t)(tokens.size_bytes / sizeof(int32_t));
        prompt = learnt_from;
        opd_buf_release(tokens.buf);
    }
    *out_keep = (o->max_prompt_len == 0 || prompt <= o->max_prompt_len) &&
                (o->max_privileged_len == 0 || privileged <= o->max_privileged_len);
    if (*out_keep && whole > o->max_len)
        return opd_fail(OPD_ERR_INVALID,
                        "%s:%zu: this row has %u tokens and the model takes %u; leave long rows "
                        "out with data.max_prompt_len, or raise model.init.max_position",
                        file->path, row->line, whole, o->max_len);
    if (*out_keep && prompt > d->prompt_max) d->prompt_max = prompt;
    if (*out_keep && whole > d->whole_max) d->whole_max = whole;
    if (*out_keep && privileged > d->privileged_max) d->privileged_max = privileged;
    return OPD_OK;
}

/* Rows whose privileged prompt is the prompt teach nothing, or only what the teacher knows better anyway. */
static opd_err tell_same(const opd_dataset_options *o, uint64_t same, uint64_t count) {
    if (same > 0 && same == count)
        return opd_fail(OPD_ERR_INVALID, "%s: the privileged prompt is the prompt in every row; let it hold "
                        "what the student does not see (data.privileged_template)", o->path);
    if (same > 0)
        OPD_LOG_WARN("%s: in %llu of %llu rows the privileged prompt is the prompt: there the teacher sees "
                     "no more than the student", o->path, (unsigned long long)same, (unsigned long long)count);
    return OPD_OK;
}

static opd_err keep_rows(opd_dataset *d, const opd_dataset_options *o, opd_dataset_source *s) {
    uint64_t dropped = 0, unsourced = 0, same = 0;
    s->kept = opd_mem_get(o->alloc, (s->rows->count + 1) * sizeof *s->kept);
    if (s->kept == NULL) return opd_fail(OPD_ERR_NOMEM, "%s: no memory", o->path);
    for (uint64_t i = o->skip; i < s->rows->count; i++) {
        opd_row *row = &s->rows->rows_block[i];
        if (o->limit > 0 && s->count == o->limit) break;
        bool keep, alike;
        OPD_TRY(row_check(d, o, s->rows, row, &keep, &alike));
        if (keep) s->kept[s->count++] = i;
        else dropped++;
        same += keep && alike;
        unsourced += keep && o->keys.source != NULL && row->source[0] == '\0';
        if (o->name != NULL && row->source[0] == '\0') row->source = o->name;
    }
    if (s->count == 0)
        return opd_fail(OPD_ERR_INVALID, "%s: no row is left of %zu after data.skip and "
                        "data.max_prompt_len%s", o->path, s->rows->count,
                        o->max_privileged_len > 0 ? " and data.max_privileged_len" : "");
    if (dropped > 0 && o->max_privileged_len == 0)
        OPD_LOG_WARN("%s: %llu prompts longer than %u tokens are left out", o->path,
                     (unsigned long long)dropped, o->max_prompt_len);
    else if (dropped > 0)
        OPD_LOG_WARN("%s: %llu rows with a prompt (data.max_prompt_len %u) or a privileged one "
                     "(data.max_privileged_len %u) that is too long are left out", o->path,
                     (unsigned long long)dropped, o->max_prompt_len, o->max_privileged_len);
    OPD_TRY(tell_same(o, same, s->count));
    if (unsourced > 0 && o->name == NULL)
        OPD_LOG_WARN("%s: %llu of %llu rows have no \"%s\": the default teacher (opd.teacher) scores "
                     "them", o->path, (unsigned long long)unsourced, (unsigned long long)s->count,
                     o->keys.source);
    d->count += s->count;
    d->dropped += dropped;
    d->unsourced += unsourced;
    return OPD_OK;
}

static opd_err open_source(opd_dataset *d, const opd_dataset_options *o) {
    opd_dataset_source *s = &d->sources[d->source_count++];
    OPD_TRY(opd_jsonl_load(o->alloc, o->path, &o->keys, &s->rows));
    OPD_TRY(keep_rows(d, o, s));
    s->order = (opd_order){.count = s->count, .seed = o->seed, .shuffle = o->shuffle};
    return OPD_OK;
}

opd_err opd_dataset_open_mixed(const opd_dataset_options *o, size_t count, opd_dataset **out) {
    double weights[OPD_MIX_SOURCES_MAX];
    OPD_ASSERT(count > 0 && count <= OPD_MIX_SOURCES_MAX);
    opd_dataset *d = opd_mem_get(o->alloc, sizeof *d);
    if (d == NULL) return opd_fail(OPD_ERR_NOMEM, "%s: no memory", o->path);
    *d = (opd_dataset){.alloc = o->alloc, .tokenizer = o->tokenizer};
    for (size_t i = 0; i < count; i++) {
        opd_err err = open_source(d, &o[i]);
        if (err != OPD_OK) {
            opd_dataset_close(d);
            return err;
        }
        weights[i] = count > 1 ? o[i].weight : 1;
    }
    d->mix = opd_mix_of(weights, count);
    *out = d;
    return OPD_OK;
}

opd_err opd_dataset_open(const opd_dataset_options *o, opd_dataset **out) {
    return opd_dataset_open_mixed(o, 1, out);
}

void opd_dataset_close(opd_dataset *d) {
    if (d == NULL) return;
    for (size_t i = 0; i < d->source_count; i++) {
        opd_jsonl_destroy(d->sources[i].rows);
        opd_mem_free(d->alloc, d->sources[i].kept);
    }
    opd_mem_free(d->alloc, d);
}

const opd_row *opd_dataset_row(const opd_dataset *d, uint64_t group, uint64_t *out_epoch) {
    uint64_t index;
    const opd_dataset_source *s = &d->sources[opd_mix_at(&d->mix, group, &index)];
    uint64_t position = opd_order_of_group(&s->order, index, out_epoch);
    return &s->rows->rows[s->kept[position]];
}

opd_err opd_dataset_check_disjoint(const opd_dataset *train, const opd_dataset *eval) {
    for (size_t i = 0; i < train->source_count; i++)
        for (size_t j = 0; j < eval->source_count; j++)
            OPD_TRY(opd_jsonl_check_disjoint(train->alloc, train->sources[i].rows,
                                             eval->sources[j].rows));
    return OPD_OK;
}
