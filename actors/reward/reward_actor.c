/* reward_actor.c - judges each rollout and sends its reward on (reward_actor.h).
 *
 *   held --job on the lane: texts, rules--> judged --questions answered--> complete --in order--> sent
 *
 * Invariants: one REWARD leaves for each ROLLOUT, in their order; a rollout is held until its
 * reward has left, so that the credits of its link say how many wait here. The lane works on the
 * entries behind the judged ones, which the loop then leaves alone.
 * Thread: the loop; run_job on the lane. The actor owns its entries, questions and the messages it
 * holds.
 */
#include "actors/reward/reward_actor.h"

#include <math.h>
#include <string.h>

#include "actors/messages.h"
#include "actors/reward/command.h"
#include "actors/reward/remote.h"
#include "core/base/check.h"
#include "core/codec/json.h"

enum { REWARD_BYTES = 4096, TEXT_BYTES_MAX = 64 << 20, JOB_ENTRIES_MAX = 64 };

/* A larger reward is none: a group's variance of it must be a number. */
static const double SUM_MAX = 1e15;

typedef struct entry {
    opd_msg *msg;
    opd_rollout_fields f; /* of msg */
    double sum;
    bool valid;
    opd_reward_failure failure;
    uint32_t unanswered;            /* questions, this one's or its group's */
    opd_str prompt, response, label; /* JSON strings; only where a judge outside is asked */
} entry;

typedef struct reward {
    opd_reward_config c;
    opd_link *batcher;
    uint32_t outside; /* parts that are judged outside */
    entry *held;      /* ring of rollouts whose reward has not left, [window_msgs] */
    uint32_t first, count, judged; /* judged: of count, from first */
    opd_job job;
    bool job_runs;
    uint32_t job_first, job_count;
    opd_str text;                   /* the lane's: a decoded text */
    opd_reward_question *questions; /* [window_msgs, part_count] */
    double *rewards;                /* [window_msgs, part_count, samples of a question] */
    opd_reward_command *commands[OPD_REWARD_PARTS_MAX];
    opd_reward_remote *remotes[OPD_REWARD_PARTS_MAX];
    uint64_t asked;
    opd_msg *ready; /* the reward of the first one, refused for want of credit */
} reward;

static entry *entry_at(reward *r, uint32_t i) { return &r->held[(r->first + i) % r->c.window_msgs]; }

/* ---- on the lane ---- */

static opd_piece decode(reward *r, const int32_t *tokens, size_t count) {
    opd_str_clear(&r->text);
    opd_tokenizer_decode(r->c.tokenizer, tokens, count, true, &r->text);
    const char *data = r->text.data != NULL ? r->text.data : "";
    return (opd_piece){data, data + r->text.size};
}

static void keep_json(opd_str *out, opd_piece text) {
    opd_json_writer w;
    opd_json_writer_init(&w, out, 0);
    opd_json_write_string(&w, text.data, opd_piece_size(text));
}

/* The rules' part of a reward, and the texts for the others. Errors: NOMEM, for then the same sample
 * would be worth another gradient the next time. */
static opd_err judge(reward *r, entry *e) {
    const int32_t *tokens = opd_slice_data(e->f.tokens);
    size_t count = e->f.tokens.size_bytes / sizeof *tokens - e->f.prompt_len;
    bool labelled = e->f.label.buf != NULL;
    const char *data = labelled ? opd_slice_data(e->f.label) : "";
    opd_piece label = {data, data + (labelled ? e->f.label.size_bytes : 0)};
    e->valid = true;
    if (r->c.part_count == 0) return OPD_OK;
    opd_piece text = decode(r, tokens + e->f.prompt_len, count);
    opd_err err = opd_str_status(&r->text);
    if (err == OPD_ERR_NOMEM) return err;
    e->valid = err == OPD_OK;
    for (uint32_t p = 0; p < r->c.part_count && e->valid; p++) {
        const opd_reward_part *part = &r->c.parts[p];
        if (part->kind != OPD_REWARD_BY_RULE) continue;
        e->valid = labelled; /* there is nothing to judge it by */
        e->sum += part->weight * opd_reward_judge(part->rule, part->boxed, text, label);
    }
    if (r->outside == 0) return OPD_OK;
    keep_json(&e->response, text);
    keep_json(&e->label, label);
    keep_json(&e->prompt, decode(r, tokens, e->f.prompt_len));
    OPD_TRY(opd_str_status(&e->response));
    OPD_TRY(opd_str_status(&e->label));
    return opd_str_status(&e->prompt);
}

