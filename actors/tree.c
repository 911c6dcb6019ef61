/* tree.c - the actors of a stage as a tree of supervisors: how each is started, and who starts
 * what again (the table at the end, and docs/supervision.md).
 *
 *   run         nothing is restarted here: what comes up to it ends the run in order, and the
 *    |          trainer saves
 *    +- services    one for one: nobody's work depends on their memory
 *    |    monitor, checkpoint, [teacher-host ...]
 *    +- trainer     its state is the run's
 *    +- dataplane   all or none: samples under way are in many hands
 *         batcher, reward, [scorer], [panel, teacher ...], rollout, [eval-rollout], [evaluator],
 *         dataset
 *
 * A data plane that is started again begins at the first group that no batch took, with the
 * bound that the trainer gave last; the trainer drops what it holds of the old one. Sampling depends
 * on (seed, epoch, group, member, position) alone, so the samples made again are the same:
 * nothing is trained twice, nothing is lost.
 *
 * Invariant: p->roles names the living; those of the data plane are nobody from its failure on
 * until they are started again. Thread: the loop. The pipeline owns the tables.
 */
#include <stdio.h>

#include "actors/batcher/batcher_actor.h"
#include "actors/checkpoint/checkpoint_actor.h"
#include "actors/dataset/dataset_actor.h"
#include "actors/evaluator/evaluator_actor.h"
#include "actors/messages.h"
#include "actors/monitor/monitor_actor.h"
#include "actors/pipeline_inside.h"
#include "actors/reward/reward_actor.h"
#include "actors/rollout/rollout_actor.h"
#include "actors/scorer/scorer_actor.h"
#include "actors/panel/panel_actor.h"
#include "actors/teacher/teacher_host.h"
#include "actors/teacher/teacher_http.h"
#include "core/base/check.h"
#include "opd/log.h"

typedef struct opd_pipeline pipeline;

/* Spawns an actor and keeps its pid as the one of that role. */
static opd_err spawn(pipeline *p, const opd_actor_class *actor_class, const void *config,
                     opd_pid *role, opd_pid *out_pid) {
    OPD_TRY(opd_spawn(p->system, actor_class, NULL, config, out_pid));
    *role = *out_pid;
    return OPD_OK;
}

/* ---- services -------------------------------------------------------------------------- */

static opd_err start_monitor(opd_system *system, void *arg, opd_pid *out_pid) {
    (void)system;
    pipeline *p = arg;
    uint64_t done = p->outcome->steps > p->a->first_step ? p->outcome->steps : p->a->first_step;
    opd_monitor_config config = {
        .stage = p->c->name, .first_step = done, .steps = p->a->steps,
        .invalid_tokens = p->a->resumed.invalid_tokens,
        .policy = p->policy, .teacher = p->teacher,
        .metrics_interval = (uint64_t)p->c->run.metrics_interval,
        .metrics_fd = p->o.metrics_fd, .samples_fd = p->o.samples_fd,
        .screen_fd = p->o.screen_fd, .screen = p->o.screen, .tokenizer = p->a->tokenizer,
        .evals = &p->a->evals, .teachers = p->c->teachers, .teacher_count = p->c->teacher_count,
        .disk = p->disk_lane, .alloc = p->a->alloc};
    return spawn(p, &opd_monitor_class, &config, &p->roles.monitor, out_pid);
}

static opd_err start_checkpoint(opd_system *system, void *arg, opd_pid *out_pid) {
    (void)system;
    pipeline *p = arg;
    opd_critic *critic = opd_learner_critic(p->a->learner);
    opd_checkpoint_config config = {
        .dir = p->o.checkpoint_dir, .model = p->a->model,
        .critic = critic != NULL ? &critic->head : NULL, .tokenizer = p->a->tokenizer,
        .seed = (uint64_t)p->c->run.seed, .keep = (uint32_t)p->c->train.keep,
        .disk = p->disk_lane, .alloc = p->a->alloc};
    return spawn(p, &opd_checkpoint_class, &config, &p->roles.checkpoint, out_pid);
}

/* The server outlives a restart of the data plane, whose teacher finds it by the slot. */
static opd_err start_teacher_host(opd_system *system, void *arg, opd_pid *out_pid) {
    (void)system;
    opd__served *served = arg;
    pipeline *p = served->pipeline;
    const opd_config_teacher *teacher = &p->c->teachers[served->place];
    OPD_TRY(opd_teacher_dir(teacher, served->dir, sizeof served->dir));
    opd_teacher_host_config config = {
        .roles = &p->roles, .endpoint = served->endpoint, .alloc = p->a->alloc, .env = p->env,
        .program = p->o.program, .name = teacher->name, .model = served->dir,
        .threads = (uint32_t)p->c->device.teacher_threads,
        .cache_mb = (uint32_t)p->c->device.teacher_cache_mb};
    return spawn(p, &opd_teacher_host_class, &config, &p->roles.teacher_hosts[served->place],
                 out_pid);
}

