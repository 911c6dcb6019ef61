/* test_actor_views.c - attachments over links: nothing is copied, and byte credit returns with
 * the last reference, wherever that is released. */
#include <stdatomic.h>

#include "core/base/check.h"
#include "tests/support/script_actor.h"

enum { KILO = 1024, WINDOW = 4 * KILO, BODY = 10 };

static opd_msg *parcel(opd_ctx *ctx, uint16_t kind, opd_slice slice) {
    opd_msg *msg = script_msg(opd_self_system(ctx), kind, BODY);
    uint32_t n = (uint32_t)slice.size_bytes;
    CHECK_OK(opd_msg_attach(msg, slice, OPD_DTYPE_U8, 1, &n, NULL));
    return msg;
}

/* A sender that opens a link and sends one parcel of one KILO of its buffer. */
typedef struct source {
    opd_pid to;
    opd_buf *buf;
    opd_link *link;
    int credits;
} source;

static opd_err source_start(opd_ctx *ctx, void *arg) {
    source *s = arg;
    CHECK_OK(opd_buf_create(NULL, 2 * KILO, &s->buf));
    memset(opd_buf_data(s->buf), 7, 2 * KILO);
    CHECK_OK(opd_link_open(ctx, s->to, 4, WINDOW, &s->link));
    opd_slice half = {.buf = s->buf, .offset_bytes = KILO, .size_bytes = KILO};
    CHECK_OK(opd_link_send(ctx, s->link, parcel(ctx, 1, half)));
    CHECK_INT(opd_link_bytes_used(s->link), KILO + BODY);
    return OPD_OK;
}

static void source_stop(opd_ctx *ctx, void *arg) {
    source *s = arg;
    (void)ctx;
    opd_buf_release(s->buf);
}

static opd_pid spawn_source(opd_test_sys *t, source *s) {
    return script_spawn(t, "source",
                        (opd_script){.start = source_start, .stop = source_stop, .arg = s});
}

/* ---- one hop --------------------------------------------------------------------------- */

typedef struct keeper {
    source *from;
    opd_buf *kept;
    opd_timer later;
} keeper;

static opd_err let_go(opd_ctx *ctx, void *state, opd_timer *timer) {
    keeper *k = timer->arg;
    (void)state;
    CHECK_INT(opd_link_msgs_used(k->from->link), 0);
    CHECK_INT(opd_link_bytes_used(k->from->link), KILO); /* the body is back, the bytes are not */
    opd_buf_release(k->kept);
    CHECK_INT(opd_link_bytes_used(k->from->link), 0);
    opd_system_stop(opd_self_system(ctx), OPD_OK);
    return OPD_OK;
}

static opd_err keep_bytes(opd_ctx *ctx, void *arg, opd_msg *msg) {
    keeper *k = arg;
    opd_slice slice = opd_msg_attachment(msg, 0)->slice;
    CHECK(opd_slice_data(slice) == (unsigned char *)opd_buf_data(k->from->buf) + KILO);
    CHECK_INT(opd_buf_size(slice.buf), 2 * KILO);
    k->kept = opd_buf_retain(slice.buf); /* outlives the message */
    k->later.arg = k;
    opd_timer_init(&k->later, ctx, let_go);
    return opd_timer_start_after(&k->later, 0);
}

TEST(bytes_come_back_with_the_last_reference_not_with_the_message) {
    opd_test_sys t;
    sys_up(&t, NULL);
    source s = {.to = OPD_PID_NOBODY};
    keeper k = {.from = &s};
    s.to = script_spawn(&t, "keeper", (opd_script){.message = keep_bytes, .arg = &k});
    (void)spawn_source(&t, &s);
    CHECK_OK(opd_system_run(t.system)); /* the source's own reference never counted */
    sys_down(&t);
}

/* ---- a sender in want of bytes --------------------------------------------------------- */

typedef struct flood {
    opd_pid to;
    opd_link *link;
    opd_buf *buf;
    int sent, refused, credits;
} flood;

static opd_err pour(opd_ctx *ctx, flood *f) {
    for (; f->sent < 200; f->sent++) {
        opd_msg *msg = parcel(ctx, 1, opd_slice_whole(f->buf));
        opd_err err = opd_link_send(ctx, f->link, msg);
        CHECK(opd_link_bytes_used(f->link) <= WINDOW);
        if (err == OPD_OK) continue;
        CHECK_INT(err, OPD_ERR_AGAIN);
        opd_msg_release(msg);
        f->refused++;
        return OPD_OK;
    }
    return OPD_OK;
}

static opd_err flood_start(opd_ctx *ctx, void *arg) {
    flood *f = arg;
    CHECK_OK(opd_buf_create(NULL, KILO, &f->buf));
    memset(opd_buf_data(f->buf), 1, KILO);
    CHECK_OK(opd_link_open(ctx, f->to, 100, WINDOW, &f->link));
    return pour(ctx, f);
}

