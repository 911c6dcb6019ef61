/* checkers.h - what must hold in every run of a system, checked as it happens.
 *
 * A tap (opd/tap.h) that keeps books of its own on messages, requests, links and actors and
 * compares them with what the runtime does:
 *   - an actor that has ended, or a pid of an earlier generation, handles nothing;
 *   - one callback at a time;
 *   - messages of a pair of actors are handled in the order in which they were sent, each once;
 *   - a message is released once;
 *   - a mailbox holds no more than its class declares;
 *   - a link's credits in use are the messages sent on it and not yet released, its bytes in use
 *     the bodies of these and the attachments still referenced, all within its window;
 *   - a request is completed exactly once, unless its asker dies, and replied to at most once;
 *   - DOWN tells of an actor that is gone, exactly once for each monitor that is not stopped before;
 *   - at the end every message and every byte of credit is back, no request waits and no
 *     monitor is left.
 * It also hashes all records in order: equal for equal runs, on every machine.
 *
 * The first violation is kept as a text with what happened right before it. Thread: the
 * loop's. checkers_destroy frees; the system must not run any more then, or be gone.
 */
#ifndef OPD_TESTS_SIM_CHECKERS_H
#define OPD_TESTS_SIM_CHECKERS_H

#include <stdio.h>

#include "opd/tap.h"

typedef struct checkers checkers;

typedef struct checkers_counts {
    uint64_t spawned, sent, handled, requested, completed, credits, downs, refused;
} checkers_counts;

/* Watches system from now on: before its first actor is spawned. Never NULL. */
checkers *checkers_create(opd_system *system);

/* To be called when no actor is left and the system still exists: is everything back? */
void checkers_end(checkers *c);

/* What went wrong first, or NULL. */
const char *checkers_violation(const checkers *c);

/* For checkers of one's own: keeps a violation, if it is the first. */
void checkers_fail(checkers *c, const char *fmt, ...) OPD_PRINTF(2, 3);

/* Order-sensitive hash of everything that happened so far. */
uint64_t checkers_hash(const checkers *c);

checkers_counts checkers_counts_get(const checkers *c);

/* The last records before the violation (or now), one a line. */
void checkers_print(const checkers *c, FILE *file);

/* NULL is legal. */
void checkers_destroy(checkers *c);

#endif
