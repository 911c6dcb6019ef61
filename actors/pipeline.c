/* pipeline.c - wires the roles of a stage (pipeline.h).
 *
 * Invariants: roles are spawned in the order of the header comment; whatever was built is
 * taken down in reverse, also after an error half-way; the loop closes with nothing open.
 * Thread: the loop. The pipeline owns env, system, slot and signals.
 */
#include "actors/pipeline.h"

#include <stdio.h>

#include "actors/batcher/batcher_actor.h"
#include "actors/checkpoint/checkpoint_actor.h"
#include "actors/dataset/dataset_actor.h"
#include "actors/evaluator/evaluator_actor.h"
#include "actors/guardian/guardian_actor.h"
#include "actors/messages.h"
#include "actors/monitor/monitor_actor.h"
#include "actors/reward/reward_actor.h"
#include "actors/rollout/rollout_actor.h"
#include "actors/run/watch.h"
#include "actors/scorer/scorer_actor.h"
#include "actors/teacher/teacher_host.h"
#include "actors/teacher/teacher_http.h"
#include "actors/teacher/teacher_local.h"
#include "core/base/check.h"
#include "core/base/file.h"
#include "core/env/env.h"
#include "opd/log.h"

struct opd_pipeline {
    opd_pipeline_options o;
    const opd_assets *a;
    const opd_config_stage *c;
    const opd_config_teacher *teacher; /* NULL without OPD */
    opd_trainer_outcome *outcome;
    opd_env *env;
    bool env_own; /* made here, not given */
    opd_system *system;
    opd_slot *weights;
    opd_signals *signals;
    opd_watch watching;
    opd_lane *rollout_lane, *trainer_lane, *scorer_lane, *disk_lane;
    opd_roles roles;
    char teacher_dir[OPD_PATH_SIZE]; /* what the launched teacher serves */
    bool policy;
};

typedef struct opd_pipeline pipeline;

/* ---- the roles ---- */

static opd_err spawn_monitor(pipeline *p) {
    opd_monitor_config config = {
        .stage = p->c->name, .first_step = p->a->first_step, .steps = p->a->steps,
        .invalid_tokens = p->a->resumed.invalid_tokens,
        .policy = p->policy, .teacher = p->teacher != NULL,
        .metrics_interval = (uint64_t)p->c->run.metrics_interval,
        .metrics_fd = p->o.metrics_fd, .samples_fd = p->o.samples_fd,
        .screen_fd = p->o.screen_fd, .screen = p->o.screen, .tokenizer = p->a->tokenizer,
        .disk = p->disk_lane, .alloc = p->a->alloc};
    return opd_spawn(p->system, &opd_monitor_class, NULL, &config, &p->roles.monitor);
}

static opd_err spawn_checkpoint(pipeline *p) {
    opd_checkpoint_config config = {
        .dir = p->o.checkpoint_dir, .model = p->a->model, .tokenizer = p->a->tokenizer,
        .seed = (uint64_t)p->c->run.seed, .keep = (uint32_t)p->c->train.keep,
        .disk = p->disk_lane, .alloc = p->a->alloc};
    return opd_spawn(p->system, &opd_checkpoint_class, NULL, &config, &p->roles.checkpoint);
}

static opd_err spawn_trainer(pipeline *p) {
    const opd_config_stage *c = p->c;
    const opd_sizes *s = &p->a->sizes;
    bool eval = p->a->eval != NULL;
    opd_trainer_config config = {
        .learner = p->a->learner, .model = p->a->model,
        .objective = p->policy ? OPD_OBJECTIVE_POLICY : OPD_OBJECTIVE_SFT,
        .lane = p->trainer_lane, .weights = p->weights, .roles = &p->roles,
        .first_step = p->a->first_step, .steps = p->a->steps,
        .batch_prompts = s->batch_prompts, .samples_per_prompt = s->samples,
        .max_staleness = p->policy ? (uint32_t)c->rollout.max_staleness : 1,
        .tokens_max = s->batch_tokens,
        .teacher_k = p->teacher != NULL ? (size_t)c->opd.log_prob_top_k : 0,
        .teacher = p->teacher != NULL, .eval_start = eval && c->eval.at_start,
        .eval_end = eval && c->eval.at_end,
        .eval_interval = eval ? (uint64_t)c->eval.interval : 0,
        .save_interval = (uint64_t)c->train.save_interval,
        .nonfinite_max = (uint32_t)c->train.nonfinite_steps_max,
        .invalid_share_max = c->opd.invalid_share_max,
        .invalid_batches = (uint32_t)c->opd.invalid_batches_max,
        .samples_interval = (uint64_t)c->run.samples_interval, .outcome = p->outcome,
        .alloc = p->a->alloc};
    return opd_spawn(p->system, &opd_trainer_class, NULL, &config, &p->roles.trainer);
}

