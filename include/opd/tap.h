/* opd/tap.h - watching everything that happens in a system, without changing it.
 *
 * A tap is a function that sees a record of each thing that happens to actors and messages,
 * in the order in which it happens. The flight recorder, the Chrome trace and the checkers of
 * the simulation are taps. What no tap wants to know costs one untaken branch per point.
 *
 * Invariants a tap may rely on:
 *  1. A message has one serial from opd_msg_create to its RELEASED; a serial is never used twice.
 *  2. HANDLED and EVENT each have their RETURNED, of the same actor, with no other HANDLED or
 *     EVENT between.
 *  3. What a message takes of its link when it is SENT comes back, each share once: the message and
 *     its body_bytes with its RELEASED, or with its next SENT if it is sent on, and each attachment's
 *     bytes with a FREED.
 *  4. A MONITORED is followed by one DOWN or one UNMONITORED of the same monitor.
 *  5. time_ns of records never falls, except for JOB_BEGIN and JOB_END, which are told on the
 *     loop when the job is delivered and carry the lane's own times.
 *
 * A tap must not call the runtime: no send, no spawn, no release. Thread: the loop's.
 * Memory: the owner's, alive until opd_tap_remove or the end of the system.
 * Implemented by core/actor.
 */
#ifndef OPD_TAP_H
#define OPD_TAP_H

#include "opd/actor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What happened. In brackets: the members that mean something, beside kind and time_ns.
 * "message" stands for serial, message_kind, bytes, body_bytes, trace, link (if it came over one). */
typedef enum opd_tap_kind {
    OPD_TAP_SPAWNED,   /* an actor begins [from: who spawned it, or nobody; to: it; name] */
    OPD_TAP_ENDED,     /* an actor is gone; its pid is dead from here on [to, name, err] */
    OPD_TAP_SENT,      /* a message is in a mailbox [from, to, message; correlation of a request
                          or reply] */
    OPD_TAP_REFUSED,   /* a send, link send or request was refused [from, to, message, err] */
    OPD_TAP_HANDLED,   /* a handler begins [from, to, message, correlation] */
    OPD_TAP_EVENT,     /* an event's callback begins [to] */
    OPD_TAP_RETURNED,  /* the callback is over [to, err; serial and message_kind of HANDLED] */
    OPD_TAP_RELEASED,  /* a message is back in the pool [from, to (nobody: never sent), message] */
    OPD_TAP_DEAD,      /* a message that nobody will handle [from, to, message; err CLOSED: its
                          receiver ended; AGAIN: replaced, or dropped without being SENT; TIMEOUT:
                          a late reply, not SENT; to is nobody if the asker is gone] */
    OPD_TAP_REQUESTED, /* a request waits [from: the asker, to, message, correlation] */
    OPD_TAP_REPLIED,   /* a request is answered [from: the answering actor, to: the asker,
                          correlation, err; message of the reply, if err is OK] */
    OPD_TAP_COMPLETED, /* its reply_fn is about to be called [from: who was asked, to: the asker,
                          correlation, err, message_kind of the request] */
    OPD_TAP_CREDIT,    /* CREDIT is about to be handled [from: the receiver, to: the link's
                          owner, link] */
    OPD_TAP_DOWN,      /* DOWN is about to be handled [from: the dead, to: the watcher, err,
                          monitor] */
    OPD_TAP_JOB_BEGIN, /* a lane began a job [to: its actor, name: the lane, trace] */
    OPD_TAP_JOB_END,   /* and ended it [the same, err] */
    OPD_TAP_FREED,     /* the last reference to an attachment that came over a link is gone [to: the
                          link's receiver, link, bytes] */
    OPD_TAP_MONITORED, /* an actor will be told of another's end [from: the watched, to: the watcher,
                          monitor] */
    OPD_TAP_UNMONITORED, /* and now will not: the monitor was stopped, or the watcher ends [the same] */
    OPD_TAP_KIND_COUNT
} opd_tap_kind;

typedef struct opd_tap_record {
    opd_tap_kind kind;
    opd_err err;
    uint64_t time_ns;      /* the env's clock, read when the present callback began or ended */
    opd_pid from, to;
    uint64_t serial;       /* of the message; 0: no message */
    uint64_t correlation;  /* a request's id in its asker's table; 0: none */
    uint64_t trace;        /* opd_msg_trace; 0: none */
    uint64_t bytes;        /* payload: body and attachments */
    const opd_link *link;  /* to compare, not to follow: it may be gone */
    const opd_monitor *monitor; /* the same */
    const char *name;      /* valid during the call */
    uint32_t body_bytes;   /* of bytes */
    uint16_t message_kind;
} opd_tap_record;

/* The bit of a kind in opd_tap.kinds. */
#define OPD_TAP_BIT(kind) (UINT32_C(1) << (kind))

/* Set record and arg, and kinds where not all are of interest; next is the runtime's. */
typedef struct opd_tap {
    void (*record)(void *arg, const opd_tap_record *record);
    void *arg;
    uint32_t kinds; /* told are only these; 0: all. Not changed while the tap is in */
    struct opd_tap *next;
} opd_tap;

/* Calls tap->record from now on, after the taps that are there. Not from within a tap. */
void opd_tap_add(opd_system *system, opd_tap *tap);

/* Takes it out; one that is not in is fine. Not from within a tap. */
void opd_tap_remove(opd_system *system, opd_tap *tap);

/* "sent", "handled", ...; never NULL. */
const char *opd_tap_kind_name(opd_tap_kind kind);

/* Name of a message kind by the system's option kind_name, or its number in decimal, written
 * to `room` if needed (at least 8 bytes). Never NULL. */
const char *opd_kind_name(const opd_system *system, uint16_t kind, char *room, size_t room_size);

#ifdef __cplusplus
}
#endif
#endif
