/* session.c - env, system and the actors of one client (session.h). Thread: the loop. */
#include "actors/run/session.h"

#include <stdio.h>

#include "actors/messages.h"
#include "actors/rollout/rollout_actor.h"
#include "actors/weights.h"
#include "core/base/check.h"
#include "core/env/env.h"

enum { WATCHDOG_MS = 1000 };

static void on_stop_signal(void *arg, int signal_number, bool forced) {
    opd_session *s = arg;
    opd_err reason = opd_fail(OPD_ERR_INTERRUPTED, "stopped by signal %d", signal_number);
    if (forced) opd_system_kill(s->system, reason);
    else opd_system_stop(s->system, reason);
}

static opd_err put_weights(opd_session *s, const opd_model *model) {
    opd_buf *buf;
    OPD_TRY(opd_weights_buf(model, NULL, &buf));
    opd_slot_put(s->weights, buf, 1);
    opd_buf_release(buf);
    return OPD_OK;
}

static opd_err start_rollout(opd_system *system, void *arg, opd_pid *out_pid) {
    opd_session *s = arg;
    opd_rollout_config config = {
        .model = &s->model->config, .kernels = s->kernels, .lane = s->lane,
        .weights = s->weights, .roles = &s->roles, .slots = s->slots, .max_len = s->max_len,
        .requests_max = s->slots};
    OPD_TRY(opd_spawn(system, &opd_rollout_class, NULL, &config, out_pid));
    s->roles.rollout = *out_pid;
    return OPD_OK;
}

void opd_session_add(opd_session *session, const char *id,
                     opd_err (*start)(opd_system *system, void *arg, opd_pid *out_pid), void *arg) {
    OPD_ASSERT(session->part_count < OPD_SESSION_PARTS_MAX);
    session->parts[session->part_count++] = (opd_child_spec){
        .id = id, .start = start, .arg = arg, .restart = OPD_RESTART_TRANSIENT};
}

static opd_err build(opd_session *s, const opd_session_options *o) {
    OPD_TRY(opd_env_uv_create(NULL, &s->env));
    opd_system_options system = {.messages_max = 8 * o->slots + 4096, .handler_warn_ms = 50,
                                 .kind_name = opd_message_kind_name, .recorder = true};
    OPD_TRY(opd_system_create(&system, s->env, &s->system));
    opd_watch_options watching = {.env = s->env, .system = s->system, .watchdog_ms = WATCHDOG_MS};
    OPD_TRY(opd_watch_open(&s->watching, &watching));
    OPD_TRY(opd_slot_create(s->system, &s->weights));
    OPD_TRY(put_weights(s, o->model));
    OPD_TRY(opd_lane_open(s->system, "rollout", 4, &s->lane));
    OPD_TRY(opd_kernels_create_cpu(OPD_CPU_ISA_AUTO, o->threads, NULL, &s->kernels));
    opd_session_add(s, "rollout", start_rollout, s);
    if (!o->handle_signals) return OPD_OK;
    OPD_TRY(opd_signals_open(s->env, NULL, on_stop_signal, s, &s->signals));
    return opd_watch_signal(&s->watching, s->signals);
}

static opd_err take_down(opd_session *s, opd_err err) {
    char context[1024];
    (void)snprintf(context, sizeof context, "%s", err != OPD_OK ? opd_err_context() : "");
    opd_signals_close(s->signals);
    opd_watch_close(&s->watching);
    opd_slot_destroy(s->weights);
    opd_system_destroy(s->system);
    opd_kernels_destroy(s->kernels);
    opd_err closed = opd_env_destroy(s->env);
    return err == OPD_OK ? closed : opd_fail(err, "%s", context);
}

opd_err opd_session_open(opd_session *session, const opd_session_options *options) {
    *session = (opd_session){.model = options->model, .slots = options->slots,
                             .max_len = options->max_len};
    opd_err err = build(session, options);
    return err == OPD_OK ? OPD_OK : take_down(session, err);
}

opd_err opd_session_run(opd_session *session) {
    opd_pid pid;
    opd_supervisor_options top = {.name = "session", .children = session->parts,
                                  .child_count = session->part_count,
                                  .restarts_max = OPD_SUPERVISOR_NO_RESTARTS};
    opd_err err = opd_supervisor_start(session->system, &top, &pid);
    if (err == OPD_OK) err = opd_system_run(session->system);
    return take_down(session, err);
}
