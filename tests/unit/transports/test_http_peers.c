/* test_http_peers.c - the client and the server against programs that share no code with opd's
 * transports: curl, nghttp, h2load and nghttpd. What is not installed is a counted skip.
 */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "core/base/file.h"
#include "tests/support/test.h"
#include "tests/unit/transports/loop.h"
#include "tests/unit/transports/pair.h"
#include "tests/unit/transports/peers.h"

typedef struct room {
    char folder[64], out[96];
    opd_http_server *server;
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

static void room_open(room *r) {
    memset(r, 0, sizeof *r);
    loop_init();
    strcpy(r->folder, "/tmp/opd-peers-XXXXXX");
    CHECK(mkdtemp(r->folder) != NULL);
    snprintf(r->out, sizeof r->out, "%s/out", r->folder);
    opd_http_server_options options = {.env = loop_env};
    CHECK_OK(opd_http_server_create(&options, handler, r, &r->server));
    r->port = opd_http_server_port(r->server);
}

static void room_close(room *r) {
    loop_server_close(r->server, 500);
    loop_fini();
    DIR *folder = opendir(r->folder);
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;)
        unlinkat(dirfd(folder), entry->d_name, 0);
    closedir(folder);
    rmdir(r->folder);
}

/* Runs a command made of fmt (with the port, then the folder) and returns its output. */
static char *ask(room *r, const char *fmt, int expected_status) {
    char command[512], *text;
    size_t size;
    snprintf(command, sizeof command, fmt, r->port, r->folder);
    int status = finish(start(command, r->out));
    CHECK_OK(opd_file_read(NULL, r->out, 64u << 20, &text, &size));
    if (status != expected_status)
        opd_test_fail(__FILE__, __LINE__, "%s: exit %d: %.500s", command, status, text);
    return text;
}

static void write_body(room *r, size_t size) {
    char path[96];
    opd_buf *body = pattern_create(size, 6);
    snprintf(path, sizeof path, "%s/body", r->folder);
    CHECK_OK(opd_file_write_atomic(path, opd_buf_data(body), size));
    opd_buf_release(body);
}

static void check_file(room *r, const char *name, size_t expected_size) {
    char path[96], *bytes;
    size_t size;
    snprintf(path, sizeof path, "%s/%s", r->folder, name);
    CHECK_OK(opd_file_read(NULL, path, 64u << 20, &bytes, &size));
    CHECK_INT(size, expected_size);
    CHECK(pattern_is(bytes, size, 6));
    free(bytes);
}

TEST(curl_gets_and_posts) {
    if (!installed("curl")) SKIP("curl is not installed");
    room r;
    room_open(&r);
    char *text = ask(&r, "curl -sS -i --http2-prior-knowledge http://127.0.0.1:%u/hello?x=1", 0);
    CHECK(strncmp(text, "HTTP/2 200", 10) == 0);
    CHECK_CONTAINS(text, "content-length: 10");
    CHECK_CONTAINS(text, "/hello?x=1");
    free(text);
    write_body(&r, 20u << 20);
    char command[512];
    snprintf(command, sizeof command, "curl -sS --http2-prior-knowledge http://127.0.0.1:%u/ "
             "--data-binary @%s/body -o %s/echo", r.port, r.folder, r.folder);
    CHECK_INT(finish(start(command, r.out)), 0);
    check_file(&r, "echo", 20u << 20);
    text = ask(&r, "curl -sS -I --http2-prior-knowledge http://127.0.0.1:%u/head", 0);
    CHECK_CONTAINS(text, "HTTP/2 200");
    free(text);
    room_close(&r);
}

TEST(curl_with_http1) {
    if (!installed("curl")) SKIP("curl is not installed");
    room r;
    room_open(&r);
    char *text = ask(&r, "curl -sS -i --http1.1 http://127.0.0.1:%u/hello?x=1", 0);
    CHECK(strncmp(text, "HTTP/1.1 200 OK", 15) == 0);
    CHECK_CONTAINS(text, "/hello?x=1");
    free(text);
    text = ask(&r, "curl -sS -I http://127.0.0.1:%u/head", 0);
    CHECK_CONTAINS(text, "HTTP/1.1 200");
    free(text);
    text = ask(&r, "curl -sS -i --http2 http://127.0.0.1:%u/ -d x=1", 0); /* Upgrade: h2c */
    CHECK(strncmp(text, "HTTP/1.1 200", 12) == 0); /* not heard, and the body arrived */
    CHECK_CONTAINS(text, "x=1");
    free(text);
    text = ask(&r, "curl -sS --http1.0 http://127.0.0.1:%u/old", 0);
    CHECK_STR(text, "/old");
    free(text);
    room_close(&r);
}