/* ---- trainer --------------------------------------------------------------------------- */

static bool filters(const pipeline *p) {
    return p->policy && p->c->rollout.filter != OPD_CONFIG_FILTER_NONE;
}

/* Of a stage that goes on from a checkpoint, else 0. */
static uint64_t first_group(const pipeline *p) {
    return p->a->first_step > 0 ? p->a->resumed.group : 0;
}

static opd_err start_trainer(opd_system *system, void *arg, opd_pid *out_pid) {
    (void)system;
    pipeline *p = arg;
    const opd_config_stage *c = p->c;
    const opd_sizes *s = &p->a->sizes;
    bool eval = p->a->evals.count > 0;
    opd_trainer_config config = {
        .learner = p->a->learner, .model = p->a->model,
        .objective = p->policy ? OPD_OBJECTIVE_POLICY : OPD_OBJECTIVE_SFT,
        .lane = p->trainer_lane, .weights = p->weights, .roles = &p->roles,
        .first_step = p->a->first_step, .steps = p->a->steps,
        .first_group = first_group(p), .filter = filters(p), .spare_groups = s->spare_groups,
        .batch_prompts = s->batch_prompts, .samples_per_prompt = s->samples,
        .max_staleness = p->policy ? (uint32_t)c->rollout.max_staleness : 1,
        .tokens_max = s->batch_tokens,
        .teacher_k = p->teacher ? s->teacher_k : 0, .asked_k = p->teacher ? s->asked_k : 0,
        .teacher = p->teacher, .evals = &p->a->evals, .eval_start = eval && c->eval.at_start,
        .eval_end = eval && c->eval.at_end,
        .eval_weights = p->a->evals.beside ? p->eval_weights : NULL,
        .save_interval = (uint64_t)c->train.save_interval, .validation = p->a->validation,
        .validation_interval = (uint64_t)c->train.validation_interval,
        .best = c->train.keep_best[0] != '\0' ? &p->a->best : NULL,
        .nonfinite_max = (uint32_t)c->train.nonfinite_steps_max,
        .invalid_share_max = c->opd.invalid_share_max,
        .invalid_batches = (uint32_t)c->opd.invalid_batches_max,
        .samples_interval = (uint64_t)c->run.samples_interval, .outcome = p->outcome,
        .teachers = c->teachers, .teacher_count = c->teacher_count,
        .alloc = p->a->alloc};
    return spawn(p, &opd_trainer_class, &config, &p->roles.trainer, out_pid);
}

/* ---- data plane ------------------------------------------------------------------------ */

static opd_err start_batcher(opd_system *system, void *arg, opd_pid *out_pid) {
    (void)system;
    pipeline *p = arg;
    const opd_sizes *s = &p->a->sizes;
    opd_batcher_config config = {
        .roles = &p->roles, .first_group = p->outcome->groups_taken,
        .groups_max = s->window_groups, .samples_per_prompt = s->samples,
        .teacher = p->teacher, .filter = filters(p), .batch_prompts = s->batch_prompts,
        .filter_max_dropped = (uint64_t)p->c->rollout.filter_max_dropped, .spare_groups = s->spare_groups,
        .window_msgs = s->window_msgs, .window_bytes = s->window_bytes, .alloc = p->a->alloc};
    return spawn(p, &opd_batcher_class, &config, &p->roles.batcher, out_pid);
}

static opd_err start_reward(opd_system *system, void *arg, opd_pid *out_pid) {
    (void)system;
    pipeline *p = arg;
    opd_reward_config config = {
        .parts = p->reward.parts, .part_count = p->reward.count,
        .samples_per_prompt = p->a->sizes.samples, .lane = p->reward_lane, .env = p->env,
        .tokenizer = p->a->tokenizer, .roles = &p->roles,
        .window_msgs = p->a->sizes.window_msgs, .alloc = p->a->alloc};
    return spawn(p, &opd_reward_class, &config, &p->roles.reward, out_pid);
}

