/* bench_flow.c - backpressure and requests: bounded buffer, 1 MB attachments, 1 % timeouts.
 *
 * bounded_buffer is Savina's program with its sizes. attachments_1mb streams 1 MiB buffers over
 * a link whose window is 16 MiB: the receiver looks at each in place, nothing is copied.
 * requests keeps 256 requests open against a server that leaves every hundredth unanswered
 * until its deadline of 2 ms. Thread: the loop's.
 */
#include <string.h>

#include "tests/bench/bench.h"

enum {
    BUFFER_SIZE = 50,
    PRODUCERS = 40,
    CONSUMERS = 40,
    ITEMS_EACH = 1000,
    BUFFER_ROUNDS = 10, /* the program is over too soon to be timed once */

    ATTACHED_BYTES = 1 << 20,
    ATTACHED_WINDOW = 16,
    ATTACHED = 500000,

    REQUESTS = 500000,
    REQUESTS_OPEN = 256,
    REQUESTS_DEADLINE_NS = 2000000,
    REQUESTS_IGNORED_EACH = 100,
    KEPT_NS = 10000000, /* how long the server keeps what it does not answer, after its deadline */
    KEPT_MAX = 4096
};

/* ---- bounded buffer -------------------------------------------------------------------- */

enum { KIND_PRODUCE = 1, KIND_ITEM, KIND_READY }; /* READY: a consumer wants an item */

typedef struct queue {
    uint64_t at[BUFFER_SIZE + PRODUCERS];
    unsigned first, count;
} queue;

static void queue_push(queue *q, uint64_t value) {
    q->at[(q->first + q->count++) % (BUFFER_SIZE + PRODUCERS)] = value;
}

static uint64_t queue_pop(queue *q) {
    uint64_t value = q->at[q->first];
    q->first = (q->first + 1) % (BUFFER_SIZE + PRODUCERS);
    q->count--;
    return value;
}

/* Holds at most BUFFER_SIZE items, each producer's next one counted from when it may make it. */
typedef struct manager {
    queue items, producers, consumers; /* waiting */
    uint64_t delivered;
} manager;

static void manager_item(opd_ctx *ctx, manager *m, opd_pid producer, uint64_t item) {
    if (m->consumers.count > 0) {
        m->delivered++;
        bench_send(ctx, queue_pop(&m->consumers), KIND_ITEM, item);
    } else {
        queue_push(&m->items, item);
    }
    if (item == ITEMS_EACH) return; /* that producer has finished */
    if (m->items.count < BUFFER_SIZE - PRODUCERS)
        bench_send(ctx, producer, KIND_PRODUCE, 0);
    else
        queue_push(&m->producers, producer);
}

static void manager_ready(opd_ctx *ctx, manager *m, opd_pid consumer) {
    if (m->items.count == 0) {
        queue_push(&m->consumers, consumer);
        bool all = m->delivered == PRODUCERS * ITEMS_EACH && m->consumers.count == CONSUMERS;
        if (all) opd_system_stop(opd_self_system(ctx), OPD_OK);
        return;
    }
    m->delivered++;
    bench_send(ctx, consumer, KIND_ITEM, queue_pop(&m->items));
    if (m->producers.count > 0) bench_send(ctx, queue_pop(&m->producers), KIND_PRODUCE, 0);
}

static opd_err manager_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    uint64_t number = bench_msg_number(msg);
    if (opd_msg_kind(msg) == KIND_ITEM)
        manager_item(ctx, state, opd_msg_from(msg), number);
    else
        manager_ready(ctx, state, opd_msg_from(msg));
    return OPD_OK;
}

typedef struct trader {
    opd_pid manager;
    uint64_t made;
} trader;

static opd_err producer_start(opd_ctx *ctx, void *state, const void *config) {
    trader *t = state;
    t->manager = *(const opd_pid *)config;
    bench_send(ctx, t->manager, KIND_ITEM, ++t->made);
    return OPD_OK;
}

static opd_err producer_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    trader *t = state;
    (void)bench_msg_number(msg);
    bench_send(ctx, t->manager, KIND_ITEM, ++t->made);
    return OPD_OK;
}

static opd_err consumer_start(opd_ctx *ctx, void *state, const void *config) {
    trader *t = state;
    t->manager = *(const opd_pid *)config;
    bench_send(ctx, t->manager, KIND_READY, 0);
    return OPD_OK;
}

static opd_err consumer_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    (void)bench_msg_number(msg);
    bench_send(ctx, ((trader *)state)->manager, KIND_READY, 0);
    return OPD_OK;
}

