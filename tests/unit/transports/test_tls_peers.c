/* test_tls_peers.c - TLS against programs that share no code with opd's transports: curl, nghttp and
 * openssl s_client as clients, nghttpd and openssl s_server as servers. What is not installed is a
 * counted skip. (All of them use OpenSSL underneath, as opd does; curl of Debian, too.)
 */
#include <signal.h>

#include "core/base/file.h"
#include "tests/support/certs.h"
#include "tests/support/test.h"
#include "tests/unit/transports/loop.h"
#include "tests/unit/transports/pair.h"
#include "tests/unit/transports/peers.h"
#include "transports/tls.h"

typedef struct room {
    certs certs;
    char out[128];
    opd_http_server *server; /* NULL: the stranger is the server */
    unsigned port;
} room;

static void handler(void *arg, opd_http_exchange *exchange) {
    (void)arg;
    opd_buf *buf;
    size_t size = opd_http_exchange_body_size(exchange);
    if (size == 0) {
        opd_http_respond_text(exchange, 200, "text/plain", opd_http_exchange_path(exchange));
        return;
    }
    CHECK_OK(opd_buf_create(NULL, size, &buf));
    memcpy(opd_buf_data(buf), opd_http_exchange_body(exchange), size);
    opd_http_respond(exchange, 200, "application/octet-stream", opd_slice_whole(buf));
    opd_buf_release(buf);
}

static void write_body(room *r, size_t size) {
    opd_buf *body = pattern_create(size, 6);
    CHECK_OK(opd_file_write_atomic(certs_path(&r->certs, "body"), opd_buf_data(body), size));
    opd_buf_release(body);
}

static void room_init(room *r) {
    memset(r, 0, sizeof *r);
    loop_init();
    certs_init(&r->certs);
    snprintf(r->out, sizeof r->out, "%s/out", r->certs.folder);
}

static void room_serve(room *r, const char *client_ca) {
    room_init(r);
    opd_tls_options tls = {.cert_file = certs_path(&r->certs, "server.pem"),
                           .key_file = certs_path(&r->certs, "server.key"), .ca_file = client_ca};
    if (client_ca != NULL) tls.ca_file = certs_path(&r->certs, client_ca);
    opd_http_server_options options = {.env = loop_env, .tls = &tls};
    CHECK_OK(opd_http_server_create(&options, handler, r, &r->server));
    r->port = opd_http_server_port(r->server);
}

static void room_close(room *r) {
    if (r->server != NULL) loop_server_close(r->server, 500);
    loop_fini();
    certs_fini(&r->certs);
}

/* Runs a command in the folder of certificates, PORT in it replaced; its output. */
static char *ask(room *r, const char *fmt, int expected_status) {
    char line[600], command[800], *text;
    size_t size;
    snprintf(line, sizeof line, fmt, r->port);
    snprintf(command, sizeof command, "env -C %s %s", r->certs.folder, line);
    int status = finish(start(command, r->out));
    CHECK_OK(opd_file_read(NULL, r->out, 64u << 20, &text, &size));
    if (status != expected_status)
        opd_test_fail(__FILE__, __LINE__, "%s: exit %d: %.500s", command, status, text);
    return text;
}

static void check_echo(room *r, size_t expected_size) {
    char *bytes;
    size_t size;
    CHECK_OK(opd_file_read(NULL, certs_path(&r->certs, "echo"), 64u << 20, &bytes, &size));
    CHECK_INT(size, expected_size);
    CHECK(pattern_is(bytes, size, 6));
    free(bytes);
}

TEST(curl_gets_and_posts) {
    if (!installed("curl")) SKIP("curl is not installed");
    room r;
    room_serve(&r, NULL);
    char *text = ask(&r, "curl -sS -i --cacert ca.pem https://localhost:%u/hello?x=1", 0);
    CHECK(strncmp(text, "HTTP/2 200", 10) == 0); /* chosen by ALPN */
    CHECK_CONTAINS(text, "/hello?x=1");
    free(text);
    write_body(&r, 5u << 20);
    free(ask(&r, "curl -sS --cacert ca.pem https://127.0.0.1:%u/ --data-binary @body -o echo", 0));
    check_echo(&r, 5u << 20);
    text = ask(&r, "curl -sS --cacert ca.pem --tls-max 1.2 https://localhost:%u/old", 0);
    CHECK_CONTAINS(text, "/old");
    free(text);
    text = ask(&r, "curl -sS --cacert other.pem https://localhost:%u/", 60); /* not trusted */
    free(text);
    room_close(&r);
}

