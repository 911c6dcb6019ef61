/* test_dial.c - from names and addresses to a connected socket: order, dead and slow addresses, giving up. */
#include <arpa/inet.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/support/test.h"
#include "tests/unit/transports/loop.h"
#include "transports/dial_uv.h"

static struct sockaddr_storage address_of(const char *text, uint16_t port) {
    struct sockaddr_storage address = {0};
    if (uv_ip4_addr(text, port, (struct sockaddr_in *)&address) != 0)
        CHECK_INT(uv_ip6_addr(text, port, (struct sockaddr_in6 *)&address), 0);
    return address;
}

static void check_order(const char *before, const char *after) {
    struct sockaddr_storage addresses[8];
    size_t count = strlen(before);
    memset(addresses, 0, sizeof addresses);
    for (size_t i = 0; i < count; i++) { /* a digit is IPv4, a letter IPv6 */
        addresses[i].ss_family = before[i] >= 'a' ? AF_INET6 : AF_INET;
        ((char *)&addresses[i])[sizeof addresses[i] - 1] = before[i];
    }
    opd__addresses_interleave(addresses, count);
    for (size_t i = 0; i < count; i++)
        CHECK_INT(((char *)&addresses[i])[sizeof addresses[i] - 1], after[i]);
}

TEST(families_take_turns) {
    check_order("", "");
    check_order("1", "1");
    check_order("ab12", "a1b2");
    check_order("12ab", "1a2b");
    check_order("abc1", "a1bc");
    check_order("1abc2", "1a2bc");
    check_order("a1b2", "a1b2");
    check_order("abcd", "abcd");
    check_order("abcd1234", "a1b2c3d4");
}

/* ---- one dial ---- */

typedef struct attempt {
    opd__dial_uv dial;
    opd__socket_uv *winner;
    opd_err err;
    char text[200];
    int done, gone, closed, accepted;
} attempt;

static void on_done(opd__dial_uv *dial, opd_err err, opd__socket_uv *winner) {
    attempt *a = dial->arg;
    a->done++;
    a->err = err;
    a->winner = winner;
    snprintf(a->text, sizeof a->text, "%s", err == OPD_OK ? "" : opd_err_context());
}

static void on_gone(opd__dial_uv *dial) { ((attempt *)dial->arg)->gone++; }

static void on_accepted(void *arg, opd_tcp *tcp) {
    ((attempt *)arg)->accepted++;
    opd_tcp_close(tcp);
}

static attempt attempt_of(void) {
    return (attempt){.dial = {.env = loop_env, .done = on_done, .gone = on_gone}};
}

static void attempt_end(attempt *a) {
    if (a->winner != NULL) {
        opd__socket_uv_close(a->winner, loop_count, &a->closed);
        loop_until(&a->closed, 1);
    }
    loop_until(&a->gone, 1);
    CHECK_INT(a->gone, 1);
    CHECK(a->done <= 1);
}

/* Dials 127.0.0.2 and then 127.0.0.1, where somebody listens. */
static void check_second_wins(uint16_t port, opd_tcp_listener *listener, attempt *a) {
    struct sockaddr_storage addresses[] = {address_of("127.0.0.2", port),
                                           address_of("127.0.0.1", port)};
    int closed = 0;
    a->dial.arg = a;
    opd__dial_uv_start_at(&a->dial, "two.test", port, addresses, 2);
    CHECK_INT(a->done, 0); /* always later */
    loop_until(&a->done, 1);
    CHECK_STR(a->text, "");
    struct sockaddr_in peer;
    int size = sizeof peer;
    CHECK_INT(uv_tcp_getpeername(&a->winner->handle, (struct sockaddr *)&peer, &size), 0);
    CHECK_INT(ntohl(peer.sin_addr.s_addr), INADDR_LOOPBACK);
    attempt_end(a);
    opd_tcp_listener_close(listener, loop_count, &closed);
    loop_until(&closed, 1);
}

TEST(a_dead_address_leaves_it_to_the_next) {
    opd_tcp_listener *listener;
    loop_init();
    attempt a = attempt_of();
    CHECK_OK(opd_tcp_listen(loop_env, NULL, "127.0.0.1", 0, on_accepted, &a, &listener));
    check_second_wins(opd_tcp_listener_port(listener), listener, &a);
    loop_fini();
}

/* A port whose queue is full lets a connection wait for ever; the next address does not. */
TEST(a_silent_address_leaves_it_to_the_next) {
    opd_tcp_listener *listener;
    int fillers[8], full = socket(AF_INET, SOCK_STREAM, 0);
    loop_init();
    attempt a = attempt_of();
    CHECK_OK(opd_tcp_listen(loop_env, NULL, "127.0.0.1", 0, on_accepted, &a, &listener));
    uint16_t port = opd_tcp_listener_port(listener);
    struct sockaddr_storage there = address_of("127.0.0.2", port);
    CHECK_INT(bind(full, (struct sockaddr *)&there, sizeof(struct sockaddr_in)), 0);
    CHECK_INT(listen(full, 0), 0);
    for (int i = 0; i < 8; i++) {
        fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        (void)connect(fillers[i], (struct sockaddr *)&there, sizeof(struct sockaddr_in));
    }
    uint64_t begun_ns = opd_tcp_now_ns(loop_env);
    check_second_wins(port, listener, &a);
    CHECK(opd_tcp_now_ns(loop_env) - begun_ns >= 200 * 1000000u); /* it was given its time */
    for (int i = 0; i < 8; i++) close(fillers[i]);
    close(full);
    loop_fini();
}

