/* stage_rig.c - see stage_rig.h. */
#include "tests/unit/actors/stage_rig.h"

#include <unistd.h>

#include "actors/batcher/batcher_actor.h"
#include "actors/dataset/dataset_actor.h"
#include "actors/messages.h"
#include "actors/reward/reward_actor.h"
#include "actors/rollout/rollout_actor.h"
#include "core/base/check.h"
#include "core/base/file.h"
#include "tests/unit/actors/tiny.h"

static const opd_config_teacher TEACHERS[TEACHERS_MAX] = {{.name = "one"}, {.name = "two"}};

static stage running, *const s = &running;

static void note_event(char what, uint64_t step) {
    CHECK(s->event_count < EVENTS_MAX);
    s->steps[s->event_count] = step;
    s->events[s->event_count++] = what;
}

/* ---- the played parts ---- */

static opd_err monitor_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    (void)state;
    opd_report_fields report;
    opd_accuracy_fields accuracy;
    if (opd_msg_kind(msg) == OPD_MESSAGE_ACCURACY) {
        CHECK_OK(opd_message_read(msg, OPD_MESSAGE_ACCURACY, &accuracy));
        note_event('a', accuracy.step);
        CHECK_INT(accuracy.set, 0);
        CHECK(accuracy.pass.size_bytes >= 2 * sizeof(opd_pass)); /* several answers */
        s->evaluated_right[accuracy.step] = accuracy.correct;
    }
    if (opd_msg_kind(msg) == OPD_MESSAGE_SAMPLE) {
        opd_sample_fields sample;
        CHECK_OK(opd_message_read(msg, OPD_MESSAGE_SAMPLE, &sample));
        CHECK(s->shown_count < OPD_COUNTOF(s->shown));
        CHECK_INT(((const uint64_t *)opd_slice_data(sample.spans))[0] + s->staleness >=
                      s->shown_count / (BATCH * MEMBERS), 1); /* never too old */
        s->shown[s->shown_count++] = sample.group;
    }
    if (opd_msg_kind(msg) != OPD_MESSAGE_REPORT) return OPD_OK;
    CHECK_OK(opd_message_read(msg, OPD_MESSAGE_REPORT, &report));
    const double *v = opd_slice_data(report.values);
    note_event('r', report.step);
    if (s->filter_max > 0) s->filtered += v[OPD_METRIC_FILTER_ZERO_STD];
    else CHECK(isnan(v[OPD_METRIC_FILTER_ZERO_STD]));
    CHECK_NEAR(v[OPD_METRIC_SAMPLES], BATCH * MEMBERS, 0);
    CHECK_NEAR(v[OPD_METRIC_VALID_SHARE], 1, 0);
    s->lag_max = fmax(s->lag_max, v[OPD_METRIC_LAG_MAX]);
    CHECK_NEAR(v[OPD_METRIC_DEGRADED_TOKENS], BATCH * MEMBERS, 0);
    const double *teachers = opd_slice_data(report.teachers); /* share and KL of each */
    CHECK_INT(report.teachers.size_bytes, 2 * TEACHERS_MAX * sizeof *teachers);
    CHECK_NEAR(teachers[0], s->teachers > 1, 0); /* "one" */
    CHECK_NEAR(teachers[2], 1, 0);               /* "two", by its name or its place */
    CHECK(isnan(teachers[1]) == (s->teachers == 1));
    if (!isnan(teachers[3])) CHECK_NEAR(teachers[3], v[OPD_METRIC_OPD_REVERSE_KL], 0);
    CHECK(v[OPD_METRIC_SCORE_WAIT_TIME] >= 0);
    CHECK(v[OPD_METRIC_SCORE_WAIT_TIME] <= v[OPD_METRIC_WAIT_TIME]);
    s->wait_s += v[OPD_METRIC_WAIT_TIME];
    s->score_wait_s += v[OPD_METRIC_SCORE_WAIT_TIME];
    opd_interrupt_fields f = {.reason = 2};
    if (report.step == s->interrupt_at)
        return opd_message_send(ctx, s->roles.trainer, OPD_MESSAGE_INTERRUPT, &f);
    return OPD_OK;
}

static const opd_actor_class monitor_class = {.name = "monitor", .on_message = monitor_message};

/* Takes a while for each save, longer than a step does. */
typedef struct disk {
    opd_msg *request;
    opd_timer timer;
} disk;

