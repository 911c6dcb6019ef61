/* test_http2_client.c - the client's connections of HTTP/2: how calls are shared out among them, how
 * they are replaced, resets, PING, and what an answer may use of memory. */
#include <malloc.h>

#include "tests/support/test.h"
#include "tests/unit/transports/h2_peer.h"
#include "tests/unit/transports/loop.h"
#include "tests/unit/transports/pair.h"

enum { CALLS_MAX = 256 };

static h2_peer peer;
static opd_http_client *client;
static opd_http_call calls[CALLS_MAX];
static int done, order[CALLS_MAX];

static void site_open(uint32_t max_streams, opd_http_client_options o) {
    char url[64];
    loop_init();
    h2_peer_open(&peer, max_streams);
    snprintf(url, sizeof url, "http://127.0.0.1:%u", (unsigned)h2_peer_port(&peer));
    o.env = loop_env;
    o.url = url;
    CHECK_OK(opd_http_client_create(&o, &client));
    done = 0;
}

static void site_close(int count) {
    loop_client_close(client);
    h2_peer_close(&peer);
    for (int i = 0; i < count; i++) opd_http_call_fini(&calls[i]);
    loop_fini();
}

static void on_done(opd_http_call *call) { order[done++] = (int)(call - calls); }

static void send(int first, int end) {
    for (int i = first; i < end; i++) {
        calls[i] = (opd_http_call){.path = "/x", .done = on_done};
        CHECK_OK(opd_http_client_send(client, &calls[i]));
    }
}

static void check_ok(int first, int end) {
    for (int i = first; i < end; i++) {
        CHECK_STR(calls[i].error, "");
        CHECK_INT(calls[i].status, 200);
    }
}

/* Eight calls at once: as many connections as allowed, the calls shared out. */
TEST(calls_are_shared_out) {
    site_open(100, (opd_http_client_options){.connections = 4});
    send(0, 8);
    loop_until(&peer.request_count, 8);
    CHECK_INT(peer.conn_count, 4);
    for (int i = 0; i < 4; i++) CHECK_INT(h2_peer_waiting(&peer, i), 2);
    h2_peer_answer_all(&peer);
    loop_until(&done, 8);
    check_ok(0, 8);
    site_close(8);
}

/* One call at a time needs one connection. */
TEST(no_more_connections_than_calls) {
    site_open(100, (opd_http_client_options){.connections = 8});
    peer.prompt = true;
    for (int i = 0; i < 5; i++) {
        send(i, i + 1);
        loop_until(&done, i + 1);
    }
    check_ok(0, 5);
    CHECK_INT(peer.conn_count, 1);
    site_close(5);
}

/* A second connection that nobody takes up: what was kept for it goes out on the first before long. */
TEST(a_connection_that_does_not_come_up_holds_up_nothing) {
    site_open(100, (opd_http_client_options){.connections = 2});
    peer.deaf_from = 1;
    send(0, 8);
    loop_until(&peer.request_count, 4);
    loop_for_ms(1000);
    CHECK_INT(peer.request_count, 8);
    CHECK_INT(h2_peer_waiting(&peer, 0), 8);
    h2_peer_answer_all(&peer);
    loop_until(&done, 8);
    check_ok(0, 8);
    site_close(8);
}

/* Neither the peer's limit nor ours is exceeded on any connection; the rest waits with us. */
TEST(stream_limits_hold_per_connection) {
    site_open(3, (opd_http_client_options){.connections = 2});
    send(0, 20);
    loop_until(&peer.request_count, 6);
    loop_for_ms(50);
    CHECK_INT(peer.request_count, 6);
    CHECK_INT(h2_peer_waiting(&peer, 0), 3);
    CHECK_INT(opd_http_client_queued(client), 14);
    peer.prompt = true;
    h2_peer_answer_all(&peer);
    loop_until(&done, 20);
    check_ok(0, 20);
    site_close(20);

    site_open(100, (opd_http_client_options){.connections = 2, .max_streams = 2});
    send(0, 20);
    loop_until(&peer.request_count, 4);
    loop_for_ms(50);
    CHECK_INT(peer.request_count, 4);
    peer.prompt = true;
    h2_peer_answer_all(&peer);
    loop_until(&done, 20);
    check_ok(0, 20);
    site_close(20);
}

