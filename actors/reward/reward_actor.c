/* reward_actor.c - judges each rollout and sends its reward on (reward_actor.h).
 *
 * Invariants: one REWARD leaves for each ROLLOUT; the window to the batcher holds every
 * rollout that can be under way, so a refused send is a programmer's error of the pipeline.
 * Thread: the loop. The actor owns its text buffer.
 */
#include "actors/reward/reward_actor.h"

#include "actors/messages.h"
#include "actors/reward/math.h"
#include "core/base/check.h"

enum { REWARD_BYTES = 4096, TEXT_BYTES_MAX = 64 << 20 };

typedef struct reward {
    opd_reward_config c;
    opd_link *batcher;
    opd_str text; /* the decoded response, reused */
} reward;

static opd_err on_start(opd_ctx *ctx, void *state, const void *config) {
    reward *r = state;
    r->c = *(const opd_reward_config *)config;
    opd_str_init(&r->text, r->c.alloc, TEXT_BYTES_MAX);
    return opd_link_open(ctx, r->c.roles->batcher, r->c.window_msgs,
                         (uint64_t)r->c.window_msgs * REWARD_BYTES, &r->batcher);
}

/* The reward of a response, or false where the sample has nothing to judge it by. */
static bool judge(reward *r, const opd_rollout_fields *f, double *out_reward) {
    *out_reward = 0;
    if (r->c.type == OPD_REWARD_NONE) return true;
    const int32_t *tokens = opd_slice_data(f->tokens);
    size_t count = f->tokens.size_bytes / sizeof *tokens - f->prompt_len;
    opd_str_clear(&r->text);
    opd_tokenizer_decode(r->c.tokenizer, tokens + f->prompt_len, count, true, &r->text);
    if (opd_str_status(&r->text) != OPD_OK || f->label.buf == NULL) return false;
    const char *text = r->text.data != NULL ? r->text.data : "";
    *out_reward = opd_reward_math(text, r->text.size, opd_slice_data(f->label),
                                  f->label.size_bytes);
    return true;
}

static opd_err on_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    reward *r = state;
    opd_rollout_fields f;
    OPD_TRY(opd_message_read(msg, OPD_MESSAGE_ROLLOUT, &f));
    opd_reward_fields out = {.group = f.group, .member = f.member};
    out.valid = judge(r, &f, &out.reward);
    return opd_message_link_send(ctx, r->batcher, OPD_MESSAGE_REWARD, &out);
}

static void on_stop(opd_ctx *ctx, void *state) {
    (void)ctx;
    reward *r = state;
    opd_str_fini(&r->text);
}

const opd_actor_class opd_reward_class = {
    .name = "reward", .state_size = sizeof(reward), .on_start = on_start,
    .on_message = on_message, .on_stop = on_stop};
