/* opd/diagnosis.h - "who is stuck?": the live topology, the last envelopes, stalls, a trace.
 *
 * Four answers of growing detail (docs/diagnosis.md is the guide):
 *   heartbeat   which callback runs now; a watchdog on another thread reads it;
 *   dump        every actor, link, request, job, slot and dead letter, as lines of text;
 *   recorder    the last few thousand envelope headers, in order;
 *   stall       one report with its cause, when work is under way and none gets done;
 *   tracer      a Chrome trace of the whole run, to look at afterwards.
 *
 * Thread: the loop's, except where a function says otherwise. Implemented by core/actor.
 */
#ifndef OPD_DIAGNOSIS_H
#define OPD_DIAGNOSIS_H

#include "opd/actor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Receives one line without newline; valid during the call. */
typedef void (*opd_line_fn)(void *arg, const char *line);

/* Writes every actor (pid, phase, mailbox, hands, times), its links with their credits, what it
 * waits for, its jobs; then lanes, slots, dead letters and the loop. Allocates nothing, changes
 * nothing; at most a few thousand lines (bounded by actors_max and requests_max). */
void opd_system_dump(const opd_system *system, opd_line_fn line, void *arg);

/* ---- recorder -------------------------------------------------------------------------- */

enum { OPD_RECORDER_RECORDS = 4096, OPD_RECORDER_DUMP_LINES = 256 };

/* Writes the newest lines_max records, oldest first; nothing where the system has no recorder
 * (opd_system_options.recorder). A failed assertion on the loop's thread does this to
 * stderr, with OPD_RECORDER_DUMP_LINES. */
void opd_recorder_dump(const opd_system *system, size_t lines_max, opd_line_fn line, void *arg);

/* ---- progress and stalls ------------------------------------------------------------------ */

/* Something that matters got done (a batch was trained, a request answered); `outstanding` says
 * how much is still to do. When it is more than 0 and no call comes for stall_report_ms
 * (opd_system_options), the log gets one warning that names the cause, and one line when
 * things move again. With 0, silence is no stall. Before the first call nothing is watched. */
void opd_progress_note(opd_system *system, uint64_t outstanding);

/* How many stalls were reported. */
uint64_t opd_stalls(const opd_system *system);

/* ---- heartbeat ------------------------------------------------------------------------- */

/* Which callback runs since when: of an actor, of the loop itself (an event to nobody), or of a
 * transport, whose owner is the actor that opened it. Written by the loop, read by any thread
 * with opd_heartbeat_read. */
typedef struct opd_heartbeat {
    uint64_t began_ns; /* 0: no callback runs */
    uint64_t what;     /* transport << 32 | slot of the actor << 16 | kind of the message (0: none) */
    uint64_t *names;   /* 4 words per slot: the actor's name, NUL-padded; the last is the loop's */
} opd_heartbeat;

/* The system's own; valid as long as it. */
const opd_heartbeat *opd_system_heartbeat(const opd_system *system);

enum { OPD_HEARTBEAT_NAME_SIZE = 32 };

typedef struct opd_heartbeat_reading {
    uint64_t began_ns;
    uint16_t kind;     /* of the message; 0: none, an event */
    bool is_transport; /* neither */
    char name[OPD_HEARTBEAT_NAME_SIZE]; /* the actor's, or "the loop" */
} opd_heartbeat_reading;

/* Any thread. False: no callback runs, or one ended meanwhile. */
bool opd_heartbeat_read(const opd_heartbeat *heartbeat, opd_heartbeat_reading *out);

/* ---- Chrome trace ---------------------------------------------------------------------- */

typedef struct opd_tracer opd_tracer;

typedef struct opd_tracer_options {
    const opd_alloc *alloc;
    uint32_t events_max; /* the newest are kept, 40 bytes each; 0: 131,072 (5 MiB) */
    /* Text of a trace id, for people; NULL: the number. */
    void (*trace_text)(uint64_t trace, char *out, size_t out_size);
} opd_tracer_options;

/* Records the system from now on: a slice per callback, a slice per job on its lane, and for
 * each message with a trace id its wait in the mailbox and the time it was held. Ended by
 * opd_tracer_destroy, before the system. Errors: NOMEM. */
opd_err opd_tracer_create(const opd_tracer_options *options, opd_system *system,
                          opd_tracer **out_tracer) OPD_MUST_CHECK;

/* Writes what was recorded as Chrome-trace JSON (chrome://tracing, ui.perfetto.dev), ordered by
 * time; says in its metadata how many events were dropped: the oldest. Blocks: for the end of
 * a run. Errors: IO, DISK, NOMEM. */
opd_err opd_tracer_write(opd_tracer *tracer, const char *path) OPD_MUST_CHECK;

/* Stops recording. NULL is legal. */
void opd_tracer_destroy(opd_tracer *tracer);

#ifdef __cplusplus
}
#endif
#endif
