/* msg.c - the envelope pool, message contents and mailboxes (opd/actor.h, internal.h).
 *
 * Invariants: an envelope in the pool has no system, no body block, no attachments, no link;
 * payload_bytes is the body plus all attachments. Thread: the loop's. The system frees the pool.
 */
#include <string.h>

#include "core/actor/internal.h"

opd_err opd_msg_create(opd_system *system, uint16_t kind, opd_msg **out_msg) {
    opd__clock_refresh(system);
    opd_msg *msg = system->pool_free;
    if (opd__fault(system, OPD_FAULT_MSG_CREATE, system->current)) return OPD_ERR_LIMIT;
    if (msg != NULL) {
        system->pool_free = msg->next;
    } else {
        if (system->pool_fresh == system->options.messages_max) return opd__pool_empty(system);
        msg = &system->pool[system->pool_fresh++];
    }
    memset(msg, 0, offsetof(opd_msg, inline_body));
    msg->system = system;
    msg->kind = kind;
    msg->deadline_ns = OPD_NO_DEADLINE;
    msg->body = msg->inline_body;
    msg->body_capacity = OPD_MSG_BODY_INLINE;
    msg->serial = ++system->serial;
    msg->since_ns = system->clock_ns;
    if (system->current != NULL) {
        msg->trace = system->current->trace;
        system->current->stats.made++;
    }
    system->stats.messages_in_use++;
    opd__msg_hold(system->current, msg);
    *out_msg = msg;
    return OPD_OK;
}

void opd_msg_release(opd_msg *msg) {
    if (msg == NULL) return;
    opd_system *system = msg->system;
    OPD_ASSERT(system != NULL); /* released twice */
    opd__msg_hold(NULL, msg);
    if ((msg->flags & (OPD__MSG_REQUEST | OPD__MSG_ANSWERED)) == OPD__MSG_REQUEST)
        opd__request_answer(msg, OPD_ERR_CLOSED, "the request was let go without an answer");
    OPD__TAP_MSG(msg, OPD_TAP_RELEASED, msg->from, msg->to, OPD_OK);
    if (msg->link != NULL) opd__link_credit_return(msg);
    if (msg->body != msg->inline_body) opd_mem_free(system->options.alloc, msg->body);
    for (unsigned i = 0; i < msg->attachment_count; i++)
        opd_buf_release(msg->attachments[i].slice.buf);
    msg->attachment_count = 0;
    msg->body = msg->inline_body;
    OPD_ASSERT(system->stats.messages_in_use > 0);
    system->stats.messages_in_use--;
    msg->system = NULL;
    msg->next = system->pool_free;
    system->pool_free = msg;
}

void opd_msg_take(opd_ctx *ctx, opd_msg *msg) {
    OPD_ASSERT(ctx->current == msg); /* only the message being handled can be taken */
    ctx->current = NULL;
}

uint16_t opd_msg_kind(const opd_msg *msg) { return msg->kind; }

opd_pid opd_msg_from(const opd_msg *msg) { return msg->from; }

bool opd_msg_is_request(const opd_msg *msg) {
    return (msg->flags & (OPD__MSG_REQUEST | OPD__MSG_ANSWERED)) == OPD__MSG_REQUEST;
}

uint64_t opd_msg_deadline_ns(const opd_msg *msg) { return msg->deadline_ns; }

uint64_t opd_msg_trace(const opd_msg *msg) { return msg->trace; }

void opd_msg_trace_set(opd_msg *msg, uint64_t trace) { msg->trace = trace; }

/* ---- contents -------------------------------------------------------------------------- */

opd_err opd_msg_body_reserve(opd_msg *msg, size_t size_bytes, void **out_bytes) {
    if (size_bytes > OPD_MSG_BODY_MAX)
        return opd_fail(OPD_ERR_LIMIT, "message body of %zu bytes, the most is %d: attach bulk",
                        size_bytes, OPD_MSG_BODY_MAX);
    if (size_bytes > msg->body_capacity) {
        uint8_t *old = msg->body == msg->inline_body ? NULL : msg->body;
        uint8_t *block = opd_mem_resize(msg->system->options.alloc, old, size_bytes);
        if (block == NULL) return opd_fail(OPD_ERR_NOMEM, "message body");
        msg->body = block;
        msg->body_capacity = (uint32_t)size_bytes;
    }
    *out_bytes = msg->body;
    return OPD_OK;
}

void opd_msg_body_commit(opd_msg *msg, size_t size_bytes) {
    OPD_ASSERT(size_bytes <= msg->body_capacity);
    msg->payload_bytes += size_bytes;
    msg->payload_bytes -= msg->body_size;
    msg->body_size = (uint32_t)size_bytes;
}

