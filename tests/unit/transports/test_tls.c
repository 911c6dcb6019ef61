/* test_tls.c - the TLS engine in memory: two of them back to back, and what each says when the
 * other is not what it should be. */
#include <openssl/ssl.h>

#include "core/base/rng.h"
#include "tests/support/certs.h"
#include "tests/support/test.h"
#include "transports/tls.h"

enum { ROOM = 4000 };

typedef struct side {
    opd_tls_context *context;
    opd_tls *tls;
    opd_err err; /* the first error */
    char text[400];
    char got[1 << 17];
    size_t size;
} side;

typedef struct duo {
    certs certs;
    side client, server;
    opd_rng rng;
    size_t chunk_max;   /* 0: whole batches */
    size_t cut_at;      /* server to client: bytes that still pass; SIZE_MAX: all */
    int flip_at;        /* the client gets this byte changed; -1: none */
} duo;

static void note(side *s, opd_err err) {
    if (err == OPD_OK || s->err != OPD_OK) return;
    s->err = err;
    snprintf(s->text, sizeof s->text, "%s", opd_err_context());
}

static void take(side *s, const uint8_t *bytes, size_t size) {
    note(s, opd_tls_receive(s->tls, bytes, size));
    for (size_t got = 1; got > 0 && s->err == OPD_OK; s->size += got) {
        size_t room = sizeof s->got - s->size < ROOM ? sizeof s->got - s->size : ROOM;
        got = 0;
        note(s, opd_tls_read(s->tls, (uint8_t *)s->got + s->size, room, &got));
    }
}

static size_t move(duo *d, side *from, side *to) {
    static opd_iobatch batch;
    size_t moved = 0;
    opd_iobatch_init(&batch);
    if (!opd_tls_pull(from->tls, &batch)) return 0;
    for (size_t i = batch.first; i < batch.count; i++) {
        uint8_t *bytes = (uint8_t *)(uintptr_t)batch.segments[i].data;
        size_t size = batch.segments[i].size_bytes;
        if (from == &d->server) {
            if (d->flip_at >= 0 && (size_t)d->flip_at < size) bytes[d->flip_at] ^= 0x40;
            d->flip_at -= d->flip_at >= 0 ? (int)size : 0;
            if (d->cut_at != SIZE_MAX && size > d->cut_at) size = d->cut_at;
            if (d->cut_at != SIZE_MAX) d->cut_at -= size;
        }
        for (size_t at = 0, part; at < size; at += part) {
            part = d->chunk_max == 0 ? size : 1 + (size_t)opd_rng_below(&d->rng, d->chunk_max);
            if (part > size - at) part = size - at;
            take(to, bytes + at, part);
            moved += part;
        }
    }
    opd_iobatch_clear(&batch);
    return moved;
}

static void run(duo *d) {
    while (move(d, &d->client, &d->server) + move(d, &d->server, &d->client) > 0) continue;
}

/* The options name files of the folder, or are NULL. */
static void duo_open(duo *d, const char *host, const char *server_cert, const char *server_key,
                     opd_tls_options client, const char *client_ca) {
    opd_tls_options server = {.cert_file = certs_path(&d->certs, server_cert)};
    d->chunk_max = 0;
    d->cut_at = SIZE_MAX;
    d->flip_at = -1;
    memset(&d->client, 0, sizeof d->client);
    memset(&d->server, 0, sizeof d->server);
    if (server_key != NULL) server.key_file = certs_path(&d->certs, server_key);
    if (client_ca != NULL) server.ca_file = certs_path(&d->certs, client_ca);
    CHECK_OK(opd_tls_context_create(NULL, true, &server, &d->server.context));
    CHECK_OK(opd_tls_context_create(NULL, false, &client, &d->client.context));
    CHECK_OK(opd_tls_create(d->server.context, "a client", &d->server.tls));
    CHECK_OK(opd_tls_create(d->client.context, host, &d->client.tls));
}

static void duo_close(duo *d) {
    side *sides[] = {&d->client, &d->server};
    for (int i = 0; i < 2; i++) {
        opd_tls_destroy(sides[i]->tls);
        opd_tls_context_destroy(sides[i]->context);
    }
}

/* A duo of the good server and a client that trusts it. */
static duo *good(void) {
    duo *d = calloc(1, sizeof *d);
    certs_init(&d->certs);
    opd_rng_init(&d->rng, 5);
    duo_open(d, "localhost", "server.pem", "server.key",
             (opd_tls_options){.ca_file = certs_path(&d->certs, "ca.pem")}, NULL);
    return d;
}

static void over(duo *d) {
    duo_close(d);
    certs_fini(&d->certs);
    free(d);
}

