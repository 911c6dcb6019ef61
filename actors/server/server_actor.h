/* server_actor.h - the HTTP server of `opd serve`: SGLang's protocol in front of a scorer and a
 * rollout actor.
 *
 *   POST|PUT /generate    scores (max_new_tokens 0), generates, or both; one sequence or a batch
 *   GET /model_info       the model, and what only we tell: vocabulary, tokenizer, temperature
 *   GET /health, /health_generate   200 when a tiny forward pass works, else 503
 *   GET /server_info      what this server is
 *   POST /abort_request   {"rid": ...}: ends the sequence of exactly that rid and frees its work;
 *                         {"abort_all": true}: all of them
 *
 * Scores of a request without generation are taken at its temperature (scores_at_temperature);
 * next to generation they are plain log-softmax, as SGLang's. What we do not do (stop strings,
 * min_new_tokens, top log-probs of generated tokens) is refused by 400 and name.
 * More than max_queue requests at once, or more than max_work_bytes of them, are 503 with
 * Retry-After; so is a full queue of the actors behind. A rid that is in use is 400. A body
 * without the schema is 400 in the form {"object": "error"}, all else {"error": {"message"}}.
 * With api_key a request without `authorization: Bearer KEY` is 401 {"error": "Unauthorized"}, before its body.
 * STOP drains: no new connection, peers are told to go, new requests (but /abort_request) are 503 with Retry-After,
 * and what is under way is answered within drain_ms.
 * A peer that goes away has its requests cancelled. `faults` make it misbehave (faults.h).
 *
 * Thread: the loop. The actor owns the HTTP server; STOP closes it in order.
 */
#ifndef OPD_ACTORS_SERVER_SERVER_ACTOR_H
#define OPD_ACTORS_SERVER_SERVER_ACTOR_H

#include "actors/roles.h"
#include "actors/server/faults.h"
#include "models/model.h"
#include "models/tokenizer.h"

/* Pointers are borrowed and outlive the actor. */
typedef struct opd_server_config {
    const opd_roles *roles;         /* scorer; rollout, or nobody: no generation      */
    struct opd_env *env;
    const opd_alloc *alloc;
    const opd_model_config *model;
    const opd_tokenizer *tokenizer; /* NULL: ids only                                 */
    const char *model_path;
    const char *host;               /* NULL: 127.0.0.1                                */
    uint16_t port;                  /* 0: any free one                                */
    const struct opd_tls_options *tls; /* NULL: clear text                            */
    uint16_t *out_port;             /* set by the spawn: where it listens; may be NULL */
    uint32_t max_queue;             /* requests of /generate at once; 0: 1024           */
    uint64_t max_work_bytes;        /* what they and their answers take; 0: 512 MiB     */
    uint64_t drain_ms;              /* how long a STOP lets requests finish; 0: 1,000    */
    const char *api_key;            /* asked of every request but /health*; NULL: none   */
    opd_lane *write_lane;           /* writes large answers; NULL: the loop does         */
    opd_server_faults *faults;      /* NULL: none                                        */
} opd_server_config;

enum {
    OPD_SERVER_QUEUE_DEFAULT = 1024,
    OPD_SERVER_QUEUE_MAX = 4096, /* and so many answers at most wait for the lane */
    OPD_SERVER_WORK_BYTES_DEFAULT = 512 << 20,
    /* the HTTP server's bounds: a request's body, all bodies, all answers on their way */
    OPD_SERVER_BODY_BYTES_MAX = 64 << 20,
    OPD_SERVER_BODIES_BYTES_MAX = 256 << 20,
    OPD_SERVER_ANSWERS_BYTES_MAX = 256 << 20
};

extern const opd_actor_class opd_server_class;

#endif