opd_err opd_msg_body_set(opd_msg *msg, const void *bytes, size_t size_bytes) {
    void *room = NULL;
    OPD_TRY(opd_msg_body_reserve(msg, size_bytes, &room));
    if (size_bytes > 0) memcpy(room, bytes, size_bytes);
    opd_msg_body_commit(msg, size_bytes);
    return OPD_OK;
}

const void *opd_msg_body(const opd_msg *msg, size_t *out_size_bytes) {
    *out_size_bytes = msg->body_size;
    return msg->body;
}

size_t opd_dtype_size(opd_dtype dtype) {
    switch (dtype) {
    case OPD_DTYPE_U8: return 1;
    case OPD_DTYPE_BF16: return 2;
    case OPD_DTYPE_I32:
    case OPD_DTYPE_U32:
    case OPD_DTYPE_F32: return 4;
    case OPD_DTYPE_I64:
    case OPD_DTYPE_U64:
    case OPD_DTYPE_F64: return 8;
    }
    return 0;
}

opd_err opd_msg_attach(opd_msg *msg, opd_slice slice, opd_dtype dtype, uint8_t ndim,
                       const uint32_t *dims, uint8_t *out_index) {
    if (msg->attachment_count == OPD_MSG_ATTACHMENTS_MAX)
        return opd_fail(OPD_ERR_LIMIT, "a message has at most %d attachments",
                        OPD_MSG_ATTACHMENTS_MAX);
    if (slice.buf == NULL || ndim < 1 || ndim > 2)
        return opd_fail(OPD_ERR_INVALID, "attachment without a buffer or with %u dimensions", ndim);
    uint32_t columns = ndim == 2 ? dims[1] : 1;
    uint64_t elements = (uint64_t)dims[0] * columns;
    size_t size = opd_buf_size(slice.buf);
    bool inside = slice.offset_bytes <= size && slice.size_bytes <= size - slice.offset_bytes;
    size_t element = opd_dtype_size(dtype);
    if (!inside || element == 0 || slice.size_bytes % element != 0 ||
        slice.size_bytes / element != elements)
        return opd_fail(OPD_ERR_INVALID, "attachment of %u x %u elements in %zu bytes", dims[0],
                        columns, slice.size_bytes);
    (void)opd_buf_retain(slice.buf);
    msg->attachments[msg->attachment_count] = (opd_attachment){
        .slice = slice, .dtype = dtype, .ndim = ndim, .dims = {dims[0], columns}};
    msg->payload_bytes += slice.size_bytes;
    if (out_index != NULL) *out_index = msg->attachment_count;
    msg->attachment_count++;
    return OPD_OK;
}

unsigned opd_msg_attachment_count(const opd_msg *msg) { return msg->attachment_count; }

const opd_attachment *opd_msg_attachment(const opd_msg *msg, unsigned index) {
    return index < msg->attachment_count ? &msg->attachments[index] : NULL;
}

/* ---- mailboxes ------------------------------------------------------------------------- */

void opd__msg_sent(opd_ctx *from, opd_msg *msg) {
    OPD_ASSERT(!opd_msg_is_request(msg)); /* a request is answered, not passed on */
    if (from != NULL && from->current == msg) from->current = NULL;
    if (msg->link != NULL) opd__link_credit_return(msg);
    opd__msg_hold(NULL, msg);
    msg->from = from == NULL ? OPD_PID_NOBODY : from->pid;
    msg->deadline_ns = OPD_NO_DEADLINE; /* of a request that it was before */
    msg->correlation = 0;
    msg->flags = 0;
}

static uint32_t msgs_max_of(const opd_ctx *ctx) {
    uint32_t declared = ctx->actor_class->mailbox_msgs_max;
    return declared == 0 ? OPD__MAILBOX_MSGS : declared;
}

static uint64_t bytes_max_of(const opd_ctx *ctx) {
    uint64_t declared = ctx->actor_class->mailbox_bytes_max;
    return declared == 0 ? OPD__MAILBOX_BYTES : declared;
}

opd_err opd__fail_closed(const opd_ctx *from) {
    return opd_fail(OPD_ERR_CLOSED, "%s: the receiver of its message is gone",
                    from == NULL ? "outside" : from->name);
}

static opd_err refuse(opd_ctx *to) {
    to->stats.refused++;
    return OPD_ERR_AGAIN;
}

opd_err opd__mail_admit(opd_ctx *to, const opd_msg *msg) {
    uint64_t bytes_max = bytes_max_of(to);
    if (msg->payload_bytes > bytes_max)
        return opd_fail(OPD_ERR_LIMIT, "%s: a message of %llu bytes exceeds its mailbox of %llu",
                        to->name, (unsigned long long)msg->payload_bytes,
                        (unsigned long long)bytes_max);
    bool fits = msg->payload_bytes <= bytes_max - to->quota_bytes;
    if (fits && to->quota_msgs < msgs_max_of(to)) return OPD_OK;
    opd_err_clear();
    return refuse(to);
}

