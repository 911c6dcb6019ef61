/* request.c - requests and replies (opd/actor.h).
 *
 * A pending entry of the asker:
 *
 *   FREE --opd_request--> WAITING --reply arrives--> REPLIED --dispatched--> FREE
 *                            |
 *                            +--deadline, cancel, error answer--> FAILED --delivered--> FREE
 *
 * Invariants:
 *  1. reply_fn is called on the way to FREE and nowhere else: exactly once.
 *  2. Leaving WAITING stops the deadline, so a reply that arrived in time is never overtaken by
 *     its own timeout.
 *  3. An entry's generation grows with each use: answers to an earlier use are late, counted
 *     and released.
 * Thread: the loop's. Entries are freed with their actor.
 */
#include <string.h>

#include "core/actor/internal.h"

uint32_t opd__requests_max(const opd_ctx *ctx) {
    uint32_t declared = ctx->actor_class->requests_max;
    return declared == 0 ? OPD__REQUESTS : declared;
}

static uint64_t id_of(const opd_ctx *ctx, const opd__pending *entry) {
    return (uint64_t)entry->generation << 32 | (uint64_t)(entry - ctx->pending);
}

static opd__pending *find(opd_ctx *ctx, uint64_t id) {
    uint64_t index = id & UINT32_MAX;
    if (ctx->pending == NULL || index >= opd__requests_max(ctx)) return NULL;
    opd__pending *entry = &ctx->pending[index];
    return entry->generation == (uint32_t)(id >> 32) && entry->state != PENDING_FREE ? entry : NULL;
}

static void release(opd_ctx *ctx, opd__pending *entry) {
    opd_timer_stop(&entry->timer);
    entry->state = PENDING_FREE;
    entry->next_free = ctx->pending_free;
    ctx->pending_free = (uint32_t)(entry - ctx->pending) + 1;
    ctx->stats.requests_waiting--;
}

/* The request is over: its reply_fn comes next, with the trace it was made with. */
static void completed(opd_ctx *ctx, const opd__pending *entry, opd_err err) {
    ctx->trace = entry->trace;
    OPD__TAP(ctx->system, .kind = OPD_TAP_COMPLETED, .from = entry->to, .to = ctx->pid,
             .correlation = id_of(ctx, entry), .trace = entry->trace, .err = err,
             .message_kind = entry->kind);
}

/* Delivers TIMEOUT (the timer expired while WAITING) or the failure that was stored. */
static opd_err deliver_failure(opd_ctx *ctx, void *state, opd_timer *timer) {
    opd__pending *entry = OPD_CONTAINER_OF(timer, opd__pending, timer);
    opd_err err = entry->state == PENDING_FAILED ? entry->err : OPD_ERR_TIMEOUT;
    char text[OPD_ERROR_TEXT_SIZE];
    if (entry->state == PENDING_FAILED)
        memcpy(text, entry->text, sizeof text);
    else
        opd__text_copy(text, sizeof text, "no reply before the deadline");
    opd_reply_fn reply_fn = entry->reply_fn;
    void *arg = entry->arg;
    ctx->deadline_ns = entry->inherited_ns;
    completed(ctx, entry, err);
    release(ctx, entry);
    return reply_fn(ctx, state, arg, opd_fail(err, "%s", text), NULL);
}

static opd_err prepare(opd_ctx *ctx) {
    opd_system *system = ctx->system;
    uint32_t count = opd__requests_max(ctx);
    if (count > system->options.requests_max - system->requests_made)
        return opd_fail(OPD_ERR_LIMIT, "%s: its table of %u requests exceeds the system's %u",
                        ctx->name, count, system->options.requests_max);
    ctx->pending = opd_mem_get(system->options.alloc, count * sizeof *ctx->pending);
    if (ctx->pending == NULL) return opd_fail(OPD_ERR_NOMEM, "%s: request table", ctx->name);
    system->requests_made += count;
    for (uint32_t i = 0; i < count; i++) {
        opd_timer_init(&ctx->pending[i].timer, ctx, deliver_failure);
        ctx->pending[i].next_free = i + 1 < count ? i + 2 : 0;
    }
    ctx->pending_free = 1;
    return OPD_OK;
}

