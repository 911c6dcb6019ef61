/* messages.h - every message between opd's actors: who sends it to whom, and its fields.
 *
 * A message is a struct here and, on its way, a msgpack array [version, field...] with its
 * bulk fields attached by reference (opd/actor.h). One table of fields per message gives the
 * struct, the writer and the reader, so the three cannot drift apart. A reader ignores fields
 * a newer writer appended; it refuses everything else that does not fit.
 *
 * Field kinds: U64 U32 F64 BOOL TEXT are in the body; I32S F32S U8S U64S F64S are attachments
 * (an opd_slice; buf NULL means "none").
 *
 * Ownership: create adds references to the slices it is given; slices that read fills in
 * belong to the message and live as long as it. Thread: the loop.
 */
#ifndef OPD_ACTORS_MESSAGES_H
#define OPD_ACTORS_MESSAGES_H

#include <stdbool.h>
#include <stdint.h>

#include "opd/actor.h"

enum { OPD_MESSAGE_TEXT_SIZE = 192, OPD_MESSAGE_VERSION = 1 };

/* dataset -> rollout: continue this prompt. Groups are numbered in the order in which they start; place
 * is the prompt's in dataset order, counted over the epochs, and what is drawn depends on that. The two
 * differ where prompts that over-sampling left over come again: groups below void_end are not wanted any
 * more. It starts under weights of at least min_version. source: the record's value at
 * opd.teacher_key, "" without; it says which teacher the group's samples go to. privileged: what a
 * teacher sees in place of tokens; absent: the same. */
#define OPD_PROMPT_FIELDS(X, T) \
    X(T, U64, group) X(T, U32, epoch) X(T, U64, min_version) X(T, I32S, tokens) X(T, U8S, label) \
    X(T, TEXT, source) X(T, U64, place) X(T, U64, void_end) X(T, I32S, privileged)

/* dataset -> trainer: one supervised example. learn [R]: 1 where the token is learnt; absent: all. */
#define OPD_EXAMPLE_FIELDS(X, T) \
    X(T, U64, group) X(T, U32, epoch) X(T, U32, prompt_len) X(T, I32S, tokens) X(T, U8S, learn)

/* rollout -> panel, reward, batcher: a finished member of a group. finish: opd_finish.
 * logp [R]; spans [n, 2]: (weight version, first response token), oldest first; privileged as in
 * PROMPT; topk [R, k]: the student's likeliest ids when it wrote the token, where a teacher is to be
 * asked about them. */
#define OPD_ROLLOUT_FIELDS(X, T)                                                              \
    X(T, U64, group) X(T, U32, epoch) X(T, U32, member) X(T, U32, prompt_len) X(T, U32, finish)           \
    X(T, I32S, tokens) X(T, F32S, logp) X(T, U64S, spans) X(T, U8S, label) X(T, TEXT, source)             \
    X(T, I32S, privileged) X(T, I32S, topk)

/* rollout -> panel: tokens offset .. of a sample whose decoding goes on. The first of a sample
 * has offset 0, the prompt (and privileged, as in PROMPT) and as much of the response as there is, maybe
 * none; each other one goes on where that before it ended. topk [r, k]: of its r response tokens, as in
 * ROLLOUT. Best effort: a chunk without credit is left out and the next
 * holds its tokens too, so ROLLOUT, which comes after all of them, alone is enough. */
#define OPD_CHUNK_FIELDS(X, T)                                                                \
    X(T, U64, group) X(T, U32, epoch) X(T, U32, member) X(T, U32, prompt_len) X(T, U32, offset)           \
    X(T, TEXT, source) X(T, I32S, tokens) X(T, I32S, privileged) X(T, I32S, topk)

/* panel -> batcher: scores of the response by T teachers, or why there are none. teachers [T]:
 * which, as places in stage->teachers, and weights [T], > 0, how much each counts; both absent:
 * T = 1. logp, valid [T, R]; topk, topk_logp [R, k] of the first, -1 = none, and asked_logp [R, k], its
 * log-probs of the ROLLOUT's topk; without logp no token is valid.
 * endpoint: the replica that answered; moves: attempts at another replica than the one before;
 * hedges: second requests sent while the first was under way; wait_ms: of latency_ms, waiting to
 * be sent. provenance: who scored what, a JSON array of an object per span (from, to, teacher,
 * endpoint, model, weight_version, attempt, protocol, privileged); degraded: tokens scored by fewer teachers
 * than are wanted, or by a fallback. */
