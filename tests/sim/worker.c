/* worker.c - see worker.h.
 *
 * Rules of its own that a worker checks: each ask ends once, each monitor tells once, a job is
 * done once, the slot's version never goes back. Every message begins with the pid it is meant
 * for, and workers remember pids of long ago: none of it may reach a successor. A reply carries
 * the token of its request.
 */
#include "tests/sim/worker.h"

#include <string.h>

#include "core/base/check.h"

enum { BODY_MAX = 700, HELD_MAX = 6, ASKS_MAX = 4, JOBS_MAX = 2, BUFS_MAX = 4, WATCHES_MAX = 3,
       ALARMS_MAX = 5, NAMES = 3 };
enum { KIND_PLAIN = 1, KIND_LATEST, KIND_DEBUG, KIND_ASK, KIND_BULK, KIND_REPLY };

static const uint64_t US = 1000;

typedef struct ask {
    bool waits;
    uint64_t id, token;
} ask;

/* How every body begins. */
typedef struct letter {
    opd_pid to;
    uint64_t token; /* of a request, and of its reply */
} letter;

typedef struct labour {
    opd_job job;
    bool in_flight;
    unsigned ran, heard; /* heard: of the note */
    bool fails, notes;
    opd_event note;      /* what the job says meanwhile, from its thread */
    opd_system *system;
} labour;

typedef struct worker {
    playground *ground;
    unsigned index;
    opd_timer tick;
    opd_pid old_pids[WORKERS_MAX]; /* of the others when it was started */
    bool stopping;             /* was told to stop, takes its time */
    opd_msg *held[HELD_MAX];   /* requests and others, oldest first */
    unsigned held_count;
    opd_buf *bufs[BUFS_MAX];   /* kept longer than their message */
    opd_link *link;            /* to a later worker: link_to */
    opd_pid link_to;
    opd_msg *refused;          /* waits for CREDIT */
    ask asks[ASKS_MAX];
    labour labours[JOBS_MAX];
    opd_monitor monitors[WATCHES_MAX];
    bool watching[WATCHES_MAX];
    opd_timer alarms[ALARMS_MAX];
    bool ringing[ALARMS_MAX];  /* to come */
    opd_cleanup cleanup;
    opd_slot_watch watch;
    uint64_t seen_version;
} worker;

static uint64_t draw(opd_ctx *ctx, uint64_t n) { return opd_random(ctx) % n; }

static opd_err tick_soon(opd_ctx *ctx, worker *w) {
    return opd_timer_start_after(&w->tick, (1 + draw(ctx, 2000)) * US);
}

/* Errors that a worker lives with; any other is its end. */
static bool is_ordinary(opd_err err) {
    return err == OPD_OK || err == OPD_ERR_AGAIN || err == OPD_ERR_CLOSED ||
           err == OPD_ERR_LIMIT || err == OPD_ERR_NOMEM;
}

/* ---- what it sends --------------------------------------------------------------------- */

/* Fills a message with a random body and perhaps an attachment. */
static opd_err fill(opd_ctx *ctx, worker *w, opd_msg *msg) {
    static const char bytes[BODY_MAX] = {1};
    size_t more = draw(ctx, 8) == 0 ? 300 + draw(ctx, 300) : draw(ctx, 64);
    OPD_TRY(opd_msg_body_set(msg, bytes, sizeof(letter) + more));
    if (draw(ctx, 3) != 0) return OPD_OK;
    uint32_t size = 1 + (uint32_t)draw(ctx, 1500);
    opd_buf *buf = NULL;
    OPD_TRY(opd_buf_create(w->ground->alloc, size, &buf));
    opd_slice slice = {.buf = buf, .size_bytes = size};
    opd_err err = opd_msg_attach(msg, slice, OPD_DTYPE_U8, 1, &size, NULL);
    opd_buf_release(buf);
    return err;
}

