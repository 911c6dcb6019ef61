/* internal.h - the structs behind opd/actor.h, shared by the files of core/actor only.
 *
 * Life of an actor:
 *
 *   STARTING --on_start ok--> ALIVE --exit, error, kill--> ENDING --> ENDED --> (freed)
 *       |                                                    ^
 *       +------------------ on_start failed -----------------+
 *
 *   STARTING, ALIVE  the pid resolves; messages and events are queued.
 *   ENDING           opd__actor_end is at work: the pid no longer resolves, everything queued is
 *                    dropped or answered, watchers get DOWN.
 *   ENDED            waits for its jobs in flight; then on_stop, and the slot is free.
 *
 * Invariants:
 *  1. An actor is in system->ready exactly when it is ALIVE and has work, or must exit.
 *  2. msg is in exactly one of: pool, a mailbox, a handler (ctx->current), its owner's hands.
 *  3. A request message that is not ANSWERED has exactly one WAITING pending entry at most.
 *  4. Only the inbox is touched by other threads.
 *  5. A message has one holder at most: the actor whose callback made it, then the receiver
 *     from the moment it leaves the mailbox. stats.held counts them.
 *
 * Thread: the loop's.
 */
#ifndef OPD_CORE_ACTOR_INTERNAL_H
#define OPD_CORE_ACTOR_INTERNAL_H

#include "core/base/buf.h"
#include "core/base/check.h"
#include "core/base/heap.h"
#include "core/base/list.h"
#include "core/base/rng.h"
#include "opd/actor.h"
#include "opd/dead.h"
#include "opd/diagnosis.h"
#include "opd/tap.h"

enum {
    OPD__NAME_SIZE = 32,
    OPD__TURN_MSGS = 64,        /* per actor and turn */
    OPD__TURN_NS = 200 * 1000,
    OPD__SLICE_MSGS = 1024,     /* per loop iteration, then I/O is polled */
    OPD__SLICE_NS = 1000 * 1000,
    OPD__MAILBOX_MSGS = 64,
    OPD__MAILBOX_BYTES = 256 * 1024,
    OPD__REQUESTS = 256,
    OPD__BLOCK_VIEWS = 64,      /* allocated at once */
    OPD__LANES_MAX = 64
};

typedef enum opd__phase { PHASE_STARTING, PHASE_ALIVE, PHASE_ENDING, PHASE_ENDED } opd__phase;

enum {
    OPD__MSG_REQUEST = 1,  /* somebody waits for an answer ... */
    OPD__MSG_ANSWERED = 2, /* ... and got it */
    OPD__MSG_REPLY = 4,
    OPD__MSG_QUOTA = 8     /* counted in the receiver's open mailbox bounds */
};

struct opd_msg {
    opd_msg *next; /* in the pool or in a mailbox */
    opd_system *system; /* NULL in the pool */
    opd_ctx *holder;    /* counted in its stats.held; NULL: a mailbox, the pool, or nobody */
    opd_pid from, to;   /* to: nobody until it is sent */
    uint64_t serial;    /* of this use of the envelope */
    uint64_t trace;
    uint64_t since_ns; /* when it came to where it is: its maker, a mailbox, its handler */
    uint64_t deadline_ns;
    uint64_t correlation; /* the asker's pending entry */
    opd_link *link;       /* whose credits it holds: one message and link_bytes */
    uint64_t link_bytes;  /* its body when it was sent; attachments are charged by their views */
    uint64_t payload_bytes;
    uint8_t *body; /* inline_body or a block of our own */
    uint32_t body_size, body_capacity;
    uint16_t kind;
    uint8_t flags;
    uint8_t attachment_count;
    uint8_t inline_body[OPD_MSG_BODY_INLINE];
    opd_attachment attachments[OPD_MSG_ATTACHMENTS_MAX]; /* last: cold unless used */
};

struct opd_link {
    opd_ctx *sender; /* NULL once closed */
    opd_pid to;
    opd_system *system;
    opd_list owned; /* in sender->links */
    uint64_t bytes_max, bytes_used;
    uint64_t refused_bytes; /* payload of the message that was refused last */
    uint32_t msgs_max, msgs_used;
    uint32_t views; /* of attachments, not yet home */
    bool blocked; /* a send was refused since the last CREDIT */
    uint64_t blocked_ns; /* when first */
    opd_event credit;
};

