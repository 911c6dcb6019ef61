/* test_actor_memory.c - the runtime's own memory stays below what it says it can need, with every
 * pool, table and pending request in use at once. */
#include <stdlib.h>

#include "core/base/check.h"
#include "tests/support/script_actor.h"

enum { MESSAGES = 16, TIMERS = 40, ACTORS = 3, REQUESTS = 10, LINKS = 4 };

static const opd_system_options small = {.actors_max = ACTORS, .messages_max = MESSAGES,
                                         .timers_max = TIMERS, .requests_max = REQUESTS,
                                         .links_max = LINKS};

/* ---- an allocator that knows its bytes ------------------------------------------ */

typedef struct meter {
    opd_alloc alloc;
    uint64_t bytes, bytes_max;
} meter;

enum { HEADER = 16 };

static void *meter_resize(void *context, void *ptr, size_t size_bytes) {
    meter *m = context;
    char *block = ptr == NULL ? NULL : (char *)ptr - HEADER;
    if (block != NULL) m->bytes -= *(size_t *)(void *)block;
    if (size_bytes == 0) {
        free(block);
        return NULL;
    }
    block = realloc(block, size_bytes + HEADER);
    CHECK(block != NULL);
    *(size_t *)(void *)block = size_bytes;
    m->bytes += size_bytes;
    if (m->bytes > m->bytes_max) m->bytes_max = m->bytes;
    return block + HEADER;
}

/* ---- every table full ------------------------------------------------------------------ */

typedef struct full {
    opd_pid to;
    opd_buf *buf;
    opd_link *links[LINKS];
    opd_timer timers[TIMERS];
} full;

static opd_err never(opd_ctx *ctx, void *state, opd_timer *timer) {
    (void)ctx;
    (void)state;
    (void)timer;
    return OPD_OK;
}

static opd_err answered(opd_ctx *ctx, void *state, void *arg, opd_err err, opd_msg *reply) {
    (void)ctx;
    (void)state;
    (void)arg;
    (void)reply;
    return err == OPD_OK ? OPD_ERR_INTERNAL : OPD_OK; /* nobody answers */
}

static void open_links(opd_ctx *ctx, full *f) {
    opd_link *more = NULL;
    for (int i = 0; i < LINKS; i++)
        CHECK_OK(opd_link_open(ctx, f->to, MESSAGES, 1 << 20, &f->links[i]));
    CHECK_ERR(opd_link_open(ctx, f->to, 1, 1, &more), OPD_ERR_LIMIT);
    opd_link_close(f->links[0]); /* nothing is under way on it: its place is free */
    CHECK_OK(opd_link_open(ctx, f->to, MESSAGES, 1 << 20, &f->links[0]));
}

static void start_timers(opd_ctx *ctx, full *f) {
    opd_timer more = {.arg = NULL};
    for (int i = 0; i < TIMERS; i++) {
        opd_timer_init(&f->timers[i], ctx, never);
        CHECK_OK(opd_timer_start_after(&f->timers[i], UINT64_MAX));
    }
    opd_timer_init(&more, ctx, never);
    CHECK_ERR(opd_timer_start_after(&more, 1), OPD_ERR_LIMIT);
}

/* All messages with the largest body and the most attachments; one is a request. */
static void send_all(opd_ctx *ctx, full *f) {
    opd_system *system = opd_self_system(ctx);
    opd_msg *msg = script_msg(system, 2, OPD_MSG_BODY_MAX);
    CHECK_OK(opd_request(ctx, f->to, msg, OPD_NO_DEADLINE, answered, NULL, NULL));
    for (int i = 1; i < MESSAGES; i++) {
        uint32_t n = 8;
        msg = script_msg(system, 1, OPD_MSG_BODY_MAX);
        for (int a = 0; a < OPD_MSG_ATTACHMENTS_MAX; a++)
            CHECK_OK(opd_msg_attach(msg, opd_slice_whole(f->buf), OPD_DTYPE_U8, 1, &n, NULL));
        CHECK_OK(opd_link_send(ctx, f->links[i % LINKS], msg));
    }
    CHECK_ERR(opd_msg_create(system, 1, &msg), OPD_ERR_LIMIT);
}

static opd_err fill_all(opd_ctx *ctx, void *arg) {
    full *f = arg;
    CHECK_OK(opd_buf_create(NULL, 8, &f->buf)); /* payload, not the runtime's */
    open_links(ctx, f);
    start_timers(ctx, f);
    send_all(ctx, f);
    return OPD_OK;
}

/* The only table is taken: this actor cannot ask at all. */
static opd_err cannot_ask(opd_ctx *ctx, void *arg) {
    opd_msg *msg = arg;
    CHECK_ERR(opd_request(ctx, opd_self(ctx), msg, OPD_NO_DEADLINE, answered, NULL, NULL),
              OPD_ERR_LIMIT);
    opd_msg_release(msg);
    return OPD_OK;
}

static void drop_buf(opd_ctx *ctx, void *arg) {
    (void)ctx;
    opd_buf_release(((full *)arg)->buf);
}

TEST(every_table_full_is_within_the_ceiling) {
    static full f;
    static const opd_actor_class asking = {.name = "filler", .requests_max = REQUESTS,
                                           SCRIPT_CALLBACKS};
    opd_test_sys t;
    meter m = {.alloc = {.resize = meter_resize, .context = &m}};
    opd_system_options options = small;
    options.alloc = &m.alloc;
    CHECK_OK(opd_env_uv_create(NULL, &t.env));
    CHECK_OK(opd_system_create(&options, t.env, &t.system));
    f.to = script_spawn(&t, "keeper", (opd_script){0});
    (void)script_spawn_as(&t, &asking, NULL,
                          (opd_script){.start = fill_all, .stop = drop_buf, .arg = &f});
    (void)script_spawn(&t, "third", (opd_script){0});
    opd_pid fourth = 0;
    opd_script none = {0};
    CHECK_ERR(opd_spawn(t.system, &asking, NULL, &none, &fourth), OPD_ERR_LIMIT);
    uint64_t ceiling = opd_system_memory_max(&small) + ACTORS * sizeof(opd_script);
    CHECK(m.bytes_max <= ceiling);
    CHECK(m.bytes_max >= ceiling - ceiling / 3); /* and it is no wild guess */
    opd_system_destroy(t.system);
    CHECK_OK(opd_env_destroy(t.env));
    CHECK_INT(m.bytes, 0);
}

TEST(tables_of_requests_are_bounded_in_all) {
    opd_test_sys t;
    sys_up(&t, &(opd_system_options){.requests_max = 255}); /* the default of a class is 256 */
    opd_msg *msg = script_msg(t.system, 1, 0);
    (void)script_spawn(&t, "asker", (opd_script){.start = cannot_ask, .arg = msg});
    opd_system_kill(t.system, OPD_OK);
    CHECK_OK(opd_system_run(t.system));
    sys_down(&t);
}

TEST(the_default_ceiling_follows_from_the_defaults) {
    opd_system_options spelled = {.actors_max = 256, .messages_max = 8192, .timers_max = 16384,
                                  .requests_max = 16384, .links_max = 1024};
    CHECK(opd_system_memory_max(NULL) == opd_system_memory_max(&spelled));
    spelled.messages_max *= 2;
    CHECK(opd_system_memory_max(NULL) < opd_system_memory_max(&spelled));
}
