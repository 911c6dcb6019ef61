/* engine.c - requests, the plan of a step and its results (engine.h).
 *
 * Data: requests are a fixed table; those waiting and those running are lists in the order of
 * arrival. The plan is a list of parts, one request's tokens each, and of pages to be copied
 * before. The lane writes scores straight into the buffers that the answer carries.
 * Thread: the loop, except prepare and execute (the lane), which read the plan and touch the reader
 * only. The engine owns every array here.
 */
#include "actors/scorer/engine.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "actors/scorer/pages.h"
#include "core/base/check.h"
#include "core/base/list.h"

enum {
    STEP_NS = 100 * 1000 * 1000, /* a step is to take no longer ... */
    PACE = 8                     /* ... but has job_tokens / PACE tokens at least */
};

typedef struct request {
    opd_list node; /* in free, waiting or running */
    opd_score_ask ask;
    uint64_t order;
    uint32_t length; /* tokens to be read: all but the last */
    uint32_t at;     /* read up to here, or cached */
    uint32_t cached;
    opd_chain chain; /* while it runs */
    opd_slice logp, topk_ids, topk_logp, ids_logp;
} request;

/* A request's tokens in a step. */
typedef struct part {
    request *request;
    uint32_t from, count;
} part;

typedef struct copy {
    uint32_t from, to;
} copy;

struct opd_score_engine {
    opd_score_engine_options o;
    opd_model_config model;
    opd_reader *reader; /* of the lane */
    opd_pages *pages;
    size_t chain_max;      /* pages of the longest request */
    request *requests;     /* [requests_max] */
    uint32_t *chain_room;  /* [running_max][chain_max] */
    uint32_t **chain_free; /* [running_max], a stack of rows of chain_room */
    opd_list free, waiting, running;
    uint32_t waiting_count, running_count;
    uint64_t order, computed, cached, steps;
    uint32_t step_tokens; /* of a step at most: see pace */
    /* the plan */
    bool planned;
    request **shortest; /* [running_max] */
    part *parts;        /* [running_max] */
    copy *copies;       /* [running_max] */
    uint32_t part_count, copy_count;
    int32_t *tokens;   /* [job_tokens] */
    size_t *seq_start; /* [running_max + 1] */
    opd_read *reads;   /* [running_max] */
    opd_score_row *rows; /* [job_tokens], of one request at a time; the lane's */
};

static request *request_of(opd_list *node) { return OPD_CONTAINER_OF(node, request, node); }

/* ---- life ------------------------------------------------------------------------------ */

uint64_t opd_score_engine_pages(const opd_score_engine_options *o) {
    uint64_t page_bytes = opd_reader_page_floats(&o->model->config) * sizeof(float);
    uint64_t longest = opd_pages_of(o->max_len);
    uint64_t floor = longest, ceiling = (uint64_t)o->running_max * longest;
    if (floor < 2 * opd_pages_of(o->job_tokens)) floor = 2 * opd_pages_of(o->job_tokens);
    uint64_t pages = o->cache_bytes / page_bytes;
    if (pages > ceiling) pages = ceiling;
    if (pages < floor) pages = floor;
    return pages < OPD_PAGE_NONE ? pages : OPD_PAGE_NONE - 1;
}

static opd_err take_memory(opd_score_engine *e) {
    const opd_alloc *alloc = e->o.alloc;
    size_t running = e->o.running_max, tokens = e->o.job_tokens;
    e->requests = opd_mem_get(alloc, e->o.requests_max * sizeof *e->requests);
    e->chain_room = opd_mem_get(alloc, running * e->chain_max * sizeof *e->chain_room);
    e->chain_free = opd_mem_get(alloc, running * sizeof *e->chain_free);
    e->shortest = opd_mem_get(alloc, running * sizeof(request *));
    e->parts = opd_mem_get(alloc, running * sizeof *e->parts);
    e->copies = opd_mem_get(alloc, running * sizeof *e->copies);
    e->tokens = opd_mem_get(alloc, tokens * sizeof *e->tokens);
    e->seq_start = opd_mem_get(alloc, (running + 1) * sizeof *e->seq_start);
    e->reads = opd_mem_get(alloc, running * sizeof *e->reads);
    e->rows = opd_mem_get(alloc, tokens * sizeof *e->rows);
    bool whole = e->requests && e->chain_room && e->chain_free && e->shortest && e->parts &&
                 e->copies && e->tokens && e->seq_start && e->reads && e->rows;
    if (!whole) return opd_fail(OPD_ERR_NOMEM, "no memory for a scorer of %u requests",
                                e->o.requests_max);
    return opd_pages_create((size_t)opd_score_engine_pages(&e->o), e->o.cache_bytes > 0, alloc,
                            &e->pages);
}

