/* dataset_actor.c - emits prompts as far as admission and credit go (dataset_actor.h).
 *
 * Invariants: groups leave in ascending order, each once; no group at or above the admitted
 * bound leaves. Thread: the loop. The actor owns nothing but its link.
 */
#include "actors/dataset/dataset_actor.h"

#include <stdio.h>
#include <string.h>

#include "actors/messages.h"
#include "core/base/check.h"

typedef struct dataset_state {
    opd_dataset_config c;
    opd_link *link;
    uint64_t next, admitted; /* groups: [.., next) left, [.., admitted) may */
    uint64_t first, place;   /* group `first` has this place in dataset order, those before are void */
    uint64_t min_version;    /* that prompts must wait for: of the newest ADMIT */
    bool hold;
    opd_msg *ready; /* made, but refused for want of credit */
} dataset_state;

static opd_err make_prompt(dataset_state *s, opd_ctx *ctx, const opd_row *row, uint32_t epoch) {
    opd_prompt_fields f = {.group = s->next, .epoch = epoch,
                           .min_version = s->min_version, .void_end = s->first,
                           .place = s->next - s->first + s->place};
    uint32_t prompt_len;
    opd_err err;
    (void)snprintf(f.source, sizeof f.source, "%s", row->source);
    OPD_TRY_GOTO(opd_dataset_tokens(s->c.dataset, row, false, &f.tokens, &prompt_len), out);
    OPD_TRY_GOTO(opd_dataset_privileged(s->c.dataset, row, &f.privileged), out);
    if (row->label != NULL)
        OPD_TRY_GOTO(opd_slice_copy(s->c.dataset->alloc, row->label, strlen(row->label),
                                    &f.label), out);
    err = opd_message_create(opd_self_system(ctx), OPD_MESSAGE_PROMPT, &f, &s->ready);
out:
    opd_buf_release(f.tokens.buf);
    opd_buf_release(f.label.buf);
    opd_buf_release(f.privileged.buf);
    return err;
}

static opd_err make_example(dataset_state *s, opd_ctx *ctx, const opd_row *row, uint32_t epoch) {
    opd_example_fields f = {.group = s->next, .epoch = epoch};
    opd_err err;
    OPD_TRY(opd_dataset_tokens(s->c.dataset, row, true, &f.tokens, &f.prompt_len));
    OPD_TRY_GOTO(opd_dataset_mask(s->c.dataset, row, &f.learn), out);
    err = opd_message_create(opd_self_system(ctx), OPD_MESSAGE_EXAMPLE, &f, &s->ready);
out:
    opd_buf_release(f.tokens.buf);
    opd_buf_release(f.learn.buf);
    return err;
}

static opd_err pump(dataset_state *s, opd_ctx *ctx) {
    while (!s->hold && s->next < s->admitted) {
        if (s->ready == NULL) {
            uint64_t epoch;
            const opd_row *row = opd_dataset_row(s->c.dataset, s->next - s->first + s->place, &epoch);
            OPD_TRY(s->c.examples ? make_example(s, ctx, row, (uint32_t)epoch)
                                  : make_prompt(s, ctx, row, (uint32_t)epoch));
        }
        opd_err err = opd_link_send(ctx, s->link, s->ready);
        if (err == OPD_ERR_AGAIN) return OPD_OK; /* CREDIT calls again */
        OPD_TRY(err);
        s->ready = NULL;
        s->next++;
    }
    return OPD_OK;
}

/* What over-sampling left over comes again, as other groups. */
static void skip_to(dataset_state *s, const opd_admit_fields *admit) {
    OPD_ASSERT(s->next <= admit->first);
    opd_msg_release(s->ready);
    s->ready = NULL;
    s->next = s->first = admit->first;
    s->place = admit->place;
}

/* Supervised examples need no admission: the trainer's credit paces them. The first ones leave
 * from here, when every role exists. */
static opd_err on_start(opd_ctx *ctx, void *state, const void *config) {
    dataset_state *s = state;
    s->c = *(const opd_dataset_config *)config;
    s->next = s->first = s->place = s->c.first_group;
    s->admitted = s->c.examples ? s->c.group_end : s->c.admitted;
    if (s->admitted > s->c.group_end) s->admitted = s->c.group_end;
    opd_pid to = s->c.examples ? s->c.roles->trainer : s->c.roles->rollout;
    OPD_TRY(opd_link_open(ctx, to, s->c.window_msgs, s->c.window_bytes, &s->link));
    return pump(s, ctx);
}

static opd_err on_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    dataset_state *s = state;
    if (opd_msg_kind(msg) == OPD_MESSAGE_HOLD) {
        opd_hold_fields hold;
        OPD_TRY(opd_message_read(msg, OPD_MESSAGE_HOLD, &hold));
        s->hold = hold.hold;
        return pump(s, ctx);
    }
    opd_admit_fields admit;
    OPD_TRY(opd_message_read(msg, OPD_MESSAGE_ADMIT, &admit));
    s->min_version = admit.min_version;
    if (admit.first > s->first) skip_to(s, &admit);
    if (admit.group_end > s->admitted) s->admitted = admit.group_end;
    if (s->admitted > s->c.group_end) s->admitted = s->c.group_end;
    return pump(s, ctx);
}

static opd_err on_signal(opd_ctx *ctx, void *state, const opd_signal *signal) {
    return signal->kind == OPD_SIGNAL_CREDIT ? pump(state, ctx) : OPD_OK;
}

static void on_stop(opd_ctx *ctx, void *state) {
    (void)ctx;
    dataset_state *s = state;
    opd_msg_release(s->ready);
}

/* Of each only the newest counts: how far to go, and whether to. */
static const opd_kind_policy policies[] = {{OPD_MESSAGE_ADMIT, OPD_OVERFLOW_KEEP_LATEST},
                                           {OPD_MESSAGE_HOLD, OPD_OVERFLOW_KEEP_LATEST}};

const opd_actor_class opd_dataset_class = {
    .name = "dataset", .state_size = sizeof(dataset_state), .policies = policies,
    .policy_count = OPD_COUNTOF(policies), .on_start = on_start,
    .on_message = on_message, .on_signal = on_signal, .on_stop = on_stop};
