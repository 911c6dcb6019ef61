/* test_tcp_sim.c - the simulated network: order, delay, windows, cuts, losses, determinism. */
#include "core/base/rng.h"
#include "opd/sim.h"
#include "tests/support/test.h"
#include "transports/http.h"
#include "transports/tcp_sim.h"

static const uint64_t MS = 1000000, S = 1000000000;

typedef struct world {
    opd_sim *sim;
    opd_net_sim *net;
    opd_env *a, *b; /* two hosts */
} world;

static void world_up(world *w, uint64_t seed, const opd_sim_options *so,
                     const opd_net_sim_options *no) {
    CHECK_OK(opd_sim_create(seed, so, &w->sim));
    CHECK_OK(opd_net_sim_create(w->sim, no, &w->net));
    CHECK_OK(opd_sim_env(w->sim, "a", &w->a));
    CHECK_OK(opd_sim_env(w->sim, "b", &w->b));
    CHECK_OK(opd_net_sim_join(w->net, w->a));
    CHECK_OK(opd_net_sim_join(w->net, w->b));
}

static void world_down(world *w) {
    CHECK_OK(opd_env_destroy(w->a));
    CHECK_OK(opd_env_destroy(w->b));
    CHECK_INT(opd_net_sim_stats_get(w->net).open, 0);
    opd_net_sim_destroy(w->net);
    opd_sim_destroy(w->sim);
}

/* One end of a stream: sends `to_send` bytes of a pattern, checks what it receives. */
typedef struct end_of {
    world *w;
    opd_tcp *tcp;
    opd_err open_err, end_err;
    size_t to_send, sent, received;
    size_t chunk_max; /* largest chunk received */
    int opened, ended, closed, pulls;
    bool fin;    /* says FIN after its bytes */
    bool hangs_up; /* closes when it is told the end */
    uint64_t last_ns, opened_ns;
} end_of;

static uint8_t pattern(size_t i) { return (uint8_t)(opd_rng_at(1, i, 0, 0)); }

static void end_open(void *arg, opd_err err) {
    end_of *e = arg;
    e->opened++;
    e->open_err = err;
    e->opened_ns = opd_sim_now_ns(e->w->sim);
    if (err != OPD_OK) return;
    opd_tcp_flush(e->tcp);
    if (e->fin) opd_tcp_finish(e->tcp);
}

static void end_bytes(void *arg, const uint8_t *bytes, size_t size) {
    end_of *e = arg;
    for (size_t i = 0; i < size; i++)
        if (bytes[i] != pattern(e->received + i))
            opd_test_fail(__FILE__, __LINE__, "byte %zu is wrong", e->received + i);
    e->received += size;
    if (size > e->chunk_max) e->chunk_max = size;
    e->last_ns = opd_sim_now_ns(e->w->sim);
}

static void end_pull(void *arg, opd_iobatch *batch) {
    end_of *e = arg;
    e->pulls++;
    while (e->sent < e->to_send) {
        uint8_t byte = pattern(e->sent);
        if (opd_iobatch_stage(batch, &byte, 1) == 0) return;
        e->sent++;
    }
}

static void end_end(void *arg, opd_err err) {
    end_of *e = arg;
    e->ended++;
    e->end_err = err;
    if (e->hangs_up) opd_tcp_close(e->tcp);
}

static void end_closed(void *arg) { ((end_of *)arg)->closed++; }

static const opd_tcp_events end_events = {end_open, end_bytes, end_pull, end_end, end_closed};

/* A listener on b, port 80, that gives each stream the next of `servers`. */
typedef struct host_of {
    opd_tcp_listener *listener;
    end_of *servers;
    int count, closed;
} host_of;

static void host_accepted(void *arg, opd_tcp *tcp) {
    host_of *h = arg;
    end_of *e = &h->servers[h->count++];
    e->tcp = tcp;
    opd_tcp_start(tcp, &end_events, e);
    opd_tcp_flush(tcp);
    if (e->fin) opd_tcp_finish(tcp);
}

