/* dump.c - the live topology as lines of text, and the heartbeat (opd/diagnosis.h).
 *
 * Reads everything, changes nothing, allocates nothing: it may run while memory is short or an
 * actor is half-way through a callback. Thread: the loop's, but opd_heartbeat_read (any).
 */
#include <string.h>

#include "core/actor/line.h"
#include "opd/dead.h"

static uint64_t age_of(const opd_system *system, uint64_t since_ns) {
    uint64_t now = opd__clock_ns(system);
    return now > since_ns ? now - since_ns : 0;
}

static void add_histogram(opd__line *line, const char *what, const opd_histogram *h) {
    opd__line_add(line, "%s p50 ", what);
    opd__line_time(line, opd_histogram_quantile(h, 0.5));
    opd__line_add(line, ", p99 ");
    opd__line_time(line, opd_histogram_quantile(h, 0.99));
    opd__line_add(line, ", max ");
    opd__line_time(line, h->max);
}

/* ---- one actor ------------------------------------------------------------------------- */

static bool is_held_by(const opd_msg *msg, const void *ctx) { return msg->holder == ctx; }

static void dump_links(const opd_ctx *ctx, opd_line_fn out, void *arg) {
    for (const opd_list *n = ctx->links.next; n != &ctx->links; n = n->next) {
        const opd_link *link = OPD_CONTAINER_OF(n, opd_link, owned);
        opd__line line = {.used = 0};
        opd__line_add(&line, "  link to ");
        opd__line_pid(&line, ctx->system, link->to);
        opd__line_add(&line, ": %u of %u messages, %llu of %llu bytes", link->msgs_used,
                      link->msgs_max, (unsigned long long)link->bytes_used,
                      (unsigned long long)link->bytes_max);
        if (link->blocked) {
            opd__line_add(&line, ", BLOCKED for ");
            opd__line_time(&line, age_of(ctx->system, link->blocked_ns));
        }
        if (link->msgs_used > 0 || link->views > 0) {
            opd__line_add(&line, "; on it ");
            opd__line_link(&line, link);
        }
        opd__line_end(&line, out, arg);
    }
}

static void dump_requests(const opd_ctx *ctx, opd_line_fn out, void *arg) {
    for (uint32_t i = 0; ctx->pending != NULL && i < opd__requests_max(ctx); i++) {
        const opd__pending *entry = &ctx->pending[i];
        if (entry->state == PENDING_FREE) continue;
        opd__line line = {.used = 0};
        opd__line_add(&line, "  request ");
        opd__line_kind(&line, ctx->system, entry->kind);
        opd__line_add(&line, " to ");
        opd__line_pid(&line, ctx->system, entry->to);
        opd__line_add(&line, ": asked ");
        opd__line_time(&line, age_of(ctx->system, entry->asked_ns));
        opd__line_add(&line, " ago");
        if (opd_heap_contains(&entry->timer.heap)) {
            uint64_t at_ns = entry->timer.heap.key, now = opd__clock_ns(ctx->system);
            opd__line_add(&line, ", deadline in ");
            opd__line_time(&line, at_ns > now ? at_ns - now : 0);
        }
        opd__line_end(&line, out, arg);
    }
}

static void dump_jobs(const opd_ctx *ctx, opd_line_fn out, void *arg) {
    for (const opd_list *n = ctx->jobs.next; n != &ctx->jobs; n = n->next) {
        const opd_job *job = OPD_CONTAINER_OF(n, opd_job, owned);
        opd__line line = {.used = 0};
        opd__line_add(&line, "  job on lane %s, submitted ", job->lane->name);
        opd__line_time(&line, age_of(ctx->system, job->submitted_ns));
        opd__line_add(&line, " ago");
        opd__line_end(&line, out, arg);
    }
}

static const char *phase_name(opd__phase phase) {
    switch (phase) {
    case PHASE_STARTING: return "starting";
    case PHASE_ALIVE: return "alive";
    case PHASE_ENDING: return "ending";
    case PHASE_ENDED: return "ended, waits for its jobs";
    }
    return "?";
}

