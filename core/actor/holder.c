/* holder.c - who has the envelopes that are out of the pool: counts, and leaks by name.
 *
 * A message has a holder from its making (the actor whose callback runs) to its sending, and
 * from its dequeueing to its release. What waits in a mailbox is counted there (stats.depth).
 * A holder that ended with messages in its hands leaked them: it is named once, in the log
 * and in the system's stats; a request among them is answered CLOSED, since nobody else can.
 *
 * Thread: the loop's. Nothing is allocated.
 */
#include <stdio.h>
#include <string.h>

#include "core/actor/internal.h"
#include "opd/log.h"

enum { KINDS_NAMED = 6, TEXT_SIZE = 160 };

opd_err opd__pool_empty(const opd_system *system) {
    const opd_ctx *most = NULL;
    const opd_list *actors = &system->actors;
    for (const opd_list *n = actors->next; n != actors; n = n->next) {
        const opd_ctx *ctx = OPD_CONTAINER_OF(n, opd_ctx, spawned);
        uint64_t has = (uint64_t)ctx->stats.held + ctx->stats.depth;
        if (most == NULL || has > (uint64_t)most->stats.held + most->stats.depth) most = ctx;
    }
    uint32_t all = system->options.messages_max;
    if (most == NULL) return opd_fail(OPD_ERR_LIMIT, "all %u messages are in use, by no actor", all);
    return opd_fail(OPD_ERR_LIMIT,
                    "all %u messages are in use; %s has most: %u in hand, %u in its mailbox", all,
                    most->name, most->stats.held, most->stats.depth);
}

/* ---- leaks ----------------------------------------------------------------------------- */

typedef struct kind_counts {
    uint16_t kinds[KINDS_NAMED];
    uint32_t counts[KINDS_NAMED];
    uint32_t used, others;
} kind_counts;

static void count_kind(kind_counts *c, uint16_t kind) {
    uint32_t i = 0;
    while (i < c->used && c->kinds[i] != kind) i++;
    if (i == KINDS_NAMED) {
        c->others++;
        return;
    }
    if (i == c->used) c->kinds[c->used++] = kind;
    c->counts[i]++;
}

/* "2 of kind 3, 1 of kind 7, 4 of others" */
static void name_kinds(const opd_system *system, const kind_counts *c, char out[TEXT_SIZE]) {
    char room[8];
    size_t at = 0;
    out[0] = '\0';
    for (uint32_t i = 0; i <= c->used && at < TEXT_SIZE; i++) {
        int wrote = 0;
        const char *comma = i == 0 ? "" : ", ";
        if (i < c->used)
            wrote = snprintf(out + at, TEXT_SIZE - at, "%s%u of kind %s", comma, c->counts[i],
                             opd_kind_name(system, c->kinds[i], room, sizeof room));
        else if (c->others > 0)
            wrote = snprintf(out + at, TEXT_SIZE - at, "%s%u of others", comma, c->others);
        if (wrote > 0) at += (size_t)wrote;
    }
}

void opd__leaks_of_actor(opd_ctx *ctx) {
    if (ctx->stats.held == 0) return;
    opd_system *system = ctx->system;
    kind_counts found = {.used = 0};
    uint32_t count = ctx->stats.held;
    for (uint32_t i = 0; i < system->pool_fresh; i++) {
        opd_msg *msg = &system->pool[i];
        if (msg->system == NULL || msg->holder != ctx) continue;
        count_kind(&found, msg->kind);
        opd__msg_hold(NULL, msg);
        if (opd_msg_is_request(msg))
            opd__request_answer(msg, OPD_ERR_CLOSED, "the actor asked ended without an answer");
    }
    char text[TEXT_SIZE];
    name_kinds(system, &found, text);
    system->stats.leaked += count;
    OPD_LOG_ERROR("%s ended with %u messages in its hands (%s): leaked", ctx->name, count, text);
}

void opd__leaks_of_system(opd_system *system) {
    if (system->views_live > 0)
        OPD_LOG_ERROR("%u attachments received over links are still referenced",
                      system->views_live);
    if (system->stats.messages_in_use == 0) return;
    kind_counts found = {.used = 0};
    for (uint32_t i = 0; i < system->pool_fresh; i++)
        if (system->pool[i].system != NULL) count_kind(&found, system->pool[i].kind);
    char text[TEXT_SIZE];
    name_kinds(system, &found, text);
    OPD_LOG_ERROR("%u messages were neither sent nor released (%s); %llu of them leaked by actors",
                  system->stats.messages_in_use, text, (unsigned long long)system->stats.leaked);
}
