/* test_tap.c - a tap sees each kind of record, and traces follow the work (opd/tap.h). */
#include "opd/tap.h"

#include "tests/support/sys_test.h"

enum { KIND_HELLO = 1, KIND_BULK, KIND_ASK, KIND_ANSWER, RECORDS_MAX = 512, TRACE = 77 };

typedef struct seen {
    opd_tap_record records[RECORDS_MAX];
    char names[RECORDS_MAX][32];
    unsigned count;
} seen;

static void see(void *arg, const opd_tap_record *record) {
    seen *s = arg;
    CHECK(s->count < RECORDS_MAX);
    s->records[s->count] = *record;
    (void)snprintf(s->names[s->count], sizeof s->names[0], "%s",
                   record->name == NULL ? "" : record->name);
    s->count++;
}

/* The first record of that kind, or NULL. */
static const opd_tap_record *first_of(const seen *s, opd_tap_kind kind) {
    for (unsigned i = 0; i < s->count; i++)
        if (s->records[i].kind == kind) return &s->records[i];
    return NULL;
}

static unsigned count_of(const seen *s, opd_tap_kind kind) {
    unsigned count = 0;
    for (unsigned i = 0; i < s->count; i++) count += s->records[i].kind == kind;
    return count;
}

/* ---- a pair: `asker` sends one of each to `server`, which then ends ----------------------- */

typedef struct asker {
    opd_pid server;
    opd_lane *lane;
    opd_link *link;
    opd_monitor monitor, stopped;
    opd_job job;
    uint64_t trace_in_reply, trace_in_job;
} asker;

static opd_msg *make(opd_ctx *ctx, uint16_t kind) {
    opd_msg *msg = NULL;
    CHECK_OK(opd_msg_create(opd_self_system(ctx), kind, &msg));
    return msg;
}

/* A body of 3 bytes, an attachment of 16. */
static opd_msg *make_bulk(opd_ctx *ctx) {
    opd_msg *msg = make(ctx, KIND_BULK);
    uint32_t size = 16;
    opd_buf *buf = NULL;
    CHECK_OK(opd_msg_body_set(msg, "abc", 3));
    CHECK_OK(opd_buf_create(NULL, size, &buf));
    CHECK_OK(opd_msg_attach(msg, opd_slice_whole(buf), OPD_DTYPE_U8, 1, &size, NULL));
    opd_buf_release(buf);
    return msg;
}

static opd_err server_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    (void)state;
    if (opd_msg_kind(msg) == KIND_ASK) {
        opd_reply(ctx, msg, make(ctx, KIND_ANSWER));
        opd_exit(ctx, OPD_OK); /* what comes after is dead */
    }
    return OPD_OK;
}

static const opd_actor_class server_class = {.name = "server", .on_message = server_message};

static opd_err on_reply(opd_ctx *ctx, void *state, void *arg, opd_err err, opd_msg *reply) {
    asker *a = state;
    (void)ctx;
    (void)arg;
    CHECK_OK(err);
    a->trace_in_reply = opd_msg_trace(reply);
    return OPD_OK;
}

static opd_err work(opd_job *job) {
    (void)job;
    return OPD_OK;
}

static opd_err worked(opd_ctx *ctx, void *state, opd_job *job) {
    asker *a = state;
    (void)job;
    opd_msg *msg = make(ctx, KIND_HELLO);
    a->trace_in_job = opd_msg_trace(msg);
    opd_msg_release(msg);
    opd_system_stop(opd_self_system(ctx), OPD_OK);
    return OPD_OK;
}

static opd_err asker_start(opd_ctx *ctx, void *state, const void *config) {
    asker *a = state;
    *a = *(const asker *)config;
    opd_monitor_start(ctx, &a->monitor, a->server);
    opd_monitor_start(ctx, &a->stopped, a->server);
    opd_monitor_stop(&a->stopped);
    CHECK_OK(opd_link_open(ctx, a->server, 1, 100, &a->link));
    opd_trace_set(ctx, TRACE);
    CHECK_OK(opd_send(ctx, a->server, make(ctx, KIND_HELLO)));
    CHECK_OK(opd_link_send(ctx, a->link, make_bulk(ctx)));
    opd_msg *refused = make(ctx, KIND_BULK);
    CHECK_ERR(opd_link_send(ctx, a->link, refused), OPD_ERR_AGAIN);
    opd_msg_release(refused);
    CHECK_OK(opd_request(ctx, a->server, make(ctx, KIND_ASK), OPD_NO_DEADLINE, on_reply, NULL,
                         NULL));
    CHECK_OK(opd_send(ctx, a->server, make(ctx, KIND_HELLO)));
    return OPD_OK;
}

