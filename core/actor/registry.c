/* registry.c - actors found by name (opd/actor.h).
 *
 * The name is kept in the actor itself, so there are never more names than actors and a name
 * cannot outlive its owner. Thread: the loop's. Nothing is allocated.
 */
#include <string.h>

#include "core/actor/internal.h"

opd_pid opd_whereis(const opd_system *system, const char *name) {
    if (name[0] == '\0') return OPD_PID_NOBODY;
    for (const opd_list *n = system->actors.next; n != &system->actors; n = n->next) {
        const opd_ctx *ctx = OPD_CONTAINER_OF(n, opd_ctx, spawned);
        if (ctx->phase <= PHASE_ALIVE && strcmp(ctx->registered, name) == 0) return ctx->pid;
    }
    return OPD_PID_NOBODY;
}

opd_err opd__register(opd_ctx *ctx, const char *name) {
    size_t length = strnlen(name, OPD__NAME_SIZE);
    if (length == 0 || length >= OPD__NAME_SIZE)
        return opd_fail(OPD_ERR_INVALID, "%s: a name has 1 to %d bytes, this one is '%.40s'",
                        ctx->name, OPD__NAME_SIZE - 1, name);
    if (ctx->phase > PHASE_ALIVE) return opd_fail(OPD_ERR_CLOSED, "%s is ending", ctx->name);
    opd_pid owner = opd_whereis(ctx->system, name);
    if (owner == ctx->pid) return OPD_OK;
    if (owner != OPD_PID_NOBODY)
        return opd_fail(OPD_ERR_EXISTS, "%s: another living actor has the name '%s'", ctx->name,
                        name);
    opd__text_copy(ctx->registered, sizeof ctx->registered, name);
    return OPD_OK;
}

opd_err opd_register(opd_ctx *ctx, const char *name) { return opd__register(ctx, name); }
