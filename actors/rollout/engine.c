/* engine.c - slots, the prompt queue and the plan of a step (engine.h).
 *
 * Data: prompts live in a fixed table of entries; a FIFO ring of entry indices holds those
 * with members still to start. A slot belongs to one member of one entry. `active` lists the
 * occupied slots; it is rebuilt in place when sequences end, keeping its order.
 * Thread: the loop, except opd_engine_execute (the lane), which reads the plan and the
 * decoder only. The engine owns every array here.
 */
#include "actors/rollout/engine.h"

#include <math.h>
#include <string.h>

#include "core/base/check.h"
#include "core/base/rng.h"

typedef struct entry {
    opd_engine_prompt prompt;
    uint32_t started, finished; /* members; the entry is free when finished == count */
    bool used;
} entry;

typedef struct slot {
    uint32_t entry, member;
    uint32_t prompt_len, length; /* length: tokens so far, prompt included */
    uint32_t told;               /* tokens that opd_engine_tell got rid of */
    uint64_t key;                /* of the random numbers of this member   */
    uint32_t span_count;
    uint64_t span_version[OPD_ENGINE_SPANS_MAX];
    uint32_t span_start[OPD_ENGINE_SPANS_MAX];
} slot;

/* One prefill of a plan: the first slot computes, the others copy. */
typedef struct start {
    size_t first_slot;
    size_t copy_first, copy_count; /* range in copies */
} start;

struct opd_engine {
    const opd_alloc *alloc;
    opd_model_config model;
    uint32_t slots_max, max_len, entries_max, top_k;
    opd_decoder *decoder;
    uint64_t version;
    opd_slice offered; /* buf NULL: none */
    uint64_t offered_version;
    bool has_weights;

    entry *entries;  /* [entries_max] */
    uint32_t entry_count;
    uint32_t *queue; /* ring of entries with members to start */
    uint32_t queue_head, queue_count;

    slot *slots;       /* [slots_max] */
    int32_t *tokens;   /* [slots_max][max_len] */
    float *logp;       /* [slots_max][max_len], by response position */
    int32_t *topk;     /* [slots_max][max_len][top_k], the same; the lane writes them */
    size_t *active;    /* [slots_max] */
    size_t active_count;
    size_t *free_slots; /* stack */
    size_t free_count;

    /* the plan */
    bool planned, take_weights;
    start *starts; /* [slots_max] */
    size_t start_count;
    size_t *copies;      /* [slots_max] */
    size_t *prefill_slots, *prefill_start; /* [slots_max], [slots_max + 1] */
    int32_t *prefill_tokens;               /* [prefill_max] */
    size_t prefill_max;
    opd_decode_row *rows;
    opd_decode_out *outs;
};

static opd_err engine_alloc(opd_engine *e) {
    size_t n = e->slots_max, cells = n * e->max_len;
    e->entries = opd_mem_get(e->alloc, e->entries_max * sizeof *e->entries);
    e->queue = opd_mem_get(e->alloc, e->entries_max * sizeof *e->queue);
    e->slots = opd_mem_get(e->alloc, n * sizeof *e->slots);
    e->tokens = opd_mem_get(e->alloc, cells * sizeof *e->tokens);
    e->logp = opd_mem_get(e->alloc, cells * sizeof *e->logp);
    e->topk = opd_mem_get(e->alloc, (e->top_k > 0 ? cells * e->top_k : 1) * sizeof *e->topk);
    e->active = opd_mem_get(e->alloc, n * sizeof *e->active);
    e->free_slots = opd_mem_get(e->alloc, n * sizeof *e->free_slots);
    e->starts = opd_mem_get(e->alloc, n * sizeof *e->starts);
    e->copies = opd_mem_get(e->alloc, n * sizeof *e->copies);
    e->prefill_slots = opd_mem_get(e->alloc, n * sizeof *e->prefill_slots);
    e->prefill_start = opd_mem_get(e->alloc, (n + 1) * sizeof *e->prefill_start);
    e->prefill_tokens = opd_mem_get(e->alloc, e->prefill_max * sizeof *e->prefill_tokens);
    e->rows = opd_mem_get(e->alloc, n * sizeof *e->rows);
    e->outs = opd_mem_get(e->alloc, n * sizeof *e->outs);
    bool whole = e->entries && e->queue && e->slots && e->tokens && e->logp && e->topk && e->active &&
                 e->free_slots && e->starts && e->copies && e->prefill_slots &&
                 e->prefill_start && e->prefill_tokens && e->rows && e->outs;
    if (!whole)
        return opd_fail(OPD_ERR_NOMEM, "rollout: no memory for %u sequences of %u tokens",
                        e->slots_max, e->max_len);
    return OPD_OK;
}

