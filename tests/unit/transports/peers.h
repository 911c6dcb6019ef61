/* peers.h - programs of others as the other side of a test: started, awaited, never left behind. */
#ifndef OPD_TESTS_UNIT_TRANSPORTS_PEERS_H
#define OPD_TESTS_UNIT_TRANSPORTS_PEERS_H

#include <stdbool.h>
#include <sys/types.h>

/* Whether a program of that name is installed. */
bool installed(const char *name);

/* Starts `command`, output to out_path; it dies with us, so a failed test leaves nothing behind. */
pid_t start(const char *command, const char *out_path);

/* Runs the loop until the child ends; its exit status. */
int finish(pid_t pid);

/* A port that was free a moment ago. */
unsigned free_port(void);

/* Whether somebody listens on a port of 127.0.0.1. */
bool connects(unsigned port);

#endif
