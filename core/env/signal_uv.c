/* signal_uv.c - SIGINT and SIGTERM on the loop (env.h).
 *
 * Invariants: `forced` is false for the first signal and true for all later ones. The block is
 * freed when both handles have closed. Thread: the loop's.
 */
#include <signal.h>
#include <uv.h>

#include "core/base/check.h"
#include "core/env/env.h"

enum { WATCHED = 2 };

struct opd_signals {
    const opd_alloc *alloc;
    uv_signal_t handles[WATCHED];
    unsigned open;
    bool seen;
    void (*on_stop)(void *arg, int signal_number, bool forced);
    void *arg;
};

static void on_signal(uv_signal_t *handle, int signal_number) {
    opd_signals *signals = handle->data;
    bool forced = signals->seen;
    signals->seen = true;
    signals->on_stop(signals->arg, signal_number, forced);
}

static void on_close(uv_handle_t *handle) {
    opd_signals *signals = handle->data;
    if (--signals->open == 0) opd_mem_free(signals->alloc, signals);
}

opd_err opd_signals_open(opd_env *env, const opd_alloc *alloc,
                         void (*on_stop)(void *arg, int signal_number, bool forced), void *arg,
                         opd_signals **out_signals) {
    static const int numbers[WATCHED] = {SIGINT, SIGTERM};
    opd_signals *signals = opd_mem_get(alloc, sizeof *signals);
    if (signals == NULL) return opd_fail(OPD_ERR_NOMEM, "signal handlers");
    *signals = (opd_signals){.alloc = alloc, .on_stop = on_stop, .arg = arg};
    int status = 0;
    for (int i = 0; i < WATCHED; i++) {
        int initialised = uv_signal_init(opd_env_uv_loop(env), &signals->handles[i]);
        OPD_ASSERT(initialised == 0 || signals->open == 0);
        if (initialised != 0) { /* the loop's signal pipe could not be made: nothing is open */
            opd_mem_free(alloc, signals);
            return opd_fail(OPD_ERR_IO, "signals: %s", uv_strerror(initialised));
        }
        signals->open++;
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

void opd_signals_close(opd_signals *signals) {
    if (signals == NULL) return;
    for (int i = 0; i < WATCHED; i++) uv_close((uv_handle_t *)&signals->handles[i], on_close);
}