/* An attachment under way on a link (view.c). */
typedef struct opd__view {
    opd_buf buf;      /* what the receiver sees */
    opd_buf *parent;  /* one reference to what the sender attached */
    opd_link *link;   /* gets `bytes` back */
    uint64_t bytes;
    opd_event event;  /* brings them home from another thread */
    struct opd__view *next_free;
} opd__view;

typedef struct opd__view_block opd__view_block;

typedef enum opd__pending_state { PENDING_FREE, PENDING_WAITING, PENDING_REPLIED, PENDING_FAILED }
    opd__pending_state;

/* A request that waits. Its timer is the deadline; its timer's event also carries failures. */
typedef struct opd__pending {
    opd_timer timer;
    opd_reply_fn reply_fn;
    void *arg;
    uint64_t inherited_ns; /* deadline in force when the request was made */
    uint64_t asked_ns;     /* when, whom, what, for which work */
    opd_pid to;
    uint64_t trace;
    uint16_t kind;
    uint32_t generation;
    uint32_t next_free; /* index + 1 */
    opd__pending_state state;
    opd_err err;
    char text[OPD_ERROR_TEXT_SIZE];
} opd__pending;

/* How a supervisor holds a child: from the making of its actor until that is freed. */
typedef struct opd__keeper {
    opd_ctx *actor; /* NULL: none is there */
    opd_event gone; /* posted when it has been freed */
} opd__keeper;

/* Where an actor's counters stood at the last opd_progress_note. */
typedef struct opd__counts {
    uint64_t messages, events, refused;
} opd__counts;

struct opd_ctx {
    /* hot */
    opd_system *system;
    opd_pid pid;
    const opd_actor_class *actor_class;
    void *state;
    opd_list ready;
    opd_list events;
    opd_msg *mail_first, *mail_last;
    opd_msg *current;      /* the message being handled, if not taken */
    uint64_t deadline_ns;  /* inherited by what the handler asks for */
    uint64_t trace;        /* of the callback at work */
    uint64_t quota_bytes;
    uint32_t quota_msgs;
    opd__phase phase;
    bool exiting;          /* ends after the current callback */
    bool stop_deferred;
    opd_actor_stats stats;
    opd__counts at_progress;
    /* cold */
    opd_list spawned; /* in system->actors, in start order */
    opd_list timers, monitors, watchers, jobs, watches, links, cleanups;
    uint32_t jobs_in_flight;
    opd__pending *pending; /* allocated with the first request */
    uint32_t pending_free; /* index + 1 of the first free entry */
    opd_rng rng;
    opd_event stop_event;
    opd_list stop_node;        /* in system->stopping_actors until the actor is freed */
    uint64_t stop_deadline_ns; /* when it is ended by force; UINT64_MAX once that was said */
    uint64_t stop_timeout_ms;
    opd_ctx *visit_from, *visit_next; /* cycle search */
    uint64_t visit_stamp;
    opd_err reason;
    char text[OPD_ERROR_TEXT_SIZE];
    char name[OPD__NAME_SIZE];
    opd__keeper *keeper; /* its supervisor's; NULL: it has none */
    char registered[OPD__NAME_SIZE]; /* name in the registry; "": none */
};

struct opd_lane {
    opd_system *system;
    opd_list node;
    opd_env_lane *env_lane;
    uint32_t queue_max, in_flight;
    char name[OPD_ENV_LANE_NAME_SIZE];
};

struct opd_slot {
    opd_system *system;
    opd_buf *buf;
    uint64_t version;
    opd_list watches;
    opd_list node; /* in system->slot_list */
};

/* Dead letters: rows by (reason, kind, target) and a ring of the last headers. */
typedef struct opd__dead {
    opd_dead_count rows[OPD_DEAD_ROWS];
    uint32_t row_count;
    uint64_t written; /* headers since the start */
    opd_dead_letter ring[OPD_DEAD_LETTERS_KEPT];
} opd__dead;

/* One envelope header of the flight recorder. */
typedef struct opd__record {
    uint64_t time_ns;
    opd_pid from, to;
    uint64_t serial, correlation, trace;
    uint32_t bytes;
    uint16_t message_kind;
    uint8_t kind, err; /* opd_tap_kind, opd_err */
} opd__record;

typedef struct opd__recorder {
    opd_tap tap;
    uint64_t count; /* ever; the newest OPD_RECORDER_RECORDS are kept */
    opd__record ring[OPD_RECORDER_RECORDS];
} opd__recorder;

