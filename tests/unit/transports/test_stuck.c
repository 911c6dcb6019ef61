/* test_stuck.c - a callback that is no actor's and holds the loop is named by the watchdog: of a
 * transport, by the actor that opened it, and of the loop itself. */
#include <pthread.h>
#include <time.h>

#include "core/actor/transport.h"
#include "core/base/check.h"
#include "core/env/env.h"
#include "tests/support/script_actor.h"
#include "transports/tcp.h"

enum { LIMIT_MS = 50 };

/* What was logged, by whatever thread. */
static struct {
    pthread_mutex_t lock;
    opd_log_memory memory;
} said = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void say(void *arg, opd_log_level level, const char *text) {
    (void)arg;
    (void)pthread_mutex_lock(&said.lock);
    log_memory_sink(&said.memory, level, text);
    (void)pthread_mutex_unlock(&said.lock);
}

static bool has_said(const char *part) {
    (void)pthread_mutex_lock(&said.lock);
    bool found = strstr(said.memory.text, part) != NULL;
    (void)pthread_mutex_unlock(&said.lock);
    return found;
}

static void stick(void) {
    while (!has_said("is stuck")) (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

typedef struct scene {
    opd_test_sys t;
    opd_watchdog *dog;
    opd_tcp_listener *listener;
    opd_tcp *client, *accepted;
    opd_tcp_timer *first, *second;
    opd_event event;
    bool sent, over;
} scene;

static void up(scene *s) {
    *s = (scene){.over = false};
    said.memory = (opd_log_memory){.lines = 0};
    opd_log_sink_set(say, NULL);
    sys_up(&s->t, NULL);
    CHECK_OK(opd_watchdog_start(s->t.env, s->t.system, &s->t.memory.alloc, LIMIT_MS, &s->dog));
}

/* Runs until the actors have ended; transports must be closing by then. */
static void run(scene *s) {
    CHECK_OK(opd_system_run(s->t.system));
    CHECK(s->over);
    CHECK(opd_transport_owner(s->t.env) == OPD_PID_NOBODY);
    opd_watchdog_stop(s->dog);
    sys_down(&s->t);
    opd_log_sink_set(NULL, NULL);
}

static void finish(scene *s) {
    s->over = true;
    opd_system_stop(s->t.system, OPD_OK);
}

/* ---- timers ---------------------------------------------------------------------------- */

static void second_fires(void *arg) {
    scene *s = arg;
    stick();
    opd_tcp_timer_close(s->first, NULL, NULL);
    opd_tcp_timer_close(s->second, NULL, NULL);
    finish(s);
}

/* What a transport's callback opens belongs to the same actor. */
static void first_fires(void *arg) {
    scene *s = arg;
    CHECK_OK(opd_tcp_timer_create(s->t.env, &s->t.memory.alloc, second_fires, s, &s->second));
    opd_tcp_timer_set(s->second, 0);
}

static opd_err open_timer(opd_ctx *ctx, void *arg) {
    scene *s = arg;
    CHECK(opd_transport_owner(s->t.env) == opd_self(ctx));
    CHECK_OK(opd_tcp_timer_create(s->t.env, &s->t.memory.alloc, first_fires, s, &s->first));
    opd_tcp_timer_set(s->first, 0);
    return OPD_OK;
}

TEST(a_stuck_callback_of_a_transport_names_the_actor_that_opened_it) {
    scene s;
    up(&s);
    (void)script_spawn(&s.t, "other", (opd_script){0});
    (void)script_spawn(&s.t, "opener", (opd_script){.start = open_timer, .arg = &s});
    run(&s);
    CHECK(has_said("error: opener is stuck: its handler of network input and output runs for "));
}

static opd_err open_timer_and_end(opd_ctx *ctx, void *arg) {
    scene *s = arg;
    OPD_TRY(open_timer(ctx, arg));
    opd_tcp_timer_set(s->first, opd_now_ns(ctx) + 20 * 1000000); /* when the actor is gone */
    opd_exit(ctx, OPD_OK);
    return OPD_OK;
}

TEST(a_transport_of_an_actor_that_has_ended_is_the_loops) {
    scene s;
    up(&s);
    (void)script_spawn(&s.t, "other", (opd_script){0});
    (void)script_spawn(&s.t, "opener", (opd_script){.start = open_timer_and_end, .arg = &s});
    run(&s);
    CHECK(has_said("error: the loop is stuck: its handler of network input and output runs for "));
}

/* ---- streams --------------------------------------------------------------------------- */

static void client_open(void *arg, opd_err err) {
    CHECK_OK(err);
    opd_tcp_flush(((scene *)arg)->client);
}

static void client_pull(void *arg, opd_iobatch *batch) {
    scene *s = arg;
    if (!s->sent) (void)opd_iobatch_stage(batch, "x", 1);
    s->sent = true;
}

static void no_bytes(void *arg, const uint8_t *bytes, size_t size_bytes) {
    (void)arg;
    (void)bytes;
    (void)size_bytes;
}

static void no_end(void *arg, opd_err err) {
    (void)arg;
    (void)err;
}

static void no_pull(void *arg, opd_iobatch *batch) {
    (void)arg;
    (void)batch;
}

static void no_close(void *arg) { (void)arg; }

static void stick_on_bytes(void *arg, const uint8_t *bytes, size_t size_bytes) {
    scene *s = arg;
    CHECK(size_bytes == 1 && bytes[0] == 'x');
    stick();
    opd_tcp_close(s->client);
    opd_tcp_close(s->accepted);
    opd_tcp_listener_close(s->listener, NULL, NULL);
    finish(s);
}

static void accept_it(void *arg, opd_tcp *tcp) {
    static const opd_tcp_events events = {.on_bytes = stick_on_bytes, .on_pull = no_pull,
                                          .on_end = no_end, .on_closed = no_close};
    scene *s = arg;
    s->accepted = tcp;
    opd_tcp_start(tcp, &events, s);
}

static opd_err listen_here(opd_ctx *ctx, void *arg) {
    scene *s = arg;
    (void)ctx;
    return opd_tcp_listen(s->t.env, &s->t.memory.alloc, "127.0.0.1", 0, accept_it, s, &s->listener);
}

static opd_err connect_there(opd_ctx *ctx, void *arg) {
    static const opd_tcp_events events = {.on_open = client_open, .on_bytes = no_bytes,
                                          .on_pull = client_pull, .on_end = no_end,
                                          .on_closed = no_close};
    scene *s = arg;
    (void)ctx;
    return opd_tcp_connect(s->t.env, &s->t.memory.alloc, "127.0.0.1",
                           opd_tcp_listener_port(s->listener), &events, s, &s->client);
}

TEST(a_stuck_callback_of_an_accepted_stream_names_who_listens) {
    scene s;
    up(&s);
    (void)script_spawn(&s.t, "server", (opd_script){.start = listen_here, .arg = &s});
    (void)script_spawn(&s.t, "client", (opd_script){.start = connect_there, .arg = &s});
    run(&s);
    CHECK(has_said("error: server is stuck: its handler of network input and output runs for "));
}

/* ---- the loop -------------------------------------------------------------------------- */

static opd_err stick_in_event(opd_ctx *ctx, void *state, opd_event *event) {
    scene *s = event->arg;
    CHECK(ctx == NULL && state == NULL);
    stick();
    finish(s);
    return OPD_OK;
}

TEST(a_stuck_event_of_nobody_is_the_loops) {
    scene s;
    up(&s);
    (void)script_spawn(&s.t, "other", (opd_script){0});
    s.event = (opd_event){.deliver = stick_in_event, .arg = &s};
    opd_event_post(s.t.system, &s.event);
    run(&s);
    CHECK(has_said("error: the loop is stuck: its handler of an event runs for "));
}
