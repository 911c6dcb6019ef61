/* test_endpoint.c - the endpoint of an actor: what it lends to the wire, and what it keeps for later calls. */
#include "actors/teacher/endpoint.h"
#include "core/base/check.h"
#include "tests/support/sys_test.h"
#include "tests/unit/transports/h2_peer.h"
#include "tests/unit/transports/loop.h"

enum { BODY_BYTES = 8 << 20, SMALL = 40, ROUNDS = 50 };

typedef struct plan {
    opd_test_sys t;
    char url[64];
    int answered, cancelled, large;
    bool upload; /* 40 calls and a large one are given up midway; else 50 calls one after another */
    long live_first, live_last; /* blocks after the first and the last answer */
} plan;

typedef struct asker {
    plan *plan;
    opd_endpoint *endpoint;
    opd_endpoint_call *calls[SMALL + 1];
    opd_timer tick;
} asker;

static h2_peer peer;

static opd_err send_call(asker *a, size_t body_bytes, opd_endpoint_call **out_call);

static opd_err on_answer(opd_ctx *ctx, void *state, opd_endpoint_call *call) {
    asker *a = state;
    plan *p = a->plan;
    p->answered++;
    p->cancelled += call->http.err == OPD_ERR_CANCELLED;
    if (p->upload) return OPD_OK;
    CHECK_STR(call->http.error, "");
    CHECK_INT(call->http.answer.size, 5);
    if (p->answered == 10) p->live_first = p->t.memory.live;
    p->live_last = p->t.memory.live;
    if (p->answered < ROUNDS) return send_call(a, 100, &a->calls[0]);
    opd_exit(ctx, OPD_OK);
    return OPD_OK;
}

static opd_err send_call(asker *a, size_t body_bytes, opd_endpoint_call **out_call) {
    opd_endpoint_call *call;
    OPD_TRY(opd_endpoint_call_create(a->endpoint, &call));
    for (size_t i = 0; i < body_bytes / 100; i++)
        opd_str_printf(&call->body, "%0100zu", i);
    call->http.path = "/x";
    call->answered = on_answer;
    *out_call = call;
    return opd_endpoint_send(call);
}

/* Once all have arrived at the server they are given up: the resets' burst is used up by the small
 * ones, so that the large upload goes on after its call is gone. */
static opd_err on_tick(opd_ctx *ctx, void *state, opd_timer *timer) {
    asker *a = state;
    plan *p = a->plan;
    if (p->answered == SMALL + 1) {
        if (++p->large < 30) return opd_timer_start_after(timer, 10000000);
        opd_exit(ctx, OPD_OK);
        return OPD_OK;
    }
    if (p->answered == 0 && peer.begun == SMALL + 1)
        for (int i = 0; i <= SMALL; i++) opd_endpoint_cancel(a->calls[i]);
    return opd_timer_start_after(timer, 10000000);
}

static opd_err asker_start(opd_ctx *ctx, void *state, const void *config) {
    asker *a = state;
    a->plan = *(plan *const *)config;
    opd_endpoint_options options = {.alloc = &a->plan->t.memory.alloc, .env = a->plan->t.env,
                                    .url = a->plan->url, .max_inflight = SMALL + 1,
                                    .connect_timeout_ms = 2000, .max_body_bytes = 2 * BODY_BYTES,
                                    .max_answer_bytes = 1000};
    OPD_TRY(opd_endpoint_open(ctx, &options, &a->endpoint));
    if (!a->plan->upload) return send_call(a, 100, &a->calls[0]);
    for (int i = 0; i < SMALL; i++) OPD_TRY(send_call(a, 100, &a->calls[i]));
    OPD_TRY(send_call(a, BODY_BYTES, &a->calls[SMALL]));
    opd_timer_init(&a->tick, ctx, on_tick);
    return opd_timer_start_after(&a->tick, 10000000);
}

static const opd_actor_class asker_class = {.name = "asker", .state_size = sizeof(asker),
                                            .on_start = asker_start};

static void run(plan *p, opd_slice answer) {
    plan *config = p;
    opd_pid pid;
    sys_up(&p->t, NULL);
    loop_env = p->t.env;
    h2_peer_open(&peer, 100);
    peer.prompt = !p->upload;
    peer.answer = answer;
    snprintf(p->url, sizeof p->url, "http://127.0.0.1:%u", (unsigned)h2_peer_port(&peer));
    CHECK_OK(opd_spawn(p->t.system, &asker_class, NULL, &config, &pid));
    CHECK_OK(opd_system_run(p->t.system));
    h2_peer_close(&peer);
    sys_down(&p->t);
}

/* The bytes of an upload live as long as the wire needs them, not as long as the call. */
TEST(an_upload_outlives_its_call) {
    plan p = {.upload = true};
    run(&p, (opd_slice){0});
    CHECK_INT(p.cancelled, SMALL + 1);
}

/* A call lends its memory to the next one: nothing grows. */
TEST(calls_use_their_memory_again) {
    plan p = {0};
    opd_buf *answer;
    CHECK_OK(opd_buf_create(NULL, 5, &answer));
    memcpy(opd_buf_data(answer), "12345", 5);
    run(&p, opd_slice_whole(answer));
    opd_buf_release(answer);
    CHECK_INT(p.answered, ROUNDS);
    CHECK_INT(p.live_last, p.live_first);
}
