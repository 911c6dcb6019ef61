/* pipeline.c - the world of a stage's actors: loop, system, lanes, slots, signals (pipeline.h).
 *
 * The actors themselves are tree.c's. Invariants: whatever was built is taken down in reverse, also
 * after an error half-way; the loop closes with nothing open.
 * Thread: the loop. The pipeline owns env (unless given), system, slots and signals.
 */
#include "actors/pipeline.h"

#include <stdio.h>

#include "actors/messages.h"
#include "actors/pipeline_inside.h"
#include "actors/run/watch.h"
#include "core/base/check.h"
#include "core/env/env.h"
#include "opd/log.h"

typedef struct opd_pipeline pipeline;

enum { PARSE_QUEUE_MAX = 1024 }; /* answers; beyond it they are read on the loop */

/* ---- the world around them ---- */

static opd_err open_lanes(pipeline *p) {
    OPD_TRY(opd_lane_open(p->system, "rollout", 4, &p->rollout_lane));
    OPD_TRY(opd_lane_open(p->system, "trainer", 4, &p->trainer_lane));
    OPD_TRY(opd_lane_open(p->system, "disk", 16, &p->disk_lane));
    if (p->policy) OPD_TRY(opd_lane_open(p->system, "reward", 4, &p->reward_lane));
    if (p->served_count > 0)
        OPD_TRY(opd_lane_open(p->system, "parse", PARSE_QUEUE_MAX, &p->parse_lane));
    if (p->a->eval_kernels != NULL)
        OPD_TRY(opd_lane_open(p->system, "evaluation", 4, &p->eval_lane));
    if (p->a->teacher == NULL) return OPD_OK;
    return opd_lane_open(p->system, "teacher", 4, &p->scorer_lane);
}

static opd_err stopped_at_once(int signal_number) {
    return opd_fail(OPD_ERR_INTERRUPTED, "stopped at once by signal %d; nothing was saved since the "
                    "last checkpoint", signal_number);
}

/* The first signal stops after the present step and saves; the second one stops at once. */
void opd_pipeline_interrupt(opd_pipeline *p, int signal_number, bool now) {
    opd_interrupt_fields f = {.reason = (uint32_t)signal_number};
    opd_msg *msg;
    if (now || opd_message_create(p->system, OPD_MESSAGE_INTERRUPT, &f, &msg) != OPD_OK) {
        opd_system_kill(p->system, stopped_at_once(signal_number));
        return;
    }
    OPD_LOG_INFO("signal %d: stopping after this step", signal_number);
    if (opd_post(p->system, p->roles.trainer, msg) == OPD_OK) return;
    opd_msg_release(msg);
    opd_system_stop(p->system, stopped_at_once(signal_number));
}

static void on_stop_signal(void *arg, int signal_number, bool forced) {
    opd_pipeline_interrupt(arg, signal_number, forced);
}

static opd_err build(pipeline *p) {
    p->env_own = p->o.env == NULL;
    p->env = p->o.env;
    if (p->env_own) OPD_TRY(opd_env_uv_create(p->a->alloc, &p->env));
    opd_system_options options = {.alloc = p->a->alloc,
                                  .messages_max = p->a->sizes.messages_max,
                                  .stop_timeout_ms = 10000, .handler_warn_ms = 50,
                                  .kind_name = opd_message_kind_name, .recorder = true,
                                  .stall_report_ms = (uint64_t)p->c->run.stall_report_s * 1000};
    OPD_TRY(opd_system_create(&options, p->env, &p->system));
    if (p->o.watch != NULL) p->o.watch(p->o.watch_arg, p->system);
    opd_watch_options watching = {.alloc = p->a->alloc, .system = p->system,
                                  .env = p->env_own ? p->env : NULL,
                                  .watchdog_ms = (uint64_t)p->c->run.watchdog_ms,
                                  .trace_path = p->o.trace_path};
    OPD_TRY(opd_watch_open(&p->watching, &watching));
    OPD_TRY(opd_slot_create(p->system, &p->weights));
    OPD_TRY(opd_slot_create(p->system, &p->eval_weights));
    OPD_TRY(opd__tree_open_teachers(p));
    if (p->policy) OPD_TRY(opd_reward_parts_of(&p->c->reward, p->o.program, &p->reward));
    OPD_TRY(open_lanes(p));
    OPD_TRY(opd__tree_start(p));
    if (!p->o.handle_signals) return OPD_OK;
    OPD_TRY(opd_signals_open(p->env, p->a->alloc, on_stop_signal, p, &p->signals));
    return opd_watch_signal(&p->watching, p->signals);
}

opd_err opd_pipeline_close(opd_pipeline *p, opd_err err) {
    char context[1024];
    (void)snprintf(context, sizeof context, "%s", err != OPD_OK ? opd_err_context() : "");
    opd_signals_close(p->signals);
    opd_watch_close(&p->watching);
    opd__tree_close_teachers(p);
    opd_slot_destroy(p->weights);
    opd_slot_destroy(p->eval_weights);
    opd_system_destroy(p->system);
    opd_err closed = p->env_own ? opd_env_destroy(p->env) : OPD_OK;
    opd_mem_free(p->a->alloc, p);
    if (err == OPD_OK) return closed;
    return opd_fail(err, "%s", context);
}

opd_err opd_pipeline_open(const opd_pipeline_options *options, opd_trainer_outcome *out_outcome,
                          opd_pipeline **out_pipeline) {
    const opd_config_stage *config = options->assets->config;
    pipeline *p = opd_mem_get(options->assets->alloc, sizeof *p);
    if (p == NULL) return opd_fail(OPD_ERR_NOMEM, "stage %s: no memory", config->name);
    *p = (pipeline){.o = *options, .a = options->assets, .c = config,
                    .teacher = opd_stage_teacher(config) != NULL, .outcome = out_outcome,
                    .policy = config->kind == OPD_CONFIG_KIND_RL};
    opd_err err = build(p);
    if (err != OPD_OK) return opd_pipeline_close(p, err);
    *out_pipeline = p;
    return OPD_OK;
}

opd_err opd_pipeline_run(opd_pipeline *p) { return opd_system_run(p->system); }

opd_system *opd_pipeline_system(opd_pipeline *p) { return p->system; }

const opd_roles *opd_pipeline_roles(const opd_pipeline *p) { return &p->roles; }

opd_err opd_pipeline_execute(const opd_pipeline_options *options,
                             opd_trainer_outcome *out_outcome) {
    pipeline *p;
    OPD_TRY(opd_pipeline_open(options, out_outcome, &p));
    return opd_pipeline_close(p, opd_pipeline_run(p));
}
