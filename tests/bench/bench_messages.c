/* bench_messages.c - delivery of small messages: ping-pong, counting, ring, fork-join.
 *
 * The Savina programs of those names. Nobody here does anything but read a number and send one,
 * so the figures are the cost of the runtime itself. ping_pong and counting have the sizes of
 * their CAF twins in caf/. Thread: the loop's.
 */
#include "tests/bench/bench.h"

enum {
    ROUND_TRIPS = 2000000,
    COUNTED = 1000000,
    COUNT_WINDOW = 1024,
    RING_ACTORS = 100,
    RING_HOPS = 2000000,
    FORKED_ACTORS = 60,
    FORKED_EACH = 20000,
    FORK_WINDOW = 64
};

/* ---- ping-pong: two actors, one message under way -------------------------------------- */

/* The pong: sends the number back. */
static opd_err pong_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    uint64_t left = bench_msg_number(msg);
    (void)state;
    bench_send(ctx, opd_msg_from(msg), 2, left);
    if (left == 1) opd_exit(ctx, OPD_OK);
    return OPD_OK;
}

/* The ping: knows the pong, counts down. */
static opd_err ping_start(opd_ctx *ctx, void *state, const void *config) {
    opd_pid pong = *(opd_pid *)state = *(const opd_pid *)config;
    bench_send(ctx, pong, 1, ROUND_TRIPS);
    return OPD_OK;
}

static opd_err ping_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    uint64_t left = bench_msg_number(msg);
    if (left == 1)
        opd_exit(ctx, OPD_OK);
    else
        bench_send(ctx, *(opd_pid *)state, 1, left - 1);
    return OPD_OK;
}

static const opd_actor_class pong_class = {.name = "pong", .on_message = pong_message};
static const opd_actor_class ping_class = {.name = "ping", .state_size = sizeof(opd_pid),
                                           .on_start = ping_start, .on_message = ping_message};

static double ping_pong(void) {
    bench_system b;
    bench_up(&b, NULL);
    opd_pid pong = bench_spawn(&b, &pong_class, NULL);
    (void)bench_spawn(&b, &ping_class, &pong);
    double seconds = bench_run_s(&b);
    bench_down(&b);
    return ROUND_TRIPS / seconds;
}

/* ---- counting: one producer, one consumer, a link of 1,024 messages ---------------------- */

typedef struct producer {
    opd_link *link;
    uint64_t sent;
} producer;

/* Sends numbers until `count` were sent (true) or the link has no credit left. */
static bool produce(opd_ctx *ctx, producer *p, uint64_t count) {
    for (; p->sent < count; p->sent++) {
        opd_msg *msg = bench_msg(opd_self_system(ctx), 1, p->sent + 1);
        opd_err err = opd_link_send(ctx, p->link, msg);
        if (err == OPD_OK) continue;
        opd_msg_release(msg);
        if (err != OPD_ERR_AGAIN) bench_must(err);
        return false; /* a CREDIT follows */
    }
    return true;
}

static opd_err producer_start(opd_ctx *ctx, void *state, const void *config) {
    producer *p = state;
    bench_must(opd_link_open(ctx, *(const opd_pid *)config, COUNT_WINDOW, UINT32_MAX, &p->link));
    (void)produce(ctx, p, COUNTED);
    return OPD_OK;
}

static opd_err producer_signal(opd_ctx *ctx, void *state, const opd_signal *signal) {
    if (signal->kind == OPD_SIGNAL_CREDIT && produce(ctx, state, COUNTED)) opd_exit(ctx, OPD_OK);
    return OPD_OK;
}

static opd_err counter_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    uint64_t *count = state;
    if (bench_msg_number(msg) != ++*count)
        bench_must(opd_fail(OPD_ERR_INTERNAL, "a message came out of order"));
    if (*count == COUNTED) opd_exit(ctx, OPD_OK);
    return OPD_OK;
}

static const opd_actor_class counter_class = {.name = "counter", .state_size = sizeof(uint64_t),
                                              .on_message = counter_message};
static const opd_actor_class producer_class = {.name = "producer", .state_size = sizeof(producer),
                                               .on_start = producer_start,
                                               .on_signal = producer_signal};

