/* callback_time.h - how much CPU time a callback of the loop takes at most.
 *
 * A thread's clock stands still while the loop sleeps. It is looked at before each read from a socket and each
 * wait of the loop (the C library's read and epoll_wait are replaced, for libuv too) and wherever a test says so; a
 * callback stands between two looks, so what lies between them bounds what it took.
 * Thread: the one that called callback_watch; looks of others count for nothing.
 */
#ifndef OPD_TESTS_SUPPORT_CALLBACK_TIME_H
#define OPD_TESTS_SUPPORT_CALLBACK_TIME_H

#include <stdbool.h>

/* Whether this build measures: optimised, without sanitizers. */
bool callback_measured(void);

/* From now on, on this thread. */
void callback_watch(void);

void callback_look(void);

/* Prints the longest, for tests/bench/run.py. No test asserts it: the machine may be busy. */
void callback_tell(void);

#endif
