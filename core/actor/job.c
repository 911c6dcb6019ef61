/* job.c - lanes, jobs and keep-latest slots (opd/actor.h).
 *
 * A job crosses threads twice, each time as a whole: submit gives it to the lane (whose queue
 * orders the accesses), its completion event gives it back through the inbox. Only `cancel`
 * is touched from both sides meanwhile, and it is atomic.
 *
 * Thread: the loop's, but run_job and complete_job (the lane's). Jobs are their owner's; lanes
 * are freed by opd_system_destroy.
 */
#include <string.h>

#include "core/actor/internal.h"

opd_err opd_lane_open(opd_system *system, const char *name, uint32_t queue_max,
                      opd_lane **out_lane) {
    OPD_ASSERT(queue_max > 0);
    if (system->lanes_made == OPD__LANES_MAX)
        return opd_fail(OPD_ERR_LIMIT, "lane %s: there are %d already", name, OPD__LANES_MAX);
    opd_lane *lane = opd_mem_get(system->options.alloc, sizeof *lane);
    if (lane == NULL) return opd_fail(OPD_ERR_NOMEM, "lane %s", name);
    *lane = (opd_lane){.system = system, .queue_max = queue_max};
    opd__text_copy(lane->name, sizeof lane->name, name);
    opd_err err = system->env->ops->lane_open(system->env, name, &lane->env_lane);
    if (err != OPD_OK) {
        opd_mem_free(system->options.alloc, lane);
        return err;
    }
    system->lanes_made++;
    opd_list_push_back(&system->lanes, &lane->node);
    *out_lane = lane;
    return OPD_OK;
}

static void run_job(opd_env_task *task) {
    opd_job *job = OPD_CONTAINER_OF(task, opd_job, task);
    opd_env *env = job->lane->system->env;
    job->began_ns = env->ops->now_ns(env);
    opd_err_clear();
    if (opd_job_cancelled(job))
        job->err = opd_fail(OPD_ERR_CANCELLED, "cancelled before it began");
    else if (opd__fault(job->lane->system, OPD_FAULT_JOB, job->ctx))
        job->err = OPD_ERR_REMOTE;
    else
        job->err = job->run(job);
    job->run_ns = env->ops->now_ns(env) - job->began_ns;
    if (job->err != OPD_OK) opd__text_copy(job->text, sizeof job->text, opd_err_context());
}

static void complete_job(opd_env_task *task) {
    opd_job *job = OPD_CONTAINER_OF(task, opd_job, task);
    opd_event_post_remote(job->lane->system, &job->event);
}

/* The job is its owner's again. */
static void take_back(opd_job *job) {
    OPD_ASSERT(job->submitted && job->lane->in_flight > 0);
    opd_lane *lane = job->lane;
    OPD__TAP(lane->system, .kind = OPD_TAP_JOB_BEGIN, .time_ns = job->began_ns,
             .to = job->ctx->pid, .trace = job->trace, .name = lane->name);
    OPD__TAP(lane->system, .kind = OPD_TAP_JOB_END, .time_ns = job->began_ns + job->run_ns,
             .to = job->ctx->pid, .trace = job->trace, .name = lane->name, .err = job->err);
    job->submitted = false;
    job->lane->in_flight--;
    job->ctx->jobs_in_flight--;
    opd_list_remove(&job->owned);
}

static opd_err deliver_job(opd_ctx *ctx, void *state, opd_event *event) {
    opd_job *job = OPD_CONTAINER_OF(event, opd_job, event);
    take_back(job);
    ctx->trace = job->trace;
    return job->done(ctx, state, job);
}

static void drop_job(opd_event *event) {
    opd_job *job = OPD_CONTAINER_OF(event, opd_job, event);
    opd_ctx *ctx = job->ctx;
    take_back(job);
    opd__actor_job_ended(ctx);
}