static void say(side *from, const char *bytes, size_t size) {
    static opd_iobatch plain;
    opd_iobatch_init(&plain);
    CHECK_INT(opd_iobatch_stage(&plain, bytes, size), size);
    CHECK_OK(opd_tls_push(from->tls, &plain));
    CHECK_INT(plain.size_bytes, 0);
    opd_iobatch_clear(&plain);
}

TEST(handshake_in_pieces) {
    duo *d = good();
    d->chunk_max = 7;
    CHECK_INT(opd_tls_state_of(d->client.tls), OPD_TLS_STATE_HANDSHAKE);
    CHECK_INT(opd_tls_alpn_of(d->client.tls), OPD_TLS_ALPN_NONE);
    run(d);
    CHECK_STR(d->client.text, "");
    CHECK_STR(d->server.text, "");
    CHECK_INT(opd_tls_state_of(d->client.tls), OPD_TLS_STATE_OPEN);
    CHECK_INT(opd_tls_state_of(d->server.tls), OPD_TLS_STATE_OPEN);
    CHECK_INT(opd_tls_alpn_of(d->client.tls), OPD_TLS_ALPN_H2);
    CHECK_INT(opd_tls_alpn_of(d->server.tls), OPD_TLS_ALPN_H2);
    say(&d->client, "question", 8);
    say(&d->server, "answer", 6);
    run(d);
    CHECK_STR(d->server.got, "question");
    CHECK_STR(d->client.got, "answer");
    opd_tls_finish(d->server.tls);
    run(d);
    CHECK_INT(opd_tls_state_of(d->client.tls), OPD_TLS_STATE_ENDED);
    CHECK_INT(opd_tls_state_of(d->server.tls), OPD_TLS_STATE_OPEN);
    over(d);
}

/* Nothing is taken before the handshake is over, and then no more than may wait. */
TEST(push_is_bounded) {
    static opd_iobatch plain;
    duo *d = good();
    opd_buf *body;
    CHECK_OK(opd_buf_create(NULL, 1 << 20, &body));
    memset(opd_buf_data(body), 'b', 1 << 20);
    opd_iobatch_init(&plain);
    opd_iobatch_stage(&plain, "head", 4);
    opd_iobatch_slice(&plain, opd_slice_whole(body));
    CHECK_OK(opd_tls_push(d->server.tls, &plain));
    CHECK_INT(plain.size_bytes, (1 << 20) + 4);
    run(d);
    for (int round = 0; plain.size_bytes > 0; round++) {
        size_t before = plain.size_bytes;
        CHECK(round < 1000);
        CHECK_OK(opd_tls_push(d->server.tls, &plain));
        CHECK(plain.size_bytes < before);
        CHECK(before - plain.size_bytes <= OPD_TLS_WAITING_BYTES_MAX + 16384);
        run(d);
        if (round == 0) CHECK(memcmp(d->client.got, "headbbbb", 8) == 0);
        d->client.size = 0;
    }
    CHECK_STR(d->client.text, "");
    opd_iobatch_clear(&plain);
    opd_buf_release(body);
    over(d);
}

typedef struct bad_case {
    const char *host, *server, *ca; /* ca NULL: the system's store */
    const char *part, *remedy;
} bad_case;

/* Each peer that is not to be trusted, with the reason and what to do. */
TEST(untrusted_servers) {
    static const bad_case cases[] = {
        {"localhost", "stray", "ca.pem", "unable to get local issuer certificate", "ca_file"},
        {"localhost", "self", "ca.pem", "self-signed certificate", "ca_file"},
        {"localhost", "server", NULL, "unable to get local issuer certificate", "ca_file"},
        {"localhost", "expired", "ca.pem", "certificate has expired", "renew it"},
        {"localhost", "early", "ca.pem", "certificate is not yet valid", "clock"},
        {"localhost", "elsewhere", "ca.pem", "hostname mismatch", "another host"},
        {"127.0.0.1", "elsewhere", "ca.pem", "IP address mismatch", "another host"},
        {"127.0.0.2", "server", "ca.pem", "IP address mismatch", "another host"},
        {"example.org", "server", "ca.pem", "hostname mismatch", "another host"},
    };
    duo *d = good();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const bad_case *bad = &cases[i];
        char cert[32], key[32];
        opd_tls_options client = {.ca_file = bad->ca != NULL ? certs_path(&d->certs, bad->ca) : NULL};
        duo_close(d);
        snprintf(cert, sizeof cert, "%s.pem", bad->server);
        snprintf(key, sizeof key, "%s.key", bad->server);
        duo_open(d, bad->host, cert, key, client, NULL);
        run(d);
        CHECK_INT(d->client.err, OPD_ERR_UNTRUSTED);
        CHECK_CONTAINS(d->client.text, bad->host);
        CHECK_CONTAINS(d->client.text, bad->part);
        CHECK_CONTAINS(d->client.text, bad->remedy);
        CHECK_INT(opd_tls_state_of(d->client.tls), OPD_TLS_STATE_FAILED);
        CHECK_INT(d->server.err, OPD_ERR_REMOTE); /* it is told by an alert */
        CHECK_INT(d->client.size, 0);
    }
    over(d);
}

