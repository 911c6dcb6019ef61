/* env.h - what a real process has besides a clock: children, signals, a terminal.
 *
 * A child's output and end are delivered as events (opd/actor.h), so its actor sees them
 * exactly as it sees a timer or a finished job. The vtable itself is in opd/env.h.
 *
 * Thread: the loop's. Every struct is opaque and freed as its functions state.
 */
#ifndef OPD_CORE_ENV_ENV_H
#define OPD_CORE_ENV_ENV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "opd/actor.h"
#include "opd/env.h"

/* The uv_loop_t * of an env made by opd_env_uv_create, for transports' own handles. Handles
 * opened on it must be closed before opd_env_destroy. */
void *opd_env_uv_loop(opd_env *env);

/* Whether env belongs to a simulated world (opd/sim.h), where there are no children and signals. */
bool opd_env_is_simulated(const opd_env *env);

/* ---- child processes (child_uv.c) ---------------------------------------------------- */

typedef struct opd_child opd_child;

typedef struct opd_child_options {
    const opd_alloc *alloc;
    const char *const *argv;    /* argv[0] is looked up in PATH; NULL-terminated */
    const char *const *env_add; /* "NAME=value" on top of our environment; may be NULL */
    const char *cwd;            /* NULL: ours */
    /* One line of the child's stdout or stderr without its newline (cut at line_max bytes),
     * in the order it was written. NULL: the stream goes where ours goes. The line is valid
     * during the call. An error fails the actor. */
    opd_err (*on_line)(opd_ctx *ctx, void *state, opd_child *child, bool is_stderr,
                       const char *line);
    /* The same for stdout as it comes, in pieces of at most line_max bytes: then on_line is for stderr only. */
    opd_err (*on_bytes)(opd_ctx *ctx, void *state, opd_child *child, const void *bytes, size_t size_bytes);
    /* The child ended and all its output was delivered: exit status, or the number of the
     * signal that killed it (else 0). Called exactly once; the child is freed after it. */
    opd_err (*on_exit)(opd_ctx *ctx, void *state, opd_child *child, int64_t exit_status,
                       int term_signal);
    size_t line_max; /* 0: 4,096 bytes */
    size_t stdin_max; /* bytes that may wait to be read by the child; 0: stdin is /dev/null */
    void *arg;       /* read back with opd_child_arg */
} opd_child_options;

/* Starts a child that belongs to the actor ctx. If the actor dies
 * first, the child gets SIGKILL and nothing is called any more.
 * Errors: NOT_FOUND (no such program), IO, NOMEM, UNSUPPORTED (a simulated env). The runtime frees
 * *out_child after on_exit. */
opd_err opd_child_spawn(opd_ctx *ctx, opd_env *env, const opd_child_options *options,
                        opd_child **out_child) OPD_MUST_CHECK;

/* Sends a signal (SIGTERM, SIGKILL). A child that already ended is fine. */
void opd_child_kill(opd_child *child, int signal_number);

/* Writes a copy of the bytes to its stdin, in order, as it reads them. What a child that ends did not
 * read is dropped. Errors: AGAIN (stdin_max bytes wait), CLOSED (it has ended, or reads no stdin),
 * NOMEM. */
opd_err opd_child_write(opd_child *child, const void *bytes, size_t size_bytes) OPD_MUST_CHECK;

/* Its process id, and the options' arg. */
int opd_child_pid(const opd_child *child);
void *opd_child_arg(const opd_child *child);

/* ---- signals (signal_uv.c) ----------------------------------------------------------- */

/* SIGINT and SIGTERM as an event: `on_stop` once for the first, then for every later one
 * with forced = true. Open until opd_signals_close. */
typedef struct opd_signals opd_signals;

/* Starts watching. on_stop(arg, signal, forced) is called on the loop. Errors: IO, NOMEM,
 * UNSUPPORTED (a simulated env). */
opd_err opd_signals_open(opd_env *env, const opd_alloc *alloc,
                         void (*on_stop)(void *arg, int signal_number, bool forced), void *arg,
                         opd_signals **out_signals) OPD_MUST_CHECK;

/* Stops watching; the memory goes when the loop has closed the handles. NULL is legal. */
void opd_signals_close(opd_signals *signals);

/* SIGUSR1 too: on_dump(arg) is called on the loop for each (to print the topology). Until
 * opd_signals_close. Errors: IO. */
opd_err opd_signals_watch_dump(opd_signals *signals, void (*on_dump)(void *arg),
                               void *arg) OPD_MUST_CHECK;

/* ---- watchdog (watchdog.c) ----------------------------------------------------------- */

/* A thread that names in the log a callback that runs longer than limit_ms, once per incident, and
 * again when it returned: of an actor of `system`, of a transport (by the actor that opened it),
 * of the loop. For a real env only: it waits in real time. */
typedef struct opd_watchdog opd_watchdog;

/* Starts it; env and system must outlive it. Errors: INVALID (limit_ms 0), NOMEM, LIMIT
 * (threads). */
opd_err opd_watchdog_start(opd_env *env, opd_system *system, const opd_alloc *alloc,
                           uint64_t limit_ms, opd_watchdog **out_watchdog) OPD_MUST_CHECK;

/* Ends the thread and waits for it. NULL is legal. */
void opd_watchdog_stop(opd_watchdog *watchdog);

/* ---- terminal (tty_uv.c) ------------------------------------------------------------- */

/* Whether the file descriptor is a terminal, and its width in columns (80 if unknown). */
bool opd_tty_is(int fd);
int opd_tty_width(int fd);

#endif