static void host_up(world *w, host_of *h, end_of *servers) {
    *h = (host_of){.servers = servers};
    CHECK_OK(opd_tcp_listen(w->b, NULL, "0.0.0.0", 80, host_accepted, h, &h->listener));
    CHECK_INT(opd_tcp_listener_port(h->listener), 80);
}

static void count_closed(void *arg) { ++*(int *)arg; }

static void host_down(world *w, host_of *h) {
    opd_tcp_listener_close(h->listener, count_closed, &h->closed);
    CHECK_INT(h->closed, 0);
    CHECK_OK(opd_sim_run(w->sim, opd_sim_now_ns(w->sim) + S, NULL, NULL));
    CHECK_INT(h->closed, 1);
}

static void dial(world *w, end_of *e) {
    e->w = w;
    CHECK_OK(opd_tcp_connect(w->a, NULL, "b", 80, &end_events, e, &e->tcp));
    CHECK_INT(e->opened, 0);
}

static void run_for(world *w, uint64_t ns) {
    CHECK_OK(opd_sim_run(w->sim, opd_sim_now_ns(w->sim) + ns, NULL, NULL));
}

static void hang_up(world *w, end_of *e) {
    opd_tcp_close(e->tcp);
    opd_tcp_close(e->tcp);
    CHECK_INT(e->closed, 0);
    run_for(w, MS);
    CHECK_INT(e->closed, 1);
}

TEST(bytes_arrive_in_order_both_ways) {
    for (uint64_t seed = 0; seed < 20; seed++) {
        world w;
        host_of h;
        world_up(&w, seed, NULL, NULL);
        end_of client = {.to_send = 100000}, server = {.w = &w, .to_send = 70000};
        host_up(&w, &h, &server);
        dial(&w, &client);
        run_for(&w, 10 * S);
        CHECK_INT(server.received, 100000);
        CHECK_INT(client.received, 70000);
        CHECK(client.chunk_max <= 4096 && client.chunk_max > 1000);
        CHECK_INT(client.opened, 1);
        CHECK(client.opened_ns >= S + 100000); /* two ways */
        opd_tcp_finish(client.tcp);
        run_for(&w, S);
        CHECK_INT(client.ended, 0);
        CHECK_INT(server.ended, 1);
        CHECK_INT(server.end_err, OPD_ERR_CLOSED);
        hang_up(&w, &client);
        hang_up(&w, &server);
        host_down(&w, &h);
        world_down(&w);
    }
}

/* The order of arrival differs from that of sending, between connections. */
TEST(connections_overtake_one_another) {
    unsigned overtaken = 0;
    for (uint64_t seed = 0; seed < 20; seed++) {
        world w;
        host_of h;
        world_up(&w, seed, NULL, NULL);
        end_of clients[2] = {{.to_send = 1000}, {.to_send = 1000}};
        end_of servers[2] = {{.w = &w}, {.w = &w}};
        host_up(&w, &h, servers);
        for (int i = 0; i < 2; i++) dial(&w, &clients[i]);
        run_for(&w, S);
        overtaken += clients[1].opened_ns < clients[0].opened_ns;
        for (int i = 0; i < 2; i++) {
            CHECK_INT(servers[i].received, 1000);
            hang_up(&w, &clients[i]);
            hang_up(&w, &servers[i]);
        }
        host_down(&w, &h);
        world_down(&w);
    }
    CHECK(overtaken > 2 && overtaken < 18);
}