static opd_err start_scorer(opd_system *system, void *arg, opd_pid *out_pid) {
    (void)system;
    pipeline *p = arg;
    opd_scorer_config config = {
        .model = p->a->teacher, .lm = p->a->lm, .lane = p->scorer_lane,
        .weights = opd_stage_teacher(p->c)->student == OPD_CONFIG_STUDENT_CURRENT ? p->weights : NULL,
        .kernels = p->a->scorer_kernels, .max_tokens = p->a->sizes.score_len,
        .cache_bytes = p->a->sizes.teacher_cache_bytes, .alloc = p->a->alloc};
    return spawn(p, &opd_scorer_class, &config, &p->roles.scorer, out_pid);
}

static opd_err start_panel(opd_system *system, void *arg, opd_pid *out_pid) {
    (void)system;
    pipeline *p = arg;
    const opd_sizes *s = &p->a->sizes;
    bool in_process = p->a->teacher != NULL;
    if (in_process)
        OPD_TRY(opd_teacher_dir(opd_stage_teacher(p->c), p->model, sizeof p->model));
    opd_panel_config config = {
        .roles = &p->roles, .stage = p->c, .model = in_process ? p->model : NULL,
        .max_len = s->max_len, .top_k = s->teacher_k, .asked_k = s->asked_k, .samples_max = s->slots, .window_msgs = s->window_msgs,
        .window_bytes = s->window_bytes, .alloc = p->a->alloc};
    return spawn(p, &opd_panel_class, &config, &p->roles.teacher, out_pid);
}

static opd_err start_teacher(opd_system *system, void *arg, opd_pid *out_pid) {
    (void)system;
    opd__served *served = arg;
    pipeline *p = served->pipeline;
    const opd_model_config *student = &p->a->model->config;
    opd_teacher_http_config config = {
        .roles = &p->roles, .endpoint = served->endpoint, .env = p->env, .alloc = p->a->alloc,
        .parse = p->parse_lane, .teacher = &p->c->teachers[served->place], .place = served->place,
        .teacher_lost_s = p->c->opd.teacher_lost_s, .top_k = p->a->sizes.teacher_k,
        .max_len = p->a->sizes.score_len, .temperature = p->c->rollout.temperature,
        .vocab_size = student->vocab_size, .bos_id = student->bos_id, .eos_id = student->eos_id,
        .pad_id = student->pad_id, .tokenizer = p->a->tokenizer,
        .account = p->o.accounts != NULL ? &p->o.accounts[served->place] : NULL,
        .tokenizer_hash = p->a->tokenizer_hash};
    return spawn(p, &opd_teacher_http_class, &config, &p->roles.teachers[served->place], out_pid);
}

/* The engine of evaluations beside the training; where nothing but evaluations generates, rollout is. */
static opd_err start_eval_rollout(opd_system *system, void *arg, opd_pid *out_pid) {
    (void)system;
    pipeline *p = arg;
    const opd_sizes *s = &p->a->sizes;
    opd_rollout_config config = {
        .model = &p->a->model->config, .lm = p->a->lm, .kernels = p->a->eval_kernels,
        .lane = p->eval_lane, .weights = p->eval_weights, .roles = &p->roles, .slots = s->slots,
        .max_len = s->max_len, .requests_max = s->slots, .alloc = p->a->alloc};
    return spawn(p, &opd_rollout_class, &config, &p->roles.eval_rollout, out_pid);
}

static opd_err start_rollout(opd_system *system, void *arg, opd_pid *out_pid) {
    (void)system;
    pipeline *p = arg;
    bool of_evals = !p->policy && p->a->evals.beside;
    const opd_config_rollout *r = &p->c->rollout;
    const opd_sizes *s = &p->a->sizes;
    opd_rollout_config config = {
        .model = &p->a->model->config, .lm = p->a->lm, .kernels = p->a->rollout_kernels,
        .lane = p->rollout_lane, .weights = of_evals ? p->eval_weights : p->weights,
        .roles = &p->roles, .slots = s->slots, .max_len = s->max_len, .prompts_max = s->window_groups, .requests_max = s->slots,
        .samples_per_prompt = p->policy ? s->samples : 0,
        .max_new = (uint32_t)r->max_response_len,
        .sampling = {.temperature = (float)r->temperature, .top_p = (float)r->top_p,
                     .top_k = r->top_k > 0 ? (int32_t)r->top_k : 0,
                     .greedy = r->temperature <= 0},
        .seed = (uint64_t)r->seed, .teacher = p->teacher, .top_k = p->teacher ? s->asked_k : 0,
        .chunk_tokens = p->teacher ? opd_stage_chunk_tokens(p->c) : 0,
        .window_msgs = s->window_msgs, .window_bytes = s->window_bytes, .alloc = p->a->alloc};
    return spawn(p, &opd_rollout_class, &config, &p->roles.rollout, out_pid);
}

