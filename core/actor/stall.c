/* stall.c - why does nothing get done? One report that names the cause (opd/diagnosis.h).
 *
 * opd_progress_note notes how far every actor's counters are; when no further call comes in time,
 * the causes below are looked for in this order, and what the first finds is the cause. Others
 * that apply too follow after it.
 *
 *   a job that runs long     legitimate or stuck in a lane: either way it is what all wait for
 *   an unbounded producer    the pool is nearly used up, or somebody is refused without end
 *   a livelock               many messages or events are handled, and nothing comes of them
 *   a leak of credits        a link is blocked: who holds what was sent on it
 *   an unanswered request    who asked whom
 *   hoarding                 messages are kept, and nothing else is under way
 *
 * Thread: the loop's. Nothing is allocated.
 */
#include "core/actor/line.h"
#include "opd/log.h"

enum {
    PAIRS_MAX = 64,
    LIVELOCK_MSGS_MIN = 200, /* handled since the last progress, and ... */
    LIVELOCK_PER_S = 50,
    LIVELOCK_EVENTS_PER_S = 2000,
    REFUSED_MIN = 200,
    HOARDERS_NAMED = 5
};

/* What the finders share. */
typedef struct inquiry {
    const opd_system *system;
    uint64_t silence_ns;
    opd__line *line;
} inquiry;

void opd_progress_note(opd_system *system, uint64_t outstanding) {
    opd__stall *stall = &system->stall;
    uint64_t now = opd__clock_ns(system);
    if (stall->stalled) {
        opd__line line = {.used = 0};
        opd__line_time(&line, now - stall->progress_ns);
        OPD_LOG_WARN("things move again, after %s without progress", line.text);
    }
    stall->stalled = false;
    stall->progress_ns = now;
    bool watched = outstanding > 0 && system->options.stall_report_ms > 0;
    stall->due_ns = watched ? now + system->options.stall_report_ms * 1000000 : UINT64_MAX;
    for (opd_list *n = system->actors.next; n != &system->actors; n = n->next) {
        opd_ctx *ctx = OPD_CONTAINER_OF(n, opd_ctx, spawned);
        ctx->at_progress = (opd__counts){.messages = ctx->stats.messages,
                                         .events = ctx->stats.events,
                                         .refused = ctx->stats.sends_refused};
    }
}

uint64_t opd_stalls(const opd_system *system) { return system->stall.reports; }

static uint64_t age_of(const inquiry *q, uint64_t since_ns) {
    return q->system->clock_ns > since_ns ? q->system->clock_ns - since_ns : 0;
}

/* Old enough to have to do with the silence. */
static bool is_old(const inquiry *q, uint64_t since_ns) {
    return age_of(q, since_ns) >= q->silence_ns / 2;
}

static uint64_t per_second(const inquiry *q, uint64_t count) {
    return (uint64_t)((double)count * 1e9 / (double)(q->silence_ns + 1));
}

/* ---- jobs ------------------------------------------------------------------------------ */

static bool find_job(const inquiry *q) {
    const opd_job *oldest = NULL;
    const opd_list *actors = &q->system->actors;
    for (const opd_list *n = actors->next; n != actors; n = n->next) {
        const opd_ctx *ctx = OPD_CONTAINER_OF(n, opd_ctx, spawned);
        for (const opd_list *j = ctx->jobs.next; j != &ctx->jobs; j = j->next) {
            const opd_job *job = OPD_CONTAINER_OF(j, opd_job, owned);
            if (oldest == NULL || job->submitted_ns < oldest->submitted_ns) oldest = job;
        }
    }
    if (oldest == NULL || !is_old(q, oldest->submitted_ns)) return false;
    opd__line_add(q->line, "a job of %s is on lane %s since ", oldest->ctx->name,
                  oldest->lane->name);
    opd__line_time(q->line, age_of(q, oldest->submitted_ns));
    return true;
}

/* ---- an unbounded producer --------------------------------------------------------------- */

static bool comes_from(const opd_msg *msg, const void *arg) {
    const opd_ctx *ctx = arg;
    return msg->from == ctx->pid || (msg->from == OPD_PID_NOBODY && msg->holder == ctx);
}

static uint32_t count_from(const opd_ctx *ctx) {
    uint32_t count = 0;
    const opd_system *system = ctx->system;
    for (uint32_t i = 0; i < system->pool_fresh; i++)
        count += system->pool[i].system != NULL && comes_from(&system->pool[i], ctx);
    return count;
}

static bool find_flood(const inquiry *q) {
    const opd_system *system = q->system;
    if (system->stats.messages_in_use < system->options.messages_max / 4 * 3) return false;
    const opd_ctx *most = NULL;
    uint32_t count = 0;
    for (const opd_list *n = system->actors.next; n != &system->actors; n = n->next) {
        const opd_ctx *ctx = OPD_CONTAINER_OF(n, opd_ctx, spawned);
        uint32_t made = count_from(ctx);
        if (made <= count) continue;
        most = ctx;
        count = made;
    }
    if (most == NULL) return false;
    opd__line_add(q->line, "unbounded producer: %s made %u of the %u messages in use (pool of %u): ",
                  most->name, count, system->stats.messages_in_use, system->options.messages_max);
    (void)opd__line_messages(q->line, system, comes_from, most);
    return true;
}