/* SETTINGS that shrink while streams are open: no new stream until there are fewer than that. */
TEST(a_smaller_stream_limit_in_flight_is_kept_to) {
    site_open(100, (opd_http_client_options){.connections = 1});
    send(0, 6);
    loop_until(&peer.request_count, 6);
    opd_h2_max_streams_set(peer.requests[0].stream, 2);
    h2_peer_flush(&peer, 0);
    loop_for_ms(50);
    send(6, 10);
    for (int i = 0; i < 4; i++) h2_peer_answer(&peer, i, (opd_slice){0}); /* 6 - 4: still 2 */
    loop_until(&done, 4);
    loop_for_ms(50);
    CHECK_INT(peer.request_count, 6);
    CHECK_INT(opd_http_client_queued(client), 4); /* with us, not in the session */
    h2_peer_answer(&peer, 4, (opd_slice){0});
    loop_until(&peer.request_count, 7);
    loop_for_ms(50);
    CHECK_INT(peer.request_count, 7);
    CHECK_INT(opd_http_client_queued(client), 3);
    peer.prompt = true;
    h2_peer_answer_all(&peer);
    loop_until(&done, 10);
    check_ok(0, 10);
    CHECK_INT(peer.conn_count, 1);
    site_close(10);
}

/* GOAWAY: what is on it is answered, new calls go to the others, and it is replaced. */
TEST(a_draining_connection_is_replaced) {
    site_open(100, (opd_http_client_options){.connections = 2});
    send(0, 4);
    loop_until(&peer.request_count, 4);
    opd_h2_goaway(peer.conns[0].h2);
    h2_peer_flush(&peer, 0);
    loop_for_ms(100);
    send(4, 8);
    loop_until(&peer.request_count, 8);
    CHECK_INT(h2_peer_waiting(&peer, 0), 2);
    CHECK_INT(peer.conn_count, 3);
    h2_peer_answer_all(&peer);
    loop_until(&done, 8);
    check_ok(0, 8);
    site_close(8);
}

/* A lost connection ends its own calls only. */
TEST(a_lost_connection_is_replaced) {
    site_open(100, (opd_http_client_options){.connections = 2});
    send(0, 4);
    loop_until(&peer.request_count, 4);
    opd_tcp_close(peer.conns[0].tcp);
    loop_until(&done, 2);
    for (int i = 0; i < 2; i++) CHECK_INT(calls[order[i]].err, OPD_ERR_RESET);
    loop_until(&peer.conn_count, 3);
    loop_for_ms(50);
    send(4, 8);
    loop_until(&peer.request_count, 8);
    h2_peer_answer_all(&peer);
    loop_until(&done, 8);
    for (int i = 2; i < 8; i++) CHECK_INT(calls[order[i]].err, OPD_OK);
    CHECK_INT(peer.conn_count, 3);
    site_close(8);
}

/* 20 MB on one connection do not hold up an answer on the other. */
TEST(a_large_answer_does_not_hold_up_a_small_one) {
    site_open(100, (opd_http_client_options){.connections = 2});
    size_t size = loop_sim != NULL ? 2u << 20 : 20u << 20; /* the simulated network is slow */
    opd_buf *large = pattern_create(size, 3);
    send(0, 2);
    loop_until(&peer.request_count, 2);
    int first = peer.requests[0].conn == 0 ? 0 : 1;
    CHECK(peer.requests[0].conn != peer.requests[1].conn);
    h2_peer_answer(&peer, first, opd_slice_whole(large));
    h2_peer_answer(&peer, 1 - first, (opd_slice){0});
    loop_until(&done, 2);
    CHECK_INT(calls[order[0]].answer.size, 0);
    CHECK_INT(calls[order[1]].answer.size, size);
    check_ok(0, 2);
    opd_buf_release(large);
    site_close(2);
}

