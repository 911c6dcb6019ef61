/* test_tls_http.c - the HTTP client and server over TLS, on loopback and on a simulated network. */
#include "opd/log.h"
#include "tests/support/certs.h"
#include "tests/support/test.h"
#include "tests/unit/transports/loop.h"
#include "tests/unit/transports/pair.h"
#include "transports/tls.h"

typedef struct site {
    certs certs;
    opd_tls_options trust; /* of a good client */
    opd_http_server *server;
    opd_http_client *client;
    char url[64];
    opd_http_exchange *held[8];
    int held_count, done;
    char logged[400];
} site;

static void handler(void *arg, opd_http_exchange *exchange) {
    site *s = arg;
    opd_buf *buf;
    size_t size = opd_http_exchange_body_size(exchange);
    if (strcmp(opd_http_exchange_path(exchange), "/hold") == 0) {
        s->held[s->held_count++] = exchange;
        return;
    }
    CHECK_OK(opd_buf_create(NULL, size, &buf));
    if (size > 0) memcpy(opd_buf_data(buf), opd_http_exchange_body(exchange), size);
    opd_http_header header = {"x-scheme", opd_http_exchange_header(exchange, ":scheme")};
    opd_http_respond_headers(exchange, 200, &header, 1, opd_slice_whole(buf));
    opd_buf_release(buf);
}

static void on_done(opd_http_call *call) { ((site *)call->arg)->done++; }

/* A server with cert (NULL: cleartext), that asks for clients of client_ca (NULL: nobody). */
static void serve(site *s, const char *cert, const char *key, const char *client_ca) {
    opd_tls_options tls = {0};
    opd_http_server_options options = {.env = loop_env, .tls = cert != NULL ? &tls : NULL};
    if (cert != NULL) tls.cert_file = certs_path(&s->certs, cert);
    if (key != NULL) tls.key_file = certs_path(&s->certs, key);
    if (client_ca != NULL) tls.ca_file = certs_path(&s->certs, client_ca);
    CHECK_OK(opd_http_server_create(&options, handler, s, &s->server));
}

static void ask_with(site *s, const char *scheme, const char *host, const opd_tls_options *tls) {
    snprintf(s->url, sizeof s->url, "%s://%s:%u", scheme, host, opd_http_server_port(s->server));
    opd_http_client_options options = {.env = loop_env, .url = s->url, .tls = tls};
    CHECK_OK(opd_http_client_create(&options, &s->client));
}

static void site_init(site *s) {
    memset(s, 0, sizeof *s);
    loop_init();
    certs_init(&s->certs);
}

static void site_open(site *s) {
    site_init(s);
    serve(s, "server.pem", "server.key", NULL);
    opd_tls_options tls = {.ca_file = certs_path(&s->certs, "ca.pem")};
    ask_with(s, "https", "127.0.0.1", &tls);
}

static void site_close(site *s) {
    if (s->client != NULL) loop_client_close(s->client);
    if (s->server != NULL) loop_server_close(s->server, 500);
    for (int i = 0; i < s->held_count; i++)
        opd_http_respond_text(s->held[i], 200, "text/plain", "too late");
    loop_fini();
    certs_fini(&s->certs);
}

static opd_http_call call_to(site *s, const char *path) {
    return (opd_http_call){.path = path, .done = on_done, .arg = s, .deadline_ns = loop_in_ms(60000)};
}

TEST(echo) {
    enum { SIZE = 8 << 20 };
    site s;
    site_open(&s);
    opd_buf *body = pattern_create(SIZE, 4);
    opd_http_call call = call_to(&s, "/echo");
    call.body = opd_slice_whole(body);
    CHECK_OK(opd_http_client_send(s.client, &call));
    loop_until(&s.done, 1);
    CHECK_STR(call.error, "");
    CHECK_INT(call.answer.size, SIZE);
    CHECK(pattern_is(call.answer.data, SIZE, 4));
    CHECK_STR(opd_http_call_header(&call, "x-scheme"), "https");
    opd_http_call_fini(&call);
    opd_buf_release(body);
    site_close(&s);
}