/* Who refused pid most often, by the recorder; nobody if it does not know. */
static opd_pid refuser_of(const opd_system *system, opd_pid pid) {
    const opd__recorder *recorder = system->recorder;
    opd_pid last = OPD_PID_NOBODY;
    for (uint32_t i = 0; recorder != NULL && i < OPD_RECORDER_RECORDS; i++) {
        const opd__record *r = &recorder->ring[i];
        if (r->kind == OPD_TAP_REFUSED && r->from == pid) last = r->to;
    }
    return last;
}

static bool find_refused(const inquiry *q) {
    const opd_ctx *most = NULL;
    uint64_t count = 0;
    const opd_list *actors = &q->system->actors;
    for (const opd_list *n = actors->next; n != actors; n = n->next) {
        const opd_ctx *ctx = OPD_CONTAINER_OF(n, opd_ctx, spawned);
        uint64_t refused = ctx->stats.sends_refused - ctx->at_progress.refused;
        if (refused <= count) continue;
        most = ctx;
        count = refused;
    }
    if (most == NULL || count < REFUSED_MIN) return false;
    opd__line_add(q->line, "unbounded producer: %s was refused %llu times", most->name,
                  (unsigned long long)count);
    opd_pid by = refuser_of(q->system, most->pid);
    if (by == OPD_PID_NOBODY) return true;
    opd__line_add(q->line, ", by ");
    opd__line_pid(q->line, q->system, by);
    return true;
}

static bool find_producer(const inquiry *q) { return find_flood(q) || find_refused(q); }

/* ---- a livelock ------------------------------------------------------------------------ */

typedef struct pair {
    opd_pid a, b;
    uint32_t count;
    uint16_t kind_to_a, kind_to_b;
} pair;

/* The two that handled most of each other's messages among the records; false: no records. */
static bool busiest_pair(const opd__recorder *recorder, pair *out, uint64_t *out_span_ns) {
    pair pairs[PAIRS_MAX];
    uint32_t used = 0;
    uint64_t first_ns = UINT64_MAX, last_ns = 0;
    for (uint32_t i = 0; recorder != NULL && i < OPD_RECORDER_RECORDS; i++) {
        const opd__record *r = &recorder->ring[i];
        if (r->kind != OPD_TAP_HANDLED) continue; /* an unused record is SPAWNED: 0 */
        if (r->time_ns < first_ns) first_ns = r->time_ns;
        if (r->time_ns > last_ns) last_ns = r->time_ns;
        opd_pid a = r->from < r->to ? r->from : r->to, b = r->from < r->to ? r->to : r->from;
        uint32_t p = 0;
        while (p < used && (pairs[p].a != a || pairs[p].b != b)) p++;
        if (p == PAIRS_MAX) continue;
        if (p == used) pairs[used++] = (pair){.a = a, .b = b};
        pairs[p].count++;
        *(r->to == a ? &pairs[p].kind_to_a : &pairs[p].kind_to_b) = r->message_kind;
    }
    if (used == 0) return false;
    *out = pairs[0];
    for (uint32_t p = 1; p < used; p++)
        if (pairs[p].count > out->count) *out = pairs[p];
    *out_span_ns = last_ns - first_ns + 1;
    return true;
}

static bool find_livelock(const inquiry *q) {
    const opd_ctx *busiest = NULL;
    uint64_t messages = 0, events = 0, most = 0;
    const opd_list *actors = &q->system->actors;
    for (const opd_list *n = actors->next; n != actors; n = n->next) {
        const opd_ctx *ctx = OPD_CONTAINER_OF(n, opd_ctx, spawned);
        messages += ctx->stats.messages - ctx->at_progress.messages;
        uint64_t delta = ctx->stats.events - ctx->at_progress.events;
        events += delta;
        if (delta <= most) continue;
        busiest = ctx;
        most = delta;
    }
    pair p;
    uint64_t span_ns = 0;
    if (messages >= LIVELOCK_MSGS_MIN && per_second(q, messages) >= LIVELOCK_PER_S &&
        busiest_pair(q->system->recorder, &p, &span_ns)) {
        opd__line_add(q->line, "livelock: %llu messages were handled, most between ",
                      (unsigned long long)messages);
        opd__line_pid(q->line, q->system, p.a);
        opd__line_add(q->line, " (");
        opd__line_kind(q->line, q->system, p.kind_to_a);
        opd__line_add(q->line, ") and ");
        opd__line_pid(q->line, q->system, p.b);
        opd__line_add(q->line, " (");
        opd__line_kind(q->line, q->system, p.kind_to_b);
        opd__line_add(q->line, "), %llu/s", (unsigned long long)(p.count * 1e9 / (double)span_ns));
        return true;
    }
    if (busiest == NULL || per_second(q, events) < LIVELOCK_EVENTS_PER_S) return false;
    opd__line_add(q->line, "livelock: %s handles %llu timers and other events a second",
                  busiest->name, (unsigned long long)per_second(q, most));
    return true;
}