static opd_msg *new_msg(opd_ctx *ctx, worker *w, uint16_t kind) {
    opd_msg *msg = NULL;
    opd_err err = opd_msg_create(w->ground->system, kind, &msg);
    if (err == OPD_OK) err = fill(ctx, w, msg);
    if (err == OPD_OK) return msg;
    opd_msg_release(msg);
    return NULL;
}

/* Itself at times, or one that is gone, or nobody. */
static opd_pid some_peer(opd_ctx *ctx, const worker *w) {
    uint64_t i = draw(ctx, w->ground->count);
    return draw(ctx, 4) == 0 ? w->old_pids[i] : w->ground->pids[i];
}

static letter letter_of(const opd_msg *msg) {
    letter l;
    size_t size = 0;
    const void *body = opd_msg_body(msg, &size);
    OPD_ASSERT(size >= sizeof l);
    memcpy(&l, body, sizeof l);
    return l;
}

/* Writes into msg whom it is meant for. */
static void address(opd_msg *msg, opd_pid to, uint64_t token) {
    char bytes[BODY_MAX];
    letter l = {.to = to, .token = token};
    size_t size = 0;
    const void *body = opd_msg_body(msg, &size);
    OPD_ASSERT(size >= sizeof l && size <= sizeof bytes);
    memcpy(bytes, body, size);
    memcpy(bytes, &l, sizeof l);
    opd_err err = opd_msg_body_set(msg, bytes, size);
    OPD_ASSERT(err == OPD_OK); /* the same size: no memory is needed */
}

static void check_address(opd_ctx *ctx, const worker *w, const opd_msg *msg) {
    if (letter_of(msg).to != opd_self(ctx))
        checkers_fail(w->ground->checks, "%s got a message that was meant for an earlier actor",
                      opd_self_name(ctx));
}

static opd_err send_one(opd_ctx *ctx, worker *w, opd_pid to) {
    uint16_t kinds[] = {KIND_PLAIN, KIND_PLAIN, KIND_LATEST, KIND_DEBUG};
    opd_msg *msg = new_msg(ctx, w, kinds[draw(ctx, 4)]);
    if (msg == NULL) return OPD_OK;
    address(msg, to, 0);
    opd_err err = opd_send(ctx, to, msg);
    if (err != OPD_OK) opd_msg_release(msg);
    return err;
}

static opd_err act_send(opd_ctx *ctx, worker *w) {
    opd_pid to = some_peer(ctx, w);
    uint64_t burst = draw(ctx, 6) == 0 ? 12 : 1;
    for (; burst > 0; burst--) OPD_TRY(send_one(ctx, w, to));
    return OPD_OK;
}

static opd_err link_send(opd_ctx *ctx, worker *w, opd_msg *msg) {
    opd_err err = opd_link_send(ctx, w->link, msg);
    if (err == OPD_OK) return OPD_OK;
    if (err == OPD_ERR_AGAIN) {
        w->refused = msg;
        return OPD_OK;
    }
    opd_msg_release(msg);
    if (err != OPD_ERR_CLOSED) return err;
    opd_link_close(w->link); /* the next time to whoever took the other's place */
    w->link = NULL;
    return OPD_OK;
}

static opd_err act_bulk(opd_ctx *ctx, worker *w) {
    const playground *g = w->ground;
    if (w->refused != NULL || w->index + 1 == g->count) return OPD_OK;
    if (w->link == NULL) {
        opd_pid to = g->pids[w->index + 1 + draw(ctx, g->count - w->index - 1)];
        OPD_TRY(opd_link_open(ctx, to, 1 + (uint32_t)draw(ctx, 4), 2500, &w->link));
        w->link_to = to;
    }
    for (uint64_t burst = draw(ctx, 5); burst > 0; burst--) {
        opd_msg *msg = new_msg(ctx, w, KIND_BULK);
        if (msg == NULL) return OPD_OK;
        address(msg, w->link_to, 0);
        OPD_TRY(link_send(ctx, w, msg));
        if (w->refused != NULL || w->link == NULL) return OPD_OK;
    }
    return OPD_OK;
}