static opd_err run_job(opd_job *job) {
    reward *r = job->arg;
    for (uint32_t i = 0; i < r->job_count; i++) {
        if (opd_job_cancelled(job)) return OPD_ERR_CANCELLED;
        OPD_TRY(judge(r, &r->held[(r->job_first + i) % r->c.window_msgs]));
    }
    return OPD_OK;
}

/* ---- questions ---- */

static void count_failure(entry *e, opd_reward_failure failure) {
    e->valid = false;
    if (failure > e->failure) e->failure = failure;
}

static opd_err ask(reward *r, uint32_t part, entry *const *members, uint32_t count) {
    const opd_str *responses[1024];
    entry *e = members[0];
    uint32_t place = (uint32_t)(e - r->held);
    size_t slot = (size_t)place * r->c.part_count + part;
    size_t width = r->c.samples_per_prompt;
    opd_reward_question *q = &r->questions[slot];
    OPD_ASSERT(count <= OPD_COUNTOF(responses));
    for (uint32_t i = 0; i < count; i++) responses[i] = &members[i]->response;
    *q = (opd_reward_question){.id = ++r->asked, .count = count, .group = r->c.parts[part].group,
                               .msgpack = r->c.parts[part].msgpack, .rewards = r->rewards + slot * width, .entry = place, .part = part};
    opd_str_init(&q->request, r->c.alloc, 2 * (size_t)TEXT_BYTES_MAX);
    opd_reward_question_write(q, &e->prompt, responses, &e->label, e->f.source);
    opd_err err = opd_str_status(&q->request);
    if (err == OPD_OK && r->commands[part] != NULL)
        return opd_reward_command_ask(r->commands[part], q);
    if (err == OPD_OK) return opd_reward_remote_ask(r->remotes[part], q);
    opd_str_fini(&q->request);
    if (err == OPD_ERR_NOMEM) return err;
    for (uint32_t i = 0; i < count; i++) { /* too long to ask */
        count_failure(members[i], OPD_REWARD_FAILED);
        members[i]->unanswered--;
    }
    return OPD_OK;
}

/* The judged members of a group in ring order, the place of a question first. */
static uint32_t members_of(reward *r, uint64_t group, entry **out, uint32_t max) {
    uint32_t found = 0;
    for (uint32_t i = 0; i < r->judged && found < max; i++)
        if (entry_at(r, i)->f.group == group) out[found++] = entry_at(r, i);
    return found;
}

static opd_err ask_about(reward *r, entry *e) {
    entry *members[1024];
    uint32_t found = 0;
    for (uint32_t p = 0; p < r->c.part_count; p++) {
        const opd_reward_part *part = &r->c.parts[p];
        if (part->kind == OPD_REWARD_BY_RULE) continue;
        if (!part->group) {
            OPD_TRY(ask(r, p, &e, 1));
            continue;
        }
        if (found == 0) found = members_of(r, e->f.group, members, OPD_COUNTOF(members));
        if (found == r->c.samples_per_prompt) OPD_TRY(ask(r, p, members, found));
    }
    return OPD_OK;
}

static opd_err flush(reward *r, opd_ctx *ctx);