/* ---- credits, requests, hoards --------------------------------------------------------- */

static bool find_blocked_link(const inquiry *q) {
    const opd_link *oldest = NULL;
    const opd_list *actors = &q->system->actors;
    for (const opd_list *n = actors->next; n != actors; n = n->next) {
        const opd_ctx *ctx = OPD_CONTAINER_OF(n, opd_ctx, spawned);
        for (const opd_list *l = ctx->links.next; l != &ctx->links; l = l->next) {
            const opd_link *link = OPD_CONTAINER_OF(l, opd_link, owned);
            if (!link->blocked || (oldest != NULL && oldest->blocked_ns <= link->blocked_ns))
                continue;
            oldest = link;
        }
    }
    if (oldest == NULL || !is_old(q, oldest->blocked_ns)) return false;
    opd__line_add(q->line, "no credit comes back: link %s -> ", oldest->sender->name);
    opd__line_pid(q->line, q->system, oldest->to);
    opd__line_add(q->line, " is blocked for ");
    opd__line_time(q->line, age_of(q, oldest->blocked_ns));
    opd__line_add(q->line, " with %u of %u messages, %llu of %llu bytes in use, that receiver has ",
                  oldest->msgs_used, oldest->msgs_max, (unsigned long long)oldest->bytes_used,
                  (unsigned long long)oldest->bytes_max);
    opd__line_link(q->line, oldest);
    return true;
}

static bool find_request(const inquiry *q) {
    const opd_ctx *asker = NULL;
    const opd__pending *oldest = NULL;
    const opd_list *actors = &q->system->actors;
    for (const opd_list *n = actors->next; n != actors; n = n->next) {
        const opd_ctx *ctx = OPD_CONTAINER_OF(n, opd_ctx, spawned);
        for (uint32_t i = 0; ctx->pending != NULL && i < opd__requests_max(ctx); i++) {
            const opd__pending *entry = &ctx->pending[i];
            bool waits = entry->state == PENDING_WAITING;
            if (!waits || (oldest != NULL && oldest->asked_ns <= entry->asked_ns)) continue;
            oldest = entry;
            asker = ctx;
        }
    }
    if (oldest == NULL || !is_old(q, oldest->asked_ns)) return false;
    opd__line_add(q->line, "%s waits for ", asker->name);
    opd__line_pid(q->line, q->system, oldest->to);
    opd__line_add(q->line, ", which has not answered ");
    opd__line_kind(q->line, q->system, oldest->kind);
    opd__line_add(q->line, " for ");
    opd__line_time(q->line, age_of(q, oldest->asked_ns));
    return true;
}

static bool is_held_by(const opd_msg *msg, const void *ctx) { return msg->holder == ctx; }

static bool find_hoard(const inquiry *q) {
    unsigned named = 0;
    const opd_list *actors = &q->system->actors;
    for (const opd_list *n = actors->next; n != actors && named < HOARDERS_NAMED; n = n->next) {
        const opd_ctx *ctx = OPD_CONTAINER_OF(n, opd_ctx, spawned);
        if (ctx->stats.held == 0) continue;
        opd__line_add(q->line, named++ == 0 ? "%s keeps " : "; %s keeps ", ctx->name);
        (void)opd__line_messages(q->line, q->system, is_held_by, ctx);
    }
    return named > 0;
}

/* ---- the report ------------------------------------------------------------------------ */

static void report(const opd_system *system) {
    static bool (*const finders[])(const inquiry *q) = {
        find_job, find_producer, find_livelock, find_blocked_link, find_request, find_hoard};
    opd__line line = {.used = 0};
    inquiry q = {.system = system, .line = &line,
                 .silence_ns = system->clock_ns - system->stall.progress_ns};
    opd__line_add(&line, "no progress for ");
    opd__line_time(&line, q.silence_ns);
    unsigned found = 0;
    for (size_t i = 0; i < OPD_COUNTOF(finders); i++) {
        opd__line cause = {.used = 0};
        q.line = &cause;
        if (!finders[i](&q)) continue;
        opd__line_add(&line, "%s%s", found++ == 0 ? ": " : "; also: ", cause.text);
    }
    if (found == 0) opd__line_add(&line, ": every actor is idle, nothing is under way");
    OPD_LOG_WARN("%s", line.text);
}

void opd__stall_check(opd_system *system) {
    opd__stall *stall = &system->stall;
    if (system->now_ns < stall->due_ns) return;
    stall->due_ns = UINT64_MAX; /* one report; opd_progress_note watches anew */
    if (system->stopping) return; /* who is late to stop is named by the stop */
    stall->stalled = true;
    stall->reports++;
    report(system);
}