TEST(curl_must_show_a_certificate) {
    if (!installed("curl")) SKIP("curl is not installed");
    room r;
    room_serve(&r, "ca.pem");
    free(ask(&r, "curl -sS --cacert ca.pem --cert client.pem --key client.key https://localhost:%u/", 0));
    char *text = ask(&r, "sh -c '! curl -sS --cacert ca.pem https://localhost:%u/'", 0);
    CHECK_CONTAINS(text, "certificate required");
    free(text);
    room_close(&r);
}

TEST(nghttp_posts) {
    if (!installed("nghttp")) SKIP("nghttp is not installed");
    room r;
    room_serve(&r, NULL);
    write_body(&r, 1u << 20);
    char *text = ask(&r, "nghttp -v --no-dep https://localhost:%u/ -d body -n", 0);
    CHECK_CONTAINS(text, "The negotiated protocol: h2");
    CHECK_CONTAINS(text, ":status: 200");
    free(text);
    room_close(&r);
}

TEST(h2load_thousand) {
    if (!installed("h2load")) SKIP("h2load is not installed");
    room r;
    room_serve(&r, NULL);
    char *text = ask(&r, "h2load -n 1000 -c 4 -m 50 https://localhost:%u/x", 0);
    CHECK_CONTAINS(text, "1000 succeeded, 0 failed, 0 errored");
    free(text);
    room_close(&r);
}

/* The oldest protocol, and a client that knows neither of our protocols. */
TEST(s_client_is_held_to_our_rules) {
    if (!installed("openssl")) SKIP("openssl is not installed");
    room r;
    room_serve(&r, NULL);
    char *text = ask(&r, "openssl s_client -connect 127.0.0.1:%u -alpn h2 -CAfile ca.pem "
                     "-verify_return_error -brief", 0);
    CHECK_CONTAINS(text, "Verification: OK");
    free(text);
    text = ask(&r, "openssl s_client -connect 127.0.0.1:%u -alpn smtp", 1);
    CHECK_CONTAINS(text, "no application protocol");
    free(text);
    text = ask(&r, "openssl s_client -connect 127.0.0.1:%u -tls1_1 -cipher ALL:@SECLEVEL=0", 1);
    CHECK_CONTAINS(text, "alert");
    free(text);
    room_close(&r);
}

/* ---- our client ---- */

static void on_done(opd_http_call *call) { (*(int *)call->arg)++; }

static opd_http_client *client_of(room *r, const char *host, const char *ca, const char *cert) {
    char url[64];
    opd_tls_options tls = {.ca_file = certs_path(&r->certs, ca)};
    if (cert != NULL) tls.cert_file = certs_path(&r->certs, "client.pem");
    if (cert != NULL) tls.key_file = certs_path(&r->certs, "client.key");
    snprintf(url, sizeof url, "https://%s:%u", host, r->port);
    opd_http_client_options options = {.env = loop_env, .url = url, .tls = &tls, .backoff_max_ms = 50};
    opd_http_client *client;
    CHECK_OK(opd_http_client_create(&options, &client));
    return client;
}

/* Asks until the server that is starting is there; the call's end is left in *call. */
static void call_until_up(opd_http_client *client, opd_http_call *call) {
    for (int i = 0; i < 500; i++) {
        int done = 0;
        *call = (opd_http_call){.path = "/body", .done = on_done, .arg = &done};
        CHECK_OK(opd_http_client_send(client, call));
        loop_until(&done, 1);
        if (call->err != OPD_ERR_REFUSED) return;
        opd_http_call_fini(call);
        loop_for_ms(10);
    }
    opd_test_fail(__FILE__, __LINE__, "the server did not come up");
}

static pid_t serve_by(room *r, const char *fmt) {
    char line[600], command[800];
    r->port = free_port();
    snprintf(line, sizeof line, fmt, r->port);
    snprintf(command, sizeof command, "env -C %s %s", r->certs.folder, line);
    return start(command, r->out);
}

static void stop(pid_t pid) {
    kill(pid, SIGKILL);
    finish(pid);
}