opd_err opd_score_engine_create(const opd_score_engine_options *options, opd_score_engine **out) {
    OPD_ASSERT(options->max_len >= 2 && options->job_tokens >= 2 && options->running_max > 0 &&
               options->requests_max >= options->running_max);
    opd_score_engine *e = opd_mem_get(options->alloc, sizeof *e);
    if (e == NULL) return opd_fail(OPD_ERR_NOMEM, "no memory for a scorer");
    *e = (opd_score_engine){.o = *options, .model = options->model->config,
                            .step_tokens = options->job_tokens,
                            .chain_max = opd_pages_of(options->max_len)};
    opd_list *lists[] = {&e->free, &e->waiting, &e->running};
    for (size_t i = 0; i < OPD_COUNTOF(lists); i++) opd_list_init(lists[i]);
    opd_err err = take_memory(e);
    if (err != OPD_OK) {
        opd_score_engine_destroy(e);
        return err;
    }
    for (uint32_t i = 0; i < e->o.requests_max; i++)
        opd_list_push_back(&e->free, &e->requests[i].node);
    for (uint32_t i = 0; i < e->o.running_max; i++)
        e->chain_free[i] = e->chain_room + i * e->chain_max;
    *out = e;
    return OPD_OK;
}

opd_err opd_score_engine_prepare(opd_score_engine *e) {
    const opd_lm_ops *lm = opd_lm_or_default(e->o.lm);
    opd_reader_options options = {.pages = (size_t)opd_score_engine_pages(&e->o),
                                  .max_len = e->o.max_len, .max_tokens = e->o.job_tokens};
    OPD_TRY(lm->reader_create(e->o.kernels, &e->model, &options, e->o.alloc, &e->reader));
    opd_reader_set_weights(e->reader, e->o.model->params);
    return OPD_OK;
}

void opd_score_engine_destroy(opd_score_engine *e) {
    if (e == NULL) return;
    OPD_ASSERT(e->waiting_count == 0 && e->running_count == 0);
    opd_reader_destroy(e->reader);
    opd_pages_destroy(e->pages);
    void *blocks[] = {e->requests, e->chain_room, e->chain_free, (void *)e->shortest, e->parts,
                      e->copies, e->tokens, e->seq_start, e->reads, e->rows};
    for (size_t i = 0; i < OPD_COUNTOF(blocks); i++) opd_mem_free(e->o.alloc, blocks[i]);
    opd_mem_free(e->o.alloc, e);
}

/* ---- requests come and go -------------------------------------------------------------- */

/* Ids wanted of each of `rows` tokens. */
static size_t ids_width(const opd_score_ask *ask, size_t rows) {
    return ask->ids.buf != NULL ? ask->ids.size_bytes / (rows * sizeof(int32_t)) : 0;
}

static opd_err check_ids(const opd_score_engine *e, const opd_score_ask *ask, size_t rows) {
    const int32_t *ids = opd_slice_data(ask->ids);
    size_t k = ids_width(ask, rows), vocab = (size_t)e->model.vocab_size;
    if (ask->ids.buf == NULL) return OPD_OK;
    if (k == 0 || k > vocab || ask->ids.size_bytes != k * rows * sizeof(int32_t))
        return opd_fail(OPD_ERR_INVALID, "%zu bytes of ids for %zu tokens, in a vocabulary of %zu",
                        ask->ids.size_bytes, rows, vocab);
    for (size_t i = 0; i < k * rows; i++)
        if (ids[i] < 0 || (size_t)ids[i] >= vocab)
            return opd_fail(OPD_ERR_INVALID, "id %zu of those to score is %d; the vocabulary has %zu ids", i,
                            ids[i], vocab);
    return OPD_OK;
}