TEST(when_all_are_dead_the_error_names_the_host) {
    loop_init();
    opd_tcp_listener *listener;
    int closed = 0;
    CHECK_OK(opd_tcp_listen(loop_env, NULL, "127.0.0.1", 0, NULL, NULL, &listener));
    uint16_t port = opd_tcp_listener_port(listener);
    opd_tcp_listener_close(listener, loop_count, &closed);
    loop_until(&closed, 1);
    attempt a = attempt_of();
    a.dial.arg = &a;
    struct sockaddr_storage addresses[] = {address_of("127.0.0.2", port),
                                           address_of("127.0.0.1", port)};
    opd__dial_uv_start_at(&a.dial, "dead.test", port, addresses, 2);
    loop_until(&a.done, 1);
    CHECK_INT(a.err, OPD_ERR_REFUSED);
    CHECK_CONTAINS(a.text, "dead.test");
    CHECK_CONTAINS(a.text, "any of its addresses");
    attempt_end(&a);
    loop_fini();
}

TEST(a_name_that_does_not_resolve_is_named) {
    loop_init();
    attempt a = attempt_of();
    a.dial.arg = &a;
    opd__dial_uv_start(&a.dial, "no-such-host.invalid", 80);
    loop_until(&a.done, 1);
    CHECK(a.err != OPD_OK);
    CHECK_CONTAINS(a.text, "the name no-such-host.invalid does not resolve");
    attempt_end(&a);
    loop_fini();
}

/* Given up at once, during the lookup or an attempt: nothing is told, all is closed. */
TEST(a_dial_can_be_given_up) {
    static const char *const hosts[] = {"localhost", "no-such-host.invalid", "127.0.0.1", "::1"};
    loop_init();
    for (size_t i = 0; i < 4; i++) {
        for (uint64_t ms = 0; ms < 2; ms++) {
            attempt a = attempt_of();
            a.dial.arg = &a;
            opd__dial_uv_start(&a.dial, hosts[i], 9);
            if (ms > 0) loop_for_ms(ms);
            int before = a.done;
            opd__dial_uv_stop(&a.dial);
            loop_until(&a.gone, 1);
            CHECK_INT(a.done, before);
        }
    }
    loop_fini();
}

/* ---- through the client ---- */

static void answer(void *arg, opd_http_exchange *exchange) {
    ++*(int *)arg;
    opd_http_respond_text(exchange, 200, NULL, "here");
}

static void done(opd_http_call *call) { ++*(int *)call->arg; }

/* A server on one address is reached under a name. Whether the machine has that address. */
static bool check_reached(const char *bind_to, const char *host) {
    opd_http_server_options so = {.env = loop_env, .host = bind_to};
    opd_http_server *server;
    opd_http_client *client;
    int asked = 0, ended = 0;
    char url[64];
    if (opd_http_server_create(&so, answer, &asked, &server) != OPD_OK) return false;
    snprintf(url, sizeof url, "http://%s:%u", host, (unsigned)opd_http_server_port(server));
    opd_http_client_options co = {.env = loop_env, .url = url};
    CHECK_OK(opd_http_client_create(&co, &client));
    opd_http_call call = {.path = "/", .done = done, .arg = &ended};
    CHECK_OK(opd_http_client_send(client, &call));
    loop_until(&ended, 1);
    CHECK_STR(call.error, "");
    CHECK_INT(asked, 1);
    opd_http_call_fini(&call);
    loop_client_close(client);
    loop_server_close(server, 100);
    return true;
}

/* A name of ::1 on this machine, or NULL. */
static const char *name_of_ip6_loopback(void) {
    static const char *const names[] = {"localhost", "ip6-localhost", "localhost6"};
    for (size_t i = 0; i < 3; i++) {
        struct addrinfo hints = {.ai_family = AF_INET6, .ai_socktype = SOCK_STREAM}, *info = NULL;
        if (getaddrinfo(names[i], NULL, &hints, &info) != 0) continue;
        bool loopback = IN6_IS_ADDR_LOOPBACK(&((struct sockaddr_in6 *)(void *)info->ai_addr)->sin6_addr);
        freeaddrinfo(info);
        if (loopback) return names[i];
    }
    return NULL;
}

TEST(ip4_by_name) {
    loop_init();
    CHECK(check_reached("127.0.0.1", "localhost"));
    loop_fini();
}

TEST(ip6_by_address) {
    loop_init();
    bool there = check_reached("::1", "[::1]");
    loop_fini();
    if (!there) SKIP("no IPv6 loopback here");
}

TEST(ip6_by_name) {
    const char *name = name_of_ip6_loopback();
    loop_init();
    bool there = name != NULL && check_reached("::1", name);
    loop_fini();
    if (!there) SKIP("no IPv6 loopback with a name here");
}