static opd_err act_close_link(opd_ctx *ctx, worker *w) {
    if (draw(ctx, 4) != 0 || w->refused != NULL) return OPD_OK;
    opd_link_close(w->link);
    w->link = NULL;
    return OPD_OK;
}

static opd_err on_credit(opd_ctx *ctx, worker *w, const opd_link *link) {
    opd_msg *msg = w->refused;
    if (link != w->link) checkers_fail(w->ground->checks, "credit of a link that is closed");
    w->refused = NULL;
    if (msg != NULL) OPD_TRY(link_send(ctx, w, msg));
    return tick_soon(ctx, w);
}

/* ---- what it asks ---------------------------------------------------------------------- */

static opd_err on_reply(opd_ctx *ctx, void *state, void *arg, opd_err err, opd_msg *reply) {
    ask *a = arg;
    worker *w = state;
    if (!a->waits) checkers_fail(w->ground->checks, "worker %u: an ask ended twice", w->index);
    if ((err == OPD_OK) != (reply != NULL))
        checkers_fail(w->ground->checks, "worker %u: reply and error disagree", w->index);
    if (reply != NULL && letter_of(reply).token != a->token)
        checkers_fail(w->ground->checks, "worker %u: the reply to another ask", w->index);
    a->waits = false;
    return tick_soon(ctx, w);
}

static opd_err act_ask(opd_ctx *ctx, worker *w) {
    ask *a = NULL;
    for (unsigned i = 0; i < ASKS_MAX && a == NULL; i++)
        if (!w->asks[i].waits) a = &w->asks[i];
    if (a == NULL) return OPD_OK;
    opd_msg *msg = new_msg(ctx, w, KIND_ASK);
    if (msg == NULL) return OPD_OK;
    uint64_t deadline = draw(ctx, 2) == 0 ? OPD_NO_DEADLINE : opd_deadline_in(ctx, 1 + draw(ctx, 5));
    opd_pid to = some_peer(ctx, w);
    a->token = opd_random(ctx);
    address(msg, to, a->token);
    opd_err err = opd_request(ctx, to, msg, deadline, on_reply, a, &a->id);
    if (err != OPD_OK)
        opd_msg_release(msg);
    else
        a->waits = true;
    return err;
}

static opd_err act_cancel(opd_ctx *ctx, worker *w) {
    const ask *a = &w->asks[draw(ctx, ASKS_MAX)];
    if (a->id != 0) opd_request_cancel(ctx, a->id); /* a past one is fine */
    return OPD_OK;
}

/* ---- what it watches and computes ------------------------------------------------------ */

static opd_err act_monitor(opd_ctx *ctx, worker *w) {
    uint64_t i = draw(ctx, WATCHES_MAX);
    if (w->watching[i]) {
        if (draw(ctx, 2) == 0) return OPD_OK;
        opd_monitor_stop(&w->monitors[i]);
        w->watching[i] = false;
        return OPD_OK;
    }
    opd_monitor_start(ctx, &w->monitors[i], some_peer(ctx, w));
    w->watching[i] = true;
    return OPD_OK;
}

static opd_err on_down(worker *w, const opd_signal *signal) {
    for (unsigned i = 0; i < WATCHES_MAX; i++) {
        if (signal->monitor != &w->monitors[i]) continue;
        if (!w->watching[i]) checkers_fail(w->ground->checks, "worker %u: DOWN twice", w->index);
        w->watching[i] = false;
    }
    if (opd_alive(w->ground->system, signal->pid))
        checkers_fail(w->ground->checks, "worker %u: DOWN of the living", w->index);
    return OPD_OK;
}

static opd_err labour_run(opd_job *job) {
    labour *l = job->arg;
    l->ran++;
    if (l->notes) opd_event_post_remote(l->system, &l->note);
    return l->fails ? opd_fail(OPD_ERR_NUMERIC, "the job could not") : OPD_OK;
}

