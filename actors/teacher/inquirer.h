/* inquirer.h - asks a server what it can do: the questions of capabilities.h over an endpoint.
 *
 * Used by the teacher at its start and by `opd teacher probe`. The questions that do not need each
 * other's answers are asked at the same time.
 *
 * Invariants: (1) `done` is called exactly once per start, in the actor's context and never from inside
 * opd_inquirer_start, unless the actor ends, or starts it again, before; (2) answers of an endpoint that
 * is not the present one's are ignored.
 * Thread: the loop. Memory: a part of the actor's state, zeroed before its first start; nothing to free.
 */
#ifndef OPD_ACTORS_TEACHER_INQUIRER_H
#define OPD_ACTORS_TEACHER_INQUIRER_H

#include "actors/teacher/capabilities.h"
#include "actors/teacher/endpoint.h"

typedef struct opd_inquirer opd_inquirer;

typedef struct opd_inquirer_options {
    opd_inquiry_options inquiry;
    opd_endpoint *endpoint;
    uint64_t attempt_timeout_ms; /* of one question */
    uint64_t deadline_ns;        /* of all          */
    /* The verdict is in inquirer->inquiry. An error fails the actor. */
    opd_err (*done)(opd_ctx *ctx, void *state, opd_inquirer *inquirer);
    void *arg; /* the user's: inquirer->o.arg */
} opd_inquirer_options;

struct opd_inquirer {
    opd_inquiry inquiry;
    /* internal */
    opd_inquirer_options o;
    struct opd__asked { opd_inquirer *inquirer; opd_question question; } asked[OPD_QUESTION_COUNT];
};

/* Begins to ask. Errors: those of opd_endpoint_send; nothing is under way then. */
OPD_MUST_CHECK opd_err opd_inquirer_start(opd_ctx *ctx, opd_inquirer *inquirer,
                                          const opd_inquirer_options *options);

#endif
