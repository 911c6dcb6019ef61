/* policy.h - the decisions of a teacher's client: what to try again, when, and whether the
 * teacher is there.
 *
 * Pure functions over plain values: no time, no I/O, no actors. The sources of the rules are
 * those of HTTP retry practice: a request that cannot succeed is not repeated, a server that
 * asks for time gets it, and a lost connection is waited for rather than counted against the
 * sample that happened to be under way.
 *
 * Thread: any. Nothing to free.
 */
#ifndef OPD_ACTORS_TEACHER_POLICY_H
#define OPD_ACTORS_TEACHER_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "opd/err.h"

enum {
    /* An invalid answer is asked for once more; the second makes the sample invalid. */
    OPD_TEACHER_INVALID_MAX = 2,
    /* Connections that broke under one request: a sample that kills its teacher each time
     * must not keep the run from going on. */
    OPD_TEACHER_BREAKS_MAX = 8
};

/* What to do with a sample after one attempt. */
typedef enum opd_teacher_verdict {
    OPD_TEACHER_READ,   /* status 200: the body decides                              */
    OPD_TEACHER_RETRY,  /* again after a pause, if attempts are left                 */
    OPD_TEACHER_WAIT,   /* the endpoint is gone: again when it is back, no attempt used */
    OPD_TEACHER_GIVE_UP /* asking again cannot help                                  */
} opd_teacher_verdict;

/* Judges how a call ended: `err` of the transport, and the HTTP `status` where err is OK.
 * Gone are REFUSED, RESET, CLOSED and NOT_FOUND (the host's name), and a proxy's 502; its 503 is told from
 * a busy server's by another question (teacher_probe.c). Given up are LIMIT,
 * UNSUPPORTED, INVALID, and every status but 200, 408, 429 and 5xx. */
opd_teacher_verdict opd_teacher_judge(opd_err err, int status);

/* What a sample has been through. */
typedef struct opd_teacher_history {
    uint32_t attempts; /* requests sent                                     */
    uint32_t retries;  /* of those, how many count against the allowance    */
    uint32_t invalid;  /* answers that were not about what was sent         */
    uint32_t breaks;   /* connections that broke after the request was sent, also behind a proxy */
} opd_teacher_history;

/* Turns a verdict into one that honours the allowance: RETRY and WAIT become GIVE_UP where
 * `history` (this attempt counted in) has used up retries_max, INVALID_MAX or BREAKS_MAX. */
opd_teacher_verdict opd_teacher_limit(opd_teacher_verdict verdict,
                                      const opd_teacher_history *history, uint32_t retries_max);

/* Pause before retry number `retry` (1, 2, ...): base_ms doubled each time up to max_ms, of
 * which the upper half is random (bits); never less than retry_after_ms. */
uint64_t opd_teacher_backoff_ms(uint32_t retry, uint64_t base_ms, uint64_t max_ms,
                                uint64_t retry_after_ms, uint64_t bits);

/* The Retry-After header in milliseconds: whole seconds, at most an hour; 0 for NULL, a date or
 * anything else. */
uint64_t opd_teacher_retry_after_ms(const char *value);

/* Drops (valid 0, score 0) the scores that are those of a uniform softmax over vocab_size to the
 * last bits of a float32: what servers write that turn the NaN logits of a row into zeros, with
 * status 200. topk_ids, topk_logp: [count, k], the alternatives of each row, -1 where there is none; one that is
 * likelier than uniform shows that the row is not, and its score stays. Without (k 0) a trained model hits that
 * number by chance about once in a million tokens, one that has hardly learnt once in some ten thousand, which then
 * costs that token alone. vocab_size < 2: not known, nothing is dropped. Returns how many. */
size_t opd_teacher_uniform_drop(float *logp, uint8_t *valid, size_t count, const int32_t *topk_ids,
                                const float *topk_logp, size_t k, int32_t vocab_size);

/* Whether the teacher is there, and since when it has kept work waiting. Zeroed: up, idle. */
typedef struct opd_teacher_health {
    bool down;
    bool working;      /* samples wait for an answer        */
    uint64_t since_ns; /* working: the last answer or start */
} opd_teacher_health;

/* Samples wait (or none does any more). */
void opd_teacher_health_work(opd_teacher_health *health, bool waiting, uint64_t now_ns);

/* A whole answer came that could be used. One that is down is no more there for it: it may have been
 * sent before. */
void opd_teacher_health_answer(opd_teacher_health *health, uint64_t now_ns);

/* The endpoint is there again, though it has answered no sample yet. Returns whether it was down. */
bool opd_teacher_health_back(opd_teacher_health *health);

/* The endpoint is gone. Returns whether it was up until now. */
bool opd_teacher_health_gone(opd_teacher_health *health);

/* Whether work has waited for lost_ns without one answer. */
bool opd_teacher_health_lost(const opd_teacher_health *health, uint64_t lost_ns, uint64_t now_ns);

#endif