typedef struct opd__stall {
    uint64_t progress_ns; /* when something got done last */
    uint64_t due_ns;      /* when silence becomes a stall; UINT64_MAX: not watched */
    uint64_t reports;
    bool stalled;         /* reported and not yet over */
} opd__stall;

struct opd_system {
    opd_env *env;
    opd_system_options options;
    uint64_t now_ns;
    uint64_t clock_ns; /* the latest reading of the clock: begin or end of a callback */
    opd_tap *taps;
    uint32_t tap_kinds; /* what any of them wants */
    uint64_t serial; /* of the newest message */
    uint64_t armed_ns; /* what the env's timer is set to */
    unsigned turn_msgs_max; /* callbacks of one actor's turn */
    opd_list ready;    /* actors with work */
    opd_list events;   /* to nobody: delivered by the loop */
    opd_heap timers;
    opd_event *inbox; /* atomic: a stack of events from other threads, newest first */

    opd_ctx **slots; /* by pid; NULL: free */
    uint32_t *generations;
    uint32_t slot_hint;
    opd_list actors; /* in start order */

    opd_msg *pool; /* messages_max envelopes in one block */
    opd_msg *pool_free;
    uint32_t pool_fresh; /* envelopes never used yet begin here */

    const void *thread_mark; /* the loop's thread, opd__thread_mark */
    opd__view *views_free;
    opd__view_block *view_blocks;
    uint32_t views_made, views_live;
    uint32_t links_made;    /* open, or closed with something under way; at most links_max */
    uint32_t requests_made; /* entries of all request tables; at most requests_max */
    uint32_t lanes_made;

    opd_list lanes;
    opd_list slot_list; /* keep-latest slots */
    opd_heartbeat heartbeat;
    opd__recorder *recorder; /* NULL: none */
    opd__stall stall;
    uint64_t visit_stamp;
    bool running, stopping;
    bool in_turn; /* now_ns and clock_ns are of this turn */
    opd__keeper *keeper;       /* a supervisor starts a child: takes the next actor made */
    opd_ctx *current;          /* whose callback runs now; NULL between callbacks */
    opd_pid transport_owner;   /* of the transport whose callback runs */
    opd_ctx *stop_current;     /* the ordered stop waits for it */
    opd_list stopping_actors;  /* those told to stop within a time */
    opd_err reason;
    char reason_text[OPD_ERROR_TEXT_SIZE];
    opd__dead dead;
    opd_system_stats stats;
    opd_loop_stats loop;
};

/* Whether a simulated env makes this site fail now; then this thread's context says why. */
static inline bool opd__fault(const opd_system *system, opd_fault site, const opd_ctx *ctx) {
    opd_env *env = system->env;
    if (env->ops->fault == NULL) return false;
    return env->ops->fault(env, site, ctx == NULL ? "" : ctx->name);
}

/* The clock, for records and ages. Between turns (callbacks of transports and signals, start-up
 * code) what the last turn read is old. */
static inline uint64_t opd__clock_ns(const opd_system *system) {
    if (__builtin_expect(system->in_turn, 1)) return system->clock_ns;
    return system->env->ops->now_ns(system->env);
}

static inline void opd__clock_refresh(opd_system *system) {
    if (__builtin_expect(system->in_turn, 1)) return;
    system->now_ns = system->clock_ns = system->env->ops->now_ns(system->env);
}

/* on_stop may start nothing: there is nobody left to end it. */
#define OPD__ASSERT_MAY_START(ctx) OPD_ASSERT((ctx)->phase != PHASE_ENDED)

/* actor.c */
opd_ctx *opd__actor_find(const opd_system *system, opd_pid pid);
void opd__actor_ready(opd_ctx *ctx);
void opd__actor_stop(opd_ctx *ctx, uint64_t timeout_ms);
unsigned opd__actor_turn(opd_ctx *ctx);   /* returns callbacks made */
void opd__actor_end(opd_ctx *ctx);        /* ctx may be gone afterwards */
void opd__actor_job_ended(opd_ctx *ctx);  /* ctx may be gone afterwards */
void opd__actor_set_reason(opd_ctx *ctx, opd_err reason, const char *text);

/* Tells what happened, if anyone listens: OPD__TAP(system, .kind = ..., ...). The record is made
 * only then, in place: a copy of it would cost more than all the rest. */
#define OPD__TAP(system_, ...)                                                                \
    do {                                                                                      \
        if (OPD__TAPPED(system_, ((const opd_tap_record){__VA_ARGS__}).kind))                 \
            opd__tap((system_), &(opd_tap_record){__VA_ARGS__});                              \
    } while (0)

