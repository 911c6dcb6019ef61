/* server_inside.h - the state of the server actor, shared by its files: server_actor.c (the
 * front: exchanges, routes, the simple answers), generate.c (what needs the model), answer.c
 * (what it is answered with) and misbehave.c (what a script of faults does to a visit).
 *
 * A visit is one HTTP exchange. It begins in the HTTP server's callback, reaches the actor as
 * an event, and ends with opd__visit_respond, which frees it.
 *
 * Invariants: (1) every exchange is answered exactly once; (2) a visit waits for `outstanding`
 * requests, and is answered when none is left; (3) the front outlives the actor until the HTTP
 * server has closed.
 * Thread: the loop.
 */
#ifndef OPD_ACTORS_SERVER_SERVER_INSIDE_H
#define OPD_ACTORS_SERVER_SERVER_INSIDE_H

#include "actors/messages.h"
#include "actors/server/server_actor.h"
#include "transports/http.h"
#include "transports/sglang.h"

typedef struct opd__front opd__front;
typedef struct opd__visit opd__visit;

typedef struct opd__server {
    opd_server_config c;
    opd_ctx *ctx;
    opd__front *front;
    opd_list visits;
    opd_list spent;       /* texts that the lane frees */
    uint64_t started_ns;  /* the clock of the faults */
    uint32_t queued;      /* visits of /generate */
    uint64_t work_bytes;  /* sum of their cost_bytes */
    bool draining;        /* STOP came: nothing new is begun                     */
    bool noticed;         /* and peers had the time to hear of it                */
    opd_timer drain;      /* until they had, and then until drain_ms are over    */
} opd__server;

/* One sequence of a visit. */
typedef struct opd__part {
    opd__visit *visit;
    int32_t *ids; /* [count], the visit's */
    size_t count;
    const opd_sglang_ask *ask; /* the request's item's; of a probe: nothing */
    bool aborted;
    uint64_t score_id, generate_id; /* requests under way; 0: none */
    opd_msg *scored, *generated;    /* replies kept */
    opd_scored_fields score;
    opd_generated_fields generation;
} opd__part;

struct opd__visit {
    opd_list node; /* in server->visits once the actor has it */
    opd__front *front;
    opd__server *server;
    const opd_alloc *alloc;
    opd_http_exchange *exchange;
    opd_event arrived, cancelled;
    uint64_t began_ns;

    opd_server_fault fault; /* NONE: it is served as it should be */
    opd_timer delay; /* of the fault */
    bool held;       /* nothing has begun: the delay runs, or no answer will ever come */

    bool queued;         /* counted in server->queued and ->work_bytes */
    uint64_t cost_bytes; /* upper bound of what it and its answer take, with the request's ids */
    opd_sglang_generate request;
    opd__part *parts; /* [part_count] */
    size_t part_count;
    uint32_t outstanding;
    bool health;  /* a probe: its answer has no body */
    opd_job writing; /* of the answer; while it is submitted the lane has the parts */
    opd_str answer;
    uint64_t answered_ns;
    opd_err err;  /* the first failure; decides the answer */
    char text[OPD_ERROR_TEXT_SIZE];
};

/* Answers with a JSON text and ends the visit. Takes str (initialised with the visit's alloc). */
void opd__visit_respond(opd__visit *visit, int status, opd_str *str);

/* Answers {"error": {"message"}} and ends the visit; 503 carries Retry-After. */
void opd__visit_refuse(opd__visit *visit, int status, const char *message);

/* The same in either form ({"object": "error"} if object_form); retry_after_s 0: no such header. */
void opd__visit_refuse_as(opd__visit *visit, int status, const char *message, bool object_form,
                          int retry_after_s);

/* The JSON of an error. *out_body has a reference of its own, or is empty without memory. */
void opd__error_body(const opd_alloc *alloc, int status, const char *message, bool object_form,
                     opd_slice *out_body);

/* Ends the visit without an answer (opd_http_exchange_drop). */
void opd__visit_drop(opd__visit *visit, uint32_t code, bool hang_up);

/* Serves the visit by its path. */
void opd__visit_dispatch(opd__visit *visit);

/* misbehave.c: serves the visit, or does to it what the script says. */
void opd__misbehave_begin(opd__visit *visit);

/* misbehave.c: the answer follows at once. */
void opd__misbehave_answer(opd__visit *visit);

/* misbehave.c: answers a request of which only the head is there, if the script says so. */
void opd__misbehave_early(opd_server_faults *faults, uint64_t elapsed_ns, const opd_alloc *alloc,
                          opd_http_exchange *exchange);

/* generate.c: begins POST /generate and GET /health; they answer later, or at once. */
void opd__generate_begin(opd__visit *visit);
void opd__health_begin(opd__visit *visit);

/* generate.c: cancels what the visit waits for; it is answered when all has ended. */
void opd__generate_cancel(opd__visit *visit);

/* generate.c: cancels the sequence of exactly this rid, NULL: all. Returns whether there is one. */
bool opd__generate_abort(opd__visit *visit, const char *rid);

/* generate.c: the first input token with an entry in input_token_logprobs; count: none. */
size_t opd__input_start(const opd__part *part);

/* answer.c: all replies are there: writes the answer, at once or on the lane, and ends the visit. */
void opd__answer_begin(opd__visit *visit);

/* answer.c: the text as a buffer, which owns it from now on; a large one is freed by the lane, since giving back
 * megabytes takes long, too. Errors: NOMEM. */
opd_err opd__answer_wrap(opd__visit *visit, opd_str *text, opd_buf **out_buf) OPD_MUST_CHECK;

/* answer.c: in on_stop, where no job runs any more: frees what the lane did not. */
void opd__answer_spent_free(opd__server *server);

/* Posts an event to the actor. Returns false, and does nothing, if it has ended. */
bool opd__front_post(opd__front *front, opd_event *event);

/* generate.c: frees what a visit holds besides the exchange. */
void opd__generate_fini(opd__visit *visit);

#endif
