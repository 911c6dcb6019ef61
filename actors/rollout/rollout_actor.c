/* rollout_actor.c - message handling around the engine (rollout_actor.h).
 *
 * Invariants: (1) `work[i]` holds the message of prompt i (its user number) until the last
 * member is done; (2) no step is planned while the outbox holds anything; (3) a GENERATE whose
 * asker gave up is aborted at the next step boundary.
 * Thread: the loop. The actor owns engine, outbox and the messages it holds.
 */
#include "actors/rollout/rollout_actor.h"

#include <stdio.h>
#include <string.h>

#include "actors/messages.h"
#include "core/base/check.h"

enum { RECEIVERS = 3, REQUESTS_WAITING_MAX = 1024 };

/* A message that waits for its receiver's credit. */
typedef struct parcel {
    opd_link *link;
    opd_msg *msg;
} parcel;

typedef struct work {
    opd_msg *msg;         /* PROMPT or GENERATE; NULL: free */
    bool request;
    uint64_t group;       /* of a PROMPT */
    opd_slice label, privileged; /* of a PROMPT, borrowed from msg */
    char source[OPD_MESSAGE_TEXT_SIZE]; /* of a PROMPT */
    uint32_t members_left;
} work;

typedef struct rollout {
    opd_rollout_config c;
    opd_engine *engine;
    opd_job job;
    bool busy;
    opd_slot_watch watch;
    opd_link *links[RECEIVERS], *teacher; /* of links, the one that takes chunks; NULL: none does */
    size_t link_count;
    work *works; /* [places] */
    uint32_t works_used, requests_used; /* all, and those of GENERATE */
    parcel *outbox; /* FIFO: the members that a step ends, or those of a group that is aborted */
    size_t outbox_size, outbox_max;
    opd_msg **waiting; /* ring of requests that found no free place */
    size_t waiting_head, waiting_count;
    uint64_t void_end; /* groups below are not wanted */
    opd_timer expiry; /* of the requests in work, while nothing runs */
    opd_err failed; /* of an engine's callback; ends the actor */
    char failed_text[OPD_ERROR_TEXT_SIZE];
    opd_ctx *ctx;
} rollout;

/* Prompts and requests in work at most: requests never take a prompt's place. */
static uint32_t places(const rollout *r) { return r->c.prompts_max + r->c.requests_max; }

/* ---- what goes out ---- */

static opd_err flush(rollout *r) {
    size_t sent = 0;
    opd_err err = OPD_OK;
    while (sent < r->outbox_size && err == OPD_OK) {
        err = opd_link_send(r->ctx, r->outbox[sent].link, r->outbox[sent].msg);
        if (err == OPD_OK) sent++;
    }
    r->outbox_size -= sent; /* also after an error: what was sent is not ours any more */
    memmove(r->outbox, r->outbox + sent, r->outbox_size * sizeof *r->outbox);
    if (err == OPD_ERR_AGAIN) return OPD_OK;
    return opd_err_prefix(err, "rollout: a receiver is gone");
}

/* Keeps the first error of a callback; pump and step_done return it. */
static void fail_later(rollout *r, opd_err err) {
    if (err == OPD_OK || r->failed != OPD_OK) return;
    r->failed = err;
    (void)snprintf(r->failed_text, sizeof r->failed_text, "%s", opd_err_context());
}

static opd_err spans_slice(const rollout *r, const opd_engine_sample *s, opd_slice *out) {
    uint64_t pairs[2 * OPD_ENGINE_SPANS_MAX];
    for (uint32_t i = 0; i < s->span_count; i++) {
        pairs[2 * i] = s->span_version[i];
        pairs[2 * i + 1] = s->span_start[i];
    }
    return opd_slice_copy(r->c.alloc, pairs, 2 * s->span_count * sizeof *pairs, out);
}

/* The likely ids of `count` positions; none where they are not kept. */
static opd_err lists_slice(const rollout *r, const int32_t *topk, size_t count, opd_slice *out) {
    if (topk == NULL || count == 0) return OPD_OK;
    return opd_slice_copy(r->c.alloc, topk, count * r->c.top_k * sizeof *topk, out);
}