static opd_err flood_signal(opd_ctx *ctx, void *arg, const opd_signal *signal) {
    flood *f = arg;
    if (signal->kind != OPD_SIGNAL_CREDIT) return OPD_OK;
    f->credits++;
    return pour(ctx, f);
}

static void flood_stop(opd_ctx *ctx, void *arg) {
    flood *f = arg;
    (void)ctx;
    opd_buf_release(f->buf);
}

/* Keeps the bytes of the last two parcels, never a message. */
typedef struct hoarder {
    opd_buf *kept[2];
    int got;
} hoarder;

static opd_err hoard(opd_ctx *ctx, void *arg, opd_msg *msg) {
    hoarder *h = arg;
    opd_buf_release(h->kept[h->got % 2]);
    h->kept[h->got % 2] = opd_buf_retain(opd_msg_attachment(msg, 0)->slice.buf);
    if (++h->got == 200) opd_system_stop(opd_self_system(ctx), OPD_OK);
    return OPD_OK;
}

static void hoarder_stop(opd_ctx *ctx, void *arg) {
    hoarder *h = arg;
    (void)ctx;
    for (int i = 0; i < 2; i++) opd_buf_release(h->kept[i]);
}

TEST(a_receiver_that_keeps_bytes_slows_its_sender_down_and_no_credit_is_lost) {
    opd_test_sys t;
    sys_up(&t, NULL);
    hoarder h = {.got = 0};
    flood f = {.to = script_spawn(&t, "hoarder", (opd_script){.message = hoard, .arg = &h,
                                                              .stop = hoarder_stop})};
    (void)script_spawn(&t, "flood", (opd_script){.start = flood_start, .signal = flood_signal,
                                                 .stop = flood_stop, .arg = &f});
    CHECK_OK(opd_system_run(t.system));
    CHECK_INT(f.sent, 200);
    CHECK_INT(f.refused, f.credits);
    CHECK(f.refused > 200 / 4);
    sys_down(&t);
}

/* ---- two hops -------------------------------------------------------------------------- */

typedef struct relay {
    source *from;
    opd_pid to;
    opd_link *link;
} relay;

static opd_err relay_start(opd_ctx *ctx, void *arg) {
    relay *r = arg;
    return opd_link_open(ctx, r->to, 4, WINDOW, &r->link);
}

/* A new message with the received bytes; the received message ends with this handler. */
static opd_err relay_slice(opd_ctx *ctx, void *arg, opd_msg *msg) {
    relay *r = arg;
    opd_msg *next = parcel(ctx, 2, opd_msg_attachment(msg, 0)->slice);
    CHECK_OK(opd_link_send(ctx, r->link, next));
    return OPD_OK;
}

/* The received message itself. */
static opd_err relay_message(opd_ctx *ctx, void *arg, opd_msg *msg) {
    relay *r = arg;
    CHECK_OK(opd_link_send(ctx, r->link, msg));
    return OPD_OK;
}

static opd_err last_stop(opd_ctx *ctx, void *arg, opd_msg *msg) {
    relay *r = arg;
    unsigned char *data = opd_slice_data(opd_msg_attachment(msg, 0)->slice);
    CHECK(data == (unsigned char *)opd_buf_data(r->from->buf) + KILO);
    CHECK_INT(opd_link_msgs_used(r->from->link), 0);
    CHECK_INT(opd_link_bytes_used(r->from->link), KILO); /* both windows hold the bytes */
    CHECK_INT(opd_link_msgs_used(r->link), 1);
    CHECK_INT(opd_link_bytes_used(r->link), KILO + BODY);
    opd_msg_take(ctx, msg);
    opd_msg_release(msg);
    CHECK_INT(opd_link_bytes_used(r->from->link), 0);
    CHECK_INT(opd_link_bytes_used(r->link), 0);
    opd_system_stop(opd_self_system(ctx), OPD_OK);
    return OPD_OK;
}

static void send_over_two_links(opd_err (*forward)(opd_ctx *, void *, opd_msg *)) {
    opd_test_sys t;
    sys_up(&t, NULL);
    source s = {.to = OPD_PID_NOBODY};
    relay r = {.from = &s};
    r.to = script_spawn(&t, "last", (opd_script){.message = last_stop, .arg = &r});
    s.to = script_spawn(&t, "relay", (opd_script){.start = relay_start, .message = forward,
                                                  .arg = &r});
    (void)spawn_source(&t, &s);
    CHECK_OK(opd_system_run(t.system));
    sys_down(&t);
}

TEST(a_slice_sent_on_counts_in_both_windows) { send_over_two_links(relay_slice); }

TEST(a_message_sent_on_counts_in_both_windows) { send_over_two_links(relay_message); }

