/* batcher_actor.c - message handling around the join (batcher_actor.h, join.h).
 *
 * Invariants: a part's message is held from arrival until its SAMPLE has been sent; SAMPLEs
 * leave in order of (group, member).
 * Thread: the loop. The actor owns the join and the messages in it.
 */
#include "actors/batcher/batcher_actor.h"

#include <math.h>
#include <string.h>

#include "actors/batcher/join.h"
#include "actors/messages.h"
#include "actors/rollout/engine.h"
#include "core/base/check.h"
#include "opd/log.h"

enum { PART_ROLLOUT, PART_REWARD, PART_SCORES, PARTS };

typedef struct batcher {
    opd_batcher_config c;
    opd_link *trainer;
    opd_join *join;
    uint32_t parts;
    opd_msg **group; /* [samples_per_prompt * parts] of the group being sent */
    uint64_t number; /* of it */
    uint64_t *ready_ns; /* [groups_max][samples_per_prompt], like the join: newest part but scores */
    uint32_t sent, members; /* of that group; members 0: none */
    bool dropping;          /* instead FILTERED is to be sent */
    uint64_t kept, dropped; /* groups of the present batch    */
    bool last;              /* the group being sent is the last of a batch */
    uint32_t left_over;     /* finished answers of void groups that no SAMPLE told of */
} batcher;

static opd_err on_start(opd_ctx *ctx, void *state, const void *config) {
    batcher *b = state;
    b->c = *(const opd_batcher_config *)config;
    b->parts = b->c.teacher ? PARTS : PARTS - 1;
    b->group = opd_mem_get(b->c.alloc, b->c.samples_per_prompt * b->parts * sizeof(opd_msg *));
    b->ready_ns = opd_mem_get(b->c.alloc, (size_t)b->c.groups_max * b->c.samples_per_prompt *
                                              sizeof *b->ready_ns);
    if (b->group == NULL || b->ready_ns == NULL)
        return opd_fail(OPD_ERR_NOMEM, "batcher: no memory for a group");
    OPD_TRY(opd_join_create(b->c.alloc, b->c.first_group, b->c.groups_max,
                            b->c.samples_per_prompt, b->parts, &b->join));
    return opd_link_open(ctx, b->c.roles->trainer, b->c.window_msgs, b->c.window_bytes,
                         &b->trainer);
}

/* How many teachers scored it; 0: they do not all have a weight that is one. */
static size_t teachers_of(const opd_sample_fields *f) {
    if (f->teachers.buf == NULL) return f->weights.buf == NULL;
    const double *weights = opd_slice_data(f->weights);
    size_t count = f->teachers.size_bytes;
    if (f->weights.size_bytes != count * sizeof *weights) return 0;
    for (size_t j = 0; j < count; j++)
        if (!isfinite(weights[j]) || weights[j] < 0) return 0;
    return count;
}

/* Whether the arrays agree about the number of response tokens; those behind trust it. */
static opd_err check_sizes(const opd_sample_fields *f) {
    size_t teachers = teachers_of(f);
    size_t length = f->tokens.size_bytes / sizeof(int32_t);
    size_t rows = f->prompt_len <= length ? length - f->prompt_len : 0;
    bool scored = f->teacher_logp.buf != NULL && f->teacher_valid.buf != NULL;
    bool whole = teachers > 0 && f->prompt_len > 0 && rows > 0 && f->logp.size_bytes == rows * sizeof(float) &&
                 f->spans.size_bytes >= 2 * sizeof(uint64_t);
    if (scored)
        whole = whole && f->teacher_logp.size_bytes == teachers * rows * sizeof(float) &&
                f->teacher_valid.size_bytes == teachers * rows &&
                f->teacher_topk.size_bytes % (rows * sizeof(int32_t)) == 0 &&
                (f->teacher_topk_logp.buf == NULL ||
                 f->teacher_topk_logp.size_bytes == f->teacher_topk.size_bytes);
    whole = whole && f->topk.size_bytes % (rows * sizeof(int32_t)) == 0 &&
            (f->asked_logp.buf == NULL || f->asked_logp.size_bytes == f->topk.size_bytes);
    if (whole) return OPD_OK;
    return opd_fail(OPD_ERR_MISMATCH, "batcher: the parts of sample %llu/%u have different lengths, or "
                    "its teachers no weights",
                    (unsigned long long)f->group, f->member);
}