/* The same for a record about a message. */
#define OPD__TAP_MSG(msg, kind, from, to, err)                            \
    do {                                                                  \
        if (OPD__TAPPED((msg)->system, kind))                             \
            opd__tap_msg((msg), (kind), (from), (to), (err));             \
    } while (0)

#define OPD__TAPPED(system_, kind_) \
    __builtin_expect(((system_)->tap_kinds & OPD_TAP_BIT(kind_)) != 0, 0)

/* tap.c */
void opd__tap(opd_system *system, opd_tap_record *record); /* sets its time, if it has none */
void opd__send_refused(opd_ctx *from, const opd_msg *msg, opd_pid to, opd_err err);
void opd__tap_msg(const opd_msg *msg, opd_tap_kind kind, opd_pid from, opd_pid to, opd_err err);

/* supervisor.c */
bool opd__is_supervisor(const opd_ctx *ctx);
void opd__supervisor_dump(const opd_ctx *ctx, opd_line_fn out, void *arg); /* its children */

/* registry.c */
opd_err opd__register(opd_ctx *ctx, const char *name) OPD_MUST_CHECK;

/* recorder.c */
opd_err opd__recorder_create(opd_system *system) OPD_MUST_CHECK;
void opd__recorder_arm(opd_system *system); /* this thread's assertions dump this system's */
void opd__recorder_destroy(opd_system *system);

/* stall.c */
void opd__stall_check(opd_system *system); /* reports when it is due */

/* system.c */
void opd__system_actor_gone(opd_system *system);
void opd__text_copy(char *out, size_t out_size, const char *text);

/* event.c */
void opd__event_deliver(opd_ctx *ctx, opd_event *event, opd_err *out_err);
void opd__events_drop(opd_ctx *ctx);
void opd__inbox_drain(opd_system *system);
void opd__timers_expire(opd_system *system);
void opd__monitors_notify(opd_ctx *ctx);
void opd__resources_release(opd_ctx *ctx); /* timers, monitors, watches, cleanups */

/* msg.c */
/* address: the pid the sender used, that of `to`. */
void opd__mail_append(opd_ctx *to, opd_pid address, opd_msg *msg);
opd_msg *opd__mail_take(opd_ctx *ctx);
void opd__mail_drop(opd_ctx *ctx);
opd_err opd__mail_admit(opd_ctx *to, const opd_msg *msg); /* AGAIN is counted as refused */
opd_err opd__fail_closed(const opd_ctx *from);
void opd__msg_sent(opd_ctx *from, opd_msg *msg); /* on its way: leaves the handler, old credit */

/* holder.c */
/* Makes ctx msg's holder; NULL: nobody. */
static inline void opd__msg_hold(opd_ctx *ctx, opd_msg *msg) {
    if (msg->holder != NULL) msg->holder->stats.held--;
    if (ctx != NULL) ctx->stats.held++;
    msg->holder = ctx;
}
opd_err opd__pool_empty(const opd_system *system);
void opd__leaks_of_actor(opd_ctx *ctx);
void opd__leaks_of_system(opd_system *system);

/* dead.c */
void opd__dead_letter(opd_dead_reason reason, const opd_msg *msg, const opd_ctx *target);

/* link.c */
void opd__link_credit_return(opd_msg *msg);
void opd__link_view_gone(opd_link *link, uint64_t bytes);
void opd__links_close(opd_ctx *ctx); /* they stay until ... */
void opd__links_free(opd_ctx *ctx);  /* ... on_stop has run */
void opd__links_wake(opd_ctx *dead); /* those blocked on links to it find it CLOSED */

/* memory.c */
opd_system_options opd__options_filled(const opd_system_options *options); /* NULL: all defaults */

/* view.c */
opd_err opd__views_put(opd_link *link, opd_msg *msg); /* nothing is changed on an error */
uint32_t opd__views_max(const opd_system_options *filled);
void opd__views_free(opd_system *system);
const void *opd__thread_mark(void);

/* request.c */
uint32_t opd__requests_max(const opd_ctx *ctx);
opd_err opd__reply_dispatch(opd_ctx *ctx, opd_msg *reply);
void opd__request_answer(opd_msg *request, opd_err err, const char *text);
void opd__request_expired(opd_ctx *ctx, opd_msg *request); /* answered TIMEOUT, unhandled */
void opd__requests_release(opd_ctx *ctx);

#endif