static opd_err asker_signal(opd_ctx *ctx, void *state, const opd_signal *signal) {
    asker *a = state;
    if (signal->kind != OPD_SIGNAL_DOWN) return OPD_OK;
    opd_trace_set(ctx, TRACE + 1);
    a->job.run = work;
    a->job.done = worked;
    return opd_job_submit(ctx, a->lane, &a->job);
}

static void asker_stop(opd_ctx *ctx, void *state) {
    const asker *a = state;
    (void)ctx;
    CHECK_INT(a->trace_in_reply, TRACE); /* hello -> request -> handler -> reply */
    CHECK_INT(a->trace_in_job, TRACE + 1);
}

static const opd_actor_class asker_class = {.name = "asker", .state_size = sizeof(asker),
                                            .on_start = asker_start, .on_signal = asker_signal,
                                            .on_stop = asker_stop};

/* Spawns both, runs to the end, and fills s with everything that was told. */
static void run_pair(seen *s, opd_pid *server, opd_pid *asking) {
    opd_test_sys t;
    sys_up(&t, NULL);
    opd_tap tap = {.record = see, .arg = s};
    opd_tap_add(t.system, &tap);
    asker config = {0};
    CHECK_OK(opd_lane_open(t.system, "bench", 1, &config.lane));
    CHECK_OK(opd_spawn(t.system, &server_class, NULL, NULL, server));
    config.server = *server;
    CHECK_OK(opd_spawn(t.system, &asker_class, NULL, &config, asking));
    CHECK_OK(opd_system_run(t.system));
    opd_tap_remove(t.system, &tap);
    sys_down(&t);
}

TEST(tap_sees_each_kind) {
    static seen s;
    opd_pid server = 0, asking = 0;
    run_pair(&s, &server, &asking);
    for (int kind = 0; kind < OPD_TAP_KIND_COUNT; kind++)
        if (first_of(&s, (opd_tap_kind)kind) == NULL)
            opd_test_fail(__FILE__, __LINE__, "no record of kind %s",
                          opd_tap_kind_name((opd_tap_kind)kind));
    CHECK_INT(first_of(&s, OPD_TAP_SPAWNED)->to, server);
    CHECK_STR(s.names[0], "server");
    const opd_tap_record *sent = first_of(&s, OPD_TAP_SENT);
    CHECK(sent->from == asking && sent->to == server && sent->message_kind == KIND_HELLO);
    CHECK(sent->serial != 0 && sent->trace == TRACE);
    const opd_tap_record *refused = first_of(&s, OPD_TAP_REFUSED);
    CHECK(refused->err == OPD_ERR_AGAIN && refused->to == server);
    const opd_tap_record *asked = first_of(&s, OPD_TAP_REQUESTED);
    const opd_tap_record *replied = first_of(&s, OPD_TAP_REPLIED);
    const opd_tap_record *completed = first_of(&s, OPD_TAP_COMPLETED);
    CHECK(asked->correlation != 0 && asked->correlation == replied->correlation);
    CHECK(completed->correlation == asked->correlation && completed->err == OPD_OK);
    CHECK(completed->to == asking && completed->from == server);
    CHECK(first_of(&s, OPD_TAP_CREDIT)->to == asking);
    CHECK(first_of(&s, OPD_TAP_DOWN)->from == server);
    CHECK(first_of(&s, OPD_TAP_DEAD)->message_kind == KIND_HELLO);
    const opd_tap_record *freed = first_of(&s, OPD_TAP_FREED);
    CHECK(freed->to == server && freed->bytes == 16 && freed->link == first_of(&s, OPD_TAP_CREDIT)->link);
    const opd_tap_record *watched = first_of(&s, OPD_TAP_MONITORED);
    const opd_tap_record *left = first_of(&s, OPD_TAP_UNMONITORED);
    CHECK(watched->from == server && watched->to == asking);
    CHECK(watched->monitor == first_of(&s, OPD_TAP_DOWN)->monitor);
    CHECK(left->from == server && left->to == asking && left->monitor != watched->monitor);
    const opd_tap_record *begin = first_of(&s, OPD_TAP_JOB_BEGIN);
    CHECK_STR(s.names[begin - s.records], "bench");
    CHECK(begin->trace == TRACE + 1 && begin->to == asking);
}

