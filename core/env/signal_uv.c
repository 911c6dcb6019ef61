/* signal_uv.c - SIGINT, SIGTERM and SIGUSR1 on the loop (env.h).
 *
 * Invariants: `forced` is false for the first signal and true for all later ones. The block is
 * freed when all handles have closed. Thread: the loop's.
 */
#include <signal.h>
#include <uv.h>

#include "core/actor/transport.h"
#include "core/base/check.h"
#include "core/env/env.h"

enum { WATCHED = 2, DUMP = WATCHED, HANDLES };

struct opd_signals {
    opd_env *env;
    const opd_alloc *alloc;
    uv_signal_t handles[HANDLES];
    unsigned initialised, open; /* handles made; not yet closed */
    bool seen;
    void (*on_stop)(void *arg, int signal_number, bool forced);
    void *arg;
    void (*on_dump)(void *arg);
    void *dump_arg;
};

static void on_signal(uv_signal_t *handle, int signal_number) {
    opd_signals *signals = handle->data;
    bool forced = signals->seen;
    signals->seen = true;
    opd_env *env = signals->env;
    bool entered = opd_transport_enter(env, OPD_PID_NOBODY);
    signals->on_stop(signals->arg, signal_number, forced);
    opd_transport_leave(env, entered);
}

static void on_close(uv_handle_t *handle) {
    opd_signals *signals = handle->data;
    if (--signals->open == 0) opd_mem_free(signals->alloc, signals);
}

opd_err opd_signals_open(opd_env *env, const opd_alloc *alloc,
                         void (*on_stop)(void *arg, int signal_number, bool forced), void *arg,
                         opd_signals **out_signals) {
    static const int numbers[WATCHED] = {SIGINT, SIGTERM};
    if (opd_env_is_simulated(env))
        return opd_fail(OPD_ERR_UNSUPPORTED, "a simulated world has no signals");
    opd_signals *signals = opd_mem_get(alloc, sizeof *signals);
    if (signals == NULL) return opd_fail(OPD_ERR_NOMEM, "signal handlers");
    *signals = (opd_signals){.env = env, .alloc = alloc, .on_stop = on_stop,
                               .arg = arg};
    int status = 0;
    for (int i = 0; i < WATCHED; i++) {
        int initialised = uv_signal_init(opd_env_uv_loop(env), &signals->handles[i]);
        OPD_ASSERT(initialised == 0 || signals->open == 0);
        if (initialised != 0) { /* the loop's signal pipe could not be made: nothing is open */
            opd_mem_free(alloc, signals);
            return opd_fail(OPD_ERR_IO, "signals: %s", uv_strerror(initialised));
        }
        signals->initialised = ++signals->open;
        signals->handles[i].data = signals;
        if (status == 0) status = uv_signal_start(&signals->handles[i], on_signal, numbers[i]);
    }
    if (status != 0) {
        opd_signals_close(signals);
        return opd_fail(OPD_ERR_IO, "signals: %s", uv_strerror(status));
    }
    *out_signals = signals;
    return OPD_OK;
}

static void on_dump_signal(uv_signal_t *handle, int signal_number) {
    const opd_signals *signals = handle->data;
    (void)signal_number;
    bool entered = opd_transport_enter(signals->env, OPD_PID_NOBODY);
    signals->on_dump(signals->dump_arg);
    opd_transport_leave(signals->env, entered);
}

opd_err opd_signals_watch_dump(opd_signals *signals, void (*on_dump)(void *arg), void *arg) {
    OPD_ASSERT(signals->initialised == WATCHED); /* once */
    uv_signal_t *handle = &signals->handles[DUMP];
    signals->on_dump = on_dump;
    signals->dump_arg = arg;
    int status = uv_signal_init(signals->handles[0].loop, handle);
    if (status == 0) {
        handle->data = signals;
        signals->initialised = ++signals->open;
        status = uv_signal_start(handle, on_dump_signal, SIGUSR1);
    }
    return status == 0 ? OPD_OK : opd_fail(OPD_ERR_IO, "signals: %s", uv_strerror(status));
}

void opd_signals_close(opd_signals *signals) {
    if (signals == NULL) return;
    for (unsigned i = 0; i < signals->initialised; i++) uv_close((uv_handle_t *)&signals->handles[i], on_close);
}
