/* server_actor.h - the HTTP server of `opd serve`: SGLang's protocol in front of a scorer and a
 * rollout actor.
 *
 *   POST|PUT /generate    scores (max_new_tokens 0), generates, or both; one sequence or a batch
 *   GET /model_info       the model, and what only we tell: vocabulary, tokenizer, temperature
 *   GET /health, /health_generate   200 when a tiny forward pass works, else 503
 *   GET /server_info      what this server is
 *   POST /abort_request   {"rid": ...}: ends the sequence of exactly that rid
 *
 * Scores of a request without generation are taken at its temperature (scores_at_temperature);
 * next to generation they are plain log-softmax, as SGLang's. What we do not do (stop strings,
 * min_new_tokens, top log-probs of generated tokens) is refused by 400 and name.
 * A full queue is 503 with Retry-After. A peer that goes away has its requests cancelled.
 *
 * Thread: the loop. The actor owns the HTTP server; STOP closes it in order.
 */
#ifndef OPD_ACTORS_SERVER_SERVER_ACTOR_H
#define OPD_ACTORS_SERVER_SERVER_ACTOR_H

#include "actors/roles.h"
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
} opd_server_config;

extern const opd_actor_class opd_server_class;

#endif
