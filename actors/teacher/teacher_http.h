/* teacher_http.h - a teacher behind a server, or behind several that serve the same: SCORE requests
 * out over HTTP, SCORED back.
 *
 * In: SCORE (requests, each answered exactly once unless the actor ends, which answers CLOSED): with
 * scores, or with none and the reason. While no replica can be reached those that are not to wait
 * are answered CLOSED at once. The URL of a launched server comes from its host's slot. Out:
 * PRESENCE to the panel (roles->teacher) whenever it changes; notes to the monitor.
 *
 * At start the server is asked what it serves (GET /model_info); nothing is scored before
 * it answered, and a model of another vocabulary or tokenizer is refused; with teacher->probe also what
 * it can do (capabilities.h). What it serves is asked again whenever it comes back after a loss. With
 * teacher->canary_s each replica scores fixed sequences from time to time, and one whose scores cannot be
 * believed is asked nothing else until they can (canary.h).
 *
 * What goes wrong for good stops the system: REFUSED or TIMEOUT (not reachable within
 * start_timeout_s, and it has no fallback), MISMATCH, UNSUPPORTED (temperature), TEACHER_LOST (no
 * answer for teacher_lost_s while samples wait for it). What goes wrong with a sample is a reason in
 * its SCORED.
 *
 * Thread: the loop; large answers are read by jobs on the lane `parse` (reading.h). The decisions
 * are in policy.h.
 */
#ifndef OPD_ACTORS_TEACHER_TEACHER_HTTP_H
#define OPD_ACTORS_TEACHER_TEACHER_HTTP_H

#include "actors/roles.h"
#include "opd/config.h"

enum { OPD_TEACHER_MAILBOX_MSGS = 1024, OPD_TEACHER_MAILBOX_BYTES = 16 << 20 };

/* What a run's summary says about a teacher; written on the loop. */
typedef struct opd_teacher_account {
    char capabilities[2048]; /* of the first server that answered, a JSON object; "": not asked */
    uint64_t quarantines;    /* of its replicas */
} opd_teacher_account;

/* Pointers are borrowed and outlive the actor. */
typedef struct opd_teacher_http_config {
    const opd_roles *roles;
    struct opd_env *env;
    const opd_alloc *alloc;
    const opd_config_teacher *teacher;
    uint32_t place;     /* in stage->teachers, for PRESENCE              */
    opd_slot *endpoint; /* where the url is "": the present one, as teacher_host.h says */
    double teacher_lost_s;
    uint32_t top_k;     /* alternatives that will be asked for at most   */
    uint32_t max_len;   /* tokens of a rollout at most; 0: not known     */
    double temperature; /* of the rollouts; greedy (0) counts as 1       */
    /* the student, with which the teacher must agree; -1 and "": not known */
    int32_t vocab_size, bos_id, eos_id, pad_id;
    const struct opd_tokenizer *tokenizer; /* for canaries of text; NULL: of random ids */
    opd_teacher_account *account;          /* NULL: none                                */
    const char *tokenizer_hash; /* 16 hex digits */
    opd_lane *parse;      /* reads large answers; NULL: the loop does */
} opd_teacher_http_config;

extern const opd_actor_class opd_teacher_http_class;

/* Bytes of one question and of its answer at most, for sequences of max_len tokens (0: unknown)
 * and top_k ids per token: the client refuses more (LIMIT). */
uint64_t opd_teacher_question_max_bytes(uint32_t max_len);
uint64_t opd_teacher_answer_max_bytes(uint32_t max_len, uint64_t top_k);

#endif