static opd_err note_heard(opd_ctx *ctx, void *state, opd_event *event) {
    (void)ctx;
    (void)state;
    ((labour *)event->arg)->heard++;
    return OPD_OK;
}

static opd_err labour_done(opd_ctx *ctx, void *state, opd_job *job) {
    labour *l = job->arg;
    worker *w = state;
    bool ran = job->err == OPD_OK || job->err == OPD_ERR_NUMERIC;
    unsigned heard = l->notes ? l->ran : 0;
    if (!l->in_flight || l->ran != (ran ? 1 : 0) || l->heard != heard)
        checkers_fail(w->ground->checks, "worker %u: a job was done wrongly", w->index);
    l->in_flight = false;
    return tick_soon(ctx, w);
}

static opd_err act_job(opd_ctx *ctx, worker *w) {
    labour *l = &w->labours[draw(ctx, JOBS_MAX)];
    if (l->in_flight) {
        if (draw(ctx, 3) == 0) opd_job_cancel(&l->job);
        return OPD_OK;
    }
    l->job = (opd_job){.run = labour_run, .done = labour_done, .arg = l};
    l->ran = l->heard = 0;
    l->fails = draw(ctx, 4) == 0;
    l->notes = draw(ctx, 2) == 0;
    l->system = w->ground->system;
    l->note = (opd_event){.to = opd_self(ctx), .deliver = note_heard, .arg = l};
    opd_err err = opd_job_submit(ctx, w->ground->lanes[draw(ctx, LANES)], &l->job);
    l->in_flight = err == OPD_OK;
    return err;
}

static opd_err alarm_rings(opd_ctx *ctx, void *state, opd_timer *timer) {
    worker *w = state;
    bool *ringing = &w->ringing[timer - w->alarms];
    (void)ctx;
    if (!*ringing) checkers_fail(w->ground->checks, "worker %u: a stopped timer fires", w->index);
    *ringing = false;
    return OPD_OK;
}

static opd_err act_alarm(opd_ctx *ctx, worker *w) {
    uint64_t i = draw(ctx, ALARMS_MAX);
    if (draw(ctx, 3) == 0) {
        opd_timer_stop(&w->alarms[i]);
        w->ringing[i] = false;
        return OPD_OK;
    }
    opd_err err = opd_timer_start_after(&w->alarms[i], draw(ctx, 3000) * US);
    w->ringing[i] = err == OPD_OK;
    return err;
}

/* Takes one of a few names, or asks who has it. */
static opd_err act_name(opd_ctx *ctx, worker *w) {
    char name[] = {'n', (char)('0' + draw(ctx, NAMES)), '\0'};
    opd_pid owner = opd_whereis(w->ground->system, name);
    if (owner != OPD_PID_NOBODY && !opd_alive(w->ground->system, owner))
        checkers_fail(w->ground->checks, "the name %s belongs to the dead", name);
    opd_err err = opd_register(ctx, name);
    bool taken = owner != OPD_PID_NOBODY && owner != opd_self(ctx);
    if ((err == OPD_ERR_EXISTS) != taken)
        checkers_fail(w->ground->checks, "the name %s has two owners", name);
    return err == OPD_ERR_EXISTS ? OPD_OK : err;
}

static opd_err on_slot(opd_ctx *ctx, void *state, opd_slot_watch *watch) {
    worker *w = state;
    opd_buf *buf = NULL;
    (void)ctx;
    uint64_t version = opd_slot_get(watch->slot, &buf);
    if (buf == NULL || version < w->seen_version)
        checkers_fail(w->ground->checks, "worker %u: the slot went back", w->index);
    w->seen_version = version;
    opd_buf_release(buf);
    return OPD_OK;
}

static opd_err act_slot(opd_ctx *ctx, worker *w) {
    playground *g = w->ground;
    opd_buf *buf = NULL;
    if (draw(ctx, 4) == 0) {
        opd_slot_watch_start(ctx, g->slot, &w->watch, on_slot);
        return OPD_OK;
    }
    OPD_TRY(opd_buf_create(g->alloc, 16, &buf));
    opd_slot_put(g->slot, buf, ++g->versions);
    opd_buf_release(buf);
    return OPD_OK;
}

