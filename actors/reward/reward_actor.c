/* reward_actor.c - judges each rollout and sends its reward on (reward_actor.h).
 *
 * Invariants: one REWARD leaves for each ROLLOUT, in their order; a rollout is held until its
 * reward has left, so that the credits of its link say how many wait here.
 * Thread: the loop. The actor owns its text buffer and the messages it holds.
 */
#include "actors/reward/reward_actor.h"

#include "actors/messages.h"
#include "actors/reward/math.h"
#include "core/base/check.h"

enum { REWARD_BYTES = 4096, TEXT_BYTES_MAX = 64 << 20 };

typedef struct reward {
    opd_reward_config c;
    opd_link *batcher;
    opd_str text;   /* the decoded response, reused */
    opd_msg **held; /* ring of rollouts whose reward has not left, [window_msgs] */
    uint32_t held_first, held_count;
    opd_msg *ready; /* the reward of the first one, refused for want of credit */
} reward;

static opd_err on_start(opd_ctx *ctx, void *state, const void *config) {
    reward *r = state;
    r->c = *(const opd_reward_config *)config;
    opd_str_init(&r->text, r->c.alloc, TEXT_BYTES_MAX);
    r->held = opd_mem_get(r->c.alloc, r->c.window_msgs * sizeof *r->held);
    if (r->held == NULL) return opd_fail(OPD_ERR_NOMEM, "reward: no memory");
    return opd_link_open(ctx, r->c.roles->batcher, r->c.window_msgs,
                         (uint64_t)r->c.window_msgs * REWARD_BYTES, &r->batcher);
}

/* The reward of a response; invalid where there is nothing to judge it by. Errors: NOMEM, for
 * then the same sample would be worth another gradient the next time. */
static opd_err judge(reward *r, const opd_rollout_fields *f, opd_reward_fields *out) {
    out->valid = r->c.type == OPD_REWARD_NONE;
    if (out->valid) return OPD_OK;
    const int32_t *tokens = opd_slice_data(f->tokens);
    size_t count = f->tokens.size_bytes / sizeof *tokens - f->prompt_len;
    opd_str_clear(&r->text);
    opd_tokenizer_decode(r->c.tokenizer, tokens + f->prompt_len, count, true, &r->text);
    opd_err err = opd_str_status(&r->text);
    if (err == OPD_ERR_NOMEM) return err;
    if (err != OPD_OK || f->label.buf == NULL) return OPD_OK;
    const char *text = r->text.data != NULL ? r->text.data : "";
    out->valid = true;
    out->reward = opd_reward_math(text, r->text.size, opd_slice_data(f->label),
                                  f->label.size_bytes);
    return OPD_OK;
}

static opd_err make_reward(reward *r, opd_ctx *ctx, const opd_msg *rollout) {
    opd_rollout_fields f;
    OPD_TRY(opd_message_read(rollout, OPD_MESSAGE_ROLLOUT, &f));
    opd_reward_fields out = {.group = f.group, .member = f.member};
    OPD_TRY(judge(r, &f, &out));
    opd_trace_set(ctx, opd_msg_trace(rollout));
    return opd_message_create(opd_self_system(ctx), OPD_MESSAGE_REWARD, &out, &r->ready);
}

/* Sends the rewards of what is held until the batcher's window is full. */
static opd_err flush(reward *r, opd_ctx *ctx) {
    while (r->held_count > 0) {
        opd_msg *first = r->held[r->held_first];
        if (r->ready == NULL) OPD_TRY(make_reward(r, ctx, first));
        opd_err err = opd_link_send(ctx, r->batcher, r->ready);
        if (err == OPD_ERR_AGAIN) return OPD_OK; /* CREDIT calls again */
        OPD_TRY(err);
        r->ready = NULL;
        r->held_first = (r->held_first + 1) % r->c.window_msgs;
        r->held_count--;
        opd_msg_release(first);
    }
    return OPD_OK;
}

static opd_err on_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    reward *r = state;
    OPD_ASSERT(r->held_count < r->c.window_msgs); /* the rollout's window is no larger */
    opd_msg_take(ctx, msg);
    r->held[(r->held_first + r->held_count++) % r->c.window_msgs] = msg;
    return flush(r, ctx);
}

static opd_err on_signal(opd_ctx *ctx, void *state, const opd_signal *signal) {
    return signal->kind == OPD_SIGNAL_CREDIT ? flush(state, ctx) : OPD_OK;
}

static void on_stop(opd_ctx *ctx, void *state) {
    (void)ctx;
    reward *r = state;
    for (uint32_t i = 0; i < r->held_count; i++)
        opd_msg_release(r->held[(r->held_first + i) % r->c.window_msgs]);
    opd_msg_release(r->ready);
    opd_mem_free(r->c.alloc, r->held);
    opd_str_fini(&r->text);
}

const opd_actor_class opd_reward_class = {
    .name = "reward", .state_size = sizeof(reward), .on_start = on_start,
    .on_message = on_message, .on_signal = on_signal, .on_stop = on_stop};
