/* pair.h - an opd_h2 client and server joined in memory, for tests: no sockets, no clock.
 *
 * Bytes pulled from one side are fed to the other in chunks of seeded random size. The server
 * answers each complete request with `answer` (or echoes its body); what arrives is recorded.
 */
#ifndef OPD_TESTS_UNIT_TRANSPORTS_PAIR_H
#define OPD_TESTS_UNIT_TRANSPORTS_PAIR_H

#include "core/base/str.h"
#include "opd/buf.h"
#include "transports/http2.h"

enum { PAIR_STREAMS_MAX = 512 };

typedef struct pair_side {
    int32_t closed;     /* on_close events */
    opd_err err;        /* of the last one */
    bool retry_safe;
    char text[128];
    opd_str body, head; /* what was received */
    int complete, status;
    opd_h2_stream *stream;
    struct pair *pair;
} pair_side;

typedef struct pair {
    opd_h2 *client, *server;
    opd_h2_events client_events, server_events;
    pair_side calls[PAIR_STREAMS_MAX], requests[PAIR_STREAMS_MAX];
    int request_count;
    bool echo, silent, no_consume, refuse; /* server behaviour */
    opd_slice answer;
    uint64_t chunk_state; /* 0: whole batches; else the seed of the chunk sizes */
    size_t chunk_max;
    int settings, goaways;
} pair;

/* A pair with these windows; at most max_streams at the server. */
void pair_init(pair *p, uint32_t stream_window, uint32_t connection_window, uint32_t max_streams);
void pair_fini(pair *p);

/* Moves bytes until neither side has any; returns the number of bytes moved. */
size_t pair_run(pair *p);

/* Starts request number i with this body. */
opd_err pair_request(pair *p, int i, const char *path, opd_slice body);

/* A buffer of size bytes of a pattern that depends on seed, and whether bytes are that. */
opd_buf *pattern_create(size_t size, unsigned seed);
bool pattern_is(const char *bytes, size_t size, unsigned seed);

#endif