static opd_err check_ask(const opd_score_engine *e, const opd_score_ask *ask) {
    const int32_t *ids = opd_slice_data(ask->tokens);
    size_t count = ask->tokens.size_bytes / sizeof(int32_t);
    if (count < 2 || count > e->o.max_len)
        return opd_fail(OPD_ERR_INVALID, "%zu tokens to score; from 2 to %u are possible", count,
                        e->o.max_len);
    if (ask->start >= count - 1)
        return opd_fail(OPD_ERR_INVALID, "start %u leaves none of %zu tokens to score", ask->start,
                        count);
    if (ask->top_k > (uint32_t)e->model.vocab_size)
        return opd_fail(OPD_ERR_INVALID, "top_k %u exceeds the vocabulary of %d", ask->top_k,
                        e->model.vocab_size);
    float inverse = (float)(1.0 / ask->temperature);
    if (!(inverse > 0) || !isfinite(inverse))
        return opd_fail(OPD_ERR_INVALID, "temperature %g is not positive, or out of range",
                        ask->temperature);
    for (size_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= e->model.vocab_size)
            return opd_fail(OPD_ERR_INVALID, "token %zu is %d; the vocabulary has %d ids", i,
                            ids[i], e->model.vocab_size);
    return check_ids(e, ask, count - 1 - ask->start);
}

opd_err opd_score_engine_add(opd_score_engine *e, const opd_score_ask *ask) {
    OPD_TRY(check_ask(e, ask));
    opd_list *node = opd_list_pop_front(&e->free);
    if (node == NULL)
        return opd_fail(OPD_ERR_AGAIN, "%u requests wait for the scorer already",
                        e->o.requests_max);
    request *r = request_of(node);
    *r = (request){.ask = *ask, .order = e->order++,
                   .length = (uint32_t)(ask->tokens.size_bytes / sizeof(int32_t)) - 1};
    (void)opd_buf_retain(ask->tokens.buf);
    if (ask->ids.buf != NULL) (void)opd_buf_retain(ask->ids.buf);
    opd_list_init(&r->node);
    opd_list_push_back(&e->waiting, &r->node);
    e->waiting_count++;
    return OPD_OK;
}

static bool runs(const request *r) { return r->chain.pages != NULL; }

static void drop_answer(request *r) {
    opd_slice *slices[] = {&r->logp, &r->topk_ids, &r->topk_logp, &r->ids_logp};
    for (size_t i = 0; i < OPD_COUNTOF(slices); i++) {
        opd_buf_release(slices[i]->buf);
        *slices[i] = (opd_slice){.buf = NULL};
    }
}

/* Takes what a request runs with. */
static void stop_running(opd_score_engine *e, request *r) {
    e->running_count--;
    opd_pages_release(e->pages, &r->chain);
    e->chain_free[e->o.running_max - 1 - e->running_count] = r->chain.pages;
    r->chain.pages = NULL;
}

/* Takes the request out of its list and tells. */
static void finish(opd_score_engine *e, request *r, opd_err err, const opd_score_listener *l) {
    opd_list_remove(&r->node);
    if (runs(r)) stop_running(e, r);
    else e->waiting_count--;
    opd_score_done done = {.user = r->ask.user, .err = err, .cached = r->cached, .logp = r->logp,
                           .topk_ids = r->topk_ids, .topk_logp = r->topk_logp,
                           .ids_logp = r->ids_logp};
    l->finish(l->arg, &done);
    opd_buf_release(r->ask.tokens.buf);
    opd_buf_release(r->ask.ids.buf);
    drop_answer(r);
    opd_list_push_back(&e->free, &r->node);
}

void opd_score_engine_renew(opd_score_engine *e) {
    OPD_ASSERT(!e->planned);
    while (!opd_list_empty(&e->running)) {
        request *r = request_of(e->running.prev); /* the last first: they come before those that wait */
        opd_list_remove(&r->node);
        stop_running(e, r);
        drop_answer(r);
        r->at = r->cached = 0;
        opd_list_push_front(&e->waiting, &r->node);
        e->waiting_count++;
    }
    opd_pages_clear(e->pages);
}

void opd_score_engine_set_weights(opd_score_engine *e, const float *params) {
    opd_reader_set_weights(e->reader, params);
}

static void drop_unwanted(opd_score_engine *e, opd_list *list, const opd_score_listener *l) {
    for (opd_list *node = list->next, *next; node != list; node = next) {
        next = node->next;
        opd_err err = l->check(l->arg, request_of(node)->ask.user);
        if (err != OPD_OK) finish(e, request_of(node), err, l);
    }
}

static opd_err slice_create(const opd_alloc *alloc, size_t size_bytes, opd_slice *out) {
    opd_buf *buf;
    OPD_TRY(opd_buf_create(alloc, size_bytes, &buf));
    *out = opd_slice_whole(buf);
    return OPD_OK;
}