TEST(tap_records_balance) {
    static seen s;
    opd_pid server = 0, asking = 0;
    run_pair(&s, &server, &asking);
    CHECK_INT(count_of(&s, OPD_TAP_SPAWNED), 2);
    CHECK_INT(count_of(&s, OPD_TAP_ENDED), 2);
    CHECK_INT(count_of(&s, OPD_TAP_RETURNED),
              count_of(&s, OPD_TAP_HANDLED) + count_of(&s, OPD_TAP_EVENT));
    CHECK_INT(count_of(&s, OPD_TAP_MONITORED), 2);
    CHECK_INT(count_of(&s, OPD_TAP_DOWN), 1);
    CHECK_INT(count_of(&s, OPD_TAP_UNMONITORED), 1);
    CHECK_INT(count_of(&s, OPD_TAP_FREED), 1);
    uint64_t last_ns = 0;
    for (unsigned i = 0; i < s.count; i++) {
        const opd_tap_record *r = &s.records[i];
        if (r->kind == OPD_TAP_JOB_BEGIN || r->kind == OPD_TAP_JOB_END) continue;
        CHECK(r->time_ns >= last_ns);
        last_ns = r->time_ns;
        unsigned released = 0; /* a message that was sent comes back exactly once */
        if (r->kind != OPD_TAP_SENT) continue;
        for (unsigned j = i + 1; j < s.count; j++)
            released += s.records[j].kind == OPD_TAP_RELEASED && s.records[j].serial == r->serial;
        CHECK_INT(released, 1);
    }
}

static const char *hello_name(uint16_t kind) { return kind == KIND_HELLO ? "hello" : "?"; }

TEST(kind_names) {
    opd_test_sys t;
    char room[8];
    sys_up(&t, NULL);
    CHECK_STR(opd_kind_name(t.system, 65535, room, sizeof room), "65535");
    sys_down(&t);
    opd_system_options options = {.kind_name = hello_name};
    sys_up(&t, &options);
    CHECK_STR(opd_kind_name(t.system, KIND_HELLO, room, sizeof room), "hello");
    sys_down(&t);
}

TEST(taps_in_order_and_removed) {
    static seen first, second;
    opd_test_sys t;
    sys_up(&t, NULL);
    opd_tap a = {.record = see, .arg = &first}, b = {.record = see, .arg = &second};
    opd_tap_add(t.system, &a);
    opd_tap_add(t.system, &b);
    opd_msg *msg = NULL;
    CHECK_OK(opd_msg_create(t.system, KIND_HELLO, &msg));
    opd_msg_release(msg);
    opd_tap_remove(t.system, &a);
    opd_tap_remove(t.system, &a); /* once more is fine */
    CHECK_OK(opd_msg_create(t.system, KIND_HELLO, &msg));
    opd_msg_release(msg);
    CHECK_INT(first.count, 1);
    CHECK_INT(second.count, 2);
    CHECK(second.records[1].serial > second.records[0].serial);
    sys_down(&t);
}

/* Each tap sees its kinds, whatever the others want. */
TEST(taps_are_told_only_the_kinds_they_want) {
    static seen none, released, all;
    opd_test_sys t;
    opd_pid pid = 0;
    sys_up(&t, NULL);
    opd_tap n = {.record = see, .arg = &none, .kinds = OPD_TAP_BIT(OPD_TAP_DOWN)};
    opd_tap r = {.record = see, .arg = &released, .kinds = OPD_TAP_BIT(OPD_TAP_RELEASED)};
    opd_tap every = {.record = see, .arg = &all};
    opd_msg *msg = NULL;
    opd_tap_add(t.system, &n);
    opd_tap_add(t.system, &r);
    CHECK_OK(opd_spawn(t.system, &server_class, NULL, NULL, &pid));
    CHECK_OK(opd_msg_create(t.system, KIND_HELLO, &msg));
    opd_msg_release(msg);
    CHECK_INT(released.count, 1);
    CHECK_INT(released.records[0].kind, OPD_TAP_RELEASED);
    opd_tap_add(t.system, &every);
    opd_stop(t.system, pid);
    CHECK_OK(opd_system_run(t.system));
    CHECK(all.count >= 2); /* the end of the actor among them */
    CHECK_INT(released.count, 1);
    CHECK_INT(none.count, 0);
    sys_down(&t);
}
