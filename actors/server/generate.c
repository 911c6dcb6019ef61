/* generate.c - POST /generate and /health: HTTP requests as requests to scorer and rollout
 * (server_inside.h).
 *
 * A visit has a part for each sequence, a part up to two requests. All are sent at once; the
 * first failure cancels the others; with the last reply the answer is written (answer.c).
 *
 * Thread: the loop. Replies are kept until the answer is written.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "actors/rollout/engine.h"
#include "actors/server/server_inside.h"
#include "core/base/check.h"

enum {
    HEALTH_MS = 20000,
    /* of a triple [log-prob, id, null] in decimal, in a text that doubles as it grows; see cost_of */
    TRIPLE_BYTES = 2 * 48
};

static const double GREEDY_BELOW = 1e-6; /* SGLang's bound */

static bool generates(const opd__part *part) { return part->ask->max_new_tokens > 0; }

size_t opd__input_start(const opd__part *part) {
    const opd_sglang_ask *q = part->ask;
    if (!q->return_logprob || q->logprob_start < 0) return part->count;
    size_t start = (size_t)q->logprob_start;
    return start > part->count ? part->count : start;
}

/* ---- failures ---- */

static int status_of(opd_err err) {
    switch (err) {
    case OPD_ERR_INVALID:
    case OPD_ERR_PARSE:
    case OPD_ERR_UNSUPPORTED: return 400;
    case OPD_ERR_AGAIN:
    case OPD_ERR_LIMIT:
    case OPD_ERR_CLOSED:
    case OPD_ERR_TIMEOUT:
    case OPD_ERR_CANCELLED: return 503;
    default: return 500;
    }
}

void opd__generate_cancel(opd__visit *visit) {
    for (size_t i = 0; i < visit->part_count; i++) {
        opd__part *part = &visit->parts[i];
        if (part->score_id != 0) opd_request_cancel(visit->server->ctx, part->score_id);
        if (part->generate_id != 0) opd_request_cancel(visit->server->ctx, part->generate_id);
    }
    if (visit->writing.submitted) opd_job_cancel(&visit->writing);
}

/* The first failure of a visit: its text is this thread's context. */
static void fail(opd__visit *visit, opd_err err) {
    if (visit->err != OPD_OK) return;
    visit->err = err;
    const char *text = opd_err_context();
    (void)snprintf(visit->text, sizeof visit->text, "%s", text[0] ? text : opd_err_text(err));
    opd__generate_cancel(visit);
}

/* Answers when nothing is outstanding. */
static void settle(opd__visit *visit) {
    if (visit->outstanding > 0) return;
    if (visit->err != OPD_OK) {
        opd__visit_refuse(visit, status_of(visit->err), visit->text);
    } else if (visit->health) {
        opd_str none;
        opd_str_init(&none, visit->alloc, 1);
        opd__visit_respond(visit, 200, &none);
    } else {
        opd__answer_begin(visit);
    }
}

/* ---- requests and replies ---- */

static void keep(opd_ctx *ctx, opd__part *part, opd_err err, opd_msg *reply, opd_message_kind kind,
                 void *fields, opd_msg **out_msg) {
    opd__visit *visit = part->visit;
    visit->outstanding--;
    if (err == OPD_OK) err = opd_message_read(reply, kind, fields);
    if (err == OPD_OK) {
        opd_msg_take(ctx, reply);
        *out_msg = reply;
    } else if (!(part->aborted && err == OPD_ERR_CANCELLED)) {
        fail(visit, err);
    }
}

static opd_err on_scored(opd_ctx *ctx, void *state, void *arg, opd_err err, opd_msg *reply) {
    opd__part *part = arg;
    (void)state;
    part->score_id = 0;
    keep(ctx, part, err, reply, OPD_MESSAGE_SCORED, &part->score, &part->scored);
    settle(part->visit);
    return OPD_OK;
}

