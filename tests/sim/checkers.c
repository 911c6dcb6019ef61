/* checkers.c - see checkers.h.
 *
 * Books are maps to small blocks; each block is also in a list of its kind, by which the end
 * frees it. Bounds are read from the class of the actor and from the link's window at the
 * moment at which the record tells of them. Thread: the loop's.
 */
#include "tests/sim/checkers.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "core/actor/internal.h"
#include "core/base/map.h"

enum { RECENT = 64, RELEASED = 4096, BOOK_MAX = 1 << 22 };

/* The head of every block in a book. */
typedef struct entry {
    opd_list node;
    uint64_t key;
} entry;

typedef struct book {
    opd_map map;
    opd_list entries, spare; /* spare: blocks to use again */
    size_t block_size;
} book;

typedef struct actor_entry {
    entry head; /* key: pid */
    char name[OPD__NAME_SIZE];
    bool alive;
    uint32_t open_msgs, open_msgs_max; /* in the mailbox, by no link and no reply */
    uint64_t open_bytes, open_bytes_max;
    opd_list requests; /* it waits for */
    opd_list monitors; /* of others, on it */
    uint32_t downs_due; /* to it: those it watched have ended */
} actor_entry;

typedef struct msg_entry {
    entry head; /* key: serial */
    opd_pid from, to;
    uint64_t bytes, order, link_key;
    uint32_t link_bytes; /* of its body, charged to the link */
    bool in_mail, open;
} msg_entry;

typedef struct request_entry {
    entry head; /* key: of (asker, correlation) */
    opd_list of_asker;
    unsigned replies;
    uint64_t correlation;
    opd_pid asker;
} request_entry;

typedef struct link_entry {
    entry head; /* key: the link's address, never shown or hashed */
    opd_pid from, to;
    uint32_t in_flight;
    uint64_t bytes; /* of bodies in flight and of attachments referenced */
} link_entry;

typedef struct monitor_entry {
    entry head; /* key: the monitor's address, the same */
    opd_list of_watched;
    opd_pid watched, watcher;
    bool due; /* the watched has ended */
} monitor_entry;

typedef struct pair_entry {
    entry head; /* key: of (from, to) */
    uint64_t handled_order;
} pair_entry;

struct checkers {
    opd_system *system;
    opd_tap tap;
    book actors, msgs, requests, links, pairs, monitors;
    checkers_counts counts;
    uint64_t hash, time_ns, next_order, reply_serial;
    opd_pid busy; /* whose callback runs */
    uint64_t dead_serial; /* of the last message that nobody will handle */
    uint64_t released[RELEASED]; /* serial s was released lately: at s % RELEASED */
    bool violated;
    char violation[512];
    uint64_t records;
    opd_tap_record recent[RECENT]; /* record r is at r % RECENT */
};

/* ---- books ----------------------------------------------------------------------------- */

static void book_init(book *b, size_t block_size) {
    opd_map_init(&b->map, NULL, BOOK_MAX);
    opd_list_init(&b->entries);
    opd_list_init(&b->spare);
    b->block_size = block_size;
}

static void book_fini(book *b) {
    opd_list *lists[] = {&b->entries, &b->spare};
    for (size_t i = 0; i < 2; i++)
        for (opd_list *n; (n = opd_list_pop_front(lists[i])) != NULL;)
            free(OPD_CONTAINER_OF(n, entry, node));
    opd_map_fini(&b->map);
}

static void *book_find(book *b, uint64_t key) { return opd_map_get(&b->map, key); }

/* A zeroed new entry. A test without memory cannot go on. */
static void *book_add(book *b, uint64_t key) {
    opd_list *n = opd_list_pop_front(&b->spare);
    entry *e = n != NULL ? OPD_CONTAINER_OF(n, entry, node) : malloc(b->block_size);
    OPD_ASSERT(e != NULL);
    memset(e, 0, b->block_size);
    e->key = key;
    opd_list_init(&e->node);
    opd_list_push_back(&b->entries, &e->node);
    opd_err err = opd_map_put(&b->map, key, e);
    OPD_ASSERT(err == OPD_OK);
    return e;
}