static opd_err answered(opd_ctx *ctx, void *state, opd_reward_question *q) {
    reward *r = state;
    entry *members[1024] = {&r->held[q->entry]};
    if (q->group) (void)members_of(r, members[0]->f.group, members, OPD_COUNTOF(members));
    for (uint32_t i = 0; i < q->count; i++) {
        entry *e = members[i];
        e->unanswered--;
        if (q->failure != OPD_REWARD_JUDGED) count_failure(e, q->failure);
        else if (isnan(q->rewards[i])) count_failure(e, OPD_REWARD_FAILED);
        else e->sum += r->c.parts[q->part].weight * q->rewards[i];
    }
    opd_str_fini(&q->request);
    return flush(r, ctx);
}

/* ---- in and out ---- */

static opd_err make_reward(reward *r, opd_ctx *ctx, entry *e) {
    if (!(fabs(e->sum) <= SUM_MAX)) count_failure(e, OPD_REWARD_FAILED);
    opd_reward_fields out = {.group = e->f.group, .member = e->f.member, .valid = e->valid,
                             .reward = e->valid ? e->sum : 0, .failure = (uint32_t)e->failure};
    opd_trace_set(ctx, opd_msg_trace(e->msg));
    return opd_message_create(opd_self_system(ctx), OPD_MESSAGE_REWARD, &out, &r->ready);
}

static void release(entry *e) {
    opd_str_fini(&e->prompt);
    opd_str_fini(&e->response);
    opd_str_fini(&e->label);
    opd_msg_release(e->msg);
}

/* Sends the rewards that are complete, until the batcher's window is full. */
static opd_err flush(reward *r, opd_ctx *ctx) {
    while (r->judged > 0) {
        entry *e = entry_at(r, 0);
        if (e->unanswered > 0) return OPD_OK;
        if (r->ready == NULL) OPD_TRY(make_reward(r, ctx, e));
        opd_err err = opd_link_send(ctx, r->batcher, r->ready);
        if (err == OPD_ERR_AGAIN) return OPD_OK; /* CREDIT calls again */
        OPD_TRY(err);
        r->ready = NULL;
        r->first = (r->first + 1) % r->c.window_msgs;
        r->count--;
        r->judged--;
        release(e);
    }
    return OPD_OK;
}

static opd_err job_done(opd_ctx *ctx, void *state, opd_job *job);

static opd_err start_job(reward *r, opd_ctx *ctx) {
    if (r->job_runs || r->judged == r->count) return OPD_OK;
    uint32_t left = r->count - r->judged;
    r->job_first = (r->first + r->judged) % r->c.window_msgs;
    r->job_count = left < JOB_ENTRIES_MAX ? left : JOB_ENTRIES_MAX;
    r->job = (opd_job){.run = run_job, .done = job_done, .arg = r};
    OPD_TRY(opd_job_submit(ctx, r->c.lane, &r->job));
    r->job_runs = true;
    return OPD_OK;
}

static opd_err job_done(opd_ctx *ctx, void *state, opd_job *job) {
    reward *r = state;
    r->job_runs = false;
    if (job->err != OPD_OK) return opd_fail(job->err, "reward: %s", job->text);
    for (uint32_t i = 0; i < r->job_count; i++) {
        entry *e = entry_at(r, r->judged++);
        e->unanswered = r->outside;
        if (r->outside > 0) OPD_TRY(ask_about(r, e));
    }
    OPD_TRY(flush(r, ctx));
    return start_job(r, ctx);
}

static opd_err on_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    reward *r = state;
    OPD_ASSERT(r->count < r->c.window_msgs); /* the rollout's window is no larger */
    entry *e = entry_at(r, r->count);
    *e = (entry){.msg = msg};
    OPD_TRY(opd_message_read(msg, OPD_MESSAGE_ROLLOUT, &e->f));
    opd_str_init(&e->prompt, r->c.alloc, TEXT_BYTES_MAX);
    opd_str_init(&e->response, r->c.alloc, TEXT_BYTES_MAX);
    opd_str_init(&e->label, r->c.alloc, TEXT_BYTES_MAX);
    opd_msg_take(ctx, msg);
    r->count++;
    return start_job(r, ctx);
}

