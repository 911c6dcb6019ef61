/* opd/dead.h - dead letters: messages the runtime let go of before anybody handled them.
 *
 * None of them is silent: each is counted under (reason, kind, target), the headers of the last
 * 256 are kept, and the log names a row when its count reaches 1, 2, 4, 8, ... Requests
 * among them were answered as well.
 *
 * Thread: the loop's. Implemented by core/actor/dead.c.
 */
#ifndef OPD_DEAD_H
#define OPD_DEAD_H

#include "opd/actor.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    OPD_DEAD_ROWS = 64,          /* distinct (reason, kind, target); the last row is "others" */
    OPD_DEAD_LETTERS_KEPT = 256, /* headers */
    OPD_DEAD_TARGET_SIZE = 32
};

typedef enum opd_dead_reason {
    OPD_DEAD_UNREAD,   /* its receiver ended first; a request was answered CLOSED */
    OPD_DEAD_EXPIRED,  /* its deadline passed in the mailbox; it was answered TIMEOUT */
    OPD_DEAD_DROPPED,  /* the mailbox was full and the kind's policy is to drop */
    OPD_DEAD_REPLACED, /* a newer one of its kind and sender took its place */
    OPD_DEAD_LATE,     /* a reply that nobody waited for any more */
    OPD_DEAD_REASONS
} opd_dead_reason;

/* How often a letter died for that reason, of that kind, on the way to that actor's name. */
typedef struct opd_dead_count {
    opd_dead_reason reason;
    uint16_t kind;
    char target[OPD_DEAD_TARGET_SIZE];
    uint64_t count;
} opd_dead_count;

/* The header of one. */
typedef struct opd_dead_letter {
    uint64_t time_ns; /* the loop's time */
    opd_dead_reason reason;
    uint16_t kind;
    opd_pid from, to;
    uint64_t correlation; /* of a request or reply, else 0 */
    uint64_t bytes;       /* body and attachments */
} opd_dead_letter;

/* "unread", "expired", "dropped", "replaced" or "late". */
const char *opd_dead_reason_name(opd_dead_reason reason);

/* Copies at most rows_max rows to out, in the order in which they first happened; returns
 * how many there are (at most OPD_DEAD_ROWS). out may be NULL if rows_max is 0. */
size_t opd_dead_counts(const opd_system *system, opd_dead_count *out, size_t rows_max);

/* Copies at most letters_max headers to out, newest first; returns how many it copied. */
size_t opd_dead_letters(const opd_system *system, opd_dead_letter *out, size_t letters_max);

#ifdef __cplusplus
}
#endif
#endif