static opd_err acquire(opd_ctx *ctx, opd__pending **out_entry) {
    if (ctx->pending == NULL) OPD_TRY(prepare(ctx));
    if (ctx->pending_free == 0) {
        opd_err_clear();
        return OPD_ERR_AGAIN;
    }
    opd__pending *entry = &ctx->pending[ctx->pending_free - 1];
    ctx->pending_free = entry->next_free;
    entry->generation++;
    entry->state = PENDING_WAITING;
    entry->inherited_ns = ctx->deadline_ns;
    ctx->stats.requests_waiting++;
    *out_entry = entry;
    return OPD_OK;
}

/* Ends a WAITING entry with err, later. */
static void fail_entry(opd_ctx *ctx, opd__pending *entry, opd_err err, const char *text) {
    opd_timer_stop(&entry->timer);
    entry->state = PENDING_FAILED;
    entry->err = err;
    opd__text_copy(entry->text, sizeof entry->text, text);
    opd_event_post(ctx->system, &entry->timer.event);
}

/* The deadline's timer, then the mailbox; nothing is kept on failure. */
static opd_err launch(opd_ctx *ctx, opd_ctx *target, opd_msg *msg, opd__pending *entry) {
    uint64_t deadline_ns = msg->deadline_ns;
    OPD_TRY(opd__mail_admit(target, msg));
    if (deadline_ns != OPD_NO_DEADLINE) OPD_TRY(opd_timer_start(&entry->timer, deadline_ns));
    opd__msg_sent(ctx, msg);
    msg->deadline_ns = deadline_ns;
    msg->correlation = id_of(ctx, entry);
    OPD__TAP_MSG(msg, OPD_TAP_REQUESTED, ctx->pid, target->pid, OPD_OK);
    msg->flags = OPD__MSG_REQUEST | OPD__MSG_QUOTA;
    opd__mail_append(target, entry->to, msg);
    return OPD_OK;
}

opd_err opd_request(opd_ctx *ctx, opd_pid to, opd_msg *msg, uint64_t deadline_ns,
                    opd_reply_fn reply_fn, void *arg, uint64_t *out_id) {
    OPD__ASSERT_MAY_START(ctx);
    opd__pending *entry = NULL;
    bool fault = opd__fault(ctx->system, OPD_FAULT_REQUEST_AGAIN, ctx);
    opd_err acquired = fault ? OPD_ERR_AGAIN : acquire(ctx, &entry);
    if (acquired != OPD_OK) {
        opd__send_refused(ctx, msg, to, acquired);
        return acquired;
    }
    entry->reply_fn = reply_fn;
    entry->arg = arg;
    entry->to = to;
    entry->kind = msg->kind;
    entry->trace = msg->trace;
    entry->asked_ns = opd__clock_ns(ctx->system);
    uint64_t before_ns = msg->deadline_ns;
    msg->deadline_ns = deadline_ns < ctx->deadline_ns ? deadline_ns : ctx->deadline_ns;
    opd_ctx *target = opd__actor_find(ctx->system, to);
    if (target == NULL) {
        opd__msg_sent(ctx, msg);
        msg->correlation = id_of(ctx, entry);
        OPD__TAP_MSG(msg, OPD_TAP_REQUESTED, ctx->pid, to, OPD_OK);
        opd_msg_release(msg);
        fail_entry(ctx, entry, OPD_ERR_CLOSED, "the actor asked is gone");
    } else {
        opd_err err = launch(ctx, target, msg, entry);
        if (err != OPD_OK) {
            msg->deadline_ns = before_ns;
            opd__send_refused(ctx, msg, to, err);
            release(ctx, entry);
            return err;
        }
    }
    if (out_id != NULL) *out_id = id_of(ctx, entry);
    return OPD_OK;
}

void opd_request_cancel(opd_ctx *ctx, uint64_t id) {
    opd__pending *entry = find(ctx, id);
    if (entry != NULL && entry->state == PENDING_WAITING && !entry->timer.event.queued)
        fail_entry(ctx, entry, OPD_ERR_CANCELLED, "the request was cancelled");
}