static void *book_get(book *b, uint64_t key) {
    void *found = book_find(b, key);
    return found != NULL ? found : book_add(b, key);
}

static void book_remove(book *b, entry *e) {
    (void)opd_map_remove(&b->map, e->key);
    opd_list_remove(&e->node);
    opd_list_push_back(&b->spare, &e->node);
}

/* ---- violations ------------------------------------------------------------------------ */

void checkers_fail(checkers *c, const char *fmt, ...) {
    if (c->violated) return;
    c->violated = true;
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(c->violation, sizeof c->violation, fmt, args);
    va_end(args);
}

const char *checkers_violation(const checkers *c) { return c->violated ? c->violation : NULL; }

static const char *name_of(const checkers *c, opd_pid pid) {
    if (pid == OPD_PID_NOBODY) return "nobody";
    const actor_entry *a = opd_map_get(&c->actors.map, pid);
    return a == NULL ? "unknown" : a->name;
}

static actor_entry *alive(checkers *c, opd_pid pid, const char *what) {
    actor_entry *a = book_find(&c->actors, pid);
    if (a != NULL && a->alive) return a;
    checkers_fail(c, "%s to %s (%llx), which has ended", what, name_of(c, pid),
                  (unsigned long long)pid);
    return NULL;
}

/* ---- actors ---------------------------------------------------------------------------- */

static void on_spawned(checkers *c, const opd_tap_record *r) {
    c->counts.spawned++;
    if (book_find(&c->actors, r->to) != NULL)
        checkers_fail(c, "the pid %llx was given twice", (unsigned long long)r->to);
    actor_entry *a = book_get(&c->actors, r->to);
    const opd_ctx *ctx = opd__actor_find(c->system, r->to);
    OPD_ASSERT(ctx != NULL);
    const opd_actor_class *k = ctx->actor_class;
    (void)snprintf(a->name, sizeof a->name, "%s", r->name);
    opd_list_init(&a->requests);
    opd_list_init(&a->monitors);
    a->alive = true;
    a->open_msgs_max = k->mailbox_msgs_max == 0 ? OPD__MAILBOX_MSGS : k->mailbox_msgs_max;
    a->open_bytes_max = k->mailbox_bytes_max == 0 ? OPD__MAILBOX_BYTES : k->mailbox_bytes_max;
}

static void down_is_due(checkers *c, monitor_entry *m) {
    actor_entry *watcher = book_find(&c->actors, m->watcher);
    m->due = true;
    if (watcher != NULL) watcher->downs_due++;
}

static void on_ended(checkers *c, const opd_tap_record *r) {
    actor_entry *a = alive(c, r->to, "a second end came");
    if (a == NULL) return;
    a->alive = false;
    for (opd_list *n; (n = opd_list_pop_front(&a->requests)) != NULL;)
        book_remove(&c->requests, &OPD_CONTAINER_OF(n, request_entry, of_asker)->head);
    for (opd_list *n; (n = opd_list_pop_front(&a->monitors)) != NULL;)
        down_is_due(c, OPD_CONTAINER_OF(n, monitor_entry, of_watched));
}

/* A DOWN that is due waits among the events of the watcher. */
static void check_downs_due(checkers *c, opd_pid watcher) {
    const actor_entry *a = book_find(&c->actors, watcher);
    const opd_ctx *ctx = opd__actor_find(c->system, watcher);
    if (a == NULL || ctx == NULL || a->downs_due == 0) return;
    uint32_t queued = 0;
    for (const opd_list *n = ctx->events.next; n != &ctx->events; n = n->next) queued++;
    if (queued < a->downs_due)
        checkers_fail(c, "%s is owed a DOWN that is not on its way", a->name);
}

