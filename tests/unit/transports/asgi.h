/* asgi.h - tests/peers/scoring_app.py under a server of others, behind a proxy of others or not.
 *
 * asgi_up starts both on free ports of 127.0.0.1, with a folder of their own under /tmp, and returns when
 * both take connections; asgi_down ends them by their ids and removes the folder. They die with the
 * test, too. What is not installed is a counted skip.
 * The scores are a hash of the ids, the same here and in the app. Thread: the test's; no loop is run.
 */
#ifndef OPD_TESTS_UNIT_TRANSPORTS_ASGI_H
#define OPD_TESTS_UNIT_TRANSPORTS_ASGI_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum { ASGI_VOCAB = 151936 };

typedef struct asgi_options {
    const char *server; /* "uvicorn" or "hypercorn"                                   */
    const char *args;   /* more words for it, such as "--timeout-keep-alive 1"; NULL  */
    const char *knobs;  /* variables for the app, such as "SCORING_FORM=flat"; NULL   */
    const char *proxy;  /* "nginx", "haproxy", "nghttpx"; NULL: none                  */
    const char *extra;  /* lines for the proxy's configuration; NULL                  */
    bool secure;        /* over TLS, with certificates that args or extra name        */
} asgi_options;

typedef struct asgi_stack {
    char folder[32];
    unsigned app_port, port; /* port: the proxy's, or the app's own */
    pid_t app, proxy;        /* proxy 0: none                       */
    char url[64];
} asgi_stack;

void asgi_up(asgi_stack *a, const asgi_options *options);
void asgi_down(asgi_stack *a);

/* Kills the app; starts it again on its port, without waiting for it. The proxy stays. */
void asgi_app_kill(asgi_stack *a);
void asgi_app_start(asgi_stack *a, const asgi_options *options);

/* What is in a file of the folder (the proxy's "access.log"); the caller frees it. */
char *asgi_file(const asgi_stack *a, const char *name);

/* The hash of the ids up to `token`, given that of those before it (at first ASGI_START); what it means:
 * the token's log-prob, and the alternative of a rank from 0. */
#define ASGI_START 2166136261u
uint32_t asgi_digest(uint32_t before, int32_t token);
float asgi_logp(uint32_t digest);
int32_t asgi_topk_id(uint32_t digest, int rank);
float asgi_topk_logp(uint32_t digest, int rank);

#endif