/* A writer whose peer does not hear it is held up by one window and one batch. */
TEST(a_window_bounds_what_is_under_way) {
    world w;
    host_of h;
    world_up(&w, 3, NULL, &(opd_net_sim_options){.window_bytes = 1000});
    end_of client = {.to_send = 200000}, server = {.w = &w};
    host_up(&w, &h, &server);
    dial(&w, &client);
    run_for(&w, 20 * MS);
    CHECK_OK(opd_net_sim_cut(w.net, "a", "b", UINT64_MAX));
    run_for(&w, 5 * S);
    size_t received = server.received;
    CHECK(client.sent < 200000);
    CHECK(client.sent - received <= 1000 + OPD_IOBATCH_STAGE_BYTES);
    CHECK(opd_tcp_stalled_ns(client.tcp) > 4 * S);
    opd_net_sim_heal(w.net, "b", "a");
    run_for(&w, 20 * S);
    CHECK_INT(server.received, 200000);
    CHECK_INT(opd_tcp_stalled_ns(client.tcp), 0);
    hang_up(&w, &client);
    hang_up(&w, &server);
    host_down(&w, &h);
    world_down(&w);
}

TEST(connects_fail_with_a_reason) {
    world w;
    world_up(&w, 4, NULL, NULL);
    end_of e[3] = {{.w = &w}, {.w = &w}, {.w = &w}};
    CHECK_OK(opd_tcp_connect(w.a, NULL, "b", 81, &end_events, &e[0], &e[0].tcp));
    CHECK_OK(opd_tcp_connect(w.a, NULL, "nowhere", 80, &end_events, &e[1], &e[1].tcp));
    CHECK_OK(opd_tcp_connect(w.a, NULL, "127.0.0.1", 80, &end_events, &e[2], &e[2].tcp));
    run_for(&w, S);
    CHECK_INT(e[0].open_err, OPD_ERR_REFUSED);
    CHECK_INT(e[1].open_err, OPD_ERR_NOT_FOUND);
    CHECK_INT(e[2].open_err, OPD_ERR_REFUSED); /* itself, which does not listen */
    CHECK_INT(opd_net_sim_stats_get(w.net).refused, 3);
    for (int i = 0; i < 3; i++) hang_up(&w, &e[i]);
    world_down(&w);
}

TEST(a_cut_delays_or_fails_a_connect) {
    world w;
    host_of h;
    world_up(&w, 5, NULL, NULL);
    end_of clients[2] = {{.to_send = 10}, {.to_send = 10}}, server = {.w = &w};
    host_up(&w, &h, &server);
    CHECK_OK(opd_net_sim_cut(w.net, "b", "a", 2 * S));
    dial(&w, &clients[0]);
    run_for(&w, S);
    CHECK_INT(clients[0].opened, 0);
    run_for(&w, 2 * S);
    CHECK_INT(clients[0].opened, 1);
    CHECK_OK(clients[0].open_err);
    CHECK_OK(opd_net_sim_cut(w.net, "a", "b", 20 * S));
    dial(&w, &clients[1]);
    run_for(&w, 5 * S);
    CHECK_INT(clients[1].open_err, OPD_ERR_REFUSED);
    CHECK_INT(clients[0].ended, 0); /* what stands stays */
    for (int i = 0; i < 2; i++) hang_up(&w, &clients[i]);
    opd_net_sim_heal(w.net, "a", "b");
    run_for(&w, S);
    CHECK_INT(server.ended, 1);
    hang_up(&w, &server);
    host_down(&w, &h);
    world_down(&w);
}

