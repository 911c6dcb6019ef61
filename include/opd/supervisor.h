/* opd/supervisor.h - actors that start, watch, restart and stop other actors.
 *
 * A supervisor is an actor like any other; what it does is said by a table of children. It
 * starts them in the order of the table and stops them in reverse. A child that fails is
 * started again, after a growing pause, together with those that the strategy names; one that
 * fails too often, or in a way that starting again cannot cure, fails its supervisor. Children
 * may be supervisors: then a failure goes up the tree until somebody can deal with it, and
 * a failure of the top stops the system in order, with the child's reason.
 *
 * What a restart means:
 *   - the old actor is gone altogether before the new one starts: its last job has come back and
 *     its on_stop has run, so that both may use the same lane, kernels or files;
 *   - the new actor has a new pid; messages, requests and links to the old one get CLOSED;
 *   - the child's id is a name of the registry (opd_whereis), held by the newest one.
 *
 * What is not restarted: errors of the categories USAGE (the person's input) and FATAL. They go up
 * at once, unchanged, whatever the child's restart kind but TEMPORARY.
 *
 * With the ordered stop of the system: a supervised actor is stopped by its supervisor, so
 * opd_system_stop counts a tree as one actor, in the place of its top. While the system
 * stops nothing is restarted. A supervisor has no time limit of its own: each child has one.
 *
 * Thread: the loop's. Implemented by core/actor/supervisor.c.
 */
#ifndef OPD_SUPERVISOR_H
#define OPD_SUPERVISOR_H

#include "opd/actor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum opd_restart {
    OPD_RESTART_PERMANENT, /* whenever it ends, OPD_OK included */
    OPD_RESTART_TRANSIENT, /* when it fails; OPD_OK means that its work is done */
    OPD_RESTART_TEMPORARY  /* never; its end, a failure too, is a line of the log */
} opd_restart;

typedef enum opd_strategy {
    OPD_STRATEGY_ONE_FOR_ONE,  /* the child that failed */
    OPD_STRATEGY_REST_FOR_ONE, /* that one and those after it in the table */
    OPD_STRATEGY_ONE_FOR_ALL   /* all of them */
} opd_strategy;

/* The pause before a start: base * 2^(failures in a row - 1), at most max, of which a random share
 * of up to `jitter` (0..1) is taken off. A child that lived for a whole period has a clean
 * record again. */
typedef struct opd_backoff {
    uint64_t base_ms; /* 0: 100 */
    uint64_t max_ms;  /* 0: 5,000 */
    double jitter;    /* 0: always the same */
} opd_backoff;

enum {
    OPD_SUPERVISOR_CHILDREN_MAX = 64,
    OPD_SUPERVISOR_RESTARTS_MAX = 1000,
    OPD_SUPERVISOR_NO_RESTARTS = -1 /* restarts_max: the first failure goes up */
};

typedef struct opd_child_spec {
    const char *id; /* at most 31 bytes, unique among the living: its name in the registry */
    /* Spawns one actor (with opd_spawn or opd_supervisor_start) and says its pid. Called for
     * each start, on the loop; must leave nothing behind on an error. */
    opd_err (*start)(opd_system *system, void *arg, opd_pid *out_pid);
    void *arg; /* the user's */
    opd_restart restart;
    uint64_t stop_timeout_ms; /* then ended by force; 0: the system's; a supervisor has none */
    opd_backoff backoff;
} opd_child_spec;

/* A failure that is being dealt with by a restart. */
typedef struct opd_restart_report {
    const char *supervisor, *child;
    opd_err reason;        /* of the child; OPD_OK for a permanent one that ended in peace */
    const char *text;      /* its error context */
    uint32_t failures;     /* within the period, this one included */
    uint32_t restarts_max;
    uint64_t period_ms;
    uint64_t delay_ms;     /* until the start */
    uint64_t total;        /* failures since this supervisor was started */
} opd_restart_report;

typedef struct opd_supervisor_options {
    const char *name; /* copied, at most 31 bytes */
    opd_strategy strategy;
    const opd_child_spec *children; /* with their strings and args alive as long as this actor */
    size_t child_count;             /* 1..64 */
    int32_t restarts_max;           /* failures cured within a period; 0: 3 */
    uint64_t period_ms;             /* 0: 30,000 */
    /* Called for each failure that is not passed up, with the supervisor's ctx; may be NULL. */
    void (*told)(opd_ctx *ctx, void *arg, const opd_restart_report *report);
    void *arg; /* the user's, for told */
} opd_supervisor_options;

/* Starts a supervisor and, in order, its children. Where one of these fails in this first start,
 * those before it are ended and its error is this call's. Later such a failure counts as one of
 * the child.
 *
 * The supervisor ends with OPD_OK when it was stopped or when every child has ended for good. It
 * fails when more than restarts_max failures fell into one period, with the last one's reason
 * and a text that names the chain of actors, "run > dataplane > reward failed 4 times
 * within 30 s: ..."; where nothing was tried again (an error that no restart cures, or
 * OPD_SUPERVISOR_NO_RESTARTS) the child's text is passed on as it is and the log names the
 * chain. All its children have been stopped by then.
 *
 * Errors: INVALID (the options), those of the children's starts and of opd_spawn. */
opd_err opd_supervisor_start(opd_system *system, const opd_supervisor_options *options,
                             opd_pid *out_pid) OPD_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