/* One ROLLOUT per receiver, all sharing the same buffers. */
static opd_err post_rollout(rollout *r, const opd_engine_sample *s, const work *w) {
    opd_rollout_fields f = {.group = w->group, .epoch = (uint32_t)s->prompt->epoch,
                            .member = s->member, .prompt_len = s->prompt_len,
                            .finish = s->finish, .label = w->label, .privileged = w->privileged};
    size_t length = (size_t)s->prompt_len + s->response_len;
    opd_err err;
    memcpy(f.source, w->source, sizeof f.source);
    OPD_TRY_GOTO(opd_slice_copy(r->c.alloc, s->tokens, length * sizeof(int32_t), &f.tokens), out);
    OPD_TRY_GOTO(opd_slice_copy(r->c.alloc, s->logp, s->response_len * sizeof(float), &f.logp),
                 out);
    OPD_TRY_GOTO(spans_slice(r, s, &f.spans), out);
    OPD_TRY_GOTO(lists_slice(r, s->topk, s->response_len, &f.topk), out);
    for (size_t i = 0; i < r->link_count && err == OPD_OK; i++) {
        opd_msg *msg;
        err = opd_message_create(opd_self_system(r->ctx), OPD_MESSAGE_ROLLOUT, &f, &msg);
        OPD_ASSERT(r->outbox_size < r->outbox_max);
        if (err == OPD_OK) r->outbox[r->outbox_size++] = (parcel){r->links[i], msg};
    }
out:
    opd_buf_release(f.tokens.buf);
    opd_buf_release(f.logp.buf);
    opd_buf_release(f.spans.buf);
    opd_buf_release(f.topk.buf);
    return err;
}

/* Tells the teacher how far a sample has come, if it is far enough and there is credit to spare. */
static bool send_chunk(void *arg, const opd_engine_progress *p) {
    rollout *r = arg;
    const work *w = &r->works[p->prompt->user];
    bool first_of_group = p->told == 0 && p->member == 0; /* the others share its prompt */
    uint32_t from = p->told > 0 ? p->told : p->prompt_len;
    if (w->request || (!first_of_group && p->length - from < r->c.chunk_tokens)) return false;
    if (opd_link_msgs_used(r->teacher) >= r->c.window_msgs || r->failed != OPD_OK) return false;
    opd_chunk_fields f = {.group = w->group, .epoch = (uint32_t)p->prompt->epoch,
                          .member = p->member, .prompt_len = p->prompt_len, .offset = p->told};
    memcpy(f.source, w->source, sizeof f.source);
    if (p->told == 0) f.privileged = w->privileged;
    opd_err err = opd_slice_copy(r->c.alloc, p->tokens + p->told,
                                 (p->length - p->told) * sizeof(int32_t), &f.tokens);
    if (err == OPD_OK && p->topk != NULL)
        err = lists_slice(r, p->topk + (size_t)(from - p->prompt_len) * r->c.top_k, p->length - from, &f.topk);
    if (err == OPD_OK) err = opd_message_link_send(r->ctx, r->teacher, OPD_MESSAGE_CHUNK, &f);
    opd_buf_release(f.tokens.buf);
    opd_buf_release(f.topk.buf);
    if (err == OPD_ERR_CLOSED) fail_later(r, opd_err_prefix(err, "rollout: the teacher is gone"));
    return err == OPD_OK;
}

static opd_err post_answer(rollout *r, const opd_engine_sample *s, work *w) {
    opd_generated_fields f = {.finish = s->finish};
    opd_err err;
    OPD_TRY_GOTO(opd_slice_copy(r->c.alloc, s->tokens + s->prompt_len,
                                s->response_len * sizeof(int32_t), &f.tokens), out);
    OPD_TRY_GOTO(opd_slice_copy(r->c.alloc, s->logp, s->response_len * sizeof(float), &f.logp),
                 out);
    opd_message_reply(r->ctx, w->msg, OPD_MESSAGE_GENERATED, &f);
out:
    opd_buf_release(f.tokens.buf);
    opd_buf_release(f.logp.buf);
    return err;
}

static void work_drop(rollout *r, uint32_t i) {
    opd_msg_release(r->works[i].msg);
    r->works[i].msg = NULL;
    r->works_used--;
    r->requests_used -= r->works[i].request;
}

