/* test_reward_actor.c - the reward actor before a batcher that is slow: what has no credit waits,
 * and leaves in order, each once. */
#include "actors/reward/reward_actor.h"

#include "actors/messages.h"
#include "core/base/check.h"
#include "tests/support/script_actor.h"

enum { ROLLOUTS = 20, WINDOW = 2 };

typedef struct world {
    opd_test_sys t;
    opd_roles roles;
    opd_lane *lane;
    opd_link *link;     /* of the source */
    uint64_t sent, got;
    opd_msg *kept[WINDOW];
    size_t kept_count;
    opd_timer timer;
} world;

/* ---- a batcher that keeps what it gets for a while ---- */

static opd_err release(opd_ctx *ctx, void *state, opd_timer *timer) {
    (void)state;
    world *w = timer->arg;
    for (size_t i = 0; i < w->kept_count; i++) opd_msg_release(w->kept[i]);
    w->kept_count = 0;
    if (w->got == ROLLOUTS) opd_system_stop(opd_self_system(ctx), OPD_OK);
    return OPD_OK;
}

static opd_err batcher_start(opd_ctx *ctx, void *arg) {
    world *w = arg;
    opd_timer_init(&w->timer, ctx, release);
    w->timer.arg = w;
    return OPD_OK;
}

static opd_err batcher_message(opd_ctx *ctx, void *arg, opd_msg *msg) {
    world *w = arg;
    opd_reward_fields f;
    CHECK_OK(opd_message_read(msg, OPD_MESSAGE_REWARD, &f));
    CHECK_INT(f.group, w->got);
    CHECK(f.valid);
    w->got++;
    CHECK(w->kept_count < WINDOW);
    w->kept[w->kept_count++] = msg;
    opd_msg_take(ctx, msg);
    return opd_timer_start_after(&w->timer, 300000);
}

/* ---- the source of rollouts ---- */

static opd_err source_pump(opd_ctx *ctx, world *w) {
    while (w->sent < ROLLOUTS) {
        int32_t ids[] = {1, 9, 30};
        opd_rollout_fields f = {.group = w->sent, .prompt_len = 2};
        CHECK_OK(opd_slice_copy(NULL, ids, sizeof ids, &f.tokens));
        opd_err err = opd_message_link_send(ctx, w->link, OPD_MESSAGE_ROLLOUT, &f);
        opd_buf_release(f.tokens.buf);
        if (err == OPD_ERR_AGAIN) return OPD_OK;
        OPD_TRY(err);
        w->sent++;
    }
    return OPD_OK;
}

static opd_err source_start(opd_ctx *ctx, void *arg) {
    world *w = arg;
    OPD_TRY(opd_link_open(ctx, w->roles.reward, WINDOW, 1 << 16, &w->link));
    return source_pump(ctx, w);
}

static opd_err source_signal(opd_ctx *ctx, void *arg, const opd_signal *signal) {
    return signal->kind == OPD_SIGNAL_CREDIT ? source_pump(ctx, arg) : OPD_OK;
}

/* ---- the cases ---- */

static void world_up(world *w) {
    memset(w, 0, sizeof *w);
    sys_up(&w->t, NULL);
    w->roles.batcher = script_spawn(&w->t, "batcher", (opd_script){
        .start = batcher_start, .message = batcher_message, .arg = w});
    CHECK_OK(opd_lane_open(w->t.system, "reward", 4, &w->lane));
    opd_reward_config config = {.lane = w->lane, .roles = &w->roles,
                                .window_msgs = WINDOW, .alloc = &w->t.memory.alloc};
    CHECK_OK(opd_spawn(w->t.system, &opd_reward_class, NULL, &config, &w->roles.reward));
    (void)script_spawn(&w->t, "source", (opd_script){
        .start = source_start, .signal = source_signal, .arg = w});
}

TEST(rewards_without_credit_wait_and_leave_in_order) {
    world w;
    world_up(&w);
    CHECK_OK(opd_system_run(w.t.system));
    CHECK_INT(w.got, ROLLOUTS);
    sys_down(&w.t);
}

TEST(what_waits_is_released_when_it_ends) {
    world w;
    world_up(&w);
    w.got = 0;
    opd_system_stop(w.t.system, OPD_OK); /* before the first reward left */
    CHECK_OK(opd_system_run(w.t.system));
    CHECK(w.got <= WINDOW);
    for (size_t i = 0; i < w.kept_count; i++) opd_msg_release(w.kept[i]);
    sys_down(&w.t);
}