/* A name stands for hosts: a dead one, or one that is cut off, leaves it to the next; looked up anew. */
TEST(names_stand_for_hosts) {
    static const char *const dead[] = {"nowhere", "a", "b"}, *const slow[] = {"c", "b"};
    world w;
    host_of h;
    opd_env *c;
    world_up(&w, 11, NULL, NULL);
    CHECK_OK(opd_sim_env(w.sim, "c", &c));
    CHECK_OK(opd_net_sim_join(w.net, c));
    end_of e[4] = {{.to_send = 10}, {.to_send = 10}, {.to_send = 0}, {.to_send = 10}};
    end_of servers[4] = {{.w = &w}, {.w = &w}, {.w = &w}, {.w = &w}}, other = {.w = &w};
    host_up(&w, &h, servers);
    host_of hc = {.servers = &other};
    CHECK_OK(opd_tcp_listen(c, NULL, "0.0.0.0", 80, host_accepted, &hc, &hc.listener));
    for (int i = 0; i < 4; i++) e[i].w = &w;
    CHECK_OK(opd_net_sim_name(w.net, "teacher", dead, 3));
    CHECK_OK(opd_tcp_connect(w.a, NULL, "teacher", 80, &end_events, &e[0], &e[0].tcp));
    run_for(&w, S);
    CHECK_OK(e[0].open_err);
    CHECK_INT(servers[0].received, 10);
    CHECK_OK(opd_net_sim_name(w.net, "teacher", slow, 2));
    CHECK_OK(opd_net_sim_cut(w.net, "a", "c", UINT64_MAX));
    uint64_t begun_ns = opd_sim_now_ns(w.sim);
    CHECK_OK(opd_tcp_connect(w.a, NULL, "teacher", 80, &end_events, &e[1], &e[1].tcp));
    run_for(&w, S);
    CHECK_OK(e[1].open_err);
    CHECK_INT(servers[1].received, 10);
    CHECK(e[1].opened_ns - begun_ns >= 250 * MS && e[1].opened_ns - begun_ns < 300 * MS);
    CHECK_OK(opd_net_sim_name(w.net, "teacher", NULL, 0));
    CHECK_OK(opd_tcp_connect(w.a, NULL, "teacher", 80, &end_events, &e[2], &e[2].tcp));
    run_for(&w, S);
    CHECK_INT(e[2].open_err, OPD_ERR_NOT_FOUND);
    CHECK_OK(opd_net_sim_name(w.net, "teacher", slow, 2));
    CHECK_OK(opd_tcp_connect(w.a, NULL, "teacher", 80, &end_events, &e[3], &e[3].tcp));
    opd_tcp_close(e[3].tcp); /* while it is looked up */
    run_for(&w, S);
    CHECK_INT(e[3].opened, 0);
    CHECK_INT(e[3].closed, 1);
    for (int i = 0; i < 3; i++) hang_up(&w, &e[i]);
    run_for(&w, S);
    for (int i = 0; i < 2; i++) hang_up(&w, &servers[i]);
    CHECK_INT(h.count, 2);
    opd_tcp_listener_close(hc.listener, NULL, NULL);
    host_down(&w, &h);
    CHECK_OK(opd_env_destroy(c));
    world_down(&w);
}

TEST(lost_connections_are_told_at_both_ends) {
    world w;
    host_of h;
    world_up(&w, 6, NULL, NULL);
    end_of client = {.to_send = 1000000}, server = {.w = &w};
    host_up(&w, &h, &server);
    dial(&w, &client);
    run_for(&w, 30 * MS);
    opd_net_sim_reset(w.net, "b", "a");
    run_for(&w, S);
    CHECK_INT(client.end_err, OPD_ERR_RESET);
    CHECK_INT(server.end_err, OPD_ERR_RESET);
    CHECK_INT(client.ended + server.ended, 2);
    CHECK(server.received < 1000000);
    CHECK_INT(opd_net_sim_stats_get(w.net).resets, 1);
    hang_up(&w, &client);
    hang_up(&w, &server);
    host_down(&w, &h);
    world_down(&w);
}

TEST(what_was_sent_before_a_close_arrives) {
    world w;
    host_of h;
    world_up(&w, 7, NULL, NULL);
    end_of client = {.to_send = 5000}, server = {.w = &w};
    host_up(&w, &h, &server);
    dial(&w, &client);
    run_for(&w, 6 * MS);
    CHECK_INT(client.sent, 5000);
    hang_up(&w, &client);
    run_for(&w, S);
    CHECK_INT(server.received, 5000);
    CHECK_INT(server.end_err, OPD_ERR_CLOSED);
    hang_up(&w, &server);
    host_down(&w, &h);
    world_down(&w);
}