static void finished(void *arg, const opd_engine_sample *s) {
    rollout *r = arg;
    work *w = &r->works[s->prompt->user];
    fail_later(r, w->request ? post_answer(r, s, w) : post_rollout(r, s, w));
    if (--w->members_left == 0) work_drop(r, (uint32_t)s->prompt->user);
}

static opd_err check_failed(const rollout *r) {
    return r->failed == OPD_OK ? OPD_OK : opd_fail(r->failed, "%s", r->failed_text);
}

/* ---- what comes in ---- */

static uint32_t work_take(rollout *r, opd_msg *msg, bool request, uint32_t members) {
    uint32_t i = 0;
    while (r->works[i].msg != NULL) i++;
    r->works[i] = (work){.msg = msg, .request = request, .members_left = members};
    r->works_used++;
    r->requests_used += request;
    return i;
}

static opd_err add_prompt(rollout *r, opd_msg *msg) {
    opd_prompt_fields f;
    OPD_TRY(opd_message_read(msg, OPD_MESSAGE_PROMPT, &f));
    if (f.void_end > r->void_end) r->void_end = f.void_end;
    if (f.group < r->void_end) return OPD_OK; /* it was on its way */
    if (r->works_used - r->requests_used >= r->c.prompts_max)
        return opd_fail(OPD_ERR_LIMIT, "rollout: more than %u prompts; the window of their link "
                        "is too large", r->c.prompts_max);
    opd_msg_take(r->ctx, msg);
    uint32_t i = work_take(r, msg, false, r->c.samples_per_prompt);
    r->works[i].label = f.label;
    r->works[i].group = f.group;
    r->works[i].privileged = f.privileged;
    memcpy(r->works[i].source, f.source, sizeof f.source);
    opd_engine_prompt prompt = {.tokens = f.tokens, .count = r->c.samples_per_prompt,
                                .max_new = r->c.max_new, .sampling = r->c.sampling,
                                .seed = r->c.seed, .epoch = f.epoch, .group = f.place,
                                .min_version = f.min_version, .lists = r->c.top_k > 0, .user = i};
    opd_err err = opd_engine_add(r->engine, &prompt);
    if (err != OPD_OK) work_drop(r, i);
    return err;
}

static opd_err take_discard(rollout *r, const opd_msg *msg) {
    opd_discard_fields f;
    OPD_TRY(opd_message_read(msg, OPD_MESSAGE_DISCARD, &f));
    if (f.void_end > r->void_end) r->void_end = f.void_end;
    return OPD_OK;
}

/* Gives a request to the engine; a request that cannot be done is answered with the reason, one
 * that nobody waits for any more is let go. */
static opd_err add_request(rollout *r, opd_msg *msg) {
    opd_generate_fields f;
    if (!opd_msg_wanted(msg)) {
        opd_msg_release(msg);
        return OPD_OK;
    }
    opd_err err = opd_message_read(msg, OPD_MESSAGE_GENERATE, &f);
    if (err == OPD_OK && opd_msg_deadline_ns(msg) <= opd_now_ns(r->ctx))
        err = opd_fail(OPD_ERR_TIMEOUT, "the request's deadline passed while it waited");
    if (err != OPD_OK) {
        opd_reply_error(r->ctx, msg, err);
        opd_msg_release(msg);
        return OPD_OK;
    }
    uint32_t i = work_take(r, msg, true, 1);
    opd_sampling sampling = {.temperature = (float)f.temperature, .top_k = (int32_t)f.top_k,
                             .top_p = (float)f.top_p, .greedy = f.temperature <= 0};
    opd_engine_prompt prompt = {.tokens = f.tokens, .count = 1, .max_new = f.max_new,
                                .sampling = sampling, .seed = f.seed, .group = f.group,
                                .ignore_eos = f.ignore_eos,
                                .min_version = f.min_version, .user = i};
    err = opd_engine_add(r->engine, &prompt);
    if (err == OPD_OK) return OPD_OK;
    opd_reply_error(r->ctx, msg, err);
    work_drop(r, i);
    return OPD_OK;
}