opd_err opd_engine_create(const opd_engine_options *options, opd_engine **out) {
    OPD_ASSERT(options->slots > 0 && options->max_len > 1 && options->prompts_max > 0);
    opd_engine *e = opd_mem_get(options->alloc, sizeof *e);
    if (e == NULL) return opd_fail(OPD_ERR_NOMEM, "rollout: no memory for the engine");
    *e = (opd_engine){.alloc = options->alloc, .model = *options->model,
                      .slots_max = options->slots, .max_len = options->max_len, .top_k = options->top_k,
                      .entries_max = options->prompts_max, .version = UINT64_MAX};
    /* One prefill holds several short prompts, or at least the longest one. */
    e->prefill_max = e->max_len > 4096 ? e->max_len : 4096;
    opd_err err;
    OPD_TRY_GOTO(engine_alloc(e), fail);
    opd_decoder_options decoder = {.slots = options->slots, .max_len = options->max_len,
                                   .prefill_max_tokens = e->prefill_max, .top_k = e->top_k};
    const opd_lm_ops *lm = opd_lm_or_default(options->lm);
    OPD_TRY_GOTO(lm->decoder_create(options->kernels, &e->model, &decoder, e->alloc,
                                    &e->decoder), fail);
    for (uint32_t i = 0; i < e->slots_max; i++)
        e->free_slots[e->free_count++] = e->slots_max - 1 - i;
    *out = e;
    return OPD_OK;
fail:
    opd_engine_destroy(e);
    return err;
}

void opd_engine_destroy(opd_engine *e) {
    if (e == NULL) return;
    for (uint32_t i = 0; e->entries != NULL && i < e->entries_max; i++)
        if (e->entries[i].used) opd_buf_release(e->entries[i].prompt.tokens.buf);
    opd_buf_release(e->offered.buf);
    opd_decoder_destroy(e->decoder);
    void *blocks[] = {e->entries, e->queue, e->slots, e->tokens, e->logp, e->topk, e->active,
                      e->free_slots, e->starts, e->copies, e->prefill_slots,
                      e->prefill_start, e->prefill_tokens, e->rows, e->outs};
    for (size_t i = 0; i < OPD_COUNTOF(blocks); i++) opd_mem_free(e->alloc, blocks[i]);
    opd_mem_free(e->alloc, e);
}

static uint32_t prompt_len(const opd_engine_prompt *p) {
    return (uint32_t)(p->tokens.size_bytes / sizeof(int32_t));
}

static opd_err prompt_check(const opd_engine *e, const opd_engine_prompt *p) {
    uint32_t length = prompt_len(p);
    if (length == 0 || p->count == 0 || p->max_new == 0)
        return opd_fail(OPD_ERR_INVALID, "a prompt needs a token, a count and a length limit");
    const opd_sampling *s = &p->sampling;
    if (!(s->temperature >= 0) || !isfinite(s->temperature) || s->top_k < 0 ||
        !(s->top_p > 0 && s->top_p <= 1))
        return opd_fail(OPD_ERR_INVALID, "temperature %g, top_k %d or top_p %g is out of range",
                        (double)s->temperature, (int)s->top_k, (double)s->top_p);
    if (length >= e->max_len)
        return opd_fail(OPD_ERR_INVALID,
                        "the prompt has %u tokens, the most is %u (model.max_position less one)",
                        length, e->max_len - 1);
    const int32_t *ids = opd_slice_data(p->tokens);
    for (uint32_t i = 0; i < length; i++)
        if (ids[i] < 0 || ids[i] >= e->model.vocab_size)
            return opd_fail(OPD_ERR_INVALID, "token %d at position %u is outside the vocabulary "
                            "of %d", ids[i], i, e->model.vocab_size);
    return OPD_OK;
}

opd_err opd_engine_add(opd_engine *e, const opd_engine_prompt *prompt) {
    OPD_TRY(prompt_check(e, prompt));
    if (e->entry_count == e->entries_max)
        return opd_fail(OPD_ERR_AGAIN, "rollout: %u prompts are waiting", e->entry_count);
    uint32_t index = 0;
    while (e->entries[index].used) index++;
    e->entries[index] = (entry){.prompt = *prompt, .used = true};
    (void)opd_buf_retain(prompt->tokens.buf);
    e->queue[(e->queue_head + e->queue_count++) % e->entries_max] = index;
    e->entry_count++;
    return OPD_OK;
}

void opd_engine_offer(opd_engine *e, opd_slice params, uint64_t version) {
    OPD_ASSERT(params.size_bytes / sizeof(float) == opd_model_layout_of(&e->model).total);
    opd_buf *old = e->offered.buf;
    (void)opd_buf_retain(params.buf);
    e->offered = params;
    e->offered_version = version;
    opd_buf_release(old);
}