static void dump_actor(const opd_ctx *ctx, opd_line_fn out, void *arg) {
    const opd_actor_stats *s = &ctx->stats;
    opd__line line = {.used = 0};
    opd__line_add(&line, "actor ");
    opd__line_pid(&line, ctx->system, ctx->pid);
    opd__line_add(&line, " %s%s: mailbox %u (most %u), %llu bytes", phase_name(ctx->phase),
                  ctx->exiting ? ", exits" : "", s->depth, s->depth_max,
                  (unsigned long long)s->bytes);
    if (s->held > 0) {
        opd__line_add(&line, "; in hand ");
        (void)opd__line_messages(&line, ctx->system, is_held_by, ctx);
    }
    opd__line_add(&line, "; handled %llu messages, %llu events; busy ",
                  (unsigned long long)s->messages, (unsigned long long)s->events);
    opd__line_time(&line, s->busy_ns);
    opd__line_add(&line, ", slowest ");
    opd__line_time(&line, s->slowest_ns);
    opd__line_add(&line, " (");
    opd__line_kind(&line, ctx->system, s->slowest_kind);
    opd__line_add(&line, ")");
    if (s->messages > 0) add_histogram(&line, "; mailbox wait", &s->queue_wait);
    if (s->refused > 0) opd__line_add(&line, "; refused %llu", (unsigned long long)s->refused);
    if (s->sends_refused > 0)
        opd__line_add(&line, "; was refused %llu", (unsigned long long)s->sends_refused);
    opd__line_end(&line, out, arg);
    if (opd__is_supervisor(ctx)) opd__supervisor_dump(ctx, out, arg);
    dump_links(ctx, out, arg);
    dump_requests(ctx, out, arg);
    dump_jobs(ctx, out, arg);
}

/* ---- the rest -------------------------------------------------------------------------- */

static void dump_head(const opd_system *system, opd_line_fn out, void *arg) {
    const opd_system_stats *s = &system->stats;
    opd__line line = {.used = 0};
    opd__line_add(&line, "system: %u actors, %u of %u messages in use, %zu timers%s", s->actors,
                  s->messages_in_use, system->options.messages_max, system->timers.count,
                  system->stopping ? ", stopping" : "");
    if (system->stop_current != NULL)
        opd__line_add(&line, ": waits for %s", system->stop_current->name);
    opd__line_add(&line, "; late replies %llu, leaked %llu", (unsigned long long)s->late_replies,
                  (unsigned long long)s->leaked);
    opd__line_end(&line, out, arg);
    opd__line_add(&line, "loop: %llu turns, %llu with events of other threads; ",
                  (unsigned long long)system->loop.turns, (unsigned long long)system->loop.remote);
    add_histogram(&line, "slice", &system->loop.slice);
    add_histogram(&line, "; timer lag", &system->loop.lag);
    opd__line_end(&line, out, arg);
}

static void dump_shared(const opd_system *system, opd_line_fn out, void *arg) {
    opd__line line = {.used = 0};
    for (const opd_list *n = system->lanes.next; n != &system->lanes; n = n->next) {
        const opd_lane *lane = OPD_CONTAINER_OF(n, opd_lane, node);
        opd__line_add(&line, "lane %s: %u of %u jobs", lane->name, lane->in_flight,
                      lane->queue_max);
        opd__line_end(&line, out, arg);
    }
    for (const opd_list *n = system->slot_list.next; n != &system->slot_list; n = n->next) {
        const opd_slot *slot = OPD_CONTAINER_OF(n, opd_slot, node);
        opd__line_add(&line, "slot: version %llu, %zu bytes", (unsigned long long)slot->version,
                      slot->buf == NULL ? 0 : opd_buf_size(slot->buf));
        opd__line_end(&line, out, arg);
    }
    opd_dead_count rows[OPD_DEAD_ROWS];
    size_t count = opd_dead_counts(system, rows, OPD_DEAD_ROWS);
    for (size_t i = 0; i < count; i++) {
        opd__line_add(&line, "dead letters: %llu %s, ", (unsigned long long)rows[i].count,
                      opd_dead_reason_name(rows[i].reason));
        opd__line_kind(&line, system, rows[i].kind);
        opd__line_add(&line, " to %s", rows[i].target);
        opd__line_end(&line, out, arg);
    }
}

void opd_system_dump(const opd_system *system, opd_line_fn out, void *arg) {
    dump_head(system, out, arg);
    for (const opd_list *n = system->actors.next; n != &system->actors; n = n->next)
        dump_actor(OPD_CONTAINER_OF(n, opd_ctx, spawned), out, arg);
    dump_shared(system, out, arg);
}