static opd_err on_generated(opd_ctx *ctx, void *state, void *arg, opd_err err, opd_msg *reply) {
    opd__part *part = arg;
    (void)state;
    part->generate_id = 0;
    keep(ctx, part, err, reply, OPD_MESSAGE_GENERATED, &part->generation, &part->generated);
    settle(part->visit);
    return OPD_OK;
}

/* Asks an actor; its first failure is the visit's. */
static void ask(opd__part *part, opd_pid to, opd_message_kind kind, const void *fields,
                uint64_t deadline_ns, opd_reply_fn reply_fn, uint64_t *out_id) {
    opd__visit *visit = part->visit;
    opd_err err = opd_message_request(visit->server->ctx, to, kind, fields, deadline_ns, reply_fn,
                                      part, out_id);
    if (err == OPD_OK)
        visit->outstanding++;
    else
        fail(visit, err == OPD_ERR_AGAIN ? opd_fail(err, "the queue is full, try again") : err);
}

static void ask_score(opd__part *part, opd_slice tokens, uint64_t deadline_ns) {
    const opd__visit *visit = part->visit;
    const opd_sglang_ask *q = part->ask;
    bool plain = generates(part) || q->temperature < GREEDY_BELOW || visit->health;
    opd_score_fields fields = {.tokens = tokens,
                               .start = (uint32_t)(visit->health ? 0 : opd__input_start(part)),
                               .top_k = (uint32_t)q->top_logprobs,
                               .temperature = plain ? 1 : q->temperature};
    ask(part, visit->server->c.roles->scorer, OPD_MESSAGE_SCORE, &fields, deadline_ns, on_scored,
        &part->score_id);
}

static void ask_generate(opd__part *part, size_t index, opd_slice tokens) {
    const opd__visit *visit = part->visit;
    const opd_sglang_ask *q = part->ask;
    opd_generate_fields fields = {
        .tokens = tokens,
        .max_new = (uint32_t)q->max_new_tokens,
        .temperature = q->temperature < GREEDY_BELOW ? 0 : q->temperature,
        .top_p = q->top_p,
        .top_k = (uint32_t)q->top_k,
        .seed = q->seeded ? (uint64_t)q->seed : opd_random(visit->server->ctx),
        .group = index,
        .ignore_eos = q->ignore_eos};
    ask(part, visit->server->c.roles->rollout, OPD_MESSAGE_GENERATE, &fields, OPD_NO_DEADLINE,
        on_generated, &part->generate_id);
}

static void begin_part(opd__part *part, size_t index) {
    opd_slice tokens;
    size_t start = opd__input_start(part);
    opd_err err = opd_slice_copy(part->visit->alloc, part->ids, part->count * sizeof(int32_t),
                                 &tokens);
    if (err != OPD_OK) {
        fail(part->visit, err);
        return;
    }
    if (start + 1 < part->count) ask_score(part, tokens, OPD_NO_DEADLINE);
    if (generates(part) && part->visit->err == OPD_OK) ask_generate(part, index, tokens);
    opd_buf_release(tokens.buf);
}

/* ---- checks ---- */

static opd_err refuse_unsupported(const opd__part *part) {
    const opd_sglang_ask *q = part->ask;
    if (q->stop_count > 0)
        return opd_fail(OPD_ERR_UNSUPPORTED, "stop strings are not supported; use stop_token_ids");
    if (q->min_new_tokens > 0)
        return opd_fail(OPD_ERR_UNSUPPORTED, "min_new_tokens is not supported");
    if (!generates(part)) return OPD_OK;
    if (q->return_logprob && q->top_logprobs > 0)
        return opd_fail(OPD_ERR_UNSUPPORTED, "top_logprobs_num is supported with max_new_tokens 0 "
                                             "only");
    if (part->visit->server->c.roles->rollout == OPD_PID_NOBODY)
        return opd_fail(OPD_ERR_UNSUPPORTED, "this server only scores: set max_new_tokens to 0");
    return OPD_OK;
}