#define OPD_SCORES_FIELDS(X, T)                                                               \
    X(T, U64, group) X(T, U32, member) X(T, F32S, logp) X(T, U8S, valid) X(T, I32S, topk)                 \
    X(T, U32, attempts) X(T, F64, latency_ms) X(T, TEXT, teacher) X(T, TEXT, reason)                     \
    X(T, TEXT, endpoint) X(T, U32, moves) X(T, U32, hedges) X(T, F64, wait_ms)                           \
    X(T, U8S, teachers) X(T, F64S, weights) X(T, U8S, provenance) X(T, U32, degraded)      \
    X(T, F32S, topk_logp) X(T, F32S, asked_logp)

/* reward -> batcher. failure: why there is none, an opd_reward_failure. */
#define OPD_REWARD_FIELDS(X, T)                                                               \
    X(T, U64, group) X(T, U32, member) X(T, F64, reward) X(T, BOOL, valid) X(T, U32, failure)

/* batcher -> trainer (and trainer -> monitor, for samples.jsonl): the joined sample. teacher_logp,
 * teacher_valid [T, R], teacher_topk, teacher_topk_logp and asked_logp as in SCORES, topk as in
 * ROLLOUT; ready_ns: when all but the scores had come, 0 = unknown;
 * left_over: finished answers that over-sampling dropped since the SAMPLE before. */
#define OPD_SAMPLE_FIELDS(X, T)                                                               \
    X(T, U64, group) X(T, U32, epoch) X(T, U32, member) X(T, U32, prompt_len) X(T, U32, finish)           \
    X(T, F64, reward) X(T, BOOL, reward_valid) X(T, U32, attempts) X(T, F64, latency_ms)               \
    X(T, TEXT, teacher) X(T, TEXT, reason) X(T, I32S, tokens) X(T, F32S, logp) X(T, F32S, teacher_logp)   \
    X(T, U8S, teacher_valid) X(T, I32S, teacher_topk) X(T, U64S, spans)                                \
    X(T, TEXT, endpoint) X(T, U32, moves) X(T, U32, hedges) X(T, F64, wait_ms)                           \
    X(T, U8S, teachers) X(T, F64S, weights) X(T, U8S, provenance) X(T, U32, degraded)                    \
    X(T, TEXT, source) X(T, U64, ready_ns) X(T, F32S, teacher_topk_logp) X(T, U32, reward_failure) \
    X(T, U32, left_over) X(T, I32S, topk) X(T, F32S, asked_logp)

/* trainer -> dataset: prompts of groups below group_end may start; those that might not before, under
 * weights of at least min_version. Group `first` has that place in dataset order, and those behind it
 * follow; groups below it are not wanted any more. */
#define OPD_ADMIT_FIELDS(X, T) X(T, U64, group_end) X(T, U64, min_version) X(T, U64, first) X(T, U64, place)

/* batcher -> rollout: groups below void_end are not wanted any more: over-sampling left them over. Best
 * effort; PROMPT says so, too. */
#define OPD_DISCARD_FIELDS(X, T) X(T, U64, void_end)

/* batcher -> trainer (link), instead of its SAMPLEs: the group teaches nothing, another takes its
 * place. */
#define OPD_FILTERED_FIELDS(X, T) X(T, U64, group)

/* panel -> dataset: hold admission (no teacher answers), or go on. */
#define OPD_HOLD_FIELDS(X, T) X(T, BOOL, hold)

/* request to rollout, and its reply: continue one prompt outside of training. */
#define OPD_GENERATE_FIELDS(X, T)                                                             \
    X(T, I32S, tokens) X(T, U32, max_new) X(T, F64, temperature) X(T, F64, top_p) X(T, U32, top_k)        \
    X(T, U64, seed) X(T, U64, group) X(T, U64, min_version) X(T, BOOL, ignore_eos)
#define OPD_GENERATED_FIELDS(X, T) X(T, U32, finish) X(T, I32S, tokens) X(T, F32S, logp)

/* request to whoever scores, and its reply: log-probs of tokens start+1 .. n-1, each given all
 * before it. n = number of tokens; logp [n-1-start], topk_ids and topk_logp [.., top_k]; ids [.., k]:
 * besides, the log-probs of these at each place are wanted, ids_logp [.., k].
 * affinity: the same number for requests that begin alike, so that a replica which has computed
 * the beginning is preferred; 0 = none. wait: without a replica that answers, wait for one;
 * false: reply CLOSED at once. valid [n-1-start]; absent: every finite log-prob <= 0 is valid.
 * deadline_ns: when it is too late (opd_now_ns), 0 = as the teacher likes. Given up: no logp, and
 * the reason. attempts, moves, hedges, wait_ms and endpoint as in SCORES; cached: tokens that the
 * server had computed before. */