static double counting(void) {
    bench_system b;
    bench_up(&b, NULL);
    opd_pid counter = bench_spawn(&b, &counter_class, NULL);
    double began_s = bench_now_s(); /* the producer fills its window when it starts */
    (void)bench_spawn(&b, &producer_class, &counter);
    (void)bench_run_s(&b);
    double seconds = bench_now_s() - began_s;
    bench_down(&b);
    return COUNTED / seconds;
}

/* ---- ring: one message goes round 100 actors -------------------------------------------- */

enum { KIND_HOP = 1, KIND_CLOSE /* to the first actor: who is the last */ };

static opd_err ring_start(opd_ctx *ctx, void *state, const void *config) {
    (void)ctx;
    if (config != NULL) *(opd_pid *)state = *(const opd_pid *)config;
    return OPD_OK;
}

static opd_err ring_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    opd_pid *next = state;
    uint64_t left = bench_msg_number(msg);
    if (opd_msg_kind(msg) == KIND_CLOSE) {
        *next = left;
        left = RING_HOPS;
    }
    if (left > 0) bench_send(ctx, *next, KIND_HOP, left - 1);
    if (left < RING_ACTORS) opd_exit(ctx, OPD_OK); /* the last lap ends everybody */
    return OPD_OK;
}

static const opd_actor_class ring_class = {.name = "ring", .state_size = sizeof(opd_pid),
                                           .on_start = ring_start, .on_message = ring_message};

static double ring(void) {
    bench_system b;
    bench_up(&b, NULL);
    opd_pid first = bench_spawn(&b, &ring_class, NULL), last = first;
    for (int i = 1; i < RING_ACTORS; i++) last = bench_spawn(&b, &ring_class, &last);
    bench_must(opd_post(b.system, first, bench_msg(b.system, KIND_CLOSE, last)));
    double seconds = bench_run_s(&b);
    bench_down(&b);
    return RING_HOPS / seconds;
}

/* ---- fork-join: one actor feeds 60, over a link to each ---------------------------------- */

typedef struct forker {
    producer out[FORKED_ACTORS];
    int finished;
} forker;

static opd_err worker_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    (void)state;
    if (bench_msg_number(msg) == FORKED_EACH) opd_exit(ctx, OPD_OK);
    return OPD_OK;
}

static opd_err forker_start(opd_ctx *ctx, void *state, const void *config) {
    forker *f = state;
    const opd_pid *workers = config;
    for (int i = 0; i < FORKED_ACTORS; i++) {
        bench_must(opd_link_open(ctx, workers[i], FORK_WINDOW, UINT32_MAX, &f->out[i].link));
        (void)produce(ctx, &f->out[i], FORKED_EACH);
    }
    return OPD_OK;
}

static opd_err forker_signal(opd_ctx *ctx, void *state, const opd_signal *signal) {
    forker *f = state;
    for (int i = 0; i < FORKED_ACTORS; i++)
        if (f->out[i].link == signal->link && produce(ctx, &f->out[i], FORKED_EACH)) f->finished++;
    if (f->finished == FORKED_ACTORS) opd_exit(ctx, OPD_OK);
    return OPD_OK;
}

static const opd_actor_class worker_class = {.name = "worker", .on_message = worker_message};
static const opd_actor_class forker_class = {.name = "forker", .state_size = sizeof(forker),
                                             .on_start = forker_start,
                                             .on_signal = forker_signal};

static double fork_join(void) {
    bench_system b;
    opd_pid workers[FORKED_ACTORS];
    bench_up(&b, NULL);
    for (int i = 0; i < FORKED_ACTORS; i++) workers[i] = bench_spawn(&b, &worker_class, NULL);
    (void)bench_spawn(&b, &forker_class, workers);
    double seconds = bench_run_s(&b);
    bench_down(&b);
    return (double)FORKED_ACTORS * FORKED_EACH / seconds;
}

const bench_case bench_message_cases[] = {
    {.name = "ping_pong", .unit = "round_trips/s", .run = ping_pong},
    {.name = "counting", .unit = "msgs/s", .run = counting},
    {.name = "ring", .unit = "hops/s", .run = ring},
    {.name = "fork_join", .unit = "msgs/s", .run = fork_join},
    {.name = NULL},
};