static void on_begin(checkers *c, const opd_tap_record *r) {
    (void)alive(c, r->to, r->kind == OPD_TAP_EVENT ? "an event was given" : "a message was given");
    if (c->busy != OPD_PID_NOBODY)
        checkers_fail(c, "%s was called while %s was at work", name_of(c, r->to),
                      name_of(c, c->busy));
    c->busy = r->to;
}

static void on_returned(checkers *c, const opd_tap_record *r) {
    if (c->busy != r->to) checkers_fail(c, "%s returned uncalled", name_of(c, r->to));
    c->busy = OPD_PID_NOBODY;
    check_downs_due(c, r->to);
}

/* ---- monitors -------------------------------------------------------------------------- */

static void on_monitored(checkers *c, const opd_tap_record *r) {
    uint64_t key = (uint64_t)(uintptr_t)r->monitor;
    actor_entry *watched = book_find(&c->actors, r->from);
    if (book_find(&c->monitors, key) != NULL)
        checkers_fail(c, "%s has two watches with one monitor", name_of(c, r->to));
    monitor_entry *m = book_get(&c->monitors, key);
    m->watched = r->from;
    m->watcher = r->to;
    opd_list_init(&m->of_watched);
    if (watched != NULL && watched->alive)
        opd_list_push_back(&watched->monitors, &m->of_watched);
    else
        down_is_due(c, m);
}

/* The end of a monitor: told, or stopped. */
static void on_unmonitored(checkers *c, const opd_tap_record *r) {
    monitor_entry *m = book_find(&c->monitors, (uint64_t)(uintptr_t)r->monitor);
    if (m == NULL || m->watched != r->from || m->watcher != r->to) {
        checkers_fail(c, "%s: a DOWN too many, or a monitor that ends twice, of %s",
                      name_of(c, r->to), name_of(c, r->from));
        return;
    }
    actor_entry *watcher = book_find(&c->actors, m->watcher);
    if (m->due && watcher != NULL) watcher->downs_due--;
    opd_list_remove(&m->of_watched);
    book_remove(&c->monitors, &m->head);
}

static void on_down(checkers *c, const opd_tap_record *r) {
    const actor_entry *dead = book_find(&c->actors, r->from);
    c->counts.downs++;
    if (dead != NULL && dead->alive)
        checkers_fail(c, "%s was told that %s is gone, which it is not", name_of(c, r->to),
                      dead->name);
    on_unmonitored(c, r);
}

/* ---- messages -------------------------------------------------------------------------- */

static void leave_mail(checkers *c, msg_entry *m) {
    if (!m->in_mail) return;
    m->in_mail = false;
    actor_entry *a = book_find(&c->actors, m->to);
    if (!m->open || a == NULL) return;
    a->open_msgs--;
    a->open_bytes -= m->bytes;
}

static void return_credit(checkers *c, msg_entry *m) {
    if (m->link_key == 0) return;
    link_entry *l = book_find(&c->links, m->link_key);
    OPD_ASSERT(l != NULL && l->in_flight > 0 && l->bytes >= m->link_bytes);
    l->in_flight--;
    l->bytes -= m->link_bytes;
    m->link_key = 0;
}

static void check_bytes(checkers *c, const link_entry *l, const opd_link *link) {
    if (link->bytes_used != l->bytes)
        checkers_fail(c, "link %s -> %s: %llu bytes in use, but %llu in flight or referenced",
                      name_of(c, l->from), name_of(c, l->to), (unsigned long long)link->bytes_used,
                      (unsigned long long)l->bytes);
}

static void take_credit(checkers *c, msg_entry *m, const opd_tap_record *r) {
    m->link_key = (uint64_t)(uintptr_t)r->link;
    link_entry *l = book_get(&c->links, m->link_key);
    l->from = r->from;
    l->to = r->to;
    l->in_flight++;
    l->bytes += r->bytes;
    m->link_bytes = r->body_bytes;
    check_bytes(c, l, r->link);
    if (r->link->msgs_used != l->in_flight)
        checkers_fail(c, "link %s -> %s: %u credits in use, but %u messages in flight",
                      name_of(c, r->from), name_of(c, r->to), r->link->msgs_used, l->in_flight);
    if (l->in_flight > r->link->msgs_max || r->link->bytes_used > r->link->bytes_max)
        checkers_fail(c, "link %s -> %s: beyond its window", name_of(c, r->from),
                      name_of(c, r->to));
}