void opd__mail_append(opd_ctx *to, opd_pid address, opd_msg *msg) {
    opd__clock_refresh(to->system);
    msg->next = NULL;
    msg->to = address;
    msg->since_ns = to->system->clock_ns;
    OPD__TAP_MSG(msg, OPD_TAP_SENT, msg->from, address, OPD_OK);
    if (to->mail_last == NULL)
        to->mail_first = msg;
    else
        to->mail_last->next = msg;
    to->mail_last = msg;
    to->stats.bytes += msg->payload_bytes;
    if (++to->stats.depth > to->stats.depth_max) to->stats.depth_max = to->stats.depth;
    if (msg->flags & OPD__MSG_QUOTA) {
        to->quota_msgs++;
        to->quota_bytes += msg->payload_bytes;
    }
    opd__actor_ready(to);
}

/* before: the message in front of msg, NULL if msg is the first. */
static void mail_unlink(opd_ctx *ctx, opd_msg *before, const opd_msg *msg) {
    if (before == NULL)
        ctx->mail_first = msg->next;
    else
        before->next = msg->next;
    if (msg->next == NULL) ctx->mail_last = before;
    ctx->stats.depth--;
    ctx->stats.bytes -= msg->payload_bytes;
    if (msg->flags & OPD__MSG_QUOTA) {
        ctx->quota_msgs--;
        ctx->quota_bytes -= msg->payload_bytes;
    }
}

opd_msg *opd__mail_take(opd_ctx *ctx) {
    opd_msg *msg = ctx->mail_first;
    if (msg == NULL) return NULL;
    mail_unlink(ctx, NULL, msg);
    opd__msg_hold(ctx, msg);
    return msg;
}

void opd__mail_drop(opd_ctx *ctx) {
    for (opd_msg *msg; (msg = opd__mail_take(ctx)) != NULL; opd_msg_release(msg))
        opd__dead_letter(OPD_DEAD_UNREAD, msg, ctx);
}

/* ---- overflow -------------------------------------------------------------------------- */

static opd_overflow policy_of(const opd_actor_class *c, uint16_t kind) {
    for (uint32_t i = 0; i < c->policy_count; i++)
        if (c->policies[i].kind == kind) return c->policies[i].overflow;
    return OPD_OVERFLOW_REJECT;
}

/* Takes the unread message of that sender and kind out of the mailbox, if there is one and
 * msg fits once it is gone. */
static void replace_older(opd_ctx *to, opd_pid from, const opd_msg *msg) {
    opd_msg *before = NULL, *old = to->mail_first;
    for (; old != NULL; before = old, old = old->next)
        if (old->kind == msg->kind && old->from == from && old->flags == OPD__MSG_QUOTA) break;
    if (old == NULL) return;
    bool fits = to->quota_bytes - old->payload_bytes + msg->payload_bytes <= bytes_max_of(to);
    if (!fits) return;
    mail_unlink(to, before, old);
    to->stats.replaced++;
    opd__dead_letter(OPD_DEAD_REPLACED, old, to);
    opd_msg_release(old);
}

/* Counted and gone; to the sender it is sent. */
static opd_err drop(opd_ctx *from, opd_ctx *target, opd_msg *msg) {
    opd__msg_sent(from, msg);
    target->stats.refused--;
    target->stats.dropped++;
    opd__dead_letter(OPD_DEAD_DROPPED, msg, target);
    opd_msg_release(msg);
    return OPD_OK;
}

static opd_err deliver(opd_system *system, opd_ctx *from, opd_pid to, opd_msg *msg) {
    opd_ctx *target = opd__actor_find(system, to);
    opd_pid from_pid = from == NULL ? OPD_PID_NOBODY : from->pid;
    opd_overflow overflow = target == NULL ? OPD_OVERFLOW_REJECT
                                           : policy_of(target->actor_class, msg->kind);
    bool fault = from != NULL && target != NULL && opd__fault(system, OPD_FAULT_SEND_AGAIN, from);
    if (overflow == OPD_OVERFLOW_KEEP_LATEST && !fault) replace_older(target, from_pid, msg);
    opd_err err = target == NULL ? opd__fail_closed(from)
                  : fault        ? refuse(target)
                                 : opd__mail_admit(target, msg);
    if (err == OPD_ERR_AGAIN && overflow == OPD_OVERFLOW_DROP) return drop(from, target, msg);
    if (err != OPD_OK) {
        opd__send_refused(from, msg, to, err);
        return err;
    }
    opd__msg_sent(from, msg);
    msg->flags = OPD__MSG_QUOTA;
    opd__mail_append(target, to, msg);
    return OPD_OK;
}

opd_err opd_send(opd_ctx *ctx, opd_pid to, opd_msg *msg) {
    return deliver(ctx->system, ctx, to, msg);
}

opd_err opd_post(opd_system *system, opd_pid to, opd_msg *msg) {
    return deliver(system, NULL, to, msg);
}