static opd_err disk_done(opd_ctx *ctx, void *state, opd_timer *timer) {
    (void)timer;
    disk *d = state;
    opd_save_fields f;
    CHECK_OK(opd_message_read(d->request, OPD_MESSAGE_SAVE, &f));
    opd_saved_fields saved = {.step = f.step};
    CHECK_INT(f.group, s->filter_max > 0 ? s->outcome.groups_taken : f.step * BATCH);
    CHECK_INT(f.state.size_bytes, 3 * s->model->param_count * sizeof(float));
    CHECK(memcmp(opd_slice_data(f.state), s->model->params, s->model->param_count * 4) == 0);
    note_event('s', f.step);
    opd_message_reply(ctx, d->request, OPD_MESSAGE_SAVED, &saved);
    opd_msg_release(d->request);
    d->request = NULL;
    return OPD_OK;
}

static opd_err disk_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    disk *d = state;
    CHECK(d->request == NULL); /* one at a time */
    d->request = msg;
    opd_msg_take(ctx, msg);
    opd_timer_init(&d->timer, ctx, disk_done);
    return opd_timer_start_after(&d->timer, 200000);
}

static void disk_stop(opd_ctx *ctx, void *state) {
    (void)ctx;
    opd_msg_release(((disk *)state)->request);
}

static const opd_actor_class disk_class = {
    .name = "checkpoint", .state_size = sizeof(disk), .mailbox_bytes_max = UINT32_MAX,
    .on_message = disk_message, .on_stop = disk_stop};

/* Scores each rollout 0.25 below the student, one after another, each after a delay. */
typedef struct teacher {
    opd_link *batcher;
    opd_msg *queue[64];
    size_t count;
    opd_timer timer;
    bool running;
} teacher;

static opd_err teacher_score(opd_ctx *ctx, teacher *t, opd_msg *msg) {
    opd_rollout_fields in;
    CHECK_OK(opd_message_read(msg, OPD_MESSAGE_ROLLOUT, &in));
    opd_scores_fields out = {.group = in.group, .member = in.member, .attempts = 1, .degraded = 1};
    size_t rows = in.logp.size_bytes / sizeof(float);
    float logp[TEACHERS_MAX * MAX_LEN];
    uint8_t valid[TEACHERS_MAX * MAX_LEN];
    static const uint8_t which[TEACHERS_MAX] = {1, 0};
    static const double weights[TEACHERS_MAX] = {3, 0.1};
    for (size_t i = 0; i < s->teachers * rows; i++) {
        logp[i] = ((const float *)opd_slice_data(in.logp))[i % rows] - 0.25f * (float)(in.member + 1);
        valid[i] = 1;
    }
    CHECK_OK(opd_slice_copy(NULL, logp, s->teachers * rows * sizeof *logp, &out.logp));
    CHECK_OK(opd_slice_copy(NULL, valid, s->teachers * rows, &out.valid));
    if (s->teachers > 1) {
        CHECK_OK(opd_slice_copy(NULL, which, sizeof which, &out.teachers));
        CHECK_OK(opd_slice_copy(NULL, weights, sizeof weights, &out.weights));
    } else {
        (void)snprintf(out.teacher, sizeof out.teacher, "two");
    }
    opd_err err = opd_message_link_send(ctx, t->batcher, OPD_MESSAGE_SCORES, &out);
    opd_buf *all[] = {out.logp.buf, out.valid.buf, out.teachers.buf, out.weights.buf};
    for (size_t i = 0; i < OPD_COUNTOF(all); i++) opd_buf_release(all[i]);
    return err;
}

static opd_err teacher_next(opd_ctx *ctx, void *state, opd_timer *timer) {
    (void)timer;
    teacher *t = state;
    opd_msg *msg = t->queue[--t->count]; /* the newest first: out of order */
    opd_err err = teacher_score(ctx, t, msg);
    opd_msg_release(msg);
    OPD_TRY(err);
    t->running = t->count > 0;
    return t->running ? opd_timer_start_after(&t->timer, s->teacher_delay_us * 1000) : OPD_OK;
}

static opd_err teacher_start(opd_ctx *ctx, void *state, const void *config) {
    (void)config;
    teacher *t = state;
    opd_timer_init(&t->timer, ctx, teacher_next);
    return opd_link_open(ctx, s->roles.batcher, 64, 1 << 20, &t->batcher);
}

static opd_err teacher_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    teacher *t = state;
    CHECK(t->count < OPD_COUNTOF(t->queue));
    t->queue[t->count++] = msg;
    opd_msg_take(ctx, msg);
    if (t->running) return OPD_OK;
    t->running = true;
    return opd_timer_start_after(&t->timer, s->teacher_delay_us * 1000);
}