static opd_err spawn_batcher(pipeline *p) {
    const opd_sizes *s = &p->a->sizes;
    opd_batcher_config config = {
        .roles = &p->roles, .first_group = p->a->first_step * s->batch_prompts,
        .groups_max = s->window_groups, .samples_per_prompt = s->samples,
        .teacher = p->teacher != NULL, .window_msgs = s->window_msgs,
        .window_bytes = s->window_bytes, .alloc = p->a->alloc};
    return opd_spawn(p->system, &opd_batcher_class, NULL, &config, &p->roles.batcher);
}

static opd_err spawn_reward(pipeline *p) {
    opd_reward_config config = {
        .type = p->c->reward.type == OPD_CONFIG_REWARD_TYPE_MATH ? OPD_REWARD_MATH
                                                                 : OPD_REWARD_NONE,
        .tokenizer = p->a->tokenizer, .roles = &p->roles,
        .window_msgs = p->a->sizes.window_msgs, .alloc = p->a->alloc};
    return opd_spawn(p->system, &opd_reward_class, NULL, &config, &p->roles.reward);
}

static opd_err spawn_local_teacher(pipeline *p) {
    const opd_sizes *s = &p->a->sizes;
    opd_scorer_config scorer = {.model = p->a->teacher, .lm = p->a->lm, .lane = p->scorer_lane,
                                .kernels = p->a->scorer_kernels,
                                .max_tokens = (uint32_t)s->micro_tokens, .alloc = p->a->alloc};
    OPD_TRY(opd_spawn(p->system, &opd_scorer_class, NULL, &scorer, &p->roles.scorer));
    opd_teacher_local_config teacher = {
        .roles = &p->roles, .name = p->teacher->name,
        .top_k = (uint32_t)p->c->opd.log_prob_top_k, .temperature = p->c->rollout.temperature,
        .window_msgs = s->window_msgs, .window_bytes = s->window_bytes, .alloc = p->a->alloc};
    return opd_spawn(p->system, &opd_teacher_local_class, NULL, &teacher, &p->roles.teacher);
}

static opd_err spawn_http_teacher(pipeline *p) {
    const opd_sizes *s = &p->a->sizes;
    const opd_model_config *student = &p->a->model->config;
    opd_teacher_http_config teacher = {
        .roles = &p->roles, .env = p->env, .alloc = p->a->alloc, .teacher = p->teacher,
        .teacher_lost_s = p->c->opd.teacher_lost_s,
        .top_k = (uint32_t)p->c->opd.log_prob_top_k, .max_len = s->max_len,
        .temperature = p->c->rollout.temperature, .vocab_size = student->vocab_size,
        .bos_id = student->bos_id, .eos_id = student->eos_id,
        .tokenizer_hash = p->a->tokenizer_hash, .window_msgs = s->window_msgs,
        .window_bytes = s->window_bytes};
    OPD_TRY(opd_spawn(p->system, &opd_teacher_http_class, NULL, &teacher, &p->roles.teacher));
    if (p->teacher->url[0] != '\0') return OPD_OK;
    OPD_TRY(opd_teacher_dir(p->teacher, p->teacher_dir, sizeof p->teacher_dir));
    opd_teacher_host_config host = {
        .roles = &p->roles, .env = p->env, .program = p->o.program, .name = p->teacher->name,
        .model = p->teacher_dir, .threads = (uint32_t)p->c->device.teacher_threads};
    return opd_spawn(p->system, &opd_teacher_host_class, NULL, &host, &p->roles.teacher_host);
}

static opd_err spawn_teacher(pipeline *p) {
    if (p->teacher == NULL) return OPD_OK;
    return p->a->teacher != NULL ? spawn_local_teacher(p) : spawn_http_teacher(p);
}

static opd_err spawn_rollout(pipeline *p) {
    const opd_config_rollout *r = &p->c->rollout;
    const opd_sizes *s = &p->a->sizes;
    opd_rollout_config config = {
        .model = &p->a->model->config, .lm = p->a->lm, .kernels = p->a->rollout_kernels,
        .lane = p->rollout_lane, .weights = p->weights, .roles = &p->roles, .slots = s->slots,
        .max_len = s->max_len, .prompts_max = s->window_groups, .requests_max = s->slots,
        .samples_per_prompt = p->policy ? s->samples : 0,
        .max_new = (uint32_t)r->max_response_len,
        .sampling = {.temperature = (float)r->temperature, .top_p = (float)r->top_p,
                     .top_k = r->top_k > 0 ? (int32_t)r->top_k : 0,
                     .greedy = r->temperature <= 0},
        .seed = (uint64_t)r->seed, .teacher = p->teacher != NULL,
        .window_msgs = s->window_msgs, .window_bytes = s->window_bytes, .alloc = p->a->alloc};
    return opd_spawn(p->system, &opd_rollout_class, NULL, &config, &p->roles.rollout);
}