/* The ids of a sequence, of its text where it has one. */
static opd_err part_ids(opd__part *part, opd_sglang_item *item, const opd_sglang_limits *limits) {
    const opd__visit *visit = part->visit;
    part->ids = item->ids;
    part->count = item->count;
    if (item->ids != NULL) return OPD_OK;
    if (item->text_size_bytes == 0) return opd_fail(OPD_ERR_INVALID, "the text is empty");
    item->ids = opd_mem_get(visit->alloc, item->text_size_bytes * sizeof(int32_t));
    if (item->ids == NULL) return opd_fail(OPD_ERR_NOMEM, "no memory for the ids of a text");
    part->ids = item->ids;
    OPD_TRY(opd_tokenizer_encode(visit->server->c.tokenizer, item->text, item->text_size_bytes,
                                 true, item->ids, item->text_size_bytes, &part->count));
    return opd_sglang_length_check(limits, part->ask, part->count);
}

/* max_position tokens can be scored; SGLang's rule is one less than the context. */
static opd_sglang_limits limits_of(const opd__server *server) {
    return (opd_sglang_limits){.vocab_size = server->c.model->vocab_size,
                               .context_size = server->c.model->max_position + 1,
                               .tokenizer = server->c.tokenizer != NULL};
}

static opd_err read_request(opd__visit *visit) {
    opd_sglang_limits limits = limits_of(visit->server);
    OPD_TRY(opd_sglang_generate_read(opd_http_exchange_body(visit->exchange),
                                     opd_http_exchange_body_size(visit->exchange), &limits,
                                     visit->alloc, &visit->request));
    size_t count = visit->request.item_count;
    visit->parts = opd_mem_get(visit->alloc, count * sizeof *visit->parts);
    if (visit->parts == NULL) return opd_fail(OPD_ERR_NOMEM, "no memory for %zu sequences", count);
    visit->part_count = count;
    for (size_t i = 0; i < count; i++) {
        char *rid = visit->request.items[i].rid;
        if (rid[0] == '\0')
            (void)snprintf(rid, OPD_SGLANG_NAME_SIZE, "%016" PRIx64, opd_random(visit->server->ctx));
        visit->parts[i].visit = visit;
        visit->parts[i].ask = &visit->request.items[i].ask;
        OPD_TRY(refuse_unsupported(&visit->parts[i]));
        OPD_TRY(part_ids(&visit->parts[i], &visit->request.items[i], &limits));
    }
    return OPD_OK;
}

/* ---- admission ---- */

/* The most that a visit takes besides its body: ids and their copy; replies of the actors and the
 * answer's arrays, each a score and k alternatives for a row; the answer's text. */
static uint64_t cost_of(const opd__visit *visit) {
    uint64_t bytes = sizeof *visit;
    for (size_t i = 0; i < visit->part_count; i++) {
        const opd__part *part = &visit->parts[i];
        uint64_t rows = part->count - opd__input_start(part), k = (uint64_t)part->ask->top_logprobs;
        bytes += sizeof *part + 4096 + part->count * 2 * sizeof(int32_t);
        bytes += rows * (2 * (1 + 2 * k) * sizeof(float) + (1 + k) * TRIPLE_BYTES);
        bytes += (uint64_t)part->ask->max_new_tokens * (4 * sizeof(float) + 2 * TRIPLE_BYTES);
    }
    return bytes;
}

/* Whether a sequence of this rid is under way in another visit. */
static bool rid_in_use(const opd__visit *visit, const char *rid) {
    const opd_list *visits = &visit->server->visits;
    for (const opd_list *n = visits->next; n != visits; n = n->next) {
        const opd__visit *other = OPD_CONTAINER_OF(n, const opd__visit, node);
        if (other == visit || other->health) continue;
        for (size_t i = 0; i < other->part_count; i++)
            if (strcmp(other->request.items[i].rid, rid) == 0) return true;
    }
    return false;
}

