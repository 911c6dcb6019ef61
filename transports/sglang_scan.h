/* sglang_scan.h - reads a scoring answer of SGLang while it arrives (what is believed:
 * opd_sglang_score_read in sglang.h, which is this over one piece).
 *
 * Bytes go in as pieces of any size; scores go straight into the arrays of opd_sglang_scores.
 * Nothing is allocated, and the state is of constant size. Accepted are the three forms of
 * alternatives: nested triples, flat arrays, flat base64 (teacher-protocol 2.3); members come
 * in any order, unknown ones are passed over, a known one must not come twice.
 *
 * Invariant: the result depends on the bytes only, not on how they were cut into pieces.
 * Thread: one at a time. Memory: score, its ids and the arrays are the caller's and outlive it.
 */
#ifndef OPD_TRANSPORTS_SGLANG_SCAN_H
#define OPD_TRANSPORTS_SGLANG_SCAN_H

#include "core/codec/base64.h"
#include "core/codec/json_push.h"
#include "transports/sglang.h"

/* An entry [logprob, id, text] under way. */
typedef struct opd__sglang_triple {
    int item; /* which of the three comes next */
    bool usable;
    float logp;
    int64_t id;
} opd__sglang_triple;

/* Fields are private. */
typedef struct opd_sglang_scan {
    opd_json_push json;
    const opd_sglang_score *score;
    opd_sglang_scores *out;
    size_t expected;    /* rows: R + 1 */
    int64_t id_max;

    /* where we stand */
    uint32_t seen, forms, seen_finish; /* bits of members: there, with data; of finish_reason */
    bool seen_meta;
    uint8_t root_field, field, finish_field;
    int skip_level;      /* the depth around a value that is passed over; -1: none */
    opd_base64 *base64;  /* the string under way goes there; NULL: none            */

    /* rows and alternatives */
    opd__sglang_triple triple;
    int64_t rows, top_rows; /* -1: not there                             */
    int32_t top_seen, top_taken; /* entries of the present top row       */
    bool top_ended;         /* an entry of it could not be used          */
    size_t wrong_row;       /* the first with another id                 */
    int64_t wrong_id;
    bool wrong;
    size_t val_count, idx_count; /* flat numbers                         */
    int64_t shape[2], null_prefix;
    int shape_count;
    opd_base64 val64, idx64;
    char val_dtype[16], idx_dtype[16];

    /* the rest */
    int64_t prompt_tokens, cached_tokens; /* -1: not there */
    char finish[32];
    char rid[OPD_SGLANG_NAME_SIZE];
    char message[OPD_SGLANG_MESSAGE_SIZE]; /* of an abort, or what a stop matched */
} opd_sglang_scan;

/* Clears the arrays of `out` and stands at the beginning. */
void opd_sglang_scan_init(opd_sglang_scan *scan, const opd_sglang_score *score,
                          opd_sglang_scores *out);

/* Reads one piece. False once the answer can not become a good one: no more is needed then. */
bool opd_sglang_scan_feed(opd_sglang_scan *scan, const char *bytes, size_t size_bytes);

/* The verdict, as opd_sglang_score_read gives it. */
OPD_MUST_CHECK opd_err opd_sglang_scan_finish(opd_sglang_scan *scan);

#endif