static opd_err on_signal(opd_ctx *ctx, void *state, const opd_signal *signal) {
    return signal->kind == OPD_SIGNAL_CREDIT ? flush(state, ctx) : OPD_OK;
}

/* ---- begin and end ---- */

static opd_err open_judge(reward *r, opd_ctx *ctx, uint32_t p) {
    const opd_reward_part *part = &r->c.parts[p];
    if (part->kind == OPD_REWARD_BY_RULE) return OPD_OK;
    r->outside++;
    if (part->kind == OPD_REWARD_BY_COMMAND) {
        opd_reward_command_options o = {.alloc = r->c.alloc, .env = r->c.env, .argv = part->argv,
                                        .name = part->name, .workers = part->workers,
                                        .msgpack = part->msgpack, .timeout_ms = part->timeout_ms,
                                        .answered = answered};
        return opd_reward_command_open(ctx, &o, &r->commands[p]);
    }
    opd_reward_remote_options o = {.alloc = r->c.alloc, .env = r->c.env, .url = part->url,
                                   .name = part->name, .inflight = part->workers,
                                   .retries = part->retries, .timeout_ms = part->timeout_ms,
                                   .answered = answered};
    return opd_reward_remote_open(ctx, &o, &r->remotes[p]);
}

static opd_err on_start(opd_ctx *ctx, void *state, const void *config) {
    reward *r = state;
    r->c = *(const opd_reward_config *)config;
    OPD_ASSERT(r->c.part_count <= OPD_REWARD_PARTS_MAX);
    opd_str_init(&r->text, r->c.alloc, TEXT_BYTES_MAX);
    r->held = opd_mem_get(r->c.alloc, r->c.window_msgs * sizeof *r->held);
    if (r->held == NULL) return opd_fail(OPD_ERR_NOMEM, "reward: no memory");
    for (uint32_t p = 0; p < r->c.part_count; p++) OPD_TRY(open_judge(r, ctx, p));
    if (r->outside > 0) {
        size_t questions = (size_t)r->c.window_msgs * r->c.part_count;
        r->questions = opd_mem_get(r->c.alloc, questions * sizeof *r->questions);
        r->rewards = opd_mem_get(r->c.alloc, questions * r->c.samples_per_prompt * sizeof(double));
        if (r->questions == NULL || r->rewards == NULL)
            return opd_fail(OPD_ERR_NOMEM, "reward: no memory");
        memset(r->questions, 0, questions * sizeof *r->questions);
    }
    return opd_link_open(ctx, r->c.roles->batcher, r->c.window_msgs,
                         (uint64_t)r->c.window_msgs * REWARD_BYTES, &r->batcher);
}

static void on_stop(opd_ctx *ctx, void *state) {
    (void)ctx;
    reward *r = state;
    for (uint32_t p = 0; p < OPD_REWARD_PARTS_MAX; p++) {
        opd_reward_command_close(r->commands[p]);
        opd_reward_remote_close(r->remotes[p]);
    }
    for (size_t i = 0; r->questions != NULL && i < (size_t)r->c.window_msgs * r->c.part_count; i++)
        opd_str_fini(&r->questions[i].request);
    for (uint32_t i = 0; i < r->count; i++) release(entry_at(r, i));
    opd_msg_release(r->ready);
    opd_mem_free(r->c.alloc, r->held);
    opd_mem_free(r->c.alloc, r->questions);
    opd_mem_free(r->c.alloc, r->rewards);
    opd_str_fini(&r->text);
}

const opd_actor_class opd_reward_class = {
    .name = "reward", .state_size = sizeof(reward), .on_start = on_start,
    .on_message = on_message, .on_signal = on_signal, .on_stop = on_stop};