opd_err opd_job_submit(opd_ctx *ctx, opd_lane *lane, opd_job *job) {
    OPD_ASSERT(!job->submitted && job->run != NULL && job->done != NULL);
    OPD__ASSERT_MAY_START(ctx);
    if (lane->in_flight == lane->queue_max) {
        opd_err_clear();
        return OPD_ERR_AGAIN;
    }
    job->submitted = true;
    job->ctx = ctx;
    job->lane = lane;
    job->trace = ctx->trace;
    job->submitted_ns = opd__clock_ns(ctx->system);
    job->err = OPD_OK;
    job->text[0] = '\0';
    __atomic_store_n(&job->cancel, 0, __ATOMIC_RELAXED);
    job->event = (opd_event){.to = ctx->pid, .deliver = deliver_job, .drop = drop_job};
    job->task = (opd_env_task){.run = run_job, .done = complete_job};
    lane->in_flight++;
    ctx->jobs_in_flight++;
    opd_list_push_back(&ctx->jobs, &job->owned);
    lane->system->env->ops->lane_submit(lane->env_lane, &job->task);
    return OPD_OK;
}

void opd_job_cancel(opd_job *job) { __atomic_store_n(&job->cancel, 1, __ATOMIC_RELAXED); }

bool opd_job_cancelled(const opd_job *job) {
    return __atomic_load_n(&job->cancel, __ATOMIC_RELAXED) != 0;
}

/* ---- slots ----------------------------------------------------------------------------- */

opd_err opd_slot_create(opd_system *system, opd_slot **out_slot) {
    opd_slot *slot = opd_mem_get(system->options.alloc, sizeof *slot);
    if (slot == NULL) return opd_fail(OPD_ERR_NOMEM, "slot");
    slot->system = system;
    opd_list_init(&slot->watches);
    opd_list_push_back(&system->slot_list, &slot->node);
    *out_slot = slot;
    return OPD_OK;
}

void opd_slot_destroy(opd_slot *slot) {
    if (slot == NULL) return;
    while (!opd_list_empty(&slot->watches))
        opd_slot_watch_stop(OPD_CONTAINER_OF(slot->watches.next, opd_slot_watch, node));
    opd_list_remove(&slot->node);
    opd_buf_release(slot->buf);
    opd_mem_free(slot->system->options.alloc, slot);
}

void opd_slot_put(opd_slot *slot, opd_buf *buf, uint64_t version) {
    opd_buf *old = slot->buf;
    slot->buf = buf == NULL ? NULL : opd_buf_retain(buf);
    slot->version = version;
    opd_buf_release(old);
    for (opd_list *n = slot->watches.next; n != &slot->watches; n = n->next)
        opd_event_post(slot->system, &OPD_CONTAINER_OF(n, opd_slot_watch, node)->event);
}

uint64_t opd_slot_get(const opd_slot *slot, opd_buf **out_buf) {
    if (out_buf != NULL) *out_buf = slot->buf == NULL ? NULL : opd_buf_retain(slot->buf);
    return slot->version;
}

static opd_err deliver_change(opd_ctx *ctx, void *state, opd_event *event) {
    opd_slot_watch *watch = OPD_CONTAINER_OF(event, opd_slot_watch, event);
    return watch->changed(ctx, state, watch);
}

void opd_slot_watch_start(opd_ctx *ctx, opd_slot *slot, opd_slot_watch *watch,
                          opd_err (*changed)(opd_ctx *ctx, void *state, opd_slot_watch *watch)) {
    OPD__ASSERT_MAY_START(ctx);
    opd_slot_watch_stop(watch);
    watch->event = (opd_event){.to = ctx->pid, .deliver = deliver_change};
    watch->slot = slot;
    watch->changed = changed;
    opd_list_push_back(&slot->watches, &watch->node);
    opd_list_push_back(&ctx->watches, &watch->owned);
    if (slot->buf != NULL) opd_event_post(slot->system, &watch->event);
}

void opd_slot_watch_stop(opd_slot_watch *watch) {
    if (watch->slot == NULL) return;
    opd_event_cancel(&watch->event);
    opd_list_remove(&watch->node);
    opd_list_remove(&watch->owned);
    watch->slot = NULL;
}
