/* prober_actor.h - one server asked and measured: what `opd teacher probe` runs.
 *
 * First the questions of capabilities.h, then, where it can score, a load: first one request at a time,
 * for a fifth of the time, then `concurrency` at once, each a sequence that no cache can know. The
 * system stops with OPD_OK when the report is complete, whatever it says.
 *
 * Thread: the loop. Memory: the report is the caller's and outlives the actor; nothing else is left.
 */
#ifndef OPD_ACTORS_TEACHER_PROBER_ACTOR_H
#define OPD_ACTORS_TEACHER_PROBER_ACTOR_H

#include "actors/teacher/capabilities.h"
#include "opd/actor.h"

struct opd_env;
struct opd_tls_options;

enum { OPD_PROBER_LATENCIES_MAX = 1 << 16 /* of one phase; more are counted, not ranked */ };

/* One phase of the load. */
typedef struct opd_prober_phase {
    uint32_t concurrency, tokens; /* requests at once; tokens of each, the prompt included */
    double seconds;
    uint64_t requests, failures;  /* ended; of those without usable scores                  */
    uint64_t scored, valid;       /* tokens                                                 */
    uint64_t bytes_up, bytes_down; /* bodies of the good ones                               */
    double p50_ms, p99_ms;
} opd_prober_phase;

typedef struct opd_prober_report {
    bool usable;
    char reason[OPD_SGLANG_MESSAGE_SIZE]; /* why not                          */
    opd_inquiry inquiry;                  /* with what was found              */
    opd_prober_phase alone, crowd;
    char failure[OPD_SGLANG_MESSAGE_SIZE]; /* of the load, the first; "": none */
} opd_prober_report;

/* Pointers are borrowed and outlive the actor. */
typedef struct opd_prober_config {
    struct opd_env *env;
    const opd_alloc *alloc;
    const opd_teacher_protocol *protocol;
    const char *url;
    const struct opd_tls_options *tls;
    const char *api_key;   /* NULL: none */
    uint32_t tokens, top_k, concurrency; /* concurrency >= 1, tokens >= 2 */
    double seconds, timeout_s, connect_timeout_s;
    opd_prober_report *report;
} opd_prober_config;

extern const opd_actor_class opd_prober_class;

#endif