/* The joined sample of one member from the messages of its parts. */
static opd_err sample_of(opd_msg *const *parts, bool teacher, opd_sample_fields *out) {
    opd_rollout_fields rollout;
    opd_reward_fields reward;
    opd_scores_fields scores = {.attempts = 0};
    OPD_TRY(opd_message_read(parts[PART_ROLLOUT], OPD_MESSAGE_ROLLOUT, &rollout));
    OPD_TRY(opd_message_read(parts[PART_REWARD], OPD_MESSAGE_REWARD, &reward));
    if (teacher) OPD_TRY(opd_message_read(parts[PART_SCORES], OPD_MESSAGE_SCORES, &scores));
    *out = (opd_sample_fields){
        .group = rollout.group, .epoch = rollout.epoch, .member = rollout.member,
        .prompt_len = rollout.prompt_len, .finish = rollout.finish, .reward = reward.reward,
        .reward_valid = reward.valid, .reward_failure = reward.failure, .attempts = scores.attempts,
        .latency_ms = scores.latency_ms, .tokens = rollout.tokens, .logp = rollout.logp,
        .teacher_logp = scores.logp, .teacher_valid = scores.valid, .teacher_topk = scores.topk,
        .teacher_topk_logp = scores.topk_logp, .topk = rollout.topk, .asked_logp = scores.asked_logp,
        .spans = rollout.spans, .moves = scores.moves, .hedges = scores.hedges,
        .wait_ms = scores.wait_ms, .teachers = scores.teachers, .weights = scores.weights,
        .provenance = scores.provenance, .degraded = scores.degraded};
    memcpy(out->teacher, scores.teacher, sizeof out->teacher);
    memcpy(out->reason, scores.reason, sizeof out->reason);
    memcpy(out->endpoint, scores.endpoint, sizeof out->endpoint);
    memcpy(out->source, rollout.source, sizeof out->source);
    return check_sizes(out);
}

/* A group's place is not taken again before its SAMPLEs are sent: the admission window is groups_max. */
static uint64_t *ready_at(const batcher *b, uint64_t group, uint32_t member) {
    return b->ready_ns + (size_t)(group % b->c.groups_max) * b->c.samples_per_prompt + member;
}

/* Whether the rewards of the present group tell its members apart. */
static opd_err rewards_differ(const batcher *b, bool *out_differ) {
    size_t valid = 0;
    double first = 0;
    *out_differ = false;
    for (uint32_t m = 0; m < b->c.samples_per_prompt; m++) {
        opd_reward_fields f;
        OPD_TRY(opd_message_read(b->group[(size_t)m * b->parts + PART_REWARD], OPD_MESSAGE_REWARD, &f));
        if (!f.valid) continue;
        if (valid++ == 0) first = f.reward;
        else *out_differ = *out_differ || f.reward != first;
    }
    return OPD_OK;
}

/* Takes the group that is next; one that the filter drops is let go. */
static opd_err begin_group(batcher *b) {
    bool differ = true;
    if (b->c.filter) OPD_TRY(rewards_differ(b, &differ));
    if (!differ && b->dropped < b->c.filter_max_dropped) {
        for (uint32_t i = 0; i < b->c.samples_per_prompt * b->parts; i++)
            opd_msg_release(b->group[i]);
        b->dropped++;
        b->dropping = true;
        return OPD_OK;
    }
    b->members = b->c.samples_per_prompt;
    b->last = b->c.filter && ++b->kept == b->c.batch_prompts;
    if (b->last) b->kept = b->dropped = 0;
    return OPD_OK;
}

/* A part of a void group. */
static opd_err count_left_over(batcher *b, const opd_msg *part) {
    opd_rollout_fields f;
    if (opd_msg_kind(part) != OPD_MESSAGE_ROLLOUT) return OPD_OK;
    OPD_TRY(opd_message_read(part, OPD_MESSAGE_ROLLOUT, &f));
    b->left_over += f.finish != OPD_FINISH_ABORT;
    return OPD_OK;
}

static void drop_void(void *arg, void *item) {
    if (count_left_over(arg, item) != OPD_OK) OPD_LOG_DEBUG("batcher: %s", opd_err_context());
    opd_msg_release(item);
}

