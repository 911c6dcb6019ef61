/* opd/run.h - what the opd command does, as calls: run, serve, eval, generate, teacher probe.
 *
 * Each call builds its own event loop, runs to its end on the calling thread and leaves
 * nothing behind (threads, handles, children). Calls may follow one another, but only one may
 * run at a time in a process: the log's level and sink are the process's. Errors carry a
 * one-paragraph context (opd/err.h).
 * Implemented by actors/run.
 */
#ifndef OPD_RUN_H
#define OPD_RUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "opd/config.h"
#include "opd/err.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Version of the library, "MAJOR.MINOR.PATCH". */
const char *opd_version(void);

typedef struct opd_run_options {
    opd_config *config;        /* loaded (opd/config.h); borrowed                         */
    bool resume;               /* go on in an existing run folder                         */
    bool force;                /* replace an existing run folder                          */
    bool handle_signals;       /* SIGINT and SIGTERM stop in order and save               */
    const char *program;       /* path of the opd command, to start `opd serve` children;
                                  NULL: /proc/self/exe                                    */
    FILE *screen;              /* progress and the final table; NULL: none                */
} opd_run_options;

/* Runs a recipe: every stage in order, results under runs/NAME/. Blocks until the end.
 * Errors: CONFIG, EXISTS (the run folder), NOT_FOUND, MISMATCH (teacher and student),
 * REFUSED/TIMEOUT (teacher unreachable at start), TEACHER_LOST, NUMERIC, DISK,
 * INTERRUPTED (stopped by a signal; a checkpoint was saved). */
OPD_MUST_CHECK opd_err opd_run(const opd_run_options *options);

typedef struct opd_serve_options {
    const char *model;         /* Hugging Face directory                                  */
    const char *host;          /* NULL: 127.0.0.1                                         */
    int port;                  /* 0: any free port                                        */
    int threads;               /* compute threads, 0: 1                                   */
    int max_sequences;         /* sequences generated at once, 0: 64                      */
    const char *tls_cert;      /* PEM chain; NULL: clear text                             */
    const char *tls_key;       /* its key, PEM; NULL: in tls_cert                         */
    const char *tls_client_ca; /* clients must show a certificate of these; NULL: need not */
    int max_queue;             /* requests of /generate at once, 0: 1024; more are 503    */
    const char *api_key_file;  /* its first line is the key that clients must show, ...    */
    const char *api_key_env;   /* ... or the value of this variable; NULL: no key          */
    int drain_s;               /* how long requests may take after a signal, 0: 30        */
    const char *faults;        /* a script of misbehaviour (docs/teacher.md); NULL: none  */
    int prefix_cache_mb;       /* MiB of keys and values kept of scored texts, 0: 256; < 0: none */
    bool handle_signals;
    bool exit_with_parent;     /* stop when the starting process is gone                  */
    FILE *screen;              /* the ready line "opd serve: ready on http[s]://HOST:PORT" */
} opd_serve_options;

/* Serves a model over HTTP/2 (TLS with tls_cert; else cleartext, prior knowledge) with SGLang's
 * /generate, /health and /model_info until a signal stops it. Errors: NOT_FOUND, PARSE, INVALID
 * (a certificate or key that cannot be used), CONFIG (the script of faults), EXISTS (port busy). */
OPD_MUST_CHECK opd_err opd_serve(const opd_serve_options *options);

/* A share of right answers with its Wilson 95 % interval; all in 0..1. */
typedef struct opd_accuracy {
    double accuracy, low, high;
    size_t n;
} opd_accuracy;

typedef struct opd_eval_options {
    const opd_config *config;  /* its first stage with an eval.path says what and how     */
    const char *model;         /* Hugging Face directory                                  */
    bool handle_signals;
    FILE *screen;
} opd_eval_options;

/* Evaluates a model on the configuration's eval set: pass@1. */
OPD_MUST_CHECK opd_err opd_evaluate(const opd_eval_options *options, opd_accuracy *out);

typedef struct opd_generate_options {
    const char *model;         /* Hugging Face directory                                  */
    const char *prompt;        /* text                                                    */
    int max_tokens;            /* 0: 256                                                  */
    int count;                 /* answers to the prompt, 0: 1                             */
    double temperature;        /* 0: greedy                                               */
    double top_p;              /* 0 or 1: off                                             */
    int top_k;                 /* 0: off                                                  */
    uint64_t seed;
    bool handle_signals;
    FILE *out;                 /* one answer per line                                     */
} opd_generate_options;

/* Generates text from a prompt. Errors: NOT_FOUND, PARSE, INVALID (prompt too long). */
OPD_MUST_CHECK opd_err opd_generate(const opd_generate_options *options);

typedef struct opd_teacher_probe_options {
    const char *url;           /* http[s]://host:port                                     */
    const char *protocol;      /* "sglang", "vllm"; NULL: sglang                          */
    const char *api_key_env;   /* environment variable with the key; NULL: none           */
    const char *api_key_file;  /* the same in a file's first line; NULL: none             */
    const char *ca_file, *cert_file, *key_file; /* as teachers.NAME has them; NULL: none  */
    bool unverified;           /* believe any https server                                */
    int tokens;                /* of a sequence, 0: 512                                   */
    int top_k;                 /* alternatives per token                                  */
    int concurrency;           /* requests at once, 0: 16                                 */
    double seconds;            /* of load, 0: 3                                           */
    double timeout_s;          /* of one request, 0: 30                                   */
    bool json;                 /* one JSON object instead of text                         */
    bool handle_signals;
    FILE *out;                 /* the report; NULL: none                                  */
} opd_teacher_probe_options;

/* Asks a server what it can do, measures it under load and prints a report that ends with what to put
 * into a configuration. Errors: INVALID (options), CONFIG (the key), REMOTE (it cannot be used as a
 * teacher; the report says so too), INTERRUPTED. */
OPD_MUST_CHECK opd_err opd_teacher_probe(const opd_teacher_probe_options *options);

/* What `opd reward-host FILE` does, the child process of reward.type library: loads the shared object
 * (opd/reward.h), answers the questions on stdin on stdout, returns at the end of stdin. Errors:
 * NOT_FOUND, INVALID (no such function), UNSUPPORTED (another version), REMOTE (init failed), PARSE, IO. */
OPD_MUST_CHECK opd_err opd_reward_host(const char *library_path);

#ifdef __cplusplus
}
#endif
#endif
