/* scoring.h - scorings by the bare client against a server that hashes (asgi.h), each token checked.
 *
 * Usage: room_open; score_many, ...; room_close. Each call must be answered by its own scores. Thread: the
 * test's, which runs the loop (loop.h).
 */
#ifndef OPD_TESTS_UNIT_TRANSPORTS_SCORING_H
#define OPD_TESTS_UNIT_TRANSPORTS_SCORING_H

#include "tests/unit/transports/asgi.h"
#include "tests/unit/transports/loop.h"
#include "transports/sglang.h"

typedef struct room {
    asgi_stack asgi;
    opd_http_client *client;
    int done;
    int32_t top_k; /* of the scorings */
} room;

/* One scoring, its ids made from its number. */
typedef struct scoring {
    opd_http_call call;
    opd_buf *body;
    opd_sglang_score score;
    int32_t *ids;
} scoring;

/* Starts all, and a client of it (env and url are set here). */
void room_open(room *r, const asgi_options *asgi, opd_http_client_options options);
void room_close(room *r);

/* A call made ready / judged: its scores are the hash of its ids; and freed, whatever became of it. */
void scoring_make(scoring *s, room *r, unsigned number, size_t count, size_t prompt_count);
void scoring_check(scoring *s);
void scoring_drop(scoring *s);

/* Runs until all `count` calls are done. */
void room_wait(room *r, int count);

/* `count` scorings at once of 3 to 200 tokens each, all checked. */
void score_many(room *r, unsigned first, int count);

/* `count` scorings at once with bodies of 3 MB. */
void score_large(room *r, int count);

/* `count` bodies of size_bytes at once; the app tells of each how it came. */
void upload_many(room *r, int count, size_t size_bytes);

/* One GET; the answer's body, to be freed. */
char *room_get(room *r, const char *path);

#endif
