/* heartbeat.c - which callback runs, for a reader on another thread (opd/diagnosis.h).
 *
 * A sequence lock with the time of the callback's begin as its sequence: a reader believes what
 * it read only if that did not change meanwhile. Every word is atomic.
 * Thread: opd__heartbeat_* the loop's, opd_heartbeat_read any. Freed with the system.
 */
#include <string.h>

#include "core/actor/heartbeat.h"

enum { NAME_WORDS = OPD_HEARTBEAT_NAME_SIZE / sizeof(uint64_t) };

opd_err opd__heartbeat_create(opd_system *system) {
    size_t size = (size_t)system->options.actors_max * OPD_HEARTBEAT_NAME_SIZE;
    system->heartbeat.names = opd_mem_get(system->options.alloc, size);
    return system->heartbeat.names == NULL ? opd_fail(OPD_ERR_NOMEM, "heartbeat") : OPD_OK;
}

void opd__heartbeat_name(opd_ctx *ctx) {
    uint64_t words[NAME_WORDS] = {0};
    memcpy(words, ctx->name, strnlen(ctx->name, sizeof words - 1));
    size_t slot = (size_t)(ctx->pid >> 32) & UINT16_MAX;
    for (size_t i = 0; i < NAME_WORDS; i++)
        __atomic_store_n(&ctx->system->heartbeat.names[slot * NAME_WORDS + i], words[i],
                         __ATOMIC_RELAXED);
}

const opd_heartbeat *opd_system_heartbeat(const opd_system *system) { return &system->heartbeat; }

bool opd_heartbeat_read(const opd_heartbeat *heartbeat, opd_heartbeat_reading *out) {
    uint64_t began_ns = __atomic_load_n(&heartbeat->began_ns, __ATOMIC_ACQUIRE);
    if (began_ns == 0) return false;
    uint64_t what = __atomic_load_n(&heartbeat->what, __ATOMIC_ACQUIRE);
    uint64_t words[NAME_WORDS];
    for (size_t i = 0; i < NAME_WORDS; i++)
        words[i] = __atomic_load_n(&heartbeat->names[(what >> 16) * NAME_WORDS + i],
                                   __ATOMIC_RELAXED);
    out->began_ns = began_ns;
    out->kind = (uint16_t)what;
    memcpy(out->name, words, sizeof out->name);
    return __atomic_load_n(&heartbeat->began_ns, __ATOMIC_RELAXED) == began_ns;
}