/* The record comes before the link goes, if it does. */
static void on_freed(checkers *c, const opd_tap_record *r) {
    link_entry *l = book_find(&c->links, (uint64_t)(uintptr_t)r->link);
    if (l == NULL || l->bytes < r->bytes) {
        checkers_fail(c, "%s: %llu bytes came back to a link that did not miss them",
                      name_of(c, r->to), (unsigned long long)r->bytes);
        return;
    }
    l->bytes -= r->bytes;
    check_bytes(c, l, r->link);
}

static void check_mailbox(checkers *c, actor_entry *a, const msg_entry *m) {
    a->open_msgs++;
    a->open_bytes += m->bytes;
    if (a->open_msgs > a->open_msgs_max || a->open_bytes > a->open_bytes_max)
        checkers_fail(c, "the mailbox of %s holds %u messages of %u, %llu bytes of %llu", a->name,
                      a->open_msgs, a->open_msgs_max, (unsigned long long)a->open_bytes,
                      (unsigned long long)a->open_bytes_max);
}

static void on_sent(checkers *c, const opd_tap_record *r) {
    c->counts.sent++;
    actor_entry *a = alive(c, r->to, "a message was sent");
    msg_entry *m = book_get(&c->msgs, r->serial);
    if (m->in_mail)
        checkers_fail(c, "message %llu is in two mailboxes", (unsigned long long)r->serial);
    return_credit(c, m); /* it was passed on */
    m->from = r->from;
    m->to = r->to;
    m->bytes = r->bytes;
    m->order = ++c->next_order;
    m->in_mail = true;
    m->open = r->link == NULL && r->serial != c->reply_serial;
    if (r->link != NULL) take_credit(c, m, r);
    if (m->open && a != NULL) check_mailbox(c, a, m);
}

static void on_handled(checkers *c, const opd_tap_record *r) {
    c->counts.handled++;
    on_begin(c, r);
    msg_entry *m = book_find(&c->msgs, r->serial);
    if (m == NULL || !m->in_mail || m->to != r->to || m->from != r->from) {
        checkers_fail(c, "%s handles message %llu, which is not in its mailbox", name_of(c, r->to),
                      (unsigned long long)r->serial);
        return;
    }
    leave_mail(c, m);
    pair_entry *p = book_get(&c->pairs, opd_rng_at(0, r->from, r->to, 0));
    if (m->order <= p->handled_order)
        checkers_fail(c, "%s handles the messages of %s out of order", name_of(c, r->to),
                      name_of(c, r->from));
    p->handled_order = m->order;
}

static void on_released(checkers *c, const opd_tap_record *r) {
    uint64_t *last = &c->released[r->serial % RELEASED];
    if (*last == r->serial)
        checkers_fail(c, "message %llu was released twice", (unsigned long long)r->serial);
    *last = r->serial;
    msg_entry *m = book_find(&c->msgs, r->serial);
    if (m == NULL) return; /* never sent */
    if (m->in_mail && c->dead_serial != r->serial)
        checkers_fail(c, "message %llu was released while %s had it in its mailbox",
                      (unsigned long long)r->serial, name_of(c, m->to));
    leave_mail(c, m);
    return_credit(c, m);
    book_remove(&c->msgs, &m->head);
}

/* ---- requests -------------------------------------------------------------------------- */

static uint64_t request_key(opd_pid asker, uint64_t correlation) {
    return opd_rng_at(1, asker, correlation, 0);
}