/* Where the likely ids of a slot's response stand; NULL: its prompt does not keep them. */
static int32_t *lists_of(const opd_engine *e, size_t s) {
    bool kept = e->top_k > 0 && e->entries[e->slots[s].entry].prompt.lists;
    return kept ? e->topk + s * e->max_len * e->top_k : NULL;
}

static void entry_release(opd_engine *e, uint32_t index) {
    opd_buf_release(e->entries[index].prompt.tokens.buf);
    e->entries[index].used = false;
    e->entry_count--;
}

/* Gives a member its slot; its tokens begin with the prompt. */
static size_t member_start(opd_engine *e, uint32_t index) {
    entry *en = &e->entries[index];
    size_t s = e->free_slots[--e->free_count];
    uint32_t member = en->started++, length = prompt_len(&en->prompt);
    e->slots[s] = (slot){
        .entry = index, .member = member, .prompt_len = length, .length = length,
        .key = opd_rng_at(en->prompt.seed, en->prompt.epoch, en->prompt.group, member)};
    memcpy(e->tokens + s * e->max_len, opd_slice_data(en->prompt.tokens),
           length * sizeof(int32_t));
    e->active[e->active_count++] = s;
    return s;
}

/* Starts as many waiting members as slots and the prefill buffer allow. */
static void plan_starts(opd_engine *e, uint64_t version) {
    size_t used = 0, copied = 0;
    e->start_count = 0;
    e->prefill_start[0] = 0;
    while (e->queue_count > 0 && e->free_count > 0) {
        uint32_t index = e->queue[e->queue_head];
        entry *en = &e->entries[index];
        uint32_t cached = prompt_len(&en->prompt) - 1;
        if (en->prompt.min_version > version) break;
        if (used + cached > e->prefill_max) break;
        size_t first = member_start(e, index);
        start *st = &e->starts[e->start_count];
        *st = (start){.first_slot = first, .copy_first = copied};
        memcpy(e->prefill_tokens + used, opd_slice_data(en->prompt.tokens),
               cached * sizeof(int32_t));
        used += cached;
        e->prefill_slots[e->start_count] = first;
        e->prefill_start[++e->start_count] = used;
        while (en->started < en->prompt.count && e->free_count > 0)
            e->copies[copied++] = member_start(e, index);
        st->copy_count = copied - st->copy_first;
        if (en->started < en->prompt.count) break;
        e->queue_head = (e->queue_head + 1) % e->entries_max;
        e->queue_count--;
    }
}

/* Notes under which weights the token at the slot's present length is made. */
static void note_version(slot *s, uint64_t version) {
    uint32_t last = s->span_count;
    if (last > 0 && s->span_version[last - 1] == version) return;
    if (last == OPD_ENGINE_SPANS_MAX) return; /* the oldest ones bound the lag; keep them */
    s->span_version[last] = version;
    s->span_start[last] = s->length - s->prompt_len;
    s->span_count++;
}

bool opd_engine_plan(opd_engine *e) {
    OPD_ASSERT(!e->planned);
    e->take_weights = e->offered.buf != NULL;
    if (!e->has_weights && !e->take_weights) return false;
    uint64_t version = e->take_weights ? e->offered_version : e->version;
    plan_starts(e, version);
    if (e->active_count == 0) return false;
    for (size_t i = 0; i < e->active_count; i++) {
        size_t s = e->active[i];
        slot *sl = &e->slots[s];
        note_version(sl, version);
        uint64_t bits = opd_rng_at(sl->key, sl->length - sl->prompt_len, 0, 0);
        float uniform = (float)(bits >> 40) * 0x1p-24f; /* 24 bits: exact, below 1 */
        e->rows[i] = (opd_decode_row){.slot = s,
                                      .token = e->tokens[s * e->max_len + sl->length - 1],
                                      .uniform = uniform,
                                      .sampling = &e->entries[sl->entry].prompt.sampling};
        int32_t *lists = lists_of(e, s);
        if (lists != NULL) e->rows[i].top_ids = lists + (size_t)(sl->length - sl->prompt_len) * e->top_k;
    }
    e->planned = true;
    return true;
}

opd_err opd_engine_execute(opd_engine *e) {
    OPD_ASSERT(e->planned);
    if (e->take_weights) opd_decoder_set_weights(e->decoder, opd_slice_data(e->offered));
    if (e->start_count > 0) {
        opd_packed packed = {.seq_count = e->start_count, .seq_start = e->prefill_start,
                             .tokens = e->prefill_tokens};
        OPD_TRY(opd_decoder_prefill(e->decoder, e->prefill_slots, &packed));
    }
    for (size_t i = 0; i < e->start_count; i++)
        OPD_TRY(opd_decoder_copy(e->decoder, e->starts[i].first_slot,
                                 e->copies + e->starts[i].copy_first,
                                 e->starts[i].copy_count));
    return opd_decoder_step(e->decoder, e->rows, e->active_count, e->outs);
}