static opd_err start_evaluator(opd_system *system, void *arg, opd_pid *out_pid) {
    (void)system;
    pipeline *p = arg;
    opd_evaluator_config config = {
        .sets = &p->a->evals, .roles = &p->roles, .tokenizer = p->a->tokenizer,
        .rule = opd_reward_rule_of(p->c->reward.one.type), .boxed = p->c->reward.one.boxed,
        .inflight = p->a->sizes.slots, .seed = (uint64_t)p->c->rollout.seed, .alloc = p->a->alloc};
    return spawn(p, &opd_evaluator_class, &config, &p->roles.evaluator, out_pid);
}

static opd_err start_dataset(opd_system *system, void *arg, opd_pid *out_pid) {
    (void)system;
    pipeline *p = arg;
    const opd_sizes *s = &p->a->sizes;
    /* of a data plane that is started again, no more than it has room for: what was filtered before is
     * filtered once more, and then makes room */
    uint64_t room = p->outcome->groups_taken + s->window_groups;
    uint64_t admitted = p->outcome->groups_admitted < room ? p->outcome->groups_admitted : room;
    opd_dataset_config config = {
        .dataset = p->a->train, .roles = &p->roles, .examples = !p->policy,
        .first_group = p->outcome->groups_taken, .admitted = admitted,
        .group_end = filters(p) ? UINT64_MAX : p->a->steps * s->batch_prompts,
        .window_msgs = s->window_groups, .window_bytes = s->window_bytes};
    return spawn(p, &opd_dataset_class, &config, &p->roles.dataset, out_pid);
}

/* ---- what the person sees of a restart ------------------------------------------------- */

static void show(opd_ctx *ctx, pipeline *p, const opd_restart_report *r, const char *what) {
    p->outcome->restarts++;
    opd_note(ctx, p->roles.monitor, OPD_LOG_LEVEL_WARN, "%s %s%s%.100s; %s again (%u of %u in %llu s)",
             r->child, r->reason == OPD_OK ? "ended" : "failed", r->reason == OPD_OK ? "" : ": ",
             r->text, what, r->failures, r->restarts_max,
             (unsigned long long)((r->period_ms + 999) / 1000));
}

static void service_failed(opd_ctx *ctx, void *arg, const opd_restart_report *report) {
    show(ctx, arg, report, "it starts");
}

/* From here on what the old ones made is void. */
static void dataplane_failed(opd_ctx *ctx, void *arg, const opd_restart_report *report) {
    pipeline *p = arg;
    opd_roles *r = &p->roles;
    r->batcher = r->reward = r->scorer = r->teacher = OPD_PID_NOBODY;
    r->rollout = r->eval_rollout = r->evaluator = r->dataset = OPD_PID_NOBODY;
    for (size_t i = 0; i < OPD_COUNTOF(r->teachers); i++) r->teachers[i] = OPD_PID_NOBODY;
    show(ctx, p, report, "the data plane starts");
}

/* ---- teachers over HTTP ---------------------------------------------------------------- */

/* "teacher", or of several "teacher-NAME"; by its place where the name is too long for an actor's. */
static void name_part(char out[OPD__PART_ID_SIZE], const char *role, const opd__served *served,
                      bool several) {
    const char *name = several ? served->pipeline->c->teachers[served->place].name : "";
    int n = snprintf(out, OPD__PART_ID_SIZE, "%s%s%s", role, several ? "-" : "", name);
    if (n >= OPD__PART_ID_SIZE)
        (void)snprintf(out, OPD__PART_ID_SIZE, "%s-%u", role, served->place);
}

opd_err opd__tree_open_teachers(pipeline *p) {
    if (!p->policy || p->a->teacher != NULL) return OPD_OK;
    for (uint32_t i = 0; i < p->c->teacher_count; i++)
        if (opd_config_teacher_used(p->c, i))
            p->served[p->served_count++] = (opd__served){.pipeline = p, .place = i};
    for (uint32_t i = 0; i < p->served_count; i++) {
        opd__served *served = &p->served[i];
        const opd_config_teacher *teacher = &p->c->teachers[served->place];
        name_part(served->id, "teacher", served, p->served_count > 1);
        name_part(served->host_id, "teacher-host", served, p->served_count > 1);
        if (teacher->url[0] != '\0' || teacher->urls[0] != '\0') continue;
        OPD_TRY(opd_slot_create(p->system, &served->endpoint));
    }
    return OPD_OK;
}