/* Requests wait here while every place is in use; prompts are bounded by their link. */
static opd_err take_request(rollout *r, opd_msg *msg) {
    opd_msg_take(r->ctx, msg);
    if (r->requests_used < r->c.requests_max) return add_request(r, msg);
    if (r->waiting_count == REQUESTS_WAITING_MAX) {
        opd_reply_error(r->ctx, msg, opd_fail(OPD_ERR_AGAIN, "the generation queue is full"));
        opd_msg_release(msg);
        return OPD_OK;
    }
    r->waiting[(r->waiting_head + r->waiting_count++) % REQUESTS_WAITING_MAX] = msg;
    return OPD_OK;
}

static opd_err take_waiting(rollout *r) {
    while (r->waiting_count > 0 && r->requests_used < r->c.requests_max) {
        opd_msg *msg = r->waiting[r->waiting_head];
        r->waiting_head = (r->waiting_head + 1) % REQUESTS_WAITING_MAX;
        r->waiting_count--;
        OPD_TRY(add_request(r, msg));
    }
    return OPD_OK;
}

/* ---- the lane ---- */

static opd_err run_step(opd_job *job) {
    rollout *r = job->arg;
    return opd_engine_execute(r->engine);
}

/* Aborts requests whose tokens nobody waits for any more: their deadline passed, or they were
 * cancelled, or their asker is gone. */
static void abort_unwanted(rollout *r) {
    uint64_t now = opd_now_ns(r->ctx);
    for (uint32_t i = 0; i < places(r); i++) {
        const opd_msg *msg = r->works[i].msg;
        if (msg == NULL || !r->works[i].request) continue;
        if (opd_msg_deadline_ns(msg) <= now || !opd_msg_wanted(msg))
            opd_engine_abort(r->engine, i, finished, r);
    }
}

/* Aborts groups that nobody wants any more, one at a time: their members need room in the outbox. */
static opd_err abort_void(rollout *r) {
    for (uint32_t i = 0; i < places(r) && r->outbox_size == 0; i++) {
        const work *w = &r->works[i];
        if (w->msg == NULL || w->request || w->group >= r->void_end) continue;
        opd_engine_abort(r->engine, i, finished, r);
        OPD_TRY(check_failed(r));
        OPD_TRY(flush(r));
    }
    return OPD_OK;
}

/* While nothing can run no step comes by to look at the deadlines: a timer does. */
static opd_err await_expiry(rollout *r) {
    uint64_t next = OPD_NO_DEADLINE;
    for (uint32_t i = 0; i < places(r); i++) {
        if (r->works[i].msg == NULL || !r->works[i].request) continue;
        uint64_t deadline = opd_msg_deadline_ns(r->works[i].msg);
        if (deadline < next) next = deadline;
    }
    return next == OPD_NO_DEADLINE ? OPD_OK : opd_timer_start(&r->expiry, next);
}

static opd_err pump(rollout *r) {
    if (r->busy) return OPD_OK;
    OPD_TRY(flush(r));
    OPD_TRY(abort_void(r));
    abort_unwanted(r); /* first: it frees the places that waiting requests need */
    OPD_TRY(take_waiting(r));
    OPD_TRY(check_failed(r));
    if (r->outbox_size > 0) return OPD_OK; /* CREDIT calls again */
    opd_buf *buf = NULL;
    uint64_t version = opd_slot_get(r->c.weights, &buf);
    if (buf != NULL && version != opd_engine_version(r->engine))
        opd_engine_offer(r->engine, opd_slice_whole(buf), version);
    opd_buf_release(buf);
    if (!opd_engine_plan(r->engine)) return await_expiry(r);
    if (r->teacher != NULL) {
        opd_engine_tell(r->engine, send_chunk, r);
        OPD_TRY(check_failed(r));
    }
    r->busy = true;
    return opd_job_submit(r->ctx, r->c.lane, &r->job);
}

static opd_err step_done(opd_ctx *ctx, void *state, opd_job *job) {
    (void)ctx;
    rollout *r = state;
    r->busy = false;
    if (job->err != OPD_OK) return opd_fail(job->err, "rollout: %s", job->text);
    opd_engine_apply(r->engine, finished, r);
    OPD_TRY(check_failed(r));
    return pump(r);
}

static opd_err expiry_fired(opd_ctx *ctx, void *state, opd_timer *timer) {
    (void)ctx;
    (void)timer;
    return pump(state);
}