/* The batch is full: the groups behind it that were in work for it are void. */
static void end_batch(batcher *b, opd_ctx *ctx) {
    b->last = false;
    if (b->c.spare_groups == 0) return;
    opd_join_skip(b->join, b->c.spare_groups, drop_void, b);
    opd_discard_fields f = {.void_end = opd_join_next_group(b->join)};
    opd_err err = opd_message_send(ctx, b->c.roles->rollout, OPD_MESSAGE_DISCARD, &f);
    if (err != OPD_OK) OPD_LOG_DEBUG("batcher: rollout hears later what is void: %s", opd_err_text(err));
}

/* Sends what is complete until the trainer's window is full. */
static opd_err flush(batcher *b, opd_ctx *ctx) {
    for (;;) {
        if (b->sent == b->members && !b->dropping) {
            b->sent = b->members = 0;
            if (b->last) end_batch(b, ctx);
            if (!opd_join_next(b->join, &b->number, (void **)b->group)) return OPD_OK;
            OPD_TRY(begin_group(b));
        }
        if (b->dropping) {
            opd_filtered_fields filtered = {.group = b->number};
            opd_err err = opd_message_link_send(ctx, b->trainer, OPD_MESSAGE_FILTERED, &filtered);
            if (err == OPD_ERR_AGAIN) return OPD_OK; /* CREDIT calls again */
            OPD_TRY(err);
            b->dropping = false;
            continue;
        }
        opd_msg **parts = b->group + (size_t)b->sent * b->parts;
        opd_sample_fields sample;
        OPD_TRY(sample_of(parts, b->c.teacher, &sample));
        sample.ready_ns = *ready_at(b, b->number, b->sent);
        sample.left_over = b->left_over;
        opd_err err = opd_message_link_send(ctx, b->trainer, OPD_MESSAGE_SAMPLE, &sample);
        if (err == OPD_ERR_AGAIN) return OPD_OK; /* CREDIT calls again */
        OPD_TRY(err);
        for (uint32_t p = 0; p < b->parts; p++) opd_msg_release(parts[p]);
        b->left_over = 0;
        b->sent++;
    }
}

/* Which sample and part a message is. */
static opd_err identify(const opd_msg *msg, uint64_t *group, uint32_t *member, uint32_t *part) {
    if (opd_msg_kind(msg) == OPD_MESSAGE_ROLLOUT) {
        opd_rollout_fields f;
        OPD_TRY(opd_message_read(msg, OPD_MESSAGE_ROLLOUT, &f));
        *group = f.group, *member = f.member, *part = PART_ROLLOUT;
    } else if (opd_msg_kind(msg) == OPD_MESSAGE_REWARD) {
        opd_reward_fields f;
        OPD_TRY(opd_message_read(msg, OPD_MESSAGE_REWARD, &f));
        *group = f.group, *member = f.member, *part = PART_REWARD;
    } else {
        opd_scores_fields f;
        OPD_TRY(opd_message_read(msg, OPD_MESSAGE_SCORES, &f));
        *group = f.group, *member = f.member, *part = PART_SCORES;
    }
    return OPD_OK;
}

static opd_err on_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    batcher *b = state;
    uint64_t group;
    uint32_t member, part;
    OPD_TRY(identify(msg, &group, &member, &part));
    if (b->c.spare_groups > 0 && group < opd_join_next_group(b->join)) return count_left_over(b, msg);
    OPD_TRY(opd_join_put(b->join, group, member, part, msg));
    opd_msg_take(ctx, msg);
    if (part != PART_SCORES) *ready_at(b, group, member) = opd_now_ns(ctx);
    return flush(b, ctx);
}

static opd_err on_signal(opd_ctx *ctx, void *state, const opd_signal *signal) {
    return signal->kind == OPD_SIGNAL_CREDIT ? flush(state, ctx) : OPD_OK;
}

static void drop(void *arg, void *item) {
    (void)arg;
    opd_msg_release(item);
}

static void on_stop(opd_ctx *ctx, void *state) {
    (void)ctx;
    batcher *b = state;
    for (uint32_t i = b->sent * b->parts; i < b->members * b->parts; i++)
        opd_msg_release(b->group[i]);
    opd_join_destroy(b->join, drop, NULL);
    opd_mem_free(b->c.alloc, b->ready_ns);
    opd_mem_free(b->c.alloc, b->group);
}

const opd_actor_class opd_batcher_class = {
    .name = "batcher", .state_size = sizeof(batcher), .on_start = on_start,
    .on_message = on_message, .on_signal = on_signal, .on_stop = on_stop};
