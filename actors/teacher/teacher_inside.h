/* teacher_inside.h - the state of teacher_http, shared by its two files: teacher_http.c (the
 * samples) and teacher_probe.c (the server: start, loss, return). Nobody else includes it.
 *
 * Invariants: (1) a sample is in exactly one list: waiting (to be sent, or for the endpoint),
 * pausing (its timer ends a pause), asked (a call is under way); (2) `ready` turns true once and
 * stays; (3) nothing is sent to score while the health is down; (4) a sample's timer runs
 * except while it is asked or its deadline has not begun.
 * Thread: the loop.
 */
#ifndef OPD_ACTORS_TEACHER_TEACHER_INSIDE_H
#define OPD_ACTORS_TEACHER_TEACHER_INSIDE_H

#include "actors/teacher/delivery.h"
#include "actors/teacher/endpoint.h"
#include "actors/teacher/policy.h"
#include "actors/teacher/teacher_http.h"
#include "transports/sglang.h"

#define OPD__TEACHER_TICK_NS ((uint64_t)1000000000) /* probes, HOLD and the lost clock */

typedef struct opd__teacher {
    opd_teacher_http_config c;
    opd_ctx *ctx;
    opd_delivery delivery;
    opd_list waiting, pausing, asked;
    uint32_t asked_count, sample_count;
    uint64_t rid_nonce, rid_next;
    char weight_version[OPD_SGLANG_NAME_SIZE]; /* of the last scores; "": not told yet */
    uint64_t version_changes;

    opd_endpoint *endpoint;  /* NULL: none now            */
    uint32_t endpoints_open; /* with those still closing  */
    opd_teacher_health health;
    opd_timer tick;
    opd_slot_watch watch;    /* of c.endpoint */
    bool ready, probing, stopping, failed;
    bool hold, hold_told;    /* what the dataset should know, and what it was told */
    uint64_t start_by_ns, lost_at_ns;
    opd_err problem;         /* why the last probe failed  */
    char problem_text[512];
} opd__teacher;

/* Nanoseconds of a configured number of seconds. */
uint64_t opd__teacher_ns(double seconds);

/* Begins: opens the configured URL, if any, and probes it. Errors: those of the URL. */
OPD_MUST_CHECK opd_err opd__teacher_begin(opd__teacher *self);

/* The host's news: a new URL, or "" for none. Errors: those of the URL. */
OPD_MUST_CHECK opd_err opd__teacher_move(opd__teacher *self, const char *url);

/* The endpoint does not answer: holds admission and probes until it is back. */
OPD_MUST_CHECK opd_err opd__teacher_gone(opd__teacher *self, const char *why);

/* A sample was answered. */
void opd__teacher_answered(opd__teacher *self);

/* A pause of the clock: probes, tells HOLD again, ends the run when the teacher is lost. */
OPD_MUST_CHECK opd_err opd__teacher_tick(opd__teacher *self);

/* Stops the system for err, once, with this thread's context. */
void opd__teacher_fail(opd__teacher *self, opd_err err);

/* In teacher_http.c: the teacher is ready for samples: their deadlines begin. */
OPD_MUST_CHECK opd_err opd__teacher_ready(opd__teacher *self);

/* In teacher_http.c: sends what waits, as far as it may. */
OPD_MUST_CHECK opd_err opd__teacher_pump(opd__teacher *self);

#endif