static void teacher_stop(opd_ctx *ctx, void *state) {
    (void)ctx;
    teacher *t = state;
    for (size_t i = 0; i < t->count; i++) opd_msg_release(t->queue[i]);
}

static const opd_actor_class teacher_class = {
    .name = "teacher", .state_size = sizeof(teacher), .on_start = teacher_start,
    .on_message = teacher_message, .on_stop = teacher_stop};

/* ---- the stage ---- */

/* A reward by the numbers of group and member. */
static opd_err judge_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    (void)state;
    opd_rollout_fields f;
    CHECK_OK(opd_message_read(msg, OPD_MESSAGE_ROLLOUT, &f));
    opd_reward_fields r = {.group = f.group, .member = f.member, .valid = f.member != 2,
                           .reward = f.group % 3 < s->same_below ? 0.25 : f.member};
    return opd_message_send(ctx, s->roles.batcher, OPD_MESSAGE_REWARD, &r);
}

static const opd_actor_class judge_class = {.name = "judge", .on_message = judge_message};

static void open_dataset(void) {
    char path[] = "/tmp/opd-stage-XXXXXX";
    static const char rows[] = "{\"prompt\":\"1+1=\",\"label\":\"2\"}\n{\"prompt\":\"2+3=\",\"label\":\"5\"}\n"
                               "{\"prompt\":\"4+4=\",\"label\":\"8\"}\n{\"prompt\":\"9-12=\",\"label\":\"-3\"}\n"
                               "{\"prompt\":\"7=\",\"label\":\"7\"}\n";
    int fd = mkstemp(path);
    CHECK(fd >= 0);
    CHECK_INT(write(fd, rows, sizeof rows - 1), sizeof rows - 1);
    close(fd);
    opd_dataset_options options = {.path = path, .keys = {.prompt = "prompt", .label = "label"},
                                   .max_len = MAX_LEN - 1, .shuffle = true, .seed = 3,
                                   .tokenizer = s->tokenizer};
    CHECK_OK(opd_dataset_open(&options, &s->dataset));
    s->evals = (opd_eval_sets){.count = 1};
    s->evals.set[0] = (opd_eval_set){.name = "eval", .dataset = s->dataset, .samples = 2,
                                     .max_new = 4, .top_p = 1, .temperature = 1};
    unlink(path);
}

stage *stage_up(uint32_t staleness) {
    memset(s, 0, sizeof *s);
    s->staleness = staleness;
    s->teachers = 1;
    sys_up(&s->t, NULL);
    s->model = tiny_model(259, 2, 9);
    s->rollout_kernels = tiny_kernels(1);
    s->trainer_kernels = tiny_kernels(1);
    CHECK_OK(opd_tokenizer_create_bytes(NULL, &s->tokenizer));
    open_dataset();
    size_t tokens = (size_t)BATCH * MEMBERS * MAX_LEN;
    opd_learner_options learner = {
        .kernels = s->trainer_kernels, .model = s->model, .objective = OPD_OBJECTIVE_POLICY,
        .micro_batch_tokens = MAX_LEN * 2, .samples_max = BATCH * MEMBERS, .tokens_max = tokens,
        .teachers_max = TEACHERS_MAX, .steps_per_batch = 1, .temperature = 1,
        .advantage = {.estimator = {.normalize_rewards = true}, .use_opd = true, .kl_coef = 1},
        .policy = {.clip_low = 0.2, .clip_high = 0.2},
        .optimizer = {.lr = 1e-3, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8}};
    CHECK_OK(opd_learner_create(&learner, &s->learner));
    CHECK_OK(opd_slot_create(s->t.system, &s->weights));
    CHECK_OK(opd_slot_create(s->t.system, &s->eval_weights));
    s->eval_kernels = tiny_kernels(1);
    CHECK_OK(opd_lane_open(s->t.system, "rollout", 4, &s->rollout_lane));
    CHECK_OK(opd_lane_open(s->t.system, "evaluation", 4, &s->eval_lane));
    CHECK_OK(opd_lane_open(s->t.system, "trainer", 4, &s->trainer_lane));
    CHECK_OK(opd_lane_open(s->t.system, "reward", 4, &s->reward_lane));
    s->config = (opd_trainer_config){
        .learner = s->learner, .model = s->model, .objective = OPD_OBJECTIVE_POLICY,
        .lane = s->trainer_lane, .weights = s->weights, .roles = &s->roles, .steps = STEPS,
        .batch_prompts = BATCH, .samples_per_prompt = MEMBERS, .max_staleness = staleness,
        .tokens_max = tokens, .teacher = true, .teachers = TEACHERS,
        .teacher_count = TEACHERS_MAX, .nonfinite_max = 2, .invalid_share_max = 0.5,
        .invalid_batches = 3, .evals = &s->evals, .outcome = &s->outcome, .alloc = &s->t.memory.alloc};
    return s;
}

