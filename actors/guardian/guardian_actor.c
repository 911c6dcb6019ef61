/* guardian_actor.c - one monitor per role (guardian_actor.h). Thread: the loop. */
#include "actors/guardian/guardian_actor.h"

#include "core/base/check.h"

enum { ROLES = sizeof(opd_roles) / sizeof(opd_pid) };

typedef struct guardian {
    opd_monitor monitors[ROLES];
} guardian;

static opd_err on_start(opd_ctx *ctx, void *state, const void *config) {
    guardian *g = state;
    const opd_roles *r = config;
    const opd_pid pids[] = {r->monitor, r->checkpoint, r->trainer, r->batcher, r->reward,
                            r->teacher, r->teacher_host, r->scorer, r->rollout, r->evaluator,
                            r->dataset, r->server, r->client};
    OPD_ASSERT(OPD_COUNTOF(pids) == ROLES);
    for (size_t i = 0; i < ROLES; i++)
        if (pids[i] != OPD_PID_NOBODY) opd_monitor_start(ctx, &g->monitors[i], pids[i]);
    return OPD_OK;
}

static opd_err on_signal(opd_ctx *ctx, void *state, const opd_signal *signal) {
    (void)state;
    if (signal->kind != OPD_SIGNAL_DOWN || signal->reason == OPD_OK) return OPD_OK;
    opd_system_stop(opd_self_system(ctx), opd_fail(signal->reason, "%s", signal->text));
    return OPD_OK;
}

const opd_actor_class opd_guardian_class = {
    .name = "guardian", .state_size = sizeof(guardian), .on_start = on_start,
    .on_signal = on_signal};