#define OPD_SCORE_FIELDS(X, T) \
    X(T, I32S, tokens) X(T, U32, start) X(T, U32, top_k) X(T, F64, temperature) X(T, U64, affinity) \
    X(T, BOOL, wait) X(T, U64, deadline_ns) X(T, I32S, ids)
#define OPD_SCORED_FIELDS(X, T)                                                               \
    X(T, F32S, logp) X(T, I32S, topk_ids) X(T, F32S, topk_logp) X(T, U8S, valid)                         \
    X(T, U32, attempts) X(T, U32, moves) X(T, U32, hedges) X(T, F64, wait_ms) X(T, TEXT, endpoint)       \
    X(T, TEXT, weight_version) X(T, U32, cached) X(T, TEXT, reason) X(T, F32S, ids_logp)

/* teacher -> panel: whether the teacher (its place in stage->teachers) answers: opd_presence. model:
 * what it serves, as it says; why: what is wrong. */
#define OPD_PRESENCE_FIELDS(X, T) \
    X(T, U32, teacher) X(T, U32, state) X(T, BOOL, reuses_prefix) X(T, TEXT, model) X(T, TEXT, why)
typedef enum opd_presence {
    OPD_PRESENCE_STARTING, /* has not answered yet                                        */
    OPD_PRESENCE_UP,
    OPD_PRESENCE_DOWN,     /* no replica can be reached                                   */
    OPD_PRESENCE_LATE      /* has not answered within its start_timeout_s; still asked for */
} opd_presence;

/* request to evaluator, and its reply: a set of problems (its place) under weights of at least
 * min_version. response_len: mean tokens; truncated: share of answers; pass [n, 4]: k, value, low and
 * high of each pass@k, absent with one answer per problem. */
#define OPD_EVALUATE_FIELDS(X, T) X(T, U64, min_version) X(T, U32, set)
#define OPD_EVALUATED_FIELDS(X, T)                                                            \
    X(T, U64, correct) X(T, U64, total) X(T, F64, response_len) X(T, F64, truncated) X(T, F64S, pass)

/* request to checkpoint, and its reply: save this state. state [3, param_count]: the weights
 * and AdamW's two moments; group: the first that is not learnt yet. */
#define OPD_SAVE_FIELDS(X, T)                                                              \
    X(T, U64, step) X(T, U64, group) X(T, U64, optimizer_step) X(T, U64, samples)          \
    X(T, U64, response_tokens) X(T, U64, invalid_tokens) X(T, U64, unscored_batches)       \
    X(T, U64, skipped_steps) X(T, U64, before_correct) X(T, U64, before_total)             \
    X(T, F32S, state) X(T, U64, degraded_tokens) X(T, U64, best_step) X(T, U64, best_1e9)  \
    X(T, U64, judged_step)
#define OPD_SAVED_FIELDS(X, T) X(T, U64, step)

/* trainer -> monitor: the numbers of a step, indexed by opd_metric. teachers [n, 2]: of each of
 * stage->teachers its share of the tokens and its reverse KL; absent without teachers. */
#define OPD_REPORT_FIELDS(X, T) X(T, U64, step) X(T, F64S, values) X(T, F64S, teachers)

/* anyone -> monitor: a line for the person and the log. */
#define OPD_NOTE_FIELDS(X, T) X(T, U32, level) X(T, TEXT, text)

/* trainer -> monitor: a set was evaluated, as in EVALUATED. */
#define OPD_ACCURACY_FIELDS(X, T)                                                             \
    X(T, U64, step) X(T, U64, correct) X(T, U64, total) X(T, U32, set) X(T, F64, response_len)           \
    X(T, F64, truncated) X(T, F64S, pass)

/* pipeline -> trainer: stop in order after the present step. */
#define OPD_INTERRUPT_FIELDS(X, T) X(T, U32, reason)

/* anyone -> monitor: so much more of a metric (opd_metric) that no batch carries. */
#define OPD_COUNTED_FIELDS(X, T) X(T, U32, metric) X(T, F64, value)

#define OPD_MESSAGE_TABLE(M)                                                               \
    M(PROMPT, prompt) M(EXAMPLE, example) M(ROLLOUT, rollout) M(SCORES, scores)            \
    M(REWARD, reward) M(SAMPLE, sample) M(ADMIT, admit) M(HOLD, hold)                      \
    M(GENERATE, generate) M(GENERATED, generated) M(SCORE, score) M(SCORED, scored)        \
    M(EVALUATE, evaluate) M(EVALUATED, evaluated) M(SAVE, save) M(SAVED, saved)            \
    M(REPORT, report) M(NOTE, note) M(ACCURACY, accuracy) M(INTERRUPT, interrupt)          \
    M(CHUNK, chunk) M(PRESENCE, presence) M(COUNTED, counted) M(FILTERED, filtered)    \
    M(DISCARD, discard)

