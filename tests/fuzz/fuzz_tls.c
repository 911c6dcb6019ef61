/* fuzz_tls.c - a TLS connection of either role on hostile bytes: no crash, no leak, and no plain byte
 * that the other side did not send.
 *
 * The first byte chooses: bit 0 the role that is attacked; bit 1 whether it meets the input alone or
 * after an honest handshake with a peer of its own, with bytes on the way changed by the input; the
 * rest how the input is cut into pieces. Keys and randoms differ from run to run: what is repeated
 * exactly is the input, not the connection.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/check.h"
#include "tests/fuzz/fuzz.h"
#include "tests/support/certs.h"
#include "tests/support/test.h"
#include "transports/tls.h"

#define HELLO                                                                                     \
    "\x16\x03\x01\x00\x6b\x01\x00\x00\x67\x03\x03" "0123456789abcdef0123456789abcdef" "\x00"        \
    "\x00\x04\x13\x01\xc0\x2b\x01\x00\x00\x3a"                                                     \
    "\x00\x10\x00\x05\x00\x03\x02h2" "\x00\x0a\x00\x04\x00\x02\x00\x17"                            \
    "\x00\x0d\x00\x04\x00\x02\x04\x03" "\x00\x0b\x00\x02\x01\x00"                                  \
    "\x00\x17\x00\x00" "\x00\x00\x00\x09\x00\x07\x00\x00\x04host" "\xff\x01\x00\x01\x00"
#define ALERT "\x15\x03\x03\x00\x02\x02\x28"
#define SERVER_HELLO                                                                              \
    "\x16\x03\x03\x00\x2a\x02\x00\x00\x26\x03\x03" "0123456789abcdef0123456789abcdef" "\x00"        \
    "\xc0\x2b\x00"
#define RECORD "\x17\x03\x03\x00\x14" "01234567890123456789"

const opd_fuzz_seed opd_fuzz_seeds[] = {
    OPD_FUZZ_SEED("\x01" HELLO RECORD),
    OPD_FUZZ_SEED("\x15" HELLO ALERT),
    OPD_FUZZ_SEED("\x00" SERVER_HELLO RECORD),
    OPD_FUZZ_SEED("\x01" "GET / HTTP/1.1\r\n\r\n"),
    OPD_FUZZ_SEED("\x02\x40\x01\x01\x00" RECORD),
    OPD_FUZZ_SEED("\x03\x00\x00\x00\x00" RECORD ALERT),
    {NULL, 0}};

/* What a CHECK of certs.c calls: there is no test_main.c here. */
_Noreturn void opd_test_fail(const char *file, int line, const char *fmt, ...) {
    (void)fprintf(stderr, "%s:%d: %s\n", file, line, fmt);
    abort();
}

static opd_tls_context *contexts[2]; /* client, server; made once, and kept */

static void contexts_open(void) {
    certs c;
    if (contexts[0] != NULL) return;
    certs_init(&c);
    opd_tls_options client = {.ca_file = certs_path(&c, "ca.pem")};
    opd_tls_options server = {.cert_file = certs_path(&c, "server.pem"),
                              .key_file = certs_path(&c, "server.key")};
    if (opd_tls_context_create(NULL, false, &client, &contexts[0]) != OPD_OK ||
        opd_tls_context_create(NULL, true, &server, &contexts[1]) != OPD_OK) abort();
    certs_fini(&c);
}

/* Gives bytes to one side; every plain byte must be a 'p'. */
static void take(opd_tls *to, const uint8_t *bytes, size_t size) {
    uint8_t plain[512];
    if (opd_tls_receive(to, bytes, size) != OPD_OK) return;
    for (size_t got = 1; got > 0;) {
        if (opd_tls_read(to, plain, sizeof plain, &got) != OPD_OK) return;
        for (size_t i = 0; i < got; i++)
            if (plain[i] != 'p') abort();
    }
}

/* Moves what one side has; byte number `at` is changed by `change` (0: nothing is). */
static size_t move(opd_tls *from, opd_tls *to, size_t at, uint8_t change) {
    static opd_iobatch batch;
    size_t moved = 0;
    opd_iobatch_init(&batch);
    (void)opd_tls_pull(from, &batch);
    for (size_t i = batch.first; i < batch.count; i++) {
        uint8_t *bytes = (uint8_t *)(uintptr_t)batch.segments[i].data;
        size_t size = batch.segments[i].size_bytes;
        if (at >= moved && at - moved < size) bytes[at - moved] ^= change;
        take(to, bytes, size);
        moved += size;
    }
    opd_iobatch_clear(&batch);
    return moved;
}

static void send_plain(opd_tls *from) {
    static opd_iobatch plain;
    opd_iobatch_init(&plain);
    (void)opd_iobatch_stage(&plain, "pppppppp", 8);
    if (opd_tls_push(from, &plain) != OPD_OK && opd_tls_state_of(from) != OPD_TLS_STATE_FAILED) abort();
    opd_iobatch_clear(&plain);
}

/* A handshake and a few plain bytes, with byte `at` to the victim changed. */
static void meet(opd_tls *victim, opd_tls *peer, size_t at, uint8_t change) {
    size_t seen = 0, moved = 1;
    for (int round = 0; round < 6 && moved > 0; round++) {
        moved = move(victim, peer, 0, 0);
        size_t arrived = move(peer, victim, at - seen, at >= seen ? change : 0);
        seen += arrived;
        moved += arrived;
        if (round == 3) send_plain(peer);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes) {
    if (size_bytes < 5) return 0;
    contexts_open();
    bool server = data[0] & 1, honest = data[0] & 2;
    size_t piece = data[0] >> 2, begin = honest ? 4 : 1;
    opd_tls *victim, *peer;
    if (opd_tls_create(contexts[server], "localhost", &victim) != OPD_OK ||
        opd_tls_create(contexts[!server], "localhost", &peer) != OPD_OK) abort();
    if (honest) meet(victim, peer, (size_t)data[1] << 3 | (data[2] & 7), data[3]);
    if (piece == 0) piece = size_bytes;
    for (size_t at = begin; at < size_bytes; at += piece)
        take(victim, data + at, size_bytes - at < piece ? size_bytes - at : piece);
    send_plain(victim);
    opd_tls_finish(victim);
    (void)move(victim, peer, 0, 0);
    opd_tls_destroy(victim);
    opd_tls_destroy(peer);
    return 0;
}
