/* test_torture_http.c - the n-th allocation fails, for each n, in the server, then in the
 * client: no crash, no leak, no hang, and every taken call is completed exactly once. */
#include "tests/support/certs.h"
#include "tests/support/test.h"
#include "tests/torture/torture.h"
#include "tests/unit/transports/loop.h"
#include "transports/tls.h"

enum { CALLS = 3 };

static const opd_tls_options *server_tls, *client_tls; /* NULL: cleartext */

static void handler(void *arg, opd_http_exchange *exchange) {
    (void)arg;
    opd_http_respond_text(exchange, 200, "text/plain", opd_http_exchange_body(exchange));
}

static void on_done(opd_http_call *call) { (*(int *)call->arg)++; }

static void talk(opd_http_client *client) {
    opd_http_call calls[CALLS];
    opd_buf *body;
    int done = 0, taken = 0;
    CHECK_OK(opd_buf_create(NULL, 2000, &body));
    memset(opd_buf_data(body), 'b', 2000);
    for (int i = 0; i < CALLS; i++) {
        calls[i] = (opd_http_call){.path = "/x", .body = opd_slice_whole(body), .done = on_done,
                                   .arg = &done, .deadline_ns = loop_in_ms(200)};
        if (opd_http_client_send(client, &calls[i]) == OPD_OK) taken++;
    }
    loop_until(&done, taken);
    for (int i = 0; i < CALLS; i++) {
        CHECK((calls[i].err == OPD_OK) == (calls[i].error[0] == '\0'));
        if (calls[i].err == OPD_OK && calls[i].status == 200) CHECK_INT(calls[i].answer.size, 2000);
        opd_http_call_fini(&calls[i]);
    }
    CHECK_INT(done, taken);
    opd_buf_release(body);
}

/* One whole life with these allocators. */
static void live(const opd_alloc *server_alloc, const opd_alloc *client_alloc) {
    opd_http_server *server;
    opd_http_client *client;
    char url[64];
    opd_http_server_options so = {.alloc = server_alloc, .env = loop_env, .tls = server_tls};
    if (opd_http_server_create(&so, handler, NULL, &server) != OPD_OK) {
        loop_for_ms(1);
        return;
    }
    snprintf(url, sizeof url, "http%s://127.0.0.1:%u", server_tls != NULL ? "s" : "",
             opd_http_server_port(server));
    opd_http_client_options co = {.alloc = client_alloc, .env = loop_env, .url = url,
                                  .tls = client_tls,
                                  .backoff_max_ms = 5, .settings_timeout_ms = 200};
    if (opd_http_client_create(&co, &client) == OPD_OK) {
        talk(client);
        loop_client_close(client);
    }
    loop_server_close(server, 100);
}

/* The failing allocator is the server's or the client's. Peers without memory may do without an
 * answer; what must hold stands in talk(). */
static opd_err in_server(const opd_alloc *alloc, void *arg) {
    (void)arg;
    live(alloc, NULL);
    return OPD_OK;
}

static opd_err in_client(const opd_alloc *alloc, void *arg) {
    (void)arg;
    live(NULL, alloc);
    return OPD_OK;
}

TEST(server) {
    loop_init();
    torture_alloc(in_server, NULL, 0);
    loop_fini();
}

TEST(client) {
    loop_init();
    torture_alloc(in_client, NULL, 0);
    loop_fini();
}

/* The same over TLS. OpenSSL's own allocations are not among those that fail. */
static void over_tls(torture_scenario scenario) {
    certs c;
    loop_init();
    certs_init(&c);
    opd_tls_options server = {.cert_file = certs_path(&c, "chain.pem")};
    opd_tls_options client = {.ca_file = certs_path(&c, "ca.pem")};
    server_tls = &server;
    client_tls = &client;
    torture_alloc(scenario, NULL, 0);
    certs_fini(&c);
    loop_fini();
}

TEST(server_over_tls) { over_tls(in_server); }

TEST(client_over_tls) { over_tls(in_client); }