/* A close with bytes unread is a loss to the other side, else an end. */
TEST(a_close_is_heard_by_the_writer) {
    unsigned lost = 0;
    for (uint64_t seed = 0; seed < 20; seed++) {
        world w;
        host_of h;
        world_up(&w, seed, NULL, NULL);
        end_of client = {.to_send = 1000000}, server = {.w = &w};
        host_up(&w, &h, &server);
        dial(&w, &client);
        run_for(&w, 20 * MS);
        opd_tcp_close(server.tcp);
        run_for(&w, S);
        CHECK_INT(client.ended, 1);
        CHECK(client.end_err == OPD_ERR_RESET || client.end_err == OPD_ERR_CLOSED);
        lost += client.end_err == OPD_ERR_RESET;
        CHECK_INT(server.closed, 1);
        CHECK_INT(server.ended, 0);
        hang_up(&w, &client);
        host_down(&w, &h);
        world_down(&w);
    }
    CHECK(lost > 5);
}

/* Closing at any moment of a connect leaves nothing behind. */
TEST(closing_during_a_connect) {
    for (uint64_t at_us = 0; at_us < 5000; at_us += 100) {
        world w;
        host_of h;
        world_up(&w, at_us, NULL, NULL);
        end_of client = {.to_send = 10}, server = {.w = &w, .to_send = 10};
        host_up(&w, &h, &server);
        dial(&w, &client);
        run_for(&w, at_us * 1000);
        hang_up(&w, &client);
        run_for(&w, S);
        CHECK_INT(server.ended, h.count);
        if (h.count > 0) hang_up(&w, &server);
        host_down(&w, &h);
        world_down(&w);
    }
}

TEST(listener_rules) {
    world w;
    host_of h;
    world_up(&w, 8, NULL, NULL);
    host_up(&w, &h, NULL);
    opd_tcp_listener *other = NULL;
    CHECK_ERR(opd_tcp_listen(w.b, NULL, "b", 80, host_accepted, &h, &other), OPD_ERR_EXISTS);
    CHECK_ERR(opd_tcp_listen(w.b, NULL, "a", 80, host_accepted, &h, &other), OPD_ERR_INVALID);
    CHECK_OK(opd_tcp_listen(w.a, NULL, "a", 80, host_accepted, &h, &other)); /* another host */
    CHECK_ERR(opd_env_destroy(w.a), OPD_ERR_INTERNAL);
    opd_tcp_listener_close(other, NULL, NULL);
    CHECK_OK(opd_tcp_listen(w.a, NULL, "::1", 0, host_accepted, &h, &other));
    CHECK(opd_tcp_listener_port(other) != 0);
    opd_tcp_listener_close(other, NULL, NULL);
    host_down(&w, &h);
    world_down(&w);
}

static void timer_fired(void *arg) { ++*(int *)arg; }

TEST(timers_fire_once) {
    world w;
    int fired = 0, closed = 0;
    opd_tcp_timer *timer = NULL;
    world_up(&w, 9, NULL, NULL);
    CHECK_OK(opd_tcp_timer_create(w.a, NULL, timer_fired, &fired, &timer));
    opd_tcp_timer_set(timer, 5 * S);
    opd_tcp_timer_set(timer, 3 * S);
    CHECK_OK(opd_sim_run(w.sim, 3 * S - 1, NULL, NULL));
    CHECK_INT(fired, 0);
    CHECK_OK(opd_sim_run(w.sim, 10 * S, NULL, NULL));
    CHECK_INT(fired, 1);
    opd_tcp_timer_set(timer, 11 * S);
    opd_tcp_timer_set(timer, UINT64_MAX);
    CHECK_OK(opd_sim_run(w.sim, 20 * S, NULL, NULL));
    CHECK_INT(fired, 1);
    opd_tcp_timer_set(timer, 0); /* past: soon */
    run_for(&w, MS);
    CHECK_INT(fired, 2);
    opd_tcp_timer_close(timer, count_closed, &closed);
    CHECK_INT(closed, 0);
    world_down(&w); /* the env's end lets the last callback happen */
    CHECK_INT(closed, 1);
}

