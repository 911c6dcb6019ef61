/* test_torture_tls.c - the n-th allocation of OpenSSL fails, once or with all after it, in a whole
 * life of TLS: contexts, handshake, a few bytes, the end. No crash, no leak, no hang; whoever fails
 * says so with a text, and nobody gets a byte that was not sent. There are thousands of n: each of
 * the first FIRST is tried, then every STRIDE-th; OPD_TEST_ALL in the environment: each. */
#include <openssl/crypto.h>

#include "tests/support/certs.h"
#include "tests/support/test.h"
#include "transports/tls.h"

enum { FIRST = 100, STRIDE = 17 };

static long calls, fail_at; /* fail_at 0: never */
static bool all_after;

static bool fails(void) {
    calls++;
    return fail_at != 0 && (calls == fail_at || (all_after && calls > fail_at));
}

static void *get(size_t size, const char *file, int line) {
    (void)file, (void)line;
    return fails() ? NULL : malloc(size);
}

static void *change(void *block, size_t size, const char *file, int line) {
    (void)file, (void)line;
    return fails() ? NULL : realloc(block, size);
}

static void put(void *block, const char *file, int line) {
    (void)file, (void)line;
    free(block);
}

typedef struct life {
    opd_tls_context *contexts[2]; /* client, server */
    opd_tls *sides[2];
    char got[2][64];
    size_t sizes[2];
    opd_err err;
} life;

static bool is_fine(life *l, opd_err err) {
    if (err != OPD_OK) CHECK(opd_err_context()[0] != '\0');
    if (l->err == OPD_OK) l->err = err;
    return err == OPD_OK;
}

static bool move(life *l, int from) {
    static opd_iobatch batch;
    opd_tls *to = l->sides[!from];
    opd_iobatch_init(&batch);
    bool any = opd_tls_pull(l->sides[from], &batch);
    for (size_t i = batch.first; i < batch.count; i++) {
        const opd_iosegment *s = &batch.segments[i];
        size_t got = is_fine(l, opd_tls_receive(to, s->data, s->size_bytes)) ? 1 : 0;
        for (; got > 0; l->sizes[!from] += got) {
            uint8_t *at = (uint8_t *)l->got[!from] + l->sizes[!from];
            if (!is_fine(l, opd_tls_read(to, at, 16, &got))) got = 0;
        }
    }
    opd_iobatch_clear(&batch);
    return any;
}

static void live(life *l, const opd_tls_options options[2]) {
    static opd_iobatch plain;
    for (int i = 0; i < 2; i++) {
        if (!is_fine(l, opd_tls_context_create(NULL, i == 1, &options[i], &l->contexts[i]))) return;
        if (!is_fine(l, opd_tls_create(l->contexts[i], "localhost", &l->sides[i]))) return;
    }
    for (int round = 0; round < 8; round++) {
        bool moved = move(l, 0);
        if (!move(l, 1) && !moved) break;
    }
    opd_iobatch_init(&plain);
    opd_iobatch_stage(&plain, "hello", 5);
    (void)is_fine(l, opd_tls_push(l->sides[1], &plain));
    opd_iobatch_clear(&plain);
    opd_tls_finish(l->sides[1]);
    (void)move(l, 1);
}

/* One life with these failures; whether there were so many allocations. */
static bool run(const opd_tls_options options[2], long n, bool all) {
    life l = {.err = OPD_OK};
    calls = 0;
    all_after = all;
    fail_at = n;
    live(&l, options);
    fail_at = 0;
    bool reached = calls >= n;
    CHECK(l.sizes[0] == 0 || (l.sizes[0] == 5 && memcmp(l.got[0], "hello", 5) == 0));
    CHECK_INT(l.sizes[1], 0);
    if (!reached) CHECK_INT(l.sizes[0], 5);
    if (l.sizes[0] == 0) CHECK(l.err != OPD_OK); /* no silent loss */
    for (int i = 0; i < 2; i++) {
        opd_tls_destroy(l.sides[i]);
        opd_tls_context_destroy(l.contexts[i]);
    }
    return reached;
}

static void torture(bool all) {
    certs c;
    CHECK_INT(CRYPTO_set_mem_functions(get, change, put), 1);
    certs_init(&c);
    opd_tls_options options[2] = {{.ca_file = certs_path(&c, "ca.pem")},
                                  {.cert_file = certs_path(&c, "chain.pem")}};
    (void)run(options, 0, false); /* what is made once in a process */
    long n = 1;
    bool each = getenv("OPD_TEST_ALL") != NULL;
    while (run(options, n, all)) n += each || n < FIRST ? 1 : STRIDE;
    CHECK(n > FIRST);
    certs_fini(&c);
}

TEST(one_fails) { torture(false); }

TEST(all_fail) { torture(true); }
