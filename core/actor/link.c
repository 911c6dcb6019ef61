/* link.c - credit windows between two actors (opd/actor.h).
 *
 * Invariants:
 *  1. msgs_used counts messages sent on the link and not yet released; bytes_used is their bodies
 *     plus the attachments whose last reference is not yet released (view.c), even if
 *     their message is. Both stay within their maxima.
 *  2. While `blocked`, something is in use; the release that makes room for the refused message
 *     posts one CREDIT. (No wait for half the window: a receiver may keep messages until it
 *     sees the next one. Batches form anyway, since a turn releases many messages.)
 *  3. Links form no cycle: checked when one is opened, counting links to living actors.
 *  4. A closed link lives until its last message and its last view are released; one that the
 *     end of its sender closed also until that is freed, since on_stop may close it again.
 * Thread: the loop's. The sender owns the link; its end closes it.
 */
#include <stdio.h>
#include <string.h>

#include "core/actor/internal.h"

static opd_err deliver_credit(opd_ctx *ctx, void *state, opd_event *event) {
    opd_link *link = OPD_CONTAINER_OF(event, opd_link, credit);
    OPD__TAP(ctx->system, .kind = OPD_TAP_CREDIT, .from = link->to, .to = ctx->pid, .link = link);
    if (ctx->actor_class->on_signal == NULL) return OPD_OK;
    opd_signal signal = {.kind = OPD_SIGNAL_CREDIT, .pid = link->to, .link = link};
    return ctx->actor_class->on_signal(ctx, state, &signal);
}

/* Finds a path of links from `from` to `goal`, breadth first; visit_from leads back along it. */
static bool path_exists(opd_system *system, opd_ctx *from, opd_ctx *goal) {
    uint64_t stamp = ++system->visit_stamp;
    opd_ctx *last = from;
    from->visit_stamp = stamp;
    from->visit_from = from->visit_next = NULL;
    for (opd_ctx *at = from; at != NULL; at = at->visit_next) {
        if (at == goal) return true;
        for (opd_list *n = at->links.next; n != &at->links; n = n->next) {
            opd_link *link = OPD_CONTAINER_OF(n, opd_link, owned);
            opd_ctx *next = opd__actor_find(system, link->to);
            if (next == NULL || next->visit_stamp == stamp) continue;
            next->visit_stamp = stamp;
            next->visit_from = at;
            next->visit_next = NULL;
            last->visit_next = next;
            last = next;
        }
    }
    return false;
}

/* The cycle that a link ctx -> to would close, as "to <- ... " read backwards into text. */
static opd_err fail_cycle(opd_ctx *ctx) {
    char text[OPD_ERROR_TEXT_SIZE], rest[OPD_ERROR_TEXT_SIZE];
    opd__text_copy(text, sizeof text, ctx->name);
    for (opd_ctx *at = ctx; at != NULL; at = at->visit_from) {
        if (at == ctx && at->visit_from != NULL) continue;
        memcpy(rest, text, sizeof rest);
        int length = snprintf(text, sizeof text, "%s -> ", at->name);
        if (length < 0 || (size_t)length >= sizeof text) break;
        opd__text_copy(text + length, sizeof text - (size_t)length, rest);
    }
    return opd_fail(OPD_ERR_INVALID, "links would form a cycle: %s -> %s; use requests or a slot",
                    ctx->name, text);
}

opd_err opd_link_open(opd_ctx *ctx, opd_pid to, uint32_t msgs_max, uint64_t bytes_max,
                      opd_link **out_link) {
    if (msgs_max == 0 || bytes_max == 0)
        return opd_fail(OPD_ERR_INVALID, "%s: a link needs a window of messages and bytes",
                        ctx->name);
    opd_ctx *target = opd__actor_find(ctx->system, to);
    if (target == NULL) return opd_fail(OPD_ERR_CLOSED, "%s: link to a dead actor", ctx->name);
    if (path_exists(ctx->system, target, ctx)) return fail_cycle(ctx);
    if (ctx->system->links_made == ctx->system->options.links_max)
        return opd_fail(OPD_ERR_LIMIT, "%s: all %u links are in use", ctx->name,
                        ctx->system->links_made);
    OPD__ASSERT_MAY_START(ctx);
    opd_link *link = opd_mem_get(ctx->system->options.alloc, sizeof *link);
    if (link == NULL) return opd_fail(OPD_ERR_NOMEM, "link");
    ctx->system->links_made++;
    *link = (opd_link){.sender = ctx, .to = to, .system = ctx->system, .msgs_max = msgs_max,
                       .bytes_max = bytes_max};
    link->credit.to = ctx->pid;
    link->credit.deliver = deliver_credit;
    opd_list_push_back(&ctx->links, &link->owned);
    *out_link = link;
    return OPD_OK;
}