/* ---- ends ------------------------------------------------------------------------------ */

static opd_err keep_and_end(opd_ctx *ctx, void *arg, opd_msg *msg) {
    keeper *k = arg;
    k->kept = opd_buf_retain(opd_msg_attachment(msg, 0)->slice.buf);
    opd_exit(ctx, OPD_OK);
    return OPD_OK;
}

TEST(bytes_kept_outlive_the_link_and_both_its_ends) {
    opd_test_sys t;
    sys_up(&t, NULL);
    source s = {.to = OPD_PID_NOBODY};
    keeper k = {.from = &s};
    s.to = script_spawn(&t, "keeper", (opd_script){.message = keep_and_end, .arg = &k});
    opd_stop(t.system, spawn_source(&t, &s)); /* its link closes, with bytes under way */
    CHECK_OK(opd_system_run(t.system));
    CHECK_INT(((unsigned char *)opd_buf_data(k.kept))[KILO], 7);
    opd_buf_release(k.kept); /* frees the view, the link and the buffer */
    sys_down(&t);
}

/* The receiver ends while its bytes are still kept elsewhere: the blocked sender is told. */
static opd_err told_closed(opd_ctx *ctx, void *arg, const opd_signal *signal) {
    flood *f = arg;
    if (signal->kind != OPD_SIGNAL_CREDIT) return OPD_OK;
    opd_msg *msg = parcel(ctx, 1, opd_slice_whole(f->buf));
    CHECK_ERR(opd_link_send(ctx, f->link, msg), OPD_ERR_CLOSED);
    opd_msg_release(msg);
    f->credits++;
    opd_system_stop(opd_self_system(ctx), OPD_OK);
    return OPD_OK;
}

typedef struct thief {
    opd_buf *kept[4];
    int got;
} thief;

static opd_err steal(opd_ctx *ctx, void *arg, opd_msg *msg) {
    thief *x = arg;
    x->kept[x->got] = opd_buf_retain(opd_msg_attachment(msg, 0)->slice.buf);
    if (++x->got == 3) opd_exit(ctx, OPD_OK);
    return OPD_OK;
}

TEST(a_sender_without_credit_learns_that_its_receiver_ended) {
    opd_test_sys t;
    sys_up(&t, NULL);
    thief x = {.got = 0};
    flood f = {.to = script_spawn(&t, "thief", (opd_script){.message = steal, .arg = &x})};
    (void)script_spawn(&t, "flood", (opd_script){.start = flood_start, .signal = told_closed,
                                                 .stop = flood_stop, .arg = &f});
    CHECK_INT(f.refused, 1);
    CHECK_OK(opd_system_run(t.system));
    CHECK_INT(f.credits, 1);
    for (int i = 0; i < 3; i++) opd_buf_release(x.kept[i]);
    sys_down(&t);
}

/* ---- bounds ---------------------------------------------------------------------------- */

/* Views come in blocks of 64: whole ones. */
enum { TINY_POOL = 32, TINY_VIEWS = TINY_POOL * OPD_MSG_ATTACHMENTS_MAX };

typedef struct magpie {
    opd_buf *kept[TINY_VIEWS];
    int got;
} magpie;

static opd_err keep_all(opd_ctx *ctx, void *arg, opd_msg *msg) {
    magpie *m = arg;
    (void)ctx;
    CHECK(m->got < TINY_VIEWS);
    m->kept[m->got++] = opd_buf_retain(opd_msg_attachment(msg, 0)->slice.buf);
    return OPD_OK;
}

static opd_err pour_to_the_limit(opd_ctx *ctx, void *arg, const opd_signal *signal) {
    flood *f = arg;
    if (signal->kind != OPD_SIGNAL_CREDIT) return OPD_OK;
    for (;; f->sent++) {
        opd_msg *msg = parcel(ctx, 1, opd_slice_whole(f->buf));
        opd_err err = opd_link_send(ctx, f->link, msg);
        if (err == OPD_OK) continue;
        opd_msg_release(msg);
        if (err == OPD_ERR_AGAIN) return OPD_OK;
        CHECK_INT(err, OPD_ERR_LIMIT);
        char all[32];
        (void)snprintf(all, sizeof all, "all %d views", TINY_VIEWS);
        CHECK_CONTAINS(opd_err_context(), all);
        opd_system_stop(opd_self_system(ctx), OPD_OK);
        return OPD_OK;
    }
}

static opd_err pour_slowly(opd_ctx *ctx, void *arg) {
    flood *f = arg;
    CHECK_OK(opd_buf_create(NULL, 1, &f->buf));
    CHECK_OK(opd_link_open(ctx, f->to, 1, WINDOW, &f->link));
    opd_signal begin = {.kind = OPD_SIGNAL_CREDIT};
    return pour_to_the_limit(ctx, arg, &begin);
}