/* The buffers of the answer; finish frees them. */
static opd_err make_room(const opd_score_engine *e, request *r) {
    size_t n = r->length - r->ask.start, k = r->ask.top_k, ids = ids_width(&r->ask, n);
    OPD_TRY(slice_create(e->o.alloc, n * sizeof(float), &r->logp));
    if (ids > 0) OPD_TRY(slice_create(e->o.alloc, n * ids * sizeof(float), &r->ids_logp));
    if (k == 0) return OPD_OK;
    OPD_TRY(slice_create(e->o.alloc, n * k * sizeof(int32_t), &r->topk_ids));
    return slice_create(e->o.alloc, n * k * sizeof(float), &r->topk_logp);
}

/* Lets those that wait run, in order, as far as there are pages. */
static void admit(opd_score_engine *e, const opd_score_listener *l) {
    opd_list *node;
    while ((node = opd_list_first(&e->waiting)) != NULL && e->running_count < e->o.running_max) {
        request *r = request_of(node);
        uint32_t *room = e->chain_free[e->o.running_max - 1 - e->running_count];
        r->chain.pages = room;
        if (!opd_pages_take(e->pages, opd_slice_data(r->ask.tokens), r->length, &r->chain)) {
            r->chain.pages = NULL;
            return;
        }
        opd_list_remove(node);
        opd_list_push_back(&e->running, node);
        e->waiting_count--;
        e->running_count++;
        opd_err err = make_room(e, r);
        if (err != OPD_OK) finish(e, r, err, l);
    }
}

/* ---- the plan -------------------------------------------------------------------------- */

static uint32_t left_of(const request *r) { return r->length - r->at; }

/* Passes over what is computed already and not to be scored. */
static void skip_cached(opd_score_engine *e, request *r) {
    uint32_t filled = opd_pages_filled(e->pages, &r->chain, r->at);
    uint32_t to = filled < r->ask.start ? filled : r->ask.start;
    if (to <= r->at) return;
    r->cached += to - r->at;
    e->cached += to - r->at;
    r->at = to;
}

/* Gives the request up to `most` tokens of the step; returns how many. */
static uint32_t plan_part(opd_score_engine *e, request *r, uint32_t most) {
    uint32_t filled = opd_pages_filled(e->pages, &r->chain, r->at);
    uint32_t n = opd_pages_claim(e->pages, &r->chain, r->at, most);
    if (n == 0) return 0;
    uint32_t i = e->part_count++;
    size_t begin = e->seq_start[i];
    const int32_t *tokens = opd_slice_data(r->ask.tokens);
    memcpy(e->tokens + begin, tokens + r->at, n * sizeof *tokens);
    e->parts[i] = (part){.request = r, .from = r->at, .count = n};
    e->reads[i] = (opd_read){.pages = r->chain.pages, .past = r->at,
                             .filled = filled > r->at ? filled : r->at};
    e->seq_start[i + 1] = begin + n;
    return n;
}

static int by_left(const void *a, const void *b) {
    const request *x = *(request *const *)a, *y = *(request *const *)b;
    if (left_of(x) != left_of(y)) return left_of(x) < left_of(y) ? -1 : 1;
    return x->order < y->order ? -1 : 1;
}

/* The first one's share, then the others', the shortest first. */
static void plan_parts(opd_score_engine *e) {
    uint32_t n = 0, budget = e->step_tokens;
    uint64_t wanted = 0;
    request *first = request_of(e->running.next);
    for (opd_list *node = first->node.next; node != &e->running; node = node->next) {
        e->shortest[n++] = request_of(node);
        wanted += left_of(request_of(node));
    }
    uint32_t share = wanted < budget - budget / 2 ? budget - (uint32_t)wanted : budget / 2;
    budget -= plan_part(e, first, share);
    qsort((void *)e->shortest, n, sizeof(request *), by_left);
    for (uint32_t i = 0; i < n && budget > 0; i++) budget -= plan_part(e, e->shortest[i], budget);
}

bool opd_score_engine_plan(opd_score_engine *e, const opd_score_listener *l) {
    OPD_ASSERT(!e->planned);
    drop_unwanted(e, &e->running, l);
    drop_unwanted(e, &e->waiting, l);
    admit(e, l);
    e->part_count = e->copy_count = 0;
    e->seq_start[0] = 0;
    if (opd_list_empty(&e->running)) return false;
    opd_pages_step(e->pages);
    for (opd_list *node = e->running.next; node != &e->running; node = node->next) {
        copy *c = &e->copies[e->copy_count];
        if (opd_pages_join(e->pages, &request_of(node)->chain, &c->from, &c->to)) e->copy_count++;
    }
    for (opd_list *node = e->running.next; node != &e->running; node = node->next)
        skip_cached(e, request_of(node));
    plan_parts(e);
    OPD_ASSERT(e->part_count > 0);
    e->steps++;
    e->planned = true;
    return true;
}

