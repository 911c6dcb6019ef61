/* opd/actor.h - actors, messages, requests, links, timers and compute jobs.
 *
 * An actor is a block of state and four callbacks. All actors of a system run on one loop
 * thread; a callback runs to completion and never blocks; heavy work is a job on a lane
 * (a compute thread). Nothing here grows without a declared bound.
 *
 * Three ways to be called, in this order of urgency:
 *   events   things that were asked for and cannot be refused: timers, finished jobs, output of
 *            transports and children, results of requests that failed, changed slots;
 *   signals  STOP, DOWN, CREDIT: events of the runtime itself, given to on_signal;
 *   messages from other actors, bounded by mailbox or link, in order per pair of actors.
 *
 * Ownership: a call that takes an object owns it only when it returns OPD_OK. The runtime
 * owns the message that a handler sees and releases it afterwards, unless the handler
 * sent it on or took it (opd_msg_take).
 *
 * Thread: the loop's, except where a function says "any thread".
 * Implemented by core/actor.
 */
#ifndef OPD_ACTOR_H
#define OPD_ACTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "opd/alloc.h"
#include "opd/buf.h"
#include "opd/env.h"
#include "opd/err.h"
#include "opd/histogram.h"
#include "opd/node.h"

#ifdef __cplusplus
extern "C" {
#endif

/* {node 16, slot 16, generation 32} bits; a dead actor's pid is CLOSED for ever, and so is, here,
 * one of another node: actors of a system have node 0. */
typedef uint64_t opd_pid;

typedef struct opd_system opd_system; /* the actors of one loop */
typedef struct opd_ctx opd_ctx;       /* one actor as its callbacks see it */
typedef struct opd_msg opd_msg;       /* a pooled envelope */
typedef struct opd_link opd_link;     /* a credit window between two actors */
typedef struct opd_lane opd_lane;     /* a compute thread */
typedef struct opd_slot opd_slot;     /* the latest version of something */
typedef struct opd_event opd_event;
typedef struct opd_timer opd_timer;
typedef struct opd_monitor opd_monitor;
typedef struct opd_job opd_job;
typedef struct opd_slot_watch opd_slot_watch;
typedef struct opd_cleanup opd_cleanup;

#define OPD_PID_NOBODY ((opd_pid)0)
#define OPD_NO_DEADLINE UINT64_MAX

enum {
    OPD_MSG_BODY_INLINE = 64,  /* bytes of a body that need no second block */
    OPD_MSG_BODY_MAX = 4096,   /* the largest body */
    OPD_MSG_ATTACHMENTS_MAX = 12,
    OPD_ERROR_TEXT_SIZE = 768  /* longest kept error text, with its NUL */
};

/* ---- system ---------------------------------------------------------------------------- */

/* 0 means the default of the comment. */
typedef struct opd_system_options {
    const opd_alloc *alloc;
    uint32_t actors_max;         /* alive or ending at once; 256 (at most 65,535) */
    uint32_t messages_max;       /* envelopes in the pool; 8,192 */
    uint32_t timers_max;         /* running timers and request deadlines; 16,384 */
    uint32_t requests_max;       /* sum of requests_max over the actors that ask; 16,384 */
    uint32_t links_max;          /* open, or closed with messages under way; 1,024 */
    uint64_t stop_timeout_ms;    /* for each actor in an ordered stop; 5,000 */
    uint64_t handler_warn_ms;    /* a slower handler is logged by name; 10 */
    const char *(*kind_name)(uint16_t kind); /* for logs and dumps; NULL: kinds are numbers */
    bool recorder;               /* keep the last envelope headers (opd/diagnosis.h), 256 KiB */
    uint64_t stall_report_ms;    /* when opd_progress_note is silent (implies recorder); 0: never */
} opd_system_options;

/* The most bytes a system of these options (NULL: the defaults) ever allocates for itself: pool,
 * bodies, views of attachments, actors, tables of requests, timers, links, lanes. Beyond it come
 * only the states of actors, payload (bounded by mailboxes and windows) and lane stacks. */
uint64_t opd_system_memory_max(const opd_system_options *options);

/* Attaches a system to env, which must outlive it; the calling thread is the loop's from now on.
 * Errors: NOMEM, INVALID. Freed by opd_system_destroy. */
opd_err opd_system_create(const opd_system_options *options, opd_env *env,
                          opd_system **out_system) OPD_MUST_CHECK;

/* Runs the loop until every actor has stopped: because opd_system_stop was called, or the last
 * actor exited. Returns the reason given to the first opd_system_stop, else OPD_OK. */
opd_err opd_system_run(opd_system *system) OPD_MUST_CHECK;

/* opd_system_run in two halves, for several systems in one simulated world (opd/sim.h): begin,
 * then let the world run, then end. opd_system_end returns what opd_system_run would; a system
 * that has not stopped by then is not running any more and may be destroyed. */
void opd_system_begin(opd_system *system);
opd_err opd_system_end(opd_system *system) OPD_MUST_CHECK;

/* Begins the ordered stop: in reverse order of start each actor gets STOP and, when it has
 * exited, the next. An actor later than stop_timeout_ms is named in the log and ended.
 * The reason (and this thread's error context) becomes opd_system_run's result; later calls
 * change nothing. */
void opd_system_stop(opd_system *system, opd_err reason);

/* Ends all actors at once without STOP (second SIGINT); jobs in flight are still waited for. */
void opd_system_kill(opd_system *system, opd_err reason);

/* Kills what is left, joins the lanes, frees everything. NULL is legal. Every message must
 * have come back to the pool: the contrary is named in the log and is an assertion. */
void opd_system_destroy(opd_system *system);

/* ---- actors ---------------------------------------------------------------------------- */

typedef enum opd_signal_kind {
    OPD_SIGNAL_STOP,   /* finish: the actor exits after this handler, unless opd_stop_defer */
    OPD_SIGNAL_DOWN,   /* a monitored actor is gone: pid, reason, text, monitor */
    OPD_SIGNAL_CREDIT  /* a link that refused a message has credit again: link */
} opd_signal_kind;

typedef struct opd_signal {
    opd_signal_kind kind;
    opd_pid pid;
    opd_err reason;
    const char *text; /* error context of the dead actor; valid during the call */
    opd_monitor *monitor;
    opd_link *link;
} opd_signal;

/* What becomes of a message when the mailbox of its receiver is full. Only for kinds sent by
 * opd_send and opd_post: requests and link traffic are never replaced or dropped. */
typedef enum opd_overflow {
    OPD_OVERFLOW_REJECT,      /* the sender gets AGAIN and keeps it */
    OPD_OVERFLOW_KEEP_LATEST, /* at most one of each sender waits: the newer one takes the unread
                                 older one's share of the mailbox, at the end of the queue */
    OPD_OVERFLOW_DROP         /* the sender gets OK, the message is counted and gone */
} opd_overflow;

typedef struct opd_kind_policy {
    uint16_t kind;
    opd_overflow overflow;
} opd_kind_policy;

/* A kind of actor; static and const. State is one zeroed block the runtime allocates.
 * A callback that returns an error fails the actor: the error and this thread's context text
 * are its reason, sent to those who monitor it. NULL callbacks are legal. */
typedef struct opd_actor_class {
    const char *name;
    size_t state_size;
    uint32_t mailbox_msgs_max;  /* messages that came by no link; 0: 64 */
    uint64_t mailbox_bytes_max; /* bodies and attachments of those; 0: 256 KiB */
    uint32_t requests_max;      /* requests waiting for their reply; 0: 256 */
    const opd_kind_policy *policies; /* for kinds that are not rejected; may be NULL */
    uint32_t policy_count;
    opd_err (*on_start)(opd_ctx *ctx, void *state, const void *config);
    opd_err (*on_message)(opd_ctx *ctx, void *state, opd_msg *msg);
    opd_err (*on_signal)(opd_ctx *ctx, void *state, const opd_signal *signal);
    /* Frees what state holds. Called exactly once, as the last callback, when no job of the
     * actor is in flight any more; also after on_start failed, so it must cope with a state
     * that is partly built (zeros are where nothing was). Must not send, nor start anything (a timer,
     * a job, ...: assertion); its links are closed already, and closing them again is legal. */
    void (*on_stop)(opd_ctx *ctx, void *state);
} opd_actor_class;

/* Starts an actor and runs its on_start before it returns; config needs to live that long
 * only. name (copied, at most 31 bytes) NULL: the class's. Errors: those of on_start, LIMIT
 * (actors_max), NOMEM, CLOSED (the system is stopping). */
opd_err opd_spawn(opd_system *system, const opd_actor_class *actor_class, const char *name,
                  const void *config, opd_pid *out_pid) OPD_MUST_CHECK;

/* Ends the calling actor after the current callback (or soon, if called outside of one), with
 * OPD_OK or a reason; this thread's context is its text. */
void opd_exit(opd_ctx *ctx, opd_err reason);

/* Asks another actor to stop, as the ordered stop does. A dead pid is fine. */
void opd_stop(opd_system *system, opd_pid pid);

/* The same with a limit, after which the actor is named in the log and ended by force (its jobs
 * in flight are still waited for). timeout_ms 0: the system's stop_timeout_ms. Of several
 * limits the earliest counts. */
void opd_stop_within(opd_system *system, opd_pid pid, uint64_t timeout_ms);

/* In the handler of STOP: do not exit yet, opd_exit will be called (within stop_timeout_ms). */
void opd_stop_defer(opd_ctx *ctx);

/* Names: an actor may be found by one name. The name is free again when the actor begins to end; a
 * supervised child has its id unless it chose another in its on_start. There are as many names
 * as actors at most, so finding one is a walk over the actors: look it up at a start or after
 * a DOWN, and keep the pid.
 *
 * Gives the calling actor its name, in place of an earlier one. name: copied, 1..31 bytes.
 * Errors: EXISTS (a living actor has it), INVALID (its length), CLOSED (the actor is ending). */
opd_err opd_register(opd_ctx *ctx, const char *name) OPD_MUST_CHECK;

/* The living actor of that name, or OPD_PID_NOBODY. */
opd_pid opd_whereis(const opd_system *system, const char *name);

/* ctx is valid from on_start to on_stop, so C callbacks (transports) may hold it. */
opd_pid opd_self(const opd_ctx *ctx);
const char *opd_self_name(const opd_ctx *ctx);
void *opd_self_state(const opd_ctx *ctx);
opd_system *opd_self_system(const opd_ctx *ctx);
bool opd_alive(const opd_system *system, opd_pid pid);

/* The loop's monotonic time in ns: read once per turn and equal for all of it; read anew by each
 * call between turns (from a transport's callback). */
uint64_t opd_now_ns(const opd_ctx *ctx);

/* 64 bits of the actor's own random sequence, seeded by the env. */
uint64_t opd_random(opd_ctx *ctx);

/* An absolute deadline: now + timeout_ms, or sooner if the request or reply being handled has
 * (or had) an earlier one. timeout_ms 0: only the inherited one. */
uint64_t opd_deadline_in(const opd_ctx *ctx, uint64_t timeout_ms);

/* ---- messages -------------------------------------------------------------------------- */

/* Little-endian elements of an attachment. */
typedef enum opd_dtype {
    OPD_DTYPE_U8,
    OPD_DTYPE_I32,
    OPD_DTYPE_U32,
    OPD_DTYPE_I64,
    OPD_DTYPE_U64,
    OPD_DTYPE_BF16,
    OPD_DTYPE_F32,
    OPD_DTYPE_F64
} opd_dtype;

/* Bytes of one element. */
size_t opd_dtype_size(opd_dtype dtype);

/* Numbers in bulk beside the body: shared by reference, never copied in-process. */
typedef struct opd_attachment {
    opd_slice slice; /* holds one reference, owned by the message */
    opd_dtype dtype;
    uint8_t ndim;     /* 1 or 2 */
    uint32_t dims[2]; /* ndim 1: {n, 1}; product * element size == slice.size_bytes */
} opd_attachment;

/* A message from the pool; kind is the receiver's business. Errors: LIMIT (the pool is empty;
 * the text names the actor that has most of it). The caller owns it until it is sent, else
 * opd_msg_release; the actor whose callback runs counts as its holder. */
opd_err opd_msg_create(opd_system *system, uint16_t kind, opd_msg **out_msg) OPD_MUST_CHECK;

/* Gives a message back to the pool with its attachments and credits. A request that nobody
 * answered is answered CLOSED by this. NULL is legal. */
void opd_msg_release(opd_msg *msg);

/* In on_message or a reply callback: the handler keeps msg, and releases it or sends it on
 * later. A kept message keeps its link's credits: that is the backpressure. */
void opd_msg_take(opd_ctx *ctx, opd_msg *msg);

uint16_t opd_msg_kind(const opd_msg *msg);
opd_pid opd_msg_from(const opd_msg *msg);
bool opd_msg_is_request(const opd_msg *msg);   /* waits for an answer */
uint64_t opd_msg_deadline_ns(const opd_msg *msg); /* OPD_NO_DEADLINE if none */

/* Which work a message belongs to (0: none), for those who watch: in opd, a sample. A message
 * begins with its creator's trace; a callback's trace is that of the message it handles, of the
 * request whose reply it gets, of the callback that submitted the job; else 0. */
uint64_t opd_msg_trace(const opd_msg *msg);
void opd_msg_trace_set(opd_msg *msg, uint64_t trace);

/* Messages, requests and jobs made in the rest of this callback belong to `trace`. */
void opd_trace_set(opd_ctx *ctx, uint64_t trace);

/* The body: msgpack [version, field...], written and read with core/actor/body.h, or with
 * msgpack-c by those outside. set copies; reserve gives room for size_bytes to be filled in
 * place, then commit says how many were. Errors: LIMIT (> OPD_MSG_BODY_MAX), NOMEM. */
opd_err opd_msg_body_set(opd_msg *msg, const void *bytes, size_t size_bytes) OPD_MUST_CHECK;
opd_err opd_msg_body_reserve(opd_msg *msg, size_t size_bytes, void **out_bytes) OPD_MUST_CHECK;
void opd_msg_body_commit(opd_msg *msg, size_t size_bytes);
const void *opd_msg_body(const opd_msg *msg, size_t *out_size_bytes);

/* Adds an attachment with a new reference to slice.buf and returns its index, by which the
 * body names it (msgpack ext type 1). ndim 1 or 2; dims[0..ndim) must fit the slice exactly.
 * Errors: LIMIT (8 are the most), INVALID (dims), NOMEM. */
opd_err opd_msg_attach(opd_msg *msg, opd_slice slice, opd_dtype dtype, uint8_t ndim,
                       const uint32_t *dims, uint8_t *out_index) OPD_MUST_CHECK;
unsigned opd_msg_attachment_count(const opd_msg *msg);

/* Attachment number index, or NULL. Valid as long as msg. To keep the bytes longer, retain
 * slice.buf: their link's byte credit returns with its last release, from any thread, but before
 * the system is destroyed. */
const opd_attachment *opd_msg_attachment(const opd_msg *msg, unsigned index);

/* Puts msg into the mailbox of `to`. Takes msg on OK only. Never blocks, and drops only kinds
 * that the receiver's class declares so (opd_kind_policy). Errors: AGAIN (mailbox full: try on a
 * timer, or use a link), CLOSED (dead pid), LIMIT (larger than the whole mailbox). */
opd_err opd_send(opd_ctx *ctx, opd_pid to, opd_msg *msg) OPD_MUST_CHECK;

/* The same from outside any actor (start-up code): opd_msg_from is nobody. */
opd_err opd_post(opd_system *system, opd_pid to, opd_msg *msg) OPD_MUST_CHECK;

/* ---- links: bulk traffic with credits -------------------------------------------------- */

/* A window of messages and bytes from ctx to `to`, beyond its mailbox bounds. A message takes
 * one message credit and its payload's bytes when sent. The message credit and the body's bytes
 * return when it is released; an attachment's bytes when its last reference beyond the link is
 * (the sender's own do not count), so a receiver that hoards slices stalls its producer.
 * Ends with opd_link_close or with the sender. Errors: CLOSED, NOMEM, LIMIT (links_max), INVALID
 * (a maximum of 0, or the link would close a cycle of links: the text names it). */
opd_err opd_link_open(opd_ctx *ctx, opd_pid to, uint32_t msgs_max, uint64_t bytes_max,
                      opd_link **out_link) OPD_MUST_CHECK;

/* Takes msg on OK only. Errors: AGAIN (no credit: a CREDIT signal comes when this message would
 * fit, or the receiver is gone), CLOSED (the receiver is gone), LIMIT (larger than the whole
 * window; or all views of attachments are in use), NOMEM. */
opd_err opd_link_send(opd_ctx *ctx, opd_link *link, opd_msg *msg) OPD_MUST_CHECK;

/* Ends the link; messages in flight still arrive. NULL is legal, a link closed before is not
 * (assertion); on_stop may close what the end of its actor closed for it. */
void opd_link_close(opd_link *link);

/* Credits in use now. */
uint32_t opd_link_msgs_used(const opd_link *link);
uint64_t opd_link_bytes_used(const opd_link *link);

/* ---- requests -------------------------------------------------------------------------- */

/* How a request ended: err OK with the reply (owned by the runtime, as in on_message), or
 * TIMEOUT, CLOSED (the other actor is gone, or let go of the request without an answer),
 * CANCELLED or the answering actor's error, with reply NULL and the text in
 * opd_err_context(). Returning an error fails the actor. */
typedef opd_err (*opd_reply_fn)(opd_ctx *ctx, void *state, void *arg, opd_err err,
                                opd_msg *reply);

/* Sends msg as a request. After OPD_OK (msg taken) reply_fn is called exactly once, never from
 * inside this call, unless the caller itself dies first. deadline_ns is absolute (see
 * opd_deadline_in) or OPD_NO_DEADLINE; an inherited deadline that is earlier wins. out_id
 * may be NULL. Errors (nothing taken): AGAIN (mailbox full, or requests_max waiting), NOMEM,
 * LIMIT (timers_max, or the system's requests_max). A dead `to` is no error: reply_fn gets CLOSED. */
opd_err opd_request(opd_ctx *ctx, opd_pid to, opd_msg *msg, uint64_t deadline_ns,
                    opd_reply_fn reply_fn, void *arg, uint64_t *out_id) OPD_MUST_CHECK;

/* Ends a waiting request with CANCELLED, through reply_fn. An id that already ended is fine. */
void opd_request_cancel(opd_ctx *ctx, uint64_t id);

/* Answers a request message, once; takes reply, always. If the asker is gone or no longer
 * waits, the reply is counted as late and released. `request` stays its holder's. */
void opd_reply(opd_ctx *ctx, opd_msg *request, opd_msg *reply);

/* Whether somebody still waits for the answer to this request: false once it timed out, was
 * cancelled or answered, or its asker ended, and for messages that are no requests. A holder
 * that works long asks now and then, and gives up early. */
bool opd_msg_wanted(const opd_msg *msg);

/* Answers with an error and this thread's context text. Cannot fail, needs no message. */
void opd_reply_error(opd_ctx *ctx, opd_msg *request, opd_err err);

/* ---- events ---------------------------------------------------------------------------- */

/* Something that happened, embedded in what it happened to, so that delivering it cannot fail.
 * Zero it, set the first four fields, post it; it may be posted again once delivered. Its
 * memory lives until deliver or drop was called. */
struct opd_event {
    opd_pid to; /* OPD_PID_NOBODY: delivered by the loop itself, ctx and state NULL */
    opd_err (*deliver)(opd_ctx *ctx, void *state, opd_event *event);
    void (*drop)(opd_event *event); /* the target is dead; NULL: nothing to do */
    void *arg;                      /* the user's */
    /* the runtime's */
    opd_event *inbox_next;
    opd_list node;
    bool queued; /* waits in an actor's queue; loop thread only */
};

/* Queues an event on the loop thread; one that is queued already stays where it is. */
void opd_event_post(opd_system *system, opd_event *event);

/* The same from any thread. The event must not be posted again, by anyone, before it is
 * delivered or dropped. The system must outlive the posting thread. */
void opd_event_post_remote(opd_system *system, opd_event *event);

/* Takes an event that opd_event_post queued back; afterwards its memory is free to go. */
void opd_event_cancel(opd_event *event);

/* What must be told when an actor ends (a child process, a connection). Embedded, zeroed. */
struct opd_cleanup {
    opd_list node;
    void (*run)(opd_cleanup *cleanup); /* once, when the actor begins to end */
    void *arg;                         /* the user's */
};

void opd_cleanup_start(opd_ctx *ctx, opd_cleanup *cleanup, void (*run)(opd_cleanup *cleanup));

/* `run` is not called after this. Legal on a zeroed cleanup, and after it ran. */
void opd_cleanup_stop(opd_cleanup *cleanup);

/* ---- timers ---------------------------------------------------------------------------- */

/* Embedded in the actor's state, zeroed, then opd_timer_init. Stopped by the actor's end. */
struct opd_timer {
    opd_event event;
    opd_heap_node heap;
    opd_list owned;
    opd_ctx *ctx;
    opd_err (*fire)(opd_ctx *ctx, void *state, opd_timer *timer);
    void *arg; /* the user's */
};

void opd_timer_init(opd_timer *timer, opd_ctx *ctx,
                    opd_err (*fire)(opd_ctx *ctx, void *state, opd_timer *timer));

/* Fires once at at_ns (or at once if that is past); restarts a running timer.
 * Errors: LIMIT (timers_max), NOMEM; the timer is then stopped. */
opd_err opd_timer_start(opd_timer *timer, uint64_t at_ns) OPD_MUST_CHECK;
opd_err opd_timer_start_after(opd_timer *timer, uint64_t delay_ns) OPD_MUST_CHECK;

/* After this `fire` is not called. Legal at any time after init. */
void opd_timer_stop(opd_timer *timer);

/* ---- monitors -------------------------------------------------------------------------- */

/* Embedded in the watcher's state, zeroed. */
struct opd_monitor {
    opd_event event;
    opd_list watched; /* in the target's list */
    opd_list owned;   /* in the watcher's list */
    opd_ctx *ctx;
    opd_pid pid;
    opd_err reason;
    char text[OPD_ERROR_TEXT_SIZE];
};

/* Exactly one DOWN comes for pid, at once if it is dead already (reason CLOSED then). The
 * monitor may be used again after its DOWN or after opd_monitor_stop. */
void opd_monitor_start(opd_ctx *ctx, opd_monitor *monitor, opd_pid pid);

/* No DOWN comes after this. Legal on a zeroed monitor. */
void opd_monitor_stop(opd_monitor *monitor);

/* ---- lanes and jobs -------------------------------------------------------------------- */

/* A compute thread that runs jobs one after another. At most queue_max jobs are submitted and
 * not yet delivered. Lives as long as the system. Errors: NOMEM, LIMIT. */
opd_err opd_lane_open(opd_system *system, const char *name, uint32_t queue_max,
                      opd_lane **out_lane) OPD_MUST_CHECK;

/* Embedded in the actor's state (or in what it owns) until `done`. Zero it, set run, done, arg. */
struct opd_job {
    /* On the lane's thread. An error's context text travels back in `text`. */
    opd_err (*run)(opd_job *job);
    /* On the loop; not called if the actor died: on_stop then frees what the job used. */
    opd_err (*done)(opd_ctx *ctx, void *state, opd_job *job);
    void *arg;

    /* the result, valid from done on */
    opd_err err;
    char text[OPD_ERROR_TEXT_SIZE];
    uint64_t run_ns; /* time on the lane's thread */
    uint64_t began_ns; /* when it began there, by the env's clock */
    uint64_t trace;    /* of the callback that submitted it */
    uint64_t submitted_ns;

    /* the runtime's */
    opd_env_task task;
    opd_event event;
    opd_list owned;
    opd_ctx *ctx;
    opd_lane *lane;
    uint32_t cancel; /* atomic: opd_job_cancel, opd_job_cancelled */
    bool submitted;
};

/* Hands job to the lane; done follows exactly once. Errors: AGAIN (queue_max jobs in flight: one
 * of them will be done). A job in flight must not be submitted again (assertion). */
opd_err opd_job_submit(opd_ctx *ctx, opd_lane *lane, opd_job *job) OPD_MUST_CHECK;

/* Asks the job to end early: a job not begun ends with CANCELLED without run, a running one
 * sees opd_job_cancelled. done still follows. */
void opd_job_cancel(opd_job *job);

/* Whether run should return early (OPD_ERR_CANCELLED). Any thread. */
bool opd_job_cancelled(const opd_job *job);

/* ---- slots: keep the latest ------------------------------------------------------------ */

/* A versioned handle of which only the newest counts: weights. Errors: NOMEM.
 * Freed by opd_slot_destroy before its system. */
opd_err opd_slot_create(opd_system *system, opd_slot **out_slot) OPD_MUST_CHECK;
void opd_slot_destroy(opd_slot *slot);

/* Replaces the content by buf (a reference is added) and tells the watchers. */
void opd_slot_put(opd_slot *slot, opd_buf *buf, uint64_t version);

/* The newest version (0: nothing was put) and its buffer with a reference for the caller, who
 * releases it; *out_buf is NULL if there is none. out_buf may be NULL. */
uint64_t opd_slot_get(const opd_slot *slot, opd_buf **out_buf);

/* Embedded in the watcher's state, zeroed. */
struct opd_slot_watch {
    opd_event event;
    opd_list node;
    opd_list owned;
    opd_slot *slot;
    opd_err (*changed)(opd_ctx *ctx, void *state, opd_slot_watch *watch);
    void *arg; /* the user's */
};

/* Calls `changed` after every put, once for puts in quick succession, and once at once if the
 * slot holds something. Ends with the actor or with opd_slot_watch_stop. */
void opd_slot_watch_start(opd_ctx *ctx, opd_slot *slot, opd_slot_watch *watch,
                          opd_err (*changed)(opd_ctx *ctx, void *state, opd_slot_watch *watch));
void opd_slot_watch_stop(opd_slot_watch *watch);

/* ---- what there is to see -------------------------------------------------------------- */

typedef struct opd_actor_stats {
    uint64_t messages, events; /* handled */
    uint64_t busy_ns;          /* in callbacks */
    uint64_t slowest_ns;       /* slowest single callback, and the kind of its message */
    uint16_t slowest_kind;
    uint32_t depth, depth_max; /* messages in the mailbox, now and at most */
    uint64_t bytes;            /* their payload now */
    uint32_t requests_waiting;
    uint64_t late_replies;
    uint64_t refused, replaced, dropped; /* messages its full mailbox met, by policy */
    uint32_t held;             /* messages in its hands: made or taken, not sent or released */
    uint64_t made;             /* messages it took out of the pool */
    uint64_t sends_refused;    /* its own sends and requests that got AGAIN */
    opd_histogram queue_wait;  /* ns from sending to handling, of its messages */
} opd_actor_stats;

/* Errors: CLOSED. */
opd_err opd_actor_stats_get(const opd_system *system, opd_pid pid,
                            opd_actor_stats *out_stats) OPD_MUST_CHECK;

typedef struct opd_system_stats {
    uint32_t actors;           /* alive or ending */
    uint32_t messages_in_use;  /* out of the pool */
    uint64_t dead_letters;     /* messages that nobody handled: opd/dead.h says which */
    uint64_t late_replies;     /* answers, messages and errors, to those who no longer waited */
    uint64_t turns;
    uint64_t leaked;           /* messages that actors still held when they had ended */
} opd_system_stats;

opd_system_stats opd_system_stats_get(const opd_system *system);

typedef struct opd_loop_stats {
    uint64_t turns;      /* times the env called: wakes, timers, I/O, and slices that were full */
    uint64_t remote;     /* of these, turns that found events from other threads */
    opd_histogram lag;   /* ns from a timer's time to its turn */
    opd_histogram slice; /* ns of a turn with work, from its begin to its last callback's end */
} opd_loop_stats;

opd_loop_stats opd_loop_stats_get(const opd_system *system);

#ifdef __cplusplus
}
#endif
#endif