TEST(many_calls) {
    enum { CALLS = 300 };
    static opd_http_call calls[CALLS];
    site s;
    site_open(&s);
    opd_buf *body = pattern_create(CALLS * 50, 2);
    for (int i = 0; i < CALLS; i++) {
        calls[i] = call_to(&s, "/echo");
        calls[i].body = (opd_slice){body, 0, (size_t)i * 50};
        CHECK_OK(opd_http_client_send(s.client, &calls[i]));
    }
    loop_until(&s.done, CALLS);
    for (int i = 0; i < CALLS; i++) {
        CHECK_STR(calls[i].error, "");
        CHECK_INT(calls[i].answer.size, i * 50);
        CHECK(i == 0 || pattern_is(calls[i].answer.data, (size_t)i * 50, 2));
        opd_http_call_fini(&calls[i]);
    }
    opd_buf_release(body);
    site_close(&s);
}

/* One call, which must end with err and a text that names the URL and has this part. */
static void check_fails(site *s, opd_err err, const char *part) {
    opd_http_call call = call_to(s, "/echo");
    s->done = 0;
    CHECK_OK(opd_http_client_send(s->client, &call));
    loop_until(&s->done, 1);
    CHECK_CONTAINS(call.error, s->url);
    CHECK_CONTAINS(call.error, part);
    CHECK_INT(call.err, err);
    CHECK(call.retry_safe);
    opd_http_call_fini(&call);
}

TEST(certificate_of_nobody_we_know) {
    site s;
    site_init(&s);
    serve(&s, "self.pem", "self.key", NULL);
    opd_tls_options tls = {.ca_file = certs_path(&s.certs, "ca.pem")};
    ask_with(&s, "https", "127.0.0.1", &tls);
    check_fails(&s, OPD_ERR_UNTRUSTED, "self-signed certificate");
    check_fails(&s, OPD_ERR_UNTRUSTED, "ca_file"); /* and again, after the backoff */
    site_close(&s);
}

TEST(certificate_for_another_host) {
    site s;
    site_init(&s);
    serve(&s, "elsewhere.pem", "elsewhere.key", NULL);
    opd_tls_options tls = {.ca_file = certs_path(&s.certs, "ca.pem")};
    ask_with(&s, "https", "127.0.0.1", &tls);
    check_fails(&s, OPD_ERR_UNTRUSTED, "another host");
    site_close(&s);
}

static void on_log(void *arg, opd_log_level level, const char *text) {
    if (level == OPD_LOG_LEVEL_WARN) snprintf(((site *)arg)->logged, 400, "%s", text);
}

TEST(unverified_works_and_warns) {
    site s;
    site_init(&s);
    serve(&s, "self.pem", "self.key", NULL);
    opd_log_sink_set(on_log, &s);
    ask_with(&s, "https", "127.0.0.1", &(opd_tls_options){.unverified = true});
    opd_log_sink_set(NULL, NULL);
    CHECK_CONTAINS(s.logged, "is not verified");
    opd_http_call call = call_to(&s, "/echo");
    CHECK_OK(opd_http_client_send(s.client, &call));
    loop_until(&s.done, 1);
    CHECK_STR(call.error, "");
    opd_http_call_fini(&call);
    site_close(&s);
}

TEST(client_without_certificate) {
    site s;
    site_init(&s);
    serve(&s, "server.pem", "server.key", "ca.pem");
    opd_tls_options tls = {.ca_file = certs_path(&s.certs, "ca.pem")};
    ask_with(&s, "https", "127.0.0.1", &tls);
    check_fails(&s, OPD_ERR_RESET, "certificate required; if it wants to know its clients, give cert_file");
    site_close(&s);
}