/* ---- the step -------------------------------------------------------------------------- */

/* Scores the rows of one part that are asked for. */
static opd_err score_part(opd_score_engine *e, const part *p, size_t begin) {
    const request *r = p->request;
    const int32_t *tokens = opd_slice_data(r->ask.tokens);
    uint32_t start = r->ask.start, skipped = p->from < start ? start - p->from : 0;
    if (skipped >= p->count) return OPD_OK;
    uint32_t n = p->count - skipped, first = p->from + skipped;
    for (uint32_t i = 0; i < n; i++)
        e->rows[i] = (opd_score_row){.row = begin + skipped + i, .target = tokens[first + i + 1],
                                     .inverse_temperature = (float)(1.0 / r->ask.temperature)};
    size_t done = first - start, k = r->ask.top_k, ids = ids_width(&r->ask, r->length - start);
    opd_scores out = {.logp = (float *)opd_slice_data(r->logp) + done, .top_k = k, .ids_k = ids};
    if (ids > 0) {
        out.ids = (const int32_t *)opd_slice_data(r->ask.ids) + done * ids;
        out.ids_logp = (float *)opd_slice_data(r->ids_logp) + done * ids;
    }
    if (k > 0) {
        out.top_ids = (int32_t *)opd_slice_data(r->topk_ids) + done * k;
        out.top_logp = (float *)opd_slice_data(r->topk_logp) + done * k;
    }
    return opd_reader_score(e->reader, e->rows, n, &out);
}

opd_err opd_score_engine_execute(opd_score_engine *e) {
    OPD_ASSERT(e->planned);
    for (uint32_t i = 0; i < e->copy_count; i++)
        OPD_TRY(opd_reader_copy(e->reader, e->copies[i].from, e->copies[i].to));
    opd_packed packed = {.seq_count = e->part_count, .seq_start = e->seq_start,
                         .tokens = e->tokens};
    OPD_TRY(opd_reader_forward(e->reader, &packed, e->reads));
    for (uint32_t i = 0; i < e->part_count; i++)
        OPD_TRY(score_part(e, &e->parts[i], e->seq_start[i]));
    return OPD_OK;
}

void opd_score_engine_pace(opd_score_engine *e, uint64_t took_ns) {
    uint64_t tokens = e->seq_start[e->part_count], least = e->o.job_tokens / PACE;
    if (took_ns == 0) took_ns = 1;
    uint64_t fit = tokens * STEP_NS / took_ns;
    if (fit < least) fit = least < 2 ? 2 : least;
    e->step_tokens = fit < e->o.job_tokens ? (uint32_t)fit : e->o.job_tokens;
}

static void finish_all(opd_score_engine *e, opd_list *list, opd_err err,
                       const opd_score_listener *l) {
    for (opd_list *node; (node = opd_list_first(list)) != NULL;) finish(e, request_of(node), err, l);
}

void opd_score_engine_apply(opd_score_engine *e, opd_err err, const opd_score_listener *l) {
    OPD_ASSERT(e->planned);
    e->planned = false;
    if (err != OPD_OK) { /* what the pages hold is not known */
        finish_all(e, &e->running, err, l);
        opd_pages_clear(e->pages);
        return;
    }
    for (uint32_t i = 0; i < e->part_count; i++) {
        request *r = e->parts[i].request;
        r->at += e->parts[i].count;
        e->computed += e->parts[i].count;
        opd_pages_fill(e->pages, &r->chain, r->at);
    }
    for (uint32_t i = 0; i < e->part_count; i++)
        if (left_of(e->parts[i].request) == 0) finish(e, e->parts[i].request, OPD_OK, l);
}

void opd_score_engine_close(opd_score_engine *e, const opd_score_listener *l) {
    e->planned = false;
    opd_list *lists[] = {&e->running, &e->waiting};
    for (size_t i = 0; i < OPD_COUNTOF(lists); i++)
        finish_all(e, lists[i], opd_fail(OPD_ERR_CLOSED, "the scorer has ended"), l);
}

opd_score_engine_state opd_score_engine_look(const opd_score_engine *e) {
    opd_pages_state pages = opd_pages_look(e->pages);
    return (opd_score_engine_state){
        .waiting = e->waiting_count, .running = e->running_count, .computed = e->computed,
        .cached = e->cached, .step_tokens = e->step_tokens, .steps = e->steps, .pages_used = pages.used,
        .pages_kept = pages.kept, .pages_free = pages.free};
}