static void on_requested(checkers *c, const opd_tap_record *r) {
    c->counts.requested++;
    actor_entry *asker = alive(c, r->from, "a request belongs");
    uint64_t key = request_key(r->from, r->correlation);
    if (asker == NULL || book_find(&c->requests, key) != NULL) {
        checkers_fail(c, "%s uses a request's id twice", name_of(c, r->from));
        return;
    }
    request_entry *q = book_add(&c->requests, key);
    q->asker = r->from;
    q->correlation = r->correlation;
    opd_list_init(&q->of_asker);
    opd_list_push_back(&asker->requests, &q->of_asker);
}

static void on_replied(checkers *c, const opd_tap_record *r) {
    c->reply_serial = r->serial;
    request_entry *q = book_find(&c->requests, request_key(r->to, r->correlation));
    if (q == NULL) { /* late: an error may be told of, a reply may not be sent */
        if (r->err == OPD_OK)
            checkers_fail(c, "%s got a reply to no request", name_of(c, r->to));
        return;
    }
    if (++q->replies > 1) checkers_fail(c, "a request of %s was answered twice", name_of(c, r->to));
}

static void on_completed(checkers *c, const opd_tap_record *r) {
    c->counts.completed++;
    request_entry *q = book_find(&c->requests, request_key(r->to, r->correlation));
    if (q == NULL) {
        checkers_fail(c, "a request of %s was completed twice", name_of(c, r->to));
        return;
    }
    if (r->err == OPD_OK && q->replies == 0)
        checkers_fail(c, "a request of %s is complete without a reply", name_of(c, r->to));
    opd_list_remove(&q->of_asker);
    book_remove(&c->requests, &q->head);
}

/* ---- the tap --------------------------------------------------------------------------- */

static void fold(checkers *c, const opd_tap_record *r) {
    uint64_t what = (uint64_t)r->kind | (uint64_t)r->message_kind << 8 | (uint64_t)r->err << 32;
    uint64_t time_ns = r->time_ns;
    c->hash = opd_rng_at(c->hash ^ what, time_ns, r->from, r->to);
    c->hash = opd_rng_at(c->hash, r->serial, r->correlation, r->bytes);
}

static void on_record(void *arg, const opd_tap_record *r) {
    checkers *c = arg;
    fold(c, r);
    if (!c->violated) c->recent[c->records++ % RECENT] = *r;
    bool job = r->kind == OPD_TAP_JOB_BEGIN || r->kind == OPD_TAP_JOB_END;
    if (!job && r->time_ns < c->time_ns) checkers_fail(c, "time goes backwards");
    if (!job) c->time_ns = r->time_ns;
    switch (r->kind) {
    case OPD_TAP_SPAWNED: on_spawned(c, r); break;
    case OPD_TAP_ENDED: on_ended(c, r); break;
    case OPD_TAP_SENT: on_sent(c, r); break;
    case OPD_TAP_REFUSED: c->counts.refused++; break;
    case OPD_TAP_HANDLED: on_handled(c, r); break;
    case OPD_TAP_EVENT: on_begin(c, r); break;
    case OPD_TAP_RETURNED: on_returned(c, r); break;
    case OPD_TAP_DEAD: c->dead_serial = r->serial; break;
    case OPD_TAP_RELEASED: on_released(c, r); break;
    case OPD_TAP_REQUESTED: on_requested(c, r); break;
    case OPD_TAP_REPLIED: on_replied(c, r); break;
    case OPD_TAP_COMPLETED: on_completed(c, r); break;
    case OPD_TAP_CREDIT: c->counts.credits++; break;
    case OPD_TAP_DOWN: on_down(c, r); break;
    case OPD_TAP_FREED: on_freed(c, r); break;
    case OPD_TAP_MONITORED: on_monitored(c, r); break;
    case OPD_TAP_UNMONITORED: on_unmonitored(c, r); break;
    default: break; /* jobs are their owners' */
    }
}

/* ---- creation and end ------------------------------------------------------------------ */