/* ---- faults ---------------------------------------------------------------------------- */

/* Whatever the network does, a stream gets a prefix of what was sent, and is told its end. */
TEST(faults_of_the_network) {
    opd_net_sim_stats sum = {0};
    uint64_t faults[OPD_FAULT_COUNT] = {0};
    for (uint64_t seed = 0; seed < 60; seed++) {
        world w;
        host_of h;
        opd_sim_options o = {.faults = OPD_SIM_FAULTS_ALL, .faults_all_armed = true,
                             .fault_one_in = 20, .faults_until_ns = 3 * S};
        world_up(&w, seed, &o, NULL);
        size_t sizes[3] = {60000, 100, 0};
        end_of clients[3] = {{.fin = true}}, servers[3] = {{.fin = true}};
        host_up(&w, &h, servers);
        for (int i = 0; i < 3; i++) {
            clients[i] = (end_of){.to_send = sizes[i], .fin = true, .hangs_up = true};
            servers[i] = (end_of){.w = &w, .to_send = sizes[2 - i], .fin = true, .hangs_up = true};
            dial(&w, &clients[i]);
        }
        run_for(&w, 60 * S);
        int open = 0;
        for (int i = 0; i < 3; i++) {
            CHECK_INT(clients[i].opened, 1);
            CHECK_INT(clients[i].ended, clients[i].open_err == OPD_OK ? 1 : 0);
            open += clients[i].open_err == OPD_OK;
            if (clients[i].open_err != OPD_OK) hang_up(&w, &clients[i]);
            CHECK_INT(clients[i].closed, 1);
        }
        CHECK_INT(h.count, open);
        for (int i = 0; i < h.count; i++) {
            CHECK_INT(servers[i].ended, 1);
            CHECK_INT(servers[i].closed, 1);
        }
        sum.refused += opd_net_sim_stats_get(w.net).refused;
        sum.resets += opd_net_sim_stats_get(w.net).resets;
        for (int i = 0; i < OPD_FAULT_COUNT; i++)
            faults[i] += opd_sim_stats_get(w.sim).faults[i];
        host_down(&w, &h);
        world_down(&w);
    }
    CHECK_INT(sum.refused, faults[OPD_FAULT_NET_REFUSE]);
    CHECK_INT(sum.resets, faults[OPD_FAULT_NET_RESET]);
    CHECK(sum.refused > 3 && sum.resets > 20);
    CHECK(faults[OPD_FAULT_NET_SLOW] > 20 && faults[OPD_FAULT_NET_PARTITION] > 20);
}

/* ---- HTTP over it ---------------------------------------------------------------------- */

enum { CALLS = 12 };

typedef struct site {
    world w;
    opd_http_server *server;
    opd_http_client *client;
    opd_http_call calls[CALLS];
    int times_done[CALLS], done, answered, closed, requests;
    opd_buf *answer;
    uint64_t hash;
} site;

static void serve(void *arg, opd_http_exchange *exchange) {
    site *s = arg;
    s->requests++;
    opd_http_respond(exchange, 200, "text/plain", opd_slice_whole(s->answer));
}

static void call_done(opd_http_call *call) {
    site *s = call->arg;
    s->times_done[call - s->calls]++;
    s->done++;
    s->answered += call->err == OPD_OK;
    s->hash = opd_rng_at(s->hash, opd_sim_now_ns(s->w.sim), (uint64_t)(call - s->calls),
                         (uint64_t)call->err);
}

