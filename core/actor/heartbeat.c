/* heartbeat.c - which callback runs, for a reader on another thread (opd/diagnosis.h).
 *
 * A sequence lock with the time of the callback's begin as its sequence: a reader believes what
 * it read only if that did not change meanwhile. Every word is atomic.
 *
 * Callbacks of transports come between turns; the env, which they know, leads to the system
 * attached to it, and so to its heartbeat.
 * Thread: opd__heartbeat_* and opd_transport_* the loop's, opd_heartbeat_read any. Freed with the system.
 */
#include <string.h>

#include "core/actor/heartbeat.h"
#include "core/actor/transport.h"

static const uint64_t TRANSPORT = UINT64_C(1) << 32;

enum { NAME_WORDS = OPD_HEARTBEAT_NAME_SIZE / sizeof(uint64_t) };

static void set_name(opd_heartbeat *h, size_t slot, const char *name) {
    uint64_t words[NAME_WORDS] = {0};
    memcpy(words, name, strnlen(name, sizeof words - 1));
    for (size_t i = 0; i < NAME_WORDS; i++)
        __atomic_store_n(&h->names[slot * NAME_WORDS + i], words[i], __ATOMIC_RELAXED);
}

opd_err opd__heartbeat_create(opd_system *system) {
    size_t size = ((size_t)system->options.actors_max + 1) * OPD_HEARTBEAT_NAME_SIZE;
    system->heartbeat.names = opd_mem_get(system->options.alloc, size);
    if (system->heartbeat.names == NULL) return opd_fail(OPD_ERR_NOMEM, "heartbeat");
    set_name(&system->heartbeat, system->options.actors_max, "the loop");
    return OPD_OK;
}

void opd__heartbeat_name(opd_ctx *ctx) {
    set_name(&ctx->system->heartbeat, (size_t)(ctx->pid >> 32) & UINT16_MAX, ctx->name);
}

opd_pid opd_transport_owner(const opd_env *env) {
    const opd_system *system = env->system;
    if (system == NULL) return OPD_PID_NOBODY;
    return system->current != NULL ? system->current->pid : system->transport_owner;
}

bool opd_transport_enter(opd_env *env, opd_pid owner) {
    opd_system *system = env->system;
    if (system == NULL || !system->running) return false;
    opd_heartbeat *h = &system->heartbeat;
    if (__atomic_load_n(&h->began_ns, __ATOMIC_RELAXED) != 0) return false;
    uint64_t slot = system->options.actors_max;
    if (opd__actor_find(system, owner) != NULL) {
        slot = owner >> 32;
        system->transport_owner = owner;
    }
    opd__heartbeat_set(h, env->ops->now_ns(env), TRANSPORT | slot << 16);
    return true;
}

void opd_transport_leave(opd_env *env, bool entered) {
    if (!entered || env->system == NULL) return; /* its user may have ended the system */
    env->system->transport_owner = OPD_PID_NOBODY;
    opd__heartbeat_set(&env->system->heartbeat, 0, 0);
}

const opd_heartbeat *opd_system_heartbeat(const opd_system *system) { return &system->heartbeat; }

bool opd_heartbeat_read(const opd_heartbeat *heartbeat, opd_heartbeat_reading *out) {
    uint64_t began_ns = __atomic_load_n(&heartbeat->began_ns, __ATOMIC_ACQUIRE);
    if (began_ns == 0) return false;
    uint64_t what = __atomic_load_n(&heartbeat->what, __ATOMIC_ACQUIRE);
    uint64_t words[NAME_WORDS], slot = what >> 16 & UINT16_MAX;
    for (size_t i = 0; i < NAME_WORDS; i++)
        words[i] = __atomic_load_n(&heartbeat->names[slot * NAME_WORDS + i], __ATOMIC_RELAXED);
    out->began_ns = began_ns;
    out->kind = (uint16_t)what;
    out->is_transport = (what & TRANSPORT) != 0;
    memcpy(out->name, words, sizeof out->name);
    return __atomic_load_n(&heartbeat->began_ns, __ATOMIC_RELAXED) == began_ns;
}