/* Three requests on one connection, one body of 20 MB (with Expect: 100-continue), one chunked. */
TEST(curl_with_http1_keeps_the_connection) {
    if (!installed("curl")) SKIP("curl is not installed");
    room r;
    room_open(&r);
    write_body(&r, 20u << 20);
    char command[700];
    snprintf(command, sizeof command, "curl -sS http://127.0.0.1:%u/ --data-binary @%s/body -o %s/echo "
             "-H Expect:100-continue -w '%%{num_connects} ' --next -sS http://127.0.0.1:%u/ -T %s/body -X POST "
             "-H Transfer-Encoding:chunked -o %s/echo2 -w '%%{num_connects} ' --next -sS "
             "http://127.0.0.1:%u/x -o %s/x -w '%%{num_connects} '", r.port, r.folder, r.folder, r.port,
             r.folder, r.folder, r.port, r.folder);
    CHECK_INT(finish(start(command, r.out)), 0);
    char *text;
    size_t size;
    CHECK_OK(opd_file_read(NULL, r.out, 4096, &text, &size));
    CHECK_STR(text, "1 0 0 ");
    free(text);
    check_file(&r, "echo", 20u << 20);
    check_file(&r, "echo2", 20u << 20);
    room_close(&r);
}

TEST(nghttp_posts) {
    if (!installed("nghttp")) SKIP("nghttp is not installed");
    room r;
    room_open(&r);
    write_body(&r, 1u << 20);
    char *text = ask(&r, "nghttp -v --no-dep http://127.0.0.1:%u/ -d %s/body -n", 0);
    CHECK_CONTAINS(text, ":status: 200");
    CHECK_CONTAINS(text, "SETTINGS_MAX_CONCURRENT_STREAMS(0x03):200");
    free(text);
    room_close(&r);
}

TEST(h2load_ten_thousand) {
    if (!installed("h2load")) SKIP("h2load is not installed");
    room r;
    room_open(&r);
    char *text = ask(&r, "h2load -n 10000 -c 8 -m 50 http://127.0.0.1:%u/x", 0);
    CHECK_CONTAINS(text, "10000 succeeded, 0 failed, 0 errored");
    free(text);
    room_close(&r);
}

/* ---- our client against nghttpd ---- */

static void on_done(opd_http_call *call) { (*(int *)call->arg)++; }

static pid_t nghttpd_start(room *r, unsigned port) {
    char command[256];
    snprintf(command, sizeof command, "nghttpd --no-tls --echo-upload -m 20 -d %s %u", r->folder, port);
    return start(command, r->out);
}

/* Sends until the server that is starting answers. */
static void call_until_up(opd_http_client *client, const char *path) {
    for (int i = 0; i < 200; i++) {
        int done = 0;
        opd_http_call call = {.path = path, .done = on_done, .arg = &done};
        CHECK_OK(opd_http_client_send(client, &call));
        loop_until(&done, 1);
        opd_err err = call.err;
        bool retry_safe = call.retry_safe;
        opd_http_call_fini(&call);
        if (err == OPD_OK) return;
        CHECK(retry_safe || err == OPD_ERR_RESET); /* sent into a connection just killed */
        loop_for_ms(10);
    }
    opd_test_fail(__FILE__, __LINE__, "the server did not come up");
}

/* Starts nghttpd with a file of size_bytes to give, and a client that finds it there. */
static opd_http_client *nghttpd_open(room *r, size_t size_bytes, pid_t *out_pid, unsigned *out_port) {
    char url[64];
    opd_http_client *client;
    room_open(r);
    write_body(r, size_bytes);
    *out_port = free_port();
    snprintf(url, sizeof url, "http://127.0.0.1:%u", *out_port);
    opd_http_client_options options = {.env = loop_env, .url = url, .backoff_max_ms = 50};
    CHECK_OK(opd_http_client_create(&options, &client));
    *out_pid = nghttpd_start(r, *out_port);
    call_until_up(client, "/none");
    return client;
}