static void site_up(site *s, uint64_t seed, uint32_t faults) {
    opd_sim_options o = {.faults = faults, .faults_all_armed = true, .faults_until_ns = 5 * S,
                         .fault_one_in = 400};
    memset(s, 0, sizeof *s);
    world_up(&s->w, seed, &o, NULL);
    CHECK_OK(opd_buf_create(NULL, 30000, &s->answer));
    opd_http_server_options so = {.env = s->w.b, .port = 80, .host = "0.0.0.0"};
    opd_http_client_options co = {.env = s->w.a, .url = "http://b:80"};
    CHECK_OK(opd_http_server_create(&so, serve, s, &s->server));
    CHECK_OK(opd_http_client_create(&co, &s->client));
    for (int i = 0; i < CALLS; i++) {
        s->calls[i] = (opd_http_call){.path = "/x", .done = call_done, .arg = s,
                                      .attempt_timeout_ms = 2000};
        s->calls[i].deadline_ns = (uint64_t)(5 + i) * S;
        CHECK_OK(opd_http_client_send(s->client, &s->calls[i]));
    }
}

static bool all_done(void *arg) { return ((site *)arg)->done == CALLS; }

static void site_down(site *s) {
    opd_http_client_close(s->client, count_closed, &s->closed);
    opd_http_server_close(s->server, 100, count_closed, &s->closed);
    run_for(&s->w, 2 * S);
    CHECK_INT(s->closed, 2);
    for (int i = 0; i < CALLS; i++) opd_http_call_fini(&s->calls[i]);
    opd_buf_release(s->answer);
    world_down(&s->w);
}

TEST(http_between_two_hosts) {
    site s;
    site_up(&s, 11, 0);
    CHECK_OK(opd_sim_run(s.w.sim, OPD_SIM_FOREVER, all_done, &s));
    CHECK_INT(s.answered, CALLS);
    for (int i = 0; i < CALLS; i++) {
        CHECK_INT(s.calls[i].status, 200);
        CHECK_INT(s.calls[i].answer.size, 30000);
    }
    CHECK(opd_sim_now_ns(s.w.sim) < 2 * S);
    site_down(&s);
}

/* A partition: calls with a deadline in it end by it, the others are answered once it heals. */
TEST(http_over_a_partition) {
    site s;
    site_up(&s, 12, 0);
    for (int i = 0; i < CALLS; i++) s.calls[i].attempt_timeout_ms = 0;
    run_for(&s.w, 6 * MS); /* connected, nothing answered yet */
    CHECK_INT(s.done, 0);
    CHECK_INT(opd_net_sim_stats_get(s.w.net).connects, 1);
    CHECK_OK(opd_net_sim_cut(s.w.net, "a", "b", 9 * S));
    CHECK_OK(opd_sim_run(s.w.sim, OPD_SIM_FOREVER, all_done, &s));
    int timeouts = 0;
    for (int i = 0; i < CALLS; i++) {
        timeouts += s.calls[i].err == OPD_ERR_TIMEOUT;
        CHECK(s.calls[i].err == OPD_OK || i <= 5);
    }
    CHECK(timeouts >= 4);
    CHECK_INT(s.answered, CALLS - timeouts);
    site_down(&s);
}

static uint64_t http_with_faults(uint64_t seed, int *answered) {
    site s;
    site_up(&s, seed, OPD_SIM_FAULTS_ALL);
    CHECK_OK(opd_sim_run(s.w.sim, 60 * S, all_done, &s));
    for (int i = 0; i < CALLS; i++) CHECK_INT(s.times_done[i], 1);
    *answered += s.answered;
    uint64_t hash = opd_rng_at(s.hash, opd_net_sim_stats_get(s.w.net).bytes, 0, 0);
    site_down(&s);
    return hash;
}

TEST(http_with_faults_completes_each_call_once) {
    int answered = 0;
    uint64_t before = 0;
    for (uint64_t seed = 0; seed < 40; seed++) {
        uint64_t hash = http_with_faults(seed, &answered);
        CHECK(hash != before);
        before = hash;
        if (seed % 4 == 0) CHECK(http_with_faults(seed, &(int){0}) == hash);
    }
    CHECK(answered > 10 * CALLS && answered < 40 * CALLS);
}