static opd_err spawn_evaluator(pipeline *p) {
    if (p->a->eval == NULL) return OPD_OK;
    const opd_config_eval *e = &p->c->eval;
    opd_evaluator_config config = {
        .dataset = p->a->eval, .roles = &p->roles, .tokenizer = p->a->tokenizer,
        .samples = (uint32_t)e->samples, .inflight = p->a->sizes.slots,
        .max_new = (uint32_t)e->max_response_len, .temperature = e->temperature,
        .top_p = e->top_p, .top_k = e->top_k > 0 ? (uint32_t)e->top_k : 0,
        .seed = (uint64_t)p->c->rollout.seed, .alloc = p->a->alloc};
    return opd_spawn(p->system, &opd_evaluator_class, NULL, &config, &p->roles.evaluator);
}

static opd_err spawn_dataset(pipeline *p) {
    const opd_sizes *s = &p->a->sizes;
    opd_dataset_config config = {
        .dataset = p->a->train, .roles = &p->roles, .examples = !p->policy,
        .first_group = p->a->first_step * s->batch_prompts,
        .group_end = p->a->steps * s->batch_prompts, .batch_prompts = s->batch_prompts,
        .max_staleness = (uint32_t)p->c->rollout.max_staleness,
        .window_msgs = s->window_groups, .window_bytes = s->window_bytes};
    return opd_spawn(p->system, &opd_dataset_class, NULL, &config, &p->roles.dataset);
}

static opd_err spawn_roles(pipeline *p) {
    OPD_TRY(spawn_monitor(p));
    OPD_TRY(spawn_checkpoint(p));
    OPD_TRY(spawn_trainer(p));
    if (p->policy) {
        OPD_TRY(spawn_batcher(p));
        OPD_TRY(spawn_reward(p));
        OPD_TRY(spawn_teacher(p));
    }
    OPD_TRY(spawn_rollout(p));
    OPD_TRY(spawn_evaluator(p));
    OPD_TRY(spawn_dataset(p));
    opd_pid guardian;
    return opd_spawn(p->system, &opd_guardian_class, NULL, &p->roles, &guardian);
}

/* ---- the world around them ---- */

static opd_err open_lanes(pipeline *p) {
    OPD_TRY(opd_lane_open(p->system, "rollout", 4, &p->rollout_lane));
    OPD_TRY(opd_lane_open(p->system, "trainer", 4, &p->trainer_lane));
    OPD_TRY(opd_lane_open(p->system, "disk", 16, &p->disk_lane));
    if (p->a->teacher == NULL) return OPD_OK;
    return opd_lane_open(p->system, "teacher", 4, &p->scorer_lane);
}

/* The first signal stops after the present step and saves; the second one stops at once. */
void opd_pipeline_interrupt(opd_pipeline *p, int signal_number, bool now) {
    opd_err reason = opd_fail(OPD_ERR_INTERRUPTED, "stopped at once by signal %d; nothing was "
                              "saved since the last checkpoint", signal_number);
    opd_interrupt_fields f = {.reason = (uint32_t)signal_number};
    opd_msg *msg;
    if (now || opd_message_create(p->system, OPD_MESSAGE_INTERRUPT, &f, &msg) != OPD_OK) {
        opd_system_kill(p->system, reason);
        return;
    }
    OPD_LOG_INFO("signal %d: stopping after this step", signal_number);
    if (opd_post(p->system, p->roles.trainer, msg) == OPD_OK) return;
    opd_msg_release(msg);
    opd_system_stop(p->system, reason);
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
    OPD_TRY(open_lanes(p));
    OPD_TRY(spawn_roles(p));
    if (!p->o.handle_signals) return OPD_OK;
    OPD_TRY(opd_signals_open(p->env, p->a->alloc, on_stop_signal, p, &p->signals));
    return opd_watch_signal(&p->watching, p->signals);
}

opd_err opd_pipeline_close(opd_pipeline *p, opd_err err) {
    char context[1024];
    (void)snprintf(context, sizeof context, "%s", err != OPD_OK ? opd_err_context() : "");
    opd_signals_close(p->signals);
    opd_watch_close(&p->watching);
    opd_slot_destroy(p->weights);
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
                    .teacher = opd_stage_teacher(config), .outcome = out_outcome,
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