/* ---- what it is sent ------------------------------------------------------------------- */

static void answer(opd_ctx *ctx, worker *w, opd_msg *request) {
    opd_msg *reply = draw(ctx, 4) == 0 ? NULL : new_msg(ctx, w, KIND_REPLY);
    if (reply == NULL) {
        opd_reply_error(ctx, request, opd_fail(OPD_ERR_INVALID, "no answer today"));
        return;
    }
    address(reply, opd_msg_from(request), letter_of(request).token);
    opd_reply(ctx, request, reply);
}

/* Lets go of the oldest message it holds: answered, passed on or dropped. */
static void let_go(opd_ctx *ctx, worker *w) {
    opd_msg *msg = w->held[0];
    w->held_count--;
    for (unsigned i = 0; i < w->held_count; i++) w->held[i] = w->held[i + 1];
    if (opd_msg_is_request(msg)) {
        if (draw(ctx, 4) != 0) answer(ctx, w, msg); /* else: released without an answer */
    } else if (draw(ctx, 3) == 0) {
        opd_pid to = some_peer(ctx, w);
        address(msg, to, 0);
        if (opd_send(ctx, to, msg) == OPD_OK) return;
    }
    opd_msg_release(msg);
}

static void keep_buf(opd_ctx *ctx, worker *w, const opd_msg *msg) {
    const opd_attachment *a = opd_msg_attachment(msg, 0);
    uint64_t i = draw(ctx, BUFS_MAX);
    if (a == NULL || draw(ctx, 2) == 0) return;
    opd_buf_release(w->bufs[i]);
    w->bufs[i] = opd_buf_retain(a->slice.buf);
}

static opd_err on_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    worker *w = state;
    check_address(ctx, w, msg);
    keep_buf(ctx, w, msg);
    bool keep = draw(ctx, 2) == 0;
    if (keep && w->held_count < HELD_MAX) {
        opd_msg_take(ctx, msg);
        w->held[w->held_count++] = msg;
    } else if (opd_msg_is_request(msg)) {
        answer(ctx, w, msg);
    }
    return tick_soon(ctx, w);
}

/* Stops at once, after a while, or not at all: then it is ended by force. */
static opd_err on_stop_signal(opd_ctx *ctx, worker *w) {
    uint64_t way = draw(ctx, 8);
    if (way > 2) return OPD_OK;
    opd_stop_defer(ctx);
    w->stopping = way > 0;
    return tick_soon(ctx, w);
}

static opd_err on_signal(opd_ctx *ctx, void *state, const opd_signal *signal) {
    worker *w = state;
    switch (signal->kind) {
    case OPD_SIGNAL_CREDIT: return on_credit(ctx, w, signal->link);
    case OPD_SIGNAL_DOWN: return on_down(w, signal);
    case OPD_SIGNAL_STOP: return on_stop_signal(ctx, w);
    }
    return OPD_OK;
}

/* ---- its life -------------------------------------------------------------------------- */

/* Its own end, or another's. */
static opd_err act_end(opd_ctx *ctx, worker *w) {
    switch (draw(ctx, 6)) {
    case 0: opd_exit(ctx, OPD_OK); return OPD_OK;
    case 1: return opd_fail(OPD_ERR_IO, "it failed, as workers do");
    case 2: opd_stop(w->ground->system, some_peer(ctx, w)); return OPD_OK;
    default: return OPD_OK;
    }
}

static opd_err act(opd_ctx *ctx, worker *w) {
    if (draw(ctx, 20) == 0) return act_end(ctx, w);
    switch (draw(ctx, 12)) {
    case 0: return act_job(ctx, w);
    case 1: return act_monitor(ctx, w);
    case 2: return act_cancel(ctx, w);
    case 3: return act_slot(ctx, w);
    case 4: return act_close_link(ctx, w);
    case 5:
    case 6: return act_ask(ctx, w);
    case 7: return act_bulk(ctx, w);
    case 8: return act_alarm(ctx, w);
    case 9: return act_name(ctx, w);
    default: return act_send(ctx, w);
    }
}

