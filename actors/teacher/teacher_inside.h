/* teacher_inside.h - the state of teacher_http, shared by its files: teacher_http.c (the questions),
 * teacher_fleet.c (requests and replicas), teacher_probe.c (a server's start, loss and return),
 * teacher_check.c (what it serves and can do), teacher_canary.c (whether it can be believed).
 * Nobody else includes it.
 *
 * A sample is here what one SCORE asks about. Invariants: (1) a sample is in exactly one list:
 * waiting (to be sent, or for a replica), pausing (its timer ends a pause), asked (one or two
 * requests are under way); (2) `ready` turns true once and stays; (3) nothing is sent to score to a
 * replica that is down, and the health is down exactly when all are, or none was up by the end
 * of the start; (4) a sample's timer runs; while it is asked, it tells when to hedge; (5) a request
 * that its sample does not wait for any more counts nowhere: it is only still to be freed;
 * (6) while the health is down only samples that wait for its return are kept.
 * Thread: the loop.
 */
#ifndef OPD_ACTORS_TEACHER_TEACHER_INSIDE_H
#define OPD_ACTORS_TEACHER_TEACHER_INSIDE_H

#include "actors/teacher/budget.h"
#include "actors/teacher/canary.h"
#include "actors/teacher/endpoint.h"
#include "actors/teacher/hedge.h"
#include "actors/teacher/inquirer.h"
#include "actors/teacher/policy.h"
#include "actors/teacher/reading.h"
#include "actors/teacher/replica.h"
#include "actors/teacher/teacher_http.h"
#include "transports/sglang.h"

#define OPD__TEACHER_TICK_NS ((uint64_t)1000000000) /* probes, PRESENCE and the lost clock */

enum { OPD__RID_SIZE = 48, OPD__TRIES_MAX = 2 /* the request and its hedge */ };

/* A replica's server, next to what the fleet knows of it. */
typedef struct opd__server {
    opd_endpoint *endpoint; /* NULL: none now                    */
    bool probing;
    bool hopeless;          /* its first probe can never succeed */
    bool refused;           /* it came back as another model     */
    char weight_version[OPD_SGLANG_NAME_SIZE]; /* of its last scores; "": not told yet */
    uint64_t lost_at_ns;
    uint64_t suspected_ns;  /* when it was last asked whether it is there after all */
    opd_inquirer inquirer;
    opd_capabilities found; /* what it can do ...    */
    bool known;             /* ... once it was asked */
    struct opd__round {     /* of canaries           */
        bool under_way, settles; /* settles: the server waits for it to be used */
        uint64_t due_ns, ended_ns;
        uint64_t connections; /* made to the server when a round was last answered */
        size_t sequence;    /* that is asked now ... */
        opd_endpoint_call *call; /* ... by this; NULL: none. Others are of rounds that were begun anew */
        opd_canary_scores scores;
    } round;
} opd__server;

typedef struct opd__sample opd__sample;

/* One request under way. */
typedef struct opd__attempt {
    opd_list node;       /* of attempts                       */
    opd__sample *sample; /* NULL: nobody waits for it any more */
    opd_endpoint_call *call;
    int server;
    bool trial;
    bool hedge; /* sent while another one was under way */
    uint64_t tokens, sent_ns;
    char rid[OPD__RID_SIZE];
} opd__attempt;

struct opd__sample {
    opd_list node;
    opd_msg *request;         /* the SCORE, held until it is answered */
    opd_score_fields ask;     /* of it; slices live as long           */
    uint32_t count, rows;     /* tokens, and how many are scored      */
    opd_scored_fields scored; /* the answer; owns its slices          */
    opd_timer timer;
    uint64_t taken_ns, deadline_ns;
    opd_teacher_history history;
    opd__attempt *tries[OPD__TRIES_MAX]; /* under way; NULL: none */
    int last_server;         /* that it was sent to, or NONE        */
    bool failed;             /* there: another one is preferred     */
    bool charged;            /* the next request is a retry         */
    uint64_t parked_ns, round_ns; /* began to wait; was sent        */
    char rid[OPD__RID_SIZE]; /* of the newest request               */
};

typedef struct opd__teacher {
    opd_teacher_http_config c;
    opd_ctx *ctx;
    opd_list waiting, pausing, asked;
    opd_list attempts;
    uint32_t asked_count;     /* requests that count                      */
    uint32_t waiting_count;   /* samples that wait for a teacher that is gone */
    uint64_t rid_nonce, rid_next;
    uint64_t version_changes; /* of weights, over all replicas */

    opd_endpoint_reader reader;
    const opd_teacher_protocol *protocol;
    char *api_key;            /* of its servers; NULL: none */

    opd_fleet fleet;
    opd_replica replicas[OPD_CONFIG_REPLICAS_MAX];
    opd__server servers[OPD_CONFIG_REPLICAS_MAX];
    opd_canary canary;
    bool dispute_told, unchecked_told;
    opd_budget budget;
    opd_hedge hedge;
    uint32_t endpoints_open; /* with those still closing  */
    opd_teacher_health health;
    opd_timer tick;
    opd_slot_watch watch;    /* of c.endpoint */
    bool ready, stopping, failed;
    bool late;               /* not ready in time, but there is a fallback         */
    opd_presence presence, presence_told; /* what the panel should know, and was told */
    char model[OPD_MESSAGE_TEXT_SIZE];    /* what is served, as the server says       */
    uint64_t start_by_ns;
    opd_err problem;         /* why the last probe failed  */
    char problem_text[512];
    bool denied;             /* it was the key             */
} opd__teacher;