static void nghttpd_close(room *r, opd_http_client *client, pid_t pid) {
    kill(pid, SIGKILL);
    finish(pid);
    loop_client_close(client);
    room_close(r);
}

TEST(client_of_nghttpd) {
    if (!installed("nghttpd")) SKIP("nghttpd is not installed");
    enum { CALLS = 300 };
    static opd_http_call calls[CALLS];
    room r;
    unsigned port;
    pid_t pid;
    opd_http_client *client = nghttpd_open(&r, 3u << 20, &pid, &port);
    int done = 0;
    opd_buf *body = pattern_create(300000, 6);
    for (int i = 0; i < CALLS; i++) { /* downloads of 3 MB, uploads echoed, a missing file */
        calls[i] = (opd_http_call){.path = i % 3 == 0 ? "/body" : i % 3 == 1 ? "/echo" : "/none",
                                   .done = on_done, .arg = &done};
        if (i % 3 == 1) calls[i].body = opd_slice_whole(body);
        CHECK_OK(opd_http_client_send(client, &calls[i]));
    }
    loop_until(&done, CALLS);
    for (int i = 0; i < CALLS; i++) {
        CHECK_STR(calls[i].error, "");
        CHECK_INT(calls[i].status, i % 3 == 2 ? 404 : 200);
        size_t size = i % 3 == 0 ? 3u << 20 : 300000;
        if (i % 3 != 2) CHECK_INT(calls[i].answer.size, size);
        if (i % 3 != 2) CHECK(pattern_is(calls[i].answer.data, size, 6));
        opd_http_call_fini(&calls[i]);
    }
    kill(pid, SIGKILL); /* and it comes back: the client finds it again */
    finish(pid);
    pid = nghttpd_start(&r, port);
    call_until_up(client, "/body");
    opd_buf_release(body);
    nghttpd_close(&r, client, pid);
}

/* nghttpd for load alone: it scores nothing. */
TEST(nghttpd_answers_a_thousand) {
    if (!installed("nghttpd")) SKIP("nghttpd is not installed");
    enum { CALLS = 1000, SIZE = 20000 };
    static opd_http_call calls[CALLS];
    room r;
    unsigned port;
    pid_t pid;
    opd_http_client *client = nghttpd_open(&r, SIZE, &pid, &port);
    int done = 0;
    opd_buf *body = pattern_create(SIZE, 6);
    for (int i = 0; i < CALLS; i++) {
        calls[i] = (opd_http_call){.path = i % 2 == 0 ? "/body" : "/echo", .done = on_done, .arg = &done};
        if (i % 2 == 1) calls[i].body = opd_slice_whole(body);
        CHECK_OK(opd_http_client_send(client, &calls[i]));
    }
    loop_until(&done, CALLS);
    for (int i = 0; i < CALLS; i++) {
        CHECK_STR(calls[i].error, "");
        CHECK_INT(calls[i].answer.size, SIZE);
        CHECK(pattern_is(calls[i].answer.data, SIZE, 6));
        opd_http_call_fini(&calls[i]);
    }
    opd_buf_release(body);
    nghttpd_close(&r, client, pid);
}

/* A server killed with 50 downloads under way: each call hears of it once. */
TEST(nghttpd_killed_midway) {
    if (!installed("nghttpd")) SKIP("nghttpd is not installed");
    enum { CALLS = 50 };
    static opd_http_call calls[CALLS];
    room r;
    unsigned port;
    pid_t pid;
    opd_http_client *client = nghttpd_open(&r, 30u << 20, &pid, &port);
    int done = 0;
    for (int i = 0; i < CALLS; i++) {
        calls[i] = (opd_http_call){.path = "/body", .done = on_done, .arg = &done};
        CHECK_OK(opd_http_client_send(client, &calls[i]));
    }
    loop_for_ms(30);
    kill(pid, SIGKILL);
    finish(pid);
    loop_until(&done, CALLS);
    int lost = 0;
    for (int i = 0; i < CALLS; i++) {
        if (calls[i].err != OPD_OK) lost++;
        CHECK(calls[i].err == OPD_OK || calls[i].err == OPD_ERR_RESET ||
              (calls[i].err == OPD_ERR_REFUSED && calls[i].retry_safe));
        opd_http_call_fini(&calls[i]);
    }
    CHECK(lost > 0);
    CHECK_INT(done, CALLS);
    loop_client_close(client);
    room_close(&r);
}