/* Stream ids end: a connection is replaced long before, and no call notices. */
TEST(connections_are_rotated) {
    site_open(100, (opd_http_client_options){.connection_calls_max = 3});
    peer.prompt = true;
    for (int i = 0; i < 10; i++) {
        send(i, i + 1);
        loop_until(&done, i + 1);
    }
    check_ok(0, 10);
    CHECK_INT(peer.conn_count, 4);
    CHECK_INT(opd_http_client_connections(client), 4);
    for (int i = 0; i < 3; i++) CHECK_INT(peer.conns[i].requests, 3);
    send(10, 40); /* many at once, too */
    loop_until(&done, 40);
    check_ok(10, 40);
    site_close(40);
}

/* ---- resets ---- */

/* A hundred calls given up at once: a few resets, the rest ends by itself, and the connection lives. */
TEST(mass_cancel_resets_few) {
    site_open(200, (opd_http_client_options){.max_inflight = 200});
    opd_buf *body = pattern_create(5000, 1);
    send(0, 100);
    loop_until(&peer.request_count, 100);
    for (int i = 0; i < 100; i++) opd_http_client_cancel(&calls[i]);
    loop_until(&done, 100);
    loop_for_ms(20);
    CHECK(peer.resets >= 16 && peer.resets <= 18); /* 30 a second beyond the burst */
    peer.answer = opd_slice_whole(body);
    h2_peer_answer_all(&peer);
    send(100, 101);
    loop_until(&peer.request_count, 101);
    h2_peer_answer(&peer, 100, opd_slice_whole(body));
    loop_until(&done, 101);
    check_ok(100, 101);
    CHECK_INT(calls[100].answer.size, 5000);
    int resets = peer.resets;
    loop_for_ms(1000);
    CHECK_INT(peer.resets, resets); /* nothing is left to reset */
    CHECK_INT(peer.conn_count, 1);
    opd_buf_release(body);
    site_close(101);
}

/* Those that do not end by themselves are reset in time. */
TEST(mass_cancel_resets_all_in_time) {
    site_open(200, (opd_http_client_options){.max_inflight = 200});
    send(0, 40);
    loop_until(&peer.request_count, 40);
    for (int i = 0; i < 40; i++) opd_http_client_cancel(&calls[i]);
    loop_for_ms(400);
    CHECK(peer.resets >= 16 && peer.resets <= 29);
    loop_for_ms(800);
    CHECK_INT(peer.resets, 40);
    site_close(40);
}

/* The slot of a reset stream goes to the next call at once. */
TEST(a_reset_makes_room) {
    site_open(1, (opd_http_client_options){0});
    send(0, 2);
    loop_until(&peer.request_count, 1);
    opd_http_client_cancel(&calls[0]);
    loop_until(&peer.request_count, 2);
    h2_peer_answer(&peer, 1, (opd_slice){0});
    loop_until(&done, 2);
    check_ok(1, 2);
    site_close(2);
}

/* A call given up in the middle of its upload, its body freed: nothing of it is read any more. */
TEST(a_body_outlives_its_call) {
    site_open(100, (opd_http_client_options){.max_inflight = 200});
    send(0, 40);
    loop_until(&peer.request_count, 40);
    for (int i = 0; i < 40; i++) opd_http_client_cancel(&calls[i]); /* the burst is used up */
    loop_until(&done, 40);
    calls[40] = (opd_http_call){.path = "/x", .done = on_done};
    opd_buf *body = pattern_create(8u << 20, 2);
    calls[40].body = opd_slice_whole(body);
    CHECK_OK(opd_http_client_send(client, &calls[40]));
    loop_until(&peer.begun, 41);
    opd_http_client_cancel(&calls[40]);
    loop_until(&done, 41);
    opd_buf_release(body);
    loop_for_ms(100);
    site_close(41);
}

/* ---- silence ---- */

static const opd_http_client_options impatient = {.ping_after_ms = 300, .ping_timeout_ms = 1000};