/* Who asked, if alive, and its entry if that still waits for this request's answer. */
static opd__pending *waiting_entry(const opd_msg *request, opd_ctx **out_asker) {
    opd_ctx *asker = opd__actor_find(request->system, request->from);
    *out_asker = asker;
    opd__pending *entry = asker == NULL ? NULL : find(asker, request->correlation);
    bool waits = entry != NULL && entry->state == PENDING_WAITING && !entry->timer.event.queued;
    return waits ? entry : NULL;
}

bool opd_msg_wanted(const opd_msg *msg) {
    opd_ctx *asker = NULL;
    return opd_msg_is_request(msg) && waiting_entry(msg, &asker) != NULL;
}

static void count_late(const opd_msg *request, opd_ctx *asker) {
    request->system->stats.late_replies++;
    if (asker != NULL) asker->stats.late_replies++;
}

void opd_reply(opd_ctx *ctx, opd_msg *request, opd_msg *reply) {
    OPD_ASSERT(opd_msg_is_request(request)); /* one answer for each request */
    request->flags |= OPD__MSG_ANSWERED;
    opd_ctx *asker = NULL;
    opd__pending *entry = waiting_entry(request, &asker);
    opd__msg_sent(ctx, reply);
    if (entry == NULL) {
        count_late(request, asker);
        reply->flags = OPD__MSG_REPLY;
        reply->correlation = request->correlation;
        opd__dead_letter(OPD_DEAD_LATE, reply, asker);
        opd_msg_release(reply);
        return;
    }
    opd_timer_stop(&entry->timer);
    entry->state = PENDING_REPLIED;
    reply->flags = OPD__MSG_REPLY;
    reply->correlation = request->correlation;
    OPD__TAP_MSG(reply, OPD_TAP_REPLIED, reply->from, asker->pid, OPD_OK);
    opd__mail_append(asker, request->from, reply);
}

void opd__request_answer(opd_msg *request, opd_err err, const char *text) {
    OPD_ASSERT(opd_msg_is_request(request));
    request->flags |= OPD__MSG_ANSWERED;
    opd_ctx *asker = NULL;
    opd__pending *entry = waiting_entry(request, &asker);
    OPD__TAP(request->system, .kind = OPD_TAP_REPLIED, .from = request->to, .to = request->from,
             .correlation = request->correlation, .trace = request->trace, .err = err);
    if (entry != NULL) fail_entry(asker, entry, err, text);
}

void opd__request_expired(opd_ctx *ctx, opd_msg *request) {
    opd__dead_letter(OPD_DEAD_EXPIRED, request, ctx);
    opd__request_answer(request, OPD_ERR_TIMEOUT, "it expired in the mailbox");
}

void opd_reply_error(opd_ctx *ctx, opd_msg *request, opd_err err) {
    (void)ctx;
    OPD_ASSERT(err != OPD_OK);
    opd_ctx *asker = NULL;
    if (waiting_entry(request, &asker) == NULL) count_late(request, asker);
    opd__request_answer(request, err, opd_err_context());
}

opd_err opd__reply_dispatch(opd_ctx *ctx, opd_msg *reply) {
    opd__pending *entry = find(ctx, reply->correlation);
    OPD_ASSERT(entry != NULL && entry->state == PENDING_REPLIED);
    opd_reply_fn reply_fn = entry->reply_fn;
    void *arg = entry->arg;
    ctx->deadline_ns = entry->inherited_ns;
    completed(ctx, entry, OPD_OK);
    release(ctx, entry);
    return reply_fn(ctx, ctx->state, arg, OPD_OK, reply);
}

void opd__requests_release(opd_ctx *ctx) {
    if (ctx->pending == NULL) return;
    for (uint32_t i = 0; i < opd__requests_max(ctx); i++)
        if (ctx->pending[i].state != PENDING_FREE) release(ctx, &ctx->pending[i]);
    ctx->system->requests_made -= opd__requests_max(ctx);
    opd_mem_free(ctx->system->options.alloc, ctx->pending);
    ctx->pending = NULL;
}
