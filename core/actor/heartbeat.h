/* heartbeat.h - the loop's side of the heartbeat (opd/diagnosis.h, heartbeat.c).
 *
 * Thread: the loop's; the words are read by the watchdog, hence the atomics.
 */
#ifndef OPD_CORE_ACTOR_HEARTBEAT_H
#define OPD_CORE_ACTOR_HEARTBEAT_H

#include "core/actor/internal.h"

/* A sequence lock of one writer: began_ns is 0 while `what` changes. Who sees the new `what`
 * sees the 0, or what came after it. */
static inline void opd__heartbeat_set(opd_heartbeat *h, uint64_t began_ns, uint64_t what) {
    __atomic_store_n(&h->began_ns, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&h->what, what, __ATOMIC_RELEASE);
    __atomic_store_n(&h->began_ns, began_ns, __ATOMIC_RELEASE);
}

/* Which callback begins now; began_ns 0: none. */
static inline void opd__heartbeat(const opd_ctx *ctx, uint64_t began_ns, uint16_t kind) {
    uint64_t slot = (ctx->pid >> 32) & UINT16_MAX;
    opd__heartbeat_set(&ctx->system->heartbeat, began_ns, slot << 16 | kind);
}

/* The same for a callback that is no actor's. */
static inline void opd__heartbeat_loop(opd_system *system, uint64_t began_ns) {
    opd__heartbeat_set(&system->heartbeat, began_ns, (uint64_t)system->options.actors_max << 16);
}

/* Makes the table of names; freed with the system. Errors: NOMEM. */
opd_err opd__heartbeat_create(opd_system *system) OPD_MUST_CHECK;

/* Tells readers the name of the actor's slot. */
void opd__heartbeat_name(opd_ctx *ctx);

#endif
