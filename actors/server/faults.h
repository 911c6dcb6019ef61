/* faults.h - scripted misbehaviour of a server: which request goes wrong, and how.
 *
 * A script has one JSON object a line; empty lines and lines that begin with # are passed over.
 * Each is a rule: which requests it is about, and what is done with them. Of several that fit a
 * request the first that fires counts. docs/teacher.md lists every key.
 *
 *     {"path": "/generate", "nth": 3, "do": "reset", "code": "INTERNAL_ERROR"}
 *     {"every": 2, "probability": 0.5, "seed": 7, "do": "value", "text": "NaN", "row": 1}
 *     {"do": "status", "status": 503, "retry_after_s": 1, "from": 10, "until_s": 30}
 *
 * Pure logic: no I/O, no clock, no HTTP; the server does what an opd_server_fault says. The same script
 * and the same order of requests give the same faults.
 *
 * Thread: one at a time. Memory: opd_server_faults owns its rules; an opd_server_fault is a plain value.
 */
#ifndef OPD_ACTORS_SERVER_FAULTS_H
#define OPD_ACTORS_SERVER_FAULTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/str.h"
#include "opd/alloc.h"
#include "opd/err.h"
#include "transports/sglang.h"

enum { OPD_SERVER_FAULT_TEXT_SIZE = 128, OPD_SERVER_FAULTS_RULES_MAX = 256, OPD_SERVER_FAULTS_BYTES_MAX = 1 << 20 };

typedef enum opd_server_fault_kind {
    OPD_SERVER_FAULT_NONE,
    /* when */
    OPD_SERVER_FAULT_DELAY, /* delay_ms alone                                           */
    OPD_SERVER_FAULT_HANG,  /* no answer at all                                         */
    /* the wire */
    OPD_SERVER_FAULT_STALL,    /* the body stops after `bytes` and never ends           */
    OPD_SERVER_FAULT_TRUNCATE, /* the body ends after `bytes` of the announced length   */
    OPD_SERVER_FAULT_RESET,    /* RST_STREAM with `code`                                */
    OPD_SERVER_FAULT_GOAWAY,   /* `goaway`                                              */
    OPD_SERVER_FAULT_SETTINGS, /* the peer may have `streams` at once from now on       */
    OPD_SERVER_FAULT_CLOSE,    /* the connection ends, with all that is on it           */
    /* statuses */
    OPD_SERVER_FAULT_STATUS,   /* `status` with `text` and perhaps Retry-After          */
    OPD_SERVER_FAULT_EARLY,    /* the same before the request's body has come           */
    /* answers with 200 */
    OPD_SERVER_FAULT_ABORT,          /* finish_reason abort with `text`, no rows        */
    OPD_SERVER_FAULT_NAN_HAPPENED,   /* finish_reason stop, matched "NaN happened"      */
    OPD_SERVER_FAULT_VALUE,          /* the log-prob of `row` is the literal `text`     */
    OPD_SERVER_FAULT_SHORT,          /* the last row is missing                         */
    OPD_SERVER_FAULT_LONG,           /* one row too many, in front                      */
    OPD_SERVER_FAULT_IDS,            /* `row` is about another token                    */
    OPD_SERVER_FAULT_RAGGED,         /* the top-k of `row` ends after its first entry   */
    OPD_SERVER_FAULT_PROMPT_TOKENS,  /* one fewer than were sent                        */
    OPD_SERVER_FAULT_WEIGHT_VERSION, /* `text`                                          */
    OPD_SERVER_FAULT_UNIFORM,        /* every log-prob is that of a uniform softmax     */
    OPD_SERVER_FAULT_PAD,            /* `bytes` of text more than there should be       */
    /* of the server, not of a request */
    OPD_SERVER_FAULT_IDLE_CLOSE, /* connections without a request for delay_ms end      */
    OPD_SERVER_FAULT_HTTP1_ONLY, /* no HTTP/2, as uvicorn                               */
    OPD_SERVER_FAULT_KIND_COUNT
} opd_server_fault_kind;

/* Which GOAWAY. */
typedef enum opd_server_fault_goaway {
    OPD_SERVER_FAULT_GOAWAY_GRACEFUL, /* this request is still answered                 */
    OPD_SERVER_FAULT_GOAWAY_DROP,     /* this request was not processed                 */
    OPD_SERVER_FAULT_GOAWAY_TWO_STEP, /* a notice now, the final one with the answer    */
    OPD_SERVER_FAULT_GOAWAY_CALM      /* ENHANCE_YOUR_CALM, and not processed           */
} opd_server_fault_goaway;

/* What is done with one request. */
typedef struct opd_server_fault {
    opd_server_fault_kind kind;
    uint32_t delay_ms; /* before anything else happens */
    uint32_t bytes, row, streams, code; /* code: RFC 9113 section 7 */
    int status, retry_after_s;          /* retry_after_s 0: no such header */
    bool chunked;     /* STALL, TRUNCATE over HTTP/1.1: not by content-length */
    bool object_form; /* {"object": "error", ...} instead of {"error": {...}} */
    opd_server_fault_goaway goaway;
    char text[OPD_SERVER_FAULT_TEXT_SIZE];
} opd_server_fault;

typedef struct opd_server_faults opd_server_faults;

/* Reads a script; `name` is what errors call it. Errors: CONFIG ("NAME:LINE: what"), NOMEM. */
OPD_MUST_CHECK opd_err opd_server_faults_read(const opd_alloc *alloc, const char *name, const char *data,
                                       size_t size_bytes, opd_server_faults **out_faults);

/* The same from a file. Errors: those of opd_file_read besides. */
OPD_MUST_CHECK opd_err opd_server_faults_open(const opd_alloc *alloc, const char *path,
                                       opd_server_faults **out_faults);

/* NULL is legal. */
void opd_server_faults_destroy(opd_server_faults *faults);

/* What happens to the next request of `path` (its query is not looked at), elapsed_ns after the
 * server's start. early: asked before the request's body has come, about EARLY rules alone;
 * else about all others. Returns false, and *out_fault NONE, if nothing does. faults NULL: the same. */
bool opd_server_faults_next(opd_server_faults *faults, const char *path, bool early, uint64_t elapsed_ns,
                     opd_server_fault *out_fault);

/* Milliseconds after which an idle connection is closed; 0: never. */
uint32_t opd_server_faults_idle_close_ms(const opd_server_faults *faults);

/* Whether the server is to speak HTTP/1.1 alone. */
bool opd_server_faults_http1_only(const opd_server_faults *faults);

/* How many requests a rule has fired on, over all rules. */
uint64_t opd_server_faults_fired(const opd_server_faults *faults);

/* ---- answers (faults_answer.c) ---- */

/* The numbers behind answer->input, [count] and [count, top_k], which a fault may change. */
typedef struct opd_server_fault_numbers {
    int32_t *ids;
    float *logp, *topk_logps;
    int32_t *topk_ids;
    int32_t vocab_size;
} opd_server_fault_numbers;

/* Changes an answer that is about to be written. Other kinds leave it as it is. */
void opd_server_fault_answer(const opd_server_fault *fault, const opd_server_fault_numbers *numbers,
                      opd_sglang_answer *answer);

/* Changes the text of a written answer. Errors are those of `text`. */
void opd_server_fault_text(const opd_server_fault *fault, opd_str *text);

#endif