static opd_err weights_changed(opd_ctx *ctx, void *state, opd_slot_watch *watch) {
    (void)ctx;
    (void)watch;
    return pump(state);
}

/* ---- the actor ---- */

static opd_err open_links(rollout *r) {
    if (r->c.samples_per_prompt == 0) return OPD_OK;
    opd_pid to[RECEIVERS] = {r->c.roles->batcher, r->c.roles->reward,
                             r->c.teacher ? r->c.roles->teacher : OPD_PID_NOBODY};
    for (size_t i = 0; i < RECEIVERS; i++) {
        if (to[i] == OPD_PID_NOBODY) continue;
        OPD_TRY(opd_link_open(r->ctx, to[i], r->c.window_msgs, r->c.window_bytes,
                              &r->links[r->link_count]));
        if (i == RECEIVERS - 1 && r->c.chunk_tokens > 0) r->teacher = r->links[r->link_count];
        r->link_count++;
    }
    return OPD_OK;
}

static opd_err on_start(opd_ctx *ctx, void *state, const void *config) {
    rollout *r = state;
    r->c = *(const opd_rollout_config *)config;
    r->ctx = ctx;
    uint32_t most = r->c.slots > r->c.samples_per_prompt ? r->c.slots : r->c.samples_per_prompt;
    r->outbox_max = (size_t)most * RECEIVERS;
    r->works = opd_mem_get(r->c.alloc, places(r) * sizeof *r->works);
    r->outbox = opd_mem_get(r->c.alloc, r->outbox_max * sizeof *r->outbox);
    r->waiting = opd_mem_get(r->c.alloc, REQUESTS_WAITING_MAX * sizeof *r->waiting);
    if (r->works == NULL || r->outbox == NULL || r->waiting == NULL)
        return opd_fail(OPD_ERR_NOMEM, "rollout: no memory for %u prompts", places(r));
    opd_engine_options engine = {.model = r->c.model, .lm = r->c.lm, .kernels = r->c.kernels,
                                 .slots = r->c.slots, .max_len = r->c.max_len, .top_k = r->c.top_k,
                                 .prompts_max = places(r), .alloc = r->c.alloc};
    OPD_TRY(opd_engine_create(&engine, &r->engine));
    opd_timer_init(&r->expiry, ctx, expiry_fired);
    r->job.run = run_step;
    r->job.done = step_done;
    r->job.arg = r;
    OPD_TRY(open_links(r));
    opd_slot_watch_start(ctx, r->c.weights, &r->watch, weights_changed);
    return OPD_OK;
}

static opd_err on_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    (void)ctx;
    rollout *r = state;
    switch (opd_msg_kind(msg)) {
    case OPD_MESSAGE_GENERATE: OPD_TRY(take_request(r, msg)); break;
    case OPD_MESSAGE_DISCARD: OPD_TRY(take_discard(r, msg)); break;
    default: OPD_TRY(add_prompt(r, msg)); break;
    }
    return pump(r);
}

static opd_err on_signal(opd_ctx *ctx, void *state, const opd_signal *signal) {
    (void)ctx;
    return signal->kind == OPD_SIGNAL_CREDIT ? pump(state) : OPD_OK;
}

static void on_stop(opd_ctx *ctx, void *state) {
    (void)ctx;
    rollout *r = state;
    for (size_t i = 0; i < r->outbox_size; i++) opd_msg_release(r->outbox[i].msg);
    for (uint32_t i = 0; r->works != NULL && i < places(r); i++)
        opd_msg_release(r->works[i].msg);
    for (size_t i = 0; i < r->waiting_count; i++)
        opd_msg_release(r->waiting[(r->waiting_head + i) % REQUESTS_WAITING_MAX]);
    opd_engine_destroy(r->engine);
    opd_mem_free(r->c.alloc, r->waiting);
    opd_mem_free(r->c.alloc, r->outbox);
    opd_mem_free(r->c.alloc, r->works);
}

const opd_actor_class opd_rollout_class = {
    .name = "rollout", .state_size = sizeof(rollout), .mailbox_msgs_max = 1024,
    .mailbox_bytes_max = 16u << 20, .on_start = on_start, .on_message = on_message,
    .on_signal = on_signal, .on_stop = on_stop};