static void spawn(const opd_actor_class *actor_class, const void *config, opd_pid *out) {
    CHECK_OK(opd_spawn(s->t.system, actor_class, NULL, config, out));
}

opd_err stage_run(void) {
    const opd_alloc *alloc = &s->t.memory.alloc;
    uint32_t groups = BATCH * (s->staleness + 1), window = groups * MEMBERS;
    opd_batcher_config batcher = {.roles = &s->roles, .groups_max = groups,
                                  .samples_per_prompt = MEMBERS, .teacher = true,
                                  .filter = s->filter_max > 0, .filter_max_dropped = s->filter_max,
                                  .batch_prompts = BATCH, .first_group = s->config.first_group,
                                  .window_msgs = window, .window_bytes = 1 << 20, .alloc = alloc};
    static const opd_reward_part math = {.weight = 1, .rule = OPD_REWARD_RULE_MATH};
    opd_reward_config reward = {.parts = &math, .part_count = 1, .lane = s->reward_lane,
                                .samples_per_prompt = MEMBERS, .tokenizer = s->tokenizer,
                                .roles = &s->roles, .window_msgs = window, .alloc = alloc};
    opd_rollout_config rollout = {
        .model = &s->model->config, .kernels = s->rollout_kernels, .lane = s->rollout_lane,
        .weights = s->weights, .roles = &s->roles, .slots = 3, .max_len = MAX_LEN,
        .prompts_max = groups, .requests_max = 2, .samples_per_prompt = MEMBERS,
        .max_new = MAX_NEW, .sampling = {.temperature = 1, .top_p = 1}, .seed = 4, .teacher = true,
        .window_msgs = window, .window_bytes = 1 << 20, .alloc = alloc};
    opd_rollout_config eval_rollout = {
        .model = &s->model->config, .kernels = s->eval_kernels, .lane = s->eval_lane,
        .weights = s->eval_weights, .roles = &s->roles, .slots = 1, .max_len = MAX_LEN,
        .requests_max = 3, .alloc = alloc};
    opd_evaluator_config evaluator = {.sets = &s->evals, .roles = &s->roles,
                                      .tokenizer = s->tokenizer, .rule = OPD_REWARD_RULE_MATH,
                                      .inflight = 3, .alloc = alloc};
    opd_dataset_config dataset = {.dataset = s->dataset, .roles = &s->roles,
                                  .first_group = s->config.first_group,
                                  .group_end = s->filter_max > 0 ? UINT64_MAX : STEPS * BATCH,
                                  .window_msgs = groups,
                                  .window_bytes = 1 << 20};
    spawn(&monitor_class, NULL, &s->roles.monitor);
    spawn(&disk_class, NULL, &s->roles.checkpoint);
    spawn(&opd_trainer_class, &s->config, &s->roles.trainer);
    spawn(&opd_batcher_class, &batcher, &s->roles.batcher);
    if (s->filter_max > 0) spawn(&judge_class, NULL, &s->roles.reward);
    else spawn(&opd_reward_class, &reward, &s->roles.reward);
    spawn(&teacher_class, NULL, &s->roles.teacher);
    spawn(&opd_rollout_class, &rollout, &s->roles.rollout);
    if (s->config.eval_weights != NULL)
        spawn(&opd_rollout_class, &eval_rollout, &s->roles.eval_rollout);
    spawn(&opd_evaluator_class, &evaluator, &s->roles.evaluator);
    spawn(&opd_dataset_class, &dataset, &s->roles.dataset);
    return opd_system_run(s->t.system);
}

void stage_down(void) {
    opd_slot_destroy(s->weights);
    opd_slot_destroy(s->eval_weights);
    sys_down(&s->t);
    opd_learner_destroy(s->learner);
    opd_dataset_close(s->dataset);
    opd_tokenizer_destroy(s->tokenizer);
    opd_kernels_destroy(s->rollout_kernels);
    opd_kernels_destroy(s->trainer_kernels);
    opd_kernels_destroy(s->eval_kernels);
    opd_model_destroy(s->model);
}