TEST(a_silent_peer_is_found) {
    site_open(100, impatient);
    send(0, 2);
    loop_until(&peer.request_count, 2);
    peer.deaf = true;
    loop_for_ms(350);
    CHECK_INT(done, 0);
    loop_until(&done, 2);
    for (int i = 0; i < 2; i++) {
        CHECK_INT(calls[i].err, OPD_ERR_RESET);
        CHECK(!calls[i].retry_safe);
        CHECK_CONTAINS(calls[i].error, "fell silent");
    }
    peer.deaf = false;
    peer.prompt = true;
    send(2, 3);
    loop_until(&done, 3);
    check_ok(2, 3);
    site_close(3);
}

/* A slow peer that answers PINGs is kept, and asked no more often than promised. */
TEST(a_slow_peer_is_kept) {
    site_open(100, impatient);
    send(0, 1);
    loop_until(&peer.request_count, 1);
    loop_for_ms(2000);
    CHECK_INT(done, 0);
    CHECK(peer.pings >= 2 && peer.pings <= 6); /* a busy machine may be late */
    h2_peer_answer(&peer, 0, (opd_slice){0});
    loop_until(&done, 1);
    check_ok(0, 1);
    site_close(1);
}

TEST(no_ping_without_calls) {
    site_open(100, impatient);
    peer.prompt = true;
    send(0, 1);
    loop_until(&done, 1);
    peer.prompt = false;
    loop_for_ms(1500);
    CHECK_INT(peer.pings, 0);
    send(1, 2); /* the silence so far was in order: it does not count */
    loop_until(&peer.request_count, 2);
    loop_for_ms(100);
    CHECK_INT(peer.pings, 0);
    loop_for_ms(400);
    CHECK_INT(peer.pings, 1);
    site_close(2);
}

/* ---- memory ---- */

static size_t live_bytes, peak_bytes;

static void *counting_resize(void *context, void *ptr, size_t size) {
    (void)context;
    live_bytes -= malloc_usable_size(ptr);
    void *block = size > 0 ? realloc(ptr, size) : (free(ptr), NULL);
    live_bytes += malloc_usable_size(block);
    if (live_bytes > peak_bytes) peak_bytes = live_bytes;
    return block;
}

/* All answers at once, more than may be held: what does not fit fails, the bound holds, and afterwards
 * all is as before. */
TEST(a_flood_of_answers_stays_within_the_bound) {
    static const opd_alloc counting = {.resize = counting_resize};
    enum { ANSWER = 300000, TOTAL = 1 << 20, SLACK = 1 << 20 };
    live_bytes = peak_bytes = 0;
    site_open(100, (opd_http_client_options){.alloc = &counting, .max_total_bytes = TOTAL});
    opd_buf *body = pattern_create(ANSWER, 5);
    peer.answer = opd_slice_whole(body);
    for (int round = 0; round < 2; round++) {
        int first = round * 40, whole = 0;
        peak_bytes = live_bytes;
        send(first, first + 40);
        loop_until(&peer.request_count, first + 40);
        h2_peer_answer_all(&peer);
        loop_until(&done, first + 40);
        for (int i = first; i < first + 40; i++) {
            whole += calls[i].err == OPD_OK;
            if (calls[i].err != OPD_OK) CHECK_INT(calls[i].err, OPD_ERR_LIMIT);
            if (calls[i].err == OPD_OK) CHECK_INT(calls[i].answer.size, ANSWER);
        }
        CHECK(whole >= 3 && whole < 40);
        size_t delivered = 0; /* held by the caller, not by the client */
        for (int i = first; i < first + 40; i++) delivered += calls[i].answer.capacity;
        CHECK(peak_bytes < delivered + TOTAL + SLACK);
        for (int i = first; i < first + 40; i++) opd_http_call_fini(&calls[i]);
    }
    peer.prompt = true;
    for (int i = 80; i < 90; i++) {
        send(i, i + 1);
        loop_until(&done, i + 1);
    }
    check_ok(80, 90);
    opd_buf_release(body);
    site_close(90);
    CHECK_INT(live_bytes, 0);
}