static const opd_actor_class manager_class = {.name = "manager", .state_size = sizeof(manager),
                                              .mailbox_msgs_max = PRODUCERS + CONSUMERS,
                                              .on_message = manager_message};
static const opd_actor_class maker_class = {.name = "producer", .state_size = sizeof(trader),
                                            .on_start = producer_start,
                                            .on_message = producer_message};
static const opd_actor_class consumer_class = {.name = "consumer", .state_size = sizeof(trader),
                                               .on_start = consumer_start,
                                               .on_message = consumer_message};

static double bounded_buffer(void) {
    double seconds = 0;
    for (int round = 0; round < BUFFER_ROUNDS; round++) {
        bench_system b;
        bench_up(&b, NULL);
        opd_pid manager_pid = bench_spawn(&b, &manager_class, NULL);
        for (int i = 0; i < CONSUMERS; i++) (void)bench_spawn(&b, &consumer_class, &manager_pid);
        for (int i = 0; i < PRODUCERS; i++) (void)bench_spawn(&b, &maker_class, &manager_pid);
        seconds += bench_run_s(&b);
        bench_down(&b);
    }
    return (double)BUFFER_ROUNDS * PRODUCERS * ITEMS_EACH / seconds;
}

/* ---- 1 MB attachments under a byte window ----------------------------------------------- */

typedef struct stream {
    opd_link *link;
    opd_buf *bufs[ATTACHED_WINDOW];
    uint64_t sent;
} stream;

static opd_err stream_send(opd_ctx *ctx, stream *s) {
    opd_msg *msg = NULL;
    opd_mp_writer w;
    opd_slice slice = opd_slice_whole(s->bufs[s->sent % ATTACHED_WINDOW]);
    bench_must(opd_msg_create(opd_self_system(ctx), 1, &msg));
    bench_must(opd_body_begin(msg, 1, 2, OPD_MSG_BODY_INLINE, &w));
    opd_mp_write_u64(&w, s->sent);
    bench_must(opd_body_attach(msg, &w, slice, OPD_DTYPE_U8, 1, &(uint32_t){ATTACHED_BYTES}));
    bench_must(opd_body_end(msg, &w));
    opd_err err = opd_link_send(ctx, s->link, msg);
    if (err != OPD_OK) opd_msg_release(msg);
    return err;
}

static opd_err stream_fill(opd_ctx *ctx, stream *s) {
    for (; s->sent < ATTACHED; s->sent++) {
        opd_err err = stream_send(ctx, s);
        if (err == OPD_ERR_AGAIN) return OPD_OK; /* a CREDIT follows */
        bench_must(err);
    }
    opd_exit(ctx, OPD_OK);
    return OPD_OK;
}

static opd_err stream_start(opd_ctx *ctx, void *state, const void *config) {
    stream *s = state;
    for (int i = 0; i < ATTACHED_WINDOW; i++) {
        bench_must(opd_buf_create(NULL, ATTACHED_BYTES, &s->bufs[i]));
        memset(opd_buf_data(s->bufs[i]), i, ATTACHED_BYTES);
    }
    bench_must(opd_link_open(ctx, *(const opd_pid *)config, 2 * ATTACHED_WINDOW,
                             (uint64_t)ATTACHED_WINDOW * ATTACHED_BYTES, &s->link));
    return stream_fill(ctx, s);
}

static opd_err stream_signal(opd_ctx *ctx, void *state, const opd_signal *signal) {
    return signal->kind == OPD_SIGNAL_CREDIT ? stream_fill(ctx, state) : OPD_OK;
}

static void stream_stop(opd_ctx *ctx, void *state) {
    stream *s = state;
    (void)ctx;
    for (int i = 0; i < ATTACHED_WINDOW; i++) opd_buf_release(s->bufs[i]);
}

static opd_err sink_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    uint64_t *count = state;
    opd_mp_reader r;
    const opd_attachment *a = NULL;
    bench_must(opd_body_read(msg, 1, 2, &r));
    uint64_t number = opd_mp_read_u64(&r);
    bench_must(opd_body_read_attachment(msg, &r, OPD_DTYPE_U8, &a));
    const uint8_t *bytes = opd_slice_data(a->slice);
    if (number != *count || bytes[a->slice.size_bytes - 1] != number % ATTACHED_WINDOW)
        bench_must(opd_fail(OPD_ERR_INTERNAL, "an attachment is not the one that was sent"));
    if (++*count == ATTACHED) opd_exit(ctx, OPD_OK);
    return OPD_OK;
}