TEST(trusted_servers) {
    static const char *const hosts[] = {"localhost", "127.0.0.1", "::1"};
    duo *d = good();
    for (int i = 0; i < 3; i++) {
        duo_close(d);
        duo_open(d, hosts[i], "chain.pem", NULL,
                 (opd_tls_options){.ca_file = certs_path(&d->certs, "ca.pem")}, NULL);
        run(d);
        CHECK_STR(d->client.text, "");
        CHECK_INT(opd_tls_state_of(d->client.tls), OPD_TLS_STATE_OPEN);
    }
    duo_close(d); /* by explicit wish, anybody */
    duo_open(d, "example.org", "expired.pem", "expired.key", (opd_tls_options){.unverified = true}, NULL);
    run(d);
    CHECK_INT(opd_tls_state_of(d->client.tls), OPD_TLS_STATE_OPEN);
    over(d);
}

TEST(client_certificates) {
    duo *d = good();
    opd_tls_options client = {.ca_file = certs_path(&d->certs, "ca.pem")};
    duo_close(d);
    duo_open(d, "localhost", "server.pem", "server.key", client, "ca.pem");
    run(d);
    CHECK_INT(d->server.err, OPD_ERR_UNTRUSTED);
    CHECK_CONTAINS(d->server.text, "the client shows no certificate");
    CHECK_INT(d->client.err, OPD_ERR_REMOTE);
    CHECK_CONTAINS(d->client.text, "certificate required");
    CHECK_CONTAINS(d->client.text, "give cert_file and key_file");

    char ca[128], cert[128], key[128]; /* certs_path keeps four */
    snprintf(ca, sizeof ca, "%s", certs_path(&d->certs, "ca.pem"));
    snprintf(cert, sizeof cert, "%s", certs_path(&d->certs, "client.pem"));
    snprintf(key, sizeof key, "%s", certs_path(&d->certs, "client.key"));
    client = (opd_tls_options){.ca_file = ca, .cert_file = cert, .key_file = key};
    duo_close(d);
    duo_open(d, "localhost", "server.pem", "server.key", client, "ca.pem");
    run(d);
    CHECK_STR(d->server.text, "");
    CHECK_INT(opd_tls_state_of(d->server.tls), OPD_TLS_STATE_OPEN);

    duo_close(d); /* of an authority that the server does not know */
    duo_open(d, "localhost", "server.pem", "server.key", client, "other.pem");
    run(d);
    CHECK_INT(d->server.err, OPD_ERR_UNTRUSTED);
    CHECK_INT(d->client.err, OPD_ERR_REMOTE);
    over(d);
}

/* A record that was changed or that ends halfway never becomes plain bytes. */
TEST(broken_records) {
    duo *d = good();
    run(d);
    d->flip_at = 20;
    say(&d->server, "this will be changed", 20);
    run(d);
    CHECK_INT(d->client.err, OPD_ERR_PROTO);
    CHECK_CONTAINS(d->client.text, "localhost");
    CHECK_INT(d->client.size, 0);
    CHECK_INT(d->server.err, OPD_ERR_REMOTE);
    duo_close(d);
    duo_open(d, "localhost", "server.pem", "server.key",
             (opd_tls_options){.ca_file = certs_path(&d->certs, "ca.pem")}, NULL);
    run(d);
    d->cut_at = 30;
    say(&d->server, "this will not arrive as a whole", 31);
    run(d);
    CHECK_INT(d->client.err, OPD_OK);
    CHECK_INT(d->client.size, 0);
    CHECK_INT(opd_tls_state_of(d->client.tls), OPD_TLS_STATE_OPEN);
    over(d);
}

TEST(handshake_cut_anywhere) {
    duo *d = good();
    for (size_t cut = 0; cut < 1200; cut += 37) {
        duo_close(d);
        duo_open(d, "localhost", "server.pem", "server.key",
                 (opd_tls_options){.ca_file = certs_path(&d->certs, "ca.pem")}, NULL);
        d->cut_at = cut;
        run(d);
        CHECK_INT(d->client.err, OPD_OK);
        if (cut < 300) CHECK_INT(opd_tls_state_of(d->client.tls), OPD_TLS_STATE_HANDSHAKE);
    }
    over(d);
}

static void check_garbage(side *s, const char *bytes, size_t size, const char *part) {
    take(s, (const uint8_t *)bytes, size);
    CHECK_INT(s->err, OPD_ERR_PROTO);
    CHECK_CONTAINS(s->text, part);
    CHECK_ERR(opd_tls_receive(s->tls, (const uint8_t *)"x", 1), OPD_ERR_PROTO); /* it stays failed */
    CHECK_CONTAINS(opd_err_context(), part);
}