opd_err opd_link_send(opd_ctx *ctx, opd_link *link, opd_msg *msg) {
    OPD_ASSERT(link->sender == ctx);
    opd_ctx *target = opd__actor_find(ctx->system, link->to);
    if (target == NULL) return opd__fail_closed(ctx);
    if (msg->payload_bytes > link->bytes_max)
        return opd_fail(OPD_ERR_LIMIT, "%s -> %s: a message of %llu bytes exceeds the window",
                        ctx->name, target->name, (unsigned long long)msg->payload_bytes);
    if (link->msgs_used == link->msgs_max ||
        msg->payload_bytes > link->bytes_max - link->bytes_used) {
        if (!link->blocked) link->blocked_ns = opd__clock_ns(link->system);
        link->blocked = true;
        link->refused_bytes = msg->payload_bytes;
        opd__send_refused(ctx, msg, link->to, OPD_ERR_AGAIN);
        opd_err_clear();
        return OPD_ERR_AGAIN;
    }
    if (opd__fault(ctx->system, OPD_FAULT_LINK_AGAIN, ctx)) {
        opd_event_post(ctx->system, &link->credit);
        opd__send_refused(ctx, msg, link->to, OPD_ERR_AGAIN);
        return OPD_ERR_AGAIN;
    }
    OPD_TRY(opd__views_put(link, msg));
    opd__msg_sent(ctx, msg);
    msg->link = link;
    msg->link_bytes = msg->body_size;
    link->msgs_used++;
    link->bytes_used += msg->payload_bytes;
    opd__mail_append(target, link->to, msg);
    return OPD_OK;
}

static void free_if_over(opd_link *link) {
    if (opd_list_linked(&link->owned) || link->msgs_used > 0 || link->views > 0) return;
    link->system->links_made--;
    opd_mem_free(link->system->options.alloc, link);
}

static void wake_sender(opd_link *link) {
    if (!link->blocked || link->sender == NULL) return;
    link->blocked = false;
    opd_event_post(link->system, &link->credit);
}

/* The link may be gone afterwards. */
static void credit_returned(opd_link *link) {
    bool fits = link->refused_bytes <= link->bytes_max - link->bytes_used;
    if (fits && link->msgs_used < link->msgs_max) wake_sender(link);
    free_if_over(link);
}

void opd__link_credit_return(opd_msg *msg) {
    opd_link *link = msg->link;
    OPD_ASSERT(link->msgs_used > 0 && link->bytes_used >= msg->link_bytes);
    msg->link = NULL;
    link->msgs_used--;
    link->bytes_used -= msg->link_bytes;
    credit_returned(link);
}

void opd__link_view_gone(opd_link *link, uint64_t bytes) {
    OPD_ASSERT(link->views > 0 && link->bytes_used >= bytes);
    link->views--;
    link->bytes_used -= bytes;
    OPD__TAP(link->system, .kind = OPD_TAP_FREED, .to = link->to, .link = link, .bytes = bytes);
    credit_returned(link);
}

/* Nothing is sent on it any more. */
static void shut(opd_link *link) {
    opd_event_cancel(&link->credit);
    link->blocked = false;
    link->sender = NULL;
}

void opd_link_close(opd_link *link) {
    if (link == NULL) return;
    OPD_ASSERT(opd_list_linked(&link->owned)); /* closed twice */
    shut(link);
    opd_list_remove(&link->owned);
    free_if_over(link);
}

void opd__links_close(opd_ctx *ctx) {
    for (opd_list *n = ctx->links.next; n != &ctx->links; n = n->next)
        shut(OPD_CONTAINER_OF(n, opd_link, owned));
}

void opd__links_free(opd_ctx *ctx) {
    while (!opd_list_empty(&ctx->links))
        opd_link_close(OPD_CONTAINER_OF(ctx->links.next, opd_link, owned));
}

void opd__links_wake(opd_ctx *dead) {
    const opd_list *actors = &dead->system->actors;
    for (opd_list *a = actors->next; a != actors; a = a->next) {
        opd_ctx *ctx = OPD_CONTAINER_OF(a, opd_ctx, spawned);
        for (opd_list *n = ctx->links.next; n != &ctx->links; n = n->next) {
            opd_link *link = OPD_CONTAINER_OF(n, opd_link, owned);
            if (link->to == dead->pid) wake_sender(link);
        }
    }
}

uint32_t opd_link_msgs_used(const opd_link *link) { return link->msgs_used; }

uint64_t opd_link_bytes_used(const opd_link *link) { return link->bytes_used; }