/* Counts the visit in. Errors: INVALID (a rid in use, more work than all may be), AGAIN. */
static opd_err admit(opd__visit *visit) {
    opd__server *server = visit->server;
    for (size_t i = 0; i < visit->part_count; i++)
        if (rid_in_use(visit, visit->request.items[i].rid))
            return opd_fail(OPD_ERR_INVALID, "Duplicate request ID: %s",
                            visit->request.items[i].rid);
    visit->cost_bytes = cost_of(visit);
    if (visit->cost_bytes > server->c.max_work_bytes)
        return opd_fail(OPD_ERR_INVALID, "the request and its answer may take %" PRIu64 " bytes; this "
                        "server allows %" PRIu64 " for all. Ask for fewer sequences or alternatives",
                        visit->cost_bytes, server->c.max_work_bytes);
    if (visit->cost_bytes > server->c.max_work_bytes - server->work_bytes)
        return opd_fail(OPD_ERR_AGAIN, "The request queue is full.");
    server->work_bytes += visit->cost_bytes;
    server->queued++;
    visit->queued = true;
    return OPD_OK;
}

void opd__generate_begin(opd__visit *visit) {
    if (visit->server->queued >= visit->server->c.max_queue) {
        opd__visit_refuse(visit, 503, "The request queue is full.");
        return;
    }
    opd_err err = read_request(visit);
    if (err == OPD_OK) err = admit(visit);
    if (err != OPD_OK) {
        int status = status_of(err);
        opd__visit_refuse_as(visit, status, opd_err_context(), err == OPD_ERR_PARSE,
                             status == 503 ? 1 : 0);
        return;
    }
    for (size_t i = 0; i < visit->part_count && visit->err == OPD_OK; i++)
        begin_part(&visit->parts[i], i);
    settle(visit);
}

void opd__health_begin(opd__visit *visit) {
    static const opd_sglang_ask nothing = {.logprob_start = -1};
    opd__server *server = visit->server;
    int32_t ids[2] = {server->c.model->bos_id, server->c.model->eos_id};
    opd_slice tokens;
    for (size_t i = 0; i < OPD_COUNTOF(ids); i++)
        if (ids[i] < 0 || ids[i] >= server->c.model->vocab_size) ids[i] = 0;
    visit->health = true;
    visit->parts = opd_mem_get(visit->alloc, sizeof *visit->parts);
    if (visit->parts == NULL || opd_slice_copy(visit->alloc, ids, sizeof ids, &tokens) != OPD_OK) {
        opd__visit_refuse(visit, 503, "no memory");
        return;
    }
    visit->part_count = 1;
    visit->parts[0].visit = visit;
    visit->parts[0].ask = &nothing;
    ask_score(&visit->parts[0], tokens, opd_deadline_in(server->ctx, HEALTH_MS));
    opd_buf_release(tokens.buf);
    settle(visit);
}

bool opd__generate_abort(opd__visit *visit, const char *rid) {
    bool found = false;
    if (visit->health || visit->writing.submitted) return false; /* done, but for the words */
    for (size_t i = 0; i < visit->part_count; i++) {
        opd__part *part = &visit->parts[i];
        if (rid != NULL && strcmp(visit->request.items[i].rid, rid) != 0) continue;
        part->aborted = found = true;
        if (part->score_id != 0) opd_request_cancel(visit->server->ctx, part->score_id);
        if (part->generate_id != 0) opd_request_cancel(visit->server->ctx, part->generate_id);
        if (rid != NULL) break;
    }
    return found;
}

void opd__generate_fini(opd__visit *visit) {
    if (visit->queued) {
        visit->server->queued--;
        visit->server->work_bytes -= visit->cost_bytes;
    }
    for (size_t i = 0; i < visit->part_count; i++) {
        opd_msg_release(visit->parts[i].scored);
        opd_msg_release(visit->parts[i].generated);
    }
    opd_str_fini(&visit->answer);
    opd_mem_free(visit->alloc, visit->parts);
    opd_sglang_generate_fini(&visit->request);
}
