/* loop.h - an env for transport tests, and loopback peers of other kinds.
 *
 * With OPD_TEST_SIM_SEED in the environment the env is a node of a simulated world, on a
 * simulated network: the same test then runs in virtual time, with seeded delays and chunks.
 * loop_until runs the loop until a flag is set or 10 s pass (then the test fails).
 * raw_server is a plain TCP listener that answers every connection with fixed bytes.
 */
#ifndef OPD_TESTS_UNIT_TRANSPORTS_LOOP_H
#define OPD_TESTS_UNIT_TRANSPORTS_LOOP_H

#include <stdbool.h>

#include "opd/env.h"
#include "transports/http.h"
#include "transports/tcp.h"

extern opd_env *loop_env;

/* The world of loop_env, NULL if it is real. */
extern struct opd_sim *loop_sim;

/* Makes loop_env; ends it, checking that no handle is left open. */
void loop_init(void);
void loop_fini(void);

/* Runs until *flag >= count. */
void loop_until(const int *flag, int count);

/* The same without failing: the caller judges. */
void loop_for_done(const int *flag, int count);

/* Runs for a while. */
void loop_for_ms(uint64_t ms);

/* The env's clock plus ms. */
uint64_t loop_in_ms(uint64_t ms);

/* A `done` or `closed` callback that counts into the int its argument points at. */
void loop_count(void *arg);

/* Closes and waits. */
void loop_client_close(opd_http_client *client);
void loop_server_close(opd_http_server *server, uint64_t drain_ms);

typedef struct raw_server {
    opd_tcp_listener *listener;
    opd_tcp *tcps[64];
    int count, closed;
    const char *answer; /* NULL: say nothing */
    bool hang_up;       /* close after answering (or at once) */
    int bytes_seen;
} raw_server;

void raw_server_open(raw_server *raw, const char *answer, bool hang_up);
void raw_server_close(raw_server *raw);

#endif