TEST(other_protocols) {
    static const char answer[] = "HTTP/1.1 400 Bad Request\r\n\r\n", question[] = "GET / HTTP/1.1\r\n\r\n";
    duo *d = good();
    check_garbage(&d->client, answer, sizeof answer - 1, "does not speak TLS on this port; if it is a "
                  "cleartext server, use http://");
    check_garbage(&d->server, question, sizeof question - 1, "does not speak TLS");
    over(d);
}

/* A stranger's connection to our server, by OpenSSL itself: it can do what our client never does. */
typedef struct stranger {
    SSL_CTX *context;
    SSL *ssl;
    BIO *in, *out;
} stranger;

static void stranger_open(stranger *s) {
    s->context = SSL_CTX_new(TLS_client_method());
    s->ssl = SSL_new(s->context);
    s->in = BIO_new(BIO_s_mem());
    s->out = BIO_new(BIO_s_mem());
    SSL_set_bio(s->ssl, s->in, s->out);
    SSL_set_connect_state(s->ssl);
}

static void stranger_close(stranger *s) {
    SSL_free(s->ssl);
    SSL_CTX_free(s->context);
}

static void stranger_says(stranger *s, side *to) {
    uint8_t bytes[4096];
    for (size_t size; BIO_read_ex(s->out, bytes, sizeof bytes, &size) == 1;) take(to, bytes, size);
}

static void stranger_hears(stranger *s, side *from) {
    static opd_iobatch batch;
    size_t written;
    opd_iobatch_init(&batch);
    (void)opd_tls_pull(from->tls, &batch);
    for (size_t i = batch.first; i < batch.count; i++)
        CHECK_INT(BIO_write_ex(s->in, batch.segments[i].data, batch.segments[i].size_bytes, &written), 1);
    opd_iobatch_clear(&batch);
}

/* A peer that asks for new keys again and again, each time to be answered, and never reads. */
TEST(answers_are_bounded) {
    duo *d = good();
    stranger s;
    size_t taken;
    stranger_open(&s);
    for (int i = 0; i < 3; i++) {
        (void)SSL_do_handshake(s.ssl);
        stranger_says(&s, &d->server);
        stranger_hears(&s, &d->server);
    }
    CHECK_INT(opd_tls_state_of(d->server.tls), OPD_TLS_STATE_OPEN);
    int asked = 0;
    for (; asked < 100000 && d->server.err == OPD_OK; asked++) {
        CHECK_INT(SSL_key_update(s.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
        CHECK_INT(SSL_write_ex(s.ssl, "x", 1, &taken), 1);
        stranger_says(&s, &d->server);
        d->server.size = 0;
    }
    CHECK_INT(d->server.err, OPD_ERR_LIMIT);
    CHECK_CONTAINS(d->server.text, "does not read");
    CHECK(asked < 20000);
    stranger_close(&s);
    over(d);
}

static void check_refused(bool server, const opd_tls_options *options, opd_err err, const char *part) {
    opd_tls_context *context;
    CHECK_ERR(opd_tls_context_create(NULL, server, options, &context), err);
    CHECK_CONTAINS(opd_err_context(), part);
}

TEST(bad_files) {
    duo *d = good();
    char cert[128], key[128];
    snprintf(cert, sizeof cert, "%s", certs_path(&d->certs, "server.pem"));
    snprintf(key, sizeof key, "%s", certs_path(&d->certs, "server.key"));
    check_refused(false, &(opd_tls_options){.ca_file = "/nowhere/ca.pem"}, OPD_ERR_NOT_FOUND,
                  "ca_file /nowhere/ca.pem does not exist");
    check_refused(false, &(opd_tls_options){.ca_file = key}, OPD_ERR_INVALID, "ca_file");
    check_refused(true, &(opd_tls_options){0}, OPD_ERR_INVALID, "a server needs a certificate");
    check_refused(true, &(opd_tls_options){.cert_file = cert, .key_file = "/nowhere/k"},
                  OPD_ERR_NOT_FOUND, "key_file /nowhere/k does not exist");
    check_refused(true, &(opd_tls_options){.cert_file = cert}, OPD_ERR_INVALID, "private key");
    check_refused(true, &(opd_tls_options){.cert_file = cert,
                                           .key_file = certs_path(&d->certs, "client.key")},
                  OPD_ERR_INVALID, "key values mismatch");
    check_refused(true, &(opd_tls_options){.cert_file = cert,
                                           .key_file = certs_path(&d->certs, "locked.key")},
                  OPD_ERR_INVALID, "without a passphrase");
    check_refused(false, &(opd_tls_options){.key_file = key}, OPD_ERR_INVALID, "give cert_file");
    over(d);
}