TEST(client_with_certificate) {
    site s;
    site_init(&s);
    serve(&s, "server.pem", "server.key", "ca.pem");
    opd_tls_options tls = {.ca_file = certs_path(&s.certs, "ca.pem"),
                           .cert_file = certs_path(&s.certs, "client.pem"),
                           .key_file = certs_path(&s.certs, "client.key")};
    ask_with(&s, "https", "127.0.0.1", &tls);
    opd_http_call call = call_to(&s, "/echo");
    CHECK_OK(opd_http_client_send(s.client, &call));
    loop_until(&s.done, 1);
    CHECK_STR(call.error, "");
    opd_http_call_fini(&call);
    site_close(&s);
}

TEST(https_to_a_cleartext_server) {
    site s;
    site_init(&s);
    serve(&s, NULL, NULL, NULL);
    opd_tls_options tls = {.ca_file = certs_path(&s.certs, "ca.pem")};
    ask_with(&s, "https", "127.0.0.1", &tls);
    check_fails(&s, OPD_ERR_PROTO, "does not speak TLS on this port; if it is a cleartext server, use http://");
    site_close(&s);
}

TEST(cleartext_to_an_https_server) {
    site s;
    site_init(&s);
    serve(&s, "server.pem", "server.key", NULL);
    ask_with(&s, "http", "127.0.0.1", NULL);
    opd_http_call call = call_to(&s, "/echo");
    CHECK_OK(opd_http_client_send(s.client, &call));
    loop_until(&s.done, 1);
    CHECK(call.err != OPD_OK);
    opd_http_call_fini(&call);
    site_close(&s);
}

/* The server goes in the middle of an answer's waiting: the call hears of it once. */
TEST(server_closes_in_the_middle) {
    site s;
    site_open(&s);
    opd_http_call call = call_to(&s, "/hold");
    CHECK_OK(opd_http_client_send(s.client, &call));
    loop_until(&s.held_count, 1);
    loop_server_close(s.server, 0);
    s.server = NULL;
    loop_until(&s.done, 1);
    CHECK_INT(call.err, OPD_ERR_RESET);
    opd_http_call_fini(&call);
    site_close(&s);
}

/* Peers that connect and then say nothing, garbage, or half a hello do not disturb the others. */
TEST(hung_up_in_the_handshake) {
    static const char hello[] = "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    site s;
    site_open(&s);
    raw_server raw;
    raw_server_open(&raw, hello, true); /* as a server: half a record, then FIN */
    opd_http_client *other;
    char url[64];
    snprintf(url, sizeof url, "https://127.0.0.1:%u", opd_tcp_listener_port(raw.listener));
    opd_http_client_options options = {.env = loop_env, .url = url};
    CHECK_OK(opd_http_client_create(&options, &other));
    opd_http_call lost = call_to(&s, "/x"), call = call_to(&s, "/echo");
    CHECK_OK(opd_http_client_send(other, &lost));
    loop_until(&s.done, 1);
    CHECK_INT(lost.err, OPD_ERR_REFUSED);
    CHECK_CONTAINS(lost.error, "during the TLS handshake");
    CHECK_OK(opd_http_client_send(s.client, &call));
    loop_until(&s.done, 2);
    CHECK_STR(call.error, "");
    opd_http_call_fini(&lost);
    opd_http_call_fini(&call);
    loop_client_close(other);
    raw_server_close(&raw);
    site_close(&s);
}

TEST(bad_files_are_told_at_once) {
    site s;
    site_init(&s);
    opd_tls_options tls = {.ca_file = "/nowhere/ca.pem"};
    opd_http_client_options client = {.env = loop_env, .url = "https://127.0.0.1:1", .tls = &tls};
    CHECK_ERR(opd_http_client_create(&client, &s.client), OPD_ERR_NOT_FOUND);
    opd_http_server_options server = {.env = loop_env, .tls = &tls};
    CHECK_ERR(opd_http_server_create(&server, handler, &s, &s.server), OPD_ERR_NOT_FOUND);
    s.client = NULL;
    s.server = NULL;
    site_close(&s);
}