TEST(views_are_bounded_by_the_pool_of_messages) {
    opd_test_sys t;
    sys_up(&t, &(opd_system_options){.messages_max = TINY_POOL});
    magpie m = {.got = 0};
    flood f = {.to = script_spawn(&t, "magpie", (opd_script){.message = keep_all, .arg = &m})};
    (void)script_spawn(&t, "flood", (opd_script){.start = pour_slowly, .stop = flood_stop,
                                                 .signal = pour_to_the_limit, .arg = &f});
    CHECK_OK(opd_system_run(t.system));
    CHECK_INT(f.sent, TINY_VIEWS);
    for (int i = 0; i < m.got; i++) opd_buf_release(m.kept[i]);
    sys_down(&t);
}

static opd_err send_without_memory(opd_ctx *ctx, void *arg) {
    flood *f = arg;
    opd_test_alloc *memory = (opd_test_alloc *)f->buf; /* the test's */
    opd_link *link = NULL;
    CHECK_OK(opd_buf_create(NULL, KILO, &f->buf));
    CHECK_OK(opd_link_open(ctx, f->to, 1, WINDOW, &link));
    opd_msg *msg = parcel(ctx, 1, opd_slice_whole(f->buf));
    memory->fail_at = memory->calls + 1;
    CHECK_ERR(opd_link_send(ctx, link, msg), OPD_ERR_NOMEM);
    CHECK(opd_msg_attachment(msg, 0)->slice.buf == f->buf);
    CHECK_INT(opd_link_msgs_used(link), 0);
    CHECK_INT(opd_link_bytes_used(link), 0);
    CHECK_OK(opd_link_send(ctx, link, msg)); /* there is memory again */
    return OPD_OK;
}

TEST(a_link_send_without_memory_takes_nothing) {
    opd_test_sys t;
    sys_up(&t, NULL);
    flood f = {.to = script_spawn(&t, "to", (opd_script){0}), .buf = (void *)&t.memory};
    (void)script_spawn(&t, "from", (opd_script){.start = send_without_memory, .arg = &f,
                                                .stop = flood_stop});
    opd_system_kill(t.system, OPD_OK);
    CHECK_OK(opd_system_run(t.system));
    sys_down(&t);
}

/* ---- the last reference is released on another thread ---------------------------------- */

typedef struct cruncher {
    opd_lane *lane;
    opd_job job;
    opd_buf *waiting[WINDOW / KILO]; /* FIFO */
    int count, got, done;
    atomic_uint sum;
} cruncher;

static opd_err crunch(opd_job *job) {
    cruncher *c = job->arg;
    unsigned char *bytes = opd_buf_data(c->waiting[0]);
    atomic_fetch_add(&c->sum, bytes[KILO - 1]);
    opd_buf_release(c->waiting[0]);
    return OPD_OK;
}

static opd_err crunch_next(opd_ctx *ctx, cruncher *c) {
    if (c->count == 0 || c->job.submitted) return OPD_OK;
    opd_buf *also = opd_buf_retain(c->waiting[0]);
    OPD_TRY(opd_job_submit(ctx, c->lane, &c->job));
    opd_buf_release(also); /* either thread may be the last */
    return OPD_OK;
}

static opd_err crunched(opd_ctx *ctx, void *state, opd_job *job) {
    cruncher *c = job->arg;
    (void)state;
    c->count--;
    memmove(c->waiting, c->waiting + 1, (size_t)c->count * sizeof *c->waiting);
    if (++c->done == 200) opd_system_stop(opd_self_system(ctx), OPD_OK);
    return crunch_next(ctx, c);
}

static opd_err take_bytes(opd_ctx *ctx, void *arg, opd_msg *msg) {
    cruncher *c = arg;
    CHECK(c->count < WINDOW / KILO); /* the byte window bounds it, though every message is back */
    c->waiting[c->count++] = opd_buf_retain(opd_msg_attachment(msg, 0)->slice.buf);
    opd_msg_take(ctx, msg);
    opd_msg_release(msg);
    c->got++;
    return crunch_next(ctx, c);
}

TEST(a_lane_releases_the_last_reference) {
    opd_test_sys t;
    sys_up(&t, NULL);
    cruncher c = {.job = {.run = crunch, .done = crunched}};
    c.job.arg = &c;
    CHECK_OK(opd_lane_open(t.system, "crunch", 1, &c.lane));
    flood f = {.to = script_spawn(&t, "cruncher", (opd_script){.message = take_bytes, .arg = &c})};
    (void)script_spawn(&t, "flood", (opd_script){.start = flood_start, .signal = flood_signal,
                                                 .stop = flood_stop, .arg = &f});
    CHECK_OK(opd_system_run(t.system));
    CHECK_INT(c.got, 200);
    CHECK_INT(f.refused, f.credits);
    sys_down(&t);
}