/* ---- teacher_probe.c ---- */

/* Nanoseconds of a configured number of seconds. */
uint64_t opd__teacher_ns(double seconds);

/* Begins: opens the configured URLs, if any, and probes them. Errors: those of a URL. */
OPD_MUST_CHECK opd_err opd__teacher_begin(opd__teacher *self);

/* The host's news: a new URL, or "" for none. Errors: those of the URL. */
OPD_MUST_CHECK opd_err opd__teacher_move(opd__teacher *self, const char *url);

/* A server cannot be reached: it is probed until it is back; admission is held if it was the
 * last. */
OPD_MUST_CHECK opd_err opd__teacher_gone(opd__teacher *self, int server, const char *why);

/* A server that is up may be gone: it is asked, and lost if it does not say that it is there. */
OPD_MUST_CHECK opd_err opd__teacher_suspect(opd__teacher *self, int server);

/* A sample was answered. */
void opd__teacher_answered(opd__teacher *self);

/* A pause of the clock: probes, tells PRESENCE again, ends the run when the teacher is lost. */
OPD_MUST_CHECK opd_err opd__teacher_tick(opd__teacher *self);

/* Stops the system for err, once, with this thread's context. */
void opd__teacher_fail(opd__teacher *self, opd_err err);

/* "host:port" of a replica. */
const char *opd__teacher_where(const opd__teacher *self, int server);

/* A server is there and serves the right thing: it is used, unless it is in quarantine. */
OPD_MUST_CHECK opd_err opd__teacher_settled(opd__teacher *self, int server);

/* A replica went into quarantine: the teacher may be lost by that. */
void opd__teacher_unusable(opd__teacher *self, const char *why);

/* What was to settle a server got no answer. */
OPD_MUST_CHECK opd_err opd__teacher_probe_failed(opd__teacher *self, opd__server *server, opd_err err,
                                                 const char *why);

/* ---- teacher_check.c ---- */

/* Whether what is served is a teacher of the student. Errors: MISMATCH, UNSUPPORTED (temperature). What
 * the server does not tell is not an error. */
OPD_MUST_CHECK opd_err opd__teacher_check_info(const opd__teacher *self, int server,
                                               const opd_sglang_model_info *info);

/* Says what could not be compared, if anything; once. */
void opd__teacher_warn_unchecked(opd__teacher *self, const opd_sglang_model_info *info);

/* The same of all that was learnt of a server; keeps it, says it, writes it to the account. */
OPD_MUST_CHECK opd_err opd__teacher_take_capabilities(opd__teacher *self, int server,
                                                      const opd_capabilities *found);

/* Whether its servers keep what they computed of a prefix, by the configuration or by their answers. */
bool opd__teacher_reuses_prefix(const opd__teacher *self);

/* The form in which alternatives are to be asked for. */
opd_sglang_form opd__teacher_form(const opd__teacher *self, int server);

/* ---- teacher_canary.c ---- */

void opd__canary_init(opd__teacher *self);
bool opd__canary_is_on(const opd__teacher *self);

/* What is asked about a sequence. */
opd_sglang_score opd__canary_question(const opd__teacher *self, size_t sequence, const char *rid);

/* A round whose end settles the server. Errors: those of opd_endpoint_send; nothing is under way then. */
OPD_MUST_CHECK opd_err opd__canary_settle(opd__teacher *self, opd__server *server);

/* A sample was answered: a round begins if a connection is new, for another server may be at the address. */
void opd__canary_look(opd__teacher *self, int server);

/* Begins the rounds that are due. */
void opd__canary_tick(opd__teacher *self);

/* ---- teacher_fleet.c ---- */

void opd__fleet_init(opd__teacher *self);

/* The replica for a sample now, or OPD_REPLICA_NONE; other_only: not the one it was sent to
 * last. */
int opd__fleet_choose(opd__teacher *self, const opd__sample *s, bool other_only);

/* Sends a request of s to a replica, answered by `answered` with the attempt as its arg. Errors:
 * those of opd_endpoint_send and of the body; nothing is under way then. */
OPD_MUST_CHECK opd_err opd__fleet_send(opd__teacher *self, opd__sample *s, int server,
                                       opd_err (*answered)(opd_ctx *, void *, opd_endpoint_call *));

/* Whether requests of s are under way. */
bool opd__fleet_asked(const opd__sample *s);

/* A request that its sample waits for ended like that: the books of its replica. usable: the
 * answer was read. Says on the screen what changed. */
void opd__fleet_judge(opd__teacher *self, const opd__attempt *attempt, opd_teacher_verdict verdict,
                      bool usable);

/* Takes an ended attempt out of all books; frees it. */
void opd__fleet_forget(opd__teacher *self, opd__attempt *attempt);

/* Ends what is still under way for s, whose result nobody needs: cancelled here, and aborted at
 * the server by its exact rid. */
void opd__fleet_abort(opd__teacher *self, opd__sample *s);

/* ---- teacher_http.c ---- */

/* Sends what waits, as far as it may; while no replica can be reached, lets go of the samples that
 * are not to wait for one. */
OPD_MUST_CHECK opd_err opd__teacher_pump(opd__teacher *self);

/* What a server is asked about a sample. */
struct opd_sglang_score opd__teacher_question(const opd__teacher *self, const opd__sample *s, int server);

#endif