static void finish_slot(opd_engine *e, size_t s, opd_finish why, opd_engine_finish_fn finish,
                        void *arg) {
    slot *sl = &e->slots[s];
    entry *en = &e->entries[sl->entry];
    opd_engine_sample sample = {
        .prompt = &en->prompt, .member = sl->member, .finish = why,
        .tokens = e->tokens + s * e->max_len, .prompt_len = sl->prompt_len,
        .response_len = sl->length - sl->prompt_len, .logp = e->logp + s * e->max_len,
        .topk = lists_of(e, s), .span_count = sl->span_count};
    memcpy(sample.span_version, sl->span_version, sizeof sl->span_version);
    memcpy(sample.span_start, sl->span_start, sizeof sl->span_start);
    finish(arg, &sample);
    e->free_slots[e->free_count++] = s;
    if (++en->finished == en->prompt.count) entry_release(e, sl->entry);
}

/* Whether a sequence that just got its last token has ended, and why. */
static bool ended(const opd_engine *e, const slot *s, int32_t token, opd_finish *out_why) {
    const opd_engine_prompt *p = &e->entries[s->entry].prompt;
    bool stop = token == e->model.eos_id && !p->ignore_eos;
    *out_why = stop ? OPD_FINISH_STOP : OPD_FINISH_LENGTH;
    return stop || s->length - s->prompt_len >= p->max_new ||
           s->length >= e->max_len;
}

void opd_engine_apply(opd_engine *e, opd_engine_finish_fn finish, void *arg) {
    OPD_ASSERT(e->planned);
    e->planned = false;
    if (e->take_weights) {
        e->version = e->offered_version;
        e->has_weights = true;
        opd_buf_release(e->offered.buf);
        e->offered = (opd_slice){.buf = NULL};
    }
    size_t kept = 0, count = e->active_count;
    for (size_t i = 0; i < count; i++) {
        size_t s = e->active[i];
        slot *sl = &e->slots[s];
        e->logp[s * e->max_len + sl->length - sl->prompt_len] = e->outs[i].logp;
        e->tokens[s * e->max_len + sl->length++] = e->outs[i].token;
        opd_finish why;
        if (ended(e, sl, e->outs[i].token, &why)) finish_slot(e, s, why, finish, arg);
        else e->active[kept++] = s;
    }
    e->active_count = kept;
}

void opd_engine_tell(opd_engine *e, opd_engine_progress_fn progress, void *arg) {
    for (size_t i = 0; i < e->active_count; i++) {
        size_t s = e->active[i];
        slot *sl = &e->slots[s];
        opd_engine_progress p = {
            .prompt = &e->entries[sl->entry].prompt, .member = sl->member,
            .tokens = e->tokens + s * e->max_len, .topk = lists_of(e, s), .prompt_len = sl->prompt_len,
            .length = sl->length, .told = sl->told};
        if (progress(arg, &p)) sl->told = sl->length;
    }
}

/* Ends the members of a waiting prompt that never got a slot. */
static void abort_waiting(opd_engine *e, uint32_t index, opd_engine_finish_fn finish, void *arg) {
    entry *en = &e->entries[index];
    while (en->started < en->prompt.count) {
        opd_engine_sample sample = {.prompt = &en->prompt, .member = en->started++,
                                    .finish = OPD_FINISH_ABORT,
                                    .tokens = opd_slice_data(en->prompt.tokens),
                                    .prompt_len = prompt_len(&en->prompt)};
        finish(arg, &sample);
        en->finished++;
    }
    if (en->finished == en->prompt.count) entry_release(e, index);
}

void opd_engine_abort(opd_engine *e, uint64_t user, opd_engine_finish_fn finish, void *arg) {
    OPD_ASSERT(!e->planned);
    size_t kept = 0, count = e->active_count;
    for (size_t i = 0; i < count; i++) {
        size_t s = e->active[i];
        if (e->entries[e->slots[s].entry].prompt.user != user) e->active[kept++] = s;
        else finish_slot(e, s, OPD_FINISH_ABORT, finish, arg);
    }
    e->active_count = kept;
    uint32_t waiting = e->queue_count, keep = 0;
    for (uint32_t i = 0; i < waiting; i++) {
        uint32_t index = e->queue[(e->queue_head + i) % e->entries_max];
        if (e->entries[index].prompt.user == user) abort_waiting(e, index, finish, arg);
        else e->queue[(e->queue_head + keep++) % e->entries_max] = index;
    }
    e->queue_count = keep;
}

uint32_t opd_engine_running(const opd_engine *e) { return (uint32_t)e->active_count; }

uint32_t opd_engine_prompts(const opd_engine *e) { return e->entry_count; }

uint64_t opd_engine_version(const opd_engine *e) { return e->version; }