void opd__tree_close_teachers(pipeline *p) {
    for (uint32_t i = 0; i < p->served_count; i++) opd_slot_destroy(p->served[i].endpoint);
}

/* ---- the tree -------------------------------------------------------------------------- */

static bool always(const pipeline *p) {
    (void)p;
    return true;
}

static bool policy(const pipeline *p) { return p->policy; }

static bool local_teacher(const pipeline *p) { return p->policy && p->a->teacher != NULL; }

static bool teachers(const pipeline *p) { return p->policy && p->teacher; }

static bool evaluates(const pipeline *p) { return p->a->evals.count > 0; }

static bool evaluates_beside(const pipeline *p) { return p->policy && p->a->evals.beside; }

static opd_err start_branch(opd_system *system, void *arg, opd_pid *out_pid) {
    const opd__branch *branch = arg;
    return opd_supervisor_start(system, &branch->options, out_pid);
}

typedef enum branch_name { SERVICES, RUN, DATAPLANE } branch_name;

/* In order of start within each branch; stopped in reverse. */
static const struct part {
    branch_name branch;
    const char *id;
    bool (*needed)(const pipeline *p);
    opd_err (*start)(opd_system *system, void *arg, opd_pid *out_pid);
} PARTS[] = {
    {SERVICES, "monitor", always, start_monitor},
    {SERVICES, "checkpoint", always, start_checkpoint},
    {RUN, "trainer", always, start_trainer},
    {DATAPLANE, "batcher", policy, start_batcher},
    {DATAPLANE, "reward", policy, start_reward},
    {DATAPLANE, "scorer", local_teacher, start_scorer},
    {DATAPLANE, "panel", teachers, start_panel}, /* and after it the teachers it asks */
    {DATAPLANE, "rollout", always, start_rollout},
    {DATAPLANE, "eval-rollout", evaluates_beside, start_eval_rollout},
    {DATAPLANE, "evaluator", evaluates, start_evaluator},
    {DATAPLANE, "dataset", always, start_dataset},
};

static void add(opd__branch *branch, const char *id, void *arg,
                opd_err (*start)(opd_system *system, void *arg, opd_pid *out_pid)) {
    OPD_ASSERT(branch->options.child_count < OPD__PARTS_MAX);
    branch->children[branch->options.child_count++] =
        (opd_child_spec){.id = id, .start = start, .arg = arg, .backoff = {.jitter = 0.2}};
}

static void add_hosts(pipeline *p, opd__branch *branch) {
    for (uint32_t i = 0; i < p->served_count; i++)
        if (p->served[i].endpoint != NULL)
            add(branch, p->served[i].host_id, &p->served[i], start_teacher_host);
}

static void add_teachers(pipeline *p, opd__branch *branch) {
    for (uint32_t i = 0; i < p->served_count; i++)
        add(branch, p->served[i].id, &p->served[i], start_teacher);
}

static void add_parts(pipeline *p, opd__branch *branch, branch_name name) {
    branch->options.children = branch->children;
    branch->options.arg = p;
    for (size_t i = 0; i < OPD_COUNTOF(PARTS); i++) {
        if (PARTS[i].branch != name || !PARTS[i].needed(p)) continue;
        add(branch, PARTS[i].id, p, PARTS[i].start);
        if (PARTS[i].start == start_panel) add_teachers(p, branch);
    }
    if (name == SERVICES) add_hosts(p, branch);
}

opd_err opd__tree_start(pipeline *p) {
    opd_pid pid;
    p->services.options = (opd_supervisor_options){
        .name = "services", .strategy = OPD_STRATEGY_ONE_FOR_ONE, .told = service_failed};
    p->dataplane.options = (opd_supervisor_options){
        .name = "dataplane", .strategy = OPD_STRATEGY_ONE_FOR_ALL, .told = dataplane_failed};
    p->run.options = (opd_supervisor_options){.name = "run",
                                              .restarts_max = OPD_SUPERVISOR_NO_RESTARTS};
    add_parts(p, &p->services, SERVICES);
    add_parts(p, &p->dataplane, DATAPLANE);
    add(&p->run, "services", &p->services, start_branch);
    add_parts(p, &p->run, RUN);
    add(&p->run, "dataplane", &p->dataplane, start_branch);
    return opd_supervisor_start(p->system, &p->run.options, &pid);
}
