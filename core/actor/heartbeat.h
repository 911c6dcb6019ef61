/* heartbeat.h - the loop's side of the heartbeat (opd/diagnosis.h, heartbeat.c).
 *
 * Thread: the loop's; the words are read by the watchdog, hence the relaxed atomics.
 */
#ifndef OPD_CORE_ACTOR_HEARTBEAT_H
#define OPD_CORE_ACTOR_HEARTBEAT_H

#include "core/actor/internal.h"

/* Which callback begins now; began_ns 0: none. For the watchdog. */
static inline void opd__heartbeat(const opd_ctx *ctx, uint64_t began_ns, uint16_t kind) {
    opd_heartbeat *h = &ctx->system->heartbeat;
    uint64_t slot = (ctx->pid >> 32) & UINT16_MAX;
    __atomic_store_n(&h->what, slot << 16 | kind, __ATOMIC_RELAXED);
    __atomic_store_n(&h->began_ns, began_ns, __ATOMIC_RELAXED);
}

/* Makes the table of names; freed with the system. Errors: NOMEM. */
opd_err opd__heartbeat_create(opd_system *system) OPD_MUST_CHECK;

/* Tells readers the name of the actor's slot. */
void opd__heartbeat_name(opd_ctx *ctx);

#endif
