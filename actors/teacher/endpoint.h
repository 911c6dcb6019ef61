/* endpoint.h - HTTP calls of an actor to one URL, with the answers as events of that actor.
 *
 * The HTTP client calls back from the loop at any time, also when the actor is gone. This
 * adapter owns what must outlive the actor: the client and the calls on their way.
 *
 * Invariants: (1) every call sent is answered exactly once, later, in the actor's own context,
 * unless the actor ends first; then the endpoint closes by itself and calls nobody; (2) an
 * answer is read, if it is to be, after it came whole and before it is answered; (3) an
 * endpoint is freed when its client has closed and its last call was answered or dropped.
 * Thread: the loop.
 */
#ifndef OPD_ACTORS_TEACHER_ENDPOINT_H
#define OPD_ACTORS_TEACHER_ENDPOINT_H

#include "opd/actor.h"
#include "transports/http.h"

typedef struct opd_endpoint opd_endpoint;

enum { OPD_ENDPOINT_HEADERS_MAX = 2 }; /* of one call */

/* A call; a block of the endpoint's. */
typedef struct opd_endpoint_call {
    opd_http_call http; /* answer: err, status, answer, error; opd_http_call_header */
    opd_str body;       /* to be filled in before it is sent; empty: GET            */
    /* Gets the answer. The call is freed when it returns; an error fails the actor. */
    opd_err (*answered)(opd_ctx *ctx, void *state, struct opd_endpoint_call *call);
    void *arg; /* the user's */

    /* Where a 200 answer must be read before `answered`; NULL: it is not. `read` touches nothing
     * but the call's answer and `reading`, for a large answer is read on the reader's lane. */
    opd_err (*read)(struct opd_endpoint_call *call);
    void (*read_drop)(struct opd_endpoint_call *call); /* frees `reading`, with the call */
    void *reading;
    opd_err read_err; /* what read returned, and its words */
    char read_text[OPD_ERROR_TEXT_SIZE];

    /* internal */
    opd_endpoint *endpoint;
    opd_http_header headers[OPD_ENDPOINT_HEADERS_MAX + 1]; /* the call's and the endpoint's */
    opd_event event;
    opd_job job;
    opd_list node; /* of the reader's calls while a lane has it; of the endpoint's spare ones */
} opd_endpoint_call;

/* Who reads answers; a part of the actor's state. */
typedef struct opd_endpoint_reader {
    opd_lane *lane;          /* NULL: all are read on the loop             */
    size_t inline_max_bytes; /* larger ones are read on the lane           */
    opd_list calls;          /* with the lane; internal                    */
} opd_endpoint_reader;

/* Before the first endpoint is opened / in on_stop, where no job runs any more: frees the calls
 * whose answers nobody gets. */
void opd_endpoint_reader_init(opd_endpoint_reader *reader, opd_lane *lane,
                              size_t inline_max_bytes);
void opd_endpoint_reader_fini(opd_endpoint_reader *reader);

typedef struct opd_endpoint_options {
    const opd_alloc *alloc;
    struct opd_env *env;
    const char *url;         /* http[s]://host:port[/prefix][/generate]; copied   */
    const struct opd_tls_options *tls; /* of an https url; NULL: the system's trust. Not kept */
    const char *api_key;     /* sent with every call; NULL: none. Copied, wiped with the endpoint */
    uint32_t max_inflight;
    uint32_t connections;    /* at once, over HTTP/2; 0: 1                        */
    uint64_t connect_timeout_ms;
    size_t max_body_bytes;   /* of one request                                    */
    opd_endpoint_reader *reader; /* outlives the jobs; NULL: no call has `read`   */
    size_t max_answer_bytes; /* of one answer; of all at once: times max_inflight */
    /* Called in the actor's context when a closed endpoint is gone; may be NULL. */
    opd_err (*closed)(opd_ctx *ctx, void *state, opd_endpoint *endpoint);
} opd_endpoint_options;

/* Opens nothing yet. A trailing "/generate" of the URL, as the seed's --rm-url has it, is left
 * off. Errors: those of opd_http_client_create. */
OPD_MUST_CHECK opd_err opd_endpoint_open(opd_ctx *ctx, const opd_endpoint_options *options,
                                         opd_endpoint **out_endpoint);

/* A zeroed call of this endpoint with an empty body, to be sent or destroyed. Errors: NOMEM. */
OPD_MUST_CHECK opd_err opd_endpoint_call_create(opd_endpoint *endpoint,
                                                opd_endpoint_call **out_call);
void opd_endpoint_call_destroy(opd_endpoint_call *call);

/* Sends a call; takes it on OK only. Set before: http.path, http.deadline_ns,
 * http.attempt_timeout_ms, body, answered, arg; at most OPD_ENDPOINT_HEADERS_MAX headers. Errors: AGAIN (too many wait), CLOSED, those of
 * the body. */
OPD_MUST_CHECK opd_err opd_endpoint_send(opd_endpoint_call *call);

/* Ends a sent call soon: it is answered CANCELLED, or with the answer that was on its way. */
void opd_endpoint_cancel(opd_endpoint_call *call);

/* Begins to close: calls under way are answered CLOSED, then `closed` is called. The endpoint is
 * not to be used any more. NULL is legal. */
void opd_endpoint_close(opd_endpoint *endpoint);

/* What it speaks, as far as that is known. */
opd_http_protocol opd_endpoint_protocol(const opd_endpoint *endpoint);

/* How many connections to it were made so far. */
uint64_t opd_endpoint_connections(const opd_endpoint *endpoint);

/* "host:port". */
const char *opd_endpoint_name(const opd_endpoint *endpoint);

#endif