checkers *checkers_create(opd_system *system) {
    checkers *c = calloc(1, sizeof *c);
    OPD_ASSERT(c != NULL);
    c->system = system;
    book_init(&c->actors, sizeof(actor_entry));
    book_init(&c->msgs, sizeof(msg_entry));
    book_init(&c->requests, sizeof(request_entry));
    book_init(&c->links, sizeof(link_entry));
    book_init(&c->pairs, sizeof(pair_entry));
    book_init(&c->monitors, sizeof(monitor_entry));
    c->tap = (opd_tap){.record = on_record, .arg = c};
    opd_tap_add(system, &c->tap);
    return c;
}

static void check_links_at_end(checkers *c) {
    for (const opd_list *n = c->links.entries.next; n != &c->links.entries; n = n->next) {
        const link_entry *l = (const link_entry *)OPD_CONTAINER_OF(n, entry, node);
        if (l->in_flight > 0 || l->bytes > 0)
            checkers_fail(c, "link %s -> %s: %u messages and %llu bytes never came back",
                          name_of(c, l->from), name_of(c, l->to), l->in_flight,
                          (unsigned long long)l->bytes);
    }
}

void checkers_end(checkers *c) {
    opd_system_stats stats = opd_system_stats_get(c->system);
    opd_list *n = opd_list_first(&c->msgs.entries);
    if (n != NULL) {
        const msg_entry *m = (const msg_entry *)OPD_CONTAINER_OF(n, entry, node);
        checkers_fail(c, "message %llu from %s to %s was never released",
                      (unsigned long long)m->head.key, name_of(c, m->from), name_of(c, m->to));
    }
    if (stats.messages_in_use != 0)
        checkers_fail(c, "%u messages are not in the pool at the end", stats.messages_in_use);
    n = opd_list_first(&c->requests.entries);
    if (n != NULL) {
        const request_entry *q = (const request_entry *)OPD_CONTAINER_OF(n, entry, node);
        checkers_fail(c, "a request of %s was never completed", name_of(c, q->asker));
    }
    for (n = c->actors.entries.next; n != &c->actors.entries; n = n->next) {
        const actor_entry *a = (const actor_entry *)OPD_CONTAINER_OF(n, entry, node);
        if (a->alive) checkers_fail(c, "%s is still alive at the end", a->name);
    }
    n = opd_list_first(&c->monitors.entries);
    if (n != NULL) {
        const monitor_entry *m = (const monitor_entry *)OPD_CONTAINER_OF(n, entry, node);
        checkers_fail(c, "a monitor of %s on %s was neither told nor stopped",
                      name_of(c, m->watcher), name_of(c, m->watched));
    }
    check_links_at_end(c);
}

uint64_t checkers_hash(const checkers *c) { return c->hash; }

checkers_counts checkers_counts_get(const checkers *c) { return c->counts; }

void checkers_print(const checkers *c, FILE *file) {
    uint64_t count = c->records < RECENT ? c->records : RECENT;
    for (uint64_t i = c->records - count; i < c->records; i++) {
        const opd_tap_record *r = &c->recent[i % RECENT];
        char room[8];
        fprintf(file, "%12llu us  %-9s %s -> %s  kind %s", (unsigned long long)r->time_ns / 1000,
                opd_tap_kind_name(r->kind), name_of(c, r->from), name_of(c, r->to),
                opd_kind_name(c->system, r->message_kind, room, sizeof room));
        if (r->serial != 0) fprintf(file, "  #%llu", (unsigned long long)r->serial);
        if (r->correlation != 0) fprintf(file, "  id %llx", (unsigned long long)r->correlation);
        if (r->err != OPD_OK) fprintf(file, "  %s", opd_err_name(r->err));
        fprintf(file, "\n");
    }
}

void checkers_destroy(checkers *c) {
    if (c == NULL) return;
    book *books[] = {&c->actors, &c->msgs, &c->requests, &c->links, &c->pairs, &c->monitors};
    for (size_t i = 0; i < OPD_COUNTOF(books); i++) book_fini(books[i]);
    free(c);
}