static const opd_actor_class sink_class = {.name = "sink", .state_size = sizeof(uint64_t),
                                           .on_message = sink_message};
static const opd_actor_class stream_class = {.name = "stream", .state_size = sizeof(stream),
                                             .on_start = stream_start, .on_signal = stream_signal,
                                             .on_stop = stream_stop};

static double attachments(void) {
    bench_system b;
    bench_up(&b, NULL);
    opd_pid sink = bench_spawn(&b, &sink_class, NULL);
    (void)bench_spawn(&b, &stream_class, &sink);
    double seconds = bench_run_s(&b);
    bench_down(&b);
    return ATTACHED / seconds;
}

/* ---- requests of which 1 % time out ----------------------------------------------------- */

typedef struct server {
    opd_msg *kept[KEPT_MAX]; /* unanswered, oldest first, until their deadline */
    unsigned first, count;
} server;

static void server_let_go(server *s) {
    opd_msg_release(s->kept[s->first]);
    s->first = (s->first + 1) % (KEPT_MAX);
    s->count--;
}

static opd_err server_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    server *s = state;
    uint64_t number = bench_msg_number(msg);
    while (s->count > 0 && opd_msg_deadline_ns(s->kept[s->first]) + KEPT_NS < opd_now_ns(ctx))
        server_let_go(s);
    if (number % REQUESTS_IGNORED_EACH != 0) {
        opd_reply(ctx, msg, bench_msg(opd_self_system(ctx), 2, number));
        return OPD_OK;
    }
    if (s->count == KEPT_MAX) bench_must(opd_fail(OPD_ERR_LIMIT, "too many requests are kept"));
    opd_msg_take(ctx, msg);
    s->kept[(s->first + s->count++) % KEPT_MAX] = msg;
    return OPD_OK;
}

static void server_stop(opd_ctx *ctx, void *state) {
    server *s = state;
    (void)ctx;
    while (s->count > 0) server_let_go(s);
}

typedef struct client {
    opd_pid server;
    uint64_t asked, answered, timed_out;
} client;

static opd_err on_reply(opd_ctx *ctx, void *state, void *arg, opd_err err, opd_msg *reply);

static void client_ask(opd_ctx *ctx, client *c) {
    opd_msg *msg = bench_msg(opd_self_system(ctx), 1, c->asked++);
    bench_must(opd_request(ctx, c->server, msg, opd_now_ns(ctx) + REQUESTS_DEADLINE_NS, on_reply,
                           NULL, NULL));
}

static opd_err on_reply(opd_ctx *ctx, void *state, void *arg, opd_err err, opd_msg *reply) {
    client *c = state;
    (void)arg;
    if (err == OPD_ERR_TIMEOUT) {
        c->timed_out++;
    } else {
        bench_must(err);
        (void)bench_msg_number(reply);
        c->answered++;
    }
    if (c->asked < REQUESTS) client_ask(ctx, c);
    if (c->answered + c->timed_out < REQUESTS) return OPD_OK;
    if (c->timed_out < REQUESTS / REQUESTS_IGNORED_EACH)
        bench_must(opd_fail(OPD_ERR_INTERNAL, "fewer requests timed out than were not answered"));
    opd_stop(opd_self_system(ctx), c->server);
    opd_exit(ctx, OPD_OK);
    return OPD_OK;
}

static opd_err client_start(opd_ctx *ctx, void *state, const void *config) {
    client *c = state;
    c->server = *(const opd_pid *)config;
    for (int i = 0; i < REQUESTS_OPEN; i++) client_ask(ctx, c);
    return OPD_OK;
}

static const opd_actor_class server_class = {.name = "server", .state_size = sizeof(server),
                                             .mailbox_msgs_max = REQUESTS_OPEN,
                                             .on_message = server_message, .on_stop = server_stop};
static const opd_actor_class client_class = {.name = "client", .state_size = sizeof(client),
                                             .requests_max = REQUESTS_OPEN,
                                             .on_start = client_start};

static double requests(void) {
    bench_system b;
    bench_up(&b, NULL);
    opd_pid pid = bench_spawn(&b, &server_class, NULL);
    (void)bench_spawn(&b, &client_class, &pid);
    double seconds = bench_run_s(&b);
    bench_down(&b);
    return REQUESTS / seconds;
}

const bench_case bench_flow_cases[] = {
    {.name = "bounded_buffer", .unit = "items/s", .run = bounded_buffer},
    {.name = "attachments_1mb", .unit = "msgs/s", .run = attachments},
    {.name = "requests_1pct_timeout", .unit = "requests/s", .run = requests},
    {.name = NULL},
};