/* Whether it keeps what others want back. */
static bool is_keeping(const worker *w) {
    if (w->held_count > 0) return true;
    for (unsigned i = 0; i < BUFS_MAX; i++)
        if (w->bufs[i] != NULL) return true;
    return false;
}

/* Whether something is still to come: then it must come, or the run does not end. */
static bool is_pending(const worker *w) {
    if (w->refused != NULL || is_keeping(w)) return true;
    for (unsigned i = 0; i < ASKS_MAX; i++)
        if (w->asks[i].waits) return true;
    for (unsigned i = 0; i < JOBS_MAX; i++)
        if (w->labours[i].in_flight) return true;
    return false;
}

static opd_err on_tick(opd_ctx *ctx, void *state, opd_timer *timer) {
    worker *w = state;
    unsigned *budget = &w->ground->budgets[w->index];
    (void)timer;
    if (w->stopping) {
        opd_exit(ctx, OPD_OK);
        return OPD_OK;
    }
    if (w->held_count > 0) let_go(ctx, w);
    opd_buf **kept = &w->bufs[draw(ctx, BUFS_MAX)];
    opd_buf_release(*kept);
    *kept = NULL;
    if (*budget > 0) {
        --*budget;
        opd_err err = act(ctx, w);
        if (!is_ordinary(err)) return err;
    }
    w->ground->quiet[w->index] = *budget == 0 && !is_pending(w);
    return *budget > 0 || is_keeping(w) ? tick_soon(ctx, w) : OPD_OK;
}

static void cleaned_up(opd_cleanup *cleanup) { ((playground *)cleanup->arg)->cleanups_run++; }

typedef struct worker_config {
    playground *ground;
    unsigned index;
} worker_config;

static opd_err on_start(opd_ctx *ctx, void *state, const void *config) {
    const worker_config *c = config;
    worker *w = state;
    w->ground = c->ground;
    w->index = c->index;
    memcpy(w->old_pids, c->ground->pids, sizeof w->old_pids);
    c->ground->quiet[c->index] = false;
    w->cleanup.arg = c->ground;
    opd_cleanup_start(ctx, &w->cleanup, cleaned_up);
    c->ground->cleanups_begun++;
    for (unsigned i = 0; i < ALARMS_MAX; i++) opd_timer_init(&w->alarms[i], ctx, alarm_rings);
    opd_timer_init(&w->tick, ctx, on_tick);
    return tick_soon(ctx, w);
}

static void on_stop(opd_ctx *ctx, void *state) {
    worker *w = state;
    (void)ctx;
    for (unsigned i = 0; i < w->held_count; i++) opd_msg_release(w->held[i]);
    for (unsigned i = 0; i < BUFS_MAX; i++) opd_buf_release(w->bufs[i]);
    opd_msg_release(w->refused);
}

static const opd_kind_policy policies[] = {{KIND_LATEST, OPD_OVERFLOW_KEEP_LATEST},
                                           {KIND_DEBUG, OPD_OVERFLOW_DROP}};

static const opd_actor_class worker_class = {
    .name = "worker", .state_size = sizeof(worker), .mailbox_msgs_max = 6,
    .mailbox_bytes_max = 4096, .requests_max = 3, .policies = policies,
    .policy_count = OPD_COUNTOF(policies), .on_start = on_start, .on_message = on_message,
    .on_signal = on_signal, .on_stop = on_stop,
};

opd_err worker_spawn(playground *ground, unsigned index, opd_pid *out_pid) {
    worker_config config = {.ground = ground, .index = index};
    char name[8];
    (void)snprintf(name, sizeof name, "w%u", index);
    OPD_TRY(opd_spawn(ground->system, &worker_class, name, &config, out_pid));
    ground->pids[index] = *out_pid;
    return OPD_OK;
}