/* What a call to the server behind this command line ends with. */
static void check_ends(room *r, const char *server, const char *host, const char *ca, opd_err err,
                       const char *part) {
    opd_http_call call;
    pid_t pid = serve_by(r, server);
    opd_http_client *client = client_of(r, host, ca, NULL);
    call_until_up(client, &call);
    CHECK_CONTAINS(call.error, part);
    CHECK_INT(call.err, err);
    opd_http_call_fini(&call);
    loop_client_close(client);
    stop(pid);
}

TEST(client_of_nghttpd) {
    if (!installed("nghttpd")) SKIP("nghttpd is not installed");
    enum { CALLS = 60, SIZE = 1 << 20 };
    static opd_http_call calls[CALLS], first;
    room r;
    room_init(&r);
    write_body(&r, SIZE);
    pid_t pid = serve_by(&r, "nghttpd --echo-upload -m 20 -d . --verify-client %u server.key server.pem");
    opd_http_client *client = client_of(&r, "localhost", "ca.pem", "client.pem");
    call_until_up(client, &first);
    CHECK_STR(first.error, "");
    CHECK_INT(first.answer.size, SIZE);
    opd_http_call_fini(&first);
    int done = 0;
    opd_buf *body = pattern_create(300000, 6);
    for (int i = 0; i < CALLS; i++) {
        calls[i] = (opd_http_call){.path = i % 2 == 0 ? "/body" : "/echo", .done = on_done, .arg = &done};
        if (i % 2 == 1) calls[i].body = opd_slice_whole(body);
        CHECK_OK(opd_http_client_send(client, &calls[i]));
    }
    loop_until(&done, CALLS);
    for (int i = 0; i < CALLS; i++) {
        CHECK_STR(calls[i].error, "");
        CHECK_INT(calls[i].answer.size, i % 2 == 0 ? SIZE : 300000);
        CHECK(pattern_is(calls[i].answer.data, calls[i].answer.size, 6));
        opd_http_call_fini(&calls[i]);
    }
    opd_buf_release(body);
    loop_client_close(client);
    stop(pid);
    room_close(&r);
}

TEST(nghttpd_of_nobody_we_know) {
    if (!installed("nghttpd")) SKIP("nghttpd is not installed");
    room r;
    room_init(&r);
    write_body(&r, 10);
    check_ends(&r, "nghttpd -d . %u stray.key stray.pem", "localhost", "ca.pem", OPD_ERR_UNTRUSTED,
               "unable to get local issuer certificate");
    check_ends(&r, "nghttpd -d . %u elsewhere.key elsewhere.pem", "localhost", "ca.pem",
               OPD_ERR_UNTRUSTED, "another host");
    check_ends(&r, "nghttpd -d . --no-tls %u", "localhost", "ca.pem", OPD_ERR_PROTO, "use http://");
    room_close(&r);
}

/* A server of HTTP/1.0 over TLS, by this command line, gives its file. */
static void check_http1(room *r, const char *server) {
    opd_http_call call;
    pid_t pid = serve_by(r, server);
    opd_http_client *client = client_of(r, "localhost", "ca.pem", NULL);
    call_until_up(client, &call);
    CHECK_STR(call.error, "");
    CHECK_INT(call.status, 200);
    CHECK(pattern_is(call.answer.data, call.answer.size, 6));
    CHECK_INT(call.answer.size, 100000);
    CHECK_INT(opd_http_client_protocol(client), OPD_HTTP_PROTOCOL_HTTP1);
    opd_http_call_fini(&call);
    loop_client_close(client);
    stop(pid);
}

/* Servers of HTTP/1 alone, with ALPN and without; and one of too old a TLS. */
TEST(s_server_without_http2) {
    if (!installed("openssl")) SKIP("openssl is not installed");
    room r;
    room_init(&r);
    write_body(&r, 100000);
    check_http1(&r, "openssl s_server -accept %u -cert server.pem -key server.key -WWW -quiet "
                "-alpn http/1.1");
    check_http1(&r, "openssl s_server -accept %u -cert server.pem -key server.key -WWW -quiet");
    check_ends(&r, "openssl s_server -accept %u -cert server.pem -key server.key -WWW -quiet -tls1_1 "
               "-cipher ALL:@SECLEVEL=0", "localhost", "ca.pem", OPD_ERR_REMOTE, "TLS 1.2");
    room_close(&r);
}