typedef enum opd_message_kind {
    OPD_MESSAGE_NONE,
#define M(NAME, name) OPD_MESSAGE_##NAME,
    OPD_MESSAGE_TABLE(M)
#undef M
    OPD_MESSAGE_COUNT
} opd_message_kind;

#define OPD_FIELD_U64(name) uint64_t name;
#define OPD_FIELD_U32(name) uint32_t name;
#define OPD_FIELD_F64(name) double name;
#define OPD_FIELD_BOOL(name) bool name;
#define OPD_FIELD_TEXT(name) char name[OPD_MESSAGE_TEXT_SIZE];
#define OPD_FIELD_I32S(name) opd_slice name;
#define OPD_FIELD_F32S(name) opd_slice name;
#define OPD_FIELD_U8S(name) opd_slice name;
#define OPD_FIELD_U64S(name) opd_slice name;
#define OPD_FIELD_F64S(name) opd_slice name;
#define OPD_FIELD(owner, kind, name) OPD_FIELD_##kind(name)

/* opd_prompt_fields, opd_example_fields, ... one struct per message. */
#define M(NAME, name)                       \
    typedef struct opd_##name##_fields {    \
        OPD_##NAME##_FIELDS(OPD_FIELD, name) \
    } opd_##name##_fields;
OPD_MESSAGE_TABLE(M)
#undef M

/* Makes a message of `kind` from its struct. Errors: LIMIT (pool empty), NOMEM. */
OPD_MUST_CHECK opd_err opd_message_create(opd_system *system, opd_message_kind kind,
                                          const void *fields, opd_msg **out_msg);

/* Fills the struct of `kind` from a message. Errors: MISMATCH (another kind), PARSE. */
OPD_MUST_CHECK opd_err opd_message_read(const opd_msg *msg, opd_message_kind kind,
                                        void *out_fields);

/* Creates and sends; nothing is left to release on an error. Errors: those of
 * opd_message_create, opd_send and opd_link_send. */
OPD_MUST_CHECK opd_err opd_message_send(opd_ctx *ctx, opd_pid to, opd_message_kind kind,
                                        const void *fields);
OPD_MUST_CHECK opd_err opd_message_link_send(opd_ctx *ctx, opd_link *link,
                                             opd_message_kind kind, const void *fields);
OPD_MUST_CHECK opd_err opd_message_request(opd_ctx *ctx, opd_pid to, opd_message_kind kind,
                                           const void *fields, uint64_t deadline_ns,
                                           opd_reply_fn reply_fn, void *arg, uint64_t *out_id);

/* Creates and replies; where the message cannot be made, the asker gets that error. */
void opd_message_reply(opd_ctx *ctx, opd_msg *request, opd_message_kind kind,
                       const void *fields);

/* A new buffer holding a copy of count elements, as a slice that owns one reference.
 * Errors: NOMEM. */
OPD_MUST_CHECK opd_err opd_slice_copy(const opd_alloc *alloc, const void *data,
                                      size_t size_bytes, opd_slice *out_slice);

/* Sends a line to the monitor (if any); dropped and counted when its mailbox is full, for a
 * line must never stop the work. level as in opd/log.h. */
void opd_note(opd_ctx *ctx, opd_pid monitor, int level, const char *fmt, ...) OPD_PRINTF(4, 5);

/* The trace of a sample's messages (opd_msg_trace), set by opd_message_create from the fields:
 * of ROLLOUT, CHUNK, SCORES, REWARD and SAMPLE their member's, of PROMPT its group's, for which the
 * member is OPD_TRACE_GROUP. Members from that on share their group's. */
enum { OPD_TRACE_GROUP = UINT16_MAX };
static inline uint64_t opd_sample_trace(uint64_t group, uint32_t member) {
    return (group + 1) << 16 | (member < OPD_TRACE_GROUP ? member : OPD_TRACE_GROUP);
}

/* "12.3" for member 3 of group 12, "12" for the group. */
void opd_sample_trace_text(uint64_t trace, char *out, size_t out_size);

/* The same for opd_system_options.kind_name; never NULL, whatever the number. */
const char *opd_message_kind_name(uint16_t kind);

/* Name of a kind ("prompt"), never NULL. */
const char *opd_message_name(opd_message_kind kind);

#endif
