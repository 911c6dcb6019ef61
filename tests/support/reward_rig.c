/* reward_rig.c - see reward_rig.h. Thread: the loop's. */
#include "tests/support/reward_rig.h"

#include <math.h>

#include "core/base/check.h"

enum { TOKENS_MAX = 256, LINK_BYTES = 1 << 16 };

/* ---- the batcher ---- */

static void release_kept(reward_rig *rig) {
    for (size_t i = 0; i < rig->kept_count; i++) opd_msg_release(rig->kept[i]);
    rig->kept_count = 0;
}

static opd_err on_kept(opd_ctx *ctx, void *state, opd_timer *timer) {
    reward_rig *rig = timer->arg;
    (void)state;
    release_kept(rig);
    if (rig->got == rig->total) opd_system_stop(opd_self_system(ctx), OPD_OK);
    return OPD_OK;
}

static opd_err batcher_start(opd_ctx *ctx, void *arg) {
    reward_rig *rig = arg;
    opd_timer_init(&rig->timer, ctx, on_kept);
    rig->timer.arg = rig;
    return OPD_OK;
}

static opd_err batcher_message(opd_ctx *ctx, void *arg, opd_msg *msg) {
    reward_rig *rig = arg;
    opd_reward_fields *f = &rig->rewards[rig->got];
    CHECK_OK(opd_message_read(msg, OPD_MESSAGE_REWARD, f));
    CHECK_INT(f->group * rig->members + f->member, rig->got); /* in order, each once */
    rig->got++;
    if (rig->keep_ns > 0) {
        CHECK(rig->kept_count < rig->window);
        rig->kept[rig->kept_count++] = msg;
        opd_msg_take(ctx, msg);
        return opd_timer_start_after(&rig->timer, rig->keep_ns);
    }
    if (rig->got == rig->total) opd_system_stop(opd_self_system(ctx), OPD_OK);
    return OPD_OK;
}

/* ---- the source ---- */

static opd_err source_pump(opd_ctx *ctx, reward_rig *rig) {
    while (rig->sent < rig->total) {
        int32_t ids[TOKENS_MAX];
        size_t prompt, count, room = TOKENS_MAX;
        const char *text = rig->responses[rig->sent];
        CHECK_OK(opd_tokenizer_encode(rig->tokenizer, "what?", 5, false, ids, room, &prompt));
        room -= prompt;
        CHECK_OK(opd_tokenizer_encode(rig->tokenizer, text, strlen(text), false, ids + prompt, room, &count));
        opd_rollout_fields f = {.group = rig->sent / rig->members,
                                .member = (uint32_t)(rig->sent % rig->members),
                                .prompt_len = (uint32_t)prompt};
        CHECK_OK(opd_slice_copy(NULL, ids, (prompt + count) * sizeof *ids, &f.tokens));
        CHECK_OK(opd_slice_copy(NULL, "7", 1, &f.label));
        opd_err err = opd_message_link_send(ctx, rig->link, OPD_MESSAGE_ROLLOUT, &f);
        opd_buf_release(f.tokens.buf);
        opd_buf_release(f.label.buf);
        if (err == OPD_ERR_AGAIN) return OPD_OK;
        OPD_TRY(err);
        rig->sent++;
    }
    return OPD_OK;
}

static opd_err source_start(opd_ctx *ctx, void *arg) {
    reward_rig *rig = arg;
    opd_monitor_start(ctx, &rig->monitor, rig->roles.reward);
    OPD_TRY(opd_link_open(ctx, rig->roles.reward, rig->window, LINK_BYTES, &rig->link));
    return source_pump(ctx, rig);
}

static opd_err source_signal(opd_ctx *ctx, void *arg, const opd_signal *signal) {
    if (signal->kind == OPD_SIGNAL_DOWN) opd_system_stop(opd_self_system(ctx), signal->reason);
    return signal->kind == OPD_SIGNAL_CREDIT ? source_pump(ctx, arg) : OPD_OK;
}

/* ---- the rig ---- */

void reward_rig_up(reward_rig *rig, const char *const *responses, uint32_t members) {
    memset(rig, 0, sizeof *rig);
    sys_up(&rig->t, NULL);
    CHECK_OK(opd_tokenizer_create_bytes(NULL, &rig->tokenizer));
    CHECK_OK(opd_lane_open(rig->t.system, "reward", 4, &rig->lane));
    rig->responses = responses;
    rig->members = members;
    rig->window = 8;
    while (responses[rig->total] != NULL) rig->total++;
    CHECK(rig->total <= REWARD_RIG_SAMPLES_MAX);
}

opd_err reward_rig_start(reward_rig *rig, const opd_reward_part *parts, uint32_t count) {
    rig->roles.batcher = script_spawn(&rig->t, "batcher", (opd_script){
        .start = batcher_start, .message = batcher_message, .arg = rig});
    opd_reward_config config = {.parts = parts, .part_count = count, .samples_per_prompt = rig->members,
                                .tokenizer = rig->tokenizer, .lane = rig->lane, .env = rig->t.env,
                                .roles = &rig->roles, .window_msgs = rig->window,
                                .alloc = &rig->t.memory.alloc};
    OPD_TRY(opd_spawn(rig->t.system, &opd_reward_class, NULL, &config, &rig->roles.reward));
    (void)script_spawn(&rig->t, "source", (opd_script){
        .start = source_start, .signal = source_signal, .arg = rig});
    return OPD_OK;
}

opd_err reward_rig_run(reward_rig *rig, const opd_reward_part *parts, uint32_t count) {
    OPD_TRY(reward_rig_start(rig, parts, count));
    return opd_system_run(rig->t.system);
}

void reward_rig_got(const reward_rig *rig, size_t i, double reward, opd_reward_failure failure) {
    const opd_reward_fields *f = &rig->rewards[i];
    if (f->valid != (failure == OPD_REWARD_JUDGED) || f->failure != (uint32_t)failure ||
        (f->valid && fabs(f->reward - reward) > 1e-12))
        opd_test_fail(__FILE__, __LINE__, "sample %zu: valid %d, reward %g, failure %u", i, f->valid,
                      f->reward, f->failure);
}

void reward_rig_down(reward_rig *rig) {
    release_kept(rig);
    sys_down(&rig->t);
    opd_tokenizer_destroy(rig->tokenizer);
}
